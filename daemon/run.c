/* `triaged run`: brings the parts up in order, turns the loop, takes them down in reverse. See daemon.h. */
#include "daemon/run.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "connectors/cycles.h"
#include "connectors/galaxies.h"
#include "connectors/migrate.h"
#include "daemon/accept.h"
#include "daemon/daemon.h"
#include "daemon/exits.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/notify.h"
#include "daemon/setup.h"
#include "daemon/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define LOOP_WAIT_MS      100
#define WORKER_STOP_MS    2500
#define HEARTBEAT_MS      1000
#define LOST_MS           120000 /* a statement may take 30 s, and three more may wait before it */
#define POSTGRES_CHECK_MS 1000

/* --- helpers shared by the steps -------------------------------------------------------------------------- */

void daemon_set_flag(struct daemon *daemon, uint64_t key, int flag, bool on)
{
    struct pool_state *state = pool_state(&daemon->pool, key - 1);
    state->flags = (uint8_t)(on ? state->flags | flag : state->flags & ~flag);
}

uint64_t daemon_find_galaxy(const struct daemon *daemon, const char *id_str)
{
    for (uint64_t row = 0; row < daemon->galaxies; row++)
        if (strcmp(pool_identity(&daemon->pool, row)->id_str, id_str) == 0)
            return row + 1;
    return 0;
}

void daemon_note_damage(struct daemon *daemon, const json_t *answer)
{
    long damaged = (long)json_integer_value(json_object_get(answer, "damaged"));
    if (damaged <= 0)
        return;
    log_warning(EVENT_ROW_DAMAGED, "%ld rows of the pool were damaged and are embedded again", damaged);
    incident_note(&daemon->incidents, INCIDENT_ROWS, "%ld rows", damaged);
    embed_again(daemon);
}

static void on_retracted(void *context, int code, const struct database_result *result)
{
    (void)context;
    (void)result;
    if (code && code != ERROR_CANCELLED) /* not at the end of the run */
        log_warning(EVENT_QUEUE_NOT_RECORDED, "galaxies taken back stay in the database until the next ranking: %s",
                    error_message());
}

/* What is off the queue goes off the feed and out of the database, in portions that both take at once. */
static void take_back(struct daemon *daemon, const struct queue_entry *entries, size_t count, const char *reason)
{
    static struct retraction list[CYCLES_RETRACT_MAX];
    for (size_t i = 0; i < count; i++) {
        list[i].reason = reason;
        memcpy(list[i].id_str, entries[i].id_str, sizeof list[i].id_str);
    }
    feed_note(daemon, daemon->publisher->retract(daemon->feed, list, count));
    FAULT(GALAXY_RETRACTED);
    int code = cycles_send_retract(daemon->database, entries, count, on_retracted, daemon);
    if (code)
        on_retracted(daemon, code, NULL);
}

void daemon_retract(struct daemon *daemon, uint64_t key, const char *reason)
{
    const struct queue_entry *found = queue_find(&daemon->queue, key);
    if (!found)
        return;
    struct queue_entry entry = *found;
    queue_remove(&daemon->queue, &daemon->pool, key);
    take_back(daemon, &entry, 1, reason);
}

void daemon_retract_expired(struct daemon *daemon)
{
    static struct queue_entry taken[CYCLES_RETRACT_MAX];
    int64_t now_ms = clock_unix_ms();
    size_t count;
    while ((count = queue_take_expired(&daemon->queue, &daemon->pool, now_ms, taken, CYCLES_RETRACT_MAX)) > 0)
        take_back(daemon, taken, count, "lease_expired");
}

/* --- start ------------------------------------------------------------------------------------------------ */

static int open_state(struct daemon *daemon)
{
    struct score_rule rule;
    int result = setup_schema(&daemon->config, &daemon->schema);
    if (!result)
        result = config_score_rule(&daemon->config, &daemon->schema, &rule);
    if (!result)
        result = setup_folders(&daemon->config);
    if (!result)
        result = setup_lock(&daemon->config);
    FAULT(LOCK_TAKEN);
    if (!result) {
        daemon->is_owner = true;
        result = watch_start(daemon);
    }
    if (!result)
        result = setup_pool(&daemon->config, &daemon->schema, POOL_READ_WRITE, &daemon->pool);
    FAULT(POOL_OPENED);
    if (!result)
        result = arena_init(&daemon->memory, CYCLE_MEMORY_BYTES);
    if (!result)
        result = watch_champion(daemon);
    if (!result)
        result = queue_new(SELECT_SLOTS_MAX, &daemon->queue);
    return result;
}

