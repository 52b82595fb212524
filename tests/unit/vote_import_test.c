/*
 * Files of votes: every trap of a Zooniverse classification export, the plain form, rows without sense, imports that are
 * stopped, killed and done again. What must be in the database is written down row by row here.
 */
#include "connectors/vote_import.h"
#include "base/error.h"
#include "tests/support/test_database.h"
#include "tests/support/test_seed.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];
static struct voter_key key;
static unsigned seed;

static const char *put(const char *name, const char *text)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fputs(text, file) < 0, 0);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* The tree of test_database.h: q0 (a0, a1), q1 (a0, a1, a2), q2 (a0, a1). */
static const char *const workflow_text = "[workflow]\n"
                                         "ids = 77\n"
                                         "galaxy = !name, id_str\n"
                                         "ignored = T9\n"
                                         "[T0]\n"
                                         "question = q0\n"
                                         "a1 = Smooth | Rounded off\n"
                                         "a0 = Features or Disk\n"
                                         "[T1]\n"
                                         "question = q1\n"
                                         "a0 = Yes\n"
                                         "a1 = No\n"
                                         "a2 =\n"
                                         "[T2]\n"
                                         "question = q2\n"
                                         "a0 = Can't tell\n"
                                         "a1 = 2\n";

static void load_workflow(const struct schema *schema, struct workflow *workflow)
{
    if (workflow_load(put("workflow.ini", workflow_text), schema, workflow))
        fail_msg("%s", error_message());
}

/* --- workflows --------------------------------------------------------------------------------------------------- */

static void labels_and_positions_find_their_answers(void **state)
{
    struct test_database *test = *state;
    static struct workflow workflow;
    load_workflow(&test->schema, &workflow);
    const struct workflow_task *task = workflow_task(&workflow, "T0");
    assert_non_null(task);
    static const struct {
        const char *label;
        int answer;
    } labels[] = {
        {"Smooth",                                                                 1 },
        {"  sMOOTH\n",                                                             1 },
        {"![smooth.png](https://host/a_b(1).png) Smooth",                          -1}, /* a bracket in an address ends it */
        {"![smooth.png](https://host/a.png) Smooth",                               1 },
        {"![x](https://host/a.png)  Features   or\tDisk ![y](https://host/b.png)", 0 },
        {"[Features or Disk](+tab+https://host/)",                                 0 },
        {"**Rounded** off",                                                        1 },
        {"a0",                                                                     0 },
        {"",                                                                       -1},
        {"Smoot",                                                                  -1},
        {"Smooth or not",                                                          -1},
        {"![",                                                                     -1},
    };
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        assert_int_equal(workflow_answer_for(&workflow, task, labels[i].label), labels[i].answer);
    assert_int_equal(workflow_answer_at(task, 0), 1); /* the workflow's order, not the tree's */
    assert_int_equal(workflow_answer_at(task, 1), 0);
    assert_int_equal(workflow_answer_at(task, 2), -1);
    assert_int_equal(workflow_answer_at(task, -1), -1);
    assert_int_equal(workflow_answer_for(&workflow, workflow_task(&workflow, "T1"), ""),
                     -1); /* though a2 has no label */
    assert_null(workflow_task(&workflow, "T9"));
    assert_true(workflow_lists("T9, T10", "T10") && !workflow_lists("T9, T10", "T1") && !workflow_lists("", "T1"));
}

static void wrong_workflows_are_refused_by_line(void **state)
{
    struct test_database *test = *state;
    static struct workflow workflow;
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"",                                          "names no task"                       },
        {"[T0]\n",                                    "task T0 has no answers"              },
        {"[T0]\nquestion = q7\n",                     ":2: decision tree"                   },
        {"[T0]\na0 = x\n",                            ":2: the first key"                   },
        {"[T0]\nquestion = q0\na7 = x\n",             ":3: question q0 has no answer a7"    },
        {"[T0]\nquestion = q0\na0 = x\n[T0]\n",       ":4: task T0 appears twice"           },
        {"[T0]\nquestion = q0\nquestion = q1\n",      ":3: task T0 has its question already"},
        {"[workflow]\nid = 3\n",                      ":2: unknown key id"                  },
        {"ids = 3\n",                                 ":1: ids stands in front"             },
        {"[a key that is far too long for a task]\n", ":1: longer than"                     },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_true(workflow_load(put("wrong.ini", wrong[i].text), &test->schema, &workflow) < 0);
        if (!strstr(error_message(), wrong[i].message))
            fail_msg("'%s' in place of '%s'", error_message(), wrong[i].message);
    }
    assert_int_equal(workflow_load("/nonexistent.ini", &test->schema, &workflow), ERROR_NOT_FOUND);
}

