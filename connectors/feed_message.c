/* See feed_message.h. */
#include "connectors/feed_message.h"
#include "base/error.h"
#include "base/msgpack.h"

#include <math.h>
#include <string.h>

#define BODY_VALUES_MAX    32768 /* a full snapshot chunk has under 10,000 */
#define REQUEST_VALUES_MAX 64

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The wire's names of enum stream (acquisition/select.h), in its order. */
static const char *const stream_names[] = {"active", "random", "pinned"};

static const char *const reasons[] = {"retired", "excluded", "bad_image", "lease_expired", "replaced"};

int feed_check_entry(const struct queue_entry *entry)
{
    if (!entry->id_str[0] || !memchr(entry->id_str, 0, sizeof entry->id_str))
        return error_set(ERROR_INPUT, "an id on the feed has 1 to %d bytes: '%.63s'", QUEUE_ID_BYTES - 1,
                         entry->id_str);
    if (entry->stream >= COUNT(stream_names))
        return error_set(ERROR_INPUT, "galaxy %s: there is no stream %d", entry->id_str, entry->stream);
    if (!isfinite(entry->probability) || !isfinite(entry->score) || !isfinite(entry->total) ||
        !isfinite(entry->expected))
        return error_set(ERROR_INPUT, "galaxy %s: probability or score is not finite", entry->id_str);
    return 0;
}

const char *feed_reason(const char *reason)
{
    for (size_t i = 0; i < COUNT(reasons); i++)
        if (strcmp(reasons[i], reason) == 0)
            return reasons[i];
    return NULL;
}

/* --- encoding --- */

static void put_kind(struct text *out, size_t more_pairs, const char *kind)
{
    msgpack_map(out, 2 + more_pairs);
    msgpack_put_uint(out, "v", FEED_VERSION);
    msgpack_put_string(out, "kind", kind);
}

/* The six pairs of every body, and room for `more_pairs`. */
static void put_header(struct text *out, size_t more_pairs, const char *kind, const struct feed_header *header)
{
    put_kind(out, 4 + more_pairs, kind);
    msgpack_put_string(out, "epoch", header->epoch);
    msgpack_put_uint(out, strcmp(kind, "heartbeat") == 0 ? "last_seq" : "seq", header->seq);
    msgpack_put_string(out, "schema", header->schema);
    msgpack_put_int(out, "unix_ms", header->unix_ms);
}

static void put_entries(struct text *out, const struct queue_entry *entries, size_t count)
{
    msgpack_put_array(out, "entries", count);
    for (const struct queue_entry *entry = entries; entry < entries + count; entry++) {
        msgpack_map(out, 9);
        msgpack_put_string(out, "id", entry->id_str);
        msgpack_put_uint(out, "rank", entry->rank);
        msgpack_put_string(out, "stream", stream_names[entry->stream]);
        msgpack_put_double(out, "probability", entry->probability);
        msgpack_put_float(out, "score", entry->score);
        msgpack_put_float(out, "total", entry->total);
        msgpack_put_float(out, "expected", entry->expected);
        msgpack_put_uint(out, "model", entry->model);
        msgpack_put_int(out, "leased_until_ms", entry->leased_until_ms);
    }
}

void feed_encode_upsert(struct text *out, const struct feed_header *header, uint32_t model,
                        const struct queue_entry *entries, size_t count)
{
    put_header(out, 2, "upsert", header);
    msgpack_put_uint(out, "model", model);
    put_entries(out, entries, count);
}

void feed_encode_retract(struct text *out, const struct feed_header *header, const struct retraction *retractions,
                         size_t count)
{
    put_header(out, 1, "retract", header);
    msgpack_put_array(out, "entries", count);
    for (size_t i = 0; i < count; i++) {
        msgpack_map(out, 2);
        msgpack_put_string(out, "id", retractions[i].id_str);
        msgpack_put_string(out, "reason", retractions[i].reason);
    }
}

void feed_encode_rerank(struct text *out, const struct feed_header *header, uint64_t cycle, uint32_t model,
                        size_t length)
{
    put_header(out, 3, "rerank", header);
    msgpack_put_uint(out, "cycle", cycle);
    msgpack_put_uint(out, "model", model);
    msgpack_put_uint(out, "length", length);
}

void feed_encode_model(struct text *out, const struct feed_header *header, uint32_t model, const char *why)
{
    put_header(out, 2, "model", header);
    msgpack_put_uint(out, "model", model);
    msgpack_put_string(out, "why", why);
}

void feed_encode_heartbeat(struct text *out, const struct feed_header *header, uint32_t model, size_t length)
{
    put_header(out, 2, "heartbeat", header);
    msgpack_put_uint(out, "model", model);
    msgpack_put_uint(out, "length", length);
}

