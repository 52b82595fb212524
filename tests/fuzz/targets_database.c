/*
 * Rows of the database, see fuzz.h: what a server that is not ours, or no longer itself, could answer. Stands in for
 * connectors/database.c: every statement is answered at once with cells cut from the input at bytes 0 (a byte 1 is SQL NULL).
 */
#include "base/error.h"
#include "connectors/cycles.h"
#include "connectors/database.h"
#include "connectors/votes.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define CELLS_MAX   512
#define COLUMNS     16
#define QUEUE_LIMIT 16
#define WAITING_MAX 16

struct database_result {
    char text[FUZZ_BYTES_MAX + 1];
    const char *cell[CELLS_MAX];
    int cells;
};

static struct database_result answer;

int fuzz_answer_with(const uint8_t *bytes, size_t length)
{
    length = length > FUZZ_BYTES_MAX ? FUZZ_BYTES_MAX : length;
    memcpy(answer.text, bytes, length);
    answer.text[length] = 0;
    answer.cells = 0;
    for (size_t at = 0; at < length && answer.cells < CELLS_MAX; at += strlen(answer.text + at) + 1)
        answer.cell[answer.cells++] = answer.text[at] == 1 ? NULL : answer.text + at;
    return (answer.cells + COLUMNS - 1) / COLUMNS;
}

/* --- in place of connectors/database.c -------------------------------------------------------------------------------- */

int database_rows(const struct database_result *result)
{
    return (result->cells + COLUMNS - 1) / COLUMNS;
}

const char *database_value(const struct database_result *result, int row, int column)
{
    int at = row * COLUMNS + column;
    fuzz_require(row >= 0 && row < database_rows(result) && column < COLUMNS, "a cell outside the rows");
    return at < result->cells ? result->cell[at] : NULL;
}

void database_result_free(struct database_result *result)
{
    (void)result;
}

int database_run(struct database *database, const char *sql, int count, const char *const *values,
                 struct database_result **ret_result)
{
    (void)database;
    (void)sql;
    (void)count;
    (void)values;
    if (ret_result)
        *ret_result = &answer;
    return 0;
}

int database_script(struct database *database, const char *sql)
{
    return database_run(database, sql, 0, NULL, NULL);
}

static struct {
    database_done *done;
    void *context;
} waiting[WAITING_MAX];
static int waiting_count;

int database_room(const struct database *database)
{
    (void)database;
    return WAITING_MAX - waiting_count;
}

int database_send(struct database *database, const char *sql, int count, const char *const *values, database_done *done,
                  void *context)
{
    if (!database_room(database))
        return error_set(ERROR_LIMIT, "too many statements wait");
    waiting[waiting_count].done = done;
    waiting[waiting_count++].context = context;
    return database_run(database, sql, count, values, NULL);
}

void fuzz_give_answers(void)
{
    int count = waiting_count;
    for (int i = 0; i < count; i++)
        if (waiting[i].done)
            waiting[i].done(waiting[i].context, 0, &answer);
    memmove(waiting, waiting + count, (size_t)(waiting_count - count) * sizeof *waiting);
    waiting_count -= count; /* those sent meanwhile wait for the next call */
}

enum database_state database_state(const struct database *database)
{
    (void)database;
    return DATABASE_READY;
}

const char *database_problem(const struct database *database)
{
    (void)database;
    return "";
}

/* --- the target ------------------------------------------------------------------------------------------------------ */

static void on_applied(void *context, int code, const struct votes_applied_batch *batch)
{
    (void)context;
    if (code)
        return;
    int64_t sum = 0;
    for (int i = 0; i < batch->count; i++)
        sum ^= batch->galaxy[i] ^ batch->answer_index[i] ^ batch->votes[i];
    for (int i = 0; i < batch->retired_count; i++)
        sum ^= batch->retired[i];
    fuzz_require(batch->count >= 0 && batch->retired_count >= 0 && (sum || !sum), "a negative count");
}

static void on_cursor(void *context, int code, const struct votes_cursor *cursor)
{
    (void)context;
    (void)code;
    (void)cursor;
}

static void on_prepared(void *context, int code, const char *why)
{
    (void)context;
    fuzz_require(code || !why || strlen(why) <= FUZZ_BYTES_MAX, "a reason without an end");
}

void fuzz_rows(const uint8_t *bytes, size_t length)
{
    static const struct votes_rules rules = {"first", "", false};
    static struct queue_entry entries[QUEUE_LIMIT];
    struct cycles_state state;
    size_t count = 0;
    int64_t number;
    if (!fuzz_answer_with(bytes, length)) /* these statements always have one row */
        return;
    if (votes_send_apply(NULL, 100, 40, on_applied, NULL) == 0)
        fuzz_give_answers();
    if (votes_send_cursor(NULL, on_cursor, NULL) == 0)
        fuzz_give_answers();
    if (votes_send_prepare(NULL, &rules, on_prepared, NULL) == 0)
        fuzz_give_answers();
    votes_retry(NULL, &number);
    if (cycles_restore(NULL, &state, entries, QUEUE_LIMIT, &count) == 0)
        for (size_t i = 0; i < count; i++)
            fuzz_require(count <= QUEUE_LIMIT && memchr(entries[i].id_str, 0, sizeof entries[i].id_str) != NULL,
                         "an entry without an end");
}

int fuzz_rows_seed(int number, struct text *out)
{
    static const char applied[] = "741\0"
                                  "7301234567890123456\0"
                                  "0\0"
                                  "3\0"
                                  "3\0"
                                  "0\0"
                                  "0\0"
                                  "0\0"
                                  "f\0"
                                  "0.25\0"
                                  "\1\0"
                                  "{1,1,2}\0"
                                  "{0,3,1}\0"
                                  "{5,2,1}\0"
                                  "{2}\0"
                                  "x",
                      queue[] = "12\0"
                                "active\0"
                                "0.5\0"
                                "0.25\0"
                                "1\0"
                                "1700000000000\0"
                                "7\0"
                                "3\0"
                                "a\0"
                                "b\0"
                                "c\0"
                                "d\0"
                                "e\0"
                                "f\0"
                                "g\0"
                                "h\0"
                                "13\0"
                                "random\0"
                                "0.125\0"
                                "0\0"
                                "2\0"
                                "1700000000001";
    if (number == 0)
        text_append_bytes(out, applied, sizeof applied);
    if (number == 1)
        text_append_bytes(out, queue, sizeof queue);
    return number < 2;
}
