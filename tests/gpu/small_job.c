#include "tests/gpu/small_job.h"

#include "tests/support/backend_under_test.h"
#include "tests/support/small_nets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/gpu/books.h"

struct small_job job;

#ifdef TEST_DEVICE
int has_devices(int devices)
{
    static struct backend_report report;
    if (!report.devices)
        assert_int_equal(BACKEND_UNDER_TEST->report(&job.net, PRECISION_FP32, BACKEND_DEVICES_MAX, &report), 0);
    if (devices > report.devices)
        printf("skipped: work over %d devices (there are %d)\n", devices, report.devices);
    return devices <= report.devices;
}
#else
int has_devices(int devices)
{
    return devices <= 8; /* the stand-in's */
}
#endif

int set_up_small_job(void **state)
{
    (void)state;
    small_net(&job.net, 1, SIDE, PADDING_SAME);
    net_set_stochastic_depth(&job.net, 0.4);
    job.parameters = random_parameters(&job.net);
    job.images = random_images(&job.net, IMAGES, 1);
    job.count = net_parameter_count(&job.net);
    job.outputs = output_floats(&job.net);
    job.slopes = malloc(IMAGES * job.outputs * sizeof *job.slopes);
    for (size_t i = 0; i < IMAGES * job.outputs; i++)
        job.slopes[i] = uniform(3, i) - 0.5f;
    job.pixels = malloc((size_t)(2 * IMAGES * PIXEL_SIDE * PIXEL_SIDE));
    for (size_t i = 0; i < (size_t)(2 * IMAGES * PIXEL_SIDE * PIXEL_SIDE); i++)
        job.pixels[i] = (uint8_t)(256 * uniform(4, i));
    for (uint64_t i = 0; i < IMAGES; i++) {
        job.row[i] = 2 * IMAGES - 1 - 2 * i;
        job.key[i] = 1000 + 7 * i;
    }
    return 0;
}

int tear_down_small_job(void **state)
{
    (void)state;
    free(job.parameters);
    free(job.images);
    free(job.slopes);
    free(job.pixels);
    return 0;
}

struct stored_views views_of(enum augmentation augmentation, int pixel_side, int view)
{
    return (struct stored_views){.pixels = job.pixels,
                                 .stride_bytes = (size_t)(pixel_side * pixel_side),
                                 .pixel_side = pixel_side,
                                 .row = job.row,
                                 .key = job.key,
                                 .augmentation = augmentation,
                                 .seed = SEED,
                                 .view = view};
}

void forward_small_job(int devices, const struct stored_views *views, float *embeddings)
{
    struct backend_context *context;
    struct plan *plan;
    standin_set_devices(devices);
    assert_int_equal(BACKEND_UNDER_TEST->open(2, devices, &context), 0);
    assert_int_equal(BACKEND_UNDER_TEST->compile(context, &job.net, job.parameters, PRECISION_FP32, &plan), 0);
    standin_close_allocation(1);
    if (views)
        assert_int_equal(BACKEND_UNDER_TEST->forward_views(plan, views, IMAGES, embeddings), 0);
    else
        assert_int_equal(BACKEND_UNDER_TEST->forward(plan, job.images, IMAGES, embeddings), 0);
    standin_close_allocation(0);
    BACKEND_UNDER_TEST->free_plan(plan);
    BACKEND_UNDER_TEST->close(context);
    assert_clean();
    standin_set_devices(1);
}

struct learned new_learned(void)
{
    struct learned learned = {malloc(job.count * sizeof(float)), calloc(job.count, sizeof(float)),
                              calloc(job.count, sizeof(float))};
    memcpy(learned.value, job.parameters, job.count * sizeof(float));
    for (size_t i = 0; i < job.count; i++) { /* as after some steps */
        learned.moment1[i] = 0.1f * (uniform(5, i) - 0.5f);
        learned.moment2[i] = 0.01f * uniform(6, i);
    }
    return learned;
}

void free_learned(struct learned *learned)
{
    free(learned->value);
    free(learned->moment1);
    free(learned->moment2);
}
