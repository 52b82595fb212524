/*
 * A net in training: forward with everything kept that the backward pass reads, and backward. The table of layers becomes a
 * list of stages on channels-last tensors, batch norm and the activation behind it together, so that the values between
 * them are never stored. What each stage does is train_stages.c. Not for the optimiser, the loss or the images.
 */
#include "cpu/train.h"
#include "base/error.h"
#include "cpu/train_state.h"

#include <stdlib.h>
#include <string.h>

/* --- opening ------------------------------------------------------------------------------------------------------ */

static size_t floats(int side, int channels)
{
    return (size_t)side * (size_t)side * (size_t)channels;
}

static int is_source(const struct net *net, int layer)
{
    for (int i = layer + 2; i < net->layers; i++)
        if (net->layer[i].kind == LAYER_ADD && net->layer[i].from == layer)
            return 1;
    return 0;
}

static int stage_of_layer(const struct training *training, int layer)
{
    for (int i = 0; i < training->stages; i++)
        if (training->stage[i].last == layer)
            return i;
    return -1;
}

static size_t kept_floats(const struct stage *stage, size_t batch_limit)
{
    size_t in = (size_t)stage->layer->in;
    switch (stage->kind) {
    case STAGE_NORM:
        return 4 * in;
    case STAGE_SE:
        return batch_limit * (2 * in + (size_t)stage->layer->reduced);
    case STAGE_ADD:
        return batch_limit;
    default:
        return 0;
    }
}

static enum stage_kind stage_kind_of(enum layer_kind kind)
{
    static const enum stage_kind kinds[] = {
        [LAYER_CONV] = STAGE_CONV, [LAYER_BATCH_NORM] = STAGE_NORM, [LAYER_SWISH] = STAGE_SWISH,
        [LAYER_SE] = STAGE_SE,     [LAYER_ADD] = STAGE_ADD,         [LAYER_POOL] = STAGE_POOL,
        [LAYER_BIAS] = STAGE_BIAS, [LAYER_RELU] = STAGE_RELU,       [LAYER_MAX_POOL] = STAGE_MAX_POOL,
    };
    return kinds[kind];
}

/* Of a layer that is none: ACTIVATION_NONE. */
static struct activation activation_of(const struct layer *layer)
{
    enum activation_kind kind = layer->kind == LAYER_SWISH  ? ACTIVATION_SWISH
                                : layer->kind == LAYER_RELU ? ACTIVATION_RELU
                                                            : ACTIVATION_NONE;
    return (struct activation){kind, layer->ceiling > 0 ? layer->ceiling : INFINITY};
}

static int add_stage(struct training *training, int *index, int *side, size_t *offset)
{
    const struct net *net = &training->net;
    const struct layer *layer = &net->layer[*index];
    struct stage *stage = &training->stage[training->stages];
    int before, out_side = layer_output_side(net, layer, *side, &before);
    *stage = (struct stage){.kind = stage_kind_of(layer->kind),
                            .layer = layer,
                            .in_side = *side,
                            .out_side = out_side,
                            .in_floats = floats(*side, layer->in),
                            .out_floats = floats(out_side, layer->out),
                            .offset = *offset,
                            .from = layer->kind == LAYER_ADD ? stage_of_layer(training, layer->from) : -1};
    *offset += layer_parameter_count(layer);
    if (layer->kind == LAYER_BATCH_NORM && *index + 1 < net->layers && !is_source(net, *index)) {
        stage->activation = activation_of(layer + 1);
        *index += stage->activation.kind != ACTIVATION_NONE;
    }
    if (layer->kind == LAYER_RELU)
        stage->activation = activation_of(layer);
    stage->last = *index;
    *side = out_side;
    training->stages++;
    size_t kept = kept_floats(stage, training->batch_limit);
    stage->output = malloc(training->batch_limit * stage->out_floats * sizeof(float));
    stage->kept = kept ? calloc(kept, sizeof(float)) : NULL;
    if (!stage->output || (kept && !stage->kept))
        return error_set(ERROR_SYSTEM, "out of memory for training on %zu images at a time: lower the batch",
                         training->batch_limit);
    return 0;
}

