/* See msgpack.h. */
#include "base/msgpack.h"
#include "base/error.h"

#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

/* --- writing --- */

static int append(void *context, const char *bytes, size_t length)
{
    text_append_bytes(context, bytes, length);
    return 0; /* the text remembers its own error */
}

static msgpack_packer packer_of(struct text *out)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, out, append);
    return packer;
}

void msgpack_map(struct text *out, size_t pairs)
{
    msgpack_packer packer = packer_of(out);
    msgpack_pack_map(&packer, pairs);
}

void msgpack_array(struct text *out, size_t values)
{
    msgpack_packer packer = packer_of(out);
    msgpack_pack_array(&packer, values);
}

void msgpack_string(struct text *out, const char *value)
{
    msgpack_packer packer = packer_of(out);
    msgpack_pack_str_with_body(&packer, value, strlen(value));
}

void msgpack_binary(struct text *out, const void *bytes, size_t length)
{
    msgpack_packer packer = packer_of(out);
    msgpack_pack_bin_with_body(&packer, bytes, length);
}

void msgpack_uint(struct text *out, uint64_t value)
{
    msgpack_packer packer = packer_of(out);
    msgpack_pack_uint64(&packer, value);
}

void msgpack_int(struct text *out, int64_t value)
{
    msgpack_packer packer = packer_of(out);
    msgpack_pack_int64(&packer, value);
}

void msgpack_double(struct text *out, double value)
{
    msgpack_packer packer = packer_of(out);
    msgpack_pack_double(&packer, value);
}

void msgpack_float(struct text *out, float value)
{
    msgpack_packer packer = packer_of(out);
    msgpack_pack_float(&packer, value);
}

void msgpack_bool(struct text *out, int value)
{
    msgpack_packer packer = packer_of(out);
    if (value)
        msgpack_pack_true(&packer);
    else
        msgpack_pack_false(&packer);
}

void msgpack_put_string(struct text *out, const char *key, const char *value)
{
    msgpack_string(out, key);
    msgpack_string(out, value);
}

void msgpack_put_uint(struct text *out, const char *key, uint64_t value)
{
    msgpack_string(out, key);
    msgpack_uint(out, value);
}

void msgpack_put_int(struct text *out, const char *key, int64_t value)
{
    msgpack_string(out, key);
    msgpack_int(out, value);
}

void msgpack_put_double(struct text *out, const char *key, double value)
{
    msgpack_string(out, key);
    msgpack_double(out, value);
}

void msgpack_put_float(struct text *out, const char *key, float value)
{
    msgpack_string(out, key);
    msgpack_float(out, value);
}

void msgpack_put_array(struct text *out, const char *key, size_t values)
{
    msgpack_string(out, key);
    msgpack_array(out, values);
}

/* --- the look before the leap: structure and limits, without allocating --- */

struct scan {
    const unsigned char *at, *end;
    size_t values_left;
    size_t pending[MSGPACK_DEPTH_MAX + 1]; /* values still to come at each depth */
    int depth;
};

/*
 * What may follow a first byte of 0xc0 and up: how many bytes give a length, how many bytes follow anyway,
 * and what the length counts. Extension types are not part of any message here.
 */
static const struct {
    unsigned char length_bytes, fixed_bytes,
        counts; /* counts: 0 nothing, 'b' bytes, 'a' values, 'm' pairs, 'x' refused */
} markers[32] = {
    {0, 0, 0  },
    {0, 0, 'x'},
    {0, 0, 0  },
    {0, 0, 0  }, /* c0 nil, c1 unused, false, true */
    {1, 0, 'b'},
    {2, 0, 'b'},
    {4, 0, 'b'},
    {0, 0, 'x'}, /* c4 binary; c7 extension */
    {0, 0, 'x'},
    {0, 0, 'x'},
    {0, 4, 0  },
    {0, 8, 0  }, /* c8 extension; ca float, double */
    {0, 1, 0  },
    {0, 2, 0  },
    {0, 4, 0  },
    {0, 8, 0  }, /* cc unsigned */
    {0, 1, 0  },
    {0, 2, 0  },
    {0, 4, 0  },
    {0, 8, 0  }, /* d0 signed */
    {0, 0, 'x'},
    {0, 0, 'x'},
    {0, 0, 'x'},
    {0, 0, 'x'}, /* d4 extension */
    {0, 0, 'x'},
    {1, 0, 'b'},
    {2, 0, 'b'},
    {4, 0, 'b'}, /* d8 extension; d9 string */
    {2, 0, 'a'},
    {4, 0, 'a'},
    {2, 0, 'm'},
    {4, 0, 'm'}, /* dc array, de map */
};

