/* Memory and starting values of heads, and one row's prediction; see head.h. */
#include "model/head.h"
#include "base/error.h"
#include "base/half.h"

#include <math.h>
#include <stdlib.h>

size_t head_set_floats(const struct head_set *heads)
{
    size_t inputs = (size_t)heads->inputs, outputs = (size_t)heads->count * (size_t)heads->answers;
    return 2 * inputs + outputs * inputs + outputs + 2 * outputs * (inputs + 1);
}

int head_set_new(int count, int inputs, int answers, struct head_set *ret_heads)
{
    *ret_heads = (struct head_set){.count = count, .inputs = inputs, .answers = answers};
    if (count < 1 || count > HEAD_COUNT_MAX || inputs < 1 || inputs > HEAD_INPUTS_MAX || answers < 1 ||
        answers > SCHEMA_ANSWERS_MAX)
        return error_set(ERROR_LIMIT, "%d heads of %d inputs and %d answers: at most %d, %d and %d are possible", count,
                         inputs, answers, HEAD_COUNT_MAX, HEAD_INPUTS_MAX, SCHEMA_ANSWERS_MAX);
    size_t outputs = (size_t)count * (size_t)answers;
    float *block = calloc(head_set_floats(ret_heads), sizeof *block);
    if (!block)
        return error_set(ERROR_SYSTEM, "out of memory for %d heads of %d inputs", count, inputs);
    ret_heads->shift = block;
    ret_heads->scale = ret_heads->shift + inputs;
    ret_heads->weight = ret_heads->scale + inputs;
    ret_heads->bias = ret_heads->weight + outputs * (size_t)inputs;
    ret_heads->moment1 = ret_heads->bias + outputs;
    ret_heads->moment2 = ret_heads->moment1 + outputs * ((size_t)inputs + 1);
    for (int i = 0; i < inputs; i++)
        ret_heads->scale[i] = 1;
    for (int q = 0; q < SCHEMA_QUESTIONS_MAX; q++)
        ret_heads->factor[q] = 1;
    return 0;
}

void head_set_assign(struct head_set *to, const struct head_set *from)
{
    memcpy(to->shift, from->shift, head_set_floats(from) * sizeof(float));
    to->model = from->model;
    to->dropout = from->dropout;
    to->unit_length = from->unit_length;
    to->step = from->step;
    memcpy(to->factor, from->factor, sizeof to->factor);
}

int head_set_copy(const struct head_set *from, struct head_set *ret_heads)
{
    int result = head_set_new(from->count, from->inputs, from->answers, ret_heads);
    if (!result)
        head_set_assign(ret_heads, from);
    return result;
}

void head_set_free(struct head_set *heads)
{
    free(heads->shift);
    *heads = (struct head_set){0};
}

#define INPUTS_AT_ONCE 64

static void standardise_some(struct head_set *heads, int from, int inputs, const char *embedding, size_t stride_bytes,
                             const uint64_t *row, size_t count)
{
    double sum[INPUTS_AT_ONCE] = {0}, squares[INPUTS_AT_ONCE] = {0}, first[INPUTS_AT_ONCE];
    size_t used[INPUTS_AT_ONCE] = {0};
    for (size_t r = 0; r < count; r++) {
        const uint16_t *values = (const uint16_t *)(embedding + (row ? row[r] : r) * stride_bytes) + from;
        for (int i = 0; i < inputs; i++) {
            double value = (double)half_to_float(values[i]);
            if (!isfinite(value))
                continue;
            if (used[i]++ == 0)
                first[i] = value; /* sums of differences keep their digits when the mean is large */
            sum[i] += value - first[i];
            squares[i] += (value - first[i]) * (value - first[i]);
        }
    }
    for (int i = 0; i < inputs; i++) {
        double mean = used[i] ? sum[i] / (double)used[i] : 0;
        double variance = used[i] ? squares[i] / (double)used[i] - mean * mean : 0;
        heads->shift[from + i] = (float)(used[i] ? first[i] + mean : 0);
        heads->scale[from + i] = variance > 1e-12 ? (float)(1 / sqrt(variance)) : 1;
    }
}

void head_set_standardise(struct head_set *heads, const uint16_t *embedding, size_t stride_bytes, const uint64_t *row,
                          size_t count)
{
    for (int from = 0; from < heads->inputs; from += INPUTS_AT_ONCE) {
        int left = heads->inputs - from;
        standardise_some(heads, from, left < INPUTS_AT_ONCE ? left : INPUTS_AT_ONCE, (const char *)embedding,
                         stride_bytes, row, count);
    }
}

/* The input of alpha() that gives this concentration. */
static float bias_of(float concentration)
{
    double alpha = (double)concentration;
    alpha = alpha < 1.001 ? 1.001 : alpha > 100.9 ? 100.9 : alpha;
    return (float)log((alpha - 1) / (101 - alpha));
}

void head_set_shrink(struct head_set *heads, const float *constant_alpha, float share)
{
    size_t outputs = (size_t)heads->count * (size_t)heads->answers, inputs = (size_t)heads->inputs;
    if (share >= 1)
        return;
    for (size_t i = 0; i < outputs * inputs; i++)
        heads->weight[i] = share > 0 ? share * heads->weight[i] : 0;
    for (size_t i = 0; i < outputs; i++) {
        float start = bias_of(constant_alpha[i % (size_t)heads->answers]);
        heads->bias[i] = share > 0 ? share * heads->bias[i] + (1 - share) * start : start;
    }
    memset(heads->moment1, 0, 2 * outputs * (inputs + 1) * sizeof(float));
    heads->step = 0;
}

void head_set_reset(struct head_set *heads, const float *constant_alpha)
{
    head_set_shrink(heads, constant_alpha, 0);
}

int head_set_check_rows(const struct head_set *heads, int views, size_t stride_bytes)
{
    size_t values = (size_t)(views > 1 ? views : 1) * (size_t)heads->inputs;
    return values * sizeof(uint16_t) <= stride_bytes
               ? 0
               : error_set(
                     ERROR_STATE,
                     "heads for %d inputs cannot read rows of %zu values (%d embeddings each): they were fitted to "
                     "another network; set trunk.network back, or train a model for this one",
                     heads->inputs, stride_bytes / sizeof(uint16_t), views > 1 ? views : 1);
}

void head_concentrations(const struct head_set *heads, int head, const uint16_t *embedding, float *alpha)
{
    float z[HEAD_INPUTS_MAX];
    for (int i = 0; i < heads->inputs; i++) {
        float value = half_to_float(embedding[i]);
        z[i] = (value - heads->shift[i]) * heads->scale[i] + (value - value);
    }
    if (heads->unit_length)
        head_unit_length(z, heads->inputs);
    for (int a = 0; a < heads->answers; a++) {
        size_t output = (size_t)head * (size_t)heads->answers + (size_t)a;
        const float *weight = heads->weight + output * (size_t)heads->inputs;
        double sum = (double)heads->bias[output];
        for (int i = 0; i < heads->inputs; i++)
            sum += (double)(weight[i] * z[i]);
        alpha[a] = head_alpha((float)sum);
    }
}
