/*
 * The embedding job: decode images into the pool's pixel column (one thread per core), make or load the trunk, run
 * it once per galaxy, store half-precision embeddings.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/half.h"
#include "base/text.h"
#include "connectors/image.h"
#include "daemon/jobs.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/setup.h"
#include "daemon/worker_jobs.h"
#include "base/file.h"
#include "model/safetensors.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define DECODE_THREADS_MAX 64

struct image {
    uint64_t key;
    const char *path;
    int bad;
    char reason[160];
};

struct decoding {
    struct worker *worker;
    struct image *images;
    long count;
    atomic_long next;
};

static void *decode_some(void *context)
{
    struct decoding *decoding = context;
    const struct config *config = &decoding->worker->config;
    for (long i; (i = atomic_fetch_add(&decoding->next, 1)) < decoding->count;) {
        struct image *image = &decoding->images[i];
        if (image_load(image->path, (int)config->image_side, (int)config->image_channels,
                       pool_pixels(&decoding->worker->pool, image->key - 1))) {
            image->bad = 1;
            snprintf(image->reason, sizeof image->reason, "%s", error_message());
            text_make_printable(image->reason);
        }
    }
    return NULL;
}

static void decode(struct worker *worker, struct image *images, long count)
{
    struct decoding decoding = {.worker = worker, .images = images, .count = count};
    pthread_t threads[DECODE_THREADS_MAX];
    int wanted = worker->backend->threads(worker->context), started = 0;
    for (; started < wanted - 1 && started < DECODE_THREADS_MAX; started++)
        if (pthread_create(&threads[started], NULL, decode_some, &decoding))
            break;
    decode_some(&decoding);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

/* --- the trunk -------------------------------------------------------------------------------------------- */

/* Random weights need statistics of real images before their embeddings mean anything. */
static int make_random_trunk(struct worker *worker, const struct image *images, long count, float *parameters)
{
    size_t input = (size_t)worker->net.side * (size_t)worker->net.side * (size_t)worker->net.channels, have = 0;
    size_t wanted = (size_t)worker->config.calibration_images;
    float *inputs = arena_alloc(&worker->batch, wanted * input * sizeof *inputs);
    if (!inputs)
        return ERROR_LIMIT;
    for (long i = 0; i < count && have < wanted; i++)
        if (!images[i].bad)
            worker_plain_input(worker, images[i].key, inputs + have++ * input);
    if (!have)
        return error_set(ERROR_INPUT, "none of the first %ld images can be read, so the trunk cannot be scaled", count);
    net_random_parameters(&worker->net, (uint64_t)worker->config.seed, parameters);
    return worker->backend->calibrate(worker->context, &worker->net, inputs, have, parameters);
}

static int make_trunk(struct worker *worker, const struct image *images, long count, float *parameters)
{
    char path[FILE_PATH_BYTES];
    int result = worker->config.trunk_weights[0]
                     ? safetensors_load(worker->config.trunk_weights, &worker->net, parameters)
                     : make_random_trunk(worker, images, count, parameters);
    if (!result)
        result = models_trunk_path(&worker->config, TRUNK_FIRST, path, sizeof path);
    return result ? result : safetensors_save(path, &worker->net, parameters);
}

/* The trunk of this number in the plan: the first one is made where there is none, later ones come from training. */
static int open_trunk(struct worker *worker, const struct image *images, long count)
{
    uint32_t trunk = worker->pool.trunk;
    char path[FILE_PATH_BYTES];
    int result = models_trunk_path(&worker->config, trunk, path, sizeof path);
    if (result || worker->trunk == trunk)
        return result;
    worker->backend->free_plan(worker->plan);
    worker->plan = NULL;
    worker->trunk = 0;
    float *parameters = arena_alloc(&worker->batch, net_parameter_count(&worker->net) * sizeof *parameters);
    if (!parameters)
        return ERROR_LIMIT;
    result = trunk == TRUNK_FIRST && !file_exists(path) ? make_trunk(worker, images, count, parameters)
                                                        : safetensors_load(path, &worker->net, parameters);
    if (!result)
        result = worker->backend->compile(worker->context, &worker->net, parameters, config_precision(&worker->config),
                                          &worker->plan);
    if (!result)
        result = worker_open_depth(worker, parameters);
    if (!result)
        worker->trunk = trunk;
    return result;
}

/* --- embedding --------------------------------------------------------------------------------------------- */

/* The versions are set when the embeddings are on the disk: a power cut costs embeddings, never their meaning. */
static int store(struct worker *worker, const struct image *const *images, long count, const float *embeddings)
{
    uint64_t first = UINT64_MAX, last = 0;
    for (long k = 0; k < count; k++) {
        uint64_t row = images[k]->key - 1;
        uint16_t *values = pool_embedding(&worker->pool, row);
        for (int i = 0; i < worker->pool.layout.embedding_inputs; i++)
            values[i] = half_from_float(embeddings[k * worker->pool.layout.embedding_inputs + i]);
        first = row < first ? row : first;
        last = row > last ? row : last;
    }
    FAULT(EMBEDDINGS_STORED);
    int result = count ? pool_flush_embeddings(&worker->pool, first, last - first + 1) : 0;
    FAULT(EMBEDDINGS_ON_DISK);
    for (long k = 0; k < count && !result; k++)
        pool_set_embedding_version(&worker->pool, images[k]->key - 1, worker->trunk);
    FAULT(VERSIONS_SET);
    return result;
}

/* Galaxies on their way through the trunk together. */
struct batch {
    long limit;
    const struct image **chosen; /* [limit], as all below */
    uint64_t *key, *row;
    struct worker_views views;
    float *embeddings; /* [limit][trunk.mc_views][net outputs] */
};

