/* What choosing leaves in the database: the gain each batch was expected to bring, and the galaxies held back for review. */
#ifndef TRIAGE_CONNECTORS_CHOICES_H
#define TRIAGE_CONNECTORS_CHOICES_H

#include "base/arena.h"
#include "connectors/database.h"

#include <stddef.h>
#include <stdint.h>

struct choice_row {
    uint64_t cycle;
    uint32_t model;
    int active_galaxies;
    double gain_mean, gain_error; /* nats; not finite = unknown */
};

struct review_row {
    uint64_t key;
    const char *reason; /* "artifact", "outlier" */
    double value;       /* not finite = unknown */
    float score;
};

/* Notes the gain at its cycle and replaces the review list. The texts live in `memory` during the call. */
int choices_send(struct database *database, const struct choice_row *row, const struct review_row *review, size_t count,
                 struct arena *memory);

/* Columns id_str, reason, value, score, model, cycle; the highest scores first. */
int choices_send_review_list(struct database *database, int limit, database_done *done, void *context);

/* Blocking, at start: the gains of the last `limit` cycles that have one, oldest first. */
int choices_restore(struct database *database, struct choice_row *rows, size_t limit, size_t *ret_count);

/* What promoted models were measured at, on the gate galaxies. */
struct measured_row {
    uint32_t model;
    long labels;
    double holdout_nll;
};

/* Blocking, at start: the last `limit` promoted models, oldest first. */
int choices_restore_measured(struct database *database, struct measured_row *rows, size_t limit, size_t *ret_count);

#endif
