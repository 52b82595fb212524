/* See votes.h. */
#include "connectors/votes.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_MAX 100000

/* One of each may be under way; there is one daemon per database connection. */
static struct {
    votes_applied *done;
    void *context;
    int batch;
} applying;
static struct {
    votes_cursor_read *done;
    void *context;
} reading;

static int take_array(const struct database_result *result, int column, int64_t *values, int limit)
{
    return database_integers(database_value(result, 0, column), values, limit);
}

static void give_batch(const struct database_result *result, int64_t *values, int limit)
{
    int64_t *galaxy = values, *answer_index = values + limit, *increment = values + 2 * limit,
            *retired = values + 3 * limit;
    const char *more = database_value(result, 0, 6);
    struct votes_applied_batch batch = {.horizon = (uint64_t)database_integer(result, 0, 0),
                                        .system_identifier = (uint64_t)database_integer(result, 0, 1),
                                        .read = database_integer(result, 0, 2),
                                        .applied = database_integer(result, 0, 3),
                                        .repeated = database_integer(result, 0, 4),
                                        .quarantined = database_integer(result, 0, 5),
                                        .more = more && *more == 't',
                                        .galaxy = galaxy,
                                        .answer_index = answer_index,
                                        .increment = increment,
                                        .retired = retired};
    batch.count = take_array(result, 7, galaxy, limit);
    take_array(result, 8, answer_index, limit);
    take_array(result, 9, increment, limit);
    batch.retired_count = take_array(result, 10, retired, limit);
    applying.done(applying.context, 0, &batch);
}

static void on_applied(void *context, int code, const struct database_result *result)
{
    (void)context;
    int limit = applying.batch;
    int64_t *values = code ? NULL : calloc(4 * (size_t)limit + 1, sizeof *values);
    if (!code && !values)
        code = error_set(ERROR_SYSTEM, "out of memory for %d votes", limit);
    applying.batch = 0;
    if (code)
        applying.done(applying.context, code, NULL);
    else
        give_batch(result, values, limit);
    free(values);
}

int votes_send_apply(struct database *database, int batch, int retire_votes, votes_applied *done, void *context)
{
    char batch_text[16], retire_text[16];
    if (batch < 1 || batch > BATCH_MAX)
        return error_set(ERROR_LIMIT, "a batch holds 1 to %d votes", BATCH_MAX);
    if (applying.batch)
        return error_set(ERROR_STATE, "votes are being applied already");
    snprintf(batch_text, sizeof batch_text, "%d", batch);
    snprintf(retire_text, sizeof retire_text, "%d", retire_votes);
    const char *values[] = {batch_text, retire_text};
    int result = database_send(database, "SELECT * FROM triage.apply_votes($1, $2)", 2, values, on_applied, NULL);
    if (result)
        return result;
    applying.done = done;
    applying.context = context;
    applying.batch = batch;
    return 0;
}

static void on_cursor(void *context, int code, const struct database_result *result)
{
    (void)context;
    struct votes_cursor cursor = {0};
    if (!code)
        cursor = (struct votes_cursor){.horizon = (uint64_t)database_integer(result, 0, 0),
                                       .system_identifier = (uint64_t)database_integer(result, 0, 1),
                                       .applied = (long)database_integer(result, 0, 2),
                                       .repeated = (long)database_integer(result, 0, 3),
                                       .quarantined = (long)database_integer(result, 0, 4)};
    reading.done(reading.context, code, &cursor);
}

int votes_send_cursor(struct database *database, votes_cursor_read *done, void *context)
{
    reading.done = done;
    reading.context = context;
    return database_send(database,
                         "SELECT horizon, system_identifier, applied, repeated, quarantined FROM triage.cursor", 0,
                         NULL, on_cursor, NULL);
}
