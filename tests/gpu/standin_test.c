/*
 * The stand-in itself: right programs have no findings and right results, whatever the seed; each rule finds the mistake that is planted
 * for it, and only that one; products and convolutions agree with loops of another form.
 */
#include "tests/gpu/standin/standin.h"
#include "tests/gpu/standin/cublasLt.h"
#include "tests/gpu/standin/cudnn.h"
#include "tests/gpu/standin/nccl.h"
#include "tests/gpu/standin_kernels.h"
#include "tests/gpu/standin_mistakes.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT 5000u
#define BYTES (COUNT * sizeof(float))

/* --- planted mistakes ---------------------------------------------------------------------------------------------------- */

/* In a process of its own, quiet: 0 = found exactly once and nothing else, 86 = ended at a fault. */
static int make(const struct mistake *mistake)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!getenv("STANDIN_LOUD") && !freopen("/dev/null", "w", stderr))
            _exit(90);
        mistake->make();
        _exit(standin_found(mistake->rule) == 1 && standin_findings() == 1 ? 0 : 91);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void every_mistake_is_found(void **state)
{
    (void)state;
    for (unsigned i = 0; i < mistakes_count; i++) {
        int want = mistakes[i].fault ? 86 : 0, have = make(&mistakes[i]);
        if (have != want)
            fail_msg("%s for %s: status %d, expected %d", mistakes[i].what, standin_rule_name(mistakes[i].rule), have,
                     want);
    }
}

static void every_rule_has_a_mistake_and_a_document(void **state)
{
    (void)state;
    for (int rule = 0; rule < STANDIN_RULE_COUNT; rule++) {
        unsigned planted = 0;
        for (unsigned i = 0; i < mistakes_count; i++)
            planted += mistakes[i].rule == (enum standin_rule)rule;
        if (planted == 0)
            fail_msg("no mistake is planted for %s", standin_rule_name((enum standin_rule)rule));
        const char *document = standin_rule_document((enum standin_rule)rule);
        assert_true(strlen(document) > 10);
        assert_true(strncmp(document, "RT ", 3) == 0 || strncmp(document, "PG ", 3) == 0 ||
                    strncmp(document, "BL ", 3) == 0 || strncmp(document, "DN ", 3) == 0 ||
                    strncmp(document, "NC ", 3) == 0 || strncmp(document, "OURS", 4) == 0);
    }
}

/* A process that ends with a finding ends with 86, even if it says all is well. */
static void findings_cannot_be_overlooked(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(90);
        cudaSetDevice(7);
        exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 86);
}

/* --- more than is watched ----------------------------------------------------------------------------------------------------- */

static cudaStream_t crowded;

static void too_many_ranges(void)
{
    struct many_pointers arguments;
    float *device;
    cudaMalloc((void **)&device, BYTES);
    for (int i = 0; i < 32; i++)
        arguments.to[i] = device + i;
    standin_launch(&kernel_many_pointers, 1, &arguments, crowded);
}

static void too_many_accesses(void)
{
    char *device;
    cudaMalloc((void **)&device, 32768);
    for (int i = 0; i < 32768; i++)
        cudaMemsetAsync(device + i, 0, 1, crowded);
}

static void too_many_copies(void)
{
    enum { PAGES = 512, PAGE = 4096 };
    char *device, *pinned;
    cudaMalloc((void **)&device, PAGES * PAGE);
    cudaMallocHost((void **)&pinned, PAGES * PAGE);
    for (size_t i = 0; i < PAGES; i++)
        cudaMemcpyAsync(device + i * PAGE, pinned + i * PAGE, PAGE, cudaMemcpyHostToDevice, crowded);
}

