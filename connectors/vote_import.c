/* See vote_import.h. */
#include "connectors/vote_import.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/hash.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START_BYTES     65536
#define SOURCE_BYTES    512
#define PARTITION_TRIES 5

struct importing {
    struct database *database;
    struct vote_file *file;
    struct vote_import_progress *progress;
    struct file_record record;
    char source[SOURCE_BYTES];
    int part_rows, rows; /* of the part at hand */
    int vote;            /* next of the record at hand */
    int64_t offset;      /* behind the last record that could be read */
    long line;
    struct text rejected; /* COPY lines */
    size_t rejected_sent; /* bytes of them */
    bool ended;
    int broken; /* why the file cannot be read on, when what came before it is in */
    char message[ERROR_MESSAGE_BYTES];
};

/* --- which file ------------------------------------------------------------------------------------------------- */

static int name_source(struct importing *importing, const char *path, int64_t bytes)
{
    char *start = malloc(START_BYTES), hash[HASH_TEXT_BYTES];
    FILE *file = start ? fopen(path, "re") : NULL;
    if (!file) {
        free(start);
        return start ? error_set_errno("cannot read %s", path) : error_set(ERROR_SYSTEM, "out of memory for an import");
    }
    hash_text(start, fread(start, 1, START_BYTES, file), hash);
    fclose(file);
    free(start);
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    snprintf(importing->source, sizeof importing->source, "%.255s, %lld bytes, %.8s", name, (long long)bytes, hash);
    text_make_printable(importing->source);
    return 0;
}

static int find_place(struct importing *importing)
{
    struct vote_import_progress *progress = importing->progress;
    const char *values[] = {importing->source};
    struct database_result *rows = NULL;
    int result =
        database_run(importing->database, "INSERT INTO triage.vote_import (source) VALUES ($1) ON CONFLICT DO NOTHING",
                     1, values, NULL);
    if (!result)
        result = database_run(importing->database,
                              "SELECT offset_bytes, line, rows, votes, added, rejected, finished_at IS NOT NULL "
                              "FROM triage.vote_import WHERE source = $1",
                              1, values, &rows);
    if (result)
        return result;
    int64_t offset = database_integer(rows, 0, 0);
    progress->rows = database_integer(rows, 0, 2);
    progress->votes = database_integer(rows, 0, 3);
    progress->added = database_integer(rows, 0, 4);
    progress->rejected = database_integer(rows, 0, 5);
    progress->finished_before = database_text(rows, 0, 6)[0] == 't';
    progress->resumed = offset > 0;
    if (offset) {
        importing->offset = offset;
        importing->line = (long)database_integer(rows, 0, 1);
        result = vote_file_seek(importing->file, offset, importing->line);
    }
    progress->offset = offset;
    database_result_free(rows);
    return result;
}

/* --- one part ------------------------------------------------------------------------------------------------------ */

static int reject(struct importing *importing)
{
    struct vote_import_progress *progress = importing->progress;
    char line[24], reason[ERROR_MESSAGE_BYTES];
    snprintf(reason, sizeof reason, "%s", error_message());
    if (++progress->rejected > VOTE_IMPORT_REJECTED_MAX && progress->rejected > progress->rows / 20)
        return error_set(ERROR_INPUT,
                         "line %ld: %.300s; that is row %lld without sense of %lld: is this the right file?",
                         importing->record.line, reason, (long long)progress->rejected, (long long)progress->rows);
    snprintf(line, sizeof line, "\t%ld\t", importing->record.line);
    text_make_printable(reason);
    database_copy_field(&importing->rejected, importing->source);
    text_append_bytes(&importing->rejected, line, strlen(line));
    database_copy_field(&importing->rejected, reason);
    text_append_bytes(&importing->rejected, "\n", 1);
    return text_error(&importing->rejected);
}

