/*
 * Training, one suite over every backend: outputs, running statistics and every gradient against plain loops in double
 * precision, which in turn are held against finite differences. Errors are relative to the largest reference value of
 * each tensor.
 */
#include "base/error.h"
#include "cpu/head_kernels.h"
#include "tests/support/backend_under_test.h"
#include "tests/support/reference_backend.h"
#include "tests/support/small_nets.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct backend *const backends[] = {BACKEND_UNDER_TEST};
#define BACKENDS (sizeof backends / sizeof *backends)

/* Relative error allowed for outputs and gradients after one layer of each kind. */
static const double tolerance[] = {
    [LAYER_CONV] = 5e-6, [LAYER_BATCH_NORM] = 2e-5, [LAYER_SWISH] = 2e-6, [LAYER_SE] = 1e-5,       [LAYER_ADD] = 5e-6,
    [LAYER_POOL] = 1e-6, [LAYER_BIAS] = 2e-6,       [LAYER_RELU] = 1e-6,  [LAYER_MAX_POOL] = 1e-6,
};
#define TOLERANCE_NET 1e-4
#define TOLERANCE_B0  1e-3

/* What one pass forward and back leaves. */
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

struct problem {
    const struct net *net;
    const float *parameters, *images, *slopes; /* slopes: d loss / d outputs */
    size_t count;
    struct train_pass pass;
    int first_layer;
};

static size_t image_floats(const struct net *net)
{
    return (size_t)net->side * (size_t)net->side * (size_t)net->channels;
}

static struct outcome train(const struct backend *backend, int threads, const struct problem *problem)
{
    const struct net *net = problem->net;
    size_t parameters = (net_parameter_count(net) + 1) * sizeof(float);
    size_t images = problem->count * image_floats(net) * sizeof(float);
    size_t outputs = problem->count * output_floats(net) * sizeof(float);
    struct outcome outcome = {malloc(outputs), calloc(1, parameters), malloc(parameters), malloc(images)};
    struct backend_context *context;
    struct training *training;
    memcpy(outcome.parameters, problem->parameters, parameters - sizeof(float));
    memset(outcome.outputs, 0xff, outputs);
    memset(outcome.gradients, 0xff, parameters);
    memset(outcome.image_gradients, 0, images);
    assert_int_equal(backend->open(threads, 1, &context), 0);
    assert_int_equal(backend->open_training(context, net, problem->count + 1, &training), 0);
    if (backend->train_forward(training, outcome.parameters, problem->images, problem->count, &problem->pass,
                               outcome.outputs))
        fail_msg("%s, side %d, %zu images: %s", net->name, net->side, problem->count, error_message());
    assert_int_equal(backend->train_backward(training, outcome.parameters, problem->slopes, problem->first_layer,
                                             outcome.gradients, problem->first_layer ? NULL : outcome.image_gradients),
                     0);
    backend->close_training(training);
    backend->close(context);
    return outcome;
}

/* Zeros must be zeros: a gradient that is not there at all has no relative error. */
static double error_of(const float *have, const float *want, size_t count)
{
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)want[i]));
    if (largest > 0)
        return relative_error(have, want, count);
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)have[i]));
    return largest;
}

/*
 * Weights in front of a live batch norm have gradients that cancel (moving or scaling all inputs changes nothing), down to
 * rounding where they feed a single pixel: such a tensor is held to the size of gradients around it.
 */
