/*
 * How far off the approximations of acquisition/score.h are, on simulated galaxies: heads that disagree, passes that wobble.
 * Each bound that the header states is checked; what it states as measured is printed and must stay near it.
 */
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

#define SEED     20261126u
#define PASSES   30
#define STRIDE   32
#define GALAXIES 300

static double uniform(uint32_t a, uint32_t b, uint32_t c)
{
    return ((double)philox(SEED, a, b, c, 0).word[0] + 0.5) * 0x1p-32;
}

static double normal(uint32_t a, uint32_t b, uint32_t c)
{
    return sqrt(-2 * log(uniform(a, b, c))) * cos(6.283185307179586 * uniform(a, b, c + 5000));
}

/*
 * Concentrations 1 + 100 sigmoid(x) as heads give them: x = a galaxy's own level, plus what each of 5 heads adds, plus what each
 * pass adds. passes [count][answers]
 */
static void make_galaxy(uint32_t galaxy, int answers, int count, float *passes)
{
    double heads = 0.1 + 1.2 * uniform(galaxy, 1, 1), wobble = 0.1 + 0.4 * uniform(galaxy, 2, 1);
    for (uint32_t t = 0; t < (uint32_t)count; t++)
        for (uint32_t a = 0; a < (uint32_t)answers; a++) {
            double x = -2.5 + 1.5 * normal(galaxy, a, 10) + heads * normal(galaxy, a, 20 + t % 5) +
                       wobble * normal(galaxy, a, 100 + t);
            passes[t * (uint32_t)answers + a] = (float)(1 + 100 / (1 + exp(-x)));
        }
}

/* The same with passes contiguous, as the scan has them. */
static void turn(const float *passes, int answers, float *scan)
{
    for (int a = 0; a < answers; a++)
        for (int t = 0; t < STRIDE; t++)
            scan[a * STRIDE + t] = t < PASSES ? passes[t * answers + a] : 1;
}

static double gain(struct information information)
{
    return information.total - information.expected;
}

struct galaxy {
    double exact, approximate;
    int exact_rank, approximate_rank;
};

static struct galaxy galaxies[GALAXIES];

static int by_exact(const void *a, const void *b)
{
    double x = ((const struct galaxy *)a)->exact, y = ((const struct galaxy *)b)->exact;
    return x < y ? -1 : x > y;
}

static int by_approximate(const void *a, const void *b)
{
    double x = ((const struct galaxy *)a)->approximate, y = ((const struct galaxy *)b)->approximate;
    return x < y ? -1 : x > y;
}

/* Spearman's correlation of the ranks. */
static double agreement(void)
{
    double squares = 0, n = GALAXIES;
    qsort(galaxies, GALAXIES, sizeof *galaxies, by_exact);
    for (int i = 0; i < GALAXIES; i++)
        galaxies[i].exact_rank = i;
    qsort(galaxies, GALAXIES, sizeof *galaxies, by_approximate);
    for (int i = 0; i < GALAXIES; i++)
        squares += pow(galaxies[i].exact_rank - i, 2);
    return 1 - 6 * squares / (n * (n * n - 1));
}

static void best_marginal_for_all_counts(void **state)
{
    (void)state;
    static const struct {
        int answers, votes;
    } cases[] = {
        {3, 10},
        {3, 40},
        {4, 10},
        {4, 40},
        {6, 10}
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int answers = cases[k].answers, votes = cases[k].votes;
        double worst = 1, sum_exact = 0, sum = 0;
        for (uint32_t g = 0; g < GALAXIES; g++) {
            float passes[PASSES * 6], scan[6 * STRIDE];
            make_galaxy(g, answers, PASSES, passes);
            turn(passes, answers, scan);
            galaxies[g].exact = gain(joint_information(passes, answers, answers, PASSES, votes));
            galaxies[g].approximate =
                gain(information_question(INFORMATION_VOTES, scan, answers, PASSES, STRIDE, votes));
            assert_true(galaxies[g].approximate <= galaxies[g].exact + 1e-9); /* a bound, always */
            assert_true(galaxies[g].exact <= log(PASSES) + 1e-9);
            double ratio = galaxies[g].approximate / galaxies[g].exact;
            worst = ratio < worst ? ratio : worst;
            sum_exact += galaxies[g].exact;
            sum += galaxies[g].approximate;
        }
        double rank = agreement();
        print_message(
            "best marginal: %d answers, %2d votes: %.3f of the exact information on average, %.3f at worst, ranks "
            "agree to %.3f\n",
            answers, votes, sum / sum_exact, worst, rank);
        assert_true(worst > 0.9 / (answers - 1) && sum / sum_exact > 0.4 && sum / sum_exact < 0.9 && rank > 0.9);
    }
}

