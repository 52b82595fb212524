/*
 * The private PostgreSQL, migrations, registration and import of galaxies, and the asynchronous connection. Votes have a
 * test of their own.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "connectors/galaxies.h"
#include "connectors/migrate.h"
#include "connectors/migrations.h"
#include "tests/support/small_schema.h"
#include "tests/support/test_database.h"

#include <dlfcn.h>
#include <math.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

/* --- the private server --------------------------------------------------------------------------------------- */

static void a_running_server_is_adopted(void **state)
{
    struct test_database *test = *state;
    struct private_postgres again = {0};
    assert_int_equal(private_postgres_start(test->postgres.folder, &again), 0);
    assert_true(again.adopted);
    assert_int_equal(again.pid, test->postgres.pid);
    assert_string_equal(again.url, test->postgres.url);
    assert_int_equal(private_postgres_revive(&again, true), 0); /* nothing to do */
}

static void end_server(const struct private_postgres *postgres)
{
    struct database *database;
    assert_int_equal(kill(postgres->pid, SIGKILL), 0);
    while (!database_open(postgres->url, &database)) /* it may take a connection in its last moment */
        database_close(database);
}

/* However often it is killed: who has been answered since the last start need not wait for the next. */
static void a_server_that_answered_is_started_again_at_once(void **state)
{
    struct test_database *test = *state;
    struct private_postgres postgres;
    char path[300];
    snprintf(path, sizeof path, "%s/killed", test->folder);
    assert_int_equal(private_postgres_start(path, &postgres), 0);
    for (int kills = 0; kills < 8; kills++) {
        struct database *database;
        int code;
        end_server(&postgres);
        while ((code = private_postgres_revive(&postgres, false)) == 0)
            poll(NULL, 0, 10);
        assert_int_equal(code, 1);
        assert_true(postgres.retry_at_ms > 0 && postgres.retry_at_ms <= clock_ms() + 1000);
        while (database_open(postgres.url,
                             &database)) { /* a start can fail: what is left of the old server has to end first */
            private_postgres_revive(&postgres, false);
            poll(NULL, 0, 20);
        }
        database_close(database);
        assert_int_equal(private_postgres_revive(&postgres, true), 0);
        assert_int_equal(postgres.retry_at_ms, 0);
    }
    for (int starts = 0; starts < 2; starts++) { /* without an answer the second start has to wait */
        assert_int_equal(kill(postgres.pid, SIGKILL), 0);
        while (postgres.pid && private_postgres_revive(&postgres, false) == 0)
            poll(NULL, 0, 10);
    }
    assert_int_equal(private_postgres_revive(&postgres, false), 0);
    assert_true(postgres.retry_at_ms > clock_ms());
    assert_int_equal(private_postgres_stop(&postgres), 0);
}

static void a_folder_too_deep_for_a_socket_is_refused(void **state)
{
    struct test_database *test = *state;
    struct private_postgres postgres;
    char path[300];
    snprintf(path, sizeof path, "%s/%0120d", test->folder, 1);
    assert_int_equal(private_postgres_start(path, &postgres), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "too deep for a Unix socket"));
    assert_non_null(strstr(error_message(), "instance.state"));
    struct stat info;
    assert_int_equal(stat(path, &info), -1); /* nothing was made */
    snprintf(path, sizeof path, "%s/a,b", test->folder);
    assert_int_equal(private_postgres_start(path, &postgres), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "a,b/socket: a comma"));
    assert_int_equal(stat(path, &info), -1);
}

static void a_folder_may_have_spaces_and_quotes(void **state)
{
    struct test_database *test = *state;
    struct private_postgres postgres;
    struct database *database;
    char path[300];
    snprintf(path, sizeof path, "%s/it's a \\ folder", test->folder);
    if (private_postgres_start(path, &postgres) || database_open(postgres.url, &database))
        fail_msg("%s", error_message());
    assert_int_equal(test_database_number(database, "SELECT (current_database() = 'triage')::int"), 1);
    database_close(database);
    assert_int_equal(private_postgres_stop(&postgres), 0);
}

