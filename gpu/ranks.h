/*
 * Several devices of one machine as ranks of one worker: each has a context of its own and a host thread, takes its share of every batch,
 * and NCCL adds up over the ranks what training must know of the whole batch. A rank's share is a run of neighbouring images; sums
 * over ranks are NCCL's, the same bits in every run on the same machine. The seam knows the context of rank 0 only.
 */
#ifndef TRIAGE_GPU_RANKS_H
#define TRIAGE_GPU_RANKS_H

#include "gpu/context.h"

#define RANKS_MAX 8

/* Opens devices 0 .. `devices` - 1 (CUDA_VISIBLE_DEVICES says which those are); more than one are connected and try a sum. A device that
 * is lost meanwhile ends that at once, with its error. */
int ranks_open(int threads, int devices, struct backend_context **ret_context);
void ranks_close(struct backend_context *context); /* NULL is fine */

int ranks_count(const struct backend_context *context);
struct backend_context *ranks_context(const struct backend_context *context, int rank);

/* What a rank does of `items`: shares differ by one at most. */
struct share {
    size_t first, count;
};
struct share ranks_share(size_t items, int rank, int ranks);

/* What every rank can take, so that all do the same and find the same bits. */
struct job_size ranks_smallest(const struct job_size *size, int ranks);

/* task(argument, rank) on every rank's thread; the first rank's error that is one, with its message. After an error nothing is in flight;
 * ERROR_UNAVAILABLE, and sums that only some ranks came to, end this and every later task. */
typedef int rank_task(void *argument, int rank);
int ranks_run(struct backend_context *context, rank_task *task, void *argument);

/* Sums over all ranks, in place, on the compute stream; nothing to do for one device alone. Every rank must call; after an error nothing
 * may be put on the stream, nor waited for: the task ends. */
int ranks_sum_floats(struct backend_context *context, float *values, size_t count);
int ranks_sum_doubles(struct backend_context *context, double *values, size_t count);

/* Waits for the compute stream; where sums over ranks are on it, not for ever: a rank that failed ends the wait of the others. */
int ranks_wait(struct backend_context *context);

#endif
