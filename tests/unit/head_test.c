/*
 * Heads: starting values, fitting and scoring of each backend against the sequential reference, and the
 * promises of head.h and backend.h: same bits for any thread count, order, split and instruction set.
 */
#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"
#include "cpu/head_kernels.h"
#include "model/likelihood.h"
#include "tests/support/backend_under_test.h"
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

#define SEED    7u
#define INPUTS  45 /* no multiple of anything */
#define STRIDE  96 /* bytes of one embedding row */
#define ANSWERS 9
#define ROWS    700

/*
 * A pool whose vote probabilities are a known function of the embedding: the true concentrations are
 * 1 + 100 sigmoid(W z - 3) with W in the first five inputs.
 */
struct pool {
    struct schema schema;
    uint16_t embedding[ROWS][STRIDE / 2];
    uint16_t votes[ROWS][12];
    uint64_t row[ROWS];
};

static float drawn(uint32_t a, uint32_t b)
{
    float normal[2];
    struct philox words = philox(SEED, a, b, 0, 0);
    philox_normal(words.word[0], words.word[1], normal);
    return normal[0];
}

/* Polya's urn: every vote makes its answer likelier, which is the Dirichlet-multinomial. */
static void draw_votes(struct pool *pool, int row, const float *alpha, int question, int count)
{
    const struct question *asked = &pool->schema.question[question];
    uint16_t *votes = pool->votes[row] + asked->first;
    double sum = 0;
    for (int a = 0; a < asked->count; a++)
        sum += (double)alpha[asked->first + a];
    for (int vote = 0; vote < count; vote++) {
        uint32_t word = philox(SEED, (uint32_t)row, (uint32_t)(question * 1000 + vote), 1, 0).word[0];
        double at = (sum + vote) * (double)philox_uniform(word);
        int a = 0;
        for (; a < asked->count - 1 && at >= (double)alpha[asked->first + a] + votes[a]; a++)
            at -= (double)alpha[asked->first + a] + votes[a];
        votes[a]++;
    }
}

/* What the votes of a row are drawn from. */
static void true_concentrations(const struct pool *pool, int row, float *alpha)
{
    for (int a = 0; a < ANSWERS; a++) {
        float x = -3;
        for (int i = 0; i < 5; i++)
            x += 0.5f * drawn(100000 + (uint32_t)a, (uint32_t)i) * (half_to_float(pool->embedding[row][i]) - 3) * 2;
        alpha[a] = head_alpha(x);
    }
}

static struct pool *new_pool(void)
{
    struct pool *pool = calloc(1, sizeof *pool);
    assert_non_null(pool);
    small_schema(&pool->schema, 3, (int[]){3, 2, 4}, (int[]){-1, 1, 3});
    for (int row = 0; row < ROWS; row++) {
        float alpha[ANSWERS];
        pool->row[row] = (uint64_t)row;
        for (int i = 0; i < INPUTS; i++)
            pool->embedding[row][i] = half_from_float(3 + 0.5f * drawn((uint32_t)row, (uint32_t)i));
        true_concentrations(pool, row, alpha);
        draw_votes(pool, row, alpha, 0, 30);
        draw_votes(pool, row, alpha, 1, pool->votes[row][1]); /* asked after answer 1 */
        draw_votes(pool, row, alpha, 2, pool->votes[row][3]);
    }
    return pool;
}

static struct fit_request request_for(struct pool *pool, size_t train, size_t validation)
{
    return (struct fit_request){.schema = &pool->schema,
                                .embedding = pool->embedding[0],
                                .embedding_stride_bytes = STRIDE,
                                .votes = pool->votes[0],
                                .votes_stride_bytes = sizeof pool->votes[0],
                                .train_row = pool->row,
                                .train_count = train,
                                .validation_row = pool->row + 400,
                                .validation_count = validation,
                                .seed = SEED,
                                .learning_rate = 0.01f,
                                .bias_rate = 0.05f,
                                .weight_decay = 0.01f,
                                .batch = 70, /* one full block of 64 and a ragged one */
                                .epochs_max = 200,
                                .patience = 10};
}

