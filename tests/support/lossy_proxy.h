/* Stands between the feed's PUB socket and a subscriber, and loses, repeats and swaps messages. */
#ifndef TRIAGE_TESTS_SUPPORT_LOSSY_PROXY_H
#define TRIAGE_TESTS_SUPPORT_LOSSY_PROXY_H

#include "connectors/zmq_socket.h"

#include <stdint.h>

struct lossy_proxy {
    uint64_t seed;
    uint32_t draws;
    uint32_t loss; /* percent of the messages that are lost; of the rest, as many come late and as many twice */
    struct socket *in, *out;
    char *kept; /* one body held back and sent after the next: two messages change places */
    size_t kept_length;
};

/* Subscribes to `in`, publishes at `out`. 0 or a negative code. */
int lossy_proxy_open(const char *in, const char *out, uint64_t seed, struct lossy_proxy *proxy);
void lossy_proxy_close(struct lossy_proxy *proxy);

/* Passes on what has arrived. Aborts on a message that is not [queue][body]. */
void lossy_proxy_step(struct lossy_proxy *proxy);

#endif
