/*
 * Augmentations by what they do to images with a known answer: two ramps give the whole linear map (scale, turn, mirror), a
 * constant and stripes give brightness and contrast, and many draws show how the choices are spread. The plain view must show the scale that
 * many draws show on average.
 */
#include "model/augment.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STORED 120
#define DRAWS  400

/* Channel 0 rises to the right, channel 1 downwards, channel 2 is flat. */
static uint8_t *ramps(int side)
{
    uint8_t *pixels = malloc((size_t)(side * side * 3));
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            uint8_t *pixel = pixels + (y * side + x) * 3;
            pixel[0] = (uint8_t)(2 * x);
            pixel[1] = (uint8_t)(2 * y);
            pixel[2] = 200;
        }
    return pixels;
}

/* How far the source moves, in pixels, for one step across and down, measured about the middle of the output. */
struct map {
    double across[2], down[2], middle[2];
};

/* Differences over `reach` pixels each way. */
static struct map measure(const float *input, int side, int reach)
{
    struct map map;
    const float *middle = input + (side / 2 * side + side / 2) * 3;
    for (int c = 0; c < 2; c++) {
        double unit = 2.0 / 255;
        map.across[c] = (double)(middle[3 * reach + c] - middle[-3 * reach + c]) / (2 * reach * unit);
        map.down[c] = (double)(middle[3 * reach * side + c] - middle[-3 * reach * side + c]) / (2 * reach * unit);
        map.middle[c] = (double)middle[c] / unit;
    }
    return map;
}

/* Draws many views and checks that each is a turn, perhaps mirrored, of the right scale; returns how many are mirrored. */
static int check_maps(enum augmentation kind, int side, double scale_low, double scale_high, double allowed,
                      int quadrants[4])
{
    uint8_t *pixels = ramps(STORED);
    float *input = malloc((size_t)(side * side * 3) * sizeof *input);
    struct augment_source source = {pixels, STORED, 3};
    int mirrored = 0;
    for (uint64_t key = 1; key <= DRAWS; key++) {
        augment(kind, &source, side, 5, key, 0, input);
        struct map map = measure(input, side, 4);
        double determinant = map.across[0] * map.down[1] - map.across[1] * map.down[0];
        double scale = sqrt(fabs(determinant)), angle = atan2(map.across[1], map.across[0]);
        if (!(scale >= scale_low - allowed && scale <= scale_high + allowed))
            fail_msg("scale %g of view %d", scale, (int)key);
        assert_true(fabs(hypot(map.across[0], map.across[1]) - scale) <= allowed);
        assert_true(fabs(map.across[0] * map.down[0] + map.across[1] * map.down[1]) <= allowed);
        mirrored += determinant < 0;
        quadrants[(int)floor((angle + M_PI) / (M_PI / 2) * 0.999999)]++;
        /* the middle of a crop is at most as far from the centre as the crop leaves room */
        double room = (STORED - (scale - allowed) * side) / 2 * sqrt(2) + 1.5, off = (STORED - 1) / 2.0;
        assert_true(hypot(map.middle[0] - off, map.middle[1] - off) <= room);
    }
    free(input);
    free(pixels);
    return mirrored;
}

static void w21_turns_mirrors_and_crops(void **state)
{
    (void)state;
    const struct {
        int side;
        double scale;
    } cases[] = {
        {88, 1        }, /* int(0.75 * 120) = 90 is within 10: cropped straight to 88 */
        {45, 90 / 45.0}, /* cropped to 90, then halved */
    };
    for (int i = 0; i < 2; i++) {
        int quadrants[4] = {0};
        int mirrored = check_maps(AUGMENT_W21, cases[i].side, cases[i].scale, cases[i].scale, 0.02, quadrants);
        assert_in_range(mirrored, DRAWS / 2 - 60, DRAWS / 2 + 60); /* six standard deviations */
        for (int q = 0; q < 4; q++)
            assert_in_range(quadrants[q], DRAWS / 4 - 52, DRAWS / 4 + 52);
    }
}

