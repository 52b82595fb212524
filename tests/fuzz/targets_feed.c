/* Bodies of the feed on both sides; see fuzz.h. */
#include "clients/c/triage_feed.h"
#include "connectors/feed_keys.h"
#include "connectors/feed_message.h"
#include "connectors/queue_table.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is decoded holds terminated texts, finite numbers and pieces inside the input. */
void fuzz_feed(const uint8_t *bytes, size_t length)
{
    static struct feed_message message;
    if (feed_decode(bytes, length, &message))
        return;
    fuzz_require(message.count <= FEED_SNAPSHOT_ENTRIES, "more entries than a message holds");
    fuzz_require(memchr(message.epoch, 0, sizeof message.epoch) && memchr(message.schema, 0, sizeof message.schema) &&
                     memchr(message.why, 0, sizeof message.why),
                 "a text without an end");
    for (size_t i = 0; i < message.count; i++) {
        if (message.kind == FEED_UPSERT || message.kind == FEED_SNAPSHOT)
            fuzz_require(feed_check_entry(&message.entries[i]) == 0, "an entry that may not be published");
        if (message.kind == FEED_REPLAY)
            fuzz_require((const uint8_t *)message.messages[i].bytes >= bytes &&
                             (const uint8_t *)message.messages[i].bytes + message.messages[i].length <= bytes + length,
                         "a message outside the input");
    }
}

/* A copy in which the number of the request is the one that the subscriber waits for: others it does not look at. */
static uint8_t *answer_to(const struct triage_feed *feed, const uint8_t *bytes, size_t length, size_t *ret_length)
{
    static const char key[] = "\xa7request";
    char body[512];
    struct feed_request asked = {0};
    size_t asked_length = triage_feed_request(feed, 0, body, sizeof body);
    const uint8_t *at = memmem(bytes, length, key, sizeof key - 1);
    size_t head = at ? (size_t)(at - bytes) + sizeof key - 1 : length, room = length + 8;
    uint8_t *copy = malloc(room + !room);
    fuzz_require(copy && (!asked_length || feed_decode_request(body, asked_length, &asked) == 0), "a request");
    *ret_length = length;
    memcpy(copy, bytes, length);
    if (head >= length || bytes[head] > 0x7f) /* not written in one byte, as ours are */
        return copy;
    copy[head] = 0xcf; /* in eight, behind this one */
    for (int i = 0; i < 8; i++)
        copy[head + 1 + (size_t)i] = (uint8_t)(asked.request >> (56 - 8 * i));
    memcpy(copy + head + 9, bytes + head + 1, length - head - 1);
    *ret_length = length + 8;
    return copy;
}

/* The same as a subscriber takes it, on both its ways: live, it uses bodies of the topic. */
void fuzz_client(const uint8_t *bytes, size_t length)
{
    size_t answer_length;
    static struct triage_feed *feed;
    struct triage_feed_status status;
    size_t count;
    if (!feed)
        fuzz_require(triage_feed_open(&(struct triage_feed_options){0}, &feed) == 0, "no memory for a subscriber");
    uint8_t *answer = answer_to(feed, bytes, length, &answer_length);
    fuzz_require(triage_feed_take(feed, answer, answer_length, 1) >= 0, "a reply that ends a subscriber");
    free(answer);
    fuzz_require(triage_feed_take(feed, bytes, length, 0) >= 0, "a message that ends a subscriber");
    triage_feed_status(feed, &status);
    const struct triage_feed_entry *entry = triage_feed_entries(feed, &count);
    for (size_t i = 1; i < count; i++)
        fuzz_require(entry[i - 1].rank <= entry[i].rank, "a queue out of order");
}

static struct queue_entry entry(const char *id, uint8_t stream, double probability)
{
    struct queue_entry entry = {.key = 1, .stream = stream, .probability = probability, .rank = 1};
    strcpy(entry.id_str, id);
    return entry;
}

int fuzz_feed_seed(int number, struct text *out)
{
    const struct feed_header header = {"0123456789abcdef", 7, "fedcba9876543210", 1700000000000, 7};
    struct queue_entry entries[] = {entry("J1", 0, 0.25), entry("J2", 1, 0.01)};
    const struct queue_entry *const pointers[] = {&entries[0], &entries[1]};
    struct queue_table table;
    fuzz_require(queue_table_new(2, &table) == 0 && queue_table_put(&table, &entries[0]) == 0 &&
                     queue_table_put(&table, &entries[1]) == 0,
                 "a table");
    const struct feed_whole whole = {2, table.checksum};
    queue_table_free(&table);
    const struct feed_chunk chunk = {5, 3, 2, 0, 0, pointers, 2};
    struct retraction retraction = {.reason = "retired"};
    strcpy(retraction.id_str, "J3");
    struct text inner = text_new(FUZZ_BYTES_MAX);
    switch (number) {
    case 0:
        feed_encode_upsert(out, &header, 3, entries, 2);
        break;
    case 1:
        feed_encode_retract(out, &header, &retraction, 1);
        break;
    case 2:
        feed_encode_rerank(out, &header, 5, 3, &whole);
        break;
    case 3:
        feed_encode_model(out, &header, 3, "better");
        break;
    case 4:
        feed_encode_heartbeat(out, &header, 3, &whole);
        break;
    case 5:
        feed_encode_snapshot(out, &header, &chunk);
        break;
    case 6: {
        feed_encode_heartbeat(&inner, &header, 3, &whole);
        struct feed_bytes messages[] = {
            {inner.bytes, inner.length},
            {inner.bytes, inner.length}
        };
        feed_encode_replay(out, &header, &whole, 6, messages, 2);
        break;
    }
    case 7:
        feed_encode_too_old(out, &header);
        break;
    case 8: /* behind the snapshot: nothing was missed, the subscriber is live */
        feed_encode_replay(out, &header, &whole, 8, NULL, 0);
        break;
    case 9:
        feed_encode_error(out, "no such thing");
        break;
    default:
        break;
    }
    text_free(&inner);
    return number < 10;
}

