/*
 * Fitting heads: all heads take the same step together, each on its own galaxies. Embeddings of a batch are gathered on the host and
 * copied while the batch before is computed, so device memory does not grow with the number of galaxies. Losses stay on the device and
 * are read once an epoch.
 */
#include "gpu/fit.h"
#include "gpu/kernels_fit.h"
#include "gpu/score.h"

#define EVALUATED 256 /* rows at a time */
#define SLOTS     2

struct fit_slot { /* one batch */
    uint16_t *embedding, *votes;
    uint64_t *row;
    float *weight;
    uint16_t *staged_embedding, *staged_votes; /* pinned */
    uint64_t *staged_row;
    float *staged_weight;
    cudaEvent_t uploaded, done;
    int busy;
};

struct fit_job {
    struct backend_context *context;
    const struct fit_request *request;
    struct head_set *heads; /* the best state so far */
    size_t count, inputs, answers, questions, batch, stride, answers_padded, rows,
        values;      /* values: of all padded weights */
    uint64_t step;   /* at the start of this epoch */
    uint64_t *order; /* [heads][train_count] this epoch's rows */
    char *memory;
    float *weight, *gradient, *moment1, *moment2; /* [heads][answers_padded][stride], bias after the inputs */
    float *shift, *scale, *z, *x, *slope;
    double *loss, *total; /* [rows][questions], [heads] */
    uint64_t *failed;     /* [heads] */
    struct tree *tree;
    struct gemm forward, forward_evaluated, backward;
    struct fit_slot slot[SLOTS];
    unsigned turn;
    float *packed; /* host memory, [values] */
};

/* --- planning ----------------------------------------------------------------------------------------------------- */

static void measure(struct fit_job *job)
{
    job->count = (size_t)job->heads->count;
    job->inputs = (size_t)job->heads->inputs;
    job->answers = (size_t)job->heads->answers;
    job->questions = (size_t)job->request->schema->questions;
    job->batch = (size_t)job->request->batch;
    job->stride = round_up(job->inputs + 1, 4);
    job->answers_padded = round_up(job->answers, 4);
    job->rows = job->count * (job->batch > EVALUATED ? job->batch : EVALUATED);
    job->values = job->count * job->answers_padded * job->stride;
}

static void take_memory(struct fit_job *job, struct arena *arena)
{
    float **weights[] = {&job->weight, &job->gradient, &job->moment1, &job->moment2};
    for (int i = 0; i < 4; i++)
        *weights[i] = (float *)arena_take(arena, job->values * sizeof(float));
    job->shift = (float *)arena_take(arena, job->inputs * sizeof(float));
    job->scale = (float *)arena_take(arena, job->inputs * sizeof(float));
    job->z = (float *)arena_take(arena, job->rows * job->stride * sizeof(float));
    job->x = (float *)arena_take(arena, job->rows * job->answers_padded * sizeof(float));
    job->slope = (float *)arena_take(arena, job->rows * job->answers_padded * sizeof(float));
    job->loss = (double *)arena_take(arena, job->rows * job->questions * sizeof(double));
    job->total = (double *)arena_take(arena, job->count * sizeof(double));
    job->failed = (uint64_t *)arena_take(arena, job->count * sizeof(uint64_t));
    job->tree = (struct tree *)arena_take(arena, sizeof(struct tree));
    for (int i = 0; i < SLOTS; i++) {
        job->slot[i].embedding = (uint16_t *)arena_take(arena, job->rows * job->inputs * sizeof(uint16_t));
        job->slot[i].votes = (uint16_t *)arena_take(arena, job->rows * job->answers * sizeof(uint16_t));
        job->slot[i].row = (uint64_t *)arena_take(arena, job->rows * sizeof(uint64_t));
        job->slot[i].weight = (float *)arena_take(arena, job->rows * sizeof(float));
    }
}

/* Pinned memory of all slots. */
static size_t pinned_bytes(const struct fit_job *job)
{
    return SLOTS * job->rows * ((job->inputs + job->answers) * sizeof(uint16_t) + sizeof(uint64_t) + sizeof(float));
}

