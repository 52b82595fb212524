/*
 * Steps, schedules and losses of training: AdamW against its formula in double precision, schedules against their closed form,
 * every loss against finite differences and hand-computed values. (Against PyTorch: training_golden_test.c.)
 */
#include "base/philox.h"
#include "model/likelihood.h"
#include "model/optimizer.h"
#include "model/target.h"
#include "tests/golden/schedules_golden.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_close(double have, double want, double allowed)
{
    if (!(fabs(have - want) <= allowed))
        fail_msg("%.12g, wanted %.12g within %g", have, want, allowed);
}

static void adamw_by_hand(void **state)
{
    float value[3] = {1, -2, 0.5f}, moment1[3] = {0}, moment2[3] = {0};
    double v[3] = {1, -2, 0.5}, m1[3] = {0}, m2[3] = {0};
    (void)state;
    for (uint64_t step = 1; step <= 5; step++) {
        const float gradient[3] = {0.3f * (float)step, -4, 0};
        const struct adamw adamw = {0.01, 0.1, step, 0.5};
        adamw_update(&adamw, 3, gradient, value, moment1, moment2);
        for (int i = 0; i < 3; i++) {
            double g = (double)gradient[i] * 0.5;
            v[i] -= 0.01 * 0.1 * v[i];
            m1[i] = 0.9 * m1[i] + 0.1 * g;
            m2[i] = 0.999 * m2[i] + 0.001 * g * g;
            v[i] -=
                0.01 * (m1[i] / (1 - pow(0.9, (double)step))) / (sqrt(m2[i] / (1 - pow(0.999, (double)step))) + 1e-8);
            assert_close((double)value[i], v[i], 2e-6);
        }
    }
}

static void norms_and_clipping(void **state)
{
    float values[1000];
    double want = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        values[i] = philox_uniform(philox(1, (uint32_t)i, 0, 0, 0).word[0]) - 0.5f;
        want += (double)values[i] * (double)values[i];
    }
    for (size_t count = 0; count < 1000; count += 333)
        assert_close(optimizer_squares(values, 1000 - count) + optimizer_squares(values + 1000 - count, count), want,
                     1e-4);
    assert_close(optimizer_clip(5, 2), 0.4, 1e-12);
    assert_close(optimizer_clip(1, 2), 1, 0);
    assert_close(optimizer_clip(5, 0), 1, 0);
}

