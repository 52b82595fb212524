/* What the publisher says, to bytes, and what subscribers ask, from bytes; see feed_message.h. */
#include "connectors/feed_message.h"
#include "base/error.h"
#include "base/msgpack.h"

#include <math.h>
#include <string.h>

#define REQUEST_VALUES_MAX 64

#define COUNT(array) (sizeof(array) / sizeof *(array))

const char *const feed_streams[FEED_STREAMS] = {"active", "random", "pinned"};

static const char *const reasons[] = {"retired", "excluded", "bad_image", "lease_expired", "replaced"};

int feed_check_entry(const struct queue_entry *entry)
{
    if (!entry->id_str[0] || !memchr(entry->id_str, 0, sizeof entry->id_str))
        return error_set(ERROR_INPUT, "an id on the feed has 1 to %d bytes: '%.63s'", QUEUE_ID_BYTES - 1,
                         entry->id_str);
    if (entry->stream >= COUNT(feed_streams))
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

/* The six pairs of every body, the number of the request in a reply to one that has one, and room for `more_pairs`. */
static void put_header(struct text *out, size_t more_pairs, const char *kind, const struct feed_header *header)
{
    put_kind(out, 4 + (header->request != 0) + more_pairs, kind);
    msgpack_put_string(out, "epoch", header->epoch);
    msgpack_put_uint(out, strcmp(kind, "heartbeat") == 0 ? "last_seq" : "seq", header->seq);
    msgpack_put_string(out, "schema", header->schema);
    msgpack_put_int(out, "unix_ms", header->unix_ms);
    if (header->request)
        msgpack_put_uint(out, "request", header->request);
}

static void put_entry(struct text *out, const struct queue_entry *entry)
{
    msgpack_map(out, 9);
    msgpack_put_string(out, "id", entry->id_str);
    msgpack_put_uint(out, "rank", entry->rank);
    msgpack_put_string(out, "stream", feed_streams[entry->stream]);
    msgpack_put_double(out, "probability", entry->probability);
    msgpack_put_float(out, "score", entry->score);
    msgpack_put_float(out, "total", entry->total);
    msgpack_put_float(out, "expected", entry->expected);
    msgpack_put_uint(out, "model", entry->model);
    msgpack_put_int(out, "leased_until_ms", entry->leased_until_ms);
}

static void put_whole(struct text *out, const struct feed_whole *whole)
{
    msgpack_put_uint(out, "length", whole->length);
    msgpack_put_uint(out, "checksum", whole->checksum);
}

void feed_encode_upsert(struct text *out, const struct feed_header *header, uint32_t model,
                        const struct queue_entry *entries, size_t count)
{
    put_header(out, 2, "upsert", header);
    msgpack_put_uint(out, "model", model);
    msgpack_put_array(out, "entries", count);
    for (size_t i = 0; i < count; i++)
        put_entry(out, &entries[i]);
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
                        const struct feed_whole *whole)
{
    put_header(out, 4, "rerank", header);
    msgpack_put_uint(out, "cycle", cycle);
    msgpack_put_uint(out, "model", model);
    put_whole(out, whole);
}

void feed_encode_model(struct text *out, const struct feed_header *header, uint32_t model, const char *why)
{
    put_header(out, 2, "model", header);
    msgpack_put_uint(out, "model", model);
    msgpack_put_string(out, "why", why);
}

void feed_encode_heartbeat(struct text *out, const struct feed_header *header, uint32_t model,
                           const struct feed_whole *whole)
{
    put_header(out, 3, "heartbeat", header);
    msgpack_put_uint(out, "model", model);
    put_whole(out, whole);
}

void feed_encode_snapshot(struct text *out, const struct feed_header *header, const struct feed_chunk *chunk)
{
    put_header(out, 6, "snapshot", header);
    msgpack_put_uint(out, "cycle", chunk->cycle);
    msgpack_put_uint(out, "model", chunk->model);
    msgpack_put_uint(out, "length", chunk->length);
    msgpack_put_uint(out, "from", chunk->from);
    msgpack_put_uint(out, "next", chunk->next);
    msgpack_put_array(out, "entries", chunk->count);
    for (size_t i = 0; i < chunk->count; i++)
        put_entry(out, chunk->entries[i]);
}

void feed_encode_replay(struct text *out, const struct feed_header *header, const struct feed_whole *whole,
                        uint64_t from_seq, const struct feed_bytes *messages, size_t count)
{
    put_header(out, 4, "replay", header);
    put_whole(out, whole);
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

void feed_encode_subscribers(struct text *out, const struct feed_header *header, const struct feed_subscriber *list,
                             size_t count)
{
    put_header(out, 1, "subscribers", header);
    msgpack_put_array(out, "subscribers", count);
    for (const struct feed_subscriber *one = list; one < list + count; one++) {
        msgpack_map(out, 8);
        msgpack_put_string(out, "name", one->name);
        msgpack_put_string(out, "key", one->key);
        msgpack_put_uint(out, "lag", one->lag);
        msgpack_put_uint(out, "heard_ms", (uint64_t)one->heard_ms);
        msgpack_put_uint(out, "gaps", one->counters.gaps);
        msgpack_put_uint(out, "replays", one->counters.replays);
        msgpack_put_uint(out, "snapshots", one->counters.snapshots);
        msgpack_put_uint(out, "malformed", one->counters.malformed);
    }
}

static void put_request(struct text *out, size_t more_pairs, const char *kind, uint64_t request)
{
    put_kind(out, (request != 0) + more_pairs, kind);
    if (request)
        msgpack_put_uint(out, "request", request);
}

void feed_encode_snapshot_request(struct text *out, uint64_t request, uint64_t from)
{
    put_request(out, 1, "snapshot", request);
    msgpack_put_uint(out, "from", from);
}

void feed_encode_replay_request(struct text *out, uint64_t request, const char *epoch, uint64_t from_seq)
{
    put_request(out, 2, "replay", request);
    msgpack_put_string(out, "epoch", epoch);
    msgpack_put_uint(out, "from_seq", from_seq);
}

void feed_encode_subscribers_request(struct text *out)
{
    put_kind(out, 0, "subscribers");
}

void feed_encode_ack(struct text *out, const char *name, const char *epoch, uint64_t seq,
                     const struct feed_counters *counters)
{
    put_kind(out, 7, "ack");
    msgpack_put_string(out, "name", name);
    msgpack_put_string(out, "epoch", epoch);
    msgpack_put_uint(out, "seq", seq);
    msgpack_put_uint(out, "gaps", counters->gaps);
    msgpack_put_uint(out, "replays", counters->replays);
    msgpack_put_uint(out, "snapshots", counters->snapshots);
    msgpack_put_uint(out, "malformed", counters->malformed);
}

/* --- requests --- */

int feed_check_version(const struct msgpack_value *map)
{
    uint64_t version;
    int result = msgpack_get_uint(map, "v", &version);
    if (!result && version != FEED_VERSION)
        return error_set(ERROR_INPUT, "feed version %llu is not understood, only %d: use programs of one release",
                         (unsigned long long)version, FEED_VERSION);
    return result;
}

static int decode_snapshot(const struct msgpack_value *map, struct feed_request *request)
{
    return msgpack_get_uint(map, "from", &request->from);
}

static int decode_replay(const struct msgpack_value *map, struct feed_request *request)
{
    int result = msgpack_get_uint(map, "from_seq", &request->from);
    return result ? result : msgpack_get_string(map, "epoch", request->epoch, sizeof request->epoch);
}

static int decode_ack(const struct msgpack_value *map, struct feed_request *request)
{
    struct feed_ack *ack = &request->ack;
    int result = msgpack_get_string(map, "name", ack->name, sizeof ack->name);
    if (!result)
        result = msgpack_get_string(map, "epoch", request->epoch, sizeof request->epoch);
    if (!result)
        result = msgpack_get_uint(map, "seq", &request->from);
    if (!result)
        result = msgpack_get_uint(map, "gaps", &ack->counters.gaps);
    if (!result)
        result = msgpack_get_uint(map, "replays", &ack->counters.replays);
    if (!result)
        result = msgpack_get_uint(map, "snapshots", &ack->counters.snapshots);
    if (!result)
        result = msgpack_get_uint(map, "malformed", &ack->counters.malformed);
    text_make_printable(ack->name);
    return result;
}

static int decode_nothing(const struct msgpack_value *map, struct feed_request *request)
{
    (void)map, (void)request;
    return 0;
}

static const struct {
    const char *name;
    enum feed_ask ask;
    int (*decode)(const struct msgpack_value *map, struct feed_request *request);
} asks[] = {
    {"snapshot",    FEED_ASK_SNAPSHOT,    decode_snapshot},
    {"replay",      FEED_ASK_REPLAY,      decode_replay  },
    {"ack",         FEED_ASK_NOTHING,     decode_ack     },
    {"subscribers", FEED_ASK_SUBSCRIBERS, decode_nothing },
};

static int decode_request(const struct msgpack_value *map, struct feed_request *request)
{
    char kind[32];
    int result = feed_check_version(map);
    if (!result)
        result = msgpack_get_string(map, "kind", kind, sizeof kind);
    if (!result && msgpack_has(map, "request"))
        result = msgpack_get_uint(map, "request", &request->request);
    if (result)
        return result;
    for (size_t i = 0; i < COUNT(asks); i++)
        if (strcmp(asks[i].name, kind) == 0) {
            request->ask = asks[i].ask;
            return asks[i].decode(map, request);
        }
    text_make_printable(kind);
    return error_set(ERROR_INPUT, "there is no request '%s', only snapshot, replay, ack and subscribers", kind);
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
