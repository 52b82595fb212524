/* See scoring.h. */
#include "daemon/scoring.h"
#include "base/error.h"

#include <stdlib.h>

#define SCORING_BLOCK 1024 /* galaxies whose every pass is held at a time */

static struct score_request request_of(const struct scoring *scoring, const uint64_t *rows, size_t count)
{
    return (struct score_request){.heads = scoring->heads,
                                  .schema = scoring->schema,
                                  .embedding = scoring->embedding,
                                  .embedding_stride_bytes = scoring->embedding_stride_bytes,
                                  .row = rows,
                                  .count = count,
                                  .views = scoring->views,
                                  .passes = scoring->passes,
                                  .seed = scoring->seed,
                                  .kind = score_information(scoring->rule.kind)};
}

static size_t galaxy_floats(const struct scoring *scoring)
{
    return (size_t)scoring->passes * (size_t)scoring->schema->answers;
}

int scoring_open(struct scoring *scoring)
{
    struct score_targets *targets = &scoring->rule.targets;
    if (!score_needs_passes(scoring->rule.kind) && !score_can_refine(scoring->rule.kind))
        return 0;
    scoring->dump = malloc(SCORING_BLOCK * galaxy_floats(scoring) * sizeof *scoring->dump);
    targets->passes = scoring->passes;
    targets->fraction = malloc(SCORING_TARGETS * galaxy_floats(scoring) * sizeof(float));
    targets->reached = malloc(SCORING_TARGETS * (size_t)scoring->schema->questions * sizeof(float));
    if (scoring->dump && targets->fraction && targets->reached)
        return 0;
    scoring_close(scoring);
    return error_set(ERROR_SYSTEM, "out of memory for scoring by %s", score_name(scoring->rule.kind));
}

void scoring_close(struct scoring *scoring)
{
    free(scoring->dump);
    free(scoring->rule.targets.fraction);
    free(scoring->rule.targets.reached);
    scoring->dump = scoring->rule.targets.fraction = scoring->rule.targets.reached = NULL;
}

int scoring_set_targets(struct scoring *scoring, const uint64_t *rows, size_t count)
{
    struct score_targets *targets = &scoring->rule.targets;
    if (scoring->rule.kind != SCORE_EPIG)
        return 0;
    count = count < SCORING_TARGETS ? count : SCORING_TARGETS;
    struct score_request request = request_of(scoring, rows, count);
    request.reducer = REDUCE_DUMP;
    request.output = scoring->dump;
    int result = scoring->backend->head_score(scoring->context, &request, NULL, NULL);
    targets->count = result ? 0 : (int)count;
    for (int m = 0; m < targets->count; m++)
        score_set_target(scoring->schema, targets, m, scoring->dump + (size_t)m * galaxy_floats(scoring));
    return result;
}

/* --- scores that need every pass ---------------------------------------------------------------------------------- */

/* One block: every pass of some galaxies, then task() for each of them. */
struct passes_job {
    const struct scoring *scoring;
    const uint16_t *due;
    long outcomes_max;
    float *detail, *score;
};

static const float *passes_of(const struct passes_job *job, long item)
{
    return job->scoring->dump + (size_t)item * galaxy_floats(job->scoring);
}

static void score_one(void *context, long item, int worker)
{
    const struct passes_job *job = context;
    const struct scoring *scoring = job->scoring;
    (void)worker;
    job->score[item] = (float)score_passes(&scoring->rule, scoring->schema, passes_of(job, item), scoring->passes,
                                           scoring->heads->count);
}

static void refine_one(void *context, long item, int worker)
{
    const struct passes_job *job = context;
    const struct scoring *scoring = job->scoring;
    (void)worker;
    job->score[item] = (float)score_refine(
        &scoring->rule, scoring->schema, passes_of(job, item), scoring->passes, job->due[item], job->outcomes_max,
        job->detail + (size_t)item * (size_t)information_row_floats(scoring->schema));
}

static int run_passes(struct scoring *scoring, struct passes_job job, const uint64_t *rows, size_t count,
                      backend_task *task, backend_stop *stop, void *stop_context)
{
    size_t floats = (size_t)information_row_floats(scoring->schema);
    for (size_t first = 0; first < count; first += SCORING_BLOCK) {
        size_t left = count - first, block = left < SCORING_BLOCK ? left : SCORING_BLOCK;
        struct score_request request = request_of(scoring, rows + first, block);
        struct passes_job part = {scoring, job.due + first, job.outcomes_max, job.detail + first * floats,
                                  job.score + first};
        request.reducer = REDUCE_DUMP;
        request.output = scoring->dump;
        int result = scoring->backend->head_score(scoring->context, &request, stop, stop_context);
        if (result)
            return result;
        scoring->backend->for_each(scoring->context, task, &part, (long)block);
    }
    return 0;
}

int scoring_refine(struct scoring *scoring, const uint64_t *rows, const uint16_t *due, size_t count, long outcomes_max,
                   float *detail, float *score, backend_stop *stop, void *stop_context)
{
    struct passes_job job = {scoring, due, outcomes_max, detail, score};
    if (!score_can_refine(scoring->rule.kind))
        return 0;
    return run_passes(scoring, job, rows, count, refine_one, stop, stop_context);
}

int scoring_run(struct scoring *scoring, const uint64_t *rows, const uint16_t *due, size_t count, float *detail,
                float *score, backend_stop *stop, void *stop_context)
{
    size_t floats = (size_t)information_row_floats(scoring->schema);
    struct score_request request = request_of(scoring, rows, count);
    request.reducer = REDUCE_INFORMATION;
    request.votes_due = due;
    request.output = detail;
    int result = scoring->backend->head_score(scoring->context, &request, stop, stop_context);
    if (result)
        return result;
    if (score_needs_passes(scoring->rule.kind))
        return run_passes(scoring, (struct passes_job){scoring, due, 0, detail, score}, rows, count, score_one, stop,
                          stop_context);
    for (size_t i = 0; i < count; i++)
        score[i] = (float)score_row(&scoring->rule, scoring->schema, detail + i * floats);
    return 0;
}
