/*
 * Heads: starting values, and fits by each backend against the sequential reference and the promises of head_fit.h: same bits for any
 * thread count and instruction set.
 */
#include "base/error.h"
#include "base/half.h"
#include "cpu/head_kernels.h"
#include "model/likelihood.h"
#include "tests/support/backend_under_test.h"
#include "tests/support/head_pool.h"
#include "tests/support/reference_heads.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int run_fit(int threads, const struct fit_request *request, struct head_set *heads, struct fit_report *report)
{
    struct backend_context *context;
    assert_int_equal(BACKEND_UNDER_TEST->open(threads, 1, &context), 0);
    int result = BACKEND_UNDER_TEST->head_fit(context, request, heads, report);
    BACKEND_UNDER_TEST->close(context);
    return result;
}

static void alpha_is_the_scaled_sigmoid(void **state)
{
    (void)state;
    for (int i = -30000; i <= 30000; i++) {
        double x = i * 1e-3, expected = 1 + 100 / (1 + exp(-(double)(float)x));
        assert_true(fabs((double)head_alpha((float)x) - expected) <= 4e-7 * expected);
    }
    assert_true(head_alpha(-INFINITY) == 1 && head_alpha(INFINITY) == 101 && isnan(head_alpha(NAN)));
    assert_true(head_alpha(0) == 51);
    double slope = ((double)head_alpha(1.01f) - (double)head_alpha(0.99f)) / 0.02;
    assert_true(fabs((double)head_alpha_slope(head_alpha(1)) - slope) < 1e-2);
}

static void limits_are_refused(void **state)
{
    (void)state;
    struct head_set heads;
    assert_int_equal(head_set_new(HEAD_COUNT_MAX + 1, 8, 3, &heads), ERROR_LIMIT);
    assert_int_equal(head_set_new(0, 8, 3, &heads), ERROR_LIMIT);
    assert_int_equal(head_set_new(1, HEAD_INPUTS_MAX + 1, 3, &heads), ERROR_LIMIT);
    assert_int_equal(head_set_new(1, 8, SCHEMA_ANSWERS_MAX + 1, &heads), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "513"));
    head_set_free(&heads);
}

static void standardised_inputs_have_mean_0_and_deviation_1(void **state)
{
    (void)state;
    const uint16_t half_1000 = half_from_float(1000), half_1001 = half_from_float(1001), infinite = 0x7c00;
    /* columns: large mean and small spread; constant; one broken value; rows used are 0, 2, 3 */
    const uint16_t embedding[4][3] = {
        {half_1000, 0x3c00,   0x3c00  },
        {infinite,  infinite, infinite},
        {half_1001, 0x3c00,   infinite},
        {half_1000, 0x3c00,   0x4200  }
    };
    const uint64_t row[3] = {0, 2, 3};
    struct head_set heads;
    assert_int_equal(head_set_new(1, 3, 2, &heads), 0);
    head_set_standardise(&heads, embedding[0], sizeof embedding[0], row, 3);
    assert_true(fabs((double)heads.shift[0] - 1000 - 1 / 3.0) < 1e-4);
    assert_true(fabs((double)heads.scale[0] - 1 / sqrt(2 / 9.0)) < 1e-5);
    assert_true(heads.shift[1] == 1 && heads.scale[1] == 1);
    assert_true(heads.shift[2] == 2 && heads.scale[2] == 1); /* 1 and 3 */
    head_set_free(&heads);
}

static void reset_heads_predict_the_constant(void **state)
{
    (void)state;
    const float constant[3] = {1.001f, 37.5f, 100.9f};
    const uint16_t embedding[2] = {0x4400, 0xc400};
    float alpha[3];
    struct head_set heads, copy;
    assert_int_equal(head_set_new(2, 2, 3, &heads), 0);
    heads.step = 17;
    heads.weight[3] = heads.moment1[2] = heads.moment2[17] = 5;
    head_set_reset(&heads, constant);
    for (int head = 0; head < 2; head++) {
        head_concentrations(&heads, head, embedding, alpha);
        for (int a = 0; a < 3; a++)
            assert_true(fabsf(alpha[a] - constant[a]) < 1e-4f * constant[a]);
    }
    assert_true(heads.step == 0 && heads.moment1[2] == 0 && heads.moment2[17] == 0);
    heads.model = 9;
    heads.dropout = 0.5f;
    assert_int_equal(head_set_copy(&heads, &copy), 0);
    assert_same_heads(&heads, &copy);
    assert_true(copy.model == 9 && copy.dropout == 0.5f && copy.bias != heads.bias);
    head_set_free(&heads);
    head_set_free(&copy);
}

