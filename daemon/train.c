/*
 * The second level of learning: the trunk. When labels have doubled, or the heads stop improving, a new trunk is taught in slices
 * of a few seconds, only while no cycle is due; then every galaxy is embedded again beside the embeddings in use; then the next
 * cycle fits heads on the new embeddings, and the gate decides. Rankings use one trunk's embeddings, always. Everything can be
 * lost and done again from models/trunk-N.*; see worker_train.c for what those hold.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "daemon/daemon.h"
#include "daemon/jobs.h"
#include "daemon/log.h"
#include "daemon/models.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RETRY_MS 5000

const char *train_step_name(enum train_step step)
{
    static const char *const names[] = {"off", "training", "embedding", "judging"};
    return names[step];
}

/* --- what outlives a restart --------------------------------------------------------------------------------------- */

/* models/trained: "LABELS TRUNK\n", labelled galaxies when a trunk was last trained, and its number. */
static int trained_path(const struct daemon *daemon, char *path, size_t size)
{
    return file_path(path, size, "%s/models/trained", daemon->config.state);
}

static void note_trained(struct daemon *daemon, long labels)
{
    char path[FILE_PATH_BYTES], text[48];
    daemon->train.last_trunk = daemon->train.trunk;
    int length = snprintf(text, sizeof text, "%ld %u\n", labels, daemon->train.last_trunk);
    struct file_part part = {text, (size_t)length};
    daemon->train.labels = labels;
    daemon->train.stalled = 0;
    if (trained_path(daemon, path, sizeof path) || file_write(path, &part, 1, 0644))
        log_warning(EVENT_TRUNK_NOT_NOTED, "after a restart the trunk may be trained again too soon: %s",
                    error_message());
}

static int read_trained(struct daemon *daemon)
{
    char path[FILE_PATH_BYTES], *text, *end;
    size_t length;
    int result = trained_path(daemon, path, sizeof path);
    if (!result)
        result = file_read(path, 64, &text, &length);
    if (result == ERROR_NOT_FOUND)
        return 0;
    if (result)
        return result;
    daemon->train.labels = strtol(text, &end, 10);
    daemon->train.last_trunk = (uint32_t)strtoul(end, NULL, 10);
    free(text);
    return 0;
}

/* A number never used (embeddings, and models the gate refused, carry it for good), whose embeddings do not lie where those in use do. */
static int next_trunk(const struct daemon *daemon, uint32_t *ret_trunk)
{
    int result = models_highest_trunk(&daemon->config, ret_trunk);
    if (*ret_trunk < daemon->pool.trunk)
        *ret_trunk = daemon->pool.trunk;
    if (*ret_trunk < daemon->train.last_trunk)
        *ret_trunk = daemon->train.last_trunk;
    ++*ret_trunk;
    *ret_trunk += *ret_trunk % 2 == daemon->pool.trunk % 2;
    return result;
}

int train_restore(struct daemon *daemon)
{
    struct train *train = &daemon->train;
    char weights[FILE_PATH_BYTES], labels[FILE_PATH_BYTES], stopped[FILE_PATH_BYTES];
    uint32_t trunk = TRUNK_FIRST, highest = 0;
    int result =
        daemon->cycle.champion ? models_trunk_of(&daemon->config, &daemon->schema, daemon->cycle.champion, &trunk) : 0;
    if (!result)
        result = models_highest_trunk(&daemon->config, &highest);
    if (!result)
        result = read_trained(daemon);
    if (!result)
        result = models_trunk_path(&daemon->config, highest, weights, sizeof weights);
    if (!result)
        result = models_labels_path(&daemon->config, highest, labels, sizeof labels);
    if (!result)
        result = models_stopped_path(&daemon->config, highest, stopped, sizeof stopped);
    if (result)
        return result;
    pool_use_trunk(&daemon->pool, trunk);
    train->train_loss = train->validation_loss = NAN;
    if (highest <= trunk || highest <= train->last_trunk) { /* over, whatever a kill has left of it */
        models_delete_run(&daemon->config, highest);
        return 0;
    }
    if (highest % 2 == trunk % 2 || (!file_exists(labels) && !file_exists(stopped)))
        return 0;
    train->trunk = highest;
    train->stopped = file_exists(stopped);
    train->step = file_exists(weights) ? TRAIN_EMBEDDING : TRAIN_RUNNING;
    log_info(EVENT_TRUNK_RESUMED, "trunk %u %s: %s", highest, train->stopped ? "is still stopped" : "goes on",
             train_step_name(train->step));
    return 0;
}

/* --- training ------------------------------------------------------------------------------------------------------ */

