/* base/msgpack: bytes as the MessagePack specification gives them, and bodies that lie about themselves. */
#include "base/error.h"
#include "base/msgpack.h"
#include "base/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int read_body(const void *bytes, size_t length, size_t values_max)
{
    struct msgpack_body *body;
    int result = msgpack_read(bytes, length, values_max, &body);
    if (!result)
        msgpack_free(body);
    return result;
}

/* As the specification has them; the first five pairs are also what Python's msgpack.packb() makes. */
static void test_written_bytes(void **state)
{
    (void)state;
    static const unsigned char expected[] = {
        0x87, 0xa1, 'v',  0x01, 0xa4, 'k',  'i',  'n',  'd',  0xa6, 'u',  'p',  's',  'e',  'r',  't', 0xa3,
        's',  'e',  'q',  0xcf, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xa4, 'l',  'a',  't', 'e',
        0xd1, 0xfc, 0x18, 0xa1, 'p',  0xcb, 0x3f, 0xd0, 0,    0,    0,    0,    0,    0,    0xa1, 's', 0xca,
        0x3f, 0x00, 0,    0,    0xa4, 'l',  'i',  's',  't',  0x93, 0xc3, 0xc2, 0xc4, 0x02, 0xff, 0x00};
    struct text out = text_new(1000);
    msgpack_map(&out, 7);
    msgpack_put_uint(&out, "v", 1);
    msgpack_put_string(&out, "kind", "upsert");
    msgpack_put_uint(&out, "seq", 0x0123456789abcdefu);
    msgpack_put_int(&out, "late", -1000);
    msgpack_put_double(&out, "p", 0.25);
    msgpack_put_float(&out, "s", 0.5f);
    msgpack_put_array(&out, "list", 3);
    msgpack_bool(&out, 1);
    msgpack_bool(&out, 0);
    msgpack_binary(&out, "\xff\0", 2);
    assert_int_equal(text_error(&out), 0);
    assert_int_equal(out.length, sizeof expected);
    assert_memory_equal(out.bytes, expected, sizeof expected);
    text_free(&out);
}

static void test_writing_stops_at_the_limit(void **state)
{
    (void)state;
    struct text out = text_new(10);
    msgpack_string(&out, "0123456789");
    assert_int_equal(text_error(&out), ERROR_LIMIT);
    text_free(&out);
}

static void make_sample(struct text *out)
{
    msgpack_map(out, 8);
    msgpack_put_uint(out, "top", UINT64_MAX);
    msgpack_put_int(out, "low", INT64_MIN);
    msgpack_put_double(out, "tenth", 0.1);
    msgpack_put_uint(out, "seven", 7);
    msgpack_put_string(out, "name", "NGC 4151");
    msgpack_string(out, "yes");
    msgpack_bool(out, 1);
    msgpack_put_array(out, "list", 2);
    msgpack_binary(out, "ab", 2);
    msgpack_uint(out, 5);
    msgpack_string(out, "infinite");
    msgpack_double(out, 1e308 * 10);
    assert_int_equal(text_error(out), 0);
}

