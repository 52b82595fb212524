/*
 * The cycle: fit -> promote -> rank -> record -> publish -> mark, as one table of steps. A step is started,
 * its outcome moves to the next one; a failure waits a moment and starts the same step or the whole cycle
 * again. One cycle at a time, and every job it asks for is bounded and may be lost with the worker.
 */
#include "base/clock.h"
#include "base/error.h"
#include "connectors/cycles.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/models.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_MS 1000

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
        if (!cycle->fit_failed)
            daemon->problem[0] = 0;
        log_info("cycle %llu done in %.1f s: model %u, %ld labelled, %zu in the queue",
                 (unsigned long long)cycle->number, cycle->last_s, cycle->champion, cycle->labels, daemon->queue.count);
    }
}

static void step_failed(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    log_warning("%s failed: %s; trying again", steps[cycle->step].name, error_message());
    snprintf(daemon->problem, sizeof daemon->problem, "%s: %s", steps[cycle->step].name, error_message());
    cycle->in_flight = false;
    cycle->step = steps[cycle->step].after_failure;
    cycle->retry_at_ms = clock_ms() + ((int64_t)RETRY_MS << (cycle->failures < 5 ? cycle->failures++ : 5));
}

/* --- fit ---------------------------------------------------------------------------------------------------------- */

static void on_promotion_recorded(void *context, int code, const struct database_result *result)
{
    (void)context;
    (void)result;
    if (code)
        log_warning("the model was not recorded in the database: %s", error_message());
}

static void on_fitted(void *context, int code, const json_t *answer)
{
    struct daemon *daemon = context;
    struct cycle *cycle = &daemon->cycle;
    if (code == ERROR_STATE) { /* nothing labelled yet: rank with what there is */
        log_info("no training: %s", error_message());
        cycle->step = CYCLE_PROMOTE;
        next_step(daemon);
        return;
    }
    if (code == ERROR_UNAVAILABLE) { /* the worker died: the same job again */
        step_failed(daemon);
        return;
    }
    if (code) { /* the champion goes on serving; the ranking is still brought up to date */
        log_error("training failed: %s; model %u stays the champion", error_message(), cycle->champion);
        snprintf(daemon->problem, sizeof daemon->problem, "training: %s", error_message());
        cycle->fit_failed = true;
        cycle->step = CYCLE_PROMOTE;
        next_step(daemon);
        return;
    }
    cycle->model_number++;
    cycle->labels = (long)json_integer_value(json_object_get(answer, "labels"));
    bool promoted = json_is_true(json_object_get(answer, "promoted"));
    const char *reason = json_string_value(json_object_get(answer, "reason"));
    snprintf(cycle->reason, sizeof cycle->reason, "%s", reason ? reason : "");
    log_info("model %u: %ld labels, %s", cycle->model_number, cycle->labels, cycle->reason);
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
        log_warning("the model was not recorded in the database: %s", error_message());
    if (!promoted)
        train_judged(daemon, false);
    cycle->step = promoted ? CYCLE_FIT : CYCLE_PROMOTE;
    next_step(daemon);
}

static int start_fit(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    char horizon[24];
    uint32_t trunk = daemon->train.step == TRAIN_READY ? daemon->train.trunk : daemon->pool.trunk;
    snprintf(horizon, sizeof horizon, "%llu", (unsigned long long)cycle->horizon);
    cycle->fit_failed = false;
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
    cycle->champion = cycle->model_number;
    train_judged(daemon, true);
    daemon->publisher->model_changed(daemon->feed, cycle->champion, cycle->reason);
    cycles_send_champion(daemon->database, cycle->champion, cycle->reason);
    if (models_prune(&daemon->config) < 0)
        log_warning("old models stay: %s", error_message());
    next_step(daemon);
    return 0;
}

/* --- rank --------------------------------------------------------------------------------------------------------- */

/* Takes out what may not be offered any longer before the free places are counted. */
static void expire_leases(struct daemon *daemon)
{
    int64_t now_ms = clock_unix_ms();
    for (size_t i = daemon->queue.count; i-- > 0;)
        if (daemon->queue.entries[i].leased_until_ms <= now_ms)
            daemon_retract(daemon, daemon->queue.entries[i].key, "lease_expired");
}

