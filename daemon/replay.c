/* See replay.h: galaxies and embeddings once, then every run as a process of its own, as many as there are cores. */
#include "daemon/replay.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/signals.h"
#include "cpu/backend_cpu.h"
#include "daemon/exits.h"
#include "daemon/replay_report.h"
#include "daemon/replay_run.h"
#include "daemon/setup.h"
#include "model/safetensors.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES_MAX 512

/* What the processes share. */
struct shared {
    atomic_long steps_done;
    char message[ERROR_MESSAGE_BYTES]; /* of the first run that failed */
    atomic_int failed;
};

/* --- galaxies ----------------------------------------------------------------------------------------------------- */

static const uint64_t *sort_keys;

static int compare_rows(const void *left, const void *right)
{
    uint64_t a = sort_keys[*(const uint64_t *)left], b = sort_keys[*(const uint64_t *)right];
    return a < b ? -1 : a > b;
}

/* Test galaxies: those of the test catalogue, or a share by hash of id, the same for every seed. */
static int split(struct replay *replay)
{
    struct training_set *set = &replay->set;
    size_t answers = (size_t)replay->schema.answers;
    uint64_t *rows[] = {set->train_row, set->validation_row};
    size_t counts[] = {set->train_count, set->validation_count};
    replay->pool_row = malloc((set->rows + 1) * sizeof *replay->pool_row);
    replay->test_row = malloc((set->rows + 1) * sizeof *replay->test_row);
    replay->votes = malloc((set->rows + 1) * answers * sizeof *replay->votes);
    if (!replay->pool_row || !replay->test_row || !replay->votes)
        return error_set(ERROR_SYSTEM, "out of memory for %zu galaxies", set->rows);
    for (size_t i = 0; i < set->rows * answers; i++)
        replay->votes[i] = (uint16_t)set->labels[i];
    for (size_t i = 0; i < set->test_count; i++)
        replay->test_row[replay->test_count++] = set->test_row[i];
    for (int list = 0; list < 2; list++)
        for (size_t i = 0; i < counts[list]; i++) {
            uint64_t row = rows[list][i];
            double place = (double)(hash_64(&set->key[row], sizeof set->key[row]) >> 11) * 0x1p-53;
            if (!set->test_count && place < replay->config->replay_test_share)
                replay->test_row[replay->test_count++] = row;
            else
                replay->pool_row[replay->pool_count++] = row;
        }
    sort_keys = set->key; /* in the order of hashes a first part of the pool is a random sample */
    qsort(replay->pool_row, replay->pool_count, sizeof *replay->pool_row, compare_rows);
    size_t wanted =
        (size_t)(replay->config->replay_initial + replay->config->replay_steps * replay->config->replay_step);
    if (!replay->test_count || wanted > replay->pool_count)
        return error_set(ERROR_INPUT,
                         "%zu galaxies to ask about and %zu to judge by, %zu are to be asked: lower replay.steps, "
                         "replay.step, replay.initial or replay.test_share",
                         replay->pool_count, replay->test_count, wanted);
    return 0;
}

/* Whether only the report is left: it needs no embeddings. */
static int all_done(const struct replay *replay)
{
    struct replay_arm arms[REPLAY_ARMS_MAX];
    int count, done = replay_parse_arms(replay->config->replay_arms, arms, &count) == 0;
    for (long run = 0; done && run < count * replay->config->replay_seeds; run++)
        done = replay_steps_done(replay, &arms[run % count], (int)(run / count) + 1) == replay_steps(replay->config);
    return done;
}

static int make_embeddings(struct replay *replay, const char *weights)
{
    static struct net net;
    struct backend_context *context = NULL;
    int result = setup_net(replay->config, &net);
    replay->inputs = net.outputs;
    if (result || strcmp(replay->config->replay_track, "scratch") == 0)
        return result;
    if (!weights[0])
        return error_set(ERROR_INPUT, "replay.track = frozen needs a trunk that was trained: give --weights FILE");
    if (all_done(replay))
        return 0;
    float *parameters = malloc(net_parameter_count(&net) * sizeof *parameters);
    replay->embedding = calloc(replay->set.rows * (size_t)net.outputs, sizeof *replay->embedding);
    if (!parameters || !replay->embedding)
        result = error_set(ERROR_SYSTEM, "out of memory for %zu embeddings", replay->set.rows);
    if (!result)
        result = safetensors_load(weights, &net, parameters);
    if (!result)
        result = backend_cpu.open((int)replay->config->threads, 1, &context);
    if (!result)
        result = replay_embed(replay, context, &net, parameters, replay->embedding);
    backend_cpu.close(context); /* no thread may run while processes are made */
    free(parameters);
    return result;
}

