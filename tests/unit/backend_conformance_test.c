/*
 * One suite over every backend that runs nets: each kind of layer in a net of its own, small whole nets, then
 * EfficientNet-B0, against plain loops in double precision. Errors are relative to the largest reference
 * value.
 */
#include "base/error.h"
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

#ifdef TEST_BACKEND_CUDA
#define TOLERANCE_CONV 3e-6 /* cuDNN on an H200 is 2.05e-6 off with 7 images */
#else
#define TOLERANCE_CONV 2e-6
#endif

/* Relative error allowed after one layer of each kind. */
static const double tolerance[] = {
    [LAYER_CONV] = TOLERANCE_CONV,
    [LAYER_BATCH_NORM] = 1e-6,
    [LAYER_SWISH] = 1e-6,
    [LAYER_SE] = 2e-6,
    [LAYER_ADD] = 1e-6,
    [LAYER_POOL] = 1e-6,
    [LAYER_BIAS] = 1e-6,
    [LAYER_RELU] = 1e-6,
    [LAYER_MAX_POOL] = 1e-6,
};
#define TOLERANCE_SMALL_NET 1e-5
#define TOLERANCE_B0        2e-5

static float *run(const struct backend *backend, int threads, const struct net *net, enum precision precision,
                  const float *parameters, const float *images, size_t count)
{
    struct backend_context *context;
    struct plan *plan;
    float *outputs = malloc(count * output_floats(net) * sizeof *outputs);
    memset(outputs, 0xff, count * output_floats(net) * sizeof *outputs);
    assert_int_equal(backend->open(threads, 1, &context), 0);
    assert_int_equal(backend->compile(context, net, parameters, precision, &plan), 0);
    assert_int_equal(backend->forward(plan, images, count, outputs), 0);
    backend->free_plan(plan);
    backend->close(context);
    return outputs;
}

static void assert_same_forward(const struct net *net, size_t count, double allowed)
{
    float *parameters = random_parameters(net), *images = random_images(net, count, 1);
    float *want = run(&backend_reference, 1, net, PRECISION_FP32, parameters, images, count);
    for (size_t b = 0; b < BACKENDS; b++) {
        float *have = run(backends[b], 2, net, PRECISION_FP32, parameters, images, count);
        double error = relative_error(have, want, count * output_floats(net));
        if (!(error <= allowed))
            fail_msg("%s: %s, side %d, %zu images: error %g, allowed %g", backends[b]->name, net->name, net->side,
                     count, error, allowed);
        free(have);
    }
    free(want);
    free(images);
    free(parameters);
}

/* --- one layer ----------------------------------------------------------------------------------------------------- */

static void check_layer(const struct net *net, size_t count)
{
    assert_same_forward(net, count, tolerance[net->layer[net->layers - 1].kind]);
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

/* Swish far from zero: neither overflow nor NaN, and the tails are right. */
static void swish_far_from_zero(void **state)
{
    static const float images[] = {-1e30f, -200, -90, -88, -20, 0, 20, 88, 200, 1e30f, -1, -1e-30f, 1, 3, 5, 7};
    struct net net;
    float nothing = 0;
    (void)state;
    begin_net(&net, "swish", 1, 4, PADDING_SYMMETRIC);
    add_layer(&net, LAYER_SWISH, 1, 1);
    for (size_t b = 0; b < BACKENDS; b++) {
        float *have = run(backends[b], 1, &net, PRECISION_FP32, &nothing, images, 1);
        for (int i = 0; i < 16; i++) {
            double want = (double)images[i] / (1 + exp(-(double)images[i]));
            assert_true(fabs((double)have[i] - want) <= 1e-6 * fabs(want) + 1e-30);
        }
        free(have);
    }
}

/* --- whole nets ---------------------------------------------------------------------------------------------------- */

static void small_nets(void **state)
{
    static const int side[] = {32, 33, 47};
    struct net net;
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int padding = 0; padding < 2; padding++)
            for (int channels = 1; channels <= 3; channels += 2) {
                small_net(&net, channels, side[i], padding ? PADDING_SAME : PADDING_SYMMETRIC);
                assert_same_forward(&net, 3, TOLERANCE_SMALL_NET);
                net.layers -= 1; /* without the pool, which would hide a pixel out of place */
                assert_same_forward(&net, 2, TOLERANCE_SMALL_NET);
            }
    bare_net(&net, 9);
    assert_same_forward(&net, 7, TOLERANCE_SMALL_NET);
    net.layers = 3; /* ends with the addition */
    assert_same_forward(&net, 1, TOLERANCE_SMALL_NET);
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
        assert_same_forward(&net, batch_sizes[b], TOLERANCE_SMALL_NET);
        plain_net(&net, 3, 14, PADDING_SYMMETRIC);
        assert_same_forward(&net, batch_sizes[b], TOLERANCE_SMALL_NET);
    }
}

