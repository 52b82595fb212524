/*
 * How kernels are written and started. A kernel is a struct of phase functions; a phase ends where all threads of a block wait
 * for each other. nvcc turns it into one __global__ function; g++ turns it into a table that the checking stand-in of
 * tests/gpu runs over blocks x phases x threads. No warp operations, no atomics, so that both do the same, bit for bit.
 *
 *   struct example {
 *       enum { threads = 256 };
 *       struct arguments { ... };   plain data, by value, 4 KB at most
 *       struct shared { ... };      of one block, 48 KB at most
 *       struct registers { ... };   of one thread; lives across phases
 *       HD int phases(const arguments &);
 *       HD void phase(int phase, const arguments &, shared &, registers &, const place &);
 *   };
 */
#ifndef TRIAGE_GPU_LAUNCH_H
#define TRIAGE_GPU_LAUNCH_H

#include "gpu/host.h"
#include "gpu/status.h"

#include <cuda_runtime.h>

/* Which thread of which block. */
struct place {
    unsigned block, blocks, thread;
};

struct nothing { /* for kernels without shared memory or registers */
    char unused;
};

#ifdef __CUDACC__
template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads) gpu_kernel(typename Kernel::arguments arguments)
{
    __shared__ typename Kernel::shared shared;
    typename Kernel::registers registers;
    place at = {blockIdx.x, gridDim.x, threadIdx.x};
    int phases = Kernel::phases(arguments);
    for (int phase = 0; phase < phases; phase++) {
        if (phase)
            __syncthreads();
        Kernel::phase(phase, arguments, shared, registers, at);
    }
}

template <class Kernel> void start(cudaStream_t stream, unsigned blocks, const typename Kernel::arguments &arguments)
{
    gpu_kernel<Kernel><<<blocks, Kernel::threads, 0, stream>>>(arguments);
}
#else
template <class Kernel> int emulated_phases(const void *arguments)
{
    return Kernel::phases(*(const typename Kernel::arguments *)arguments);
}

template <class Kernel>
void emulated_phase(int phase, const void *arguments, void *shared, void *registers, unsigned block, unsigned thread,
                    unsigned blocks)
{
    place at = {block, blocks, thread};
    Kernel::phase(phase, *(const typename Kernel::arguments *)arguments, *(typename Kernel::shared *)shared,
                  *(typename Kernel::registers *)registers, at);
}

template <class Kernel> void start(cudaStream_t stream, unsigned blocks, const typename Kernel::arguments &arguments)
{
    static const standin_kernel kernel = {__PRETTY_FUNCTION__,
                                          Kernel::threads,
                                          sizeof(typename Kernel::arguments),
                                          sizeof(typename Kernel::shared),
                                          sizeof(typename Kernel::registers),
                                          emulated_phases<Kernel>,
                                          emulated_phase<Kernel>};
    standin_launch(&kernel, blocks, &arguments, stream);
}
#endif

/* A launch has no status of its own: the last error is what it left, or an earlier call of this thread that nobody checked. */
template <class Kernel>
int launch(cudaStream_t stream, size_t blocks, const typename Kernel::arguments &arguments,
           const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    start<Kernel>(stream, (unsigned)blocks, arguments);
    return check_cuda(cudaGetLastError(), "a kernel", file, line);
}

#define BLOCKS_MAX 4096 /* of kernels that walk over more than one round */

/* Blocks for `items` items, `per_block` at a time, at least 1 and at most BLOCKS_MAX: the kernel walks over the rest. */
static inline size_t blocks_for(size_t items, size_t per_block)
{
    size_t blocks = (items + per_block - 1) / per_block;
    return blocks < 1 ? 1 : blocks > BLOCKS_MAX ? BLOCKS_MAX : blocks;
}

#endif
