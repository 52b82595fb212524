/*
 * Tallies are a function of the set of votes: many writers deliver one stream of classifications and reductions shuffled,
 * repeated, late, rolled back and side by side while a reader applies them in batches of any size, under every rule; the
 * outcome is that of one clean pass in C over the stream as it was made. And rebuilt from the raw votes it is the same, byte
 * for byte. The oracle shares nothing with the SQL.
 */
#include "base/error.h"
#include "base/text.h"
#include "connectors/votes.h"
#include "tests/support/test_database.h"
#include "tests/support/test_seed.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#define CLASSIFICATIONS 900
#define REDUCTIONS      240
#define WRITERS         6
#define GALAXIES        12 /* of TEST_GALAXIES: voters must meet again */
#define VOTERS          8
#define RETIRE          20

static unsigned seed;

/* --- the stream --------------------------------------------------------------------------------------------------- */

static const int first_answer[4] = {0, 2, 5, 7}; /* q0 has 2 answers, q1 3, q2 2 */
static const char *const mark_names[5] = {"seen_before", "gold_standard", "retired", "not_live", "odd"};

struct one_vote {
    int answer;               /* index, or -1 = no vote on this question */
    const char *strange_name; /* "q9" or "a9" in place of the question's or answer's name, or NULL */
};

struct classification {
    int galaxy; /* 0 = one nobody knows */
    int voter;  /* -1 = unknown */
    int marks;  /* bits of mark_names */
    struct one_vote vote[3];
};

struct reduction {
    int galaxy, question, updated_at;
    int votes[3];
};

static struct classification stream[CLASSIFICATIONS];
static struct reduction reductions[REDUCTIONS];

static int below(unsigned *random, int limit)
{
    return rand_r(random) % limit;
}

static void make_stream(unsigned *random)
{
    for (int i = 0; i < CLASSIFICATIONS; i++) {
        struct classification *made = &stream[i];
        *made = (struct classification){.galaxy = below(random, 40) ? 1 + below(random, GALAXIES) : 0,
                                        .voter = below(random, 6) - 1 < 0 ? -1 : below(random, VOTERS)};
        for (int m = 0; m < 5; m++)
            made->marks |= (below(random, m == 4 ? 80 : 12) == 0) << m;
        for (int q = 0; q < 3; q++) {
            int count = first_answer[q + 1] - first_answer[q], odd = below(random, 40);
            made->vote[q].answer = q == 0 || below(random, 2) ? first_answer[q] + below(random, count) : -1;
            made->vote[q].strange_name = odd == 1 ? "q9" : odd == 2 ? "a9" : NULL;
        }
    }
    for (int i = 0; i < REDUCTIONS; i++) {
        reductions[i] = (struct reduction){.galaxy = 1 + below(random, GALAXIES),
                                           .question = 1 + below(random, 2), /* not the root: retirement stays simple */
                                           .updated_at = below(random, 40)};
        for (int a = 0; a < 3; a++)
            reductions[i].votes[a] = below(random, 30);
    }
}

/* --- the oracle ------------------------------------------------------------------------------------------------------ */

struct totals {
    long applied, repeated, ignored, quarantined;
    long tally[GALAXIES + 1][7];
};

struct rules {
    const char *voter;
    int count_also; /* bits of mark_names */
};

enum fate { COUNTS, IGNORED, MEANINGLESS };

static enum fate fate_of(const struct classification *given, const struct one_vote *vote, const struct rules *rules)
{
    if (given->marks & 16)
        return MEANINGLESS;
    if (given->marks & ~rules->count_also)
        return IGNORED;
    return given->galaxy == 0 || vote->strange_name ? MEANINGLESS : COUNTS;
}

/* The newest of the reductions of a question: by time, then by votes, then by the larger counts. */
static const struct reduction *newest(int galaxy, int question, int answers)
{
    const struct reduction *best = NULL;
    for (int i = 0; i < REDUCTIONS; i++) {
        const struct reduction *one = &reductions[i];
        if (one->galaxy != galaxy || one->question != question)
            continue;
        long by = best ? one->updated_at - best->updated_at : 1, sum = 0;
        for (int a = 0; a < answers && best; a++)
            sum += one->votes[a] - best->votes[a];
        by = by ? by : sum;
        for (int a = 0; a < answers && best && !by; a++)
            by = one->votes[a] - best->votes[a];
        if (by > 0)
            best = one;
    }
    return best;
}

