/*
 * Times the cpu backend through model/backend.h and prints one number per run: what ./bench trunk, train and heads ask for.
 * Comparing, repeating and peers are the scripts' business.
 *
 *   bench_compute trunk THREADS fp32|bf16 BATCH SECONDS   images/s, EfficientNet-B0, 1 channel, 224 px
 *   bench_compute train THREADS BATCH SECONDS             images/s of whole steps, AdamW included; then peak MiB
 *   bench_compute head-fit SCHEMA THREADS                 galaxies through one head, both ways, /s/thread
 *   bench_compute head-fit-10k SCHEMA THREADS HEADS       seconds: 10,000 labels to convergence
 *   bench_compute head-score SCHEMA THREADS VOTES SECONDS galaxies/s/thread, 30 passes over 5 heads
 *   bench_compute rerank SCHEMA THREADS VOTES GALAXIES    seconds
 */
#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"
#include "cpu/backend_cpu.h"
#include "model/optimizer.h"
#include "model/information.h"
#include "model/likelihood.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define SEED  20240229u
#define HEADS 5 /* the daemon's defaults */

static const struct backend *const backend = &backend_cpu;

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void must(int result)
{
    if (result) {
        fprintf(stderr, "bench_compute: %s\n", error_message());
        exit(1);
    }
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (!memory) {
        fprintf(stderr, "bench_compute: out of memory\n");
        exit(1);
    }
    return memory;
}

static struct backend_context *open_threads(const char *threads)
{
    struct backend_context *context;
    must(backend->open(atoi(threads), &context));
    return context;
}

/* --- the trunk ---------------------------------------------------------------------------------------------------- */

struct trunk {
    struct net net;
    float *parameters, *images, *outputs;
    size_t count;
};

/* Random weights, scaled as the daemon scales them: values of ordinary size everywhere. */
static struct trunk make_trunk(struct backend_context *context, size_t count)
{
    struct trunk trunk = {.count = count};
    net_efficientnet_b0(1, 224, &trunk.net);
    size_t pixels = 224 * 224;
    trunk.parameters = allocate(net_parameter_count(&trunk.net), sizeof(float));
    trunk.images = allocate(count * pixels, sizeof(float));
    trunk.outputs = allocate(count * (size_t)trunk.net.outputs, sizeof(float));
    for (size_t i = 0; i < count * pixels; i++)
        trunk.images[i] = philox_uniform(philox(SEED, (uint32_t)i, 0, 0, 0).word[0]);
    net_random_parameters(&trunk.net, SEED, trunk.parameters);
    must(backend->calibrate(context, &trunk.net, trunk.images, count < 4 ? count : 4, trunk.parameters));
    return trunk;
}

static int time_trunk(char **argument)
{
    struct backend_context *context = open_threads(argument[0]);
    struct trunk trunk = make_trunk(context, (size_t)atoi(argument[2]));
    double limit = atof(argument[3]), best = 0, begin = seconds_now();
    struct plan *plan;
    enum precision precision = strcmp(argument[1], "bf16") == 0 ? PRECISION_BF16 : PRECISION_FP32;
    must(backend->compile(context, &trunk.net, trunk.parameters, precision, &plan));
    must(backend->forward(plan, trunk.images, trunk.count, trunk.outputs));
    for (double last = seconds_now(), now; last - begin < limit; last = now) {
        int calls = 0;
        do { /* parts of 0.2 s, the best one counts: the others were disturbed */
            must(backend->forward(plan, trunk.images, trunk.count, trunk.outputs));
            calls++;
            now = seconds_now();
        } while (now - last < 0.2);
        double rate = (double)trunk.count * calls / (now - last);
        best = rate > best ? rate : best;
    }
    printf("%.6g\n", best);
    return 0;
}

/* --- training ----------------------------------------------------------------------------------------------------- */

struct training_run {
    struct training *training;
    struct trunk trunk;
    float *slope, *gradient, *moment1, *moment2;
    uint32_t step;
};

