/* What fits of heads have in common whatever computes them; see head_fit.h. */
#include "model/head_fit.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <string.h>

int fit_request_check(const struct fit_request *request, const struct head_set *heads)
{
    if (heads->answers != request->schema->answers)
        return error_set(ERROR_STATE, "heads with %d answers cannot be fitted to schema %s with %d: start new heads",
                         heads->answers, request->schema->name, request->schema->answers);
    int result = head_set_check_rows(heads, request->views, request->embedding_stride_bytes);
    if (result)
        return result;
    if (request->train_count == 0 || request->train_count > UINT32_MAX)
        return error_set(ERROR_INPUT, "%zu galaxies to train on: between 1 and 2^32 - 1 with votes are needed",
                         request->train_count);
    if (request->batch < 1 || request->batch > HEAD_BATCH_MAX)
        return error_set(ERROR_INPUT, "batch %d is outside 1 .. %d", request->batch, HEAD_BATCH_MAX);
    if (request->epochs_max < 1 || request->patience < 1)
        return error_set(ERROR_INPUT, "epochs (%d) and patience (%d) must be at least 1", request->epochs_max,
                         request->patience);
    if (!(request->learning_rate > 0) || !(request->bias_rate > 0) || !(request->weight_decay >= 0) ||
        !isfinite(request->learning_rate) || !isfinite(request->bias_rate) || !isfinite(request->weight_decay))
        return error_set(ERROR_INPUT,
                         "learning rate %g and bias rate %g must be positive and weight decay %g not negative",
                         (double)request->learning_rate, (double)request->bias_rate, (double)request->weight_decay);
    if (!(heads->dropout >= 0 && heads->dropout < 1))
        return error_set(ERROR_INPUT, "dropout %g is outside 0 <= p < 1", (double)heads->dropout);
    return 0;
}

float fit_bag_weight(const struct fit_request *request, uint64_t row, uint32_t head)
{
    if (!request->bagging)
        return 1;
    struct philox random = philox(request->seed, (uint32_t)row, (uint32_t)(row >> 32), head, PHILOX_BAG);
    return (float)-log(((double)random.word[0] + 0.5) * 0x1p-32);
}

void fit_shuffle(const struct fit_request *request, int head, uint64_t step, uint64_t *order)
{
    memcpy(order, request->train_row, request->train_count * sizeof *order);
    philox_shuffle(request->seed, (uint32_t)head, (uint32_t)step, order, request->train_count);
}

struct fit {
    const struct fit_request *request;
    struct head_set *heads; /* the best state so far */
    const struct fit_learner *learner;
    struct fit_report *report;
    uint64_t step;
};

/* The loss per head and row, NaN when there are no rows; of all heads, after an epoch if asked to `train`. */
static int run(struct fit *fit, int train, const uint64_t *row, size_t count, double *ret_loss)
{
    double loss[HEAD_COUNT_MAX], sum = 0;
    uint64_t failed_row[HEAD_COUNT_MAX];
    int result = fit->learner->run(fit->learner->context, train, fit->step, row, count, loss, failed_row);
    for (int head = 0; head < fit->heads->count && !result; head++) {
        if (failed_row[head] != UINT64_MAX) {
            fit->report->bad_row = failed_row[head];
            result = error_set(ERROR_INPUT, "the loss is not finite: the galaxy's embedding is broken, or "
                                            "heads.learning_rate or heads.bias_rate is too high");
        }
        sum += loss[head];
    }
    if (!result)
        *ret_loss = sum / ((double)count * fit->heads->count); /* 0 / 0 is NaN */
    return result;
}

/* One epoch, kept if it is the best so far. */
static int epoch(struct fit *fit, double *best)
{
    const struct fit_request *request = fit->request;
    double loss;
    int result = run(fit, 1, request->validation_row, request->validation_count, &loss);
    if (result)
        return result;
    fit->step += (request->train_count + (size_t)request->batch - 1) / (size_t)request->batch;
    fit->report->epochs++;
    if (request->validation_count == 0 || loss < *best) {
        if ((result = fit->learner->exchange(fit->learner->context, 1)))
            return result;
        fit->heads->step = fit->step;
        fit->report->best_epoch = fit->report->epochs;
        *best = loss;
    }
    if (request->stop && request->stop(request->stop_context))
        return error_set(ERROR_CANCELLED, "training was cancelled after %d epochs", fit->report->epochs);
    return 0;
}

int fit_epochs(const struct fit_request *request, struct head_set *heads, const struct fit_learner *learner,
               struct fit_report *report)
{
    struct fit fit = {request, heads, learner, report, heads->step};
    int quarter = request->epochs_max / 4 > 0 ? request->epochs_max / 4 : 1;
    int epochs = request->validation_count > 0 ? request->epochs_max : quarter;
    double best = NAN, loss = NAN;
    int result = learner->exchange(learner->context, 0);
    if (!result)
        result = run(&fit, 0, request->validation_row, request->validation_count, &best);
    while (!result && report->epochs < epochs && report->epochs - report->best_epoch < request->patience)
        result = epoch(&fit, &best);
    report->validation_loss = (float)best;
    if (!result)
        result = learner->exchange(learner->context, 0);
    if (!result)
        result = run(&fit, 0, request->train_row, request->train_count, &loss);
    report->train_loss = (float)loss;
    return result;
}