static void test_values_come_back(void **state)
{
    (void)state;
    struct text out = text_new(1000);
    struct msgpack_body *body;
    make_sample(&out);
    assert_int_equal(msgpack_read(out.bytes, out.length, 100, &body), 0);
    const struct msgpack_value *map = msgpack_root(body), *list;
    uint64_t top;
    int64_t low, seven;
    double tenth, whole;
    int yes;
    char name[9];
    size_t count, length;
    const void *bytes;
    assert_int_equal(msgpack_get_uint(map, "top", &top), 0);
    assert_true(top == UINT64_MAX);
    assert_int_equal(msgpack_get_int(map, "low", &low), 0);
    assert_true(low == INT64_MIN);
    assert_int_equal(msgpack_get_int(map, "seven", &seven), 0);
    assert_int_equal(seven, 7);
    assert_int_equal(msgpack_get_double(map, "tenth", &tenth), 0);
    assert_true(tenth == 0.1);
    assert_int_equal(msgpack_get_double(map, "seven", &whole), 0);
    assert_true(whole == 7.0);
    assert_int_equal(msgpack_get_bool(map, "yes", &yes), 0);
    assert_int_equal(yes, 1);
    assert_int_equal(msgpack_get_string(map, "name", name, sizeof name), 0);
    assert_string_equal(name, "NGC 4151");
    assert_int_equal(msgpack_get_array(map, "list", &list, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(msgpack_bytes(msgpack_item(list, 0), &bytes, &length), 0);
    assert_int_equal(length, 2);
    assert_memory_equal(bytes, "ab", 2);
    assert_int_equal(msgpack_bytes(msgpack_item(list, 1), &bytes, &length), ERROR_INPUT);
    assert_true(msgpack_has(map, "top"));
    assert_false(msgpack_has(map, "to"));
    msgpack_free(body);
    text_free(&out);
}

static void test_wrong_values_are_named(void **state)
{
    (void)state;
    struct text out = text_new(1000);
    struct msgpack_body *body;
    uint64_t number = 99;
    int64_t whole = 99;
    double real = 99;
    char name[8] = "kept";
    make_sample(&out);
    assert_int_equal(msgpack_read(out.bytes, out.length, 100, &body), 0);
    const struct msgpack_value *map = msgpack_root(body), *list;
    size_t count;
    assert_int_equal(msgpack_get_uint(map, "absent", &number), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "'absent'"));
    assert_non_null(strstr(error_message(), "missing"));
    assert_int_equal(msgpack_get_uint(map, "low", &number), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "'low'"));
    assert_int_equal(msgpack_get_uint(map, "tenth", &number), ERROR_INPUT);
    assert_int_equal(msgpack_get_int(map, "top", &whole), ERROR_INPUT);
    assert_int_equal(msgpack_get_double(map, "infinite", &real), ERROR_INPUT);
    assert_int_equal(msgpack_get_double(map, "name", &real), ERROR_INPUT);
    assert_int_equal(msgpack_get_string(map, "name", name, sizeof name), ERROR_INPUT); /* one byte too long */
    assert_non_null(strstr(error_message(), "'name'"));
    assert_int_equal(msgpack_get_array(map, "name", &list, &count), ERROR_INPUT);
    assert_int_equal(number, 99);
    assert_int_equal(whole, 99);
    assert_true(real == 99);
    assert_string_equal(name, "kept");
    msgpack_free(body);
    assert_int_equal(msgpack_read("\x07", 1, 10, &body), 0); /* not even a map */
    assert_int_equal(msgpack_get_uint(msgpack_root(body), "v", &number), ERROR_INPUT);
    msgpack_free(body);
    text_free(&out);
}

/* Each of these announces more than it brings. None may cost memory in proportion to what it announces. */
static void test_bombs(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        int expected;
    } bombs[] = {
        {"\xdd\xff\x00\x00\x00",     5, ERROR_LIMIT}, /* 4e9 elements */
        {"\xdd\x00\x00\x03\xe8",     5, ERROR_INPUT}, /* 1,000 elements allowed, but not there */
        {"\xdf\xff\xff\xff\xff",     5, ERROR_LIMIT}, /* pairs */
        {"\xdf\x80\x00\x00\x00",     5, ERROR_LIMIT}, /* twice that does not fit 32 bits */
        {"\xdb\xff\xff\xff\xff",     5, ERROR_INPUT}, /* string */
        {"\xc6\xff\xff\xff\xff",     5, ERROR_INPUT}, /* binary */
        {"\xdb\xff\xff",             3, ERROR_INPUT}, /* length cut short */
        {"\xc9\xff\xff\xff\xff\x01", 6, ERROR_INPUT}, /* extension */
        {"\xd6\xff\x00\x00\x00\x00", 6, ERROR_INPUT}, /* timestamp extension */
        {"\xc1",                     1, ERROR_INPUT}, /* never used */
        {"",                         0, ERROR_INPUT}, /* nothing */
        {"\x01\x02",                 2, ERROR_INPUT}, /* bytes behind the end */
        {"\x92\x01",                 2, ERROR_INPUT}, /* one of two elements */
        {"\xcf\x00\x00\x00",         4, ERROR_INPUT}, /* half an integer */
    };
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++)
        assert_int_equal(read_body(bombs[i].bytes, bombs[i].length, 2000), bombs[i].expected);
}

