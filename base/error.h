/*
 * The error convention of the whole program, and nothing else.
 *
 * Functions return 0 or one of the negative codes below. Where the cause is known, and only there, one message
 * is recorded with error_set(); callers pass the code up unchanged and may put a context in front of the
 * message with error_prefix(). The message is per thread and stays until the next error_set().
 * Messages read "what is wrong: what to do next", so that an operator understands them without the source.
 */
#ifndef TRIAGE_BASE_ERROR_H
#define TRIAGE_BASE_ERROR_H

enum error_code {
    ERROR_INPUT = -1,       /* bytes from outside are wrong (a file, a request, a row) */
    ERROR_SYSTEM = -2,      /* the operating system refused (disk full, permission, no memory) */
    ERROR_LIMIT = -3,       /* a stated limit was reached */
    ERROR_STATE = -4,       /* not possible now (no model yet, paused, schema changed) */
    ERROR_UNAVAILABLE = -5, /* a peer is away (database, worker); trying again later can help */
    ERROR_NOT_FOUND = -6,   /* the named thing does not exist */
    ERROR_CANCELLED = -7,   /* asked to stop */
};

#define ERROR_MESSAGE_BYTES 1024

/* Records the message and returns `code`, so that `return error_set(ERROR_INPUT, "...")` is one line. */
int error_set(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As error_set(ERROR_SYSTEM, ...) with ": " and the text of errno appended. */
int error_set_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* How many messages of this process began "out of memory", so that somebody can count what is refused for want of it. */
long error_memory_failures(void);

/* Puts a context in front of the recorded message ("catalogue.csv:12: ") and returns `code` unchanged. */
int error_prefix(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The recorded message of this thread; never NULL, "" when there is none. */
const char *error_message(void);

#endif
