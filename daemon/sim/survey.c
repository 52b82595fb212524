/*
 * triage-sim survey: writes a simulated survey into a folder. The pictures are made by several threads, the
 * tables in one go by one; both are the same for any number of threads (connectors/survey.h).
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/philox.h"
#include "connectors/png_write.h"
#include "connectors/survey.h"
#include "connectors/volunteers.h"
#include "daemon/sim/sim.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VOLUNTEERS        40          /* per galaxy, in truth.csv */
#define TRUTH_WALK        0xffff0000u /* their classification numbers: the platform counts from 0 */
#define POSITION_STAGE    65          /* of PHILOX_SURVEY, apart from those of connectors/survey*.c */
#define THREADS_MAX       64
#define PROGRESS_AFTER_S  2.0
#define PROGRESS_EVERY_MS 50

struct job {
    const char *schema_path, *out;
    int64_t galaxies, side, channels, seed, threads;
    struct schema schema;
    atomic_llong next, done; /* galaxies handed out, finished */
    atomic_int running;      /* threads still at work */
    atomic_int failed;
    int result;
    char problem[ERROR_MESSAGE_BYTES];
};

static void name_galaxy(const struct job *job, uint32_t galaxy, char id[ORACLE_ID_BYTES])
{
    snprintf(id, ORACLE_ID_BYTES, "sim%lld-%06u", (long long)job->seed, galaxy);
}

/* Draws, renders and writes one picture. */
static int make_picture(const struct job *job, uint32_t number, struct survey_canvas *canvas, uint8_t *pixels)
{
    char path[FILE_PATH_BYTES];
    struct survey_galaxy galaxy;
    uint8_t *bytes;
    size_t length;
    survey_draw((uint64_t)job->seed, number, &galaxy);
    survey_render(canvas, &galaxy, pixels);
    int result = file_path(path, sizeof path, "%s/images/%06u.png", job->out, number);
    if (result)
        return result;
    result = png_write(canvas->side, canvas->side, canvas->channels, pixels, &bytes, &length);
    if (result)
        return result;
    /* Not fsynced one by one: a survey that was cut off is made again. */
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, length, file) != length)
        result = error_set_errno("cannot write %s", path);
    if (file && fclose(file) != 0 && !result)
        result = error_set_errno("cannot write %s", path);
    free(bytes);
    return result;
}

static void *make_pictures(void *context)
{
    struct job *job = context;
    struct survey_canvas canvas = {0};
    int result = survey_canvas_new((int)job->side, (int)job->channels, &canvas);
    uint8_t *pixels = malloc((size_t)(job->side * job->side * job->channels));
    if (!result && !pixels)
        result = error_set(ERROR_SYSTEM, "out of memory for a picture");
    while (!result && !atomic_load(&job->failed)) {
        int64_t number = atomic_fetch_add(&job->next, 1) + 1;
        if (number > job->galaxies)
            break;
        result = make_picture(job, (uint32_t)number, &canvas, pixels);
        atomic_fetch_add(&job->done, 1);
    }
    if (result && !atomic_exchange(&job->failed, 1)) { /* the first problem is the one reported */
        job->result = result;
        snprintf(job->problem, sizeof job->problem, "%s", error_message());
    }
    free(pixels);
    survey_canvas_free(&canvas);
    atomic_fetch_sub(&job->running, 1);
    return NULL;
}

static void show_progress(const struct job *job, double started_s)
{
    static const char full[] = "##############################", empty[] = "..............................";
    double elapsed_s = clock_s() - started_s, done = (double)atomic_load(&job->done);
    double rate = done / (elapsed_s > 0 ? elapsed_s : 1), left_s = rate > 0 ? ((double)job->galaxies - done) / rate : 0;
    int width = (int)(30 * done / (double)job->galaxies);
    fprintf(stderr, "\r[%.*s%.*s] %.0f/%lld simulated galaxies, %.0f/s, eta %.0f s ", width, full, 30 - width, empty,
            done, (long long)job->galaxies, rate, left_s);
}

static int run_threads(struct job *job)
{
    pthread_t thread[THREADS_MAX];
    double started_s = clock_s();
    int count = 0, shown = 0;
    atomic_store(&job->running, (int)job->threads);
    for (; count < job->threads; count++)
        if (pthread_create(&thread[count], NULL, make_pictures, job))
            break;
    atomic_fetch_sub(&job->running, (int)job->threads - count);
    while (atomic_load(&job->running) > 0) {
        poll(NULL, 0, PROGRESS_EVERY_MS); /* the galaxies are made in the threads */
        if (clock_s() - started_s > PROGRESS_AFTER_S) {
            show_progress(job, started_s);
            shown = 1;
        }
    }
    for (int i = 0; i < count; i++)
        pthread_join(thread[i], NULL);
    if (shown)
        show_progress(job, started_s), fputc('\n', stderr);
    if (count == 0)
        return error_set(ERROR_SYSTEM, "no thread could be started");
    return job->result ? error_set(job->result, "%s", job->problem) : 0;
}

