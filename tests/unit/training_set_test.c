/*
 * Galaxies and labels for training (daemon/training_set.h): the weights of classes, which rows take part in what, and what the
 * outputs are called.
 */
#include "daemon/training_set.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/csv.h"
#include "connectors/png_write.h"
#include "tests/support/small_schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/triage-test.XXXXXX";
static char catalogue[64], test_catalogue[64];

static void write_file(const char *path, const void *bytes, size_t length)
{
    struct file_part part = {bytes, length};
    assert_int_equal(file_write(path, &part, 1, 0600), 0);
}

/* Seven round galaxies and one ring to train on, one without label and one whose image is missing; rings to test on, which must
 * not count for the weights, and one galaxy that nobody has labelled. */
static int set_up(void **state)
{
    static const char train[] =
        "id_str,file_loc,kind\n"
        "a,g.png,round\nb,g.png,round\nc,g.png,round\nd,g.png,ring\ne,g.png,round\n"
        "f,g.png,round\ng,g.png,round\nh,g.png,round\ni,g.png,\n\"j, \"\"1\"\"\",nowhere.png,ring\n",
                      test[] = "id_str,file_loc,kind\nk,g.png,ring\nl,g.png,ring\nm,g.png,\n";
    static uint8_t pixels[32 * 32];
    char path[64];
    uint8_t *bytes;
    size_t length;
    (void)state;
    for (int i = 0; i < 32 * 32; i++)
        pixels[i] = (uint8_t)i;
    if (!mkdtemp(folder) || png_write(32, 32, 1, pixels, &bytes, &length))
        return -1;
    snprintf(path, sizeof path, "%s/g.png", folder);
    snprintf(catalogue, sizeof catalogue, "%s/train.csv", folder);
    snprintf(test_catalogue, sizeof test_catalogue, "%s/test.csv", folder);
    write_file(path, bytes, length);
    write_file(catalogue, train, strlen(train));
    write_file(test_catalogue, test, strlen(test));
    free(bytes);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"g.png", "train.csv", "test.csv", "bad.csv", "pixels"};
    char path[64];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

static void open_set(const char *class_weights, struct training_set *set)
{
    static struct config config;
    static struct schema schema;
    struct training_source source = {catalogue, test_catalogue, "kind", "classes", folder, 1};
    small_schema(&schema, 1, (int[]){2}, (int[]){-1});
    config.image_side = 32;
    config.image_channels = 1;
    config.threads = 1;
    snprintf(config.class_weights, sizeof config.class_weights, "%s", class_weights);
    if (training_set_open(&config, &schema, &source, set))
        fail_msg("%s", error_message());
}

/* n / (classes * n of the class), over what is trained on alone: 8 / (2 * 1) and 8 / (2 * 7). */
static void rare_classes_count_more(void **state)
{
    static struct training_set set;
    (void)state;
    open_set("balanced", &set);
    assert_int_equal(set.train_count, 8);
    assert_string_equal(set.class_name[0], "ring");
    assert_string_equal(set.class_name[1], "round");
    assert_float_equal(set.target.class_weight[0], 4, 1e-6);
    assert_float_equal(set.target.class_weight[1], 8.0 / 14, 1e-6);
    float unsure[2] = {0, 0}; /* each class weighs as much as the other: 7 times as much per galaxy */
    double rare = target_loss(&set.target, unsure, (float[]){1, 0}, NULL),
           common = target_loss(&set.target, unsure, (float[]){0, 1}, NULL);
    assert_float_equal(rare / common, 7, 1e-5);
    training_set_close(&set);

    open_set("none", &set);
    assert_true(set.target.class_weight[0] == 1 && set.target.class_weight[1] == 1);
    training_set_close(&set);
}

static void rows_take_part_where_they_can(void **state)
{
    static struct training_set set;
    (void)state;
    open_set("none", &set);
    assert_int_equal(set.validation_count, 0);
    assert_int_equal(set.test_count, 2);
    assert_int_equal(set.open_count, 1);
    assert_string_equal(set.id_str[set.open_row[0]], "m");
    assert_int_equal(set.unlabelled, 2);
    assert_int_equal(set.bad, 1);
    assert_string_equal(set.head.target, "classes");
    assert_int_equal(set.head.outputs, 2);
    assert_string_equal(set.head.output[0], "ring");
    assert_string_equal(set.head.output[1], "round");
    training_set_close(&set);
}

/* An id may hold what separates fields. */
static void bad_images_are_listed_by_id(void **state)
{
    static struct training_set set;
    static struct csv list;
    char path[64];
    (void)state;
    open_set("none", &set);
    training_set_close(&set);
    snprintf(path, sizeof path, "%s/bad.csv", folder);
    assert_int_equal(csv_open(path, "list", 4096, &list), 0);
    assert_int_equal(csv_next(&list), 1);
    assert_int_equal(csv_next(&list), 1);
    assert_int_equal(list.fields, 2);
    assert_string_equal(list.field[0], "j, \"1\"");
    assert_non_null(strstr(list.field[1], "nowhere.png"));
    assert_int_equal(csv_next(&list), 0);
    csv_close(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rare_classes_count_more),
                                       cmocka_unit_test(bad_images_are_listed_by_id),
                                       cmocka_unit_test(rows_take_part_where_they_can)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
