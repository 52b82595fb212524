/* See optimizer.h. */
#include "model/optimizer.h"

#include <math.h>

struct adamw_factors adamw_factors(const struct adamw *adamw)
{
    double step = (double)adamw->step, correction2 = sqrt(1 - pow(ADAMW_BETA2, step));
    return (struct adamw_factors){.keep = (float)(1 - adamw->learning_rate * adamw->weight_decay),
                                  .rate = (float)(adamw->learning_rate / (1 - pow(ADAMW_BETA1, step))),
                                  .inverse2 = (float)(1 / correction2),
                                  .scale = (float)adamw->gradient_scale};
}

void adamw_update(const struct adamw *adamw, size_t count, const float *gradient, float *value, float *moment1,
                  float *moment2)
{
    struct adamw_factors factors = adamw_factors(adamw);
    for (size_t i = 0; i < count; i++)
        adamw_one(&factors, gradient[i], value + i, moment1 + i, moment2 + i);
}

double optimizer_squares(const float *values, size_t count)
{
    double sum = 0;
    for (size_t first = 0; first < count; first += 256) { /* short runs in float are exact enough and fast */
        float part[8] = {0};
        size_t end = first + 256 < count ? first + 256 : count, i = first;
        for (; i + 8 <= end; i += 8)
            for (size_t j = 0; j < 8; j++)
                part[j] += values[i + j] * values[i + j];
        for (; i < end; i++)
            part[0] += values[i] * values[i];
        for (size_t j = 0; j < 8; j++)
            sum += (double)part[j];
    }
    return sum;
}

double optimizer_clip(double norm, double limit)
{
    return limit > 0 && norm > limit ? limit / norm : 1;
}

double optimizer_rate(enum schedule schedule, double rate, uint64_t step, uint64_t steps, uint64_t warmup_steps)
{
    if (step < warmup_steps)
        return rate * (double)(step + 1) / (double)warmup_steps;
    if (schedule != SCHEDULE_COSINE || steps <= warmup_steps + 1)
        return rate;
    double done = (double)(step - warmup_steps) / (double)(steps - warmup_steps - 1), floor = rate * COSINE_FLOOR;
    return floor + (rate - floor) * (cos(M_PI * (done < 1 ? done : 1)) + 1) / 2;
}

double optimizer_plateau(struct plateau *plateau, double rate, double validation_loss)
{
    if (validation_loss < plateau->best * (1 - PLATEAU_BETTER)) {
        *plateau = (struct plateau){.best = validation_loss};
        return rate;
    }
    if (++plateau->bad_epochs <= PLATEAU_PATIENCE)
        return rate;
    plateau->bad_epochs = 0;
    double lower = fmax(rate * PLATEAU_FACTOR, PLATEAU_FLOOR);
    return rate - lower > PLATEAU_EPSILON ? lower : rate;
}
