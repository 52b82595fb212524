/*
 * What triagectl can ask, one small function per verb, dispatched by one table. Answers that need the
 * database are given when it has answered; nothing here waits.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "connectors/cycles.h"
#include "connectors/galaxies.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/proto.h"
#include "model/information.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX 1000

/* A request whose answer comes from the database later. */
struct waiting {
    struct daemon *daemon;
    control_client client;
};

static struct waiting *wait_for(struct daemon *daemon, control_client client)
{
    struct waiting *waiting = malloc(sizeof *waiting);
    if (!waiting)
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "out of memory");
    else
        *waiting = (struct waiting){daemon, client};
    return waiting;
}

static void refuse_with_message(struct daemon *daemon, control_client client)
{
    control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "%s", error_message());
}

/* --- status ------------------------------------------------------------------------------------------------------- */

static void add_problem(json_t *list, const char *what, const char *problem)
{
    char line[512];
    snprintf(line, sizeof line, "%s%s", what, problem);
    text_make_printable(line);
    json_array_append_new(list, json_string(line));
}

static json_t *problems(const struct daemon *daemon)
{
    json_t *list = json_array();
    if (daemon->problem[0])
        add_problem(list, "", daemon->problem);
    if (database_state(daemon->database) == DATABASE_DOWN)
        add_problem(list, "database: ", database_problem(daemon->database));
    if (daemon->worker.state == WORKER_DOWN)
        add_problem(list, "", "the worker is down and is being started again");
    return list;
}

static const char *database_word(const struct daemon *daemon)
{
    static const char *const words[] = {
        [DATABASE_CONNECTING] = "connecting", [DATABASE_READY] = "ok", [DATABASE_DOWN] = "down"};
    return words[database_state(daemon->database)];
}

static const char *state_word(const struct daemon *daemon)
{
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
    const char *epoch;
    uint64_t sequence;
    daemon->publisher->position(daemon->feed, &epoch, &sequence);
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
                        json_pack("{s:I,s:I,s:I,s:I,s:s}", "applied", (json_int_t)daemon->ingest.applied, "repeated",
                                  (json_int_t)daemon->ingest.repeated, "quarantined",
                                  (json_int_t)daemon->ingest.quarantined, "waiting", (json_int_t)daemon->ingest.waiting,
                                  "database_url", daemon->database_url));
    json_object_set_new(answer, "cycle",
                        json_pack("{s:I,s:s,s:f,s:f,s:I}", "number", (json_int_t)daemon->cycle.number, "step",
                                  cycle_step_name(daemon->cycle.step), "last_s", daemon->cycle.last_s, "scored_per_s",
                                  daemon->cycle.scored_per_s, "labels", (json_int_t)daemon->cycle.labels));
    json_object_set_new(answer, "feed",
                        json_pack("{s:s,s:I,s:s,s:s}", "epoch", epoch, "seq", (json_int_t)sequence, "publish",
                                  daemon->config.feed_publish, "snapshot", daemon->config.feed_snapshot));
    json_object_set_new(answer, "worker",
                        json_pack("{s:s,s:o,s:s,s:f,s:I}", "state", worker_state_name(daemon->worker.state), "pid",
                                  daemon->worker.pid > 0 ? json_integer(daemon->worker.pid) : json_null(), "job",
                                  daemon->worker.kind, "progress", daemon->worker.progress, "restarts",
                                  (json_int_t)daemon->worker.restarts));
    json_object_set_new(answer, "trunk", json_integer((json_int_t)daemon->pool.trunk));
    json_object_set_new(answer, "training", training_state(daemon));
    json_object_set_new(answer, "memory",
                        json_pack("{s:I,s:I}", "cycle_peak_bytes", (json_int_t)daemon->memory.peak_bytes,
                                  "cycle_limit_bytes", (json_int_t)daemon->memory.limit_bytes));
    json_object_set_new(answer, "problems", problems(daemon));
    control_answer(daemon->control, client, answer);
}

/* --- the queue and its galaxies ----------------------------------------------------------------------------------- */

static void verb_queue(struct daemon *daemon, control_client client, const json_t *request)
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
                   json_pack("{s:b,s:s,s:I,s:I,s:I,s:o}", "ok", 1, "epoch", epoch, "seq", (json_int_t)sequence,
                             "length", (json_int_t)daemon->queue.count, "model", (json_int_t)daemon->cycle.champion,
                             "entries", entries));
}

