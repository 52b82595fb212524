/* See feed_log.h. */
#include "connectors/feed_log.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* --- opening --- */

/* 128 random bits: two runs of a daemon never share an epoch. */
static int choose_epoch(char epoch[HASH_TEXT_BYTES])
{
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return error_set_errno("cannot draw the feed's epoch");
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(epoch + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

int feed_log_open(const struct publisher_options *options, feed_emit *emit, void *context, struct feed_log **ret_log)
{
    struct feed_log *log = calloc(1, sizeof *log);
    if (!log)
        return error_set(ERROR_SYSTEM, "out of memory for the feed");
    log->emit = emit;
    log->context = context;
    log->chunk_entries = FEED_SNAPSHOT_ENTRIES;
    log->ring_messages = FEED_RING_MESSAGES;
    log->body = text_new(FEED_BODY_BYTES_MAX);
    int result = choose_epoch(log->epoch);
    if (!result && strlen(options->schema_hash) >= sizeof log->schema)
        result = error_set(ERROR_INPUT, "the schema's hash has more than %zu characters", sizeof log->schema - 1);
    if (!result)
        snprintf(log->schema, sizeof log->schema, "%s", options->schema_hash);
    if (!result)
        result = queue_table_new(options->queue_limit, &log->published);
    if (!result)
        result = queue_table_new(options->queue_limit, &log->next);
    if (result) {
        feed_log_close(log);
        return result;
    }
    *ret_log = log;
    return 0;
}

void feed_log_close(struct feed_log *log)
{
    if (!log)
        return;
    for (int i = 0; i < FEED_RING_MESSAGES; i++)
        free(log->ring[i].bytes);
    queue_table_free(&log->published);
    queue_table_free(&log->next);
    text_free(&log->body);
    free(log);
}

/* --- saying something --- */

static struct feed_header header_of(const struct feed_log *log, uint64_t seq)
{
    return (struct feed_header){.epoch = log->epoch, .seq = seq, .schema = log->schema, .unix_ms = clock_unix_ms()};
}

static struct feed_whole whole_of(const struct queue_table *table)
{
    return (struct feed_whole){.length = table->count, .checksum = table->checksum};
}

/* Of a reply, which carries the number of its request. */
static struct feed_header reply_header(const struct feed_log *log, const struct feed_request *request)
{
    struct feed_header header = header_of(log, log->seq);
    header.request = request->request;
    return header;
}

/* The header of the next message; its body is then encoded into log->body and handed to emit_message(). */
static struct feed_header begin_message(struct feed_log *log)
{
    text_clear(&log->body);
    return header_of(log, log->seq + 1);
}

static void emit_body(struct feed_log *log)
{
    int result = text_error(&log->body);
    if (!result)
        result = log->emit(log->context, log->body.bytes, log->body.length);
    if (result) {
        log->counters.unsent++;
        log->failure = log->failure ? log->failure : result;
    }
}

/* Keeps the message for replays, then sends it. It counts even if it cannot be sent: the gap makes
 * subscribers ask. */
static void emit_message(struct feed_log *log)
{
    log->seq++;
    log->counters.messages++;
    struct feed_ring_item *item = &log->ring[log->seq % FEED_RING_MESSAGES];
    free(item->bytes);
    item->length = log->body.length;
    item->bytes = text_error(&log->body) ? NULL : malloc(item->length);
    if (item->bytes)
        memcpy(item->bytes, log->body.bytes, item->length);
    emit_body(log);
}

/* One line of plain text, cut to what fits: texts may hold anything, the feed only UTF-8. */
static void copy_line(char *line, size_t size, const char *text)
{
    snprintf(line, size, "%s", text);
    for (; *line; line++)
        if (*line < ' ' || *line > '~')
            *line = '?';
}

static void flush_retractions(struct feed_log *log)
{
    if (!log->batch)
        return;
    struct feed_header header = begin_message(log);
    feed_encode_retract(&log->body, &header, log->retractions, log->batch);
    log->batch = 0;
    emit_message(log);
}

static void add_retraction(struct feed_log *log, const char *id_str, const char *reason)
{
    struct retraction *retraction = &log->retractions[log->batch++];
    memcpy(retraction->id_str, id_str, QUEUE_ID_BYTES);
    retraction->reason = reason;
    if (log->batch == FEED_UPSERT_ENTRIES)
        flush_retractions(log);
}

static void flush_upserts(struct feed_log *log)
{
    if (!log->batch)
        return;
    struct feed_header header = begin_message(log);
    feed_encode_upsert(&log->body, &header, log->model, log->upserts, log->batch);
    log->batch = 0;
    emit_message(log);
}

static void add_upsert(struct feed_log *log, const struct queue_entry *entry)
{
    log->upserts[log->batch++] = *entry;
    if (log->batch == FEED_UPSERT_ENTRIES)
        flush_upserts(log);
}

static int finish(struct feed_log *log)
{
    int result = log->failure;
    log->failure = 0;
    return result;
}

/* --- publishing --- */

/* Whether subscribers would see the same, to the bit. */
static bool is_same(const struct queue_entry *a, const struct queue_entry *b)
{
    unsigned char first[QUEUE_PACKED_BYTES], second[QUEUE_PACKED_BYTES];
    size_t length = queue_entry_pack(a, first);
    return length == queue_entry_pack(b, second) && memcmp(first, second, length) == 0;
}

/* Fills log->next with the new ranking; refuses it whole. */
static int check_ranking(struct feed_log *log, const struct queue_entry *entries, size_t count)
{
    if (count > log->next.limit)
        return error_set(ERROR_LIMIT, "a queue of %zu entries is longer than the feed's limit of %zu", count,
                         log->next.limit);
    queue_table_clear(&log->next);
    for (size_t i = 0; i < count; i++) {
        int result = feed_check_entry(&entries[i]);
        if (result)
            return result;
        if (queue_table_find(&log->next, entries[i].id_str))
            return error_set(ERROR_INPUT, "galaxy %s is twice in the queue", entries[i].id_str);
        queue_table_put(&log->next, &entries[i]);
    }
    return 0;
}

int feed_log_publish(struct feed_log *log, uint64_t cycle, uint32_t model, const struct queue_entry *entries,
                     size_t count)
{
    int result = check_ranking(log, entries, count);
    if (result)
        return result;
    int64_t now_ms = clock_unix_ms();
    const struct queue_entry *old = queue_table_ranked(&log->published);
    const struct queue_entry *new = queue_table_ranked(&log->next);
    log->model = model;
    log->cycle = cycle;
    for (size_t i = 0; i < log->published.count; i++)
        if (!queue_table_find(&log->next, old[i].id_str)) {
            bool is_over = old[i].leased_until_ms > 0 && old[i].leased_until_ms <= now_ms;
            add_retraction(log, old[i].id_str, is_over ? "lease_expired" : "replaced");
        }
    flush_retractions(log);
    FAULT(FEED_HALF_PUBLISHED);
    for (size_t i = 0; i < count; i++) {
        const struct queue_entry *before = queue_table_find(&log->published, new[i].id_str);
        if (!before || !is_same(before, &new[i]))
            add_upsert(log, &new[i]);
    }
    flush_upserts(log);
    struct queue_table swapped = log->published;
    log->published = log->next;
    log->next = swapped;
    struct feed_header header = begin_message(log);
    struct feed_whole whole = whole_of(&log->published);
    feed_encode_rerank(&log->body, &header, cycle, model, &whole);
    emit_message(log);
    return finish(log);
}

int feed_log_retract(struct feed_log *log, const struct retraction *retractions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!memchr(retractions[i].id_str, 0, QUEUE_ID_BYTES))
            return error_set(ERROR_INPUT, "an id to retract is not terminated");
        if (!feed_reason(retractions[i].reason))
            return error_set(ERROR_INPUT, "there is no reason '%s' to retract a galaxy", retractions[i].reason);
    }
    for (size_t i = 0; i < count; i++)
        if (queue_table_remove(&log->published, retractions[i].id_str))
            add_retraction(log, retractions[i].id_str, retractions[i].reason);
    flush_retractions(log);
    return finish(log);
}

