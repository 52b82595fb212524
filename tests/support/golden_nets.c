/* See golden_nets.h. */
#include "tests/support/golden_nets.h"
#include "base/philox.h"

#include <math.h>

void golden_image(uint64_t seed, int number, int channels, int side, float *image)
{
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < channels; c++) {
                uint32_t word = philox(seed, (uint32_t)(y * side + x), (uint32_t)number, (uint32_t)c, 0).word[0];
                double waves = sin(0.13 * x + 0.07 * (number + 1) * y + 0.002 * x * y + 0.9 * c + number);
                *image++ = (float)(0.25 + 0.25 * waves + 0.5 * (double)philox_uniform(word));
            }
}

int golden_norms(const struct net *net, float *parameters)
{
    int number = 0;
    for (int i = 0; i < net->layers; i++) {
        const struct layer *layer = &net->layer[i];
        for (int c = 0; c < layer->out && layer->kind == LAYER_BATCH_NORM; c++) {
            parameters[c] = (float)(1 + 0.3 * sin(0.7 * c + number));
            parameters[layer->out + c] = (float)(0.2 * cos(0.3 * c + number));
        }
        number += layer->kind == LAYER_BATCH_NORM;
        parameters += layer_parameter_count(layer);
    }
    return number;
}
