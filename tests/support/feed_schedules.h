/*
 * Random lives of a feed between a publisher and one subscriber, without sockets and without a clock: what is under
 * way in either direction is dropped, delayed, repeated and reordered, copies of replies come long after, connections are
 * cut, and the publisher is restarted. Every draw comes from the seed. Whatever the subscriber shows while it calls itself live must be what the
 * publisher had at that position, and once nothing is lost any more it must soon be live with exactly its queue.
 */
#ifndef TRIAGE_TESTS_SUPPORT_FEED_SCHEDULES_H
#define TRIAGE_TESTS_SUPPORT_FEED_SCHEDULES_H

#include "connectors/publisher.h"

#include <stdbool.h>

#define SCHEDULE_ENTRIES_MAX   40
#define SCHEDULE_REQUEST_BYTES 512

struct schedule_view {
    bool is_live;
    char epoch[33];
    uint64_t seq;
    uint64_t gaps, replays, snapshots, malformed;
    size_t count;
    struct queue_entry entries[SCHEDULE_ENTRIES_MAX]; /* by rank; only looked at when live */
};

/* The subscriber under test. */
struct schedule_subscriber {
    void *context;
    void (*begin)(void *context); /* a new one */
    void (*take)(void *context, const void *body, size_t length, bool is_reply);
    size_t (*request)(void *context, void *body); /* [SCHEDULE_REQUEST_BYTES]; 0 = nothing to ask */
    void (*view)(void *context, struct schedule_view *view);
};

struct schedule_counts {
    uint64_t schedules, dropped, repeated, reordered, cuts, restarts, views; /* views: comparisons while live */
    uint64_t late, crossed; /* replies: copies that came once more long after; those of an epoch that was over */
    uint64_t too_old;       /* answers, delivered */
    uint64_t chunked;       /* queues taken over in several chunks while bodies were lost */
    uint64_t gaps, replays, snapshots, malformed; /* of the subscriber */
};

/* First some in which rankings fall between the chunks of a snapshot, lossless and not counted as schedules.
 * Plays schedules seed .. seed + count - 1; prints the seed of one that fails and aborts. */
void feed_schedules(const struct schedule_subscriber *subscriber, uint64_t seed, uint64_t count,
                    struct schedule_counts *ret_counts);

#endif
