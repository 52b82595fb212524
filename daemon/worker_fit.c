/*
 * The training job: heads on every labelled embedding, warm-started from the champion, stopped on the validation
 * galaxies, judged on the gate galaxies, written as a new immutable model.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "daemon/jobs.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/worker_jobs.h"
#include "model/coverage.h"
#include "model/gate.h"
#include "model/likelihood.h"
#include "model/metrics.h"
#include "model/model_file.h"
#include "model/scaling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GATE_BLOCK   256  /* galaxies whose every pass is in memory at a time */
#define COVERED_ROWS 500  /* gate galaxies that coverage is measured on: it costs more than judging */
#define SCALING_ROWS 1000 /* validation galaxies that factors are fitted on: more say nothing new */

/* The labelled galaxies, by split, with their votes as they were at one moment: the daemon goes on counting meanwhile. */
struct labels {
    uint64_t *row[4];
    size_t count[4];
    int halvings[4]; /* of the splits that are sampled */
    long labelled;
    uint16_t *votes; /* [pool rows][answers]; only labelled rows are filled, so that only they take memory */
    size_t answers;
};

static uint16_t *votes_of(const struct labels *labels, uint64_t row)
{
    return labels->votes + row * labels->answers;
}

/* Copies the votes of one galaxy; 0 if it has none. */
static int take_votes(const struct worker *worker, struct labels *labels, uint64_t row)
{
    const uint16_t *tally = pool_tally(&worker->pool, row);
    uint16_t any = 0, *votes = votes_of(labels, row);
    for (size_t a = 0; a < labels->answers; a++) {
        uint16_t count = tally[a];
        if (count)
            votes[a] = count; /* else it is 0 already, and its page stays untouched */
        any |= count;
    }
    return any != 0;
}

/* Whether a row is in the sample of 1 in 2^halvings; those of more halvings are among those of fewer. */
static int is_in_sample(uint64_t row, int halvings)
{
    uint64_t hash = (row + 1) * 0x9e3779b97f4a7c15u >> 32; /* Fibonacci hashing */
    return (hash & ((UINT64_C(1) << halvings) - 1)) == 0;
}

/* Too many labelled galaxies in a split: half of them go. */
static void halve(struct labels *labels, int split)
{
    size_t kept = 0;
    labels->halvings[split]++;
    for (size_t i = 0; i < labels->count[split]; i++)
        if (is_in_sample(labels->row[split][i], labels->halvings[split]))
            labels->row[split][kept++] = labels->row[split][i];
    labels->count[split] = kept;
}

static void tell_sample(const struct worker *worker, const struct labels *labels)
{
    static const char *const names[] = {"training", "validation", "gate", "test"};
    for (int split = 0; split < 4; split++)
        if (labels->halvings[split])
            log_info(EVENT_FIT_SAMPLED,
                     "more than heads.labels_max = %lld labelled %s galaxies: the fit uses %zu, 1 in %d",
                     (long long)worker->config.labels_limit, names[split], labels->count[split],
                     1 << labels->halvings[split]);
}

static int collect_labels(struct worker *worker, struct labels *labels)
{
    uint64_t rows = pool_rows(&worker->pool);
    labels->answers = (size_t)worker->schema.answers;
    labels->votes = arena_alloc(&worker->batch, rows * labels->answers * sizeof *labels->votes);
    if (!labels->votes)
        return ERROR_LIMIT;
    for (int split = 0; split < 4; split++) {
        labels->row[split] = arena_alloc(&worker->batch, WORKER_LABELS_MAX * sizeof(uint64_t));
        if (!labels->row[split])
            return ERROR_LIMIT;
    }
    for (uint64_t row = 0; row < rows; row++) {
        const struct pool_state *state = pool_state(&worker->pool, row);
        if (!take_votes(worker, labels, row) || !worker_has_embedding(worker, row))
            continue;
        int split = state->split & 3;
        labels->labelled++;
        if (!is_in_sample(row, labels->halvings[split]))
            continue;
        while (labels->count[split] >= (size_t)worker->config.labels_limit && labels->halvings[split] < 31)
            halve(labels, split);
        if (is_in_sample(row, labels->halvings[split]))
            labels->row[split][labels->count[split]++] = row;
    }
    tell_sample(worker, labels);
    return 0;
}

