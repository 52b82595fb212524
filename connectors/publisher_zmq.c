/*
 * The feed over ZeroMQ, as docs/feed.md specifies it: an XPUB socket for the topic, a ROUTER socket for
 * snapshots and replays, and with keys a gate before both. What is said and in which order is feed_log's business.
 */
#include "base/error.h"
#include "connectors/feed_keys.h"
#include "connectors/feed_log.h"
#include "connectors/publisher.h"
#include "connectors/zmq_gate.h"
#include "connectors/zmq_socket.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define REQUESTS_PER_CALL    64
#define REPLY_BYTES_PER_CALL ((size_t)8 << 20)
#define SUBSCRIPTIONS_WAITING_MAX                                                                                      \
    16 /* of one subscriber; with a single place libzmq 4.3.4 loses the subscription of an encrypted one for ever */
#define REPLIES_WAITING_MAX  2   /* for one asker; it should have one request out at a time */
#define REQUESTS_WAITING_MAX 64  /* of one asker */
#define TOPIC_WAITING_MAX    512 /* for one subscriber, at most 60 KiB each; what it misses it has sent again */
#define ENDPOINT_BYTES       512
#define HANDSHAKE_BYTES      512 /* of one frame: a handshake with a key takes about 300, encryption adds 33 */
#define STRAYS_MAX           64

struct publisher_state {
    struct feed_log *log;
    char publish_endpoint[ENDPOINT_BYTES], snapshot_endpoint[ENDPOINT_BYTES], keys_folder[4096];
    size_t queue_limit;
    struct gate *gate;     /* NULL without keys */
    struct feed_keys keys; /* as of the start or the last reload */
    bool has_keys;
    bool is_barred[FEED_KEYS_MAX];   /* each key, until the list is read again */
    struct gate_counters before;     /* of gates that are closed */
    struct socket *topic, *requests; /* NULL while they cannot be opened again */
    int strays;                      /* subscriptions to other topics since then */
    int descriptor;                  /* epoll over the sockets' */
    struct text reply;
};

static int emit(void *context, const void *body, size_t length)
{
    struct publisher_state *state = context;
    struct socket_frame frames[2] = {
        {FEED_TOPIC, sizeof FEED_TOPIC - 1},
        {body,       length               }
    };
    if (!state->topic)
        return error_set(ERROR_UNAVAILABLE, "the feed's sockets are closed");
    return socket_send(state->topic, frames, 2);
}

/* --- opening and closing --- */

static int judge(void *context, const char *public_key, char name[GATE_NAME_BYTES])
{
    const struct publisher_state *state = context;
    const struct feed_key *key = feed_keys_find(&state->keys, public_key);
    if (!key)
        return error_set(ERROR_INPUT, "the key %.8s... is unknown or revoked", public_key);
    if (state->is_barred[key - state->keys.key])
        return error_set(ERROR_INPUT,
                         "the key of %s is barred, for asking for %d other topics, until `triagectl reload`", key->name,
                         STRAYS_MAX);
    memcpy(name, key->name, GATE_NAME_BYTES);
    return 0;
}

/*
 * ZeroMQ counts a subscriber's queue in messages. Replacing the largest queue takes one message of
 * retractions and one of upserts per FEED_UPSERT_ENTRIES; one and a half of those may wait, so that a
 * subscriber that reads at all misses none, but no more than memory for many slow subscribers allows.
 */
static int topic_limit(size_t queue_limit)
{
    size_t messages = 2 * (queue_limit / FEED_UPSERT_ENTRIES + 1) + 2;
    messages += messages / 2 + 64;
    return messages < TOPIC_WAITING_MAX ? (int)messages : TOPIC_WAITING_MAX;
}

static void close_sockets(struct publisher_state *state)
{
    socket_drop(state->topic);
    socket_drop(state->requests);
    if (state->gate) {
        struct gate_counters counters;
        gate_counters(state->gate, &counters);
        counters.accepted += state->before.accepted;
        counters.rejected += state->before.rejected;
        if (!counters.rejection[0])
            memcpy(counters.rejection, state->before.rejection, sizeof counters.rejection);
        state->before = counters;
    }
    gate_close(state->gate);
    if (state->descriptor >= 0)
        close(state->descriptor);
    state->topic = state->requests = NULL;
    state->strays = 0;
    state->gate = NULL;
    state->descriptor = -1;
}

static int watch(struct publisher_state *state)
{
    int watched[2 + 1 + GATE_SOCKETS_MAX] = {socket_descriptor(state->requests), socket_descriptor(state->topic)};
    int count = 2 + (state->gate ? gate_descriptors(state->gate, watched + 2) : 0);
    struct epoll_event event = {.events = EPOLLIN};
    state->descriptor = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++)
        if (state->descriptor < 0 || epoll_ctl(state->descriptor, EPOLL_CTL_ADD, watched[i], &event) < 0)
            return error_set_errno("cannot watch the feed's sockets");
    return 0;
}

