/*
 * NCCL: sums of float and double across ranks, which are threads of this process. A collective runs when every rank has called it and everything
 * before it in its stream is done; sums are in the order of ranks. Calls on a communicator that does not block go on behind their return until
 * ncclCommGetAsyncError() has said otherwise, sometimes later than they could: connecting and finalizing until all ranks are there, the first
 * sum too, as it connects them.
 */
#include "tests/gpu/standin/nccl.h"
#include "tests/gpu/standin/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANKS_LIMIT DEVICES_LIMIT
#define AHEAD_LIMIT 1024 /* collectives that one rank may be ahead of another */

struct round {
    int called, arrived, done;
    size_t count;
    ncclDataType_t type;
    const void *from[RANKS_LIMIT];
    void *into[RANKS_LIMIT];
    uint8_t here[RANKS_LIMIT];
};

struct group {
    char id[NCCL_UNIQUE_ID_BYTES];
    int ranks, joined, finalized, destroyed, broken; /* by a wrong call of one rank: nobody waits for it then */
    uint8_t taken[RANKS_LIMIT], aborted[RANKS_LIMIT];
    int device[RANKS_LIMIT];
    struct round round[AHEAD_LIMIT];
    struct group *next;
};

/* What a call that does not block has left to do. */
enum progress { NOTHING, CONNECTING, POSTING, FINALIZING };

struct ncclComm {
    struct group *group;
    int rank, device, blocking, finalized;
    uint64_t calls;
    enum progress progress;
    unsigned asked_more; /* so often it is asked for once it could be done */
    struct operation *post;
    struct CUstream_st *stream; /* that `post` is to come to */
    struct ncclComm *next;
};

struct collective {
    struct group *group;
    struct round *round;
    int rank;
};

static struct group *group_list;
static struct ncclComm *comm_list;
static unsigned ids, aborted_sums;

static ncclResult_t leave_with(ncclResult_t result)
{
    unlock();
    return result;
}

/* standin_lose_at_connection() */
static void lose_at(enum standin_moment moment, int device)
{
    if (device >= 0 && device == settings.connect_device && moment == settings.connect_moment) {
        settings.lost[device] = settings.status;
        settings.connect_device = -1;
    }
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = 22809;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *uniqueId)
{
    lock();
    lose_at(MOMENT_IDENTITY, settings.connect_device);
    memset(uniqueId, 0, sizeof *uniqueId);
    snprintf(uniqueId->internal, sizeof uniqueId->internal, "stand-in %u", ++ids);
    return leave_with((ncclResult_t)settings.connect_status);
}

static struct group *group_of(const ncclUniqueId *id, int ranks)
{
    for (struct group *g = group_list; g; g = g->next)
        if (memcmp(g->id, id->internal, sizeof g->id) == 0)
            return g;
    struct group *g = calloc(1, sizeof *g);
    memcpy(g->id, id->internal, sizeof g->id);
    g->ranks = ranks;
    g->next = group_list;
    group_list = g;
    return g;
}

/* The call goes on behind its return, which may say so or not. */
static ncclResult_t goes_on(struct ncclComm *comm, enum progress progress)
{
    comm->progress = progress;
    comm->asked_more = choose(4);
    return choose(2) ? ncclSuccess : ncclInProgress;
}

static ncclResult_t join_group(ncclComm_t *comm, int ranks, const ncclUniqueId *id, int rank, int blocking)
{
    lose_at(MOMENT_CALL, current_device());
    if (usable())
        return ncclUnhandledCudaError;
    if (ranks < 1 || ranks > RANKS_LIMIT || rank < 0 || rank >= ranks)
        return BROKEN(ncclInvalidArgument, NCCL_RANK, "rank %d of %d", rank, ranks);
    struct group *group = group_of(id, ranks);
    if (group->ranks != ranks || group->taken[rank])
        return BROKEN(ncclInvalidUsage, NCCL_RANK, "rank %d of %d, where others say %d ranks%s", rank, ranks,
                      group->ranks, group->taken[rank] ? ", is taken" : "");
    group->taken[rank] = 1;
    group->device[rank] = current_device();
    group->joined++;
    tell_others();
    while (blocking && group->joined < group->ranks)
        if (wait_for_others())
            return BROKEN(ncclSystemError, NCCL_MISSING, "%d of %d ranks came", group->joined, group->ranks);
    *comm = calloc(1, sizeof **comm);
    **comm = (struct ncclComm){
        .group = group, .rank = rank, .device = current_device(), .blocking = blocking, .next = comm_list};
    comm_list = *comm;
    live_handles++;
    lose_at(MOMENT_WAIT, current_device());
    return blocking ? ncclSuccess : goes_on(*comm, CONNECTING);
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank)
{
    lock();
    return leave_with(join_group(comm, nranks, &commId, rank, 1));
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t *config)
{
    static const ncclConfig_t fresh = NCCL_CONFIG_INITIALIZER;
    lock();
    if (config && (config->size != fresh.size || config->magic != fresh.magic))
        return leave_with(BROKEN(ncclInvalidArgument, NCCL_CONFIG, "size %zu, magic %x", config->size, config->magic));
    return leave_with(join_group(comm, nranks, &commId, rank, !config || config->blocking != 0));
}

