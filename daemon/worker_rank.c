/*
 * The ranking job: streams every embedding through heads and passes, stores scores and their parts in the pool, computes the
 * information of a shortlist exactly, and chooses what fills the free places of the queue. Without a model that beats the
 * constant prediction it asks about typical galaxies and random ones.
 */
#include "acquisition/select.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/philox.h"
#include "daemon/choosing.h"
#include "daemon/jobs.h"
#include "daemon/models.h"
#include "daemon/scoring.h"
#include "daemon/worker_jobs.h"
#include "model/model_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RETIRED_MAX 10000 /* galaxies that one ranking ends; the next one goes on */

/* What the steps of one ranking share. */
struct ranking {
    struct worker *worker;
    const json_t *job;
    json_t *answer;
    struct model model; /* number 0 = none */
    struct scoring scoring;
    struct choosing choosing;
    struct selector *selector;
    struct select_request request;
    int cold;         /* no model yet, or none that beats the constant prediction on the gate galaxies */
    uint64_t *sample; /* [sample_count] rows, ascending */
    size_t sample_count;
    float *typical; /* [sample_count] scores of a cold start */
    json_t *retired;
    long scored, refined, outcomes_max;
};

static int is_embedded(const struct worker *worker, uint64_t row)
{
    return *pool_embedding_version(&worker->pool, row) == worker->pool.trunk &&
           !(pool_state(&worker->pool, row)->flags & POOL_BAD);
}

static uint16_t votes_due(const struct worker *worker, uint64_t row)
{
    int votes = (int)worker->config.retire_votes - pool_state(&worker->pool, row)->root_votes;
    return (uint16_t)(votes > 1 ? votes : 1);
}

static void store(const struct ranking *ranking, uint64_t row, const float *detail, float score, long outcomes_max)
{
    const struct worker *worker = ranking->worker;
    int floats = information_row_floats(&worker->schema);
    memcpy(pool_detail(&worker->pool, row), detail, (size_t)floats * sizeof *detail);
    *pool_score(&worker->pool, row) = (struct pool_score){score, detail[0], detail[1], ranking->model.number};
    *pool_scored(&worker->pool, row) =
        (struct pool_scored){(uint32_t)time(NULL), votes_due(worker, row), (uint16_t)outcomes_max};
}

/* Votes that would teach less than queue.retire_information need not be waited for. Hold-outs get all of theirs. */
static void retire_known(struct ranking *ranking, uint64_t row, const float *detail)
{
    const struct config *config = &ranking->worker->config;
    const struct pool_state *state = pool_state(&ranking->worker->pool, row);
    double information = (double)detail[0] - (double)detail[1];
    if (config->retire_information > 0 && information < config->retire_information && state->split == SPLIT_TRAIN &&
        state->root_votes >= config->retire_votes_min && !(state->flags & (POOL_RETIRED | POOL_PINNED)) &&
        json_array_size(ranking->retired) < RETIRED_MAX)
        json_array_append_new(ranking->retired, json_integer((json_int_t)row + 1));
}

/* Memory of one block. */
struct block {
    uint64_t *rows;
    uint16_t *due;
    float *details, *scores;
};

static int block_new(struct worker *worker, struct block *block)
{
    size_t floats = (size_t)information_row_floats(&worker->schema);
    block->rows = arena_alloc(&worker->batch, WORKER_SCORE_ROWS * sizeof *block->rows);
    block->due = arena_alloc(&worker->batch, WORKER_SCORE_ROWS * sizeof *block->due);
    block->details = arena_alloc(&worker->batch, WORKER_SCORE_ROWS * floats * sizeof *block->details);
    block->scores = arena_alloc(&worker->batch, WORKER_SCORE_ROWS * sizeof *block->scores);
    return block->rows && block->due && block->details && block->scores ? 0 : ERROR_LIMIT;
}

