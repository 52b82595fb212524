/*
 * Several devices as ranks of one worker (gpu/ranks.h), and learning without leaving the device: gradients, outputs and running
 * statistics of shared batches are those of one device on the whole batch, the same bits in every run; AdamW on the device is
 * model/optimizer.h to the bit; views are those of model/augment.h. Runs on the stand-in, and on as many devices as a machine has.
 * What goes wrong is device_errors_test.c.
 */
#include "base/error.h"
#include "base/half.h"
#include "tests/gpu/small_job.h"
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

static const struct backend *const cuda = BACKEND_UNDER_TEST;

/* --- shared batches ----------------------------------------------------------------------------------------------- */

struct outcome {
    float *outputs, *parameters, *gradients, *image_gradients;
};

static void free_outcome(struct outcome *outcome)
{
    free(outcome->outputs);
    free(outcome->parameters);
    free(outcome->gradients);
    free(outcome->image_gradients);
}

/* Twice the same pass: where it is captured, the second one is the graph. */
static struct outcome train(int devices, size_t batch, int live)
{
    struct outcome outcome = {malloc(batch * job.outputs * sizeof(float)), malloc(job.count * sizeof(float)),
                              malloc(job.count * sizeof(float)), malloc(batch * SIDE * SIDE * sizeof(float))};
    struct backend_context *context;
    struct training *training;
    struct train_pass pass = {.seed = SEED, .step = 5, .key = job.key, .live_norm = live};
    standin_set_devices(devices);
    assert_int_equal(cuda->open(1, devices, &context), 0);
    assert_int_equal(cuda->open_training(context, &job.net, batch, &training), 0);
    standin_close_allocation(1);
    for (int again = 0; again < 2; again++) {
        memcpy(outcome.parameters, job.parameters, job.count * sizeof(float));
        assert_int_equal(cuda->train_forward(training, outcome.parameters, job.images, batch, &pass, outcome.outputs),
                         0);
        assert_int_equal(cuda->train_backward(training, outcome.parameters, job.slopes, 0, outcome.gradients,
                                              outcome.image_gradients),
                         0);
    }
    standin_close_allocation(0);
    cuda->close_training(training);
    cuda->close(context);
    assert_clean();
    standin_set_devices(1);
    return outcome;
}

static void assert_close(const float *have, const float *want, size_t values, double allowed, const char *what,
                         int devices, int live)
{
    double error = relative_error(have, want, values);
    if (!(error <= allowed))
        fail_msg("%s over %d devices, live norm %d: error %g, allowed %g", what, devices, live, error, allowed);
}

static void ranks_find_what_one_finds(void **state)
{
    static const struct {
        int devices;
        size_t batch;
    } cases[] = {
        {2, 6},
        {2, 7}, /* 4 and 3 */
        {3, 7},
        {8, 7}, /* too few to share: all are the first one's */
    };
    (void)state;
    for (int live = 0; live < 2; live++)
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            int devices = cases[c].devices;
            size_t batch = cases[c].batch;
            if (!has_devices(devices))
                continue;
            struct outcome want = train(1, batch, live), have = train(devices, batch, live);
            assert_close(have.outputs, want.outputs, batch * job.outputs, 1e-5, "outputs", devices, live);
            assert_close(have.parameters, want.parameters, job.count, 1e-6, "running statistics", devices, live);
            assert_close(have.gradients, want.gradients, job.count, 2e-5, "gradients", devices, live);
            assert_close(have.image_gradients, want.image_gradients, batch * SIDE * SIDE, 2e-5,
                         "gradients of the images", devices, live);
            assert_int_equal(memcmp(have.parameters, job.parameters, job.count * sizeof(float)) != 0, live);
            free_outcome(&want);
            free_outcome(&have);
        }
}

static void ranks_find_the_same_bits_again(void **state)
{
    (void)state;
    if (!has_devices(2))
        skip();
    standin_set_seed(1);
    struct outcome first = train(2, 7, 1);
    for (uint64_t seed = 0; seed < 4; seed += 3) {
        standin_set_seed(seed);
        struct outcome again = train(2, 7, 1);
        assert_memory_equal(again.outputs, first.outputs, 7 * job.outputs * sizeof(float));
        assert_memory_equal(again.parameters, first.parameters, job.count * sizeof(float));
        assert_memory_equal(again.gradients, first.gradients, job.count * sizeof(float));
        free_outcome(&again);
    }
    standin_set_seed(1);
    free_outcome(&first);
}

