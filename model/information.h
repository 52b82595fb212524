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
 *   beta-binomial (a, b)   up_k   = prod_(i<k) (a+i) u (N-i) / (1+i)
 *                          down_m = prod_(i<m) (b+i) u
 *                          norm   = prod_(i<N) (a+b+i) u
 *   binomial rho           up_k   = prod_(i<k) rho (N-i) / (1+i) = C(N,k) rho^k
 *                          down_m = (1-rho)^m
 *                          norm   = 1
 * so that an outcome costs a few multiplications and one logarithm. With u = INFORMATION_UNIT, which cancels, nothing
 * overflows while concentrations are at most 101 and a question has at most SCHEMA_PER_QUESTION answers. INFORMATION_LANES
 * passes are worked on side by side, in an order that depends on T only: results do not change with the instruction set.
 * (The unroll pragmas keep compilers from taking the loops over lanes apart before they see that they are vectors.)
 *
 * Functions that end in _lanes do the lanes `begin` .. `end` - 1 only: a processor does all at once, on a device each lane is a
 * thread, with a barrier before what joins the lanes (gpu/kernels_score.h).
 */
#ifndef TRIAGE_MODEL_INFORMATION_H
#define TRIAGE_MODEL_INFORMATION_H

#include "base/host_device.h"
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
#define INFORMATION_LANES      16          /* passes side by side */
#define INFORMATION_UNIT       (1 / 128.0) /* a power of two: scaling with it is exact */

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

#define INFORMATION_INLINE HOST_DEVICE static inline __attribute__((always_inline))

#define INFORMATION_LN2 0.69314718055994530942

/*
 * log2 of a normal positive number to 4e-16 of the larger of itself and 1, without branches; finite for 0 (used times 0).
 * With x = 2^e m, m in [sqrt(1/2), sqrt(2)), and s = (m - 1) / (m + 1): e + 2 atanh(s) / ln 2, the series in s^2 minimax to
 * 2e-16 (Remez).
 */
INFORMATION_INLINE double information_log2(double x)
{
    uint64_t bits, half_root = 0x3fe6a09e667f3bcdu; /* sqrt(1/2) */
    memcpy(&bits, &x, 8);
    bits += 0x3ff0000000000000u - half_root;
    uint64_t exponent_bits = bits >> 52 | 0x4330000000000000u; /* 2^52 + biased exponent, as a double */
    uint64_t mantissa_bits = (bits & 0x000fffffffffffffu) + half_root;
    double exponent, m;
    memcpy(&exponent, &exponent_bits, 8);
    memcpy(&m, &mantissa_bits, 8);
    exponent -= 4503599627370496.0 + 1023.0;
    double s = (m - 1) / (m + 1), q = s * s;
    double series = 0.24265882108699896 * q + 0.2614688854545477;
    series = series * q + 0.3206154814133545;
    series = series * q + 0.4121984180401099;
    series = series * q + 0.5770780171097541;
    series = series * q + 0.9617966939248291;
    return exponent + s * (2.8853900817779268 + q * series);
}

/*
 * log2 of a normal positive number less a half, to 1.5e-12, in fewer operations: with m in [1, 2) and s = (m - sqrt 2) / (m + sqrt 2)
 * it is e + 2 atanh(s) / ln 2. Probabilities add up to 1, so sums of p log2 p get their half back where they end.
 */
