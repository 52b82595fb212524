/* The gate's decisions on cases whose answer is known beforehand. */
#include "base/philox.h"
#include "model/gate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define SEED  11u
#define COUNT 400

/* Champion NLLs around 10 with a large spread between galaxies; the challenger differs by `shift` and noise.
 */
static void draw(double shift, double noise, double *champion, double *challenger)
{
    for (uint32_t i = 0; i < COUNT; i++) {
        float normal[2];
        struct philox words = philox(SEED, i, 0, 0, 0);
        philox_normal(words.word[0], words.word[1], normal);
        champion[i] = 10 + 2 * (double)normal[0];
        challenger[i] = champion[i] + shift + noise * (double)normal[1];
    }
}

/* The bound of a mean ratio is known in closed form for large samples: delta method, 1.645 standard errors.
 */
static void bound_agrees_with_the_normal_approximation(void **state)
{
    (void)state;
    double champion[COUNT], challenger[COUNT];
    struct gate_report report;
    draw(-0.2, 1, champion, challenger);
    gate_decide(champion, challenger, COUNT, SEED, &report);
    double mean_champion = 0, mean_challenger = 0, squares = 0;
    for (int i = 0; i < COUNT; i++) {
        mean_champion += champion[i] / COUNT;
        mean_challenger += challenger[i] / COUNT;
    }
    double ratio = mean_challenger / mean_champion;
    for (int i = 0; i < COUNT; i++)
        squares += pow(challenger[i] - ratio * champion[i], 2) / COUNT;
    double error = sqrt(squares / COUNT) / mean_champion;
    assert_int_equal(report.galaxies, COUNT);
    assert_true(fabs(report.champion_nll - mean_champion) < 1e-12 &&
                fabs(report.challenger_nll - mean_challenger) < 1e-12);
    assert_true(fabs(report.change - (ratio - 1)) < 1e-12);
    assert_true(fabs(report.bound - (ratio - 1 + 1.645 * error)) < 0.15 * error);
}

static void better_and_equal_are_promoted_worse_is_not(void **state)
{
    (void)state;
    static const struct {
        double shift, noise;
        int promoted;
    } cases[] = {
        {-1,   1, 1}, /* 10 % better */
        {0,    0, 1}, /* the same model again */
        {0.02, 0, 1}, /* 0.2 % worse, certainly: within the tolerance */
        {0.1,  0, 0}, /* 1 % worse, certainly */
        {2,    1, 0}, /* 20 % worse */
        {0,    4, 0}, /* about the same on average, but who knows */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double champion[COUNT], challenger[COUNT];
        struct gate_report report;
        draw(cases[i].shift, cases[i].noise, champion, challenger);
        gate_decide(champion, challenger, COUNT, SEED, &report);
        if (report.promoted != cases[i].promoted)
            fail_msg("case %zu: %s", i, report.reason);
        assert_non_null(strstr(report.reason, cases[i].promoted ? "promoted" : "refused"));
    }
}

/* Pairing matters: galaxies differ far more than models do. */
static void comparison_is_paired(void **state)
{
    (void)state;
    double champion[COUNT], challenger[COUNT];
    struct gate_report report;
    draw(-0.005, 0, champion, challenger); /* 0.05 % better on every galaxy, spread between galaxies 20 % */
    gate_decide(champion, challenger, COUNT, SEED, &report);
    assert_true(report.promoted && report.bound < 0);
}

static void few_galaxies_need_an_improvement(void **state)
{
    (void)state;
    double champion[COUNT], challenger[COUNT];
    struct gate_report report;
    draw(0, 0, champion, challenger);
    gate_decide(champion, challenger, GATE_GALAXIES_MIN - 1, SEED, &report);
    assert_false(report.promoted); /* equal is not better */
    assert_true(isnan(report.bound));
    gate_decide(champion, challenger, GATE_GALAXIES_MIN, SEED, &report);
    assert_true(report.promoted);
    draw(-0.01, 0, champion, challenger);
    gate_decide(champion, challenger, 1, SEED, &report);
    assert_true(report.promoted);
    draw(0.01, 0, champion, challenger);
    gate_decide(champion, challenger, 49, SEED, &report);
    assert_false(report.promoted);
}

static void without_anything_to_compare(void **state)
{
    (void)state;
    double champion[COUNT] = {0}, challenger[COUNT] = {0};
    struct gate_report report;
    gate_decide(NULL, NULL, 0, SEED, &report);
    assert_true(report.promoted);
    gate_decide(champion, challenger, 0, SEED, &report);
    assert_false(report.promoted);
    gate_decide(champion, challenger, COUNT, SEED, &report); /* nobody voted: NLL 0 */
    assert_false(report.promoted);
    draw(0, 0, champion, challenger);
    gate_decide(NULL, challenger, COUNT, SEED, &report);
    assert_true(report.promoted && isnan(report.champion_nll) && report.challenger_nll > 9);
}

static void broken_models_never_win(void **state)
{
    (void)state;
    double champion[COUNT], challenger[COUNT];
    struct gate_report report;
    draw(-1, 0, champion, challenger);
    challenger[123] = NAN;
    gate_decide(champion, challenger, COUNT, SEED, &report);
    assert_false(report.promoted);
    assert_non_null(strstr(report.reason, "123"));
    gate_decide(NULL, challenger, COUNT, SEED, &report);
    assert_false(report.promoted);
    draw(1, 0, champion, challenger);
    champion[5] = INFINITY;
    gate_decide(champion, challenger, COUNT, SEED, &report);
    assert_true(report.promoted);
}

static void same_seed_same_report(void **state)
{
    (void)state;
    double champion[COUNT], challenger[COUNT];
    struct gate_report one, two;
    draw(0.01, 1, champion, challenger);
    gate_decide(champion, challenger, COUNT, SEED, &one);
    gate_decide(champion, challenger, COUNT, SEED, &two);
    assert_true(one.bound == two.bound);
    gate_decide(champion, challenger, COUNT, SEED + 1, &two);
    assert_true(one.bound != two.bound && fabs(one.bound - two.bound) < 0.002);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bound_agrees_with_the_normal_approximation),
        cmocka_unit_test(better_and_equal_are_promoted_worse_is_not),
        cmocka_unit_test(comparison_is_paired),
        cmocka_unit_test(few_galaxies_need_an_improvement),
        cmocka_unit_test(without_anything_to_compare),
        cmocka_unit_test(broken_models_never_win),
        cmocka_unit_test(same_seed_same_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