static void the_workflows_that_are_shipped_fit_their_trees(void **state)
{
    (void)state;
    static struct schema schema;
    static struct workflow workflow;
    if (schema_load(TRIAGE_SOURCE_FOLDER "/etc/schemas/decals.ini", &schema) ||
        workflow_load(TRIAGE_SOURCE_FOLDER "/etc/workflows/decals.ini", &schema, &workflow))
        fail_msg("%s", error_message());
    assert_int_equal(workflow.tasks, schema.questions);
    for (int t = 0; t < workflow.tasks; t++) /* every answer has a position */
        assert_int_equal(workflow.task[t].answers, schema.question[workflow.task[t].question].count);
}

/* --- an export ------------------------------------------------------------------------------------------------------ */

static const char *const export_header = "classification_id,user_name,user_id,user_ip,workflow_id,workflow_name,"
                                         "workflow_version,created_at,gold_standard,expert,metadata,annotations,"
                                         "subject_data,subject_ids\n";

/* One row; quotes in the JSON are doubled here. */
static void append_row(char *text, size_t size, const char *id, const char *user, const char *more,
                       const char *metadata, const char *annotations, const char *subject_data, const char *subject)
{
    const char *json[] = {metadata, annotations, subject_data};
    size_t at = strlen(text);
    at += (size_t)snprintf(text + at, size - at, "%s,name,%s,ip,%s,", id, user, more);
    for (int i = 0; i < 3; i++) {
        at += (size_t)snprintf(text + at, size - at, "\"");
        for (const char *c = json[i]; *c; c++)
            at += (size_t)snprintf(text + at, size - at, *c == '"' ? "\"\"" : "%c", *c);
        at += (size_t)snprintf(text + at, size - at, "\",");
    }
    snprintf(text + at, size - at, "%s\n", subject);
}

#define USUAL "77,Galaxies,12.34,2026-05-02 11:08:54 UTC,,"

static const char *export_text(void)
{
    static char text[65536];
    snprintf(text, sizeof text, "\xef\xbb\xbf%s", export_header);
#define ROW(id, user, more, metadata, annotations, data, subject)                                                      \
    append_row(text, sizeof text, id, user, more, metadata, annotations, data, subject)
    ROW("1", "8085", USUAL, "{\"session\":\"s1\",\"live_project\":true}",
        "[{\"task\":\"T0\",\"value\":\"![a](http://b/c.png) Features or Disk\"},{\"task\":\"T1\",\"value\":\"No\"},"
        "{\"task\":\"T2\",\"value\":null},{\"task\":\"T9\",\"value\":[6]}]",
        "{\"9\":{\"retired\":{\"id\":5,\"retired_at\":\"x\"},\"!name\":\"g1\",\"id_str\":\"no\"}}", "9");
    ROW("2", "", USUAL, "{\"session\":\"s1\"}", "[{\"task\":\"T0\",\"value\":0},{\"task\":\"T0\",\"value\":1}]",
        "{\"9\":{\"id_str\":\"g2\"}}", "9"); /* by position; the volunteer went back */
    ROW("3", "", USUAL, "{\"session\":\"s2\",\"seen_before\":true}", "[{\"task\":\"T0\",\"value\":\"smooth\"}]",
        "{\"9\":{\"!name\":\"g2\"}}", "9");
    ROW("4", "", "77,Galaxies,12.34,2026-05-02T11:08:54.123Z,true,", "{\"live_project\":false}",
        "[{\"task\":\"T0\",\"value\":\"Smooth\"}]", "{\"9\":{\"!name\":\"g3\"}}",
        "9"); /* no session: nobody knows who */
    ROW("5", "7", USUAL, "{\"subject_selection_state\":{\"retired\":true,\"already_seen\":false}}",
        "[{\"task\":\"T2\",\"value\":\"2\"}]", "{\"9\":{\"!name\":\"g3\"}}", "9");
    ROW("6", "7", USUAL, "{}",
        "[{\"task\":\"T0\",\"value\":7},{\"task\":\"T1\",\"value\":\"Maybe "
        "\\u2603\"},{\"task\":\"T2\",\"value\":[\"2\",\"Can't tell\"]},"
        "{\"task\":\"T5\",\"value\":\"Yes\"}]",
        "{\"9\":{\"!name\":\"g4\"}}", "9"); /* nothing of it is known */
    ROW("7", "7", "78,Other,1.1,2026-05-02 11:08:54 UTC,,", "{}", "[{\"task\":\"T0\",\"value\":0}]", "{}",
        "9"); /* passed over */
    ROW("8", "7", USUAL, "{}", "[{\"task\":\"T2\",\"value\":[\"Can't tell\"]},{\"task\":\"T0\",\"value\":[]}]", "{}",
        "104567"); /* the subject's number */
    ROW("9x", "7", USUAL, "{}", "[]", "{}", "9");
    ROW("99999999999999999999", "7", USUAL, "{}", "[]", "{}", "9");
    ROW("10", "7", USUAL, "{\"session\"", "[]", "{}", "9");
    ROW("11", "7", USUAL, "[]", "[]", "{}", "9");
    ROW("12", "7", USUAL, "{}", "{}", "{}", "9");
    ROW("13", "7", USUAL, "{}", "[]", "{}", "9;10"); /* two subjects */
    ROW("14", "7", USUAL, "{}", "[{\"value\":1}]", "{}", "9");
    ROW("15", "seven", USUAL, "{}", "[]", "{}", "9");
    ROW("16", "7", "77,Galaxies,12.34,yesterday,,", "{}", "[]", "{}", "9");
    ROW("17", "7", "77,Galaxies,12.34,2026-02-29 10:00:00 UTC,,", "{}", "[]", "{}", "9");
    ROW("18", "7", USUAL, "{}", "[]", "nothing", "9");
    snprintf(text + strlen(text), sizeof text - strlen(text), "19,too,few,fields\n\n");
    ROW("20", "7", USUAL, "{}", "[{\"task\":\"T0\",\"value\":0}]", "{\"9\":{\"!name\":12}}",
        "9"); /* an id that is a number */
    return text;
}

