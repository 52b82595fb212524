/* See choices.h. */
#include "connectors/choices.h"
#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define CELL_BYTES 32

enum column { KEYS, REASONS, VALUES, SCORES, COLUMNS };

static void print_real(char *text, double value, int digits)
{
    if (isfinite(value))
        snprintf(text, CELL_BYTES, "%.*g", digits, value);
    else
        snprintf(text, CELL_BYTES, "NULL"); /* an element of an array */
}

static char *print_column(struct arena *memory, enum column column, const struct review_row *review, size_t count)
{
    char *text = arena_alloc(memory, count * (CELL_BYTES + 1) + 8), *at = text;
    if (!text)
        return NULL;
    *at++ = '{';
    for (size_t i = 0; i < count; i++) {
        char cell[CELL_BYTES];
        if (column == KEYS)
            snprintf(cell, sizeof cell, "%llu", (unsigned long long)review[i].key);
        else if (column == REASONS)
            snprintf(cell, sizeof cell, "%s", review[i].reason);
        else
            print_real(cell, column == VALUES ? review[i].value : (double)review[i].score, column == VALUES ? 17 : 9);
        at += snprintf(at, CELL_BYTES + 1, "%s%s", i ? "," : "", cell);
    }
    snprintf(at, 2, "}");
    return text;
}

int choices_send(struct database *database, const struct choice_row *row, const struct review_row *review, size_t count,
                 struct arena *memory)
{
    char numbers[5][CELL_BYTES];
    snprintf(numbers[0], CELL_BYTES, "%llu", (unsigned long long)row->cycle);
    snprintf(numbers[1], CELL_BYTES, "%d", row->active_galaxies);
    print_real(numbers[2], row->gain_mean, 17);
    print_real(numbers[3], row->gain_error, 17);
    snprintf(numbers[4], CELL_BYTES, "%u", row->model);
    const char *values[] = {numbers[0],
                            numbers[1],
                            isfinite(row->gain_mean) ? numbers[2] : NULL,
                            isfinite(row->gain_error) ? numbers[3] : NULL,
                            print_column(memory, KEYS, review, count),
                            print_column(memory, REASONS, review, count),
                            print_column(memory, VALUES, review, count),
                            print_column(memory, SCORES, review, count),
                            numbers[4]};
    for (int i = 4; i < 8; i++)
        if (!values[i])
            return ERROR_LIMIT;
    return database_send(database, "SELECT triage.record_choice($1, $2, $3, $4, $5, $6, $7, $8, $9)", 9, values, NULL,
                         NULL);
}

int choices_send_review_list(struct database *database, int limit, database_done *done, void *context)
{
    char text[CELL_BYTES];
    snprintf(text, sizeof text, "%d", limit);
    const char *values[] = {text};
    return database_send(database,
                         "SELECT id_str, reason, value, score, model, cycle FROM triage.review_by_name "
                         "ORDER BY score DESC, id_str LIMIT $1",
                         1, values, done, context);
}

static double real_value(const struct database_result *rows, int row, int column)
{
    const char *text = database_value(rows, row, column);
    return text ? strtod(text, NULL) : NAN;
}

static int read_last(struct database *database, const char *sql, size_t limit, struct database_result **ret_rows)
{
    char text[CELL_BYTES];
    snprintf(text, sizeof text, "%zu", limit);
    const char *values[] = {text};
    return database_run(database, sql, 1, values, ret_rows);
}

int choices_restore(struct database *database, struct choice_row *rows, size_t limit, size_t *ret_count)
{
    struct database_result *result;
    int code =
        read_last(database,
                  "SELECT * FROM (SELECT number, model, active_galaxies, gain_mean, gain_error FROM triage.cycle "
                  "WHERE active_galaxies > 0 ORDER BY number DESC LIMIT $1) last ORDER BY number",
                  limit, &result);
    if (code)
        return code;
    *ret_count = (size_t)database_rows(result);
    for (int i = 0; i < database_rows(result); i++)
        rows[i] = (struct choice_row){(uint64_t)database_integer(result, i, 0),
                                      (uint32_t)database_integer(result, i, 1), (int)database_integer(result, i, 2),
                                      real_value(result, i, 3), real_value(result, i, 4)};
    database_result_free(result);
    return 0;
}

int choices_restore_measured(struct database *database, struct measured_row *rows, size_t limit, size_t *ret_count)
{
    struct database_result *result;
    int code = read_last(database,
                         "SELECT * FROM (SELECT number, labels, holdout_nll FROM triage.model WHERE promoted AND "
                         "holdout_nll IS NOT NULL ORDER BY number DESC LIMIT $1) last ORDER BY number",
                         limit, &result);
    if (code)
        return code;
    *ret_count = (size_t)database_rows(result);
    for (int i = 0; i < database_rows(result); i++)
        rows[i] = (struct measured_row){(uint32_t)database_integer(result, i, 0), (long)database_integer(result, i, 1),
                                        real_value(result, i, 2)};
    database_result_free(result);
    return 0;
}
