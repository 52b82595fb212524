/*
 * What a net is taught to say about a galaxy, and how wrong it is: the loss of one galaxy's outputs (of the last linear
 * layer) against its label, with the gradient. Not for the layer itself or for batches (trunk_fit.h).
 *
 *   kind              label [outputs]              loss
 *   TARGET_VOTES      votes per answer             likelihood_galaxy() of 1 + 100 sigmoid(output) (W+21)
 *   TARGET_BINOMIAL   votes against, votes for     -[ k ln(p + 1e-8) + (N - k) ln(1 - p + 1e-8) ], p = softmax(output)[1]
 *                                                  (W+20; outputs is 2)
 *   TARGET_CLASSES    1 for its class, else 0      -ln softmax(output)[class], times the weight of the class
 *   TARGET_VALUES     values                       mean over outputs of (output - value)^2
 */
#ifndef TRIAGE_MODEL_TARGET_H
#define TRIAGE_MODEL_TARGET_H

#include "model/schema.h"

#define TARGET_OUTPUTS_MAX SCHEMA_ANSWERS_MAX

enum target_kind { TARGET_VOTES, TARGET_BINOMIAL, TARGET_CLASSES, TARGET_VALUES };

struct target {
    enum target_kind kind;
    int outputs;
    const struct schema *schema;            /* TARGET_VOTES */
    float class_weight[TARGET_OUTPUTS_MAX]; /* TARGET_CLASSES */
};

/* Loss in nats (squared units for values); gradient [outputs] OUTPUT, NULL = not wanted. NaN in, NaN out. */
double target_loss(const struct target *target, const float *output, const float *label, double *gradient);

/* Loss of one question of TARGET_VOTES. */
double target_question_loss(const struct target *target, int question, const float *output, const float *label);

/* What is predicted: vote fractions per question, probabilities, or values; prediction [outputs] OUTPUT. */
void target_predict(const struct target *target, const float *output, float *prediction);

#endif
