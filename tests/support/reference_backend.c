/* See reference_backend.h. */
#include "tests/support/reference_backend.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct backend_context {
    int threads; /* always one */
};

struct plan {
    struct net net;
    float *parameters;
};

/* Activations of one layer for the whole batch: value[image][y][x][channel]. */
struct map {
    int images, side, channels;
    double *value;
};

static size_t map_values(const struct map *map)
{
    return (size_t)map->images * (size_t)map->side * (size_t)map->side * (size_t)map->channels;
}

static double *pixel(const struct map *map, int image, int y, int x)
{
    return map->value +
           (((size_t)image * (size_t)map->side + (size_t)y) * (size_t)map->side + (size_t)x) * (size_t)map->channels;
}

/* One output value: the kernel laid over the input, nothing outside the image. */
static double convolve_at(const struct layer *layer, int before, const float *weight, const struct map *source,
                          int image, int y, int x, int out)
{
    int group_in = layer->in / layer->groups, group = out / (layer->out / layer->groups);
    double sum = 0;
    for (int c = 0; c < group_in; c++)
        for (int v = 0; v < layer->kernel; v++)
            for (int u = 0; u < layer->kernel; u++) {
                int row = y * layer->stride + v - before, column = x * layer->stride + u - before;
                if (row < 0 || column < 0 || row >= source->side || column >= source->side)
                    continue;
                int at = ((out * group_in + c) * layer->kernel + v) * layer->kernel + u;
                sum += (double)weight[at] * pixel(source, image, row, column)[group * group_in + c];
            }
    return sum;
}

static void convolve(const struct net *net, const struct layer *layer, const float *weight, const struct map *source,
                     struct map *target)
{
    int before;
    layer_output_side(net, layer, source->side, &before);
    for (int n = 0; n < target->images; n++)
        for (int y = 0; y < target->side; y++)
            for (int x = 0; x < target->side; x++)
                for (int c = 0; c < layer->out; c++)
                    pixel(target, n, y, x)[c] = convolve_at(layer, before, weight, source, n, y, x, c);
}

/* Mean and biased variance of one channel over images and pixels. */
static void moments(const struct map *map, int channel, double *ret_mean, double *ret_variance)
{
    size_t stride = (size_t)map->channels, rows = map_values(map) / stride;
    double sum = 0, squares = 0;
    for (size_t r = 0; r < rows; r++)
        sum += map->value[r * stride + (size_t)channel];
    *ret_mean = sum / (double)rows;
    for (size_t r = 0; r < rows; r++)
        squares += pow(map->value[r * stride + (size_t)channel] - *ret_mean, 2);
    *ret_variance = squares / (double)rows;
}

