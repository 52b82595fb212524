/*
 * Selection and ranking against plain oracles: sorting the whole pool for the active stream, counting how often each
 * galaxy is drawn for the random one, and the shares by arithmetic.
 */
#include "acquisition/select.h"
#include "base/error.h"
#include "tests/support/test_seed.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#define POOL 2000

struct galaxy {
    uint64_t key;
    enum split split;
    int pinned;
    float score;
};

static unsigned seed;
static struct galaxy pool[POOL];
static struct selected selected[POOL];

/* Scores with many ties; the splits in the shares of a small pool. */
static void make_pool(int count)
{
    unsigned random = seed;
    for (int i = 0; i < count; i++) {
        int part = rand_r(&random) % 20;
        pool[i] = (struct galaxy){.key = 1000 + (uint64_t)i * 3,
                                  .split = part == 0   ? SPLIT_VALIDATION
                                           : part == 1 ? SPLIT_GATE
                                           : part == 2 ? SPLIT_TEST
                                                       : SPLIT_TRAIN,
                                  .score = (float)(rand_r(&random) % 300) * 0x1p-12f};
    }
}

static size_t run(const struct select_request *request, const struct galaxy *galaxies, int count)
{
    struct selector *selector;
    assert_int_equal(selector_new(request, &selector), 0);
    for (int i = 0; i < count; i++)
        selector_offer(selector, galaxies[i].key, galaxies[i].split, galaxies[i].pinned, galaxies[i].score);
    size_t number;
    assert_int_equal(selector_finish(selector, selected, &number), 0);
    selector_free(selector);
    return number;
}

static int count_of(size_t number, enum stream stream)
{
    int count = 0;
    for (size_t i = 0; i < number; i++)
        count += selected[i].stream == stream;
    return count;
}

static enum split split_of_key(uint64_t key)
{
    return pool[(key - 1000) / 3].split;
}

static int count_of_split(size_t number, enum split split)
{
    int count = 0;
    for (size_t i = 0; i < number; i++)
        count += split_of_key(selected[i].key) == split;
    return count;
}

static int by_score(const void *left, const void *right)
{
    const struct galaxy *a = left, *b = right;
    return a->score != b->score ? (a->score > b->score ? -1 : 1) : (a->key < b->key ? -1 : 1);
}

static void the_active_stream_is_the_top_of_the_sorted_pool(void **state)
{
    (void)state;
    static struct galaxy sorted[POOL];
    const struct select_request request = {
        .seed = seed, .cycle = 3, .queue_size = 150, .random_share = 0.2f, .holdout_share = 0.1f};
    make_pool(POOL);
    size_t number = run(&request, pool, POOL);
    assert_int_equal(number, 150);
    assert_int_equal(count_of_split(number, SPLIT_VALIDATION) + count_of_split(number, SPLIT_GATE), 15);
    assert_in_range(count_of_split(number, SPLIT_GATE), 7, 8);
    assert_int_equal(count_of(number, STREAM_RANDOM), 15 + 27); /* 0.2 of the 135 that remain */
    assert_int_equal(count_of(number, STREAM_ACTIVE), 108);

    /* oracle: sort everything that may be active and is not drawn already, take 108 */
    int candidates = 0;
    for (int i = 0; i < POOL; i++) {
        int drawn = 0;
        for (size_t k = 0; k < number; k++)
            drawn |= selected[k].stream == STREAM_RANDOM && selected[k].key == pool[i].key;
        if (pool[i].split == SPLIT_TRAIN && !drawn)
            sorted[candidates++] = pool[i];
    }
    qsort(sorted, (size_t)candidates, sizeof *sorted, by_score);
    int active = 0;
    for (size_t k = 0; k < number; k++)
        if (selected[k].stream == STREAM_ACTIVE) {
            assert_int_equal(selected[k].key, sorted[active].key);
            assert_true(selected[k].score == sorted[active].score && selected[k].probability == 1);
            active++;
        }
}