/* Every vote as "classification question answer id_str voter marks", in order. */
static void assert_votes(struct database *database, const char *const *wanted, int count)
{
    struct database_result *rows = NULL;
    assert_int_equal(
        database_run(database,
                     "SELECT concat_ws(' ', classification, question, answer, id_str, COALESCE(voter, '-'), "
                     "COALESCE(marks::text, '-')) FROM triage.vote ORDER BY classification, question",
                     0, NULL, &rows),
        0);
    for (int i = 0; i < database_rows(rows) && i < count; i++)
        assert_string_equal(database_value(rows, i, 0), wanted[i]);
    assert_int_equal(database_rows(rows), count);
    database_result_free(rows);
}

static void must_import(struct test_database *test, const char *path, const struct workflow *workflow,
                        struct vote_import_progress *progress)
{
    if (vote_import(test->database, path, workflow, &key, 4, NULL, NULL, progress))
        fail_msg("%s", error_message());
}

static void every_trap_of_an_export(void **state)
{
    struct test_database *test = *state;
    static struct workflow workflow;
    struct vote_import_progress progress;
    char name_1[VOTER_NAME_BYTES], name_2[VOTER_NAME_BYTES], second[80], third[80];
    test_database_fresh(test);
    load_workflow(&test->schema, &workflow);
    must_import(test, put("export.csv", export_text()), &workflow, &progress);
    voter_name(&key, "s1", name_1);
    voter_name(&key, "s2", name_2);
    assert_string_not_equal(name_1, name_2);
    snprintf(second, sizeof second, "2 q0 a0 g2 %s -", name_1);
    snprintf(third, sizeof third, "3 q0 a1 g2 %s {seen_before}", name_2);
    const char *const wanted[] = {"1 q0 a0 g1 u:8085 -",
                                  "1 q1 a1 g1 u:8085 -",
                                  second,
                                  third,
                                  "4 q0 a1 g3 - {gold_standard,not_live}",
                                  "5 q2 a1 g3 u:7 {retired}",
                                  "6 T5 (unknown task) g4 u:7 -",
                                  "6 q0 7 g4 u:7 -",
                                  "6 q1 maybe \xe2\x98\x83 g4 u:7 -",
                                  "6 q2 [\"2\",\"Can't tell\"] g4 u:7 -",
                                  "8 q2 a0 104567 u:7 -",
                                  "20 q0 a1 12 u:7 -"};
    assert_votes(test->database, wanted, 12);
    assert_int_equal(progress.rows, 21);
    assert_int_equal(progress.votes, 12);
    assert_int_equal(progress.added, 12);
    assert_int_equal(progress.passed_over, 1);
    assert_int_equal(progress.rejected, 12);
    struct database_result *rows = NULL;
    static const char *const reasons[] = {"classification '9x' is not a whole number",
                                          "classification '99999999999999999999' is not a whole number",
                                          "metadata is no JSON: ",
                                          "metadata is no JSON object",
                                          "annotations is no JSON array",
                                          "subject_ids '9;10' is not the number of one subject",
                                          "an annotation names no task",
                                          "user_id 'seven' is not a number",
                                          "time 'yesterday' is not like",
                                          "time '2026-02-29 10:00:00 UTC' is not a moment",
                                          "subject_data is no JSON",
                                          "4 fields, the header has 14"};
    assert_int_equal(
        database_run(test->database, "SELECT reason FROM triage.rejected_row ORDER BY line", 0, NULL, &rows), 0);
    assert_int_equal(database_rows(rows), 12);
    for (int i = 0; i < 12; i++)
        if (strncmp(database_value(rows, i, 0), reasons[i], strlen(reasons[i])) != 0)
            fail_msg("'%s' in place of '%s'", database_value(rows, i, 0), reasons[i]);
    database_result_free(rows);
    assert_int_equal(test_database_number(test->database, "SELECT max(line) FROM triage.rejected_row"), 21);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.vote WHERE classified_at = "
                                                          "'2026-05-02 11:08:54 UTC'"),
                     12);
}

