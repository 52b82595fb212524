/* Catalogues: what is read, what is refused and on which line, and that nothing grows with the file. */
#include "base/error.h"
#include "connectors/catalogue.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/catalogue_test.XXXXXX";
static char path[64];
static struct schema schema; /* q0_a0, q0_a1, q0_a2; q1_a0, q1_a1 */

static void store(const char *text, size_t length)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static struct catalogue *opened(const char *text)
{
    struct catalogue *catalogue;
    store(text, strlen(text));
    assert_int_equal(catalogue_open(path, &schema, &catalogue), 0);
    return catalogue;
}

static void reads_columns_in_any_order(void **state)
{
    (void)state;
    struct catalogue_row row;
    struct catalogue *catalogue = opened("dec,q1_a1,name,id_str,q0_a2,file_loc,ra,redshift\n"
                                         "-89.5,3,M 31,first,38.0,images/a.jpg,359.25,0.1\n"
                                         "\n"
                                         ",,,second,,/abs/b.png,,\n"
                                         "90,0,x,third,65535,c,0,nan"); /* no newline at the end */
    assert_int_equal(catalogue_vote_columns(catalogue), 2);
    assert_int_equal(catalogue_next(catalogue, &row), 1);
    assert_string_equal(row.id_str, "first");
    assert_string_equal(row.file_loc, "images/a.jpg");
    assert_float_equal(row.ra, 359.25, 0);
    assert_float_equal(row.dec, -89.5, 0);
    assert_int_equal(row.line, 2);
    static const uint32_t first[] = {0, 0, 38, 0, 3}, none[5] = {0}, third[] = {0, 0, 65535, 0, 0};
    assert_memory_equal(row.votes, first, sizeof first);
    assert_int_equal(catalogue_next(catalogue, &row), 1);
    assert_string_equal(row.id_str, "second");
    assert_string_equal(row.file_loc, "/abs/b.png");
    assert_true(isnan(row.ra) && isnan(row.dec));
    assert_int_equal(row.line, 4);
    assert_memory_equal(row.votes, none, sizeof none);
    assert_int_equal(catalogue_next(catalogue, &row), 1);
    assert_string_equal(row.id_str, "third");
    assert_memory_equal(row.votes, third, sizeof third);
    assert_int_equal(catalogue_next(catalogue, &row), 0);
    assert_int_equal(catalogue_next(catalogue, &row), 0);
    catalogue_close(catalogue);
    catalogue_close(NULL);
}

/* The same galaxies in every way RFC 4180 and spreadsheets write them. */
static void quoting_and_line_ends_do_not_matter(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "id_str,file_loc,note\na \"b\",\"x, \"\"y\"\".png\",z\nc,d,e\n",
        "\xef\xbb\xbf\"id_str\",\"file_loc\",\"note\"\n\"a \"\"b\"\"\",\"x, "
        "\"\"y\"\".png\",\"\"\n\"c\",\"d\",\"\"\n",
        "id_str,file_loc,note\r\na \"b\",\"x, \"\"y\"\".png\",\"two\r\nlines, and \"\"more\"\"\"\r\nc,d,\r\n",
        "id_str,file_loc,note\r\na \"b\",\"x, \"\"y\"\".png\",\"\"\"\"\r\n\r\nc,d,\"e\"\r\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct catalogue_row row;
        struct catalogue *catalogue = opened(texts[i]);
        assert_int_equal(catalogue_next(catalogue, &row), 1);
        assert_string_equal(row.id_str, "a \"b\"");
        assert_string_equal(row.file_loc, "x, \"y\".png");
        assert_int_equal(row.line, 2);
        assert_int_equal(catalogue_next(catalogue, &row), 1);
        assert_string_equal(row.id_str, "c");
        assert_string_equal(row.file_loc, "d");
        assert_int_equal(row.line, i < 2 ? 3 : 4); /* lines of the file are counted, not rows */
        assert_int_equal(catalogue_next(catalogue, &row), 0);
        catalogue_close(catalogue);
    }
}

#define HEAD "id_str,file_loc,ra,dec,q0_a0,q0_a1,q1_a0\n"
#define GOOD "a,b,1,2,3,4,5\n"
#define X16  "xxxxxxxxxxxxxxxx"

