/* connectors/feed_message: bodies as another MessagePack makes them, every kind there and back, and hostile
 * ones. */
#include "acquisition/select.h"
#include "base/error.h"
#include "base/msgpack.h"
#include "base/philox.h"
#include "connectors/feed_message.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct feed_header header = {.epoch = "0123456789abcdef0123456789abcdef",
                                          .seq = 300,
                                          .schema = "feedfacefeedfacefeedfacefeedface",
                                          .unix_ms = 1718000000123};

static struct feed_message message;

static void decode(struct text *body)
{
    assert_int_equal(text_error(body), 0);
    assert_int_equal(feed_decode(body->bytes, body->length, &message), 0);
}

static void check_header(void)
{
    assert_string_equal(message.epoch, header.epoch);
    assert_true(message.seq == 300);
    assert_string_equal(message.schema, header.schema);
    assert_true(message.unix_ms == 1718000000123);
}

static struct queue_entry sample_entry(int i)
{
    struct queue_entry entry = {.rank = (uint32_t)i + 1,
                                .stream = (uint8_t)(i % 3),
                                .probability = 1.0 / (i + 1),
                                .score = 0.1f * (float)i,
                                .total = 1e-20f,
                                .expected = -3.5f,
                                .model = UINT32_MAX,
                                .leased_until_ms = INT64_MAX - i};
    snprintf(entry.id_str, sizeof entry.id_str, "J%06d.%s", i,
             "123456789012345678901234567890123456789012345678901234");
    return entry;
}

static void check_entry(const struct queue_entry *got, const struct queue_entry *expected)
{
    assert_string_equal(got->id_str, expected->id_str);
    assert_int_equal(got->rank, expected->rank);
    assert_int_equal(got->stream, expected->stream);
    assert_true(got->probability == expected->probability);
    assert_true(got->score == expected->score && got->total == expected->total && got->expected == expected->expected);
    assert_int_equal(got->model, expected->model);
    assert_true(got->leased_until_ms == expected->leased_until_ms);
}

/* Byte for byte what Python's msgpack.packb() makes of the same dict. */
static void test_heartbeat_bytes(void **state)
{
    (void)state;
    static const char expected[] = "\x89\xa1v\x01\xa4kind\xa9heartbeat\xa5"
                                   "epoch\xd9\x20"
                                   "0123456789abcdef0123456789abcdef"
                                   "\xa8last_seq\xcd\x01\x2c\xa6schema\xd9\x20"
                                   "feedfacefeedfacefeedfacefeedface"
                                   "\xa7unix_ms\xcf\x00\x00\x01\x90\x00\xc7\x9c\x7b\xa5model\x07\xa6length\x02\xa8"
                                   "checksum\xcf\xff\x00\x00\x00\x00\x00\x00\x01";
    struct text out = text_new(1000);
    feed_encode_heartbeat(&out, &header, 7, &(struct feed_whole){2, 0xff00000000000001});
    assert_int_equal(out.length, sizeof expected - 1);
    assert_memory_equal(out.bytes, expected, sizeof expected - 1);
    decode(&out);
    check_header();
    assert_int_equal(message.kind, FEED_HEARTBEAT);
    assert_int_equal(message.model, 7);
    assert_int_equal(message.length, 2);
    assert_true(message.checksum == 0xff00000000000001);
    text_free(&out);
}

/* Made with Python's msgpack: other integer widths, doubles for floats, keys of a later version. */
static void test_upsert_of_another_encoder(void **state)
{
    (void)state;
    static const char body[] =
        "\x89\xa1v\x01\xa4kind\xa6upsert\xa6"
        "future\x92\x01\x81\xa1"
        "a\xc0\xa5"
        "epoch\xa1"
        "e\xa3seq"
        "\xcf\x00\x00\x01\x00\x00\x00\x00\x00\xa6schema\xa0\xa7unix_ms\x05\xa5model\x03\xa7"
        "entries\x91\x8a\xa2id"
        "\xa4M "
        "31\xa4rank\x01\xa6stream\xa6pinned\xabprobability\x01\xa5score\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00"
        "\xa5total\xcb\x3f\xe8\x00\x00\x00\x00\x00\x00\xa8"
        "expected\xcb\x3f\xd0\x00\x00\x00\x00\x00\x00\xa5model\x03"
        "\xafleased_until_ms\xff\xa3new\xc3";
    struct queue_entry expected = {.id_str = "M 31",
                                   .rank = 1,
                                   .stream = STREAM_PINNED,
                                   .probability = 1,
                                   .score = 0.5f,
                                   .total = 0.75f,
                                   .expected = 0.25f,
                                   .model = 3,
                                   .leased_until_ms = -1};
    assert_int_equal(sizeof body - 1, 202);
    assert_int_equal(feed_decode(body, sizeof body - 1, &message), 0);
    assert_int_equal(message.kind, FEED_UPSERT);
    assert_true(message.seq == (uint64_t)1 << 40);
    assert_int_equal(message.count, 1);
    check_entry(&message.entries[0], &expected);
}

