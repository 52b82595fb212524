/* Acquisition scores; formulas in the header. */
#include "acquisition/score.h"
#include "acquisition/joint.h"
#include "base/error.h"
#include "model/dirichlet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FEATURED_FRACTION    0.2
#define FEATURED_PROBABILITY 0.8
#define OUTCOMES_IN_ALL      40000000L /* of one question over a shortlist: 30 passes take about 2.4 s on one core */

static const struct {
    const char *name;
    enum information_kind information;
    int needs_passes;
} kinds[SCORE_KINDS] = {
    [SCORE_BALD] = {"bald",          INFORMATION_VOTES,    0},
    [SCORE_BALD_ONE_VOTE] = {"bald-one-vote", INFORMATION_ONE_VOTE, 0},
    [SCORE_BALD_BINOMIAL] = {"bald-binomial", INFORMATION_BINOMIAL, 0},
    [SCORE_ENTROPY] = {"entropy",       INFORMATION_VOTES,    0},
    [SCORE_MARGIN] = {"margin",        INFORMATION_ONE_VOTE, 0},
    [SCORE_VARIANCE] = {"variance",      INFORMATION_ONE_VOTE, 1},
    [SCORE_MIXTURE] = {"mixture",       INFORMATION_ONE_VOTE, 1},
    [SCORE_EPIG] = {"epig",          INFORMATION_ONE_VOTE, 1},
    [SCORE_FEATURED] = {"featured",      INFORMATION_ONE_VOTE, 1},
    [SCORE_RANDOM] = {"random",        INFORMATION_ONE_VOTE, 0},
};

const char *score_name(enum score_kind kind)
{
    return kinds[kind].name;
}

int score_from_name(const char *name, enum score_kind *ret_kind)
{
    for (int kind = 0; kind < SCORE_KINDS; kind++)
        if (strcmp(name, kinds[kind].name) == 0) {
            *ret_kind = (enum score_kind)kind;
            return 0;
        }
    return error_set(ERROR_INPUT, "unknown score '%s': use one of " SCORE_NAMES, name);
}

enum information_kind score_information(enum score_kind kind)
{
    return kinds[kind].information;
}

int score_needs_passes(enum score_kind kind)
{
    return kinds[kind].needs_passes;
}

static int find_question(const struct schema *schema, const char *name)
{
    for (int q = 0; q < schema->questions; q++)
        if (strcmp(schema->question[q].name, name) == 0)
            return q;
    return -1;
}

int score_set_questions(const struct schema *schema, const char *names, struct score_rule *rule)
{
    int all = strcmp(names, "all") == 0, known = 0;
    for (int q = 0; q < schema->questions; q++)
        rule->counts[q] = (uint8_t)all;
    for (const char *at = names; *at && !all;) {
        char name[SCHEMA_NAME_BYTES];
        size_t length = strcspn(at, ", ");
        snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), at);
        int q = find_question(schema, name);
        if (length && q < 0)
            return error_set(ERROR_INPUT, "schema %s has no question '%s': name its questions, or say all",
                             schema->name, name);
        if (length)
            rule->counts[q] = 1;
        known += length > 0;
        at += length;
        at += strspn(at, ", ");
    }
    return all || known ? 0 : error_set(ERROR_INPUT, "no question counts for the score: name some, or say all");
}

/* --- from the information row ------------------------------------------------------------------------------------- */

static double margin(const struct question *question, const float *fraction)
{
    double first = 0, second = 0;
    for (int a = question->first; a < question->first + question->count; a++) {
        double p = (double)fraction[a];
        second = p > first ? first : p > second ? p : second;
        first = p > first ? p : first;
    }
    return 1 - (first - second);
}

double score_row(const struct score_rule *rule, const struct schema *schema, const float *row)
{
    const float *fraction = row + 2, *total = fraction + schema->answers, *expected = total + schema->questions;
    float reached[SCHEMA_QUESTIONS_MAX];
    double sum = 0;
    if (rule->kind == SCORE_RANDOM)
        return 0;
    schema_reached(schema, fraction, reached);
    for (int q = 0; q < schema->questions; q++) {
        if (!rule->counts[q])
            continue;
        double value = rule->kind == SCORE_ENTROPY  ? (double)total[q]
                       : rule->kind == SCORE_MARGIN ? margin(&schema->question[q], fraction)
                                                    : (double)total[q] - (double)expected[q];
        sum += (double)reached[q] * value;
    }
    return sum;
}

