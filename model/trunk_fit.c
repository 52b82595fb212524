/*
 * The loop of a training run; see trunk_fit.h. Not for where it starts (trunk_start.c), how it is judged (trunk_judge.c) or its
 * file (trunk_checkpoint.c).
 */
#include "model/trunk_fit.h"
#include "base/error.h"
#include "base/philox.h"
#include "model/trunk_fit_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t trunk_fit_values(const struct net *net, const struct target *target)
{
    return net_parameter_count(net) + (size_t)target->outputs * ((size_t)net->outputs + 1);
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static int check_recipe(const struct trunk_recipe *recipe)
{
    if (recipe->batch < 1 || recipe->batch > TRUNK_FIT_BATCH_MAX)
        return error_set(ERROR_INPUT, "a batch of %d galaxies: 1 to %d", recipe->batch, TRUNK_FIT_BATCH_MAX);
    if (recipe->epochs_max < 1 || recipe->epochs_max > TRUNK_FIT_EPOCHS_MAX)
        return error_set(ERROR_INPUT, "%d epochs: 1 to %d", recipe->epochs_max, TRUNK_FIT_EPOCHS_MAX);
    if (!(recipe->learning_rate > 0) || recipe->weight_decay < 0 || recipe->dropout < 0 || recipe->dropout >= 1)
        return error_set(ERROR_INPUT,
                         "learning rate %g, weight decay %g, dropout %g: above 0; at least 0; 0 to below 1",
                         recipe->learning_rate, recipe->weight_decay, recipe->dropout);
    return 0;
}

/* Classes that are all the same, or rows without any label, leave nothing to learn. */
static int check_data(const struct target *target, const struct trunk_recipe *recipe, const struct trunk_data *data)
{
    size_t labelled = 0, class_rows[TARGET_OUTPUTS_MAX] = {0}, outputs = (size_t)target->outputs;
    for (size_t i = 0; i < data->train_count; i++) {
        const float *label = data->labels + data->train_row[i] * outputs;
        int any = target->kind == TARGET_VALUES;
        for (size_t k = 0; k < outputs; k++) {
            any |= label[k] > 0;
            class_rows[k] += label[k] > 0;
        }
        labelled += any != 0;
    }
    if (!labelled)
        return error_set(ERROR_INPUT, "no galaxy to train on has a label");
    if (recipe->live_norm && (data->train_count < 2 || recipe->batch < 2))
        return error_set(ERROR_INPUT,
                         "batch norm learns from the spread within a batch: at least 2 galaxies per batch "
                         "(there are %zu, batch %d), or frozen batch norm",
                         data->train_count, recipe->batch);
    for (size_t k = 0; k < outputs && target->kind == TARGET_CLASSES; k++)
        if (class_rows[k] == data->train_count)
            return error_set(ERROR_INPUT, "all %zu labelled galaxies are of one class: there is nothing to tell apart",
                             data->train_count);
    return 0;
}

int net_blocks(const struct net *net, int *block)
{
    char current[sizeof net->layer[0].name] = "", name[sizeof current];
    int blocks = 0;
    for (int i = 0; i < net->layers; i++) {
        const struct layer *layer = &net->layer[i];
        int in_stage = strncmp(layer->name, "blocks.", 7) == 0, was_in_stage = strncmp(current, "blocks.", 7) == 0;
        memcpy(name, layer->name, sizeof name);
        if (in_stage)
            name[7 + strcspn(name + 7, ".")] = 0;
        if (layer_parameter_count(layer) && layer->kind != LAYER_BATCH_NORM && strcmp(name, current) != 0 &&
            (in_stage || !was_in_stage)) {
            blocks++;
            memcpy(current, name, sizeof current);
        }
        block[i] = blocks ? blocks - 1 : 0;
    }
    for (int i = 0; i < net->layers; i++)
        block[i] = blocks - 1 - block[i];
    return blocks;
}

static void add_chunks(struct trunk_fit *fit, size_t offset, size_t count, double factor)
{
    for (size_t at = 0; at < count && fit->chunks < TRAIN_RANGES_MAX; at += TRUNK_FIT_CHUNK)
        fit->chunk[fit->chunks++] =
            (struct train_range){offset + at, count - at < TRUNK_FIT_CHUNK ? count - at : TRUNK_FIT_CHUNK, factor};
}

/* What learns, and how fast: blocks from the top, running statistics never. */
static void choose_values(struct trunk_fit *fit)
{
    int block[NET_LAYERS_MAX];
    size_t offset = 0;
    net_blocks(&fit->net, block);
    fit->first_layer = fit->net.layers;
    for (int i = 0; i < fit->net.layers; i++) {
        const struct layer *layer = &fit->net.layer[i];
        size_t count = layer_parameter_count(layer), trained = layer->kind == LAYER_BATCH_NORM ? count / 2 : count;
        if (block[i] < fit->recipe.blocks && count) {
            fit->first_layer = i < fit->first_layer ? i : fit->first_layer;
            add_chunks(fit, offset, trained, pow(fit->recipe.block_decay, block[i]));
        }
        offset += count;
    }
    fit->trunk_chunks = fit->chunks;
    add_chunks(fit, offset, fit->count - offset, 1);
}

static int open_memory(struct trunk_fit *fit)
{
    size_t batch = (size_t)fit->batch, outputs = (size_t)fit->target.outputs, inputs = (size_t)fit->net.outputs;
    float **const floats[] = {&fit->value, &fit->moment1, &fit->moment2, &fit->best, &fit->gradient};
    int failed = 0;
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        failed |= !(*floats[i] = calloc(fit->count, sizeof(float)));
    failed |= !(fit->squares = calloc((size_t)fit->chunks, sizeof *fit->squares));
    failed |= !(fit->images = malloc(batch * trunk_fit_image_floats(fit) * sizeof(float)));
    failed |= !(fit->embeddings = malloc(batch * inputs * sizeof(float)));
    failed |= !(fit->dropped = malloc(batch * inputs * sizeof(float)));
    failed |= !(fit->outputs = malloc(batch * outputs * sizeof(float)));
    failed |= !(fit->output_gradients = malloc(batch * outputs * sizeof(float)));
    failed |= !(fit->order = malloc(fit->data.train_count * sizeof *fit->order));
    failed |= !(fit->batch_key = malloc(batch * sizeof *fit->batch_key));
    failed |= !(fit->history = calloc((size_t)fit->recipe.epochs_max + 1, sizeof *fit->history));
    return failed
               ? error_set(ERROR_SYSTEM, "out of memory for training with batches of %d: lower the batch", fit->batch)
               : 0;
}

int trunk_fit_open(const struct backend *backend, struct backend_context *context, const struct net *net,
                   const struct target *target, const struct trunk_recipe *recipe, const struct trunk_data *data,
                   const float *values, struct trunk_fit **ret_fit)
{
    int result = check_recipe(recipe);
    if (!result)
        result = check_data(target, recipe, data);
    if (result)
        return result;
    struct trunk_fit *fit = calloc(1, sizeof *fit);
    if (!fit)
        return error_set(ERROR_SYSTEM, "out of memory for training");
    *fit = (struct trunk_fit){.backend = backend,
                              .context = context,
                              .net = *net,
                              .target = *target,
                              .recipe = *recipe,
                              .data = *data,
                              .ordered_epoch = -1};
    net_set_stochastic_depth(&fit->net, recipe->stochastic_depth);
    fit->trunk_count = net_parameter_count(net);
    fit->count = trunk_fit_values(net, target);
    fit->batch = data->train_count < (size_t)recipe->batch ? (int)data->train_count : recipe->batch;
    fit->steps_per_epoch = (int)(data->train_count / (size_t)fit->batch);
    fit->at.learning_rate = recipe->learning_rate;
    choose_values(fit);
    result = open_memory(fit);
    if (!result)
        result = backend->open_training(context, &fit->net, (size_t)fit->batch, &fit->training);
    if (!result) {
        memcpy(fit->value, values, fit->count * sizeof *values);
        memcpy(fit->best, values, fit->count * sizeof *values);
    }
    if (result)
        trunk_fit_close(fit);
    else
        *ret_fit = fit;
    return result;
}

void trunk_fit_close(struct trunk_fit *fit)
{
    if (!fit)
        return;
    trunk_judging_end(fit);
    fit->backend->close_training(fit->training);
    void *const owned[] = {fit->value,      fit->moment1, fit->moment2, fit->best,     fit->gradient,
                           fit->squares,    fit->images,  fit->dropped, fit->outputs,  fit->output_gradients,
                           fit->embeddings, fit->order,   fit->history, fit->batch_key};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    free(fit);
}

/* --- the head ---------------------------------------------------------------------------------------------- */

/* Inverted dropout in place of `to`; the backward pass uses the same factors. */
static void drop(const struct trunk_fit *fit, uint64_t key, const float *from, float *to)
{
    float rate = (float)fit->recipe.dropout, scale = 1 / (1 - rate);
    for (uint32_t i = 0; i < (uint32_t)fit->net.outputs; i += 4) {
        struct philox random = philox(fit->recipe.seed, i / 4, (uint32_t)key, (uint32_t)fit->at.step, PHILOX_TRAIN);
        for (uint32_t j = 0; j < 4 && i + j < (uint32_t)fit->net.outputs; j++)
            to[i + j] = philox_uniform(random.word[j]) < rate ? 0 : from[i + j] * scale;
    }
}

/* Gradients of the head's values, and in `embeddings` of what the trunk gave out. */
static void head_backward(struct trunk_fit *fit)
{
    size_t width = (size_t)fit->net.outputs, answers = (size_t)fit->target.outputs, count = (size_t)fit->batch;
    const float *weight = fit->value + fit->trunk_count;
    float *weight_gradient = fit->gradient + fit->trunk_count, *bias_gradient = weight_gradient + answers * width;
    memset(weight_gradient, 0, answers * (width + 1) * sizeof *weight_gradient);
    for (size_t n = 0; n < count; n++) {
        float *flow = fit->embeddings + n * width;
        const float *input = fit->dropped + n * width;
        memset(flow, 0, width * sizeof *flow);
        for (size_t k = 0; k < answers; k++) {
            float slope = fit->output_gradients[n * answers + k];
            bias_gradient[k] += slope;
            for (size_t i = 0; i < width; i++) {
                weight_gradient[k * width + i] += slope * input[i];
                flow[i] += slope * weight[k * width + i];
            }
        }
        drop(fit, fit->batch_key[n], flow, flow);
    }
}

/* --- one step ----------------------------------------------------------------------------------------------------- */

static void shuffle(struct trunk_fit *fit)
{
    size_t count = fit->data.train_count;
    memcpy(fit->order, fit->data.train_row, count * sizeof *fit->order);
    philox_shuffle(fit->recipe.seed, PHILOX_LAYER, (uint32_t)fit->at.epoch, fit->order, count);
    fit->ordered_epoch = fit->at.epoch;
}

/* Mean loss of the batch and its gradient on the outputs; bad_row is the galaxy that is worst off. */
static int batch_loss(struct trunk_fit *fit, const uint64_t *row, double *ret_loss)
{
    size_t answers = (size_t)fit->target.outputs;
    double gradient[TARGET_OUTPUTS_MAX], largest = -INFINITY;
    *ret_loss = 0;
    for (int n = 0; n < fit->batch; n++) {
        size_t at = (size_t)n * answers;
        double loss = target_loss(&fit->target, fit->outputs + at, fit->data.labels + row[n] * answers, gradient);
        if (!(loss <= largest)) {
            largest = loss;
            fit->bad_row = row[n];
        }
        if (!isfinite(loss))
            return error_set(ERROR_INPUT,
                             "the loss is not finite in epoch %d: lower the learning rate, or look at the "
                             "galaxy's image and labels",
                             fit->at.epoch + 1);
        *ret_loss += loss / fit->batch;
        for (size_t k = 0; k < answers; k++)
            fit->output_gradients[at + k] = (float)(gradient[k] / fit->batch);
    }
    return 0;
}

static int take_batch(struct trunk_fit *fit)
{
    if (fit->ordered_epoch != fit->at.epoch)
        shuffle(fit);
    const uint64_t *row = fit->order + (size_t)fit->at.batch * (size_t)fit->batch;
    size_t width = (size_t)fit->net.outputs;
    double loss = 0;
    struct stored_views views = trunk_fit_views(fit, row, (size_t)fit->batch, fit->at.epoch);
    struct train_pass pass = {fit->recipe.seed, (uint32_t)fit->at.step, fit->batch_key, fit->recipe.live_norm};
    int result = trunk_fit_hold(fit);
    if (!result)
        result = stored_views_train(fit->backend, fit->context, &fit->net, fit->training, fit->held ? NULL : fit->value,
                                    &views, (size_t)fit->batch, &pass, fit->images, fit->embeddings);
    if (result)
        return result;
    fit->ahead = fit->held;
    for (size_t n = 0; n < (size_t)fit->batch; n++)
        drop(fit, fit->batch_key[n], fit->embeddings + n * width, fit->dropped + n * width);
    trunk_fit_head(fit, fit->value, fit->dropped, (size_t)fit->batch, fit->outputs);
    result = batch_loss(fit, row, &loss);
    if (result)
        return result;
    head_backward(fit);
    if (fit->first_layer < fit->net.layers)
        result = fit->backend->train_backward(fit->training, fit->value, fit->embeddings, fit->first_layer,
                                              fit->held ? NULL : fit->gradient, NULL);
    if (!result)
        result = trunk_fit_update(fit);
    if (result)
        return result;
    fit->at.loss_sum += loss;
    fit->at.step++;
    fit->at.batch++;
    return 0;
}

/* --- the run ------------------------------------------------------------------------------------------------------ */

static int is_over(const struct trunk_fit *fit)
{
    return fit->at.epoch >= fit->recipe.epochs_max ||
           (fit->recipe.patience > 0 && fit->at.bad_epochs >= fit->recipe.patience);
}

/* After its last batch an epoch is judged, and before the first step the start. */
static int is_judging(const struct trunk_fit *fit)
{
    return fit->at.batch == fit->steps_per_epoch || (fit->at.step == 0 && !fit->at.start_judged);
}

/* The plateau's rate from the curve alone, so that a checkpoint need not keep how it got there. */
static double plateau_rate(const struct trunk_fit *fit)
{
    struct plateau plateau = {.best = INFINITY};
    double rate = fit->recipe.learning_rate;
    for (int e = 1; e <= fit->at.epoch; e++)
        rate = optimizer_plateau(&plateau, rate, fit->history[e].validation_loss);
    return rate;
}

static void end_epoch(struct trunk_fit *fit)
{
    const struct trunk_epoch *epoch = &fit->history[++fit->at.epoch];
    double best = fit->history[fit->at.best_epoch].validation_loss;
    fit->at.batch = 0;
    fit->at.loss_sum = 0;
    if (!fit->data.validation_count || epoch->validation_loss < best) {
        fit->at.best_epoch = fit->at.epoch;
        fit->at.bad_epochs = 0;
        memcpy(fit->best, fit->value, fit->count * sizeof *fit->best);
    } else
        fit->at.bad_epochs++;
    if (fit->recipe.schedule == SCHEDULE_PLATEAU && fit->data.validation_count)
        fit->at.learning_rate = plateau_rate(fit);
}

/* The next validation galaxies; with the last of them the epoch ends, or the run begins. */
static int judge_some(struct trunk_fit *fit)
{
    int at_start = fit->at.step == 0;
    struct trunk_epoch *epoch = &fit->history[at_start ? 0 : fit->at.epoch + 1];
    int result = trunk_fit_fetch(fit);
    if (result)
        return result;
    if (!at_start) {
        epoch->learning_rate = fit->at.step_rate;
        epoch->train_loss = fit->at.loss_sum / fit->steps_per_epoch;
    }
    int over = trunk_judging_step(fit, fit->value, fit->data.validation_row, fit->data.validation_count, epoch);
    if (over <= 0)
        return over;
    if (at_start)
        fit->at.start_judged = 1;
    else
        end_epoch(fit);
    return 0;
}

int trunk_fit_step(struct trunk_fit *fit)
{
    if (is_over(fit))
        return 1;
    int result = is_judging(fit) ? judge_some(fit) : take_batch(fit);
    return result ? result : is_over(fit);
}

uint64_t trunk_fit_bad_row(const struct trunk_fit *fit)
{
    return fit->bad_row;
}

int trunk_fit_epochs(const struct trunk_fit *fit)
{
    return fit->at.epoch;
}

const struct trunk_epoch *trunk_fit_epoch(const struct trunk_fit *fit, int epoch)
{
    return &fit->history[epoch];
}

int trunk_fit_best_epoch(const struct trunk_fit *fit)
{
    return fit->at.best_epoch;
}

double trunk_fit_progress(const struct trunk_fit *fit)
{
    double per_epoch = fit->steps_per_epoch;
    return is_over(fit) ? 1 : (fit->at.epoch * per_epoch + fit->at.batch) / (per_epoch * fit->recipe.epochs_max);
}

int trunk_fit_steps_per_epoch(const struct trunk_fit *fit)
{
    return fit->steps_per_epoch;
}

const float *trunk_fit_best(const struct trunk_fit *fit)
{
    return fit->best;
}
