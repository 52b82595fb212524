/*
 * How heads are fitted (head_fit of every backend, by the same rules):
 *   loss        mean over the batch of likelihood_galaxy(), per head
 *   dropout     inverted, on the standardised inputs; masks from PHILOX_TRAIN, own ones for every head, step
 *               and galaxy
 *   bagging     each head multiplies the loss of a galaxy by its own draw from Exp(1), fixed by PHILOX_BAG (the Bayesian
 *               bootstrap, Rubin 1981): heads then differ where data are few and agree where they are many, which masks
 *               alone do not achieve. Losses that are reported or stop a fit are not weighed
 *   order       every epoch each head shuffles train_row (Fisher and Yates, PHILOX_SHUFFLE, from the given
 *               order); the last batch of an epoch may be smaller
 *   optimiser   AdamW (Loshchilov & Hutter 2019; beta 0.9 / 0.999, epsilon 1e-8), decay on weights, not on
 *               biases. Steps of biases have a size of their own: a step of AdamW moves each number by about its rate, so a
 *               thousand weights move a logit a thousand times as far as its bias, and at one rate for all the weights have
 *               fitted the noise long before concentrations, which only biases raise for everybody, are where they should be
 *   start       weights, moments and step as given: N epochs and N more equal 2 N bit for bit
 *   stopping    after each epoch the validation loss is the mean over heads and rows of likelihood_galaxy()
 *               without dropout; `patience` epochs without a better one end the fit. The state before the
 *               first epoch counts, so a fit never ends worse on the validation rows than it began.
 *   result      weights, moments and step of the best epoch (the last one without validation rows)
 * Bit-equal for any number of threads. Errors leave the heads at the best state so far: ERROR_INPUT when the
 * request makes no sense or a galaxy gives a loss that is not finite (the message names its row),
 * ERROR_CANCELLED when `stop` says so, ERROR_SYSTEM without memory.
 */
#ifndef TRIAGE_MODEL_HEAD_FIT_H
#define TRIAGE_MODEL_HEAD_FIT_H

#include "model/head.h"
#include "model/schema.h"

#include <stddef.h>
#include <stdint.h>

struct fit_request {
    const struct schema *schema;
    const uint16_t *embedding; /* fp16 rows of `views` times heads->inputs values */
    size_t embedding_stride_bytes;
    int views; /* embeddings per row: step s looks at number (row + s) % views, validation at row % views; 0 = 1 */
    const uint16_t *votes; /* vote counts, [answers] per row */
    size_t votes_stride_bytes;
    const uint64_t *train_row; /* [train_count] rows with at least one vote */
    size_t train_count;
    const uint64_t *validation_row; /* [validation_count] for early stopping; may be empty (then epochs_max / 4) */
    size_t validation_count;
    uint64_t seed;
    float learning_rate, bias_rate; /* step of the weights, of the biases */
    float weight_decay;
    int bagging;                /* 1 = each head weighs the galaxies in its own way, see above */
    int batch;                  /* galaxies per step, 1 .. HEAD_BATCH_MAX */
    int epochs_max;             /* full passes over the training rows */
    int patience;               /* epochs without a better validation loss before stopping; the best weights are kept */
    int (*stop)(void *context); /* (optional) asked after each epoch; non-zero cancels */
    void *stop_context;
};

struct fit_report {
    int epochs, best_epoch; /* best_epoch 0: nothing was better than the start */
    float train_loss;       /* per galaxy and head, at the best epoch, without dropout */
    float validation_loss;  /* NaN without validation rows */
    uint64_t bad_row;       /* after ERROR_INPUT: the row whose loss was not finite, else UINT64_MAX */
};

/* What every backend asks of a request before it fits: ERROR_STATE for heads of another schema or
 * network, ERROR_INPUT for what makes no sense. */
int fit_request_check(const struct fit_request *request, const struct head_set *heads);

/* What one head multiplies the loss of a galaxy by: its draw from Exp(1), or 1 without bagging. */
float fit_bag_weight(const struct fit_request *request, uint64_t row, uint32_t head);

/* A backend's heads in training, which fit_epochs() leads. */
struct fit_learner {
    /* Trains an epoch, steps from `step` on, if asked to. Then each head's summed loss of these rows, without dropout, and the first
     * row whose loss was not finite, in training or after it; UINT64_MAX = none. */
    int (*run)(void *context, int train, uint64_t step, const uint64_t *row, size_t count, double *loss,
               uint64_t *failed_row);
    /* Takes weights and moments from the head_set, or (`out`) copies them there. */
    int (*exchange)(void *context, int out);
    void *context;
};

/* This epoch's rows of one head, shuffled into `order` [train_count]; `step` is that at the start of the epoch. */
void fit_shuffle(const struct fit_request *request, int head, uint64_t step, uint64_t *order);

/* The order of a fit: epochs, when to stop, which state is kept, and the report. */
int fit_epochs(const struct fit_request *request, struct head_set *heads, const struct fit_learner *learner,
               struct fit_report *report);

#endif
