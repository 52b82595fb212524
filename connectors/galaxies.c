/* See galaxies.h. */
#include "connectors/galaxies.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/text.h"
#include "model/split.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- registration ----------------------------------------------------------------------------------------------- */

static int register_answers(struct database *database, const struct schema *schema)
{
    int result = 0;
    for (int a = 0; a < schema->answers && !result; a++) {
        const struct answer *answer = &schema->answer[a];
        char index[16], question[16];
        snprintf(index, sizeof index, "%d", a);
        snprintf(question, sizeof question, "%d", answer->question);
        const char *values[] = {index, schema->question[answer->question].name, answer->name,
                                answer->question == 0 ? "t" : "f", question};
        result = database_run(database,
                              "INSERT INTO triage.answer (answer_index, question, answer, is_root, question_index) "
                              "VALUES ($1, $2, $3, $4, $5)",
                              5, values, NULL);
    }
    return result;
}

static int register_first(struct database *database, const struct schema *schema)
{
    const char *values[] = {schema->name, schema->hash};
    int result = database_script(database, "BEGIN");
    if (!result)
        result = database_run(database, "INSERT INTO triage.instance (schema_name, schema_hash) VALUES ($1, $2)", 2,
                              values, NULL);
    if (!result)
        result = register_answers(database, schema);
    return result ? result : database_script(database, "COMMIT");
}

int galaxies_register(struct database *database, const struct schema *schema)
{
    struct database_result *rows;
    int result = database_run(database, "SELECT schema_name, schema_hash FROM triage.instance", 0, NULL, &rows);
    if (result)
        return result;
    if (database_rows(rows) == 0)
        result = register_first(database, schema);
    else if (strcmp(database_text(rows, 0, 1), schema->hash) != 0)
        result = error_set(ERROR_STATE,
                           "the database serves schema %s (%s), the configuration names %s (%s): set "
                           "instance.schema back, or use a new database",
                           database_value(rows, 0, 0), database_value(rows, 0, 1), schema->name, schema->hash);
    database_result_free(rows);
    return result;
}

/* --- import ------------------------------------------------------------------------------------------------------- */

struct import {
    const struct schema *schema;
    galaxies_next *next;
    void *context;
    double fraction;
    int64_t rows;
};

static void append_number(struct text *line, double value)
{
    if (isnan(value))
        text_append_bytes(line, "\t\\N", 3);
    else
        text_append(line, "\t%.10g", value);
}

/* One staging line: place, id, file, ra, dec, split, votes as an array (or \N). */
static int next_line(void *context, struct text *line)
{
    struct import *import = context;
    struct galaxy_row row;
    int got = import->next(import->context, &row);
    if (got <= 0)
        return got;
    text_append(line, "%lld\t", (long long)++import->rows);
    database_copy_field(line, row.id_str);
    text_append_bytes(line, "\t", 1);
    database_copy_field(line, row.file_loc);
    append_number(line, row.ra);
    append_number(line, row.dec);
    text_append(line, "\t%d\t", (int)split_of(row.id_str, import->fraction));
    if (!row.votes)
        text_append_bytes(line, "\\N", 2);
    for (int a = 0; row.votes && a < import->schema->answers; a++)
        text_append(line, "%s%u", a ? "," : "{", row.votes[a]);
    text_append(line, row.votes ? "}\n" : "\n%s", "");
    return 1;
}

/* The split is decided once, by the first import. */
static int split_share(struct database *database, int64_t expected_rows, double *ret_fraction)
{
    char text[32];
    struct database_result *rows;
    snprintf(text, sizeof text, "%.17g", split_fraction((uint64_t)expected_rows));
    const char *values[] = {text};
    int result = database_run(database,
                              "UPDATE triage.instance SET split_fraction = COALESCE(split_fraction, $1) "
                              "RETURNING split_fraction",
                              1, values, &rows);
    if (result)
        return result;
    *ret_fraction = database_rows(rows) ? database_real(rows, 0, 0) : 0.05;
    database_result_free(rows);
    return 0;
}

