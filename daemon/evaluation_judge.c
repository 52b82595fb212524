/* One model on all test galaxies; see evaluation.h. */
#include "base/error.h"
#include "cpu/backend_cpu.h"
#include "daemon/evaluation.h"
#include "model/likelihood.h"

#include <stdlib.h>

#define BLOCK 256 /* galaxies whose every pass is in memory at a time */

static void judge_question(struct judged *judged, const struct schema *schema, int q, int counts, const float *dump,
                           int passes, const uint16_t *votes, float *fraction)
{
    const struct question *question = &schema->question[q];
    double alpha[INFORMATION_PASSES_MAX], sum[INFORMATION_PASSES_MAX];
    int total = 0;
    for (int a = question->first; a < question->first + question->count; a++)
        total += votes[a];
    for (int a = question->first; a < question->first + question->count; a++) {
        double mean = 0;
        coverage_passes(schema, a, dump, passes, alpha, sum);
        for (int t = 0; t < passes; t++)
            mean += alpha[t] / sum[t] / passes;
        fraction[a] = (float)mean;
        if (question->count > 2 || a == question->first) /* the second of two says the same */
            coverage_add(&judged->coverage[q], alpha, sum, passes, votes[a], total);
        if (counts)
            equivalent_add(&judged->equivalent[q], mean, votes[a], total);
    }
    if (!total)
        return;
    judged->asked[q]++;
    judged->nll[q] += likelihood_mixture_question(schema, q, dump, passes, votes);
}

static void judge_galaxy(struct judged *judged, const struct schema *schema, const float *dump, int passes,
                         const uint16_t *votes)
{
    float fraction[SCHEMA_ANSWERS_MAX];
    uint8_t counts[SCHEMA_QUESTIONS_MAX];
    metrics_add(&judged->metrics, schema, dump, passes, votes);
    agreement_counts(schema, votes, counts);
    for (int q = 0; q < schema->questions; q++)
        judge_question(judged, schema, q, counts[q], dump, passes, votes, fraction);
    agreement_add(&judged->agreement, schema, fraction, votes);
}

int evaluation_judge(const struct evaluation *evaluation, const struct head_set *heads, uint64_t seed,
                     struct judged *ret_judged)
{
    size_t answers = (size_t)evaluation->schema.answers;
    int passes = config_passes(evaluation->config, heads->count), result = 0;
    float *dump = malloc(BLOCK * (size_t)passes * answers * sizeof *dump);
    if (!dump)
        return error_set(ERROR_SYSTEM, "out of memory for predictions");
    *ret_judged = (struct judged){0};
    for (size_t first = 0; first < evaluation->count && !result; first += BLOCK) {
        size_t left = evaluation->count - first, count = left < BLOCK ? left : BLOCK;
        struct score_request request = {.heads = heads,
                                        .schema = &evaluation->schema,
                                        .embedding = pool_embedding(&evaluation->pool, 0),
                                        .embedding_stride_bytes = pool_embedding_stride_bytes(&evaluation->pool),
                                        .views = (int)evaluation->config->mc_views,
                                        .row = evaluation->row + first,
                                        .count = count,
                                        .passes = passes,
                                        .seed = seed,
                                        .reducer = REDUCE_DUMP,
                                        .output = dump};
        result = backend_cpu.head_score(evaluation->context, &request, NULL, NULL);
        for (size_t i = 0; i < count && !result; i++)
            judge_galaxy(ret_judged, &evaluation->schema, dump + i * (size_t)passes * answers, passes,
                         evaluation->votes + (first + i) * answers);
    }
    free(dump);
    return result;
}
