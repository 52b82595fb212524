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

/* Statuses after which the runtime's header wants the process relaunched; and the unknown one, where nobody can say. */
#define LOST "the device is lost to this process: the worker ends and is started again; "

/* What other programs share a card by; who starts the worker may also want to do without. */
#define MPS                                                                                                            \
    "CUDA's Multi-Process Service has this card: the log of nvidia-cuda-mps-control says why, or end it ('echo quit "  \
    "| "                                                                                                               \
    "nvidia-cuda-mps-control'); "

/* The compiled code does not fit the card, which that of PTX would. */
#define NO_CODE "this build has no compiled code for the device, and "

static const struct {
    cudaError_t status;
    int code;
    const char *advice;
} advices[] = {
    {cudaErrorMemoryAllocation,           ERROR_LIMIT,
     "the device's memory is full: 'nvidia-smi' shows who uses it; free it, or use a smaller batch"                      },
    {cudaErrorInitializationError,        ERROR_UNAVAILABLE,
     "the driver does not start: 'nvidia-smi' and 'dmesg' say why; after an update of the driver, reboot"                },
    {cudaErrorNoDevice,                   ERROR_UNAVAILABLE,
     "there is no NVIDIA device, or this user may not open it (root's nvidia-smi works all the same): 'ls -l "
     "/dev/nvidia*' (SupplementaryGroups=video and DeviceAllow in the unit), CUDA_VISIBLE_DEVICES, or set "
     "worker.backend = cpu"                                                                                              },
    {cudaErrorInsufficientDriver,         ERROR_UNAVAILABLE,
     "no NVIDIA driver, or one too old for CUDA 13: install driver 580 or newer, or set worker.backend = cpu"            },
    {cudaErrorStubLibrary,                ERROR_UNAVAILABLE,
     "the libcuda.so.1 that was found is the toolkit's stub, not the driver's: take the folder 'stubs' out of "
     "LD_LIBRARY_PATH and /etc/ld.so.conf.d ('ldconfig -p | grep libcuda.so' shows it), or set worker.backend = cpu"     },
    {cudaErrorOperatingSystem,            ERROR_UNAVAILABLE,
     "the operating system refused a call of the driver: 'ls -l /dev/nvidia*' (DeviceAllow in the unit), and 'dmesg'"    },
    {cudaErrorNotPermitted,               ERROR_UNAVAILABLE,
     "this process may not do that with the device: 'ls -l /dev/nvidia*' (DeviceAllow in the unit), and where MPS "
     "runs, who started it"                                                                                              },
    {cudaErrorUnsupportedPtxVersion,      ERROR_UNAVAILABLE,
     "the driver is older than the compiler of this build: install driver 580 or newer"                                  },
    {cudaErrorInvalidDevice,              ERROR_UNAVAILABLE,
     "no such device: 'triaged gpu' lists them; correct CUDA_VISIBLE_DEVICES"                                            },
    {cudaErrorSystemNotReady,             ERROR_UNAVAILABLE,
     "the system is not ready: on servers with NVSwitch start nvidia-fabricmanager"                                      },
    {cudaErrorSystemDriverMismatch,       ERROR_UNAVAILABLE,
     "kernel module and libraries of the driver differ ('cat /proc/driver/nvidia/version'): reboot after its update"     },
    {cudaErrorDevicesUnavailable,         ERROR_UNAVAILABLE,
     "the device is busy or in exclusive mode: 'nvidia-smi -q -d COMPUTE' shows the mode"                                },
    {cudaErrorCompatNotSupportedOnDevice, ERROR_UNAVAILABLE,
     "CUDA's libraries for forward compatibility (package cuda-compat) were found, and this card's driver must do "
     "without them: "
     "install driver 580 or newer, and take the folder 'compat' out of LD_LIBRARY_PATH and /etc/ld.so.conf.d "
     "('ldconfig "
     "-p | grep libcuda.so' shows it)"                                                                                   },
    {cudaErrorMpsConnectionFailed,        ERROR_UNAVAILABLE, MPS "it cannot be reached"                                  },
    {cudaErrorMpsRpcFailure,              ERROR_UNAVAILABLE, MPS "it does not answer"                                    },
    {cudaErrorMpsServerNotReady,          ERROR_UNAVAILABLE, MPS "it is starting, or ends after a client's error"        },
    {cudaErrorMpsMaxClientsReached,       ERROR_UNAVAILABLE, MPS "it has as many clients as it takes: end some"          },
    {cudaErrorMpsMaxConnectionsReached,   ERROR_UNAVAILABLE,
     MPS "it has as many connections as it takes: end some clients, or lower CUDA_DEVICE_MAX_CONNECTIONS"                },
    {cudaErrorJitCompilerNotFound,        ERROR_UNAVAILABLE,
     NO_CODE "no libnvidia-ptxjitcompiler.so.1 was found that could make it: it is part of the driver"                   },
    {cudaErrorJitCompilationDisabled,     ERROR_UNAVAILABLE,
     NO_CODE "CUDA_DISABLE_PTX_JIT forbids to make it: take that out of the environment"                                 },
    {cudaErrorDeviceNotLicensed,          ERROR_UNAVAILABLE,
     "the virtual GPU has no valid license: 'nvidia-smi -q | grep -i license' shows it; see nvidia-gridd's log"          },
    {cudaErrorNoKernelImageForDevice,     ERROR_UNAVAILABLE,
     "this build has no code for the device: compute capability 7.5 or newer is needed"                                  },
    {cudaErrorIllegalAddress,             ERROR_UNAVAILABLE, LOST "if it repeats, report it"                             },
    {cudaErrorAssert,                     ERROR_UNAVAILABLE, LOST "if it repeats, report it"                             },
    {cudaErrorIllegalInstruction,         ERROR_UNAVAILABLE, LOST "if it repeats, report it"                             },
    {cudaErrorMisalignedAddress,          ERROR_UNAVAILABLE, LOST "if it repeats, report it"                             },
    {cudaErrorInvalidAddressSpace,        ERROR_UNAVAILABLE, LOST "if it repeats, report it"                             },
    {cudaErrorInvalidPc,                  ERROR_UNAVAILABLE, LOST "if it repeats, report it"                             },
    {cudaErrorLaunchFailure,              ERROR_UNAVAILABLE, LOST "if it repeats, report it"                             },
    {cudaErrorTensorMemoryLeak,           ERROR_UNAVAILABLE, LOST "if it repeats, report it"                             },
    {cudaErrorLaunchTimeout,              ERROR_UNAVAILABLE,
     LOST "the display driver stopped a kernel: use a card without a screen"                                             },
    {cudaErrorHardwareStackError,         ERROR_UNAVAILABLE, LOST "'dmesg | grep Xid' says why"                          },
    {cudaErrorExternalDevice,             ERROR_UNAVAILABLE, LOST "'dmesg | grep Xid' says why"                          },
    {cudaErrorMpsClientTerminated,        ERROR_UNAVAILABLE, LOST "the log of nvidia-cuda-mps-control says why"          },
    {cudaErrorContained,                  ERROR_UNAVAILABLE, LOST "'nvidia-smi -q -d ECC' and 'dmesg | grep Xid' say why"},
    {cudaErrorECCUncorrectable,           ERROR_UNAVAILABLE,
     LOST "its memory is damaged: 'nvidia-smi -q -d ECC'; reset or replace it"                                           },
    {cudaErrorNvlinkUncorrectable,        ERROR_UNAVAILABLE, LOST "NVLink failed: 'nvidia-smi nvlink -e' shows where"    },
    {cudaErrorUnknown,                    ERROR_UNAVAILABLE,
     "/dev/nvidia-uvm is missing or forbidden ('ls -l /dev/nvidia*'; 'nvidia-modprobe -u -c 0' as root makes it, "
     "DeviceAllow in the unit), or " LOST "'dmesg | grep Xid' may say why"                                               },
};