static void assert_same_tensors(const struct net *net, const struct outcome *have, const struct outcome *want,
                                double allowed)
{
    struct net_tensor *tensor = calloc(4 * NET_LAYERS_MAX, sizeof *tensor);
    int tensors = net_tensors(net, tensor, 4 * NET_LAYERS_MAX);
    double largest = 0;
    for (size_t i = 0; i < net_parameter_count(net); i++)
        largest = fmax(largest, fabs((double)want->gradients[i]));
    for (int t = 0; t < tensors; t++) {
        size_t at = tensor[t].offset, count = tensor[t].count;
        double size = 0, off = 0;
        for (size_t i = at; i < at + count; i++) {
            size = fmax(size, fabs((double)want->gradients[i]));
            off = fmax(off, fabs((double)have->gradients[i] - (double)want->gradients[i]));
            assert_true(isfinite(have->gradients[i]));
        }
        if (!(off <= allowed * fmax(size, 1e-2 * largest)))
            fail_msg("%s: gradient of %s, side %d: error %g of %g, allowed %g", net->name, tensor[t].name, net->side,
                     off, size, allowed);
        double error = error_of(have->parameters + at, want->parameters + at, count);
        if (!(error <= allowed))
            fail_msg("%s: %s after the pass, side %d: error %g, allowed %g", net->name, tensor[t].name, net->side,
                     error, allowed);
    }
    free(tensor);
}

static void assert_same_outcome(const struct problem *problem, double allowed)
{
    const struct net *net = problem->net;
    struct outcome want = train(&backend_reference, 1, problem);
    for (size_t b = 0; b < BACKENDS; b++)
        for (int threads = 1; threads <= BACKEND_THREADS; threads++) {
            struct outcome have = train(backends[b], threads, problem);
            double error = relative_error(have.outputs, want.outputs, problem->count * output_floats(net));
            if (!(error <= allowed))
                fail_msg("%s: %s, side %d, %zu images: outputs off by %g, allowed %g", backends[b]->name, net->name,
                         net->side, problem->count, error, allowed);
            assert_same_tensors(net, &have, &want, allowed);
            error = problem->first_layer
                        ? 0
                        : error_of(have.image_gradients, want.image_gradients, problem->count * image_floats(net));
            if (!(error <= allowed * 10))
                fail_msg("%s: %s, side %d, %zu images: gradient of the images off by %g, allowed %g", backends[b]->name,
                         net->name, net->side, problem->count, error, allowed * 10);
            free_outcome(&have);
        }
    free_outcome(&want);
}

static float *random_slopes(const struct net *net, size_t count)
{
    size_t floats = count * output_floats(net);
    float *slopes = malloc(floats * sizeof *slopes);
    for (size_t i = 0; i < floats; i++)
        slopes[i] = uniform(77, i) - 0.5f;
    return slopes;
}

static void check_net(const struct net *net, size_t count, int live_norm, int first_layer, double allowed)
{
    float *parameters = random_parameters(net), *images = random_images(net, count, 1);
    float *slopes = random_slopes(net, count);
    uint64_t key[16];
    for (size_t i = 0; i < 16; i++)
        key[i] = 1000 + 7 * i;
    struct problem problem = {
        net, parameters, images, slopes, count, {9, 4, key, live_norm},
             first_layer
    };
    assert_same_outcome(&problem, allowed);
    free(slopes);
    free(images);
    free(parameters);
}

/* --- one layer ---------------------------------------------------------------------------------------------------- */

static void check_layer(const struct net *net, size_t count)
{
    enum layer_kind kind = net->layer[net->layers - 1].kind;
    if (kind == LAYER_BATCH_NORM && net->side == 1 && count == 1)
        return; /* the statistics of a single value: see one_value() */
    check_net(net, count, 1, 0, tolerance[kind]);
}

static void convolutions(void **state)
{
    (void)state;
    each_convolution(check_layer);
}

static void other_layers(void **state)
{
    (void)state;
    each_other_layer(check_layer);
}

static void squeeze_and_excitation(void **state)
{
    (void)state;
    each_squeeze_and_excitation(check_layer);
}