static void one_pass(const struct rules *rules, struct totals *totals)
{
    static int chosen[GALAXIES + 1][3][VOTERS]; /* answer + 1 */
    memset(chosen, 0, sizeof chosen);
    memset(totals, 0, sizeof *totals);
    for (int i = 0; i < CLASSIFICATIONS; i++)
        for (int q = 0; q < 3; q++) {
            const struct one_vote *vote = &stream[i].vote[q];
            if (vote->answer < 0)
                continue;
            enum fate fate = fate_of(&stream[i], vote, rules);
            totals->ignored += fate == IGNORED;
            totals->quarantined += fate == MEANINGLESS;
            if (fate != COUNTS)
                continue;
            int galaxy = stream[i].galaxy, voter = stream[i].voter;
            int *before = voter >= 0 && strcmp(rules->voter, "all") != 0 ? &chosen[galaxy][q][voter] : NULL;
            if (before && *before) {
                totals->repeated++;
                if (strcmp(rules->voter, "last") != 0)
                    continue;
                totals->tally[galaxy][*before - 1]--;
                totals->applied--;
            }
            totals->tally[galaxy][vote->answer]++;
            totals->applied++;
            if (before)
                *before = vote->answer + 1;
        }
    for (int galaxy = 1; galaxy <= GALAXIES; galaxy++)
        for (int q = 1; q < 3; q++) {
            int first = first_answer[q], count = first_answer[q + 1] - first;
            const struct reduction *reduction = newest(galaxy, q, count);
            long counted = 0, reduced = 0;
            for (int a = 0; a < count && reduction; a++) {
                counted += totals->tally[galaxy][first + a];
                reduced += reduction->votes[a];
            }
            for (int a = 0; a < count && reduced > counted; a++)
                totals->tally[galaxy][first + a] = reduction->votes[a];
        }
}

static void assert_totals(struct database *database, const struct rules *rules)
{
    static struct totals wanted, got;
    struct database_result *rows = NULL;
    one_pass(rules, &wanted);
    memset(&got, 0, sizeof got);
    assert_int_equal(database_run(database, "SELECT galaxy, answer_index, votes FROM triage.tally", 0, NULL, &rows), 0);
    for (int i = 0; i < database_rows(rows); i++)
        got.tally[database_integer(rows, i, 0)][database_integer(rows, i, 1)] = (long)database_integer(rows, i, 2);
    database_result_free(rows);
    got.applied = (long)test_database_number(database, "SELECT applied FROM triage.cursor");
    got.repeated = (long)test_database_number(database, "SELECT repeated FROM triage.cursor");
    got.ignored = (long)test_database_number(database, "SELECT ignored FROM triage.cursor");
    got.quarantined = (long)test_database_number(database, "SELECT quarantined FROM triage.cursor");
    assert_int_equal(got.applied, wanted.applied);
    assert_int_equal(got.repeated, wanted.repeated);
    assert_int_equal(got.ignored, wanted.ignored);
    assert_int_equal(got.quarantined, wanted.quarantined);
    assert_memory_equal(got.tally, wanted.tally, sizeof wanted.tally);
    assert_int_equal(test_database_number(database, "SELECT count(*) FROM triage.quarantine"), wanted.quarantined);
    for (int galaxy = 1; galaxy <= GALAXIES; galaxy++) {
        char sql[200];
        long roots = wanted.tally[galaxy][0] + wanted.tally[galaxy][1];
        snprintf(sql, sizeof sql, "SELECT root_votes FROM triage.galaxy WHERE key = %d", galaxy);
        assert_int_equal(test_database_number(database, sql), roots);
    }
    assert_true(wanted.applied > 200 && wanted.quarantined > 20);
}

/* Everything that is derived from votes, in one order. */
static void fingerprint(struct database *database, char text[64])
{
    struct database_result *rows = NULL;
    const char *sql =
        "SELECT md5(concat((SELECT string_agg(t::text, ';' ORDER BY galaxy, answer_index) FROM triage.tally t), "
        "(SELECT string_agg(l::text, ';' ORDER BY galaxy, question, voter) FROM triage.voter_ledger l), "
        "(SELECT string_agg(q::text, ';' ORDER BY classification, question) FROM triage.quarantine q), "
        "(SELECT string_agg(key || ' ' || root_votes, ';' ORDER BY key) FROM triage.galaxy), "
        "(SELECT concat_ws(' ', applied, repeated, ignored, quarantined) FROM triage.cursor)))";
    assert_int_equal(database_run(database, sql, 0, NULL, &rows), 0);
    snprintf(text, 64, "%s", database_value(rows, 0, 0));
    database_result_free(rows);
}

