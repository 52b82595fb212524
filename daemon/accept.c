/* See accept.h. */
#include "daemon/accept.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* libzmq accepts in a thread of its own */
static int spare = -1;
static long turned_away;

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int accept_keep_spare(void)
{
    pthread_mutex_lock(&lock);
    if (spare < 0)
        spare = open_spare();
    pthread_mutex_unlock(&lock);
    return spare < 0 ? error_set_errno("cannot set a descriptor aside") : 0;
}

long accept_turned_away(void)
{
    pthread_mutex_lock(&lock);
    long count = turned_away;
    pthread_mutex_unlock(&lock);
    return count;
}

static int system_accept(int listener, struct sockaddr *address, socklen_t *length, int flags)
{
    return (int)syscall(SYS_accept4, listener, address, length, flags);
}

/* True if somebody was there. If another thread is faster than we with the descriptor given up, the client waits for the next
 * call. */
static bool turn_away(int listener)
{
    pthread_mutex_lock(&lock);
    if (spare >= 0)
        close(spare);
    int client = system_accept(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client >= 0)
        close(client);
    turned_away += client >= 0;
    spare = open_spare();
    pthread_mutex_unlock(&lock);
    return client >= 0;
}

int accept4(int listener, struct sockaddr *address, socklen_t *length, int flags)
{
    int client = system_accept(listener, address, length, flags);
    if (client < 0 && (errno == EMFILE || errno == ENFILE))
        errno = turn_away(listener) ? ECONNABORTED : EAGAIN;
    return client;
}
