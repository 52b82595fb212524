/* See test_database.h. */
#include "tests/support/test_database.h"
#include "base/error.h"
#include "connectors/galaxies.h"
#include "connectors/migrate.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

static void must(int result)
{
    if (result)
        fail_msg("%s", error_message());
}

void test_database_script(struct database *database, const char *sql)
{
    must(database_script(database, sql));
}

struct database *test_database_connect(const struct test_database *test)
{
    struct database *database = NULL;
    must(database_open(test->postgres.url, &database));
    return database;
}

int64_t test_database_number(struct database *database, const char *sql)
{
    struct database_result *result = NULL;
    must(database_run(database, sql, 0, NULL, &result));
    assert_int_equal(database_rows(result), 1);
    int64_t number = database_integer(result, 0, 0);
    database_result_free(result);
    return number;
}

void test_database_start(struct test_database *test)
{
    char path[96];
    snprintf(test->folder, sizeof test->folder, "/tmp/triage-test.XXXXXX");
    assert_non_null(mkdtemp(test->folder));
    assert_int_equal(chmod(test->folder, 0755), 0);
    snprintf(path, sizeof path, "%s/postgres", test->folder);
    must(private_postgres_start(path, &test->postgres));
    test->database = test_database_connect(test);
    small_schema(&test->schema, 3, (const int[]){2, 3, 2}, (const int[]){-1, 0, -1});
}

void test_database_stop(struct test_database *test)
{
    char command[96];
    database_close(test->database);
    must(private_postgres_stop(&test->postgres));
    snprintf(command, sizeof command, "rm -rf '%s'", test->folder);
    assert_int_equal(system(command), 0);
}

static int next_galaxy(void *context, struct galaxy_row *row)
{
    static char id_str[16];
    int *number = context;
    if (++*number > TEST_GALAXIES)
        return 0;
    snprintf(id_str, sizeof id_str, "g%d", *number);
    *row = (struct galaxy_row){.id_str = id_str, .file_loc = "/none.png", .ra = NAN, .dec = NAN};
    return 1;
}

int test_database_setup(void **state)
{
    static struct test_database test;
    test_database_start(&test);
    *state = &test;
    return 0;
}

int test_database_teardown(void **state)
{
    test_database_stop(*state);
    return 0;
}

void test_database_fresh(struct test_database *test)
{
    int number = 0;
    struct import_report report;
    test_database_script(test->database, "SET client_min_messages = warning; DROP SCHEMA IF EXISTS triage CASCADE");
    database_close(test->database); /* temporary tables and plans go with their connection */
    test->database = test_database_connect(test);
    must(migrate_run(test->database));
    must(galaxies_register(test->database, &test->schema));
    must(galaxies_import(test->database, &test->schema, TEST_GALAXIES, next_galaxy, &number, &report));
    assert_int_equal(report.added, TEST_GALAXIES);
}