/* As an ordinary user: in a process of its own, as the user is changed for good. */
static void an_ordinary_user_has_one_too(void **state)
{
    (void)state;
    char folder[] = "/tmp/triage-test.XXXXXX", path[96], command[96];
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chmod(folder, 0777), 0);
    snprintf(path, sizeof path, "%s/postgres", folder);
    pid_t child = fork();
    if (child == 0) {
        struct private_postgres postgres;
        struct database *database;
        if (getuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(10);
        if (private_postgres_start(path, &postgres)) {
            fprintf(stderr, "%s\n", error_message());
            _exit(11);
        }
        int failed = database_open(postgres.url, &database) || database_script(database, "CREATE TABLE t (a int)");
        struct stat info;
        snprintf(path, sizeof path, "%s/postgres/data", folder);
        failed |= stat(path, &info) || info.st_uid != getuid();
        snprintf(path, sizeof path, "%s/postgres/socket", folder);
        failed |= stat(path, &info) || info.st_mode & 0077; /* nobody else reaches it */
        _exit(failed || private_postgres_stop(&postgres) ? 12 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- migrations ------------------------------------------------------------------------------------------------- */

static void migrations_run_once(void **state)
{
    struct test_database *test = *state;
    test_database_fresh(test);
    int64_t count = test_database_number(test->database, "SELECT count(*) FROM triage.migration");
    int64_t last = test_database_number(test->database, "SELECT max(xmin::text::bigint) FROM triage.migration");
    assert_int_equal(count, migration_count);
    assert_int_equal(migrate_run(test->database), 0);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.migration"), count);
    assert_int_equal(test_database_number(test->database, "SELECT max(xmin::text::bigint) FROM triage.migration"),
                     last);
}

static void a_newer_or_another_database_is_refused(void **state)
{
    struct test_database *test = *state;
    test_database_fresh(test);
    test_database_script(test->database, "INSERT INTO triage.migration VALUES (9999, 'from the future', 'x')");
    assert_int_equal(migrate_run(test->database), ERROR_STATE);
    assert_non_null(strstr(error_message(), "use the newer triaged"));
    test_database_script(test->database, "DELETE FROM triage.migration WHERE number = 9999; "
                                         "UPDATE triage.migration SET checksum = 'changed' WHERE number = 1");
    assert_int_equal(migrate_run(test->database), ERROR_STATE);
    assert_non_null(strstr(error_message(), "changed there"));
}

/* --- galaxies --------------------------------------------------------------------------------------------------- */

static void another_decision_tree_is_refused_with_both_hashes(void **state)
{
    struct test_database *test = *state;
    struct schema other;
    test_database_fresh(test);
    small_schema(&other, 2, (const int[]){2, 3}, (const int[]){-1, 0});
    assert_int_equal(galaxies_register(test->database, &other), ERROR_STATE);
    assert_non_null(strstr(error_message(), other.hash));
    assert_non_null(strstr(error_message(), test->schema.hash));
    assert_int_equal(galaxies_register(test->database, &test->schema), 0);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.answer"), 7);
}

struct list {
    const struct galaxy_row *row;
    int count, at, fails;
};

static int next_of_list(void *context, struct galaxy_row *row)
{
    struct list *list = context;
    if (list->at == list->count)
        return list->fails ? error_set(ERROR_INPUT, "line 5: broken") : 0;
    *row = list->row[list->at++];
    return 1;
}

static int import_list(struct test_database *test, const struct galaxy_row *rows, int count, int fails,
                       struct import_report *report)
{
    struct list list = {rows, count, 0, fails};
    return galaxies_import(test->database, &test->schema, count, next_of_list, &list, report);
}

static void an_import_is_all_or_nothing(void **state)
{
    struct test_database *test = *state;
    static const uint32_t votes[7] = {5, 2, 0, 0, 5, 1, 0};
    const struct galaxy_row rows[] = {
        {.id_str = "g1",                 .file_loc = "/none.png", .ra = NAN,     .dec = NAN                                  }, /* known */
        {.id_str = "tab\t \\ \"quote\"", .file_loc = "/a\nb",     .ra = 359.999, .dec = -90,                                   .votes = votes},
        {.id_str = "n\xc3\xa9",                              .file_loc = "/c",                                 .ra = 1e-300, .dec = NAN},
    };
    struct import_report report;
    test_database_fresh(test);
    assert_int_equal(import_list(test, rows, 3, 1, &report), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "line 5: broken"));
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.galaxy"), TEST_GALAXIES);

    assert_int_equal(import_list(test, rows, 3, 0, &report), 0);
    assert_int_equal(report.rows, 3);
    assert_int_equal(report.added, 2);
    assert_int_equal(report.known, 1);
    assert_int_equal(test_database_number(test->database, "SELECT max(key) FROM triage.galaxy"), TEST_GALAXIES + 2);
    assert_int_equal(
        test_database_number(test->database,
                             "SELECT count(*) FROM triage.galaxy WHERE id_str = E'tab\\t \\\\ \"quote\"' AND "
                             "file_loc = E'/a\\nb' AND ra = 359.999 AND dec = -90 AND root_votes = 7"),
        1);
    assert_int_equal(test_database_number(test->database, "SELECT sum(votes) FROM triage.tally"), 13);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.galaxy WHERE ra = 1e-300 AND "
                                                          "dec IS NULL"),
                     1);

    assert_int_equal(import_list(test, rows, 3, 0, &report), 0); /* again: nothing new */
    assert_int_equal(report.added, 0);
    assert_int_equal(test_database_number(test->database, "SELECT sum(votes) FROM triage.tally"), 13);

    const struct galaxy_row moved[] = {
        {.id_str = "new", .file_loc = "/new",           .ra = NAN, .dec = NAN},
        {.id_str = "g2",  .file_loc = "/elsewhere.png", .ra = NAN, .dec = NAN}
    };
    assert_true(import_list(test, moved, 2, 0, &report) < 0);
    assert_non_null(strstr(error_message(), "g2"));
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.galaxy WHERE id_str = 'new'"),
                     0);
}