static void the_order_of_the_pool_does_not_matter(void **state)
{
    (void)state;
    static struct galaxy shuffled[POOL];
    static struct selected first[POOL];
    const struct select_request request = {
        .seed = seed, .cycle = 9, .queue_size = 80, .random_share = 0.5f, .holdout_share = 0.2f};
    unsigned random = seed + 5;
    make_pool(POOL);
    size_t number = run(&request, pool, POOL);
    memcpy(first, selected, number * sizeof *first);
    memcpy(shuffled, pool, sizeof pool);
    for (int i = POOL - 1; i > 0; i--) {
        int other = rand_r(&random) % (i + 1);
        struct galaxy kept = shuffled[i];
        shuffled[i] = shuffled[other];
        shuffled[other] = kept;
    }
    assert_int_equal(run(&request, shuffled, POOL), number);
    for (size_t i = 0; i < number; i++)
        assert_true(selected[i].key == first[i].key && selected[i].stream == first[i].stream &&
                    selected[i].probability == first[i].probability);
    struct select_request other = request;
    other.cycle++; /* another draw */
    run(&other, pool, POOL);
    assert_true(memcmp(first, selected, number * sizeof *first) != 0);
}

/* Horvitz and Thompson need the stored probability to be the real one: 3,000 cycles, each galaxy within 5 sigma. */
static void probabilities_are_how_often_a_galaxy_is_drawn(void **state)
{
    (void)state;
    enum { SMALL = 120, CYCLES = 3000 };
    static double expected[SMALL];
    static int drawn[SMALL];
    memset(expected, 0, sizeof expected);
    memset(drawn, 0, sizeof drawn);
    make_pool(SMALL);
    int rest = 0, holdout[4] = {0};
    for (int i = 0; i < SMALL; i++) {
        rest += pool[i].split == SPLIT_TRAIN || pool[i].split == SPLIT_TEST;
        holdout[pool[i].split]++;
    }
    for (int cycle = 0; cycle < CYCLES; cycle++) {
        const struct select_request request = {
            .seed = seed, .cycle = (uint64_t)cycle, .queue_size = 20, .random_share = 0.5f, .holdout_share = 0.2f};
        size_t number = run(&request, pool, SMALL);
        int validation = count_of_split(number, SPLIT_VALIDATION);
        for (size_t i = 0; i < number; i++) {
            if (selected[i].stream != STREAM_RANDOM)
                continue;
            int galaxy = (int)(selected[i].key - 1000) / 3;
            drawn[galaxy]++;
            if (pool[galaxy].split == SPLIT_VALIDATION)
                assert_true(fabs(selected[i].probability - (double)validation / holdout[SPLIT_VALIDATION]) < 1e-12);
            if (pool[galaxy].split == SPLIT_TRAIN)
                assert_true(fabs(selected[i].probability - 8.0 / rest) < 1e-12);
            expected[galaxy] = selected[i].probability;
        }
    }
    for (int i = 0; i < SMALL; i++) {
        double sigma = sqrt(CYCLES * expected[i] * (1 - expected[i]));
        if (!(expected[i] > 0) || fabs(drawn[i] - CYCLES * expected[i]) > 5 * sigma)
            fail_msg("galaxy %d of split %d: drawn %d times, expected %.1f +- %.1f", i, (int)pool[i].split, drawn[i],
                     CYCLES * expected[i], sigma);
    }
}

static void pins_come_first_and_take_places_from_all(void **state)
{
    (void)state;
    const struct select_request request = {
        .seed = seed, .cycle = 1, .queue_size = 10, .random_share = 0.5f, .holdout_share = 0.2f};
    make_pool(POOL);
    for (int i = 0; i < 4; i++) {
        pool[i * 100 + 7].pinned = 1;
        pool[i * 100 + 7].split = SPLIT_TRAIN;
        pool[i * 100 + 7].score = 0;
    }
    size_t number = run(&request, pool, POOL);
    assert_int_equal(number, 10);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(selected[i].stream, STREAM_PINNED);
        assert_int_equal(selected[i].key, pool[i * 100 + 7].key);
        assert_true(selected[i].probability == 1);
    }
    for (size_t i = 4; i < number; i++)
        for (size_t k = 0; k < i; k++)
            assert_true(selected[i].key != selected[k].key);
    for (int i = 0; i < 40; i++)
        pool[i].pinned = 1;
    assert_int_equal(run(&request, pool, POOL), 10); /* more pins than places */
    assert_int_equal(count_of(10, STREAM_PINNED), 10);
}

