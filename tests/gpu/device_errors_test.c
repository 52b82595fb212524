/*
 * What can go wrong with devices (on the stand-in): one is lost, wherever and whenever, and keeps nobody waiting; an operation or a handle is
 * refused, and the next call is a new one; a batch or a number of devices is more than there is.
 */
#include "base/error.h"
#include "tests/gpu/small_job.h"
#include "tests/gpu/standin/cuda_runtime_api.h"
#include "tests/support/backend_under_test.h"

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

/* Two devices learn until what was planted ends it: the error says `words`, it stays so, and closing leaves nothing. */
static void learn_until_lost(const char *words, int place)
{
    float *embeddings = malloc(IMAGES * job.outputs * sizeof *embeddings),
          *gradient = malloc(job.count * sizeof *gradient);
    struct train_pass pass = {.seed = SEED, .step = 1, .key = job.key, .live_norm = 1};
    struct backend_context *context = NULL;
    struct training *training = NULL;
    struct learned own = new_learned();
    int result = cuda->open(1, 2, &context);
    if (!result)
        result = cuda->open_training(context, &job.net, IMAGES, &training);
    for (int again = 0; again < 8 && !result; again++) {
        result = cuda->train_forward(training, own.value, job.images, IMAGES, &pass, embeddings);
        if (!result)
            result = cuda->train_backward(training, own.value, job.slopes, 0, gradient, NULL);
    }
    if (result != ERROR_UNAVAILABLE || !strstr(error_message(), words))
        fail_msg("lost after %d operations: result %d (%s), not %s", place, result, error_message(), words);
    if (training)
        assert_int_equal(cuda->train_forward(training, own.value, job.images, IMAGES, &pass, embeddings),
                         ERROR_UNAVAILABLE);
    cuda->close_training(training);
    cuda->close(context);
    standin_restore_device();
    assert_clean();
    free_learned(&own);
    free(embeddings);
    free(gradient);
}

static void a_lost_device_keeps_nobody_waiting(void **state)
{
    (void)state;
    standin_set_devices(2);
    for (int place = 0; place < 400; place += 37) {
        standin_lose_device_after((uint64_t)place);
        learn_until_lost("device is lost", place);
    }
    standin_set_devices(1);
}

/* One of two devices is lost and the other is not: its sums would wait for ever, so it gives them up (ncclCommAbort). Whichever it is
 * and whenever: the error names the device and nothing waits. */
