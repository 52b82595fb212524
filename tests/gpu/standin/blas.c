/*
 * cuBLASLt: descriptors, the heuristic and the product, held to its documentation. An algorithm is tied to the problem, alignments and
 * workspace it was asked for; column order and host pointers only, which is what gpu/ uses.
 */
#include "tests/gpu/standin/cublasLt.h"
#include "tests/gpu/standin/engine.h"

#include <stdlib.h>
#include <string.h>

#define WORKSPACE_BYTES (64u << 10) /* what an algorithm takes where it may */
#define ALGORITHM_MARK  0x7374616e642d696eu

struct cublasLtContext {
    int device;
};

struct cublasLtMatrixLayoutOpaque_t {
    int32_t type, order;
    uint64_t rows, columns;
    int64_t leading;
};

struct cublasLtMatmulDescOpaque_t {
    int32_t compute, scale, pointer_mode, transpose_a, transpose_b, transpose_c, bias_type;
    uint32_t epilogue;
    const void *bias;
};

struct cublasLtMatmulPreferenceOpaque_t {
    uint64_t workspace_bytes;
    uint32_t search_mode, reduction_mask, alignment[4];
};

static cublasStatus_t leave_with(cublasStatus_t status)
{
    unlock();
    return status;
}

/* --- handles and attributes ---------------------------------------------------------------------------------------------- */

cublasStatus_t cublasLtCreate(cublasLtHandle_t *lightHandle)
{
    lock();
    if (usable())
        return leave_with(CUBLAS_STATUS_NOT_INITIALIZED);
    if (!(*lightHandle = handle_new(HANDLE_BLAS, sizeof **lightHandle)))
        return leave_with(CUBLAS_STATUS_ALLOC_FAILED);
    (*lightHandle)->device = current_device();
    return leave_with(CUBLAS_STATUS_SUCCESS);
}

