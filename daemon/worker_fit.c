/*
 * The training job: heads on every labelled embedding, warm-started from the champion, stopped on the validation
 * galaxies, judged on the gate galaxies, written as a new immutable model.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "daemon/jobs.h"
#include "daemon/models.h"
#include "daemon/worker_jobs.h"
#include "model/gate.h"
#include "model/likelihood.h"
#include "model/metrics.h"
#include "model/model_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GATE_BLOCK 256 /* galaxies whose every pass is in memory at a time */

/* The labelled galaxies, by split. */
struct labels {
    uint64_t *row[4];
    size_t count[4];
    long labelled;
};

static int is_labelled(const struct worker *worker, uint64_t row)
{
    const uint16_t *tally = pool_tally(&worker->pool, row);
    for (int a = 0; a < worker->schema.answers; a++)
        if (tally[a])
            return 1;
    return 0;
}

static int collect_labels(struct worker *worker, struct labels *labels)
{
    uint64_t rows = pool_rows(&worker->pool);
    for (int split = 0; split < 4; split++) {
        labels->row[split] = arena_alloc(&worker->batch, WORKER_LABELS_MAX * sizeof(uint64_t));
        if (!labels->row[split])
            return ERROR_LIMIT;
    }
    for (uint64_t row = 0; row < rows; row++) {
        const struct pool_state *state = pool_state(&worker->pool, row);
        if (*pool_embedding_version(&worker->pool, row) != worker->pool.trunk || state->flags & POOL_BAD ||
            !is_labelled(worker, row))
            continue;
        int split = state->split & 3;
        if (labels->count[split] == WORKER_LABELS_MAX)
            return error_set(ERROR_LIMIT, "more than %d labelled galaxies in one split", WORKER_LABELS_MAX);
        labels->row[split][labels->count[split]++] = row;
        labels->labelled++;
    }
    return labels->count[SPLIT_TRAIN]
               ? 0
               : error_set(ERROR_STATE, "no labelled galaxy to train on yet (%ld in the hold-out)", labels->labelled);
}

static struct vote_rows vote_rows_of(const struct worker *worker, const struct labels *labels, enum split split)
{
    return (struct vote_rows){.votes = pool_tally(&worker->pool, 0),
                              .stride_bytes = pool_tally_stride_bytes(&worker->pool),
                              .row = labels->row[split],
                              .count = labels->count[split]};
}