static int refuse_conflicts(struct database *database)
{
    struct database_result *rows;
    int result =
        database_run(database,
                     "SELECT s.id_str, g.file_loc, s.file_loc FROM staging s JOIN triage.galaxy g USING (id_str) "
                     "WHERE g.file_loc <> s.file_loc ORDER BY s.place LIMIT 1",
                     0, NULL, &rows);
    if (result)
        return result;
    if (database_rows(rows))
        result = error_set(ERROR_INPUT, "galaxy %s is known with the image %s, the catalogue says %s; nothing imported",
                           database_value(rows, 0, 0), database_value(rows, 0, 1), database_value(rows, 0, 2));
    database_result_free(rows);
    return result;
}

static const char *const move_rows =
    "WITH fresh AS ("
    "  SELECT s.*, row_number() OVER (ORDER BY s.place) + (SELECT COALESCE(max(key), 0) FROM triage.galaxy) AS key"
    "  FROM staging s WHERE NOT EXISTS (SELECT 1 FROM triage.galaxy g WHERE g.id_str = s.id_str)"
    "), added AS ("
    "  INSERT INTO triage.galaxy (key, id_str, file_loc, ra, dec, split, root_votes)"
    "  SELECT key, id_str, file_loc, ra, dec, split, COALESCE((SELECT sum(v.n) FROM unnest(votes) WITH ORDINALITY v(n, "
    "i)"
    "    JOIN triage.answer a ON a.answer_index = v.i - 1 WHERE a.is_root), 0) FROM fresh RETURNING 1"
    "), counts AS ("
    "  SELECT f.key AS galaxy, (v.i - 1)::smallint AS answer_index, v.n::integer AS votes"
    "  FROM fresh f, unnest(f.votes) WITH ORDINALITY v(n, i) WHERE v.n > 0"
    "), kept AS ("
    "  INSERT INTO triage.catalogue_count SELECT * FROM counts"
    "), tallied AS ("
    "  INSERT INTO triage.tally SELECT * FROM counts"
    ") SELECT count(*) FROM added";

static int import_rows(struct database *database, struct import *import, int64_t expected_rows,
                       struct import_report *report)
{
    struct database_result *rows = NULL;
    int result = database_script(
        database, "SELECT 1 FROM triage.cursor FOR UPDATE; " /* before the galaxies, as votes are applied */
                  "LOCK TABLE triage.galaxy IN SHARE ROW EXCLUSIVE MODE; "
                  "CREATE TEMPORARY TABLE staging (place bigint, id_str text, file_loc text, ra double "
                  "precision, dec double precision, split smallint, votes integer[]) ON COMMIT DROP");
    if (!result)
        result = split_share(database, expected_rows, &import->fraction);
    if (!result)
        result = database_copy(database, "COPY staging FROM STDIN", next_line, import);
    FAULT(IMPORT_STAGED);
    if (!result)
        result = refuse_conflicts(database);
    if (!result)
        result = database_run(database, move_rows, 0, NULL, &rows);
    if (!result) /* votes that came before their galaxy */
        result = database_run(database, "SELECT triage.retry_quarantine()", 0, NULL, NULL);
    FAULT(IMPORT_MOVED);
    if (!result)
        *report = (struct import_report){.rows = import->rows,
                                         .added = database_integer(rows, 0, 0),
                                         .known = import->rows - database_integer(rows, 0, 0),
                                         .split_fraction = import->fraction};
    database_result_free(rows);
    return result;
}

