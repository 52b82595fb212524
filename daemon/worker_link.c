/* See worker_link.h. */
#include "daemon/worker_link.h"
#include "base/clock.h"
#include "base/error.h"
#include "connectors/channel.h"
#include "daemon/jobs.h"
#include "daemon/log.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS  60000
#define END_TIMEOUT_MS    10000
#define RESTART_DELAY_MS  200
#define RESTART_DELAY_MAX 10000
#define MESSAGES_PER_STEP 64

extern char **environ;

const char *worker_state_name(enum worker_state state)
{
    static const char *const names[] = {"down", "starting", "idle", "busy", "ending"};
    return names[state];
}

int worker_link_open(const struct config *config, struct worker_link *link)
{
    *link = (struct worker_link){.config = config, .pid = -1};
    link->buffer = malloc(JOB_MESSAGE_BYTES_MAX);
    if (!link->buffer)
        return error_set(ERROR_SYSTEM, "out of memory for the worker's messages");
    if (snprintf(link->endpoint, sizeof link->endpoint, "ipc://%s/worker.sock", config->run) >=
        (int)sizeof link->endpoint)
        return error_set(ERROR_LIMIT, "instance.run is too long for a socket: %s", config->run);
    return channel_bind(link->endpoint, &link->channel);
}

/*
 * The configuration in force, as a file of its own: the one it was read from may have changed since, be wrong, or ask for
 * what needs a restart. In memory, so that a full disk stops no worker. Returns its descriptor.
 */
static int configuration_file(const struct config *config)
{
    int descriptor = memfd_create("triaged.conf", MFD_CLOEXEC), copy = descriptor < 0 ? -1 : dup(descriptor);
    FILE *out = copy < 0 ? NULL : fdopen(copy, "w");
    if (out)
        config_print(config, out);
    if (out && fclose(out) == 0)
        return descriptor;
    int result = error_set_errno("cannot hand over the configuration");
    if (!out && copy >= 0)
        close(copy);
    if (descriptor >= 0)
        close(descriptor);
    return result;
}

/* The same program in its worker role. Signals start unblocked and at their defaults. Returns 0 or a code of errno. */
static int spawn(struct worker_link *link, int configuration)
{
    sigset_t none, all;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    char *arguments[] = {"triaged", "worker", "--endpoint", link->endpoint, "--config", "/proc/self/fd/3", NULL};
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, configuration, 3);
    int problem = posix_spawn(&link->pid, "/proc/self/exe", &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return problem;
}

static void start(struct worker_link *link)
{
    int configuration = configuration_file(link->config);
    int problem = configuration < 0 ? 0 : spawn(link, configuration);
    if (configuration >= 0)
        close(configuration);
    if (configuration < 0 || problem) {
        log_error(EVENT_WORKER_NOT_STARTED, "cannot start the worker: %s",
                  problem ? strerror(problem) : error_message());
        link->pid = -1;
        link->start_at_ms = clock_patience_ms() + RESTART_DELAY_MAX;
        return;
    }
    link->killed = false;
    link->state = WORKER_STARTING;
    link->heard_ms = clock_patience_ms();
}

static void finish_job(struct worker_link *link, int code, const json_t *answer)
{
    worker_done *done = link->done;
    link->done = NULL;
    link->progress = 0;
    if (done)
        done(link->context, code, answer);
}

static void on_death(struct worker_link *link, int status)
{
    bool asked = link->state == WORKER_ENDING;
    int delay_ms = asked ? 0 : RESTART_DELAY_MS << (link->failures < 6 ? link->failures : 6);
    link->pid = -1;
    link->state = WORKER_DOWN;
    link->failures += !asked;
    link->restarts++;
    link->start_at_ms = clock_patience_ms() + (delay_ms < RESTART_DELAY_MAX ? delay_ms : RESTART_DELAY_MAX);
    snprintf(link->ended, sizeof link->ended, "%s %d%s%s", WIFSIGNALED(status) ? "signal" : "status",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), link->done ? " during " : "",
             link->done ? link->kind : "");
    if (!asked)
        log_warning(EVENT_WORKER_ENDED, "the worker ended (%s); starting it again", link->ended);
    if (link->done)
        finish_job(link, error_set(ERROR_UNAVAILABLE, "the worker ended during %s", link->kind), NULL);
}

void worker_link_close(struct worker_link *link, int limit_ms)
{
    link->done = NULL;
    if (link->pid > 0) {
        int64_t deadline_ms = clock_patience_ms() + limit_ms;
        int status;
        kill(link->pid, SIGTERM);
        while (waitpid(link->pid, &status, WNOHANG) == 0) {
            if (clock_patience_ms() > deadline_ms)
                kill(link->pid, SIGKILL);
            poll(NULL, 0, 10);
        }
        link->pid = -1;
    }
    channel_close(link->channel);
    link->channel = NULL;
    free(link->buffer);
    link->buffer = NULL;
}

void worker_link_restart(struct worker_link *link)
{
    if (link->pid <= 0)
        return;
    kill(link->pid, SIGTERM);
    link->state = WORKER_ENDING;
    link->heard_ms = clock_patience_ms();
}

