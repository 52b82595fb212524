/*
 * What triagectl can ask, one small function per verb, dispatched by one table. Answers that need the
 * database are given when it has answered; nothing here waits.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "connectors/cycles.h"
#include "connectors/galaxies.h"
#include "connectors/votes.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/proto.h"
#include "daemon/verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LAG_PROBLEM_S 10 /* votes that wait longer are a problem */

struct waiting {
    struct daemon *daemon;
    control_client client;
    verb_answer *answer;
};

struct waiting *verbs_wait(struct daemon *daemon, control_client client, verb_answer *answer)
{
    struct waiting *waiting = malloc(sizeof *waiting);
    if (!waiting)
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "out of memory");
    else
        *waiting = (struct waiting){daemon, client, answer};
    return waiting;
}

void verbs_refuse(struct daemon *daemon, control_client client)
{
    control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "%s", error_message());
}

void verbs_rows(void *context, int code, const struct database_result *result)
{
    struct waiting *waiting = context;
    if (code)
        verbs_refuse(waiting->daemon, waiting->client);
    else
        control_answer(waiting->daemon->control, waiting->client, waiting->answer(waiting->daemon, result));
    free(waiting);
}

void verbs_sent(struct waiting *waiting, int code)
{
    if (code)
        verbs_rows(waiting, code, NULL);
}

uint64_t verbs_galaxy(struct daemon *daemon, control_client client, const json_t *request)
{
    const char *id_str = json_string_value(json_object_get(request, "id"));
    uint64_t key = id_str ? daemon_find_galaxy(daemon, id_str) : 0;
    if (!key)
        control_refuse(daemon->control, client, PROTO_EXIT_NOT_FOUND, "no galaxy has the id '%.63s'",
                       id_str ? id_str : "");
    return key;
}

/* --- status ------------------------------------------------------------------------------------------------------- */

static void add_problem(json_t *list, const char *what, const char *problem)
{
    char line[512];
    snprintf(line, sizeof line, "%s%s", what, problem);
    text_make_printable(line);
    json_array_append_new(list, json_string(line));
}

/* How long votes that are applied, or a cycle that is under way, have been waiting for a new ranking; 0 while paused. */
static double ranking_late_s(const struct daemon *daemon)
{
    int64_t now_ms = clock_ms(), since_ms = now_ms;
    if (daemon->cycle.step != CYCLE_IDLE)
        since_ms = daemon->cycle.started_ms;
    else if (daemon->ingest.waiting)
        since_ms = daemon->ingest.waiting_since_ms;
    return daemon->paused ? 0 : (double)(now_ms - since_ms) / 1000;
}

json_t *daemon_problems(const struct daemon *daemon)
{
    json_t *list = json_array();
    feed_problems(daemon, list);
    if (daemon->problem[0])
        add_problem(list, "", daemon->problem);
    if (database_state(daemon->database) != DATABASE_READY)
        add_problem(list, "database: ",
                    *database_problem(daemon->database) ? database_problem(daemon->database) : "connecting");
    else if (daemon->read_only)
        add_problem(list, "", "the database takes no writes: votes and cycles wait");
    if (ranking_late_s(daemon) > (double)daemon->config.late_s) {
        char line[100];
        snprintf(line, sizeof line, "votes have been waiting for a ranking for %.0f s", ranking_late_s(daemon));
        add_problem(list, "", line);
    }
    if (daemon->ingest.lag_s > LAG_PROBLEM_S) {
        char line[400];
        snprintf(line, sizeof line, "votes wait for %.0f s%s%s%s", daemon->ingest.lag_s,
                 daemon->ingest.held_by[0] ? ": none is lost, but " : "", daemon->ingest.held_by,
                 daemon->ingest.held_by[0] ? " must end first" : "");
        add_problem(list, "", line);
    }
    if (daemon->worker.problem[0])
        add_problem(list, "the worker cannot start: ", daemon->worker.problem);
    else if (daemon->worker.state == WORKER_DOWN)
        add_problem(list, "", "the worker is down and is being started again");
    if (daemon->worker.fallback[0])
        add_problem(list, "computing on the CPU, not on the GPU as configured: ", daemon->worker.fallback);
    return list;
}

/* Applied, but no training has used them yet. */
static json_int_t votes_waiting(const struct daemon *daemon)
{
    return daemon->ingest.waiting + daemon->cycle.unfitted;
}

