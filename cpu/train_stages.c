/*
 * The stages of a net in training, each forward and backward. Each convolution runs as one part of the batch per worker thread; everything
 * else in blocks whose size does not depend on the number of threads.
 */
#include "base/error.h"
#include "base/philox.h"
#include "cpu/train_state.h"

#include <math.h>
#include <string.h>

static void note_failure(struct training *training, int result)
{
    if (result)
        __atomic_store_n(&training->status, result, __ATOMIC_RELAXED);
}

static size_t part_size(const struct training *training, long part)
{
    return training->part_images + ((size_t)part < training->count % (size_t)training->parts);
}

static size_t part_start(const struct training *training, long part)
{
    size_t longer = training->count % (size_t)training->parts, index = (size_t)part;
    return index * training->part_images + (index < longer ? index : longer);
}

static void for_each(const struct work *work, workers_task *task, size_t items)
{
    workers_run(work->training->workers, task, (void *)(uintptr_t)work, (long)items);
}

/* --- convolution -------------------------------------------------------------------------------------------------- */

static void conv_forward_part(void *context, long part, int worker)
{
    const struct work *work = context;
    struct training *training = work->training;
    const struct stage *stage = work->stage;
    size_t images = part_size(training, part), start = part_start(training, part);
    (void)worker;
    if (images)
        note_failure(training, train_conv_forward(stage->conv[images - training->part_images], training->lane[part],
                                                  work->input + start * stage->in_floats,
                                                  stage->output + start * stage->out_floats));
}

static int conv_forward(const struct work *work)
{
    for (int s = 0; s < 2; s++) {
        int result = work->stage->conv[s]
                         ? train_conv_place(work->stage->conv[s], work->parameters, work->training->lane[0])
                         : 0;
        if (result)
            return result;
    }
    for_each(work, conv_forward_part, (size_t)work->training->parts);
    return 0;
}

/* oneDNN has no kernel for the weights of 5 x 5 depthwise convolutions (kw <= 3 in every version): whole steps of B0 are a
 * twelfth faster with the plain loop, docs/measurements.md. */
static int has_own_weights_kernel(const struct layer *layer)
{
    return layer->groups > 1 && layer->groups == layer->in && layer->in == layer->out;
}

static void depthwise_weights(const struct work *work, long part)
{
    struct training *training = work->training;
    const struct stage *stage = work->stage;
    const struct layer *layer = stage->layer;
    int before;
    size_t start = part_start(training, part);
    layer_output_side(&training->net, layer, stage->in_side, &before);
    struct depthwise shape = {.images = (int)part_size(training, part),
                              .side = stage->in_side,
                              .out_side = stage->out_side,
                              .channels = layer->out,
                              .kernel = layer->kernel,
                              .stride = layer->stride,
                              .before = before};
    train_kernels()->depthwise_weights(&shape, work->input + start * stage->in_floats,
                                       work->gradient + start * stage->out_floats, training->lane_gradient[part]);
}

static void conv_weights_part(void *context, long part, int worker)
{
    const struct work *work = context;
    struct training *training = work->training;
    const struct stage *stage = work->stage;
    size_t images = part_size(training, part), start = part_start(training, part);
    (void)worker;
    if (!images)
        memset(training->lane_gradient[part], 0, layer_parameter_count(stage->layer) * sizeof(float));
    else if (has_own_weights_kernel(stage->layer))
        depthwise_weights(work, part);
    else
        note_failure(training, train_conv_backward_weights(stage->conv[images - training->part_images],
                                                           training->lane[part], work->input + start * stage->in_floats,
                                                           work->gradient + start * stage->out_floats,
                                                           training->lane_gradient[part]));
}

static void conv_input_part(void *context, long part, int worker)
{
    const struct work *work = context;
    struct training *training = work->training;
    const struct stage *stage = work->stage;
    size_t images = part_size(training, part), start = part_start(training, part);
    (void)worker;
    if (images)
        note_failure(training, train_conv_backward(stage->conv[images - training->part_images], training->lane[part],
                                                   work->gradient + start * stage->out_floats,
                                                   work->to + start * stage->in_floats));
}

