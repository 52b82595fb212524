/*
 * Heads on cached embeddings: dropout -> linear -> alpha = 1 + 100 sigmoid(x), one Dirichlet concentration
 * per answer (Walmsley et al. 2021, arXiv 2102.08414; alpha in (1, 101) keeps every marginal unimodal). A
 * head_set is an ensemble of `count` heads over the same trunk, with everything needed to go on training
 * exactly where it stopped.
 *
 * Embeddings enter as z = (embedding - shift) * scale, one shift and scale per input, fixed when the first
 * head of a trunk is fitted: random-weight features share a large mean, and dropout on that mean would be
 * nothing but noise. Imported heads have shift 0 and scale 1.
 *
 * With unit_length every galaxy's z is then scaled to mean square 1. Dropout punishes a weight in proportion to z^2, so a few
 * galaxies with outlying embeddings otherwise keep all weights small, and they look uncertain for ever however many labels
 * they get. (Measured on a frozen ImageNet trunk and real votes: 1.7 % less NLL; see docs/science/active-learning.md.)
 */
#ifndef TRIAGE_MODEL_HEAD_H
#define TRIAGE_MODEL_HEAD_H

#include "base/host_device.h"
#include "model/schema.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HEAD_COUNT_MAX  16
#define HEAD_INPUTS_MAX 8192
#define HEAD_BATCH_MAX  4096

struct head_set {
    int count, inputs, answers;
    uint32_t model;       /* number of the model these heads belong to: part of the mask counter */
    float dropout;        /* probability that an input is dropped, train and predict */
    int unit_length;      /* 1 = every galaxy's standardised inputs have mean square 1 */
    float *shift, *scale; /* [inputs] */
    float *weight;        /* [count][answers][inputs] */
    float *bias;          /* [count][answers] */
    float *moment1;       /* AdamW moments, [count][answers][inputs + 1], bias last */
    float *moment2;
    uint64_t step; /* AdamW steps taken */
    float factor
        [SCHEMA_QUESTIONS_MAX]; /* concentrations of a question are multiplied with it when predicting (scaling.h) */
};

/*
 * alpha = 1 + 100 sigmoid(x), always within [1, 101], NaN for NaN. Written out (exp as in Cephes: 2^n times a
 * polynomial, error 2e-7) so that compilers can do many at once and every build gives the same bits.
 */
HOST_DEVICE static inline __attribute__((always_inline)) float head_alpha(float x)
{
    float y = -x;
    y = y > 87.0f ? 87.0f : y;
    y = y < -87.0f ? -87.0f : y;             /* comparisons with NaN are false: NaN passes through */
    float n = y * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer in the low bits */
    uint32_t bits;
    memcpy(&bits, &n, 4);
    n -= 12582912.0f;
    float r = y - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    bits = (bits + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return 1.0f + 100.0f / (1.0f + p * power);
}

/* d alpha / d x, from alpha. */
HOST_DEVICE static inline __attribute__((always_inline)) float head_alpha_slope(float alpha)
{
    return (alpha - 1.0f) * (101.0f - alpha) * 0.01f;
}

/* The same bits in every build: sums of 16 lanes, halves upon halves. Zeros stay zeros; NaN makes everything NaN. */
static inline __attribute__((always_inline)) void head_unit_length(float *z, int inputs)
{
    float lane[16] = {0};
    int whole = inputs / 16 * 16;
    for (int i = 0; i < whole; i += 16)
        for (int j = 0; j < 16; j++)
            lane[j] += z[i + j] * z[i + j];
    for (int i = whole; i < inputs; i++)
        lane[i - whole] += z[i] * z[i];
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    float factor = lane[0] == 0 ? 1 : sqrtf((float)inputs / lane[0]);
    for (int i = 0; i < inputs; i++)
        z[i] *= factor;
}

/*
 * One allocation for all arrays, zeroed, scale and factor = 1. Free with head_set_free(). ERROR_LIMIT outside
 * count 1..HEAD_COUNT_MAX, inputs 1..HEAD_INPUTS_MAX, answers 1..SCHEMA_ANSWERS_MAX.
 */
int head_set_new(int count, int inputs, int answers, struct head_set *ret_heads);
int head_set_copy(const struct head_set *from, struct head_set *ret_heads);
void head_set_free(struct head_set *heads); /* zeroed is fine */

/* Copies every value of a head_set of the same shape into memory that is already there. */
void head_set_assign(struct head_set *to, const struct head_set *from);

/* All arrays are one block of this many floats, starting at heads->shift, in the order of the struct. */
size_t head_set_floats(const struct head_set *heads);

/*
 * Sets shift and scale from the mean and standard deviation of these rows (fp16, `stride_bytes` apart; `row`
 * NULL for 0 .. count-1). Values that are not finite are left out; an input that does not vary gets scale 1.
 */
void head_set_standardise(struct head_set *heads, const uint16_t *embedding, size_t stride_bytes, const uint64_t *row,
                          size_t count);

/* Weights 0, bias = inverse of alpha() at the constant concentrations, moments 0. */
void head_set_reset(struct head_set *heads, const float *constant_alpha);

/*
 * Where a fit on more labels starts: weights times `share`, biases the same share of the way from the constant's, moments
 * 0 ("shrink and perturb" of Ash & Adams 2020, arXiv 1910.08475; the masks are the perturbation). Heads that go on from
 * where early stopping left them have already overfitted the older labels and can learn little from new ones. share 1
 * keeps them as they are, moments included; 0 equals head_set_reset().
 */
void head_set_shrink(struct head_set *heads, const float *constant_alpha, float share);

/* That rows this many bytes apart hold `views` embeddings (0 = 1) as long as the heads read; else ERROR_STATE. */
int head_set_check_rows(const struct head_set *heads, int views, size_t stride_bytes);

/* One head's concentrations without dropout and factor: alpha [answers] OUTPUT, NaN where the embedding is not finite.
 * One row at a time; pools go through head_score. */
void head_concentrations(const struct head_set *heads, int head, const uint16_t *embedding, float *alpha);

#endif
