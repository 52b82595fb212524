/* See feed_schedules.h. */
#include "tests/support/feed_schedules.h"
#include "base/philox.h"
#include "connectors/feed_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS          80
#define GALAXIES       60
#define UNDER_WAY_MAX  24
#define HISTORY        8192 /* positions at which the publisher's queue is remembered */
#define SETTLE_ROUNDS  60
#define CHUNK_ENTRIES  8
#define RING_MESSAGES  24
#define BUSY_SCHEDULES 200
#define LATE_COPIES    6 /* that arrive one after the other */

struct body {
    char *bytes;
    size_t length;
};

/* Bodies on their way over one connection in one direction. */
struct wire {
    int count;
    struct body body[UNDER_WAY_MAX];
};

struct queue_state {
    size_t count;
    struct queue_entry entries[SCHEDULE_ENTRIES_MAX];
};

/* What the publisher had at a position it may have told somebody of. */
struct moment {
    uint32_t life;
    uint64_t seq;
    struct queue_state queue;
};

struct world {
    uint64_t seed;
    uint32_t draws, loss; /* percent */
    const struct schedule_subscriber *subscriber;
    struct feed_log *log;
    uint32_t life; /* restarts so far */
    char epochs[STEPS + 2][33];
    struct wire topic, requests, replies;
    struct wire answered; /* copies of the last replies, of whatever epoch: some arrive once more */
    struct queue_state queue;
    size_t moments;
    struct moment *moment; /* [HISTORY] */
    struct schedule_counts *counts;
};

static void fail(const struct world *world, const char *what)
{
    fprintf(stderr, "feed_schedules: seed %llu, after %u draws: %s\n", (unsigned long long)world->seed, world->draws,
            what);
    abort();
}

static uint32_t draw(struct world *world, uint32_t below)
{
    return philox(world->seed, world->draws++, 0, 0, 0).word[0] % below;
}

static bool happens(struct world *world, uint32_t percent)
{
    return draw(world, 100) < percent;
}

/* --- wires --- */

static void take_off(struct wire *wire, int at)
{
    free(wire->body[at].bytes);
    memmove(&wire->body[at], &wire->body[at + 1], (size_t)(--wire->count - at) * sizeof *wire->body);
}

static void cut(struct wire *wire)
{
    while (wire->count)
        take_off(wire, wire->count - 1);
}

static void put_on(struct world *world, struct wire *wire, const void *bytes, size_t length)
{
    if (wire->count == UNDER_WAY_MAX) { /* a full queue drops, as ZeroMQ does */
        world->counts->dropped++;
        return;
    }
    char *copy = malloc(length); /* exact size, so that reading beyond it is seen */
    if (!copy)
        abort();
    memcpy(copy, bytes, length);
    wire->body[wire->count].bytes = copy;
    wire->body[wire->count++].length = length;
}

static void send_over(struct world *world, struct wire *wire, const void *bytes, size_t length)
{
    if (happens(world, world->loss)) {
        world->counts->dropped++;
        return;
    }
    put_on(world, wire, bytes, length);
    if (happens(world, world->loss / 2)) {
        put_on(world, wire, bytes, length);
        world->counts->repeated++;
    }
}

/* Which body arrives next: the first, or with bad luck a later one. */
static int next_of(struct world *world, const struct wire *wire)
{
    int at = world->loss && happens(world, world->loss) ? (int)draw(world, (uint32_t)wire->count) : 0;
    world->counts->reordered += at > 0;
    return at;
}

/* --- the publisher --- */

static int emit(void *context, const void *body, size_t length)
{
    struct world *world = context;
    send_over(world, &world->topic, body, length);
    return 0;
}

static void remember(struct world *world)
{
    struct moment *moment = &world->moment[world->moments++ % HISTORY];
    moment->life = world->life;
    moment->seq = world->log->seq;
    moment->queue = world->queue;
}

static void start_publisher(struct world *world)
{
    struct publisher_options options = {.schema_hash = "0123456789abcdef", .queue_limit = 64};
    if (feed_log_open(&options, emit, world, &world->log))
        abort();
    world->log->chunk_entries = CHUNK_ENTRIES;
    world->log->ring_messages = RING_MESSAGES;
    memcpy(world->epochs[world->life], world->log->epoch, sizeof world->epochs[0]);
}

static int compare_ranks(const void *left, const void *right)
{
    const struct queue_entry *a = left, *b = right;
    return a->rank != b->rank ? (a->rank < b->rank ? -1 : 1) : strcmp(a->id_str, b->id_str);
}

/* Mostly 0, so that an entry often differs from its last state in one number or in none. */
static uint32_t rarely(struct world *world)
{
    return draw(world, 12) == 0;
}

