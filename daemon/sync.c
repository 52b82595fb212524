/*
 * Brings the pool's identity, state and tally columns in line with the database: page by page, at start, after new
 * galaxies were imported, and after a connection was lost with a batch of votes under way. The database is the truth;
 * the pool is a cache that carries the cursor it was made at.
 */
#include "base/clock.h"
#include "base/error.h"
#include "connectors/galaxies.h"
#include "connectors/votes.h"
#include "daemon/daemon.h"
#include "daemon/log.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_MS 1000

static uint64_t unsigned_value(const struct database_result *result, int row, int column)
{
    const char *text = database_value(result, row, column);
    return text ? strtoull(text, NULL, 10) : 0;
}

static bool true_value(const struct database_result *result, int row, int column)
{
    const char *text = database_value(result, row, column);
    return text && text[0] == 't';
}

void sync_restart(struct daemon *daemon, bool whole)
{
    daemon->sync.step = SYNC_GALAXIES;
    daemon->sync.whole = whole;
    daemon->sync.after_key = whole ? 0 : daemon->galaxies;
}

static void count_state(struct daemon *daemon)
{
    daemon->retired = daemon->labelled = 0;
    for (uint64_t row = 0; row < daemon->galaxies; row++) {
        const struct pool_state *state = pool_state(&daemon->pool, row);
        daemon->retired += (state->flags & POOL_RETIRED) != 0;
        daemon->labelled += state->root_votes > 0;
    }
}

/* Columns: key, id_str, file_loc, split, excluded, pinned, bad, retired, root_votes. */
static int take_galaxy(struct daemon *daemon, const struct database_result *result, int row)
{
    uint64_t key = unsigned_value(result, row, 0);
    const char *id_str = database_value(result, row, 1);
    if (key != daemon->sync.after_key + 1)
        return error_set(ERROR_STATE, "galaxy keys are not dense: %llu follows %llu; restore the database",
                         (unsigned long long)key, (unsigned long long)daemon->sync.after_key);
    struct pool_identity *identity = pool_identity(&daemon->pool, key - 1);
    if (strcmp(identity->id_str, id_str) != 0)
        pool_forget_embeddings(&daemon->pool, key - 1); /* another galaxy's, or a new row */
    snprintf(identity->id_str, sizeof identity->id_str, "%s", id_str);
    struct pool_state *state = pool_state(&daemon->pool, key - 1);
    uint8_t queued = state->flags & POOL_QUEUED;
    state->flags =
        (uint8_t)(queued | (true_value(result, row, 4) ? POOL_EXCLUDED : 0) |
                  (true_value(result, row, 5) ? POOL_PINNED : 0) | (true_value(result, row, 6) ? POOL_BAD : 0) |
                  (true_value(result, row, 7) ? POOL_RETIRED : 0));
    state->split = (uint8_t)unsigned_value(result, row, 3);
    state->root_votes = (uint16_t)unsigned_value(result, row, 8);
    memset(pool_tally(&daemon->pool, key - 1), 0, (size_t)daemon->schema.answers * sizeof(uint16_t));
    daemon->sync.after_key = key;
    return 0;
}

static void failed(struct daemon *daemon, const char *what)
{
    log_warning("cannot read the %s: %s; trying again", what, error_message());
    snprintf(daemon->problem, sizeof daemon->problem, "reading the %s: %s", what, error_message());
    daemon->galaxies_poll_ms = clock_ms() + RETRY_MS;
}

static void on_galaxies(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    daemon->sync.in_flight = false;
    int rows = code ? 0 : database_rows(result);
    if (!code && rows)
        code = pool_grow(&daemon->pool, unsigned_value(result, rows - 1, 0));
    for (int row = 0; !code && row < rows; row++)
        code = take_galaxy(daemon, result, row);
    if (code) {
        failed(daemon, "galaxies");
        return;
    }
    if (daemon->sync.after_key > daemon->galaxies)
        daemon->galaxies = daemon->sync.after_key;
    if (rows < SYNC_PAGE) {
        daemon->sync.step = SYNC_TALLIES;
        daemon->sync.after_key = 0;
    }
}

/* Columns: galaxy, answer_index, votes; every row of the galaxies after_key + 1 .. after_key + SYNC_PAGE. */
static void on_tallies(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    daemon->sync.in_flight = false;
    if (code) {
        failed(daemon, "tallies");
        return;
    }
    for (int row = 0; row < database_rows(result); row++) {
        uint64_t key = unsigned_value(result, row, 0), answer = unsigned_value(result, row, 1);
        uint64_t votes = unsigned_value(result, row, 2);
        if (key >= 1 && key <= daemon->galaxies && answer < (uint64_t)daemon->schema.answers)
            pool_tally(&daemon->pool, key - 1)[answer] = votes < UINT16_MAX ? (uint16_t)votes : UINT16_MAX;
    }
    daemon->sync.after_key += SYNC_PAGE;
    if (daemon->sync.after_key >= daemon->galaxies)
        daemon->sync.step = SYNC_CURSOR;
}

static void on_cursor(void *context, int code, const struct votes_cursor *cursor)
{
    struct daemon *daemon = context;
    daemon->sync.in_flight = false;
    if (code) {
        failed(daemon, "vote cursor");
        return;
    }
    daemon->ingest.horizon = cursor->horizon;
    daemon->ingest.applied = cursor->applied;
    daemon->ingest.quarantined = cursor->quarantined;
    daemon->ingest.repeated = cursor->repeated;
    pool_set_tally_stamp(&daemon->pool, cursor->horizon, cursor->system_identifier);
    daemon->sync.step = SYNC_DONE;
    daemon->problem[0] = 0;
    daemon->embed.after_key = daemon->embed.embedded = daemon->embed.bad = 0;
    count_state(daemon);
    log_info("in step with the database: %llu galaxies, %ld votes applied", (unsigned long long)daemon->galaxies,
             daemon->ingest.applied);
}

/* New galaxies are noticed by a cheap look at the highest key. */
static void on_highest_key(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    daemon->sync.in_flight = false;
    if (!code && unsigned_value(result, 0, 0) > daemon->galaxies)
        sync_restart(daemon, true);
}

void sync_step(struct daemon *daemon)
{
    struct sync *sync = &daemon->sync;
    int64_t now_ms = clock_ms();
    if (sync->in_flight || database_state(daemon->database) != DATABASE_READY || now_ms < daemon->galaxies_poll_ms ||
        (daemon->ingest.in_flight && sync->step != SYNC_DONE))
        return;
    int code = 0;
    if (sync->step == SYNC_NEEDED)
        sync_restart(daemon, true);
    if (sync->step == SYNC_GALAXIES)
        code = galaxies_send_page(daemon->database, sync->after_key, SYNC_PAGE, on_galaxies, daemon);
    else if (sync->step == SYNC_TALLIES)
        code =
            galaxies_send_tallies(daemon->database, sync->after_key, sync->after_key + SYNC_PAGE, on_tallies, daemon);
    else if (sync->step == SYNC_CURSOR)
        code = votes_send_cursor(daemon->database, on_cursor, daemon);
    else {
        daemon->galaxies_poll_ms = now_ms + daemon->config.poll_ms;
        code = galaxies_send_highest_key(daemon->database, on_highest_key, daemon);
    }
    sync->in_flight = code == 0;
}
