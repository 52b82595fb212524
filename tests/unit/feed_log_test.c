/* The feed without sockets: what is said, how it is followed and repaired, acks, and hostile bodies. */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/feed_log.h"
#include "connectors/publisher.h"
#include "tests/support/feed_queues.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct feed_asker anybody = {.key = "", .role = FEED_SUBSCRIBER};

/* --- the table --- */

/* CRC-32 bit by bit, of the bytes docs/feed.md names, in a way that shares nothing with the product. */
static uint64_t checksum_of(const struct queue_entry *entries, size_t count)
{
    uint64_t sum = 0;
    for (const struct queue_entry *entry = entries; entry < entries + count; entry++) {
        unsigned char bytes[37 + QUEUE_ID_BYTES];
        size_t length = 37 + strlen(entry->id_str);
        memcpy(bytes, &entry->rank, 4);
        bytes[4] = entry->stream;
        memcpy(bytes + 5, &entry->probability, 8);
        memcpy(bytes + 13, &entry->score, 4);
        memcpy(bytes + 17, &entry->total, 4);
        memcpy(bytes + 21, &entry->expected, 4);
        memcpy(bytes + 25, &entry->model, 4);
        memcpy(bytes + 29, &entry->leased_until_ms, 8);
        memcpy(bytes + 37, entry->id_str, length - 37);
        uint32_t crc = UINT32_MAX;
        for (size_t i = 0; i < length; i++) {
            crc ^= bytes[i];
            for (int bit = 0; bit < 8; bit++)
                crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        }
        crc = ~crc;
        sum += (uint64_t)crc * crc;
    }
    return sum;
}

/* A walk lists every entry that stays exactly once, although others come, go, change and move all the time. */
static void test_a_walk_while_the_table_changes(void **state)
{
    (void)state;
    struct draws draws = {.seed = 77};
    struct queue_table table;
    assert_int_equal(queue_table_new(QUEUE_ENTRIES, &table), 0);
    for (int round = 0; round < 50; round++) {
        int listed[400] = {0};
        uint64_t cursor = 0;
        queue_table_clear(&table);
        for (uint32_t i = 0; i < 800; i++) {
            struct queue_entry entry = {.rank = i};
            name_galaxy(entry.id_str, i); /* the first 400 stay */
            assert_int_equal(queue_table_put(&table, &entry), 0);
        }
        do {
            const struct queue_entry *entries[64];
            size_t count = queue_table_walk(&table, &cursor, entries, 64);
            for (size_t i = 0; i < count; i++)
                if (entries[i]->rank < 400)
                    listed[entries[i]->rank]++;
            for (int i = 0; i < 40; i++) {
                struct queue_entry entry = {.rank = 400 + draw(&draws, 900)};
                name_galaxy(entry.id_str, entry.rank);
                if (draw(&draws, 2))
                    queue_table_put(&table, &entry);
                else
                    queue_table_remove(&table, entry.id_str);
            }
            if (draw(&draws, 3) == 0)
                queue_table_ranked(&table);
        } while (cursor);
        for (int i = 0; i < 400; i++)
            assert_int_equal(listed[i], 1);
    }
    uint64_t beyond = UINT64_MAX; /* a cursor from a stranger */
    const struct queue_entry *entries[64];
    assert_int_equal(queue_table_walk(&table, &beyond, entries, 64), 0);
    assert_int_equal(beyond, 0);
    queue_table_free(&table);
}

