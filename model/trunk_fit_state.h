/* What a run of trunk_fit.h consists of; shared by its loop (trunk_fit.c) and its checkpoint (trunk_checkpoint.c) only. */
#ifndef TRIAGE_MODEL_TRUNK_FIT_STATE_H
#define TRIAGE_MODEL_TRUNK_FIT_STATE_H

#include "model/trunk_fit.h"

#define TRUNK_FIT_CHUNKS_MAX 4096
#define TRUNK_FIT_CHUNK      65536 /* values updated by one task */

/* Values that learn at the same rate. */
struct trunk_chunk {
    size_t offset, count;
    double factor; /* of the learning rate */
};

/* Together with the arrays, all that a resumed run must know. */
struct trunk_counters {
    uint64_t step;        /* of the optimiser */
    int32_t epoch, batch; /* the next batch is this one of epoch `epoch` (from 0) */
    int32_t best_epoch, bad_epochs;
    double learning_rate; /* base: a plateau schedule lowers it */
    double loss_sum;      /* of this epoch's batches so far */
};

struct trunk_fit {
    const struct backend *backend;
    struct backend_context *context;
    struct net net;
    struct target target;
    struct trunk_recipe recipe;
    struct trunk_data data;
    size_t trunk_count, count; /* floats of the trunk; of trunk and head */
    int batch, steps_per_epoch, first_layer;
    struct trunk_chunk chunk[TRUNK_FIT_CHUNKS_MAX];
    int chunks;
    struct training *training;
    float *value, *moment1, *moment2, *best, *gradient; /* [count] each */
    double *squares;                                    /* [chunks] */
    float *images, *embeddings, *dropped;               /* [batch] of the net's inputs and outputs */
    float *outputs, *output_gradients;                  /* [batch][target.outputs] */
    uint64_t *order;                                    /* [train_count] this epoch's rows */
    int ordered_epoch;                                  /* which epoch that is; -1 = none yet */
    uint64_t *batch_key;                                /* [batch] */
    struct trunk_epoch *history;                        /* [epochs_max + 1] */
    struct trunk_counters at;
    uint64_t bad_row;
};

#endif
