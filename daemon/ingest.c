/*
 * Votes in: an empty NOTIFY or the poll makes the loop apply the next batch. The SQL function moves votes to tallies,
 * the quarantine or the repeats and advances the cursor in one transaction; here its outcome reaches the pool.
 */
#include "base/clock.h"
#include "base/error.h"
#include "connectors/votes.h"
#include "daemon/daemon.h"
#include "daemon/log.h"

#include <string.h>

static void take_increment(struct daemon *daemon, uint64_t key, int answer, long votes)
{
    if (key < 1 || key > daemon->galaxies || answer < 0 || answer >= daemon->schema.answers)
        return;
    uint16_t *tally = pool_tally(&daemon->pool, key - 1);
    struct pool_state *state = pool_state(&daemon->pool, key - 1);
    long sum = tally[answer] + votes;
    tally[answer] = sum < UINT16_MAX ? (uint16_t)sum : UINT16_MAX;
    if (daemon->schema.answer[answer].question != 0)
        return;
    daemon->labelled += state->root_votes == 0;
    sum = state->root_votes + votes;
    state->root_votes = sum < UINT16_MAX ? (uint16_t)sum : UINT16_MAX;
}

static void retire(struct daemon *daemon, uint64_t key)
{
    if (key < 1 || key > daemon->galaxies || pool_state(&daemon->pool, key - 1)->flags & POOL_RETIRED)
        return;
    daemon_set_flag(daemon, key, POOL_RETIRED, true);
    daemon->retired++;
    daemon_retract(daemon, key, "retired");
}

static void on_applied(void *context, int code, const struct votes_applied_batch *batch)
{
    struct daemon *daemon = context;
    struct ingest *ingest = &daemon->ingest;
    ingest->in_flight = false;
    if (code) { /* whether it was committed is unknown: read everything back before going on */
        log_warning("votes were not applied: %s", error_message());
        ingest->next_ms = clock_ms() + daemon->config.poll_ms;
        sync_restart(daemon, true);
        return;
    }
    for (int i = 0; i < batch->count; i++)
        take_increment(daemon, (uint64_t)batch->galaxy[i], (int)batch->answer_index[i], (long)batch->increment[i]);
    for (int i = 0; i < batch->retired_count; i++)
        retire(daemon, (uint64_t)batch->retired[i]);
    ingest->horizon = batch->horizon;
    pool_set_tally_stamp(&daemon->pool, batch->horizon, batch->system_identifier);
    ingest->applied += (long)batch->applied;
    ingest->quarantined += (long)batch->quarantined;
    ingest->repeated += (long)batch->repeated;
    ingest->more = batch->more;
    if (batch->quarantined)
        log_warning("%ld votes put into quarantine (triagectl votes says why)", (long)batch->quarantined);
    if (batch->applied && !ingest->waiting)
        ingest->waiting_since_ms = clock_ms();
    ingest->waiting += (long)batch->applied;
}

void ingest_step(struct daemon *daemon)
{
    struct ingest *ingest = &daemon->ingest;
    int64_t now_ms = clock_ms();
    bool due = ingest->more || database_take_notice(daemon->database) || now_ms >= ingest->next_ms;
    if (!due || ingest->in_flight || daemon->sync.step != SYNC_DONE ||
        database_state(daemon->database) != DATABASE_READY)
        return;
    ingest->next_ms = now_ms + daemon->config.poll_ms;
    if (votes_send_apply(daemon->database, (int)daemon->config.vote_batch, (int)daemon->config.retire_votes, on_applied,
                         daemon) == 0)
        ingest->in_flight = true;
}