static void failed(struct daemon *daemon, const char *what)
{
    log_warning(EVENT_TRUNK_STEP_FAILED, "%s failed: %s; trying again", what, error_message());
    snprintf(daemon->problem, sizeof daemon->problem, "%s: %s", what, error_message());
    daemon->train.retry_at_ms = clock_ms() + RETRY_MS;
}

static void give_up(struct daemon *daemon, const char *why)
{
    struct train *train = &daemon->train;
    log_info(EVENT_TRUNK_GIVEN_UP, "trunk %u is given up: %s; trunk %u stays", train->trunk, why, daemon->pool.trunk);
    models_delete_trunk(&daemon->config, train->trunk); /* whatever was not set aside */
    train->step = TRAIN_OFF;
    train->stopped = false;
    train->share = 0;
}

static bool has_checkpoint(const struct daemon *daemon)
{
    char path[FILE_PATH_BYTES];
    return !models_checkpoint_path(&daemon->config, daemon->train.trunk, path, sizeof path) && file_exists(path);
}

static void on_trained(void *context, int code, const json_t *answer)
{
    struct daemon *daemon = context;
    struct train *train = &daemon->train;
    train->in_flight = false;
    if (train->step != TRAIN_RUNNING) { /* discarded meanwhile: what the slice has written since goes too */
        models_delete_trunk(&daemon->config, train->trunk);
        return;
    }
    if (code == ERROR_UNAVAILABLE || code == ERROR_CANCELLED || code == ERROR_SYSTEM || /* a full disk is emptied */
        (code == ERROR_LIMIT && has_checkpoint(daemon))) { /* its memory was there before, and will be again */
        failed(daemon, "training the trunk");
        return;
    }
    if (code) {
        char reason[ERROR_MESSAGE_BYTES];
        snprintf(reason, sizeof reason, "%s", error_message());
        log_error(EVENT_TRUNK_FAILED, "training the trunk failed: %s", reason);
        snprintf(daemon->problem, sizeof daemon->problem, "training the trunk: %s", reason);
        models_set_aside_trunk(&daemon->config, train->trunk);
        give_up(daemon, reason);
        note_trained(daemon, daemon->cycle.labels);
        return;
    }
    FAULT(SLICE_ANSWERED);
    daemon_note_damage(daemon, answer);
    const json_t *loss = json_object_get(answer, "validation_loss");
    train->share = json_number_value(json_object_get(answer, "share"));
    train->epoch = (int)json_integer_value(json_object_get(answer, "epoch"));
    train->train_loss = json_number_value(json_object_get(answer, "train_loss"));
    train->validation_loss = json_is_number(loss) ? json_number_value(loss) : NAN;
    if (!json_is_true(json_object_get(answer, "over")))
        return;
    log_info(EVENT_TRUNK_TRAINED, "trunk %u is trained: %d epochs, validation loss %.4f; embedding every galaxy again",
             train->trunk, train->epoch, train->validation_loss);
    train->step = TRAIN_EMBEDDING;
    train->after_key = 0;
}

static int send_slice(struct daemon *daemon)
{
    return worker_link_send(&daemon->worker, "train",
                            json_pack("{s:I,s:I,s:f}", "trunk", (json_int_t)daemon->train.trunk, "from",
                                      (json_int_t)daemon->pool.trunk, "seconds", (double)daemon->config.slice_s),
                            on_trained, daemon);
}

/* --- embedding again ----------------------------------------------------------------------------------------------- */

static void on_reembedded(void *context, int code, const json_t *answer)
{
    struct daemon *daemon = context;
    struct train *train = &daemon->train;
    train->in_flight = false;
    if (!code)
        daemon_note_damage(daemon, answer);
    if (train->step != TRAIN_EMBEDDING || train->stopped) /* meanwhile: these galaxies are done again, or none */
        return;
    if (code) {
        failed(daemon, "embedding with the new trunk");
        return;
    }
    train->after_key += (uint64_t)daemon->config.embed_chunk;
    train->share = daemon->galaxies ? fmin(1, (double)train->after_key / (double)daemon->galaxies) : 1;
    if (train->after_key < daemon->galaxies)
        return;
    train->step = TRAIN_READY;
    daemon->cycle.wanted = true;
}

static int send_galaxies(struct daemon *daemon)
{
    return worker_link_send(&daemon->worker, "reembed",
                            json_pack("{s:I,s:I,s:I,s:I}", "trunk", (json_int_t)daemon->train.trunk, "from",
                                      (json_int_t)daemon->pool.trunk, "first", (json_int_t)daemon->train.after_key + 1,
                                      "count", (json_int_t)daemon->config.embed_chunk),
                            on_reembedded, daemon);
}

/* --- judging ------------------------------------------------------------------------------------------------------- */

