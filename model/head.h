/*
 * Heads on cached embeddings: dropout -> linear -> alpha = 1 + 100 sigmoid(x), one Dirichlet concentration per answer
 * (Walmsley et al. 2021, arXiv 2102.08414; alpha in (1, 101) keeps every marginal unimodal). A head_set is an
 * ensemble of `count` heads over the same trunk, with everything needed to go on training exactly where it stopped.
 *
 * Embeddings enter as z = (embedding - shift) * scale, one shift and scale per input, fixed when the first head of a
 * trunk is fitted: random-weight features share a large mean, and dropout on that mean would be nothing but noise.
 * Imported heads have shift 0 and scale 1.
 */
#ifndef TRIAGE_MODEL_HEAD_H
#define TRIAGE_MODEL_HEAD_H

#include "model/information.h"
#include "model/schema.h"

#include <stddef.h>
#include <stdint.h>

#define HEAD_COUNT_MAX 16

struct head_set {
    int count, inputs, answers;
    uint32_t model; /* number of the model these heads belong to: part of the mask counter */
    float dropout;  /* probability that an input is dropped, train and predict */
    float *shift, *scale; /* [inputs] */
    float *weight;        /* [count][answers][inputs] */
    float *bias;          /* [count][answers] */
    float *moment1;       /* AdamW moments, [count][answers][inputs + 1], bias last */
    float *moment2;
    uint64_t step; /* AdamW steps taken */
};

/* One allocation for all arrays, zeroed, scale = 1. Free with head_set_free(). */
int head_set_new(int count, int inputs, int answers, struct head_set *ret_heads);
int head_set_copy(const struct head_set *from, struct head_set *ret_heads);
void head_set_free(struct head_set *heads);

/* Sets shift and scale from the mean and standard deviation of these rows (fp16, `stride_bytes` apart). */
void head_set_standardise(struct head_set *heads, const uint16_t *embedding, size_t stride_bytes,
                          const uint64_t *row, size_t count);

/* Weights 0, bias = inverse of alpha() at the constant concentrations, moments 0. */
void head_set_reset(struct head_set *heads, const float *constant_alpha);

struct fit_request {
    const struct schema *schema;
    const uint16_t *embedding; /* fp16 rows */
    size_t embedding_stride_bytes;
    const uint16_t *votes;     /* vote counts, [answers] per row */
    size_t votes_stride_bytes;
    const uint64_t *train_row; /* [train_count] rows with at least one vote */
    size_t train_count;
    const uint64_t *validation_row; /* [validation_count] for early stopping; may be empty (then epochs_max / 4) */
    size_t validation_count;
    uint64_t seed;
    float learning_rate, weight_decay;
    int batch;      /* galaxies per step */
    int epochs_max; /* full passes over the training rows */
    int patience;   /* epochs without a better validation loss before stopping; the best weights are kept */
    int (*stop)(void *context); /* (optional) asked after each epoch; non-zero cancels */
    void *stop_context;
};

struct fit_report {
    int epochs, best_epoch;
    float train_loss;      /* per galaxy, at the best epoch */
    float validation_loss; /* NaN without validation rows */
};

#endif
