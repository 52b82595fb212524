/* See feed_client.h. */
#include "connectors/feed_client.h"
#include "base/clock.h"
#include "base/error.h"
#include "connectors/feed_message.h"
#include "connectors/zmq_socket.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES_PER_STEP    256
#define MESSAGES_WAITING_MAX 2000 /* more than one republication of the largest queue */
#define REQUESTS_WAITING_MAX 4

struct feed_client {
    struct feed_follower *follower;
    struct socket *topic, *requests;
    struct text request;  /* the one that is out, empty if none */
    int64_t requested_ms; /* when it was sent */
    int64_t heard_ms;     /* when anything last came */
    uint64_t to_lose;
};

int feed_client_open(const char *publish_endpoint, const char *snapshot_endpoint, struct feed_client **ret_client)
{
    struct socket_options topic = {.kind = SOCKET_SUB,
                                   .endpoint = publish_endpoint,
                                   .topic = FEED_TOPIC,
                                   .send_limit = 1,
                                   .receive_limit = MESSAGES_WAITING_MAX,
                                   .message_limit = FEED_BODY_BYTES_MAX};
    struct socket_options requests = {.kind = SOCKET_DEALER,
                                      .endpoint = snapshot_endpoint,
                                      .send_limit = REQUESTS_WAITING_MAX,
                                      .receive_limit = REQUESTS_WAITING_MAX,
                                      .message_limit = FEED_BODY_BYTES_MAX};
    struct feed_client *client = calloc(1, sizeof *client);
    if (!client)
        return error_set(ERROR_SYSTEM, "out of memory for a feed client");
    client->request = text_new(FEED_REQUEST_BYTES);
    client->heard_ms = clock_ms();
    int result = feed_follower_new(PUBLISHER_QUEUE_LIMIT, &client->follower);
    if (!result)
        result = socket_open(&topic, &client->topic); /* first: what happens during the snapshot then waits here */
    if (!result)
        result = socket_open(&requests, &client->requests);
    if (result) {
        feed_client_close(client);
        return result;
    }
    *ret_client = client;
    return 0;
}

void feed_client_close(struct feed_client *client)
{
    if (!client)
        return;
    socket_close(client->topic);
    socket_close(client->requests);
    feed_follower_free(client->follower);
    text_free(&client->request);
    free(client);
}

/* Sends what the follower wants: at once if that is new, again after the timeout if it is not. */
static int ask(struct feed_client *client)
{
    struct text wanted = text_new(FEED_REQUEST_BYTES);
    int64_t now_ms = clock_ms();
    if (now_ms - client->heard_ms > FEED_SILENCE_MS) {
        client->heard_ms = now_ms;
        feed_follower_doubt(client->follower);
    }
    feed_follower_request(client->follower, &wanted);
    int result = text_error(&wanted);
    bool is_new = wanted.length != client->request.length ||
                  (wanted.length && memcmp(wanted.bytes, client->request.bytes, wanted.length) != 0);
    if (!result && wanted.length && (is_new || now_ms - client->requested_ms >= FEED_REPLY_TIMEOUT_MS)) {
        struct socket_frame frame = {wanted.bytes, wanted.length};
        result = socket_send(client->requests, &frame, 1);
        client->requested_ms = now_ms;
    }
    text_free(&client->request);
    client->request = wanted;
    return result == ERROR_LIMIT ? 0 : result; /* the publisher is away, and requests to it wait already */
}

/* Reads replies until there are none or the follower has what it wanted. */
static int take_replies(struct feed_client *client)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count, changed = 0, result;
    while ((result = socket_receive(client->requests, frames, &count)) == 1) {
        client->heard_ms = clock_ms();
        result = feed_follower_reply(client->follower, frames[0].bytes, count == 1 ? frames[0].length : 0);
        if (result < 0)
            return result;
        changed |= result;
        if ((result = ask(client)) < 0)
            return result;
    }
    return result < 0 ? result : changed;
}

/* Reads the topic, but only while nothing is missing: else the messages wait until the gap is closed. */
static int take_messages(struct feed_client *client)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count, changed = 0;
    for (int i = 0; i < MESSAGES_PER_STEP && feed_follower_is_live(client->follower); i++) {
        int result = socket_receive(client->topic, frames, &count);
        if (result != 1)
            return result < 0 ? result : changed;
        client->heard_ms = clock_ms();
        if (client->to_lose) {
            client->to_lose--;
            continue;
        }
        if (frames[0].length != sizeof FEED_TOPIC - 1)
            continue; /* a topic that only begins like ours */
        result = feed_follower_message(client->follower, count == 2 ? frames[1].bytes : "",
                                       count == 2 ? frames[1].length : 0);
        if (result < 0)
            return result;
        changed |= result;
    }
    return changed;
}

static int handle(struct feed_client *client)
{
    int replies = take_replies(client);
    int messages = replies < 0 ? replies : take_messages(client);
    int asked = messages < 0 ? messages : ask(client);
    return asked < 0 ? asked : replies | messages;
}

int feed_client_step(struct feed_client *client, int timeout_ms)
{
    int64_t deadline_ms = clock_ms() + timeout_ms;
    for (;;) {
        int result = handle(client);
        int64_t left_ms = deadline_ms - clock_ms();
        if (result || left_ms <= 0)
            return result;
        struct pollfd set[2] = {
            {.fd = socket_descriptor(client->requests), .events = POLLIN},
            {.fd = socket_descriptor(client->topic),    .events = POLLIN},
        };
        bool is_live = feed_follower_is_live(client->follower);
        int wait_ms = left_ms < FEED_REPLY_TIMEOUT_MS ? (int)left_ms : FEED_REPLY_TIMEOUT_MS;
        if (poll(set, is_live ? 2 : 1, wait_ms) < 0)
            return errno == EINTR ? 0 : error_set_errno("cannot wait for the feed");
    }
}

bool feed_client_is_live(const struct feed_client *client)
{
    return feed_follower_is_live(client->follower);
}

const struct queue_entry *feed_client_entries(struct feed_client *client, size_t *ret_count)
{
    return feed_follower_entries(client->follower, ret_count);
}

void feed_client_position(const struct feed_client *client, const char **ret_epoch, uint64_t *ret_seq)
{
    feed_follower_position(client->follower, ret_epoch, ret_seq);
}

void feed_client_ranking(const struct feed_client *client, uint64_t *ret_cycle, uint32_t *ret_model)
{
    feed_follower_ranking(client->follower, ret_cycle, ret_model);
}

void feed_client_counters(const struct feed_client *client, struct feed_follower_counters *ret_counters)
{
    feed_follower_counters(client->follower, ret_counters);
}

void feed_client_lose(struct feed_client *client, uint64_t count)
{
    client->to_lose = count;
}
