/*
 * Kernels on channels-last maps, for inference and for training forward: affine and activation, depthwise convolution, squeeze
 * and excitation, sums of maps, pooling, padding, weights in another order. Sums over many pixels are in kernels_reduce.h.
 */
#ifndef TRIAGE_GPU_KERNELS_MAPS_H
#define TRIAGE_GPU_KERNELS_MAPS_H

#include "gpu/values.h"

/* (x - mean) * inverse * gamma + beta, each per channel; what is NULL is left out. */
struct affine {
    const float *mean, *inverse, *gamma, *beta;
};

HD float normalised(const struct affine &affine, unsigned c, float x)
{
    return affine.mean ? (x - affine.mean[c]) * affine.inverse[c] : x;
}

HD float apply(const struct affine &affine, unsigned c, float x)
{
    x = normalised(affine, c, x);
    x = affine.gamma ? x * affine.gamma[c] : x;
    return affine.beta ? x + affine.beta[c] : x;
}

/* target = activation(affine(source)); source and target may be the same. */
template <class From, class To> struct affine_activate {
    enum { wide = 16 / sizeof(From) };
    struct work {
        const From *source;
        To *target;
        struct affine affine;
        size_t count;
        int channels, activation;
        float ceiling;
    };
    template <int N> struct kernel : plain_kernel {
        typedef work arguments;
        HD void phase(int, const arguments &a, shared &, registers &, const place &at)
        {
            for (struct walk w = walk_from(at, a.count / N, (unsigned)a.channels / N); inside(w); walk_on(&w)) {
                float x[N];
                load_many<N>(a.source + w.index * N, x);
                UNROLL
                for (int i = 0; i < N; i++)
                    x[i] = activate(a.activation, a.ceiling, apply(a.affine, w.channel * N + (unsigned)i, x[i]));
                store_many<N>(a.target + w.index * N, x);
            }
        }
    };
};

/* Geometry of a convolution without its dense sum over channels. */
struct window {
    int images, channels, side, output_side, before;
};

#define STRIP 4 /* neighbouring outputs a thread makes, so that inputs are read once for several of them */

template <int N> HD void add_products(const float *value, const float *weight, float *sum)
{
    UNROLL
    for (int i = 0; i < N; i++)
        sum[i] += value[i] * weight[i];
}

template <class T> struct depthwise_work {
    const T *source;
    T *target;
    const float *weights, *bias; /* bias may be NULL */
    struct window window;
    int activation;
    float ceiling;
};

/*
 * Depthwise convolution, bias and activation. weights [Kernel * Kernel][channels]. A thread takes STRIP outputs of one row in N
 * neighbouring channels: neighbouring threads have neighbouring channels.
 */
template <class T, int Kernel, int Stride> struct depthwise {
    enum { wide = 4 };
    typedef depthwise_work<T> work;
    template <int N> struct kernel : plain_kernel {
        typedef work arguments;
        HD void phase(int, const arguments &a, shared &, registers &, const place &at)
        {
            unsigned channels = (unsigned)a.window.channels / N, output = (unsigned)a.window.output_side,
                     strips = (output + STRIP - 1) / STRIP;
            size_t count = (size_t)a.window.images * output * strips * channels;
            for (struct walk w = walk_from(at, count, channels); inside(w); walk_on(&w))
                strip(a, w.row / strips / output, (int)(w.row / strips % output), (int)(w.row % strips) * STRIP,
                      w.channel * N);
        }
        HD void strip(const arguments &a, size_t image, int y, int x, unsigned c)
        {
            float sum[STRIP][N] = {{0}};
            size_t side = (size_t)a.window.side, channels = (size_t)a.window.channels;
            for (int v = 0; v < Kernel; v++) {
                int row = y * Stride + v - a.window.before;
                if (row < 0 || row >= a.window.side)
                    continue;
                const T *source = a.source + (image * side + (size_t)row) * side * channels + c;
                float weight[Kernel][N];
                UNROLL
                for (int k = 0; k < Kernel; k++)
                    load_many<N>(a.weights + (size_t)(v * Kernel + k) * channels + c, weight[k]);
                UNROLL
                for (int j = 0; j < (STRIP - 1) * Stride + Kernel; j++) {
                    int column = x * Stride + j - a.window.before;
                    float value[N] = {0};
                    if (column >= 0 && column < a.window.side)
                        load_many<N>(source + (size_t)column * channels, value);
                    UNROLL
                    for (int o = 0; o < STRIP; o++)
                        if (j - o * Stride >= 0 && j - o * Stride < Kernel)
                            add_products<N>(value, weight[j - o * Stride], sum[o]);
                }
            }
            put(a, image, y, x, c, sum);
        }
        HD void put(const arguments &a, size_t image, int y, int x, unsigned c, float sum[STRIP][N])
        {
            size_t output = (size_t)a.window.output_side, channels = (size_t)a.window.channels;
            T *target = a.target + ((image * output + (size_t)y) * output + (size_t)x) * channels + c;
            float bias[N] = {0};
            if (a.bias)
                load_many<N>(a.bias + c, bias);
            UNROLL
            for (int o = 0; o < STRIP; o++)
                if (x + o < a.window.output_side) {
                    UNROLL
                    for (int i = 0; i < N; i++)
                        sum[o][i] = activate(a.activation, a.ceiling, a.bias ? sum[o][i] + bias[i] : sum[o][i]);
                    store_many<N>(target + (size_t)o * channels, sum[o]);
                }
        }
    };
};

