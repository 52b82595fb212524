/*
 * The feed from the publisher's queue to the subscriber's: what is said, and that a subscriber ends with
 * exactly the publisher's queue whatever is lost, repeated or swapped on the way, over bodies and over real
 * sockets.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/msgpack.h"
#include "base/philox.h"
#include "connectors/feed_client.h"
#include "connectors/feed_log.h"
#include "connectors/publisher.h"
#include "connectors/zmq_socket.h"
#include "tests/support/lossy_proxy.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS   30000 /* a limit for failing, not a duration */
#define GALAXIES      2000
#define SCHEMA        "0123456789abcdef0123456789abcdef"
#define QUEUE_ENTRIES 1600

/* --- random queues, drawn by counters so that a seed tells all --- */

struct draws {
    uint64_t seed;
    uint32_t count;
};

static uint32_t draw(struct draws *draws, uint32_t below)
{
    return philox(draws->seed, draws->count++, 0, 0, 0).word[0] % below;
}

struct test_queue {
    struct queue_entry entries[QUEUE_ENTRIES];
    size_t count;
};

static void name_galaxy(char id_str[QUEUE_ID_BYTES], uint32_t galaxy)
{
    snprintf(id_str, QUEUE_ID_BYTES, "J%u", galaxy * 7919);
}

/* Mostly 0, so that an entry often differs from its last state in one number or in none. */
static uint32_t draw_rarely(struct draws *draws)
{
    return draw(draws, 10) == 0;
}

/* A new ranking of about `size` galaxies, often those of an earlier one at the same ranks. */
static void draw_queue(struct draws *draws, uint32_t size, struct test_queue *queue)
{
    uint32_t first = draw(draws, 3) * 20;
    queue->count = size ? draw(draws, size) + 1 : 0;
    for (uint32_t i = 0; i < queue->count; i++) {
        struct queue_entry *entry = &queue->entries[i];
        *entry = (struct queue_entry){.key = i + 1,
                                      .rank = i + 1,
                                      .stream = (uint8_t)(i % 3 + draw_rarely(draws)) % 3,
                                      .probability = 0.5 + draw_rarely(draws) * 1e-9,
                                      .score = 0.25f + (float)draw_rarely(draws) * 0x1p-20f,
                                      .total = 0.5f + (float)draw_rarely(draws),
                                      .expected = 0.25f + (float)draw_rarely(draws),
                                      .model = 1 + draw_rarely(draws),
                                      .leased_until_ms = 1 + draw_rarely(draws)};
        name_galaxy(entry->id_str, (first + i) % GALAXIES);
    }
}

static void remove_from_queue(struct test_queue *queue, const char *id_str)
{
    for (size_t i = 0; i < queue->count; i++)
        if (strcmp(queue->entries[i].id_str, id_str) == 0) {
            memmove(&queue->entries[i], &queue->entries[i + 1], (queue->count - i - 1) * sizeof *queue->entries);
            queue->count--;
            return;
        }
}

/* Entry by entry, in rank order; the key is the daemon's own. */
static void assert_same_queue(const struct queue_entry *got, size_t count, const struct test_queue *expected)
{
    assert_int_equal(count, expected->count);
    for (size_t i = 0; i < count; i++) {
        const struct queue_entry *a = &got[i], *b = &expected->entries[i];
        assert_string_equal(a->id_str, b->id_str);
        assert_int_equal(a->rank, b->rank);
        assert_int_equal(a->stream, b->stream);
        assert_true(a->probability == b->probability && a->score == b->score && a->total == b->total &&
                    a->expected == b->expected);
        assert_int_equal(a->model, b->model);
        assert_true(a->leased_until_ms == b->leased_until_ms);
    }
}

/* --- the table --- */

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
    feed_encode_replay_request(&request, log->epoch, 1);
    assert_int_equal(feed_log_answer(log, request.bytes, request.length, &reply), 0);
    assert_int_equal(feed_decode(reply.bytes, reply.length, message), 0);
    assert_int_equal(message->kind, FEED_REPLAY);
    assert_int_equal(message->count, 2);
    free(message);
    text_free(&request);
    text_free(&reply);
    feed_log_close(log);
}

/* --- a wire that loses, repeats and swaps, without sockets --- */

#define WIRE_BODIES 8

struct wire {
    struct draws draws;
    uint32_t loss; /* percent, also of repeats and swaps */
    struct feed_follower *follower;
    struct feed_bytes late[WIRE_BODIES]; /* held back to arrive later */
    int late_count;
};