/* A folder belongs to one set of settings: results of two would be mixed in silence. */
static int claim_folder(const struct replay *replay, const struct replay_options *options)
{
    char path[FILE_PATH_BYTES], *had = NULL, *now = NULL;
    size_t length, size;
    int result = file_make_folder(options->out, 0755);
    if (!result)
        result = file_path(path, sizeof path, "%s/runs", options->out);
    if (!result)
        result = file_make_folder(path, 0755);
    if (!result)
        result = file_path(path, sizeof path, "%s/settings.conf", options->out);
    FILE *memory = result ? NULL : open_memstream(&now, &size);
    if (!memory)
        return result ? result : error_set(ERROR_SYSTEM, "out of memory for the settings");
    struct config kept = *replay->config; /* more seeds or other arms may be added to what is there */
    kept.replay_seeds = 1;
    kept.replay_arms[0] = 0;
    kept.threads = 0;
    fprintf(memory, "# catalogue %s, test catalogue %s, weights %s\n", options->catalogue,
            options->test_catalogue ? options->test_catalogue : "none",
            options->weights ? options->weights : replay->config->trunk_weights);
    config_print(&kept, memory);
    fclose(memory);
    if (file_exists(path))
        result = file_read(path, 1 << 20, &had, &length);
    if (!result && had && strcmp(had, now) != 0)
        result =
            error_set(ERROR_STATE, "%s holds runs with other settings (%s): use another folder", options->out, path);
    struct file_part part = {now, size};
    if (!result && !had)
        result = file_write(path, &part, 1, 0644);
    free(had);
    free(now);
    return result;
}

static int open_replay(const struct config *config, const struct replay_options *options, struct replay *replay)
{
    struct training_source source = {options->catalogue, options->test_catalogue, "votes", "votes",
                                     options->out,       (uint64_t)config->seed};
    *replay = (struct replay){.config = config, .out = options->out};
    int result = setup_schema(config, &replay->schema);
    if (!result)
        result = score_set_questions(&replay->schema, config->score_questions, &replay->questions);
    if (!result)
        result = claim_folder(replay, options);
    if (!result)
        result = training_set_open(config, &replay->schema, &source, &replay->set);
    if (!result)
        result = split(replay);
    return result ? result : make_embeddings(replay, options->weights ? options->weights : config->trunk_weights);
}

static void close_replay(struct replay *replay)
{
    training_set_close(&replay->set);
    free(replay->votes);
    free(replay->embedding);
    free(replay->pool_row);
    free(replay->test_row);
}

/* --- processes ---------------------------------------------------------------------------------------------------- */

/* What the parent waits for instead of being interrupted. */
static void awaited_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGCHLD);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
}

