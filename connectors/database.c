/* See database.h. The one file that knows libpq. */
#include "connectors/database.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/signals.h"
#include "base/text.h"

#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MS 4000 /* what name servers take comes on top; a clean stop allows no more */
#define LOOK_MS            100  /* how often a blocking call looks for a signal that asks to end */
#define BACK_OFF_MS        250
#define BACK_OFF_MAX_MS    1000
#define ANSWER_WITHIN_MS   4000 /* to the first statements of a connection, and before it is asked whether one lives */
#define LET_GO_MS          1000 /* a close waits so long for what is being connected */
#define COPY_BYTES         65536
#define STOPPED            "stopped by a signal while waiting for the database"
#define LISTEN_AGAIN_MS    1000

/* What a connection starts with, one after the other: a standby refuses LISTEN, and in one message would take the rest back. */
enum { SETTINGS = 3, SETTING_LISTEN = SETTINGS - 1 };
static const char *const async_settings[SETTINGS] = {"SET statement_timeout = '30s'",
                                                     "SET client_min_messages = warning", "LISTEN triage_vote"};

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

struct attempt;

struct database {
    PGconn *connection;
    struct attempt *attempt; /* to make it, while it is being made */
    char *url;
    bool asynchronous, noticed;
    int setting;  /* of those of a connection, the one sent last */
    bool is_deaf; /* a standby refused to LISTEN */
    int64_t listen_ms;
    enum database_state state;
    char problem[256];
    int64_t deadline_ms, retry_at_ms;
    int failures;
    struct statement queue[DATABASE_QUEUE_MAX]; /* a ring; the first one is in flight when `sent` */
    int first, waiting;
    bool sent;
    int64_t sent_ms; /* when, or when the server last said that it works on it, or that it is full */
    PGconn *probe;   /* a second connection, that asks whether the first one still lives */
    struct attempt *probe_attempt;
    bool probe_asked;
    int64_t probe_ms; /* when it was begun */
    PGresult *last;   /* result of the statement in flight, kept until its end */
};

/* --- errors and results ------------------------------------------------------------------------------------------ */

/* libpq's messages end in a newline and may have several lines; the first one says it. */
static const char *first_line(const char *text)
{
    static _Thread_local char line[256];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(text, "\n"), text);
    return line;
}

/* The server's words may be in any language. */
static bool has_sqlstate(const PGresult *rows, const char *wanted)
{
    const char *sqlstate = PQresultErrorField(rows, PG_DIAG_SQLSTATE);
    return sqlstate && strcmp(sqlstate, wanted) == 0;
}

/* The server refuses to write; the connection is fine. */
static bool is_read_only(const PGresult *rows)
{
    return has_sqlstate(rows, "25006");
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
    if (!rows && PQtransactionStatus(connection) == PQTRANS_ACTIVE) /* a statement before was given up: it goes on */
        return error_set(ERROR_CANCELLED, STOPPED);
    if (!sqlstate) /* not the server's words: the library had no memory */
        return error_set(ERROR_SYSTEM, "out of memory in the database library: %s",
                         first_line(PQerrorMessage(connection)));
    int away = sqlstate && (strncmp(sqlstate, "57P", 3) == 0 || strncmp(sqlstate, "08", 2) == 0 || is_read_only(rows));
    int code = away ? ERROR_UNAVAILABLE : has_sqlstate(rows, "55P03") ? ERROR_LIMIT : ERROR_STATE;
    return error_set(code, "the database refused: %s", message ? message : first_line(PQerrorMessage(connection)));
}

int database_rows(const struct database_result *result)
{
    return PQntuples(result->rows);
}

const char *database_value(const struct database_result *result, int row, int column)
{
    return PQgetisnull(result->rows, row, column) ? NULL : PQgetvalue(result->rows, row, column);
}

void database_result_free(struct database_result *result)
{
    if (result)
        PQclear(result->rows);
    free(result);
}

/* --- blocking ------------------------------------------------------------------------------------------------------- */

static void ignore_notice(void *context, const PGresult *rows)
{
    (void)context;
    (void)rows; /* "relation already exists, skipping" and the like */
}

