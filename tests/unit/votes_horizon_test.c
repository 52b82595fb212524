/*
 * Votes that come in odd ways: transactions that commit in another order than they began, a writer that is stuck, a galaxy
 * that is imported after its votes, a database restored into another server, partitions made under way, rows too large.
 * Nothing is lost or counted twice, and what waits can be seen.
 */
#include "base/error.h"
#include "connectors/galaxies.h"
#include "connectors/votes.h"
#include "tests/support/test_database.h"
#include "tests/support/test_seed.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#define WRITERS 8
#define EACH    40

static unsigned seed;

static int64_t number(struct database *database, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void run(struct database *database, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int64_t number(struct database *database, const char *format, ...)
{
    char sql[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sql, sizeof sql, format, arguments);
    va_end(arguments);
    return test_database_number(database, sql);
}

static void run(struct database *database, const char *format, ...)
{
    char sql[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sql, sizeof sql, format, arguments);
    va_end(arguments);
    test_database_script(database, sql);
}

static int64_t apply(struct database *database, int batch)
{
    return number(database, "SELECT was_read FROM triage.apply_votes(%d, 0)", batch);
}

static void vote(struct database *database, long classification, const char *galaxy)
{
    run(database,
        "INSERT INTO triage.vote (classification, question, answer, id_str, voter) VALUES (%ld, 'q0', 'a1', '%s', "
        "'v%ld')",
        classification, galaxy, classification);
}

static int64_t tallied(struct database *database)
{
    return number(database, "SELECT COALESCE(sum(votes), 0) FROM triage.tally");
}

/* --- the horizon ------------------------------------------------------------------------------------------------------ */

struct writer {
    struct test_database *test;
    unsigned random;
    int number;
    atomic_int *running;
    pthread_t thread;
};

/* Short transactions that stay open for up to 20 ms between the vote and the commit; one that fails is tried again. */
static void *write_slowly(void *context)
{
    struct writer *writer = context;
    struct database *database = test_database_connect(writer->test);
    for (int i = 0; i < EACH;) {
        char sql[160];
        int classification = 1 + i * WRITERS + writer->number;
        snprintf(sql, sizeof sql,
                 "INSERT INTO triage.vote (classification, question, answer, id_str) VALUES (%d, 'q0', 'a1', 'g1')",
                 classification);
        run(database, "BEGIN");
        int result = database_script(database, sql);
        if (!result)
            run(database, "SELECT pg_sleep(%d / 1000.0)", rand_r(&writer->random) % 20);
        run(database, result ? "ROLLBACK" : "COMMIT");
        i += result == 0;
    }
    database_close(database);
    atomic_fetch_sub(writer->running, 1);
    return NULL;
}

/* The obvious cursor: remembers the highest serial number it has seen. */
struct naive {
    int64_t last, seen;
};

static void read_naively(struct database *database, struct naive *naive)
{
    struct database_result *rows = NULL;
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT count(*), max(serial) FROM triage.vote WHERE serial > %lld",
             (long long)naive->last);
    assert_int_equal(database_run(database, sql, 0, NULL, &rows), 0);
    naive->seen += database_integer(rows, 0, 0);
    if (database_integer(rows, 0, 0))
        naive->last = database_integer(rows, 0, 1);
    database_result_free(rows);
}

static void the_naive_cursor_loses_votes_and_ours_none(void **state)
{
    struct test_database *test = *state;
    struct writer writers[WRITERS];
    struct naive naive = {0};
    atomic_int running = WRITERS;
    test_database_fresh(test);
    run(test->database, "ALTER TABLE triage.vote ADD COLUMN serial bigserial");
    struct database *slow = test_database_connect(test), *reader = test_database_connect(test);
    run(slow, "BEGIN"); /* one overlap that is certain; the others follow the clock */
    vote(slow, 100000, "g2");
    vote(test->database, 100001, "g2");
    read_naively(reader, &naive);
    apply(reader, 100);
    run(slow, "COMMIT");
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.test = test, .random = seed + (unsigned)i, .number = i, .running = &running};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_slowly, &writers[i]), 0);
    }
    while (atomic_load(&running)) {
        read_naively(reader, &naive);
        apply(reader, 100);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    read_naively(reader, &naive);
    while (apply(reader, 100))
        ;
    int64_t written = number(reader, "SELECT count(*) FROM triage.vote");
    print_message("  of %lld votes the naive cursor lost %lld\n", (long long)written,
                  (long long)(written - naive.seen));
    assert_int_equal(written, WRITERS * EACH + 2);
    assert_true(naive.seen < written);
    assert_int_equal(tallied(reader), written);
    database_close(slow);
    database_close(reader);
}

