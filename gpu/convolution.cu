/* See convolution.h. */
#include "gpu/convolution.h"
#include "gpu/status.h"

#define CANDIDATES 32 /* an algorithm is listed once for each math type */

static int describe(const struct convolution_shape *shape, struct convolution *convolution)
{
    int n = shape->images, images, channels, height, width;
    CHECK_DNN(cudnnCreateTensorDescriptor(&convolution->source));
    CHECK_DNN(cudnnCreateTensorDescriptor(&convolution->target));
    CHECK_DNN(cudnnCreateFilterDescriptor(&convolution->weights));
    CHECK_DNN(cudnnCreateConvolutionDescriptor(&convolution->convolution));
    CHECK_DNN(cudnnSetTensor4dDescriptor(convolution->source, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, n, shape->in,
                                         shape->side, shape->side));
    CHECK_DNN(cudnnSetTensor4dDescriptor(convolution->target, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, n, shape->out,
                                         shape->output_side, shape->output_side));
    CHECK_DNN(cudnnSetFilter4dDescriptor(convolution->weights, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NHWC, shape->out,
                                         shape->in, shape->kernel, shape->kernel));
    CHECK_DNN(cudnnSetConvolution2dDescriptor(convolution->convolution, shape->padding, shape->padding, shape->stride,
                                              shape->stride, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    CHECK_DNN(cudnnSetConvolutionMathType(convolution->convolution, shape->tf32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH));
    CHECK_DNN(cudnnGetConvolution2dForwardOutputDim(convolution->convolution, convolution->source, convolution->weights,
                                                    &images, &channels, &height, &width));
    if (images != n || channels != shape->out || height != shape->output_side || width != shape->output_side)
        return error_set(ERROR_STATE, "cuDNN gives %d x %d x %d where the net has %d x %d x %d: please report it",
                         height, width, channels, shape->output_side, shape->output_side, shape->out);
    return 0;
}

/* What a convolution needs when it runs an algorithm with its own math type, whatever math type cuDNN offered the algorithm with. */
static cudnnStatus_t workspace(const struct convolution_library *library, const struct convolution *c,
                               cudnnConvolutionFwdAlgo_t algorithm, size_t *ret_bytes)
{
    return cudnnGetConvolutionForwardWorkspaceSize(library->handle, c->source, c->weights, c->convolution, c->target,
                                                   algorithm, ret_bytes);
}

static cudnnStatus_t workspace(const struct convolution_library *library, const struct convolution *c,
                               cudnnConvolutionBwdDataAlgo_t algorithm, size_t *ret_bytes)
{
    return cudnnGetConvolutionBackwardDataWorkspaceSize(library->handle, c->weights, c->target, c->convolution,
                                                        c->source, algorithm, ret_bytes);
}

static cudnnStatus_t workspace(const struct convolution_library *library, const struct convolution *c,
                               cudnnConvolutionBwdFilterAlgo_t algorithm, size_t *ret_bytes)
{
    return cudnnGetConvolutionBackwardFilterWorkspaceSize(library->handle, c->source, c->target, c->convolution,
                                                          c->weights, algorithm, ret_bytes);
}

/* Whether an algorithm that was offered with a math type is the one that runs with the convolution's (describe()). */
static int same_math(cudnnMathType_t offered, const struct convolution_shape *shape)
{
    return shape->tf32 ? offered != CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION
                       : offered == CUDNN_FMA_MATH || offered == CUDNN_DEFAULT_MATH;
}

/* The first of cuDNN's candidates, best first, that gives the same bits every time and fits into the workspace. */
template <class Candidate, class Algorithm>
static int take(const struct convolution_library *library, const struct convolution_shape *shape,
                const Candidate *candidate, int count, const char *pass, struct convolution *convolution,
                Algorithm *ret_algorithm)
{
    for (int i = 0; i < count; i++) {
        size_t bytes = 0;
        if (candidate[i].status != CUDNN_STATUS_SUCCESS || candidate[i].determinism != CUDNN_DETERMINISTIC ||
            !same_math(candidate[i].mathType, shape))
            continue;
        cudnnStatus_t status = workspace(library, convolution, candidate[i].algo, &bytes);
        if (status / 1000 != CUDNN_STATUS_NOT_SUPPORTED / 1000) /* its statuses come in thousands */
            RETURN_IF(check_dnn(status, "cudnnGetConvolutionWorkspaceSize()", __FILE__, __LINE__));
        if (status != CUDNN_STATUS_SUCCESS || bytes > shape->workspace_limit)
            continue;
        *ret_algorithm = candidate[i].algo;
        if (bytes > convolution->workspace_bytes)
            convolution->workspace_bytes = bytes;
        return 0;
    }
    return error_set(ERROR_STATE,
                     "cuDNN has no deterministic algorithm for a convolution's %s in %zu MiB: use another cuDNN", pass,
                     shape->workspace_limit >> 20);
}

static int choose(const struct convolution_library *library, const struct convolution_shape *shape,
                  struct convolution *convolution)
{
    cudnnConvolutionFwdAlgoPerf_t forward[CANDIDATES];
    cudnnConvolutionBwdDataAlgoPerf_t backward[CANDIDATES];
    cudnnConvolutionBwdFilterAlgoPerf_t weights[CANDIDATES];
    int count = 0;
    CHECK_DNN(cudnnGetConvolutionForwardAlgorithm_v7(library->handle, convolution->source, convolution->weights,
                                                     convolution->convolution, convolution->target, CANDIDATES, &count,
                                                     forward));
    RETURN_IF(take(library, shape, forward, count, "forward pass", convolution, &convolution->forward));
    if (!shape->training)
        return 0;
    CHECK_DNN(cudnnGetConvolutionBackwardDataAlgorithm_v7(library->handle, convolution->weights, convolution->target,
                                                          convolution->convolution, convolution->source, CANDIDATES,
                                                          &count, backward));
    RETURN_IF(take(library, shape, backward, count, "backward pass", convolution, &convolution->backward));
    CHECK_DNN(cudnnGetConvolutionBackwardFilterAlgorithm_v7(library->handle, convolution->source, convolution->target,
                                                            convolution->convolution, convolution->weights, CANDIDATES,
                                                            &count, weights));
    return take(library, shape, weights, count, "weight gradient", convolution, &convolution->backward_weights);
}

int convolution_fits(size_t images, size_t side, size_t channels)
{
    return images * side * side * channels < CONVOLUTION_VALUES_MAX;
}

int convolution_open(const struct convolution_library *library, const struct convolution_shape *shape,
                     struct convolution *ret_convolution)
{
    *ret_convolution = (struct convolution){};
    size_t images = (size_t)shape->images;
    if (!convolution_fits(images, (size_t)shape->side, (size_t)shape->in) ||
        !convolution_fits(images, (size_t)shape->output_side, (size_t)shape->out))
        return error_set(ERROR_LIMIT,
                         "%zu images at a time are too many for a convolution from %d x %d x %d to %d x %d x %d: cuDNN "
                         "takes fewer than 2^31 values: use a smaller batch",
                         images, shape->side, shape->side, shape->in, shape->output_side, shape->output_side,
                         shape->out);
    int result = describe(shape, ret_convolution);
    if (!result)
        result = choose(library, shape, ret_convolution);
    if (result)
        convolution_close(ret_convolution);
    return result;
}

void convolution_close(struct convolution *convolution)
{
    if (convolution->source)
        cudnnDestroyTensorDescriptor(convolution->source);
    if (convolution->target)
        cudnnDestroyTensorDescriptor(convolution->target);
    if (convolution->weights)
        cudnnDestroyFilterDescriptor(convolution->weights);
    if (convolution->convolution)
        cudnnDestroyConvolutionDescriptor(convolution->convolution);
    *convolution = (struct convolution){};
}

int convolution_forward(const struct convolution_library *library, const struct convolution *convolution,
                        const float *source, const float *weights, float *target, void *workspace)
{
    float one = 1, zero = 0;
    CHECK_DNN(cudnnConvolutionForward(library->handle, &one, convolution->source, source, convolution->weights, weights,
                                      convolution->convolution, convolution->forward, workspace,
                                      convolution->workspace_bytes, &zero, convolution->target, target));
    return 0;
}

int convolution_backward(const struct convolution_library *library, const struct convolution *convolution,
                         const float *target_gradient, const float *weights, int accumulate, float *source_gradient,
                         void *workspace)
{
    float one = 1, beta = accumulate ? 1 : 0;
    CHECK_DNN(cudnnConvolutionBackwardData(library->handle, &one, convolution->weights, weights, convolution->target,
                                           target_gradient, convolution->convolution, convolution->backward, workspace,
                                           convolution->workspace_bytes, &beta, convolution->source, source_gradient));
    return 0;
}

int convolution_backward_weights(const struct convolution_library *library, const struct convolution *convolution,
                                 const float *source, const float *target_gradient, float *weight_gradient,
                                 void *workspace)
{
    float one = 1, zero = 0;
    CHECK_DNN(cudnnConvolutionBackwardFilter(library->handle, &one, convolution->source, source, convolution->target,
                                             target_gradient, convolution->convolution, convolution->backward_weights,
                                             workspace, convolution->workspace_bytes, &zero, convolution->weights,
                                             weight_gradient));
    return 0;
}