/* The gate comes first, so that there is no moment in which a server socket has nobody to ask. */
static int open_gate(struct publisher_state *state, struct socket_curve *server)
{
    int result = feed_keys_server(state->keys_folder, server);
    if (!result && !state->has_keys) {
        result = feed_keys_read(state->keys_folder, &state->keys);
        state->has_keys = !result;
    }
    return result ? result : gate_open(judge, state, &state->gate);
}

static int open_sockets(struct publisher_state *state)
{
    struct socket_curve server = {0};
    int result = state->keys_folder[0] ? open_gate(state, &server) : 0;
    struct socket_options topic = {.kind = SOCKET_XPUB,
                                   .endpoint = state->publish_endpoint,
                                   .send_limit = topic_limit(state->queue_limit),
                                   .receive_limit = SUBSCRIPTIONS_WAITING_MAX,
                                   .message_limit = HANDSHAKE_BYTES,
                                   .curve = state->gate ? &server : NULL,
                                   .context = state->gate ? gate_context(state->gate) : NULL,
                                   .monitor = state->gate ? gate_monitor(state->gate, 0) : NULL};
    struct socket_options requests = topic;
    requests.kind = SOCKET_ROUTER;
    requests.endpoint = state->snapshot_endpoint;
    requests.send_limit = REPLIES_WAITING_MAX;
    requests.receive_limit = REQUESTS_WAITING_MAX;
    requests.message_limit = FEED_REQUEST_BYTES + HANDSHAKE_BYTES;
    requests.monitor = state->gate ? gate_monitor(state->gate, 1) : NULL;
    if (!result)
        result = socket_open(&topic, &state->topic);
    if (!result)
        result = socket_open(&requests, &state->requests);
    for (int i = 0; i < GATE_SOCKETS_MAX && state->gate && !result; i++)
        result = gate_watch(state->gate, i);
    if (!result)
        result = watch(state);
    explicit_bzero(&server, sizeof server);
    if (result)
        close_sockets(state);
    return result;
}

static void zmq_close_feed(struct publisher_state *state)
{
    if (!state)
        return;
    close_sockets(state);
    feed_log_close(state->log);
    text_free(&state->reply);
    free(state);
}

static int zmq_open(const struct publisher_options *options, struct publisher_state **ret_state)
{
    struct publisher_state *state = calloc(1, sizeof *state);
    if (!state)
        return error_set(ERROR_SYSTEM, "out of memory for the feed");
    state->descriptor = -1;
    state->queue_limit = options->queue_limit;
    state->reply = text_new(FEED_BODY_BYTES_MAX);
    int lengths =
        snprintf(state->publish_endpoint, ENDPOINT_BYTES, "%s", options->publish_endpoint) >= ENDPOINT_BYTES ||
        snprintf(state->snapshot_endpoint, ENDPOINT_BYTES, "%s", options->snapshot_endpoint) >= ENDPOINT_BYTES;
    snprintf(state->keys_folder, sizeof state->keys_folder, "%s", options->keys_folder ? options->keys_folder : "");
    int result = lengths ? error_set(ERROR_INPUT, "an endpoint is longer than %d bytes", ENDPOINT_BYTES - 1) : 0;
    if (!result)
        result = feed_log_open(options, emit, state, &state->log);
    if (!result)
        result = open_sockets(state);
    if (result) {
        zmq_close_feed(state);
        return result;
    }
    *ret_state = state;
    return 0;
}

/* --- saying --- */

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
    int result = state->topic ? 0 : open_sockets(state); /* after an attempt that failed */
    return result ? result : feed_log_heartbeat(state->log);
}

/* --- answering --- */

static int zmq_descriptor(const struct publisher_state *state)
{
    return state->descriptor;
}

/* Who sent the request that was just received. Without keys everybody is a subscriber. */
static struct feed_asker asker_of(struct publisher_state *state)
{
    struct feed_asker asker = {.key = socket_user(state->requests), .role = FEED_SUBSCRIBER};
    for (size_t i = 0; i < state->keys.count; i++)
        if (strcmp(state->keys.key[i].name, asker.key) == 0)
            asker.role = state->keys.key[i].role;
    return asker;
}

/* A request has two frames, the asker and the body. With any other number the body is empty, thus malformed.
 */
static int answer(struct publisher_state *state, const struct socket_frame *frames, int count)
{
    struct socket_frame body = count == 2 ? frames[1] : (struct socket_frame){"", 0};
    struct feed_asker asker = asker_of(state);
    text_clear(&state->reply);
    int result = feed_log_answer(state->log, &asker, body.bytes, body.length, &state->reply);
    if (!result && state->reply.length) {
        struct socket_frame reply[2] = {
            frames[0], {state->reply.bytes, state->reply.length}
        };
        result = socket_send(state->requests, reply, 2);
    }
    if (result)
        state->log->counters.unanswered++; /* the asker is slow or gone; it asks again if it still cares */
    return result == ERROR_LIMIT || result == ERROR_UNAVAILABLE ? 0 : result;
}

