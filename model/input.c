/* See input.h. */
#include "model/input.h"

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
