/*
 * Keys of the feed: files that must be refused, and over real sockets who gets in: holders of a listed key, and nobody
 * without one, with an unknown or a revoked one, with another daemon's, or without encryption.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/feed_keys.h"
#include "connectors/feed_log.h"
#include "connectors/publisher.h"
#include "connectors/zmq_gate.h"
#include "tests/support/feed_queues.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define PATIENCE_MS 30000 /* a limit for failing, not a duration */

static char folder[] = "/tmp/feed-keys-XXXXXX", keys_folder[64], publish_endpoint[64], snapshot_endpoint[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(keys_folder, sizeof keys_folder, "%s/keys", folder);
    snprintf(publish_endpoint, sizeof publish_endpoint, "ipc://%s/publish", folder);
    snprintf(snapshot_endpoint, sizeof snapshot_endpoint, "ipc://%s/snapshot", folder);
    return 0;
}

static const char *path_of(const char *name)
{
    static char path[4][128];
    static int next;
    char *into = path[next++ % 4];
    snprintf(into, sizeof path[0], "%s/%s", folder, name);
    return into;
}

static void put(const char *path, mode_t mode, const char *format, ...)
{
    char text[2000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert_int_equal(file_write(path, &(struct file_part){text, strlen(text)}, 1, mode), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void fresh(void)
{
    unlink(path_of("keys/server.key"));
    unlink(path_of("keys/clients"));
    rmdir(keys_folder);
}

static int remove_folder(void **state)
{
    (void)state;
    fresh();
    unlink(publish_endpoint + 6);
    unlink(snapshot_endpoint + 6);
    return rmdir(folder);
}

/* --- files --- */

static void test_the_daemons_pair(void **state)
{
    (void)state;
    struct socket_curve first, again, other;
    struct stat info;
    static struct feed_keys keys;
    fresh();
    assert_int_equal(feed_keys_server(keys_folder, &first), 0); /* made */
    assert_int_equal(feed_keys_server(keys_folder, &again), 0); /* kept */
    assert_string_equal(first.secret_key, again.secret_key);
    assert_int_equal(stat(path_of("keys/server.key"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(feed_keys_read(keys_folder, &keys), 0);
    assert_int_equal(keys.count, 0);

    assert_int_equal(chmod(path_of("keys/server.key"), 0640), 0);
    assert_int_equal(feed_keys_server(keys_folder, &again), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "others can read it"));
    assert_string_equal(again.secret_key, "");

    assert_int_equal(socket_curve_make(other.public_key, other.secret_key), 0);
    put(path_of("keys/server.key"), 0600, "public=%s\nsecret=%s\n", other.public_key, first.secret_key);
    assert_int_equal(feed_keys_server(keys_folder, &again), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "does not belong"));
    put(path_of("keys/server.key"), 0600, "public=%s\n", first.public_key);
    assert_int_equal(feed_keys_server(keys_folder, &again), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "lacks"));

    unlink(path_of("keys/server.key"));
    assert_int_equal(feed_keys_server(keys_folder, &again),
                     0); /* nobody was given a key: a first start was cut short */
    assert_string_not_equal(first.secret_key, again.secret_key);
    assert_int_equal(feed_keys_add(&keys, "one", FEED_SUBSCRIBER, other.public_key), 0);
    assert_int_equal(feed_keys_write(keys_folder, &keys), 0);
    unlink(path_of("keys/server.key"));
    assert_int_equal(feed_keys_server(keys_folder, &again), ERROR_INPUT); /* a new one would lock everybody out */
    assert_non_null(strstr(error_message(), "keys were given out"));
    put(path_of("keys/clients"), 0640, "[broken\n"); /* nobody knows whether keys were given out */
    assert_int_equal(feed_keys_server(keys_folder, &again), ERROR_INPUT);
    assert_int_equal(access(path_of("keys/server.key"), F_OK), -1);
    unlink(path_of("keys/clients"));
    assert_int_equal(feed_keys_server(keys_folder, &again), 0);
    unlink(path_of("keys/clients"));
    assert_int_equal(feed_keys_server(keys_folder, &again), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "the list of keys"));
}

/* Whatever is wrong with a file, the message does not quote a secret. */
static void test_bad_key_files(void **state)
{
    (void)state;
    struct socket_curve key, got;
    const char *path = "bad.key";
    assert_int_equal(socket_curve_make(key.public_key, key.secret_key), 0);
    memcpy(key.server_key, key.public_key, SOCKET_KEY_BYTES);
    const struct {
        const char *format;
    } bad[] = {
        {"public=%s\nsecret %s\nserver=%s\n"},
        {"public=%s\nsecret=%s!\nserver=%s\n"},
        {"public=%s\nsecret=%.39s\nserver=%s\n"},
        {"[%s]\nsecret=%s\nserver=%s\n"},
        {"public=%s\nsecret=%s\n"},
        {"# public=%s\nsecret=%s\nserver=%s\n"},
        {"public=%s\nsecret=\x01%s\nserver=%s\n"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put(path_of(path), 0600, bad[i].format, key.public_key, key.secret_key, key.server_key);
        assert_true(feed_keys_read_client(path_of(path), &got) < 0);
        assert_null(strstr(error_message(), key.secret_key));
        assert_null(strstr(error_message(), key.secret_key + 20));
        assert_string_equal(got.secret_key, "");
    }
    assert_int_equal(feed_keys_read_client(path_of("absent"), &got), ERROR_NOT_FOUND);
    put(path_of(path), 0644, "public=%s\nsecret=%s\nserver=%s\n", key.public_key, key.secret_key, key.server_key);
    assert_int_equal(feed_keys_read_client(path_of(path), &got), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "others can read it"));
    assert_int_equal(feed_keys_write_client(path_of(path), "n", FEED_ADMIN, &key), ERROR_STATE); /* never overwrites */
    unlink(path_of(path));
    assert_int_equal(feed_keys_write_client(path_of(path), "n", FEED_ADMIN, &key), 0);
    assert_int_equal(feed_keys_read_client(path_of(path), &got), 0);
    assert_string_equal(got.secret_key, key.secret_key);
    struct stat info;
    assert_int_equal(stat(path_of(path), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    unlink(path_of(path));
}

static void test_the_list(void **state)
{
    (void)state;
    static struct feed_keys keys, got;
    struct socket_curve pair;
    char name[FEED_NAME_BYTES];
    static const char *const bad[] = {
        "role=admin\n",
        "[a b]\n",
        "[]\n",
        "[a]\nrole=king\n",
        "[a]\npublic=short\n",
        "[a]\nrole=subscriber\n",
        "[a]\nsecret=x\n",
        "[a]\n[a]\n",
        "[0123456789012345678901234567890123456789]\n",
    };
    fresh();
    assert_int_equal(feed_keys_server(keys_folder, &pair), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put(path_of("keys/clients"), 0640, "%s", bad[i]);
        assert_true(feed_keys_read(keys_folder, &got) < 0);
        assert_non_null(strstr(error_message(), "keys/clients"));
    }
    for (int i = 0; i < FEED_KEYS_MAX; i++) {
        snprintf(name, sizeof name, "key-%d", i);
        assert_int_equal(socket_curve_make(pair.public_key, pair.secret_key), 0);
        assert_int_equal(feed_keys_add(&keys, name, (enum feed_role)(i % 3), pair.public_key), 0);
    }
    assert_int_equal(feed_keys_add(&keys, "key-7", FEED_ADMIN, pair.public_key), ERROR_STATE); /* this key is there */
    assert_int_equal(socket_curve_make(pair.public_key, pair.secret_key), 0);
    assert_int_equal(feed_keys_add(&keys, "key-7", FEED_ADMIN, pair.public_key), ERROR_STATE); /* this name is there */
    assert_int_equal(feed_keys_add(&keys, "new", FEED_ADMIN, pair.public_key), ERROR_LIMIT);
    assert_int_equal(feed_keys_add(&keys, "../x", FEED_ADMIN, pair.public_key), ERROR_INPUT);
    assert_int_equal(feed_keys_write(keys_folder, &keys), 0);
    assert_int_equal(feed_keys_read(keys_folder, &got), 0);
    assert_int_equal(got.count, FEED_KEYS_MAX);
    for (size_t i = 0; i < got.count; i++) {
        assert_string_equal(got.key[i].name, keys.key[i].name);
        assert_string_equal(got.key[i].public_key, keys.key[i].public_key);
        assert_int_equal(got.key[i].role, i % 3);
        assert_int_equal(strlen(got.key[i].made), 10);
    }
    assert_int_equal(feed_keys_remove(&got, "key-0"), 0);
    assert_int_equal(feed_keys_remove(&got, "key-0"), ERROR_NOT_FOUND);
    assert_string_equal(got.key[0].name, "key-1");
    assert_null(feed_keys_find(&got, keys.key[0].public_key));
}

/* --- sockets --- */

static struct publisher_state *feed;

static void open_secured(void)
{
    struct publisher_options options = {.publish_endpoint = publish_endpoint,
                                        .snapshot_endpoint = snapshot_endpoint,
                                        .keys_folder = keys_folder,
                                        .schema_hash = SCHEMA,
                                        .queue_limit = QUEUE_ENTRIES};
    assert_int_equal(publisher_zmq.open(&options, &feed), 0);
}

/* A key file; listed unless `role` is negative. */
static const char *give_key(const char *name, int role)
{
    static struct feed_keys keys;
    struct socket_curve key, server;
    assert_int_equal(feed_keys_server(keys_folder, &server), 0);
    assert_int_equal(socket_curve_make(key.public_key, key.secret_key), 0);
    memcpy(key.server_key, server.public_key, SOCKET_KEY_BYTES);
    assert_int_equal(feed_keys_read(keys_folder, &keys), 0);
    if (role >= 0)
        assert_int_equal(feed_keys_add(&keys, name, (enum feed_role)role, key.public_key), 0);
    assert_int_equal(feed_keys_write(keys_folder, &keys), 0);
    unlink(path_of(name));
    assert_int_equal(feed_keys_write_client(path_of(name), name, FEED_SUBSCRIBER, &key), 0);
    return path_of(name);
}

static struct triage_feed *open_client(const char *key_file, const char *name)
{
    struct triage_feed *client;
    assert_int_equal(
        triage_feed_open(&(struct triage_feed_options){publish_endpoint, snapshot_endpoint, key_file, name}, &client),
        0);
    return client;
}

static struct triage_feed_status status_of(const struct triage_feed *client)
{
    struct triage_feed_status status;
    triage_feed_status(client, &status);
    return status;
}

static struct publisher_counters counters_of(void)
{
    struct publisher_counters counters;
    publisher_zmq.counters(feed, &counters);
    return counters;
}

/* One turn of the daemon's loop, and of a client. */
static void turn(struct triage_feed *client)
{
    struct pollfd set = {.fd = publisher_zmq.descriptor(feed), .events = POLLIN};
    poll(&set, 1, 2);
    while (publisher_zmq.serve(feed) == 1)
        ;
    publisher_zmq.heartbeat(feed);
    if (client)
        assert_true(triage_feed_step(client, 2) >= 0);
}

static void follow_to_the_end(struct triage_feed *client)
{
    const char *epoch;
    uint64_t seq;
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    publisher_zmq.position(feed, &epoch, &seq);
    do {
        turn(client);
        assert_true(clock_ms() < deadline_ms);
    } while (!status_of(client).is_live || status_of(client).seq != seq);
}

/* Refused twice more, and with nothing received. */
static void is_kept_out(struct triage_feed *client, const char *reason)
{
    uint64_t before = counters_of().rejected;
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    struct triage_feed_status was = status_of(client);
    while (counters_of().rejected < before + 2 || !strstr(counters_of().rejection, reason)) {
        turn(client);
        assert_true(clock_ms() < deadline_ms);
    }
    assert_int_equal(status_of(client).messages, was.messages);
    assert_int_equal(status_of(client).snapshots, was.snapshots);
}

/* What is published arrives over the topic, encrypted: at the end of each round nobody answers requests, so no replay helps. */
static void test_the_topic_is_heard(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 13};
    const char *epoch;
    uint64_t seq;
    fresh();
    open_secured();
    struct triage_feed *client = open_client(give_key("listener", FEED_SUBSCRIBER), NULL);
    assert_int_equal(publisher_zmq.reload_keys(feed), 0);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    for (uint64_t cycle = 1;; cycle++) {
        assert_true(clock_ms() < deadline_ms);
        follow_to_the_end(client);
        publish_drawn(feed, cycle, &draws, 100, &queue);
        publisher_zmq.position(feed, &epoch, &seq);
        for (int i = 0; i < 20 && status_of(client).seq != seq; i++)
            assert_true(triage_feed_step(client, 20) >= 0);
        if (status_of(client).seq == seq)
            break;
    }
    assert_follows(client, &queue);
    triage_feed_close(client);
    publisher_zmq.close(feed);
    unlink(path_of("listener"));
}

static void test_who_gets_in(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 12};
    fresh();
    open_secured();
    publish_drawn(feed, 1, &draws, 100, &queue);

    struct triage_feed *plain = open_client(NULL, NULL);
    is_kept_out(plain, "no encryption");
    triage_feed_close(plain);
    struct triage_feed *stranger = open_client(give_key("stranger", -1), NULL);
    is_kept_out(stranger, "unknown or revoked");

    struct socket_curve key; /* of another daemon: it looks as if ours were down, so at least it is counted */
    const char *listed = give_key("listed", FEED_CONNECTOR);
    assert_int_equal(publisher_zmq.reload_keys(feed), 0);
    assert_int_equal(feed_keys_read_client(listed, &key), 0);
    memcpy(key.server_key, key.public_key, SOCKET_KEY_BYTES);
    assert_int_equal(feed_keys_write_client(path_of("elsewhere"), "listed", FEED_SUBSCRIBER, &key), 0);
    struct triage_feed *astray = open_client(path_of("elsewhere"), NULL);
    triage_feed_close(stranger);
    is_kept_out(astray, "another server's key");
    triage_feed_close(astray);

    struct triage_feed *client = open_client(listed, "the platform");
    follow_to_the_end(client);
    assert_follows(client, &queue);
    assert_true(counters_of().accepted >= 1);
    struct feed_subscriber list[2];
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    while (publisher_zmq.subscribers(feed, list, 2) == 0) {
        turn(client);
        assert_true(clock_ms() < deadline_ms);
    }
    assert_string_equal(list[0].name, "the platform");
    assert_string_equal(list[0].key, "listed");
    assert_int_equal(list[0].role, FEED_CONNECTOR);
    triage_feed_close(client);
    publisher_zmq.close(feed);
    unlink(path_of("elsewhere"));
    unlink(path_of("listed"));
    unlink(path_of("stranger"));
}

/* A key is revoked while its holder follows: nothing more reaches it; others go on, in the same epoch, without a snapshot. */
static void test_a_revoked_key(void **state)
{
    (void)state;
    static struct test_queue queue;
    static struct feed_keys keys;
    struct draws draws = {.seed = 13};
    struct feed_subscriber list[2];
    fresh();
    struct triage_feed *good = open_client(give_key("good", FEED_SUBSCRIBER), "good");
    struct triage_feed *bad = open_client(give_key("bad", FEED_SUBSCRIBER), "bad");
    open_secured();
    publish_drawn(feed, 1, &draws, 100, &queue);
    follow_to_the_end(good);
    follow_to_the_end(bad);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    while (publisher_zmq.subscribers(feed, list, 2) < 2) {
        turn(good);
        turn(bad);
        assert_true(clock_ms() < deadline_ms);
    }
    assert_int_equal(feed_keys_read(keys_folder, &keys), 0);
    assert_int_equal(feed_keys_remove(&keys, "bad"), 0);
    assert_int_equal(feed_keys_write(keys_folder, &keys), 0);
    assert_int_equal(publisher_zmq.reload_keys(feed), 0);
    assert_int_equal(publisher_zmq.subscribers(feed, list, 2), 1);
    assert_string_equal(list[0].name, "good");
    publish_drawn(feed, 2, &draws, 100, &queue);
    follow_to_the_end(good);
    assert_follows(good, &queue);
    assert_int_equal(status_of(good).snapshots, 1);
    is_kept_out(bad, "unknown or revoked");

    give_key("late", FEED_SUBSCRIBER); /* added without a restart */
    assert_int_equal(publisher_zmq.reload_keys(feed), 0);
    struct triage_feed *late = open_client(path_of("late"), NULL);
    follow_to_the_end(late);
    assert_follows(late, &queue);

    put(path_of("keys/clients"), 0640, "[broken\n"); /* the former list stays in force */
    assert_int_equal(publisher_zmq.reload_keys(feed), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "the keys in force stay"));
    publish_drawn(feed, 3, &draws, 100, &queue);
    follow_to_the_end(late);
    assert_follows(late, &queue);
    triage_feed_close(late);
    triage_feed_close(bad);
    triage_feed_close(good);
    publisher_zmq.close(feed);
    unlink(path_of("good"));
    unlink(path_of("bad"));
    unlink(path_of("late"));
}

/* The holder of a key asks for topic upon topic: everybody is disconnected, and it alone stays out until the list is read. */
static void test_a_key_that_floods(void **state)
{
    (void)state;
    static struct test_queue queue;
    struct draws draws = {.seed = 14};
    struct socket_curve key;
    fresh();
    struct triage_feed *good = open_client(give_key("good", FEED_SUBSCRIBER), "good");
    struct triage_feed *bad = open_client(give_key("bad", FEED_SUBSCRIBER), "bad");
    open_secured();
    publish_drawn(feed, 1, &draws, 100, &queue);
    follow_to_the_end(good);
    /* the list changes, which is nobody's business before a reload */
    static struct feed_keys keys;
    assert_int_equal(feed_keys_read(keys_folder, &keys), 0);
    struct feed_key first = keys.key[0];
    keys.key[0] = keys.key[1];
    keys.key[1] = first;
    assert_int_equal(feed_keys_write(keys_folder, &keys), 0);
    assert_int_equal(feed_keys_read_client(path_of("bad"), &key), 0);
    void *context = zmq_ctx_new(), *flood = zmq_socket(context, ZMQ_SUB);
    assert_int_equal(zmq_setsockopt(flood, ZMQ_CURVE_SERVERKEY, key.server_key, SOCKET_KEY_BYTES), 0);
    assert_int_equal(zmq_setsockopt(flood, ZMQ_CURVE_PUBLICKEY, key.public_key, SOCKET_KEY_BYTES), 0);
    assert_int_equal(zmq_setsockopt(flood, ZMQ_CURVE_SECRETKEY, key.secret_key, SOCKET_KEY_BYTES), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(zmq_setsockopt(flood, ZMQ_SUBSCRIBE, &i, sizeof i), 0);
    assert_int_equal(zmq_connect(flood, publish_endpoint), 0);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    while (!strstr(counters_of().rejection, "bad: asked for 64 other topics")) {
        turn(good);
        assert_true(clock_ms() < deadline_ms);
    }
    publish_drawn(feed, 2, &draws, 100, &queue);
    follow_to_the_end(good);
    assert_follows(good, &queue);
    assert_int_equal(status_of(good).snapshots, 1);
    is_kept_out(bad, "barred");
    zmq_close(flood);
    zmq_ctx_term(context);
    assert_int_equal(publisher_zmq.reload_keys(feed), 0);
    follow_to_the_end(bad);
    assert_follows(bad, &queue);
    triage_feed_close(good);
    triage_feed_close(bad);
    publisher_zmq.close(feed);
    unlink(path_of("good"));
    unlink(path_of("bad"));
}

static int let_in(void *context, const char *public_key, char name[GATE_NAME_BYTES])
{
    (void)context;
    (void)public_key;
    snprintf(name, GATE_NAME_BYTES, "somebody");
    return 0;
}

/* More handshakes than one step answers: whoever waits for its descriptors is told to come back. */
static void test_a_gate_says_that_more_wait(void **state)
{
    (void)state;
    static const char key[32] = "any bytes are a public key here";
    struct gate *gate;
    struct gate_counters counters;
    struct socket *asker;
    assert_int_equal(gate_open(let_in, NULL, &gate), 0);
    struct socket_options options = {.kind = SOCKET_DEALER,
                                     .endpoint = "inproc://zeromq.zap.01",
                                     .send_limit = 100,
                                     .receive_limit = 100,
                                     .message_limit = 1024,
                                     .context = gate_context(gate)};
    struct socket_frame question[] = {
        {"",         0         },
        {"1.0",      3         },
        {"7",        1         },
        {"",         0         },
        {"10.0.0.1", 8         },
        {"",         0         },
        {"CURVE",    5         },
        {key,        sizeof key}
    };
    assert_int_equal(socket_open(&options, &asker), 0);
    for (int i = 0; i < 70; i++)
        assert_int_equal(socket_send(asker, question, 8), 0);
    assert_int_equal(gate_step(gate), 1);
    gate_counters(gate, &counters);
    assert_int_equal(counters.accepted, 64);
    assert_int_equal(gate_step(gate), 0);
    gate_counters(gate, &counters);
    assert_int_equal(counters.accepted, 70);
    socket_drop(asker);
    gate_close(gate);
}

/* A key is revoked, but the sockets cannot be opened again: it is said that the new list counts and nobody is served, and
 * the next heartbeat after the mend serves everybody but the revoked one. */
static void test_a_feed_that_does_not_open_again(void **state)
{
    (void)state;
    static struct test_queue queue;
    static struct feed_keys keys;
    struct draws draws = {.seed = 14};
    fresh();
    struct triage_feed *good = open_client(give_key("good", FEED_SUBSCRIBER), NULL);
    struct triage_feed *bad = open_client(give_key("bad", FEED_SUBSCRIBER), NULL);
    open_secured();
    publish_drawn(feed, 1, &draws, 100, &queue);
    follow_to_the_end(good);
    assert_int_equal(feed_keys_read(keys_folder, &keys), 0);
    assert_int_equal(feed_keys_remove(&keys, "bad"), 0);
    assert_int_equal(feed_keys_write(keys_folder, &keys), 0);
    assert_int_equal(chmod(path_of("keys/server.key"), 0604), 0);
    assert_int_equal(publisher_zmq.reload_keys(feed), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "the new keys are in force, but the feed is closed"));
    assert_non_null(strstr(error_message(), "server.key"));
    assert_null(strstr(error_message(), "stay"));
    assert_int_equal(publisher_zmq.heartbeat(feed), ERROR_INPUT);
    assert_int_equal(chmod(path_of("keys/server.key"), 0600), 0);
    assert_int_equal(publisher_zmq.heartbeat(feed), 0);
    publish_drawn(feed, 2, &draws, 100, &queue);
    follow_to_the_end(good);
    assert_follows(good, &queue);
    is_kept_out(bad, "unknown or revoked");
    triage_feed_close(bad);
    triage_feed_close(good);
    publisher_zmq.close(feed);
    unlink(path_of("good"));
    unlink(path_of("bad"));
}

/* Peers that leave at any moment of the handshake, in particular while the daemon is asked about their key; and bytes that
 * are no handshake at all. Nothing of it hurts the daemon, and a good one is served afterwards. */
static void test_peers_that_leave_in_the_middle(void **state)
{
    (void)state;
    struct draws draws = {.seed = 21};
    static const char *const garbage[] = {"", "GET / HTTP/1.1\r\n\r\n", "\xff\0\0\0\0\0\0\0\1\x7f\3\0CURVE", "\xff"};
    fresh();
    const char *good = give_key("good", FEED_SUBSCRIBER), *bad = give_key("bad", -1);
    open_secured();
    for (int i = 0; i < 150; i++) {
        struct triage_feed *client = open_client(draw(&draws, 2) ? good : bad, NULL);
        int moments = (int)draw(&draws, 6);
        for (int k = 0; k < moments; k++) {
            poll(NULL, 0, (int)draw(&draws, 3));
            if (draw(&draws, 3) == 0)
                turn(NULL);
            triage_feed_step(client, 0);
        }
        triage_feed_close(client);
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s",
                 (draw(&draws, 2) ? publish_endpoint : snapshot_endpoint) + 6);
        int raw = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(raw, (struct sockaddr *)&address, sizeof address), 0);
        const char *bytes = garbage[i % 4];
        assert_true(send(raw, bytes, i % 4 == 2 ? 18 : strlen(bytes), MSG_NOSIGNAL) >= 0);
        if (draw(&draws, 2))
            turn(NULL);
        close(raw);
    }
    struct triage_feed *client = open_client(good, NULL);
    follow_to_the_end(client);
    assert_true(counters_of().rejected > 10);
    triage_feed_close(client);
    publisher_zmq.close(feed);
    unlink(path_of("good"));
    unlink(path_of("bad"));
}

