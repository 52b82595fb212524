/* Mirrored and turned views of what the network sees. Not for how a stored image becomes that: augment.h. */
#ifndef TRIAGE_MODEL_INPUT_H
#define TRIAGE_MODEL_INPUT_H

/*
 * One of the eight mirrored and turned views of a square image: view 0 is the image itself, bit 0 mirrors up
 * and down, bit 1 left and right, bit 2 across the diagonal.
 *
 *   input, output  [side][side][channels], not the same memory
 */
void input_view(const float *input, int side, int channels, int view, float *output);

#endif