int feed_log_model_changed(struct feed_log *log, uint32_t model, const char *why)
{
    char line[FEED_WHY_BYTES];
    copy_line(line, sizeof line, why);
    log->model = model;
    struct feed_header header = begin_message(log);
    feed_encode_model(&log->body, &header, model, line);
    emit_message(log);
    return finish(log);
}

int feed_log_heartbeat(struct feed_log *log)
{
    struct feed_header header = header_of(log, log->seq);
    struct feed_whole whole = whole_of(&log->published);
    text_clear(&log->body);
    feed_encode_heartbeat(&log->body, &header, log->model, &whole);
    emit_body(log);
    return finish(log);
}

/* --- answering --- */

static void answer_snapshot(struct feed_log *log, const struct feed_request *request, struct text *reply)
{
    struct feed_header header = reply_header(log, request);
    struct feed_chunk chunk = {.cycle = log->cycle,
                               .model = log->model,
                               .length = log->published.count,
                               .from = request->from,
                               .next = request->from,
                               .entries = log->chunk};
    chunk.count = queue_table_walk(&log->published, &chunk.next, log->chunk, log->chunk_entries);
    log->counters.snapshots += request->from == 0;
    feed_encode_snapshot(reply, &header, &chunk);
}

/* Messages from `from_seq` on that are still in the ring: as many as one reply may hold. */
static size_t gather_replay(const struct feed_log *log, uint64_t from_seq, struct feed_bytes *messages)
{
    size_t count = 0, bytes = 0;
    for (uint64_t seq = from_seq; seq <= log->seq && count < FEED_REPLAY_MESSAGES; seq++) {
        const struct feed_ring_item *item = &log->ring[seq % FEED_RING_MESSAGES];
        if (!item->bytes || (bytes += item->length) > FEED_REPLAY_BYTES)
            break;
        messages[count++] = (struct feed_bytes){item->bytes, item->length};
    }
    return count;
}

