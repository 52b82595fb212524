/* Votes in: typed calls of the SQL functions that apply them exactly once and keep them in order (docs/database.md). */
#ifndef TRIAGE_CONNECTORS_VOTES_H
#define TRIAGE_CONNECTORS_VOTES_H

#include "connectors/database.h"

#include <stdbool.h>
#include <stdint.h>

#define VOTES_MARKS      "seen_before, gold_standard, retired, not_live"
#define VOTES_TEXT_BYTES 256 /* of a question, answer, id or voter, the end included */

/* A list of marks separated by commas, perhaps empty. ERROR_INPUT names one that does not exist. */
int votes_check_marks(const char *list);

/* --- for the loop: one call of each kind at a time ------------------------------------------------------------- */

/* What one transaction did. Arrays are valid during the call. */
struct votes_applied_batch {
    uint64_t horizon; /* every vote with a smaller transaction id is in the tallies */
    uint64_t system_identifier;
    int64_t rebuilds; /* how often the tallies were made again; another number than before: read them all */
    int64_t read, applied, repeated, ignored, quarantined;
    bool more;           /* the batch was full */
    double lag_s;        /* age of the oldest vote that is not applied; 0 if there is none */
    const char *held_by; /* whose open transaction it waits for, "" if nobody's */
    int count;           /* changed tallies: galaxy[i] has votes[i] votes for answer_index[i] now */
    const int64_t *galaxy, *answer_index, *votes;
    int retired_count;
    const int64_t *retired; /* galaxies that now have all the votes they need */
};
typedef void votes_applied(void *context, int code, const struct votes_applied_batch *batch);

/*
 * Applies at most `batch` votes (1 .. 100,000) and as many reductions. ERROR_STATE if the last call has not been answered.
 * Fails while the tallies must be made again: votes_send_prepare() does that.
 */
int votes_send_apply(struct database *database, int batch, int retire_votes, votes_applied *done, void *context);

/* Which votes count. */
struct votes_rules {
    const char *voter; /* first | last | all: of one voter on a question of a galaxy, by number of classification */
    const char *count_also; /* marks that do not keep a vote from counting, separated by commas */
    bool weighting;         /* tallies by the weights of triage.weigh_votes() */
};

/*
 * Makes the tallies again if the rules are others than before, if the database was restored into another server, or if
 * they are stale; that may take minutes, and one more answer of the database waits behind it. `why` is NULL if there was
 * nothing to do.
 */
typedef void votes_prepared(void *context, int code, const char *why);
int votes_send_prepare(struct database *database, const struct votes_rules *rules, votes_prepared *done, void *context);

struct votes_cursor {
    uint64_t horizon, system_identifier;
    uint64_t version; /* another one whenever any tally may have changed */
    int64_t rebuilds;
    long applied, repeated, ignored, quarantined;
};
typedef void votes_cursor_read(void *context, int code, const struct votes_cursor *cursor);

/* Where the cursor stands. */
int votes_send_cursor(struct database *database, votes_cursor_read *done, void *context);

/* Age of the oldest vote that is not applied, seconds, 0 if there is none; also where nothing can be written. */
int votes_send_lag(struct database *database, database_done *done, void *context);

/* Makes partitions of triage.vote ahead, by range of classification: how many, and why none is made any more or NULL. */
int votes_send_partitions(struct database *database, database_done *done, void *context);

/* Columns reason, count: votes, reductions and rows of imported files that mean nothing, the commonest first. */
int votes_send_quarantine_list(struct database *database, int limit, database_done *done, void *context);

/* --- blocking, for tools ----------------------------------------------------------------------------------------- */

/* Makes ledger, quarantine, tallies and counters again from every vote up to the cursor. A running daemon notices. */
int votes_rebuild(struct database *database);

/* Votes and reductions in the quarantine that mean something by now arrive again. `ret_votes` = how many votes. */
int votes_retry(struct database *database, int64_t *ret_votes);

/* Computes the voters' weights from their agreement with others, then the tallies by them. `ret_voters` = weighed. */
int votes_weigh(struct database *database, int64_t *ret_voters);

#endif
