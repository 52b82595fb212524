/* See ranks.h. The only file that uses NCCL. */
#include "gpu/ranks.h"

#include <sched.h>

struct ranks {
    int count;
    struct backend_context *context[RANKS_MAX];
    ncclUniqueId id;
    ncclComm_t comm[RANKS_MAX];
    struct workers *workers; /* a thread per rank */
    int lost;                /* a device, or a communicator: nothing can be summed any more; atomic */
    /* of the task that runs; atomic */
    unsigned sums[RANKS_MAX]; /* that a rank has put on its stream */
    int ended[RANKS_MAX];
};

/* What a task came to on each rank. */
struct rank_job {
    struct ranks *ranks;
    rank_task *task;
    void *argument;
    int result[RANKS_MAX];
    char message[RANKS_MAX][ERROR_MESSAGE_BYTES];
};

int ranks_count(const struct backend_context *context)
{
    return context->ranks ? context->ranks->count : 1;
}

struct backend_context *ranks_context(const struct backend_context *context, int rank)
{
    return context->ranks ? context->ranks->context[rank] : (struct backend_context *)context;
}

struct share ranks_share(size_t items, int rank, int ranks)
{
    size_t each = items / (size_t)ranks, longer = items % (size_t)ranks, r = (size_t)rank;
    return (struct share){r * each + (r < longer ? r : longer), each + (r < longer)};
}

static int is_lost(const struct ranks *ranks)
{
    return __atomic_load_n(&ranks->lost, __ATOMIC_ACQUIRE);
}

/* Whether a sum that `rank` waits for will never come: some rank has ended without it. */
static int left_alone(const struct ranks *ranks, int rank)
{
    for (int r = 0; r < ranks->count; r++)
        if (__atomic_load_n(&ranks->ended[r], __ATOMIC_ACQUIRE) &&
            __atomic_load_n(&ranks->sums[r], __ATOMIC_ACQUIRE) < ranks->sums[rank])
            return 1;
    return is_lost(ranks);
}

static void abort_sums(struct ranks *ranks, int rank)
{
    if (ranks->comm[rank])
        ncclCommAbort(ranks->comm[rank]);
    ranks->comm[rank] = NULL;
}

static void settle_one(const struct backend_context *context)
{
    cudaSetDevice(context->device);
    cudaStreamSynchronize(context->copy);
    cudaStreamSynchronize(context->compute);
}

/* With as many threads as ranks no rank waits for one that has no thread. */
static void run_rank(void *context, long rank, int)
{
    struct rank_job *job = (struct rank_job *)context;
    job->result[rank] = job->task(job->argument, (int)rank);
    if (job->result[rank])
        snprintf(job->message[rank], sizeof job->message[rank], "%s", error_message());
    if (job->result[rank] == ERROR_UNAVAILABLE)
        __atomic_store_n(&job->ranks->lost, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&job->ranks->ended[rank], 1, __ATOMIC_RELEASE);
}

/* After an error: nothing of the task is in flight any more, also where a rank left a sum that others wait for. An error in which every
 * rank came to the same sums, or to none, leaves them as they were: the next task may run. */
static void settle(struct ranks *ranks)
{
    for (int r = 0; r < ranks->count; r++)
        if (ranks->sums[r] != ranks->sums[0])
            ranks->lost = 1;
    for (int r = 0; r < ranks->count && ranks->lost; r++)
        abort_sums(ranks, r);
    for (int r = ranks->count - 1; r >= 0; r--)
        settle_one(ranks->context[r]);
}

/* The cause, not what followed from it on the ranks that waited. */
static int first_cause(const struct rank_job *job)
{
    int cause = -1;
    for (int r = job->ranks->count - 1; r >= 0; r--)
        if (job->result[r] && (cause < 0 || job->result[r] != ERROR_CANCELLED))
            cause = r;
    return cause;
}

int ranks_run(struct backend_context *context, rank_task *task, void *argument)
{
    struct ranks *ranks = context->ranks;
    if (!ranks) {
        int result = task(argument, 0);
        if (result)
            settle_one(context);
        return result;
    }
    if (is_lost(ranks))
        return error_set(
            ERROR_UNAVAILABLE,
            "a device was lost, or left a sum that the others waited for: the worker ends and is started again");
    struct rank_job *job = (struct rank_job *)calloc(1, sizeof *job);
    if (!job)
        return error_set(ERROR_SYSTEM, "out of memory for %d devices", ranks->count);
    job->ranks = ranks;
    job->task = task;
    job->argument = argument;
    memset(ranks->sums, 0, sizeof ranks->sums);
    memset(ranks->ended, 0, sizeof ranks->ended);
    workers_run(ranks->workers, run_rank, job, ranks->count);
    int cause = first_cause(job), result = cause < 0 ? 0 : job->result[cause];
    if (result && result != ERROR_CANCELLED)
        error_set(result, "device %d: %s", cause, job->message[cause]);
    else if (result)
        error_set(result, "%s", job->message[cause]);
    free(job);
    if (result)
        settle(ranks);
    return result;
}

/* --- sums --------------------------------------------------------------------------------------------------------- */

