/* connectors/channel: bodies arrive whole, and a killed worker leaves nothing behind for the next one. */
#include "base/clock.h"
#include "base/error.h"
#include "connectors/channel.h"

#include <fcntl.h>
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

#include <cmocka.h>

#define PATIENCE_MS 20000 /* a limit for failing, not a duration */

static char folder[] = "/tmp/channel-test-XXXXXX", endpoint[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/socket", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(endpoint + 6);
    return rmdir(folder);
}

static void expect(struct channel *channel, const char *body)
{
    char buffer[100];
    size_t length = 0;
    assert_int_equal(channel_receive(channel, PATIENCE_MS, buffer, sizeof buffer, &length), 1);
    assert_int_equal(length, strlen(body));
    assert_memory_equal(buffer, body, length);
}

static void test_both_directions(void **state)
{
    (void)state;
    struct channel *daemon, *worker;
    char buffer[8];
    size_t length = 99;
    assert_int_equal(channel_bind(endpoint, &daemon), 0);
    assert_int_equal(channel_send(daemon, "early", 5), ERROR_UNAVAILABLE);
    assert_int_equal(channel_connect(endpoint, &worker), 0);
    assert_int_equal(channel_receive(worker, 0, buffer, sizeof buffer, &length), 0);
    assert_int_equal(length, 99);
    assert_int_equal(channel_send(worker, "hello", 5), 0);
    expect(daemon, "hello");
    assert_int_equal(channel_generation(daemon), 1);
    assert_int_equal(channel_send(daemon, "job 1", 5), 0);
    assert_int_equal(channel_send(daemon, "", 0), 0);
    assert_int_equal(channel_send(daemon, "a longer job", 12), 0);
    assert_int_equal(channel_send(daemon, "last", 4), 0);
    expect(worker, "job 1");
    expect(worker, "");
    assert_int_equal(channel_receive(worker, PATIENCE_MS, buffer, sizeof buffer, &length), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "12 bytes"));
    expect(worker, "last"); /* the one that did not fit cost nothing else */
    channel_close(worker);
    channel_close(daemon);
}

static void test_largest_message(void **state)
{
    (void)state;
    struct channel *daemon, *worker;
    unsigned char *sent = malloc(CHANNEL_BYTES_MAX + 1), *got = malloc(CHANNEL_BYTES_MAX);
    size_t length;
    assert_non_null(sent);
    assert_non_null(got);
    for (size_t i = 0; i <= CHANNEL_BYTES_MAX; i++)
        sent[i] = (unsigned char)(i * 2654435761u >> 13);
    assert_int_equal(channel_bind(endpoint, &daemon), 0);
    assert_int_equal(channel_connect(endpoint, &worker), 0);
    assert_int_equal(channel_send(worker, sent, CHANNEL_BYTES_MAX + 1), ERROR_LIMIT);
    assert_int_equal(channel_send(worker, sent, CHANNEL_BYTES_MAX), 0);
    assert_int_equal(channel_receive(daemon, PATIENCE_MS, got, CHANNEL_BYTES_MAX, &length), 1);
    assert_int_equal(length, CHANNEL_BYTES_MAX);
    assert_memory_equal(sent, got, length);
    channel_close(worker);
    channel_close(daemon);
    free(sent);
    free(got);
}

/* A plain poll() on the descriptor must not miss messages that were left unread, one by one. */
static void test_descriptor_stays_readable(void **state)
{
    (void)state;
    struct channel *daemon, *worker;
    char buffer[8];
    size_t length;
    assert_int_equal(channel_bind(endpoint, &daemon), 0);
    assert_int_equal(channel_connect(endpoint, &worker), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(channel_send(worker, &i, sizeof i), 0);
    struct pollfd set = {.fd = channel_descriptor(daemon), .events = POLLIN};
    for (int taken = 0; taken < 10;) {
        assert_int_equal(poll(&set, 1, PATIENCE_MS), 1);
        int result = channel_receive(daemon, 0, buffer, sizeof buffer, &length);
        assert_true(result >= 0);
        if (result)
            assert_int_equal(buffer[0], taken);
        taken += result;
    }
    assert_int_equal(channel_receive(daemon, 0, buffer, sizeof buffer, &length), 0);
    assert_int_equal(poll(&set, 1, 0), 0); /* and rests when there is nothing */
    channel_close(worker);
    channel_close(daemon);
}

static void test_a_peer_that_does_not_read(void **state)
{
    (void)state;
    struct channel *daemon, *worker;
    static char body[100000];
    int sent = 0, result;
    assert_int_equal(channel_bind(endpoint, &daemon), 0);
    assert_int_equal(channel_connect(endpoint, &worker), 0);
    assert_int_equal(channel_send(worker, "hello", 5), 0);
    expect(daemon, "hello");
    while ((result = channel_send(daemon, body, sizeof body)) == 0)
        assert_true(++sent < 1000);
    assert_int_equal(result, ERROR_LIMIT);
    assert_true(sent >= 64);
    channel_close(worker);
    channel_close(daemon);
}

/* --- workers that die --- */

/* A worker process: says hello, then repeats what it is told, and never ends by itself. */
static pid_t start_worker(char name)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    struct channel *channel;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char text[16], hello[8];
    size_t length;
    int count = snprintf(hello, sizeof hello, "hello %c", name);
    if (channel_connect(endpoint, &channel) || channel_send(channel, hello, (size_t)count))
        _exit(1);
    for (;;)
        if (channel_receive(channel, PATIENCE_MS, text, sizeof text - 1, &length) == 1) {
            text[length++] = name;
            channel_send(channel, text, length);
        }
}