template <class T>
int launch_depthwise(cudaStream_t stream, const struct layer *layer, size_t values,
                     const struct depthwise_work<T> &work)
{
#define DEPTHWISE(K, S)                                                                                                \
    if (layer->kernel == K && layer->stride == S)                                                                      \
        return launch_wide<depthwise<T, K, S>>(stream, values / STRIP, (size_t)work.window.channels, work);
    DEPTHWISE(3, 1)
    DEPTHWISE(3, 2)
    DEPTHWISE(5, 1)
    DEPTHWISE(5, 2)
#undef DEPTHWISE
    return error_set(ERROR_STATE, "no kernel for layer %s", layer->name); /* net_layer_check() forbids it */
}

/* target = source * gate per image and channel, in place or not. */
template <class T> struct gate_scale {
    enum { wide = 16 / sizeof(T) };
    struct work {
        const T *source;
        T *target;
        const float *gate; /* [images][channels] */
        size_t count, pixels;
        int channels;
    };
    template <int N> struct kernel : plain_kernel {
        typedef work arguments;
        HD void phase(int, const arguments &a, shared &, registers &, const place &at)
        {
            for (struct walk w = walk_from(at, a.count / N, (unsigned)a.channels / N); inside(w); walk_on(&w)) {
                float x[N], gate[N];
                load_many<N>(a.source + w.index * N, x);
                load_many<N>(a.gate + w.row / a.pixels * (unsigned)a.channels + w.channel * N, gate);
                UNROLL
                for (int i = 0; i < N; i++)
                    x[i] *= gate[i];
                store_many<N>(a.target + w.index * N, x);
            }
        }
    };
};

#define SE_PARTS 8 /* threads that share one output of the bottleneck */

/*
 * Squeeze and excitation of one image per block: means -> swish(reduce) -> sigmoid(expand). `inner` (before the swish) is kept for
 * training when asked for.
 */
struct se_gate {
    enum { threads = THREADS };
    struct arguments {
        const float *mean;                                        /* [images][channels] */
        const float *reduce, *reduce_bias, *expand, *expand_bias; /* as in net.h */
        float *inner;                                             /* [images][reduced] */
        float *gate;                                              /* [images][channels] */
        int channels, reduced;
    };
    struct shared {
        float part[THREADS];
    };
    typedef nothing registers;
    enum { at_once = THREADS / SE_PARTS };
    HD int rounds(const arguments &a)
    {
        return (a.reduced + at_once - 1) / at_once;
    }
    HD int phases(const arguments &a)
    {
        return 2 * rounds(a) + 1;
    }
    HD void phase(int phase, const arguments &a, shared &s, registers &, const place &at)
    {
        float *inner = a.inner + (size_t)at.block * (size_t)a.reduced;
        if (phase == 2 * rounds(a)) {
            expand(a, inner, at);
            return;
        }
        int r = phase / 2 * at_once + (int)(at.thread / SE_PARTS), part = (int)(at.thread % SE_PARTS);
        if (r >= a.reduced)
            return;
        if (phase % 2 == 0) {
            const float *mean = a.mean + (size_t)at.block * (size_t)a.channels,
                        *row = a.reduce + (size_t)r * (size_t)a.channels;
            float sum = 0;
            for (int c = part; c < a.channels; c += SE_PARTS)
                sum += row[c] * mean[c];
            s.part[at.thread] = sum;
        } else if (part == 0) {
            float sum = a.reduce_bias[r];
            for (int i = 0; i < SE_PARTS; i++)
                sum += s.part[at.thread + (unsigned)i];
            inner[r] = sum;
        }
    }
    HD void expand(const arguments &a, const float *inner, const place &at)
    {
        for (int c = (int)at.thread; c < a.channels; c += THREADS) {
            float sum = a.expand_bias[c];
            for (int r = 0; r < a.reduced; r++)
                sum += a.expand[(size_t)c * (size_t)a.reduced + (size_t)r] * activate(ACTIVATION_SWISH, 0, inner[r]);
            a.gate[(size_t)at.block * (size_t)a.channels + (size_t)c] = sigmoid(sum);
        }
    }
};

