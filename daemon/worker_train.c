/*
 * The trunk-training job: one slice of a run of model/trunk_fit.h on the pool's pixels and votes. The labels of a run are fixed
 * when it begins (models/trunk-N.labels), so that votes that come in meanwhile do not change it; between slices everything is in
 * models/trunk-N.checkpoint, and a worker that dies costs the slice. Where the run ends, models/trunk-N.safetensors appears.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "daemon/jobs.h"
#include "daemon/models.h"
#include "daemon/setup.h"
#include "daemon/training_report.h"
#include "daemon/worker_jobs.h"
#include "model/safetensors.h"
#include "model/trunk_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LABELS_BYTES_MAX ((size_t)1 << 30)
#define CHECK_BYTES      8

/* models/trunk-N.labels: counts, then rows (training first), then labels of those rows, then XXH3 of all before. */
struct snapshot {
    uint64_t train_count, validation_count, answers;
};

struct slice {
    struct worker *worker;
    uint32_t trunk, from;
    struct target target;
    struct trunk_data data;
    struct trunk_fit *fit;
    float *labels; /* [pool rows][answers] */
    uint64_t *keys, *rows;
    char checkpoint[FILE_PATH_BYTES];
};

static int is_labelled(const struct worker *worker, uint64_t row)
{
    const uint16_t *tally = pool_tally(&worker->pool, row);
    for (int a = 0; a < worker->schema.answers; a++)
        if (tally[a])
            return 1;
    return 0;
}

/* Galaxies of one split that have votes and pixels, appended to `rows`. */
static uint64_t list_rows(const struct slice *slice, enum split split, uint64_t *rows)
{
    const struct worker *worker = slice->worker;
    uint64_t count = 0;
    for (uint64_t row = 0; row < pool_rows(&worker->pool); row++) {
        const struct pool_state *state = pool_state(&worker->pool, row);
        if (state->split == split && !(state->flags & POOL_BAD) && is_labelled(worker, row) &&
            *pool_embedding_version(&worker->pool, row) == slice->from)
            rows[count++] = row;
    }
    return count;
}

static int take_snapshot(struct slice *slice, const char *path)
{
    struct worker *worker = slice->worker;
    uint64_t answers = (uint64_t)worker->schema.answers, pool = pool_rows(&worker->pool);
    struct snapshot head = {.answers = answers};
    uint64_t *rows = arena_alloc(&worker->batch, 2 * (pool + 1) * sizeof *rows);
    if (!rows)
        return ERROR_LIMIT;
    head.train_count = list_rows(slice, SPLIT_TRAIN, rows);
    head.validation_count = list_rows(slice, SPLIT_VALIDATION, rows + head.train_count);
    uint64_t count = head.train_count + head.validation_count;
    if (!head.train_count)
        return error_set(ERROR_STATE, "no labelled galaxy to train the trunk on");
    size_t bytes = sizeof head + count * (sizeof(uint64_t) + answers * sizeof(uint16_t)) + CHECK_BYTES;
    char *text = arena_alloc(&worker->batch, bytes), *at = text;
    if (!text)
        return ERROR_LIMIT;
    memcpy(at, &head, sizeof head);
    memcpy(at += sizeof head, rows, count * sizeof *rows);
    at += count * sizeof *rows;
    for (uint64_t i = 0; i < count; i++, at += answers * sizeof(uint16_t))
        memcpy(at, pool_tally(&worker->pool, rows[i]), answers * sizeof(uint16_t));
    uint64_t check = hash_64(text, bytes - CHECK_BYTES);
    memcpy(at, &check, CHECK_BYTES);
    struct file_part part = {text, bytes};
    return file_write(path, &part, 1, 0644);
}

