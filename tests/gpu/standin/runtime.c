/* Entry points of the CUDA runtime: devices, copies, streams and events. Memory: memory.c; capture: graph.c; kernels: launch.c. */
#include "tests/gpu/standin/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- devices ------------------------------------------------------------------------------------------------------ */

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess,                          "cudaSuccess",                          "no error"                                },
    {cudaErrorInvalidValue,                "cudaErrorInvalidValue",                "invalid argument"                        },
    {cudaErrorMemoryAllocation,            "cudaErrorMemoryAllocation",            "out of memory"                           },
    {cudaErrorInvalidConfiguration,        "cudaErrorInvalidConfiguration",        "invalid configuration argument"          },
    {cudaErrorInsufficientDriver,          "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"                                                          },
    {cudaErrorInvalidDeviceFunction,       "cudaErrorInvalidDeviceFunction",       "invalid device function"                 },
    {cudaErrorNoDevice,                    "cudaErrorNoDevice",                    "no CUDA-capable device is detected"      },
    {cudaErrorInvalidDevice,               "cudaErrorInvalidDevice",               "invalid device ordinal"                  },
    {cudaErrorInvalidResourceHandle,       "cudaErrorInvalidResourceHandle",       "invalid resource handle"                 },
    {cudaErrorNotReady,                    "cudaErrorNotReady",                    "device not ready"                        },
    {cudaErrorIllegalAddress,              "cudaErrorIllegalAddress",              "an illegal memory access was encountered"},
    {cudaErrorMisalignedAddress,           "cudaErrorMisalignedAddress",           "misaligned address"                      },
    {cudaErrorUnknown,                     "cudaErrorUnknown",                     "unknown error"                           },
    {cudaErrorStreamCaptureUnsupported,    "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"                                                                      },
    {cudaErrorStreamCaptureInvalidated,    "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"                                                               },
    {cudaErrorStreamCaptureUnmatched,      "cudaErrorStreamCaptureUnmatched",      "capture was not initiated in this stream"},
    {cudaErrorStreamCaptureIsolation,      "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"                                                               },
    {cudaErrorStreamCaptureImplicit,       "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"                                          },
    {cudaErrorCapturedEvent,               "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"                                               },
    {cudaErrorStreamCaptureWrongThread,    "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"                                              },
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"                                                           },
    {cudaErrorHostMemoryNotRegistered,     "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"                                                             },
};

const char *cudaGetErrorName(cudaError_t error)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].error == error)
            return errors[i].name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].error == error)
            return errors[i].text;
    return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int *count)
{
    lock();
    *count = settings.devices;
    return leave(usable());
}

cudaError_t cudaSetDevice(int device)
{
    lock();
    cudaError_t error = usable();
    if (!error && device >= 0 && device == settings.barred) /* the current one stays what it was */
        error = settings.bar;
    else if (!error && set_current_device(device))
        error = BROKEN(cudaErrorInvalidDevice, DEVICE_NUMBER, "cudaSetDevice(%d) of %d", device, settings.devices);
    return leave(error);
}

cudaError_t cudaGetDevice(int *device)
{
    lock();
    *device = current_device();
    return leave(usable());
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    lock();
    cudaError_t error = usable();
    if (!error && (device < 0 || device >= settings.devices))
        error = BROKEN(cudaErrorInvalidDevice, DEVICE_NUMBER, "cudaGetDeviceProperties(%d)", device);
    if (!error) {
        *prop = (struct cudaDeviceProp){
            .name = "stand-in",
            .totalGlobalMem = settings.memory_bytes,
            .sharedMemPerBlock = 48 << 10,
            .warpSize = 32,
            .maxThreadsPerBlock = 1024,
            .maxThreadsDim = {1024,       1024,  64   },
            .maxGridSize = {2147483647, 65535, 65535},
            .major = settings.capability / 10,
            .minor = settings.capability % 10,
            .multiProcessorCount = 4,
            .pciBusID = device + 1,
            .asyncEngineCount = 2,
            .memoryBusWidth = 384,
            .l2CacheSize = 4 << 20,
            .maxThreadsPerMultiProcessor = 2048,
            .sharedMemPerMultiprocessor = 164 << 10,
            .sharedMemPerBlockOptin = 163 << 10,
        };
    }
    return leave(error);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    struct cudaDeviceProp prop;
    cudaError_t error = cudaGetDeviceProperties(&prop, device);
    if (error)
        return error;
    switch (attr) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = prop.maxThreadsPerBlock;
        break;
    case cudaDevAttrMaxGridDimX:
        *value = prop.maxGridSize[0];
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)prop.sharedMemPerBlock;
        break;
    case cudaDevAttrWarpSize:
        *value = prop.warpSize;
        break;
    case cudaDevAttrClockRate:
        *value = 1410000;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = prop.multiProcessorCount;
        break;
    case cudaDevAttrComputeMode:
        *value = 0;
        break;
    case cudaDevAttrEccEnabled:
        *value = prop.ECCEnabled;
        break;
    case cudaDevAttrMemoryClockRate:
        *value = 1215000;
        break;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = prop.memoryBusWidth;
        break;
    case cudaDevAttrL2CacheSize:
        *value = prop.l2CacheSize;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = prop.maxThreadsPerMultiProcessor;
        break;
    case cudaDevAttrAsyncEngineCount:
        *value = prop.asyncEngineCount;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = prop.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = prop.minor;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)prop.sharedMemPerMultiprocessor;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)prop.sharedMemPerBlockOptin;
        break;
    default:
        return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *pciBusId, int len, int device)
{
    lock();
    cudaError_t error = usable();
    if (!error && (device < 0 || device >= settings.devices))
        error = BROKEN(cudaErrorInvalidDevice, DEVICE_NUMBER, "cudaDeviceGetPCIBusId(%d)", device);
    else if (!error && len < 13)
        error = cudaErrorInvalidValue;
    else if (!error)
        snprintf(pciBusId, (size_t)len, "0000:%02x:00.0", (unsigned)(device + 1) & 0xff);
    return leave(error);
}

