/* What the publisher says, from bytes: the subscriber's side of feed_message.h. */
#include "base/error.h"
#include "base/msgpack.h"
#include "connectors/feed_message.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define BODY_VALUES_MAX 65536 /* a full snapshot chunk has about 40,000 */

#define COUNT(array) (sizeof(array) / sizeof *(array))

static int get_number(const struct msgpack_value *map, const char *key, uint32_t *ret_value)
{
    uint64_t value;
    int result = msgpack_get_uint(map, key, &value);
    if (result)
        return result;
    if (value > UINT32_MAX)
        return error_set(ERROR_INPUT, "key '%s' is larger than 2^32 - 1", key);
    *ret_value = (uint32_t)value;
    return 0;
}

static int get_float(const struct msgpack_value *map, const char *key, float *ret_value)
{
    double value;
    int result = msgpack_get_double(map, key, &value);
    if (result)
        return result;
    if (fabs(value) > 3.4028234663852886e38)
        return error_set(ERROR_INPUT, "key '%s' is not a single-precision number", key);
    *ret_value = (float)value;
    return 0;
}

static int get_stream(const struct msgpack_value *map, uint8_t *ret_stream)
{
    char name[16];
    int result = msgpack_get_string(map, "stream", name, sizeof name);
    if (result)
        return result;
    for (size_t i = 0; i < COUNT(feed_streams); i++)
        if (strcmp(feed_streams[i], name) == 0) {
            *ret_stream = (uint8_t)i;
            return 0;
        }
    return error_set(ERROR_INPUT, "there is no stream '%s'", name);
}

static int get_id(const struct msgpack_value *map, char id_str[QUEUE_ID_BYTES])
{
    int result = msgpack_get_string(map, "id", id_str, QUEUE_ID_BYTES);
    return !result && !id_str[0] ? error_set(ERROR_INPUT, "key 'id' is empty") : result;
}

static int get_entry(const struct msgpack_value *map, struct queue_entry *entry)
{
    entry->key = 0;
    int result = get_id(map, entry->id_str);
    if (!result)
        result = get_number(map, "rank", &entry->rank);
    if (!result)
        result = get_stream(map, &entry->stream);
    if (!result)
        result = msgpack_get_double(map, "probability", &entry->probability);
    if (!result)
        result = get_float(map, "score", &entry->score);
    if (!result)
        result = get_float(map, "total", &entry->total);
    if (!result)
        result = get_float(map, "expected", &entry->expected);
    if (!result)
        result = get_number(map, "model", &entry->model);
    return result ? result : msgpack_get_int(map, "leased_until_ms", &entry->leased_until_ms);
}

static int get_retraction(const struct msgpack_value *map, struct retraction *retraction)
{
    char reason[32];
    int result = get_id(map, retraction->id_str);
    if (!result)
        result = msgpack_get_string(map, "reason", reason, sizeof reason);
    if (result)
        return result;
    const char *known = feed_reason(reason);
    retraction->reason = known ? known : "other";
    return 0;
}

/* The array of `key`, refused above `limit` items; the count goes into the message. */
static int get_array(const struct msgpack_value *map, const char *key, size_t limit, struct feed_message *message,
                     const struct msgpack_value **ret_array)
{
    int result = msgpack_get_array(map, key, ret_array, &message->count);
    if (!result && message->count > limit)
        return error_set(ERROR_LIMIT, "key '%s' has %zu items, more than %zu", key, message->count, limit);
    return result;
}

static int get_entries(const struct msgpack_value *map, size_t limit, struct feed_message *message)
{
    const struct msgpack_value *array;
    int result = get_array(map, "entries", limit, message, &array);
    for (size_t i = 0; i < message->count && !result; i++)
        result = get_entry(msgpack_item(array, i), &message->entries[i]);
    return result;
}

static int decode_upsert(const struct msgpack_value *map, struct feed_message *message)
{
    int result = get_number(map, "model", &message->model);
    return result ? result : get_entries(map, FEED_UPSERT_ENTRIES, message);
}

static int decode_retract(const struct msgpack_value *map, struct feed_message *message)
{
    const struct msgpack_value *array;
    int result = get_array(map, "entries", FEED_UPSERT_ENTRIES, message, &array);
    for (size_t i = 0; i < message->count && !result; i++)
        result = get_retraction(msgpack_item(array, i), &message->retractions[i]);
    return result;
}

static int get_whole(const struct msgpack_value *map, struct feed_message *message)
{
    int result = msgpack_get_uint(map, "length", &message->length);
    return result ? result : msgpack_get_uint(map, "checksum", &message->checksum);
}

