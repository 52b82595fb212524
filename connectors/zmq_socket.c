/* See zmq_socket.h. */
#include "connectors/zmq_socket.h"
#include "base/error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93 /* the library has it, its header calls it a draft */
#endif

#define LINGER_MS        500
#define RECONNECT_MS     50
#define RECONNECT_MAX_MS 2000
#define HANDSHAKE_MS     10000
#define KEEPALIVE_IDLE_S                                                                                               \
    30 /* a host that has gone is noticed by TCP; ZeroMQ's own heartbeats abort 4.3.4 when a peer is slow */
#define KEEPALIVE_COUNT 3
#define UNSENT_MAX_MS   60000
#define SOCKET_DOMAIN   "triage-feed" /* of ZAP; without one ZeroMQ asks nobody */

struct socket_context {
    void *zmq;
};

struct socket {
    struct socket_context *context;
    bool owns_context;
    void *zmq;
    enum socket_kind kind;
    int descriptor; /* epoll over ZeroMQ's descriptor and `ready` */
    int ready;      /* eventfd, set while messages are known to wait */
    bool is_ready;
    zmq_msg_t frames[SOCKET_FRAMES_MAX];
};

static int fail(const char *what, const char *endpoint)
{
    return error_set(ERROR_SYSTEM, "cannot %s %s: %s", what, endpoint, zmq_strerror(zmq_errno()));
}

/* --- which endpoints are local --- */

