/*
 * The loops of inference once, included by net_kernels.c for each instruction set with KERNEL(name), the name with the set's
 * suffix, and MULTIPLY_ADD(a, b, c) = a b + c. No include guard on purpose.
 */
#define RUN_PIXELS   64  /* summed apart, so that rounding does not grow with the number of pixels */
#define RUN_CHANNELS 256 /* whose sums stay in the nearest cache */

/*
 * x / (1 + exp(-x)): exp is 2^n times a polynomial, n taken from the low bits of a sum with 1.5 * 2^23 and added to the
 * exponent. Below -87 it stays at its value there, -1e-36; NaN stays NaN.
 */
#define EXPONENT(x)                                                                                                    \
    union {                                                                                                            \
        float value;                                                                                                   \
        uint32_t bits;                                                                                                 \
    } n = {MULTIPLY_ADD(x, -1.44269504f, 12582912.0f)}, power;                                                         \
    float whole = n.value - 12582912.0f

/* Relative error below 3e-7: the polynomial of Cephes' expf, ln 2 in two parts. */
static inline float KERNEL(swish_of_fp32)(float x)
{
    float low = x < -87.0f ? -87.0f : x, inside = low > 87.0f ? 87.0f : low;
    EXPONENT(inside);
    float r = MULTIPLY_ADD(whole, 2.12194440e-4f, MULTIPLY_ADD(whole, -0.693359375f, -inside));
    float p = MULTIPLY_ADD(1.9875691500e-4f, r, 1.3981999507e-3f);
    p = MULTIPLY_ADD(p, r, 8.3334519073e-3f);
    p = MULTIPLY_ADD(p, r, 4.1665795894e-2f);
    p = MULTIPLY_ADD(p, r, 1.6666665459e-1f);
    p = MULTIPLY_ADD(p, r, 5.0000001201e-1f);
    power.value = MULTIPLY_ADD(p * r, r, r + 1.0f);
    power.bits += n.bits << 23;
    return low / (1.0f + power.value);
}

/* Relative error below 1.3e-4, a fifteenth of what bfloat16 rounds. */
static inline float KERNEL(swish_of_bf16)(float x)
{
    float low = x < -87.0f ? -87.0f : x, inside = low > 87.0f ? 87.0f : low;
    EXPONENT(inside);
    float r = MULTIPLY_ADD(whole, -0.693147181f, -inside);
    float p = MULTIPLY_ADD(0.1668f, r, 0.504f);
    power.value = MULTIPLY_ADD(p * r, r, r + 1.0f);
    power.bits += n.bits << 23;
    return low / (1.0f + power.value);
}

static inline float KERNEL(load_bf16)(uint16_t value)
{
    union {
        uint32_t bits;
        float value;
    } wide = {(uint32_t)value << 16};
    return wide.value;
}

/* To nearest, halves away from zero. NaN stays NaN: its quiet bit is in the upper half. */
static inline uint16_t KERNEL(store_bf16)(float value)
{
    union {
        float value;
        uint32_t bits;
    } wide = {value};
    return (uint16_t)((wide.bits + 0x8000u) >> 16);
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
                x[i] = KERNEL(store_##precision)(KERNEL(swish_of_##precision)(KERNEL(load_##precision)(x[i])));        \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        float part[RUN_CHANNELS];                                                                                      \
        for (size_t first = 0; first < pixels; first += RUN_PIXELS)                                                    \
            for (size_t low = 0; low < channels; low += RUN_CHANNELS) {                                                \
                size_t end = first + RUN_PIXELS < pixels ? first + RUN_PIXELS : pixels;                                \
                size_t wide = channels - low < RUN_CHANNELS ? channels - low : RUN_CHANNELS;                           \
                memset(part, 0, wide * sizeof *part);                                                                  \
                for (size_t p = first; p < end; p++)                                                                   \
                    for (size_t c = 0; c < wide; c++) {                                                                \
                        float y = KERNEL(swish_of_##precision)(KERNEL(load_##precision)(x[p * channels + low + c]));   \
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
    static void KERNEL(scale_##precision)(void *values, const float *restrict factor, size_t pixels, size_t channels)  \
    {                                                                                                                  \
        type *restrict x = values;                                                                                     \
        for (size_t p = 0; p < pixels; p++)                                                                            \
            for (size_t c = 0; c < channels; c++)                                                                      \
                x[p * channels + c] =                                                                                  \
                    KERNEL(store_##precision)(KERNEL(load_##precision)(x[p * channels + c]) * factor[c]);              \
    }                                                                                                                  \
                                                                                                                       \
    static void KERNEL(add_##precision)(void *values, const void *other, size_t count)                                 \
    {                                                                                                                  \
        type *restrict x = values;                                                                                     \
        const type *restrict y = other;                                                                                \
        for (size_t i = 0; i < count; i++)                                                                             \
            x[i] = KERNEL(store_##precision)(KERNEL(load_##precision)(x[i]) + KERNEL(load_##precision)(y[i]));         \
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
#undef EXPONENT
#undef MULTIPLY_ADD
#undef RUN_PIXELS
#undef RUN_CHANNELS
#undef KERNEL