static int decode_heartbeat(const struct msgpack_value *map, struct feed_message *message)
{
    int result = get_number(map, "model", &message->model);
    return result ? result : get_whole(map, message);
}

static int decode_rerank(const struct msgpack_value *map, struct feed_message *message)
{
    int result = msgpack_get_uint(map, "cycle", &message->cycle);
    return result ? result : decode_heartbeat(map, message);
}

static int decode_model(const struct msgpack_value *map, struct feed_message *message)
{
    int result = get_number(map, "model", &message->model);
    return result ? result : msgpack_get_string(map, "why", message->why, sizeof message->why);
}

static int decode_snapshot(const struct msgpack_value *map, struct feed_message *message)
{
    int result = msgpack_get_uint(map, "cycle", &message->cycle);
    if (!result)
        result = get_number(map, "model", &message->model);
    if (!result)
        result = msgpack_get_uint(map, "length", &message->length);
    if (!result)
        result = msgpack_get_uint(map, "from", &message->from);
    if (!result)
        result = msgpack_get_uint(map, "next", &message->next);
    return result ? result : get_entries(map, FEED_SNAPSHOT_ENTRIES, message);
}

static int decode_replay(const struct msgpack_value *map, struct feed_message *message)
{
    const struct msgpack_value *array;
    int result = get_whole(map, message);
    if (!result)
        result = msgpack_get_uint(map, "from_seq", &message->from_seq);
    if (!result)
        result = get_array(map, "messages", FEED_REPLAY_MESSAGES, message, &array);
    for (size_t i = 0; i < message->count && !result; i++)
        result = msgpack_bytes(msgpack_item(array, i), &message->messages[i].bytes, &message->messages[i].length);
    return result;
}

static int decode_error(const struct msgpack_value *map, struct feed_message *message)
{
    return msgpack_get_string(map, "message", message->why, sizeof message->why);
}

static const struct {
    const char *name;
    enum feed_kind kind;
    const char *seq_key; /* NULL: the body has no header */
    int (*decode)(const struct msgpack_value *map, struct feed_message *message);
} kinds[] = {
    {"upsert",    FEED_UPSERT,    "seq",      decode_upsert   },
    {"retract",   FEED_RETRACT,   "seq",      decode_retract  },
    {"rerank",    FEED_RERANK,    "seq",      decode_rerank   },
    {"model",     FEED_MODEL,     "seq",      decode_model    },
    {"heartbeat", FEED_HEARTBEAT, "last_seq", decode_heartbeat},
    {"snapshot",  FEED_SNAPSHOT,  "seq",      decode_snapshot },
    {"replay",    FEED_REPLAY,    "seq",      decode_replay   },
    {"too_old",   FEED_TOO_OLD,   "seq",      NULL            },
    {"error",     FEED_ERROR,     NULL,       decode_error    },
};

static int get_header(const struct msgpack_value *map, const char *seq_key, struct feed_message *message)
{
    int result = msgpack_get_string(map, "epoch", message->epoch, sizeof message->epoch);
    if (!result)
        result = msgpack_get_uint(map, seq_key, &message->seq);
    if (!result)
        result = msgpack_get_string(map, "schema", message->schema, sizeof message->schema);
    if (!result && msgpack_has(map, "request"))
        result = msgpack_get_uint(map, "request", &message->request);
    return result ? result : msgpack_get_int(map, "unix_ms", &message->unix_ms);
}

static int decode_body(const struct msgpack_value *map, struct feed_message *message)
{
    char kind[32];
    size_t i = 0;
    int result = feed_check_version(map);
    if (!result)
        result = msgpack_get_string(map, "kind", kind, sizeof kind);
    if (result)
        return result;
    while (i < COUNT(kinds) && strcmp(kinds[i].name, kind) != 0)
        i++;
    if (i == COUNT(kinds))
        return get_header(map, "seq", message);
    message->kind = kinds[i].kind;
    if (kinds[i].seq_key)
        result = get_header(map, kinds[i].seq_key, message);
    return result || !kinds[i].decode ? result : kinds[i].decode(map, message);
}

int feed_decode(const void *bytes, size_t length, struct feed_message *ret_message)
{
    struct msgpack_body *body;
    if (length > FEED_BODY_BYTES_MAX)
        return error_set(ERROR_LIMIT, "a feed message of %zu bytes is longer than %zu", length, FEED_BODY_BYTES_MAX);
    int result = msgpack_read(bytes, length, BODY_VALUES_MAX, &body);
    if (result)
        return result;
    memset(ret_message, 0, offsetof(struct feed_message, entries));
    result = decode_body(msgpack_root(body), ret_message);
    msgpack_free(body);
    return result;
}