static bool is_loopback(const char *host, size_t length)
{
    char text[INET6_ADDRSTRLEN];
    struct in_addr four;
    struct in6_addr six;
    if (length >= sizeof text)
        return false;
    memcpy(text, host, length);
    text[length] = 0;
    if (inet_pton(AF_INET, text, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    if (length > 2 && text[0] == '[' && text[length - 1] == ']') {
        text[length - 1] = 0;
        return inet_pton(AF_INET6, text + 1, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
    }
    return false;
}

static int check_endpoint(const char *endpoint, bool is_encrypted)
{
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "inproc://", 9) == 0)
        return 0;
    if (strncmp(endpoint, "ipc://", 6) == 0 && endpoint[6])
        return 0;
    if (strncmp(endpoint, "tcp://", 6) != 0 || !colon || colon < endpoint + 6)
        return error_set(ERROR_INPUT, "endpoint '%.100s' is malformed: use tcp://127.0.0.1:PORT or ipc://PATH",
                         endpoint);
    if (!is_encrypted && !is_loopback(endpoint + 6, (size_t)(colon - endpoint - 6)))
        return error_set(ERROR_INPUT,
                         "endpoint '%.100s' leaves this machine, and the traffic is not encrypted: use "
                         "tcp://127.0.0.1:PORT or ipc://PATH, or keys",
                         endpoint);
    return 0;
}

/* --- opening and closing --- */

static int set_options(struct socket *socket, const struct socket_options *options)
{
    int64_t message_limit = (int64_t)options->message_limit;
    const struct socket_curve *curve = options->curve;
    int linger_ms = curve ? 0 : LINGER_MS, handshake_ms = HANDSHAKE_MS;
    int idle_s = KEEPALIVE_IDLE_S, count = KEEPALIVE_COUNT, unsent_ms = UNSENT_MAX_MS, on = 1,
        reconnect_ms = RECONNECT_MS, reconnect_max_ms = RECONNECT_MAX_MS;
    bool six = strchr(options->endpoint, '[') != NULL, router = options->kind == SOCKET_ROUTER;
    bool sub = options->kind == SOCKET_SUB, pub = options->kind == SOCKET_XPUB, server = curve && (pub || router);
    bool client = curve && !server;
    const struct {
        int name;
        const void *value;
        size_t size;
        bool wanted;
    } settings[] = {
        {ZMQ_LINGER,              &linger_ms,                       sizeof linger_ms,                 true  },
        {ZMQ_SNDHWM,              &options->send_limit,             sizeof options->send_limit,       true  },
        {ZMQ_RCVHWM,              &options->receive_limit,          sizeof options->receive_limit,    true  },
        {ZMQ_MAXMSGSIZE,          &message_limit,                   sizeof message_limit,             true  },
        {ZMQ_RECONNECT_IVL,       &reconnect_ms,                    sizeof reconnect_ms,              true  },
        {ZMQ_RECONNECT_IVL_MAX,   &reconnect_max_ms,                sizeof reconnect_max_ms,          true  },
        {ZMQ_IPV6,                &on,                              sizeof on,                        six   },
        {ZMQ_ROUTER_MANDATORY,    &on,                              sizeof on,                        router},
        {ZMQ_SUBSCRIBE,           options->topic,                   sub ? strlen(options->topic) : 0, sub   },
        {ZMQ_TCP_KEEPALIVE,       &on,                              sizeof on,                        true  },
        {ZMQ_TCP_KEEPALIVE_IDLE,  &idle_s,                          sizeof idle_s,                    true  },
        {ZMQ_TCP_KEEPALIVE_INTVL, &idle_s,                          sizeof idle_s,                    true  },
        {ZMQ_TCP_KEEPALIVE_CNT,   &count,                           sizeof count,                     true  },
        {ZMQ_TCP_MAXRT,           &unsent_ms,                       sizeof unsent_ms,                 true  },
        {ZMQ_HANDSHAKE_IVL,       &handshake_ms,                    sizeof handshake_ms,              server},
        {ZMQ_CURVE_SERVER,        &on,                              sizeof on,                        server},
        {ZMQ_ZAP_DOMAIN,          SOCKET_DOMAIN,                    sizeof SOCKET_DOMAIN - 1,         server},
        {ZMQ_ZAP_ENFORCE_DOMAIN,  &on,                              sizeof on,                        server},
        {ZMQ_CURVE_SECRETKEY,     curve ? curve->secret_key : NULL, SOCKET_KEY_BYTES,                 curve },
        {ZMQ_CURVE_PUBLICKEY,     curve ? curve->public_key : NULL, SOCKET_KEY_BYTES,                 client},
        {ZMQ_CURVE_SERVERKEY,     curve ? curve->server_key : NULL, SOCKET_KEY_BYTES,                 client},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (settings[i].wanted && zmq_setsockopt(socket->zmq, settings[i].name, settings[i].value, settings[i].size))
            return fail("set up", options->endpoint);
    return 0;
}

static int watch(struct socket *socket)
{
    int zmq_descriptor;
    size_t size = sizeof zmq_descriptor;
    struct epoll_event event = {.events = EPOLLIN};
    socket->descriptor = epoll_create1(EPOLL_CLOEXEC);
    socket->ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (socket->descriptor < 0 || socket->ready < 0 || zmq_getsockopt(socket->zmq, ZMQ_FD, &zmq_descriptor, &size) ||
        epoll_ctl(socket->descriptor, EPOLL_CTL_ADD, zmq_descriptor, &event) ||
        epoll_ctl(socket->descriptor, EPOLL_CTL_ADD, socket->ready, &event))
        return error_set_errno("cannot watch a socket");
    return 0;
}

static int in_use(const char *endpoint)
{
    return error_set(ERROR_UNAVAILABLE, "%s is in use by another program: stop that one, or choose another endpoint",
                     endpoint);
}

/* ZeroMQ would take the path away from a program that still listens there. */
static bool is_answered(const char *endpoint)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strncmp(endpoint, "ipc://", 6) != 0 || strlen(endpoint + 6) >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, endpoint + 6, strlen(endpoint + 6));
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool answered = descriptor >= 0 && connect(descriptor, (struct sockaddr *)&address, sizeof address) == 0;
    if (descriptor >= 0)
        close(descriptor);
    return answered;
}

/* Failed handshakes are told at options->monitor. */
static int start_monitor(struct socket *socket, const struct socket_options *options)
{
    int events = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL;
    if (options->monitor && zmq_socket_monitor(socket->zmq, options->monitor, events))
        return fail("watch the handshakes of", options->endpoint);
    return 0;
}

