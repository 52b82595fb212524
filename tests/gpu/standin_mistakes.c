/* The planted mistakes. Each is otherwise right, so that exactly one rule is broken. */
#include "tests/gpu/standin_mistakes.h"
#include "tests/gpu/standin/cublasLt.h"
#include "tests/gpu/standin/cudnn.h"
#include "tests/gpu/standin/nccl.h"
#include "tests/gpu/standin/standin.h"
#include "tests/gpu/standin_kernels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define COUNT 1000u
#define BYTES (COUNT * sizeof(float))

/* --- what most mistakes start from ------------------------------------------------------------------------------------- */

static cudaStream_t stream, other;
static float *a, *b, *c, *pinned;
static char *workspace;

static void set_up(void)
{
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaMalloc((void **)&a, BYTES);
    cudaMalloc((void **)&b, BYTES);
    cudaMalloc((void **)&c, BYTES);
    cudaMalloc((void **)&workspace, 1 << 20);
    cudaMallocHost((void **)&pinned, 16 * BYTES);
    cudaMemsetAsync(a, 0, BYTES, stream);
    cudaMemsetAsync(b, 0, BYTES, stream);
    cudaMemsetAsync(c, 0, BYTES, stream);
    cudaStreamSynchronize(stream);
}

static void launch(const struct standin_kernel *kernel, unsigned blocks, const float *from, float *to, cudaStream_t in)
{
    struct kernel_arguments arguments = {from, to, COUNT, 2};
    standin_launch(kernel, blocks, &arguments, in);
}

/* --- memory ---------------------------------------------------------------------------------------------------------------- */

static void host_reads_device(void)
{
    set_up();
    *(volatile float *)a;
}

static void kernel_far(void)
{
    set_up();
    launch(&kernel_far_away, 1, a, b, stream);
    cudaStreamSynchronize(stream);
}

static void kernel_into_neighbour(void)
{
    set_up();
    char *arena;
    cudaMalloc((void **)&arena, 16384);
    standin_buffer(arena, BYTES);
    standin_buffer(arena + 8192, BYTES);
    launch(&kernel_one_too_many, 1, a, (float *)(void *)arena, stream);
    cudaStreamSynchronize(stream);
}

static void pinned_written_early(void)
{
    set_up();
    cudaMemcpyAsync(a, pinned, BYTES, cudaMemcpyHostToDevice, stream);
    *(volatile float *)pinned = 1;
    cudaStreamSynchronize(stream);
}

static void pinned_page_written_early(void)
{
    set_up();
    cudaMalloc((void **)&a, 16 * BYTES);
    cudaMemcpyAsync(a, pinned, 16 * BYTES, cudaMemcpyHostToDevice, stream);
    *(volatile float *)(pinned + 8 * COUNT) = 1;
}

static void pinned_read_early(void)
{
    set_up();
    cudaMalloc((void **)&a, 16 * BYTES);
    cudaMemsetAsync(a, 0, 16 * BYTES, stream);
    cudaMemcpyAsync(pinned, a, 16 * BYTES, cudaMemcpyDeviceToHost, stream);
    *(volatile float *)(pinned + 8 * COUNT);
}

static void pageable(void)
{
    float host[COUNT] = {0};
    set_up();
    cudaMemcpyAsync(a, host, BYTES, cudaMemcpyHostToDevice, stream);
    cudaStreamSynchronize(stream);
}

static void copy_too_long(void)
{
    set_up();
    cudaMemcpyAsync(a, pinned, BYTES + 4, cudaMemcpyHostToDevice, stream);
}

static void fill_too_long(void)
{
    set_up();
    cudaMemsetAsync(a + 1, 0, BYTES, stream);
}

/* Inside the allocation, and beyond the buffer that begins there. */
static void fill_into_neighbour(void)
{
    set_up();
    char *arena;
    cudaMalloc((void **)&arena, 16384);
    standin_buffer(arena, BYTES);
    standin_buffer(arena + 8192, BYTES);
    cudaMemsetAsync(arena, 0, BYTES + 4, stream);
}