/* Nothing between encrypted and asked-for plaintext is opened. */
static void test_half_secured_is_refused(void **state)
{
    (void)state;
    struct publisher_options options = {.publish_endpoint = "tcp://0.0.0.0:0",
                                        .snapshot_endpoint = snapshot_endpoint,
                                        .schema_hash = SCHEMA,
                                        .queue_limit = 10};
    struct publisher_state *state_of_feed;
    struct triage_feed *client;
    assert_int_equal(publisher_zmq.open(&options, &state_of_feed), ERROR_INPUT); /* plaintext leaves the machine */
    assert_non_null(strstr(error_message(), "not encrypted"));
    options.publish_endpoint = publish_endpoint;
    options.snapshot_endpoint = "tcp://*:0";
    assert_int_equal(publisher_zmq.open(&options, &state_of_feed), ERROR_INPUT);
    fresh();
    struct socket_curve pair;
    assert_int_equal(feed_keys_server(keys_folder, &pair), 0);
    assert_int_equal(chmod(path_of("keys/server.key"), 0604), 0);
    options.keys_folder = keys_folder;
    options.snapshot_endpoint = snapshot_endpoint;
    assert_int_equal(publisher_zmq.open(&options, &state_of_feed), ERROR_INPUT);
    assert_int_equal(chmod(path_of("keys/server.key"), 0600), 0);
    unlink(path_of("keys/clients"));
    assert_int_equal(publisher_zmq.open(&options, &state_of_feed), ERROR_INPUT);
    struct triage_feed_options far = {"tcp://10.0.0.1:5571", snapshot_endpoint, NULL, NULL};
    assert_true(triage_feed_open(&far, &client) < 0);
    assert_non_null(strstr(triage_feed_error(), "not encrypted"));
    far.key_file = path_of("absent");
    assert_true(triage_feed_open(&far, &client) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_daemons_pair),
        cmocka_unit_test(test_bad_key_files),
        cmocka_unit_test(test_the_list),
        cmocka_unit_test(test_the_topic_is_heard),
        cmocka_unit_test(test_who_gets_in),
        cmocka_unit_test(test_a_revoked_key),
        cmocka_unit_test(test_a_key_that_floods),
        cmocka_unit_test(test_a_gate_says_that_more_wait),
        cmocka_unit_test(test_a_feed_that_does_not_open_again),
        cmocka_unit_test(test_peers_that_leave_in_the_middle),
        cmocka_unit_test(test_half_secured_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