/* Checked here because libpq's own message quotes what it does not understand, which may be a password. */
static int check_url(const char *url)
{
    char *problem = NULL;
    PQconninfoOption *settings = PQconninfoParse(url, &problem);
    bool no_memory = !settings && (!problem || strncmp(problem, "out of memory", 13) == 0);
    PQfreemem(problem);
    if (no_memory)
        return error_set(ERROR_SYSTEM, "out of memory for the database's connection string");
    if (!settings)
        return error_set(ERROR_STATE,
                         "database.url is not a connection string: write 'host=... dbname=... user=...' with "
                         "values that have spaces in quotes, or postgresql://...");
    PQconninfoFree(settings);
    return 0;
}

static bool is_secret(const PQconninfoOption *setting)
{
    return strchr(setting->dispchar, '*') || strstr(setting->keyword, "password");
}

bool database_has_password(const char *url)
{
    PQconninfoOption *settings = PQconninfoParse(url, NULL);
    bool has = !settings;
    for (const PQconninfoOption *one = settings; one && one->keyword; one++)
        has |= one->val && is_secret(one);
    PQconninfoFree(settings);
    return has;
}

void database_describe(const char *url, char *text, size_t size)
{
    PQconninfoOption *settings = PQconninfoParse(url, NULL);
    size_t used = (size_t)snprintf(text, size, "%s", settings ? "" : "(malformed)");
    for (PQconninfoOption *one = settings; one && one->keyword && used < size; one++)
        if (one->val && !is_secret(one))
            used += (size_t)snprintf(text + used, size - used, "%s%s=%s", used ? " " : "", one->keyword, one->val);
    PQconninfoFree(settings);
}

static PGconn *begin(const char *url)
{
    const char *const keys[] = {
        "dbname", "application_name", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
        NULL};
    const char *const values[] = {url, "triaged", "10", "5", "3", "20000", NULL};
    PGconn *connection = PQconnectStartParams(keys, values, 1);
    if (connection)
        PQsetNoticeReceiver(connection, ignore_notice, NULL);
    return connection;
}

/* Waits a moment for the socket. 1 if it is ready, 0 if not, ERROR_CANCELLED when the process is asked to end. */
static int wait_a_moment(PGconn *connection, short events)
{
    struct pollfd socket = {.fd = PQsocket(connection), .events = events};
    int ready = poll(&socket, 1, LOOK_MS);
    if (signals_end_pending())
        return error_set(ERROR_CANCELLED, STOPPED);
    return ready > 0;
}

/* `unwanted` becomes true when nobody wants the connection any more; NULL = somebody does. */
static int finish_connecting(PGconn *connection, const atomic_bool *unwanted)
{
    int64_t deadline_ms = clock_patience_ms() + CONNECT_TIMEOUT_MS;
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    while (connection && PQstatus(connection) != CONNECTION_BAD && status != PGRES_POLLING_OK) {
        if (unwanted && atomic_load(unwanted))
            return error_set(ERROR_CANCELLED, "the connection is not wanted any more");
        if (clock_patience_ms() > deadline_ms)
            return error_set(ERROR_UNAVAILABLE, "cannot connect: no answer within %d s", CONNECT_TIMEOUT_MS / 1000);
        int ready = wait_a_moment(connection, status == PGRES_POLLING_READING ? POLLIN : POLLOUT);
        if (ready < 0)
            return ready;
        if (ready)
            status = PQconnectPoll(connection);
    }
    return status == PGRES_POLLING_OK
               ? 0
               : error_set(ERROR_UNAVAILABLE, "cannot connect: %s", first_line(PQerrorMessage(connection)));
}

/* The last result of what was sent, or the first that begins a COPY. After ERROR_CANCELLED only closing is left. */
static int wait_for_result(PGconn *connection, PGresult **ret_rows)
{
    *ret_rows = NULL;
    for (;;) {
        while (PQisBusy(connection)) {
            int ready = wait_a_moment(connection, POLLIN);
            if (ready < 0)
                return ready;
            if (ready && !PQconsumeInput(connection))
                break; /* PQgetResult() says why */
        }
        PGresult *rows = PQgetResult(connection);
        if (!rows)
            return result_code(connection, *ret_rows);
        PQclear(*ret_rows);
        *ret_rows = rows;
        if (PQresultStatus(rows) == PGRES_COPY_IN)
            return 0;
    }
}

