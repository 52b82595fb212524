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
#define METADATA         "__metadata__"
#define ARCHITECTURE     "architecture"
#define TARGET           "target"
#define OUTPUTS          "outputs"
#define CONFIG_BYTES_MAX ((size_t)1 << 20)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file's numbers are little-endian");

/* Where a tensor lies, in bytes behind the header. */
struct extent {
    size_t begin, end;
    const char *name;
};

struct loading {
    const char *path, *net_name;
    const struct safetensors_head *head; /* NULL: the net's own tensors */
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
static int check_known(const struct loading *loading, const char *key)
{
    const char *name = without_prefix(key), *dot = strrchr(name, '.');
    if (!loading->head && (strncmp(name, "classifier.", 11) == 0 || strncmp(name, "head.", 5) == 0 ||
                           (dot && strcmp(dot, ".num_batches_tracked") == 0)))
        return 0;
    for (int i = 0; i < loading->tensors; i++)
        if (strcmp(loading->tensor[i].name, name) == 0)
            return name != key && json_object_get(loading->header, name)
                       ? error_set(ERROR_INPUT, "%s: tensor %s is there twice, with and without 'encoder.'",
                                   loading->path, name)
                       : 0;
    return error_set(ERROR_INPUT, "%s: tensor %.100s does not belong to %s%s", loading->path, key,
                     loading->head ? "a head of " : "", loading->net_name);
}

static int compare_extents(const void *a, const void *b)
{
    const struct extent *left = a, *right = b;
    return left->begin != right->begin ? (left->begin > right->begin) - (left->begin < right->begin)
                                       : (left->end > right->end) - (left->end < right->end);
}

/* Every entry is known, lies inside the file and shares no byte with another. */
static int check_entries(const struct loading *loading)
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
        if (strcmp(key, METADATA) == 0)
            continue;
        result = check_known(loading, key);
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

/* timm and Zoobot say it in config.json beside the weights. The caller frees the text; NULL without such a file. */
static int read_config(const char *path, json_t **ret_config)
{
    const char *slash = strrchr(path, '/');
    char config[FILE_PATH_BYTES], *bytes;
    size_t length;
    json_error_t problem;
    *ret_config = NULL;
    int result = file_path(config, sizeof config, "%.*sconfig.json", slash ? (int)(slash + 1 - path) : 0, path);
    if (!result)
        result = file_read(config, CONFIG_BYTES_MAX, &bytes, &length);
    if (result)
        return result == ERROR_NOT_FOUND ? 0 : result;
    *ret_config = json_loadb(bytes, length, 0, &problem);
    free(bytes);
    return *ret_config ? 0 : error_set(ERROR_INPUT, "%s is no JSON: %s", config, problem.text);
}

/* Conventions (padding, batch norm's epsilon) leave no trace in names and shapes: weights run by others give other answers. */
static int check_architecture(const struct loading *loading)
{
    json_t *config = NULL;
    const char *said = json_string_value(json_object_get(json_object_get(loading->header, METADATA), ARCHITECTURE));
    int result = said ? 0 : read_config(loading->path, &config);
    if (config)
        said = json_string_value(json_object_get(config, ARCHITECTURE));
    if (!result && !said)
        result = error_set(ERROR_INPUT,
                           "%s does not say of which network its weights are (padding and batch norm's epsilon do not "
                           "show in them): put the config.json it came with beside it, or one with {\"" ARCHITECTURE
                           "\": \"%s\"} if you know that it is",
                           loading->path, loading->net_name);
    if (!result && strcmp(said, loading->net_name) != 0)
        result = error_set(ERROR_INPUT, "%s holds weights of %.64s, the network is %s: set trunk.network to the former",
                           loading->path, said, loading->net_name);
    json_decref(config);
    return result;
}

/* --- heads -------------------------------------------------------------------------------------------------------- */

/* The names as one text, a JSON list; NULL without memory or where a name is no UTF-8. The caller frees it. */
static char *outputs_text(const struct safetensors_head *head)
{
    json_t *list = json_array();
    for (int i = 0; i < head->outputs; i++)
        json_array_append_new(list, json_string(head->output[i]));
    char *text = json_array_size(list) == (size_t)head->outputs ? json_dumps(list, JSON_COMPACT) : NULL;
    json_decref(list);
    return text;
}

static int head_tensors(const struct net *net, const struct safetensors_head *head, struct net_tensor *tensor)
{
    size_t weights = (size_t)head->outputs * (size_t)net->outputs;
    tensor[0] = (struct net_tensor){
        "classifier.weight", {head->outputs, net->outputs},
         2, 0, weights
    };
    tensor[1] = (struct net_tensor){"classifier.bias", {head->outputs}, 1, weights, (size_t)head->outputs};
    return 2;
}

/* Weights of the right shape for other answers would be taken for what they are not. */
static int check_head(const struct loading *loading)
{
    const json_t *metadata = json_object_get(loading->header, METADATA);
    const char *target = json_string_value(json_object_get(metadata, TARGET)),
               *outputs = json_string_value(json_object_get(metadata, OUTPUTS));
    if (!target || !outputs)
        return error_set(ERROR_INPUT, "%s is no head: its metadata have no \"" TARGET "\" and \"" OUTPUTS "\"",
                         loading->path);
    if (strcmp(target, loading->head->target) != 0)
        return error_set(ERROR_INPUT, "%s is a head for %.32s, not for %s", loading->path, target,
                         loading->head->target);
    char *wanted = outputs_text(loading->head);
    int result = !wanted ? error_set(ERROR_SYSTEM, "out of memory for the names of a head")
                 : strcmp(outputs, wanted) != 0
                     ? error_set(ERROR_INPUT, "%s answers %.200s, wanted is %.200s", loading->path, outputs, wanted)
                     : 0;
    free(wanted);
    return result;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static int parse(struct loading *loading, const char *bytes, size_t length)
{
    const char *path = loading->path;
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
    loading->header = header;
    loading->data = bytes + 8 + header_bytes;
    loading->data_bytes = length - 8 - (size_t)header_bytes;
    int result = check_architecture(loading);
    if (!result && loading->head)
        result = check_head(loading);
    if (!result)
        result = check_entries(loading);
    for (int i = 0; i < loading->tensors && !result; i++)
        result = load_tensor(loading, &loading->tensor[i]);
    json_decref(header);
    return result;
}

/* Fills `values` with the tensors of `loading`, or leaves them as they are. */
static int load(struct loading *loading, float *values)
{
    const struct net_tensor *last = &loading->tensor[loading->tensors - 1];
    size_t length, value_bytes = (last->offset + last->count) * sizeof(float);
    char *bytes;
    int result = file_read(loading->path, FILE_BYTES_MAX, &bytes, &length);
    if (result)
        return result;
    loading->parameters = malloc(value_bytes);
    result = loading->parameters ? parse(loading, bytes, length)
                                 : error_set(ERROR_SYSTEM, "out of memory for the weights of %s", loading->path);
    if (!result)
        memcpy(values, loading->parameters, value_bytes);
    free(loading->parameters);
    free(bytes);
    return result;
}

static _Thread_local struct loading scratch; /* too large for a small stack */

int safetensors_load(const char *path, const struct net *net, float *parameters)
{
    scratch = (struct loading){.path = path, .net_name = net->name};
    scratch.tensors = net_tensors(net, scratch.tensor, TENSORS_MAX);
    return load(&scratch, parameters);
}

int safetensors_load_head(const char *path, const struct net *net, const struct safetensors_head *head, float *values)
{
    scratch = (struct loading){.path = path, .net_name = net->name, .head = head};
    scratch.tensors = head_tensors(net, head, scratch.tensor);
    return load(&scratch, values);
}

/* Takes `metadata`, an object of texts. */
static int save(const char *path, json_t *metadata, const struct net_tensor *tensor, int tensors, const float *values)
{
    const struct net_tensor *last = &tensor[tensors - 1];
    struct text header = text_new(HEADER_BYTES_MAX);
    char *said = json_dumps(metadata, JSON_COMPACT);
    json_decref(metadata);
    if (!said)
        return error_set(ERROR_INPUT, "%s: a name is no UTF-8", path);
    text_append(&header, "{\"" METADATA "\":%s", said);
    free(said);
    for (int i = 0; i < tensors; i++) {
        text_append(&header, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", tensor[i].name);
        for (int d = 0; d < tensor[i].rank; d++)
            text_append(&header, "%s%d", d ? "," : "", tensor[i].shape[d]);
        text_append(&header, "],\"data_offsets\":[%zu,%zu]}", tensor[i].offset * sizeof(float),
                    (tensor[i].offset + tensor[i].count) * sizeof(float));
    }
    text_append(&header, "}");
    while (header.length % 8 && !header.error)
        text_append(&header, " ");
    int result = text_error(&header);
    uint64_t header_bytes = header.length;
    struct file_part parts[] = {
        {&header_bytes, 8                                           },
        {header.bytes,  header.length                               },
        {values,        (last->offset + last->count) * sizeof(float)}
    };
    if (!result)
        result = file_write(path, parts, 3, 0644);
    text_free(&header);
    return result;
}

int safetensors_save(const char *path, const struct net *net, const float *parameters)
{
    int tensors = net_tensors(net, scratch.tensor, TENSORS_MAX);
    return save(path, json_pack("{s:s}", ARCHITECTURE, net->name), scratch.tensor, tensors, parameters);
}

int safetensors_save_head(const char *path, const struct net *net, const struct safetensors_head *head,
                          const float *values)
{
    char *outputs = outputs_text(head);
    if (!outputs)
        return error_set(ERROR_INPUT, "%s: a name of its outputs is no UTF-8", path);
    json_t *metadata = json_pack("{s:s,s:s,s:s}", ARCHITECTURE, net->name, TARGET, head->target, OUTPUTS, outputs);
    free(outputs);
    return save(path, metadata, scratch.tensor, head_tensors(net, head, scratch.tensor), values);
}
