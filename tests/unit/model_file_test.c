/* Model files: everything comes back, and no damaged, foreign or half-written file is ever taken for a model.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "model/model_file.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char folder[64], path[96];
    struct schema schema;
    struct model model;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    snprintf(fixture->folder, sizeof fixture->folder, "/tmp/model_file_test.XXXXXX");
    if (!mkdtemp(fixture->folder))
        return -1;
    snprintf(fixture->path, sizeof fixture->path, "%s/000012.model", fixture->folder);
    small_schema(&fixture->schema, 2, (int[]){3, 2}, (int[]){-1, 0});
    struct model *model = &fixture->model;
    *model = (struct model){.number = 12,
                            .parent = 11,
                            .created_unix_ms = 1700000000123,
                            .schema_name = "small",
                            .architecture = "efficientnet_b0",
                            .trunk_name = "random",
                            .trunk_version = 4,
                            .seed = 0xfedcba9876543210u,
                            .vote_cursor = 1ull << 40,
                            .train_galaxies = 500,
                            .validation_galaxies = 50,
                            .gate_galaxies = 51,
                            .train_loss = 1.25,
                            .validation_loss = 1.5,
                            .champion_nll = NAN,
                            .challenger_nll = 1.75,
                            .constant_nll = 2.5};
    memcpy(model->schema_hash, fixture->schema.hash, HASH_TEXT_BYTES);
    if (head_set_new(2, 7, 5, &model->heads))
        return -1;
    model->heads.model = 12;
    model->heads.dropout = 0.2f;
    model->heads.unit_length = 1;
    model->heads.step = 1ull << 33;
    model->heads.factor[1] = 0.25f;
    for (size_t i = 0; i < head_set_floats(&model->heads); i++)
        model->heads.shift[i] = (float)i + 0.5f;
    *state = fixture;
    return model_save(fixture->path, model);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    unlink(fixture->path);
    rmdir(fixture->folder);
    model_free(&fixture->model);
    free(fixture);
    return 0;
}

static void assert_loads_whole(const struct fixture *fixture)
{
    struct model back;
    const struct model *model = &fixture->model;
    assert_int_equal(model_load(fixture->path, &fixture->schema, &back), 0);
    assert_memory_equal(back.heads.shift, model->heads.shift, head_set_floats(&model->heads) * sizeof(float));
    assert_true(back.heads.count == 2 && back.heads.inputs == 7 && back.heads.answers == 5 && back.heads.model == 12);
    assert_true(back.heads.unit_length == 1);
    assert_true(back.heads.factor[0] == 1 && back.heads.factor[1] == 0.25f);
    assert_true(back.heads.dropout == 0.2f && back.heads.step == 1ull << 33);
    assert_true(back.number == 12 && back.parent == 11 && back.created_unix_ms == 1700000000123);
    assert_string_equal(back.schema_name, "small");
    assert_string_equal(back.schema_hash, fixture->schema.hash);
    assert_string_equal(back.architecture, "efficientnet_b0");
    assert_string_equal(back.trunk_name, "random");
    assert_true(back.trunk_version == 4 && back.seed == 0xfedcba9876543210u && back.vote_cursor == 1ull << 40);
    assert_true(back.train_galaxies == 500 && back.validation_galaxies == 50 && back.gate_galaxies == 51);
    assert_true(back.train_loss == 1.25 && back.validation_loss == 1.5 && isnan(back.champion_nll));
    assert_true(back.challenger_nll == 1.75 && back.constant_nll == 2.5);
    model_free(&back);
    assert_null(back.heads.shift);
}

static void everything_comes_back(void **state)
{
    assert_loads_whole(*state);
}

/* Reads the file, lets `change` spoil it, writes it back and expects this error. */
static void expect(struct fixture *fixture, void change(char *bytes, size_t *length), int code, const char *words)
{
    char *bytes;
    size_t length;
    struct model back;
    assert_int_equal(file_read(fixture->path, 1 << 20, &bytes, &length), 0);
    change(bytes, &length);
    struct file_part part = {bytes, length};
    assert_int_equal(file_write(fixture->path, &part, 1, 0600), 0);
    free(bytes);
    int result = model_load(fixture->path, &fixture->schema, &back);
    if (result != code || !strstr(error_message(), words) || !strstr(error_message(), fixture->path))
        fail_msg("%d: %s", result, error_message());
    assert_null(back.heads.shift);
}

static void spoil_magic(char *bytes, size_t *length)
{
    (void)length;
    bytes[0] = 'X';
}

static void make_newer(char *bytes, size_t *length)
{
    (void)length;
    bytes[8] = MODEL_FORMAT_VERSION + 1;
}

static void make_empty(char *bytes, size_t *length)
{
    (void)bytes;
    *length = 0;
}

static void cut_prefix(char *bytes, size_t *length)
{
    (void)bytes;
    *length = 13;
}

static void cut_last_byte(char *bytes, size_t *length)
{
    (void)bytes;
    --*length;
}

static void flip_one_bit(char *bytes, size_t *length)
{
    bytes[*length / 2] ^= 0x10;
}

static void flip_checksum(char *bytes, size_t *length)
{
    bytes[*length - 1] ^= 1;
}

