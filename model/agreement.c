/* See agreement.h. */
#include "model/agreement.h"

#include <math.h>

static int votes_of(const struct question *question, const uint16_t *votes)
{
    int total = 0;
    for (int a = 0; a < question->count; a++)
        total += votes[question->first + a];
    return total;
}

void agreement_counts(const struct schema *schema, const uint16_t *votes, uint8_t *counts)
{
    float fraction[SCHEMA_ANSWERS_MAX], reached[SCHEMA_QUESTIONS_MAX];
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        int total = votes_of(question, votes);
        for (int a = question->first; a < question->first + question->count; a++)
            fraction[a] = total ? (float)votes[a] / (float)total : 0;
        counts[q] = total > 0;
    }
    schema_reached(schema, fraction, reached);
    for (int q = 0; q < schema->questions; q++)
        counts[q] = counts[q] && (double)reached[q] > AGREEMENT_REACHED;
}

static void add_question(struct agreement *agreement, const struct schema *schema, int q, const float *fraction,
                         const uint16_t *votes)
{
    const struct question *question = &schema->question[q];
    int label = 0, prediction = 0, total = votes_of(question, votes);
    fraction += question->first;
    votes += question->first;
    for (int a = 1; a < question->count; a++) {
        label = votes[a] > votes[label] ? a : label;
        prediction = fraction[a] > fraction[prediction] ? a : prediction;
    }
    agreement->all[q].galaxies[label][prediction]++;
    if (votes[label] > AGREEMENT_CONFIDENT * total)
        agreement->confident[q].galaxies[label][prediction]++;
    if (total < AGREEMENT_VOTES_MIN)
        return;
    agreement->compared[q]++;
    for (int a = 0; a < question->count; a++) {
        double error = (double)fraction[a] - (double)votes[a] / total;
        agreement->absolute[question->first + a] += fabs(error);
        agreement->squares[question->first + a] += error * error;
    }
}

void agreement_add(struct agreement *agreement, const struct schema *schema, const float *fraction,
                   const uint16_t *votes)
{
    uint8_t counts[SCHEMA_QUESTIONS_MAX];
    agreement_counts(schema, votes, counts);
    for (int q = 0; q < schema->questions; q++)
        if (counts[q])
            add_question(agreement, schema, q, fraction, votes);
}

struct agreement_scores agreement_scores(const struct confusion *confusion, int answers)
{
    uint64_t labelled[SCHEMA_PER_QUESTION] = {0}, predicted[SCHEMA_PER_QUESTION] = {0};
    struct agreement_scores scores = {0, 0, 0, 0, 0};
    for (int label = 0; label < answers; label++)
        for (int prediction = 0; prediction < answers; prediction++) {
            labelled[label] += confusion->galaxies[label][prediction];
            predicted[prediction] += confusion->galaxies[label][prediction];
        }
    for (int a = 0; a < answers; a++)
        scores.galaxies += labelled[a];
    if (!scores.galaxies)
        return (struct agreement_scores){0, NAN, NAN, NAN, NAN};
    for (int a = 0; a < answers; a++) {
        double right = (double)confusion->galaxies[a][a], weight = (double)labelled[a] / (double)scores.galaxies;
        double precision = predicted[a] ? right / (double)predicted[a] : 0;
        double recall = labelled[a] ? right / (double)labelled[a] : 0;
        scores.accuracy += right / (double)scores.galaxies;
        scores.precision += weight * precision;
        scores.recall += weight * recall;
        scores.f1 += right > 0 ? weight * 2 * precision * recall / (precision + recall) : 0;
    }
    return scores;
}

double agreement_mae(const struct agreement *agreement, const struct schema *schema, int answer)
{
    uint64_t compared = agreement->compared[schema->answer[answer].question];
    return compared ? agreement->absolute[answer] / (double)compared : NAN;
}

double agreement_rmse(const struct agreement *agreement, const struct schema *schema, int answer)
{
    uint64_t compared = agreement->compared[schema->answer[answer].question];
    return compared ? sqrt(agreement->squares[answer] / (double)compared) : NAN;
}