static uint64_t requested_galaxy(struct daemon *daemon, control_client client, const json_t *request)
{
    const char *id_str = json_string_value(json_object_get(request, "id"));
    uint64_t key = id_str ? daemon_find_galaxy(daemon, id_str) : 0;
    if (!key)
        control_refuse(daemon->control, client, PROTO_EXIT_NOT_FOUND, "no galaxy has the id '%.63s'",
                       id_str ? id_str : "");
    return key;
}

static json_t *question_parts(const struct daemon *daemon, uint64_t row)
{
    const struct schema *schema = &daemon->schema;
    const float *fraction = pool_detail(&daemon->pool, row) + 2; /* the layout of model/information.h */
    const float *total = fraction + schema->answers, *expected = total + schema->questions;
    float reached[SCHEMA_QUESTIONS_MAX];
    schema_reached(schema, fraction, reached);
    json_t *list = json_array();
    for (int q = 0; q < schema->questions; q++) {
        json_t *answers = json_object(), *votes = json_object();
        for (int a = schema->question[q].first; a < schema->question[q].first + schema->question[q].count; a++) {
            json_object_set_new(answers, schema->answer[a].name, json_real((double)fraction[a]));
            json_object_set_new(votes, schema->answer[a].name, json_integer(pool_tally(&daemon->pool, row)[a]));
        }
        json_array_append_new(list, json_pack("{s:s,s:f,s:f,s:f,s:f,s:o,s:o}", "name", schema->question[q].name,
                                              "asked", (double)reached[q], "information",
                                              (double)(total[q] - expected[q]), "total", (double)total[q], "expected",
                                              (double)expected[q], "answers", answers, "votes", votes));
    }
    return list;
}

static json_t *rank_in_words(const struct daemon *daemon, uint64_t key)
{
    const struct pool_state *state = pool_state(&daemon->pool, key - 1);
    const struct queue_entry *entry = queue_find(&daemon->queue, key);
    if (entry)
        return json_sprintf("rank %u of %zu in the queue, %s stream, inclusion probability %.6g", entry->rank,
                            daemon->queue.count, stream_name((enum stream)entry->stream), entry->probability);
    if (state->flags & POOL_BAD)
        return json_string("not offered: its image cannot be read (triagectl galaxies --bad)");
    if (state->flags & POOL_EXCLUDED)
        return json_string("not offered: excluded by an operator");
    if (state->flags & POOL_RETIRED)
        return json_sprintf("not offered: retired with %u classifications", state->root_votes);
    if (state->split == SPLIT_VALIDATION || state->split == SPLIT_GATE)
        return json_string("waiting: a hold-out galaxy, offered only by random draw");
    return json_string("waiting: others promise more information");
}

static void verb_why(struct daemon *daemon, control_client client, const json_t *request)
{
    static const char *const splits[] = {"train", "validation", "gate", "test"};
    uint64_t key = requested_galaxy(daemon, client, request);
    if (!key)
        return;
    const struct pool_score *score = pool_score(&daemon->pool, key - 1);
    const struct pool_state *state = pool_state(&daemon->pool, key - 1);
    json_t *answer = json_pack(
        "{s:b,s:s,s:I,s:o,s:s,s:i,s:b,s:f,s:f,s:f,s:i}", "ok", 1, "id", pool_identity(&daemon->pool, key - 1)->id_str,
        "key", (json_int_t)key, "words", rank_in_words(daemon, key), "split", splits[state->split & 3], "root_votes",
        (int)state->root_votes, "pinned", (state->flags & POOL_PINNED) != 0, "score", (double)score_round(score->score),
        "total", (double)score->total, "expected", (double)score->expected, "model", (int)score->model);
    if (score->model)
        json_object_set_new(answer, "questions", question_parts(daemon, key - 1));
    control_answer(daemon->control, client, answer);
}

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
    struct waiting waiting;
    const struct marking *marking;
    uint64_t key;
};