static cublasStatus_t destroy(void *handle, enum handle_kind kind, const char *what)
{
    lock();
    return leave_with(handle_free(handle, kind)
                          ? BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_HANDLE, "no such %s to destroy", what)
                          : CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lightHandle)
{
    return destroy(lightHandle, HANDLE_BLAS, "handle");
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matLayout)
{
    return destroy(matLayout, HANDLE_LAYOUT, "matrix layout");
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmulDesc)
{
    return destroy(matmulDesc, HANDLE_MATMUL, "matmul descriptor");
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref)
{
    return destroy(pref, HANDLE_PREFERENCE, "preference");
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *matLayout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld)
{
    lock();
    if (!(*matLayout = handle_new(HANDLE_LAYOUT, sizeof **matLayout)))
        return leave_with(CUBLAS_STATUS_ALLOC_FAILED);
    **matLayout = (struct cublasLtMatrixLayoutOpaque_t){(int32_t)type, CUBLASLT_ORDER_COL, rows, cols, ld};
    return leave_with(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *matmulDesc, cublasComputeType_t computeType,
                                        cudaDataType_t scaleType)
{
    lock();
    if (!(*matmulDesc = handle_new(HANDLE_MATMUL, sizeof **matmulDesc)))
        return leave_with(CUBLAS_STATUS_ALLOC_FAILED);
    (*matmulDesc)->compute = (int32_t)computeType;
    (*matmulDesc)->scale = (int32_t)scaleType;
    (*matmulDesc)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    (*matmulDesc)->bias_type = -1;
    return leave_with(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *pref)
{
    lock();
    if (!(*pref = handle_new(HANDLE_PREFERENCE, sizeof **pref)))
        return leave_with(CUBLAS_STATUS_ALLOC_FAILED);
    (*pref)->reduction_mask = CUBLASLT_REDUCTION_SCHEME_MASK;
    for (int i = 0; i < 4; i++)
        (*pref)->alignment[i] = 256;
    return leave_with(CUBLAS_STATUS_SUCCESS);
}

/* Where an attribute is kept; found by its number in a table that ends with bytes 0. */
struct attribute {
    int number;
    size_t offset, bytes;
};

static cublasStatus_t set_attribute(void *handle, enum handle_kind kind, const struct attribute *table, int number,
                                    const void *value, size_t bytes)
{
    lock();
    if (!handle_is(handle, kind))
        return leave_with(BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_HANDLE, "attribute of no descriptor"));
    while (table->bytes && table->number != number)
        table++;
    if (!table->bytes || !value || bytes != table->bytes)
        return leave_with(BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_ATTRIBUTE, "attribute %d takes %zu bytes, not %zu",
                                 number, table->bytes, bytes));
    memcpy((char *)handle + table->offset, value, bytes);
    return leave_with(CUBLAS_STATUS_SUCCESS);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t matLayout, cublasLtMatrixLayoutAttribute_t attr,
                                                const void *buf, size_t sizeInBytes)
{
    static const struct attribute table[] = {
        {CUBLASLT_MATRIX_LAYOUT_TYPE,                   offsetof(struct cublasLtMatrixLayoutOpaque_t,    type),                    4},
        {CUBLASLT_MATRIX_LAYOUT_ORDER,                                             offsetof(struct cublasLtMatrixLayoutOpaque_t,                                                                 order), 4},
        {CUBLASLT_MATRIX_LAYOUT_ROWS,                                            offsetof(struct cublasLtMatrixLayoutOpaque_t,                                                                                           rows),                                                                                         8},
        {CUBLASLT_MATRIX_LAYOUT_COLS,                                        offsetof(struct cublasLtMatrixLayoutOpaque_t,columns),8},
        {CUBLASLT_MATRIX_LAYOUT_LD,offsetof(struct cublasLtMatrixLayoutOpaque_t,      leading),                                                                                                  8},
        {0,                     0,                                                               0                                                                         },
    };
    return set_attribute(matLayout, HANDLE_LAYOUT, table, (int)attr, buf, sizeInBytes);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmulDesc, cublasLtMatmulDescAttributes_t attr,
                                              const void *buf, size_t sizeInBytes)
{
    static const struct attribute table[] = {
        {CUBLASLT_MATMUL_DESC_COMPUTE_TYPE,           offsetof(struct cublasLtMatmulDescOpaque_t,     compute),                                                                                 4},
        {CUBLASLT_MATMUL_DESC_SCALE_TYPE,                                           offsetof(struct cublasLtMatmulDescOpaque_t,                                                           scale),                                                               4},
        {CUBLASLT_MATMUL_DESC_POINTER_MODE,                                          offsetof(struct cublasLtMatmulDescOpaque_t,                                                                                        pointer_mode),                                                                                  4},
        {CUBLASLT_MATMUL_DESC_TRANSA,                              offsetof(struct cublasLtMatmulDescOpaque_t,transpose_a),4},
        {CUBLASLT_MATMUL_DESC_TRANSB,offsetof(struct cublasLtMatmulDescOpaque_t,                   transpose_b),                                                                                                                4},
        {CUBLASLT_MATMUL_DESC_TRANSC,                 offsetof(struct cublasLtMatmulDescOpaque_t,                                                  transpose_c),                                                                                                            4},
        {CUBLASLT_MATMUL_DESC_EPILOGUE,                                           offsetof(struct cublasLtMatmulDescOpaque_t,                                                               epilogue),                                                                                             4},
        {CUBLASLT_MATMUL_DESC_BIAS_POINTER,                                          offsetof(struct cublasLtMatmulDescOpaque_t,                                                                                        bias),                                         8},
        {CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,                                  offsetof(struct cublasLtMatmulDescOpaque_t,                 bias_type),             4},
        {0,0,0},
    };
    return set_attribute(matmulDesc, HANDLE_MATMUL, table, (int)attr, buf, sizeInBytes);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref,
                                                    cublasLtMatmulPreferenceAttributes_t attr, const void *buf,
                                                    size_t sizeInBytes)
{
    static const struct attribute table[] = {
        {CUBLASLT_MATMUL_PREF_SEARCH_MODE,                  offsetof(struct cublasLtMatmulPreferenceOpaque_t, search_mode),4},
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,                                                 offsetof(struct cublasLtMatmulPreferenceOpaque_t,                                                          workspace_bytes),
         8},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,                                                 offsetof(struct cublasLtMatmulPreferenceOpaque_t,                                                                                                 reduction_mask),
         4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,                                  offsetof(struct cublasLtMatmulPreferenceOpaque_t,                                                                                                   alignment[0]),
         4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,offsetof(struct cublasLtMatmulPreferenceOpaque_t,alignment[1]),
         4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,        offsetof(struct cublasLtMatmulPreferenceOpaque_t,                                         alignment[2]),
         4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,                                                 offsetof(struct cublasLtMatmulPreferenceOpaque_t,                                                        alignment[3]),
         4},
        {0,                                                 0,                                                                                                 0},
    };
    return set_attribute(pref, HANDLE_PREFERENCE, table, (int)attr, buf, sizeInBytes);
}