/* --- writers ------------------------------------------------------------------------------------------------------------ */

struct writer {
    const struct test_database *test;
    unsigned random;
    int number;
    atomic_int *running;
    pthread_t thread;
};

static size_t append_vote(char *sql, size_t at, size_t size, int i, int q, int more)
{
    const struct classification *given = &stream[i];
    const struct one_vote *vote = &given->vote[q];
    char voter[16] = "NULL", galaxy[16] = "nowhere", marks[80] = "";
    if (given->voter >= 0)
        snprintf(voter, sizeof voter, "'v%d'", given->voter);
    if (given->galaxy)
        snprintf(galaxy, sizeof galaxy, "g%d", given->galaxy);
    for (int m = 0; m < 5; m++)
        if (given->marks & 1 << m)
            snprintf(marks + strlen(marks), sizeof marks - strlen(marks), "%s%s", *marks ? "," : "", mark_names[m]);
    char question[8], answer[8];
    snprintf(question, sizeof question, "q%d", q);
    snprintf(answer, sizeof answer, "a%d", vote->answer - first_answer[q]);
    if (vote->strange_name && vote->strange_name[0] == 'q')
        snprintf(question, sizeof question, "x%d",
                 q); /* one name per question: the key is (classification, question) */
    else if (vote->strange_name)
        snprintf(answer, sizeof answer, "%s", vote->strange_name);
    return at + (size_t)snprintf(sql + at, size - at, "%s(%d, '%s', '%s', '%s', %s, %s%s%s)", more ? ", " : "", i + 1,
                                 question, answer, galaxy, voter, *marks ? "'{" : "NULL", marks, *marks ? "}'" : "");
}

/* The classification numbers `some`, rising, in one statement: no two writers can wait for each other in a ring. */
static void put_votes(struct database *database, const int *some, int count)
{
    char sql[8192] = "INSERT INTO triage.vote (classification, question, answer, id_str, voter, marks) VALUES ";
    size_t at = strlen(sql), start = at;
    for (int k = 0; k < count; k++)
        for (int q = 0; q < 3; q++)
            if (stream[some[k]].vote[q].answer >= 0)
                at = append_vote(sql, at, sizeof sql, some[k], q, at > start);
    snprintf(sql + at, sizeof sql - at, " ON CONFLICT DO NOTHING");
    test_database_script(database, sql);
}

static void put_reduction(struct database *database, const struct reduction *reduction)
{
    char sql[256];
    const int *votes = reduction->votes;
    if (reduction->question == 1)
        snprintf(sql, sizeof sql,
                 "SELECT triage.put_reduction('g%d', 'q1', '{a0,a1,a2}', '{%d,%d,%d}', to_timestamp(%d))",
                 reduction->galaxy, votes[0], votes[1], votes[2], reduction->updated_at);
    else
        snprintf(sql, sizeof sql, "SELECT triage.put_reduction('g%d', 'q2', '{a0,a1}', '{%d,%d}', to_timestamp(%d))",
                 reduction->galaxy, votes[0], votes[1], reduction->updated_at);
    test_database_script(database, sql);
}

