/*
 * Scoring the pool: embeddings through all heads and passes as one matrix product per block of 64 rows, then
 * reduced. The masks are the same for every galaxy, so each (head, pass) is a fixed set of masked weights.
 * Fitting is head_fit.c.
 */
#include "cpu/heads.h"
#include "base/error.h"
#include "base/philox.h"
#include "cpu/head_kernels.h"
#include "model/information.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_ROWS     64
#define BLOCKS_AT_ONCE 64                  /* between two questions to `stop` */
#define WEIGHTS_MAX    ((size_t)512 << 20) /* bytes of masked weights */
#define ALIGNMENT      64

/* One worker's memory. */
struct scratch {
    float *z;        /* [views][BLOCK_ROWS][inputs] standardised embeddings */
    float *x;        /* [BLOCK_ROWS][columns] logits, then concentrations */
    float *alpha;    /* [answers][stride] one galaxy, passes padded */
    float *fraction; /* [answers] */
    float *reached;  /* [questions] */
};

struct score_job {
    const struct score_request *request;
    const struct head_kernels *kernels;
    int inputs, answers, passes;
    int views, passes_per_view;       /* pass t looks at view t % views */
    int columns_per_view;             /* answers * passes_per_view rounded up to TILE_COLUMNS */
    int columns;                      /* of all views, one after the other */
    int stride;                       /* passes rounded up to INFORMATION_LANES */
    float *weight;                    /* [columns / TILE_COLUMNS][inputs][TILE_COLUMNS] masked */
    float *bias;                      /* [columns] */
    float factor[SCHEMA_ANSWERS_MAX]; /* of the answer's question, see head.h */
    struct scratch *scratch;          /* [workers] */
    size_t first_block;
};

static int round_up(int value, int step)
{
    return (value + step - 1) / step * step;
}