static void the_same_file_again_changes_nothing(void **state)
{
    struct test_database *test = *state;
    static struct workflow workflow;
    struct vote_import_progress progress;
    char other[200], path[200];
    load_workflow(&test->schema, &workflow);
    snprintf(path, sizeof path, "%s/export.csv", folder);
    must_import(test, path, &workflow, &progress);
    assert_true(progress.finished_before);
    assert_int_equal(progress.votes, 12);
    snprintf(other, sizeof other, "%s/renamed.csv", folder);
    assert_int_equal(rename(path, other), 0);
    must_import(test, other, &workflow, &progress); /* under another name it is read again, and nothing is new */
    assert_false(progress.finished_before);
    assert_int_equal(progress.votes, 12);
    assert_int_equal(progress.added, 0);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.vote"), 12);
}

static void an_anonymous_person_is_the_same_only_under_the_same_key(void **state)
{
    (void)state;
    char path[160], name[VOTER_NAME_BYTES], again[VOTER_NAME_BYTES], other[VOTER_NAME_BYTES];
    struct voter_key first, second;
    struct stat info;
    snprintf(path, sizeof path, "%s/first.key", folder);
    assert_int_equal(voter_key_open(path, &first), 0);
    voter_name(&first, "a session", name);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(voter_key_open(path, &second), 0);
    voter_name(&second, "a session", again);
    assert_string_equal(again, name);
    snprintf(path, sizeof path, "%s/second.key", folder);
    assert_int_equal(voter_key_open(path, &second), 0);
    voter_name(&second, "a session", other);
    assert_string_not_equal(other, name);
    assert_int_equal(strlen(name), 34);
    assert_int_equal(chmod(put("bad.key", "not a key\n"), 0600), 0);
    assert_int_equal(voter_key_open(put("bad.key", "not a key\n"), &second), ERROR_INPUT);
    assert_int_equal(chmod(put("short.key", "00112233\n"), 0600), 0);
    assert_int_equal(voter_key_open(put("short.key", "00112233\n"), &second), ERROR_INPUT);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(voter_key_open(path, &second), ERROR_STATE);
    assert_non_null(strstr(error_message(), "chmod 600"));
    memset(first.bytes, 0x42, sizeof first.bytes);
    voter_name(&first, "a session", name);
    /* python3: hashlib.blake2b(b"a session", digest_size=16, key=b"\x42" * 32).hexdigest() */
    assert_string_equal(name, "s:67eca9122844551409dc3f820573bfff");
}

/* Another host, another state folder, a lost file: each would make a second voter of every anonymous volunteer. */
static void a_database_takes_no_second_key(void **state)
{
    struct test_database *test = *state;
    char first[160], second[160], name[VOTER_NAME_BYTES], again[VOTER_NAME_BYTES];
    struct voter_key mine = {{0}}, other;
    test_database_fresh(test);
    snprintf(first, sizeof first, "%s/here.key", folder);
    snprintf(second, sizeof second, "%s/elsewhere.key", folder);
    assert_int_equal(voter_key_of_database(test->database, first, &mine), 0);
    voter_name(&mine, "a session", name);
    assert_int_equal(voter_key_of_database(test->database, second, &other), ERROR_STATE);
    assert_non_null(strstr(error_message(), "is gone"));
    assert_int_equal(access(second, F_OK), -1); /* none was made */
    assert_int_equal(voter_key_open(second, &other), 0);
    assert_int_equal(voter_key_of_database(test->database, second, &other), ERROR_STATE);
    assert_non_null(strstr(error_message(), "is another key"));
    assert_int_equal(rename(first, second), 0); /* the same key from anywhere */
    assert_int_equal(voter_key_of_database(test->database, second, &other), 0);
    voter_name(&other, "a session", again);
    assert_string_equal(again, name);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.voter_key"), 1);
}

