/*
 * Kernels of training, all in float: batch statistics, backward passes of affine steps, depthwise convolution, squeeze and excitation,
 * additions and pooling. Gradients of sources are written, or added where a map has several readers (`add`).
 */
#ifndef TRIAGE_GPU_KERNELS_TRAIN_H
#define TRIAGE_GPU_KERNELS_TRAIN_H

#include "gpu/kernels_reduce.h"

HD void give(float *at, int add, float value)
{
    *at = add ? *at + value : value;
}

template <int N> HD void give_many(float *at, int add, float value[N])
{
    float there[N];
    if (add) {
        load_many<N>(at, there);
        UNROLL
        for (int i = 0; i < N; i++)
            value[i] += there[i];
    }
    store_many<N>(at, value);
}

/* --- batch norm and activations ----------------------------------------------------------------------------------- */

/* Sums and sums of squares of a batch; doubles, because the variance is their difference. */
struct moments_term {
    enum { sums = 2, at_once = 8 };
    typedef double number;
    struct arguments {
        const float *source;
        size_t channels;
    };
    HD void value(const arguments &a, size_t row, unsigned channel, double *value)
    {
        value[0] = (double)a.source[row * a.channels + channel];
        value[1] = value[0] * value[0];
    }
};

/* Mean and 1 / deviation of each channel: of this batch, and then the running ones follow; or, without `partial`, the running ones. */
struct norm_statistics : plain_kernel {
    struct arguments {
        const double *partial; /* [segments][2][channels] or NULL */
        float *running;        /* [2][channels] mean and (unbiased) variance */
        float *mean, *inverse; /* [channels] OUTPUT */
        size_t segments, rows;
        int channels;
        float epsilon, momentum;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        int c = (int)(at.block * THREADS + at.thread);
        if (c >= a.channels)
            return;
        double mean = (double)a.running[c], variance = (double)a.running[a.channels + c], rows = (double)a.rows;
        if (a.partial) {
            mean = total_of(a.partial, a.segments, 2, 0, (size_t)a.channels, (size_t)c) / rows;
            variance = total_of(a.partial, a.segments, 2, 1, (size_t)a.channels, (size_t)c) / rows - mean * mean;
            variance = variance < 0 ? 0 : variance;
            double unbiased = a.rows > 1 ? variance * rows / (rows - 1) : variance, share = (double)a.momentum;
            a.running[c] = (float)((1 - share) * (double)a.running[c] + share * mean);
            a.running[a.channels + c] = (float)((1 - share) * (double)a.running[a.channels + c] + share * unbiased);
        }
        a.mean[c] = (float)mean;
        a.inverse[c] = (float)(1 / sqrt(variance + (double)a.epsilon));
    }
};

/* What an affine step with activation did, and the gradient of its target. */
struct affine_flow {
    const float *source, *target_gradient;
    struct affine affine;
    int activation;
    float ceiling;
    size_t channels;
};

/* d loss / d (affine value), before the activation. */
HD float inner_gradient(const struct affine_flow &flow, float source, float target_gradient, unsigned channel)
{
    return target_gradient * activation_slope(flow.activation, flow.ceiling, apply(flow.affine, channel, source));
}

/* Sums over rows of the inner gradient, and of it times the normalised source. */
struct affine_term {
    enum { sums = 2, at_once = 4 };
    typedef float number;
    typedef affine_flow arguments;
    HD void value(const arguments &a, size_t row, unsigned channel, float *value)
    {
        size_t at = row * a.channels + channel;
        float source = a.source[at];
        value[0] = inner_gradient(a, source, a.target_gradient[at], channel);
        value[1] = value[0] * normalised(a.affine, channel, source);
    }
};

/* Gradients of gamma and beta, and their means over rows for affine_back. */
struct affine_gradients : plain_kernel {
    struct arguments {
        const double *partial; /* [segments][2][channels] */
        float *gamma, *beta;   /* OUTPUT; NULL: not wanted */
        float *sum, *product;  /* [channels] OUTPUT, divided by rows */
        size_t segments, rows;
        int channels;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        int c = (int)(at.block * THREADS + at.thread);
        if (c >= a.channels)
            return;
        double sum = total_of(a.partial, a.segments, 2, 0, (size_t)a.channels, (size_t)c);
        double product = total_of(a.partial, a.segments, 2, 1, (size_t)a.channels, (size_t)c);
        if (a.gamma)
            a.gamma[c] = (float)product;
        if (a.beta)
            a.beta[c] = (float)sum;
        a.sum[c] = (float)(sum / (double)a.rows);
        a.product[c] = (float)(product / (double)a.rows);
    }
};