/* A table being written beside its final name. */
struct table {
    FILE *file;
    char path[FILE_PATH_BYTES], draft[FILE_PATH_BYTES];
};

static int table_open(const char *folder, const char *name, struct table *table)
{
    int result = file_path(table->path, sizeof table->path, "%s/%s", folder, name);
    if (!result)
        result = file_path(table->draft, sizeof table->draft, "%s/%s.part", folder, name);
    if (result)
        return result;
    table->file = fopen(table->draft, "wb");
    return table->file ? 0 : error_set_errno("cannot write %s", table->draft);
}

/* Renames the finished table into place. */
static int table_close(struct table *table, int result)
{
    int bad = ferror(table->file) || fflush(table->file) || fsync(fileno(table->file));
    if (bad && !result)
        result = error_set_errno("cannot write %s", table->draft);
    fclose(table->file);
    if (!result && rename(table->draft, table->path))
        result = error_set_errno("cannot rename %s", table->draft);
    if (result)
        unlink(table->draft);
    return result;
}

static void write_columns(const struct schema *schema, FILE *file)
{
    for (int i = 0; i < schema->answers; i++)
        fprintf(file, ",%s", schema->answer[i].column);
}

/* Places on a patch of the simulated sky, uniform on the sphere. */
static void write_catalogue(const struct job *job, FILE *file)
{
    char id[ORACLE_ID_BYTES];
    fprintf(file, "id_str,file_loc,ra,dec\n");
    for (uint32_t i = 1; i <= job->galaxies; i++) {
        struct philox words = philox((uint64_t)job->seed, 0, i, POSITION_STAGE, PHILOX_SURVEY);
        double ra = 130 + 100. * philox_uniform(words.word[0]);
        double dec = asin((double)philox_uniform(words.word[1]) * sin(1.)) * 57.29577951308232;
        name_galaxy(job, i, id);
        fprintf(file, "%s,images/%06u.png,%.6f,%.6f\n", id, i, ra, dec);
    }
}

/* Votes of 40 simulated volunteers per galaxy. */
static void write_truth(const struct job *job, FILE *file)
{
    const struct schema *schema = &job->schema;
    fprintf(file, "id_str,file_loc");
    write_columns(schema, file);
    for (uint32_t i = 1; i <= job->galaxies; i++) {
        struct survey_galaxy galaxy;
        float probability[SCHEMA_ANSWERS_MAX];
        int answer[SCHEMA_QUESTIONS_MAX], count[SCHEMA_ANSWERS_MAX] = {0};
        char id[ORACLE_ID_BYTES];
        name_galaxy(job, i, id);
        survey_draw((uint64_t)job->seed, i, &galaxy);
        survey_answers(schema, &galaxy, probability);
        for (uint32_t v = 0; v < VOLUNTEERS; v++) {
            volunteers_walk_probabilities(schema, probability, (uint64_t)job->seed, (uint32_t)hash_64(id, strlen(id)),
                                          TRUTH_WALK + v, answer);
            for (int q = 0; q < schema->questions; q++)
                if (answer[q] >= 0)
                    count[answer[q]]++;
        }
        fprintf(file, "\n%s,images/%06u.png", id, i);
        for (int k = 0; k < schema->answers; k++)
            fprintf(file, ",%d", count[k]);
    }
    fputc('\n', file);
}

