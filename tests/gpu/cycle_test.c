/*
 * The whole cuda backend on the stand-in, as a cycle of the service uses it: 64 simulated galaxies at 32 pixels are embedded by
 * EfficientNet-B0, heads are fitted on the votes of 48 of them, all are scored and ranked; and one step of training with its update.
 * Compared with the cpu backend; the same bits for every order that streams, blocks and threads allow; nothing is allocated after a job
 * is open and nothing is left when it is closed; a lost device is an error at every place, and opening again goes on.
 * Built with gpu_emulated (AddressSanitizer), with gpu_traced (every access of every kernel), and for a device, where compute-sanitizer
 * watches it (device.sh).
 */
#include "base/error.h"
#include "base/half.h"
#include "cpu/backend_cpu.h"
#include "model/optimizer.h"
#include "tests/support/backend_under_test.h"
#include "tests/support/small_nets.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/gpu/books.h"

#define GALAXIES  64
#define LABELLED  48
#define SIDE      32
#define EMBEDDING 1280
#define ANSWERS   5
#define PASSES    6
#define HEADS     2
#define SEED      20240229u

static struct net net;
static struct schema schema;
static float *parameters, *images;
static uint16_t votes[GALAXIES][ANSWERS];

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(net_by_name("efficientnet_b0", 1, SIDE, &net), 0);
    assert_int_equal(output_floats(&net), EMBEDDING);
    small_schema(&schema, 2, (int[]){3, 2}, (int[]){-1, 1});
    images = random_images(&net, GALAXIES, 1);
    parameters = random_parameters(&net);
    for (int g = 0; g < GALAXIES; g++)
        for (int a = 0; a < ANSWERS; a++)
            votes[g][a] = (uint16_t)(40 * uniform(7, (size_t)(g * ANSWERS + a)));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(images);
    free(parameters);
    return 0;
}

/* --- the cycle -------------------------------------------------------------------------------------------------------------- */

struct cycle {
    float *embedding;      /* [GALAXIES][EMBEDDING] */
    uint16_t *half;        /* the same in fp16; of the backend whose cycle it is */
    struct head_set heads; /* fitted */
    float *information;    /* [GALAXIES][information_row_floats()] */
    float *calibrated;     /* parameters */
};

static void free_cycle(struct cycle *cycle)
{
    free(cycle->embedding);
    free(cycle->half);
    free(cycle->information);
    free(cycle->calibrated);
    head_set_free(&cycle->heads);
}

static int embed(const struct backend *backend, struct backend_context *context, struct cycle *cycle)
{
    struct plan *plan = NULL;
    memcpy(cycle->calibrated, parameters, net_parameter_count(&net) * sizeof(float));
    int result = backend->calibrate(context, &net, images, GALAXIES / 4, cycle->calibrated);
    if (!result)
        result = backend->compile(context, &net, cycle->calibrated, PRECISION_FP32, &plan);
    standin_close_allocation(1);
    if (!result) /* in two parts, the second of which does not fill a batch */
        result = backend->forward(plan, images, 37, cycle->embedding);
    if (!result)
        result = backend->forward(plan, images + (size_t)37 * SIDE * SIDE, GALAXIES - 37,
                                  cycle->embedding + (size_t)37 * EMBEDDING);
    standin_close_allocation(0);
    backend->free_plan(plan);
    return result;
}

static void start_heads(struct cycle *cycle, const uint16_t *half)
{
    const float constant[ANSWERS] = {2, 3, 2, 4, 4};
    assert_int_equal(head_set_new(HEADS, EMBEDDING, ANSWERS, &cycle->heads), 0);
    cycle->heads.dropout = 0.2f;
    cycle->heads.model = 3;
    cycle->heads.unit_length = 1;
    head_set_standardise(&cycle->heads, half, EMBEDDING * sizeof *half, NULL, LABELLED);
    head_set_reset(&cycle->heads, constant);
}

static int fit(const struct backend *backend, struct backend_context *context, struct cycle *cycle,
               const uint16_t *half)
{
    uint64_t row[GALAXIES];
    struct fit_report report;
    for (uint64_t g = 0; g < GALAXIES; g++)
        row[g] = g;
    struct fit_request request = {.schema = &schema,
                                  .embedding = half,
                                  .embedding_stride_bytes = EMBEDDING * sizeof *half,
                                  .votes = votes[0],
                                  .votes_stride_bytes = sizeof votes[0],
                                  .train_row = row,
                                  .train_count = LABELLED,
                                  .seed = SEED,
                                  .learning_rate = 0.003f,
                                  .bias_rate = 0.03f,
                                  .weight_decay = 0.01f,
                                  .bagging = 1,
                                  .batch = 24,
                                  .epochs_max = 16, /* a quarter of it, without validation */
                                  .patience = 16};
    return backend->head_fit(context, &request, &cycle->heads, &report);
}

