/* See standin_kernels.h. */
#include "tests/gpu/standin_kernels.h"

static int one_phase(const void *arguments)
{
    (void)arguments;
    return 1;
}

static void scale(int phase, const void *arguments, void *shared, void *registers, unsigned block, unsigned thread,
                  unsigned blocks)
{
    const struct kernel_arguments *a = arguments;
    unsigned i = block * KERNEL_THREADS + thread;
    (void)phase, (void)shared, (void)registers, (void)blocks;
    if (i < a->count)
        a->to[i] = a->factor * a->from[i];
}

static int phases_of_sum(const void *arguments)
{
    (void)arguments;
    return 8; /* load, six halvings, store */
}

static void sum(int phase, const void *arguments, void *shared, void *registers, unsigned block, unsigned thread,
                unsigned blocks)
{
    const struct kernel_arguments *a = arguments;
    float *part = shared;
    unsigned i = block * KERNEL_THREADS + thread, half = KERNEL_THREADS >> phase;
    (void)registers, (void)blocks;
    if (phase == 0)
        part[thread] = i < a->count ? a->from[i] : 0;
    else if (phase < 7 && thread < half)
        part[thread] += part[thread + half];
    else if (phase == 7 && thread == 0)
        a->to[block] = part[0];
}

/* Halves while it loads: what another thread has not loaded yet is missing. */
static void no_barrier(int phase, const void *arguments, void *shared, void *registers, unsigned block, unsigned thread,
                       unsigned blocks)
{
    const struct kernel_arguments *a = arguments;
    float *part = shared;
    (void)phase, (void)registers, (void)blocks;
    part[thread] = a->from[block * KERNEL_THREADS + thread];
    if (thread < KERNEL_THREADS / 2)
        part[thread] += part[thread + KERNEL_THREADS / 2];
}

static void every_block(int phase, const void *arguments, void *shared, void *registers, unsigned block,
                        unsigned thread, unsigned blocks)
{
    const struct kernel_arguments *a = arguments;
    (void)phase, (void)shared, (void)registers, (void)block, (void)blocks;
    if (thread == 0)
        a->to[0] += 1;
}

static void one_too_many(int phase, const void *arguments, void *shared, void *registers, unsigned block,
                         unsigned thread, unsigned blocks)
{
    const struct kernel_arguments *a = arguments;
    (void)phase, (void)shared, (void)registers, (void)blocks;
    if (block == 0 && thread == 0)
        a->to[a->count] = 1;
}

static void far_away(int phase, const void *arguments, void *shared, void *registers, unsigned block, unsigned thread,
                     unsigned blocks)
{
    const struct kernel_arguments *a = arguments;
    (void)phase, (void)shared, (void)registers, (void)blocks;
    if (block == 0 && thread == 0)
        a->to[a->count + (1u << 20)] = 1;
}

static void into_all(int phase, const void *arguments, void *shared, void *registers, unsigned block, unsigned thread,
                     unsigned blocks)
{
    const struct many_pointers *a = arguments;
    (void)phase, (void)shared, (void)registers, (void)block, (void)blocks;
    for (int i = 0; i < 32 && thread == 0; i++)
        *a->to[i] = 1;
}

#define ARGUMENTS sizeof(struct kernel_arguments)
#define SHARED    (KERNEL_THREADS * sizeof(float))
const struct standin_kernel kernel_scale = {"scale", KERNEL_THREADS, ARGUMENTS, 0, 0, one_phase, scale};
const struct standin_kernel kernel_sum = {"sum", KERNEL_THREADS, ARGUMENTS, SHARED, 0, phases_of_sum, sum};
const struct standin_kernel kernel_no_barrier = {"no_barrier", KERNEL_THREADS, ARGUMENTS, SHARED, 0,
                                                 one_phase,    no_barrier};
const struct standin_kernel kernel_every_block = {"every_block", KERNEL_THREADS, ARGUMENTS, 0, 0,
                                                  one_phase,     every_block};
const struct standin_kernel kernel_one_too_many = {"one_too_many", KERNEL_THREADS, ARGUMENTS, 0, 0,
                                                   one_phase,      one_too_many};
const struct standin_kernel kernel_far_away = {"far_away", KERNEL_THREADS, ARGUMENTS, 0, 0, one_phase, far_away};
const struct standin_kernel kernel_many_pointers = {"many_pointers", 1,       sizeof(struct many_pointers), 0, 0,
                                                    one_phase,       into_all};
const struct standin_kernel kernel_wrong[4] = {
    {"threads",      1025,           ARGUMENTS, 0,             0, one_phase, scale},
    {"shared",       KERNEL_THREADS, ARGUMENTS, 48 * 1024 + 1, 0, one_phase, scale},
    {"arguments",    KERNEL_THREADS, 4097,      0,             0, one_phase, scale},
    {"no arguments", KERNEL_THREADS, 0,         0,             0, one_phase, scale},
};

unsigned blocks_of(unsigned count)
{
    return (count + KERNEL_THREADS - 1) / KERNEL_THREADS;
}