static void a_stuck_writer_is_named_and_nothing_is_lost(void **state)
{
    struct test_database *test = *state;
    test_database_fresh(test);
    struct database *stuck = test_database_connect(test);
    run(stuck, "SET application_name = 'stuck-platform'; BEGIN");
    vote(stuck, 1, "g1");
    for (int i = 2; i <= 30; i++)
        run(test->database,
            "INSERT INTO triage.vote (classification, question, answer, id_str, created_at) "
            "VALUES (%d, 'q0', 'a0', 'g%d', clock_timestamp() - interval '2 minutes')",
            i, i);
    struct database_result *rows = NULL;
    assert_int_equal(database_run(test->database,
                                  "SELECT was_read, lag_s BETWEEN 120 AND 300, held_by FROM triage.apply_votes(100, 0)",
                                  0, NULL, &rows),
                     0);
    assert_int_equal(database_integer(rows, 0, 0), 0);
    assert_string_equal(database_value(rows, 0, 1), "t");
    assert_non_null(strstr(database_value(rows, 0, 2), "application \"stuck-platform\""));
    database_result_free(rows);
    assert_int_equal(tallied(test->database), 0);
    run(stuck, "COMMIT");
    assert_int_equal(apply(test->database, 100), 30);
    assert_int_equal(number(test->database, "SELECT (10 * lag_s)::int FROM triage.apply_votes(100, 0)"), 0);
    assert_int_equal(tallied(test->database), 30);
    database_close(stuck);
}

/* The grants of docs/database.md. */
static void a_connector_cannot_write_behind_the_cursor(void **state)
{
    struct test_database *test = *state;
    test_database_fresh(test);
    vote(test->database, 1, "g1");
    assert_int_equal(apply(test->database, 10), 1);
    struct database *connector = test_database_connect(test);
    run(test->database,
        "CREATE ROLE connector; GRANT USAGE ON SCHEMA triage TO connector; GRANT INSERT (classification, "
        "question, answer, id_str, voter, marks, classified_at) ON triage.vote TO connector; "
        "GRANT EXECUTE ON FUNCTION triage.put_reduction TO connector");
    run(connector, "SET ROLE connector");
    vote(connector, 2, "g1");
    run(connector,
        "INSERT INTO triage.vote (classification, question, answer, id_str, voter, marks, classified_at) VALUES "
        "(2, 'q0', 'a1', 'g1', 'v2', NULL, '2026-01-01') ON CONFLICT DO NOTHING");
    run(connector, "SELECT triage.put_reduction('g2', 'q2', '{a0}', '{7}', '2026-01-01')");
    static const char *const refused[] = {
        "INSERT INTO triage.vote (classification, question, answer, id_str, xid) VALUES (3, 'q0', 'a1', 'g1', '1')",
        "INSERT INTO triage.vote (classification, question, answer, id_str, created_at) VALUES (3, 'q0', 'a1', 'g1', "
        "now())",
        "UPDATE triage.vote SET xid = '1'",
        "INSERT INTO triage.reduction (id_str, question, answers, votes, updated_at, xid) VALUES ('g2', 'q1', '{a0}', "
        "'{1}', "
        "now(), '1')"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_int_equal(database_run(connector, refused[i], 0, NULL, NULL), ERROR_STATE);
        assert_non_null(strstr(error_message(), "permission denied"));
    }
    assert_int_equal(apply(test->database, 10), 1);
    assert_int_equal(tallied(test->database), 2 + 7);
    /* the owner of the table may; a rebuild finds it */
    run(test->database,
        "INSERT INTO triage.vote (classification, question, answer, id_str, xid) VALUES (3, 'q0', 'a1', "
        "'g1', '1')");
    assert_int_equal(apply(test->database, 10), 0);
    run(test->database, "SELECT triage.rebuild_tallies()");
    assert_int_equal(tallied(test->database), 3 + 7);
    database_close(connector);
    run(test->database, "DROP OWNED BY connector; DROP ROLE connector");
}

/* --- galaxies that come late ------------------------------------------------------------------------------------------- */

static int one_galaxy(void *context, struct galaxy_row *row)
{
    int *left = context;
    if (!(*left)--)
        return 0;
    *row = (struct galaxy_row){.id_str = "late", .file_loc = "/none.png", .ra = NAN, .dec = NAN};
    return 1;
}

