/* See signals.h. */
#include "base/signals.h"

#include <signal.h>

void signals_block_end(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigprocmask(SIG_BLOCK, &mask, NULL);
}

bool signals_end_pending(void)
{
    sigset_t waiting;
    sigpending(&waiting);
    return sigismember(&waiting, SIGTERM) || sigismember(&waiting, SIGINT);
}