static int compare_int(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

static void shuffle(int *numbers, int count, unsigned *random)
{
    for (int i = count - 1; i > 0; i--) {
        int j = below(random, i + 1), kept = numbers[i];
        numbers[i] = numbers[j];
        numbers[j] = kept;
    }
}

/* Takes up to five off the line, in a transaction that stays open a little and may be rolled back; then they wait again. */
static int deliver_some(struct writer *writer, struct database *database, int *line, int left)
{
    unsigned *random = &writer->random;
    int some[5], count = 1 + below(random, 5), kept = below(random, 5) > 0;
    count = count < left ? count : left;
    memcpy(some, line + left - count, (size_t)count * sizeof *some);
    qsort(some, (size_t)count, sizeof *some, compare_int);
    test_database_script(database, "BEGIN");
    put_votes(database, some, count);
    if (below(random, 4) == 0)
        test_database_script(database, "SELECT pg_sleep(0.005)");
    test_database_script(database, kept ? "COMMIT" : "ROLLBACK");
    if (kept)
        return left - count;
    shuffle(line, left, random);
    return left;
}

/* Every writer delivers two thirds of the stream, so all of it comes and most of it twice or more. */
static void *deliver(void *context)
{
    struct writer *writer = context;
    struct database *database = test_database_connect(writer->test);
    int line[CLASSIFICATIONS], left = 0;
    for (int i = 0; i < CLASSIFICATIONS; i++)
        if (i % WRITERS == writer->number || below(&writer->random, 3) < 2)
            line[left++] = i;
    shuffle(line, left, &writer->random);
    for (int steps = 0; left; steps++) {
        left = deliver_some(writer, database, line, left);
        put_reduction(database, &reductions[below(&writer->random, REDUCTIONS)]);
    }
    for (int i = writer->number; i < REDUCTIONS; i += WRITERS)
        put_reduction(database, &reductions[i]);
    database_close(database);
    atomic_fetch_sub(writer->running, 1);
    return NULL;
}

static int64_t apply(struct database *database, int batch)
{
    char sql[96];
    snprintf(sql, sizeof sql, "SELECT was_read + cardinality(COALESCE(galaxies, '{}')) FROM triage.apply_votes(%d, %d)",
             batch, RETIRE);
    return test_database_number(database, sql);
}

static void use_rules(struct database *database, const struct rules *rules)
{
    char marks[96] = "", sql[200];
    for (int m = 0; m < 4; m++)
        if (rules->count_also & 1 << m)
            snprintf(marks + strlen(marks), sizeof marks - strlen(marks), "%s%s", *marks ? "," : "", mark_names[m]);
    snprintf(sql, sizeof sql, "SELECT triage.prepare_votes('%s', '{%s}', false)", rules->voter, marks);
    test_database_script(database, sql);
}

static void deliver_and_apply(struct test_database *test, unsigned *random)
{
    struct writer writers[WRITERS];
    atomic_int running = WRITERS;
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){
            .test = test, .number = i, .random = (unsigned)rand_r(random) + (unsigned)i, .running = &running};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, deliver, &writers[i]), 0);
    }
    while (atomic_load(&running))
        apply(test->database, 1 + below(random, 50));
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    while (apply(test->database, 1 + below(random, 200)) > 0)
        ;
}

static void any_delivery_is_one_clean_pass(void **state)
{
    struct test_database *test = *state;
    static const char *const voters[] = {"first", "last", "all"};
    unsigned random = seed;
    for (int round = 0; round < 4; round++) {
        struct rules rules = {voters[round % 3], round ? below(&random, 16) : 0};
        char before[64], after[64];
        make_stream(&random);
        test_database_fresh(test);
        use_rules(test->database, &rules);
        deliver_and_apply(test, &random);
        assert_totals(test->database, &rules);
        fingerprint(test->database, before);
        test_database_script(test->database, "SELECT triage.rebuild_tallies()");
        fingerprint(test->database, after);
        assert_string_equal(after, before);
        for (int i = 0; i < 3; i++) { /* other rules count the same votes again; the first ones come back the same */
            struct rules other = {voters[i], below(&random, 16)};
            use_rules(test->database, &other);
            assert_totals(test->database, &other);
        }
        use_rules(test->database, &rules);
        fingerprint(test->database, after);
        assert_string_equal(after, before);
    }
}

/* Delivered again after all that, from the first to the last, nothing changes. */
static void delivering_everything_again_changes_nothing(void **state)
{
    struct test_database *test = *state;
    char before[64], after[64];
    int all[CLASSIFICATIONS];
    fingerprint(test->database, before);
    for (int i = 0; i < CLASSIFICATIONS; i++)
        all[i] = i;
    for (int i = 0; i < CLASSIFICATIONS; i += 5)
        put_votes(test->database, all + i, 5);
    for (int i = 0; i < REDUCTIONS; i++)
        put_reduction(test->database, &reductions[i]);
    assert_int_equal(apply(test->database, 100000), 0);
    fingerprint(test->database, after);
    assert_string_equal(after, before);
}

