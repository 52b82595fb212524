/*
 * What a plan consists of. Shared by net.cu (planning, batches, the calls of the seam) and net_run.cu (the steps) only.
 */
#ifndef TRIAGE_GPU_NET_STATE_H
#define TRIAGE_GPU_NET_STATE_H

#include "gpu/context.h"
#include "gpu/look.h"
#include "gpu/net_steps.h"
#include "gpu/ranks.h"

#define SLOTS 2 /* batches in flight */

struct slot {
    const struct plan *plan;
    float *images, *outputs;               /* on the device */
    float *staged_images, *staged_outputs; /* pinned */
    struct look_memory look;
    cudaEvent_t uploaded, done;
    cudaGraphExec_t graph;
    size_t count;  /* images in flight; 0 = free */
    float *target; /* where their outputs go */
};

struct plan {
    struct backend_context *context;
    struct plan *rank[RANKS_MAX]; /* of the first rank's: the plans of all; [0] is itself */
    struct net_steps *steps;
    int bfloat16, tf32, warm;
    size_t batch, image_floats, output_floats;
    char *memory;  /* all of this plan's device memory */
    char *weights; /* in it */
    char *map[NET_LAYERS_MAX + 1];
    float *wide[2];                   /* bfloat16: a dense convolution's input and output as floats */
    float *padded;                    /* its input with borders */
    void *workspace;                  /* of cuDNN */
    double *partial;                  /* sums of maps */
    float *mean, *inner, *gate;       /* of squeeze and excitation */
    struct gemm gemm[NET_LAYERS_MAX]; /* [steps] */
    struct convolution convolution[NET_LAYERS_MAX];
    struct slot slot[SLOTS];
};

static inline size_t map_values(const struct plan *plan, int map)
{
    size_t side = (size_t)plan->steps->side[map];
    return plan->batch * side * side * (size_t)plan->steps->channels[map];
}

static inline int padded_side(const struct net_step *step)
{
    return net_padded_side(step->layer, step->side, step->before, step->output_side);
}

/* Pinned memory of all slots. */
static inline size_t pinned_bytes(const struct plan *plan)
{
    return SLOTS * plan->batch *
           ((plan->image_floats + plan->output_floats) * sizeof(float) + sizeof *plan->slot->look.staged);
}

/* Bfloat16 needs its input in that precision unless the first step reads floats. */
static inline int input_converted(const struct plan *plan)
{
    return plan->bfloat16 && (plan->steps->steps == 0 || plan->steps->step[0].kind != STEP_DENSE ||
                              net_layer_shared(&plan->steps->net, -1));
}

/* Enqueues all steps of a slot on the compute stream. */
int net_run_slot(const struct plan *plan, const struct slot *slot);

#endif
