/*
 * Scoring the pool: blocks of rows of fixed size go through all heads and passes as one matrix product per view, then are reduced on
 * the device. Two slots alternate: while one computes, the next one's embeddings are gathered and copied. A row's result does not
 * depend on the rows beside it.
 */
#include "gpu/score.h"
#include "gpu/ranks.h"
#include "gpu/kernels_score.h"

#ifdef __CUDACC__
#define SCORE_ROWS    4096 /* of a block, and as many as fit */
#define INFORM_BLOCKS 512
#else
#define SCORE_ROWS    32
#define INFORM_BLOCKS 2
#endif
#define SLOTS       2
#define ROWS_MIN    16
#define SCORE_PART  2                   /* measure.h */
#define WEIGHTS_MAX ((size_t)512 << 20) /* bytes of masked weights */

struct score_slot {
    uint16_t *embedding, *votes_due; /* on the device */
    float *output;
    uint16_t *staged_embedding, *staged_votes_due; /* pinned */
    float *staged_output;
    cudaEvent_t uploaded, done;
    size_t first, count; /* rows in flight */
};

struct score_job {
    struct backend_context *context;
    const struct score_request *request;
    struct pass_columns columns;
    size_t inputs, x_stride, rows, output_floats; /* rows of a block; floats of a row's output */
    int stride, votes_max, answers_max;
    char *memory;
    float *masked, *masked_bias, *weight, *bias, *shift, *scale, *factor, *z, *x, *alpha, *reached;
    double *work;
    struct tree *tree;
    struct gemm gemm[INFORMATION_PASSES_MAX]; /* one per view */
    struct score_slot slot[SLOTS];
};

void tree_of(const struct schema *schema, struct tree *ret_tree)
{
    memset(ret_tree, 0, sizeof *ret_tree);
    ret_tree->questions = schema->questions;
    ret_tree->answers = schema->answers;
    for (int q = 0; q < schema->questions; q++) {
        ret_tree->first[q] = (short)schema->question[q].first;
        ret_tree->count[q] = (short)schema->question[q].count;
        ret_tree->parent[q] = (short)schema->question[q].parent;
    }
    for (int a = 0; a < schema->answers; a++)
        ret_tree->question[a] = (short)schema->answer[a].question;
}

/* --- planning ----------------------------------------------------------------------------------------------------- */

static void measure(struct score_job *job)
{
    const struct score_request *request = job->request;
    const struct schema *schema = request->schema;
    int views = request->views ? request->views : 1;
    job->columns = (struct pass_columns){request->heads->answers, request->passes, views, request->passes / views, 0};
    job->columns.per_view = (int)round_up((size_t)(job->columns.answers * job->columns.passes_per_view), 4);
    job->inputs = (size_t)request->heads->inputs;
    job->x_stride = (size_t)(views * job->columns.per_view);
    job->stride = (int)round_up((size_t)request->passes, INFORMATION_LANES);
    job->votes_max = 1;
    for (size_t i = 0; request->reducer == REDUCE_INFORMATION && i < request->count; i++) {
        int votes = information_votes(request->votes_due[i]);
        job->votes_max = votes > job->votes_max ? votes : job->votes_max;
    }
    for (int q = 0; q < schema->questions; q++)
        job->answers_max = schema->question[q].count > job->answers_max ? schema->question[q].count : job->answers_max;
    job->output_floats = request->reducer == REDUCE_DUMP ? (size_t)request->passes * (size_t)schema->answers
                                                         : (size_t)information_row_floats(schema);
}

