/* See worker.h. A crash here costs the job in hand, never the service. */
#include "daemon/worker.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/text.h"
#include "cpu/backend_cpu.h"
#include "daemon/backend.h"
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
    int64_t now_ms = clock_patience_ms();
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

void worker_forget_row(struct worker *worker, uint64_t row, const char *what)
{
    char id_str[64];
    snprintf(id_str, sizeof id_str, "%s", pool_identity(&worker->pool, row)->id_str);
    text_make_printable(id_str);
    log_warning(
        EVENT_ROW_DAMAGED,
        "galaxy %s: its %s in the pool is not what was stored (wrong checksum); it is made again from the image",
        id_str, what);
    pool_forget_embeddings(&worker->pool, row);
    worker->damaged++;
}

bool worker_has_embedding(struct worker *worker, uint64_t row)
{
    if (*pool_embedding_version(&worker->pool, row) != worker->pool.trunk ||
        pool_state(&worker->pool, row)->flags & POOL_BAD)
        return false;
    if (pool_embedding_is_sound(&worker->pool, row))
        return true;
    worker_forget_row(worker, row, "embedding");
    return false;
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
        {"compare", worker_compare},
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
    FAULT(JOB_TAKEN);
    worker->job = (uint64_t)json_integer_value(json_object_get(job, "job"));
    worker->progress = 0;
    worker->told_ms = 0;
    arena_reset(&worker->batch);
    json_t *answer = json_object();
    int result = do_job(worker, job, answer);
    if (result == ERROR_UNAVAILABLE && worker->backend != &backend_cpu) { /* nothing on the device can be used again */
        log_error(EVENT_DEVICE_LOST, "the device is lost, this worker ends: %s", error_message());
        worker->lost = true;
        json_decref(answer);
        return;
    }
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
    json_object_set_new(answer, "damaged", json_integer(worker->damaged));
    worker->damaged = result ? worker->damaged : 0;
    FAULT(ANSWER_READY);
    if (send_json(worker, answer))
        log_error(EVENT_ANSWER_LOST, "an answer was lost: %s", error_message());
    FAULT(ANSWER_SENT);
}

/* What embeddings are computed in, or why they cannot be in what is configured: said before anything is computed. */
static int choose_precision(const struct worker *worker, const char **ret_name)
{
    static const char *const names[] = {
        [PRECISION_FP32] = "fp32", [PRECISION_BF16] = "bf16", [PRECISION_TF32] = "tf32"};
    enum precision wanted = config_precision(&worker->config);
    int precision = worker->backend->precision ? worker->backend->precision(wanted) : (int)wanted;
    if (precision >= 0)
        *ret_name = names[precision];
    return precision < 0 ? precision : 0;
}

/* The worker's devices, and the memory the trunk will take of each, before any is used. */
static int tell_devices(struct worker *worker, struct backend_device *ret_first)
{
    static struct backend_report report;
    struct net net;
    *ret_first = (struct backend_device){0};
    int result = setup_net(&worker->config, &net);
    if (result || !worker->backend->report)
        return result;
    result = worker->backend->report(&net, config_precision(&worker->config), (int)worker->config.devices, &report);
    if (!result && report.devices)
        *ret_first = report.device[0];
    for (int i = 0; !result && i < report.devices; i++) {
        const struct backend_device *device = &report.device[i];
        if (device->error[0])
            log_warning(EVENT_DEVICE, "%s: device %d: %s", report.versions, i, device->error);
        else
            log_info(EVENT_DEVICE,
                     "%s: device %d is %s, %zu of %zu MiB free; %s takes %zu MiB for %zu images at a time",
                     report.versions, i, device->name, device->free_bytes >> 20, device->memory_bytes >> 20, net.name,
                     device->plan_bytes >> 20, device->plan_images);
    }
    return result;
}

static void tell_need(const char *text)
{
    log_info(EVENT_DEVICE, "%s", text);
}

