/*
 * The feed over real sockets: a proxy that loses, repeats and swaps, subscribers that are slow, dead or many, hostile
 * requests, endpoints, and the record.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/feed_log.h"
#include "connectors/publisher.h"
#include "connectors/zmq_socket.h"
#include "tests/support/feed_queues.h"
#include "tests/support/lossy_proxy.h"

#include <malloc.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define PATIENCE_MS 120000 /* a limit for failing, not a duration */

/* --- over sockets --- */

static char folder[] = "/tmp/feed-test-XXXXXX", publish_endpoint[64], snapshot_endpoint[64], proxy_endpoint[64],
            proxy_requests[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(publish_endpoint, sizeof publish_endpoint, "ipc://%s/publish", folder);
    snprintf(snapshot_endpoint, sizeof snapshot_endpoint, "ipc://%s/snapshot", folder);
    snprintf(proxy_endpoint, sizeof proxy_endpoint, "ipc://%s/proxy", folder);
    snprintf(proxy_requests, sizeof proxy_requests, "ipc://%s/proxy-requests", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(publish_endpoint + 6);
    unlink(snapshot_endpoint + 6);
    unlink(proxy_endpoint + 6);
    unlink(proxy_requests + 6);
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
static void converge(struct publisher_state *state, struct lossy_proxy *proxy, struct triage_feed *client,
                     const struct test_queue *queue)
{
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    struct triage_feed_status status;
    const char *epoch;
    uint64_t seq;
    publisher_zmq.position(state, &epoch, &seq);
    for (;;) {
        publisher_zmq.heartbeat(state);
        while (publisher_zmq.serve(state) == 1)
            ;
        if (proxy)
            lossy_proxy_step(proxy);
        assert_true(triage_feed_step(client, 2) >= 0);
        triage_feed_status(client, &status);
        if (status.is_live && status.seq == seq && strcmp(epoch, status.epoch) == 0)
            break;
        assert_true(clock_ms() < deadline_ms);
    }
    assert_follows(client, queue);
}

static void test_through_a_lossy_proxy(void **state)
{
    (void)state;
    const uint64_t seed = 31337;
    static struct test_queue queue;
    static struct lossy_proxy proxy;
    struct draws draws = {.seed = seed + 1};
    struct triage_feed *client;
    struct triage_feed_status counters;
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct lossy_proxy_ends topic = {publish_endpoint, proxy_endpoint},
                                  requests = {snapshot_endpoint, proxy_requests};
    assert_int_equal(lossy_proxy_open(&topic, &requests, seed, &proxy), 0);
    assert_int_equal(
        triage_feed_open(&(struct triage_feed_options){proxy_endpoint, proxy_requests, NULL, NULL}, &client), 0);
    for (int schedule = 0; schedule < 200; schedule++) {
        proxy.loss = (uint32_t)schedule % 5 * 10;
        if (schedule % 40 == 39) { /* the daemon starts again */
            publisher_zmq.close(feed);
            feed = open_publisher(QUEUE_ENTRIES);
        }
        for (int step = 0; step < 5; step++) {
            publish_drawn(feed, (uint64_t)step, &draws, schedule % 10 ? 60 : QUEUE_ENTRIES, &queue);
            struct retraction retraction = {.reason = "retired"};
            memcpy(retraction.id_str, queue.entries[draw(&draws, (uint32_t)queue.count)].id_str, QUEUE_ID_BYTES);
            remove_from_queue(&queue, retraction.id_str);
            assert_int_equal(publisher_zmq.retract(feed, &retraction, 1), 0);
            lossy_proxy_step(&proxy);
            assert_true(triage_feed_step(client, 0) >= 0);
        }
        converge(feed, &proxy, client, &queue);
    }
    triage_feed_status(client, &counters);
    assert_true(counters.gaps > 50 && counters.replays > 30 && counters.snapshots >= 5);
    for (int way = 0; way < PROXY_WAYS; way++) {
        print_message("%s: %llu lost, %llu delayed, %llu copies long after\n",
                      (const char *const[]){"topic", "requests", "replies"}[way], (unsigned long long)proxy.lost[way],
                      (unsigned long long)proxy.delayed[way], (unsigned long long)proxy.late[way]);
        assert_true(proxy.lost[way] > 0 && proxy.delayed[way] > 20 && (way == PROXY_TOPIC || proxy.late[way] > 20));
    }
    assert_int_equal(counters.malformed, 0);
    triage_feed_close(client);
    lossy_proxy_close(&proxy);
    publisher_zmq.close(feed);
}

static void test_a_forced_gap(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 8};
    struct triage_feed *client;
    struct triage_feed_status before, after;
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    assert_int_equal(
        triage_feed_open(&(struct triage_feed_options){publish_endpoint, snapshot_endpoint, NULL, NULL}, &client), 0);
    publish_drawn(feed, 1, &draws, 60, &queue);
    converge(feed, NULL, client, &queue);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    do { /* until the subscription itself works: a message came over the topic */
        assert_true(clock_ms() < deadline_ms);
        triage_feed_status(client, &before);
        assert_int_equal(publisher_zmq.model_changed(feed, 1, "x"), 0);
        converge(feed, NULL, client, &queue);
        triage_feed_status(client, &after);
    } while (after.messages == before.messages || after.gaps != before.gaps);
    uint64_t cycle = 2;
    do { /* until the message lost is one of a publication: a heartbeat still under way leaves no gap */
        assert_true(clock_ms() < deadline_ms);
        triage_feed_status(client, &before);
        triage_feed_lose(client, 1);
        publish_drawn(feed, cycle++, &draws, 60, &queue);
        converge(feed, NULL, client, &queue);
        triage_feed_status(client, &after);
    } while (after.gaps == before.gaps);
    assert_int_equal(after.gaps, before.gaps + 1);
    assert_int_equal(after.replays, before.replays + 1);
    assert_int_equal(after.snapshots, before.snapshots);
    triage_feed_close(client);
    publisher_zmq.close(feed);
}

static int say(void *context, const void *body, size_t length)
{
    struct socket_frame frames[2] = {
        {FEED_TOPIC, sizeof FEED_TOPIC - 1},
        {body,       length               }
    };
    assert_int_equal(socket_send(context, frames, 2), 0);
    return 0;
}

/* Answers what waits at a ROUTER. */
static void answer(struct socket *requests, struct feed_log *log)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    struct feed_asker anybody = {.key = "", .role = FEED_SUBSCRIBER};
    int count;
    while (socket_receive(requests, frames, &count) == 1) {
        struct text reply = text_new(FEED_BODY_BYTES_MAX);
        assert_int_equal(count, 2);
        assert_int_equal(feed_log_answer(log, &anybody, frames[1].bytes, frames[1].length, &reply), 0);
        frames[1] = (struct socket_frame){reply.bytes, reply.length};
        assert_int_equal(reply.length ? socket_send(requests, frames, 2) : 0, 0);
        text_free(&reply);
    }
}

