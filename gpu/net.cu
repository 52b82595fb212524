/*
 * Inference: the steps of net_steps.h on the device, one batch of fixed size at a time, the same on every rank. The batch is the largest
 * that fits its part of the memory; the last one of a call is filled up with old images, so that an embedding never depends on what is computed beside it, and
 * so that the whole batch is one CUDA graph. Two slots alternate: while one computes, the next one's images are copied.
 */
#include "gpu/net.h"
#include "gpu/net_state.h"
#include "gpu/values.h"

/* A plan takes at most one part in so many of the memory (measure.h): trainings and scoring need theirs beside it. */
#define PLAN_PART 4

/* --- planning ----------------------------------------------------------------------------------------------------- */

static size_t value_bytes(const struct plan *plan)
{
    return plan->bfloat16 ? sizeof(struct bfloat16) : sizeof(float);
}

struct needs { /* largest of all steps, in values */
    size_t wide[2], padded, partial, mean, inner;
};

static void at_least(size_t *value, size_t wanted)
{
    *value = *value > wanted ? *value : wanted;
}

static struct needs needs_of(const struct plan *plan)
{
    struct needs needs = {};
    for (int i = 0; i < plan->steps->steps; i++) {
        const struct net_step *step = &plan->steps->step[i];
        size_t channels = (size_t)plan->steps->channels[step->source], border = (size_t)padded_side(step);
        if (step->kind == STEP_DENSE) {
            at_least(&needs.wide[0], plan->bfloat16 && step->source ? map_values(plan, step->source) : 0);
            at_least(&needs.wide[1], plan->bfloat16 ? map_values(plan, step->target) : 0);
            at_least(&needs.padded, plan->batch * border * border * channels);
        } else if (step->kind == STEP_SE || step->kind == STEP_POOL) {
            at_least(&needs.partial, plan->batch * channels);
            at_least(&needs.mean, plan->batch * channels);
            at_least(&needs.inner, step->kind == STEP_SE ? plan->batch * (size_t)step->layer->reduced : 0);
        }
    }
    return needs;
}

/* Where each map lies, relative to the first; the bytes of all. A map lives from the step that makes it to the last that reads it. */
static size_t place_maps(const struct plan *plan, size_t offset[NET_LAYERS_MAX + 1])
{
    struct buffer buffer[NET_LAYERS_MAX];
    const struct net_steps *steps = plan->steps;
    for (int i = 0; i < steps->steps; i++) {
        buffer[i] = (struct buffer){
            .bytes = map_values(plan, steps->step[i].target) * value_bytes(plan), .first = i, .last = i};
        for (int j = i + 1; j < steps->steps; j++)
            if (steps->step[j].source == steps->step[i].target || steps->step[j].other == steps->step[i].target)
                buffer[i].last = j;
    }
    if (steps->steps)
        buffer[steps->steps - 1].last = steps->steps; /* read when the outputs are written */
    size_t bytes = arena_plan(buffer, steps->steps);
    for (int i = 0; i < steps->steps; i++)
        offset[steps->step[i].target] = buffer[i].offset;
    return bytes;
}

/* Hands out all memory of a plan; with an arena that only counts, says how much that is. */
static void take_memory(struct plan *plan, size_t workspace_bytes, struct arena *arena)
{
    size_t offset[NET_LAYERS_MAX + 1] = {0}, maps = place_maps(plan, offset);
    struct needs needs = needs_of(plan);
    plan->weights = (char *)arena_take(arena, plan->steps->weights_bytes);
    char *start = (char *)arena_take(arena, maps);
    for (int i = 0; i < plan->steps->steps; i++)
        plan->map[plan->steps->step[i].target] = start + offset[plan->steps->step[i].target];
    plan->map[0] = input_converted(plan) ? (char *)arena_take(arena, map_values(plan, 0) * value_bytes(plan)) : NULL;
    for (int i = 0; i < 2; i++)
        plan->wide[i] = (float *)arena_take(arena, needs.wide[i] * sizeof(float));
    plan->padded = (float *)arena_take(arena, needs.padded * sizeof(float));
    plan->partial = (double *)arena_take(arena, needs.partial * sizeof(double));
    plan->mean = (float *)arena_take(arena, needs.mean * sizeof(float));
    plan->gate = (float *)arena_take(arena, needs.mean * sizeof(float));
    plan->inner = (float *)arena_take(arena, needs.inner * sizeof(float));
    plan->workspace = arena_take(arena, workspace_bytes);
    for (int i = 0; i < SLOTS; i++) {
        plan->slot[i].images = (float *)arena_take(arena, plan->batch * plan->image_floats * sizeof(float));
        plan->slot[i].outputs = (float *)arena_take(arena, plan->batch * plan->output_floats * sizeof(float));
        look_take(&plan->slot[i].look, &plan->steps->net, plan->batch, arena);
    }
}

