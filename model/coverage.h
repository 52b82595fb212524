/*
 * How far predicted vote counts can be trusted: whether they fall where the model says they fall, as often as it says.
 * Sums that galaxies are added to one by one, each answer apart. Not for whether the likeliest answer is right: that is
 * agreement.h.
 *
 * With P(k) = mean over passes of P_t(k) the probability that k of N votes go to an answer, P_t beta-binomial (ours) or
 * Binomial(k; N, alpha_a / A) as in Walmsley et al. 2020 (W+20, arXiv 1905.07424):
 *
 *   by votes      for e = 0 .. COVERAGE_VOTES: predicted = P(c - e <= k <= c + e), c = floor(sum k P(k)), beside the share of
 *                 galaxies whose k lies there (W+20, Fig. 6 and its authors' code)
 *   by fraction   for e = 0, 0.01 .. 0.5: the same within e of the expected fraction sum k P(k) / N (W+20, abstract)
 *   credible      for 50 requested masses, 0.1 .. 0.95, the interval of count_interval() (dirichlet.h): its actual mass
 *                 beside how often k lies in it, in COVERAGE_BINS bins of mass, apart for galaxies with fewer and with at
 *                 least COVERAGE_VOTES_MANY votes; intervals of the same mass count once for each galaxy (Walmsley et al.
 *                 2021, arXiv 2102.08414, Fig. 19)
 *   votes         the answer's expected fraction beside the share of votes it got, in COVERAGE_BINS bins of the former, each
 *                 galaxy with its votes as weight. The expected calibration error (Naeini et al. 2015) is the mean of
 *                 their absolute difference over bins, weighted by votes
 */
#ifndef TRIAGE_MODEL_COVERAGE_H
#define TRIAGE_MODEL_COVERAGE_H

#include "model/schema.h"

#include <stdint.h>

#define COVERAGE_VOTES        80
#define COVERAGE_FRACTIONS    50 /* steps of 0.01 */
#define COVERAGE_BINS         20
#define COVERAGE_VOTES_MANY   20
#define COVERAGE_GALAXIES_MIN 100  /* intervals in a bin of `credible` before it says anything */
#define COVERAGE_N_MAX        1000 /* votes on a question; galaxies with more are left out and counted */

enum coverage_kind { COVERAGE_OURS, COVERAGE_BINOMIAL, COVERAGE_KINDS };

struct coverage_sums {
    double predicted, observed;
};

struct coverage {
    uint64_t galaxies, left_out;
    struct coverage_sums votes[COVERAGE_KINDS][COVERAGE_VOTES + 1];
    struct coverage_sums fraction[COVERAGE_KINDS][COVERAGE_FRACTIONS + 1];
    struct coverage_sums credible[2][COVERAGE_BINS]; /* [many votes] */
    uint64_t intervals[2][COVERAGE_BINS];
    struct coverage_sums expected[COVERAGE_BINS]; /* of votes */
    double weight[COVERAGE_BINS];                 /* votes */
    double inside_80;                             /* galaxies whose k lies in the interval of 80 % */
};

/*
 * P(k) for k = 0 .. votes.
 *   alpha, sum   [passes] concentrations > 0 of the answer and of its whole question
 *   probability  [votes + 1] OUTPUT, adds up to 1
 *   votes        1 .. COVERAGE_N_MAX
 */
void coverage_probability(enum coverage_kind kind, const double *alpha, const double *sum, int passes, int votes,
                          double *probability);

/* What passes [passes][answers] say of one answer of the schema: alpha and sum [passes] OUTPUT, as above. */
void coverage_passes(const struct schema *schema, int answer, const float *concentrations, int passes, double *alpha,
                     double *sum);

/* Adds one galaxy that got k of `votes` votes for the answer; nothing without votes. Start from a zeroed struct. */
void coverage_add(struct coverage *coverage, const double *alpha, const double *sum, int passes, int k, int votes);

/* Adds what another one has summed. */
void coverage_merge(struct coverage *coverage, const struct coverage *other);

/* (predicted - observed) / observed; NaN where nothing was observed. */
double coverage_error(const struct coverage_sums *sums);

/* NaN without votes. */
double coverage_calibration_error(const struct coverage *coverage);

/*
 * How many volunteers a prediction is worth (W+21, Fig. 16): mean over galaxies and answers of the absolute deviation
 * from the fractions of all N votes, of the prediction and of n of these votes drawn without replacement. The latter is
 * exact: the count is hypergeometric.
 */
#define EQUIVALENT_VOLUNTEERS_MAX 30
#define EQUIVALENT_VOTES_MIN                                                                                           \
    40 /* on the question: W+21 took galaxies with more than 75 votes, most surveys have fewer */

struct equivalent {
    double prediction;                                /* sums of deviations */
    double volunteers[EQUIVALENT_VOLUNTEERS_MAX + 1]; /* [n], n >= 1 */
    uint64_t compared;                                /* galaxy-answers */
};

/* Adds one galaxy-answer; ignores galaxies with fewer than EQUIVALENT_VOTES_MIN votes. */
void equivalent_add(struct equivalent *equivalent, double fraction, int k, int votes);

/*
 * The number n, between whole ones by linear interpolation, whose votes deviate as much as the prediction: 0 where one
 * volunteer is nearer already, EQUIVALENT_VOLUNTEERS_MAX where that many are not; NaN without galaxies.
 */
double equivalent_volunteers(const struct equivalent *equivalent);

#endif
