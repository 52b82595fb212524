/*
 * How often predictions and volunteers agree, as the tables of Walmsley et al. 2021 (W+21, arXiv 2102.08414, Table 1 and
 * Fig. 15) count it, on galaxies whose votes are known. Sums that galaxies are added to one by one. Not for how far to
 * trust a prediction: that is coverage.h; nor for likelihoods: that is metrics.h.
 *
 *   a question counts for a galaxy where the product of the volunteers' fractions of the answers leading to it is above
 *                  AGREEMENT_REACHED and it got a vote
 *   label          the volunteers' most frequent answer; prediction: the one with the largest expected fraction; the
 *                  first of equals
 *   confident      galaxies of which an answer got a fraction above AGREEMENT_CONFIDENT
 *   accuracy       share of galaxies whose prediction is the label
 *   precision, recall, F1   of each answer, averaged with the number of galaxies labelled so as weights; 0 for an answer
 *                  never predicted or never a label (scikit-learn's "weighted", zero_division=0)
 *   MAE, RMSE      of an answer's fraction, over galaxies for which its question counts and has at least
 *                  AGREEMENT_VOTES_MIN votes
 */
#ifndef TRIAGE_MODEL_AGREEMENT_H
#define TRIAGE_MODEL_AGREEMENT_H

#include "model/schema.h"

#include <stdint.h>

#define AGREEMENT_REACHED   0.5
#define AGREEMENT_CONFIDENT 0.8
#define AGREEMENT_VOTES_MIN 20

/* Galaxies by [label][prediction], answers in the question's order. */
struct confusion {
    uint64_t galaxies[SCHEMA_PER_QUESTION][SCHEMA_PER_QUESTION];
};

struct agreement {
    struct confusion all[SCHEMA_QUESTIONS_MAX], confident[SCHEMA_QUESTIONS_MAX];
    double absolute[SCHEMA_ANSWERS_MAX], squares[SCHEMA_ANSWERS_MAX]; /* sums of errors of the fraction */
    uint64_t compared[SCHEMA_QUESTIONS_MAX];                          /* galaxies in those sums */
};

/*
 * Which questions count for a galaxy with these votes.
 *   counts  [questions] OUTPUT, 1 or 0
 */
void agreement_counts(const struct schema *schema, const uint16_t *votes, uint8_t *counts);

/*
 * Adds one galaxy. Start from a zeroed struct.
 *   fraction  [answers] expected vote fractions, adding up to 1 within each question
 *   votes     [answers]
 */
void agreement_add(struct agreement *agreement, const struct schema *schema, const float *fraction,
                   const uint16_t *votes);

/* Without galaxies everything but `galaxies` is NaN. */
struct agreement_scores {
    uint64_t galaxies;
    double accuracy, precision, recall, f1;
};

struct agreement_scores agreement_scores(const struct confusion *confusion, int answers);

/* Of one answer (index in the schema); NaN without galaxies. */
double agreement_mae(const struct agreement *agreement, const struct schema *schema, int answer);
double agreement_rmse(const struct agreement *agreement, const struct schema *schema, int answer);

#endif
