/* Images and batch norms by the formulas of tests/golden/efficientnet_b0.py, which the other scripts of nets share. */
#ifndef TRIAGE_TESTS_GOLDEN_NETS_H
#define TRIAGE_TESTS_GOLDEN_NETS_H

#include "model/net.h"

#include <stdint.h>

/* image  [side][side][channels] OUTPUT, channels last */
void golden_image(uint64_t seed, int number, int channels, int side, float *image);

/* Sets scale and shift of every batch norm; how many there are. */
int golden_norms(const struct net *net, float *parameters);

#endif