static void answer_replay(struct feed_log *log, const struct feed_request *request, struct text *reply)
{
    struct feed_header header = reply_header(log, request);
    struct feed_bytes messages[FEED_REPLAY_MESSAGES];
    uint64_t oldest = log->seq < log->ring_messages ? 1 : log->seq - log->ring_messages + 1;
    bool known = strcmp(request->epoch, log->epoch) == 0 && request->from >= oldest && request->from <= log->seq + 1;
    size_t count = known ? gather_replay(log, request->from, messages) : 0;
    if (!known || (!count && request->from <= log->seq))
        feed_encode_too_old(reply, &header);
    else {
        struct feed_whole whole = whole_of(&log->published);
        feed_encode_replay(reply, &header, &whole, request->from, messages, count);
    }
}

static void answer_subscribers(struct feed_log *log, const struct feed_request *request, struct text *reply)
{
    static _Thread_local struct feed_subscriber list[FEED_SUBSCRIBERS_MAX];
    struct feed_header header = reply_header(log, request);
    feed_encode_subscribers(reply, &header, list, feed_log_subscribers(log, list, FEED_SUBSCRIBERS_MAX));
}

static void take_ack(struct feed_log *log, const struct feed_asker *asker, const struct feed_request *ack)
{
    log->counters.acks++;
    log->counters.gaps += feed_subscribers_ack(&log->subscribers, ack, asker->key, asker->role, clock_ms());
}

static void answer_error(struct feed_log *log, struct text *reply)
{
    char line[FEED_WHY_BYTES];
    copy_line(line, sizeof line, error_message());
    log->counters.malformed++;
    feed_encode_error(reply, line);
}

int feed_log_answer(struct feed_log *log, const struct feed_asker *asker, const void *request, size_t length,
                    struct text *reply)
{
    struct feed_request wanted;
    int result = feed_decode_request(request, length, &wanted);
    if (!result && wanted.ask == FEED_ASK_SUBSCRIBERS && asker->role != FEED_ADMIN)
        result = error_set(ERROR_INPUT, "the list of subscribers is for holders of an admin key");
    log->counters.requests += result || wanted.ask != FEED_ASK_NOTHING;
    if (result == ERROR_INPUT || result == ERROR_LIMIT)
        answer_error(log, reply);
    else if (result)
        return result;
    else if (wanted.ask == FEED_ASK_NOTHING)
        take_ack(log, asker, &wanted);
    else if (wanted.ask == FEED_ASK_REPLAY)
        answer_replay(log, &wanted, reply);
    else if (wanted.ask == FEED_ASK_SNAPSHOT)
        answer_snapshot(log, &wanted, reply);
    else
        answer_subscribers(log, &wanted, reply);
    return text_error(reply);
}

size_t feed_log_subscribers(struct feed_log *log, struct feed_subscriber *list, size_t limit)
{
    return feed_subscribers_list(&log->subscribers, log->epoch, log->seq, clock_ms(), list, limit);
}
