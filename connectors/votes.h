/* Votes in: typed calls of the SQL function that applies them exactly once (docs/database.md). */
#ifndef TRIAGE_CONNECTORS_VOTES_H
#define TRIAGE_CONNECTORS_VOTES_H

#include "connectors/database.h"

#include <stdbool.h>
#include <stdint.h>

/* What one transaction did. Arrays are valid during the call. */
struct votes_applied_batch {
    uint64_t horizon; /* every vote with a smaller transaction id is in the tallies */
    uint64_t system_identifier;
    int64_t read, applied, repeated, quarantined;
    bool more; /* the batch was full */
    int count; /* changed tallies: galaxy[i] got increment[i] votes for answer_index[i] */
    const int64_t *galaxy, *answer_index, *increment;
    int retired_count;
    const int64_t *retired; /* galaxies that now have all the votes they need */
};
typedef void votes_applied(void *context, int code, const struct votes_applied_batch *batch);

/* Applies at most `batch` votes (1 .. 100,000). One call at a time; ERROR_STATE if the last one has not been answered. */
int votes_send_apply(struct database *database, int batch, int retire_votes, votes_applied *done, void *context);

struct votes_cursor {
    uint64_t horizon, system_identifier;
    long applied, repeated, quarantined;
};
typedef void votes_cursor_read(void *context, int code, const struct votes_cursor *cursor);

/* Where the cursor stands. One call at a time. */
int votes_send_cursor(struct database *database, votes_cursor_read *done, void *context);

#endif
