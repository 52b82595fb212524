/* No descriptor is left: clients are turned away, one by one, by our own listeners and by libzmq's, which would abort. */
#include "daemon/accept.h"
#include "base/clock.h"
#include "base/error.h"
#include "connectors/zmq_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 30000
#define CLIENTS     5

static char folder[] = "/tmp/triage-test.XXXXXX";
static struct rlimit limit;

/* From here on no call that makes a descriptor succeeds. */
static void exhaust(void)
{
    struct rlimit none = {.rlim_max = limit.rlim_max};
    int lowest = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(lowest);
    none.rlim_cur = (rlim_t)lowest; /* those above stay open; none below is free */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(open("/dev/null", O_RDONLY | O_CLOEXEC), -1);
    assert_int_equal(errno, EMFILE);
}

static void relieve(void)
{
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static struct sockaddr_un address_of(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", folder, name);
    return address;
}

/* A client made while there were descriptors; it waits for what the other side does: bytes read, 0 at its end. */
static ssize_t connect_and_wait(int client, const char *name)
{
    char bytes[64];
    struct sockaddr_un address = address_of(name);
    struct pollfd set = {.fd = client, .events = POLLIN};
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(poll(&set, 1, PATIENCE_MS), 1);
    return read(client, bytes, sizeof bytes);
}

static void new_clients(int *client)
{
    for (int i = 0; i < CLIENTS; i++) {
        client[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(client[i] >= 0);
    }
}

static void close_clients(const int *client)
{
    for (int i = 0; i < CLIENTS; i++)
        close(client[i]);
}

static void nobody_stays_at_the_door(void **state)
{
    (void)state;
    int client[CLIENTS], listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address = address_of("plain");
    struct pollfd door = {.fd = listener, .events = POLLIN};
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, CLIENTS), 0);
    new_clients(client);
    long before = accept_turned_away();
    exhaust();
    for (int i = 0; i + 1 < CLIENTS; i++)
        assert_int_equal(connect(client[i], (struct sockaddr *)&address, sizeof address), 0);
    for (int i = 0; i + 1 < CLIENTS; i++) {
        assert_int_equal(poll(&door, 1, PATIENCE_MS), 1);
        assert_int_equal(accept4(listener, NULL, NULL, SOCK_CLOEXEC), -1);
        assert_int_equal(errno, ECONNABORTED);
    }
    assert_int_equal(poll(&door, 1, 0), 0); /* a loop over this listener has nothing to turn for */
    assert_int_equal(accept_turned_away(), before + CLIENTS - 1);
    assert_int_equal(accept4(listener, NULL, NULL, SOCK_CLOEXEC), -1); /* nobody there is still nobody there */
    assert_int_equal(errno, EAGAIN);
    relieve();
    for (int i = 0; i + 1 < CLIENTS; i++) {
        char byte;
        assert_int_equal(read(client[i], &byte, 1), 0);
    }
    assert_int_equal(connect(client[CLIENTS - 1], (struct sockaddr *)&address, sizeof address), 0);
    int taken = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(taken >= 0);
    assert_int_equal(fcntl(taken, F_GETFD), FD_CLOEXEC);
    close(taken);
    close_clients(client);
    close(listener);
}

static void libzmq_survives(void **state)
{
    (void)state;
    int client[CLIENTS];
    char endpoint[128];
    struct socket *router;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/zmq", folder);
    struct socket_options options = {
        .kind = SOCKET_ROUTER, .endpoint = endpoint, .send_limit = 1, .receive_limit = 1, .message_limit = 100};
    assert_int_equal(socket_open(&options, &router), 0);
    new_clients(client);
    long before = accept_turned_away();
    exhaust();
    for (int i = 0; i + 1 < CLIENTS; i++)
        assert_int_equal(connect_and_wait(client[i], "zmq"), 0);
    assert_int_equal(accept_turned_away(), before + CLIENTS - 1);
    relieve();
    assert_true(connect_and_wait(client[CLIENTS - 1], "zmq") > 0); /* its greeting */
    close_clients(client);
    socket_close(router);
}

static int setup(void **state)
{
    (void)state;
    return !mkdtemp(folder) || getrlimit(RLIMIT_NOFILE, &limit) || accept_keep_spare();
}

static int teardown(void **state)
{
    (void)state;
    unlink(address_of("plain").sun_path);
    unlink(address_of("zmq").sun_path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_stays_at_the_door),
        cmocka_unit_test(libzmq_survives),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
