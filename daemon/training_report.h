/* What a training run came to, on paper: curve.csv, curve.svg, and the intervals of a share. Not for the run itself. */
#ifndef TRIAGE_DAEMON_TRAINING_REPORT_H
#define TRIAGE_DAEMON_TRAINING_REPORT_H

#include "model/trunk_fit.h"

/*
 * FOLDER/curve.csv: epoch, learning_rate, train_loss, validation_loss, quality (accuracy for classes, else RMSE), then a column
 * per question for votes. FOLDER/curve.svg: the same drawn, a small panel per question. Both are replaced atomically.
 */
int training_report_write(const struct trunk_fit *fit, const struct target *target, const char *folder);

/* 95 % interval of a share of `right` among `count` (Wilson 1927). */
void training_report_interval(double share, size_t count, double ret_interval[2]);

#endif