static pid_t start_run(const struct replay *replay, const struct replay_arm *arm, int seed, struct shared *shared)
{
    fflush(NULL);
    pid_t child = fork();
    if (child)
        return child;
    signal(SIGINT, SIG_IGN); /* a terminal's goes to all: the parent ends its children */
    sigset_t awaited;
    awaited_signals(&awaited);
    sigprocmask(SIG_UNBLOCK, &awaited, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* two writers of one file there must not be */
    int result = replay_run(replay, arm, seed, &shared->steps_done), first = 0;
    if (result && atomic_compare_exchange_strong(&shared->failed, &first, 1))
        snprintf(shared->message, sizeof shared->message, "arm %s, seed %d: %s", arm->name, seed, error_message());
    _exit(result ? 1 : 0);
}

static void show_progress(const struct shared *shared, long steps, long before, double started_s, double *told_s)
{
    double now_s = clock_s();
    long done = atomic_load(&shared->steps_done), made = done - before;
    if (!isatty(2) ? now_s - *told_s < 60 : now_s - *told_s < 0.5)
        return;
    *told_s = now_s;
    fprintf(stderr, "%s%ld of %ld steps", isatty(2) ? "\r" : "", done, steps);
    if (made > 0)
        fprintf(stderr, ", %.2f steps/s, %.0f s left", (double)made / (now_s - started_s),
                (double)(steps - done) * (now_s - started_s) / (double)made);
    fputs(isatty(2) ? "   " : "\n", stderr);
}

static long processors(const struct config *config)
{
    long count = config->threads ? (long)config->threads : sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count > PROCESSES_MAX ? PROCESSES_MAX : count;
}

static int kill_all(const pid_t *children, long count, int result)
{
    for (long i = 0; i < count; i++)
        if (children[i] > 1)
            kill(children[i], SIGTERM);
    for (long i = 0; i < count; i++)
        if (children[i] > 1)
            waitpid(children[i], NULL, 0);
    return result;
}

/* The next run into a free slot. */
static int fill_slot(const struct replay *replay, const struct replay_arm *arms, int count, long run, pid_t *child,
                     struct shared *shared)
{
    *child = start_run(replay, &arms[run % count], (int)(run / count) + 1, shared);
    if (*child > 0)
        return 0;
    *child = 0;
    return error_set(ERROR_SYSTEM, "cannot start another process");
}

/* Whether the process of a slot has ended: 1, 0, or an error with what it said. */
static int has_ended(pid_t *child, const struct shared *shared)
{
    int status;
    if (!*child || waitpid(*child, &status, WNOHANG) != *child)
        return 0;
    *child = 0;
    if (WIFEXITED(status) && !WEXITSTATUS(status))
        return 1;
    return error_set(ERROR_INPUT, "%s", shared->message[0] ? shared->message : "a run was ended by a signal");
}

/* Seed by seed, so that pairs are whole first. */
static int run_all(const struct replay *replay, const struct replay_arm *arms, int count, struct shared *shared)
{
    pid_t children[PROCESSES_MAX] = {0};
    long runs = count * replay->config->replay_seeds, next = 0, over = 0, slots = processors(replay->config);
    long before = -1, steps = runs * replay_steps(replay->config);
    double started_s = clock_s(), told_s = started_s;
    const struct timespec half_a_second = {0, 500000000};
    sigset_t awaited;
    awaited_signals(&awaited);
    while (over < runs) {
        for (long slot = 0; slot < slots; slot++) {
            int ended = signals_end_pending() ? 0 : has_ended(&children[slot], shared); /* it may have been for all */
            if (ended < 0)
                return kill_all(children, slots, ended);
            over += ended;
            int result =
                !children[slot] && next < runs ? fill_slot(replay, arms, count, next++, &children[slot], shared) : 0;
            if (result)
                return kill_all(children, slots, result);
        }
        int signal = over < runs ? sigtimedwait(&awaited, NULL, &half_a_second) : 0;
        if (signal == SIGINT || signal == SIGTERM)
            return kill_all(children, slots,
                            error_set(ERROR_CANCELLED, "stopped; the same command goes on from %s", replay->out));
        before =
            before < 0 ? atomic_load(&shared->steps_done) : before; /* what was done already is no measure of speed */
        show_progress(shared, steps, before, started_s, &told_s);
    }
    if (isatty(2))
        fputs("\n", stderr);
    return 0;
}

static int replay_all(const struct replay *replay, json_t **ret_summary)
{
    struct replay_arm arms[REPLAY_ARMS_MAX];
    int count, result = replay_parse_arms(replay->config->replay_arms, arms, &count);
    if (result)
        return result;
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return error_set(ERROR_SYSTEM, "out of memory for the processes");
    sigset_t awaited;
    awaited_signals(&awaited);
    sigprocmask(SIG_BLOCK, &awaited, NULL);
    result = run_all(replay, arms, count, shared);
    munmap(shared, sizeof *shared);
    return result ? result : replay_report(replay, arms, count, ret_summary);
}

int run_replay(const struct config *config, const struct replay_options *options)
{
    static struct replay replay;
    json_t *summary = NULL;
    int result = open_replay(config, options, &replay);
    if (!result)
        result = replay_all(&replay, &summary);
    if (result)
        fprintf(stderr, "triaged: %s\n", error_message());
    else if (options->json) {
        json_dumpf(summary, stdout, JSON_COMPACT | JSON_REAL_PRECISION(8)); /* as in the file */
        putchar('\n');
    } else {
        replay_report_print(summary, stdout);
        printf("curves in %s/curves.svg, every figure in %s/summary.json\n", options->out, options->out);
    }
    json_decref(summary);
    close_replay(&replay);
    return exit_code(result);
}
