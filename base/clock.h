/* Time. Durations come from the monotonic clock, stamps that leave the process from the wall clock. */
#ifndef TRIAGE_BASE_CLOCK_H
#define TRIAGE_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic milliseconds; only differences mean anything. */
int64_t clock_ms(void);

/* Monotonic seconds as a double, for rates. */
double clock_s(void);

/* Unix time in milliseconds. */
int64_t clock_unix_ms(void);

#endif
