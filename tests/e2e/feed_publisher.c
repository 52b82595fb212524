/*
 * A publisher for feed_python.sh: a random life of a queue, through a lossy proxy, with a restart in the
 * middle, that ends at a sequence number known beforehand. Then prints the queue, one line per galaxy, and
 * serves until its input ends.
 *
 *   feed_publisher FOLDER SEED LOSS_PERCENT LAST_SEQ
 *
 * Subscribers connect to ipc://FOLDER/publish and ipc://FOLDER/snapshot.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/philox.h"
#include "connectors/publisher.h"
#include "tests/support/lossy_proxy.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_LIMIT   1500
#define QUEUE_LEFT    5 /* never retract so far that there is nothing to compare */
#define HEARTBEAT_MS  50
#define FIRST_EPOCH   60 /* messages before the restart, so that LAST_SEQ is reached only after it */
#define STEP_LIMIT_MS 60000

struct life {
    uint64_t seed;
    uint32_t draws;
    char inner[128], publish[128], inner_snapshot[128], snapshot[128];
    struct publisher_state *feed;
    struct lossy_proxy proxy;
    struct queue_entry entries[QUEUE_LIMIT];
    size_t count;
    int64_t heartbeat_ms;
};

static void check(int result)
{
    if (result < 0) {
        fprintf(stderr, "feed_publisher: %s\n", error_message());
        exit(1);
    }
}

static uint32_t draw(struct life *life, uint32_t below)
{
    return philox(life->seed, life->draws++, 0, 0, 0).word[0] % below;
}

static uint64_t last_seq(const struct life *life)
{
    const char *epoch;
    uint64_t seq;
    publisher_zmq.position(life->feed, &epoch, &seq);
    return seq;
}

/* One turn of a daemon's loop; returns when there is nothing to do for the moment. */
static void turn(struct life *life, int wait_ms)
{
    struct pollfd set = {.fd = publisher_zmq.descriptor(life->feed), .events = POLLIN};
    poll(&set, 1, wait_ms);
    check(publisher_zmq.serve(life->feed));
    lossy_proxy_step(&life->proxy);
    if (clock_ms() - life->heartbeat_ms >= HEARTBEAT_MS) {
        life->heartbeat_ms = clock_ms();
        check(publisher_zmq.heartbeat(life->feed));
    }
}

/* Ids with every kind of byte a catalogue may bring. */
static void name_galaxy(char id_str[QUEUE_ID_BYTES], uint32_t galaxy)
{
    static const char *const forms[] = {"J", "Galaxie n\xc3\xa9\xc3\xa9 ", "old encoding \xe9 ", "a \"b\" \\ "};
    snprintf(id_str, QUEUE_ID_BYTES, "%s%u", forms[galaxy % 4], galaxy);
}

static void publish(struct life *life)
{
    uint32_t first = draw(life, 500), size = draw(life, 8) ? 80 : QUEUE_LIMIT;
    life->count = 1 + draw(life, size);
    for (uint32_t i = 0; i < life->count; i++) {
        struct queue_entry *entry = &life->entries[i];
        *entry = (struct queue_entry){.rank = i + 1,
                                      .stream = (uint8_t)draw(life, 3),
                                      .probability = 1.0 / (1 + draw(life, 1000)),
                                      .score = (float)draw(life, 100000) * 0x1p-20f,
                                      .total = 0.7f,
                                      .expected = (float)draw(life, 3) * 0.1f,
                                      .model = draw(life, 100),
                                      .leased_until_ms = 1718000000000 + draw(life, 1000)};
        name_galaxy(entry->id_str, first + i);
    }
    check(publisher_zmq.publish(life->feed, draw(life, 1000), 5, life->entries, life->count));
}

static void retract(struct life *life)
{
    struct retraction retraction = {.reason = "retired"};
    if (life->count <= QUEUE_LEFT)
        return;
    size_t at = draw(life, (uint32_t)life->count);
    memcpy(retraction.id_str, life->entries[at].id_str, QUEUE_ID_BYTES);
    memmove(&life->entries[at], &life->entries[at + 1], (life->count - at - 1) * sizeof *life->entries);
    life->count--;
    check(publisher_zmq.retract(life->feed, &retraction, 1));
}

static void open_feed(struct life *life)
{
    struct publisher_options options = {.publish_endpoint = life->inner,
                                        .snapshot_endpoint = life->inner_snapshot,
                                        .schema_hash = "0123456789abcdef0123456789abcdef",
                                        .queue_limit = QUEUE_LIMIT};
    check(publisher_zmq.open(&options, &life->feed));
}

/* Lives until message `seq` was said; a ranking is up to 20 messages, so the last ones are small. */
static void live_until(struct life *life, uint64_t seq)
{
    while (last_seq(life) < seq) {
        if (last_seq(life) + 20 < seq && draw(life, 3) == 0)
            publish(life);
        else if (draw(life, 2))
            retract(life);
        else
            check(publisher_zmq.model_changed(life->feed, draw(life, 100), "promoted"));
        turn(life, 2);
    }
}

/* So that messages are lost on somebody: until a subscriber asks. */
static void wait_for_a_subscriber(struct life *life)
{
    struct publisher_counters counters = {0};
    int64_t started_ms = clock_ms();
    while (!counters.requests && clock_ms() - started_ms < STEP_LIMIT_MS) {
        turn(life, 10);
        publisher_zmq.counters(life->feed, &counters);
    }
}

static void print_queue(const struct life *life)
{
    static const char *const streams[] = {"active", "random", "pinned"};
    for (size_t i = 0; i < life->count; i++) {
        const struct queue_entry *entry = &life->entries[i];
        printf("%s\t%u\t%s\t%.17g\t%.9g\t%.9g\t%.9g\t%u\t%lld\n", entry->id_str, entry->rank, streams[entry->stream],
               entry->probability, (double)entry->score, (double)entry->total, (double)entry->expected, entry->model,
               (long long)entry->leased_until_ms);
    }
    puts("end");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct life life;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (argc != 5)
        return 2;
    life.seed = strtoull(argv[2], NULL, 10);
    snprintf(life.inner, sizeof life.inner, "ipc://%s/inner", argv[1]);
    snprintf(life.publish, sizeof life.publish, "ipc://%s/publish", argv[1]);
    snprintf(life.inner_snapshot, sizeof life.inner_snapshot, "ipc://%s/inner-snapshot", argv[1]);
    snprintf(life.snapshot, sizeof life.snapshot, "ipc://%s/snapshot", argv[1]);
    const struct lossy_proxy_ends topic = {life.inner, life.publish}, requests = {life.inner_snapshot, life.snapshot};
    check(lossy_proxy_open(&topic, &requests, life.seed, &life.proxy));
    life.proxy.loss = (uint32_t)strtoul(argv[3], NULL, 10);
    open_feed(&life);
    wait_for_a_subscriber(&life);
    live_until(&life, FIRST_EPOCH);
    publisher_zmq.close(life.feed);
    open_feed(&life);
    wait_for_a_subscriber(&life);
    check(publisher_zmq.publish(life.feed, 1, 1, life.entries, life.count));
    live_until(&life, strtoull(argv[4], NULL, 10));
    print_queue(&life);
    while (poll(&input, 1, 0) == 0)
        turn(&life, 10);
    publisher_zmq.close(life.feed);
    lossy_proxy_close(&life.proxy);
    return 0;
}