static int open_slot(const struct fit_job *job, struct fit_slot *slot)
{
    CHECK_CUDA(cudaMallocHost((void **)&slot->staged_embedding, job->rows * job->inputs * sizeof(uint16_t)));
    CHECK_CUDA(cudaMallocHost((void **)&slot->staged_votes, job->rows * job->answers * sizeof(uint16_t)));
    CHECK_CUDA(cudaMallocHost((void **)&slot->staged_row, job->rows * sizeof(uint64_t)));
    CHECK_CUDA(cudaMallocHost((void **)&slot->staged_weight, job->rows * sizeof(float)));
    CHECK_CUDA(cudaEventCreateWithFlags(&slot->uploaded, cudaEventDisableTiming));
    CHECK_CUDA(cudaEventCreateWithFlags(&slot->done, cudaEventDisableTiming));
    return 0;
}

static int open_gemms(struct fit_job *job)
{
    struct gemm_shape forward = {.transpose_a = 1,
                                 .rows = job->answers_padded,
                                 .columns = job->batch,
                                 .depth = job->stride,
                                 .a_stride = job->stride,
                                 .b_stride = job->stride,
                                 .d_stride = job->answers_padded,
                                 .alignment = 16,
                                 .order = GEMM_FIXED};
    struct gemm_shape evaluated = forward, backward = forward;
    evaluated.columns = EVALUATED;
    backward.transpose_a = 0;
    backward.transpose_b = 1;
    backward.rows = job->stride;
    backward.columns = job->answers_padded;
    backward.depth = job->batch;
    backward.a_stride = job->stride;
    backward.b_stride = job->answers_padded;
    backward.d_stride = job->stride;
    RETURN_IF(gemm_open(&job->context->gemm, &forward, &job->forward));
    RETURN_IF(gemm_open(&job->context->gemm, &evaluated, &job->forward_evaluated));
    return gemm_open(&job->context->gemm, &backward, &job->backward);
}

/* Between one of the head_set's arrays with its biases and the padded rows; `out` copies to the head_set. `bias` NULL: the array has
 * the bias after the inputs of each answer. */
static void pack(struct fit_job *job, float *array, float *bias, int out)
{
    size_t width = job->inputs + (bias ? 0 : 1);
    for (size_t output = 0; output < job->count * job->answers; output++) {
        size_t head = output / job->answers, answer = output % job->answers;
        float *packed = job->packed + (head * job->answers_padded + answer) * job->stride,
              *plain = array + output * width;
        memcpy(out ? plain : packed, out ? packed : plain, width * sizeof(float));
        if (bias)
            *(out ? bias + output : packed + job->inputs) = *(out ? packed + job->inputs : bias + output);
    }
}

static int exchange(void *context, int out)
{
    struct fit_job *job = (struct fit_job *)context;
    struct head_set *heads = job->heads;
    const struct {
        float *device, *array, *bias;
    } pairs[] = {
        {job->weight,  heads->weight,  heads->bias},
        {job->moment1, heads->moment1, NULL       },
        {job->moment2, heads->moment2, NULL       },
    };
    for (int i = 0; i < 3; i++) {
        memset(job->packed, 0, job->values * sizeof(float));
        if (out)
            RETURN_IF(context_download(job->context, job->packed, pairs[i].device, job->values * sizeof(float)));
        pack(job, pairs[i].array, pairs[i].bias, out);
        if (!out)
            RETURN_IF(context_upload(job->context, pairs[i].device, job->packed, job->values * sizeof(float)));
    }
    return 0;
}

