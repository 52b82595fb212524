/*
 * Times a backend through model/backend.h (bench_compute: cpu; bench_compute_cuda: cuda on its first device) and prints one number per
 * run: what ./bench trunk, train, heads and gpu ask for. Comparing, repeating and peers are the scripts' business.
 *
 *   bench_compute trunk THREADS PRECISION BATCH SECONDS   images/s, EfficientNet-B0, 1 channel, 224 px; fp32, bf16 or tf32
 *   bench_compute stored THREADS PRECISION BATCH SECONDS  the same from stored bytes of 300 px, plain view of w21
 *   bench_compute export FOLDER                           trunk.safetensors; images and their embeddings as floats
 *   bench_compute embed NETWORK WEIGHTS SIDE FOLDER       embeddings of FOLDER/images (floats, 1 channel) as floats beside them
 *   bench_compute train THREADS BATCH SECONDS             images/s of whole steps, AdamW included; then peak MiB
 *   bench_compute memory embed|train BATCH                MiB of a device that three batches took beside what was planned
 *   bench_compute augment w20|w21 SECONDS                 views/s on one thread, 300 px to 224, 1 channel
 *   bench_compute head-fit SCHEMA THREADS                 galaxies through one head, both ways, /s/thread
 *   bench_compute head-fit-10k SCHEMA THREADS HEADS       seconds: 10,000 labels to convergence; refuses to time a fit that learned nothing
 *   bench_compute head-fit-10k-loss SCHEMA THREADS HEADS  nats: the loss it ends with, on validation rows
 *   bench_compute head-score SCHEMA THREADS VOTES SECONDS galaxies/s/thread, 30 passes over 5 heads
 *   bench_compute rerank SCHEMA THREADS VOTES GALAXIES    seconds
 *   bench_compute information ANSWERS VOTES SECONDS       galaxy-questions/s on one thread, 30 passes, in the scan
 *   bench_compute joint ANSWERS VOTES SECONDS             the same for the joint counts, exact
 *   bench_compute select SLOTS GALAXIES DIVERSE           seconds to choose them; 1 = with every rule of the batch
 */
#include "acquisition/joint.h"
#include "acquisition/select.h"
#include "daemon/choosing.h"
#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"
#include "cpu/head_kernels.h"
#include "model/augment.h"
#include "model/optimizer.h"
#include "model/information.h"
#include "model/likelihood.h"
#include "model/safetensors.h"
#include "model/stored_views.h"
#include "tests/support/backend_under_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define SEED  20240229u
#define HEADS 5 /* the daemon's defaults */

static const struct backend *const backend = BACKEND_UNDER_TEST;

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
    must(backend->open(atoi(threads), 1, &context));
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

static enum precision precision_of(const char *name)
{
    return strcmp(name, "bf16") == 0 ? PRECISION_BF16 : strcmp(name, "tf32") == 0 ? PRECISION_TF32 : PRECISION_FP32;
}

/* THREADS PRECISION BATCH SECONDS; `views` NULL: from floats. */
static int time_forward(char **argument, const struct stored_views *views)
{
    struct backend_context *context = open_threads(argument[0]);
    struct trunk trunk = make_trunk(context, (size_t)atoi(argument[2]));
    double limit = atof(argument[3]), best = 0, begin = 0;
    struct plan *plan;
    must(backend->compile(context, &trunk.net, trunk.parameters, precision_of(argument[1]), &plan));
    for (int part = 0; part < 2 || seconds_now() - begin < limit; part++) {
        int calls = 0;
        double start = seconds_now(), now;
        do { /* parts of 0.2 s, the best one counts: the others were disturbed; the first one loads and does not count */
            must(views ? stored_views_forward(backend, context, &trunk.net, plan, views, trunk.count, trunk.images,
                                              trunk.outputs)
                       : backend->forward(plan, trunk.images, trunk.count, trunk.outputs));
            calls++;
            now = seconds_now();
        } while (now - start < 0.2);
        double rate = (double)trunk.count * calls / (now - start);
        best = part && rate > best ? rate : best;
        begin = part ? begin : now;
    }
    printf("%.6g\n", best);
    return 0;
}

