/*
 * Training on the backend under test against PyTorch (tests/golden/training.py): the gradient of every tensor as a whole and some of
 * its elements, running statistics, and the loss of ten AdamW steps, for EfficientNet-B0 in both conventions, the network of W+20 and timm's
 * EfficientNet-Lite0, with weights, images and batch norm from the same formulas. The gradients of EfficientNet-B0 also on the
 * reference backend, which the conformance suites compare others with.
 */
#include "model/optimizer.h"
#include "tests/support/backend_under_test.h"
#include "tests/support/golden_nets.h"
#include "tests/support/reference_backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/golden/training_golden.h"

#define WEIGHT_DECAY  0.01
#define SMALL_SHARE   1e-3 /* gradients that cancel are held to this share of the largest */
#define TENSORS_LIMIT 1024

/* Running statistics: after one step rounding only; after ten, steps of AdamW have magnified it (training_golden.h says how far
 * PyTorch's own float32 and float64 are apart then). */
#define RUNNING_FIRST 1e-4
#define RUNNING_LAST  1e-3

/*
 * Where a value crosses 0 or 6 the slope of a ReLU6 jumps: images moved by one rounding (6e-8 of each value) change gradients of
 * EfficientNet-Lite0 by up to 2.2e-2 on the cpu backend, so another order of sums can, too.
 */
#ifdef TEST_BACKEND_CUDA
#define KINKS 4
#else
#define KINKS 1
#endif

struct run {
    const struct backend *backend;
    const struct training_golden *golden;
    struct net net;
    struct backend_context *context;
    struct training *training;
    size_t count;
    float *value, *gradient, *moment1, *moment2, *images, *outputs, *slopes;
};

static void open_run(struct run *run, const struct backend *backend, const struct training_golden *golden)
{
    size_t batch = (size_t)golden->batch, side = (size_t)golden->side;
    *run = (struct run){.backend = backend, .golden = golden};
    assert_int_equal(net_by_name(golden->net, 1, golden->side, &run->net), 0);
    run->count = net_parameter_count(&run->net);
    float **const arrays[] = {&run->value, &run->gradient, &run->moment1, &run->moment2};
    for (size_t i = 0; i < 4; i++)
        *arrays[i] = calloc(run->count, sizeof(float));
    run->images = malloc(batch * side * side * sizeof(float));
    run->outputs = malloc(batch * (size_t)run->net.outputs * sizeof(float));
    run->slopes = malloc(batch * (size_t)run->net.outputs * sizeof(float));
    net_random_parameters(&run->net, GOLDEN_SEED, run->value);
    golden_norms(&run->net, run->value);
    for (int n = 0; n < golden->batch; n++)
        golden_image(GOLDEN_SEED, n, 1, golden->side, run->images + (size_t)n * side * side);
    assert_int_equal(backend->open(2, 1, &run->context), 0);
    assert_int_equal(backend->open_training(run->context, &run->net, batch, &run->training), 0);
}

static void close_run(struct run *run)
{
    run->backend->close_training(run->training);
    run->backend->close(run->context);
    float *const arrays[] = {run->value,  run->gradient, run->moment1, run->moment2,
                             run->images, run->outputs,  run->slopes};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
}

/* Mean squared distance from a fixed pattern, forward and back. */
static double forward_and_back(struct run *run, uint32_t step)
{
    const struct train_pass pass = {.step = step, .live_norm = 1};
    int width = run->net.outputs;
    size_t batch = (size_t)run->golden->batch, values = batch * (size_t)width;
    double loss = 0;
    assert_int_equal(run->backend->train_forward(run->training, run->value, run->images, batch, &pass, run->outputs),
                     0);
    for (size_t i = 0; i < values; i++) {
        double want = 0.5 * sin(0.01 * (double)(i % (size_t)width) + (double)(i / (size_t)width));
        double distance = (double)run->outputs[i] - want;
        loss += distance * distance / (double)values;
        run->slopes[i] = (float)(2 * distance / (double)values);
    }
    assert_int_equal(run->backend->train_backward(run->training, run->value, run->slopes, 0, run->gradient, NULL), 0);
    return loss;
}

static int learns(const struct net_tensor *tensor)
{
    return !strstr(tensor->name, "running_");
}

/* What a golden says of one tensor's gradient. */
enum { NORM, WAVES, LARGEST, ELEMENTS };

/* How far norm and waves are from the golden's, over the norm, but at least `least_norm`. */
static double whole_error(const double *want, const float *gradient, size_t count, double least_norm)
{
    double squares = 0, waves = 0;
    for (size_t i = 0; i < count; i++) {
        squares += (double)gradient[i] * (double)gradient[i];
        waves += (double)gradient[i] * cos((double)i);
    }
    return fmax(fabs(sqrt(squares) - want[NORM]), fabs(waves - want[WAVES])) / fmax(want[NORM], least_norm);
}

/* How far single elements are from the golden's, over the tensor's largest one, but at least `least`. */
static double element_error(const double *want, const float *gradient, size_t count, double least)
{
    double error = 0;
    for (size_t i = 0; i < GOLDEN_ELEMENTS; i++) {
        double one = (double)gradient[count * (2 * i + 1) / (2 * GOLDEN_ELEMENTS)];
        error = fmax(error, fabs(one - want[ELEMENTS + i]));
    }
    return error / fmax(want[LARGEST], least);
}

static double largest_of(const struct training_golden *golden, int what)
{
    double largest = 0;
    for (int t = 0; t < golden->tensors; t++)
        largest = fmax(largest, golden->gradient[t][what]);
    return largest;
}

