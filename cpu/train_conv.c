/* See train_conv.h. */
#include "cpu/train_conv.h"
#include "base/error.h"

#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>

enum direction { FORWARD, BACKWARD, BACKWARD_WEIGHTS, DIRECTIONS };

/* One direction: the primitive, the layout it wants the weights (or their gradient) in, and the way there. */
struct route {
    dnnl_primitive_t run, reorder;
    dnnl_memory_desc_t weights_layout, scratch_layout, reorder_scratch_layout;
    dnnl_memory_t weights; /* in that layout; not for BACKWARD_WEIGHTS, where each lane has its own */
};

struct train_conv {
    dnnl_engine_t engine;
    dnnl_memory_desc_t source, target, plain; /* plain: the weights as the net has them */
    struct route route[DIRECTIONS];
};

struct train_conv_lane {
    dnnl_stream_t stream;
    char *scratch;
};

static int check(dnnl_status_t status, const char *what)
{
    return status == dnnl_success ? 0 : error_set(ERROR_SYSTEM, "oneDNN cannot %s (status %d)", what, (int)status);
}

int train_conv_engine_open(struct dnnl_engine **ret_engine)
{
    return check(dnnl_engine_create(ret_engine, dnnl_cpu, 0), "start");
}

void train_conv_engine_close(struct dnnl_engine *engine)
{
    dnnl_engine_destroy(engine);
}

/* --- compiling ---------------------------------------------------------------------------------------------------- */

struct geometry {
    dnnl_dims_t strides, low, high;
    dnnl_memory_desc_t any; /* weights in whatever layout is best */
};