static void an_older_reduction_never_overwrites_a_newer_one(void **state)
{
    struct test_database *test = *state;
    test_database_fresh(test);
    const struct {
        const char *votes, *when;
        int newer;
    } given[] = {
        {"{3,1}",   "2026-05-02 11:08:54Z",     1},
        {"{9,9}",   "2026-05-02 11:08:53.999Z", 0},
        {"{3,1}",   "2026-05-02 11:08:54Z",     0},
        {"{3,2}",   "2026-05-02 11:08:54Z",     1}, /* the same moment, one vote more */
        {"{4,0}",   "2026-05-02 11:08:54Z",     0},
        {"{40,20}", "2026-05-02 11:09:00Z",     1},
        {"{1,1}",   "2026-05-02 11:10:00Z",     1}, /* the platform may take votes back */
        {"{40,20}", "2026-05-02 11:09:00Z",     0}, /* a late retry */
    };
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        char sql[200];
        snprintf(sql, sizeof sql, "SELECT triage.put_reduction('g7', 'q2', '{a0,a1}', '%s', '%s')::int", given[i].votes,
                 given[i].when);
        assert_int_equal(test_database_number(test->database, sql), given[i].newer);
        apply(test->database, 10);
    }
    assert_int_equal(test_database_number(
                         test->database, "SELECT votes FROM triage.tally_by_name WHERE id_str = 'g7' AND answer = 'a1' "
                                         "AND question = 'q2'"),
                     1);
    /* our own count of the question takes over as soon as it has more */
    for (int i = 1; i <= 3; i++) {
        char sql[160];
        snprintf(sql, sizeof sql,
                 "INSERT INTO triage.vote (classification, question, answer, id_str) VALUES (%d, 'q2', 'a0', 'g7')", i);
        test_database_script(test->database, sql);
    }
    apply(test->database, 10);
    assert_int_equal(test_database_number(test->database, "SELECT sum(votes) FROM triage.tally WHERE galaxy = 7"), 3);
}

/* --- many, by COPY --------------------------------------------------------------------------------------------------- */

#define MANY        100000
#define MANY_VOTERS 300

struct many {
    unsigned random;
    int made;
    int first[TEST_GALAXIES + 1][MANY_VOTERS]; /* answer to q1 + 1, of the lowest classification so far */
    int lowest[TEST_GALAXIES + 1][MANY_VOTERS];
};

/* Classifications come in a shuffled order: number i is at place i * 7919 modulo a prime. */
static int next_of_many(void *context, struct text *line)
{
    struct many *many = context;
    if (many->made == MANY)
        return 0;
    int classification = 1 + (int)((int64_t)++many->made * 7919 % 100003);
    int galaxy = 1 + below(&many->random, TEST_GALAXIES), voter = below(&many->random, MANY_VOTERS);
    int answer = below(&many->random, 3);
    if (!many->first[galaxy][voter] || classification < many->lowest[galaxy][voter]) {
        many->first[galaxy][voter] = answer + 1;
        many->lowest[galaxy][voter] = classification;
    }
    text_append(line, "%d\tq1\ta%d\tg%d\tv%d\n", classification, answer, galaxy, voter);
    return 1;
}

static void many_votes_by_copy_are_applied_and_rebuilt_the_same(void **state)
{
    struct test_database *test = *state;
    static struct many many;
    char applied[64], rebuilt[64];
    many.random = seed;
    test_database_fresh(test);
    assert_int_equal(database_copy(test->database,
                                   "COPY triage.vote (classification, question, answer, id_str, voter) FROM STDIN",
                                   next_of_many, &many),
                     0);
    while (apply(test->database, 7000) > 0)
        ;
    fingerprint(test->database, applied);
    test_database_script(test->database, "SELECT triage.rebuild_tallies()");
    fingerprint(test->database, rebuilt);
    assert_string_equal(rebuilt, applied);
    for (int galaxy = 1; galaxy <= TEST_GALAXIES; galaxy++)
        for (int a = 0; a < 3; a++) {
            char sql[128];
            int votes = 0;
            for (int v = 0; v < MANY_VOTERS; v++)
                votes += many.first[galaxy][v] == a + 1;
            snprintf(sql, sizeof sql, "SELECT votes FROM triage.tally WHERE galaxy = %d AND answer_index = %d", galaxy,
                     first_answer[1] + a);
            assert_int_equal(test_database_number(test->database, sql), votes);
        }
    assert_int_equal(test_database_number(test->database, "SELECT applied + repeated FROM triage.cursor"), MANY);
}

static int setup(void **state)
{
    seed = test_seed();
    return test_database_setup(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_delivery_is_one_clean_pass),
        cmocka_unit_test(delivering_everything_again_changes_nothing),
        cmocka_unit_test(an_older_reduction_never_overwrites_a_newer_one),
        cmocka_unit_test(many_votes_by_copy_are_applied_and_rebuilt_the_same),
    };
    return cmocka_run_group_tests(tests, setup, test_database_teardown);
}