/* What is past a limit of the stand-in's own ends the process with a line that names the limit. */
static void nothing_goes_unwatched(void **state)
{
    static const struct {
        void (*make)(void);
        const char *limit;
    } crowds[] = {
        {too_many_ranges,   "ACCESS_LIMIT" },
        {too_many_accesses, "RECORDS_LIMIT"},
        {too_many_copies,   "HOLDS_LIMIT"  },
    };
    (void)state;
    for (size_t i = 0; i < sizeof crowds / sizeof *crowds; i++) {
        char said[512] = "";
        int ends[2], status;
        fflush(NULL);
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            dup2(ends[1], STDERR_FILENO);
            close(ends[1]);
            cudaStreamCreateWithFlags(&crowded, cudaStreamNonBlocking);
            crowds[i].make();
            _exit(90);
        }
        close(ends[1]);
        ssize_t got;
        for (size_t at = 0; (got = read(ends[0], said + at, sizeof said - 1 - at)) > 0; at += (size_t)got)
            ;
        close(ends[0]);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 86 || !strstr(said, crowds[i].limit))
            fail_msg("%s: status %x, said \"%s\"", crowds[i].limit, (unsigned)status, said);
    }
}

/* --- a right program ---------------------------------------------------------------------------------------------------------- */

static const uint64_t seeds[] = {0, 1, 2, 3, 4, 5, 6, 7};

static void check(cudaError_t error)
{
    if (error)
        fail_msg("%s", cudaGetErrorName(error));
}

/* Double buffering as gpu/ does it: copies in one stream, kernels in another, events between them. */
static void pipeline(void)
{
    cudaStream_t copies, work;
    cudaEvent_t filled[2], used[2];
    float *pinned_in[2], *pinned_out, *in[2], *out, *sums;
    check(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking));
    check(cudaStreamCreateWithFlags(&work, cudaStreamNonBlocking));
    check(cudaMalloc((void **)&out, BYTES));
    check(cudaMalloc((void **)&sums, BYTES));
    check(cudaMallocHost((void **)&pinned_out, BYTES));
    for (int i = 0; i < 2; i++) {
        check(cudaMalloc((void **)&in[i], BYTES));
        check(cudaMallocHost((void **)&pinned_in[i], BYTES));
        check(cudaEventCreateWithFlags(&filled[i], cudaEventDisableTiming));
        check(cudaEventCreateWithFlags(&used[i], cudaEventDisableTiming));
    }
    standin_close_allocation(1);
    double want = 0;
    float have = 0;
    for (int batch = 0; batch < 7; batch++) {
        int slot = batch % 2;
        check(cudaEventSynchronize(filled[slot])); /* the copy of two batches ago has read the pinned memory */
        for (unsigned i = 0; i < COUNT; i++)
            pinned_in[slot][i] = (float)(batch + 1);
        check(cudaStreamWaitEvent(copies, used[slot], 0)); /* and its kernel the device memory */
        check(cudaMemcpyAsync(in[slot], pinned_in[slot], BYTES, cudaMemcpyHostToDevice, copies));
        check(cudaEventRecord(filled[slot], copies));
        check(cudaStreamWaitEvent(work, filled[slot], 0));
        struct kernel_arguments scale = {in[slot], out, COUNT, 3}, sum = {out, sums, COUNT, 0};
        check(standin_launch(&kernel_scale, blocks_of(COUNT), &scale, work));
        check(cudaEventRecord(used[slot], work));
        check(standin_launch(&kernel_sum, blocks_of(COUNT), &sum, work));
        check(cudaMemcpyAsync(pinned_out, sums, blocks_of(COUNT) * sizeof(float), cudaMemcpyDeviceToHost, work));
        check(cudaStreamSynchronize(work));
        for (unsigned i = 0; i < blocks_of(COUNT); i++)
            have += pinned_out[i];
        want += 3.0 * COUNT * (batch + 1);
    }
    assert_true((double)have == want);
    standin_close_allocation(0);
    for (int i = 0; i < 2; i++) {
        check(cudaStreamSynchronize(copies));
        check(cudaFree(in[i]));
        check(cudaFreeHost(pinned_in[i]));
        check(cudaEventDestroy(filled[i]));
        check(cudaEventDestroy(used[i]));
    }
    check(cudaFree(out));
    check(cudaFree(sums));
    check(cudaFreeHost(pinned_out));
    check(cudaStreamDestroy(copies));
    check(cudaStreamDestroy(work));
}

static void right_programs_have_no_findings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        standin_set_seed(seeds[i]);
        pipeline();
        assert_int_equal(standin_findings(), 0);
        assert_int_equal(standin_device_bytes(), 0);
        assert_int_equal(standin_pinned_bytes(), 0);
        assert_int_equal(standin_handles(), 0);
    }
}

