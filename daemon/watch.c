/* See watch.h. */
#include "daemon/watch.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/cycles.h"
#include "daemon/accept.h"
#include "daemon/daemon.h"
#include "daemon/jobs.h"
#include "daemon/log.h"
#include "daemon/models.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LOOK_EVERY_MS 1000
#define CLOCK_SET_MS  2000 /* more than a time service turns it while it runs */
#define DISK_LOW      (64 << 20)

/* --- how the run before ended ------------------------------------------------------------------------------------ */

static int running_path(const struct daemon *daemon, char *path, size_t size)
{
    return file_path(path, size, "%s/running", daemon->config.state);
}

int watch_start(struct daemon *daemon)
{
    char path[FILE_PATH_BYTES], text[80], *before;
    size_t length;
    int result = running_path(daemon, path, sizeof path);
    if (!result && file_read(path, sizeof text, &before, &length) == 0) {
        char *end;
        long pid = strtol(before, &end, 10);
        int64_t since_s = strtoll(end, NULL, 10);
        incident_note(&daemon->incidents, INCIDENT_KILLED, "process %ld, started %" PRId64 " s ago", pid,
                      clock_unix_ms() / 1000 - since_s);
        log_warning(EVENT_RUN_KILLED, "the run before (process %ld) did not end by itself", pid);
        free(before);
    }
    int count = snprintf(text, sizeof text, "%d %" PRId64 "\n", (int)getpid(), clock_unix_ms() / 1000);
    daemon->watch.clock_ms = clock_unix_ms() - clock_boot_ms();
    return result ? result : file_write(path, &(struct file_part){text, (size_t)count}, 1, 0644);
}

void watch_stop(const struct daemon *daemon)
{
    char path[FILE_PATH_BYTES];
    if (!running_path(daemon, path, sizeof path))
        unlink(path);
}

/* --- parts --------------------------------------------------------------------------------------------------------- */

static void look_at_worker(struct daemon *daemon)
{
    const struct worker_link *worker = &daemon->worker;
    if (worker->restarts > daemon->watch.restarts && worker->problem[0])
        incident_begin(&daemon->incidents, INCIDENT_START, "%s", worker->problem);
    else if (worker->restarts > daemon->watch.restarts && worker->failures) {
        incident_end(&daemon->incidents, INCIDENT_WORKER);
        incident_begin(&daemon->incidents, INCIDENT_WORKER, "%s", worker->ended);
    }
    daemon->watch.restarts = worker->restarts;
    if (worker->state >= WORKER_IDLE) {
        incident_end(&daemon->incidents, INCIDENT_WORKER);
        incident_end(&daemon->incidents, INCIDENT_START);
    }
}

static void look_at_database(struct daemon *daemon)
{
    if (database_state(daemon->database) == DATABASE_READY) {
        incident_end(&daemon->incidents, INCIDENT_DATABASE);
        daemon->watch.database_seen = true;
    } else if (daemon->watch.database_seen && database_problem(daemon->database)[0])
        incident_begin(&daemon->incidents, INCIDENT_DATABASE, "%s", database_problem(daemon->database));
}

/* The leases of what is on offer are moments of the wall clock: they move with it, so that they last as long as they were given
 * for. Sleep of the machine is no setting. */
static void look_at_clock(struct daemon *daemon)
{
    int64_t now_ms = clock_unix_ms() - clock_boot_ms(), set_ms = now_ms - daemon->watch.clock_ms;
    daemon->watch.clock_ms = now_ms;
    if (llabs(set_ms) < CLOCK_SET_MS)
        return;
    incident_note(&daemon->incidents, INCIDENT_CLOCK, "set %s by %.1f s", set_ms > 0 ? "forward" : "back",
                  (double)llabs(set_ms) / 1000);
    log_warning(EVENT_CLOCK_SET, "the clock was set %s by %.1f s; leases move with it", set_ms > 0 ? "forward" : "back",
                (double)llabs(set_ms) / 1000);
    for (size_t i = 0; i < daemon->queue.count; i++)
        daemon->queue.entries[i].leased_until_ms += set_ms;
    daemon->cycle.wanted = true; /* subscribers get the new moments */
}