static int open_job(struct fit_job *job)
{
    struct arena arena = {};
    struct tree tree;
    size_t free_bytes;
    CHECK_CUDA(cudaSetDevice(job->context->device));
    measure(job);
    take_memory(job, &arena);
    RETURN_IF(context_free_bytes(&free_bytes));
    if (arena.used > free_bytes)
        return error_set(
            ERROR_LIMIT,
            "fitting %zu heads in batches of %zu needs %zu MiB of device memory and %zu MiB are free: free "
            "the device or lower heads.batch",
            job->count, job->batch, arena.used >> 20, free_bytes >> 20);
    job->order = (uint64_t *)calloc(job->count * job->request->train_count, sizeof *job->order);
    job->packed = (float *)calloc(job->values, sizeof *job->packed);
    if (!job->order || !job->packed)
        return error_set(ERROR_SYSTEM, "out of memory for fitting %zu heads", job->count);
    context_tell(job->context, JOB_FIT, job->rows, arena.used, pinned_bytes(job), "fitting %zu heads in batches of %zu",
                 job->count, job->batch);
    CHECK_CUDA(cudaMalloc((void **)&job->memory, arena.used));
    arena = (struct arena){job->memory, 0, arena.used};
    take_memory(job, &arena);
    for (int i = 0; i < SLOTS; i++)
        RETURN_IF(open_slot(job, &job->slot[i]));
    tree_of(job->request->schema, &tree);
    RETURN_IF(context_upload(job->context, job->tree, &tree, sizeof tree));
    RETURN_IF(context_upload(job->context, job->shift, job->heads->shift, job->inputs * sizeof(float)));
    RETURN_IF(context_upload(job->context, job->scale, job->heads->scale, job->inputs * sizeof(float)));
    CHECK_CUDA(cudaMemsetAsync(job->z, 0, job->rows * job->stride * sizeof(float), job->context->compute));
    CHECK_CUDA(cudaMemsetAsync(job->slope, 0, job->rows * job->answers_padded * sizeof(float), job->context->compute));
    return open_gemms(job);
}

static void close_job(struct fit_job *job)
{
    cudaStreamSynchronize(job->context->copy);
    cudaStreamSynchronize(job->context->compute);
    gemm_close(&job->forward);
    gemm_close(&job->forward_evaluated);
    gemm_close(&job->backward);
    for (int i = 0; i < SLOTS; i++) {
        struct fit_slot *slot = &job->slot[i];
        void *staged[] = {slot->staged_embedding, slot->staged_votes, slot->staged_row, slot->staged_weight};
        for (int j = 0; j < 4; j++)
            cudaFreeHost(staged[j]);
        if (slot->uploaded)
            cudaEventDestroy(slot->uploaded);
        if (slot->done)
            cudaEventDestroy(slot->done);
    }
    cudaFree(job->memory);
    free(job->order);
    free(job->packed);
}

/* --- batches ------------------------------------------------------------------------------------------------------ */

/* The next slot, free to be filled. */
static int next_slot(struct fit_job *job, struct fit_slot **ret_slot)
{
    struct fit_slot *slot = &job->slot[job->turn++ % SLOTS];
    if (slot->busy)
        CHECK_CUDA(cudaEventSynchronize(slot->done));
    slot->busy = 0;
    *ret_slot = slot;
    return 0;
}

/* Puts one galaxy into place `at`; NO_ROW fills up. */
static void stage_row(struct fit_job *job, struct fit_slot *slot, size_t at, uint64_t row, uint64_t step, float weight)
{
    const struct fit_request *request = job->request;
    slot->staged_row[at] = row;
    slot->staged_weight[at] = weight;
    if (row == NO_ROW) {
        memset(slot->staged_embedding + at * job->inputs, 0, job->inputs * sizeof(uint16_t));
        memset(slot->staged_votes + at * job->answers, 0, job->answers * sizeof(uint16_t));
        return;
    }
    uint64_t view = request->views > 1 ? (row + step) % (uint64_t)request->views : 0;
    const char *embedding = (const char *)request->embedding + row * request->embedding_stride_bytes;
    memcpy(slot->staged_embedding + at * job->inputs, embedding + view * job->inputs * sizeof(uint16_t),
           job->inputs * sizeof(uint16_t));
    memcpy(slot->staged_votes + at * job->answers, (const char *)request->votes + row * request->votes_stride_bytes,
           job->answers * sizeof(uint16_t));
}

