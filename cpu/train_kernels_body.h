/*
 * The loops of training once, included by train_kernels.c for each instruction set with KERNEL(name), the name with the
 * set's suffix, and VECTOR_BYTES. No include guard on purpose.
 */
#define RUN_ROWS 64 /* summed in float, then added to a double, so that rounding does not grow with the batch */

/* 1 / (1 + exp(-x)), relative error below 2e-7 where it is a normal number: exp as in Cephes, 2^n times a polynomial. */
static inline float KERNEL(sigmoid)(float x)
{
    float y = -x < -87.0f ? -87.0f : -x > 87.0f ? 87.0f : -x;
    float n = (y * 1.44269504f + 12582912.0f) - 12582912.0f; /* to the nearest integer */
    float r = y - n * 0.693359375f + n * 2.12194440e-4f;
    float p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r +
               1.6666665459e-1f) *
                  r +
              5.0000001201e-1f;
    union {
        int32_t bits;
        float value;
    } power = {((int32_t)n + 127) << 23};
    return 1.0f / (1.0f + (p * r * r + r + 1.0f) * power.value);
}

static void KERNEL(moments)(const float *restrict x, const float *restrict pivot, size_t rows, size_t channels,
                            double *restrict sums)
{
    float sum[TRAIN_CHANNELS_MAX], square[TRAIN_CHANNELS_MAX];
    for (size_t first = 0; first < rows; first += RUN_ROWS) {
        size_t end = first + RUN_ROWS < rows ? first + RUN_ROWS : rows;
        memset(sum, 0, channels * sizeof *sum);
        memset(square, 0, channels * sizeof *square);
        for (size_t r = first; r < end; r++)
            for (size_t c = 0; c < channels; c++) {
                float distance = x[r * channels + c] - pivot[c];
                sum[c] += distance;
                square[c] += distance * distance;
            }
        for (size_t c = 0; c < channels; c++) {
            sums[c] += (double)sum[c];
            sums[channels + c] += (double)square[c];
        }
    }
}

/* NaN stays NaN, so that a run that has diverged is seen. */
static inline float KERNEL(rectified)(float x, float ceiling)
{
    float positive = x < 0.0f ? 0.0f : x;
    return positive > ceiling ? ceiling : positive;
}

static void KERNEL(normalise)(const float *restrict x, const float *restrict scale, const float *restrict shift,
                              size_t rows, size_t channels, struct activation activation, float *restrict out)
{
    for (size_t r = 0; r < rows; r++) {
        const float *from = x + r * channels;
        float *to = out + r * channels;
        if (activation.kind == ACTIVATION_SWISH)
            for (size_t c = 0; c < channels; c++) {
                float y = scale[c] * from[c] + shift[c];
                to[c] = y * KERNEL(sigmoid)(y);
            }
        else if (activation.kind == ACTIVATION_RELU)
            for (size_t c = 0; c < channels; c++)
                to[c] = KERNEL(rectified)(scale[c] * from[c] + shift[c], activation.ceiling);
        else
            for (size_t c = 0; c < channels; c++)
                to[c] = scale[c] * from[c] + shift[c];
    }
}

/* d (y s(y)) / dy */
static inline float KERNEL(swish_slope)(float y)
{
    float s = KERNEL(sigmoid)(y);
    return s + y * s * (1.0f - s);
}

/* 1 between the bends, 0 at and beyond them */
static inline float KERNEL(relu_slope)(float y, float ceiling)
{
    return (float)((y > 0.0f) & (y < ceiling));
}

static void KERNEL(normalise_back)(const struct norm_back *block)
{
    float sum[TRAIN_CHANNELS_MAX], product[TRAIN_CHANNELS_MAX];
    const float *restrict mean = block->mean, *restrict scale = block->scale, *restrict shift = block->shift;
    struct activation activation = block->activation;
    size_t channels = block->channels;
    for (size_t first = 0; first < block->rows; first += RUN_ROWS) {
        size_t end = first + RUN_ROWS < block->rows ? first + RUN_ROWS : block->rows;
        memset(sum, 0, channels * sizeof *sum);
        memset(product, 0, channels * sizeof *product);
        for (size_t r = first; r < end; r++) {
            const float *restrict x = block->x + r * channels;
            float *restrict gradient = block->gradient + r * channels;
            if (activation.kind == ACTIVATION_SWISH)
                for (size_t c = 0; c < channels; c++)
                    gradient[c] *= KERNEL(swish_slope)(scale[c] * x[c] + shift[c]);
            else if (activation.kind == ACTIVATION_RELU)
                for (size_t c = 0; c < channels; c++)
                    gradient[c] *= KERNEL(relu_slope)(scale[c] * x[c] + shift[c], activation.ceiling);
            for (size_t c = 0; c < channels; c++) {
                sum[c] += gradient[c];
                product[c] += gradient[c] * (x[c] - mean[c]);
            }
        }
        for (size_t c = 0; c < channels; c++) {
            block->sums[c] += (double)sum[c];
            block->sums[channels + c] += (double)product[c];
        }
    }
}