static void without_a_model_everything_is_drawn(void **state)
{
    (void)state;
    const struct select_request request = {
        .seed = seed, .cycle = 1, .queue_size = 60, .random_share = 0, .holdout_share = 0.1f, .cold = 1};
    make_pool(POOL);
    for (int i = 0; i < POOL; i++)
        pool[i].score = NAN;
    size_t number = run(&request, pool, POOL);
    assert_int_equal(number, 60);
    assert_int_equal(count_of(number, STREAM_RANDOM), 60);
    assert_int_equal(count_of_split(number, SPLIT_VALIDATION) + count_of_split(number, SPLIT_GATE), 30);
}

static void what_is_kept_counts(void **state)
{
    (void)state;
    struct select_request request = {.seed = seed,
                                     .cycle = 1,
                                     .queue_size = 100,
                                     .random_share = 0.2f,
                                     .holdout_share = 0.1f,
                                     .kept_holdout = 10,
                                     .kept_random = 18,
                                     .kept_active = 42};
    make_pool(POOL);
    size_t number = run(&request, pool, POOL);
    assert_int_equal(number, 30);
    assert_int_equal(count_of(number, STREAM_ACTIVE), 30); /* both random shares are full already */
    request.kept_active = 72;
    assert_int_equal(run(&request, pool, POOL), 0);
    request.kept_active = 500;
    assert_int_equal(run(&request, pool, POOL), 0);
}

static void a_small_pool_gives_all_it_has_once(void **state)
{
    (void)state;
    const struct select_request request = {
        .seed = seed, .cycle = 1, .queue_size = 500, .random_share = 0.1f, .holdout_share = 0.1f};
    make_pool(60);
    size_t number = run(&request, pool, 60);
    int train = 0;
    for (int i = 0; i < 60; i++)
        train += pool[i].split == SPLIT_TRAIN;
    assert_true(number <= 60 && (int)number >= train);
    for (size_t i = 0; i < number; i++)
        for (size_t k = 0; k < i; k++)
            assert_true(selected[i].key != selected[k].key);
    assert_int_equal(run(&request, pool, 0), 0);
}