static void of_first_imports_at_once_one_makes_the_key(void **state)
{
    struct test_database *test = *state;
    enum { IMPORTS = 8 };
    pid_t child[IMPORTS];
    char path[160];
    struct voter_key mine;
    test_database_fresh(test);
    snprintf(path, sizeof path, "%s/raced.key", folder);
    test_database_script(test->database, "BEGIN; LOCK TABLE triage.voter_key");
    for (int i = 0; i < IMPORTS; i++)
        if ((child[i] = fork()) == 0) {
            struct database *database;
            char name[VOTER_NAME_BYTES], sql[200];
            if (database_open(test->postgres.url, &database) || voter_key_of_database(database, path, &mine))
                _exit(1);
            voter_name(&mine, "a session", name);
            snprintf(sql, sizeof sql, "INSERT INTO public.named VALUES ('%s')", name);
            _exit(database_script(database, sql) ? 2 : 0);
        }
    while (test_database_number(test->database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = "
                                                "'triage.voter_key'::regclass") < IMPORTS)
        usleep(10000);
    test_database_script(test->database, "CREATE TABLE public.named (name text); COMMIT"); /* all go at once */
    for (int i = 0; i < IMPORTS; i++) {
        int status;
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(test_database_number(test->database, "SELECT 100 * count(*) + count(DISTINCT name) FROM named"),
                     100 * IMPORTS + 1);
    test_database_script(test->database, "DROP TABLE public.named");
}

/* --- one vote per row ------------------------------------------------------------------------------------------------- */

static void plain_files(void **state)
{
    struct test_database *test = *state;
    struct vote_import_progress progress;
    test_database_fresh(test);
    must_import(test,
                put("plain.csv", "id_str,answer,question,classification,voter,marks,classified_at,comment\r\n"
                                 "g1,a0,q0,1,ada,,2026-01-31T00:00:00Z,\r\n"
                                 "g1,a2,q1,1,ada,\"seen_before, retired\",,\"two\nlines\"\r\n"
                                 "g1,a0,q0,1,eve,,,the same classification again\r\n"
                                 "\"g\t1\",a0,q0,2,,,,\r\n"
                                 ",a0,q0,3,,,,\r\n"
                                 "g1,a0,q0,,,,,\r\n"
                                 "g1,a0,q0,4,,{x},,\r\n"
                                 "g1,\xff,q0,5,,,,\r\n"
                                 "g2,back\\slash,q0,-6,,,,"),
                NULL, &progress);
    const char *const wanted[] = {"-6 q0 back\\slash g2 - -", "1 q0 a0 g1 ada -",
                                  "1 q1 a2 g1 ada {seen_before,retired}"};
    assert_votes(test->database, wanted, 3);
    assert_int_equal(progress.rows, 9);
    assert_int_equal(progress.rejected, 5);
    assert_int_equal(progress.votes, 4);
    assert_int_equal(progress.added, 3);
}

/* Whatever stands in `marks`, it is taken or the row is rejected by its line: it never stops the file. */
static void odd_marks_cost_their_row_only(void **state)
{
    struct test_database *test = *state;
    struct vote_import_progress progress;
    char rows[2000], long_mark[300];
    test_database_fresh(test);
    memset(long_mark, 'x', sizeof long_mark);
    long_mark[254] = 0;
    snprintf(rows, sizeof rows,
             "classification,question,answer,id_str,marks\n"
             "1,q0,a0,g1,\"a,b,c,d,e,f,g,h\"\n2,q0,a0,g1,null\n3,q0,a0,g1, retired \n"
             "4,q0,a0,g1,\"seen_before,,retired\"\n5,q0,a0,g1,\"a,b,c,d,e,f,g,h,i\"\n6,q0,a0,g1,\",\"\n"
             "7,q0,a0,g1,\"a,\"\n8,q0,a0,g1,a b\n9,q0,a0,g1,%s\n10,q0,a0,g1,%.253s\n",
             long_mark, long_mark);
    must_import(test, put("marks.csv", rows), NULL, &progress);
    char kept[300];
    snprintf(kept, sizeof kept, "10 q0 a0 g1 - {%.253s}", long_mark);
    const char *const wanted[] = {"1 q0 a0 g1 - {a,b,c,d,e,f,g,h}", "2 q0 a0 g1 - {\"null\"}", "3 q0 a0 g1 - {retired}",
                                  kept};
    assert_votes(test->database, wanted, 4);
    assert_int_equal(progress.rejected, 6);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.rejected_row WHERE line IN "
                                                          "(5, 6, 7, 8, 9, 10) AND reason LIKE '%marks%'"),
                     6);
}

/* Votes of another place in the numbers find partitions of their own; a handful of strange numbers gets none. */
static void an_import_gets_its_partitions(void **state)
{
    struct test_database *test = *state;
    struct vote_import_progress progress;
    static char rows[60000];
    size_t at = (size_t)snprintf(rows, sizeof rows, "classification,question,answer,id_str\n");
    test_database_fresh(test);
    test_database_script(test->database, "UPDATE triage.cursor SET partition_ids = 1000, default_bytes = 8192");
    for (int i = 0; i < 1000; i++)
        at += (size_t)snprintf(rows + at, sizeof rows - at, "%d,q0,a0,g%d\n", 640999500 + i, 1 + i % TEST_GALAXIES);
    for (int i = 0; i < 20; i++)
        at += (size_t)snprintf(rows + at, sizeof rows - at, "%d,q0,a0,g1\n", 1000000 * (i + 1));
    assert_int_equal(vote_import(test->database, put("partitions.csv", rows), NULL, &key, 600, NULL, NULL, &progress),
                     0);
    assert_int_equal(progress.added, 1020);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.vote_640999"), 500);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.vote_641000"), 500);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM ONLY triage.vote_default"), 20);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM pg_inherits WHERE inhparent = "
                                                          "'triage.vote'::regclass"),
                     3);
}

