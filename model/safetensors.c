/* See safetensors.h. */
#include "model/safetensors.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX   ((size_t)1 << 30)
#define HEADER_BYTES_MAX ((size_t)16 << 20)
#define TENSORS_MAX      (4 * NET_LAYERS_MAX)
#define ENTRIES_MAX      65536 /* of a header, tensors that are passed over included */
#define RANK_MAX         8

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file's numbers are little-endian");

/* Where a tensor lies, in bytes behind the header. */
struct extent {
    size_t begin, end;
    const char *name;
};

struct loading {
    const char *path;
    json_t *header;
    const char *data;
    size_t data_bytes;
    struct net_tensor tensor[TENSORS_MAX];
    int tensors;
    float *parameters;
};

static const char *without_prefix(const char *key)
{
    return strncmp(key, "encoder.", 8) == 0 ? key + 8 : key;
}

/* The header's entry under the plain or Zoobot's name. */
static const json_t *find_entry(const json_t *header, const char *name)
{
    char prefixed[96];
    snprintf(prefixed, sizeof prefixed, "encoder.%s", name);
    const json_t *entry = json_object_get(header, name);
    return entry ? entry : json_object_get(header, prefixed);
}

static void shape_text(const json_int_t *shape, size_t rank, char text[200])
{
    int used = snprintf(text, 200, "[");
    for (size_t i = 0; i < rank && i < RANK_MAX; i++)
        used += snprintf(text + used, (size_t)(200 - used), "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(text + used, (size_t)(200 - used), rank > RANK_MAX ? ", ...]" : "]");
}

static int check_shape(const char *path, const struct net_tensor *tensor, const json_t *shape)
{
    json_int_t want[RANK_MAX] = {0}, have[RANK_MAX] = {0};
    size_t rank = json_array_size(shape);
    int same = json_is_array(shape) && rank == (size_t)tensor->rank;
    char want_text[200], have_text[200];
    for (size_t i = 0; i < RANK_MAX; i++) {
        want[i] = i < (size_t)tensor->rank ? tensor->shape[i] : 0;
        have[i] = json_integer_value(json_array_get(shape, i));
        same = same && want[i] == have[i];
    }
    if (same)
        return 0;
    shape_text(want, (size_t)tensor->rank, want_text);
    shape_text(have, rank, have_text);
    return error_set(ERROR_INPUT, "%s: tensor %s has shape %s, this network needs %s", path, tensor->name, have_text,
                     want_text);
}

/* Weights that are not finite, or a negative variance, would make every embedding NaN. */
static int check_values(const char *path, const struct net_tensor *tensor, const float *values)
{
    const char *dot = strrchr(tensor->name, '.');
    int variance = dot && strcmp(dot, ".running_var") == 0;
    for (size_t i = 0; i < tensor->count; i++)
        if (!isfinite(values[i]) || (variance && values[i] < 0))
            return error_set(ERROR_INPUT, "%s: tensor %s holds %g at element %zu: the file is damaged", path,
                             tensor->name, (double)values[i], i);
    return 0;
}

static int read_extent(const struct loading *loading, const char *name, const json_t *entry, struct extent *ret_extent)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    json_int_t begin = json_integer_value(from), end = json_integer_value(to);
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to) || begin < 0 || end < begin)
        return error_set(ERROR_INPUT, "%s: tensor %s has no valid data_offsets", loading->path, name);
    if ((size_t)end > loading->data_bytes)
        return error_set(ERROR_INPUT, "%s: tensor %s ends %zu bytes behind the end of the file: is it cut short?",
                         loading->path, name, (size_t)end - loading->data_bytes);
    *ret_extent = (struct extent){(size_t)begin, (size_t)end, name};
    return 0;
}

static int load_tensor(struct loading *loading, const struct net_tensor *tensor)
{
    const json_t *entry = find_entry(loading->header, tensor->name);
    if (!entry)
        return error_set(ERROR_INPUT, "%s: tensor %s is missing", loading->path, tensor->name);
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (!type || strcmp(type, "F32") != 0)
        return error_set(ERROR_INPUT, "%s: tensor %s has type %.16s, only F32 is taken", loading->path, tensor->name,
                         type ? type : "(none)");
    struct extent extent;
    int result = check_shape(loading->path, tensor, json_object_get(entry, "shape"));
    if (!result)
        result = read_extent(loading, tensor->name, entry, &extent);
    if (result)
        return result;
    if (extent.end - extent.begin != tensor->count * sizeof(float))
        return error_set(ERROR_INPUT, "%s: tensor %s has %zu bytes of data, its shape needs %zu", loading->path,
                         tensor->name, extent.end - extent.begin, tensor->count * sizeof(float));
    memcpy(loading->parameters + tensor->offset, loading->data + extent.begin, tensor->count * sizeof(float));
    return check_values(loading->path, tensor, loading->parameters + tensor->offset);
}