static void on_marked(void *context, int code, const struct database_result *result)
{
    struct marking_request *request = context;
    struct daemon *daemon = request->waiting.daemon;
    (void)result;
    if (code)
        refuse_with_message(daemon, request->waiting.client);
    else {
        daemon_set_flag(daemon, request->key, request->marking->flag, request->marking->on);
        if (request->marking->flag == POOL_EXCLUDED && request->marking->on)
            daemon_retract(daemon, request->key, "excluded");
        daemon->cycle.wanted = true;
        control_done(daemon->control, request->waiting.client, "%s: done; the queue follows with the next cycle",
                     request->marking->verb);
    }
    free(request);
}

static void mark(struct daemon *daemon, control_client client, const json_t *request, const struct marking *marking)
{
    uint64_t key = requested_galaxy(daemon, client, request);
    if (!key)
        return;
    struct marking_request *pending = malloc(sizeof *pending);
    if (!pending) {
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "out of memory");
        return;
    }
    *pending = (struct marking_request){
        {daemon, client},
        marking, key
    };
    if (galaxies_send_mark(daemon->database, key, marking->column, marking->on, on_marked, pending)) {
        refuse_with_message(daemon, client);
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

static void on_bad_list(void *context, int code, const struct database_result *result)
{
    struct waiting *waiting = context;
    struct daemon *daemon = waiting->daemon;
    if (code)
        refuse_with_message(daemon, waiting->client);
    else {
        json_t *list = json_array();
        for (int row = 0; row < database_rows(result); row++)
            json_array_append_new(list,
                                  json_pack("{s:s,s:s,s:s}", "id", database_value(result, row, 0), "file_loc",
                                            database_value(result, row, 1), "reason", database_value(result, row, 2)));
        control_answer(daemon->control, waiting->client,
                       json_pack("{s:b,s:I,s:o}", "ok", 1, "total", (json_int_t)daemon->embed.bad, "galaxies", list));
    }
    free(waiting);
}

static void on_bad_cleared(void *context, int code, const struct database_result *result)
{
    struct waiting *waiting = context;
    struct daemon *daemon = waiting->daemon;
    (void)result;
    if (code)
        refuse_with_message(daemon, waiting->client);
    else {
        control_done(daemon->control, waiting->client, "%llu images will be tried again",
                     (unsigned long long)daemon->embed.bad);
        sync_restart(daemon, true);
    }
    free(waiting);
}

static void verb_galaxies(struct daemon *daemon, control_client client, const json_t *request)
{
    struct waiting *waiting = wait_for(daemon, client);
    if (!waiting)
        return;
    int code = json_is_true(json_object_get(request, "retry"))
                   ? galaxies_send_retry_bad(daemon->database, on_bad_cleared, waiting)
                   : galaxies_send_bad_list(daemon->database, LIST_MAX, on_bad_list, waiting);
    if (code) {
        refuse_with_message(daemon, client);
        free(waiting);
    }
}

static void on_quarantine(void *context, int code, const struct database_result *result)
{
    struct waiting *waiting = context;
    struct daemon *daemon = waiting->daemon;
    if (code)
        refuse_with_message(daemon, waiting->client);
    else {
        json_t *list = json_array();
        for (int row = 0; row < database_rows(result); row++)
            json_array_append_new(list, json_pack("{s:s,s:I}", "reason", database_value(result, row, 0), "count",
                                                  (json_int_t)strtoll(database_value(result, row, 1), NULL, 10)));
        control_answer(daemon->control, waiting->client,
                       json_pack("{s:b,s:I,s:I,s:I,s:o}", "ok", 1, "applied", (json_int_t)daemon->ingest.applied,
                                 "repeated", (json_int_t)daemon->ingest.repeated, "quarantined",
                                 (json_int_t)daemon->ingest.quarantined, "quarantine", list));
    }
    free(waiting);
}

static void verb_votes(struct daemon *daemon, control_client client, const json_t *request)
{
    (void)request;
    struct waiting *waiting = wait_for(daemon, client);
    if (waiting && cycles_send_quarantine_list(daemon->database, LIST_MAX, on_quarantine, waiting)) {
        refuse_with_message(daemon, client);
        free(waiting);
    }
}

static void on_models(void *context, int code, const struct database_result *result)
{
    struct waiting *waiting = context;
    struct daemon *daemon = waiting->daemon;
    if (code)
        refuse_with_message(daemon, waiting->client);
    else {
        json_t *list = json_array();
        for (int row = 0; row < database_rows(result); row++) {
            long number = strtol(database_value(result, row, 0), NULL, 10);
            json_t *model = json_pack("{s:I,s:b,s:s}", "number", (json_int_t)number, "champion",
                                      number == (long)daemon->cycle.champion, "reason",
                                      database_value(result, row, 6) ? database_value(result, row, 6) : "");
            static const char *const columns[] = {"parent", "labels", "holdout_nll", "champion_nll", "constant_nll"};
            for (int i = 0; i < 5; i++) {
                const char *value = database_value(result, row, i + 1);
                double number_value = value ? strtod(value, NULL) : 0;
                json_object_set_new(model, columns[i],
                                    i < 2   ? json_integer((json_int_t)number_value)
                                    : value ? json_real(number_value)
                                            : json_null());
            }
            json_array_append_new(list, model);
        }
        control_answer(
            daemon->control, waiting->client,
            json_pack("{s:b,s:I,s:o}", "ok", 1, "champion", (json_int_t)daemon->cycle.champion, "models", list));
    }
    free(waiting);
}

static void verb_models(struct daemon *daemon, control_client client, const json_t *request)
{
    (void)request;
    struct waiting *waiting = wait_for(daemon, client);
    if (waiting && cycles_send_model_list(daemon->database, LIST_MAX, on_models, waiting)) {
        refuse_with_message(daemon, client);
        free(waiting);
    }
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
    if (models_trunk_of(&daemon->config, model, &trunk))
        return false;
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
    uint32_t target = rollback_target(daemon, request);
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
        refuse_with_message(daemon, client);
        return;
    }
    daemon->cycle.champion = target;
    daemon->cycle.rank_only = true;
    daemon->cycle.wanted = true;
    daemon->publisher->model_changed(daemon->feed, target, "rollback by an operator");
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
    return json_pack("{s:s,s:I,s:f,s:i,s:I,s:i,s:o,s:o}", "step", train_step_name(train->step), "trunk",
                     (json_int_t)train->trunk, "share", train->share, "epoch", train->epoch, "labels",
                     (json_int_t)train->labels, "stalled", train->stalled, "train_loss",
                     isfinite(train->train_loss) ? json_real(train->train_loss) : json_null(), "validation_loss",
                     isfinite(train->validation_loss) ? json_real(train->validation_loss) : json_null());
}