static void start(struct pool *pool, const struct fit_request *request, int count, struct head_set *heads)
{
    float alpha[ANSWERS];
    struct vote_rows rows = {request->votes, request->votes_stride_bytes, request->train_row, request->train_count};
    assert_int_equal(head_set_new(count, INPUTS, ANSWERS, heads), 0);
    heads->dropout = 0.2f;
    heads->model = 3;
    head_set_standardise(heads, request->embedding, request->embedding_stride_bytes, request->train_row,
                         request->train_count);
    assert_int_equal(
        likelihood_constant_fit(&pool->schema, &rows, LIKELIHOOD_START_LOWER, LIKELIHOOD_START_UPPER, alpha), 0);
    head_set_reset(heads, alpha);
}

static struct backend_context *threads(int count)
{
    struct backend_context *context;
    assert_int_equal(BACKEND_UNDER_TEST->open(count, 1, &context), 0);
    return context;
}

static int run_fit(int count, const struct fit_request *request, struct head_set *heads, struct fit_report *report)
{
    struct backend_context *context = threads(count);
    int result = BACKEND_UNDER_TEST->head_fit(context, request, heads, report);
    BACKEND_UNDER_TEST->close(context);
    return result;
}

static int run_score(int count, const struct score_request *request)
{
    struct backend_context *context = threads(count);
    int result = BACKEND_UNDER_TEST->head_score(context, request, NULL, NULL);
    BACKEND_UNDER_TEST->close(context);
    return result;
}

