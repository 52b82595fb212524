/*
 * bfloat16 and TF32 inference beside float: embeddings, and what matters of them, the posterior means and the order of scores, on
 * galaxies drawn from a few numbers, by a network trained
 * for a moment on votes that depend on them. Also that every precision is the same for any number of threads.
 */
#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"
#include "cpu/head_kernels.h"
#include "model/trunk_fit.h"
#include "tests/support/backend_under_test.h"
#include "tests/support/small_nets.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* On the emulation less of the same, as it would take minutes; who teaches the network is the business of other suites. */
#ifdef TEST_EMULATED
#define GALAXIES 60
#define EPOCHS   15
#define BATCH    15
#define TEACHER  (&backend_cpu)
#else
#define GALAXIES 120
#define EPOCHS   25
#define BATCH    30
#define TEACHER  BACKEND_UNDER_TEST
#endif
#define SIDE   64
#define INPUTS 1280
#define PASSES 10

static struct backend_context *context;
static float images[GALAXIES][SIDE * SIDE];
static struct net net;
static float *parameters; /* trunk, then head */
static struct schema schema;

/* Blobs of random size, flattening, brightness and turn, with noise. */
static void draw_galaxies(void)
{
    for (uint32_t n = 0; n < GALAXIES; n++) {
        float size = 4 + 14 * uniform(1, n), flat = 0.3f + 0.7f * uniform(2, n), bright = 0.3f + 0.6f * uniform(3, n);
        float turn = 3.14f * uniform(4, n), arms = 3 * uniform(5, n);
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++) {
                float u = (float)x - 31.5f, v = (float)y - 31.5f;
                float a = (u * cosf(turn) + v * sinf(turn)) / size, b = (v * cosf(turn) - u * sinf(turn)) / size / flat;
                float wave = 1 + 0.5f * cosf(arms * atan2f(b, a) + 4 * hypotf(a, b));
                images[n][y * SIDE + x] =
                    bright * wave * expf(-hypotf(a, b)) + 0.1f * uniform(10 + n, (size_t)(y * SIDE + x));
            }
    }
}

/* A trunk that was never trained magnifies rounding; one that was, if only for a moment, does not. */
static int train(struct backend_context *teacher)
{
    static uint8_t pixels[GALAXIES][SIDE * SIDE];
    static float votes[GALAXIES][3];
    static uint64_t key[GALAXIES];
    struct target target = {.kind = TARGET_VOTES, .outputs = 3, .schema = &schema};
    struct trunk_recipe recipe = {.learning_rate = 2e-3,
                                  .weight_decay = 0.01,
                                  .block_decay = 1,
                                  .dropout = 0.2,
                                  .schedule = SCHEDULE_COSINE,
                                  .augmentation = AUGMENT_NONE,
                                  .blocks = TRUNK_FIT_BLOCKS_MAX,
                                  .live_norm = 1,
                                  .batch = BATCH,
                                  .epochs_max = EPOCHS,
                                  .seed = 3};
    struct trunk_data data = {.pixels = pixels[0],
                              .pixels_stride_bytes = sizeof pixels[0],
                              .pixel_side = SIDE,
                              .labels = votes[0],
                              .key = key,
                              .train_row = key,
                              .train_count = GALAXIES};
    for (uint32_t n = 0; n < GALAXIES; n++) {
        key[n] = n;
        for (int i = 0; i < SIDE * SIDE; i++)
            pixels[n][i] = (uint8_t)(255 * fminf(images[n][i], 1));
        votes[n][0] = (float)(int)(20 * uniform(1, n)); /* size, flattening, arms: as the images were drawn */
        votes[n][1] = (float)(int)(20 * uniform(2, n));
        votes[n][2] = (float)(int)(20 * uniform(5, n));
    }
    struct trunk_fit *fit;
    int over = trunk_fit_random(&net, &target, &data, 7, parameters);
    if (!over)
        over = trunk_fit_open(TEACHER, teacher, &net, &target, &recipe, &data, parameters, &fit);
    while (over == 0)
        over = trunk_fit_step(fit);
    memcpy(parameters, trunk_fit_best(fit), trunk_fit_values(&net, &target) * sizeof *parameters);
    trunk_fit_close(fit);
    return over < 0;
}

/* Where the backend refuses a precision, or takes float for it, there is nothing to compare. */
static int computes(enum precision precision)
{
    int have = BACKEND_UNDER_TEST->precision ? BACKEND_UNDER_TEST->precision(precision) : (int)precision;
    if (have < 0)
        print_message("skipped: %s\n", error_message());
    else if (have != (int)precision)
        print_message("skipped: this backend computes in float then\n");
    return have == (int)precision;
}

