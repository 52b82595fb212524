/*
 * The active draw from a shortlist, spread over clusters and without near-duplicates, with the probability of every pick.
 *
 *   v = log(score) + Gumbel / power, or v = score with power 0
 * Candidates are looked at from the highest v on. One is out if a near-duplicate of it among the candidates has a higher v
 * (whether that one gets in or not), or if `cap` candidates of its cluster have; of the others the first `places` are taken.
 *
 * Every rule asks only what lies above a candidate, so, all others being as they are, it is taken if and only if its own v is
 * above a threshold tau that does not depend on it: the highest of
 *   its near-duplicates' v; the cap-th other candidate of its cluster; the places-th of what would be left without it; and, by
 *   the scan's score in place of the better one, the best galaxy that did not come on the shortlist
 * With it P(taken | the others) = P(Gumbel > power (tau - log score)) = 1 - exp(-exp(-power (tau - log score))), and the sum
 * over the picks of y / P is unbiased for the sum of y over all galaxies of the draw: those offered to it that are not held
 * back, nor near-duplicates of a galaxy on offer or drawn at random, nor of a cluster that those on offer fill. (Duffield et al.
 * 2007, doi 10.1145/1314690.1314696; "adaptive thresholds" of Ting 2017, arXiv 1708.04970.) What diversity changes is that P
 * becomes small for galaxies in crowded clusters or beside better duplicates: weights, and the variance of estimates, grow.
 * tests/unit/selection_test.c proves it by simulation.
 *
 * With power 0 nothing is drawn: P is reported as 1 and weighs nothing.
 */
#ifndef TRIAGE_ACQUISITION_DRAW_H
#define TRIAGE_ACQUISITION_DRAW_H

#include "acquisition/select.h"

struct draw_rule {
    double power;
    size_t places;
    int cap;                      /* candidates of a cluster that may go on; 0 = any number */
    const struct candidate *kept; /* [kept_count] on offer or taken already, whose clusters count */
    size_t kept_count;
    struct duplicate_rule duplicates;
    double left_out; /* v by the scan's score of the best galaxy that is not on the shortlist; -INFINITY = none */
};

/* log(score) + Gumbel / power; for power 0 the score. */
double draw_value(double power, float score, double gumbel);

/*
 * Sets outcome, like and probability of each candidate. They keep their order.
 *   taken  [places] OUTPUT, indices, best first
 * Returns their number, or ERROR_SYSTEM without memory.
 */
long draw_candidates(const struct draw_rule *rule, struct candidate *candidates, size_t count, size_t *taken);

#endif
