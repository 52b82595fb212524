/* See worker.h. A crash here costs the job in hand, never the service. */
#include "daemon/worker.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "cpu/backend_cpu.h"
#include "daemon/exits.h"
#include "daemon/jobs.h"
#include "daemon/log.h"
#include "daemon/setup.h"
#include "daemon/worker_jobs.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define TICK_MS    500
#define RECEIVE_MS 1000

static volatile sig_atomic_t stop_wanted;

static void on_signal(int number)
{
    (void)number;
    stop_wanted = 1;
}

static int send_json(struct worker *worker, json_t *message)
{
    char *body = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    int result = body ? channel_send(worker->channel, body, strlen(body))
                      : error_set(ERROR_SYSTEM, "out of memory for an answer");
    free(body);
    return result;
}

int worker_tick(void *context)
{
    struct worker *worker = context;
    int64_t now_ms = clock_ms();
    if (now_ms - worker->told_ms >= TICK_MS) {
        worker->told_ms = now_ms;
        send_json(worker, json_pack("{s:I,s:f}", "job", (json_int_t)worker->job, "progress", worker->progress));
    }
    return stop_wanted;
}

uint32_t worker_take_trunk(struct worker *worker, const json_t *job)
{
    uint32_t trunk = (uint32_t)json_integer_value(json_object_get(job, "trunk"));
    pool_use_trunk(&worker->pool, trunk ? trunk : TRUNK_FIRST);
    return worker->pool.trunk;
}

static int do_job(struct worker *worker, const json_t *job, json_t *answer)
{
    static const struct {
        const char *kind;
        int (*run)(struct worker *worker, const json_t *job, json_t *answer);
    } kinds[] = {
        {"embed",   worker_embed  },
        {"fit",     worker_fit    },
        {"rank",    worker_rank   },
        {"train",   worker_train  },
        {"reembed", worker_reembed},
    };
    const char *kind = json_string_value(json_object_get(job, "kind"));
    int result = pool_refresh(&worker->pool);
    if (result)
        return result;
    for (size_t i = 0; kind && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].kind, kind) == 0)
            return kinds[i].run(worker, job, answer);
    return error_set(ERROR_INPUT, "unknown job '%.20s'", kind ? kind : "");
}

static void handle(struct worker *worker, const json_t *job)
{
    double started_s = clock_s();
    worker->job = (uint64_t)json_integer_value(json_object_get(job, "job"));
    worker->progress = 0;
    worker->told_ms = 0;
    arena_reset(&worker->batch);
    json_t *answer = json_object();
    int result = do_job(worker, job, answer);
    json_object_set_new(answer, "job", json_integer((json_int_t)worker->job));
    json_object_set_new(answer, "ok", json_boolean(result == 0));
    json_object_set_new(answer, "seconds", json_real(clock_s() - started_s));
    if (result) {
        char text[ERROR_MESSAGE_BYTES];
        snprintf(text, sizeof text, "%s", error_message());
        text_make_printable(text);
        json_object_set_new(answer, "code", json_integer(result));
        json_object_set_new(answer, "message", json_string(text));
    }
    if (send_json(worker, answer))
        log_error("an answer was lost: %s", error_message());
}

static int open_worker(struct worker *worker, const char *endpoint)
{
    int result = setup_schema(&worker->config, &worker->schema);
    if (!result)
        result = setup_pool(&worker->config, &worker->schema, POOL_WORKER, &worker->pool);
    if (!result)
        result = arena_init(&worker->batch, WORKER_BATCH_BYTES);
    if (!result)
        result = worker->backend->open((int)worker->config.threads, &worker->context);
    if (!result)
        result = channel_connect(endpoint, &worker->channel);
    if (!result)
        result = send_json(worker, json_pack("{s:i,s:s,s:i}", "hello", (int)getpid(), "backend", worker->backend->name,
                                             "threads", worker->backend->threads(worker->context)));
    return result;
}

static void serve(struct worker *worker)
{
    char *buffer = malloc(JOB_MESSAGE_BYTES_MAX);
    while (buffer && !stop_wanted && getppid() != 1) {
        size_t length;
        int got = channel_receive(worker->channel, RECEIVE_MS, buffer, JOB_MESSAGE_BYTES_MAX, &length);
        if (got != 1)
            continue;
        json_error_t problem;
        json_t *job = json_loadb(buffer, length, 0, &problem);
        if (job)
            handle(worker, job);
        json_decref(job);
    }
    free(buffer);
}

int run_worker(const struct config *config, const char *endpoint)
{
    static struct worker worker;
    log_open("worker");
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a killed daemon takes its worker along */
    signal(SIGXFSZ, SIG_IGN);         /* a file-size limit is an error to report, not a death */
    worker = (struct worker){.config = *config, .backend = &backend_cpu};
    int result = open_worker(&worker, endpoint);
    if (result)
        log_error("cannot start: %s", error_message());
    else
        serve(&worker);
    channel_close(worker.channel);
    worker.backend->free_plan(worker.plan);
    worker.backend->close(worker.context);
    pool_close(&worker.pool);
    arena_free(&worker.batch);
    return exit_code(result);
}