cudaError_t cudaRuntimeGetVersion(int *runtimeVersion)
{
    *runtimeVersion = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *driverVersion)
{
    *driverVersion = settings.devices ? CUDART_VERSION : 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    lock();
    cudaError_t error = usable();
    if (!error)
        error = no_capture(NULL, RULE_CAPTURE_SYNC, "cudaDeviceSynchronize");
    if (!error)
        error = complete_everything();
    return leave(error);
}

cudaError_t cudaDeviceReset(void)
{
    return cudaDeviceSynchronize();
}

/* --- copies ------------------------------------------------------------------------------------------------------------ */

struct copy {
    char *to;
    const char *from; /* NULL = fill with value */
    char *staged;     /* what `from` is, of pageable memory */
    size_t bytes;
    int value;
};

static void run_copy(struct operation *operation)
{
    struct copy *copy = operation->payload;
    if (copy->from)
        plain_copy(copy->to, copy->from, copy->bytes);
    else
        plain_fill(copy->to, copy->value, copy->bytes);
}

static void free_copy(void *payload)
{
    struct copy *copy = payload;
    free(copy->staged);
    free(copy);
}

/* What the pointer is, or an error: device memory that is no allocation, or not all of one buffer. */
static cudaError_t place(const void *start, size_t bytes, const char *what, int *ret_device)
{
    *ret_device = is_device_address(start);
    if (*ret_device && !is_device(start, bytes))
        return BROKEN(cudaErrorInvalidValue, COPY_RANGE, "%s %p of %zu bytes is not inside one allocation", what, start,
                      bytes);
    struct allocation *pinned = pinned_of(start, 0);
    if (pinned && !pinned_of(start, bytes))
        return BROKEN(cudaErrorInvalidValue, COPY_RANGE, "%s %p of %zu bytes leaves pinned memory", what, start, bytes);
    return cudaSuccess;
}

static cudaError_t check_copy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, int *to_device,
                              int *from_device)
{
    cudaError_t error = place(to, bytes, "target", to_device);
    if (!error)
        error = place(from, bytes, "source", from_device);
    if (error)
        return error;
    int wanted = kind == cudaMemcpyDefault ? -1 : (int)kind;
    int have = *to_device ? *from_device ? 3 : 1 : *from_device ? 2 : 0;
    if ((unsigned)kind > cudaMemcpyDefault || (wanted >= 0 && wanted != have))
        return BROKEN(cudaErrorInvalidMemcpyDirection, COPY_DIRECTION, "kind %d, pointers are of kind %d", (int)kind,
                      have);
    return cudaSuccess;
}