/* --- embeddings and views ----------------------------------------------------------------------------------------- */

static void embeddings_do_not_depend_on_devices(void **state)
{
    float *one = malloc(IMAGES * job.outputs * sizeof *one), *many = malloc(IMAGES * job.outputs * sizeof *many);
    (void)state;
    forward_small_job(1, NULL, one);
    for (int devices = 2; devices <= 8 && has_devices(devices); devices += 3) {
        memset(many, 0xff, IMAGES * job.outputs * sizeof *many);
        forward_small_job(devices, NULL, many);
        assert_memory_equal(many, one, IMAGES * job.outputs * sizeof *one);
    }
    free(one);
    free(many);
}

/* --- scores --------------------------------------------------------------------------------------------------------- */

#define GALAXIES_MAX 500
#define INPUTS       12
#define ANSWERS      5

static uint16_t embedding[GALAXIES_MAX][INPUTS], due[GALAXIES_MAX];
static struct schema schema;

/* Information of `galaxies`, into an output of its own. */
static struct score_request new_scoring(struct head_set *heads, size_t galaxies)
{
    small_schema(&schema, 2, (int[]){3, 2}, (int[]){-1, 1});
    assert_int_equal(head_set_new(2, INPUTS, ANSWERS, heads), 0);
    heads->dropout = 0.2f;
    for (size_t i = 0; i < 2 * ANSWERS * INPUTS; i++)
        heads->weight[i] = uniform(8, i) - 0.5f;
    for (size_t g = 0; g < galaxies; g++) {
        for (size_t i = 0; i < INPUTS; i++)
            embedding[g][i] = half_from_float(4 * uniform(7, g * INPUTS + i) - 2);
        due[g] = (uint16_t)(1 + g % 50);
    }
    return (struct score_request){.heads = heads,
                                  .schema = &schema,
                                  .embedding = embedding[0],
                                  .embedding_stride_bytes = sizeof embedding[0],
                                  .count = galaxies,
                                  .passes = 6,
                                  .seed = SEED,
                                  .kind = INFORMATION_VOTES,
                                  .votes_due = due,
                                  .reducer = REDUCE_INFORMATION};
}

static float *untouched(size_t floats)
{
    float *values = malloc(floats * sizeof *values);
    memset(values, 0xff, floats * sizeof *values);
    return values;
}

static void scores_do_not_depend_on_devices(void **state)
{
    enum { GALAXIES = 23 };
    uint64_t rows[GALAXIES];
    struct head_set heads;
    (void)state;
    struct score_request request = new_scoring(&heads, GALAXIES);
    size_t floats = GALAXIES * (size_t)information_row_floats(&schema);
    for (uint64_t g = 0; g < GALAXIES; g++)
        rows[g] = GALAXIES - 1 - g;
    for (int with_rows = 0; with_rows < 2; with_rows++) {
        float *one = NULL;
        for (int devices = 1; devices <= 3 && has_devices(devices); devices++) {
            struct backend_context *context;
            request.row = with_rows ? rows : NULL;
            request.output = untouched(floats);
            standin_set_devices(devices);
            assert_int_equal(cuda->open(1, devices, &context), 0);
            assert_int_equal(cuda->head_score(context, &request, NULL, NULL), 0);
            cuda->close(context);
            standin_set_devices(1);
            if (devices == 1) {
                one = request.output;
                continue;
            }
            assert_memory_equal(request.output, one, floats * sizeof *one);
            free(request.output);
        }
        assert_true(one[0] > one[1] && one[1] > 0); /* total and expected entropy of a galaxy */
        free(one);
    }
    head_set_free(&heads);
    assert_clean();
}

#ifndef TEST_DEVICE
static int stop_at_the_fourth(void *asked)
{
    return ++*(int *)asked == 4;
}