static void copy_wrong_way(void)
{
    set_up();
    cudaMemcpyAsync(a, pinned, BYTES, cudaMemcpyDeviceToHost, stream);
}

static void free_twice(void)
{
    set_up();
    cudaFree(a);
    cudaFree(a);
}

static void free_too_early(void)
{
    set_up();
    launch(&kernel_scale, blocks_of(COUNT), a, b, stream);
    cudaFree(a);
}

static void destroy_too_early(void)
{
    set_up();
    launch(&kernel_scale, blocks_of(COUNT), a, b, stream);
    cudaStreamDestroy(stream);
}

static void allocate_after_plan(void)
{
    set_up();
    standin_close_allocation(1);
    cudaMalloc((void **)&a, BYTES);
}

static void allocate_too_much(void)
{
    set_up();
    standin_set_memory(1 << 21);
    cudaMalloc((void **)&a, 1 << 21);
}

static void read_uninitialised(void)
{
    set_up();
    cudaMalloc((void **)&a, BYTES);
    launch(&kernel_scale, blocks_of(COUNT), a, b, stream);
    cudaStreamSynchronize(stream);
}

/* --- streams and events ---------------------------------------------------------------------------------------------------- */

static void race_of_copy_and_kernel(void)
{
    set_up();
    cudaMemcpyAsync(a, pinned, BYTES, cudaMemcpyHostToDevice, other);
    launch(&kernel_scale, blocks_of(COUNT), a, b, stream);
    cudaDeviceSynchronize();
}

static void race_of_kernels(void)
{
    set_up();
    launch(&kernel_scale, blocks_of(COUNT), a, b, stream);
    launch(&kernel_scale, blocks_of(COUNT), b, c, other);
    cudaDeviceSynchronize();
}

/* The event is recorded before what it should wait for. */
static void race_past_event(void)
{
    cudaEvent_t event;
    set_up();
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaEventRecord(event, stream);
    cudaMemcpyAsync(a, pinned, BYTES, cudaMemcpyHostToDevice, stream);
    cudaStreamWaitEvent(other, event, 0);
    launch(&kernel_scale, blocks_of(COUNT), a, b, other);
    cudaDeviceSynchronize();
}

static void destroyed_stream(void)
{
    set_up();
    cudaStreamDestroy(other);
    cudaMemsetAsync(a, 0, BYTES, other);
}

static void destroyed_event(void)
{
    cudaEvent_t event;
    set_up();
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaEventDestroy(event);
    cudaEventRecord(event, stream);
}

static void unknown_flags(void)
{
    cudaStreamCreateWithFlags(&stream, 8);
}

static void time_without_timing(void)
{
    cudaEvent_t event;
    float ms;
    set_up();
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaEventRecord(event, stream);
    cudaEventElapsedTime(&ms, event, event);
}

static void launch_on_another_device(void)
{
    standin_set_devices(2);
    set_up();
    cudaSetDevice(1);
    launch(&kernel_scale, 1, a, b, stream);
}

/* A second device, and a stream of it; what was set up stays on the first. */
static void go_to_another_device(void)
{
    standin_set_devices(2);
    cudaSetDevice(1);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
}

static void kernel_on_another_devices_memory(void)
{
    set_up();
    go_to_another_device();
    launch(&kernel_scale, 1, a, b, stream);
    cudaStreamSynchronize(stream);
}

static void copy_to_another_devices_memory(void)
{
    set_up();
    go_to_another_device();
    cudaMemcpyAsync(a, pinned, BYTES, cudaMemcpyHostToDevice, stream);
    cudaStreamSynchronize(stream);
}

static void fill_of_another_devices_memory(void)
{
    set_up();
    go_to_another_device();
    cudaMemsetAsync(a, 0, BYTES, stream);
    cudaStreamSynchronize(stream);
}

/* Nothing is launched yet, and never will be right. */
static void captured_on_another_devices_memory(void)
{
    set_up();
    go_to_another_device();
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    launch(&kernel_scale, 1, a, b, stream);
}