static void assert_same_heads(const struct head_set *a, const struct head_set *b)
{
    assert_memory_equal(a->shift, b->shift, head_set_floats(a) * sizeof(float));
    assert_int_equal(a->step, b->step);
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

static void compare_fits(struct pool *pool, int bagging, int unit_length, struct head_set *ret_heads)
{
    struct fit_request request = request_for(pool, 150, 0);
    request.bagging = bagging;
    request.epochs_max = 12; /* without validation rows: 3 epochs */
    struct head_set heads, reference;
    struct fit_report report;
    start(pool, &request, 2, &heads);
    heads.unit_length = unit_length;
    assert_int_equal(head_set_copy(&heads, &reference), 0);
    assert_int_equal(run_fit(1, &request, &heads, &report), 0);
    reference_head_fit(&request, 3, &reference);
    assert_int_equal(report.epochs, 3);
    assert_int_equal(heads.step, 9);
    assert_int_equal(reference.step, 9);
    float moved = 0;
    for (size_t i = 0; i < head_set_floats(&heads); i++) {
        assert_true(fabsf(heads.shift[i] - reference.shift[i]) <= 1e-5f * fmaxf(1, fabsf(reference.shift[i])));
        moved = fmaxf(moved, fabsf(heads.weight[i % (2 * ANSWERS * INPUTS)]));
    }
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

static double mean_nll(struct pool *pool, const struct head_set *heads, size_t from, size_t to)
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

static double true_nll(struct pool *pool, size_t from, size_t to)
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
    struct pool *pool = *state;
    struct fit_request request = request_for(pool, 400, 100);
    struct head_set heads, begin;
    struct fit_report report;
    start(pool, &request, 3, &heads);
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

#define VIEWS       3
#define VIEW_INPUTS (INPUTS / VIEWS)

/* Heads on a third of each row: the row as three views of a galaxy. */
static void heads_of_views(struct pool *pool, int count, struct head_set *heads)
{
    float alpha[ANSWERS];
    struct vote_rows rows = {pool->votes[0], sizeof pool->votes[0], NULL, 400};
    assert_int_equal(head_set_new(count, VIEW_INPUTS, ANSWERS, heads), 0);
    heads->dropout = 0.2f;
    heads->model = 3;
    head_set_standardise(heads, pool->embedding[0], STRIDE, NULL, 400);
    assert_int_equal(
        likelihood_constant_fit(&pool->schema, &rows, LIKELIHOOD_START_LOWER, LIKELIHOOD_START_UPPER, alpha), 0);
    head_set_reset(heads, alpha);
    for (int i = 0; i < count * ANSWERS * VIEW_INPUTS; i++)
        heads->weight[i] = 0.3f * drawn(600000, (uint32_t)i);
}

/* With what the service switches on by default (and the caller sets in its heads), and views besides. */
static void as_the_service(struct fit_request *request)
{
    request->bagging = 1;
    request->views = VIEWS;
}

static void fit_has_the_same_bits_for_any_thread_count(void **state)
{
    struct pool *pool = *state;
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
    struct pool *pool = *state;
    struct fit_request once = request_for(pool, 150, 0), twice = once;
    once.epochs_max = 4 * 6;
    twice.epochs_max = 4 * 3;
    struct head_set whole, parts;
    struct fit_report report;
    start(pool, &once, 2, &whole);
    start(pool, &once, 2, &parts);
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
    struct pool *pool = *state;
    struct fit_request request = request_for(pool, 400, 100);
    struct head_set heads, begin;
    struct fit_report report;
    start(pool, &request, 1, &heads);
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
    struct pool *pool = *state;
    struct fit_request request = request_for(pool, 1, 0);
    struct head_set heads;
    struct fit_report report;
    static uint16_t nobody[12];
    start(pool, &request, 1, &heads);
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
    struct pool *pool = *state;
    struct fit_request request = request_for(pool, 70, 0); /* one batch */
    struct head_set heads, begin;
    struct fit_report report;
    start(pool, &request, 2, &heads);
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
    struct pool *pool = *state;
    struct fit_request request = request_for(pool, 150, 50);
    struct head_set heads, begin;
    struct fit_report report;
    start(pool, &request, 2, &heads);
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
    struct pool *pool = *state;
    struct fit_request request = request_for(pool, 150, 0);
    int asked = 0;
    request.stop = stop_after_three;
    request.stop_context = &asked;
    struct head_set heads, same;
    struct fit_report report;
    start(pool, &request, 1, &heads);
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
    struct pool *pool = *state;
    struct fit_request good = request_for(pool, 150, 50), bad[8];
    struct head_set heads;
    struct fit_report report;
    start(pool, &good, 1, &heads);
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
    struct schema other;
    small_schema(&other, 1, (int[]){2}, (int[]){-1});
    good.schema = &other;
    assert_int_equal(run_fit(1, &good, &heads, &report), ERROR_STATE);
    head_set_free(&heads);
}

/* Heads with weights that matter, without training. */
static void random_heads(struct pool *pool, int count, struct head_set *heads)
{
    struct fit_request request = request_for(pool, 400, 0);
    start(pool, &request, count, heads);
    for (int i = 0; i < count * ANSWERS * INPUTS; i++)
        heads->weight[i] = 0.3f * drawn(500000, (uint32_t)i);
}

static uint16_t votes_due[ROWS];

static struct score_request score_for(struct pool *pool, const struct head_set *heads, enum reducer reducer,
                                      size_t count)
{
    for (int i = 0; i < ROWS; i++)
        votes_due[i] = (uint16_t)(i % 3 == 0 ? 40 : i % 60);
    struct score_request request = {.heads = heads,
                                    .schema = &pool->schema,
                                    .embedding = pool->embedding[0],
                                    .embedding_stride_bytes = STRIDE,
                                    .count = count,
                                    .passes = 30,
                                    .seed = SEED,
                                    .kind = INFORMATION_VOTES,
                                    .votes_due = votes_due,
                                    .reducer = reducer};
    size_t row = reducer == REDUCE_DUMP ? 30 * ANSWERS : (size_t)information_row_floats(&pool->schema);
    request.output = calloc(count * row, sizeof(float));
    assert_non_null(request.output);
    return request;
}

static void assert_close(const float *value, const float *expected, size_t count, float tolerance)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(value[i] - expected[i]) <= tolerance * fmaxf(1, fabsf(expected[i]))))
            fail_msg("value %zu: %.9g is not %.9g", i, (double)value[i], (double)expected[i]);
}

static void scores_agree_with_the_reference(void **state)
{
    struct pool *pool = *state;
    struct head_set heads;
    random_heads(pool, 5, &heads);
    heads.factor[1] = 0.03f; /* concentrations of the second question fall below 1 */
    size_t count = 70, dump = count * 30 * ANSWERS, row = (size_t)information_row_floats(&pool->schema);
    struct score_request one, other;
    for (heads.unit_length = 1; heads.unit_length >= 0; heads.unit_length--) {
        one = other = score_for(pool, &heads, REDUCE_DUMP, count);
        other.output = calloc(dump, sizeof(float));
        assert_int_equal(run_score(2, &one), 0);
        reference_head_score(&other);
        assert_close(one.output, other.output, dump, 1e-5f);
        free(one.output);
        free(other.output);
    }
    heads.unit_length = 0;
    for (int kind = INFORMATION_VOTES; kind <= INFORMATION_BINOMIAL; kind++) {
        one = other = score_for(pool, &heads, REDUCE_INFORMATION, count);
        other.output = calloc(count * row, sizeof(float));
        one.kind = other.kind = (enum information_kind)kind;
        assert_int_equal(run_score(2, &one), 0);
        reference_head_score(&other);
        assert_close(one.output, other.output, count * row, 1e-5f);
        assert_true(one.output[0] > one.output[1] && one.output[1] > 0);
        free(one.output);
        free(other.output);
    }
    head_set_free(&heads);
}