static void test_table_against_a_list(void **state)
{
    (void)state;
    struct draws draws = {.seed = 5};
    struct queue_table table;
    static struct queue_entry list[64];
    size_t count = 0;
    assert_int_equal(queue_table_new(64, &table), 0);
    for (int round = 0; round < 20000; round++) {
        struct queue_entry entry = {.rank = draw(&draws, 50), .model = draw(&draws, 1000)};
        name_galaxy(entry.id_str, draw(&draws, 90));
        size_t at = 0;
        while (at < count && strcmp(list[at].id_str, entry.id_str) != 0)
            at++;
        if (draw(&draws, 2)) {
            int result = queue_table_put(&table, &entry);
            assert_int_equal(result, at == count && count == 64 ? ERROR_LIMIT : 0);
            if (!result)
                list[at] = entry;
            count += !result && at == count;
        } else {
            assert_int_equal(queue_table_remove(&table, entry.id_str), at < count);
            if (at < count)
                list[at] = list[--count];
        }
        assert_int_equal(table.count, count);
        assert_true(table.checksum == checksum_of(list, count));
        if (round % 97 == 0)
            queue_table_ranked(&table);
        for (size_t i = 0; i < count; i++) {
            const struct queue_entry *found = queue_table_find(&table, list[i].id_str);
            assert_non_null(found);
            assert_int_equal(found->model, list[i].model);
        }
    }
    const struct queue_entry *ranked = queue_table_ranked(&table);
    for (size_t i = 1; i < count; i++)
        assert_true(ranked[i - 1].rank < ranked[i].rank ||
                    (ranked[i - 1].rank == ranked[i].rank && strcmp(ranked[i - 1].id_str, ranked[i].id_str) < 0));
    queue_table_free(&table);
    assert_int_equal(queue_table_new(PUBLISHER_QUEUE_LIMIT + 1, &table), ERROR_LIMIT);
}

/* --- what is said --- */

struct capture {
    struct feed_message *said; /* [8] */
    int count;
};

static int capture_body(void *context, const void *body, size_t length)
{
    struct capture *capture = context;
    assert_true(capture->count < 8);
    assert_int_equal(feed_decode(body, length, &capture->said[capture->count++]), 0);
    return 0;
}

static struct feed_log *open_log(feed_emit *emit, void *context)
{
    struct publisher_options options = {.schema_hash = SCHEMA, .queue_limit = QUEUE_ENTRIES};
    struct feed_log *log;
    assert_int_equal(feed_log_open(&options, emit, context, &log), 0);
    return log;
}

static struct queue_entry entry_of(const char *id_str, uint32_t rank, int64_t leased_until_ms)
{
    struct queue_entry entry = {
        .rank = rank, .stream = 1, .probability = 0.125, .score = 0.5f, .model = 2, .leased_until_ms = leased_until_ms};
    snprintf(entry.id_str, sizeof entry.id_str, "%s", id_str);
    return entry;
}

/* Retractions with their reasons first, then what is new or changed and nothing else, then the end mark. */
static void test_a_ranking_is_said_as_its_difference(void **state)
{
    (void)state;
    struct capture capture = {.said = calloc(8, sizeof(struct feed_message))};
    struct feed_log *log = open_log(capture_body, &capture);
    struct queue_entry first[] = {entry_of("over", 3, 1), entry_of("stays", 2, 0), entry_of("moves", 1, 0),
                                  entry_of("goes", 4, INT64_MAX)};
    struct queue_entry second[] = {entry_of("moves", 3, 0), entry_of("stays", 2, 0), entry_of("new", 1, 0)};
    struct feed_message *said = capture.said;
    assert_int_equal(feed_log_publish(log, 10, 2, first, 4), 0);
    assert_int_equal(capture.count, 2);
    assert_int_equal(said[0].kind, FEED_UPSERT);
    assert_int_equal(said[0].seq, 1);
    assert_int_equal(said[0].count, 4);
    assert_string_equal(said[0].entries[0].id_str, "moves"); /* in rank order */
    assert_string_equal(said[0].entries[3].id_str, "goes");
    assert_int_equal(said[1].kind, FEED_RERANK);
    assert_int_equal(said[1].seq, 2);
    assert_int_equal(said[1].cycle, 10);
    assert_int_equal(said[1].length, 4);
    assert_true(said[1].checksum == checksum_of(first, 4));
    assert_string_equal(said[1].schema, SCHEMA);
    assert_int_equal(strlen(said[1].epoch), 32);
    capture.count = 0;
    assert_int_equal(feed_log_publish(log, 11, 3, second, 3), 0);
    assert_int_equal(capture.count, 3);
    assert_int_equal(said[0].kind, FEED_RETRACT);
    assert_int_equal(said[0].count, 2);
    assert_string_equal(said[0].retractions[0].id_str, "over");
    assert_string_equal(said[0].retractions[0].reason, "lease_expired");
    assert_string_equal(said[0].retractions[1].id_str, "goes");
    assert_string_equal(said[0].retractions[1].reason, "replaced");
    assert_int_equal(said[1].kind, FEED_UPSERT);
    assert_int_equal(said[1].count, 2);
    assert_string_equal(said[1].entries[0].id_str, "new");
    assert_string_equal(said[1].entries[1].id_str, "moves");
    assert_int_equal(said[1].entries[1].rank, 3);
    assert_int_equal(said[2].kind, FEED_RERANK);
    assert_int_equal(said[2].length, 3);
    assert_int_equal(said[2].seq, 5);
    feed_log_close(log);
    free(capture.said);
}

