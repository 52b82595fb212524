/*
 * Concentration scaling: one factor per question that all of its concentrations are multiplied with after the heads, fitted on
 * galaxies no head was trained on. It does for vote counts what temperature scaling (Guo et al. 2017, arXiv 1706.04599) does
 * for classes: expected fractions stay as they are, their certainty changes. Heads trained on few galaxies are too certain;
 * and concentrations below 1, which questions that split galaxies in two need, are out of a head's own range (head.h).
 *
 *   factor   argmin over [SCALING_LOWER, 1] of the summed likelihood_mixture_question() of the galaxies, by golden section
 *            on its logarithm; 1 for a question with votes from fewer than SCALING_GALAXIES_MIN galaxies
 */
#ifndef TRIAGE_MODEL_SCALING_H
#define TRIAGE_MODEL_SCALING_H

#include "model/schema.h"

#include <stddef.h>
#include <stdint.h>

#define SCALING_LOWER        0.02
#define SCALING_GALAXIES_MIN 30

/*
 *   alpha   [count][passes][answers] concentrations as the heads say them
 *   votes   [answers] per galaxy, `votes_stride_bytes` apart; `row` [count] picks them, NULL for 0 .. count-1
 *   factor  [questions] OUTPUT
 * ERROR_SYSTEM without memory.
 */
int scaling_fit(const struct schema *schema, const float *alpha, int passes, const uint16_t *votes,
                size_t votes_stride_bytes, const uint64_t *row, size_t count, float *factor);

#endif