static int sum(struct backend_context *context, void *values, size_t count, ncclDataType_t type)
{
    struct ranks *ranks = context->ranks;
    if (!ranks)
        return 0;
    CHECK_NCCL(ncclAllReduce(values, values, count, type, ncclSum, ranks->comm[context->device], context->compute));
    __atomic_add_fetch(&ranks->sums[context->device], 1, __ATOMIC_RELEASE);
    return 0;
}

int ranks_sum_floats(struct backend_context *context, float *values, size_t count)
{
    return sum(context, values, count, ncclFloat32);
}

int ranks_sum_doubles(struct backend_context *context, double *values, size_t count)
{
    return sum(context, values, count, ncclFloat64);
}

/* As NCCL's guide has it under "Fault Tolerance": ask stream and communicator in turn, and abort what would never end. */
int ranks_wait(struct backend_context *context)
{
    struct ranks *ranks = context->ranks;
    if (!ranks) {
        CHECK_CUDA(cudaStreamSynchronize(context->compute));
        return 0;
    }
    for (;;) {
        ncclResult_t asynchronous = ncclSuccess;
        cudaError_t status = cudaStreamQuery(context->compute);
        if (status != cudaErrorNotReady)
            return check_cuda(status, "cudaStreamQuery()", __FILE__, __LINE__);
        cudaGetLastError(); /* that it is not ready is no error */
        CHECK_NCCL(ncclCommGetAsyncError(ranks->comm[context->device], &asynchronous));
        if (left_alone(ranks, context->device) || asynchronous != ncclSuccess) {
            abort_sums(ranks, context->device);
            __atomic_store_n(&ranks->lost, 1, __ATOMIC_RELEASE);
            CHECK_NCCL(asynchronous);
            return error_set(ERROR_CANCELLED, "another device failed");
        }
        sched_yield();
    }
}

/* --- opening and closing ------------------------------------------------------------------------------------------ */

/* Connects, and sums a one of each rank. */
static int connect_rank(void *argument, int rank)
{
    struct ranks *ranks = (struct ranks *)argument;
    struct backend_context *context = ranks->context[rank];
    float one = 1;
    CHECK_CUDA(cudaSetDevice(context->device));
    CHECK_NCCL(ncclCommInitRank(&ranks->comm[rank], ranks->count, ranks->id, rank));
    RETURN_IF(context_upload(context, context->gemm.workspace, &one, sizeof one));
    RETURN_IF(ranks_sum_floats(context, (float *)context->gemm.workspace, 1));
    RETURN_IF(ranks_wait(context));
    RETURN_IF(context_download(context, &one, context->gemm.workspace, sizeof one));
    return one == (float)ranks->count ? 0
                                      : error_set(ERROR_UNAVAILABLE,
                                                  "%d devices sum their ones to %g: check 'nvidia-smi topo -p2p r', or "
                                                  "set worker.devices = 1",
                                                  ranks->count, (double)one);
}

static int check_devices(int devices)
{
    int found = 0;
    if (devices < 1 || devices > RANKS_MAX)
        return error_set(ERROR_INPUT, "%d devices: 1 to %d", devices, RANKS_MAX);
    CHECK_CUDA(cudaGetDeviceCount(&found));
    if (found < 1)
        return check_cuda(cudaErrorNoDevice, "cudaGetDeviceCount()", __FILE__, __LINE__);
    return devices <= found ? 0
                            : error_set(ERROR_UNAVAILABLE,
                                        "worker.devices = %d, and there are %d: 'triaged gpu' lists them; check "
                                        "CUDA_VISIBLE_DEVICES",
                                        devices, found);
}

static int open_ranks(struct ranks *ranks, int devices)
{
    ranks->context[0]->ranks = ranks;
    for (ranks->count = 1; ranks->count < devices; ranks->count++) {
        RETURN_IF(context_open(1, ranks->count, &ranks->context[ranks->count]));
        ranks->context[ranks->count]->ranks = ranks;
    }
    RETURN_IF(workers_open(devices, &ranks->workers));
    CHECK_NCCL(ncclGetUniqueId(&ranks->id));
    return ranks_run(ranks->context[0], connect_rank, ranks);
}

int ranks_open(int threads, int devices, struct backend_context **ret_context)
{
    struct backend_context *context;
    RETURN_IF(check_devices(devices));
    RETURN_IF(context_open(threads, 0, &context));
    if (devices > 1) {
        struct ranks *ranks = (struct ranks *)calloc(1, sizeof *ranks);
        int result = ranks ? 0 : error_set(ERROR_SYSTEM, "out of memory for %d devices", devices);
        if (ranks) {
            ranks->context[0] = context;
            result = open_ranks(ranks, devices);
        }
        if (result) {
            ranks_close(context);
            return result;
        }
    }
    *ret_context = context;
    return 0;
}

void ranks_close(struct backend_context *context)
{
    struct ranks *ranks = context ? context->ranks : NULL;
    for (int r = 0; ranks && r < ranks->count; r++)
        if (ranks->comm[r])
            ncclCommDestroy(ranks->comm[r]);
    for (int r = 1; ranks && r < ranks->count; r++)
        context_close(ranks->context[r]);
    if (ranks)
        workers_close(ranks->workers);
    free(ranks);
    context_close(context);
}
