/* Kernels of AdamW on parameters that stay on the device: values of model/optimizer.h itself. */
#ifndef TRIAGE_GPU_KERNELS_UPDATE_H
#define TRIAGE_GPU_KERNELS_UPDATE_H

#include "gpu/values.h"

extern "C" {
#include "model/optimizer.h"
}

struct update_range {
    size_t at; /* in the aligned parameters */
    size_t count;
    struct adamw_factors factors;
};

/* Sum of squares of a range, in a fixed order; a block per range. */
struct square_ranges {
    enum { threads = THREADS };
    struct arguments {
        const struct update_range *range; /* [blocks] */
        const float *gradient;
        double *squares; /* [blocks] OUTPUT */
    };
    struct shared {
        double sum[THREADS];
    };
    typedef nothing registers;
    HD int phases(const arguments &)
    {
        return 2;
    }
    HD void phase(int phase, const arguments &a, shared &s, registers &, const place &at)
    {
        const struct update_range &range = a.range[at.block];
        if (phase == 0) {
            double sum = 0;
            for (size_t i = at.thread; i < range.count; i += THREADS)
                sum += (double)a.gradient[range.at + i] * (double)a.gradient[range.at + i];
            s.sum[at.thread] = sum;
        } else if (at.thread == 0) {
            double sum = 0;
            for (int i = 0; i < THREADS; i++)
                sum += s.sum[i];
            a.squares[at.block] = sum;
        }
    }
};

#define UPDATE_BLOCKS 64 /* that share a range */

struct update_ranges : plain_kernel {
    struct arguments {
        const struct update_range *range; /* [blocks / UPDATE_BLOCKS] */
        const float *gradient;
        float *value, *moment1, *moment2;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        const struct update_range range = a.range[at.block / UPDATE_BLOCKS];
        size_t first = range.at + at.block % UPDATE_BLOCKS * THREADS + at.thread;
        for (size_t i = first; i < range.at + range.count; i += UPDATE_BLOCKS * THREADS)
            adamw_one(&range.factors, a.gradient[i], a.value + i, a.moment1 + i, a.moment2 + i);
    }
};

#endif
