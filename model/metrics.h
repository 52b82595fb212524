/*
 * How good predictions are, on galaxies whose votes are known. Sums that galaxies are added to one by one, so
 * that a hold-out of any size is measured in blocks of dumps (REDUCE_DUMP). Not for comparing two models:
 * that is gate.h.
 *
 *   NLL            mean over galaxies of likelihood_mixture(): per question the probability of the votes
 *                  averaged over passes, -ln, summed over questions
 *   Brier score    of a single vote (Brier 1950): mean over galaxies and questions with votes of the mean over
 *                  the votes of sum over answers (f_a - [the vote is a])^2, which is
 *                  sum_a f_a^2 - 2 f_a k_a / N + k_a / N
 *   fraction RMSE  sqrt( mean over (galaxy, answer) of (k_a / N - f_a)^2 ), over the answers of questions
 *                  that got N >= 1 votes from the galaxy, all with equal weight; f_a = mean over passes of
 *                  alpha_a / A
 */
#ifndef TRIAGE_MODEL_METRICS_H
#define TRIAGE_MODEL_METRICS_H

#include "model/schema.h"

#include <stddef.h>
#include <stdint.h>

struct metrics {
    size_t galaxies;
    double nll_sum;
    double squares[SCHEMA_QUESTIONS_MAX];    /* sum of squared errors of vote fractions, per question */
    uint64_t compared[SCHEMA_QUESTIONS_MAX]; /* galaxy-answers in that sum */
    double brier_sum;                        /* over galaxies and questions with votes */
    uint64_t brier_count;
};

/*
 * Adds one galaxy and returns its NLL in nats. Start from a zeroed struct.
 *   alpha  [passes][answers] concentrations
 *   votes  [answers]
 */
double metrics_add(struct metrics *metrics, const struct schema *schema, const float *alpha, int passes,
                   const uint16_t *votes);

/* Mean NLL per galaxy; NaN when there is none. */
double metrics_nll(const struct metrics *metrics);

/* Vote-fraction RMSE of one question; NaN without votes. */
double metrics_question_rmse(const struct metrics *metrics, int question);

/* NaN without votes. */
double metrics_brier(const struct metrics *metrics);

/* Over all questions, every galaxy-answer with equal weight; NaN without votes. */
double metrics_rmse(const struct metrics *metrics);

#endif
