/* See gemm.h. */
#include "gpu/gemm.h"
#include "gpu/status.h"

static int set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes)
{
    CHECK_BLAS(cublasLtMatmulDescSetAttribute(product, attribute, value, bytes));
    return 0;
}

static int describe(const struct gemm_shape *shape, struct gemm *gemm)
{
    cudaDataType_t type = shape->bfloat16 ? CUDA_R_16BF : CUDA_R_32F;
    cublasOperation_t a = shape->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                      b = shape->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    int tf32 = shape->tf32 && !shape->bfloat16;
    CHECK_BLAS(
        cublasLtMatmulDescCreate(&gemm->product, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    RETURN_IF(set(gemm->product, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
    RETURN_IF(set(gemm->product, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
    if (shape->bias) {
        cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        RETURN_IF(set(gemm->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        RETURN_IF(set(gemm->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &shape->bias, sizeof shape->bias));
    }
    size_t rows = shape->rows, columns = shape->columns, depth = shape->depth;
    CHECK_BLAS(cublasLtMatrixLayoutCreate(&gemm->a, type, shape->transpose_a ? depth : rows,
                                          shape->transpose_a ? rows : depth, (int64_t)shape->a_stride));
    CHECK_BLAS(cublasLtMatrixLayoutCreate(&gemm->b, type, shape->transpose_b ? columns : depth,
                                          shape->transpose_b ? depth : columns, (int64_t)shape->b_stride));
    CHECK_BLAS(cublasLtMatrixLayoutCreate(&gemm->d, type, rows, columns, (int64_t)shape->d_stride));
    gemm->accumulate = shape->accumulate;
    return 0;
}

/* Of a matrix whose columns are `stride` values apart: what pointer and stride have in common. */
static uint32_t aligned(const struct gemm_shape *shape, size_t stride)
{
    size_t bytes = shape->alignment, column = stride * (shape->bfloat16 ? 2 : 4);
    while (bytes > 1 && column % bytes)
        bytes /= 2;
    return (uint32_t)bytes;
}

static int prefer(const struct gemm_shape *shape, cublasLtMatmulPreference_t preference)
{
    size_t workspace = GEMM_WORKSPACE_BYTES;
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE, a = aligned(shape, shape->a_stride),
             b = aligned(shape, shape->b_stride), d = aligned(shape, shape->d_stride);
    if (shape->order == GEMM_SPLIT)
        reduction |= CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* by way of the workspace, in a fixed order */
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } settings[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,   &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a,         sizeof a        },
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b,         sizeof b        },
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &d,         sizeof d        },
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &d,         sizeof d        },
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        CHECK_BLAS(cublasLtMatmulPreferenceSetAttribute(preference, settings[i].attribute, settings[i].value,
                                                        settings[i].bytes));
    return 0;
}

static int choose(const struct gemm_library *library, const struct gemm_shape *shape,
                  cublasLtMatmulPreference_t preference, struct gemm *gemm)
{
    cublasLtMatmulHeuristicResult_t found = {};
    int count = 0;
    RETURN_IF(prefer(shape, preference));
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(library->handle, gemm->product, gemm->a, gemm->b, gemm->d,
                                                           gemm->d, preference, 1, &found, &count);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED)
        CHECK_BLAS(status);
    if (status != CUBLAS_STATUS_SUCCESS || count < 1 || found.state != CUBLAS_STATUS_SUCCESS)
        return error_set(ERROR_STATE, "cuBLASLt has no way to multiply %zu x %zu x %zu (%s): use a newer cuBLAS",
                         shape->rows, shape->columns, shape->depth, shape->bfloat16 ? "bfloat16" : "float");
    gemm->algorithm = found.algo;
    return 0;
}

int gemm_open(const struct gemm_library *library, const struct gemm_shape *shape, struct gemm *ret_gemm)
{
    cublasLtMatmulPreference_t preference = NULL;
    *ret_gemm = (struct gemm){};
    int result = describe(shape, ret_gemm);
    if (!result)
        result = check_blas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate()", __FILE__,
                            __LINE__);
    if (!result)
        result = choose(library, shape, preference, ret_gemm);
    if (preference)
        cublasLtMatmulPreferenceDestroy(preference);
    if (result)
        gemm_close(ret_gemm);
    return result;
}

void gemm_close(struct gemm *gemm)
{
    cublasLtMatrixLayout_t layouts[] = {gemm->a, gemm->b, gemm->d};
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            cublasLtMatrixLayoutDestroy(layouts[i]);
    if (gemm->product)
        cublasLtMatmulDescDestroy(gemm->product);
    *gemm = (struct gemm){};
}

int gemm_run(const struct gemm_library *library, const struct gemm *gemm, const void *a, const void *b, void *d,
             cudaStream_t stream)
{
    float alpha = 1, beta = gemm->accumulate ? 1 : 0;
    CHECK_BLAS(cublasLtMatmul(library->handle, gemm->product, &alpha, a, gemm->a, b, gemm->b, &beta, d, gemm->d, d,
                              gemm->d, &gemm->algorithm, library->workspace, GEMM_WORKSPACE_BYTES, stream));
    return 0;
}
