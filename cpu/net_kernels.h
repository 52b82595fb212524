/*
 * The elementwise loops of inference, one set per instruction set and precision, the same choice as the heads'
 * (head_kernels.h). Tensors are channels-last, `pixels` of `channels` values, of one image. Arithmetic is in float for both
 * precisions; bfloat16 values are rounded to the nearest when stored. The sets with fused multiply-adds give the same bits, the
 * portable one differs in rounding.
 */
#ifndef TRIAGE_CPU_NET_KERNELS_H
#define TRIAGE_CPU_NET_KERNELS_H

#include "model/backend.h"

#include <stddef.h>

struct net_kernels {
    size_t value_bytes;

    /* values become x sigmoid(x); sums[c] += their sums over the pixels, unless NULL */
    void (*swish)(void *values, size_t pixels, size_t channels, float *sums);

    /* sums[c] += sum over the pixels */
    void (*sums)(const void *values, size_t pixels, size_t channels, float *sums);

    /* values times factor[c], in place */
    void (*scale)(void *values, const float *factor, size_t pixels, size_t channels);

    /* values plus other, in place */
    void (*add)(void *values, const void *other, size_t count);

    void (*narrow)(const float *values, size_t count, void *target); /* to this precision */
    void (*widen)(const void *values, size_t count, float *target);
};

const struct net_kernels *net_kernels(enum precision precision);

#endif
