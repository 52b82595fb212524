/* See triage_feed.h. The steps are those of docs/feed.md, "Following the feed". */
#include "clients/c/triage_feed.h"
#include "base/clock.h"
#include "base/error.h"
#include "connectors/feed_keys.h"
#include "connectors/feed_message.h"
#include "connectors/queue_table.h"
#include "connectors/zmq_socket.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLY_TIMEOUT_MS  1000
#define SILENCE_MS        5000 /* five heartbeats missed */
#define ACK_MS            2000
#define MESSAGES_PER_STEP 256
#define REQUEST_BYTES     512

struct triage_feed {
    enum { WANT_SNAPSHOT, WANT_REPLAY, LIVE } want;
    struct triage_feed_status status;
    struct queue_table queue;        /* at status.epoch and status.seq, unless a snapshot is under way */
    uint64_t cursor, floor_seq;      /* of the snapshot: its next chunk; number up to which a replay must follow */
    char former_epoch[33];           /* before a restart of the daemon; leftovers of it may still arrive */
    struct feed_message message;     /* as decoded */
    struct triage_feed_entry *shown; /* the queue when last asked for */
    char name[FEED_NAME_BYTES];
    struct socket *topic, *requests;
    uint64_t request, asked; /* numbers of the request to make and of the one that is out; a new one for all that is new */
    size_t shown_count, to_lose;
    int64_t asked_ms, heard_ms, acked_ms;
};

static int want(struct triage_feed *feed, int what)
{
    feed->want = what;
    feed->status.is_live = what == LIVE;
    feed->cursor = 0;
    feed->request++;
    feed->heard_ms = clock_ms();
    return 0;
}

/* Whether our queue is what the daemon says its own is at the same position, where that can be compared yet. */
static int is_whole(const struct triage_feed *feed, uint64_t length, uint64_t checksum)
{
    return feed->status.seq < feed->floor_seq || (length == feed->queue.count && checksum == feed->queue.checksum);
}

static int put_entries(struct triage_feed *feed)
{
    struct queue_table *queue = &feed->queue;
    for (size_t i = 0; i < feed->message.count; i++) {
        int is_full = queue->count == queue->limit && queue->limit < PUBLISHER_QUEUE_LIMIT;
        if ((is_full && queue_table_grow(queue)) || queue_table_put(queue, &feed->message.entries[i]))
            return want(feed, WANT_SNAPSHOT) + ERROR_LIMIT;
    }
    return 0;
}

/* Applies feed->message, which is the next in sequence. */
static int apply(struct triage_feed *feed)
{
    const struct feed_message *message = &feed->message;
    if (message->kind == FEED_UPSERT && put_entries(feed))
        return ERROR_LIMIT;
    for (size_t i = 0; message->kind == FEED_RETRACT && i < message->count; i++)
        queue_table_remove(&feed->queue, message->retractions[i].id_str);
    feed->status.seq = message->seq;
    feed->status.messages++;
    feed->heard_ms = clock_ms(); /* what is ignored does not count: it may be left from another epoch */
    if (message->kind != FEED_RERANK)
        return 1;
    feed->status.cycle = message->cycle;
    feed->status.model = message->model;
    return is_whole(feed, message->length, message->checksum) ? 1 : want(feed, WANT_SNAPSHOT);
}

static int on_message(struct triage_feed *feed)
{
    const struct feed_message *message = &feed->message;
    struct triage_feed_status *status = &feed->status;
    if (strcmp(message->epoch, status->epoch) != 0) /* the daemon was restarted, or this is from before that */
        return strcmp(message->epoch, feed->former_epoch) == 0 ? 0 : want(feed, WANT_SNAPSHOT);
    if (message->seq == status->seq && message->kind == FEED_HEARTBEAT)
        return want(feed, is_whole(feed, message->length, message->checksum) ? LIVE : WANT_SNAPSHOT);
    if (message->seq <= status->seq)
        return 0;
    if (message->seq == status->seq + 1 && message->kind != FEED_HEARTBEAT)
        return apply(feed);
    status->gaps++; /* if the last messages were lost, only the heartbeat tells */
    return want(feed, WANT_REPLAY);
}