int worker_link_send(struct worker_link *link, const char *kind, json_t *message, worker_done *done, void *context)
{
    if (link->state != WORKER_IDLE) {
        json_decref(message);
        return error_set(ERROR_UNAVAILABLE, "the worker is %s", worker_state_name(link->state));
    }
    int complete = json_object_set_new(message, "job", json_integer((json_int_t)++link->job)) == 0 &&
                   json_object_set_new(message, "kind", json_string(kind)) == 0;
    /* not json_dumps(), which leaves a key out when it is refused memory for it */
    size_t length = complete ? json_dumpb(message, link->buffer, JOB_MESSAGE_BYTES_MAX, JSON_COMPACT) : 0;
    json_decref(message);
    int result = length == 0                      ? error_set(ERROR_SYSTEM, "out of memory for a job")
                 : length > JOB_MESSAGE_BYTES_MAX ? error_set(ERROR_LIMIT, "a job of %zu bytes is too long", length)
                                                  : channel_send(link->channel, link->buffer, length);
    if (result)
        return result;
    snprintf(link->kind, sizeof link->kind, "%s", kind);
    link->done = done;
    link->context = context;
    link->state = WORKER_BUSY;
    link->heard_ms = clock_patience_ms();
    return 0;
}

int worker_link_descriptor(const struct worker_link *link)
{
    return channel_descriptor(link->channel);
}

static void on_answer(struct worker_link *link, const json_t *message)
{
    if (link->state != WORKER_ENDING)
        link->state = WORKER_IDLE;
    link->failures = 0;
    if (json_is_true(json_object_get(message, "ok")))
        finish_job(link, 0, message);
    else {
        const char *text = json_string_value(json_object_get(message, "message"));
        int code = (int)json_integer_value(json_object_get(message, "code"));
        finish_job(link, error_set(code < 0 ? code : ERROR_SYSTEM, "%s", text ? text : "the worker gave no reason"),
                   NULL);
    }
}

static void on_message(struct worker_link *link, const json_t *message)
{
    const json_t *progress = json_object_get(message, "progress"), *failed = json_object_get(message, "failed");
    link->heard_ms = clock_patience_ms();
    if (failed && json_integer_value(failed) == link->pid) {
        const char *text = json_string_value(json_object_get(message, "message"));
        snprintf(link->problem, sizeof link->problem, "%s", text ? text : "");
        channel_send(link->channel, "{}", 2); /* read: it need not stay */
    } else if (json_object_get(message, "hello")) {
        if (link->state == WORKER_STARTING && json_integer_value(json_object_get(message, "hello")) == link->pid) {
            link->state = WORKER_IDLE;
            link->problem[0] = 0;
            const char *backend = json_string_value(json_object_get(message, "backend"));
            const char *fallback = json_string_value(json_object_get(message, "fallback"));
            const char *precision = json_string_value(json_object_get(message, "precision"));
            snprintf(link->backend, sizeof link->backend, "%s", backend ? backend : "");
            snprintf(link->precision, sizeof link->precision, "%s", precision ? precision : "");
            snprintf(link->fallback, sizeof link->fallback, "%s", fallback ? fallback : "");
            link->gpu_bytes = (uint64_t)json_integer_value(json_object_get(message, "gpu_bytes"));
            link->gpu_network_bytes = (uint64_t)json_integer_value(json_object_get(message, "gpu_network_bytes"));
            log_info(EVENT_WORKER_READY, "worker %d is ready: backend %s, trunk in %s, %d threads", (int)link->pid,
                     link->backend, link->precision, (int)json_integer_value(json_object_get(message, "threads")));
            if (link->fallback[0])
                log_warning(EVENT_FALLBACK, "the worker computes on the CPU, not on the GPU as configured: %s",
                            link->fallback);
        }
    } else if ((uint64_t)json_integer_value(json_object_get(message, "job")) != link->job || !link->done)
        return; /* an answer to a job that was given up */
    else if (progress)
        link->progress = json_number_value(progress);
    else
        on_answer(link, message);
}

/* Most likely we had no memory for it. The job is given again; should its answer come all the same, it has an old number. */
static void on_unreadable(struct worker_link *link, const char *problem)
{
    log_warning(EVENT_WORKER_MESSAGE, "a message of the worker cannot be read (%s)",
                problem[0] ? problem : "out of memory");
    if (link->state == WORKER_STARTING)
        worker_link_restart(link);
    if (link->state != WORKER_BUSY)
        return;
    link->state = WORKER_IDLE;
    finish_job(link,
               problem[0] ? error_set(ERROR_UNAVAILABLE, "an answer of the worker cannot be read: %s", problem)
                          : error_set(ERROR_UNAVAILABLE, "out of memory for an answer of the worker"),
               NULL);
}

static void enforce_timeout(struct worker_link *link)
{
    int64_t limit_ms = link->state == WORKER_STARTING ? START_TIMEOUT_MS
                       : link->state == WORKER_ENDING ? END_TIMEOUT_MS
                       : link->state == WORKER_BUSY   ? link->config->job_timeout_s * 1000
                                                      : INT64_MAX;
    if (link->pid > 0 && !link->killed && clock_patience_ms() - link->heard_ms > limit_ms) {
        log_error(EVENT_WORKER_SILENT, "the worker said nothing for %lld s while %s; killing it",
                  (long long)limit_ms / 1000, worker_state_name(link->state));
        kill(link->pid, SIGKILL);
        link->killed = true; /* once; should even that not end it, the watchdog is not fed any longer */
    }
}

void worker_link_step(struct worker_link *link)
{
    size_t length;
    for (int i = 0; i < MESSAGES_PER_STEP; i++) {
        if (channel_receive(link->channel, 0, link->buffer, JOB_MESSAGE_BYTES_MAX, &length) != 1)
            break;
        json_error_t problem;
        json_t *message = json_loadb(link->buffer, length, 0, &problem);
        if (message)
            on_message(link, message);
        else
            on_unreadable(link, problem.text);
        json_decref(message);
    }
    int status;
    if (link->pid > 0 && waitpid(link->pid, &status, WNOHANG) == link->pid)
        on_death(link, status);
    enforce_timeout(link);
    if (link->pid < 0 && clock_patience_ms() >= link->start_at_ms)
        start(link);
}
