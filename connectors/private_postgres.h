/*
 * The embedded default: a private PostgreSQL cluster in a folder, on a Unix socket that only its owner can reach.
 * The same SQL and the same notifications as with a server of one's own.
 */
#ifndef TRIAGE_CONNECTORS_PRIVATE_POSTGRES_H
#define TRIAGE_CONNECTORS_PRIVATE_POSTGRES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct private_postgres {
    char folder[512]; /* holds data/, socket/ and log */
    char url[1024];   /* libpq connection string */
    pid_t pid;        /* of the postmaster */
    bool adopted;     /* it was running already */
    int failures;     /* starts in a row after which nobody had an answer */
    int64_t retry_at_ms;
};

/*
 * Starts the cluster by the server version that made it, making it first if need be (in data.new, so that one that was not
 * finished is never taken for one that was); adopts one that runs already, e.g. after the daemon was killed.
 * Run as root it gives the folder to the user postgres (else nobody) and drops to it with setpriv. Waits until the
 * server answers, at most 60 s, or until the process is asked to end (ERROR_CANCELLED). ERROR_NOT_FOUND without
 * PostgreSQL's programs of that version, ERROR_INPUT for a folder that is too deep for a socket or closed to the user, ERROR_UNAVAILABLE
 * with the end of the server's log.
 */
int private_postgres_start(const char *folder, struct private_postgres *ret_postgres);

/*
 * Starts the server again if it has ended by itself: at once when it has answered since its last start (answers: it does
 * now), else after 1 to 64 s; never waits for it. 0 while there is nothing to do, 1 when it was started again (clients find
 * out by connecting), or as private_postgres_start().
 * Keeps the server's log below 8 MiB; its last megabyte then lies in log.1. Ask about once a second.
 */
int private_postgres_revive(struct private_postgres *postgres, bool answers);

/*
 * Fast shutdown within 4 s, else an immediate one, else SIGKILL: 6.5 s at most. Signals only a process that is this
 * cluster's postmaster.
 */
int private_postgres_stop(struct private_postgres *postgres);

#endif