static void named_nets(void **state)
{
    struct net net;
    (void)state;
    for (size_t b = 0; b < 2; b++) {
        assert_int_equal(net_by_name("walmsley2020", 1, 32, &net), 0);
        assert_same_forward(&net, batch_sizes[b], TOLERANCE_SMALL_NET);
    }
    assert_int_equal(net_by_name("efficientnet_lite0", 1, 64, &net), 0);
    assert_same_forward(&net, 1, TOLERANCE_B0);
    assert_int_equal(net_by_name("tf_efficientnet_lite0", 3, 33, &net), 0);
    assert_same_forward(&net, 7, TOLERANCE_B0);
}

/* What passes between layers is rounded to 8 bits of mantissa in bfloat16, the factors of products to 11 in TF32: as close as that allows
 * on every kind of step. */
static void lower_precisions(void **state)
{
    static const struct {
        enum precision precision;
        double allowed;
    } cases[] = {
        {PRECISION_BF16, 0.1 },
        {PRECISION_TF32, 0.01}
    };
    struct net nets[4];
    (void)state;
    small_net(&nets[0], 1, 33, PADDING_SYMMETRIC);
    small_net(&nets[1], 3, 32, PADDING_SAME);
    nets[1].layers -= 1; /* without the pool */
    plain_net(&nets[2], 3, 17, PADDING_SAME);
    bare_net(&nets[3], 9);
    for (size_t n = 0; n < 4; n++) {
        float *parameters = random_parameters(&nets[n]), *images = random_images(&nets[n], 5, 1);
        float *want = run(&backend_reference, 1, &nets[n], PRECISION_FP32, parameters, images, 5);
        for (size_t b = 0; b < BACKENDS; b++)
            for (size_t c = 0; c < 2; c++) {
                if (backends[b]->precision && backends[b]->precision(cases[c].precision) < 0) {
                    print_message("skipped: %s\n", error_message());
                    continue;
                }
                float *have = run(backends[b], 2, &nets[n], cases[c].precision, parameters, images, 5);
                double error = relative_error(have, want, 5 * output_floats(&nets[n]));
                if (!(error <= cases[c].allowed))
                    fail_msg("%s: %s in precision %d: error %g, allowed %g", backends[b]->name, nets[n].name,
                             (int)cases[c].precision, error, cases[c].allowed);
                free(have);
            }
        free(want);
        free(images);
        free(parameters);
    }
}

/* --- calibration --------------------------------------------------------------------------------------------------- */

static float *calibrated(const struct backend *backend, int threads, const struct net *net, const float *start,
                         const float *images, size_t count)
{
    struct backend_context *context;
    size_t bytes = net_parameter_count(net) * sizeof(float);
    float *parameters = malloc(bytes);
    memcpy(parameters, start, bytes);
    assert_int_equal(backend->open(threads, 1, &context), 0);
    assert_int_equal(backend->calibrate(context, net, images, count, parameters), 0);
    backend->close(context);
    return parameters;
}

