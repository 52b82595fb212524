/*
 * Who may connect to encrypted sockets of this process: answers the handshakes that ZeroMQ asks about (ZAP, RFC 27),
 * names those let in (socket_user()), and counts those refused. Make the gate first and open the server sockets with
 * its context and monitor names: a ZeroMQ server without somebody to ask lets everybody in. Only answers while
 * gate_step() is called.
 */
#ifndef TRIAGE_CONNECTORS_ZMQ_GATE_H
#define TRIAGE_CONNECTORS_ZMQ_GATE_H

#include "connectors/zmq_socket.h"

#include <stdint.h>

#define GATE_NAME_BYTES  32
#define GATE_SOCKETS_MAX 2

/* Whether the holder of this public key may connect: 0 with a name for it, else a negative code and its message. */
typedef int gate_judge(void *context, const char *public_key, char name[GATE_NAME_BYTES]);

struct gate_counters {
    uint64_t accepted, rejected;
    char rejection[128]; /* the last one: from where and why */
};

struct gate;

/* ERROR_STATE or ERROR_SYSTEM when handshakes could not be answered. */
int gate_open(gate_judge *judge, void *context, struct gate **ret_gate);
void gate_close(struct gate *gate); /* after the sockets; NULL is fine */

/* For struct socket_options of the server sockets, `index` 0 .. GATE_SOCKETS_MAX - 1. */
struct socket_context *gate_context(struct gate *gate);
const char *gate_monitor(const struct gate *gate, int index);

/* Once the server sockets are open: starts listening for handshakes that fail before anybody is asked. */
int gate_watch(struct gate *gate, int index);

/* Answers what waits, at most 64 handshakes. 1 if more may be waiting, 0 if not, or a negative code. */
int gate_step(struct gate *gate);

/* For poll(): up to 1 + GATE_SOCKETS_MAX descriptors, readable while handshakes may be waiting; returns how many. */
int gate_descriptors(const struct gate *gate, int *descriptors);

void gate_counters(const struct gate *gate, struct gate_counters *ret_counters);

#endif
