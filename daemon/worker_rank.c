/*
 * The ranking job: streams every embedding through heads and passes, stores scores and their parts in the
 * pool, and chooses what fills the free places of the queue. Without a model it only draws at random.
 */
#include "acquisition/select.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "daemon/jobs.h"
#include "daemon/models.h"
#include "daemon/worker_jobs.h"
#include "model/model_file.h"

#include <stdlib.h>
#include <string.h>

static int is_embedded(const struct worker *worker, uint64_t row)
{
    return *pool_embedding_version(&worker->pool, row) == worker->pool.trunk &&
           !(pool_state(&worker->pool, row)->flags & POOL_BAD);
}

static void store(const struct worker *worker, uint64_t row, const float *detail, uint32_t model)
{
    int floats = information_row_floats(&worker->schema);
    memcpy(pool_detail(&worker->pool, row), detail, (size_t)floats * sizeof *detail);
    *pool_score(&worker->pool, row) = (struct pool_score){detail[0] - detail[1], detail[0], detail[1], model};
}

/* One block of galaxies; *at is the next row to look at. */
static int score_block(struct worker *worker, const struct model *model, uint64_t *at, uint64_t *rows, uint16_t *due,
                       float *details, long *ret_scored)
{
    const struct config *config = &worker->config;
    size_t floats = (size_t)information_row_floats(&worker->schema), count = 0;
    for (; *at < pool_rows(&worker->pool) && count < WORKER_SCORE_ROWS; (*at)++)
        if (is_embedded(worker, *at)) {
            int votes = (int)config->retire_votes - pool_state(&worker->pool, *at)->root_votes;
            due[count] = (uint16_t)(votes > 1 ? votes : 1);
            rows[count++] = *at;
        }
    struct score_request request = {.heads = &model->heads,
                                    .schema = &worker->schema,
                                    .embedding = pool_embedding(&worker->pool, 0),
                                    .embedding_stride_bytes = pool_embedding_stride_bytes(&worker->pool),
                                    .row = rows,
                                    .count = count,
                                    .passes = (int)(config->passes - config->passes % model->heads.count),
                                    .seed = (uint64_t)config->seed,
                                    .kind = (enum information_kind)config_score_kind(config),
                                    .votes_due = due,
                                    .reducer = REDUCE_INFORMATION,
                                    .output = details};
    int result = count ? worker->backend->head_score(worker->context, &request, worker_tick, worker) : 0;
    for (size_t i = 0; i < count && !result; i++)
        store(worker, rows[i], details + i * floats, model->number);
    *ret_scored += (long)count;
    return result;
}

static int score_pool(struct worker *worker, uint32_t number, long *ret_scored)
{
    struct model model = {0};
    char path[FILE_PATH_BYTES];
    size_t floats = (size_t)information_row_floats(&worker->schema);
    uint64_t *rows = arena_alloc(&worker->batch, WORKER_SCORE_ROWS * sizeof *rows);
    uint16_t *due = arena_alloc(&worker->batch, WORKER_SCORE_ROWS * sizeof *due);
    float *details = arena_alloc(&worker->batch, WORKER_SCORE_ROWS * floats * sizeof *details);
    if (!rows || !due || !details)
        return ERROR_LIMIT;
    int result = models_path(&worker->config, number, path, sizeof path);
    if (!result)
        result = model_load(path, &worker->schema, &model);
    for (uint64_t at = 0; at < pool_rows(&worker->pool) && !result;) {
        result = score_block(worker, &model, &at, rows, due, details, ret_scored);
        worker->progress = (double)at / (double)pool_rows(&worker->pool);
        if (!result && worker_tick(worker))
            result = error_set(ERROR_CANCELLED, "asked to stop while ranking");
    }
    model_free(&model);
    return result;
}

static int number_of(const json_t *job, const char *key)
{
    return (int)json_integer_value(json_object_get(job, key));
}

static int choose(struct worker *worker, const json_t *job, uint32_t model, json_t *answer)
{
    struct select_request request = {.seed = (uint64_t)worker->config.seed,
                                     .cycle = (uint64_t)json_integer_value(json_object_get(job, "cycle")),
                                     .queue_size = number_of(job, "queue_size"),
                                     .holdout_share = (float)worker->config.holdout_share,
                                     .random_share = (float)worker->config.random_share,
                                     .cold = model == 0,
                                     .kept_holdout = number_of(job, "kept_holdout"),
                                     .kept_random = number_of(job, "kept_random"),
                                     .kept_active = number_of(job, "kept_active")};
    struct selector *selector;
    int result = selector_new(&request, &selector);
    if (result)
        return result;
    for (uint64_t row = 0; row < pool_rows(&worker->pool); row++) {
        const struct pool_state *state = pool_state(&worker->pool, row);
        if (is_embedded(worker, row) && !(state->flags & (POOL_EXCLUDED | POOL_RETIRED | POOL_QUEUED)))
            selector_offer(selector, row + 1, (enum split)state->split, (state->flags & POOL_PINNED) != 0,
                           pool_score(&worker->pool, row)->score);
    }
    struct selected *selected = arena_alloc(&worker->batch, ((size_t)request.queue_size + 1) * sizeof *selected);
    size_t count = selected ? selector_finish(selector, selected) : 0;
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("[I,s,f]", (json_int_t)selected[i].key, stream_name(selected[i].stream),
                                              selected[i].probability));
    json_object_set_new(answer, "selected", list);
    selector_free(selector);
    return selected ? 0 : ERROR_LIMIT;
}

int worker_rank(struct worker *worker, const json_t *job, json_t *answer)
{
    uint32_t model = (uint32_t)json_integer_value(json_object_get(job, "model"));
    long scored = 0;
    double started_s = clock_s();
    worker_take_trunk(worker, job);
    int result = model ? score_pool(worker, model, &scored) : 0;
    json_object_set_new(answer, "score_s", json_real(scored ? clock_s() - started_s : 0));
    if (!result)
        result = choose(worker, job, model, answer);
    json_object_set_new(answer, "scored", json_integer(scored));
    return result;
}
