/* See feed_follower.h. */
#include "connectors/feed_follower.h"
#include "base/error.h"
#include "connectors/feed_message.h"
#include "connectors/queue_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum follower_state { WANT_SNAPSHOT, WANT_REPLAY, LIVE };

/* A queue and the position it belongs to. */
struct follower_queue {
    struct queue_table table;
    char epoch[HASH_TEXT_BYTES];
    uint64_t seq, cycle;
    uint32_t model;
};

struct feed_follower {
    enum follower_state state;
    struct follower_queue held, incoming; /* a snapshot is put together in `incoming` and takes the place of `held` */
    char former_epoch[HASH_TEXT_BYTES];   /* before a restart of the publisher; leftovers of it may still arrive
                                         */
    struct feed_message message;
    struct feed_follower_counters counters;
};

int feed_follower_new(size_t queue_limit, struct feed_follower **ret_follower)
{
    struct feed_follower *follower = calloc(1, sizeof *follower);
    if (!follower)
        return error_set(ERROR_SYSTEM, "out of memory for a feed's queue");
    int result = queue_table_new(queue_limit, &follower->held.table);
    if (!result)
        result = queue_table_new(queue_limit, &follower->incoming.table);
    if (result) {
        feed_follower_free(follower);
        return result;
    }
    *ret_follower = follower;
    return 0;
}

void feed_follower_free(struct feed_follower *follower)
{
    if (!follower)
        return;
    queue_table_free(&follower->held.table);
    queue_table_free(&follower->incoming.table);
    free(follower);
}

static void want_snapshot(struct feed_follower *follower)
{
    follower->state = WANT_SNAPSHOT;
    queue_table_clear(&follower->incoming.table);
}

static void note_gap(struct feed_follower *follower)
{
    follower->counters.gaps++;
    follower->state = WANT_REPLAY;
}

/* --- changes --- */

/* Applies follower->message, which is the next in sequence. A queue that grows beyond our limit is not
 * followed. */
static int apply(struct feed_follower *follower)
{
    const struct feed_message *message = &follower->message;
    struct follower_queue *held = &follower->held;
    for (size_t i = 0; message->kind == FEED_UPSERT && i < message->count; i++) {
        int result = queue_table_put(&held->table, &message->entries[i]);
        if (result) {
            want_snapshot(follower);
            return result;
        }
    }
    for (size_t i = 0; message->kind == FEED_RETRACT && i < message->count; i++)
        queue_table_remove(&held->table, message->retractions[i].id_str);
    if (message->kind == FEED_RERANK) {
        held->cycle = message->cycle;
        held->model = message->model;
    }
    held->seq = message->seq;
    follower->counters.messages++;
    return 1;
}

static int on_heartbeat(struct feed_follower *follower)
{
    const struct feed_message *message = &follower->message;
    if (message->seq > follower->held.seq)
        note_gap(follower); /* the last messages were lost; nothing else would tell */
    else if (message->seq == follower->held.seq && message->length != follower->held.table.count)
        want_snapshot(follower); /* cannot happen between two programs without faults */
    return 0;
}

static bool decode(struct feed_follower *follower, const void *body, size_t length)
{
    if (feed_decode(body, length, &follower->message) == 0)
        return true;
    follower->counters.malformed++;
    return false;
}

int feed_follower_message(struct feed_follower *follower, const void *body, size_t length)
{
    const struct feed_message *message = &follower->message;
    if (!decode(follower, body, length) || follower->state != LIVE)
        return 0;
    if (message->kind > FEED_HEARTBEAT) {
        follower->counters.malformed++; /* a reply has no place on the topic */
        return 0;
    }
    if (strcmp(message->epoch, follower->held.epoch) != 0) {
        if (strcmp(message->epoch, follower->former_epoch) != 0)
            want_snapshot(follower);
        return 0;
    }
    if (message->kind == FEED_HEARTBEAT)
        return on_heartbeat(follower);
    if (message->seq <= follower->held.seq)
        return 0;
    if (message->seq == follower->held.seq + 1)
        return apply(follower);
    note_gap(follower);
    return 0;
}

/* --- replies --- */

static int finish_snapshot(struct feed_follower *follower)
{
    struct follower_queue whole = follower->incoming;
    if (strcmp(whole.epoch, follower->held.epoch) != 0)
        memcpy(follower->former_epoch, follower->held.epoch, sizeof follower->former_epoch);
    follower->incoming = follower->held;
    follower->held = whole;
    follower->state = LIVE;
    follower->counters.snapshots++;
    return 1;
}