static struct vote_rows vote_rows_of(const struct labels *labels, enum split split)
{
    return (struct vote_rows){.votes = labels->votes,
                              .stride_bytes = labels->answers * sizeof *labels->votes,
                              .row = labels->row[split],
                              .count = labels->count[split]};
}

/* Heads before the first fit: scaled to this trunk's embeddings, predicting the best constant. */
static int first_heads(struct worker *worker, const struct labels *labels, struct head_set *heads)
{
    float constant[SCHEMA_ANSWERS_MAX];
    struct vote_rows rows = vote_rows_of(labels, SPLIT_TRAIN);
    const struct config *config = &worker->config;
    int result =
        likelihood_constant_fit(&worker->schema, &rows, LIKELIHOOD_START_LOWER, LIKELIHOOD_START_UPPER, constant);
    if (!result)
        result = head_set_new((int)config->heads, worker->pool.layout.embedding_inputs / (int)config->mc_views,
                              worker->schema.answers, heads);
    if (result)
        return result;
    heads->dropout = (float)config->dropout;
    heads->unit_length = config_unit_length(config);
    uint64_t rows_max = pool_rows(&worker->pool), count = 0,
             *sample = labels->row[SPLIT_TEST] + labels->count[SPLIT_TEST];
    uint64_t room = WORKER_LABELS_MAX - labels->count[SPLIT_TEST];
    for (uint64_t row = 0; row < rows_max && count < 4096 && count < room; row++)
        if (worker_has_embedding(worker, row))
            sample[count++] = row;
    head_set_standardise(heads, pool_embedding(&worker->pool, 0), pool_embedding_stride_bytes(&worker->pool), sample,
                         count);
    head_set_reset(heads, constant);
    return 0;
}

static int warm_start(struct worker *worker, const struct labels *labels, const struct model *parent,
                      struct head_set *heads)
{
    float constant[SCHEMA_ANSWERS_MAX];
    struct vote_rows rows = vote_rows_of(labels, SPLIT_TRAIN);
    int result =
        likelihood_constant_fit(&worker->schema, &rows, LIKELIHOOD_START_LOWER, LIKELIHOOD_START_UPPER, constant);
    if (!result)
        result = head_set_copy(&parent->heads, heads);
    if (!result)
        head_set_shrink(heads, constant, (float)worker->config.warm_start);
    return result;
}

static int start_model(struct worker *worker, const json_t *job, const struct labels *labels, struct model *model,
                       struct model *parent)
{
    uint32_t number = (uint32_t)json_integer_value(json_object_get(job, "number"));
    uint32_t parent_number = (uint32_t)json_integer_value(json_object_get(job, "parent"));
    const char *horizon = json_string_value(json_object_get(job, "horizon"));
    char path[FILE_PATH_BYTES];
    int result = 0;
    *model = (struct model){.number = number,
                            .parent = parent_number,
                            .created_unix_ms = clock_unix_ms(),
                            .trunk_version = worker->pool.trunk,
                            .seed = (uint64_t)worker->config.seed,
                            .vote_cursor = horizon ? strtoull(horizon, NULL, 10) : 0};
    snprintf(model->schema_name, sizeof model->schema_name, "%s", worker->schema.name);
    snprintf(model->schema_hash, sizeof model->schema_hash, "%s", worker->schema.hash);
    snprintf(model->architecture, sizeof model->architecture, "%s", worker->config.trunk_network);
    snprintf(model->trunk_name, sizeof model->trunk_name, "trunk-%06u", worker->pool.trunk);
    if (parent_number) {
        result = models_path(&worker->config, parent_number, path, sizeof path);
        if (!result)
            result = model_load(path, &worker->schema, parent);
        if (!result) /* heads know one trunk's embeddings only */
            result = parent->trunk_version == model->trunk_version ? warm_start(worker, labels, parent, &model->heads)
                                                                   : first_heads(worker, labels, &model->heads);
    } else
        result = first_heads(worker, labels, &model->heads);
    model->heads.model = number;
    return result;
}