static void follow(struct triage_feed *client, struct socket *requests, struct feed_log *log)
{
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    struct triage_feed_status status;
    do {
        assert_int_equal(feed_log_heartbeat(log), 0);
        answer(requests, log);
        assert_true(triage_feed_step(client, 2) >= 0);
        assert_true(clock_ms() < deadline_ms);
        triage_feed_status(client, &status);
    } while (!status.is_live || strcmp(status.epoch, log->epoch) != 0);
}

/* After a restart nothing comes but leftovers of before: that is silence, and after a while the subscriber asks. */
static void test_leftovers_are_silence(void **state)
{
    (void)state;
    struct publisher_options options = {.schema_hash = SCHEMA, .queue_limit = QUEUE_ENTRIES};
    struct socket_options at = {.kind = SOCKET_XPUB,
                                .endpoint = publish_endpoint,
                                .send_limit = 100,
                                .receive_limit = 100,
                                .message_limit = FEED_BODY_BYTES_MAX};
    struct socket *topic, *requests;
    struct feed_log *former, *log;
    struct triage_feed *client;
    assert_int_equal(socket_open(&at, &topic), 0);
    at.kind = SOCKET_ROUTER;
    at.endpoint = snapshot_endpoint;
    assert_int_equal(socket_open(&at, &requests), 0);
    assert_int_equal(feed_log_open(&options, say, topic, &former), 0);
    assert_int_equal(feed_log_open(&options, say, topic, &log), 0);
    assert_int_equal(
        triage_feed_open(&(struct triage_feed_options){publish_endpoint, snapshot_endpoint, NULL, NULL}, &client), 0);
    follow(client, requests, former);
    follow(client, requests, log);
    uint64_t before = log->counters.requests;
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    while (log->counters.requests == before) {
        assert_true(clock_ms() < deadline_ms);
        assert_int_equal(feed_log_heartbeat(former), 0);
        assert_true(triage_feed_step(client, 10) >= 0);
        answer(requests, log);
    }
    follow(client, requests, log);
    triage_feed_close(client);
    feed_log_close(former);
    feed_log_close(log);
    socket_close(topic);
    socket_close(requests);
}