/* However passes are spread over heads, and however much their masks have in common. */
static void every_pass_has_its_own_mask(void **state)
{
    struct pool *pool = *state;
    static const struct {
        int heads, passes;
        float dropout;
    } cases[] = {
        {1, 30, 0.2f },
        {1, 1,  0.2f },
        {2, 26, 0.5f },
        {4, 28, 0.9f },
        {3, 15, 0.01f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct head_set heads;
        random_heads(pool, cases[i].heads, &heads);
        heads.dropout = cases[i].dropout;
        struct score_request one = score_for(pool, &heads, REDUCE_DUMP, 70), reference = one;
        one.passes = reference.passes = cases[i].passes;
        reference.output = calloc(70 * 30 * ANSWERS, sizeof(float));
        assert_int_equal(run_score(2, &one), 0);
        reference_head_score(&reference);
        assert_close(one.output, reference.output, 70 * (size_t)cases[i].passes * ANSWERS, 1e-5f);
        free(one.output);
        free(reference.output);
        head_set_free(&heads);
    }
}

static void scores_have_the_same_bits_for_any_threads_order_and_split(void **state)
{
    struct pool *pool = *state;
    struct head_set heads;
    heads_of_views(pool, 5, &heads);
    heads.unit_length = 1;
    size_t row = (size_t)information_row_floats(&pool->schema), bytes = row * sizeof(float);
    struct score_request whole = score_for(pool, &heads, REDUCE_INFORMATION, ROWS), other;
    whole.views = VIEWS;
    other = whole;
    other.output = calloc(ROWS, bytes);
    assert_int_equal(run_score(1, &whole), 0);
    for (int count = 2; count <= 3; count++) {
        memset(other.output, 0, ROWS * bytes);
        assert_int_equal(run_score(count, &other), 0);
        assert_memory_equal(whole.output, other.output, ROWS * bytes);
    }
    uint64_t permuted[ROWS];
    uint16_t permuted_due[ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        permuted[i] = i * 37 % ROWS; /* 37 and 700 have no common divisor */
        permuted_due[i] = votes_due[permuted[i]];
    }
    other.row = permuted;
    other.votes_due = permuted_due;
    assert_int_equal(run_score(2, &other), 0);
    for (size_t i = 0; i < ROWS; i++)
        assert_memory_equal(other.output + i * row, whole.output + permuted[i] * row, bytes);
    const size_t cut[] = {0, 1, 64, 129, 133, ROWS};
    memset(other.output, 0, ROWS * bytes);
    float *output = other.output;
    for (size_t i = 0; i + 1 < sizeof cut / sizeof *cut; i++) {
        other.count = cut[i + 1] - cut[i];
        other.row = pool->row + cut[i];
        other.votes_due = votes_due + cut[i];
        other.output = output + cut[i] * row;
        assert_int_equal(run_score(2, &other), 0);
    }
    assert_memory_equal(whole.output, output, ROWS * bytes);
    free(whole.output);
    free(output);
    head_set_free(&heads);
}

/* Every set of kernels, forced in turn: the same bits out of fit and score. Sets this processor lacks are
 * skipped. */
static void instruction_sets_agree_bit_for_bit(void **state)
{
    struct pool *pool = *state;
    static const char *const names[] = {"portable", "avx2", "avx512"};
    struct fit_request request = request_for(pool, 150, 50);
    request.epochs_max = 3;
    as_the_service(&request);
    struct head_set fitted[3] = {{0}};
    float *scores[3] = {0};
    size_t bytes = ROWS * (size_t)information_row_floats(&pool->schema) * sizeof(float);
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
        struct score_request score = score_for(pool, &fitted[i], REDUCE_INFORMATION, ROWS);
        score.views = VIEWS;
        assert_int_equal(run_score(2, &score), 0);
        scores[i] = score.output;
        assert_same_heads(&fitted[0], &fitted[i]);
        assert_memory_equal(scores[0], scores[i], bytes);
    }
    assert_int_equal(head_kernels_choose("abacus"), ERROR_NOT_FOUND);
    assert_int_equal(head_kernels_choose(NULL), 0);
    for (int i = 0; i < 3; i++) {
        free(scores[i]);
        head_set_free(&fitted[i]);
    }
}

