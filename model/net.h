/*
 * A convolutional network as a table of layers: the description a backend compiles, and nothing that runs.
 *
 * Tensors are channels-last. Each layer reads the output of the layer before it; LAYER_ADD also reads the
 * output of layer `from`. Parameters are one float array in table order, each layer's tensors in the order
 * given below, which is also the order of timm's state_dict, so names and offsets can be derived from the
 * table.
 */
#ifndef TRIAGE_MODEL_NET_H
#define TRIAGE_MODEL_NET_H

#include <stddef.h>
#include <stdint.h>

enum layer_kind {
    LAYER_CONV,       /* parameters: weight [out][in / groups][kernel][kernel]; no bias */
    LAYER_BATCH_NORM, /* weight, bias, running_mean, running_var, each [out] */
    LAYER_SWISH,      /* x * sigmoid(x) */
    LAYER_SE,         /* squeeze and excitation: conv_reduce weight [reduced][in], bias; conv_expand weight
                         [in][reduced], bias */
    LAYER_ADD,        /* plus the output of layer `from` */
    LAYER_POOL,       /* global mean over height and width */
    LAYER_BIAS,       /* plus bias [out] */
    LAYER_RELU,       /* max(x, 0), and no more than `ceiling` where that is above 0 (6: ReLU6) */
    LAYER_MAX_POOL,   /* largest of each kernel x kernel square, `stride` apart, inside the image */
};

enum padding {
    PADDING_SYMMETRIC, /* timm: ((stride - 1) + (kernel - 1)) / 2 on each side */
    PADDING_SAME,      /* TensorFlow 'same': the odd pixel goes behind */
};

struct layer {
    enum layer_kind kind;
    char name[48]; /* prefix of its tensors: "blocks.1.0.conv_dw" */
    int in, out;   /* channels */
    int kernel, stride, groups;
    int unpadded;  /* LAYER_CONV: no padding; with kernel = side of the input, a dense layer */
    int reduced;   /* LAYER_SE: width of the bottleneck */
    int from;      /* LAYER_ADD: index of the layer whose output is added */
    float ceiling; /* LAYER_RELU */
    float drop;    /* LAYER_ADD: probability of stochastic depth in training; 0 = none */
};

#define NET_LAYERS_MAX 256

struct net {
    char name[48];
    int channels; /* of the input */
    int side;     /* input height = width in pixels */
    int outputs;  /* embedding length */
    enum padding padding;
    float epsilon;  /* of batch norm */
    float momentum; /* of its running statistics: share of the new batch (PyTorch's convention) */
    int layers;
    struct layer layer[NET_LAYERS_MAX];
};

/* EfficientNet-B0 up to global pooling (Tan & Le 2019), timm conventions: 1280 outputs; 4,048,988 parameters
 * with 1 channel. */
void net_efficientnet_b0(int channels, int side, struct net *ret_net);

/* EfficientNet-Lite0 (Google 2020; timm's efficientnet_lite0): as B0 without squeeze-and-excitation, with ReLU6 for swish;
 * 1280 outputs, 3,371,008 trainable parameters with 3 channels. */
void net_efficientnet_lite0(int channels, int side, struct net *ret_net);

/* The TensorFlow originals of both: padding 'same', batch-norm epsilon 1e-3 and momentum 0.01. */
void net_use_tensorflow_conventions(struct net *net);

/*
 * The network of Walmsley et al. 2020 (arXiv 1905.07424) up to its first dense layer: 128 outputs. With its dropout of 0.5 and a
 * linear head of 2 it has 1,335,394 parameters at 128 pixels. `side` is a multiple of 16, the original's channel count is 1.
 * The original fed pixels of 0..255, this program 0..1; and it flattened channels last before the dense layer, so that its
 * kernel[(row * (side / 16) + column) * 128 + in][out] is our dense1.weight[out][in][row][column].
 */
void net_walmsley2020(int channels, int side, struct net *ret_net);

/*
 * The net of this name: efficientnet_b0, tf_efficientnet_b0, efficientnet_lite0, tf_efficientnet_lite0, walmsley2020.
 * ERROR_INPUT listing them for any other, or for a side the net cannot have.
 */
int net_by_name(const char *name, int channels, int side, struct net *ret_net);

/*
 * Stochastic depth (Huang et al. 2016) by timm's and Keras' rule: block i of n is dropped with probability rate * i / n; every
 * block of the EfficientNets has one depthwise layer. No effect on nets without residual blocks, nor on compile().
 */
void net_set_stochastic_depth(struct net *net, double rate);

/* Floats of all parameters, batch-norm statistics included. */
size_t net_parameter_count(const struct net *net);

/* Floats of one layer's parameters. */
size_t layer_parameter_count(const struct layer *layer);

/* Output height = width of a convolution on `side` pixels, and the pixels of padding in front. */
int layer_output_side(const struct net *net, const struct layer *layer, int side, int *ret_before);

/* Convolutions N(0, sqrt(2 / (kernel^2 * out / groups))), those with a bias Glorot's U(-1, 1) * sqrt(6 / (fan in + fan out))
 * (Glorot & Bengio 2010, TensorFlow's default) and bias 0; gamma 1 (0.2 where a residual branch ends), beta 0, mean 0,
 * variance 1; from the counter RNG. */
void net_random_parameters(const struct net *net, uint64_t seed, float *parameters);

/* One tensor of the parameter array, under timm's name. */
struct net_tensor {
    char name[80];
    int shape[4];
    int rank;
    size_t offset, count; /* in floats */
};

/* The tensors in order. `tensor` may be NULL to count. Returns their number. */
int net_tensors(const struct net *net, struct net_tensor *tensor, int limit);

#endif
