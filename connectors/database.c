/* See database.h. The one file that knows libpq. */
#include "connectors/database.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_S 10
#define BACK_OFF_MS       250
#define BACK_OFF_MAX_MS   5000
#define COPY_BYTES        65536
#define ASYNC_SETTINGS    "SET statement_timeout = '30s'; SET client_min_messages = warning; LISTEN triage_vote"

/* PGresult under another name, so that the header needs no libpq. */
struct database_result {
    PGresult *rows;
};

struct statement {
    char *sql;
    int count;
    char *value[DATABASE_PARAMETER_MAX];
    database_done *done;
    void *context;
};

struct database {
    PGconn *connection;
    char *url;
    bool asynchronous, noticed, settling; /* settling: the first statements of a connection are under way */
    enum database_state state;
    char problem[256];
    int64_t deadline_ms, retry_at_ms;
    int failures;
    struct statement queue[DATABASE_QUEUE_MAX]; /* a ring; the first one is in flight when `sent` */
    int first, waiting;
    bool sent;
    PGresult *last; /* result of the statement in flight, kept until its end */
};

/* --- errors and results ------------------------------------------------------------------------------------------ */

/* libpq's messages end in a newline and may have several lines; the first one says it. */
static const char *first_line(const char *text)
{
    static _Thread_local char line[256];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(text, "\n"), text);
    return line;
}

static int result_code(PGconn *connection, const PGresult *rows)
{
    ExecStatusType status = PQresultStatus(rows);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_COPY_IN)
        return 0;
    if (PQstatus(connection) != CONNECTION_OK)
        return error_set(ERROR_UNAVAILABLE, "the database connection is lost: %s",
                         first_line(PQerrorMessage(connection)));
    const char *sqlstate = PQresultErrorField(rows, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(rows, PG_DIAG_MESSAGE_PRIMARY);
    int away = sqlstate && (strncmp(sqlstate, "57P", 3) == 0 || strncmp(sqlstate, "08", 2) == 0);
    return error_set(away ? ERROR_UNAVAILABLE : ERROR_STATE, "the database refused: %s",
                     message ? message : first_line(PQerrorMessage(connection)));
}

int database_rows(const struct database_result *result)
{
    return PQntuples(result->rows);
}

const char *database_value(const struct database_result *result, int row, int column)
{
    return PQgetisnull(result->rows, row, column) ? NULL : PQgetvalue(result->rows, row, column);
}

int64_t database_integer(const struct database_result *result, int row, int column)
{
    const char *text = database_value(result, row, column);
    return text ? strtoll(text, NULL, 10) : 0;
}

void database_result_free(struct database_result *result)
{
    if (result)
        PQclear(result->rows);
    free(result);
}

int database_integers(const char *text, int64_t *values, int limit)
{
    int count = 0;
    if (!text || *text != '{')
        return 0;
    for (text++; *text && *text != '}' && count < limit; text += *text == ',') {
        char *end;
        values[count++] = strtoll(text, &end, 10);
        if (end == text)
            return count - 1;
        text = end;
    }
    return count;
}

/* --- blocking ------------------------------------------------------------------------------------------------------- */

static void ignore_notice(void *context, const PGresult *rows)
{
    (void)context;
    (void)rows; /* "relation already exists, skipping" and the like */
}

static PGconn *begin(const char *url, bool asynchronous)
{
    char timeout[16];
    snprintf(timeout, sizeof timeout, "%d", CONNECT_TIMEOUT_S);
    const char *const keys[] = {"dbname",
                                "application_name",
                                "connect_timeout",
                                "keepalives_idle",
                                "keepalives_interval",
                                "keepalives_count",
                                "tcp_user_timeout",
                                NULL};
    const char *const values[] = {url, "triaged", timeout, "10", "5", "3", "20000", NULL};
    PGconn *connection = asynchronous ? PQconnectStartParams(keys, values, 1) : PQconnectdbParams(keys, values, 1);
    if (connection)
        PQsetNoticeReceiver(connection, ignore_notice, NULL);
    return connection;
}

int database_open(const char *url, struct database **ret_database)
{
    struct database *database = calloc(1, sizeof *database);
    if (!database)
        return error_set(ERROR_SYSTEM, "out of memory for a database connection");
    database->connection = begin(url, false);
    if (PQstatus(database->connection) != CONNECTION_OK) {
        int result =
            error_set(ERROR_UNAVAILABLE, "cannot connect: %s", first_line(PQerrorMessage(database->connection)));
        database_close(database);
        return result;
    }
    database->state = DATABASE_READY;
    *ret_database = database;
    return database_run(database, "SET client_min_messages = warning", 0, NULL, NULL);
}

