/* `triaged import CATALOGUE`: a checked catalogue into the database, all of it or nothing. */
#ifndef TRIAGE_DAEMON_IMPORT_H
#define TRIAGE_DAEMON_IMPORT_H

#include "daemon/config.h"

/* Works beside a running daemon, which notices the new galaxies, and without one. Returns an exit code. */
int run_import(const struct config *config, const char *catalogue, int without_votes, int json);

#endif