static void device_out_of_range(void)
{
    cudaSetDevice(1);
}

/* --- capture ------------------------------------------------------------------------------------------------------------------- */

static void synchronise_in_capture(void)
{
    set_up();
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    cudaStreamSynchronize(stream);
}

static void allocate_in_capture(void)
{
    set_up();
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    cudaMalloc((void **)&a, BYTES);
}

static void legacy_in_capture(void)
{
    set_up();
    cudaStreamCreate(&stream);
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    cudaMemsetAsync(a, 0, BYTES, NULL);
}

static void end_without_begin(void)
{
    cudaGraph_t graph;
    set_up();
    cudaStreamEndCapture(stream, &graph);
}

static void join_capture(void)
{
    cudaEvent_t event;
    set_up();
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaEventRecord(event, other);
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    cudaStreamWaitEvent(stream, event, 0);
}

static void work_in_broken_capture(void)
{
    set_up();
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    cudaStreamSynchronize(stream);
    standin_forgive();
    cudaMemsetAsync(a, 0, BYTES, stream);
}

static void destroyed_graph(void)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    set_up();
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    cudaStreamEndCapture(stream, &graph);
    cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphExecDestroy(exec);
    cudaGraphLaunch(exec, stream);
}

/* --- launches -------------------------------------------------------------------------------------------------------------------- */

static void too_many_threads(void)
{
    set_up();
    launch(&kernel_wrong[0], 1, a, b, stream);
}

static void no_blocks(void)
{
    set_up();
    launch(&kernel_scale, 0, a, b, stream);
}

static void too_much_shared(void)
{
    set_up();
    launch(&kernel_wrong[1], 1, a, b, stream);
}

static void too_many_arguments(void)
{
    set_up();
    launch(&kernel_wrong[2], 1, a, b, stream);
}

static void barrier_missing(void)
{
    set_up();
    launch(&kernel_no_barrier, 1, a, b, stream);
    cudaStreamSynchronize(stream);
}

static void blocks_share_a_place(void)
{
    set_up();
    launch(&kernel_every_block, 2, a, b, stream);
    cudaStreamSynchronize(stream);
}

/* --- cuBLASLt ------------------------------------------------------------------------------------------------------------------------ */

/* D[12 x 20] = op(A)[12 x 9] op(B)[9 x 20] + bias, with whatever a mistake changes. */
static struct {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t layout[4];
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    int results;
} blas;