static int check_snapshot(const struct slice *slice, const char *path, const char *bytes, size_t length,
                          struct snapshot *head)
{
    uint64_t check, pool = pool_rows(&slice->worker->pool);
    if (length < sizeof *head + CHECK_BYTES)
        return error_set(ERROR_INPUT, "%s is damaged: 'triagectl train stop' gives the run up", path);
    memcpy(head, bytes, sizeof *head);
    memcpy(&check, bytes + length - CHECK_BYTES, CHECK_BYTES);
    if (check != hash_64(bytes, length - CHECK_BYTES) || head->answers != (uint64_t)slice->worker->schema.answers ||
        head->train_count + head->validation_count > pool)
        return error_set(ERROR_INPUT, "%s is damaged or of another pool: 'triagectl train stop' gives the run up",
                         path);
    return 0;
}

/* Rows and labels of the run, as they were when it began. */
static int read_snapshot(struct slice *slice, const char *path)
{
    struct worker *worker = slice->worker;
    size_t answers = (size_t)worker->schema.answers, pool = pool_rows(&worker->pool), length;
    struct snapshot head;
    char *bytes;
    int result = file_read(path, LABELS_BYTES_MAX, &bytes, &length);
    if (result)
        return result;
    result = check_snapshot(slice, path, bytes, length, &head);
    size_t count = result ? 0 : head.train_count + head.validation_count;
    slice->labels = arena_alloc(&worker->batch, (pool + 1) * answers * sizeof *slice->labels);
    slice->keys = arena_alloc(&worker->batch, (pool + 1) * sizeof *slice->keys);
    slice->rows = arena_alloc(&worker->batch, (count + 1) * sizeof *slice->rows);
    if (!result && (!slice->labels || !slice->keys || !slice->rows))
        result = ERROR_LIMIT;
    for (size_t i = 0; i < count && !result; i++) {
        uint16_t votes[SCHEMA_ANSWERS_MAX];
        memcpy(&slice->rows[i], bytes + sizeof head + i * sizeof(uint64_t), sizeof(uint64_t));
        memcpy(votes, bytes + sizeof head + count * sizeof(uint64_t) + i * answers * sizeof *votes,
               answers * sizeof *votes);
        for (size_t a = 0; a < answers && slice->rows[i] < pool; a++)
            slice->labels[slice->rows[i] * answers + a] = (float)votes[a];
    }
    for (size_t row = 0; row < pool && !result; row++)
        slice->keys[row] = row + 1;
    free(bytes);
    slice->data = (struct trunk_data){.pixels = pool ? pool_pixels(&worker->pool, 0) : NULL,
                                      .pixels_stride_bytes = worker->pool.column[POOL_COLUMN_PIXELS].layout.row_bytes,
                                      .pixel_side = (int)worker->config.image_side,
                                      .labels = slice->labels,
                                      .key = slice->keys,
                                      .train_row = slice->rows,
                                      .validation_row = slice->rows + (result ? 0 : head.train_count),
                                      .train_count = result ? 0 : head.train_count,
                                      .validation_count = result ? 0 : head.validation_count};
    return result;
}

/* The first training of a random trunk starts afresh; later ones, and imported weights, from the trunk in use. */
static int start_values(struct slice *slice, const struct net *net, float *values)
{
    struct worker *worker = slice->worker;
    uint64_t seed = (uint64_t)worker->config.seed + slice->trunk;
    char path[FILE_PATH_BYTES];
    if (slice->from == TRUNK_FIRST && !worker->config.trunk_weights[0])
        return trunk_fit_random(net, &slice->target, &slice->data, seed, values);
    int result = models_trunk_path(&worker->config, slice->from, path, sizeof path);
    if (!result)
        result = safetensors_load(path, net, values);
    if (!result)
        result = trunk_fit_random_head(net, &slice->target, &slice->data, seed, values);
    if (!result && worker->config.training_start < 1)
        result = trunk_fit_shrink(net, &slice->target, &slice->data, seed, worker->config.training_start, values);
    return result;
}

