/*
 * Entropy and mutual information of the votes a galaxy would receive, per question, from the concentrations
 * of T MC-dropout passes. Written once, inline and in double precision, so that every backend computes the
 * same numbers. Not for choosing galaxies: that is acquisition/.
 *
 *   total     H( mean_t P_t )    entropy of the mixture
 *   expected  mean_t H( P_t )    expected conditional entropy
 *   mutual information = total - expected >= 0, in nats: what the votes would teach us (BALD, Houlsby et al.
 *   2011)
 *
 * INFORMATION_VOTES     P_t(k) is the Dirichlet-multinomial over the counts of N votes.
 *                       N = 1: the categorical, any number of answers, exact.
 *                       Two answers: exact over N + 1 outcomes.
 *                       Three or more: the largest of the per-answer beta-binomial marginals, a lower bound
 *                       on the joint mutual information (data-processing inequality); total and expected are
 *                       those of that answer.
 * INFORMATION_ONE_VOTE  as INFORMATION_VOTES with N = 1 whatever is due.
 * INFORMATION_BINOMIAL  W+20 (arXiv 1905.07424): P_t(k) = Binomial(k; N, rho_t), rho_t the expected fraction
 *                       of the question's first answer; entropies use ln(P + 1e-12) as the authors' code.
 *
 * A galaxy's score is sum over questions of P(reached) * mutual information (schema_reached()).
 *
 * Both distributions over k = 0..N factor as P(k) = up_k down_(N-k) / norm with running products:
 *   beta-binomial (a, b)   up_k   = prod_(i<k) (a+i) / (1+i)
 *                          down_m = prod_(i<m) (b+i) / (1+i)
 *                          norm   = prod_(i<N) (a+b+i) / (1+i)
 *   binomial rho           up_k   = C(N,k) rho^k
 *                          down_m = (1-rho)^m
 *                          norm   = 1
 * so that an outcome costs a few multiplications and one logarithm. Nothing overflows while concentrations
 * are at most 101 and a question has at most SCHEMA_PER_QUESTION answers. INFORMATION_LANES passes are worked
 * on side by side, in an order that depends on T only: results do not change with the instruction set. (The
 * unroll pragmas keep compilers from taking the loops over lanes apart before they see that they are
 * vectors.)
 */
#ifndef TRIAGE_MODEL_INFORMATION_H
#define TRIAGE_MODEL_INFORMATION_H

#include "model/schema.h"

#include <stdint.h>
#include <string.h>

enum information_kind {
    INFORMATION_VOTES,
    INFORMATION_ONE_VOTE,
    INFORMATION_BINOMIAL,
};

#define INFORMATION_VOTES_MAX  200 /* N is clamped to 1 .. this */
#define INFORMATION_PASSES_MAX 512
#define INFORMATION_LANES      16 /* passes side by side */

struct information {
    double total, expected; /* nats */
};

/*
 * A galaxy's row of REDUCE_INFORMATION, in floats:
 *   total, expected               sums over questions, each weighted by its P(reached);
 *                                 score = total - expected
 *   fraction[answers]             expected vote fraction given that the question is asked, mean over passes
 *   question_total[questions]     per question, given that it is asked (not weighted)
 *   question_expected[questions]
 * A galaxy whose embedding holds NaN or infinity has NaN in every place.
 */
static inline int information_row_floats(const struct schema *schema)
{
    return 2 + schema->answers + 2 * schema->questions;
}

#define INFORMATION_INLINE static inline __attribute__((always_inline))

/* Natural logarithm of a normal positive number to 1e-15, without branches; finite for 0 (used times 0). */
INFORMATION_INLINE double information_log(double x)
{
    uint64_t bits, half_root = 0x3fe6a09e667f3bcdu; /* sqrt(1/2): the mantissa goes to [sqrt(1/2), sqrt(2)) */
    memcpy(&bits, &x, 8);
    bits += 0x3ff0000000000000u - half_root;
    uint64_t exponent_bits = bits >> 52 | 0x4330000000000000u; /* 2^52 + biased exponent, as a double */
    uint64_t mantissa_bits = (bits & 0x000fffffffffffffu) + half_root;
    double exponent, m;
    memcpy(&exponent, &exponent_bits, 8);
    memcpy(&m, &mantissa_bits, 8);
    exponent -= 4503599627370496.0 + 1023.0;
    double f = m - 1, s = f / (m + 1), q = s * s; /* ln m = 2 atanh s, minimax coefficients of fdlibm's e_log.c */
    double series = 1.479819860511658591e-01 * q + 1.531383769920937332e-01;
    series = series * q + 1.818357216161805012e-01;
    series = series * q + 2.222219843214978396e-01;
    series = series * q + 2.857142874366239149e-01;
    series = series * q + 3.999999999940941908e-01;
    series = series * q + 6.666666666666735130e-01;
    return exponent * 0.69314718055994530942 + s * (2 + q * series);
}