static void deliver(struct wire *wire, const void *body, size_t length)
{
    char *exact = malloc(length); /* exact size, so that reading beyond it is seen */
    assert_non_null(exact);
    memcpy(exact, body, length);
    assert_true(feed_follower_message(wire->follower, exact, length) >= 0);
    free(exact);
}

static void deliver_late(struct wire *wire)
{
    while (wire->late_count) {
        struct feed_bytes body = wire->late[--wire->late_count];
        deliver(wire, body.bytes, body.length);
        free((void *)(uintptr_t)body.bytes);
    }
}

static int lossy_wire(void *context, const void *body, size_t length)
{
    struct wire *wire = context;
    if (draw(&wire->draws, 100) < wire->loss)
        return 0;
    if (draw(&wire->draws, 100) < wire->loss && wire->late_count < WIRE_BODIES) {
        char *copy = malloc(length);
        assert_non_null(copy);
        memcpy(copy, body, length);
        wire->late[wire->late_count++] = (struct feed_bytes){copy, length};
        return 0;
    }
    deliver(wire, body, length);
    if (draw(&wire->draws, 100) < wire->loss)
        deliver(wire, body, length);
    if (draw(&wire->draws, 100) < 30)
        deliver_late(wire);
    return 0;
}

/* One request and its reply, either of which may be lost; the reply may come twice. */
static void exchange(struct wire *wire, struct feed_log *log)
{
    struct text request = text_new(1000), reply = text_new(FEED_BODY_BYTES_MAX);
    feed_follower_request(wire->follower, &request);
    if (request.length && draw(&wire->draws, 100) >= wire->loss) {
        assert_int_equal(feed_log_answer(log, request.bytes, request.length, &reply), 0);
        for (uint32_t i = draw(&wire->draws, 100) < wire->loss ? draw(&wire->draws, 3) : 1; i > 0; i--)
            assert_true(feed_follower_reply(wire->follower, reply.bytes, reply.length) >= 0);
    }
    text_free(&request);
    text_free(&reply);
}

/* One thing the daemon does. The expected queue is kept by the test itself. */
static void act(struct wire *wire, struct feed_log **log, uint32_t size, struct test_queue *queue)
{
    struct draws *draws = &wire->draws;
    uint32_t choice = draw(draws, 100);
    if (choice < 25) {
        draw_queue(draws, size, queue);
        assert_int_equal(feed_log_publish(*log, choice, 1, queue->entries, queue->count), 0);
    } else if (choice < 70 && queue->count) {
        struct retraction retraction = {.reason = "retired"};
        memcpy(retraction.id_str, queue->entries[draw(draws, (uint32_t)queue->count)].id_str, QUEUE_ID_BYTES);
        remove_from_queue(queue, retraction.id_str);
        assert_int_equal(feed_log_retract(*log, &retraction, 1), 0);
    } else if (choice < 80)
        assert_int_equal(feed_log_model_changed(*log, choice, "promoted"), 0);
    else if (choice < 98)
        assert_int_equal(feed_log_heartbeat(*log), 0);
    else if (choice < 99)
        for (int i = 0; i < FEED_RING_MESSAGES + 5; i++) /* more than the ring holds */
            assert_int_equal(feed_log_model_changed(*log, choice, "promoted"), 0);
    else { /* the daemon starts again: a new epoch, and the queue it had */
        feed_log_close(*log);
        *log = open_log(lossy_wire, wire);
        assert_int_equal(feed_log_publish(*log, choice, 1, queue->entries, queue->count), 0);
    }
}

/* The wire is whole again: heartbeats and requests until nothing is missing. The tail may have been lost. */
static void settle(struct wire *wire, struct feed_log *log)
{
    wire->loss = 0;
    deliver_late(wire);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(feed_log_heartbeat(log), 0);
        for (int i = 0; i < 100 && !feed_follower_is_live(wire->follower); i++)
            exchange(wire, log);
    }
    assert_true(feed_follower_is_live(wire->follower));
}