static int set_up(void **state)
{
    static const int answers[] = {3}, parent[] = {-1};
    (void)state;
    draw_galaxies();
    small_schema(&schema, 1, answers, parent);
    net_efficientnet_b0(1, SIDE, &net);
    parameters = malloc((net_parameter_count(&net) + 3 * (INPUTS + 1)) * sizeof *parameters);
    struct backend_context *teacher;
    if (TEACHER->open(2, 1, &teacher))
        return -1;
    int result = train(teacher);
    TEACHER->close(teacher);
    return result || BACKEND_UNDER_TEST->open(2, 1, &context);
}

static int tear_down(void **state)
{
    (void)state;
    free(parameters);
    BACKEND_UNDER_TEST->close(context);
    return 0;
}

/* The first galaxies. */
static float *embed(enum precision precision, size_t count)
{
    struct plan *plan;
    float *embeddings = malloc(count * INPUTS * sizeof *embeddings);
    assert_int_equal(BACKEND_UNDER_TEST->compile(context, &net, parameters, precision, &plan), 0);
    assert_int_equal(BACKEND_UNDER_TEST->forward(plan, images[0], count, embeddings), 0);
    BACKEND_UNDER_TEST->free_plan(plan);
    return embeddings;
}

/* --- what heads make of them -------------------------------------------------------------------------------------- */

struct predictions {
    float mean[GALAXIES][3], score[GALAXIES];
};

/* The head the training ended with, without standardisation. */
static void head_of(struct head_set *heads)
{
    const float *weight = parameters + net_parameter_count(&net);
    assert_int_equal(head_set_new(1, INPUTS, 3, heads), 0);
    heads->model = 1;
    heads->dropout = 0.2f;
    memcpy(heads->weight, weight, 3 * INPUTS * sizeof *weight);
    memcpy(heads->bias, weight + 3 * INPUTS, 3 * sizeof *weight);
}

static void predict(const struct head_set *heads, const float *embeddings, struct predictions *predictions)
{
    static uint16_t rows[GALAXIES * INPUTS], due[GALAXIES];
    static float dump[GALAXIES][PASSES][3];
    for (size_t i = 0; i < GALAXIES * INPUTS; i++)
        rows[i] = half_from_float(embeddings[i]);
    for (int n = 0; n < GALAXIES; n++)
        due[n] = 40;
    float *information = malloc(GALAXIES * information_row_floats(&schema) * sizeof *information);
    struct score_request request = {.heads = heads,
                                    .schema = &schema,
                                    .embedding = rows,
                                    .embedding_stride_bytes = INPUTS * sizeof *rows,
                                    .count = GALAXIES,
                                    .passes = PASSES,
                                    .seed = 3,
                                    .kind = INFORMATION_VOTES,
                                    .votes_due = due,
                                    .reducer = REDUCE_INFORMATION,
                                    .output = information};
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), 0);
    for (int n = 0; n < GALAXIES; n++) {
        const float *row = information + n * information_row_floats(&schema);
        predictions->score[n] = row[0] - row[1]; /* what the service ranks by: total - expected */
    }
    request.reducer = REDUCE_DUMP;
    request.votes_due = NULL;
    request.output = dump[0][0];
    assert_int_equal(BACKEND_UNDER_TEST->head_score(context, &request, NULL, NULL), 0);
    memset(predictions->mean, 0, sizeof predictions->mean);
    for (int n = 0; n < GALAXIES; n++)
        for (int p = 0; p < PASSES; p++)
            for (int a = 0; a < 3; a++)
                predictions->mean[n][a] += dump[n][p][a] / (dump[n][p][0] + dump[n][p][1] + dump[n][p][2]) / PASSES;
    free(information);
}

static double rank_of(const float *values, int n)
{
    int below = 0;
    for (int i = 0; i < GALAXIES; i++)
        below += values[i] < values[n];
    return below;
}

static double spearman(const float *a, const float *b)
{
    double squares = 0, count = GALAXIES;
    for (int n = 0; n < GALAXIES; n++)
        squares += pow(rank_of(a, n) - rank_of(b, n), 2);
    return 1 - 6 * squares / (count * (count * count - 1));
}

/* The same galaxies in `precision` and in float. */
static void check_predictions(enum precision precision, const char *name, double allowed, double allowed_mean,
                              double least_order)
{
    static struct predictions single, half;
    struct head_set heads;
    double off = 0, size = 0, worst = 0, spread = 0;
    float *fp32 = embed(PRECISION_FP32, GALAXIES), *less = embed(precision, GALAXIES);
    for (size_t i = 0; i < GALAXIES * INPUTS; i++) {
        off += pow((double)less[i] - (double)fp32[i], 2);
        size += pow((double)fp32[i], 2);
    }
    head_of(&heads);
    predict(&heads, fp32, &single);
    predict(&heads, less, &half);
    for (int n = 0; n < GALAXIES; n++)
        for (int a = 0; a < 3; a++) {
            worst = fmax(worst, fabs((double)single.mean[n][a] - (double)half.mean[n][a]));
            spread = fmax(spread, fabs((double)single.mean[n][a] - 1.0 / 3));
        }
    double order = spearman(single.score, half.score);
    print_message("%s: embeddings within %.2g, posterior means within %.2g (they spread over %.2g), Spearman %.4f\n",
                  name, sqrt(off / size), worst, spread, order);
    assert_true(sqrt(off / size) <= allowed && off > 0);
    assert_true(worst <= allowed_mean);
    assert_true(spread > 0.1); /* or nothing would have been shown */
    assert_true(order >= least_order);
    head_set_free(&heads);
    free(fp32);
    free(less);
}

