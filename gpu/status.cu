/* See status.h. */
#include "gpu/status.h"
#include "gpu/host.h"

/* A source file's name without its folders, the head of a call without its arguments. */
static const char *base_name(const char *file)
{
    const char *slash = strrchr(file, '/');
    return slash ? slash + 1 : file;
}

static int name_length(const char *call)
{
    return (int)strcspn(call, "(");
}

static const struct {
    cudaError_t status;
    int code;
    const char *advice;
} advices[] = {
    {cudaErrorMemoryAllocation,       ERROR_LIMIT,
     "the device's memory is full: 'nvidia-smi' shows who uses it; free it, or use a smaller batch"          },
    {cudaErrorNoDevice,               ERROR_UNAVAILABLE,
     "there is no NVIDIA device: check 'nvidia-smi' and CUDA_VISIBLE_DEVICES, or set worker.backend = cpu"   },
    {cudaErrorInsufficientDriver,     ERROR_UNAVAILABLE,
     "no NVIDIA driver, or one too old for CUDA 13: install driver 580 or newer, or set worker.backend = cpu"},
    {cudaErrorInvalidDevice,          ERROR_UNAVAILABLE,
     "no such device: 'triaged gpu' lists them; correct CUDA_VISIBLE_DEVICES"                                },
    {cudaErrorSystemNotReady,         ERROR_UNAVAILABLE,
     "the system is not ready: on servers with NVSwitch start nvidia-fabricmanager"                          },
    {cudaErrorDevicesUnavailable,     ERROR_UNAVAILABLE,
     "the device is busy or in exclusive mode: 'nvidia-smi -q -d COMPUTE' shows the mode"                    },
    {cudaErrorNoKernelImageForDevice, ERROR_UNAVAILABLE,
     "this build has no code for the device: compute capability 7.5 or newer is needed"                      },
    {cudaErrorIllegalAddress,         ERROR_UNAVAILABLE,
     "the device is lost to this process: the worker ends and is started again; if it repeats, report it"    },
    {cudaErrorLaunchFailure,          ERROR_UNAVAILABLE,
     "the device is lost to this process: the worker ends and is started again; if it repeats, report it"    },
    {cudaErrorLaunchTimeout,          ERROR_UNAVAILABLE,
     "the display driver stopped a kernel: use a card without a screen; the worker ends and is started again"},
    {cudaErrorHardwareStackError,     ERROR_UNAVAILABLE,
     "the device is lost to this process: 'dmesg | grep Xid' says why; the worker ends and is started again" },
    {cudaErrorECCUncorrectable,       ERROR_UNAVAILABLE,
     "the card's memory is damaged: 'nvidia-smi -q -d ECC'; reset or replace it; the worker ends"            },
    {cudaErrorNvlinkUncorrectable,    ERROR_UNAVAILABLE,
     "NVLink failed: 'nvidia-smi nvlink -e' shows where; the worker ends and is started again"               },
};

int check_cuda(cudaError_t status, const char *call, const char *file, int line)
{
    if (status == cudaSuccess)
        return 0;
    int code = ERROR_STATE;
    const char *advice = "a defect of this program: please report it with this line";
    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++)
        if (advices[i].status == status) {
            code = advices[i].code;
            advice = advices[i].advice;
        }
    return error_set(code, "%s:%d: %.*s: %s (%s): %s", base_name(file), line, name_length(call), call,
                     cudaGetErrorString(status), cudaGetErrorName(status), advice);
}

/* Of the libraries: what they report after a lost device is what the runtime knows better. */
static int check_library(int status, const char *text, const char *call, const char *file, int line)
{
    RETURN_IF(check_cuda(cudaGetLastError(), call, file, line));
    return error_set(
        ERROR_STATE,
        "%s:%d: %.*s: %s (%d): library and program do not fit together: 'triaged gpu' prints the versions, "
        "docs/gpu.md those that do",
        base_name(file), line, name_length(call), call, text, status);
}

int check_blas(cublasStatus_t status, const char *call, const char *file, int line)
{
    return status == CUBLAS_STATUS_SUCCESS ? 0
                                           : check_library(status, cublasLtGetStatusString(status), call, file, line);
}

int check_dnn(cudnnStatus_t status, const char *call, const char *file, int line)
{
    return status == CUDNN_STATUS_SUCCESS ? 0 : check_library(status, cudnnGetErrorString(status), call, file, line);
}

int check_nccl(ncclResult_t status, const char *call, const char *file, int line)
{
    return status == ncclSuccess ? 0 : check_library(status, ncclGetErrorString(status), call, file, line);
}