/* Nothing has happened before somebody asks; then all of it has. */
static void work_is_late(void **state)
{
    cudaStream_t stream;
    float *device, *pinned, *probe;
    (void)state;
    standin_set_seed(1);
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    check(cudaMalloc((void **)&device, 4));
    check(cudaMallocHost((void **)&pinned, 8)); /* the two halves share a page, which therefore stays readable */
    probe = pinned + 1;
    check(cudaMemsetAsync(device, 0, 4, stream));
    check(cudaMemcpyAsync(probe, device, 4, cudaMemcpyDeviceToHost, stream));
    assert_true(isnan(*probe));
    assert_int_equal(cudaStreamQuery(stream), cudaErrorNotReady);
    assert_true(isnan(*probe));
    check(cudaStreamSynchronize(stream));
    assert_true(*probe == 0);
    assert_int_equal(cudaStreamQuery(stream), cudaSuccess);
    check(cudaFree(device));
    check(cudaFreeHost(pinned));
    check(cudaStreamDestroy(stream));
    assert_int_equal(standin_findings(), 0);
}

/* --- graphs ------------------------------------------------------------------------------------------------------------------------- */

static void graph_replays_what_was_captured(void **state)
{
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    float *a, *b, *pinned;
    (void)state;
    standin_set_seed(1);
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    check(cudaMalloc((void **)&a, BYTES));
    check(cudaMalloc((void **)&b, BYTES));
    check(cudaMallocHost((void **)&pinned, BYTES));
    for (unsigned i = 0; i < COUNT; i++)
        pinned[i] = (float)i;
    check(cudaMemcpyAsync(a, pinned, BYTES, cudaMemcpyHostToDevice, stream));
    check(cudaStreamSynchronize(stream));
    uint64_t before = standin_operations();
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    struct kernel_arguments there = {a, b, COUNT, 2}, back = {b, a, COUNT, 1};
    check(standin_launch(&kernel_scale, blocks_of(COUNT), &there, stream));
    check(standin_launch(&kernel_scale, blocks_of(COUNT), &back, stream));
    memset(&there, 0, sizeof there); /* arguments were copied */
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&exec, graph, 0));
    check(cudaGraphDestroy(graph));
    check(cudaStreamSynchronize(stream));
    assert_int_equal(standin_operations(), before); /* capturing runs nothing */
    for (int i = 0; i < 3; i++)
        check(cudaGraphLaunch(exec, stream));
    check(cudaMemcpyAsync(pinned, a, BYTES, cudaMemcpyDeviceToHost, stream));
    check(cudaGraphExecDestroy(exec));
    check(cudaStreamSynchronize(stream));
    for (unsigned i = 0; i < COUNT; i++)
        assert_true(pinned[i] == 8.0f * (float)i);
    check(cudaFree(a));
    check(cudaFree(b));
    check(cudaFreeHost(pinned));
    check(cudaStreamDestroy(stream));
    assert_int_equal(standin_findings(), 0);
    assert_int_equal(standin_handles(), 0);
}

/* --- no device, a lost device -------------------------------------------------------------------------------------------------- */