/* --- a problem -------------------------------------------------------------------------------------------------------------- */

struct problem {
    struct cublasLtMatmulDescOpaque_t desc;
    struct cublasLtMatrixLayoutOpaque_t matrix[4]; /* A, B, C, D */
};

static cublasStatus_t gather(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                             cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                             struct problem *ret_problem)
{
    const cublasLtMatrixLayout_t layout[4] = {a, b, c, d};
    if (!handle_is(handle, HANDLE_BLAS))
        return BROKEN(CUBLAS_STATUS_NOT_INITIALIZED, BLAS_HANDLE, "no cuBLASLt handle");
    if (!handle_is(desc, HANDLE_MATMUL))
        return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_HANDLE, "no matmul descriptor");
    if (handle->device != current_device())
        return BROKEN(CUBLAS_STATUS_NOT_INITIALIZED, OTHER_DEVICE, "cuBLASLt handle of device %d, current is %d",
                      handle->device, current_device());
    memset(ret_problem, 0, sizeof *ret_problem);
    ret_problem->desc = *desc;
    for (int i = 0; i < 4; i++) {
        if (!handle_is(layout[i], HANDLE_LAYOUT))
            return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_HANDLE, "no layout of matrix %c", "ABCD"[i]);
        ret_problem->matrix[i] = *layout[i];
    }
    return CUBLAS_STATUS_SUCCESS;
}

static size_t element_bytes(const struct cublasLtMatrixLayoutOpaque_t *matrix)
{
    return matrix->type == CUDA_R_32F ? 4 : 2;
}

static cublasStatus_t check_types(const struct problem *p)
{
    int ab = p->matrix[0].type, cd = p->matrix[3].type, compute = p->desc.compute;
    int exact = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC,
        fast = compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    int fits = p->matrix[1].type == ab && p->matrix[2].type == cd && p->desc.scale == CUDA_R_32F &&
               ((ab == CUDA_R_32F && cd == CUDA_R_32F && (exact || fast)) ||
                (ab == CUDA_R_16BF && (cd == CUDA_R_16BF || cd == CUDA_R_32F) && exact)) &&
               (p->desc.bias_type == -1 || p->desc.bias_type == cd);
    return fits
               ? CUBLAS_STATUS_SUCCESS
               : BROKEN(CUBLAS_STATUS_NOT_SUPPORTED, BLAS_TYPE, "A %d, B %d, C %d, D %d, bias %d, compute %d, scale %d",
                        ab, p->matrix[1].type, p->matrix[2].type, cd, p->desc.bias_type, compute, p->desc.scale);
}