static void seal(char *bytes, size_t length)
{
    uint64_t stated = length, checksum;
    memcpy(bytes + 16, &stated, 8);
    checksum = hash_64(bytes, length - 8);
    memcpy(bytes + length - 8, &checksum, 8);
}

/* Everything consistent but the size of the arrays. */
static void shorten_arrays(char *bytes, size_t *length)
{
    *length -= 4;
    seal(bytes, *length);
}

/* An older format that never existed. */
static void make_version_0(char *bytes, size_t *length)
{
    bytes[8] = 0;
    seal(bytes, *length);
}

/* heads.count is the first of the last eight fields: count, inputs, answers, model, dropout, unit length (4 bytes each),
 * step (8), a factor per question (4). */
static void too_many_heads(char *bytes, size_t *length)
{
    size_t floats = 2 * 7 + 2 * 5 * 7 + 2 * 5 + 2 * 2 * 5 * 8,
           count = *length - 8 - 4 * floats - 32 - 4 * SCHEMA_QUESTIONS_MAX;
    assert_int_equal(bytes[count], 2);
    bytes[count] = 100;
    seal(bytes, *length);
}

static void bad_files_are_named_for_what_they_are(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        void (*change)(char *bytes, size_t *length);
        int code;
        const char *words;
    } cases[] = {
        {make_empty,     ERROR_INPUT, "not a model file"      },
        {spoil_magic,    ERROR_INPUT, "not a model file"      },
        {cut_prefix,     ERROR_INPUT, "truncated"             },
        {cut_last_byte,  ERROR_INPUT, "truncated"             },
        {make_newer,     ERROR_STATE, "newer triaged"         },
        {make_version_0, ERROR_INPUT, "unknown model format 0"},
        {flip_one_bit,   ERROR_INPUT, "damaged"               },
        {flip_checksum,  ERROR_INPUT, "damaged"               },
        {shorten_arrays, ERROR_INPUT, "arrays"                },
        {too_many_heads, ERROR_INPUT, "100 heads"             },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect(fixture, cases[i].change, cases[i].code, cases[i].words);
        assert_int_equal(model_save(fixture->path, &fixture->model), 0);
    }
    assert_loads_whole(fixture);
}

/* Cut anywhere, the file is refused. */
static void the_trunk_alone(void **state)
{
    const struct fixture *fixture = *state;
    struct file_part part = {"GZMODEL\nand no more", 19};
    uint32_t trunk = 0;
    assert_int_equal(model_trunk(fixture->path, &trunk), 0);
    assert_int_equal(trunk, 4);
    assert_int_equal(file_write(fixture->path, &part, 1, 0600), 0);
    assert_int_equal(model_trunk(fixture->path, &trunk), ERROR_INPUT);
    unlink(fixture->path);
    assert_int_equal(model_trunk(fixture->path, &trunk), ERROR_NOT_FOUND);
}

static void every_truncation_is_refused(void **state)
{
    struct fixture *fixture = *state;
    char *bytes;
    size_t length;
    struct model back;
    assert_int_equal(file_read(fixture->path, 1 << 20, &bytes, &length), 0);
    for (size_t cut = 0; cut < length; cut += 37) {
        FILE *file = fopen(fixture->path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(bytes, 1, cut, file), cut);
        fclose(file);
        assert_int_equal(model_load(fixture->path, NULL, &back), ERROR_INPUT);
    }
    free(bytes);
}

static void another_schema_is_refused_with_both_hashes(void **state)
{
    struct fixture *fixture = *state;
    struct model back;
    struct schema other;
    small_schema(&other, 2, (int[]){2, 3}, (int[]){-1, 0});
    assert_int_equal(model_load(fixture->path, &other, &back), ERROR_STATE);
    assert_non_null(strstr(error_message(), fixture->schema.hash));
    assert_non_null(strstr(error_message(), other.hash));
    assert_null(back.heads.shift);
    assert_int_equal(model_load(fixture->path, NULL, &back), 0); /* any schema */
    model_free(&back);
}

static void a_missing_file_is_not_found(void **state)
{
    struct fixture *fixture = *state;
    struct model back;
    unlink(fixture->path);
    assert_int_equal(model_load(fixture->path, &fixture->schema, &back), ERROR_NOT_FOUND);
    assert_null(back.heads.shift);
}

/* The file system refuses more bytes: an error, the old model untouched, nothing left behind. */
static void a_full_disk_leaves_the_old_model(void **state)
{
    struct fixture *fixture = *state;
    struct rlimit old, small;
    struct model other = fixture->model;
    char left_behind[128];
    other.number = 13;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 512;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int result = model_save(fixture->path, &other);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(result, ERROR_SYSTEM);
    assert_non_null(strstr(error_message(), fixture->path));
    snprintf(left_behind, sizeof left_behind, "%s.new", fixture->path);
    assert_false(file_exists(left_behind));
    assert_loads_whole(fixture);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(everything_comes_back),
        TEST(bad_files_are_named_for_what_they_are),
        TEST(the_trunk_alone),
        TEST(every_truncation_is_refused),
        TEST(another_schema_is_refused_with_both_hashes),
        TEST(a_missing_file_is_not_found),
        TEST(a_full_disk_leaves_the_old_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
