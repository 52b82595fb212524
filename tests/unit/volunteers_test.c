/* Simulated volunteers: every walk is valid, counts are consumed exactly, and probabilities come out as
 * frequencies. */
#include "base/error.h"
#include "base/philox.h"
#include "connectors/volunteers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define GZ2 TRIAGE_SOURCE_FOLDER "/etc/schemas/gz2_no_suffix.ini"

/* A run of random numbers of the test itself; `PHILOX_GATE` keeps it apart from the code under test. */
struct source {
    uint64_t seed;
    uint32_t element;
};

static uint32_t below(struct source *source, uint32_t limit)
{
    return philox(source->seed, source->element++, 0, 0, PHILOX_GATE).word[0] % limit;
}

static uint64_t new_seed(void)
{
    uint64_t seed = (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)seed);
    return seed;
}

/*
 * A random tree: each question but the first opens the tree or follows one to three earlier answers, of any
 * question or, with `one_parent`, of the same one.
 */
static void random_schema(struct source *source, int one_parent, struct schema *schema)
{
    memset(schema, 0, sizeof *schema);
    schema->questions = 1 + (int)below(source, 14);
    for (int q = 0; q < schema->questions; q++) {
        struct question *question = &schema->question[q];
        question->first = schema->answers;
        question->count = 2 + (int)below(source, 5);
        question->parent = -1;
        if (q > 0 && below(source, 4) > 0)
            question->asked_after_count = 1 + (int)below(source, 3);
        const struct question *parent = &schema->question[q > 0 ? below(source, (uint32_t)q) : 0];
        for (int i = 0; i < question->asked_after_count; i++)
            question->asked_after[i] = one_parent ? parent->first + (int)below(source, (uint32_t)parent->count)
                                                  : (int)below(source, (uint32_t)schema->answers);
        for (int i = 0; i < question->count; i++, schema->answers++) {
            schema->answer[schema->answers].question = q;
            snprintf(schema->answer[schema->answers].column, sizeof schema->answer[0].column, "q%d_a%d", q, i);
        }
    }
}

static void random_values(struct source *source, const struct schema *schema, double *value)
{
    for (int i = 0; i < schema->answers; i++)
        value[i] = below(source, 3) ? 1 + below(source, 100) : 0;
    for (int q = 0; q < schema->questions; q++) /* every question has at least one possible answer */
        value[schema->question[q].first] += 1;
}

/* Written from the definition, apart from the code under test: which questions must have been asked? */
static void assert_valid(const struct schema *schema, const int *answer, const double *value)
{
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        int asked = question->asked_after_count == 0;
        for (int i = 0; i < question->asked_after_count; i++)
            for (int before = 0; before < q; before++)
                asked |= answer[before] == question->asked_after[i];
        if (!asked) {
            assert_int_equal(answer[q], -1);
            continue;
        }
        assert_in_range(answer[q], question->first, question->first + question->count - 1);
        assert_true(value[answer[q]] > 0);
    }
}

static void walks_are_valid_on(struct source *source, const struct schema *schema, int walks)
{
    double value[SCHEMA_ANSWERS_MAX];
    int answer[SCHEMA_QUESTIONS_MAX], again[SCHEMA_QUESTIONS_MAX];
    struct oracle oracle;
    random_values(source, schema, value);
    oracle_new(schema, ORACLE_PROBABILITIES, &oracle);
    assert_int_equal(oracle_add(&oracle, "galaxy", value), 0);
    for (int i = 0; i < walks; i++) {
        int votes = volunteers_walk(&oracle, 0, source->seed, (uint32_t)i, answer), given = 0;
        assert_valid(schema, answer, value);
        for (int q = 0; q < schema->questions; q++)
            given += answer[q] >= 0;
        assert_int_equal(votes, given);
        /* The same walk again is the same. */
        assert_int_equal(volunteers_walk(&oracle, 0, source->seed, (uint32_t)i, again), votes);
        assert_memory_equal(answer, again, sizeof(int) * (size_t)schema->questions);
    }
    assert_int_equal(oracle_exhausted(&oracle, 0), 0);
    oracle_free(&oracle);
}

static void walks_are_valid(void **state)
{
    (void)state;
    struct schema *schema = malloc(sizeof *schema);
    struct source source = {new_seed(), 0};
    assert_non_null(schema);
    for (int tree = 0; tree < 300; tree++) {
        random_schema(&source, 0, schema);
        walks_are_valid_on(&source, schema, 30);
    }
    free(schema);
}

