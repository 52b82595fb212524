/* `triaged run`: brings the parts up in order, turns the loop, takes them down in reverse. See daemon.h. */
#include "daemon/run.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/cycles.h"
#include "connectors/galaxies.h"
#include "connectors/migrate.h"
#include "daemon/daemon.h"
#include "daemon/exits.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/notify.h"
#include "daemon/setup.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define LOOP_WAIT_MS      100
#define WORKER_STOP_MS    2500
#define HEARTBEAT_MS      1000
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

void daemon_retract(struct daemon *daemon, uint64_t key, const char *reason)
{
    const struct queue_entry *entry = queue_find(&daemon->queue, key);
    if (!entry)
        return;
    struct retraction retraction = {.reason = reason};
    snprintf(retraction.id_str, sizeof retraction.id_str, "%s", entry->id_str);
    queue_remove(&daemon->queue, &daemon->pool, key);
    daemon->publisher->retract(daemon->feed, &retraction, 1);
    cycles_send_retract(daemon->database, key);
}

/* --- start ------------------------------------------------------------------------------------------------ */

static int open_state(struct daemon *daemon)
{
    int result = setup_schema(&daemon->config, &daemon->schema);
    if (!result)
        result = setup_folders(&daemon->config);
    if (!result)
        result = setup_lock(&daemon->config);
    if (!result)
        result = setup_pool(&daemon->config, &daemon->schema, POOL_READ_WRITE, &daemon->pool);
    if (!result)
        result = arena_init(&daemon->memory, CYCLE_MEMORY_BYTES);
    if (!result)
        result = models_champion(&daemon->config, &daemon->cycle.champion);
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
    result = migrate_run(database);
    if (!result)
        result = galaxies_register(database, &daemon->schema);
    if (!result)
        result = restore(daemon, database);
    database_close(database);
    return result ? result : database_start(daemon->database_url, &daemon->database);
}

static int open_sockets(struct daemon *daemon)
{
    const struct config *config = &daemon->config;
    daemon->publisher = config->feed_record[0] ? &publisher_record : &publisher_zmq;
    struct publisher_options options = {.publish_endpoint = config->feed_publish,
                                        .snapshot_endpoint = config->feed_snapshot,
                                        .record_path = config->feed_record,
                                        .schema_hash = daemon->schema.hash,
                                        .queue_limit = SELECT_SLOTS_MAX};
    int result = daemon->publisher->open(&options, &daemon->feed);
    if (result)
        error_prefix(result, "the feed (feed.publish, feed.snapshot): ");
    if (!result)
        result = control_open(config->run, verbs_handle, daemon, &daemon->control);
    if (!result)
        result = worker_link_open(config, &daemon->worker);
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
    daemon->publisher->publish(daemon->feed, daemon->cycle.number, daemon->cycle.champion, daemon->queue.entries,
                               daemon->queue.count);
    daemon->ingest.waiting = daemon->ingest.applied > 0; /* votes may have come after the last ranking */
    daemon->ingest.waiting_since_ms = clock_ms();
}

static void become_ready(struct daemon *daemon)
{
    if (daemon->ready || daemon->sync.step != SYNC_DONE || daemon->worker.state < WORKER_IDLE)
        return;
    republish(daemon);
    daemon->ready = true;
    notify_send("READY=1\nSTATUS=serving %llu galaxies", (unsigned long long)daemon->galaxies);
    log_info("ready: instance %s, %llu galaxies, model %u, feed %s", daemon->config.name,
             (unsigned long long)daemon->galaxies, daemon->cycle.champion, daemon->config.feed_publish);
}

/* --- the loop --------------------------------------------------------------------------------------------- */

int daemon_reload(struct daemon *daemon, char *text, int size)
{
    struct config next;
    char restart[512];
    int result = config_read(daemon->config.file[0] ? daemon->config.file : NULL, &next);
    if (result)
        return error_prefix(result, "the configuration in force stays: ");
    notify_reloading();
    config_reload(&daemon->config, &next, restart, sizeof restart);
    worker_link_restart(&daemon->worker);
    snprintf(text, (size_t)size, restart[0] ? "reloaded; needs a restart to take effect: %s" : "reloaded%s", restart);
    log_info("%s", text);
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
            log_error("%s", error_message());
    } else if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) {
        if (daemon->stopping)
            _exit(EXIT_INTERNAL); /* asked twice: at once */
        daemon->stopping = true;
    }
}