static void bf16_predicts_the_same(void **state)
{
    (void)state;
    if (!computes(PRECISION_BF16))
        skip();
    check_predictions(PRECISION_BF16, "bf16", 0.03, 0.01, 0.99);
}

static void tf32_predicts_the_same(void **state)
{
    (void)state;
    if (!computes(PRECISION_TF32))
        skip();
    check_predictions(PRECISION_TF32, "tf32", 0.004, 0.002, 0.999);
}

/* Embeddings in another precision than was asked for would be taken for what they are not. */
static void refused_or_computed(void **state)
{
    struct plan *plan = NULL;
    (void)state;
    if (!BACKEND_UNDER_TEST->precision || BACKEND_UNDER_TEST->precision(PRECISION_BF16) >= 0) {
        print_message("skipped: this backend computes in bfloat16 here\n");
        skip();
    }
    assert_int_equal(BACKEND_UNDER_TEST->compile(context, &net, parameters, PRECISION_BF16, &plan), ERROR_STATE);
    assert_non_null(strstr(error_message(), "set trunk.precision = fp32"));
    assert_null(plan);
    assert_int_equal(BACKEND_UNDER_TEST->compile(context, &net, parameters, PRECISION_FP32, &plan), 0);
    BACKEND_UNDER_TEST->free_plan(plan);
}

/* Loops of every instruction set, where the processor computes, and any number of threads. */
static void same_bits_everywhere(void **state)
{
    static const char *const sets[] = {"portable", "avx2", "avx512"};
    int on_cpu = BACKEND_UNDER_TEST == &backend_cpu;
    size_t count = on_cpu ? GALAXIES : GALAXIES / 10, bytes = count * INPUTS * sizeof(float);
    (void)state;
    for (int precision = PRECISION_FP32; precision <= PRECISION_TF32; precision++) {
        if (!computes((enum precision)precision))
            continue;
        float *want = embed((enum precision)precision, count);
        for (size_t s = 0; on_cpu && s < sizeof sets / sizeof *sets; s++) {
            if (head_kernels_choose(sets[s])) {
                print_message("skipped: this processor has no %s\n", sets[s]);
                continue;
            }
            float *have = embed((enum precision)precision, count);
            double error = relative_error(have, want, count * INPUTS);
            if (s > 0) /* with fused multiply-adds all are the same; without, only rounding differs */
                assert_memory_equal(have, want, bytes);
            else if (!(error <= (precision == PRECISION_FP32 ? 1e-4 : 0.1)))
                fail_msg("%s is off by %g", sets[s], error);
            free(have);
        }
        head_kernels_choose(NULL);
        BACKEND_UNDER_TEST->close(context);
        assert_int_equal(BACKEND_UNDER_TEST->open(1, 1, &context), 0);
        float *alone = embed((enum precision)precision, count);
        assert_memory_equal(alone, want, bytes);
        free(alone);
        free(want);
    }
}

/* Layers with loops in float only run in bfloat16 too. */
static void other_nets(void **state)
{
    static const char *const names[] = {"walmsley2020", "efficientnet_lite0"};
    (void)state;
    if (!computes(PRECISION_BF16))
        skip();
    for (int i = 0; i < 2; i++) {
        struct net other;
        struct plan *plan;
        static float out[2][4 * INPUTS];
        double off = 0, size = 0;
        assert_int_equal(net_by_name(names[i], 1, SIDE, &other), 0);
        float *values = random_parameters(&other);
        for (int precision = PRECISION_FP32; precision <= PRECISION_BF16; precision++) {
            assert_int_equal(BACKEND_UNDER_TEST->compile(context, &other, values, (enum precision)precision, &plan), 0);
            assert_int_equal(BACKEND_UNDER_TEST->forward(plan, images[0], 4, out[precision]), 0);
            BACKEND_UNDER_TEST->free_plan(plan);
        }
        for (int k = 0; k < 4 * other.outputs; k++) {
            off += pow((double)out[1][k] - (double)out[0][k], 2);
            size += pow((double)out[0][k], 2);
        }
        print_message("%s: within %.2g\n", names[i], sqrt(off / size));
        assert_true(size > 0 && off > 0 && sqrt(off / size) < 0.1); /* never trained */
        free(values);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bf16_predicts_the_same),
                                       cmocka_unit_test(tf32_predicts_the_same), cmocka_unit_test(refused_or_computed),
                                       cmocka_unit_test(same_bits_everywhere), cmocka_unit_test(other_nets)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
