/* See replay_run.h. */
#include "daemon/replay_run.h"
#include "acquisition/select.h"
#include "base/error.h"
#include "base/file.h"
#include "base/half.h"
#include "base/philox.h"
#include "base/text.h"
#include "cpu/backend_cpu.h"
#include "daemon/choosing.h"
#include "daemon/setup.h"
#include "model/augment.h"
#include "model/likelihood.h"
#include "model/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EMBED_BATCH   64
#define JUDGE_BLOCK   64
#define CSV_BYTES_MAX ((size_t)16 << 20)
#define DUE_VOTES     40 /* what the catalogues' galaxies got, and W+20 assumed */

/* One run. */
struct run {
    const struct replay *replay;
    const struct replay_arm *arm;
    int seed, step;
    struct backend_context *context;
    struct head_set heads;
    const uint16_t *embedding;
    uint16_t *own_embedding; /* scratch */
    uint64_t *labelled;      /* [labelled_count] rows, in the order they were asked about */
    size_t labelled_count;
    uint8_t *is_labelled;  /* per row */
    size_t *place;         /* per row, its index in the pool */
    float *score, *detail; /* [pool], of the last model */
    struct scoring scoring;
    struct choosing choosing; /* arms with the rules of the batch */
    struct text csv, order;
};

/* --- arms --------------------------------------------------------------------------------------------------------- */

static int parse_arm(const char *text, size_t length, struct replay_arm *arm)
{
    char name[sizeof arm->name], *end;
    *arm = (struct replay_arm){0};
    if (length >= sizeof arm->name)
        return error_set(ERROR_INPUT, "the name of an arm is longer than %zu bytes", sizeof arm->name - 1);
    memcpy(arm->name, text, length);
    memcpy(name, arm->name, sizeof name);
    char *rules = strchr(name, ':');
    if (rules && strcmp(rules, ":batch") != 0)
        return error_set(ERROR_INPUT, "arm '%s': the rules of the batch are written :batch", arm->name);
    arm->batch = rules != NULL;
    if (rules)
        *rules = 0;
    char *share = strchr(name, '+'), *power = strchr(name, '@');
    if (share) {
        arm->random_share = strtod(share + 1, &end);
        if (end == share + 1 || *end || !(arm->random_share >= 0 && arm->random_share <= 1))
            return error_set(ERROR_INPUT, "arm '%s': a random share is written +0.2", arm->name);
        *share = 0;
    }
    if (power) {
        arm->power = strtod(power + 1, &end);
        if (end == power + 1 || *end || !(arm->power > 0 && arm->power <= SELECT_POWER_MAX))
            return error_set(ERROR_INPUT, "arm '%s': a power is written @4", arm->name);
        *power = 0;
    }
    int result = score_from_name(name, &arm->kind);
    if (arm->kind == SCORE_FEATURED && !arm->power)
        arm->power = 1; /* its scores are all 0 or 1: drawn among the ones */
    return result ? error_prefix(result, "arm '%s': ", arm->name) : 0;
}

int replay_parse_arms(const char *text, struct replay_arm *ret_arms, int *ret_count)
{
    *ret_count = 0;
    for (text += strspn(text, ", "); *text; text += strspn(text, ", ")) {
        size_t length = strcspn(text, ", ");
        if (*ret_count == REPLAY_ARMS_MAX)
            return error_set(ERROR_INPUT, "at most %d arms", REPLAY_ARMS_MAX);
        int result = parse_arm(text, length, &ret_arms[*ret_count]);
        if (result)
            return result;
        (*ret_count)++;
        text += length;
    }
    return *ret_count ? 0 : error_set(ERROR_INPUT, "replay.arms names no arm");
}

int replay_path(const struct replay *replay, const struct replay_arm *arm, int seed, const char *suffix, char *path,
                int size)
{
    return file_path(path, (size_t)size, "%s/runs/%s-%d.%s", replay->out, arm->name, seed, suffix);
}

int replay_steps(const struct config *config)
{
    return (int)config->replay_steps + 1;
}

/* --- learning ----------------------------------------------------------------------------------------------------- */

struct embed_job {
    const struct replay *replay;
    const struct net *net;
    const uint64_t *row;
    float *inputs;
};

