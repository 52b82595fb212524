/*
 * Augmentations by what they do to images with a known answer: two ramps give the whole linear map (scale, turn, mirror), a
 * constant shows what lies outside, and many draws show how the choices are spread.
 */
#include "model/augment.h"
#include "model/input.h"

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
    image_to_input(pixels, STORED, 3, 64, b);
    assert_memory_equal(a, b, sizeof a);
    free(pixels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(w21_turns_mirrors_and_crops), cmocka_unit_test(w20_turns_mirrors_and_zooms),
        cmocka_unit_test(what_lies_outside), cmocka_unit_test(same_draws_again_others_elsewhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
