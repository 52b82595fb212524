/* The steps of inference on the device; see net_state.h. */
#include "gpu/kernels_reduce.h"
#include "gpu/net_state.h"

static const float *floats(const struct plan *plan, size_t offset)
{
    return offset == NO_OFFSET ? NULL : (const float *)(plan->weights + offset);
}

template <class From, class To>
static int run_affine(const struct plan *plan, const struct net_step *step, const From *source, To *target,
                      const float *gamma, const float *beta)
{
    typename affine_activate<From, To>::work arguments = {
        source,           target,       {NULL, NULL, gamma, beta},
                          map_values(plan, step->target), step->layer->out,
        step->activation, step->ceiling
    };
    return launch_wide<affine_activate<From, To>>(plan->context->compute, arguments.count, (size_t)step->layer->out,
                                                  arguments);
}

template <class From, class To>
static int convert(const struct plan *plan, const From *source, To *target, size_t count)
{
    size_t values = count / plan->batch;
    typename affine_activate<From, To>::work arguments = {source, target, {}, count, (int)values, ACTIVATION_NONE, 0};
    return launch_wide<affine_activate<From, To>>(plan->context->compute, count, values, arguments);
}

template <class T>
static int run_depthwise(const struct plan *plan, const struct net_step *step, const T *source, T *target)
{
    struct window window = {(int)plan->batch, step->layer->out, step->side, step->output_side, step->before};
    struct depthwise_work<T> work = {
        source, target, floats(plan, step->weights), floats(plan, step->bias), window, step->activation, step->ceiling
    };
    return launch_depthwise<T>(plan->context->compute, step->layer, map_values(plan, step->target), work);
}

static int run_pad(const struct plan *plan, const struct net_step *step, const float *source)
{
    int border = padded_side(step);
    struct pad_maps::arguments arguments = {source,       plan->padded,    step->side, border,
                                            step->before, step->layer->in, plan->batch};
    size_t count = plan->batch * (size_t)border * (size_t)border * (size_t)step->layer->in;
    return launch<pad_maps>(plan->context->compute, blocks_of(count), arguments);
}

/* cuDNN reads and writes floats; `first` is the input, always floats. */
template <class T>
static int run_dense(const struct plan *plan, int index, const float *first, const T *source, T *target)
{
    const struct net_step *step = &plan->steps->step[index];
    const float *wide = first;
    float *made = plan->bfloat16 ? plan->wide[1] : (float *)target;
    if (!first && !plan->bfloat16)
        wide = (const float *)source;
    else if (!first) {
        RETURN_IF(convert(plan, source, plan->wide[0], map_values(plan, step->source)));
        wide = plan->wide[0];
    }
    if (padded_side(step)) {
        RETURN_IF(run_pad(plan, step, wide));
        wide = plan->padded;
    }
    RETURN_IF(convolution_forward(&plan->context->convolution, &plan->convolution[index], wide,
                                  floats(plan, step->weights), made, plan->workspace));
    if (!plan->bfloat16 && step->bias == NO_OFFSET && step->activation == ACTIVATION_NONE)
        return 0;
    return run_affine(plan, step, (const float *)made, target, NULL, floats(plan, step->bias));
}

template <class T> static int run_gemm(const struct plan *plan, int index, const T *source, T *target)
{
    const struct net_step *step = &plan->steps->step[index];
    RETURN_IF(gemm_run(&plan->context->gemm, &plan->gemm[index], plan->weights + step->weights, source, target,
                       plan->context->compute));
    return step->activation == ACTIVATION_NONE ? 0 : run_affine(plan, step, target, target, NULL, NULL);
}