int database_run(struct database *database, const char *sql, int count, const char *const *values,
                 struct database_result **ret_result)
{
    PGresult *rows = PQexecParams(database->connection, sql, count, NULL, values, NULL, NULL, 0);
    int result = result_code(database->connection, rows);
    if (result || !ret_result) {
        PQclear(rows);
        return result;
    }
    struct database_result *taken = malloc(sizeof *taken);
    if (!taken) {
        PQclear(rows);
        return error_set(ERROR_SYSTEM, "out of memory for a database result");
    }
    taken->rows = rows;
    *ret_result = taken;
    return 0;
}

int database_script(struct database *database, const char *sql)
{
    PGresult *rows = PQexec(database->connection, sql);
    int result = result_code(database->connection, rows);
    PQclear(rows);
    return result;
}

void database_copy_field(struct text *line, const char *value)
{
    static const struct {
        char plain;
        const char *escaped;
    } escapes[] = {
        {'\\', "\\\\"},
        {'\t', "\\t" },
        {'\n', "\\n" },
        {'\r', "\\r" }
    };
    if (!value) {
        text_append_bytes(line, "\\N", 2);
        return;
    }
    for (; *value; value++) {
        const char *escaped = NULL;
        for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
            if (escapes[i].plain == *value)
                escaped = escapes[i].escaped;
        text_append_bytes(line, escaped ? escaped : value, escaped ? 2 : 1);
    }
}

int database_copy(struct database *database, const char *sql, database_copy_next *next, void *context)
{
    struct text lines = text_new(COPY_BYTES + (1 << 20));
    int result = database_script(database, sql), got = 1;
    if (result)
        return result;
    while (!result && (got = next(context, &lines)) > 0)
        if (lines.length >= COPY_BYTES) {
            result = text_error(&lines);
            if (!result && PQputCopyData(database->connection, lines.bytes, (int)lines.length) != 1)
                result = error_set(ERROR_UNAVAILABLE, "the database connection is lost: %s",
                                   first_line(PQerrorMessage(database->connection)));
            text_clear(&lines);
        }
    if (!result)
        result = got < 0 ? got : text_error(&lines);
    if (!result && lines.length && PQputCopyData(database->connection, lines.bytes, (int)lines.length) != 1)
        result = error_set(ERROR_UNAVAILABLE, "the database connection is lost: %s",
                           first_line(PQerrorMessage(database->connection)));
    PQputCopyEnd(database->connection, result ? "stopped by the client" : NULL);
    for (PGresult *rows; (rows = PQgetResult(database->connection)); PQclear(rows))
        if (!result)
            result = result_code(database->connection, rows);
    text_free(&lines);
    return result;
}

/* --- asynchronous ---------------------------------------------------------------------------------------------------- */

static void free_statement(struct statement *statement)
{
    for (int i = 0; i < statement->count; i++)
        free(statement->value[i]);
    free(statement->sql);
    *statement = (struct statement){0};
}

/* Takes the first statement off the queue, then tells whoever asked. */
static void finish_first(struct database *database, int code, PGresult *rows)
{
    struct statement statement = database->queue[database->first];
    struct database_result result = {rows};
    database->queue[database->first] = (struct statement){0};
    database->first = (database->first + 1) % DATABASE_QUEUE_MAX;
    database->waiting--;
    database->sent = false;
    if (statement.done)
        statement.done(statement.context, code, code ? NULL : &result);
    free_statement(&statement);
}

static void go_down(struct database *database, const char *why)
{
    int delay_ms = BACK_OFF_MS << (database->failures < 5 ? database->failures : 5);
    snprintf(database->problem, sizeof database->problem, "%s", first_line(why));
    PQclear(database->last);
    database->last = NULL;
    PQfinish(database->connection);
    database->connection = NULL;
    database->state = DATABASE_DOWN;
    database->failures++;
    delay_ms = delay_ms < BACK_OFF_MAX_MS ? delay_ms : BACK_OFF_MAX_MS;
    /* jitter of a quarter, from the clock: many daemons must not come back in step */
    database->retry_at_ms = clock_ms() + delay_ms + clock_unix_ms() % (delay_ms / 4 + 1);
    for (int waiting = database->waiting; waiting > 0; waiting--)
        finish_first(database, error_set(ERROR_UNAVAILABLE, "the database is away: %s", database->problem), NULL);
}

static void connect_again(struct database *database)
{
    database->connection = begin(database->url, true);
    database->state = DATABASE_CONNECTING;
    database->deadline_ms = clock_ms() + CONNECT_TIMEOUT_S * 1000;
    database->settling = false;
    if (!database->connection || PQstatus(database->connection) == CONNECTION_BAD)
        go_down(database, database->connection ? PQerrorMessage(database->connection) : "out of memory");
}

int database_start(const char *url, struct database **ret_database)
{
    struct database *database = calloc(1, sizeof *database);
    if (database)
        database->url = strdup(url);
    if (!database || !database->url) {
        free(database);
        return error_set(ERROR_SYSTEM, "out of memory for a database connection");
    }
    database->asynchronous = true;
    connect_again(database);
    *ret_database = database;
    return 0;
}