static void test_retractions_models_and_heartbeats(void **state)
{
    (void)state;
    struct capture capture = {.said = calloc(8, sizeof(struct feed_message))};
    struct feed_log *log = open_log(capture_body, &capture);
    struct queue_entry entry = entry_of("here", 1, 0);
    struct retraction retractions[] = {
        {"absent", "retired"  },
        {"here",   "bad_image"},
        {"here",   "retired"  }
    };
    struct retraction odd = {"here", "bored"};
    struct feed_message *said = capture.said;
    assert_int_equal(feed_log_publish(log, 1, 1, &entry, 1), 0);
    capture.count = 0;
    assert_int_equal(feed_log_retract(log, &odd, 1), ERROR_INPUT);
    assert_int_equal(feed_log_retract(log, retractions, 1), 0); /* not in the queue: nothing to say */
    assert_int_equal(capture.count, 0);
    assert_int_equal(feed_log_retract(log, retractions, 3), 0);
    assert_int_equal(capture.count, 1);
    assert_int_equal(said[0].count, 1);
    assert_string_equal(said[0].retractions[0].reason, "bad_image");
    assert_int_equal(feed_log_heartbeat(log), 0);
    assert_int_equal(feed_log_heartbeat(log), 0);
    assert_int_equal(said[2].kind, FEED_HEARTBEAT);
    assert_int_equal(said[2].seq, 3); /* heartbeats take no number */
    assert_int_equal(said[2].length, 0);
    assert_int_equal(feed_log_model_changed(log, 8, "better\nby \xff%s"), 0);
    assert_int_equal(said[3].kind, FEED_MODEL);
    assert_int_equal(said[3].seq, 4);
    assert_int_equal(said[3].model, 8);
    assert_string_equal(said[3].why, "better?by ?%s");
    feed_log_close(log);
    free(capture.said);
}

static void test_a_bad_ranking_changes_nothing(void **state)
{
    (void)state;
    struct capture capture = {.said = calloc(8, sizeof(struct feed_message))};
    struct feed_log *log = open_log(capture_body, &capture);
    static struct queue_entry many[QUEUE_ENTRIES + 1];
    struct queue_entry good = entry_of("kept", 1, 0);
    struct queue_entry twice[] = {entry_of("a", 1, 0), entry_of("b", 2, 0), entry_of("a", 3, 0)};
    struct queue_entry broken[] = {entry_of("a", 1, 0), entry_of("", 2, 0)};
    assert_int_equal(feed_log_publish(log, 1, 1, &good, 1), 0);
    assert_int_equal(feed_log_publish(log, 2, 2, twice, 3), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "galaxy a is twice"));
    assert_int_equal(feed_log_publish(log, 2, 2, broken, 2), ERROR_INPUT);
    assert_int_equal(feed_log_publish(log, 2, 2, many, QUEUE_ENTRIES + 1), ERROR_LIMIT);
    assert_int_equal(log->seq, 2);
    assert_int_equal(capture.count, 2);
    assert_int_equal(log->published.count, 1);
    assert_int_equal(log->cycle, 1);
    feed_log_close(log);
    free(capture.said);
}

