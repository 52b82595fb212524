/*
 * Brings simulated classifications into the database: each is one durable transaction, retried until it is
 * committed. A few threads with a connection each, so that the disk's commits are shared; a bounded line in
 * front of them. Which classifications there are is the platform's business (platform.c).
 */
#ifndef TRIAGE_DAEMON_SIM_DELIVERY_H
#define TRIAGE_DAEMON_SIM_DELIVERY_H

#include "connectors/volunteers.h"

#include <stdint.h>

#define VOTER_BYTES       32
#define DELIVERY_LINE_MAX 4096 /* classifications waiting to be committed */

enum ballot_kind {
    BALLOT_FIRST,     /* a new classification */
    BALLOT_DUPLICATE, /* the same one delivered again */
    BALLOT_REPEAT,    /* a new classification by a voter who has given these answers before */
};

/* One classification. */
struct ballot {
    int64_t classification;
    enum ballot_kind kind;
    char id[ORACLE_ID_BYTES], voter[VOTER_BYTES];
    int votes;
    short answer[SCHEMA_QUESTIONS_MAX]; /* index in the schema, or -1 where the question was not asked */
};

struct delivery_counts {
    int64_t classifications;      /* committed, BALLOT_FIRST */
    int64_t votes_cast;           /* in all committed deliveries */
    int64_t votes_distinct_valid; /* in BALLOT_FIRST ones: each (classification, question) once */
    int64_t duplicates, repeats;  /* deliveries committed */
    int64_t retries;              /* tries that failed */
    int64_t waiting;              /* not committed yet */
    char problem[256];            /* why the latest try failed; "" = it did not */
};

struct delivery;

/* Starts the threads; `schema` is kept by the caller. The database may be away. */
int delivery_start(const char *url, const struct schema *schema, int connections, struct delivery **ret_delivery);

/* Puts a copy in line; ERROR_LIMIT when the line is full. */
int delivery_put(struct delivery *delivery, const struct ballot *ballot);

void delivery_count(struct delivery *delivery, struct delivery_counts *ret_counts);

/*
 * Waits until everything in line is committed, but no longer than `patience_ms` while the database is away,
 * then ends the threads. `ret_counts` says what became of it; waiting > 0 means that many were lost. Frees;
 * NULL is fine.
 */
void delivery_finish(struct delivery *delivery, int64_t patience_ms, struct delivery_counts *ret_counts);

#endif
