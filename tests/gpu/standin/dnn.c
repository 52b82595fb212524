/*
 * cuDNN: two-dimensional convolutions of the legacy interface, held to its documentation. The lists of algorithms start with ones a caller
 * must pass over (no success, not deterministic) or may not take at their word (of another math type, which needs less workspace).
 */
#include "tests/gpu/standin/cudnn.h"
#include "tests/gpu/standin/engine.h"

#include <stdlib.h>

struct cudnnContext {
    int device;
    cudaStream_t stream;
};

struct cudnnTensorStruct {
    int set, type, dim[4]; /* n, c, h, w */
    cudnnTensorFormat_t format;
    size_t stride[4];
};

struct cudnnFilterStruct {
    int set, type, dim[4]; /* k, c, h, w */
    cudnnTensorFormat_t format;
    size_t stride[4];
};

struct cudnnConvolutionStruct {
    int set, pad[2], stride[2], dilation[2], groups, compute;
    cudnnConvolutionMode_t mode;
    cudnnMathType_t math;
};

static cudnnStatus_t leave_with(cudnnStatus_t status)
{
    unlock();
    return status;
}

/* --- handles and descriptors -------------------------------------------------------------------------------------------------- */

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    lock();
    if (usable())
        return leave_with(CUDNN_STATUS_NOT_INITIALIZED);
    if (!(*handle = handle_new(HANDLE_DNN, sizeof **handle)))
        return leave_with(CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED);
    (*handle)->device = current_device();
    return leave_with(CUDNN_STATUS_SUCCESS);
}

static cudnnStatus_t check_handle(cudnnHandle_t handle)
{
    if (!handle_is(handle, HANDLE_DNN))
        return BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_HANDLE, "no cuDNN handle");
    if (handle->device != current_device())
        return BROKEN(CUDNN_STATUS_BAD_PARAM, OTHER_DEVICE, "cuDNN handle of device %d, current is %d", handle->device,
                      current_device());
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t streamId)
{
    lock();
    cudnnStatus_t status = check_handle(handle);
    struct CUstream_st *s = status ? NULL : stream_of(streamId);
    if (status || !s)
        return leave_with(status ? status : CUDNN_STATUS_BAD_PARAM);
    if (s->device != handle->device)
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, OTHER_DEVICE, "cuDNN handle of device %d, stream of device %d",
                                 handle->device, s->device));
    handle->stream = streamId;
    return leave_with(CUDNN_STATUS_SUCCESS);
}

static cudnnStatus_t create(void **ret_handle, enum handle_kind kind, size_t bytes)
{
    lock();
    *ret_handle = handle_new(kind, bytes);
    return leave_with(*ret_handle ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED);
}

static cudnnStatus_t destroy(void *handle, enum handle_kind kind)
{
    lock();
    return leave_with(handle_free(handle, kind) ? BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_HANDLE, "nothing such to destroy")
                                                : CUDNN_STATUS_SUCCESS);
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    return destroy(handle, HANDLE_DNN);
}

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *tensorDesc)
{
    return create((void **)tensorDesc, HANDLE_TENSOR, sizeof **tensorDesc);
}

cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t tensorDesc)
{
    return destroy(tensorDesc, HANDLE_TENSOR);
}

cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *filterDesc)
{
    return create((void **)filterDesc, HANDLE_FILTER, sizeof **filterDesc);
}

cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t filterDesc)
{
    return destroy(filterDesc, HANDLE_FILTER);
}

cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *convDesc)
{
    cudnnStatus_t status = create((void **)convDesc, HANDLE_CONVOLUTION, sizeof **convDesc);
    if (!status)
        (*convDesc)->groups = 1;
    return status;
}

cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t convDesc)
{
    return destroy(convDesc, HANDLE_CONVOLUTION);
}

static void pack(size_t stride[4], const int dim[4], cudnnTensorFormat_t format)
{
    size_t c = (size_t)dim[1], h = (size_t)dim[2], w = (size_t)dim[3];
    stride[0] = c * h * w;
    stride[1] = format == CUDNN_TENSOR_NHWC ? 1 : h * w;
    stride[2] = format == CUDNN_TENSOR_NHWC ? w * c : w;
    stride[3] = format == CUDNN_TENSOR_NHWC ? c : 1;
}

cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t tensorDesc, cudnnTensorFormat_t format,
                                         cudnnDataType_t dataType, int n, int c, int h, int w)
{
    lock();
    if (!handle_is(tensorDesc, HANDLE_TENSOR))
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_HANDLE, "no tensor descriptor"));
    if (n < 1 || c < 1 || h < 1 || w < 1 || (unsigned)format > CUDNN_TENSOR_NHWC)
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_TENSOR, "tensor of %d x %d x %d x %d", n, c, h, w));
    if ((double)n * c * h * w >= 2147483648.0)
        return leave_with(BROKEN(CUDNN_STATUS_NOT_SUPPORTED, DNN_TENSOR, "tensor of %d x %d x %d x %d", n, c, h, w));
    *tensorDesc = (struct cudnnTensorStruct){
        1, (int)dataType, {n,  c, h, w},
          format, {0}
    };
    pack(tensorDesc->stride, tensorDesc->dim, format);
    return leave_with(CUDNN_STATUS_SUCCESS);
}

cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t filterDesc, cudnnDataType_t dataType,
                                         cudnnTensorFormat_t format, int k, int c, int h, int w)
{
    lock();
    if (!handle_is(filterDesc, HANDLE_FILTER))
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_HANDLE, "no filter descriptor"));
    if (k < 1 || c < 1 || h < 1 || w < 1 || (unsigned)format > CUDNN_TENSOR_NHWC)
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_TENSOR, "filter of %d x %d x %d x %d", k, c, h, w));
    *filterDesc = (struct cudnnFilterStruct){
        1, (int)dataType, {k,  c, h, w},
          format, {0}
    };
    pack(filterDesc->stride, filterDesc->dim, format);
    return leave_with(CUDNN_STATUS_SUCCESS);
}

cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t convDesc, int pad_h, int pad_w, int u, int v,
                                              int dilation_h, int dilation_w, cudnnConvolutionMode_t mode,
                                              cudnnDataType_t computeType)
{
    lock();
    if (!handle_is(convDesc, HANDLE_CONVOLUTION))
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_HANDLE, "no convolution descriptor"));
    if (pad_h < 0 || pad_w < 0 || u < 1 || v < 1 || dilation_h < 1 || dilation_w < 1)
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_CONVOLUTION, "padding %d %d, stride %d %d, dilation %d %d",
                                 pad_h, pad_w, u, v, dilation_h, dilation_w));
    *convDesc = (struct cudnnConvolutionStruct){
        1,    {pad_h,      pad_w     },
            {u,          v         },
            {dilation_h, dilation_w},
            convDesc->groups, (int)computeType,
        mode, CUDNN_DEFAULT_MATH
    };
    return leave_with(CUDNN_STATUS_SUCCESS);
}

cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t convDesc, int groupCount)
{
    lock();
    if (!handle_is(convDesc, HANDLE_CONVOLUTION))
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_HANDLE, "no convolution descriptor"));
    if (groupCount < 1)
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_CONVOLUTION, "%d groups", groupCount));
    convDesc->groups = groupCount;
    return leave_with(CUDNN_STATUS_SUCCESS);
}

cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t convDesc, cudnnMathType_t mathType)
{
    lock();
    if (!handle_is(convDesc, HANDLE_CONVOLUTION))
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_HANDLE, "no convolution descriptor"));
    if ((unsigned)mathType > CUDNN_FMA_MATH)
        return leave_with(BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_CONVOLUTION, "math type %d", (int)mathType));
    convDesc->math = mathType;
    return leave_with(CUDNN_STATUS_SUCCESS);
}

/* --- a problem: x, w and y of the forward direction --------------------------------------------------------------------------------- */

static int output_side(const struct cudnnConvolutionStruct *c, const int *x, const int *w, int axis)
{
    return 1 + (x[2 + axis] + 2 * c->pad[axis] - ((w[2 + axis] - 1) * c->dilation[axis] + 1)) / c->stride[axis];
}

