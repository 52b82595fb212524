/*
 * A small net and what it is given, for tests of ranks and of what can go wrong with them.
 */
#ifndef TRIAGE_TESTS_SMALL_JOB_H
#define TRIAGE_TESTS_SMALL_JOB_H

#include "model/backend.h"
#include "model/net.h"

#include <stddef.h>
#include <stdint.h>

#define IMAGES     7
#define SIDE       18
#define PIXEL_SIDE 24 /* of stored images */
#define SEED       77u

struct small_job {
    struct net net;
    size_t count, outputs; /* of parameters; of an image */
    float *parameters;     /* [count] */
    float *images;         /* [IMAGES][SIDE][SIDE] */
    float *slopes;         /* [IMAGES][outputs] gradients of the outputs */
    uint8_t *pixels;       /* [2 * IMAGES][PIXEL_SIDE][PIXEL_SIDE], of which `row` are this job's */
    uint64_t row[IMAGES], key[IMAGES];
};

extern struct small_job job;

/* cmocka's, of a group. */
int set_up_small_job(void **state);
int tear_down_small_job(void **state);

/* Whether there are so many; says "skipped: " where a machine has fewer. */
int has_devices(int devices);

/* The stored images under a view, taken as squares of pixel_side. */
struct stored_views views_of(enum augmentation augmentation, int pixel_side, int view);

/* [IMAGES][outputs] of a plan on so many devices: of job.images, or of views. */
void forward_small_job(int devices, const struct stored_views *views, float *embeddings);

/* Parameters as they are learned, [count] each. The caller frees it. */
struct learned {
    float *value, *moment1, *moment2;
};
struct learned new_learned(void);
void free_learned(struct learned *learned);

#endif