static void prepare_one(void *context, long item, int worker)
{
    const struct embed_job *job = context;
    size_t floats = (size_t)job->net->side * (size_t)job->net->side * (size_t)job->net->channels;
    (void)worker;
    struct augment_source source = {column_row(&job->replay->set.pixels, job->row[item]),
                                    (int)job->replay->config->image_side, job->net->channels};
    augment_plain(config_augmentation(job->replay->config), &source, job->net->side,
                  job->inputs + (size_t)item * floats);
}

static int embed_rows(const struct replay *replay, struct backend_context *context, const struct net *net,
                      struct plan *plan, const uint64_t *rows, size_t count, uint16_t *embedding)
{
    size_t outputs = (size_t)net->outputs, floats = (size_t)net->side * (size_t)net->side * (size_t)net->channels;
    struct embed_job job = {replay, net, NULL, malloc(EMBED_BATCH * floats * sizeof(float))};
    float *values = malloc(EMBED_BATCH * outputs * sizeof *values);
    int result = job.inputs && values ? 0 : error_set(ERROR_SYSTEM, "out of memory for embeddings");
    for (size_t first = 0; first < count && !result; first += EMBED_BATCH) {
        size_t left = count - first, batch = left < EMBED_BATCH ? left : EMBED_BATCH;
        job.row = rows + first;
        backend_cpu.for_each(context, prepare_one, &job, (long)batch);
        result = backend_cpu.forward(plan, job.inputs, batch, values);
        for (size_t i = 0; i < batch && !result; i++)
            for (size_t k = 0; k < outputs; k++)
                embedding[rows[first + i] * outputs + k] = half_from_float(values[i * outputs + k]);
    }
    free(job.inputs);
    free(values);
    return result;
}

int replay_embed(const struct replay *replay, struct backend_context *context, const struct net *net,
                 const float *parameters, uint16_t *embedding)
{
    struct plan *plan = NULL;
    int result = backend_cpu.compile(context, net, parameters, config_precision(replay->config), &plan);
    if (!result)
        result = embed_rows(replay, context, net, plan, replay->pool_row, replay->pool_count, embedding);
    if (!result)
        result = embed_rows(replay, context, net, plan, replay->test_row, replay->test_count, embedding);
    backend_cpu.free_plan(plan);
    return result;
}

/* Heads from the constant on, on what is labelled; a fixed number of epochs, as no vote is spent on stopping. */
static int fit_heads(struct run *run)
{
    const struct replay *replay = run->replay;
    const struct config *config = replay->config;
    size_t answers = (size_t)replay->schema.answers;
    float constant[SCHEMA_ANSWERS_MAX];
    struct vote_rows rows = {replay->votes, answers * sizeof(uint16_t), run->labelled, run->labelled_count};
    int result =
        likelihood_constant_fit(&replay->schema, &rows, LIKELIHOOD_START_LOWER, LIKELIHOOD_START_UPPER, constant);
    if (result)
        return result;
    head_set_standardise(&run->heads, replay->embedding, (size_t)replay->inputs * 2, replay->pool_row,
                         replay->pool_count);
    head_set_reset(&run->heads, constant);
    run->heads.model = (uint32_t)run->step + 1;
    struct fit_report report;
    struct fit_request request = {.schema = &replay->schema,
                                  .embedding = replay->embedding,
                                  .embedding_stride_bytes = (size_t)replay->inputs * 2,
                                  .votes = replay->votes,
                                  .votes_stride_bytes = answers * sizeof(uint16_t),
                                  .train_row = run->labelled,
                                  .train_count = run->labelled_count,
                                  .seed = (uint64_t)run->seed,
                                  .learning_rate = (float)config->learning_rate,
                                  .bias_rate = (float)config->bias_rate,
                                  .weight_decay = (float)config->weight_decay,
                                  .bagging = config_bagging(config),
                                  .batch = (int)config->batch,
                                  .epochs_max = (int)config->epochs_max,
                                  .patience = 1};
    return backend_cpu.head_fit(run->context, &request, &run->heads, &report);
}