static int upload_slot(struct fit_job *job, struct fit_slot *slot, size_t rows)
{
    cudaStream_t copy = job->context->copy;
    const struct {
        void *device, *staged;
        size_t bytes;
    } parts[] = {
        {slot->embedding, slot->staged_embedding, rows * job->inputs * sizeof(uint16_t) },
        {slot->votes,     slot->staged_votes,     rows * job->answers * sizeof(uint16_t)},
        {slot->row,       slot->staged_row,       rows * sizeof(uint64_t)               },
        {slot->weight,    slot->staged_weight,    rows * sizeof(float)                  },
    };
    for (int i = 0; i < 4; i++)
        CHECK_CUDA(cudaMemcpyAsync(parts[i].device, parts[i].staged, parts[i].bytes, cudaMemcpyHostToDevice, copy));
    CHECK_CUDA(cudaEventRecord(slot->uploaded, copy));
    CHECK_CUDA(cudaStreamWaitEvent(job->context->compute, slot->uploaded, 0));
    return 0;
}

static int free_slot(struct fit_job *job, struct fit_slot *slot)
{
    CHECK_CUDA(cudaEventRecord(slot->done, job->context->compute));
    slot->busy = 1;
    return 0;
}

/* Logits of `rows` staged rows into job->x, for all heads; losses into job->loss. `train`: rows are [heads][batch], masked by `step`. */
static int run_forward(struct fit_job *job, const struct fit_slot *slot, int train, uint32_t step)
{
    cudaStream_t compute = job->context->compute;
    size_t batch = train ? job->batch : EVALUATED, period = train ? job->count * batch : batch;
    struct standardise::arguments standard = {slot->embedding,         job->shift, job->scale, job->z, (int)job->inputs,
                                              job->heads->unit_length, job->stride};
    struct drop_inputs::arguments drop = {job->z,
                                          slot->row,
                                          period,
                                          batch,
                                          (int)job->inputs,
                                          (int)job->stride,
                                          train,
                                          job->heads->dropout,
                                          job->request->seed,
                                          step,
                                          0};
    struct row_losses::arguments losses = {job->tree,
                                           job->x,
                                           slot->votes,
                                           slot->weight,
                                           train ? job->slope : NULL,
                                           job->loss,
                                           job->count * batch,
                                           period,
                                           (int)job->answers_padded};
    struct sum_losses::arguments sums = {job->loss, slot->row, job->total,         job->failed,
                                         batch,     period,    (int)job->questions};
    RETURN_IF(launch<standardise>(compute, period, standard));
    RETURN_IF(launch<drop_inputs>(compute, blocks_of(period * job->stride), drop));
    for (size_t head = 0; head < job->count; head++)
        RETURN_IF(gemm_run(&job->context->gemm, train ? &job->forward : &job->forward_evaluated,
                           job->weight + head * job->answers_padded * job->stride,
                           job->z + (train ? head * batch * job->stride : 0),
                           job->x + head * batch * job->answers_padded, compute));
    RETURN_IF(launch<row_losses>(compute, blocks_for(losses.rows * job->questions, THREADS), losses));
    return launch<sum_losses>(compute, job->count, sums);
}

static int run_backward(struct fit_job *job, uint64_t steps_taken)
{
    double t = (double)steps_taken;
    for (size_t head = 0; head < job->count; head++)
        RETURN_IF(gemm_run(&job->context->gemm, &job->backward, job->z + head * job->batch * job->stride,
                           job->slope + head * job->batch * job->answers_padded,
                           job->gradient + head * job->answers_padded * job->stride, job->context->compute));
    struct adam_heads::arguments adam = {.weight = job->weight,
                                         .moment1 = job->moment1,
                                         .moment2 = job->moment2,
                                         .gradient = job->gradient,
                                         .count = job->values,
                                         .stride = (int)job->stride,
                                         .inputs = (int)job->inputs,
                                         .learning_rate = job->request->learning_rate,
                                         .bias_rate = job->request->bias_rate,
                                         .decay = job->request->weight_decay,
                                         .correction1 = (float)(1 / (1 - pow(0.9, t))),
                                         .correction2 = (float)(1 / sqrt(1 - pow(0.999, t)))};
    return launch<adam_heads>(job->context->compute, blocks_of(job->values), adam);
}