static cublasStatus_t check_values(const struct problem *p)
{
    uint32_t e = p->desc.epilogue;
    if (p->desc.transpose_a > CUBLAS_OP_T || p->desc.transpose_b > CUBLAS_OP_T || p->desc.transpose_c != CUBLAS_OP_N ||
        p->desc.pointer_mode != CUBLASLT_POINTER_MODE_HOST ||
        (e != CUBLASLT_EPILOGUE_DEFAULT && e != CUBLASLT_EPILOGUE_BIAS && e != CUBLASLT_EPILOGUE_RELU &&
         e != CUBLASLT_EPILOGUE_RELU_BIAS))
        return BROKEN(CUBLAS_STATUS_NOT_SUPPORTED, BLAS_ATTRIBUTE, "transposes %d %d %d, pointer mode %d, epilogue %u",
                      p->desc.transpose_a, p->desc.transpose_b, p->desc.transpose_c, p->desc.pointer_mode, e);
    for (int i = 0; i < 4; i++)
        if (p->matrix[i].order != CUBLASLT_ORDER_COL)
            return BROKEN(CUBLAS_STATUS_NOT_SUPPORTED, BLAS_ATTRIBUTE, "matrix %c is not in column order", "ABCD"[i]);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_shapes(const struct problem *p)
{
    const struct cublasLtMatrixLayoutOpaque_t *a = &p->matrix[0], *b = &p->matrix[1], *c = &p->matrix[2],
                                              *d = &p->matrix[3];
    uint64_t m = p->desc.transpose_a ? a->columns : a->rows, k = p->desc.transpose_a ? a->rows : a->columns;
    uint64_t kb = p->desc.transpose_b ? b->columns : b->rows, n = p->desc.transpose_b ? b->rows : b->columns;
    if (m == 0 || n == 0 || k == 0 || k != kb || m != d->rows || n != d->columns || c->rows != d->rows ||
        c->columns != d->columns)
        return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_SHAPE,
                      "op(A) %llu x %llu, op(B) %llu x %llu, C %llu x %llu, D %llu x %llu", (unsigned long long)m,
                      (unsigned long long)k, (unsigned long long)kb, (unsigned long long)n, (unsigned long long)c->rows,
                      (unsigned long long)c->columns, (unsigned long long)d->rows, (unsigned long long)d->columns);
    for (int i = 0; i < 4; i++)
        if (p->matrix[i].leading < (int64_t)p->matrix[i].rows)
            return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_LEADING, "matrix %c: leading dimension %lld of %llu rows",
                          "ABCD"[i], (long long)p -> matrix[i].leading, (unsigned long long)p->matrix[i].rows);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_problem(const struct problem *p)
{
    cublasStatus_t status = check_values(p);
    if (!status)
        status = check_types(p);
    return status ? status : check_shapes(p);
}

/* What an algorithm is tied to; not the bias pointer, which changes from layer to layer. */
static uint64_t fingerprint(const struct problem *p)
{
    struct problem plain = *p;
    plain.desc.bias = NULL;
    const unsigned char *at = (const unsigned char *)&plain;
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof plain; i++)
        sum = (sum ^ at[i]) * 0x100000001b3u;
    return sum;
}

static uint64_t alignment_of(const void *pointer, uint64_t limit)
{
    while (limit > 1 && (uintptr_t)pointer % limit)
        limit /= 2;
    return limit;
}

/* --- heuristic ----------------------------------------------------------------------------------------------------------------- */

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc,
                                              cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc,
                                              cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc,
                                              cublasLtMatmulPreference_t preference, int requestedAlgoCount,
                                              cublasLtMatmulHeuristicResult_t heuristicResultsArray[],
                                              int *returnAlgoCount)
{
    struct problem problem;
    lock();
    *returnAlgoCount = 0;
    cublasStatus_t status = gather(lightHandle, operationDesc, Adesc, Bdesc, Cdesc, Ddesc, &problem);
    if (!status && !handle_is(preference, HANDLE_PREFERENCE))
        status = BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_HANDLE, "no preference");
    if (!status && requestedAlgoCount <= 0)
        status = BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_ATTRIBUTE, "%d algorithms asked for", requestedAlgoCount);
    if (!status)
        status = check_problem(&problem);
    for (int i = 0; !status && i < 4; i++)
        if (preference->alignment[i] == 0 || preference->alignment[i] & (preference->alignment[i] - 1))
            status =
                BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_ATTRIBUTE, "alignment of %u bytes", preference->alignment[i]);
    if (status)
        return leave_with(status);
    if (preference->reduction_mask & CUBLASLT_REDUCTION_SCHEME_INPLACE)
        found(RULE_BLAS_DETERMINISM, "reduction schemes %#x", preference->reduction_mask);
    cublasLtMatmulHeuristicResult_t *result = &heuristicResultsArray[0];
    memset(result, 0, sizeof *result);
    result->workspaceSize = preference->workspace_bytes < WORKSPACE_BYTES ? 0 : WORKSPACE_BYTES;
    result->wavesCount = 1;
    result->algo.data[0] = ALGORITHM_MARK;
    result->algo.data[1] = fingerprint(&problem);
    result->algo.data[2] = result->workspaceSize;
    for (int i = 0; i < 4; i++)
        result->algo.data[3] |= (uint64_t)preference->alignment[i] << 16 * i;
    result->algo.data[4] = alignment_of(problem.desc.bias, 16);
    *returnAlgoCount = 1;
    return leave_with(CUBLAS_STATUS_SUCCESS);
}