static int has_dense(const struct plan *plan)
{
    for (int i = 0; i < plan->steps->steps; i++)
        if (plan->steps->step[i].kind == STEP_DENSE)
            return 1;
    return 0;
}

/* Whether cuDNN takes the maps of so many images. */
static int dense_fits(const struct plan *plan, size_t images)
{
    const struct net_steps *steps = plan->steps;
    for (int i = 0; i < steps->steps; i++) {
        const struct net_step *step = &steps->step[i];
        int border = padded_side(step), side = border ? border : step->side;
        if (step->kind == STEP_DENSE &&
            (!convolution_fits(images, (size_t)side, (size_t)step->layer->in) ||
             !convolution_fits(images, (size_t)step->output_side, (size_t)step->layer->out)))
            return 0;
    }
    return 1;
}

/* Bytes of a plan for so many images, which it is made for; SIZE_MAX where cuDNN would not take them. */
static size_t bytes_for(void *job, size_t images)
{
    struct plan *plan = (struct plan *)job;
    struct arena counting = {};
    plan->batch = images;
    if (!dense_fits(plan, images))
        return SIZE_MAX;
    take_memory(plan, has_dense(plan) ? CONVOLUTION_WORKSPACE_BYTES : 0, &counting);
    return counting.used;
}

static int open_convolutions(struct plan *plan, size_t *ret_workspace_bytes)
{
    *ret_workspace_bytes = 0;
    for (int i = 0; i < plan->steps->steps; i++) {
        const struct net_step *step = &plan->steps->step[i];
        if (step->kind != STEP_DENSE)
            continue;
        int border = padded_side(step);
        struct convolution_shape shape = {.images = (int)plan->batch,
                                          .in = step->layer->in,
                                          .out = step->layer->out,
                                          .kernel = step->layer->kernel,
                                          .stride = step->layer->stride,
                                          .side = border ? border : step->side,
                                          .padding = border ? 0 : step->before,
                                          .output_side = step->output_side,
                                          .tf32 = plan->tf32,
                                          .training = 0,
                                          .workspace_limit = CONVOLUTION_WORKSPACE_BYTES};
        RETURN_IF(convolution_open(&plan->context->convolution, &shape, &plan->convolution[i]));
        at_least(ret_workspace_bytes, plan->convolution[i].workspace_bytes);
    }
    return 0;
}

static int open_gemms(struct plan *plan)
{
    for (int i = 0; i < plan->steps->steps; i++) {
        const struct net_step *step = &plan->steps->step[i];
        if (step->kind != STEP_GEMM)
            continue;
        size_t in = (size_t)step->layer->in, out = (size_t)step->layer->out;
        struct gemm_shape shape = {.transpose_a = 1,
                                   .transpose_b = 0,
                                   .rows = out,
                                   .columns = map_values(plan, step->target) / out,
                                   .depth = in,
                                   .a_stride = in,
                                   .b_stride = in,
                                   .d_stride = out,
                                   .bfloat16 = plan->bfloat16,
                                   .tf32 = plan->tf32,
                                   .accumulate = 0,
                                   .bias = step->bias == NO_OFFSET ? NULL : plan->weights + step->bias,
                                   .alignment = ALIGNMENT,
                                   .order = GEMM_FIXED};
        RETURN_IF(gemm_open(&plan->context->gemm, &shape, &plan->gemm[i]));
    }
    return 0;
}