/* They take more than the 1.06 MiB that go to the database at once. */
static void many_rows_without_sense_are_all_noted(void **state)
{
    enum { GOOD = 95000, BAD = 4900 };
    struct test_database *test = *state;
    struct vote_import_progress progress;
    char path[400];
    snprintf(path, sizeof path, "%s/%0200d.csv", folder, 7); /* each row names the file */
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "classification,question,answer,id_str\n");
    for (int i = 0; i < GOOD + BAD; i++)
        fprintf(file, "%s,q0,a0,g1\n", i < GOOD ? "1" : "x");
    assert_int_equal(fclose(file), 0);
    test_database_fresh(test);
    if (vote_import(test->database, path, NULL, &key, GOOD + BAD, NULL, NULL, &progress))
        fail_msg("%s", error_message());
    assert_int_equal(progress.rejected, BAD);
    assert_int_equal(test_database_number(test->database, "SELECT count(DISTINCT line) FROM triage.rejected_row WHERE "
                                                          "reason = 'classification ''x'' is not a whole number'"),
                     BAD);
    assert_true(test_database_number(test->database, "SELECT sum(length(source)) FROM triage.rejected_row") > 1114112);
}

static void wrong_files_are_refused(void **state)
{
    struct test_database *test = *state;
    struct vote_import_progress progress;
    static char many[200000];
    static const struct {
        const char *text, *message;
        int code;
    } wrong[] = {
        {"",                                                                     "is empty",                            ERROR_INPUT},
        {"a,b\n1,2\n",                                                           ":1: columns missing: classification", ERROR_INPUT},
        {"classification,question,answer,id_str,id_str\n",                       ":1: column 'id_str' appears twice",   ERROR_INPUT},
        {"classification_id,metadata\n",                                         "columns missing: annotations",        ERROR_INPUT},
        {"classification_id,metadata,annotations,subject_ids\n",                 "say with --workflow",                 ERROR_INPUT},
        {"classification,question,answer,id_str\n1,q0,a0,g1\n2,\"q0",            ":3: a quote is not closed",           ERROR_INPUT},
        {"classification,question,answer,id_str\n1,q0,a0,g1\n2,\"q0\"x,a0,g1\n", ":3: text behind",                     ERROR_INPUT},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        test_database_fresh(test);
        int result =
            vote_import(test->database, put("wrong.csv", wrong[i].text), NULL, &key, 100, NULL, NULL, &progress);
        assert_int_equal(result, wrong[i].code);
        if (!strstr(error_message(), wrong[i].message))
            fail_msg("'%s' in place of '%s'", error_message(), wrong[i].message);
        /* what came before the place that cannot be read is in */
        assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.vote"), i >= 5);
    }
    size_t at = (size_t)snprintf(many, sizeof many, "classification,question,answer,id_str\n");
    for (int i = 0; i < 1200; i++)
        at += (size_t)snprintf(many + at, sizeof many - at, "number %d,q0,a0,g1\n", i);
    assert_int_equal(vote_import(test->database, put("many.csv", many), NULL, &key, 100, NULL, NULL, &progress),
                     ERROR_INPUT);
    assert_string_equal(error_message(),
                        "line 1002: classification 'number 1000' is not a whole number; that is row 1001 "
                        "without sense of 1001: is this the right file?");
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.rejected_row"), 1000);
    assert_int_equal(vote_import(test->database, "/nonexistent.csv", NULL, &key, 100, NULL, NULL, &progress),
                     ERROR_NOT_FOUND);
    assert_int_equal(vote_import(test->database, folder, NULL, &key, 100, NULL, NULL, &progress), ERROR_INPUT);
}

/* --- stopped, killed, beside another ------------------------------------------------------------------------------------ */

static const char *large_file(int rows)
{
    static char path[160];
    unsigned random = seed;
    snprintf(path, sizeof path, "%s/large.csv", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "classification,question,answer,id_str,voter\n");
    for (int i = 0; i < rows; i++)
        fprintf(file, "%d,q%d,a%d,g%d,v%d\n", i / 2 + 1, i % 2, rand_r(&random) % 2, 1 + i / 2 % TEST_GALAXIES,
                rand_r(&random) % 50);
    assert_int_equal(fclose(file), 0);
    return path;
}

static int stop_at_once(void *context, const struct vote_import_progress *progress)
{
    (void)progress;
    ++*(int *)context;
    return error_set(ERROR_CANCELLED, "stopped");
}

static void a_stopped_import_goes_on_where_it_was(void **state)
{
    struct test_database *test = *state;
    struct vote_import_progress progress = {0};
    const char *path = large_file(5000);
    int parts = 0;
    test_database_fresh(test);
    for (int64_t before = -1; !progress.finished_before; before = progress.rows) {
        int result = vote_import(test->database, path, NULL, &key, 700, stop_at_once, &parts, &progress);
        assert_true(result == ERROR_CANCELLED || (result == 0 && progress.finished_before));
        assert_true(progress.finished_before || progress.rows > before);
    }
    assert_int_equal(parts, 8); /* 7 x 700 and the rest: no row was read twice */
    assert_int_equal(progress.rows, 5000);
    assert_int_equal(progress.added, 5000);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.vote"), 5000);
}

