/*
 * The daemon on rows of the database and on requests, see fuzz.h: the real sync.c, verbs.c and their like, on a pool in
 * memory, with the database of targets_database.c.
 *
 * An input is a request (the name of a verb, a space, a JSON object), a newline, and the cells of every answer.
 */
#include "base/file.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/proto.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/small_schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUEUE_LIMIT   16
#define STEPS_OF_SYNC 12

/* A page of galaxies; the same cells serve every other statement. */
static const char cells[] = "1\0J1\0a.png\0000\0f\0t\0f\0f\0003\00012.5\0-3.25\0\1\0x\0y\0z\0w\0"
                            "2\0J2\0b.png\0001\0f\0f\0t\0t\00041\0\1\0\1\0\1\0x\0y\0z\0w";

static struct daemon daemon_state;
static char folder[] = "/dev/shm/triage-fuzz-XXXXXX";

static void remove_folder(void)
{
    char command[FILE_PATH_BYTES];
    control_close(daemon_state.control);
    pool_close(&daemon_state.pool);
    queue_free(&daemon_state.queue);
    publisher_record.close(daemon_state.feed);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    fuzz_require(system(command) == 0, "a folder that cannot be removed");
}

/* In place of daemon/log.c: a million executions are not for people to read. */
void log_line(enum log_level level, enum log_event event, const char *format, ...)
{
    static char line[4096];
    va_list arguments;
    (void)level, (void)event;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
}

struct daemon *fuzz_the_daemon(void)
{
    struct daemon *daemon = &daemon_state;
    struct pool_layout layout = {
        .answers = 5, .questions = 2, .embedding_inputs = 8, .pixel_side = 4, .pixel_channels = 1, .trunk_side = 4};
    char path[FILE_PATH_BYTES];
    if (daemon->publisher)
        return daemon;
    small_schema(&daemon->schema, 2, (int[]){3, 2}, (int[]){-1, 0});
    memcpy(layout.schema_hash, daemon->schema.hash, sizeof layout.schema_hash);
    fuzz_require(mkdtemp(folder) != NULL, "a folder");
    snprintf(path, sizeof path, "%s/pool", folder);
    snprintf(daemon->config.state, sizeof daemon->config.state, "%s", folder);
    snprintf(daemon->config.feed_security, sizeof daemon->config.feed_security, "plaintext");
    snprintf(daemon->config.feed_record, sizeof daemon->config.feed_record, "%s/record", folder);
    daemon->config.retire_votes = 40;
    daemon->config.embed_chunk = 100;
    struct publisher_options options = {
        .record_path = daemon->config.feed_record, .schema_hash = daemon->schema.hash, .queue_limit = QUEUE_LIMIT};
    fuzz_require(mkdir(path, 0700) == 0 && pool_open(path, &layout, POOL_READ_WRITE, &daemon->pool) == 0 &&
                     queue_new(QUEUE_LIMIT, &daemon->queue) == 0 &&
                     publisher_record.open(&options, &daemon->feed) == 0 &&
                     control_open(folder, verbs_handle, daemon, &daemon->control) == 0,
                 "a daemon");
    daemon->publisher = &publisher_record;
    atexit(remove_folder);
    return daemon;
}

static void check_pool(const struct daemon *daemon)
{
    fuzz_require(daemon->galaxies <= pool_rows(&daemon->pool), "galaxies beyond the pool");
    for (uint64_t row = 0; row < daemon->galaxies; row++)
        fuzz_require(memchr(pool_identity(&daemon->pool, row)->id_str, 0,
                            sizeof pool_identity(&daemon->pool, row)->id_str) != NULL,
                     "an id without an end");
}

/* Everything is read anew, each step on the same rows. */
static void fill_pool(struct daemon *daemon)
{
    daemon->galaxies = 0;
    daemon->sync = (struct sync){0};
    for (int i = 0; i < STEPS_OF_SYNC && daemon->sync.step != SYNC_DONE; i++) {
        daemon->galaxies_poll_ms = 0;
        sync_step(daemon);
        fuzz_give_answers();
    }
    daemon->galaxies_poll_ms = 0;
    sync_step(daemon);
    fuzz_give_answers();
    check_pool(daemon);
}

void fuzz_daemon_open(void)
{
    fuzz_answer_with((const uint8_t *)cells, sizeof cells);
    fill_pool(fuzz_the_daemon());
    fuzz_require(daemon_state.galaxies == 2 && daemon_state.sync.step == SYNC_DONE,
                 "the seed's galaxies are not taken");
}

static void ask(struct daemon *daemon, char *request)
{
    char *object = strchr(request, ' ');
    json_t *json = object ? json_loads(object, 0, NULL) : NULL;
    if (object)
        *object = 0;
    if (!json_is_object(json)) {
        json_decref(json);
        json = json_object();
    }
    json_object_set_new(json, "verb", json_string(request)); /* as control.c has found it */
    for (size_t i = 0; i < PROTO_VERB_COUNT; i++)
        if (strcmp(proto_verbs[i].name, request) == 0) {
            verbs_handle(daemon, 0, request, json);
            fuzz_give_answers();
        }
    json_decref(json);
}

void fuzz_daemon(const uint8_t *bytes, size_t length)
{
    static char request[FUZZ_BYTES_MAX + 1];
    struct daemon *daemon = fuzz_the_daemon();
    const uint8_t *end = length ? memchr(bytes, '\n', length) : NULL;
    if (!end)
        return;
    memcpy(request, bytes, (size_t)(end - bytes));
    request[end - bytes] = 0;
    if (fuzz_answer_with(end + 1, length - (size_t)(end + 1 - bytes)) == 0)
        return; /* most statements always have one row */
    fill_pool(daemon);
    ask(daemon, request);
    check_pool(daemon);
}

int fuzz_daemon_seed(int number, struct text *out)
{
    static const char *const requests[] = {
        "status {}",
        "why {\"id\":\"J1\"}",
        "galaxies {\"bad\":true}",
        "votes {\"what\":\"quarantine\"}",
        "models {}",
        "review {}",
        "pin {\"id\":\"J2\"}",
        "exclude {\"id\":\"J1\"}",
        "queue {\"top\":20}",
        "doctor {}",
        "ready {}",
        "metrics {}",
        "rollback {}",
        "diff {}",
    };
    if (number >= (int)(sizeof requests / sizeof *requests))
        return 0;
    text_append(out, "%s\n", requests[number]);
    text_append_bytes(out, cells, sizeof cells);
    return 1;
}