void fuzz_request(const uint8_t *bytes, size_t length)
{
    struct feed_request request;
    if (feed_decode_request(bytes, length, &request))
        return;
    fuzz_require(memchr(request.epoch, 0, sizeof request.epoch) != NULL, "an epoch without an end");
    fuzz_require(memchr(request.ack.name, 0, sizeof request.ack.name) != NULL, "a name without an end");
    for (const char *at = request.ack.name; *at; at++)
        fuzz_require((unsigned char)*at >= ' ', "a name that writes to the operator's terminal");
}

int fuzz_request_seed(int number, struct text *out)
{
    if (number == 0)
        feed_encode_snapshot_request(out, 7, 512);
    if (number == 1)
        feed_encode_replay_request(out, 7, "0123456789abcdef", 41);
    if (number == 2)
        feed_encode_subscribers_request(out);
    if (number == 3)
        feed_encode_ack(out, "platform", "0123456789abcdef", 41, &(struct feed_counters){1, 2, 3, 4});
    return number < 4;
}

/* --- keys: a file that is taken has whole keys, one that is refused leaves none behind ---------------------------------- */

static char keys_folder[] = "/dev/shm/triage-fuzz-XXXXXX", keys_again[] = "/dev/shm/triage-fuzz-XXXXXX";

static void remove_keys(void)
{
    const char *const folders[] = {keys_folder, keys_again};
    char path[64];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/clients", folders[i]);
        unlink(path);
        rmdir(folders[i]);
    }
}

void fuzz_keys_open(void)
{
    char path[64];
    const char *file = fuzz_file((const uint8_t *)"", 0);
    fuzz_require(mkdtemp(keys_folder) && mkdtemp(keys_again), "folders");
    snprintf(path, sizeof path, "%s/clients", keys_folder);
    fuzz_require(symlink(file, path) == 0 && chmod(file, 0600) == 0, "a list that is the input");
    atexit(remove_keys);
}

static void check_list(const struct feed_keys *keys)
{
    static struct feed_keys again;
    for (const struct feed_key *key = keys->key; key < keys->key + keys->count; key++) {
        fuzz_require(memchr(key->name, 0, sizeof key->name) && memchr(key->made, 0, sizeof key->made) && key->name[0] &&
                         (key->role == FEED_SUBSCRIBER || key->role == FEED_CONNECTOR || key->role == FEED_ADMIN),
                     "a key without a name or role");
        fuzz_require(socket_curve_check(key->public_key) == 0 && feed_keys_find(keys, key->public_key) == key,
                     "a key that is none or is twice in the list");
    }
    fuzz_require(feed_keys_write(keys_again, keys) == 0 && feed_keys_read(keys_again, &again) == 0 &&
                     again.count == keys->count,
                 "a list that cannot be read again");
    for (size_t i = 0; i < keys->count; i++)
        fuzz_require(strcmp(again.key[i].name, keys->key[i].name) == 0 && again.key[i].role == keys->key[i].role &&
                         strcmp(again.key[i].public_key, keys->key[i].public_key) == 0,
                     "another list when read again");
}

void fuzz_keys(const uint8_t *bytes, size_t length)
{
    static const struct socket_curve none;
    static struct feed_keys keys;
    struct socket_curve key;
    char public_key[SOCKET_KEY_BYTES];
    if (feed_keys_read_client(fuzz_file(bytes, length), &key))
        fuzz_require(memcmp(&key, &none, sizeof key) == 0, "a secret left behind");
    else
        fuzz_require(socket_curve_public(key.secret_key, public_key) == 0 && strcmp(public_key, key.public_key) == 0 &&
                         socket_curve_check(key.server_key) == 0,
                     "a key file without whole keys");
    if (feed_keys_read(keys_folder, &keys) == 0)
        check_list(&keys);
}

int fuzz_keys_seed(int number, struct text *out)
{
#define ZEROS "0000000000000000000000000000000000000000" /* as a secret key; below, what it gives */
#define GIVEN "fxERSn6LHg6!4!qu+m-(f-Q<1UF!=7)u0-ysJ-^F"
    if (number == 0)
        text_append(out, "# a key\nname=a\nrole=subscriber\npublic=%s\nsecret=%s\nserver=%s\n", GIVEN, ZEROS, GIVEN);
    if (number == 1)
        text_append(out,
                    "[platform]\nrole=connector\npublic=%s\nmade=2026-11-27\n[a.b-c_d]\nrole=admin\npublic=%s\n"
                    "made=2026-11-28\n",
                    GIVEN, ZEROS);
    return number < 2;
}
