/*
 * One ZeroMQ socket with the options this project wants: bounded queues, bounded messages, a bounded
 * farewell, and never a blocking call. The one module that knows zmq.h. Not for protocols: frames are bytes
 * here; who may connect is the business of zmq_gate.h.
 *
 * Traffic without a key is not encrypted; an endpoint must then be ipc://PATH or tcp:// on a loopback address, and
 * others are refused. A socket owns its context (and its I/O thread), so closing one never waits for another, and
 * a forked child may open its own; only those behind one gate share theirs. A socket belongs to one thread and must
 * not be used on the other side of a fork().
 */
#ifndef TRIAGE_CONNECTORS_ZMQ_SOCKET_H
#define TRIAGE_CONNECTORS_ZMQ_SOCKET_H

#include <stddef.h>

enum socket_kind {
    SOCKET_XPUB, /* binds; a subscriber whose queue is full misses messages. Receives, as one frame, each topic that nobody
                      had asked for (a byte 1 and the topic) and each that nobody asks for any more (0) */
    SOCKET_SUB,    /* connects */
    SOCKET_ROUTER, /* binds; the first frame of every message is the peer */
    SOCKET_DEALER, /* connects */
    SOCKET_REP,    /* binds; inside a context, for zmq_gate.h */
    SOCKET_PAIR,   /* connects; the same */
};

#define SOCKET_KEY_BYTES 41 /* of a CURVE key: 40 characters of Z85 and a terminator */

/* A key pair, and the key of the server for those who connect. */
struct socket_curve {
    char public_key[SOCKET_KEY_BYTES], secret_key[SOCKET_KEY_BYTES], server_key[SOCKET_KEY_BYTES];
};

struct socket_context; /* shared by sockets inside one process */

struct socket_options {
    enum socket_kind kind;
    const char *endpoint;
    const char *topic;                /* SUB: wanted prefix of the first frame */
    int send_limit;                   /* messages waiting for one peer */
    int receive_limit;                /* messages waiting to be read from one peer */
    size_t message_limit;             /* bytes of one frame; a peer that sends more is disconnected */
    const struct socket_curve *curve; /* encrypts; NULL = plain */
    struct socket_context *context;   /* NULL = one of its own */
    const char *monitor; /* inproc:// endpoint at which a SOCKET_PAIR learns of failed handshakes; NULL = none */
};

#define SOCKET_FRAMES_MAX 8

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

/* The same at once: messages not yet taken are given up. */
void socket_drop(struct socket *socket);

/*
 * Sends one message of `count` frames or nothing, at once. ERROR_LIMIT when the queue to the peer is full,
 * ERROR_UNAVAILABLE when a ROUTER's peer is gone. An XPUB drops instead, silently.
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

/* The name a gate gave to the peer that sent the last message; "" without a gate. Valid until the next receive. */
const char *socket_user(struct socket *socket);

int socket_context_new(struct socket_context **ret_context);
void socket_context_free(struct socket_context *context); /* after its sockets; NULL is fine */

/* --- CURVE keys; ERROR_STATE where the ZeroMQ library was built without --- */

int socket_curve_make(char public_key[SOCKET_KEY_BYTES], char secret_key[SOCKET_KEY_BYTES]);

/* The public key that belongs to a secret one. ERROR_INPUT unless that is 40 characters of Z85. */
int socket_curve_public(const char *secret_key, char public_key[SOCKET_KEY_BYTES]);

/* ERROR_INPUT unless the text is a key. */
int socket_curve_check(const char *key);

/* 32 bytes as text. */
void socket_curve_text(const void *bytes, char key[SOCKET_KEY_BYTES]);

#endif