/* Statistics of every norm agree, tensor by tensor; nothing else has changed. */
static void assert_same_calibration(const struct net *net, size_t count, double allowed)
{
    float *start = random_parameters(net), *images = random_images(net, count, 2);
    float *want = calibrated(&backend_reference, 1, net, start, images, count);
    struct net_tensor *tensor = calloc(4 * NET_LAYERS_MAX, sizeof *tensor);
    int tensors = net_tensors(net, tensor, 4 * NET_LAYERS_MAX);
    for (size_t b = 0; b < BACKENDS; b++) {
        float *have = calibrated(backends[b], 2, net, start, images, count);
        for (int t = 0; t < tensors; t++) {
            size_t at = tensor[t].offset, values = tensor[t].count;
            if (!strstr(tensor[t].name, "running_")) {
                assert_memory_equal(have + at, start + at, values * sizeof(float));
                continue;
            }
            assert_memory_not_equal(have + at, start + at, values * sizeof(float));
            double error = relative_error(have + at, want + at, values);
            if (!(error <= allowed))
                fail_msg("%s: %s of %s: error %g, allowed %g", backends[b]->name, tensor[t].name, net->name, error,
                         allowed);
        }
        free(have);
    }
    free(tensor);
    free(want);
    free(images);
    free(start);
}

static void calibration_of_small_nets(void **state)
{
    struct net net;
    (void)state;
    small_net(&net, 1, 33, PADDING_SYMMETRIC);
    assert_same_calibration(&net, 1, TOLERANCE_SMALL_NET);
    assert_same_calibration(&net, 7, TOLERANCE_SMALL_NET);
    small_net(&net, 3, 32, PADDING_SAME);
    assert_same_calibration(&net, 5, TOLERANCE_SMALL_NET);
    bare_net(&net, 9);
    assert_same_calibration(&net, 4, TOLERANCE_SMALL_NET);
}

/* The values 1 .. n have mean (n + 1) / 2 and unbiased variance n (n + 1) / 12. */
static void calibration_by_hand(void **state)
{
    enum { COUNT = 6, SIDE = 5, N = COUNT * SIDE * SIDE };
    float images[N], start[] = {1, 0, 7, 7};
    struct net net;
    (void)state;
    for (int i = 0; i < N; i++)
        images[i] = (float)(i * 37 % N + 1); /* 37 and 150 share no factor */
    begin_net(&net, "norm", 1, SIDE, PADDING_SYMMETRIC);
    add_layer(&net, LAYER_BATCH_NORM, 1, 1);
    for (size_t b = 0; b < BACKENDS; b++) {
        float *have = calibrated(backends[b], 2, &net, start, images, COUNT);
        assert_float_equal(have[2], (N + 1) / 2.0f, 1e-5f);
        assert_float_equal(have[3], N * (N + 1) / 12.0f, 1e-3f);
        free(have);
    }
}

/* --- promises ------------------------------------------------------------------------------------------------------ */

static void same_bits_for_any_threads(void **state)
{
    enum { COUNT = 9 };
    struct net net;
    (void)state;
    net_efficientnet_b0(1, 64, &net);
    float *parameters = random_parameters(&net), *images = random_images(&net, COUNT, 3);
    for (size_t b = 0; b < BACKENDS; b++) {
        float *one = calibrated(backends[b], 1, &net, parameters, images, COUNT);
        float *alone = run(backends[b], 1, &net, PRECISION_FP32, one, images, COUNT);
        for (int threads = 2; threads <= 3; threads++) {
            float *many = calibrated(backends[b], threads, &net, parameters, images, COUNT);
            float *together = run(backends[b], threads, &net, PRECISION_FP32, one, images, COUNT);
            assert_memory_equal(one, many, net_parameter_count(&net) * sizeof(float));
            assert_memory_equal(alone, together, COUNT * 1280 * sizeof(float));
            free(together);
            free(many);
        }
        float *last = run(backends[b], 2, &net, PRECISION_FP32, one, images + (COUNT - 1) * 64 * 64, 1);
        assert_memory_equal(alone + (COUNT - 1) * 1280, last, 1280 * sizeof(float));
        free(last);
        free(alone);
        free(one);
    }
    free(images);
    free(parameters);
}

