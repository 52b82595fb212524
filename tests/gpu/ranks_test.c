/*
 * Several devices as ranks of one worker (gpu/ranks.h), and learning without leaving the device: gradients, outputs and running
 * statistics of shared batches are those of one device on the whole batch, the same bits in every run; AdamW on the device is
 * model/optimizer.h to the bit; views are those of model/augment.h; a rank that loses its device keeps nobody waiting.
 */
#include "base/error.h"
#include "base/half.h"
#include "tests/gpu/standin/cuda_runtime_api.h"
#include "tests/gpu/standin/standin.h"
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

#define IMAGES     7
#define SIDE       18
#define PIXEL_SIDE 24 /* of stored images */
#define SEED       77u

static const struct backend *const cuda = BACKEND_UNDER_TEST;
static struct net net;
static float *parameters, *images, *slopes;
static size_t count, outputs;
static uint8_t *pixels;
static uint64_t row[IMAGES], key[IMAGES];

static int set_up(void **state)
{
    (void)state;
    small_net(&net, 1, SIDE, PADDING_SAME);
    net_set_stochastic_depth(&net, 0.4);
    parameters = random_parameters(&net);
    images = random_images(&net, IMAGES, 1);
    count = net_parameter_count(&net);
    outputs = output_floats(&net);
    slopes = malloc(IMAGES * outputs * sizeof *slopes);
    for (size_t i = 0; i < IMAGES * outputs; i++)
        slopes[i] = uniform(3, i) - 0.5f;
    pixels = malloc((size_t)(2 * IMAGES * PIXEL_SIDE * PIXEL_SIDE));
    for (size_t i = 0; i < (size_t)(2 * IMAGES * PIXEL_SIDE * PIXEL_SIDE); i++)
        pixels[i] = (uint8_t)(256 * uniform(4, i));
    for (uint64_t i = 0; i < IMAGES; i++) {
        row[i] = 2 * IMAGES - 1 - 2 * i;
        key[i] = 1000 + 7 * i;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(parameters);
    free(images);
    free(slopes);
    free(pixels);
    return 0;
}

static void assert_clean(void)
{
    assert_int_equal(standin_findings(), 0);
    assert_int_equal(standin_device_bytes(), 0);
    assert_int_equal(standin_pinned_bytes(), 0);
    assert_int_equal(standin_handles(), 0);
}

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
    struct outcome outcome = {malloc(batch * outputs * sizeof(float)), malloc(count * sizeof(float)),
                              malloc(count * sizeof(float)), malloc(batch * SIDE * SIDE * sizeof(float))};
    struct backend_context *context;
    struct training *training;
    struct train_pass pass = {.seed = SEED, .step = 5, .key = key, .live_norm = live};
    standin_set_devices(devices);
    assert_int_equal(cuda->open(1, devices, &context), 0);
    assert_int_equal(cuda->open_training(context, &net, batch, &training), 0);
    standin_close_allocation(1);
    for (int again = 0; again < 2; again++) {
        memcpy(outcome.parameters, parameters, count * sizeof(float));
        assert_int_equal(cuda->train_forward(training, outcome.parameters, images, batch, &pass, outcome.outputs), 0);
        assert_int_equal(
            cuda->train_backward(training, outcome.parameters, slopes, 0, outcome.gradients, outcome.image_gradients),
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
            struct outcome want = train(1, batch, live), have = train(devices, batch, live);
            assert_close(have.outputs, want.outputs, batch * outputs, 1e-5, "outputs", devices, live);
            assert_close(have.parameters, want.parameters, count, 1e-6, "running statistics", devices, live);
            assert_close(have.gradients, want.gradients, count, 2e-5, "gradients", devices, live);
            assert_close(have.image_gradients, want.image_gradients, batch * SIDE * SIDE, 2e-5,
                         "gradients of the images", devices, live);
            assert_int_equal(memcmp(have.parameters, parameters, count * sizeof(float)) != 0, live);
            free_outcome(&want);
            free_outcome(&have);
        }
}

static void ranks_find_the_same_bits_again(void **state)
{
    (void)state;
    standin_set_seed(1);
    struct outcome first = train(2, 7, 1);
    for (uint64_t seed = 0; seed < 4; seed += 3) {
        standin_set_seed(seed);
        struct outcome again = train(2, 7, 1);
        assert_memory_equal(again.outputs, first.outputs, 7 * outputs * sizeof(float));
        assert_memory_equal(again.parameters, first.parameters, count * sizeof(float));
        assert_memory_equal(again.gradients, first.gradients, count * sizeof(float));
        free_outcome(&again);
    }
    standin_set_seed(1);
    free_outcome(&first);
}

/* --- embeddings and views ----------------------------------------------------------------------------------------- */

static struct stored_views views_of(enum augmentation augmentation, int pixel_side, int view)
{
    return (struct stored_views){.pixels = pixels,
                                 .stride_bytes = (size_t)(pixel_side * pixel_side),
                                 .pixel_side = pixel_side,
                                 .row = row,
                                 .key = key,
                                 .augmentation = augmentation,
                                 .seed = SEED,
                                 .view = view};
}

static void forward(int devices, const struct stored_views *views, float *embeddings)
{
    struct backend_context *context;
    struct plan *plan;
    standin_set_devices(devices);
    assert_int_equal(cuda->open(2, devices, &context), 0);
    assert_int_equal(cuda->compile(context, &net, parameters, PRECISION_FP32, &plan), 0);
    standin_close_allocation(1);
    if (views)
        assert_int_equal(cuda->forward_views(plan, views, IMAGES, embeddings), 0);
    else
        assert_int_equal(cuda->forward(plan, images, IMAGES, embeddings), 0);
    standin_close_allocation(0);
    cuda->free_plan(plan);
    cuda->close(context);
    assert_clean();
    standin_set_devices(1);
}

static void embeddings_do_not_depend_on_devices(void **state)
{
    float *one = malloc(IMAGES * outputs * sizeof *one), *many = malloc(IMAGES * outputs * sizeof *many);
    (void)state;
    forward(1, NULL, one);
    for (int devices = 2; devices <= 8; devices += 3) {
        memset(many, 0xff, IMAGES * outputs * sizeof *many);
        forward(devices, NULL, many);
        assert_memory_equal(many, one, IMAGES * outputs * sizeof *one);
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
        for (int devices = 1; devices <= 3; devices++) {
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
    float *looked = malloc((size_t)(IMAGES * SIDE * SIDE) * sizeof *looked), *kept = images;
    float *have = malloc(IMAGES * outputs * sizeof *have), *want = malloc(IMAGES * outputs * sizeof *want);
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int devices = 1; devices <= 2; devices++) {
            struct stored_views views = views_of(cases[c].augmentation, cases[c].pixel_side, cases[c].view);
            for (size_t i = 0; i < IMAGES; i++)
                stored_view(&views, i, SIDE, 1, looked + i * SIDE * SIDE);
            images = looked;
            forward(devices, NULL, want);
            images = kept;
            forward(devices, &views, have);
            if (cases[c].allowed == 0)
                assert_memory_equal(have, want, IMAGES * outputs * sizeof *want);
            else
                assert_close(have, want, IMAGES * outputs, cases[c].allowed, "views", devices, (int)c);
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
    for (int i = 0; i < net.layers; i++) {
        size_t all = layer_parameter_count(&net.layer[i]),
               learns = net.layer[i].kind == LAYER_BATCH_NORM ? all / 2 : all;
        if (learns > 3) /* in two parts */
            range[ranges++] = (struct train_range){offset, 3, 1 + 0.25 * i};
        if (learns)
            range[ranges++] = (struct train_range){offset + (learns > 3 ? 3 : 0), learns - (learns > 3 ? 3 : 0), 0.5};
        offset += all;
    }
    return ranges;
}

struct state {
    float *value, *moment1, *moment2;
};

static struct state new_state(void)
{
    struct state state = {malloc(count * sizeof(float)), calloc(count, sizeof(float)), calloc(count, sizeof(float))};
    memcpy(state.value, parameters, count * sizeof(float));
    for (size_t i = 0; i < count; i++) { /* as after some steps */
        state.moment1[i] = 0.1f * (uniform(5, i) - 0.5f);
        state.moment2[i] = 0.01f * uniform(6, i);
    }
    return state;
}

static void free_state(struct state *state)
{
    free(state->value);
    free(state->moment1);
    free(state->moment2);
}

/* STEPS steps with random views; held on the device, or parameters and AdamW here. Returns the squares of the last gradient. */
static double learn(int devices, int held, struct state *state)
{
    struct train_range range[2 * NET_LAYERS_MAX];
    int ranges = ranges_of(range);
    float *embeddings = malloc(IMAGES * outputs * sizeof *embeddings), *gradient = malloc(count * sizeof *gradient);
    struct backend_context *context;
    struct training *training;
    double squares = 0;
    standin_set_devices(devices);
    assert_int_equal(cuda->open(1, devices, &context), 0);
    assert_int_equal(cuda->open_training(context, &net, IMAGES, &training), 0);
    standin_close_allocation(1);
    if (held)
        assert_int_equal(cuda->train_hold(training, state->value, state->moment1, state->moment2), 0);
    for (uint32_t step = 1; step <= STEPS; step++) {
        struct stored_views views = views_of(AUGMENT_W21, PIXEL_SIDE, (int)step);
        struct train_pass pass = {.seed = SEED, .step = step, .key = key, .live_norm = 1};
        struct adamw adamw = {1e-2, 0.05, step, 0.75};
        assert_int_equal(
            cuda->train_forward_views(training, held ? NULL : state->value, &views, IMAGES, &pass, embeddings), 0);
        assert_int_equal(cuda->train_backward(training, state->value, slopes, 0, held ? NULL : gradient, NULL), 0);
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
    for (int devices = 1; devices <= 2; devices++) {
        struct state there = new_state(), here = new_state();
        double there_squares = learn(devices, 1, &there), here_squares = learn(devices, 0, &here);
        assert_memory_equal(there.value, here.value, count * sizeof(float));
        assert_memory_equal(there.moment1, here.moment1, count * sizeof(float));
        assert_memory_equal(there.moment2, here.moment2, count * sizeof(float));
        assert_true(fabs(there_squares - here_squares) <= 1e-6 * here_squares && here_squares > 0);
        assert_memory_not_equal(there.value, parameters, count * sizeof(float));
        free_state(&there);
        free_state(&here);
    }
}

static void what_is_not_held_is_an_error(void **state)
{
    float *embeddings = malloc(IMAGES * outputs * sizeof *embeddings);
    struct train_range across[1] = {
        {0, count, 1}
    };
    struct train_pass pass = {.seed = SEED, .step = 1, .key = key};
    struct adamw adamw = {1e-2, 0, 1, 1};
    struct backend_context *context;
    struct training *training;
    struct state own = new_state();
    (void)state;
    assert_int_equal(cuda->open(1, 1, &context), 0);
    assert_int_equal(cuda->open_training(context, &net, IMAGES, &training), 0);
    assert_int_equal(cuda->train_forward(training, NULL, images, IMAGES, &pass, embeddings), ERROR_STATE);
    assert_int_equal(cuda->train_update(training, across, 1, &adamw), ERROR_STATE);
    assert_int_equal(cuda->train_fetch(training, own.value, own.moment1, own.moment2), ERROR_STATE);
    assert_int_equal(cuda->train_hold(training, own.value, own.moment1, own.moment2), 0);
    assert_int_equal(cuda->train_update(training, across, 1, &adamw), ERROR_INPUT); /* of more than one layer */
    cuda->close_training(training);
    cuda->close(context);
    free_state(&own);
    free(embeddings);
    assert_clean();
}

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
    assert_int_equal(cuda->compile(context, &net, parameters, PRECISION_FP32, &plan), 0);
    assert_non_null(strstr(told, "device 0: small for"));
    assert_non_null(strstr(told, "device 1: small for"));
    assert_null(strstr(told, "training"));
    for (int again = 0; again < 2; again++) {
        assert_int_equal(cuda->open_training(context, &net, IMAGES, &training), 0);
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

/* A batch that does not fit: the error says what to lower. */
static void too_large_a_batch(void **state)
{
    struct backend_context *context;
    struct training *training = NULL;
    (void)state;
    assert_int_equal(cuda->open(1, 1, &context), 0);
    assert_int_equal(cuda->open_training(context, &net, 1000000, &training), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "lower training.batch"));
    cuda->close(context);
    assert_clean();
}

/* --- what can go wrong -------------------------------------------------------------------------------------------- */

static void a_lost_device_keeps_nobody_waiting(void **state)
{
    (void)state;
    for (uint64_t place = 0; place < 400; place += 37) {
        float *embeddings = malloc(IMAGES * outputs * sizeof *embeddings), *gradient = malloc(count * sizeof *gradient);
        struct train_pass pass = {.seed = SEED, .step = 1, .key = key, .live_norm = 1};
        struct backend_context *context = NULL;
        struct training *training = NULL;
        struct state own = new_state();
        standin_set_devices(2);
        standin_lose_device_after(place);
        int result = cuda->open(1, 2, &context);
        if (!result)
            result = cuda->open_training(context, &net, IMAGES, &training);
        for (int again = 0; again < 8 && !result; again++) {
            result = cuda->train_forward(training, own.value, images, IMAGES, &pass, embeddings);
            if (!result)
                result = cuda->train_backward(training, own.value, slopes, 0, gradient, NULL);
        }
        if (result != ERROR_UNAVAILABLE || !strstr(error_message(), "device is lost"))
            fail_msg("lost after %d operations: result %d (%s)", (int)place, result, error_message());
        cuda->close_training(training);
        cuda->close(context);
        standin_restore_device();
        assert_clean();
        standin_set_devices(1);
        free_state(&own);
        free(embeddings);
        free(gradient);
    }
}

/* One of two devices is lost and the other is not: its sums would wait for ever, so it gives them up (ncclCommAbort). Whichever it is
 * and whenever: the error names the device, nothing waits, and closing leaves nothing. */
static void one_of_two_devices_is_lost(void **state)
{
    unsigned aborted = standin_aborted_sums();
    (void)state;
    for (int place = 1; place < 260; place += 29) {
        float *embeddings = malloc(IMAGES * outputs * sizeof *embeddings), *gradient = malloc(count * sizeof *gradient);
        struct train_pass pass = {.seed = SEED, .step = 1, .key = key, .live_norm = 1};
        struct backend_context *context = NULL;
        struct training *training = NULL;
        struct state own = new_state();
        char named[16];
        int lost = place % 2;
        snprintf(named, sizeof named, "device %d: ", lost);
        standin_set_devices(2);
        standin_lose_one_device_after(lost, (uint64_t)place);
        int result = cuda->open(1, 2, &context);
        if (!result)
            result = cuda->open_training(context, &net, IMAGES, &training);
        for (int again = 0; again < 8 && !result; again++) {
            result = cuda->train_forward(training, own.value, images, IMAGES, &pass, embeddings);
            if (!result)
                result = cuda->train_backward(training, own.value, slopes, 0, gradient, NULL);
        }
        if (result != ERROR_UNAVAILABLE || !strstr(error_message(), named))
            fail_msg("device %d lost after %d: result %d (%s)", lost, place, result, error_message());
        if (training) /* and it stays so */
            assert_int_equal(cuda->train_forward(training, own.value, images, IMAGES, &pass, embeddings),
                             ERROR_UNAVAILABLE);
        cuda->close_training(training);
        cuda->close(context);
        standin_restore_device();
        assert_clean();
        standin_set_devices(1);
        free_state(&own);
        free(embeddings);
        free(gradient);
    }
    assert_true(standin_aborted_sums() > aborted);
}

/* A device that is lost while the ranks connect: none of the others waits for its rank, the error names it, and nothing is left. Then
 * they connect again. */
static void a_device_is_lost_while_ranks_connect(void **state)
{
    struct backend_context *context = NULL;
    (void)state;
    standin_set_devices(3);
    for (int turn = 0; turn < 3 * MOMENTS * 3; turn++) { /* seeds, moments, devices */
        int lost = turn % 3, moment = turn / 3 % MOMENTS;
        char named[16];
        snprintf(named, sizeof named, "device %d: ", lost);
        standin_set_seed((uint64_t)(turn / 3 / MOMENTS));
        standin_lose_at_connection(lost, (enum standin_moment)moment);
        int result = cuda->open(1, 3, &context);
        if (result != ERROR_UNAVAILABLE || !strstr(error_message(), named) ||
            !strstr(error_message(), "device is lost"))
            fail_msg("device %d lost at moment %d: result %d (%s)", lost, moment, result, error_message());
        assert_null(context);
        standin_restore_device();
        assert_clean();
        assert_int_equal(cuda->open(1, 3, &context), 0);
        cuda->close(context);
        context = NULL;
        assert_clean();
    }
    standin_set_devices(1);
    standin_set_seed(1);
}

/* An operation that is refused, on a device that goes on: an error, of which the next call knows nothing. Its outputs are its own, and the
 * memory of the call that failed is not touched again. */
static void the_next_call_is_a_new_one(void **state)
{
    size_t floats = IMAGES * outputs;
    float *right = malloc(floats * sizeof *right), *first = malloc(floats * sizeof *first);
    float *kept = malloc(floats * sizeof *kept), *second = malloc(floats * sizeof *second);
    (void)state;
    forward(1, NULL, right);
    for (int devices = 1; devices <= 2; devices++)
        for (int place = 1, code = 1; code; place++) {
            struct backend_context *context;
            struct plan *plan;
            standin_set_devices(devices);
            assert_int_equal(cuda->open(1, devices, &context), 0);
            assert_int_equal(cuda->compile(context, &net, parameters, PRECISION_FP32, &plan), 0);
            standin_refuse_after(devices - 1, (uint64_t)place);
            memset(first, 0xff, floats * sizeof *first);
            memset(second, 0xff, floats * sizeof *second);
            code = cuda->forward(plan, images, IMAGES, first);
            standin_refuse_after(0, 0);
            memcpy(kept, first, floats * sizeof *kept);
            int next = cuda->forward(plan, images, IMAGES, second);
            if (next && code != ERROR_UNAVAILABLE) /* which ends a worker of several devices */
                fail_msg("%d devices, %d: after %d the next call gives %d (%s)", devices, place, code, next,
                         error_message());
            assert_memory_equal(first, kept, floats * sizeof *kept);
            if (!next)
                assert_memory_equal(second, right, floats * sizeof *right);
            assert_true(code || place > 10);
            cuda->free_plan(plan);
            cuda->close(context);
            assert_clean();
        }
    standin_set_devices(1);
    free(right);
    free(first);
    free(kept);
    free(second);
}

/* The same of training over two devices: sums that only one rank came to end the worker, and nobody waits for them. */
static void a_refusal_keeps_nobody_waiting(void **state)
{
    int survived = 0, ended = 0;
    float *embeddings = malloc(IMAGES * outputs * sizeof *embeddings);
    (void)state;
    for (int place = 1, result = 1; result; place++) {
        struct train_pass pass = {.seed = SEED, .step = 1, .key = key, .live_norm = 1};
        struct backend_context *context;
        struct training *training;
        struct state own = new_state();
        standin_set_devices(2);
        assert_int_equal(cuda->open(1, 2, &context), 0);
        assert_int_equal(cuda->open_training(context, &net, IMAGES, &training), 0);
        standin_refuse_after(1, (uint64_t)place);
        result = cuda->train_forward(training, own.value, images, IMAGES, &pass, embeddings);
        standin_refuse_after(0, 0);
        int next = cuda->train_forward(training, own.value, images, IMAGES, &pass, embeddings);
        if (next && next != ERROR_UNAVAILABLE)
            fail_msg("refused %d (%d): the next call gives %d (%s)", place, result, next, error_message());
        survived += result && !next;
        ended += result && next;
        cuda->close_training(training);
        cuda->close(context);
        assert_clean();
        free_state(&own);
    }
    standin_set_devices(1);
    printf("refused: %d passes that the next one followed, %d that ended the worker\n", survived, ended);
    assert_true(survived > 0 && ended > 0);
    free(embeddings);
}

/* Descriptors for another number of images that cannot be had: the next call asks for them again. */
static void products_are_open_or_not(void **state)
{
    float *right = malloc(IMAGES * outputs * sizeof *right), *have = malloc(IMAGES * outputs * sizeof *have);
    struct train_pass pass = {.seed = SEED, .step = 1, .key = key};
    (void)state;
    for (int place = 0, code = 1; place == 1 || code; place++) { /* 0: none is refused */
        struct backend_context *context;
        struct training *training;
        struct state own = new_state();
        assert_int_equal(cuda->open(1, 1, &context), 0);
        assert_int_equal(cuda->open_training(context, &net, IMAGES, &training), 0);
        standin_refuse_handle_after((uint64_t)place);
        code = cuda->train_forward(training, own.value, images, 3, &pass, place ? have : right);
        standin_refuse_handle_after(0);
        if (code) {
            assert_int_equal(code, ERROR_LIMIT);
            assert_int_equal(cuda->train_forward(training, own.value, images, 3, &pass, have), 0);
        }
        if (place)
            assert_memory_equal(have, right, 3 * outputs * sizeof *right);
        assert_true(code || !place || place > 10);
        cuda->close_training(training);
        cuda->close(context);
        assert_clean();
        free_state(&own);
    }
    free(right);
    free(have);
}

/* Opens a device, embeds all images and closes it again. */
static int embed_once(float *embeddings)
{
    struct backend_context *context = NULL;
    struct plan *plan = NULL;
    int result = cuda->open(1, 1, &context);
    if (!result)
        result = cuda->compile(context, &net, parameters, PRECISION_FP32, &plan);
    if (!result)
        result = cuda->forward(plan, images, IMAGES, embeddings);
    cuda->free_plan(plan);
    cuda->close(context);
    return result;
}

/* Every status after which the process must be relaunched, wherever it comes up first: at a kernel, a copy or inside of a library,
 * whose calls the program's own runtime does not see. */
static void every_loss_ends_the_worker(void **state)
{
    static const int statuses[] = {cudaErrorIllegalAddress, cudaErrorMisalignedAddress, cudaErrorUnknown};
    float *embeddings = malloc(IMAGES * outputs * sizeof *embeddings);
    (void)state;
    for (size_t s = 0; s < sizeof statuses / sizeof *statuses; s++)
        for (int place = 0, code = 1; code; place++) {
            standin_lose_with(statuses[s]);
            standin_lose_device_after((uint64_t)place);
            code = embed_once(embeddings);
            if (code && (code != ERROR_UNAVAILABLE || !strstr(error_message(), "device is lost")))
                fail_msg("status %d after %d operations: result %d (%s)", statuses[s], place, code, error_message());
            assert_true(code || place > 20);
            standin_restore_device();
            assert_clean();
        }
    free(embeddings);
}

static void more_devices_than_there_are(void **state)
{
    struct backend_context *context = NULL;
    (void)state;
    standin_set_devices(2);
    assert_int_equal(cuda->open(1, 3, &context), ERROR_UNAVAILABLE);
    assert_non_null(strstr(error_message(), "worker.devices = 3, and there are 2"));
    assert_int_equal(cuda->open(1, 9, &context), ERROR_INPUT);
    standin_set_devices(1);
    assert_clean();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_find_what_one_finds),
        cmocka_unit_test(ranks_find_the_same_bits_again),
        cmocka_unit_test(embeddings_do_not_depend_on_devices),
        cmocka_unit_test(scores_do_not_depend_on_devices),
        cmocka_unit_test(stopping_ends_every_rank),
        cmocka_unit_test(views_are_those_of_the_host),
        cmocka_unit_test(large_images_are_looked_at_by_the_host),
        cmocka_unit_test(learning_on_the_device_is_learning_here),
        cmocka_unit_test(what_is_not_held_is_an_error),
        cmocka_unit_test(needs_are_told_before),
        cmocka_unit_test(too_large_a_batch),
        cmocka_unit_test(a_lost_device_keeps_nobody_waiting),
        cmocka_unit_test(one_of_two_devices_is_lost),
        cmocka_unit_test(a_device_is_lost_while_ranks_connect),
        cmocka_unit_test(the_next_call_is_a_new_one),
        cmocka_unit_test(a_refusal_keeps_nobody_waiting),
        cmocka_unit_test(products_are_open_or_not),
        cmocka_unit_test(every_loss_ends_the_worker),
        cmocka_unit_test(more_devices_than_there_are),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
