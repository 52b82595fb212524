/*
 * Dense convolutions (the stem, and the network of Walmsley et al. 2020) by cuDNN, and nothing else of it. Channels-last, float.
 * Only algorithms that are deterministic, fit the workspace and keep to the math type (TF32 or not) are taken.
 */
#ifndef TRIAGE_GPU_CONVOLUTION_H
#define TRIAGE_GPU_CONVOLUTION_H

#include "gpu/host.h"

#include <cuda_runtime.h>
#include <cudnn.h>

#ifndef CONVOLUTION_WORKSPACE_BYTES /* the most that is ever given; tests give less, for memory they must look after */
#define CONVOLUTION_WORKSPACE_BYTES ((size_t)256 << 20)
#endif

#define CONVOLUTION_VALUES_MAX ((size_t)1 << 31) /* cuDNN takes tensors of fewer: cudnnSetTensor4dDescriptor() */

struct convolution_library {
    cudnnHandle_t handle; /* bound to one stream */
};

struct convolution_shape {
    int images, in, out, kernel, stride;
    int side, padding, output_side; /* padding on every side */
    int tf32;
    int training;           /* the backward passes too */
    size_t workspace_limit; /* bytes */
};

struct convolution {
    cudnnTensorDescriptor_t source, target;
    cudnnFilterDescriptor_t weights;
    cudnnConvolutionDescriptor_t convolution;
    cudnnConvolutionFwdAlgo_t forward;
    cudnnConvolutionBwdDataAlgo_t backward;
    cudnnConvolutionBwdFilterAlgo_t backward_weights;
    size_t workspace_bytes; /* what the caller gives to every run, at most the limit */
};

/* Whether a map of so many images is one that cuDNN takes. */
int convolution_fits(size_t images, size_t side, size_t channels);

int convolution_open(const struct convolution_library *library, const struct convolution_shape *shape,
                     struct convolution *ret_convolution);
void convolution_close(struct convolution *convolution); /* zeroed is fine */

/* source [images][side][side][in], weights [out][kernel][kernel][in], target [images][output_side][output_side][out] */
int convolution_forward(const struct convolution_library *library, const struct convolution *convolution,
                        const float *source, const float *weights, float *target, void *workspace);
int convolution_backward(const struct convolution_library *library, const struct convolution *convolution,
                         const float *target_gradient, const float *weights, int accumulate, float *source_gradient,
                         void *workspace);
int convolution_backward_weights(const struct convolution_library *library, const struct convolution *convolution,
                                 const float *source, const float *target_gradient, float *weight_gradient,
                                 void *workspace);

#endif