static void no_driver(void **state)
{
    int count = -1;
    void *pointer;
    cublasLtHandle_t blas;
    cudnnHandle_t dnn;
    (void)state;
    standin_set_devices(0);
    assert_int_equal(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    assert_int_equal(count, 0);
    assert_int_equal(cudaMalloc(&pointer, 4), cudaErrorInsufficientDriver);
    assert_int_equal(cublasLtCreate(&blas), CUBLAS_STATUS_NOT_INITIALIZED);
    assert_int_equal(cudnnCreate(&dnn), CUDNN_STATUS_NOT_INITIALIZED);
    standin_set_devices(1);
    cudaGetLastError();
    assert_int_equal(standin_findings(), 0);
}

static void lost_device_stays_lost(void **state)
{
    cudaStream_t stream;
    float *device;
    size_t free_bytes, total;
    (void)state;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    check(cudaMalloc((void **)&device, BYTES));
    standin_lose_device_after(3);
    check(cudaMemsetAsync(device, 0, BYTES, stream));
    check(cudaMemsetAsync(device, 0, BYTES, stream));
    assert_int_equal(cudaMemsetAsync(device, 0, BYTES, stream), cudaErrorIllegalAddress);
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
    assert_int_equal(cudaMemGetInfo(&free_bytes, &total), cudaErrorIllegalAddress);
    assert_int_equal(cudaGetLastError(), cudaErrorIllegalAddress);
    assert_int_equal(cudaGetLastError(), cudaErrorIllegalAddress); /* sticky */
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
    assert_int_equal(cudaFree(device), cudaErrorIllegalAddress);
    assert_int_equal(cudaStreamDestroy(stream), cudaErrorIllegalAddress);
    standin_restore_device();
    cudaGetLastError();
    assert_int_equal(standin_findings(), 0);
    assert_int_equal(standin_device_bytes(), 0);
    assert_int_equal(standin_handles(), 0);
}

/* Every other device goes on; what is lost is what was asked to be, with the status that was asked for. */
static void one_device_is_lost(void **state)
{
    cudaStream_t stream[2];
    float *device[2];
    (void)state;
    standin_set_devices(2);
    for (int i = 0; i < 2; i++) {
        check(cudaSetDevice(i));
        check(cudaStreamCreateWithFlags(&stream[i], cudaStreamNonBlocking));
        check(cudaMalloc((void **)&device[i], BYTES));
    }
    standin_lose_with(cudaErrorMisalignedAddress);
    standin_lose_one_device_after(1, 2);
    check(cudaMemsetAsync(device[1], 0, BYTES, stream[1]));
    check(cudaSetDevice(0));
    check(cudaMemsetAsync(device[0], 0, BYTES, stream[0]));
    check(cudaSetDevice(1));
    assert_int_equal(cudaMemsetAsync(device[1], 0, BYTES, stream[1]), cudaErrorMisalignedAddress);
    assert_int_equal(cudaFree(device[1]), cudaErrorMisalignedAddress);
    assert_int_equal(cudaStreamDestroy(stream[1]), cudaErrorMisalignedAddress);
    standin_restore_device();
    check(cudaSetDevice(0));
    check(cudaStreamSynchronize(stream[0]));
    check(cudaFree(device[0]));
    check(cudaStreamDestroy(stream[0]));
    standin_set_devices(1);
    cudaGetLastError();
    assert_int_equal(standin_findings(), 0);
    assert_int_equal(standin_handles(), 0);
}

/* A launch that is asked by cudaGetLastError() is told what an earlier call left, once; calls that succeed in between change nothing. */
static void last_error_is_of_any_earlier_call(void **state)
{
    float *device;
    (void)state;
    check(cudaMalloc((void **)&device, BYTES));
    check(cudaMemset(device, 0, BYTES));
    struct kernel_arguments arguments = {device, device, COUNT, 1};
    standin_close_allocation(1);
    assert_int_equal(cudaMalloc((void **)&(float *){NULL}, BYTES), cudaErrorMemoryAllocation);
    standin_close_allocation(0);
    standin_forgive();
    check(standin_launch(&kernel_scale, blocks_of(COUNT), &arguments, NULL));
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    check(standin_launch(&kernel_scale, blocks_of(COUNT), &arguments, NULL));
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    check(cudaDeviceSynchronize());
    check(cudaFree(device));
    assert_int_equal(standin_findings(), 0);
}

/* --- arithmetic --------------------------------------------------------------------------------------------------------------------- */

static float value(unsigned i, unsigned salt)
{
    return (float)((int)((i * 7919u + salt * 104729u) % 2003u) - 1001) / 1001.0f;
}

static uint16_t bfloat16(float from)
{
    uint32_t bits;
    memcpy(&bits, &from, 4);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static float from_bfloat16(uint16_t from)
{
    uint32_t bits = (uint32_t)from << 16;
    float to;
    memcpy(&to, &bits, 4);
    return to;
}

/* Values in device memory, and their bfloat16 twins. */
static void *uploaded(unsigned count, unsigned salt, int half)
{
    char *host = malloc(count * 4), *device;
    for (unsigned i = 0; i < count; i++)
        if (half)
            ((uint16_t *)(void *)host)[i] = bfloat16(value(i, salt));
        else
            ((float *)(void *)host)[i] = value(i, salt);
    check(cudaMalloc((void **)&device, count * 4));
    check(cudaMemcpy(device, host, count * (half ? 2 : 4), cudaMemcpyHostToDevice));
    free(host);
    return device;
}

static double at(unsigned i, unsigned salt, int half)
{
    return (double)(half ? from_bfloat16(bfloat16(value(i, salt))) : value(i, salt));
}

/* Of a preference for results that are the same every time. */
static cublasLtMatmulAlgo_t algorithm_of(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                         const cublasLtMatrixLayout_t layout[3])
{
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = sizeof(uint16_t);
    int count;
    assert_int_equal(cublasLtMatmulPreferenceCreate(&preference), 0);
    for (int i = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; i <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; i++)
        assert_int_equal(cublasLtMatmulPreferenceSetAttribute(preference, (cublasLtMatmulPreferenceAttributes_t)i,
                                                              &alignment, sizeof alignment),
                         0);
    assert_int_equal(
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, 4), 0);
    assert_int_equal(cublasLtMatmulAlgoGetHeuristic(handle, desc, layout[0], layout[1], layout[2], layout[2],
                                                    preference, 1, &result, &count),
                     0);
    assert_int_equal(count, 1);
    cublasLtMatmulPreferenceDestroy(preference);
    return result.algo;
}

static void one_product(int transposed_a, int transposed_b, int half, float beta)
{
    enum { M = 13, N = 7, K = 19, LDA = 21, LDB = 20, LDC = 15 };
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t layout[3];
    cudaDataType type = half ? CUDA_R_16BF : CUDA_R_32F;
    int32_t ta = transposed_a, tb = transposed_b;
    uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    float alpha = 1.5f;
    void *a = uploaded(LDA * LDA, 1, half), *b = uploaded(LDB * LDB, 2, half), *c = uploaded(LDC * N, 3, half),
         *bias = uploaded(M, 4, half);
    assert_int_equal(cublasLtCreate(&handle), 0);
    assert_int_equal(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), 0);
    assert_int_equal(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &ta, 4), 0);
    assert_int_equal(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &tb, 4), 0);
    assert_int_equal(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, 4), 0);
    assert_int_equal(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, 8), 0);
    cublasLtMatrixLayoutCreate(&layout[0], type, ta ? K : M, ta ? M : K, LDA);
    cublasLtMatrixLayoutCreate(&layout[1], type, tb ? N : K, tb ? K : N, LDB);
    cublasLtMatrixLayoutCreate(&layout[2], type, M, N, LDC);
    cublasLtMatmulAlgo_t algorithm = algorithm_of(handle, desc, layout);
    assert_int_equal(cublasLtMatmul(handle, desc, &alpha, a, layout[0], b, layout[1], &beta, c, layout[2], c, layout[2],
                                    &algorithm, NULL, 0, NULL),
                     0);
    unsigned char have[LDC * N * 4];
    check(cudaMemcpy(have, c, LDC * N * (half ? 2 : 4), cudaMemcpyDeviceToHost));
    for (unsigned n = 0; n < N; n++)
        for (unsigned m = 0; m < LDC; m++) {
            double want = at(n * LDC + m, 3, half); /* between the columns nothing changes */
            if (m < M) {
                double sum = 0;
                for (unsigned k = 0; k < K; k++)
                    sum += at(ta ? m * LDA + k : k * LDA + m, 1, half) * at(tb ? k * LDB + n : n * LDB + k, 2, half);
                want = (double)alpha * sum + (double)beta * want + at(m, 4, half);
            }
            double got = half ? (double)from_bfloat16(((uint16_t *)(void *)have)[n * LDC + m])
                              : (double)((float *)(void *)have)[n * LDC + m];
            assert_true(fabs(got - want) <= (half ? fabs(want) / 256 + 1e-30 : 1e-6 * (fabs(want) + 1)));
        }
    for (int i = 0; i < 3; i++)
        cublasLtMatrixLayoutDestroy(layout[i]);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(handle);
    check(cudaFree(a));
    check(cudaFree(b));
    check(cudaFree(c));
    check(cudaFree(bias));
}

