/* Verbs about the ranking: the queue, why a galaxy stands where it stands, what is held back, and whether to go on. */
#include "acquisition/joint.h"
#include "base/error.h"
#include "daemon/proto.h"
#include "daemon/verbs.h"
#include "model/information.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void verb_queue(struct daemon *daemon, control_client client, const json_t *request)
{
    const json_t *top = json_object_get(request, "top");
    size_t limit = top ? (size_t)json_integer_value(top) : daemon->queue.count;
    const char *epoch;
    uint64_t sequence;
    daemon->publisher->position(daemon->feed, &epoch, &sequence);
    json_t *entries = json_array();
    for (size_t i = 0; i < daemon->queue.count && i < limit; i++) {
        const struct queue_entry *entry = &daemon->queue.entries[i];
        json_array_append_new(entries,
                              json_pack("{s:s,s:i,s:s,s:f,s:f,s:f,s:f,s:i,s:I}", "id", entry->id_str, "rank",
                                        (int)entry->rank, "stream", stream_name((enum stream)entry->stream),
                                        "probability", entry->probability, "score", (double)entry->score, "total",
                                        (double)entry->total, "expected", (double)entry->expected, "model",
                                        (int)entry->model, "leased_until_ms", (json_int_t)entry->leased_until_ms));
    }
    control_answer(daemon->control, client,
                   json_pack("{s:b,s:s,s:I,s:I,s:I,s:s,s:o}", "ok", 1, "epoch", epoch, "seq", (json_int_t)sequence,
                             "length", (json_int_t)daemon->queue.count, "model", (json_int_t)daemon->cycle.champion,
                             "choice", daemon->cycle.choice, "entries", entries));
}

/* --- why ---------------------------------------------------------------------------------------------------------- */

/* One galaxy as the last ranking saw it. */
struct reasons {
    const struct daemon *daemon;
    uint64_t key;
    const struct pool_state *state;
    const struct pool_score *score;
    const struct pool_scored *scored;
    const float *fraction, *total, *expected; /* the layout of model/information.h */
    float reached[SCHEMA_QUESTIONS_MAX];
};

static struct reasons reasons_of(const struct daemon *daemon, uint64_t key)
{
    const struct pool *pool = &daemon->pool;
    const float *fraction = pool_detail(pool, key - 1) + 2;
    struct reasons reasons = {daemon,
                              key,
                              pool_state(pool, key - 1),
                              pool_score(pool, key - 1),
                              pool_scored(pool, key - 1),
                              fraction,
                              fraction + daemon->schema.answers,
                              fraction + daemon->schema.answers + daemon->schema.questions,
                              {0}};
    schema_reached(&daemon->schema, fraction, reasons.reached);
    return reasons;
}

static double information_of(const struct reasons *reasons, int question)
{
    return (double)reasons->total[question] - (double)reasons->expected[question];
}

/* Whether all counts of the question were looked at together, not only its best answer's. */
static int is_exact(const struct reasons *reasons, int question)
{
    int answers = reasons->daemon->schema.question[question].count;
    return answers == 2 || reasons->scored->votes <= 1 ||
           joint_outcomes(answers, reasons->scored->votes) <= reasons->scored->outcomes_max;
}

static json_t *question_parts(const struct reasons *reasons)
{
    const struct schema *schema = &reasons->daemon->schema;
    const uint16_t *tally = pool_tally(&reasons->daemon->pool, reasons->key - 1);
    json_t *list = json_array();
    for (int q = 0; q < schema->questions; q++) {
        json_t *answers = json_object(), *votes = json_object();
        for (int a = schema->question[q].first; a < schema->question[q].first + schema->question[q].count; a++) {
            json_object_set_new(answers, schema->answer[a].name, json_real((double)reasons->fraction[a]));
            json_object_set_new(votes, schema->answer[a].name, json_integer(tally[a]));
        }
        json_array_append_new(list,
                              json_pack("{s:s,s:f,s:f,s:f,s:f,s:b,s:o,s:o}", "name", schema->question[q].name, "asked",
                                        (double)reasons->reached[q], "information", information_of(reasons, q), "total",
                                        (double)reasons->total[q], "expected", (double)reasons->expected[q], "exact",
                                        is_exact(reasons, q), "answers", answers, "votes", votes));
    }
    return list;
}

static const struct review_row *find_review(const struct daemon *daemon, uint64_t key)
{
    for (size_t i = 0; i < daemon->cycle.review_count; i++)
        if (daemon->cycle.review[i].key == key)
            return &daemon->cycle.review[i];
    return NULL;
}

