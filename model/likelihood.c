/* The votes' likelihood; see likelihood.h. The constant fit is in constant.c. */
#include "model/likelihood.h"
#include "model/likelihood_terms.h"

#include <math.h>

double likelihood_digamma(double x)
{
    return likelihood_terms_digamma(x);
}

double likelihood_question(const float *alpha, const uint16_t *votes, int count)
{
    return likelihood_terms(alpha, votes, count, NULL);
}

double likelihood_question_gradient(const float *alpha, const uint16_t *votes, int count, double *gradient)
{
    return likelihood_terms(alpha, votes, count, gradient);
}

double likelihood_galaxy(const struct schema *schema, const float *alpha, const uint16_t *votes)
{
    return likelihood_galaxy_gradient(schema, alpha, votes, NULL);
}

double likelihood_galaxy_gradient(const struct schema *schema, const float *alpha, const uint16_t *votes,
                                  double *gradient)
{
    double nll = 0;
    for (int q = 0; q < schema->questions; q++) {
        int first = schema->question[q].first;
        nll += likelihood_terms(alpha + first, votes + first, schema->question[q].count,
                                gradient ? gradient + first : NULL);
    }
    return nll;
}

void likelihood_galaxy_slopes(const struct schema *schema, const float *alpha, const uint16_t *votes, double *gradient)
{
    for (int q = 0; q < schema->questions; q++) {
        int first = schema->question[q].first, end = first + schema->question[q].count;
        double concentration = 0;
        uint32_t total = 0;
        for (int a = first; a < end; a++) {
            concentration += (double)alpha[a];
            total += votes[a];
        }
        double all = likelihood_rising_slope(concentration, total);
        for (int a = first; a < end; a++)
            gradient[a] = all - likelihood_rising_slope((double)alpha[a], votes[a]);
    }
}

double likelihood_mixture_question(const struct schema *schema, int q, const float *alpha, int passes,
                                   const uint16_t *votes)
{
    const struct question *asked = &schema->question[q];
    double least = INFINITY, sum = 0; /* probabilities relative to the most likely pass seen so far */
    for (int t = 0; t < passes; t++) {
        double one = likelihood_terms(alpha + (size_t)t * (size_t)schema->answers + asked->first, votes + asked->first,
                                      asked->count, NULL);
        if (isnan(one))
            return one;
        if (one < least) {
            sum = sum * exp(one - least) + 1;
            least = one;
        } else {
            sum += exp(least - one);
        }
    }
    return least - log(sum / passes);
}

double likelihood_mixture(const struct schema *schema, const float *alpha, int passes, const uint16_t *votes)
{
    double nll = 0;
    for (int q = 0; q < schema->questions; q++)
        nll += likelihood_mixture_question(schema, q, alpha, passes, votes);
    return nll;
}