static void broken_scores_are_worth_nothing(void **state)
{
    (void)state;
    assert_true(score_round(NAN) == 0 && score_round(-1) == 0 && score_round(0) == 0);
    assert_true(score_round(0x1p-20f) == 0x1p-20f && score_round(0x1.4p-20f) == 0x1p-20f);
    assert_true(score_round(0.7f) * 0x1p20f == rintf(0.7f * 0x1p20f));
    const struct select_request request = {.seed = seed, .cycle = 1, .queue_size = 5};
    make_pool(40);
    for (int i = 0; i < 40; i++) {
        pool[i].split = SPLIT_TRAIN;
        pool[i].score = i < 30 ? (i % 2 ? NAN : -5.0f) : 0.25f;
    }
    assert_int_equal(run(&request, pool, 40), 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(selected[i].key, pool[30 + i].key); /* ties: the lower key */
}

static void senseless_requests_are_refused(void **state)
{
    (void)state;
    struct selector *selector;
    struct select_request request = {.queue_size = 0};
    assert_int_equal(selector_new(&request, &selector), ERROR_INPUT);
    request.queue_size = SELECT_SLOTS_MAX + 1;
    assert_int_equal(selector_new(&request, &selector), ERROR_INPUT);
    request = (struct select_request){.queue_size = 1, .random_share = NAN};
    assert_int_equal(selector_new(&request, &selector), ERROR_INPUT);
    request = (struct select_request){.queue_size = 1, .holdout_share = 1.01f};
    assert_int_equal(selector_new(&request, &selector), ERROR_INPUT);
    enum stream stream;
    assert_int_equal(stream_from_name("pinned", &stream), 0);
    assert_int_equal(stream, STREAM_PINNED);
    assert_int_equal(stream_from_name("best", &stream), ERROR_INPUT);
}

/* Pins, then active by score, random ones spread evenly: with 12 active and 4 random, one in each run of four. */
static void a_queue_is_ranked(void **state)
{
    (void)state;
    struct ranked entries[19] = {{0}};
    for (int i = 0; i < 3; i++)
        entries[i] = (struct ranked){.key = (uint64_t)(50 - i), .stream = STREAM_PINNED, .score = (float)i};
    for (int i = 0; i < 12; i++)
        entries[3 + i] = (struct ranked){.key = (uint64_t)(100 + i), .stream = STREAM_ACTIVE, .score = (float)(i / 2)};
    for (int i = 0; i < 4; i++)
        entries[15 + i] = (struct ranked){.key = (uint64_t)(200 - i), .stream = STREAM_RANDOM, .score = 9};
    queue_rank(entries, 19);
    float last = 1e9f;
    uint64_t last_key = 0;
    for (int i = 0; i < 19; i++) {
        assert_int_equal(entries[i].rank, i + 1);
        assert_true((entries[i].stream == STREAM_PINNED) == (i < 3));
        if (entries[i].stream != STREAM_ACTIVE)
            continue;
        assert_true(entries[i].score < last || (entries[i].score == last && entries[i].key > last_key));
        last = entries[i].score;
        last_key = entries[i].key;
    }
    assert_true(entries[0].key == 48 && entries[2].key == 50);
    for (int part = 0; part < 4; part++) {
        int randoms = 0;
        for (int i = 0; i < 4; i++)
            randoms += entries[3 + 4 * part + i].stream == STREAM_RANDOM;
        assert_int_equal(randoms, 1);
    }
    queue_rank(entries, 0);
}

/*
 * Drawing in proportion to score^power, with the random stream beside it: over many cycles the sum of values weighted by
 * 1 / probability, plus what the random stream took, is the sum over the pool, though values and scores go together; the
 * same picks unweighted are far off. Values: 10 times the score for every other galaxy, else 1.
 */
static void draws_by_score_are_unbiased(void **state)
{
    (void)state;
    enum { COUNT = 300, CYCLES = 4000 };
    print_message("seed %u\n", seed);
    unsigned random = seed;
    double truth = 0, sum = 0, squares = 0, naive = 0, drawn_alone = 0;
    for (int i = 0; i < COUNT; i++) {
        pool[i] = (struct galaxy){.key = 1000 + (uint64_t)i * 3,
                                  .split = SPLIT_TRAIN,
                                  .score = score_round(0.01f + (float)(rand_r(&random) % 1000) * 1e-3f)};
        truth += i % 2 ? 10 * (double)pool[i].score : 1;
    }
    for (int cycle = 0; cycle < CYCLES; cycle++) {
        struct select_request request = {
            .seed = 7, .cycle = (uint64_t)cycle, .queue_size = 60, .random_share = 0.25f, .power = 2};
        size_t number = run(&request, pool, COUNT);
        double estimate = 0, picks = 0;
        assert_int_equal(number, 60);
        for (size_t i = 0; i < number; i++) {
            size_t index = (size_t)(selected[i].key - 1000) / 3;
            double value = index % 2 ? 10 * (double)pool[index].score : 1;
            assert_true(selected[i].probability > 0 && selected[i].probability <= 1);
            if (selected[i].stream == STREAM_ACTIVE) {
                estimate += value / selected[i].probability;
                picks += value / 45;
            } else {
                estimate += value;
                drawn_alone += value / selected[i].probability / CYCLES;
            }
        }
        naive += picks * COUNT / CYCLES;
        sum += estimate / CYCLES;
        squares += estimate * estimate / CYCLES;
    }
    double error = sqrt((squares - sum * sum) / CYCLES);
    if (fabs(sum - truth) > 4 * error)
        fail_msg("%g is not %g within 4 x %g", sum, truth, error);
    assert_true(error < 0.01 * truth);
    assert_true(fabs(drawn_alone - truth) < 0.02 * truth);
    assert_true(naive > 1.2 * truth);
}

/* Of two galaxies the one with twice the score is drawn 2^power times as often; one without score never before others. */
static void draws_follow_the_power(void **state)
{
    (void)state;
    enum { CYCLES = 20000 };
    const struct galaxy three[] = {
        {.key = 1, .split = SPLIT_TRAIN, .score = 0.25f},
        {.key = 2, .split = SPLIT_TRAIN, .score = 0.5f },
        {.key = 3, .split = SPLIT_TRAIN, .score = 0    }
    };
    int second = 0;
    for (int cycle = 0; cycle < CYCLES; cycle++) {
        struct select_request request = {.seed = 3, .cycle = (uint64_t)cycle, .queue_size = 1, .power = 3};
        assert_int_equal(run(&request, three, 3), 1);
        assert_true(selected[0].key != 3);
        second += selected[0].key == 2;
    }
    double share = (double)second / CYCLES, error = sqrt(8.0 / 9 / 9 / CYCLES);
    if (fabs(share - 8.0 / 9) > 4 * error)
        fail_msg("%g is not 8/9 within 4 x %g", share, error);
    struct select_request request = {.queue_size = 1, .power = -1};
    struct selector *selector;
    assert_int_equal(selector_new(&request, &selector), ERROR_INPUT);
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static size_t allocated_bytes;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    allocated_bytes += bytes;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    allocated_bytes += count * bytes;
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    allocated_bytes += bytes;
    return __real_realloc(memory, bytes);
}

/* All that a choice by every rule asks for. */
static size_t bytes_of_choice(uint32_t galaxies)
{
    static const float one_sketch[SKETCH_LENGTH];
    const struct select_request request = {
        .seed = seed,
        .queue_size = 300,
        .holdout_share = 0.1f,
        .random_share = 0.1f,
        .power = 1,
        .shortlist = 4,
        .cluster_share = 0.1,
        .duplicates = {2, 1e-9},
        .held = 50
    };
    static struct selected chosen[300];
    struct selector *selector;
    struct candidate *candidates;
    size_t count, number;
    allocated_bytes = 0;
    assert_int_equal(selector_new(&request, &selector), 0);
    for (uint32_t i = 0; i < galaxies; i++)
        if (i % 50 == 9)
            selector_hold(selector, i + 1, 1, (float)(i % 977));
        else
            selector_offer(selector, i + 1,
                           i % 20 > 1 ? SPLIT_TRAIN
                           : i % 20   ? SPLIT_GATE
                                      : SPLIT_VALIDATION,
                           0, (float)(i % 997));
    assert_int_equal(selector_candidates(selector, &candidates, &count), 0);
    for (size_t i = 0; i < count; i++) {
        candidates[i].place.sketch = i ? NULL : one_sketch;
        candidates[i].cluster = 1 + (int)(candidates[i].key % 64);
    }
    assert_int_equal(selector_finish(selector, chosen, &number), 0);
    assert_int_equal(number, 300);
    selector_free(selector);
    return allocated_bytes;
}

static void memory_is_independent_of_the_pool(void **state)
{
    (void)state;
    size_t small = bytes_of_choice(10000);
    assert_true(small > 300 * sizeof(struct candidate) && small < ((size_t)2 << 20));
    assert_int_equal(bytes_of_choice(1000000), small);
}

int main(void)
{
    seed = test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_by_score_are_unbiased),
        cmocka_unit_test(draws_follow_the_power),
        cmocka_unit_test(the_active_stream_is_the_top_of_the_sorted_pool),
        cmocka_unit_test(the_order_of_the_pool_does_not_matter),
        cmocka_unit_test(probabilities_are_how_often_a_galaxy_is_drawn),
        cmocka_unit_test(pins_come_first_and_take_places_from_all),
        cmocka_unit_test(without_a_model_everything_is_drawn),
        cmocka_unit_test(what_is_kept_counts),
        cmocka_unit_test(a_small_pool_gives_all_it_has_once),
        cmocka_unit_test(broken_scores_are_worth_nothing),
        cmocka_unit_test(senseless_requests_are_refused),
        cmocka_unit_test(a_queue_is_ranked),
        cmocka_unit_test(memory_is_independent_of_the_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