static void shrunk_heads_lie_between_themselves_and_the_constant(void **state)
{
    (void)state;
    const float constant[2] = {26, 51}; /* inputs of alpha(): -ln 3 and 0 */
    struct head_set heads;
    assert_int_equal(head_set_new(2, 3, 2, &heads), 0);
    for (int i = 0; i < 2 * 2 * 3; i++)
        heads.weight[i] = (float)i;
    for (int i = 0; i < 4; i++)
        heads.bias[i] = 2;
    heads.moment1[1] = heads.moment2[7] = 3;
    heads.step = 5;
    head_set_shrink(&heads, constant, 1);
    assert_true(heads.weight[11] == 11 && heads.bias[3] == 2 && heads.moment2[7] == 3 && heads.step == 5);
    head_set_shrink(&heads, constant, 0.25f);
    for (int i = 0; i < 2 * 2 * 3; i++)
        assert_true(heads.weight[i] == 0.25f * (float)i);
    for (int i = 0; i < 4; i++)
        assert_true(fabsf(heads.bias[i] - (i % 2 ? 0.5f : 0.5f - 0.75f * 1.0986123f)) < 1e-6f);
    assert_true(heads.moment1[1] == 0 && heads.moment2[7] == 0 && heads.step == 0);
    heads.weight[2] = NAN;
    head_set_shrink(&heads, constant, 0);
    assert_true(heads.weight[2] == 0);
    head_set_free(&heads);
}

static void compare_fits(struct head_pool *pool, int bagging, int unit_length, struct head_set *ret_heads)
{
    struct fit_request request = request_for(pool, 150, 0);
    request.bagging = bagging;
    request.epochs_max = 12; /* without validation rows: 3 epochs */
    struct head_set heads, reference;
    struct fit_report report;
    start_heads(pool, &request, 2, &heads);
    heads.unit_length = unit_length;
    assert_int_equal(head_set_copy(&heads, &reference), 0);
    assert_int_equal(run_fit(1, &request, &heads, &report), 0);
    reference_head_fit(&request, 3, &reference);
    assert_int_equal(report.epochs, 3);
    assert_int_equal(heads.step, 9);
    assert_int_equal(reference.step, 9);
    float moved = 0;
    assert_close(heads.shift, reference.shift, head_set_floats(&heads), 1e-5f);
    for (int i = 0; i < 2 * ANSWERS * INPUTS; i++)
        moved = fmaxf(moved, fabsf(heads.weight[i]));
    assert_true(moved > 0.03f);
    /* The heads have their own masks and orders. */
    assert_true(memcmp(heads.weight, heads.weight + ANSWERS * INPUTS, 64) != 0);
    head_set_free(&reference);
    *ret_heads = heads;
}

static void fit_agrees_with_the_reference(void **state)
{
    struct head_set plain, bagged, unit;
    compare_fits(*state, 0, 0, &plain);
    compare_fits(*state, 1, 0, &bagged);
    compare_fits(*state, 0, 1, &unit);
    assert_true(memcmp(plain.weight, bagged.weight, 64) != 0);
    assert_true(memcmp(plain.weight, unit.weight, 64) != 0);
    head_set_free(&plain);
    head_set_free(&bagged);
    head_set_free(&unit);
}

static double mean_nll(struct head_pool *pool, const struct head_set *heads, size_t from, size_t to)
{
    double sum = 0;
    float alpha[ANSWERS];
    for (int head = 0; head < heads->count; head++)
        for (size_t row = from; row < to; row++) {
            head_concentrations(heads, head, pool->embedding[row], alpha);
            sum += likelihood_galaxy(&pool->schema, alpha, pool->votes[row]);
        }
    return sum / (double)(to - from) / heads->count;
}