/* The probabilities the votes were drawn from, and the parameters the pictures were made from. */
static void write_known(const struct job *job, FILE *file)
{
    fprintf(file, "id_str,simulated_kind");
    write_columns(&job->schema, file);
    fprintf(file, ",visibility,signal,seeing,radius,axis_ratio,angle,bulge_share,bulge_index,edge_on,arms,arm_count,"
                  "pitch_deg,flocculence,bar,ring,dust,tidal,companion,clumps,artefact\n");
    for (uint32_t i = 1; i <= job->galaxies; i++) {
        struct survey_galaxy g;
        float probability[SCHEMA_ANSWERS_MAX];
        char id[ORACLE_ID_BYTES];
        name_galaxy(job, i, id);
        survey_draw((uint64_t)job->seed, i, &g);
        survey_answers(&job->schema, &g, probability);
        fprintf(file, "%s,%s", id, g.kind);
        for (int k = 0; k < job->schema.answers; k++)
            fprintf(file, ",%.6f", (double)probability[k]);
        const double parameter[] = {survey_visibility(&g),
                                    g.signal,
                                    g.seeing,
                                    g.radius,
                                    g.axis_ratio,
                                    g.angle,
                                    g.bulge_share,
                                    g.bulge_index,
                                    g.edge_on,
                                    g.arms,
                                    g.arm_count,
                                    g.pitch * 57.29578,
                                    g.flocculence,
                                    g.bar,
                                    g.ring,
                                    g.dust,
                                    g.tidal,
                                    g.companion,
                                    g.clumps,
                                    g.artefact_strength};
        for (size_t k = 0; k < sizeof parameter / sizeof *parameter; k++)
            fprintf(file, ",%.6g", parameter[k]);
        fputc('\n', file);
    }
}

static void write_readme(const struct job *job, FILE *file)
{
    fprintf(file,
            "SIMULATED galaxies, made by triage-sim %s. Nothing in this folder was observed or voted on by "
            "people.\n\n"
            "seed %lld, %lld galaxies of %lld pixels side, %lld channels, decision tree %s\n\n"
            "images/      simulated pictures\n"
            "catalog.csv  id_str, file_loc, ra, dec (degrees; simulated positions)\n"
            "truth.csv    votes of %d simulated volunteers per galaxy\n"
            "known.csv    probability of each answer given that its question is asked, and the parameters "
            "drawn:\n"
            "             lengths in units of the picture's side, angles in radians, signal in units of the "
            "sky noise\n",
            TRIAGE_VERSION, (long long)job->seed, (long long)job->galaxies, (long long)job->side,
            (long long)job->channels, job->schema.name, VOLUNTEERS);
}

static int write_tables(const struct job *job)
{
    static const struct {
        const char *name;
        void (*write)(const struct job *job, FILE *file);
    } tables[] = {
        {"README.txt",  write_readme   },
        {"catalog.csv", write_catalogue},
        {"truth.csv",   write_truth    },
        {"known.csv",   write_known    },
    };
    int result = 0;
    for (size_t i = 0; i < sizeof tables / sizeof *tables && !result; i++) {
        struct table table;
        result = table_open(job->out, tables[i].name, &table);
        if (result)
            break;
        tables[i].write(job, table.file);
        result = table_close(&table, result);
    }
    return result;
}

static int make_survey(struct job *job)
{
    char folder[FILE_PATH_BYTES];
    int result = schema_load(job->schema_path, &job->schema);
    if (!result)
        result = file_path(folder, sizeof folder, "%s/images", job->out);
    if (!result)
        result = file_make_folder(folder, 0755);
    if (!result)
        result = run_threads(job);
    return result ? result : write_tables(job);
}

int verb_survey(int argc, char **argv)
{
    static struct job job = {.galaxies = 2000, .side = 128, .channels = 3, .seed = 1};
    const struct option options[] = {
        {"--schema",   OPTION_TEXT,    &job.schema_path, 0,               0,               1, "decision tree, etc/schemas/NAME.ini"                  },
        {"--out",      OPTION_TEXT,    &job.out,         0,               0,               1, "folder to write; made if missing"                     },
        {"--galaxies", OPTION_INTEGER, &job.galaxies,    1,               10000000,        0, "how many simulated galaxies"                          },
        {"--side",     OPTION_INTEGER, &job.side,        SURVEY_SIDE_MIN, SURVEY_SIDE_MAX, 0, "pixels of a picture's side"                           },
        {"--channels", OPTION_INTEGER, &job.channels,    1,               3,               0, "1 = grey, 3 = colour"                                 },
        {"--seed",     OPTION_INTEGER, &job.seed,        0,               4e18,            0, "of the random numbers: the same seed, the same survey"},
        {"--threads",  OPTION_INTEGER, &job.threads,     0,               THREADS_MAX,     0,
         "0 = one per core; changes nothing but the speed"                                                                                           },
    };
    int code =
        options_parse("survey", "Makes a simulated survey: pictures, a catalogue, simulated votes and the known truth.",
                      options, sizeof options / sizeof *options, argc, argv);
    if (code != OPTIONS_GO_ON)
        return code;
    if (job.threads == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        job.threads = cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : cores;
    }
    return report(make_survey(&job));
}