static int refuse_body(void *context, const void *body, size_t length)
{
    (void)context, (void)body, (void)length;
    return error_set(ERROR_SYSTEM, "the wire is cut");
}

/* What cannot be sent is still said: the state goes on, and a replay has it. */
static void test_a_failing_wire(void **state)
{
    (void)state;
    struct feed_log *log = open_log(refuse_body, NULL);
    struct queue_entry entry = entry_of("a", 1, 0);
    struct text request = text_new(1000), reply = text_new(FEED_BODY_BYTES_MAX);
    struct feed_message *message = calloc(1, sizeof *message);
    assert_int_equal(feed_log_publish(log, 1, 1, &entry, 1), ERROR_SYSTEM);
    assert_string_equal(error_message(), "the wire is cut");
    assert_int_equal(log->seq, 2);
    assert_int_equal(log->counters.unsent, 2);
    feed_encode_replay_request(&request, 0, log->epoch, 1);
    assert_int_equal(feed_log_answer(log, &anybody, request.bytes, request.length, &reply), 0);
    assert_int_equal(feed_decode(reply.bytes, reply.length, message), 0);
    assert_int_equal(message->kind, FEED_REPLAY);
    assert_int_equal(message->count, 2);
    free(message);
    text_free(&request);
    text_free(&reply);
    feed_log_close(log);
}

/* --- following, without sockets --- */

static struct triage_feed *open_follower(void)
{
    struct triage_feed *feed;
    assert_int_equal(triage_feed_open(&(struct triage_feed_options){0}, &feed), 0);
    return feed;
}

static int hear(void *context, const void *body, size_t length)
{
    struct triage_feed **feed = context;
    assert_true(!*feed || triage_feed_take(*feed, body, length, 0) >= 0);
    return 0;
}

/* One request and its reply; 0 when there was nothing to ask. */
static int exchange(struct triage_feed *feed, struct feed_log *log)
{
    char request[512];
    struct text reply = text_new(FEED_BODY_BYTES_MAX);
    size_t length = triage_feed_request(feed, 0, request, sizeof request);
    if (length) {
        assert_int_equal(feed_log_answer(log, &anybody, request, length, &reply), 0);
        assert_true(triage_feed_take(feed, reply.bytes, reply.length, 1) >= 0);
    }
    text_free(&reply);
    return length > 0;
}

static struct triage_feed_status status_of(const struct triage_feed *feed)
{
    struct triage_feed_status status;
    triage_feed_status(feed, &status);
    return status;
}

/* A queue that changes between any two chunks is taken over without starting again, and half a one is never shown. */
static void test_a_snapshot_while_the_queue_changes(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 1};
    struct triage_feed *feed = open_follower();
    struct feed_log *log = open_log(hear, &feed);
    int chunks = 0;
    size_t count;
    log->chunk_entries = 100;
    do
        draw_queue(&draws, QUEUE_ENTRIES, &queue);
    while (queue.count < 1100);
    assert_int_equal(feed_log_publish(log, 1, 1, queue.entries, queue.count), 0);
    while (exchange(feed, log)) {
        if (status_of(feed).is_live)
            break;
        triage_feed_entries(feed, &count);
        assert_int_equal(count, 0);
        for (int i = 0; i < 3 && chunks < 30; i++) {
            struct retraction retraction = {.reason = "excluded"};
            memcpy(retraction.id_str, queue.entries[draw(&draws, (uint32_t)queue.count)].id_str, QUEUE_ID_BYTES);
            remove_from_queue(&queue, retraction.id_str);
            assert_int_equal(feed_log_retract(log, &retraction, 1), 0);
        }
        chunks++;
    }
    assert_true(chunks > 10);
    assert_int_equal(status_of(feed).snapshots, 1);
    assert_follows(feed, &queue);
    triage_feed_close(feed);
    feed_log_close(log);
}

