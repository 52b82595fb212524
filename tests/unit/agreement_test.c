/*
 * Agreement, coverage and the volunteers a prediction is worth: against scikit-learn and scipy on random inputs, and against
 * published tables where their arithmetic can be repeated. Concentration scaling against a scan of factors.
 */
#include "model/agreement.h"
#include "base/philox.h"
#include "model/coverage.h"
#include "model/likelihood.h"
#include "model/scaling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/golden/agreement.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance * fmax(1, fabs(expected))))
        fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
}

/* Three answers; two after the second of them; four after the second of these. */
static struct schema tree(void)
{
    struct schema schema = {.questions = 3, .answers = 9};
    schema.question[0] = (struct question){.first = 0, .count = 3, .parent = -1};
    schema.question[1] = (struct question){.first = 3, .count = 2, .parent = 1};
    schema.question[2] = (struct question){.first = 5, .count = 4, .parent = 4};
    for (int q = 0; q < 3; q++)
        for (int a = 0; a < schema.question[q].count; a++)
            schema.answer[schema.question[q].first + a].question = q;
    return schema;
}

/* --- agreement ---------------------------------------------------------------------------------------------------- */

static void assert_scores(const struct confusion *confusion, int answers, const double *expected)
{
    struct agreement_scores scores = agreement_scores(confusion, answers);
    assert_int_equal(scores.galaxies, (uint64_t)expected[0]);
    assert_near(scores.accuracy, expected[1], 1e-12);
    assert_near(scores.precision, expected[2], 1e-12);
    assert_near(scores.recall, expected[3], 1e-12);
    assert_near(scores.f1, expected[4], 1e-12);
}

static void agrees_with_scikit_learn(void **state)
{
    (void)state;
    struct schema schema = tree();
    static struct agreement agreement;
    for (int g = 0; g < GALAXIES; g++)
        agreement_add(&agreement, &schema, golden_fraction[g], golden_votes[g]);
    for (int q = 0; q < 3; q++) {
        int first = schema.question[q].first, count = schema.question[q].count;
        assert_scores(&agreement.all[q], count, golden_question[q].all);
        assert_scores(&agreement.confident[q], count, golden_question[q].confident);
        for (int label = 0; label < count; label++)
            for (int prediction = 0; prediction < count; prediction++)
                assert_int_equal(agreement.all[q].galaxies[label][prediction],
                                 golden_question[q].confusion[label * count + prediction]);
        for (int a = 0; a < count; a++) {
            assert_near(agreement_mae(&agreement, &schema, first + a), golden_question[q].mae[a], 1e-6);
            assert_near(agreement_rmse(&agreement, &schema, first + a), golden_question[q].rmse[a], 1e-6);
        }
    }
}

/* Confusion matrices of published networks and the accuracies printed beside them. */
static void repeats_published_accuracies(void **state)
{
    (void)state;
    static const struct {
        int answers;
        uint64_t galaxies[4][4];
        double accuracy;
    } published[] = {
        {2, {{490, 66}, {99, 1845}},                                                                    0.934 }, /* W+20, smooth */
        {2, {{1858, 81}, {189, 372}},                                                                   0.892 }, /* W+20, bar    */
        {3, {{27411, 2183, 159}, {2365, 10356, 95}, {329, 54, 321}},                                    0.8802},
        {4, {{36093, 133, 230, 785}, {2145, 159, 123, 159}, {441, 31, 287, 155}, {1327, 14, 39, 1152}}, 0.8710},
    };
    for (size_t i = 0; i < COUNT(published); i++) {
        static struct confusion confusion;
        confusion = (struct confusion){0};
        for (int label = 0; label < published[i].answers; label++)
            memcpy(confusion.galaxies[label], published[i].galaxies[label], sizeof published[i].galaxies[label]);
        assert_near(agreement_scores(&confusion, published[i].answers).accuracy, published[i].accuracy, 5e-5);
    }
}

