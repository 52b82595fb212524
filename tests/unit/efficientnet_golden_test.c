/*
 * EfficientNet-B0 of the cpu backend against PyTorch (tests/golden/efficientnet_b0.py): random weights by the
 * documented rule, batch-norm statistics taken from four images, and the embedding of a fifth, with both
 * kinds of padding, one and three channels, even and odd sides.
 */
#include "tests/support/backend_under_test.h"
#include "tests/support/golden_nets.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/golden/efficientnet_b0_golden.h"

#define TOLERANCE 1e-4

/* Four sums over the channels, one pair sensitive to their order; relative to the sums of sizes. */
static void check_statistics(const float *norm, int channels, const struct golden *golden, int number)
{
    const float *mean = norm + 2 * channels, *variance = norm + 3 * channels;
    const double *want = golden->norm[number];
    double sum[4] = {0};
    for (int c = 0; c < channels; c++) {
        sum[0] += fabs((double)mean[c]);
        sum[1] += (double)mean[c] * cos(c);
        sum[2] += (double)variance[c];
        sum[3] += (double)variance[c] * cos(c);
    }
    for (int i = 0; i < 4; i++)
        if (!(fabs(sum[i] - want[i]) <= TOLERANCE * want[i / 2 * 2]))
            fail_msg("side %d, batch norm %d, sum %d: %.9g, PyTorch has %.9g", golden->side, number, i, sum[i],
                     want[i]);
}

/* Running statistics other than those of the batch, so that each counts in the embedding. */
static void perturb_statistics(float *norm, int channels, int number)
{
    float *mean = norm + 2 * channels, *variance = norm + 3 * channels;
    for (int c = 0; c < channels; c++) {
        mean[c] += (float)(0.02 * sqrt((double)variance[c]) * sin(1.1 * c + number));
        variance[c] *= (float)(1 + 0.04 * sin(0.9 * c + number));
    }
}

/* Checks and then perturbs the statistics of every batch norm. */
static void check_norms(const struct net *net, float *parameters, const struct golden *golden)
{
    int number = 0;
    for (int i = 0; i < net->layers; i++) {
        const struct layer *layer = &net->layer[i];
        if (layer->kind == LAYER_BATCH_NORM) {
            check_statistics(parameters, layer->out, golden, number);
            perturb_statistics(parameters, layer->out, number++);
        }
        parameters += layer_parameter_count(layer);
    }
}

static void check_embedding(const float *embedding, const struct golden *golden)
{
    double error = 0, size = 0, largest = 0, worst = 0;
    for (int i = 0; i < 1280; i++) {
        double difference = (double)embedding[i] - golden->embedding[i];
        error += difference * difference;
        size += golden->embedding[i] * golden->embedding[i];
        worst = fmax(worst, fabs(difference));
        largest = fmax(largest, fabs(golden->embedding[i]));
    }
    print_message("side %d: relative error %.2g, largest %.2g\n", golden->side, sqrt(error / size), worst / largest);
    assert_true(size > 1); /* an embedding that vanished would compare with anything */
    assert_true(sqrt(error / size) <= TOLERANCE);
    assert_true(worst / largest <= TOLERANCE);
}

static void check_golden(const struct golden *golden)
{
    struct backend_context *context;
    struct plan *plan;
    struct net net;
    size_t floats = (size_t)golden->side * (size_t)golden->side * (size_t)golden->channels;
    float *images = malloc((GOLDEN_BATCH + 1) * floats * sizeof *images), embedding[1280];
    net_efficientnet_b0(golden->channels, golden->side, &net);
    net.padding = golden->same ? PADDING_SAME : PADDING_SYMMETRIC;
    net.epsilon = (float)golden->epsilon;
    assert_int_equal(net_parameter_count(&net), golden->parameters);
    float *parameters = malloc(golden->parameters * sizeof *parameters);
    for (int n = 0; n <= GOLDEN_BATCH; n++)
        golden_image(GOLDEN_SEED, n, golden->channels, golden->side, images + (size_t)n * floats);
    net_random_parameters(&net, GOLDEN_SEED, parameters);
    assert_int_equal(golden_norms(&net, parameters), GOLDEN_NORMS);
    assert_int_equal(BACKEND_UNDER_TEST->open(2, 1, &context), 0);
    assert_int_equal(BACKEND_UNDER_TEST->calibrate(context, &net, images, GOLDEN_BATCH, parameters), 0);
    check_norms(&net, parameters, golden);
    assert_int_equal(BACKEND_UNDER_TEST->compile(context, &net, parameters, PRECISION_FP32, &plan), 0);
    assert_int_equal(BACKEND_UNDER_TEST->forward(plan, images + GOLDEN_BATCH * floats, 1, embedding), 0);
    check_embedding(embedding, golden);
    BACKEND_UNDER_TEST->free_plan(plan);
    BACKEND_UNDER_TEST->close(context);
    free(parameters);
    free(images);
}

static void embeddings_equal_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++)
        check_golden(&goldens[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(embeddings_equal_pytorch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
