/* See channel.h. */
#include "connectors/channel.h"
#include "base/clock.h"
#include "base/error.h"
#include "connectors/zmq_socket.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MESSAGES_WAITING_MAX 64
#define STAMP_BYTES          8
#define PEER_BYTES_MAX       255 /* the longest name ZeroMQ gives or takes */

struct channel {
    struct socket *socket;
    bool binds;
    unsigned char stamp[STAMP_BYTES]; /* ours when connecting, the peer's when binding; compares as a number */
    unsigned char peer[PEER_BYTES_MAX];
    size_t peer_length; /* 0 until a peer has spoken */
    uint64_t generation;
};

static int open_channel(const char *endpoint, enum socket_kind kind, struct channel **ret_channel)
{
    struct channel *channel = calloc(1, sizeof *channel);
    if (!channel)
        return error_set(ERROR_SYSTEM, "out of memory for a channel");
    struct socket_options options = {.kind = kind,
                                     .endpoint = endpoint,
                                     .send_limit = MESSAGES_WAITING_MAX,
                                     .receive_limit = MESSAGES_WAITING_MAX,
                                     .message_limit = CHANNEL_BYTES_MAX};
    int result = socket_open(&options, &channel->socket);
    if (result) {
        free(channel);
        return result;
    }
    channel->binds = kind == SOCKET_ROUTER;
    *ret_channel = channel;
    return 0;
}

int channel_bind(const char *endpoint, struct channel **ret_channel)
{
    return open_channel(endpoint, SOCKET_ROUTER, ret_channel);
}

int channel_connect(const char *endpoint, struct channel **ret_channel)
{
    struct timespec now;
    int result = open_channel(endpoint, SOCKET_DEALER, ret_channel);
    if (result)
        return result;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t stamp_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    for (int i = 0; i < STAMP_BYTES; i++)
        (*ret_channel)->stamp[i] = (unsigned char)(stamp_ns >> (8 * (STAMP_BYTES - 1 - i)));
    return 0;
}

void channel_close(struct channel *channel)
{
    if (channel)
        socket_close(channel->socket);
    free(channel);
}

int channel_send(struct channel *channel, const void *body, size_t length)
{
    if (length > CHANNEL_BYTES_MAX)
        return error_set(ERROR_LIMIT, "a message of %zu bytes is longer than the limit of %zu", length,
                         CHANNEL_BYTES_MAX);
    if (channel->binds && !channel->peer_length)
        return error_set(ERROR_UNAVAILABLE, "no peer is connected yet: try again later");
    struct socket_frame frames[2] = {
        {channel->stamp, STAMP_BYTES},
        {body,           length     }
    };
    if (channel->binds)
        frames[0] = (struct socket_frame){channel->peer, channel->peer_length};
    return socket_send(channel->socket, frames, 2);
}

/* 1 for a message of the present peer or a newer one, which takes its place; 0 for one of a former peer. */
static int accept_peer(struct channel *channel, const struct socket_frame *peer, const struct socket_frame *stamp)
{
    if (stamp->length != STAMP_BYTES || peer->length > PEER_BYTES_MAX)
        return error_set(ERROR_INPUT, "a message on the worker's channel did not come from a worker: ignored");
    int order = channel->peer_length ? memcmp(stamp->bytes, channel->stamp, STAMP_BYTES) : 1;
    if (order < 0)
        return 0;
    if (order > 0)
        channel->generation++;
    memcpy(channel->stamp, stamp->bytes, STAMP_BYTES);
    memcpy(channel->peer, peer->bytes, peer->length); /* changes too when the same peer connects again */
    channel->peer_length = peer->length;
    return 1;
}

/* Takes the next body of the present peer; 1, 0 (none) or a negative code. */
static int take(struct channel *channel, struct socket_frame *ret_body)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count, result, wanted = channel->binds ? 3 : 1;
    do {
        result = socket_receive(channel->socket, frames, &count);
        if (result != 1)
            return result;
        if (count != wanted)
            return error_set(ERROR_INPUT, "a message on the worker's channel has %d frames, not %d: ignored", count,
                             wanted);
        result = channel->binds ? accept_peer(channel, &frames[0], &frames[1]) : 1;
    } while (result == 0);
    *ret_body = frames[wanted - 1];
    return result;
}

static int take_in_time(struct channel *channel, int timeout_ms, struct socket_frame *ret_body)
{
    int64_t deadline_ms = clock_patience_ms() + timeout_ms;
    for (;;) {
        int result = take(channel, ret_body);
        int64_t left_ms = deadline_ms - clock_patience_ms();
        if (result || timeout_ms <= 0 || left_ms <= 0)
            return result;
        struct pollfd set = {.fd = socket_descriptor(channel->socket), .events = POLLIN};
        if (poll(&set, 1, (int)left_ms) < 0)
            return errno == EINTR ? 0 : error_set_errno("cannot wait for a message");
    }
}

int channel_receive(struct channel *channel, int timeout_ms, void *buffer, size_t size, size_t *ret_length)
{
    struct socket_frame body = {0};
    int result = take_in_time(channel, timeout_ms, &body);
    if (result != 1)
        return result;
    if (body.length > size)
        return error_set(ERROR_LIMIT, "a message of %zu bytes does not fit into %zu", body.length, size);
    memcpy(buffer, body.bytes, body.length);
    *ret_length = body.length;
    return 1;
}

int channel_descriptor(const struct channel *channel)
{
    return socket_descriptor(channel->socket);
}

uint64_t channel_generation(const struct channel *channel)
{
    return channel->generation;
}