/* Known by the code it has, whatever language the server speaks; the default partition takes the votes. */
static void a_partition_that_waits_too_long_is_not_made(void **state)
{
    struct test_database *test = *state;
    struct vote_import_progress progress;
    test_database_fresh(test);
    test_database_script(
        test->database, "CREATE SEQUENCE triage.tried; CREATE OR REPLACE FUNCTION triage.make_partition(number bigint) "
                        "RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('triage.tried'); RAISE "
                        "'Sperrzeit abgelaufen' USING ERRCODE = '55P03'; END $$");
    if (vote_import(test->database, large_file(400), NULL, &key, 1000, NULL, NULL, &progress))
        fail_msg("%s", error_message());
    assert_int_equal(progress.added, 400);
    assert_int_equal(test_database_number(test->database, "SELECT last_value FROM triage.tried"), 5);
    test_database_script(test->database,
                         "CREATE OR REPLACE FUNCTION triage.make_partition(number bigint) RETURNS boolean LANGUAGE "
                         "plpgsql AS $$ BEGIN RAISE 'lock timeout was meant to be read'; END $$");
    assert_int_equal(vote_import(test->database, large_file(402), NULL, &key, 1000, NULL, NULL, &progress),
                     ERROR_STATE);
}

/* Somebody presses Ctrl-C while a partition is being made: that is said, and nothing is tried again. */
static void an_import_that_is_asked_to_stop_says_so(void **state)
{
    struct test_database *test = *state;
    struct vote_import_progress progress;
    struct database *database = test_database_connect(test);
    sigset_t end, before;
    int number;
    test_database_fresh(test);
    test_database_script(test->database,
                         "CREATE OR REPLACE FUNCTION triage.make_partition(number bigint) RETURNS boolean LANGUAGE "
                         "plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN false; END $$");
    sigemptyset(&end);
    sigaddset(&end, SIGINT);
    sigprocmask(SIG_BLOCK, &end, &before);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct database *watch = test_database_connect(test);
        alarm(60);
        while (test_database_number(watch, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 0)
            ;
        _exit(kill(getppid(), SIGINT));
    }
    int result = vote_import(database, large_file(400), NULL, &key, 1000, NULL, NULL, &progress);
    char message[ERROR_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", error_message());
    assert_int_equal(sigwait(&end, &number), 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    database_close(database);
    test_database_script(test->database,
                         "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE wait_event = "
                         "'PgSleep'");
    assert_int_equal(result, ERROR_CANCELLED);
    assert_non_null(strstr(message, "stopped by a signal"));
}

static void import_until_killed(const char *url, const char *path)
{
    struct database *database;
    struct vote_import_progress progress;
    signal(SIGALRM, SIG_DFL);
    alarm(60);
    if (database_open(url, &database) == 0)
        vote_import(database, path, NULL, &key, 20, NULL, NULL, &progress);
    _exit(1);
}

static void a_killed_import_goes_on_where_it_was(void **state)
{
    struct test_database *test = *state;
    struct vote_import_progress progress;
    const char *path = large_file(6000);
    test_database_fresh(test);
    for (int round = 0; round < 5; round++) {
        int64_t before = test_database_number(test->database, "SELECT count(*) FROM triage.vote");
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            import_until_killed(test->postgres.url, path);
        while (test_database_number(test->database, "SELECT count(*) FROM triage.vote") == before)
            ; /* it works: now */
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        while (test_database_number(test->database,
                                    "SELECT count(*) FROM pg_stat_activity WHERE datname = 'triage' AND "
                                    "backend_type = 'client backend'") > 1)
            ; /* its last statement has ended */
    }
    must_import(test, path, NULL, &progress);
    assert_true(progress.resumed);
    assert_int_equal(progress.rows, 6000);
    assert_int_equal(progress.added, 6000);
    assert_int_equal(test_database_number(test->database, "SELECT count(*) FROM triage.vote"), 6000);
}

static int move_the_place(void *context, const struct vote_import_progress *progress)
{
    struct test_database *test = context;
    struct database *other = test_database_connect(test);
    test_database_script(other, "UPDATE triage.vote_import SET offset_bytes = offset_bytes + 1");
    database_close(other);
    return progress->rows ? 0 : -1;
}

static void two_imports_of_one_file_do_not_mix(void **state)
{
    struct test_database *test = *state;
    struct vote_import_progress progress;
    const char *path = large_file(5000);
    test_database_fresh(test);
    assert_int_equal(vote_import(test->database, path, NULL, &key, 700, move_the_place, test, &progress), ERROR_STATE);
    assert_non_null(strstr(error_message(), "somebody else imports this file"));
}

/* --- any bytes -------------------------------------------------------------------------------------------------------------- */

static void any_bytes_are_read_or_refused(void **state)
{
    struct test_database *test = *state;
    static struct workflow workflow;
    static struct file_record record;
    static char text[65536];
    unsigned random = seed;
    long records = 0, refused = 0;
    load_workflow(&test->schema, &workflow);
    for (int round = 0; round < 400; round++) {
        struct vote_file *file;
        snprintf(text, sizeof text, "%s", export_text());
        size_t length = strlen(text);
        for (int i = 0; i < 1 + rand_r(&random) % 30; i++)
            text[strlen(export_header) + 3 + (size_t)rand_r(&random) % (length - strlen(export_header) - 3)] =
                "\"{}[]:,\n\\x0\xc3\x80"[rand_r(&random) % 13];
        if (vote_file_open(put("fuzz.csv", text), &workflow, &key, &file))
            continue;
        for (int got; (got = vote_file_next(file, &record)) != 0 && !vote_file_broken(file);) {
            records += got > 0;
            refused += got < 0;
            for (int v = 0; v < record.votes && got > 0; v++)
                assert_true(strlen(record.vote[v].answer) < VOTE_FILE_TEXT_BYTES && record.vote[v].question[0]);
        }
        vote_file_close(file);
    }
    assert_true(records > 1000 && refused > 1000);
}

/* --- a real one --------------------------------------------------------------------------------------------------------------- */

static void a_real_export(void **state)
{
    struct test_database *test = *state;
    static struct schema schema;
    static struct workflow workflow;
    static struct file_record record;
    const char *path = TRIAGE_SOURCE_FOLDER "/../shared/galaxies/zooniverse/decals_panoptes_classifications_export.csv";
    struct vote_file *file;
    (void)test;
    if (access(path, R_OK)) {
        print_message("  skipped: ../shared/galaxies/zooniverse is not there\n");
        return;
    }
    assert_int_equal(schema_load(TRIAGE_SOURCE_FOLDER "/etc/schemas/decals.ini", &schema), 0);
    assert_int_equal(workflow_load(TRIAGE_SOURCE_FOLDER "/etc/workflows/decals.ini", &schema, &workflow), 0);
    assert_int_equal(vote_file_open(path, &workflow, &key, &file), 0);
    int records = 0, votes = 0, known = 0;
    while (vote_file_next(file, &record) > 0) {
        records++;
        for (int v = 0; v < record.votes; v++, votes++)
            known += schema_find_answer(&schema, record.vote[v].question, record.vote[v].answer) >= 0;
        if (records == 1) {
            assert_int_equal(record.classification, 91178981);
            assert_string_equal(record.id_str, "15715879");
            assert_string_equal(record.voter, "u:8085438");
            assert_string_equal(record.classified_at, "2018-02-20 10:44:42+00");
        }
    }
    assert_true(!vote_file_broken(file));
    vote_file_close(file);
    /* counted by hand: 9 walks; of 43 answers two are T8 "Obvious" and one is T11 "Both", which this tree does not have */
    assert_int_equal(records, 9);
    assert_int_equal(votes, 43);
    assert_int_equal(known, 40);
}

static int setup(void **state)
{
    seed = test_seed();
    test_database_setup(state);
    snprintf(folder, sizeof folder, "%s/files", ((struct test_database *)*state)->folder);
    assert_int_equal(mkdir(folder, 0755), 0);
    char path[96];
    snprintf(path, sizeof path, "%s/voter.key", folder);
    assert_int_equal(voter_key_open(path, &key), 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_and_positions_find_their_answers),
        cmocka_unit_test(wrong_workflows_are_refused_by_line),
        cmocka_unit_test(the_workflows_that_are_shipped_fit_their_trees),
        cmocka_unit_test(every_trap_of_an_export),
        cmocka_unit_test(the_same_file_again_changes_nothing),
        cmocka_unit_test(an_anonymous_person_is_the_same_only_under_the_same_key),
        cmocka_unit_test(a_database_takes_no_second_key),
        cmocka_unit_test(of_first_imports_at_once_one_makes_the_key),
        cmocka_unit_test(plain_files),
        cmocka_unit_test(odd_marks_cost_their_row_only),
        cmocka_unit_test(an_import_gets_its_partitions),
        cmocka_unit_test(many_rows_without_sense_are_all_noted),
        cmocka_unit_test(wrong_files_are_refused),
        cmocka_unit_test(a_stopped_import_goes_on_where_it_was),
        cmocka_unit_test(a_partition_that_waits_too_long_is_not_made),
        cmocka_unit_test(an_import_that_is_asked_to_stop_says_so),
        cmocka_unit_test(a_killed_import_goes_on_where_it_was),
        cmocka_unit_test(two_imports_of_one_file_do_not_mix),
        cmocka_unit_test(any_bytes_are_read_or_refused),
        cmocka_unit_test(a_real_export),
    };
    return cmocka_run_group_tests(tests, setup, test_database_teardown);
}
