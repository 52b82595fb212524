/*
 * Time. Durations come from the monotonic clock, stamps that leave the process from the wall clock.
 *
 * What the service does by the clock (heartbeats, cycles, leases, what is looked at every second or hour) is due by clock_ms();
 * for how long it waits for somebody else's answer is counted by clock_patience_ms(). In a build with TRIAGE_FAULTS the
 * environment variable TRIAGE_CLOCK_SPEED, a whole number, lets all clocks run so many times as fast, but for that one: a day of
 * the service then takes minutes, with the database and the processes as fast as they are.
 */
#ifndef TRIAGE_BASE_CLOCK_H
#define TRIAGE_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic milliseconds; only differences mean anything. */
int64_t clock_ms(void);

/* The same as the machine counts them: for timeouts of what others do. Not to be compared with clock_ms(). */
int64_t clock_patience_ms(void);

/* How long to wait, at least 1 ms, for clock_ms() to go on by `ms`. */
int clock_wait_ms(int ms);

/* Monotonic seconds as a double, for rates. */
double clock_s(void);

/* As clock_ms(), and it goes on while the machine sleeps: what the wall clock does beyond this, somebody did to it. */
int64_t clock_boot_ms(void);

/* Unix time in milliseconds. */
int64_t clock_unix_ms(void);

#endif
