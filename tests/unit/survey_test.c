/* The simulated survey: light adds up, shapes and arms come out as asked for, and nothing depends on threads.
 */
#include "base/error.h"
#include "connectors/survey.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PI 3.14159265358979

static double plane_sum(const struct survey_canvas *canvas)
{
    double sum = 0;
    for (int i = 0; i < canvas->side * canvas->side; i++)
        sum += canvas->plane[0][i];
    return sum;
}

/* Light inside the profile's effective ellipse, by pixel centres. */
static double half_light(const struct survey_canvas *canvas, const struct survey_sersic *profile)
{
    double sum = 0, side = canvas->side;
    for (int y = 0; y < canvas->side; y++)
        for (int x = 0; x < canvas->side; x++) {
            double dx = x + .5 - profile->x * side, dy = y + .5 - profile->y * side;
            double u = dx * cos(profile->angle) + dy * sin(profile->angle);
            double v = (dy * cos(profile->angle) - dx * sin(profile->angle)) / profile->axis_ratio;
            if (sqrt(u * u + v * v) < profile->radius * side)
                sum += canvas->plane[0][y * canvas->side + x];
        }
    return sum;
}

/*
 * The flux asked for is the integral to infinity (Graham & Driver 2005, eq. 4): the pixels must hold it, and
 * half of it inside the effective radius, which is what fixes b_n.
 */
static void sersic_flux_matches_the_formula(void **state)
{
    (void)state;
    static const struct {
        float index, axis_ratio;
    } cases[] = {
        {.5f, 1  },
        {1,   .3f},
        {2,   .6f},
        {4,   .8f}
    };
    struct survey_canvas canvas;
    assert_int_equal(survey_canvas_new(1024, 1, &canvas), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(canvas.plane[0], 0, sizeof(float) * 1024 * 1024);
        struct survey_sersic profile = {.x = .5013f,
                                        .y = .4987f,
                                        .flux = 1000,
                                        .radius = .012f,
                                        .index = cases[i].index,
                                        .axis_ratio = cases[i].axis_ratio,
                                        .angle = .7f,
                                        .boxiness = 2};
        survey_add_sersic(&canvas, &profile);
        assert_float_equal(plane_sum(&canvas), 1000, 20);
        assert_float_equal(half_light(&canvas, &profile), 500, 15);
    }
    survey_canvas_free(&canvas);
}

static void boxy_profile_keeps_its_flux(void **state)
{
    (void)state;
    struct survey_canvas canvas;
    assert_int_equal(survey_canvas_new(400, 1, &canvas), 0);
    struct survey_sersic profile = {
        .x = .5f, .y = .5f, .flux = 50, .radius = .05f, .index = 1, .axis_ratio = .6f, .boxiness = 4};
    survey_add_sersic(&canvas, &profile);
    assert_float_equal(plane_sum(&canvas), 50, 1);
    survey_canvas_free(&canvas);
}

/* Second moments of the light about its centre of mass. */
static void moments(const struct survey_canvas *canvas, double *xx, double *xy, double *yy)
{
    double sum = 0, mx = 0, my = 0;
    *xx = *xy = *yy = 0;
    for (int i = 0; i < canvas->side * canvas->side; i++) {
        double light = canvas->plane[0][i];
        sum += light;
        mx += light * (i % canvas->side);
        my += light * (i / canvas->side);
    }
    for (int i = 0; i < canvas->side * canvas->side; i++) {
        double light = canvas->plane[0][i] / sum, x = i % canvas->side - mx / sum, y = i / canvas->side - my / sum;
        *xx += light * x * x;
        *xy += light * x * y;
        *yy += light * y * y;
    }
}

static void axis_ratio_and_angle_come_back_from_the_moments(void **state)
{
    (void)state;
    struct survey_canvas canvas;
    assert_int_equal(survey_canvas_new(512, 1, &canvas), 0);
    struct survey_sersic profile = {
        .x = .5f, .y = .5f, .flux = 1, .radius = .04f, .index = 1, .axis_ratio = .4f, .angle = .5f, .boxiness = 2};
    double xx, xy, yy;
    survey_add_sersic(&canvas, &profile);
    moments(&canvas, &xx, &xy, &yy);
    double mean = .5 * (xx + yy), spread = sqrt(.25 * (xx - yy) * (xx - yy) + xy * xy);
    assert_float_equal(sqrt((mean - spread) / (mean + spread)), .4, .008);
    assert_float_equal(.5 * atan2(2 * xy, xx - yy), .5, .01);
    survey_canvas_free(&canvas);
}