/* --- from the concentrations -------------------------------------------------------------------------------------- */

/* p_ta, answers apart: fraction [answers][passes]; their means; P(reached). */
static void fractions_of(const struct schema *schema, const float *alpha, int passes, float *fraction, float *mean,
                         float *reached)
{
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        for (int t = 0; t < passes; t++) {
            double sum = 0;
            for (int a = question->first; a < question->first + question->count; a++)
                sum += (double)alpha[t * schema->answers + a];
            for (int a = question->first; a < question->first + question->count; a++)
                fraction[a * passes + t] = (float)((double)alpha[t * schema->answers + a] / sum);
        }
    }
    for (int a = 0; a < schema->answers; a++) {
        double sum = 0;
        for (int t = 0; t < passes; t++)
            sum += (double)fraction[a * passes + t];
        mean[a] = (float)(sum / passes);
    }
    schema_reached(schema, mean, reached);
}

void score_set_target(const struct schema *schema, struct score_targets *targets, int target, const float *alpha)
{
    float mean[SCHEMA_ANSWERS_MAX];
    fractions_of(schema, alpha, targets->passes,
                 targets->fraction + (size_t)target * (size_t)schema->answers * (size_t)targets->passes, mean,
                 targets->reached + (size_t)target * (size_t)schema->questions);
}

static double variance(const struct question *question, const float *fraction, const float *mean, int passes)
{
    double sum = 0;
    for (int a = question->first; a < question->first + question->count; a++)
        for (int t = 0; t < passes; t++) {
            double difference = (double)fraction[a * passes + t] - (double)mean[a];
            sum += difference * difference / passes;
        }
    return sum;
}

static double midpoint(const double *alpha, int count, int answers)
{
    struct dirichlet_bounds bounds = dirichlet_mixture(alpha, count, answers);
    return 0.5 * (bounds.lower + bounds.upper);
}

static double mixture(const struct schema *schema, const struct question *question, const float *alpha, int passes,
                      int heads)
{
    double own[INFORMATION_PASSES_MAX * SCHEMA_PER_QUESTION];
    int answers = question->count, passes_per_head = passes / heads;
    for (int t = 0; t < passes; t++)
        for (int a = 0; a < answers; a++)
            own[t * answers + a] = (double)alpha[t * schema->answers + question->first + a];
    double value = midpoint(own, passes, answers);
    for (int head = 0; head < heads; head++)
        value -= midpoint(own + head * passes_per_head * answers, passes_per_head, answers) / heads;
    return value > 0 ? value : 0; /* a difference of approximations */
}

/* I(y; y*) of one target: the joint is the mean over passes of products, as passes share their parameters. */
static double shared_information(const struct question *question, const float *own, const float *mean,
                                 const float *target, int passes)
{
    double information = 0;
    int first = question->first, count = question->count;
    for (int b = first; b < first + count; b++) {
        double target_mean = 0;
        for (int t = 0; t < passes; t++)
            target_mean += (double)target[b * passes + t];
        target_mean /= passes;
        for (int a = first; a < first + count; a++) {
            float joint = 0;
            for (int t = 0; t < passes; t++)
                joint += own[a * passes + t] * target[b * passes + t];
            double p = (double)joint / passes;
            information += p > 0 ? p * information_log(p / ((double)mean[a] * target_mean)) : 0;
        }
    }
    return information > 0 ? information : 0;
}

static double epig(const struct score_rule *rule, const struct schema *schema, int q, const float *fraction,
                   const float *mean)
{
    const struct score_targets *targets = &rule->targets;
    double sum = 0;
    for (int m = 0; m < targets->count; m++)
        sum += (double)targets->reached[m * schema->questions + q] *
               shared_information(&schema->question[q], fraction, mean,
                                  targets->fraction + (size_t)m * (size_t)schema->answers * (size_t)targets->passes,
                                  targets->passes);
    return targets->count ? sum / targets->count : 0;
}

