/*
 * Loses feed messages on purpose, so that following the feed is seen to repair it. What is lost may be a
 * heartbeat, which nobody misses, so it is tried again until a gap was really noticed. On a feed where
 * nothing happens there is nothing to miss, and no gap.
 */
#ifndef TRIAGE_DAEMON_SIM_GAP_H
#define TRIAGE_DAEMON_SIM_GAP_H

#include "base/clock.h"
#include "clients/c/triage_feed.h"

#define GAP_RETRY_MS 3000 /* longer than two heartbeats */

struct gap {
    int64_t next_ms; /* when to lose something again; 0 at first */
};

/* To be called again and again. 1 once the client has noticed a gap and repaired it. */
static inline int gap_force(struct gap *gap, struct triage_feed *feed)
{
    struct triage_feed_status status;
    triage_feed_status(feed, &status);
    if (!status.is_live)
        return 0;
    if (gap->next_ms && status.gaps > 0)
        return 1;
    if (clock_ms() >= gap->next_ms) {
        triage_feed_lose(feed, gap->next_ms ? 2 : 1);
        gap->next_ms = clock_ms() + GAP_RETRY_MS;
    }
    return 0;
}

#endif