/* Around a convolution, with and without branches that are dropped; sums and masks on every side and both batches. */
static void additions(void **state)
{
    static const int channels[] = {1, 5, 16};
    struct net net;
    (void)state;
    for (size_t c = 0; c < 3; c++)
        for (int dropped = 0; dropped < 2; dropped++) {
            begin_net(&net, kind_names[LAYER_ADD], channels[c], 1, PADDING_SYMMETRIC);
            add_conv(&net, channels[c], channels[c], 1, 1, 1);
            add_conv(&net, channels[c], channels[c], 3, 1, 1);
            add_layer(&net, LAYER_ADD, channels[c], channels[c])->drop = dropped ? 0.5f : 0;
            on_all_sides(&net, check_layer);
        }
}

/* Batch norm of one value: the output is beta, nothing flows back to weight or image, everything to beta. */
static void one_value(void **state)
{
    struct net net;
    float parameters[] = {2, 3, 0, 1}, image = 5, slope = 7;
    (void)state;
    begin_net(&net, "norm", 1, 1, PADDING_SYMMETRIC);
    add_layer(&net, LAYER_BATCH_NORM, 1, 1);
    struct problem problem = {&net, parameters, &image, &slope, 1, {.live_norm = 1}, 0};
    for (size_t b = 0; b < BACKENDS; b++) {
        struct outcome have = train(backends[b], 1, &problem);
        assert_float_equal(have.outputs[0], 3, 1e-6f);
        assert_float_equal(have.gradients[0], 0, 1e-6f);
        assert_float_equal(have.gradients[1], 7, 1e-6f);
        assert_float_equal(have.image_gradients[0], 0, 1e-6f);
        assert_float_equal(have.parameters[2], 0.5f, 1e-6f); /* 0.9 * 0 + 0.1 * 5 */
        free_outcome(&have);
    }
}

/* --- whole nets --------------------------------------------------------------------------------------------------- */

static void small_nets(void **state)
{
    struct net net;
    (void)state;
    for (int padding = 0; padding < 2; padding++)
        for (int live = 0; live < 2; live++) {
            small_net(&net, padding ? 3 : 1, padding ? 32 : 47, padding ? PADDING_SAME : PADDING_SYMMETRIC);
            check_net(&net, 5, live, 0, TOLERANCE_NET);
            for (int i = 0; i < net.layers; i++)
                net.layer[i].drop = net.layer[i].kind == LAYER_ADD ? 0.5f : 0;
            check_net(&net, 9, live, 0, TOLERANCE_NET);
            check_net(&net, 4, live, 12, TOLERANCE_NET); /* the lower layers stay as they are */
            check_net(&net, 4, live, net.layers - 2, TOLERANCE_NET);
        }
    bare_net(&net, 9);
    check_net(&net, 7, 1, 0, TOLERANCE_NET);
    net.layers = 3; /* ends with the addition */
    check_net(&net, 2, 1, 0, TOLERANCE_NET);
}

static void layers_without_norm(void **state)
{
    (void)state;
    each_layer_without_norm(check_layer);
}

static void plain_nets(void **state)
{
    struct net net;
    (void)state;
    for (size_t b = 0; b < 2; b++) {
        plain_net(&net, 1, 17, PADDING_SAME);
        check_net(&net, batch_sizes[b], 1, 0, TOLERANCE_NET);
        plain_net(&net, 3, 14, PADDING_SYMMETRIC);
        check_net(&net, batch_sizes[b], 1, 0, TOLERANCE_NET);
    }
}

static void named_nets(void **state)
{
    struct net net;
    (void)state;
    for (size_t b = 0; b < 2; b++) {
        assert_int_equal(net_by_name("walmsley2020", 1, 32, &net), 0);
        check_net(&net, batch_sizes[b], 1, 0, TOLERANCE_NET);
    }
    assert_int_equal(net_by_name("tf_efficientnet_lite0", 3, 33, &net), 0);
    check_net(&net, 4, 1, 0, TOLERANCE_B0);
}

