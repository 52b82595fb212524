/* Acquisition scores against brute force, closed cases by hand, and each other. */
#include "acquisition/joint.h"
#include "acquisition/score.h"
#include "base/philox.h"
#include "model/dirichlet.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEED    20261124u
#define PASSES  6
#define HEADS   2
#define ANSWERS 7

/* Three answers, then two asked after the second of them, then two always asked. */
static struct schema schema;

static void make_schema(void)
{
    static const struct {
        const char *name;
        int first, count, parent;
    } questions[] = {
        {"smooth-or-featured", 0, 3, -1},
        {"disk-edge-on",       3, 2, 1 },
        {"odd",                5, 2, -1}
    };
    static const char *const answers[ANSWERS] = {"smooth", "featured-or-disk", "artifact", "yes", "no", "yes", "no"};
    schema = (struct schema){.questions = 3, .answers = ANSWERS};
    for (int q = 0; q < 3; q++) {
        schema.question[q].first = questions[q].first;
        schema.question[q].count = questions[q].count;
        schema.question[q].parent = questions[q].parent;
        snprintf(schema.question[q].name, sizeof schema.question[q].name, "%s", questions[q].name);
        for (int a = questions[q].first; a < questions[q].first + questions[q].count; a++) {
            schema.answer[a].question = q;
            snprintf(schema.answer[a].name, sizeof schema.answer[a].name, "%s", answers[a]);
        }
    }
}

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
}

/* alpha [PASSES][ANSWERS] */
static void random_galaxy(uint32_t number, float *alpha)
{
    for (uint32_t i = 0; i < PASSES * ANSWERS; i++)
        alpha[i] = 1 + 60 * powf(philox_uniform(philox(SEED, number, i, 0, 0).word[0]), 2);
}

static double fraction_of(const float *alpha, int pass, int answer)
{
    const struct question *question = &schema.question[schema.answer[answer].question];
    double sum = 0;
    for (int a = question->first; a < question->first + question->count; a++)
        sum += (double)alpha[pass * ANSWERS + a];
    return (double)alpha[pass * ANSWERS + answer] / sum;
}

static double mean_fraction(const float *alpha, int answer)
{
    double mean = 0;
    for (int t = 0; t < PASSES; t++)
        mean += fraction_of(alpha, t, answer) / PASSES;
    return mean;
}

static struct score_rule rule_of(const char *name, const char *questions)
{
    struct score_rule rule = {0};
    assert_int_equal(score_from_name(name, &rule.kind), 0);
    assert_int_equal(score_set_questions(&schema, questions, &rule), 0);
    return rule;
}

static void names(void **state)
{
    (void)state;
    char all[256] = "";
    for (int kind = 0; kind < SCORE_KINDS; kind++) {
        enum score_kind found;
        assert_int_equal(score_from_name(score_name((enum score_kind)kind), &found), 0);
        assert_int_equal(found, kind);
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", kind ? "|" : "",
                 score_name((enum score_kind)kind));
    }
    assert_string_equal(all, SCORE_NAMES);
    enum score_kind found;
    assert_true(score_from_name("bold", &found) < 0);
}

static void questions(void **state)
{
    (void)state;
    struct score_rule rule = rule_of("bald", " odd,smooth-or-featured ");
    assert_true(rule.counts[0] && !rule.counts[1] && rule.counts[2]);
    rule = rule_of("bald", "all");
    assert_true(rule.counts[0] && rule.counts[1] && rule.counts[2]);
    rule = (struct score_rule){0};
    assert_true(score_set_questions(&schema, "bars", &rule) < 0);
    assert_true(score_set_questions(&schema, "", &rule) < 0);
    assert_true(score_set_questions(&schema, " , ", &rule) < 0);
}

/* By hand: R = 1, 0.25, 1; total - expected = 0.3, 0.4, 0.1. */
static void rows(void **state)
{
    (void)state;
    const float row[2 + ANSWERS + 6] = {0,    0,                  /* sums: not looked at */
                                        0.7f, 0.25f, 0.05f,       /* smooth, featured, artifact */
                                        0.9f, 0.1f,  0.5f,  0.5f, /* edge-on, odd */
                                        1,    0.8f,  0.6f,        /* total */
                                        0.7f, 0.4f,  0.5f};       /* expected */
    struct score_rule rule = rule_of("bald", "all");
    assert_near(score_row(&rule, &schema, row), 0.3 + 0.25 * 0.4 + 0.1, 1e-6);
    rule = rule_of("bald-binomial", "disk-edge-on");
    assert_near(score_row(&rule, &schema, row), 0.25 * 0.4, 1e-6);
    rule = rule_of("entropy", "all");
    assert_near(score_row(&rule, &schema, row), 1 + 0.25 * 0.8 + 0.6, 1e-6);
    rule = rule_of("margin", "all");
    assert_near(score_row(&rule, &schema, row), (1 - 0.45) + 0.25 * (1 - 0.8) + 1, 1e-6);
    rule = rule_of("random", "all");
    assert_true(score_row(&rule, &schema, row) == 0);
}

