/*
 * Times what the cpu backend computes, for the scripts of tests/bench: one figure per call, a number on standard output.
 *   compute trunk THREADS BATCH fp32|bf16 SECONDS     images/s of EfficientNet-B0, 1 x 224 x 224
 *   compute train THREADS BATCH SECONDS               images/s of whole steps (forward, backward, AdamW)
 *   compute train-peak THREADS BATCH                  MiB of memory two such steps take
 *   compute head-fit THREADS                          galaxies x heads per second and thread, forward and backward
 *   compute head-fit-10k THREADS                      seconds to fit 10,000 labelled galaxies to convergence
 *   compute head-score THREADS VOTES GALAXIES         galaxies/s, T = 30, 34 answers, entropies at VOTES votes due
 * Not a test: nothing is compared here.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"
#include "cpu/backend_cpu.h"
#include "model/optimizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define SIDE     224
#define OUTPUTS  1280
#define FIT_ROWS 10000

static int give_up(void)
{
    fprintf(stderr, "compute: %s\n", error_message());
    return 1;
}

static float *random_floats(size_t count, uint32_t stream)
{
    float *values = malloc(count * sizeof *values);
    for (size_t i = 0; values && i < count; i++)
        values[i] = philox_uniform(philox(1, (uint32_t)i, stream, (uint32_t)(i >> 32), 0).word[0]);
    return values;
}

/* --- nets --------------------------------------------------------------------------------------------------------- */

struct network {
    struct net net;
    struct backend_context *context;
    size_t batch, count;
    float *parameters, *images, *outputs;
};

static int open_network(struct network *network, int threads, size_t batch)
{
    net_efficientnet_b0(1, SIDE, &network->net);
    network->batch = batch;
    network->count = net_parameter_count(&network->net);
    network->parameters = malloc(network->count * sizeof(float));
    network->images = random_floats(batch * SIDE * SIDE, 1);
    network->outputs = malloc(batch * OUTPUTS * sizeof(float));
    net_random_parameters(&network->net, 1, network->parameters);
    return backend_cpu.open(threads, &network->context);
}

static int time_trunk(int threads, size_t batch, enum precision precision, double seconds)
{
    static struct network network;
    struct plan *plan;
    if (open_network(&network, threads, batch) ||
        backend_cpu.compile(network.context, &network.net, network.parameters, precision, &plan) ||
        backend_cpu.forward(plan, network.images, batch, network.outputs))
        return give_up();
    size_t images = 0;
    double started_s = clock_s(), elapsed_s = 0;
    for (; elapsed_s < seconds; elapsed_s = clock_s() - started_s, images += batch)
        if (backend_cpu.forward(plan, network.images, batch, network.outputs))
            return give_up();
    printf("%.3f\n", (double)images / elapsed_s);
    return 0;
}

struct stepping {
    struct network network;
    struct training *training;
    float *gradients, *moment1, *moment2, *slopes;
    uint64_t step;
};

static int step(struct stepping *stepping)
{
    struct network *network = &stepping->network;
    const struct train_pass pass = {.step = (uint32_t)stepping->step, .live_norm = 1};
    const struct adamw adamw = {1e-3, 0.05, ++stepping->step, 1};
    int result = backend_cpu.train_forward(stepping->training, network->parameters, network->images, network->batch,
                                           &pass, network->outputs);
    if (!result)
        result = backend_cpu.train_backward(stepping->training, network->parameters, stepping->slopes, 0,
                                            stepping->gradients, NULL);
    if (!result)
        adamw_update(&adamw, network->count, stepping->gradients, network->parameters, stepping->moment1,
                     stepping->moment2);
    return result;
}

static int open_stepping(struct stepping *stepping, int threads, size_t batch)
{
    struct network *network = &stepping->network;
    int result = open_network(network, threads, batch);
    if (!result)
        result = backend_cpu.open_training(network->context, &network->net, batch, &stepping->training);
    stepping->gradients = calloc(network->count, sizeof(float));
    stepping->moment1 = calloc(network->count, sizeof(float));
    stepping->moment2 = calloc(network->count, sizeof(float));
    stepping->slopes = random_floats(batch * OUTPUTS, 2);
    return result ? result : step(stepping);
}

static int time_training(int threads, size_t batch, double seconds)
{
    static struct stepping stepping;
    if (open_stepping(&stepping, threads, batch))
        return give_up();
    size_t images = 0;
    double started_s = clock_s(), elapsed_s = 0;
    for (; elapsed_s < seconds; elapsed_s = clock_s() - started_s, images += batch)
        if (step(&stepping))
            return give_up();
    printf("%.3f\n", (double)images / elapsed_s);
    return 0;
}

static int measure_training(int threads, size_t batch)
{
    static struct stepping stepping;
    struct rusage usage;
    if (open_stepping(&stepping, threads, batch) || step(&stepping))
        return give_up();
    getrusage(RUSAGE_SELF, &usage);
    printf("%.0f\n", (double)usage.ru_maxrss / 1024);
    return 0;
}

/* --- heads -------------------------------------------------------------------------------------------------------- */

struct headed {
    struct schema schema;
    struct head_set heads;
    struct backend_context *context;
    uint16_t *embedding, *votes;
    uint64_t *row;
};

