/*
 * Mutual information of all of a question's counts together: what the marginals of model/information.h are a lower
 * bound of. Exact, by running products over every way N votes can fall on K answers; for shortlists, as their number
 * C(N+K-1, K-1) grows quickly: 41 for two answers and 40 votes, 861 for three, 12,341 for four, 135,751 for five.
 */
#ifndef TRIAGE_ACQUISITION_JOINT_H
#define TRIAGE_ACQUISITION_JOINT_H

#include "model/information.h"

#define JOINT_OUTCOMES_MAX 20301 /* three answers with INFORMATION_VOTES_MAX votes, four with 47 */

/* Ways `votes` votes can fall on `answers` answers, at most JOINT_OUTCOMES_MAX + 1. */
long joint_outcomes(int answers, int votes);

/*
 * Total and expected entropy of the counts under the Dirichlet-multinomial mixture over passes, in nats; to 1e-10.
 *   alpha   [passes][stride] concentrations within [1, 101], the question's answers contiguous
 *   passes  1 .. INFORMATION_PASSES_MAX
 *   votes   clamped to 1 .. INFORMATION_VOTES_MAX
 * The caller keeps joint_outcomes() within JOINT_OUTCOMES_MAX. About 2 ns per outcome and pass. NaN without memory.
 */
struct information joint_information(const float *alpha, int stride, int answers, int passes, int votes);

#endif
