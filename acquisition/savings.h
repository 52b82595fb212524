/*
 * What an arm of a pool simulation saves against another: from curves of quality against cost, paired by seed. Quality is
 * a loss: less is better. Pure. Not for running simulations: that is `triaged replay`.
 *
 *   curve      mean over seeds at each step, made monotone by the best so far
 *   n(q)       cost at which the curve reaches q, linear between steps
 *   saving     1 - n_arm(q) / n_reference(q), q = the reference's quality when a share of its budget is spent
 *   area       mean of the arm's losses over its cost (trapezoids): less is better
 *   intervals  percentile bootstrap over seeds, pairs kept together, SAVINGS_RESAMPLES resamples, 95 %
 */
#ifndef TRIAGE_ACQUISITION_SAVINGS_H
#define TRIAGE_ACQUISITION_SAVINGS_H

#include <stdint.h>

#define SAVINGS_RESAMPLES 2000
#define SAVINGS_STEPS_MAX 256
#define SAVINGS_SEEDS_MAX 1000

/* One arm: [seeds][steps], seeds in the same order for every arm; costs grow from step to step. */
struct arm_curves {
    int seeds, steps;
    const double *cost, *loss;
};

struct interval {
    double value, low, high;
};

/*
 * `share` of the reference's budget, 0..1, counted from its first step to its last. An arm that never gets there is
 * counted as if it did at its last step, so the saving is then an upper bound, and *ret_reached is 0.
 */
struct interval savings_at(const struct arm_curves *arm, const struct arm_curves *reference, double share,
                           uint64_t seed, int *ret_reached);

/* Mean over seeds of one seed's loss minus the reference's at the last step; above 0 = worse. */
struct interval savings_last_difference(const struct arm_curves *arm, const struct arm_curves *reference,
                                        uint64_t seed);

/* Area of one seed. */
double savings_area(const struct arm_curves *arm, int seed);

/* Share of seeds in which the arm's area is the smaller one; equal ones count half. */
double savings_wins(const struct arm_curves *arm, const struct arm_curves *other);

/* Mean loss at a step with its interval. */
struct interval savings_mean(const struct arm_curves *arm, int step, uint64_t seed);

#endif
