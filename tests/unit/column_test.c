/* Column files: what is written is there for another process, growth keeps rows, damage and other layouts are
 * refused. */
#include "base/error.h"
#include "pool/column.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/column_test.XXXXXX";
static char path[64];

static struct column_layout layout_of(uint64_t row_bytes, uint64_t side)
{
    struct column_layout layout = {.row_bytes = row_bytes, .parameter = {side}};
    snprintf(layout.kind, sizeof layout.kind, "pixels");
    snprintf(layout.schema_hash, sizeof layout.schema_hash, "0123456789abcdef0123456789abcdef");
    snprintf(layout.parameter_name[0], sizeof layout.parameter_name[0], "image side");
    return layout;
}

static int fresh(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "%s/a.column", folder);
    unlink(path);
    return 0;
}

static void make(struct column *column, uint64_t rows)
{
    struct column_layout layout = layout_of(100, 10);
    assert_int_equal(column_open(path, &layout, COLUMN_CREATE, column), 0);
    assert_int_equal(column_grow(column, rows), 0);
}

static int reopen(enum column_access access, struct column *column)
{
    struct column_layout layout = layout_of(100, 10);
    return column_open(path, &layout, access, column);
}

static void rows_survive_growing_and_opening_again(void **state)
{
    (void)state;
    struct column column;
    make(&column, 1);
    assert_int_equal(column.rows, COLUMN_STEP_ROWS);
    for (uint64_t row = 0; row < COLUMN_STEP_ROWS; row++)
        memset(column_row(&column, row), (int)(row % 251) + 1, 100);
    assert_int_equal(column_grow(&column, COLUMN_STEP_ROWS + 1), 0);
    assert_int_equal(column.rows, 2 * COLUMN_STEP_ROWS);
    assert_int_equal(column_grow(&column, 5), 0); /* never smaller */
    assert_int_equal(column.rows, 2 * COLUMN_STEP_ROWS);
    column_set_stamp(&column, 77, UINT64_MAX);
    column_close(&column);

    assert_int_equal(reopen(COLUMN_READ, &column), 0);
    assert_int_equal(column.rows, 2 * COLUMN_STEP_ROWS);
    for (uint64_t row = 0; row < column.rows; row++) {
        const unsigned char *bytes = column_row(&column, row);
        int expected = row < COLUMN_STEP_ROWS ? (int)(row % 251) + 1 : 0;
        assert_int_equal(bytes[0], expected);
        assert_int_equal(bytes[99], expected);
    }
    uint64_t first, second;
    column_stamp(&column, &first, &second);
    assert_int_equal(first, 77);
    assert_true(second == UINT64_MAX);
    column_close(&column);
}

/* Rows start behind one page, without padding, and the disk space of every row was taken in advance. */
static void file_is_a_page_and_the_rows(void **state)
{
    (void)state;
    struct column column;
    struct stat info;
    make(&column, 3);
    memcpy(column_row(&column, 2), "third row", 10);
    assert_int_equal(column_flush(&column, 2, 1), 0);
    column_close(&column);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 4096 + 100 * COLUMN_STEP_ROWS);
    assert_true(info.st_blocks * 512 >= 100 * COLUMN_STEP_ROWS);
    char bytes[10];
    int descriptor = open(path, O_RDONLY);
    assert_int_equal(pread(descriptor, bytes, 10, 4096 + 200), 10);
    close(descriptor);
    assert_string_equal(bytes, "third row");
}

/* A child maps the file, the parent grows it: the child sees nothing new until it refreshes, then everything.
 */
