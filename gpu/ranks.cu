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
    unsigned calls[RANKS_MAX]; /* of NCCL, for which all ranks are needed, that a rank has come to */
    int ended[RANKS_MAX];
    int heard[RANKS_MAX]; /* NCCL's word that another rank failed; the rank's own */
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

struct job_size ranks_smallest(const struct job_size *size, int ranks)
{
    struct job_size smallest = size[0];
    for (int r = 1; r < ranks; r++) {
        smallest.wanted = size[r].wanted < smallest.wanted ? size[r].wanted : smallest.wanted;
        smallest.chosen = size[r].chosen < smallest.chosen ? size[r].chosen : smallest.chosen;
    }
    return smallest;
}

static int is_lost(const struct ranks *ranks)
{
    return __atomic_load_n(&ranks->lost, __ATOMIC_ACQUIRE);
}

/* Whether a call for which `rank` waits will never end: some rank has ended without it. */
static int left_alone(const struct ranks *ranks, int rank)
{
    for (int r = 0; r < ranks->count; r++)
        if (__atomic_load_n(&ranks->ended[r], __ATOMIC_ACQUIRE) &&
            __atomic_load_n(&ranks->calls[r], __ATOMIC_ACQUIRE) < ranks->calls[rank])
            return 1;
    return is_lost(ranks);
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

/* By all ranks, each on its own thread, as one may wait for another; what goes on behind the call is nobody's business any more. */
static void abort_rank(void *argument, long rank, int)
{
    struct ranks *ranks = (struct ranks *)argument;
    if (ranks->comm[rank])
        ncclCommAbort(ranks->comm[rank]);
    ranks->comm[rank] = NULL;
}

/* After an error: nothing of the task is in flight any more, also where a rank left a sum that others wait for. An error in which every
 * rank came to the same calls, or to none, leaves them as they were: the next task may run. */
static void settle(struct ranks *ranks)
{
    for (int r = 0; r < ranks->count; r++)
        if (ranks->calls[r] != ranks->calls[0])
            ranks->lost = 1;
    if (ranks->lost)
        workers_run(ranks->workers, abort_rank, ranks, ranks->count);
    for (int r = ranks->count - 1; r >= 0; r--)
        settle_one(ranks->context[r]);
}

/* The cause, not what followed from it on the ranks that waited, nor what NCCL had them hear of it; -1 = none. */
static int first_cause(const struct rank_job *job)
{
    int cause = -1, most = 0;
    for (int r = 0; r < job->ranks->count; r++) {
        int followed = job->result[r] == ERROR_CANCELLED;
        int blame = !job->result[r] ? 0 : followed ? 1 : job->ranks->heard[r] ? 2 : 3;
        if (blame > most) {
            most = blame;
            cause = r;
        }
    }
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
    memset(ranks->calls, 0, sizeof ranks->calls);
    memset(ranks->ended, 0, sizeof ranks->ended);
    memset(ranks->heard, 0, sizeof ranks->heard);
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

/* --- calls for which all ranks are needed --------------------------------------------------------------------------- */

static void come_to_call(struct backend_context *context)
{
    __atomic_add_fetch(&context->ranks->calls[context->device], 1, __ATOMIC_RELEASE);
}

/* This rank waits no longer, and no other shall: for `status`, or because a call will never end. ranks_run() aborts what is left. */
static int give_up(struct backend_context *context, ncclResult_t status, const char *call)
{
    int says = status != ncclSuccess && status != ncclInProgress;
    /* what is not this rank's own device may be how it hears of another's end, by a closed socket too */
    context->ranks->heard[context->device] = status != ncclUnhandledCudaError;
    __atomic_store_n(&context->ranks->lost, 1, __ATOMIC_RELEASE);
    return says ? check_nccl(status, call, __FILE__, __LINE__) : error_set(ERROR_CANCELLED, "another device failed");
}

/*
 * The end of a call that returned `status`. Communicators do not block, so that a rank can be waited for no longer than it lives: a call goes
 * on behind its return, until when its stream and communicator may not be used (NCCL's guide, ncclCommGetAsyncError and "Fault Tolerance").
 */
static int end_call(struct backend_context *context, ncclResult_t status, const char *call)
{
    struct ranks *ranks = context->ranks;
    ncclResult_t state = ncclInProgress;
    while ((status == ncclSuccess || status == ncclInProgress) && state == ncclInProgress) {
        status = ncclCommGetAsyncError(ranks->comm[context->device], &state);
        if (status == ncclSuccess && state == ncclInProgress && left_alone(ranks, context->device))
            return give_up(context, state, call);
        if (state == ncclInProgress)
            sched_yield();
    }
    if (status == ncclSuccess)
        status = state;
    return status == ncclSuccess ? 0 : give_up(context, status, call);
}

static int sum(struct backend_context *context, void *values, size_t count, ncclDataType_t type)
{
    if (!context->ranks)
        return 0;
    come_to_call(context);
    return end_call(
        context,
        ncclAllReduce(values, values, count, type, ncclSum, context->ranks->comm[context->device], context->compute),
        "ncclAllReduce()");
}

int ranks_sum_floats(struct backend_context *context, float *values, size_t count)
{
    return sum(context, values, count, ncclFloat32);
}

int ranks_sum_doubles(struct backend_context *context, double *values, size_t count)
{
    return sum(context, values, count, ncclFloat64);
}

/* As NCCL's guide has it under "Asynchronous errors": ask stream and communicator in turn, and leave what would never end. */
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
        if (left_alone(ranks, context->device) || asynchronous != ncclSuccess)
            return give_up(context, asynchronous, "a sum over all devices");
        sched_yield();
    }
}

/* --- opening and closing ------------------------------------------------------------------------------------------ */

/* Connects, and sums a one of each rank. */
static int connect_rank(void *argument, int rank)
{
    struct ranks *ranks = (struct ranks *)argument;
    struct backend_context *context = ranks->context[rank];
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    float one = 1;
    config.blocking = 0;
    CHECK_CUDA(cudaSetDevice(context->device));
    come_to_call(context);
    RETURN_IF(end_call(context, ncclCommInitRankConfig(&ranks->comm[rank], ranks->count, ranks->id, rank, &config),
                       "ncclCommInitRankConfig()"));
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

/* All together, as the guide has it under "Finalizing a communicator". */
static int disconnect_rank(void *argument, int rank)
{
    struct ranks *ranks = (struct ranks *)argument;
    struct backend_context *context = ranks->context[rank];
    CHECK_CUDA(cudaSetDevice(context->device));
    come_to_call(context);
    RETURN_IF(end_call(context, ncclCommFinalize(ranks->comm[rank]), "ncclCommFinalize()"));
    ncclCommDestroy(ranks->comm[rank]);
    ranks->comm[rank] = NULL;
    return 0;
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
    /* cudaSetDevice() may speak of the device it leaves, as if it were the next one's fault. */
    CHECK_CUDA(cudaSetDevice(0));
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
    if (ranks && ranks->comm[0]) /* all are connected, or none */
        ranks_run(context, disconnect_rank, ranks);
    for (int r = 1; ranks && r < ranks->count; r++)
        context_close(ranks->context[r]);
    if (ranks)
        workers_close(ranks->workers);
    free(ranks);
    context_close(context);
}
