/* See small_nets.h. */
#include "tests/support/small_nets.h"
#include "base/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

float uniform(uint32_t stream, size_t element)
{
    return philox_uniform(philox(NETS_SEED, (uint32_t)element, stream, 0, 0).word[0]);
}

float *random_images(const struct net *net, size_t count, uint32_t stream)
{
    size_t floats = count * (size_t)net->side * (size_t)net->side * (size_t)net->channels;
    float *images = malloc(floats * sizeof *images);
    for (size_t i = 0; i < floats; i++)
        images[i] = uniform(stream, i);
    return images;
}

/* Random weights, and batch norms and biases that differ from channel to channel. */
float *random_parameters(const struct net *net)
{
    float *parameters = malloc((net_parameter_count(net) + 1) * sizeof *parameters);
    struct net_tensor *tensor = calloc(4 * NET_LAYERS_MAX, sizeof *tensor);
    int tensors = net_tensors(net, tensor, 4 * NET_LAYERS_MAX);
    net_random_parameters(net, NETS_SEED, parameters);
    for (int t = 0; t < tensors; t++) {
        const char *last = strrchr(tensor[t].name, '.');
        for (size_t i = 0; i < tensor[t].count && tensor[t].rank == 1; i++) {
            float value = uniform(1000 + (uint32_t)t, i);
            int spread = strcmp(last, ".weight") == 0 || strcmp(last, ".running_var") == 0;
            parameters[tensor[t].offset + i] = spread ? 0.5f + value : value - 0.5f;
        }
    }
    free(tensor);
    return parameters;
}

size_t output_floats(const struct net *net)
{
    int side = net->side, before;
    for (int i = 0; i < net->layers; i++)
        side = layer_output_side(net, &net->layer[i], side, &before);
    return (size_t)side * (size_t)side * (size_t)net->layer[net->layers - 1].out;
}

/* Largest error over largest value; infinite where anything is not finite. */
double relative_error(const float *have, const float *want, size_t count)
{
    double error = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(have[i]) || !isfinite(want[i]))
            return INFINITY;
        error = fmax(error, fabs((double)have[i] - (double)want[i]));
        largest = fmax(largest, fabs((double)want[i]));
    }
    return largest > 0 ? error / largest : INFINITY; /* an oracle of zeros would prove nothing */
}

struct layer *add_layer(struct net *net, enum layer_kind kind, int in, int out)
{
    struct layer *layer = &net->layer[net->layers];
    *layer = (struct layer){.kind = kind, .in = in, .out = out, .kernel = 1, .stride = 1, .groups = 1};
    snprintf(layer->name, sizeof layer->name, "layer%d", net->layers++);
    return layer;
}

void add_conv(struct net *net, int in, int out, int kernel, int stride, int groups)
{
    struct layer *layer = add_layer(net, LAYER_CONV, in, out);
    layer->kernel = kernel;
    layer->stride = stride;
    layer->groups = groups;
}

void begin_net(struct net *net, const char *name, int channels, int side, enum padding padding)
{
    memset(net, 0, sizeof *net);
    snprintf(net->name, sizeof net->name, "%s", name);
    net->channels = channels;
    net->side = side;
    net->padding = padding;
    net->epsilon = 1e-3f;
    net->momentum = 0.1f;
}

/* Convolution, then optionally norm and swish, so that every way of folding appears. */
static void add_unit(struct net *net, int in, int out, int kernel, int stride, int groups, int norm, int swish)
{
    add_conv(net, in, out, kernel, stride, groups);
    if (norm)
        add_layer(net, LAYER_BATCH_NORM, out, out);
    if (swish)
        add_layer(net, LAYER_SWISH, out, out);
}

static void add_residual(struct net *net, int channels, int kernel)
{
    int start = net->layers - 1;
    add_unit(net, channels, 3 * channels, 1, 1, 1, 1, 1);
    add_unit(net, 3 * channels, 3 * channels, kernel, 1, 3 * channels, 1, 1);
    add_layer(net, LAYER_SE, 3 * channels, 3 * channels)->reduced = 2;
    add_unit(net, 3 * channels, channels, 1, 1, 1, 1, 0);
    add_layer(net, LAYER_ADD, channels, channels)->from = start;
}