/* The whole network from random weights, then what it says of every galaxy; its linear layer is the only head. */
static int train_network(struct run *run)
{
    const struct replay *replay = run->replay;
    static struct net net;
    struct trunk_recipe recipe;
    struct trunk_fit *fit = NULL;
    config_recipe(replay->config, &recipe);
    recipe.seed = (uint64_t)run->seed * 1000 + (uint64_t)run->step;
    recipe.patience = 0;
    struct trunk_data data = {.pixels = column_row(&replay->set.pixels, 0),
                              .pixels_stride_bytes = replay->set.pixels.layout.row_bytes,
                              .pixel_side = (int)replay->config->image_side,
                              .labels = replay->set.labels,
                              .key = replay->set.key,
                              .train_row = run->labelled,
                              .train_count = run->labelled_count};
    int result = setup_net(replay->config, &net), over = 0;
    float *values = malloc(trunk_fit_values(&net, &replay->set.target) * sizeof *values);
    if (!result && !values)
        result = error_set(ERROR_SYSTEM, "out of memory for the network");
    if (!result)
        result = trunk_fit_random(&net, &replay->set.target, &data, recipe.seed, values);
    if (!result)
        result = trunk_fit_open(&backend_cpu, run->context, &net, &replay->set.target, &recipe, &data, values, &fit);
    while (!result && !over) {
        over = trunk_fit_step(fit);
        result = over < 0 ? over : 0;
    }
    if (!result)
        result = replay_embed(replay, run->context, &net, trunk_fit_best(fit), run->own_embedding);
    if (!result) {
        const float *head = trunk_fit_best(fit) + net_parameter_count(&net);
        size_t weights = (size_t)run->heads.answers * (size_t)run->heads.inputs;
        memcpy(run->heads.weight, head, weights * sizeof *head);
        memcpy(run->heads.bias, head + weights, (size_t)run->heads.answers * sizeof *head);
        run->heads.model = (uint32_t)run->step + 1;
    }
    trunk_fit_close(fit);
    free(values);
    return result;
}

/* --- judging ------------------------------------------------------------------------------------------------------ */

/* NLL of the questions that count, each over its galaxies with votes, and of all of them per galaxy. */
struct judged {
    struct metrics metrics;
    double nll[SCHEMA_QUESTIONS_MAX];
    double all;
    size_t asked[SCHEMA_QUESTIONS_MAX];
};

static void judge_galaxy(const struct replay *replay, const float *alpha, int passes, const uint16_t *votes,
                         struct judged *judged)
{
    metrics_add(&judged->metrics, &replay->schema, alpha, passes, votes);
    for (int q = 0; q < replay->schema.questions; q++) {
        const struct question *question = &replay->schema.question[q];
        int count = 0;
        for (int a = 0; a < question->count; a++)
            count += votes[question->first + a];
        if (!count)
            continue;
        double nll = likelihood_mixture_question(&replay->schema, q, alpha, passes, votes);
        judged->nll[q] += nll;
        judged->asked[q]++;
        judged->all += replay->questions.counts[q] ? nll : 0;
    }
}

static int judge(struct run *run, struct judged *judged)
{
    const struct replay *replay = run->replay;
    size_t answers = (size_t)replay->schema.answers;
    int passes = config_passes(replay->config, run->heads.count);
    float *dump = malloc(JUDGE_BLOCK * (size_t)passes * answers * sizeof *dump);
    int result = dump ? 0 : error_set(ERROR_SYSTEM, "out of memory for predictions");
    for (size_t first = 0; first < replay->test_count && !result; first += JUDGE_BLOCK) {
        size_t left = replay->test_count - first, count = left < JUDGE_BLOCK ? left : JUDGE_BLOCK;
        struct score_request request = {.heads = &run->heads,
                                        .schema = &replay->schema,
                                        .embedding = run->embedding,
                                        .embedding_stride_bytes = (size_t)replay->inputs * 2,
                                        .row = replay->test_row + first,
                                        .count = count,
                                        .passes = passes,
                                        .seed = (uint64_t)run->seed,
                                        .reducer = REDUCE_DUMP,
                                        .output = dump};
        result = backend_cpu.head_score(run->context, &request, NULL, NULL);
        for (size_t i = 0; i < count && !result; i++)
            judge_galaxy(replay, dump + i * (size_t)passes * answers, passes,
                         replay->votes + replay->test_row[first + i] * answers, judged);
    }
    free(dump);
    return result;
}

static long votes_spent(const struct run *run)
{
    const struct replay *replay = run->replay;
    size_t answers = (size_t)replay->schema.answers;
    long votes = 0;
    for (size_t i = 0; i < run->labelled_count; i++)
        for (size_t a = 0; a < answers; a++)
            votes += replay->votes[run->labelled[i] * answers + a];
    return votes;
}

