/*
 * The bodies of the feed, to and from bytes, as docs/feed.md specifies them. No sockets, no state.
 *
 * Decoding takes bytes from outside: anything malformed is ERROR_INPUT or ERROR_LIMIT with the reason, and
 * the result is then meaningless. Unknown kinds and keys are accepted.
 */
#ifndef TRIAGE_CONNECTORS_FEED_MESSAGE_H
#define TRIAGE_CONNECTORS_FEED_MESSAGE_H

#include "base/hash.h"
#include "base/text.h"
#include "connectors/publisher.h"

#include <stdbool.h>

#define FEED_VERSION          1
#define FEED_TOPIC            "queue"
#define FEED_UPSERT_ENTRIES   256               /* entries of one upsert or retract at most */
#define FEED_SNAPSHOT_ENTRIES 2048              /* entries of one snapshot chunk at most */
#define FEED_REPLAY_MESSAGES  64                /* messages of one replay at most */
#define FEED_REPLAY_BYTES     ((size_t)1 << 20) /* a replay takes no further message beyond this */
#define FEED_BODY_BYTES_MAX   ((size_t)2 << 20)
#define FEED_REQUEST_BYTES    ((size_t)1 << 10)
#define FEED_WHY_BYTES        256

/* The wire's names of enum stream (acquisition/select.h), in its order. */
#define FEED_STREAMS 3
extern const char *const feed_streams[FEED_STREAMS];

/* What every body of the publisher carries. */
struct feed_header {
    const char *epoch;
    uint64_t seq; /* heartbeats write it as last_seq */
    const char *schema;
    int64_t unix_ms;
    uint64_t request; /* replies: the number that the request had; 0 = none */
};

/* The queue at the header's seq. */
struct feed_whole {
    size_t length;
    uint64_t checksum;
};

/* One piece of a snapshot. */
struct feed_chunk {
    uint64_t cycle;
    uint32_t model;
    size_t length;       /* of the whole queue now */
    uint64_t from, next; /* cursors of queue_table_walk() */
    const struct queue_entry *const *entries;
    size_t count;
};

struct feed_bytes {
    const void *bytes;
    size_t length;
};

/* 0 if the entry may be published: a terminated non-empty id, a known stream, finite numbers. Else
 * ERROR_INPUT. */
int feed_check_entry(const struct queue_entry *entry);

/* The reason as the feed knows it, or NULL for an unknown one. */
const char *feed_reason(const char *reason);

/* --- encoding: appends one body; see text_error() --- */

void feed_encode_upsert(struct text *out, const struct feed_header *header, uint32_t model,
                        const struct queue_entry *entries, size_t count);
void feed_encode_retract(struct text *out, const struct feed_header *header, const struct retraction *retractions,
                         size_t count);
void feed_encode_rerank(struct text *out, const struct feed_header *header, uint64_t cycle, uint32_t model,
                        const struct feed_whole *whole);
void feed_encode_model(struct text *out, const struct feed_header *header, uint32_t model, const char *why);
void feed_encode_heartbeat(struct text *out, const struct feed_header *header, uint32_t model,
                           const struct feed_whole *whole);
void feed_encode_snapshot(struct text *out, const struct feed_header *header, const struct feed_chunk *chunk);
void feed_encode_replay(struct text *out, const struct feed_header *header, const struct feed_whole *whole,
                        uint64_t from_seq, const struct feed_bytes *messages, size_t count);
void feed_encode_too_old(struct text *out, const struct feed_header *header);
void feed_encode_subscribers(struct text *out, const struct feed_header *header, const struct feed_subscriber *list,
                             size_t count);
void feed_encode_error(struct text *out, const char *message);

/* `request` is the asker's number for it, which the reply repeats; 0 = none. */
void feed_encode_snapshot_request(struct text *out, uint64_t request, uint64_t from);
void feed_encode_replay_request(struct text *out, uint64_t request, const char *epoch, uint64_t from_seq);
void feed_encode_subscribers_request(struct text *out);
void feed_encode_ack(struct text *out, const char *name, const char *epoch, uint64_t seq,
                     const struct feed_counters *counters);

/* --- decoding --- */

enum feed_kind {
    FEED_UNKNOWN, /* a kind of a later publisher; on the topic its sequence number counts */
    FEED_UPSERT,
    FEED_RETRACT,
    FEED_RERANK,
    FEED_MODEL,
    FEED_HEARTBEAT,
    FEED_SNAPSHOT,
    FEED_REPLAY,
    FEED_TOO_OLD,
    FEED_ERROR,
};

/* A decoded body; fields that its kind does not have are 0. About 250 KiB: allocate it once. */
struct feed_message {
    enum feed_kind kind;
    char epoch[HASH_TEXT_BYTES];
    uint64_t seq; /* of a heartbeat: last_seq */
    char schema[HASH_TEXT_BYTES];
    int64_t unix_ms;
    uint64_t request; /* that a reply answers, 0 = one without a number */
    uint64_t cycle;
    uint32_t model;
    uint64_t length, checksum, from, next, from_seq;
    char why[FEED_WHY_BYTES];                           /* of a model message, or the text of an error */
    size_t count;                                       /* how many there are of the following */
    struct queue_entry entries[FEED_SNAPSHOT_ENTRIES];  /* key is 0 */
    struct retraction retractions[FEED_UPSERT_ENTRIES]; /* reason is a constant; "other" for an unknown one */
    struct feed_bytes messages[FEED_REPLAY_MESSAGES];   /* inside the decoded bytes */
};

int feed_decode(const void *bytes, size_t length, struct feed_message *ret_message);

enum feed_ask {
    FEED_ASK_NOTHING, /* an ack; there is no reply */
    FEED_ASK_SNAPSHOT,
    FEED_ASK_REPLAY,
    FEED_ASK_SUBSCRIBERS,
};

struct feed_ack {
    char name[FEED_NAME_BYTES];
    struct feed_counters counters;
};

struct feed_request {
    enum feed_ask ask;
    uint64_t request; /* the asker's number for it, 0 = none */
    uint64_t from;    /* snapshot: cursor; replay: sequence number; ack: last number applied */
    char epoch[HASH_TEXT_BYTES];
    struct feed_ack ack;
};

int feed_decode_request(const void *bytes, size_t length, struct feed_request *ret_request);

/* For the two above: ERROR_INPUT unless the body is of our version. */
struct msgpack_value;
int feed_check_version(const struct msgpack_value *map);

#endif