/* One block of galaxies; *at is the next row to look at. */
static int score_block(struct ranking *ranking, struct block *block, uint64_t *at)
{
    struct worker *worker = ranking->worker;
    size_t floats = (size_t)information_row_floats(&worker->schema), count = 0;
    for (; *at < pool_rows(&worker->pool) && count < WORKER_SCORE_ROWS; (*at)++)
        if (worker_has_embedding(worker, *at)) {
            block->due[count] = votes_due(worker, *at);
            block->rows[count++] = *at;
        }
    int result = count ? scoring_run(&ranking->scoring, block->rows, block->due, count, block->details, block->scores,
                                     worker_tick, worker)
                       : 0;
    for (size_t i = 0; i < count && !result; i++) {
        store(ranking, block->rows[i], block->details + i * floats, block->scores[i], 0);
        retire_known(ranking, block->rows[i], block->details + i * floats);
    }
    FAULT(SCORES_STORED);
    ranking->scored += (long)count;
    return result;
}

/* A uniform sample of the pool for epig, the same for every ranking while the pool stays: those of smallest hash. */
static int choose_targets(struct worker *worker, struct scoring *scoring)
{
    uint64_t rows[SCORING_TARGETS], hash[SCORING_TARGETS];
    size_t count = 0;
    if (scoring->rule.kind != SCORE_EPIG)
        return 0;
    for (uint64_t row = 0; row < pool_rows(&worker->pool); row++) {
        struct philox random = philox(scoring->seed, (uint32_t)row, (uint32_t)(row >> 32), 0, PHILOX_TARGETS);
        uint64_t own = (uint64_t)random.word[0] << 32 | random.word[1];
        if (!is_embedded(worker, row) || (count == SCORING_TARGETS && own >= hash[count - 1]))
            continue;
        size_t at = count < SCORING_TARGETS ? count++ : count - 1;
        for (; at && hash[at - 1] > own; at--) {
            hash[at] = hash[at - 1];
            rows[at] = rows[at - 1];
        }
        hash[at] = own;
        rows[at] = row;
    }
    return scoring_set_targets(scoring, rows, count);
}

static int score_pool(struct ranking *ranking)
{
    struct worker *worker = ranking->worker;
    struct block block;
    int result = block_new(worker, &block);
    if (!result)
        result = choose_targets(worker, &ranking->scoring);
    for (uint64_t at = 0; at < pool_rows(&worker->pool) && !result;) {
        result = score_block(ranking, &block, &at);
        worker->progress = (double)at / (double)pool_rows(&worker->pool);
        if (!result && worker_tick(worker))
            result = error_set(ERROR_CANCELLED, "asked to stop while ranking");
    }
    return result;
}

static int open_model(struct ranking *ranking, uint32_t number)
{
    struct worker *worker = ranking->worker;
    char path[FILE_PATH_BYTES];
    int result = models_path(&worker->config, number, path, sizeof path);
    if (!result)
        result = model_load(path, &worker->schema, &ranking->model);
    if (result)
        return result;
    ranking->scoring = (struct scoring){.backend = worker->backend,
                                        .context = worker->context,
                                        .schema = &worker->schema,
                                        .heads = &ranking->model.heads,
                                        .embedding = pool_embedding(&worker->pool, 0),
                                        .embedding_stride_bytes = pool_embedding_stride_bytes(&worker->pool),
                                        .views = (int)worker->config.mc_views,
                                        .passes = config_passes(&worker->config, ranking->model.heads.count),
                                        .seed = (uint64_t)worker->config.seed};
    result = config_score_rule(&worker->config, &worker->schema, &ranking->scoring.rule);
    return result ? result : scoring_open(&ranking->scoring);
}

/* --- the choice --------------------------------------------------------------------------------------------------- */

static int number_of(const json_t *job, const char *key)
{
    return (int)json_integer_value(json_object_get(job, key));
}

static int may_be_asked(const struct worker *worker, uint64_t row)
{
    const struct pool_state *state = pool_state(&worker->pool, row);
    return is_embedded(worker, row) && !(state->flags & (POOL_EXCLUDED | POOL_RETIRED | POOL_QUEUED));
}