static void w20_turns_mirrors_and_zooms(void **state)
{
    int quadrants[4] = {0};
    (void)state;
    /* nearest neighbour: a step of the source is exact to a pixel over eight */
    int mirrored = check_maps(AUGMENT_W20, 64, STORED / 1.3 / 64 - 0.02, STORED / 1.1 / 64 + 0.02, 0.25, quadrants);
    assert_in_range(mirrored, DRAWS / 2 - 60, DRAWS / 2 + 60);
    for (int q = 0; q < 4; q++)
        assert_true(quadrants[q] > DRAWS / 8);
}

/* --- every choice, recovered from what it did ----------------------------------------------------------------------- */

/* Values that should be uniform between two bounds: none beyond, some near each, mean and variance within six and four deviations. */
static void check_uniform(const char *what, const double *value, double low, double high, double rounding)
{
    double least = INFINITY, most = -INFINITY, sum = 0, squares = 0, range = high - low;
    for (int i = 0; i < DRAWS; i++) {
        least = fmin(least, value[i]);
        most = fmax(most, value[i]);
        sum += value[i] - (low + high) / 2;
        squares += pow(value[i] - (low + high) / 2, 2);
    }
    double mean = sum / DRAWS / range, variance = squares / DRAWS / (range * range / 12),
           near = 0.03 * range + rounding;
    if (!(least >= low - rounding && least <= low + near && most <= high + rounding && most >= high - near) ||
        !(fabs(mean) < 6 * sqrt(1.0 / 12 / DRAWS)) || !(fabs(variance - 1) < 0.2))
        fail_msg("%s: %g to %g, mean off by %g, variance %g of a uniform one", what, least, most, mean, variance);
}

/* What a view did to brightness and contrast: the same for any image under the same key. */
struct look {
    double contrast, brightness;
};

static double mean_of(const float *input, int side, int channel)
{
    double sum = 0;
    for (int i = 0; i < side * side; i++)
        sum += (double)input[3 * i + channel];
    return sum / (side * side);
}

/* Contrast from stripes wide enough to have middles, of 50 and 200; brightness from constants, in each channel. */
static struct look look_of(enum augmentation kind, int side, uint64_t key)
{
    static const uint8_t flat[3] = {40, 128, 220};
    uint8_t *stripes = malloc((size_t)(STORED * STORED * 3)), *flats = malloc((size_t)(STORED * STORED * 3));
    float *input = malloc((size_t)(side * side * 3) * sizeof *input);
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < STORED * STORED * 3; i++) {
        stripes[i] = i / 3 % STORED / 8 % 2 ? 200 : 50;
        flats[i] = flat[i % 3];
    }
    augment(kind, &(struct augment_source){stripes, STORED, 3}, side, 5, key, 0, input);
    for (int y = side / 2 - 16; y <= side / 2 + 16; y++)
        for (int x = side / 2 - 16; x <= side / 2 + 16; x++) {
            low = fmin(low, (double)input[(y * side + x) * 3]);
            high = fmax(high, (double)input[(y * side + x) * 3]);
        }
    struct look look = {.contrast = (high - low) * 255 / 150};
    augment(kind, &(struct augment_source){flats, STORED, 3}, side, 5, key, 0, input);
    for (int c = 0; c < 3; c++) {
        double mean = mean_of(input, side, c), at = (double)input[(side / 2 * side + side / 2) * 3 + c];
        double brightness = 255 * ((at - mean) / look.contrast + mean) - flat[c];
        if (c && !(fabs(brightness - look.brightness) < 1e-4))
            fail_msg("channel %d brighter by %g, channel 0 by %g", c, brightness, look.brightness);
        look.brightness = c ? look.brightness : brightness;
    }
    free(stripes);
    free(flats);
    free(input);
    return look;
}

/* The square a view looked at, in the frame of the image once it is turned. */
struct square {
    int crop;
    double corner[2], angle; /* left and top */
};

/* Where a pixel of the output lies in a square of `crop` pixels. */
static double within(enum augmentation kind, int pixel, int crop, int side)
{
    return kind == AUGMENT_W20 ? floor((double)pixel * crop / side) : (pixel + 0.5) * crop / side - 0.5;
}