/* Without dropout every pass is the deterministic prediction, and there is nothing to learn from votes. */
static void without_dropout_there_is_no_information(void **state)
{
    struct pool *pool = *state;
    struct head_set heads;
    random_heads(pool, 1, &heads);
    heads.dropout = 0;
    struct score_request dump = score_for(pool, &heads, REDUCE_DUMP, 5),
                         information = score_for(pool, &heads, REDUCE_INFORMATION, 5);
    assert_int_equal(run_score(1, &dump), 0);
    assert_int_equal(run_score(1, &information), 0);
    size_t row = (size_t)information_row_floats(&pool->schema);
    for (size_t g = 0; g < 5; g++) {
        float alpha[ANSWERS];
        head_concentrations(&heads, 0, pool->embedding[g], alpha);
        for (int t = 0; t < 30; t++)
            assert_close(dump.output + (g * 30 + (size_t)t) * ANSWERS, alpha, ANSWERS, 1e-5f);
        assert_true(information.output[g * row] - information.output[g * row + 1] < 1e-6f);
        float sum = information.output[g * row + 2] + information.output[g * row + 3] + information.output[g * row + 4];
        assert_true(fabsf(sum - 1) < 1e-6f); /* fractions of the first question */
    }
    free(dump.output);
    free(information.output);
    head_set_free(&heads);
}

static void a_broken_row_is_not_a_number_and_alone(void **state)
{
    struct pool *pool = *state;
    struct head_set heads;
    random_heads(pool, 5, &heads);
    size_t row = (size_t)information_row_floats(&pool->schema);
    struct score_request good = score_for(pool, &heads, REDUCE_INFORMATION, 70), bad = good;
    bad.output = calloc(70 * row, sizeof(float));
    assert_int_equal(run_score(2, &good), 0);
    uint16_t kept = pool->embedding[33][44];
    pool->embedding[33][44] = 0x7e00;
    assert_int_equal(run_score(2, &bad), 0);
    pool->embedding[33][44] = kept;
    for (size_t i = 0; i < row; i++)
        assert_true(isnan(bad.output[33 * row + i]));
    assert_memory_equal(good.output, bad.output, 33 * row * sizeof(float));
    assert_memory_equal(good.output + 34 * row, bad.output + 34 * row, 36 * row * sizeof(float));
    free(good.output);
    free(bad.output);
    head_set_free(&heads);
}

/* One input that nine passes of ten drop: those know nothing of the galaxy, broken or not, and must not say that they do. */
static void every_pass_of_a_broken_row_is_not_a_number(void **state)
{
    struct pool *pool = *state;
    struct head_set heads;
    assert_int_equal(head_set_new(5, 1, ANSWERS, &heads), 0);
    heads.dropout = 0.9f;
    for (int i = 0; i < 5 * ANSWERS; i++)
        heads.weight[i] = 1;
    struct score_request request = score_for(pool, &heads, REDUCE_DUMP, 70);
    uint16_t kept = pool->embedding[33][0];
    pool->embedding[33][0] = 0x7e00;
    assert_int_equal(run_score(2, &request), 0);
    pool->embedding[33][0] = kept;
    size_t dumped = 30 * ANSWERS;
    for (size_t i = 0; i < 70 * dumped; i++)
        assert_int_equal(isnan(request.output[i]), i / dumped == 33);
    free(request.output);
    head_set_free(&heads);
}

static int stop_now(void *context)
{
    (void)context;
    return 1;
}

