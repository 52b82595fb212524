/*
 * Fitting heads: the recipe of head_fit.h with each head as one item of parallel work per epoch. Embeddings are
 * converted block by block where they are used, so memory does not grow with the number of galaxies. Scoring
 * is heads.c.
 */
#include "base/error.h"
#include "base/philox.h"
#include "cpu/head_kernels.h"
#include "cpu/heads.h"
#include "model/likelihood.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_ROWS 64
#define ALIGNMENT  64

/*
 * One head in training. Rows hold the inputs, then the bias (its input is 1), then zeros up to `stride`;
 * answers are padded with zero rows.
 */
struct learner {
    float *weight, *gradient, *moment1, *moment2; /* [answers_padded][stride] */
    uint64_t *order;                              /* [train_count] this epoch's rows */
    double loss;                                  /* summed over the rows evaluated last */
    uint64_t failed_row;                          /* whose loss was not finite; UINT64_MAX = none */
};

/* One worker's memory. */
struct scratch {
    float *z;         /* [BLOCK_ROWS][stride] */
    float *x;         /* [BLOCK_ROWS][answers_padded] logits, then concentrations */
    float *slope;     /* [BLOCK_ROWS][answers_padded] d loss / d logit */
    double *gradient; /* [answers] d loss / d alpha */
    float *mask;      /* [inputs, padded] */
};

struct fit_job {
    struct workers *workers;
    const struct fit_request *request;
    const struct head_kernels *kernels;
    struct head_set *heads; /* the best state so far */
    size_t answers_padded, stride;
    uint64_t step; /* at the start of this epoch */
    struct learner learner[HEAD_COUNT_MAX];
    struct scratch *scratch; /* [workers] */
    const uint64_t *evaluate_row;
    size_t evaluate_count;
    int train; /* 0: only evaluate */
};

static size_t round_up(size_t value, size_t step)
{
    return (value + step - 1) / step * step;
}

static void *zeroed(size_t count, size_t size)
{
    void *memory = aligned_alloc(ALIGNMENT, round_up(count * size + 1, ALIGNMENT));
    if (memory)
        memset(memory, 0, round_up(count * size + 1, ALIGNMENT));
    return memory;
}

/* Between the head_set's arrays and the learner's padded rows; `out` copies to the head_set. */
static int exchange(void *context, int out)
{
    struct fit_job *job = context;
    struct head_set *heads = job->heads;
    size_t inputs = (size_t)heads->inputs, answers = (size_t)heads->answers;
    for (size_t output = 0; output < (size_t)heads->count * answers; output++) {
        struct learner *learner = &job->learner[output / answers];
        size_t a = output % answers;
        struct {
            float *stored, *working;
            size_t count;
        } pair[] = {
            {heads->weight + output * inputs,        learner->weight + a * job->stride,          inputs    },
            {heads->bias + output,                   learner->weight + a * job->stride + inputs, 1         },
            {heads->moment1 + output * (inputs + 1), learner->moment1 + a * job->stride,         inputs + 1},
            {heads->moment2 + output * (inputs + 1), learner->moment2 + a * job->stride,         inputs + 1},
        };
        for (size_t i = 0; i < sizeof pair / sizeof *pair; i++)
            memcpy(out ? pair[i].stored : pair[i].working, out ? pair[i].working : pair[i].stored,
                   pair[i].count * sizeof(float));
    }
    return 0;
}

static const uint16_t *embedding_of(const struct fit_job *job, uint64_t row, const uint64_t *step)
{
    const struct fit_request *request = job->request;
    const char *embedding = (const char *)request->embedding + row * request->embedding_stride_bytes;
    uint64_t view = request->views > 1 ? (row + (step ? *step : 0)) % (uint64_t)request->views : 0;
    return (const uint16_t *)embedding + view * (uint64_t)job->heads->inputs;
}

static void prefetch(const uint16_t *embedding, int inputs)
{
    for (int i = 0; i < inputs; i += ALIGNMENT / (int)sizeof *embedding)
        __builtin_prefetch(embedding + i);
}