/* How far the source moves along `axis` (unit length) from the middle, by the ramps with their brightness and contrast undone. */
static double moved(const float *middle, long step, const double axis[2], double contrast)
{
    double by[2];
    for (int c = 0; c < 2; c++)
        by[c] = (double)(middle[3 * step + c] - middle[c]) * 255 / 2 / contrast;
    return axis[0] * by[0] + axis[1] * by[1];
}

/* The direction in which the source moves along a row (step 1) or column (step = side). */
static void axis_of(const float *middle, long step, int reach, double axis[2])
{
    for (int c = 0; c < 2; c++)
        axis[c] = (double)(middle[3 * reach * step + c] - middle[-3 * reach * step + c]);
    double length = hypot(axis[0], axis[1]);
    axis[0] /= length;
    axis[1] /= length;
}

/* The one size of crop that explains every pixel of the middle row to a tenth of a pixel. */
static int crop_of(enum augmentation kind, const float *middle, int side, int reach, const double axis[2],
                   double contrast)
{
    int found = 0;
    for (int crop = STORED / 2; crop <= STORED; crop++) {
        double worst = 0;
        for (int x = -reach; x <= reach; x++)
            worst = fmax(worst, fabs(moved(middle, x, axis, contrast) - within(kind, side / 2 + x, crop, side) +
                                     within(kind, side / 2, crop, side)));
        if (worst < 0.1 && found)
            fail_msg("squares of %d and of %d look the same", found, crop);
        found = worst < 0.1 ? crop : found;
    }
    if (!found)
        fail_msg("no size of square explains what is seen");
    return found;
}

static struct square square_of(enum augmentation kind, int side, int reach, uint64_t key, struct look look)
{
    uint8_t *pixels = ramps(STORED);
    float *input = malloc((size_t)(side * side * 3) * sizeof *input);
    const float *middle = input + (side / 2 * side + side / 2) * 3;
    double axis[2][2], offset[2], centre = (STORED - 1) / 2.0;
    augment(kind, &(struct augment_source){pixels, STORED, 3}, side, 5, key, 0, input);
    for (int c = 0; c < 2; c++) {
        double mean = mean_of(input, side, c);
        offset[c] = (255 * (((double)middle[c] - mean) / look.contrast + mean) - look.brightness) / 2 - centre;
    }
    axis_of(middle, 1, reach, axis[0]);
    axis_of(middle, side, reach, axis[1]);
    struct square square = {.crop = crop_of(kind, middle, side, reach, axis[0], look.contrast),
                            .angle = atan2(axis[0][1], axis[0][0])};
    for (int a = 0; a < 2; a++)
        square.corner[a] =
            centre + axis[a][0] * offset[0] + axis[a][1] * offset[1] - within(kind, side / 2, square.crop, side);
    free(input);
    free(pixels);
    return square;
}

/* Whole pixels of the turned image: a square cut out before turning would start between them, and outside of the room. */
static void check_choices(enum augmentation kind, int side, int reach, int *crop)
{
    static double corner[2][DRAWS], angle[DRAWS], contrast[DRAWS], brightness[DRAWS];
    for (int i = 0; i < DRAWS; i++) {
        struct look look = kind == AUGMENT_W20 ? look_of(kind, side, (uint64_t)i + 1) : (struct look){.contrast = 1};
        struct square square = square_of(kind, side, reach, (uint64_t)i + 1, look);
        for (int a = 0; a < 2; a++) {
            double whole = round(square.corner[a]);
            if (!(fabs(square.corner[a] - whole) < 0.1 && whole >= 0 && whole <= STORED - square.crop))
                fail_msg("view %d: a square of %d at %g", i, square.crop, square.corner[a]);
            corner[a][i] = (whole + 0.5) / (STORED - square.crop + 1);
        }
        crop[i] = square.crop;
        angle[i] = square.angle;
        contrast[i] = look.contrast;
        brightness[i] = look.brightness;
    }
    check_uniform("left", corner[0], 0, 1, 0.03);
    check_uniform("top", corner[1], 0, 1, 0.03);
    check_uniform("angle", angle, -M_PI, M_PI, 0.01);
    if (kind != AUGMENT_W20)
        return;
    check_uniform("contrast", contrast, 0.98, 1.02, 1e-5);
    check_uniform("brightness", brightness, -0.05, 0.05, 1e-4);
}

