/* `triaged run`: the control process, in the foreground until a signal ends it. */
#ifndef TRIAGE_DAEMON_RUN_H
#define TRIAGE_DAEMON_RUN_H

#include "daemon/config.h"

/* Returns an exit code of exits.h. */
int run_daemon(const struct config *config);

#endif