static void score_refuses_what_it_cannot_do(void **state)
{
    struct pool *pool = *state;
    struct head_set heads;
    random_heads(pool, 5, &heads);
    struct score_request request = score_for(pool, &heads, REDUCE_INFORMATION, 10);
    struct backend_context *context = threads(2);
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, stop_now, NULL), ERROR_CANCELLED);
    request.passes = 31; /* not a multiple of five heads */
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), ERROR_INPUT);
    request.passes = INFORMATION_PASSES_MAX / 5 * 5 + 5;
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), ERROR_INPUT);
    struct head_set large;
    struct schema wide;
    int answers[32], parent[32];
    for (int q = 0; q < 32; q++) {
        answers[q] = 16;
        parent[q] = -1;
    }
    small_schema(&wide, 32, answers, parent);
    assert_int_equal(head_set_new(1, 4096, 512, &large), 0);
    request.heads = &large;
    request.passes = 512;
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL),
                     ERROR_STATE); /* not the schema's answers */
    request.schema = &wide;
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "MiB of masked weights"));
#ifndef TEST_BACKEND_CUDA /* which takes as many galaxies at a time as fit */
    struct head_set viewed;
    assert_int_equal(head_set_new(1, 4096, ANSWERS, &viewed), 0);
    request.heads = &viewed;
    request.schema = &pool->schema;
    request.views = request.passes;
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "MiB in each thread"));
    head_set_free(&viewed);
#endif
    BACKEND_UNDER_TEST->close(context);
    free(request.output);
    head_set_free(&large);
    head_set_free(&heads);
}

/* Pass t of a galaxy with views is pass t of a galaxy that has view t % VIEWS only, summed in another order. */
static void passes_take_turns_at_the_views(void **state)
{
    struct pool *pool = *state;
    struct head_set heads;
    heads_of_views(pool, 5, &heads);
    size_t count = 70, floats = count * 30 * ANSWERS;
    struct score_request views = score_for(pool, &heads, REDUCE_DUMP, count), reference = views;
    views.views = reference.views = VIEWS;
    reference.output = calloc(floats, sizeof(float));
    assert_int_equal(run_score(2, &views), 0);
    reference_head_score(&reference);
    assert_close(views.output, reference.output, floats, 1e-5f);
    for (int view = 0; view < VIEWS; view++) {
        struct score_request alone = views;
        alone.views = 0;
        alone.embedding = pool->embedding[0] + view * VIEW_INPUTS;
        alone.output = reference.output;
        assert_int_equal(run_score(1, &alone), 0);
        for (size_t g = 0; g < count; g++)
            for (size_t t = (size_t)view; t < 30; t += VIEWS)
                assert_close(views.output + (g * 30 + t) * ANSWERS, alone.output + (g * 30 + t) * ANSWERS, ANSWERS,
                             1e-5f);
    }
    views.passes = 25; /* five heads, but no multiple of three views */
    assert_int_equal(run_score(1, &views), ERROR_INPUT);
    free(views.output);
    free(reference.output);
    head_set_free(&heads);
}

/* Views that disagree are information, even for one head without dropout. */
static void views_that_disagree_are_information(void **state)
{
    struct pool *pool = *state;
    struct head_set heads;
    heads_of_views(pool, 1, &heads);
    heads.dropout = 0;
    size_t count = 40, row = (size_t)information_row_floats(&pool->schema);
    struct score_request one = score_for(pool, &heads, REDUCE_INFORMATION, count), reference = one;
    one.views = reference.views = VIEWS;
    reference.output = calloc(count * row, sizeof(float));
    assert_int_equal(run_score(2, &one), 0);
    reference_head_score(&reference);
    assert_close(one.output, reference.output, count * row, 1e-5f);
    for (size_t g = 0; g < count; g++)
        assert_true(one.output[g * row] > one.output[g * row + 1] + 1e-4f);
    free(one.output);
    free(reference.output);
    head_set_free(&heads);
}

static void fit_looks_at_every_view(void **state)
{
    struct pool *pool = *state;
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

static int setup(void **state)
{
    *state = new_pool();
    print_message("seed %u\n", SEED);
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
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
        cmocka_unit_test(scores_agree_with_the_reference),
        cmocka_unit_test(every_pass_has_its_own_mask),
        cmocka_unit_test(scores_have_the_same_bits_for_any_threads_order_and_split),
        cmocka_unit_test(instruction_sets_agree_bit_for_bit),
        cmocka_unit_test(without_dropout_there_is_no_information),
        cmocka_unit_test(a_broken_row_is_not_a_number_and_alone),
        cmocka_unit_test(every_pass_of_a_broken_row_is_not_a_number),
        cmocka_unit_test(score_refuses_what_it_cannot_do),
        cmocka_unit_test(passes_take_turns_at_the_views),
        cmocka_unit_test(views_that_disagree_are_information),
        cmocka_unit_test(fit_looks_at_every_view),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