static int score(const struct backend *backend, struct backend_context *context, struct cycle *cycle,
                 const uint16_t *half)
{
    uint16_t due[GALAXIES];
    for (int g = 0; g < GALAXIES; g++)
        due[g] = (uint16_t)(1 + g % 40);
    struct score_request request = {.heads = &cycle->heads,
                                    .schema = &schema,
                                    .embedding = half,
                                    .embedding_stride_bytes = EMBEDDING * sizeof *half,
                                    .count = GALAXIES,
                                    .passes = PASSES,
                                    .seed = SEED,
                                    .kind = INFORMATION_VOTES,
                                    .votes_due = due,
                                    .reducer = REDUCE_INFORMATION,
                                    .output = cycle->information};
    return backend->head_score(context, &request, NULL, NULL);
}

/* half NULL = its own embeddings. */
static int run_cycle(const struct backend *backend, const uint16_t *half, struct cycle *cycle)
{
    struct backend_context *context = NULL;
    *cycle = (struct cycle){.embedding = calloc(GALAXIES * EMBEDDING, sizeof(float)),
                            .half = calloc(GALAXIES * EMBEDDING, sizeof(uint16_t)),
                            .information = calloc((size_t)(GALAXIES * information_row_floats(&schema)), sizeof(float)),
                            .calibrated = malloc(net_parameter_count(&net) * sizeof(float))};
    int result = backend->open(2, 1, &context);
    if (!result)
        result = embed(backend, context, cycle);
    for (int i = 0; !result && i < GALAXIES * EMBEDDING; i++)
        cycle->half[i] = half_from_float(cycle->embedding[i]);
    half = half ? half : cycle->half;
    if (!result) {
        start_heads(cycle, half);
        result = fit(backend, context, cycle, half);
    }
    if (!result)
        result = score(backend, context, cycle, half);
    backend->close(context);
    return result;
}

/* Galaxies by score, highest first. */
static void rank(const struct cycle *cycle, int order[GALAXIES])
{
    int stride = information_row_floats(&schema);
    for (int g = 0; g < GALAXIES; g++) {
        float mine = cycle->information[g * stride] - cycle->information[g * stride + 1];
        int place = 0;
        for (int other = 0; other < GALAXIES; other++) {
            float theirs = cycle->information[other * stride] - cycle->information[other * stride + 1];
            place += theirs > mine || (theirs == mine && other < g);
        }
        order[place] = g;
    }
}

static void assert_close(const float *have, const float *want, size_t count, double allowed, const char *what)
{
    double error = relative_error(have, want, count);
    if (!(error <= allowed))
        fail_msg("%s: error %g, allowed %g", what, error, allowed);
}

static void a_cycle_agrees_with_the_processor(void **state)
{
    struct cycle have, want;
    int have_order[GALAXIES], want_order[GALAXIES], stride = information_row_floats(&schema), moved = 0;
    (void)state;
#ifndef TEST_DEVICE
    uint64_t before = standin_operations();
#endif
    assert_int_equal(run_cycle(BACKEND_UNDER_TEST, NULL, &have), 0);
#ifndef TEST_DEVICE
    assert_true(standin_operations() > before + 100); /* not on the processor behind our back */
#endif
    assert_int_equal(run_cycle(&backend_cpu, have.half, &want), 0);
    assert_close(have.calibrated, want.calibrated, net_parameter_count(&net), 1e-4, "calibration");
    assert_close(have.embedding, want.embedding, GALAXIES * EMBEDDING, 1e-3, "embeddings");
    assert_close(have.heads.weight, want.heads.weight, (size_t)HEADS * ANSWERS * EMBEDDING, 1e-3,
                 "weights of the heads");
    for (int column = 0; column < stride; column++)
        for (int g = 0; g < GALAXIES; g++) {
            float a = have.information[g * stride + column], b = want.information[g * stride + column];
            if (!(fabsf(a - b) <= 1e-3f * (1 + fabsf(b))))
                fail_msg("galaxy %d, column %d: %g, expected %g", g, column, (double)a, (double)b);
        }
    rank(&have, have_order);
    rank(&want, want_order);
    for (int g = 0; g < GALAXIES / 4; g++) { /* the head of the queue: neighbours may change places, no more */
        int near = 0;
        for (int other = g - 2; other <= g + 2; other++)
            near |= other >= 0 && have_order[g] == want_order[other];
        moved += !near;
    }
    assert_int_equal(moved, 0);
    free_cycle(&have);
    free_cycle(&want);
    assert_clean();
}

