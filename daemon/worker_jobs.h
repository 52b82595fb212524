/* The worker's jobs, one function each; see jobs.h for what goes in and comes out. */
#ifndef TRIAGE_DAEMON_WORKER_JOBS_H
#define TRIAGE_DAEMON_WORKER_JOBS_H

#include "base/arena.h"
#include "connectors/channel.h"
#include "daemon/config.h"
#include "model/backend.h"
#include "pool/pool.h"

#include <jansson.h>

#define WORKER_BATCH_BYTES ((size_t)2 << 30) /* address space for the pixels and rows of one job */
#define WORKER_IMAGE_BATCH 64                /* images in flight at a time */
#define WORKER_SCORE_ROWS  4096              /* galaxies scored between two looks at the stop flag */
#define WORKER_LABELS_MAX  200000            /* labelled galaxies of one fit */

struct worker {
    struct config config;
    struct schema schema;
    struct pool pool;
    struct net net;
    const struct backend *backend;
    struct backend_context *context;
    struct plan *plan;
    uint32_t trunk; /* number of the trunk the plan holds; 0 = none yet */
    struct channel *channel;
    struct arena batch;
    uint64_t job;
    double progress;
    int64_t told_ms;
};

/* Each fills `answer` (an empty object) or returns a negative code with its message. */
int worker_embed(struct worker *worker, const json_t *job, json_t *answer);
int worker_fit(struct worker *worker, const json_t *job, json_t *answer);
int worker_rank(struct worker *worker, const json_t *job, json_t *answer);
int worker_train(struct worker *worker, const json_t *job, json_t *answer);
int worker_reembed(struct worker *worker, const json_t *job, json_t *answer);

/* The job's trunk, whose embeddings the pool then means. */
uint32_t worker_take_trunk(struct worker *worker, const json_t *job);

/* Tells the daemon how far the job is, now and then; non-zero when the worker was asked to stop. */
int worker_tick(void *worker);

#endif