static void nothing_to_compare_is_no_number(void **state)
{
    (void)state;
    struct schema schema = tree();
    static struct agreement agreement;
    const float fraction[9] = {1, 0, 0, 1, 0, 1, 0, 0, 0};
    const uint16_t votes[9] = {0};
    agreement_add(&agreement, &schema, fraction, votes);
    struct agreement_scores scores = agreement_scores(&agreement.all[0], 3);
    assert_true(scores.galaxies == 0 && isnan(scores.accuracy) && isnan(scores.f1));
    assert_true(isnan(agreement_mae(&agreement, &schema, 0)) && isnan(agreement_rmse(&agreement, &schema, 8)));
    static struct coverage coverage;
    coverage_add(&coverage, (double[]){1}, (double[]){2}, 1, 0, 0);
    coverage_add(&coverage, (double[]){1}, (double[]){2}, 1, 0, COVERAGE_N_MAX + 1);
    assert_true(coverage.galaxies == 0 && coverage.left_out == 1 && isnan(coverage_calibration_error(&coverage)));
    assert_true(isnan(coverage_error(&coverage.votes[COVERAGE_OURS][0])));
    struct equivalent equivalent = {0};
    equivalent_add(&equivalent, 0.5, 3, EQUIVALENT_VOTES_MIN - 1);
    assert_true(isnan(equivalent_volunteers(&equivalent)));
}

/* --- coverage ----------------------------------------------------------------------------------------------------- */

static void agrees_with_scipy(void **state)
{
    (void)state;
    static const int steps_votes[] = {0, 1, 5, 40}, steps_fraction[] = {0, 2, 10, 50};
    static struct coverage all;
    uint64_t intervals = 0;
    for (size_t i = 0; i < COUNT(golden_counts); i++) {
        double probability[COVERAGE_N_MAX + 1];
        static struct coverage one;
        one = (struct coverage){0};
        int n = golden_counts[i].votes, k = golden_counts[i].k;
        for (int kind = 0; kind < COVERAGE_KINDS; kind++) {
            coverage_probability((enum coverage_kind)kind, golden_counts[i].alpha, golden_counts[i].sum, 3, n,
                                 probability);
            for (int at = 0; at <= n; at++)
                assert_near(probability[at],
                            kind == COVERAGE_OURS ? golden_counts[i].ours[at] : golden_counts[i].binomial[at], 1e-12);
        }
        coverage_add(&one, golden_counts[i].alpha, golden_counts[i].sum, 3, k, n);
        for (int kind = 0; kind < COVERAGE_KINDS; kind++)
            for (int e = 0; e < 4; e++) {
                const struct coverage_sums *votes = &one.votes[kind][steps_votes[e]],
                                           *fraction = &one.fraction[kind][steps_fraction[e]];
                assert_near(votes->predicted, golden_counts[i].within_votes[kind * 4 + e], 1e-12);
                assert_true(votes->observed == golden_counts[i].inside_votes[kind * 4 + e]);
                assert_near(fraction->predicted, golden_counts[i].within_fraction[kind * 4 + e], 1e-12);
                assert_true(fraction->observed == golden_counts[i].inside_fraction[kind * 4 + e]);
            }
        coverage_merge(&all, &one);
        for (int bin = 0; bin < COVERAGE_BINS; bin++) {
            intervals += one.intervals[0][bin] + one.intervals[1][bin];
            assert_true(n < COVERAGE_VOTES_MANY ? one.intervals[1][bin] == 0 : one.intervals[0][bin] == 0);
        }
    }
    assert_int_equal(all.galaxies, COUNT(golden_counts));
    for (int bin = 0; bin < COVERAGE_BINS; bin++)
        intervals -= all.intervals[0][bin] + all.intervals[1][bin];
    assert_int_equal(intervals, 0);
}

