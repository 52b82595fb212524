/* The loop of a training run; see trunk_fit.h. Not for where it starts (trunk_start.c) or its file (trunk_checkpoint.c). */
#include "model/trunk_fit.h"
#include "base/error.h"
#include "base/philox.h"
#include "model/trunk_fit_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VIEW_PREDICT 0x80000000u /* views of predictions are not those of training */

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
    for (size_t at = 0; at < count && fit->chunks < TRUNK_FIT_CHUNKS_MAX; at += TRUNK_FIT_CHUNK)
        fit->chunk[fit->chunks++] =
            (struct trunk_chunk){offset + at, count - at < TRUNK_FIT_CHUNK ? count - at : TRUNK_FIT_CHUNK, factor};
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
    add_chunks(fit, offset, fit->count - offset, 1);
}

/* timm's and Keras' rule: rate * index / number of blocks; every block of the EfficientNets has one depthwise layer. */
static void set_stochastic_depth(struct net *net, double rate)
{
    int blocks = 0, index = -1;
    for (int i = 0; i < net->layers; i++)
        blocks += net->layer[i].kind == LAYER_CONV && net->layer[i].groups > 1;
    for (int i = 0; i < net->layers; i++) {
        index += net->layer[i].kind == LAYER_CONV && net->layer[i].groups > 1;
        if (net->layer[i].kind == LAYER_ADD)
            net->layer[i].drop = (float)(rate * index / blocks);
    }
}

static size_t image_floats(const struct net *net)
{
    return (size_t)net->side * (size_t)net->side * (size_t)net->channels;
}

static int open_memory(struct trunk_fit *fit)
{
    size_t batch = (size_t)fit->batch, outputs = (size_t)fit->target.outputs, inputs = (size_t)fit->net.outputs;
    float **const floats[] = {&fit->value, &fit->moment1, &fit->moment2, &fit->best, &fit->gradient};
    int failed = 0;
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        failed |= !(*floats[i] = calloc(fit->count, sizeof(float)));
    failed |= !(fit->squares = calloc((size_t)fit->chunks, sizeof *fit->squares));
    failed |= !(fit->images = malloc(batch * image_floats(&fit->net) * sizeof(float)));
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
    set_stochastic_depth(&fit->net, recipe->stochastic_depth);
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
    fit->backend->close_training(fit->training);
    void *const owned[] = {fit->value,      fit->moment1, fit->moment2, fit->best,     fit->gradient,
                           fit->squares,    fit->images,  fit->dropped, fit->outputs,  fit->output_gradients,
                           fit->embeddings, fit->order,   fit->history, fit->batch_key};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    free(fit);
}

/* --- images and head ---------------------------------------------------------------------------------------------- */

struct looking {
    const struct trunk_fit *fit;
    enum augmentation augmentation;
    const uint64_t *row;
    uint32_t view;
    float *images;
};

static void look(void *context, long item, int worker)
{
    const struct looking *looking = context;
    const struct trunk_fit *fit = looking->fit;
    uint64_t row = looking->row[item];
    struct augment_source source = {fit->data.pixels + row * fit->data.pixels_stride_bytes, fit->data.pixel_side,
                                    fit->net.channels};
    (void)worker;
    augment(looking->augmentation, &source, fit->net.side, fit->recipe.seed, fit->data.key[row], looking->view,
            looking->images + (size_t)item * image_floats(&fit->net));
}

/* outputs = weight * inputs + bias, galaxy by galaxy. */
static void head_forward(const struct trunk_fit *fit, const float *values, const float *inputs, size_t count,
                         float *outputs)
{
    size_t width = (size_t)fit->net.outputs, answers = (size_t)fit->target.outputs;
    const float *weight = values + fit->trunk_count, *bias = weight + answers * width;
    for (size_t n = 0; n < count; n++)
        for (size_t k = 0; k < answers; k++) {
            double sum = (double)bias[k];
            for (size_t i = 0; i < width; i++)
                sum += (double)(weight[k * width + i] * inputs[n * width + i]);
            outputs[n * answers + k] = (float)sum;
        }
}

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
    for (size_t i = count - 1; i > 0; i--) {
        struct philox random =
            philox(fit->recipe.seed, (uint32_t)i, PHILOX_LAYER, (uint32_t)fit->at.epoch, PHILOX_SHUFFLE);
        size_t j = (size_t)(((uint64_t)random.word[0] * (i + 1)) >> 32);
        uint64_t row = fit->order[i];
        fit->order[i] = fit->order[j];
        fit->order[j] = row;
    }
    fit->ordered_epoch = fit->at.epoch;
}

