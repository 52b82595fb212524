/*
 * The feed written to a file, for tests and audits: the bodies of the topic, each behind its length (4 bytes,
 * big-endian). A new run appends, with a new epoch. Heartbeats are left out, as a file loses nothing. The
 * file has a limit of 4 GiB; at the limit, as on a full disk, messages are refused and counted, never cut.
 */
#include "base/error.h"
#include "connectors/feed_log.h"
#include "connectors/publisher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define RECORD_BYTES_MAX ((off_t)4 << 30)
#define LENGTH_BYTES     4

struct publisher_state {
    struct feed_log *log;
    int file;
    off_t end;  /* whole records lie before this */
    int failed; /* code of the last record, 0 = it was written */
};

static int write_record(struct publisher_state *state, const void *body, size_t length)
{
    unsigned char prefix[LENGTH_BYTES] = {(unsigned char)(length >> 24), (unsigned char)(length >> 16),
                                          (unsigned char)(length >> 8), (unsigned char)length};
    struct iovec parts[2] = {
        {prefix,                  sizeof prefix},
        {(void *)(uintptr_t)body, length       }
    };
    off_t wanted = (off_t)(sizeof prefix + length);
    if (state->end + wanted > RECORD_BYTES_MAX)
        return error_set(ERROR_LIMIT, "the feed record is full: move the file away and start again");
    ssize_t written;
    do
        written = pwritev(state->file, parts, 2, state->end);
    while (written < 0 && errno == EINTR);
    if (written != wanted) {
        int result = written < 0 ? error_set_errno("cannot write the feed record")
                                 : error_set(ERROR_SYSTEM, "cannot write the feed record: the disk is full");
        if (ftruncate(state->file, state->end) < 0)
            error_prefix(result, "(and cannot cut the torn record off) ");
        return result;
    }
    state->end += wanted;
    return 0;
}

static int emit(void *context, const void *body, size_t length)
{
    struct publisher_state *state = context;
    state->failed = write_record(state, body, length);
    return state->failed;
}

/* Finds the end of the last whole record and cuts off what a crash left behind it. */
static int find_end(struct publisher_state *state, const char *path)
{
    struct stat info;
    unsigned char prefix[LENGTH_BYTES];
    if (fstat(state->file, &info) < 0)
        return error_set_errno("cannot look at %s", path);
    while (pread(state->file, prefix, sizeof prefix, state->end) == sizeof prefix) {
        uint32_t length = (uint32_t)prefix[0] << 24 | (uint32_t)prefix[1] << 16 | (uint32_t)prefix[2] << 8 | prefix[3];
        if (length == 0 || length > FEED_BODY_BYTES_MAX)
            return error_set(ERROR_INPUT, "%s is not a feed record: move it away, or name another file", path);
        if (state->end + LENGTH_BYTES + (off_t)length > info.st_size)
            break;
        state->end += LENGTH_BYTES + (off_t)length;
    }
    return ftruncate(state->file, state->end) < 0 ? error_set_errno("cannot repair %s", path) : 0;
}

static void record_close(struct publisher_state *state)
{
    if (!state)
        return;
    if (state->file >= 0)
        close(state->file);
    feed_log_close(state->log);
    free(state);
}

static int record_open(const struct publisher_options *options, struct publisher_state **ret_state)
{
    struct publisher_state *state = calloc(1, sizeof *state);
    if (!state)
        return error_set(ERROR_SYSTEM, "out of memory for the feed");
    state->file = open(options->record_path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    int result = state->file < 0 ? error_set_errno("cannot open %s", options->record_path)
                                 : find_end(state, options->record_path);
    if (!result)
        result = feed_log_open(options, emit, state, &state->log);
    if (result) {
        record_close(state);
        return result;
    }
    *ret_state = state;
    return 0;
}

static int record_publish(struct publisher_state *state, uint64_t cycle, uint32_t model,
                          const struct queue_entry *entries, size_t count)
{
    return feed_log_publish(state->log, cycle, model, entries, count);
}

static int record_retract(struct publisher_state *state, const struct retraction *retractions, size_t count)
{
    return feed_log_retract(state->log, retractions, count);
}

static int record_model_changed(struct publisher_state *state, uint32_t model, const char *why)
{
    return feed_log_model_changed(state->log, model, why);
}

static int record_heartbeat(struct publisher_state *state)
{
    return state->failed ? error_set(state->failed, "the feed record cannot be written") : 0;
}

static int record_descriptor(const struct publisher_state *state)
{
    (void)state;
    return -1;
}

static int record_serve(struct publisher_state *state)
{
    (void)state;
    return 0;
}

static void record_position(const struct publisher_state *state, const char **ret_epoch, uint64_t *ret_seq)
{
    *ret_epoch = state->log->epoch;
    *ret_seq = state->log->seq;
}

static void record_counters(const struct publisher_state *state, struct publisher_counters *ret_counters)
{
    *ret_counters = state->log->counters;
}

static size_t record_subscribers(struct publisher_state *state, struct feed_subscriber *list, size_t limit)
{
    (void)state, (void)list, (void)limit;
    return 0;
}

static int record_reload_keys(struct publisher_state *state)
{
    (void)state;
    return 0;
}

const struct publisher publisher_record = {
    .name = "record",
    .open = record_open,
    .close = record_close,
    .publish = record_publish,
    .retract = record_retract,
    .model_changed = record_model_changed,
    .heartbeat = record_heartbeat,
    .descriptor = record_descriptor,
    .serve = record_serve,
    .position = record_position,
    .counters = record_counters,
    .subscribers = record_subscribers,
    .reload_keys = record_reload_keys,
};
