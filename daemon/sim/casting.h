/*
 * What simulated volunteers do with a queue: who classifies which galaxy next, which classifications come
 * late, twice, or by a voter who was there before. Not how they reach the database (delivery.h) or where the
 * queue is from.
 */
#ifndef TRIAGE_DAEMON_SIM_CASTING_H
#define TRIAGE_DAEMON_SIM_CASTING_H

#include "connectors/database.h"
#include "daemon/sim/delivery.h"

#include <stdint.h>

struct casting_options {
    uint64_t seed;
    uint32_t volunteers;              /* how many people there are; each classifies a galaxy once at most */
    double duplicates, late, repeats; /* shares of classifications, 0..1 */
    int parallel;                     /* galaxies open at the same time, best rank first */
};

struct casting_counts {
    int64_t late;      /* classifications that were held back */
    int64_t held;      /* of these, still held */
    int64_t exhausted; /* galaxies of the queue that no volunteer has anything left to say about */
    int64_t unknown;   /* entries of the present queue that the oracle does not know */
};

struct casting;

/* Everything passed in is kept by the caller and outlives the result. */
int casting_new(const struct casting_options *options, struct oracle *oracle, struct delivery *delivery,
                struct casting **ret_casting);
void casting_free(struct casting *casting); /* NULL is fine */

/*
 * Learns from the database what earlier runs cast, so that volunteers do not come twice and counts are not
 * used twice.
 */
int casting_resume(struct casting *casting, struct database *database);

/* The queue from the best rank to the worst. Only the best `parallel` galaxies that can be classified are
 * open. */
void casting_begin_offer(struct casting *casting);
void casting_offer(struct casting *casting, const char *id);

/* 1 when an open galaxy was finished, so that the queue should be offered again. */
int casting_is_stale(const struct casting *casting);

/* One volunteer classifies the next open galaxy. 1 = done, 0 = nothing is open; ERROR_LIMIT when too many
 * wait. */
int casting_cast(struct casting *casting);

/* Puts held-back classifications in line that are due, or all of them. Returns how many are still held. */
int casting_release(struct casting *casting, int all);

void casting_count(const struct casting *casting, struct casting_counts *ret_counts);

#endif