static void set_up_product(int64_t leading_a, cudaDataType type_a, uint64_t inner)
{
    uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS, alignment = 16, reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    uint64_t workspace_bytes = 1 << 20;
    set_up();
    const void *bias = c + 512;
    cublasLtCreate(&blas.handle);
    cublasLtMatmulDescCreate(&blas.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatmulDescSetAttribute(blas.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    cublasLtMatmulDescSetAttribute(blas.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    cublasLtMatrixLayoutCreate(&blas.layout[0], type_a, 12, 9, leading_a);
    cublasLtMatrixLayoutCreate(&blas.layout[1], CUDA_R_32F, inner, 20, 12);
    cublasLtMatrixLayoutCreate(&blas.layout[2], CUDA_R_32F, 12, 20, 12);
    cublasLtMatrixLayoutCreate(&blas.layout[3], CUDA_R_32F, 12, 20, 12);
    cublasLtMatmulPreferenceCreate(&blas.preference);
    cublasLtMatmulPreferenceSetAttribute(blas.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                         8);
    cublasLtMatmulPreferenceSetAttribute(blas.preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, 4);
    for (int i = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; i <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; i++)
        cublasLtMatmulPreferenceSetAttribute(blas.preference, (cublasLtMatmulPreferenceAttributes_t)i, &alignment, 4);
    cublasLtMatmulAlgoGetHeuristic(blas.handle, blas.desc, blas.layout[0], blas.layout[1], blas.layout[2],
                                   blas.layout[3], blas.preference, 1, &blas.result, &blas.results);
}

static cublasStatus_t product(const float *from_a, float *to, const void *scratch, size_t scratch_bytes)
{
    float one = 1, zero = 0;
    cublasStatus_t status = cublasLtMatmul(blas.handle, blas.desc, &one, from_a, blas.layout[0], b, blas.layout[1],
                                           &zero, to, blas.layout[2], to, blas.layout[3], &blas.result.algo,
                                           (void *)(uintptr_t)scratch, scratch_bytes, stream);
    cudaStreamSynchronize(stream);
    return status;
}

static void product_without_handle(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    cublasLtDestroy(blas.handle);
    product(a, c, workspace, 1 << 20);
}

static void attribute_of_wrong_size(void)
{
    uint64_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    set_up_product(12, CUDA_R_32F, 9);
    cublasLtMatmulDescSetAttribute(blas.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
}

static void types_mixed(void)
{
    set_up_product(12, CUDA_R_16BF, 9);
}

static void inner_sides_differ(void)
{
    set_up_product(12, CUDA_R_32F, 8);
}

static void leading_too_small(void)
{
    set_up_product(11, CUDA_R_32F, 9);
}

static void less_aligned(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    product(a + 1, c, workspace, 1 << 20);
}

static void columns_less_aligned(void)
{
    set_up_product(13, CUDA_R_32F, 9);
    product(a, c, workspace, 1 << 20);
}

static void workspace_too_small(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    product(a, c, workspace, 1024);
}

static void workspace_misaligned(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    product(a, c, workspace + 16, (1 << 20) - 16);
}

static void matrix_in_host_memory(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    product(pinned, c, workspace, 1 << 20);
}

static void matrix_too_long(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    product(a + COUNT - 100, c, workspace, 1 << 20);
}

static void bias_missing(void)
{
    const void *none = NULL;
    set_up_product(12, CUDA_R_32F, 9);
    cublasLtMatmulDescSetAttribute(blas.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &none, sizeof none);
    product(a, c, workspace, 1 << 20);
}

static void product_in_place(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    product(a, a + 16, workspace, 1 << 20);
}

static void algorithm_of_another(void)
{
    int32_t transpose = CUBLAS_OP_T;
    uint64_t rows = 9, columns = 12;
    set_up_product(12, CUDA_R_32F, 9);
    cublasLtMatmulDescSetAttribute(blas.desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose);
    cublasLtMatrixLayoutSetAttribute(blas.layout[0], CUBLASLT_MATRIX_LAYOUT_ROWS, &rows, 8);
    cublasLtMatrixLayoutSetAttribute(blas.layout[0], CUBLASLT_MATRIX_LAYOUT_COLS, &columns, 8);
    product(a, c, workspace, 1 << 20);
}

static void scale_on_device(void)
{
    float zero = 0;
    set_up_product(12, CUDA_R_32F, 9);
    cublasLtMatmul(blas.handle, blas.desc, a, a, blas.layout[0], b, blas.layout[1], &zero, c, blas.layout[2], c,
                   blas.layout[3], &blas.result.algo, workspace, 1 << 20, stream);
}

static void product_on_another_devices_memory(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    go_to_another_device();
    cublasLtCreate(&blas.handle);
    product(a, c, workspace, 1 << 20);
}

static void product_by_another_devices_handle(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    go_to_another_device();
    set_up();
    const void *bias = c + 512;
    cublasLtMatmulDescSetAttribute(blas.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    product(a, c, workspace, 1 << 20);
}

/* As a preference is made, every scheme is allowed. */
static void any_reduction(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    cublasLtMatmulPreferenceCreate(&blas.preference);
    cublasLtMatmulAlgoGetHeuristic(blas.handle, blas.desc, blas.layout[0], blas.layout[1], blas.layout[2],
                                   blas.layout[3], blas.preference, 1, &blas.result, &blas.results);
}

static void algorithm_of_the_librarys(void)
{
    float one = 1, zero = 0;
    set_up_product(12, CUDA_R_32F, 9);
    cublasLtMatmul(blas.handle, blas.desc, &one, a, blas.layout[0], b, blas.layout[1], &zero, c, blas.layout[2], c,
                   blas.layout[3], NULL, workspace, 1 << 20, stream);
    cudaStreamSynchronize(stream);
}

/* Two streams that share a workspace. */
static void workspace_shared(void)
{
    set_up_product(12, CUDA_R_32F, 9);
    float one = 1, zero = 0;
    for (int i = 0; i < 2; i++)
        cublasLtMatmul(blas.handle, blas.desc, &one, a, blas.layout[0], b, blas.layout[1], &zero, c + 256 * i,
                       blas.layout[2], c + 256 * i, blas.layout[3], &blas.result.algo, workspace, 1 << 16,
                       i ? other : stream);
    cudaDeviceSynchronize();
}

/* --- cuDNN ----------------------------------------------------------------------------------------------------------------------------- */

static struct {
    cudnnHandle_t handle;
    cudnnTensorDescriptor_t x, y;
    cudnnFilterDescriptor_t w;
    cudnnConvolutionDescriptor_t convolution;
} dnn;

/* 2 images of 7 x 7, 3 to 4 channels, 3 x 3, stride 2. */
static void set_up_convolution(int out_side, cudnnTensorFormat_t filter_format, cudnnDataType_t type)
{
    set_up();
    cudnnCreate(&dnn.handle);
    cudnnSetStream(dnn.handle, stream);
    cudnnCreateTensorDescriptor(&dnn.x);
    cudnnCreateTensorDescriptor(&dnn.y);
    cudnnCreateFilterDescriptor(&dnn.w);
    cudnnCreateConvolutionDescriptor(&dnn.convolution);
    cudnnSetTensor4dDescriptor(dnn.x, CUDNN_TENSOR_NHWC, type, 2, 3, 7, 7);
    cudnnSetTensor4dDescriptor(dnn.y, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, 2, 4, out_side, out_side);
    cudnnSetFilter4dDescriptor(dnn.w, CUDNN_DATA_FLOAT, filter_format, 4, 3, 3, 3);
    cudnnSetConvolution2dDescriptor(dnn.convolution, 1, 1, 2, 2, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT);
}

static void forward(cudnnConvolutionFwdAlgo_t algorithm, const float *x, float *y, size_t workspace_bytes)
{
    float one = 1, zero = 0;
    cudnnConvolutionForward(dnn.handle, &one, dnn.x, x, dnn.w, b, dnn.convolution, algorithm, workspace,
                            workspace_bytes, &zero, dnn.y, y);
    cudaStreamSynchronize(stream);
}

static void descriptor_never_set(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    cudnnCreateTensorDescriptor(&dnn.x);
    forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, a, c, 1 << 20);
}

static void tensor_without_rows(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    cudnnSetTensor4dDescriptor(dnn.x, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, 2, 3, 0, 7);
}

static void tensor_of_too_many_values(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    cudnnSetTensor4dDescriptor(dnn.x, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, 256, 32, 512, 512);
}

static void negative_padding(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    cudnnSetConvolution2dDescriptor(dnn.convolution, -1, 1, 2, 2, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT);
}

static void wrong_output_side(void)
{
    set_up_convolution(3, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, a, c, 1 << 20);
}

static void mixed_layouts(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT);
    forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, a, c, 1 << 20);
}

static void mixed_types(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_BFLOAT16);
    forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, a, c, 1 << 20);
}