static void describe(struct train_conv *conv, const struct net *net, const struct layer *layer, int side, size_t images,
                     struct geometry *ret)
{
    int before, out_side = layer_output_side(net, layer, side, &before);
    int after = (out_side - 1) * layer->stride + layer->kernel - side - before, grouped = layer->groups > 1;
    dnnl_dims_t source = {(dnnl_dim_t)images, layer->in, side, side};
    dnnl_dims_t target = {(dnnl_dim_t)images, layer->out, out_side, out_side};
    dnnl_dim_t weights[1 + DNNL_MAX_NDIMS] = {layer->groups, layer->out / layer->groups, layer->in / layer->groups,
                                              layer->kernel, layer->kernel};
    *ret = (struct geometry){
        .strides = {layer->stride,         layer->stride        },
        .low = {before,                before               },
        .high = {after > 0 ? after : 0, after > 0 ? after : 0}
    };
    dnnl_memory_desc_init_by_tag(&conv->source, 4, source, dnnl_f32, dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(&conv->target, 4, target, dnnl_f32, dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(&ret->any, grouped ? 5 : 4, weights + !grouped, dnnl_f32, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&conv->plain, grouped ? 5 : 4, weights + !grouped, dnnl_f32,
                                 grouped ? dnnl_goihw : dnnl_oihw);
}

static dnnl_status_t describe_direction(struct train_conv *conv, const struct geometry *geometry,
                                        enum direction direction, dnnl_convolution_desc_t *ret)
{
    switch (direction) {
    case FORWARD:
        return dnnl_convolution_forward_desc_init(ret, dnnl_forward_training, dnnl_convolution_auto, &conv->source,
                                                  &geometry->any, NULL, &conv->target, geometry->strides, geometry->low,
                                                  geometry->high);
    case BACKWARD:
        return dnnl_convolution_backward_data_desc_init(ret, dnnl_convolution_auto, &conv->source, &geometry->any,
                                                        &conv->target, geometry->strides, geometry->low,
                                                        geometry->high);
    default:
        return dnnl_convolution_backward_weights_desc_init(ret, dnnl_convolution_auto, &conv->source, &geometry->any,
                                                           NULL, &conv->target, geometry->strides, geometry->low,
                                                           geometry->high);
    }
}

static dnnl_status_t make_reorder(struct train_conv *conv, struct route *route, const dnnl_memory_desc_t *from,
                                  const dnnl_memory_desc_t *to, dnnl_primitive_attr_t attributes)
{
    dnnl_primitive_desc_t descriptor = NULL;
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&descriptor, from, conv->engine, to, conv->engine, attributes);
    if (status == dnnl_success) {
        route->reorder_scratch_layout = *dnnl_primitive_desc_query_md(descriptor, dnnl_query_scratchpad_md, 0);
        status = dnnl_primitive_create(&route->reorder, descriptor);
    }
    dnnl_primitive_desc_destroy(descriptor);
    return status;
}

static dnnl_status_t make_route(struct train_conv *conv, const struct geometry *geometry, enum direction direction,
                                dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *ret_descriptor)
{
    struct route *route = &conv->route[direction];
    dnnl_convolution_desc_t convolution;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t descriptor = NULL;
    dnnl_status_t status = describe_direction(conv, geometry, direction, &convolution);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_create(&attributes);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(&descriptor, &convolution, attributes, conv->engine, hint);
    if (status == dnnl_success) {
        route->scratch_layout = *dnnl_primitive_desc_query_md(descriptor, dnnl_query_scratchpad_md, 0);
        route->weights_layout = *dnnl_primitive_desc_query_md(
            descriptor, direction == BACKWARD_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
        status = dnnl_primitive_create(&route->run, descriptor);
    }
    if (status == dnnl_success && direction == BACKWARD_WEIGHTS)
        status = make_reorder(conv, route, &route->weights_layout, &conv->plain, attributes);
    else if (status == dnnl_success) {
        status = make_reorder(conv, route, &conv->plain, &route->weights_layout, attributes);
        if (status == dnnl_success)
            status = dnnl_memory_create(&route->weights, &route->weights_layout, conv->engine, DNNL_MEMORY_ALLOCATE);
    }
    dnnl_primitive_attr_destroy(attributes);
    *ret_descriptor = descriptor;
    return status;
}

int train_conv_open(struct dnnl_engine *engine, const struct net *net, const struct layer *layer, int side,
                    size_t images, struct train_conv **ret_conv)
{
    struct train_conv *conv = calloc(1, sizeof *conv);
    if (!conv)
        return error_set(ERROR_SYSTEM, "out of memory for a convolution");
    omp_set_num_threads(1); /* oneDNN fixes its thread count when a primitive is made */
    struct geometry geometry;
    dnnl_primitive_desc_t forward = NULL, other = NULL;
    conv->engine = engine;
    describe(conv, net, layer, side, images, &geometry);
    int result = check(make_route(conv, &geometry, FORWARD, NULL, &forward), "compile a convolution");
    for (int d = BACKWARD; d < DIRECTIONS && !result; d++) {
        result = check(make_route(conv, &geometry, (enum direction)d, forward, &other), "compile its backward pass");
        dnnl_primitive_desc_destroy(other);
        other = NULL;
    }
    dnnl_primitive_desc_destroy(forward);
    if (result)
        train_conv_close(conv);
    else
        *ret_conv = conv;
    return result;
}

void train_conv_close(struct train_conv *conv)
{
    if (!conv)
        return;
    for (int d = 0; d < DIRECTIONS; d++) {
        dnnl_primitive_destroy(conv->route[d].run);
        dnnl_primitive_destroy(conv->route[d].reorder);
        dnnl_memory_destroy(conv->route[d].weights);
    }
    free(conv);
}

/* --- lanes -------------------------------------------------------------------------------------------------------- */

/* The scratch holds the primitive's own and, for the weights' gradient, that gradient in its layout. */
static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

size_t train_conv_scratch_bytes(const struct train_conv *conv)
{
    size_t largest = 0;
    for (int d = 0; d < DIRECTIONS; d++) {
        const struct route *route = &conv->route[d];
        size_t run = aligned(dnnl_memory_desc_get_size(&route->scratch_layout));
        size_t reorder = aligned(dnnl_memory_desc_get_size(&route->reorder_scratch_layout));
        size_t bytes = (run > reorder ? run : reorder) + aligned(dnnl_memory_desc_get_size(&route->weights_layout));
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

int train_conv_lane_open(struct dnnl_engine *engine, size_t scratch_bytes, struct train_conv_lane **ret_lane)
{
    struct train_conv_lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return error_set(ERROR_SYSTEM, "out of memory for a compute thread");
    lane->scratch = aligned_alloc(64, aligned(scratch_bytes + 64));
    int result = lane->scratch
                     ? check(dnnl_stream_create(&lane->stream, engine, dnnl_stream_default_flags), "make a stream")
                     : error_set(ERROR_SYSTEM, "out of memory for the scratch of a compute thread");
    if (result)
        train_conv_lane_close(lane);
    else
        *ret_lane = lane;
    return result;
}

void train_conv_lane_close(struct train_conv_lane *lane)
{
    if (!lane)
        return;
    dnnl_stream_destroy(lane->stream);
    free(lane->scratch);
    free(lane);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

struct argument {
    int name;
    const dnnl_memory_desc_t *layout;
    const void *data;
    dnnl_memory_t memory; /* instead of layout and data */
};

static int execute(const struct train_conv *conv, struct train_conv_lane *lane, dnnl_primitive_t primitive,
                   struct argument argument[4])
{
    dnnl_exec_arg_t list[4];
    dnnl_memory_t made[4] = {NULL};
    dnnl_status_t status = dnnl_success;
    for (int i = 0; i < 4 && status == dnnl_success; i++) {
        if (!argument[i].memory)
            status =
                dnnl_memory_create(&made[i], argument[i].layout, conv->engine, (void *)(uintptr_t)argument[i].data);
        list[i] = (dnnl_exec_arg_t){argument[i].name, argument[i].memory ? argument[i].memory : made[i]};
    }
    if (status == dnnl_success)
        status = dnnl_primitive_execute(primitive, lane->stream, 4, list);
    if (status == dnnl_success)
        status = dnnl_stream_wait(lane->stream);
    for (int i = 0; i < 4; i++)
        dnnl_memory_destroy(made[i]);
    return check(status, "run a convolution");
}

int train_conv_place(struct train_conv *conv, const float *weights, struct train_conv_lane *lane)
{
    int result = 0;
    for (int d = FORWARD; d <= BACKWARD && !result; d++) {
        struct route *route = &conv->route[d];
        struct argument arguments[4] = {
            {DNNL_ARG_FROM,       &conv->plain,                   weights,       NULL          },
            {DNNL_ARG_TO,         NULL,                           NULL,          route->weights},
            {DNNL_ARG_SCRATCHPAD, &route->reorder_scratch_layout, lane->scratch, NULL          },
            {DNNL_ARG_WORKSPACE,  NULL,                           NULL,          route->weights}, /* not looked at */
        };
        result = execute(conv, lane, route->reorder, arguments);
    }
    return result;
}

int train_conv_forward(const struct train_conv *conv, struct train_conv_lane *lane, const float *source, float *target)
{
    const struct route *route = &conv->route[FORWARD];
    struct argument arguments[4] = {
        {DNNL_ARG_SRC,        &conv->source,          source,        NULL          },
        {DNNL_ARG_WEIGHTS,    NULL,                   NULL,          route->weights},
        {DNNL_ARG_DST,        &conv->target,          target,        NULL          },
        {DNNL_ARG_SCRATCHPAD, &route->scratch_layout, lane->scratch, NULL          },
    };
    return execute(conv, lane, route->run, arguments);
}

int train_conv_backward(const struct train_conv *conv, struct train_conv_lane *lane, const float *target_gradient,
                        float *source_gradient)
{
    const struct route *route = &conv->route[BACKWARD];
    struct argument arguments[4] = {
        {DNNL_ARG_DIFF_DST,   &conv->target,          target_gradient, NULL          },
        {DNNL_ARG_WEIGHTS,    NULL,                   NULL,            route->weights},
        {DNNL_ARG_DIFF_SRC,   &conv->source,          source_gradient, NULL          },
        {DNNL_ARG_SCRATCHPAD, &route->scratch_layout, lane->scratch,   NULL          },
    };
    return execute(conv, lane, route->run, arguments);
}

int train_conv_backward_weights(const struct train_conv *conv, struct train_conv_lane *lane, const float *source,
                                const float *target_gradient, float *weight_gradient)
{
    const struct route *route = &conv->route[BACKWARD_WEIGHTS];
    char *blocked = lane->scratch, *scratch = blocked + aligned(dnnl_memory_desc_get_size(&route->weights_layout));
    struct argument run[4] = {
        {DNNL_ARG_SRC,          &conv->source,          source,          NULL},
        {DNNL_ARG_DIFF_DST,     &conv->target,          target_gradient, NULL},
        {DNNL_ARG_DIFF_WEIGHTS, &route->weights_layout, blocked,         NULL},
        {DNNL_ARG_SCRATCHPAD,   &route->scratch_layout, scratch,         NULL},
    };
    int result = execute(conv, lane, route->run, run);
    struct argument reorder[4] = {
        {DNNL_ARG_FROM,       &route->weights_layout,         blocked,         NULL},
        {DNNL_ARG_TO,         &conv->plain,                   weight_gradient, NULL},
        {DNNL_ARG_SCRATCHPAD, &route->reorder_scratch_layout, scratch,         NULL},
        {DNNL_ARG_WORKSPACE,  &route->reorder_scratch_layout, scratch,         NULL}, /* not looked at */
    };
    return result ? result : execute(conv, lane, route->reorder, reorder);
}