/* --- the product ------------------------------------------------------------------------------------------------------------------ */

static size_t bytes_of(const struct cublasLtMatrixLayoutOpaque_t *m)
{
    return ((size_t)(m->columns - 1) * (size_t)m->leading + (size_t)m->rows) * element_bytes(m);
}

static int overlap(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    return (const char *)a < (const char *)b + b_bytes && (const char *)b < (const char *)a + a_bytes;
}

static cublasStatus_t check_algorithm(const struct problem *p, const cublasLtMatmulAlgo_t *algorithm,
                                      const void *const matrix[4], const void *workspace, size_t workspace_bytes)
{
    if (workspace_bytes > 0 && (!workspace || !is_device(workspace, workspace_bytes)))
        return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_POINTER, "workspace %p of %zu bytes", workspace,
                      workspace_bytes);
    if (workspace && (uintptr_t)workspace % 256)
        return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_WORKSPACE, "workspace at %p", workspace);
    if (!algorithm) {
        found(RULE_BLAS_DETERMINISM, "no algorithm: one of the default preference");
        return CUBLAS_STATUS_SUCCESS;
    }
    if (algorithm->data[0] != ALGORITHM_MARK || algorithm->data[1] != fingerprint(p))
        return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_ALGORITHM, "the algorithm is not of this problem");
    if (workspace_bytes < algorithm->data[2])
        return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_WORKSPACE, "%zu bytes of workspace, the algorithm needs %llu",
                      workspace_bytes, (unsigned long long)algorithm->data[2]);
    for (int i = 0; i < 4; i++) {
        uint64_t wanted = algorithm->data[3] >> 16 * i & 0xffff;
        uint64_t column = (uint64_t)p->matrix[i].leading * element_bytes(&p->matrix[i]);
        if ((uintptr_t)matrix[i] % wanted || (p->matrix[i].columns > 1 && column % wanted))
            return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_ALIGNMENT,
                          "matrix %c at %p, columns %llu bytes apart, promised %llu bytes", "ABCD"[i], matrix[i],
                          (unsigned long long)column, (unsigned long long)wanted);
    }
    if (p->desc.epilogue & CUBLASLT_EPILOGUE_BIAS && (uintptr_t)p->desc.bias % algorithm->data[4])
        return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_ALIGNMENT,
                      "bias at %p, was at a multiple of %llu when the algorithm was chosen", p->desc.bias,
                      (unsigned long long)algorithm->data[4]);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_pointers(const struct problem *p, const void *const matrix[4], int reads_c)
{
    size_t d_bytes = bytes_of(&p->matrix[3]), bias_bytes = (size_t)p->matrix[3].rows * element_bytes(&p->matrix[3]);
    for (int i = 0; i < 4; i++)
        if ((i != 2 || reads_c) && !is_device(matrix[i], bytes_of(&p->matrix[i])))
            return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_POINTER, "matrix %c at %p of %zu bytes", "ABCD"[i],
                          matrix[i], bytes_of(&p->matrix[i]));
    if (p->desc.epilogue & CUBLASLT_EPILOGUE_BIAS) {
        if (!p->desc.bias)
            return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_BIAS, "no bias pointer");
        if (!is_device(p->desc.bias, bias_bytes))
            return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_POINTER, "bias at %p of %zu bytes", p->desc.bias,
                          bias_bytes);
        if (overlap(p->desc.bias, bias_bytes, matrix[3], d_bytes))
            return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_IN_PLACE, "D overlaps the bias");
    }
    for (int i = 0; i < 2; i++)
        if (overlap(matrix[i], bytes_of(&p->matrix[i]), matrix[3], d_bytes))
            return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_IN_PLACE, "D overlaps matrix %c", "AB"[i]);
    if (reads_c && overlap(matrix[2], bytes_of(&p->matrix[2]), matrix[3], d_bytes) &&
        (matrix[2] != matrix[3] || memcmp(&p->matrix[2], &p->matrix[3], sizeof p->matrix[2]) != 0))
        return BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_IN_PLACE, "C and D overlap, but are not the same");
    return CUBLAS_STATUS_SUCCESS;
}