static const char *database_word(const struct daemon *daemon)
{
    static const char *const words[] = {
        [DATABASE_CONNECTING] = "connecting", [DATABASE_READY] = "ok", [DATABASE_DOWN] = "down"};
    return words[database_state(daemon->database)];
}

static const char *state_word(const struct daemon *daemon)
{
    if (daemon->sync.step == SYNC_PREPARE)
        return "counting the votes";
    if (daemon->sync.step != SYNC_DONE)
        return "reading the database";
    if (!embed_finished(daemon))
        return "embedding";
    return cycle_step_name(daemon->cycle.step);
}

static json_t *training_state(const struct daemon *daemon);

static void verb_status(struct daemon *daemon, control_client client, const json_t *request)
{
    (void)request;
    char database_words[512];
    database_describe(daemon->database_url, database_words, sizeof database_words);
    json_t *answer =
        json_pack("{s:b, s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:s}", "ok", 1, "name", daemon->config.name,
                  "version", TRIAGE_VERSION, "state", state_word(daemon), "paused", daemon->paused, "ready",
                  daemon->ready, "uptime_s", (json_int_t)(clock_ms() - daemon->started_ms) / 1000, "champion",
                  (json_int_t)daemon->cycle.champion, "queue_length", (json_int_t)daemon->queue.count, "queue_size",
                  (json_int_t)daemon->config.queue_size, "database", database_word(daemon));
    json_object_set_new(answer, "schema",
                        json_pack("{s:s,s:s}", "name", daemon->schema.name, "hash", daemon->schema.hash));
    json_object_set_new(answer, "galaxies",
                        json_pack("{s:I,s:I,s:I,s:I,s:I,s:f}", "total", (json_int_t)daemon->galaxies, "embedded",
                                  (json_int_t)daemon->embed.embedded, "bad", (json_int_t)daemon->embed.bad, "retired",
                                  (json_int_t)daemon->retired, "labelled", (json_int_t)daemon->labelled,
                                  "embedded_per_s",
                                  daemon->embed.seconds > 0 ? daemon->embed.images / daemon->embed.seconds : 0.0));
    json_object_set_new(answer, "votes",
                        json_pack("{s:I,s:I,s:I,s:I,s:I,s:f,s:s}", "applied", (json_int_t)daemon->ingest.applied,
                                  "repeated", (json_int_t)daemon->ingest.repeated, "ignored",
                                  (json_int_t)daemon->ingest.ignored, "quarantined",
                                  (json_int_t)daemon->ingest.quarantined, "waiting", votes_waiting(daemon), "lag_s",
                                  daemon->ingest.lag_s, "database_url", database_words));
    json_object_set_new(answer, "cycle",
                        json_pack("{s:I,s:s,s:f,s:f,s:I}", "number", (json_int_t)daemon->cycle.number, "step",
                                  cycle_step_name(daemon->cycle.step), "last_s", daemon->cycle.last_s, "scored_per_s",
                                  daemon->cycle.scored_per_s, "labels", (json_int_t)daemon->cycle.labels));
    json_object_set_new(answer, "feed", feed_status(daemon));
    json_object_set_new(answer, "worker",
                        json_pack("{s:s,s:s,s:s,s:s,s:o,s:s,s:f,s:I}", "state", worker_state_name(daemon->worker.state),
                                  "backend", daemon->worker.backend, "precision", daemon->worker.precision, "fallback",
                                  daemon->worker.fallback, "pid",
                                  daemon->worker.pid > 0 ? json_integer(daemon->worker.pid) : json_null(), "job",
                                  daemon->worker.kind, "progress", daemon->worker.progress, "restarts",
                                  (json_int_t)daemon->worker.restarts));
    json_object_set_new(answer, "trunk", json_integer((json_int_t)daemon->pool.trunk));
    json_object_set_new(answer, "training", training_state(daemon));
    json_object_set_new(answer, "progress", verbs_progress(daemon));
    json_object_set_new(answer, "memory",
                        json_pack("{s:I,s:I}", "cycle_peak_bytes", (json_int_t)daemon->memory.peak_bytes,
                                  "cycle_limit_bytes", (json_int_t)daemon->memory.limit_bytes));
    json_object_set_new(answer, "problems", daemon_problems(daemon));
    control_answer(daemon->control, client, answer);
}

