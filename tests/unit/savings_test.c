/* Label savings against arithmetic by hand and curves whose saving is known. */
#include "acquisition/savings.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SEEDS 8
#define STEPS 11

static unsigned seed = 20261124;

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.12g is not %.12g within %g", value, expected, tolerance);
}

/* One seed, three steps: the loss falls 4, 2, 1 at costs 10, 20, 30; the arm is there at 10, 15 and 20. */
static void by_hand(void **state)
{
    (void)state;
    const double reference_cost[] = {10, 20, 30}, arm_cost[] = {10, 15, 20}, loss[] = {4, 2, 1};
    struct arm_curves reference = {1, 3, reference_cost, loss}, arm = {1, 3, arm_cost, loss};
    int reached;
    /* Half the budget is cost 20, loss 2; the arm needs 15. */
    assert_near(savings_at(&arm, &reference, 0.5, 1, &reached).value, 1 - 15.0 / 20, 1e-12);
    assert_true(reached);
    /* A quarter is cost 15, loss 3; the arm needs 12.5. */
    assert_near(savings_at(&arm, &reference, 0.25, 1, &reached).value, 1 - 12.5 / 15, 1e-12);
    assert_near(savings_at(&arm, &reference, 1, 1, &reached).value, 1 - 20.0 / 30, 1e-12);
    /* The other way round: loss 1 after 20 is reached after 30. */
    assert_near(savings_at(&reference, &arm, 1, 1, &reached).value, -0.5, 1e-12);
    assert_true(reached);
    assert_near(savings_area(&reference, 0), (30 + 15) / 20.0, 1e-12);
    assert_near(savings_area(&arm, 0), (15 + 7.5) / 10, 1e-12);
}

/* A loss that rises again does not undo what was reached; one that never gets there is an upper bound. */
static void unsteady_curves(void **state)
{
    (void)state;
    const double cost[] = {10, 20, 30, 40}, falling[] = {4, 3, 2, 1}, rising[] = {4, 2, 3, 3};
    struct arm_curves reference = {1, 4, cost, falling}, arm = {1, 4, cost, rising};
    int reached;
    struct interval half = savings_at(&arm, &reference, 0.5, 1, &reached); /* cost 25, loss 2.5; the arm needs 17.5 */
    assert_true(reached);
    assert_near(half.value, 1 - 17.5 / 25, 1e-12);
    struct interval all = savings_at(&arm, &reference, 1, 1, &reached);
    assert_false(reached);
    assert_near(all.value, 0, 1e-12);
}

/* loss = 1 / cost for the reference, the arm as good at 60 % of the cost; noise per seed, the same for both: paired. */
static void intervals_hold_the_truth(void **state)
{
    (void)state;
    print_message("seed %u\n", seed);
    double cost[SEEDS * STEPS], slow[SEEDS * STEPS], fast[SEEDS * STEPS];
    for (int i = 0; i < SEEDS; i++) {
        double noise = 0.002 * ((double)(rand_r(&seed) % 1000) / 1000 - 0.5);
        for (int step = 0; step < STEPS; step++) {
            cost[i * STEPS + step] = 100 + 40 * step;
            slow[i * STEPS + step] = 1 / cost[i * STEPS + step] + noise;
            fast[i * STEPS + step] = 0.6 / cost[i * STEPS + step] + noise;
        }
    }
    struct arm_curves reference = {SEEDS, STEPS, cost, slow}, arm = {SEEDS, STEPS, cost, fast};
    int reached;
    struct interval half = savings_at(&arm, &reference, 0.5, 1, &reached);
    assert_near(half.value, 0.4, 0.02);
    assert_true(half.low <= half.value && half.value <= half.high && half.high - half.low < 0.02);
    assert_near(savings_wins(&arm, &reference), 1, 0);
    assert_near(savings_wins(&arm, &arm), 0.5, 0);
    struct interval last = savings_last_difference(&arm, &reference, 1);
    assert_near(last.value, -0.4 / 500, 1e-12);
    assert_true(last.high < 0);
    /* Unpaired, the noise is in the mean. */
    struct interval mean = savings_mean(&reference, STEPS - 1, 1);
    assert_true(mean.high - mean.low > 1e-4 && mean.low < mean.value && mean.value < mean.high);
}

/* A standard interval of a mean by theory: 1.96 sigma / sqrt(n). */
static void bootstrap_has_the_right_width(void **state)
{
    (void)state;
    enum { MANY = 400 };
    double cost[MANY], loss[MANY];
    for (int i = 0; i < MANY; i++) {
        cost[i] = 1;
        loss[i] = (double)(rand_r(&seed) % 10001) / 10000;
    }
    struct arm_curves arm = {MANY, 1, cost, loss};
    struct interval mean = savings_mean(&arm, 0, 3);
    double expected = 2 * 1.96 * sqrt(1.0 / 12 / MANY);
    assert_near((mean.high - mean.low) / expected, 1, 0.12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(unsteady_curves),
        cmocka_unit_test(intervals_hold_the_truth),
        cmocka_unit_test(bootstrap_has_the_right_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