static void w20_draws_every_choice_evenly(void **state)
{
    static int crop[DRAWS];
    static double zoom[DRAWS];
    (void)state;
    check_choices(AUGMENT_W20, 64, 20, crop);
    for (int i = 0; i < DRAWS; i++)
        zoom[i] = STORED / (crop[i] + 0.5);
    check_uniform("zoom", zoom, 1.1, 1.3, 0.007); /* half a pixel of the crop */
}

static void w21_draws_every_choice_evenly(void **state)
{
    static int crop[DRAWS];
    static const int wanted[][2] = {
        {88, 88},
        {45, 90},
    };
    (void)state;
    for (int k = 0; k < 2; k++) {
        check_choices(AUGMENT_W21, wanted[k][0], 12, crop);
        for (int i = 0; i < DRAWS; i++)
            assert_int_equal(crop[i], wanted[k][1]);
    }
}

/* Outside the image W+21 sees its reflection, W+20 nothing. */
static void what_lies_outside(void **state)
{
    uint8_t *pixels = ramps(STORED);
    struct augment_source source = {pixels, STORED, 3};
    float *input = malloc((size_t)(88 * 88 * 3) * sizeof *input);
    int empty = 0;
    (void)state;
    for (uint64_t key = 1; key <= 50; key++) {
        augment(AUGMENT_W21, &source, 88, 9, key, 0, input);
        for (int i = 2; i < 88 * 88 * 3; i += 3)
            assert_true(fabsf(input[i] - 200 / 255.0f) < 1e-6f);
        augment(AUGMENT_W20, &source, 88, 9, key, 0, input);
        for (int i = 2; i < 88 * 88 * 3; i += 3)
            empty += input[i] < 0.1f;
    }
    assert_true(empty > 1000);
    free(input);
    free(pixels);
}

static void same_draws_again_others_elsewhere(void **state)
{
    enum { FLOATS = 64 * 64 * 3 };
    uint8_t *pixels = ramps(STORED);
    struct augment_source source = {pixels, STORED, 3};
    static float a[FLOATS], b[FLOATS];
    (void)state;
    for (int kind = AUGMENT_W21; kind <= AUGMENT_W20; kind++) {
        const uint64_t other[4][2] = {
            {3, 7                    },
            {4, 7                    },
            {3, 8                    },
            {3, UINT64_C(1) << 32 | 7}
        };
        augment((enum augmentation)kind, &source, 64, 3, 7, 11, a);
        for (int i = 0; i < 4; i++) {
            augment((enum augmentation)kind, &source, 64, other[i][0], other[i][1], 11, b);
            assert_int_equal(memcmp(a, b, sizeof a) == 0, i == 0);
        }
        augment((enum augmentation)kind, &source, 64, 3, 7, 12, b);
        assert_memory_not_equal(a, b, sizeof a);
    }
    augment(AUGMENT_NONE, &source, 64, 3, 7, 11, a);
    augment_plain(AUGMENT_NONE, &source, 64, b);
    assert_memory_equal(a, b, sizeof a);
    free(pixels);
}

/* --- the plain view ----------------------------------------------------------------------------------------------- */

static double plain_scale(enum augmentation kind, int stored, int side)
{
    uint8_t *pixels = ramps(stored);
    struct augment_source source = {pixels, stored, 3};
    float *input = malloc((size_t)(side * side * 3) * sizeof *input);
    augment_plain(kind, &source, side, input);
    struct map map = measure(input, side, side / 2 - 1);
    assert_true(map.across[0] > 0 && fabs(map.across[1]) < 1e-6 && fabs(map.down[0]) < 1e-6); /* as it lies */
    assert_true(fabs(map.across[0] - map.down[1]) < 0.05);
    assert_true(hypot(map.middle[0] - (stored - 1) / 2.0, map.middle[1] - (stored - 1) / 2.0) < 1.5 * map.across[0]);
    free(input);
    free(pixels);
    return map.across[0];
}

