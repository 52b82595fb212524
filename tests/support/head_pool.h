/*
 * A pool whose vote probabilities are a known function of the embedding, and heads on it: what the suites of heads start from. The true
 * concentrations are 1 + 100 sigmoid(W z - 3) with W in the first five inputs.
 */
#ifndef TRIAGE_TESTS_HEAD_POOL_H
#define TRIAGE_TESTS_HEAD_POOL_H

#include "model/head_fit.h"

#define SEED        7u
#define INPUTS      45 /* no multiple of anything */
#define STRIDE      96 /* bytes of one embedding row */
#define ANSWERS     9
#define ROWS        700
#define VIEWS       3
#define VIEW_INPUTS (INPUTS / VIEWS)

struct head_pool {
    struct schema schema;
    uint16_t embedding[ROWS][STRIDE / 2];
    uint16_t votes[ROWS][12];
    uint64_t row[ROWS];
};

/* Of a group of tests: *state is a struct head_pool. Says the seed. */
int head_pool_set_up(void **state);
int head_pool_tear_down(void **state);

/* A standard normal number. */
float drawn(uint32_t a, uint32_t b);

/* What the votes of a row are drawn from. */
void true_concentrations(const struct head_pool *pool, int row, float *alpha);

/* A fit on the first `train` rows, judged on `validation` rows from 400 on. */
struct fit_request request_for(struct head_pool *pool, size_t train, size_t validation);

/* Heads where a fit begins. */
void start_heads(struct head_pool *pool, const struct fit_request *request, int count, struct head_set *heads);

/* Heads with weights that matter, without training. */
void random_heads(struct head_pool *pool, int count, struct head_set *heads);

/* Heads on a third of each row: the row as three views of a galaxy. */
void heads_of_views(struct head_pool *pool, int count, struct head_set *heads);

void assert_same_heads(const struct head_set *a, const struct head_set *b);

/* Within `tolerance` of each expected value, or of 1 where that is smaller. */
void assert_close(const float *value, const float *expected, size_t count, float tolerance);

#endif