static void algorithm_without_nhwc(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    forward(CUDNN_CONVOLUTION_FWD_ALGO_FFT, a, c, 1 << 20);
}

static void not_deterministic(void)
{
    float one = 1, zero = 0;
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    cudnnConvolutionBackwardFilter(dnn.handle, &one, dnn.x, a, dnn.y, b, dnn.convolution,
                                   CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, workspace, 1 << 20, &zero, dnn.w, c);
    cudaStreamSynchronize(stream);
}

static void no_workspace(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, a, c, 0);
}

static void tensor_too_long(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, a + COUNT - 200, c, 1 << 20);
}

static void convolution_in_place(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, a, a + 8, 1 << 20);
}

static void convolution_on_another_devices_memory(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    go_to_another_device();
    cudnnCreate(&dnn.handle);
    cudnnSetStream(dnn.handle, stream);
    forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, a, c, 1 << 20);
}

static void convolution_by_another_devices_handle(void)
{
    set_up_convolution(4, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT);
    go_to_another_device();
    forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, a, c, 1 << 20);
}

static void handle_with_another_devices_stream(void)
{
    set_up();
    go_to_another_device();
    cudnnCreate(&dnn.handle);
    cudnnSetStream(dnn.handle, other);
}

/* --- NCCL ----------------------------------------------------------------------------------------------------------------------------------- */