/* Reads back what the last run left: model and cycle numbers, and the queue. */
static int restore(struct daemon *daemon, struct database *database)
{
    struct cycles_state state;
    int result = cycles_restore(database, &state, daemon->queue.entries, daemon->queue.capacity, &daemon->queue.count);
    if (result)
        return result;
    daemon->cycle.number = state.cycle;
    daemon->cycle.labels = (long)state.labels;
    daemon->cycle.model_number = state.model_number;
    result = models_highest(&daemon->config, &daemon->cycle.model_number);
    if (!result)
        result = choice_restore(daemon, database);
    return result ? result : train_restore(daemon);
}

static int open_database(struct daemon *daemon)
{
    struct database *database;
    int result = setup_database(&daemon->config, &daemon->owns_postgres, &daemon->postgres, daemon->database_url,
                                sizeof daemon->database_url);
    if (!result)
        result = setup_connect(daemon->database_url, (int)daemon->config.database_wait_s, &database);
    if (result)
        return result;
    FAULT(DATABASE_REACHED);
    result = migrate_run(database);
    FAULT(MIGRATED);
    if (!result)
        result = galaxies_register(database, &daemon->schema);
    if (!result)
        result = restore(daemon, database);
    FAULT(STATE_RESTORED);
    database_close(database);
    return result ? result : database_start(daemon->database_url, &daemon->database);
}

static int open_sockets(struct daemon *daemon)
{
    const struct config *config = &daemon->config;
    int result = feed_open(daemon);
    if (!result)
        result = control_open(config->run, verbs_handle, daemon, &daemon->control);
    if (!result)
        result = worker_link_open(config, &daemon->worker);
    if (!result && config->metrics_port)
        result = http_open((int)config->metrics_port, daemon_http, daemon, &daemon->http);
    FAULT(SOCKETS_BOUND);
    return result;
}

static int start(struct daemon *daemon)
{
    daemon->started_ms = clock_ms();
    int result = open_state(daemon);
    if (!result)
        result = open_database(daemon);
    if (!result)
        result = open_sockets(daemon);
    return result;
}

/* Entries of the last run are on offer again as soon as the pool knows their galaxies. */
static void republish(struct daemon *daemon)
{
    for (size_t i = 0; i < daemon->queue.count; i++) {
        struct queue_entry *entry = &daemon->queue.entries[i];
        snprintf(entry->id_str, sizeof entry->id_str, "%s", pool_identity(&daemon->pool, entry->key - 1)->id_str);
    }
    for (uint64_t row = 0; row < daemon->galaxies; row++)
        pool_state(&daemon->pool, row)->flags &= (uint8_t)~POOL_QUEUED;
    for (size_t i = daemon->queue.count; i-- > 0;) {
        uint64_t key = daemon->queue.entries[i].key;
        if (pool_state(&daemon->pool, key - 1)->flags & (POOL_RETIRED | POOL_EXCLUDED | POOL_BAD))
            queue_remove(&daemon->queue, &daemon->pool, key);
        else
            daemon_set_flag(daemon, key, POOL_QUEUED, true);
    }
    feed_note(daemon, daemon->publisher->publish(daemon->feed, daemon->cycle.number, daemon->cycle.champion,
                                                 daemon->queue.entries, daemon->queue.count));
    daemon->ingest.waiting = daemon->ingest.applied > 0; /* votes may have come after the last ranking */
    daemon->ingest.waiting_since_ms = clock_ms();
}

static void become_ready(struct daemon *daemon)
{
    if (daemon->ready || daemon->sync.step != SYNC_DONE || daemon->worker.state < WORKER_IDLE)
        return;
    republish(daemon);
    FAULT(QUEUE_OFFERED);
    daemon->ready = true;
    notify_send("READY=1\nSTATUS=serving %llu galaxies, computing on %s%s", (unsigned long long)daemon->galaxies,
                daemon->worker.backend, daemon->worker.fallback[0] ? " INSTEAD OF CUDA, see triagectl status" : "");
    log_info(EVENT_READY, "ready: instance %s, %llu galaxies, model %u, feed %s", daemon->config.name,
             (unsigned long long)daemon->galaxies, daemon->cycle.champion, daemon->config.feed_publish);
}

/* --- the loop --------------------------------------------------------------------------------------------- */

