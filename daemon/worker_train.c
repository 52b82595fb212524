/*
 * The trunk-training job: one slice of a run of model/trunk_fit.h on the pool's pixels and votes. Labels and recipe of a run are
 * fixed when it begins (models/trunk-N.labels), so that votes and settings that come meanwhile do not change it; between slices everything is in
 * models/trunk-N.checkpoint, and a worker that dies costs the slice. Where the run ends, models/trunk-N.safetensors appears.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "daemon/jobs.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/setup.h"
#include "daemon/training_report.h"
#include "daemon/worker_jobs.h"
#include "model/safetensors.h"
#include "model/trunk_labels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct slice {
    struct worker *worker;
    uint32_t trunk, from;
    struct trunk_labels labels;
    struct target target;
    struct trunk_data data;
    struct trunk_fit *fit;
    char labels_path[FILE_PATH_BYTES], checkpoint[FILE_PATH_BYTES];
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
    struct worker *worker = slice->worker;
    uint64_t count = 0;
    for (uint64_t row = 0; row < pool_rows(&worker->pool); row++) {
        const struct pool_state *state = pool_state(&worker->pool, row);
        if (state->split != split || state->flags & POOL_BAD || !is_labelled(worker, row) ||
            *pool_embedding_version(&worker->pool, row) != slice->from)
            continue;
        if (pool_pixels_are_sound(&worker->pool, row))
            rows[count++] = row;
        else
            worker_forget_row(worker, row, "row of pixels");
    }
    return count;
}

static int begin_labels(struct slice *slice)
{
    struct worker *worker = slice->worker;
    struct trunk_labels *labels = &slice->labels;
    size_t answers = (size_t)worker->schema.answers;
    int result = trunk_labels_new(pool_rows(&worker->pool), answers, labels);
    if (result)
        return result;
    config_recipe(&worker->config, &labels->recipe);
    labels->recipe.seed += slice->trunk;
    labels->train_count = list_rows(slice, SPLIT_TRAIN, labels->row);
    labels->validation_count = list_rows(slice, SPLIT_VALIDATION, labels->row + labels->train_count);
    if (!labels->train_count)
        return error_set(ERROR_STATE, "no labelled galaxy to train the trunk on");
    for (uint64_t i = 0; i < labels->train_count + labels->validation_count; i++)
        memcpy(labels->votes + i * answers, pool_tally(&worker->pool, labels->row[i]), answers * sizeof(uint16_t));
    result = trunk_labels_save(slice->labels_path, labels);
    FAULT(LABELS_KEPT);
    return result;
}

/* Those the run began with; where they cannot be read, it begins again with those of today. */
static int find_labels(struct slice *slice)
{
    const struct worker *worker = slice->worker;
    int result = trunk_labels_load(slice->labels_path, (uint64_t)worker->schema.answers, pool_rows(&worker->pool),
                                   &slice->labels);
    if (result == ERROR_INPUT || result == ERROR_STATE) {
        log_warning(EVENT_TRUNK_FILE_DAMAGED, "%s; set aside, trunk %u is trained from the beginning", error_message(),
                    slice->trunk);
        models_set_aside_trunk(&worker->config, slice->trunk);
        result = ERROR_NOT_FOUND;
    }
    return result == ERROR_NOT_FOUND ? begin_labels(slice) : result;
}

