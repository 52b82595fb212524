/*
 * The loops of inference once, included by net_kernels.c for each instruction set with KERNEL(name), the name with the set's
 * suffix. No include guard on purpose.
 */
#define RUN_PIXELS   64  /* summed apart, so that rounding does not grow with the number of pixels */
#define RUN_CHANNELS 256 /* whose sums stay in the nearest cache */

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
    float result = 1.0f / (1.0f + (p * r * r + r + 1.0f) * power.value);
    return x < -87.0f ? 0.0f : result; /* so that even x = -1e30 gives a swish of 0 */
}

static inline float KERNEL(load_bf16)(uint16_t value)
{
    union {
        uint32_t bits;
        float value;
    } wide = {(uint32_t)value << 16};
    return wide.value;
}

/* NaN stays NaN: its quiet bit is in the upper half. */
static inline uint16_t KERNEL(store_bf16)(float value)
{
    union {
        float value;
        uint32_t bits;
    } wide = {value};
    return (uint16_t)((wide.bits + 0x7fffu + (wide.bits >> 16 & 1)) >> 16);
}

static inline float KERNEL(load_fp32)(float value)
{
    return value;
}

static inline float KERNEL(store_fp32)(float value)
{
    return value;
}

/* A run of pixels: their swish in place, and its sums where they are wanted. */
#define NET_KERNELS(precision, type)                                                                                   \
    static void KERNEL(swish_##precision)(void *values, size_t pixels, size_t channels, float *sums)                   \
    {                                                                                                                  \
        type *restrict x = values;                                                                                     \
        if (!sums) {                                                                                                   \
            for (size_t i = 0; i < pixels * channels; i++) {                                                           \
                float y = KERNEL(load_##precision)(x[i]);                                                              \
                x[i] = KERNEL(store_##precision)(y * KERNEL(sigmoid)(y));                                              \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        float part[RUN_CHANNELS];                                                                                      \
        for (size_t c = 0; c < channels; c++)                                                                          \
            sums[c] = 0;                                                                                               \
        for (size_t first = 0; first < pixels; first += RUN_PIXELS)                                                    \
            for (size_t low = 0; low < channels; low += RUN_CHANNELS) {                                                \
                size_t end = first + RUN_PIXELS < pixels ? first + RUN_PIXELS : pixels;                                \
                size_t wide = channels - low < RUN_CHANNELS ? channels - low : RUN_CHANNELS;                           \
                memset(part, 0, wide * sizeof *part);                                                                  \
                for (size_t p = first; p < end; p++)                                                                   \
                    for (size_t c = 0; c < wide; c++) {                                                                \
                        float y = KERNEL(load_##precision)(x[p * channels + low + c]);                                 \
                        y *= KERNEL(sigmoid)(y);                                                                       \
                        x[p * channels + low + c] = KERNEL(store_##precision)(y);                                      \
                        part[c] += y;                                                                                  \
                    }                                                                                                  \
                for (size_t c = 0; c < wide; c++)                                                                      \
                    sums[low + c] += part[c];                                                                          \
            }                                                                                                          \
    }                                                                                                                  \
                                                                                                                       \
    static void KERNEL(sums_##precision)(const void *values, size_t pixels, size_t channels, float *sums)              \
    {                                                                                                                  \
        const type *restrict x = values;                                                                               \
        float part[RUN_CHANNELS];                                                                                      \
        for (size_t c = 0; c < channels; c++)                                                                          \
            sums[c] = 0;                                                                                               \
        for (size_t first = 0; first < pixels; first += RUN_PIXELS)                                                    \
            for (size_t low = 0; low < channels; low += RUN_CHANNELS) {                                                \
                size_t end = first + RUN_PIXELS < pixels ? first + RUN_PIXELS : pixels;                                \
                size_t wide = channels - low < RUN_CHANNELS ? channels - low : RUN_CHANNELS;                           \
                memset(part, 0, wide * sizeof *part);                                                                  \
                for (size_t p = first; p < end; p++)                                                                   \
                    for (size_t c = 0; c < wide; c++)                                                                  \
                        part[c] += KERNEL(load_##precision)(x[p * channels + low + c]);                                \
                for (size_t c = 0; c < wide; c++)                                                                      \
                    sums[low + c] += part[c];                                                                          \
            }                                                                                                          \
    }                                                                                                                  \
                                                                                                                       \
    static void KERNEL(scale_##precision)(const void *source, const float *restrict factor, size_t pixels,             \
                                          size_t channels, void *target)                                               \
    {                                                                                                                  \
        const type *x = source;                                                                                        \
        type *y = target;                                                                                              \
        for (size_t p = 0; p < pixels; p++)                                                                            \
            for (size_t c = 0; c < channels; c++)                                                                      \
                y[p * channels + c] =                                                                                  \
                    KERNEL(store_##precision)(KERNEL(load_##precision)(x[p * channels + c]) * factor[c]);              \
    }                                                                                                                  \
                                                                                                                       \
    static void KERNEL(add_##precision)(const void *a, const void *b, size_t count, void *target)                      \
    {                                                                                                                  \
        const type *left = a, *right = b;                                                                              \
        type *sum = target;                                                                                            \
        for (size_t i = 0; i < count; i++)                                                                             \
            sum[i] =                                                                                                   \
                KERNEL(store_##precision)(KERNEL(load_##precision)(left[i]) + KERNEL(load_##precision)(right[i]));     \
    }                                                                                                                  \
                                                                                                                       \
    static void KERNEL(narrow_##precision)(const float *restrict values, size_t count, void *target)                   \
    {                                                                                                                  \
        type *restrict to = target;                                                                                    \
        for (size_t i = 0; i < count; i++)                                                                             \
            to[i] = KERNEL(store_##precision)(values[i]);                                                              \
    }                                                                                                                  \
                                                                                                                       \
    static void KERNEL(widen_##precision)(const void *values, size_t count, float *restrict target)                    \
    {                                                                                                                  \
        const type *restrict from = values;                                                                            \
        for (size_t i = 0; i < count; i++)                                                                             \
            target[i] = KERNEL(load_##precision)(from[i]);                                                             \
    }                                                                                                                  \
                                                                                                                       \
    static const struct net_kernels KERNEL(net_##precision) = {sizeof(type),                                           \
                                                               KERNEL(swish_##precision),                              \
                                                               KERNEL(sums_##precision),                               \
                                                               KERNEL(scale_##precision),                              \
                                                               KERNEL(add_##precision),                                \
                                                               KERNEL(narrow_##precision),                             \
                                                               KERNEL(widen_##precision)};

NET_KERNELS(fp32, float)
NET_KERNELS(bf16, uint16_t)

#undef NET_KERNELS
#undef RUN_PIXELS
#undef RUN_CHANNELS
#undef KERNEL
