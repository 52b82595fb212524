/*
 * The Dirichlet-multinomial likelihood of volunteers' votes (W+21, arXiv 2102.08414, eq. 2), its gradient,
 * and the best constant prediction under it. Not for what votes would teach: that is information.h.
 *
 * Per question with concentrations alpha_a, votes k_a, A = sum alpha_a and N = sum k_a:
 *
 *   NLL = -ln [ N! / (A)_N  *  prod_a (alpha_a)_(k_a) / k_a! ],   (x)_n = x (x+1) ... (x+n-1)
 *
 * The multinomial coefficient is included, so numbers compare with Zoobot's. Questions without votes give
 * exactly 0 and no gradient. Questions are independent given the image: a galaxy's NLL is the sum over its
 * questions.
 *
 * Domain: alpha 1e-3 .. 1e4, any vote counts. In double precision, to 1e-9 (1e-8 for 100,000 votes). NaN goes
 * in, NaN comes out.
 */
#ifndef TRIAGE_MODEL_LIKELIHOOD_H
#define TRIAGE_MODEL_LIKELIHOOD_H

#include "model/schema.h"

#include <stddef.h>
#include <stdint.h>

/* NLL of one question, in nats. */
double likelihood_question(const float *alpha, const uint16_t *votes, int count);

/* As above; gradient [count] OUTPUT: dNLL / dalpha. */
double likelihood_question_gradient(const float *alpha, const uint16_t *votes, int count, double *gradient);

/* Sum over the schema's questions. alpha, votes, gradient: [answers]. */
double likelihood_galaxy(const struct schema *schema, const float *alpha, const uint16_t *votes);
double likelihood_galaxy_gradient(const struct schema *schema, const float *alpha, const uint16_t *votes,
                                  double *gradient);

/* That gradient alone, without a logarithm; the same bits. Not finite somewhere when an alpha is not. */
void likelihood_galaxy_slopes(const struct schema *schema, const float *alpha, const uint16_t *votes, double *gradient);

/*
 * The ensemble's NLL: per question -ln of the probability averaged over passes, summed over questions.
 *   alpha  [passes][answers]
 */
double likelihood_mixture_question(const struct schema *schema, int question, const float *alpha, int passes,
                                   const uint16_t *votes);
double likelihood_mixture(const struct schema *schema, const float *alpha, int passes, const uint16_t *votes);

/* Derivative of ln Gamma, x > 0: recurrence to x >= 10, then Abramowitz & Stegun 6.3.18. */
double likelihood_digamma(double x);

/* Votes of a set of rows. */
struct vote_rows {
    const uint16_t *votes; /* [answers] per row */
    size_t stride_bytes;
    const uint64_t *row; /* [count], or NULL for 0 .. count-1 */
    size_t count;
};

/*
 * Where heads start from. Nearer to the ends of 1 + 100 sigmoid(x) its slope is so small that a head never gets away: the
 * best constant of a question that splits galaxies in two (edge-on or not) lies below 1, and heads that started at 1.001
 * still predicted it after hundreds of labels.
 */
#define LIKELIHOOD_START_LOWER 1.3
#define LIKELIHOOD_START_UPPER 100
/* Inside the range of 1 + 100 sigmoid(x): the best constant a head could predict. */
#define LIKELIHOOD_HEAD_LOWER 1.001
#define LIKELIHOOD_HEAD_UPPER 100.9
/* As good as unbounded: the strictest constant to compare a model with. */
#define LIKELIHOOD_FREE_LOWER 1e-3
#define LIKELIHOOD_FREE_UPPER 1e4

/*
 * The constant concentrations in [lower, upper] that minimise the summed NLL of these rows: Newton steps
 * (Minka 2000, "Estimating a Dirichlet distribution") on vote histograms, falling back on his fixed-point
 * step, which never makes it worse. Questions without any vote get min(2, upper). Deterministic; cost
 * independent of the number of rows after one pass.
 *   alpha  [answers] OUTPUT
 * ERROR_SYSTEM when out of memory.
 */
int likelihood_constant_fit(const struct schema *schema, const struct vote_rows *rows, double lower, double upper,
                            float *alpha);

#endif
