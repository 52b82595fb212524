/*
 * What a publisher has said: the published queue, the sequence, and the last 1,024 messages for replays. Both
 * publishers are this and a way to send bytes. No sockets, no files.
 *
 * Memory is bounded: two tables of the largest queue (about 14 MB each for 100,000 entries) and the ring (at
 * most 1,024 bodies of about 60 KiB, touched only after that many full upserts). Subscribers cost nothing: a
 * snapshot is read from the table piece by piece, whatever happens to it meanwhile.
 */
#ifndef TRIAGE_CONNECTORS_FEED_LOG_H
#define TRIAGE_CONNECTORS_FEED_LOG_H

#include "base/text.h"
#include "connectors/feed_message.h"
#include "connectors/feed_subscribers.h"
#include "connectors/queue_table.h"

#define FEED_RING_MESSAGES 1024

/* Sends one body on the topic, at once. A failure is counted; the log goes on, as subscribers can ask again.
 */
typedef int feed_emit(void *context, const void *body, size_t length);

struct feed_ring_item {
    char *bytes; /* NULL: not kept, memory was short */
    size_t length;
};

struct feed_log {
    char epoch[HASH_TEXT_BYTES], schema[HASH_TEXT_BYTES];
    uint64_t seq, cycle;
    uint32_t model;
    struct queue_table published, next;             /* `next` is the room in which a ranking is checked */
    struct feed_ring_item ring[FEED_RING_MESSAGES]; /* message seq lies at seq % FEED_RING_MESSAGES */
    struct text body;
    feed_emit *emit;
    void *context;
    struct queue_entry upserts[FEED_UPSERT_ENTRIES]; /* the batch being gathered */
    struct retraction retractions[FEED_UPSERT_ENTRIES];
    size_t batch;
    size_t chunk_entries;   /* of a snapshot: FEED_SNAPSHOT_ENTRIES, fewer in tests */
    uint64_t ring_messages; /* kept: FEED_RING_MESSAGES, fewer in tests */
    const struct queue_entry *chunk[FEED_SNAPSHOT_ENTRIES];
    struct feed_subscribers subscribers;
    int failure; /* first emit error of the call under way */
    struct publisher_counters counters;
};

/* Starts an empty log with a random epoch; options as for a publisher. */
int feed_log_open(const struct publisher_options *options, feed_emit *emit, void *context, struct feed_log **ret_log);
void feed_log_close(struct feed_log *log);

/* As in publisher.h. */
int feed_log_publish(struct feed_log *log, uint64_t cycle, uint32_t model, const struct queue_entry *entries,
                     size_t count);
int feed_log_retract(struct feed_log *log, const struct retraction *retractions, size_t count);
int feed_log_model_changed(struct feed_log *log, uint32_t model, const char *why);
int feed_log_heartbeat(struct feed_log *log);

/* Who asks: the name of its key, "" without encryption, and what that may do. */
struct feed_asker {
    const char *key;
    enum feed_role role;
};

/*
 * Appends the reply to one request, nothing for an ack; a malformed one gets an error reply. ERROR_SYSTEM when
 * memory is short.
 */
int feed_log_answer(struct feed_log *log, const struct feed_asker *asker, const void *request, size_t length,
                    struct text *reply);

size_t feed_log_subscribers(struct feed_log *log, struct feed_subscriber *list, size_t limit);

#endif