static void votes_that_come_before_their_galaxy_count_when_it_comes(void **state)
{
    struct test_database *test = *state;
    struct import_report report;
    int left = 1;
    test_database_fresh(test);
    for (int i = 1; i <= 5; i++)
        vote(test->database, i, i == 3 ? "never" : "late");
    run(test->database, "SELECT triage.put_reduction('late', 'q2', '{a0}', '{7}', '2026-01-01')");
    apply(test->database, 3);
    apply(test->database, 3);
    assert_int_equal(number(test->database, "SELECT count(*) FROM triage.quarantine WHERE reason = 'unknown galaxy'"),
                     5);
    assert_int_equal(number(test->database, "SELECT count(*) FROM triage.reduction WHERE problem = 'unknown galaxy'"),
                     1);
    assert_int_equal(galaxies_import(test->database, &test->schema, 1, one_galaxy, &left, &report), 0);
    apply(test->database, 100);
    assert_int_equal(number(test->database, "SELECT root_votes FROM triage.galaxy WHERE id_str = 'late'"), 4);
    assert_int_equal(tallied(test->database), 4 + 7);
    assert_int_equal(number(test->database, "SELECT 100 * applied + 10 * quarantined + repeated FROM triage.cursor"),
                     410);
    run(test->database, "SELECT triage.rebuild_tallies()");
    assert_int_equal(tallied(test->database), 4 + 7);
    assert_int_equal(number(test->database, "SELECT 100 * applied + 10 * quarantined + repeated FROM triage.cursor"),
                     410);
    int64_t freed;
    assert_int_equal(votes_retry(test->database, &freed), 0);
    assert_int_equal(freed, 0);
}

static void retried_votes_have_waited_since_the_retry(void **state)
{
    struct test_database *test = *state;
    int64_t freed;
    test_database_fresh(test);
    run(test->database, "INSERT INTO triage.vote (classification, question, answer, id_str, created_at) "
                        "VALUES (1, 'q0', 'a0', 'late', clock_timestamp() - interval '2 hours')");
    apply(test->database, 10);
    struct database *open = test_database_connect(test);
    run(open, "BEGIN");
    vote(open, 2, "g1");
    run(test->database, "UPDATE triage.galaxy SET id_str = 'late' WHERE key = 5");
    assert_int_equal(votes_retry(test->database, &freed), 0);
    assert_int_equal(freed, 1);
    assert_int_equal(number(test->database, "SELECT (was_read = 0 AND lag_s BETWEEN 1e-6 AND 600)::int "
                                            "FROM triage.apply_votes(10, 0)"),
                     1);
    run(test->database, "UPDATE triage.cursor SET retried_at = clock_timestamp() - interval '1 hour'");
    assert_int_equal(number(test->database, "SELECT (lag_s BETWEEN 3600 AND 4200)::int FROM triage.apply_votes(10, 0)"),
                     1);
    run(open, "COMMIT");
    assert_int_equal(apply(test->database, 10), 2);
    database_close(open);
}

/* --- restore ------------------------------------------------------------------------------------------------------------ */

/* A restored dump has transaction numbers of the server it came from, higher than any of this one. */
static void a_restore_into_another_server_counts_every_vote_once(void **state)
{
    struct test_database *test = *state;
    test_database_fresh(test);
    for (int i = 1; i <= 20; i++)
        vote(test->database, i, "g1");
    apply(test->database, 100);
    run(test->database, "UPDATE triage.vote SET xid = '9000000000'; UPDATE triage.cursor SET xid = '9000000000', "
                        "classification = 20, question = 'q0', horizon = '9000000001', system_identifier = 17; "
                        "UPDATE triage.tally SET votes = 3");
    vote(test->database, 21, "g1");
    assert_int_equal(database_run(test->database, "SELECT triage.apply_votes(10, 0)", 0, NULL, NULL), ERROR_STATE);
    assert_non_null(strstr(error_message(), "restored into another server"));
    assert_int_equal(number(test->database, "SELECT (triage.prepare_votes('first', '{}', false) = "
                                            "'the database was restored into another server')::int"),
                     1);
    assert_int_equal(tallied(test->database), 21);
    vote(test->database, 22, "g1");
    assert_int_equal(apply(test->database, 100), 1);
    assert_int_equal(tallied(test->database), 22);
    assert_int_equal(number(test->database, "SELECT (triage.prepare_votes('first', '{}', false) IS NULL)::int"), 1);
}

/* --- partitions ----------------------------------------------------------------------------------------------------------- */