static int time_trunk(char **argument)
{
    return time_forward(argument, NULL);
}

#define STORED_SIDE 300

static int time_stored(char **argument)
{
    size_t count = (size_t)atoi(argument[2]), bytes = STORED_SIDE * STORED_SIDE;
    uint8_t *pixels = allocate(count, bytes);
    uint64_t *row = allocate(count, sizeof *row);
    for (size_t i = 0; i < count * bytes; i++)
        pixels[i] = (uint8_t)philox(SEED, (uint32_t)i, 9, 0, 0).word[0];
    for (size_t i = 0; i < count; i++)
        row[i] = i;
    struct stored_views views = {.pixels = pixels,
                                 .stride_bytes = bytes,
                                 .pixel_side = STORED_SIDE,
                                 .row = row,
                                 .key = row,
                                 .augmentation = AUGMENT_W21,
                                 .view = VIEW_PLAIN};
    return time_forward(argument, &views);
}

static void write_floats(const char *folder, const char *name, const float *values, size_t count)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(values, sizeof *values, count, file) != count || fclose(file)) {
        fprintf(stderr, "bench_compute: cannot write %s\n", path);
        exit(1);
    }
}

/* What a peer needs to see whether it gets the same embeddings from the exported weights. */
static int export_trunk(char **argument)
{
    struct backend_context *context = open_threads("1");
    struct trunk trunk = make_trunk(context, 4);
    struct plan *plan;
    char path[4096];
    snprintf(path, sizeof path, "%s/trunk.safetensors", argument[0]);
    must(safetensors_save(path, &trunk.net, trunk.parameters));
    must(backend->compile(context, &trunk.net, trunk.parameters, PRECISION_FP32, &plan));
    must(backend->forward(plan, trunk.images, trunk.count, trunk.outputs));
    write_floats(argument[0], "images", trunk.images, trunk.count * 224 * 224);
    write_floats(argument[0], "embeddings", trunk.outputs, trunk.count * (size_t)trunk.net.outputs);
    return 0;
}

/* Embeddings by given weights of images that a peer chose. */
static int embed_images(char **argument)
{
    static struct net net;
    struct backend_context *context = open_threads("0");
    struct plan *plan;
    char path[4096];
    must(net_by_name(argument[0], 1, atoi(argument[2]), &net));
    size_t floats = (size_t)net.side * (size_t)net.side, count = 0;
    float *parameters = allocate(net_parameter_count(&net), sizeof(float)),
          *images = allocate(1024 * floats, sizeof(float));
    must(safetensors_load(argument[1], &net, parameters));
    snprintf(path, sizeof path, "%s/images", argument[3]);
    FILE *file = fopen(path, "rb");
    if (file) {
        count = fread(images, sizeof(float) * floats, 1024, file);
        fclose(file);
    }
    float *outputs = allocate((count + 1) * (size_t)net.outputs, sizeof(float));
    must(backend->compile(context, &net, parameters, PRECISION_FP32, &plan));
    must(backend->forward(plan, images, count, outputs));
    write_floats(argument[3], "embeddings", outputs, count * (size_t)net.outputs);
    printf("%zu\n", count);
    return 0;
}

/* --- training ----------------------------------------------------------------------------------------------------- */

struct training_run {
    struct training *training;
    struct trunk trunk;
    float *slope, *gradient, *moment1, *moment2;
    struct train_range range[NET_LAYERS_MAX]; /* one per layer */
    int ranges;
    uint32_t step;
};

static void hold(struct training_run *run)
{
    size_t offset = 0;
    for (int i = 0; i < run->trunk.net.layers; i++) {
        size_t count = layer_parameter_count(&run->trunk.net.layer[i]);
        if (count)
            run->range[run->ranges++] = (struct train_range){offset, count, 1};
        offset += count;
    }
    must(backend->train_hold(run->training, run->trunk.parameters, run->moment1, run->moment2));
}

