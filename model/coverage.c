/* See coverage.h. */
#include "model/coverage.h"
#include "model/dirichlet.h"

#include <math.h>
#include <stddef.h>

#define REQUESTED 50 /* masses of credible intervals */

/* One pass by running ratios from k = 0 on; each factor is positive, so nothing cancels. */
static void add_pass(enum coverage_kind kind, double alpha, double sum, int votes, double *probability, double share)
{
    double rest = sum - alpha, odds = alpha / rest, p = 1;
    for (int i = 0; i < votes; i++)
        p *= kind == COVERAGE_OURS ? (rest + i) / (sum + i) : rest / sum;
    for (int k = 0; k <= votes; k++) {
        probability[k] += share * p;
        double ratio = (double)(votes - k) / (k + 1);
        p *= kind == COVERAGE_OURS ? ratio * (alpha + k) / (rest + votes - k - 1) : ratio * odds;
    }
}

void coverage_probability(enum coverage_kind kind, const double *alpha, const double *sum, int passes, int votes,
                          double *probability)
{
    for (int k = 0; k <= votes; k++)
        probability[k] = 0;
    for (int t = 0; t < passes; t++)
        add_pass(kind, alpha[t], sum[t], votes, probability, 1.0 / passes);
}

void coverage_passes(const struct schema *schema, int answer, const float *concentrations, int passes, double *alpha,
                     double *sum)
{
    const struct question *question = &schema->question[schema->answer[answer].question];
    for (int t = 0; t < passes; t++) {
        const float *pass = concentrations + (size_t)t * (size_t)schema->answers;
        alpha[t] = (double)pass[answer];
        sum[t] = 0;
        for (int a = question->first; a < question->first + question->count; a++)
            sum[t] += (double)pass[a];
    }
}

/* --- adding ------------------------------------------------------------------------------------------------------- */

static void add_sums(struct coverage_sums *sums, double predicted, int observed)
{
    sums->predicted += predicted;
    sums->observed += observed;
}

static double mass_within(const double *probability, int low, int high)
{
    double mass = 0;
    for (int k = low; k <= high; k++)
        mass += probability[k];
    return mass;
}

static double mean_count(const double *probability, int votes)
{
    double mean = 0;
    for (int k = 0; k <= votes; k++)
        mean += k * probability[k];
    return mean;
}

static void add_by_votes(struct coverage_sums *sums, const double *probability, double mean, int k, int votes)
{
    int centre = (int)mean;
    for (int e = 0; e <= COVERAGE_VOTES; e++) {
        int low = centre - e < 0 ? 0 : centre - e, high = centre + e > votes ? votes : centre + e;
        add_sums(&sums[e], mass_within(probability, low, high), k >= low && k <= high);
    }
}

/* Fractions that differ by exactly e belong to the interval: compared a hair wider than doubles are exact. */
static void add_by_fraction(struct coverage_sums *sums, const double *probability, double mean, int k, int votes)
{
    for (int e = 0; e <= COVERAGE_FRACTIONS; e++) {
        double within = 0.01 * e * votes + 1e-9, mass = 0;
        for (int i = 0; i <= votes; i++)
            mass += fabs(i - mean) <= within ? probability[i] : 0;
        add_sums(&sums[e], mass, fabs(k - mean) <= within);
    }
}

static int bin_of(double share)
{
    int bin = (int)(share * COVERAGE_BINS);
    return bin < 0 ? 0 : bin >= COVERAGE_BINS ? COVERAGE_BINS - 1 : bin;
}

/* Intervals grow with the mass asked for, so those of the same mass follow each other. */
static void add_credible(struct coverage *coverage, const double *probability, int k, int votes)
{
    int many = votes >= COVERAGE_VOTES_MANY;
    double last = -1;
    for (int i = 0; i < REQUESTED; i++) {
        struct count_interval interval = count_interval(probability, votes, 0.1 + 0.85 * i / (REQUESTED - 1));
        if (interval.mass == last)
            continue;
        last = interval.mass;
        int bin = bin_of(interval.mass);
        add_sums(&coverage->credible[many][bin], interval.mass, k >= interval.low && k <= interval.high);
        coverage->intervals[many][bin]++;
    }
}