static void test_streams_are_those_of_the_selection(void **state)
{
    (void)state;
    for (uint8_t stream = STREAM_ACTIVE; stream <= STREAM_PINNED; stream++) {
        struct queue_entry entry = sample_entry(stream);
        struct text out = text_new(10000);
        const char *name = stream_name((enum stream)stream);
        entry.stream = stream;
        feed_encode_upsert(&out, &header, 1, &entry, 1);
        assert_non_null(memmem(out.bytes, out.length, name, strlen(name)));
        text_free(&out);
    }
}

static void test_full_upsert_and_snapshot(void **state)
{
    (void)state;
    static struct queue_entry entries[FEED_SNAPSHOT_ENTRIES];
    struct text out = text_new(FEED_BODY_BYTES_MAX);
    for (int i = 0; i < FEED_SNAPSHOT_ENTRIES; i++)
        entries[i] = sample_entry(i);
    feed_encode_upsert(&out, &header, 9, entries, FEED_UPSERT_ENTRIES);
    assert_true(out.length < 64 << 10); /* the ring's memory rests on this */
    decode(&out);
    check_header();
    assert_int_equal(message.model, 9);
    assert_int_equal(message.count, FEED_UPSERT_ENTRIES);
    for (int i = 0; i < FEED_UPSERT_ENTRIES; i++)
        check_entry(&message.entries[i], &entries[i]);
    text_clear(&out);
    feed_encode_upsert(&out, &header, 9, entries, FEED_UPSERT_ENTRIES + 1);
    assert_int_equal(feed_decode(out.bytes, out.length, &message), ERROR_LIMIT);
    text_clear(&out);
    const struct queue_entry *pointers[FEED_SNAPSHOT_ENTRIES];
    for (int i = 0; i < FEED_SNAPSHOT_ENTRIES; i++)
        pointers[i] = &entries[i];
    struct feed_chunk chunk = {11, 9, 100000, 1024, 2048, pointers, FEED_SNAPSHOT_ENTRIES};
    feed_encode_snapshot(&out, &header, &chunk);
    decode(&out);
    check_header();
    assert_int_equal(message.kind, FEED_SNAPSHOT);
    assert_int_equal(message.cycle, 11);
    assert_int_equal(message.length, 100000);
    assert_int_equal(message.from, 1024);
    assert_int_equal(message.next, 2048);
    assert_int_equal(message.count, FEED_SNAPSHOT_ENTRIES);
    for (int i = 0; i < FEED_SNAPSHOT_ENTRIES; i++)
        check_entry(&message.entries[i], &entries[i]);
    text_free(&out);
}

static void test_small_kinds(void **state)
{
    (void)state;
    struct retraction retractions[2] = {
        {"a", "retired"      },
        {"b", "lease_expired"}
    };
    struct text out = text_new(10000);
    feed_encode_retract(&out, &header, retractions, 2);
    decode(&out);
    check_header();
    assert_int_equal(message.kind, FEED_RETRACT);
    assert_int_equal(message.count, 2);
    assert_string_equal(message.retractions[1].id_str, "b");
    assert_string_equal(message.retractions[1].reason, "lease_expired");
    text_clear(&out);
    feed_encode_rerank(&out, &header, (uint64_t)1 << 33, 4, &(struct feed_whole){77, UINT64_MAX});
    decode(&out);
    assert_int_equal(message.kind, FEED_RERANK);
    assert_true(message.cycle == (uint64_t)1 << 33);
    assert_int_equal(message.model, 4);
    assert_int_equal(message.length, 77);
    assert_true(message.checksum == UINT64_MAX);
    text_clear(&out);
    feed_encode_model(&out, &header, 5, "not worse on 812 galaxies");
    decode(&out);
    assert_int_equal(message.kind, FEED_MODEL);
    assert_int_equal(message.model, 5);
    assert_string_equal(message.why, "not worse on 812 galaxies");
    text_clear(&out);
    feed_encode_too_old(&out, &header);
    decode(&out);
    check_header();
    assert_int_equal(message.kind, FEED_TOO_OLD);
    assert_int_equal(message.request, 0);
    text_clear(&out);
    struct feed_header numbered = header;
    numbered.request = UINT64_MAX;
    feed_encode_too_old(&out, &numbered);
    decode(&out);
    check_header();
    assert_true(message.request == UINT64_MAX);
    text_clear(&out);
    feed_encode_error(&out, "no such request");
    decode(&out);
    assert_int_equal(message.kind, FEED_ERROR);
    assert_string_equal(message.why, "no such request");
    text_free(&out);
}