static void KERNEL(normalise_back_apply)(const struct norm_back *block, const float *restrict a,
                                         const float *restrict b)
{
    const float *restrict mean = block->mean, *restrict scale = block->scale;
    for (size_t r = 0; r < block->rows; r++) {
        const float *restrict x = block->x + r * block->channels;
        float *restrict gradient = block->gradient + r * block->channels;
        for (size_t c = 0; c < block->channels; c++)
            gradient[c] = scale[c] * (gradient[c] - a[c] - (x[c] - mean[c]) * b[c]);
    }
}

static void KERNEL(swish)(const float *restrict x, size_t count, float *restrict out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = x[i] * KERNEL(sigmoid)(x[i]);
}

static void KERNEL(swish_back)(const float *restrict x, size_t count, float *restrict gradient)
{
    for (size_t i = 0; i < count; i++)
        gradient[i] *= KERNEL(swish_slope)(x[i]);
}

static void KERNEL(relu)(const float *restrict x, size_t count, float ceiling, float *restrict out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = KERNEL(rectified)(x[i], ceiling);
}

static void KERNEL(relu_back)(const float *restrict x, size_t count, float ceiling, float *restrict gradient)
{
    for (size_t i = 0; i < count; i++)
        gradient[i] *= KERNEL(relu_slope)(x[i], ceiling);
}

static void KERNEL(channel_sums)(const float *restrict a, const float *restrict b, size_t rows, size_t channels,
                                 float *restrict sums)
{
    float sum[TRAIN_CHANNELS_MAX];
    for (size_t first = 0; first < rows; first += RUN_ROWS) {
        size_t end = first + RUN_ROWS < rows ? first + RUN_ROWS : rows;
        memset(sum, 0, channels * sizeof *sum);
        for (size_t r = first; r < end; r++)
            if (b)
                for (size_t c = 0; c < channels; c++)
                    sum[c] += a[r * channels + c] * b[r * channels + c];
            else
                for (size_t c = 0; c < channels; c++)
                    sum[c] += a[r * channels + c];
        for (size_t c = 0; c < channels; c++)
            sums[c] += sum[c];
    }
}

static void KERNEL(scale_channels)(const float *x, const float *restrict factor, const float *restrict term,
                                   size_t rows, size_t channels, float *out)
{
    for (size_t r = 0; r < rows; r++) {
        const float *from = x + r * channels;
        float *to = out + r * channels;
        if (term)
            for (size_t c = 0; c < channels; c++)
                to[c] = from[c] * factor[c] + term[c];
        else
            for (size_t c = 0; c < channels; c++)
                to[c] = from[c] * factor[c];
    }
}

/* --- depthwise weights -------------------------------------------------------------------------------------------- */

#define LANES (VECTOR_BYTES / 4)
typedef float KERNEL(vector) __attribute__((vector_size(VECTOR_BYTES)));
typedef float KERNEL(loose) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias)); /* anywhere in memory */

