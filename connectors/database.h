/*
 * PostgreSQL: connections, statements one after the other, and statements that never block the loop. Not for what the
 * statements mean: migrate, votes, galaxies and cycles know that.
 */
#ifndef TRIAGE_CONNECTORS_DATABASE_H
#define TRIAGE_CONNECTORS_DATABASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DATABASE_QUEUE_MAX     256 /* statements waiting on an asynchronous connection */
#define DATABASE_PARAMETER_MAX 16

struct database;
struct database_result;

enum database_state { DATABASE_CONNECTING, DATABASE_READY, DATABASE_DOWN };

/* --- blocking: for start, import and tools ------------------------------------------------------------------ */

/*
 * Connects within 4 s; what name servers take comes on top. ERROR_UNAVAILABLE with the server's words. This and the next two
 * return ERROR_CANCELLED when SIGTERM or SIGINT is blocked and pending; the connection can then only be closed.
 */
int database_open(const char *url, struct database **ret_database);

/* Closes either kind of connection; statements still waiting get ERROR_CANCELLED. NULL is fine. */
void database_close(struct database *database);

/* Whether it holds a password, or is nothing that libpq understands and may hold one. */
bool database_has_password(const char *url);

/* A connection string for people to see: its settings without passwords. "(malformed)" if libpq does not understand it. */
void database_describe(const char *url, char *text, size_t size);

/*
 * Runs one statement with text parameters (NULL = SQL NULL). `ret_result` may be NULL.
 * ERROR_UNAVAILABLE when the connection is lost; with the server's words ERROR_LIMIT when others held a lock for longer than
 * lock_timeout, ERROR_STATE when it refuses for another reason.
 */
int database_run(struct database *database, const char *sql, int count, const char *const *values,
                 struct database_result **ret_result);

/* Runs a script of several statements without parameters. */
int database_script(struct database *database, const char *sql);

/*
 * COPY ... FROM STDIN in text format. `next` appends one line at a time to the buffer it is given (through
 * database_copy_field()) and returns 1, 0 at the end, or a negative code, which undoes the whole copy.
 */
struct text;
typedef int database_copy_next(void *context, struct text *line);
int database_copy(struct database *database, const char *sql, database_copy_next *next, void *context);

/* Appends a field to a COPY line, escaped; NULL = SQL NULL. Fields are separated and ended by the caller with \t and \n. */
void database_copy_field(struct text *line, const char *value);

/* --- asynchronous: for the loop ------------------------------------------------------------------------------ */

/* Called once for each statement: code 0 and a result valid during the call, or a negative code and error_message(). */
typedef void database_done(void *context, int code, const struct database_result *result);

/* Begins connecting and keeps the connection alive from then on: back-off 0.25 to 1 s, LISTEN triage_vote each time,
 * and once a second on a standby, which refuses it, until that is the primary. Threads of
 * its own connect, since name servers may let one wait; nothing here blocks but database_close(), a second at most. */
int database_start(const char *url, struct database **ret_database);

/* Queues a statement; `done` may be NULL. ERROR_UNAVAILABLE unless ready, ERROR_LIMIT when the queue is full. */
int database_send(struct database *database, const char *sql, int count, const char *const *values, database_done *done,
                  void *context);

int database_room(const struct database *database); /* statements that can be queued now */

/* Ends the connection; what waits fails as when the server ends it, and a new one is begun. */
void database_hang_up(struct database *database);

int database_descriptor(const struct database *database); /* -1 while there is none */
short database_poll_events(const struct database *database);

/* Advances connection, sending and receiving; calls done() functions. */
void database_step(struct database *database);

enum database_state database_state(const struct database *database);

/* Why it is down, in the server's words. */
const char *database_problem(const struct database *database);

/* 1 if a NOTIFY arrived since the last call. */
bool database_take_notice(struct database *database);

/* --- results --------------------------------------------------------------------------------------------------- */

int database_rows(const struct database_result *result);
const char *database_value(const struct database_result *result, int row, int column); /* NULL = SQL NULL */
const char *database_text(const struct database_result *result, int row, int column);  /* "" for NULL */
int64_t database_integer(const struct database_result *result, int row, int column);   /* 0 for NULL */
double database_real(const struct database_result *result, int row, int column);       /* 0 for NULL */
void database_result_free(struct database_result *result);                             /* NULL is fine */

/* Elements of an array of integers in text form, "{1,2,3}"; at most `limit`. Returns their number. */
int database_integers(const char *text, int64_t *values, int limit);

#endif