/* One subscriber reads nothing at all; publishing goes on, and another one has everything. */
static void test_a_slow_subscriber(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 9};
    struct socket *slow;
    struct triage_feed *client;
    struct triage_feed_status counters;
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    struct socket_options options = {.kind = SOCKET_SUB,
                                     .endpoint = publish_endpoint,
                                     .topic = FEED_TOPIC,
                                     .send_limit = 1,
                                     .receive_limit = 1,
                                     .message_limit = FEED_BODY_BYTES_MAX};
    assert_int_equal(socket_open(&options, &slow), 0);
    assert_int_equal(
        triage_feed_open(&(struct triage_feed_options){publish_endpoint, snapshot_endpoint, NULL, NULL}, &client), 0);
    struct pollfd set = {.fd = socket_descriptor(slow), .events = POLLIN};
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    while (poll(&set, 1, 10) == 0) { /* until it is connected and has something to read */
        assert_int_equal(publisher_zmq.heartbeat(feed), 0);
        assert_true(clock_ms() < deadline_ms);
    }
    for (int i = 0; i < 1000; i++) {
        publish_drawn(feed, (uint64_t)i, &draws, QUEUE_ENTRIES, &queue);
        assert_true(triage_feed_step(client, 0) >= 0);
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
    triage_feed_status(client, &counters);
    assert_int_equal(counters.malformed, 0);
    socket_close(slow);
    triage_feed_close(client);
    publisher_zmq.close(feed);
}

/* --- many, and dead ones --- */

#if defined(__SANITIZE_ADDRESS__)
size_t __sanitizer_get_current_allocated_bytes(void);
static size_t live_bytes(void)
{
    return __sanitizer_get_current_allocated_bytes();
}
#else
static size_t live_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}
#endif

#define SUBSCRIBERS   200
#define DEAD          20
#define TOPIC_WAITING 512 /* docs/feed.md */

/* Until each has heard a heartbeat; the dead ones nothing from then on. */
static void hear_heartbeats(struct publisher_state *feed, struct socket **living, struct socket **dead,
                            int64_t deadline_ms)
{
    static bool alive[SUBSCRIBERS - DEAD], died[DEAD];
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count, connected = 0;
    while (connected < SUBSCRIBERS) {
        assert_int_equal(publisher_zmq.heartbeat(feed), 0);
        connected = 0;
        for (int i = 0; i < SUBSCRIBERS - DEAD; i++) {
            while (socket_receive(living[i], frames, &count) == 1)
                alive[i] = true;
            connected += alive[i];
        }
        for (int i = 0; i < DEAD; i++) {
            died[i] = died[i] || socket_receive(dead[i], frames, &count) == 1;
            connected += died[i];
        }
        assert_true(clock_ms() < deadline_ms);
    }
}

/*
 * 200 subscribers, 20 of which never read. Several times what may wait for them is published: memory stays under what the
 * ring and the dead ones' queues may hold (the messages themselves are shared), the rest is dropped, and the living ones
 * have every message.
 */