void coverage_add(struct coverage *coverage, const double *alpha, const double *sum, int passes, int k, int votes)
{
    double probability[COVERAGE_N_MAX + 1];
    if (votes < 1)
        return;
    if (votes > COVERAGE_N_MAX) {
        coverage->left_out++;
        return;
    }
    coverage->galaxies++;
    for (int kind = COVERAGE_KINDS; kind-- > 0;) { /* ours last: what follows is about it */
        coverage_probability((enum coverage_kind)kind, alpha, sum, passes, votes, probability);
        double mean = mean_count(probability, votes);
        add_by_votes(coverage->votes[kind], probability, mean, k, votes);
        add_by_fraction(coverage->fraction[kind], probability, mean, k, votes);
    }
    add_credible(coverage, probability, k, votes);
    struct count_interval interval = count_interval(probability, votes, 0.8);
    coverage->inside_80 += k >= interval.low && k <= interval.high;
    double fraction = mean_count(probability, votes) / votes;
    int bin = bin_of(fraction);
    coverage->expected[bin].predicted += fraction * votes;
    coverage->expected[bin].observed += k;
    coverage->weight[bin] += votes;
}

static void merge_sums(struct coverage_sums *sums, const struct coverage_sums *other, int count)
{
    for (int i = 0; i < count; i++) {
        sums[i].predicted += other[i].predicted;
        sums[i].observed += other[i].observed;
    }
}

void coverage_merge(struct coverage *coverage, const struct coverage *other)
{
    coverage->galaxies += other->galaxies;
    coverage->left_out += other->left_out;
    for (int kind = 0; kind < COVERAGE_KINDS; kind++) {
        merge_sums(coverage->votes[kind], other->votes[kind], COVERAGE_VOTES + 1);
        merge_sums(coverage->fraction[kind], other->fraction[kind], COVERAGE_FRACTIONS + 1);
    }
    for (int many = 0; many < 2; many++) {
        merge_sums(coverage->credible[many], other->credible[many], COVERAGE_BINS);
        for (int bin = 0; bin < COVERAGE_BINS; bin++)
            coverage->intervals[many][bin] += other->intervals[many][bin];
    }
    merge_sums(coverage->expected, other->expected, COVERAGE_BINS);
    coverage->inside_80 += other->inside_80;
    for (int bin = 0; bin < COVERAGE_BINS; bin++)
        coverage->weight[bin] += other->weight[bin];
}

/* --- what they say ------------------------------------------------------------------------------------------------ */

double coverage_error(const struct coverage_sums *sums)
{
    return sums->observed > 0 ? (sums->predicted - sums->observed) / sums->observed : NAN;
}

double coverage_calibration_error(const struct coverage *coverage)
{
    double difference = 0, weight = 0;
    for (int bin = 0; bin < COVERAGE_BINS; bin++) {
        difference += fabs(coverage->expected[bin].predicted - coverage->expected[bin].observed);
        weight += coverage->weight[bin];
    }
    return weight > 0 ? difference / weight : NAN;
}

/* Mean absolute deviation of the fraction among n votes drawn without replacement from `votes`, k of them for the answer. */
static double drawn_deviation(int n, int k, int votes)
{
    int lowest = n - (votes - k) > 0 ? n - (votes - k) : 0, highest = n < k ? n : k;
    double deviation = 0, ways = lgamma(votes + 1) - lgamma(n + 1) - lgamma(votes - n + 1);
    for (int drawn = lowest; drawn <= highest; drawn++) {
        double log_p = lgamma(k + 1) - lgamma(drawn + 1) - lgamma(k - drawn + 1) + lgamma(votes - k + 1) -
                       lgamma(n - drawn + 1) - lgamma(votes - k - n + drawn + 1) - ways;
        deviation += exp(log_p) * fabs((double)drawn / n - (double)k / votes);
    }
    return deviation;
}

void equivalent_add(struct equivalent *equivalent, double fraction, int k, int votes)
{
    if (votes < EQUIVALENT_VOTES_MIN)
        return;
    equivalent->prediction += fabs(fraction - (double)k / votes);
    for (int n = 1; n <= EQUIVALENT_VOLUNTEERS_MAX; n++)
        equivalent->volunteers[n] += drawn_deviation(n, k, votes);
    equivalent->compared++;
}

double equivalent_volunteers(const struct equivalent *equivalent)
{
    const double *volunteers = equivalent->volunteers;
    if (!equivalent->compared)
        return NAN;
    if (equivalent->prediction > volunteers[1])
        return 0;
    for (int n = 1; n < EQUIVALENT_VOLUNTEERS_MAX; n++)
        if (equivalent->prediction >= volunteers[n + 1])
            return n + (volunteers[n] - equivalent->prediction) / (volunteers[n] - volunteers[n + 1]);
    return EQUIVALENT_VOLUNTEERS_MAX;
}