static void other_process_sees_growth_after_refresh(void **state)
{
    (void)state;
    struct column column;
    int to_child[2], from_child[2];
    char byte = 0;
    make(&column, 1);
    assert_int_equal(pipe(to_child), 0);
    assert_int_equal(pipe(from_child), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct column theirs;
        int wrong = reopen(COLUMN_WRITE, &theirs) != 0 || theirs.rows != COLUMN_STEP_ROWS;
        wrong |= write(from_child[1], &byte, 1) != 1 || read(to_child[0], &byte, 1) != 1;
        wrong |= theirs.rows != COLUMN_STEP_ROWS || column_refresh(&theirs) || theirs.rows != 3 * COLUMN_STEP_ROWS;
        wrong |= strcmp(column_row(&theirs, 3 * COLUMN_STEP_ROWS - 1), "grown") != 0;
        memcpy(column_row(&theirs, 0), "answer", 7);
        _exit(wrong);
    }
    assert_int_equal(read(from_child[0], &byte, 1), 1);
    assert_int_equal(column_grow(&column, 3 * COLUMN_STEP_ROWS), 0);
    memcpy(column_row(&column, 3 * COLUMN_STEP_ROWS - 1), "grown", 6);
    assert_int_equal(write(to_child[1], &byte, 1), 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_string_equal(column_row(&column, 0), "answer");
    column_close(&column);
    for (int i = 0; i < 2; i++) {
        close(to_child[i]);
        close(from_child[i]);
    }
}

/* A limit on file size stands for a full disk: an error that says what to do, the rows there before
 * untouched. */
static void no_room_is_an_error_and_changes_nothing(void **state)
{
    (void)state;
    struct column column;
    struct rlimit before, limit;
    make(&column, 1);
    memcpy(column_row(&column, 0), "kept", 5);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 4096 + 150 * COLUMN_STEP_ROWS;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int result = column_grow(&column, COLUMN_STEP_ROWS + 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(result, ERROR_SYSTEM);
    assert_non_null(strstr(error_message(), "free disk space"));
    assert_int_equal(column.rows, COLUMN_STEP_ROWS);
    assert_string_equal(column_row(&column, 0), "kept");
    assert_int_equal(column_grow(&column, COLUMN_STEP_ROWS + 1), 0); /* room again */
    assert_int_equal(*(char *)column_row(&column, COLUMN_STEP_ROWS), 0);
    assert_int_equal(column_grow(&column, COLUMN_ROWS_MAX + 1), ERROR_LIMIT);
    column_close(&column);
}

static void other_layouts_are_refused_with_both_values(void **state)
{
    (void)state;
    struct column column;
    make(&column, 1);
    column_close(&column);
    struct column_layout layout = layout_of(144, 12);
    assert_int_equal(column_open(path, &layout, COLUMN_CREATE, &column), ERROR_STATE);
    assert_non_null(strstr(error_message(), "image side 10"));
    assert_non_null(strstr(error_message(), "says 12"));
    layout = layout_of(101, 10);
    assert_int_equal(column_open(path, &layout, COLUMN_READ, &column), ERROR_STATE);
    assert_non_null(strstr(error_message(), "100 bytes a row"));
    assert_non_null(strstr(error_message(), "101"));
    layout = layout_of(100, 10);
    layout.schema_hash[0] = 'f';
    assert_int_equal(column_open(path, &layout, COLUMN_READ, &column), ERROR_STATE);
    assert_non_null(strstr(error_message(), "schema 0123456789abcdef"));
    assert_non_null(strstr(error_message(), "schema f123456789abcdef"));
    layout = layout_of(100, 10);
    snprintf(layout.kind, sizeof layout.kind, "score");
    assert_int_equal(column_open(path, &layout, COLUMN_READ, &column), ERROR_INPUT);
}

static void change_byte(off_t at)
{
    char byte;
    int descriptor = open(path, O_RDWR);
    assert_int_equal(pread(descriptor, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(descriptor, &byte, 1, at), 1);
    close(descriptor);
}

/* Every byte that says what the rows mean is checked: any one of them changed is an error, never a wrong
 * reading. */
static void damaged_headers_are_refused(void **state)
{
    (void)state;
    struct column column;
    make(&column, 1);
    column_close(&column);
    for (off_t at = 0; at < 16 + (off_t)sizeof(struct column_layout) + 8; at++) {
        change_byte(at);
        int result = reopen(COLUMN_READ, &column);
        assert_int_equal(result, at >= 8 && at < 16 ? ERROR_STATE : ERROR_INPUT);
        change_byte(at);
    }
    assert_int_equal(reopen(COLUMN_READ, &column), 0);
    column_close(&column);
    assert_int_equal(truncate(path, 4095), 0);
    assert_int_equal(reopen(COLUMN_CREATE, &column), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "4095 bytes"));
    assert_int_equal(truncate(path, 4096 + 250), 0); /* two rows and a half; the header is now zeros behind 4095 */
    assert_int_equal(reopen(COLUMN_READ, &column), 0);
    assert_int_equal(column.rows, 2);
    column_close(&column);
    assert_int_equal(truncate(path, 0), 0); /* a process died between making the file and its header */
    assert_int_equal(reopen(COLUMN_READ, &column), ERROR_INPUT);
    assert_int_equal(reopen(COLUMN_CREATE, &column), 0);
    column_close(&column);
    unlink(path);
    assert_int_equal(reopen(COLUMN_WRITE, &column), ERROR_NOT_FOUND);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    fresh(state);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(rows_survive_growing_and_opening_again, fresh),
        cmocka_unit_test_setup(file_is_a_page_and_the_rows, fresh),
        cmocka_unit_test_setup(other_process_sees_growth_after_refresh, fresh),
        cmocka_unit_test_setup(no_room_is_an_error_and_changes_nothing, fresh),
        cmocka_unit_test_setup(other_layouts_are_refused_with_both_values, fresh),
        cmocka_unit_test_setup(damaged_headers_are_refused, fresh),
    };
    return cmocka_run_group_tests_name("column", tests, make_folder, remove_folder);
}
