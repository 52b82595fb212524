/*
 * Scoring the pool: embeddings through all heads and passes, a block of galaxies side by side, then reduced galaxy by galaxy. The masks
 * are the same for every galaxy, so passes share their products (pass_groups.h). Fitting is head_fit.c.
 */
#include "cpu/heads.h"
#include "base/error.h"
#include "cpu/head_kernels.h"
#include "cpu/pass_groups.h"
#include "model/information.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_AT_ONCE 64 /* between two questions to `stop` */
#define SPREAD_ROWS    16 /* galaxies turned from columns into rows at a time; divides SCORE_ROWS */
#define ALIGNMENT      64
#define SCRATCH_MAX    ((size_t)128 << 20) /* bytes of one worker */

/* One worker's memory. */
struct scratch {
    float *row;      /* [SPREAD_ROWS][inputs] standardised embeddings */
    float *z;        /* [views][inputs][SCORE_ROWS] the same, galaxies side by side */
    float *broken;   /* [views][SCORE_ROWS] see broken() */
    float *x;        /* [passes][answers_padded][SCORE_ROWS] logits, then concentrations */
    float *alpha;    /* [SPREAD_ROWS][answers][stride], passes padded */
    float *fraction; /* [answers] */
    float *reached;  /* [questions] */
};