/* A run that has diverged must not look finite behind a ReLU: on its own, and behind batch norm. */
static void nan_stays_nan(void **state)
{
    const struct train_pass pass = {9, 4, NULL, 0};
    float parameters[4] = {1, 0, 0, 1}, images[4] = {NAN, 3, -1, 0.5f}, outputs[4];
    struct net net;
    (void)state;
    for (size_t b = 0; b < BACKENDS; b++)
        for (int norm = 0; norm < 2; norm++) {
            struct backend_context *context;
            struct training *training;
            begin_net(&net, "relu", 1, 2, PADDING_SAME);
            if (norm)
                add_layer(&net, LAYER_BATCH_NORM, 1, 1);
            add_layer(&net, LAYER_RELU, 1, 1)->ceiling = 2;
            assert_int_equal(backends[b]->open(1, 1, &context), 0);
            assert_int_equal(backends[b]->open_training(context, &net, 1, &training), 0);
            assert_int_equal(backends[b]->train_forward(training, parameters, images, 1, &pass, outputs), 0);
            assert_true(isnan(outputs[0]) && outputs[1] > 1.9f && outputs[2] == 0 && outputs[3] > 0.4f);
            backends[b]->close_training(training);
            backends[b]->close(context);
        }
}

/* The rates of Walmsley et al. 2021's network, by block: those without a shortcut have none. */
static void depth_rates_of_b0(void **state)
{
    (void)state;
    static const double rates[] = {.025, .05, .075, .0875, .1125, .125, .15, .1625, .175};
    static struct net net;
    size_t found = 0;
    net_efficientnet_b0(1, 64, &net);
    net_set_stochastic_depth(&net, 0.2);
    for (int i = 0; i < net.layers; i++)
        if (net.layer[i].kind == LAYER_ADD) {
            assert_true(found < sizeof rates / sizeof *rates);
            assert_true(fabs((double)net.layer[i].drop - rates[found]) < 1e-7);
            found++;
        } else
            assert_true(net.layer[i].drop == 0);
    assert_int_equal(found, sizeof rates / sizeof *rates);
}

/* Branches are dropped as often as asked for, differently from galaxy to galaxy, step to step and seed to seed. */
static void stochastic_depth(void **state)
{
    enum { COUNT = 400 };
    struct net net;
    float parameters[2] = {1, 1}, outputs[4][COUNT], images[COUNT];
    uint64_t key[COUNT];
    (void)state;
    begin_net(&net, "branch", 1, 1, PADDING_SYMMETRIC);
    add_conv(&net, 1, 1, 1, 1, 1);
    add_conv(&net, 1, 1, 1, 1, 1);
    add_layer(&net, LAYER_ADD, 1, 1)->drop = 0.25f;
    for (int i = 0; i < COUNT; i++) {
        images[i] = 1;
        key[i] = (uint64_t)i;
    }
    for (size_t b = 0; b < BACKENDS; b++) {
        struct backend_context *context;
        struct training *training;
        const struct train_pass pass[4] = {
            {1, 1, key, 1},
            {1, 1, key, 1},
            {1, 2, key, 1},
            {2, 1, key, 1}
        };
        assert_int_equal(backends[b]->open(2, 1, &context), 0);
        assert_int_equal(backends[b]->open_training(context, &net, COUNT, &training), 0);
        for (int p = 0; p < 4; p++) {
            int dropped = 0;
            assert_int_equal(backends[b]->train_forward(training, parameters, images, COUNT, &pass[p], outputs[p]), 0);
            for (int i = 0; i < COUNT; i++) {
                assert_true(outputs[p][i] == 1 || fabsf(outputs[p][i] - (1 + 1 / 0.75f)) < 1e-6f);
                dropped += outputs[p][i] == 1;
            }
            assert_in_range(dropped, 70, 130); /* 100 expected, standard deviation 8.7 */
        }
        assert_memory_equal(outputs[0], outputs[1], sizeof outputs[0]);
        assert_memory_not_equal(outputs[0], outputs[2], sizeof outputs[0]);
        assert_memory_not_equal(outputs[0], outputs[3], sizeof outputs[0]);
        backends[b]->close_training(training);
        backends[b]->close(context);
    }
}