/* Stopped by what the first rank hears, all ranks end: the other devices are held until it has ended, and then compute nothing any more. It
 * is no loss: the next call is computed. */
static void stopping_ends_every_rank(void **state)
{
    struct backend_context *context;
    struct head_set heads;
    int asked = 0;
    (void)state;
    struct score_request request = new_scoring(&heads, GALAXIES_MAX);
    size_t row_floats = (size_t)information_row_floats(&schema), floats = GALAXIES_MAX * row_floats;
    float *stopped = untouched(floats), *whole = untouched(floats), *nothing = untouched(floats);
    standin_set_devices(3);
    assert_int_equal(cuda->open(1, 3, &context), 0);
    standin_hold_others(0);
    request.output = stopped;
    assert_int_equal(cuda->head_score(context, &request, stop_at_the_fourth, &asked), ERROR_CANCELLED);
    assert_non_null(strstr(error_message(), "scoring was cancelled after "));
    assert_int_equal(asked, 4);
    request.output = whole;
    assert_int_equal(cuda->head_score(context, &request, NULL, NULL), 0);
    size_t first = (GALAXIES_MAX + 2) / 3 * row_floats; /* what the first rank has */
    assert_memory_equal(stopped, whole, row_floats * sizeof *whole);
    assert_memory_equal(stopped + first - row_floats, nothing, row_floats * sizeof *whole);
    assert_memory_equal(stopped + first, nothing, (floats - first) * sizeof *whole);
    assert_memory_not_equal(whole + floats - row_floats, nothing, row_floats * sizeof *whole);
    cuda->close(context);
    standin_set_devices(1);
    head_set_free(&heads);
    free(stopped);
    free(whole);
    free(nothing);
    assert_clean();
}

#endif

/* --- stored images ---------------------------------------------------------------------------------------------------- */

/* What the device looks at is what the host would: an image that is too large is looked at by the host. */
static void views_are_those_of_the_host(void **state)
{
    static const struct {
        enum augmentation augmentation;
        int pixel_side, view;
        double allowed;
    } cases[] = {
        {AUGMENT_NONE, 24, VIEW_PLAIN, 0   },
        {AUGMENT_NONE, 18, 3,          0   },
        {AUGMENT_W21,  24, VIEW_PLAIN, 0   },
        {AUGMENT_W21,  24, 0,          0   },
        {AUGMENT_W21,  24, 9,          0   },
        {AUGMENT_W20,  24, VIEW_PLAIN, 2e-6}, /* the mean is summed in another order */
        {AUGMENT_W20,  24, 4,          2e-6},
    };
    float *looked = malloc((size_t)(IMAGES * SIDE * SIDE) * sizeof *looked), *kept = job.images;
    float *have = malloc(IMAGES * job.outputs * sizeof *have), *want = malloc(IMAGES * job.outputs * sizeof *want);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int devices = 1; devices <= 2 && has_devices(devices); devices++) {
            struct stored_views views = views_of(cases[c].augmentation, cases[c].pixel_side, cases[c].view);
            for (size_t i = 0; i < IMAGES; i++)
                stored_view(&views, i, SIDE, 1, looked + i * SIDE * SIDE);
            job.images = looked;
            forward_small_job(devices, NULL, want);
            job.images = kept;
            forward_small_job(devices, &views, have);
            if (cases[c].allowed == 0)
                assert_memory_equal(have, want, IMAGES * job.outputs * sizeof *want);
            else
                assert_close(have, want, IMAGES * job.outputs, cases[c].allowed, "views", devices, (int)c);
        }
    free(looked);
    free(have);
    free(want);
}

