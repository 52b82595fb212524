/*
 * Times the feed for ./bench: one publisher process and subscribers as processes of their own, over local sockets with keys.
 *
 *   bench_feed latency SUBSCRIBERS SECONDS    p99 of publish -> applied, ms, while rankings change ten times a second
 *   bench_feed arrival SUBSCRIBERS SECONDS    p99 of publish -> decrypted and in the subscriber's hands, nothing done with it
 *   bench_feed publish SUBSCRIBERS SECONDS    median time the publisher's loop gives to a ranking, ms; half of them never read
 *   bench_feed snapshot SUBSCRIBERS ENTRIES   seconds until all have a whole, verified snapshot
 */
#include "base/clock.h"
#include "base/error.h"
#include "clients/c/triage_feed.h"
#include "connectors/feed_keys.h"
#include "connectors/feed_message.h"
#include "connectors/publisher.h"
#include "connectors/zmq_socket.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHANGES_PER_S  10
#define RANKING        1000
#define HEARTBEAT_MS   1000
#define SAMPLES_MAX    100000
#define START_LIMIT_MS 120000

static char folder[] = "/tmp/bench-feed-XXXXXX", publish[128], snapshot[128], keys_folder[128], key_file[128];

static void must(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "bench_feed: %s: %s\n", what, error_message());
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void make_keys(void)
{
    static struct feed_keys keys;
    struct socket_curve key, server;
    must(mkdtemp(folder) != NULL, "no folder");
    snprintf(publish, sizeof publish, "ipc://%s/publish", folder);
    snprintf(snapshot, sizeof snapshot, "ipc://%s/snapshot", folder);
    snprintf(keys_folder, sizeof keys_folder, "%s/keys", folder);
    snprintf(key_file, sizeof key_file, "%s/key", folder);
    must(feed_keys_server(keys_folder, &server) == 0, "keys");
    must(socket_curve_make(key.public_key, key.secret_key) == 0, "keys");
    memcpy(key.server_key, server.public_key, SOCKET_KEY_BYTES);
    must(feed_keys_add(&keys, "bench", FEED_SUBSCRIBER, key.public_key) == 0, "keys");
    must(feed_keys_write(keys_folder, &keys) == 0, "keys");
    must(feed_keys_write_client(key_file, "bench", FEED_SUBSCRIBER, &key) == 0, "keys");
}

static void remove_folder(void)
{
    static const char *const files[] = {"keys/server.key", "keys/clients", "key", "publish", "snapshot", "keys", ""};
    char path[256];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        if (remove(path) && i < 3)
            fprintf(stderr, "bench_feed: cannot remove %s\n", path);
    }
}

static struct triage_feed *follow(void)
{
    struct triage_feed *feed;
    must(triage_feed_open(&(struct triage_feed_options){publish, snapshot, key_file, "bench"}, &feed) == 0,
         "a subscriber");
    return feed;
}

/* The subscriber of `latency`: the age of each ranking when its first entry, which carries the time, is seen. */
static void hear(int to, int64_t until_us)
{
    struct triage_feed *feed = follow();
    int64_t last = 0;
    while (now_us() < until_us) {
        size_t count;
        must(triage_feed_step(feed, 100) >= 0, "following");
        const struct triage_feed_entry *entry = triage_feed_entries(feed, &count);
        int64_t age_us = count ? now_us() - entry[0].leased_until_ms : 0;
        if (!count || entry[0].leased_until_ms == last)
            continue;
        if (last && write(to, &age_us, sizeof age_us) != sizeof age_us) /* the first one may be of the snapshot */
            exit(1);
        last = entry[0].leased_until_ms;
    }
    triage_feed_close(feed);
}

/* The subscriber of `arrival`: the moment a message is handed over counts, what it says is only looked up afterwards. */
static void arrive(int to, int64_t until_us)
{
    static struct feed_message message;
    struct socket_curve curve;
    struct socket *topic;
    must(feed_keys_read_client(key_file, &curve) == 0, "the key");
    struct socket_options options = {
        SOCKET_SUB, publish, FEED_TOPIC, 1, 1000, FEED_BODY_BYTES_MAX, getenv("PLAIN") ? NULL : &curve, 0, 0};
    must(socket_open(&options, &topic) == 0, "a subscriber");
    while (now_us() < until_us) {
        struct socket_frame frames[SOCKET_FRAMES_MAX];
        struct pollfd set = {.fd = socket_descriptor(topic), .events = POLLIN};
        int count, got = socket_receive(topic, frames, &count);
        if (getenv("SAY") && got)
            fprintf(stderr, "got %d count %d len %zu\n", got, count, frames[1].length);
        int64_t us = now_us();
        if (got == 0)
            poll(&set, 1, 100);
        if (got != 1 || feed_decode(frames[1].bytes, frames[1].length, &message) || message.kind != FEED_UPSERT ||
            message.entries[0].rank != 1 || us < message.entries[0].leased_until_ms)
            continue;
        us -= message.entries[0].leased_until_ms;
        if (write(to, &us, sizeof us) != sizeof us)
            exit(1);
    }
    socket_close(topic);
}

