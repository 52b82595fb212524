/* Entropies and mutual information against published BALD vectors and brute force. */
#include "base/philox.h"
#include "model/information.h"
#include "tests/support/reference_heads.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SEED         20231107u

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
}

static void logarithm(void **state)
{
    (void)state;
    for (int exponent = -300; exponent <= 300; exponent++)
        for (int i = 0; i < 100; i++) {
            double x = ldexp(1 + i / 100.0, exponent);
            assert_near(information_log(x), log(x), 4e-16 * fmax(1, fabs(log(x))));
        }
    assert_true(information_log(0.5) == -0.69314718055994530942);
    assert_true(isfinite(information_log(0)) && information_log(1) == 0);
}

/* W+20's acquisition function for passes of one probability, published vectors. */
static void known_bald_vectors(void **state)
{
    (void)state;
    static const struct {
        int passes, votes;
        double rho[8], mutual, total;
    } vectors[] = {
        {3, 40, {.1, .5, .9},              1.0934963153762887,  3.3108471365654553},
        {3, 40, {.45, .5, .55},            0.11858944745906452, 2.6853562451006883},
        {3, 40, {.5, .5, .5},              0,                   2.570176159803489 },
        {3, 10, {.1, .5, .9},              0.8778193314455589,  2.3550754377715095},
        {5, 40, {.02, .03, .04, .05, .06}, 0.09872319895473369, 1.6209444861365556},
    };
    for (size_t i = 0; i < COUNT(vectors); i++) {
        struct information one = information_binomial(vectors[i].rho, vectors[i].passes, vectors[i].votes);
        assert_near(one.total - one.expected, vectors[i].mutual, 1e-9);
        assert_near(one.total, vectors[i].total, 1e-9);
    }
}

static float random_alpha(uint32_t number)
{
    return 1.0f + 100.0f * powf(philox_uniform(philox(SEED, number, 0, 0, 0).word[0]), 3);
}

#define STRIDE 48

/* alpha[answer * STRIDE + pass]; padding of odd values that must not matter. */
static void random_passes(uint32_t number, int answers, int passes, float *alpha)
{
    for (int a = 0; a < answers; a++)
        for (int t = 0; t < STRIDE; t++)
            alpha[a * STRIDE + t] =
                t < passes ? random_alpha(number * 1000 + (uint32_t)(a * STRIDE + t)) : 1e-3f + (float)a;
}

static void marginal_of(const float *alpha, int answers, int passes, int answer, double *a, double *b)
{
    for (int t = 0; t < passes; t++) {
        a[t] = (double)alpha[answer * STRIDE + t];
        b[t] = 0;
        for (int other = 0; other < answers; other++)
            b[t] += other == answer ? 0 : (double)alpha[other * STRIDE + t];
    }
}

static void two_answers_are_exact(void **state)
{
    (void)state;
    print_message("seed %u\n", SEED);
    const int votes[] = {2, 5, 40, 150, 200}, passes[] = {1, 7, 8, 9, 30, 40};
    for (size_t v = 0; v < COUNT(votes); v++)
        for (size_t p = 0; p < COUNT(passes); p++) {
            float alpha[2 * STRIDE];
            double a[STRIDE], b[STRIDE];
            random_passes((uint32_t)(v * 100 + p), 2, passes[p], alpha);
            marginal_of(alpha, 2, passes[p], 0, a, b);
            struct information expected = reference_beta_binomial(a, b, passes[p], votes[v]);
            struct information one = information_question(INFORMATION_VOTES, alpha, 2, passes[p], STRIDE, votes[v]);
            assert_near(one.total, expected.total, 1e-10);
            assert_near(one.expected, expected.expected, 1e-10);
        }
}

/* Concentrations at their limits with the most answers and votes: nothing overflows. */
static void extremes_stay_exact(void **state)
{
    (void)state;
    static float alpha[SCHEMA_PER_QUESTION * STRIDE];
    double a[STRIDE], b[STRIDE];
    for (int pattern = 0; pattern < 4; pattern++) {
        for (int i = 0; i < SCHEMA_PER_QUESTION; i++)
            for (int t = 0; t < STRIDE; t++)
                alpha[i * STRIDE + t] = (pattern >> (i == t % 16) & 1) ? 101 : 1;
        struct information one =
            information_question(INFORMATION_VOTES, alpha, SCHEMA_PER_QUESTION, 30, STRIDE, INFORMATION_VOTES_MAX);
        struct information best = {0, 0};
        for (int i = 0; i < SCHEMA_PER_QUESTION; i++) {
            marginal_of(alpha, SCHEMA_PER_QUESTION, 30, i, a, b);
            struct information marginal = reference_beta_binomial(a, b, 30, INFORMATION_VOTES_MAX);
            if (i == 0 || marginal.total - marginal.expected > best.total - best.expected + 1e-9)
                best = marginal;
        }
        assert_near(one.total - one.expected, best.total - best.expected, 1e-9);
        assert_true(one.total > 0 && one.total <= log(INFORMATION_VOTES_MAX + 1));
    }
}

static double log_dirichlet_multinomial(const double *alpha, const int *count, int answers)
{
    double sum = 0, votes = 0, log_p = 0;
    for (int a = 0; a < answers; a++) {
        sum += alpha[a];
        votes += count[a];
        log_p += lgamma(count[a] + alpha[a]) - lgamma(alpha[a]) - lgamma(count[a] + 1);
    }
    return log_p + lgamma(sum) + lgamma(votes + 1) - lgamma(votes + sum);
}