/* Mean loss of the batch and its gradient on the outputs. */
static int batch_loss(struct trunk_fit *fit, const uint64_t *row, double *ret_loss)
{
    size_t answers = (size_t)fit->target.outputs;
    double gradient[TARGET_OUTPUTS_MAX];
    *ret_loss = 0;
    for (int n = 0; n < fit->batch; n++) {
        size_t at = (size_t)n * answers;
        double loss = target_loss(&fit->target, fit->outputs + at, fit->data.labels + row[n] * answers, gradient);
        if (!isfinite(loss)) {
            fit->bad_row = row[n];
            return error_set(ERROR_INPUT,
                             "the loss is not finite in epoch %d: lower the learning rate, or look at the "
                             "galaxy's image and labels",
                             fit->at.epoch + 1);
        }
        *ret_loss += loss / fit->batch;
        for (size_t k = 0; k < answers; k++)
            fit->output_gradients[at + k] = (float)(gradient[k] / fit->batch);
    }
    return 0;
}

struct update {
    struct trunk_fit *fit;
    struct adamw adamw;
};

static void square_chunk(void *context, long item, int worker)
{
    struct trunk_fit *fit = context;
    (void)worker;
    fit->squares[item] = optimizer_squares(fit->gradient + fit->chunk[item].offset, fit->chunk[item].count);
}

static void update_chunk(void *context, long item, int worker)
{
    const struct update *update = context;
    struct trunk_fit *fit = update->fit;
    const struct trunk_chunk *chunk = &fit->chunk[item];
    struct adamw adamw = update->adamw;
    (void)worker;
    adamw.learning_rate *= chunk->factor;
    adamw_update(&adamw, chunk->count, fit->gradient + chunk->offset, fit->value + chunk->offset,
                 fit->moment1 + chunk->offset, fit->moment2 + chunk->offset);
}

static double step_rate(const struct trunk_fit *fit)
{
    uint64_t epoch_steps = (uint64_t)fit->steps_per_epoch;
    return optimizer_rate(fit->recipe.schedule, fit->at.learning_rate, fit->at.step,
                          epoch_steps * (uint64_t)fit->recipe.epochs_max,
                          epoch_steps * (uint64_t)fit->recipe.warmup_epochs);
}

static void update_values(struct trunk_fit *fit)
{
    double squares = 0, rate = step_rate(fit);
    fit->backend->for_each(fit->context, square_chunk, fit, fit->chunks);
    for (int i = 0; i < fit->chunks; i++)
        squares += fit->squares[i];
    struct update update = {
        fit,
        {.learning_rate = rate,
          .weight_decay = fit->recipe.weight_decay,
          .step = fit->at.step + 1,
          .gradient_scale = optimizer_clip(sqrt(squares), fit->recipe.clip_norm)}
    };
    fit->backend->for_each(fit->context, update_chunk, &update, fit->chunks);
    fit->history[fit->at.epoch + 1].learning_rate = rate;
}

static int take_batch(struct trunk_fit *fit)
{
    if (fit->ordered_epoch != fit->at.epoch)
        shuffle(fit);
    const uint64_t *row = fit->order + (size_t)fit->at.batch * (size_t)fit->batch;
    struct looking looking = {fit, fit->recipe.augmentation, row, (uint32_t)fit->at.epoch, fit->images};
    size_t width = (size_t)fit->net.outputs;
    double loss = 0;
    fit->backend->for_each(fit->context, look, &looking, fit->batch);
    for (int n = 0; n < fit->batch; n++)
        fit->batch_key[n] = fit->data.key[row[n]];
    struct train_pass pass = {fit->recipe.seed, (uint32_t)fit->at.step, fit->batch_key, fit->recipe.live_norm};
    int result =
        fit->backend->train_forward(fit->training, fit->value, fit->images, (size_t)fit->batch, &pass, fit->embeddings);
    if (result)
        return result;
    for (size_t n = 0; n < (size_t)fit->batch; n++)
        drop(fit, fit->batch_key[n], fit->embeddings + n * width, fit->dropped + n * width);
    head_forward(fit, fit->value, fit->dropped, (size_t)fit->batch, fit->outputs);
    result = batch_loss(fit, row, &loss);
    if (result)
        return result;
    head_backward(fit);
    if (fit->first_layer < fit->net.layers)
        result = fit->backend->train_backward(fit->training, fit->value, fit->embeddings, fit->first_layer,
                                              fit->gradient, NULL);
    if (result)
        return result;
    update_values(fit);
    fit->at.loss_sum += loss;
    fit->at.step++;
    fit->at.batch++;
    return 0;
}