static void bad_catalogues_are_refused_by_line(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int code;
        const char *message;
    } cases[] = {
        {"",                                           ERROR_INPUT, " is empty"                               },
        {"\xef\xbb",                                   ERROR_INPUT, " is empty"                               },
        {"\xef\xbfid_str,file_loc\n",                  ERROR_INPUT, ":1: is not UTF-8"                        },
        {HEAD,                                         ERROR_INPUT, "holds no galaxies"                       },
        {HEAD "\n\r\n",                                ERROR_INPUT, "holds no galaxies"                       },
        {"id,file_loc\na,b\n",                         ERROR_INPUT, ":1: column 'id_str' is missing"          },
        {"id_str,file\na,b\n",                         ERROR_INPUT, ":1: column 'file_loc' is missing"        },
        {"id_str,file_loc,ra\na,b,1\n",                ERROR_INPUT, ":1: columns 'ra' and 'dec' come together"},
        {"id_str,file_loc,q0_a0,q0_a0\na,b,1,1\n",     ERROR_INPUT, ":1: column 'q0_a0' appears twice"        },
        {"id_str,id_str,file_loc\na,b,c\n",            ERROR_INPUT, ":1: column 'id_str' appears twice"       },
        {HEAD GOOD "b,c,1,2,3,4\n",                    ERROR_INPUT, ":3: 6 fields, the header has 7"          },
        {HEAD GOOD "b,c,1,2,3,4,5,6\n",                ERROR_INPUT, ":3: 8 fields, the header has 7"          },
        {HEAD GOOD "b\n",                              ERROR_INPUT, ":3: 1 fields"                            },
        {HEAD GOOD ",c,1,2,3,4,5\n",                   ERROR_INPUT, ":3: id_str is empty"                     },
        {HEAD GOOD "c,,1,2,3,4,5\n",                   ERROR_INPUT, ":3: file_loc is empty"                   },
        {HEAD X16 X16 X16 X16 ",c,1,2,3,4,5\n",        ERROR_LIMIT, ":2: id_str is longer than 63 bytes"      },
        {HEAD "a\tb,c,1,2,3,4,5\n",                    ERROR_INPUT, ":2: id_str holds a control"              },
        {HEAD "a\x7f,c,1,2,3,4,5\n",                   ERROR_INPUT, ":2: id_str holds a control"              },
        {HEAD "a\xc2\x85,c,1,2,3,4,5\n",               ERROR_INPUT, ":2: id_str holds a control"              },
        {HEAD "a\xe9,c,1,2,3,4,5\n",                   ERROR_INPUT, ":2: id_str is not UTF-8"                 },
        {HEAD "a\xc0\xaf,c,1,2,3,4,5\n",               ERROR_INPUT, ":2: id_str is not UTF-8"                 },
        {HEAD "a\xed\xa0\x80,c,1,2,3,4,5\n",           ERROR_INPUT, ":2: id_str is not UTF-8"                 },
        {HEAD "a\xe2\x82,c,1,2,3,4,5\n",               ERROR_INPUT, ":2: id_str is not UTF-8"                 },
        {HEAD "a,\"c\nd\",1,2,3,4,5\n",                ERROR_INPUT, ":2: file_loc holds a control"            },
        {HEAD "a,b,360.1,2,3,4,5\n",                   ERROR_INPUT, ":2: ra 360.1 is out of range"            },
        {HEAD "a,b,-0.1,2,3,4,5\n",                    ERROR_INPUT, ":2: ra -0.1 is out of range"             },
        {HEAD "a,b,1,-90.5,3,4,5\n",                   ERROR_INPUT, ":2: dec -90.5 is out of range"           },
        {HEAD "a,b,1,,3,4,5\n",                        ERROR_INPUT, ":2: ra and dec come together"            },
        {HEAD "a,b,nan,2,3,4,5\n",                     ERROR_INPUT, ":2: ra 'nan' is not finite"              },
        {HEAD "a,b,1,inf,3,4,5\n",                     ERROR_INPUT, ":2: dec 'inf' is not finite"             },
        {HEAD "a,b,12h3,2,3,4,5\n",                    ERROR_INPUT, ":2: ra '12h3' is not a number"           },
        {HEAD GOOD GOOD "a,b,1,2,0x3,4,5\n",           ERROR_INPUT, ":4: q0_a0 '0x3' is not a number"         },
        {HEAD "a,b,1,2, 3,4,5\n",                      ERROR_INPUT, ":2: q0_a0 ' 3' is not a number"          },
        {HEAD "a,b,1,2,3.5,4,5\n",                     ERROR_INPUT, ":2: q0_a0 '3.5' is not a whole number"   },
        {HEAD "a,b,1,2,3,-1,5\n",                      ERROR_INPUT, ":2: q0_a1 -1 is out of range"            },
        {HEAD "a,b,1,2,3,4,1e9\n",                     ERROR_INPUT, ":2: q1_a0 1e+09 is out of range"         },
        {HEAD "a,b,1,2,1e999,4,5\n",                   ERROR_INPUT, ":2: q0_a0 '1e999' is not finite"         },
        {HEAD "a,b,1,2,NaN,4,5\n",                     ERROR_INPUT, ":2: q0_a0 'NaN' is not finite"           },
        {HEAD "a,b,1,2,65535,1,5\n",                   ERROR_INPUT, ":2: 65536 votes on question q0"          },
        {HEAD "a,\"b\"c,1,2,3,4,5\n",                  ERROR_INPUT, ":2: text behind a closing quote"         },
        {HEAD GOOD "a,\"b,1,2,3,4,5\nc,d,1,2,3,4,5\n", ERROR_INPUT, ":3: a quote is not closed"               },
        {HEAD GOOD "x,b,,,,,\n" GOOD "x,b,,,,,\n",     ERROR_INPUT, ":4: id_str 'a' is already on line 2"     },
        {HEAD "x,b,,,,,\n\n\"x\",b,,,,,\n",            ERROR_INPUT, ":4: id_str 'x' is already on line 2"     },
    };
    struct catalogue_summary summary;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        store(cases[i].text, strlen(cases[i].text));
        int result = catalogue_check(path, &schema, &summary);
        if (result != cases[i].code || !strstr(error_message(), cases[i].message))
            fail_msg("%s: %d '%s' instead of '%s'", cases[i].text, result, error_message(), cases[i].message);
        assert_int_equal(strncmp(error_message(), path, strlen(path)), 0);
    }
}