static void look_at_disk(struct daemon *daemon)
{
    static const char *const folders[] = {"", "/models", "/pool"};
    char path[FILE_PATH_BYTES];
    bool low = false;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        struct statvfs info;
        if (file_path(path, sizeof path, "%s%s", daemon->config.state, folders[i]) || statvfs(path, &info))
            continue;
        uint64_t left = (uint64_t)info.f_bavail * info.f_frsize, all = (uint64_t)info.f_blocks * info.f_frsize;
        if (left < DISK_LOW && left < all / 20) {
            low = true;
            incident_begin(&daemon->incidents, INCIDENT_DISK, "%s has %.1f MiB left of %.0f", path,
                           (double)left / (1 << 20), (double)all / (1 << 20));
        }
    }
    if (!low)
        incident_end(&daemon->incidents, INCIDENT_DISK);
}

static void look_at_descriptors(struct daemon *daemon)
{
    int descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC);
    long turned_away = accept_turned_away();
    if (descriptor >= 0) {
        close(descriptor);
        incident_end(&daemon->incidents, INCIDENT_DESCRIPTORS);
        if (turned_away > daemon->watch.turned_away) /* between two looks */
            incident_note(&daemon->incidents, INCIDENT_DESCRIPTORS, "%ld clients turned away in all", turned_away);
        daemon->watch.turned_away = turned_away;
    } else if (errno == EMFILE || errno == ENFILE)
        incident_begin(&daemon->incidents, INCIDENT_DESCRIPTORS,
                       "limit of the %s reached, %ld clients turned away in all",
                       errno == EMFILE ? "process" : "machine", turned_away);
}

static void look_at_memory(struct daemon *daemon)
{
    long failures = error_memory_failures();
    if (failures > daemon->watch.memory_failures)
        incident_note(&daemon->incidents, INCIDENT_MEMORY, "%ld allocations in all", failures);
    daemon->watch.memory_failures = failures;
}

void watch_step(struct daemon *daemon)
{
    int64_t now_ms = clock_ms();
    look_at_worker(daemon);
    look_at_database(daemon);
    look_at_clock(daemon);
    look_at_memory(daemon);
    if (now_ms - daemon->watch.looked_ms < LOOK_EVERY_MS)
        return;
    daemon->watch.looked_ms = now_ms;
    look_at_disk(daemon);
    look_at_descriptors(daemon);
}

/* --- the champion -------------------------------------------------------------------------------------------------- */

int watch_champion(struct daemon *daemon)
{
    uint32_t named = daemon->cycle.champion, serving = 0, trunk = TRUNK_FIRST;
    char words[256];
    int result = models_sound_champion(&daemon->config, &daemon->schema, &serving, words, sizeof words);
    if (!result && serving)
        result = models_trunk_of(&daemon->config, &daemon->schema, serving, &trunk);
    if (!result)
        daemon->cycle.champion = serving;
    if (result || !words[0])
        return result;
    log_error(EVENT_CHAMPION_DAMAGED, "%s; model %u is the champion", words, serving);
    incident_note(&daemon->incidents, INCIDENT_MODEL, "%s", words);
    if (!named || !daemon->database) /* at the start: the rest follows */
        return 0;
    if (daemon->pool.trunk != trunk) {
        pool_use_trunk(&daemon->pool, trunk);
        embed_again(daemon);
    }
    daemon->cycle.wanted = true; /* votes that the damaged one learnt from are learnt again */
    feed_note(daemon, daemon->publisher->model_changed(daemon->feed, serving, "the champion before is damaged"));
    cycles_send_champion(daemon->database, serving, words);
    return 0;
}
