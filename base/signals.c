/* See signals.h. */
#include "base/signals.h"

#include <signal.h>

bool signals_end_pending(void)
{
    sigset_t waiting;
    sigpending(&waiting);
    return sigismember(&waiting, SIGTERM) || sigismember(&waiting, SIGINT);
}