/* The same where a stored image has more bytes than its view as floats. */
static void large_images_are_looked_at_by_the_host(void **state)
{
    struct net tiny;
    uint64_t first[1] = {0};
    float looked[8 * 8], have[64], want[64];
    struct backend_context *context;
    struct plan *plan;
    (void)state;
    begin_net(&tiny, "tiny", 1, 8, PADDING_SAME);
    add_conv(&tiny, 1, 1, 1, 1, 1);
    float one = 1.5f;
    struct stored_views views = views_of(AUGMENT_W21, PIXEL_SIDE, 2); /* 24 x 24 bytes, 8 x 8 floats */
    views.row = first;
    stored_view(&views, 0, 8, 1, looked);
    assert_int_equal(cuda->open(2, 1, &context), 0);
    assert_int_equal(cuda->compile(context, &tiny, &one, PRECISION_FP32, &plan), 0);
    assert_int_equal(cuda->forward(plan, looked, 1, want), 0);
    assert_int_equal(cuda->forward_views(plan, &views, 1, have), 0);
    assert_memory_equal(have, want, sizeof want);
    cuda->free_plan(plan);
    cuda->close(context);
    assert_clean();
}

/* --- learning on the device --------------------------------------------------------------------------------------- */

#define STEPS 3

/* The ranges that learn: every layer's weights at rates of their own, running statistics never. */
static int ranges_of(struct train_range *range)
{
    int ranges = 0;
    size_t offset = 0;
    for (int i = 0; i < job.net.layers; i++) {
        size_t all = layer_parameter_count(&job.net.layer[i]),
               learns = job.net.layer[i].kind == LAYER_BATCH_NORM ? all / 2 : all;
        if (learns > 3) /* in two parts */
            range[ranges++] = (struct train_range){offset, 3, 1 + 0.25 * i};
        if (learns)
            range[ranges++] = (struct train_range){offset + (learns > 3 ? 3 : 0), learns - (learns > 3 ? 3 : 0), 0.5};
        offset += all;
    }
    return ranges;
}

/* STEPS steps with random views; held on the device, or parameters and AdamW here. Returns the squares of the last gradient. */
static double learn(int devices, int held, struct learned *state)
{
    struct train_range range[2 * NET_LAYERS_MAX];
    int ranges = ranges_of(range);
    float *embeddings = malloc(IMAGES * job.outputs * sizeof *embeddings),
          *gradient = malloc(job.count * sizeof *gradient);
    struct backend_context *context;
    struct training *training;
    double squares = 0;
    standin_set_devices(devices);
    assert_int_equal(cuda->open(1, devices, &context), 0);
    assert_int_equal(cuda->open_training(context, &job.net, IMAGES, &training), 0);
    standin_close_allocation(1);
    if (held)
        assert_int_equal(cuda->train_hold(training, state->value, state->moment1, state->moment2), 0);
    for (uint32_t step = 1; step <= STEPS; step++) {
        struct stored_views views = views_of(AUGMENT_W21, PIXEL_SIDE, (int)step);
        struct train_pass pass = {.seed = SEED, .step = step, .key = job.key, .live_norm = 1};
        struct adamw adamw = {1e-2, 0.05, step, 0.75};
        assert_int_equal(
            cuda->train_forward_views(training, held ? NULL : state->value, &views, IMAGES, &pass, embeddings), 0);
        assert_int_equal(cuda->train_backward(training, state->value, job.slopes, 0, held ? NULL : gradient, NULL), 0);
        if (held) {
            assert_int_equal(cuda->train_squares(training, range, ranges, &squares), 0);
            assert_int_equal(cuda->train_update(training, range, ranges, &adamw), 0);
            continue;
        }
        squares = 0;
        for (int i = 0; i < ranges; i++) {
            struct adamw own = adamw;
            size_t at = range[i].offset;
            own.learning_rate *= range[i].factor;
            squares += optimizer_squares(gradient + at, range[i].count);
            adamw_update(&own, range[i].count, gradient + at, state->value + at, state->moment1 + at,
                         state->moment2 + at);
        }
    }
    if (held)
        assert_int_equal(cuda->train_fetch(training, state->value, state->moment1, state->moment2), 0);
    standin_close_allocation(0);
    cuda->close_training(training);
    cuda->close(context);
    assert_clean();
    standin_set_devices(1);
    free(embeddings);
    free(gradient);
    return squares;
}

