/*
 * AdamW of a training run: by the host's threads on the host's values, or, where the backend holds the trunk's values and moments
 * (train_hold of backend.h), there, and only the head's on the host. See trunk_fit.h.
 */
#include "base/error.h"
#include "model/trunk_fit_state.h"

#include <math.h>

int trunk_fit_hold(struct trunk_fit *fit)
{
    if (!fit->backend->train_hold || fit->held)
        return 0;
    int result = fit->backend->train_hold(fit->training, fit->value, fit->moment1, fit->moment2);
    fit->held = !result;
    return result;
}

int trunk_fit_fetch(struct trunk_fit *fit)
{
    int result = fit->ahead ? fit->backend->train_fetch(fit->training, fit->value, fit->moment1, fit->moment2) : 0;
    if (!result)
        fit->ahead = 0;
    return result;
}

struct update {
    struct trunk_fit *fit;
    struct adamw adamw;
    int first; /* chunk */
};

static void square_chunk(void *context, long item, int worker)
{
    const struct update *update = context;
    struct trunk_fit *fit = update->fit;
    const struct train_range *chunk = &fit->chunk[update->first + item];
    (void)worker;
    fit->squares[update->first + item] = optimizer_squares(fit->gradient + chunk->offset, chunk->count);
}

static void update_chunk(void *context, long item, int worker)
{
    const struct update *update = context;
    struct trunk_fit *fit = update->fit;
    const struct train_range *chunk = &fit->chunk[update->first + item];
    struct adamw adamw = update->adamw;
    (void)worker;
    adamw.learning_rate *= chunk->factor;
    adamw_update(&adamw, chunk->count, fit->gradient + chunk->offset, fit->value + chunk->offset,
                 fit->moment1 + chunk->offset, fit->moment2 + chunk->offset);
}

static double step_rate(const struct trunk_fit *fit)
{
    uint64_t epoch_steps = (uint64_t)fit->steps_per_epoch;
    return optimizer_rate(fit->recipe.schedule, fit->at.learning_rate, fit->at.step,
                          epoch_steps * (uint64_t)fit->recipe.epochs_max,
                          epoch_steps * (uint64_t)fit->recipe.warmup_epochs);
}

/* Squares of the whole gradient: the held part first, then chunk by chunk. */
static int sum_squares(struct update *update, double *ret_squares)
{
    struct trunk_fit *fit = update->fit;
    int result = 0;
    *ret_squares = 0;
    if (fit->held)
        result = fit->backend->train_squares(fit->training, fit->chunk, fit->trunk_chunks, ret_squares);
    fit->backend->for_each(fit->context, square_chunk, update, fit->chunks - update->first);
    for (int i = update->first; i < fit->chunks; i++)
        *ret_squares += fit->squares[i];
    return result;
}

int trunk_fit_update(struct trunk_fit *fit)
{
    struct update update = {.fit = fit, .first = fit->held ? fit->trunk_chunks : 0};
    double squares;
    int result = sum_squares(&update, &squares);
    if (result)
        return result;
    if (!isfinite(squares))
        return error_set(ERROR_INPUT,
                         "its loss is the largest of a batch whose gradient is not finite, in epoch %d: lower the "
                         "learning rate, or look at the galaxy's image and labels",
                         fit->at.epoch + 1);
    fit->at.step_rate = step_rate(fit);
    update.adamw = (struct adamw){.learning_rate = fit->at.step_rate,
                                  .weight_decay = fit->recipe.weight_decay,
                                  .step = fit->at.step + 1,
                                  .gradient_scale = optimizer_clip(sqrt(squares), fit->recipe.clip_norm)};
    if (fit->held)
        result = fit->backend->train_update(fit->training, fit->chunk, fit->trunk_chunks, &update.adamw);
    fit->backend->for_each(fit->context, update_chunk, &update, fit->chunks - update.first);
    return result;
}