/* A point in the middle, and one at the border, keep their light; the width is that of the two Gaussians. */
static void blur_keeps_the_flux_and_has_the_width(void **state)
{
    (void)state;
    struct survey_canvas canvas;
    double xx, xy, yy, sigma = .03 * 256 / 2.3548;
    assert_int_equal(survey_canvas_new(256, 3, &canvas), 0);
    canvas.plane[0][128 * 256 + 128] = 100;
    survey_blur(&canvas, .03f);
    assert_float_equal(plane_sum(&canvas), 100, .01);
    moments(&canvas, &xx, &xy, &yy);
    assert_float_equal(xx, sigma * sigma * (.9 + .1 * 9), .05 * xx);
    assert_float_equal(yy, xx, .001 * xx);
    memset(canvas.plane[0], 0, sizeof(float) * 256 * 256);
    canvas.plane[0][3] = 100;
    survey_blur(&canvas, .03f);
    assert_float_equal(plane_sum(&canvas), 100, .01);
    survey_canvas_free(&canvas);
}

/* Strength of the m-fold pattern on the circle of one half-light radius. */
static double fourier(const struct survey_canvas *canvas, double radius, int m)
{
    double real = 0, imaginary = 0;
    for (int i = 0; i < 720; i++) {
        double theta = 2 * PI * i / 720;
        int x = (int)(canvas->side * (.5 + radius * cos(theta))), y = (int)(canvas->side * (.5 + radius * sin(theta)));
        real += canvas->plane[0][y * canvas->side + x] * cos(m * theta);
        imaginary += canvas->plane[0][y * canvas->side + x] * sin(m * theta);
    }
    return hypot(real, imaginary);
}

static void spirals_have_the_arms_they_were_given(void **state)
{
    (void)state;
    struct survey_canvas canvas;
    uint8_t *pixels = malloc(128 * 128);
    assert_non_null(pixels);
    assert_int_equal(survey_canvas_new(128, 1, &canvas), 0);
    for (int arms = 1; arms <= 5; arms++) {
        struct survey_galaxy galaxy = {.kind = "spiral",
                                       .signal = 40,
                                       .seeing = .012f,
                                       .radius = .15f,
                                       .x = .5f,
                                       .y = .5f,
                                       .axis_ratio = 1,
                                       .bulge_share = .1f,
                                       .bulge_index = 1,
                                       .bulge_boxiness = 2,
                                       .arms = .9f,
                                       .arm_count = arms,
                                       .pitch = .35f,
                                       .handedness = 1,
                                       .seed = 3,
                                       .number = 1};
        survey_render(&canvas, &galaxy, pixels);
        for (int m = 1; m <= 6; m++)
            if (m % arms != 0)
                assert_true(fourier(&canvas, .15, arms) > 2 * fourier(&canvas, .15, m));
    }
    survey_canvas_free(&canvas);
    free(pixels);
}

#define MANY 24
#define SIDE 48

struct part {
    uint8_t (*pixels)[SIDE * SIDE * 3];
    int thread, threads;
};

/* Each thread draws every n-th galaxy, the last first. */
static void *render_part(void *context)
{
    struct part *part = context;
    struct survey_canvas canvas;
    if (survey_canvas_new(SIDE, 3, &canvas))
        return part;
    for (int i = MANY - 1 - part->thread; i >= 0; i -= part->threads) {
        struct survey_galaxy galaxy;
        survey_draw(99, (uint32_t)i, &galaxy);
        survey_render(&canvas, &galaxy, part->pixels[i]);
    }
    survey_canvas_free(&canvas);
    return NULL;
}