/* 1 with a record that has votes, 0 at the end of the part, or a negative code. */
static int next_record(struct importing *importing)
{
    while (importing->rows < importing->part_rows) {
        int64_t bytes;
        int got = vote_file_next(importing->file, &importing->record);
        importing->ended = got == 0;
        if (got < 0 && vote_file_broken(importing->file)) {
            importing->broken = got;
            snprintf(importing->message, sizeof importing->message, "%s", error_message());
            return 0;
        }
        vote_file_position(importing->file, &importing->offset, &importing->line, &bytes);
        if (got == 0)
            return 0;
        importing->rows++;
        importing->progress->rows++;
        int result = got < 0 ? reject(importing) : 0;
        if (result)
            return result;
        importing->progress->passed_over += got > 0 && importing->record.passed_over;
        if (got > 0 && importing->record.votes)
            return 1;
    }
    return 0;
}

static void append_field(struct text *line, const char *value, const char *end)
{
    database_copy_field(line, *value ? value : NULL);
    text_append_bytes(line, end, 1);
}

/* Marks as an array of quoted words: {null} would be no word. */
static void append_marks(struct text *line, const char *marks)
{
    char array[VOTE_FILE_TEXT_BYTES + 2 * VOTE_FILE_MARKS_MAX + 3] = "{";
    size_t used = 1;
    for (const char *word = marks + strspn(marks, ", "); *word; word += strspn(word, ", ")) {
        int length = (int)strcspn(word, ", ");
        used += (size_t)snprintf(array + used, sizeof array - used, "%s\"%.*s\"", used > 1 ? "," : "", length, word);
        word += length;
    }
    snprintf(array + used, sizeof array - used, "}");
    append_field(line, used > 1 ? array : "", "\t");
}

static int next_vote(void *context, struct text *line)
{
    struct importing *importing = context;
    struct file_record *record = &importing->record;
    if (importing->vote == record->votes) {
        int got = next_record(importing);
        if (got <= 0)
            return got;
        importing->vote = 0;
    }
    const struct file_vote *vote = &record->vote[importing->vote++];
    text_append(line, "%lld\t", (long long)record->classification);
    append_field(line, vote->question, "\t");
    append_field(line, vote->answer, "\t");
    append_field(line, record->id_str, "\t");
    append_field(line, record->voter, "\t");
    append_marks(line, record->marks);
    append_field(line, record->classified_at, "\n");
    importing->progress->votes++;
    return 1;
}

static int next_rejected(void *context, struct text *line)
{
    struct importing *importing = context;
    if (importing->rejected_sent == importing->rejected.length) {
        importing->rejected_sent = 0;
        text_clear(&importing->rejected);
        return 0;
    }
    const char *next = importing->rejected.bytes + importing->rejected_sent;
    size_t length = strcspn(next, "\n") + 1;
    text_append_bytes(line, next, length);
    importing->rejected_sent += length;
    return 1;
}

/* Notes the place; somebody else who imports the same file has moved it. */
static int keep_place(struct importing *importing, int64_t from, int64_t *added)
{
    struct vote_import_progress *progress = importing->progress;
    char number[7][24];
    progress->offset = importing->offset;
    const int64_t values[] = {from,
                              importing->offset,
                              importing->line,
                              progress->rows,
                              progress->votes,
                              progress->added + *added,
                              progress->rejected};
    const char *parameters[9] = {importing->source, importing->ended ? "t" : "f"};
    for (int i = 0; i < 7; i++) {
        snprintf(number[i], sizeof number[i], "%lld", (long long)values[i]);
        parameters[i + 2] = number[i];
    }
    struct database_result *rows = NULL;
    int result =
        database_run(importing->database,
                     "UPDATE triage.vote_import SET offset_bytes = $4, line = $5, rows = $6, votes = $7, added = $8, "
                     "rejected = $9, finished_at = CASE WHEN $2::boolean THEN clock_timestamp() END "
                     "WHERE source = $1 AND offset_bytes = $3 RETURNING 1",
                     9, parameters, &rows);
    if (!result && !database_rows(rows))
        result = error_set(ERROR_STATE, "somebody else imports this file: wait for the end of that");
    database_result_free(rows);
    return result;
}

