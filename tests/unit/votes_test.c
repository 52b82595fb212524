/*
 * Votes are applied exactly once, whatever the writers and the reader do: many writers with long, rolled back and repeated
 * transactions, batches of any size, a reader that is killed. The oracle reads the raw votes and applies them one after
 * the other in C; it shares nothing with the SQL function.
 */
#include "connectors/votes.h"
#include "base/error.h"
#include "tests/support/test_database.h"
#include "tests/support/test_seed.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#define ANSWERS 7
#define VOTERS  12
#define RETIRE  9
#define WRITERS 6
#define ROUNDS  40

static unsigned seed;

/* --- the oracle -------------------------------------------------------------------------------------------- */

struct totals {
    long applied, repeated, quarantined;
    long tally[TEST_GALAXIES + 1][ANSWERS];
};

static const struct {
    const char *question, *answer;
} answers[ANSWERS] = {
    {"q0", "a0"},
    {"q0", "a1"},
    {"q1", "a0"},
    {"q1", "a1"},
    {"q1", "a2"},
    {"q2", "a0"},
    {"q2", "a1"}
};

static int answer_of(const char *question, const char *answer)
{
    for (int a = 0; a < ANSWERS; a++)
        if (strcmp(answers[a].question, question) == 0 && strcmp(answers[a].answer, answer) == 0)
            return a;
    return -1;
}

/* One clean pass over the raw votes in the order of their classifications, whatever order they came in. */
static void one_pass(struct database *database, struct totals *totals)
{
    static char seen[TEST_GALAXIES + 1][3][VOTERS];
    struct database_result *votes = NULL;
    memset(totals, 0, sizeof *totals);
    memset(seen, 0, sizeof seen);
    assert_int_equal(database_run(database,
                                  "SELECT id_str, question, answer, voter FROM triage.vote "
                                  "ORDER BY classification, question",
                                  0, NULL, &votes),
                     0);
    for (int i = 0; i < database_rows(votes); i++) {
        const char *id_str = database_value(votes, i, 0), *voter = database_value(votes, i, 3);
        int answer = answer_of(database_value(votes, i, 1), database_value(votes, i, 2));
        int galaxy = id_str[0] == 'g' ? (int)strtol(id_str + 1, NULL, 10) : 0;
        if (galaxy < 1 || galaxy > TEST_GALAXIES || answer < 0) {
            totals->quarantined++;
            continue;
        }
        char *voted = voter ? &seen[galaxy][answers[answer].question[1] - '0'][strtol(voter, NULL, 10)] : NULL;
        if (voted && *voted) {
            totals->repeated++;
            continue;
        }
        if (voted)
            *voted = 1;
        totals->applied++;
        totals->tally[galaxy][answer]++;
    }
    database_result_free(votes);
}

static void read_tallies(struct database *database, struct totals *totals)
{
    struct database_result *rows = NULL;
    assert_int_equal(database_run(database, "SELECT galaxy, answer_index, votes FROM triage.tally", 0, NULL, &rows), 0);
    memset(totals, 0, sizeof *totals);
    for (int i = 0; i < database_rows(rows); i++)
        totals->tally[database_integer(rows, i, 0)][database_integer(rows, i, 1)] = (long)database_integer(rows, i, 2);
    database_result_free(rows);
    totals->applied = (long)test_database_number(database, "SELECT applied FROM triage.cursor");
    totals->repeated = (long)test_database_number(database, "SELECT repeated FROM triage.cursor");
    totals->quarantined = (long)test_database_number(database, "SELECT quarantined FROM triage.cursor");
}

static void assert_same(const struct totals *got, const struct totals *wanted)
{
    assert_int_equal(got->applied, wanted->applied);
    assert_int_equal(got->repeated, wanted->repeated);
    assert_int_equal(got->quarantined, wanted->quarantined);
    assert_memory_equal(got->tally, wanted->tally, sizeof wanted->tally);
}

/* Tallies, counters, quarantine and retirement of the database against one clean pass. */
static void assert_exactly_once(struct database *database)
{
    static struct totals got, wanted;
    one_pass(database, &wanted);
    read_tallies(database, &got);
    assert_same(&got, &wanted);
    assert_int_equal(test_database_number(database, "SELECT count(*) FROM triage.quarantine"), wanted.quarantined);
    for (int galaxy = 1; galaxy <= TEST_GALAXIES; galaxy++) {
        char sql[160];
        long roots = wanted.tally[galaxy][0] + wanted.tally[galaxy][1];
        snprintf(sql, sizeof sql, "SELECT root_votes FROM triage.galaxy WHERE key = %d", galaxy);
        assert_int_equal(test_database_number(database, sql), roots);
        snprintf(sql, sizeof sql, "SELECT (retired_at IS NOT NULL)::int FROM triage.galaxy WHERE key = %d", galaxy);
        assert_int_equal(test_database_number(database, sql), roots >= RETIRE);
    }
}