static void test_replay_carries_bodies_unchanged(void **state)
{
    (void)state;
    struct feed_bytes bodies[2] = {
        {"\x01\x02\x00", 3},
        {"",             0}
    };
    struct text out = text_new(10000);
    feed_encode_replay(&out, &header, &(struct feed_whole){5, 6}, 299, bodies, 2);
    decode(&out);
    assert_int_equal(message.length, 5);
    assert_int_equal(message.checksum, 6);
    assert_int_equal(message.kind, FEED_REPLAY);
    assert_int_equal(message.from_seq, 299);
    assert_int_equal(message.count, 2);
    assert_int_equal(message.messages[0].length, 3);
    assert_memory_equal(message.messages[0].bytes, "\x01\x02\x00", 3);
    assert_int_equal(message.messages[1].length, 0);
    text_free(&out);
}

static void test_requests(void **state)
{
    (void)state;
    struct feed_request request;
    struct text out = text_new(1000);
    feed_encode_snapshot_request(&out, 0, 512);
    assert_int_equal(feed_decode_request(out.bytes, out.length, &request), 0);
    assert_int_equal(request.ask, FEED_ASK_SNAPSHOT);
    assert_int_equal(request.from, 512);
    assert_int_equal(request.request, 0);
    text_clear(&out);
    feed_encode_snapshot_request(&out, UINT64_MAX, 512);
    assert_int_equal(feed_decode_request(out.bytes, out.length, &request), 0);
    assert_int_equal(request.from, 512);
    assert_true(request.request == UINT64_MAX);
    text_clear(&out);
    feed_encode_replay_request(&out, 9, header.epoch, 42);
    assert_int_equal(feed_decode_request(out.bytes, out.length, &request), 0);
    assert_int_equal(request.ask, FEED_ASK_REPLAY);
    assert_int_equal(request.from, 42);
    assert_int_equal(request.request, 9);
    assert_string_equal(request.epoch, header.epoch);
    text_clear(&out);
    feed_encode_subscribers_request(&out);
    assert_int_equal(feed_decode_request(out.bytes, out.length, &request), 0);
    assert_int_equal(request.ask, FEED_ASK_SUBSCRIBERS);
    text_clear(&out);
    feed_encode_ack(&out, "a\xffname\n", header.epoch, 43, &(struct feed_counters){1, 2, 3, UINT64_MAX});
    assert_int_equal(feed_decode_request(out.bytes, out.length, &request), 0);
    assert_int_equal(request.ask, FEED_ASK_NOTHING);
    assert_int_equal(request.from, 43);
    assert_string_equal(request.epoch, header.epoch);
    assert_string_equal(request.ack.name, "a?name?"); /* it comes to the operator's terminal */
    assert_int_equal(request.ack.counters.gaps, 1);
    assert_int_equal(request.ack.counters.replays, 2);
    assert_int_equal(request.ack.counters.snapshots, 3);
    assert_true(request.ack.counters.malformed == UINT64_MAX);
    text_clear(&out);
    feed_encode_ack(&out, "a name of thirty-two characters.", header.epoch, 43, &(struct feed_counters){0});
    assert_int_equal(feed_decode_request(out.bytes, out.length, &request), ERROR_INPUT);
    text_clear(&out);
    feed_encode_too_old(&out, &header);
    assert_int_equal(feed_decode_request(out.bytes, out.length, &request), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "'too_old'"));
    text_free(&out);
}

/* --- refusals --- */

/* A body of this kind with one pair of our choice. */
static int decode_with(const char *kind, uint64_t version, const char *epoch)
{
    struct text out = text_new(1000);
    msgpack_map(&out, 6);
    msgpack_put_uint(&out, "v", version);
    msgpack_put_string(&out, "kind", kind);
    msgpack_put_string(&out, "epoch", epoch);
    msgpack_put_uint(&out, "seq", 17);
    msgpack_put_string(&out, "schema", "");
    msgpack_put_int(&out, "unix_ms", 0);
    int result = feed_decode(out.bytes, out.length, &message);
    text_free(&out);
    return result;
}

