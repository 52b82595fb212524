/*
 * What has happened to the service since it started, one line per kind: how often, when, for how long, whether it is over, and
 * what to do. `triagectl doctor` shows it. Not a log: a kind keeps its last words only, so the memory is the table.
 */
#ifndef TRIAGE_DAEMON_INCIDENTS_H
#define TRIAGE_DAEMON_INCIDENTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum incident_kind {
    INCIDENT_KILLED,      /* the run before did not end by itself */
    INCIDENT_WORKER,      /* the worker ended */
    INCIDENT_START,       /* the worker cannot start */
    INCIDENT_DATABASE,    /* the database is away */
    INCIDENT_READ_ONLY,   /* it takes no votes and no queue */
    INCIDENT_VOTES,       /* votes could not be applied */
    INCIDENT_ROWS,        /* rows of the pool were damaged */
    INCIDENT_MODEL,       /* the champion's file was damaged */
    INCIDENT_DISK,        /* hardly any space is left */
    INCIDENT_CLOCK,       /* the wall clock was set */
    INCIDENT_DESCRIPTORS, /* no file descriptor is left */
    INCIDENT_MEMORY,      /* an allocation failed */
    INCIDENT_PARTITIONS,  /* no partitions are made for votes any more */
    INCIDENT_KINDS,
};

struct incidents {
    struct incident {
        long times;
        bool is_on;
        int64_t first_unix_ms, last_unix_ms; /* when it began */
        int64_t began_ms, lasted_ms, longest_ms;
        char words[256];
    } kind[INCIDENT_KINDS];
};

/* It goes on from now, until incident_end(); said again meanwhile, only the words are new. */
void incident_begin(struct incidents *incidents, enum incident_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void incident_end(struct incidents *incidents, enum incident_kind kind);

/* It happened, and is over. */
void incident_note(struct incidents *incidents, enum incident_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* [{"kind", "what", "times", "over", "first_unix_ms", "last_unix_ms", "lasted_s", "longest_s", "words", "advice"}, ...] */
json_t *incidents_json(const struct incidents *incidents);

/* Whether something is going on now. */
bool incidents_any(const struct incidents *incidents);

#endif