static int open_buffers(struct training *training)
{
    for (int i = 0; i < training->stages; i++) {
        const struct stage *stage = &training->stage[i];
        size_t most = stage->in_floats > stage->out_floats ? stage->in_floats : stage->out_floats;
        size_t parameters = layer_parameter_count(stage->layer), in = (size_t)stage->layer->in;
        size_t blocks = (training->batch_limit * stage->in_floats / in + BLOCK_ROWS - 1) / BLOCK_ROWS;
        if (most > training->largest_floats)
            training->largest_floats = most;
        if (parameters > training->largest_parameters)
            training->largest_parameters = parameters;
        if (stage->kind == STAGE_NORM && blocks * 2 * in > training->sums_count)
            training->sums_count = blocks * 2 * in;
    }
    size_t gradient = training->batch_limit * training->largest_floats;
    training->gradient[0] = malloc(gradient * sizeof(float));
    training->gradient[1] = malloc(gradient * sizeof(float));
    training->residual = malloc(gradient * sizeof(float));
    training->sums = malloc((training->sums_count + 1) * sizeof(double));
    training->lane = calloc((size_t)training->parts, sizeof *training->lane);
    training->lane_gradient = calloc((size_t)training->parts, sizeof *training->lane_gradient);
    int failed = !training->gradient[0] || !training->gradient[1] || !training->residual || !training->sums ||
                 !training->lane || !training->lane_gradient;
    for (int i = 0; i < training->parts && !failed; i++) {
        training->lane_gradient[i] = malloc((training->largest_parameters + 1) * sizeof(float));
        failed = !training->lane_gradient[i];
    }
    return failed ? error_set(ERROR_SYSTEM, "out of memory for training on %zu images at a time: lower the batch",
                              training->batch_limit)
                  : 0;
}

int cpu_open_training(struct workers *workers, const struct net *net, size_t batch_limit,
                      struct training **ret_training)
{
    for (int i = 0; i < net->layers; i++)
        if (net->layer[i].in > TRAIN_CHANNELS_MAX || net->layer[i].out > TRAIN_CHANNELS_MAX)
            return error_set(ERROR_LIMIT, "layer %s of %s is wider than %d channels", net->layer[i].name, net->name,
                             TRAIN_CHANNELS_MAX);
    struct training *training = calloc(1, sizeof *training);
    if (!training)
        return error_set(ERROR_SYSTEM, "out of memory for training");
    training->workers = workers;
    training->net = *net;
    training->batch_limit = batch_limit ? batch_limit : 1;
    training->parts = workers_count(workers);
    size_t offset = 0;
    int side = net->side, result = train_conv_engine_open(&training->engine);
    for (int i = 0; i < net->layers && !result; i++)
        result = add_stage(training, &i, &side, &offset);
    if (!result)
        result = open_buffers(training);
    if (result)
        cpu_close_training(training);
    else
        *ret_training = training;
    return result;
}

static void close_convolutions(struct training *training)
{
    for (int i = 0; i < training->stages; i++)
        for (int s = 0; s < 2; s++) {
            train_conv_close(training->stage[i].conv[s]);
            training->stage[i].conv[s] = NULL;
        }
    for (int i = 0; training->lane && i < training->parts; i++) {
        train_conv_lane_close(training->lane[i]);
        training->lane[i] = NULL;
    }
    training->count = 0;
}

void cpu_close_training(struct training *training)
{
    if (!training)
        return;
    close_convolutions(training);
    for (int i = 0; i < training->stages; i++) {
        free(training->stage[i].output);
        free(training->stage[i].kept);
    }
    for (int i = 0; training->lane_gradient && i < training->parts; i++)
        free(training->lane_gradient[i]);
    free(training->lane_gradient);
    free(training->lane);
    free(training->gradient[0]);
    free(training->gradient[1]);
    free(training->residual);
    free(training->sums);
    train_conv_engine_close(training->engine);
    free(training);
}

/* --- parts of the batch ------------------------------------------------------------------------------------------- */

