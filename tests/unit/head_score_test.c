/*
 * Scores of heads by each backend against the sequential reference, and the promises of backend.h: same bits for any thread count, order,
 * split and instruction set.
 */
#include "base/error.h"
#include "cpu/head_kernels.h"
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

static int run_score(int threads, const struct score_request *request)
{
    struct backend_context *context;
    assert_int_equal(BACKEND_UNDER_TEST->open(threads, 1, &context), 0);
    int result = BACKEND_UNDER_TEST->head_score(context, request, NULL, NULL);
    BACKEND_UNDER_TEST->close(context);
    return result;
}

static uint16_t votes_due[ROWS];

static struct score_request score_for(struct head_pool *pool, const struct head_set *heads, enum reducer reducer,
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

static void scores_agree_with_the_reference(void **state)
{
    struct head_pool *pool = *state;
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
    struct head_pool *pool = *state;
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
    struct head_pool *pool = *state;
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

/* Every set of kernels, forced in turn; sets that this processor lacks are skipped. */
static void instruction_sets_agree_bit_for_bit(void **state)
{
    struct head_pool *pool = *state;
    static const char *const names[] = {"portable", "avx2", "avx512"};
    size_t bytes = ROWS * (size_t)information_row_floats(&pool->schema) * sizeof(float);
    struct head_set heads;
    heads_of_views(pool, 2, &heads);
    heads.unit_length = 1;
    struct score_request first = score_for(pool, &heads, REDUCE_INFORMATION, ROWS);
    first.views = VIEWS;
    for (int i = 0; i < 3; i++) {
        struct score_request other = first;
        if (head_kernels_choose(names[i])) {
            printf("skipped: this processor has no %s\n", names[i]);
            continue;
        }
        assert_string_equal(head_kernels()->name, names[i]);
        other.output = i ? calloc(1, bytes) : first.output;
        assert_int_equal(run_score(2, &other), 0);
        assert_memory_equal(first.output, other.output, bytes);
        if (i)
            free(other.output);
    }
    assert_int_equal(head_kernels_choose(NULL), 0);
    free(first.output);
    head_set_free(&heads);
}

/* Without dropout every pass is the deterministic prediction, and there is nothing to learn from votes. */
static void without_dropout_there_is_no_information(void **state)
{
    struct head_pool *pool = *state;
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
    struct head_pool *pool = *state;
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
    struct head_pool *pool = *state;
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
    struct head_pool *pool = *state;
    struct head_set heads;
    random_heads(pool, 5, &heads);
    struct score_request request = score_for(pool, &heads, REDUCE_INFORMATION, 10);
    struct backend_context *context;
    assert_int_equal(BACKEND_UNDER_TEST->open(2, 1, &context), 0);
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, stop_now, NULL), ERROR_CANCELLED);
    request.passes = 31; /* not a multiple of five heads */
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), ERROR_INPUT);
    request.passes = INFORMATION_PASSES_MAX / 5 * 5 + 5;
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), ERROR_INPUT);
    request.passes = 30;
    request.embedding_stride_bytes = (size_t)heads.inputs * 2 - 2; /* rows of another network */
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), ERROR_STATE);
    assert_non_null(strstr(error_message(), "another network"));
    request.embedding_stride_bytes = (size_t)heads.inputs * 4 - 2; /* not two embeddings a row */
    request.views = 2;
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), ERROR_STATE);
    request.views = 0;
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
    request.embedding_stride_bytes = 4096 * 2;
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "MiB of masked weights"));
#ifndef TEST_BACKEND_CUDA /* which takes as many galaxies at a time as fit */
    struct head_set viewed;
    assert_int_equal(head_set_new(1, 4096, ANSWERS, &viewed), 0);
    request.heads = &viewed;
    request.schema = &pool->schema;
    request.views = request.passes;
    request.embedding_stride_bytes = 4096 * 2 * (size_t)request.views;
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
    struct head_pool *pool = *state;
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
    struct head_pool *pool = *state;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, head_pool_set_up, head_pool_tear_down);
}