/* Stem, two residuals in a row (the first one's sum opens the second), narrowing, one more, top. */
void small_net(struct net *net, int channels, int side, enum padding padding)
{
    begin_net(net, "small", channels, side, padding);
    add_unit(net, channels, 12, 3, 2, 1, 1, 1);
    add_residual(net, 12, 3);
    add_residual(net, 12, 5);
    add_unit(net, 12, 12, 5, 2, 12, 1, 1);
    add_unit(net, 12, 9, 1, 1, 1, 0, 1); /* swish without norm */
    add_residual(net, 9, 3);
    add_unit(net, 9, 20, 1, 1, 1, 0, 0);
    add_layer(net, LAYER_BATCH_NORM, 20, 20);
    add_layer(net, LAYER_POOL, 20, 20);
    net->outputs = 20;
}

/* A residual around a single convolution, opened by a convolution that nothing is folded into. */
void bare_net(struct net *net, int side)
{
    begin_net(net, "bare", 3, side, PADDING_SAME);
    add_conv(net, 3, 6, 1, 1, 1);
    add_conv(net, 6, 6, 3, 1, 1);
    add_layer(net, LAYER_ADD, 6, 6)->from = 0;
    add_layer(net, LAYER_BATCH_NORM, 6, 6);
    add_layer(net, LAYER_SE, 6, 6)->reduced = 1;
}

static void add_bias(struct net *net, int channels)
{
    add_layer(net, LAYER_BIAS, channels, channels);
}

static void add_relu(struct net *net, int channels, float ceiling)
{
    add_layer(net, LAYER_RELU, channels, channels)->ceiling = ceiling;
}

static void add_max_pool(struct net *net, int channels, int kernel)
{
    struct layer *layer = add_layer(net, LAYER_MAX_POOL, channels, channels);
    layer->kernel = kernel;
    layer->stride = 2;
}

/* Two residuals: one opened by a ReLU, one by the bias of a convolution, whose ReLU follows. */
static void add_plain_residuals(struct net *net, int channels)
{
    int start = net->layers - 1;
    add_unit(net, channels, channels, 3, 1, channels, 1, 0);
    add_relu(net, channels, 0.8f);
    add_conv(net, channels, channels, 1, 1, 1);
    add_bias(net, channels);
    add_layer(net, LAYER_ADD, channels, channels)->from = start;
    add_bias(net, channels);
    add_conv(net, channels, channels, 1, 1, 1);
    add_bias(net, channels);
    start = net->layers - 1;
    add_relu(net, channels, 0);
    add_conv(net, channels, channels, 3, 1, 1);
    add_bias(net, channels);
    add_relu(net, channels, 6);
    add_layer(net, LAYER_ADD, channels, channels)->from = start;
}

void plain_net(struct net *net, int channels, int side, enum padding padding)
{
    begin_net(net, "plain", channels, side, padding);
    add_conv(net, channels, 12, 3, 1, 1);
    add_bias(net, 12);
    add_relu(net, 12, 0);
    add_conv(net, 12, 12, 1, 1, 1);
    add_relu(net, 12, 0.5f);
    add_plain_residuals(net, 12);
    add_max_pool(net, 12, 2);
    add_conv(net, 12, 9, 3, 1, 1);
    add_bias(net, 9);
    add_max_pool(net, 9, 3);
    add_conv(net, 9, 10, (side / 2 - 3) / 2 + 1, 1, 1);
    net->layer[net->layers - 1].unpadded = 1;
    add_bias(net, 10);
    add_relu(net, 10, 0);
    net->outputs = 10;
}

/* --- nets of one layer ---------------------------------------------------------------------------------------------- */

const char *const kind_names[] = {"conv", "batch norm", "swish",   "squeeze and excitation", "add", "pool",
                                  "bias", "relu",       "max pool"};

