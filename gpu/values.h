/* Numbers in device memory (float or bfloat16), where a thread stands in an array, and the activations. Shared by all kernels. */
#ifndef TRIAGE_GPU_VALUES_H
#define TRIAGE_GPU_VALUES_H

#include "gpu/launch.h"

#define THREADS 256 /* of every kernel */

#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* The upper half of a float; arithmetic is always in float. */
struct bfloat16 {
    uint16_t bits;
};

HD float load(const float *at)
{
    return *at;
}

HD float load(const bfloat16 *at)
{
    uint32_t bits = (uint32_t)at->bits << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

HD void store(float *at, float value)
{
    *at = value;
}

/* Rounds to the nearest, ties to even; NaN stays NaN. */
HD void store(bfloat16 *at, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1);
    at->bits = (uint16_t)((value != value ? bits | 0x400000u : rounded) >> 16);
}

/*
 * N neighbours in one access; `at` is aligned to all of them, up to 16 bytes. A thread that takes one value at a time has too little on
 * its way to fill a memory's width.
 */
template <class T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) neighbours {
    T value[N];
};

template <int N, class T> HD void load_many(const T *at, float *values)
{
    const neighbours<T, N> all = *(const neighbours<T, N> *)at;
    UNROLL
    for (int i = 0; i < N; i++)
        values[i] = load(all.value + i);
}

template <int N, class T> HD void store_many(T *at, const float *values)
{
    neighbours<T, N> all;
    UNROLL
    for (int i = 0; i < N; i++)
        store(all.value + i, values[i]);
    *(neighbours<T, N> *)at = all;
}

enum activation { ACTIVATION_NONE, ACTIVATION_SWISH, ACTIVATION_RELU };

HD float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* `ceiling` 0: none. NaN stays NaN. */
HD float activate(int activation, float ceiling, float x)
{
    if (activation == ACTIVATION_SWISH)
        return x / (1.0f + expf(-x));
    if (activation == ACTIVATION_RELU) {
        x = x < 0 ? 0 : x;
        return ceiling > 0 && x > ceiling ? ceiling : x;
    }
    return x;
}

HD float activation_slope(int activation, float ceiling, float x)
{
    if (activation == ACTIVATION_SWISH) {
        float s = sigmoid(x);
        return s + x * s * (1.0f - s);
    }
    if (activation == ACTIVATION_RELU)
        return x > 0 && (ceiling <= 0 || x < ceiling) ? 1.0f : 0.0f;
    return 1.0f;
}

/*
 * Walks over an array [rows][channels] with all threads of a grid side by side. One division at the start: index, row and
 * channel then move by fixed strides.
 */
struct walk {
    size_t index, count, row;
    unsigned channel, channels;
    size_t step, row_step;
    unsigned channel_step;
};

HD struct walk walk_from(const struct place &at, size_t count, unsigned channels)
{
    struct walk walk;
    walk.index = (size_t)at.block * THREADS + at.thread;
    walk.count = count;
    walk.channels = channels;
    walk.row = walk.index / channels;
    walk.channel = (unsigned)(walk.index % channels);
    walk.step = (size_t)at.blocks * THREADS;
    walk.row_step = walk.step / channels;
    walk.channel_step = (unsigned)(walk.step % channels);
    return walk;
}

HD int inside(const struct walk &walk)
{
    return walk.index < walk.count;
}

HD void walk_on(struct walk *walk)
{
    walk->index += walk->step;
    walk->row += walk->row_step;
    walk->channel += walk->channel_step;
    if (walk->channel >= walk->channels) {
        walk->channel -= walk->channels;
        walk->row++;
    }
}

/* For kernels of one phase without shared memory. */
struct plain_kernel {
    enum { threads = THREADS };
    typedef nothing shared;
    typedef nothing registers;
    template <class A> HD int phases(const A &)
    {
        return 1;
    }
};

/* Elements a thread takes, so that a grid is not larger than it need be. */
#define PER_THREAD 4
static inline size_t blocks_of(size_t count)
{
    size_t blocks = (count + THREADS * PER_THREAD - 1) / (THREADS * PER_THREAD);
    return blocks < 1 ? 1 : blocks > 65536 ? 65536 : blocks;
}

/*
 * Starts Of::kernel<N> on `count` values of [rows][channels]: N = Of::wide neighbours at a time where channels come in as many, one where
 * they do not.
 */
template <class Of>
int launch_wide(cudaStream_t stream, size_t count, size_t channels, const typename Of::work &work,
                const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    if (channels % Of::wide == 0)
        return launch<typename Of::template kernel<Of::wide>>(stream, blocks_of(count / Of::wide), work, file, line);
    return launch<typename Of::template kernel<1>>(stream, blocks_of(count), work, file, line);
}

#endif
