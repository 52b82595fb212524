/*
 * Acquisition scores by name: how much a volunteer's minute on a galaxy is worth. Pure functions of what the passes say.
 * Choosing galaxies by their scores is select.h; entropies and mutual information themselves are model/information.h.
 *
 * With p_ta the expected fraction of answer a in pass t, p_a its mean, R_q the probability that question q is reached,
 * and sums over the questions that count:
 *   bald           sum R_q (total_q - expected_q): mutual information of the votes still due (Houlsby et al. 2011);
 *                  for three and more answers the best marginal, a lower bound (model/information.h), or on a shortlist all
 *                  counts together (score_refine)
 *   bald-one-vote  the same for a single vote
 *   bald-binomial  the same under W+20's binomial (arXiv 1905.07424): the first answer against the others
 *   entropy        sum R_q total_q: entropy of the votes, what volunteers disagree about included
 *   margin         sum R_q (1 - (p_first - p_second)), the two largest p_a
 *   variance       sum R_q sum_a Var_t(p_ta)
 *   mixture        sum R_q (H(all passes) - mean over heads H(passes of the head)), H the midpoint of the bounds of a
 *                  mixture of Dirichlets (Kolchinsky & Tracey 2017; Zoobot in 2020); model/dirichlet.h
 *   epig           sum R_q mean_m R_mq I(vote on q of this galaxy; vote on q of target m): what its vote would teach about a
 *                  random sample of galaxies (Bickford Smith et al. 2023, arXiv 2304.08151), one vote each
 *   featured       1 where P(featured fraction >= 0.2) >= 0.8, else 0: what Galaxy Zoo runs today (the answer is the first
 *                  one of the schema whose name begins with "featured"); no uncertainty in it
 *   random         0: the selection draws
 *
 * What is approximate, and by how much (tests/unit/approximations_test.c measures each of these on simulated galaxies):
 *   best marginal for all counts  never above it; two answers: equal. 10 to 40 votes: 75 % of it for three answers, 60 % for
 *                                 four, 46 % for six on average (half, 38 %, 25 % at worst); ranks agree to 0.94 .. 0.98
 *                                 (Spearman). So a scan undervalues questions of many answers; the shortlist mends it
 *   one vote for N votes          never above it; a tenth of 40 votes' on average, ranks agree to 0.93; blind to passes that
 *                                 agree on fractions and differ in concentration
 *   T passes for all of them      at most ln T; 15 passes see 97.5 %, 30 98.7 %, 120 99.7 % of what 480 do
 *   mixture                       the midpoint is within half the gap of its bounds (dirichlet_mixture), off by 0.08 nat on
 *                                 average and 0.13 at worst; a score is a difference of such
 *   epig                          one vote on one question of one target at a time; 64 targets stand for the pool
 *   P(reached)                    a product of mean fractions, as if questions were independent given the means
 *
 * All are >= 0. NaN comes from galaxies whose embedding is not finite and is ranked as 0.
 */
#ifndef TRIAGE_ACQUISITION_SCORE_H
#define TRIAGE_ACQUISITION_SCORE_H

#include "model/information.h"
#include "model/schema.h"

#include <stdint.h>

enum score_kind {
    SCORE_BALD,
    SCORE_BALD_ONE_VOTE,
    SCORE_BALD_BINOMIAL,
    SCORE_ENTROPY,
    SCORE_MARGIN,
    SCORE_VARIANCE,
    SCORE_MIXTURE,
    SCORE_EPIG,
    SCORE_FEATURED,
    SCORE_RANDOM,
    SCORE_KINDS,
};

#define SCORE_NAMES "bald|bald-one-vote|bald-binomial|entropy|margin|variance|mixture|epig|featured|random"

const char *score_name(enum score_kind kind);

/* ERROR_INPUT for a name that is not one of SCORE_NAMES. */
int score_from_name(const char *name, enum score_kind *ret_kind);

/* Which information the pool keeps beside this score. */
enum information_kind score_information(enum score_kind kind);

/* Whether score_passes() is needed; the others are score_row(). */
int score_needs_passes(enum score_kind kind);

/* Galaxies that epig asks about: the more, the smoother; cost grows with them. */
#define SCORE_TARGETS_MAX 256

struct score_targets {
    int count, passes;
    float *fraction; /* [count][answers][passes], p_ta of each target */
    float *reached;  /* [count][questions] */
};

/* Fills one target from its concentrations, alpha [passes][answers]; the arrays are the caller's. */
void score_set_target(const struct schema *schema, struct score_targets *targets, int target, const float *alpha);

struct score_rule {
    enum score_kind kind;
    uint8_t counts[SCHEMA_QUESTIONS_MAX]; /* 1 = this question counts */
    struct score_targets targets;         /* for epig */
};

/*
 * Questions that count, from "all" or a list of names ("smooth-or-featured, bar"). ERROR_INPUT naming one the schema
 * does not have.
 */
int score_set_questions(const struct schema *schema, const char *names, struct score_rule *rule);

/* From a galaxy's information row (model/information.h) of score_information(kind). */
double score_row(const struct score_rule *rule, const struct schema *schema, const float *row);

/*
 * From its concentrations.
 *   alpha   [passes][answers], passes of the first head first
 *   passes  1 .. INFORMATION_PASSES_MAX, a multiple of heads
 */
double score_passes(const struct score_rule *rule, const struct schema *schema, const float *alpha, int passes,
                    int heads);

/* Whether the score rests on counts of votes, for which score_refine() has better numbers than the scan: bald, entropy. */
int score_can_refine(enum score_kind kind);

/*
 * The same score from all of a question's counts together (joint.h) instead of its best marginal, for questions of three and
 * more answers with at most `outcomes_max` ways for the votes to fall; the others keep what `row` says. Which questions these
 * are depends on numbers of answers and votes only, never on the galaxy.
 *   alpha  [passes][answers]
 *   votes  due, N before clamping
 *   row    INOUT the galaxy's information row: totals and expected entropies of those questions and their weighted sums
 */
double score_refine(const struct score_rule *rule, const struct schema *schema, const float *alpha, int passes,
                    int votes, long outcomes_max, float *row);

/* outcomes_max for this many galaxies: at most a few seconds of work a question on one core. */
long score_outcomes_max(size_t galaxies);

/*
 * The largest share of volunteers expected to call the galaxy an artifact: over answers of questions everybody is asked whose
 * names begin with "artifact" or "problem" (Galaxy Zoo's words for "star or artifact"). 0 if the schema has none.
 *   fraction  [answers]
 */
double score_artifact(const struct schema *schema, const float *fraction);

#endif
