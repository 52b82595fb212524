/* See zmq_gate.h. */
#include "connectors/zmq_gate.h"
#include "base/error.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZAP_ENDPOINT     "inproc://zeromq.zap.01"
#define ZAP_BYTES_MAX    1024
#define ZAP_FRAMES       7 /* version, request, domain, address, identity, mechanism, key */
#define KEY_BYTES        32
#define ANSWERS_PER_STEP 64
#define WAITING_MAX      1000

struct gate {
    struct socket_context *context;
    struct socket *zap, *monitor[GATE_SOCKETS_MAX];
    gate_judge *judge;
    void *judge_context;
    struct gate_counters counters;
};

static const char *const monitors[GATE_SOCKETS_MAX] = {"inproc://gate.monitor.0", "inproc://gate.monitor.1"};

static int open_inside(struct gate *gate, enum socket_kind kind, const char *endpoint, struct socket **ret_socket)
{
    struct socket_options options = {.kind = kind,
                                     .endpoint = endpoint,
                                     .send_limit = WAITING_MAX,
                                     .receive_limit = WAITING_MAX,
                                     .message_limit = ZAP_BYTES_MAX,
                                     .context = gate->context};
    return socket_open(&options, ret_socket);
}

int gate_open(gate_judge *judge, void *context, struct gate **ret_gate)
{
    struct gate *gate = calloc(1, sizeof *gate);
    if (!gate)
        return error_set(ERROR_SYSTEM, "out of memory for the feed's keys");
    gate->judge = judge;
    gate->judge_context = context;
    int result = socket_context_new(&gate->context);
    if (!result)
        result = open_inside(gate, SOCKET_REP, ZAP_ENDPOINT, &gate->zap);
    if (result) {
        gate_close(gate);
        return result;
    }
    *ret_gate = gate;
    return 0;
}

void gate_close(struct gate *gate)
{
    if (!gate)
        return;
    for (int i = 0; i < GATE_SOCKETS_MAX; i++)
        socket_close(gate->monitor[i]);
    socket_close(gate->zap);
    socket_context_free(gate->context);
    free(gate);
}

struct socket_context *gate_context(struct gate *gate)
{
    return gate->context;
}

const char *gate_monitor(const struct gate *gate, int index)
{
    (void)gate;
    return monitors[index];
}

int gate_watch(struct gate *gate, int index)
{
    return open_inside(gate, SOCKET_PAIR, monitors[index], &gate->monitor[index]);
}

static void copy_frame(char *text, size_t size, const struct socket_frame *frame)
{
    snprintf(text, size, "%.*s", frame->length < size ? (int)frame->length : (int)size - 1, (const char *)frame->bytes);
    text_make_printable(text);
}

static void note_rejection(struct gate *gate, const struct socket_frame *address, const char *reason)
{
    char from[64];
    copy_frame(from, sizeof from, address);
    snprintf(gate->counters.rejection, sizeof gate->counters.rejection, "%s: %s", from[0] ? from : "this machine",
             reason);
    gate->counters.rejected++;
}

/* 0 with the peer's name, or a negative code. Only CURVE is asked about; the domain is that of our own sockets. */
static int judge(struct gate *gate, const struct socket_frame *frames, int count, char name[GATE_NAME_BYTES])
{
    char key[SOCKET_KEY_BYTES];
    if (count != ZAP_FRAMES || frames[0].length != 3 || memcmp(frames[0].bytes, "1.0", 3) != 0 ||
        frames[5].length != 5 || memcmp(frames[5].bytes, "CURVE", 5) != 0 || frames[6].length != KEY_BYTES)
        return error_set(ERROR_INPUT, "not a handshake with a key");
    socket_curve_text(frames[6].bytes, key);
    return gate->judge(gate->judge_context, key, name);
}

static int answer(struct gate *gate, const struct socket_frame *frames, int count)
{
    char name[GATE_NAME_BYTES] = "";
    int code = judge(gate, frames, count, name);
    if (code)
        note_rejection(gate, count > 3 ? &frames[3] : &(struct socket_frame){"", 0}, error_message());
    else
        gate->counters.accepted++;
    /* 300, "later", closes the connection; after 400, "never", a peer would not come back when its key is listed at last */
    struct socket_frame reply[6] = {
        {"1.0",                3           },
        count > 1 ? frames[1] : (struct socket_frame){"",                   0           },
        {code ? "300" : "200", 3           },
        {code ? "no" : "OK",   2           },
        {name,                 strlen(name)},
        {"",                   0           }
    };
    return socket_send(gate->zap, reply, 6);
}

/* Handshakes that fail before anybody is asked: a peer without encryption, or with another server's key. */
static int take_events(struct gate *gate, struct socket *monitor)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count, result = 0;
    for (int i = 0; monitor && i < ANSWERS_PER_STEP; i++) {
        result = socket_receive(monitor, frames, &count);
        if (result != 1)
            break;
        if (count == 2)
            note_rejection(gate, &frames[1], "no encryption, another server's key, or not the protocol");
    }
    return result;
}

int gate_step(struct gate *gate)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count, result = 0, more = 1;
    for (int i = 0; i < ANSWERS_PER_STEP && more == 1; i++) {
        more = socket_receive(gate->zap, frames, &count);
        result = more == 1 ? answer(gate, frames, count) : 0;
        if (result < 0)
            return result;
    }
    for (int i = 0; i < GATE_SOCKETS_MAX && more >= 0; i++) {
        result = take_events(gate, gate->monitor[i]);
        more = result < 0 ? result : more | result;
    }
    return more;
}

int gate_descriptors(const struct gate *gate, int *descriptors)
{
    int count = 0;
    descriptors[count++] = socket_descriptor(gate->zap);
    for (int i = 0; i < GATE_SOCKETS_MAX; i++)
        if (gate->monitor[i])
            descriptors[count++] = socket_descriptor(gate->monitor[i]);
    return count;
}

void gate_counters(const struct gate *gate, struct gate_counters *ret_counters)
{
    *ret_counters = gate->counters;
}