/* --- the asynchronous connection ---------------------------------------------------------------------------------- */

/* The connection turns until `condition` holds; half a minute is for ever. */
#define TURN_WHILE(condition, database)                                                                                \
    for (int64_t limit_ms = clock_ms() + 30000; condition; turn(database))                                             \
    assert_true(clock_ms() < limit_ms)

static void turn(struct database *database)
{
    struct pollfd set = {.fd = database_descriptor(database), .events = database_poll_events(database)};
    poll(&set, 1, 20);
    database_step(database);
}

static void turn_until(struct database *database, enum database_state wanted)
{
    TURN_WHILE(database_state(database) != wanted, database);
}

/* In place of the C library's: "names.test" is asked of a name server that does not answer until the test lets it. */
static int name_server[2];
static atomic_int names_asked;

int getaddrinfo(const char *restrict name, const char *restrict service, const struct addrinfo *restrict hints,
                struct addrinfo **restrict ret_list)
{
    char byte;
    if (name && strcmp(name, "names.test") == 0) {
        atomic_fetch_add(&names_asked, 1);
        return read(name_server[0], &byte, 1) == 1 ? EAI_AGAIN : EAI_FAIL;
    }
    int (*original)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&original = dlsym(RTLD_NEXT, "getaddrinfo");
    return original(name, service, hints, ret_list);
}

/* A name server that does not answer stops neither the loop nor its end. */
static void names_are_resolved_beside_the_loop(void **state)
{
    (void)state;
    struct database *database;
    assert_int_equal(pipe(name_server), 0);
    assert_int_equal(database_start("host=names.test dbname=triage", &database), 0);
    TURN_WHILE(!atomic_load(&names_asked), database);
    for (int i = 0; i < 10; i++)
        turn(database);
    assert_int_equal(database_state(database), DATABASE_CONNECTING);
    assert_int_equal(write(name_server[1], "x", 1), 1);
    TURN_WHILE(database_state(database) != DATABASE_DOWN, database);
    assert_non_null(strstr(database_problem(database), "names.test"));
    TURN_WHILE(atomic_load(&names_asked) < 2, database); /* it tries again */
    database_close(database);
    assert_int_equal(write(name_server[1], "x", 1), 1); /* the thread that was let go ends by itself */
}

/* Announces 1000 bytes and sends them one by one, as long as somebody listens. */
static void trickle(int listener)
{
    static const char announced[] = {'R', 0, 0, 3, (char)0xe8, 0, 0, 0, 0};
    char request[1000];
    int client = accept(listener, NULL, NULL);
    struct pollfd gone = {.fd = client, .events = POLLIN};
    if (read(client, request, sizeof request) > 0 && write(client, announced, sizeof announced) > 0)
        while (poll(&gone, 1, 20) == 0 && write(client, "x", 1) == 1)
            ;
    _exit(0);
}