/* What is wrong now, everything that has happened since the start, and what the database keeps from before it. */
static void verb_doctor(struct daemon *daemon, control_client client, const json_t *request)
{
    (void)request;
    json_t *now = daemon_problems(daemon);
    bool well = json_array_size(now) == 0 && !incidents_any(&daemon->incidents) && daemon->ready;
    if (!daemon->ready)
        add_problem(now, "", "not ready: the queue is not on offer yet");
    control_answer(daemon->control, client,
                   json_pack("{s:b,s:b,s:i,s:I,s:o,s:I,s:o}", "ok", 1, "well", well, "exit",
                             well ? PROTO_EXIT_OK : PROTO_EXIT_UNWELL, "uptime_s",
                             (json_int_t)(clock_ms() - daemon->started_ms) / 1000, "now", now, "quarantined",
                             (json_int_t)daemon->ingest.quarantined, "incidents", incidents_json(&daemon->incidents)));
}

static void verb_metrics(struct daemon *daemon, control_client client, const json_t *request)
{
    (void)request;
    struct text text = text_new(OPENMETRICS_BYTES_MAX);
    openmetrics_write(daemon, &text);
    if (text_error(&text))
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "%s", error_message());
    else
        control_answer(daemon->control, client, json_pack("{s:b,s:s}", "ok", 1, "text", text.bytes));
    text_free(&text);
}

/* Whether subscribers are answered and nothing is wrong, and if not, why. */
static json_t *readiness(const struct daemon *daemon)
{
    json_t *reasons = daemon_problems(daemon);
    if (!daemon->ready)
        add_problem(reasons, "not ready yet: ", state_word(daemon));
    return json_pack("{s:b,s:o}", "ready", json_array_size(reasons) == 0, "reasons", reasons);
}

static void verb_ready(struct daemon *daemon, control_client client, const json_t *request)
{
    (void)request;
    json_t *answer = readiness(daemon);
    bool ready = json_is_true(json_object_get(answer, "ready"));
    json_object_set_new(answer, "ok", json_true());
    json_object_set_new(answer, "exit", json_integer(ready ? PROTO_EXIT_OK : PROTO_EXIT_UNWELL));
    control_answer(daemon->control, client, answer);
}

int daemon_http(void *context, const char *path, struct text *body, const char **ret_type)
{
    const struct daemon *daemon = context;
    if (strcmp(path, "/metrics") == 0) {
        *ret_type = OPENMETRICS_TYPE;
        openmetrics_write(daemon, body);
        return 200;
    }
    if (strcmp(path, "/livez") == 0) {
        text_append(body, "the loop turns\n");
        return 200;
    }
    if (strcmp(path, "/readyz") != 0) {
        text_append(body, "there are /metrics, /livez and /readyz\n");
        return 404;
    }
    json_t *answer = readiness(daemon);
    char *words = json_dumps(answer, JSON_COMPACT);
    int status = json_is_true(json_object_get(answer, "ready")) ? 200 : 503;
    *ret_type = "application/json";
    text_append(body, "%s\n", words ? words : "{}");
    free(words);
    json_decref(answer);
    return status;
}

/* --- marks ---------------------------------------------------------------------------------------------------------- */

/* pin, unpin, exclude, include: one flag in the database, then in the pool. */
struct marking {
    const char *verb, *column;
    int flag;
    bool on;
};
static const struct marking markings[] = {
    {"pin",     "pinned",   POOL_PINNED,   true },
    {"unpin",   "pinned",   POOL_PINNED,   false},
    {"exclude", "excluded", POOL_EXCLUDED, true },
    {"include", "excluded", POOL_EXCLUDED, false},
};

struct marking_request {
    struct daemon *daemon;
    control_client client;
    const struct marking *marking;
    uint64_t key;
};

static void on_marked(void *context, int code, const struct database_result *result)
{
    struct marking_request *request = context;
    struct daemon *daemon = request->daemon;
    (void)result;
    if (code)
        verbs_refuse(daemon, request->client);
    else {
        daemon_set_flag(daemon, request->key, request->marking->flag, request->marking->on);
        if (request->marking->flag == POOL_EXCLUDED && request->marking->on)
            daemon_retract(daemon, request->key, "excluded");
        daemon->cycle.wanted = true;
        control_done(daemon->control, request->client, "%s: done; the queue follows with the next cycle",
                     request->marking->verb);
    }
    free(request);
}