/* --- the oracle itself -------------------------------------------------------------------------------------------- */

/* A net, and how far its parameters and pixels are moved. */
struct difference_check {
    struct net net;
    struct train_pass pass;
    float step;
    double allowed;
};

#define DIFFERENCES_IMAGES 3
#define DIFFERENCES_PIXELS 12 /* moved: the one of the largest gradient in each of as many parts of the images */

static double loss(const struct difference_check *check, struct training *training, const struct problem *problem,
                   const float *parameters, const float *images)
{
    size_t floats = problem->count * output_floats(&check->net),
           bytes = net_parameter_count(&check->net) * sizeof(float);
    float *outputs = malloc(floats * sizeof *outputs), *own = malloc(bytes); /* the pass moves running statistics */
    double sum = 0;
    memcpy(own, parameters, bytes);
    assert_int_equal(backend_reference.train_forward(training, own, images, problem->count, &check->pass, outputs), 0);
    for (size_t i = 0; i < floats; i++)
        sum += (double)outputs[i] * (double)problem->slopes[i];
    free(own);
    free(outputs);
    return sum;
}

/* Moves one value there and back: it belongs to the parameters or to the images of the problem. */
static double central_difference(const struct difference_check *check, struct training *training,
                                 const struct problem *problem, float *value)
{
    float kept = *value;
    double difference[2], taken = 0;
    for (int way = 0; way < 2; way++) {
        *value = kept + (way ? check->step : -check->step);
        taken += way ? (double)*value : -(double)*value; /* not quite two steps, in float */
        difference[way] = loss(check, training, problem, problem->parameters, problem->images);
        *value = kept;
    }
    return (difference[1] - difference[0]) / taken;
}

static void assert_slope(const struct difference_check *check, const char *name, double want, double slope,
                         double least)
{
    if (!(fabs(slope - want) <= check->allowed * fmax(fabs(want), least)))
        fail_msg("%s: slope %g, finite difference %g (held to %g at least)", name, want, slope, least);
}

static size_t largest_of(const float *values, size_t count)
{
    size_t largest = 0;
    for (size_t i = 1; i < count; i++)
        largest = fabsf(values[i]) > fabsf(values[largest]) ? i : largest;
    return largest;
}

/* Central differences over parameters picked here and there in every tensor, and over some pixels. Returns how many tensors. */
static int check_finite_differences(const struct difference_check *check)
{
    const struct net *net = &check->net;
    size_t pixels = DIFFERENCES_IMAGES * image_floats(net);
    struct backend_context *context;
    struct training *training;
    float *parameters = random_parameters(net), *images = random_images(net, DIFFERENCES_IMAGES, 1);
    float *slopes = random_slopes(net, DIFFERENCES_IMAGES);
    struct problem problem = {net, parameters, images, slopes, DIFFERENCES_IMAGES, check->pass, 0};
    struct outcome reference = train(&backend_reference, 1, &problem);
    struct net_tensor *tensor = calloc(4 * NET_LAYERS_MAX, sizeof *tensor);
    int tensors = net_tensors(net, tensor, 4 * NET_LAYERS_MAX), checked = 0;
    double largest = fabs((double)reference.gradients[largest_of(reference.gradients, net_parameter_count(net))]);
    backend_reference.open(1, 1, &context);
    backend_reference.open_training(context, net, DIFFERENCES_IMAGES, &training);
    for (int t = 0; t < tensors; t++) {
        size_t at = tensor[t].offset + tensor[t].count / 2;
        if (strstr(tensor[t].name, "running_"))
            continue;
        assert_slope(check, tensor[t].name, (double)reference.gradients[at],
                     central_difference(check, training, &problem, &parameters[at]), 0.02 * largest);
        checked++;
    }
    largest = fabs((double)reference.image_gradients[largest_of(reference.image_gradients, pixels)]);
    assert_true(largest > 0);
    for (size_t i = 0; i < DIFFERENCES_PIXELS; i++) {
        size_t first = pixels * i / DIFFERENCES_PIXELS, end = pixels * (i + 1) / DIFFERENCES_PIXELS;
        size_t at = first + largest_of(reference.image_gradients + first, end - first);
        assert_slope(check, "a pixel", (double)reference.image_gradients[at],
                     central_difference(check, training, &problem, &images[at]), largest);
    }
    backend_reference.close_training(training);
    backend_reference.close(context);
    free(tensor);
    free_outcome(&reference);
    free(slopes);
    free(images);
    free(parameters);
    return checked;
}