/* What was asked for is in force: a socket that should be secured and is not must never be opened. */
static int check_mechanism(struct socket *socket, const struct socket_options *options)
{
    int mechanism = -1, is_server = 0, is_enforced = 0;
    size_t size = sizeof mechanism;
    bool should_be_server = options->curve && (options->kind == SOCKET_XPUB || options->kind == SOCKET_ROUTER);
    if (zmq_getsockopt(socket->zmq, ZMQ_MECHANISM, &mechanism, &size) ||
        zmq_getsockopt(socket->zmq, ZMQ_CURVE_SERVER, &is_server, &size) ||
        zmq_getsockopt(socket->zmq, ZMQ_ZAP_ENFORCE_DOMAIN, &is_enforced, &size) ||
        mechanism != (options->curve ? ZMQ_CURVE : ZMQ_NULL) || is_server != should_be_server ||
        is_enforced != should_be_server)
        return error_set(ERROR_STATE, "the socket for %s is not as secure as it should be: it stays closed",
                         options->endpoint);
    return 0;
}

static int start(struct socket *socket, const struct socket_options *options)
{
    static const int types[] = {ZMQ_XPUB, ZMQ_SUB, ZMQ_ROUTER, ZMQ_DEALER, ZMQ_REP, ZMQ_PAIR};
    bool binds = options->kind == SOCKET_XPUB || options->kind == SOCKET_ROUTER || options->kind == SOCKET_REP;
    socket->context = options->context;
    socket->owns_context = !options->context;
    int result = socket->context ? 0 : socket_context_new(&socket->context);
    if (result)
        return result;
    socket->zmq = zmq_socket(socket->context->zmq, types[options->kind]);
    if (!socket->zmq)
        return fail("make a socket for", options->endpoint);
    result = set_options(socket, options);
    if (!result)
        result = check_mechanism(socket, options);
    if (!result)
        result = start_monitor(socket, options);
    if (!result)
        result = watch(socket);
    if (!result && binds && is_answered(options->endpoint))
        result = in_use(options->endpoint);
    else if (!result && (binds ? zmq_bind : zmq_connect)(socket->zmq, options->endpoint))
        result = zmq_errno() == EADDRINUSE ? in_use(options->endpoint)
                                           : fail(binds ? "bind" : "connect to", options->endpoint);
    return result;
}

int socket_open(const struct socket_options *options, struct socket **ret_socket)
{
    int result = check_endpoint(options->endpoint, options->curve != NULL);
    if (result)
        return result;
    struct socket *socket = calloc(1, sizeof *socket);
    if (!socket)
        return error_set(ERROR_SYSTEM, "out of memory for a socket");
    socket->kind = options->kind;
    socket->descriptor = socket->ready = -1;
    for (int i = 0; i < SOCKET_FRAMES_MAX; i++)
        zmq_msg_init(&socket->frames[i]);
    result = start(socket, options);
    if (result) {
        socket_close(socket);
        return result;
    }
    *ret_socket = socket;
    return 0;
}

void socket_close(struct socket *socket)
{
    if (!socket)
        return;
    for (int i = 0; i < SOCKET_FRAMES_MAX; i++)
        zmq_msg_close(&socket->frames[i]);
    if (socket->descriptor >= 0)
        close(socket->descriptor);
    if (socket->ready >= 0)
        close(socket->ready);
    if (socket->zmq)
        zmq_close(socket->zmq);
    if (socket->owns_context)
        socket_context_free(socket->context);
    free(socket);
}

