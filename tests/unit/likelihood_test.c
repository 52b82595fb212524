/* The votes' likelihood against published vectors, 50-digit goldens, finite differences and scipy's
 * optimiser. */
#include "base/philox.h"
#include "model/likelihood.h"
#include "model/metrics.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/golden/likelihood.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
}

/* Known answers of Zoobot's loss, recomputed in double precision. */
static void known_vectors(void **state)
{
    (void)state;
    static const struct {
        int count;
        float alpha[3];
        uint16_t votes[3];
        double nll, gradient[3];
    } vectors[] = {
        {3, {10, 5, 1.5}, {5, 3, 2},  3.4598203269810472, {0.0628127149, -0.0241170220, -0.5812598791}},
        {3, {80, 6, 2},   {34, 2, 1}, 2.6832584288066528, {-0.0033782887, 0.0431403591, -0.1473358314}},
        {2, {1, 1},       {0, 1},     0.693147180559945,  {0.5, -0.5}                                 },
        {2, {101, 1},     {40, 0},    0.3336393735369967, {-0.0028087915, 0.3322389552}               },
    };
    for (size_t i = 0; i < COUNT(vectors); i++) {
        double gradient[3];
        assert_near(likelihood_question(vectors[i].alpha, vectors[i].votes, vectors[i].count), vectors[i].nll, 1e-9);
        likelihood_question_gradient(vectors[i].alpha, vectors[i].votes, vectors[i].count, gradient);
        for (int a = 0; a < vectors[i].count; a++)
            assert_near(gradient[a], vectors[i].gradient[a], 1e-9);
    }
}

static void no_votes_cost_exactly_nothing(void **state)
{
    (void)state;
    const float alpha[3] = {1.1f, 77, 1e4f};
    const uint16_t votes[3] = {0, 0, 0};
    double gradient[3] = {1, 1, 1};
    assert_true(likelihood_question_gradient(alpha, votes, 3, gradient) == 0);
    for (int a = 0; a < 3; a++)
        assert_true(gradient[a] == 0);
}

static void goldens_from_high_precision(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(likelihood_cases); i++) {
        const struct likelihood_case *one = &likelihood_cases[i];
        double gradient[16], total = 0;
        for (int a = 0; a < one->count; a++)
            total += one->votes[a];
        double tolerance = 1e-9 + 1e-14 * total + 1e-12 * fabs(one->nll);
        assert_near(likelihood_question_gradient(one->alpha, one->votes, one->count, gradient), one->nll, tolerance);
        for (int a = 0; a < one->count; a++)
            assert_near(gradient[a], one->gradient[a], 1e-9 + 1e-11 * fabs(one->gradient[a]));
    }
}

static void digamma(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(digamma_cases); i++)
        assert_near(likelihood_digamma(digamma_cases[i][0]), digamma_cases[i][1],
                    1e-13 * fmax(1, fabs(digamma_cases[i][1])));
}

/* The product form and the ln Gamma form must meet where one takes over from the other. */
static void no_step_between_the_two_forms(void **state)
{
    (void)state;
    const float alpha[2] = {2.25f, 7.5f};
    double before = 0;
    for (uint16_t k = 28; k < 38; k++) {
        uint16_t votes[2] = {k, 0};
        double nll = likelihood_question(alpha, votes, 2);
        /* one more vote for the same answer multiplies P by (alpha + k) / (A + k) */
        if (k > 28)
            assert_near(nll - before, -log((2.25 + k - 1) / (9.75 + k - 1)), 1e-12);
        before = nll;
    }
}

static void gradient_is_the_finite_difference(void **state)
{
    (void)state;
    struct schema schema;
    small_schema(&schema, 3, (int[]){3, 2, 4}, (int[]){-1, 1, 3});
    const float alpha[9] = {2.5f, 40, 7, 90, 1.25f, 3, 3, 60, 15};
    const uint16_t votes[9] = {3, 40, 7, 0, 0, 1, 0, 33, 34};
    double gradient[9], alone[9];
    double nll = likelihood_galaxy_gradient(&schema, alpha, votes, gradient);
    likelihood_galaxy_slopes(&schema, alpha, votes, alone);
    assert_memory_equal(alone, gradient, sizeof gradient);
    assert_true(nll == likelihood_galaxy(&schema, alpha, votes));
    for (int a = 0; a < 9; a++) {
        float above[9], below[9];
        memcpy(above, alpha, sizeof alpha);
        memcpy(below, alpha, sizeof alpha);
        above[a] += 0x1p-7f;
        below[a] -= 0x1p-7f;
        double slope = (likelihood_galaxy(&schema, above, votes) - likelihood_galaxy(&schema, below, votes)) * 64;
        assert_near(gradient[a], slope, 1e-4 * fmax(0.1, fabs(slope)));
    }
    assert_true(gradient[3] == 0 && gradient[4] == 0); /* nobody was asked */
}