static void take_snapshot(int to)
{
    struct triage_feed *feed = follow();
    struct triage_feed_status status;
    int64_t started_us = now_us(), took_us;
    do {
        must(triage_feed_step(feed, 1000) >= 0, "following");
        triage_feed_status(feed, &status);
    } while (!status.is_live);
    took_us = now_us() - started_us;
    must(status.snapshots == 1 && write(to, &took_us, sizeof took_us) == sizeof took_us, "a snapshot");
    triage_feed_close(feed);
}

static void fill(struct queue_entry *entries, size_t count, uint32_t model, int64_t stamp)
{
    for (size_t i = 0; i < count; i++) {
        entries[i] = (struct queue_entry){.rank = (uint32_t)i + 1,
                                          .probability = 0.25,
                                          .score = 1.0f / (float)(i + 1),
                                          .total = 2,
                                          .expected = 1,
                                          .model = i % 10 ? 1 : model, /* a tenth changes */
                                          .leased_until_ms = stamp && i == 0 ? stamp : 1700000000000};
        snprintf(entries[i].id_str, sizeof entries[i].id_str, "J%06zu.%04zu", i * 7919 % 1000003, i % 10000);
    }
}

static struct publisher_state *open_publisher(void)
{
    struct publisher_options options = {.publish_endpoint = publish,
                                        .snapshot_endpoint = snapshot,
                                        .keys_folder = getenv("PLAIN") ? NULL : keys_folder,
                                        .schema_hash = "bench",
                                        .queue_limit = PUBLISHER_QUEUE_LIMIT};
    struct publisher_state *state;
    must(publisher_zmq.open(&options, &state) == 0, "the publisher");
    return state;
}

/* One turn of the daemon's loop. */
static void turn(struct publisher_state *state, int wait_ms)
{
    static int64_t heartbeat_ms;
    struct pollfd set = {.fd = publisher_zmq.descriptor(state), .events = POLLIN};
    poll(&set, 1, wait_ms);
    must(publisher_zmq.serve(state) >= 0, "serving");
    if (clock_ms() - heartbeat_ms >= HEARTBEAT_MS) {
        heartbeat_ms = clock_ms();
        publisher_zmq.heartbeat(state);
    }
}