static void train_step(struct training_run *run)
{
    struct train_pass pass = {.seed = SEED, .step = run->step++, .live_norm = 1};
    const struct adamw adamw = {.learning_rate = 1e-4, .weight_decay = 0.05, .step = run->step, .gradient_scale = 1};
    struct trunk *trunk = &run->trunk;
    if (backend->train_hold) {
        struct train_range *range = run->range;
        must(backend->train_forward(run->training, NULL, trunk->images, trunk->count, &pass, trunk->outputs));
        must(backend->train_backward(run->training, NULL, run->slope, 0, NULL, NULL));
        must(backend->train_update(run->training, range, run->ranges, &adamw));
        return;
    }
    must(backend->train_forward(run->training, trunk->parameters, trunk->images, trunk->count, &pass, trunk->outputs));
    must(backend->train_backward(run->training, trunk->parameters, run->slope, 0, run->gradient, NULL));
    adamw_update(&adamw, net_parameter_count(&trunk->net), run->gradient, trunk->parameters, run->moment1,
                 run->moment2);
}

/* The loss is a fixed weighted sum of the embedding: its gradient costs nothing. */
static struct training_run open_run(struct backend_context *context, size_t count)
{
    struct training_run run = {.trunk = make_trunk(context, count)};
    size_t parameters = net_parameter_count(&run.trunk.net), outputs = count * (size_t)run.trunk.net.outputs;
    run.slope = allocate(outputs, sizeof(float));
    run.gradient = allocate(parameters, sizeof(float));
    run.moment1 = allocate(parameters, sizeof(float));
    run.moment2 = allocate(parameters, sizeof(float));
    for (size_t i = 0; i < outputs; i++)
        run.slope[i] = (philox_uniform(philox(SEED, (uint32_t)i, 1, 0, 0).word[0]) - 0.5f) / (float)outputs;
    must(backend->open_training(context, &run.trunk.net, count, &run.training));
    if (backend->train_hold)
        hold(&run);
    return run;
}