static double true_nll(struct head_pool *pool, size_t from, size_t to)
{
    double sum = 0;
    for (size_t row = from; row < to; row++) {
        float alpha[ANSWERS];
        true_concentrations(pool, (int)row, alpha);
        sum += likelihood_galaxy(&pool->schema, alpha, pool->votes[row]);
    }
    return sum / (double)(to - from);
}

static void fit_recovers_known_structure(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request request = request_for(pool, 400, 100);
    struct head_set heads, begin;
    struct fit_report report;
    start_heads(pool, &request, 3, &heads);
    assert_int_equal(head_set_copy(&heads, &begin), 0);
    assert_int_equal(run_fit(2, &request, &heads, &report), 0);
    double constant = mean_nll(pool, &begin, 500, ROWS), fitted = mean_nll(pool, &heads, 500, ROWS);
    double truth = true_nll(pool, 500, ROWS);
    print_message("test NLL: constant %.3f, fitted %.3f, truth %.3f; best epoch %d\n", constant, fitted, truth,
                  report.best_epoch);
    assert_true(constant - fitted > 0.5 * (constant - truth));
    assert_true(report.best_epoch > 0 && (report.epochs == report.best_epoch + 10 || report.epochs == 200));
    /* The weights kept are those of the loss reported. */
    assert_true(fabs(mean_nll(pool, &heads, 400, 500) - (double)report.validation_loss) < 1e-4);
    assert_true(fabs(mean_nll(pool, &heads, 0, 400) - (double)report.train_loss) < 1e-4);
    assert_int_equal(heads.step, (uint64_t)report.best_epoch * 6);
    head_set_free(&heads);
    head_set_free(&begin);
}

/* With what the service switches on by default (and the caller sets in its heads), and views besides. */
static void as_the_service(struct fit_request *request)
{
    request->bagging = 1;
    request->views = VIEWS;
}

static void fit_has_the_same_bits_for_any_thread_count(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request request = request_for(pool, 150, 50);
    request.epochs_max = 6;
    as_the_service(&request);
    struct head_set first, begin;
    struct fit_report first_report;
    heads_of_views(pool, 3, &first);
    first.unit_length = 1;
    assert_int_equal(head_set_copy(&first, &begin), 0);
    assert_int_equal(run_fit(1, &request, &first, &first_report), 0);
    for (int count = 2; count <= 4; count++) {
        struct head_set other;
        struct fit_report report;
        assert_int_equal(head_set_copy(&begin, &other), 0);
        assert_int_equal(run_fit(count, &request, &other, &report), 0);
        assert_same_heads(&first, &other);
        assert_memory_equal(&report, &first_report, sizeof report);
        head_set_free(&other);
    }
    head_set_free(&first);
    head_set_free(&begin);
}

static void fit_goes_on_where_it_stopped(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request once = request_for(pool, 150, 0), twice = once;
    once.epochs_max = 4 * 6;
    twice.epochs_max = 4 * 3;
    struct head_set whole, parts;
    struct fit_report report;
    start_heads(pool, &once, 2, &whole);
    start_heads(pool, &once, 2, &parts);
    assert_int_equal(run_fit(2, &once, &whole, &report), 0);
    assert_int_equal(run_fit(2, &twice, &parts, &report), 0);
    assert_int_equal(run_fit(2, &twice, &parts, &report), 0);
    assert_same_heads(&whole, &parts);
    head_set_free(&whole);
    head_set_free(&parts);
}

/* The trained weights are already best: a learning rate that only does harm must leave them as they are. */
static void fit_never_ends_worse_than_it_began(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request request = request_for(pool, 400, 100);
    struct head_set heads, begin;
    struct fit_report report;
    start_heads(pool, &request, 1, &heads);
    assert_int_equal(run_fit(1, &request, &heads, &report), 0);
    assert_int_equal(head_set_copy(&heads, &begin), 0);
    request.learning_rate = request.bias_rate = 3;
    assert_int_equal(run_fit(1, &request, &heads, &report), 0);
    assert_int_equal(report.best_epoch, 0);
    assert_int_equal(report.epochs, request.patience);
    assert_same_heads(&heads, &begin);
    head_set_free(&heads);
    head_set_free(&begin);
}

