/* The table that is the cpu backend; the only symbol the rest of the program sees. */
#include "cpu/backend_cpu.h"
#include "base/error.h"
#include "cpu/heads.h"
#include "cpu/net.h"
#include "cpu/train.h"

#include <stdlib.h>

struct backend_context {
    struct workers *workers;
};

static int open_cpu(int threads, int devices, struct backend_context **ret_context)
{
    struct backend_context *context = calloc(1, sizeof *context);
    (void)devices;
    if (!context)
        return error_set(ERROR_SYSTEM, "out of memory for the cpu backend");
    int result = workers_open(threads, &context->workers);
    if (result)
        free(context);
    else
        *ret_context = context;
    return result;
}

static void close_cpu(struct backend_context *context)
{
    if (context)
        workers_close(context->workers);
    free(context);
}

static int threads(const struct backend_context *context)
{
    return workers_count(context->workers);
}

static void for_each(struct backend_context *context, backend_task *task, void *task_context, long items)
{
    workers_run(context->workers, task, task_context, items);
}

static int compile(struct backend_context *context, const struct net *net, const float *parameters,
                   enum precision precision, struct plan **ret_plan)
{
    return cpu_compile(context->workers, net, parameters, precision, ret_plan);
}

static int calibrate(struct backend_context *context, const struct net *net, const float *images, size_t count,
                     float *parameters)
{
    return cpu_calibrate(context->workers, net, images, count, parameters);
}

static int open_training(struct backend_context *context, const struct net *net, size_t batch_limit,
                         struct training **ret_training)
{
    return cpu_open_training(context->workers, net, batch_limit, ret_training);
}

static int head_fit(struct backend_context *context, const struct fit_request *request, struct head_set *heads,
                    struct fit_report *ret_report)
{
    return cpu_head_fit(context->workers, request, heads, ret_report);
}

static int head_score(struct backend_context *context, const struct score_request *request, backend_stop *stop,
                      void *stop_context)
{
    return cpu_head_score(context->workers, request, stop, stop_context);
}

const struct backend backend_cpu = {
    .name = "cpu",
    .open = open_cpu,
    .close = close_cpu,
    .threads = threads,
    .precision = cpu_precision,
    .for_each = for_each,
    .compile = compile,
    .free_plan = cpu_free_plan,
    .forward = cpu_forward,
    .calibrate = calibrate,
    .open_training = open_training,
    .close_training = cpu_close_training,
    .train_forward = cpu_train_forward,
    .train_backward = cpu_train_backward,
    .head_fit = head_fit,
    .head_score = head_score,
};