/* Asked after each epoch; early stopping makes the end come sooner than the progress says. */
static int fit_tick(void *context)
{
    struct worker *worker = context;
    worker->progress += (1 - worker->progress) / (double)worker->config.epochs_max;
    return worker_tick(worker);
}

static int fit(struct worker *worker, const struct labels *labels, struct model *model, struct fit_report *report)
{
    const struct config *config = &worker->config;
    struct fit_request request = {.schema = &worker->schema,
                                  .embedding = pool_embedding(&worker->pool, 0),
                                  .embedding_stride_bytes = pool_embedding_stride_bytes(&worker->pool),
                                  .views = (int)config->mc_views,
                                  .votes = labels->votes,
                                  .votes_stride_bytes = labels->answers * sizeof *labels->votes,
                                  .train_row = labels->row[SPLIT_TRAIN],
                                  .train_count = labels->count[SPLIT_TRAIN],
                                  .validation_row = labels->row[SPLIT_VALIDATION],
                                  .validation_count = labels->count[SPLIT_VALIDATION],
                                  .seed = (uint64_t)config->seed,
                                  .learning_rate = (float)config->learning_rate,
                                  .bias_rate = (float)config->bias_rate,
                                  .weight_decay = (float)config->weight_decay,
                                  .bagging = config_bagging(config),
                                  .batch = (int)config->batch,
                                  .epochs_max = (int)config->epochs_max,
                                  .patience = (int)config->patience,
                                  .stop = fit_tick,
                                  .stop_context = worker};
    int result = worker->backend->head_fit(worker->context, &request, &model->heads, report);
    return result == ERROR_INPUT && report->bad_row != UINT64_MAX
               ? error_prefix(result, "galaxy %s: ", pool_identity(&worker->pool, report->bad_row)->id_str)
               : result;
}

/* By the same passes a ranking uses, on the galaxies that stopped the fit. */
static int fit_factors(struct worker *worker, const struct labels *labels, struct head_set *heads)
{
    const struct config *config = &worker->config;
    int passes = config_passes(config, heads->count);
    size_t rows = labels->count[SPLIT_VALIDATION] < SCALING_ROWS ? labels->count[SPLIT_VALIDATION] : SCALING_ROWS;
    for (int q = 0; q < worker->schema.questions; q++)
        heads->factor[q] = 1; /* a warm start brought the champion's */
    if (!config_scaling(config) || !rows)
        return 0;
    float *alpha = arena_alloc(&worker->batch, rows * (size_t)passes * (size_t)worker->schema.answers * sizeof *alpha);
    if (!alpha)
        return ERROR_LIMIT;
    struct score_request request = {.heads = heads,
                                    .schema = &worker->schema,
                                    .embedding = pool_embedding(&worker->pool, 0),
                                    .embedding_stride_bytes = pool_embedding_stride_bytes(&worker->pool),
                                    .views = (int)config->mc_views,
                                    .row = labels->row[SPLIT_VALIDATION],
                                    .count = rows,
                                    .passes = passes,
                                    .seed = (uint64_t)config->seed,
                                    .reducer = REDUCE_DUMP,
                                    .output = alpha};
    int result = worker->backend->head_score(worker->context, &request, worker_tick, worker);
    return result ? result
                  : scaling_fit(&worker->schema, alpha, passes, labels->votes, labels->answers * sizeof *labels->votes,
                                labels->row[SPLIT_VALIDATION], rows, heads->factor);
}