/* Embeddings whose first values decide the votes, so that there is something to fit. */
static int open_heads(struct headed *headed, int threads, int heads, size_t rows)
{
    if (schema_load(TRIAGE_SOURCE_FOLDER "/etc/schemas/decals_dr5.ini", &headed->schema) ||
        head_set_new(heads, OUTPUTS, headed->schema.answers, &headed->heads) ||
        backend_cpu.open(threads, &headed->context))
        return give_up();
    size_t answers = (size_t)headed->schema.answers;
    headed->embedding = malloc(rows * OUTPUTS * sizeof *headed->embedding);
    headed->votes = calloc(rows * answers, sizeof *headed->votes);
    headed->row = malloc(rows * sizeof *headed->row);
    if (!headed->embedding || !headed->votes || !headed->row)
        return give_up();
    for (size_t r = 0; r < rows; r++) {
        headed->row[r] = r;
        for (uint32_t i = 0; i < OUTPUTS; i += 4) {
            struct philox random = philox(1, i, (uint32_t)r, 0, 0);
            for (uint32_t j = 0; j < 4; j++)
                headed->embedding[r * OUTPUTS + i + j] = half_from_float(philox_uniform(random.word[j]) - 0.5f);
        }
        for (size_t a = 0; a < answers; a++)
            headed->votes[r * answers + a] = (uint16_t)(8 * half_to_float(headed->embedding[r * OUTPUTS + a]) + 5);
    }
    headed->heads.model = 1;
    headed->heads.dropout = 0.2f;
    return 0;
}

static int fit(struct headed *headed, size_t train, size_t validation, int epochs, int patience, double *ret_seconds,
               struct fit_report *report)
{
    struct fit_request request = {.schema = &headed->schema,
                                  .embedding = headed->embedding,
                                  .embedding_stride_bytes = OUTPUTS * sizeof(uint16_t),
                                  .votes = headed->votes,
                                  .votes_stride_bytes = (size_t)headed->schema.answers * sizeof(uint16_t),
                                  .train_row = headed->row,
                                  .train_count = train,
                                  .validation_row = headed->row + train,
                                  .validation_count = validation,
                                  .seed = 1,
                                  .learning_rate = 1e-3f,
                                  .weight_decay = 0.1f,
                                  .batch = 128,
                                  .epochs_max = epochs,
                                  .patience = patience};
    double started_s = clock_s();
    int result = backend_cpu.head_fit(headed->context, &request, &headed->heads, report);
    *ret_seconds = clock_s() - started_s;
    return result;
}

static int time_head_fit(int threads)
{
    static struct headed headed;
    struct fit_report report;
    double seconds;
    enum { EPOCHS = 10, ROWS = 4096 };
    if (open_heads(&headed, threads, threads, ROWS) || fit(&headed, ROWS, 0, EPOCHS, EPOCHS, &seconds, &report))
        return give_up();
    printf("%.0f\n", (double)ROWS * report.epochs / seconds);
    return 0;
}

static int time_convergence(int threads)
{
    static struct headed headed;
    struct fit_report report;
    double seconds;
    if (open_heads(&headed, threads, 1, FIT_ROWS + FIT_ROWS / 10) ||
        fit(&headed, FIT_ROWS, FIT_ROWS / 10, 200, 5, &seconds, &report))
        return give_up();
    fprintf(stderr, "%d epochs, validation loss %.4f\n", report.epochs, (double)report.validation_loss);
    printf("%.3f\n", seconds);
    return 0;
}

static int time_head_score(int threads, int votes_due, size_t galaxies)
{
    static struct headed headed;
    enum { BLOCK = 4096 };
    uint16_t due[BLOCK];
    if (open_heads(&headed, threads, 5, BLOCK))
        return give_up();
    float *weights = random_floats((size_t)headed.heads.count * OUTPUTS * (size_t)headed.schema.answers, 3);
    for (size_t i = 0; i < (size_t)headed.heads.count * OUTPUTS * (size_t)headed.schema.answers; i++)
        headed.heads.weight[i] = 0.1f * (weights[i] - 0.5f);
    for (int i = 0; i < BLOCK; i++)
        due[i] = (uint16_t)votes_due;
    struct score_request request = {.heads = &headed.heads,
                                    .schema = &headed.schema,
                                    .embedding = headed.embedding,
                                    .embedding_stride_bytes = OUTPUTS * sizeof(uint16_t),
                                    .passes = 30,
                                    .seed = 1,
                                    .kind = votes_due == 1 ? INFORMATION_ONE_VOTE : INFORMATION_VOTES,
                                    .votes_due = due,
                                    .reducer = REDUCE_INFORMATION};
    request.output = malloc(BLOCK * information_row_floats(&headed.schema) * sizeof(float));
    double started_s = clock_s();
    for (size_t done = 0; done < galaxies; done += request.count) {
        request.count = galaxies - done < BLOCK ? galaxies - done : BLOCK;
        if (backend_cpu.head_score(headed.context, &request, NULL, NULL))
            return give_up();
    }
    printf("%.0f\n", (double)galaxies / (clock_s() - started_s));
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    int threads = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 0;
    double third = argc > 3 ? strtod(argv[3], NULL) : 0, fourth = argc > 4 ? strtod(argv[4], NULL) : 0;
    if (strcmp(what, "trunk") == 0 && argc == 6)
        return time_trunk(threads, (size_t)third, strcmp(argv[4], "bf16") == 0 ? PRECISION_BF16 : PRECISION_FP32,
                          strtod(argv[5], NULL));
    if (strcmp(what, "train") == 0 && argc == 5)
        return time_training(threads, (size_t)third, fourth);
    if (strcmp(what, "train-peak") == 0 && argc == 4)
        return measure_training(threads, (size_t)third);
    if (strcmp(what, "head-fit") == 0)
        return time_head_fit(threads);
    if (strcmp(what, "head-fit-10k") == 0)
        return time_convergence(threads);
    if (strcmp(what, "head-score") == 0 && argc == 5)
        return time_head_score(threads, (int)third, (size_t)fourth);
    fprintf(stderr, "usage: see the top of compute.c\n");
    return 64;
}