static void partitions_are_made_ahead_by_classification(void **state)
{
    struct test_database *test = *state;
    test_database_fresh(test);
    run(test->database, "UPDATE triage.cursor SET partition_ids = 1000");
    assert_int_equal(number(test->database, "SELECT made FROM triage.make_partitions()"),
                     2); /* nothing there yet: from 0 on */
    vote(test->database, 999, "g1");
    assert_int_equal(number(test->database, "SELECT count(*) FROM triage.vote_0"), 1);
    for (int i = 0; i < 50; i++)
        vote(test->database, 637000 + 37 * i, "g1"); /* 637000 .. 638813: nobody could know */
    assert_int_equal(apply(test->database, 100), 51);
    assert_int_equal(number(test->database, "SELECT made FROM triage.make_partitions()"), 2); /* 639 and 640 */
    assert_int_equal(number(test->database, "SELECT made FROM triage.make_partitions()"), 0);
    assert_int_equal(number(test->database, "SELECT count(*) FROM ONLY triage.vote_default"), 50);
    vote(test->database, 639000, "g1");
    vote(test->database, 640999, "g1");
    assert_int_equal(number(test->database, "SELECT count(*) FROM triage.vote_639"), 1);
    assert_int_equal(number(test->database, "SELECT count(*) FROM triage.vote_640"), 1);
    vote(test->database, 9223372036854775807, "g1"); /* strange ones stay in the default, and count */
    run(test->database,
        "INSERT INTO triage.vote (classification, question, answer, id_str) VALUES (-5, 'q0', 'a1', 'g1')");
    apply(test->database, 100);
    assert_int_equal(number(test->database, "SELECT made FROM triage.make_partitions()"),
                     1); /* behind the strange one: vote_2 */
    vote(test->database, 640500, "g1");
    apply(test->database, 100);
    assert_int_equal(number(test->database, "SELECT made FROM triage.make_partitions()"), 2);
    assert_int_equal(tallied(test->database), 56);
    /* the same key again is a repeat in whatever partition, and an old row is found by the rebuild */
    run(test->database, "INSERT INTO triage.vote (classification, question, answer, id_str) "
                        "VALUES (637000, 'q0', 'a1', 'g1') ON CONFLICT DO NOTHING");
    assert_int_equal(apply(test->database, 100), 0);
    run(test->database, "SELECT triage.rebuild_tallies()");
    assert_int_equal(tallied(test->database), 56);
    run(test->database,
        "UPDATE triage.cursor SET classification = 900000000000000000"); /* partition numbers beyond 32 bits */
    assert_int_equal(number(test->database, "SELECT made FROM triage.make_partitions()"), 2);
}

static void no_partition_is_made_beside_a_large_default(void **state)
{
    struct test_database *test = *state;
    test_database_fresh(test);
    run(test->database, "UPDATE triage.cursor SET partition_ids = 1000");
    for (int i = 0; i < 200; i++)
        vote(test->database, 5000 + i, "g1"); /* more than a page of 8 KiB */
    apply(test->database, 1000);
    run(test->database, "UPDATE triage.cursor SET default_bytes = 8192");
    assert_int_equal(number(test->database, "SELECT made FROM triage.make_partitions()"), 0);
    assert_int_equal(number(test->database, "SELECT (refused LIKE 'triage.vote_default holds %% kB')::int "
                                            "FROM triage.make_partitions()"),
                     1);
    assert_int_equal(number(test->database, "SELECT triage.make_partition(77)::int"), 0);
    run(test->database, "UPDATE triage.cursor SET default_bytes = 1000000");
    assert_int_equal(number(test->database, "SELECT (refused IS NULL)::int FROM triage.make_partitions()"), 1);
    run(test->database, "DROP TABLE triage.vote_6, triage.vote_7");
    assert_int_equal(number(test->database, "SELECT made FROM triage.make_partitions()"), 2);
}

static void a_writer_is_never_stalled_by_partitions(void **state)
{
    struct test_database *test = *state;
    test_database_fresh(test);
    struct database *open = test_database_connect(test);
    vote(test->database, 5000000, "g1");
    apply(test->database, 10);
    vote(test->database, 15000000, "g1"); /* ahead of its partition */
    run(open, "BEGIN");
    vote(open, 5000001, "g1");
    assert_int_equal(database_run(test->database, "SELECT triage.make_partitions()", 0, NULL, NULL), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "lock timeout"));
    run(open, "COMMIT");
    assert_int_equal(number(test->database, "SELECT made FROM triage.make_partitions()"),
                     1); /* the other one has votes by now */
    apply(test->database, 10);
    assert_int_equal(tallied(test->database), 3);
    database_close(open);
}