static int is_artifact(const struct ranking *ranking, uint64_t row)
{
    const struct worker *worker = ranking->worker;
    return !ranking->cold && worker->config.artifact_max < 1 && pool_score(&worker->pool, row)->model &&
           score_artifact(&worker->schema, pool_detail(&worker->pool, row) + 2) > worker->config.artifact_max;
}

/* Junk that volunteers or the model know as such is no kind of galaxy: else the guard could not see it. */
static int is_galaxy(const struct ranking *ranking, uint64_t row)
{
    const struct worker *worker = ranking->worker;
    const struct schema *schema = &worker->schema;
    const uint16_t *tally = pool_tally(&worker->pool, row);
    float fraction[SCHEMA_ANSWERS_MAX];
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        float votes = 0;
        for (int a = question->first; a < question->first + question->count; a++)
            votes += tally[a];
        for (int a = question->first; a < question->first + question->count; a++)
            fraction[a] = votes > 0 ? tally[a] / votes : 0;
    }
    return !is_artifact(ranking, row) && score_artifact(schema, fraction) <= 0.5;
}

/* Of all embedded galaxies, or for a cold start of those nobody has looked at and that may be asked about. */
static int take_sample(struct ranking *ranking)
{
    struct worker *worker = ranking->worker;
    uint64_t rows = pool_rows(&worker->pool), last = 0;
    ranking->sample = arena_alloc(&worker->batch, CLUSTERS_SAMPLE_MAX * sizeof *ranking->sample);
    ranking->typical = arena_alloc(&worker->batch, CLUSTERS_SAMPLE_MAX * sizeof *ranking->typical);
    if (!ranking->sample || !ranking->typical)
        return ERROR_LIMIT;
    for (uint64_t row = 0; row < rows; row++) /* the pool's last rows may be empty */
        last = is_embedded(worker, row) ? row + 1 : last;
    for (uint64_t row = 0; row < last && ranking->sample_count < CLUSTERS_SAMPLE_MAX; row++) {
        const struct pool_state *state = pool_state(&worker->pool, row);
        int wanted = ranking->cold ? may_be_asked(worker, row) && state->split == SPLIT_TRAIN && !state->root_votes
                                   : is_embedded(worker, row) && is_galaxy(ranking, row);
        if (wanted && choosing_is_sampled((uint64_t)worker->config.seed, row, last, CLUSTERS_SAMPLE_MAX * 15 / 16))
            ranking->sample[ranking->sample_count++] = row;
    }
    return 0;
}

static int open_choosing(struct ranking *ranking)
{
    const struct worker *worker = ranking->worker;
    int views = (int)worker->config.mc_views, result = take_sample(ranking);
    if (result)
        return result;
    int kinds = ranking->cold ? ranking->request.queue_size : (int)worker->config.clusters;
    int most = (int)ranking->sample_count / (ranking->cold ? 2 : 8); /* a kind has several galaxies */
    ranking->choosing = (struct choosing){
        .backend = worker->backend,
        .context = worker->context,
        .rows = {pool_embedding(&worker->pool, 0), pool_embedding_stride_bytes(&worker->pool), views,
                 worker->pool.layout.embedding_inputs / views},
        .seed = (uint64_t)worker->config.seed,
        .wanted = kinds < most ? kinds : most,
        .outlier_distance = ranking->cold ? 0 : worker->config.outlier_distance,
    };
    result = choosing_open(&ranking->choosing, ranking->sample, ranking->sample_count);
    for (size_t i = 0; i < ranking->sample_count; i++)
        ranking->typical[i] = NAN;
    if (!result && ranking->cold && config_typical_first(&worker->config))
        result = choosing_typical(&ranking->choosing, ranking->sample, ranking->sample_count, ranking->typical);
    return result;
}

static struct select_request request_of(const struct ranking *ranking)
{
    const struct config *config = &ranking->worker->config;
    const json_t *job = ranking->job;
    return (struct select_request){.seed = (uint64_t)config->seed,
                                   .cycle = (uint64_t)json_integer_value(json_object_get(job, "cycle")),
                                   .queue_size = number_of(job, "queue_size"),
                                   .holdout_share = (float)config->holdout_share,
                                   .random_share = (float)config->random_share,
                                   .power = ranking->cold ? 0 : config->score_power,
                                   .cold = !ranking->model.number,
                                   .kept_holdout = number_of(job, "kept_holdout"),
                                   .kept_random = number_of(job, "kept_random"),
                                   .kept_active = number_of(job, "kept_active"),
                                   .shortlist = (int)config->shortlist,
                                   .cluster_share = ranking->cold ? 0 : config->cluster_share,
                                   .held = (int)config->review_size};
}

