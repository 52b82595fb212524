/* The table that is the cuda backend; the only symbol the library exports. */
#include "gpu/backend_cuda.h"
#include "gpu/fit.h"
#include "gpu/net.h"
#include "gpu/ranks.h"
#include "gpu/score.h"
#include "gpu/train.h"

static int threads(const struct backend_context *context)
{
    return workers_count(context->workers);
}

static void tell(struct backend_context *context, backend_tell *told)
{
    for (int r = 0; r < ranks_count(context); r++)
        ranks_context(context, r)->tell = told;
}

static void for_each(struct backend_context *context, backend_task *task, void *task_context, long items)
{
    workers_run(context->workers, task, task_context, items);
}

static void describe_versions(char *text, size_t size)
{
    int driver = 0, runtime = 0, nccl = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    ncclGetVersion(&nccl);
    snprintf(text, size, "driver for CUDA %d.%d, runtime %d.%d, cuBLASLt %zu, cuDNN %zu, NCCL %d", driver / 1000,
             driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, cublasLtGetVersion(), cudnnGetVersion(), nccl);
}

/* Its name without touching it, then its memory, which opens a context on it. */
static int look_at(int number, const struct net *net, enum precision precision, struct backend_device *device)
{
    struct cudaDeviceProp properties;
    struct device_memory memory;
    CHECK_CUDA(cudaGetDeviceProperties(&properties, number));
    snprintf(device->name, sizeof device->name, "%.90s", properties.name);
    snprintf(device->capability, sizeof device->capability, "%d.%d", properties.major, properties.minor);
    RETURN_IF(context_check_device(number));
    CHECK_CUDA(cudaSetDevice(number));
    RETURN_IF(context_memory(&memory));
    device->memory_bytes = memory.total;
    device->free_bytes = memory.free;
    return gpu_measure(net, precision, &memory, TRIAGE_GPU_BATCH, &device->plan_images, &device->plan_bytes);
}

static int report(const struct net *net, enum precision precision, int limit, struct backend_report *ret_report)
{
    memset(ret_report, 0, sizeof *ret_report);
    describe_versions(ret_report->versions, sizeof ret_report->versions);
    CHECK_CUDA(cudaGetDeviceCount(&ret_report->devices));
    limit = limit < BACKEND_DEVICES_MAX ? limit : BACKEND_DEVICES_MAX;
    ret_report->devices = ret_report->devices < limit ? ret_report->devices : limit;
    for (int i = 0; i < ret_report->devices; i++) {
        struct backend_device *device = &ret_report->device[i];
        if (!look_at(i, net, precision, device))
            continue;
        snprintf(device->error, sizeof device->error, "%s", error_message());
        cudaGetLastError(); /* it is no business of the next device */
    }
    return 0;
}

extern "C" __attribute__((visibility("default"))) const struct backend backend_cuda = {
    .name = "cuda",
    .report = report,
    .open = ranks_open,
    .close = ranks_close,
    .threads = threads,
    .devices = ranks_count,
    .tell = tell,
    .for_each = for_each,
    .compile = gpu_compile,
    .free_plan = gpu_free_plan,
    .forward = gpu_forward,
    .forward_views = gpu_forward_views,
    .calibrate = gpu_calibrate,
    .open_training = gpu_open_training,
    .close_training = gpu_close_training,
    .train_forward = gpu_train_forward,
    .train_forward_views = gpu_train_forward_views,
    .train_backward = gpu_train_backward,
    .train_hold = gpu_train_hold,
    .train_squares = gpu_train_squares,
    .train_update = gpu_train_update,
    .train_fetch = gpu_train_fetch,
    .head_fit = gpu_head_fit,
    .head_score = gpu_head_score,
};
