/* See target.h. */
#include "model/target.h"
#include "model/head.h"
#include "model/likelihood.h"

#include <math.h>

#define BINOMIAL_EPSILON 1e-8 /* W+20's */

/* Returns the logarithm of the sum of the exponentials. */
static double softmax(const float *output, int count, double *probability)
{
    double largest = (double)output[0], sum = 0;
    for (int i = 1; i < count; i++)
        largest = fmax(largest, (double)output[i]);
    for (int i = 0; i < count; i++)
        sum += probability[i] = exp((double)output[i] - largest);
    for (int i = 0; i < count; i++)
        probability[i] /= sum;
    return largest + log(sum);
}

static double votes_loss(const struct target *target, const float *output, const float *label, double *gradient)
{
    float alpha[TARGET_OUTPUTS_MAX];
    uint16_t votes[TARGET_OUTPUTS_MAX];
    for (int i = 0; i < target->outputs; i++) {
        alpha[i] = head_alpha(output[i]);
        votes[i] = (uint16_t)label[i];
    }
    if (!gradient)
        return likelihood_galaxy(target->schema, alpha, votes);
    double loss = likelihood_galaxy_gradient(target->schema, alpha, votes, gradient);
    for (int i = 0; i < target->outputs; i++)
        gradient[i] *= (double)head_alpha_slope(alpha[i]);
    return loss;
}

static double binomial_loss(const float *output, const float *label, double *gradient)
{
    double p[2], against = (double)label[0], k = (double)label[1];
    softmax(output, 2, p);
    if (gradient) {
        double slope = -(k / (p[1] + BINOMIAL_EPSILON) - against / (1 - p[1] + BINOMIAL_EPSILON)) * p[1] * p[0];
        gradient[1] = slope;
        gradient[0] = -slope;
    }
    return -(k * log(p[1] + BINOMIAL_EPSILON) + against * log(1 - p[1] + BINOMIAL_EPSILON));
}

static double classes_loss(const struct target *target, const float *output, const float *label, double *gradient)
{
    double p[TARGET_OUTPUTS_MAX], loss = 0, weight = 0, log_sum = softmax(output, target->outputs, p);
    for (int i = 0; i < target->outputs; i++)
        if (label[i] > 0) {
            weight = (double)target->class_weight[i];
            loss = weight * (log_sum - (double)output[i]); /* p may be too small for a double */
        }
    for (int i = 0; gradient && i < target->outputs; i++)
        gradient[i] = weight * (p[i] - (double)label[i]);
    return loss;
}

static double values_loss(const struct target *target, const float *output, const float *label, double *gradient)
{
    double sum = 0;
    for (int i = 0; i < target->outputs; i++) {
        double distance = (double)output[i] - (double)label[i];
        sum += distance * distance;
        if (gradient)
            gradient[i] = 2 * distance / target->outputs;
    }
    return sum / target->outputs;
}

double target_loss(const struct target *target, const float *output, const float *label, double *gradient)
{
    switch (target->kind) {
    case TARGET_VOTES:
        return votes_loss(target, output, label, gradient);
    case TARGET_BINOMIAL:
        return binomial_loss(output, label, gradient);
    case TARGET_CLASSES:
        return classes_loss(target, output, label, gradient);
    case TARGET_VALUES:
        return values_loss(target, output, label, gradient);
    }
    return NAN;
}

double target_question_loss(const struct target *target, int question, const float *output, const float *label)
{
    const struct question *asked = &target->schema->question[question];
    float alpha[TARGET_OUTPUTS_MAX];
    uint16_t votes[TARGET_OUTPUTS_MAX];
    for (int i = 0; i < asked->count; i++) {
        alpha[i] = head_alpha(output[asked->first + i]);
        votes[i] = (uint16_t)label[asked->first + i];
    }
    return likelihood_question(alpha, votes, asked->count);
}

static void predict_votes(const struct target *target, const float *output, float *prediction)
{
    for (int q = 0; q < target->schema->questions; q++) {
        const struct question *question = &target->schema->question[q];
        float sum = 0;
        for (int i = question->first; i < question->first + question->count; i++)
            sum += prediction[i] = head_alpha(output[i]);
        for (int i = question->first; i < question->first + question->count; i++)
            prediction[i] /= sum;
    }
}

void target_predict(const struct target *target, const float *output, float *prediction)
{
    double p[TARGET_OUTPUTS_MAX];
    if (target->kind == TARGET_VOTES) {
        predict_votes(target, output, prediction);
        return;
    }
    if (target->kind != TARGET_VALUES)
        softmax(output, target->outputs, p);
    for (int i = 0; i < target->outputs; i++)
        prediction[i] = target->kind == TARGET_VALUES ? output[i] : (float)p[i];
}
