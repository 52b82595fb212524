/* The feed as operators see it: its start, who follows it and how far behind, refused handshakes, and keys. */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "connectors/feed_keys.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/proto.h"

#include <string.h>

#define SILENCE_MS 30000 /* a connector tells every two seconds how far it is */

static bool is_encrypted(const struct daemon *daemon)
{
    return strcmp(daemon->config.feed_security, "curve") == 0;
}

static int keys_folder(const struct daemon *daemon, char path[FILE_PATH_BYTES])
{
    const struct config *config = &daemon->config;
    return config->feed_keys[0] ? file_path(path, FILE_PATH_BYTES, "%s", config->feed_keys)
                                : file_path(path, FILE_PATH_BYTES, "%s/keys", config->state);
}

int feed_open(struct daemon *daemon)
{
    const struct config *config = &daemon->config;
    char folder[FILE_PATH_BYTES];
    int result = keys_folder(daemon, folder);
    daemon->publisher = config->feed_record[0] ? &publisher_record : &publisher_zmq;
    struct publisher_options options = {.publish_endpoint = config->feed_publish,
                                        .snapshot_endpoint = config->feed_snapshot,
                                        .keys_folder = is_encrypted(daemon) ? folder : NULL,
                                        .record_path = config->feed_record,
                                        .schema_hash = daemon->schema.hash,
                                        .queue_limit = SELECT_SLOTS_MAX};
    if (!result)
        result = daemon->publisher->open(&options, &daemon->feed);
    if (result == ERROR_INPUT || result == ERROR_NOT_FOUND)
        result = ERROR_STATE;
    return result ? error_prefix(result, "the feed (feed.publish, feed.snapshot, feed.security): ") : 0;
}

void feed_note(struct daemon *daemon, int code)
{
    if (code >= 0)
        return;
    daemon->feed_failed = true;
    if (daemon->feed_problem[0]) /* the first failure says why */
        return;
    log_warning(EVENT_FEED_FAILED, "the feed does not reach its subscribers: %s", error_message());
    snprintf(daemon->feed_problem, sizeof daemon->feed_problem, "%s", error_message());
}

static void beat(struct daemon *daemon)
{
    int code = daemon->publisher->heartbeat(daemon->feed);
    feed_note(daemon, code);
    if (code == 0)
        daemon->feed_alive_ms = clock_ms();
    if (daemon->feed_problem[0] && !daemon->feed_failed) {
        log_info(EVENT_FEED_RESTORED, "the feed reaches its subscribers again");
        daemon->feed_problem[0] = 0;
    }
    daemon->feed_failed = false;
}

void feed_tick(struct daemon *daemon)
{
    struct publisher_counters counters;
    beat(daemon);
    daemon->publisher->counters(daemon->feed, &counters);
    if (counters.rejected > daemon->feed_rejected)
        log_warning(EVENT_HANDSHAKE_REFUSED, "feed: %llu handshakes refused, the last one from %s",
                    (unsigned long long)(counters.rejected - daemon->feed_rejected), counters.rejection);
    daemon->feed_rejected = counters.rejected;
}

/* --- status --- */

static json_t *subscriber_json(const struct feed_subscriber *one)
{
    return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I}", "name", one->name, "key", one->key, "role",
                     feed_role_name(one->role), "lag", (json_int_t)one->lag, "heard_ms", (json_int_t)one->heard_ms,
                     "gaps", (json_int_t)one->counters.gaps, "replays", (json_int_t)one->counters.replays, "snapshots",
                     (json_int_t)one->counters.snapshots, "malformed", (json_int_t)one->counters.malformed);
}

void feed_problems(const struct daemon *daemon, json_t *problems)
{
    static struct feed_subscriber list[FEED_SUBSCRIBERS_MAX];
    size_t count = daemon->publisher->subscribers(daemon->feed, list, FEED_SUBSCRIBERS_MAX);
    if (daemon->feed_problem[0])
        json_array_append_new(problems,
                              json_sprintf("the feed does not reach its subscribers: %s", daemon->feed_problem));
    for (size_t i = 0; i < count; i++)
        if (list[i].role == FEED_CONNECTOR && list[i].heard_ms > SILENCE_MS)
            json_array_append_new(problems,
                                  json_sprintf("the connector %s (key %s) has not been heard of for %lld s: "
                                               "volunteers may be offered an old queue",
                                               list[i].name, list[i].key, (long long)list[i].heard_ms / 1000));
}