static int write_whole(const struct text *text, const char *path)
{
    struct file_part part = {text->bytes, text->length};
    int result = text_error(text);
    return result ? result : file_write(path, &part, 1, 0644);
}

/* The order first: lines of the CSV are of galaxies it already names. */
static int record(struct run *run, const struct judged *judged)
{
    const struct replay *replay = run->replay;
    char path[FILE_PATH_BYTES];
    double galaxies = (double)replay->test_count;
    long votes = votes_spent(run);
    for (int q = 0; q < replay->schema.questions; q++)
        if (replay->questions.counts[q] && judged->asked[q])
            text_append(&run->csv, "%d,%zu,%ld,%s,%.9g,%.9g\n", run->step, run->labelled_count, votes,
                        replay->schema.question[q].name, judged->nll[q] / (double)judged->asked[q],
                        metrics_question_rmse(&judged->metrics, q));
    text_append(&run->csv, "%d,%zu,%ld,all,%.9g,%.9g\n", run->step, run->labelled_count, votes, judged->all / galaxies,
                metrics_rmse(&judged->metrics));
    int result = replay_path(replay, run->arm, run->seed, "order", path, sizeof path);
    if (!result)
        result = write_whole(&run->order, path);
    if (!result)
        result = replay_path(replay, run->arm, run->seed, "csv", path, sizeof path);
    return result ? result : write_whole(&run->csv, path);
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

static void label(struct run *run, uint64_t row)
{
    run->labelled[run->labelled_count++] = row;
    run->is_labelled[row] = 1;
    text_append(&run->order, "%s\n", run->replay->set.id_str[row]);
}

/* As in the service: what volunteers would call an artifact is held back. */
static int is_artifact(const struct run *run, size_t at)
{
    size_t floats = (size_t)information_row_floats(&run->replay->schema);
    return run->replay->config->artifact_max < 1 &&
           score_artifact(&run->replay->schema, run->detail + at * floats + 2) > run->replay->config->artifact_max;
}

/* Kinds of galaxies: of all the pool but what is known or expected to be junk. */
static int open_choosing(struct run *run)
{
    const struct replay *replay = run->replay;
    uint64_t *sample = malloc(CLUSTERS_SAMPLE_MAX * sizeof *sample);
    size_t count = 0;
    if (!sample)
        return error_set(ERROR_SYSTEM, "out of memory for a sample of galaxies");
    for (size_t i = 0; i < replay->pool_count && count < CLUSTERS_SAMPLE_MAX;
         i++) /* in the order of hashes: at random */
        if (!is_artifact(run, i))
            sample[count++] = replay->pool_row[i];
    int kinds = (int)replay->config->clusters, most = (int)count / 8; /* a kind has several galaxies */
    run->choosing = (struct choosing){
        .backend = &backend_cpu,
        .context = run->context,
        .rows = {run->embedding, (size_t)replay->inputs * 2, 1, replay->inputs},
        .seed = (uint64_t)run->seed,
        .wanted = kinds < most ? kinds : most,
        .outlier_distance = replay->config->outlier_distance
    };
    int result = choosing_open(&run->choosing, sample, count);
    free(sample);
    return result;
}

/* Exact information of the shortlist, and where its galaxies lie. Catalogues of replays have no positions on the sky. */
static int place_candidates(struct run *run, struct candidate *candidates, size_t count)
{
    size_t floats = (size_t)information_row_floats(&run->replay->schema);
    int result = 0, refined = score_can_refine(run->scoring.rule.kind);
    uint16_t due = DUE_VOTES;
    for (size_t i = 0; i < count && refined && !result; i++) {
        uint64_t row = candidates[i].key - 1;
        size_t at = run->place[row];
        result = scoring_refine(&run->scoring, &row, &due, 1, score_outcomes_max(count), run->detail + at * floats,
                                &run->score[at], NULL, NULL);
        candidates[i].score = score_round(run->score[at]);
    }
    return result ? result : choosing_place(&run->choosing, candidates, count);
}

static int fill(struct run *run, struct selector *selector, int by_score, int batch, struct selected *selected,
                size_t *ret_count)
{
    const struct replay *replay = run->replay;
    struct candidate *candidates;
    size_t count;
    for (size_t i = 0; i < replay->pool_count; i++) {
        if (run->is_labelled[replay->pool_row[i]])
            continue;
        float score = by_score ? run->score[i] : 0;
        if (batch && is_artifact(run, i))
            selector_hold(selector, replay->pool_row[i] + 1, HELD_ARTIFACT, score);
        else
            selector_offer(selector, replay->pool_row[i] + 1, SPLIT_TRAIN, 0, score);
    }
    int result = batch ? selector_candidates(selector, &candidates, &count) : 0;
    if (!result && batch)
        result = place_candidates(run, candidates, count);
    return result ? result : selector_finish(selector, selected, ret_count);
}

/* The first galaxies depend on the seed alone: every arm starts from the same ones. */
static int choose(struct run *run, int by_score, size_t wanted)
{
    const struct config *config = run->replay->config;
    int batch = by_score && run->arm->batch, result = batch ? open_choosing(run) : 0;
    struct select_request request = {.seed = (uint64_t)run->seed,
                                     .cycle = (uint64_t)run->step,
                                     .queue_size = (int)wanted,
                                     .random_share = by_score ? (float)run->arm->random_share : 1,
                                     .power = run->arm->power};
    if (batch) {
        request.shortlist = (int)config->shortlist;
        request.cluster_share = config->cluster_share;
        request.duplicates.distance = config->duplicate_distance * (double)run->choosing.clusters.scale;
    }
    struct selector *selector = NULL;
    struct selected *selected = malloc((wanted + 1) * sizeof *selected);
    size_t count = 0;
    if (!result && !selected)
        result = error_set(ERROR_SYSTEM, "out of memory for a choice of %zu", wanted);
    if (!result)
        result = selector_new(&request, &selector);
    if (!result)
        result = fill(run, selector, by_score, batch, selected, &count);
    for (size_t i = 0; i < count && !result; i++)
        label(run, selected[i].key - 1);
    selector_free(selector);
    choosing_close(&run->choosing);
    free(selected);
    return result;
}

static int score_pool(struct run *run)
{
    const struct replay *replay = run->replay;
    size_t count = replay->pool_count;
    run->scoring = (struct scoring){.backend = &backend_cpu,
                                    .context = run->context,
                                    .schema = &replay->schema,
                                    .heads = &run->heads,
                                    .embedding = run->embedding,
                                    .embedding_stride_bytes = (size_t)replay->inputs * 2,
                                    .passes = config_passes(replay->config, run->heads.count),
                                    .seed = (uint64_t)run->seed,
                                    .rule = replay->questions};
    run->scoring.rule.kind = run->arm->kind;
    uint16_t *due = malloc(count * sizeof *due);
    int result = due ? scoring_open(&run->scoring) : error_set(ERROR_SYSTEM, "out of memory for scores");
    for (size_t i = 0; i < count && !result; i++)
        due[i] = DUE_VOTES;
    if (!result) /* the first rows of the pool are a random sample: the pool is in the order of hashes */
        result = scoring_set_targets(&run->scoring, replay->pool_row, count);
    if (!result)
        result = scoring_run(&run->scoring, replay->pool_row, due, count, run->detail, run->score, NULL, NULL);
    free(due);
    return result;
}

static int ask(struct run *run)
{
    size_t wanted = (size_t)run->replay->config->replay_step;
    if (run->arm->kind == SCORE_RANDOM)
        return choose(run, 0, wanted);
    int result = score_pool(run);
    if (!result)
        result = choose(run, 1, wanted);
    scoring_close(&run->scoring);
    return result;
}

/* --- a run -------------------------------------------------------------------------------------------------------- */

static int open_run(struct run *run)
{
    const struct replay *replay = run->replay;
    int scratch = !replay->embedding;
    size_t inputs = (size_t)replay->inputs;
    run->csv = text_new(CSV_BYTES_MAX);
    run->order = text_new(CSV_BYTES_MAX);
    run->labelled = malloc((replay->pool_count + 1) * sizeof *run->labelled);
    run->is_labelled = calloc(replay->set.rows + 1, 1);
    run->place = calloc(replay->set.rows + 1, sizeof *run->place);
    run->score = malloc((replay->pool_count + 1) * sizeof *run->score);
    run->detail =
        malloc(((replay->pool_count + 1) * (size_t)information_row_floats(&replay->schema)) * sizeof *run->detail);
    run->own_embedding = scratch ? calloc(replay->set.rows * inputs, sizeof *run->own_embedding) : NULL;
    run->embedding = scratch ? run->own_embedding : replay->embedding;
    if (!run->labelled || !run->is_labelled || !run->place || !run->score || !run->detail || !run->embedding)
        return error_set(ERROR_SYSTEM, "out of memory for a run");
    for (size_t i = 0; i < replay->pool_count; i++)
        run->place[replay->pool_row[i]] = i;
    int result = backend_cpu.open(1, 1, &run->context);
    if (!result)
        result =
            head_set_new(scratch ? 1 : (int)replay->config->heads, replay->inputs, replay->schema.answers, &run->heads);
    run->heads.unit_length = !scratch && config_unit_length(replay->config);
    run->heads.dropout = (float)(scratch ? replay->config->training_dropout : replay->config->dropout);
    return result;
}

static void close_run(struct run *run)
{
    head_set_free(&run->heads);
    backend_cpu.close(run->context);
    text_free(&run->csv);
    text_free(&run->order);
    free(run->labelled);
    free(run->is_labelled);
    free(run->place);
    free(run->score);
    free(run->detail);
    free(run->own_embedding);
}

static size_t galaxies_at(const struct replay *replay, int step)
{
    return (size_t)(replay->config->replay_initial + step * replay->config->replay_step);
}

static int count_steps(const char *csv)
{
    int steps = 0;
    for (const char *at = csv; (at = strstr(at, ",all,")); at++)
        steps++;
    return steps;
}

static char *read_file(const struct replay *replay, const struct replay_arm *arm, int seed, const char *suffix)
{
    char path[FILE_PATH_BYTES], *text = NULL;
    size_t length;
    if (replay_path(replay, arm, seed, suffix, path, sizeof path) || !file_exists(path) ||
        file_read(path, CSV_BYTES_MAX, &text, &length))
        return NULL;
    return text;
}

int replay_steps_done(const struct replay *replay, const struct replay_arm *arm, int seed)
{
    char *csv = read_file(replay, arm, seed, "csv");
    int steps = csv ? count_steps(csv) : 0;
    free(csv);
    return steps;
}

/* Galaxies already asked about, as far as the CSV has complete steps. Returns the number of those steps. */
static int take_up(struct run *run)
{
    const struct replay *replay = run->replay;
    char *order = read_file(replay, run->arm, run->seed, "order"), *csv = read_file(replay, run->arm, run->seed, "csv");
    int steps = order && csv ? count_steps(csv) : 0;
    if (order && csv)
        text_append(&run->csv, "%s", csv);
    size_t wanted = steps ? galaxies_at(replay, steps - 1) : 0;
    for (char *at = order, *end; wanted && run->labelled_count < wanted && (end = strchr(at, '\n')); at = end + 1) {
        *end = 0;
        for (size_t i = 0; i < replay->pool_count; i++)
            if (strcmp(replay->set.id_str[replay->pool_row[i]], at) == 0) {
                label(run, replay->pool_row[i]);
                break;
            }
    }
    free(order);
    free(csv);
    return steps;
}

static int do_step(struct run *run, int known)
{
    struct judged judged = {0};
    int result = run->replay->embedding ? fit_heads(run) : train_network(run);
    if (!result && !known)
        result = judge(run, &judged);
    return result || known ? result : record(run, &judged);
}

int replay_run(const struct replay *replay, const struct replay_arm *arm, int seed, atomic_long *steps_done)
{
    struct run run = {.replay = replay, .arm = arm, .seed = seed};
    int result = open_run(&run), steps = replay_steps(replay->config), done = 0;
    if (!result)
        done = take_up(&run);
    atomic_fetch_add(steps_done, done);
    if (!result && !done) {
        text_append(&run.csv, "step,galaxies,votes,question,nll,rmse\n");
        result = choose(&run, 0, (size_t)replay->config->replay_initial);
    }
    /* What an interrupted run had learnt is learnt again: the next choice needs it. */
    for (run.step = done ? done - 1 : 0; run.step < steps && done < steps && !result; run.step++) {
        int known = run.step < done;
        result = do_step(&run, known);
        if (!result && run.step + 1 < steps)
            result = ask(&run);
        atomic_fetch_add(steps_done, !known);
    }
    close_run(&run);
    return result;
}