static void publish(struct world *world)
{
    uint32_t first = draw(world, 4) * 5, count = draw(world, happens(world, 20) ? SCHEDULE_ENTRIES_MAX + 1 : 12);
    for (uint32_t i = 0; i < count; i++) {
        struct queue_entry *entry = &world->queue.entries[i];
        *entry = (struct queue_entry){.rank = i + 1 - (i > 0 && rarely(world)),
                                      .stream = (uint8_t)(i % 3),
                                      .probability = rarely(world) ? 1e-300 : 0.5,
                                      .score = rarely(world) ? -0.0f : 0.25f,
                                      .total = 0.5f + (float)rarely(world),
                                      .expected = 0.25f,
                                      .model = rarely(world) ? UINT32_MAX : 1,
                                      .leased_until_ms = rarely(world) ? INT64_MIN : 1};
        snprintf(entry->id_str, sizeof entry->id_str, i % 5 ? "J%u" : "Galaxie n\xc3\xa9\xe9 %u",
                 (first + i) % GALAXIES * 7919u);
    }
    world->queue.count = count;
    qsort(world->queue.entries, count, sizeof *world->queue.entries, compare_ranks);
    if (feed_log_publish(world->log, draw(world, 1000), 1, world->queue.entries, count))
        abort();
}

static void retract(struct world *world)
{
    struct retraction retraction = {.reason = "retired"};
    size_t at = draw(world, (uint32_t)world->queue.count);
    memcpy(retraction.id_str, world->queue.entries[at].id_str, QUEUE_ID_BYTES);
    memmove(&world->queue.entries[at], &world->queue.entries[at + 1],
            (--world->queue.count - at) * sizeof *world->queue.entries);
    if (feed_log_retract(world->log, &retraction, 1))
        abort();
}

static void restart(struct world *world)
{
    feed_log_close(world->log);
    world->life++;
    world->counts->restarts++;
    if (happens(world, 50))
        cut(&world->topic);
    if (happens(world, 50))
        cut(&world->replies);
    if (happens(world, 50))
        cut(&world->requests);
    start_publisher(world);
    if (happens(world, 30)) /* somebody asks before the queue is there */
        remember(world);
    if (feed_log_publish(world->log, 1, 1, world->queue.entries, world->queue.count))
        abort();
}

/* One thing the publisher does; afterwards its queue is one of a known position. */
static void act(struct world *world)
{
    uint32_t choice = draw(world, 100);
    if (choice < 25)
        publish(world);
    else if (choice < 60 && world->queue.count)
        retract(world);
    else if (choice < 68)
        feed_log_model_changed(world->log, choice, "promoted");
    else if (choice < 96)
        feed_log_heartbeat(world->log);
    else
        restart(world);
    remember(world);
}

static void answer(struct world *world)
{
    struct text reply = text_new(FEED_BODY_BYTES_MAX);
    struct feed_asker asker = {.key = "", .role = FEED_SUBSCRIBER};
    if (world->requests.count == 0)
        return;
    int at = next_of(world, &world->requests);
    if (feed_log_answer(world->log, &asker, world->requests.body[at].bytes, world->requests.body[at].length, &reply))
        abort();
    take_off(&world->requests, at);
    send_over(world, &world->replies, reply.bytes, reply.length);
    if (world->answered.count == UNDER_WAY_MAX)
        take_off(&world->answered, 0);
    put_on(world, &world->answered, reply.bytes, reply.length);
    text_free(&reply);
}

/* --- the subscriber --- */

static uint64_t snapshots_of(const struct world *world)
{
    static struct schedule_view view;
    world->subscriber->view(world->subscriber->context, &view);
    return view.snapshots;
}

/* A reply reaches the subscriber; `chunked` counts the whole queues it took over in several pieces while some were lost. */
static void hand_over(struct world *world, const struct body *body)
{
    static struct feed_message reply;
    struct schedule_counts *counts = world->counts;
    if (feed_decode(body->bytes, body->length, &reply))
        abort();
    bool is_last = reply.kind == FEED_SNAPSHOT && reply.from > 0 && reply.next == 0 && world->loss > 0;
    uint64_t before = is_last ? snapshots_of(world) : 0;
    counts->too_old += reply.kind == FEED_TOO_OLD;
    counts->crossed += strcmp(reply.epoch, world->log->epoch) != 0;
    world->subscriber->take(world->subscriber->context, body->bytes, body->length, true);
    counts->chunked += is_last && snapshots_of(world) > before;
}

static void deliver(struct world *world, struct wire *wire, bool is_reply)
{
    if (wire->count == 0)
        return;
    int at = next_of(world, wire);
    if (is_reply)
        hand_over(world, &wire->body[at]);
    else
        world->subscriber->take(world->subscriber->context, wire->body[at].bytes, wire->body[at].length, false);
    take_off(wire, at);
}

/* Copies of replies that were given long ago, perhaps by a publisher that is no more, arrive once more. */
static void deliver_late_copies(struct world *world)
{
    for (uint32_t i = 1 + draw(world, LATE_COPIES); i > 0 && world->answered.count; i--) {
        hand_over(world, &world->answered.body[draw(world, (uint32_t)world->answered.count)]);
        world->counts->late++;
    }
}

static void ask(struct world *world)
{
    char body[SCHEDULE_REQUEST_BYTES];
    size_t length = world->subscriber->request(world->subscriber->context, body);
    if (length)
        send_over(world, &world->requests, body, length);
}

