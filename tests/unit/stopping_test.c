/* Advice to stop, on histories whose means and ratios are worked out by hand. */
#include "acquisition/stopping.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) < 1e-12))
        fail_msg("%.17g is not %.17g", value, expected);
}

/* 1, 2, 3, 4: mean 2.5, sample deviation sqrt(5/3), standard error sqrt(5/12). */
static void gains(void **state)
{
    (void)state;
    const double information[] = {1, 2, 3, 4};
    struct gain gain = gain_of(information, 4);
    assert_int_equal(gain.galaxies, 4);
    assert_near(gain.mean, 2.5);
    assert_near(gain.error, sqrt(5.0 / 12));
    gain = gain_of(information, 1);
    assert_near(gain.mean, 1);
    assert_near(gain.error, 0);
    assert_int_equal(gain_of(information, 0).galaxies, 0);
}

static void nothing_is_said_too_early(void **state)
{
    (void)state;
    struct stopping stopping = {0};
    for (int i = 0; i < STOPPING_WINDOW; i++) {
        assert_false(stopping_advise(&stopping).known);
        stopping_add(&stopping, (struct gain){10, 1, 0.01});
    }
    struct stopping_advice advice = stopping_advise(&stopping);
    assert_true(advice.known && !advice.stop);
    assert_near(advice.ratio, 1);
    assert_near(advice.ratio_high, 1 + 1.645 * 0.01);
    stopping_add(&stopping,
                 (struct gain){0, 0, 0}); /* a ranking without active galaxies, and broken ones, say nothing */
    stopping_add(&stopping, (struct gain){5, NAN, 0});
    assert_int_equal(stopping.rankings, STOPPING_WINDOW);
}

/* Best window: 2, 2, 2, 2, 2. Then gains of 0.15 with an error of 0.02: at most 0.183 / 2 = 9 %, below 10 %. */
static void stop_after_five_poor_batches(void **state)
{
    (void)state;
    struct stopping stopping = {0};
    for (int i = 0; i < 5; i++)
        stopping_add(&stopping, (struct gain){10, 2, 0.1});
    for (int i = 0; i < 5; i++) {
        assert_false(stopping_advise(&stopping).stop);
        stopping_add(&stopping, (struct gain){10, 0.15, 0.02});
    }
    struct stopping_advice advice = stopping_advise(&stopping);
    assert_true(advice.stop);
    assert_near(advice.ratio, 0.075);
    assert_near(advice.ratio_high, (0.15 + 1.645 * 0.02) / 2);
    stopping_add(&stopping, (struct gain){10, 0.15, 0.05}); /* 0.232 / 2: too uncertain */
    assert_false(stopping_advise(&stopping).stop);
    for (int i = 0; i < 4; i++)
        stopping_add(&stopping, (struct gain){10, 0.15, 0.02});
    assert_false(stopping_advise(&stopping).stop);
    stopping_add(&stopping, (struct gain){10, 0.15, 0.02});
    assert_true(stopping_advise(&stopping).stop);
}

/* One high batch among low ones is not the best window: (5 + 4 x 1) / 5 = 1.8, not 5. */
static void the_best_is_a_mean(void **state)
{
    (void)state;
    struct stopping stopping = {0};
    for (int i = 0; i < 12; i++)
        stopping_add(&stopping, (struct gain){10, i == 3 ? 5 : 1, 0});
    assert_near(stopping.best, 1.8);
    assert_near(stopping_advise(&stopping).ratio, 1 / 1.8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gains),
        cmocka_unit_test(nothing_is_said_too_early),
        cmocka_unit_test(stop_after_five_poor_batches),
        cmocka_unit_test(the_best_is_a_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