/* Three answers: below the mutual information of the joint counts, and not by much. */
static void three_answers_bound_the_joint(void **state)
{
    (void)state;
    print_message("seed %u\n", SEED);
    const int passes = 30, votes = 10;
    double ratio_sum = 0;
    for (uint32_t trial = 0; trial < 20; trial++) {
        float alpha[3 * STRIDE];
        double total = 0, expected = 0;
        random_passes(5000 + trial, 3, passes, alpha);
        for (int i = 0; i <= votes; i++)
            for (int j = 0; i + j <= votes; j++) {
                int count[3] = {i, j, votes - i - j};
                double mean = 0;
                for (int t = 0; t < passes; t++) {
                    double one[3] = {(double)alpha[t], (double)alpha[STRIDE + t], (double)alpha[2 * STRIDE + t]};
                    double log_p = log_dirichlet_multinomial(one, count, 3);
                    mean += exp(log_p) / passes;
                    expected -= exp(log_p) * log_p / passes;
                }
                total -= mean * log(mean);
            }
        struct information bound = information_question(INFORMATION_VOTES, alpha, 3, passes, STRIDE, votes);
        double mutual = bound.total - bound.expected;
        assert_true(mutual > 0 && mutual <= total - expected + 1e-12);
        ratio_sum += mutual / (total - expected);
    }
    assert_true(ratio_sum / 20 > 0.5);
}

/* One vote: the categorical, whatever is due. By hand for two passes. */
static void one_vote(void **state)
{
    (void)state;
    float alpha[3 * 16] = {0};
    const float passes[2][3] = {
        {2, 2, 4},
        {8, 1, 1}
    };
    for (int a = 0; a < 3; a++)
        for (int t = 0; t < 16; t++)
            alpha[a * 16 + t] = t < 2 ? passes[t][a] : 9;
    double expected = -(0.25 * log(0.25) * 2 + 0.5 * log(0.5) + 0.8 * log(0.8) + 0.2 * log(0.1)) / 2;
    double total = -(0.525 * log(0.525) + 0.175 * log(0.175) + 0.3 * log(0.3));
    for (int votes = 1; votes <= 40; votes += 39) {
        struct information one = information_question(INFORMATION_ONE_VOTE, alpha, 3, 2, 16, votes);
        assert_near(one.total, total, 1e-14);
        assert_near(one.expected, expected, 1e-14);
    }
    struct information due = information_question(INFORMATION_VOTES, alpha, 3, 2, 16, 1);
    assert_near(due.total, total, 1e-14);
    /* Zero votes due count as one. */
    due = information_question(INFORMATION_VOTES, alpha, 3, 2, 16, 0);
    assert_near(due.total, total, 1e-14);
}

static void equal_passes_teach_nothing(void **state)
{
    (void)state;
    float alpha[4 * STRIDE];
    for (int a = 0; a < 4; a++)
        for (int t = 0; t < STRIDE; t++)
            alpha[a * STRIDE + t] = 1.5f + (float)(7 * a);
    for (int kind = INFORMATION_VOTES; kind <= INFORMATION_BINOMIAL; kind++)
        for (int answers = 2; answers <= 4; answers++) {
            struct information one = information_question((enum information_kind)kind, alpha, answers, 30, STRIDE, 40);
            assert_true(one.total >= one.expected);
            assert_near(one.total, one.expected, 1e-12);
        }
}

/* The binomial form takes the first answer's expected fraction. */
static void binomial_uses_the_first_answer(void **state)
{
    (void)state;
    float alpha[3 * 16];
    const float passes[3][3] = {
        {1.5f, 6.75f, 6.75f},
        {10,   4,     6    },
        {45,   4,     1    }
    }; /* fractions 0.1, 0.5, 0.9 */
    for (int a = 0; a < 3; a++)
        for (int t = 0; t < 16; t++)
            alpha[a * 16 + t] = t < 3 ? passes[t][a] : 1;
    struct information one = information_question(INFORMATION_BINOMIAL, alpha, 3, 3, 16, 40);
    assert_near(one.total - one.expected, 1.0934963153762887, 1e-9);
}

/* More votes to come can only teach more. */
static void grows_with_votes(void **state)
{
    (void)state;
    float alpha[2 * STRIDE];
    random_passes(77, 2, 30, alpha);
    double before = 0;
    for (int votes = 1; votes <= INFORMATION_VOTES_MAX; votes++) {
        struct information one = information_question(INFORMATION_VOTES, alpha, 2, 30, STRIDE, votes);
        assert_true(one.total - one.expected > before);
        before = one.total - one.expected;
    }
    struct information more = information_question(INFORMATION_VOTES, alpha, 2, 30, STRIDE, 60000);
    assert_true(more.total - more.expected == before); /* clamped */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logarithm),
        cmocka_unit_test(known_bald_vectors),
        cmocka_unit_test(two_answers_are_exact),
        cmocka_unit_test(extremes_stay_exact),
        cmocka_unit_test(three_answers_bound_the_joint),
        cmocka_unit_test(one_vote),
        cmocka_unit_test(equal_passes_teach_nothing),
        cmocka_unit_test(binomial_uses_the_first_answer),
        cmocka_unit_test(grows_with_votes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
