/* What a network of `triaged finetune` says about galaxies, as a table. Not for the service's predictions (the pool's). */
#ifndef TRIAGE_DAEMON_PREDICTIONS_H
#define TRIAGE_DAEMON_PREDICTIONS_H

#include "daemon/training_set.h"

/*
 * FOLDER/predictions.csv, replaced atomically: id_str, part ("validation", "test", or "unlabelled" for a galaxy of the test
 * catalogue without label), then a column per output, named as in set->output: vote fractions within each question,
 * probabilities, or values (target_predict()) under the best weights of the fit. One view per galaxy is the plain one; several
 * are random ones, and predictions are averaged over them.
 */
int predictions_write(const struct trunk_fit *fit, const struct training_set *set, int views, const char *folder);

#endif
