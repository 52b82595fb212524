/* See context.h. */
#include "gpu/context.h"

int context_check_device(int device)
{
    int major = 0, minor = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    CHECK_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    if (10 * major + minor >= CAPABILITY)
        return 0;
    return error_set(
        ERROR_UNAVAILABLE,
        "device %d is not supported: its compute capability is %d.%d, and %d.%d or newer is needed: choose "
        "another with CUDA_VISIBLE_DEVICES, or set worker.backend = cpu",
        device, major, minor, CAPABILITY / 10, CAPABILITY % 10);
}

static int open_device(struct backend_context *context)
{
    size_t free_bytes = 0;
    CHECK_CUDA(cudaSetDevice(context->device));
    CHECK_CUDA(cudaMemGetInfo(&free_bytes, &context->memory_bytes));
    CHECK_CUDA(cudaStreamCreateWithFlags(&context->compute, cudaStreamNonBlocking));
    CHECK_CUDA(cudaStreamCreateWithFlags(&context->copy, cudaStreamNonBlocking));
    CHECK_CUDA(cudaMallocHost((void **)&context->staging, STAGING_BYTES));
    CHECK_BLAS(cublasLtCreate(&context->gemm.handle));
    CHECK_CUDA(cudaMalloc(&context->gemm.workspace, GEMM_WORKSPACE_BYTES));
    CHECK_DNN(cudnnCreate(&context->convolution.handle));
    CHECK_DNN(cudnnSetStream(context->convolution.handle, context->compute));
    return 0;
}

int context_open(int threads, int device, struct backend_context **ret_context)
{
    RETURN_IF(context_check_device(device));
    struct backend_context *context = (struct backend_context *)calloc(1, sizeof *context);
    if (!context)
        return error_set(ERROR_SYSTEM, "out of memory for the cuda backend");
    context->device = device;
    int result = open_device(context);
    if (!result)
        result = workers_open(threads, &context->workers);
    if (result)
        context_close(context);
    else
        *ret_context = context;
    return result;
}

void context_close(struct backend_context *context)
{
    if (!context)
        return;
    workers_close(context->workers);
    cudaSetDevice(context->device);
    if (context->convolution.handle)
        cudnnDestroy(context->convolution.handle);
    cudaFree(context->gemm.workspace);
    cudaFreeHost(context->staging);
    if (context->gemm.handle)
        cublasLtDestroy(context->gemm.handle);
    if (context->copy)
        cudaStreamDestroy(context->copy);
    if (context->compute)
        cudaStreamDestroy(context->compute);
    free(context);
}

int context_memory(struct device_memory *ret_memory)
{
    CHECK_CUDA(cudaMemGetInfo(&ret_memory->free, &ret_memory->total));
    return 0;
}

int context_free_bytes(size_t *ret_bytes)
{
    struct device_memory memory;
    RETURN_IF(context_memory(&memory));
    *ret_bytes = (size_t)(MEMORY_SHARE * (double)memory.free);
    return 0;
}

void context_tell_smaller(const struct job_size *size, char text[SMALLER_BYTES])
{
    text[0] = '\0';
    if (size->chosen < size->wanted)
        snprintf(text, SMALLER_BYTES,
                 " (%zu where more memory is free: last bits may differ from those of other batches)", size->wanted);
}

void context_tell(struct backend_context *context, enum job_kind kind, size_t items, size_t bytes, size_t pinned_bytes,
                  const char *format, ...)
{
    const struct told *told = &context->told[kind];
    char what[320], pinned[64], line[512];
    size_t free_bytes = 0, total = 0;
    va_list arguments;
    if (!context->tell || (told->items == items && told->bytes >= bytes) ||
        cudaMemGetInfo(&free_bytes, &total) != cudaSuccess)
        return;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(pinned, sizeof pinned, ", and %zu MiB of the host's, pinned", (pinned_bytes + 1048575) >> 20);
    snprintf(line, sizeof line, "device %d: %s takes %zu MiB, of %zu free%s", context->device, what,
             (bytes + 1048575) >> 20, free_bytes >> 20, pinned);
    context->told[kind] = (struct told){items, bytes};
    context->tell(line);
}