int daemon_reload(struct daemon *daemon, char *text, int size)
{
    struct config next;
    struct score_rule rule;
    char restart[512];
    int result = config_read(daemon->config.file[0] ? daemon->config.file : NULL, &next);
    if (!result)
        result = config_score_rule(&next, &daemon->schema, &rule);
    if (result)
        return error_prefix(result, "the configuration in force stays: ");
    result = daemon->publisher->reload_keys(daemon->feed);
    if (result)
        return error_prefix(result, "the configuration in force stays; ");
    if (daemon->ready) /* else the start goes on as it did */
        notify_reloading();
    bool resettle = next.retire_votes != daemon->config.retire_votes;
    config_reload(&daemon->config, &next, restart, sizeof restart);
    worker_link_restart(&daemon->worker);
    if (resettle)
        sync_restart(daemon);
    snprintf(text, (size_t)size, restart[0] ? "reloaded; needs a restart to take effect: %s" : "reloaded%s", restart);
    log_info(EVENT_RELOADED, "%s", text);
    if (daemon->ready)
        notify_send("READY=1");
    return 0;
}

static void take_signal(struct daemon *daemon, int descriptor)
{
    struct signalfd_siginfo info;
    char text[ERROR_MESSAGE_BYTES];
    if (read(descriptor, &info, sizeof info) != sizeof info)
        return;
    if (info.ssi_signo == SIGHUP) {
        if (daemon_reload(daemon, text, sizeof text))
            log_error(EVENT_RELOAD_FAILED, "%s", error_message());
    } else if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
        daemon->stopping = true;
}

/* From here on another SIGTERM or SIGINT ends the process at once: all that must last is on disk already. */
static void end_at_next_signal(int signals)
{
    struct signalfd_siginfo info;
    sigset_t mask;
    while (read(signals, &info, sizeof info) == sizeof info) /* the one that began the stop, if nobody read it */
        ;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigprocmask(SIG_UNBLOCK, &mask, NULL);
}

/* The private database is ours to keep alive: an operator who kills it, or the kernel, must not stop the service. */
static void keep_postgres(struct daemon *daemon)
{
    int64_t now_ms = clock_ms();
    if (!daemon->owns_postgres || now_ms - daemon->postgres_checked_ms < POSTGRES_CHECK_MS)
        return;
    daemon->postgres_checked_ms = now_ms;
    int code = private_postgres_revive(&daemon->postgres, database_state(daemon->database) == DATABASE_READY);
    if (code)
        log_warning(EVENT_DATABASE_RESTARTED, "the private database had ended; %s",
                    code > 0 ? "starting it again" : error_message());
}

/* systemd waits as long as we tell it that we are alive: counting many votes, or getting a GPU to work, may take longer than it would. */
static void extend_start(const struct daemon *daemon)
{
    const char *waits = daemon->sync.step == SYNC_PREPARE ? "counting the votes"
                        : daemon->sync.step != SYNC_DONE  ? "reading the database"
                        : daemon->worker.failures         ? "NOT SERVING: the worker does not start, the log says why"
                                                          : "waiting for the worker";
    notify_send("EXTEND_TIMEOUT_USEC=30000000\nSTATUS=%s", waits);
}

/* Votes and the feed come first, so that a cycle or a page of images never makes them wait. */
static void step_all(struct daemon *daemon)
{
    keep_postgres(daemon);
    database_step(daemon->database);
    worker_link_step(&daemon->worker);
    watch_step(daemon);
    sync_step(daemon);
    become_ready(daemon);
    if (daemon->ready) { /* before that the feed would show an empty queue */
        feed_note(daemon, daemon->publisher->serve(daemon->feed));
        ingest_step(daemon);
        cycle_step(daemon);
        embed_step(daemon);
        train_step(daemon);
    }
    int64_t now_ms = clock_ms();
    if (now_ms - daemon->heartbeat_ms >= HEARTBEAT_MS) {
        daemon->heartbeat_ms = now_ms;
        if (daemon->ready) {
            feed_tick(daemon);
        } else {
            daemon->feed_alive_ms = now_ms;
            extend_start(daemon);
        }
    }
}

/* Whether a page or batch has been with the database for far longer than its statements may take. */
static bool is_lost(bool in_flight, int64_t sent_ms, int64_t now_ms)
{
    return in_flight && now_ms - sent_ms > LOST_MS;
}

/* The watchdog is fed only while every part is alive: this loop, a feed whose heartbeats go out, a worker that says something,
 * sits idle or could be ended, and pages and batches that come back. A database that is away is no reason. */