/* With batch norm live and frozen, all branches and some dropped. */
static void finite_differences(void **state)
{
    (void)state;
    for (int live = 0; live < 2; live++)
        for (int dropped = 0; dropped < 2; dropped++) {
            struct difference_check check = {
                .pass = {9, 4, NULL, live},
                  .step = 1e-2f, .allowed = 5e-3
            };
            small_net(&check.net, 1, 17, PADDING_SAME);
            for (int i = 0; i < check.net.layers && dropped; i++)
                check.net.layer[i].drop = check.net.layer[i].kind == LAYER_ADD ? 0.5f : 0;
            assert_true(check_finite_differences(&check) > 40);
        }
}

/* A difference across a bend of ReLU or max pooling is no slope: there the step is so small that few are crossed, and rounding of the
 * outputs allows less. */
static void finite_differences_at_bends(void **state)
{
    (void)state;
    for (int ceiling = 0; ceiling < 2; ceiling++) {
        struct difference_check check = {
            .pass = {9, 4, NULL, 1},
              .step = 2e-5f, .allowed = 2e-2
        };
        plain_net(&check.net, 1, 17, PADDING_SAME);
        for (int i = 0; i < check.net.layers && ceiling; i++)
            check.net.layer[i].ceiling = check.net.layer[i].kind == LAYER_RELU ? 0.5f : 0;
        assert_int_equal(check_finite_differences(&check), 8 + 7 + 2);
    }
}

/* --- promises ----------------------------------------------------------------------------------------------------- */

static void same_bits_again(void **state)
{
    struct net net;
    (void)state;
    small_net(&net, 1, 33, PADDING_SYMMETRIC);
    size_t bytes = net_parameter_count(&net) * sizeof(float);
    float *parameters = random_parameters(&net), *images = random_images(&net, 7, 1), *slopes = random_slopes(&net, 7);
    struct problem problem = {
        &net, parameters, images, slopes, 7, {9, 4, NULL, 1},
             0
    };
    for (size_t b = 0; b < BACKENDS; b++)
        for (int threads = 1; threads <= BACKEND_THREADS; threads++) {
            struct outcome one = train(backends[b], threads, &problem), two = train(backends[b], threads, &problem);
            assert_memory_equal(one.gradients, two.gradients, bytes);
            assert_memory_equal(one.parameters, two.parameters, bytes);
            free_outcome(&one);
            free_outcome(&two);
        }
    free(slopes);
    free(images);
    free(parameters);
}

/* Batches of changing size through one object give what an object of its own gives. */
/* train_kernels.h: AVX2 and AVX-512 change nothing but the time. */
static void same_bits_for_any_instruction_set(void **state)
{
    static const char *const sets[] = {"avx2", "avx512"};
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        struct net net;
        if (plain)
            plain_net(&net, 1, 17, PADDING_SAME);
        else
            small_net(&net, 3, 17, PADDING_SAME);
        float *parameters = random_parameters(&net), *images = random_images(&net, 5, 1),
              *slopes = random_slopes(&net, 5);
        struct problem problem = {
            &net, parameters, images, slopes, 5, {9, 4, NULL, 1},
                 0
        };
        assert_int_equal(head_kernels_choose("portable"), 0);
        struct outcome want = train(&backend_cpu, 2, &problem);
        for (size_t s = 0; s < 2; s++) {
            if (head_kernels_choose(sets[s]))
                continue; /* this processor has none */
            struct outcome have = train(&backend_cpu, 2, &problem);
            assert_memory_equal(have.outputs, want.outputs, 5 * output_floats(&net) * sizeof(float));
            assert_memory_equal(have.gradients, want.gradients, net_parameter_count(&net) * sizeof(float));
            assert_memory_equal(have.parameters, want.parameters, net_parameter_count(&net) * sizeof(float));
            free_outcome(&have);
        }
        assert_int_equal(head_kernels_choose(NULL), 0);
        free_outcome(&want);
        free(slopes);
        free(images);
        free(parameters);
    }
}