/* The parts' weight gradients, added in order; depthwise ones are turned from [taps][channels]. */
static void add_parts(const struct work *work)
{
    const struct layer *layer = work->stage->layer;
    size_t count = layer_parameter_count(layer), channels = (size_t)layer->out, taps = count / channels;
    memset(work->parameter_gradient, 0, count * sizeof(float));
    for (int part = 0; part < work->training->parts; part++) {
        const float *from = work->training->lane_gradient[part];
        if (!has_own_weights_kernel(layer) || !part_size(work->training, part))
            for (size_t i = 0; i < count; i++)
                work->parameter_gradient[i] += from[i];
        else
            for (size_t c = 0; c < channels; c++)
                for (size_t t = 0; t < taps; t++)
                    work->parameter_gradient[c * taps + t] += from[t * channels + c];
    }
}

static void conv_backward(const struct work *work)
{
    for_each(work, conv_weights_part, (size_t)work->training->parts);
    add_parts(work);
    if (work->to)
        for_each(work, conv_input_part, (size_t)work->training->parts);
}

/* --- batch norm --------------------------------------------------------------------------------------------------- */

struct norm {
    size_t channels, rows, blocks;
    float *mean, *inverse, *scale, *shift;
};

static struct norm norm_of(const struct work *work)
{
    size_t channels = (size_t)work->stage->layer->in;
    size_t rows = work->training->count * work->stage->in_floats / channels;
    float *kept = work->stage->kept;
    return (struct norm){
        channels,           rows, (rows + BLOCK_ROWS - 1) / BLOCK_ROWS, kept, kept + channels, kept + 2 * channels,
        kept + 3 * channels};
}

static size_t block_rows(const struct norm *norm, long block)
{
    size_t first = (size_t)block * BLOCK_ROWS;
    return norm->rows - first < BLOCK_ROWS ? norm->rows - first : BLOCK_ROWS;
}

static void norm_moments_block(void *context, long block, int worker)
{
    const struct work *work = context;
    struct norm norm = norm_of(work);
    double *sums = work->training->sums + (size_t)block * 2 * norm.channels;
    (void)worker;
    memset(sums, 0, 2 * norm.channels * sizeof *sums);
    train_kernels()->moments(work->input + (size_t)block * BLOCK_ROWS * norm.channels, work->input,
                             block_rows(&norm, block), norm.channels, sums);
}

static void norm_forward_block(void *context, long block, int worker)
{
    const struct work *work = context;
    struct norm norm = norm_of(work);
    size_t first = (size_t)block * BLOCK_ROWS * norm.channels;
    (void)worker;
    train_kernels()->normalise(work->input + first, norm.scale, norm.shift, block_rows(&norm, block), norm.channels,
                               work->stage->activation, work->stage->output + first);
}

/* Sums of the blocks, in order. */
static void sum_blocks(const struct work *work, const struct norm *norm, size_t c, double ret_sum[2])
{
    ret_sum[0] = ret_sum[1] = 0;
    for (size_t b = 0; b < norm->blocks; b++)
        for (int i = 0; i < 2; i++)
            ret_sum[i] += work->training->sums[(b * 2 + (size_t)i) * norm->channels + c];
}

/* Statistics of the batch (the pivot is its first pixel), or the running ones; running: unbiased, as in PyTorch. */
static void take_statistics(const struct work *work, float *parameters)
{
    struct norm norm = norm_of(work);
    const struct net *net = &work->training->net;
    float *running_mean = parameters + 2 * norm.channels, *running_variance = parameters + 3 * norm.channels;
    for (size_t c = 0; c < norm.channels; c++) {
        double mean = (double)running_mean[c], variance = (double)running_variance[c];
        if (work->training->pass.live_norm) {
            double sum[2], n = (double)norm.rows;
            sum_blocks(work, &norm, c, sum);
            variance = fmax(0, sum[1] / n - sum[0] / n * (sum[0] / n));
            mean = (double)work->input[c] + sum[0] / n;
            double keep = 1 - (double)net->momentum, unbiased = norm.rows > 1 ? variance * n / (n - 1) : variance;
            running_mean[c] = (float)(keep * (double)running_mean[c] + (double)net->momentum * mean);
            running_variance[c] = (float)(keep * (double)running_variance[c] + (double)net->momentum * unbiased);
        }
        double inverse = 1 / sqrt(variance + (double)net->epsilon), scale = (double)parameters[c] * inverse;
        norm.mean[c] = (float)mean;
        norm.inverse[c] = (float)inverse;
        norm.scale[c] = (float)scale;
        norm.shift[c] = (float)((double)parameters[norm.channels + c] - mean * scale);
    }
}

