/* See lossy_proxy.h. */
#include "tests/support/lossy_proxy.h"
#include "base/philox.h"
#include "connectors/feed_message.h"

#include <stdlib.h>
#include <string.h>

#define MESSAGES_WAITING_MAX 5000
#define DELAY_STEPS          8
#define LATE_STEPS           400
#define LOST_EVERY           60

static int open_end(enum socket_kind kind, const char *endpoint, struct socket **ret_socket)
{
    struct socket_options options = {.kind = kind,
                                     .endpoint = endpoint,
                                     .topic = "",
                                     .send_limit = MESSAGES_WAITING_MAX,
                                     .receive_limit = MESSAGES_WAITING_MAX,
                                     .message_limit = FEED_BODY_BYTES_MAX};
    return socket_open(&options, ret_socket);
}

int lossy_proxy_open(const struct lossy_proxy_ends *topic, const struct lossy_proxy_ends *requests, uint64_t seed,
                     struct lossy_proxy *proxy)
{
    *proxy = (struct lossy_proxy){.seed = seed};
    int result = open_end(SOCKET_SUB, topic->daemon, &proxy->from[PROXY_TOPIC]);
    if (!result)
        result = open_end(SOCKET_XPUB, topic->subscriber, &proxy->to[PROXY_TOPIC]);
    if (!result)
        result = open_end(SOCKET_DEALER, requests->daemon, &proxy->to[PROXY_REQUEST]);
    if (!result)
        result = open_end(SOCKET_ROUTER, requests->subscriber, &proxy->from[PROXY_REQUEST]);
    proxy->from[PROXY_REPLY] = proxy->to[PROXY_REQUEST];
    proxy->to[PROXY_REPLY] = proxy->from[PROXY_REQUEST];
    return result;
}

void lossy_proxy_close(struct lossy_proxy *proxy)
{
    for (size_t i = 0; i < proxy->waiting_count; i++)
        free(proxy->waiting[i].bytes);
    for (int way = PROXY_TOPIC; way <= PROXY_REQUEST; way++) {
        socket_close(proxy->from[way]);
        socket_close(proxy->to[way]);
    }
}

static uint32_t draw(struct lossy_proxy *proxy, uint32_t below)
{
    return philox(proxy->seed, proxy->draws++, 0, 0, 0).word[0] % below;
}

static int happens(struct lossy_proxy *proxy, uint32_t percent)
{
    return draw(proxy, 100) < percent;
}

/* A peer that has gone or does not read loses it: that is what this is for. */
static void forward(struct lossy_proxy *proxy, const struct proxy_body *body)
{
    struct socket_frame frames[2] = {
        {FEED_TOPIC,  sizeof FEED_TOPIC - 1},
        {body->bytes, body->length         }
    };
    if (body->way == PROXY_REPLY)
        frames[0] = (struct socket_frame){proxy->asker, proxy->asker_length};
    int first = body->way == PROXY_REQUEST;
    socket_send(proxy->to[body->way], frames + first, 2 - first);
}

static void hold(struct lossy_proxy *proxy, enum proxy_way way, const struct socket_frame *body, uint64_t steps)
{
    if (proxy->waiting_count == PROXY_WAITING_MAX)
        return;
    struct proxy_body *held = &proxy->waiting[proxy->waiting_count++];
    *held = (struct proxy_body){.way = way, .due = proxy->step + steps, .length = body->length};
    held->bytes = malloc(body->length + !body->length);
    if (!held->bytes)
        abort();
    memcpy(held->bytes, body->bytes, body->length);
    proxy->delayed[way] += steps > 0;
}

/* Of the topic by chance. A request or reply that is lost costs a client seconds: every so many, so that some always are. */
static int loses(struct lossy_proxy *proxy, enum proxy_way way)
{
    proxy->taken[way]++;
    return way == PROXY_TOPIC ? happens(proxy, proxy->loss) : proxy->loss && proxy->taken[way] % LOST_EVERY == 0;
}

static void pass_on(struct lossy_proxy *proxy, enum proxy_way way, const struct socket_frame *body)
{
    if (loses(proxy, way)) {
        proxy->lost[way]++;
        return;
    }
    hold(proxy, way, body, happens(proxy, proxy->loss) ? 1 + draw(proxy, DELAY_STEPS) : 0);
    if (happens(proxy, proxy->loss))
        hold(proxy, way, body, draw(proxy, DELAY_STEPS));
    if (way != PROXY_TOPIC && happens(proxy, proxy->loss)) {
        hold(proxy, way, body, 1 + draw(proxy, LATE_STEPS));
        proxy->late[way]++;
    }
}

static void take(struct lossy_proxy *proxy, enum proxy_way way)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count;
    while (socket_receive(proxy->from[way], frames, &count) == 1) {
        if (count != (way == PROXY_REPLY ? 1 : 2) || (way == PROXY_REQUEST && frames[0].length > sizeof proxy->asker) ||
            (way == PROXY_TOPIC && (frames[0].length != sizeof FEED_TOPIC - 1 ||
                                    memcmp(frames[0].bytes, FEED_TOPIC, sizeof FEED_TOPIC - 1) != 0)))
            abort();
        if (way == PROXY_REQUEST) {
            memcpy(proxy->asker, frames[0].bytes, frames[0].length);
            proxy->asker_length = frames[0].length;
        }
        pass_on(proxy, way, &frames[count - 1]);
    }
}

void lossy_proxy_step(struct lossy_proxy *proxy)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count;
    size_t left = 0;
    for (int way = 0; way < PROXY_WAYS; way++)
        take(proxy, (enum proxy_way)way);
    while (socket_receive(proxy->to[PROXY_TOPIC], frames, &count) == 1)
        ; /* who subscribes to what is of no interest here */
    for (size_t i = 0; i < proxy->waiting_count; i++) {
        struct proxy_body *body = &proxy->waiting[i];
        if (body->due > proxy->step) {
            proxy->waiting[left++] = *body;
            continue;
        }
        forward(proxy, body);
        free(body->bytes);
    }
    proxy->waiting_count = left;
    proxy->step++;
}