/* The private database is ours to keep alive: an operator who kills it, or the kernel, must not stop the service. */
static void keep_postgres(struct daemon *daemon)
{
    int64_t now_ms = clock_ms();
    if (!daemon->owns_postgres || now_ms - daemon->postgres_checked_ms < POSTGRES_CHECK_MS)
        return;
    daemon->postgres_checked_ms = now_ms;
    int code = private_postgres_revive(&daemon->postgres);
    if (code)
        log_warning("the private database had ended; %s", code > 0 ? "starting it again" : error_message());
}

/* Votes and the feed come first, so that a cycle or a page of images never makes them wait. */
static void step_all(struct daemon *daemon)
{
    keep_postgres(daemon);
    database_step(daemon->database);
    worker_link_step(&daemon->worker);
    sync_step(daemon);
    become_ready(daemon);
    if (daemon->ready) { /* before that the feed would show an empty queue */
        daemon->publisher->serve(daemon->feed);
        ingest_step(daemon);
        cycle_step(daemon);
        embed_step(daemon);
        train_step(daemon);
    }
    int64_t now_ms = clock_ms();
    if (now_ms - daemon->heartbeat_ms >= HEARTBEAT_MS) {
        daemon->heartbeat_ms = now_ms;
        if (daemon->ready)
            daemon->publisher->heartbeat(daemon->feed);
    }
}

/* The watchdog is fed only while every part is alive: this loop, the feed's heartbeat, and a worker that is either
 * working within its deadline or being started again by us. */
static void feed_watchdog(const struct daemon *daemon, int64_t interval_ms, int64_t *fed_ms)
{
    int64_t now_ms = clock_ms();
    bool feed_ticks = now_ms - daemon->heartbeat_ms < 5 * HEARTBEAT_MS;
    bool worker_ticks = daemon->worker.state == WORKER_IDLE || daemon->worker.state == WORKER_DOWN ||
                        now_ms - daemon->worker.heard_ms < (daemon->config.job_timeout_s + 60) * 1000;
    if (!interval_ms || now_ms - *fed_ms < interval_ms || !feed_ticks || !worker_ticks)
        return;
    *fed_ms = now_ms;
    notify_send("WATCHDOG=1\nSTATUS=%llu galaxies, model %u, cycle %llu, %ld votes, database %s",
                (unsigned long long)daemon->galaxies, daemon->cycle.champion, (unsigned long long)daemon->cycle.number,
                daemon->ingest.applied, database_state(daemon->database) == DATABASE_READY ? "ok" : "down");
}

static void turn_loop(struct daemon *daemon, int signals)
{
    struct pollfd set[CONTROL_POLL_MAX + 4];
    int64_t watchdog_ms = notify_watchdog_ms(), fed_ms = 0;
    while (!daemon->stopping) {
        step_all(daemon);
        feed_watchdog(daemon, watchdog_ms, &fed_ms);
        int count = 0;
        set[count++] = (struct pollfd){.fd = signals, .events = POLLIN};
        set[count++] = (struct pollfd){.fd = worker_link_descriptor(&daemon->worker), .events = POLLIN};
        set[count++] = (struct pollfd){.fd = daemon->publisher->descriptor(daemon->feed), .events = POLLIN};
        set[count++] = (struct pollfd){.fd = database_descriptor(daemon->database),
                                       .events = database_poll_events(daemon->database)};
        int controls = control_poll(daemon->control, set + count);
        if (poll(set, (nfds_t)(count + controls), LOOP_WAIT_MS) < 0 && errno != EINTR)
            log_warning("poll: %s", strerror(errno));
        if (set[0].revents & POLLIN)
            take_signal(daemon, signals);
        control_step(daemon->control, set + count, controls);
    }
}

/* --- stop ------------------------------------------------------------------------------------------------- */

static void stop(struct daemon *daemon)
{
    notify_send("STOPPING=1");
    log_info("stopping");
    control_close(daemon->control);
    if (daemon->worker.channel)
        worker_link_close(&daemon->worker, WORKER_STOP_MS);
    if (daemon->feed)
        daemon->publisher->close(daemon->feed);
    database_close(daemon->database);
    if (daemon->owns_postgres && private_postgres_stop(&daemon->postgres))
        log_error("%s", error_message());
    queue_free(&daemon->queue);
    pool_close(&daemon->pool);
    arena_free(&daemon->memory);
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
    log_open("triaged");
    daemon = (struct daemon){.config = *config};
    int signals = block_signals();
    int result = start(&daemon);
    if (result == ERROR_CANCELLED)
        log_info("%s", error_message());
    else if (result)
        log_error("cannot start: %s", error_message());
    else
        turn_loop(&daemon, signals);
    stop(&daemon);
    close(signals);
    return exit_code(result == ERROR_CANCELLED ? 0 : result);
}