static void test_versions_and_kinds(void **state)
{
    (void)state;
    assert_int_equal(decode_with("of a later version", 1, "e"), 0);
    assert_int_equal(message.kind, FEED_UNKNOWN);
    assert_int_equal(message.seq, 17);
    assert_int_equal(decode_with("upsert", 2, "e"), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "version 2"));
    assert_int_equal(decode_with("upsert", 1, "e"), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "'model'"));
    assert_int_equal(decode_with("heartbeat", 1, "e"), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "'last_seq'"));
    assert_int_equal(decode_with("x", 1, "0123456789abcdef0123456789abcdef0"), ERROR_INPUT); /* 33 characters */
    assert_int_equal(feed_decode("\x90", 1, &message), ERROR_INPUT);
}

static void test_entries_that_may_not_be_published(void **state)
{
    (void)state;
    struct queue_entry entry = sample_entry(1);
    assert_int_equal(feed_check_entry(&entry), 0);
    entry.stream = 3;
    assert_int_equal(feed_check_entry(&entry), ERROR_INPUT);
    entry = sample_entry(1);
    entry.score = NAN;
    assert_int_equal(feed_check_entry(&entry), ERROR_INPUT);
    entry = sample_entry(1);
    entry.probability = INFINITY;
    assert_int_equal(feed_check_entry(&entry), ERROR_INPUT);
    entry = sample_entry(1);
    entry.id_str[0] = 0;
    assert_int_equal(feed_check_entry(&entry), ERROR_INPUT);
    memset(entry.id_str, 'x', sizeof entry.id_str);
    assert_int_equal(feed_check_entry(&entry), ERROR_INPUT);
    assert_null(feed_reason("bored"));
    assert_string_equal(feed_reason("bad_image"), "bad_image");
}

static void make_body(struct text *out, uint32_t choice)
{
    struct queue_entry entries[3] = {sample_entry(0), sample_entry(1), sample_entry(2)};
    struct retraction retraction = {"a galaxy", "retired"};
    struct feed_bytes bodies[2] = {
        {"\x80", 1},
        {"abc",  3}
    };
    switch (choice % 7) {
    case 0:
        feed_encode_upsert(out, &header, 1, entries, 3);
        break;
    case 1:
        feed_encode_retract(out, &header, &retraction, 1);
        break;
    case 2:
        feed_encode_rerank(out, &header, 1, 2, &(struct feed_whole){3, 4});
        break;
    case 3:
        feed_encode_snapshot(out, &header,
                             &(struct feed_chunk){
                                 1, 2, 3, 0, 0, (const struct queue_entry *const[]){entries, entries + 1},
                                         2
        });
        break;
    case 4:
        feed_encode_replay(out, &header, &(struct feed_whole){3, 4}, 1, bodies, 2);
        break;
    case 5:
        feed_encode_ack(out, "name", header.epoch, 5, &(struct feed_counters){1, 2, 3, 4});
        break;
    default:
        feed_encode_replay_request(out, 0, header.epoch, 5);
    }
}

/* Damaged bodies end in 0, ERROR_INPUT or ERROR_LIMIT, and what is accepted is within its bounds. */
static void test_mutations(void **state)
{
    (void)state;
    const uint64_t seed = 77;
    int accepted = 0;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (uint32_t round = 0; round < 60000; round++) {
        struct philox draw = philox(seed, round, 0, 0, 0);
        struct text out = text_new(10000);
        struct feed_request request;
        make_body(&out, round);
        char *exact = malloc(out.length);
        assert_non_null(exact);
        memcpy(exact, out.bytes, out.length);
        for (int i = 0; i < 3; i++)
            if (draw.word[3] >> i & 1)
                exact[draw.word[i] % out.length] = (char)(draw.word[i] >> 24);
        size_t length = draw.word[3] & 8 ? out.length : draw.word[3] % out.length;
        int result = feed_decode(exact, length, &message);
        assert_true(result == 0 || result == ERROR_INPUT || result == ERROR_LIMIT);
        if (!result) {
            accepted++;
            assert_true(message.count <= FEED_SNAPSHOT_ENTRIES);
            for (size_t i = 0; message.kind == FEED_SNAPSHOT && i < message.count; i++)
                assert_int_equal(feed_check_entry(&message.entries[i]), 0);
        }
        result = feed_decode_request(exact, length, &request);
        assert_true(result == 0 || result == ERROR_INPUT || result == ERROR_LIMIT);
        free(exact);
        text_free(&out);
    }
    assert_true(accepted > 3000 && accepted < 55000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heartbeat_bytes),
        cmocka_unit_test(test_upsert_of_another_encoder),
        cmocka_unit_test(test_streams_are_those_of_the_selection),
        cmocka_unit_test(test_full_upsert_and_snapshot),
        cmocka_unit_test(test_small_kinds),
        cmocka_unit_test(test_replay_carries_bodies_unchanged),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_versions_and_kinds),
        cmocka_unit_test(test_entries_that_may_not_be_published),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
