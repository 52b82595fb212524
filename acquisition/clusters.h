/*
 * Kinds of galaxies: k-means (Lloyd 1982, seeded by k-means++ of Arthur & Vassilvitskii 2007) on sketches of a sample. Used to
 * spread a batch over kinds, to see what is like nothing else, and to begin with the most typical of each kind. Pure and
 * deterministic; memory is bounded by the sample, not by the pool.
 */
#ifndef TRIAGE_ACQUISITION_CLUSTERS_H
#define TRIAGE_ACQUISITION_CLUSTERS_H

#include "acquisition/sketch.h"

#define CLUSTERS_MAX        1024
#define CLUSTERS_ITERATIONS 10
#define CLUSTERS_SAMPLE_MAX 8192 /* galaxies that are enough to find them */

struct clusters_request {
    int wanted; /* 1 .. CLUSTERS_MAX; there are fewer for fewer or identical galaxies */
    /*
     * Clusters of fewer sampled galaxies are given up in the end: an image like no other is a cluster of its own to k-means++,
     * and would then lie at no distance from "its kind". 0 = keep all.
     */
    size_t members_min;
    uint64_t seed;
};

struct clusters {
    int count;
    float *centre; /* [count][SKETCH_LENGTH] */
    float scale;   /* median distance of a sampled galaxy from its centre: the unit of every distance below */
};

/* sketch [count][SKETCH_LENGTH]. ERROR_SYSTEM without memory. */
int clusters_new(const float *sketch, size_t count, const struct clusters_request *request,
                 struct clusters *ret_clusters);
void clusters_free(struct clusters *clusters); /* zeroed is fine */

/* Index of the nearest centre (the first of equals; 0 without any); *ret_distance in units of `scale`. */
int clusters_place(const struct clusters *clusters, const float *sketch, float *ret_distance);

/*
 * The sampled galaxies from the most typical on: of every cluster, largest first, the one nearest to its centre, then of every
 * cluster the second nearest, and so on (after TypiClust, Hacohen et al. 2022, arXiv 2202.02794, with centres for typicality).
 *   order  [count] OUTPUT, indices
 * ERROR_SYSTEM without memory.
 */
int clusters_typical(const struct clusters *clusters, const float *sketch, size_t count, uint32_t *order);

#endif
