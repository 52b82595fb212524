/*
 * Nets on oneDNN 2.x. A net becomes a list of steps on channels-last tensors: convolutions (batch norm folded in) by oneDNN,
 * squeeze-and-excitation, additions, pooling and swish by loops of its own (net_kernels.h). Each worker thread has its own buffers,
 * stream and scratchpad and takes whole images, which on processors beats a team of threads on one batch. Not for training.
 */
#include "cpu/net.h"
#include "base/error.h"
#include "cpu/net_kernels.h"

#include <assert.h>
#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum step_kind { STEP_CONV, STEP_NORM, STEP_SWISH, STEP_SE, STEP_ADD, STEP_POOL, STEP_RELU, STEP_MAX_POOL };

struct step {
    enum step_kind kind;
    const struct layer *layer;
    int in_side, out_side;
    size_t out_floats;     /* of one image */
    dnnl_primitive_t conv; /* STEP_CONV */
    int swish;             /* STEP_CONV: follows, 2 = and squeeze-and-excitation after it, which wants the sums */
    dnnl_memory_desc_t source, target, weights_layout, bias_layout, scratch_layout;
    dnnl_memory_t weights, bias;
    float *values; /* STEP_SE: the layer's parameters, expand weights transposed to [reduced][in] */
    int source_slot, target_slot, add_slot; /* which buffers of the worker it reads and writes */
};

#define SLOTS        4    /* buffers per worker: two to alternate, two for residuals */
#define CHANNELS_MAX 4096 /* of one layer */
#define SMALL_FLOATS (4 * CHANNELS_MAX)

struct lane { /* what one worker thread owns */
    dnnl_stream_t stream;
    void *slot[SLOTS]; /* of the plan's precision */
    float *wide[2];    /* PRECISION_BF16: for the steps that have loops in float only */
    void *scratch;
    float *small; /* [SMALL_FLOATS] for squeeze-and-excitation and pooling */
};

struct plan {
    struct workers *workers;
    struct net net;
    enum precision precision;
    const struct net_kernels *kernels;
    dnnl_engine_t engine;
    struct step step[NET_LAYERS_MAX];
    int steps, output_slot;
    size_t slot_floats, scratch_bytes;
    struct lane *lane;
    int lanes;
    int status; /* first oneDNN failure of a run */
};

static int check(dnnl_status_t status, const char *what)
{
    return status == dnnl_success ? 0 : error_set(ERROR_SYSTEM, "oneDNN cannot %s (status %d)", what, (int)status);
}

/* --- compiling ---------------------------------------------------------------------------------------------------- */

/* scale[c] = gamma / sqrt(variance + epsilon), shift[c] = beta - mean * scale. */
static void norm_factors(const float *norm, int channels, float epsilon, float *scale, float *shift)
{
    const float *gamma = norm, *beta = norm + channels, *mean = norm + 2 * channels, *variance = norm + 3 * channels;
    for (int c = 0; c < channels; c++) {
        scale[c] = gamma[c] / sqrtf(variance[c] + epsilon);
        shift[c] = beta[c] - mean[c] * scale[c];
    }
}

/* ReLU is the convolution's post-op; swish is not: oneDNN's takes longer than a pass of its own (docs/measurements.md). */
static void append_relu(dnnl_post_ops_t operations, const struct layer *activation)
{
    if (activation->ceiling > 0)
        dnnl_post_ops_append_eltwise(operations, 1.0f, dnnl_eltwise_clip, 0.0f, activation->ceiling);
    else
        dnnl_post_ops_append_eltwise(operations, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f);
}

/* Batch norm, or a bias: scale 1. */
static void follower_factors(const struct layer *follower, const float *parameters, float epsilon, float *scale,
                             float *shift)
{
    if (follower->kind == LAYER_BATCH_NORM) {
        norm_factors(parameters, follower->out, epsilon, scale, shift);
        return;
    }
    for (int c = 0; c < follower->out; c++) {
        scale[c] = 1;
        shift[c] = parameters[c];
    }
}