static void decay_pulls_weights_and_not_biases(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request request = request_for(pool, 1, 0);
    struct head_set heads;
    struct fit_report report;
    static uint16_t nobody[12];
    start_heads(pool, &request, 1, &heads);
    for (int i = 0; i < ANSWERS * INPUTS; i++)
        heads.weight[i] = 0.5f;
    float bias = heads.bias[2];
    request.votes = nobody; /* no votes, no gradient: only decay is left */
    request.weight_decay = 0.1f;
    request.epochs_max = 4;
    assert_int_equal(run_fit(1, &request, &heads, &report), 0);
    for (int i = 0; i < ANSWERS * INPUTS; i++)
        assert_true(fabsf(heads.weight[i] - 0.5f * (1 - 0.01f * 0.1f)) < 1e-6f);
    assert_true(heads.bias[2] == bias);
    assert_true(report.train_loss == 0);
    head_set_free(&heads);
}

/* The first step of Adam has the size of its rate, whatever the gradient. */
static void weights_and_biases_have_steps_of_their_own(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request request = request_for(pool, 70, 0); /* one batch */
    struct head_set heads, begin;
    struct fit_report report;
    start_heads(pool, &request, 2, &heads);
    for (int i = 0; i < 2 * ANSWERS; i++)
        heads.bias[i] += 0.3f; /* away from the best constant, where their gradients are nothing but rounding */
    assert_int_equal(head_set_copy(&heads, &begin), 0);
    request.epochs_max = 4;
    assert_int_equal(run_fit(1, &request, &heads, &report), 0);
    assert_int_equal(heads.step, 1);
    for (int i = 0; i < 2 * ANSWERS; i++)
        assert_true(fabsf(fabsf(heads.bias[i] - begin.bias[i]) - 0.05f) < 1e-4f);
    for (int i = 0; i < 2 * ANSWERS * INPUTS; i++)
        assert_true(fabsf(fabsf(heads.weight[i]) - 0.01f) < 1e-4f);
    head_set_free(&heads);
    head_set_free(&begin);
}

static void broken_embedding_is_named(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request request = request_for(pool, 150, 50);
    struct head_set heads, begin;
    struct fit_report report;
    start_heads(pool, &request, 2, &heads);
    assert_int_equal(head_set_copy(&heads, &begin), 0);
    for (size_t broken = 123; broken <= 423; broken += 300) { /* in the training rows, in the validation rows */
        uint16_t kept = pool->embedding[broken][7];
        pool->embedding[broken][7] = 0x7c00;
        assert_int_equal(run_fit(2, &request, &heads, &report), ERROR_INPUT);
        assert_int_equal(report.bad_row, broken);
        assert_same_heads(&heads, &begin);
        pool->embedding[broken][7] = kept;
    }
    head_set_free(&heads);
    head_set_free(&begin);
}

static int stop_after_three(void *context)
{
    return ++*(int *)context == 3;
}

static void fit_can_be_cancelled(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request request = request_for(pool, 150, 0);
    int asked = 0;
    request.stop = stop_after_three;
    request.stop_context = &asked;
    struct head_set heads, same;
    struct fit_report report;
    start_heads(pool, &request, 1, &heads);
    assert_int_equal(head_set_copy(&heads, &same), 0);
    assert_int_equal(run_fit(1, &request, &heads, &report), ERROR_CANCELLED);
    assert_int_equal(report.epochs, 3);
    request.stop = NULL;
    request.epochs_max = 12;
    assert_int_equal(run_fit(1, &request, &same, &report), 0);
    assert_same_heads(&heads, &same); /* three whole epochs */
    head_set_free(&heads);
    head_set_free(&same);
}

