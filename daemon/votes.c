/* See votes.h. */
#include "daemon/votes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/signals.h"
#include "connectors/galaxies.h"
#include "connectors/migrate.h"
#include "connectors/vote_import.h"
#include "connectors/votes.h"
#include "daemon/exits.h"
#include "daemon/setup.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PART_ROWS          10000
#define CONNECT_PATIENCE_S 20
#define BAR_WIDTH          30

struct votes_task {
    const struct config *config;
    const struct schema *schema;
    struct database *database;
    const char *file, *workflow;
    int json;
};

/* --- import ------------------------------------------------------------------------------------------------------ */

struct bar {
    int visible;
    int64_t first_offset, first_rows; /* where this run began */
    double started_s, told_s;
};

static void draw(struct bar *bar, const struct vote_import_progress *progress, double elapsed_s)
{
    char full[BAR_WIDTH + 1], empty[BAR_WIDTH + 1];
    double share = progress->bytes ? (double)progress->offset / (double)progress->bytes : 1;
    double bytes_per_s = (double)(progress->offset - bar->first_offset) / elapsed_s;
    int filled = (int)(share * BAR_WIDTH);
    memset(full, '#', sizeof full);
    memset(empty, '-', sizeof empty);
    fprintf(stderr, "\r[%.*s%.*s] %3.0f %%  %lld rows, %.0f/s, %.0f s left ", filled, full, BAR_WIDTH - filled, empty,
            100 * share, (long long)progress->rows, (double)(progress->rows - bar->first_rows) / elapsed_s,
            bytes_per_s > 0 ? (double)(progress->bytes - progress->offset) / bytes_per_s : 0);
}

static int on_part(void *context, const struct vote_import_progress *progress)
{
    struct bar *bar = context;
    double now_s = clock_s(), elapsed_s = now_s - bar->started_s;
    if (bar->visible && elapsed_s > 2 && now_s - bar->told_s > 0.5) {
        bar->told_s = now_s;
        draw(bar, progress, elapsed_s);
    }
    if (signals_end_pending())
        return error_set(ERROR_CANCELLED, "stopped at %lld of %lld bytes: the same command goes on from there",
                         (long long)progress->offset, (long long)progress->bytes);
    return 0;
}

static int find_workflow(const char *name, char *path, size_t size)
{
    static const char *const folders[] = {TRIAGE_DATA_FOLDER "/workflows", TRIAGE_SOURCE_FOLDER "/etc/workflows"};
    if (strchr(name, '/'))
        return file_path(path, size, "%s", name);
    for (int i = 0; i < 2; i++) {
        int result = file_path(path, size, "%s/%s.ini", folders[i], name);
        if (result || file_exists(path))
            return result;
    }
    return error_set(ERROR_NOT_FOUND, "no workflow named '%s' in %s: give a name from there or a path", name,
                     folders[0]);
}

static void report_import(const struct votes_task *task, const struct vote_import_progress *progress)
{
    if (task->json) {
        printf("{\"rows\":%lld,\"votes\":%lld,\"added\":%lld,\"known\":%lld,\"rejected\":%lld,\"passed_over\":%lld,"
               "\"resumed\":%s,\"finished_before\":%s}\n",
               (long long)progress->rows, (long long)progress->votes, (long long)progress->added,
               (long long)(progress->votes - progress->added), (long long)progress->rejected,
               (long long)progress->passed_over, progress->resumed ? "true" : "false",
               progress->finished_before ? "true" : "false");
        return;
    }
    if (progress->finished_before)
        printf("this file was imported before, whole\n");
    printf("%lld rows, %lld votes, of which %lld are new and %lld were known; %lld rows made no sense, %lld of other "
           "workflows\n",
           (long long)progress->rows, (long long)progress->votes, (long long)progress->added,
           (long long)(progress->votes - progress->added), (long long)progress->rejected,
           (long long)progress->passed_over);
    if (progress->rejected)
        printf("'triagectl votes quarantine' says why\n");
}

