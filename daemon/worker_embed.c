/*
 * The embedding job: decode images into the pool's pixel column (one thread per core), make or load the trunk, run
 * it once per galaxy, store half-precision embeddings.
 */
#include "base/error.h"
#include "base/half.h"
#include "base/text.h"
#include "connectors/image.h"
#include "daemon/jobs.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/setup.h"
#include "daemon/worker_jobs.h"
#include "base/file.h"
#include "model/input.h"
#include "model/safetensors.h"

#include <math.h>
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

/* Fills `inputs` with the network's view of up to `limit` good images starting at *at. Returns how many. */
static long gather(struct worker *worker, const struct image *images, long count, long limit, long *at,
                   const struct image **chosen, float *inputs)
{
    size_t input_floats = (size_t)worker->net.side * (size_t)worker->net.side * (size_t)worker->net.channels;
    long gathered = 0;
    for (; *at < count && gathered < limit; (*at)++) {
        if (images[*at].bad)
            continue;
        chosen[gathered] = &images[*at];
        image_to_input(pool_pixels(&worker->pool, images[*at].key - 1), (int)worker->config.image_side,
                       worker->net.channels, worker->net.side, inputs + (size_t)gathered * input_floats);
        gathered++;
    }
    return gathered;
}

/* --- the trunk -------------------------------------------------------------------------------------------- */

/* Random weights need statistics of real images before their embeddings mean anything. */
static int make_random_trunk(struct worker *worker, const struct image *images, long count, float *inputs,
                             float *parameters)
{
    const struct image *chosen[256];
    long at = 0, have = gather(worker, images, count, worker->config.calibration_images, &at, chosen, inputs);
    if (!have)
        return error_set(ERROR_INPUT, "none of the first %ld images can be read, so the trunk cannot be scaled", count);
    net_random_parameters(&worker->net, (uint64_t)worker->config.seed, parameters);
    return worker->backend->calibrate(worker->context, &worker->net, inputs, (size_t)have, parameters);
}

static int make_trunk(struct worker *worker, const struct image *images, long count, float *inputs, float *parameters)
{
    char path[FILE_PATH_BYTES];
    int result = worker->config.trunk_weights[0]
                     ? safetensors_load(worker->config.trunk_weights, &worker->net, parameters)
                     : make_random_trunk(worker, images, count, inputs, parameters);
    if (!result)
        result = models_trunk_path(&worker->config, TRUNK_FIRST, path, sizeof path);
    return result ? result : safetensors_save(path, &worker->net, parameters);
}

/* The trunk of this number in the plan: the first one is made where there is none, later ones come from training. */
static int open_trunk(struct worker *worker, const struct image *images, long count, float *inputs)
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
    result = trunk == TRUNK_FIRST && !file_exists(path) ? make_trunk(worker, images, count, inputs, parameters)
                                                        : safetensors_load(path, &worker->net, parameters);
    if (!result)
        result = worker->backend->compile(worker->context, &worker->net, parameters, config_precision(&worker->config),
                                          &worker->plan);
    if (!result)
        worker->trunk = trunk;
    return result;
}

/* --- embedding --------------------------------------------------------------------------------------------- */

/*
 * A trunk that was never trained answers to brightness before anything else: the whole embedding of a bright galaxy is
 * larger. Mean 0 and variance 1 within each embedding take that out (measured on real galaxies: a linear fit explains
 * twice the variance of the vote fractions). A trained trunk's embeddings stay as they are.
 */
static void normalise(float *embedding, int count)
{
    double sum = 0, squares = 0;
    for (int i = 0; i < count; i++)
        sum += (double)embedding[i];
    double mean = sum / count;
    for (int i = 0; i < count; i++)
        squares += ((double)embedding[i] - mean) * ((double)embedding[i] - mean);
    double scale = squares > 0 ? 1 / sqrt(squares / count) : 0;
    for (int i = 0; i < count; i++)
        embedding[i] = (float)(((double)embedding[i] - mean) * scale);
}

/* The versions are set when the embeddings are on the disk: a power cut costs embeddings, never their meaning. */
static int store(struct worker *worker, const struct image *const *images, long count, const float *embeddings)
{
    uint64_t first = UINT64_MAX, last = 0;
    for (long k = 0; k < count; k++) {
        uint64_t row = images[k]->key - 1;
        uint16_t *values = pool_embedding(&worker->pool, row);
        for (int i = 0; i < worker->net.outputs; i++)
            values[i] = half_from_float(embeddings[k * worker->net.outputs + i]);
        first = row < first ? row : first;
        last = row > last ? row : last;
    }
    int result = count ? pool_flush_embeddings(&worker->pool, first, last - first + 1) : 0;
    for (long k = 0; k < count && !result; k++)
        pool_set_embedding_version(&worker->pool, images[k]->key - 1, worker->trunk);
    return result;
}