int context_upload(struct backend_context *context, void *device, const void *host, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += STAGING_BYTES) {
        size_t part = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        memcpy(context->staging, (const char *)host + at, part);
        CHECK_CUDA(
            cudaMemcpyAsync((char *)device + at, context->staging, part, cudaMemcpyHostToDevice, context->compute));
        CHECK_CUDA(cudaStreamSynchronize(context->compute));
    }
    return 0;
}

int context_download(struct backend_context *context, void *host, const void *device, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += STAGING_BYTES) {
        size_t part = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        CHECK_CUDA(cudaMemcpyAsync(context->staging, (const char *)device + at, part, cudaMemcpyDeviceToHost,
                                   context->compute));
        CHECK_CUDA(cudaStreamSynchronize(context->compute));
        memcpy((char *)host + at, context->staging, part);
    }
    return 0;
}

int context_capture(struct backend_context *context, context_enqueue *enqueue, void *argument,
                    cudaGraphExec_t *ret_graph)
{
    cudaGraph_t graph = NULL;
    CHECK_CUDA(cudaStreamBeginCapture(context->compute, cudaStreamCaptureModeThreadLocal));
    int result = enqueue(argument);
    cudaError_t ended = cudaStreamEndCapture(context->compute, &graph);
    if (result)
        cudaGetLastError(); /* the capture's end tells once more what enqueue() told */
    else
        result = check_cuda(ended, "cudaStreamEndCapture()", __FILE__, __LINE__);
    if (!result)
        result = check_cuda(cudaGraphInstantiate(ret_graph, graph, 0), "cudaGraphInstantiate()", __FILE__, __LINE__);
    if (graph)
        cudaGraphDestroy(graph);
    return result;
}

static int overlap(const struct buffer *one, const struct buffer *other)
{
    return one->first <= other->last && other->first <= one->last;
}

/* The lowest place where `buffer` fits beside those already placed. */
static size_t place_of(const struct buffer *buffer, struct buffer *const *placed, int count)
{
    size_t offset = 0;
    for (int again = 1; again;) {
        again = 0;
        for (int i = 0; i < count; i++)
            if (overlap(buffer, placed[i]) && offset < placed[i]->offset + placed[i]->bytes &&
                placed[i]->offset < offset + buffer->bytes) {
                offset = placed[i]->offset + placed[i]->bytes;
                again = 1;
            }
    }
    return offset;
}

static int larger_first(const void *a, const void *b)
{
    const struct buffer *one = *(const struct buffer *const *)a, *other = *(const struct buffer *const *)b;
    if (one->bytes != other->bytes)
        return one->bytes < other->bytes ? 1 : -1;
    return one < other ? -1 : one > other;
}

size_t arena_plan(struct buffer *buffer, int count)
{
    size_t bytes = 0;
    struct buffer *placed[BUFFERS_MAX];
    for (int i = 0; i < count; i++) {
        buffer[i].bytes = round_up(buffer[i].bytes, ALIGNMENT);
        placed[i] = &buffer[i];
    }
    qsort(placed, (size_t)count, sizeof *placed, larger_first);
    for (int i = 0; i < count; i++) {
        placed[i]->offset = place_of(placed[i], placed, i);
        bytes = placed[i]->offset + placed[i]->bytes > bytes ? placed[i]->offset + placed[i]->bytes : bytes;
    }
    return bytes;
}

void *arena_take(struct arena *arena, size_t bytes)
{
    char *taken = arena->start ? arena->start + arena->used : (char *)ALIGNMENT;
    arena->used += round_up(bytes ? bytes : 1, ALIGNMENT);
#ifndef __CUDACC__ /* the stand-in watches each buffer, and a gap behind it */
    arena->used += ALIGNMENT;
    if (arena->start && bytes)
        standin_buffer(taken, bytes);
#endif
    return taken;
}
