/* A private PostgreSQL in a folder of its own for one test program, with a fresh schema `triage` for each test. */
#ifndef TRIAGE_TESTS_TEST_DATABASE_H
#define TRIAGE_TESTS_TEST_DATABASE_H

#include "connectors/database.h"
#include "connectors/private_postgres.h"
#include "model/schema.h"

#define TEST_GALAXIES 40 /* named g1 .. g40, keys 1 .. 40 */

struct test_database {
    char folder[64];
    struct private_postgres postgres;
    struct schema schema; /* q0 (2 answers) -> q1 (3 answers), q2 (2 answers) */
    struct database *database;
};

/* Starts the server, or stops it and removes its folder. Failures end the test. */
void test_database_start(struct test_database *test);
void test_database_stop(struct test_database *test);

/* The same around a group of cmocka tests, with one server in *state for all of them. */
int test_database_setup(void **state);
int test_database_teardown(void **state);

/* Makes the schema `triage` again, empty but for the galaxies. */
void test_database_fresh(struct test_database *test);

/* A second connection; NULL never. Close with database_close(). */
struct database *test_database_connect(const struct test_database *test);

/* The only value of a statement, as a number. */
int64_t test_database_number(struct database *database, const char *sql);

/* Runs statements that must succeed. */
void test_database_script(struct database *database, const char *sql);

#endif