static struct ncclComm **comm_of(ncclComm_t comm)
{
    for (struct ncclComm **at = &comm_list; *at; at = &(*at)->next)
        if (*at == comm)
            return at;
    found(RULE_NCCL_COMMUNICATOR, "no communicator %p", (void *)comm);
    return NULL;
}

/* The communicator, for a call that may only be made when nothing goes on. */
static struct ncclComm *idle_comm_of(ncclComm_t handle, const char *call)
{
    struct ncclComm **at = comm_of(handle);
    if (at && (*at)->progress != NOTHING) {
        found(RULE_NCCL_PROGRESS, "%s", call);
        return NULL;
    }
    return at ? *at : NULL;
}

static struct ncclComm *open_comm_of(ncclComm_t handle, const char *call)
{
    struct ncclComm *comm = idle_comm_of(handle, call);
    if (comm && comm->finalized) {
        found(RULE_NCCL_FINALIZED, "%s", call);
        return NULL;
    }
    return comm;
}

static void forget_post(struct ncclComm *comm)
{
    if (comm->post) {
        comm->stream->posting = 0;
        operation_free(comm->post);
    }
}

static ncclResult_t leave_group(ncclComm_t comm, int abort)
{
    struct ncclComm **at = comm_of(comm);
    if (!at)
        return ncclInvalidArgument;
    struct ncclComm *gone = *at;
    ncclResult_t result = gone->blocking || choose(2) ? ncclSuccess : ncclInProgress;
    forget_post(gone);
    gone->group->aborted[gone->rank] = (uint8_t)abort;
    tell_others();
    *at = gone->next;
    if (++gone->group->destroyed == gone->group->joined) {
        complete_everything();
        for (struct group **g = &group_list; *g; g = &(*g)->next)
            if (*g == gone->group) {
                *g = gone->group->next;
                free(gone->group);
                break;
            }
    }
    free(gone);
    live_handles--;
    return result;
}

static ncclResult_t finalize(ncclComm_t handle)
{
    struct ncclComm *comm = open_comm_of(handle, "ncclCommFinalize()");
    if (!comm)
        return ncclInvalidArgument;
    comm->finalized = 1;
    comm->group->finalized++;
    tell_others();
    if (!comm->blocking)
        return goes_on(comm, FINALIZING);
    while (comm->group->finalized < comm->group->ranks)
        if (wait_for_others())
            return BROKEN(ncclSystemError, NCCL_MISSING, "%d of %d ranks finalize", comm->group->finalized,
                          comm->group->ranks);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    lock();
    return leave_with(finalize(comm));
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    lock();
    return leave_with(idle_comm_of(comm, "ncclCommDestroy()") ? leave_group(comm, 0) : ncclInvalidArgument);
}

/* What is pending of this rank ends without a sum; of the others it goes on waiting. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    lock();
    return leave_with(leave_group(comm, 1));
}

unsigned standin_aborted_sums(void)
{
    return aborted_sums;
}

/* --- the sum ------------------------------------------------------------------------------------------------------------------ */

/* A rank whose device is lost or that aborted takes no part: the others wait until they abort too. */
static int nobody_is_missing(const struct group *group)
{
    for (int r = 0; r < group->ranks; r++)
        if (group->aborted[r] || settings.lost[group->device[r]])
            return 0;
    return 1;
}

static int can_end(const struct ncclComm *comm)
{
    const struct group *group = comm->group;
    switch (comm->progress) {
    case CONNECTING:
        return group->joined == group->ranks && nobody_is_missing(group);
    case POSTING:
        return comm->calls > 1 || (group->round[0].called == group->ranks && nobody_is_missing(group));
    case FINALIZING:
        return group->finalized == group->ranks;
    case NOTHING:
        break;
    }
    return 1;
}

/* Ends what goes on, where it can and it was asked often enough. */
static ncclResult_t state_of(struct ncclComm *comm)
{
    if (settings.lost[comm->device])
        return ncclUnhandledCudaError;
    if (comm->group->broken || (!nobody_is_missing(comm->group) && choose(4) == 0)) /* it may find out, or not */
        return ncclRemoteError;
    if (!can_end(comm) || (comm->progress != NOTHING && comm->asked_more-- > 0))
        return ncclInProgress;
    struct operation *post = comm->post;
    comm->progress = NOTHING;
    comm->post = NULL;
    if (post)
        comm->stream->posting = 0;
    return post && enqueue(post, comm->stream) ? ncclUnhandledCudaError : ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *asyncError)
{
    lock();
    struct ncclComm **at = comm_of(comm);
    if (at)
        *asyncError = state_of(*at);
    return leave_with(at ? ncclSuccess : ncclInvalidArgument);
}