static void run_product(struct operation *operation)
{
    multiply(operation->payload);
}

static struct product *product_of(const struct problem *p, const void *const matrix[4], float alpha, float beta)
{
    struct product *product = malloc(sizeof *product);
    int bias = (p->desc.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0;
    *product = (struct product){
        .m = (size_t)p->matrix[3].rows,
        .n = (size_t)p->matrix[3].columns,
        .k = (size_t)(p->desc.transpose_a ? p->matrix[0].rows : p->matrix[0].columns),
        .transposed_a = p->desc.transpose_a,
        .transposed_b = p->desc.transpose_b,
        .tf32 = p->desc.compute == CUBLAS_COMPUTE_32F_FAST_TF32,
        .relu = (p->desc.epilogue & CUBLASLT_EPILOGUE_RELU) != 0,
        .input = p->matrix[0].type == CUDA_R_32F ? VALUE_FLOAT : VALUE_BFLOAT16,
        .output = p->matrix[3].type == CUDA_R_32F ? VALUE_FLOAT : VALUE_BFLOAT16,
        .a = matrix[0],
        .b = matrix[1],
        .c = matrix[2],
        .d = (void *)(uintptr_t)matrix[3],
        .bias = bias ? p->desc.bias : NULL,
        .lda = (size_t)p->matrix[0].leading,
        .ldb = (size_t)p->matrix[1].leading,
        .ldc = (size_t)p->matrix[2].leading,
        .ldd = (size_t)p->matrix[3].leading,
        .alpha = alpha,
        .beta = beta,
    };
    return product;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t computeDesc, const void *alpha,
                              const void *A, cublasLtMatrixLayout_t Adesc, const void *B, cublasLtMatrixLayout_t Bdesc,
                              const void *beta, const void *C, cublasLtMatrixLayout_t Cdesc, void *D,
                              cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspaceSizeInBytes, cudaStream_t stream)
{
    const void *const matrix[4] = {A, B, C, D};
    struct problem p;
    lock();
    if (usable())
        return leave_with(CUBLAS_STATUS_EXECUTION_FAILED);
    cublasStatus_t status = gather(lightHandle, computeDesc, Adesc, Bdesc, Cdesc, Ddesc, &p);
    if (!status)
        status = check_problem(&p);
    if (!status && (!alpha || !beta || is_device_address(alpha) || is_device_address(beta)))
        status = BROKEN(CUBLAS_STATUS_INVALID_VALUE, BLAS_SCALE, "alpha %p, beta %p", alpha, beta);
    if (!status)
        status = check_pointers(&p, matrix, *(const float *)beta != 0);
    if (!status)
        status = check_algorithm(&p, algo, matrix, workspace, workspaceSizeInBytes);
    struct CUstream_st *s = status ? NULL : stream_of(stream);
    if (status || !s)
        return leave_with(status ? status : CUBLAS_STATUS_INVALID_VALUE);
    struct operation *o = operation_new("matrix product", run_product,
                                        product_of(&p, matrix, *(const float *)alpha, *(const float *)beta));
    for (int i = 0; i < 2; i++)
        touches(o, matrix[i], bytes_of(&p.matrix[i]), TOUCH_READ);
    if (*(const float *)beta != 0)
        touches(o, C, bytes_of(&p.matrix[2]), TOUCH_READ);
    if (p.desc.epilogue & CUBLASLT_EPILOGUE_BIAS)
        touches(o, p.desc.bias, (size_t)p.matrix[3].rows * element_bytes(&p.matrix[3]), TOUCH_READ);
    touches(o, workspace, workspaceSizeInBytes, TOUCH_WRITE);
    touches(o, D, bytes_of(&p.matrix[3]), TOUCH_WRITE);
    return leave_with(enqueue(o, s) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS);
}

/* --- texts ---------------------------------------------------------------------------------------------------------------------------- */

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "CUBLAS_STATUS of another kind";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return cublasLtGetStatusName(status);
}

size_t cublasLtGetVersion(void)
{
    return 130100;
}
