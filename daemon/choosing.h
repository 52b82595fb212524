/*
 * Where candidates lie among the galaxies of a pool: their sketches, clusters and distances, from embeddings, for the rules of
 * acquisition/select.h. Shared by the worker's ranking and by `triaged replay`. Not for scores (scoring.h), nor for the choice
 * itself.
 */
#ifndef TRIAGE_DAEMON_CHOOSING_H
#define TRIAGE_DAEMON_CHOOSING_H

#include "acquisition/clusters.h"
#include "acquisition/select.h"
#include "model/backend.h"

/* Why the guards hold a galaxy back; its number is candidate.held. */
enum held { HELD_NOT, HELD_ARTIFACT, HELD_OUTLIER };
const char *held_name(enum held held); /* "artifact", "outlier" */

struct choosing {
    const struct backend *backend;
    struct backend_context *context;
    struct sketch_rows rows;
    uint64_t seed;
    int wanted;              /* clusters */
    double outlier_distance; /* in units of clusters.scale; 0 = hold none back */
    struct sketch *sketch;
    struct clusters clusters;
    float *sketches; /* of the candidates last placed */
};

/*
 * Whether a row is one of about `wanted` uniformly drawn ones of `rows`; the same for every ranking with this seed, and
 * independent of the draws of selection.
 */
int choosing_is_sampled(uint64_t seed, uint64_t row, uint64_t rows, size_t wanted);

/* Finds the clusters of a sample; fill the fields above `sketch` first. Free with choosing_close(). ERROR_SYSTEM. */
int choosing_open(struct choosing *choosing, const uint64_t *sample, size_t count);
void choosing_close(struct choosing *choosing); /* zeroed is fine */

/*
 * For a cold start: score [count] OUTPUT, above 0, the most typical of the sample highest (clusters_typical()).
 * ERROR_SYSTEM without memory.
 */
int choosing_typical(const struct choosing *choosing, const uint64_t *sample, size_t count, float *score);

/*
 * Fills in sketch, cluster, distance and, for active ones too far from everything or without a finite embedding, HELD_OUTLIER. Row = key
 * - 1. The sketches are valid until the next call. ERROR_SYSTEM without memory.
 */
int choosing_place(struct choosing *choosing, struct candidate *candidates, size_t count);

#endif
