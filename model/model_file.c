/* See model_file.h. */
#include "model/model_file.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "model files are little-endian");

#define MAGIC       "GZMODEL\n"
#define MAGIC_BYTES 8
#define PREFIX      (MAGIC_BYTES + 4 + 4 + 8)
#define CHECKSUM    8
#define FILE_MAX    ((size_t)1 << 30)

#define FIELD(name)                                                                                                    \
    {                                                                                                                  \
        offsetof(struct model, name), sizeof((struct model *)0)->name                                                  \
    }
/* Order and sizes are the format: a change is a new MODEL_FORMAT_VERSION. */
static const struct {
    size_t offset, size;
} fields[] = {
    FIELD(number),         FIELD(parent),       FIELD(created_unix_ms), FIELD(schema_name),
    FIELD(schema_hash),    FIELD(architecture), FIELD(trunk_name),      FIELD(trunk_version),
    FIELD(seed),           FIELD(vote_cursor),  FIELD(train_galaxies),  FIELD(validation_galaxies),
    FIELD(gate_galaxies),  FIELD(train_loss),   FIELD(validation_loss), FIELD(champion_nll),
    FIELD(challenger_nll), FIELD(constant_nll), FIELD(heads.count),     FIELD(heads.inputs),
    FIELD(heads.answers),  FIELD(heads.model),  FIELD(heads.dropout),   FIELD(heads.unit_length),
    FIELD(heads.step),     FIELD(heads.factor),
};
#define FIELDS (sizeof fields / sizeof *fields)

static size_t fields_bytes(void)
{
    size_t bytes = 0;
    for (size_t i = 0; i < FIELDS; i++)
        bytes += fields[i].size;
    return bytes;
}

int model_save(const char *path, const struct model *model)
{
    size_t floats = head_set_floats(&model->heads) * sizeof(float);
    uint64_t length = PREFIX + fields_bytes() + floats + CHECKSUM;
    uint32_t version = MODEL_FORMAT_VERSION;
    char *bytes = calloc(1, length), *at = bytes;
    if (!bytes)
        return error_set(ERROR_SYSTEM, "out of memory writing %s", path);
    memcpy(at, MAGIC, MAGIC_BYTES);
    memcpy(at + MAGIC_BYTES, &version, 4);
    memcpy(at + MAGIC_BYTES + 8, &length, 8);
    at += PREFIX;
    for (size_t i = 0; i < FIELDS; at += fields[i].size, i++)
        memcpy(at, (const char *)model + fields[i].offset, fields[i].size);
    memcpy(at, model->heads.shift, floats);
    uint64_t checksum = hash_64(bytes, length - CHECKSUM);
    memcpy(bytes + length - CHECKSUM, &checksum, CHECKSUM);
    struct file_part part = {bytes, length};
    int result = file_write(path, &part, 1, 0640);
    free(bytes);
    return result;
}