static int cut_short(void)
{
    return error_set(ERROR_INPUT, "MessagePack body ends in the middle of a value");
}

static int skip_bytes(struct scan *scan, uint64_t count)
{
    if (count > (uint64_t)(scan->end - scan->at))
        return cut_short();
    scan->at += count;
    return 0;
}

static int enter(struct scan *scan, uint64_t values)
{
    if (values > scan->values_left)
        return error_set(ERROR_LIMIT, "MessagePack body holds more values than allowed");
    if (values > (uint64_t)(scan->end - scan->at))
        return cut_short(); /* a value has at least one byte */
    if (values == 0)
        return 0;
    if (scan->depth == MSGPACK_DEPTH_MAX)
        return error_set(ERROR_LIMIT, "MessagePack body is nested more than %d deep", MSGPACK_DEPTH_MAX);
    scan->pending[++scan->depth] = values;
    return 0;
}

static int scan_marked(struct scan *scan, unsigned marker)
{
    int bytes = markers[marker - 0xc0].length_bytes, counts = markers[marker - 0xc0].counts;
    uint64_t length = 0;
    if (counts == 'x')
        return error_set(ERROR_INPUT, "MessagePack type 0x%02x is not allowed here", marker);
    if (bytes > scan->end - scan->at)
        return cut_short();
    for (; bytes; bytes--)
        length = length << 8 | *scan->at++;
    if (counts == 'a' || counts == 'm')
        return enter(scan, counts == 'm' ? 2 * length : length);
    return skip_bytes(scan, length + markers[marker - 0xc0].fixed_bytes);
}

static int scan_value(struct scan *scan)
{
    if (scan->at == scan->end)
        return cut_short();
    if (scan->values_left == 0)
        return error_set(ERROR_LIMIT, "MessagePack body holds more values than allowed");
    scan->values_left--;
    unsigned marker = *scan->at++;
    if (marker < 0x80 || marker >= 0xe0)
        return 0; /* small integers */
    if (marker < 0x90)
        return enter(scan, 2 * (marker & 15));
    if (marker < 0xa0)
        return enter(scan, marker & 15);
    if (marker < 0xc0)
        return skip_bytes(scan, marker & 31);
    return scan_marked(scan, marker);
}

static int check_structure(const void *bytes, size_t length, size_t values_max)
{
    const unsigned char *start = bytes;
    struct scan scan = {.at = start, .end = start + length, .values_left = values_max, .pending = {1}};
    while (scan.depth > 0 || scan.pending[0]) {
        if (scan.pending[scan.depth] == 0) {
            scan.depth--;
            continue;
        }
        scan.pending[scan.depth]--;
        int result = scan_value(&scan);
        if (result)
            return result;
    }
    if (scan.at != scan.end)
        return error_set(ERROR_INPUT, "MessagePack body has %td bytes behind its end", scan.end - scan.at);
    return 0;
}

/* --- reading --- */

struct msgpack_body {
    msgpack_unpacked unpacked;
};

int msgpack_read(const void *bytes, size_t length, size_t values_max, struct msgpack_body **ret_body)
{
    int result = check_structure(bytes, length, values_max);
    if (result)
        return result;
    struct msgpack_body *body = calloc(1, sizeof *body);
    if (!body)
        return error_set(ERROR_SYSTEM, "out of memory for a MessagePack body");
    size_t offset = 0;
    msgpack_unpack_return outcome = msgpack_unpack_next(&body->unpacked, bytes, length, &offset);
    if (outcome != MSGPACK_UNPACK_SUCCESS) {
        msgpack_free(body);
        return outcome == MSGPACK_UNPACK_NOMEM_ERROR ? error_set(ERROR_SYSTEM, "out of memory for a MessagePack body")
                                                     : error_set(ERROR_INPUT, "MessagePack body is malformed");
    }
    *ret_body = body;
    return 0;
}

void msgpack_free(struct msgpack_body *body)
{
    if (body)
        msgpack_unpacked_destroy(&body->unpacked);
    free(body);
}

static const msgpack_object *object_of(const struct msgpack_value *value)
{
    return (const msgpack_object *)value;
}