static float score_of(const struct ranking *ranking, uint64_t row, size_t *at)
{
    if (!ranking->cold)
        return pool_score(&ranking->worker->pool, row)->score;
    while (*at < ranking->sample_count && ranking->sample[*at] < row)
        (*at)++;
    return *at < ranking->sample_count && ranking->sample[*at] == row ? ranking->typical[*at] : NAN;
}

static void offer_pool(struct ranking *ranking)
{
    struct worker *worker = ranking->worker;
    size_t at = 0;
    for (uint64_t row = 0; row < pool_rows(&worker->pool); row++) {
        const struct pool_state *state = pool_state(&worker->pool, row);
        int holdout = state->split == SPLIT_VALIDATION || state->split == SPLIT_GATE;
        int pinned = (state->flags & POOL_PINNED) != 0;
        float score = score_of(ranking, row, &at);
        if (state->flags & POOL_QUEUED && is_embedded(worker, row)) /* active or random: the pool does not say */
            selector_keep(ranking->selector, row + 1, holdout ? STREAM_RANDOM : STREAM_ACTIVE, score);
        else if (may_be_asked(worker, row) && state->split == SPLIT_TRAIN && !pinned && is_artifact(ranking, row))
            selector_hold(ranking->selector, row + 1, HELD_ARTIFACT, score);
        else if (may_be_asked(worker, row))
            selector_offer(ranking->selector, row + 1, (enum split)state->split, pinned, score);
    }
}

/* Exact information for the shortlist, and for what is on offer, as both will be ranked together. */
static int refine(struct ranking *ranking, struct candidate *candidates, size_t count)
{
    struct worker *worker = ranking->worker;
    size_t floats = (size_t)information_row_floats(&worker->schema);
    struct block block;
    int result = block_new(worker, &block);
    ranking->outcomes_max = score_outcomes_max(count);
    for (size_t first = 0; first < count && !result; first += WORKER_SCORE_ROWS) {
        size_t left = count - first, some = left < WORKER_SCORE_ROWS ? left : WORKER_SCORE_ROWS;
        for (size_t i = 0; i < some; i++) {
            block.rows[i] = candidates[first + i].key - 1;
            block.due[i] = votes_due(worker, block.rows[i]);
            block.scores[i] = pool_score(&worker->pool, block.rows[i])->score;
            memcpy(block.details + i * floats, pool_detail(&worker->pool, block.rows[i]), floats * sizeof(float));
        }
        result = scoring_refine(&ranking->scoring, block.rows, block.due, some, ranking->outcomes_max, block.details,
                                block.scores, worker_tick, worker);
        for (size_t i = 0; i < some && !result; i++) {
            store(ranking, block.rows[i], block.details + i * floats, block.scores[i], ranking->outcomes_max);
            if (!ranking->cold) /* else typical ones stay in their order */
                candidates[first + i].score = score_round(block.scores[i]);
        }
    }
    ranking->refined = result ? 0 : (long)count;
    return result;
}

static int prepare(struct ranking *ranking, struct candidate *candidates, size_t count)
{
    int result = 0;
    if (ranking->model.number && score_can_refine(ranking->scoring.rule.kind))
        result = refine(ranking, candidates, count);
    if (!result)
        result = choosing_place(&ranking->choosing, candidates, count);
    for (size_t i = 0; i < count && !result; i++)
        memcpy(candidates[i].place.position, pool_position(&ranking->worker->pool, candidates[i].key - 1)->unit,
               sizeof candidates[i].place.position);
    return result;
}