static void test_lossy_schedules(void **state)
{
    (void)state;
    const uint64_t seed = 4242;
    static struct test_queue queue;
    struct feed_follower_counters counters, sum = {0};
    print_message("seed %llu\n", (unsigned long long)seed);
    for (uint32_t schedule = 0; schedule < 400; schedule++) {
        struct wire wire = {.draws = {.seed = seed + schedule}, .loss = schedule % 5 * 10};
        uint32_t size = schedule % 4 == 0 ? QUEUE_ENTRIES : 1 + draw(&wire.draws, 60);
        struct feed_log *log = open_log(lossy_wire, &wire);
        assert_int_equal(feed_follower_new(QUEUE_ENTRIES, &wire.follower), 0);
        queue.count = 0;
        for (int step = 0; step < 60; step++) {
            act(&wire, &log, size, &queue);
            if (draw(&wire.draws, 100) < 60)
                exchange(&wire, log);
        }
        settle(&wire, log);
        size_t count;
        const char *epoch;
        uint64_t seq;
        const struct queue_entry *entries = feed_follower_entries(wire.follower, &count);
        assert_same_queue(entries, count, &queue);
        feed_follower_position(wire.follower, &epoch, &seq);
        assert_string_equal(epoch, log->epoch);
        assert_int_equal(seq, log->seq);
        feed_follower_counters(wire.follower, &counters);
        assert_int_equal(counters.malformed, 0);
        sum.gaps += counters.gaps;
        sum.replays += counters.replays;
        sum.snapshots += counters.snapshots;
        feed_follower_free(wire.follower);
        feed_log_close(log);
    }
    assert_true(sum.gaps > 1000 && sum.replays > 500 && sum.snapshots > 500); /* all ways of repair were walked */
}

/* A queue that changes between two chunks of a snapshot: the chunks must not be mixed. */
static void test_a_snapshot_is_of_one_moment(void **state)
{
    (void)state;
    struct wire wire = {.draws = {.seed = 1}};
    static struct test_queue queue;
    struct feed_log *log = open_log(lossy_wire, &wire);
    size_t count;
    assert_int_equal(feed_follower_new(QUEUE_ENTRIES, &wire.follower), 0);
    do
        draw_queue(&wire.draws, QUEUE_ENTRIES, &queue);
    while (queue.count < 1100);
    assert_int_equal(feed_log_publish(log, 1, 1, queue.entries, queue.count), 0);
    exchange(&wire, log);
    exchange(&wire, log); /* 1,024 of them */
    assert_false(feed_follower_is_live(wire.follower));
    feed_follower_entries(wire.follower, &count);
    assert_int_equal(count, 0); /* half a queue is not shown */
    struct retraction retraction = {.reason = "excluded"};
    memcpy(retraction.id_str, queue.entries[3].id_str, QUEUE_ID_BYTES);
    remove_from_queue(&queue, retraction.id_str);
    assert_int_equal(feed_log_retract(log, &retraction, 1), 0);
    exchange(&wire, log); /* does not fit to the others */
    assert_false(feed_follower_is_live(wire.follower));
    for (int i = 0; i < 3; i++)
        exchange(&wire, log);
    assert_true(feed_follower_is_live(wire.follower));
    const struct queue_entry *entries = feed_follower_entries(wire.follower, &count);
    assert_same_queue(entries, count, &queue);
    feed_follower_free(wire.follower);
    feed_log_close(log);
}

static void test_tail_loss_is_noticed_by_the_heartbeat(void **state)
{
    (void)state;
    struct wire wire = {.draws = {.seed = 1}};
    static struct test_queue queue;
    struct feed_log *log = open_log(lossy_wire, &wire);
    struct feed_follower_counters counters;
    size_t count;
    assert_int_equal(feed_follower_new(QUEUE_ENTRIES, &wire.follower), 0);
    exchange(&wire, log);
    assert_true(feed_follower_is_live(wire.follower));
    wire.loss = 100;
    draw_queue(&wire.draws, 50, &queue);
    assert_int_equal(feed_log_publish(log, 1, 1, queue.entries, queue.count), 0);
    wire.loss = 0;
    assert_true(feed_follower_is_live(wire.follower)); /* it cannot know yet */
    assert_int_equal(feed_log_heartbeat(log), 0);
    assert_false(feed_follower_is_live(wire.follower));
    exchange(&wire, log);
    const struct queue_entry *entries = feed_follower_entries(wire.follower, &count);
    assert_same_queue(entries, count, &queue);
    feed_follower_counters(wire.follower, &counters);
    assert_int_equal(counters.gaps, 1);
    assert_int_equal(counters.replays, 1);
    assert_int_equal(counters.snapshots, 1);
    feed_follower_free(wire.follower);
    feed_log_close(log);
}