/* The rate itself: a factor of the rate would give 1e-6 at the start. */
static void schedules(void **state)
{
    (void)state;
    assert_close(optimizer_rate(SCHEDULE_CONSTANT, 1e-3, 999, 1000, 0), 1e-3, 0);
    assert_close(optimizer_rate(SCHEDULE_COSINE, 1e-3, 0, 101, 0), 1e-3, 1e-15);
    assert_close(optimizer_rate(SCHEDULE_COSINE, 1e-3, 50, 101, 0), (1e-3 + 1e-5) / 2, 1e-15);
    assert_close(optimizer_rate(SCHEDULE_COSINE, 1e-3, 25, 101, 0), 1e-5 + 0.99e-3 * (sqrt(0.5) + 1) / 2, 1e-15);
    assert_close(optimizer_rate(SCHEDULE_COSINE, 1e-3, 100, 101, 0), 1e-5, 1e-15);
    for (uint64_t step = 0; step < 4; step++) /* warm-up */
        assert_close(optimizer_rate(SCHEDULE_COSINE, 1e-3, step, 101, 4), 1e-3 * (double)(step + 1) / 4, 1e-15);
    assert_close(optimizer_rate(SCHEDULE_COSINE, 1e-3, 4, 101, 4), 1e-3, 1e-15);
    assert_close(optimizer_rate(SCHEDULE_COSINE, 1e-3, 100, 101, 4), 1e-5, 1e-15);
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* PyTorch's own rates, epoch by epoch and step by step. */
static void schedules_of_pytorch(void **state)
{
    struct plateau plateau = {.best = INFINITY};
    double rate = 1e-3;
    (void)state;
    for (size_t e = 0; e < COUNT(golden_losses); e++) {
        rate = optimizer_plateau(&plateau, rate, golden_losses[e]);
        assert_close(rate, golden_plateau[e], 1e-15);
    }
    plateau = (struct plateau){.best = 1};
    for (int e = 0; e < 20; e++) /* a rate below the floor is not raised to it */
        assert_close(optimizer_plateau(&plateau, 1e-7, 2), 1e-7, 0);
    for (size_t step = 0; step < COUNT(golden_cosine); step++) {
        assert_close(optimizer_rate(SCHEDULE_COSINE, 1e-3, step, COUNT(golden_cosine), 0), golden_cosine[step], 1e-14);
        assert_close(optimizer_rate(SCHEDULE_COSINE, 1e-3, step, COUNT(golden_cosine), 5), golden_warm_cosine[step],
                     1e-14);
    }
}

/* --- losses ------------------------------------------------------------------------------------------------------- */

static void check_slopes(const struct target *target, const float *label, double allowed)
{
    float output[TARGET_OUTPUTS_MAX];
    double gradient[TARGET_OUTPUTS_MAX];
    for (int k = 0; k < target->outputs; k++)
        output[k] = 3 * philox_uniform(philox(2, (uint32_t)k, 0, 0, 0).word[0]) - 3;
    target_loss(target, output, label, gradient);
    for (int k = 0; k < target->outputs; k++) {
        float at = output[k], step = 0.0078125f;
        output[k] = at + step;
        double above = target_loss(target, output, label, NULL);
        output[k] = at - step;
        double below = target_loss(target, output, label, NULL);
        output[k] = at;
        assert_close(gradient[k], (above - below) / (2 * (double)step), allowed * (1 + fabs(gradient[k])));
    }
}

static void slopes_by_finite_differences(void **state)
{
    static struct schema schema;
    static const int answers[] = {3, 2}, parent[] = {-1, 1};
    static const float votes[] = {20, 12, 3, 0, 9}, partial[] = {2, 0, 1, 0, 0}, binomial[] = {13, 27};
    static const float class[] = {0, 0, 1, 0}, value[] = {0.3f};
    (void)state;
    small_schema(&schema, 2, answers, parent);
    struct target target = {.kind = TARGET_VOTES, .outputs = 5, .schema = &schema};
    check_slopes(&target, votes, 2e-3);
    check_slopes(&target, partial, 2e-3);
    target = (struct target){.kind = TARGET_BINOMIAL, .outputs = 2};
    check_slopes(&target, binomial, 1e-3);
    target = (struct target){
        .kind = TARGET_CLASSES, .outputs = 4, .class_weight = {1, 1, 2.5f, 1}
    };
    check_slopes(&target, class, 1e-3);
    target = (struct target){.kind = TARGET_VALUES, .outputs = 1};
    check_slopes(&target, value, 1e-3);
}

static void losses_by_hand(void **state)
{
    static struct schema schema;
    static const int answers[] = {3, 2}, parent[] = {-1, 1};
    static const float votes[] = {5, 3, 2, 0, 0}, none[] = {0, 0, 0, 0, 0};
    (void)state;
    small_schema(&schema, 2, answers, parent);
    struct target target = {.kind = TARGET_VOTES, .outputs = 5, .schema = &schema};
    /* alpha = 1 + 100 sigmoid(x) = [10, 5, 1.5]: a known answer of the facts, 3.4598203269810472 */
    float output[5] = {logf(0.09f / 0.91f), logf(0.04f / 0.96f), logf(0.005f / 0.995f), 0, 0}, prediction[5];
    assert_close(target_loss(&target, output, votes, NULL), 3.4598203269810472, 1e-5);
    assert_close(target_question_loss(&target, 0, output, votes), 3.4598203269810472, 1e-5);
    assert_close(target_question_loss(&target, 1, output, votes), 0, 0);
    assert_close(target_loss(&target, output, none, NULL), 0, 0);
    target_predict(&target, output, prediction);
    assert_close((double)prediction[0], 10 / 16.5, 1e-5);
    assert_close((double)prediction[3], 0.5, 1e-6);
    /* softmax(ln 1, ln 3) = [1/4, 3/4] */
    float two[2] = {0, logf(3)}, binomial[2] = {10, 30}, class[2] = {1, 0};
    target = (struct target){.kind = TARGET_BINOMIAL, .outputs = 2};
    assert_close(target_loss(&target, two, binomial, NULL), -(30 * log(0.75) + 10 * log(0.25)), 1e-5);
    target = (struct target){
        .kind = TARGET_CLASSES, .outputs = 2, .class_weight = {2, 1}
    };
    assert_close(target_loss(&target, two, class, NULL), 2 * log(4), 1e-6);
    const float far[2] = {-800, 300}; /* exp(-1100) is no number but 0 */
    double slope[2];
    assert_close(target_loss(&target, far, class, slope), 2 * 1100, 1e-9);
    assert_close(slope[0], -2, 1e-12);
    target = (struct target){.kind = TARGET_VALUES, .outputs = 2};
    assert_close(target_loss(&target, two, class, NULL), (1 + log(3) * log(3)) / 2, 1e-6);
    two[0] = NAN;
    assert_true(isnan(target_loss(&target, two, class, NULL)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(adamw_by_hand),
                                       cmocka_unit_test(norms_and_clipping),
                                       cmocka_unit_test(schedules),
                                       cmocka_unit_test(schedules_of_pytorch),
                                       cmocka_unit_test(slopes_by_finite_differences),
                                       cmocka_unit_test(losses_by_hand)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
