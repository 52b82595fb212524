/* See clock.h. */
#include "base/clock.h"
#include "base/fault.h"

#include <time.h>

static int64_t read_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_ms(void)
{
    return read_ms(CLOCK_MONOTONIC) * fault_clock_speed();
}

int64_t clock_patience_ms(void)
{
    return read_ms(CLOCK_MONOTONIC);
}

int clock_wait_ms(int ms)
{
    int real_ms = (int)(ms / fault_clock_speed());
    return real_ms > 1 ? real_ms : 1;
}

double clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int64_t clock_boot_ms(void)
{
    return read_ms(CLOCK_BOOTTIME) * fault_clock_speed();
}

/* A fast clock is ahead by what it has gained since the machine was started: the same for all processes, and after a restart. */
int64_t clock_unix_ms(void)
{
    return read_ms(CLOCK_REALTIME) + read_ms(CLOCK_BOOTTIME) * (fault_clock_speed() - 1) + fault_clock_ms();
}
