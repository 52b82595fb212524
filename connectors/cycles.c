/* See cycles.h. */
#include "connectors/cycles.h"
#include "base/error.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const stream_names[] = {"active", "random", "pinned"};

/* Numbers as parameters: the texts of one statement. */
struct numbers {
    char text[8][40];
    int used;
};

static const char *whole(struct numbers *numbers, uint64_t value)
{
    char *text = numbers->text[numbers->used++];
    snprintf(text, sizeof numbers->text[0], "%llu", (unsigned long long)value);
    return text;
}

static const char *real(struct numbers *numbers, double value)
{
    char *text = numbers->text[numbers->used++];
    if (!isfinite(value))
        return NULL;
    snprintf(text, sizeof numbers->text[0], "%.17g", value);
    return text;
}

int cycles_send_model(struct database *database, const struct model_row *row, database_done *done, void *context)
{
    struct numbers numbers = {0};
    const char *values[] = {whole(&numbers, row->number),
                            whole(&numbers, row->parent),
                            whole(&numbers, row->trunk),
                            row->schema_hash,
                            whole(&numbers, row->horizon),
                            whole(&numbers, (uint64_t)row->labels),
                            real(&numbers, row->holdout_nll),
                            real(&numbers, row->champion_nll),
                            real(&numbers, row->constant_nll),
                            row->promoted ? "t" : "f",
                            row->reason};
    return database_send(
        database,
        "INSERT INTO triage.model (number, parent, trunk, schema_hash, horizon, labels, holdout_nll, "
        "champion_nll, constant_nll, promoted, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, "
        "$11) ON CONFLICT (number) DO NOTHING",
        11, values, done, context);
}

int cycles_send_champion(struct database *database, uint32_t model, const char *why)
{
    struct numbers numbers = {0};
    const char *values[] = {whole(&numbers, model), why};
    return database_send(database, "INSERT INTO triage.champion_event (model, why) VALUES ($1, $2)", 2, values, NULL,
                         NULL);
}

/* --- the queue as parallel arrays ------------------------------------------------------------------------------- */

enum queue_column { Q_KEY, Q_RANK, Q_STREAM, Q_PROBABILITY, Q_SCORE, Q_TOTAL, Q_EXPECTED, Q_MODEL, Q_LEASE, Q_COLUMNS };

#define CELL_BYTES 26 /* of the longest cell: 17 digits, sign, point, exponent, comma */

static int print_cell(char *cell, enum queue_column column, const struct queue_entry *entry)
{
    switch (column) {
    case Q_KEY:
        return snprintf(cell, CELL_BYTES, "%llu", (unsigned long long)entry->key);
    case Q_RANK:
        return snprintf(cell, CELL_BYTES, "%u", entry->rank);
    case Q_STREAM:
        return snprintf(cell, CELL_BYTES, "%s", stream_names[entry->stream % 3]);
    case Q_PROBABILITY:
        return snprintf(cell, CELL_BYTES, "%.17g", entry->probability);
    case Q_SCORE:
        return snprintf(cell, CELL_BYTES, "%.9g", (double)entry->score);
    case Q_TOTAL:
        return snprintf(cell, CELL_BYTES, "%.9g", (double)entry->total);
    case Q_EXPECTED:
        return snprintf(cell, CELL_BYTES, "%.9g", (double)entry->expected);
    case Q_MODEL:
        return snprintf(cell, CELL_BYTES, "%u", entry->model);
    default:
        return snprintf(cell, CELL_BYTES, "%lld", (long long)entry->leased_until_ms);
    }
}

/* One column of all entries as an array; `text` has room for `count` cells and 8 bytes more. */
static void print_cells(char *text, enum queue_column column, const struct queue_entry *entries, size_t count)
{
    *text++ = '{';
    for (size_t i = 0; i < count; i++) {
        if (i)
            *text++ = ',';
        text += print_cell(text, column, &entries[i]);
    }
    snprintf(text, 2, "}");
}

static char *print_column(struct arena *memory, enum queue_column column, const struct queue_entry *entries,
                          size_t count)
{
    char *text = arena_alloc(memory, count * CELL_BYTES + 8);
    if (text)
        print_cells(text, column, entries, count);
    return text;
}

