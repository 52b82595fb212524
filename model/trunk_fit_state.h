/* What a run of trunk_fit.h consists of; shared by its loop (trunk_fit.c), judge (trunk_judge.c) and checkpoint only. */
#ifndef TRIAGE_MODEL_TRUNK_FIT_STATE_H
#define TRIAGE_MODEL_TRUNK_FIT_STATE_H

#include "model/trunk_fit.h"

#define TRUNK_FIT_CHUNK 65536 /* values updated by one task */

/* Sums over the rows judged so far. */
struct judgement {
    double loss, squares, question_loss[SCHEMA_QUESTIONS_MAX], question_squares[SCHEMA_QUESTIONS_MAX];
    uint64_t right, compared, question_rows[SCHEMA_QUESTIONS_MAX], question_compared[SCHEMA_QUESTIONS_MAX];
    uint64_t rows; /* 0 = no judging is under way */
};

/* Together with the arrays, all that a resumed run must know. */
struct trunk_counters {
    uint64_t step;        /* of the optimiser */
    int32_t epoch, batch; /* the next batch is this one of epoch `epoch` (from 0) */
    int32_t best_epoch, bad_epochs;
    double learning_rate;  /* base: a plateau schedule lowers it */
    double loss_sum;       /* of this epoch's batches so far */
    double step_rate;      /* of the last step */
    uint64_t start_judged; /* 1 = epoch 0 is */
    struct judgement judgement;
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
    struct train_range chunk[TRAIN_RANGES_MAX]; /* what learns: of the trunk, then of the head */
    int chunks, trunk_chunks;
    struct training *training;
    float *value, *moment1, *moment2, *best, *gradient; /* [count] each */
    int held, ahead; /* the backend holds the trunk's values and moments; and has changed them since */
    double *squares; /* [chunks] */
    float *images, *embeddings, *dropped; /* [batch] of the net's inputs and outputs */
    float *outputs, *output_gradients;    /* [batch][target.outputs] */
    uint64_t *order;                      /* [train_count] this epoch's rows */
    int ordered_epoch;                    /* which epoch that is; -1 = none yet */
    uint64_t *batch_key;                  /* [batch] */
    struct trunk_epoch *history;          /* [epochs_max + 1] */
    struct trunk_counters at;
    uint64_t bad_row;
    struct plan *judging; /* of the values being judged; NULL = none yet */
};

size_t trunk_fit_image_floats(const struct trunk_fit *fit);

/* This view (VIEW_PLAIN: the plain one) of up to fit->batch rows of the data, whose keys go into fit->batch_key. */
struct stored_views trunk_fit_views(const struct trunk_fit *fit, const uint64_t *row, size_t count, int view);

/* Puts the trunk's values and moments where the next step needs them, and back on the host (trunk_update.c). */
int trunk_fit_hold(struct trunk_fit *fit);
int trunk_fit_fetch(struct trunk_fit *fit);

/* One step of AdamW on everything that learns, from the gradients of a batch; a gradient that is not finite changes nothing. */
int trunk_fit_update(struct trunk_fit *fit);

/* outputs [count][outputs] = weight * inputs + bias. */
void trunk_fit_head(const struct trunk_fit *fit, const float *values, const float *inputs, size_t count,
                    float *outputs);

/* Judges the next fit->batch of these rows: 0 = there are more, 1 = `judged` is filled, or an error, after which it begins
 * again. A loss that is not finite is one: ERROR_INPUT, and bad_row. */
int trunk_judging_step(struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count,
                       struct trunk_epoch *judged);
void trunk_judging_end(struct trunk_fit *fit);

#endif