/* That the bytes are a whole, undamaged model file of a version we know. */
static int verify(const char *path, const char *bytes, size_t length)
{
    uint32_t version;
    uint64_t stated, checksum;
    if (length < MAGIC_BYTES || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
        return error_set(ERROR_INPUT, "%s is not a model file", path);
    if (length < PREFIX)
        return error_set(ERROR_INPUT, "%s is truncated to %zu bytes: restore it or roll back to another model", path,
                         length);
    memcpy(&version, bytes + MAGIC_BYTES, 4);
    if (version > MODEL_FORMAT_VERSION)
        return error_set(ERROR_STATE, "%s has model format %u, this program knows up to %d: use a newer triaged", path,
                         version, MODEL_FORMAT_VERSION);
    memcpy(&stated, bytes + MAGIC_BYTES + 8, 8);
    if (stated != length)
        return error_set(ERROR_INPUT, "%s %s: %zu bytes instead of %llu; restore it or roll back to another model",
                         path, length < stated ? "is truncated" : "has bytes behind its end", length,
                         (unsigned long long)stated);
    if (length >= PREFIX + CHECKSUM)
        memcpy(&checksum, bytes + length - CHECKSUM, CHECKSUM);
    if (length < PREFIX + CHECKSUM || hash_64(bytes, length - CHECKSUM) != checksum)
        return error_set(ERROR_INPUT,
                         "%s is damaged (its checksum does not match): restore it or roll back to another model", path);
    if (version != MODEL_FORMAT_VERSION || length < PREFIX + fields_bytes() + CHECKSUM)
        return error_set(ERROR_INPUT, "%s has an unknown model format %u", path, version);
    return 0;
}

static int check_schema(const char *path, const struct model *model, const struct schema *expected)
{
    if (!expected)
        return 0;
    if (strcmp(model->schema_hash, expected->hash) != 0)
        return error_set(
            ERROR_STATE,
            "%s was trained for schema %s (hash %s), the schema in use is %s (hash %s): use that schema, or "
            "start a new line of models",
            path, model->schema_name, model->schema_hash, expected->name, expected->hash);
    if (model->heads.answers != expected->answers)
        return error_set(ERROR_INPUT, "%s has heads with %d answers, its schema has %d", path, model->heads.answers,
                         expected->answers);
    return 0;
}

static int parse(const char *path, const char *bytes, size_t length, const struct schema *expected, struct model *model)
{
    const char *at = bytes + PREFIX;
    for (size_t i = 0; i < FIELDS; at += fields[i].size, i++)
        memcpy((char *)model + fields[i].offset, at, fields[i].size);
    model->schema_name[sizeof model->schema_name - 1] = 0;
    model->schema_hash[sizeof model->schema_hash - 1] = 0;
    model->architecture[sizeof model->architecture - 1] = 0;
    model->trunk_name[sizeof model->trunk_name - 1] = 0;
    struct head_set stored = model->heads;
    model->heads = (struct head_set){0};
    int result = head_set_new(stored.count, stored.inputs, stored.answers, &model->heads);
    if (result)
        return error_prefix(result == ERROR_LIMIT ? ERROR_INPUT : result, "%s: ", path);
    size_t floats = head_set_floats(&model->heads) * sizeof(float);
    if ((size_t)(bytes + length - CHECKSUM - at) != floats)
        return error_set(ERROR_INPUT, "%s: its arrays do not have the size its header says", path);
    memcpy(model->heads.shift, at, floats);
    model->heads.model = stored.model;
    model->heads.dropout = stored.dropout;
    model->heads.unit_length = stored.unit_length;
    model->heads.step = stored.step;
    memcpy(model->heads.factor, stored.factor, sizeof stored.factor);
    return check_schema(path, model, expected);
}

int model_load(const char *path, const struct schema *expected, struct model *ret_model)
{
    char *bytes;
    size_t length;
    *ret_model = (struct model){0};
    int result = file_read(path, FILE_MAX, &bytes, &length);
    if (result)
        return result;
    result = verify(path, bytes, length);
    if (!result)
        result = parse(path, bytes, length, expected, ret_model);
    free(bytes);
    if (result)
        model_free(ret_model);
    return result;
}

int model_trunk(const char *path, uint32_t *ret_trunk)
{
    char bytes[PREFIX + sizeof(struct model)];
    size_t at = PREFIX, wanted = PREFIX + fields_bytes();
    FILE *file = fopen(path, "rb");
    if (!file)
        return errno == ENOENT ? error_set(ERROR_NOT_FOUND, "%s: no such file", path)
                               : error_set_errno("cannot read %s", path);
    size_t have = fread(bytes, 1, wanted, file);
    fclose(file);
    if (have < wanted || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
        return error_set(ERROR_INPUT, "%s is not a model file, or truncated", path);
    for (size_t i = 0; i < FIELDS; at += fields[i].size, i++)
        if (fields[i].offset == offsetof(struct model, trunk_version))
            memcpy(ret_trunk, bytes + at, sizeof *ret_trunk);
    return 0;
}

void model_free(struct model *model)
{
    head_set_free(&model->heads);
    *model = (struct model){0};
}
