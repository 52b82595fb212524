/*
 * The publisher seam: shows the daemon's queue to the world. Two publishers exist: `zmq` (the feed of
 * docs/feed.md) and `record` (the same bodies, written to a file, for tests and audits). Not for the queue
 * itself, which is the daemon's; a publisher only remembers what it last said.
 *
 * One thread, no call blocks. A publisher starts with an empty queue, sequence number 0 and a new epoch:
 * publish the queue you have right after opening, or subscribers see an empty one.
 */
#ifndef TRIAGE_CONNECTORS_PUBLISHER_H
#define TRIAGE_CONNECTORS_PUBLISHER_H

#include <stddef.h>
#include <stdint.h>

#define QUEUE_ID_BYTES        64
#define PUBLISHER_QUEUE_LIMIT 1000000 /* entries a queue may hold */

/* One galaxy on offer. */
struct queue_entry {
    char id_str[QUEUE_ID_BYTES];  /* UTF-8, terminated, unique in a queue, not empty */
    uint64_t key;                 /* the daemon's; not published */
    uint32_t rank;                /* 1 = next */
    uint8_t stream;               /* enum stream of acquisition/select.h: 0 active, 1 random, 2 pinned */
    double probability;           /* inclusion probability, 0..1 */
    float score, total, expected; /* nats, finite */
    uint32_t model;               /* number of the model that scored it, 0 = none */
    int64_t leased_until_ms;      /* Unix time; 0 = not leased */
};

/* One galaxy taken back. Reasons: retired, excluded, bad_image, lease_expired, replaced. */
struct retraction {
    char id_str[QUEUE_ID_BYTES];
    const char *reason;
};

/* What the holder of a key may do; docs/feed.md. */
enum feed_role { FEED_SUBSCRIBER, FEED_CONNECTOR, FEED_ADMIN };

#define FEED_NAME_BYTES      32  /* of a subscriber or a key */
#define FEED_SUBSCRIBERS_MAX 256 /* listed; more may follow */

/* What a subscriber says about itself. */
struct feed_counters {
    uint64_t gaps;      /* times it noticed that messages were missing */
    uint64_t replays;   /* times it had missed messages sent again */
    uint64_t snapshots; /* whole queues it took over */
    uint64_t malformed; /* bodies it could not understand */
};

struct feed_subscriber {
    char name[FEED_NAME_BYTES], key[FEED_NAME_BYTES]; /* what it calls itself; the key it has, "" without encryption */
    enum feed_role role;
    uint64_t lag;     /* messages it has not yet applied */
    int64_t heard_ms; /* since its last ack */
    struct feed_counters counters;
};

struct publisher_options {
    const char *publish_endpoint, *snapshot_endpoint; /* zmq: see docs/feed.md */
    const char *keys_folder;                          /* zmq: feed_keys.h; NULL = no encryption, local endpoints only */
    const char *record_path;                          /* record: appended to */
    const char *schema_hash;                          /* copied */
    size_t queue_limit;                               /* entries of the largest queue, 1 .. PUBLISHER_QUEUE_LIMIT */
};

struct publisher_counters {
    uint64_t messages;   /* on the topic, heartbeats not counted */
    uint64_t unsent;     /* of those and of heartbeats: refused by the socket or the disk */
    uint64_t requests;   /* of all kinds but acks */
    uint64_t snapshots;  /* begun: the first chunk was asked for */
    uint64_t malformed;  /* requests answered with an error */
    uint64_t unanswered; /* replies given up because the asker does not read or is gone */
    uint64_t acks;       /* taken */
    uint64_t gaps;     /* that subscribers noticed, by their acks: messages dropped on the way to them, and repaired */
    uint64_t accepted; /* handshakes of a known key; always 0 without encryption */
    uint64_t rejected; /* handshakes refused: no key, an unknown or revoked one, another protocol */
    char rejection[128]; /* the last of those, in words; "" if there was none */
};

struct publisher_state;

struct publisher {
    const char *name;

    /* ERROR_INPUT for a bad option, ERROR_SYSTEM when an endpoint or file is not to be had. */
    int (*open)(const struct publisher_options *options, struct publisher_state **ret_state);
    void (*close)(struct publisher_state *state); /* NULL is fine; takes at most 1 s */

    /*
     * Makes the published queue equal to `entries` (any order): retracts what is no longer in it
     * ("lease_expired" when the lease was over, else "replaced"), upserts what is new or changed, then marks
     * the end of the ranking. ERROR_INPUT (an entry is invalid or twice in the list) and ERROR_LIMIT (too
     * many) change nothing. After any other error everything is applied, and subscribers repair what did not
     * reach them.
     */
    int (*publish)(struct publisher_state *state, uint64_t cycle, uint32_t model, const struct queue_entry *entries,
                   size_t count);

    /* Takes galaxies back at once; ids that are not in the published queue are passed over. */
    int (*retract)(struct publisher_state *state, const struct retraction *retractions, size_t count);

    /* Says that another model is champion; `why` is one line, cut at 255 bytes. */
    int (*model_changed)(struct publisher_state *state, uint32_t model, const char *why);

    /* To be called every second. A negative code says that subscribers do not get what they should. */
    int (*heartbeat)(struct publisher_state *state);

    /* For poll(): POLLIN while requests may be waiting; -1 if there never are any. */
    int (*descriptor)(const struct publisher_state *state);

    /* Answers waiting requests and handshakes, at most 64 or 8 MiB a call. 1 if more may be waiting, 0 if not, or a
     * negative code. */
    int (*serve)(struct publisher_state *state);

    /* The epoch's text (valid until close) and the last sequence number. */
    void (*position)(const struct publisher_state *state, const char **ret_epoch, uint64_t *ret_seq);

    void (*counters)(const struct publisher_state *state, struct publisher_counters *ret_counters);

    /* Subscribers by their acks, those furthest behind first, at most `limit`; returns how many. */
    size_t (*subscribers)(struct publisher_state *state, struct feed_subscriber *list, size_t limit);

    /*
     * Reads the list of keys again. If one is no longer in it, every subscriber is disconnected, and those that still
     * have a valid key come back by themselves and repair what they missed. The message of an error says which list is in
     * force: the former one if the new one cannot be read; the new one if the sockets could not be opened again, and then
     * nobody is served until a heartbeat has opened them.
     */
    int (*reload_keys)(struct publisher_state *state);
};

extern const struct publisher publisher_zmq, publisher_record;

#endif