/* --- writers ------------------------------------------------------------------------------------------------- */

/*
 * One statement that inserts `count` votes with rising numbers from `first` on, so that writers who deliver the same
 * numbers wait for each other in one order and never for ever. Some votes mean nothing, some were delivered before.
 */
static void write_votes(struct database *database, unsigned *random, int first, int count)
{
    char sql[16384] = "INSERT INTO triage.vote (classification, question, answer, id_str, voter) VALUES ";
    size_t at = strlen(sql);
    for (int i = 0; i < count; i++) {
        int answer = rand_r(random) % ANSWERS, galaxy = 1 + rand_r(random) % TEST_GALAXIES, odd = rand_r(random) % 40;
        char voter[16] = "NULL";
        if (rand_r(random) % 5)
            snprintf(voter, sizeof voter, "'%d'", rand_r(random) % VOTERS);
        first += 1 + rand_r(random) % 3;
        at += (size_t)snprintf(sql + at, sizeof sql - at, "%s(%d, '%s', '%s', '%s%d', %s)", i ? ", " : "", first,
                               odd == 1 ? "q9" : answers[answer].question, odd == 2 ? "a9" : answers[answer].answer,
                               odd == 3 ? "nowhere" : "g", galaxy, voter);
    }
    snprintf(sql + at, sizeof sql - at, " ON CONFLICT DO NOTHING");
    test_database_script(database, sql);
}

struct writer {
    const struct test_database *test;
    int number;
    unsigned random;
    atomic_int *running;
    pthread_t thread;
};

/*
 * Two connections: a transaction of the slow one stays open over several of the quick one's and then commits or rolls
 * back, so votes become visible in another order than they were written. Quick ones repeat each other's numbers; the slow
 * one has numbers of its own, so that nobody waits for it.
 */
static void *write_for_a_while(void *context)
{
    struct writer *writer = context;
    unsigned *random = &writer->random;
    struct database *quick = test_database_connect(writer->test), *slow = test_database_connect(writer->test);
    for (int round = 0; round < ROUNDS; round++) {
        test_database_script(slow, "BEGIN");
        write_votes(slow, random, 100000 * (writer->number + 1) + rand_r(random) % 500, 1 + rand_r(random) % 5);
        for (int i = rand_r(random) % 5; i >= 0; i--)
            write_votes(quick, random, rand_r(random) % 3000, 1 + rand_r(random) % 8);
        test_database_script(slow, rand_r(random) % 3 ? "COMMIT" : "ROLLBACK");
    }
    database_close(quick);
    database_close(slow);
    atomic_fetch_sub(writer->running, 1);
    return NULL;
}

static void start_writers(struct test_database *test, struct writer *writers, atomic_int *running)
{
    atomic_store(running, WRITERS);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] =
            (struct writer){.test = test, .number = i, .random = seed + 1000u * (unsigned)i, .running = running};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_for_a_while, &writers[i]), 0);
    }
}

static void join_writers(struct writer *writers)
{
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
}

/* --- the reader ---------------------------------------------------------------------------------------------- */

/* What the daemon would hold in its pool: the tallies it was told of. */
struct reader {
    struct database *database;
    bool busy, idle, more;
    int calls;
    uint64_t horizon;
    struct totals told;
    int retired[TEST_GALAXIES + 1];
};

static void on_applied(void *context, int code, const struct votes_applied_batch *batch)
{
    struct reader *reader = context;
    if (code)
        fail_msg("%s", error_message());
    reader->busy = false;
    reader->idle = batch->read == 0;
    reader->more = batch->more;
    reader->calls++;
    assert_true(batch->horizon >= reader->horizon); /* it never goes back */
    reader->horizon = batch->horizon;
    reader->told.applied += batch->applied;
    reader->told.repeated += batch->repeated;
    reader->told.quarantined += batch->quarantined;
    for (int i = 0; i < batch->count; i++)
        reader->told.tally[batch->galaxy[i]][batch->answer_index[i]] = batch->votes[i];
    for (int i = 0; i < batch->retired_count; i++)
        assert_int_equal(reader->retired[batch->retired[i]]++, 0); /* said once */
}

