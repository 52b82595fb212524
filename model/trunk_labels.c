/* See trunk_labels.h. */
#include "model/trunk_labels.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "labels are little-endian");

#define MAGIC          "GZLABEL\n"
#define MAGIC_BYTES    8
#define FORMAT_VERSION 1
#define CHECKSUM       8
#define FILE_MAX       ((size_t)1 << 30)

struct prefix {
    char magic[MAGIC_BYTES];
    uint32_t version, recipe_bytes;
    uint64_t train_count, validation_count, answers;
    struct trunk_recipe recipe;
};

int trunk_labels_new(uint64_t galaxies, uint64_t answers, struct trunk_labels *ret_labels)
{
    *ret_labels = (struct trunk_labels){.answers = answers};
    ret_labels->row = calloc(galaxies + 1, sizeof *ret_labels->row);
    ret_labels->votes = calloc((galaxies + 1) * answers, sizeof *ret_labels->votes);
    if (ret_labels->row && ret_labels->votes)
        return 0;
    trunk_labels_free(ret_labels);
    return error_set(ERROR_SYSTEM, "out of memory for the labels of %llu galaxies", (unsigned long long)galaxies);
}

void trunk_labels_free(struct trunk_labels *labels)
{
    free(labels->row);
    free(labels->votes);
    *labels = (struct trunk_labels){0};
}

int trunk_labels_save(const char *path, const struct trunk_labels *labels)
{
    uint64_t galaxies = labels->train_count + labels->validation_count;
    size_t row_bytes = galaxies * sizeof *labels->row;
    size_t vote_bytes = galaxies * labels->answers * sizeof *labels->votes;
    size_t bytes = sizeof(struct prefix) + row_bytes + vote_bytes + CHECKSUM;
    char *text = calloc(1, bytes), *at = text;
    if (!text)
        return error_set(ERROR_SYSTEM, "out of memory writing %s", path);
    struct prefix prefix = {.magic = MAGIC,
                            .version = FORMAT_VERSION,
                            .recipe_bytes = sizeof labels->recipe,
                            .train_count = labels->train_count,
                            .validation_count = labels->validation_count,
                            .answers = labels->answers,
                            .recipe = labels->recipe};
    memcpy(at, &prefix, sizeof prefix);
    memcpy(at += sizeof prefix, labels->row, row_bytes);
    memcpy(at += row_bytes, labels->votes, vote_bytes);
    uint64_t check = hash_64(text, bytes - CHECKSUM);
    memcpy(at + vote_bytes, &check, CHECKSUM);
    struct file_part part = {text, bytes};
    int result = file_write(path, &part, 1, 0644);
    free(text);
    return result;
}

/* That the bytes are a whole, undamaged file of this version whose counts fit its length. */
static int check_file(const char *path, const char *bytes, size_t length, uint64_t answers, struct prefix *prefix)
{
    uint64_t check;
    if (length < sizeof *prefix + CHECKSUM || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
        return error_set(ERROR_INPUT, "%s does not hold the labels of a training run, or is cut short", path);
    memcpy(prefix, bytes, sizeof *prefix);
    if (prefix->version != FORMAT_VERSION || prefix->recipe_bytes != sizeof prefix->recipe)
        return error_set(ERROR_STATE, "%s was written by another version of this program (format %u)", path,
                         prefix->version);
    memcpy(&check, bytes + length - CHECKSUM, CHECKSUM);
    if (check != hash_64(bytes, length - CHECKSUM))
        return error_set(ERROR_INPUT, "%s is damaged (wrong checksum)", path);
    if (prefix->answers != answers)
        return error_set(ERROR_INPUT, "%s is of a decision tree with %llu answers, this one has %llu", path,
                         (unsigned long long)prefix->answers, (unsigned long long)answers);
    size_t per_galaxy = sizeof(uint64_t) + answers * sizeof(uint16_t);
    size_t galaxies = (length - sizeof *prefix - CHECKSUM) / per_galaxy;
    if (prefix->train_count > galaxies || prefix->validation_count != galaxies - prefix->train_count ||
        length != sizeof *prefix + galaxies * per_galaxy + CHECKSUM)
        return error_set(ERROR_INPUT, "%s does not hold as many galaxies as it says", path);
    return 0;
}

int trunk_labels_load(const char *path, uint64_t answers, uint64_t rows, struct trunk_labels *ret_labels)
{
    struct prefix prefix = {0};
    char *bytes;
    size_t length;
    *ret_labels = (struct trunk_labels){0};
    int result = file_read(path, FILE_MAX, &bytes, &length);
    if (result)
        return result;
    result = check_file(path, bytes, length, answers, &prefix);
    uint64_t galaxies = prefix.train_count + prefix.validation_count;
    if (!result)
        result = trunk_labels_new(galaxies, answers, ret_labels);
    if (!result) {
        const char *at = bytes + sizeof prefix;
        ret_labels->recipe = prefix.recipe;
        ret_labels->train_count = prefix.train_count;
        ret_labels->validation_count = prefix.validation_count;
        memcpy(ret_labels->row, at, galaxies * sizeof *ret_labels->row);
        memcpy(ret_labels->votes, at + galaxies * sizeof *ret_labels->row,
               galaxies * answers * sizeof *ret_labels->votes);
    }
    for (uint64_t i = 0; i < galaxies && !result; i++)
        if (ret_labels->row[i] >= rows)
            result = error_set(ERROR_INPUT, "%s names galaxy %llu, the pool has %llu", path,
                               (unsigned long long)ret_labels->row[i] + 1, (unsigned long long)rows);
    if (result)
        trunk_labels_free(ret_labels);
    free(bytes);
    return result;
}