static void products(void **state)
{
    (void)state;
    for (int i = 0; i < 16; i++)
        one_product(i & 1, i >> 1 & 1, i >> 2 & 1, i >> 3 & 1 ? 0.5f : 0);
    assert_int_equal(standin_findings(), 0);
}

/* y[n][k][oh][ow] of loops that scatter instead of gather; the two gradients are its adjoints, so <y, gy> = <x, gx> = <w, gw>. */
enum {
    IMAGES = 2,
    IN = 3,
    OUT = 5,
    SIDE = 7,
    TAPS = 3,
    STRIDE = 2,
    PAD = 1,
    SIDE_OUT = (SIDE + 2 * PAD - TAPS) / STRIDE + 1
};

static void scattered(double *y)
{
    memset(y, 0, sizeof(double) * IMAGES * SIDE_OUT * SIDE_OUT * OUT);
    for (int n = 0; n < IMAGES; n++)
        for (int h = 0; h < SIDE; h++)
            for (int w = 0; w < SIDE; w++)
                for (int r = 0; r < TAPS; r++)
                    for (int s = 0; s < TAPS; s++) {
                        int oh = h + PAD - r, ow = w + PAD - s;
                        if (oh < 0 || ow < 0 || oh % STRIDE || ow % STRIDE || oh / STRIDE >= SIDE_OUT ||
                            ow / STRIDE >= SIDE_OUT)
                            continue;
                        for (int c = 0; c < IN; c++)
                            for (int k = 0; k < OUT; k++)
                                y[((n * SIDE_OUT + oh / STRIDE) * SIDE_OUT + ow / STRIDE) * OUT + k] +=
                                    at((unsigned)(((n * SIDE + h) * SIDE + w) * IN + c), 1, 0) *
                                    at((unsigned)(((k * TAPS + r) * TAPS + s) * IN + c), 2, 0);
                    }
}