static int advice_of(cudaError_t status)
{
    for (int i = 0; i < (int)(sizeof advices / sizeof *advices); i++)
        if (advices[i].status == status)
            return i;
    return -1;
}

int check_cuda(cudaError_t status, const char *call, const char *file, int line)
{
    if (status == cudaSuccess)
        return 0;
    cudaGetLastError(); /* it was told here: the next launch must not tell it again (launch.h); a lost device's stays */
    int known = advice_of(status);
    return error_set(known < 0 ? ERROR_STATE : advices[known].code, "%s:%d: %.*s: %s (%s): %s", base_name(file), line,
                     name_length(call), call, cudaGetErrorString(status), cudaGetErrorName(status),
                     known < 0 ? "a defect of this program: please report it with this line" : advices[known].advice);
}

enum library_failure {
    MISFIT,
    FULL,
    FAILED,
    REFUSED
}; /* what a library's status says: nothing of the device, no memory, the device, the operating system */

/*
 * Of the libraries. Each library has a runtime of its own, so that
 * cudaGetLastError() here knows nothing of their calls; a call that reaches the device does, once it is lost. Where that call finds
 * nothing, what a failure leaves on the device is still not to be trusted.
 */
static int check_library(int status, enum library_failure failure, const char *text, const char *call, const char *file,
                         int line)
{
    size_t free_bytes, total;
    cudaError_t probed = cudaMemGetInfo(&free_bytes, &total);
    int known = advice_of(probed);
    if (known >= 0 && advices[known].code == ERROR_UNAVAILABLE)
        return check_cuda(probed, call, file, line);
    if (failure == FULL)
        return error_set(ERROR_LIMIT, "%s:%d: %.*s: %s (%d): %s", base_name(file), line, name_length(call), call, text,
                         status, advices[0].advice);
    if (failure == FAILED)
        return error_set(ERROR_UNAVAILABLE, "%s:%d: %.*s: %s (%d): " LOST "'dmesg | grep Xid' may say why",
                         base_name(file), line, name_length(call), call, text, status);
    if (failure == REFUSED)
        return error_set(ERROR_UNAVAILABLE,
                         "%s:%d: %.*s: %s (%d): the devices' ranks could not reach each other by sockets, netlink or "
                         "/dev/shm: NCCL_SOCKET_IFNAME (lo) and RestrictAddressFamilies (AF_INET AF_NETLINK) in the "
                         "unit, room in /dev/shm; NCCL_DEBUG=WARN says which; or set worker.devices = 1",
                         base_name(file), line, name_length(call), call, text, status);
    return error_set(
        ERROR_STATE,
        "%s:%d: %.*s: %s (%d): library and program do not fit together: 'triaged gpu' prints the versions, "
        "docs/gpu.md those that do",
        base_name(file), line, name_length(call), call, text, status);
}

