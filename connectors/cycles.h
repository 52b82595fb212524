/* The history in the database: cycles, models, the published queue; and reading it back after a restart. */
#ifndef TRIAGE_CONNECTORS_CYCLES_H
#define TRIAGE_CONNECTORS_CYCLES_H

#include "base/arena.h"
#include "connectors/database.h"
#include "connectors/publisher.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model_row {
    uint32_t number, parent, trunk;
    const char *schema_hash;
    uint64_t horizon;
    long labels;
    double holdout_nll, champion_nll, constant_nll; /* NaN where unknown */
    bool promoted;
    const char *reason;
};
int cycles_send_model(struct database *database, const struct model_row *row, database_done *done, void *context);

/* Notes which model is champion from now on. */
int cycles_send_champion(struct database *database, uint32_t model, const char *why);

struct cycle_row {
    uint64_t number;
    uint32_t model;
    uint64_t horizon;
    long labels;
};

/* Replaces the published queue and notes the cycle, in one transaction. The texts live in `memory` during the call. */
int cycles_send_queue(struct database *database, const struct cycle_row *row, const struct queue_entry *entries,
                      size_t count, struct arena *memory, database_done *done, void *context);

/* Notes that the cycle's ranking is on the feed. */
int cycles_send_published(struct database *database, uint64_t cycle, database_done *done, void *context);

#define CYCLES_RETRACT_MAX 1024 /* entries that one statement takes off */

/* Takes these galaxies, at most CYCLES_RETRACT_MAX, off the recorded queue. */
int cycles_send_retract(struct database *database, const struct queue_entry *entries, size_t count, database_done *done,
                        void *context);

/* Columns number, parent, labels, holdout_nll, champion_nll, constant_nll, reason; newest first. */
int cycles_send_model_list(struct database *database, int limit, database_done *done, void *context);

struct cycles_state {
    uint64_t cycle;        /* number of the last one, 0 = none */
    uint64_t labels;       /* at the last cycle */
    uint32_t model_number; /* highest ever recorded */
};

/* Blocking, at start: the state, and the queue in rank order into `entries` (at most `limit`); *ret_count OUTPUT. */
int cycles_restore(struct database *database, struct cycles_state *ret_state, struct queue_entry *entries, size_t limit,
                   size_t *ret_count);

#endif
