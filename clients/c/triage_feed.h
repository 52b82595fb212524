/*
 * libtriage-feed: follows the feed of a Galaxy Triage daemon and always ends with exactly its queue, the ranked
 * galaxies on offer, whatever messages are lost, late, repeated or swapped on the way, and across restarts of
 * the daemon. docs/feed.md specifies the messages; this header is the manual of the library.
 *
 *     struct triage_feed_options options = {"tcp://127.0.0.1:5571", "tcp://127.0.0.1:5572", "platform.key", "platform"};
 *     struct triage_feed *feed;
 *     if (triage_feed_open(&options, &feed) < 0)
 *         die(triage_feed_error());
 *     while (triage_feed_step(feed, 1000) >= 0) {
 *         size_t count;
 *         const struct triage_feed_entry *entry = triage_feed_entries(feed, &count);
 *         ...
 *     }
 *
 * Link with -ltriage-feed (pkg-config triage-feed). A feed belongs to one thread and must not be used on both sides of a fork(). Functions
 * that can fail return a negative number, and triage_feed_error() then says what is wrong and what to do.
 * Memory: about 250 bytes for each entry of the longest queue seen, and at most 60 MB of messages that wait.
 */
#ifndef TRIAGE_FEED_H
#define TRIAGE_FEED_H

#include <stddef.h>
#include <stdint.h>

/* One galaxy on offer. */
struct triage_feed_entry {
    char id[64];                  /* as in the catalogue, terminated, unique in the queue */
    uint32_t rank;                /* 1 = next; after retractions there are gaps until the next ranking */
    uint8_t stream;               /* 0 active (chosen by score), 1 random (drawn), 2 pinned (by an operator) */
    double probability;           /* with which it was drawn, random and active alike, 0..1; 1 for pinned ones, and where the
                                     highest scores or typical galaxies were taken */
    float score, total, expected; /* nats; score = total - expected */
    uint32_t model;               /* number of the model that scored it, 0 = none yet */
    int64_t leased_until_ms;      /* the offer ends then, Unix time; 0 = no end */
};

struct triage_feed_options {
    const char *publish, *snapshot; /* the daemon's feed.publish and feed.snapshot; both NULL = no sockets, see below */
    const char *key_file;           /* made by `triagectl keys new`, readable by its owner only; NULL = no encryption,
                                       which the daemon must have been configured for, on this machine only */
    const char *name;               /* how `triagectl status` calls this subscriber, up to 31 bytes; NULL = "C" */
};

struct triage_feed_status {
    int is_live;                 /* 1 = nothing is missing, as far as can be known */
    char epoch[33];              /* position: the daemon's run ("" before the first snapshot) */
    uint64_t seq;                /* and the number of the last message applied */
    uint64_t cycle;              /* of the last ranking */
    uint32_t model;              /* that made it */
    uint64_t messages;           /* applied */
    uint64_t gaps;               /* times it was noticed that messages are missing */
    uint64_t replays, snapshots; /* repairs: missed messages applied; whole queues taken over */
    uint64_t malformed;          /* bodies that could not be understood, and were ignored */
};

struct triage_feed;

/* Connects; the daemon may come later. Fails for a key file that is missing, malformed or readable by others, and
 * for an endpoint of another machine without a key. */
int triage_feed_open(const struct triage_feed_options *options, struct triage_feed **ret_feed);
void triage_feed_close(struct triage_feed *feed); /* NULL is fine */

/*
 * Waits up to `timeout_ms` for something to arrive and handles it. Call it again and again: it also asks for what is
 * missing, and tells the daemon every two seconds how far we are. 1 if the queue or the position changed, 0 if not.
 * Negative, for example, when the queue is longer than 1,000,000 entries.
 */
int triage_feed_step(struct triage_feed *feed, int timeout_ms);

/* The queue by rank, those of one rank by id; valid until the next call with this feed. While something is missing
 * it stays as it was when last asked for. */
const struct triage_feed_entry *triage_feed_entries(struct triage_feed *feed, size_t *ret_count);

void triage_feed_status(const struct triage_feed *feed, struct triage_feed_status *ret_status);

/* Why the last call in this thread failed. */
const char *triage_feed_error(void);

/* Pretends that the next `count` messages of the topic never arrive, to see the repair. */
void triage_feed_lose(struct triage_feed *feed, uint64_t count);

/* --- without sockets: for another transport, and for tests --- */

/* One body of the topic, or a reply: in whatever order and number they come. 1 if the queue or the position changed. A
 * body of the topic is used only while the feed is live; better leave it waiting until then. */
int triage_feed_take(struct triage_feed *feed, const void *body, size_t length, int is_reply);

/* Writes the request to send now, and again if no reply comes within a second; or the ack, to send every few seconds.
 * Returns its length, 0 = nothing to ask. `size` should be 512. */
size_t triage_feed_request(const struct triage_feed *feed, int ack, void *body, size_t size);

#endif
