/* The labels a run begins with, through their file; files that are cut, damaged, of another pool or tree are refused. */
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "model/trunk_labels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ANSWERS 3
#define POOL    50

static char folder[] = "/tmp/trunk-labels-XXXXXX", path[64], *bytes;
static size_t length;

static int set_up(void **state)
{
    struct trunk_labels labels;
    static const uint64_t rows[] = {4, 49, 7, 0, 11};
    (void)state;
    if (!mkdtemp(folder) || trunk_labels_new(5, ANSWERS, &labels))
        return -1;
    snprintf(path, sizeof path, "%s/labels", folder);
    labels.train_count = 3;
    labels.validation_count = 2;
    labels.recipe = (struct trunk_recipe){.learning_rate = 0.1 / 3, .augmentation = AUGMENT_W20, .seed = 17};
    memcpy(labels.row, rows, sizeof rows);
    for (int i = 0; i < 5 * ANSWERS; i++)
        labels.votes[i] = (uint16_t)(65535 - i);
    int result = trunk_labels_save(path, &labels);
    trunk_labels_free(&labels);
    return result ? result : file_read(path, 1 << 20, &bytes, &length);
}

static int tear_down(void **state)
{
    (void)state;
    free(bytes);
    unlink(path);
    return rmdir(folder);
}

static void come_back_as_they_were(void **state)
{
    struct trunk_labels labels;
    (void)state;
    assert_int_equal(trunk_labels_load(path, ANSWERS, POOL, &labels), 0);
    assert_int_equal(labels.train_count, 3);
    assert_int_equal(labels.validation_count, 2);
    assert_true(labels.recipe.learning_rate == 0.1 / 3);
    assert_int_equal(labels.recipe.augmentation, AUGMENT_W20);
    assert_int_equal(labels.recipe.seed, 17);
    assert_int_equal(labels.row[1], 49);
    assert_int_equal(labels.row[4], 11);
    assert_int_equal(labels.votes[0], 65535);
    assert_int_equal(labels.votes[14], 65521);
    trunk_labels_free(&labels);
}

static void refuse(const char *text, size_t count, uint64_t answers, uint64_t rows, int code, const char *words)
{
    struct trunk_labels labels;
    struct file_part part = {text, count};
    assert_int_equal(file_write(path, &part, 1, 0600), 0);
    int result = trunk_labels_load(path, answers, rows, &labels);
    if (result != code || !strstr(error_message(), words))
        fail_msg("%d '%s', wanted %d '%s'", result, error_message(), code, words);
    assert_null(labels.row);
}

/* The bytes as they are, their checksum right again. */
static void seal(void)
{
    uint64_t check = hash_64(bytes, length - 8);
    memcpy(bytes + length - 8, &check, 8);
}

static void refuses_what_is_not_whole(void **state)
{
    (void)state;
    for (size_t cut = 0; cut < length; cut += 9)
        refuse(bytes, cut, ANSWERS, POOL, ERROR_INPUT,
               cut < sizeof(struct trunk_recipe) + 48 ? "cut short" : "wrong checksum");
    for (size_t at = 16; at < length; at += 7) {
        bytes[at] ^= 64;
        refuse(bytes, length, ANSWERS, POOL, ERROR_INPUT, "wrong checksum");
        bytes[at] ^= 64;
    }
    refuse("GZMODEL\n", 8, ANSWERS, POOL, ERROR_INPUT, "does not hold the labels");
    refuse(bytes, length, ANSWERS + 1, POOL, ERROR_INPUT, "a decision tree with 3 answers, this one has 4");
    refuse(bytes, length, ANSWERS, 49, ERROR_INPUT, "names galaxy 50, the pool has 49");
}

/* Sealed, but wrong: what a program with a bug, or a person, would write. */
static void refuses_what_contradicts_itself(void **state)
{
    static const struct {
        size_t at;
        uint64_t value;
        const char *words;
    } cases[] = {
        {16, 4,          "as many galaxies as it says"       }, /* one more to train on than there are */
        {16, UINT64_MAX, "as many galaxies as it says"       }, /* the sum of both counts overflows */
        {24, 1,          "as many galaxies as it says"       },
        {24, UINT64_MAX, "as many galaxies as it says"       },
        {32, 1,          "a decision tree with 1 answers"    },
        {0,  0,          "names galaxy 1000001, the pool has"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t rows_at = 40 + sizeof(struct trunk_recipe), at = cases[i].at ? cases[i].at : rows_at + 8;
        uint64_t value = cases[i].at ? cases[i].value : 1000000, saved;
        memcpy(&saved, bytes + at, 8);
        memcpy(bytes + at, &value, 8);
        seal();
        refuse(bytes, length, ANSWERS, POOL, ERROR_INPUT, cases[i].words);
        memcpy(bytes + at, &saved, 8);
    }
    bytes[8] = 2;
    seal();
    refuse(bytes, length, ANSWERS, POOL, ERROR_STATE, "another version");
    bytes[8] = 1;
    seal();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(come_back_as_they_were),
                                       cmocka_unit_test(refuses_what_is_not_whole),
                                       cmocka_unit_test(refuses_what_contradicts_itself)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