static void feed_watchdog(const struct daemon *daemon, int64_t interval_ms, int64_t *fed_ms)
{
    int64_t now_ms = clock_ms();
    bool feed_ticks = now_ms - daemon->feed_alive_ms < 5 * HEARTBEAT_MS;
    bool database_ticks =
        !is_lost(daemon->ingest.in_flight, daemon->ingest.sent_ms, now_ms) &&
        (daemon->sync.step == SYNC_PREPARE || !is_lost(daemon->sync.in_flight, daemon->sync.sent_ms, now_ms));
    bool worker_ticks = daemon->worker.state == WORKER_IDLE || daemon->worker.state == WORKER_DOWN ||
                        clock_patience_ms() - daemon->worker.heard_ms < (daemon->config.job_timeout_s + 60) * 1000;
    if (!interval_ms || now_ms - *fed_ms < interval_ms || !feed_ticks || !worker_ticks || !database_ticks)
        return;
    *fed_ms = now_ms;
    if (!daemon->ready)
        notify_send("WATCHDOG=1"); /* what a start waits for, extend_start() says */
    else
        notify_send("WATCHDOG=1\nSTATUS=%llu galaxies, model %u, cycle %llu, %ld votes, database %s",
                    (unsigned long long)daemon->galaxies, daemon->cycle.champion,
                    (unsigned long long)daemon->cycle.number, daemon->ingest.applied,
                    database_state(daemon->database) == DATABASE_READY ? "ok" : "down");
}

static void turn_loop(struct daemon *daemon, int signals)
{
    struct pollfd set[CONTROL_POLL_MAX + HTTP_POLL_MAX + 4];
    int64_t watchdog_ms = notify_watchdog_ms(), fed_ms = 0;
    while (!daemon->stopping) {
        step_all(daemon);
        feed_watchdog(daemon, watchdog_ms, &fed_ms);
        int count = 0;
        set[count++] = (struct pollfd){.fd = signals, .events = POLLIN};
        set[count++] = (struct pollfd){.fd = worker_link_descriptor(&daemon->worker), .events = POLLIN};
        int feed = daemon->ready ? daemon->publisher->descriptor(daemon->feed) : -1; /* requests wait until then */
        set[count++] = (struct pollfd){.fd = feed, .events = POLLIN};
        set[count++] = (struct pollfd){.fd = database_descriptor(daemon->database),
                                       .events = database_poll_events(daemon->database)};
        int controls = control_poll(daemon->control, set + count);
        int pages = http_poll(daemon->http, set + count + controls);
        if (poll(set, (nfds_t)(count + controls + pages), clock_wait_ms(LOOP_WAIT_MS)) < 0 && errno != EINTR)
            log_warning(EVENT_POLL_FAILED, "poll: %s", strerror(errno));
        if (set[0].revents & POLLIN)
            take_signal(daemon, signals);
        control_step(daemon->control, set + count, controls);
        http_step(daemon->http, set + count + controls, pages);
    }
}

/* --- stop ------------------------------------------------------------------------------------------------- */

static void stop(struct daemon *daemon)
{
    notify_send("STOPPING=1");
    log_info(EVENT_STOPPING, "stopping");
    database_close(daemon->database); /* refuses what is being asked, so before the sockets */
    control_close(daemon->control);
    http_close(daemon->http);
    if (daemon->worker.channel)
        worker_link_close(&daemon->worker, WORKER_STOP_MS);
    if (daemon->feed)
        daemon->publisher->close(daemon->feed);
    if (daemon->owns_postgres && private_postgres_stop(&daemon->postgres))
        log_error(EVENT_DATABASE_NOT_STOPPED, "%s", error_message());
    if (daemon->is_owner)
        watch_stop(daemon);
    queue_free(&daemon->queue);
    pool_close(&daemon->pool);
    arena_free(&daemon->memory);
}

/* As many descriptors as we may have, every subscriber needs one; and one to turn those away who are too many. */
static int prepare_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    return accept_keep_spare();
}

static int block_signals(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
}

int run_daemon(const struct config *config)
{
    static struct daemon daemon;
    log_open("triaged", config_log_json(config));
    daemon = (struct daemon){.config = *config};
    int signals = block_signals();
    int result = prepare_descriptors();
    if (!result)
        result = start(&daemon);
    if (result == ERROR_CANCELLED)
        log_info(EVENT_START_CANCELLED, "%s", error_message());
    else if (result)
        log_error(EVENT_START_FAILED, "cannot start: %s", error_message());
    else
        turn_loop(&daemon, signals);
    end_at_next_signal(signals);
    stop(&daemon);
    close(signals);
    return exit_code(result == ERROR_CANCELLED ? 0 : result);
}