static void senseless_requests_are_refused(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request good = request_for(pool, 150, 50), bad[8];
    struct head_set heads;
    struct fit_report report;
    start_heads(pool, &good, 1, &heads);
    for (int i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].train_count = 0;
    bad[1].batch = 0;
    bad[2].batch = HEAD_BATCH_MAX + 1;
    bad[3].epochs_max = 0;
    bad[4].learning_rate = NAN;
    bad[5].weight_decay = -1;
    bad[6].bias_rate = 0;
    bad[7].bias_rate = INFINITY;
    for (int i = 0; i < 8; i++)
        assert_int_equal(run_fit(1, &bad[i], &heads, &report), ERROR_INPUT);
    heads.dropout = 1;
    assert_int_equal(run_fit(1, &good, &heads, &report), ERROR_INPUT);
    heads.dropout = 0.2f;
    good.embedding_stride_bytes = (size_t)heads.inputs * 2 - 2; /* rows of another network */
    assert_int_equal(run_fit(1, &good, &heads, &report), ERROR_STATE);
    assert_non_null(strstr(error_message(), "another network"));
    good.embedding_stride_bytes = (size_t)heads.inputs * 4 - 2; /* not two embeddings a row */
    good.views = 2;
    assert_int_equal(run_fit(1, &good, &heads, &report), ERROR_STATE);
    good.views = 0;
    struct schema other;
    small_schema(&other, 1, (int[]){2}, (int[]){-1});
    good.schema = &other;
    assert_int_equal(run_fit(1, &good, &heads, &report), ERROR_STATE);
    head_set_free(&heads);
}

/* Every set of kernels, forced in turn; sets that this processor lacks are skipped. */
static void instruction_sets_agree_bit_for_bit(void **state)
{
    struct head_pool *pool = *state;
    static const char *const names[] = {"portable", "avx2", "avx512"};
    struct fit_request request = request_for(pool, 150, 50);
    request.epochs_max = 3;
    as_the_service(&request);
    struct head_set fitted[3] = {{0}};
    for (int i = 0; i < 3; i++) {
        struct fit_report report;
        if (head_kernels_choose(names[i])) {
            print_message("no %s here\n", names[i]);
            continue;
        }
        assert_string_equal(head_kernels()->name, names[i]);
        heads_of_views(pool, 2, &fitted[i]);
        fitted[i].unit_length = 1;
        assert_int_equal(run_fit(2, &request, &fitted[i], &report), 0);
        assert_same_heads(&fitted[0], &fitted[i]);
    }
    assert_int_equal(head_kernels_choose("abacus"), ERROR_NOT_FOUND);
    assert_int_equal(head_kernels_choose(NULL), 0);
    for (int i = 0; i < 3; i++)
        head_set_free(&fitted[i]);
}

static void fit_looks_at_every_view(void **state)
{
    struct head_pool *pool = *state;
    struct fit_request request = request_for(pool, 150, 0);
    request.epochs_max = 12; /* without validation rows: 3 epochs */
    request.views = VIEWS;
    struct head_set heads, reference;
    struct fit_report report;
    heads_of_views(pool, 2, &heads);
    assert_int_equal(head_set_copy(&heads, &reference), 0);
    assert_int_equal(run_fit(2, &request, &heads, &report), 0);
    reference_head_fit(&request, 3, &reference);
    assert_close(heads.shift, reference.shift, head_set_floats(&heads), 1e-5f);
    head_set_free(&heads);
    head_set_free(&reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alpha_is_the_scaled_sigmoid),
        cmocka_unit_test(limits_are_refused),
        cmocka_unit_test(standardised_inputs_have_mean_0_and_deviation_1),
        cmocka_unit_test(reset_heads_predict_the_constant),
        cmocka_unit_test(shrunk_heads_lie_between_themselves_and_the_constant),
        cmocka_unit_test(fit_agrees_with_the_reference),
        cmocka_unit_test(fit_recovers_known_structure),
        cmocka_unit_test(fit_has_the_same_bits_for_any_thread_count),
        cmocka_unit_test(fit_goes_on_where_it_stopped),
        cmocka_unit_test(fit_never_ends_worse_than_it_began),
        cmocka_unit_test(decay_pulls_weights_and_not_biases),
        cmocka_unit_test(weights_and_biases_have_steps_of_their_own),
        cmocka_unit_test(broken_embedding_is_named),
        cmocka_unit_test(fit_can_be_cancelled),
        cmocka_unit_test(senseless_requests_are_refused),
        cmocka_unit_test(fit_looks_at_every_view),
        cmocka_unit_test(instruction_sets_agree_bit_for_bit),
    };
    return cmocka_run_group_tests(tests, head_pool_set_up, head_pool_tear_down);
}