static void kill_worker(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void test_a_killed_worker_is_replaced(void **state)
{
    (void)state;
    struct channel *daemon;
    assert_int_equal(channel_bind(endpoint, &daemon), 0);
    for (int round = 0; round < 8; round++) {
        char hello[8], answer[8], name = (char)('a' + round);
        pid_t pid = start_worker(name);
        assert_true(pid > 0);
        snprintf(hello, sizeof hello, "hello %c", name);
        snprintf(answer, sizeof answer, "job%c", name);
        expect(daemon, hello);
        assert_int_equal(channel_generation(daemon), round + 1);
        assert_int_equal(channel_send(daemon, "job", 3), 0);
        expect(daemon, answer);
        if (round & 1) { /* stopped, so that it cannot take them, then killed with jobs on their way */
            kill(pid, SIGSTOP);
            for (int i = 0; i < 20; i++)
                assert_int_equal(channel_send(daemon, "stale", 5), 0);
        }
        kill_worker(pid);
    }
    /* The death is noticed: sending ends with "gone", not with success or a full queue. */
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    int result;
    char buffer[16];
    size_t length;
    while ((result = channel_send(daemon, "late", 4)) != ERROR_UNAVAILABLE && clock_ms() < deadline_ms)
        channel_receive(daemon, 1, buffer, sizeof buffer, &length);
    assert_int_equal(result, ERROR_UNAVAILABLE);
    channel_close(daemon);
}

/* Leftovers of the first worker are still unread when the second one speaks. */
static void test_leftovers_of_a_former_worker(void **state)
{
    (void)state;
    struct channel *daemon, *first, *second;
    char buffer[16];
    size_t length;
    assert_int_equal(channel_bind(endpoint, &daemon), 0);
    assert_int_equal(channel_connect(endpoint, &first), 0);
    assert_int_equal(channel_connect(endpoint, &second), 0);
    assert_int_equal(channel_send(second, "second", 6), 0);
    expect(daemon, "second");
    for (int i = 0; i < 30; i++)
        assert_int_equal(channel_send(first, "leftover", 8), 0);
    assert_int_equal(channel_send(second, "again", 5), 0);
    expect(daemon, "again");
    while (channel_receive(daemon, 200, buffer, sizeof buffer, &length) != 0)
        fail_msg("received '%.*s' of a former worker", (int)length, buffer);
    assert_int_equal(channel_send(daemon, "for second", 10), 0);
    expect(second, "for second");
    assert_int_equal(channel_receive(first, 0, buffer, sizeof buffer, &length), 0);
    assert_int_equal(channel_generation(daemon), 1);
    channel_close(first);
    channel_close(second);
    channel_close(daemon);
}

/* The worker stays, the daemon's end is closed and bound again: the next message makes the worker known. */
static void test_the_binding_side_starts_again(void **state)
{
    (void)state;
    struct channel *daemon, *worker;
    assert_int_equal(channel_bind(endpoint, &daemon), 0);
    assert_int_equal(channel_connect(endpoint, &worker), 0);
    assert_int_equal(channel_send(worker, "one", 3), 0);
    expect(daemon, "one");
    channel_close(daemon);
    assert_int_equal(channel_bind(endpoint, &daemon), 0);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    int result = 0;
    while (result != 1 && clock_ms() < deadline_ms) { /* what is sent while the other end is away may be lost */
        char buffer[8];
        size_t length;
        channel_send(worker, "two", 3);
        result = channel_receive(daemon, 100, buffer, sizeof buffer, &length);
    }
    assert_int_equal(result, 1);
    assert_int_equal(channel_send(daemon, "three", 5), 0);
    expect(worker, "three");
    channel_close(worker);
    channel_close(daemon);
}

static void test_endpoints(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "tcp://0.0.0.0:5573",
        "tcp://*:5573",
        "tcp://192.168.1.2:5573",
        "tcp://127.0.0.1.example.org:5573",
        "tcp://[::]:5573",
        "tcp://eth0:5573",
        "tcp://127.0.0.1",
        "pgm://127.0.0.1:5573",
        "ipc://",
        "",
        "tcp://example.org;127.0.0.1:5573",
        "tcp://localhost:5573",
    };
    struct channel *channel;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_int_equal(channel_bind(refused[i], &channel), ERROR_INPUT);
        assert_int_equal(channel_connect(refused[i], &channel), ERROR_INPUT);
        assert_non_null(strstr(error_message(), "ipc://PATH"));
    }
    assert_int_equal(channel_bind("ipc:///proc/nowhere/socket", &channel), ERROR_SYSTEM);
    assert_int_equal(channel_bind("tcp://127.0.0.1:*", &channel), 0);
    channel_close(channel);
    channel_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_directions),
        cmocka_unit_test(test_largest_message),
        cmocka_unit_test(test_descriptor_stays_readable),
        cmocka_unit_test(test_a_peer_that_does_not_read),
        cmocka_unit_test(test_a_killed_worker_is_replaced),
        cmocka_unit_test(test_leftovers_of_a_former_worker),
        cmocka_unit_test(test_the_binding_side_starts_again),
        cmocka_unit_test(test_endpoints),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
