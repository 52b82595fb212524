/*
 * A training run as one file, see trunk_fit.h. Little-endian, no padding:
 *   "GZTRAIN\n"  uint32 format version  uint32 0  uint64 bytes of the whole file
 *   means        char [32], what trunk_fit_means() says, 0 behind it
 *   identity     what a run must share with the file to go on from it, one 128-bit hash as text each, in the order of the
 *                table below
 *   counters     struct trunk_counters
 *   curve        struct trunk_epoch [epoch + 1]
 *   values, moment1, moment2, best   [count] floats each
 *   uint64 XXH3 of every byte before it
 */
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "model/trunk_fit_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "checkpoints are little-endian");

#define MAGIC          "GZTRAIN\n"
#define MAGIC_BYTES    8
#define FORMAT_VERSION 4
#define CHECKSUM       8
#define FILE_MAX       ((size_t)4 << 30)
#define IDENTITIES     5

struct prefix {
    char magic[MAGIC_BYTES];
    uint32_t version, reserved;
    uint64_t bytes;
    char means[TRUNK_MEANS_BYTES];
    char identity[IDENTITIES][HASH_TEXT_BYTES - 1];
    struct trunk_counters at;
};

/* What may differ between a file and a run, and how an operator calls it. */
static const char *const identity_names[IDENTITIES] = {"network", "kind of label or weight of classes", "decision tree",
                                                       "training recipe", "galaxies or labels"};

/* Rows and labels, in order; pixels are left out: a galaxy's image does not change under its key. */
static void hash_data(const struct trunk_fit *fit, char text[HASH_TEXT_BYTES])
{
    const struct trunk_data *data = &fit->data;
    const uint64_t *const rows[] = {data->train_row, data->validation_row};
    const size_t counts[] = {data->train_count, data->validation_count};
    size_t label_bytes = (size_t)fit->target.outputs * sizeof(float);
    uint64_t chain[5] = {data->train_count, data->validation_count, (uint64_t)data->pixel_side};
    for (int part = 0; part < 2; part++)
        for (size_t i = 0; i < counts[part]; i++) {
            uint64_t row = rows[part][i];
            chain[3] = hash_64((const char *)data->labels + row * label_bytes, label_bytes) ^ data->key[row];
            chain[4] = hash_64(chain, sizeof chain);
        }
    hash_text(chain, sizeof chain, text);
}

/* The recipe in words, so that padding and the order of fields do not matter. */
static void recipe_text(const struct trunk_recipe *recipe, char *text, size_t size)
{
    snprintf(text, size, "%.17g %.17g %.17g %.17g %.17g %.17g %d %d %d %d %d %d %d %d %llu", recipe->learning_rate,
             recipe->weight_decay, recipe->block_decay, recipe->clip_norm, recipe->dropout, recipe->stochastic_depth,
             (int)recipe->schedule, (int)recipe->augmentation, recipe->blocks, recipe->live_norm, recipe->batch,
             recipe->epochs_max, recipe->patience, recipe->warmup_epochs, (unsigned long long)recipe->seed);
}

static void identify(const struct trunk_fit *fit, char identity[IDENTITIES][HASH_TEXT_BYTES - 1])
{
    char words[IDENTITIES][512] = {""}, text[HASH_TEXT_BYTES];
    snprintf(words[0], sizeof words[0], "%s %d %d %d %d %zu", fit->net.name, fit->net.channels, fit->net.side,
             fit->net.outputs, (int)fit->net.padding, fit->count);
    hash_text(fit->target.class_weight, sizeof fit->target.class_weight, text);
    snprintf(words[1], sizeof words[1], "%d %d %s", (int)fit->target.kind, fit->target.outputs, text);
    snprintf(words[2], sizeof words[2], "%s", fit->target.schema ? fit->target.schema->hash : "");
    recipe_text(&fit->recipe, words[3], sizeof words[3]);
    hash_data(fit, words[4]);
    for (int i = 0; i < IDENTITIES; i++) {
        hash_text(words[i], strlen(words[i]), text);
        memcpy(identity[i], text, sizeof identity[i]);
    }
}

static void put(char **at, const void *bytes, size_t count)
{
    memcpy(*at, bytes, count);
    *at += count;
}

void trunk_fit_means(const struct trunk_fit *fit, char means[TRUNK_MEANS_BYTES])
{
    const struct backend *backend = fit->backend;
    int count = backend->devices ? backend->devices(fit->context) : backend->threads(fit->context);
    snprintf(means, TRUNK_MEANS_BYTES, "%s, %d %s%s", backend->name, count, backend->devices ? "device" : "thread",
             count == 1 ? "" : "s");
}

