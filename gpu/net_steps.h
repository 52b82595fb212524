/*
 * From a table of layers to the steps of inference: what is folded into what, and the weights as the kernels want them. Host code
 * only, without any call to CUDA; net.cu places and runs the steps.
 */
#ifndef TRIAGE_GPU_NET_STEPS_H
#define TRIAGE_GPU_NET_STEPS_H

#include "gpu/host.h"

#define CHANNELS_MAX 4096 /* of one layer */
#define NO_OFFSET    SIZE_MAX

enum step_kind {
    STEP_GEMM,      /* 1x1 convolution, bias, activation */
    STEP_DEPTHWISE, /* depthwise convolution, bias, activation */
    STEP_DENSE,     /* any other convolution, bias, activation */
    STEP_AFFINE,    /* per channel: gamma x + beta, activation */
    STEP_SE,
    STEP_ADD,
    STEP_POOL,
    STEP_MAX_POOL,
};

struct net_step {
    enum step_kind kind;
    const struct layer *layer;
    int source, target, other; /* maps: 0 is the input, i + 1 the output of layer i; `other` of STEP_ADD */
    int side, output_side, before;
    int activation; /* enum activation of values.h */
    float ceiling;
    size_t weights,
        bias; /* byte offsets into the weights; NO_OFFSET: none. STEP_AFFINE: gamma and beta; STEP_SE: its parameters */
};

struct net_steps {
    struct net net;
    struct net_step step[NET_LAYERS_MAX];
    int steps;
    int side[NET_LAYERS_MAX + 1], channels[NET_LAYERS_MAX + 1]; /* of each map */
    char *weights;                                              /* host memory */
    size_t weights_bytes;
};

/* `bfloat16`: weights and biases of STEP_GEMM are in bfloat16, everything else is float in any case. ERROR_LIMIT for layers that are
 * too wide, ERROR_INPUT for groups or kernels that have no kernel of ours. */
int net_steps_build(const struct net *net, const float *parameters, int bfloat16, struct net_steps **ret_steps);
void net_steps_free(struct net_steps *steps); /* NULL is fine */

/* Whether this convolution is depthwise, of a kind that has a kernel of ours; ERROR_INPUT if it has groups and is not. */
int net_layer_check(const struct net *net, const struct layer *layer);
static inline int net_layer_depthwise(const struct layer *layer)
{
    return layer->kind == LAYER_CONV && layer->groups > 1;
}

/* The square with borders of our own that a convolution needs because cuDNN, which pads all sides alike, would not give `output_side`;
 * 0 = none. */
static inline int net_padded_side(const struct layer *layer, int side, int before, int output_side)
{
    int reach = (output_side - 1) * layer->stride + layer->kernel, padded = side + 2 * before;
    return padded >= reach && padded < reach + layer->stride ? 0 : reach;
}

/* A 1x1 convolution is one matrix product. */
static inline int net_layer_pointwise(const struct layer *layer)
{
    return layer->kind == LAYER_CONV && layer->kernel == 1 && layer->stride == 1 && layer->groups == 1;
}

/* Whether any addition reads the output of layer `index`, which must then be there, unfused. */
int net_layer_shared(const struct net *net, int index);

#endif