/* Memory for a batch of images; of floats only as much as the host makes. */
static int open_batch(struct worker *worker, struct batch *batch)
{
    size_t limit = (size_t)(batch->limit = worker_images_at_a_time(worker));
    size_t input = (size_t)worker->net.side * (size_t)worker->net.side * (size_t)worker->net.channels;
    size_t outputs = limit * (size_t)worker->net.outputs, floats = limit > WORKER_IMAGE_BATCH ? 0 : limit * input;
    batch->chosen = arena_alloc(&worker->batch, limit * sizeof *batch->chosen);
    batch->key = arena_alloc(&worker->batch, limit * sizeof *batch->key);
    batch->row = arena_alloc(&worker->batch, limit * sizeof *batch->row);
    batch->views = (struct worker_views){.key = batch->key,
                                         .row = batch->row,
                                         .plain = arena_alloc(&worker->batch, floats * sizeof(float) + 1),
                                         .inputs = arena_alloc(&worker->batch, floats * sizeof(float) + 1),
                                         .outputs = arena_alloc(&worker->batch, outputs * sizeof(float))};
    batch->embeddings =
        arena_alloc(&worker->batch, outputs * (size_t)worker->config.mc_views * sizeof *batch->embeddings);
    return batch->chosen && batch->key && batch->row && batch->views.plain && batch->views.inputs &&
                   batch->views.outputs && batch->embeddings
               ? 0
               : ERROR_LIMIT;
}

static int embed(struct worker *worker, const struct image *images, long count, long *ret_embedded)
{
    struct batch batch;
    struct worker_views *views = &batch.views;
    int result = open_batch(worker, &batch);
    for (long at = 0; at < count && !result;) {
        for (views->count = 0; at < count && views->count < batch.limit; at++)
            if (!images[at].bad) {
                batch.key[views->count] = images[at].key;
                batch.row[views->count] = images[at].key - 1;
                batch.chosen[views->count++] = &images[at];
            }
        result = views->count ? worker_embed_views(worker, views, batch.embeddings) : 0;
        if (!result)
            result = store(worker, batch.chosen, views->count, batch.embeddings);
        if (result)
            return result;
        *ret_embedded += views->count;
        worker->progress = (double)at / (double)count;
        if (worker_tick(worker))
            return error_set(ERROR_CANCELLED, "asked to stop while embedding");
    }
    return result;
}

static int read_list(struct worker *worker, const json_t *list, struct image *images)
{
    const json_t *pair;
    size_t index;
    json_array_foreach(list, index, pair)
    {
        images[index].key = (uint64_t)json_integer_value(json_array_get(pair, 0));
        images[index].path = json_string_value(json_array_get(pair, 1));
        if (images[index].key < 1 || images[index].key > pool_rows(&worker->pool) || !images[index].path)
            return error_set(ERROR_INPUT, "an embedding job names galaxy %llu, which the pool does not hold",
                             (unsigned long long)images[index].key);
    }
    return 0;
}

/* Galaxies `first` .. `first` + count - 1 again, by another trunk, from the pixels that trunk `from` was shown. */
int worker_reembed(struct worker *worker, const json_t *job, json_t *answer)
{
    uint64_t first = (uint64_t)json_integer_value(json_object_get(job, "first")), rows = pool_rows(&worker->pool);
    long count = (long)json_integer_value(json_object_get(job, "count")), have = 0, embedded = 0;
    uint32_t from = (uint32_t)json_integer_value(json_object_get(job, "from")), trunk = worker_take_trunk(worker, job);
    int result = setup_net(&worker->config, &worker->net);
    if (result)
        return result;
    struct image *images = arena_alloc(&worker->batch, (size_t)(count + 1) * sizeof *images);
    if (!images)
        return ERROR_LIMIT;
    for (uint64_t key = first; key < first + (uint64_t)count && key >= 1 && key <= rows; key++) {
        int done = *pool_embedding_version(&worker->pool, key - 1) == trunk;
        pool_use_trunk(&worker->pool, from);
        if (!done && *pool_embedding_version(&worker->pool, key - 1) == from &&
            !(pool_state(&worker->pool, key - 1)->flags & POOL_BAD)) {
            if (pool_pixels_are_sound(&worker->pool, key - 1))
                images[have++].key = key;
            else
                worker_forget_row(worker, key - 1, "row of pixels");
        }
        pool_use_trunk(&worker->pool, trunk);
    }
    result = open_trunk(worker, images, have);
    if (!result)
        result = embed(worker, images, have, &embedded);
    json_object_set_new(answer, "embedded", json_integer(embedded));
    return result;
}

int worker_embed(struct worker *worker, const json_t *job, json_t *answer)
{
    const json_t *list = json_object_get(job, "galaxies");
    long count = (long)json_array_size(list), embedded = 0;
    worker_take_trunk(worker, job);
    int result = setup_net(&worker->config, &worker->net);
    if (result)
        return result;
    struct image *images = arena_alloc(&worker->batch, (size_t)(count + 1) * sizeof *images);
    if (!images)
        return ERROR_LIMIT;
    result = read_list(worker, list, images);
    if (result)
        return result;
    double started_s = clock_s();
    decode(worker, images, count);
    json_object_set_new(answer, "decode_s", json_real(clock_s() - started_s));
    FAULT(IMAGES_DECODED);
    json_t *bad = json_array();
    for (long i = 0; i < count; i++)
        if (images[i].bad)
            json_array_append_new(bad, json_pack("[I,s]", (json_int_t)images[i].key, images[i].reason));
    json_object_set_new(answer, "bad", bad);
    if ((size_t)count > json_array_size(bad)) {
        result = open_trunk(worker, images, count);
        if (!result)
            result = embed(worker, images, count, &embedded);
    }
    json_object_set_new(answer, "embedded", json_integer(embedded));
    return result;
}