static int time_train(char **argument)
{
    struct backend_context *context = open_threads(argument[0]);
    size_t count = (size_t)atoi(argument[1]);
    struct training_run run = open_run(context, count);
    double limit = atof(argument[2]), best = 0;
    train_step(&run);
    double begin = seconds_now();
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

static double free_mib(const struct net *net)
{
    struct backend_report report;
    if (!backend->report)
        exit(77); /* it computes on the processor */
    must(backend->report(net, PRECISION_BF16, 1, &report));
    return (double)report.device[0].free_bytes / 1048576;
}

/* What the device's runtime takes by itself behind an open plan or training: code of kernels, CUDA graphs. */
static int measure_memory(char **argument)
{
    struct backend_context *context = open_threads("0");
    size_t count = (size_t)atoi(argument[1]);
    struct training_run run;
    struct plan *plan = NULL;
    if (strcmp(argument[0], "train") == 0) {
        run = open_run(context, count);
    } else {
        run.trunk = make_trunk(context, count);
        must(backend->compile(context, &run.trunk.net, run.trunk.parameters, PRECISION_BF16, &plan));
    }
    double opened = free_mib(&run.trunk.net);
    for (int i = 0; i < 3; i++) { /* the graph is made in the second */
        if (plan)
            must(backend->forward(plan, run.trunk.images, count, run.trunk.outputs));
        else
            train_step(&run);
    }
    printf("%.6g\n", opened - free_mib(&run.trunk.net));
    return 0;
}

static int time_augment(char **argument)
{
    enum { PIXEL_SIDE = 300, SIDE = 224, VIEWS_AT_ONCE = 16 };
    enum augmentation kind = strcmp(argument[0], "w20") == 0 ? AUGMENT_W20 : AUGMENT_W21;
    uint8_t *pixels = allocate(PIXEL_SIDE * PIXEL_SIDE, 1);
    float *input = allocate(SIDE * SIDE, sizeof(float));
    struct augment_source source = {pixels, PIXEL_SIDE, 1};
    double limit = atof(argument[1]), best = 0, begin = seconds_now();
    uint32_t view = 0;
    for (uint32_t i = 0; i < PIXEL_SIDE * PIXEL_SIDE; i++)
        pixels[i] = (uint8_t)philox(SEED, i, 9, 0, 0).word[0];
    for (double last = begin, now; last - begin < limit; last = now) {
        for (int i = 0; i < VIEWS_AT_ONCE; i++)
            augment(kind, &source, SIDE, SEED, 1, view++, input);
        now = seconds_now();
        best = VIEWS_AT_ONCE / (now - last) > best ? VIEWS_AT_ONCE / (now - last) : best;
    }
    printf("%.6g\n", best);
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
    pool.heads.unit_length = 1;
    for (int a = 0; a < pool.schema.answers; a++)
        constant[a] = 10;
    if (with_votes) {
        make_votes(&pool);
        struct vote_rows rows = {pool.votes, (size_t)pool.schema.answers * 2, pool.row, count};
        must(likelihood_constant_fit(&pool.schema, &rows, LIKELIHOOD_START_LOWER, LIKELIHOOD_START_UPPER, constant));
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
                                .bias_rate = 0.03f,
                                .weight_decay = 0.1f,
                                .bagging = 1,
                                .batch = 64,
                                .epochs_max = 200,
                                .patience = 10};
}

static int time_head_fit(char **argument)
{
    int threads = atoi(argument[1]);
    struct backend_context *context = open_threads(argument[1]);
    struct pool pool = make_pool(argument[0], DISTINCT, threads, 1);
    struct fit_request request = fit_request_of(&pool, 0);
    struct fit_report report;
    double best = 0;
    request.epochs_max = 40; /* without validation rows a quarter of them is run, and then all rows are judged once */
    for (int repeat = 0; repeat < 3; repeat++) {
        double begin = seconds_now();
        must(backend->head_fit(context, &request, &pool.heads, &report));
        double rate = (double)report.epochs * DISTINCT / (seconds_now() - begin);
        best = rate > best ? rate : best;
    }
    printf("%.6g\n", best);
    return 0;
}

/* Mean over heads and validation rows, without dropout; by none of the backend's code. */
static double validation_loss(const struct pool *pool, const struct fit_request *request)
{
    double sum = 0;
    float alpha[SCHEMA_ANSWERS_MAX];
    for (int head = 0; head < pool->heads.count; head++)
        for (size_t i = 0; i < request->validation_count; i++) {
            uint64_t row = request->validation_row[i];
            head_concentrations(&pool->heads, head, pool->embedding + row * INPUTS, alpha);
            sum += likelihood_galaxy(&pool->schema, alpha, pool->votes + row * (size_t)pool->schema.answers);
        }
    return sum / (double)request->validation_count / pool->heads.count;
}

struct fit_10k {
    double seconds, loss;
};

/* Ends the program when the loss does not fall: a fast fit that learns nothing is not a fit. */
static struct fit_10k head_fit_10k(char **argument)
{
    struct backend_context *context = open_threads(argument[1]);
    struct pool pool = make_pool(argument[0], 10000, atoi(argument[2]), 1);
    struct fit_request request = fit_request_of(&pool, 500);
    struct fit_report report;
    double before = validation_loss(&pool, &request), begin = seconds_now();
    must(backend->head_fit(context, &request, &pool.heads, &report));
    struct fit_10k fit = {.seconds = seconds_now() - begin, .loss = validation_loss(&pool, &request)};
    fprintf(stderr, "bench_compute: %d epochs, the best one %d, loss on validation rows %.4f, %.4f at the start\n",
            report.epochs, report.best_epoch, fit.loss, before);
    if (!(fit.loss < before))
        must(error_set(ERROR_STATE, "the fit learned nothing: its loss is %.4f, at the start %.4f", fit.loss, before));
    return fit;
}

static int time_head_fit_10k(char **argument)
{
    printf("%.6g\n", head_fit_10k(argument).seconds);
    return 0;
}

static int loss_of_head_fit_10k(char **argument)
{
    printf("%.6g\n", head_fit_10k(argument).loss);
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

/* --- acquisition -------------------------------------------------------------------------------------------------- */

#define PASSES 30
#define STRIDE 32

/* Concentrations of one question: [answers][STRIDE] for the scan, [PASSES][answers] for the joint counts. */
static void make_question(int answers, uint32_t number, float *scan, float *joint)
{
    for (int a = 0; a < answers; a++)
        for (int t = 0; t < STRIDE; t++) {
            uint32_t word = philox(SEED, number, (uint32_t)(a * STRIDE + t), 6, 0).word[0];
            scan[a * STRIDE + t] = 1 + 100 * philox_uniform(word);
            if (t < PASSES)
                joint[t * answers + a] = scan[a * STRIDE + t];
        }
}

static int time_question(char **argument, int exact)
{
    int answers = atoi(argument[0]), votes = atoi(argument[1]);
    double limit = atof(argument[2]), best = 0, begin = seconds_now(), sum = 0;
    float scan[64][SCHEMA_PER_QUESTION * STRIDE], joint[64][SCHEMA_PER_QUESTION * PASSES];
    const struct head_kernels *kernels = head_kernels();
    for (uint32_t i = 0; i < 64; i++)
        make_question(answers, i, scan[i], joint[i]);
    for (double last = begin, now; last - begin < limit; last = now) {
        long calls = 0;
        do {
            struct information information =
                exact ? joint_information(joint[calls % 64], answers, answers, PASSES, votes)
                      : kernels->question(INFORMATION_VOTES, scan[calls % 64], answers, PASSES, STRIDE, votes);
            sum += information.total - information.expected;
            calls++;
            now = seconds_now();
        } while (now - last < 0.2);
        best = (double)calls / (now - last) > best ? (double)calls / (now - last) : best;
    }
    printf("%.6g\n", sum > 0 ? best : 0);
    return 0;
}

static int time_information(char **argument)
{
    return time_question(argument, 0);
}

static int time_joint(char **argument)
{
    return time_question(argument, 1);
}

/*
 * As the worker asks, with the defaults: a tenth held out, a tenth of the rest at random, the others drawn by score from a
 * shortlist of four a place, spread over 64 kinds, no two alike. Embeddings of neighbouring galaxies overlap, shifted, so that
 * they fit into 256 MB; the sky is 10,000 square degrees.
 */
#define OVERLAP_BYTES 256

static void draw_embeddings(uint16_t *embedding, size_t values)
{
    for (size_t i = 0; i < values; i += 2) {
        float pair[2];
        struct philox random = philox(SEED, (uint32_t)i, 8, 0, 0);
        philox_normal(random.word[0], random.word[1], pair);
        embedding[i] = half_from_float(pair[0]);
        embedding[i + 1] = half_from_float(pair[1]);
    }
}

static void draw_sky(uint64_t galaxies, float *score, float (*unit)[3])
{
    for (uint64_t i = 0; i < galaxies; i++) {
        struct philox random = philox(SEED, (uint32_t)i, 7, 0, 0);
        score[i] = philox_uniform(random.word[0]);
        place_on_sky(100 + 100 * (double)philox_uniform(random.word[1]),
                     100 * (double)philox_uniform(random.word[2]) - 50, unit[i]);
    }
}

static int time_select(char **argument)
{
    struct backend_context *context = open_threads("0");
    int diverse = atoi(argument[2]);
    uint64_t galaxies = (uint64_t)atol(argument[1]), sample[CLUSTERS_SAMPLE_MAX];
    struct select_request request = {.seed = SEED,
                                     .queue_size = atoi(argument[0]),
                                     .holdout_share = 0.1f,
                                     .random_share = 0.1f,
                                     .power = 1,
                                     .shortlist = diverse ? 4 : 1,
                                     .cluster_share = diverse ? 0.1 : 0};
    float *score = allocate(galaxies, sizeof *score), (*unit)[3] = allocate(galaxies, sizeof *unit);
    struct selected *selected = allocate((size_t)request.queue_size, sizeof *selected);
    size_t values = (size_t)galaxies * OVERLAP_BYTES / 2 + INPUTS, sampled = 0, count, chosen;
    uint16_t *embedding = allocate(values, sizeof *embedding);
    draw_embeddings(embedding, values);
    draw_sky(galaxies, score, unit);
    struct choosing choosing = {
        .backend = backend,
        .context = context,
        .rows = {embedding, OVERLAP_BYTES, 1, INPUTS},
        .seed = SEED,
        .wanted = 64,
        .outlier_distance = 4
    };
    struct selector *selector;
    struct candidate *candidates;
    double begin = seconds_now();
    for (uint64_t i = 0; i < galaxies && diverse && sampled < CLUSTERS_SAMPLE_MAX; i++)
        if (choosing_is_sampled(SEED, i, galaxies, CLUSTERS_SAMPLE_MAX * 15 / 16))
            sample[sampled++] = i;
    if (diverse) {
        must(choosing_open(&choosing, sample, sampled));
        request.duplicates = (struct duplicate_rule){2, 0.3 * (double)choosing.clusters.scale};
    }
    must(selector_new(&request, &selector));
    for (uint64_t i = 0; i < galaxies; i++)
        selector_offer(selector, i + 1,
                       i % 20 == 0   ? SPLIT_VALIDATION
                       : i % 20 == 1 ? SPLIT_GATE
                                     : SPLIT_TRAIN,
                       0, score[i]);
    must(selector_candidates(selector, &candidates, &count));
    if (diverse)
        must(choosing_place(&choosing, candidates, count));
    for (size_t i = 0; i < count && diverse; i++)
        memcpy(candidates[i].place.position, unit[candidates[i].key - 1], sizeof *unit);
    must(selector_finish(selector, selected, &chosen));
    double seconds = seconds_now() - begin;
    size_t outcomes[5] = {0};
    for (size_t i = 0; i < count; i++)
        outcomes[candidates[i].outcome]++;
    fprintf(stderr, "bench_compute: %zu of %zu candidates, %zu like another, %zu of a kind that had its share\n",
            chosen, count, outcomes[OUTCOME_DUPLICATE], outcomes[OUTCOME_CLUSTER]);
    printf("%.6g\n", chosen + 100 >= (size_t)request.queue_size ? seconds : -1);
    selector_free(selector);
    choosing_close(&choosing);
    return 0;
}

static const struct verb {
    const char *name;
    int arguments;
    int (*run)(char **argument);
} verbs[] = {
    {"trunk",             4, time_trunk          },
    {"stored",            4, time_stored         },
    {"export",            1, export_trunk        },
    {"embed",             4, embed_images        },
    {"train",             3, time_train          },
    {"memory",            2, measure_memory      },
    {"augment",           2, time_augment        },
    {"head-fit",          2, time_head_fit       },
    {"head-fit-10k",      3, time_head_fit_10k   },
    {"head-fit-10k-loss", 3, loss_of_head_fit_10k},
    {"head-score",        4, time_head_score     },
    {"rerank",            4, time_rerank         },
    {"information",       3, time_information    },
    {"joint",             3, time_joint          },
    {"select",            3, time_select         },
};

int main(int count, char **argument)
{
    for (size_t v = 0; v < sizeof verbs / sizeof *verbs; v++)
        if (count == 2 + verbs[v].arguments && !strcmp(argument[1], verbs[v].name))
            return verbs[v].run(argument + 2);
    fprintf(stderr, "usage: bench_compute VERB ARGUMENTS...; compute.c lists them\n");
    return 64;
}