/* Rows of W+20's table of coverage by votes: predicted, observed, relative error. */
static void repeats_published_coverage(void **state)
{
    (void)state;
    static const double rows[][3] = {
        {322.7,  284,  0.136},
        {2259.4, 2070, 0.091},
        {543.6,  344,  0.580},
        {2488.1, 2418, 0.029}
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_near(coverage_error(&(struct coverage_sums){rows[i][0], rows[i][1]}), rows[i][2], 5e-4);
}

/* One count of a beta-binomial, by its cumulated probabilities. */
static int draw(double alpha, double sum, int votes, uint32_t galaxy, uint32_t number)
{
    double probability[41], u = (double)philox_uniform(philox(12, galaxy, number, 0, 0).word[0]);
    int k = 0;
    if (!votes)
        return 0;
    coverage_probability(COVERAGE_OURS, &alpha, &sum, 1, votes, probability);
    for (double below = probability[0]; below < u && k < votes; below += probability[++k])
        continue;
    return k;
}

/* Galaxies drawn from what is predicted are covered as often as predicted; drawn from something wider, less often. */
static double credible_error(double truth_factor, uint32_t seed)
{
    static struct coverage coverage;
    coverage = (struct coverage){0};
    double predicted = 0, observed = 0;
    for (uint32_t g = 0; g < 4000; g++) {
        struct philox drawn = philox(seed, g, 0, 0, 0);
        double alpha = 1 + 20 * (double)philox_uniform(drawn.word[0]),
               sum = alpha + 1 + 20 * (double)philox_uniform(drawn.word[1]);
        int k = draw(alpha * truth_factor, sum * truth_factor, 40, g, seed);
        coverage_add(&coverage, &alpha, &sum, 1, k, 40);
    }
    for (int bin = 0; bin < COVERAGE_BINS; bin++) {
        predicted += coverage.credible[1][bin].predicted;
        observed += coverage.credible[1][bin].observed;
    }
    return (predicted - observed) / observed;
}

static void calibrated_predictions_look_so(void **state)
{
    (void)state;
    assert_true(fabs(credible_error(1, 7)) < 0.02);
    assert_true(credible_error(0.2, 7) > 0.15); /* too certain */
}

static void calibration_error_by_hand(void **state)
{
    (void)state;
    static struct coverage coverage;
    /* One pass that says 0.25: 8 of 20 votes, then 0.75: 15 of 20. |5 - 8| + |15 - 15| over 40 votes. */
    coverage_add(&coverage, (double[]){2.5}, (double[]){10}, 1, 8, 20);
    coverage_add(&coverage, (double[]){7.5}, (double[]){10}, 1, 15, 20);
    assert_near(coverage_calibration_error(&coverage), 3.0 / 40, 1e-12);
}

static void volunteers_against_hypergeometric(void **state)
{
    (void)state;
    struct equivalent all = {0};
    double prediction = 0;
    for (size_t i = 0; i < COUNT(golden_drawn); i++) {
        struct equivalent one = {0};
        equivalent_add(&one, golden_drawn[i].fraction, golden_drawn[i].k, golden_drawn[i].votes);
        equivalent_add(&all, golden_drawn[i].fraction, golden_drawn[i].k, golden_drawn[i].votes);
        for (int n = 1; n <= EQUIVALENT_VOLUNTEERS_MAX; n++)
            assert_near(one.volunteers[n], golden_drawn[i].deviation[n], 1e-10);
        prediction += fabs(golden_drawn[i].fraction - (double)golden_drawn[i].k / golden_drawn[i].votes);
    }
    assert_near(all.prediction, prediction, 1e-12);
    double n = equivalent_volunteers(&all), share = n - floor(n);
    assert_true(n >= 1 && n < EQUIVALENT_VOLUNTEERS_MAX);
    assert_near((1 - share) * all.volunteers[(int)n] + share * all.volunteers[(int)n + 1], prediction, 1e-12);
    all.prediction = 1e9;
    assert_true(equivalent_volunteers(&all) == 0);
    all.prediction = 0;
    assert_true(equivalent_volunteers(&all) == EQUIVALENT_VOLUNTEERS_MAX);
}

/* --- scaling ------------------------------------------------------------------------------------------------------ */

#define PASSES 3
#define ROWS   400

/* Heads that are four times too certain of the first question, right about the second, and never saw votes on the third. */
static void factors_against_a_scan(void **state)
{
    (void)state;
    struct schema schema = tree();
    static float alpha[ROWS][PASSES * 9], scaled[PASSES * 9];
    static uint16_t votes[ROWS][10]; /* a stride of its own */
    for (uint32_t g = 0; g < ROWS; g++) {
        double truth[9];
        for (uint32_t a = 0; a < 9; a++)
            truth[a] = 1 + 8 * (double)philox_uniform(philox(11, g, a, 0, 0).word[0]);
        for (int t = 0; t < PASSES; t++)
            for (int a = 0; a < 9; a++)
                alpha[g][t * 9 + a] = (float)(a < 3 ? 4 * truth[a] : truth[a]);
        votes[g][0] = (uint16_t)draw(truth[0], truth[0] + truth[1] + truth[2], 40, g, 0);
        votes[g][1] = (uint16_t)draw(truth[1], truth[1] + truth[2], 40 - votes[g][0], g, 1);
        votes[g][2] = (uint16_t)(40 - votes[g][0] - votes[g][1]);
        votes[g][3] = (uint16_t)draw(truth[3], truth[3] + truth[4], 40, g, 2);
        votes[g][4] = (uint16_t)(40 - votes[g][3]);
    }
    float factor[3] = {0};
    assert_int_equal(scaling_fit(&schema, alpha[0], PASSES, votes[0], sizeof votes[0], NULL, ROWS, factor), 0);
    assert_true(factor[0] > 0.15f && factor[0] < 0.4f);
    assert_true(factor[1] > 0.7f && factor[1] <= 1);
    assert_true(factor[2] == 1); /* no votes */
    for (int q = 0; q < 2; q++) {
        double best = INFINITY, best_factor = 0;
        for (double at = SCALING_LOWER; at <= 1; at *= 1.01) {
            double loss = 0;
            for (size_t g = 0; g < ROWS; g++) {
                for (int i = 0; i < PASSES * 9; i++)
                    scaled[i] = (float)at * alpha[g][i];
                loss += likelihood_mixture_question(&schema, q, scaled, PASSES, votes[g]);
            }
            best_factor = loss < best ? at : best_factor;
            best = fmin(best, loss);
        }
        assert_near((double)factor[q], best_factor, 0.011);
    }
    uint64_t row[SCALING_GALAXIES_MIN]; /* a row list, and one galaxy too few */
    for (uint64_t i = 0; i < SCALING_GALAXIES_MIN; i++)
        row[i] = i;
    assert_int_equal(
        scaling_fit(&schema, alpha[0], PASSES, votes[0], sizeof votes[0], row, SCALING_GALAXIES_MIN - 1, factor), 0);
    assert_true(factor[0] == 1);
    assert_int_equal(
        scaling_fit(&schema, alpha[0], PASSES, votes[0], sizeof votes[0], row, SCALING_GALAXIES_MIN, factor), 0);
    assert_true(factor[0] < 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_scikit_learn),        cmocka_unit_test(repeats_published_accuracies),
        cmocka_unit_test(nothing_to_compare_is_no_number), cmocka_unit_test(agrees_with_scipy),
        cmocka_unit_test(repeats_published_coverage),      cmocka_unit_test(calibrated_predictions_look_so),
        cmocka_unit_test(calibration_error_by_hand),       cmocka_unit_test(volunteers_against_hypergeometric),
        cmocka_unit_test(factors_against_a_scan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