static const struct msgpack_value *value_of(const msgpack_object *object)
{
    return (const struct msgpack_value *)object;
}

const struct msgpack_value *msgpack_root(const struct msgpack_body *body)
{
    return value_of(&body->unpacked.data);
}

static const msgpack_object *find(const struct msgpack_value *map, const char *key)
{
    const msgpack_object *object = object_of(map);
    size_t length = strlen(key);
    if (object->type != MSGPACK_OBJECT_MAP)
        return NULL;
    for (uint32_t i = 0; i < object->via.map.size; i++) {
        const msgpack_object *name = &object->via.map.ptr[i].key;
        if (name->type == MSGPACK_OBJECT_STR && name->via.str.size == length &&
            memcmp(name->via.str.ptr, key, length) == 0)
            return &object->via.map.ptr[i].val;
    }
    return NULL;
}

int msgpack_has(const struct msgpack_value *map, const char *key)
{
    return find(map, key) != NULL;
}

/* The message for a missing key or one of another type. */
static int wrong(const msgpack_object *found, const char *key, const char *wanted)
{
    return error_set(ERROR_INPUT, found ? "key '%s' must be %s" : "key '%s' (%s) is missing", key, wanted);
}

int msgpack_get_uint(const struct msgpack_value *map, const char *key, uint64_t *ret_value)
{
    const msgpack_object *found = find(map, key);
    if (!found || found->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return wrong(found, key, "an integer of at least 0");
    *ret_value = found->via.u64;
    return 0;
}

int msgpack_get_int(const struct msgpack_value *map, const char *key, int64_t *ret_value)
{
    const msgpack_object *found = find(map, key);
    if (!found || (found->type != MSGPACK_OBJECT_NEGATIVE_INTEGER &&
                   (found->type != MSGPACK_OBJECT_POSITIVE_INTEGER || found->via.u64 > INT64_MAX)))
        return wrong(found, key, "an integer of 64 bits with sign");
    *ret_value = found->via.i64;
    return 0;
}

int msgpack_get_double(const struct msgpack_value *map, const char *key, double *ret_value)
{
    const msgpack_object *found = find(map, key);
    double value = NAN;
    if (found && (found->type == MSGPACK_OBJECT_FLOAT32 || found->type == MSGPACK_OBJECT_FLOAT64))
        value = found->via.f64;
    else if (found && found->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        value = (double)found->via.u64;
    else if (found && found->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        value = (double)found->via.i64;
    if (!isfinite(value))
        return wrong(found, key, "a finite number");
    *ret_value = value;
    return 0;
}

int msgpack_get_bool(const struct msgpack_value *map, const char *key, int *ret_value)
{
    const msgpack_object *found = find(map, key);
    if (!found || found->type != MSGPACK_OBJECT_BOOLEAN)
        return wrong(found, key, "true or false");
    *ret_value = found->via.boolean;
    return 0;
}

int msgpack_get_string(const struct msgpack_value *map, const char *key, char *value, size_t size)
{
    const msgpack_object *found = find(map, key);
    if (!found || found->type != MSGPACK_OBJECT_STR || memchr(found->via.str.ptr, 0, found->via.str.size))
        return wrong(found, key, "a string without zero bytes");
    if (found->via.str.size >= size)
        return error_set(ERROR_INPUT, "key '%s' is longer than %zu bytes", key, size - 1);
    memcpy(value, found->via.str.ptr, found->via.str.size);
    value[found->via.str.size] = 0;
    return 0;
}

int msgpack_get_array(const struct msgpack_value *map, const char *key, const struct msgpack_value **ret_array,
                      size_t *ret_count)
{
    const msgpack_object *found = find(map, key);
    if (!found || found->type != MSGPACK_OBJECT_ARRAY)
        return wrong(found, key, "an array");
    *ret_array = value_of(found);
    *ret_count = found->via.array.size;
    return 0;
}

const struct msgpack_value *msgpack_item(const struct msgpack_value *array, size_t index)
{
    return value_of(&object_of(array)->via.array.ptr[index]);
}

int msgpack_bytes(const struct msgpack_value *value, const void **ret_bytes, size_t *ret_length)
{
    const msgpack_object *object = object_of(value);
    if (object->type != MSGPACK_OBJECT_BIN)
        return error_set(ERROR_INPUT, "a binary value was expected");
    *ret_bytes = object->via.bin.ptr;
    *ret_length = object->via.bin.size;
    return 0;
}
