/*
 * Who follows the feed and how far behind each is, from the acks they send. Only for operators to see: nothing waits for
 * an ack, and a subscriber that sends none is served like the others. Bounded: FEED_SUBSCRIBERS_MAX rows, and a row ends
 * when its subscriber has been silent for a minute. Of the rows of one connector's key the one heard last stays, as somebody
 * should look after it; the others end, as peers choose their names and may come back under a new one each time.
 */
#ifndef TRIAGE_CONNECTORS_FEED_SUBSCRIBERS_H
#define TRIAGE_CONNECTORS_FEED_SUBSCRIBERS_H

#include "connectors/feed_message.h"

#define FEED_SUBSCRIBER_SILENCE_MS 60000

struct feed_subscribers {
    size_t count;
    uint64_t unlisted; /* acks that found no free row */
    struct {
        struct feed_subscriber who; /* lag and heard_ms are computed when listed */
        char epoch[HASH_TEXT_BYTES];
        uint64_t seq;
        int64_t heard_at_ms;
    } row[FEED_SUBSCRIBERS_MAX];
};

/*
 * Takes one ack, from the holder of the key `key` ("" without encryption). Returns how many gaps the subscriber has
 * noticed since its last one. A subscriber is known by its name and key.
 */
uint64_t feed_subscribers_ack(struct feed_subscribers *subscribers, const struct feed_request *ack, const char *key,
                              enum feed_role role, int64_t now_ms);

/* The key is revoked: ends the rows of its holders. */
void feed_subscribers_forget(struct feed_subscribers *subscribers, const char *key);

/*
 * Lists at most `limit`, those furthest behind first; returns how many. `epoch` and `seq` are the publisher's position:
 * whoever is in another epoch lags by all of it.
 */
size_t feed_subscribers_list(struct feed_subscribers *subscribers, const char *epoch, uint64_t seq, int64_t now_ms,
                             struct feed_subscriber *list, size_t limit);

#endif