static void take_memory(struct score_job *job, struct arena *arena)
{
    const struct head_set *heads = job->request->heads;
    size_t views = (size_t)job->columns.views, answers = (size_t)heads->answers,
           outputs = (size_t)heads->count * answers;
    size_t groups = INFORM_BLOCKS * INFORM_GROUPS, row = job->rows;
    job->masked = (float *)arena_take(arena, job->x_stride * job->inputs * sizeof(float));
    job->masked_bias = (float *)arena_take(arena, job->x_stride * sizeof(float));
    job->weight = (float *)arena_take(arena, outputs * job->inputs * sizeof(float));
    job->bias = (float *)arena_take(arena, outputs * sizeof(float));
    job->shift = (float *)arena_take(arena, job->inputs * sizeof(float));
    job->scale = (float *)arena_take(arena, job->inputs * sizeof(float));
    job->factor = (float *)arena_take(arena, answers * sizeof(float));
    job->tree = (struct tree *)arena_take(arena, sizeof(struct tree));
    job->z = (float *)arena_take(arena, row * views * job->inputs * sizeof(float));
    job->x = (float *)arena_take(arena, row * job->x_stride * sizeof(float));
    job->alpha = (float *)arena_take(arena, row * answers * (size_t)job->stride * sizeof(float));
    job->reached = (float *)arena_take(arena, row * (size_t)job->request->schema->questions * sizeof(float));
    job->work = (double *)arena_take(arena, groups * inform_doubles(job->votes_max, job->stride) * sizeof(double));
    for (int i = 0; i < SLOTS; i++) {
        job->slot[i].embedding = (uint16_t *)arena_take(arena, row * views * job->inputs * sizeof(uint16_t));
        job->slot[i].votes_due = (uint16_t *)arena_take(arena, row * sizeof(uint16_t));
        job->slot[i].output = (float *)arena_take(arena, row * job->output_floats * sizeof(float));
    }
}

static size_t bytes_for(void *argument, size_t rows)
{
    struct score_job *job = (struct score_job *)argument;
    struct arena counting = {};
    job->rows = rows;
    take_memory(job, &counting);
    return counting.used;
}

/* As many rows at a time as fit. */
static int choose_rows(struct score_job *job, struct job_size *ret_size)
{
    struct device_memory memory;
    size_t weights = job->x_stride * job->inputs * sizeof(float);
    if (weights > WEIGHTS_MAX)
        return error_set(ERROR_LIMIT,
                         "%d passes of %d answers need %zu MiB of masked weights, more than %zu: use fewer passes",
                         job->request->passes, job->request->heads->answers, weights >> 20, WEIGHTS_MAX >> 20);
    RETURN_IF(context_memory(&memory));
    *ret_size = measure_size(&memory, SCORE_PART, SCORE_ROWS, ROWS_MIN, bytes_for, job);
    return ret_size->chosen
               ? 0
               : error_set(ERROR_LIMIT,
                           "%zu MiB of device memory are free, too little for scoring with %d passes: free the device "
                           "or use fewer passes",
                           memory.free >> 20, job->request->passes);
}

/* Pinned memory of all slots. */
static size_t pinned_bytes(const struct score_job *job)
{
    return SLOTS * job->rows *
           (((size_t)job->columns.views * job->inputs + 1) * sizeof(uint16_t) + job->output_floats * sizeof(float));
}

static int open_slot(const struct score_job *job, struct score_slot *slot)
{
    CHECK_CUDA(cudaMallocHost((void **)&slot->staged_embedding,
                              job->rows * (size_t)job->columns.views * job->inputs * sizeof(uint16_t)));
    CHECK_CUDA(cudaMallocHost((void **)&slot->staged_votes_due, job->rows * sizeof(uint16_t)));
    CHECK_CUDA(cudaMallocHost((void **)&slot->staged_output, job->rows * job->output_floats * sizeof(float)));
    CHECK_CUDA(cudaEventCreateWithFlags(&slot->uploaded, cudaEventDisableTiming));
    CHECK_CUDA(cudaEventCreateWithFlags(&slot->done, cudaEventDisableTiming));
    return 0;
}

static int open_gemms(struct score_job *job)
{
    size_t inputs = job->inputs, views = (size_t)job->columns.views, per_view = (size_t)job->columns.per_view;
    for (size_t view = 0; view < views; view++) {
        struct gemm_shape shape = {.transpose_a = 1,
                                   .rows = per_view,
                                   .columns = job->rows,
                                   .depth = inputs,
                                   .a_stride = inputs,
                                   .b_stride = views * inputs,
                                   .d_stride = job->x_stride,
                                   .bias = job->masked_bias + view * per_view,
                                   .alignment = inputs % 4 ? sizeof(float) : 16,
                                   .order = GEMM_FIXED};
        RETURN_IF(gemm_open(&job->context->gemm, &shape, &job->gemm[view]));
    }
    return 0;
}