/* Messages of the epoch before a restart, read late, do not send the subscriber back for snapshots. */
static void test_leftovers_of_a_former_epoch(void **state)
{
    (void)state;
    struct wire wire = {.draws = {.seed = 1}};
    struct feed_log *old = open_log(lossy_wire, &wire), *new = open_log(lossy_wire, &wire);
    assert_int_equal(feed_follower_new(QUEUE_ENTRIES, &wire.follower), 0);
    exchange(&wire, old);
    assert_int_equal(feed_log_heartbeat(new), 0);
    assert_false(feed_follower_is_live(wire.follower));
    exchange(&wire, new);
    assert_true(feed_follower_is_live(wire.follower));
    assert_int_equal(feed_log_model_changed(old, 1, "late"), 0);
    assert_true(feed_follower_is_live(wire.follower));
    feed_follower_free(wire.follower);
    feed_log_close(old);
    feed_log_close(new);
}

/* --- hostile bodies --- */

/* A subscriber fed with damaged bodies keeps its bounds, and recovers as soon as sane ones come. */
static void test_a_damaged_wire(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct wire wire = {.draws = {.seed = 99}};
    struct draws *draws = &wire.draws;
    struct feed_log *log = open_log(lossy_wire, &wire);
    assert_int_equal(feed_follower_new(QUEUE_ENTRIES, &wire.follower), 0);
    draw_queue(draws, 40, &queue);
    assert_int_equal(feed_log_publish(log, 1, 1, queue.entries, queue.count), 0);
    for (int round = 0; round < 20000; round++) {
        struct text request = text_new(1000), reply = text_new(FEED_BODY_BYTES_MAX);
        uint32_t choice = draw(draws, 3);
        if (choice == 0)
            feed_encode_snapshot_request(&request, 0);
        else
            feed_encode_replay_request(&request, log->epoch, 1 + draw(draws, 3));
        for (uint32_t i = draw(draws, 3); i > 0; i--)
            request.bytes[draw(draws, (uint32_t)request.length)] = (char)draw(draws, 256);
        assert_int_equal(feed_log_answer(log, request.bytes, request.length, &reply), 0);
        for (uint32_t i = draw(draws, 4); i > 0; i--)
            reply.bytes[draw(draws, (uint32_t)reply.length)] = (char)draw(draws, 256);
        feed_follower_reply(wire.follower, reply.bytes, reply.length);
        feed_follower_message(wire.follower, reply.bytes, reply.length);
        text_free(&request);
        text_free(&reply);
    }
    assert_true(log->counters.malformed > 2000);
    feed_log_close(log); /* damage may look like truth for a while; a new epoch ends that */
    log = open_log(lossy_wire, &wire);
    assert_int_equal(feed_log_publish(log, 2, 1, queue.entries, queue.count), 0);
    settle(&wire, log);
    size_t count;
    const struct queue_entry *entries = feed_follower_entries(wire.follower, &count);
    assert_same_queue(entries, count, &queue);
    feed_follower_free(wire.follower);
    feed_log_close(log);
}

/* --- over sockets --- */

