/* Every status of CUDA, cuBLASLt, cuDNN and NCCL becomes an error with the call, file:line and what to do next. */
#ifndef TRIAGE_GPU_STATUS_H
#define TRIAGE_GPU_STATUS_H

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>
#include <nccl.h>

/* 0, or an error with its message set, which cudaGetLastError() does not give again. ERROR_UNAVAILABLE: no usable device, or one that is
 * lost or in which a library failed, or ranks that cannot reach each other (the process must end: nothing it holds on the device can be
 * used again). ERROR_LIMIT: device memory is full. ERROR_STATE: anything else, a defect of ours. */
int check_cuda(cudaError_t status, const char *call, const char *file, int line);
int check_blas(cublasStatus_t status, const char *call, const char *file, int line);
int check_dnn(cudnnStatus_t status, const char *call, const char *file, int line);
int check_nccl(ncclResult_t status, const char *call, const char *file, int line);

#define RETURN_IF(call)                                                                                                \
    do {                                                                                                               \
        int returned_ = (call);                                                                                        \
        if (returned_)                                                                                                 \
            return returned_;                                                                                          \
    } while (0)
#define CHECK_CUDA(call) RETURN_IF(check_cuda((call), #call, __FILE__, __LINE__))
#define CHECK_BLAS(call) RETURN_IF(check_blas((call), #call, __FILE__, __LINE__))
#define CHECK_DNN(call)  RETURN_IF(check_dnn((call), #call, __FILE__, __LINE__))
#define CHECK_NCCL(call) RETURN_IF(check_nccl((call), #call, __FILE__, __LINE__))

#endif