/* Gradient of the source; `live`: of a norm whose statistics depend on the source. */
struct affine_back {
    enum { wide = 4 };
    struct work {
        struct affine_flow flow;
        const float *sum, *product; /* of affine_gradients, if live */
        float *source_gradient;
        size_t count;
        int live, add;
    };
    template <int N> struct kernel : plain_kernel {
        typedef work arguments;
        HD void phase(int, const arguments &a, shared &, registers &, const place &at)
        {
            for (struct walk w = walk_from(at, a.count / N, (unsigned)a.flow.channels / N); inside(w); walk_on(&w)) {
                float source[N], gradient[N];
                load_many<N>(a.flow.source + w.index * N, source);
                load_many<N>(a.flow.target_gradient + w.index * N, gradient);
                UNROLL
                for (int i = 0; i < N; i++)
                    gradient[i] = back(a, source[i], gradient[i], w.channel * N + (unsigned)i);
                give_many<N>(a.source_gradient + w.index * N, a.add, gradient);
            }
        }
        HD float back(const arguments &a, float source, float target_gradient, unsigned c)
        {
            const struct affine &affine = a.flow.affine;
            float gradient = inner_gradient(a.flow, source, target_gradient, c);
            if (a.live)
                gradient -= a.sum[c] + normalised(affine, c, source) * a.product[c];
            return affine.mean ? gradient * (affine.gamma[c] * affine.inverse[c]) : gradient;
        }
    };
};

/* --- depthwise convolution ---------------------------------------------------------------------------------------- */

/* weights [Kernel * Kernel][channels]; a thread per pixel and N neighbouring channels of the source. */
template <int Kernel, int Stride> struct depthwise_back {
    enum { wide = 4 };
    struct work {
        const float *target_gradient, *weights;
        float *source_gradient;
        struct window window;
        int add;
    };
    template <int N> struct kernel : plain_kernel {
        typedef work arguments;
        HD void phase(int, const arguments &a, shared &, registers &, const place &at)
        {
            size_t side = (size_t)a.window.side, channels = (size_t)a.window.channels;
            size_t count = (size_t)a.window.images * side * side * channels / N;
            for (struct walk w = walk_from(at, count, (unsigned)channels / N); inside(w); walk_on(&w)) {
                float sum[N] = {0};
                add_taps(a, w, w.channel * N, sum);
                give_many<N>(a.source_gradient + w.index * N, a.add, sum);
            }
        }
        HD void add_taps(const arguments &a, const struct walk &w, unsigned c, float *sum)
        {
            size_t side = (size_t)a.window.side, output = (size_t)a.window.output_side,
                   channels = (size_t)a.window.channels;
            int x = (int)(w.row % side) + a.window.before, y = (int)(w.row / side % side) + a.window.before;
            const float *image = a.target_gradient + w.row / side / side * output * output * channels + c;
            UNROLL
            for (int tap = 0; tap < Kernel * Kernel; tap++) {
                int from_y = y - tap / Kernel, from_x = x - tap % Kernel;
                if (from_y < 0 || from_x < 0 || from_y % Stride || from_x % Stride)
                    continue;
                size_t row = (size_t)(from_y / Stride), column = (size_t)(from_x / Stride);
                if (row >= output || column >= output)
                    continue;
                float gradient[N], weight[N];
                load_many<N>(image + (row * output + column) * channels, gradient);
                load_many<N>(a.weights + (size_t)tap * channels + c, weight);
                add_products<N>(gradient, weight, sum);
            }
        }
    };
};

/* Gradient of the weights as sums over the pixels of the target, one sum per tap. */
template <int Kernel, int Stride> struct depthwise_term {
    enum { sums = Kernel * Kernel, at_once = 1 };
    typedef float number;
    struct arguments {
        const float *source, *target_gradient;
        struct window window;
    };
    HD void value(const arguments &a, size_t row, unsigned channel, float *value)
    {
        size_t side = (size_t)a.window.side, output = (size_t)a.window.output_side,
               channels = (size_t)a.window.channels;
        int x = (int)(row % output) * Stride - a.window.before,
            y = (int)(row / output % output) * Stride - a.window.before;
        const float *image = a.source + row / output / output * side * side * channels + channel;
        float gradient = a.target_gradient[row * channels + channel];
        UNROLL
        for (int tap = 0; tap < Kernel * Kernel; tap++) {
            int from_y = y + tap / Kernel, from_x = x + tap % Kernel;
            int inside = from_y >= 0 && from_x >= 0 && from_y < a.window.side && from_x < a.window.side;
            value[tap] = inside ? gradient * image[((size_t)from_y * side + (size_t)from_x) * channels] : 0;
        }
    }
};