static void test_tail_loss_is_noticed_by_the_heartbeat(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 1};
    struct triage_feed *feed = open_follower(), *deaf = NULL;
    struct feed_log *log = open_log(hear, &deaf);
    while (exchange(feed, log))
        ;
    assert_true(status_of(feed).is_live);
    draw_queue(&draws, 50, &queue);
    assert_int_equal(feed_log_publish(log, 1, 1, queue.entries, queue.count), 0);
    assert_true(status_of(feed).is_live); /* it cannot know yet */
    deaf = feed;
    assert_int_equal(feed_log_heartbeat(log), 0);
    assert_false(status_of(feed).is_live);
    assert_true(exchange(feed, log));
    assert_follows(feed, &queue);
    assert_int_equal(status_of(feed).gaps, 1);
    assert_int_equal(status_of(feed).replays, 1);
    assert_int_equal(status_of(feed).snapshots, 1);
    triage_feed_close(feed);
    feed_log_close(log);
}

/* A queue that differs although nothing was lost, as after a fault in memory: the next heartbeat tells. */
static void test_a_difference_is_found_by_its_checksum(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 4};
    struct triage_feed *feed = open_follower(), *deaf = NULL;
    struct feed_log *log = open_log(hear, &deaf);
    draw_queue(&draws, 50, &queue);
    assert_int_equal(feed_log_publish(log, 1, 1, queue.entries, queue.count), 0);
    while (exchange(feed, log))
        ;
    struct queue_entry other = log->published.entries[0];
    other.score += 0x1p-20f;
    assert_int_equal(queue_table_put(&log->published, &other), 0); /* the same length, position and ids */
    deaf = feed;
    assert_int_equal(feed_log_heartbeat(log), 0);
    assert_false(status_of(feed).is_live);
    while (exchange(feed, log))
        ;
    assert_int_equal(feed_log_heartbeat(log), 0);
    assert_true(status_of(feed).is_live);
    assert_int_equal(status_of(feed).snapshots, 2);
    triage_feed_close(feed);
    feed_log_close(log);
}

/* Messages of the epoch before a restart, read late, do not send the subscriber back for snapshots. */
static void test_leftovers_of_a_former_epoch(void **state)
{
    (void)state;
    struct triage_feed *feed = open_follower();
    struct feed_log *old = open_log(hear, &feed), *new = open_log(hear, &feed);
    while (exchange(feed, old))
        ;
    assert_int_equal(feed_log_heartbeat(new), 0);
    assert_false(status_of(feed).is_live);
    while (exchange(feed, new))
        ;
    assert_true(status_of(feed).is_live);
    assert_int_equal(feed_log_model_changed(old, 1, "late"), 0);
    assert_true(status_of(feed).is_live);
    triage_feed_close(feed);
    feed_log_close(old);
    feed_log_close(new);
}

/*
 * Replies from before a restart come again after it, in the order in which they once made a subscriber live. It would be
 * live with a queue that is no more, and take the new daemon for the one of the past.
 */