const size_t batch_sizes[2] = {1, 7};

void on_all_sides(struct net *net, net_check *check)
{
    static const int sides[] = {1, 2, 5, 7, 12, 33};
    for (size_t s = 0; s < sizeof sides / sizeof *sides; s++)
        for (size_t b = 0; b < 2; b++)
            for (int padding = 0; padding < 2; padding++) {
                net->side = sides[s];
                net->padding = padding ? PADDING_SAME : PADDING_SYMMETRIC;
                check(net, batch_sizes[b]);
            }
}

void each_convolution(net_check *check)
{
    static const struct {
        int in, out, kernel, stride, groups;
    } cases[] = {
        {1,  8,  3, 2, 1 },
        {3,  32, 3, 2, 1 },
        {3,  5,  3, 1, 1 },
        {16, 96, 1, 1, 1 },
        {24, 7,  1, 1, 1 },
        {40, 24, 1, 2, 1 },
        {6,  10, 5, 2, 1 },
        {6,  10, 5, 1, 1 },
        {32, 32, 3, 1, 32},
        {20, 20, 3, 2, 20},
        {24, 24, 5, 1, 24},
        {48, 48, 5, 2, 48},
        {7,  7,  5, 2, 7 },
        {1,  1,  3, 1, 1 },
    };
    struct net net;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin_net(&net, kind_names[LAYER_CONV], cases[i].in, 1, PADDING_SYMMETRIC);
        add_conv(&net, cases[i].in, cases[i].out, cases[i].kernel, cases[i].stride, cases[i].groups);
        on_all_sides(&net, check);
    }
}

void each_other_layer(net_check *check)
{
    static const enum layer_kind kinds[] = {LAYER_BATCH_NORM, LAYER_SWISH, LAYER_POOL, LAYER_BIAS, LAYER_RELU};
    static const int channels[] = {1, 3, 16, 37};
    struct net net;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t c = 0; c < 4; c++) {
            begin_net(&net, kind_names[kinds[k]], channels[c], 1, PADDING_SYMMETRIC);
            add_layer(&net, kinds[k], channels[c], channels[c]);
            on_all_sides(&net, check);
        }
}

void each_squeeze_and_excitation(net_check *check)
{
    static const int shapes[][2] = {
        {4,   1},
        {1,   1},
        {37,  3},
        {96,  4},
        {144, 6}
    };
    struct net net;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        begin_net(&net, kind_names[LAYER_SE], shapes[i][0], 1, PADDING_SYMMETRIC);
        add_layer(&net, LAYER_SE, shapes[i][0], shapes[i][0])->reduced = shapes[i][1];
        on_all_sides(&net, check);
    }
}

void each_layer_without_norm(net_check *check)
{
    static const int channels[] = {1, 5, 16};
    struct net net;
    for (size_t c = 0; c < 3; c++)
        for (size_t b = 0; b < 2; b++)
            for (int side = 2; side <= 9; side++) {
                begin_net(&net, "relu6", channels[c], side, PADDING_SAME);
                add_layer(&net, LAYER_BIAS, channels[c], channels[c]);
                add_layer(&net, LAYER_RELU, channels[c], channels[c])->ceiling = 0.6f;
                check(&net, batch_sizes[b]);
                for (int kernel = 2; kernel <= (side < 3 ? side : 3); kernel++) {
                    begin_net(&net, "max pool", channels[c], side, PADDING_SAME);
                    add_layer(&net, LAYER_BIAS, channels[c], channels[c]);
                    struct layer *pool = add_layer(&net, LAYER_MAX_POOL, channels[c], channels[c]);
                    pool->kernel = kernel;
                    pool->stride = 2;
                    check(&net, batch_sizes[b]);
                }
                begin_net(&net, "dense", channels[c], side, PADDING_SAME);
                add_conv(&net, channels[c], 11, side, 1, 1);
                net.layer[0].unpadded = 1;
                check(&net, batch_sizes[b]);
            }
}
