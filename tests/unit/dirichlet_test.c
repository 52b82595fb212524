/* Dirichlet and Beta closed forms against published vectors and 50-digit goldens. */
#include "model/dirichlet.h"
#include "tests/golden/dirichlet.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Relative for large values. */
static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance * fmax(1, fabs(expected))))
        fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
}

/* Vectors that the authors of W+20 and W+21 tested their own code with. */
static void published_vectors(void **state)
{
    (void)state;
    const double a[] = {3, 14, 12}, b[] = {12, 14, 3};
    assert_near(dirichlet_entropy(a, 3), -2.5960668548883206, 1e-12);
    assert_near(dirichlet_divergence(b, a, 3), 13.678896103896097, 1e-12);
    assert_near(dirichlet_chernoff((double[]){1, 2, 3}, (double[]){3, 2, 1}, 3, 0.5), 0.6931471805599454, 1e-12);
    assert_near(dirichlet_chernoff((double[]){1, 2, 10}, (double[]){30, 2, 1}, 3, 0.5), 9.233299140837172, 1e-12);
    const double mixture[] = {2, 18, 4, 15, 3, 16};
    struct dirichlet_bounds bounds = dirichlet_mixture(mixture, 3, 2);
    assert_near(bounds.mean, -1.208337934900186, 1e-12);
    assert_near(bounds.upper, -0.9130706551614409, 1e-12);
    assert_near(bounds.lower, -1.12341343435463, 1e-12);
    const double quantile[][4] = {
        {2,   6,  0.0533755004702372,  0.5207029735913069},
        {4,   6,  0.1687504959873241,  0.6550586340562963},
        {1.5, 15, 0.01147239483590199, 0.2261425867540277},
        {70,  31, 0.6157793872057993,  0.7659908498496446}
    };
    for (size_t i = 0; i < COUNT(quantile); i++) {
        assert_near(beta_quantile(quantile[i][0], quantile[i][1], 0.05), quantile[i][2], 1e-12);
        assert_near(beta_quantile(quantile[i][0], quantile[i][1], 0.95), quantile[i][3], 1e-12);
    }
}

static double beta_density(double a, double b, double x)
{
    return exp((a - 1) * log(x) + (b - 1) * log1p(-x) + lgamma(a + b) - lgamma(a) - lgamma(b));
}

/*
 * The entropy itself, by the midpoint rule (scipy.integrate.quad: -1.05636141), lies between its bounds. The authors'
 * own numerical value, -1.0660501698, lies there too but is a coarser sum: it is asserted as far as it is right.
 */
static void bounds_enclose_the_entropy(void **state)
{
    (void)state;
    const int steps = 200000;
    double entropy = 0;
    for (int i = 0; i < steps; i++) {
        double x = (i + 0.5) / steps;
        double p = (beta_density(2, 18, x) + beta_density(4, 15, x) + beta_density(3, 16, x)) / 3;
        entropy -= p > 0 ? p * log(p) / steps : 0;
    }
    assert_near(entropy, -1.0563614132, 1e-8);
    assert_near(entropy, -1.0660501698, 0.01);
    struct dirichlet_bounds bounds = dirichlet_mixture((const double[]){2, 18, 4, 15, 3, 16}, 3, 2);
    assert_true(bounds.mean < bounds.lower && bounds.lower < entropy && entropy < bounds.upper);
}

static void golden(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(golden_pair); i++) {
        assert_near(dirichlet_entropy(golden_pair[i].a, golden_pair[i].answers), golden_pair[i].entropy, 1e-9);
        assert_near(dirichlet_divergence(golden_pair[i].a, golden_pair[i].b, golden_pair[i].answers),
                    golden_pair[i].divergence, 1e-9);
        assert_near(
            dirichlet_chernoff(golden_pair[i].a, golden_pair[i].b, golden_pair[i].answers, golden_pair[i].share),
            golden_pair[i].chernoff, 1e-9);
    }
    for (size_t i = 0; i < COUNT(golden_mixture); i++) {
        struct dirichlet_bounds bounds =
            dirichlet_mixture(golden_mixture[i].alpha, golden_mixture[i].count, golden_mixture[i].answers);
        assert_near(bounds.mean, golden_mixture[i].mean, 1e-9);
        assert_near(bounds.lower, golden_mixture[i].lower, 1e-9);
        assert_near(bounds.upper, golden_mixture[i].upper, 1e-9);
    }
    for (size_t i = 0; i < COUNT(golden_beta); i++) {
        assert_near(beta_below(golden_beta[i].a, golden_beta[i].b, golden_beta[i].fraction), golden_beta[i].below,
                    1e-9);
        assert_near(beta_quantile(golden_beta[i].a, golden_beta[i].b, golden_beta[i].probability),
                    golden_beta[i].quantile, 1e-9);
    }
    assert_true(beta_below(2, 3, -0.5) == 0 && beta_below(2, 3, 1.5) == 1);
}

static void binomial(int votes, double p, double *probability)
{
    for (int k = 0; k <= votes; k++)
        probability[k] =
            exp(lgamma(votes + 1) - lgamma(k + 1) - lgamma(votes - k + 1) + k * log(p) + (votes - k) * log1p(-p));
}

static void count_intervals(void **state)
{
    (void)state;
    double probability[41];
    binomial(30, 0.5, probability);
    struct count_interval interval = count_interval(probability, 30, 0.8);
    assert_int_equal(interval.low, 11);
    assert_int_equal(interval.high, 19);
    assert_near(interval.mass, 0.9012628532946048, 1e-12);
    /* One end stops at 0 while the other goes on: by hand for Binomial(4, 0.1). */
    binomial(4, 0.1, probability);
    interval = count_interval(probability, 4, 0.99);
    assert_int_equal(interval.low, 0);
    assert_int_equal(interval.high, 2);
    assert_near(interval.mass, 0.6561 + 0.2916 + 0.0486, 1e-12);
    interval = count_interval(probability, 4, 0.5);
    assert_true(interval.low == 0 && interval.high == 0);
    /* More than everything is everything. */
    interval = count_interval(probability, 4, 1.5);
    assert_true(interval.low == 0 && interval.high == 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors),
        cmocka_unit_test(bounds_enclose_the_entropy),
        cmocka_unit_test(golden),
        cmocka_unit_test(count_intervals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