/* Reads the part into the staging table; outside any transaction, so that nobody waits for the file. */
static int stage_part(struct importing *importing)
{
    struct database *database = importing->database;
    importing->rows = importing->vote = importing->record.votes = 0;
    int result = database_script(database, "CREATE TEMPORARY TABLE IF NOT EXISTS vote_staging (classification bigint, "
                                           "question text, answer text, id_str text, voter text, marks text[], "
                                           "classified_at timestamptz); TRUNCATE vote_staging");
    return result ? result : database_copy(database, "COPY vote_staging FROM STDIN", next_vote, importing);
}

/* Partitions for the ranges that get many votes. Making one gives up after a second of waiting for writers or the vacuum, and a
 * range that has votes gets none later: so it is tried again. Where none can be made, the default partition takes them. */
static int prepare_partitions(struct importing *importing)
{
    int result, tries = 0;
    do
        result = database_run(importing->database,
                              "SELECT triage.make_partition(number) FROM (SELECT div(s.classification, "
                              "c.partition_ids)::bigint AS number FROM vote_staging s, triage.cursor c "
                              "WHERE s.classification >= 0 GROUP BY 1 HAVING count(*) >= 100) ranges",
                              0, NULL, NULL);
    while ((result == ERROR_LIMIT || result == ERROR_STATE) && ++tries < PARTITION_TRIES);
    return result == ERROR_LIMIT ? 0 : result;
}

static int move_part(struct importing *importing, int64_t from)
{
    struct database *database = importing->database;
    struct database_result *rows = NULL;
    int64_t added = 0;
    int result = 0;
    if (importing->rejected.length)
        result = database_copy(database, "COPY triage.rejected_row (source, line, reason) FROM STDIN", next_rejected,
                               importing);
    if (!result)
        result =
            database_run(database,
                         "WITH added AS (INSERT INTO triage.vote (classification, question, answer, id_str, voter, "
                         "marks, classified_at) SELECT * FROM vote_staging ON CONFLICT DO NOTHING RETURNING 1) "
                         "SELECT count(*) FROM added",
                         0, NULL, &rows);
    if (!result)
        added = database_integer(rows, 0, 0);
    database_result_free(rows);
    if (!result)
        result = keep_place(importing, from, &added);
    importing->progress->added += added;
    return result;
}

static int import_part(struct importing *importing)
{
    int64_t from = importing->progress->offset;
    int result = stage_part(importing);
    if (!result)
        result = prepare_partitions(importing);
    if (result)
        return result;
    result = database_script(importing->database, "BEGIN");
    if (!result)
        result = move_part(importing, from);
    if (!result) {
        FAULT(VOTES_MOVED);
        result = database_script(importing->database, "COMMIT");
        FAULT(VOTES_COMMITTED);
        return result;
    }
    char message[ERROR_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", error_message());
    database_script(importing->database, "ROLLBACK");
    return error_set(result, "%s", message);
}

int vote_import(struct database *database, const char *path, const struct workflow *workflow,
                const struct voter_key *key, int part_rows, vote_import_told *told, void *context,
                struct vote_import_progress *ret_progress)
{
    struct importing *importing = calloc(1, sizeof *importing);
    *ret_progress = (struct vote_import_progress){0};
    if (!importing)
        return error_set(ERROR_SYSTEM, "out of memory for an import");
    *importing = (struct importing){.database = database, .progress = ret_progress, .part_rows = part_rows};
    importing->rejected = text_new((size_t)part_rows * (SOURCE_BYTES + 2 * ERROR_MESSAGE_BYTES));
    int result = vote_file_open(path, workflow, key, &importing->file);
    if (!result) {
        vote_file_position(importing->file, &importing->offset, &importing->line, &ret_progress->bytes);
        result = name_source(importing, path, ret_progress->bytes);
    }
    if (!result)
        result = find_place(importing);
    while (!result && !importing->ended && !ret_progress->finished_before) {
        result = import_part(importing);
        if (!result && importing->broken)
            result = error_set(importing->broken, "%s", importing->message);
        if (!result && told)
            result = told(context, ret_progress);
    }
    vote_file_close(importing->file);
    text_free(&importing->rejected);
    free(importing);
    return result;
}
