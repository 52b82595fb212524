/* See net_steps.h. */
#include "gpu/net_steps.h"
#include "gpu/values.h"

int net_layer_check(const struct net *net, const struct layer *layer)
{
    if (layer->in > CHANNELS_MAX || layer->out > CHANNELS_MAX)
        return error_set(ERROR_LIMIT, "layer %s of %s is wider than %d channels", layer->name, net->name, CHANNELS_MAX);
    if (layer->kind != LAYER_CONV || layer->groups == 1)
        return 0;
    int known = (layer->kernel == 3 || layer->kernel == 5) && (layer->stride == 1 || layer->stride == 2);
    if (layer->groups != layer->in || layer->in != layer->out || !known)
        return error_set(
            ERROR_INPUT,
            "layer %s of %s: the cuda backend knows convolutions in one group, and depthwise ones of 3 x 3 and 5 x 5 "
            "with stride 1 and 2: use the cpu backend",
            layer->name, net->name);
    return 0;
}

int net_layer_shared(const struct net *net, int index)
{
    for (int i = 0; i < net->layers; i++)
        if (net->layer[i].kind == LAYER_ADD && net->layer[i].from == index)
            return 1;
    return 0;
}

/* Room for `bytes` in the weights. */
static size_t take(struct net_steps *steps, size_t bytes)
{
    size_t offset = steps->weights_bytes;
    steps->weights_bytes += (bytes + 255) / 256 * 256;
    return offset;
}

static float *floats_at(const struct net_steps *steps, size_t offset)
{
    return (float *)(steps->weights + offset);
}

/* gamma and beta of the layer that is folded into a convolution, or runs alone. */
static void factors(const struct net *net, const struct layer *layer, const float *parameters, float *gamma,
                    float *beta)
{
    int channels = layer->out;
    for (int c = 0; c < channels; c++) {
        int norm = layer->kind == LAYER_BATCH_NORM;
        gamma[c] = norm ? parameters[c] / sqrtf(parameters[3 * channels + c] + net->epsilon) : 1;
        beta[c] = norm ? parameters[channels + c] - parameters[2 * channels + c] * gamma[c] : parameters[c];
    }
}

/* weights [out][in / groups][taps] times gamma[out], in the order the step wants. */
static void place_weights(struct net_steps *steps, struct net_step *step, const float *weights, const float *gamma,
                          int bfloat16_weights)
{
    const struct layer *layer = step->layer;
    size_t in = (size_t)(layer->in / layer->groups), out = (size_t)layer->out,
           taps = (size_t)(layer->kernel * layer->kernel);
    step->weights = take(steps, in * out * taps * sizeof(float));
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < in; i++)
            for (size_t t = 0; t < taps; t++) {
                float value = weights[(o * in + i) * taps + t] * (gamma ? gamma[o] : 1);
                size_t at = step->kind == STEP_DEPTHWISE ? t * out + o : (o * taps + t) * in + i;
                if (bfloat16_weights)
                    store((struct bfloat16 *)(steps->weights + step->weights) + at, value);
                else
                    store(floats_at(steps, step->weights) + at, value);
            }
}

static void place_bias(struct net_steps *steps, struct net_step *step, const float *beta, int bfloat16_bias)
{
    int channels = step->layer->out;
    step->bias = take(steps, (size_t)channels * sizeof(float));
    for (int c = 0; c < channels; c++)
        if (bfloat16_bias)
            store((struct bfloat16 *)(steps->weights + step->bias) + c, beta[c]);
        else
            store(floats_at(steps, step->bias) + c, beta[c]);
}

static int is_activation(const struct layer *layer)
{
    return layer->kind == LAYER_SWISH || layer->kind == LAYER_RELU;
}

static void set_activation(struct net_step *step, const struct layer *layer)
{
    step->activation = layer->kind == LAYER_SWISH ? ACTIVATION_SWISH : ACTIVATION_RELU;
    step->ceiling = layer->ceiling;
}

/* Whether the layer after `index` may become part of its step. */
static const struct layer *follower(const struct net *net, int index)
{
    return index + 1 < net->layers && !net_layer_shared(net, index) ? &net->layer[index + 1] : NULL;
}

