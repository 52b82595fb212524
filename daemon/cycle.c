/*
 * The cycle: fit -> promote -> rank -> record -> publish -> mark, as one table of steps. A step is started,
 * its outcome moves to the next one; a failure waits a moment and starts the same step or the whole cycle
 * again. One cycle at a time, and every job it asks for is bounded and may be lost with the worker.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "connectors/cycles.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/watch.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_MS      1000
#define RETRY_DOUBLES 3 /* at most 8 s: what mends itself is not waited for longer */
#define FIT_RETRY_MS                                                                                                   \
    2000 /* after the first failed fit, then doubling, at most 16 s; cycles go on without one meanwhile */

static int start_fit(struct daemon *daemon);
static int start_promote(struct daemon *daemon);
static int start_rank(struct daemon *daemon);
static int start_record(struct daemon *daemon);
static int start_publish(struct daemon *daemon);
static int start_mark(struct daemon *daemon);

/* start() begins the step and either leaves it in flight or moves on with next_step(). */
static const struct {
    const char *name;
    int (*start)(struct daemon *daemon);
    enum cycle_step next, after_failure;
} steps[] = {
    [CYCLE_IDLE] = {"idle",       NULL,          CYCLE_FIT,     CYCLE_IDLE   },
    [CYCLE_FIT] = {"training",   start_fit,     CYCLE_PROMOTE, CYCLE_FIT    },
    [CYCLE_PROMOTE] = {"judging",    start_promote, CYCLE_RANK,    CYCLE_PROMOTE},
    [CYCLE_RANK] = {"ranking",    start_rank,    CYCLE_RECORD,  CYCLE_RANK   },
    [CYCLE_RECORD] = {"recording",  start_record,  CYCLE_PUBLISH, CYCLE_RECORD },
    [CYCLE_PUBLISH] = {"publishing", start_publish, CYCLE_MARK,    CYCLE_PUBLISH},
    [CYCLE_MARK] = {"marking",    start_mark,    CYCLE_IDLE,    CYCLE_MARK   },
};

const char *cycle_step_name(enum cycle_step step)
{
    return steps[step].name;
}

static void next_step(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    cycle->in_flight = false;
    cycle->step = steps[cycle->step].next;
    if (cycle->step == CYCLE_IDLE) {
        cycle->ended_ms = clock_ms();
        cycle->last_s = (double)(cycle->ended_ms - cycle->started_ms) / 1000;
        cycle->failures = 0;
        if (!cycle->fit_failures)
            daemon->problem[0] = 0;
        log_info(EVENT_CYCLE_DONE, "cycle %llu done in %.1f s: model %u, %ld labelled, %zu in the queue",
                 (unsigned long long)cycle->number, cycle->last_s, cycle->champion, cycle->labels, daemon->queue.count);
    }
}

static void step_failed(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    log_warning(EVENT_STEP_FAILED, "%s failed: %s; trying again", steps[cycle->step].name, error_message());
    snprintf(daemon->problem, sizeof daemon->problem, "%s: %s", steps[cycle->step].name, error_message());
    cycle->in_flight = false;
    cycle->step = steps[cycle->step].after_failure;
    cycle->retry_at_ms =
        clock_ms() + ((int64_t)RETRY_MS << (cycle->failures < RETRY_DOUBLES ? cycle->failures++ : RETRY_DOUBLES));
}

/* What a job could not read may be the champion's file. */
static void check_champion(struct daemon *daemon, int code)
{
    if ((code == ERROR_INPUT || code == ERROR_NOT_FOUND) && watch_champion(daemon))
        log_error(EVENT_CHAMPION_DAMAGED, "the champion cannot be replaced: %s", error_message());
}

/* --- fit ---------------------------------------------------------------------------------------------------------- */

static void on_promotion_recorded(void *context, int code, const struct database_result *result)
{
    (void)context;
    (void)result;
    if (code)
        log_warning(EVENT_MODEL_NOT_RECORDED, "the model was not recorded in the database: %s", error_message());
}