static void norm_forward(const struct work *work, float *parameters)
{
    struct norm norm = norm_of(work);
    if (work->training->pass.live_norm)
        for_each(work, norm_moments_block, norm.blocks);
    take_statistics(work, parameters);
    for_each(work, norm_forward_block, norm.blocks);
}

static struct norm_back norm_block(const struct work *work, const struct norm *norm, long block)
{
    size_t first = (size_t)block * BLOCK_ROWS * norm->channels;
    return (struct norm_back){.x = work->input + first,
                              .mean = norm->mean,
                              .scale = norm->scale,
                              .shift = norm->shift,
                              .rows = block_rows(norm, block),
                              .channels = norm->channels,
                              .activation = work->stage->activation,
                              .gradient = work->gradient + first,
                              .sums = work->training->sums + (size_t)block * 2 * norm->channels};
}

static void norm_back_block(void *context, long block, int worker)
{
    const struct work *work = context;
    struct norm norm = norm_of(work);
    struct norm_back back = norm_block(work, &norm, block);
    (void)worker;
    memset(back.sums, 0, 2 * norm.channels * sizeof *back.sums);
    train_kernels()->normalise_back(&back);
}

static void norm_apply_block(void *context, long block, int worker)
{
    const struct work *work = context;
    struct norm norm = norm_of(work);
    struct norm_back back = norm_block(work, &norm, block);
    (void)worker;
    train_kernels()->normalise_back_apply(&back, work->factor, work->terms);
}

/* Ioffe & Szegedy 2015 (arXiv 1502.03167), section 3; frozen statistics are constants. In place. */
static void norm_backward(const struct work *work)
{
    struct norm norm = norm_of(work);
    float a[TRAIN_CHANNELS_MAX], b[TRAIN_CHANNELS_MAX];
    for_each(work, norm_back_block, norm.blocks);
    for (size_t c = 0; c < norm.channels; c++) {
        double sum[2], inverse = (double)norm.inverse[c], n = (double)norm.rows;
        sum_blocks(work, &norm, c, sum);
        work->parameter_gradient[c] = (float)(sum[1] * inverse);
        work->parameter_gradient[norm.channels + c] = (float)sum[0];
        a[c] = work->training->pass.live_norm ? (float)(sum[0] / n) : 0;
        b[c] = work->training->pass.live_norm ? (float)(sum[1] / n * inverse * inverse) : 0;
    }
    memset(work->parameter_gradient + 2 * norm.channels, 0, 2 * norm.channels * sizeof(float));
    struct work apply = *work;
    apply.factor = a;
    apply.terms = b;
    if (work->to)
        for_each(&apply, norm_apply_block, norm.blocks);
}

/* --- squeeze and excitation --------------------------------------------------------------------------------------- */

struct se {
    size_t in, reduced, pixels;
    const float *reduce, *reduce_bias, *expand, *expand_bias;
};

