/*
 * Training on the cpu backend against PyTorch (tests/golden/training.py): the gradient of every tensor, and the loss of ten
 * AdamW steps, for EfficientNet-B0 in both conventions, the network of W+20 and timm's EfficientNet-Lite0, with weights,
 * images and batch norm from the same formulas.
 */
#include "base/philox.h"
#include "cpu/backend_cpu.h"
#include "model/optimizer.h"

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
#define SMALL_SHARE   1e-2 /* gradients that cancel are held to this share of the largest */
#define TENSORS_LIMIT 1024

/* The image formula of efficientnet_b0.py, one channel. */
static void make_image(int number, int side, float *image)
{
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            uint32_t word = philox(GOLDEN_SEED, (uint32_t)(y * side + x), (uint32_t)number, 0, 0).word[0];
            double waves = sin(0.13 * x + 0.07 * (number + 1) * y + 0.002 * x * y + number);
            *image++ = (float)(0.25 + 0.25 * waves + 0.5 * (double)philox_uniform(word));
        }
}

static void set_norms(const struct net *net, float *parameters)
{
    int number = 0;
    for (int i = 0; i < net->layers; i++) {
        const struct layer *layer = &net->layer[i];
        for (int c = 0; c < layer->out && layer->kind == LAYER_BATCH_NORM; c++) {
            parameters[c] = (float)(1 + 0.3 * sin(0.7 * c + number));
            parameters[layer->out + c] = (float)(0.2 * cos(0.3 * c + number));
        }
        number += layer->kind == LAYER_BATCH_NORM;
        parameters += layer_parameter_count(layer);
    }
}

struct run {
    const struct training_golden *golden;
    struct net net;
    struct backend_context *context;
    struct training *training;
    size_t count;
    float *value, *gradient, *moment1, *moment2, *images, *outputs, *slopes;
};

static void open_run(struct run *run, const struct training_golden *golden)
{
    size_t batch = (size_t)golden->batch, side = (size_t)golden->side;
    *run = (struct run){.golden = golden};
    assert_int_equal(net_by_name(golden->net, 1, golden->side, &run->net), 0);
    run->count = net_parameter_count(&run->net);
    float **const arrays[] = {&run->value, &run->gradient, &run->moment1, &run->moment2};
    for (size_t i = 0; i < 4; i++)
        *arrays[i] = calloc(run->count, sizeof(float));
    run->images = malloc(batch * side * side * sizeof(float));
    run->outputs = malloc(batch * (size_t)run->net.outputs * sizeof(float));
    run->slopes = malloc(batch * (size_t)run->net.outputs * sizeof(float));
    net_random_parameters(&run->net, GOLDEN_SEED, run->value);
    set_norms(&run->net, run->value);
    for (int n = 0; n < golden->batch; n++)
        make_image(n, golden->side, run->images + (size_t)n * side * side);
    assert_int_equal(backend_cpu.open(2, &run->context), 0);
    assert_int_equal(backend_cpu.open_training(run->context, &run->net, batch, &run->training), 0);
}

static void close_run(struct run *run)
{
    backend_cpu.close_training(run->training);
    backend_cpu.close(run->context);
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
    assert_int_equal(backend_cpu.train_forward(run->training, run->value, run->images, batch, &pass, run->outputs), 0);
    for (size_t i = 0; i < values; i++) {
        double want = 0.5 * sin(0.01 * (double)(i % (size_t)width) + (double)(i / (size_t)width));
        double distance = (double)run->outputs[i] - want;
        loss += distance * distance / (double)values;
        run->slopes[i] = (float)(2 * distance / (double)values);
    }
    assert_int_equal(backend_cpu.train_backward(run->training, run->value, run->slopes, 0, run->gradient, NULL), 0);
    return loss;
}

static int learns(const struct net_tensor *tensor)
{
    return !strstr(tensor->name, "running_");
}

static void check_gradients(const struct run *run, const struct net_tensor *tensor, int tensors)
{
    double largest = 0, worst = 0;
    int number = 0;
    for (int t = 0; t < run->golden->tensors; t++)
        largest = fmax(largest, run->golden->gradient[t][0]);
    for (int t = 0; t < tensors; t++) {
        if (!learns(&tensor[t]))
            continue;
        const double *want = run->golden->gradient[number++];
        const float *gradient = run->gradient + tensor[t].offset;
        double squares = 0, waves = 0, size = fmax(want[0], SMALL_SHARE * largest);
        for (size_t i = 0; i < tensor[t].count; i++) {
            squares += (double)gradient[i] * (double)gradient[i];
            waves += (double)gradient[i] * cos((double)i);
        }
        double error = fmax(fabs(sqrt(squares) - want[0]), fabs(waves - want[1])) / size;
        worst = fmax(worst, error);
        if (!(error <= run->golden->tolerance))
            fail_msg("%s: gradient of %s has norm %.9g and sum %.9g, PyTorch %.9g and %.9g", run->golden->net,
                     tensor[t].name, sqrt(squares), waves, want[0], want[1]);
    }
    assert_int_equal(number, run->golden->tensors);
    print_message("%s: gradients within %.2g of PyTorch\n", run->golden->net, worst);
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

static void check_golden(const struct training_golden *golden)
{
    static struct net_tensor tensor[TENSORS_LIMIT];
    struct run run;
    double worst = 0;
    open_run(&run, golden);
    int tensors = net_tensors(&run.net, tensor, TENSORS_LIMIT);
    for (int step = 0; step < GOLDEN_STEPS; step++) {
        double loss = forward_and_back(&run, (uint32_t)step), want = golden->loss[step];
        worst = fmax(worst, fabs(loss - want) / want);
        if (!(fabs(loss - want) <= golden->tolerance * want))
            fail_msg("%s: the loss of step %d is %.9g, PyTorch has %.9g", golden->net, step, loss, want);
        if (step == 0)
            check_gradients(&run, tensor, tensors);
        update(&run, tensor, tensors, (uint64_t)step + 1);
    }
    print_message("%s: ten losses within %.2g of PyTorch\n", golden->net, worst);
    close_run(&run);
}

static void training_equals_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++)
        check_golden(&goldens[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(training_equals_pytorch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