static void limits_on_bytes_are_exact(void **state)
{
    (void)state;
    static char text[2 * CATALOGUE_LINE_BYTES_MAX];
    struct catalogue_summary summary;
    char id_str[CATALOGUE_ID_BYTES_MAX + 1], file_loc[CATALOGUE_FILE_BYTES_MAX + 2];
    memset(id_str, 'i', sizeof id_str);
    memset(file_loc, 'f', sizeof file_loc);
    int length = snprintf(text, sizeof text, "id_str,file_loc\n%.63s,%.1023s\n", id_str, file_loc);
    store(text, (size_t)length);
    assert_int_equal(catalogue_check(path, &schema, &summary), 0);
    length = snprintf(text, sizeof text, "id_str,file_loc\n%.63s,%.1024s\n", id_str, file_loc);
    store(text, (size_t)length);
    assert_int_equal(catalogue_check(path, &schema, &summary), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), ":2: file_loc is longer than 1023 bytes"));
    for (int over = 0; over < 2; over++) { /* the limit counts the record without its newline */
        int head = snprintf(text, sizeof text, "id_str,file_loc,note\na,b,");
        size_t note = CATALOGUE_LINE_BYTES_MAX - 1 - strlen("a,b,") + (size_t)over;
        memset(text + head, 'n', note);
        text[(size_t)head + note] = '\n';
        store(text, (size_t)head + note + 1);
        assert_int_equal(catalogue_check(path, &schema, &summary), over ? ERROR_LIMIT : 0);
    }
    assert_non_null(strstr(error_message(), ":2: line longer than 65536 bytes"));
    store("id_str,file_loc\na\0b,c\n", 22);
    assert_int_equal(catalogue_check(path, &schema, &summary), ERROR_INPUT);
    assert_non_null(strstr(error_message(), ":2: holds a zero byte"));
    memset(text, ',', 1024);
    store(text, 1024);
    assert_int_equal(catalogue_check(path, &schema, &summary), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), ":1: more than 1024 columns"));
}

static void only_regular_files_are_opened(void **state)
{
    (void)state;
    struct catalogue *catalogue;
    assert_int_equal(catalogue_open("/tmp/no/such/catalogue.csv", &schema, &catalogue), ERROR_NOT_FOUND);
    assert_int_equal(catalogue_open(folder, &schema, &catalogue), ERROR_INPUT);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(catalogue_open(path, &schema, &catalogue), ERROR_INPUT); /* and does not wait for a writer */
    assert_non_null(strstr(error_message(), "not a regular file"));
    unlink(path);
}

