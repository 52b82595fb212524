/*
 * The formula of likelihood.h for one question, inline: every backend computes the same numbers from one source. Not an
 * interface of its own: callers on the host use likelihood.h.
 */
#ifndef TRIAGE_MODEL_LIKELIHOOD_TERMS_H
#define TRIAGE_MODEL_LIKELIHOOD_TERMS_H

#include "base/host_device.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* Up to here plain products are exact enough and cheaper than ln Gamma; (1.6e5)^32 is far from overflow. */
#define LIKELIHOOD_PRODUCT_MAX 32

struct likelihood_rising {
    double log;   /* ln [ (x)_n / n! ] */
    double slope; /* d/dx of it: 1/x + 1/(x+1) + ... + 1/(x+n-1) */
};

HOST_DEVICE static inline double likelihood_terms_digamma(double x)
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

HOST_DEVICE static inline double likelihood_log_gamma(double x)
{
#ifdef __CUDA_ARCH__
    return lgamma(x);
#else
    int sign; /* lgamma() writes a global */
    return lgamma_r(x, &sign);
#endif
}

HOST_DEVICE static inline struct likelihood_rising likelihood_rising(double x, uint32_t n)
{
    if (n == 0)
        return (struct likelihood_rising){0, 0};
    if (n > LIKELIHOOD_PRODUCT_MAX)
        return (struct likelihood_rising){likelihood_log_gamma(x + n) - likelihood_log_gamma(x) -
                                              likelihood_log_gamma(n + 1.0),
                                          likelihood_terms_digamma(x + n) - likelihood_terms_digamma(x)};
    double product = x, derivative = 1, factorial = 1;
    for (uint32_t i = 1; i < n; i++) {
        derivative = derivative * (x + i) + product;
        product *= x + i;
        factorial *= 1 + i;
    }
    return (struct likelihood_rising){log(product / factorial), derivative / product};
}

/* The slope alone, with the same bits. */
HOST_DEVICE static inline double likelihood_rising_slope(double x, uint32_t n)
{
    if (n == 0)
        return 0;
    if (n > LIKELIHOOD_PRODUCT_MAX)
        return likelihood_terms_digamma(x + n) - likelihood_terms_digamma(x);
    double product = x, derivative = 1;
    for (uint32_t i = 1; i < n; i++) {
        derivative = derivative * (x + i) + product;
        product *= x + i;
    }
    return derivative / product;
}

/* `gradient` may be NULL. */
HOST_DEVICE static inline double likelihood_terms(const float *alpha, const uint16_t *votes, int count,
                                                  double *gradient)
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
    struct likelihood_rising all = likelihood_rising(concentration, total);
    double nll = all.log;
    for (int a = 0; a < count; a++) {
        struct likelihood_rising one = likelihood_rising((double)alpha[a], votes[a]);
        nll -= one.log;
        if (gradient)
            gradient[a] = all.slope - one.slope;
    }
    return nll;
}

#endif
