/*
 * A subscriber to the feed in C: sockets and a clock around feed_follower.h. Ends with exactly the daemon's
 * queue, whatever was lost on the way. One thread per client.
 */
#ifndef TRIAGE_CONNECTORS_FEED_CLIENT_H
#define TRIAGE_CONNECTORS_FEED_CLIENT_H

#include "connectors/feed_follower.h"

#define FEED_REPLY_TIMEOUT_MS 1000 /* then the request is sent again */
#define FEED_SILENCE_MS       5000 /* five heartbeats missed: ask whether something was lost */

struct feed_client;

/* Connects to both endpoints; the publisher may come later. ERROR_INPUT for an endpoint that is not local. */
int feed_client_open(const char *publish_endpoint, const char *snapshot_endpoint, struct feed_client **ret_client);
void feed_client_close(struct feed_client *client);

/*
 * Waits up to `timeout_ms` for something to arrive and handles it, at most 256 messages. Returns 1 if the
 * queue or the position changed, 0 if not, ERROR_LIMIT when the publisher's queue is longer than
 * PUBLISHER_QUEUE_LIMIT.
 */
int feed_client_step(struct feed_client *client, int timeout_ms);

/* As the functions of feed_follower.h. */
bool feed_client_is_live(const struct feed_client *client);
const struct queue_entry *feed_client_entries(struct feed_client *client, size_t *ret_count);
void feed_client_position(const struct feed_client *client, const char **ret_epoch, uint64_t *ret_seq);
void feed_client_ranking(const struct feed_client *client, uint64_t *ret_cycle, uint32_t *ret_model);
void feed_client_counters(const struct feed_client *client, struct feed_follower_counters *ret_counters);

/* Pretends that the next `count` messages of the topic never arrive: a gap on demand. */
void feed_client_lose(struct feed_client *client, uint64_t count);

#endif
