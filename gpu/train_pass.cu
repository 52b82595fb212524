/*
 * What the seam asks of a training: a pass forward, its gradients, calibration. Where the caller has the parameters, they go up and
 * gradients come back with every pass; where they are held (train_update.cu) neither moves. On one device a pass is one CUDA graph
 * as long as the batch stays the same; over several it is enqueued step by step, with sums over ranks between steps: batch norm is
 * that of the whole batch, and gradients are.
 */
#include "gpu/train.h"
#include "gpu/train_state.h"

/* --- parts of a pass ---------------------------------------------------------------------------------------------- */

static int enqueue_forward(void *argument)
{
    return train_run_forward((struct training *)argument);
}

static int enqueue_backward(void *argument)
{
    struct training *training = (struct training *)argument;
    return train_run_backward(training, training->backward.first_layer, training->backward.images);
}

/* Runs a pass: at first step by step, which loads its kernels, then as a graph; anew if `key` is not what it was made for. */
static int run_captured(struct training *training, struct captured *captured, const struct captured *key)
{
    context_enqueue *enqueue = captured == &training->backward ? enqueue_backward : enqueue_forward;
    if (training->together || !captured->count || captured->count != key->count || captured->live != key->live ||
        captured->first_layer != key->first_layer || captured->images != key->images ||
        captured->together != key->together) {
        train_forget(captured);
        *captured = *key;
        int result = enqueue(training);
        if (result)
            train_forget(captured); /* some kernels may still be to be loaded */
        return result;
    }
    if (!captured->graph)
        RETURN_IF(context_capture(training->context, enqueue, training, &captured->graph));
    CHECK_CUDA(cudaGraphLaunch(captured->graph, training->context->compute));
    return 0;
}

void train_pack(const struct training *training, float *packed, const float *plain)
{
    for (int i = 0; i < training->net.layers; i++) {
        size_t count = layer_parameter_count(&training->net.layer[i]);
        memcpy(packed + training->place[i], plain, count * sizeof(float));
        plain += count;
    }
}

void train_unpack(const struct training *training, const float *packed, float *plain)
{
    for (int i = 0; i < training->net.layers; i++) {
        size_t count = layer_parameter_count(&training->net.layer[i]);
        memcpy(plain, packed + training->place[i], count * sizeof(float));
        plain += count;
    }
}

int train_sum_over_ranks(struct training *training, size_t segments, int channels)
{
    size_t columns = 2 * (size_t)channels;
    struct join_segments::arguments arguments = {training->partial, training->shared, segments, columns};
    RETURN_IF(launch<join_segments>(training->context->compute, blocks_of(columns), arguments));
    return ranks_sum_doubles(training->context, training->shared, columns);
}

/* Stochastic depth of every addition and image; see train_pass in model/backend.h. */
static int upload_scales(struct training *training)
{
    const struct train_pass *pass = &training->pass;
    size_t additions = 0;
    for (int i = 0; i < training->steps; i++) {
        const struct train_step *step = &training->step[i];
        if (step->layer->kind != LAYER_ADD)
            continue;
        float *scale = training->staged_scales + additions++ * training->batch_limit, drop = step->layer->drop;
        for (size_t n = 0; n < training->batch_limit; n++) {
            size_t at = training->first + n;
            uint32_t key = (uint32_t)(pass->key && n < training->count ? pass->key[at] : at);
            struct philox drawn =
                philox(pass->seed, 0, key, pass->step, (uint32_t)(step->index + PHILOX_LAYER) << 8 | PHILOX_TRAIN);
            scale[n] = drop <= 0 ? 1 : philox_uniform(drawn.word[0]) < drop ? 0 : 1 / (1 - drop);
        }
    }
    if (additions)
        CHECK_CUDA(cudaMemcpyAsync(training->scales, training->staged_scales,
                                   additions * training->batch_limit * sizeof(float), cudaMemcpyHostToDevice,
                                   training->context->compute));
    return 0;
}

