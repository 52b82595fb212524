/*
 * Capture and graphs. A capture is the work of one stream, in order (OURS: forks into other streams are RULE_CAPTURE_CROSS). Arguments
 * are copied when captured; pointers are not followed, as on a device. A launch runs the whole graph as one operation of its stream.
 */
#include "tests/gpu/standin/engine.h"

#include <pthread.h>
#include <stdlib.h>

#define GRAPH_LIMIT 65536 /* operations */

struct CUgraph_st {
    struct operation **operation;
    unsigned operations;
    int uses; /* the graph itself, executable graphs, launches under way */
    int valid;
    enum cudaStreamCaptureMode mode;
    pthread_t thread;
    struct CUgraph_st *next;
};

struct CUgraphExec_st {
    struct CUgraph_st *graph;
    struct CUgraphExec_st *next;
};

static struct CUgraph_st *graph_list;
static struct CUgraphExec_st *exec_list;

static void release(void *payload)
{
    struct CUgraph_st *graph = payload;
    if (--graph->uses > 0)
        return;
    for (unsigned i = 0; i < graph->operations; i++)
        operation_free(graph->operation[i]);
    free(graph->operation);
    free(graph);
}

/* --- capture ------------------------------------------------------------------------------------------------------------ */

void capture_invalidate(struct CUstream_st *stream)
{
    if (stream->capture)
        stream->capture->valid = 0;
}

cudaError_t capture_add(struct CUstream_st *stream, struct operation *operation)
{
    struct CUgraph_st *graph = stream->capture;
    if (!graph->valid || graph->operations == GRAPH_LIMIT) {
        operation_free(operation);
        return BROKEN(cudaErrorStreamCaptureInvalidated, CAPTURE_INVALID, "work in a capture that is no longer valid");
    }
    graph->operation = realloc(graph->operation, (graph->operations + 1) * sizeof(struct operation *));
    graph->operation[graph->operations++] = operation;
    return cudaSuccess;
}

/* `only` NULL: a call that touches no stream, which a relaxed capture and captures of other threads in thread-local mode allow. */
cudaError_t no_capture(const struct CUstream_st *only, enum standin_rule rule, const char *call)
{
    for (struct CUstream_st *s = streams(); s; s = s->next) {
        struct CUgraph_st *graph = s->capture;
        if (!graph || (only && only != s))
            continue;
        int mine = pthread_equal(graph->thread, pthread_self());
        if (!only &&
            (graph->mode == cudaStreamCaptureModeRelaxed || (graph->mode == cudaStreamCaptureModeThreadLocal && !mine)))
            continue;
        graph->valid = 0;
        found(rule, "%s() while a stream is being captured", call);
        return cudaErrorStreamCaptureUnsupported;
    }
    return cudaSuccess;
}

static cudaError_t begin_capture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    cudaError_t error = usable();
    if (error)
        return error;
    struct CUstream_st *s = stream_of(stream);
    if (!s)
        return cudaErrorInvalidResourceHandle;
    if (!stream)
        return BROKEN(cudaErrorStreamCaptureUnsupported, CAPTURE_LEGACY, "capture of the legacy stream");
    if ((unsigned)mode > cudaStreamCaptureModeRelaxed)
        return cudaErrorInvalidValue;
    if (s->capture) {
        s->capture->valid = 0;
        return BROKEN(cudaErrorIllegalState, CAPTURE_END, "cudaStreamBeginCapture() twice");
    }
    s->capture = calloc(1, sizeof *s->capture);
    *s->capture = (struct CUgraph_st){.uses = 1, .valid = 1, .mode = mode, .thread = pthread_self()};
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    lock();
    return leave(begin_capture(stream, mode));
}

