/*
 * Times the cpu backend through model/backend.h and prints one number per run: what ./bench trunk, train and heads ask for.
 * Comparing, repeating and peers are the scripts' business.
 *
 *   bench_compute trunk THREADS fp32|bf16 BATCH SECONDS   images/s, EfficientNet-B0, 1 channel, 224 px
 *   bench_compute train THREADS BATCH SECONDS             images/s of whole steps, AdamW included; then peak MiB
 *   bench_compute head-fit SCHEMA THREADS                 galaxies through one head, both ways, /s/thread
 *   bench_compute head-fit-10k SCHEMA THREADS             seconds: 10,000 labels to convergence
 *   bench_compute head-score SCHEMA THREADS VOTES SECONDS galaxies/s/thread, 30 passes over 5 heads
 *   bench_compute rerank SCHEMA THREADS VOTES GALAXIES    seconds
 */
#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"
#include "cpu/backend_cpu.h"
#include "cpu/head_kernels.h"
#include "model/likelihood.h"

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
    must(backend->compile(context, &trunk.net, trunk.parameters, &plan));
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

int main(int count, char **argument)
{
    (void)count;
    return time_trunk(argument + 2);
}