static void pictures_do_not_depend_on_threads(void **state)
{
    (void)state;
    uint8_t(*one)[SIDE * SIDE * 3] = calloc(MANY, sizeof *one), (*four)[SIDE * SIDE * 3] = calloc(MANY, sizeof *four);
    pthread_t thread[4];
    struct part part[4], alone = {one, 0, 1};
    assert_non_null(one);
    assert_non_null(four);
    assert_null(render_part(&alone));
    for (int i = 0; i < 4; i++) {
        part[i] = (struct part){four, i, 4};
        assert_int_equal(pthread_create(&thread[i], NULL, render_part, &part[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed;
        assert_int_equal(pthread_join(thread[i], &failed), 0);
        assert_null(failed);
    }
    assert_memory_equal(one, four, MANY * sizeof *one);
    for (int i = 1; i < MANY; i++)
        assert_memory_not_equal(one[0], one[i], sizeof *one);
    free(one);
    free(four);
}

static void add_question(struct schema *schema, const char *name, const char *const *answers)
{
    struct question *question = &schema->question[schema->questions];
    snprintf(question->name, sizeof question->name, "%s", name);
    question->first = schema->answers;
    question->parent = -1;
    for (; *answers; answers++, question->count++) {
        struct answer *answer = &schema->answer[schema->answers++];
        snprintf(answer->name, sizeof answer->name, "%s", *answers);
        answer->question = schema->questions;
    }
    schema->questions++;
}

static struct schema *new_schema(void)
{
    struct schema *schema = calloc(1, sizeof *schema);
    assert_non_null(schema);
    add_question(schema, "smooth-or-featured", (const char *[]){"smooth", "featured-or-disk", "artifact", NULL});
    add_question(schema, "disk-edge-on", (const char *[]){"yes", "no", NULL});
    add_question(schema, "has-spiral-arms", (const char *[]){"yes", "no", NULL});
    add_question(schema, "bar-dr5", (const char *[]){"strong", "weak", "no", NULL});
    add_question(schema, "colour-of-the-frame", (const char *[]){"red", "green", "blue", "none", NULL});
    add_question(schema, "barn", (const char *[]){"yes", "no", NULL});
    return schema;
}

static void answers_follow_the_shape(void **state)
{
    (void)state;
    struct schema *schema = new_schema();
    float p[32];
    struct {
        const char *kind;
        int first, last; /* answers that such galaxies should get */
        double above;
        double share, count;
    } seen[] = {
        {"elliptical",    0, 0, .85, 0, 0},
        {"edge-on disc",  3, 3, .8,  0, 0},
        {"spiral",        5, 5, .7,  0, 0},
        {"barred spiral", 7, 8, .6,  0, 0},
        {"star",          2, 2, .9,  0, 0},
    };
    int unsure = 0;
    for (uint32_t i = 0; i < 4000; i++) {
        struct survey_galaxy galaxy;
        survey_draw(5, i, &galaxy);
        survey_answers(schema, &galaxy, p);
        for (int q = 0; q < schema->questions; q++) {
            double sum = 0;
            for (int k = 0; k < schema->question[q].count; k++) {
                assert_true(p[schema->question[q].first + k] > 0);
                sum += p[schema->question[q].first + k];
            }
            assert_float_equal(sum, 1, 1e-5);
        }
        for (int k = 0; k < 4; k++)
            assert_float_equal(p[10 + k], .25, 1e-6); /* nothing is known of this question */
        assert_float_equal(p[14], .5, 1e-6);          /* "barn" is not "bar" */
        unsure += p[0] > .25 && p[0] < .75;
        for (size_t k = 0; k < sizeof seen / sizeof *seen; k++)
            if (strcmp(galaxy.kind, seen[k].kind) == 0) {
                seen[k].count++;
                for (int a = seen[k].first; a <= seen[k].last; a++)
                    seen[k].share += (double)p[a];
            }
    }
    for (size_t k = 0; k < sizeof seen / sizeof *seen; k++) {
        printf("%s: %.3f\n", seen[k].kind, seen[k].share / seen[k].count);
        assert_true(seen[k].share / seen[k].count > seen[k].above);
    }
    assert_true(unsure > 400 && unsure < 1600); /* a minority is ambiguous */
    free(schema);
}

/* Brightness must not give the answer away: its correlation with P(smooth) stays small. */
static void brightness_says_little(void **state)
{
    (void)state;
    enum { galaxies = 500, side = 32 };
    struct schema *schema = new_schema();
    struct survey_canvas canvas;
    uint8_t pixels[side * side];
    float p[32];
    double x1 = 0, x2 = 0, y1 = 0, y2 = 0, xy = 0;
    assert_int_equal(survey_canvas_new(side, 1, &canvas), 0);
    for (uint32_t i = 0; i < galaxies; i++) {
        struct survey_galaxy galaxy;
        double x = 0;
        survey_draw(8, i, &galaxy);
        survey_answers(schema, &galaxy, p);
        survey_render(&canvas, &galaxy, pixels);
        for (int k = 0; k < side * side; k++)
            x += pixels[k] / (double)(side * side);
        double y = p[0];
        x1 += x / galaxies;
        x2 += x * x / galaxies;
        y1 += y / galaxies;
        y2 += y * y / galaxies;
        xy += x * y / galaxies;
    }
    double correlation = (xy - x1 * y1) / sqrt((x2 - x1 * x1) * (y2 - y1 * y1));
    printf("correlation of mean brightness with P(smooth) %.3f\n", correlation);
    assert_true(fabs(correlation) < .35);
    survey_canvas_free(&canvas);
    free(schema);
}

static void odd_canvases_are_refused(void **state)
{
    (void)state;
    struct survey_canvas canvas;
    assert_int_equal(survey_canvas_new(4, 1, &canvas), ERROR_INPUT);
    assert_int_equal(survey_canvas_new(64, 2, &canvas), ERROR_INPUT);
    survey_canvas_free(&canvas);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sersic_flux_matches_the_formula),
        cmocka_unit_test(boxy_profile_keeps_its_flux),
        cmocka_unit_test(axis_ratio_and_angle_come_back_from_the_moments),
        cmocka_unit_test(blur_keeps_the_flux_and_has_the_width),
        cmocka_unit_test(spirals_have_the_arms_they_were_given),
        cmocka_unit_test(pictures_do_not_depend_on_threads),
        cmocka_unit_test(answers_follow_the_shape),
        cmocka_unit_test(brightness_says_little),
        cmocka_unit_test(odd_canvases_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