static void tell(struct ranking *ranking, const struct candidate *candidates, size_t count,
                 const struct selected *selected, size_t chosen)
{
    json_t *list = json_array(), *review = json_array();
    long outcomes[5] = {0};
    for (size_t i = 0; i < chosen; i++)
        json_array_append_new(list, json_pack("[I,s,f]", (json_int_t)selected[i].key, stream_name(selected[i].stream),
                                              selected[i].probability));
    for (size_t i = 0; i < count; i++) {
        const struct candidate *candidate = &candidates[i];
        outcomes[candidate->outcome]++;
        if (candidate->outcome != OUTCOME_HELD || (int)json_array_size(review) >= ranking->request.held)
            continue;
        const float *detail = pool_detail(&ranking->worker->pool, candidate->key - 1);
        double value = candidate->held == HELD_ARTIFACT ? score_artifact(&ranking->worker->schema, detail + 2)
                                                        : (double)candidate->distance;
        json_array_append_new(review, json_pack("[I,s,f]", (json_int_t)candidate->key,
                                                held_name((enum held)candidate->held), isfinite(value) ? value : -1.0));
    }
    json_object_set_new(ranking->answer, "selected", list);
    json_object_set_new(ranking->answer, "review", review);
    json_object_set_new(ranking->answer, "choice",
                        json_pack("{s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "cold", ranking->cold, "candidates",
                                  (json_int_t)count, "refined", (json_int_t)ranking->refined, "outcomes_max",
                                  (json_int_t)ranking->outcomes_max, "duplicates",
                                  (json_int_t)outcomes[OUTCOME_DUPLICATE], "crowded",
                                  (json_int_t)outcomes[OUTCOME_CLUSTER], "held", (json_int_t)outcomes[OUTCOME_HELD],
                                  "kinds", (json_int_t)ranking->choosing.clusters.count));
}

static int choose(struct ranking *ranking)
{
    struct worker *worker = ranking->worker;
    struct candidate *candidates = NULL;
    size_t count = 0, chosen = 0;
    ranking->request = request_of(ranking);
    int result = open_choosing(ranking);
    double unit = (double)ranking->choosing.clusters.scale;
    ranking->request.duplicates =
        (struct duplicate_rule){worker->config.duplicate_arcsec, worker->config.duplicate_distance * unit};
    struct selected *selected =
        arena_alloc(&worker->batch, ((size_t)ranking->request.queue_size + 1) * sizeof *selected);
    if (!result)
        result = selected ? selector_new(&ranking->request, &ranking->selector) : ERROR_LIMIT;
    if (result)
        return result;
    offer_pool(ranking);
    result = selector_candidates(ranking->selector, &candidates, &count);
    if (!result)
        result = prepare(ranking, candidates, count);
    if (!result)
        result = selector_finish(ranking->selector, selected, &chosen);
    if (!result)
        tell(ranking, candidates, count, selected, chosen);
    return result;
}

int worker_rank(struct worker *worker, const json_t *job, json_t *answer)
{
    struct ranking ranking = {.worker = worker, .job = job, .answer = answer, .retired = json_array()};
    uint32_t model = (uint32_t)json_integer_value(json_object_get(job, "model"));
    double started_s = clock_s();
    worker_take_trunk(worker, job);
    int result = model ? open_model(&ranking, model) : 0;
    /* One that was never measured (NaN), for want of votes for the gate, serves. */
    ranking.cold = !model || ranking.model.challenger_nll >= ranking.model.constant_nll;
    if (!result && model)
        result = score_pool(&ranking);
    json_object_set_new(answer, "score_s", json_real(ranking.scored ? clock_s() - started_s : 0));
    started_s = clock_s();
    if (!result)
        result = choose(&ranking);
    FAULT(GALAXIES_CHOSEN);
    json_object_set_new(answer, "choose_s", json_real(clock_s() - started_s));
    json_object_set_new(answer, "scored", json_integer(ranking.scored));
    json_object_set_new(answer, "retired", ranking.retired);
    selector_free(ranking.selector);
    choosing_close(&ranking.choosing);
    scoring_close(&ranking.scoring);
    model_free(&ranking.model);
    return result;
}