/* A chunk goes on where the last one ended; the first one sets the position. */
static int on_snapshot(struct triage_feed *feed)
{
    const struct feed_message *message = &feed->message;
    struct triage_feed_status *status = &feed->status;
    if (message->from != feed->cursor)
        return 0; /* not what was asked for: a faulty daemon, asked again after the timeout */
    if (message->from != 0 && strcmp(message->epoch, status->epoch) != 0)
        return want(feed, WANT_SNAPSHOT);
    if (message->from == 0) {
        if (strcmp(message->epoch, status->epoch) != 0)
            memcpy(feed->former_epoch, status->epoch, sizeof status->epoch);
        memcpy(status->epoch, message->epoch, sizeof status->epoch);
        status->seq = feed->floor_seq = message->seq;
        queue_table_clear(&feed->queue);
    }
    if (put_entries(feed))
        return ERROR_LIMIT;
    feed->floor_seq = message->seq > feed->floor_seq ? message->seq : feed->floor_seq;
    status->cycle = message->cycle;
    status->model = message->model;
    feed->cursor = message->next;
    feed->request++;
    status->snapshots += message->next == 0;
    return message->next == 0 ? want(feed, WANT_REPLAY) : 0;
}

/* What was missed, one body after the other as if it came on the topic. Decoding one overwrites feed->message. */
static int on_replay(struct triage_feed *feed)
{
    struct feed_bytes missed[FEED_REPLAY_MESSAGES];
    struct feed_message *message = &feed->message;
    size_t count = message->count;
    uint64_t from = message->from_seq, seq = message->seq, length = message->length, checksum = message->checksum;
    if (from != feed->status.seq + 1)
        return 0; /* a faulty daemon */
    memcpy(missed, message->messages, count * sizeof *missed);
    for (size_t i = 0; i < count; i++) {
        want(feed, LIVE);
        int result = triage_feed_take(feed, missed[i].bytes, missed[i].length, 0);
        if (result < 0 || feed->want != LIVE || feed->status.seq != from + i)
            return result < 0 ? result : want(feed, WANT_SNAPSHOT);
    }
    feed->status.replays += count > 0;
    int is_wrong = feed->status.seq == seq ? !is_whole(feed, length, checksum) : feed->status.seq < seq && count == 0;
    int is_enough = feed->status.seq >= seq && feed->status.seq >= feed->floor_seq;
    want(feed, is_wrong ? WANT_SNAPSHOT : is_enough ? LIVE : WANT_REPLAY);
    return is_enough;
}

int triage_feed_take(struct triage_feed *feed, const void *body, size_t length, int is_reply)
{
    const struct feed_message *message = &feed->message;
    int result = feed_decode(body, length, &feed->message);
    feed->status.malformed += result == ERROR_INPUT || result == ERROR_LIMIT;
    if (result)
        return result == ERROR_SYSTEM ? result : 0;
    if (!is_reply)
        return feed->want == LIVE && message->kind <= FEED_HEARTBEAT ? on_message(feed) : 0;
    if (message->request != feed->request)
        return 0; /* the answer to an earlier request, perhaps from before a restart */
    if (feed->want == WANT_SNAPSHOT)
        return message->kind == FEED_SNAPSHOT ? on_snapshot(feed) : 0;
    int is_ours = message->kind == FEED_REPLAY && strcmp(message->epoch, feed->status.epoch) == 0;
    return is_ours ? on_replay(feed) : want(feed, WANT_SNAPSHOT);
}

size_t triage_feed_request(const struct triage_feed *feed, int ack, void *body, size_t size)
{
    const struct triage_feed_status *status = &feed->status;
    struct feed_counters counters = {status->gaps, status->replays, status->snapshots, status->malformed};
    struct text text = text_new(size);
    if (ack)
        feed_encode_ack(&text, feed->name, status->epoch, status->seq, &counters);
    else if (feed->want == WANT_SNAPSHOT)
        feed_encode_snapshot_request(&text, feed->request, feed->cursor);
    else if (feed->want == WANT_REPLAY)
        feed_encode_replay_request(&text, feed->request, status->epoch, status->seq + 1);
    size_t length = text.error ? 0 : text.length;
    if (length)
        memcpy(body, text.bytes, length);
    text_free(&text);
    return length;
}

int triage_feed_open(const struct triage_feed_options *options, struct triage_feed **ret_feed)
{
    struct socket_curve curve, *key = options->key_file ? &curve : NULL;
    struct socket_options topic = {SOCKET_SUB, options->publish, FEED_TOPIC, 1, 1000, FEED_BODY_BYTES_MAX, key, 0, 0};
    struct socket_options requests = {SOCKET_DEALER, options->snapshot, 0, 4, 4, FEED_BODY_BYTES_MAX, key, 0, 0};
    struct triage_feed *feed = calloc(1, sizeof *feed);
    int result = feed ? queue_table_new(FEED_SNAPSHOT_ENTRIES, &feed->queue) : error_set(ERROR_SYSTEM, "out of memory");
    if (!result && key)
        result = feed_keys_read_client(options->key_file, key);
    if (!result && options->publish && !(result = socket_open(&topic, &feed->topic)))
        result = socket_open(&requests, &feed->requests);
    explicit_bzero(&curve, sizeof curve);
    if (result) {
        triage_feed_close(feed);
        return result;
    }
    snprintf(feed->name, sizeof feed->name, "%s", options->name ? options->name : "C");
    want(feed, WANT_SNAPSHOT);
    *ret_feed = feed;
    return 0;
}