static void learning_on_the_device_is_learning_here(void **state)
{
    (void)state;
    for (int devices = 1; devices <= 2 && has_devices(devices); devices++) {
        struct learned there = new_learned(), here = new_learned();
        double there_squares = learn(devices, 1, &there), here_squares = learn(devices, 0, &here);
        assert_memory_equal(there.value, here.value, job.count * sizeof(float));
        assert_memory_equal(there.moment1, here.moment1, job.count * sizeof(float));
        assert_memory_equal(there.moment2, here.moment2, job.count * sizeof(float));
        assert_true(fabs(there_squares - here_squares) <= 1e-6 * here_squares && here_squares > 0);
        assert_memory_not_equal(there.value, job.parameters, job.count * sizeof(float));
        free_learned(&there);
        free_learned(&here);
    }
}

static void what_is_not_held_is_an_error(void **state)
{
    float *embeddings = malloc(IMAGES * job.outputs * sizeof *embeddings);
    struct train_range across[1] = {
        {0, job.count, 1}
    };
    struct train_pass pass = {.seed = SEED, .step = 1, .key = job.key};
    struct adamw adamw = {1e-2, 0, 1, 1};
    struct backend_context *context;
    struct training *training;
    struct learned own = new_learned();
    (void)state;
    assert_int_equal(cuda->open(1, 1, &context), 0);
    assert_int_equal(cuda->open_training(context, &job.net, IMAGES, &training), 0);
    assert_int_equal(cuda->train_forward(training, NULL, job.images, IMAGES, &pass, embeddings), ERROR_STATE);
    assert_int_equal(cuda->train_update(training, across, 1, &adamw), ERROR_STATE);
    assert_int_equal(cuda->train_fetch(training, own.value, own.moment1, own.moment2), ERROR_STATE);
    assert_int_equal(cuda->train_hold(training, own.value, own.moment1, own.moment2), 0);
    assert_int_equal(cuda->train_update(training, across, 1, &adamw), ERROR_INPUT); /* of more than one layer */
    cuda->close_training(training);
    cuda->close(context);
    free_learned(&own);
    free(embeddings);
    assert_clean();
}

#ifndef TEST_DEVICE
/* --- what is told ------------------------------------------------------------------------------------------------- */

static char told[4096];
static size_t bytes_when_told;

static void tell(const char *text)
{
    size_t length = strlen(told);
    snprintf(told + length, sizeof told - length, "%s\n", text);
    bytes_when_told = standin_device_bytes();
}

/* What a job takes is told before it is taken, for every device, and not again while it is the same. */
static void needs_are_told_before(void **state)
{
    struct backend_context *context;
    struct training *training;
    struct plan *plan;
    (void)state;
    standin_set_devices(2);
    assert_int_equal(cuda->open(1, 2, &context), 0);
    cuda->tell(context, tell);
    assert_int_equal(cuda->compile(context, &job.net, job.parameters, PRECISION_FP32, &plan), 0);
    assert_non_null(strstr(told, "device 0: small for"));
    assert_non_null(strstr(told, "device 1: small for"));
    assert_null(strstr(told, "training"));
    for (int again = 0; again < 2; again++) {
        assert_int_equal(cuda->open_training(context, &job.net, IMAGES, &training), 0);
        assert_non_null(strstr(told, "device 1: training small on 4 images at a time takes "));
        assert_true(standin_device_bytes() > bytes_when_told);
        cuda->close_training(training);
    }
    char *second = strstr(strstr(told, "device 1: training") + 1, "device 1: training");
    assert_null(second);
    cuda->free_plan(plan);
    cuda->close(context);
    standin_set_devices(1);
    assert_clean();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_find_what_one_finds),
        cmocka_unit_test(ranks_find_the_same_bits_again),
        cmocka_unit_test(embeddings_do_not_depend_on_devices),
        cmocka_unit_test(scores_do_not_depend_on_devices),
        cmocka_unit_test(views_are_those_of_the_host),
        cmocka_unit_test(large_images_are_looked_at_by_the_host),
        cmocka_unit_test(learning_on_the_device_is_learning_here),
        cmocka_unit_test(what_is_not_held_is_an_error),
#ifndef TEST_DEVICE /* the stand-in holds devices, and keeps books of their memory */
        cmocka_unit_test(stopping_ends_every_rank),
        cmocka_unit_test(needs_are_told_before),
#endif
    };
    return cmocka_run_group_tests(tests, set_up_small_job, tear_down_small_job);
}
