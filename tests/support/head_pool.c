/* See head_pool.h. */
#include "tests/support/head_pool.h"
#include "base/half.h"
#include "base/philox.h"
#include "model/likelihood.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

float drawn(uint32_t a, uint32_t b)
{
    float normal[2];
    struct philox words = philox(SEED, a, b, 0, 0);
    philox_normal(words.word[0], words.word[1], normal);
    return normal[0];
}

/* Polya's urn: every vote makes its answer likelier, which is the Dirichlet-multinomial. */
static void draw_votes(struct head_pool *pool, int row, const float *alpha, int question, int count)
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

void true_concentrations(const struct head_pool *pool, int row, float *alpha)
{
    for (int a = 0; a < ANSWERS; a++) {
        float x = -3;
        for (int i = 0; i < 5; i++)
            x += 0.5f * drawn(100000 + (uint32_t)a, (uint32_t)i) * (half_to_float(pool->embedding[row][i]) - 3) * 2;
        alpha[a] = head_alpha(x);
    }
}

static struct head_pool *new_head_pool(void)
{
    struct head_pool *pool = calloc(1, sizeof *pool);
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

int head_pool_set_up(void **state)
{
    *state = new_head_pool();
    print_message("seed %u\n", SEED);
    return 0;
}

int head_pool_tear_down(void **state)
{
    free(*state);
    return 0;
}

struct fit_request request_for(struct head_pool *pool, size_t train, size_t validation)
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

/* Untrained heads on the first `inputs` values of each row. */
static void untrained_heads(struct head_pool *pool, int count, int inputs, size_t train, struct head_set *heads)
{
    float alpha[ANSWERS];
    struct vote_rows rows = {pool->votes[0], sizeof pool->votes[0], NULL, train};
    assert_int_equal(head_set_new(count, inputs, ANSWERS, heads), 0);
    heads->dropout = 0.2f;
    heads->model = 3;
    head_set_standardise(heads, pool->embedding[0], STRIDE, NULL, train);
    assert_int_equal(
        likelihood_constant_fit(&pool->schema, &rows, LIKELIHOOD_START_LOWER, LIKELIHOOD_START_UPPER, alpha), 0);
    head_set_reset(heads, alpha);
}

void start_heads(struct head_pool *pool, const struct fit_request *request, int count, struct head_set *heads)
{
    untrained_heads(pool, count, INPUTS, request->train_count, heads);
}

void random_heads(struct head_pool *pool, int count, struct head_set *heads)
{
    untrained_heads(pool, count, INPUTS, 400, heads);
    for (int i = 0; i < count * ANSWERS * INPUTS; i++)
        heads->weight[i] = 0.3f * drawn(500000, (uint32_t)i);
}

void heads_of_views(struct head_pool *pool, int count, struct head_set *heads)
{
    untrained_heads(pool, count, VIEW_INPUTS, 400, heads);
    for (int i = 0; i < count * ANSWERS * VIEW_INPUTS; i++)
        heads->weight[i] = 0.3f * drawn(600000, (uint32_t)i);
}

void assert_same_heads(const struct head_set *a, const struct head_set *b)
{
    assert_memory_equal(a->shift, b->shift, head_set_floats(a) * sizeof(float));
    assert_int_equal(a->step, b->step);
}

void assert_close(const float *value, const float *expected, size_t count, float tolerance)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(value[i] - expected[i]) <= tolerance * fmaxf(1, fabsf(expected[i]))))
            fail_msg("value %zu: %.9g is not %.9g", i, (double)value[i], (double)expected[i]);
}