static void train_step(struct training_run *run)
{
    struct train_pass pass = {.seed = SEED, .step = run->step++, .live_norm = 1};
    const struct adamw adamw = {.learning_rate = 1e-4, .weight_decay = 0.05, .step = run->step, .gradient_scale = 1};
    struct trunk *trunk = &run->trunk;
    must(backend->train_forward(run->training, trunk->parameters, trunk->images, trunk->count, &pass, trunk->outputs));
    must(backend->train_backward(run->training, trunk->parameters, run->slope, 0, run->gradient, NULL));
    adamw_update(&adamw, net_parameter_count(&trunk->net), run->gradient, trunk->parameters, run->moment1,
                 run->moment2);
}

/* The loss is a fixed weighted sum of the embedding: its gradient costs nothing. */
static int time_train(char **argument)
{
    struct backend_context *context = open_threads(argument[0]);
    size_t count = (size_t)atoi(argument[1]);
    double limit = atof(argument[2]), best = 0, begin;
    struct training_run run = {.trunk = make_trunk(context, count)};
    size_t parameters = net_parameter_count(&run.trunk.net), outputs = count * (size_t)run.trunk.net.outputs;
    run.slope = allocate(outputs, sizeof(float));
    run.gradient = allocate(parameters, sizeof(float));
    run.moment1 = allocate(parameters, sizeof(float));
    run.moment2 = allocate(parameters, sizeof(float));
    for (size_t i = 0; i < outputs; i++)
        run.slope[i] = (philox_uniform(philox(SEED, (uint32_t)i, 1, 0, 0).word[0]) - 0.5f) / (float)outputs;
    must(backend->open_training(context, &run.trunk.net, count, &run.training));
    train_step(&run);
    begin = seconds_now();
    for (double last = begin, now; last - begin < limit; last = now) {
        train_step(&run);
        now = seconds_now();
        best = (double)count / (now - last) > best ? (double)count / (now - last) : best;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%.6g\n%.6g\n", best, (double)usage.ru_maxrss / 1024);
    return 0;
}

/* --- heads -------------------------------------------------------------------------------------------------------- */

#define INPUTS   1280
#define FACTORS  16   /* what the embeddings and the volunteers' answers have in common */
#define DISTINCT 4096 /* different embeddings of a pool without votes; more galaxies repeat them */

struct pool {
    struct schema schema;
    struct head_set heads;
    size_t count;
    float *factor;       /* [distinct][FACTORS] */
    uint16_t *embedding; /* [count][INPUTS] */
    uint16_t *votes;     /* [count][answers] */
    uint64_t *row;       /* 0, 1, ... */
};

static float normal(uint32_t i, uint32_t stream)
{
    struct philox random = philox(SEED, i, stream, 0, 0);
    float sum = -2;
    for (int w = 0; w < 4; w++)
        sum += philox_uniform(random.word[w]);
    return sum * 1.7320508f; /* four uniforms: near enough */
}

/* embedding = factors x mixing + noise of the same size; `distinct` rows, then repeats */
static void make_embeddings(struct pool *pool, size_t distinct)
{
    float mixing[FACTORS];
    pool->embedding = allocate(pool->count * INPUTS, sizeof *pool->embedding);
    pool->factor = allocate(distinct * FACTORS, sizeof *pool->factor);
    for (size_t i = 0; i < distinct * FACTORS; i++)
        pool->factor[i] = normal((uint32_t)i, 1);
    for (size_t i = 0; i < INPUTS; i++) {
        for (size_t f = 0; f < FACTORS; f++)
            mixing[f] = normal((uint32_t)(i * FACTORS + f), 5) / sqrtf(FACTORS);
        for (size_t row = 0; row < distinct; row++) {
            float value = normal((uint32_t)(row * INPUTS + i), 2);
            for (size_t f = 0; f < FACTORS; f++)
                value += mixing[f] * pool->factor[row * FACTORS + f];
            pool->embedding[row * INPUTS + i] = half_from_float(value);
        }
    }
    for (size_t row = distinct; row < pool->count; row++)
        memcpy(pool->embedding + row * INPUTS, pool->embedding + row % distinct * INPUTS, INPUTS * 2);
}

/* Expected fractions: softmax of a linear function of the factors, question by question. */
static void teach(const struct pool *pool, const float *teacher, size_t row, float *fraction)
{
    const struct schema *schema = &pool->schema;
    for (int a = 0; a < schema->answers; a++) {
        float logit = 0;
        for (int f = 0; f < FACTORS; f++)
            logit += teacher[a * FACTORS + f] * pool->factor[row * FACTORS + (size_t)f];
        fraction[a] = expf(logit);
    }
    for (int q = 0; q < schema->questions; q++) {
        float sum = 0;
        for (int a = 0; a < schema->question[q].count; a++)
            sum += fraction[schema->question[q].first + a];
        for (int a = 0; a < schema->question[q].count; a++)
            fraction[schema->question[q].first + a] /= sum;
    }
}

/* 40 volunteers per galaxy, fewer where a question is reached less often. */
static void make_votes(struct pool *pool)
{
    const struct schema *schema = &pool->schema;
    float *teacher = allocate((size_t)schema->answers * FACTORS, sizeof(float));
    float fraction[SCHEMA_ANSWERS_MAX], reached[SCHEMA_QUESTIONS_MAX];
    pool->votes = allocate(pool->count * (size_t)schema->answers, sizeof *pool->votes);
    for (int i = 0; i < schema->answers * FACTORS; i++)
        teacher[i] = 1.5f / sqrtf(FACTORS) * normal((uint32_t)i, 3);
    for (size_t row = 0; row < pool->count; row++) {
        teach(pool, teacher, row, fraction);
        schema_reached(schema, fraction, reached);
        for (int q = 0; q < schema->questions; q++)
            for (int vote = 0; vote < (int)(40 * reached[q] + 0.5f); vote++) {
                const struct question *question = &schema->question[q];
                float u = philox_uniform(philox(SEED, (uint32_t)vote, (uint32_t)row, (uint32_t)q, 0).word[0]);
                int a = 0;
                for (float sum = fraction[question->first]; a < question->count - 1 && u >= sum;)
                    sum += fraction[question->first + ++a];
                pool->votes[row * (size_t)schema->answers + (size_t)(question->first + a)]++;
            }
    }
    free(teacher);
}

static struct pool make_pool(const char *schema, size_t count, int heads, int with_votes)
{
    struct pool pool = {.count = count};
    float constant[SCHEMA_ANSWERS_MAX];
    must(schema_load(schema, &pool.schema));
    make_embeddings(&pool, with_votes || count < DISTINCT ? count : DISTINCT);
    pool.row = allocate(count, sizeof *pool.row);
    for (size_t i = 0; i < count; i++)
        pool.row[i] = i;
    must(head_set_new(heads, INPUTS, pool.schema.answers, &pool.heads));
    pool.heads.model = 1;
    pool.heads.dropout = 0.2f;
    for (int a = 0; a < pool.schema.answers; a++)
        constant[a] = 10;
    if (with_votes) {
        make_votes(&pool);
        struct vote_rows rows = {pool.votes, (size_t)pool.schema.answers * 2, pool.row, count};
        must(likelihood_constant_fit(&pool.schema, &rows, LIKELIHOOD_HEAD_LOWER, LIKELIHOOD_HEAD_UPPER, constant));
        head_set_standardise(&pool.heads, pool.embedding, INPUTS * 2, NULL, DISTINCT);
    }
    head_set_reset(&pool.heads, constant);
    return pool;
}

/* As the daemon fits: its defaults. */
static struct fit_request fit_request_of(const struct pool *pool, size_t validation)
{
    return (struct fit_request){.schema = &pool->schema,
                                .embedding = pool->embedding,
                                .embedding_stride_bytes = INPUTS * 2,
                                .votes = pool->votes,
                                .votes_stride_bytes = (size_t)pool->schema.answers * 2,
                                .train_row = pool->row + validation,
                                .train_count = pool->count - validation,
                                .validation_row = pool->row,
                                .validation_count = validation,
                                .seed = SEED,
                                .learning_rate = 3e-4f,
                                .weight_decay = 0.1f,
                                .batch = 64,
                                .epochs_max = 200,
                                .patience = 20};
}

static int time_head_fit(char **argument)
{
    int threads = atoi(argument[1]);
    struct backend_context *context = open_threads(argument[1]);
    struct pool pool = make_pool(argument[0], DISTINCT, threads, 1);
    struct fit_request request = fit_request_of(&pool, 0);
    struct fit_report report;
    double best = 0;
    request.epochs_max = 8; /* without validation rows two of them are run: epochs_max / 4 */
    for (int repeat = 0; repeat < 10; repeat++) {
        double begin = seconds_now();
        must(backend->head_fit(context, &request, &pool.heads, &report));
        double rate = (double)report.epochs * DISTINCT / (seconds_now() - begin);
        best = rate > best ? rate : best;
    }
    printf("%.6g\n", best);
    return 0;
}

static int time_head_fit_10k(char **argument)
{
    struct backend_context *context = open_threads(argument[1]);
    struct pool pool = make_pool(argument[0], 10000, atoi(argument[2]), 1);
    struct fit_request request = fit_request_of(&pool, 500);
    struct fit_report report;
    double begin = seconds_now();
    must(backend->head_fit(context, &request, &pool.heads, &report));
    double seconds = seconds_now() - begin;
    fprintf(stderr, "bench_compute: %d epochs, the best one %d, loss on validation rows %.4f\n", report.epochs,
            report.best_epoch, (double)report.validation_loss);
    printf("%.6g\n", seconds);
    return 0;
}

/* Heads that say something different in every pass; how well they were fitted does not matter for the time. */
static double score_seconds(struct backend_context *context, struct pool *pool, int votes)
{
    uint16_t *due = allocate(pool->count, sizeof *due);
    float *output = allocate(pool->count * (size_t)information_row_floats(&pool->schema), sizeof *output);
    for (size_t i = 0; i < (size_t)pool->heads.count * (size_t)pool->schema.answers * INPUTS; i++)
        pool->heads.weight[i] = 0.05f * normal((uint32_t)i, 4);
    for (size_t i = 0; i < pool->count; i++)
        due[i] = (uint16_t)votes;
    struct score_request request = {.heads = &pool->heads,
                                    .schema = &pool->schema,
                                    .embedding = pool->embedding,
                                    .embedding_stride_bytes = INPUTS * 2,
                                    .count = pool->count,
                                    .passes = 30,
                                    .seed = SEED,
                                    .kind = INFORMATION_VOTES,
                                    .votes_due = due,
                                    .reducer = REDUCE_INFORMATION,
                                    .output = output};
    double begin = seconds_now();
    must(backend->head_score(context, &request, NULL, NULL));
    double seconds = seconds_now() - begin;
    free(due);
    free(output);
    return seconds;
}

static int time_head_score(char **argument)
{
    struct backend_context *context = open_threads(argument[1]);
    struct pool pool = make_pool(argument[0], DISTINCT, HEADS, 0);
    double limit = atof(argument[3]), best = 0, begin = seconds_now();
    while (seconds_now() - begin < limit) {
        double rate = DISTINCT / score_seconds(context, &pool, atoi(argument[2])) / backend->threads(context);
        best = rate > best ? rate : best;
    }
    printf("%.6g\n", best);
    return 0;
}

static int time_rerank(char **argument)
{
    struct backend_context *context = open_threads(argument[1]);
    struct pool pool = make_pool(argument[0], (size_t)atol(argument[3]), HEADS, 0);
    printf("%.6g\n", score_seconds(context, &pool, atoi(argument[2])));
    return 0;
}

static const struct verb {
    const char *name;
    int arguments;
    int (*run)(char **argument);
} verbs[] = {
    {"trunk",        4, time_trunk       },
    {"train",        3, time_train       },
    {"head-fit",     2, time_head_fit    },
    {"head-fit-10k", 3, time_head_fit_10k},
    {"head-score",   4, time_head_score  },
    {"rerank",       4, time_rerank      },
};

int main(int count, char **argument)
{
    for (size_t v = 0; v < sizeof verbs / sizeof *verbs; v++)
        if (count == 2 + verbs[v].arguments && !strcmp(argument[1], verbs[v].name))
            return verbs[v].run(argument + 2);
    fprintf(stderr, "usage: bench_compute trunk|train|head-fit|head-fit-10k|head-score|rerank ARGUMENTS...\n");
    return 64;
}
