/* See augment.h. */
#include "model/augment.h"
#include "base/philox.h"
#include "model/input.h"

#include <math.h>
#include <stdlib.h>

#define W21_CROP_SHARE     0.75
#define W21_CLOSE_PX       10
#define W20_ANGLE          3.14
#define W20_ZOOM_LOW       1.1f
#define W20_ZOOM_HIGH      1.3f
#define W20_BRIGHTNESS     0.05f
#define W20_CONTRAST_RANGE 0.02f

/* Where output pixel (x, y) is looked up: (column, row) = origin + x * across + y * down. */
struct view {
    double origin[2], across[2], down[2];
};

struct draws {
    float uniform[8];
};

static struct draws draw(uint64_t seed, uint64_t key, uint32_t view)
{
    struct draws draws;
    for (uint32_t i = 0; i < 2; i++) {
        struct philox random =
            philox(seed, i << 16 | (uint32_t)(key >> 32 & 0xffff), (uint32_t)key, view, PHILOX_AUGMENT);
        for (int j = 0; j < 4; j++)
            draws.uniform[4 * i + (uint32_t)j] = philox_uniform(random.word[j]);
    }
    return draws;
}

/*
 * A crop of `crop` pixels at (left, top), scaled to `side` (pixel centres on pixel centres), of the mirrored image, of the
 * image turned by `angle` about its centre.
 */
static struct view view_of(int pixel_side, double angle, const int mirrored[2], int left, int top, int crop, int side)
{
    double scale = (double)crop / side, centre = (pixel_side - 1) / 2.0, cosine = cos(angle), sine = sin(angle);
    double start[2] = {left + scale / 2 - 0.5 - centre, top + scale / 2 - 0.5 - centre};
    double sign[2] = {mirrored[0] ? -1 : 1, mirrored[1] ? -1 : 1};
    double x = sign[0] * start[0], y = sign[1] * start[1];
    return (struct view){
        .origin = {centre + cosine * x - sine * y, centre + sine * x + cosine * y},
        .across = {cosine * sign[0] * scale,       sine * sign[0] * scale        },
        .down = {-sine * sign[1] * scale,        cosine * sign[1] * scale      }
    };
}

/* The pixel inside that a pixel outside mirrors. */
static int reflect(int at, int side)
{
    int period = 2 * side, inside = ((at % period) + period) % period;
    return inside < side ? inside : period - 1 - inside;
}

static float pixel_at(const struct augment_source *source, int column, int row, int channel, int reflected)
{
    int side = source->pixel_side;
    if (column < 0 || column >= side || row < 0 || row >= side) {
        if (!reflected)
            return 0;
        column = reflect(column, side);
        row = reflect(row, side);
    }
    return (float)source->pixels[((long)row * side + column) * source->channels + channel];
}

static float bilinear(const struct augment_source *source, double column, double row, int channel, int reflected)
{
    double left = floor(column), top = floor(row);
    float x = (float)(column - left), y = (float)(row - top);
    int c = (int)left, r = (int)top;
    float above =
        (1 - x) * pixel_at(source, c, r, channel, reflected) + x * pixel_at(source, c + 1, r, channel, reflected);
    float below = (1 - x) * pixel_at(source, c, r + 1, channel, reflected) +
                  x * pixel_at(source, c + 1, r + 1, channel, reflected);
    return (1 - y) * above + y * below;
}

static void resample(const struct augment_source *source, const struct view *view, int side, int reflected,
                     float *input)
{
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            double column = view->origin[0] + x * view->across[0] + y * view->down[0];
            double row = view->origin[1] + x * view->across[1] + y * view->down[1];
            for (int c = 0; c < source->channels; c++)
                input[((long)y * side + x) * source->channels + c] =
                    bilinear(source, column, row, c, reflected) / 255.0f;
        }
}

/* floor(u * (places)), u < 1. */
static int place(float uniform, int places)
{
    int at = (int)(uniform * (float)places);
    return at < places ? at : places - 1;
}

static void augment_w21(const struct augment_source *source, int side, const struct draws *draws, float *input)
{
    int crop = (int)(W21_CROP_SHARE * source->pixel_side);
    if (abs(crop - side) < W21_CLOSE_PX || crop < 1)
        crop = side;
    int places = source->pixel_side - crop + 1, mirrored[2] = {draws->uniform[1] < 0.5f, draws->uniform[2] < 0.5f};
    double angle = M_PI * (2 * (double)draws->uniform[0] - 1);
    struct view view = view_of(source->pixel_side, angle, mirrored, place(draws->uniform[3], places),
                               place(draws->uniform[4], places), crop, side);
    resample(source, &view, side, 1, input);
}

/* Nearest neighbour as TensorFlow 1 has it: floor(x * crop / side) of the turned image; only the turning interpolates. */
static void augment_w20(const struct augment_source *source, int side, const struct draws *draws, float *input)
{
    float zoom = W20_ZOOM_LOW + (W20_ZOOM_HIGH - W20_ZOOM_LOW) * draws->uniform[5];
    int crop = (int)((float)source->pixel_side / zoom), places = source->pixel_side - crop + 1;
    int left = place(draws->uniform[3], places), top = place(draws->uniform[4], places), channels = source->channels;
    int mirrored[2] = {draws->uniform[1] < 0.5f, draws->uniform[2] < 0.5f};
    double angle = W20_ANGLE * (double)draws->uniform[0], mean = 0;
    if (mirrored[0] != mirrored[1])
        angle = -angle; /* mirrored first, then turned: the same as turned the other way, then mirrored */
    struct view view = view_of(source->pixel_side, angle, mirrored, left, top, crop, crop);
    float brightness = W20_BRIGHTNESS * (2 * draws->uniform[6] - 1) / 255.0f;
    float contrast = 1 + W20_CONTRAST_RANGE * (2 * draws->uniform[7] - 1);
    long values = (long)side * side * channels;
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            int from_x = x * crop / side, from_y = y * crop / side;
            double column = view.origin[0] + from_x * view.across[0] + from_y * view.down[0];
            double row = view.origin[1] + from_x * view.across[1] + from_y * view.down[1];
            for (int c = 0; c < channels; c++)
                input[((long)y * side + x) * channels + c] = bilinear(source, column, row, c, 0) / 255.0f + brightness;
        }
    for (long i = 0; i < values; i++)
        mean += (double)input[i];
    mean /= (double)values;
    for (long i = 0; i < values; i++)
        input[i] = (input[i] - (float)mean) * contrast + (float)mean;
}

void augment(enum augmentation kind, const struct augment_source *source, int side, uint64_t seed, uint64_t key,
             uint32_t view, float *input)
{
    struct draws draws = draw(seed, key, view);
    switch (kind) {
    case AUGMENT_NONE:
        image_to_input(source->pixels, source->pixel_side, source->channels, side, input);
        return;
    case AUGMENT_W21:
        augment_w21(source, side, &draws, input);
        return;
    case AUGMENT_W20:
        augment_w20(source, side, &draws, input);
        return;
    }
}