/* A chunk must go on where the last one ended, in the same state of the publisher; else the start is made
 * anew. */
static int on_snapshot(struct feed_follower *follower)
{
    const struct feed_message *message = &follower->message;
    struct follower_queue *incoming = &follower->incoming;
    if (message->from != 0 && incoming->table.count &&
        (strcmp(message->epoch, incoming->epoch) != 0 || message->seq != incoming->seq)) {
        want_snapshot(follower);
        return 0;
    }
    if (message->from != incoming->table.count)
        return 0; /* the answer to an earlier request */
    snprintf(incoming->epoch, sizeof incoming->epoch, "%s", message->epoch);
    incoming->seq = message->seq;
    incoming->cycle = message->cycle;
    incoming->model = message->model;
    for (size_t i = 0; i < message->count; i++) {
        int result = queue_table_put(&incoming->table, &message->entries[i]);
        if (result) {
            want_snapshot(follower);
            return result;
        }
    }
    if (incoming->table.count >= message->length)
        return finish_snapshot(follower);
    if (message->count == 0 || incoming->table.count != message->from + message->count)
        want_snapshot(follower); /* it says it has more and gives nothing, or gives one galaxy twice */
    return 0;
}

/* The messages of a replay are bodies like those of the topic; decoding one overwrites follower->message. */
static int on_replay(struct feed_follower *follower)
{
    struct feed_bytes messages[FEED_REPLAY_MESSAGES];
    size_t count = follower->message.count;
    uint64_t last_seq = follower->message.seq;
    int result = 0;
    if (follower->message.from_seq != follower->held.seq + 1)
        return 0; /* the answer to an earlier request */
    memcpy(messages, follower->message.messages, count * sizeof *messages);
    for (size_t i = 0; i < count && result >= 0; i++) {
        const struct feed_message *message = &follower->message;
        if (!decode(follower, messages[i].bytes, messages[i].length) || message->kind >= FEED_HEARTBEAT ||
            message->seq != follower->held.seq + 1 || strcmp(message->epoch, follower->held.epoch) != 0) {
            want_snapshot(follower);
            return 0;
        }
        result = apply(follower);
    }
    follower->counters.replays++;
    if (result >= 0 && follower->held.seq >= last_seq)
        follower->state = LIVE;
    else if (result >= 0 && count == 0)
        want_snapshot(follower);
    return result;
}

int feed_follower_reply(struct feed_follower *follower, const void *body, size_t length)
{
    const struct feed_message *message = &follower->message;
    if (!decode(follower, body, length))
        return 0;
    if (follower->state == WANT_SNAPSHOT)
        return message->kind == FEED_SNAPSHOT ? on_snapshot(follower) : 0;
    if (follower->state != WANT_REPLAY)
        return 0;
    if (message->kind == FEED_TOO_OLD ||
        (message->kind == FEED_REPLAY && strcmp(message->epoch, follower->held.epoch) != 0)) {
        want_snapshot(follower);
        return 0;
    }
    return message->kind == FEED_REPLAY ? on_replay(follower) : 0;
}

/* --- asking --- */

bool feed_follower_is_live(const struct feed_follower *follower)
{
    return follower->state == LIVE;
}

void feed_follower_request(const struct feed_follower *follower, struct text *out)
{
    if (follower->state == WANT_SNAPSHOT)
        feed_encode_snapshot_request(out, follower->incoming.table.count);
    else if (follower->state == WANT_REPLAY)
        feed_encode_replay_request(out, follower->held.epoch, follower->held.seq + 1);
}

void feed_follower_doubt(struct feed_follower *follower)
{
    if (follower->state == LIVE)
        follower->state = WANT_REPLAY;
}

const struct queue_entry *feed_follower_entries(struct feed_follower *follower, size_t *ret_count)
{
    *ret_count = follower->held.table.count;
    return queue_table_ranked(&follower->held.table);
}

void feed_follower_position(const struct feed_follower *follower, const char **ret_epoch, uint64_t *ret_seq)
{
    *ret_epoch = follower->held.epoch;
    *ret_seq = follower->held.seq;
}

void feed_follower_ranking(const struct feed_follower *follower, uint64_t *ret_cycle, uint32_t *ret_model)
{
    *ret_cycle = follower->held.cycle;
    *ret_model = follower->held.model;
}

void feed_follower_counters(const struct feed_follower *follower, struct feed_follower_counters *ret_counters)
{
    *ret_counters = follower->counters;
}