int trunk_fit_save(struct trunk_fit *fit, const char *path)
{
    int result = trunk_fit_fetch(fit);
    if (result)
        return result;
    size_t floats = fit->count * sizeof(float), curve = ((size_t)fit->at.epoch + 1) * sizeof *fit->history;
    struct prefix prefix = {.magic = MAGIC, .version = FORMAT_VERSION, .at = fit->at};
    trunk_fit_means(fit, prefix.means);
    prefix.bytes = sizeof prefix + curve + 4 * floats + CHECKSUM;
    identify(fit, prefix.identity);
    char *bytes = malloc(prefix.bytes), *at = bytes;
    if (!bytes)
        return error_set(ERROR_SYSTEM, "out of memory writing %s", path);
    put(&at, &prefix, sizeof prefix);
    put(&at, fit->history, curve);
    put(&at, fit->value, floats);
    put(&at, fit->moment1, floats);
    put(&at, fit->moment2, floats);
    put(&at, fit->best, floats);
    uint64_t checksum = hash_64(bytes, prefix.bytes - CHECKSUM);
    put(&at, &checksum, CHECKSUM);
    struct file_part part = {bytes, prefix.bytes};
    result = file_write(path, &part, 1, 0644);
    free(bytes);
    return result;
}

static int check_file(const char *path, const char *bytes, size_t length, struct prefix *prefix)
{
    uint64_t checksum;
    if (length < sizeof *prefix + CHECKSUM || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
        return error_set(ERROR_INPUT, "%s is no checkpoint of a training run", path);
    memcpy(prefix, bytes, sizeof *prefix);
    if (prefix->version > FORMAT_VERSION)
        return error_set(ERROR_STATE, "%s was written by a newer version (format %u, this one reads %d): upgrade", path,
                         (unsigned)prefix->version, FORMAT_VERSION);
    if (prefix->version < FORMAT_VERSION)
        return error_set(ERROR_STATE, "%s was written by an older version (format %u): delete it to start again", path,
                         (unsigned)prefix->version);
    if (prefix->bytes != length)
        return error_set(ERROR_INPUT, "%s is cut short: %zu bytes of %llu; delete it to start again", path, length,
                         (unsigned long long)prefix->bytes);
    memcpy(&checksum, bytes + length - CHECKSUM, CHECKSUM);
    if (checksum != hash_64(bytes, length - CHECKSUM))
        return error_set(ERROR_INPUT, "%s is damaged (wrong checksum); delete it to start again", path);
    return 0;
}

static int check_identity(const char *path, const struct trunk_fit *fit, const struct prefix *prefix, size_t length)
{
    char identity[IDENTITIES][HASH_TEXT_BYTES - 1];
    identify(fit, identity);
    for (int i = 0; i < IDENTITIES; i++)
        if (memcmp(identity[i], prefix->identity[i], sizeof identity[i]) != 0)
            return error_set(ERROR_STATE, "%s belongs to another run (another %s): give another folder, or delete it",
                             path, identity_names[i]);
    const struct trunk_counters *at = &prefix->at;
    size_t want = sizeof *prefix + ((size_t)at->epoch + 1) * sizeof *fit->history + 4 * fit->count * sizeof(float);
    if (at->epoch < 0 || at->epoch > fit->recipe.epochs_max || at->batch < 0 || at->batch > fit->steps_per_epoch ||
        at->best_epoch < 0 || at->best_epoch > at->epoch ||
        (at->judgement.rows && at->judgement.rows >= fit->data.validation_count) || length != want + CHECKSUM)
        return error_set(ERROR_INPUT, "%s contradicts itself; delete it to start again", path);
    return 0;
}

static void take(const char **at, void *bytes, size_t count)
{
    memcpy(bytes, *at, count);
    *at += count;
}

int trunk_fit_load(struct trunk_fit *fit, const char *path, char ret_means[TRUNK_MEANS_BYTES])
{
    struct prefix prefix;
    char *bytes;
    size_t length, floats = fit->count * sizeof(float);
    int result = file_read(path, FILE_MAX, &bytes, &length);
    if (result)
        return result;
    result = check_file(path, bytes, length, &prefix);
    if (!result)
        result = check_identity(path, fit, &prefix, length);
    if (!result) {
        const char *at = bytes + sizeof prefix;
        trunk_judging_end(fit);
        fit->at = prefix.at;
        snprintf(ret_means, TRUNK_MEANS_BYTES, "%.*s", TRUNK_MEANS_BYTES - 1, prefix.means);
        fit->ordered_epoch = -1;
        fit->held = fit->ahead = 0;
        take(&at, fit->history, ((size_t)fit->at.epoch + 1) * sizeof *fit->history);
        take(&at, fit->value, floats);
        take(&at, fit->moment1, floats);
        take(&at, fit->moment2, floats);
        take(&at, fit->best, floats);
    }
    free(bytes);
    return result;
}
