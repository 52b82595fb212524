/*
 * Weights of voters: people who agree with others weigh one, people who are always wrong next to nothing, newcomers one; votes and
 * counts stay as they are. The oracle computes the same formula in C from the list of votes.
 */
#include "base/error.h"
#include "connectors/votes.h"
#include "tests/support/test_database.h"
#include "tests/support/test_seed.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#define VOTERS   16 /* the last four are always wrong, one of them only once */
#define WRONG    4
#define GALAXIES TEST_GALAXIES

static unsigned seed;
static int answer[GALAXIES][VOTERS]; /* of q1: 0, 1, 2, or -1 */

static void vote_for_a_while(struct database *database)
{
    unsigned random = seed;
    char sql[65536] = "INSERT INTO triage.vote (classification, question, answer, id_str, voter) VALUES ";
    size_t at = strlen(sql), start = at;
    for (int g = 0; g < GALAXIES; g++)
        for (int v = 0; v < VOTERS; v++) {
            int true_answer = g % 3, strange = v >= VOTERS - WRONG;
            answer[g][v] = strange                     ? (true_answer + 1 + rand_r(&random) % 2) % 3
                           : rand_r(&random) % 10 == 0 ? rand_r(&random) % 3
                                                       : true_answer;
            if (v == VOTERS - 1 && g)
                answer[g][v] = -1;
            else
                at += (size_t)snprintf(sql + at, sizeof sql - at, "%s(%d, 'q1', 'a%d', 'g%d', 'v%d')",
                                       at > start ? ", " : "", 1 + g * VOTERS + v, answer[g][v], g + 1, v);
        }
    test_database_script(database, sql);
    assert_int_equal(test_database_number(database, "SELECT was_read FROM triage.apply_votes(100000, 0)"),
                     GALAXIES * VOTERS - GALAXIES + 1);
}

static int votes_for(int g, int a)
{
    int count = 0;
    for (int v = 0; v < VOTERS; v++)
        count += answer[g][v] == a;
    return count;
}

/* The formula of triage.weigh_votes() (Willett et al. 2013), vote by vote. */
static void expected_weights(int weights[VOTERS])
{
    double same[VOTERS] = {0}, expected[VOTERS] = {0}, all_expected = 0;
    int votes[VOTERS] = {0}, all_votes = 0;
    for (int g = 0; g < GALAXIES; g++) {
        int total = votes_for(g, 0) + votes_for(g, 1) + votes_for(g, 2);
        double agreeing = 0;
        for (int a = 0; a < 3; a++)
            agreeing += (double)votes_for(g, a) * (votes_for(g, a) - 1) / ((double)total * (total - 1));
        for (int v = 0; v < VOTERS; v++)
            if (answer[g][v] >= 0) {
                same[v] += (double)(votes_for(g, answer[g][v]) - 1) / (total - 1);
                expected[v] += agreeing;
                votes[v]++;
            }
    }
    for (int v = 0; v < VOTERS; v++) {
        all_expected += expected[v];
        all_votes += votes[v];
    }
    double prior = 10 * all_expected / all_votes;
    for (int v = 0; v < VOTERS; v++)
        weights[v] = (int)lround(1000 * fmin(1, pow((same[v] + prior) / (expected[v] + prior) / 0.8, 8.5)));
}

static void agreement_decides_the_weight_and_votes_stay(void **state)
{
    struct test_database *test = *state;
    int weights[VOTERS];
    int64_t voters;
    test_database_fresh(test);
    vote_for_a_while(test->database);
    const char *raw =
        "SELECT ('x' || substr(md5(string_agg(v::text, ';' ORDER BY classification)), 1, 8))::bit(32)::bigint "
        "FROM triage.vote v";
    int64_t before = test_database_number(test->database, raw);
    int64_t counted = test_database_number(test->database, "SELECT sum(votes) FROM triage.tally");
    assert_int_equal(votes_weigh(test->database, &voters), 0);
    assert_int_equal(voters, VOTERS);
    expected_weights(weights);
    for (int v = 0; v < VOTERS; v++) {
        char sql[96];
        snprintf(sql, sizeof sql, "SELECT weight FROM triage.voter_skill WHERE voter = 'v%d'", v);
        assert_int_equal(test_database_number(test->database, sql), weights[v]);
        if (v < VOTERS - WRONG || v == VOTERS - 1)
            assert_true(weights[v] > 500); /* who agrees, and who has voted once */
        else
            assert_true(weights[v] < 200);
    }
    assert_int_equal(test_database_number(test->database, raw), before);
    /* off: nothing changes */
    assert_int_equal(test_database_number(test->database, "SELECT sum(votes) FROM triage.tally"), counted);
    /* on: tallies are rounded sums of weights */
    test_database_script(test->database, "SELECT triage.prepare_votes('first', '{}', true)");
    for (int g = 0; g < GALAXIES; g++)
        for (int a = 0; a < 3; a++) {
            char sql[160];
            int sum = 0;
            for (int v = 0; v < VOTERS; v++)
                sum += answer[g][v] == a ? weights[v] : 0;
            snprintf(sql, sizeof sql,
                     "SELECT COALESCE(sum(votes), 0) FROM triage.tally WHERE galaxy = %d AND answer_index = %d", g + 1,
                     2 + a);
            assert_int_equal(test_database_number(test->database, sql), (sum + 500) / 1000);
        }
    /* a vote that comes now counts by its voter's weight, and with one where nobody knows the voter */
    test_database_script(test->database,
                         "INSERT INTO triage.vote (classification, question, answer, id_str, voter) VALUES "
                         "(9001, 'q2', 'a1', 'g1', 'v13'), (9002, 'q2', 'a0', 'g1', 'new')");
    assert_int_equal(test_database_number(test->database, "SELECT was_read FROM triage.apply_votes(100, 0)"), 2);
    char sql[320];
    snprintf(sql, sizeof sql,
             "SELECT (sum(weighted) FILTER (WHERE answer_index = 6) = %d AND sum(votes) FILTER (WHERE answer_index "
             "= 6) = %d AND sum(votes) FILTER (WHERE answer_index = 5) = 1)::int FROM triage.tally WHERE galaxy = 1",
             weights[13], (weights[13] + 500) / 1000);
    assert_int_equal(test_database_number(test->database, sql), 1);
    /* off again: the plain counts are back */
    test_database_script(test->database, "SELECT triage.prepare_votes('first', '{}', false)");
    assert_int_equal(test_database_number(test->database, "SELECT sum(votes) FROM triage.tally"), counted + 2);
    assert_int_equal(test_database_number(test->database, "SELECT sum(counted) FROM triage.tally"), counted + 2);
}

static int setup(void **state)
{
    seed = test_seed();
    return test_database_setup(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agreement_decides_the_weight_and_votes_stay)};
    return cmocka_run_group_tests(tests, setup, test_database_teardown);
}