/* The fraction's distribution is the mixture over passes of Beta(alpha_a, A - alpha_a). */
static double featured(const struct schema *schema, const float *alpha, int passes)
{
    int answer = 0;
    while (answer < schema->answers && strncmp(schema->answer[answer].name, "featured", 8) != 0)
        answer++;
    if (answer == schema->answers)
        return 0;
    const struct question *question = &schema->question[schema->answer[answer].question];
    double above = 0;
    for (int t = 0; t < passes; t++) {
        double sum = 0, own = (double)alpha[t * schema->answers + answer];
        for (int a = question->first; a < question->first + question->count; a++)
            sum += (double)alpha[t * schema->answers + a];
        above += (1 - beta_below(own, sum - own, FEATURED_FRACTION)) / passes;
    }
    return above >= FEATURED_PROBABILITY;
}

double score_passes(const struct score_rule *rule, const struct schema *schema, const float *alpha, int passes,
                    int heads)
{
    static _Thread_local float fraction[SCHEMA_ANSWERS_MAX * INFORMATION_PASSES_MAX]; /* 1 MB: too much for a stack */
    float mean[SCHEMA_ANSWERS_MAX], reached[SCHEMA_QUESTIONS_MAX];
    double sum = 0;
    if (rule->kind == SCORE_FEATURED)
        return featured(schema, alpha, passes);
    fractions_of(schema, alpha, passes, fraction, mean, reached);
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        if (!rule->counts[q])
            continue;
        double value = rule->kind == SCORE_VARIANCE  ? variance(question, fraction, mean, passes)
                       : rule->kind == SCORE_MIXTURE ? mixture(schema, question, alpha, passes, heads)
                                                     : epig(rule, schema, q, fraction, mean);
        sum += (double)reached[q] * value;
    }
    return sum;
}

/* --- all counts together ------------------------------------------------------------------------------------------ */

int score_can_refine(enum score_kind kind)
{
    return kinds[kind].information == INFORMATION_VOTES;
}

long score_outcomes_max(size_t galaxies)
{
    long share = OUTCOMES_IN_ALL / (long)(galaxies ? galaxies : 1);
    return share < JOINT_OUTCOMES_MAX ? share : JOINT_OUTCOMES_MAX;
}

double score_refine(const struct score_rule *rule, const struct schema *schema, const float *alpha, int passes,
                    int votes, long outcomes_max, float *row)
{
    float *total = row + 2 + schema->answers, *expected = total + schema->questions;
    float reached[SCHEMA_QUESTIONS_MAX];
    double sums[2] = {0};
    outcomes_max = outcomes_max < JOINT_OUTCOMES_MAX ? outcomes_max : JOINT_OUTCOMES_MAX;
    schema_reached(schema, row + 2, reached);
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        if (question->count > 2 && information_votes(votes) > 1 && isfinite(total[q]) &&
            joint_outcomes(question->count, votes) <= outcomes_max) {
            struct information joint =
                joint_information(alpha + question->first, schema->answers, question->count, passes, votes);
            total[q] = isfinite(joint.total) ? (float)joint.total : total[q];
            expected[q] = isfinite(joint.total) ? (float)joint.expected : expected[q];
        }
        sums[0] += (double)reached[q] * (double)total[q];
        sums[1] += (double)reached[q] * (double)expected[q];
    }
    row[0] = (float)sums[0];
    row[1] = (float)sums[1];
    return score_row(rule, schema, row);
}

/* --- guards --------------------------------------------------------------------------------------------------------- */

double score_artifact(const struct schema *schema, const float *fraction)
{
    double most = 0;
    for (int a = 0; a < schema->answers; a++) {
        const struct answer *answer = &schema->answer[a];
        int is_artifact = strncmp(answer->name, "artifact", 8) == 0 || strncmp(answer->name, "problem", 7) == 0;
        if (is_artifact && schema->question[answer->question].parent < 0 && (double)fraction[a] > most)
            most = (double)fraction[a];
    }
    return most;
}
