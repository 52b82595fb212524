/* Every outcome of N votes on K answers, once; see the header. */
#include "acquisition/joint.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

/*
 * P_t(k_1..k_K) = N! / (A)_N * prod_a (alpha_a)_(k_a) / k_a!. One row per answer and count holds the factors of all
 * passes, so that an outcome costs one product, one logarithm per pass, and one for the mixture.
 */
struct enumeration {
    int answers, passes, votes;
    double *rising;                                              /* [answers][votes + 1][passes] (alpha)_k / k! */
    double product[SCHEMA_PER_QUESTION][INFORMATION_PASSES_MAX]; /* of the answers before */
    double total, expected;
};

long joint_outcomes(int answers, int votes)
{
    votes = information_votes(votes);
    double ways = 1;
    for (int i = 1; i < answers; i++)
        ways = ways * (votes + i) / i;
    return ways > JOINT_OUTCOMES_MAX ? JOINT_OUTCOMES_MAX + 1 : (long)(ways + 0.5);
}

static double *rising(const struct enumeration *e, int a, int k)
{
    return e->rising + (a * (e->votes + 1) + k) * e->passes;
}

static void prepare(struct enumeration *e, const float *alpha, int stride)
{
    for (int t = 0; t < e->passes; t++) {
        double sum = 0, norm = 1;
        for (int a = 0; a < e->answers; a++) {
            double value = (double)alpha[t * stride + a], product = 1;
            sum += value;
            rising(e, a, 0)[t] = 1;
            for (int k = 0; k < e->votes; k++)
                rising(e, a, k + 1)[t] = product *= (value + k) / (1 + k);
        }
        for (int k = 0; k < e->votes; k++)
            norm *= (sum + k) / (1 + k);
        e->product[0][t] = 1 / norm;
    }
}

static void outcome(struct enumeration *e, const double *before, const double *last)
{
    double mean = 0, plogp = 0;
    for (int t = 0; t < e->passes; t++) {
        double p = before[t] * last[t];
        mean += p;
        plogp += p * information_log(p);
    }
    mean /= e->passes;
    e->total -= mean * information_log(mean);
    e->expected -= plogp / e->passes;
}

/* Answer `a` takes 0 .. left votes, the last one what remains. */
static void enumerate(struct enumeration *e, int a, int left)
{
    if (a == e->answers - 1) {
        outcome(e, e->product[a], rising(e, a, left));
        return;
    }
    for (int k = 0; k <= left; k++) {
        const double *factor = rising(e, a, k);
        for (int t = 0; t < e->passes; t++)
            e->product[a + 1][t] = e->product[a][t] * factor[t];
        enumerate(e, a + 1, left - k);
    }
}

struct information joint_information(const float *alpha, int stride, int answers, int passes, int votes)
{
    struct enumeration e = {.answers = answers, .passes = passes, .votes = information_votes(votes)};
    assert(joint_outcomes(answers, votes) <= JOINT_OUTCOMES_MAX);
    e.rising = malloc((size_t)answers * ((size_t)e.votes + 1) * (size_t)passes * sizeof *e.rising);
    if (!e.rising)
        return (struct information){NAN, NAN};
    prepare(&e, alpha, stride);
    enumerate(&e, 0, e.votes);
    free(e.rising);
    if (e.total < e.expected)
        e.total = e.expected;
    return (struct information){e.total, e.expected};
}