/* --- epochs ------------------------------------------------------------------------------------------------------- */

static void shuffle(void *context, long head, int worker)
{
    struct fit_job *job = (struct fit_job *)context;
    (void)worker;
    fit_shuffle(job->request, (int)head, job->step, job->order + (size_t)head * job->request->train_count);
}

static int train_epoch(struct fit_job *job)
{
    size_t count = job->request->train_count;
    uint64_t step = job->step;
    workers_run(job->context->workers, shuffle, job, (long)job->count);
    for (size_t first = 0; first < count; first += job->batch, step++) {
        struct fit_slot *slot;
        size_t rows = count - first < job->batch ? count - first : job->batch;
        RETURN_IF(next_slot(job, &slot));
        for (size_t head = 0; head < job->count; head++)
            for (size_t i = 0; i < job->batch; i++) {
                uint64_t row = i < rows ? job->order[head * count + first + i] : NO_ROW;
                float weight = i < rows ? 1.0f / (float)rows * fit_bag_weight(job->request, row, (uint32_t)head) : 0;
                stage_row(job, slot, head * job->batch + i, row, step, weight);
            }
        RETURN_IF(upload_slot(job, slot, job->count * job->batch));
        RETURN_IF(run_forward(job, slot, 1, (uint32_t)step));
        RETURN_IF(free_slot(job, slot));
        RETURN_IF(run_backward(job, step + 1));
    }
    return 0;
}

static int evaluate(struct fit_job *job, const uint64_t *row, size_t count)
{
    CHECK_CUDA(cudaMemsetAsync(job->total, 0, job->count * sizeof(double), job->context->compute));
    for (size_t first = 0; first < count; first += EVALUATED) {
        struct fit_slot *slot;
        RETURN_IF(next_slot(job, &slot));
        for (size_t i = 0; i < EVALUATED; i++)
            stage_row(job, slot, i, first + i < count ? row[first + i] : NO_ROW, 0, 0);
        RETURN_IF(upload_slot(job, slot, EVALUATED));
        RETURN_IF(run_forward(job, slot, 0, 0));
        RETURN_IF(free_slot(job, slot));
    }
    return 0;
}

static int run(void *context, int train, uint64_t step, const uint64_t *row, size_t count, double *loss,
               uint64_t *failed_row)
{
    struct fit_job *job = (struct fit_job *)context;
    job->step = step;
    CHECK_CUDA(cudaMemsetAsync(job->failed, 0xff, job->count * sizeof(uint64_t), job->context->compute));
    CHECK_CUDA(cudaMemsetAsync(job->total, 0, job->count * sizeof(double), job->context->compute));
    if (train)
        RETURN_IF(train_epoch(job));
    RETURN_IF(evaluate(job, row, count));
    RETURN_IF(context_download(job->context, loss, job->total, job->count * sizeof *loss));
    return context_download(job->context, failed_row, job->failed, job->count * sizeof *failed_row);
}

int gpu_head_fit(struct backend_context *context, const struct fit_request *request, struct head_set *heads,
                 struct fit_report *ret_report)
{
    *ret_report = (struct fit_report){.train_loss = NAN, .validation_loss = NAN, .bad_row = NO_ROW};
    RETURN_IF(fit_request_check(request, heads));
    struct fit_job *job = (struct fit_job *)calloc(1, sizeof *job);
    if (!job)
        return error_set(ERROR_SYSTEM, "out of memory for fitting heads");
    job->context = context;
    job->request = request;
    job->heads = heads;
    struct fit_learner learner = {run, exchange, job};
    int result = open_job(job);
    if (!result)
        result = fit_epochs(request, heads, &learner, ret_report);
    close_job(job);
    free(job);
    return result;
}