static ncclUniqueId id;
static size_t count_of[2];
static int overlapping, in_host_memory;

/* Device, stream, buffers, communicator and one sum: what each rank does. */
static void *rank(void *number)
{
    int me = *(const int *)number;
    cudaStream_t mine;
    ncclComm_t comm;
    float *buffer;
    cudaSetDevice(me);
    cudaStreamCreateWithFlags(&mine, cudaStreamNonBlocking);
    cudaMalloc((void **)&buffer, 2 * BYTES);
    cudaMemsetAsync(buffer, 0, 2 * BYTES, mine);
    cudaStreamSynchronize(mine);
    if (ncclCommInitRank(&comm, 2, id, me))
        return NULL;
    if (in_host_memory && me == 1)
        buffer = pinned;
    if (ncclAllReduce(buffer, buffer + (overlapping && me == 1), count_of[me], ncclFloat32, ncclSum, comm, mine) ==
        ncclSuccess)
        cudaStreamSynchronize(mine);
    return NULL;
}

static void two_ranks(void)
{
    static const int number[2] = {0, 1};
    pthread_t thread;
    standin_set_devices(2);
    set_up();
    ncclGetUniqueId(&id);
    pthread_create(&thread, NULL, rank, (void *)(uintptr_t)&number[0]);
    rank((void *)(uintptr_t)&number[1]);
    pthread_join(thread, NULL);
}

static void counts_differ(void)
{
    count_of[0] = COUNT;
    count_of[1] = COUNT - 1;
    two_ranks();
}

static void buffers_overlap(void)
{
    count_of[0] = count_of[1] = COUNT;
    overlapping = 1;
    two_ranks();
}

static void buffer_in_host_memory(void)
{
    count_of[0] = count_of[1] = COUNT;
    in_host_memory = 1;
    two_ranks();
}

static void rank_out_of_range(void)
{
    ncclComm_t comm;
    ncclGetUniqueId(&id);
    ncclCommInitRank(&comm, 2, id, 2);
}

static void alone(void)
{
    ncclComm_t comm;
    standin_set_patience(1);
    ncclGetUniqueId(&id);
    ncclCommInitRank(&comm, 2, id, 0);
}

static void destroyed_communicator(void)
{
    ncclComm_t comm;
    ncclGetUniqueId(&id);
    ncclCommInitRank(&comm, 1, id, 0);
    ncclCommDestroy(comm);
    ncclCommDestroy(comm);
}

/* --- of communicators that do not block; alone, so that nothing waits for others but what has to be asked for --------------- */

static ncclComm_t connecting(int ranks)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t comm;
    config.blocking = 0;
    set_up();
    ncclGetUniqueId(&id);
    ncclCommInitRankConfig(&comm, ranks, id, 0, &config);
    return comm;
}

static ncclComm_t done(ncclComm_t comm)
{
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress)
        ncclCommGetAsyncError(comm, &state);
    return comm;
}

static ncclResult_t sum_alone(ncclComm_t comm)
{
    return ncclAllReduce(a, a, COUNT, ncclFloat32, ncclSum, comm, stream);
}