/* Heads before the first fit: scaled to this trunk's embeddings, predicting the best constant. */
static int first_heads(struct worker *worker, const struct labels *labels, struct head_set *heads)
{
    float constant[SCHEMA_ANSWERS_MAX];
    struct vote_rows rows = vote_rows_of(worker, labels, SPLIT_TRAIN);
    const struct config *config = &worker->config;
    int result =
        likelihood_constant_fit(&worker->schema, &rows, LIKELIHOOD_HEAD_LOWER, LIKELIHOOD_HEAD_UPPER, constant);
    if (!result)
        result = head_set_new((int)config->heads, worker->pool.layout.embedding_inputs, worker->schema.answers, heads);
    if (result)
        return result;
    heads->dropout = (float)config->dropout;
    uint64_t rows_max = pool_rows(&worker->pool), count = 0,
             *sample = labels->row[SPLIT_TEST] + labels->count[SPLIT_TEST];
    uint64_t room = WORKER_LABELS_MAX - labels->count[SPLIT_TEST];
    for (uint64_t row = 0; row < rows_max && count < 4096 && count < room; row++)
        if (*pool_embedding_version(&worker->pool, row) == worker->pool.trunk)
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
    struct vote_rows rows = vote_rows_of(worker, labels, SPLIT_TRAIN);
    int result =
        likelihood_constant_fit(&worker->schema, &rows, LIKELIHOOD_HEAD_LOWER, LIKELIHOOD_HEAD_UPPER, constant);
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

static int fit(struct worker *worker, const struct labels *labels, struct model *model, struct fit_report *report)
{
    const struct config *config = &worker->config;
    struct fit_request request = {.schema = &worker->schema,
                                  .embedding = pool_embedding(&worker->pool, 0),
                                  .embedding_stride_bytes = pool_embedding_stride_bytes(&worker->pool),
                                  .votes = pool_tally(&worker->pool, 0),
                                  .votes_stride_bytes = pool_tally_stride_bytes(&worker->pool),
                                  .train_row = labels->row[SPLIT_TRAIN],
                                  .train_count = labels->count[SPLIT_TRAIN],
                                  .validation_row = labels->row[SPLIT_VALIDATION],
                                  .validation_count = labels->count[SPLIT_VALIDATION],
                                  .seed = (uint64_t)config->seed,
                                  .learning_rate = (float)config->learning_rate,
                                  .weight_decay = (float)config->weight_decay,
                                  .batch = (int)config->batch,
                                  .epochs_max = (int)config->epochs_max,
                                  .patience = (int)config->patience,
                                  .stop = worker_tick,
                                  .stop_context = worker};
    return worker->backend->head_fit(worker->context, &request, &model->heads, report);
}

/* NLL of each gate galaxy under these heads, by the same passes a ranking uses. */
static int judge(struct worker *worker, const struct head_set *heads, const struct labels *labels, double *nll)
{
    const struct config *config = &worker->config;
    int passes = (int)(config->passes - config->passes % heads->count), answers = worker->schema.answers;
    float *dump = arena_alloc(&worker->batch, GATE_BLOCK * (size_t)passes * (size_t)answers * sizeof *dump);
    struct metrics metrics = {0};
    if (!dump)
        return ERROR_LIMIT;
    for (size_t first = 0; first < labels->count[SPLIT_GATE]; first += GATE_BLOCK) {
        size_t left = labels->count[SPLIT_GATE] - first, count = left < GATE_BLOCK ? left : GATE_BLOCK;
        struct score_request request = {.heads = heads,
                                        .schema = &worker->schema,
                                        .embedding = pool_embedding(&worker->pool, 0),
                                        .embedding_stride_bytes = pool_embedding_stride_bytes(&worker->pool),
                                        .row = labels->row[SPLIT_GATE] + first,
                                        .count = count,
                                        .passes = passes,
                                        .seed = (uint64_t)config->seed,
                                        .reducer = REDUCE_DUMP,
                                        .output = dump};
        int result = worker->backend->head_score(worker->context, &request, worker_tick, worker);
        if (result)
            return result;
        for (size_t i = 0; i < count; i++)
            nll[first + i] = metrics_add(&metrics, &worker->schema, dump + i * (size_t)passes * (size_t)answers, passes,
                                         pool_tally(&worker->pool, labels->row[SPLIT_GATE][first + i]));
    }
    return 0;
}

/* What the best constant of the training galaxies scores on the gate galaxies: a model below it has learnt nothing. */
static int judge_constant(struct worker *worker, const struct labels *labels, double *ret_nll)
{
    float constant[SCHEMA_ANSWERS_MAX];
    struct vote_rows rows = vote_rows_of(worker, labels, SPLIT_TRAIN);
    int result =
        likelihood_constant_fit(&worker->schema, &rows, LIKELIHOOD_FREE_LOWER, LIKELIHOOD_FREE_UPPER, constant);
    double sum = 0;
    for (size_t i = 0; !result && i < labels->count[SPLIT_GATE]; i++)
        sum += likelihood_galaxy(&worker->schema, constant, pool_tally(&worker->pool, labels->row[SPLIT_GATE][i]));
    *ret_nll = labels->count[SPLIT_GATE] ? sum / (double)labels->count[SPLIT_GATE] : NAN;
    return result;
}

static int decide(struct worker *worker, const struct labels *labels, struct model *model, const struct model *parent,
                  struct gate_report *report)
{
    size_t count = labels->count[SPLIT_GATE];
    double *champion = arena_alloc(&worker->batch, (count + 1) * sizeof *champion);
    double *challenger = arena_alloc(&worker->batch, (count + 1) * sizeof *challenger);
    if (!champion || !challenger)
        return ERROR_LIMIT;
    int result = judge(worker, &model->heads, labels, challenger);
    if (!result && model->parent) {
        pool_use_trunk(&worker->pool, parent->trunk_version);
        result = judge(worker, &parent->heads, labels, champion);
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

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static int fit_and_save(struct worker *worker, const json_t *job, const struct labels *labels, struct model *model,
                        struct model *parent, json_t *answer)
{
    struct fit_report report = {0};
    struct gate_report gate = {0};
    char path[FILE_PATH_BYTES];
    int result = start_model(worker, job, labels, model, parent);
    if (!result)
        result = fit(worker, labels, model, &report);
    if (!result)
        result = decide(worker, labels, model, parent, &gate);
    model->train_galaxies = labels->count[SPLIT_TRAIN];
    model->validation_galaxies = labels->count[SPLIT_VALIDATION];
    model->gate_galaxies = labels->count[SPLIT_GATE];
    model->train_loss = (double)report.train_loss;
    model->validation_loss = (double)report.validation_loss;
    if (!result)
        result = models_path(&worker->config, model->number, path, sizeof path);
    if (!result)
        result = model_save(path, model);
    if (result)
        return result;
    json_object_set_new(answer, "labels", json_integer(labels->labelled));
    json_object_set_new(answer, "trunk", json_integer(model->trunk_version));
    json_object_set_new(answer, "epochs", json_integer(report.epochs));
    json_object_set_new(answer, "holdout_nll", number_or_null(model->challenger_nll));
    json_object_set_new(answer, "champion_nll", number_or_null(model->champion_nll));
    json_object_set_new(answer, "constant_nll", number_or_null(model->constant_nll));
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
    if (!result)
        result = fit_and_save(worker, job, &labels, &model, &parent, answer);
    model_free(&model);
    model_free(&parent);
    return result;
}