static int add_selected(struct daemon *daemon, const json_t *triple)
{
    uint64_t key = (uint64_t)json_integer_value(json_array_get(triple, 0));
    const char *name = json_string_value(json_array_get(triple, 1));
    enum stream stream;
    if (key < 1 || key > daemon->galaxies || !name || stream_from_name(name, &stream))
        return error_set(ERROR_INPUT, "the worker chose a galaxy that does not exist");
    struct pool_state *state = pool_state(&daemon->pool, key - 1);
    if (state->flags & (POOL_RETIRED | POOL_EXCLUDED | POOL_BAD | POOL_QUEUED))
        return 0; /* it changed while the ranking ran */
    struct queue_entry entry = {.key = key,
                                .stream = (uint8_t)stream,
                                .probability = json_number_value(json_array_get(triple, 2)),
                                .leased_until_ms = clock_unix_ms() + daemon->config.lease_s * 1000};
    snprintf(entry.id_str, sizeof entry.id_str, "%s", pool_identity(&daemon->pool, key - 1)->id_str);
    int code = queue_add(&daemon->queue, &entry);
    if (!code)
        state->flags |= POOL_QUEUED;
    return code;
}

static void on_ranked(void *context, int code, const json_t *answer)
{
    struct daemon *daemon = context;
    const json_t *triple;
    size_t index;
    if (code) {
        step_failed(daemon);
        return;
    }
    double score_s = json_number_value(json_object_get(answer, "score_s"));
    if (score_s > 0)
        daemon->cycle.scored_per_s = json_number_value(json_object_get(answer, "scored")) / score_s;
    json_array_foreach(json_object_get(answer, "selected"), index, triple)
    {
        if (daemon->queue.count >= (size_t)daemon->config.queue_size)
            break;
        if (add_selected(daemon, triple))
            log_warning("%s, ignoring", error_message());
    }
    daemon->cycle.exhausted = daemon->queue.count < (size_t)daemon->config.queue_size;
    queue_renumber(&daemon->queue, &daemon->pool);
    next_step(daemon);
}

static int start_rank(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    struct select_request *request = &cycle->request;
    if (daemon->worker.state != WORKER_IDLE)
        return error_set(ERROR_UNAVAILABLE, "the worker is %s", worker_state_name(daemon->worker.state));
    expire_leases(daemon);
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
    (void)result;
    if (code)
        step_failed(context);
    else
        next_step(context);
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
    if (!code)
        next_step(daemon);
    return code;
}

static int start_mark(struct daemon *daemon)
{
    return cycles_send_published(daemon->database, daemon->cycle.number, on_recorded, daemon);
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
    if (ingest->waiting && now_ms - ingest->waiting_since_ms >= daemon->config.wait_ms)
        return true;
    if (now_ms - daemon->cycle.ended_ms < daemon->config.wait_ms)
        return false;
    bool places_free = daemon->queue.count < (size_t)daemon->config.queue_size;
    return (places_free && !daemon->cycle.exhausted) || queue_lease_is_over(&daemon->queue, clock_unix_ms());
}

/* Without new votes there is nothing to train on: places are filled by ranking with the champion. */
static void begin(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    bool nothing_new = cycle->champion && !cycle->wanted && !daemon->ingest.waiting;
    cycle->started_ms = clock_ms();
    cycle->number++;
    cycle->wanted = false;
    if (cycle->rank_only || nothing_new)
        cycle->step = CYCLE_RANK;
    else {
        cycle->step = steps[CYCLE_IDLE].next;
        cycle->horizon = daemon->ingest.horizon;
        daemon->ingest.waiting = 0;
    }
    cycle->rank_only = false;
}

void cycle_step(struct daemon *daemon)
{
    struct cycle *cycle = &daemon->cycle;
    if (cycle->in_flight || clock_ms() < cycle->retry_at_ms || daemon->sync.step != SYNC_DONE ||
        database_state(daemon->database) != DATABASE_READY)
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