/* In a fixed order: halves upon halves. */
INFORMATION_INLINE double information_lane_sum(const double lane[INFORMATION_LANES])
{
    double quarter[4];
    for (int i = 0; i < 4; i++)
        quarter[i] = (lane[i] + lane[i + 8]) + (lane[i + 4] + lane[i + 12]);
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

#define INFORMATION_CELLS ((INFORMATION_VOTES_MAX + 1) * INFORMATION_LANES)

/* What is kept while passes come in, cell = k * INFORMATION_LANES + lane. */
struct information_sums {
    double mixture[INFORMATION_CELLS]; /* sum over passes of P_t(k) */
    double plogp[INFORMATION_CELLS];   /* sum over passes of P_t(k) ln P_t(k) */
};

/* A running product: its factor i is (base + i * step) * table[i]. */
struct information_product {
    double base[INFORMATION_LANES];
    double step;
    const double *table; /* [N] */
};

/*
 * Adds INFORMATION_LANES passes.
 *   first  down_0 = 1 / norm, or 0 for a lane without a pass
 *   floor  added to P inside the logarithm
 */
INFORMATION_INLINE void information_add(struct information_sums *sums, const struct information_product *up,
                                        const struct information_product *down, const double first[INFORMATION_LANES],
                                        int votes, double floor)
{
    double above[INFORMATION_CELLS], below[INFORMATION_CELLS]; /* up_k and down_(N-k) */
    double *last = below + votes * INFORMATION_LANES;
#pragma GCC unroll 1
    for (int lane = 0; lane < INFORMATION_LANES; lane++) {
        above[lane] = 1;
        last[lane] = first[lane];
    }
    for (int i = 0; i < votes; i++) {
        double *up_at = above + i * INFORMATION_LANES, *down_at = last - (i + 1) * INFORMATION_LANES;
        double up_offset = i * up->step, up_factor = up->table[i];
        double down_offset = i * down->step, down_factor = down->table[i];
#pragma GCC unroll 1
        for (int lane = 0; lane < INFORMATION_LANES; lane++) {
            up_at[lane + INFORMATION_LANES] = up_at[lane] * ((up->base[lane] + up_offset) * up_factor);
            down_at[lane] = down_at[lane + INFORMATION_LANES] * ((down->base[lane] + down_offset) * down_factor);
        }
    }
    for (int cell = 0; cell < (votes + 1) * INFORMATION_LANES; cell++) {
        double p = above[cell] * below[cell];
        sums->mixture[cell] += p;
        sums->plogp[cell] += p * information_log(p + floor);
    }
}

INFORMATION_INLINE void information_clear(struct information_sums *sums, int votes)
{
    size_t bytes = sizeof(double) * INFORMATION_LANES * (size_t)(votes + 1);
    memset(sums->mixture, 0, bytes);
    memset(sums->plogp, 0, bytes);
}

INFORMATION_INLINE struct information information_finish(const struct information_sums *sums, int votes, int passes,
                                                         double floor)
{
    double p[INFORMATION_VOTES_MAX + 1], total = 0, expected = 0;
    for (int k = 0; k <= votes; k++) {
        p[k] = information_lane_sum(sums->mixture + k * INFORMATION_LANES) / passes;
        expected -= information_lane_sum(sums->plogp + k * INFORMATION_LANES);
    }
    for (int k = 0; k <= votes; k++)
        p[k] *= information_log(p[k] + floor);
    for (int k = 0; k <= votes; k++)
        total -= p[k];
    expected /= passes;
    if (total < expected) /* they differ by rounding only: mutual information is never negative */
        total = expected;
    return (struct information){total, expected};
}

INFORMATION_INLINE int information_votes(int votes)
{
    return votes < 1 ? 1 : votes > INFORMATION_VOTES_MAX ? INFORMATION_VOTES_MAX : votes;
}

/* 1/(1+i), i < votes. */
INFORMATION_INLINE void information_reciprocals(int votes, double *table)
{
    for (int i = 0; i < votes; i++)
        table[i] = 1.0 / (1 + i);
}

/*
 * W+20's form for passes of one probability.
 *   rho  [passes] 0..1
 */
INFORMATION_INLINE struct information information_binomial(const double *rho, int passes, int votes)
{
    votes = information_votes(votes);
    double choose[INFORMATION_VOTES_MAX], ones[INFORMATION_VOTES_MAX], floor = 1e-12;
    for (int i = 0; i < votes; i++) {
        choose[i] = (double)(votes - i) / (1 + i);
        ones[i] = 1;
    }
    struct information_sums sums;
    information_clear(&sums, votes);
    for (int t = 0; t < passes; t += INFORMATION_LANES) {
        struct information_product up = {.step = 0, .table = choose}, down = {.step = 0, .table = ones};
        double first[INFORMATION_LANES];
#pragma GCC unroll 1
        for (int lane = 0; lane < INFORMATION_LANES; lane++) {
            int there = t + lane < passes;
            first[lane] = there;
            up.base[lane] = there ? rho[t + lane] : 0.5;
            down.base[lane] = 1 - up.base[lane];
        }
        information_add(&sums, &up, &down, first, votes, floor);
    }
    return information_finish(&sums, votes, passes, floor);
}

/*
 * One answer's beta-binomial marginal.
 *   alpha  [passes] concentrations of the answer, readable up to a multiple of INFORMATION_LANES
 *   sum    [passes, padded] concentration of the whole question
 *   first  [passes, padded] 1 / norm, 0 in the padding
 */
INFORMATION_INLINE struct information information_marginal(const float *alpha, const double *sum, const double *first,
                                                           const double *reciprocal, int passes, int votes)
{
    struct information_sums sums;
    information_clear(&sums, votes);
    for (int t = 0; t < passes; t += INFORMATION_LANES) {
        struct information_product up = {.step = 1, .table = reciprocal}, down = {.step = 1, .table = reciprocal};
#pragma GCC unroll 1
        for (int lane = 0; lane < INFORMATION_LANES; lane++) {
            up.base[lane] = (double)alpha[t + lane];
            down.base[lane] = sum[t + lane] - (double)alpha[t + lane];
        }
        information_add(&sums, &up, &down, first + t, votes, 0);
    }
    return information_finish(&sums, votes, passes, 0);
}

/* N = 1: the categorical alpha_a / A, any number of answers. */
INFORMATION_INLINE struct information information_categorical(const float *alpha, int answers, int passes, int stride,
                                                              const double *sum)
{
    double total = 0, plogp[INFORMATION_LANES] = {0};
    for (int a = 0; a < answers; a++) {
        double mean[INFORMATION_LANES] = {0};
        for (int t = 0; t < passes; t += INFORMATION_LANES)
#pragma GCC unroll 1
            for (int lane = 0; lane < INFORMATION_LANES; lane++) {
                double there = t + lane < passes;
                double p = (double)alpha[a * stride + t + lane] / sum[t + lane] * there;
                mean[lane] += p;
                plogp[lane] += p * information_log(p);
            }
        double p = information_lane_sum(mean) / passes;
        total -= p * information_log(p);
    }
    double expected = -information_lane_sum(plogp) / passes;
    return (struct information){total < expected ? expected : total, expected};
}

/* sum = A per pass, first = 1 / norm of N votes; both padded to a multiple of INFORMATION_LANES. */
INFORMATION_INLINE void information_norms(const float *alpha, int answers, int passes, int stride, int votes,
                                          const double *reciprocal, double *sum, double *first)
{
    for (int t = 0; t < passes; t += INFORMATION_LANES) {
        double norm[INFORMATION_LANES];
#pragma GCC unroll 1
        for (int lane = 0; lane < INFORMATION_LANES; lane++) {
            sum[t + lane] = 0;
            norm[lane] = 1;
        }
        for (int a = 0; a < answers; a++)
#pragma GCC unroll 1
            for (int lane = 0; lane < INFORMATION_LANES; lane++)
                sum[t + lane] += (double)alpha[a * stride + t + lane];
        for (int i = 0; i < votes; i++)
#pragma GCC unroll 1
            for (int lane = 0; lane < INFORMATION_LANES; lane++)
                norm[lane] *= (sum[t + lane] + i) * reciprocal[i];
#pragma GCC unroll 1
        for (int lane = 0; lane < INFORMATION_LANES; lane++)
            first[t + lane] = t + lane < passes ? 1 / norm[lane] : 0;
    }
}

/*
 * One question.
 *   alpha    [answers][stride] concentrations in (0, 101], passes contiguous; stride >= passes rounded up to
 * a multiple of INFORMATION_LANES, the padding holding any positive numbers answers  2 .. SCHEMA_PER_QUESTION
 *   passes   1 .. INFORMATION_PASSES_MAX
 *   votes    votes due, N before clamping
 */
INFORMATION_INLINE struct information information_question(enum information_kind kind, const float *alpha, int answers,
                                                           int passes, int stride, int votes)
{
    double reciprocal[INFORMATION_VOTES_MAX], sum[INFORMATION_PASSES_MAX], first[INFORMATION_PASSES_MAX];
    votes = kind == INFORMATION_ONE_VOTE ? 1 : information_votes(votes);
    information_reciprocals(votes, reciprocal);
    information_norms(alpha, answers, passes, stride, votes, reciprocal, sum, first);
    if (kind == INFORMATION_BINOMIAL) {
        for (int t = 0; t < passes; t++)
            sum[t] = (double)alpha[t] / sum[t];
        return information_binomial(sum, passes, votes);
    }
    if (votes == 1)
        return information_categorical(alpha, answers, passes, stride, sum);
    struct information best = {0, 0};
    for (int a = 0; a < (answers == 2 ? 1 : answers); a++) {
        struct information marginal = information_marginal(alpha + a * stride, sum, first, reciprocal, passes, votes);
        if (a == 0 || marginal.total - marginal.expected > best.total - best.expected)
            best = marginal;
    }
    return best;
}

#endif