static void test_many_subscribers(void **state)
{
    (void)state;
    static struct test_queue queue;
    static struct socket *living[SUBSCRIBERS - DEAD], *dead[DEAD];
    static int got[SUBSCRIBERS - DEAD];
    struct draws draws = {.seed = 31};
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    struct socket_options options = {.kind = SOCKET_SUB,
                                     .endpoint = publish_endpoint,
                                     .topic = FEED_TOPIC,
                                     .send_limit = 1,
                                     .receive_limit = 1000,
                                     .message_limit = FEED_BODY_BYTES_MAX};
    struct socket_options deaf = options;
    deaf.receive_limit = 1;
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count;
    struct socket_context *context;
    assert_int_equal(socket_context_new(&context), 0);
    options.context = deaf.context = context; /* one thread for all of them */
    for (int i = 0; i < SUBSCRIBERS - DEAD; i++)
        assert_int_equal(socket_open(&options, &living[i]), 0);
    for (int i = 0; i < DEAD; i++)
        assert_int_equal(socket_open(&deaf, &dead[i]), 0);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    hear_heartbeats(feed, living, dead, deadline_ms);
    const char *epoch;
    uint64_t first, last;
    size_t before = live_bytes(), most = before;
    publisher_zmq.position(feed, &epoch, &first);
    for (int round = 0; round < 350; round++) {
        do
            draw_queue(&draws, QUEUE_ENTRIES, &queue);
        while (queue.count < 256);
        assert_int_equal(publisher_zmq.publish(feed, (uint64_t)round, 1, queue.entries, queue.count), 0);
        publisher_zmq.position(feed, &epoch, &last);
        for (int i = 0; i < SUBSCRIBERS - DEAD; i++)
            while (got[i] < (int)(last - first)) {
                int result = socket_receive(living[i], frames, &count);
                assert_true(result >= 0 && clock_ms() < deadline_ms + 3 * PATIENCE_MS);
                got[i] += result;
            }
        most = live_bytes() > most ? live_bytes() : most;
    }
    size_t message = 60 << 10, said = (size_t)(last - first);
    print_message("%zu messages; memory grew by %.1f MiB at most\n", said, (double)(most - before) / (1 << 20));
    assert_true(said > 4 * TOPIC_WAITING); /* else nothing would have had to be dropped */
    assert_true(most - before < (FEED_RING_MESSAGES + TOPIC_WAITING) * message + ((size_t)32 << 20));
    struct publisher_counters counters;
    publisher_zmq.counters(feed, &counters);
    assert_int_equal(counters.unsent, 0);
    for (int i = 0; i < DEAD; i++) { /* they were told a part, in order from the start, and no more than fits */
        int heard = 0;
        struct pollfd set = {.fd = socket_descriptor(dead[i]), .events = POLLIN};
        while (poll(&set, 1, i == 0 ? 100 : 0) == 1 && socket_receive(dead[i], frames, &count) == 1)
            heard++;
        assert_true((size_t)heard < said);
    }
    for (int i = 0; i < SUBSCRIBERS - DEAD; i++)
        socket_close(living[i]);
    for (int i = 0; i < DEAD; i++)
        socket_close(dead[i]);
    socket_context_free(context);
    publisher_zmq.close(feed);
}

/* Fifty rankings; how many messages they took. */
static uint64_t say_fifty(struct publisher_state *feed)
{
    static struct test_queue queue;
    struct draws draws = {.seed = 32};
    struct publisher_counters before, after;
    publisher_zmq.counters(feed, &before);
    for (uint64_t cycle = 1; cycle <= 50; cycle++) {
        publish_drawn(feed, cycle, &draws, QUEUE_ENTRIES, &queue);
    }
    publisher_zmq.counters(feed, &after);
    assert_int_equal(after.unsent, 0);
    return after.messages - before.messages;
}

/* The loop gives every message to libzmq once, whoever listens: nobody there, or 200 who are connected and read nothing. */
static void test_publishing_is_the_same_whoever_listens(void **state)
{
    (void)state;
    static struct socket *deaf[SUBSCRIBERS];
    struct socket_context *context;
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    uint64_t alone = say_fifty(feed);
    publisher_zmq.close(feed);

    feed = open_publisher(QUEUE_ENTRIES);
    assert_int_equal(socket_context_new(&context), 0);
    struct socket_options options = {SOCKET_SUB, publish_endpoint, FEED_TOPIC, 1, 1, FEED_BODY_BYTES_MAX,
                                     NULL,       context,          NULL};
    for (int i = 0; i < SUBSCRIBERS; i++)
        assert_int_equal(socket_open(&options, &deaf[i]), 0);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    for (int i = 0; i < SUBSCRIBERS; i++) /* until each could read something */
        for (struct pollfd set = {.fd = socket_descriptor(deaf[i]), .events = POLLIN}; poll(&set, 1, 5) == 0;) {
            assert_int_equal(publisher_zmq.heartbeat(feed), 0);
            assert_true(clock_ms() < deadline_ms);
        }
    assert_int_equal(say_fifty(feed), alone);
    assert_true(alone >= 100); /* an upsert and a rerank each */
    for (int i = 0; i < SUBSCRIBERS; i++)
        socket_close(deaf[i]);
    socket_context_free(context);
    publisher_zmq.close(feed);
}

/* --- hostile subscriptions --- */

#define ATTACKS     4
#define LONG_COUNT  10
#define LONG_BYTES  60000 /* each would cost ZeroMQ's table of topics 2 MB and more */
#define SHORT_COUNT 150
#define SHORT_BYTES 400

