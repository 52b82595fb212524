/* The forward pass of training; see train_state.h. */
#include "gpu/train_state.h"

static cudaStream_t stream_of(const struct training *training)
{
    return training->context->compute;
}

static int reorder(struct training *training, const float *source, float *target, size_t outer, size_t rows,
                   size_t columns)
{
    struct transpose::arguments arguments = {source, target, outer, rows, columns};
    return launch<transpose>(stream_of(training), blocks_of(outer * rows * columns), arguments);
}

static int run_depthwise(struct training *training, const struct train_step *step)
{
    struct window window = {(int)training->count, step->layer->out, step->side, step->output_side, step->before};
    size_t taps = (size_t)(step->layer->kernel * step->layer->kernel);
    RETURN_IF(
        reorder(training, training->parameters + step->parameters, step->weights, 1, (size_t)step->layer->out, taps));
    struct depthwise_work<float> work = {
        training->map[step->source], training->map[step->target], step->weights, NULL, window, ACTIVATION_NONE, 0
    };
    return launch_depthwise<float>(stream_of(training), step->layer,
                                   train_values(training, step->target, training->count), work);
}

static int run_convolution(struct training *training, const struct train_step *step)
{
    const struct layer *layer = step->layer;
    const float *source = training->map[step->source], *weights = training->parameters + step->parameters;
    size_t border = (size_t)step->padded_side, in = (size_t)layer->in;
    if (step->forward.product)
        return gemm_run(&training->context->gemm, &step->forward, weights, source, training->map[step->target],
                        stream_of(training));
    if (layer->groups > 1)
        return run_depthwise(training, step);
    RETURN_IF(
        reorder(training, weights, step->weights, (size_t)layer->out, in, (size_t)(layer->kernel * layer->kernel)));
    if (border) {
        struct pad_maps::arguments pad = {source,       training->padded, step->side,     step->padded_side,
                                          step->before, layer->in,        training->count};
        RETURN_IF(launch<pad_maps>(stream_of(training), blocks_of(training->count * border * border * in), pad));
        source = training->padded;
    }
    return convolution_forward(&training->context->convolution, &step->convolution, source, step->weights,
                               training->map[step->target], training->workspace);
}

/* Statistics of a batch norm into step->mean and step->inverse. */
static int run_statistics(struct training *training, const struct train_step *step)
{
    int channels = step->layer->out, live = training->pass.live_norm, shared = live && training->together;
    size_t rows = train_values(training, step->source, training->count) / (size_t)channels,
           per_segment = rows_per_segment(rows);
    struct moments_term::arguments term = {training->map[step->source], (size_t)channels};
    struct norm_statistics::arguments statistics = {!live    ? NULL
                                                    : shared ? training->shared
                                                             : training->partial,
                                                    training->parameters + step->parameters + 2 * channels,
                                                    step->mean,
                                                    step->inverse,
                                                    shared ? 1 : segments_of(rows, per_segment),
                                                    rows / training->count * training->total,
                                                    channels,
                                                    training->net.epsilon,
                                                    training->momentum};
    if (live)
        RETURN_IF(sum_columns<moments_term>(stream_of(training), term, rows, per_segment, channels, training->partial));
    if (shared)
        RETURN_IF(train_sum_over_ranks(training, segments_of(rows, per_segment), channels));
    return launch<norm_statistics>(stream_of(training), blocks_for((size_t)channels, THREADS), statistics);
}

static struct affine affine_of(const struct training *training, const struct train_step *step)
{
    const float *parameters = training->parameters + step->parameters;
    switch (step->layer->kind) {
    case LAYER_BATCH_NORM:
        return (struct affine){step->mean, step->inverse, parameters, parameters + step->layer->out};
    case LAYER_BIAS:
        return (struct affine){NULL, NULL, NULL, parameters};
    default:
        return (struct affine){NULL, NULL, NULL, NULL};
    }
}

static int run_affine(struct training *training, const struct train_step *step)
{
    if (step->layer->kind == LAYER_BATCH_NORM)
        RETURN_IF(run_statistics(training, step));
    struct affine_activate<float, float>::work arguments = {
        training->map[step->source], training->map[step->target], affine_of(training, step),
            train_values(training, step->target, training->count), step->layer->out, step->activation, step->ceiling
    };
    return launch_wide<affine_activate<float, float>>(stream_of(training), arguments.count, (size_t)step->layer->out,
                                                      arguments);
}

static int run_means(struct training *training, const struct train_step *step, float *target)
{
    size_t pixels = (size_t)step->side * (size_t)step->side, channels = (size_t)step->layer->in,
           images = training->count;
    struct value_term<float>::arguments term = {
        training->map[step->source], channels
    };
    struct finish_sums<float>::arguments finish = {
        training->partial, target, images, 1, channels, 1.0 / (double)pixels
    };
    RETURN_IF(sum_columns<value_term<float>>(stream_of(training), term, images * pixels, pixels, (int)channels,
                                             training->partial));
    return launch<finish_sums<float>>(stream_of(training), blocks_of(images * channels), finish);
}

static int run_se(struct training *training, const struct train_step *step)
{
    const struct layer *layer = step->layer;
    size_t in = (size_t)layer->in, reduced = (size_t)layer->reduced;
    const float *reduce = training->parameters + step->parameters, *expand = reduce + in * reduced + reduced;
    struct se_gate::arguments gate = {
        step->mean, reduce,    reduce + in * reduced, expand, expand + in * reduced, step->inner,
        step->gate, layer->in, layer->reduced};
    struct gate_scale<float>::work scale = {
        training->map[step->source], training->map[step->target], step->gate,
            train_values(training, step->target, training->count), (size_t)step->side *(size_t)step->side, layer->in
    };
    RETURN_IF(run_means(training, step, step->mean));
    RETURN_IF(launch<se_gate>(stream_of(training), training->count, gate));
    return launch_wide<gate_scale<float>>(stream_of(training), scale.count, in, scale);
}

static int run_step(struct training *training, const struct train_step *step)
{
    size_t count = train_values(training, step->target, training->count);
    const float *source = training->map[step->source];
    float *target = training->map[step->target];
    switch (step->layer->kind) {
    case LAYER_CONV:
        return run_convolution(training, step);
    case LAYER_BATCH_NORM:
    case LAYER_BIAS:
    case LAYER_SWISH:
    case LAYER_RELU:
        return run_affine(training, step);
    case LAYER_SE:
        return run_se(training, step);
    case LAYER_ADD: {
        struct add_maps<float>::work arguments = {
            training->map[step->other], source, target, step->layer->drop > 0 ? step->scale : NULL, count,
                count / training->count
        };
        return launch_wide<add_maps<float>>(stream_of(training), count, count / training->count, arguments);
    }
    case LAYER_POOL:
        return run_means(training, step, target);
    case LAYER_MAX_POOL: {
        struct window window = {(int)training->count, step->layer->out, step->side, step->output_side, 0};
        struct max_pool<float>::arguments arguments = {
            source, target, window, step->layer->kernel, step->layer->stride
        };
        return launch<max_pool<float>>(stream_of(training), blocks_of(count), arguments);
    }
    }
    return 0;
}

int train_run_forward(struct training *training)
{
    for (int i = 0; i < training->steps; i++)
        RETURN_IF(run_step(training, &training->step[i]));
    return 0;
}