/* The champion goes on serving and the ranking is still brought up to date; the votes wait for another fit. */
static void fit_failed(struct daemon *daemon, int code)
{
    struct cycle *cycle = &daemon->cycle;
    int doubles = cycle->fit_failures < RETRY_DOUBLES ? cycle->fit_failures : RETRY_DOUBLES;
    int64_t delay_ms = (int64_t)FIT_RETRY_MS << doubles;
    log_error(EVENT_FIT_FAILED, "training failed: %s; model %u stays the champion; trying again in %lld s",
              error_message(), cycle->champion, (long long)delay_ms / 1000);
    snprintf(daemon->problem, sizeof daemon->problem, "training: %s", error_message());
    check_champion(daemon, code);
    cycle->fit_failures++;
    cycle->fit_at_ms = clock_ms() + delay_ms;
    cycle->step = CYCLE_PROMOTE;
    next_step(daemon);
}

/* After every fit, promoted or not: refusals may go on for months. */
static void prune(struct daemon *daemon)
{
    if (models_prune(&daemon->config) < 0)
        log_warning(EVENT_MODELS_NOT_DELETED, "old models stay: %s", error_message());
    FAULT(MODELS_PRUNED);
}

static void on_fitted(void *context, int code, const json_t *answer)
{
    struct daemon *daemon = context;
    struct cycle *cycle = &daemon->cycle;
    if (!code && json_is_true(json_object_get(answer, "nothing_labelled"))) { /* rank with what there is */
        log_info(EVENT_FIT_IMPOSSIBLE, "no training: no labelled galaxy to train on yet (%lld in the hold-out)",
                 (long long)json_integer_value(json_object_get(answer, "labels")));
        cycle->unfitted = 0;
        cycle->step = CYCLE_PROMOTE;
        next_step(daemon);
        return;
    }
    if (code == ERROR_UNAVAILABLE || code == ERROR_CANCELLED) { /* the worker died or was ended: the same job again */
        step_failed(daemon);
        return;
    }
    if (code) {
        fit_failed(daemon, code);
        return;
    }
    FAULT(FIT_ANSWERED);
    daemon_note_damage(daemon, answer);
    meter_fit(&daemon->meters, answer);
    cycle->unfitted = 0;
    cycle->fit_failures = 0;
    cycle->model_number++;
    cycle->labels = (long)json_integer_value(json_object_get(answer, "labels"));
    bool promoted = json_is_true(json_object_get(answer, "promoted"));
    const char *reason = json_string_value(json_object_get(answer, "reason"));
    snprintf(cycle->reason, sizeof cycle->reason, "%s", reason ? reason : "");
    log_info(EVENT_MODEL_JUDGED, "model %u: %ld labels, %s", cycle->model_number, cycle->labels, cycle->reason);
    struct model_row row = {.number = cycle->model_number,
                            .parent = cycle->champion,
                            .trunk = (uint32_t)json_integer_value(json_object_get(answer, "trunk")),
                            .schema_hash = daemon->schema.hash,
                            .horizon = cycle->horizon,
                            .labels = cycle->labels,
                            .holdout_nll = json_number_value(json_object_get(answer, "holdout_nll")),
                            .champion_nll = json_number_value(json_object_get(answer, "champion_nll")),
                            .constant_nll = json_number_value(json_object_get(answer, "constant_nll")),
                            .promoted = promoted,
                            .reason = cycle->reason};
    if (cycles_send_model(daemon->database, &row, on_promotion_recorded, daemon))
        log_warning(EVENT_MODEL_NOT_RECORDED, "the model was not recorded in the database: %s", error_message());
    FAULT(MODEL_SENT);
    if (promoted)
        choice_measured(daemon, &row);
    else {
        train_judged(daemon, false);
        prune(daemon);
    }
    cycle->step = promoted ? CYCLE_FIT : CYCLE_PROMOTE;
    next_step(daemon);
}

