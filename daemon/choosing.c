/* See choosing.h. */
#include "daemon/choosing.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of the sample; fewer that are like nothing else are no kind. In a cold start, with about as many kinds as places, singles are not. */
#define KIND_GALAXIES_MIN      4
#define KIND_GALAXIES_MIN_COLD 2

const char *held_name(enum held held)
{
    static const char *const names[] = {"not", "artifact", "outlier"};
    return names[held];
}

int choosing_is_sampled(uint64_t seed, uint64_t row, uint64_t rows, size_t wanted)
{
    struct philox random = philox(seed, (uint32_t)row, (uint32_t)(row >> 32), 0, PHILOX_SAMPLE);
    return (double)random.word[0] * 0x1p-32 * (double)rows < (double)wanted;
}

static float *sketch_rows(const struct sketch *sketch, const uint64_t *rows, size_t count)
{
    float *sketches = calloc(count * SKETCH_LENGTH + 1, sizeof *sketches);
    for (size_t i = 0; sketches && i < count; i++)
        sketch_galaxy(sketch, rows[i], sketches + i * SKETCH_LENGTH);
    return sketches;
}

int choosing_open(struct choosing *choosing, const uint64_t *sample, size_t count)
{
    int result = sketch_new(&choosing->rows, sample, count, choosing->seed, &choosing->sketch);
    float *sketches = result ? NULL : sketch_rows(choosing->sketch, sample, count);
    if (!result && !sketches)
        result = error_set(ERROR_SYSTEM, "out of memory for a sample of %zu galaxies", count);
    if (!result)
        result = clusters_new(
            sketches, count,
            &(struct clusters_request){choosing->wanted,
                                       choosing->outlier_distance > 0 ? KIND_GALAXIES_MIN : KIND_GALAXIES_MIN_COLD,
                                       choosing->seed},
            &choosing->clusters);
    free(sketches);
    if (result)
        choosing_close(choosing);
    return result;
}

void choosing_close(struct choosing *choosing)
{
    sketch_free(choosing->sketch);
    clusters_free(&choosing->clusters);
    free(choosing->sketches);
    choosing->sketch = NULL;
    choosing->sketches = NULL;
}

int choosing_typical(const struct choosing *choosing, const uint64_t *sample, size_t count, float *score)
{
    float *sketches = sketch_rows(choosing->sketch, sample, count);
    uint32_t *order = calloc(count + 1, sizeof *order);
    int result = sketches && order ? clusters_typical(&choosing->clusters, sketches, count, order)
                                   : error_set(ERROR_SYSTEM, "out of memory for a sample of %zu galaxies", count);
    for (size_t i = 0; i < count && !result; i++) /* steps that rounding to 2^-20 keeps apart */
        score[order[i]] = (float)(count - i) * 0x1p-10f;
    free(sketches);
    free(order);
    return result;
}

struct place_job {
    struct choosing *choosing;
    struct candidate *candidate;
};

static void place_one(void *context, long item, int worker)
{
    const struct place_job *job = context;
    struct choosing *choosing = job->choosing;
    struct candidate *candidate = &job->candidate[item];
    float *sketch = choosing->sketches + (size_t)item * SKETCH_LENGTH;
    (void)worker;
    int finite = sketch_galaxy(choosing->sketch, candidate->key - 1, sketch);
    int cluster = clusters_place(&choosing->clusters, sketch, &candidate->distance);
    candidate->distance = finite ? candidate->distance : INFINITY;
    candidate->place.sketch = finite ? sketch : NULL;
    candidate->cluster = finite && choosing->clusters.count ? 1 + cluster : 0;
    if (candidate->stream == STREAM_ACTIVE && !candidate->kept && !candidate->held && choosing->outlier_distance > 0 &&
        (double)candidate->distance > choosing->outlier_distance)
        candidate->held = HELD_OUTLIER;
}

int choosing_place(struct choosing *choosing, struct candidate *candidates, size_t count)
{
    struct place_job job = {choosing, candidates};
    free(choosing->sketches);
    choosing->sketches = malloc((count * SKETCH_LENGTH + 1) * sizeof *choosing->sketches);
    if (!choosing->sketches)
        return error_set(ERROR_SYSTEM, "out of memory for comparing %zu galaxies", count);
    choosing->backend->for_each(choosing->context, place_one, &job, (long)count);
    return 0;
}
