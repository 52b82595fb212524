/*
 * What the worker's ranking says, taken in by the control process: new entries of the queue, galaxies held back for review,
 * galaxies that need no more votes, and what the batch is expected to teach.
 */
#include "base/clock.h"
#include "base/error.h"
#include "connectors/galaxies.h"
#include "daemon/daemon.h"
#include "daemon/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int add_selected(struct daemon *daemon, const json_t *triple)
{
    uint64_t key = (uint64_t)json_integer_value(json_array_get(triple, 0));
    const char *name = json_string_value(json_array_get(triple, 1));
    enum stream stream;
    if (key < 1 || key > daemon->galaxies || !name || stream_from_name(name, &stream))
        return error_set(ERROR_INPUT, "the worker chose a galaxy that does not exist");
    struct pool_state *state = pool_state(&daemon->pool, key - 1);
    if (state->flags & (POOL_RETIRED | POOL_EXCLUDED | POOL_BAD | POOL_QUEUED))
        return 0; /* it changed while the ranking ran */
    struct queue_entry entry = {.key = key,
                                .stream = (uint8_t)stream,
                                .probability = json_number_value(json_array_get(triple, 2)),
                                .leased_until_ms = clock_unix_ms() + daemon->config.lease_s * 1000};
    snprintf(entry.id_str, sizeof entry.id_str, "%s", pool_identity(&daemon->pool, key - 1)->id_str);
    int code = queue_add(&daemon->queue, &entry);
    if (!code)
        state->flags |= POOL_QUEUED;
    return code;
}

static void fill_queue(struct daemon *daemon, const json_t *answer)
{
    const json_t *triple;
    size_t index;
    json_array_foreach(json_object_get(answer, "selected"), index, triple)
    {
        if (daemon->queue.count >= (size_t)daemon->config.queue_size)
            break;
        if (add_selected(daemon, triple))
            log_warning(EVENT_CHOICE_REFUSED, "%s, ignoring", error_message());
    }
    daemon->cycle.exhausted = daemon->queue.count < (size_t)daemon->config.queue_size;
    queue_renumber(&daemon->queue, &daemon->pool);
}

/* --- galaxies that are not offered -------------------------------------------------------------------------------- */

static void retire_known(struct daemon *daemon, const json_t *answer)
{
    const json_t *list = json_object_get(answer, "retired"), *number;
    size_t index, count = 0, limit = json_array_size(list);
    if (!limit)
        return;
    arena_reset(&daemon->memory);
    uint64_t *keys = arena_alloc(&daemon->memory, limit * sizeof *keys);
    json_array_foreach(list, index, number)
    {
        uint64_t key = (uint64_t)json_integer_value(number);
        if (keys && key >= 1 && key <= daemon->galaxies && !(pool_state(&daemon->pool, key - 1)->flags & POOL_RETIRED))
            keys[count++] = key;
    }
    if (!keys || galaxies_send_retired(daemon->database, keys, count, &daemon->memory)) {
        log_warning(EVENT_RETIREMENT_FAILED, "%zu galaxies were not retired: %s; the next ranking tries again", limit,
                    error_message());
        return;
    }
    for (size_t i = 0; i < count; i++)
        daemon_retire(daemon, keys[i]);
    log_info(EVENT_RETIREMENT, "%zu galaxies need no more votes: these would teach less than %g nat", count,
             daemon->config.retire_information);
}

static const char *known_reason(const char *reason)
{
    return reason && strcmp(reason, "artifact") == 0 ? "artifact" : "outlier";
}

static void take_review(struct daemon *daemon, const json_t *answer)
{
    struct cycle *cycle = &daemon->cycle;
    const json_t *triple;
    size_t index;
    cycle->review_count = 0;
    json_array_foreach(json_object_get(answer, "review"), index, triple)
    {
        uint64_t key = (uint64_t)json_integer_value(json_array_get(triple, 0));
        double value = json_number_value(json_array_get(triple, 2));
        if (cycle->review_count < REVIEW_MAX && key >= 1 && key <= daemon->galaxies)
            cycle->review[cycle->review_count++] =
                (struct review_row){key, known_reason(json_string_value(json_array_get(triple, 1))),
                                    value < 0 ? NAN : value, score_round(pool_score(&daemon->pool, key - 1)->score)};
    }
}