/* oneDNN fixes the number of images when it compiles; parts differ by one image at most. */
static int compile_convolutions(struct training *training, size_t count)
{
    size_t scratch = 0;
    int result = 0, parts = training->parts;
    if (count == training->count)
        return 0;
    close_convolutions(training);
    training->part_images = count / (size_t)parts;
    int longer = (int)(count % (size_t)parts);
    for (int i = 0; i < training->stages; i++) {
        struct stage *stage = &training->stage[i];
        for (int s = 0; s < 2 && stage->kind == STAGE_CONV && !result; s++) {
            if ((s == 0 && (!training->part_images || longer == parts)) || (s == 1 && !longer))
                continue;
            result = train_conv_open(training->engine, &training->net, stage->layer, stage->in_side,
                                     training->part_images + (size_t)s, &stage->conv[s]);
            size_t bytes = result ? 0 : train_conv_scratch_bytes(stage->conv[s]);
            scratch = bytes > scratch ? bytes : scratch;
        }
    }
    for (int i = 0; i < parts && !result; i++)
        result = train_conv_lane_open(training->engine, scratch, &training->lane[i]);
    training->count = result ? 0 : count;
    return result;
}

/* --- the passes --------------------------------------------------------------------------------------------------- */

static const float *input_of(const struct training *training, int stage)
{
    return stage ? training->stage[stage - 1].output : training->images;
}

int cpu_train_forward(struct training *training, float *parameters, const float *images, size_t count,
                      const struct train_pass *pass, float *outputs)
{
    if (count < 1 || count > training->batch_limit)
        return error_set(ERROR_INPUT, "a batch of %zu images: between 1 and %zu fit", count, training->batch_limit);
    int result = compile_convolutions(training, count);
    training->images = images;
    training->pass = *pass;
    training->status = 0;
    for (int i = 0; i < training->stages && !result; i++) {
        struct stage *stage = &training->stage[i];
        struct work work = {.training = training,
                            .stage = stage,
                            .parameters = parameters + stage->offset,
                            .input = input_of(training, i)};
        result = stage_forward(&work, parameters + stage->offset);
    }
    const struct stage *last = &training->stage[training->stages - 1];
    if (!result && training->status)
        result = error_set(ERROR_SYSTEM, "oneDNN failed while training %s", training->net.name);
    if (!result)
        memcpy(outputs, last->output, count * last->out_floats * sizeof(float));
    return result;
}

static int works_in_place(enum stage_kind kind)
{
    return kind != STAGE_CONV && kind != STAGE_POOL && kind != STAGE_MAX_POOL;
}

/* The stage whose output a later addition reads, while that addition's gradient waits for it; -1: none. */
static int waiting_for(const struct training *training, int waiting, int stage)
{
    return training->stage[stage].kind == STAGE_ADD ? training->stage[stage].from : waiting == stage ? -1 : waiting;
}

int cpu_train_backward(struct training *training, const float *parameters, const float *output_gradients,
                       int first_layer, float *gradients, float *image_gradients)
{
    int at = 0, waiting = -1, last = training->stages - 1;
    size_t count = training->count;
    training->status = 0;
    memset(gradients, 0, net_parameter_count(&training->net) * sizeof *gradients);
    memcpy(training->gradient[0], output_gradients, count * training->stage[last].out_floats * sizeof(float));
    for (int i = last; i >= 0 && training->stage[i].last >= first_layer; i--) {
        struct stage *stage = &training->stage[i];
        int is_lowest = i == 0 ? !image_gradients : training->stage[i - 1].last < first_layer;
        struct work work = {.training = training,
                            .stage = stage,
                            .parameters = parameters + stage->offset,
                            .input = input_of(training, i),
                            .gradient = training->gradient[at],
                            .to = is_lowest ? NULL : training->gradient[!at],
                            .parameter_gradient = gradients + stage->offset};
        if (waiting == i)
            stage_join(&work);
        waiting = waiting_for(training, waiting, i);
        stage_backward(&work);
        if (!works_in_place(stage->kind))
            at = !at;
    }
    if (image_gradients && first_layer <= 0)
        memcpy(image_gradients, training->gradient[at], count * training->stage[0].in_floats * sizeof(float));
    return training->status ? error_set(ERROR_SYSTEM, "oneDNN failed while training %s", training->net.name) : 0;
}