static int open_worker(struct worker *worker, const char *endpoint)
{
    struct chosen_backend chosen = {0};
    struct backend_device device = {0};
    const char *precision = NULL;
    int result = setup_schema(&worker->config, &worker->schema);
    if (!result)
        result = setup_pool(&worker->config, &worker->schema, POOL_WORKER, &worker->pool);
    if (!result)
        result = arena_init(&worker->batch, WORKER_BATCH_BYTES);
    if (!result)
        result = backend_choose(&worker->config, &chosen);
    worker->backend = chosen.backend ? chosen.backend : worker->backend;
    worker->context = chosen.context;
    if (worker->context && worker->backend->tell)
        worker->backend->tell(worker->context, tell_need);
    if (!result)
        result = choose_precision(worker, &precision);
    if (!result)
        result = tell_devices(worker, &device);
    if (!result)
        result = channel_connect(endpoint, &worker->channel);
    FAULT(WORKER_OPENED);
    if (!result)
        result = send_json(worker, json_pack("{s:i,s:s,s:s,s:s,s:i,s:I,s:I}", "hello", (int)getpid(), "backend",
                                             worker->backend->name, "precision", precision, "fallback", chosen.fallback,
                                             "threads", worker->backend->threads(worker->context), "gpu_bytes",
                                             (json_int_t)device.memory_bytes, "gpu_network_bytes",
                                             (json_int_t)device.plan_bytes));
    return result;
}

/* Says why it cannot start, and stays a moment for whoever started it to read that. */
static void tell_failure(struct worker *worker, const char *endpoint)
{
    char text[ERROR_MESSAGE_BYTES], answer[8];
    size_t length;
    snprintf(text, sizeof text, "%s", error_message());
    text_make_printable(text);
    if (!worker->channel && channel_connect(endpoint, &worker->channel))
        return;
    if (send_json(worker, json_pack("{s:i,s:s}", "failed", (int)getpid(), "message", text)) == 0)
        channel_receive(worker->channel, RECEIVE_MS, answer, sizeof answer, &length);
}

/* Until it is asked to stop, or the process that started it, whose number may well be 1, is gone. */
static void serve(struct worker *worker, pid_t parent)
{
    char *buffer = malloc(JOB_MESSAGE_BYTES_MAX);
    while (buffer && !stop_wanted && !worker->lost && getppid() == parent) {
        size_t length;
        int got = channel_receive(worker->channel, RECEIVE_MS, buffer, JOB_MESSAGE_BYTES_MAX, &length);
        if (got != 1)
            continue;
        json_error_t problem;
        json_t *job = json_loadb(buffer, length, 0, &problem);
        if (job)
            handle(worker, job);
        else { /* whoever gave it would wait for an answer: the next worker is given it again */
            log_error(EVENT_WORKER_MESSAGE, "a job cannot be read: %s; ending", problem.text);
            stop_wanted = 1;
        }
        json_decref(job);
    }
    free(buffer);
}

int run_worker(const struct config *config, const char *endpoint)
{
    static struct worker worker;
    log_open("worker", config_log_json(config));
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a killed daemon takes its worker along */
    pid_t parent = getppid();
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is an error to report, not a death */
    worker = (struct worker){.config = *config, .backend = &backend_cpu};
    int result = open_worker(&worker, endpoint);
    if (result) {
        log_error(EVENT_START_FAILED, "cannot start: %s", error_message());
        tell_failure(&worker, endpoint);
    } else
        serve(&worker, parent);
    channel_close(worker.channel);
    if (worker.lost) /* closing may wait for a dead device for ever (NCCL does); the kernel takes back what is held */
        _exit(EXIT_UNAVAILABLE);
    worker_close_depth(&worker);
    worker.backend->free_plan(worker.plan);
    worker.backend->close(worker.context);
    pool_close(&worker.pool);
    arena_free(&worker.batch);
    return exit_code(result);
}
