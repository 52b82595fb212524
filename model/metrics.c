/* See metrics.h. */
#include "model/metrics.h"
#include "model/likelihood.h"

#include <math.h>

static void add_question(struct metrics *metrics, const struct schema *schema, int q, const float *alpha, int passes,
                         const uint16_t *votes)
{
    const struct question *question = &schema->question[q];
    double fraction[SCHEMA_PER_QUESTION] = {0}, total = 0;
    for (int a = 0; a < question->count; a++)
        total += votes[question->first + a];
    if (total <= 0)
        return;
    for (int t = 0; t < passes; t++) {
        const float *pass = alpha + (size_t)t * (size_t)schema->answers + question->first;
        double sum = 0;
        for (int a = 0; a < question->count; a++)
            sum += (double)pass[a];
        for (int a = 0; a < question->count; a++)
            fraction[a] += (double)pass[a] / sum / passes;
    }
    for (int a = 0; a < question->count; a++) {
        double error = votes[question->first + a] / total - fraction[a];
        metrics->squares[q] += error * error;
    }
    metrics->compared[q] += (uint64_t)question->count;
    for (int a = 0; a < question->count; a++) {
        double observed = votes[question->first + a] / total;
        metrics->brier_sum += fraction[a] * fraction[a] - 2 * fraction[a] * observed + observed;
    }
    metrics->brier_count++;
}

double metrics_add(struct metrics *metrics, const struct schema *schema, const float *alpha, int passes,
                   const uint16_t *votes)
{
    double nll = likelihood_mixture(schema, alpha, passes, votes);
    metrics->galaxies++;
    metrics->nll_sum += nll;
    for (int q = 0; q < schema->questions; q++)
        add_question(metrics, schema, q, alpha, passes, votes);
    return nll;
}

double metrics_nll(const struct metrics *metrics)
{
    return metrics->galaxies ? metrics->nll_sum / (double)metrics->galaxies : NAN;
}

double metrics_question_rmse(const struct metrics *metrics, int question)
{
    return metrics->compared[question] ? sqrt(metrics->squares[question] / (double)metrics->compared[question]) : NAN;
}

double metrics_brier(const struct metrics *metrics)
{
    return metrics->brier_count ? metrics->brier_sum / (double)metrics->brier_count : NAN;
}

double metrics_rmse(const struct metrics *metrics)
{
    double squares = 0;
    uint64_t compared = 0;
    for (int q = 0; q < SCHEMA_QUESTIONS_MAX; q++) {
        squares += metrics->squares[q];
        compared += metrics->compared[q];
    }
    return compared ? sqrt(squares / (double)compared) : NAN;
}
