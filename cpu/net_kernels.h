/*
 * The elementwise loops of inference, one set per instruction set and precision, the same choice as the heads'
 * (head_kernels.h). Tensors are channels-last, `pixels` of `channels` values, of one image. Arithmetic is in float for both
 * precisions; bfloat16 values are rounded to nearest even when stored. All instruction sets give the same bits.
 */
#ifndef TRIAGE_CPU_NET_KERNELS_H
#define TRIAGE_CPU_NET_KERNELS_H

#include "model/backend.h"

#include <stddef.h>

struct net_kernels {
    size_t value_bytes;

    /* values become x sigmoid(x); sums[c] OUTPUT unless NULL: their sums over the pixels */
    void (*swish)(void *values, size_t pixels, size_t channels, float *sums);

    /* sums[c] OUTPUT: over the pixels */
    void (*sums)(const void *values, size_t pixels, size_t channels, float *sums);

    /* target = source times factor[c]; the two may be the same */
    void (*scale)(const void *source, const float *factor, size_t pixels, size_t channels, void *target);

    /* target = a + b; any of them may be the same */
    void (*add)(const void *a, const void *b, size_t count, void *target);

    void (*narrow)(const float *values, size_t count, void *target); /* to this precision */
    void (*widen)(const void *values, size_t count, float *target);
};

const struct net_kernels *net_kernels(enum precision precision);

#endif
