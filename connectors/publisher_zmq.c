/*
 * The feed over ZeroMQ, as docs/feed.md specifies it: a PUB socket for the topic, a ROUTER socket for
 * snapshots and replays. What is said and in which order is feed_log's business.
 */
#include "base/error.h"
#include "connectors/feed_log.h"
#include "connectors/publisher.h"
#include "connectors/zmq_socket.h"

#include <stdlib.h>
#include <string.h>

#define REQUESTS_PER_CALL    64
#define REPLY_BYTES_PER_CALL ((size_t)8 << 20)
#define REPLIES_WAITING_MAX  8  /* for one asker; it should have one request out at a time */
#define REQUESTS_WAITING_MAX 64 /* of one asker */

struct publisher_state {
    struct feed_log *log;
    struct socket *topic, *requests;
    struct text reply;
};

static int emit(void *context, const void *body, size_t length)
{
    struct publisher_state *state = context;
    struct socket_frame frames[2] = {
        {FEED_TOPIC, sizeof FEED_TOPIC - 1},
        {body,       length               }
    };
    return socket_send(state->topic, frames, 2);
}

static void zmq_close_feed(struct publisher_state *state)
{
    if (!state)
        return;
    socket_close(state->topic);
    socket_close(state->requests);
    feed_log_close(state->log);
    text_free(&state->reply);
    free(state);
}

/*
 * ZeroMQ counts a subscriber's queue in messages. Replacing the largest queue takes one message of
 * retractions and one of upserts per FEED_UPSERT_ENTRIES; one and a half of those may wait, so that a
 * subscriber that reads at all misses none.
 */
static int topic_limit(size_t queue_limit)
{
    size_t messages = 2 * (queue_limit / FEED_UPSERT_ENTRIES + 1) + 2;
    return (int)(messages + messages / 2) + 64;
}

static int open_sockets(const struct publisher_options *options, struct publisher_state *state)
{
    struct socket_options topic = {.kind = SOCKET_PUB,
                                   .endpoint = options->publish_endpoint,
                                   .send_limit = topic_limit(options->queue_limit),
                                   .receive_limit = 1,
                                   .message_limit = FEED_REQUEST_BYTES};
    struct socket_options requests = {.kind = SOCKET_ROUTER,
                                      .endpoint = options->snapshot_endpoint,
                                      .send_limit = REPLIES_WAITING_MAX,
                                      .receive_limit = REQUESTS_WAITING_MAX,
                                      .message_limit = FEED_REQUEST_BYTES};
    int result = socket_open(&topic, &state->topic);
    return result ? result : socket_open(&requests, &state->requests);
}

static int zmq_open(const struct publisher_options *options, struct publisher_state **ret_state)
{
    struct publisher_state *state = calloc(1, sizeof *state);
    if (!state)
        return error_set(ERROR_SYSTEM, "out of memory for the feed");
    state->reply = text_new(FEED_BODY_BYTES_MAX);
    int result = feed_log_open(options, emit, state, &state->log);
    if (!result)
        result = open_sockets(options, state);
    if (result) {
        zmq_close_feed(state);
        return result;
    }
    *ret_state = state;
    return 0;
}

static int zmq_publish(struct publisher_state *state, uint64_t cycle, uint32_t model, const struct queue_entry *entries,
                       size_t count)
{
    return feed_log_publish(state->log, cycle, model, entries, count);
}

static int zmq_retract(struct publisher_state *state, const struct retraction *retractions, size_t count)
{
    return feed_log_retract(state->log, retractions, count);
}

static int zmq_model_changed(struct publisher_state *state, uint32_t model, const char *why)
{
    return feed_log_model_changed(state->log, model, why);
}

static int zmq_heartbeat(struct publisher_state *state)
{
    return feed_log_heartbeat(state->log);
}

static int zmq_descriptor(const struct publisher_state *state)
{
    return socket_descriptor(state->requests);
}

/* A request has two frames, the asker and the body. With any other number the body is empty, thus malformed.
 */
static int answer(struct publisher_state *state, const struct socket_frame *frames, int count)
{
    struct socket_frame body = count == 2 ? frames[1] : (struct socket_frame){"", 0};
    text_clear(&state->reply);
    int result = feed_log_answer(state->log, body.bytes, body.length, &state->reply);
    if (!result) {
        struct socket_frame reply[2] = {
            frames[0], {state->reply.bytes, state->reply.length}
        };
        result = socket_send(state->requests, reply, 2);
    }
    if (result)
        state->log->counters.unanswered++; /* the asker is slow or gone; it asks again if it still cares */
    return result == ERROR_LIMIT || result == ERROR_UNAVAILABLE ? 0 : result;
}

static int zmq_serve(struct publisher_state *state)
{
    size_t bytes = 0;
    for (int i = 0; i < REQUESTS_PER_CALL && bytes < REPLY_BYTES_PER_CALL; i++) {
        struct socket_frame frames[SOCKET_FRAMES_MAX];
        int count, result = socket_receive(state->requests, frames, &count);
        if (result != 1)
            return result;
        result = answer(state, frames, count);
        if (result)
            return result;
        bytes += state->reply.length;
    }
    return 1;
}

static void zmq_position(const struct publisher_state *state, const char **ret_epoch, uint64_t *ret_seq)
{
    *ret_epoch = state->log->epoch;
    *ret_seq = state->log->seq;
}

static void zmq_counters(const struct publisher_state *state, struct publisher_counters *ret_counters)
{
    *ret_counters = state->log->counters;
}

const struct publisher publisher_zmq = {
    .name = "zmq",
    .open = zmq_open,
    .close = zmq_close_feed,
    .publish = zmq_publish,
    .retract = zmq_retract,
    .model_changed = zmq_model_changed,
    .heartbeat = zmq_heartbeat,
    .descriptor = zmq_descriptor,
    .serve = zmq_serve,
    .position = zmq_position,
    .counters = zmq_counters,
};