/*
 * Embeddings of a batch, averaged over views: a galaxy has no right way up, and a trunk that was never trained does not
 * know that (measured on real galaxies: eight views double the variance a linear fit explains).
 */
static int embed_views(struct worker *worker, const float *inputs, long count, float *turned, float *embeddings,
                       float *sum)
{
    size_t input_floats = (size_t)worker->net.side * (size_t)worker->net.side * (size_t)worker->net.channels;
    size_t outputs = (size_t)worker->net.outputs;
    memset(sum, 0, (size_t)count * outputs * sizeof *sum);
    for (int view = 0; view < worker->config.trunk_views; view++) {
        for (long i = 0; i < count; i++)
            input_view(inputs + (size_t)i * input_floats, worker->net.side, worker->net.channels, view,
                       turned + (size_t)i * input_floats);
        int result = worker->backend->forward(worker->plan, turned, (size_t)count, embeddings);
        if (result)
            return result;
        for (long i = 0; i < count; i++) {
            float *embedding = embeddings + (size_t)i * outputs;
            if (worker->trunk == TRUNK_FIRST && !worker->config.trunk_weights[0])
                normalise(embedding, worker->net.outputs);
            for (size_t k = 0; k < outputs; k++)
                sum[(size_t)i * outputs + k] += embedding[k] / (float)worker->config.trunk_views;
        }
    }
    return 0;
}

static int embed(struct worker *worker, const struct image *images, long count, float *inputs, long *ret_embedded)
{
    const struct image *chosen[WORKER_IMAGE_BATCH];
    size_t outputs = (size_t)worker->net.outputs;
    size_t input_floats = (size_t)worker->net.side * (size_t)worker->net.side * (size_t)worker->net.channels;
    float *embeddings = arena_alloc(&worker->batch, WORKER_IMAGE_BATCH * outputs * sizeof *embeddings);
    float *sum = arena_alloc(&worker->batch, WORKER_IMAGE_BATCH * outputs * sizeof *sum);
    float *turned = arena_alloc(&worker->batch, WORKER_IMAGE_BATCH * input_floats * sizeof *turned);
    if (!embeddings || !sum || !turned)
        return ERROR_LIMIT;
    for (long at = 0; at < count;) {
        long have = gather(worker, images, count, WORKER_IMAGE_BATCH, &at, chosen, inputs);
        int result = have ? embed_views(worker, inputs, have, turned, embeddings, sum) : 0;
        if (!result)
            result = store(worker, chosen, have, sum);
        if (result)
            return result;
        *ret_embedded += have;
        worker->progress = (double)at / (double)count;
        if (worker_tick(worker))
            return error_set(ERROR_CANCELLED, "asked to stop while embedding");
    }
    return 0;
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
    size_t input_floats = (size_t)worker->net.side * (size_t)worker->net.side * (size_t)worker->net.channels;
    struct image *images = arena_alloc(&worker->batch, (size_t)(count + 1) * sizeof *images);
    float *inputs = arena_alloc(&worker->batch, WORKER_IMAGE_BATCH * input_floats * sizeof *inputs);
    if (!images || !inputs)
        return ERROR_LIMIT;
    for (uint64_t key = first; key < first + (uint64_t)count && key >= 1 && key <= rows; key++) {
        int done = *pool_embedding_version(&worker->pool, key - 1) == trunk;
        pool_use_trunk(&worker->pool, from);
        if (!done && *pool_embedding_version(&worker->pool, key - 1) == from &&
            !(pool_state(&worker->pool, key - 1)->flags & POOL_BAD))
            images[have++].key = key;
        pool_use_trunk(&worker->pool, trunk);
    }
    result = open_trunk(worker, images, have, inputs);
    if (!result)
        result = embed(worker, images, have, inputs, &embedded);
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
    long batch = worker->config.calibration_images > WORKER_IMAGE_BATCH ? (long)worker->config.calibration_images
                                                                        : WORKER_IMAGE_BATCH;
    size_t input_floats = (size_t)worker->net.side * (size_t)worker->net.side * (size_t)worker->net.channels;
    struct image *images = arena_alloc(&worker->batch, (size_t)(count + 1) * sizeof *images);
    float *inputs = arena_alloc(&worker->batch, (size_t)batch * input_floats * sizeof *inputs);
    if (!images || !inputs)
        return ERROR_LIMIT;
    result = read_list(worker, list, images);
    if (result)
        return result;
    decode(worker, images, count);
    json_t *bad = json_array();
    for (long i = 0; i < count; i++)
        if (images[i].bad)
            json_array_append_new(bad, json_pack("[I,s]", (json_int_t)images[i].key, images[i].reason));
    json_object_set_new(answer, "bad", bad);
    if ((size_t)count > json_array_size(bad)) {
        result = open_trunk(worker, images, count, inputs);
        if (!result)
            result = embed(worker, images, count, inputs, &embedded);
    }
    json_object_set_new(answer, "embedded", json_integer(embedded));
    return result;
}