void feed_encode_snapshot(struct text *out, const struct feed_header *header, uint64_t cycle, uint32_t model,
                          size_t length, size_t from, const struct queue_entry *entries, size_t count)
{
    put_header(out, 5, "snapshot", header);
    msgpack_put_uint(out, "cycle", cycle);
    msgpack_put_uint(out, "model", model);
    msgpack_put_uint(out, "length", length);
    msgpack_put_uint(out, "from", from);
    put_entries(out, entries, count);
}

void feed_encode_replay(struct text *out, const struct feed_header *header, uint64_t from_seq,
                        const struct feed_bytes *messages, size_t count)
{
    put_header(out, 2, "replay", header);
    msgpack_put_uint(out, "from_seq", from_seq);
    msgpack_put_array(out, "messages", count);
    for (size_t i = 0; i < count; i++)
        msgpack_binary(out, messages[i].bytes, messages[i].length);
}

void feed_encode_too_old(struct text *out, const struct feed_header *header)
{
    put_header(out, 0, "too_old", header);
}

void feed_encode_error(struct text *out, const char *message)
{
    put_kind(out, 1, "error");
    msgpack_put_string(out, "message", message);
}

void feed_encode_snapshot_request(struct text *out, uint64_t from)
{
    put_kind(out, 1, "snapshot");
    msgpack_put_uint(out, "from", from);
}

void feed_encode_replay_request(struct text *out, const char *epoch, uint64_t from_seq)
{
    put_kind(out, 2, "replay");
    msgpack_put_string(out, "epoch", epoch);
    msgpack_put_uint(out, "from_seq", from_seq);
}

/* --- decoding --- */

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
    for (size_t i = 0; i < COUNT(stream_names); i++)
        if (strcmp(stream_names[i], name) == 0) {
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

static int decode_heartbeat(const struct msgpack_value *map, struct feed_message *message)
{
    int result = get_number(map, "model", &message->model);
    return result ? result : msgpack_get_uint(map, "length", &message->length);
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
    int result = decode_rerank(map, message);
    if (!result)
        result = msgpack_get_uint(map, "from", &message->from);
    return result ? result : get_entries(map, FEED_SNAPSHOT_ENTRIES, message);
}

static int decode_replay(const struct msgpack_value *map, struct feed_message *message)
{
    const struct msgpack_value *array;
    int result = msgpack_get_uint(map, "from_seq", &message->from_seq);
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

static int check_version(const struct msgpack_value *map)
{
    uint64_t version;
    int result = msgpack_get_uint(map, "v", &version);
    if (!result && version != FEED_VERSION)
        return error_set(ERROR_INPUT, "feed version %llu is not understood, only %d: use programs of one release",
                         (unsigned long long)version, FEED_VERSION);
    return result;
}

static int get_header(const struct msgpack_value *map, const char *seq_key, struct feed_message *message)
{
    int result = msgpack_get_string(map, "epoch", message->epoch, sizeof message->epoch);
    if (!result)
        result = msgpack_get_uint(map, seq_key, &message->seq);
    if (!result)
        result = msgpack_get_string(map, "schema", message->schema, sizeof message->schema);
    return result ? result : msgpack_get_int(map, "unix_ms", &message->unix_ms);
}

static int decode_body(const struct msgpack_value *map, struct feed_message *message)
{
    char kind[32];
    size_t i = 0;
    int result = check_version(map);
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
    memset(ret_message, 0, sizeof *ret_message);
    result = decode_body(msgpack_root(body), ret_message);
    msgpack_free(body);
    return result;
}

static int decode_request(const struct msgpack_value *map, struct feed_request *request)
{
    char kind[32];
    int result = check_version(map);
    if (!result)
        result = msgpack_get_string(map, "kind", kind, sizeof kind);
    if (result)
        return result;
    if (strcmp(kind, "snapshot") == 0)
        return msgpack_get_uint(map, "from", &request->from);
    if (strcmp(kind, "replay") != 0)
        return error_set(ERROR_INPUT, "there is no request '%s', only snapshot and replay", kind);
    request->is_replay = true;
    result = msgpack_get_uint(map, "from_seq", &request->from);
    return result ? result : msgpack_get_string(map, "epoch", request->epoch, sizeof request->epoch);
}

int feed_decode_request(const void *bytes, size_t length, struct feed_request *ret_request)
{
    struct msgpack_body *body;
    if (length > FEED_REQUEST_BYTES)
        return error_set(ERROR_LIMIT, "a request of %zu bytes is longer than %zu", length, FEED_REQUEST_BYTES);
    int result = msgpack_read(bytes, length, REQUEST_VALUES_MAX, &body);
    if (result)
        return result;
    *ret_request = (struct feed_request){0};
    result = decode_request(msgpack_root(body), ret_request);
    msgpack_free(body);
    return result;
}