#ifndef TEST_TRACED
static void the_same_bits_in_every_order(void **state)
{
    struct cycle first, again;
    (void)state;
    standin_set_seed(1);
    assert_int_equal(run_cycle(BACKEND_UNDER_TEST, NULL, &first), 0);
    for (uint64_t seed = 0; seed < 3; seed += 2) {
        standin_set_seed(seed);
        assert_int_equal(run_cycle(BACKEND_UNDER_TEST, NULL, &again), 0);
        assert_memory_equal(again.embedding, first.embedding, GALAXIES * EMBEDDING * sizeof(float));
        assert_memory_equal(again.heads.shift, first.heads.shift, head_set_floats(&first.heads) * sizeof(float));
        assert_memory_equal(again.information, first.information,
                            (size_t)(GALAXIES * information_row_floats(&schema)) * sizeof(float));
        free_cycle(&again);
    }
    standin_set_seed(1);
    free_cycle(&first);
    assert_clean();
}

#endif

/* The kernels of the other type of maps: near float's embeddings (random weights: precision_test.c), and not the same. */
static void a_plan_in_bfloat16(void **state)
{
    enum { COUNT = 5 };
    struct backend_context *context = NULL;
    struct plan *plan = NULL;
    float *embedding[2] = {malloc(COUNT * EMBEDDING * sizeof(float)), malloc(COUNT * EMBEDDING * sizeof(float))};
    (void)state;
    assert_int_equal(BACKEND_UNDER_TEST->open(2, 1, &context), 0);
    assert_int_equal(BACKEND_UNDER_TEST->calibrate(context, &net, images, GALAXIES / 4, parameters), 0);
    for (int i = 0; i < 2; i++) {
        enum precision precision = i ? PRECISION_BF16 : PRECISION_FP32;
        assert_int_equal(BACKEND_UNDER_TEST->compile(context, &net, parameters, precision, &plan), 0);
        assert_int_equal(BACKEND_UNDER_TEST->forward(plan, images, COUNT, embedding[i]), 0);
        BACKEND_UNDER_TEST->free_plan(plan);
    }
    double error = relative_error(embedding[1], embedding[0], COUNT * EMBEDDING);
    if (!(error > 1e-4 && error < 0.15))
        fail_msg("bfloat16 is %g from float", error);
    BACKEND_UNDER_TEST->close(context);
    free(embedding[0]);
    free(embedding[1]);
    assert_clean();
}

/* --- another net ---------------------------------------------------------------------------------------------------------------- */

enum { PLAIN_IMAGES = 5, PLAIN_SIDE = 16, PLAIN_OUTPUTS = 10 };

/* Outputs in float and bfloat16, and the gradients of both parameters and images. */
struct plain {
    float outputs[2][PLAIN_IMAGES * PLAIN_OUTPUTS], images[PLAIN_IMAGES * PLAIN_SIDE * PLAIN_SIDE], *gradients;
};

static void run_plain(const struct backend *backend, int precisions, struct plain *plain)
{
    struct backend_context *context = NULL;
    struct training *training = NULL;
    struct plan *plan = NULL;
    struct train_pass pass = {.seed = SEED, .step = 1, .live_norm = 1};
    struct net of;
    float slopes[PLAIN_IMAGES * PLAIN_OUTPUTS], trained[PLAIN_IMAGES * PLAIN_OUTPUTS];
    plain_net(&of, 1, PLAIN_SIDE, PADDING_SAME);
    assert_int_equal(output_floats(&of), PLAIN_OUTPUTS);
    float *values = random_parameters(&of), *input = random_images(&of, PLAIN_IMAGES, 1);
    for (size_t i = 0; i < PLAIN_IMAGES * PLAIN_OUTPUTS; i++)
        slopes[i] = uniform(3, i) - 0.5f;
    plain->gradients = calloc(net_parameter_count(&of), sizeof(float));
    assert_int_equal(backend->open(2, 1, &context), 0);
    for (int i = 0; i < precisions; i++) {
        assert_int_equal(backend->compile(context, &of, values, i ? PRECISION_BF16 : PRECISION_FP32, &plan), 0);
        assert_int_equal(backend->forward(plan, input, PLAIN_IMAGES, plain->outputs[i]), 0);
        backend->free_plan(plan);
    }
    assert_int_equal(backend->open_training(context, &of, PLAIN_IMAGES, &training), 0);
    assert_int_equal(backend->train_forward(training, values, input, PLAIN_IMAGES, &pass, trained), 0);
    assert_int_equal(backend->train_backward(training, values, slopes, 0, plain->gradients, plain->images), 0);
    backend->close_training(training);
    backend->close(context);
    free(values);
    free(input);
}

