/*
 * Copies and arithmetic in plain loops, compiled with -O3 and without sanitizers (AddressSanitizer's memcpy would stop at the guard zones
 * between buffers): every range was checked before. Sums are in double precision and in a fixed order.
 */
#include "tests/gpu/standin/engine.h"

#include <stdlib.h>
#include <string.h>

#define WIDE __attribute__((target_clones("avx2", "default")))

size_t value_bytes(enum value_type type)
{
    return type == VALUE_FLOAT ? 4 : 2;
}

void plain_copy(void *to, const void *from, size_t bytes)
{
    char *t = to;
    const char *f = from;
    for (size_t i = 0; i < bytes; i++)
        t[i] = f[i];
}

void plain_fill(void *to, int value, size_t bytes)
{
    char *t = to;
    for (size_t i = 0; i < bytes; i++)
        t[i] = (char)value;
}

static float from_bits(uint32_t bits)
{
    union {
        uint32_t bits;
        float value;
    } both = {bits};
    return both.value;
}

static uint32_t to_bits(float value)
{
    union {
        float value;
        uint32_t bits;
    } both = {value};
    return both.bits;
}

/* To nearest, ties to even; a NaN stays one. */
static uint16_t to_bfloat16(float value)
{
    uint32_t bits = to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* TF32 keeps 10 bits of the fraction (PG 'Alternate Floating Point'); to nearest, ties away from zero, as cvt.rna.tf32 does. */
static float to_tf32(float value)
{
    uint32_t bits = to_bits(value);
    return (bits & 0x7f800000u) == 0x7f800000u ? value : from_bits((bits + 0x1000u) & ~0x1fffu);
}

static float load(const void *values, size_t i, enum value_type type)
{
    return type == VALUE_FLOAT ? ((const float *)values)[i] : from_bits((uint32_t)((const uint16_t *)values)[i] << 16);
}

/* --- matrix product -------------------------------------------------------------------------------------------------- */

static void pack(float *packed, const struct product *p, const void *values, size_t row_step, size_t column_step,
                 size_t rows, size_t columns)
{
    for (size_t c = 0; c < columns; c++)
        for (size_t r = 0; r < rows; r++) {
            float value = load(values, r * row_step + c * column_step, p->input);
            packed[c * rows + r] = p->tf32 ? to_tf32(value) : value;
        }
}

WIDE static void add_scaled(double *sum, const float *values, float factor, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += (double)values[i] * (double)factor;
}

void multiply(const struct product *p)
{
    float *a = malloc((p->m * p->k + 1) * sizeof *a), *b = malloc((p->k + 1) * sizeof *b);
    double *sum = malloc((p->m + 1) * sizeof *sum);
    pack(a, p, p->a, p->transposed_a ? p->lda : 1, p->transposed_a ? 1 : p->lda, p->m, p->k);
    for (size_t n = 0; n < p->n; n++) {
        const char *column = (const char *)p->b + n * (p->transposed_b ? 1 : p->ldb) * value_bytes(p->input);
        pack(b, p, column, p->transposed_b ? p->ldb : 1, 0, p->k, 1);
        memset(sum, 0, p->m * sizeof *sum);
        for (size_t k = 0; k < p->k; k++)
            add_scaled(sum, a + k * p->m, b[k], p->m);
        for (size_t m = 0; m < p->m; m++) {
            double value = (double)p->alpha * sum[m];
            if (p->beta != 0)
                value += (double)p->beta * (double)load(p->c, n * p->ldc + m, p->output);
            if (p->bias)
                value += (double)load(p->bias, m, p->output);
            if (p->relu && value < 0)
                value = 0;
            if (p->output == VALUE_FLOAT)
                ((float *)p->d)[n * p->ldd + m] = (float)value;
            else
                ((uint16_t *)p->d)[n * p->ldd + m] = to_bfloat16((float)value);
        }
    }
    free(sum);
    free(b);
    free(a);
}

/* --- convolutions ------------------------------------------------------------------------------------------------------ */

struct place {
    int n, h, w, group;
};

/* Weights of one group as [row][column][from][to], so that inner loops run over `to`. */
static float *pack_weights(const struct convolution *c, int group, int to_is_output)
{
    int in = c->in / c->groups, out = c->out / c->groups, taps = c->kernel_height * c->kernel_width;
    float *packed = malloc((size_t)(in * out * taps + 1) * sizeof *packed), *next = packed;
    for (int t = 0; t < taps; t++)
        for (int from = 0; from < (to_is_output ? in : out); from++)
            for (int to = 0; to < (to_is_output ? out : in); to++)
                *next++ = c->w[(size_t)(group * out + (to_is_output ? to : from)) * c->w_stride[0] +
                               (size_t)(to_is_output ? from : to) * c->w_stride[1] +
                               (size_t)(t / c->kernel_width) * c->w_stride[2] +
                               (size_t)(t % c->kernel_width) * c->w_stride[3]];
    return packed;
}

static size_t offset(const size_t stride[4], int n, int channel, int h, int w)
{
    return (size_t)n * stride[0] + (size_t)channel * stride[1] + (size_t)h * stride[2] + (size_t)w * stride[3];
}

static void store(float *at, double sum, float alpha, float beta)
{
    *at = (float)((double)alpha * sum + (beta != 0 ? (double)beta * (double)*at : 0));
}

static void convolve_at(const struct convolution *c, const struct place *p, const float *packed, double *sum)
{
    int in = c->in / c->groups, out = c->out / c->groups;
    memset(sum, 0, (size_t)out * sizeof *sum);
    for (int r = 0; r < c->kernel_height; r++)
        for (int s = 0; s < c->kernel_width; s++) {
            int h = p->h * c->stride_height - c->pad_height + r * c->dilation_height;
            int w = p->w * c->stride_width - c->pad_width + s * c->dilation_width;
            if (h < 0 || h >= c->height || w < 0 || w >= c->width)
                continue;
            for (int i = 0; i < in; i++)
                add_scaled(sum, packed + (size_t)(((r * c->kernel_width + s) * in + i) * out),
                           c->x[offset(c->x_stride, p->n, p->group * in + i, h, w)], (size_t)out);
        }
    for (int o = 0; o < out; o++)
        store(&c->y[offset(c->y_stride, p->n, p->group * out + o, p->h, p->w)], sum[o], c->alpha, c->beta);
}

static void back_to_data_at(const struct convolution *c, const struct place *p, const float *packed, double *sum)
{
    int in = c->in / c->groups, out = c->out / c->groups;
    memset(sum, 0, (size_t)in * sizeof *sum);
    for (int r = 0; r < c->kernel_height; r++)
        for (int s = 0; s < c->kernel_width; s++) {
            int h = p->h + c->pad_height - r * c->dilation_height, w = p->w + c->pad_width - s * c->dilation_width;
            if (h < 0 || w < 0 || h % c->stride_height || w % c->stride_width)
                continue;
            h /= c->stride_height;
            w /= c->stride_width;
            if (h >= c->out_height || w >= c->out_width)
                continue;
            for (int o = 0; o < out; o++)
                add_scaled(sum, packed + (size_t)(((r * c->kernel_width + s) * out + o) * in),
                           c->y[offset(c->y_stride, p->n, p->group * out + o, h, w)], (size_t)in);
        }
    for (int i = 0; i < in; i++)
        store(&c->x[offset(c->x_stride, p->n, p->group * in + i, p->h, p->w)], sum[i], c->alpha, c->beta);
}

static void over_pixels(const struct convolution *c, int forward)
{
    double *sum = malloc((size_t)(c->in + c->out) * sizeof *sum);
    struct place p;
    for (p.group = 0; p.group < c->groups; p.group++) {
        float *packed = pack_weights(c, p.group, forward);
        for (p.n = 0; p.n < c->images; p.n++)
            for (p.h = 0; p.h < (forward ? c->out_height : c->height); p.h++)
                for (p.w = 0; p.w < (forward ? c->out_width : c->width); p.w++)
                    (forward ? convolve_at : back_to_data_at)(c, &p, packed, sum);
        free(packed);
    }
    free(sum);
}

void convolve(const struct convolution *convolution)
{
    over_pixels(convolution, 1);
}

void convolve_back_to_data(const struct convolution *convolution)
{
    over_pixels(convolution, 0);
}

static void back_to_filter_at(const struct convolution *c, const struct place *p, float *gradient, double *sum)
{
    int in = c->in / c->groups, out = c->out / c->groups;
    for (int o = 0; o < out; o++)
        gradient[o] = c->y[offset(c->y_stride, p->n, p->group * out + o, p->h, p->w)];
    for (int r = 0; r < c->kernel_height; r++)
        for (int s = 0; s < c->kernel_width; s++) {
            int h = p->h * c->stride_height - c->pad_height + r * c->dilation_height;
            int w = p->w * c->stride_width - c->pad_width + s * c->dilation_width;
            if (h < 0 || h >= c->height || w < 0 || w >= c->width)
                continue;
            for (int i = 0; i < in; i++)
                add_scaled(sum + (size_t)(((r * c->kernel_width + s) * in + i) * out), gradient,
                           c->x[offset(c->x_stride, p->n, p->group * in + i, h, w)], (size_t)out);
        }
}

void convolve_back_to_filter(const struct convolution *c)
{
    int in = c->in / c->groups, out = c->out / c->groups, taps = c->kernel_height * c->kernel_width;
    double *sum = malloc((size_t)(in * out * taps + 1) * sizeof *sum);
    float *gradient = malloc((size_t)(out + 1) * sizeof *gradient);
    struct place p;
    for (p.group = 0; p.group < c->groups; p.group++) {
        memset(sum, 0, (size_t)(in * out * taps) * sizeof *sum);
        for (p.n = 0; p.n < c->images; p.n++)
            for (p.h = 0; p.h < c->out_height; p.h++)
                for (p.w = 0; p.w < c->out_width; p.w++)
                    back_to_filter_at(c, &p, gradient, sum);
        for (int t = 0; t < taps; t++)
            for (int i = 0; i < in; i++)
                for (int o = 0; o < out; o++)
                    store(&c->w[(size_t)(p.group * out + o) * c->w_stride[0] + (size_t)i * c->w_stride[1] +
                                (size_t)(t / c->kernel_width) * c->w_stride[2] +
                                (size_t)(t % c->kernel_width) * c->w_stride[3]],
                          sum[(t * in + i) * out + o], c->alpha, c->beta);
    }
    free(gradient);
    free(sum);
}

/* --- ranks ---------------------------------------------------------------------------------------------------------------- */

#define SUM_RANKS(type)                                                                                                \
    for (size_t i = 0; i < count; i++) {                                                                               \
        type sum = ((const type *)from[0])[i];                                                                         \
        for (int r = 1; r < ranks; r++)                                                                                \
            sum += ((const type *)from[r])[i];                                                                         \
        for (int r = 0; r < ranks; r++)                                                                                \
            ((type *)into[r])[i] = sum;                                                                                \
    }

void sum_ranks(int ranks, int doubles, const void *const *from, void *const *into, size_t count)
{
    if (doubles)
        SUM_RANKS(double)
    else
        SUM_RANKS(float)
}