static int conv_descriptor(struct plan *plan, struct step *step, const struct layer *activation, int with_bias,
                           dnnl_primitive_desc_t *ret_descriptor)
{
    const struct layer *layer = step->layer;
    int before, out_side = layer_output_side(&plan->net, layer, step->in_side, &before);
    int after = (out_side - 1) * layer->stride + layer->kernel - step->in_side - before;
    dnnl_dims_t source = {1, layer->in, step->in_side, step->in_side};
    dnnl_dims_t target = {1, layer->out, out_side, out_side};
    dnnl_dims_t weights = {layer->groups, layer->out / layer->groups, layer->in / layer->groups, layer->kernel,
                           layer->kernel};
    dnnl_dims_t bias = {layer->out}, strides = {layer->stride, layer->stride};
    dnnl_dims_t low = {before, before}, high = {after > 0 ? after : 0, after > 0 ? after : 0};
    dnnl_memory_desc_t source_layout, target_layout, weights_layout;
    dnnl_convolution_desc_t convolution;
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t operations;
    int grouped = layer->groups > 1;
    dnnl_data_type_t type = plan->precision == PRECISION_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_init_by_tag(&source_layout, 4, source, type, dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(&target_layout, 4, target, type, dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(&weights_layout, grouped ? 5 : 4, grouped ? weights : weights + 1, type,
                                 dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&step->bias_layout, 1, bias, dnnl_f32, dnnl_x);
    dnnl_status_t status = dnnl_convolution_forward_desc_init(
        &convolution, dnnl_forward_inference, dnnl_convolution_auto, &source_layout, &weights_layout,
        with_bias ? &step->bias_layout : NULL, &target_layout, strides, low, high);
    dnnl_primitive_attr_create(&attributes);
    dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    if (activation && activation->kind == LAYER_RELU) {
        dnnl_post_ops_create(&operations);
        append_relu(operations, activation);
        dnnl_primitive_attr_set_post_ops(attributes, operations);
        dnnl_post_ops_destroy(operations);
    }
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(ret_descriptor, &convolution, attributes, plan->engine, NULL);
    dnnl_primitive_attr_destroy(attributes);
    step->out_side = out_side;
    return check(status, "compile a convolution");
}

/* Puts weights[out][in / groups][k][k] times scale[out] into the layout the convolution wants. */
static int place_weights(struct plan *plan, struct step *step, const float *weights, const float *scale)
{
    const struct layer *layer = step->layer;
    size_t count = layer_parameter_count(layer), per_output = count / (size_t)layer->out;
    int grouped = layer->groups > 1;
    dnnl_dims_t dims = {layer->groups, layer->out / layer->groups, layer->in / layer->groups, layer->kernel,
                        layer->kernel};
    dnnl_memory_desc_t plain;
    dnnl_memory_t source = NULL;
    dnnl_primitive_desc_t descriptor = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_stream_t stream = NULL;
    float *scaled = malloc(count * sizeof *scaled);
    if (!scaled)
        return error_set(ERROR_SYSTEM, "out of memory for weights");
    for (size_t i = 0; i < count; i++)
        scaled[i] = weights[i] * (scale ? scale[i / per_output] : 1.0f);
    dnnl_memory_desc_init_by_tag(&plain, grouped ? 5 : 4, grouped ? dims : dims + 1, dnnl_f32,
                                 grouped ? dnnl_goihw : dnnl_oihw);
    dnnl_status_t status = dnnl_memory_create(&source, &plain, plan->engine, scaled);
    if (status == dnnl_success)
        status = dnnl_memory_create(&step->weights, &step->weights_layout, plan->engine, DNNL_MEMORY_ALLOCATE);
    if (status == dnnl_success)
        status = dnnl_reorder_primitive_desc_create(&descriptor, &plain, plan->engine, &step->weights_layout,
                                                    plan->engine, NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&reorder, descriptor);
    if (status == dnnl_success)
        status = dnnl_stream_create(&stream, plan->engine, dnnl_stream_default_flags);
    if (status == dnnl_success) {
        dnnl_exec_arg_t arguments[] = {
            {DNNL_ARG_FROM, source       },
            {DNNL_ARG_TO,   step->weights}
        };
        status = dnnl_primitive_execute(reorder, stream, 2, arguments);
        dnnl_stream_wait(stream);
    }
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(descriptor);
    dnnl_stream_destroy(stream);
    dnnl_memory_destroy(source);
    free(scaled);
    return check(status, "place weights");
}

/* One convolution; `follower` (batch norm or bias, may be NULL) is folded in, `activation` (may be NULL) is the post-op. */
static int compile_conv(struct plan *plan, struct step *step, const float *weights, const struct layer *follower,
                        const float *norm, const struct layer *activation)
{
    const struct layer *layer = step->layer;
    float scale[CHANNELS_MAX], shift[CHANNELS_MAX];
    dnnl_primitive_desc_t descriptor = NULL;
    int result = conv_descriptor(plan, step, activation, norm != NULL, &descriptor);
    if (result)
        return result;
    step->source = *dnnl_primitive_desc_query_md(descriptor, dnnl_query_src_md, 0);
    step->target = *dnnl_primitive_desc_query_md(descriptor, dnnl_query_dst_md, 0);
    step->weights_layout = *dnnl_primitive_desc_query_md(descriptor, dnnl_query_weights_md, 0);
    step->scratch_layout = *dnnl_primitive_desc_query_md(descriptor, dnnl_query_scratchpad_md, 0);
    size_t scratch_bytes = dnnl_memory_desc_get_size(&step->scratch_layout);
    if (scratch_bytes > plan->scratch_bytes)
        plan->scratch_bytes = scratch_bytes;
    result = check(dnnl_primitive_create(&step->conv, descriptor), "create a convolution");
    dnnl_primitive_desc_destroy(descriptor);
    if (norm)
        follower_factors(follower, norm, plan->net.epsilon, scale, shift);
    if (!result)
        result = place_weights(plan, step, weights, norm ? scale : NULL);
    if (!result && norm) {
        void *bias;
        result = check(dnnl_memory_create(&step->bias, &step->bias_layout, plan->engine, DNNL_MEMORY_ALLOCATE),
                       "make a bias");
        if (!result && dnnl_memory_get_data_handle(step->bias, &bias) == dnnl_success)
            memcpy(bias, shift, (size_t)layer->out * sizeof *shift);
    }
    return result;
}

/* Squeeze-and-excitation keeps its parameters; the second matrix transposed, so that both run along memory.
 */
static int compile_se(struct step *step, const float *parameters)
{
    size_t in = (size_t)step->layer->in, reduced = (size_t)step->layer->reduced;
    size_t count = layer_parameter_count(step->layer);
    step->values = malloc(count * sizeof *step->values);
    if (!step->values)
        return error_set(ERROR_SYSTEM, "out of memory for weights");
    memcpy(step->values, parameters, count * sizeof *parameters);
    const float *expand = parameters + in * reduced + reduced;
    float *transposed = step->values + in * reduced + reduced;
    for (size_t c = 0; c < in; c++)
        for (size_t r = 0; r < reduced; r++)
            transposed[r * in + c] = expand[c * reduced + r];
    return 0;
}

/* The output of this layer is needed again by a later addition. */
static int is_kept(const struct net *net, int layer)
{
    for (int i = layer + 2; i < net->layers; i++)
        if (net->layer[i].kind == LAYER_ADD && net->layer[i].from == layer)
            return 1;
    return 0;
}

/* Buffers: 0 and 1 alternate; 2 and 3 hold residuals that a later addition reads (two, as one addition's
 * output may be the next one's input). */
static void assign_slots(struct plan *plan)
{
    int current = 0, kept_layer = -1, kept = 2;
    for (int i = 0; i < plan->steps; i++) {
        struct step *step = &plan->step[i];
        int index = (int)(step->layer - plan->net.layer),
            in_place = step->kind == STEP_SE || step->kind == STEP_SWISH || step->kind == STEP_RELU ||
                       step->kind == STEP_NORM || step->kind == STEP_ADD;
        step->source_slot = current;
        step->add_slot = kept_layer >= 0 ? kept : 0;
        if (is_kept(&plan->net, index)) {
            kept = kept == 2 ? 3 : 2;
            kept_layer = index;
            step->target_slot = kept;
        } else
            step->target_slot = in_place && current < 2 ? current : current == 0 ? 1 : 0;
        current = step->target_slot;
    }
    plan->output_slot = current;
}

static int open_lanes(struct plan *plan)
{
    plan->lanes = workers_count(plan->workers);
    plan->lane = calloc((size_t)plan->lanes, sizeof *plan->lane);
    if (!plan->lane)
        return error_set(ERROR_SYSTEM, "out of memory for a plan");
    for (int i = 0; i < plan->lanes; i++) {
        struct lane *lane = &plan->lane[i];
        int result = check(dnnl_stream_create(&lane->stream, plan->engine, dnnl_stream_default_flags), "make a stream");
        if (result)
            return result;
        for (int s = 0; s < SLOTS; s++)
            lane->slot[s] = aligned_alloc(64, (plan->slot_floats * plan->kernels->value_bytes + 127) / 64 * 64);
        for (int w = 0; w < 2 && plan->precision == PRECISION_BF16; w++)
            lane->wide[w] = malloc(plan->slot_floats * sizeof(float));
        lane->scratch = aligned_alloc(64, (plan->scratch_bytes + 127) / 64 * 64);
        lane->small = malloc(SMALL_FLOATS * sizeof *lane->small);
        for (int s = 0; s < SLOTS; s++)
            if (!lane->slot[s] || !lane->scratch || !lane->small ||
                (plan->precision == PRECISION_BF16 && (!lane->wide[0] || !lane->wide[1])))
                return error_set(ERROR_SYSTEM, "out of memory for the buffers of compute thread %d", i);
    }
    return 0;
}

static enum step_kind step_kind_of(enum layer_kind kind)
{
    static const enum step_kind kinds[] = {
        [LAYER_CONV] = STEP_CONV, [LAYER_BATCH_NORM] = STEP_NORM, [LAYER_SWISH] = STEP_SWISH,
        [LAYER_SE] = STEP_SE,     [LAYER_ADD] = STEP_ADD,         [LAYER_POOL] = STEP_POOL,
        [LAYER_BIAS] = STEP_NORM, [LAYER_RELU] = STEP_RELU,       [LAYER_MAX_POOL] = STEP_MAX_POOL,
    };
    return kinds[kind];
}

static int compile_standing_norm(struct plan *plan, struct step *step, const float *parameters)
{
    int channels = step->layer->out;
    step->values = malloc(2 * (size_t)channels * sizeof *step->values);
    if (!step->values)
        return error_set(ERROR_SYSTEM, "out of memory for weights");
    follower_factors(step->layer, parameters, plan->net.epsilon, step->values, step->values + channels);
    return 0;
}

static int is_follower(enum layer_kind kind)
{
    return kind == LAYER_BATCH_NORM || kind == LAYER_BIAS;
}

static int is_activation(enum layer_kind kind)
{
    return kind == LAYER_SWISH || kind == LAYER_RELU;
}

/* Compiles the layers from `*index` that one step covers: conv [+ norm or bias [+ swish or ReLU]] is one. */
static int compile_step(struct plan *plan, int *index, const float **parameters, int *side, int fold)
{
    const struct net *net = &plan->net;
    const struct layer *layer = &net->layer[*index];
    struct step *step = &plan->step[plan->steps++];
    const float *at = *parameters;
    int before, result = 0, last = *index;
    *step = (struct step){.kind = step_kind_of(layer->kind), .layer = layer, .in_side = *side};
    step->out_side = layer_output_side(net, layer, *side, &before);
    *parameters += layer_parameter_count(layer);
    if (layer->kind == LAYER_CONV) {
        const float *norm = NULL;
        const struct layer *follower = NULL, *activation = NULL;
        if (fold && last + 1 < net->layers && is_follower(net->layer[last + 1].kind) && !is_kept(net, last)) {
            norm = *parameters;
            follower = &net->layer[++last];
            *parameters += layer_parameter_count(follower);
            if (last + 1 < net->layers && is_activation(net->layer[last + 1].kind) && !is_kept(net, last))
                activation = &net->layer[++last];
        }
        result = compile_conv(plan, step, at, follower, norm, activation);
        step->swish = activation && activation->kind == LAYER_SWISH;
        if (step->swish && last + 1 < net->layers && net->layer[last + 1].kind == LAYER_SE && !is_kept(net, last))
            step->swish = 2;
        if (last > *index)
            step->layer = &net->layer[last]; /* its output is the output of the last layer folded in */
    } else if (layer->kind == LAYER_SE)
        result = compile_se(step, at);
    else if (is_follower(layer->kind))
        result = compile_standing_norm(plan, step, at);
    size_t pixels = (size_t)step->out_side * (size_t)step->out_side;
    step->out_floats = pixels * (size_t)step->layer->out;
    if (step->out_floats > plan->slot_floats)
        plan->slot_floats = step->out_floats;
    *side = step->out_side;
    *index = last;
    return result;
}

/* What the buffers allow: one residual open at a time, which ends in an addition. Nets are built by this
 * program. */
static int check_net(const struct net *net)
{
    int open = -1;
    for (int i = 0; i < net->layers; i++) {
        const struct layer *layer = &net->layer[i];
        assert(layer->kind != LAYER_ADD || (layer->from == open && layer->from < i - 1));
        open = is_kept(net, i) ? i : open;
        if (layer->in > CHANNELS_MAX || layer->out > CHANNELS_MAX || layer->reduced > CHANNELS_MAX)
            return error_set(ERROR_LIMIT, "layer %s of %s is wider than %d channels", layer->name, net->name,
                             CHANNELS_MAX);
    }
    return 0;
}

/* `fold` 0 keeps batch norm and swish as steps of their own, for calibration. */
static int build_plan(struct workers *workers, const struct net *net, const float *parameters, int fold,
                      enum precision precision, struct plan **ret_plan)
{
    int side = net->side, result = check_net(net);
    if (result)
        return result;
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return error_set(ERROR_SYSTEM, "out of memory for a plan");
    omp_set_num_threads(1); /* oneDNN fixes its thread count when a primitive is made */
    plan->workers = workers;
    plan->net = *net;
    plan->precision = precision;
    plan->kernels = net_kernels(precision);
    plan->slot_floats = (size_t)net->side * (size_t)net->side * (size_t)net->channels;
    result = check(dnnl_engine_create(&plan->engine, dnnl_cpu, 0), "start");
    for (int i = 0; i < net->layers && !result; i++)
        result = compile_step(plan, &i, &parameters, &side, fold);
    if (!result) {
        assign_slots(plan);
        result = open_lanes(plan);
    }
    if (result) {
        cpu_free_plan(plan);
        return result;
    }
    *ret_plan = plan;
    return 0;
}

int cpu_precision(enum precision wanted)
{
    int has_avx512 = (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
    if (wanted == PRECISION_BF16 && !has_avx512)
        return error_set(ERROR_STATE,
                         "this processor has no AVX-512 and cannot compute in bfloat16: set trunk.precision = "
                         "fp32");
    return wanted == PRECISION_BF16 ? PRECISION_BF16 : PRECISION_FP32; /* only a GPU rounds factors */
}

int cpu_compile(struct workers *workers, const struct net *net, const float *parameters, enum precision precision,
                struct plan **ret_plan)
{
    int effective = cpu_precision(precision);
    return effective < 0 ? effective : build_plan(workers, net, parameters, 1, (enum precision)effective, ret_plan);
}

void cpu_free_plan(struct plan *plan)
{
    if (!plan)
        return;
    for (int i = 0; i < plan->steps; i++) {
        dnnl_primitive_destroy(plan->step[i].conv);
        dnnl_memory_destroy(plan->step[i].weights);
        dnnl_memory_destroy(plan->step[i].bias);
        free(plan->step[i].values);
    }
    for (int i = 0; plan->lane && i < plan->lanes; i++) {
        dnnl_stream_destroy(plan->lane[i].stream);
        for (int s = 0; s < SLOTS; s++)
            free(plan->lane[i].slot[s]);
        free(plan->lane[i].wide[0]);
        free(plan->lane[i].wide[1]);
        free(plan->lane[i].scratch);
        free(plan->lane[i].small);
    }
    free(plan->lane);
    dnnl_engine_destroy(plan->engine);
    free(plan);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

static int run_conv(const struct plan *plan, const struct step *step, struct lane *lane, const void *source,
                    void *target)
{
    dnnl_memory_t in = NULL, out = NULL, scratch = NULL;
    dnnl_status_t status = dnnl_memory_create(&in, &step->source, plan->engine, (void *)(uintptr_t)source);
    if (status == dnnl_success)
        status = dnnl_memory_create(&out, &step->target, plan->engine, target);
    if (status == dnnl_success)
        status = dnnl_memory_create(&scratch, &step->scratch_layout, plan->engine, lane->scratch);
    if (status == dnnl_success) {
        dnnl_exec_arg_t arguments[] = {
            {DNNL_ARG_SRC,        in           },
            {DNNL_ARG_WEIGHTS,    step->weights},
            {DNNL_ARG_DST,        out          },
            {DNNL_ARG_SCRATCHPAD, scratch      },
            {DNNL_ARG_BIAS,       step->bias   }
        };
        status = dnnl_primitive_execute(step->conv, lane->stream, step->bias ? 5 : 4, arguments);
        dnnl_stream_wait(lane->stream);
    }
    dnnl_memory_destroy(in);
    dnnl_memory_destroy(out);
    dnnl_memory_destroy(scratch);
    if (step->swish) {
        size_t channels = (size_t)step->layer->out;
        float *sums = step->swish == 2 ? memset(lane->small, 0, channels * sizeof *lane->small) : NULL;
        plan->kernels->swish(target, step->out_floats / channels, channels, sums);
    }
    return status != dnnl_success;
}

/* sums [channels] */
static void mean_over_pixels(const struct plan *plan, const void *values, size_t pixels, size_t channels, float *mean)
{
    memset(mean, 0, channels * sizeof *mean);
    plan->kernels->sums(values, pixels, channels, mean);
    for (size_t c = 0; c < channels; c++)
        mean[c] /= (float)pixels;
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

#define DOT_LANES 16 /* sums side by side, so that compilers can make vectors of them */

static float dot(const float *restrict a, const float *restrict b, size_t count)
{
    float part[DOT_LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + DOT_LANES <= count; i += DOT_LANES)
        for (size_t j = 0; j < DOT_LANES; j++)
            part[j] += a[i + j] * b[i + j];
    for (; i < count; i++)
        sum += a[i] * b[i];
    for (size_t j = 0; j < DOT_LANES; j++)
        sum += part[j];
    return sum;
}

/* Mean over pixels -> reduce -> swish -> expand -> sigmoid -> scale the channels, in place. The sums are there already where the step
 * before made them. */
static void run_se(const struct plan *plan, const struct step *step, struct lane *lane, void *target)
{
    size_t in = (size_t)step->layer->in, reduced = (size_t)step->layer->reduced;
    size_t pixels = (size_t)step->out_side * (size_t)step->out_side;
    const float *reduce = step->values, *reduce_bias = reduce + in * reduced, *expand = reduce_bias + reduced;
    const float *expand_bias = expand + in * reduced;
    float *mean = lane->small, *narrow = mean + CHANNELS_MAX, *gate = narrow + CHANNELS_MAX;
    if (step > plan->step && step[-1].swish == 2)
        for (size_t c = 0; c < in; c++)
            mean[c] /= (float)pixels;
    else
        mean_over_pixels(plan, target, pixels, in, mean);
    for (size_t r = 0; r < reduced; r++) {
        float sum = dot(reduce + r * in, mean, in) + reduce_bias[r];
        narrow[r] = sum * sigmoid(sum);
    }
    memcpy(gate, expand_bias, in * sizeof *gate);
    for (size_t r = 0; r < reduced; r++)
        for (size_t c = 0; c < in; c++)
            gate[c] += narrow[r] * expand[r * in + c];
    for (size_t c = 0; c < in; c++)
        gate[c] = sigmoid(gate[c]);
    plan->kernels->scale(target, gate, pixels, in);
}

static void run_norm(const struct step *step, const float *source, float *target)
{
    size_t channels = (size_t)step->layer->out;
    const float *scale = step->values, *shift = scale + channels;
    for (size_t i = 0; i < step->out_floats; i += channels)
        for (size_t c = 0; c < channels; c++)
            target[i + c] = source[i + c] * scale[c] + shift[c];
}

/* source [side][side][channels]; the squares lie inside. */
static void run_max_pool(const struct step *step, const float *source, float *target)
{
    size_t channels = (size_t)step->layer->out, row = (size_t)step->in_side * channels;
    int kernel = step->layer->kernel, stride = step->layer->stride;
    for (int y = 0; y < step->out_side; y++)
        for (int x = 0; x < step->out_side; x++, target += channels) {
            const float *corner = source + (size_t)(y * stride) * row + (size_t)(x * stride) * channels;
            memcpy(target, corner, channels * sizeof *target);
            for (int k = 1; k < kernel * kernel; k++) {
                const float *other = corner + (size_t)(k / kernel) * row + (size_t)(k % kernel) * channels;
                for (size_t c = 0; c < channels; c++)
                    target[c] = other[c] > target[c] ? other[c] : target[c];
            }
        }
}

static void run_relu(const struct step *step, const float *source, float *target)
{
    for (size_t i = 0; i < step->out_floats; i++) {
        float positive = source[i] > 0 ? source[i] : 0, ceiling = step->layer->ceiling;
        target[i] = ceiling > 0 && positive > ceiling ? ceiling : positive;
    }
}

/* The steps that have loops in float only. */
static void run_in_float(const struct step *step, const float *source, float *target)
{
    if (step->kind == STEP_NORM)
        run_norm(step, source, target);
    else if (step->kind == STEP_RELU)
        run_relu(step, source, target);
    else
        run_max_pool(step, source, target);
}

/* Its loop changes values where they are. */
static int works_in_place(enum step_kind kind)
{
    return kind == STEP_SWISH || kind == STEP_SE || kind == STEP_ADD;
}

static int run_step(const struct plan *plan, const struct step *step, struct lane *lane, const void *source,
                    const void *added, void *target)
{
    size_t channels = (size_t)step->layer->out, pixels = (size_t)step->in_side * (size_t)step->in_side;
    if (works_in_place(step->kind) && source != target) /* where the result is kept for an addition */
        memcpy(target, source, step->out_floats * plan->kernels->value_bytes);
    switch (step->kind) {
    case STEP_CONV:
        return run_conv(plan, step, lane, source, target);
    case STEP_SWISH:
        plan->kernels->swish(target, pixels, channels, NULL);
        return 0;
    case STEP_SE:
        run_se(plan, step, lane, target);
        return 0;
    case STEP_ADD:
        plan->kernels->add(target, added, step->out_floats);
        return 0;
    case STEP_POOL:
        mean_over_pixels(plan, source, pixels, channels, lane->small);
        plan->kernels->narrow(lane->small, channels, target);
        return 0;
    case STEP_NORM:
    case STEP_RELU:
    case STEP_MAX_POOL:
        if (plan->precision == PRECISION_FP32) {
            run_in_float(step, source, target);
            return 0;
        }
        plan->kernels->widen(source, pixels * (size_t)step->layer->in, lane->wide[0]);
        run_in_float(step, lane->wide[0], lane->wide[1]);
        plan->kernels->narrow(lane->wide[1], step->out_floats, target);
        return 0;
    }
    return 1;
}

struct run {
    struct plan *plan;
    const float *images;
    float *outputs;
};

static void run_image(void *context, long item, int worker)
{
    struct run *run = context;
    struct plan *plan = run->plan;
    struct lane *lane = &plan->lane[worker];
    size_t input_floats = (size_t)plan->net.side * (size_t)plan->net.side * (size_t)plan->net.channels;
    int failed = 0;
    const void *input = run->images + (size_t)item * input_floats;
    omp_set_num_threads(1);
    if (plan->precision != PRECISION_FP32) { /* slot 2 is free: the first residual takes slot 3 */
        plan->kernels->narrow(input, input_floats, lane->slot[2]);
        input = lane->slot[2];
    }
    for (int i = 0; i < plan->steps; i++) {
        const struct step *step = &plan->step[i];
        const void *source = i ? lane->slot[step->source_slot] : input;
        failed |= run_step(plan, step, lane, source, lane->slot[step->add_slot], lane->slot[step->target_slot]);
    }
    const struct step *last = &plan->step[plan->steps - 1];
    float *outputs = run->outputs + (size_t)item * last->out_floats;
    if (last->kind == STEP_POOL)
        memcpy(outputs, lane->small, last->out_floats * sizeof *outputs); /* as it was before it was stored */
    else
        plan->kernels->widen(lane->slot[plan->output_slot], last->out_floats, outputs);
    if (failed)
        __atomic_store_n(&plan->status, 1, __ATOMIC_RELAXED);
}

int cpu_forward(struct plan *plan, const float *images, size_t count, float *outputs)
{
    struct run run = {plan, images, outputs};
    plan->status = 0;
    workers_run(plan->workers, run_image, &run, (long)count);
    return plan->status ? error_set(ERROR_SYSTEM, "oneDNN failed while running %s", plan->net.name) : 0;
}

/* --- calibration -------------------------------------------------------------------------------------------------- */

/* The whole batch goes through one step at a time, so that a batch norm can look at all images before the
 * next. */
struct calibration {
    struct plan *plan;
    const struct step *step;
    float *from, *to, *kept; /* [count][out_floats of the step concerned] */
    size_t from_floats;
};

static void calibrate_image(void *context, long item, int worker)
{
    struct calibration *calibration = context;
    const struct step *step = calibration->step;
    size_t from = (size_t)item * calibration->from_floats, to = (size_t)item * step->out_floats;
    omp_set_num_threads(1);
    if (run_step(calibration->plan, step, &calibration->plan->lane[worker], calibration->from + from,
                 calibration->kept ? calibration->kept + to : NULL, calibration->to + to))
        __atomic_store_n(&calibration->plan->status, 1, __ATOMIC_RELAXED);
}

struct statistics {
    const struct plan *plan;
    struct step *step;
    const float *values; /* [rows][channels] */
    size_t rows, channels;
    float *parameters;
};

#define STATISTICS_CHANNELS 16 /* one cache line of floats, so that memory is read once per pass */

static void store_statistics(const struct statistics *statistics, size_t c, double mean, double squares)
{
    float *parameters = statistics->parameters, *values = statistics->step->values;
    size_t channels = statistics->channels, rows = statistics->rows;
    double variance = squares / (double)rows;
    double scale = (double)parameters[c] / sqrt(variance + (double)statistics->plan->net.epsilon);
    parameters[2 * channels + c] = (float)mean;
    parameters[3 * channels + c] = (float)(rows > 1 ? squares / (double)(rows - 1) : variance);
    values[c] = (float)scale;
    values[channels + c] = (float)((double)parameters[channels + c] - mean * scale);
}

/* Mean and variance of a few channels over images and pixels: stored unbiased, applied biased, as PyTorch in
 * training. */
static void take_statistics(void *context, long item, int worker)
{
    const struct statistics *statistics = context;
    size_t channels = statistics->channels, first = (size_t)item * STATISTICS_CHANNELS;
    size_t count = channels - first < STATISTICS_CHANNELS ? channels - first : STATISTICS_CHANNELS;
    double mean[STATISTICS_CHANNELS] = {0}, squares[STATISTICS_CHANNELS] = {0};
    (void)worker;
    for (size_t r = 0; r < statistics->rows; r++)
        for (size_t c = 0; c < count; c++)
            mean[c] += (double)statistics->values[r * channels + first + c];
    for (size_t c = 0; c < count; c++)
        mean[c] /= (double)statistics->rows;
    for (size_t r = 0; r < statistics->rows; r++)
        for (size_t c = 0; c < count; c++) {
            double distance = (double)statistics->values[r * channels + first + c] - mean[c];
            squares[c] += distance * distance;
        }
    for (size_t c = 0; c < count; c++)
        store_statistics(statistics, first + c, mean[c], squares[c]);
}

static void calibrate_norm(struct plan *plan, struct step *step, const float *values, size_t count, float *parameters)
{
    size_t channels = (size_t)step->layer->out;
    struct statistics statistics = {plan, step, values, count * step->out_floats / channels, channels, parameters};
    workers_run(plan->workers, take_statistics, &statistics,
                (long)((channels + STATISTICS_CHANNELS - 1) / STATISTICS_CHANNELS));
}

int cpu_calibrate(struct workers *workers, const struct net *net, const float *images, size_t count, float *parameters)
{
    struct plan *plan;
    if (count == 0)
        return error_set(ERROR_INPUT, "calibrating %s needs at least one image", net->name);
    int result = build_plan(workers, net, parameters, 0, PRECISION_FP32, &plan);
    if (result)
        return result;
    size_t buffer_floats = plan->slot_floats * count;
    size_t input_floats = (size_t)net->side * (size_t)net->side * (size_t)net->channels;
    float *buffer[3] = {malloc(buffer_floats * sizeof(float)), malloc(buffer_floats * sizeof(float)), NULL};
    int kept_layer = -1, at = 0;
    if (!buffer[0] || !buffer[1])
        result = error_set(ERROR_SYSTEM, "out of memory for calibrating on %zu images: lower trunk.calibration_images",
                           count);
    else
        memcpy(buffer[0], images, count * input_floats * sizeof(float));
    struct calibration calibration = {.plan = plan, .from_floats = input_floats};
    for (int i = 0; i < plan->steps && !result; i++) {
        struct step *step = &plan->step[i];
        int index = (int)(step->layer - plan->net.layer);
        if (step->layer->kind == LAYER_BATCH_NORM)
            calibrate_norm(plan, step, buffer[at], count, parameters);
        calibration.step = step;
        calibration.from = buffer[at];
        calibration.to = step->kind == STEP_CONV || step->kind == STEP_POOL || step->kind == STEP_MAX_POOL ? buffer[!at]
                                                                                                           : buffer[at];
        calibration.kept = step->kind == STEP_ADD && step->layer->from == kept_layer ? buffer[2] : NULL;
        workers_run(workers, calibrate_image, &calibration, (long)count);
        at = calibration.to == buffer[!at] ? !at : at;
        calibration.from_floats = step->out_floats;
        parameters += layer_parameter_count(step->layer);
        if (is_kept(net, index)) {
            size_t bytes = count * step->out_floats * sizeof(float);
            free(buffer[2]);
            buffer[2] = malloc(bytes);
            kept_layer = index;
            if (buffer[2])
                memcpy(buffer[2], buffer[at], bytes);
            else
                result = error_set(ERROR_SYSTEM, "out of memory for calibrating on %zu images", count);
        }
    }
    if (!result && plan->status)
        result = error_set(ERROR_SYSTEM, "oneDNN failed while calibrating %s", net->name);
    for (int i = 0; i < 3; i++)
        free(buffer[i]);
    cpu_free_plan(plan);
    return result;
}