static void apply_once(struct reader *reader, int batch)
{
    reader->busy = true;
    if (votes_send_apply(reader->database, batch, RETIRE, on_applied, reader))
        fail_msg("%s", error_message());
    while (reader->busy) {
        struct pollfd set = {.fd = database_descriptor(reader->database),
                             .events = database_poll_events(reader->database)};
        database_step(reader->database);
        if (reader->busy)
            poll(&set, 1, 100);
    }
}

static void open_reader(struct test_database *test, struct reader *reader)
{
    memset(reader, 0, sizeof *reader);
    assert_int_equal(database_start(test->postgres.url, &reader->database), 0);
    while (database_state(reader->database) != DATABASE_READY) {
        struct pollfd set = {.fd = database_descriptor(reader->database),
                             .events = database_poll_events(reader->database)};
        database_step(reader->database);
        poll(&set, 1, 20);
    }
}

/* --- tests --------------------------------------------------------------------------------------------------- */

static void many_writers_and_one_reader_agree_with_one_clean_pass(void **state)
{
    static struct reader reader;
    struct test_database *test = *state;
    struct writer writers[WRITERS];
    atomic_int running;
    unsigned random = seed;
    test_database_fresh(test);
    open_reader(test, &reader);
    start_writers(test, writers, &running);
    while (atomic_load(&running))
        apply_once(&reader, 1 + rand_r(&random) % 60);
    join_writers(writers);
    do
        apply_once(&reader, 1 + rand_r(&random) % 60);
    while (!reader.idle);
    database_close(reader.database);
    assert_exactly_once(test->database);

    static struct totals wanted;
    one_pass(test->database, &wanted);
    assert_same(&reader.told, &wanted);
    assert_true(wanted.applied > 500 && wanted.repeated > 100 && wanted.quarantined > 50);
    for (int galaxy = 1; galaxy <= TEST_GALAXIES; galaxy++)
        assert_int_equal(reader.retired[galaxy], wanted.tally[galaxy][0] + wanted.tally[galaxy][1] >= RETIRE);
    print_message("  %ld applied, %ld repeated, %ld quarantined in %d calls\n", wanted.applied, wanted.repeated,
                  wanted.quarantined, reader.calls);
}

/* What `id > last` would lose: a transaction that began first and commits last. */
static void a_vote_that_becomes_visible_late_is_not_lost(void **state)
{
    static struct reader reader;
    struct test_database *test = *state;
    test_database_fresh(test);
    test_database_script(test->database, "ALTER TABLE triage.vote ADD COLUMN serial bigserial");
    struct database *slow = test_database_connect(test), *quick = test_database_connect(test);
    open_reader(test, &reader);
    test_database_script(slow, "BEGIN; INSERT INTO triage.vote (classification, question, answer, id_str) "
                               "VALUES (1, 'q0', 'a0', 'g1')");
    test_database_script(quick, "INSERT INTO triage.vote (classification, question, answer, id_str) "
                                "VALUES (2, 'q0', 'a1', 'g1')");
    int64_t naive = test_database_number(quick, "SELECT count(*) FROM triage.vote");
    int64_t last = test_database_number(quick, "SELECT max(serial) FROM triage.vote");
    apply_once(&reader, 100);
    assert_int_equal(reader.told.applied, 0); /* neither: the first may still come before the second */
    test_database_script(slow, "COMMIT");
    char sql[96];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM triage.vote WHERE serial > %lld", (long long)last);
    naive += test_database_number(quick, sql);
    assert_int_equal(naive, 1); /* of 2: the obvious cursor has lost one */
    apply_once(&reader, 100);
    assert_int_equal(reader.told.applied, 2);
    assert_exactly_once(test->database);
    database_close(slow);
    database_close(quick);
    database_close(reader.database);
}

static void a_transaction_larger_than_a_batch_is_taken_in_parts(void **state)
{
    static struct reader reader;
    struct test_database *test = *state;
    unsigned random = seed + 7;
    test_database_fresh(test);
    test_database_script(test->database, "BEGIN");
    for (int i = 0; i < 40; i++)
        write_votes(test->database, &random, 1000 * i, 50);
    test_database_script(test->database, "COMMIT");
    int64_t xid = test_database_number(test->database, "SELECT max(xid::text::bigint) FROM triage.vote");
    open_reader(test, &reader);
    for (int call = 1; call <= 8; call++) {
        apply_once(&reader, 250);
        assert_true(reader.more);
        if (call < 8) /* a ranking now must not claim to know this transaction */
            assert_true(reader.horizon <= (uint64_t)xid);
    }
    apply_once(&reader, 250);
    assert_true(reader.idle && reader.horizon > (uint64_t)xid);
    assert_exactly_once(test->database);
    database_close(reader.database);
}

