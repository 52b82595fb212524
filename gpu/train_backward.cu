/* The backward pass of training; see train_state.h. */
#include "gpu/train_state.h"

/* One backward pass: what is wanted of it. */
struct back {
    struct training *training;
    cudaStream_t stream;
    int first_layer, images; /* of which layer on; whether the gradient of the input is wanted */
};

/* Whether anybody reads the gradient of this map. */
static int wanted(const struct back *back, int map)
{
    if (map == 0)
        return back->images;
    for (int i = 0; i < back->training->steps; i++)
        if (back->training->step[i].target == map)
            return back->training->step[i].index >= back->first_layer;
    return 0;
}

static int position(const struct back *back, const struct train_step *step)
{
    return (int)(step - back->training->step);
}

/* The gradient of the step's source and whether to add to it; NULL: not wanted. */
static float *source_flow(const struct back *back, const struct train_step *step, int *ret_add)
{
    *ret_add = train_adds(back->training, position(back, step), step->source);
    return wanted(back, step->source) ? back->training->flow[step->source] : NULL;
}

static int reorder(const struct back *back, const float *source, float *target, size_t outer, size_t rows,
                   size_t columns)
{
    struct transpose::arguments arguments = {source, target, outer, rows, columns};
    return launch<transpose>(back->stream, blocks_of(outer * rows * columns), arguments);
}

/* --- convolutions ------------------------------------------------------------------------------------------------- */

static int back_gemm(const struct back *back, const struct train_step *step)
{
    struct training *training = back->training;
    const float *flow = training->flow[step->target];
    int add;
    float *source = source_flow(back, step, &add); /* adding is part of step->backward */
    RETURN_IF(gemm_run(&training->context->gemm, &step->backward_weights, training->map[step->source], flow,
                       training->gradients + step->parameters, back->stream));
    return source ? gemm_run(&training->context->gemm, &step->backward, training->parameters + step->parameters, flow,
                             source, back->stream)
                  : 0;
}

template <int K, int S> static int back_depthwise(const struct back *back, const struct train_step *step)
{
    struct training *training = back->training;
    struct window window = {(int)training->count, step->layer->out, step->side, step->output_side, step->before};
    size_t channels = (size_t)step->layer->out, rows = train_values(training, step->target, training->count) / channels;
    size_t per_segment = rows_per_segment(rows);
    typename depthwise_term<K, S>::arguments term = {training->map[step->source], training->flow[step->target], window};
    struct finish_sums<float>::arguments finish = {
        training->partial, training->weight_gradient, 1, segments_of(rows, per_segment), K *K *channels, 1
    };
    RETURN_IF(
        (sum_columns<depthwise_term<K, S>>(back->stream, term, rows, per_segment, (int)channels, training->partial)));
    RETURN_IF(launch<finish_sums<float>>(back->stream, blocks_of(K * K * channels), finish));
    RETURN_IF(reorder(back, training->weight_gradient, training->gradients + step->parameters, 1, K * K, channels));
    typename depthwise_back<K, S>::work work = {training->flow[step->target], step->weights, NULL, window, 0};
    work.source_gradient = source_flow(back, step, &work.add);
    size_t count = train_values(training, step->source, training->count);
    return work.source_gradient ? launch_wide<depthwise_back<K, S>>(back->stream, count, channels, work) : 0;
}

static int back_dense(const struct back *back, const struct train_step *step)
{
    struct training *training = back->training;
    const struct layer *layer = step->layer;
    const struct convolution_library *library = &training->context->convolution;
    const float *flow = training->flow[step->target], *values = training->map[step->source];
    size_t in = (size_t)layer->in, taps = (size_t)(layer->kernel * layer->kernel), border = (size_t)step->padded_side;
    int add;
    float *source = source_flow(back, step, &add);
    if (border) {
        struct pad_maps::arguments pad = {values,       training->padded, step->side,     step->padded_side,
                                          step->before, layer->in,        training->count};
        RETURN_IF(launch<pad_maps>(back->stream, blocks_of(training->count * border * border * in), pad));
        values = training->padded;
    }
    RETURN_IF(convolution_backward_weights(library, &step->convolution, values, flow, training->weight_gradient,
                                           training->workspace));
    RETURN_IF(
        reorder(back, training->weight_gradient, training->gradients + step->parameters, (size_t)layer->out, taps, in));
    if (!source)
        return 0;
    if (!border)
        return convolution_backward(library, &step->convolution, flow, step->weights, add, source, training->workspace);
    RETURN_IF(convolution_backward(library, &step->convolution, flow, step->weights, 0, training->padded_gradient,
                                   training->workspace));
    struct crop_back::arguments crop = {training->padded_gradient,
                                        source,
                                        step->side,
                                        step->padded_side,
                                        step->before,
                                        layer->in,
                                        add,
                                        training->count};
    return launch<crop_back>(back->stream, blocks_of(train_values(training, step->source, training->count)), crop);
}