void socket_drop(struct socket *socket)
{
    int linger_ms = 0;
    if (socket && socket->zmq)
        zmq_setsockopt(socket->zmq, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    socket_close(socket);
}

int socket_context_new(struct socket_context **ret_context)
{
    struct socket_context *context = calloc(1, sizeof *context);
    if (context)
        context->zmq = zmq_ctx_new();
    if (!context || !context->zmq) {
        free(context);
        return error_set(ERROR_SYSTEM, "out of memory or descriptors for ZeroMQ");
    }
    *ret_context = context;
    return 0;
}

void socket_context_free(struct socket_context *context)
{
    while (context && zmq_ctx_term(context->zmq) && zmq_errno() == EINTR)
        ;
    free(context);
}

/* --- messages --- */

/* ZeroMQ forgets to signal what it has already signalled; `ready` remembers. Needed after every send and
 * receive. */
static void refresh(struct socket *socket)
{
    int events = 0;
    uint64_t one = 1;
    size_t size = sizeof events;
    zmq_getsockopt(socket->zmq, ZMQ_EVENTS, &events, &size);
    bool is_ready = events & ZMQ_POLLIN;
    if (is_ready == socket->is_ready)
        return;
    ssize_t done = is_ready ? write(socket->ready, &one, sizeof one) : read(socket->ready, &one, sizeof one);
    if (done == sizeof one)
        socket->is_ready = is_ready;
}

static int send_frame(struct socket *socket, const struct socket_frame *frame, int flags)
{
    int sent;
    do
        sent = zmq_send(socket->zmq, frame->bytes, frame->length, flags | ZMQ_DONTWAIT);
    while (sent < 0 && zmq_errno() == EINTR);
    if (sent >= 0)
        return 0;
    if (zmq_errno() == EAGAIN)
        return error_set(ERROR_LIMIT, "the peer does not read: its queue is full");
    if (zmq_errno() == EHOSTUNREACH)
        return error_set(ERROR_UNAVAILABLE, "the peer is gone");
    return error_set(ERROR_SYSTEM, "cannot send: %s", zmq_strerror(zmq_errno()));
}

int socket_send(struct socket *socket, const struct socket_frame *frames, int count)
{
    int result = 0;
    for (int i = 0; i < count && !result; i++)
        result = send_frame(socket, &frames[i], i + 1 < count ? ZMQ_SNDMORE : 0);
    refresh(socket);
    return result;
}

static int receive_frame(struct socket *socket, zmq_msg_t *frame)
{
    int got;
    do
        got = zmq_msg_recv(frame, socket->zmq, ZMQ_DONTWAIT);
    while (got < 0 && zmq_errno() == EINTR);
    if (got >= 0)
        return 1;
    return zmq_errno() == EAGAIN ? 0 : error_set(ERROR_SYSTEM, "cannot receive: %s", zmq_strerror(zmq_errno()));
}

int socket_receive(struct socket *socket, struct socket_frame *frames, int *ret_count)
{
    int count = 0, more = 1, result = 1;
    zmq_msg_t surplus;
    zmq_msg_init(&surplus);
    while (more && result == 1) {
        zmq_msg_t *frame = count < SOCKET_FRAMES_MAX ? &socket->frames[count] : &surplus;
        result = receive_frame(socket, frame);
        if (result != 1)
            break;
        if (count < SOCKET_FRAMES_MAX)
            frames[count] = (struct socket_frame){zmq_msg_data(frame), zmq_msg_size(frame)};
        more = zmq_msg_more(frame);
        count++;
    }
    zmq_msg_close(&surplus);
    refresh(socket);
    *ret_count = count;
    return result;
}

int socket_descriptor(const struct socket *socket)
{
    return socket->descriptor;
}

const char *socket_user(struct socket *socket)
{
    const char *user = zmq_msg_gets(&socket->frames[0], "User-Id");
    return user ? user : "";
}

/* --- keys --- */

static int no_curve(void)
{
    return error_set(ERROR_STATE, "the ZeroMQ library of this system knows no encryption (CURVE)");
}

int socket_curve_make(char public_key[SOCKET_KEY_BYTES], char secret_key[SOCKET_KEY_BYTES])
{
    return zmq_curve_keypair(public_key, secret_key) ? no_curve() : 0;
}

int socket_curve_check(const char *key)
{
    unsigned char bytes[32];
    if (strlen(key) != SOCKET_KEY_BYTES - 1 || !zmq_z85_decode(bytes, key))
        return error_set(ERROR_INPUT, "a key has %d characters of Z85", SOCKET_KEY_BYTES - 1);
    explicit_bzero(bytes, sizeof bytes);
    return 0;
}

int socket_curve_public(const char *secret_key, char public_key[SOCKET_KEY_BYTES])
{
    int result = socket_curve_check(secret_key);
    if (result)
        return result;
    return zmq_curve_public(public_key, secret_key) ? no_curve() : 0;
}

void socket_curve_text(const void *bytes, char key[SOCKET_KEY_BYTES])
{
    zmq_z85_encode(key, bytes, 32);
}