/* A server that always has something to say, but never lets anybody in. */
static void connecting_has_an_end(void **state)
{
    struct test_database *test = *state;
    struct database *database;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char url[200];
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%.60s/.s.PGSQL.5432", test->folder);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        trickle(listener);
    snprintf(url, sizeof url, "host=%s dbname=triage", test->folder);
    assert_int_equal(database_open(url, &database), ERROR_UNAVAILABLE);
    assert_string_equal(error_message(), "cannot connect: no answer within 4 s");
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(listener);
}

struct outcome {
    int calls, code;
    int64_t value;
    char message[ERROR_MESSAGE_BYTES];
};

static void on_done(void *context, int code, const struct database_result *result)
{
    struct outcome *outcome = context;
    outcome->calls++;
    outcome->code = code;
    if (code)
        snprintf(outcome->message, sizeof outcome->message, "%s", error_message());
    else
        outcome->value = database_integer(result, 0, 0);
}

/* Whoever polls is told at once that there is something to send: each batch of votes would otherwise wait for the loop's turn. */
static void a_statement_does_not_wait_for_the_next_turn(void **state)
{
    struct test_database *test = *state;
    struct outcome outcome = {0};
    struct database *database;
    assert_int_equal(database_start(test->postgres.url, &database), 0);
    turn_until(database, DATABASE_READY);
    assert_int_equal(database_poll_events(database), POLLIN);
    assert_int_equal(database_send(database, "SELECT 5", 0, NULL, on_done, &outcome), 0);
    assert_int_equal(database_poll_events(database), POLLIN | POLLOUT);
    database_step(database);
    assert_int_equal(database_poll_events(database), POLLIN); /* it is out: now for the answer */
    TURN_WHILE(!outcome.calls, database);
    assert_int_equal(outcome.value, 5);
    database_close(database);
}

static void statements_are_answered_in_order_and_once(void **state)
{
    struct test_database *test = *state;
    static struct outcome outcome[DATABASE_QUEUE_MAX + 10];
    struct database *database;
    memset(outcome, 0, sizeof outcome);
    assert_int_equal(database_start(test->postgres.url, &database), 0);
    assert_int_equal(database_send(database, "SELECT 1", 0, NULL, on_done, &outcome[0]), ERROR_UNAVAILABLE);
    turn_until(database, DATABASE_READY);
    int sent = 0;
    for (; sent < DATABASE_QUEUE_MAX + 10; sent++) {
        char number[16];
        snprintf(number, sizeof number, "%d", sent);
        const char *values[] = {number};
        int result = database_send(database, sent == 7 ? "SELECT 1 / 0, $1" : "SELECT $1::int * 3", 1, values, on_done,
                                   &outcome[sent]);
        if (result) {
            assert_int_equal(result, ERROR_LIMIT); /* the queue has its end */
            break;
        }
    }
    assert_in_range(sent, DATABASE_QUEUE_MAX / 2, DATABASE_QUEUE_MAX + 1);
    TURN_WHILE(!outcome[sent - 1].calls, database);
    for (int i = 0; i < sent; i++) {
        assert_int_equal(outcome[i].calls, 1);
        if (i == 7) { /* an error is that statement's alone */
            assert_int_equal(outcome[i].code, ERROR_STATE);
            assert_non_null(strstr(outcome[i].message, "division by zero"));
        } else
            assert_int_equal(outcome[i].value, 3 * i);
    }
    database_close(database);
}

static void a_lost_connection_is_told_and_mended(void **state)
{
    struct test_database *test = *state;
    struct outcome lost = {0}, after = {0};
    struct database *database;
    assert_int_equal(database_start(test->postgres.url, &database), 0);
    turn_until(database, DATABASE_READY);
    assert_int_equal(database_send(database, "SELECT pg_sleep(600)", 0, NULL, on_done, &lost), 0);
    while (test_database_number(test->database, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(600)' "
                                                "AND pid <> pg_backend_pid()") == 0)
        turn(database);
    test_database_number(test->database, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query "
                                         "LIKE '%sleep(600)' AND pid <> pg_backend_pid()");
    TURN_WHILE(!lost.calls, database);
    assert_int_equal(lost.code, ERROR_UNAVAILABLE);
    turn_until(database, DATABASE_READY);
    assert_int_equal(database_send(database, "SELECT 42", 0, NULL, on_done, &after), 0);
    TURN_WHILE(!after.calls, database);
    assert_int_equal(after.value, 42);
    assert_int_equal(lost.calls, 1);

    /* it listens again as well */
    (void)database_take_notice(database);
    test_database_script(test->database, "NOTIFY triage_vote");
    TURN_WHILE(!database_take_notice(database), database);
    assert_false(database_take_notice(database));
    struct outcome cancelled = {0};
    assert_int_equal(database_send(database, "SELECT 1", 0, NULL, on_done, &cancelled), 0);
    database_close(database);
    assert_int_equal(cancelled.code, ERROR_CANCELLED);
}

