/* Small kernels for the tests of the stand-in: right ones, and ones that break a rule. Compiled to tell what they touch. */
#ifndef TRIAGE_TESTS_STANDIN_KERNELS_H
#define TRIAGE_TESTS_STANDIN_KERNELS_H

#include "tests/gpu/standin/cuda_runtime.h"

struct kernel_arguments {
    const float *from;
    float *to;
    unsigned count;
    float factor;
};

#define KERNEL_THREADS 64

extern const struct standin_kernel kernel_scale; /* to[i] = factor * from[i], i below count */
extern const struct standin_kernel kernel_sum;   /* to[block] = sum of from[i] of the block, a tree in shared memory */
extern const struct standin_kernel kernel_no_barrier;   /* the same with one phase too few */
extern const struct standin_kernel kernel_every_block;  /* to[0] += 1 by every block */
extern const struct standin_kernel kernel_one_too_many; /* to[count] = 1 */
extern const struct standin_kernel kernel_far_away;     /* to[count + 2^20] = 1 */
extern const struct standin_kernel kernel_wrong[4];     /* threads, shared, arguments, no arguments: never run */

/* Blocks for `count` values. */
/* Its arguments are nothing but pointers. */
struct many_pointers {
    float *to[32];
};
extern const struct standin_kernel kernel_many_pointers;

unsigned blocks_of(unsigned count);

#endif