/* target = straight + branch, the branch of each image times scale[image] unless NULL. */
template <class T> struct add_maps {
    enum { wide = 16 / sizeof(T) };
    struct work {
        const T *straight, *branch;
        T *target;
        const float *scale;
        size_t count, per_image;
    };
    template <int N> struct kernel : plain_kernel {
        typedef work arguments;
        HD void phase(int, const arguments &a, shared &, registers &, const place &at)
        {
            for (struct walk w = walk_from(at, a.count / N, (unsigned)(a.per_image / N)); inside(w); walk_on(&w)) {
                float straight[N], branch[N];
                load_many<N>(a.straight + w.index * N, straight);
                load_many<N>(a.branch + w.index * N, branch);
                UNROLL
                for (int i = 0; i < N; i++)
                    straight[i] += a.scale ? a.scale[w.row] * branch[i] : branch[i];
                store_many<N>(a.target + w.index * N, straight);
            }
        }
    };
};

/* The largest of each kernel x kernel square inside the image. */
template <class T> struct max_pool : plain_kernel {
    struct arguments {
        const T *source;
        T *target;
        struct window window;
        int kernel, stride;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        size_t output = (size_t)a.window.output_side, side = (size_t)a.window.side,
               channels = (size_t)a.window.channels;
        size_t count = (size_t)a.window.images * output * output * channels;
        for (struct walk w = walk_from(at, count, (unsigned)channels); inside(w); walk_on(&w)) {
            size_t x = w.row % output * (size_t)a.stride, y = w.row / output % output * (size_t)a.stride;
            const T *source = a.source + ((w.row / output / output * side + y) * side + x) * channels + w.channel;
            float largest = load(source);
            for (int i = 1; i < a.kernel * a.kernel; i++) {
                float other = load(source + ((size_t)(i / a.kernel) * side + (size_t)(i % a.kernel)) * channels);
                largest = other > largest || other != other ? other : largest;
            }
            store(a.target + w.index, largest);
        }
    }
};

/* Into a larger square of zeros, `before` pixels from its top and left: what a convolution needs whose padding is not the same
 * on both sides. */
struct pad_maps : plain_kernel {
    struct arguments {
        const float *source;
        float *target;
        int side, padded_side, before, channels;
        size_t images;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        size_t padded = (size_t)a.padded_side, channels = (size_t)a.channels, side = (size_t)a.side;
        for (struct walk w = walk_from(at, a.images * padded * padded * channels, (unsigned)channels); inside(w);
             walk_on(&w)) {
            int x = (int)(w.row % padded) - a.before, y = (int)(w.row / padded % padded) - a.before;
            size_t image = w.row / padded / padded;
            int inside = x >= 0 && y >= 0 && x < a.side && y < a.side;
            a.target[w.index] =
                inside ? a.source[((image * side + (size_t)y) * side + (size_t)x) * channels + w.channel] : 0;
        }
    }
};

/* [outer][rows][columns] -> [outer][columns][rows]: weights as the libraries and the depthwise kernels want them, and back. */
struct transpose : plain_kernel {
    struct arguments {
        const float *source;
        float *target;
        size_t outer, rows, columns;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        for (struct walk w = walk_from(at, a.outer * a.rows * a.columns, (unsigned)a.rows); inside(w); walk_on(&w)) {
            size_t outer = w.row / a.columns, column = w.row % a.columns;
            a.target[w.index] = a.source[(outer * a.rows + w.channel) * a.columns + column];
        }
    }
};

#endif