/* A statement given up for a signal goes on at the server: what comes after it says so, and nothing of memory. */
static void after_a_signal_only_closing_is_left(void **state)
{
    struct test_database *test = *state;
    struct database *database;
    sigset_t end, before;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigprocmask(SIG_BLOCK, &end, &before);
    assert_int_equal(database_open(test->postgres.url, &database), 0);
    raise(SIGTERM);
    assert_int_equal(database_script(database, "SELECT pg_sleep(2)"), ERROR_CANCELLED);
    assert_int_equal(database_script(database, "ROLLBACK"), ERROR_CANCELLED);
    assert_int_equal(database_run(database, "SELECT 1", 0, NULL, NULL), ERROR_CANCELLED);
    assert_non_null(strstr(error_message(), "stopped by a signal"));
    sigwaitinfo(&end, NULL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    database_close(database);
}

/* A slow statement on a server that lets nobody else in: the question whether it still works on it is refused, and that is no
 * reason to give the connection up. */
static void a_full_server_keeps_a_slow_connection(void **state)
{
    struct test_database *test = *state;
    struct outcome slow = {0};
    struct database *database;
    char url[512];
    test_database_script(test->database, "CREATE ROLE lonely LOGIN CONNECTION LIMIT 1");
    snprintf(url, sizeof url, "%s user=lonely", test->postgres.url); /* the last user of a string counts */
    assert_int_equal(database_start(url, &database), 0);
    turn_until(database, DATABASE_READY);
    assert_int_equal(database_send(database, "SELECT 7 FROM pg_sleep(6)", 0, NULL, on_done, &slow), 0);
    TURN_WHILE(!slow.calls, database);
    assert_int_equal(slow.code, 0);
    assert_int_equal(slow.value, 7);
    assert_int_equal(database_state(database), DATABASE_READY);
    struct database *second;
    assert_int_equal(database_open(url, &second), ERROR_UNAVAILABLE); /* so the question was refused */
    assert_non_null(strstr(error_message(), "too many connections"));
    database_close(database);
}

/* pg_ctl of the version and as the user of the cluster in `folder`. */
static void control_server(const char *folder, const char *words)
{
    char command[1000];
    snprintf(command, sizeof command,
             "cd '%s'; bin=/usr/lib/postgresql/$(cat data/PG_VERSION)/bin; as=; [ $(id -u) != 0 ] || "
             "as=\"setpriv --reuid=$(stat -c %%u data) --regid=$(stat -c %%g data) --clear-groups\"; "
             "$as $bin/pg_ctl -s -w -D data -l control.log -o \"-k $PWD/socket -c listen_addresses=\" %s",
             folder, words);
    assert_int_equal(system(command), 0);
}

/* A connection to a standby has its settings, and hears of votes once that is the primary. */
static void a_standby_becomes_the_primary(void **state)
{
    struct test_database *test = *state;
    struct private_postgres postgres;
    struct database *database, *other;
    struct outcome timeout = {0};
    char path[300], command[400];
    snprintf(path, sizeof path, "%s/standby", test->folder);
    assert_int_equal(private_postgres_start(path, &postgres), 0);
    assert_int_equal(private_postgres_stop(&postgres), 0);
    control_server(path, "start"); /* with the log of writes that a standby needs */
    control_server(path, "stop");
    snprintf(command, sizeof command, "touch '%s/data/standby.signal'", path);
    assert_int_equal(system(command), 0);
    control_server(path, "start");

    assert_int_equal(database_start(postgres.url, &database), 0);
    turn_until(database, DATABASE_READY);
    assert_int_equal(database_send(database,
                                   "SELECT pg_is_in_recovery()::int * (current_setting('statement_timeout') = "
                                   "'30s')::int * pg_backend_pid()",
                                   0, NULL, on_done, &timeout),
                     0);
    TURN_WHILE(!timeout.calls, database);
    assert_true(timeout.value > 0);
    assert_true(database_take_notice(database));
    assert_int_equal(database_open(postgres.url, &other), 0);
    test_database_script(other, "SELECT pg_promote()");
    TURN_WHILE(!database_take_notice(database), database); /* votes may have come before it listened */
    test_database_script(other, "NOTIFY triage_vote");
    TURN_WHILE(!database_take_notice(database), database);
    struct outcome after = {0};
    assert_int_equal(database_send(database, "SELECT pg_backend_pid()", 0, NULL, on_done, &after), 0);
    TURN_WHILE(!after.calls, database);
    assert_int_equal(after.value, timeout.value); /* the same connection */
    database_close(other);
    database_close(database);
    control_server(path, "stop");
}

static void arrays_of_numbers_are_read(void **state)
{
    (void)state;
    int64_t values[3];
    assert_int_equal(database_integers("{1,-2,9223372036854775807}", values, 3), 3);
    assert_true(values[0] == 1 && values[1] == -2 && values[2] == INT64_MAX);
    assert_int_equal(database_integers("{1,2,3,4}", values, 3), 3);
    assert_int_equal(database_integers("{}", values, 3), 0);
    assert_int_equal(database_integers(NULL, values, 3), 0);
    assert_int_equal(database_integers("", values, 3), 0);
}

/* Passwords are in no text that people or logs get to see, also of strings that libpq refuses. */
static void test_passwords_are_not_told(void **state)
{
    (void)state;
    static const char *const bad[] = {"host=/nowhere password=hunter2 hunter2", "hunter2", "password=hunter2 nokey=x",
                                      "postgresql://u:hunter2@[::1/x"};
    struct database *database;
    char text[200];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(database_open(bad[i], &database), ERROR_STATE);
        assert_null(strstr(error_message(), "hunter2"));
        assert_int_equal(database_start(bad[i], &database), ERROR_STATE);
        assert_null(strstr(error_message(), "hunter2"));
        database_describe(bad[i], text, sizeof text);
        assert_string_equal(text, "(malformed)");
    }
    database_describe("host=/run user=triage password='hunter2 x' dbname=sky", text, sizeof text);
    assert_non_null(strstr(text, "host=/run"));
    assert_non_null(strstr(text, "user=triage"));
    assert_non_null(strstr(text, "dbname=sky"));
    assert_null(strstr(text, "hunter2"));
    database_describe("postgresql://triage:hunter2@db.example/sky?sslpassword=hunter2", text, sizeof text);
    assert_non_null(strstr(text, "host=db.example"));
    assert_null(strstr(text, "hunter2"));
    assert_int_equal(database_open("host=/nowhere password=hunter2 connect_timeout=1", &database), ERROR_UNAVAILABLE);
    assert_null(strstr(error_message(), "hunter2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_passwords_are_not_told),
        cmocka_unit_test(a_running_server_is_adopted),
        cmocka_unit_test(a_server_that_answered_is_started_again_at_once),
        cmocka_unit_test(a_folder_too_deep_for_a_socket_is_refused),
        cmocka_unit_test(a_folder_may_have_spaces_and_quotes),
        cmocka_unit_test(an_ordinary_user_has_one_too),
        cmocka_unit_test(migrations_run_once),
        cmocka_unit_test(a_newer_or_another_database_is_refused),
        cmocka_unit_test(another_decision_tree_is_refused_with_both_hashes),
        cmocka_unit_test(an_import_is_all_or_nothing),
        cmocka_unit_test(names_are_resolved_beside_the_loop),
        cmocka_unit_test(connecting_has_an_end),
        cmocka_unit_test(a_statement_does_not_wait_for_the_next_turn),
        cmocka_unit_test(statements_are_answered_in_order_and_once),
        cmocka_unit_test(a_lost_connection_is_told_and_mended),
        cmocka_unit_test(after_a_signal_only_closing_is_left),
        cmocka_unit_test(a_full_server_keeps_a_slow_connection),
        cmocka_unit_test(a_standby_becomes_the_primary),
        cmocka_unit_test(arrays_of_numbers_are_read),
    };
    return cmocka_run_group_tests(tests, test_database_setup, test_database_teardown);
}