int galaxies_import(struct database *database, const struct schema *schema, int64_t expected_rows, galaxies_next *next,
                    void *context, struct import_report *ret_report)
{
    struct import import = {.schema = schema, .next = next, .context = context};
    int result = database_script(database, "BEGIN");
    if (!result)
        result = import_rows(database, &import, expected_rows, ret_report);
    if (!result)
        return database_script(database, "COMMIT");
    char message[ERROR_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", error_message());
    database_script(database, "ROLLBACK");
    return error_set(result, "%s", message);
}

/* --- pages and marks ------------------------------------------------------------------------------------------------ */

static int send_with_numbers(struct database *database, const char *sql, int count, const uint64_t *numbers,
                             database_done *done, void *context)
{
    char text[4][24];
    const char *values[4];
    for (int i = 0; i < count; i++) {
        snprintf(text[i], sizeof text[i], "%llu", (unsigned long long)numbers[i]);
        values[i] = text[i];
    }
    return database_send(database, sql, count, values, done, context);
}

int galaxies_send_page(struct database *database, uint64_t after_key, int limit, database_done *done, void *context)
{
    return send_with_numbers(
        database,
        "SELECT key, id_str, file_loc, split, excluded, pinned, bad_reason IS NOT NULL, "
        "retired_at IS NOT NULL, root_votes, ra, dec FROM triage.galaxy WHERE key > $1 ORDER BY key LIMIT $2",
        2, (uint64_t[]){after_key, (uint64_t)limit}, done, context);
}

int galaxies_send_tallies(struct database *database, uint64_t after_key, uint64_t last_key, database_done *done,
                          void *context)
{
    return send_with_numbers(database,
                             "SELECT galaxy, answer_index, votes FROM triage.tally WHERE galaxy > $1 AND galaxy <= $2 "
                             "ORDER BY galaxy",
                             2, (uint64_t[]){after_key, last_key}, done, context);
}

int galaxies_send_settle_retirement(struct database *database, int retire_votes, database_done *done, void *context)
{
    return send_with_numbers(database, "SELECT triage.settle_retirement($1)", 1, (uint64_t[]){(uint64_t)retire_votes},
                             done, context);
}

int galaxies_send_highest_key(struct database *database, database_done *done, void *context)
{
    return database_send(database,
                         "SELECT COALESCE(max(key), 0), current_setting('transaction_read_only') FROM triage.galaxy", 0,
                         NULL, done, context);
}

int galaxies_send_bad(struct database *database, const char *json, database_done *done, void *context)
{
    const char *values[] = {json};
    return database_send(database,
                         "UPDATE triage.galaxy g SET bad_reason = COALESCE(b->>1, 'unreadable'), "
                         "bad_since = clock_timestamp() FROM json_array_elements($1::json) b "
                         "WHERE g.key = (b->>0)::bigint",
                         1, values, done, context);
}

int galaxies_send_bad_list(struct database *database, int limit, database_done *done, void *context)
{
    return send_with_numbers(database,
                             "SELECT id_str, file_loc, bad_reason FROM triage.galaxy WHERE bad_reason IS NOT NULL "
                             "ORDER BY key LIMIT $1",
                             1, (uint64_t[]){(uint64_t)limit}, done, context);
}

int galaxies_send_retry_bad(struct database *database, database_done *done, void *context)
{
    return database_send(database,
                         "UPDATE triage.galaxy SET bad_reason = NULL, bad_since = NULL WHERE bad_reason IS NOT NULL", 0,
                         NULL, done, context);
}

int galaxies_send_mark(struct database *database, uint64_t key, const char *column, bool on, database_done *done,
                       void *context)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)key);
    const char *values[] = {text, on ? "t" : "f"};
    const char *sql = strcmp(column, "pinned") == 0 ? "UPDATE triage.galaxy SET pinned = $2 WHERE key = $1"
                                                    : "UPDATE triage.galaxy SET excluded = $2 WHERE key = $1";
    return database_send(database, sql, 2, values, done, context);
}

int galaxies_send_retired(struct database *database, const uint64_t *keys, size_t count, struct arena *memory)
{
    char *text = arena_alloc(memory, count * 24 + 8), *at = text;
    if (!text)
        return ERROR_LIMIT;
    *at++ = '{';
    for (size_t i = 0; i < count; i++)
        at += snprintf(at, 24, "%s%llu", i ? "," : "", (unsigned long long)keys[i]);
    snprintf(at, 2, "}");
    const char *values[] = {text};
    return database_send(database,
                         "UPDATE triage.galaxy SET retired_at = clock_timestamp(), retired_why = 'information' "
                         "WHERE key = ANY($1::bigint[]) AND retired_at IS NULL",
                         1, values, NULL, NULL);
}