static void stop_training(struct daemon *daemon, control_client client)
{
    if (daemon->train.step == TRAIN_OFF) {
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "no trunk is being trained");
        return;
    }
    train_stop(daemon);
    control_done(daemon->control, client, "training is given up; trunk %u stays in use", daemon->pool.trunk);
}

static void verb_train(struct daemon *daemon, control_client client, const json_t *request)
{
    const char *what = json_string_value(json_object_get(request, "what"));
    if (what && strcmp(what, "status") == 0) {
        control_answer(daemon->control, client,
                       json_pack("{s:b,s:I,s:o}", "ok", 1, "trunk", (json_int_t)daemon->pool.trunk, "training",
                                 training_state(daemon)));
        return;
    }
    if (what && strcmp(what, "stop") == 0) {
        stop_training(daemon, client);
        return;
    }
    if (daemon->paused) {
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "paused: 'triagectl resume' first");
        return;
    }
    if (what && strcmp(what, "trunk") == 0) {
        daemon->train.wanted = daemon->train.step == TRAIN_OFF;
        control_done(daemon->control, client,
                     daemon->train.wanted ? "the trunk is trained as soon as the worker is free"
                                          : "the trunk is being trained already");
        return;
    }
    daemon->cycle.wanted = true;
    control_done(daemon->control, client, "a cycle starts as soon as the worker is free");
}

static void verb_reload(struct daemon *daemon, control_client client, const json_t *request)
{
    char text[ERROR_MESSAGE_BYTES];
    (void)request;
    if (daemon_reload(daemon, text, sizeof text))
        refuse_with_message(daemon, client);
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
        {"queue",    verb_queue   },
        {"why",      verb_why     },
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
        {"reload",   verb_reload  },
    };
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
        if (strcmp(handlers[i].name, verb) == 0)
            handlers[i].run(context, client, request);
}
