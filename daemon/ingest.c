/*
 * Votes in: an empty NOTIFY or the poll makes the loop apply the next batch. The SQL function moves votes to tallies,
 * the quarantine or the repeats and advances the cursor in one transaction; here its outcome reaches the pool.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "connectors/votes.h"
#include "daemon/daemon.h"
#include "daemon/log.h"

#include <string.h>

#define PARTITIONS_MS 60000

static void take_tally(struct daemon *daemon, uint64_t key, int answer, long votes)
{
    if (key < 1 || key > daemon->galaxies || answer < 0 || answer >= daemon->schema.answers)
        return;
    uint16_t *tally = pool_tally(&daemon->pool, key - 1);
    struct pool_state *state = pool_state(&daemon->pool, key - 1);
    tally[answer] = votes < UINT16_MAX ? (uint16_t)votes : UINT16_MAX;
    const struct question *question = &daemon->schema.question[0];
    long roots = 0;
    for (int a = question->first; a < question->first + question->count; a++)
        roots += tally[a];
    daemon->labelled += (uint64_t)(roots > 0) - (uint64_t)(state->root_votes > 0);
    state->root_votes = roots < UINT16_MAX ? (uint16_t)roots : UINT16_MAX;
}

void daemon_retire(struct daemon *daemon, uint64_t key)
{
    if (key < 1 || key > daemon->galaxies || pool_state(&daemon->pool, key - 1)->flags & POOL_RETIRED)
        return;
    daemon_set_flag(daemon, key, POOL_RETIRED, true);
    daemon->retired++;
    FAULT(GALAXY_RETIRED);
    daemon_retract(daemon, key, "retired");
}

static void on_applied(void *context, int code, const struct votes_applied_batch *batch)
{
    struct daemon *daemon = context;
    struct ingest *ingest = &daemon->ingest;
    ingest->in_flight = false;
    if (code) {                /* whether it was committed is unknown: read everything back before going on */
        if (!daemon->stopping) /* the connection is closed then, whatever is on its way */
            log_warning(EVENT_VOTES_FAILED, "votes were not applied: %s", error_message());
        if (code != ERROR_UNAVAILABLE && code != ERROR_CANCELLED)
            incident_begin(&daemon->incidents, INCIDENT_VOTES, "%s", error_message());
        ingest->next_ms = clock_ms() + daemon->config.poll_ms;
        sync_restart(daemon);
        return;
    }
    FAULT(APPLY_ANSWERED);
    incident_end(&daemon->incidents, INCIDENT_VOTES);
    if (batch->rebuilds != ingest->rebuilds) { /* `triaged votes rebuild`, or an operator's SQL */
        log_info(EVENT_TALLIES_REBUILT, "the tallies were made again: reading them all");
        sync_restart(daemon);
    }
    for (int i = 0; i < batch->count; i++) {
        take_tally(daemon, (uint64_t)batch->galaxy[i], (int)batch->answer_index[i], (long)batch->votes[i]);
        FAULT(TALLY_HALF_TAKEN);
    }
    FAULT(TALLIES_TAKEN);
    for (int i = 0; i < batch->retired_count; i++)
        daemon_retire(daemon, (uint64_t)batch->retired[i]);
    ingest->horizon = batch->horizon;
    pool_set_tally_stamp(&daemon->pool, batch->horizon, batch->system_identifier);
    FAULT(STAMP_SET);
    ingest->applied += (long)batch->applied;
    ingest->quarantined += (long)batch->quarantined;
    ingest->repeated += (long)batch->repeated;
    ingest->ignored += (long)batch->ignored;
    ingest->more = batch->more;
    ingest->lag_s = batch->lag_s;
    snprintf(ingest->held_by, sizeof ingest->held_by, "%s", batch->held_by);
    if (batch->quarantined)
        log_warning(EVENT_VOTES_QUARANTINED, "%ld votes put into quarantine (triagectl votes says why)",
                    (long)batch->quarantined);
    if (batch->count && !ingest->waiting)
        ingest->waiting_since_ms = clock_ms();
    ingest->waiting += batch->applied || !batch->count ? (long)batch->applied : 1; /* or a count was corrected */
}

static void on_partitions(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    daemon->ingest.partitioning = false;
    if (code) /* a writer held the lock for a second: the default partition takes votes meanwhile */
        log_info(EVENT_PARTITIONS_FAILED, "partitions for votes were not made: %s; trying again", error_message());
    else if (database_integer(result, 0, 0))
        log_info(EVENT_PARTITIONS_MADE, "made %lld partitions for votes ahead",
                 (long long)database_integer(result, 0, 0));
    if (code)
        return;
    if (database_value(result, 0, 1))
        incident_begin(&daemon->incidents, INCIDENT_PARTITIONS, "%s", database_value(result, 0, 1));
    else
        incident_end(&daemon->incidents, INCIDENT_PARTITIONS);
}

static void on_lag(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    daemon->ingest.asking_lag = false;
    if (!code)
        daemon->ingest.lag_s = database_real(result, 0, 0);
}

/* While votes cannot be applied, how long they have been waiting. */
static void ask_lag(struct daemon *daemon, int64_t now_ms)
{
    struct ingest *ingest = &daemon->ingest;
    if (ingest->asking_lag || now_ms < ingest->next_ms || database_state(daemon->database) != DATABASE_READY)
        return;
    ingest->next_ms = now_ms + daemon->config.poll_ms;
    ingest->asking_lag = votes_send_lag(daemon->database, on_lag, daemon) == 0;
}

static void keep_partitions(struct daemon *daemon, int64_t now_ms)
{
    struct ingest *ingest = &daemon->ingest;
    if (ingest->partitioning || now_ms < ingest->partitions_ms)
        return;
    ingest->partitions_ms = now_ms + PARTITIONS_MS;
    ingest->partitioning = votes_send_partitions(daemon->database, on_partitions, daemon) == 0;
}

void ingest_step(struct daemon *daemon)
{
    struct ingest *ingest = &daemon->ingest;
    int64_t now_ms = clock_ms();
    if (ingest->in_flight)
        FAULT(APPLY_SENT); /* a turn after it was queued, so it is out */
    if (!ingest->in_flight && daemon->read_only)
        ask_lag(daemon, now_ms);
    if (ingest->in_flight || daemon->sync.step != SYNC_DONE || database_state(daemon->database) != DATABASE_READY ||
        daemon->read_only)
        return; /* a notice waits: votes that came while a batch was under way may not be in it */
    if (!ingest->more && now_ms < ingest->next_ms && !database_take_notice(daemon->database))
        return;
    ingest->next_ms = now_ms + daemon->config.poll_ms;
    keep_partitions(daemon, now_ms);
    if (votes_send_apply(daemon->database, (int)daemon->config.vote_batch, (int)daemon->config.retire_votes, on_applied,
                         daemon) == 0) {
        ingest->in_flight = true;
        ingest->sent_ms = now_ms;
    }
}
