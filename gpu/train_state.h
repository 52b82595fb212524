/*
 * What a training consists of: its steps, where every map and gradient lies, what the passes keep. Shared by train.cu (planning),
 * train_pass.cu (the calls of the seam), train_update.cu, train_forward.cu and train_backward.cu only.
 *
 * A step is one layer, or a batch norm or bias with the activation behind it: what lies between them is never stored but computed
 * again in the backward pass. Map 0 is the input, map i + 1 the output of layer i.
 */
#ifndef TRIAGE_GPU_TRAIN_STATE_H
#define TRIAGE_GPU_TRAIN_STATE_H

#include "gpu/context.h"
#include "gpu/kernels_train.h"
#include "gpu/kernels_update.h"
#include "gpu/look.h"
#include "gpu/ranks.h"

struct train_step {
    const struct layer *layer;
    int index;                                  /* of its layer */
    int source, target, other;                  /* maps; `other` of an addition, else -1 */
    int side, output_side, before, padded_side; /* padded_side: borders cuDNN cannot give; 0 = none needed */
    int activation;
    float ceiling;
    size_t parameters; /* float offset in the device's parameters and gradients */
    /* small things kept from forward to backward, on the device */
    float *mean, *inverse; /* batch norm, [channels]; squeeze and excitation: mean [batch][channels] */
    float *inner, *gate;   /* squeeze and excitation */
    float *scale;          /* additions: of each image's branch, [batch] */
    float *weights;        /* convolutions: in the order kernels and cuDNN want */
    struct gemm forward, backward, backward_weights;
    struct convolution convolution;
};

/* One captured pass; it is captured again when what it depends on has changed. */
struct captured {
    cudaGraphExec_t graph;
    size_t count;
    int live, first_layer, images, together;
};

struct training {
    struct backend_context *context;
    struct training *rank[RANKS_MAX]; /* of the first rank's: those of all; [0] is itself */
    size_t whole_limit;               /* of the batch of all ranks */
    struct net net;
    size_t batch_limit, count; /* images of the last forward pass; the products are opened for this many */
    size_t first, total;       /* the first of these in the whole batch, and the images of that */
    int together;              /* the other ranks have the rest of it */
    int held;                  /* parameters and moments are here to stay (train_hold) */
    int keep;                  /* 0: forward only, maps share memory (calibration) */
    float momentum;
    struct train_step step[NET_LAYERS_MAX];
    int steps;
    int side[NET_LAYERS_MAX + 1], channels[NET_LAYERS_MAX + 1];
    size_t padded_count;          /* floats of all parameters with every layer aligned */
    size_t place[NET_LAYERS_MAX]; /* where a layer's parameters begin among those, in floats */
    struct train_pass pass;
    char *memory;
    float *map[NET_LAYERS_MAX + 1], *flow[NET_LAYERS_MAX + 1]; /* values, and d loss / d values */
    float *parameters, *gradients;
    double *partial;
    float *sum, *product; /* [channels] of affine_gradients */
    float *opened, *inner_gradient, *mean_gradient;
    float *padded, *padded_gradient, *weight_gradient;
    void *workspace; /* of cuDNN, for a batch of any size */
    size_t workspace_bytes;
    float *scales;  /* [additions][batch_limit] */
    double *shared; /* [2][channels] sums over the whole batch */
    float *moment1, *moment2;
    struct update_range *ranges; /* [TRAIN_RANGES_MAX] */
    double *squares;             /* [TRAIN_RANGES_MAX] */
    struct look_memory look;
    /* pinned */
    float *staged_parameters, *staged_images, *staged_outputs, *staged_scales;
    struct update_range *staged_ranges;
    double *staged_squares;
    struct captured forward, backward;
};

static inline size_t train_values(const struct training *training, int map, size_t images)
{
    size_t side = (size_t)training->side[map];
    return images * side * side * (size_t)training->channels[map];
}

/* Whether a reader of `map` above `step` exists: it writes the map's gradient first, and `step` adds to it. */
static inline int train_adds(const struct training *training, int step, int map)
{
    for (int i = step + 1; i < training->steps; i++)
        if (training->step[i].source == map || training->step[i].other == map)
            return 1;
    return 0;
}

/* One device's part; `keep` 0: for forward passes only. */
int train_open_one(struct backend_context *context, const struct net *net, size_t batch_limit, int keep,
                   struct training **ret_training);
void train_close_one(struct training *training); /* NULL is fine */
int train_open_products(struct training *training, size_t count);
void train_forget(struct captured *captured);

/* Between parameters in table order and those with every layer aligned. */
void train_pack(const struct training *training, float *packed, const float *plain);
void train_unpack(const struct training *training, const float *packed, float *plain);

/* The two sums per channel of `partial` over the images of all ranks, into training->shared. Called by every rank. */
int train_sum_over_ranks(struct training *training, size_t segments, int channels);

/* Enqueue all steps on the compute stream. */
int train_run_forward(struct training *training);
int train_run_backward(struct training *training, int first_layer, int images);

#endif
