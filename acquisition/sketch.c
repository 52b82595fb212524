/* Sparse random projections of embeddings; see sketch.h. */
#include "acquisition/sketch.h"
#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS_MAX 16384
#define BLOCK      (SKETCH_LENGTH / SKETCH_PER_INPUT)

struct sketch {
    struct sketch_rows rows;
    float *mean, *weight;               /* [inputs]; weight = 1 / deviation / sqrt(SKETCH_PER_INPUT) */
    uint8_t (*place)[SKETCH_PER_INPUT]; /* [inputs] */
    float (*sign)[SKETCH_PER_INPUT];    /* [inputs] +1 or -1 */
};

void sketch_free(struct sketch *sketch)
{
    if (!sketch)
        return;
    free(sketch->mean);
    free(sketch->weight);
    free(sketch->place);
    free(sketch->sign);
    free(sketch);
}

/* Mean over views. Returns 0 if a value is not finite. */
static int read_row(const struct sketch_rows *rows, uint64_t row, float *values)
{
    const uint16_t *at = (const uint16_t *)((const char *)rows->embedding + row * rows->stride_bytes);
    float sum = 0;
    for (int i = 0; i < rows->inputs; i++)
        values[i] = half_to_float(at[i]);
    for (int view = 1; view < rows->views; view++)
        for (int i = 0; i < rows->inputs; i++)
            values[i] += half_to_float(at[view * rows->inputs + i]);
    for (int i = 0; i < rows->inputs; i++) {
        values[i] /= (float)rows->views;
        sum += values[i] * 0;
    }
    return sum == 0; /* 0 * NaN and 0 * infinity are NaN */
}

static void standardise(struct sketch *sketch, const uint64_t *sample, size_t count, double *sums)
{
    int inputs = sketch->rows.inputs;
    double *squares = sums + inputs, rows = 0;
    float values[INPUTS_MAX];
    for (size_t n = 0; n < count; n++) {
        if (!read_row(&sketch->rows, sample[n], values))
            continue;
        rows++;
        for (int i = 0; i < inputs; i++) {
            sums[i] += (double)values[i];
            squares[i] += (double)values[i] * (double)values[i];
        }
    }
    for (int i = 0; i < inputs; i++) {
        double mean = rows > 0 ? sums[i] / rows : 0, variance = rows > 0 ? squares[i] / rows - mean * mean : 0;
        sketch->mean[i] = (float)mean;
        sketch->weight[i] = variance > 1e-12 ? (float)(1 / sqrt(variance * SKETCH_PER_INPUT)) : 0;
    }
}

static void draw_matrix(struct sketch *sketch, uint64_t seed)
{
    for (int i = 0; i < sketch->rows.inputs; i++) {
        struct philox random = philox(seed, (uint32_t)i, 0, 0, PHILOX_SKETCH);
        for (int k = 0; k < SKETCH_PER_INPUT; k++) {
            sketch->place[i][k] = (uint8_t)(k * BLOCK + random.word[k] % BLOCK);
            sketch->sign[i][k] = random.word[k] >> 31 ? 1 : -1;
        }
    }
}

int sketch_new(const struct sketch_rows *rows, const uint64_t *sample, size_t count, uint64_t seed,
               struct sketch **ret_sketch)
{
    if (rows->inputs < 1 || rows->inputs > INPUTS_MAX || rows->views < 1)
        return error_set(ERROR_INPUT, "embeddings of %d views times %d inputs cannot be compared (at most %d inputs)",
                         rows->views, rows->inputs, INPUTS_MAX);
    size_t inputs = (size_t)rows->inputs;
    struct sketch *sketch = calloc(1, sizeof *sketch);
    double *sums = calloc(2 * inputs, sizeof *sums);
    if (sketch) {
        sketch->rows = *rows;
        sketch->mean = calloc(inputs, sizeof *sketch->mean);
        sketch->weight = calloc(inputs, sizeof *sketch->weight);
        sketch->place = calloc(inputs, sizeof *sketch->place);
        sketch->sign = calloc(inputs, sizeof *sketch->sign);
    }
    if (!sketch || !sums || !sketch->mean || !sketch->weight || !sketch->place || !sketch->sign) {
        sketch_free(sketch);
        free(sums);
        return error_set(ERROR_SYSTEM, "out of memory for comparing galaxies");
    }
    standardise(sketch, sample, count, sums);
    draw_matrix(sketch, seed);
    free(sums);
    *ret_sketch = sketch;
    return 0;
}

int sketch_galaxy(const struct sketch *sketch, uint64_t row, float *out)
{
    float values[INPUTS_MAX];
    memset(out, 0, SKETCH_LENGTH * sizeof *out);
    if (!read_row(&sketch->rows, row, values))
        return 0;
    for (int i = 0; i < sketch->rows.inputs; i++)
        values[i] = (values[i] - sketch->mean[i]) * sketch->weight[i];
    for (int i = 0; i < sketch->rows.inputs; i++)
        for (int k = 0; k < SKETCH_PER_INPUT; k++)
            out[sketch->place[i][k]] += values[i] * sketch->sign[i][k];
    return 1;
}