static void compare(const struct world *world, const struct schedule_view *view, const struct queue_state *queue)
{
    unsigned char got[QUEUE_PACKED_BYTES], expected[QUEUE_PACKED_BYTES];
    if (view->count != queue->count)
        fail(world, "the subscriber's queue has another length");
    for (size_t i = 0; i < queue->count; i++) {
        size_t length = queue_entry_pack(&queue->entries[i], expected);
        if (queue_entry_pack(&view->entries[i], got) != length || memcmp(got, expected, length) != 0)
            fail(world, "an entry of the subscriber's queue differs");
    }
}

/* Live means: exactly what the publisher had at this position, if that is one it was ever asked at. */
static bool look(struct world *world)
{
    static struct schedule_view view;
    world->subscriber->view(world->subscriber->context, &view);
    if (!view.is_live)
        return false;
    for (size_t i = 0; i < HISTORY && i < world->moments; i++) {
        const struct moment *moment = &world->moment[i];
        if (moment->seq != view.seq || strcmp(world->epochs[moment->life], view.epoch) != 0)
            continue;
        compare(world, &view, &moment->queue);
        world->counts->views++;
        break;
    }
    return view.seq == world->log->seq && strcmp(view.epoch, world->log->epoch) == 0;
}

/* --- one schedule --- */

static void step(struct world *world)
{
    uint32_t choice = draw(world, 100);
    if (choice < 24)
        act(world);
    else if (choice < 52)
        deliver(world, &world->topic, false);
    else if (choice < 68)
        ask(world);
    else if (choice < 82)
        answer(world);
    else if (choice < 95)
        deliver(world, &world->replies, true);
    else if (choice < 97 && world->loss > 0)
        deliver_late_copies(world);
    else { /* a connection is cut, and made again */
        struct wire *wires[] = {&world->topic, &world->requests, &world->replies};
        cut(wires[draw(world, 3)]);
        world->counts->cuts++;
    }
    look(world);
}

/* From now on nothing is lost: what is under way arrives, then heartbeats and requests until all is well. */
static void settle(struct world *world)
{
    world->loss = 0;
    for (int round = 0; round < SETTLE_ROUNDS; round++) {
        while (world->topic.count)
            deliver(world, &world->topic, false);
        while (world->requests.count)
            answer(world);
        while (world->replies.count)
            deliver(world, &world->replies, true);
        feed_log_heartbeat(world->log);
        while (world->topic.count)
            deliver(world, &world->topic, false);
        if (look(world))
            return;
        ask(world);
    }
    fail(world, "the subscriber does not come to the publisher's position");
}

static void play(struct world *world)
{
    static struct schedule_view view;
    world->subscriber->begin(world->subscriber->context);
    start_publisher(world);
    remember(world);
    for (int i = 0; i < STEPS; i++)
        step(world);
    settle(world);
    world->subscriber->view(world->subscriber->context, &view);
    compare(world, &view, &world->queue);
    world->counts->schedules++;
    world->counts->gaps += view.gaps;
    world->counts->replays += view.replays;
    world->counts->snapshots += view.snapshots;
    world->counts->malformed += view.malformed;
    cut(&world->topic);
    cut(&world->requests);
    cut(&world->replies);
    cut(&world->answered);
    feed_log_close(world->log);
}

/*
 * Nothing is lost, but the publisher ranks and retracts between the chunks of the subscriber's first snapshot, as it does
 * whenever a snapshot takes longer than a cycle. One snapshot and what happened meanwhile must be enough.
 */
static void play_busy(struct world *world)
{
    static struct schedule_view view;
    world->subscriber->begin(world->subscriber->context);
    start_publisher(world);
    do
        publish(world);
    while (world->queue.count <= 3 * CHUNK_ENTRIES);
    for (int chunk = 0; chunk < 4; chunk++) {
        ask(world);
        answer(world);
        deliver(world, &world->replies, true);
        publish(world);
        remember(world);
        if (world->queue.count)
            retract(world);
        remember(world);
    }
    settle(world);
    world->subscriber->view(world->subscriber->context, &view);
    compare(world, &view, &world->queue);
    if (view.snapshots != 1)
        fail(world, "a ranking between its chunks made the subscriber throw a snapshot away");
    cut(&world->topic);
    cut(&world->requests);
    cut(&world->replies);
    cut(&world->answered);
    feed_log_close(world->log);
}

void feed_schedules(const struct schedule_subscriber *subscriber, uint64_t seed, uint64_t count,
                    struct schedule_counts *ret_counts)
{
    static struct moment moments[HISTORY];
    *ret_counts = (struct schedule_counts){0};
    for (uint64_t i = 0; i < BUSY_SCHEDULES; i++) {
        struct world world = {.seed = seed + i, .subscriber = subscriber, .moment = moments, .counts = ret_counts};
        play_busy(&world);
    }
    for (uint64_t i = 0; i < count; i++) {
        struct world world = {.seed = seed + i,
                              .loss = (uint32_t)(i % 5) * 8,
                              .subscriber = subscriber,
                              .moment = moments,
                              .counts = ret_counts};
        play(&world);
    }
}