static char folder[] = "/tmp/feed-test-XXXXXX", publish_endpoint[64], snapshot_endpoint[64], proxy_endpoint[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(publish_endpoint, sizeof publish_endpoint, "ipc://%s/publish", folder);
    snprintf(snapshot_endpoint, sizeof snapshot_endpoint, "ipc://%s/snapshot", folder);
    snprintf(proxy_endpoint, sizeof proxy_endpoint, "ipc://%s/proxy", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(publish_endpoint + 6);
    unlink(snapshot_endpoint + 6);
    unlink(proxy_endpoint + 6);
    return rmdir(folder);
}

static struct publisher_state *open_publisher(size_t queue_limit)
{
    struct publisher_options options = {.publish_endpoint = publish_endpoint,
                                        .snapshot_endpoint = snapshot_endpoint,
                                        .schema_hash = SCHEMA,
                                        .queue_limit = queue_limit};
    struct publisher_state *state;
    assert_int_equal(publisher_zmq.open(&options, &state), 0);
    return state;
}

/* Serves, and steps the client, until it is at the publisher's position. Heartbeats as the daemon sends them.
 */
static void converge(struct publisher_state *state, struct lossy_proxy *proxy, struct feed_client *client,
                     const struct test_queue *queue)
{
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    const char *epoch, *client_epoch;
    uint64_t seq, client_seq;
    size_t count;
    publisher_zmq.position(state, &epoch, &seq);
    for (;;) {
        publisher_zmq.heartbeat(state);
        while (publisher_zmq.serve(state) == 1)
            ;
        if (proxy)
            lossy_proxy_step(proxy);
        assert_true(feed_client_step(client, 2) >= 0);
        feed_client_position(client, &client_epoch, &client_seq);
        if (feed_client_is_live(client) && client_seq == seq && strcmp(epoch, client_epoch) == 0)
            break;
        assert_true(clock_ms() < deadline_ms);
    }
    const struct queue_entry *entries = feed_client_entries(client, &count);
    assert_same_queue(entries, count, queue);
}

static void test_through_a_lossy_proxy(void **state)
{
    (void)state;
    const uint64_t seed = 31337;
    static struct test_queue queue;
    struct lossy_proxy proxy;
    struct draws draws = {.seed = seed + 1};
    struct feed_client *client;
    struct feed_follower_counters counters;
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    print_message("seed %llu\n", (unsigned long long)seed);
    assert_int_equal(lossy_proxy_open(publish_endpoint, proxy_endpoint, seed, &proxy), 0);
    assert_int_equal(feed_client_open(proxy_endpoint, snapshot_endpoint, &client), 0);
    for (int schedule = 0; schedule < 200; schedule++) {
        proxy.loss = (uint32_t)schedule % 5 * 10;
        if (schedule % 40 == 39) { /* the daemon starts again */
            publisher_zmq.close(feed);
            feed = open_publisher(QUEUE_ENTRIES);
        }
        for (int step = 0; step < 5; step++) {
            draw_queue(&draws, schedule % 10 ? 60 : QUEUE_ENTRIES, &queue);
            assert_int_equal(publisher_zmq.publish(feed, (uint64_t)step, 1, queue.entries, queue.count), 0);
            struct retraction retraction = {.reason = "retired"};
            memcpy(retraction.id_str, queue.entries[draw(&draws, (uint32_t)queue.count)].id_str, QUEUE_ID_BYTES);
            remove_from_queue(&queue, retraction.id_str);
            assert_int_equal(publisher_zmq.retract(feed, &retraction, 1), 0);
            lossy_proxy_step(&proxy);
            assert_true(feed_client_step(client, 0) >= 0);
        }
        converge(feed, &proxy, client, &queue);
    }
    feed_client_counters(client, &counters);
    assert_true(counters.gaps > 50 && counters.replays > 30 && counters.snapshots >= 5);
    assert_int_equal(counters.malformed, 0);
    feed_client_close(client);
    lossy_proxy_close(&proxy);
    publisher_zmq.close(feed);
}

static void test_a_forced_gap(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 8};
    struct feed_client *client;
    struct feed_follower_counters before, after;
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    assert_int_equal(feed_client_open(publish_endpoint, snapshot_endpoint, &client), 0);
    draw_queue(&draws, 60, &queue);
    assert_int_equal(publisher_zmq.publish(feed, 1, 1, queue.entries, queue.count), 0);
    converge(feed, NULL, client, &queue);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    do { /* until the subscription itself works: a message came over the topic */
        assert_true(clock_ms() < deadline_ms);
        feed_client_counters(client, &before);
        assert_int_equal(publisher_zmq.model_changed(feed, 1, "x"), 0);
        converge(feed, NULL, client, &queue);
        feed_client_counters(client, &after);
    } while (after.messages == before.messages || after.gaps != before.gaps);
    feed_client_lose(client, 1);
    draw_queue(&draws, 60, &queue);
    assert_int_equal(publisher_zmq.publish(feed, 2, 1, queue.entries, queue.count), 0);
    converge(feed, NULL, client, &queue);
    feed_client_counters(client, &after);
    assert_int_equal(after.gaps, before.gaps + 1);
    assert_int_equal(after.replays, before.replays + 1);
    assert_int_equal(after.snapshots, before.snapshots);
    feed_client_close(client);
    publisher_zmq.close(feed);
}