/* A tensor the network has no place for is a sign of another architecture, not something to pass over. */
static int check_known(const struct loading *loading, const char *net_name, const char *key)
{
    const char *name = without_prefix(key), *dot = strrchr(name, '.');
    if (strncmp(name, "classifier.", 11) == 0 || strncmp(name, "head.", 5) == 0 ||
        (dot && strcmp(dot, ".num_batches_tracked") == 0))
        return 0;
    for (int i = 0; i < loading->tensors; i++)
        if (strcmp(loading->tensor[i].name, name) == 0)
            return name != key && json_object_get(loading->header, name)
                       ? error_set(ERROR_INPUT, "%s: tensor %s is there twice, with and without 'encoder.'",
                                   loading->path, name)
                       : 0;
    return error_set(ERROR_INPUT, "%s: tensor %.100s does not belong to %s", loading->path, key, net_name);
}

static int compare_extents(const void *a, const void *b)
{
    const struct extent *left = a, *right = b;
    return left->begin != right->begin ? (left->begin > right->begin) - (left->begin < right->begin)
                                       : (left->end > right->end) - (left->end < right->end);
}

/* Every entry is known, lies inside the file and shares no byte with another. */
static int check_entries(const struct loading *loading, const char *net_name)
{
    size_t count = 0, entries = json_object_size(loading->header);
    struct extent *extent = entries <= ENTRIES_MAX ? calloc(entries + 1, sizeof *extent) : NULL;
    const char *key;
    json_t *entry;
    int result = 0;
    if (!extent)
        return error_set(ERROR_LIMIT, "%s: %zu tensors are too many", loading->path, entries);
    json_object_foreach(loading->header, key, entry)
    {
        if (strcmp(key, "__metadata__") == 0)
            continue;
        result = check_known(loading, net_name, key);
        if (!result)
            result = read_extent(loading, key, entry, &extent[count]);
        if (result)
            break;
        count += extent[count].end > extent[count].begin;
    }
    qsort(extent, count, sizeof *extent, compare_extents);
    for (size_t i = 1; i < count && !result; i++)
        if (extent[i].begin < extent[i - 1].end)
            result = error_set(ERROR_INPUT, "%s: tensors %.100s and %.100s overlap", loading->path, extent[i - 1].name,
                               extent[i].name);
    free(extent);
    return result;
}

static int parse(const char *path, const struct net *net, const char *bytes, size_t length, float *parameters)
{
    static _Thread_local struct loading loading; /* too large for a small stack */
    uint64_t header_bytes = 0;
    json_error_t problem;
    if (length < 8)
        return error_set(ERROR_INPUT, "%s is no safetensors file: only %zu bytes", path, length);
    memcpy(&header_bytes, bytes, 8);
    if (header_bytes > HEADER_BYTES_MAX || header_bytes > length - 8)
        return error_set(ERROR_INPUT, "%s is no safetensors file, or is cut short: header of %llu bytes", path,
                         (unsigned long long)header_bytes);
    json_t *header = json_loadb(bytes + 8, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &problem);
    if (!json_is_object(header)) {
        json_decref(header);
        return error_set(ERROR_INPUT, "%s: the header is no JSON object: %s", path, header ? "" : problem.text);
    }
    loading = (struct loading){.path = path, .header = header, .parameters = parameters};
    loading.data = bytes + 8 + header_bytes;
    loading.data_bytes = length - 8 - (size_t)header_bytes;
    loading.tensors = net_tensors(net, loading.tensor, TENSORS_MAX);
    int result = check_entries(&loading, net->name);
    for (int i = 0; i < loading.tensors && !result; i++)
        result = load_tensor(&loading, &loading.tensor[i]);
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
    text_append(&header, count ? "}" : "{}");
    while (header.length % 8 && !header.error)
        text_append(&header, " ");
    int result = text_error(&header);
    uint64_t header_bytes = header.length;
    struct file_part parts[] = {
        {&header_bytes, 8                                       },
        {header.bytes,  header.length                           },
        {parameters,    net_parameter_count(net) * sizeof(float)}
    };
    if (!result)
        result = file_write(path, parts, 3, 0644);
    text_free(&header);
    return result;
}
