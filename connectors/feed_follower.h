/*
 * How a subscriber keeps up with the feed (docs/feed.md, "Following the feed"): takes messages and replies in
 * whatever order and number they arrive, says what to ask for next, and so ends with exactly the publisher's
 * queue. No sockets, no clock; feed_client.h adds both.
 */
#ifndef TRIAGE_CONNECTORS_FEED_FOLLOWER_H
#define TRIAGE_CONNECTORS_FEED_FOLLOWER_H

#include "base/text.h"
#include "connectors/publisher.h"

#include <stdbool.h>

struct feed_follower_counters {
    uint64_t messages;  /* applied */
    uint64_t gaps;      /* times it was noticed that messages are missing */
    uint64_t replays;   /* replies with missed messages, applied */
    uint64_t snapshots; /* whole queues taken over */
    uint64_t malformed; /* bodies that could not be understood */
};

struct feed_follower;

/* Follows a queue of at most `queue_limit` entries; starts by wanting a snapshot. */
int feed_follower_new(size_t queue_limit, struct feed_follower **ret_follower);
void feed_follower_free(struct feed_follower *follower);

/*
 * One body of the topic. Returns 1 if the queue or the position changed, 0 if not (old, ahead, or malformed:
 * counted). May be called while a reply is awaited, but then the body is not used; better leave it unread
 * until then.
 */
int feed_follower_message(struct feed_follower *follower, const void *body, size_t length);

/* One reply to a request, also a late or repeated one. Returns as above. */
int feed_follower_reply(struct feed_follower *follower, const void *body, size_t length);

/* Nothing is missing as far as can be known. */
bool feed_follower_is_live(const struct feed_follower *follower);

/* Appends the request to send now, and again if no reply comes; nothing when live. */
void feed_follower_request(const struct feed_follower *follower, struct text *out);

/* Asks whether messages were missed, when nothing was heard for long. */
void feed_follower_doubt(struct feed_follower *follower);

/* By rank; valid until the next call. The state at position (epoch, seq): "" and 0 before the first snapshot.
 */
const struct queue_entry *feed_follower_entries(struct feed_follower *follower, size_t *ret_count);
void feed_follower_position(const struct feed_follower *follower, const char **ret_epoch, uint64_t *ret_seq);

/* Cycle and model of the last ranking applied. */
void feed_follower_ranking(const struct feed_follower *follower, uint64_t *ret_cycle, uint32_t *ret_model);

void feed_follower_counters(const struct feed_follower *follower, struct feed_follower_counters *ret_counters);

#endif