static double drawn_scale(enum augmentation kind, int stored, int side)
{
    uint8_t *pixels = ramps(stored);
    struct augment_source source = {pixels, stored, 3};
    float *input = malloc((size_t)(side * side * 3) * sizeof *input);
    double sum = 0;
    for (uint64_t key = 1; key <= DRAWS; key++) {
        augment(kind, &source, side, 5, key, 0, input);
        struct map map = measure(input, side, side / 8);
        sum += sqrt(fabs(map.across[0] * map.down[1] - map.across[1] * map.down[0]));
    }
    free(input);
    free(pixels);
    return sum / DRAWS;
}

/* Source pixels per pixel of the network: as the recipes state them, and as training draws them. */
static void plain_and_drawn_views_have_one_scale(void **state)
{
    static const struct {
        enum augmentation kind;
        int stored, side;
        double scale;
    } cases[] = {
        {AUGMENT_W21,  120, 45, 90 / 45.0 },
        {AUGMENT_W21,  120, 51, 90 / 51.0 }, /* 300 stored, 128 seen: 225 / 128 */
        {AUGMENT_W21,  120, 88, 1         },
        {AUGMENT_W21,  64,  64, 48 / 64.0 },
        {AUGMENT_W21,  32,  32, 1         },
        {AUGMENT_W20,  120, 60, 100 / 60.0}, /* 256 stored, 128 seen: 213 / 128 */
        {AUGMENT_W20,  120, 40, 100 / 40.0},
        {AUGMENT_W20,  64,  64, 53 / 64.0 },
        {AUGMENT_NONE, 120, 60, 1         },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double plain = plain_scale(cases[i].kind, cases[i].stored, cases[i].side);
        double drawn = drawn_scale(cases[i].kind, cases[i].stored, cases[i].side);
        if (!(fabs(plain / cases[i].scale - 1) < 0.025) || !(fabs(drawn / plain - 1) < 0.03))
            fail_msg("case %d: plain %.4f, drawn %.4f, wanted %.4f", (int)i, plain, drawn, cases[i].scale);
    }
}

/* Unscaled, a plain view is the central square to the bit; values are those of the image / 255. */
static void plain_view_is_the_central_square(void **state)
{
    uint8_t pixels[5][5][3];
    float input[3][3][3], whole[75];
    struct augment_source source = {&pixels[0][0][0], 5, 3};
    (void)state;
    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 5; x++)
            for (int c = 0; c < 3; c++)
                pixels[y][x][c] = (uint8_t)(100 * c + 10 * y + x);
    for (int kind = AUGMENT_NONE; kind <= AUGMENT_W21; kind++) {
        augment_plain((enum augmentation)kind, &source, 3, &input[0][0][0]);
        for (int y = 0; y < 3; y++)
            for (int x = 0; x < 3; x++)
                for (int c = 0; c < 3; c++)
                    assert_float_equal(input[y][x][c], (100 * c + 10 * (y + 1) + x + 1) / 255.0, 1e-7);
    }
    pixels[4][4][0] = 255;
    augment_plain(AUGMENT_NONE, &source, 5, whole);
    assert_float_equal(whole[72], 1, 0);
    assert_float_equal(whole[0], 0, 0);
}

/* W+20's is nearest neighbour, as in training: every value is one of the image. */
static void plain_w20_takes_the_nearest(void **state)
{
    static uint8_t pixels[64 * 64];
    static float input[32 * 32];
    struct augment_source source = {pixels, 64, 1};
    (void)state;
    for (int i = 0; i < 64 * 64; i++)
        pixels[i] = i / 64 % 2 == i % 2 ? 250 : 0;
    augment_plain(AUGMENT_W20, &source, 32, input);
    for (int i = 0; i < 32 * 32; i++)
        assert_true(input[i] == 0 || fabsf(input[i] - 250 / 255.0f) < 1e-6f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(w21_turns_mirrors_and_crops),
                                       cmocka_unit_test(w20_turns_mirrors_and_zooms),
                                       cmocka_unit_test(w20_draws_every_choice_evenly),
                                       cmocka_unit_test(w21_draws_every_choice_evenly),
                                       cmocka_unit_test(what_lies_outside),
                                       cmocka_unit_test(same_draws_again_others_elsewhere),
                                       cmocka_unit_test(plain_and_drawn_views_have_one_scale),
                                       cmocka_unit_test(plain_view_is_the_central_square),
                                       cmocka_unit_test(plain_w20_takes_the_nearest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