/* Probabilities are averaged, per question: with one vote the mixture is the mean of alpha / A. */
static void mixture_averages_probabilities(void **state)
{
    (void)state;
    struct schema schema;
    small_schema(&schema, 2, (int[]){2, 2}, (int[]){-1, -1});
    const float alpha[2][4] = {
        {2, 8, 50,   50  },
        {6, 2, 1.5f, 4.5f}
    };
    const uint16_t votes[4] = {1, 0, 0, 1};
    double expected = -log((0.2 + 0.75) / 2) - log((0.5 + 0.75) / 2);
    assert_near(likelihood_mixture(&schema, alpha[0], 2, votes), expected, 1e-12);
    assert_near(likelihood_mixture(&schema, alpha[0], 1, votes), likelihood_galaxy(&schema, alpha[0], votes), 1e-12);
    /* Passes so unlikely that exp() underflows must not become infinite. */
    const uint16_t many[4] = {60000, 0, 0, 0};
    const float far[2][4] = {
        {1, 1e4f, 1, 1},
        {1, 9e3f, 1, 1}
    };
    double one = likelihood_galaxy(&schema, far[0], many), two = likelihood_galaxy(&schema, far[1], many);
    assert_true(one > 800);
    assert_near(likelihood_mixture(&schema, far[0], 2, many), -log((1 + exp(two - one)) / 2) + two, 1e-6);
}

static void constant_fit_matches_scipy(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(constant_cases); i++) {
        const struct constant_case *one = &constant_cases[i];
        struct schema schema;
        small_schema(&schema, 1, &one->count, (int[]){-1});
        struct vote_rows rows = {one->votes[0], sizeof one->votes[0], NULL, (size_t)one->galaxies};
        float alpha[4];
        assert_int_equal(likelihood_constant_fit(&schema, &rows, one->lower, one->upper, alpha), 0);
        double nll = 0;
        for (int g = 0; g < one->galaxies; g++)
            nll += likelihood_question(alpha, one->votes[g], one->count);
        if (!(nll <= one->nll + 1e-5)) /* never worse than scipy's optimum; concentrations are floats */
            fail_msg("case %zu: NLL %.9f, scipy has %.9f", i, nll, one->nll);
        for (int a = 0; a < one->count; a++) {
            assert_true((double)alpha[a] >= one->lower * (1 - 1e-6) && (double)alpha[a] <= one->upper * (1 + 1e-6));
            if (nll > one->nll - 1e-5 && one->alpha[a] < 200) /* flat valleys may end elsewhere */
                assert_near((double)alpha[a], one->alpha[a], 2e-3 * one->alpha[a]);
        }
    }
}

static void constant_fit_reads_only_the_rows_given(void **state)
{
    (void)state;
    struct schema schema;
    small_schema(&schema, 2, (int[]){2, 3}, (int[]){-1, -1});
    const uint16_t votes[4][8] = {
        {500, 0,   9, 9, 9},
        {3,  1   },
        {500,   0,    9, 9, 9},
        {1, 3}
    };
    const uint64_t row[2] = {1, 3};
    struct vote_rows rows = {votes[0], sizeof votes[0], row, 2};
    float alpha[5];
    assert_int_equal(likelihood_constant_fit(&schema, &rows, LIKELIHOOD_HEAD_LOWER, LIKELIHOOD_HEAD_UPPER, alpha), 0);
    assert_near((double)alpha[0], (double)alpha[1], 1e-3 * (double)alpha[1]); /* the two rows are mirror images */
    for (int a = 2; a < 5; a++)
        assert_true(alpha[a] == 2); /* nobody was asked */
}

static void metrics_by_hand(void **state)
{
    (void)state;
    struct schema schema;
    small_schema(&schema, 2, (int[]){2, 2}, (int[]){-1, 0});
    const float alpha[2][4] = {
        {2, 8, 5, 5},
        {6, 4, 5, 5}
    }; /* mean fractions 0.4, 0.6, 0.5, 0.5 */
    const uint16_t votes[4] = {1, 3, 0, 0}, more[4] = {2, 0, 4, 0};
    struct metrics metrics = {0};
    assert_true(isnan(metrics_nll(&metrics)) && isnan(metrics_rmse(&metrics)));
    double first = metrics_add(&metrics, &schema, alpha[0], 2, votes);
    assert_near(metrics_question_rmse(&metrics, 0), 0.15, 1e-12);
    assert_true(isnan(metrics_question_rmse(&metrics, 1)));
    double second = metrics_add(&metrics, &schema, alpha[0], 2, more);
    assert_near(first, likelihood_mixture(&schema, alpha[0], 2, votes), 0);
    assert_near(metrics_nll(&metrics), (first + second) / 2, 1e-12);
    assert_near(metrics_question_rmse(&metrics, 0), sqrt((2 * 0.15 * 0.15 + 2 * 0.36) / 4), 1e-12);
    assert_near(metrics_rmse(&metrics), sqrt((2 * 0.15 * 0.15 + 2 * 0.36 + 2 * 0.25) / 6), 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_vectors),
        cmocka_unit_test(no_votes_cost_exactly_nothing),
        cmocka_unit_test(goldens_from_high_precision),
        cmocka_unit_test(digamma),
        cmocka_unit_test(no_step_between_the_two_forms),
        cmocka_unit_test(gradient_is_the_finite_difference),
        cmocka_unit_test(mixture_averages_probabilities),
        cmocka_unit_test(constant_fit_matches_scipy),
        cmocka_unit_test(constant_fit_reads_only_the_rows_given),
        cmocka_unit_test(metrics_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