static void variance_of_fractions(void **state)
{
    (void)state;
    float alpha[PASSES * ANSWERS];
    random_galaxy(1, alpha);
    double expected = 0;
    for (int a = 0; a < 3; a++)
        for (int t = 0; t < PASSES; t++)
            expected += pow(fraction_of(alpha, t, a) - mean_fraction(alpha, a), 2) / PASSES;
    for (int t = 0; t < PASSES; t++) /* two answers vary alike */
        expected += 2 * mean_fraction(alpha, 1) * pow(fraction_of(alpha, t, 3) - mean_fraction(alpha, 3), 2) / PASSES;
    struct score_rule rule = rule_of("variance", "smooth-or-featured, disk-edge-on");
    assert_near(score_passes(&rule, &schema, alpha, PASSES, HEADS), expected, 1e-6);
}

static double midpoint(const float *alpha, int first_pass, int passes)
{
    double own[PASSES * 3];
    for (int t = 0; t < passes; t++)
        for (int a = 0; a < 3; a++)
            own[t * 3 + a] = (double)alpha[(first_pass + t) * ANSWERS + a];
    struct dirichlet_bounds bounds = dirichlet_mixture(own, passes, 3);
    return (bounds.lower + bounds.upper) / 2;
}

/* Heads that agree teach nothing however much their passes differ; heads that disagree do. */
static void mixture_of_heads(void **state)
{
    (void)state;
    float alpha[PASSES * ANSWERS];
    random_galaxy(2, alpha);
    struct score_rule rule = rule_of("mixture", "smooth-or-featured");
    double expected =
        midpoint(alpha, 0, PASSES) - (midpoint(alpha, 0, PASSES / 2) + midpoint(alpha, PASSES / 2, PASSES / 2)) / 2;
    assert_true(expected > 0.01);
    assert_near(score_passes(&rule, &schema, alpha, PASSES, HEADS), expected, 1e-9);
    memcpy(alpha + PASSES / 2 * ANSWERS, alpha, sizeof alpha / 2);
    assert_near(score_passes(&rule, &schema, alpha, PASSES, HEADS), 0, 1e-9);
}

/* Brute force over both votes: sum p(y, y*) ln p(y, y*) / (p(y) p(y*)). */
static double shared(const float *own, const float *target, int first, int count)
{
    double information = 0;
    for (int a = first; a < first + count; a++)
        for (int b = first; b < first + count; b++) {
            double joint = 0;
            for (int t = 0; t < PASSES; t++)
                joint += fraction_of(own, t, a) * fraction_of(target, t, b) / PASSES;
            information += joint * log(joint / (mean_fraction(own, a) * mean_fraction(target, b)));
        }
    return information;
}

static void epig_by_brute_force(void **state)
{
    (void)state;
    float own[PASSES * ANSWERS], target[2][PASSES * ANSWERS], fraction[2 * ANSWERS * PASSES], reached[2 * 3];
    struct score_rule rule = rule_of("epig", "all");
    rule.targets = (struct score_targets){.count = 2, .passes = PASSES, .fraction = fraction, .reached = reached};
    random_galaxy(3, own);
    double expected = 0;
    for (int m = 0; m < 2; m++) {
        random_galaxy(4 + (uint32_t)m, target[m]);
        score_set_target(&schema, &rule.targets, m, target[m]);
        expected += (shared(own, target[m], 0, 3) +
                     mean_fraction(own, 1) * mean_fraction(target[m], 1) * shared(own, target[m], 3, 2) +
                     shared(own, target[m], 5, 2)) /
                    2;
    }
    assert_true(expected > 0);
    assert_near(score_passes(&rule, &schema, own, PASSES, HEADS), expected, 1e-6);
    /* What every pass says alike cannot teach about anything. */
    for (int t = 1; t < PASSES; t++)
        memcpy(own + t * ANSWERS, own, ANSWERS * sizeof *own);
    assert_near(score_passes(&rule, &schema, own, PASSES, HEADS), 0, 1e-6);
}

