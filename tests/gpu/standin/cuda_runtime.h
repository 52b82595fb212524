/* cuda_runtime_api.h, and how gpu/launch.h hands a kernel to the stand-in instead of to a device. */
#ifndef STANDIN_CUDA_RUNTIME_H
#define STANDIN_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A kernel as host code: a phase ends at each barrier of a block; see gpu/launch.h. */
struct standin_kernel {
    const char *name;
    unsigned threads; /* of a block */
    size_t arguments_bytes, shared_bytes, registers_bytes;
    int (*phases)(const void *arguments);
    void (*phase)(int phase, const void *arguments, void *shared, void *registers, unsigned block, unsigned thread,
                  unsigned blocks);
};

/* `kernel` must stay valid; the arguments are copied, as a launch does. Runs later, in the order of the stream. */
cudaError_t standin_launch(const struct standin_kernel *kernel, unsigned blocks, const void *arguments,
                           cudaStream_t stream);

/*
 * Tells that [start, start + bytes) is one buffer of an allocation that is cut into several. From the first call on, what lies between
 * buffers of that allocation may not be touched.
 */
void standin_buffer(const void *start, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