/* Running statistics come back into the staged parameters. */
static int download_statistics(struct training *training)
{
    for (int i = 0; i < training->steps && training->pass.live_norm; i++) {
        const struct train_step *step = &training->step[i];
        size_t channels = (size_t)step->layer->out, at = step->parameters + 2 * channels;
        if (step->layer->kind == LAYER_BATCH_NORM)
            CHECK_CUDA(cudaMemcpyAsync(training->staged_parameters + at, training->parameters + at,
                                       2 * channels * sizeof(float), cudaMemcpyDeviceToHost,
                                       training->context->compute));
    }
    return 0;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* A forward pass of all ranks. */
struct forward_job {
    struct training *training;
    float *parameters; /* NULL: those held */
    const float *images;
    const struct stored_views *views; /* instead of images */
    size_t count;
    const struct train_pass *pass;
    float *outputs;
};

static int upload_inputs(struct training *training, const struct forward_job *job)
{
    cudaStream_t stream = training->context->compute;
    size_t values = train_values(training, 0, training->count), each = train_values(training, 0, 1);
    if (job->views) {
        RETURN_IF(look_copy(training->context, &training->look, &training->net, job->views, training->first,
                            training->count, training->staged_images, training->map[0], stream));
        return look_compute(&training->look, &training->net, job->views, training->count, training->map[0], stream);
    }
    memcpy(training->staged_images, job->images + training->first * each, values * sizeof(float));
    CHECK_CUDA(cudaMemcpyAsync(training->map[0], training->staged_images, values * sizeof(float),
                               cudaMemcpyHostToDevice, stream));
    return 0;
}

static int upload_parameters(struct training *training, const float *parameters)
{
    if (!parameters)
        return training->held ? 0 : error_set(ERROR_STATE, "no parameters of %s are held", training->net.name);
    training->held = 0;
    train_pack(training, training->staged_parameters, parameters);
    CHECK_CUDA(cudaMemcpyAsync(training->parameters, training->staged_parameters,
                               training->padded_count * sizeof(float), cudaMemcpyHostToDevice,
                               training->context->compute));
    return 0;
}

/* One rank's share. What is the same on all, running statistics, is given back by the first. */
static int forward_share(struct training *training, const struct forward_job *job, struct share share, int together)
{
    cudaStream_t stream = training->context->compute;
    int last = training->net.layers, brings = job->parameters && !training->context->device && job->pass->live_norm;
    size_t outputs = train_values(training, last, share.count), each = train_values(training, last, 1);
    CHECK_CUDA(cudaSetDevice(training->context->device));
    RETURN_IF(train_open_products(training, share.count));
    training->pass = *job->pass;
    training->first = share.first;
    training->total = job->count;
    training->together = together;
    RETURN_IF(upload_parameters(training, job->parameters));
    RETURN_IF(upload_inputs(training, job));
    RETURN_IF(upload_scales(training));
    struct captured key = {NULL, share.count, job->pass->live_norm, 0, 0, together};
    RETURN_IF(run_captured(training, &training->forward, &key));
    if (brings)
        RETURN_IF(download_statistics(training));
    CHECK_CUDA(cudaMemcpyAsync(training->staged_outputs, training->map[last], outputs * sizeof(float),
                               cudaMemcpyDeviceToHost, stream));
    RETURN_IF(ranks_wait(training->context));
    if (brings)
        train_unpack(training, training->staged_parameters, job->parameters);
    memcpy(job->outputs + share.first * each, training->staged_outputs, outputs * sizeof(float));
    return 0;
}

/* Of what one device did alone: after an error, too, nothing is in flight. */
static int settled(struct training *training, int result)
{
    if (result)
        cudaStreamSynchronize(training->context->compute);
    return result;
}

static int forward_rank(void *argument, int rank)
{
    const struct forward_job *job = (const struct forward_job *)argument;
    int ranks = ranks_count(job->training->context);
    return forward_share(job->training->rank[rank], job, ranks_share(job->count, rank, ranks), ranks > 1);
}

/* Fewer images than ranks are all the first one's. */
static int forward(struct forward_job *job)
{
    struct training *training = job->training;
    size_t ranks = (size_t)ranks_count(training->context);
    if (job->count == 0 || job->count > training->whole_limit)
        return error_set(ERROR_INPUT, "a batch of %zu images: between 1 and %zu fit", job->count,
                         training->whole_limit);
    if (job->count >= ranks)
        return ranks_run(training->context, forward_rank, job);
    if (!job->parameters)
        return error_set(ERROR_INPUT, "a batch of %zu images over %zu devices: set worker.devices lower", job->count,
                         ranks);
    return settled(training, forward_share(training, job, (struct share){0, job->count}, 0));
}

int gpu_train_forward(struct training *training, float *parameters, const float *images, size_t count,
                      const struct train_pass *pass, float *outputs)
{
    struct forward_job job = {training, parameters, images, NULL, count, pass, outputs};
    return forward(&job);
}

int gpu_train_forward_views(struct training *training, float *parameters, const struct stored_views *views,
                            size_t count, const struct train_pass *pass, float *outputs)
{
    struct forward_job job = {training, parameters, NULL, views, count, pass, outputs};
    return forward(&job);
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

struct backward_job {
    struct training *training;
    const float *output_gradients;
    int first_layer;
    float *gradients, *image_gradients; /* either may be NULL */
};

static int backward_share(struct training *training, const struct backward_job *job)
{
    cudaStream_t stream = training->context->compute;
    int last = training->net.layers, brings = job->gradients && !training->context->device;
    size_t outputs = train_values(training, last, training->count), each = train_values(training, last, 1);
    size_t inputs = train_values(training, 0, training->count), input = train_values(training, 0, 1);
    CHECK_CUDA(cudaSetDevice(training->context->device));
    memcpy(training->staged_outputs, job->output_gradients + training->first * each, outputs * sizeof(float));
    CHECK_CUDA(cudaMemcpyAsync(training->flow[last], training->staged_outputs, outputs * sizeof(float),
                               cudaMemcpyHostToDevice, stream));
    struct captured key = {NULL,
                           training->count,
                           training->pass.live_norm,
                           job->first_layer,
                           job->image_gradients != NULL,
                           training->together};
    RETURN_IF(run_captured(training, &training->backward, &key));
    if (training->together)
        RETURN_IF(ranks_sum_floats(training->context, training->gradients, training->padded_count));
    if (brings)
        CHECK_CUDA(cudaMemcpyAsync(training->staged_parameters, training->gradients,
                                   training->padded_count * sizeof(float), cudaMemcpyDeviceToHost, stream));
    if (job->image_gradients)
        CHECK_CUDA(cudaMemcpyAsync(training->staged_images, training->flow[0], inputs * sizeof(float),
                                   cudaMemcpyDeviceToHost, stream));
    RETURN_IF(ranks_wait(training->context));
    if (brings)
        train_unpack(training, training->staged_parameters, job->gradients);
    if (job->image_gradients)
        memcpy(job->image_gradients + training->first * input, training->staged_images, inputs * sizeof(float));
    return 0;
}

static int backward_rank(void *argument, int rank)
{
    const struct backward_job *job = (const struct backward_job *)argument;
    return backward_share(job->training->rank[rank], job);
}

int gpu_train_backward(struct training *training, const float *parameters, const float *output_gradients,
                       int first_layer, float *gradients, float *image_gradients)
{
    (void)parameters; /* those of the forward pass are still on the device */
    struct backward_job job = {training, output_gradients, first_layer, gradients, image_gradients};
    return training->together ? ranks_run(training->context, backward_rank, &job)
                              : settled(training, backward_share(training, &job));
}

/* --- calibration -------------------------------------------------------------------------------------------------- */

/* A forward pass on one device in which the running statistics follow at once; nothing is kept for a backward pass. */
int gpu_calibrate(struct backend_context *context, const struct net *net, const float *images, size_t count,
                  float *parameters)
{
    struct training *training;
    struct train_pass pass = {.seed = 0, .step = 0, .key = NULL, .live_norm = 1};
    if (count == 0)
        return error_set(ERROR_INPUT, "calibrating %s needs at least one image", net->name);
    RETURN_IF(train_open_one(context, net, count, 0, &training));
    float *unused = (float *)malloc((train_values(training, net->layers, count) + 1) * sizeof *unused);
    for (int i = 0; i < training->net.layers; i++)
        training->net.layer[i].drop = 0;
    struct forward_job job = {training, parameters, images, NULL, count, &pass, unused};
    int result = unused ? forward_share(training, &job, (struct share){0, count}, 0)
                        : error_set(ERROR_SYSTEM, "out of memory for calibrating %s", net->name);
    free(unused);
    train_close_one(training);
    return result;
}
