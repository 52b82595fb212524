/* What the runs of a pool simulation come to: one CSV, a summary in JSON, a picture of the curves. See replay.h. */
#ifndef TRIAGE_DAEMON_REPLAY_REPORT_H
#define TRIAGE_DAEMON_REPLAY_REPORT_H

#include "daemon/replay_run.h"

#include <jansson.h>

/*
 * Reads every OUT/runs/ARM-SEED.csv of these arms and seeds; writes OUT/curves.csv, OUT/summary.json and OUT/curves.svg, and
 * hands the summary over (json_decref() it). ERROR_INPUT naming a run that is not complete.
 */
int replay_report(const struct replay *replay, const struct replay_arm *arms, int count, json_t **ret_summary);

/* The summary as a table. */
void replay_report_print(const json_t *summary, FILE *out);

#endif
