/* See augment.h. */
#include "model/augment.h"
#include "base/philox.h"
#include "model/augment_look.h"

#include <math.h>
#include <stdlib.h>

#define W21_CROP_SHARE     0.75
#define W21_CLOSE_PX       10
#define W20_ANGLE          3.14
#define W20_ZOOM_LOW       1.1f
#define W20_ZOOM_HIGH      1.3f
#define W20_BRIGHTNESS     0.05f
#define W20_CONTRAST_RANGE 0.02f

/* What a recipe leaves to chance. */
struct choices {
    double angle;
    int mirrored[2];
    int crop, left, top;        /* of the square that is looked at, in pixels of the source */
    float brightness, contrast; /* W+20 only */
};

static void draw(uint64_t seed, uint64_t key, uint32_t view, float uniform[8])
{
    for (uint32_t i = 0; i < 2; i++) {
        struct philox random =
            philox(seed, i << 16 | (uint32_t)(key >> 32 & 0xffff), (uint32_t)key, view, PHILOX_AUGMENT);
        for (int j = 0; j < 4; j++)
            uniform[4 * i + (uint32_t)j] = philox_uniform(random.word[j]);
    }
}

/* floor(u * (places)), u < 1. */
static int place(float uniform, int places)
{
    int at = (int)(uniform * (float)places);
    return at < places ? at : places - 1;
}

/* Side of the square a recipe looks at. */
static int crop_of(enum augmentation kind, int pixel_side, int side, float w20_zoom)
{
    int crop = kind == AUGMENT_W21   ? (int)(W21_CROP_SHARE * pixel_side)
               : kind == AUGMENT_W20 ? (int)((float)pixel_side / w20_zoom)
                                     : side;
    return crop < 1 || (kind == AUGMENT_W21 && abs(crop - side) < W21_CLOSE_PX) ? side : crop;
}

static struct choices draw_choices(enum augmentation kind, int pixel_side, int side, const float uniform[8])
{
    float zoom = W20_ZOOM_LOW + (W20_ZOOM_HIGH - W20_ZOOM_LOW) * uniform[5];
    int crop = crop_of(kind, pixel_side, side, zoom), places = pixel_side - crop + 1;
    return (struct choices){
        .angle = kind == AUGMENT_W21 ? M_PI * (2 * (double)uniform[0] - 1) : W20_ANGLE * (double)uniform[0],
        .mirrored = {uniform[1] < 0.5f, uniform[2] < 0.5f},
        .crop = crop,
        .left = place(uniform[3], places),
        .top = place(uniform[4], places),
        .brightness = W20_BRIGHTNESS * (2 * uniform[6] - 1) / 255.0f,
        .contrast = 1 + W20_CONTRAST_RANGE * (2 * uniform[7] - 1),
    };
}

/* Every choice at its middle; of W+20's crops, the mean of pixel_side / z over z. */
static struct choices plain_choices(enum augmentation kind, int pixel_side, int side)
{
    float zoom = (W20_ZOOM_HIGH - W20_ZOOM_LOW) / logf(W20_ZOOM_HIGH / W20_ZOOM_LOW);
    int crop = crop_of(kind, pixel_side, side, zoom), margin = (pixel_side - crop) / 2;
    return (struct choices){.crop = crop, .left = margin, .top = margin, .contrast = 1};
}

/*
 * The chosen square, scaled to `scaled` pixels (pixel centres on pixel centres), of the mirrored image, of the image turned about
 * its centre.
 */
static void turn(int pixel_side, const struct choices *chosen, int scaled, struct augment_look *look)
{
    double scale = (double)chosen->crop / scaled, centre = (pixel_side - 1) / 2.0;
    double cosine = cos(chosen->angle), sine = sin(chosen->angle);
    double start[2] = {chosen->left + scale / 2 - 0.5 - centre, chosen->top + scale / 2 - 0.5 - centre};
    double sign[2] = {chosen->mirrored[0] ? -1 : 1, chosen->mirrored[1] ? -1 : 1};
    double x = sign[0] * start[0], y = sign[1] * start[1];
    look->origin[0] = centre + cosine * x - sine * y;
    look->origin[1] = centre + sine * x + cosine * y;
    look->across[0] = cosine * sign[0] * scale;
    look->across[1] = sine * sign[0] * scale;
    look->down[0] = -sine * sign[1] * scale;
    look->down[1] = cosine * sign[1] * scale;
}

static void look_of(enum augmentation kind, int pixel_side, int side, const struct choices *drawn,
                    struct augment_look *look)
{
    struct choices chosen = *drawn;
    int nearest = kind == AUGMENT_W20;
    *look = (struct augment_look){.kind = nearest ? LOOK_NEAREST : LOOK_BILINEAR,
                                  .crop = chosen.crop,
                                  .left = chosen.left,
                                  .top = chosen.top,
                                  .brightness = chosen.brightness,
                                  .contrast = chosen.contrast};
    if (nearest && chosen.mirrored[0] != chosen.mirrored[1])
        chosen.angle = -chosen.angle; /* mirrored first, then turned: the same as turned the other way, then mirrored */
    turn(pixel_side, &chosen, nearest ? chosen.crop : side, look);
}

void augment_look_plain(enum augmentation kind, int pixel_side, int side, struct augment_look *ret_look)
{
    struct choices plain = plain_choices(kind, pixel_side, side);
    look_of(kind, pixel_side, side, &plain, ret_look);
    if (plain.crop == side)
        ret_look->kind = LOOK_COPY;
}

void augment_look_random(enum augmentation kind, int pixel_side, int side, uint64_t seed, uint64_t key, uint32_t view,
                         struct augment_look *ret_look)
{
    float uniform[8];
    if (kind == AUGMENT_NONE) {
        augment_look_plain(kind, pixel_side, side, ret_look);
        return;
    }
    draw(seed, key, view, uniform);
    struct choices drawn = draw_choices(kind, pixel_side, side, uniform);
    look_of(kind, pixel_side, side, &drawn, ret_look);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

/* Contrast as TensorFlow has it: about the mean of each channel. */
static void contrast(float *input, long pixels, int channels, float factor)
{
    for (int c = 0; c < channels; c++) {
        double sum = 0;
        for (long i = 0; i < pixels; i++)
            sum += (double)input[i * channels + c];
        float mean = (float)(sum / (double)pixels);
        for (long i = 0; i < pixels; i++)
            input[i * channels + c] = (input[i * channels + c] - mean) * factor + mean;
    }
}

static void look_up(const struct augment_look *look, const struct augment_source *source, int side, float *input)
{
    float *at = input;
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < source->channels; c++)
                *at++ = look_value(look, source, side, x, y, c);
    if (look->kind == LOOK_NEAREST)
        contrast(input, (long)side * side, source->channels, look->contrast);
}

void augment_plain(enum augmentation kind, const struct augment_source *source, int side, float *input)
{
    struct augment_look look;
    augment_look_plain(kind, source->pixel_side, side, &look);
    look_up(&look, source, side, input);
}

void augment(enum augmentation kind, const struct augment_source *source, int side, uint64_t seed, uint64_t key,
             uint32_t view, float *input)
{
    struct augment_look look;
    augment_look_random(kind, source->pixel_side, side, seed, key, view, &look);
    look_up(&look, source, side, input);
}