static struct se se_of(const struct work *work)
{
    const struct layer *layer = work->stage->layer;
    size_t in = (size_t)layer->in, reduced = (size_t)layer->reduced, side = (size_t)work->stage->in_side;
    const float *reduce = work->parameters, *expand = reduce + in * reduced + reduced;
    return (struct se){in, reduced, side * side, reduce, reduce + in * reduced, expand, expand + in * reduced};
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static void se_forward_image(void *context, long image, int worker)
{
    const struct work *work = context;
    const struct stage *stage = work->stage;
    struct se se = se_of(work);
    const float *input = work->input + (size_t)image * stage->in_floats;
    float *mean = stage->kept + (size_t)image * (2 * se.in + se.reduced), *gate = mean + se.in, *inner = gate + se.in;
    (void)worker;
    memset(mean, 0, se.in * sizeof *mean);
    train_kernels()->channel_sums(input, NULL, se.pixels, se.in, mean);
    for (size_t c = 0; c < se.in; c++)
        mean[c] /= (float)se.pixels;
    for (size_t r = 0; r < se.reduced; r++) {
        float sum = se.reduce_bias[r];
        for (size_t c = 0; c < se.in; c++)
            sum += se.reduce[r * se.in + c] * mean[c];
        inner[r] = sum;
    }
    for (size_t c = 0; c < se.in; c++) {
        float sum = se.expand_bias[c];
        for (size_t r = 0; r < se.reduced; r++)
            sum += se.expand[c * se.reduced + r] * inner[r] * sigmoid(inner[r]);
        gate[c] = sigmoid(sum);
    }
    train_kernels()->scale_channels(input, gate, NULL, se.pixels, se.in,
                                    stage->output + (size_t)image * stage->out_floats);
}

/* Back through the two small layers: `opened` holds d loss / d gate and becomes d loss / d mean; adds to `gradient`. */
static void se_inner_backward(const struct se *se, const float *kept, float *opened, float *gradient)
{
    const float *mean = kept, *gate = mean + se->in, *inner = gate + se->in;
    float *reduce = gradient, *reduce_bias = reduce + se->in * se->reduced, *expand = reduce_bias + se->reduced;
    float *expand_bias = expand + se->in * se->reduced;
    for (size_t c = 0; c < se->in; c++)
        opened[c] *= gate[c] * (1 - gate[c]);
    for (size_t c = 0; c < se->in; c++)
        expand_bias[c] += opened[c];
    float narrow[TRAIN_CHANNELS_MAX];
    for (size_t r = 0; r < se->reduced; r++) {
        float s = sigmoid(inner[r]), active = inner[r] * s, sum = 0;
        for (size_t c = 0; c < se->in; c++) {
            expand[c * se->reduced + r] += opened[c] * active;
            sum += opened[c] * se->expand[c * se->reduced + r];
        }
        narrow[r] = sum * (s + inner[r] * s * (1 - s));
        reduce_bias[r] += narrow[r];
    }
    memset(opened, 0, se->in * sizeof *opened);
    for (size_t r = 0; r < se->reduced; r++)
        for (size_t c = 0; c < se->in; c++) {
            reduce[r * se->in + c] += narrow[r] * mean[c];
            opened[c] += narrow[r] * se->reduce[r * se->in + c];
        }
}

static void se_backward_part(void *context, long part, int worker)
{
    const struct work *work = context;
    struct training *training = work->training;
    const struct stage *stage = work->stage;
    struct se se = se_of(work);
    float *gradient = training->lane_gradient[part], opened[TRAIN_CHANNELS_MAX];
    (void)worker;
    memset(gradient, 0, layer_parameter_count(stage->layer) * sizeof *gradient);
    for (size_t n = 0; n < part_size(training, part); n++) {
        size_t image = part_start(training, part) + n;
        const float *kept = stage->kept + image * (2 * se.in + se.reduced);
        float *flow = work->gradient + image * stage->out_floats;
        memset(opened, 0, se.in * sizeof *opened);
        train_kernels()->channel_sums(flow, work->input + image * stage->in_floats, se.pixels, se.in, opened);
        se_inner_backward(&se, kept, opened, gradient);
        for (size_t c = 0; c < se.in; c++)
            opened[c] /= (float)se.pixels;
        train_kernels()->scale_channels(flow, kept + se.in, opened, se.pixels, se.in, flow);
    }
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

static void swish_image(void *context, long image, int worker)
{
    const struct work *work = context;
    size_t at = (size_t)image * work->stage->in_floats;
    (void)worker;
    if (work->gradient)
        train_kernels()->swish_back(work->input + at, work->stage->in_floats, work->gradient + at);
    else
        train_kernels()->swish(work->input + at, work->stage->in_floats, work->stage->output + at);
}

/* Stochastic depth: 0 or 1 / (1 - drop) for this image's branch. */
static float branch_scale(const struct work *work, size_t image)
{
    const struct train_pass *pass = &work->training->pass;
    uint32_t layer = (uint32_t)(work->stage->last + PHILOX_LAYER);
    uint64_t key = pass->key ? pass->key[image] : image;
    float drop = work->stage->layer->drop;
    if (drop <= 0)
        return 1;
    struct philox random = philox(pass->seed, 0, (uint32_t)key, pass->step, layer << 8 | PHILOX_TRAIN);
    return philox_uniform(random.word[0]) < drop ? 0 : 1 / (1 - drop);
}

static void add_image(void *context, long image, int worker)
{
    const struct work *work = context;
    const struct stage *stage = work->stage;
    size_t at = (size_t)image * stage->out_floats;
    const float *branch = work->input + at, *straight = work->training->stage[stage->from].output + at;
    float scale = stage->kept[image] = branch_scale(work, (size_t)image), *output = stage->output + at;
    (void)worker;
    for (size_t i = 0; i < stage->out_floats; i++)
        output[i] = straight[i] + scale * branch[i];
}

/* The sum's gradient goes both ways: kept for the stage it started from, scaled for the branch. */
static void add_back_image(void *context, long image, int worker)
{
    const struct work *work = context;
    const struct stage *stage = work->stage;
    size_t at = (size_t)image * stage->out_floats;
    float *gradient = work->gradient + at, *residual = work->training->residual + at, scale = stage->kept[image];
    (void)worker;
    memcpy(residual, gradient, stage->out_floats * sizeof *residual);
    for (size_t i = 0; i < stage->out_floats && scale != 1; i++)
        gradient[i] *= scale;
}

static void join_image(void *context, long image, int worker)
{
    const struct work *work = context;
    size_t at = (size_t)image * work->stage->out_floats;
    (void)worker;
    for (size_t i = 0; i < work->stage->out_floats; i++)
        work->gradient[at + i] += work->training->residual[at + i];
}

static void pool_image(void *context, long image, int worker)
{
    const struct work *work = context;
    const struct stage *stage = work->stage;
    size_t channels = (size_t)stage->layer->in, pixels = stage->in_floats / channels;
    float *mean = stage->output + (size_t)image * channels;
    (void)worker;
    memset(mean, 0, channels * sizeof *mean);
    train_kernels()->channel_sums(work->input + (size_t)image * stage->in_floats, NULL, pixels, channels, mean);
    for (size_t c = 0; c < channels; c++)
        mean[c] /= (float)pixels;
}

static void pool_back_image(void *context, long image, int worker)
{
    const struct work *work = context;
    const struct stage *stage = work->stage;
    size_t channels = (size_t)stage->layer->in, pixels = stage->in_floats / channels;
    const float *gradient = work->gradient + (size_t)image * channels;
    float *to = work->to + (size_t)image * stage->in_floats;
    (void)worker;
    for (size_t p = 0; p < pixels; p++)
        for (size_t c = 0; c < channels; c++)
            to[p * channels + c] = gradient[c] / (float)pixels;
}

/* --- the layers of nets without batch norm ------------------------------------------------------------------------ */

static void bias_image(void *context, long image, int worker)
{
    const struct work *work = context;
    size_t channels = (size_t)work->stage->layer->out, count = work->stage->out_floats;
    const float *input = work->input + (size_t)image * count, *bias = work->parameters;
    float *output = work->stage->output + (size_t)image * count;
    (void)worker;
    for (size_t i = 0; i < count; i += channels)
        for (size_t c = 0; c < channels; c++)
            output[i + c] = input[i + c] + bias[c];
}

/* The input's gradient is the output's; the bias has its sum. */
static void bias_back_part(void *context, long part, int worker)
{
    const struct work *work = context;
    struct training *training = work->training;
    size_t channels = (size_t)work->stage->layer->out, pixels = work->stage->out_floats / channels;
    float *gradient = training->lane_gradient[part];
    (void)worker;
    memset(gradient, 0, channels * sizeof *gradient);
    for (size_t n = 0; n < part_size(training, part); n++)
        train_kernels()->channel_sums(work->gradient + (part_start(training, part) + n) * work->stage->out_floats, NULL,
                                      pixels, channels, gradient);
}

static void relu_image(void *context, long image, int worker)
{
    const struct work *work = context;
    size_t count = work->stage->in_floats, at = (size_t)image * count;
    float ceiling = work->stage->activation.ceiling;
    (void)worker;
    if (work->gradient)
        train_kernels()->relu_back(work->input + at, count, ceiling, work->gradient + at);
    else
        train_kernels()->relu(work->input + at, count, ceiling, work->stage->output + at);
}

/* The largest of each square forward; back, its first place takes the gradient. Squares lie inside the image. */
static void max_pool_image(void *context, long image, int worker)
{
    const struct work *work = context;
    const struct stage *stage = work->stage;
    int kernel = stage->layer->kernel, stride = stage->layer->stride;
    size_t channels = (size_t)stage->layer->in, row = (size_t)stage->in_side * channels;
    const float *input = work->input + (size_t)image * stage->in_floats;
    float *output = stage->output + (size_t)image * stage->out_floats;
    const float *gradient = work->gradient ? work->gradient + (size_t)image * stage->out_floats : NULL;
    float *to = work->gradient ? work->to + (size_t)image * stage->in_floats : NULL;
    (void)worker;
    if (to)
        memset(to, 0, stage->in_floats * sizeof *to);
    for (int pixel = 0; pixel < stage->out_side * stage->out_side; pixel++, output += channels) {
        int y = pixel / stage->out_side * stride, x = pixel % stage->out_side * stride;
        size_t corner = (size_t)y * row + (size_t)x * channels;
        for (size_t c = 0; c < channels; c++) {
            size_t best = corner + c;
            for (int k = 1; k < kernel * kernel; k++) {
                size_t at = corner + (size_t)(k / kernel) * row + (size_t)(k % kernel) * channels + c;
                best = input[at] > input[best] ? at : best;
            }
            if (to)
                to[best] += gradient[(size_t)pixel * channels + c];
            else
                output[c] = input[best];
        }
    }
}

/* --- any of them -------------------------------------------------------------------------------------------------- */

/* Of stages whose images do not depend on one another. */
static const struct {
    workers_task *forward, *back;
    int by_parts; /* back is for parts of the batch, each with a gradient of the parameters of its own */
} tasks[] = {
  /* clang-format off */
    [STAGE_SWISH]    = {swish_image,      swish_image,      0},
    [STAGE_SE]       = {se_forward_image, se_backward_part, 1},
    [STAGE_ADD]      = {add_image,        add_back_image,   0},
    [STAGE_POOL]     = {pool_image,       pool_back_image,  0},
    [STAGE_BIAS]     = {bias_image,       bias_back_part,   1},
    [STAGE_RELU]     = {relu_image,       relu_image,       0},
    [STAGE_MAX_POOL] = {max_pool_image,   max_pool_image,   0},
  /* clang-format on */
};

int stage_forward(const struct work *work, float *parameters)
{
    enum stage_kind kind = work->stage->kind;
    if (kind == STAGE_CONV)
        return conv_forward(work);
    if (kind == STAGE_NORM)
        norm_forward(work, parameters);
    else
        for_each(work, tasks[kind].forward, work->training->count);
    return 0;
}

void stage_backward(const struct work *work)
{
    enum stage_kind kind = work->stage->kind;
    int pools = kind == STAGE_POOL || kind == STAGE_MAX_POOL; /* others work in place, or have parameters */
    if (kind == STAGE_CONV)
        conv_backward(work);
    else if (kind == STAGE_NORM)
        norm_backward(work);
    else if (tasks[kind].by_parts) {
        for_each(work, tasks[kind].back, (size_t)work->training->parts);
        add_parts(work);
    } else if (work->to || !pools)
        for_each(work, tasks[kind].back, work->training->count);
}

void stage_join(const struct work *work)
{
    for_each(work, join_image, work->training->count);
}
