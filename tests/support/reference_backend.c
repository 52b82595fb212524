/* See reference_backend.h. */
#include "tests/support/reference_backend.h"
#include "base/error.h"

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
    }
}

/* Runs the batch; `store` and `outputs` may be NULL. */
static void run_net(const struct net *net, const float *parameters, float *store, const float *images, int count,
                    float *outputs)
{
    struct map map[NET_LAYERS_MAX + 1] = {
        {count, net->side, net->channels, NULL}
    }; /* [0] is the input */
    size_t offset = 0;
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
        offset += layer_parameter_count(layer);
    }
    for (size_t i = 0; outputs && i < map_values(&map[net->layers]); i++)
        outputs[i] = (float)map[net->layers].value[i];
    for (int i = 0; i <= net->layers; i++)
        free(map[i].value);
}

static int open_reference(int threads, struct backend_context **ret_context)
{
    (void)threads;
    *ret_context = calloc(1, sizeof **ret_context);
    (*ret_context)->threads = 1;
    return 0;
}

static void close_reference(struct backend_context *context)
{
    free(context);
}

static int threads(const struct backend_context *context)
{
    return context->threads;
}

static int compile(struct backend_context *context, const struct net *net, const float *parameters,
                   struct plan **ret_plan)
{
    (void)context;
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
    run_net(&plan->net, plan->parameters, NULL, images, (int)count, outputs);
    return 0;
}

static int calibrate(struct backend_context *context, const struct net *net, const float *images, size_t count,
                     float *parameters)
{
    (void)context;
    if (count == 0)
        return error_set(ERROR_INPUT, "calibrating %s needs at least one image", net->name);
    run_net(net, parameters, parameters, images, (int)count, NULL);
    return 0;
}

const struct backend backend_reference = {
    .name = "reference",
    .open = open_reference,
    .close = close_reference,
    .threads = threads,
    .compile = compile,
    .free_plan = free_plan,
    .forward = forward,
    .calibrate = calibrate,
};