static double inner(const float *have, unsigned count, unsigned salt)
{
    double sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += (double)have[i] * at(i, salt, 0);
    return sum;
}

static void convolutions(void **state)
{
    enum { X = IMAGES * SIDE * SIDE * IN, W = OUT * TAPS * TAPS * IN, Y = IMAGES * SIDE_OUT * SIDE_OUT * OUT };
    cudnnHandle_t handle;
    cudnnTensorDescriptor_t x_desc, y_desc;
    cudnnFilterDescriptor_t w_desc;
    cudnnConvolutionDescriptor_t conv;
    float one = 1, zero = 0, have[X > Y ? X : Y];
    double want[Y];
    (void)state;
    void *x = uploaded(X, 1, 0), *w = uploaded(W, 2, 0), *gy = uploaded(Y, 3, 0), *y, *gx, *gw, *workspace;
    check(cudaMalloc(&y, sizeof(float) * Y));
    check(cudaMalloc(&gx, sizeof(float) * X));
    check(cudaMalloc(&gw, sizeof(float) * W));
    check(cudaMalloc(&workspace, 1 << 20));
    assert_int_equal(cudnnCreate(&handle), 0);
    cudnnCreateTensorDescriptor(&x_desc);
    cudnnCreateTensorDescriptor(&y_desc);
    cudnnCreateFilterDescriptor(&w_desc);
    cudnnCreateConvolutionDescriptor(&conv);
    assert_int_equal(cudnnSetTensor4dDescriptor(x_desc, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, IMAGES, IN, SIDE, SIDE),
                     0);
    assert_int_equal(
        cudnnSetTensor4dDescriptor(y_desc, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, IMAGES, OUT, SIDE_OUT, SIDE_OUT), 0);
    assert_int_equal(cudnnSetFilter4dDescriptor(w_desc, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NHWC, OUT, IN, TAPS, TAPS), 0);
    assert_int_equal(cudnnSetConvolution2dDescriptor(conv, PAD, PAD, STRIDE, STRIDE, 1, 1, CUDNN_CROSS_CORRELATION,
                                                     CUDNN_DATA_FLOAT),
                     0);
    assert_int_equal(cudnnConvolutionForward(handle, &one, x_desc, x, w_desc, w, conv,
                                             CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, NULL, 0, &zero, y_desc, y),
                     0);
    assert_int_equal(cudnnConvolutionBackwardData(handle, &one, w_desc, w, y_desc, gy, conv,
                                                  CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, workspace, 1 << 20, &zero, x_desc,
                                                  gx),
                     0);
    assert_int_equal(cudnnConvolutionBackwardFilter(handle, &one, x_desc, x, y_desc, gy, conv,
                                                    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, workspace, 1 << 20, &zero,
                                                    w_desc, gw),
                     0);
    check(cudaMemcpy(have, y, sizeof(float) * Y, cudaMemcpyDeviceToHost));
    scattered(want);
    double of_y = inner(have, Y, 3);
    for (int i = 0; i < Y; i++)
        assert_true(fabs((double)have[i] - want[i]) < 1e-6 * (1 + fabs(want[i])));
    check(cudaMemcpy(have, gx, sizeof(float) * X, cudaMemcpyDeviceToHost));
    assert_true(fabs(inner(have, X, 1) - of_y) < 1e-5);
    check(cudaMemcpy(have, gw, sizeof(float) * W, cudaMemcpyDeviceToHost));
    assert_true(fabs(inner(have, W, 2) - of_y) < 1e-5);
    cudnnDestroyTensorDescriptor(x_desc);
    cudnnDestroyTensorDescriptor(y_desc);
    cudnnDestroyFilterDescriptor(w_desc);
    cudnnDestroyConvolutionDescriptor(conv);
    cudnnDestroy(handle);
    void *const all[] = {x, w, gy, y, gx, gw, workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        check(cudaFree(all[i]));
    assert_int_equal(standin_findings(), 0);
}

/* --- ranks --------------------------------------------------------------------------------------------------------------------------------- */

static ncclUniqueId id;
static float sum_of_rank[3][2];
static double wide_sum_of_rank[3];

static void *rank(void *number)
{
    int me = *(const int *)number;
    cudaStream_t stream;
    ncclComm_t comm;
    float *device, *pinned;
    double wide = 1073741824.0 + me; /* more than a float holds */
    cudaSetDevice(me);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMalloc((void **)&device, 8);
    cudaMallocHost((void **)&pinned, 8);
    ncclCommInitRank(&comm, 3, id, me);
    pinned[0] = (float)(me + 1);
    pinned[1] = (float)(10 * (me + 1));
    cudaMemcpyAsync(device, pinned, 8, cudaMemcpyHostToDevice, stream);
    for (int i = 0; i < 5; i++)
        ncclAllReduce(device, device, 2, ncclFloat32, ncclSum, comm, stream);
    cudaMemcpyAsync(pinned, device, 8, cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    memcpy(sum_of_rank[me], pinned, 8);
    memcpy(pinned, &wide, 8);
    cudaMemcpyAsync(device, pinned, 8, cudaMemcpyHostToDevice, stream);
    ncclAllReduce(device, device, 1, ncclFloat64, ncclSum, comm, stream);
    cudaMemcpyAsync(pinned, device, 8, cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    memcpy(&wide_sum_of_rank[me], pinned, 8);
    ncclCommDestroy(comm);
    cudaFree(device);
    cudaFreeHost(pinned);
    cudaStreamDestroy(stream);
    return NULL;
}

static void ranks_sum(void **state)
{
    static const int number[3] = {0, 1, 2};
    pthread_t thread[3];
    (void)state;
    standin_set_devices(3);
    ncclGetUniqueId(&id);
    for (int i = 0; i < 3; i++)
        pthread_create(&thread[i], NULL, rank, (void *)(uintptr_t)&number[i]);
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < 3; i++) { /* the first sum is 6, and every further one 3 times that */
        assert_true(sum_of_rank[i][0] == 6 * 81);
        assert_true(sum_of_rank[i][1] == 60 * 81);
        assert_true(wide_sum_of_rank[i] == 3 * 1073741824.0 + 3);
    }
    standin_set_devices(1);
    assert_int_equal(standin_findings(), 0);
    assert_int_equal(standin_handles(), 0);
}

/* --- communicators that do not block: two ranks on this thread ------------------------------------------------------------------- */

static ncclResult_t ask(ncclComm_t comm)
{
    ncclResult_t state;
    assert_int_equal(ncclCommGetAsyncError(comm, &state), ncclSuccess);
    return state;
}

static void assert_goes_on(ncclComm_t comm)
{
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask(comm), ncclInProgress);
}

static void assert_ends(const ncclComm_t *comm)
{
    for (int i = 0; i < 2; i++)
        while (ask(comm[i]) == ncclInProgress)
            ;
    assert_int_equal(ask(comm[0]), ncclSuccess);
    assert_int_equal(ask(comm[1]), ncclSuccess);
}

static ncclComm_t connect_to(int device)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm = NULL;
    config.blocking = 0;
    check(cudaSetDevice(device));
    ncclResult_t result = ncclCommInitRankConfig(&comm, 2, id, device, &config);
    assert_true(result == ncclSuccess || result == ncclInProgress);
    return comm;
}

