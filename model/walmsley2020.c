/* The network of Walmsley et al. 2020 (arXiv 1905.07424) as a table of layers; see net.h. */
#include "model/net.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int out, pooled; /* followed by 2 x 2 max pooling */
} convolutions[] = {
    {"conv1",  32,  0},
    {"conv1b", 32,  1},
    {"conv2",  64,  0},
    {"conv2b", 64,  1},
    {"conv3",  128, 1},
    {"conv4",  128, 1},
};

#define DENSE 128

static struct layer *add(struct net *net, enum layer_kind kind, const char *name, int in, int out, int kernel,
                         int stride)
{
    assert(net->layers < NET_LAYERS_MAX);
    struct layer *layer = &net->layer[net->layers++];
    *layer = (struct layer){.kind = kind, .in = in, .out = out, .kernel = kernel, .stride = stride, .groups = 1};
    snprintf(layer->name, sizeof layer->name, "%s", name);
    return layer;
}

void net_walmsley2020(int channels, int side, struct net *ret_net)
{
    struct net *net = ret_net;
    int in = channels, at = side;
    memset(net, 0, sizeof *net);
    snprintf(net->name, sizeof net->name, "walmsley2020");
    net->channels = channels;
    net->side = side;
    net->outputs = DENSE;
    net->padding = PADDING_SYMMETRIC; /* the same as 'same' for 3 x 3 with stride 1 */
    net->epsilon = 1e-3f;             /* it has no batch norm */
    net->momentum = 0.01f;
    for (size_t i = 0; i < sizeof convolutions / sizeof *convolutions; i++) {
        int out = convolutions[i].out;
        add(net, LAYER_CONV, convolutions[i].name, in, out, 3, 1);
        add(net, LAYER_BIAS, convolutions[i].name, out, out, 1, 1);
        add(net, LAYER_RELU, "relu", out, out, 1, 1);
        if (convolutions[i].pooled) {
            add(net, LAYER_MAX_POOL, "pool", out, out, 2, 2);
            at /= 2;
        }
        in = out;
    }
    add(net, LAYER_CONV, "dense1", in, DENSE, at, 1)->unpadded = 1;
    add(net, LAYER_BIAS, "dense1", DENSE, DENSE, 1, 1);
    add(net, LAYER_RELU, "relu", DENSE, DENSE, 1, 1);
}
