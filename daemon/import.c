/* See import.h. */
#include "daemon/import.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/signals.h"
#include "base/text.h"
#include "connectors/catalogue.h"
#include "connectors/galaxies.h"
#include "connectors/image.h"
#include "connectors/migrate.h"
#include "daemon/exits.h"
#include "daemon/setup.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPLIT_AIM          50 /* galaxies each hold-out part should have */
#define CONNECT_PATIENCE_S 20
#define STOP_ROWS          256 /* so often a row looks whether to stop */

struct importing {
    const struct config *config;
    struct catalogue *catalogue;
    const char *catalogue_path;
    char folder[FILE_PATH_BYTES], path[FILE_PATH_BYTES];
    int without_votes, show_progress;
    long rows, total;
    double started_s, told_s;
};

static void show_progress(struct importing *importing)
{
    double now_s = clock_s(), elapsed_s = now_s - importing->started_s;
    if (!importing->show_progress || elapsed_s < 2 || now_s - importing->told_s < 0.5)
        return;
    importing->told_s = now_s;
    double rate = (double)importing->rows / elapsed_s;
    fprintf(stderr, "\rimporting %ld of %ld galaxies, %.0f/s, %.0f s left ", importing->rows, importing->total, rate,
            (double)(importing->total - importing->rows) / rate);
}

static int next_galaxy(void *context, struct galaxy_row *row)
{
    struct importing *importing = context;
    struct catalogue_row read;
    int got = catalogue_next(importing->catalogue, &read);
    if (got <= 0)
        return got;
    if (importing->rows % STOP_ROWS == 0 && signals_end_pending())
        return error_set(ERROR_CANCELLED, "stopped after %ld of %ld galaxies", importing->rows, importing->total);
    int result = image_resolve(importing->folder, importing->config->image_folders, read.file_loc, importing->path,
                               sizeof importing->path);
    if (result)
        return error_prefix(result, "%s:%ld: ", importing->catalogue_path, read.line);
    *row = (struct galaxy_row){.id_str = read.id_str, .file_loc = importing->path, .ra = read.ra, .dec = read.dec};
    if (!importing->without_votes && catalogue_vote_columns(importing->catalogue))
        row->votes = read.votes;
    importing->rows++;
    show_progress(importing);
    return 1;
}

/* The folder a relative file_loc starts from, as an absolute path. */
static int catalogue_folder(const char *catalogue, char *folder, size_t size)
{
    char *real = realpath(catalogue, NULL);
    if (!real)
        return error_set_errno("cannot find %s", catalogue);
    *strrchr(real, '/') = 0;
    int result = file_path(folder, size, "%s", real);
    free(real);
    return result;
}

static int import_into(struct database *database, const struct config *config, const struct schema *schema,
                       const char *path, const struct catalogue_summary *summary, int without_votes,
                       struct import_report *report)
{
    struct importing importing = {.config = config,
                                  .catalogue_path = path,
                                  .without_votes = without_votes,
                                  .show_progress = isatty(2),
                                  .total = summary->rows,
                                  .started_s = clock_s()};
    int result = migrate_run(database);
    if (!result)
        result = galaxies_register(database, schema);
    if (!result)
        result = catalogue_folder(path, importing.folder, sizeof importing.folder);
    if (!result)
        result = catalogue_open(path, schema, &importing.catalogue);
    if (!result)
        result = galaxies_import(database, schema, summary->rows, next_galaxy, &importing, report);
    catalogue_close(importing.catalogue);
    return result;
}

static void report_import(struct catalogue_summary *summary, const struct import_report *report, int without_votes,
                          int json)
{
    double part = report->split_fraction * (double)report->rows;
    bool with_votes = summary->vote_columns && !without_votes;
    int64_t left_out = with_votes ? report->known : 0;
    text_make_printable(summary->ignored);
    if (json) {
        json_t *answer = json_pack("{s:I,s:I,s:I,s:i,s:b,s:I,s:i,s:s,s:f}", "rows", (json_int_t)report->rows, "added",
                                   (json_int_t)report->added, "known", (json_int_t)report->known, "vote_columns",
                                   summary->vote_columns, "votes_imported", with_votes && report->added,
                                   "votes_left_out", (json_int_t)left_out, "ignored_columns", summary->ignored_columns,
                                   "ignored", summary->ignored, "split_fraction", report->split_fraction);
        json_dumpf(answer, stdout, JSON_COMPACT | JSON_REAL_PRECISION(8));
        putchar('\n');
        json_decref(answer);
        return;
    }
    printf("imported %lld galaxies (%lld were known already); %d vote columns %s, %d other columns passed over%s%s\n",
           (long long)report->added, (long long)report->known, summary->vote_columns,
           without_votes || !report->added ? "left out" : "taken", summary->ignored_columns,
           summary->ignored_columns ? ": " : "", summary->ignored);
    if (left_out)
        printf("votes of %lld known galaxies left out: bring them by `triaged votes import`\n", (long long)left_out);
    printf("validation, gate and test hold %.1f %% of the galaxies each, by hash of id, never trained on\n",
           100 * report->split_fraction);
    if (part < SPLIT_AIM)
        printf("note: that is about %.0f galaxies each; decisions on fewer than %d are uncertain\n", part, SPLIT_AIM);
}

int run_import(const struct config *config, const char *catalogue, int without_votes, int json)
{
    static struct schema schema;
    struct catalogue_summary summary;
    struct private_postgres postgres;
    struct import_report report;
    struct database *database = NULL;
    char url[1024];
    bool owned = false;
    int result = setup_schema(config, &schema);
    if (!result)
        result = catalogue_check(catalogue, &schema, &summary);
    signals_block_end(); /* a private database that is started here is stopped here */
    if (!result)
        result = setup_folders(config);
    if (!result)
        result = setup_database(config, &owned, &postgres, url, sizeof url);
    if (!result)
        result = setup_connect(url, CONNECT_PATIENCE_S, &database);
    if (!result)
        result = import_into(database, config, &schema, catalogue, &summary, without_votes, &report);
    FAULT(IMPORT_COMMITTED);
    database_close(database);
    if (result)
        fprintf(stderr, "triaged: %s; %s\n", error_message(),
                result == ERROR_CANCELLED ? "the same command begins again" : "nothing was imported");
    else
        report_import(&summary, &report, without_votes, json);
    if (owned && !postgres.adopted)
        private_postgres_stop(&postgres);
    return exit_code(result);
}