/* The kernels that EfficientNet has no use for: max pooling, and those that take one channel at a time, for 9 and 10 of them. */
static void a_net_with_max_pooling_and_odd_channels(void **state)
{
    static struct plain have, want;
    struct net of;
    (void)state;
    plain_net(&of, 1, PLAIN_SIDE, PADDING_SAME);
    run_plain(BACKEND_UNDER_TEST, 2, &have);
    run_plain(&backend_cpu, 1, &want);
    assert_close(have.outputs[0], want.outputs[0], PLAIN_IMAGES * PLAIN_OUTPUTS, 1e-5, "outputs");
    assert_close(have.outputs[1], want.outputs[0], PLAIN_IMAGES * PLAIN_OUTPUTS, 0.05, "outputs in bfloat16");
    assert_close(have.gradients, want.gradients, net_parameter_count(&of), 1e-4, "gradients");
    assert_close(have.images, want.images, PLAIN_IMAGES * PLAIN_SIDE * PLAIN_SIDE, 1e-4, "gradients of the images");
    free(have.gradients);
    free(want.gradients);
    assert_clean();
}

/* --- training ------------------------------------------------------------------------------------------------------------------- */

struct step {
    float *outputs, *gradients, *values, *after;
};

/* One pass, its gradients, AdamW on the host, and the outputs after it. */
static int run_step(const struct backend *backend, struct step *step)
{
    enum { BATCH = 6 };
    size_t count = net_parameter_count(&net), bytes = BATCH * EMBEDDING * sizeof(float);
    struct backend_context *context = NULL;
    struct training *training = NULL;
    struct train_pass pass = {.seed = SEED, .step = 1, .live_norm = 1};
    float *slopes = malloc(bytes), *moments = calloc(2 * count, sizeof(float));
    *step = (struct step){malloc(bytes), calloc(count, sizeof(float)), malloc(count * sizeof(float)), malloc(bytes)};
    memcpy(step->values, parameters, count * sizeof(float));
    for (size_t i = 0; i < BATCH * EMBEDDING; i++)
        slopes[i] = uniform(3, i) - 0.5f;
    int result = backend->open(2, 1, &context);
    if (!result)
        result = backend->open_training(context, &net, BATCH + 2, &training);
    standin_close_allocation(1);
    if (!result)
        result = backend->train_forward(training, step->values, images, BATCH, &pass, step->outputs);
    if (!result)
        result = backend->train_backward(training, step->values, slopes, 0, step->gradients, NULL);
    struct adamw adamw = {1e-4, 0.01, 1, 1};
    adamw_update(&adamw, count, step->gradients, step->values, moments, moments + count);
    pass.step = 2;
    if (!result)
        result = backend->train_forward(training, step->values, images, BATCH, &pass, step->after);
    standin_close_allocation(0);
    backend->close_training(training);
    backend->close(context);
    free(slopes);
    free(moments);
    return result;
}

static void free_step(struct step *step)
{
    free(step->outputs);
    free(step->gradients);
    free(step->values);
    free(step->after);
}

static void a_step_of_training(void **state)
{
    struct step have, again, want;
    (void)state;
    size_t count = net_parameter_count(&net);
    assert_int_equal(run_step(BACKEND_UNDER_TEST, &have), 0);
    assert_int_equal(run_step(&backend_cpu, &want), 0);
    assert_close(have.outputs, want.outputs, 6 * EMBEDDING, 1e-3, "outputs");
    assert_close(have.gradients, want.gradients, count, 2e-3, "gradients");
    assert_memory_not_equal(have.after, have.outputs, 6 * EMBEDDING * sizeof(float));
    standin_set_seed(5);
    assert_int_equal(run_step(BACKEND_UNDER_TEST, &again), 0);
    standin_set_seed(1);
    assert_memory_equal(again.gradients, have.gradients, count * sizeof(float));
    assert_memory_equal(again.after, have.after, 6 * EMBEDDING * sizeof(float));
    free_step(&have);
    free_step(&again);
    free_step(&want);
    assert_clean();
}

#if !defined TEST_TRACED && !defined TEST_DEVICE
/* --- what can go wrong ---------------------------------------------------------------------------------------------------------- */

