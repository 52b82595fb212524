/* See safetensors.h. */
#include "model/safetensors.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX   ((size_t)1 << 30)
#define HEADER_BYTES_MAX ((size_t)16 << 20)
#define TENSORS_MAX      1024

static void shape_text(const int *shape, int rank, char text[64])
{
    int used = snprintf(text, 64, "[");
    for (int i = 0; i < rank && used < 60; i++)
        used += snprintf(text + used, (size_t)(64 - used), "%s%d", i ? ", " : "", shape[i]);
    if (used < 63)
        snprintf(text + used, (size_t)(64 - used), "]");
}

static int check_shape(const char *path, const struct net_tensor *tensor, const json_t *shape)
{
    int have[8], rank = 0, same = json_array_size(shape) == (size_t)tensor->rank;
    char want_text[64], have_text[64];
    for (; rank < 8 && rank < (int)json_array_size(shape); rank++) {
        have[rank] = (int)json_integer_value(json_array_get(shape, (size_t)rank));
        same = same && have[rank] == tensor->shape[rank];
    }
    if (same)
        return 0;
    shape_text(tensor->shape, tensor->rank, want_text);
    shape_text(have, rank, have_text);
    return error_set(ERROR_INPUT, "%s: tensor %s has shape %s, this network needs %s", path, tensor->name, have_text,
                     want_text);
}

/* The header's entry under the plain or Zoobot's name. */
static const json_t *find_entry(const json_t *header, const char *name)
{
    char prefixed[96];
    snprintf(prefixed, sizeof prefixed, "encoder.%s", name);
    const json_t *entry = json_object_get(header, name);
    return entry ? entry : json_object_get(header, prefixed);
}

static int load_tensor(const char *path, const json_t *header, const char *data, size_t data_bytes,
                       const struct net_tensor *tensor, float *parameters)
{
    const json_t *entry = find_entry(header, tensor->name);
    if (!entry)
        return error_set(ERROR_INPUT, "%s: tensor %s is missing", path, tensor->name);
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (!type || strcmp(type, "F32") != 0)
        return error_set(ERROR_INPUT, "%s: tensor %s has type %s, only F32 is taken", path, tensor->name,
                         type ? type : "(none)");
    int result = check_shape(path, tensor, json_object_get(entry, "shape"));
    if (result)
        return result;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    json_int_t begin = json_integer_value(json_array_get(offsets, 0)), end = json_integer_value(json_array_get(offsets, 1));
    if (begin < 0 || end < begin || (size_t)end > data_bytes || (size_t)(end - begin) != tensor->count * sizeof(float))
        return error_set(ERROR_INPUT, "%s: tensor %s lies outside the file or has a wrong length", path, tensor->name);
    memcpy(parameters + tensor->offset, data + begin, tensor->count * sizeof(float));
    return 0;
}

/* A tensor the network has no place for is a sign of another architecture, not something to pass over. */
static int check_no_strangers(const char *path, const json_t *header, const struct net_tensor *tensors, int count)
{
    const char *key;
    json_t *value, *all = (json_t *)(uintptr_t)header;
    json_object_foreach(all, key, value)
    {
        const char *name = strncmp(key, "encoder.", 8) == 0 ? key + 8 : key;
        int known = strcmp(key, "__metadata__") == 0 || strstr(name, "num_batches_tracked") ||
                    strncmp(name, "classifier.", 11) == 0 || strncmp(name, "head.", 5) == 0;
        for (int i = 0; i < count && !known; i++)
            known = strcmp(tensors[i].name, name) == 0;
        if (!known)
            return error_set(ERROR_INPUT, "%s: tensor %s belongs to another network than EfficientNet-B0", path, key);
    }
    return 0;
}

static int parse(const char *path, const struct net *net, const char *bytes, size_t length, float *parameters)
{
    static _Thread_local struct net_tensor tensors[TENSORS_MAX];
    uint64_t header_bytes = 0;
    json_error_t problem;
    if (length < 8)
        return error_set(ERROR_INPUT, "%s is no safetensors file: only %zu bytes", path, length);
    memcpy(&header_bytes, bytes, 8);
    if (header_bytes > HEADER_BYTES_MAX || header_bytes > length - 8)
        return error_set(ERROR_INPUT, "%s is no safetensors file, or is cut short", path);
    json_t *header = json_loadb(bytes + 8, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &problem);
    if (!json_is_object(header)) {
        json_decref(header);
        return error_set(ERROR_INPUT, "%s: the header is not JSON: %s", path, problem.text);
    }
    int count = net_tensors(net, tensors, TENSORS_MAX), result = 0;
    for (int i = 0; i < count && !result; i++)
        result = load_tensor(path, header, bytes + 8 + header_bytes, length - 8 - (size_t)header_bytes, &tensors[i],
                             parameters);
    if (!result)
        result = check_no_strangers(path, header, tensors, count);
    json_decref(header);
    return result;
}

int safetensors_load(const char *path, const struct net *net, float *parameters)
{
    char *bytes;
    size_t length, parameter_bytes = net_parameter_count(net) * sizeof(float);
    int result = file_read(path, FILE_BYTES_MAX, &bytes, &length);
    if (result)
        return result;
    float *loaded = malloc(parameter_bytes);
    result = loaded ? parse(path, net, bytes, length, loaded)
                    : error_set(ERROR_SYSTEM, "out of memory for the weights of %s", path);
    if (!result)
        memcpy(parameters, loaded, parameter_bytes);
    free(loaded);
    free(bytes);
    return result;
}

int safetensors_save(const char *path, const struct net *net, const float *parameters)
{
    static _Thread_local struct net_tensor tensors[TENSORS_MAX];
    int count = net_tensors(net, tensors, TENSORS_MAX);
    struct text header = text_new(HEADER_BYTES_MAX);
    for (int i = 0; i < count; i++) {
        text_append(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "{", tensors[i].name);
        for (int d = 0; d < tensors[i].rank; d++)
            text_append(&header, "%s%d", d ? "," : "", tensors[i].shape[d]);
        text_append(&header, "],\"data_offsets\":[%zu,%zu]}", tensors[i].offset * sizeof(float),
                    (tensors[i].offset + tensors[i].count) * sizeof(float));
    }
    text_append(&header, "}");
    while (header.length % 8 && !header.error)
        text_append(&header, " ");
    int result = text_error(&header);
    uint64_t header_bytes = header.length;
    struct file_part parts[] = {{&header_bytes, 8},
                                {header.bytes, header.length},
                                {parameters, net_parameter_count(net) * sizeof(float)}};
    if (!result)
        result = file_write(path, parts, 3, 0644);
    text_free(&header);
    return result;
}