static void mark(struct daemon *daemon, control_client client, const json_t *request, const struct marking *marking)
{
    uint64_t key = verbs_galaxy(daemon, client, request);
    if (!key)
        return;
    struct marking_request *pending = malloc(sizeof *pending);
    if (!pending) {
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "out of memory");
        return;
    }
    *pending = (struct marking_request){daemon, client, marking, key};
    if (galaxies_send_mark(daemon->database, key, marking->column, marking->on, on_marked, pending)) {
        verbs_refuse(daemon, client);
        free(pending);
    }
}

static void verb_mark(struct daemon *daemon, control_client client, const json_t *request)
{
    const char *verb = json_string_value(json_object_get(request, "verb"));
    for (size_t i = 0; i < sizeof markings / sizeof *markings; i++)
        if (strcmp(markings[i].verb, verb) == 0)
            mark(daemon, client, request, &markings[i]);
}

/* --- lists from the database -------------------------------------------------------------------------------------- */

static json_t *bad_list(struct daemon *daemon, const struct database_result *result)
{
    json_t *list = json_array();
    for (int row = 0; row < database_rows(result); row++)
        json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "id", database_text(result, row, 0), "file_loc",
                                              database_text(result, row, 1), "reason", database_text(result, row, 2)));
    return json_pack("{s:b,s:I,s:o}", "ok", 1, "total", (json_int_t)daemon->embed.bad, "galaxies", list);
}

static json_t *bad_cleared(struct daemon *daemon, const struct database_result *result)
{
    (void)result;
    json_t *message = json_sprintf("%llu images will be tried again", (unsigned long long)daemon->embed.bad);
    sync_restart(daemon);
    return json_pack("{s:b,s:o}", "ok", 1, "message", message);
}

static void verb_galaxies(struct daemon *daemon, control_client client, const json_t *request)
{
    int retry = json_is_true(json_object_get(request, "retry"));
    struct waiting *waiting = verbs_wait(daemon, client, retry ? bad_cleared : bad_list);
    if (waiting)
        verbs_sent(waiting, retry ? galaxies_send_retry_bad(daemon->database, verbs_rows, waiting)
                                  : galaxies_send_bad_list(daemon->database, VERBS_LIST_MAX, verbs_rows, waiting));
}

static json_t *vote_counts(const struct daemon *daemon)
{
    const struct ingest *ingest = &daemon->ingest;
    return json_pack("{s:b,s:I,s:I,s:I,s:I,s:I,s:f,s:s}", "ok", 1, "applied", (json_int_t)ingest->applied, "repeated",
                     (json_int_t)ingest->repeated, "ignored", (json_int_t)ingest->ignored, "quarantined",
                     (json_int_t)ingest->quarantined, "waiting", votes_waiting(daemon), "lag_s", ingest->lag_s,
                     "held_by", ingest->held_by);
}

static json_t *quarantine(struct daemon *daemon, const struct database_result *result)
{
    json_t *answer = vote_counts(daemon), *list = json_array();
    for (int row = 0; row < database_rows(result); row++)
        json_array_append_new(list, json_pack("{s:s,s:I}", "reason", database_text(result, row, 0), "count",
                                              (json_int_t)database_integer(result, row, 1)));
    json_object_set_new(answer, "quarantine", list);
    return answer;
}

static void verb_votes(struct daemon *daemon, control_client client, const json_t *request)
{
    const char *what = json_string_value(json_object_get(request, "what"));
    if (what && strcmp(what, "stats") == 0) {
        control_answer(daemon->control, client, vote_counts(daemon));
        return;
    }
    struct waiting *waiting = verbs_wait(daemon, client, quarantine);
    if (waiting)
        verbs_sent(waiting, votes_send_quarantine_list(daemon->database, VERBS_LIST_MAX, verbs_rows, waiting));
}

