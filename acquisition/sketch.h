/*
 * Embeddings made short: SKETCH_LENGTH numbers that keep distances, in which galaxies are compared with each other. Not for
 * predicting: heads read the whole embedding.
 *
 *   z_i = (embedding_i - mean_i) / deviation_i, over a sample of the pool; views of a galaxy are averaged first
 *   s   = A z, A a sparse random matrix: each input goes to SKETCH_PER_INPUT places, one in each quarter of the sketch, with
 *         a random sign and weight 1 / sqrt(SKETCH_PER_INPUT)
 *
 * (Johnson & Lindenstrauss 1984; the sparse form of Kane & Nelson 2014, arXiv 1012.1577.) E|s - s'|^2 = |z - z'|^2, and the
 * ratio of a distance to the true one has a standard deviation of about 1 / sqrt(2 SKETCH_LENGTH) = 9 %
 * (tests/unit/diversity_test.c). Costs 4 additions an input.
 */
#ifndef TRIAGE_ACQUISITION_SKETCH_H
#define TRIAGE_ACQUISITION_SKETCH_H

#include <stddef.h>
#include <stdint.h>

#define SKETCH_LENGTH    64
#define SKETCH_PER_INPUT 4

/* Rows of half-precision embeddings, `views` times `inputs` values each. */
struct sketch_rows {
    const uint16_t *embedding; /* of row 0 */
    size_t stride_bytes;
    int views, inputs;
};

struct sketch;

/*
 * Means and deviations from these rows; those that are not finite are left out, an input that does not vary counts nothing.
 * `rows` are kept, not copied. ERROR_SYSTEM without memory.
 */
int sketch_new(const struct sketch_rows *rows, const uint64_t *sample, size_t count, uint64_t seed,
               struct sketch **ret_sketch);
void sketch_free(struct sketch *sketch); /* NULL is fine */

/* out [SKETCH_LENGTH] OUTPUT. Returns 0 and zeros for an embedding that is not finite, else 1. */
int sketch_galaxy(const struct sketch *sketch, uint64_t row, float *out);

/* Squared distance of two sketches, in a fixed order of additions. */
static inline float sketch_distance2(const float *a, const float *b)
{
    float lane[8] = {0};
    for (int i = 0; i < SKETCH_LENGTH; i += 8)
        for (int k = 0; k < 8; k++)
            lane[k] += (a[i + k] - b[i + k]) * (a[i + k] - b[i + k]);
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

#endif