static int import(struct votes_task *task)
{
    static struct workflow workflow;
    static struct voter_key key;
    char path[FILE_PATH_BYTES];
    struct vote_import_progress progress;
    struct bar bar = {.visible = isatty(2), .started_s = clock_s()};
    int result = file_path(path, sizeof path, "%s/voter.key", task->config->state);
    if (!result && task->workflow) /* only exports have sessions to name */
        result = voter_key_of_database(task->database, path, &key);
    if (!result && task->workflow)
        result = find_workflow(task->workflow, path, sizeof path);
    if (!result && task->workflow)
        result = workflow_load(path, task->schema, &workflow);
    if (!result)
        result = vote_import(task->database, task->file, task->workflow ? &workflow : NULL, &key, PART_ROWS, on_part,
                             &bar, &progress);
    voter_key_forget(&key);
    if (bar.told_s > 0)
        fputc('\n', stderr);
    if (!result)
        report_import(task, &progress);
    return result;
}

/* --- the others -------------------------------------------------------------------------------------------------- */

static void report_number(const struct votes_task *task, const char *name, int64_t number, const char *words)
{
    if (task->json)
        printf("{\"%s\":%lld}\n", name, (long long)number);
    else
        printf("%lld %s\n", (long long)number, words);
}

static int count_votes(struct database *database, const char *sql, int64_t *ret_votes)
{
    struct database_result *rows = NULL;
    int result = database_run(database, sql, 0, NULL, &rows);
    *ret_votes = result ? 0 : database_integer(rows, 0, 0);
    database_result_free(rows);
    return result;
}

static int rebuild(struct votes_task *task)
{
    int64_t votes;
    int result =
        count_votes(task->database, "SELECT applied + repeated + ignored + quarantined FROM triage.cursor", &votes);
    if (!result && isatty(2))
        fprintf(stderr, "counting %lld votes again; about %.0f s\n", (long long)votes, 1 + (double)votes / 50000);
    if (!result)
        result = votes_rebuild(task->database);
    if (!result)
        result = count_votes(task->database, "SELECT applied FROM triage.cursor", &votes);
    if (!result)
        report_number(task, "applied", votes, "votes count; ledger, quarantine and tallies were made again");
    return result;
}

static int weigh(struct votes_task *task)
{
    int64_t voters;
    int result = votes_weigh(task->database, &voters);
    if (!result)
        report_number(task, "voters", voters, "voters weighed; tallies use that while votes.weighting = agreement");
    return result;
}

static int retry(struct votes_task *task)
{
    int64_t votes;
    int result = votes_retry(task->database, &votes);
    if (!result)
        report_number(task, "votes", votes, "votes of the quarantine arrive again");
    return result;
}

static const struct {
    const char *name;
    int needs_file;
    int (*run)(struct votes_task *task);
} actions[] = {
    {"import",  1, import },
    {"rebuild", 0, rebuild},
    {"weigh",   0, weigh  },
    {"retry",   0, retry  },
};

int run_votes(const struct config *config, const char *what, const char *file, const char *workflow, int json)
{
    static struct schema schema;
    struct private_postgres postgres;
    char url[1024];
    bool owned = false;
    struct votes_task task = {config, &schema, NULL, file, workflow, json};
    size_t a = 0;
    while (a < sizeof actions / sizeof *actions && strcmp(actions[a].name, what) != 0)
        a++;
    if (a == sizeof actions / sizeof *actions || actions[a].needs_file != (file != NULL)) {
        fprintf(stderr, "triaged: usage: triaged votes import FILE | rebuild | weigh | retry; see triaged(8)\n");
        return EXIT_USAGE;
    }
    signals_block_end();
    int result = setup_schema(config, &schema);
    if (!result)
        result = setup_folders(config);
    if (!result)
        result = setup_database(config, &owned, &postgres, url, sizeof url);
    if (!result)
        result = setup_connect(url, CONNECT_PATIENCE_S, &task.database);
    if (!result)
        result = migrate_run(task.database);
    if (!result)
        result = galaxies_register(task.database, &schema);
    if (!result)
        result = actions[a].run(&task);
    database_close(task.database);
    if (result)
        fprintf(stderr, "triaged: %s\n", error_message());
    if (owned && !postgres.adopted)
        private_postgres_stop(&postgres);
    return exit_code(result);
}
