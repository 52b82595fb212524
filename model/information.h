/*
 * Entropy and mutual information of the votes a galaxy would receive, per question, from the concentrations of T
 * MC-dropout passes. Written once, inline, so that every backend computes the same numbers.
 *
 *   total     H( mean_t P_t )    entropy of the mixture
 *   expected  mean_t H( P_t )    expected conditional entropy
 *   mutual information = total - expected: what the votes would teach us (BALD, Houlsby et al. 2011), in nats
 *
 * INFORMATION_VOTES     P_t(k) is the Dirichlet-multinomial over the counts of N votes. N = 1: the categorical, any
 *                       number of answers, exact. Two answers: exact over N + 1 outcomes. Three or more: the largest
 *                       of the per-answer beta-binomial marginals, a lower bound on the joint mutual information
 *                       (data-processing inequality); total and expected are those of that answer.
 * INFORMATION_ONE_VOTE  as INFORMATION_VOTES with N = 1 whatever is due.
 * INFORMATION_BINOMIAL  W+20 (arXiv 1905.07424): P_t(k) = Binomial(k; N, rho_t), rho_t the expected fraction of the
 *                       question's first answer; entropies use ln(P + 1e-12) as the authors' code does.
 *
 * A galaxy's score is sum over questions of P(reached) * mutual information (schema_reached()).
 */
#ifndef TRIAGE_MODEL_INFORMATION_H
#define TRIAGE_MODEL_INFORMATION_H

enum information_kind {
    INFORMATION_VOTES,
    INFORMATION_ONE_VOTE,
    INFORMATION_BINOMIAL,
};

#define INFORMATION_VOTES_MAX 200 /* N is clamped to 1 .. this */

struct information {
    float total, expected;
};

/* What REDUCE_INFORMATION leaves per galaxy: sums over questions, weighted by P(reached). */
struct head_information {
    float total, expected; /* nats */
};

#endif