/* --- what it should bring ------------------------------------------------------------------------------------------- */

static void expect_gain(struct daemon *daemon)
{
    struct progress *progress = &daemon->progress;
    double *information = calloc(daemon->queue.count + 1, sizeof *information);
    size_t count = 0;
    for (size_t i = 0; information && i < daemon->queue.count; i++) {
        const struct queue_entry *entry = &daemon->queue.entries[i];
        double own = (double)entry->total - (double)entry->expected;
        if (entry->stream == STREAM_ACTIVE && entry->model && isfinite(own))
            information[count++] = own;
    }
    progress->gain = gain_of(information, count);
    stopping_add(&progress->stopping, progress->gain);
    free(information);
}

static void describe(struct daemon *daemon, const json_t *answer)
{
    struct cycle *cycle = &daemon->cycle;
    const json_t *choice = json_object_get(answer, "choice");
    snprintf(
        cycle->choice, sizeof cycle->choice,
        "%s from %lld candidates in %lld kinds; left out: %lld like another, %lld of a kind that had its share, %lld "
        "for review",
        json_is_true(json_object_get(choice, "cold")) ? "typical and random galaxies" : "by score",
        (long long)json_integer_value(json_object_get(choice, "candidates")),
        (long long)json_integer_value(json_object_get(choice, "kinds")),
        (long long)json_integer_value(json_object_get(choice, "duplicates")),
        (long long)json_integer_value(json_object_get(choice, "crowded")),
        (long long)json_integer_value(json_object_get(choice, "held")));
    log_info(EVENT_QUEUE_CHOSEN, "chosen %s", cycle->choice);
}

void choice_take(struct daemon *daemon, const json_t *answer)
{
    retire_known(daemon, answer);
    fill_queue(daemon, answer);
    take_review(daemon, answer);
    expect_gain(daemon);
    describe(daemon, answer);
}

void choice_record(struct daemon *daemon)
{
    const struct cycle *cycle = &daemon->cycle;
    const struct gain *gain = &daemon->progress.gain;
    struct choice_row row = {cycle->number, cycle->champion, gain->galaxies, gain->mean, gain->error};
    if (choices_send(daemon->database, &row, cycle->review, cycle->review_count, &daemon->memory))
        log_warning(EVENT_QUEUE_NOT_RECORDED, "how the queue was chosen was not recorded: %s", error_message());
}

void choice_measured(struct daemon *daemon, const struct model_row *row)
{
    struct progress *progress = &daemon->progress;
    if (!isfinite(row->holdout_nll))
        return;
    if (progress->measured_count == MEASURED_MAX) {
        memmove(progress->measured, progress->measured + 1, (MEASURED_MAX - 1) * sizeof *progress->measured);
        progress->measured_count--;
    }
    progress->measured[progress->measured_count++] = (struct measured_row){row->number, row->labels, row->holdout_nll};
}

int choice_restore(struct daemon *daemon, struct database *database)
{
    enum { GAINS = 1000 };
    struct choice_row *rows = calloc(GAINS, sizeof *rows);
    size_t count = 0;
    int result = rows ? choices_restore(database, rows, GAINS, &count) : error_set(ERROR_SYSTEM, "out of memory");
    for (size_t i = 0; i < count && !result; i++) {
        daemon->progress.gain = (struct gain){rows[i].active_galaxies, rows[i].gain_mean, rows[i].gain_error};
        stopping_add(&daemon->progress.stopping, daemon->progress.gain);
    }
    free(rows);
    return result ? result
                  : choices_restore_measured(database, daemon->progress.measured, MEASURED_MAX,
                                             &daemon->progress.measured_count);
}