/* Pixels and labels by row of the pool. */
static int gather_data(struct slice *slice)
{
    struct worker *worker = slice->worker;
    const struct trunk_labels *labels = &slice->labels;
    size_t answers = (size_t)worker->schema.answers, pool = pool_rows(&worker->pool);
    float *votes = arena_alloc(&worker->batch, (pool + 1) * answers * sizeof *votes);
    uint64_t *keys = arena_alloc(&worker->batch, (pool + 1) * sizeof *keys);
    if (!votes || !keys)
        return ERROR_LIMIT;
    for (size_t i = 0; i < labels->train_count + labels->validation_count; i++)
        for (size_t a = 0; a < answers; a++)
            votes[labels->row[i] * answers + a] = (float)labels->votes[i * answers + a];
    for (size_t row = 0; row < pool; row++)
        keys[row] = row + 1;
    slice->data = (struct trunk_data){.pixels = pool_pixels(&worker->pool, 0),
                                      .pixels_stride_bytes = worker->pool.column[POOL_COLUMN_PIXELS].layout.row_bytes,
                                      .pixel_side = (int)worker->config.image_side,
                                      .labels = votes,
                                      .key = keys,
                                      .train_row = labels->row,
                                      .validation_row = labels->row + labels->train_count,
                                      .train_count = labels->train_count,
                                      .validation_count = labels->validation_count};
    return 0;
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

/* Where the last slice ended. A checkpoint that cannot be gone on from costs what was done, not the run. */
static int go_on(struct slice *slice)
{
    struct worker *worker = slice->worker;
    char before[TRUNK_MEANS_BYTES], now[TRUNK_MEANS_BYTES];
    int result = trunk_fit_load(slice->fit, slice->checkpoint, before);
    trunk_fit_means(slice->fit, now);
    if (result == ERROR_INPUT || result == ERROR_STATE) {
        log_warning(EVENT_TRUNK_FILE_DAMAGED, "%s; set aside, trunk %u is trained from the beginning", error_message(),
                    slice->trunk);
        models_set_aside_checkpoint(&worker->config, slice->trunk);
        return 0;
    }
    if (!result && strcmp(before, now) != 0)
        log_warning(EVENT_TRUNK_MEANS,
                    "trunk %u goes on with %s after %s: the same within rounding, but not to the byte", slice->trunk,
                    now, before);
    return result == ERROR_NOT_FOUND ? 0 : result;
}

static int open_fit(struct slice *slice)
{
    struct worker *worker = slice->worker;
    slice->target = (struct target){.kind = TARGET_VOTES, .outputs = worker->schema.answers, .schema = &worker->schema};
    float *values = arena_alloc(&worker->batch, trunk_fit_values(&worker->net, &slice->target) * sizeof *values);
    if (!values)
        return ERROR_LIMIT;
    int result = start_values(slice, &worker->net, values);
    if (!result)
        result = trunk_fit_open(worker->backend, worker->context, &worker->net, &slice->target, &slice->labels.recipe,
                                &slice->data, values, &slice->fit);
    return result ? result : go_on(slice);
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
    FAULT(SLICE_TRAINED);
    int result = over < 0 ? over : trunk_fit_save(slice->fit, slice->checkpoint);
    FAULT(SLICE_SAVED);
    return result;
}

/* models/curve.csv and .svg, as far as the run is. */
static int draw_curve(const struct slice *slice)
{
    char folder[FILE_PATH_BYTES];
    int result = file_path(folder, sizeof folder, "%s/models", slice->worker->config.state);
    return result ? result : training_report_write(slice->fit, &slice->target, folder);
}

static int finish(const struct slice *slice)
{
    struct worker *worker = slice->worker;
    char path[FILE_PATH_BYTES];
    int result = models_trunk_path(&worker->config, slice->trunk, path, sizeof path);
    if (!result)
        result = safetensors_save(path, &worker->net, trunk_fit_best(slice->fit));
    FAULT(TRUNK_WRITTEN);
    return result;
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
    int over = 0, result = setup_net(&worker->config, &worker->net);
    pool_use_trunk(&worker->pool, slice.from);
    if (!result)
        result = models_checkpoint_path(&worker->config, slice.trunk, slice.checkpoint, sizeof slice.checkpoint);
    if (!result)
        result = models_labels_path(&worker->config, slice.trunk, slice.labels_path, sizeof slice.labels_path);
    if (!result)
        result = find_labels(&slice);
    if (!result)
        result = gather_data(&slice);
    if (!result)
        result = open_fit(&slice);
    if (!result)
        result = run_slice(&slice, json_number_value(json_object_get(job, "seconds")), &over);
    if (!result && trunk_fit_epochs(slice.fit) > 0)
        result = draw_curve(&slice);
    if (!result && over == 1)
        result = finish(&slice);
    if (!result)
        report(&slice, over, answer);
    trunk_fit_close(slice.fit);
    trunk_labels_free(&slice.labels);
    return result;
}
