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
    bool busy;
} applying;
static struct {
    votes_cursor_read *done;
    void *context;
} reading;
static struct {
    votes_prepared *done;
    void *context;
} preparing;

int votes_check_marks(const char *list)
{
    static const char *const known[] = {"seen_before", "gold_standard", "retired", "not_live"};
    for (const char *word = list + strspn(list, ", "); *word;) {
        size_t length = strcspn(word, ", "), k = 0;
        while (k < 4 && (strlen(known[k]) != length || strncmp(known[k], word, length) != 0))
            k++;
        if (k == 4)
            return error_set(ERROR_INPUT, "'%.*s' is no mark of votes; there are " VOTES_MARKS, (int)length, word);
        word += length;
        word += strspn(word, ", ");
    }
    return 0;
}

/* --- applying ------------------------------------------------------------------------------------------------------ */

static int elements(const char *array)
{
    int count = array && array[0] == '{' && array[1] != '}';
    for (; array && *array; array++)
        count += *array == ',';
    return count;
}

static void give_batch(const struct database_result *result, int64_t *values, int count)
{
    int64_t *galaxy = values, *answer_index = values + count, *votes = values + 2 * count,
            *retired = values + 3 * count;
    struct votes_applied_batch batch = {.horizon = (uint64_t)database_integer(result, 0, 0),
                                        .system_identifier = (uint64_t)database_integer(result, 0, 1),
                                        .rebuilds = database_integer(result, 0, 2),
                                        .read = database_integer(result, 0, 3),
                                        .applied = database_integer(result, 0, 4),
                                        .repeated = database_integer(result, 0, 5),
                                        .ignored = database_integer(result, 0, 6),
                                        .quarantined = database_integer(result, 0, 7),
                                        .more = *database_text(result, 0, 8) == 't',
                                        .lag_s = database_real(result, 0, 9),
                                        .held_by = database_text(result, 0, 10),
                                        .count = count,
                                        .galaxy = galaxy,
                                        .answer_index = answer_index,
                                        .votes = votes,
                                        .retired = retired};
    database_integers(database_value(result, 0, 11), galaxy, count);
    database_integers(database_value(result, 0, 12), answer_index, count);
    database_integers(database_value(result, 0, 13), votes, count);
    batch.retired_count = database_integers(database_value(result, 0, 14), retired, count);
    applying.done(applying.context, 0, &batch);
}

static void on_applied(void *context, int code, const struct database_result *result)
{
    (void)context;
    int count = code ? 0 : elements(database_value(result, 0, 11));
    int64_t *values = code ? NULL : calloc(4 * (size_t)count + 1, sizeof *values);
    if (!code && !values)
        code = error_set(ERROR_SYSTEM, "out of memory for %d tallies", count);
    applying.busy = false;
    if (code)
        applying.done(applying.context, code, NULL);
    else
        give_batch(result, values, count);
    free(values);
}

int votes_send_apply(struct database *database, int batch, int retire_votes, votes_applied *done, void *context)
{
    char batch_text[16], retire_text[16];
    if (batch < 1 || batch > BATCH_MAX)
        return error_set(ERROR_LIMIT, "a batch holds 1 to %d votes", BATCH_MAX);
    if (applying.busy)
        return error_set(ERROR_STATE, "votes are being applied already");
    snprintf(batch_text, sizeof batch_text, "%d", batch);
    snprintf(retire_text, sizeof retire_text, "%d", retire_votes);
    const char *values[] = {batch_text, retire_text};
    int result = database_send(database, "SELECT * FROM triage.apply_votes($1, $2)", 2, values, on_applied, NULL);
    if (result)
        return result;
    applying.done = done;
    applying.context = context;
    applying.busy = true;
    return 0;
}

/* --- rules and rebuilding ---------------------------------------------------------------------------------------------- */

static void on_prepared(void *context, int code, const struct database_result *result)
{
    (void)context;
    preparing.done(preparing.context, code, code ? NULL : database_value(result, 0, 0));
}