int database_open(const char *url, struct database **ret_database)
{
    int result = check_url(url);
    if (result)
        return result;
    struct database *database = calloc(1, sizeof *database);
    if (!database)
        return error_set(ERROR_SYSTEM, "out of memory for a database connection");
    database->connection = begin(url);
    database->state = DATABASE_READY;
    result = finish_connecting(database->connection, NULL);
    if (!result)
        result = database_run(database, "SET client_min_messages = warning", 0, NULL, NULL);
    if (result)
        database_close(database);
    else
        *ret_database = database;
    return result;
}

int database_run(struct database *database, const char *sql, int count, const char *const *values,
                 struct database_result **ret_result)
{
    PGresult *rows = NULL;
    int result = PQsendQueryParams(database->connection, sql, count, NULL, values, NULL, NULL, 0)
                     ? wait_for_result(database->connection, &rows)
                     : result_code(database->connection, NULL);
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
    PGresult *rows = NULL;
    int result = PQsendQuery(database->connection, sql) ? wait_for_result(database->connection, &rows)
                                                        : result_code(database->connection, NULL);
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

/*
 * A connection that is being made, by a thread of its own: libpq waits in the call for name servers, which may take them half a
 * minute each, and for Kerberos. The thread cannot be stopped while it waits for those; it is let go then, and frees what it has.
 */
struct attempt {
    char *url;
    bool is_probe;
    int descriptor;     /* readable when the thread is done with it */
    PGconn *connection; /* the thread's until then; NULL = no memory */
    char message[256];  /* why there is no connection, "" = it is in force */
    atomic_bool done, unwanted;
    atomic_int holders; /* the last one of the thread and the database frees it */
};

static void let_go(struct attempt *attempt)
{
    if (atomic_fetch_sub(&attempt->holders, 1) > 1)
        return;
    PQfinish(attempt->connection);
    if (attempt->descriptor >= 0)
        close(attempt->descriptor);
    free(attempt->url);
    free(attempt);
}

static void *make_connection(void *context)
{
    static const uint64_t one = 1;
    struct attempt *attempt = context;
    attempt->connection = begin(attempt->url);
    if (attempt->connection && attempt->is_probe)
        PQsetErrorVerbosity(attempt->connection, PQERRORS_SQLSTATE);
    if (finish_connecting(attempt->connection, &attempt->unwanted))
        snprintf(attempt->message, sizeof attempt->message, "%s", error_message());
    atomic_store(&attempt->done, true);
    ssize_t written = write(attempt->descriptor, &one, sizeof one); /* cannot fail: nobody else writes */
    (void)written;
    let_go(attempt);
    return NULL;
}

/* NULL when there is no memory, descriptor or thread for it. */
static struct attempt *attempt_new(const char *url, bool is_probe)
{
    pthread_t thread;
    struct attempt *attempt = calloc(1, sizeof *attempt);
    if (!attempt)
        return NULL;
    attempt->url = strdup(url);
    attempt->is_probe = is_probe;
    attempt->descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    atomic_init(&attempt->holders, 2);
    if (!attempt->url || attempt->descriptor < 0 || pthread_create(&thread, NULL, make_connection, attempt)) {
        atomic_store(&attempt->holders, 1);
        let_go(attempt);
        return NULL;
    }
    pthread_detach(thread);
    return attempt;
}

/* Forgets the attempt, after `wait_ms` for its thread at most. */
static void attempt_end(struct attempt **attempt, int wait_ms)
{
    if (!*attempt)
        return;
    struct pollfd done = {.fd = (*attempt)->descriptor, .events = POLLIN};
    atomic_store(&(*attempt)->unwanted, true);
    poll(&done, 1, wait_ms);
    let_go(*attempt);
    *attempt = NULL;
}

/* The connection of an attempt that is done, in whatever state it is, and why it is not in force. */
static PGconn *attempt_take(struct attempt **attempt, char *message, size_t size)
{
    PGconn *connection = (*attempt)->connection;
    snprintf(message, size, "%s", (*attempt)->message);
    (*attempt)->connection = NULL;
    attempt_end(attempt, 0);
    return connection;
}

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

static void end_probe(struct database *database)
{
    attempt_end(&database->probe_attempt, 0);
    PQfinish(database->probe);
    database->probe = NULL;
    database->probe_asked = false;
}

static void go_down(struct database *database, const char *why)
{
    int delay_ms = BACK_OFF_MS << (database->failures < 2 ? database->failures : 2);
    snprintf(database->problem, sizeof database->problem, "%s", first_line(why));
    end_probe(database);
    PQclear(database->last);
    database->last = NULL;
    PQfinish(database->connection);
    database->connection = NULL;
    database->state = DATABASE_DOWN;
    database->failures++;
    delay_ms = delay_ms < BACK_OFF_MAX_MS ? delay_ms : BACK_OFF_MAX_MS;
    /* jitter of a quarter, from the clock: many daemons must not come back in step */
    database->retry_at_ms = clock_patience_ms() + delay_ms + clock_unix_ms() % (delay_ms / 4 + 1);
    for (int waiting = database->waiting; waiting > 0; waiting--)
        finish_first(database, error_set(ERROR_UNAVAILABLE, "the database is away: %s", database->problem), NULL);
}

static void connect_again(struct database *database)
{
    database->attempt = attempt_new(database->url, false);
    database->state = DATABASE_CONNECTING;
    if (!database->attempt)
        go_down(database, "no memory, descriptor or thread to connect with");
}

int database_start(const char *url, struct database **ret_database)
{
    int result = check_url(url);
    if (result)
        return result;
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
    end_probe(database);
    attempt_end(&database->attempt, LET_GO_MS);
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

int database_room(const struct database *database)
{
    return database->state == DATABASE_READY ? DATABASE_QUEUE_MAX - database->waiting : 0;
}

void database_hang_up(struct database *database)
{
    if (database->connection)
        go_down(database, "given up by the daemon");
}

int database_descriptor(const struct database *database)
{
    if (database->attempt)
        return database->attempt->descriptor;
    return database->connection ? PQsocket(database->connection) : -1;
}

short database_poll_events(const struct database *database)
{
    if (!database->connection)
        return database->attempt ? POLLIN : 0;
    bool sends = database->state == DATABASE_READY && database->waiting && !database->sent; /* at the next step: soon */
    bool writes = sends || PQflush(database->connection) == 1;
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

static void send_setting(struct database *database)
{
    if (!PQsendQuery(database->connection, async_settings[database->setting]))
        go_down(database, PQerrorMessage(database->connection));
}

static void become_ready(struct database *database)
{
    database->state = DATABASE_READY;
    database->failures = 0;
    database->problem[0] = 0;
    database->noticed = true; /* votes may have come while nobody listened */
    database->listen_ms = clock_patience_ms();
}

static void on_listen(void *context, int code, const struct database_result *result)
{
    struct database *database = context;
    (void)result;
    database->is_deaf = code != 0;
    database->noticed |= !code;
}

/* A standby that has become the primary keeps its connections, and takes LISTEN from then on. */
static void listen_again(struct database *database)
{
    int64_t now_ms = clock_patience_ms();
    if (!database->is_deaf || now_ms - database->listen_ms < LISTEN_AGAIN_MS)
        return;
    database->listen_ms = now_ms;
    database_send(database, async_settings[SETTING_LISTEN], 0, NULL, on_listen,
                  database); /* where it has no room: next time */
}

/* Settings and LISTEN first, and only then is it ready. */
static void settle(struct database *database)
{
    if (!PQconsumeInput(database->connection)) {
        go_down(database, PQerrorMessage(database->connection));
        return;
    }
    if (clock_patience_ms() > database->deadline_ms) {
        go_down(database, "connected, then no answer");
        return;
    }
    while (!PQisBusy(database->connection)) {
        PGresult *rows = PQgetResult(database->connection);
        if (!rows) {
            if (++database->setting < SETTINGS)
                send_setting(database);
            else
                become_ready(database);
            return;
        }
        int code = result_code(database->connection, rows);
        database->is_deaf = code && database->setting == SETTING_LISTEN && is_read_only(rows);
        PQclear(rows);
        if (code && !database->is_deaf) {
            go_down(database, error_message());
            return;
        }
    }
}

static void step_connecting(struct database *database)
{
    char message[256];
    if (!database->attempt) {
        settle(database);
        return;
    }
    if (!atomic_load(&database->attempt->done))
        return;
    database->connection = attempt_take(&database->attempt, message, sizeof message);
    if (message[0]) {
        go_down(database, message);
        return;
    }
    PQsetnonblocking(database->connection, 1);
    database->deadline_ms = clock_patience_ms() + ANSWER_WITHIN_MS;
    database->setting = 0;
    database->is_deaf = false;
    send_setting(database);
}

static void send_next(struct database *database)
{
    struct statement *statement = &database->queue[database->first];
    if (database->sent || !database->waiting)
        return;
    if (!PQsendQueryParams(database->connection, statement->sql, statement->count, NULL,
                           (const char *const *)statement->value, NULL, NULL, 0))
        go_down(database, PQerrorMessage(database->connection));
    else {
        database->sent = true;
        database->sent_ms = clock_patience_ms();
    }
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
        bool read_only = is_read_only(rows);
        finish_first(database, code, rows);
        PQclear(rows);
        if (code == ERROR_UNAVAILABLE && !read_only)
            go_down(database, error_message());
        return;
    }
}

/* --- a connection that was cut without a word -------------------------------------------------------------------------- */

enum probe_answer {
    PROBE_WAITS,
    PROBE_WORKING, /* the server is at work on our statement */
    PROBE_IDLE,    /* it is not, or nobody is there */
    PROBE_REFUSED, /* it lives, and takes no second connection now: "too many connections" and the like */
};

/* A refusal of the server ends in its SQLSTATE, because the probe asked for no words; what the network says does not. */
static bool is_refusal(const char *message)
{
    size_t length = strcspn(message, "\n");
    return length > 5 && message[length - 6] == ' ' &&
           strspn(message + length - 5, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5;
}

static enum probe_answer connect_probe(struct database *database)
{
    char process[16], message[256];
    const char *const values[] = {process};
    if (!database->probe_attempt)
        return PROBE_IDLE;
    if (!atomic_load(&database->probe_attempt->done))
        return PROBE_WAITS;
    database->probe = attempt_take(&database->probe_attempt, message, sizeof message);
    if (message[0])
        return is_refusal(PQerrorMessage(database->probe)) ? PROBE_REFUSED : PROBE_IDLE;
    snprintf(process, sizeof process, "%d", PQbackendPID(database->connection));
    if (PQsetnonblocking(database->probe, 1) == 0)
        database->probe_asked =
            PQsendQueryParams(database->probe, "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1", 1, NULL,
                              values, NULL, NULL, 0) == 1;
    return database->probe_asked ? PROBE_WAITS : PROBE_IDLE;
}

static enum probe_answer ask_probe(struct database *database)
{
    if (!database->probe)
        return connect_probe(database);
    if (PQflush(database->probe) < 0 || !PQconsumeInput(database->probe))
        return PROBE_IDLE;
    if (PQisBusy(database->probe))
        return PROBE_WAITS;
    PGresult *rows = PQgetResult(database->probe);
    bool works = PQntuples(rows) == 1 && *PQgetvalue(rows, 0, 0) == 't';
    PQclear(rows);
    return works ? PROBE_WORKING : PROBE_IDLE;
}

/*
 * A statement without an answer may be slow, or its connection was cut by something that told neither side (a firewall, a
 * cable). The server knows: a second connection asks it. Keepalives would not find a cut behind a proxy. A server that lets
 * nobody in has said nothing about the first connection: it is asked again later.
 */
static void watch_silence(struct database *database)
{
    int64_t now_ms = clock_patience_ms();
    if (!database->sent || now_ms - database->sent_ms < ANSWER_WITHIN_MS) {
        end_probe(database);
        return;
    }
    if (!database->probe && !database->probe_attempt) {
        database->probe_attempt = attempt_new(database->url, true);
        database->probe_ms = now_ms;
    }
    enum probe_answer answer = ask_probe(database);
    if (answer == PROBE_WORKING || answer == PROBE_REFUSED) {
        database->sent_ms = now_ms;
        end_probe(database);
    } else if (answer == PROBE_IDLE || now_ms - database->probe_ms > ANSWER_WITHIN_MS)
        go_down(database, "the connection was cut without a word: no answer to a statement");
}

void database_step(struct database *database)
{
    if (database->state == DATABASE_DOWN) {
        if (clock_patience_ms() >= database->retry_at_ms)
            connect_again(database);
        return;
    }
    if (database->state == DATABASE_CONNECTING) {
        step_connecting(database);
        return;
    }
    listen_again(database);
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
    if (database->state == DATABASE_READY)
        watch_silence(database);
}
