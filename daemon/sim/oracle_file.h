/*
 * Reads what simulated volunteers know from a CSV file: `id_str` and answer columns named question_answer,
 * either probabilities (the file has a column `simulated_kind`, as known.csv of `triage-sim survey`) or vote
 * counts (any catalogue with votes). Other columns are passed over; lines that begin with '#' are comments.
 */
#ifndef TRIAGE_DAEMON_SIM_ORACLE_FILE_H
#define TRIAGE_DAEMON_SIM_ORACLE_FILE_H

#include "connectors/volunteers.h"

/* Messages name file and line. On error nothing is kept. Free with oracle_free(). */
int oracle_read(const char *path, const struct schema *schema, struct oracle *ret_oracle);

#endif
