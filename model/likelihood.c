/* The votes' likelihood; see likelihood.h. The constant fit is in constant.c. */
#include "model/likelihood.h"

#include <math.h>

/* Up to here plain products are exact enough and cheaper than ln Gamma; (1.6e5)^32 is far from overflow. */
#define PRODUCT_VOTES_MAX 32

struct rising {
    double log;   /* ln [ (x)_n / n! ] */
    double slope; /* d/dx of it: 1/x + 1/(x+1) + ... + 1/(x+n-1) */
};

double likelihood_digamma(double x)
{
    double shift = 0;
    for (; x < 10; x++)
        shift += 1 / x;
    double r = 1 / (x * x);
    double series =
        r * (1.0 / 12 -
             r * (1.0 / 120 - r * (1.0 / 252 - r * (1.0 / 240 - r * (1.0 / 132 - r * (691.0 / 32760 - r / 12))))));
    return log(x) - 0.5 / x - series - shift;
}

static double log_gamma(double x)
{
    int sign; /* lgamma() writes a global */
    return lgamma_r(x, &sign);
}

static struct rising rising(double x, uint32_t n)
{
    if (n == 0)
        return (struct rising){0, 0};
    if (n > PRODUCT_VOTES_MAX)
        return (struct rising){log_gamma(x + n) - log_gamma(x) - log_gamma(n + 1.0),
                               likelihood_digamma(x + n) - likelihood_digamma(x)};
    double product = x, derivative = 1, factorial = 1;
    for (uint32_t i = 1; i < n; i++) {
        derivative = derivative * (x + i) + product;
        product *= x + i;
        factorial *= 1 + i;
    }
    return (struct rising){log(product / factorial), derivative / product};
}

/* `gradient` may be NULL. */
static double question(const float *alpha, const uint16_t *votes, int count, double *gradient)
{
    double concentration = 0;
    uint32_t total = 0;
    for (int a = 0; a < count; a++) {
        concentration += (double)alpha[a];
        total += votes[a];
    }
    if (total == 0) {
        for (int a = 0; gradient && a < count; a++)
            gradient[a] = 0;
        return 0;
    }
    struct rising all = rising(concentration, total);
    double nll = all.log;
    for (int a = 0; a < count; a++) {
        struct rising one = rising((double)alpha[a], votes[a]);
        nll -= one.log;
        if (gradient)
            gradient[a] = all.slope - one.slope;
    }
    return nll;
}

double likelihood_question(const float *alpha, const uint16_t *votes, int count)
{
    return question(alpha, votes, count, NULL);
}

double likelihood_question_gradient(const float *alpha, const uint16_t *votes, int count, double *gradient)
{
    return question(alpha, votes, count, gradient);
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
        nll += question(alpha + first, votes + first, schema->question[q].count, gradient ? gradient + first : NULL);
    }
    return nll;
}

double likelihood_mixture(const struct schema *schema, const float *alpha, int passes, const uint16_t *votes)
{
    double nll = 0;
    for (int q = 0; q < schema->questions; q++) {
        const struct question *asked = &schema->question[q];
        double least = INFINITY, sum = 0; /* probabilities relative to the most likely pass seen so far */
        for (int t = 0; t < passes; t++) {
            double one = question(alpha + (size_t)t * (size_t)schema->answers + asked->first, votes + asked->first,
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
        nll += least - log(sum / passes);
    }
    return nll;
}
