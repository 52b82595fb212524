/*
 * The comparing job: what two stored models think of the same galaxies, those on offer and a sample of the pool, and which
 * question makes the difference. Reads the pool, writes nothing.
 */
#include "base/error.h"
#include "base/file.h"
#include "daemon/choosing.h"
#include "daemon/models.h"
#include "daemon/scoring.h"
#include "daemon/worker_jobs.h"
#include "model/model_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COMPARED_SAMPLE 4096  /* galaxies of the pool beside those on offer */
#define COMPARED_MAX    20000 /* galaxies in all */

/* What one model says of the galaxies. */
struct opinion {
    struct model model;
    float *detail;  /* [count][floats] */
    float *score;   /* [count] */
    uint32_t *rank; /* [count] 1 = highest score */
};

struct comparison {
    struct worker *worker;
    uint64_t *rows; /* [count] */
    uint16_t *due;
    size_t count;
    struct opinion opinion[2];
};

static int load(struct comparison *comparison, int which, uint32_t number)
{
    char path[FILE_PATH_BYTES];
    int result = models_path(&comparison->worker->config, number, path, sizeof path);
    return result ? result : model_load(path, &comparison->worker->schema, &comparison->opinion[which].model);
}

static int has_embedding(struct worker *worker, uint64_t row, uint32_t trunk)
{
    pool_use_trunk(&worker->pool, trunk);
    return *pool_embedding_version(&worker->pool, row) == trunk;
}

/* Those that both models have an embedding of. */
static int gather(struct comparison *comparison)
{
    struct worker *worker = comparison->worker;
    uint32_t first = comparison->opinion[0].model.trunk_version, second = comparison->opinion[1].model.trunk_version;
    uint64_t rows = pool_rows(&worker->pool);
    comparison->rows = arena_alloc(&worker->batch, COMPARED_MAX * sizeof *comparison->rows);
    comparison->due = arena_alloc(&worker->batch, COMPARED_MAX * sizeof *comparison->due);
    if (!comparison->rows || !comparison->due)
        return ERROR_LIMIT;
    for (uint64_t row = 0; row < rows && comparison->count < COMPARED_MAX; row++) {
        const struct pool_state *state = pool_state(&worker->pool, row);
        int wanted = state->flags & POOL_QUEUED ||
                     choosing_is_sampled((uint64_t)worker->config.seed, row, rows, COMPARED_SAMPLE);
        if (!wanted || state->flags & POOL_BAD || !has_embedding(worker, row, first) ||
            !has_embedding(worker, row, second))
            continue;
        int votes = (int)worker->config.retire_votes - state->root_votes;
        comparison->due[comparison->count] = (uint16_t)(votes > 1 ? votes : 1);
        comparison->rows[comparison->count++] = row;
    }
    return comparison->count
               ? 0
               : error_set(ERROR_STATE,
                           "no galaxy has embeddings of both trunks, %u and %u: models of two trunks can be "
                           "compared only while both are kept",
                           first, second);
}

struct place_of {
    float score;
    uint32_t galaxy;
};

static int by_score(const void *left, const void *right)
{
    const struct place_of *a = left, *b = right;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->galaxy < b->galaxy ? -1 : a->galaxy > b->galaxy;
}

static int rank(const struct comparison *comparison, struct opinion *opinion)
{
    struct place_of *order = arena_alloc(&comparison->worker->batch, comparison->count * sizeof *order);
    opinion->rank = arena_alloc(&comparison->worker->batch, comparison->count * sizeof *opinion->rank);
    if (!order || !opinion->rank)
        return ERROR_LIMIT;
    for (uint32_t i = 0; i < comparison->count; i++)
        order[i] = (struct place_of){score_round(opinion->score[i]), i};
    qsort(order, comparison->count, sizeof *order, by_score);
    for (uint32_t i = 0; i < comparison->count; i++)
        opinion->rank[order[i].galaxy] = i + 1;
    return 0;
}

static int score(struct comparison *comparison, struct opinion *opinion)
{
    struct worker *worker = comparison->worker;
    size_t floats = (size_t)information_row_floats(&worker->schema);
    opinion->detail = arena_alloc(&worker->batch, comparison->count * floats * sizeof *opinion->detail);
    opinion->score = arena_alloc(&worker->batch, comparison->count * sizeof *opinion->score);
    if (!opinion->detail || !opinion->score)
        return ERROR_LIMIT;
    pool_use_trunk(&worker->pool, opinion->model.trunk_version);
    struct scoring scoring = {.backend = worker->backend,
                              .context = worker->context,
                              .schema = &worker->schema,
                              .heads = &opinion->model.heads,
                              .embedding = pool_embedding(&worker->pool, 0),
                              .embedding_stride_bytes = pool_embedding_stride_bytes(&worker->pool),
                              .views = (int)worker->config.mc_views,
                              .passes = config_passes(&worker->config, opinion->model.heads.count),
                              .seed = (uint64_t)worker->config.seed};
    int result = config_score_rule(&worker->config, &worker->schema, &scoring.rule);
    if (!result)
        result = scoring_open(&scoring);
    if (!result)
        result = scoring_set_targets(&scoring, comparison->rows, comparison->count);
    if (!result)
        result = scoring_run(&scoring, comparison->rows, comparison->due, comparison->count, opinion->detail,
                             opinion->score, worker_tick, worker);
    scoring_close(&scoring);
    return result ? result : rank(comparison, opinion);
}

/* What a question adds to the information, and with what it does. */
struct part {
    double asked, information;
};

