/* See scaling.h. */
#include "model/scaling.h"
#include "base/error.h"
#include "model/likelihood.h"

#include <math.h>
#include <stdlib.h>

#define SEARCH_STEPS 24 /* the interval of the logarithm shrinks to 4e-5 */

struct problem {
    const struct schema *schema;
    const float *alpha;
    int passes, question;
    const uint16_t *votes;
    size_t votes_stride_bytes;
    const uint64_t *row;
    size_t count;
    float *scaled; /* [passes][answers] of one galaxy */
};

static const uint16_t *votes_of(const struct problem *problem, size_t i)
{
    uint64_t row = problem->row ? problem->row[i] : i;
    return (const uint16_t *)((const char *)problem->votes + row * problem->votes_stride_bytes);
}

static int has_votes(const struct problem *problem, size_t i)
{
    const struct question *question = &problem->schema->question[problem->question];
    const uint16_t *votes = votes_of(problem, i);
    for (int a = question->first; a < question->first + question->count; a++)
        if (votes[a])
            return 1;
    return 0;
}

static double loss(const struct problem *problem, double log_factor)
{
    const struct question *question = &problem->schema->question[problem->question];
    size_t answers = (size_t)problem->schema->answers;
    float factor = (float)exp(log_factor);
    double sum = 0;
    for (size_t i = 0; i < problem->count; i++) {
        if (!has_votes(problem, i))
            continue;
        const float *alpha = problem->alpha + i * (size_t)problem->passes * answers;
        for (size_t t = 0; t < (size_t)problem->passes; t++)
            for (size_t a = (size_t)question->first; a < (size_t)(question->first + question->count); a++)
                problem->scaled[t * answers + a] = factor * alpha[t * answers + a];
        sum += likelihood_mixture_question(problem->schema, problem->question, problem->scaled, problem->passes,
                                           votes_of(problem, i));
    }
    return sum;
}

static double search(const struct problem *problem)
{
    const double golden = 0.6180339887498949;
    double low = log(SCALING_LOWER), high = 0;
    double left = high - golden * (high - low), right = low + golden * (high - low);
    double left_loss = loss(problem, left), right_loss = loss(problem, right);
    for (int step = 0; step < SEARCH_STEPS; step++)
        if (left_loss < right_loss) {
            high = right;
            right = left;
            right_loss = left_loss;
            left = high - golden * (high - low);
            left_loss = loss(problem, left);
        } else {
            low = left;
            left = right;
            left_loss = right_loss;
            right = low + golden * (high - low);
            right_loss = loss(problem, right);
        }
    double best = 0.5 * (low + high);
    return loss(problem, best) < loss(problem, 0) ? exp(best) : 1;
}

int scaling_fit(const struct schema *schema, const float *alpha, int passes, const uint16_t *votes,
                size_t votes_stride_bytes, const uint64_t *row, size_t count, float *factor)
{
    struct problem problem = {.schema = schema,
                              .alpha = alpha,
                              .passes = passes,
                              .votes = votes,
                              .votes_stride_bytes = votes_stride_bytes,
                              .row = row,
                              .count = count,
                              .scaled = calloc((size_t)passes * (size_t)schema->answers, sizeof(float))};
    if (!problem.scaled)
        return error_set(ERROR_SYSTEM, "out of memory for %d passes", passes);
    for (problem.question = 0; problem.question < schema->questions; problem.question++) {
        size_t galaxies = 0;
        for (size_t i = 0; i < count; i++)
            galaxies += (size_t)has_votes(&problem, i);
        factor[problem.question] = galaxies < SCALING_GALAXIES_MIN ? 1.0f : (float)search(&problem);
    }
    free(problem.scaled);
    return 0;
}