/* One subscriber reads nothing at all; publishing goes on, and another one has everything. */
static void test_a_slow_subscriber(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 9};
    struct socket *slow;
    struct feed_client *client;
    struct feed_follower_counters counters;
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    struct socket_options options = {.kind = SOCKET_SUB,
                                     .endpoint = publish_endpoint,
                                     .topic = FEED_TOPIC,
                                     .send_limit = 1,
                                     .receive_limit = 1,
                                     .message_limit = FEED_BODY_BYTES_MAX};
    assert_int_equal(socket_open(&options, &slow), 0);
    assert_int_equal(feed_client_open(publish_endpoint, snapshot_endpoint, &client), 0);
    struct pollfd set = {.fd = socket_descriptor(slow), .events = POLLIN};
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    while (poll(&set, 1, 10) == 0) { /* until it is connected and has something to read */
        assert_int_equal(publisher_zmq.heartbeat(feed), 0);
        assert_true(clock_ms() < deadline_ms);
    }
    for (int i = 0; i < 1000; i++) {
        draw_queue(&draws, QUEUE_ENTRIES, &queue);
        assert_int_equal(publisher_zmq.publish(feed, (uint64_t)i, 1, queue.entries, queue.count), 0);
        assert_true(feed_client_step(client, 0) >= 0);
    }
    converge(feed, NULL, client, &queue);
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count, got = 0;
    while (poll(&set, 1, 100) == 1 && socket_receive(slow, frames, &count) == 1)
        got++;
    struct publisher_counters said;
    publisher_zmq.counters(feed, &said);
    assert_true(said.messages > 3000);
    assert_int_equal(said.unsent, 0);
    assert_true((uint64_t)got < said.messages); /* it did miss something, or this test shows nothing */
    feed_client_counters(client, &counters);
    assert_int_equal(counters.malformed, 0);
    socket_close(slow);
    feed_client_close(client);
    publisher_zmq.close(feed);
}

/* --- requests over sockets --- */

/* Sends one request of up to three frames; waits for the reply and decodes it. */
static void ask(struct publisher_state *feed, struct socket *asker, const struct socket_frame *request, int count,
                struct feed_message *reply)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    struct pollfd set = {.fd = socket_descriptor(asker), .events = POLLIN};
    int got, result = 0;
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    assert_int_equal(socket_send(asker, request, count), 0);
    while (!result) {
        assert_true(clock_ms() < deadline_ms);
        struct pollfd server = {.fd = publisher_zmq.descriptor(feed), .events = POLLIN};
        poll(&server, 1, 1);
        assert_true(publisher_zmq.serve(feed) >= 0);
        poll(&set, 1, 1);
        result = socket_receive(asker, frames, &got);
    }
    assert_int_equal(result, 1);
    assert_int_equal(got, 1);
    assert_int_equal(feed_decode(frames[0].bytes, frames[0].length, reply), 0);
}

static void test_hostile_requests(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } bad[] = {
        {"",                                         0 },
        {"\xdd\xff\x00\x00\x00",                     5 },
        {"\x80",                                     1 },
        {"\x91\x91\x91\x91\x91\x91\x91\x91\x91\x01", 10},
        {"GET / HTTP/1.1\r\n",                       16},
        {"\x81\xa1v\x02",                            4 },
        {"\x82\xa1v\x01\xa4kind\xa6upsert",          16},
        {"\x83\xa1v\x01\xa4kind\xa8snapshot\xa4"
         "from\xff",                        23},
    };
    struct publisher_state *feed = open_publisher(10);
    struct feed_message *reply = calloc(1, sizeof *reply);
    struct socket *asker;
    struct socket_options options = {.kind = SOCKET_DEALER,
                                     .endpoint = snapshot_endpoint,
                                     .send_limit = 100,
                                     .receive_limit = 100,
                                     .message_limit = FEED_BODY_BYTES_MAX};
    struct publisher_counters counters;
    assert_int_equal(socket_open(&options, &asker), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct socket_frame frame = {bad[i].bytes, bad[i].length};
        ask(feed, asker, &frame, 1, reply);
        assert_int_equal(reply->kind, FEED_ERROR);
        assert_true(strlen(reply->why) > 5);
    }
    struct text request = text_new(1000);
    feed_encode_snapshot_request(&request, UINT64_MAX);
    struct socket_frame frames[3] = {
        {"",            0             },
        {request.bytes, request.length},
        {"x",           1             }
    };
    ask(feed, asker, frames, 2, reply); /* the empty frame of a REQ socket */
    assert_int_equal(reply->kind, FEED_ERROR);
    ask(feed, asker, frames, 3, reply);
    assert_int_equal(reply->kind, FEED_ERROR);
    ask(feed, asker, &frames[1], 1, reply); /* and a good one, though beyond the end */
    assert_int_equal(reply->kind, FEED_SNAPSHOT);
    assert_int_equal(reply->count, 0);
    publisher_zmq.counters(feed, &counters);
    assert_int_equal(counters.requests, sizeof bad / sizeof *bad + 3);
    assert_int_equal(counters.malformed, sizeof bad / sizeof *bad + 2);
    text_free(&request);
    free(reply);
    socket_close(asker);
    publisher_zmq.close(feed);
}