static struct part part_of(const struct comparison *comparison, int which, size_t galaxy, int question)
{
    const struct schema *schema = &comparison->worker->schema;
    const float *row = comparison->opinion[which].detail + galaxy * (size_t)information_row_floats(schema);
    const float *total = row + 2 + schema->answers, *expected = total + schema->questions;
    float reached[SCHEMA_QUESTIONS_MAX];
    schema_reached(schema, row + 2, reached);
    return (struct part){(double)reached[question], (double)total[question] - (double)expected[question]};
}

static double change_of(const struct comparison *comparison, size_t galaxy, int question)
{
    struct part before = part_of(comparison, 0, galaxy, question), after = part_of(comparison, 1, galaxy, question);
    return after.asked * after.information - before.asked * before.information;
}

static json_t *describe(const struct comparison *comparison, size_t galaxy)
{
    const struct schema *schema = &comparison->worker->schema;
    const struct opinion *opinion = comparison->opinion;
    int most = 0;
    for (int q = 1; q < schema->questions; q++)
        most = fabs(change_of(comparison, galaxy, q)) > fabs(change_of(comparison, galaxy, most)) ? q : most;
    struct part before = part_of(comparison, 0, galaxy, most), after = part_of(comparison, 1, galaxy, most);
    return json_pack("{s:I,s:[f,f],s:[i,i],s:s,s:f,s:[f,f],s:[f,f]}", "key", (json_int_t)comparison->rows[galaxy] + 1,
                     "score", (double)score_round(opinion[0].score[galaxy]),
                     (double)score_round(opinion[1].score[galaxy]), "rank", (int)opinion[0].rank[galaxy],
                     (int)opinion[1].rank[galaxy], "question", schema->question[most].name, "change",
                     change_of(comparison, galaxy, most), "asked", before.asked, after.asked, "information",
                     before.information, after.information);
}

static long moved(const struct comparison *comparison, size_t galaxy)
{
    return labs((long)comparison->opinion[0].rank[galaxy] - (long)comparison->opinion[1].rank[galaxy]);
}

/* The galaxies that moved most, most first: a bounded insertion. */
static json_t *list_moved(const struct comparison *comparison, size_t limit)
{
    size_t kept[1000], count = 0;
    limit = limit < 1 ? 1 : limit > 1000 ? 1000 : limit;
    for (size_t i = 0; i < comparison->count; i++) {
        if (count == limit && moved(comparison, i) <= moved(comparison, kept[count - 1]))
            continue;
        size_t at = count < limit ? count++ : count - 1;
        for (; at && moved(comparison, kept[at - 1]) < moved(comparison, i); at--)
            kept[at] = kept[at - 1];
        kept[at] = i;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, describe(comparison, kept[i]));
    return list;
}

static json_t *list_questions(const struct comparison *comparison)
{
    const struct schema *schema = &comparison->worker->schema;
    json_t *list = json_array();
    for (int q = 0; q < schema->questions; q++) {
        double sum[2][2] = {{0}};
        for (size_t i = 0; i < comparison->count; i++)
            for (int which = 0; which < 2; which++) {
                struct part part = part_of(comparison, which, i, q);
                sum[which][0] += part.asked / (double)comparison->count;
                sum[which][1] += part.asked * part.information / (double)comparison->count;
            }
        json_array_append_new(list, json_pack("{s:s,s:[f,f],s:[f,f]}", "name", schema->question[q].name, "asked",
                                              sum[0][0], sum[1][0], "information", sum[0][1], sum[1][1]));
    }
    return list;
}

static void tell(const struct comparison *comparison, size_t top, json_t *answer)
{
    const struct opinion *a = &comparison->opinion[0], *b = &comparison->opinion[1];
    double n = (double)comparison->count, squares = 0, means[2] = {0};
    size_t head = comparison->count / 10 + 1, both = 0;
    for (size_t i = 0; i < comparison->count; i++) {
        double difference = (double)a->rank[i] - (double)b->rank[i];
        squares += difference * difference;
        means[0] += (double)a->score[i] / n;
        means[1] += (double)b->score[i] / n;
        both += a->rank[i] <= head && b->rank[i] <= head;
    }
    json_object_set_new(answer, "compared", json_integer((json_int_t)comparison->count));
    json_object_set_new(answer, "mean_score", json_pack("[f,f]", means[0], means[1]));
    json_object_set_new(answer, "rank_correlation", json_real(n > 1 ? 1 - 6 * squares / (n * (n * n - 1)) : 1));
    json_object_set_new(answer, "top_tenth_shared", json_real((double)both / (double)head));
    json_object_set_new(answer, "questions", list_questions(comparison));
    json_object_set_new(answer, "moved", list_moved(comparison, top));
}

int worker_compare(struct worker *worker, const json_t *job, json_t *answer)
{
    struct comparison comparison = {.worker = worker};
    const json_t *models = json_object_get(job, "models");
    uint32_t trunk = worker->pool.trunk;
    int result = 0;
    for (int i = 0; i < 2 && !result; i++)
        result = load(&comparison, i, (uint32_t)json_integer_value(json_array_get(models, (size_t)i)));
    if (!result)
        result = gather(&comparison);
    for (int i = 0; i < 2 && !result; i++)
        result = score(&comparison, &comparison.opinion[i]);
    if (!result)
        tell(&comparison, (size_t)json_integer_value(json_object_get(job, "top")), answer);
    pool_use_trunk(&worker->pool, trunk);
    for (int i = 0; i < 2; i++)
        model_free(&comparison.opinion[i].model);
    return result;
}