static cudaError_t end_capture(cudaStream_t stream, cudaGraph_t *ret_graph)
{
    cudaError_t error = usable();
    *ret_graph = NULL;
    struct CUstream_st *s = stream_of(stream);
    if (!s)
        return cudaErrorInvalidResourceHandle;
    struct CUgraph_st *graph = s->capture;
    if (!graph)
        return error ? error
                     : BROKEN(cudaErrorIllegalState, CAPTURE_END,
                              "cudaStreamEndCapture() of a stream that is not capturing");
    if (graph->mode != cudaStreamCaptureModeRelaxed && !pthread_equal(graph->thread, pthread_self()))
        return BROKEN(cudaErrorStreamCaptureWrongThread, CAPTURE_END, "cudaStreamEndCapture() by another thread");
    s->capture = NULL;
    if (error || !graph->valid) {
        release(graph);
        return error ? error : cudaErrorStreamCaptureInvalidated;
    }
    graph->next = graph_list;
    graph_list = graph;
    live_handles++;
    *ret_graph = graph;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *pGraph)
{
    lock();
    return leave(end_capture(stream, pGraph));
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *pCaptureStatus)
{
    lock();
    struct CUstream_st *s = stream_of(stream);
    if (s)
        *pCaptureStatus = !s->capture         ? cudaStreamCaptureStatusNone
                          : s->capture->valid ? cudaStreamCaptureStatusActive
                                              : cudaStreamCaptureStatusInvalidated;
    return leave(s ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

/* --- graphs ---------------------------------------------------------------------------------------------------------------- */

static struct CUgraph_st **graph_of(cudaGraph_t graph)
{
    for (struct CUgraph_st **at = &graph_list; *at; at = &(*at)->next)
        if (*at == graph)
            return at;
    found(RULE_GRAPH_HANDLE, "no graph %p", (void *)graph);
    return NULL;
}

static struct CUgraphExec_st **exec_of(cudaGraphExec_t exec)
{
    for (struct CUgraphExec_st **at = &exec_list; *at; at = &(*at)->next)
        if (*at == exec)
            return at;
    found(RULE_GRAPH_HANDLE, "no executable graph %p", (void *)exec);
    return NULL;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *pGraphExec, cudaGraph_t graph, unsigned long long flags)
{
    lock();
    cudaError_t error = usable();
    struct CUgraph_st **at = graph_of(graph);
    if (!error && flags)
        error = BROKEN(cudaErrorInvalidValue, FLAGS, "cudaGraphInstantiate(flags %#llx)", flags);
    if (!error && !at)
        error = cudaErrorInvalidValue;
    if (!error) {
        struct CUgraphExec_st *exec = calloc(1, sizeof *exec);
        exec->graph = *at;
        exec->graph->uses++;
        exec->next = exec_list;
        exec_list = exec;
        live_handles++;
        *pGraphExec = exec;
    }
    return leave(error);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    lock();
    struct CUgraph_st **at = graph_of(graph);
    if (at) {
        struct CUgraph_st *gone = *at;
        *at = gone->next;
        live_handles--;
        release(gone);
    }
    return leave(at ? usable() : cudaErrorInvalidValue);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graphExec)
{
    lock();
    struct CUgraphExec_st **at = exec_of(graphExec);
    if (at) {
        struct CUgraphExec_st *gone = *at;
        *at = gone->next;
        live_handles--;
        release(gone->graph);
        free(gone);
    }
    return leave(at ? usable() : cudaErrorInvalidValue);
}

static void run_graph(struct operation *operation)
{
    struct CUgraph_st *graph = operation->payload;
    for (unsigned i = 0; i < graph->operations; i++)
        execute(graph->operation[i], operation);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graphExec, cudaStream_t stream)
{
    lock();
    cudaError_t error = usable();
    struct CUgraphExec_st **at = error ? NULL : exec_of(graphExec);
    struct CUstream_st *s = error ? NULL : stream_of(stream);
    if (error || !at || !s)
        return leave(error ? error : at ? cudaErrorInvalidResourceHandle : cudaErrorInvalidValue);
    (*at)->graph->uses++;
    struct operation *o = operation_new("graph", run_graph, (*at)->graph);
    o->free_payload = release;
    return leave(enqueue(o, s));
}
