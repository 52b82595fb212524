/*
 * Matrix products by cuBLASLt, and nothing else of it. Column-major, as cuBLAS sees memory:
 *   D [rows x columns] = op(A) [rows x depth] * op(B) [depth x columns] (+ bias per row) (+ D)
 * A channels-last map of P pixels is a matrix [channels x P] with leading dimension `channels`.
 */
#ifndef TRIAGE_GPU_GEMM_H
#define TRIAGE_GPU_GEMM_H

#include "gpu/host.h"

#include <cublasLt.h>
#include <cuda_runtime.h>

#ifdef __CUDACC__
#define GEMM_WORKSPACE_BYTES ((size_t)32 << 20)
#else
#define GEMM_WORKSPACE_BYTES ((size_t)1 << 20) /* enough for the stand-in */
#endif

enum gemm_order {
    GEMM_FIXED, /* an element's sum does not depend on how many columns there are besides it: no splitting of the depth */
    GEMM_SPLIT, /* the depth may be split over blocks; the same bits in every run of the same shape */
};

struct gemm_shape {
    int transpose_a, transpose_b;
    size_t rows, columns, depth;
    size_t a_stride, b_stride; /* leading dimensions as stored */
    size_t d_stride;
    int bfloat16;     /* 0: all float */
    int tf32;         /* float products may be rounded to 10 bits of mantissa */
    int accumulate;   /* D is added to */
    const void *bias; /* [rows] on the device, of D's type, or NULL */
    size_t alignment; /* bytes, of every pointer given to gemm_run() */
    enum gemm_order order;
};

struct gemm {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
    int accumulate;
};

struct gemm_library {
    cublasLtHandle_t handle;
    void *workspace; /* GEMM_WORKSPACE_BYTES on the device; one stream uses it at a time */
};

int gemm_open(const struct gemm_library *library, const struct gemm_shape *shape, struct gemm *ret_gemm);
void gemm_close(struct gemm *gemm); /* zeroed is fine */
int gemm_run(const struct gemm_library *library, const struct gemm *gemm, const void *a, const void *b, void *d,
             cudaStream_t stream);

#endif
