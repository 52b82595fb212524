/*
 * The networks of model/net.h by name against PyTorch and timm (tests/golden/networks.py): parameters, names in timm's order
 * (by which the script filled them) and the embedding of one image.
 */
#include "base/error.h"
#include "tests/support/backend_under_test.h"
#include "tests/support/golden_nets.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/golden/networks_golden.h"

#define TOLERANCE 1e-4

static void check_golden(struct backend_context *context, const struct networks_golden *golden)
{
    struct net net;
    struct plan *plan;
    assert_int_equal(net_by_name(golden->net, golden->channels, golden->side, &net), 0);
    assert_int_equal(net_parameter_count(&net), golden->parameters);
    float *parameters = malloc(golden->parameters * sizeof *parameters), embedding[1280];
    float *image = malloc((size_t)(golden->side * golden->side * golden->channels) * sizeof *image);
    double off = 0, size = 0;
    golden_image(GOLDEN_SEED, 0, golden->channels, golden->side, image);
    net_random_parameters(&net, GOLDEN_SEED, parameters);
    golden_norms(&net, parameters);
    assert_int_equal(BACKEND_UNDER_TEST->compile(context, &net, parameters, PRECISION_FP32, &plan), 0);
    assert_int_equal(BACKEND_UNDER_TEST->forward(plan, image, 1, embedding), 0);
    for (int i = 0; i * GOLDEN_EVERY < net.outputs; i++) {
        off += pow((double)embedding[i * GOLDEN_EVERY] - golden->embedding[i], 2);
        size += pow(golden->embedding[i], 2);
    }
    print_message("%s, side %d: relative error %.2g\n", golden->net, golden->side, sqrt(off / size));
    assert_true(size > 1e-3); /* an embedding that vanished would compare with anything */
    assert_true(sqrt(off / size) <= TOLERANCE);
    BACKEND_UNDER_TEST->free_plan(plan);
    free(image);
    free(parameters);
}

static void embeddings_equal_timm(void **state)
{
    struct backend_context *context;
    (void)state;
    assert_int_equal(BACKEND_UNDER_TEST->open(2, 1, &context), 0);
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++)
        check_golden(context, &goldens[i]);
    BACKEND_UNDER_TEST->close(context);
}

static void names_and_sides(void **state)
{
    struct net net;
    (void)state;
    assert_int_equal(net_by_name("resnet50", 1, 224, &net), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "no network is called 'resnet50': there are efficientnet_b0"));
    assert_int_equal(net_by_name("walmsley2020", 1, 100, &net), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "a multiple of 16"));
    assert_int_equal(net_by_name("efficientnet_b0", 1, 16, &net), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "at least 32"));
    assert_int_equal(net_by_name("walmsley2020", 1, -16, &net), ERROR_INPUT);
    /* Published: trunk of B0 with one channel; the network of W+20 with its head of 2 (258). */
    assert_int_equal(net_by_name("efficientnet_b0", 1, 224, &net), 0);
    assert_int_equal(net_parameter_count(&net), 4048988);
    assert_int_equal(net_by_name("walmsley2020", 1, 128, &net), 0);
    assert_int_equal(net_parameter_count(&net) + 2 * (128 + 1), 1335394);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(embeddings_equal_timm), cmocka_unit_test(names_and_sides)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
