/*
 * Closed forms of the Dirichlet and Beta distributions, and of mixtures of them: what several passes say about a
 * galaxy's vote fractions. In double precision to 1e-9. Not for counts of votes: those are likelihood.h (how
 * probable they are) and information.h (what they would teach).
 *
 * With A = sum of the concentrations alpha_a, ln B(alpha) = sum lnGamma(alpha_a) - lnGamma(A), psi = digamma:
 *   entropy     H = ln B(alpha) + (A - K) psi(A) - sum (alpha_a - 1) psi(alpha_a)          (differential, may be < 0)
 *   divergence  KL(a || b) = ln B(b) - ln B(a) + sum (a_i - b_i) (psi(a_i) - psi(A))
 *   Chernoff    C_l(a, b) = l ln B(a) + (1 - l) ln B(b) - ln B(l a + (1 - l) b),   0 < l < 1
 *
 * Concentrations are positive. No state, no allocation; NaN goes in, NaN comes out.
 */
#ifndef TRIAGE_MODEL_DIRICHLET_H
#define TRIAGE_MODEL_DIRICHLET_H

/* alpha: [answers]; nats. */
double dirichlet_entropy(const double *alpha, int answers);
double dirichlet_divergence(const double *a, const double *b, int answers);
double dirichlet_chernoff(const double *a, const double *b, int answers, double share);

/*
 * Bounds of the entropy of an equal mixture of n Dirichlets (Kolchinsky & Tracey 2017, arXiv 1706.02419):
 *   H = mean_i H(Dir_i) - mean_i ln mean_j exp(-D_ij)
 * is an upper bound with D the divergence, a lower one with D the Chernoff divergence at 1/2.
 */
struct dirichlet_bounds {
    double mean, lower, upper; /* nats; mean = mean_i H(Dir_i) <= lower <= upper */
};

/*
 * alpha: [count][answers], count 1 .. INFORMATION_PASSES_MAX (model/information.h), answers <= SCHEMA_PER_QUESTION;
 * count * count / 2 pairs of `answers` logarithms of the Gamma function.
 */
struct dirichlet_bounds dirichlet_mixture(const double *alpha, int count, int answers);

/* P(x <= fraction), x ~ Beta(a, b); the regularised incomplete beta function. fraction is clamped to 0..1. */
double beta_below(double a, double b, double fraction);

/* The fraction below which x ~ Beta(a, b) lies with this probability, 0..1. */
double beta_quantile(double a, double b, double probability);

/* Counts of votes low..high, inclusive, and the probability that the count is among them. */
struct count_interval {
    int low, high;
    double mass;
};

/*
 * As W+21 (arXiv 2102.08414, Fig. 19) builds its credible intervals: from the most probable count (the lowest of
 * equals) both ends step outwards together, stopping at 0 and N, until they hold at least `mass`.
 *   probability  [votes + 1] of each count, adding up to 1
 *   mass         0 < mass < 1
 */
struct count_interval count_interval(const double *probability, int votes, double mass);

#endif