/* --- squeeze and excitation --------------------------------------------------------------------------------------- */

/* Sums over the pixels of an image of gradient times source: how much the loss wants the gate open. */
struct product_term {
    enum { sums = 1, at_once = 8 };
    typedef float number;
    struct arguments {
        const float *source, *target_gradient;
        size_t channels;
    };
    HD void value(const arguments &a, size_t row, unsigned channel, float *value)
    {
        size_t at = row * a.channels + channel;
        value[0] = a.source[at] * a.target_gradient[at];
    }
};

/* Back through gate and bottleneck of one image per block. */
struct se_back {
    enum { threads = THREADS };
    struct arguments {
        const float *gate, *inner, *reduce, *expand;
        float *opened;         /* [images][channels] in: product_term; OUTPUT d loss / d expand's value */
        float *inner_gradient; /* [images][reduced] OUTPUT */
        float *mean_gradient;  /* [images][channels] OUTPUT */
        int channels, reduced;
    };
    typedef nothing shared;
    typedef nothing registers;
    HD int phases(const arguments &)
    {
        return 3;
    }
    HD void phase(int phase, const arguments &a, shared &, registers &, const place &at)
    {
        size_t channels = (size_t)a.channels, reduced = (size_t)a.reduced;
        float *opened = a.opened + at.block * channels, *inner_gradient = a.inner_gradient + at.block * reduced;
        if (phase == 0)
            for (size_t c = at.thread; c < channels; c += THREADS) {
                float gate = a.gate[at.block * channels + c];
                opened[c] *= gate * (1 - gate);
            }
        else if (phase == 1)
            for (size_t r = at.thread; r < reduced; r += THREADS) {
                float sum = 0;
                for (size_t c = 0; c < channels; c++)
                    sum += opened[c] * a.expand[c * reduced + r];
                inner_gradient[r] = sum * activation_slope(ACTIVATION_SWISH, 0, a.inner[at.block * reduced + r]);
            }
        else
            for (size_t c = at.thread; c < channels; c += THREADS) {
                float sum = 0;
                for (size_t r = 0; r < reduced; r++)
                    sum += inner_gradient[r] * a.reduce[r * channels + c];
                a.mean_gradient[at.block * channels + c] = sum;
            }
    }
};

/* Gradients of the four tensors of a squeeze and excitation: a thread per channel and bottleneck unit, images in order. */
struct se_weights : plain_kernel {
    struct arguments {
        const float *mean, *inner, *opened, *inner_gradient;
        float *reduce, *reduce_bias, *expand, *expand_bias; /* OUTPUT */
        size_t images;
        int channels, reduced;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        size_t channels = (size_t)a.channels, reduced = (size_t)a.reduced;
        for (struct walk w = walk_from(at, channels * reduced, (unsigned)channels); inside(w); walk_on(&w)) {
            size_t c = w.channel, r = w.row;
            float reduce = 0, expand = 0, reduce_bias = 0, expand_bias = 0;
            for (size_t n = 0; n < a.images; n++) {
                float d = a.inner_gradient[n * reduced + r], o = a.opened[n * channels + c];
                reduce += d * a.mean[n * channels + c];
                expand += o * activate(ACTIVATION_SWISH, 0, a.inner[n * reduced + r]);
                reduce_bias += d;
                expand_bias += o;
            }
            a.reduce[r * channels + c] = reduce;
            a.expand[c * reduced + r] = expand;
            if (c == 0)
                a.reduce_bias[r] = reduce_bias;
            if (r == 0)
                a.expand_bias[c] = expand_bias;
        }
    }
};

/* Gradient of a map from one per image and channel times `share`, and, unless they are NULL, target gradient times gate: back through
 * the gate of squeeze and excitation, and through pooling. */