static int start_fit(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    char horizon[24];
    uint32_t trunk = daemon->train.step == TRAIN_READY ? daemon->train.trunk : daemon->pool.trunk;
    snprintf(horizon, sizeof horizon, "%llu", (unsigned long long)cycle->horizon);
    return worker_link_send(&daemon->worker, "fit",
                            json_pack("{s:I,s:I,s:s,s:I}", "number", (json_int_t)cycle->model_number + 1, "parent",
                                      (json_int_t)cycle->champion, "horizon", horizon, "trunk", (json_int_t)trunk),
                            on_fitted, daemon);
}

static int start_promote(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    int code = models_promote(&daemon->config, cycle->model_number);
    if (code)
        return code;
    FAULT(CHAMPION_WRITTEN);
    cycle->champion = cycle->model_number;
    train_judged(daemon, true);
    feed_note(daemon, daemon->publisher->model_changed(daemon->feed, cycle->champion, cycle->reason));
    cycles_send_champion(daemon->database, cycle->champion, cycle->reason);
    FAULT(CHAMPION_ANNOUNCED);
    prune(daemon);
    next_step(daemon);
    return 0;
}

/* --- rank --------------------------------------------------------------------------------------------------------- */

static void on_ranked(void *context, int code, const json_t *answer)
{
    struct daemon *daemon = context;
    if (code) {
        step_failed(daemon);
        check_champion(daemon, code);
        return;
    }
    FAULT(RANK_ANSWERED);
    daemon_note_damage(daemon, answer);
    double score_s = json_number_value(json_object_get(answer, "score_s"));
    if (score_s > 0)
        daemon->cycle.scored_per_s = json_number_value(json_object_get(answer, "scored")) / score_s;
    daemon->meters.scored += (uint64_t)json_integer_value(json_object_get(answer, "scored"));
    meter_observe(&daemon->meters.ranking, json_number_value(json_object_get(answer, "seconds")));
    choice_take(daemon, answer);
    FAULT(QUEUE_CHOSEN);
    next_step(daemon);
}

static int start_rank(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    struct select_request *request = &cycle->request;
    if (daemon->worker.state != WORKER_IDLE)
        return error_set(ERROR_UNAVAILABLE, "the worker is %s", worker_state_name(daemon->worker.state));
    daemon_retract_expired(daemon); /* before the free places are counted */
    queue_follow_pins(&daemon->queue, &daemon->pool, daemon->galaxies, (size_t)daemon->config.queue_size);
    FAULT(LEASES_EXPIRED);
    queue_count(&daemon->queue, &daemon->pool, request);
    return worker_link_send(&daemon->worker, "rank",
                            json_pack("{s:I,s:I,s:I,s:I,s:i,s:i,s:i}", "trunk", (json_int_t)daemon->pool.trunk, "model",
                                      (json_int_t)cycle->champion, "cycle", (json_int_t)cycle->number, "queue_size",
                                      (json_int_t)daemon->config.queue_size, "kept_holdout", request->kept_holdout,
                                      "kept_random", request->kept_random, "kept_active", request->kept_active),
                            on_ranked, daemon);
}

/* --- record and publish ------------------------------------------------------------------------------------------- */

static void on_recorded(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    (void)result;
    FAULT(QUEUE_RECORDED);
    if (!code)
        choice_record(daemon);
    if (code)
        step_failed(daemon);
    else
        next_step(daemon);
}

static void on_marked(void *context, int code, const struct database_result *result)
{
    struct daemon *daemon = context;
    (void)result;
    FAULT(CYCLE_MARKED);
    if (code)
        step_failed(daemon);
    else
        next_step(daemon);
}

static int start_record(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    arena_reset(&daemon->memory);
    struct cycle_row row = {
        .number = cycle->number, .model = cycle->champion, .horizon = cycle->horizon, .labels = cycle->labels};
    return cycles_send_queue(daemon->database, &row, daemon->queue.entries, daemon->queue.count, &daemon->memory,
                             on_recorded, daemon);
}

