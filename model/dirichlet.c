/* Dirichlet and Beta distributions in closed form; see the header. */
#include "model/dirichlet.h"
#include "model/information.h"
#include "model/likelihood.h"

#include <math.h>

static double total(const double *alpha, int answers)
{
    double sum = 0;
    for (int a = 0; a < answers; a++)
        sum += alpha[a];
    return sum;
}

/* lgamma() writes a global; lgamma_r() is the one threads may share. */
static double log_gamma(double x)
{
    int sign;
    return lgamma_r(x, &sign);
}

static double log_beta(const double *alpha, int answers)
{
    double sum = -log_gamma(total(alpha, answers));
    for (int a = 0; a < answers; a++)
        sum += log_gamma(alpha[a]);
    return sum;
}

double dirichlet_entropy(const double *alpha, int answers)
{
    double sum = total(alpha, answers), entropy = log_beta(alpha, answers) + (sum - answers) * likelihood_digamma(sum);
    for (int a = 0; a < answers; a++)
        entropy -= (alpha[a] - 1) * likelihood_digamma(alpha[a]);
    return entropy;
}

double dirichlet_divergence(const double *a, const double *b, int answers)
{
    double psi = likelihood_digamma(total(a, answers)), divergence = log_beta(b, answers) - log_beta(a, answers);
    for (int i = 0; i < answers; i++)
        divergence += (a[i] - b[i]) * (likelihood_digamma(a[i]) - psi);
    return divergence;
}

double dirichlet_chernoff(const double *a, const double *b, int answers, double share)
{
    double between[SCHEMA_PER_QUESTION];
    for (int i = 0; i < answers; i++)
        between[i] = share * a[i] + (1 - share) * b[i];
    return share * log_beta(a, answers) + (1 - share) * log_beta(b, answers) - log_beta(between, answers);
}

struct dirichlet_bounds dirichlet_mixture(const double *alpha, int count, int answers)
{
    double log_b[INFORMATION_PASSES_MAX], psi[INFORMATION_PASSES_MAX][SCHEMA_PER_QUESTION]; /* psi(alpha) - psi(A) */
    double near[INFORMATION_PASSES_MAX];                                                    /* sum_j exp(-C_ij) */
    struct dirichlet_bounds bounds = {0};
    for (int i = 0; i < count; i++) {
        const double *a = alpha + i * answers;
        double psi_sum = likelihood_digamma(total(a, answers));
        log_b[i] = log_beta(a, answers);
        near[i] = 1;
        for (int k = 0; k < answers; k++)
            psi[i][k] = likelihood_digamma(a[k]) - psi_sum;
        bounds.mean += dirichlet_entropy(a, answers) / count;
    }
    double pairs_divergence = 0, pairs_chernoff = 0;
    for (int i = 0; i < count; i++) {
        double towards = 0; /* sum_j exp(-KL_ij) */
        for (int j = 0; j < count; j++) {
            const double *a = alpha + i * answers, *b = alpha + j * answers;
            double divergence = log_b[j] - log_b[i], between[SCHEMA_PER_QUESTION];
            for (int k = 0; k < answers; k++) {
                divergence += (a[k] - b[k]) * psi[i][k];
                between[k] = 0.5 * (a[k] + b[k]);
            }
            towards += exp(-divergence);
            if (j > i) {
                double overlap = exp(log_beta(between, answers) - 0.5 * (log_b[i] + log_b[j]));
                near[i] += overlap;
                near[j] += overlap;
            }
        }
        pairs_divergence -= log(towards / count) / count;
    }
    for (int i = 0; i < count; i++)
        pairs_chernoff -= log(near[i] / count) / count;
    bounds.lower = bounds.mean + pairs_chernoff;
    bounds.upper = bounds.mean + pairs_divergence;
    return bounds;
}

/* --- Beta --------------------------------------------------------------------------------------------------------- */

/*
 * The continued fraction of the incomplete beta function (Abramowitz & Stegun 26.5.8) by Lentz's method; converges in
 * O(sqrt(max(a, b))) steps where fraction < (a + 1) / (a + b + 2).
 */
static double continued_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double result = d;
    for (int m = 1; m <= 10000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        d = 1 + even * d;
        c = 1 + even / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        result *= d * c;
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 + odd * d;
        c = 1 + odd / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        result *= d * c;
        if (fabs(d * c - 1) < 1e-15)
            break;
    }
    return result;
}

double beta_below(double a, double b, double fraction)
{
    if (fraction <= 0 || fraction >= 1)
        return fraction <= 0 ? 0 : 1;
    double factor = exp(a * log(fraction) + b * log1p(-fraction) + log_gamma(a + b) - log_gamma(a) - log_gamma(b));
    if (fraction < (a + 1) / (a + b + 2))
        return factor * continued_fraction(a, b, fraction) / a;
    return 1 - factor * continued_fraction(b, a, 1 - fraction) / b;
}

/* Bisection: every step is certain, and 60 of them leave nothing of a double between the ends. */
double beta_quantile(double a, double b, double probability)
{
    double low = 0, high = 1;
    for (int step = 0; step < 60; step++) {
        double middle = 0.5 * (low + high);
        if (beta_below(a, b, middle) < probability)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

struct count_interval count_interval(const double *probability, int votes, double mass)
{
    int mode = 0;
    for (int k = 1; k <= votes; k++)
        if (probability[k] > probability[mode])
            mode = k;
    struct count_interval interval = {mode, mode, probability[mode]};
    while (interval.mass < mass && (interval.low > 0 || interval.high < votes)) {
        if (interval.low > 0)
            interval.mass += probability[--interval.low];
        if (interval.high < votes)
            interval.mass += probability[++interval.high];
    }
    return interval;
}