/* Standardised inputs and a 1 for the bias of up to BLOCK_ROWS galaxies, with masks when `step` is given. */
static void load(const struct fit_job *job, struct scratch *scratch, int head, const uint64_t *row, size_t rows,
                 const uint64_t *step)
{
    const struct fit_request *request = job->request;
    const struct head_set *heads = job->heads;
    for (size_t r = 0; r < rows; r++) {
        float *z = scratch->z + r * job->stride;
        if (r + 1 < rows) /* rows lie all over the pool */
            prefetch(embedding_of(job, row[r + 1], step), heads->inputs);
        job->kernels->standardise(embedding_of(job, row[r], step), heads->shift, heads->scale, heads->inputs, z);
        if (heads->unit_length)
            job->kernels->unit_length(z, heads->inputs);
        z[heads->inputs] = 1;
        if (step && heads->dropout > 0) {
            uint32_t counter[3] = {(uint32_t)(row[r] + 1), (uint32_t)*step, (uint32_t)head << 8 | PHILOX_TRAIN};
            job->kernels->dropout(request->seed, counter, heads->dropout, heads->inputs, scratch->mask);
            job->kernels->multiply(z, scratch->mask, heads->inputs);
        }
    }
    memset(scratch->z + rows * job->stride, 0, (round_up(rows, DOT_ROWS) - rows) * job->stride * sizeof(float));
}

/* Concentrations of the block into scratch->x. */
static void forward(const struct fit_job *job, struct scratch *scratch, const struct learner *learner, size_t rows)
{
    for (size_t r = 0; r < rows; r += DOT_ROWS)
        for (size_t a = 0; a < job->answers_padded; a += DOT_ROWS)
            job->kernels->dot(scratch->z + r * job->stride, job->stride, learner->weight + a * job->stride, job->stride,
                              (int)job->stride, scratch->x + r * job->answers_padded + a, job->answers_padded);
    job->kernels->concentrations(scratch->x, rows * job->answers_padded, 1);
}

static const uint16_t *votes_of(const struct fit_request *request, uint64_t row)
{
    return (const uint16_t *)((const char *)request->votes + row * request->votes_stride_bytes);
}

/* Adds one block's share of the batch gradient. Returns 0, or -1 when a galaxy's is not finite. */
static int train_block(const struct fit_job *job, struct scratch *scratch, struct learner *learner, const uint64_t *row,
                       size_t rows, float weight)
{
    size_t answers = (size_t)job->heads->answers, padded = job->answers_padded;
    forward(job, scratch, learner, rows);
    for (size_t r = 0; r < rows; r++) {
        const float *alpha = scratch->x + r * padded;
        likelihood_galaxy_slopes(job->request->schema, alpha, votes_of(job->request, row[r]), scratch->gradient);
        double any = 0;
        for (size_t a = 0; a < answers; a++)
            any += scratch->gradient[a];
        if (!isfinite(any)) {
            learner->failed_row = row[r];
            return -1;
        }
        float share = weight * fit_bag_weight(job->request, row[r], (uint32_t)(learner - job->learner));
        for (size_t a = 0; a < answers; a++)
            scratch->slope[r * padded + a] = (float)scratch->gradient[a] * head_alpha_slope(alpha[a]) * share;
    }
    for (size_t i = 0; i < job->stride; i += TILE_COLUMNS)
        job->kernels->tile(padded, scratch->slope, 1, padded, scratch->z + i, job->stride, (int)rows,
                           learner->gradient + i, job->stride);
    return 0;
}

static void update(const struct fit_job *job, struct learner *learner, uint64_t steps_taken)
{
    size_t inputs = (size_t)job->heads->inputs;
    double t = (double)steps_taken;
    struct adam_step step = {.learning_rate = job->request->learning_rate,
                             .decay = job->request->weight_decay,
                             .correction1 = (float)(1 / (1 - pow(0.9, t))),
                             .correction2 = (float)(1 / sqrt(1 - pow(0.999, t)))};
    struct adam_step bias_step = step;
    bias_step.learning_rate = job->request->bias_rate;
    bias_step.decay = 0;
    for (size_t a = 0; a < (size_t)job->heads->answers; a++) {
        size_t at = a * job->stride;
        job->kernels->adam(&step, learner->weight + at, learner->gradient + at, learner->moment1 + at,
                           learner->moment2 + at, inputs);
        at += inputs;
        job->kernels->adam(&bias_step, learner->weight + at, learner->gradient + at, learner->moment1 + at,
                           learner->moment2 + at, 1);
    }
}

static int train_epoch(struct fit_job *job, struct scratch *scratch, int head)
{
    struct learner *learner = &job->learner[head];
    size_t count = job->request->train_count, batch = (size_t)job->request->batch;
    uint64_t step = job->step;
    fit_shuffle(job->request, head, step, learner->order);
    for (size_t first = 0; first < count; first += batch, step++) {
        size_t end = first + batch < count ? first + batch : count;
        float weight = 1.0f / (float)(end - first);
        for (size_t at = first; at < end; at += BLOCK_ROWS) {
            size_t rows = end - at < BLOCK_ROWS ? end - at : BLOCK_ROWS;
            load(job, scratch, head, learner->order + at, rows, &step);
            if (train_block(job, scratch, learner, learner->order + at, rows, weight))
                return -1;
        }
        update(job, learner, step + 1);
    }
    return 0;
}

