/* See fault.h. Empty without the build option. */
#include "base/fault.h"

#ifdef TRIAGE_FAULTS

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLOCK_SPEED_MAX 10000

#define FAULT_NAME(name, roles, words) #name,
static const char *const names[] = {FAULT_POINTS(FAULT_NAME)};
#undef FAULT_NAME

static const char *folder, *role_name;
static int64_t clock_speed = 1;

void fault_role(const char *role)
{
    folder = getenv("TRIAGE_FAULTS");
    role_name = role;
    const char *speed = getenv("TRIAGE_CLOCK_SPEED");
    long wanted = speed ? strtol(speed, NULL, 10) : 1;
    clock_speed = wanted > 1 && wanted <= CLOCK_SPEED_MAX ? wanted : 1;
}

int64_t fault_clock_speed(void)
{
    return clock_speed;
}

void fault_pass(enum fault_point point)
{
    char armed[512], hit[512];
    if (!folder ||
        snprintf(armed, sizeof armed, "%s/%s.%s.armed", folder, role_name, names[point]) >= (int)sizeof armed)
        return;
    snprintf(hit, sizeof hit, "%s/%s.%s.hit", folder, role_name, names[point]);
    if (rename(armed, hit) == 0)
        for (;;)
            kill(getpid(), SIGKILL);
}

int64_t fault_clock_ms(void)
{
    static long long wrong_ms; /* stays where the file cannot be read for a moment */
    char path[512];
    FILE *file =
        folder && snprintf(path, sizeof path, "%s/clock", folder) < (int)sizeof path ? fopen(path, "re") : NULL;
    if (file && fgets(path, sizeof path, file))
        wrong_ms = strtoll(path, NULL, 10);
    if (file)
        fclose(file);
    return wrong_ms;
}

#else

typedef int fault_is_compiled_out; /* a file must hold something */

#endif