static void test_late_replies_of_a_dead_epoch(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 6};
    struct triage_feed *feed = open_follower();
    struct feed_log *old = open_log(hear, &feed), *new = open_log(hear, &feed);
    struct text late[2] = {text_new(FEED_BODY_BYTES_MAX), text_new(FEED_BODY_BYTES_MAX)};
    static const int order[] = {1, 0, 1}; /* replay, snapshot, replay */
    draw_queue(&draws, 50, &queue);
    assert_int_equal(feed_log_publish(old, 1, 1, queue.entries, queue.count), 0);
    for (int i = 0; i < 2; i++) {
        char request[512];
        size_t length = triage_feed_request(feed, 0, request, sizeof request);
        assert_int_equal(feed_log_answer(old, &anybody, request, length, &late[i]), 0);
        assert_true(triage_feed_take(feed, late[i].bytes, late[i].length, 1) >= 0);
    }
    assert_follows(feed, &queue);
    draw_queue(&draws, 50, &queue);
    assert_int_equal(feed_log_publish(new, 1, 1, queue.entries, queue.count), 0);
    assert_false(status_of(feed).is_live);
    assert_true(exchange(feed, new)); /* the snapshot; then, before its replay: */
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        assert_true(triage_feed_take(feed, late[order[i]].bytes, late[order[i]].length, 1) >= 0);
        assert_string_equal(status_of(feed).epoch, new->epoch);
        assert_false(status_of(feed).is_live);
    }
    while (exchange(feed, new))
        ;
    assert_int_equal(feed_log_heartbeat(new), 0);
    assert_follows(feed, &queue);
    assert_string_equal(status_of(feed).epoch, new->epoch);
    assert_int_equal(status_of(feed).snapshots, 2);
    text_free(&late[0]);
    text_free(&late[1]);
    triage_feed_close(feed);
    feed_log_close(old);
    feed_log_close(new);
}

/* --- acks --- */

static void send_ack(struct feed_log *log, const struct feed_asker *asker, const char *name, const char *epoch,
                     uint64_t seq, uint64_t gaps)
{
    struct text body = text_new(1000), reply = text_new(1000);
    feed_encode_ack(&body, name, epoch, seq, &(struct feed_counters){gaps, 7, 8, 9});
    assert_int_equal(feed_log_answer(log, asker, body.bytes, body.length, &reply), 0);
    assert_int_equal(reply.length, 0);
    text_free(&body);
    text_free(&reply);
}

static void test_acks_give_each_subscribers_lag(void **state)
{
    (void)state;
    struct triage_feed *nobody = NULL;
    struct feed_log *log = open_log(hear, &nobody);
    struct feed_asker connector = {.key = "panoptes", .role = FEED_CONNECTOR};
    struct feed_subscriber list[4];
    for (int i = 0; i < 10; i++)
        assert_int_equal(feed_log_model_changed(log, 1, "x"), 0);
    send_ack(log, &anybody, "near", log->epoch, 9, 1);
    send_ack(log, &connector, "far", log->epoch, 4, 2);
    send_ack(log, &anybody, "restarted", "another epoch", 9, 0);
    send_ack(log, &anybody, "future", log->epoch, 11, 0);
    send_ack(log, &anybody, "near", log->epoch, 10, 4); /* the same one again */
    assert_int_equal(feed_log_subscribers(log, list, 4), 4);
    assert_string_equal(list[0].name, "future"); /* as far behind as one can be: it does not follow this daemon */
    assert_int_equal(list[0].lag, 10);
    assert_string_equal(list[1].name, "restarted");
    assert_int_equal(list[1].lag, 10);
    assert_string_equal(list[2].name, "far");
    assert_int_equal(list[2].lag, 6);
    assert_string_equal(list[2].key, "panoptes");
    assert_int_equal(list[2].role, FEED_CONNECTOR);
    assert_int_equal(list[2].counters.replays, 7);
    assert_string_equal(list[3].name, "near");
    assert_int_equal(list[3].lag, 0);
    assert_int_equal(log->counters.acks, 5);
    assert_int_equal(log->counters.gaps, 6);
    assert_int_equal(log->counters.requests, 0);
    assert_int_equal(feed_log_subscribers(log, list, 2), 2);
    feed_log_close(log);
}