static void evaluate(struct fit_job *job, struct scratch *scratch, int head)
{
    struct learner *learner = &job->learner[head];
    learner->loss = 0;
    for (size_t at = 0; at < job->evaluate_count; at += BLOCK_ROWS) {
        size_t left = job->evaluate_count - at, rows = left < BLOCK_ROWS ? left : BLOCK_ROWS;
        load(job, scratch, head, job->evaluate_row + at, rows, NULL);
        forward(job, scratch, learner, rows);
        for (size_t r = 0; r < rows; r++) {
            uint64_t row = job->evaluate_row[at + r];
            double loss = likelihood_galaxy(job->request->schema, scratch->x + r * job->answers_padded,
                                            votes_of(job->request, row));
            if (!isfinite(loss) && learner->failed_row == UINT64_MAX)
                learner->failed_row = row;
            learner->loss += loss;
        }
    }
}

static void head_task(void *context, long item, int worker)
{
    struct fit_job *job = context;
    struct scratch *scratch = &job->scratch[worker];
    if (job->train && train_epoch(job, scratch, (int)item))
        return;
    evaluate(job, scratch, (int)item);
}

static int run(void *context, int train, uint64_t step, const uint64_t *row, size_t count, double *loss,
               uint64_t *failed_row)
{
    struct fit_job *job = context;
    job->train = train;
    job->step = step;
    job->evaluate_row = row;
    job->evaluate_count = count;
    workers_run(job->workers, head_task, job, job->heads->count);
    for (int head = 0; head < job->heads->count; head++) {
        loss[head] = job->learner[head].loss;
        failed_row[head] = job->learner[head].failed_row;
    }
    return 0;
}

static void job_free(struct fit_job *job, int workers)
{
    for (int head = 0; head < job->heads->count; head++) {
        struct learner *learner = &job->learner[head];
        free(learner->weight);
        free(learner->gradient);
        free(learner->moment1);
        free(learner->moment2);
        free(learner->order);
    }
    for (int i = 0; job->scratch && i < workers; i++) {
        free(job->scratch[i].z);
        free(job->scratch[i].x);
        free(job->scratch[i].slope);
        free(job->scratch[i].gradient);
        free(job->scratch[i].mask);
    }
    free(job->scratch);
}

static int job_new(struct fit_job *job, int workers)
{
    size_t size = job->answers_padded * job->stride;
    int complete = (job->scratch = calloc((size_t)workers, sizeof *job->scratch)) != NULL;
    for (int head = 0; head < job->heads->count && complete; head++) {
        struct learner *learner = &job->learner[head];
        learner->weight = zeroed(size, sizeof(float));
        learner->gradient = zeroed(size, sizeof(float));
        learner->moment1 = zeroed(size, sizeof(float));
        learner->moment2 = zeroed(size, sizeof(float));
        learner->order = zeroed(job->request->train_count, sizeof *learner->order);
        learner->failed_row = UINT64_MAX;
        complete = learner->weight && learner->gradient && learner->moment1 && learner->moment2 && learner->order;
    }
    for (int i = 0; i < workers && complete; i++) {
        struct scratch *scratch = &job->scratch[i];
        scratch->z = zeroed(BLOCK_ROWS * job->stride, sizeof(float));
        scratch->x = zeroed(BLOCK_ROWS * job->answers_padded, sizeof(float));
        scratch->slope = zeroed(BLOCK_ROWS * job->answers_padded, sizeof(float));
        scratch->gradient = zeroed(job->answers_padded, sizeof(double));
        scratch->mask = zeroed(round_up((size_t)job->heads->inputs, 32), sizeof(float));
        complete = scratch->z && scratch->x && scratch->slope && scratch->gradient && scratch->mask;
    }
    return complete ? 0 : error_set(ERROR_SYSTEM, "out of memory for fitting %d heads", job->heads->count);
}

int cpu_head_fit(struct workers *workers, const struct fit_request *request, struct head_set *heads,
                 struct fit_report *ret_report)
{
    *ret_report = (struct fit_report){.train_loss = NAN, .validation_loss = NAN, .bad_row = UINT64_MAX};
    int result = fit_request_check(request, heads);
    if (result)
        return result;
    struct fit_job job = {.workers = workers,
                          .request = request,
                          .kernels = head_kernels(),
                          .heads = heads,
                          .answers_padded = round_up((size_t)heads->answers, TILE_ROWS),
                          .stride = round_up((size_t)heads->inputs + 1, TILE_COLUMNS)};
    struct fit_learner learner = {run, exchange, &job};
    result = job_new(&job, workers_count(workers));
    if (!result)
        result = fit_epochs(request, heads, &learner, ret_report);
    job_free(&job, workers_count(workers));
    return result;
}