static int back_convolution(const struct back *back, const struct train_step *step)
{
    const struct layer *layer = step->layer;
    if (step->forward.product)
        return back_gemm(back, step);
    if (layer->groups == 1)
        return back_dense(back, step);
    if (layer->kernel == 3)
        return layer->stride == 1 ? back_depthwise<3, 1>(back, step) : back_depthwise<3, 2>(back, step);
    return layer->stride == 1 ? back_depthwise<5, 1>(back, step) : back_depthwise<5, 2>(back, step);
}

/* --- everything else ---------------------------------------------------------------------------------------------- */

static int back_affine(const struct back *back, const struct train_step *step)
{
    struct training *training = back->training;
    int channels = step->layer->out, norm = step->layer->kind == LAYER_BATCH_NORM;
    int with_parameters = norm || step->layer->kind == LAYER_BIAS;
    const float *parameters = training->parameters + step->parameters;
    float *gradients = training->gradients + step->parameters;
    size_t count = train_values(training, step->source, training->count), rows = count / (size_t)channels;
    size_t per_segment = rows_per_segment(rows);
    struct affine_flow flow = {training->map[step->source],
                               training->flow[step->target],
                               {},
                               step->activation,
                               step->ceiling,
                               (size_t)channels};
    flow.affine = norm              ? (struct affine){step->mean, step->inverse, parameters, parameters + channels}
                  : with_parameters ? (struct affine){NULL, NULL, NULL, parameters}
                                    : (struct affine){NULL, NULL, NULL, NULL};
    if (with_parameters) {
        struct affine_gradients::arguments finish = {training->partial,
                                                     norm ? gradients : NULL,
                                                     norm ? gradients + channels : gradients,
                                                     training->sum,
                                                     training->product,
                                                     segments_of(rows, per_segment),
                                                     rows,
                                                     channels};
        RETURN_IF(sum_columns<affine_term>(back->stream, flow, rows, per_segment, channels, training->partial));
        RETURN_IF(launch<affine_gradients>(back->stream, blocks_for((size_t)channels, THREADS), finish));
        if (norm && training->pass.live_norm &&
            training->together) { /* its statistics are those of all ranks' images */
            RETURN_IF(train_sum_over_ranks(training, finish.segments, channels));
            finish.partial = training->shared;
            finish.gamma = finish.beta = NULL;
            finish.segments = 1;
            finish.rows = rows / training->count * training->total;
            RETURN_IF(launch<affine_gradients>(back->stream, blocks_for((size_t)channels, THREADS), finish));
        }
    }
    struct affine_back::work arguments = {
        flow, training->sum, training->product, NULL, count, norm && training->pass.live_norm, 0};
    arguments.source_gradient = source_flow(back, step, &arguments.add);
    return arguments.source_gradient ? launch_wide<affine_back>(back->stream, count, flow.channels, arguments) : 0;
}