/* The table of subscribers is full: more are served, only not listed; silent ones make room. */
static void test_more_subscribers_than_rows(void **state)
{
    (void)state;
    static struct feed_subscribers subscribers;
    static struct feed_subscriber list[FEED_SUBSCRIBERS_MAX];
    struct feed_request ack = {.epoch = "e"};
    for (int i = 0; i < FEED_SUBSCRIBERS_MAX + 20; i++) {
        snprintf(ack.ack.name, sizeof ack.ack.name, "s%d", i);
        feed_subscribers_ack(&subscribers, &ack, "", FEED_SUBSCRIBER, i < 10 ? 0 : 1000);
    }
    assert_int_equal(subscribers.unlisted, 20);
    assert_int_equal(feed_subscribers_list(&subscribers, "e", 5, 1000, list, FEED_SUBSCRIBERS_MAX),
                     FEED_SUBSCRIBERS_MAX);
    feed_subscribers_ack(&subscribers, &ack, "", FEED_SUBSCRIBER, FEED_SUBSCRIBER_SILENCE_MS + 500);
    assert_int_equal(subscribers.unlisted, 20);
    assert_int_equal(subscribers.count, FEED_SUBSCRIBERS_MAX - 10 + 1);
    assert_int_equal(feed_subscribers_list(&subscribers, "e", 5, 3 * FEED_SUBSCRIBER_SILENCE_MS, list, 10), 0);
}

/* A connector that has its process id in its name and restarts often: only the row heard last outlives its silence. */
static void test_a_connector_under_many_names(void **state)
{
    (void)state;
    static struct feed_subscribers subscribers;
    struct feed_subscriber list[4];
    struct feed_request ack = {.epoch = "e"};
    int64_t now_ms = 0;
    snprintf(ack.ack.name, sizeof ack.ack.name, "other");
    feed_subscribers_ack(&subscribers, &ack, "other", FEED_CONNECTOR, now_ms);
    for (int i = 0; i < 3 * FEED_SUBSCRIBERS_MAX; i++) {
        snprintf(ack.ack.name, sizeof ack.ack.name, "panoptes-%d", i);
        feed_subscribers_ack(&subscribers, &ack, "panoptes", FEED_CONNECTOR, now_ms += 1000);
    }
    assert_int_equal(subscribers.unlisted, 0);
    now_ms += 10 * FEED_SUBSCRIBER_SILENCE_MS;
    assert_int_equal(feed_subscribers_list(&subscribers, "e", 5, now_ms, list, 4),
                     2); /* both silent, one row of each key */
    assert_string_equal(list[0].name, "other");
    assert_string_equal(list[1].name, "panoptes-767");
    assert_int_equal(list[1].heard_ms, 10 * FEED_SUBSCRIBER_SILENCE_MS);

    feed_subscribers_forget(&subscribers, "other");
    for (int i = 0; i < 2; i++) { /* heard in the same moment: one of them stays */
        snprintf(ack.ack.name, sizeof ack.ack.name, "twin-%d", i);
        feed_subscribers_ack(&subscribers, &ack, "twin", FEED_CONNECTOR, now_ms);
    }
    assert_int_equal(feed_subscribers_list(&subscribers, "e", 5, 2 * now_ms, list, 4), 2);
}

static void test_only_an_admin_sees_the_subscribers(void **state)
{
    (void)state;
    struct triage_feed *nobody = NULL;
    struct feed_log *log = open_log(hear, &nobody);
    struct feed_message *message = calloc(1, sizeof *message);
    struct feed_asker admin = {.key = "boss", .role = FEED_ADMIN}, connector = {.key = "c", .role = FEED_CONNECTOR};
    struct text request = text_new(1000), reply = text_new(FEED_BODY_BYTES_MAX);
    feed_encode_subscribers_request(&request);
    send_ack(log, &connector, "the platform", log->epoch, 0, 0);
    assert_int_equal(feed_log_answer(log, &connector, request.bytes, request.length, &reply), 0);
    assert_int_equal(feed_decode(reply.bytes, reply.length, message), 0);
    assert_int_equal(message->kind, FEED_ERROR);
    assert_non_null(strstr(message->why, "admin"));
    text_clear(&reply);
    assert_int_equal(feed_log_answer(log, &admin, request.bytes, request.length, &reply), 0);
    assert_int_equal(feed_decode(reply.bytes, reply.length, message), 0);
    assert_int_equal(message->kind, FEED_UNKNOWN); /* for clients that do not ask */
    assert_non_null(memmem(reply.bytes, reply.length, "the platform", 12));
    text_free(&request);
    text_free(&reply);
    free(message);
    feed_log_close(log);
}