/* `store` not NULL: the parameters once more, to take the statistics of this batch, which are then used. */
static void normalise(const struct net *net, const struct layer *layer, const float *parameters, float *store,
                      const struct map *source, struct map *target)
{
    int channels = layer->out;
    size_t stride = (size_t)channels, rows = map_values(source) / stride;
    for (int c = 0; c < channels; c++) {
        double mean = (double)parameters[2 * channels + c], variance = (double)parameters[3 * channels + c];
        if (store) {
            moments(source, c, &mean, &variance);
            store[2 * channels + c] = (float)mean;
            store[3 * channels + c] = (float)(rows > 1 ? variance * (double)rows / (double)(rows - 1) : variance);
        }
        double deviation = sqrt(variance + (double)net->epsilon);
        for (size_t r = 0; r < rows; r++)
            target->value[r * stride + (size_t)c] =
                (source->value[r * stride + (size_t)c] - mean) / deviation * (double)parameters[c] +
                (double)parameters[channels + c];
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double mean_of_channel(const struct map *map, int image, int channel)
{
    double sum = 0;
    for (int y = 0; y < map->side; y++)
        for (int x = 0; x < map->side; x++)
            sum += pixel(map, image, y, x)[channel];
    return sum / ((double)map->side * map->side);
}

static void squeeze_and_excite(const struct layer *layer, const float *parameters, const struct map *source,
                               struct map *target)
{
    int in = layer->in, reduced = layer->reduced;
    const float *reduce = parameters, *reduce_bias = reduce + in * reduced;
    const float *expand = reduce_bias + reduced, *expand_bias = expand + in * reduced;
    double *narrow = calloc((size_t)reduced, sizeof *narrow);
    for (int n = 0; n < source->images; n++) {
        for (int r = 0; r < reduced; r++) {
            double sum = (double)reduce_bias[r];
            for (int c = 0; c < in; c++)
                sum += (double)reduce[r * in + c] * mean_of_channel(source, n, c);
            narrow[r] = sum * sigmoid(sum);
        }
        for (int c = 0; c < in; c++) {
            double sum = (double)expand_bias[c];
            for (int r = 0; r < reduced; r++)
                sum += (double)expand[c * reduced + r] * narrow[r];
            for (int y = 0; y < source->side; y++)
                for (int x = 0; x < source->side; x++)
                    pixel(target, n, y, x)[c] = pixel(source, n, y, x)[c] * sigmoid(sum);
        }
    }
    free(narrow);
}

/* Calls `visit` for every output value with the place of the largest input of its square, the first of equal ones. */
static void each_largest(const struct layer *layer, const struct map *source, const struct map *target,
                         void (*visit)(double *input, double *output, void *context), void *context)
{
    for (int n = 0; n < target->images; n++)
        for (int y = 0; y < target->side; y++)
            for (int x = 0; x < target->side; x++)
                for (int c = 0; c < layer->out; c++) {
                    double *best = &pixel(source, n, y * layer->stride, x * layer->stride)[c];
                    for (int v = 0; v < layer->kernel; v++)
                        for (int u = 0; u < layer->kernel; u++) {
                            double *other = &pixel(source, n, y * layer->stride + v, x * layer->stride + u)[c];
                            best = *other > *best ? other : best;
                        }
                    visit(best, &pixel(target, n, y, x)[c], context);
                }
}

static void take_largest(double *input, double *output, void *context)
{
    (void)context;
    *output = *input;
}

static double rectify(double x, const struct layer *layer)
{
    double ceiling = layer->ceiling > 0 ? (double)layer->ceiling : INFINITY;
    return fmin(fmax(x, 0), ceiling);
}

static void run_layer(const struct net *net, const struct layer *layer, const float *parameters, float *store,
                      const struct map *source, const struct map *added, struct map *target)
{
    size_t count = map_values(target);
    switch (layer->kind) {
    case LAYER_CONV:
        convolve(net, layer, parameters, source, target);
        break;
    case LAYER_BATCH_NORM:
        normalise(net, layer, parameters, store, source, target);
        break;
    case LAYER_SWISH:
        for (size_t i = 0; i < count; i++)
            target->value[i] = source->value[i] * sigmoid(source->value[i]);
        break;
    case LAYER_SE:
        squeeze_and_excite(layer, parameters, source, target);
        break;
    case LAYER_ADD:
        for (size_t i = 0; i < count; i++)
            target->value[i] = source->value[i] + added->value[i];
        break;
    case LAYER_POOL:
        for (int n = 0; n < target->images; n++)
            for (int c = 0; c < layer->out; c++)
                pixel(target, n, 0, 0)[c] = mean_of_channel(source, n, c);
        break;
    case LAYER_BIAS:
        for (size_t i = 0; i < count; i++)
            target->value[i] = source->value[i] + (double)parameters[i % (size_t)layer->out];
        break;
    case LAYER_RELU:
        for (size_t i = 0; i < count; i++)
            target->value[i] = rectify(source->value[i], layer);
        break;
    case LAYER_MAX_POOL:
        each_largest(layer, source, target, take_largest, NULL);
        break;
    }
}

/* Everything of one pass, for the whole batch; map[0] is the input. */
struct pass {
    struct map map[NET_LAYERS_MAX + 1];
};

static void free_pass(const struct net *net, struct pass *pass)
{
    for (int i = 0; i <= net->layers; i++)
        free(pass->map[i].value);
}

/* Stochastic depth: see train_pass in model/backend.h. */
static double branch_scale(const struct train_pass *train, int layer, double drop, int image)
{
    uint64_t key = train->key ? train->key[image] : (uint64_t)image;
    uint32_t word =
        philox(train->seed, 0, (uint32_t)key, train->step, (uint32_t)(layer + PHILOX_LAYER) << 8 | PHILOX_TRAIN)
            .word[0];
    return drop <= 0 ? 1 : (double)philox_uniform(word) < drop ? 0 : 1 / (1 - drop);
}

static void drop_branches(const struct train_pass *train, const struct net *net, int layer, const struct map *straight,
                          const struct map *branch, struct map *target)
{
    size_t floats = map_values(target) / (size_t)target->images;
    for (int n = 0; n < target->images; n++) {
        double scale = branch_scale(train, layer, (double)net->layer[layer].drop, n);
        for (size_t i = (size_t)n * floats; i < (size_t)(n + 1) * floats; i++)
            target->value[i] = straight->value[i] + scale * branch->value[i];
    }
}

/* Runs the batch; `store` and `train` may be NULL. */
static void run_net(const struct net *net, const float *parameters, float *store, const float *images, int count,
                    const struct train_pass *train, struct pass *pass)
{
    struct map *map = pass->map;
    size_t offset = 0;
    map[0] = (struct map){count, net->side, net->channels, NULL};
    map[0].value = malloc(map_values(&map[0]) * sizeof(double));
    for (size_t i = 0; i < map_values(&map[0]); i++)
        map[0].value[i] = (double)images[i];
    for (int i = 0; i < net->layers; i++) {
        const struct layer *layer = &net->layer[i];
        int before, side = layer_output_side(net, layer, map[i].side, &before);
        map[i + 1] = (struct map){count, side, layer->out, NULL};
        map[i + 1].value = malloc(map_values(&map[i + 1]) * sizeof(double));
        run_layer(net, layer, parameters + offset, store ? store + offset : NULL, &map[i], &map[layer->from + 1],
                  &map[i + 1]);
        if (train && layer->kind == LAYER_ADD)
            drop_branches(train, net, i, &map[layer->from + 1], &map[i], &map[i + 1]);
        offset += layer_parameter_count(layer);
    }
}

static void take_outputs(const struct net *net, const struct pass *pass, float *outputs)
{
    for (size_t i = 0; i < map_values(&pass->map[net->layers]); i++)
        outputs[i] = (float)pass->map[net->layers].value[i];
}

/* --- training ----------------------------------------------------------------------------------------------------- */

/* Each *_back adds d loss / d source to `flow` and d loss / d parameters to `slope`; `back` is d loss / d target. */
static void convolve_back(const struct net *net, const struct layer *layer, const float *weight,
                          const struct map *source, const struct map *back, struct map *flow, double *slope)
{
    int before, group_in = layer->in / layer->groups;
    layer_output_side(net, layer, source->side, &before);
    for (int n = 0; n < back->images; n++)
        for (int y = 0; y < back->side; y++)
            for (int x = 0; x < back->side; x++)
                for (int out = 0; out < layer->out; out++)
                    for (int c = 0; c < group_in; c++)
                        for (int v = 0; v < layer->kernel; v++)
                            for (int u = 0; u < layer->kernel; u++) {
                                int row = y * layer->stride + v - before, column = x * layer->stride + u - before;
                                if (row < 0 || column < 0 || row >= source->side || column >= source->side)
                                    continue;
                                int from = out / (layer->out / layer->groups) * group_in + c;
                                int at = ((out * group_in + c) * layer->kernel + v) * layer->kernel + u;
                                double here = pixel(back, n, y, x)[out];
                                slope[at] += here * pixel(source, n, row, column)[from];
                                pixel(flow, n, row, column)[from] += here * (double)weight[at];
                            }
}

static void normalise_back(const struct net *net, const struct layer *layer, const float *parameters, int live,
                           const struct map *source, const struct map *back, struct map *flow, double *slope)
{
    size_t stride = (size_t)layer->out, rows = map_values(source) / stride;
    for (size_t c = 0; c < stride; c++) {
        double mean = (double)parameters[2 * stride + c], variance = (double)parameters[3 * stride + c];
        double sum = 0, product = 0, gamma = (double)parameters[c];
        if (live)
            moments(source, (int)c, &mean, &variance);
        double deviation = sqrt(variance + (double)net->epsilon);
        for (size_t r = 0; r < rows; r++) {
            sum += back->value[r * stride + c];
            product += back->value[r * stride + c] * (source->value[r * stride + c] - mean) / deviation;
        }
        slope[c] += product;
        slope[stride + c] += sum;
        for (size_t r = 0; r < rows; r++) {
            double z = (source->value[r * stride + c] - mean) / deviation;
            double taken = live ? (sum + z * product) / (double)rows : 0;
            flow->value[r * stride + c] += gamma / deviation * (back->value[r * stride + c] - taken);
        }
    }
}

static void squeeze_and_excite_back(const struct layer *layer, const float *parameters, const struct map *source,
                                    const struct map *back, struct map *flow, double *slope)
{
    int in = layer->in, reduced = layer->reduced, side = source->side;
    const float *reduce = parameters, *reduce_bias = reduce + in * reduced;
    const float *expand = reduce_bias + reduced, *expand_bias = expand + in * reduced;
    double *d_reduce = slope, *d_reduce_bias = d_reduce + in * reduced;
    double *d_expand = d_reduce_bias + reduced, *d_expand_bias = d_expand + in * reduced;
    double *inner = calloc((size_t)reduced, sizeof *inner), *d_inner = calloc((size_t)reduced, sizeof *d_inner);
    for (int n = 0; n < source->images; n++) {
        memset(d_inner, 0, (size_t)reduced * sizeof *d_inner);
        for (int r = 0; r < reduced; r++) {
            inner[r] = (double)reduce_bias[r];
            for (int c = 0; c < in; c++)
                inner[r] += (double)reduce[r * in + c] * mean_of_channel(source, n, c);
        }
        for (int c = 0; c < in; c++) {
            double sum = (double)expand_bias[c], opened = 0;
            for (int r = 0; r < reduced; r++)
                sum += (double)expand[c * reduced + r] * inner[r] * sigmoid(inner[r]);
            double gate = sigmoid(sum);
            for (int y = 0; y < side; y++)
                for (int x = 0; x < side; x++) {
                    opened += pixel(back, n, y, x)[c] * pixel(source, n, y, x)[c];
                    pixel(flow, n, y, x)[c] += pixel(back, n, y, x)[c] * gate;
                }
            opened *= gate * (1 - gate);
            d_expand_bias[c] += opened;
            for (int r = 0; r < reduced; r++) {
                d_expand[c * reduced + r] += opened * inner[r] * sigmoid(inner[r]);
                d_inner[r] += opened * (double)expand[c * reduced + r];
            }
        }
        for (int r = 0; r < reduced; r++) {
            double s = sigmoid(inner[r]);
            d_inner[r] *= s + inner[r] * s * (1 - s);
            d_reduce_bias[r] += d_inner[r];
            for (int c = 0; c < in; c++) {
                d_reduce[r * in + c] += d_inner[r] * mean_of_channel(source, n, c);
                for (int y = 0; y < side; y++)
                    for (int x = 0; x < side; x++)
                        pixel(flow, n, y, x)[c] += d_inner[r] * (double)reduce[r * in + c] / ((double)side * side);
            }
        }
    }
    free(inner);
    free(d_inner);
}

struct training {
    struct net net;
    struct pass pass;
    struct train_pass train;
};

/* Adds an output's gradient where its value came from. */
struct returning {
    const struct map *source, *back, *flow, *target;
};

static void return_gradient(double *input, double *output, void *context)
{
    const struct returning *returning = context;
    returning->flow->value[input - returning->source->value] +=
        returning->back->value[output - returning->target->value];
}

static void layer_back(const struct training *training, int index, const float *parameters, struct map *flow,
                       double *slope)
{
    const struct net *net = &training->net;
    const struct layer *layer = &net->layer[index];
    const struct map *source = &training->pass.map[index], *back = &flow[index + 1];
    size_t count = map_values(back), per_image = count / (size_t)back->images;
    switch (layer->kind) {
    case LAYER_CONV:
        convolve_back(net, layer, parameters, source, back, &flow[index], slope);
        break;
    case LAYER_BATCH_NORM:
        normalise_back(net, layer, parameters, training->train.live_norm, source, back, &flow[index], slope);
        break;
    case LAYER_SWISH:
        for (size_t i = 0; i < count; i++) {
            double s = sigmoid(source->value[i]);
            flow[index].value[i] += back->value[i] * (s + source->value[i] * s * (1 - s));
        }
        break;
    case LAYER_SE:
        squeeze_and_excite_back(layer, parameters, source, back, &flow[index], slope);
        break;
    case LAYER_ADD:
        for (size_t i = 0; i < count; i++) {
            flow[layer->from + 1].value[i] += back->value[i];
            flow[index].value[i] +=
                back->value[i] * branch_scale(&training->train, index, (double)layer->drop, (int)(i / per_image));
        }
        break;
    case LAYER_POOL:
        for (int n = 0; n < source->images; n++)
            for (int y = 0; y < source->side; y++)
                for (int x = 0; x < source->side; x++)
                    for (int c = 0; c < layer->out; c++)
                        pixel(&flow[index], n, y, x)[c] +=
                            pixel(back, n, 0, 0)[c] / ((double)source->side * source->side);
        break;
    case LAYER_BIAS:
        for (size_t i = 0; i < count; i++) {
            slope[i % (size_t)layer->out] += back->value[i];
            flow[index].value[i] += back->value[i];
        }
        break;
    case LAYER_RELU:
        for (size_t i = 0; i < count; i++)
            if (source->value[i] > 0 && rectify(source->value[i], layer) == source->value[i])
                flow[index].value[i] += back->value[i];
        break;
    case LAYER_MAX_POOL: {
        struct returning returning = {source, back, &flow[index], &training->pass.map[index + 1]};
        each_largest(layer, source, returning.target, return_gradient, &returning);
        break;
    }
    }
}

static int open_training(struct backend_context *context, const struct net *net, size_t batch_limit,
                         struct training **ret_training)
{
    (void)context;
    (void)batch_limit;
    struct training *training = calloc(1, sizeof *training);
    training->net = *net;
    *ret_training = training;
    return 0;
}

static void close_training(struct training *training)
{
    if (training)
        free_pass(&training->net, &training->pass);
    free(training);
}

/* Running statistics move towards the batch's by the net's momentum. */
static void follow(const struct net *net, const float *batch, float *parameters)
{
    for (int i = 0; i < net->layers; i++) {
        size_t count = layer_parameter_count(&net->layer[i]);
        for (size_t p = count / 2; p < count && net->layer[i].kind == LAYER_BATCH_NORM; p++)
            parameters[p] =
                (float)((1 - (double)net->momentum) * (double)parameters[p] + (double)net->momentum * (double)batch[p]);
        parameters += count;
        batch += count;
    }
}

static int train_forward(struct training *training, float *parameters, const float *images, size_t count,
                         const struct train_pass *train, float *outputs)
{
    const struct net *net = &training->net;
    size_t parameter_count = net_parameter_count(net);
    float *batch = malloc((parameter_count + 1) * sizeof *batch);
    memcpy(batch, parameters, parameter_count * sizeof *batch);
    free_pass(net, &training->pass);
    training->train = *train;
    run_net(net, parameters, train->live_norm ? batch : NULL, images, (int)count, train, &training->pass);
    if (train->live_norm)
        follow(net, batch, parameters);
    take_outputs(net, &training->pass, outputs);
    free(batch);
    return 0;
}

static int train_backward(struct training *training, const float *parameters, const float *output_gradients,
                          int first_layer, float *gradients, float *image_gradients)
{
    const struct net *net = &training->net;
    size_t count = net_parameter_count(net), offset = count;
    double *slope = calloc(count + 1, sizeof *slope);
    struct map flow[NET_LAYERS_MAX + 1];
    for (int i = 0; i <= net->layers; i++) {
        flow[i] = training->pass.map[i];
        flow[i].value = calloc(map_values(&flow[i]), sizeof(double));
    }
    for (size_t i = 0; i < map_values(&flow[net->layers]); i++)
        flow[net->layers].value[i] = (double)output_gradients[i];
    for (int i = net->layers - 1; i >= first_layer && i >= 0; i--) {
        offset -= layer_parameter_count(&net->layer[i]);
        layer_back(training, i, parameters + offset, flow, slope + offset);
    }
    for (size_t i = 0; i < count; i++)
        gradients[i] = (float)slope[i];
    for (size_t i = 0; image_gradients && i < map_values(&flow[0]); i++)
        image_gradients[i] = (float)flow[0].value[i];
    for (int i = 0; i <= net->layers; i++)
        free(flow[i].value);
    free(slope);
    return 0;
}

/* --- the table ---------------------------------------------------------------------------------------------------- */

static int open_reference(int threads, int devices, struct backend_context **ret_context)
{
    (void)threads;
    (void)devices;
    *ret_context = calloc(1, sizeof **ret_context);
    (*ret_context)->threads = 1;
    return 0;
}

static void close_reference(struct backend_context *context)
{
    free(context);
}

static void for_each(struct backend_context *context, backend_task *task, void *task_context, long items)
{
    (void)context;
    for (long i = 0; i < items; i++)
        task(task_context, i, 0);
}

static int threads(const struct backend_context *context)
{
    return context->threads;
}

static int compile(struct backend_context *context, const struct net *net, const float *parameters,
                   enum precision precision, struct plan **ret_plan)
{
    (void)context;
    (void)precision; /* always double */
    struct plan *plan = calloc(1, sizeof *plan);
    plan->net = *net;
    plan->parameters = malloc((net_parameter_count(net) + 1) * sizeof(float));
    memcpy(plan->parameters, parameters, net_parameter_count(net) * sizeof(float));
    *ret_plan = plan;
    return 0;
}

static void free_plan(struct plan *plan)
{
    if (plan)
        free(plan->parameters);
    free(plan);
}

static int forward(struct plan *plan, const float *images, size_t count, float *outputs)
{
    struct pass pass;
    run_net(&plan->net, plan->parameters, NULL, images, (int)count, NULL, &pass);
    take_outputs(&plan->net, &pass, outputs);
    free_pass(&plan->net, &pass);
    return 0;
}

static int calibrate(struct backend_context *context, const struct net *net, const float *images, size_t count,
                     float *parameters)
{
    (void)context;
    if (count == 0)
        return error_set(ERROR_INPUT, "calibrating %s needs at least one image", net->name);
    struct pass pass;
    run_net(net, parameters, parameters, images, (int)count, NULL, &pass);
    free_pass(net, &pass);
    return 0;
}

const struct backend backend_reference = {
    .name = "reference",
    .open = open_reference,
    .close = close_reference,
    .threads = threads,
    .for_each = for_each,
    .compile = compile,
    .free_plan = free_plan,
    .forward = forward,
    .calibrate = calibrate,
    .open_training = open_training,
    .close_training = close_training,
    .train_forward = train_forward,
    .train_backward = train_backward,
};
