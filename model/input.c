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

void input_view(const float *input, int side, int channels, int view, float *output)
{
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            int row = view & 1 ? side - 1 - y : y, column = view & 2 ? side - 1 - x : x;
            long from = view & 4 ? (long)column * side + row : (long)row * side + column;
            for (int c = 0; c < channels; c++)
                output[((long)y * side + x) * channels + c] = input[from * channels + c];
        }
}