json_t *feed_status(const struct daemon *daemon)
{
    static struct feed_subscriber list[FEED_SUBSCRIBERS_MAX];
    struct publisher_counters counters;
    const char *epoch;
    uint64_t seq;
    daemon->publisher->position(daemon->feed, &epoch, &seq);
    daemon->publisher->counters(daemon->feed, &counters);
    size_t count = daemon->publisher->subscribers(daemon->feed, list, FEED_SUBSCRIBERS_MAX);
    json_t *subscribers = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(subscribers, subscriber_json(&list[i]));
    return json_pack("{s:s,s:I,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:o}", "epoch", epoch, "seq",
                     (json_int_t)seq, "publish", daemon->config.feed_publish, "snapshot", daemon->config.feed_snapshot,
                     "security", daemon->config.feed_security, "messages", (json_int_t)counters.messages, "unsent",
                     (json_int_t)counters.unsent, "requests", (json_int_t)counters.requests, "malformed",
                     (json_int_t)counters.malformed, "unanswered", (json_int_t)counters.unanswered, "gaps",
                     (json_int_t)counters.gaps, "handshakes", (json_int_t)counters.accepted, "rejected",
                     (json_int_t)counters.rejected, "rejection", counters.rejection, "subscribers", subscribers);
}

/* --- keys --- */

/* What the verb is about; for `list` there is no name. */
struct keys_request {
    const char *what, *name, *role, *public_key;
    char folder[FILE_PATH_BYTES];
};

static const char *text_of(const json_t *request, const char *key)
{
    const char *value = json_string_value(json_object_get(request, key));
    return value ? value : "";
}

static int change_list(struct daemon *daemon, const struct keys_request *request, struct feed_keys *keys)
{
    enum feed_role role = FEED_SUBSCRIBER;
    int result = feed_keys_read(request->folder, keys);
    if (!result && strcmp(request->what, "revoke") == 0)
        result = feed_keys_remove(keys, request->name);
    else if (!result) {
        result = feed_role_of(request->role, &role);
        if (!result)
            result = feed_keys_add(keys, request->name, role, request->public_key);
    }
    if (!result)
        result = feed_keys_write(request->folder, keys);
    return result ? result : daemon->publisher->reload_keys(daemon->feed);
}

static int new_key(struct daemon *daemon, control_client client, const struct keys_request *request,
                   struct feed_keys *keys)
{
    struct socket_curve server;
    int result = feed_keys_server(request->folder, &server);
    explicit_bzero(server.secret_key, sizeof server.secret_key);
    if (!result)
        result = change_list(daemon, request, keys);
    if (result)
        return result;
    log_info(EVENT_KEY_ADDED, "feed: a key for %s, %s", request->name, request->role);
    control_answer(daemon->control, client,
                   json_pack("{s:b,s:s,s:s,s:s,s:s,s:s}", "ok", 1, "name", request->name, "role", request->role,
                             "server", server.public_key, "publish", daemon->config.feed_publish, "snapshot",
                             daemon->config.feed_snapshot));
    return 0;
}

static int revoke_key(struct daemon *daemon, control_client client, const struct keys_request *request,
                      struct feed_keys *keys)
{
    int result = change_list(daemon, request, keys);
    if (result)
        return result;
    log_info(EVENT_KEY_REVOKED, "feed: the key of %s is revoked", request->name);
    control_done(daemon->control, client, "the key of %s is revoked; whoever used it is disconnected", request->name);
    return 0;
}

static int list_keys(struct daemon *daemon, control_client client, const struct keys_request *request,
                     struct feed_keys *keys)
{
    int result = feed_keys_read(request->folder, keys);
    if (result)
        return result;
    json_t *list = json_array();
    for (const struct feed_key *key = keys->key; key < keys->key + keys->count; key++)
        json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s}", "name", key->name, "role", feed_role_name(key->role),
                                              "public", key->public_key, "made", key->made));
    control_answer(daemon->control, client, json_pack("{s:b,s:o}", "ok", 1, "keys", list));
    return 0;
}

void verb_keys(struct daemon *daemon, control_client client, const json_t *json)
{
    static struct feed_keys keys;
    static const struct {
        const char *what;
        int (*run)(struct daemon *daemon, control_client client, const struct keys_request *request,
                   struct feed_keys *keys);
    } table[] = {
        {"new",    new_key   },
        {"list",   list_keys },
        {"revoke", revoke_key},
    };
    struct keys_request request = {text_of(json, "what"), text_of(json, "name"), text_of(json, "role"),
                                   text_of(json, "public"), ""};
    int result = error_set(ERROR_INPUT, "keys are for new, list or revoke");
    if (!is_encrypted(daemon) || daemon->config.feed_record[0])
        result = error_set(ERROR_STATE, "this feed has no keys: it is %s",
                           daemon->config.feed_record[0] ? "recorded to a file"
                                                         : "not encrypted (feed.security = plaintext)");
    else if (!keys_folder(daemon, request.folder))
        for (size_t i = 0; i < sizeof table / sizeof *table; i++)
            if (strcmp(table[i].what, request.what) == 0)
                result = table[i].run(daemon, client, &request, &keys);
    if (result)
        control_refuse(daemon->control, client, result == ERROR_NOT_FOUND ? PROTO_EXIT_NOT_FOUND : PROTO_EXIT_REFUSED,
                       "%s", error_message());
}