void train_judged(struct daemon *daemon, bool promoted)
{
    struct train *train = &daemon->train;
    if (train->step != TRAIN_READY) {
        train->stalled = promoted ? 0 : train->stalled + 1;
        return;
    }
    FAULT(TRUNK_JUDGED);
    note_trained(daemon, daemon->cycle.labels);
    if (!promoted) {
        give_up(daemon, "heads on it are not better than the champion");
        return;
    }
    log_info(EVENT_TRUNK_IN_USE, "trunk %u is in use", train->trunk);
    models_delete_run(&daemon->config, train->trunk);
    pool_use_trunk(&daemon->pool, train->trunk);
    embed_again(daemon); /* galaxies it has not seen yet follow */
    train->step = TRAIN_OFF;
    train->share = 0;
}

/* --- when ---------------------------------------------------------------------------------------------------------- */

static bool is_due(const struct daemon *daemon)
{
    const struct train *train = &daemon->train;
    long labels = daemon->cycle.labels;
    if (train->wanted)
        return true;
    if (strcmp(daemon->config.trunk_training, "auto") != 0 || labels < daemon->config.labels_min)
        return false;
    return labels >= 2 * train->labels || (train->stalled >= daemon->config.stalled_fits && labels > train->labels);
}

static void begin(struct daemon *daemon)
{
    struct train *train = &daemon->train;
    train->wanted = false;
    if (next_trunk(daemon, &train->trunk)) {
        failed(daemon, "training the trunk");
        return;
    }
    log_info(EVENT_TRUNK_STARTED,
             "the trunk is trained again, as number %u: %ld labelled galaxies, %ld the last time, %d models in a row "
             "not better",
             train->trunk, daemon->cycle.labels, train->labels, train->stalled);
    train->step = TRAIN_RUNNING;
    FAULT(TRAINING_BEGUN);
    train->share = 0;
    train->epoch = 0;
    train->train_loss = train->validation_loss = NAN;
}

/* Only while nothing else wants the worker: votes and rankings come first. */
void train_step(struct daemon *daemon)
{
    struct train *train = &daemon->train;
    if (train->in_flight || train->stopped || daemon->paused || clock_ms() < train->retry_at_ms ||
        daemon->cycle.step != CYCLE_IDLE || daemon->cycle.in_flight || daemon->embed.in_flight ||
        !embed_finished(daemon) || daemon->worker.state != WORKER_IDLE || cycle_is_due(daemon))
        return;
    if (train->step == TRAIN_OFF && is_due(daemon))
        begin(daemon);
    int code = 0;
    if (train->step == TRAIN_RUNNING)
        code = send_slice(daemon);
    else if (train->step == TRAIN_EMBEDDING)
        code = send_galaxies(daemon);
    else
        return;
    train->in_flight = code == 0;
    if (code)
        failed(daemon, "training the trunk");
}

/* --- what an operator asks for ------------------------------------------------------------------------------------- */

int train_start(struct daemon *daemon)
{
    struct train *train = &daemon->train;
    char path[FILE_PATH_BYTES];
    if (train->step == TRAIN_OFF) {
        train->wanted = true;
        return 0;
    }
    if (!train->stopped)
        return 0;
    int result = models_stopped_path(&daemon->config, train->trunk, path, sizeof path);
    if (!result && unlink(path) < 0 && errno != ENOENT)
        result = error_set_errno("cannot delete %s", path);
    if (!result)
        train->stopped = false;
    return result;
}

/* models/trunk-N.stopped says so to the next start. */
int train_stop(struct daemon *daemon)
{
    static const char text[] = "stopped by an operator\n";
    struct train *train = &daemon->train;
    struct file_part part = {text, sizeof text - 1};
    char path[FILE_PATH_BYTES];
    if (train->step == TRAIN_READY)
        return error_set(ERROR_STATE, "trunk %u is trained: the cycle that is due decides on it", train->trunk);
    if (train->step == TRAIN_OFF && !train->wanted)
        return error_set(ERROR_STATE, "no trunk is being trained");
    train->wanted = false;
    if (train->step == TRAIN_OFF)
        return 0;
    int result = models_stopped_path(&daemon->config, train->trunk, path, sizeof path);
    if (!result)
        result = file_write(path, &part, 1, 0644);
    if (!result)
        train->stopped = true;
    return result;
}

int train_discard(struct daemon *daemon)
{
    const struct train *train = &daemon->train;
    if (train->step == TRAIN_OFF)
        return error_set(ERROR_STATE, "no trunk is being trained");
    if (train->step == TRAIN_READY && (daemon->cycle.step == CYCLE_FIT || daemon->cycle.step == CYCLE_PROMOTE))
        return error_set(ERROR_STATE, "trunk %u is being judged: try again in a moment", train->trunk);
    give_up(daemon, "an operator discarded it");
    note_trained(daemon, daemon->cycle.labels);
    return 0;
}