/* A plan keeps its own copy of the parameters, and several live side by side and run again and again. */
static void plans_stand_alone(void **state)
{
    struct net net, other;
    (void)state;
    small_net(&net, 1, 33, PADDING_SYMMETRIC);
    small_net(&other, 3, 32, PADDING_SAME);
    float *parameters = random_parameters(&net), *images = random_images(&net, 5, 4), have[5 * 20];
    float *other_parameters = random_parameters(&other);
    float *want = run(&backend_reference, 1, &net, PRECISION_FP32, parameters, images, 5);
    for (size_t b = 0; b < BACKENDS; b++) {
        struct backend_context *context;
        struct plan *plan, *second;
        float *copy = malloc(net_parameter_count(&net) * sizeof(float));
        memcpy(copy, parameters, net_parameter_count(&net) * sizeof(float));
        assert_int_equal(backends[b]->open(2, 1, &context), 0);
        assert_int_equal(backends[b]->threads(context), 2);
        assert_int_equal(backends[b]->compile(context, &net, copy, PRECISION_FP32, &plan), 0);
        assert_int_equal(backends[b]->compile(context, &other, other_parameters, PRECISION_FP32, &second), 0);
        memset(copy, 0, net_parameter_count(&net) * sizeof(float));
        free(copy);
        for (int again = 0; again < 3; again++) {
            memset(have, 0, sizeof have);
            assert_int_equal(backends[b]->forward(plan, images, 5, have), 0);
            assert_true(relative_error(have, want, 100) <= TOLERANCE_SMALL_NET);
            assert_int_equal(backends[b]->forward(plan, images, 0, have), 0);
        }
        backends[b]->free_plan(second);
        backends[b]->free_plan(plan);
        backends[b]->free_plan(NULL);
        backends[b]->close(context);
        backends[b]->close(NULL);
    }
    free(want);
    free(other_parameters);
    free(images);
    free(parameters);
}

static void impossible_requests(void **state)
{
    struct net net;
    float parameters[4] = {1, 0, 0, 1}, image = 0;
    (void)state;
    for (size_t b = 0; b < BACKENDS; b++) {
        struct backend_context *context;
        struct plan *plan = NULL;
        assert_int_equal(backends[b]->open(1, 1, &context), 0);
        begin_net(&net, "norm", 1, 1, PADDING_SYMMETRIC);
        add_layer(&net, LAYER_BATCH_NORM, 1, 1);
        assert_int_equal(backends[b]->calibrate(context, &net, &image, 0, parameters), ERROR_INPUT);
        assert_non_null(strstr(error_message(), "at least one image"));
        begin_net(&net, "wide", 5000, 1, PADDING_SYMMETRIC);
        add_layer(&net, LAYER_SWISH, 5000, 5000);
        assert_int_equal(backends[b]->compile(context, &net, parameters, PRECISION_FP32, &plan), ERROR_LIMIT);
        assert_null(plan);
        backends[b]->close(context);
    }
}

static void efficientnet_b0(void **state)
{
    struct net net;
    (void)state;
    net_efficientnet_b0(1, 64, &net);
    float *images = random_images(&net, 6, 5), *start = random_parameters(&net);
    float *parameters = calibrated(&backend_reference, 1, &net, start, images, 6);
    float *want = run(&backend_reference, 1, &net, PRECISION_FP32, parameters, images + 4 * 64 * 64, 2);
    for (size_t b = 0; b < BACKENDS; b++) {
        float *have = run(backends[b], 2, &net, PRECISION_FP32, parameters, images + 4 * 64 * 64, 2);
        double error = relative_error(have, want, 2 * 1280);
        if (!(error <= TOLERANCE_B0))
            fail_msg("%s: B0: error %g, allowed %g", backends[b]->name, error, TOLERANCE_B0);
        free(have);
    }
    assert_same_calibration(&net, 6, TOLERANCE_B0);
    free(want);
    free(parameters);
    free(start);
    free(images);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),
        cmocka_unit_test(other_layers),
        cmocka_unit_test(squeeze_and_excitation),
        cmocka_unit_test(swish_far_from_zero),
        cmocka_unit_test(layers_without_norm),
        cmocka_unit_test(plain_nets),
        cmocka_unit_test(named_nets),
        cmocka_unit_test(small_nets),
        cmocka_unit_test(lower_precisions),
        cmocka_unit_test(calibration_of_small_nets),
        cmocka_unit_test(calibration_by_hand),
        cmocka_unit_test(same_bits_for_any_threads),
        cmocka_unit_test(plans_stand_alone),
        cmocka_unit_test(impossible_requests),
        cmocka_unit_test(efficientnet_b0),
    };
    printf("seed %u\n", NETS_SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