/* One asker sends a flood and reads nothing: bounded, counted, and others are served. */
static void test_an_asker_that_does_not_read(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 3};
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    struct socket *flood;
    struct socket_options options = {.kind = SOCKET_DEALER,
                                     .endpoint = snapshot_endpoint,
                                     .send_limit = 5000,
                                     .receive_limit = 1,
                                     .message_limit = FEED_BODY_BYTES_MAX};
    struct feed_client *client;
    struct publisher_counters counters = {0};
    struct text request = text_new(1000);
    feed_encode_snapshot_request(&request, 0);
    struct socket_frame frame = {request.bytes, request.length};
    do
        draw_queue(&draws, QUEUE_ENTRIES, &queue);
    while (queue.count < 1000);
    assert_int_equal(publisher_zmq.publish(feed, 1, 1, queue.entries, queue.count), 0);
    assert_int_equal(socket_open(&options, &flood), 0);
    for (int i = 0; i < 3000; i++)
        assert_int_equal(socket_send(flood, &frame, 1), 0);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    while (!counters.unanswered) {
        assert_true(publisher_zmq.serve(feed) >= 0);
        publisher_zmq.counters(feed, &counters);
        assert_true(clock_ms() < deadline_ms);
    }
    assert_int_equal(feed_client_open(publish_endpoint, snapshot_endpoint, &client), 0);
    converge(feed, NULL, client, &queue);
    feed_client_close(client);
    socket_close(flood);
    text_free(&request);
    publisher_zmq.close(feed);
}

static void test_endpoints(void **state)
{
    (void)state;
    struct publisher_options options = {.publish_endpoint = "tcp://0.0.0.0:5571",
                                        .snapshot_endpoint = snapshot_endpoint,
                                        .schema_hash = SCHEMA,
                                        .queue_limit = 10};
    struct publisher_state *feed;
    struct feed_client *client;
    assert_int_equal(publisher_zmq.open(&options, &feed), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "not encrypted"));
    options.publish_endpoint = publish_endpoint;
    options.snapshot_endpoint = "tcp://*:5572";
    assert_int_equal(publisher_zmq.open(&options, &feed), ERROR_INPUT);
    assert_int_equal(feed_client_open("tcp://10.0.0.1:5571", snapshot_endpoint, &client), ERROR_INPUT);
    options.snapshot_endpoint = snapshot_endpoint;
    options.queue_limit = 0;
    assert_int_equal(publisher_zmq.open(&options, &feed), ERROR_LIMIT);
    options.queue_limit = 10;
    char former[HASH_TEXT_BYTES];
    const char *epoch;
    uint64_t seq;
    assert_int_equal(publisher_zmq.open(&options, &feed), 0);
    publisher_zmq.position(feed, &epoch, &seq);
    memcpy(former, epoch, sizeof former);
    publisher_zmq.close(feed);
    assert_int_equal(publisher_zmq.open(&options, &feed), 0);
    publisher_zmq.position(feed, &epoch, &seq);
    assert_string_not_equal(epoch, former);
    publisher_zmq.close(feed);
}

/* --- the record --- */

/* The queue and the sequence number that a record's last epoch ends with. */
static void follow_record(const char *bytes, size_t length, struct test_queue *queue, uint64_t *ret_seq)
{
    struct feed_message *message = calloc(1, sizeof *message);
    struct queue_table table;
    char epoch[HASH_TEXT_BYTES] = "";
    assert_int_equal(queue_table_new(QUEUE_ENTRIES, &table), 0);
    for (size_t at = 0; at < length;) {
        const unsigned char *prefix = (const unsigned char *)bytes + at;
        size_t size = (size_t)prefix[0] << 24 | (size_t)prefix[1] << 16 | (size_t)prefix[2] << 8 | prefix[3];
        assert_true(at + 4 + size <= length);
        assert_int_equal(feed_decode(bytes + at + 4, size, message), 0);
        if (strcmp(epoch, message->epoch) != 0) {
            queue_table_clear(&table);
            *ret_seq = 0;
        }
        memcpy(epoch, message->epoch, sizeof epoch);
        assert_int_equal(message->seq, ++*ret_seq);
        for (size_t i = 0; message->kind == FEED_UPSERT && i < message->count; i++)
            assert_int_equal(queue_table_put(&table, &message->entries[i]), 0);
        for (size_t i = 0; message->kind == FEED_RETRACT && i < message->count; i++)
            assert_true(queue_table_remove(&table, message->retractions[i].id_str));
        at += 4 + size;
    }
    queue->count = table.count;
    memcpy(queue->entries, queue_table_ranked(&table), table.count * sizeof *table.entries);
    queue_table_free(&table);
    free(message);
}