void database_close(struct database *database)
{
    if (!database)
        return;
    while (database->waiting)
        finish_first(database, error_set(ERROR_CANCELLED, "the database connection is being closed"), NULL);
    PQclear(database->last);
    PQfinish(database->connection);
    free(database->url);
    free(database);
}

int database_send(struct database *database, const char *sql, int count, const char *const *values, database_done *done,
                  void *context)
{
    if (database->state != DATABASE_READY)
        return error_set(ERROR_UNAVAILABLE, "the database is away: %s", database->problem);
    if (database->waiting == DATABASE_QUEUE_MAX || count > DATABASE_PARAMETER_MAX)
        return error_set(ERROR_LIMIT, "more than %d statements wait for the database", DATABASE_QUEUE_MAX);
    struct statement statement = {.sql = strdup(sql), .count = count, .done = done, .context = context};
    int complete = statement.sql != NULL;
    for (int i = 0; i < count; i++) {
        statement.value[i] = values[i] ? strdup(values[i]) : NULL;
        complete &= !values[i] || statement.value[i];
    }
    if (!complete) {
        free_statement(&statement);
        return error_set(ERROR_SYSTEM, "out of memory for a statement");
    }
    database->queue[(database->first + database->waiting++) % DATABASE_QUEUE_MAX] = statement;
    return 0;
}

int database_descriptor(const struct database *database)
{
    return database->connection ? PQsocket(database->connection) : -1;
}

short database_poll_events(const struct database *database)
{
    if (!database->connection)
        return 0;
    bool writes = database->state == DATABASE_CONNECTING || PQflush(database->connection) == 1;
    return (short)(POLLIN | (writes ? POLLOUT : 0));
}

enum database_state database_state(const struct database *database)
{
    return database->state;
}

const char *database_problem(const struct database *database)
{
    return database->problem;
}

bool database_take_notice(struct database *database)
{
    bool noticed = database->noticed;
    database->noticed = false;
    return noticed;
}

/* Connection made: settings and LISTEN first, and only then is it ready. */
static void step_connecting(struct database *database)
{
    if (database->settling) {
        if (!PQconsumeInput(database->connection)) {
            go_down(database, PQerrorMessage(database->connection));
            return;
        }
        while (!PQisBusy(database->connection)) {
            PGresult *rows = PQgetResult(database->connection);
            if (!rows) {
                database->state = DATABASE_READY;
                database->failures = 0;
                database->problem[0] = 0;
                database->noticed = true; /* votes may have come while nobody listened */
                return;
            }
            PQclear(rows);
        }
        return;
    }
    PostgresPollingStatusType status = PQconnectPoll(database->connection);
    if (status == PGRES_POLLING_FAILED || clock_ms() > database->deadline_ms)
        go_down(database,
                status == PGRES_POLLING_FAILED ? PQerrorMessage(database->connection) : "no answer within ten seconds");
    else if (status == PGRES_POLLING_OK) {
        PQsetnonblocking(database->connection, 1);
        database->settling = PQsendQuery(database->connection, ASYNC_SETTINGS) == 1;
        if (!database->settling)
            go_down(database, PQerrorMessage(database->connection));
    }
}

static void send_next(struct database *database)
{
    struct statement *statement = &database->queue[database->first];
    if (database->sent || !database->waiting)
        return;
    if (!PQsendQueryParams(database->connection, statement->sql, statement->count, NULL,
                           (const char *const *)statement->value, NULL, NULL, 0))
        go_down(database, PQerrorMessage(database->connection));
    else
        database->sent = true;
}

static void receive(struct database *database)
{
    if (!PQconsumeInput(database->connection)) {
        go_down(database, PQerrorMessage(database->connection));
        return;
    }
    for (PGnotify *notice; (notice = PQnotifies(database->connection)); PQfreemem(notice))
        database->noticed = true;
    while (database->sent && !PQisBusy(database->connection)) {
        PGresult *rows = PQgetResult(database->connection);
        if (rows) {
            PQclear(database->last);
            database->last = rows;
            continue;
        }
        rows = database->last;
        database->last = NULL;
        int code = result_code(database->connection, rows);
        finish_first(database, code, rows);
        PQclear(rows);
        if (code == ERROR_UNAVAILABLE)
            go_down(database, error_message());
        return;
    }
}

void database_step(struct database *database)
{
    if (database->state == DATABASE_DOWN) {
        if (clock_ms() >= database->retry_at_ms)
            connect_again(database);
        return;
    }
    if (database->state == DATABASE_CONNECTING) {
        step_connecting(database);
        return;
    }
    for (int i = 0; i < 8 && database->state == DATABASE_READY; i++) {
        int before = database->waiting;
        send_next(database);
        if (database->state == DATABASE_READY && PQflush(database->connection) < 0)
            go_down(database, PQerrorMessage(database->connection));
        if (database->state == DATABASE_READY)
            receive(database);
        if (before == database->waiting)
            break;
    }
}
