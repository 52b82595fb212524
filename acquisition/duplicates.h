/*
 * Which galaxies of a list are (nearly) the same: close on the sky, or alike in the sketches of their embeddings. Finds every
 * such pair, by sweeping along one direction at a time: exact, about n log n for a list without many. Not for a whole pool.
 */
#ifndef TRIAGE_ACQUISITION_DUPLICATES_H
#define TRIAGE_ACQUISITION_DUPLICATES_H

#include "acquisition/sketch.h"

struct place {
    float position[3];   /* unit vector; zeros = unknown */
    const float *sketch; /* [SKETCH_LENGTH], NULL = unknown */
};

struct duplicate_rule {
    double radius_arcsec; /* closer on the sky than this; 0 = do not look */
    double distance;      /* closer than this in the sketches' own unit; 0 = do not look */
};

/* Degrees, ICRS. NaN gives zeros. In single precision: good to 0.02 arcsec. */
void place_on_sky(double ra_degrees, double dec_degrees, float position[3]);

typedef void duplicates_found(void *context, uint32_t a, uint32_t b);

/*
 * Calls found() for each pair of indices, a < b and a < first; twice for a pair that is near in both ways. ERROR_SYSTEM without
 * memory.
 */
int duplicates_find(const struct place *places, size_t count, size_t first, const struct duplicate_rule *rule,
                    duplicates_found *found, void *context);

#endif
