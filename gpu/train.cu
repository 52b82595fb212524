/* Training on the device: its steps, its memory, its products, opening and closing. What the seam asks of it is train_pass.cu. */
#include "gpu/train.h"
#include "gpu/net_steps.h"
#include "gpu/train_state.h"

/* --- steps -------------------------------------------------------------------------------------------------------- */

static int fuses_activation(const struct net *net, int index)
{
    enum layer_kind kind = net->layer[index].kind;
    return (kind == LAYER_BATCH_NORM || kind == LAYER_BIAS) && index + 1 < net->layers &&
           !net_layer_shared(net, index) &&
           (net->layer[index + 1].kind == LAYER_SWISH || net->layer[index + 1].kind == LAYER_RELU);
}

static void add_step(struct training *training, int index, int last)
{
    const struct net *net = &training->net;
    const struct layer *layer = &net->layer[index], *end = &net->layer[last];
    struct train_step *step = &training->step[training->steps++];
    *step = (struct train_step){.layer = layer, .index = index, .source = index, .target = last + 1, .other = -1};
    step->side = training->side[index];
    step->output_side = layer_output_side(net, layer, step->side, &step->before);
    step->parameters = training->place[index];
    if (layer->kind == LAYER_ADD)
        step->other = layer->from + 1;
    if (end->kind == LAYER_SWISH || end->kind == LAYER_RELU) {
        step->activation = end->kind == LAYER_SWISH ? ACTIVATION_SWISH : ACTIVATION_RELU;
        step->ceiling = end->ceiling;
    }
    if (layer->kind == LAYER_CONV)
        step->padded_side = net_padded_side(layer, step->side, step->before, step->output_side);
}