void triage_feed_close(struct triage_feed *feed)
{
    if (!feed)
        return;
    socket_close(feed->topic);
    socket_close(feed->requests);
    queue_table_free(&feed->queue);
    free(feed->shown);
    free(feed);
}

/* Asks for what is missing: at once if that is new, again after the timeout if it is not. Tells how far we are. */
static int speak(struct triage_feed *feed)
{
    char body[REQUEST_BYTES];
    int64_t now_ms = clock_ms();
    if (now_ms - feed->heard_ms > SILENCE_MS && feed->want == LIVE)
        want(feed, WANT_REPLAY);
    struct socket_frame frame = {body, triage_feed_request(feed, 0, body, sizeof body)};
    int is_new = feed->request != feed->asked, result = 0;
    if (frame.length && (is_new || now_ms - feed->asked_ms >= REPLY_TIMEOUT_MS)) {
        result = socket_send(feed->requests, &frame, 1);
        feed->asked = feed->request;
        feed->asked_ms = now_ms;
    }
    if (!result && feed->want == LIVE && now_ms - feed->acked_ms >= ACK_MS) {
        frame.length = triage_feed_request(feed, 1, body, sizeof body);
        result = socket_send(feed->requests, &frame, 1);
        feed->acked_ms = now_ms;
    }
    return result == ERROR_LIMIT ? 0 : result; /* the daemon is away, and requests to it wait already */
}

/* Takes one message, of the topic only while nothing is missing: until then they wait. 1 if there was one. */
static int hear(struct triage_feed *feed, int *changed)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count, result = socket_receive(feed->requests, frames, &count), is_reply = result != 0;
    if (!is_reply && feed->want == LIVE)
        result = socket_receive(feed->topic, frames, &count);
    if (result != 1)
        return result;
    if (!is_reply && (frames[0].length != sizeof FEED_TOPIC - 1 || (feed->to_lose && feed->to_lose--)))
        return 1; /* a topic that only begins like ours, or a message to lose */
    struct socket_frame body = count == 2 - is_reply ? frames[count - 1] : (struct socket_frame){"", 0};
    result = triage_feed_take(feed, body.bytes, body.length, is_reply);
    *changed |= result > 0;
    return result < 0 ? result : 1;
}

int triage_feed_step(struct triage_feed *feed, int timeout_ms)
{
    int64_t deadline_ms = clock_ms() + timeout_ms;
    for (;;) {
        int changed = 0, result = speak(feed);
        for (int i = 0; i < MESSAGES_PER_STEP && result >= 0 && (result = hear(feed, &changed)) > 0; i++)
            result = speak(feed);
        int64_t left_ms = deadline_ms - clock_ms();
        if (result < 0 || changed || left_ms <= 0)
            return result < 0 ? result : changed;
        struct pollfd set[2] = {{socket_descriptor(feed->requests), POLLIN, 0},
                                {socket_descriptor(feed->topic), POLLIN, 0}};
        poll(set, feed->want == LIVE ? 2 : 1, left_ms < REPLY_TIMEOUT_MS ? (int)left_ms : REPLY_TIMEOUT_MS);
    }
}

const struct triage_feed_entry *triage_feed_entries(struct triage_feed *feed, size_t *ret_count)
{
    struct triage_feed_entry *room = NULL;
    if (feed->want == LIVE && (room = realloc(feed->shown, (feed->queue.count + 1) * sizeof *room))) {
        const struct queue_entry *from = queue_table_ranked(&feed->queue);
        feed->shown = room;
        feed->shown_count = feed->queue.count;
        for (const struct queue_entry *end = from + feed->queue.count; from < end; from++, room++) {
            *room = (struct triage_feed_entry){"", from->rank, from->stream, from->probability, from->score,
                                               from->total, from->expected, from->model, from->leased_until_ms};
            memcpy(room->id, from->id_str, sizeof room->id);
        }
    }
    *ret_count = feed->shown_count;
    return feed->shown;
}

void triage_feed_status(const struct triage_feed *feed, struct triage_feed_status *ret_status)
{
    *ret_status = feed->status;
}

const char *triage_feed_error(void)
{
    return error_message();
}

void triage_feed_lose(struct triage_feed *feed, uint64_t count)
{
    feed->to_lose = count;
}