int votes_send_prepare(struct database *database, const struct votes_rules *rules, votes_prepared *done, void *context)
{
    char marks[VOTES_TEXT_BYTES + 2];
    snprintf(marks, sizeof marks, "{%s}", rules->count_also);
    const char *values[] = {rules->voter, marks, rules->weighting ? "t" : "f"};
    preparing.done = done;
    preparing.context = context;
    if (database_room(database) < 3)
        return error_set(ERROR_LIMIT, "too many statements wait for the database");
    /* it may take minutes; other statements of this connection may not */
    int result = database_send(database, "SET statement_timeout = 0", 0, NULL, NULL, NULL);
    if (!result)
        result =
            database_send(database, "SELECT triage.prepare_votes($1, $2::text[], $3)", 3, values, on_prepared, NULL);
    if (!result)
        result = database_send(database, "SET statement_timeout = '30s'", 0, NULL, NULL, NULL);
    if (result)
        database_hang_up(database); /* the next connection has its limit again */
    return result;
}

int votes_send_lag(struct database *database, database_done *done, void *context)
{
    return database_send(database, "SELECT triage.vote_lag()", 0, NULL, done, context);
}

int votes_rebuild(struct database *database)
{
    return database_run(database, "SELECT triage.rebuild_tallies()", 0, NULL, NULL);
}

static int run_for_number(struct database *database, const char *sql, int64_t *ret_number)
{
    struct database_result *rows = NULL;
    int result = database_run(database, sql, 0, NULL, &rows);
    *ret_number = result ? 0 : database_integer(rows, 0, 0);
    database_result_free(rows);
    return result;
}

int votes_retry(struct database *database, int64_t *ret_votes)
{
    return run_for_number(database, "SELECT triage.retry_quarantine()", ret_votes);
}

int votes_weigh(struct database *database, int64_t *ret_voters)
{
    return run_for_number(database, "SELECT triage.weigh_votes()", ret_voters);
}

/* --- the rest ----------------------------------------------------------------------------------------------------------- */

static void on_cursor(void *context, int code, const struct database_result *result)
{
    (void)context;
    struct votes_cursor cursor = {0};
    if (!code)
        cursor = (struct votes_cursor){.horizon = (uint64_t)database_integer(result, 0, 0),
                                       .system_identifier = (uint64_t)database_integer(result, 0, 1),
                                       .rebuilds = database_integer(result, 0, 2),
                                       .applied = (long)database_integer(result, 0, 3),
                                       .repeated = (long)database_integer(result, 0, 4),
                                       .ignored = (long)database_integer(result, 0, 5),
                                       .quarantined = (long)database_integer(result, 0, 6),
                                       .version = (uint64_t)database_integer(result, 0, 7)};
    reading.done(reading.context, code, &cursor);
}

int votes_send_cursor(struct database *database, votes_cursor_read *done, void *context)
{
    reading.done = done;
    reading.context = context;
    return database_send(database,
                         "SELECT horizon, system_identifier, rebuilds, applied, repeated, ignored, quarantined, xmin "
                         "FROM triage.cursor",
                         0, NULL, on_cursor, NULL);
}

int votes_send_partitions(struct database *database, database_done *done, void *context)
{
    return database_send(database, "SELECT made, refused FROM triage.make_partitions()", 0, NULL, done, context);
}

int votes_send_quarantine_list(struct database *database, int limit, database_done *done, void *context)
{
    char text[16];
    snprintf(text, sizeof text, "%d", limit);
    const char *values[] = {text};
    return database_send(
        database,
        "SELECT what, sum(n) FROM ("
        "  SELECT reason || ': ' || CASE reason WHEN 'unknown galaxy' THEN id_str WHEN 'unknown question' "
        "    THEN question WHEN 'unknown mark' THEN marks::text ELSE question || '_' || answer END AS what, "
        "    count(*) AS n FROM triage.quarantine GROUP BY what"
        "  UNION ALL SELECT 'reduction, ' || problem || ': ' || CASE problem WHEN 'unknown galaxy' THEN "
        "    id_str ELSE question END, count(*) FROM triage.reduction WHERE problem IS NOT NULL GROUP BY 1"
        "  UNION ALL SELECT 'row of ' || source || ': ' || reason, count(*) FROM triage.rejected_row "
        "    GROUP BY 1) AS all_kinds GROUP BY what ORDER BY sum(n) DESC, what LIMIT $1",
        1, values, done, context);
}