static void partitions_made_beside_writers_lose_nothing(void **state)
{
    struct test_database *test = *state;
    struct writer writers[WRITERS];
    atomic_int running = WRITERS;
    test_database_fresh(test);
    run(test->database, "UPDATE triage.cursor SET partition_ids = 64");
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.test = test, .random = seed + (unsigned)i, .number = i, .running = &running};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_slowly, &writers[i]), 0);
    }
    while (atomic_load(&running)) {
        apply(test->database, 20);
        database_run(test->database, "SELECT triage.make_partitions()", 0, NULL, NULL); /* may time out: tried again */
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    while (apply(test->database, 20))
        ;
    assert_int_equal(tallied(test->database), WRITERS * EACH);
    assert_true(number(test->database, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'triage.vote'::regclass") >=
                4);
}

/* --- sizes ------------------------------------------------------------------------------------------------------------------- */

static void rows_too_large_or_senseless_are_refused_by_name(void **state)
{
    struct test_database *test = *state;
    static const char *const statements[] = {
        "INSERT INTO triage.vote (classification, question, answer, id_str) VALUES (1, repeat('q', 256), 'a', 'g1')",
        "INSERT INTO triage.vote (classification, question, answer, id_str) VALUES (1, 'q0', repeat('a', 256), 'g1')",
        "INSERT INTO triage.vote (classification, question, answer, id_str) VALUES (1, 'q0', 'a0', repeat('g', 256))",
        "INSERT INTO triage.vote (classification, question, answer, id_str, voter) VALUES (1, 'q0', 'a0', 'g1', "
        "repeat('v', 256))",
        "INSERT INTO triage.vote (classification, question, answer, id_str, marks) VALUES (1, 'q0', 'a0', 'g1', "
        "array_fill('x'::text, '{9}'))",
        "SELECT triage.put_reduction('g1', 'q2', '{a0,a1}', '{1}', now())",
        "SELECT triage.put_reduction('g1', 'q2', '{a0}', '{-1}', now())",
        "SELECT triage.put_reduction('g1', 'q2', '{a0}', '{1000001}', now())",
        "SELECT triage.put_reduction('g1', 'q2', '{a0,NULL}', '{1,2}', now())",
        "SELECT triage.put_reduction('g1', 'q2', '{}', '{}', now())",
        "SELECT triage.put_reduction('g1', 'q2', '{a0}', '{1}', NULL)",
    };
    test_database_fresh(test);
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        assert_int_equal(database_run(test->database, statements[i], 0, NULL, NULL), ERROR_STATE);
    assert_int_equal(number(test->database, "SELECT count(*) FROM triage.vote"), 0);
    assert_int_equal(number(test->database, "SELECT count(*) FROM triage.reduction"), 0);
    /* names that mean nothing are kept with their reason, and stop nothing */
    run(test->database, "SELECT triage.put_reduction('g1', 'q7', '{a0}', '{1}', now()), "
                        "triage.put_reduction('g1', 'q2', '{a7}', '{1}', now()), "
                        "triage.put_reduction('g1', 'q1', '{a1,a1}', '{2,3}', now())");
    apply(test->database, 10);
    assert_int_equal(number(test->database, "SELECT count(*) FROM triage.reduction WHERE problem LIKE 'unknown %%'"),
                     2);
    assert_int_equal(tallied(test->database), 5);
}

static void marks_have_names(void **state)
{
    (void)state;
    assert_int_equal(votes_check_marks(""), 0);
    assert_int_equal(votes_check_marks("seen_before,retired ,  not_live"), 0);
    assert_int_equal(votes_check_marks("seen_befor"), ERROR_INPUT);
    assert_int_equal(votes_check_marks("retired, gold"), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "'gold' is no mark"));
}

static int setup(void **state)
{
    seed = test_seed();
    return test_database_setup(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_naive_cursor_loses_votes_and_ours_none),
        cmocka_unit_test(a_stuck_writer_is_named_and_nothing_is_lost),
        cmocka_unit_test(a_connector_cannot_write_behind_the_cursor),
        cmocka_unit_test(votes_that_come_before_their_galaxy_count_when_it_comes),
        cmocka_unit_test(retried_votes_have_waited_since_the_retry),
        cmocka_unit_test(a_restore_into_another_server_counts_every_vote_once),
        cmocka_unit_test(partitions_are_made_ahead_by_classification),
        cmocka_unit_test(no_partition_is_made_beside_a_large_default),
        cmocka_unit_test(a_writer_is_never_stalled_by_partitions),
        cmocka_unit_test(partitions_made_beside_writers_lose_nothing),
        cmocka_unit_test(rows_too_large_or_senseless_are_refused_by_name),
        cmocka_unit_test(marks_have_names),
    };
    return cmocka_run_group_tests(tests, setup, test_database_teardown);
}