static int make_steps(struct training *training)
{
    const struct net *net = &training->net;
    training->side[0] = net->side;
    training->channels[0] = net->channels;
    for (int i = 0; i < net->layers; i++) {
        int before;
        RETURN_IF(net_layer_check(net, &net->layer[i]));
        training->side[i + 1] = layer_output_side(net, &net->layer[i], training->side[i], &before);
        training->channels[i + 1] = net->layer[i].out;
        training->place[i] = training->padded_count;
        training->padded_count += round_up(layer_parameter_count(&net->layer[i]), ALIGNMENT / sizeof(float));
    }
    for (int i = 0; i < net->layers; i++) {
        int last = i + fuses_activation(net, i);
        add_step(training, i, last);
        i = last;
    }
    return 0;
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void at_least(size_t *value, size_t wanted)
{
    *value = *value > wanted ? *value : wanted;
}

struct needs { /* largest of all steps, in values */
    size_t partial, channels, of_images, inner, padded, weights;
};

static struct needs needs_of(const struct training *training)
{
    struct needs needs = {};
    size_t images = training->batch_limit;
    for (int i = 0; i < training->steps; i++) {
        const struct train_step *step = &training->step[i];
        size_t in = (size_t)step->layer->in, border = (size_t)step->padded_side;
        size_t taps = step->layer->kind == LAYER_CONV && step->layer->groups > 1
                          ? (size_t)(step->layer->kernel * step->layer->kernel)
                          : 2;
        size_t most = segments_of(images * (size_t)step->output_side * (size_t)step->output_side, 16 * TILE_ROWS);
        at_least(&needs.partial, (most < SEGMENTS_MAX ? most : SEGMENTS_MAX) * taps * (size_t)step->layer->out);
        at_least(&needs.partial, images * in); /* sums per image */
        at_least(&needs.channels, (size_t)step->layer->out);
        at_least(&needs.of_images, images * in);
        at_least(&needs.inner, images * (size_t)step->layer->reduced);
        at_least(&needs.padded, images * border * border * in);
        at_least(&needs.weights, step->layer->kind == LAYER_CONV ? layer_parameter_count(step->layer) : 0);
    }
    return needs;
}

/*
 * Time runs over the steps forward and, for a kept pass, back again. A map lives from the step that makes it to the last that reads
 * it: in the backward pass the step that follows it. A gradient lives from the map's last reader to the step that made the map.
 */
static size_t place_maps(const struct training *training, size_t map[NET_LAYERS_MAX + 1],
                         size_t flow[NET_LAYERS_MAX + 1])
{
    struct buffer buffer[BUFFERS_MAX];
    int n = training->steps, end = 2 * n, buffers = 0, of_map[BUFFERS_MAX];
    for (int i = -1; i < n; i++) {
        int at = i < 0 ? 0 : training->step[i].target, last_reader = i, kept = training->keep;
        for (int j = i + 1; j < n; j++)
            if (training->step[j].source == at || training->step[j].other == at)
                last_reader = j;
        int last = i == n - 1 ? end : kept ? end - 1 - (i + 1) : last_reader;
        buffer[buffers] = (struct buffer){.bytes = train_values(training, at, training->batch_limit) * sizeof(float),
                                          .first = i < 0 ? 0 : i,
                                          .last = i < 0 && kept ? end : last};
        of_map[buffers++] = at;
        if (!kept)
            continue;
        buffer[buffers] = (struct buffer){.bytes = train_values(training, at, training->batch_limit) * sizeof(float),
                                          .first = i == n - 1 ? n : end - 1 - last_reader,
                                          .last = i < 0 ? end : end - 1 - i};
        of_map[buffers++] = -1 - at;
    }
    size_t bytes = arena_plan(buffer, buffers);
    for (int i = 0; i < buffers; i++)
        *(of_map[i] >= 0 ? &map[of_map[i]] : &flow[-1 - of_map[i]]) = buffer[i].offset;
    return bytes;
}

static void take_maps(struct training *training, struct arena *arena)
{
    size_t map[NET_LAYERS_MAX + 1] = {0}, flow[NET_LAYERS_MAX + 1] = {0}, bytes = place_maps(training, map, flow);
    char *start = (char *)arena_take(arena, bytes);
    training->map[0] = (float *)(start + map[0]);
    training->flow[0] = (float *)(start + flow[0]);
    for (int i = 0; i < training->steps; i++) {
        int target = training->step[i].target;
        training->map[target] = (float *)(start + map[target]);
        training->flow[target] = (float *)(start + flow[target]);
    }
}

static float *take_floats(struct arena *arena, size_t count)
{
    return (float *)arena_take(arena, count * sizeof(float));
}

/* What a step keeps for its backward pass. */
static void take_step(struct training *training, struct train_step *step, struct arena *arena)
{
    size_t images = training->batch_limit, channels = (size_t)step->layer->out;
    if (step->layer->kind == LAYER_BATCH_NORM) {
        step->mean = take_floats(arena, channels);
        step->inverse = take_floats(arena, channels);
    } else if (step->layer->kind == LAYER_SE) {
        step->mean = take_floats(arena, images * channels);
        step->gate = take_floats(arena, images * channels);
        step->inner = take_floats(arena, images * (size_t)step->layer->reduced);
    } else if (step->layer->kind == LAYER_CONV && !net_layer_pointwise(step->layer))
        step->weights = take_floats(arena, layer_parameter_count(step->layer));
}

static void take_memory(struct training *training, struct arena *arena)
{
    struct needs needs = needs_of(training);
    int additions = 0;
    take_maps(training, arena);
    training->parameters = take_floats(arena, training->padded_count);
    training->gradients = take_floats(arena, training->keep ? training->padded_count : 0);
    training->partial = (double *)arena_take(arena, needs.partial * sizeof(double));
    training->sum = take_floats(arena, needs.channels);
    training->product = take_floats(arena, needs.channels);
    training->opened = take_floats(arena, needs.of_images);
    training->mean_gradient = take_floats(arena, needs.of_images);
    training->inner_gradient = take_floats(arena, needs.inner);
    training->padded = take_floats(arena, needs.padded);
    training->padded_gradient = take_floats(arena, training->keep ? needs.padded : 0);
    training->weight_gradient = take_floats(arena, needs.weights);
    training->shared = (double *)arena_take(arena, 2 * needs.channels * sizeof(double));
    training->moment1 = take_floats(arena, training->keep ? training->padded_count : 0);
    training->moment2 = take_floats(arena, training->keep ? training->padded_count : 0);
    training->ranges =
        (struct update_range *)arena_take(arena, training->keep ? TRAIN_RANGES_MAX * sizeof(struct update_range) : 0);
    training->squares = (double *)arena_take(arena, training->keep ? TRAIN_RANGES_MAX * sizeof(double) : 0);
    look_take(&training->look, &training->net, training->batch_limit, arena);
    training->workspace = arena_take(arena, training->workspace_bytes);
    for (int i = 0; i < training->steps; i++) {
        take_step(training, &training->step[i], arena);
        additions += training->step[i].layer->kind == LAYER_ADD;
    }
    training->scales = take_floats(arena, (size_t)additions * training->batch_limit);
    for (int i = 0, addition = 0; i < training->steps; i++)
        if (training->step[i].layer->kind == LAYER_ADD)
            training->step[i].scale = training->scales + (size_t)addition++ * training->batch_limit;
}

/* Whether the device has room for all of it. */
static int check_room(struct training *training)
{
    struct arena counting = {};
    size_t free_bytes;
    take_memory(training, &counting);
    RETURN_IF(context_free_bytes(&free_bytes));
    return counting.used <= free_bytes
               ? 0
               : error_set(ERROR_LIMIT,
                           "%s %s on %zu images at a time needs %zu MiB of device memory and %zu MiB are free: %sfree "
                           "the device",
                           training->keep ? "training" : "calibrating", training->net.name, training->batch_limit,
                           counting.used >> 20, free_bytes >> 20, training->keep ? "lower training.batch, or " : "");
}

/* Of stochastic depth, for all images. */
static size_t scales_count(const struct training *training)
{
    return (size_t)training->steps * training->batch_limit;
}

static size_t pinned_bytes(const struct training *training)
{
    size_t images = training->batch_limit;
    size_t floats = training->padded_count + 1 + train_values(training, 0, images) +
                    train_values(training, training->net.layers, images) + scales_count(training) + 1;
    return floats * sizeof(float) + TRAIN_RANGES_MAX * (sizeof *training->staged_ranges + sizeof(double)) +
           images * sizeof *training->look.staged;
}

static int allocate(struct training *training)
{
    struct arena arena = {};
    size_t images = training->batch_limit;
    take_memory(training, &arena);
    context_tell(training->context, training->keep ? JOB_TRAINING : JOB_CALIBRATION, images, arena.used,
                 pinned_bytes(training), "%s %s on %zu images at a time", training->keep ? "training" : "calibrating",
                 training->net.name, images);
    CHECK_CUDA(cudaMalloc((void **)&training->memory, arena.used));
    arena = (struct arena){training->memory, 0, arena.used};
    take_memory(training, &arena);
    int last = training->net.layers;
    CHECK_CUDA(cudaMallocHost((void **)&training->staged_parameters, (training->padded_count + 1) * sizeof(float)));
    memset(training->staged_parameters, 0,
           training->padded_count * sizeof(float)); /* what lies between layers goes up too */
    CHECK_CUDA(cudaMallocHost((void **)&training->staged_images, train_values(training, 0, images) * sizeof(float)));
    CHECK_CUDA(
        cudaMallocHost((void **)&training->staged_outputs, train_values(training, last, images) * sizeof(float)));
    CHECK_CUDA(cudaMallocHost((void **)&training->staged_scales, (scales_count(training) + 1) * sizeof(float)));
    CHECK_CUDA(cudaMallocHost((void **)&training->staged_ranges, TRAIN_RANGES_MAX * sizeof *training->staged_ranges));
    CHECK_CUDA(cudaMallocHost((void **)&training->staged_squares, TRAIN_RANGES_MAX * sizeof(double)));
    return look_open(&training->look, images);
}

/* --- products for a number of images ------------------------------------------------------------------------------ */

static int open_pointwise(struct training *training, struct train_step *step, size_t count)
{
    size_t in = (size_t)step->layer->in, out = (size_t)step->layer->out;
    size_t pixels = count * (size_t)step->side * (size_t)step->side;
    struct gemm_shape forward = {.transpose_a = 1,
                                 .rows = out,
                                 .columns = pixels,
                                 .depth = in,
                                 .a_stride = in,
                                 .b_stride = in,
                                 .d_stride = out,
                                 .alignment = ALIGNMENT,
                                 .order = GEMM_SPLIT};
    struct gemm_shape backward = forward, weights = forward;
    backward.transpose_a = 0;
    backward.rows = backward.d_stride = in;
    backward.depth = backward.b_stride = out;
    backward.accumulate = train_adds(training, (int)(step - training->step), step->source);
    weights.transpose_a = 0;
    weights.transpose_b = 1;
    weights.rows = weights.d_stride = in;
    weights.columns = weights.b_stride = out;
    weights.depth = pixels;
    const struct gemm_library *library = &training->context->gemm;
    RETURN_IF(gemm_open(library, &forward, &step->forward));
    if (!training->keep)
        return 0;
    RETURN_IF(gemm_open(library, &backward, &step->backward));
    return gemm_open(library, &weights, &step->backward_weights);
}

static int open_dense(struct training *training, struct train_step *step, size_t count)
{
    struct convolution_shape shape = {.images = (int)count,
                                      .in = step->layer->in,
                                      .out = step->layer->out,
                                      .kernel = step->layer->kernel,
                                      .stride = step->layer->stride,
                                      .side = step->padded_side ? step->padded_side : step->side,
                                      .padding = step->padded_side ? 0 : step->before,
                                      .output_side = step->output_side,
                                      .training = training->keep,
                                      .workspace_limit = CONVOLUTION_WORKSPACE_BYTES};
    /* Not what this batch needs: cuDNN may want more for a smaller one. */
    training->workspace_bytes = CONVOLUTION_WORKSPACE_BYTES;
    return convolution_open(&training->context->convolution, &shape, &step->convolution);
}

void train_forget(struct captured *captured)
{
    if (captured->graph)
        cudaGraphExecDestroy(captured->graph);
    *captured = (struct captured){};
}

static void close_products(struct training *training)
{
    train_forget(&training->forward);
    train_forget(&training->backward);
    for (int i = 0; i < training->steps; i++) {
        gemm_close(&training->step[i].forward);
        gemm_close(&training->step[i].backward);
        gemm_close(&training->step[i].backward_weights);
        convolution_close(&training->step[i].convolution);
    }
    training->count = 0;
}

int train_open_products(struct training *training, size_t count)
{
    if (training->count == count)
        return 0;
    close_products(training);
    for (int i = 0; i < training->steps; i++) {
        struct train_step *step = &training->step[i];
        if (net_layer_pointwise(step->layer))
            RETURN_IF(open_pointwise(training, step, count));
        else if (step->layer->kind == LAYER_CONV && step->layer->groups == 1)
            RETURN_IF(open_dense(training, step, count));
    }
    training->count = count;
    return 0;
}

/* --- opening and closing ------------------------------------------------------------------------------------------ */

/* All of it but its memory, for which there is room. */
static int prepare(struct backend_context *context, const struct net *net, size_t batch_limit, int keep,
                   struct training **ret_training)
{
    struct training *training = (struct training *)calloc(1, sizeof *training);
    if (!training)
        return error_set(ERROR_SYSTEM, "out of memory for training %s", net->name);
    training->context = context;
    training->net = *net;
    training->batch_limit = batch_limit;
    training->keep = keep;
    training->momentum = keep ? net->momentum : 1;
    int result = check_cuda(cudaSetDevice(context->device), "cudaSetDevice()", __FILE__, __LINE__);
    if (!result)
        result = make_steps(training);
    if (!result)
        result = train_open_products(training, batch_limit); /* says whether cuDNN wants a workspace */
    if (!result)
        result = check_room(training);
    if (result)
        train_close_one(training);
    else
        *ret_training = training;
    return result;
}

int train_open_one(struct backend_context *context, const struct net *net, size_t batch_limit, int keep,
                   struct training **ret_training)
{
    RETURN_IF(prepare(context, net, batch_limit, keep, ret_training));
    int result = allocate(*ret_training);
    if (result)
        train_close_one(*ret_training);
    return result;
}

/* On every rank's device one, for its share of the batch; the first takes a batch that is too small to share. None takes memory before all
 * have room for it. */
int gpu_open_training(struct backend_context *context, const struct net *net, size_t batch_limit,
                      struct training **ret_training)
{
    struct training *training;
    size_t ranks = (size_t)ranks_count(context), limit = ranks_share(batch_limit, 0, (int)ranks).count;
    at_least(&limit, batch_limit < ranks ? batch_limit : ranks - 1);
    RETURN_IF(prepare(context, net, limit, 1, &training));
    training->rank[0] = training;
    int result = 0;
    for (int r = 1; r < (int)ranks && !result; r++)
        result = prepare(ranks_context(context, r), net, limit, 1, &training->rank[r]);
    for (int r = 0; r < (int)ranks && !result; r++) {
        result = check_cuda(cudaSetDevice(training->rank[r]->context->device), "cudaSetDevice()", __FILE__, __LINE__);
        if (!result)
            result = allocate(training->rank[r]);
    }
    training->whole_limit = batch_limit;
    if (result)
        gpu_close_training(training);
    else
        *ret_training = training;
    return result;
}

void gpu_close_training(struct training *training)
{
    for (int r = training ? RANKS_MAX - 1 : -1; r > 0; r--)
        train_close_one(training->rank[r]);
    train_close_one(training);
}

void train_close_one(struct training *training)
{
    if (!training)
        return;
    cudaSetDevice(training->context->device);
    cudaStreamSynchronize(training->context->compute);
    close_products(training);
    float *staged[] = {training->staged_parameters, training->staged_images, training->staged_outputs,
                       training->staged_scales};
    for (int i = 0; i < 4; i++)
        cudaFreeHost(staged[i]);
    cudaFreeHost(training->staged_ranges);
    cudaFreeHost(training->staged_squares);
    look_close(&training->look);
    cudaFree(training->memory);
    free(training);
}