static json_t *queued_in_words(const struct daemon *daemon, const struct queue_entry *entry)
{
    static const char *const means[] = {[STREAM_ACTIVE] = "chosen by its score",
                                        [STREAM_RANDOM] = "drawn at random",
                                        [STREAM_PINNED] = "pinned by an operator"};
    const char *how = entry->stream == STREAM_ACTIVE && !entry->model ? "typical of its kind, as no model is good yet"
                                                                      : means[entry->stream % 3];
    return json_sprintf("rank %u of %zu in the queue, %s stream: %s, inclusion probability %.6g", entry->rank,
                        daemon->queue.count, stream_name((enum stream)entry->stream), how, entry->probability);
}

static json_t *waiting_in_words(const struct reasons *reasons)
{
    const struct queue *queue = &reasons->daemon->queue;
    float least = INFINITY, own = score_round(reasons->score->score);
    for (size_t i = 0; i < queue->count; i++)
        if (queue->entries[i].stream == STREAM_ACTIVE && queue->entries[i].score < least)
            least = queue->entries[i].score;
    if (!isfinite(least) || !reasons->score->model)
        return json_string("waiting: no score decides yet");
    if (own < least)
        return json_sprintf("waiting: others promise more, at least %.4f where this one has %.4f", (double)least,
                            (double)own);
    return json_sprintf(
        "waiting: its score of %.4f would do (the least on offer has %.4f), but it was not drawn, or it is "
        "like another one on offer, or of a kind that has its share",
        (double)own, (double)least);
}

static json_t *rank_in_words(const struct reasons *reasons)
{
    const struct pool_state *state = reasons->state;
    const struct queue_entry *entry = queue_find(&reasons->daemon->queue, reasons->key);
    const struct review_row *review = find_review(reasons->daemon, reasons->key);
    if (entry)
        return queued_in_words(reasons->daemon, entry);
    if (state->flags & POOL_BAD)
        return json_string("not offered: its image cannot be read (triagectl galaxies --bad)");
    if (state->flags & POOL_EXCLUDED)
        return json_string("not offered: excluded by an operator");
    if (state->flags & POOL_RETIRED)
        return json_sprintf("not offered: retired with %u classifications", state->root_votes);
    if (review && strcmp(review->reason, "artifact") == 0)
        return json_sprintf("held back for review: %.0f %% of the volunteers are expected to call it an artifact or a "
                            "problem (triagectl pin offers it all the same)",
                            100 * review->value);
    if (review)
        return json_sprintf("held back for review: its embedding is %.3g times as far from every kind as the median "
                            "galaxy's (triagectl pin offers it all the same)",
                            review->value);
    if (state->split == SPLIT_VALIDATION || state->split == SPLIT_GATE)
        return json_string("waiting: a hold-out galaxy, offered only by random draw");
    return waiting_in_words(reasons);
}

/* Its largest part first, then where the number comes from. */
static json_t *score_in_words(const struct reasons *reasons)
{
    const struct daemon *daemon = reasons->daemon;
    const struct schema *schema = &daemon->schema;
    json_t *list = json_array();
    double sum = (double)reasons->score->total - (double)reasons->score->expected, part[SCHEMA_QUESTIONS_MAX];
    int bounds = 0;
    json_array_append_new(
        list,
        json_sprintf("%u classifications are still due; their votes have an entropy of %.4f nat, of which %.4f nat are "
                     "volunteers' disagreement that the model expects anyway: they would teach it %.4f nat",
                     reasons->scored->votes, (double)reasons->score->total, (double)reasons->score->expected, sum));
    for (int q = 0; q < schema->questions; q++) {
        part[q] = (double)reasons->reached[q] * information_of(reasons, q);
        bounds += !is_exact(reasons, q);
    }
    for (int shown = 0; shown < 3 && sum > 0; shown++) {
        int most = 0;
        for (int q = 1; q < schema->questions; q++)
            most = part[q] > part[most] ? q : most;
        if (!(part[most] > 0.05 * sum))
            break;
        json_array_append_new(list,
                              json_sprintf("%.0f %% of it from '%s', asked with probability %.2f, where the passes "
                                           "disagree by %.4f nat",
                                           100 * part[most] / sum, schema->question[most].name,
                                           (double)reasons->reached[most], information_of(reasons, most)));
        part[most] = 0;
    }
    json_array_append_new(
        list, bounds
                  ? json_sprintf("%d of %d questions count with a lower bound, their best answer's: they have too many "
                                 "answers, or the galaxy was not on the shortlist",
                                 bounds, schema->questions)
                  : json_string("every question is computed exactly"));
    if (strcmp(daemon->config.score_kind, "bald") != 0)
        json_array_append_new(list, json_sprintf("the score is '%s', not this information", daemon->config.score_kind));
    return list;
}