struct score_job {
    const struct score_request *request;
    const struct head_kernels *kernels;
    struct pass_groups groups;
    int inputs, answers, passes, views;
    int answers_padded;
    int stride;                       /* passes rounded up to INFORMATION_LANES */
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

static void job_free(struct score_job *job, int workers)
{
    for (int i = 0; job->scratch && i < workers; i++) {
        free(job->scratch[i].row);
        free(job->scratch[i].z);
        free(job->scratch[i].broken);
        free(job->scratch[i].x);
        free(job->scratch[i].alpha);
        free(job->scratch[i].fraction);
        free(job->scratch[i].reached);
    }
    free(job->scratch);
    pass_groups_free(&job->groups);
}

static int scratch_new(const struct score_job *job, struct scratch *scratch)
{
    size_t answers = (size_t)job->answers, inputs = (size_t)job->inputs;
    size_t alphas = SPREAD_ROWS * answers * (size_t)job->stride;
    scratch->row = floats(SPREAD_ROWS * inputs);
    scratch->z = floats((size_t)job->views * inputs * SCORE_ROWS);
    scratch->broken = floats((size_t)job->views * SCORE_ROWS);
    scratch->x = floats((size_t)job->passes * (size_t)job->answers_padded * SCORE_ROWS);
    scratch->alpha = floats(alphas);
    scratch->fraction = floats(answers);
    scratch->reached = floats((size_t)job->request->schema->questions);
    if (!scratch->row || !scratch->z || !scratch->broken || !scratch->x || !scratch->alpha || !scratch->fraction ||
        !scratch->reached)
        return error_set(ERROR_SYSTEM, "out of memory for scoring with %d passes", job->passes);
    for (size_t i = 0; i < alphas; i++)
        scratch->alpha[i] = 1; /* the padding stays so */
    return 0;
}

/* ERROR_LIMIT for more than any sensible request: memory is what answers, passes, views and inputs multiply to. */
static int check_scratch(const struct score_job *job)
{
    size_t answers = (size_t)job->answers, inputs = (size_t)job->inputs, passes = (size_t)job->passes;
    size_t blocks = (size_t)job->views * inputs + passes * (size_t)job->answers_padded;
    size_t bytes = (SCORE_ROWS * blocks + SPREAD_ROWS * (inputs + answers * (size_t)job->stride)) * sizeof(float);
    if (bytes <= SCRATCH_MAX)
        return 0;
    return error_set(ERROR_LIMIT,
                     "%d passes of %d answers at %d views need %zu MiB in each thread, more than %zu: use fewer",
                     job->passes, job->answers, job->views, bytes >> 20, SCRATCH_MAX >> 20);
}

static int job_new(struct score_job *job, int workers)
{
    int result = pass_groups_new(job->request, &job->groups);
    if (result)
        return result;
    job->answers_padded = job->groups.answers_padded;
    result = check_scratch(job);
    if (result)
        return result;
    job->scratch = calloc((size_t)workers, sizeof *job->scratch);
    if (!job->scratch)
        return error_set(ERROR_SYSTEM, "out of memory for scoring");
    for (int i = 0; i < workers && !result; i++)
        result = scratch_new(job, &job->scratch[i]);
    return result;
}

static float *column_of(const struct score_job *job, float *x, int pass, int answer)
{
    return x + ((size_t)pass * (size_t)job->answers_padded + (size_t)answer) * SCORE_ROWS;
}

/* Of one galaxy, alpha [answers][stride]. */
static void inform(const struct score_job *job, struct scratch *scratch, const float *alpha, int votes_due,
                   float *output)
{
    const struct schema *schema = job->request->schema;
    float *fraction = output + 2, *question_total = fraction + schema->answers,
          *question_expected = question_total + schema->questions;
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        const float *first = alpha + question->first * job->stride;
        struct information information =
            job->kernels->question(job->request->kind, first, question->count, job->passes, job->stride, votes_due);
        job->kernels->fractions(first, question->count, job->passes, job->stride, fraction + question->first);
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

/* Galaxies `first` .. of the block from columns into rows. */
static void spread(const struct score_job *job, struct scratch *scratch, size_t first)
{
    size_t stride = (size_t)job->stride, size = (size_t)job->answers * stride;
    for (int a = 0; a < job->answers; a++)
        for (int t = 0; t < job->passes; t++) {
            const float *x = column_of(job, scratch->x, t, a) + first;
            float *alpha = scratch->alpha + (size_t)a * stride + (size_t)t;
            for (size_t r = 0; r < SPREAD_ROWS; r++)
                alpha[r * size] = x[r];
        }
}

static void dump(const struct score_job *job, float *x, size_t row, float *output)
{
    for (int t = 0; t < job->passes; t++)
        for (int a = 0; a < job->answers; a++)
            output[t * job->answers + a] = column_of(job, x, t, a)[row];
}

/* The block's `rows` galaxies from number `galaxy` on, whose logits are in x. */
static void reduce(const struct score_job *job, struct scratch *scratch, size_t galaxy, size_t rows)
{
    const struct score_request *request = job->request;
    size_t dumped = (size_t)job->passes * (size_t)job->answers, size = (size_t)job->answers * (size_t)job->stride;
    size_t informed = (size_t)information_row_floats(request->schema);
    for (int t = 0; t < job->passes; t++)
        for (int a = 0; a < job->answers; a++)
            job->kernels->concentrations(column_of(job, scratch->x, t, a), SCORE_ROWS, job->factor[a]);
    for (size_t r = 0; r < rows; r++) {
        if (request->reducer == REDUCE_DUMP) {
            dump(job, scratch->x, r, request->output + (galaxy + r) * dumped);
            continue;
        }
        if (r % SPREAD_ROWS == 0)
            spread(job, scratch, r);
        inform(job, scratch, scratch->alpha + r % SPREAD_ROWS * size, request->votes_due[galaxy + r],
               request->output + (galaxy + r) * informed);
    }
}

/* NaN when one value is not finite, else 0. Goes into every logit: no pass may look as if it knew something, not even one that
 * drops that value, or all of them. */
static float broken(const float *z, int inputs)
{
    uint32_t any = 0;
    for (int i = 0; i < inputs; i++) {
        uint32_t bits;
        memcpy(&bits, &z[i], 4);
        any |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return any ? NAN : 0;
}

static void load_row(const struct score_job *job, size_t galaxy, int view, float *z)
{
    const struct score_request *request = job->request;
    uint64_t row = request->row ? request->row[galaxy] : galaxy;
    const char *embedding = (const char *)request->embedding + row * request->embedding_stride_bytes;
    job->kernels->standardise((const uint16_t *)embedding + view * job->inputs, request->heads->shift,
                              request->heads->scale, job->inputs, z);
    if (request->heads->unit_length)
        job->kernels->unit_length(z, job->inputs);
}

/* Standardised embeddings of `rows` galaxies from `first` on, side by side; what fills up is 0. */
static void load_block(const struct score_job *job, struct scratch *scratch, size_t first, size_t rows)
{
    size_t inputs = (size_t)job->inputs;
    for (int view = 0; view < job->views; view++)
        for (size_t at = 0; at < SCORE_ROWS; at += SPREAD_ROWS) {
            float *z = scratch->z + (size_t)view * inputs * SCORE_ROWS + at;
            for (size_t r = 0; r < SPREAD_ROWS; r++) {
                float *row = scratch->row + r * inputs;
                if (at + r < rows)
                    load_row(job, first + at + r, view, row);
                else
                    memset(row, 0, inputs * sizeof(float));
                scratch->broken[(size_t)view * SCORE_ROWS + at + r] = broken(row, job->inputs);
            }
            for (size_t i = 0; i < inputs; i++)
                for (size_t r = 0; r < SPREAD_ROWS; r++)
                    z[i * SCORE_ROWS + r] = scratch->row[r * inputs + i];
        }
}

/* Logits of the block: biases, then the products of each group of passes. */
static void multiply(const struct score_job *job, struct scratch *scratch)
{
    const struct head_set *heads = job->request->heads;
    int per_head = job->passes / heads->count;
    size_t inputs = (size_t)job->inputs;
    for (int t = 0; t < job->passes; t++) {
        const float *start = scratch->broken + (size_t)(t % job->views) * SCORE_ROWS;
        for (int a = 0; a < job->answers_padded; a++) {
            float *x = column_of(job, scratch->x, t, a),
                  bias = a < job->answers ? heads->bias[t / per_head * job->answers + a] : 0;
            for (int r = 0; r < SCORE_ROWS; r++)
                x[r] = bias + start[r];
        }
    }
    for (int g = 0; g < job->groups.count; g++) {
        const struct pass_group *group = &job->groups.group[g];
        for (int a = 0; a < job->answers_padded; a += GROUP_ANSWERS) {
            float *out[GROUP_PASSES];
            for (int i = 0; i < group->passes; i++)
                out[i] = column_of(job, scratch->x, group->pass[i], a);
            job->kernels->passes(group->run, group->runs, group->input, group->weight + (size_t)a * inputs,
                                 scratch->z + (size_t)group->view * inputs * SCORE_ROWS, out);
        }
    }
}

static void score_block(void *context, long item, int worker)
{
    const struct score_job *job = context;
    size_t first = (job->first_block + (size_t)item) * SCORE_ROWS, rows = job->request->count - first;
    rows = rows > SCORE_ROWS ? SCORE_ROWS : rows;
    load_block(job, &job->scratch[worker], first, rows);
    multiply(job, &job->scratch[worker]);
    reduce(job, &job->scratch[worker], first, rows);
}

int cpu_head_score(struct workers *workers, const struct score_request *request, backend_stop *stop, void *stop_context)
{
    int result = score_request_check(request);
    if (result)
        return result;
    struct score_job job = {.request = request,
                            .kernels = head_kernels(),
                            .inputs = request->heads->inputs,
                            .answers = request->heads->answers,
                            .passes = request->passes,
                            .views = request->views ? request->views : 1,
                            .stride = round_up(request->passes, INFORMATION_LANES)};
    for (int a = 0; a < job.answers; a++)
        job.factor[a] = request->heads->factor[request->schema->answer[a].question];
    result = job_new(&job, workers_count(workers));
    size_t blocks = (request->count + SCORE_ROWS - 1) / SCORE_ROWS;
    while (!result && job.first_block < blocks) {
        size_t left = blocks - job.first_block, items = left < BLOCKS_AT_ONCE ? left : BLOCKS_AT_ONCE;
        if (stop && stop(stop_context)) {
            result = error_set(ERROR_CANCELLED, "scoring was cancelled after %zu of %zu galaxies",
                               job.first_block * SCORE_ROWS, request->count);
            break;
        }
        workers_run(workers, score_block, &job, (long)items);
        job.first_block += items;
    }
    job_free(&job, workers_count(workers));
    return result;
}