/* Mean over the pixels of each image into `target` [batch][channels]. */
template <class T, class To>
static int run_means(const struct plan *plan, const struct net_step *step, const T *source, To *target)
{
    size_t pixels = (size_t)step->side * (size_t)step->side, channels = (size_t)step->layer->in;
    typename value_term<T>::arguments term = {source, channels};
    typename finish_sums<To>::arguments finish = {plan->partial,       target, plan->batch, 1, channels,
                                                  1.0 / (double)pixels};
    RETURN_IF(sum_columns<value_term<T>>(plan->context->compute, term, plan->batch * pixels, pixels, (int)channels,
                                         plan->partial));
    return launch<finish_sums<To>>(plan->context->compute, blocks_of(plan->batch * channels), finish);
}

template <class T> static int run_se(const struct plan *plan, const struct net_step *step, const T *source, T *target)
{
    const struct layer *layer = step->layer;
    size_t in = (size_t)layer->in, reduced = (size_t)layer->reduced;
    const float *reduce = floats(plan, step->weights), *reduce_bias = reduce + in * reduced,
                *expand = reduce_bias + reduced;
    struct se_gate::arguments gate = {plan->mean,  reduce,     reduce_bias, expand,        expand + in * reduced,
                                      plan->inner, plan->gate, layer->in,   layer->reduced};
    typename gate_scale<T>::work scale = {
        source, target, plan->gate, map_values(plan, step->target), (size_t)step->side * (size_t)step->side, layer->in};
    RETURN_IF(run_means(plan, step, source, plan->mean));
    RETURN_IF(launch<se_gate>(plan->context->compute, plan->batch, gate));
    return launch_wide<gate_scale<T>>(plan->context->compute, scale.count, in, scale);
}

template <class T> static int run_step(const struct plan *plan, int index, const float *images)
{
    const struct net_step *step = &plan->steps->step[index];
    cudaStream_t stream = plan->context->compute;
    size_t count = map_values(plan, step->target);
    int from_images = step->source == 0 && !input_converted(plan);
    const T *source = from_images ? (const T *)images : (const T *)plan->map[step->source];
    T *target = (T *)plan->map[step->target];
    switch (step->kind) {
    case STEP_GEMM:
        return run_gemm(plan, index, source, target);
    case STEP_DEPTHWISE:
        return run_depthwise(plan, step, source, target);
    case STEP_DENSE:
        return run_dense(plan, index, step->source == 0 ? images : NULL, source, target);
    case STEP_AFFINE:
        return run_affine(plan, step, source, target, floats(plan, step->weights), floats(plan, step->bias));
    case STEP_SE:
        return run_se(plan, step, source, target);
    case STEP_ADD: {
        int images_added = step->other == 0 && !input_converted(plan);
        const T *other = images_added ? (const T *)images : (const T *)plan->map[step->other];
        typename add_maps<T>::work arguments = {other, source, target, NULL, count, count / plan->batch};
        return launch_wide<add_maps<T>>(stream, count, count / plan->batch, arguments);
    }
    case STEP_POOL:
        return run_means(plan, step, source, target);
    case STEP_MAX_POOL: {
        struct window window = {(int)plan->batch, step->layer->out, step->side, step->output_side, step->before};
        typename max_pool<T>::arguments arguments = {source, target, window, step->layer->kernel, step->layer->stride};
        return launch<max_pool<T>>(stream, blocks_of(count), arguments);
    }
    }
    return 0;
}

template <class T> static int run_steps(const struct plan *plan, const struct slot *slot)
{
    int last = plan->steps->net.layers;
    size_t count = plan->batch * plan->output_floats;
    if (input_converted(plan))
        RETURN_IF(convert(plan, (const float *)slot->images, (T *)plan->map[0], map_values(plan, 0)));
    for (int i = 0; i < plan->steps->steps; i++)
        RETURN_IF(run_step<T>(plan, i, slot->images));
    return convert(plan, last ? (const T *)plan->map[last] : (const T *)slot->images, slot->outputs, count);
}

int net_run_slot(const struct plan *plan, const struct slot *slot)
{
    return plan->bfloat16 ? run_steps<struct bfloat16>(plan, slot) : run_steps<float>(plan, slot);
}
