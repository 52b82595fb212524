/* See lossy_proxy.h. */
#include "tests/support/lossy_proxy.h"
#include "base/philox.h"
#include "connectors/feed_message.h"

#include <stdlib.h>
#include <string.h>

#define MESSAGES_WAITING_MAX 5000

int lossy_proxy_open(const char *in, const char *out, uint64_t seed, struct lossy_proxy *proxy)
{
    struct socket_options from = {.kind = SOCKET_SUB,
                                  .endpoint = in,
                                  .topic = "",
                                  .send_limit = 1,
                                  .receive_limit = MESSAGES_WAITING_MAX,
                                  .message_limit = FEED_BODY_BYTES_MAX};
    struct socket_options to = {.kind = SOCKET_PUB,
                                .endpoint = out,
                                .send_limit = MESSAGES_WAITING_MAX,
                                .receive_limit = 1,
                                .message_limit = FEED_BODY_BYTES_MAX};
    *proxy = (struct lossy_proxy){.seed = seed};
    int result = socket_open(&from, &proxy->in);
    return result ? result : socket_open(&to, &proxy->out);
}

void lossy_proxy_close(struct lossy_proxy *proxy)
{
    socket_close(proxy->in);
    socket_close(proxy->out);
    free(proxy->kept);
}

static int happens(struct lossy_proxy *proxy)
{
    return philox(proxy->seed, proxy->draws++, 0, 0, 0).word[0] % 100 < proxy->loss;
}

static void forward(struct lossy_proxy *proxy, const void *body, size_t length)
{
    struct socket_frame frames[2] = {
        {FEED_TOPIC, sizeof FEED_TOPIC - 1},
        {body,       length               }
    };
    if (socket_send(proxy->out, frames, 2))
        abort();
}

static void keep(struct lossy_proxy *proxy, const struct socket_frame *body)
{
    proxy->kept = malloc(body->length);
    if (!proxy->kept)
        abort();
    memcpy(proxy->kept, body->bytes, body->length);
    proxy->kept_length = body->length;
}

static void pass_on(struct lossy_proxy *proxy, const struct socket_frame *body)
{
    if (happens(proxy))
        return;
    if (happens(proxy) && !proxy->kept) {
        keep(proxy, body);
        return;
    }
    forward(proxy, body->bytes, body->length);
    if (happens(proxy))
        forward(proxy, body->bytes, body->length);
    if (proxy->kept)
        forward(proxy, proxy->kept, proxy->kept_length);
    free(proxy->kept);
    proxy->kept = NULL;
}

void lossy_proxy_step(struct lossy_proxy *proxy)
{
    struct socket_frame frames[SOCKET_FRAMES_MAX];
    int count;
    while (socket_receive(proxy->in, frames, &count) == 1) {
        if (count != 2 || frames[0].length != sizeof FEED_TOPIC - 1 ||
            memcmp(frames[0].bytes, FEED_TOPIC, sizeof FEED_TOPIC - 1) != 0)
            abort();
        pass_on(proxy, &frames[1]);
    }
}
