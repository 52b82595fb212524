/* Label savings from paired curves; see the header. */
#include "acquisition/savings.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>

/* Mean curve of the chosen seeds. */
struct curve {
    int steps;
    double cost[SAVINGS_STEPS_MAX], loss[SAVINGS_STEPS_MAX];
};

static void mean_curve(const struct arm_curves *arm, const int *seeds, struct curve *curve)
{
    curve->steps = arm->steps;
    for (int step = 0; step < arm->steps; step++) {
        curve->cost[step] = curve->loss[step] = 0;
        for (int i = 0; i < arm->seeds; i++) {
            curve->cost[step] += arm->cost[seeds[i] * arm->steps + step] / arm->seeds;
            curve->loss[step] += arm->loss[seeds[i] * arm->steps + step] / arm->seeds;
        }
        if (step && curve->loss[step] > curve->loss[step - 1])
            curve->loss[step] = curve->loss[step - 1];
    }
}

static double loss_at(const struct curve *curve, double cost)
{
    for (int step = 1; step < curve->steps; step++)
        if (cost <= curve->cost[step]) {
            double part = (cost - curve->cost[step - 1]) / (curve->cost[step] - curve->cost[step - 1]);
            return curve->loss[step - 1] + part * (curve->loss[step] - curve->loss[step - 1]);
        }
    return curve->loss[curve->steps - 1];
}

static double cost_of(const struct curve *curve, double loss, int *ret_reached)
{
    *ret_reached = 1;
    if (curve->loss[0] <= loss)
        return curve->cost[0];
    for (int step = 1; step < curve->steps; step++)
        if (curve->loss[step] <= loss) {
            double part = (curve->loss[step - 1] - loss) / (curve->loss[step - 1] - curve->loss[step]);
            return curve->cost[step - 1] + part * (curve->cost[step] - curve->cost[step - 1]);
        }
    *ret_reached = 0;
    return curve->cost[curve->steps - 1];
}

static double saving(const struct arm_curves *arm, const struct arm_curves *reference, double share, const int *seeds,
                     int *ret_reached)
{
    struct curve mine, theirs;
    int reached;
    mean_curve(arm, seeds, &mine);
    mean_curve(reference, seeds, &theirs);
    double first = theirs.cost[0], budget = first + share * (theirs.cost[theirs.steps - 1] - first);
    double loss = loss_at(&theirs, budget), needed = cost_of(&theirs, loss, &reached);
    return 1 - cost_of(&mine, loss, ret_reached) / needed;
}

static int compare(const void *left, const void *right)
{
    const double *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

/* Percentiles 2.5 and 97.5 of sorted resamples. */
static struct interval interval_of(double value, double *resampled)
{
    qsort(resampled, SAVINGS_RESAMPLES, sizeof *resampled, compare);
    return (struct interval){value, resampled[SAVINGS_RESAMPLES * 25 / 1000],
                             resampled[SAVINGS_RESAMPLES * 975 / 1000]};
}

static void resample(uint64_t seed, int resample, int count, int *seeds)
{
    for (int i = 0; i < count; i++) {
        struct philox random = philox(seed, (uint32_t)i, (uint32_t)resample, 0, PHILOX_GATE);
        seeds[i] = (int)((uint64_t)random.word[0] * (uint64_t)count >> 32);
    }
}

static void all_seeds(int count, int *seeds)
{
    for (int i = 0; i < count; i++)
        seeds[i] = i;
}

struct interval savings_at(const struct arm_curves *arm, const struct arm_curves *reference, double share,
                           uint64_t seed, int *ret_reached)
{
    int seeds[SAVINGS_SEEDS_MAX], reached;
    double resampled[SAVINGS_RESAMPLES];
    for (int r = 0; r < SAVINGS_RESAMPLES; r++) {
        resample(seed, r, arm->seeds, seeds);
        resampled[r] = saving(arm, reference, share, seeds, &reached);
    }
    all_seeds(arm->seeds, seeds);
    return interval_of(saving(arm, reference, share, seeds, ret_reached), resampled);
}

/* Mean of one number per seed with its interval. */
static struct interval mean_interval(const double *values, int count, uint64_t seed)
{
    int seeds[SAVINGS_SEEDS_MAX];
    double resampled[SAVINGS_RESAMPLES], mean = 0;
    for (int r = 0; r < SAVINGS_RESAMPLES; r++) {
        resample(seed, r, count, seeds);
        resampled[r] = 0;
        for (int i = 0; i < count; i++)
            resampled[r] += values[seeds[i]] / count;
    }
    for (int i = 0; i < count; i++)
        mean += values[i] / count;
    return interval_of(mean, resampled);
}

static double last_loss(const struct arm_curves *arm, int seed)
{
    return arm->loss[(seed + 1) * arm->steps - 1];
}

struct interval savings_last_difference(const struct arm_curves *arm, const struct arm_curves *reference, uint64_t seed)
{
    double differences[SAVINGS_SEEDS_MAX];
    for (int i = 0; i < arm->seeds; i++)
        differences[i] = last_loss(arm, i) - last_loss(reference, i);
    return mean_interval(differences, arm->seeds, seed);
}

struct interval savings_mean(const struct arm_curves *arm, int step, uint64_t seed)
{
    double values[SAVINGS_SEEDS_MAX];
    for (int i = 0; i < arm->seeds; i++)
        values[i] = arm->loss[i * arm->steps + step];
    return mean_interval(values, arm->seeds, seed);
}

double savings_area(const struct arm_curves *arm, int seed)
{
    const double *cost = arm->cost + seed * arm->steps, *loss = arm->loss + seed * arm->steps;
    double area = 0;
    for (int step = 1; step < arm->steps; step++)
        area += (cost[step] - cost[step - 1]) * (loss[step] + loss[step - 1]) / 2;
    return arm->steps > 1 ? area / (cost[arm->steps - 1] - cost[0]) : loss[0];
}

double savings_wins(const struct arm_curves *arm, const struct arm_curves *other)
{
    double wins = 0;
    for (int i = 0; i < arm->seeds; i++) {
        double mine = savings_area(arm, i), theirs = savings_area(other, i);
        wins += mine < theirs ? 1 : mine == theirs ? 0.5 : 0;
    }
    return wins / arm->seeds;
}