INFORMATION_INLINE double information_log2_less_half(double x)
{
    const double root = 1.4142135623730951;
    uint64_t bits;
    memcpy(&bits, &x, 8);
    uint64_t exponent_bits = bits >> 52 | 0x4330000000000000u;
    uint64_t mantissa_bits = (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u;
    double exponent, m;
    memcpy(&exponent, &exponent_bits, 8);
    memcpy(&m, &mantissa_bits, 8);
    exponent -= 4503599627370496.0 + 1023.0;
    double s = (m - root) / (m + root), q = s * s;
    double series = 0.3414684237652874 * q + 0.4116307149289677;
    series = series * q + 0.5770842757947884;
    series = series * q + 0.9617966711115803;
    return exponent + s * (2.8853900817779268 + q * series);
}

/* Natural logarithm, as information_log2(). */
INFORMATION_INLINE double information_log(double x)
{
    return information_log2(x) * INFORMATION_LN2;
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

/* What is kept while passes come in. */
struct information_work {
    double *mixture; /* [N + 1][INFORMATION_LANES] sums over passes of P_t(k) */
    double *
        below; /* [N + 1][INFORMATION_LANES] down_(N-k) / norm of the passes being added; then what information_mix() leaves */
    double *above; /* [INFORMATION_LANES] up_k of the passes being added */
    double *plogp; /* [INFORMATION_LANES] sums over passes and k of P_t(k) (log2 P_t(k) - 1/2) */
};

/* Passes to add, one per lane. Factor i of up_k is (up + i step) choose[i], of down_m it is down + i step. */
struct information_passes {
    double up[INFORMATION_LANES], down[INFORMATION_LANES];
    double first[INFORMATION_LANES]; /* 1 / norm, 0 for a lane without a pass */
    double step;
};

/*
 * Adds INFORMATION_LANES passes.
 *   choose  [N + 1] information_choice()
 *   floor   added to P inside the logarithm
 */
INFORMATION_INLINE void information_add_lanes(const struct information_work *work,
                                              const struct information_passes *passes, const double *choose, int votes,
                                              double floor, int begin, int end)
{
    double *last = work->below + votes * INFORMATION_LANES, down[INFORMATION_LANES];
#pragma GCC unroll 1
    for (int lane = begin; lane < end; lane++) {
        work->above[lane] = 1;
        down[lane] = last[lane] = passes->first[lane];
    }
    for (int i = 0; i < votes; i++) {
        double *below = last - (i + 1) * INFORMATION_LANES, offset = i * passes->step;
#pragma GCC unroll 1
        for (int lane = begin; lane < end; lane++) { /* `down` beside `below`: it stays in registers */
            down[lane] *= passes->down[lane] + offset;
            below[lane] = down[lane];
        }
    }
    for (int k = 0; k <= votes; k++) {
        double *mixture = work->mixture + k * INFORMATION_LANES, *below = work->below + k * INFORMATION_LANES;
        double offset = k * passes->step, factor = choose[k];
#pragma GCC unroll 1
        for (int lane = begin; lane < end; lane++) {
            double p = work->above[lane] * below[lane];
            work->above[lane] *= (passes->up[lane] + offset) * factor;
            mixture[lane] += p;
            work->plogp[lane] += p * information_log2_less_half(floor > 0 ? p + floor : p);
        }
    }
}

INFORMATION_INLINE void information_clear_lanes(const struct information_work *work, int votes, int begin, int end)
{
    for (int lane = begin; lane < end; lane++)
        work->plogp[lane] = 0;
    for (int k = 0; k <= votes; k++)
        for (int lane = begin; lane < end; lane++)
            work->mixture[k * INFORMATION_LANES + lane] = 0;
}

/* Joins the lanes of outcomes k = begin, begin + step ...: below[k] becomes P(k) log2 P(k) of the mixture. */
INFORMATION_INLINE void information_mix(const struct information_work *work, int votes, int passes, double floor,
                                        int begin, int step)
{
    for (int k = begin; k <= votes; k += step)
        work->below[k] = information_lane_sum(work->mixture + k * INFORMATION_LANES) / passes;
    for (int k = begin; k <= votes; k += step)
        work->below[k] *= information_log2(work->below[k] + floor);
}

INFORMATION_INLINE struct information information_finish(const struct information_work *work, int votes, int passes)
{
    double total = 0, expected = -information_lane_sum(work->plogp) / passes - 0.5;
    for (int k = 0; k <= votes; k++)
        total -= work->below[k];
    if (total < expected) /* they differ by rounding only: mutual information is never negative */
        total = expected;
    struct information information = {total * INFORMATION_LN2, expected * INFORMATION_LN2};
    return information;
}

INFORMATION_INLINE int information_votes(int votes)
{
    return votes < 1 ? 1 : votes > INFORMATION_VOTES_MAX ? INFORMATION_VOTES_MAX : votes;
}

/* Factor i = 0..N of C(N,k), which is the product of the first k. */
INFORMATION_INLINE double information_choice(int votes, int i)
{
    return (double)(votes - i) / (1 + i);
}

INFORMATION_INLINE void information_choices(int votes, double *choose)
{
    for (int i = 0; i <= votes; i++)
        choose[i] = information_choice(votes, i);
}

#define INFORMATION_BINOMIAL_FLOOR 1e-12

/*
 * W+20's form for passes of one probability.
 *   rho  [passes] 0..1
 */
INFORMATION_INLINE void information_binomial_lanes(const struct information_work *work, const double *rho,
                                                   const double *choose, int passes, int votes, int begin, int end)
{
    information_clear_lanes(work, votes, begin, end);
    for (int t = 0; t < passes; t += INFORMATION_LANES) {
        struct information_passes some;
        some.step = 0;
#pragma GCC unroll 1
        for (int lane = begin; lane < end; lane++) {
            int there = t + lane < passes;
            some.first[lane] = there;
            some.up[lane] = there ? rho[t + lane] : 0.5;
            some.down[lane] = 1 - some.up[lane];
        }
        information_add_lanes(work, &some, choose, votes, INFORMATION_BINOMIAL_FLOOR, begin, end);
    }
}

INFORMATION_INLINE struct information information_binomial(const double *rho, int passes, int votes)
{
    double choose[INFORMATION_VOTES_MAX + 1], mixture[INFORMATION_CELLS], below[INFORMATION_CELLS];
    double above[INFORMATION_LANES], plogp[INFORMATION_LANES];
    struct information_work work = {mixture, below, above, plogp};
    votes = information_votes(votes);
    information_choices(votes, choose);
    information_binomial_lanes(&work, rho, choose, passes, votes, 0, INFORMATION_LANES);
    information_mix(&work, votes, passes, INFORMATION_BINOMIAL_FLOOR, 0, 1);
    return information_finish(&work, votes, passes);
}

/*
 * One answer's beta-binomial marginal.
 *   alpha  [passes] concentrations of the answer, readable up to a multiple of INFORMATION_LANES
 *   sum    [passes, padded] concentration of the whole question
 *   first  [passes, padded] 1 / norm, 0 in the padding
 */
INFORMATION_INLINE void information_marginal_lanes(const struct information_work *work, const float *alpha,
                                                   const double *sum, const double *first, const double *choose,
                                                   int passes, int votes, int begin, int end)
{
    information_clear_lanes(work, votes, begin, end);
    for (int t = 0; t < passes; t += INFORMATION_LANES) {
        struct information_passes some;
        some.step = INFORMATION_UNIT;
#pragma GCC unroll 1
        for (int lane = begin; lane < end; lane++) {
            some.first[lane] = first[t + lane];
            some.up[lane] = (double)alpha[t + lane] * INFORMATION_UNIT;
            some.down[lane] = (sum[t + lane] - (double)alpha[t + lane]) * INFORMATION_UNIT;
        }
        information_add_lanes(work, &some, choose, votes, 0, begin, end);
    }
}

INFORMATION_INLINE struct information information_marginal(const float *alpha, const double *sum, const double *first,
                                                           const double *choose, int passes, int votes)
{
    double mixture[INFORMATION_CELLS], below[INFORMATION_CELLS], above[INFORMATION_LANES], plogp[INFORMATION_LANES];
    struct information_work work = {mixture, below, above, plogp};
    information_marginal_lanes(&work, alpha, sum, first, choose, passes, votes, 0, INFORMATION_LANES);
    information_mix(&work, votes, passes, 0, 0, 1);
    return information_finish(&work, votes, passes);
}

/*
 * N = 1: the categorical alpha_a / A, any number of answers.
 *   mean   [answers][INFORMATION_LANES] OUTPUT sums over passes of P
 *   plogp  [INFORMATION_LANES] OUTPUT sums over passes and answers of P log2 P
 */
INFORMATION_INLINE void information_categorical_lanes(const float *alpha, int answers, int passes, int stride,
                                                      const double *sum, double *mean, double *plogp, int begin,
                                                      int end)
{
    for (int lane = begin; lane < end; lane++)
        plogp[lane] = 0;
    for (int a = 0; a < answers; a++) {
        for (int lane = begin; lane < end; lane++)
            mean[a * INFORMATION_LANES + lane] = 0;
        for (int t = 0; t < passes; t += INFORMATION_LANES)
#pragma GCC unroll 1
            for (int lane = begin; lane < end; lane++) {
                double there = t + lane < passes;
                double p = (double)alpha[a * stride + t + lane] / sum[t + lane] * there;
                mean[a * INFORMATION_LANES + lane] += p;
                plogp[lane] += p * information_log2(p);
            }
    }
}

INFORMATION_INLINE struct information information_categorical_finish(const double *mean, const double *plogp,
                                                                     int answers, int passes)
{
    double total = 0;
    for (int a = 0; a < answers; a++) {
        double p = information_lane_sum(mean + a * INFORMATION_LANES) / passes;
        total -= p * information_log2(p);
    }
    double expected = -information_lane_sum(plogp) / passes;
    if (total < expected)
        total = expected;
    struct information information = {total * INFORMATION_LN2, expected * INFORMATION_LN2};
    return information;
}

/* sum = A per pass, first = 1 / norm of N votes; both padded to a multiple of INFORMATION_LANES. */
INFORMATION_INLINE void information_norms_lanes(const float *alpha, int answers, int passes, int stride, int votes,
                                                double *sum, double *first, int begin, int end)
{
    for (int t = 0; t < passes; t += INFORMATION_LANES) {
        double norm[INFORMATION_LANES];
#pragma GCC unroll 1
        for (int lane = begin; lane < end; lane++) {
            sum[t + lane] = 0;
            norm[lane] = 1;
        }
        for (int a = 0; a < answers; a++)
#pragma GCC unroll 1
            for (int lane = begin; lane < end; lane++)
                sum[t + lane] += (double)alpha[a * stride + t + lane];
        for (int i = 0; i < votes; i++)
#pragma GCC unroll 1
            for (int lane = begin; lane < end; lane++)
                norm[lane] *= (sum[t + lane] + i) * INFORMATION_UNIT;
#pragma GCC unroll 1
        for (int lane = begin; lane < end; lane++)
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
    double choose[INFORMATION_VOTES_MAX + 1], sum[INFORMATION_PASSES_MAX], first[INFORMATION_PASSES_MAX];
    votes = kind == INFORMATION_ONE_VOTE ? 1 : information_votes(votes);
    information_norms_lanes(alpha, answers, passes, stride, votes, sum, first, 0, INFORMATION_LANES);
    if (kind == INFORMATION_BINOMIAL) {
        for (int t = 0; t < passes; t++)
            sum[t] = (double)alpha[t] / sum[t];
        return information_binomial(sum, passes, votes);
    }
    if (votes == 1) {
        double mean[SCHEMA_PER_QUESTION * INFORMATION_LANES], plogp[INFORMATION_LANES];
        information_categorical_lanes(alpha, answers, passes, stride, sum, mean, plogp, 0, INFORMATION_LANES);
        return information_categorical_finish(mean, plogp, answers, passes);
    }
    struct information best = {0, 0};
    information_choices(votes, choose);
    for (int a = 0; a < (answers == 2 ? 1 : answers); a++) {
        struct information marginal = information_marginal(alpha + a * stride, sum, first, choose, passes, votes);
        if (a == 0 || marginal.total - marginal.expected > best.total - best.expected)
            best = marginal;
    }
    return best;
}

/* Expected fraction of each answer, alpha_a / A averaged over passes; alpha as in information_question(). fraction [answers] OUTPUT */
INFORMATION_INLINE void information_fractions(const float *alpha, int answers, int passes, int stride, float *fraction)
{
    double mean[SCHEMA_PER_QUESTION * INFORMATION_LANES] = {0};
    for (int t = 0; t < passes; t += INFORMATION_LANES) {
        double share[INFORMATION_LANES] = {0};
        for (int a = 0; a < answers; a++)
#pragma GCC unroll 1
            for (int lane = 0; lane < INFORMATION_LANES; lane++)
                share[lane] += (double)alpha[a * stride + t + lane];
#pragma GCC unroll 1
        for (int lane = 0; lane < INFORMATION_LANES; lane++)
            share[lane] = (t + lane < passes) / share[lane];
        for (int a = 0; a < answers; a++)
#pragma GCC unroll 1
            for (int lane = 0; lane < INFORMATION_LANES; lane++)
                mean[a * INFORMATION_LANES + lane] += (double)alpha[a * stride + t + lane] * share[lane];
    }
    for (int a = 0; a < answers; a++)
        fraction[a] = (float)(information_lane_sum(mean + a * INFORMATION_LANES) / passes);
}

#endif