/* P(featured >= 0.2) of Beta(a, 10 - a): above and below 0.8 (scipy.stats.beta.sf: 0.738 for a = 3, 0.914 for a = 4). */
static void featured_as_in_production(void **state)
{
    (void)state;
    float alpha[PASSES * ANSWERS];
    struct score_rule rule = rule_of("featured", "all");
    for (int featured = 3; featured <= 4; featured++) {
        for (int i = 0; i < PASSES * ANSWERS; i++)
            alpha[i] = i % ANSWERS == 1 ? (float)featured : i % ANSWERS == 0 ? 9 - (float)featured : 1;
        assert_true(score_passes(&rule, &schema, alpha, PASSES, HEADS) == (featured == 4));
    }
}

/* --- the joint counts --------------------------------------------------------------------------------------------- */

static double log_probability(const float *alpha, const int *count, int answers)
{
    double sum = 0, votes = 0, log_p = 0;
    for (int a = 0; a < answers; a++) {
        sum += (double)alpha[a];
        votes += count[a];
        log_p += lgamma(count[a] + (double)alpha[a]) - lgamma((double)alpha[a]) - lgamma(count[a] + 1);
    }
    return log_p + lgamma(sum) + lgamma(votes + 1) - lgamma(votes + sum);
}

static void joint_counts_by_brute_force(void **state)
{
    (void)state;
    enum { VOTES = 9, COUNT = 4 };
    float alpha[PASSES * ANSWERS];
    random_galaxy(9, alpha);
    double total = 0, expected = 0, probability = 0;
    long outcomes = 0;
    for (int i = 0; i <= VOTES; i++)
        for (int j = 0; i + j <= VOTES; j++)
            for (int k = 0; i + j + k <= VOTES; k++) {
                int count[COUNT] = {i, j, k, VOTES - i - j - k};
                double mean = 0;
                for (int t = 0; t < PASSES; t++) {
                    double log_p = log_probability(alpha + t * ANSWERS, count, COUNT);
                    mean += exp(log_p) / PASSES;
                    expected -= exp(log_p) * log_p / PASSES;
                }
                total -= mean * log(mean);
                probability += mean;
                outcomes++;
            }
    assert_near(probability, 1, 1e-12);
    assert_int_equal(joint_outcomes(COUNT, VOTES), outcomes);
    struct information joint = joint_information(alpha, ANSWERS, COUNT, PASSES, VOTES);
    assert_near(joint.total, total, 1e-10);
    assert_near(joint.expected, expected, 1e-10);
}

/* Two answers have one marginal: the joint is what the pool-wide scan computes exactly. */
static void joint_of_two_is_the_marginal(void **state)
{
    (void)state;
    float alpha[PASSES * ANSWERS], across[2 * INFORMATION_LANES];
    random_galaxy(10, alpha);
    for (int a = 0; a < 2; a++)
        for (int t = 0; t < INFORMATION_LANES; t++)
            across[a * INFORMATION_LANES + t] = t < PASSES ? alpha[t * ANSWERS + a] : 1;
    struct information joint = joint_information(alpha, ANSWERS, 2, PASSES, 40);
    struct information marginal = information_question(INFORMATION_VOTES, across, 2, PASSES, INFORMATION_LANES, 40);
    assert_near(joint.total, marginal.total, 1e-10);
    assert_near(joint.expected, marginal.expected, 1e-10);
}

static void outcomes_are_counted(void **state)
{
    (void)state;
    assert_int_equal(joint_outcomes(2, 40), 41);
    assert_int_equal(joint_outcomes(3, 40), 861);
    assert_int_equal(joint_outcomes(4, 40), 12341);
    assert_int_equal(joint_outcomes(3, 200), JOINT_OUTCOMES_MAX);
    assert_int_equal(joint_outcomes(6, 40), JOINT_OUTCOMES_MAX + 1);
    assert_int_equal(joint_outcomes(3, 0), 3);
}

int main(void)
{
    make_schema();
    print_message("seed %u\n", SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(questions),
        cmocka_unit_test(rows),
        cmocka_unit_test(variance_of_fractions),
        cmocka_unit_test(mixture_of_heads),
        cmocka_unit_test(epig_by_brute_force),
        cmocka_unit_test(featured_as_in_production),
        cmocka_unit_test(joint_counts_by_brute_force),
        cmocka_unit_test(joint_of_two_is_the_marginal),
        cmocka_unit_test(outcomes_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