/* --- subscriptions --- */

/* To the topic or to a prefix of it; whether it begins or ends. */
static bool is_to_our_topic(const struct socket_frame *frame, int count)
{
    const char *bytes = frame->bytes;
    return count == 1 && frame->length > 0 && frame->length <= sizeof FEED_TOPIC && (bytes[0] == 0 || bytes[0] == 1) &&
           memcmp(bytes + 1, FEED_TOPIC, frame->length - 1) == 0;
}

/* Bars the key that asked last, and opens new sockets, which know of no topics: everybody else comes back by itself. */
static int forget_topics(struct publisher_state *state)
{
    char name[FEED_NAME_BYTES];
    snprintf(name, sizeof name, "%s", socket_user(state->topic));
    for (size_t i = 0; i < state->keys.count; i++)
        state->is_barred[i] |= strcmp(state->keys.key[i].name, name) == 0;
    close_sockets(state);
    snprintf(state->before.rejection, sizeof state->before.rejection,
             "%s: asked for %d other topics; everybody was disconnected", name[0] ? name : "this machine", STRAYS_MAX);
    state->before.rejected++;
    return open_sockets(state);
}

/*
 * ZeroMQ remembers every topic that anybody asks for and knows no limit (ZMQ_XPUB_MANUAL neither: 4.3.4 keeps a second
 * list), so this is the limit. There is one topic; nobody has reason to ask for another.
 */
static int take_subscriptions(struct publisher_state *state)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count, result = 1;
    for (int i = 0; result == 1 && i < STRAYS_MAX && state->strays < STRAYS_MAX; i++) {
        result = socket_receive(state->topic, frames, &count);
        state->strays += result == 1 && !is_to_our_topic(frames, count);
    }
    return result == 1 ? forget_topics(state) : result;
}

static int zmq_serve(struct publisher_state *state)
{
    size_t bytes = 0;
    int more = state->gate ? gate_step(state->gate) : 0;
    int result = more < 0 || !state->topic ? more : take_subscriptions(state);
    if (result < 0 || !state->requests)
        return result;
    for (int i = 0; i < REQUESTS_PER_CALL && bytes < REPLY_BYTES_PER_CALL; i++) {
        struct socket_frame frames[SOCKET_FRAMES_MAX];
        int count;
        result = socket_receive(state->requests, frames, &count);
        if (result != 1)
            return result < 0 ? result : more;
        result = answer(state, frames, count);
        if (result)
            return result;
        bytes += state->reply.length;
    }
    return 1;
}

/* --- what operators see --- */

static void zmq_position(const struct publisher_state *state, const char **ret_epoch, uint64_t *ret_seq)
{
    *ret_epoch = state->log->epoch;
    *ret_seq = state->log->seq;
}

static void zmq_counters(const struct publisher_state *state, struct publisher_counters *ret_counters)
{
    struct gate_counters now = {0};
    if (state->gate)
        gate_counters(state->gate, &now);
    *ret_counters = state->log->counters;
    ret_counters->accepted = state->before.accepted + now.accepted;
    ret_counters->rejected = state->before.rejected + now.rejected;
    memcpy(ret_counters->rejection, now.rejection[0] ? now.rejection : state->before.rejection, sizeof now.rejection);
}

static size_t zmq_subscribers(struct publisher_state *state, struct feed_subscriber *list, size_t limit)
{
    return feed_log_subscribers(state->log, list, limit);
}

/* ZeroMQ asks about a key only when it connects, and cannot disconnect one: all are, and come back if they may. */
static int zmq_reload_keys(struct publisher_state *state)
{
    static struct feed_keys next;
    if (!state->keys_folder[0])
        return 0;
    int result = feed_keys_read(state->keys_folder, &next);
    if (result)
        return error_prefix(result, "the keys in force stay: ");
    bool is_revoked = false;
    for (size_t i = 0; i < state->keys.count; i++) {
        const struct feed_key *now = feed_keys_find(&next, state->keys.key[i].public_key);
        if (now && strcmp(now->name, state->keys.key[i].name) == 0)
            continue;
        feed_subscribers_forget(&state->log->subscribers, state->keys.key[i].name);
        is_revoked = true;
    }
    state->keys = next;
    memset(state->is_barred, 0, sizeof state->is_barred);
    if (!is_revoked)
        return 0;
    close_sockets(state);
    result = open_sockets(state);
    return result ? error_prefix(result,
                                 "the new keys are in force, but the feed is closed until its sockets can be opened "
                                 "again, which is tried every second: ")
                  : 0;
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
    .subscribers = zmq_subscribers,
    .reload_keys = zmq_reload_keys,
};
