/*
 * Fault points: named places where a test may end the process as a power button would, SIGKILL and nothing tidied up.
 * Compiled in with the build option TRIAGE_FAULTS only; without it FAULT() is nothing, and a release holds no trace of it.
 *
 * The environment variable TRIAGE_FAULTS names a folder. A process that passes point NAME in its role while the file
 * ROLE.NAME.armed is there renames it to ROLE.NAME.hit and is gone: once, whatever is started again after it. The file `clock` in
 * that folder holds milliseconds by which the wall clock is wrong (base/clock.h).
 */
#ifndef TRIAGE_BASE_FAULT_H
#define TRIAGE_BASE_FAULT_H

#include <stdint.h>

#ifdef TRIAGE_FAULTS

#include "base/fault_points.h"

#define FAULT_NAME(name, roles, words) FAULT_##name,
enum fault_point { FAULT_POINTS(FAULT_NAME) FAULT_COUNT };
#undef FAULT_NAME

void fault_role(const char *role); /* of this process; before that no point is visited */
void fault_pass(enum fault_point point);
int64_t fault_clock_ms(void);
int64_t fault_clock_speed(void); /* of TRIAGE_CLOCK_SPEED (base/clock.h); 1 before fault_role() */

#define FAULT_ROLE(role) fault_role(role)
#define FAULT(name)      fault_pass(FAULT_##name)

#else

#define FAULT_ROLE(role) ((void)0)
#define FAULT(name)      ((void)0)

static inline int64_t fault_clock_ms(void)
{
    return 0;
}

static inline int64_t fault_clock_speed(void)
{
    return 1;
}

#endif

#endif