/* Convolution, and what follows: norm or bias, then activation. Returns the last layer taken. */
static int add_convolution(struct net_steps *steps, struct net_step *step, int index, const float *parameters,
                           int bfloat16)
{
    const struct net *net = &steps->net;
    const struct layer *layer = step->layer, *next = follower(net, index);
    float gamma[CHANNELS_MAX], beta[CHANNELS_MAX];
    int folded = next && (next->kind == LAYER_BATCH_NORM || next->kind == LAYER_BIAS);
    step->kind = net_layer_depthwise(layer) ? STEP_DEPTHWISE : net_layer_pointwise(layer) ? STEP_GEMM : STEP_DENSE;
    bfloat16 = bfloat16 && step->kind == STEP_GEMM;
    if (folded)
        factors(net, next, parameters + layer_parameter_count(layer), gamma, beta);
    place_weights(steps, step, parameters, folded ? gamma : NULL, bfloat16);
    if (folded) {
        place_bias(steps, step, beta, bfloat16);
        next = follower(net, ++index);
    }
    if (next && is_activation(next)) {
        set_activation(step, next);
        index++;
    }
    return index;
}

static int add_affine(struct net_steps *steps, struct net_step *step, int index, const float *parameters)
{
    float gamma[CHANNELS_MAX], beta[CHANNELS_MAX];
    const struct layer *next = follower(&steps->net, index);
    step->kind = STEP_AFFINE;
    if (is_activation(step->layer)) {
        set_activation(step, step->layer);
        return index;
    }
    factors(&steps->net, step->layer, parameters, gamma, beta);
    step->weights = take(steps, (size_t)step->layer->out * sizeof(float));
    memcpy(floats_at(steps, step->weights), gamma, (size_t)step->layer->out * sizeof(float));
    place_bias(steps, step, beta, 0);
    if (next && is_activation(next)) {
        set_activation(step, next);
        index++;
    }
    return index;
}

/* Returns the last layer taken. */
static int add_step(struct net_steps *steps, int index, const float *parameters, int bfloat16)
{
    const struct layer *layer = &steps->net.layer[index];
    struct net_step *step = &steps->step[steps->steps++];
    size_t bytes = layer_parameter_count(layer) * sizeof(float);
    *step = (struct net_step){.layer = layer, .source = index, .other = -1, .side = steps->side[index]};
    step->weights = step->bias = NO_OFFSET;
    step->output_side = layer_output_side(&steps->net, layer, step->side, &step->before);
    switch (layer->kind) {
    case LAYER_CONV:
        return add_convolution(steps, step, index, parameters, bfloat16);
    case LAYER_BATCH_NORM:
    case LAYER_BIAS:
    case LAYER_SWISH:
    case LAYER_RELU:
        return add_affine(steps, step, index, parameters);
    case LAYER_SE:
        step->kind = STEP_SE;
        step->weights = take(steps, bytes);
        memcpy(steps->weights + step->weights, parameters, bytes);
        return index;
    case LAYER_ADD:
        step->kind = STEP_ADD;
        step->other = layer->from + 1;
        return index;
    case LAYER_POOL:
        step->kind = STEP_POOL;
        return index;
    case LAYER_MAX_POOL:
        step->kind = STEP_MAX_POOL;
        return index;
    }
    return index;
}

int net_steps_build(const struct net *net, const float *parameters, int bfloat16, struct net_steps **ret_steps)
{
    size_t bound = net_parameter_count(net) * sizeof(float);
    for (int i = 0; i < net->layers; i++) {
        RETURN_IF(net_layer_check(net, &net->layer[i]));
        bound += 3 * (256 + (size_t)net->layer[i].out * sizeof(float));
    }
    struct net_steps *steps = (struct net_steps *)calloc(1, sizeof *steps);
    if (!steps || !(steps->weights = (char *)calloc(1, bound + 256))) {
        free(steps);
        return error_set(ERROR_SYSTEM, "out of memory for the weights of %s", net->name);
    }
    steps->net = *net;
    steps->side[0] = net->side;
    steps->channels[0] = net->channels;
    for (int i = 0; i < net->layers; i++) {
        int before;
        steps->side[i + 1] = layer_output_side(net, &net->layer[i], steps->side[i], &before);
        steps->channels[i + 1] = net->layer[i].out;
    }
    for (int i = 0; i < net->layers; i++) {
        int first = i;
        i = add_step(steps, i, parameters, bfloat16);
        steps->step[steps->steps - 1].target = i + 1;
        for (int taken = first; taken <= i; taken++)
            parameters += layer_parameter_count(&net->layer[taken]);
    }
    *ret_steps = steps;
    return 0;
}

void net_steps_free(struct net_steps *steps)
{
    if (steps)
        free(steps->weights);
    free(steps);
}