struct spread_back {
    enum { wide = 4 };
    struct work {
        const float *target_gradient, *gate; /* NULL for pooling */
        const float *mean_gradient;          /* [images][channels] */
        float *source_gradient;
        size_t count, pixels;
        int channels, add;
        float share;
    };
    template <int N> struct kernel : plain_kernel {
        typedef work arguments;
        HD void phase(int, const arguments &a, shared &, registers &, const place &at)
        {
            for (struct walk w = walk_from(at, a.count / N, (unsigned)a.channels / N); inside(w); walk_on(&w)) {
                size_t of_image = w.row / a.pixels * (size_t)a.channels + w.channel * N;
                float gradient[N], gate[N], of_target[N];
                load_many<N>(a.mean_gradient + of_image, gradient);
                if (a.gate) {
                    load_many<N>(a.target_gradient + w.index * N, of_target);
                    load_many<N>(a.gate + of_image, gate);
                }
                UNROLL
                for (int i = 0; i < N; i++)
                    gradient[i] = a.gate ? gradient[i] * a.share + of_target[i] * gate[i] : gradient[i] * a.share;
                give_many<N>(a.source_gradient + w.index * N, a.add, gradient);
            }
        }
    };
};

/* --- additions, pooling, padding ---------------------------------------------------------------------------------- */

/* source gradient = target gradient, times scale[image] unless NULL. */
struct scale_back : plain_kernel {
    struct arguments {
        const float *target_gradient, *scale;
        float *source_gradient;
        size_t count, per_image;
        int add;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        for (size_t i = (size_t)at.block * THREADS + at.thread; i < a.count; i += (size_t)at.blocks * THREADS)
            give(a.source_gradient + i, a.add,
                 a.scale ? a.target_gradient[i] * a.scale[i / a.per_image] : a.target_gradient[i]);
    }
};

/* A thread per value of the source: it takes the gradient of every square whose first largest value it is. */
struct max_pool_back : plain_kernel {
    struct arguments {
        const float *source, *target_gradient;
        float *source_gradient;
        struct window window;
        int kernel, stride, add;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        size_t side = (size_t)a.window.side, output = (size_t)a.window.output_side,
               channels = (size_t)a.window.channels;
        size_t count = (size_t)a.window.images * side * side * channels;
        for (struct walk w = walk_from(at, count, (unsigned)channels); inside(w); walk_on(&w)) {
            int x = (int)(w.row % side), y = (int)(w.row / side % side);
            size_t image = w.row / side / side;
            float sum = 0;
            for (int v = 0; v < a.kernel * a.kernel; v++) {
                int from_y = y - v / a.kernel, from_x = x - v % a.kernel;
                if (from_y < 0 || from_x < 0 || from_y % a.stride || from_x % a.stride)
                    continue;
                size_t row = (size_t)(from_y / a.stride), column = (size_t)(from_x / a.stride);
                const float *square =
                    a.source + ((image * side + (size_t)from_y) * side + (size_t)from_x) * channels + w.channel;
                if (row < output && column < output && largest(a, square, side, channels) == v)
                    sum += a.target_gradient[((image * output + row) * output + column) * channels + w.channel];
            }
            give(a.source_gradient + w.index, a.add, sum);
        }
    }
    /* Which value of a square is the largest, the first of equal ones. */
    HD int largest(const arguments &a, const float *square, size_t side, size_t channels)
    {
        int best = 0;
        float value = square[0];
        for (int i = 1; i < a.kernel * a.kernel; i++) {
            float other = square[((size_t)(i / a.kernel) * side + (size_t)(i % a.kernel)) * channels];
            if (other > value) {
                value = other;
                best = i;
            }
        }
        return best;
    }
};

/* Takes the borders of pad_maps off again. */
struct crop_back : plain_kernel {
    struct arguments {
        const float *padded;
        float *source_gradient;
        int side, padded_side, before, channels, add;
        size_t images;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        size_t side = (size_t)a.side, padded = (size_t)a.padded_side, channels = (size_t)a.channels,
               before = (size_t)a.before;
        for (struct walk w = walk_from(at, a.images * side * side * channels, (unsigned)channels); inside(w);
             walk_on(&w)) {
            size_t x = w.row % side + before, y = w.row / side % side + before, image = w.row / side / side;
            int there = x < padded && y < padded;
            give(a.source_gradient + w.index, a.add,
                 there ? a.padded[((image * padded + y) * padded + x) * channels + w.channel] : 0);
        }
    }
};

#endif