struct measures {
    struct metrics metrics;
    struct coverage coverage;
};

/* Every answer's counts; of two answers the first one's, as the second says the same. */
static void cover(struct coverage *coverage, const struct schema *schema, const float *alpha, int passes,
                  const uint16_t *votes)
{
    double one[INFORMATION_PASSES_MAX], all[INFORMATION_PASSES_MAX];
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        int total = 0;
        for (int a = question->first; a < question->first + question->count; a++)
            total += votes[a];
        for (int a = question->first; a < question->first + (question->count > 2 ? question->count : 1); a++) {
            coverage_passes(schema, a, alpha, passes, one, all);
            coverage_add(coverage, one, all, passes, votes[a], total);
        }
    }
}

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* NLL of each gate galaxy under these heads, by the same passes a ranking uses. */
static int judge(struct worker *worker, const struct head_set *heads, const struct labels *labels, double *nll,
                 struct measures *measures)
{
    const struct config *config = &worker->config;
    int passes = config_passes(config, heads->count), answers = worker->schema.answers;
    float *dump = arena_alloc(&worker->batch, GATE_BLOCK * (size_t)passes * (size_t)answers * sizeof *dump);
    if (!dump)
        return ERROR_LIMIT;
    *measures = (struct measures){0};
    for (size_t first = 0; first < labels->count[SPLIT_GATE]; first += GATE_BLOCK) {
        size_t left = labels->count[SPLIT_GATE] - first, count = left < GATE_BLOCK ? left : GATE_BLOCK;
        struct score_request request = {.heads = heads,
                                        .schema = &worker->schema,
                                        .embedding = pool_embedding(&worker->pool, 0),
                                        .embedding_stride_bytes = pool_embedding_stride_bytes(&worker->pool),
                                        .views = (int)config->mc_views,
                                        .row = labels->row[SPLIT_GATE] + first,
                                        .count = count,
                                        .passes = passes,
                                        .seed = (uint64_t)config->seed,
                                        .reducer = REDUCE_DUMP,
                                        .output = dump};
        int result = worker->backend->head_score(worker->context, &request, worker_tick, worker);
        if (result)
            return result;
        for (size_t i = 0; i < count; i++) {
            const float *alpha = dump + i * (size_t)passes * (size_t)answers;
            const uint16_t *votes = votes_of(labels, labels->row[SPLIT_GATE][first + i]);
            nll[first + i] = metrics_add(&measures->metrics, &worker->schema, alpha, passes, votes);
            if (first + i < COVERED_ROWS)
                cover(&measures->coverage, &worker->schema, alpha, passes, votes);
        }
    }
    return 0;
}

/* Beside the NLLs that decide: what monitoring shows of the model. */
static void answer_measures(const struct measures *measures, json_t *answer)
{
    const struct coverage *coverage = &measures->coverage;
    json_object_set_new(answer, "brier", number_or_null(metrics_brier(&measures->metrics)));
    json_object_set_new(answer, "calibration_error", number_or_null(coverage_calibration_error(coverage)));
    json_object_set_new(answer, "coverage_80",
                        number_or_null(coverage->galaxies ? coverage->inside_80 / (double)coverage->galaxies : NAN));
}

/* What the best constant of the training galaxies scores on the gate galaxies: a model below it has learnt nothing. */
static int judge_constant(struct worker *worker, const struct labels *labels, double *ret_nll)
{
    float constant[SCHEMA_ANSWERS_MAX];
    struct vote_rows rows = vote_rows_of(labels, SPLIT_TRAIN);
    int result =
        likelihood_constant_fit(&worker->schema, &rows, LIKELIHOOD_FREE_LOWER, LIKELIHOOD_FREE_UPPER, constant);
    double sum = 0;
    for (size_t i = 0; !result && i < labels->count[SPLIT_GATE]; i++)
        sum += likelihood_galaxy(&worker->schema, constant, votes_of(labels, labels->row[SPLIT_GATE][i]));
    *ret_nll = labels->count[SPLIT_GATE] ? sum / (double)labels->count[SPLIT_GATE] : NAN;
    return result;
}