static cudnnStatus_t check_descriptors(const struct cudnnConvolutionStruct *c, const struct cudnnTensorStruct *x,
                                       const struct cudnnFilterStruct *w, const struct cudnnTensorStruct *y)
{
    if (!handle_is(c, HANDLE_CONVOLUTION) || !handle_is(x, HANDLE_TENSOR) || !handle_is(w, HANDLE_FILTER) ||
        (y && !handle_is(y, HANDLE_TENSOR)) || !c->set || !x->set || !w->set || (y && !y->set))
        return BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_HANDLE, "a descriptor is missing or was never set");
    for (int axis = 0; axis < 2; axis++)
        if (x->dim[2 + axis] + 2 * c->pad[axis] < (w->dim[2 + axis] - 1) * c->dilation[axis] + 1)
            return BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_SHAPE, "filter of %d, input with padding of %d", w->dim[2 + axis],
                          x->dim[2 + axis] + 2 * c->pad[axis]);
    if (x->dim[1] != w->dim[1] * c->groups || w->dim[0] % c->groups)
        return BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_SHAPE, "%d channels, filter %d to %d, %d groups", x->dim[1],
                      w->dim[1], w->dim[0], c->groups);
    if (y && (y->dim[0] != x->dim[0] || y->dim[1] != w->dim[0] || y->dim[2] != output_side(c, x->dim, w->dim, 0) ||
              y->dim[3] != output_side(c, x->dim, w->dim, 1)))
        return BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_SHAPE,
                      "y is %d x %d x %d x %d, and would have to be %d x %d x %d x %d", y->dim[0], y->dim[1], y->dim[2],
                      y->dim[3], x->dim[0], w->dim[0], output_side(c, x->dim, w->dim, 0),
                      output_side(c, x->dim, w->dim, 1));
    if (x->format != w->format || (y && y->format != x->format))
        return BROKEN(CUDNN_STATUS_NOT_SUPPORTED, DNN_LAYOUT, "formats x %d, w %d", (int)x->format, (int)w->format);
    if (x->type != CUDNN_DATA_FLOAT || w->type != CUDNN_DATA_FLOAT || (y && y->type != CUDNN_DATA_FLOAT) ||
        c->compute != CUDNN_DATA_FLOAT)
        return BROKEN(CUDNN_STATUS_NOT_SUPPORTED, DNN_TYPE, "types x %d, w %d, computation %d", x->type, w->type,
                      c->compute);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolution2dForwardOutputDim(const cudnnConvolutionDescriptor_t convDesc,
                                                    const cudnnTensorDescriptor_t inputTensorDesc,
                                                    const cudnnFilterDescriptor_t filterDesc, int *n, int *c, int *h,
                                                    int *w)
{
    lock();
    cudnnStatus_t status = check_descriptors(convDesc, inputTensorDesc, filterDesc, NULL);
    if (!status) {
        *n = inputTensorDesc->dim[0];
        *c = filterDesc->dim[0];
        *h = output_side(convDesc, inputTensorDesc->dim, filterDesc->dim, 0);
        *w = output_side(convDesc, inputTensorDesc->dim, filterDesc->dim, 1);
    }
    return leave_with(status);
}

/* --- algorithms --------------------------------------------------------------------------------------------------------------------------- */

enum direction { FORWARD, BACK_TO_DATA, BACK_TO_FILTER };

/* In the order in which they are offered. `matrix`: the workspace holds every patch of x as a row of a matrix. `other_math`: what it would
 * be with another math type than the descriptor's, not what runs. */
