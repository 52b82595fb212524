/*
 * Kernels: blocks x phases x threads on the host (gpu/launch.h). Shared memory and the registers that live across phases start as NaN.
 * Blocks, and threads within a phase, run in a seeded order.
 */
#include "tests/gpu/standin/engine.h"

#include <stdlib.h>
#include <string.h>

#define ARGUMENTS_LIMIT 4096u
#define SHARED_LIMIT    (48u << 10)
#define THREADS_LIMIT   1024u
#define BLOCKS_LIMIT    2147483647u

struct launch {
    const struct standin_kernel *kernel;
    unsigned blocks;
    _Alignas(16) char arguments[];
};

/* A permutation of 0 .. count - 1 by a step that shares no factor with the count. */
struct order {
    unsigned count, start, step;
};

static struct order any_order(unsigned count)
{
    struct order order = {count, choose(count), 1 + choose(count)};
    for (;; order.step = order.step % count + 1) {
        unsigned a = order.step, b = count;
        while (b) {
            unsigned rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            return order;
    }
}

static unsigned at(const struct order *order, unsigned i)
{
    return (unsigned)((order->start + (uint64_t)i * order->step) % order->count);
}

static void run_kernel(struct operation *operation)
{
    struct launch *launch = operation->payload;
    const struct standin_kernel *kernel = launch->kernel;
    int phases = kernel->phases(launch->arguments);
    size_t stride = (kernel->registers_bytes + 15) / 16 * 16;
    char *registers = malloc(stride * kernel->threads + 1), *shared = malloc(kernel->shared_bytes + 1);
    struct order blocks = any_order(launch->blocks);
    trace_begin(operation, shared, kernel->shared_bytes, kernel->threads);
    for (unsigned b = 0; b < launch->blocks; b++) {
        trace_block(at(&blocks, b));
        memset(registers, 0xff, stride * kernel->threads);
        memset(shared, 0xff, kernel->shared_bytes);
        for (int phase = 0; phase < phases; phase++) {
            struct order threads = any_order(kernel->threads);
            for (unsigned t = 0; t < kernel->threads; t++) {
                unsigned thread = at(&threads, t);
                trace_thread(phase, thread);
                kernel->phase(phase, launch->arguments, shared, registers + stride * thread, at(&blocks, b), thread,
                              launch->blocks);
            }
        }
    }
    trace_end();
    free(registers);
    free(shared);
}

/* Every word of the arguments that points into device memory is somewhere the kernel may read or write. */
static void touches_what_arguments_point_to(struct operation *operation, const char *arguments, size_t bytes)
{
    for (size_t i = 0; i + sizeof(uintptr_t) <= bytes; i += sizeof(uintptr_t)) {
        uintptr_t word;
        memcpy(&word, arguments + i, sizeof word);
        const char *pointer = (const char *)word; /* NOLINT: that is the question */
        struct allocation *a = is_device_address(pointer) ? allocation_of(pointer, 0) : NULL;
        if (!a)
            continue;
        const char *start = pointer, *end = pointer + 1;
        for (unsigned b = 0; b < a->buffers; b++)
            if (pointer >= a->buffer[b].start && pointer < a->buffer[b].start + a->buffer[b].bytes) {
                start = a->buffer[b].start;
                end = start + a->buffer[b].bytes;
            }
        touches(operation, start, (size_t)(end - start), TOUCH_MAYBE);
    }
}

static cudaError_t check_launch(const struct standin_kernel *kernel, unsigned blocks)
{
    if (kernel->threads == 0 || kernel->threads > THREADS_LIMIT)
        return BROKEN(cudaErrorInvalidConfiguration, LAUNCH_THREADS, "%s: %u threads", kernel->name, kernel->threads);
    if (blocks == 0 || blocks > BLOCKS_LIMIT)
        return BROKEN(cudaErrorInvalidConfiguration, LAUNCH_BLOCKS, "%s: %u blocks", kernel->name, blocks);
    if (kernel->shared_bytes > SHARED_LIMIT)
        return BROKEN(cudaErrorInvalidValue, LAUNCH_SHARED, "%s: %zu bytes", kernel->name, kernel->shared_bytes);
    if (kernel->arguments_bytes == 0 || kernel->arguments_bytes > ARGUMENTS_LIMIT)
        return BROKEN(cudaErrorInvalidValue, LAUNCH_ARGUMENTS, "%s: %zu bytes", kernel->name, kernel->arguments_bytes);
    return cudaSuccess;
}

cudaError_t standin_launch(const struct standin_kernel *kernel, unsigned blocks, const void *arguments,
                           cudaStream_t stream)
{
    lock();
    cudaError_t error = usable();
    struct CUstream_st *s = error ? NULL : stream_of(stream);
    if (!error && !s)
        error = cudaErrorInvalidResourceHandle;
    if (!error && s->device != current_device())
        error = BROKEN(cudaErrorInvalidResourceHandle, DEVICE_MISMATCH, "%s: stream of device %d, current is %d",
                       kernel->name, s->device, current_device());
    if (!error)
        error = check_launch(kernel, blocks);
    if (error)
        return leave(error);
    struct launch *launch = malloc(sizeof *launch + kernel->arguments_bytes);
    launch->kernel = kernel;
    launch->blocks = blocks;
    memcpy(launch->arguments, arguments, kernel->arguments_bytes);
    struct operation *o = operation_new(kernel->name, run_kernel, launch);
    touches_what_arguments_point_to(o, launch->arguments, kernel->arguments_bytes);
    return leave(enqueue(o, s));
}
