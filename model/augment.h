/*
 * What the network sees of a stored image: in training a random view, by a recipe; wherever a galaxy is judged, predicted or
 * embedded, the recipe's plain view, so that both show the same scale. Values are those of the image / 255; no mean or variance
 * is taken out, as in Zoobot. Everything is a function of (seed, galaxy key, view): the same on any thread. One resampling
 * brings rotation, mirroring, crop and scaling together. Not for decoding.
 *
 *   AUGMENT_NONE  the central square of `side` pixels
 *   AUGMENT_W21   Walmsley et al. 2021 (and this project's seed): rotation by U(-pi, pi) about the centre, bilinear,
 *                 reflected at the edges (d c b a | a b c d | d c b a); mirrored up-down and left-right with p = 1/2 each;
 *                 a square of int(0.75 * pixel_side) at a random place, scaled bilinearly to `side`, or where that is
 *                 within 10 pixels of `side`, a square of `side` itself
 *   AUGMENT_W20   Walmsley et al. 2020: mirrored with p = 1/2 each; rotation by 3.14 U(0, 1), bilinear, 0 outside; a square of
 *                 int(pixel_side / z), z ~ U(1.1, 1.3) (drawn per image; the original drew it once per run), at a random
 *                 place; nearest-neighbour to `side`; plus U(-0.05, 0.05) on the scale 0..255; contrast times U(0.98, 1.02)
 *                 about the mean of each channel
 */
#ifndef TRIAGE_MODEL_AUGMENT_H
#define TRIAGE_MODEL_AUGMENT_H

#include <stdint.h>

enum augmentation { AUGMENT_NONE, AUGMENT_W21, AUGMENT_W20 };

struct augment_source {
    const uint8_t *pixels; /* [pixel_side][pixel_side][channels] */
    int pixel_side, channels;
};

/*
 * The plain view of a recipe: the image neither turned nor mirrored, and of its crops the mean one, at the centre, scaled to
 * `side` as in training. The source pixels per pixel of the network are those that training samples on average:
 *
 *   AUGMENT_NONE  1
 *   AUGMENT_W21   int(0.75 * pixel_side) / side; 1 where the two are within 10 pixels of each other
 *   AUGMENT_W20   int(pixel_side / 1.197) / side: ln(1.3 / 1.1) / (1.3 - 1.1) = 1 / 1.197 is the mean of 1 / z
 *
 * input [side][side][channels] OUTPUT, 0..1; side <= pixel_side.
 */
void augment_plain(enum augmentation kind, const struct augment_source *source, int side, float *input);

/* A view as in training: input as above, a little outside of 0..1 for AUGMENT_W20. */
void augment(enum augmentation kind, const struct augment_source *source, int side, uint64_t seed, uint64_t key,
             uint32_t view, float *input);

#endif