static int back_se(const struct back *back, const struct train_step *step)
{
    struct training *training = back->training;
    const struct layer *layer = step->layer;
    size_t in = (size_t)layer->in, reduced = (size_t)layer->reduced, images = training->count;
    size_t pixels = (size_t)step->side * (size_t)step->side;
    const float *reduce = training->parameters + step->parameters, *expand = reduce + in * reduced + reduced;
    float *gradients = training->gradients + step->parameters;
    struct product_term::arguments term = {training->map[step->source], training->flow[step->target], in};
    struct finish_sums<float>::arguments finish = {
        training->partial, training->opened, images, 1, in, 1
    };
    struct se_back::arguments bottleneck = {
        step->gate, step->inner,   reduce, expand, training->opened, training->inner_gradient, training->mean_gradient,
        layer->in,  layer->reduced};
    struct se_weights::arguments weights = {step->mean,
                                            step->inner,
                                            training->opened,
                                            training->inner_gradient,
                                            gradients,
                                            gradients + in * reduced,
                                            gradients + in * reduced + reduced,
                                            gradients + 2 * in * reduced + reduced,
                                            images,
                                            layer->in,
                                            layer->reduced};
    struct spread_back::work spread = {training->flow[step->target],
                                       step->gate,
                                       training->mean_gradient,
                                       NULL,
                                       images * pixels * in,
                                       pixels,
                                       layer->in,
                                       0,
                                       1.0f / (float)pixels};
    RETURN_IF(sum_columns<product_term>(back->stream, term, images * pixels, pixels, (int)in, training->partial));
    RETURN_IF(launch<finish_sums<float>>(back->stream, blocks_of(images * in), finish));
    RETURN_IF(launch<se_back>(back->stream, images, bottleneck));
    RETURN_IF(launch<se_weights>(back->stream, blocks_of(in * reduced), weights));
    spread.source_gradient = source_flow(back, step, &spread.add);
    return spread.source_gradient
               ? launch_wide<spread_back>(back->stream, spread.count, (size_t)spread.channels, spread)
               : 0;
}

static int back_addition(const struct back *back, const struct train_step *step)
{
    struct training *training = back->training;
    size_t count = train_values(training, step->target, training->count);
    struct scale_back::arguments arguments = {
        training->flow[step->target], NULL,
        training->flow[step->other],  count,
        count / training->count,      train_adds(training, position(back, step), step->other)};
    if (wanted(back, step->other))
        RETURN_IF(launch<scale_back>(back->stream, blocks_of(count), arguments));
    arguments.scale = step->layer->drop > 0 ? step->scale : NULL;
    arguments.source_gradient = source_flow(back, step, &arguments.add);
    arguments.add = arguments.add || step->other == step->source;
    return arguments.source_gradient ? launch<scale_back>(back->stream, blocks_of(count), arguments) : 0;
}

static int back_pool(const struct back *back, const struct train_step *step)
{
    struct training *training = back->training;
    size_t pixels = (size_t)step->side * (size_t)step->side;
    struct spread_back::work spread = {NULL,
                                       NULL,
                                       training->flow[step->target],
                                       NULL,
                                       train_values(training, step->source, training->count),
                                       pixels,
                                       step->layer->in,
                                       0,
                                       1.0f / (float)pixels};
    spread.source_gradient = source_flow(back, step, &spread.add);
    return spread.source_gradient
               ? launch_wide<spread_back>(back->stream, spread.count, (size_t)spread.channels, spread)
               : 0;
}

static int back_max_pool(const struct back *back, const struct train_step *step)
{
    struct training *training = back->training;
    struct window window = {(int)training->count, step->layer->out, step->side, step->output_side, 0};
    struct max_pool_back::arguments arguments = {
        training->map[step->source], training->flow[step->target], NULL, window,
        step->layer->kernel,         step->layer->stride,          0};
    arguments.source_gradient = source_flow(back, step, &arguments.add);
    return arguments.source_gradient
               ? launch<max_pool_back>(back->stream, blocks_of(train_values(training, step->source, training->count)),
                                       arguments)
               : 0;
}

static int back_step(const struct back *back, const struct train_step *step)
{
    switch (step->layer->kind) {
    case LAYER_CONV:
        return back_convolution(back, step);
    case LAYER_BATCH_NORM:
    case LAYER_BIAS:
    case LAYER_SWISH:
    case LAYER_RELU:
        return back_affine(back, step);
    case LAYER_SE:
        return back_se(back, step);
    case LAYER_ADD:
        return back_addition(back, step);
    case LAYER_POOL:
        return back_pool(back, step);
    case LAYER_MAX_POOL:
        return back_max_pool(back, step);
    }
    return 0;
}

int train_run_backward(struct training *training, int first_layer, int images)
{
    struct back back = {training, training->context->compute, first_layer, images};
    CHECK_CUDA(cudaMemsetAsync(training->gradients, 0, training->padded_count * sizeof(float), back.stream));
    for (int i = training->steps - 1; i >= 0 && training->step[i].index >= first_layer; i--)
        RETURN_IF(back_step(&back, &training->step[i]));
    return 0;
}
