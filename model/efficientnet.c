/* EfficientNet-B0 (Tan & Le 2019, arXiv 1905.11946) and its Lite0 variant as one table of stages, spelt out into layers with
 * timm's names. */
#include "model/net.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Inverted residual blocks: `repeats` of them, the first with `stride`; `expand` is the widening of the
 * input. */
static const struct stage {
    int repeats, kernel, stride, expand, out;
} stages[] = {
    {1, 3, 1, 1, 16 },
    {2, 3, 2, 6, 24 },
    {2, 5, 2, 6, 40 },
    {3, 3, 2, 6, 80 },
    {3, 5, 1, 6, 112},
    {4, 5, 2, 6, 192},
    {1, 3, 1, 6, 320},
};

static struct layer *add(struct net *net, enum layer_kind kind, const char *prefix, const char *name, int in, int out)
{
    assert(net->layers < NET_LAYERS_MAX);
    struct layer *layer = &net->layer[net->layers++];
    *layer = (struct layer){.kind = kind, .in = in, .out = out, .kernel = 1, .stride = 1, .groups = 1};
    snprintf(layer->name, sizeof layer->name, "%s%s", prefix, name);
    return layer;
}

static void add_conv(struct net *net, const char *prefix, const char *name, int in, int out, int kernel, int stride,
                     int groups)
{
    struct layer *layer = add(net, LAYER_CONV, prefix, name, in, out);
    layer->kernel = kernel;
    layer->stride = stride;
    layer->groups = groups;
}

#define RELU6 6.0f

static void add_norm(struct net *net, const char *prefix, const char *name, int channels, int active, int lite)
{
    add(net, LAYER_BATCH_NORM, prefix, name, channels, channels);
    if (active)
        add(net, lite ? LAYER_RELU : LAYER_SWISH, prefix, "act", channels, channels)->ceiling = lite ? RELU6 : 0;
}

static void add_block(struct net *net, const struct stage *stage, const char *prefix, int in, int stride, int lite)
{
    int middle = in * stage->expand, start = net->layers - 1, expanded = stage->expand > 1;
    if (expanded) {
        add_conv(net, prefix, "conv_pw", in, middle, 1, 1, 1);
        add_norm(net, prefix, "bn1", middle, 1, lite);
    }
    add_conv(net, prefix, "conv_dw", middle, middle, stage->kernel, stride, middle);
    add_norm(net, prefix, expanded ? "bn2" : "bn1", middle, 1, lite);
    if (!lite)
        add(net, LAYER_SE, prefix, "se", middle, middle)->reduced = in / 4;
    add_conv(net, prefix, expanded ? "conv_pwl" : "conv_pw", middle, stage->out, 1, 1, 1);
    add_norm(net, prefix, expanded ? "bn3" : "bn2", stage->out, 0, lite);
    if (stride == 1 && in == stage->out)
        add(net, LAYER_ADD, prefix, "add", stage->out, stage->out)->from = start;
}

static void build(const char *name, int channels, int side, int lite, struct net *net)
{
    memset(net, 0, sizeof *net);
    snprintf(net->name, sizeof net->name, "%s", name);
    net->channels = channels;
    net->side = side;
    net->outputs = 1280;
    net->padding = PADDING_SYMMETRIC;
    net->epsilon = 1e-5f;
    net->momentum = 0.1f;
    add_conv(net, "", "conv_stem", channels, 32, 3, 2, 1);
    add_norm(net, "", "bn1", 32, 1, lite);
    int in = 32;
    for (int s = 0; s < (int)(sizeof stages / sizeof *stages); s++)
        for (int b = 0; b < stages[s].repeats; b++) {
            char prefix[24];
            snprintf(prefix, sizeof prefix, "blocks.%d.%d.", s, b);
            add_block(net, &stages[s], prefix, in, b ? 1 : stages[s].stride, lite);
            in = stages[s].out;
        }
    add_conv(net, "", "conv_head", in, 1280, 1, 1, 1);
    add_norm(net, "", "bn2", 1280, 1, lite);
    add(net, LAYER_POOL, "", "global_pool", 1280, 1280);
}

void net_efficientnet_b0(int channels, int side, struct net *ret_net)
{
    build("efficientnet_b0", channels, side, 0, ret_net);
}

void net_efficientnet_lite0(int channels, int side, struct net *ret_net)
{
    build("efficientnet_lite0", channels, side, 1, ret_net);
}

void net_use_tensorflow_conventions(struct net *net)
{
    char name[sizeof net->name];
    memcpy(name, net->name, sizeof name);
    snprintf(net->name, sizeof net->name, "tf_%s", name);
    net->padding = PADDING_SAME;
    net->epsilon = 1e-3f;
    net->momentum = 0.01f;
}