static void one_of_two_devices_is_lost(void **state)
{
    unsigned aborted = standin_aborted_sums();
    (void)state;
    standin_set_devices(2);
    for (int place = 1; place < 260; place += 29) {
        char named[16];
        snprintf(named, sizeof named, "device %d: ", place % 2);
        standin_lose_one_device_after(place % 2, (uint64_t)place);
        learn_until_lost(named, place);
    }
    standin_set_devices(1);
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

/* An operation that is refused, on a device that goes on: an error, of which the next call knows nothing. Its job.outputs are its own, and the
 * memory of the call that failed is not touched again. */
static void the_next_call_is_a_new_one(void **state)
{
    size_t floats = IMAGES * job.outputs;
    float *right = malloc(floats * sizeof *right), *first = malloc(floats * sizeof *first);
    float *kept = malloc(floats * sizeof *kept), *second = malloc(floats * sizeof *second);
    (void)state;
    forward_small_job(1, NULL, right);
    for (int devices = 1; devices <= 2; devices++)
        for (int place = 1, code = 1; code; place++) {
            struct backend_context *context;
            struct plan *plan;
            standin_set_devices(devices);
            assert_int_equal(cuda->open(1, devices, &context), 0);
            assert_int_equal(cuda->compile(context, &job.net, job.parameters, PRECISION_FP32, &plan), 0);
            standin_refuse_after(devices - 1, (uint64_t)place);
            memset(first, 0xff, floats * sizeof *first);
            memset(second, 0xff, floats * sizeof *second);
            code = cuda->forward(plan, job.images, IMAGES, first);
            standin_refuse_after(0, 0);
            memcpy(kept, first, floats * sizeof *kept);
            int next = cuda->forward(plan, job.images, IMAGES, second);
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
    float *embeddings = malloc(IMAGES * job.outputs * sizeof *embeddings);
    (void)state;
    for (int place = 1, result = 1; result; place++) {
        struct train_pass pass = {.seed = SEED, .step = 1, .key = job.key, .live_norm = 1};
        struct backend_context *context;
        struct training *training;
        struct learned own = new_learned();
        standin_set_devices(2);
        assert_int_equal(cuda->open(1, 2, &context), 0);
        assert_int_equal(cuda->open_training(context, &job.net, IMAGES, &training), 0);
        standin_refuse_after(1, (uint64_t)place);
        result = cuda->train_forward(training, own.value, job.images, IMAGES, &pass, embeddings);
        standin_refuse_after(0, 0);
        int next = cuda->train_forward(training, own.value, job.images, IMAGES, &pass, embeddings);
        if (next && next != ERROR_UNAVAILABLE)
            fail_msg("refused %d (%d): the next call gives %d (%s)", place, result, next, error_message());
        survived += result && !next;
        ended += result && next;
        cuda->close_training(training);
        cuda->close(context);
        assert_clean();
        free_learned(&own);
    }
    standin_set_devices(1);
    printf("refused: %d passes that the next one followed, %d that ended the worker\n", survived, ended);
    assert_true(survived > 0 && ended > 0);
    free(embeddings);
}

/* Descriptors for another number of images that cannot be had: the next call asks for them again. */
static void products_are_open_or_not(void **state)
{
    float *right = malloc(IMAGES * job.outputs * sizeof *right), *have = malloc(IMAGES * job.outputs * sizeof *have);
    struct train_pass pass = {.seed = SEED, .step = 1, .key = job.key};
    (void)state;
    for (int place = 0, code = 1; place == 1 || code; place++) { /* 0: none is refused */
        struct backend_context *context;
        struct training *training;
        struct learned own = new_learned();
        assert_int_equal(cuda->open(1, 1, &context), 0);
        assert_int_equal(cuda->open_training(context, &job.net, IMAGES, &training), 0);
        standin_refuse_handle_after((uint64_t)place);
        code = cuda->train_forward(training, own.value, job.images, 3, &pass, place ? have : right);
        standin_refuse_handle_after(0);
        if (code) {
            assert_int_equal(code, ERROR_LIMIT);
            assert_int_equal(cuda->train_forward(training, own.value, job.images, 3, &pass, have), 0);
        }
        if (place)
            assert_memory_equal(have, right, 3 * job.outputs * sizeof *right);
        assert_true(code || !place || place > 10);
        cuda->close_training(training);
        cuda->close(context);
        assert_clean();
        free_learned(&own);
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
        result = cuda->compile(context, &job.net, job.parameters, PRECISION_FP32, &plan);
    if (!result)
        result = cuda->forward(plan, job.images, IMAGES, embeddings);
    cuda->free_plan(plan);
    cuda->close(context);
    return result;
}

/* Every status after which the process must be relaunched, wherever it comes up first: at a kernel, a copy or inside of a library,
 * whose calls the program's own runtime does not see. */
static void every_loss_ends_the_worker(void **state)
{
    static const int statuses[] = {cudaErrorIllegalAddress, cudaErrorMisalignedAddress, cudaErrorUnknown};
    float *embeddings = malloc(IMAGES * job.outputs * sizeof *embeddings);
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

/* A batch that does not fit: the error says what to lower. */
static void too_large_a_batch(void **state)
{
    struct backend_context *context;
    struct training *training = NULL;
    (void)state;
    assert_int_equal(cuda->open(1, 1, &context), 0);
    assert_int_equal(cuda->open_training(context, &job.net, 1000000, &training), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "lower training.batch"));
    cuda->close(context);
    assert_clean();
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
        cmocka_unit_test(a_lost_device_keeps_nobody_waiting),   cmocka_unit_test(one_of_two_devices_is_lost),
        cmocka_unit_test(a_device_is_lost_while_ranks_connect), cmocka_unit_test(the_next_call_is_a_new_one),
        cmocka_unit_test(a_refusal_keeps_nobody_waiting),       cmocka_unit_test(products_are_open_or_not),
        cmocka_unit_test(every_loss_ends_the_worker),           cmocka_unit_test(too_large_a_batch),
        cmocka_unit_test(more_devices_than_there_are),
    };
    return cmocka_run_group_tests(tests, set_up_small_job, tear_down_small_job);
}