static void one_vote_for_many(void **state)
{
    (void)state;
    double sum_one = 0, sum_many = 0;
    for (uint32_t g = 0; g < GALAXIES; g++) {
        float passes[PASSES * 3], scan[3 * STRIDE];
        make_galaxy(g, 3, PASSES, passes);
        turn(passes, 3, scan);
        galaxies[g].exact = gain(joint_information(passes, 3, 3, PASSES, 40));
        galaxies[g].approximate = gain(information_question(INFORMATION_ONE_VOTE, scan, 3, PASSES, STRIDE, 40));
        assert_true(galaxies[g].approximate <= galaxies[g].exact + 1e-9); /* 40 votes tell what one does */
        sum_one += galaxies[g].approximate;
        sum_many += galaxies[g].exact;
    }
    double rank = agreement();
    print_message("one vote: %.3f of what 40 votes tell, ranks agree to %.3f\n", sum_one / sum_many, rank);
    assert_true(sum_one / sum_many < 0.5 && rank > 0.7 && rank < 0.999);
    /* Passes that agree on fractions and differ in concentration: nothing for one vote, something for forty. */
    float scan[2 * STRIDE];
    for (int t = 0; t < STRIDE; t++) {
        scan[t] = t % 2 ? 2 : 50;
        scan[STRIDE + t] = t % 2 ? 2 : 50;
    }
    assert_true(gain(information_question(INFORMATION_ONE_VOTE, scan, 2, PASSES, STRIDE, 40)) < 1e-12);
    assert_true(gain(information_question(INFORMATION_VOTES, scan, 2, PASSES, STRIDE, 40)) > 0.1);
}

/* With T passes in place of many: the shortfall shrinks like 1 / T. */
static void few_passes_for_many(void **state)
{
    (void)state;
    enum { MANY = 480, FEWER = 200 };
    static const int counts[] = {15, 30, 60, 120};
    double sum[4] = {0}, all = 0;
    for (uint32_t g = 0; g < FEWER; g++) {
        static float passes[MANY * 2], scan[2 * MANY];
        make_galaxy(g, 2, MANY, passes);
        for (int k = -1; k < 4; k++) {
            int count = k < 0 ? MANY : counts[k], stride = (count + 15) / 16 * 16;
            for (int a = 0; a < 2; a++)
                for (int t = 0; t < stride; t++)
                    scan[a * stride + t] = t < count ? passes[t * 2 + a] : 1;
            double information = gain(information_question(INFORMATION_VOTES, scan, 2, count, stride, 40));
            all += k < 0 ? information : 0;
            if (k >= 0)
                sum[k] += information;
        }
    }
    for (int k = 0; k < 4; k++)
        print_message("%3d passes: %.4f of the information of %d\n", counts[k], sum[k] / all, MANY);
    double short30 = 1 - sum[1] / all, short15 = 1 - sum[0] / all;
    assert_true(short15 > short30 && short30 > 1 - sum[2] / all && short30 < 0.05);
}

/* Two answers: the entropy of the mixture itself, by the trapezoid rule on 20,000 points. */
static double mixture_entropy(const double *alpha, int count)
{
    enum { POINTS = 20000 };
    double sum = 0;
    for (int i = 1; i < POINTS; i++) {
        double x = (double)i / POINTS, density = 0;
        for (int t = 0; t < count; t++) {
            double a = alpha[2 * t], b = alpha[2 * t + 1];
            density += exp(lgamma(a + b) - lgamma(a) - lgamma(b) + (a - 1) * log(x) + (b - 1) * log1p(-x)) / count;
        }
        sum -= density > 0 ? density * log(density) / POINTS : 0;
    }
    return sum;
}

static void midpoint_of_the_mixture(void **state)
{
    (void)state;
    double worst = 0, mean = 0, mean_gap = 0;
    for (uint32_t g = 0; g < 60; g++) {
        float passes[PASSES * 2];
        double alpha[PASSES * 2];
        make_galaxy(g, 2, PASSES, passes);
        for (int i = 0; i < PASSES * 2; i++)
            alpha[i] = (double)passes[i] + 0.2; /* away from 1, where the trapezoids are coarse */
        struct dirichlet_bounds bounds = dirichlet_mixture(alpha, PASSES, 2);
        double truth = mixture_entropy(alpha, PASSES), error = fabs(0.5 * (bounds.lower + bounds.upper) - truth);
        assert_true(bounds.lower <= truth + 1e-4 && truth <= bounds.upper + 1e-4);
        assert_true(error <= 0.5 * (bounds.upper - bounds.lower) + 1e-4);
        worst = error > worst ? error : worst;
        mean += error / 60;
        mean_gap += (bounds.upper - bounds.lower) / 60;
    }
    print_message("midpoint: off by %.4f nat on average, %.4f at worst; mean gap of the bounds %.4f\n", mean, worst,
                  mean_gap);
    assert_true(mean < 0.1 && mean_gap > 0);
}