static void configured_by_hand(void)
{
    ncclConfig_t config = {.blocking = 0};
    ncclComm_t comm;
    ncclGetUniqueId(&id);
    ncclCommInitRankConfig(&comm, 1, id, 0, &config);
}

static void sum_before_connected(void)
{
    sum_alone(connecting(2));
}

static void sum_before_the_last_was_posted(void)
{
    ncclComm_t comm = done(connecting(1));
    sum_alone(comm);
    sum_alone(comm);
}

static void kernel_before_a_sum_was_posted(void)
{
    sum_alone(done(connecting(1)));
    launch(&kernel_scale, blocks_of(COUNT), a, b, stream);
}

static void destroyed_before_finalized(void)
{
    ncclComm_t comm = done(connecting(1));
    ncclCommFinalize(comm);
    ncclCommDestroy(comm);
}

static void sum_after_finalized(void)
{
    ncclComm_t comm = done(connecting(1));
    ncclCommFinalize(comm);
    sum_alone(done(comm));
}

#define MISTAKE(rule, make)                                                                                            \
    {                                                                                                                  \
        RULE_##rule, #make, make, 0                                                                                    \
    }
#define MISTAKE_FAULT(rule, make)                                                                                      \
    {                                                                                                                  \
        RULE_##rule, #make, make, 1                                                                                    \
    }