static int decide(struct worker *worker, const struct labels *labels, struct model *model, const struct model *parent,
                  struct gate_report *report, struct measures *measures)
{
    static struct measures of_champion;
    size_t count = labels->count[SPLIT_GATE];
    double *champion = arena_alloc(&worker->batch, (count + 1) * sizeof *champion);
    double *challenger = arena_alloc(&worker->batch, (count + 1) * sizeof *challenger);
    if (!champion || !challenger)
        return ERROR_LIMIT;
    int result = judge(worker, &model->heads, labels, challenger, measures);
    if (!result && model->parent) {
        pool_use_trunk(&worker->pool, parent->trunk_version);
        result = judge(worker, &parent->heads, labels, champion, &of_champion);
        pool_use_trunk(&worker->pool, model->trunk_version);
    }
    if (!result)
        result = judge_constant(worker, labels, &model->constant_nll);
    if (result)
        return result;
    gate_decide(model->parent ? champion : NULL, challenger, count, (uint64_t)worker->config.seed, report);
    model->champion_nll = report->champion_nll;
    model->challenger_nll = report->challenger_nll;
    return 0;
}

static int fit_and_save(struct worker *worker, const json_t *job, const struct labels *labels, struct model *model,
                        struct model *parent, json_t *answer)
{
    struct fit_report report = {0};
    struct gate_report gate = {0};
    static struct measures measures;
    char path[FILE_PATH_BYTES];
    int result = start_model(worker, job, labels, model, parent);
    if (!result)
        result = fit(worker, labels, model, &report);
    FAULT(HEADS_FITTED);
    if (!result)
        result = fit_factors(worker, labels, &model->heads);
    if (!result)
        result = decide(worker, labels, model, parent, &gate, &measures);
    FAULT(MODEL_JUDGED);
    model->train_galaxies = labels->count[SPLIT_TRAIN];
    model->validation_galaxies = labels->count[SPLIT_VALIDATION];
    model->gate_galaxies = labels->count[SPLIT_GATE];
    model->train_loss = (double)report.train_loss;
    model->validation_loss = (double)report.validation_loss;
    if (!result)
        result = models_path(&worker->config, model->number, path, sizeof path);
    if (!result)
        result = model_save(path, model);
    FAULT(MODEL_SAVED);
    if (result)
        return result;
    json_object_set_new(answer, "labels", json_integer(labels->labelled));
    json_object_set_new(answer, "trunk", json_integer(model->trunk_version));
    json_object_set_new(answer, "epochs", json_integer(report.epochs));
    json_object_set_new(answer, "holdout_nll", number_or_null(model->challenger_nll));
    json_object_set_new(answer, "champion_nll", number_or_null(model->champion_nll));
    json_object_set_new(answer, "constant_nll", number_or_null(model->constant_nll));
    json_object_set_new(answer, "train_loss", number_or_null(model->train_loss));
    answer_measures(&measures, answer);
    json_object_set_new(answer, "promoted", json_boolean(gate.promoted));
    json_object_set_new(answer, "reason", json_string(gate.reason));
    return 0;
}

int worker_fit(struct worker *worker, const json_t *job, json_t *answer)
{
    struct labels labels = {0};
    struct model model = {0}, parent = {0};
    worker_take_trunk(worker, job);
    int result = collect_labels(worker, &labels);
    FAULT(LABELS_COLLECTED);
    if (!result && !labels.count[SPLIT_TRAIN]) {
        json_object_set_new(answer, "nothing_labelled", json_true());
        json_object_set_new(answer, "labels", json_integer(labels.labelled));
    } else if (!result)
        result = fit_and_save(worker, job, &labels, &model, &parent, answer);
    model_free(&model);
    model_free(&parent);
    return result;
}