void verb_why(struct daemon *daemon, control_client client, const json_t *request)
{
    static const char *const splits[] = {"train", "validation", "gate", "test"};
    uint64_t key = verbs_galaxy(daemon, client, request);
    if (!key)
        return;
    struct reasons reasons = reasons_of(daemon, key);
    const struct pool_score *score = reasons.score;
    json_t *answer = json_pack("{s:b,s:s,s:I,s:o,s:s,s:i,s:b,s:s,s:f,s:f,s:f,s:i}", "ok", 1, "id",
                               pool_identity(&daemon->pool, key - 1)->id_str, "key", (json_int_t)key, "words",
                               rank_in_words(&reasons), "split", splits[reasons.state->split & 3], "root_votes",
                               (int)reasons.state->root_votes, "pinned", (reasons.state->flags & POOL_PINNED) != 0,
                               "kind", daemon->config.score_kind, "score", (double)score_round(score->score), "total",
                               (double)score->total, "expected", (double)score->expected, "model", (int)score->model);
    if (score->model) {
        json_object_set_new(answer, "age_s", json_integer((json_int_t)time(NULL) - (json_int_t)reasons.scored->at_s));
        json_object_set_new(answer, "votes_due", json_integer(reasons.scored->votes));
        json_object_set_new(answer, "because", score_in_words(&reasons));
        json_object_set_new(answer, "questions", question_parts(&reasons));
    }
    control_answer(daemon->control, client, answer);
}

/* --- review ------------------------------------------------------------------------------------------------------- */

static json_t *review(struct daemon *daemon, const struct database_result *result)
{
    json_t *list = json_array();
    (void)daemon;
    for (int row = 0; row < database_rows(result); row++) {
        const char *value = database_value(result, row, 2);
        json_array_append_new(list, json_pack("{s:s,s:s,s:o,s:f,s:I,s:I}", "id", database_text(result, row, 0),
                                              "reason", database_text(result, row, 1), "value",
                                              value ? json_real(strtod(value, NULL)) : json_null(), "score",
                                              database_real(result, row, 3), "model",
                                              (json_int_t)database_integer(result, row, 4), "cycle",
                                              (json_int_t)database_integer(result, row, 5)));
    }
    return json_pack("{s:b,s:o}", "ok", 1, "galaxies", list);
}

void verb_review(struct daemon *daemon, control_client client, const json_t *request)
{
    const json_t *top = json_object_get(request, "top");
    int limit = top ? (int)json_integer_value(top) : VERBS_LIST_MAX;
    struct waiting *waiting = verbs_wait(daemon, client, review);
    if (waiting)
        verbs_sent(waiting, choices_send_review_list(daemon->database, limit, verbs_rows, waiting));
}

/* --- progress ----------------------------------------------------------------------------------------------------- */

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *advice_in_words(const struct daemon *daemon, const struct stopping_advice *advice)
{
    const struct gain *gain = &daemon->progress.gain;
    if (!advice->known)
        return json_sprintf("too early to say: %d of %d rankings by score", daemon->progress.stopping.rankings,
                            STOPPING_WINDOW);
    const char *verdict = advice->stop ? "consider stopping" : "go on";
    return json_sprintf(
        "%s: a galaxy on offer is expected to teach %.4f +- %.4f nat, %.0f %% of the best so far (at most "
        "%.0f %%)%s",
        verdict, gain->mean, gain->error, 100 * advice->ratio, 100 * advice->ratio_high,
        advice->stop ? "; so for several rankings. This is the model's own expectation" : "");
}

/* Change of the hold-out's NLL per 1,000 labels over the last promoted models; NaN = unknown. */
static double measured_slope(const struct progress *progress)
{
    if (progress->measured_count < 2)
        return NAN;
    const struct measured_row *first = &progress->measured[0],
                              *last = &progress->measured[progress->measured_count - 1];
    return last->labels > first->labels
               ? 1000 * (last->holdout_nll - first->holdout_nll) / (double)(last->labels - first->labels)
               : NAN;
}

json_t *verbs_progress(const struct daemon *daemon)
{
    const struct progress *progress = &daemon->progress;
    struct stopping_advice advice = stopping_advise(&progress->stopping);
    return json_pack("{s:o,s:b,s:b,s:i,s:f,s:f,s:f,s:f,s:o,s:i,s:s,s:I}", "words", advice_in_words(daemon, &advice),
                     "known", advice.known, "stop", advice.stop, "active", progress->gain.galaxies, "gain",
                     progress->gain.mean, "gain_error", progress->gain.error, "ratio", advice.ratio, "ratio_high",
                     advice.ratio_high, "nll_per_1000_labels", number_or_null(measured_slope(progress)), "models",
                     (int)progress->measured_count, "choice", daemon->cycle.choice, "review",
                     (json_int_t)daemon->cycle.review_count);
}
