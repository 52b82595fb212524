/*
 * Stands between the feed's sockets and one subscriber: loses, delays and repeats messages of the topic, requests and
 * replies, which thereby change places; copies of requests and replies also come long after, across restarts of the daemon.
 */
#ifndef TRIAGE_TESTS_SUPPORT_LOSSY_PROXY_H
#define TRIAGE_TESTS_SUPPORT_LOSSY_PROXY_H

#include "connectors/zmq_socket.h"

#include <stdint.h>

#define PROXY_WAITING_MAX 4096

enum proxy_way { PROXY_TOPIC, PROXY_REQUEST, PROXY_REPLY, PROXY_WAYS };

/* One body that is held back. */
struct proxy_body {
    enum proxy_way way;
    uint64_t due; /* step */
    size_t length;
    char *bytes;
};

struct lossy_proxy {
    uint64_t seed, step;
    uint32_t draws;
    uint32_t
        loss; /* percent of the topic's messages that are lost; of the rest, as many are delayed and as many come twice.
                      Of requests and replies a twentieth of that is lost: a subscriber asks again only after a second */
    struct socket *from[PROXY_WAYS], *to[PROXY_WAYS]; /* in both arrays requests and replies share their two sockets */
    struct proxy_body waiting[PROXY_WAITING_MAX];
    size_t waiting_count;
    char asker[256]; /* the subscriber, as its socket is called here */
    size_t asker_length;
    uint64_t taken[PROXY_WAYS], lost[PROXY_WAYS], delayed[PROXY_WAYS],
        late[PROXY_WAYS]; /* so far; late: copies that come long after */
};

/* Where the daemon's socket is, and where the subscriber is to connect. */
struct lossy_proxy_ends {
    const char *daemon, *subscriber;
};

/* 0 or a negative code. */
int lossy_proxy_open(const struct lossy_proxy_ends *topic, const struct lossy_proxy_ends *requests, uint64_t seed,
                     struct lossy_proxy *proxy);
void lossy_proxy_close(struct lossy_proxy *proxy);

/* Takes what has arrived, and passes on what is due. Aborts on a message that has not the frames it should have. */
void lossy_proxy_step(struct lossy_proxy *proxy);

#endif