static void summary_names_what_was_passed_over(void **state)
{
    (void)state;
    struct catalogue_summary summary;
    const char *text = "id_str,file_loc,redshift,q1_a1,mag_r\na,b,x,1,y\nc,d,,,\n";
    store(text, strlen(text));
    assert_int_equal(catalogue_check(path, &schema, &summary), 0);
    assert_int_equal(summary.rows, 2);
    assert_int_equal(summary.vote_columns, 1);
    assert_int_equal(summary.ignored_columns, 2);
    assert_int_equal(summary.has_positions, 0);
    assert_string_equal(summary.ignored, "redshift, mag_r");
    text = HEAD "a,b,,,1,2,3\nc,d,1,1,1,1,1\n";
    store(text, strlen(text));
    assert_int_equal(catalogue_check(path, &schema, &summary), 0);
    assert_int_equal(summary.has_positions, 1);
    assert_string_equal(summary.ignored, "");
}

#define MANY 100000

static long resident_bytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/* 16 MB of rows pass in less than 2 MB of memory; one repeated id among them is found, with both lines. */
static void many_rows_need_no_more_memory(void **state)
{
    (void)state;
    struct catalogue_row row;
    struct catalogue_summary summary;
    struct catalogue *catalogue;
    char filling[100];
    memset(filling, 'f', sizeof filling);
    FILE *file = fopen(path, "w");
    fprintf(file, "id_str,file_loc,q0_a0,note\n");
    for (int i = 0; i < MANY; i++)
        fprintf(file, "galaxy-%06d,images/%06d.jpg,%d,%.100s\n", i, i, i % 40, filling);
    fclose(file);
    assert_int_equal(catalogue_open(path, &schema, &catalogue), 0);
    assert_int_equal(catalogue_next(catalogue, &row), 1);
    long before = resident_bytes(), rows = 1, votes = 0;
    while (catalogue_next(catalogue, &row) == 1) {
        rows++;
        votes += row.votes[0];
    }
    assert_true(resident_bytes() - before < 2 << 20);
    assert_int_equal(rows, MANY);
    assert_int_equal(votes, MANY / 40 * (39 * 40 / 2));
    catalogue_close(catalogue);
    assert_int_equal(catalogue_check(path, &schema, &summary), 0);
    assert_int_equal(summary.rows, MANY);
    file = fopen(path, "a");
    fprintf(file, "galaxy-099999,x,1,\ngalaxy-000017,x,1,\n");
    fclose(file);
    assert_int_equal(catalogue_check(path, &schema, &summary), ERROR_INPUT);
    assert_non_null(strstr(error_message(), ":100002: id_str 'galaxy-099999' is already on line 100001"));
}

/* No bytes crash the reader: random pieces of CSV, each run to its end or its first error. */
static void any_bytes_are_read_or_refused(void **state)
{
    (void)state;
    static const char *const pieces[] = {"id_str",   "file_loc", ",",    "\"",   "\n",      "\r\n",
                                         "q0_a0",    "ra,dec",   "12",   "a",    "\"\"",    "\xef\xbb\xbf",
                                         "\xc3\xa9", "\xff",     "-1e5", "\n\n", "\"x\n\"", ",,,"};
    unsigned seed = 20240607;
    print_message("seed %u\n", seed);
    for (int turn = 0; turn < 3000; turn++) {
        char text[2048] = HEAD;
        size_t length = turn % 2 ? strlen(text) : 0;
        for (int i = rand_r(&seed) % 60; i > 0; i--) {
            const char *piece = pieces[(size_t)rand_r(&seed) % (sizeof pieces / sizeof *pieces)];
            memcpy(text + length, piece, strlen(piece));
            length += strlen(piece);
        }
        store(text, length);
        struct catalogue_summary summary;
        int result = catalogue_check(path, &schema, &summary);
        assert_true(result == 0 || result == ERROR_INPUT || result == ERROR_LIMIT);
        assert_true(result || (summary.rows > 0 && summary.rows < 62));
    }
}

static int set_up(void **state)
{
    (void)state;
    small_schema(&schema, 2, (const int[]){3, 2}, (const int[]){-1, 1});
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/a.csv", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_columns_in_any_order),         cmocka_unit_test(quoting_and_line_ends_do_not_matter),
        cmocka_unit_test(bad_catalogues_are_refused_by_line), cmocka_unit_test(limits_on_bytes_are_exact),
        cmocka_unit_test(only_regular_files_are_opened),      cmocka_unit_test(summary_names_what_was_passed_over),
        cmocka_unit_test(many_rows_need_no_more_memory),      cmocka_unit_test(any_bytes_are_read_or_refused),
    };
    return cmocka_run_group_tests_name("catalogue", tests, set_up, tear_down);
}
