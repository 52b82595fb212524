/*
 * Every rule the stand-in enforces, with the document that states it. standin_test.c plants one mistake per rule.
 *
 *   RT   CUDA Runtime API reference (docs.nvidia.com/cuda/cuda-runtime-api), module or page
 *   PG   CUDA C++ Programming Guide (docs.nvidia.com/cuda/cuda-c-programming-guide), chapter
 *   BL   cuBLAS documentation (docs.nvidia.com/cuda/cublas), "Using the cuBLASLt API", and the comments of cublasLt.h
 *   DN   cuDNN API reference (docs.nvidia.com/deeplearning/cudnn), cudnn_ops and cudnn_cnn
 *   NC   NCCL user guide (docs.nvidia.com/deeplearning/nccl/user-guide)
 *   OURS a rule of this project, stricter than the documents
 */
#ifndef TRIAGE_TESTS_STANDIN_RULES_H
#define TRIAGE_TESTS_STANDIN_RULES_H

/* clang-format off */
#define STANDIN_RULES(RULE) \
    /* memory */ \
    RULE(HOST_ACCESS, "host code touches device memory", "PG 'Device Memory': kernels operate out of device memory; the host reaches it only through the runtime") \
    RULE(KERNEL_BOUNDS, "a kernel leaves its buffers", "PG 'Device Memory': an access outside of an allocation is undefined and ends in cudaErrorIllegalAddress") \
    RULE(PINNED_WRITTEN, "host code writes pinned memory that a copy still has to read", "RT 'API synchronization behavior', Asynchronous: copies of pinned memory may be under way when the call returns") \
    RULE(PINNED_READ, "host code touches pinned memory that a copy still has to write", "RT 'API synchronization behavior', Asynchronous: copies to pinned memory may be under way when the call returns") \
    RULE(PAGEABLE_ASYNC, "asynchronous copy of pageable host memory", "RT 'API synchronization behavior': such a copy is staged and may be synchronous; OURS: the steady loop has none") \
    RULE(COPY_RANGE, "a copy or fill leaves an allocation", "RT cudaMemcpyAsync, cudaMemset: count bytes of the areas pointed to") \
    RULE(COPY_DIRECTION, "kind of copy and pointers disagree", "RT cudaMemcpyAsync: pointers that do not match the direction are undefined behaviour") \
    RULE(FREE_UNKNOWN, "freed what is not allocated, or twice", "RT cudaFree: cudaErrorInvalidValue if devPtr was freed before or never allocated") \
    RULE(FREE_IN_USE, "freed, or a stream destroyed, while work that uses it is not known to be done", "OURS: RT promises no order between cudaFree and work in flight (implicit synchronisation is 'subject to change')") \
    RULE(ALLOCATION_CLOSED, "allocation after everything was planned", "OURS: all device memory is planned at open") \
    RULE(OUT_OF_MEMORY, "more memory than the device has", "RT cudaMalloc: cudaErrorMemoryAllocation") \
    /* streams and events */ \
    RULE(RACE, "two operations touch the same memory, one writes, and no stream or event orders them", "PG 'Asynchronous Concurrent Execution', Streams: different streams may execute out of order with respect to one another") \
    RULE(STREAM_HANDLE, "no such stream", "RT 'Stream Management': cudaErrorInvalidResourceHandle") \
    RULE(EVENT_HANDLE, "no such event", "RT 'Event Management': cudaErrorInvalidResourceHandle") \
    RULE(FLAGS, "unknown flags", "RT cudaStreamCreateWithFlags, cudaEventCreateWithFlags, cudaStreamWaitEvent: cudaErrorInvalidValue") \
    RULE(EVENT_TIMING, "time of events that have none", "RT cudaEventElapsedTime: cudaErrorInvalidResourceHandle for cudaEventDisableTiming or never recorded") \
    RULE(DEVICE_MISMATCH, "stream or event of another device than the current one", "PG 'Multi-Device System', Stream and Event Behavior: the launch or record fails") \
    RULE(OTHER_DEVICE, "work of one device on memory of another, or by a library's handle of another", "PG 'Multi-Device System', Peer-to-Peer Memory Access: only after cudaDeviceEnablePeerAccess(); BL cublasLtCreate, DN cudnnCreate: the handle is tied to the current device; OURS: copies too, which the runtime would stage through the host") \
    RULE(DEVICE_NUMBER, "no such device", "RT cudaSetDevice: cudaErrorInvalidDevice") \
    /* capture */ \
    RULE(CAPTURE_SYNC, "synchronised, queried or copied synchronously while capturing", "PG 'CUDA Graphs', Prohibited and Unhandled Operations: cudaErrorStreamCaptureUnsupported, the capture is invalid") \
    RULE(CAPTURE_ALLOCATION, "allocated or freed while capturing", "RT cudaThreadExchangeStreamCaptureMode: potentially unsafe calls such as cudaMalloc are prohibited; cudaErrorStreamCaptureUnsupported") \
    RULE(CAPTURE_LEGACY, "the legacy stream used while a blocking stream captures, or captured itself", "PG 'CUDA Graphs', Prohibited and Unhandled Operations: cudaErrorStreamCaptureImplicit, cudaErrorStreamCaptureUnsupported") \
    RULE(CAPTURE_END, "capture ended that was not begun, begun twice, or ended by another thread", "RT cudaStreamBeginCapture, cudaStreamEndCapture") \
    RULE(CAPTURE_CROSS, "an event joins captured and uncaptured work", "PG 'CUDA Graphs', Cross-stream Dependencies and Events: cudaErrorStreamCaptureIsolation, cudaErrorCapturedEvent; OURS: a capture is one stream") \
    RULE(CAPTURE_INVALID, "work after a capture became invalid", "PG 'CUDA Graphs', Invalidation: cudaErrorStreamCaptureInvalidated") \
    RULE(GRAPH_HANDLE, "no such graph", "RT 'Graph Management': cudaErrorInvalidValue") \
    /* launches */ \
    RULE(LAUNCH_THREADS, "threads of a block: none, or more than 1024", "PG 'Technical Specifications per Compute Capability'; cudaErrorInvalidConfiguration") \
    RULE(LAUNCH_BLOCKS, "blocks of a grid: none, or more than 2^31 - 1", "PG 'Technical Specifications per Compute Capability'; cudaErrorInvalidConfiguration") \
    RULE(LAUNCH_SHARED, "more than 48 KiB of static shared memory", "PG 'Shared Memory' of each compute capability: static allocations are limited to 48 KB") \
    RULE(LAUNCH_ARGUMENTS, "more than 4 KiB of arguments, or none", "PG 'Function Parameters': 4,096 bytes before CUDA 12.1 and Volta") \
    RULE(PHASE_ORDER, "result depends on the order of threads within a phase", "PG 'Thread Hierarchy': between barriers threads run in any order") \
    RULE(UNINITIALISED, "memory is read that nothing wrote", "RT cudaMalloc: the memory is not cleared") \
    /* cuBLASLt */ \
    RULE(BLAS_HANDLE, "no such handle or descriptor", "BL cublasLtMatmul: CUBLAS_STATUS_NOT_INITIALIZED, CUBLAS_STATUS_INVALID_VALUE") \
    RULE(BLAS_ATTRIBUTE, "size of an attribute is wrong, or its value unknown", "BL cublasLtMatmulDescSetAttribute: sizeInBytes must match the storage of the attribute") \
    RULE(BLAS_TYPE, "types of A, B, C, D, bias and compute type are no supported combination", "BL cublasLtMatmul, table of supported data types: CUBLAS_STATUS_NOT_SUPPORTED") \
    RULE(BLAS_SHAPE, "rows and columns of op(A), op(B), C and D do not fit", "BL cublasLtMatmul: D = alpha op(A) op(B) + beta C; CUBLAS_STATUS_INVALID_VALUE") \
    RULE(BLAS_LEADING, "leading dimension smaller than the rows", "BL CUBLASLT_MATRIX_LAYOUT_LD: memory locations must not overlap, at least rows in column order") \
    RULE(BLAS_ALIGNMENT, "a matrix, or the step between its columns, is less aligned than the algorithm was asked for", "BL CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES and following, default 256; CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_A_BYTES: required for buffer pointer, leading dimension") \
    RULE(BLAS_WORKSPACE, "workspace missing, too small or not at a multiple of 256 bytes", "BL cublasLtMatmul: workspace must be 256 B aligned; CUBLAS_STATUS_INVALID_VALUE if smaller than the algorithm needs") \
    RULE(BLAS_POINTER, "matrix, bias or workspace is not wholly inside a device allocation", "BL cublasLtMatmul: pointers to the GPU memory associated with the descriptors") \
    RULE(BLAS_BIAS, "bias epilogue without a bias pointer", "BL CUBLASLT_EPILOGUE_BIAS: bias vector of as many elements as D has rows") \
    RULE(BLAS_IN_PLACE, "D overlaps A, B or the bias, or C in another layout", "BL cublasLtMatmul: in-place needs C == D and Cdesc == Ddesc") \
    RULE(BLAS_ALGORITHM, "algorithm chosen for another problem", "BL cublasLtMatmulAlgoGetHeuristic: an algorithm for these descriptors") \
    RULE(BLAS_SCALE, "alpha or beta missing or in device memory in host pointer mode", "BL CUBLASLT_POINTER_MODE_HOST: pointer targets a single value in host memory") \
    RULE(BLAS_DETERMINISM, "algorithms are asked for whose partial sums meet in the output, in an order that nobody fixes", "BL cublasLtReductionScheme_t, INPLACE: counters guarantee the sequentiality, not the order; CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK allows every scheme unless it is set, and cublasLtMatmul without an algorithm takes one of the default preference; OURS: two runs are bit-equal") \
    /* cuDNN */ \
    RULE(DNN_HANDLE, "no such handle or descriptor, or one that was never set", "DN cudnnConvolutionForward: CUDNN_STATUS_BAD_PARAM if a pointer is NULL") \
    RULE(DNN_TENSOR, "a dimension of tensor or filter is not positive, or a tensor has 2^31 values or more", "DN cudnnSetTensor4dDescriptor, cudnnSetFilter4dDescriptor: CUDNN_STATUS_BAD_PARAM; the total size of a tensor is limited to 2 Giga-elements, CUDNN_STATUS_NOT_SUPPORTED") \
    RULE(DNN_CONVOLUTION, "padding negative, or stride, dilation or groups not positive", "DN cudnnSetConvolution2dDescriptor, cudnnSetConvolutionGroupCount: CUDNN_STATUS_BAD_PARAM") \
    RULE(DNN_SHAPE, "shapes of x, w, y and the convolution do not fit", "DN cudnnGetConvolution2dForwardOutputDim; cudnnConvolutionForward: CUDNN_STATUS_BAD_PARAM") \
    RULE(DNN_LAYOUT, "tensors and filter are not all NHWC or all NCHW", "DN cudnnConvolutionForward, table of algorithms: filter format follows the tensors; CUDNN_STATUS_NOT_SUPPORTED") \
    RULE(DNN_TYPE, "types of x, w, y and the computation are no supported combination", "DN cudnnConvolutionForward, table of configurations: CUDNN_STATUS_NOT_SUPPORTED") \
    RULE(DNN_ALGORITHM, "algorithm that does not support the problem", "DN cudnnConvolutionForward, table of algorithms: CUDNN_STATUS_NOT_SUPPORTED") \
    RULE(DNN_DETERMINISM, "algorithm whose results differ from run to run", "DN cudnnConvolutionBackwardFilter, ALGO_0 and ALGO_3: results are nondeterministic; OURS: two runs are bit-equal") \
    RULE(DNN_WORKSPACE, "workspace missing or smaller than asked for", "DN cudnnGetConvolutionForwardWorkspaceSize: the minimum size of the workspace to be passed to the convolution given an algo; OURS: the status") \
    RULE(DNN_POINTER, "tensor, filter or workspace is not wholly inside a device allocation", "DN cudnnConvolutionForward: data pointers to GPU memory associated with the descriptors") \
    RULE(DNN_IN_PLACE, "output overlaps an input", "DN cudnnConvolutionForward: x and y are different buffers (convolutions are not done in place)") \
    /* NCCL */ \
    RULE(NCCL_COMMUNICATOR, "no such communicator", "NC 'Types', ncclResult_t: ncclInvalidArgument") \
    RULE(NCCL_RANK, "rank out of range or taken, or ranks that disagree on their number", "NC ncclCommInitRank: rank between 0 and nranks-1, unique") \
    RULE(NCCL_MISMATCH, "ranks call different collectives, counts, types or operations", "NC 'Collective Operations': each rank calls with the same count and datatype, else undefined behaviour, hangs included") \
    RULE(NCCL_MISSING, "a rank never calls", "NC 'Collective Operations': must be called for each rank") \
    RULE(NCCL_CONFIG, "a configuration that NCCL_CONFIG_INITIALIZER did not make", "NC 'Types', ncclConfig_t: must be initialised by NCCL_CONFIG_INITIALIZER") \
    RULE(NCCL_PROGRESS, "a call on a communicator, or work in its stream, before the call before is done", "NC ncclCommGetAsyncError: query until ncclSuccess before calling another NCCL function or issuing kernels to the streams; NC ncclCommDestroy") \
    RULE(NCCL_FINALIZED, "a call on a communicator that is finalized", "NC 'Finalizing a communicator': ncclCommFinalize flushes all operations; what is left is ncclCommDestroy") \
    RULE(NCCL_POINTER, "buffer is not wholly inside an allocation of the communicator's device", "NC 'Data Pointers': device memory local to the communicator's device") \
    RULE(NCCL_OVERLAP, "send and receive buffer overlap, but are not the same", "NC 'In-place Operations': in-place is sendbuff == recvbuff")
/* clang-format on */

#define STANDIN_RULE_NAME(name, text, document) RULE_##name,
enum standin_rule { STANDIN_RULES(STANDIN_RULE_NAME) STANDIN_RULE_COUNT };
#undef STANDIN_RULE_NAME

#endif