/* What stays the same for the whole job. */
static int upload(struct score_job *job)
{
    const struct head_set *heads = job->request->heads;
    size_t outputs = (size_t)heads->count * (size_t)heads->answers;
    float factor[SCHEMA_ANSWERS_MAX];
    struct tree tree;
    tree_of(job->request->schema, &tree);
    for (int a = 0; a < heads->answers; a++)
        factor[a] = heads->factor[tree.question[a]];
    RETURN_IF(context_upload(job->context, job->weight, heads->weight, outputs * job->inputs * sizeof(float)));
    RETURN_IF(context_upload(job->context, job->bias, heads->bias, outputs * sizeof(float)));
    RETURN_IF(context_upload(job->context, job->shift, heads->shift, job->inputs * sizeof(float)));
    RETURN_IF(context_upload(job->context, job->scale, heads->scale, job->inputs * sizeof(float)));
    RETURN_IF(context_upload(job->context, job->factor, factor, (size_t)heads->answers * sizeof(float)));
    return context_upload(job->context, job->tree, &tree, sizeof tree);
}

static int open_job(struct score_job *job, const struct job_size *size)
{
    struct arena arena = {};
    char smaller[SMALLER_BYTES];
    const struct head_set *heads = job->request->heads;
    CHECK_CUDA(cudaSetDevice(job->context->device));
    measure(job);
    job->rows = size->chosen;
    take_memory(job, &arena);
    context_tell_smaller(size, smaller);
    int dump = job->request->reducer == REDUCE_DUMP;
    context_tell(job->context, dump ? JOB_DUMP : JOB_SCORE, job->rows, arena.used, pinned_bytes(job),
                 "scoring %zu galaxies at a time%s with %d passes%s", job->rows, smaller, job->request->passes,
                 dump ? ", each of them kept," : "");
    CHECK_CUDA(cudaMalloc((void **)&job->memory, arena.used));
    arena = (struct arena){job->memory, 0, arena.used};
    take_memory(job, &arena);
    for (int i = 0; i < SLOTS; i++)
        RETURN_IF(open_slot(job, &job->slot[i]));
    RETURN_IF(upload(job));
    RETURN_IF(open_gemms(job));
    CHECK_CUDA(cudaMemsetAsync(job->z, 0, job->rows * (size_t)job->columns.views * job->inputs * sizeof(float),
                               job->context->compute));
    struct mask_weights::arguments mask = {job->weight,    job->bias,         job->masked,   job->masked_bias,
                                           job->columns,   heads->count,      heads->inputs, heads->model,
                                           heads->dropout, job->request->seed};
    return launch<mask_weights>(job->context->compute, blocks_of(job->x_stride * job->inputs), mask);
}