static void test_depth(void **state)
{
    (void)state;
    static char nested[100001];
    memset(nested, '\x91', sizeof nested - 1);
    nested[sizeof nested - 1] = 1;
    assert_int_equal(read_body(nested, sizeof nested, 1000000), ERROR_LIMIT);
    assert_int_equal(read_body(nested + sizeof nested - 1 - MSGPACK_DEPTH_MAX, MSGPACK_DEPTH_MAX + 1, 100), 0);
    assert_int_equal(read_body(nested + sizeof nested - 2 - MSGPACK_DEPTH_MAX, MSGPACK_DEPTH_MAX + 2, 100),
                     ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "deep"));
}

static void test_value_limit(void **state)
{
    (void)state;
    char body[101];
    memset(body, 1, sizeof body);
    memcpy(body, "\xdc\x00\x62", 3); /* 98 elements */
    assert_int_equal(read_body(body, sizeof body, 99), 0);
    assert_int_equal(read_body(body, sizeof body, 98), ERROR_LIMIT);
}

static void test_every_prefix_is_refused(void **state)
{
    (void)state;
    struct text out = text_new(1000);
    make_sample(&out);
    for (size_t length = 0; length < out.length; length++) {
        char *copy = malloc(length + 1); /* exact size, so that a read beyond it is seen */
        assert_non_null(copy);
        memcpy(copy, out.bytes, length);
        char *exact = realloc(copy, length ? length : 1);
        assert_int_equal(read_body(exact, length, 100), ERROR_INPUT);
        free(exact);
    }
    text_free(&out);
}

/* Whatever is accepted after random damage must also be safe to look at. */
static void test_mutations(void **state)
{
    (void)state;
    const uint64_t seed = 20240611;
    struct text out = text_new(1000);
    int accepted = 0;
    make_sample(&out);
    print_message("seed %llu\n", (unsigned long long)seed);
    for (uint32_t round = 0; round < 50000; round++) {
        struct philox draw = philox(seed, round, 0, 0, 0);
        char *copy = malloc(out.length);
        struct msgpack_body *body;
        assert_non_null(copy);
        memcpy(copy, out.bytes, out.length);
        for (int i = 0; i < 1 + (int)(draw.word[0] & 1); i++)
            copy[draw.word[1 + i] % out.length] = (char)(draw.word[1 + i] >> 24);
        if (msgpack_read(copy, out.length, 100, &body) == 0) {
            uint64_t number;
            char name[64];
            const struct msgpack_value *list;
            size_t count;
            accepted++;
            msgpack_get_uint(msgpack_root(body), "top", &number);
            msgpack_get_string(msgpack_root(body), "name", name, sizeof name);
            if (msgpack_get_array(msgpack_root(body), "list", &list, &count) == 0)
                for (size_t i = 0; i < count; i++)
                    msgpack_has(msgpack_item(list, i), "x");
            msgpack_free(body);
        }
        free(copy);
    }
    assert_true(accepted > 5000 && accepted < 50000); /* damage inside a text stays valid, damage to structure not */
    text_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_bytes),
        cmocka_unit_test(test_writing_stops_at_the_limit),
        cmocka_unit_test(test_values_come_back),
        cmocka_unit_test(test_wrong_values_are_named),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_value_limit),
        cmocka_unit_test(test_every_prefix_is_refused),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