/* --- judging ------------------------------------------------------------------------------------------------------ */

/* Outputs of rows under `values`, in the network's own terms; `views` 0 = the plain central view. */
static int run_rows(const struct trunk_fit *fit, struct plan *plan, const float *values, const uint64_t *row,
                    size_t count, int view, float *outputs)
{
    struct looking looking = {fit, view < 0 ? AUGMENT_NONE : fit->recipe.augmentation, row,
                              VIEW_PREDICT + (uint32_t)(view < 0 ? 0 : view), fit->images};
    fit->backend->for_each(fit->context, look, &looking, (long)count);
    int result = fit->backend->forward(plan, fit->images, count, fit->embeddings);
    if (!result)
        head_forward(fit, values, fit->embeddings, count, outputs);
    return result;
}

int trunk_fit_predict(const struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count, int views,
                      float *predictions)
{
    size_t answers = (size_t)fit->target.outputs, block = (size_t)fit->batch;
    float one[TARGET_OUTPUTS_MAX];
    struct plan *plan;
    int result = fit->backend->compile(fit->context, &fit->net, values, PRECISION_FP32, &plan),
        rounds = views > 1 ? views : 1;
    if (result)
        return result;
    memset(predictions, 0, count * answers * sizeof *predictions);
    for (size_t first = 0; first < count && !result; first += block)
        for (int view = 0; view < rounds && !result; view++) {
            size_t here = count - first < block ? count - first : block;
            result = run_rows(fit, plan, values, row + first, here, views > 1 ? view : -1, fit->outputs);
            for (size_t n = 0; n < here && !result; n++) {
                target_predict(&fit->target, fit->outputs + n * answers, one);
                for (size_t k = 0; k < answers; k++)
                    predictions[(first + n) * answers + k] += one[k] / (float)rounds;
            }
        }
    fit->backend->free_plan(plan);
    return result;
}

struct judgement {
    double loss, squares, question_loss[SCHEMA_QUESTIONS_MAX], question_squares[SCHEMA_QUESTIONS_MAX];
    size_t right, compared, question_rows[SCHEMA_QUESTIONS_MAX], question_compared[SCHEMA_QUESTIONS_MAX];
};

static int largest(const float *values, int count)
{
    int best = 0;
    for (int i = 1; i < count; i++)
        best = values[i] > values[best] ? i : best;
    return best;
}

/* Squared errors of fractions where there were votes. */
static void judge_fractions(struct judgement *judgement, const float *fraction, const float *label, int count)
{
    double total = 0;
    for (int i = 0; i < count; i++)
        total += (double)label[i];
    for (int i = 0; i < count && total > 0; i++) {
        double distance = (double)label[i] / total - (double)fraction[i];
        judgement->squares += distance * distance;
        judgement->compared++;
    }
}