/* Connecting, the first sum and finalizing go on until the other rank has called, too, and no longer. */
static void calls_go_on_until_all_ranks_are_there(void **state)
{
    cudaStream_t stream[2];
    ncclComm_t comm[2];
    float *device[2];
    (void)state;
    for (size_t seed = 0; seed < sizeof seeds / sizeof *seeds; seed++) {
        standin_set_devices(2);
        standin_set_seed(seeds[seed]);
        ncclGetUniqueId(&id);
        for (int i = 0; i < 2; i++) {
            comm[i] = connect_to(i);
            check(cudaStreamCreateWithFlags(&stream[i], cudaStreamNonBlocking));
            check(cudaMalloc((void **)&device[i], 4));
            check(cudaMemsetAsync(device[i], 0, 4, stream[i]));
            if (i == 0)
                assert_goes_on(comm[0]);
        }
        assert_ends(comm);
        for (int i = 1; i >= 0; i--) {
            check(cudaSetDevice(i));
            assert_int_equal(ncclAllReduce(device[i], device[i], 1, ncclFloat32, ncclSum, comm[i], stream[i]),
                             ncclInProgress);
            if (i == 1)
                assert_goes_on(comm[1]);
        }
        assert_ends(comm);
        for (int i = 0; i < 2; i++) {
            ncclResult_t result = ncclCommFinalize(comm[i]);
            assert_true(result == ncclSuccess || result == ncclInProgress);
            if (i == 0)
                assert_goes_on(comm[0]);
        }
        assert_ends(comm);
        for (int i = 0; i < 2; i++) {
            ncclCommDestroy(comm[i]);
            check(cudaSetDevice(i));
            check(cudaStreamSynchronize(stream[i]));
            check(cudaStreamDestroy(stream[i]));
            check(cudaFree(device[i]));
        }
        check(cudaSetDevice(0));
        standin_set_devices(1);
        standin_set_seed(1);
        assert_int_equal(standin_findings(), 0);
        assert_int_equal(standin_handles(), 0);
    }
}

