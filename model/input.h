/* From a stored image to what the network sees. */
#ifndef TRIAGE_MODEL_INPUT_H
#define TRIAGE_MODEL_INPUT_H

#include <stdint.h>

/*
 * The central square of a stored image as floats 0..1 (value / 255; no mean or variance is taken out, as in
 * Zoobot).
 *
 *   pixels  [pixel_side][pixel_side][channels]
 *   input   [side][side][channels] OUTPUT, side <= pixel_side
 */
void image_to_input(const uint8_t *pixels, int pixel_side, int channels, int side, float *input);

/*
 * One of the eight mirrored and turned views of a square image: view 0 is the image itself, bit 0 mirrors up
 * and down, bit 1 left and right, bit 2 across the diagonal.
 *
 *   input, output  [side][side][channels], not the same memory
 */
void input_view(const float *input, int side, int channels, int view, float *output);

#endif