int check_blas(cublasStatus_t status, const char *call, const char *file, int line)
{
    int failed = status == CUBLAS_STATUS_EXECUTION_FAILED || status == CUBLAS_STATUS_INTERNAL_ERROR ||
                 status == CUBLAS_STATUS_MAPPING_ERROR;
    enum library_failure failure = status == CUBLAS_STATUS_ALLOC_FAILED ? FULL : failed ? FAILED : MISFIT;
    return status == CUBLAS_STATUS_SUCCESS
               ? 0
               : check_library(status, failure, cublasLtGetStatusString(status), call, file, line);
}

/* Its statuses come in thousands, one for each kind. */
int check_dnn(cudnnStatus_t status, const char *call, const char *file, int line)
{
    int failed =
        status / 1000 == CUDNN_STATUS_EXECUTION_FAILED / 1000 || status / 1000 == CUDNN_STATUS_INTERNAL_ERROR / 1000;
    int full = status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
               status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
    enum library_failure failure = full ? FULL : failed ? FAILED : MISFIT;
    return status == CUDNN_STATUS_SUCCESS
               ? 0
               : check_library(status, failure, cudnnGetErrorString(status), call, file, line);
}

int check_nccl(ncclResult_t status, const char *call, const char *file, int line)
{
    int failed = status == ncclUnhandledCudaError || status == ncclInternalError || status == ncclRemoteError;
    enum library_failure failure = status == ncclSystemError ? REFUSED : failed ? FAILED : MISFIT;
    return status == ncclSuccess ? 0 : check_library(status, failure, ncclGetErrorString(status), call, file, line);
}