static json_t *model_list(struct daemon *daemon, const struct database_result *result)
{
    static const char *const integers[] = {"parent", "labels"};
    static const char *const reals[] = {"holdout_nll", "champion_nll", "constant_nll"};
    json_t *list = json_array();
    for (int row = 0; row < database_rows(result); row++) {
        long number = (long)database_integer(result, row, 0);
        json_t *model = json_pack("{s:I,s:b,s:s}", "number", (json_int_t)number, "champion",
                                  number == (long)daemon->cycle.champion, "reason", database_text(result, row, 6));
        for (int i = 0; i < 2; i++)
            json_object_set_new(model, integers[i], json_integer(database_integer(result, row, 1 + i)));
        for (int i = 0; i < 3; i++)
            json_object_set_new(model, reals[i],
                                database_value(result, row, 3 + i) ? json_real(database_real(result, row, 3 + i))
                                                                   : json_null());
        json_array_append_new(list, model);
    }
    return json_pack("{s:b,s:I,s:o}", "ok", 1, "champion", (json_int_t)daemon->cycle.champion, "models", list);
}

static void verb_models(struct daemon *daemon, control_client client, const json_t *request)
{
    (void)request;
    struct waiting *waiting = verbs_wait(daemon, client, model_list);
    if (waiting)
        verbs_sent(waiting, cycles_send_model_list(daemon->database, VERBS_LIST_MAX, verbs_rows, waiting));
}

/* --- steering ----------------------------------------------------------------------------------------------------- */

/* The stored model below the champion, or the one asked for; 0 if there is none. */
static uint32_t rollback_target(const struct daemon *daemon, const json_t *request)
{
    static uint32_t numbers[20000];
    uint32_t wanted = (uint32_t)json_integer_value(json_object_get(request, "model")), target = 0;
    int count = models_list(&daemon->config, numbers, 20000);
    for (int i = 0; i < count; i++)
        if (wanted ? numbers[i] == wanted : numbers[i] < daemon->cycle.champion)
            target = numbers[i];
    return target;
}

/* A model of another trunk can serve only while that trunk's embeddings are there. */
static bool use_trunk_of(struct daemon *daemon, uint32_t model)
{
    uint32_t trunk = 0, current = daemon->pool.trunk;
    char weights[FILE_PATH_BYTES];
    if (models_trunk_of(&daemon->config, &daemon->schema, model, &trunk) ||
        models_trunk_path(&daemon->config, trunk, weights, sizeof weights))
        return false;
    if (!file_exists(weights)) {
        error_set(ERROR_STATE, "model %u needs trunk %u, which the gate refused and which is gone", model, trunk);
        return false;
    }
    pool_use_trunk(&daemon->pool, trunk);
    for (uint64_t row = 0; row < daemon->galaxies; row++)
        if (*pool_embedding_version(&daemon->pool, row) == trunk &&
            (trunk == current || daemon->train.step == TRAIN_OFF))
            return true;
    pool_use_trunk(&daemon->pool, current);
    error_set(ERROR_STATE, "model %u needs the embeddings of trunk %u, which are gone or being replaced (in use is %u)",
              model, trunk, current);
    return false;
}

static void verb_rollback(struct daemon *daemon, control_client client, const json_t *request)
{
    uint32_t target = rollback_target(daemon, request), trunk = daemon->pool.trunk;
    if (!target) {
        control_refuse(daemon->control, client, PROTO_EXIT_NOT_FOUND,
                       "no such stored model: see 'triagectl models'; only the last %lld are kept",
                       (long long)daemon->config.models_keep);
        return;
    }
    if (daemon->cycle.step == CYCLE_FIT || daemon->cycle.step == CYCLE_PROMOTE) {
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "a model is being trained: try again in a moment");
        return;
    }
    if (!use_trunk_of(daemon, target) || models_promote(&daemon->config, target)) {
        pool_use_trunk(&daemon->pool, trunk);
        verbs_refuse(daemon, client);
        return;
    }
    daemon->cycle.champion = target;
    daemon->cycle.rank_only = true;
    daemon->cycle.wanted = true;
    if (daemon->pool.trunk != trunk)
        embed_again(daemon); /* galaxies it has not seen yet follow */
    feed_note(daemon, daemon->publisher->model_changed(daemon->feed, target, "rollback by an operator"));
    cycles_send_champion(daemon->database, target, "rollback by an operator");
    control_done(daemon->control, client, "model %u is the champion; a new ranking follows", target);
}

static void verb_pause(struct daemon *daemon, control_client client, const json_t *request)
{
    daemon->paused = strcmp(json_string_value(json_object_get(request, "verb")), "pause") == 0;
    control_done(daemon->control, client,
                 daemon->paused ? "paused: votes are taken, no new cycle starts" : "cycles start again");
}