static cudaError_t copy_async(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream,
                              int synchronous)
{
    int to_device = 0, from_device = 0;
    cudaError_t error = usable();
    struct CUstream_st *s = error ? NULL : stream_of(stream);
    if (!error && !s)
        return cudaErrorInvalidResourceHandle;
    if (!error && bytes > 0)
        error = check_copy(to, from, bytes, kind, &to_device, &from_device);
    if (error || bytes == 0)
        return error;
    int pageable_from = !from_device && !pinned_of(from, bytes), pageable_to = !to_device && !pinned_of(to, bytes);
    if (!synchronous && (pageable_from || pageable_to))
        found(RULE_PAGEABLE_ASYNC, "cudaMemcpyAsync() of %zu bytes", bytes);
    if ((pageable_from || pageable_to) && s->capture)
        return no_capture(s, RULE_CAPTURE_SYNC, "copy of pageable memory");
    struct copy *copy = calloc(1, sizeof *copy);
    *copy = (struct copy){.to = to, .from = from, .bytes = bytes};
    struct operation *o = operation_new(
        to_device ? from_device ? "copy within the device" : "copy to the device" : "copy to the host", run_copy, copy);
    o->free_payload = free_copy;
    if (pageable_from && to_device) { /* staged at the call */
        copy->staged = malloc(bytes);
        memcpy(copy->staged, from, bytes);
        copy->from = copy->staged;
    } else
        touches(o, from, bytes, TOUCH_READ);
    touches(o, to, bytes, TOUCH_WRITE);
    error = enqueue(o, s);
    if (!error && (synchronous || pageable_to)) {
        struct clocks now = issued(s);
        error = complete(&now);
    }
    return error;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t count, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    lock();
    return leave(copy_async(dst, src, count, kind, stream, 0));
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t count, enum cudaMemcpyKind kind)
{
    lock();
    cudaError_t error = no_capture(NULL, RULE_CAPTURE_SYNC, "cudaMemcpy");
    return leave(error ? error : copy_async(dst, src, count, kind, NULL, 1));
}

static cudaError_t fill(void *to, int value, size_t bytes, cudaStream_t stream)
{
    cudaError_t error = usable();
    struct CUstream_st *s = error ? NULL : stream_of(stream);
    if (!error && !s)
        return cudaErrorInvalidResourceHandle;
    if (error || bytes == 0)
        return error;
    if (!is_device(to, bytes))
        return BROKEN(cudaErrorInvalidValue, COPY_RANGE, "fill of %zu bytes at %p is not inside one buffer", bytes, to);
    struct copy *copy = calloc(1, sizeof *copy);
    *copy = (struct copy){.to = to, .bytes = bytes, .value = value};
    struct operation *o = operation_new("fill", run_copy, copy);
    touches(o, to, bytes, TOUCH_WRITE);
    return enqueue(o, s);
}

cudaError_t cudaMemsetAsync(void *devPtr, int value, size_t count, cudaStream_t stream)
{
    lock();
    return leave(fill(devPtr, value, count, stream));
}

cudaError_t cudaMemset(void *devPtr, int value, size_t count)
{
    lock();
    cudaError_t error = no_capture(NULL, RULE_CAPTURE_SYNC, "cudaMemset");
    return leave(error ? error : fill(devPtr, value, count, NULL));
}

/* --- streams ------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *pStream, unsigned int flags)
{
    lock();
    cudaError_t error = usable();
    if (!error && flags & ~(unsigned)cudaStreamNonBlocking)
        error = BROKEN(cudaErrorInvalidValue, FLAGS, "cudaStreamCreateWithFlags(%#x)", flags);
    if (!error && !(*pStream = stream_new(current_device(), !(flags & cudaStreamNonBlocking))))
        error = cudaErrorMemoryAllocation;
    return leave(error);
}

cudaError_t cudaStreamCreate(cudaStream_t *pStream)
{
    return cudaStreamCreateWithFlags(pStream, cudaStreamDefault);
}

static cudaError_t destroy_stream(cudaStream_t stream)
{
    struct CUstream_st *s = stream ? stream_of(stream) : NULL;
    if (!s)
        return cudaErrorInvalidResourceHandle;
    if (s->capture)
        return no_capture(s, RULE_CAPTURE_END, "cudaStreamDestroy");
    if (s->head && !settings.lost[s->device])
        found(RULE_FREE_IN_USE, "cudaStreamDestroy() while work in it is not known to be done");
    struct clocks now = s->clocks;
    cudaError_t error = complete(&now);
    stream_forget(s);
    return error;
}

/* As closing what is on a dead device may, NCCL's communicators above all. */
static void hang_if_lost(void)
{
    while (settings.lost[current_device()] && settings.lost_hangs)
        pause();
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    hang_if_lost();
    lock();
    return leave(destroy_stream(stream));
}

/* The clocks of a stream that may be synchronised with or asked now. */
static cudaError_t observable(cudaStream_t stream, const char *call, struct clocks *ret_clocks)
{
    cudaError_t error = usable();
    struct CUstream_st *s = error ? NULL : stream_of(stream);
    if (!error && !s)
        error = cudaErrorInvalidResourceHandle;
    if (!error)
        error = no_capture(s, RULE_CAPTURE_SYNC, call);
    if (!error)
        *ret_clocks = issued(s);
    return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    struct clocks now;
    lock();
    cudaError_t error = observable(stream, "cudaStreamSynchronize", &now);
    return leave(error ? error : complete(&now));
}

