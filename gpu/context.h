/*
 * What every job on the device shares: the device, its streams, the libraries and host threads; and how device memory is planned.
 * Everything a job needs is planned and allocated once, when it is opened, in one arena; a job never allocates while it runs.
 */
#ifndef TRIAGE_GPU_CONTEXT_H
#define TRIAGE_GPU_CONTEXT_H

#include "gpu/convolution.h"
#include "gpu/gemm.h"
#include "gpu/host.h"
#include "gpu/measure.h"
#include "gpu/status.h"

extern "C" {
#include "base/workers.h"
}

#define CAPABILITY    75 /* compute capability, times ten, of the oldest device that there is code for (CMakeLists.txt) */
#define ALIGNMENT     ((size_t)256) /* of every buffer, in bytes */
#define MEMORY_SHARE  0.9           /* of the free device memory that a job may take */
#define STAGING_BYTES ((size_t)4 << 20)

struct ranks;

enum job_kind { JOB_NET, JOB_CALIBRATION, JOB_TRAINING, JOB_FIT, JOB_SCORE, JOB_DUMP, JOB_KINDS };

struct told { /* of the last job of a kind */
    size_t items, bytes;
};

struct backend_context {
    int device;          /* also the number of its rank */
    struct ranks *ranks; /* ranks.h; NULL = this device alone */
    size_t memory_bytes; /* of the device */
    backend_tell *tell;  /* NULL = nobody wants to know */
    struct told told[JOB_KINDS];
    struct workers *workers;
    cudaStream_t compute, copy;
    char *staging; /* [STAGING_BYTES] pinned, for context_upload() */
    struct gemm_library gemm;
    struct convolution_library convolution;
};

/* Whether there is code for the device: else ERROR_UNAVAILABLE. Does not open it. */
int context_check_device(int device);

/* One device, and `threads` workers. */
int context_open(int threads, int device, struct backend_context **ret_context);
void context_close(struct backend_context *context); /* NULL is fine */

/* Memory of the current device; and how much of it a new job may take now. */
int context_memory(struct device_memory *ret_memory);
int context_free_bytes(size_t *ret_bytes);

/* The rest of a job's line where it is smaller than it would be with more free memory; else nothing. */
#define SMALLER_BYTES 160
void context_tell_smaller(const struct job_size *size, char text[SMALLER_BYTES]);

/* Tells what a job on so many items at a time is about to take of the device, and of pinned memory of the host, unless the last one told of
 * its kind had as many and took no less. */
void context_tell(struct backend_context *context, enum job_kind kind, size_t items, size_t bytes, size_t pinned_bytes,
                  const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Copy by way of pinned memory, in the order of the compute stream, and wait: for what happens once, not for the steady loop. */
int context_upload(struct backend_context *context, void *device, const void *host, size_t bytes);
int context_download(struct backend_context *context, void *host, const void *device, size_t bytes);

/* Everything `enqueue` puts on the compute stream as one graph: one launch instead of hundreds. Work that has not run before must not be
 * captured: its kernels are still to be loaded. */
typedef int context_enqueue(void *argument);
int context_capture(struct backend_context *context, context_enqueue *enqueue, void *argument,
                    cudaGraphExec_t *ret_graph);

/* One buffer of an arena: alive from step `first` to step `last`; buffers that are never alive together share memory. */
struct buffer {
    size_t bytes;
    int first, last;
    size_t offset; /* OUTPUT of arena_plan() */
};

#define BUFFERS_MAX (2 * (NET_LAYERS_MAX + 1)) /* of a plan: a map and its gradient for each layer, and for the input */

/* Places every buffer, BUFFERS_MAX at most; returns the bytes of the arena. */
size_t arena_plan(struct buffer *buffer, int count);

/* A region handed out piece by piece, all of it alive as long as the job. */
struct arena {
    char *start; /* NULL: only counting */
    size_t used, bytes;
};

/* `bytes` more, aligned; while counting an address that is never used. */
void *arena_take(struct arena *arena, size_t bytes);

static inline size_t round_up(size_t value, size_t step)
{
    return (value + step - 1) / step * step;
}

#endif