static int open_slot(struct plan *plan, struct slot *slot)
{
    size_t images = plan->batch * plan->image_floats * sizeof(float),
           outputs = plan->batch * plan->output_floats * sizeof(float);
    slot->plan = plan;
    CHECK_CUDA(cudaMallocHost((void **)&slot->staged_images, images));
    CHECK_CUDA(cudaMallocHost((void **)&slot->staged_outputs, outputs));
    RETURN_IF(look_open(&slot->look, plan->batch));
    CHECK_CUDA(cudaEventCreateWithFlags(&slot->uploaded, cudaEventDisableTiming));
    CHECK_CUDA(cudaEventCreateWithFlags(&slot->done, cudaEventDisableTiming));
    CHECK_CUDA(cudaMemsetAsync(slot->images, 0, images, plan->context->compute));
    return 0;
}

static int open_plan(struct plan *plan, const struct job_size *size)
{
    size_t workspace_bytes;
    struct arena arena = {};
    char smaller[SMALLER_BYTES];
    CHECK_CUDA(cudaSetDevice(plan->context->device));
    plan->batch = size->chosen;
    RETURN_IF(open_convolutions(plan, &workspace_bytes));
    take_memory(plan, workspace_bytes, &arena);
    context_tell_smaller(size, smaller);
    context_tell(plan->context, JOB_NET, plan->batch, arena.used, pinned_bytes(plan), "%s for %zu images at a time%s",
                 plan->steps->net.name, plan->batch, smaller);
    CHECK_CUDA(cudaMalloc((void **)&plan->memory, arena.used));
    arena = (struct arena){plan->memory, 0, arena.used};
    take_memory(plan, workspace_bytes, &arena);
    for (int i = 0; i < SLOTS; i++)
        RETURN_IF(open_slot(plan, &plan->slot[i]));
    RETURN_IF(context_upload(plan->context, plan->weights, plan->steps->weights, plan->steps->weights_bytes));
    RETURN_IF(open_gemms(plan));
    CHECK_CUDA(cudaStreamSynchronize(plan->context->compute)); /* the copy stream starts from here */
    return 0;
}

static int new_plan(const struct net *net, const float *parameters, enum precision precision, struct plan **ret_plan)
{
    struct plan *plan = (struct plan *)calloc(1, sizeof *plan);
    if (!plan)
        return error_set(ERROR_SYSTEM, "out of memory for %s", net->name);
    plan->bfloat16 = precision == PRECISION_BF16;
    plan->tf32 = precision != PRECISION_FP32;
    int result = net_steps_build(net, parameters, plan->bfloat16, &plan->steps);
    if (result) {
        free(plan);
        return result;
    }
    size_t side = (size_t)net->side, last = (size_t)plan->steps->side[net->layers];
    plan->image_floats = side * side * (size_t)net->channels;
    plan->output_floats = last * last * (size_t)plan->steps->channels[net->layers];
    *ret_plan = plan;
    return 0;
}

/* The plans of all ranks before they are opened. */
static int new_plans(struct backend_context *context, const struct net *net, const float *parameters,
                     enum precision precision, struct plan **ret_plan)
{
    struct plan *first = NULL;
    RETURN_IF(new_plan(net, parameters, precision, &first));
    *ret_plan = first->rank[0] = first;
    first->context = context;
    for (int r = 1; r < ranks_count(context); r++) {
        RETURN_IF(new_plan(net, parameters, precision, &first->rank[r]));
        first->rank[r]->context = ranks_context(context, r);
    }
    return 0;
}

struct choice {
    struct plan *plan;
    struct job_size of[RANKS_MAX];
};