static int start_publish(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    int code = daemon->publisher->publish(daemon->feed, cycle->number, cycle->champion, daemon->queue.entries,
                                          daemon->queue.count);
    FAULT(FEED_PUBLISHED);
    feed_note(daemon, code);
    if (!code)
        next_step(daemon);
    return code;
}

static int start_mark(struct daemon *daemon)
{
    return cycles_send_published(daemon->database, daemon->cycle.number, on_marked, daemon);
}

/* --- when to start ------------------------------------------------------------------------------------------------ */

/* A first queue is drawn when the pool is embedded, or enough of it that the draw is a fair one. */
static bool is_cold_too_early(const struct daemon *daemon)
{
    return daemon->cycle.champion == 0 && !embed_finished(daemon) &&
           daemon->embed.embedded < 10 * (uint64_t)daemon->config.queue_size;
}

bool cycle_is_due(const struct daemon *daemon)
{
    const struct ingest *ingest = &daemon->ingest;
    int64_t now_ms = clock_ms();
    if (is_cold_too_early(daemon))
        return false;
    if (daemon->cycle.wanted || ingest->waiting >= daemon->config.votes_min)
        return true;
    if (daemon->cycle.unfitted && now_ms >= daemon->cycle.fit_at_ms)
        return true;
    if (ingest->waiting && now_ms - ingest->waiting_since_ms >= daemon->config.wait_ms)
        return true;
    if (now_ms - daemon->cycle.ended_ms < daemon->config.wait_ms)
        return false;
    bool places_free = daemon->queue.count < (size_t)daemon->config.queue_size;
    return (places_free && !daemon->cycle.exhausted) || queue_lease_is_over(&daemon->queue, clock_unix_ms());
}

/* Without new votes there is nothing to train on, and after a failed fit it is too early: ranking with the champion. */
static void begin(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    cycle->started_ms = clock_ms();
    cycle->number++;
    cycle->step = CYCLE_RANK;
    if (!cycle->rank_only) {
        cycle->unfitted += daemon->ingest.waiting;
        daemon->ingest.waiting = 0;
        if (cycle->wanted || ((cycle->unfitted || !cycle->champion) && cycle->started_ms >= cycle->fit_at_ms)) {
            cycle->step = steps[CYCLE_IDLE].next;
            cycle->horizon = daemon->ingest.horizon;
        }
    }
    cycle->wanted = cycle->rank_only = false;
    FAULT(CYCLE_BEGUN);
}

void cycle_step(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    if (cycle->in_flight && cycle->step == CYCLE_RECORD)
        FAULT(QUEUE_SENT); /* a turn after it was queued, so it is out */
    if (cycle->in_flight && cycle->step == CYCLE_MARK)
        FAULT(MARK_SENT);
    if (cycle->in_flight && cycle->step == CYCLE_FIT)
        FAULT(FIT_SENT);
    if (cycle->in_flight && cycle->step == CYCLE_RANK)
        FAULT(RANK_SENT);
    if (cycle->in_flight || clock_ms() < cycle->retry_at_ms || daemon->sync.step != SYNC_DONE ||
        database_state(daemon->database) != DATABASE_READY || daemon->read_only)
        return;
    if (cycle->step == CYCLE_IDLE) {
        bool able = !daemon->paused && daemon->embed.embedded > 0 && daemon->worker.state == WORKER_IDLE &&
                    !daemon->embed.in_flight && !daemon->ingest.more;
        if (!able || !cycle_is_due(daemon))
            return;
        begin(daemon);
    }
    if ((cycle->step == CYCLE_FIT || cycle->step == CYCLE_RANK) && daemon->worker.state != WORKER_IDLE)
        return; /* it is being started again */
    cycle->in_flight = true;
    if (steps[cycle->step].start(daemon))
        step_failed(daemon);
}