static void judge(const struct target *target, const float *output, const float *label, struct judgement *judgement)
{
    float prediction[TARGET_OUTPUTS_MAX];
    judgement->loss += target_loss(target, output, label, NULL);
    target_predict(target, output, prediction);
    if (target->kind == TARGET_CLASSES)
        judgement->right += largest(prediction, target->outputs) == largest(label, target->outputs);
    else if (target->kind == TARGET_BINOMIAL)
        judge_fractions(judgement, prediction, label, 2);
    for (int i = 0; i < target->outputs && target->kind == TARGET_VALUES; i++, judgement->compared++)
        judgement->squares += pow((double)prediction[i] - (double)label[i], 2);
    for (int q = 0; target->kind == TARGET_VOTES && q < target->schema->questions; q++) {
        const struct question *question = &target->schema->question[q];
        size_t compared = judgement->compared;
        double squares = judgement->squares;
        judge_fractions(judgement, prediction + question->first, label + question->first, question->count);
        judgement->question_rows[q] += judgement->compared > compared;
        judgement->question_compared[q] += judgement->compared - compared;
        judgement->question_squares[q] += judgement->squares - squares;
        judgement->question_loss[q] += target_question_loss(target, q, output, label);
    }
}

static int judge_rows(const struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count,
                      struct judgement *judgement)
{
    size_t answers = (size_t)fit->target.outputs, block = (size_t)fit->batch;
    struct plan *plan;
    int result = fit->backend->compile(fit->context, &fit->net, values, PRECISION_FP32, &plan);
    if (result)
        return result;
    for (size_t first = 0; first < count && !result; first += block) {
        size_t here = count - first < block ? count - first : block;
        result = run_rows(fit, plan, values, row + first, here, -1, fit->outputs);
        for (size_t n = 0; n < here && !result; n++)
            judge(&fit->target, fit->outputs + n * answers, fit->data.labels + row[first + n] * answers, judgement);
    }
    fit->backend->free_plan(plan);
    return result;
}

int trunk_fit_judge(const struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count,
                    struct trunk_epoch *ret_judged)
{
    struct judgement judgement = {0};
    int result = judge_rows(fit, values, row, count, &judgement);
    ret_judged->validation_loss = count ? judgement.loss / (double)count : NAN;
    ret_judged->quality = fit->target.kind == TARGET_CLASSES
                              ? (double)judgement.right / (double)count
                              : sqrt(judgement.squares / (double)judgement.compared); /* NaN without rows */
    for (int q = 0; fit->target.kind == TARGET_VOTES && q < fit->target.schema->questions; q++) {
        ret_judged->question_loss[q] = (float)(judgement.question_loss[q] / (double)judgement.question_rows[q]);
        ret_judged->question_rmse[q] =
            (float)sqrt(judgement.question_squares[q] / (double)judgement.question_compared[q]);
    }
    return result;
}

static int validate(const struct trunk_fit *fit, struct trunk_epoch *epoch)
{
    return trunk_fit_judge(fit, fit->value, fit->data.validation_row, fit->data.validation_count, epoch);
}

/* --- the run ------------------------------------------------------------------------------------------------------ */

static int is_over(const struct trunk_fit *fit)
{
    return fit->at.epoch >= fit->recipe.epochs_max ||
           (fit->recipe.patience > 0 && fit->at.bad_epochs >= fit->recipe.patience);
}

static int end_epoch(struct trunk_fit *fit)
{
    struct trunk_epoch *epoch = &fit->history[fit->at.epoch + 1];
    epoch->train_loss = fit->at.loss_sum / fit->steps_per_epoch;
    int result = validate(fit, epoch);
    if (result)
        return result;
    fit->at.epoch++;
    fit->at.batch = 0;
    fit->at.loss_sum = 0;
    double best = fit->history[fit->at.best_epoch].validation_loss;
    if (!fit->data.validation_count || epoch->validation_loss < best || !isfinite(best)) {
        fit->at.best_epoch = fit->at.epoch;
        fit->at.bad_epochs = 0;
        memcpy(fit->best, fit->value, fit->count * sizeof *fit->best);
    } else
        fit->at.bad_epochs++;
    if (fit->recipe.schedule == SCHEDULE_PLATEAU)
        fit->at.learning_rate = optimizer_plateau(fit->at.learning_rate, fit->at.bad_epochs);
    return 0;
}

int trunk_fit_step(struct trunk_fit *fit)
{
    if (is_over(fit))
        return 1;
    int result = fit->at.step == 0 ? validate(fit, &fit->history[0]) : 0;
    if (!result && fit->at.batch < fit->steps_per_epoch)
        result = take_batch(fit);
    if (!result && fit->at.batch == fit->steps_per_epoch)
        result = end_epoch(fit);
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
