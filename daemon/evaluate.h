/* `triaged evaluate`: every stored model on the test galaxies, against a catalogue with full vote counts. */
#ifndef TRIAGE_DAEMON_EVALUATE_H
#define TRIAGE_DAEMON_EVALUATE_H

#include "daemon/config.h"

/* Reads the pool and the models only; a running daemon is not disturbed. Returns an exit code. */
int run_evaluate(const struct config *config, const char *oracle, const char *out, int json);

/* `triaged model summary`: the network layer by layer, with the sums. */
int run_model_summary(const struct config *config, int json);

#endif