static int choose_rank(void *argument, int rank)
{
    struct choice *choice = (struct choice *)argument;
    struct plan *plan = choice->plan->rank[rank];
    struct device_memory memory;
    CHECK_CUDA(cudaSetDevice(plan->context->device));
    RETURN_IF(context_memory(&memory));
    choice->of[rank] = measure_size(&memory, PLAN_PART, TRIAGE_GPU_BATCH, 1, bytes_for, plan);
    return choice->of[rank].chosen
               ? 0
               : error_set(ERROR_LIMIT,
                           "%s needs %zu MiB of device memory for one image and %zu MiB are free: free the device or "
                           "use a smaller net",
                           plan->steps->net.name, bytes_for(plan, 1) >> 20, memory.free >> 20);
}

static int open_plans(struct plan *plan)
{
    struct choice choice = {plan, {}};
    RETURN_IF(ranks_run(plan->context, choose_rank, &choice));
    struct job_size size = ranks_smallest(choice.of, ranks_count(plan->context));
    for (int r = 0; r < ranks_count(plan->context); r++)
        RETURN_IF(open_plan(plan->rank[r], &size));
    return 0;
}

int gpu_compile(struct backend_context *context, const struct net *net, const float *parameters,
                enum precision precision, struct plan **ret_plan)
{
    struct plan *plan = NULL;
    int result = new_plans(context, net, parameters, precision, &plan);
    if (!result)
        result = open_plans(plan);
    if (result)
        gpu_free_plan(plan);
    else
        *ret_plan = plan;
    return result;
}

int gpu_measure(const struct net *net, enum precision precision, const struct device_memory *memory, size_t largest,
                size_t *ret_images, size_t *ret_bytes)
{
    struct plan *plan;
    float *parameters = (float *)calloc(net_parameter_count(net) + 1, sizeof *parameters);
    int result = parameters ? new_plan(net, parameters, precision, &plan)
                            : error_set(ERROR_SYSTEM, "out of memory for %s", net->name);
    free(parameters);
    if (result)
        return result;
    *ret_images = measure_size(memory, PLAN_PART, largest, 1, bytes_for, plan).chosen;
    *ret_bytes = bytes_for(plan, *ret_images ? *ret_images : 1);
    net_steps_free(plan->steps);
    free(plan);
    return 0;
}

static void close_slot(struct slot *slot)
{
    cudaFreeHost(slot->staged_images);
    cudaFreeHost(slot->staged_outputs);
    look_close(&slot->look);
    if (slot->graph)
        cudaGraphExecDestroy(slot->graph);
    if (slot->uploaded)
        cudaEventDestroy(slot->uploaded);
    if (slot->done)
        cudaEventDestroy(slot->done);
}

static void free_one(struct plan *plan)
{
    if (!plan)
        return;
    cudaSetDevice(plan->context->device);
    cudaStreamSynchronize(plan->context->copy);
    cudaStreamSynchronize(plan->context->compute);
    for (int i = 0; plan->steps && i < plan->steps->steps; i++) {
        gemm_close(&plan->gemm[i]);
        convolution_close(&plan->convolution[i]);
    }
    for (int i = 0; i < SLOTS; i++)
        close_slot(&plan->slot[i]);
    cudaFree(plan->memory);
    net_steps_free(plan->steps);
    free(plan);
}