/* The device is lost after any number of operations: an error that says so, no crash, and a new start works. */
static void a_lost_device_is_an_error_everywhere(void **state)
{
    static const uint64_t places[] = {0, 1, 2, 7, 40, 100, 150};
    struct cycle cycle;
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        standin_lose_device_after(places[i]);
        int result = run_cycle(BACKEND_UNDER_TEST, NULL, &cycle);
        if (result != ERROR_UNAVAILABLE)
            fail_msg("lost after %d operations: result %d (%s)", (int)places[i], result, error_message());
        if (!strstr(error_message(), "device is lost"))
            fail_msg("lost after %d operations, not said: %s", (int)places[i], error_message());
        free_cycle(&cycle);
        standin_restore_device();
        assert_clean();
    }
    assert_int_equal(run_cycle(BACKEND_UNDER_TEST, NULL, &cycle), 0);
    free_cycle(&cycle);
    assert_clean();
}

static void no_driver_is_an_error(void **state)
{
    struct backend_context *context = NULL;
    (void)state;
    standin_set_devices(0);
    assert_int_equal(BACKEND_UNDER_TEST->open(1, 1, &context), ERROR_UNAVAILABLE);
    assert_non_null(strstr(error_message(), "driver"));
    standin_set_devices(1);
    assert_clean();
}

/* A card with hardly any memory: an error that says how much is needed. With 2 GB everything fits. */
static void memory_decides(void **state)
{
    struct backend_context *context = NULL;
    struct plan *plan = NULL;
    (void)state;
    standin_set_memory((size_t)4 << 20);
    int result = BACKEND_UNDER_TEST->open(1, 1, &context);
    if (!result)
        result = BACKEND_UNDER_TEST->compile(context, &net, parameters, PRECISION_FP32, &plan);
    assert_int_equal(result, ERROR_LIMIT);
    assert_non_null(strpbrk(error_message(), "0123456789"));
    BACKEND_UNDER_TEST->close(context);
    standin_set_memory((size_t)2 << 30);
    assert_int_equal(BACKEND_UNDER_TEST->open(1, 1, &context), 0);
    assert_int_equal(BACKEND_UNDER_TEST->compile(context, &net, parameters, PRECISION_FP32, &plan), 0);
    BACKEND_UNDER_TEST->free_plan(plan);
    BACKEND_UNDER_TEST->close(context);
    standin_set_memory((size_t)4 << 30);
    assert_clean();
}

/* The device's memory is refused to one job: its error, of which the next job, on the same thread, hears nothing. */
static void a_refused_allocation_is_told_once(void **state)
{
    struct backend_context *context = NULL;
    struct plan *plan = NULL;
    float *embedding = (float *)malloc((size_t)2 * EMBEDDING * sizeof *embedding), *before = embedding + EMBEDDING;
    (void)state;
    assert_int_equal(BACKEND_UNDER_TEST->open(1, 1, &context), 0);
    for (int refused = 0; refused < 2; refused++) {
        standin_close_allocation(refused);
        int result = BACKEND_UNDER_TEST->compile(context, &net, parameters, PRECISION_FP32, &plan);
        standin_close_allocation(0);
        assert_int_equal(result, refused ? ERROR_LIMIT : 0);
        assert_int_equal(standin_findings(), refused);
        standin_forgive();
        if (refused)
            assert_int_equal(BACKEND_UNDER_TEST->compile(context, &net, parameters, PRECISION_FP32, &plan), 0);
        result = BACKEND_UNDER_TEST->forward(plan, images, 1, refused ? embedding : before);
        if (result)
            fail_msg("after a refused allocation: %s", error_message());
        BACKEND_UNDER_TEST->free_plan(plan);
    }
    assert_memory_equal(embedding, before, EMBEDDING * sizeof *embedding);
    BACKEND_UNDER_TEST->close(context);
    free(embedding);
    assert_clean();
}

#endif

int main(void)
{
    /* The first four are what kernels do; the rest is the same kernels again. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cycle_agrees_with_the_processor),
        cmocka_unit_test(a_step_of_training),
        cmocka_unit_test(a_plan_in_bfloat16),
        cmocka_unit_test(a_net_with_max_pooling_and_odd_channels),
#ifndef TEST_TRACED
        cmocka_unit_test(the_same_bits_in_every_order),
#endif
#if !defined TEST_TRACED && !defined TEST_DEVICE
        cmocka_unit_test(a_lost_device_is_an_error_everywhere),
        cmocka_unit_test(no_driver_is_an_error),
        cmocka_unit_test(memory_decides),
        cmocka_unit_test(a_refused_allocation_is_told_once),
#endif
    };
    cmocka_set_skip_filter(getenv("TEST_SKIP"));
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
