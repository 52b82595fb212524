/*
 * Galaxies without an embedding go to the worker, a chunk at a time in key order; images that cannot be read
 * are put into quarantine with their reason and never stop anything. The next chunk waits until the database knows them.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "connectors/galaxies.h"
#include "daemon/daemon.h"
#include "daemon/jobs.h"
#include "daemon/log.h"

#include <stdlib.h>

#define RETRY_MS 1000

bool embed_finished(const struct daemon *daemon)
{
    return daemon->sync.step == SYNC_DONE && daemon->embed.after_key >= daemon->galaxies;
}

static void count_galaxy(struct daemon *daemon, uint64_t key)
{
    if (pool_state(&daemon->pool, key - 1)->flags & POOL_BAD)
        daemon->embed.bad++;
    else if (*pool_embedding_version(&daemon->pool, key - 1) == daemon->pool.trunk)
        daemon->embed.embedded++;
}

static bool needs_embedding(const struct daemon *daemon, uint64_t key)
{
    return !(pool_state(&daemon->pool, key - 1)->flags & POOL_BAD) &&
           *pool_embedding_version(&daemon->pool, key - 1) != daemon->pool.trunk;
}

/* Walks over galaxies that are done already, a bounded stretch per step. */
static void skip_done(struct daemon *daemon)
{
    struct embed *embed = &daemon->embed;
    for (int i = 0; i < 65536 && embed->after_key < daemon->galaxies; i++) {
        if (needs_embedding(daemon, embed->after_key + 1))
            return;
        count_galaxy(daemon, ++embed->after_key);
    }
}

/* However the last embedding came to be there: its worker may have died before it could say so. */
static void note_finished(struct daemon *daemon)
{
    struct embed *embed = &daemon->embed;
    if (!embed->unfinished || !embed_finished(daemon))
        return;
    embed->unfinished = false;
    log_info(EVENT_EMBEDDED, "embedded %llu galaxies, %llu images are bad", (unsigned long long)embed->embedded,
             (unsigned long long)embed->bad);
    daemon->problem[0] = 0;
    daemon->cycle.wanted = true;
}

void embed_again(struct daemon *daemon)
{
    daemon->embed.after_key = daemon->embed.embedded = daemon->embed.bad = 0;
}

static void failed(struct daemon *daemon, const char *what)
{
    log_warning(EVENT_EMBEDDING_FAILED, "%s: %s; trying again", what, error_message());
    snprintf(daemon->problem, sizeof daemon->problem, "embedding: %s", error_message());
    daemon->embed.retry_at_ms = clock_ms() + RETRY_MS;
}

static void on_noted(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    (void)result;
    daemon->embed.in_flight = false;
    if (code) {
        failed(daemon, "bad images were not noted");
        return;
    }
    free(daemon->embed.unnoted);
    daemon->embed.unnoted = NULL;
}

static void note_bad(struct daemon *daemon)
{
    struct embed *embed = &daemon->embed;
    embed->in_flight = galaxies_send_bad(daemon->database, embed->unnoted, on_noted, daemon) == 0;
    if (!embed->in_flight)
        failed(daemon, "bad images were not noted");
}

static void on_embedded(void *context, int code, const json_t *answer)
{
    struct daemon *daemon = context;
    struct embed *embed = &daemon->embed;
    const json_t *pair;
    size_t index;
    embed->in_flight = false;
    if (code) {
        failed(daemon, "images were not embedded");
        return;
    }
    FAULT(EMBED_ANSWERED);
    const json_t *bad = json_object_get(answer, "bad");
    json_array_foreach(bad, index, pair) meter_bad_image(&daemon->meters, json_string_value(json_array_get(pair, 1)));
    if (json_object_get(answer, "decode_s"))
        meter_observe(&daemon->meters.decoding, json_number_value(json_object_get(answer, "decode_s")));
    if (json_array_size(bad) && !(embed->unnoted = json_dumps(bad, JSON_COMPACT))) {
        error_set(ERROR_SYSTEM, "out of memory for a list of bad images");
        failed(daemon, "bad images were not noted");
        return;
    }
    json_array_foreach(bad, index, pair)
    {
        uint64_t key = (uint64_t)json_integer_value(json_array_get(pair, 0));
        if (key < 1 || key > daemon->galaxies)
            continue;
        daemon_set_flag(daemon, key, POOL_BAD, true);
        FAULT(BAD_FLAGGED);
        daemon_retract(daemon, key, "bad_image");
    }
    embed->images += json_number_value(json_object_get(answer, "embedded"));
    embed->seconds += json_number_value(json_object_get(answer, "seconds"));
    if (embed->unnoted)
        note_bad(daemon);
}

static void on_page(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    struct embed *embed = &daemon->embed;
    embed->in_flight = false;
    if (code) {
        failed(daemon, "a page of galaxies was not read");
        return;
    }
    int rows = database_rows(result);
    if (!rows) {
        embed->retry_at_ms = clock_ms() + RETRY_MS;
        return;
    }
    json_t *galaxies = json_array();
    for (int row = 0; row < rows; row++) {
        uint64_t key = (uint64_t)database_integer(result, row, 0);
        if (key > 0 && key <= daemon->galaxies && needs_embedding(daemon, key))
            json_array_append_new(galaxies, json_pack("[I,s]", (json_int_t)key, database_text(result, row, 2)));
    }
    code = worker_link_send(&daemon->worker, "embed",
                            json_pack("{s:o,s:I}", "galaxies", galaxies, "trunk", (json_int_t)daemon->pool.trunk),
                            on_embedded, daemon);
    embed->in_flight = code == 0;
    if (code)
        failed(daemon, "images were not sent to the worker");
    FAULT(EMBED_SENT);
}

void embed_step(struct daemon *daemon)
{
    struct embed *embed = &daemon->embed;
    if (embed->in_flight || daemon->sync.step != SYNC_DONE || clock_ms() < embed->retry_at_ms)
        return;
    if (embed->restarts_seen != daemon->worker.restarts)
        embed_again(daemon);
    embed->restarts_seen = daemon->worker.restarts;
    if (embed->unnoted) {
        note_bad(daemon);
        return;
    }
    skip_done(daemon);
    note_finished(daemon);
    if (embed->after_key >= daemon->galaxies || daemon->worker.state != WORKER_IDLE || daemon->cycle.in_flight ||
        daemon->cycle.step == CYCLE_FIT || daemon->cycle.step == CYCLE_RANK)
        return;
    embed->unfinished = true;
    embed->in_flight =
        galaxies_send_page(daemon->database, embed->after_key, (int)daemon->config.embed_chunk, on_page, daemon) == 0;
}
