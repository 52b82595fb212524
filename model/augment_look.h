/*
 * A view of augment.h as numbers: where each of its pixels is looked up in the stored image. Chance is in these numbers alone
 * (augment_look_random() of augment.c draws them), so that the host and a device that looks a view up see the same. Not for callers
 * that want an image: augment.h.
 */
#ifndef TRIAGE_MODEL_AUGMENT_LOOK_H
#define TRIAGE_MODEL_AUGMENT_LOOK_H

#include "base/host_device.h"
#include "model/augment.h"

#include <math.h>

enum look_kind {
    LOOK_COPY,     /* the pixels of a square as they lie */
    LOOK_BILINEAR, /* between four pixels, reflected at the edges */
    LOOK_NEAREST,  /* AUGMENT_W20: nearest neighbour of the turned image, 0 outside; then brightness and contrast */
};

struct augment_look {
    enum look_kind kind;
    int crop, left, top;                  /* of the square looked at, in pixels of the source */
    double origin[2], across[2], down[2]; /* (column, row) of (x, y) = origin + x * across + y * down */
    float brightness, contrast;           /* LOOK_NEAREST */
};

/* The plain view, and a random one; side <= pixel_side. */
void augment_look_plain(enum augmentation kind, int pixel_side, int side, struct augment_look *ret_look);
void augment_look_random(enum augmentation kind, int pixel_side, int side, uint64_t seed, uint64_t key, uint32_t view,
                         struct augment_look *ret_look);

/* The pixel inside that a pixel outside mirrors. */
HOST_DEVICE static inline int look_reflect(int at, int side)
{
    int period = 2 * side, inside = ((at % period) + period) % period;
    return inside < side ? inside : period - 1 - inside;
}

HOST_DEVICE static inline float look_pixel(const struct augment_source *source, int column, int row, int channel,
                                           int reflected)
{
    int side = source->pixel_side;
    if (column < 0 || column >= side || row < 0 || row >= side) {
        if (!reflected)
            return 0;
        column = look_reflect(column, side);
        row = look_reflect(row, side);
    }
    return (float)source->pixels[((long)row * side + column) * source->channels + channel];
}

HOST_DEVICE static inline float look_bilinear(const struct augment_source *source, double column, double row,
                                              int channel, int reflected)
{
    double left = floor(column), top = floor(row);
    float x = (float)(column - left), y = (float)(row - top);
    int c = (int)left, r = (int)top;
    float above =
        (1 - x) * look_pixel(source, c, r, channel, reflected) + x * look_pixel(source, c + 1, r, channel, reflected);
    float below = (1 - x) * look_pixel(source, c, r + 1, channel, reflected) +
                  x * look_pixel(source, c + 1, r + 1, channel, reflected);
    return (1 - y) * above + y * below;
}

/* Value (x, y, channel) of the view, 0..1; of LOOK_NEAREST before its contrast, which needs the mean of the channel. */
HOST_DEVICE static inline float look_value(const struct augment_look *look, const struct augment_source *source,
                                           int side, int x, int y, int channel)
{
    if (look->kind == LOOK_COPY)
        return (float)source->pixels[((long)(y + look->top) * source->pixel_side + look->left + x) * source->channels +
                                     channel] /
               255.0f;
    int nearest = look->kind == LOOK_NEAREST;
    if (nearest) { /* floor(x * crop / side) of the turned image, as TensorFlow 1 has it: only the turning interpolates */
        x = x * look->crop / side;
        y = y * look->crop / side;
    }
    double column = look->origin[0] + x * look->across[0] + y * look->down[0];
    double row = look->origin[1] + x * look->across[1] + y * look->down[1];
    float value = look_bilinear(source, column, row, channel, !nearest) / 255.0f;
    return nearest ? value + look->brightness : value;
}

#endif
