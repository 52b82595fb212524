/* `triaged worker`: the process that owns the backend and does the daemon's jobs (jobs.h), one at a time. */
#ifndef TRIAGE_DAEMON_WORKER_H
#define TRIAGE_DAEMON_WORKER_H

#include "daemon/config.h"

/* Serves until the daemon goes away or a signal comes. Returns an exit code of exits.h. */
int run_worker(const struct config *config, const char *endpoint);

#endif