/* Asks for this many topics that nobody publishes, all different. */
static void *subscribe_to_many(void *context, struct draws *draws, int count, size_t bytes)
{
    static uint32_t topic[LONG_BYTES / sizeof(uint32_t)];
    void *socket = zmq_socket(context, ZMQ_SUB);
    if (!socket || zmq_connect(socket, publish_endpoint))
        _exit(1);
    for (int i = 0; i < count; i++) {
        for (size_t j = 0; j < bytes / sizeof *topic; j++)
            topic[j] = draw(draws, UINT32_MAX);
        if (zmq_setsockopt(socket, ZMQ_SUBSCRIBE, topic, bytes))
            _exit(1);
    }
    return socket;
}

/* Another process, whose memory is not ours: one socket with long subscriptions, one with many. */
static pid_t start_attacker(struct draws *draws)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    void *context = zmq_ctx_new();
    zmq_pollitem_t sockets[] = {
        {subscribe_to_many(context, draws, SHORT_COUNT, SHORT_BYTES), 0, ZMQ_POLLIN, 0},
        {subscribe_to_many(context, draws, LONG_COUNT,  LONG_BYTES),  0, ZMQ_POLLIN, 0}
    };
    for (;;) /* so that they subscribe again after each reconnection */
        zmq_poll(sockets, 2, 10);
}

/* Long subscriptions end a connection, many short ones all connections: memory stays flat, and who follows has all. */
static void test_hostile_subscriptions(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 64};
    pid_t attacker = start_attacker(&draws); /* first, so that it inherits no socket; it attacks again and again */
    struct publisher_state *feed = open_publisher(QUEUE_ENTRIES);
    struct publisher_counters counters = {0};
    struct triage_feed *client;
    assert_int_equal(
        triage_feed_open(&(struct triage_feed_options){publish_endpoint, snapshot_endpoint, NULL, NULL}, &client), 0);
    publish_drawn(feed, 1, &draws, QUEUE_ENTRIES, &queue);
    converge(feed, NULL, client, &queue);
    size_t before = live_bytes(), most = before;
    for (int attack = 0; attack < ATTACKS; attack++) {
        uint64_t rejected = counters.rejected;
        int64_t deadline_ms = clock_ms() + PATIENCE_MS;
        while (counters.rejected == rejected) {
            assert_int_equal(publisher_zmq.heartbeat(feed), 0);
            assert_true(publisher_zmq.serve(feed) >= 0);
            assert_true(triage_feed_step(client, 1) >= 0);
            publisher_zmq.counters(feed, &counters);
            most = live_bytes() > most ? live_bytes() : most;
            assert_true(clock_ms() < deadline_ms);
        }
        assert_non_null(strstr(counters.rejection, "other topics"));
        publish_drawn(feed, (uint64_t)attack, &draws, QUEUE_ENTRIES, &queue);
        converge(feed, NULL, client, &queue);
    }
    kill(attacker, SIGKILL);
    assert_int_equal(waitpid(attacker, NULL, 0), attacker);
    print_message("%d attacks; memory grew by %.1f MiB at most\n", ATTACKS, (double)(most - before) / (1 << 20));
    assert_true(most - before < (size_t)64 << 20); /* the ring and the queues of the two who follow included */
    triage_feed_close(client);
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
    feed_encode_snapshot_request(&request, 0, UINT64_MAX);
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
    struct triage_feed *client;
    struct publisher_counters counters = {0};
    struct text request = text_new(1000);
    feed_encode_snapshot_request(&request, 0, 0);
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
    assert_int_equal(
        triage_feed_open(&(struct triage_feed_options){publish_endpoint, snapshot_endpoint, NULL, NULL}, &client), 0);
    converge(feed, NULL, client, &queue);
    triage_feed_close(client);
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
    struct triage_feed *client;
    assert_int_equal(publisher_zmq.open(&options, &feed), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "not encrypted"));
    options.publish_endpoint = publish_endpoint;
    options.snapshot_endpoint = "tcp://*:5572";
    assert_int_equal(publisher_zmq.open(&options, &feed), ERROR_INPUT);
    assert_int_equal(
        triage_feed_open(&(struct triage_feed_options){"tcp://10.0.0.1:5571", snapshot_endpoint, NULL, NULL}, &client),
        ERROR_INPUT);
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
        cmocka_unit_test(test_through_a_lossy_proxy),
        cmocka_unit_test(test_a_forced_gap),
        cmocka_unit_test(test_leftovers_are_silence),
        cmocka_unit_test(test_a_slow_subscriber),
        cmocka_unit_test(test_many_subscribers),
        cmocka_unit_test(test_publishing_is_the_same_whoever_listens),
        cmocka_unit_test(test_hostile_subscriptions),
        cmocka_unit_test(test_hostile_requests),
        cmocka_unit_test(test_an_asker_that_does_not_read),
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_record),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
