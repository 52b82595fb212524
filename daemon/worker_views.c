/*
 * What a batch of galaxies is shown to the trunk as: the plain view, mirrored and turned views whose embeddings are averaged
 * (trunk.views), or random views kept apart for MC passes (trunk.mc_views). Not for decoding or storing: worker_embed.c.
 */
#include "base/error.h"
#include "daemon/jobs.h"
#include "daemon/models.h"
#include "daemon/worker_jobs.h"
#include "model/augment.h"
#include "model/input.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_BATCH 8 /* images at a time with stochastic depth: 65 MB each at 224 pixels */

/*
 * A trunk that was never trained answers to brightness before anything else: the whole embedding of a bright galaxy is
 * larger. Mean 0 and variance 1 within each embedding take that out (measured on real galaxies: a linear fit explains
 * twice the variance of the vote fractions). A trained trunk's embeddings stay as they are.
 */
static void normalise(const struct worker *worker, float *embedding, int count)
{
    if (worker->trunk != TRUNK_FIRST || worker->config.trunk_weights[0])
        return;
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

static size_t input_floats(const struct worker *worker)
{
    return (size_t)worker->net.side * (size_t)worker->net.side * (size_t)worker->net.channels;
}

/* This view of each galaxy as it is stored. */
static struct stored_views stored_of(const struct worker *worker, const struct worker_views *views, int view)
{
    return (struct stored_views){.pixels = pool_pixels(&worker->pool, 0),
                                 .stride_bytes = worker->pool.column[POOL_COLUMN_PIXELS].layout.row_bytes,
                                 .pixel_side = (int)worker->config.image_side,
                                 .row = views->row,
                                 .key = views->key,
                                 .augmentation = config_augmentation(&worker->config),
                                 .seed = (uint64_t)worker->config.seed,
                                 .view = view};
}

static int forward(struct worker *worker, const struct worker_views *views, struct stored_views stored)
{
    return stored_views_forward(worker->backend, worker->context, &worker->net, worker->plan, &stored,
                                (size_t)views->count, views->inputs, views->outputs);
}

struct drawing {
    struct worker *worker;
    const struct worker_views *views;
    uint32_t view;
};

void worker_plain_input(const struct worker *worker, uint64_t key, float *input)
{
    struct augment_source source = {pool_pixels(&worker->pool, key - 1), (int)worker->config.image_side,
                                    worker->net.channels};
    augment_plain(config_augmentation(&worker->config), &source, worker->net.side, input);
}

static void draw_plain(void *context, long item, int thread)
{
    (void)thread;
    const struct drawing *drawing = context;
    worker_plain_input(drawing->worker, drawing->views->key[item],
                       drawing->views->plain + (size_t)item * input_floats(drawing->worker));
}

static void turn_plain(void *context, long item, int thread)
{
    (void)thread;
    const struct drawing *drawing = context;
    size_t at = (size_t)item * input_floats(drawing->worker);
    const struct net *net = &drawing->worker->net;
    input_view(drawing->views->plain + at, net->side, net->channels, (int)drawing->view, drawing->views->inputs + at);
}

static int plain_view(struct worker *worker, const struct worker_views *views, float *embeddings)
{
    size_t outputs = (size_t)worker->net.outputs;
    int result = forward(worker, views, stored_of(worker, views, VIEW_PLAIN));
    for (size_t i = 0; i < (size_t)views->count && !result; i++) {
        normalise(worker, views->outputs + i * outputs, worker->net.outputs);
        memcpy(embeddings + i * outputs, views->outputs + i * outputs, outputs * sizeof *embeddings);
    }
    return result;
}

/* A galaxy has no right way up, and a trunk that was never trained does not know that (measured on real galaxies: eight
 * views double the variance a linear fit explains). */
static int average_views(struct worker *worker, const struct worker_views *views, float *embeddings)
{
    size_t outputs = (size_t)worker->net.outputs;
    float share = 1 / (float)worker->config.trunk_views;
    struct drawing drawing = {worker, views, 0};
    memset(embeddings, 0, (size_t)views->count * outputs * sizeof *embeddings);
    worker->backend->for_each(worker->context, draw_plain, &drawing, views->count);
    for (; drawing.view < (uint32_t)worker->config.trunk_views; drawing.view++) {
        worker->backend->for_each(worker->context, turn_plain, &drawing, views->count);
        int result = worker->backend->forward(worker->plan, views->inputs, (size_t)views->count, views->outputs);
        if (result)
            return result;
        for (size_t i = 0; i < (size_t)views->count; i++) {
            normalise(worker, views->outputs + i * outputs, worker->net.outputs);
            for (size_t k = 0; k < outputs; k++)
                embeddings[i * outputs + k] += views->outputs[i * outputs + k] * share;
        }
    }
    return 0;
}

/* The trunk as in training, blocks dropping out by (seed, galaxy, view), with its running batch-norm statistics. */
static int forward_with_depth(struct worker *worker, const struct worker_views *views, struct stored_views stored)
{
    size_t outputs = (size_t)worker->net.outputs, count = (size_t)views->count;
    for (size_t i = 0; i < count; i += DEPTH_BATCH, stored.row += DEPTH_BATCH, stored.key += DEPTH_BATCH) {
        struct train_pass pass = {.seed = stored.seed, .step = (uint32_t)stored.view, .key = stored.key};
        int result = stored_views_train(
            worker->backend, worker->context, &worker->net, worker->depth, worker->depth_parameters, &stored,
            count - i < DEPTH_BATCH ? count - i : DEPTH_BATCH, &pass, views->inputs, views->outputs + i * outputs);
        if (result)
            return result;
    }
    return 0;
}

static int keep_views_apart(struct worker *worker, const struct worker_views *views, float *embeddings)
{
    size_t outputs = (size_t)worker->net.outputs, apart = (size_t)worker->config.mc_views;
    for (size_t view = 0; view < apart; view++) {
        struct stored_views stored = stored_of(worker, views, (int)view);
        int result = worker->depth ? forward_with_depth(worker, views, stored) : forward(worker, views, stored);
        if (result)
            return result;
        for (size_t i = 0; i < (size_t)views->count; i++) {
            normalise(worker, views->outputs + i * outputs, worker->net.outputs);
            memcpy(embeddings + (i * apart + view) * outputs, views->outputs + i * outputs,
                   outputs * sizeof *embeddings);
        }
    }
    return 0;
}

int worker_embed_views(struct worker *worker, const struct worker_views *views, float *embeddings)
{
    if (worker->config.mc_views > 1)
        return keep_views_apart(worker, views, embeddings);
    return worker->config.trunk_views > 1 ? average_views(worker, views, embeddings)
                                          : plain_view(worker, views, embeddings);
}

long worker_images_at_a_time(const struct worker *worker)
{
    int looks_itself = worker->backend->forward_views && worker->config.trunk_views == 1 && !worker->depth;
    return looks_itself ? WORKER_IMAGE_BATCH_MAX : WORKER_IMAGE_BATCH;
}

void worker_close_depth(struct worker *worker)
{
    worker->backend->close_training(worker->depth);
    free(worker->depth_parameters);
    worker->depth = NULL;
    worker->depth_parameters = NULL;
}

int worker_open_depth(struct worker *worker, const float *parameters)
{
    struct net net = worker->net;
    size_t bytes = net_parameter_count(&net) * sizeof *parameters;
    worker_close_depth(worker);
    if (!(worker->config.mc_stochastic_depth > 0))
        return 0;
    worker->depth_parameters = malloc(bytes);
    if (!worker->depth_parameters)
        return error_set(ERROR_SYSTEM, "out of memory for a trunk with stochastic depth");
    memcpy(worker->depth_parameters, parameters, bytes);
    net_set_stochastic_depth(&net, worker->config.mc_stochastic_depth);
    return worker->backend->open_training(worker->context, &net, DEPTH_BATCH, &worker->depth);
}