/* clang-format off */
const struct mistake mistakes[] = {
    MISTAKE_FAULT(HOST_ACCESS, host_reads_device),
    MISTAKE(KERNEL_BOUNDS, kernel_into_neighbour),
    MISTAKE_FAULT(KERNEL_BOUNDS, kernel_far),
    MISTAKE(PINNED_WRITTEN, pinned_written_early),
    MISTAKE_FAULT(PINNED_WRITTEN, pinned_page_written_early),
    MISTAKE_FAULT(PINNED_READ, pinned_read_early),
    MISTAKE(PAGEABLE_ASYNC, pageable),
    MISTAKE(COPY_RANGE, copy_too_long),
    MISTAKE(COPY_RANGE, fill_too_long),
    MISTAKE(COPY_RANGE, fill_into_neighbour),
    MISTAKE(COPY_DIRECTION, copy_wrong_way),
    MISTAKE(FREE_UNKNOWN, free_twice),
    MISTAKE(FREE_IN_USE, free_too_early),
    MISTAKE(FREE_IN_USE, destroy_too_early),
    MISTAKE(ALLOCATION_CLOSED, allocate_after_plan),
    MISTAKE(OUT_OF_MEMORY, allocate_too_much),
    MISTAKE(UNINITIALISED, read_uninitialised),
    MISTAKE(RACE, race_of_copy_and_kernel),
    MISTAKE(RACE, race_of_kernels),
    MISTAKE(RACE, race_past_event),
    MISTAKE(RACE, workspace_shared),
    MISTAKE(STREAM_HANDLE, destroyed_stream),
    MISTAKE(EVENT_HANDLE, destroyed_event),
    MISTAKE(FLAGS, unknown_flags),
    MISTAKE(EVENT_TIMING, time_without_timing),
    MISTAKE(DEVICE_MISMATCH, launch_on_another_device),
    MISTAKE(OTHER_DEVICE, kernel_on_another_devices_memory),
    MISTAKE(OTHER_DEVICE, copy_to_another_devices_memory),
    MISTAKE(OTHER_DEVICE, fill_of_another_devices_memory),
    MISTAKE(OTHER_DEVICE, captured_on_another_devices_memory),
    MISTAKE(OTHER_DEVICE, product_on_another_devices_memory),
    MISTAKE(OTHER_DEVICE, product_by_another_devices_handle),
    MISTAKE(OTHER_DEVICE, convolution_on_another_devices_memory),
    MISTAKE(OTHER_DEVICE, convolution_by_another_devices_handle),
    MISTAKE(OTHER_DEVICE, handle_with_another_devices_stream),
    MISTAKE(DEVICE_NUMBER, device_out_of_range),
    MISTAKE(CAPTURE_SYNC, synchronise_in_capture),
    MISTAKE(CAPTURE_ALLOCATION, allocate_in_capture),
    MISTAKE(CAPTURE_LEGACY, legacy_in_capture),
    MISTAKE(CAPTURE_END, end_without_begin),
    MISTAKE(CAPTURE_CROSS, join_capture),
    MISTAKE(CAPTURE_INVALID, work_in_broken_capture),
    MISTAKE(GRAPH_HANDLE, destroyed_graph),
    MISTAKE(LAUNCH_THREADS, too_many_threads),
    MISTAKE(LAUNCH_BLOCKS, no_blocks),
    MISTAKE(LAUNCH_SHARED, too_much_shared),
    MISTAKE(LAUNCH_ARGUMENTS, too_many_arguments),
    MISTAKE(PHASE_ORDER, barrier_missing),
    MISTAKE(PHASE_ORDER, blocks_share_a_place),
    MISTAKE(BLAS_HANDLE, product_without_handle),
    MISTAKE(BLAS_ATTRIBUTE, attribute_of_wrong_size),
    MISTAKE(BLAS_TYPE, types_mixed),
    MISTAKE(BLAS_SHAPE, inner_sides_differ),
    MISTAKE(BLAS_LEADING, leading_too_small),
    MISTAKE(BLAS_ALIGNMENT, less_aligned),
    MISTAKE(BLAS_ALIGNMENT, columns_less_aligned),
    MISTAKE(BLAS_WORKSPACE, workspace_too_small),
    MISTAKE(BLAS_WORKSPACE, workspace_misaligned),
    MISTAKE(BLAS_POINTER, matrix_in_host_memory),
    MISTAKE(BLAS_POINTER, matrix_too_long),
    MISTAKE(BLAS_BIAS, bias_missing),
    MISTAKE(BLAS_IN_PLACE, product_in_place),
    MISTAKE(BLAS_ALGORITHM, algorithm_of_another),
    MISTAKE(BLAS_SCALE, scale_on_device),
    MISTAKE(BLAS_DETERMINISM, any_reduction),
    MISTAKE(BLAS_DETERMINISM, algorithm_of_the_librarys),
    MISTAKE(DNN_HANDLE, descriptor_never_set),
    MISTAKE(DNN_TENSOR, tensor_without_rows),
    MISTAKE(DNN_TENSOR, tensor_of_too_many_values),
    MISTAKE(DNN_CONVOLUTION, negative_padding),
    MISTAKE(DNN_SHAPE, wrong_output_side),
    MISTAKE(DNN_LAYOUT, mixed_layouts),
    MISTAKE(DNN_TYPE, mixed_types),
    MISTAKE(DNN_ALGORITHM, algorithm_without_nhwc),
    MISTAKE(DNN_DETERMINISM, not_deterministic),
    MISTAKE(DNN_WORKSPACE, no_workspace),
    MISTAKE(DNN_POINTER, tensor_too_long),
    MISTAKE(DNN_IN_PLACE, convolution_in_place),
    MISTAKE(NCCL_COMMUNICATOR, destroyed_communicator),
    MISTAKE(NCCL_RANK, rank_out_of_range),
    MISTAKE(NCCL_MISMATCH, counts_differ),
    MISTAKE(NCCL_MISSING, alone),
    MISTAKE(NCCL_CONFIG, configured_by_hand),
    MISTAKE(NCCL_PROGRESS, sum_before_connected),
    MISTAKE(NCCL_PROGRESS, sum_before_the_last_was_posted),
    MISTAKE(NCCL_PROGRESS, kernel_before_a_sum_was_posted),
    MISTAKE(NCCL_PROGRESS, destroyed_before_finalized),
    MISTAKE(NCCL_FINALIZED, sum_after_finalized),
    MISTAKE(NCCL_POINTER, buffer_in_host_memory),
    MISTAKE(NCCL_OVERLAP, buffers_overlap),
};
/* clang-format on */
const unsigned mistakes_count = sizeof mistakes / sizeof *mistakes;