static const struct algorithm {
    enum direction direction;
    int number, only_nchw, deterministic, matrix;
    size_t workspace;
    int other_math;
} algorithms[] = {
    {FORWARD,        CUDNN_CONVOLUTION_FWD_ALGO_FFT,                   1, 1, 0, 0,         0},
    {FORWARD,        CUDNN_CONVOLUTION_FWD_ALGO_GEMM,                  0, 1, 1, 0,         0},
    {FORWARD,        CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, 0, 1, 0, 0,         1},
    {FORWARD,        CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, 0, 1, 0, 48 << 10,  0},
    {FORWARD,        CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,         0, 1, 0, 0,         0},
    {BACK_TO_DATA,   CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,                0, 0, 0, 0,         0},
    {BACK_TO_DATA,   CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT,              1, 1, 0, 0,         0},
    {BACK_TO_DATA,   CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,                0, 1, 0, 0,         1},
    {BACK_TO_DATA,   CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,                0, 1, 0, 80 << 10,  0},
    {BACK_TO_FILTER, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,              0, 0, 0, 0,         0},
    {BACK_TO_FILTER, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,              0, 0, 0, 16 << 10,  0},
    {BACK_TO_FILTER, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT,            1, 1, 0, 0,         0},
    {BACK_TO_FILTER, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,              0, 1, 0, 0,         1},
    {BACK_TO_FILTER, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,              0, 1, 0, 112 << 10, 0},
};
#define ALGORITHMS (sizeof algorithms / sizeof *algorithms)

/* An odd batch wants more than the even one above it: cuDNN 9.19 was seen to want some for one image and none for two. */
static size_t workspace_of(const struct algorithm *a, const struct cudnnTensorStruct *x,
                           const struct cudnnFilterStruct *w, const struct cudnnTensorStruct *y)
{
    size_t patches = (size_t)y->dim[0] * (size_t)y->dim[2] * (size_t)y->dim[3];
    size_t odd = a->workspace && x->dim[0] % 2 ? 32 << 10 : 0;
    return a->workspace + odd +
           (a->matrix ? patches * (size_t)x->dim[1] * (size_t)w->dim[2] * (size_t)w->dim[3] * 4 : 0);
}

static const struct algorithm *find_algorithm(enum direction direction, int number, const struct cudnnTensorStruct *x)
{
    for (size_t i = 0; i < ALGORITHMS; i++)
        if (algorithms[i].direction == direction && algorithms[i].number == number && !algorithms[i].other_math &&
            !(algorithms[i].only_nchw && x->format != CUDNN_TENSOR_NCHW))
            return &algorithms[i];
    found(RULE_DNN_ALGORITHM, "algorithm %d", number);
    return NULL;
}

static cudnnMathType_t other_math(cudnnMathType_t math)
{
    return math == CUDNN_FMA_MATH ? CUDNN_TENSOR_OP_MATH : CUDNN_FMA_MATH;
}

#define LIST(DIRECTION, algorithm_type, x, w, y)                                                                       \
    do {                                                                                                               \
        cudnnStatus_t status;                                                                                          \
        lock();                                                                                                        \
        *returnedAlgoCount = 0;                                                                                        \
        status = check_handle(handle);                                                                                 \
        if (!status)                                                                                                   \
            status = check_descriptors(convDesc, x, w, y);                                                             \
        for (size_t at = 0; !status && at < 3 * ALGORITHMS; at++) { /* the other math types first */                   \
            size_t i = at % ALGORITHMS;                                                                                \
            if (algorithms[i].direction == DIRECTION && *returnedAlgoCount < requestedAlgoCount) {                     \
                int offered = !(algorithms[i].only_nchw && (x)->format != CUDNN_TENSOR_NCHW);                          \
                perfResults[*returnedAlgoCount].algo = (algorithm_type)algorithms[i].number;                           \
                perfResults[*returnedAlgoCount].status = offered ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;  \
                perfResults[*returnedAlgoCount].time = -1;                                                             \
                perfResults[*returnedAlgoCount].memory = workspace_of(&algorithms[i], x, w, y);                        \
                perfResults[*returnedAlgoCount].determinism =                                                          \
                    algorithms[i].deterministic ? CUDNN_DETERMINISTIC : CUDNN_NON_DETERMINISTIC;                       \
                perfResults[(*returnedAlgoCount)++].mathType =                                                         \
                    at < 2 * ALGORITHMS || algorithms[i].other_math ? other_math(convDesc->math) : convDesc->math;     \
            }                                                                                                          \
        }                                                                                                              \
        return leave_with(status);                                                                                     \
    } while (0)

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t srcDesc,
                                                     const cudnnFilterDescriptor_t filterDesc,
                                                     const cudnnConvolutionDescriptor_t convDesc,
                                                     const cudnnTensorDescriptor_t destDesc,
                                                     const int requestedAlgoCount, int *returnedAlgoCount,
                                                     cudnnConvolutionFwdAlgoPerf_t *perfResults)
{
    LIST(FORWARD, cudnnConvolutionFwdAlgo_t, srcDesc, filterDesc, destDesc);
}

cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(
    cudnnHandle_t handle, const cudnnFilterDescriptor_t filterDesc, const cudnnTensorDescriptor_t diffDesc,
    const cudnnConvolutionDescriptor_t convDesc, const cudnnTensorDescriptor_t gradDesc, const int requestedAlgoCount,
    int *returnedAlgoCount, cudnnConvolutionBwdDataAlgoPerf_t *perfResults)
{
    LIST(BACK_TO_DATA, cudnnConvolutionBwdDataAlgo_t, gradDesc, filterDesc, diffDesc);
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t srcDesc,
                                                            const cudnnTensorDescriptor_t diffDesc,
                                                            const cudnnConvolutionDescriptor_t convDesc,
                                                            const cudnnFilterDescriptor_t gradDesc,
                                                            const int requestedAlgoCount, int *returnedAlgoCount,
                                                            cudnnConvolutionBwdFilterAlgoPerf_t *perfResults)
{
    LIST(BACK_TO_FILTER, cudnnConvolutionBwdFilterAlgo_t, srcDesc, gradDesc, diffDesc);
}

static cudnnStatus_t workspace_size(cudnnHandle_t handle, enum direction direction, int number,
                                    cudnnConvolutionDescriptor_t conv, cudnnTensorDescriptor_t x,
                                    cudnnFilterDescriptor_t w, cudnnTensorDescriptor_t y, size_t *ret_bytes)
{
    lock();
    cudnnStatus_t status = check_handle(handle);
    if (!status)
        status = check_descriptors(conv, x, w, y);
    const struct algorithm *a = status ? NULL : find_algorithm(direction, number, x);
    if (a)
        *ret_bytes = workspace_of(a, x, w, y);
    return leave_with(status ? status : a ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED);
}

cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t handle, const cudnnTensorDescriptor_t xDesc,
                                                      const cudnnFilterDescriptor_t wDesc,
                                                      const cudnnConvolutionDescriptor_t convDesc,
                                                      const cudnnTensorDescriptor_t yDesc,
                                                      cudnnConvolutionFwdAlgo_t algo, size_t *sizeInBytes)
{
    return workspace_size(handle, FORWARD, (int)algo, convDesc, xDesc, wDesc, yDesc, sizeInBytes);
}

cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t handle, const cudnnFilterDescriptor_t wDesc,
                                                           const cudnnTensorDescriptor_t dyDesc,
                                                           const cudnnConvolutionDescriptor_t convDesc,
                                                           const cudnnTensorDescriptor_t dxDesc,
                                                           cudnnConvolutionBwdDataAlgo_t algo, size_t *sizeInBytes)
{
    return workspace_size(handle, BACK_TO_DATA, (int)algo, convDesc, dxDesc, wDesc, dyDesc, sizeInBytes);
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(cudnnHandle_t handle, const cudnnTensorDescriptor_t xDesc,
                                                             const cudnnTensorDescriptor_t dyDesc,
                                                             const cudnnConvolutionDescriptor_t convDesc,
                                                             const cudnnFilterDescriptor_t gradDesc,
                                                             cudnnConvolutionBwdFilterAlgo_t algo, size_t *sizeInBytes)
{
    return workspace_size(handle, BACK_TO_FILTER, (int)algo, convDesc, xDesc, gradDesc, dyDesc, sizeInBytes);
}

/* --- convolutions ---------------------------------------------------------------------------------------------------------------------------- */

struct call {
    enum direction direction;
    struct convolution convolution;
};

static void run_convolution(struct operation *operation)
{
    static void (*const run[])(const struct convolution *) = {convolve, convolve_back_to_data, convolve_back_to_filter};
    struct call *call = operation->payload;
    run[call->direction](&call->convolution);
}

static size_t tensor_bytes(const int dim[4])
{
    return (size_t)dim[0] * (size_t)dim[1] * (size_t)dim[2] * (size_t)dim[3] * 4;
}

static int overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    return (const char *)a < (const char *)b + b_bytes && (const char *)b < (const char *)a + a_bytes;
}

