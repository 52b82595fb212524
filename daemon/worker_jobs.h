/* The worker's jobs, one function each; see jobs.h for what goes in and comes out. */
#ifndef TRIAGE_DAEMON_WORKER_JOBS_H
#define TRIAGE_DAEMON_WORKER_JOBS_H

#include "base/arena.h"
#include "connectors/channel.h"
#include "daemon/config.h"
#include "model/backend.h"
#include "pool/pool.h"

#include <jansson.h>

#define WORKER_BATCH_BYTES     ((size_t)2 << 30) /* address space for the pixels and rows of one job */
#define WORKER_IMAGE_BATCH     64                /* images in flight at a time */
#define WORKER_IMAGE_BATCH_MAX 2048              /* where no image needs floats on the host */
#define WORKER_SCORE_ROWS      65536             /* galaxies scored and stored at a time */
#define WORKER_LABELS_MAX      200000            /* labelled galaxies of a split in one fit: heads.labels_max at most */

struct worker {
    struct config config;
    struct schema schema;
    struct pool pool;
    struct net net;
    bool lost; /* the device is: nothing can be computed any more */
    const struct backend *backend;
    struct backend_context *context;
    struct plan *plan;
    uint32_t trunk;         /* number of the trunk the plan holds; 0 = none yet */
    struct training *depth; /* the same trunk with stochastic depth, only with trunk.mc_stochastic_depth */
    float *depth_parameters;
    struct channel *channel;
    struct arena batch;
    uint64_t job;
    double progress;
    int64_t told_ms;
    long damaged; /* rows of the pool found damaged since the last answer that said so */
};

/* Each fills `answer` (an empty object) or returns a negative code with its message. */
int worker_embed(struct worker *worker, const json_t *job, json_t *answer);
int worker_fit(struct worker *worker, const json_t *job, json_t *answer);
int worker_rank(struct worker *worker, const json_t *job, json_t *answer);
int worker_compare(struct worker *worker, const json_t *job, json_t *answer);
int worker_train(struct worker *worker, const json_t *job, json_t *answer);
int worker_reembed(struct worker *worker, const json_t *job, json_t *answer);

/* A batch of galaxies on its way through the trunk, and the memory for it. */
struct worker_views {
    const uint64_t *key, *row; /* [count]; row = key - 1 */
    long count;
    float *plain;   /* [count][side][side][channels] */
    float *inputs;  /* [count][side][side][channels] */
    float *outputs; /* [count][net outputs] */
};

/* The plain view of a galaxy (model/augment.h): input [side][side][channels] OUTPUT. */
void worker_plain_input(const struct worker *worker, uint64_t key, float *input);

/* embeddings [count][trunk.mc_views][net outputs] OUTPUT, a function of trunk, seed and galaxy alone. */
int worker_embed_views(struct worker *worker, const struct worker_views *views, float *embeddings);

/* Galaxies given to worker_embed_views() at a time: as many as keep the backend busy without much memory here. */
long worker_images_at_a_time(const struct worker *worker);

/* Makes the trunk of these parameters ready for stochastic depth, if that is configured. */
int worker_open_depth(struct worker *worker, const float *parameters);
void worker_close_depth(struct worker *worker);

/*
 * Whether the row has an embedding of the trunk in use and a readable image. One that is not what was stored (its checksum)
 * is forgotten: it is out until it is made again from the image.
 */
bool worker_has_embedding(struct worker *worker, uint64_t row);

/* Forgets a damaged row, says so in the log and in the answer. */
void worker_forget_row(struct worker *worker, uint64_t row, const char *what);

/* The job's trunk, whose embeddings the pool then means. */
uint32_t worker_take_trunk(struct worker *worker, const json_t *job);

/* Tells the daemon how far the job is, now and then; non-zero when the worker was asked to stop. */
int worker_tick(void *worker);

#endif