/* --- what the ranking does with it -------------------------------------------------------------------------------- */

static struct schema make_schema(void)
{
    struct schema schema = {.questions = 2, .answers = 5};
    static const char *const answers[] = {"smooth", "featured-or-disk", "artifact", "yes", "no"};
    schema.question[0] = (struct question){.name = "smooth-or-featured", .first = 0, .count = 3, .parent = -1};
    schema.question[1] = (struct question){.name = "bar", .first = 3, .count = 2, .parent = 1};
    for (int a = 0; a < 5; a++) {
        schema.answer[a].question = a >= 3;
        snprintf(schema.answer[a].name, sizeof schema.answer[a].name, "%s", answers[a]);
    }
    return schema;
}

static void refining_puts_in_the_joint_information(void **state)
{
    (void)state;
    struct schema schema = make_schema();
    struct score_rule rule = {0};
    float passes[PASSES * 5], row[2 + 5 + 4] = {0};
    make_galaxy(7, 5, PASSES, passes);
    const float before[2 + 5 + 4] = {9, 9, 0.5f, 0.25f, 0.25f, 0.9f, 0.1f, 2, 1.5f, 1.9f, 1.25f};
    assert_int_equal(score_set_questions(&schema, "all", &rule), 0);
    memcpy(row, before, sizeof row);
    double score = score_refine(&rule, &schema, passes, PASSES, 40, 861, row);
    struct information joint = joint_information(passes, 5, 3, PASSES, 40);
    assert_true(fabs((double)row[7] - joint.total) < 1e-6 && fabs((double)row[9] - joint.expected) < 1e-6);
    assert_true(row[8] == before[8] && row[10] == before[10]); /* two answers: exact already */
    assert_true(fabs(score - (gain(joint) + 0.25 * 0.25)) < 1e-6);
    assert_true(fabs((double)row[0] - (joint.total + 0.25 * 1.5)) < 1e-5);
    assert_true(fabs((double)row[1] - (joint.expected + 0.25 * 1.25)) < 1e-5);
    memcpy(row, before, sizeof row);
    score = score_refine(&rule, &schema, passes, PASSES, 40, 860, row); /* one too few: as it was, sums made good */
    assert_true(row[7] == before[7] && fabs(score - (2 - 1.9 + 0.25 * 0.25)) < 1e-6);
    assert_int_equal(score_outcomes_max(400), JOINT_OUTCOMES_MAX);
    assert_int_equal(score_outcomes_max(40000), 1000);
    assert_int_equal(score_outcomes_max(0), JOINT_OUTCOMES_MAX);
    assert_true(score_can_refine(SCORE_BALD) && score_can_refine(SCORE_ENTROPY) && !score_can_refine(SCORE_EPIG) &&
                !score_can_refine(SCORE_BALD_BINOMIAL));
}

static void artifacts_are_known_by_name(void **state)
{
    (void)state;
    struct schema schema = make_schema();
    const float fraction[] = {0.5f, 0.2f, 0.3f, 0.9f, 0.1f};
    assert_true(fabs(score_artifact(&schema, fraction) - 0.3) < 1e-6);
    snprintf(schema.answer[2].name, sizeof schema.answer[2].name, "problem");
    snprintf(schema.answer[3].name, sizeof schema.answer[3].name, "artifact"); /* of a question few are asked */
    assert_true(fabs(score_artifact(&schema, fraction) - 0.3) < 1e-6);
    snprintf(schema.answer[2].name, sizeof schema.answer[2].name, "disk");
    assert_true(score_artifact(&schema, fraction) == 0);
}

int main(void)
{
    print_message("seed %u\n", SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(best_marginal_for_all_counts),
        cmocka_unit_test(one_vote_for_many),
        cmocka_unit_test(few_passes_for_many),
        cmocka_unit_test(midpoint_of_the_mixture),
        cmocka_unit_test(refining_puts_in_the_joint_information),
        cmocka_unit_test(artifacts_are_known_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