static int compare(const void *left, const void *right)
{
    const int64_t *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

static size_t collect(int from, int64_t *samples)
{
    size_t count = 0;
    while (count < SAMPLES_MAX && read(from, &samples[count], sizeof *samples) == sizeof *samples)
        count++;
    qsort(samples, count, sizeof *samples, compare);
    return count;
}

/* All subscribers of `publish`, in one process: every second one reads, the others are as good as dead. */
static void crowd(int subscribers, int64_t until_us)
{
    struct socket_context *context;
    struct socket_curve curve;
    struct socket **topic = calloc((size_t)subscribers, sizeof *topic);
    must(topic && socket_context_new(&context) == 0 && feed_keys_read_client(key_file, &curve) == 0, "the crowd");
    struct socket_options options = {SOCKET_SUB, publish, FEED_TOPIC, 1, 1000, FEED_BODY_BYTES_MAX, &curve, context, 0};
    for (int i = 0; i < subscribers; i++)
        must(socket_open(&options, &topic[i]) == 0, "a subscriber");
    while (now_us() < until_us) {
        struct socket_frame frames[SOCKET_FRAMES_MAX];
        int count;
        for (int i = 0; i < subscribers; i += 2)
            while (socket_receive(topic[i], frames, &count) == 1)
                ;
        poll(NULL, 0, 10);
    }
    _exit(0); /* libzmq takes its time to close so many */
}

/* The first half of the time is for their handshakes. */
static void time_publishing(int subscribers, int64_t seconds, struct queue_entry *queue)
{
    static int64_t samples[SAMPLES_MAX];
    int64_t start_us = now_us(), until_us = start_us + seconds * 1000000, ranking = 0;
    size_t count = 0;
    if (subscribers && fork() == 0)
        crowd(subscribers, until_us);
    struct publisher_state *state = open_publisher();
    for (; now_us() < until_us; turn(state, 5)) {
        int64_t before_us = now_us();
        if (before_us - start_us < ranking * 1000000 / CHANGES_PER_S)
            continue;
        fill(queue, RANKING, (uint32_t)++ranking + 1, before_us);
        before_us = now_us();
        must(publisher_zmq.publish(state, (uint64_t)ranking, 1, queue, RANKING) == 0, "publishing");
        if (now_us() - start_us > seconds * 500000 && count < SAMPLES_MAX)
            samples[count++] = now_us() - before_us;
    }
    struct publisher_counters counters;
    publisher_zmq.counters(state, &counters);
    must(counters.accepted >= (uint64_t)subscribers && counters.unsent == 0 && count, "not everybody is connected");
    qsort(samples, count, sizeof *samples, compare);
    printf("%.3f\n", (double)samples[count / 2] / 1e3);
    publisher_zmq.close(state);
    while (wait(NULL) > 0)
        ;
}

/* What the two sides cost, on a busy machine too. */
static void tell_processor(const char *whose, int who, int changes)
{
    struct rusage used;
    getrusage(who, &used);
    double us = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 + (double)used.ru_utime.tv_usec +
                (double)used.ru_stime.tv_usec;
    fprintf(stderr, "bench_feed: %s: %.2f ms of processor time per ranking\n", whose, us / 1e3 / changes);
}

/* As long as subscribers run, with changes until `until_us`. How many changes there were. */
static int publish_until_all_ended(struct publisher_state *state, struct queue_entry *queue, size_t entries,
                                   int running, int64_t until_us)
{
    int status, changes = 0;
    int64_t start_us = now_us();
    while (running > 0) {
        turn(state, 5);
        while (waitpid(-1, &status, WNOHANG) > 0) {
            must(status == 0, "a subscriber failed");
            running--;
        }
        if (now_us() - start_us > (int64_t)changes * 1000000 / CHANGES_PER_S && now_us() < until_us) {
            fill(queue, entries, (uint32_t)++changes + 1, now_us());
            must(publisher_zmq.publish(state, (uint64_t)changes, 1, queue, entries) == 0, "publishing");
        }
    }
    return changes;
}

static void tell_latency(const char *what, int changes, const int64_t *samples, size_t count)
{
    tell_processor("publisher", RUSAGE_SELF, changes);
    tell_processor("subscribers", RUSAGE_CHILDREN, changes);
    fprintf(stderr, "bench_feed: %s, %d rankings, %zu samples: median %.1f ms, p90 %.1f ms, p99 %.1f ms\n", what,
            changes, count, (double)samples[count / 2] / 1e3, (double)samples[count * 9 / 10] / 1e3,
            (double)samples[count * 99 / 100] / 1e3);
    printf("%.3f\n", (double)samples[count * 99 / 100] / 1e3);
}

int main(int argc, char **argv)
{
    static int64_t samples[SAMPLES_MAX];
    int pipes[2], is_arrival = argc == 4 && strcmp(argv[1], "arrival") == 0;
    int is_latency = is_arrival || (argc == 4 && strcmp(argv[1], "latency") == 0);
    int is_publish = argc == 4 && strcmp(argv[1], "publish") == 0;
    must(argc == 4 && (is_latency || is_publish || strcmp(argv[1], "snapshot") == 0),
         "latency | arrival | publish SUBSCRIBERS SECONDS, or snapshot SUBSCRIBERS ENTRIES");
    int subscribers = atoi(argv[2]);
    size_t entries = is_latency || is_publish ? RANKING : (size_t)atol(argv[3]);
    struct queue_entry *queue = calloc(entries, sizeof *queue);
    must(queue && pipe(pipes) == 0, "memory");
    make_keys();
    if (is_publish) {
        time_publishing(subscribers, atol(argv[3]), queue);
        free(queue);
        remove_folder();
        return 0;
    }
    int64_t until_us = now_us() + (is_latency ? atol(argv[3]) * 1000000 : 0);
    for (int i = 0; i < subscribers; i++)
        if (fork() == 0) { /* before this process has a ZeroMQ context */
            if (is_arrival)
                arrive(pipes[1], until_us);
            else if (is_latency)
                hear(pipes[1], until_us);
            else
                take_snapshot(pipes[1]);
            _exit(0);
        }
    close(pipes[1]);
    struct publisher_state *state = open_publisher();
    fill(queue, entries, 1, 0);
    must(publisher_zmq.publish(state, 1, 1, queue, entries) == 0, "publishing");
    int changes = publish_until_all_ended(state, queue, entries, subscribers, is_latency ? until_us : 0);
    size_t count = collect(pipes[0], samples);
    must(count >= (size_t)subscribers * (is_latency ? (size_t)changes / 2 : 1), "too few samples");
    if (is_latency)
        tell_latency(argv[1], changes, samples, count);
    else
        printf("%.3f\n", (double)samples[count - 1] / 1e6);
    publisher_zmq.close(state);
    free(queue);
    remove_folder();
    return 0;
}
