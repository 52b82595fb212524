/* What the files of training share: train.c (opening, the order of the passes) and train_stages.c (each kind of stage). */
#ifndef TRIAGE_CPU_TRAIN_STATE_H
#define TRIAGE_CPU_TRAIN_STATE_H

#include "cpu/train.h"
#include "cpu/train_conv.h"
#include "cpu/train_kernels.h"

#define BLOCK_ROWS 512 /* pixels of one task */

enum stage_kind {
    STAGE_CONV,
    STAGE_NORM,
    STAGE_SWISH,
    STAGE_SE,
    STAGE_ADD,
    STAGE_POOL,
    STAGE_BIAS,
    STAGE_RELU,
    STAGE_MAX_POOL,
};

struct stage {
    enum stage_kind kind;
    const struct layer *layer;    /* the (first) layer */
    int last;                     /* index of its last layer: whose output this is */
    struct activation activation; /* STAGE_NORM: included; STAGE_RELU: itself */
    int in_side, out_side;
    size_t in_floats, out_floats; /* per image */
    size_t offset;                /* of its parameters */
    int from;                     /* STAGE_ADD: the stage whose output is added */
    float *output;                /* [batch_limit][out_floats] */
    float *kept;                  /* STAGE_NORM: mean, inverse deviation, scale, shift, each [channels];
                                     STAGE_SE: [batch_limit][2 in + reduced]: mean, gate, before the inner swish;
                                     STAGE_ADD: [batch_limit] scale of the branch */
    struct train_conv *conv[2];   /* STAGE_CONV: for parts of `part_images` and `part_images + 1` */
};

struct training {
    struct workers *workers;
    struct net net;
    struct dnnl_engine *engine;
    struct stage stage[NET_LAYERS_MAX];
    int stages;
    size_t batch_limit, count; /* count: images the convolutions are compiled for and the last forward pass had */
    size_t part_images;        /* of the smaller parts */
    int parts;                 /* of the batch, one per worker; the first count % parts have one image more */
    struct train_conv_lane **lane;
    float **lane_gradient; /* [parts] of the largest layer's parameters */
    size_t largest_parameters, largest_floats;
    float *gradient[2], *residual; /* [batch_limit][largest_floats] */
    double *sums;                  /* [blocks][2][channels] */
    size_t sums_count;
    const float *images;
    struct train_pass pass;
    int status;
};

/* What a task works on: a stage, and the tensors around it. */
struct work {
    struct training *training;
    struct stage *stage;
    const float *parameters;     /* of the stage */
    const float *input;          /* [count][in_floats] */
    float *gradient, *to;        /* of the output; where the input's goes */
    float *parameter_gradient;   /* of the stage */
    const float *factor, *terms; /* normalise_back_apply: a and b */
};

/* Leaves the stage's output, and its running statistics in `parameters`, the stage's own. */
int stage_forward(const struct work *work, float *parameters);

/* Leaves the gradient of the stage's input in work->to, and that of its parameters. */
void stage_backward(const struct work *work);

/* Adds what waits in training->residual to the gradient of the stage's output. */
void stage_join(const struct work *work);

#endif