/* As late as possible, yet never not at all: every question lets one more operation run. */
static cudaError_t ask(const struct clocks *clocks)
{
    if (is_complete(clocks))
        return complete(clocks);
    run_something();
    return usable() ? usable() : cudaErrorNotReady;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    struct clocks now;
    lock();
    cudaError_t error = observable(stream, "cudaStreamQuery", &now);
    return leave(error ? error : ask(&now));
}

struct host_call {
    cudaHostFn_t function;
    void *data;
};

static void run_host_call(struct operation *operation)
{
    struct host_call *call = operation->payload;
    call->function(call->data);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *userData)
{
    lock();
    struct CUstream_st *s = stream_of(stream);
    if (!s || !fn)
        return leave(s ? cudaErrorInvalidValue : cudaErrorInvalidResourceHandle);
    struct host_call *call = malloc(sizeof *call);
    *call = (struct host_call){fn, userData};
    return leave(enqueue(operation_new("host function", run_host_call, call), s));
}

/* --- events ---------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    lock();
    cudaError_t error = usable();
    if (!error && flags & ~(unsigned)(cudaEventBlockingSync | cudaEventDisableTiming))
        error = BROKEN(cudaErrorInvalidValue, FLAGS, "cudaEventCreateWithFlags(%#x)", flags);
    if (!error)
        *event = event_new(flags);
    return leave(error);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    lock();
    struct CUevent_st *e = event_of(event);
    if (e)
        event_forget(e);
    return leave(e ? usable() : cudaErrorInvalidResourceHandle);
}

static cudaError_t record_event(cudaEvent_t event, cudaStream_t stream)
{
    cudaError_t error = usable();
    if (error)
        return error;
    struct CUevent_st *e = event_of(event);
    struct CUstream_st *s = stream_of(stream);
    if (!e || !s)
        return cudaErrorInvalidResourceHandle;
    if (e->device != s->device)
        return BROKEN(cudaErrorInvalidResourceHandle, DEVICE_MISMATCH,
                      "event of device %d recorded in a stream of device %d", e->device, s->device);
    e->captured = s->capture;
    e->recorded = 1;
    e->clocks = issued(s);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    lock();
    return leave(record_event(event, stream));
}

static cudaError_t stream_wait(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    cudaError_t error = usable();
    if (error)
        return error;
    struct CUevent_st *e = event_of(event);
    struct CUstream_st *s = stream_of(stream);
    if (!e || !s)
        return cudaErrorInvalidResourceHandle;
    if (flags)
        return BROKEN(cudaErrorInvalidValue, FLAGS, "cudaStreamWaitEvent(flags %#x)", flags);
    if (e->recorded && e->captured != s->capture) {
        capture_invalidate(s);
        return BROKEN(e->captured ? cudaErrorCapturedEvent : cudaErrorStreamCaptureIsolation, CAPTURE_CROSS,
                      "cudaStreamWaitEvent() between captured and uncaptured work");
    }
    if (e->recorded && !e->captured)
        join(&s->clocks, &e->clocks);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags)
{
    lock();
    return leave(stream_wait(stream, event, flags));
}

/* An event that the host may look at now. */
static cudaError_t observable_event(cudaEvent_t event, struct CUevent_st **ret_event)
{
    cudaError_t error = usable();
    if (!error && !(*ret_event = event_of(event)))
        error = cudaErrorInvalidResourceHandle;
    if (!error && (*ret_event)->captured)
        error = BROKEN(cudaErrorCapturedEvent, CAPTURE_SYNC, "the host waits for an event of a capture");
    return error;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    struct CUevent_st *e;
    lock();
    cudaError_t error = observable_event(event, &e);
    return leave(error ? error : complete(&e->clocks));
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    struct CUevent_st *e;
    lock();
    cudaError_t error = observable_event(event, &e);
    return leave(error ? error : ask(&e->clocks));
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    struct CUevent_st *a = NULL, *b = NULL;
    lock();
    cudaError_t error = observable_event(start, &a);
    if (!error)
        error = observable_event(end, &b);
    if (!error && ((a->flags | b->flags) & cudaEventDisableTiming || !a->recorded || !b->recorded))
        error = BROKEN(cudaErrorInvalidResourceHandle, EVENT_TIMING, "cudaEventElapsedTime()");
    if (!error && (!is_complete(&a->clocks) || !is_complete(&b->clocks)))
        error = cudaErrorNotReady;
    if (!error)
        *ms = 0.001f; /* a device would know; nobody may rely on more than that it is positive */
    return leave(error);
}
