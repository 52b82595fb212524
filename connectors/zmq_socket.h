/*
 * One ZeroMQ socket with the options this project wants: bounded queues, bounded messages, a bounded
 * farewell, and never a blocking call. The one module that knows zmq.h. Not for protocols: frames are bytes
 * here.
 *
 * Traffic is not encrypted, so an endpoint must be ipc://PATH or tcp:// on a loopback address; others are
 * refused. A socket owns its context (and its I/O thread), so closing one never waits for another, and a
 * forked child may open its own. A socket belongs to one thread and must not be used on the other side of a
 * fork().
 */
#ifndef TRIAGE_CONNECTORS_ZMQ_SOCKET_H
#define TRIAGE_CONNECTORS_ZMQ_SOCKET_H

#include <stddef.h>

enum socket_kind {
    SOCKET_PUB,    /* binds; a subscriber whose queue is full misses messages */
    SOCKET_SUB,    /* connects */
    SOCKET_ROUTER, /* binds; the first frame of every message is the peer */
    SOCKET_DEALER, /* connects */
};

struct socket_options {
    enum socket_kind kind;
    const char *endpoint;
    const char *topic;    /* SUB: wanted prefix of the first frame */
    int send_limit;       /* messages waiting for one peer */
    int receive_limit;    /* messages waiting to be read from one peer */
    size_t message_limit; /* bytes of one frame; a peer that sends more is disconnected */
};

#define SOCKET_FRAMES_MAX 3

struct socket_frame {
    const void *bytes;
    size_t length;
};

struct socket;

/* Binds or connects. ERROR_INPUT for an endpoint that is malformed or not local, ERROR_UNAVAILABLE if it is taken.
 */
int socket_open(const struct socket_options *options, struct socket **ret_socket);

/* Messages not yet taken by the peers get 500 ms; NULL is fine. */
void socket_close(struct socket *socket);

/*
 * Sends one message of `count` frames or nothing, at once. ERROR_LIMIT when the queue to the peer is full,
 * ERROR_UNAVAILABLE when a ROUTER's peer is gone. A PUB drops instead, silently.
 */
int socket_send(struct socket *socket, const struct socket_frame *frames, int count);

/*
 * Takes one message that has arrived: 1 with its frames, 0 if there is none, or ERROR_SYSTEM.
 *   frames     [SOCKET_FRAMES_MAX] OUTPUT, valid until the next call
 *   ret_count  frames the message had; those beyond SOCKET_FRAMES_MAX are lost, so such a message is
 * malformed
 */
int socket_receive(struct socket *socket, struct socket_frame *frames, int *ret_count);

/*
 * For poll(): readable (POLLIN) as long as a message may be waiting, also when only some were taken.
 * (ZeroMQ's own descriptor tells of a message once only; waiting on it after reading one of ten hangs.)
 */
int socket_descriptor(const struct socket *socket);

#endif
