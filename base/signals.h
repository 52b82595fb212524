/* Whether a signal that asks the process to end is waiting, for loops that run while signals are blocked. Handles none. */
#ifndef TRIAGE_BASE_SIGNALS_H
#define TRIAGE_BASE_SIGNALS_H

#include <stdbool.h>

/* From now on SIGTERM and SIGINT wait. */
void signals_block_end(void);

/* True while SIGTERM or SIGINT is blocked and pending; it stays pending. */
bool signals_end_pending(void);

#endif