/* A process that applies until it is killed. */
static void apply_until_killed(const char *url, unsigned random)
{
    struct database *database;
    signal(SIGALRM, SIG_DFL);
    alarm(60);
    if (database_open(url, &database) == 0)
        for (;;) {
            char sql[96];
            snprintf(sql, sizeof sql, "SELECT * FROM triage.apply_votes(%d, %d)", 1 + rand_r(&random) % 12, RETIRE);
            database_run(database, sql, 0, NULL, NULL);
        }
    _exit(1);
}

static void a_killed_reader_neither_loses_nor_repeats(void **state)
{
    static struct reader reader;
    struct test_database *test = *state;
    unsigned random = seed + 99;
    test_database_fresh(test);
    struct database *writer = test_database_connect(test);
    int kills = 0;
    for (int round = 0; round < 20; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            apply_until_killed(test->postgres.url, random + (unsigned)round);
        int64_t before = test_database_number(writer, "SELECT applied FROM triage.cursor");
        for (int i = 0; i < 6 + rand_r(&random) % 10; i++)
            write_votes(writer, &random, 5000 * round + 200 * i, 1 + rand_r(&random) % 20);
        while (test_database_number(writer, "SELECT applied FROM triage.cursor") == before)
            ; /* it works: now */
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        kills += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }
    assert_int_equal(kills, 20);
    open_reader(test, &reader);
    do
        apply_once(&reader, 100);
    while (!reader.idle);
    database_close(reader.database);
    database_close(writer);
    assert_exactly_once(test->database);
}

static void tallies_made_again_are_the_same(void **state)
{
    static struct reader reader;
    static struct totals before, after;
    struct test_database *test = *state;
    unsigned random = seed + 3;
    test_database_fresh(test);
    test_database_script(test->database, "INSERT INTO triage.catalogue_count VALUES (3, 1, 17); "
                                         "INSERT INTO triage.tally VALUES (3, 1, 17); "
                                         "UPDATE triage.galaxy SET root_votes = 17 WHERE key = 3");
    for (int i = 0; i < 60; i++)
        write_votes(test->database, &random, rand_r(&random) % 2000, 1 + rand_r(&random) % 12);
    open_reader(test, &reader);
    do
        apply_once(&reader, 33);
    while (!reader.idle);
    read_tallies(test->database, &before);
    int64_t roots = test_database_number(test->database, "SELECT sum(root_votes * key) FROM triage.galaxy");
    assert_true(before.tally[3][1] >= 17 && before.applied > 100);
    write_votes(test->database, &random, 9000, 20); /* behind the cursor: not in the tallies yet */
    test_database_script(test->database, "UPDATE triage.tally SET votes = votes + 1 WHERE galaxy % 3 = 0; "
                                         "DELETE FROM triage.tally WHERE galaxy = 5; SELECT triage.rebuild_tallies()");
    read_tallies(test->database, &after);
    assert_same(&after, &before);
    assert_int_equal(test_database_number(test->database, "SELECT sum(root_votes * key) FROM triage.galaxy"), roots);
    database_close(reader.database);
}

static void wrong_batches_are_refused(void **state)
{
    struct test_database *test = *state;
    assert_int_equal(votes_send_apply(test->database, 0, RETIRE, on_applied, NULL), ERROR_LIMIT);
    assert_int_equal(votes_send_apply(test->database, 100001, RETIRE, on_applied, NULL), ERROR_LIMIT);
}

static int setup(void **state)
{
    seed = test_seed();
    return test_database_setup(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_writers_and_one_reader_agree_with_one_clean_pass),
        cmocka_unit_test(a_vote_that_becomes_visible_late_is_not_lost),
        cmocka_unit_test(a_transaction_larger_than_a_batch_is_taken_in_parts),
        cmocka_unit_test(a_killed_reader_neither_loses_nor_repeats),
        cmocka_unit_test(tallies_made_again_are_the_same),
        cmocka_unit_test(wrong_batches_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, test_database_teardown);
}
