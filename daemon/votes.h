/* `triaged votes`: files of votes into the database, and the tallies made again, beside a running daemon or without one. */
#ifndef TRIAGE_DAEMON_VOTES_H
#define TRIAGE_DAEMON_VOTES_H

#include "daemon/config.h"

/*
 * `what` is import (with `file`, and `workflow` for an export: a name of etc/workflows or a path), rebuild, weigh or
 * retry. Returns an exit code.
 */
int run_votes(const struct config *config, const char *what, const char *file, const char *workflow, int json);

#endif