static void close_job(struct score_job *job)
{
    cudaStreamSynchronize(job->context->copy);
    cudaStreamSynchronize(job->context->compute);
    for (int view = 0; view < job->columns.views; view++)
        gemm_close(&job->gemm[view]);
    for (int i = 0; i < SLOTS; i++) {
        struct score_slot *slot = &job->slot[i];
        cudaFreeHost(slot->staged_embedding);
        cudaFreeHost(slot->staged_votes_due);
        cudaFreeHost(slot->staged_output);
        if (slot->uploaded)
            cudaEventDestroy(slot->uploaded);
        if (slot->done)
            cudaEventDestroy(slot->done);
    }
    cudaFree(job->memory);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

static int collect(struct score_job *job, struct score_slot *slot)
{
    if (!slot->count)
        return 0;
    CHECK_CUDA(cudaEventSynchronize(slot->done));
    memcpy(job->request->output + slot->first * job->output_floats, slot->staged_output,
           slot->count * job->output_floats * sizeof(float));
    slot->count = 0;
    return 0;
}

static int stage(struct score_job *job, struct score_slot *slot, size_t first, size_t count)
{
    const struct score_request *request = job->request;
    cudaStream_t copy = job->context->copy;
    size_t values = (size_t)job->columns.views * job->inputs;
    for (size_t i = 0; i < count; i++) {
        uint64_t row = request->row ? request->row[first + i] : first + i;
        memcpy(slot->staged_embedding + i * values,
               (const char *)request->embedding + row * request->embedding_stride_bytes, values * sizeof(uint16_t));
        slot->staged_votes_due[i] = request->votes_due ? request->votes_due[first + i] : 1;
    }
    CHECK_CUDA(cudaMemcpyAsync(slot->embedding, slot->staged_embedding, count * values * sizeof(uint16_t),
                               cudaMemcpyHostToDevice, copy));
    CHECK_CUDA(cudaMemcpyAsync(slot->votes_due, slot->staged_votes_due, count * sizeof(uint16_t),
                               cudaMemcpyHostToDevice, copy));
    CHECK_CUDA(cudaEventRecord(slot->uploaded, copy));
    CHECK_CUDA(cudaStreamWaitEvent(job->context->compute, slot->uploaded, 0));
    slot->first = first;
    slot->count = count;
    return 0;
}

/* Concentrations of `count` rows into job->alpha, or as a dump into the slot's output. */
static int run_heads(struct score_job *job, struct score_slot *slot)
{
    const struct score_request *request = job->request;
    cudaStream_t compute = job->context->compute;
    int dump = request->reducer == REDUCE_DUMP;
    size_t views = (size_t)job->columns.views, values = (size_t)(dump ? request->passes : job->stride);
    struct standardise::arguments standard = {
        slot->embedding, job->shift, job->scale, job->z, (int)job->inputs, request->heads->unit_length, job->inputs};
    struct concentrate::arguments arguments = {
        job->x, job->factor, dump ? slot->output : job->alpha, job->columns, slot->count, job->stride, dump};
    RETURN_IF(launch<standardise>(compute, slot->count * views, standard));
    for (size_t view = 0; view < views; view++)
        RETURN_IF(gemm_run(&job->context->gemm, &job->gemm[view],
                           job->masked + view * (size_t)job->columns.per_view * job->inputs,
                           job->z + view * job->inputs, job->x + view * (size_t)job->columns.per_view, compute));
    return launch<concentrate>(compute, blocks_of(slot->count * values * (size_t)request->heads->answers), arguments);
}

static int run_inform(struct score_job *job, struct score_slot *slot)
{
    const struct score_request *request = job->request;
    size_t items = slot->count * (size_t)request->schema->questions, groups = INFORM_BLOCKS * INFORM_GROUPS;
    size_t blocks = items < groups ? (items + INFORM_GROUPS - 1) / INFORM_GROUPS : INFORM_BLOCKS;
    struct inform::arguments inform_arguments = {.tree = job->tree,
                                                 .alpha = job->alpha,
                                                 .votes_due = slot->votes_due,
                                                 .work = job->work,
                                                 .output = slot->output,
                                                 .rows = slot->count,
                                                 .kind = request->kind,
                                                 .passes = request->passes,
                                                 .stride = job->stride,
                                                 .votes_max = job->votes_max,
                                                 .questions = request->schema->questions,
                                                 .answers_max = job->answers_max,
                                                 .row_floats = (int)job->output_floats,
                                                 .rounds = (int)((items + groups - 1) / groups)};
    struct inform_totals::arguments totals = {job->tree, slot->output, job->reached, slot->count,
                                              (int)job->output_floats};
    RETURN_IF(launch<inform>(job->context->compute, blocks, inform_arguments));
    return launch<inform_totals>(job->context->compute, blocks_for(slot->count, THREADS), totals);
}

static int start(struct score_job *job, struct score_slot *slot, size_t first, size_t count)
{
    cudaStream_t compute = job->context->compute;
    RETURN_IF(stage(job, slot, first, count));
    RETURN_IF(run_heads(job, slot));
    if (job->request->reducer == REDUCE_INFORMATION)
        RETURN_IF(run_inform(job, slot));
    CHECK_CUDA(cudaMemcpyAsync(slot->staged_output, slot->output, count * job->output_floats * sizeof(float),
                               cudaMemcpyDeviceToHost, compute));
    CHECK_CUDA(cudaEventRecord(slot->done, compute));
    return 0;
}

static int run(struct score_job *job, backend_stop *stop, void *stop_context)
{
    size_t count = job->request->count;
    for (size_t first = 0, turn = 0; first < count; first += job->rows, turn++) {
        struct score_slot *slot = &job->slot[turn % SLOTS];
        size_t left = count - first;
        if (stop(stop_context))
            return error_set(ERROR_CANCELLED, "scoring was cancelled after %zu of %zu galaxies", first, count);
        RETURN_IF(collect(job, slot));
        RETURN_IF(start(job, slot, first, left < job->rows ? left : job->rows));
    }
    for (int i = 0; i < SLOTS; i++)
        RETURN_IF(collect(job, &job->slot[i]));
    return 0;
}

/* `request` on one device. */
static int score_some(struct backend_context *context, const struct score_request *request, const struct job_size *size,
                      backend_stop *stop, void *stop_context)
{
    struct score_job *job = (struct score_job *)calloc(1, sizeof *job);
    if (!job)
        return error_set(ERROR_SYSTEM, "out of memory for scoring");
    job->context = context;
    job->request = request;
    int result = open_job(job, size);
    if (!result)
        result = run(job, stop, stop_context);
    close_job(job);
    free(job);
    return result;
}

struct score_all {
    struct backend_context *context;
    const struct score_request *request;
    struct job_size size[RANKS_MAX]; /* that each rank could take */
    struct job_size smallest;
    backend_stop *stop;
    void *stop_context;
    int stopped; /* atomic */
};

/* For all rows, however few are this rank's. */
static int choose_rank(void *argument, int rank)
{
    struct score_all *all = (struct score_all *)argument;
    struct score_job *job = (struct score_job *)calloc(1, sizeof *job);
    if (!job)
        return error_set(ERROR_SYSTEM, "out of memory for scoring");
    job->request = all->request;
    int result =
        check_cuda(cudaSetDevice(ranks_context(all->context, rank)->device), "cudaSetDevice()", __FILE__, __LINE__);
    measure(job);
    if (!result)
        result = choose_rows(job, &all->size[rank]);
    free(job);
    return result;
}

/* The first rank asks whether to stop, the others see what it heard. */
static int ask(void *argument)
{
    struct score_all *all = (struct score_all *)argument;
    int stopped = all->stop && all->stop(all->stop_context);
    __atomic_store_n(&all->stopped, stopped, __ATOMIC_RELEASE);
    return stopped;
}

static int see(void *argument)
{
    return __atomic_load_n(&((struct score_all *)argument)->stopped, __ATOMIC_ACQUIRE);
}

/* A rank's share of the rows. */
static int score_rank(void *argument, int rank)
{
    struct score_all *all = (struct score_all *)argument;
    struct score_request own = *all->request;
    struct share share = ranks_share(own.count, rank, ranks_count(all->context));
    size_t floats = own.reducer == REDUCE_DUMP ? (size_t)own.passes * (size_t)own.schema->answers
                                               : (size_t)information_row_floats(own.schema);
    own.count = share.count;
    own.output += share.first * floats;
    own.votes_due = own.votes_due ? own.votes_due + share.first : NULL;
    if (own.row)
        own.row += share.first;
    else
        own.embedding += share.first * own.embedding_stride_bytes / sizeof *own.embedding;
    return share.count ? score_some(ranks_context(all->context, rank), &own, &all->smallest, rank ? see : ask, all) : 0;
}

int gpu_head_score(struct backend_context *context, const struct score_request *request, backend_stop *stop,
                   void *stop_context)
{
    struct score_all all = {.context = context, .request = request, .stop = stop, .stop_context = stop_context};
    RETURN_IF(score_request_check(request));
    RETURN_IF(ranks_run(context, choose_rank, &all));
    all.smallest = ranks_smallest(all.size, ranks_count(context));
    return ranks_run(context, score_rank, &all);
}