static struct call *call_of(enum direction direction, const struct cudnnConvolutionStruct *c,
                            const struct cudnnTensorStruct *x, const struct cudnnFilterStruct *w,
                            const struct cudnnTensorStruct *y, const void *const data[3], float alpha, float beta)
{
    struct call *call = calloc(1, sizeof *call);
    call->direction = direction;
    call->convolution = (struct convolution){
        .images = x->dim[0],
        .in = x->dim[1],
        .out = w->dim[0],
        .groups = c->groups,
        .height = x->dim[2],
        .width = x->dim[3],
        .out_height = y->dim[2],
        .out_width = y->dim[3],
        .kernel_height = w->dim[2],
        .kernel_width = w->dim[3],
        .pad_height = c->pad[0],
        .pad_width = c->pad[1],
        .stride_height = c->stride[0],
        .stride_width = c->stride[1],
        .dilation_height = c->dilation[0],
        .dilation_width = c->dilation[1],
        .x = (float *)(uintptr_t)data[0],
        .w = (float *)(uintptr_t)data[1],
        .y = (float *)(uintptr_t)data[2],
        .alpha = alpha,
        .beta = beta,
    };
    for (int i = 0; i < 4; i++) {
        call->convolution.x_stride[i] = x->stride[i];
        call->convolution.w_stride[i] = w->stride[i];
        call->convolution.y_stride[i] = y->stride[i];
    }
    return call;
}

/* data: x, w, y. The one the direction writes is an output. */
static cudnnStatus_t check_call(enum direction direction, const struct algorithm *a, const struct cudnnTensorStruct *x,
                                const struct cudnnFilterStruct *w, const struct cudnnTensorStruct *y,
                                const void *const data[3], const void *workspace, size_t workspace_bytes)
{
    const size_t bytes[3] = {tensor_bytes(x->dim), tensor_bytes(w->dim), tensor_bytes(y->dim)};
    int output = direction == FORWARD ? 2 : direction == BACK_TO_DATA ? 0 : 1;
    if (!a->deterministic)
        found(RULE_DNN_DETERMINISM, "algorithm %d", a->number);
    if (workspace_bytes < workspace_of(a, x, w, y) || (workspace_bytes > 0 && !workspace))
        return BROKEN(CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT, DNN_WORKSPACE, "%zu bytes, algorithm %d needs %zu",
                      workspace_bytes, a->number, workspace_of(a, x, w, y));
    if (workspace_bytes > 0 && !is_device(workspace, workspace_bytes))
        return BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_POINTER, "workspace %p of %zu bytes", workspace, workspace_bytes);
    for (int i = 0; i < 3; i++) {
        if (!is_device(data[i], bytes[i]))
            return BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_POINTER, "%s at %p of %zu bytes",
                          i == 0   ? "x"
                          : i == 1 ? "w"
                                   : "y",
                          data[i], bytes[i]);
        if (i != output && overlap(data[i], bytes[i], data[output], bytes[output]))
            return BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_IN_PLACE, "the output overlaps an input");
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t call(cudnnHandle_t handle, enum direction direction, int number, cudnnConvolutionDescriptor_t conv,
                          cudnnTensorDescriptor_t x, cudnnFilterDescriptor_t w, cudnnTensorDescriptor_t y,
                          const void *const data[3], void *workspace, size_t workspace_bytes, const void *alpha,
                          const void *beta)
{
    cudnnStatus_t status = check_handle(handle);
    if (!status && (!alpha || !beta || is_device_address(alpha) || is_device_address(beta)))
        status = BROKEN(CUDNN_STATUS_BAD_PARAM, DNN_HANDLE, "alpha %p or beta %p is not in host memory", alpha, beta);
    if (!status)
        status = check_descriptors(conv, x, w, y);
    const struct algorithm *a = status ? NULL : find_algorithm(direction, number, x);
    if (!status && !a)
        status = CUDNN_STATUS_NOT_SUPPORTED;
    if (!status)
        status = check_call(direction, a, x, w, y, data, workspace, workspace_bytes);
    struct CUstream_st *s = status ? NULL : stream_of(handle->stream);
    if (status || !s)
        return status ? status : CUDNN_STATUS_BAD_PARAM;
    float b = *(const float *)beta;
    struct operation *o = operation_new("convolution", run_convolution,
                                        call_of(direction, conv, x, w, y, data, *(const float *)alpha, b));
    int output = direction == FORWARD ? 2 : direction == BACK_TO_DATA ? 0 : 1;
    const size_t bytes[3] = {tensor_bytes(x->dim), tensor_bytes(w->dim), tensor_bytes(y->dim)};
    for (int i = 0; i < 3; i++)
        if (i != output || b != 0)
            touches(o, data[i], bytes[i], TOUCH_READ);
    touches(o, workspace, workspace_bytes, TOUCH_WRITE);
    touches(o, data[output], bytes[output], TOUCH_WRITE);
    return enqueue(o, s) ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void *alpha, const cudnnTensorDescriptor_t xDesc,
                                      const void *x, const cudnnFilterDescriptor_t wDesc, const void *w,
                                      const cudnnConvolutionDescriptor_t convDesc, cudnnConvolutionFwdAlgo_t algo,
                                      void *workSpace, size_t workSpaceSizeInBytes, const void *beta,
                                      const cudnnTensorDescriptor_t yDesc, void *y)
{
    const void *const data[3] = {x, w, y};
    lock();
    return leave_with(call(handle, FORWARD, (int)algo, convDesc, xDesc, wDesc, yDesc, data, workSpace,
                           workSpaceSizeInBytes, alpha, beta));
}

cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void *alpha, const cudnnFilterDescriptor_t wDesc,
                                           const void *w, const cudnnTensorDescriptor_t dyDesc, const void *dy,
                                           const cudnnConvolutionDescriptor_t convDesc,
                                           cudnnConvolutionBwdDataAlgo_t algo, void *workSpace,
                                           size_t workSpaceSizeInBytes, const void *beta,
                                           const cudnnTensorDescriptor_t dxDesc, void *dx)
{
    const void *const data[3] = {dx, w, dy};
    lock();
    return leave_with(call(handle, BACK_TO_DATA, (int)algo, convDesc, dxDesc, wDesc, dyDesc, data, workSpace,
                           workSpaceSizeInBytes, alpha, beta));
}

cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void *alpha,
                                             const cudnnTensorDescriptor_t xDesc, const void *x,
                                             const cudnnTensorDescriptor_t dyDesc, const void *dy,
                                             const cudnnConvolutionDescriptor_t convDesc,
                                             cudnnConvolutionBwdFilterAlgo_t algo, void *workSpace,
                                             size_t workSpaceSizeInBytes, const void *beta,
                                             const cudnnFilterDescriptor_t dwDesc, void *dw)
{
    const void *const data[3] = {x, dw, dy};
    lock();
    return leave_with(call(handle, BACK_TO_FILTER, (int)algo, convDesc, xDesc, dwDesc, dyDesc, data, workSpace,
                           workSpaceSizeInBytes, alpha, beta));
}

/* --- texts ---------------------------------------------------------------------------------------------------------------------------------- */

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    switch (status) {
    case CUDNN_STATUS_SUCCESS:
        return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_INITIALIZED:
        return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM:
        return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT:
        return "CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT";
    case CUDNN_STATUS_NOT_SUPPORTED:
        return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_EXECUTION_FAILED:
        return "CUDNN_STATUS_EXECUTION_FAILED";
    default:
        return "CUDNN_STATUS of another kind";
    }
}

size_t cudnnGetVersion(void)
{
    return CUDNN_VERSION;
}