int cycles_send_queue(struct database *database, const struct cycle_row *row, const struct queue_entry *entries,
                      size_t count, struct arena *memory, database_done *done, void *context)
{
    struct numbers numbers = {0};
    const char *values[4 + Q_COLUMNS] = {whole(&numbers, row->number), whole(&numbers, row->model),
                                         whole(&numbers, row->horizon), whole(&numbers, (uint64_t)row->labels)};
    for (int column = 0; column < Q_COLUMNS; column++) {
        values[4 + column] = print_column(memory, (enum queue_column)column, entries, count);
        if (!values[4 + column])
            return ERROR_LIMIT;
    }
    return database_send(database, "SELECT triage.record_queue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
                         4 + Q_COLUMNS, values, done, context);
}

int cycles_send_published(struct database *database, uint64_t cycle, database_done *done, void *context)
{
    struct numbers numbers = {0};
    const char *values[] = {whole(&numbers, cycle)};
    return database_send(
        database, "UPDATE triage.cycle SET published_at = clock_timestamp() WHERE number = $1 AND published_at IS NULL",
        1, values, done, context);
}

int cycles_send_retract(struct database *database, const struct queue_entry *entries, size_t count, database_done *done,
                        void *context)
{
    char keys[CYCLES_RETRACT_MAX * CELL_BYTES + 8];
    if (count > CYCLES_RETRACT_MAX)
        return error_set(ERROR_LIMIT, "%zu entries to take off the queue, at most %d", count, CYCLES_RETRACT_MAX);
    print_cells(keys, Q_KEY, entries, count);
    const char *values[] = {keys};
    return database_send(database, "DELETE FROM triage.queue WHERE galaxy = ANY($1::bigint[])", 1, values, done,
                         context);
}

int cycles_send_model_list(struct database *database, int limit, database_done *done, void *context)
{
    struct numbers numbers = {0};
    const char *values[] = {whole(&numbers, (uint64_t)limit)};
    return database_send(
        database,
        "SELECT number, parent, labels, holdout_nll, champion_nll, constant_nll, reason FROM triage.model "
        "ORDER BY number DESC LIMIT $1",
        1, values, done, context);
}

/* --- restart ------------------------------------------------------------------------------------------------------ */

static uint8_t stream_number(const char *name)
{
    for (uint8_t i = 0; i < 3; i++)
        if (strcmp(stream_names[i], name) == 0)
            return i;
    return 0;
}

static void read_entry(const struct database_result *rows, int row, struct queue_entry *entry)
{
    *entry = (struct queue_entry){.key = (uint64_t)database_integer(rows, row, 0),
                                  .rank = (uint32_t)database_integer(rows, row, 1),
                                  .stream = stream_number(database_text(rows, row, 2)),
                                  .probability = database_real(rows, row, 3),
                                  .score = (float)database_real(rows, row, 4),
                                  .total = (float)database_real(rows, row, 5),
                                  .expected = (float)database_real(rows, row, 6),
                                  .model = (uint32_t)database_integer(rows, row, 7),
                                  .leased_until_ms = database_integer(rows, row, 8)};
    snprintf(entry->id_str, sizeof entry->id_str, "%s", database_text(rows, row, 9));
}

static int restore_numbers(struct database *database, struct cycles_state *state)
{
    struct database_result *rows;
    int result = database_run(database,
                              "SELECT (SELECT COALESCE(max(number), 0) FROM triage.cycle), "
                              "(SELECT labels FROM triage.cycle ORDER BY number DESC LIMIT 1), "
                              "(SELECT COALESCE(max(number), 0) FROM triage.model)",
                              0, NULL, &rows);
    if (result)
        return result;
    *state = (struct cycles_state){.cycle = (uint64_t)database_integer(rows, 0, 0),
                                   .labels = (uint64_t)database_integer(rows, 0, 1),
                                   .model_number = (uint32_t)database_integer(rows, 0, 2)};
    database_result_free(rows);
    return 0;
}

int cycles_restore(struct database *database, struct cycles_state *ret_state, struct queue_entry *entries, size_t limit,
                   size_t *ret_count)
{
    struct database_result *rows;
    int result = restore_numbers(database, ret_state);
    if (!result)
        result =
            database_run(database,
                         "SELECT q.galaxy, q.rank, q.stream, q.probability, q.score, q.total, q.expected, q.model, "
                         "(extract(epoch FROM q.leased_until) * 1000)::bigint, g.id_str FROM triage.queue q "
                         "JOIN triage.galaxy g ON g.key = q.galaxy ORDER BY q.rank",
                         0, NULL, &rows);
    if (result)
        return result;
    size_t count = (size_t)database_rows(rows) < limit ? (size_t)database_rows(rows) : limit;
    for (size_t i = 0; i < count; i++)
        read_entry(rows, (int)i, &entries[i]);
    *ret_count = count;
    database_result_free(rows);
    return 0;
}