static int everybody_is_here(struct operation *operation)
{
    struct collective *c = operation->payload;
    if (c->group->broken || c->group->aborted[c->rank])
        return 1;
    if (!c->round->here[c->rank]) {
        c->round->here[c->rank] = 1;
        c->round->arrived++;
    }
    return c->round->arrived == c->group->ranks && (c->round->done || nobody_is_missing(c->group));
}

static void run_sum(struct operation *operation)
{
    struct collective *c = operation->payload;
    if (c->group->aborted[c->rank])
        aborted_sums++;
    if (c->group->broken || c->group->aborted[c->rank])
        return;
    if (c->round->done++ == 0)
        sum_ranks(c->group->ranks, c->round->type == ncclFloat64, c->round->from, c->round->into, c->round->count);
    if (c->round->done == c->group->ranks)
        memset(c->round, 0, sizeof *c->round);
}

static size_t value_bytes_of(ncclDataType_t type)
{
    return type == ncclFloat32 ? sizeof(float) : type == ncclFloat64 ? sizeof(double) : 0;
}

static ncclResult_t check_sum(const struct ncclComm *comm, const void *from, const void *into, size_t count,
                              ncclDataType_t type, ncclRedOp_t op, const struct CUstream_st *stream)
{
    const void *const buffer[2] = {from, into};
    size_t bytes = count * value_bytes_of(type);
    if (!bytes || op != ncclSum)
        return BROKEN(ncclInvalidArgument, NCCL_MISMATCH,
                      "type %d, operation %d, %zu values: the stand-in sums floats and doubles", (int)type, (int)op,
                      count);
    if (stream->device != comm->device)
        return BROKEN(ncclInvalidUsage, DEVICE_MISMATCH, "ncclAllReduce(): stream of device %d, communicator of %d",
                      stream->device, comm->device);
    for (int i = 0; i < 2; i++) {
        struct allocation *a = allocation_of(buffer[i], bytes);
        if (!a || a->device != comm->device || !inside_buffer(a, buffer[i], bytes))
            return BROKEN(ncclInvalidArgument, NCCL_POINTER, "%s buffer %p of %zu bytes", i ? "receive" : "send",
                          buffer[i], bytes);
    }
    if (from != into && (const char *)from < (const char *)into + bytes &&
        (const char *)into < (const char *)from + bytes)
        return BROKEN(ncclInvalidArgument, NCCL_OVERLAP, "send %p, receive %p", from, into);
    return ncclSuccess;
}

static ncclResult_t all_reduce(ncclComm_t handle, const void *from, void *into, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, cudaStream_t stream)
{
    if (usable())
        return ncclUnhandledCudaError;
    struct ncclComm *comm = open_comm_of(handle, "ncclAllReduce()");
    struct CUstream_st *s = comm ? stream_of(stream) : NULL;
    if (!s)
        return ncclInvalidArgument;
    struct round *round = &comm->group->round[comm->calls++ % AHEAD_LIMIT];
    ncclResult_t result = check_sum(comm, from, into, count, type, op, s);
    if (!result && round->called > 0 && (round->count != count || round->type != type))
        result = BROKEN(ncclInvalidArgument, NCCL_MISMATCH, "rank %d: %zu values of type %d, others %zu of %d",
                        comm->rank, count, (int)type, round->count, (int)round->type);
    if (result) {
        comm->group->broken = 1;
        tell_others();
        return result;
    }
    round->called++;
    round->count = count;
    round->type = type;
    round->from[comm->rank] = from;
    round->into[comm->rank] = into;
    struct collective *c = malloc(sizeof *c);
    *c = (struct collective){comm->group, round, comm->rank};
    struct operation *o = operation_new("sum over ranks", run_sum, c);
    o->ready = everybody_is_here;
    touches(o, from, count * value_bytes_of(type), TOUCH_READ);
    touches(o, into, count * value_bytes_of(type), TOUCH_WRITE);
    if (comm->blocking || (comm->calls > 1 && choose(2) == 0))
        return enqueue(o, s) ? ncclUnhandledCudaError : ncclSuccess;
    s->posting = 1;
    comm->post = o;
    comm->stream = s;
    goes_on(comm, POSTING);
    return ncclInProgress;
}

ncclResult_t ncclAllReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream)
{
    lock();
    return leave_with(all_reduce(comm, sendbuff, recvbuff, count, datatype, op, stream));
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const text[] = {"no error",
                                       "unhandled cuda error",
                                       "unhandled system error",
                                       "internal error",
                                       "invalid argument",
                                       "invalid usage",
                                       "remote process exited or there was a network error",
                                       "in progress"};
    return (unsigned)result < sizeof text / sizeof *text ? text[result] : "unknown result code";
}