static float *floats(size_t count)
{
    return aligned_alloc(ALIGNMENT, (count * sizeof(float) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static int column_of(const struct score_job *job, int answer, int pass)
{
    return pass % job->views * job->columns_per_view + answer * job->passes_per_view + pass / job->views;
}

/* Writes the weights of one head and pass into their columns. */
static void mask_weights(struct score_job *job, int head, int pass, float *mask)
{
    const struct head_set *heads = job->request->heads;
    int passes_per_head = job->passes / heads->count;
    uint32_t counter[3] = {(uint32_t)pass, (uint32_t)head, heads->model << 4 | PHILOX_SCORE};
    job->kernels->dropout(job->request->seed, counter, heads->dropout, job->inputs, mask);
    for (int a = 0; a < job->answers; a++) {
        int column = column_of(job, a, head * passes_per_head + pass);
        size_t output = (size_t)head * (size_t)job->answers + (size_t)a;
        const float *weight = heads->weight + output * (size_t)job->inputs;
        float *panel = job->weight + (size_t)(column / TILE_COLUMNS) * (size_t)job->inputs * TILE_COLUMNS;
        for (int i = 0; i < job->inputs; i++)
            panel[i * TILE_COLUMNS + column % TILE_COLUMNS] = weight[i] * mask[i];
        job->bias[column] = heads->bias[output];
    }
}

static int check(const struct score_request *request)
{
    const struct head_set *heads = request->heads;
    if (heads->answers != request->schema->answers)
        return error_set(ERROR_STATE, "heads with %d answers cannot score schema %s with %d: train a model for it",
                         heads->answers, request->schema->name, request->schema->answers);
    if (request->passes < 1 || request->passes % heads->count || request->passes > INFORMATION_PASSES_MAX)
        return error_set(ERROR_INPUT, "%d passes over %d heads: use a multiple of the heads, at most %d",
                         request->passes, heads->count, INFORMATION_PASSES_MAX);
    if (request->views < 0 || (request->views && request->passes % request->views))
        return error_set(ERROR_INPUT, "%d passes over %d views: use a multiple of the views", request->passes,
                         request->views);
    if (!(heads->dropout >= 0 && heads->dropout < 1))
        return error_set(ERROR_INPUT, "dropout %g is outside 0 <= p < 1", (double)heads->dropout);
    return 0;
}

static void job_free(struct score_job *job, int workers)
{
    for (int i = 0; job->scratch && i < workers; i++) {
        free(job->scratch[i].z);
        free(job->scratch[i].x);
        free(job->scratch[i].alpha);
        free(job->scratch[i].fraction);
        free(job->scratch[i].reached);
    }
    free(job->scratch);
    free(job->weight);
    free(job->bias);
}

static int scratch_new(const struct score_job *job, struct scratch *scratch)
{
    size_t answers = (size_t)job->answers;
    scratch->z = floats((size_t)job->views * BLOCK_ROWS * (size_t)job->inputs);
    scratch->x = floats((size_t)BLOCK_ROWS * (size_t)job->columns);
    scratch->alpha = floats(answers * (size_t)job->stride);
    scratch->fraction = floats(answers);
    scratch->reached = floats((size_t)job->request->schema->questions);
    if (!scratch->z || !scratch->x || !scratch->alpha || !scratch->fraction || !scratch->reached)
        return -1;
    for (size_t i = 0; i < answers * (size_t)job->stride; i++)
        scratch->alpha[i] = 1; /* the padding stays so */
    return 0;
}

static int job_new(struct score_job *job, int workers)
{
    size_t weights = (size_t)job->columns * (size_t)job->inputs;
    if (weights * sizeof(float) > WEIGHTS_MAX)
        return error_set(ERROR_LIMIT,
                         "%d passes of %d answers need %zu MiB of masked weights, more than %zu: use fewer passes",
                         job->passes, job->answers, weights * sizeof(float) >> 20, WEIGHTS_MAX >> 20);
    job->weight = floats(weights);
    job->bias = floats((size_t)job->columns);
    job->scratch = calloc((size_t)workers, sizeof *job->scratch);
    float *mask = floats((size_t)round_up(job->inputs, 32));
    int result = job->weight && job->bias && job->scratch && mask ? 0 : -1;
    for (int i = 0; i < workers && !result; i++)
        result = scratch_new(job, &job->scratch[i]);
    if (!result) {
        memset(job->weight, 0, weights * sizeof(float));
        memset(job->bias, 0, (size_t)job->columns * sizeof(float));
        for (int head = 0; head < job->request->heads->count; head++)
            for (int pass = 0; pass < job->passes / job->request->heads->count; pass++)
                mask_weights(job, head, pass, mask);
    }
    free(mask);
    return result ? error_set(ERROR_SYSTEM, "out of memory for scoring with %d passes", job->passes) : 0;
}

static void dump(const struct score_job *job, const float *x, float *output)
{
    for (int t = 0; t < job->passes; t++)
        for (int a = 0; a < job->answers; a++)
            output[t * job->answers + a] = job->factor[a] * x[column_of(job, a, t)];
}

/* Expected fraction of each answer, alpha_a / A averaged over passes, pass by pass. */
static void mean_fractions(const struct score_job *job, const struct question *question, const float *alpha,
                           float *fraction)
{
    double mean[SCHEMA_PER_QUESTION] = {0};
    for (int t = 0; t < job->passes; t++) {
        double sum = 0;
        for (int a = 0; a < question->count; a++)
            sum += (double)alpha[a * job->stride + t];
        double inverse = 1 / sum;
        for (int a = 0; a < question->count; a++)
            mean[a] += (double)alpha[a * job->stride + t] * inverse;
    }
    for (int a = 0; a < question->count; a++)
        fraction[a] = (float)(mean[a] / job->passes);
}

static void inform(const struct score_job *job, struct scratch *scratch, const float *x, int votes_due, float *output)
{
    const struct schema *schema = job->request->schema;
    float *fraction = output + 2, *question_total = fraction + schema->answers,
          *question_expected = question_total + schema->questions;
    for (int a = 0; a < job->answers; a++)
        for (int view = 0; view < job->views; view++) {
            float *alpha = scratch->alpha + a * job->stride + view * job->passes_per_view;
            for (int t = 0; t < job->passes_per_view; t++)
                alpha[t] = job->factor[a] * x[column_of(job, a, view) + t];
        }
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        const float *alpha = scratch->alpha + question->first * job->stride;
        struct information information =
            job->kernels->question(job->request->kind, alpha, question->count, job->passes, job->stride, votes_due);
        mean_fractions(job, question, alpha, fraction + question->first);
        question_total[q] = (float)information.total;
        question_expected[q] = (float)information.expected;
    }
    schema_reached(schema, fraction, scratch->reached);
    double total = 0, expected = 0;
    for (int q = 0; q < schema->questions; q++) {
        total += (double)scratch->reached[q] * (double)question_total[q];
        expected += (double)scratch->reached[q] * (double)question_expected[q];
    }
    output[0] = (float)total;
    output[1] = (float)expected;
}

static void reduce(const struct score_job *job, struct scratch *scratch, size_t galaxy, float *x)
{
    const struct score_request *request = job->request;
    job->kernels->concentrations(x, (size_t)job->columns);
    if (request->reducer == REDUCE_DUMP)
        dump(job, x, request->output + galaxy * (size_t)job->passes * (size_t)job->answers);
    else
        inform(job, scratch, x, request->votes_due[galaxy],
               request->output + galaxy * (size_t)information_row_floats(request->schema));
}

/* Standardised embeddings of `rows` galaxies from `first` on, each view apart; rows up to `padded` are 0. */
static void load_block(const struct score_job *job, size_t first, size_t rows, size_t padded, float *z)
{
    const struct score_request *request = job->request;
    size_t inputs = (size_t)job->inputs;
    for (size_t view = 0; view < (size_t)job->views; view++, z += BLOCK_ROWS * inputs) {
        memset(z + rows * inputs, 0, (padded - rows) * inputs * sizeof(float));
        for (size_t r = 0; r < rows; r++) {
            uint64_t row = request->row ? request->row[first + r] : first + r;
            const char *embedding = (const char *)request->embedding + row * request->embedding_stride_bytes;
            job->kernels->standardise((const uint16_t *)embedding + view * inputs, request->heads->shift,
                                      request->heads->scale, job->inputs, z + r * inputs);
            if (request->heads->unit_length)
                head_unit_length(z + r * inputs, job->inputs);
        }
    }
}

static void score_block(void *context, long item, int worker)
{
    const struct score_job *job = context;
    const struct score_request *request = job->request;
    struct scratch *scratch = &job->scratch[worker];
    size_t inputs = (size_t)job->inputs, columns = (size_t)job->columns;
    size_t first = (job->first_block + (size_t)item) * BLOCK_ROWS, rows = request->count - first;
    rows = rows > BLOCK_ROWS ? BLOCK_ROWS : rows;
    size_t padded = (rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    load_block(job, first, rows, padded, scratch->z);
    for (size_t r = 0; r < padded; r++)
        memcpy(scratch->x + r * columns, job->bias, columns * sizeof(float));
    for (size_t c = 0; c < columns; c += TILE_COLUMNS)
        job->kernels->tile(padded, scratch->z + c / (size_t)job->columns_per_view * BLOCK_ROWS * inputs, inputs, 1,
                           job->weight + c * inputs, TILE_COLUMNS, job->inputs, scratch->x + c, columns);
    for (size_t r = 0; r < rows; r++)
        reduce(job, scratch, first + r, scratch->x + r * columns);
}

int cpu_head_score(struct workers *workers, const struct score_request *request, backend_stop *stop, void *stop_context)
{
    int result = check(request);
    if (result)
        return result;
    struct score_job job = {.request = request,
                            .kernels = head_kernels(),
                            .inputs = request->heads->inputs,
                            .answers = request->heads->answers,
                            .passes = request->passes,
                            .views = request->views ? request->views : 1,
                            .stride = round_up(request->passes, INFORMATION_LANES)};
    job.passes_per_view = job.passes / job.views;
    for (int a = 0; a < job.answers; a++)
        job.factor[a] = request->heads->factor[request->schema->answer[a].question];
    job.columns_per_view = round_up(job.answers * job.passes_per_view, TILE_COLUMNS);
    job.columns = job.views * job.columns_per_view;
    result = job_new(&job, workers_count(workers));
    size_t blocks = (request->count + BLOCK_ROWS - 1) / BLOCK_ROWS;
    while (!result && job.first_block < blocks) {
        size_t left = blocks - job.first_block, items = left < BLOCKS_AT_ONCE ? left : BLOCKS_AT_ONCE;
        if (stop && stop(stop_context)) {
            result = error_set(ERROR_CANCELLED, "scoring was cancelled after %zu of %zu galaxies",
                               job.first_block * BLOCK_ROWS, request->count);
            break;
        }
        workers_run(workers, score_block, &job, (long)items);
        job.first_block += items;
    }
    job_free(&job, workers_count(workers));
    return result;
}