/* A rank that waits for one that never comes can leave. */
static void connecting_can_be_aborted(void **state)
{
    (void)state;
    standin_set_devices(2);
    ncclGetUniqueId(&id);
    ncclComm_t comm = connect_to(0);
    assert_goes_on(comm);
    ncclCommAbort(comm);
    standin_set_devices(1);
    assert_int_equal(standin_findings(), 0);
    assert_int_equal(standin_handles(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_has_a_mistake_and_a_document),
        cmocka_unit_test(every_mistake_is_found),
        cmocka_unit_test(findings_cannot_be_overlooked),
        cmocka_unit_test(nothing_goes_unwatched),
        cmocka_unit_test(right_programs_have_no_findings),
        cmocka_unit_test(work_is_late),
        cmocka_unit_test(graph_replays_what_was_captured),
        cmocka_unit_test(no_driver),
        cmocka_unit_test(lost_device_stays_lost),
        cmocka_unit_test(one_device_is_lost),
        cmocka_unit_test(last_error_is_of_any_earlier_call),
        cmocka_unit_test(products),
        cmocka_unit_test(convolutions),
        cmocka_unit_test(ranks_sum),
        cmocka_unit_test(calls_go_on_until_all_ranks_are_there),
        cmocka_unit_test(connecting_can_be_aborted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