void gpu_free_plan(struct plan *plan)
{
    for (int r = plan ? RANKS_MAX - 1 : -1; r > 0; r--)
        free_one(plan->rank[r]);
    free_one(plan);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

/* All steps of one slot. */
static int enqueue(void *argument)
{
    const struct slot *slot = (const struct slot *)argument;
    return net_run_slot(slot->plan, slot);
}

/* The first batch of a plan loads its kernels; from the second on a slot is one graph. */
static int run_slot(struct plan *plan, struct slot *slot)
{
    if (!plan->warm) {
        RETURN_IF(enqueue(slot));
        plan->warm = 1;
        return 0;
    }
    if (!slot->graph)
        RETURN_IF(context_capture(plan->context, enqueue, slot, &slot->graph));
    CHECK_CUDA(cudaGraphLaunch(slot->graph, plan->context->compute));
    return 0;
}

/* Waits until a slot's outputs are there and hands them over. */
static int collect(struct plan *plan, struct slot *slot)
{
    if (!slot->count)
        return 0;
    CHECK_CUDA(cudaEventSynchronize(slot->done));
    memcpy(slot->target, slot->staged_outputs, slot->count * plan->output_floats * sizeof(float));
    slot->count = 0;
    return 0;
}

/* What is to be embedded: images as floats, or views. */
struct inputs {
    const float *images;
    const struct stored_views *views;
    float *outputs;
};

static int start(struct plan *plan, struct slot *slot, const struct inputs *inputs, size_t first, size_t count)
{
    struct backend_context *context = plan->context;
    const struct net *net = &plan->steps->net;
    size_t bytes = count * plan->image_floats * sizeof(float);
    if (inputs->views)
        RETURN_IF(look_copy(context, &slot->look, net, inputs->views, first, count, slot->staged_images, slot->images,
                            context->copy));
    else {
        memcpy(slot->staged_images, inputs->images + first * plan->image_floats, bytes);
        CHECK_CUDA(cudaMemcpyAsync(slot->images, slot->staged_images, bytes, cudaMemcpyHostToDevice, context->copy));
    }
    CHECK_CUDA(cudaEventRecord(slot->uploaded, context->copy));
    CHECK_CUDA(cudaStreamWaitEvent(context->compute, slot->uploaded, 0));
    if (inputs->views)
        RETURN_IF(look_compute(&slot->look, net, inputs->views, count, slot->images, context->compute));
    RETURN_IF(run_slot(plan, slot));
    CHECK_CUDA(cudaMemcpyAsync(slot->staged_outputs, slot->outputs, count * plan->output_floats * sizeof(float),
                               cudaMemcpyDeviceToHost, context->compute));
    CHECK_CUDA(cudaEventRecord(slot->done, context->compute));
    slot->count = count;
    slot->target = inputs->outputs + first * plan->output_floats;
    return 0;
}

static int run_batches(struct plan *plan, const struct inputs *inputs, size_t first, size_t count)
{
    for (size_t at = 0, turn = 0; at < count; at += plan->batch, turn++) {
        struct slot *slot = &plan->slot[turn % SLOTS];
        size_t left = count - at, now = left < plan->batch ? left : plan->batch;
        RETURN_IF(collect(plan, slot));
        RETURN_IF(start(plan, slot, inputs, first + at, now));
    }
    for (int i = 0; i < SLOTS; i++)
        RETURN_IF(collect(plan, &plan->slot[i]));
    return 0;
}

/* Inputs `first` .. `first` + `count` - 1 on one device. */
static int forward_some(struct plan *plan, const struct inputs *inputs, size_t first, size_t count)
{
    CHECK_CUDA(cudaSetDevice(plan->context->device));
    int result = run_batches(plan, inputs, first, count);
    for (int i = 0; i < SLOTS; i++) /* after an error: no outputs are still to be handed to a caller who has gone */
        plan->slot[i].count = 0;
    return result;
}

struct forward_job {
    struct plan *plan;
    const struct inputs *inputs;
    size_t count;
};

static int forward_rank(void *argument, int rank)
{
    const struct forward_job *job = (const struct forward_job *)argument;
    struct share share = ranks_share(job->count, rank, ranks_count(job->plan->context));
    return forward_some(job->plan->rank[rank], job->inputs, share.first, share.count);
}

static int forward(struct plan *plan, const struct inputs *inputs, size_t count)
{
    struct forward_job job = {plan, inputs, count};
    return ranks_run(plan->context, forward_rank, &job);
}

int gpu_forward(struct plan *plan, const float *images, size_t count, float *outputs)
{
    struct inputs inputs = {images, NULL, outputs};
    return forward(plan, &inputs, count);
}

int gpu_forward_views(struct plan *plan, const struct stored_views *views, size_t count, float *outputs)
{
    struct inputs inputs = {NULL, views, outputs};
    return forward(plan, &inputs, count);
}