static void batches_of_any_size(void **state)
{
    static const size_t counts[] = {4, 4, 4, 1, 7, 2, 4};
    struct net net;
    (void)state;
    small_net(&net, 1, 20, PADDING_SYMMETRIC);
    size_t floats = net_parameter_count(&net);
    float *parameters = random_parameters(&net), *images = random_images(&net, 7, 1), *slopes = random_slopes(&net, 7);
    float *gradients = malloc(floats * sizeof *gradients), *moved = malloc(floats * sizeof *moved), outputs[7 * 20];
    for (size_t b = 0; b < BACKENDS; b++) {
        struct backend_context *context;
        struct training *training;
        backends[b]->open(2, 1, &context);
        assert_int_equal(backends[b]->open_training(context, &net, 7, &training), 0);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct problem problem = {
                &net, parameters, images, slopes, counts[i], {9, 4, NULL, 1},
                     0
            };
            struct outcome alone = train(backends[b], 2, &problem);
            memcpy(moved, parameters, floats * sizeof *moved);
            assert_int_equal(backends[b]->train_forward(training, moved, images, counts[i], &problem.pass, outputs), 0);
            assert_int_equal(backends[b]->train_backward(training, moved, slopes, 0, gradients, NULL), 0);
            assert_memory_equal(outputs, alone.outputs, counts[i] * 20 * sizeof(float));
            assert_memory_equal(gradients, alone.gradients, floats * sizeof(float));
            free_outcome(&alone);
        }
        struct train_pass pass = {.live_norm = 1};
        assert_int_equal(backends[b]->train_forward(training, moved, images, 0, &pass, outputs), ERROR_INPUT);
        assert_int_equal(backends[b]->train_forward(training, moved, images, 8, &pass, outputs), ERROR_INPUT);
        assert_non_null(strstr(error_message(), "a batch of 8 images: between 1 and 7 fit"));
        backends[b]->close_training(training);
        backends[b]->close_training(NULL);
        backends[b]->close(context);
    }
    free(moved);
    free(gradients);
    free(slopes);
    free(images);
    free(parameters);
}

static void efficientnet_b0(void **state)
{
    struct net net;
    (void)state;
    net_efficientnet_b0(1, 64, &net);
    check_net(&net, 4, 1, 0, TOLERANCE_B0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),
        cmocka_unit_test(other_layers),
        cmocka_unit_test(squeeze_and_excitation),
        cmocka_unit_test(additions),
        cmocka_unit_test(one_value),
        cmocka_unit_test(layers_without_norm),
        cmocka_unit_test(plain_nets),
        cmocka_unit_test(named_nets),
        cmocka_unit_test(small_nets),
        cmocka_unit_test(nan_stays_nan),
        cmocka_unit_test(stochastic_depth),
        cmocka_unit_test(depth_rates_of_b0),
        cmocka_unit_test(finite_differences),
        cmocka_unit_test(finite_differences_at_bends),
        cmocka_unit_test(same_bits_again),
        cmocka_unit_test(same_bits_for_any_instruction_set),
        cmocka_unit_test(batches_of_any_size),
        cmocka_unit_test(efficientnet_b0),
    };
    printf("seed %u\n", NETS_SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