static json_t *training_state(const struct daemon *daemon)
{
    const struct train *train = &daemon->train;
    return json_pack("{s:s,s:b,s:I,s:f,s:i,s:I,s:i,s:o,s:o}", "step", train_step_name(train->step), "stopped",
                     train->stopped, "trunk", (json_int_t)train->trunk, "share", train->share, "epoch", train->epoch,
                     "labels", (json_int_t)train->labels, "stalled", train->stalled, "train_loss",
                     isfinite(train->train_loss) ? json_real(train->train_loss) : json_null(), "validation_loss",
                     isfinite(train->validation_loss) ? json_real(train->validation_loss) : json_null());
}

static void train_trunk(struct daemon *daemon, control_client client)
{
    const struct train *train = &daemon->train;
    bool was_off = train->step == TRAIN_OFF, was_stopped = train->stopped;
    if (train_start(daemon))
        verbs_refuse(daemon, client);
    else if (was_off)
        control_done(daemon->control, client, "the trunk is trained as soon as the worker is free");
    else
        control_done(daemon->control, client, "trunk %u %s", train->trunk,
                     was_stopped ? "goes on as soon as the worker is free" : "is being trained already");
}

static void stop_training(struct daemon *daemon, control_client client)
{
    if (train_stop(daemon))
        verbs_refuse(daemon, client);
    else if (daemon->train.step == TRAIN_OFF)
        control_done(daemon->control, client, "no trunk will be trained");
    else
        control_done(
            daemon->control, client,
            "trunk %u is stopped: 'triagectl train trunk' goes on with it, 'triagectl train discard' deletes it",
            daemon->train.trunk);
}

static void discard_training(struct daemon *daemon, control_client client)
{
    if (train_discard(daemon))
        verbs_refuse(daemon, client);
    else
        control_done(daemon->control, client, "trunk %u is discarded; trunk %u stays in use", daemon->train.trunk,
                     daemon->pool.trunk);
}

static void verb_train(struct daemon *daemon, control_client client, const json_t *request)
{
    const char *what = json_string_value(json_object_get(request, "what"));
    what = what ? what : "now";
    if (strcmp(what, "status") == 0)
        control_answer(daemon->control, client,
                       json_pack("{s:b,s:I,s:o}", "ok", 1, "trunk", (json_int_t)daemon->pool.trunk, "training",
                                 training_state(daemon)));
    else if (strcmp(what, "stop") == 0)
        stop_training(daemon, client);
    else if (strcmp(what, "discard") == 0)
        discard_training(daemon, client);
    else if (daemon->paused)
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "paused: 'triagectl resume' first");
    else if (strcmp(what, "trunk") == 0)
        train_trunk(daemon, client);
    else {
        daemon->cycle.wanted = true;
        control_done(daemon->control, client, "a cycle starts as soon as the worker is free");
    }
}

static void verb_reload(struct daemon *daemon, control_client client, const json_t *request)
{
    char text[ERROR_MESSAGE_BYTES];
    (void)request;
    if (daemon_reload(daemon, text, sizeof text))
        verbs_refuse(daemon, client);
    else
        control_done(daemon->control, client, "%s", text);
}

void verbs_handle(void *context, control_client client, const char *verb, const json_t *request)
{
    static const struct {
        const char *name;
        void (*run)(struct daemon *daemon, control_client client, const json_t *request);
    } handlers[] = {
        {"status",   verb_status  },
        {"doctor",   verb_doctor  },
        {"ready",    verb_ready   },
        {"metrics",  verb_metrics },
        {"queue",    verb_queue   },
        {"why",      verb_why     },
        {"review",   verb_review  },
        {"diff",     verb_diff    },
        {"pin",      verb_mark    },
        {"unpin",    verb_mark    },
        {"exclude",  verb_mark    },
        {"include",  verb_mark    },
        {"galaxies", verb_galaxies},
        {"votes",    verb_votes   },
        {"models",   verb_models  },
        {"rollback", verb_rollback},
        {"pause",    verb_pause   },
        {"resume",   verb_pause   },
        {"train",    verb_train   },
        {"keys",     verb_keys    },
        {"reload",   verb_reload  },
    };
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
        if (strcmp(handlers[i].name, verb) == 0)
            handlers[i].run(context, client, request);
}