static int open_fit(struct slice *slice)
{
    struct worker *worker = slice->worker;
    struct trunk_recipe recipe;
    config_recipe(&worker->config, &recipe);
    recipe.seed += slice->trunk;
    slice->target = (struct target){.kind = TARGET_VOTES, .outputs = worker->schema.answers, .schema = &worker->schema};
    float *values = arena_alloc(&worker->batch, trunk_fit_values(&worker->net, &slice->target) * sizeof *values);
    if (!values)
        return ERROR_LIMIT;
    int result = start_values(slice, &worker->net, values);
    if (!result)
        result = trunk_fit_open(worker->backend, worker->context, &worker->net, &slice->target, &recipe, &slice->data,
                                values, &slice->fit);
    if (!result && file_exists(slice->checkpoint))
        result = trunk_fit_load(slice->fit, slice->checkpoint);
    return result;
}

static int run_slice(struct slice *slice, double seconds, int *ret_over)
{
    struct worker *worker = slice->worker;
    double until_s = clock_s() + seconds;
    int over = 0, stop = 0;
    while (!over && !stop && clock_s() < until_s) {
        over = trunk_fit_step(slice->fit);
        worker->progress = trunk_fit_progress(slice->fit);
        stop = worker_tick(worker);
    }
    if (over == ERROR_INPUT)
        return error_prefix(over, "galaxy %s: ", pool_identity(&worker->pool, trunk_fit_bad_row(slice->fit))->id_str);
    *ret_over = over;
    return over < 0 ? over : trunk_fit_save(slice->fit, slice->checkpoint);
}

static int finish(const struct slice *slice)
{
    struct worker *worker = slice->worker;
    char path[FILE_PATH_BYTES], folder[FILE_PATH_BYTES];
    int result = file_path(folder, sizeof folder, "%s/models", worker->config.state);
    if (!result)
        result = training_report_write(slice->fit, &slice->target, folder);
    if (!result)
        result = models_trunk_path(&worker->config, slice->trunk, path, sizeof path);
    return result ? result : safetensors_save(path, &worker->net, trunk_fit_best(slice->fit));
}

static void report(const struct slice *slice, int over, json_t *answer)
{
    const struct trunk_fit *fit = slice->fit;
    const struct trunk_epoch *epoch = trunk_fit_epoch(fit, trunk_fit_epochs(fit));
    json_object_set_new(answer, "over", json_boolean(over == 1));
    json_object_set_new(answer, "galaxies", json_integer((json_int_t)slice->data.train_count));
    json_object_set_new(answer, "epoch", json_integer(trunk_fit_epochs(fit)));
    json_object_set_new(answer, "best_epoch", json_integer(trunk_fit_best_epoch(fit)));
    json_object_set_new(answer, "share", json_real(trunk_fit_progress(fit)));
    json_object_set_new(answer, "train_loss", json_real(epoch->train_loss));
    json_object_set_new(answer, "validation_loss",
                        isfinite(epoch->validation_loss) ? json_real(epoch->validation_loss) : json_null());
}

int worker_train(struct worker *worker, const json_t *job, json_t *answer)
{
    struct slice slice = {.worker = worker,
                          .trunk = (uint32_t)json_integer_value(json_object_get(job, "trunk")),
                          .from = (uint32_t)json_integer_value(json_object_get(job, "from"))};
    char labels[FILE_PATH_BYTES];
    int over = 0, result = setup_net(&worker->config, &worker->net);
    pool_use_trunk(&worker->pool, slice.from);
    if (!result)
        result = models_checkpoint_path(&worker->config, slice.trunk, slice.checkpoint, sizeof slice.checkpoint);
    if (!result)
        result = models_labels_path(&worker->config, slice.trunk, labels, sizeof labels);
    if (!result && !file_exists(labels))
        result = take_snapshot(&slice, labels);
    if (!result)
        result = read_snapshot(&slice, labels);
    if (!result)
        result = open_fit(&slice);
    if (!result)
        result = run_slice(&slice, json_number_value(json_object_get(job, "seconds")), &over);
    if (!result && over == 1)
        result = finish(&slice);
    if (!result)
        report(&slice, over, answer);
    trunk_fit_close(slice.fit);
    return result;
}