static void walks_are_valid_on_galaxy_zoo_2(void **state)
{
    (void)state;
    struct schema *schema = malloc(sizeof *schema);
    struct source source = {new_seed(), 0};
    assert_non_null(schema);
    if (schema_load(GZ2, schema))
        fail_msg("%s", error_message());
    walks_are_valid_on(&source, schema, 2000);
    free(schema);
}

/* Counts made of valid walks are used up to the last vote, and each classification takes one vote of a root.
 */
static void counts_are_consumed_on(struct source *source, const struct schema *schema)
{
    double value[SCHEMA_ANSWERS_MAX], count[SCHEMA_ANSWERS_MAX] = {0}, cast[SCHEMA_ANSWERS_MAX] = {0};
    int answer[SCHEMA_QUESTIONS_MAX];
    struct oracle made, replayed;
    random_values(source, schema, value);
    oracle_new(schema, ORACLE_PROBABILITIES, &made);
    oracle_new(schema, ORACLE_COUNTS, &replayed);
    assert_int_equal(oracle_add(&made, "galaxy", value), 0);
    int walks = 1 + (int)below(source, 60);
    for (int i = 0; i < walks; i++) {
        volunteers_walk(&made, 0, source->seed, (uint32_t)i, answer);
        for (int q = 0; q < schema->questions; q++)
            if (answer[q] >= 0)
                count[answer[q]]++;
    }
    assert_int_equal(oracle_add(&replayed, "galaxy", count), 0);
    for (int i = 0; i < walks; i++) {
        assert_int_equal(oracle_exhausted(&replayed, 0), 0);
        assert_true(volunteers_walk(&replayed, 0, source->seed + 1, (uint32_t)i, answer) > 0);
        assert_valid(schema, answer, count);
        for (int q = 0; q < schema->questions; q++)
            if (answer[q] >= 0)
                cast[answer[q]]++;
    }
    assert_int_equal(oracle_exhausted(&replayed, 0), 1);
    assert_int_equal(volunteers_walk(&replayed, 0, source->seed + 1, 9999, answer), 0);
    for (int i = 0; i < schema->answers; i++) {
        assert_true(cast[i] == count[i]);
        assert_int_equal(replayed.remaining[i], 0);
    }
    oracle_free(&made);
    oracle_free(&replayed);
}

static void counts_are_consumed_exactly(void **state)
{
    (void)state;
    struct schema *schema = malloc(sizeof *schema);
    struct source source = {new_seed(), 0};
    assert_non_null(schema);
    for (int tree = 0; tree < 200; tree++) {
        random_schema(&source, 1, schema);
        counts_are_consumed_on(&source, schema);
    }
    free(schema);
}

/* first: two answers; second after first_0; third after second_0. */
static void chain_schema(struct schema *schema)
{
    memset(schema, 0, sizeof *schema);
    schema->questions = 3;
    schema->answers = 6;
    for (int q = 0; q < 3; q++) {
        schema->question[q] = (struct question){.first = 2 * q, .count = 2, .parent = 2 * q - 2};
        schema->question[q].asked_after_count = q > 0;
        schema->question[q].asked_after[0] = 2 * q - 2;
        schema->answer[2 * q].question = schema->answer[2 * q + 1].question = q;
    }
    schema->question[0].parent = -1;
}

/* Rounded catalogues: more reached the second question than voted on it, so it is skipped once it ran out. */
static void a_question_without_votes_left_is_skipped(void **state)
{
    (void)state;
    struct schema *schema = malloc(sizeof *schema);
    struct oracle oracle;
    int answer[3], second = 0, third = 0;
    assert_non_null(schema);
    chain_schema(schema);
    oracle_new(schema, ORACLE_COUNTS, &oracle);
    assert_int_equal(oracle_add(&oracle, "rounded", (double[]){5, 0, 2, 0, 3, 0}), 0);
    for (uint32_t i = 0; i < 5; i++) {
        assert_true(volunteers_walk(&oracle, 0, 1, i, answer) > 0);
        assert_int_equal(answer[0], 0);
        second += answer[1] == 2;
        third += answer[2] == 4;
        assert_true(answer[2] == -1 || answer[1] == 2);
    }
    assert_int_equal(second, 2);
    assert_int_equal(third, 2);
    assert_int_equal(oracle_exhausted(&oracle, 0), 1);
    assert_int_equal(oracle.remaining[4], 1);
    oracle_free(&oracle);
    free(schema);
}

/*
 * Pearson's chi square of 20,000 draws among five answers, 4 degrees of freedom: above 23.5 once in 10,000
 * runs, so the seed is fixed. A wrong table of probabilities gives hundreds.
 */
