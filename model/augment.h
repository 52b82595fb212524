/*
 * What an image goes through before each look of the network in training, and in prediction when several views are wanted.
 * Everything is a function of (seed, galaxy key, view): the same on any thread. One resampling brings rotation, mirroring,
 * crop and scaling together. Not for decoding or for the plain central view (input.h).
 *
 *   AUGMENT_NONE  the central square
 *   AUGMENT_W21   Walmsley et al. 2021 (and this project's seed): rotation by U(-pi, pi) about the centre, bilinear,
 *                 reflected at the edges (d c b a | a b c d | d c b a); mirrored up-down and left-right with p = 1/2 each;
 *                 a square of int(0.75 * pixel_side) at a random place, scaled bilinearly to `side`, or where that is
 *                 within 10 pixels of `side`, a square of `side` itself
 *   AUGMENT_W20   Walmsley et al. 2020: mirrored with p = 1/2 each; rotation by 3.14 U(0, 1), bilinear, 0 outside; a square of
 *                 int(pixel_side / z), z ~ U(1.1, 1.3) (drawn per image; the original drew it once per run), at a random
 *                 place; nearest-neighbour to `side`; plus U(-0.05, 0.05) on the scale 0..255; contrast times U(0.98, 1.02)
 *                 about the image's mean
 */
#ifndef TRIAGE_MODEL_AUGMENT_H
#define TRIAGE_MODEL_AUGMENT_H

#include <stdint.h>

enum augmentation { AUGMENT_NONE, AUGMENT_W21, AUGMENT_W20 };

struct augment_source {
    const uint8_t *pixels; /* [pixel_side][pixel_side][channels] */
    int pixel_side, channels;
};

/* input [side][side][channels] OUTPUT, 0..1 (a little outside for AUGMENT_W20); side <= pixel_side. */
void augment(enum augmentation kind, const struct augment_source *source, int side, uint64_t seed, uint64_t key,
             uint32_t view, float *input);

#endif