static void check_record(const char *path, const struct test_queue *expected, uint64_t expected_seq)
{
    static struct test_queue queue;
    char *bytes;
    size_t length;
    uint64_t seq = 0;
    assert_int_equal(file_read(path, (size_t)64 << 20, &bytes, &length), 0);
    follow_record(bytes, length, &queue, &seq);
    assert_same_queue(queue.entries, queue.count, expected);
    assert_int_equal(seq, expected_seq);
    free(bytes);
}

static void test_record(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 12};
    char path[FILE_PATH_BYTES];
    assert_int_equal(file_path(path, sizeof path, "%s/record", folder), 0);
    struct publisher_options options = {.record_path = path, .schema_hash = SCHEMA, .queue_limit = QUEUE_ENTRIES};
    for (int run = 0; run < 3; run++) {
        struct publisher_state *feed;
        const char *epoch;
        uint64_t seq;
        assert_int_equal(publisher_record.open(&options, &feed), 0);
        assert_int_equal(publisher_record.descriptor(feed), -1);
        for (int i = 0; i < 20; i++) {
            draw_queue(&draws, QUEUE_ENTRIES, &queue);
            assert_int_equal(publisher_record.publish(feed, 1, 1, queue.entries, queue.count), 0);
            assert_int_equal(publisher_record.heartbeat(feed), 0);
            assert_int_equal(publisher_record.serve(feed), 0);
        }
        struct retraction retraction = {.reason = "excluded"};
        memcpy(retraction.id_str, queue.entries[0].id_str, QUEUE_ID_BYTES);
        remove_from_queue(&queue, retraction.id_str);
        assert_int_equal(publisher_record.retract(feed, &retraction, 1), 0);
        assert_int_equal(publisher_record.model_changed(feed, 2, "why"), 0);
        publisher_record.position(feed, &epoch, &seq);
        check_record(path, &queue, seq);
        publisher_record.close(feed);
        FILE *file = fopen(path, "ab"); /* a crash in the middle of a record; the next run cuts it off */
        assert_non_null(file);
        fwrite("\0\0\1\0torn", 1, 8, file);
        fclose(file);
    }
    unlink(path);
    struct file_part text = {"[section]\nkey = value\n", 22};
    assert_int_equal(file_write(path, &text, 1, 0600), 0);
    struct publisher_state *feed;
    assert_int_equal(publisher_record.open(&options, &feed), ERROR_INPUT); /* somebody else's file is left alone */
    assert_non_null(strstr(error_message(), "not a feed record"));
    char *bytes;
    size_t length;
    assert_int_equal(file_read(path, 1000, &bytes, &length), 0);
    assert_int_equal(length, 22);
    free(bytes);
    unlink(path);
    options.record_path = "/proc/nowhere/record";
    assert_int_equal(publisher_record.open(&options, &feed), ERROR_SYSTEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_against_a_list),
        cmocka_unit_test(test_a_ranking_is_said_as_its_difference),
        cmocka_unit_test(test_retractions_models_and_heartbeats),
        cmocka_unit_test(test_a_bad_ranking_changes_nothing),
        cmocka_unit_test(test_a_failing_wire),
        cmocka_unit_test(test_lossy_schedules),
        cmocka_unit_test(test_a_snapshot_is_of_one_moment),
        cmocka_unit_test(test_tail_loss_is_noticed_by_the_heartbeat),
        cmocka_unit_test(test_leftovers_of_a_former_epoch),
        cmocka_unit_test(test_a_damaged_wire),
        cmocka_unit_test(test_through_a_lossy_proxy),
        cmocka_unit_test(test_a_forced_gap),
        cmocka_unit_test(test_a_slow_subscriber),
        cmocka_unit_test(test_hostile_requests),
        cmocka_unit_test(test_an_asker_that_does_not_read),
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_record),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
