/*
 * Steps down a gradient: AdamW, clipping, and how the learning rate changes over a run. Pure functions on arrays; not for
 * what the arrays mean (trunk_fit.h) and not for heads on cached embeddings (head_fit.h).
 */
#ifndef TRIAGE_MODEL_OPTIMIZER_H
#define TRIAGE_MODEL_OPTIMIZER_H

#include "base/host_device.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define ADAMW_BETA1   0.9
#define ADAMW_BETA2   0.999
#define ADAMW_EPSILON 1e-8

struct adamw {
    double learning_rate; /* of these values */
    double weight_decay;  /* 0 = Adam */
    uint64_t step;        /* from 1 */
    double gradient_scale;
};

/*
 * AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) as torch.optim.AdamW does it:
 *   g = gradient * gradient_scale
 *   value *= 1 - learning_rate * weight_decay
 *   m = 0.9 m + 0.1 g,  v = 0.999 v + 0.001 g^2
 *   value -= learning_rate * (m / (1 - 0.9^step)) / (sqrt(v / (1 - 0.999^step)) + 1e-8)
 */
void adamw_update(const struct adamw *adamw, size_t count, const float *gradient, float *value, float *moment1,
                  float *moment2);

/* The same in numbers of one step, for one value at a time on whatever device. */
struct adamw_factors {
    float keep, rate, inverse2, scale;
};
struct adamw_factors adamw_factors(const struct adamw *adamw);

HOST_DEVICE static inline void adamw_one(const struct adamw_factors *factors, float gradient, float *value,
                                         float *moment1, float *moment2)
{
    const float beta1 = (float)ADAMW_BETA1, beta2 = (float)ADAMW_BETA2, epsilon = (float)ADAMW_EPSILON;
    float g = gradient * factors->scale, m = beta1 * *moment1 + (1 - beta1) * g,
          v = beta2 * *moment2 + (1 - beta2) * g * g;
    *moment1 = m;
    *moment2 = v;
    *value = *value * factors->keep - factors->rate * m / (sqrtf(v) * factors->inverse2 + epsilon);
}

/* Sum of squares, in fixed order. */
double optimizer_squares(const float *values, size_t count);

/* What a gradient of this norm is multiplied by so that its norm is `limit` at most (0 = no limit). */
double optimizer_clip(double norm, double limit);

enum schedule { SCHEDULE_CONSTANT, SCHEDULE_COSINE, SCHEDULE_PLATEAU };

#define COSINE_FLOOR     0.01 /* of the learning rate, where the cosine ends */
#define PLATEAU_FACTOR   0.1
#define PLATEAU_PATIENCE 5    /* so many epochs without a better validation loss are borne, one more is not */
#define PLATEAU_BETTER   1e-4 /* share of the best loss by which a better one is below it */
#define PLATEAU_EPSILON  1e-8 /* a rate is not lowered by less */
#define PLATEAU_FLOOR    1e-6 /* the smallest learning rate it goes to */

/*
 * The learning rate of step `step` (from 0) of `steps`: after a linear warm-up over the first `warmup_steps`, constant, or
 * half a cosine from `rate` to `rate` * COSINE_FLOOR at the last step. It is the rate itself, not a factor of it. A plateau
 * schedule is constant here; what lowers it is optimizer_plateau().
 */
double optimizer_rate(enum schedule schedule, double rate, uint64_t step, uint64_t steps, uint64_t warmup_steps);

/* How a run's validation losses went so far; {INFINITY} before the first. */
struct plateau {
    double best;
    int bad_epochs;
};

/* The rate after one more epoch, as torch.optim.lr_scheduler.ReduceLROnPlateau has it: a tenth after the sixth epoch without a
 * better loss, which are then counted from 0 again. */
double optimizer_plateau(struct plateau *plateau, double rate, double validation_loss);

#endif