/* Adds one image's share for LANES channels from `channel` on; the sums stay in registers. */
static inline __attribute__((always_inline)) void KERNEL(depthwise_lanes)(const struct depthwise *shape,
                                                                          const float *source, const float *gradient,
                                                                          size_t channel, int kernel, float *weights)
{
    KERNEL(vector) sum[5 * 5] = {0};
    size_t channels = (size_t)shape->channels;
    for (int y = 0; y < shape->out_side; y++)
        for (int x = 0; x < shape->out_side; x++) {
            int top = y * shape->stride - shape->before, left = x * shape->stride - shape->before;
            KERNEL(vector)
            here = *(const KERNEL(loose) *)(gradient + ((size_t)y * (size_t)shape->out_side + (size_t)x) * channels +
                                            channel);
            if (top >= 0 && left >= 0 && top + kernel <= shape->side && left + kernel <= shape->side) {
                const float *corner = source + ((size_t)top * (size_t)shape->side + (size_t)left) * channels + channel;
#pragma GCC unroll 5
                for (int v = 0; v < kernel; v++)
#pragma GCC unroll 5
                    for (int u = 0; u < kernel; u++)
                        sum[v * kernel + u] +=
                            here *
                            *(const KERNEL(loose) *)(corner + ((size_t)v * (size_t)shape->side + (size_t)u) * channels);
                continue;
            }
#pragma GCC unroll 5
            for (int v = 0; v < kernel; v++)
#pragma GCC unroll 5
                for (int u = 0; u < kernel; u++)
                    if (top + v >= 0 && top + v < shape->side && left + u >= 0 && left + u < shape->side)
                        sum[v * kernel + u] +=
                            here *
                            *(const KERNEL(loose) *)(source +
                                                     ((size_t)(top + v) * (size_t)shape->side + (size_t)(left + u)) *
                                                         channels +
                                                     channel);
        }
#pragma GCC unroll 25
    for (int i = 0; i < kernel * kernel; i++)
        *(KERNEL(loose) *)(weights + (size_t)i * channels + channel) += sum[i];
}

/* The same for one channel: the last ones where channels are no multiple of LANES, and kernels of other sizes. */
static void KERNEL(depthwise_channel)(const struct depthwise *shape, const float *source, const float *gradient,
                                      size_t channel, float *weights)
{
    size_t channels = (size_t)shape->channels;
    for (int v = 0; v < shape->kernel; v++)
        for (int u = 0; u < shape->kernel; u++) {
            float sum = 0;
            for (int y = 0; y < shape->out_side; y++)
                for (int x = 0; x < shape->out_side; x++) {
                    int row = y * shape->stride - shape->before + v, column = x * shape->stride - shape->before + u;
                    if (row >= 0 && column >= 0 && row < shape->side && column < shape->side)
                        sum += gradient[((size_t)y * (size_t)shape->out_side + (size_t)x) * channels + channel] *
                               source[((size_t)row * (size_t)shape->side + (size_t)column) * channels + channel];
                }
            weights[((size_t)v * (size_t)shape->kernel + (size_t)u) * channels + channel] += sum;
        }
}

static void KERNEL(depthwise_weights)(const struct depthwise *shape, const float *source, const float *target_gradient,
                                      float *weights)
{
    size_t channels = (size_t)shape->channels, c = 0;
    size_t in = (size_t)shape->side * (size_t)shape->side * channels;
    size_t out = (size_t)shape->out_side * (size_t)shape->out_side * channels;
    memset(weights, 0, (size_t)shape->kernel * (size_t)shape->kernel * channels * sizeof *weights);
    for (size_t n = 0; n < (size_t)shape->images; n++) {
        const float *x = source + n * in, *gradient = target_gradient + n * out;
        for (c = 0; shape->kernel == 3 && c + LANES <= channels; c += LANES)
            KERNEL(depthwise_lanes)(shape, x, gradient, c, 3, weights);
        for (; shape->kernel == 5 && c + LANES <= channels; c += LANES)
            KERNEL(depthwise_lanes)(shape, x, gradient, c, 5, weights);
        for (; c < channels; c++)
            KERNEL(depthwise_channel)(shape, x, gradient, c, weights);
    }
}

static const struct train_kernels KERNEL(train) = {
    .moments = KERNEL(moments),
    .normalise = KERNEL(normalise),
    .normalise_back = KERNEL(normalise_back),
    .normalise_back_apply = KERNEL(normalise_back_apply),
    .swish = KERNEL(swish),
    .swish_back = KERNEL(swish_back),
    .relu = KERNEL(relu),
    .relu_back = KERNEL(relu_back),
    .channel_sums = KERNEL(channel_sums),
    .scale_channels = KERNEL(scale_channels),
    .depthwise_weights = KERNEL(depthwise_weights),
};
#undef LANES
#undef RUN_ROWS
#undef VECTOR_BYTES
#undef KERNEL