static void check_gradients(const struct run *run, const struct net_tensor *tensor, int tensors)
{
    const struct training_golden *golden = run->golden;
    double least_norm = SMALL_SHARE * largest_of(golden, NORM), least = SMALL_SHARE * largest_of(golden, LARGEST);
    double worst_whole = 0, worst_element = 0, allowed = golden->tolerance * (strstr(golden->net, "lite0") ? KINKS : 1);
    int number = 0;
    for (int t = 0; t < tensors; t++) {
        if (!learns(&tensor[t]))
            continue;
        const double *want = golden->gradient[number++];
        const float *gradient = run->gradient + tensor[t].offset;
        double whole = whole_error(want, gradient, tensor[t].count, least_norm),
               element = element_error(want, gradient, tensor[t].count, least);
        worst_whole = fmax(worst_whole, whole);
        worst_element = fmax(worst_element, element);
        if (!(whole <= allowed && element <= allowed))
            fail_msg("%s on %s: the gradient of %s is off by %.2g, single elements by %.2g", golden->net,
                     run->backend->name, tensor[t].name, whole, element);
    }
    assert_int_equal(number, golden->tensors);
    print_message("%s on %s: gradients within %.2g of PyTorch, single elements within %.2g\n", golden->net,
                  run->backend->name, worst_whole, worst_element);
}

/* What a golden says of one batch norm's running statistics. */
enum { MEANS_SIZE, MEANS_WAVES, VARIANCES, VARIANCES_WAVES, DEVIATIONS };

/* Sums over the channels of one batch norm, as training.py has them. */
static void running_sums(const float *mean, const float *variance, int channels, double *sums)
{
    memset(sums, 0, 4 * sizeof *sums);
    for (int c = 0; c < channels; c++) {
        sums[MEANS_SIZE] += fabs((double)mean[c]);
        sums[MEANS_WAVES] += (double)mean[c] * cos(c);
        sums[VARIANCES] += (double)variance[c];
        sums[VARIANCES_WAVES] += (double)variance[c] * cos(c);
    }
}

/* After the first forward pass and the last. Means are held to the deviations where they are smaller, as around zero. */
static void check_running(const struct run *run, int last)
{
    const struct training_golden *golden = run->golden;
    double worst[2] = {0}, sums[4], allowed = last ? RUNNING_LAST : RUNNING_FIRST;
    const float *parameters = run->value;
    int number = 0;
    for (int i = 0; i < run->net.layers; parameters += layer_parameter_count(&run->net.layer[i++])) {
        const struct layer *layer = &run->net.layer[i];
        if (layer->kind != LAYER_BATCH_NORM)
            continue;
        assert_true(number < golden->norms);
        const double *want = golden->running[last][number++];
        running_sums(parameters + 2 * layer->out, parameters + 3 * layer->out, layer->out, sums);
        for (int s = 0; s < 4; s++) {
            double size = s < VARIANCES ? fmax(want[MEANS_SIZE], want[DEVIATIONS]) : want[VARIANCES];
            double error = fabs(sums[s] - want[s]) / size;
            worst[s / 2] = fmax(worst[s / 2], error);
            if (!(error <= allowed))
                fail_msg("%s on %s: %s of batch norm %d after %s are off by %.2g, allowed %.2g", golden->net,
                         run->backend->name, s < VARIANCES ? "running means" : "running variances", number,
                         last ? "the last step" : "one step", error, allowed);
        }
    }
    assert_int_equal(number, golden->norms);
    if (number)
        print_message("%s on %s: running means within %.2g of PyTorch after %s, variances within %.2g\n", golden->net,
                      run->backend->name, worst[0], last ? "the last step" : "one step", worst[1]);
}

static void update(struct run *run, const struct net_tensor *tensor, int tensors, uint64_t step)
{
    const struct adamw adamw = {run->golden->rate, WEIGHT_DECAY, step, 1};
    for (int t = 0; t < tensors; t++)
        if (learns(&tensor[t])) {
            size_t at = tensor[t].offset;
            adamw_update(&adamw, tensor[t].count, run->gradient + at, run->value + at, run->moment1 + at,
                         run->moment2 + at);
        }
}

/* The gradients of the first step, running statistics after the first and the last, the losses of all of them. */
static void check_golden(const struct backend *backend, const struct training_golden *golden, int steps)
{
    static struct net_tensor tensor[TENSORS_LIMIT];
    struct run run;
    double worst = 0;
    open_run(&run, backend, golden);
    int tensors = net_tensors(&run.net, tensor, TENSORS_LIMIT);
    for (int step = 0; step < steps; step++) {
        double loss = forward_and_back(&run, (uint32_t)step), want = golden->loss[step];
        worst = fmax(worst, fabs(loss - want) / want);
        if (!(fabs(loss - want) <= golden->tolerance * want))
            fail_msg("%s on %s: the loss of step %d is %.9g, PyTorch has %.9g", golden->net, backend->name, step, loss,
                     want);
        if (step == 0)
            check_gradients(&run, tensor, tensors);
        if (step == 0 || step == GOLDEN_STEPS - 1)
            check_running(&run, step > 0);
        update(&run, tensor, tensors, (uint64_t)step + 1);
    }
    print_message("%s on %s: %d losses within %.2g of PyTorch\n", golden->net, backend->name, steps, worst);
    close_run(&run);
}

static void training_equals_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++)
        check_golden(BACKEND_UNDER_TEST, &goldens[i], GOLDEN_STEPS);
}

/* Once is enough: the suites of cuda are built of the same reference. */
static void reference_equals_pytorch(void **state)
{
    (void)state;
    if (BACKEND_UNDER_TEST != &backend_cpu)
        skip();
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++)
        if (strstr(goldens[i].net, "efficientnet_b0"))
            check_golden(&backend_reference, &goldens[i], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_equals_pytorch),
        cmocka_unit_test(reference_equals_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