static void frequencies_follow_the_probabilities(void **state)
{
    (void)state;
    static const double p[] = {.5, .02, .13, .25, .1};
    enum { draws = 20000 };
    struct schema *schema = calloc(1, sizeof *schema);
    struct oracle oracle;
    int answer[1], seen[5] = {0};
    double chi_square = 0;
    assert_non_null(schema);
    schema->questions = 1;
    schema->answers = 5;
    schema->question[0] = (struct question){.count = 5, .parent = -1};
    oracle_new(schema, ORACLE_PROBABILITIES, &oracle);
    assert_int_equal(oracle_add(&oracle, "galaxy", p), 0);
    printf("seed 17\n");
    for (uint32_t i = 0; i < draws; i++) {
        assert_int_equal(volunteers_walk(&oracle, 0, 17, i, answer), 1);
        seen[answer[0]]++;
    }
    for (int i = 0; i < 5; i++)
        chi_square += (seen[i] - draws * p[i]) * (seen[i] - draws * p[i]) / (draws * p[i]);
    assert_true(chi_square < 23.5);
    assert_true(chi_square > .05); /* draws, not quotas */
    oracle_free(&oracle);
    free(schema);
}

/* Without replacement, the first vote is still distributed as the counts are. */
static void counts_are_drawn_in_proportion(void **state)
{
    (void)state;
    enum { galaxies = 4000 };
    struct schema *schema = malloc(sizeof *schema);
    struct oracle oracle;
    int answer[3], first = 0;
    char id[32];
    assert_non_null(schema);
    chain_schema(schema);
    oracle_new(schema, ORACLE_COUNTS, &oracle);
    for (int i = 0; i < galaxies; i++) {
        snprintf(id, sizeof id, "galaxy %d", i);
        assert_int_equal(oracle_add(&oracle, id, (double[]){3, 7, 1, 2, 1, 0}), 0);
    }
    for (int i = 0; i < galaxies; i++) {
        snprintf(id, sizeof id, "galaxy %d", i);
        assert_int_equal(oracle_find(&oracle, id), i);
        volunteers_walk(&oracle, (size_t)i, 4, 0, answer);
        first += answer[0] == 0;
    }
    /* 1,200 expected, standard deviation 29. */
    assert_in_range(first, 1200 - 120, 1200 + 120);
    assert_int_equal(oracle_find(&oracle, "galaxy 4000"), -1);
    oracle_free(&oracle);
    free(schema);
}

static void bad_galaxies_are_refused(void **state)
{
    (void)state;
    struct schema *schema = malloc(sizeof *schema);
    struct oracle oracle;
    char longest[ORACLE_ID_BYTES + 1];
    double good[] = {1, 2, 0, 1, 0, 0};
    assert_non_null(schema);
    chain_schema(schema);
    memset(longest, 'x', sizeof longest);
    longest[ORACLE_ID_BYTES] = 0;
    oracle_new(schema, ORACLE_COUNTS, &oracle);
    assert_int_equal(oracle_find(&oracle, "a"), -1);
    assert_int_equal(oracle_add(&oracle, "a", good), 0);
    assert_int_equal(oracle_add(&oracle, "a", good), ERROR_INPUT);
    assert_int_equal(oracle_add(&oracle, "", good), ERROR_INPUT);
    assert_int_equal(oracle_add(&oracle, longest, good), ERROR_LIMIT);
    assert_int_equal(oracle_add(&oracle, "b", (double[]){1, -1, 0, 0, 0, 0}), ERROR_INPUT);
    assert_int_equal(oracle_add(&oracle, "b", (double[]){1, NAN, 0, 0, 0, 0}), ERROR_INPUT);
    assert_int_equal(oracle_add(&oracle, "b", (double[]){1, .5, 0, 0, 0, 0}), ERROR_INPUT);
    assert_int_equal(oracle_add(&oracle, "b", (double[]){1, 70000, 0, 0, 0, 0}), ERROR_LIMIT);
    assert_int_equal(oracle.galaxies, 1);
    oracle_free(&oracle);
    free(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_are_valid),
        cmocka_unit_test(walks_are_valid_on_galaxy_zoo_2),
        cmocka_unit_test(counts_are_consumed_exactly),
        cmocka_unit_test(a_question_without_votes_left_is_skipped),
        cmocka_unit_test(frequencies_follow_the_probabilities),
        cmocka_unit_test(counts_are_drawn_in_proportion),
        cmocka_unit_test(bad_galaxies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
