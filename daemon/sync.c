/*
 * Brings the pool's identity, state and tally columns in line with the database: page by page, at start, after new
 * galaxies were imported, and after a connection was lost with a batch of votes under way. The database is the truth;
 * the pool is a cache that carries the cursor it was made at.
 */
#include "acquisition/duplicates.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "connectors/galaxies.h"
#include "connectors/votes.h"
#include "daemon/daemon.h"
#include "daemon/log.h"

#include <math.h>
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

static double real_value(const struct database_result *result, int row, int column)
{
    const char *text = database_value(result, row, column);
    return text ? strtod(text, NULL) : NAN;
}

void sync_restart(struct daemon *daemon)
{
    daemon->sync.again = daemon->sync.in_flight && daemon->sync.step != SYNC_DONE;
    if (daemon->sync.again)
        return;
    daemon->sync.step = SYNC_PREPARE;
    daemon->sync.after_key = 0;
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

static void failed(struct daemon *daemon, const char *what)
{
    log_warning(EVENT_SYNC_FAILED, "cannot read the %s: %s; trying again", what, error_message());
    snprintf(daemon->problem, sizeof daemon->problem, "reading the %s: %s", what, error_message());
    daemon->galaxies_poll_ms = clock_ms() + RETRY_MS;
}

/* The daemon that an answer has come to; NULL after noting trouble with reading `what`. */
static struct daemon *answered(void *context, int code, const char *what)
{
    struct daemon *daemon = context;
    daemon->sync.in_flight = false;
    if (code)
        failed(daemon, what);
    return code ? NULL : daemon;
}

/* The tallies are right, or were made right. */
static void on_prepared(void *context, int code, const char *why)
{
    struct daemon *daemon = answered(context, code, "rules of the votes");
    if (!daemon)
        return;
    if (why)
        log_info(EVENT_TALLIES_REBUILT, "the tallies were made again from every vote: %s", why);
    daemon->sync.step = SYNC_RETIREMENT;
}

static void on_settled(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = answered(context, code, "retired galaxies");
    if (!daemon)
        return;
    if (unsigned_value(result, 0, 0))
        log_info(EVENT_RETIREMENT, "%llu galaxies changed sides by queue.retire_votes = %lld",
                 (unsigned long long)unsigned_value(result, 0, 0), (long long)daemon->config.retire_votes);
    daemon->sync.step = SYNC_BEGIN;
}

static void on_begin(void *context, int code, const struct votes_cursor *cursor)
{
    struct daemon *daemon = answered(context, code, "vote cursor");
    if (!daemon)
        return;
    daemon->sync.version = cursor->version;
    daemon->sync.step = SYNC_GALAXIES;
}

/* Columns: key, id_str, file_loc, split, excluded, pinned, bad, retired, root_votes, ra, dec. */
static int take_galaxy(struct daemon *daemon, const struct database_result *result, int row)
{
    uint64_t key = unsigned_value(result, row, 0);
    const char *id_str = database_text(result, row, 1);
    if (key != daemon->sync.after_key + 1)
        return error_set(ERROR_STATE, "galaxy keys are not dense: %llu follows %llu; restore the database",
                         (unsigned long long)key, (unsigned long long)daemon->sync.after_key);
    struct pool_identity *identity = pool_identity(&daemon->pool, key - 1);
    if (strcmp(identity->id_str, id_str) != 0) { /* another galaxy's, or a new row */
        pool_forget_embeddings(&daemon->pool, key - 1);
        memset(pool_tally(&daemon->pool, key - 1), 0, (size_t)daemon->schema.answers * sizeof(uint16_t));
    }
    snprintf(identity->id_str, sizeof identity->id_str, "%s", id_str);
    struct pool_state *state = pool_state(&daemon->pool, key - 1);
    uint8_t queued = state->flags & POOL_QUEUED;
    state->flags =
        (uint8_t)(queued | (true_value(result, row, 4) ? POOL_EXCLUDED : 0) |
                  (true_value(result, row, 5) ? POOL_PINNED : 0) | (true_value(result, row, 6) ? POOL_BAD : 0) |
                  (true_value(result, row, 7) ? POOL_RETIRED : 0));
    state->split = (uint8_t)unsigned_value(result, row, 3);
    uint64_t root_votes = unsigned_value(result, row, 8);
    state->root_votes = root_votes < UINT16_MAX ? (uint16_t)root_votes : UINT16_MAX;
    place_on_sky(real_value(result, row, 9), real_value(result, row, 10), pool_position(&daemon->pool, key - 1)->unit);
    daemon->sync.after_key = key;
    return 0;
}

static void on_galaxies(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    daemon->sync.in_flight = false;
    int rows = code ? 0 : database_rows(result);
    if (!code && rows)
        code = pool_grow(&daemon->pool, daemon->sync.after_key + (uint64_t)rows); /* keys are dense, or refused */
    FAULT(POOL_GROWN);
    for (int row = 0; !code && row < rows; row++)
        code = take_galaxy(daemon, result, row);
    if (code) {
        failed(daemon, "galaxies");
        return;
    }
    FAULT(GALAXIES_TAKEN);
    if (daemon->sync.after_key > daemon->galaxies)
        daemon->galaxies = daemon->sync.after_key;
    if (rows < SYNC_PAGE) {
        daemon->sync.step = SYNC_TALLIES;
        daemon->sync.after_key = 0;
    }
}

/* The tally of one galaxy from *row on, and on to the next galaxy's rows. In one go: the worker may be reading. */
static void take_tallies(struct daemon *daemon, uint64_t key, const struct database_result *result, int *row)
{
    uint16_t tally[SCHEMA_ANSWERS_MAX] = {0};
    for (; *row < database_rows(result) && unsigned_value(result, *row, 0) == key; (*row)++) {
        uint64_t answer = unsigned_value(result, *row, 1), votes = unsigned_value(result, *row, 2);
        if (answer < (uint64_t)daemon->schema.answers)
            tally[answer] = votes < UINT16_MAX ? (uint16_t)votes : UINT16_MAX;
    }
    memcpy(pool_tally(&daemon->pool, key - 1), tally, (size_t)daemon->schema.answers * sizeof *tally);
}

/* Columns: galaxy, answer_index, votes; every row of the galaxies after_key + 1 .. after_key + SYNC_PAGE, by galaxy. */
static void on_tallies(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = answered(context, code, "tallies");
    if (!daemon)
        return;
    uint64_t last = daemon->sync.after_key + SYNC_PAGE;
    int row = 0;
    for (uint64_t key = daemon->sync.after_key + 1; key <= last && key <= daemon->galaxies; key++)
        take_tallies(daemon, key, result, &row);
    FAULT(TALLIES_READ);
    daemon->sync.after_key = last;
    if (daemon->sync.after_key >= daemon->galaxies)
        daemon->sync.step = SYNC_CURSOR;
}

/* What was read may say that a galaxy on offer should not be. */
static void clean_queue(struct daemon *daemon)
{
    for (size_t i = daemon->queue.count; daemon->ready && i-- > 0;) {
        uint64_t key = daemon->queue.entries[i].key;
        int flags = pool_state(&daemon->pool, key - 1)->flags;
        if (flags & (POOL_RETIRED | POOL_EXCLUDED | POOL_BAD))
            daemon_retract(daemon, key,
                           flags & POOL_RETIRED    ? "retired"
                           : flags & POOL_EXCLUDED ? "excluded"
                                                   : "bad_image");
    }
}

/* Votes whose batch was committed, but its answer lost, are as new to the next cycle as others. */
static void note_unheard(struct daemon *daemon, long applied)
{
    struct ingest *ingest = &daemon->ingest;
    long unheard = applied - ingest->applied;
    if (!daemon->ready || unheard == 0) /* a start looks at all of them */
        return;
    if (!ingest->waiting)
        ingest->waiting_since_ms = clock_ms();
    ingest->waiting += unheard > 0 ? unheard : 1; /* or they were counted anew */
}

static void on_cursor(void *context, int code, const struct votes_cursor *cursor)
{
    struct daemon *daemon = answered(context, code, "vote cursor");
    if (!daemon)
        return;
    FAULT(CURSOR_READ);
    if (cursor->version != daemon->sync.version) { /* a rebuild, or a batch from before the connection was lost */
        log_info(EVENT_TALLIES_REBUILT, "tallies changed while they were read: reading them all again");
        sync_restart(daemon);
        return;
    }
    note_unheard(daemon, cursor->applied);
    daemon->ingest.horizon = cursor->horizon;
    daemon->ingest.applied = cursor->applied;
    daemon->ingest.quarantined = cursor->quarantined;
    daemon->ingest.repeated = cursor->repeated;
    daemon->ingest.ignored = cursor->ignored;
    daemon->ingest.rebuilds = cursor->rebuilds;
    pool_set_tally_stamp(&daemon->pool, cursor->horizon, cursor->system_identifier);
    daemon->sync.step = SYNC_DONE;
    daemon->problem[0] = 0;
    embed_again(daemon);
    count_state(daemon);
    clean_queue(daemon);
    log_info(EVENT_SYNCED, "in step with the database: %llu galaxies, %ld votes applied",
             (unsigned long long)daemon->galaxies, daemon->ingest.applied);
}

static void note_writable(struct daemon *daemon, bool read_only)
{
    if (daemon->read_only != read_only)
        log_warning(EVENT_DATABASE_WRITES, "the database %s",
                    read_only ? "takes no writes: votes and cycles wait" : "takes writes again");
    daemon->read_only = read_only;
    if (read_only)
        incident_begin(&daemon->incidents, INCIDENT_READ_ONLY, "transaction_read_only is on");
    else
        incident_end(&daemon->incidents, INCIDENT_READ_ONLY);
}

/* New galaxies are noticed by a cheap look at the highest key; with it comes whether the database can be written to. */
static void on_highest_key(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    daemon->sync.in_flight = false;
    if (code)
        return;
    const char *read_only = database_value(result, 0, 1);
    note_writable(daemon, read_only && strcmp(read_only, "on") == 0);
    if (unsigned_value(result, 0, 0) > daemon->galaxies)
        sync_restart(daemon);
}

void sync_step(struct daemon *daemon)
{
    struct sync *sync = &daemon->sync;
    int64_t now_ms = clock_ms();
    if (sync->in_flight || database_state(daemon->database) != DATABASE_READY || now_ms < daemon->galaxies_poll_ms ||
        (daemon->ingest.in_flight && sync->step != SYNC_DONE))
        return;
    int code = 0;
    if (sync->step == SYNC_NEEDED || sync->again)
        sync_restart(daemon);
    if (sync->step == SYNC_PREPARE) {
        const struct config *config = &daemon->config;
        struct votes_rules rules = {config->vote_voter, config->vote_count_also,
                                    strcmp(config->vote_weighting, "agreement") == 0};
        code = votes_send_prepare(daemon->database, &rules, on_prepared, daemon);
    } else if (sync->step == SYNC_RETIREMENT)
        code = galaxies_send_settle_retirement(daemon->database, (int)daemon->config.retire_votes, on_settled, daemon);
    else if (sync->step == SYNC_BEGIN)
        code = votes_send_cursor(daemon->database, on_begin, daemon);
    else if (sync->step == SYNC_GALAXIES)
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
    sync->sent_ms = now_ms;
}
