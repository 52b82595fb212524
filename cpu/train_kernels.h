/*
 * The elementwise and depthwise loops of training, one set per instruction set, the same set as the heads'
 * (head_kernels.h). Tensors are channels-last: `rows` pixels of `channels` values. All sets give the same bits.
 */
#ifndef TRIAGE_CPU_TRAIN_KERNELS_H
#define TRIAGE_CPU_TRAIN_KERNELS_H

#include <stddef.h>

#define TRAIN_CHANNELS_MAX 4096

enum activation_kind { ACTIVATION_NONE, ACTIVATION_SWISH, ACTIVATION_RELU };

struct activation {
    enum activation_kind kind;
    float ceiling; /* of ReLU; INFINITY = none */
};

/* Backward of batch norm, y = scale (x - mean) + beta, of one block of rows. */
struct norm_back {
    const float *x, *mean;
    const float *scale, *shift; /* y = scale x + shift */
    size_t rows, channels;
    struct activation activation; /* what the output is of y */
    float *gradient;              /* of the output; becomes the gradient of y */
    double *sums;                 /* [2][channels], added to: sum of dy, sum of dy (x - mean) */
};

struct depthwise {
    int images, side, out_side, channels, kernel, stride, before;
};

struct train_kernels {
    /* sums[0][c] += sum of x - pivot, sums[1][c] += sum of its square */
    void (*moments)(const float *x, const float *pivot, size_t rows, size_t channels, double *sums);

    /* out = activation(scale x + shift) */
    void (*normalise)(const float *x, const float *scale, const float *shift, size_t rows, size_t channels,
                      struct activation activation, float *out);

    void (*normalise_back)(const struct norm_back *block);

    /* gradient = scale (gradient - a - (x - mean) b) */
    void (*normalise_back_apply)(const struct norm_back *block, const float *a, const float *b);

    /* out = x sigmoid(x); gradient *= its derivative at x */
    void (*swish)(const float *x, size_t count, float *out);
    void (*swish_back)(const float *x, size_t count, float *gradient);

    /* out = max(x, 0), no more than `ceiling`; gradient is zero where x is at a bend or beyond */
    void (*relu)(const float *x, size_t count, float ceiling, float *out);
    void (*relu_back)(const float *x, size_t count, float ceiling, float *gradient);

    /* sums[c] += sum over pixels of a[c] b[c]; b NULL = 1 */
    void (*channel_sums)(const float *a, const float *b, size_t rows, size_t channels, float *sums);

    /* out = x times factor[c], plus term[c] (may be NULL) */
    void (*scale_channels)(const float *x, const float *factor, const float *term, size_t rows, size_t channels,
                           float *out);

    /* Gradient of depthwise weights, transposed: weights[kernel][kernel][channels], overwritten. */
    void (*depthwise_weights)(const struct depthwise *shape, const float *source, const float *target_gradient,
                              float *weights);
};

const struct train_kernels *train_kernels(void);

#endif