/* --- hostile bodies --- */

/* A subscriber fed with damaged bodies keeps its bounds, and recovers as soon as sane ones come. */
static void test_a_damaged_wire(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws seeded = {.seed = 99}, *draws = &seeded;
    struct triage_feed *feed = open_follower(), *nobody = NULL;
    struct feed_log *log = open_log(hear, &nobody);
    draw_queue(draws, 40, &queue);
    assert_int_equal(feed_log_publish(log, 1, 1, queue.entries, queue.count), 0);
    for (int round = 0; round < 20000; round++) {
        struct text request = text_new(1000), reply = text_new(FEED_BODY_BYTES_MAX);
        uint32_t choice = draw(draws, 4);
        char wanted[512];
        size_t length = choice < 2 ? triage_feed_request(feed, 0, wanted, sizeof wanted) : 0;
        if (length)
            text_append_bytes(&request, wanted, length);
        else if (choice == 0)
            feed_encode_snapshot_request(&request, 0, 0);
        else if (choice == 1)
            feed_encode_ack(&request, "name", log->epoch, 1, &(struct feed_counters){0});
        else
            feed_encode_replay_request(&request, 0, log->epoch, 1 + draw(draws, 3));
        for (uint32_t i = draw(draws, 3); i > 0; i--)
            request.bytes[draw(draws, (uint32_t)request.length)] = (char)draw(draws, 256);
        assert_int_equal(feed_log_answer(log, &anybody, request.bytes, request.length, &reply), 0);
        for (uint32_t i = draw(draws, 4); i > 0 && reply.length; i--)
            reply.bytes[draw(draws, (uint32_t)reply.length)] = (char)draw(draws, 256);
        if (reply.length) {
            char *exact = malloc(reply.length); /* exact size, so that reading beyond it is seen */
            assert_non_null(exact);
            memcpy(exact, reply.bytes, reply.length);
            assert_true(triage_feed_take(feed, exact, reply.length, 1) >= 0);
            assert_true(triage_feed_take(feed, exact, reply.length, 0) >= 0);
            free(exact);
        }
        text_free(&request);
        text_free(&reply);
    }
    assert_true(log->counters.malformed > 2000 && status_of(feed).malformed > 2000);
    feed_log_close(log); /* damage may look like truth for a while; a new epoch ends that */
    nobody = feed;
    log = open_log(hear, &nobody);
    assert_int_equal(feed_log_publish(log, 2, 1, queue.entries, queue.count), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(feed_log_heartbeat(log), 0);
        while (exchange(feed, log))
            ;
    }
    assert_follows(feed, &queue);
    triage_feed_close(feed);
    feed_log_close(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_against_a_list),
        cmocka_unit_test(test_a_walk_while_the_table_changes),
        cmocka_unit_test(test_a_ranking_is_said_as_its_difference),
        cmocka_unit_test(test_retractions_models_and_heartbeats),
        cmocka_unit_test(test_a_bad_ranking_changes_nothing),
        cmocka_unit_test(test_a_failing_wire),
        cmocka_unit_test(test_a_snapshot_while_the_queue_changes),
        cmocka_unit_test(test_tail_loss_is_noticed_by_the_heartbeat),
        cmocka_unit_test(test_a_difference_is_found_by_its_checksum),
        cmocka_unit_test(test_leftovers_of_a_former_epoch),
        cmocka_unit_test(test_late_replies_of_a_dead_epoch),
        cmocka_unit_test(test_acks_give_each_subscribers_lag),
        cmocka_unit_test(test_more_subscribers_than_rows),
        cmocka_unit_test(test_a_connector_under_many_names),
        cmocka_unit_test(test_only_an_admin_sees_the_subscribers),
        cmocka_unit_test(test_a_damaged_wire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
