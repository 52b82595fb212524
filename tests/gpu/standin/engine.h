/*
 * Inside of the stand-in: what its files tell each other. One lock over everything; every entry point of the foreign interfaces takes it
 * (ENTER) and gives it back (LEAVE).
 *
 *   rules.c    findings            memory.c   allocations, protection, faults      engine.c   streams, events, order, races
 *   runtime.c  entry points        graph.c    capture                              launch.c   kernels
 *   blas.c     cuBLASLt            dnn.c      cuDNN                                nccl.c     NCCL
 *   handles.c  handles             loops.c    arithmetic                           trace.c    accesses
 */
#ifndef TRIAGE_TESTS_STANDIN_ENGINE_H
#define TRIAGE_TESTS_STANDIN_ENGINE_H

#include "tests/gpu/standin/cuda_runtime.h"
#include "tests/gpu/standin/standin.h"

#include <stddef.h>
#include <stdint.h>

#define STREAMS_LIMIT 64 /* alive at a time */
#define DEVICES_LIMIT 8
#define ACCESS_LIMIT  16

/* --- rules.c --------------------------------------------------------------------------------------------- */

void found(enum standin_rule rule, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Counts and prints, then returns `status`. */
#define BROKEN(status, rule, ...) (found(RULE_##rule, __VA_ARGS__), (status))

/* Past a limit of the stand-in's own nothing would be watched: says which, and ends the process with status 86. */
_Noreturn void too_many(const char *what, unsigned limit, const char *where);

void lock(void);
void unlock(void);
cudaError_t leave(
    cudaError_t error); /* remembers it for cudaGetLastError(), unlocks, and returns it; the libraries never do that */
void tell_others(void); /* the threads that wait for another rank */
int wait_for_others(void); /* under the lock; non-zero when nothing happened for settings.patience_s */

/* --- settings (engine.c) ---------------------------------------------------------------------------------- */

struct settings {
    int devices;
    int capability;     /* times ten */
    int connect_status; /* of ncclGetUniqueId() */
    int barred;         /* a device that cannot be opened, with `bar`; -1 = none */
    cudaError_t bar;
    size_t memory_bytes;
    size_t held[DEVICES_LIMIT]; /* of it, by other processes */
    uint64_t seed;
    uint64_t fail_after; /* operations; 0 = never */
    int fail_device;     /* -1 = whichever has that operation */
    cudaError_t status;  /* of the next loss */
    cudaError_t lost[DEVICES_LIMIT];
    int lost_hangs;                             /* who closes what is on a lost device */
    uint64_t refuse_after, refuse_handle_after; /* operations of one device, handles; 0 = never */
    int refuse_device;
    int connect_device; /* that is lost while ranks connect; -1 = none */
    enum standin_moment connect_moment;
    int only_device; /* whose work runs; -1 = all */
    int closed;      /* to allocation */
    int patience_s;  /* for other ranks */
};
extern struct settings settings;

/* A number below `limit` from the seed; 0 with seed 0. */
unsigned choose(unsigned limit);

/* --- memory.c ---------------------------------------------------------------------------------------------- */

enum memory_kind { MEMORY_DEVICE, MEMORY_PINNED };

struct buffer {
    char *start;
    size_t bytes;
};

struct allocation {
    enum memory_kind kind;
    int device;
    char *start; /* what the caller got */
    size_t bytes;
    char *mapped; /* with guard pages */
    size_t mapped_bytes;
    uint8_t *written;      /* [bytes / 4 + 1] bits: words that were written; NULL for pinned */
    struct buffer *buffer; /* standin_buffer(); NULL = one buffer */
    unsigned buffers;
    int registered; /* cudaHostRegister(): memory of the caller's */
    void *places;   /* trace.c */
    size_t places_bytes;
    struct allocation *next;
};

/* The live allocation that holds all of [start, start + bytes), and the buffer within it where there are several; NULL. */
struct allocation *allocation_of(const void *start, size_t bytes);
int inside_buffer(const struct allocation *allocation, const void *start, size_t bytes);
int is_device(const void *start, size_t bytes);
int is_device_address(const void *address); /* in the device's part of the address space, live or not */
struct allocation *pinned_of(const void *start, size_t bytes);

/* Whole words of device memory that anything wrote; only where kernels are traced is that all. */
void mark_written(const void *start, size_t bytes);
int was_written(const void *start, size_t bytes);

/* Device memory within reach of the host, between the two; nests. */
void device_reach(const char *who);
void device_out_of_reach(void);

/* While a copy is pending: 1 = the host may read, 0 = not even that. Then given back. */
void pinned_hold(const void *start, size_t bytes, int readable);
void pinned_release_all(void);

/* --- engine.c ---------------------------------------------------------------------------------------------- */

struct clocks {
    uint32_t of[STREAMS_LIMIT];
};

enum touch {
    TOUCH_READ,
    TOUCH_WRITE,
    TOUCH_MAYBE, /* a pointer among a kernel's arguments: it may read or write there */
};

struct access {
    const void *start;
    size_t bytes;
    enum touch touch;
    int strict; /* all of it was to be written before it is read */
};

/* One piece of work of a stream: a copy, a fill, a kernel, a library call, a host function or a graph. */
struct operation {
    const char *name;
    struct CUstream_st *stream;
    uint32_t number;     /* in its stream, from 1 */
    struct clocks after; /* what must be done first; of its own stream: number - 1 */
    void (*run)(struct operation *operation);
    int (*ready)(struct operation *operation); /* NULL = always; of collectives, which wait for the other ranks */
    void *payload;                             /* freed with the operation */
    void (*free_payload)(void *payload);       /* NULL = free() */
    unsigned accesses;
    struct access access[ACCESS_LIMIT];
    uint64_t checksum; /* of pinned memory it reads, when it was enqueued */
    struct operation *next;
};

struct CUstream_st {
    int device, slot, blocking;
    struct clocks clocks; /* of the last operation issued, with what later ones wait for */
    struct operation *head, *tail;
    struct CUgraph_st *capture; /* what is being captured from it */
    int posting;                /* a sum over ranks is in progress that is still to come to it */
    struct CUstream_st *next;
};

struct CUevent_st {
    int device;
    unsigned flags;
    int recorded;
    struct clocks clocks;
    struct CUgraph_st *captured; /* recorded in this capture */
    struct CUevent_st *next;
};

/* NULL = the legacy stream of the current device. Returns NULL after RULE_STREAM_HANDLE. */
struct CUstream_st *stream_of(cudaStream_t stream);
struct CUstream_st *stream_new(int device, int blocking);
void stream_forget(struct CUstream_st *stream);
struct CUstream_st *streams(void);
struct CUevent_st *event_of(cudaEvent_t event);
struct CUevent_st *event_new(unsigned flags);
void event_forget(struct CUevent_st *event);

int current_device(void);
int set_current_device(int device);

/* cudaSuccess, or the error that stands between the caller and any work: the current device is lost, or there is none. */
cudaError_t usable(void);

/* A new operation to fill, and its way into the stream (or the stream's capture), which owns it in any case. */
struct operation *operation_new(const char *name, void (*run)(struct operation *), void *payload);
void touches(struct operation *operation, const void *start, size_t bytes, enum touch touch);
cudaError_t enqueue(struct operation *operation, struct CUstream_st *stream);
void operation_free(struct operation *operation);

/* What is issued to the stream now, blocking streams and the legacy stream with each other. */
struct clocks issued(const struct CUstream_st *stream);
void join(struct clocks *into, const struct clocks *other);

/* Runs what has to be done before `wanted` is, and possibly more. The host then knows that all of it is done. */
cudaError_t complete(const struct clocks *wanted);
int is_complete(const struct clocks *wanted);
cudaError_t complete_everything(void);
void run_something(void); /* one operation, if any can */

/* Executes it at once, as part of `of` (a graph), with its accesses checked and recorded. */
void execute(struct operation *operation, const struct operation *of);

/* One thing an operation touches; finds races. */
void touched(const struct operation *operation, const void *start, size_t bytes, enum touch touch);

/* Whether work that was issued and that the host does not know to be done may touch the memory. */
int in_use(const void *start, size_t bytes);

extern unsigned live_handles;

/* --- graph.c ----------------------------------------------------------------------------------------------- */

/* Puts the operation into what is being captured from the stream. */
cudaError_t capture_add(struct CUstream_st *stream, struct operation *operation);
/* For calls that no capture of this thread allows: cudaSuccess, or the status after making the capture invalid. */
cudaError_t no_capture(const struct CUstream_st *only, enum standin_rule rule, const char *call);
void capture_invalidate(struct CUstream_st *stream);

/* --- trace.c: what kernels touch, where they were compiled to tell ------------------------------------------ */

extern int traced;
void trace_begin(struct operation *operation, const void *shared, size_t shared_bytes, unsigned threads);
void trace_block(unsigned block);
void trace_thread(int phase, unsigned thread);
void trace_end(void);

/* --- handles.c: what the libraries give out ---------------------------------------------------------------- */

enum handle_kind {
    HANDLE_BLAS,
    HANDLE_LAYOUT,
    HANDLE_MATMUL,
    HANDLE_PREFERENCE,
    HANDLE_DNN,
    HANDLE_TENSOR,
    HANDLE_FILTER,
    HANDLE_CONVOLUTION
};

void *handle_new(enum handle_kind kind, size_t bytes); /* zeroed; NULL = refused */
int handle_is(const void *handle, enum handle_kind kind);
int handle_free(void *handle, enum handle_kind kind); /* non-zero: there is none */

/* --- loops.c: arithmetic and copies without a sanitizer, on ranges that were checked ----------------------- */

enum value_type { VALUE_FLOAT, VALUE_BFLOAT16 };

size_t value_bytes(enum value_type type);
void plain_copy(void *to, const void *from, size_t bytes);
void plain_fill(void *to, int value, size_t bytes);

/* D = alpha op(A) op(B) + beta C + bias, then ReLU; column-major, sums in double precision. */
struct product {
    size_t m, n, k;
    int transposed_a, transposed_b, tf32, relu;
    enum value_type input, output; /* of A and B; of C, D and bias */
    const void *a, *b, *c, *bias;  /* bias [m] or NULL */
    void *d;
    size_t lda, ldb, ldc, ldd;
    float alpha, beta;
};
void multiply(const struct product *product);

/* Cross-correlation with strides in elements; sums in double precision. */
struct convolution {
    int images, in, out, groups; /* channels of all groups */
    int height, width, out_height, out_width;
    int kernel_height, kernel_width, pad_height, pad_width, stride_height, stride_width, dilation_height,
        dilation_width;
    size_t x_stride[4], y_stride[4],
        w_stride[4]; /* of image, channel, row, column; of output channel, input channel, row, column */
    float *x, *y, *w;
    float alpha, beta;
};
void convolve(const struct convolution *convolution);
void convolve_back_to_data(const struct convolution *convolution);
void convolve_back_to_filter(const struct convolution *convolution);

/* into[rank][i] = sum over ranks, in their order, of from[rank][i]: floats or doubles. */
void sum_ranks(int ranks, int doubles, const void *const *from, void *const *into, size_t count);

#endif
