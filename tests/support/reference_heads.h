/*
 * head_fit and head_score once more, in plain sequential loops from the formulas (model/head_fit.h,
 * model/information.h): the oracle every backend is compared with. Shares only the random numbers with them.
 * Slow.
 */
#ifndef TRIAGE_TESTS_REFERENCE_HEADS_H
#define TRIAGE_TESTS_REFERENCE_HEADS_H

#include "model/backend.h"

/* No validation, no early stopping: `epochs` epochs. */
void reference_head_fit(const struct fit_request *request, int epochs, struct head_set *heads);

void reference_head_score(const struct score_request *request);

/*
 * Entropies of an ensemble of beta-binomials by lgamma, outcome by outcome.
 *   a, b  [passes]
 */
struct information reference_beta_binomial(const double *a, const double *b, int passes, int votes);

#endif
