/* See input.h. */
#include "model/input.h"

void image_to_input(const uint8_t *pixels, int pixel_side, int channels, int side, float *input)
{
    int margin = (pixel_side - side) / 2, width = side * channels;
    for (int y = 0; y < side; y++) {
        const uint8_t *row = pixels + ((long)(y + margin) * pixel_side + margin) * channels;
        for (int x = 0; x < width; x++)
            input[(long)y * width + x] = (float)row[x] / 255.0f;
    }
}
