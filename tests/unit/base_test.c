/* The base: random numbers, hashes, errors, arenas, text, files and INI. Half floats and msgpack have tests of their own. */
#include "base/arena.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/ini.h"
#include "base/philox.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

static char folder[] = "/tmp/triage-test.XXXXXX";

/* --- random numbers and hashes --------------------------------------------------------------------------------- */

/* Known answers published with Random123 1.14 (kat_vectors, philox4x32 10). */
static void philox_gives_the_published_numbers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], wanted[4];
    } known[] = {
        {{0, 0, 0, 0},                                     {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}                                                          },
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}                                                          },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint32_t *c = known[i].counter;
        struct philox got = philox((uint64_t)known[i].key[1] << 32 | known[i].key[0], c[0], c[1], c[2], c[3]);
        assert_memory_equal(got.word, known[i].wanted, sizeof got.word);
    }
}

static void uniform_and_normal_numbers_have_their_ranges_and_moments(void **state)
{
    (void)state;
    float pair[2];
    assert_true(philox_uniform(0) == 0 && philox_uniform(UINT32_MAX) == 1 - 0x1p-24f);
    assert_true(philox_uniform(0x80000000) == 0.5f);
    philox_normal(0, 0, pair); /* the largest radius, sqrt(2 ln 2^32) */
    assert_true(fabsf(pair[0] - 6.660437f) < 1e-5f && pair[1] == 0);
    philox_normal(UINT32_MAX, 12345, pair); /* the smallest: no logarithm of zero */
    assert_true(pair[0] == 0 && pair[1] == 0);
    double sum = 0, squares = 0, fourth = 0;
    enum { COUNT = 400000 };
    for (uint32_t i = 0; i < COUNT / 4; i++) {
        struct philox random = philox(7, i, 0, 0, 0);
        for (int k = 0; k < 4; k += 2) {
            philox_normal(random.word[k], random.word[k + 1], pair);
            for (int j = 0; j < 2; j++) {
                sum += (double)pair[j];
                squares += (double)pair[j] * (double)pair[j];
                fourth += pow((double)pair[j], 4);
            }
        }
    }
    assert_true(fabs(sum / COUNT) < 0.008 && fabs(squares / COUNT - 1) < 0.012 && fabs(fourth / COUNT - 3) < 0.1);
}

/* XXH3 of the empty input and of one byte 0..255, from xxhsum 0.8.1 -H3 and -H2. */
static void hashes_are_xxh3(void **state)
{
    (void)state;
    char text[HASH_TEXT_BYTES];
    assert_true(hash_64("", 0) == 0x2d06800538d394c2);
    hash_text("", 0, text);
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
    hash_text("a", 1, text);
    assert_string_equal(text, "a96faf705af16834e6c632b61e964e1f");
}

/* --- errors ------------------------------------------------------------------------------------------------------ */

static void *set_elsewhere(void *context)
{
    error_set(ERROR_INPUT, "of the other thread");
    return context;
}

static void errors_keep_code_and_message(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(error_set(ERROR_LIMIT, "%d of %s", 3, "many"), ERROR_LIMIT);
    assert_string_equal(error_message(), "3 of many");
    assert_int_equal(error_prefix(ERROR_LIMIT, "file %d: ", 7), ERROR_LIMIT);
    assert_string_equal(error_message(), "file 7: 3 of many");
    assert_int_equal(pthread_create(&thread, NULL, set_elsewhere, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(error_message(), "file 7: 3 of many");
    errno = ENOSPC;
    assert_int_equal(error_set_errno("cannot write %s", "x"), ERROR_SYSTEM);
    assert_string_equal(error_message(), "cannot write x: No space left on device");
    char large[2 * ERROR_MESSAGE_BYTES];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    error_set(ERROR_INPUT, "%s", large);
    assert_int_equal(strlen(error_message()), ERROR_MESSAGE_BYTES - 1);
    error_prefix(ERROR_INPUT, "%s", large);
    assert_int_equal(strlen(error_message()), ERROR_MESSAGE_BYTES - 1);
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

static void arenas_have_their_limit(void **state)
{
    (void)state;
    struct arena arena;
    assert_int_equal(arena_init(&arena, 1 << 20), 0);
    char *first = arena_alloc(&arena, 1), *second = arena_alloc(&arena, 100);
    assert_non_null(first);
    assert_int_equal((uintptr_t)first % 64, 0);
    assert_int_equal(second - first, 64);
    memset(first, 0xff, 164);
    assert_non_null(arena_alloc(&arena, (1 << 20) - 64 - 128));
    assert_null(arena_alloc(&arena, 1));
    assert_true(strlen(error_message()) > 0);
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, SIZE_MAX - 63));
    assert_int_equal(arena.peak_bytes, 1 << 20);
    arena_reset(&arena);
    assert_int_equal(arena.used_bytes, 0);
    char *again = arena_alloc(&arena, 164);
    assert_ptr_equal(again, first);
    for (int i = 0; i < 164; i++)
        assert_int_equal(again[i], 0); /* zeroed once more */
    assert_int_equal(arena.peak_bytes, 1 << 20);
    arena_free(&arena);
    arena_free(&(struct arena){0});
    arena_free(NULL);
}

static void text_grows_to_its_limit(void **state)
{
    (void)state;
    struct text text = text_new(10);
    assert_null(text.bytes);
    text_append(&text, "%d-%s", 12, "abc");
    text_append_bytes(&text, "x\0y", 3);
    assert_int_equal(text_error(&text), 0);
    assert_int_equal(text.length, 9);
    assert_memory_equal(text.bytes, "12-abcx\0y", 10);
    text_append(&text, "zz"); /* one too many */
    assert_int_equal(text_error(&text), ERROR_LIMIT);
    text_append(&text, "a"); /* it would fit, but the error is sticky */
    assert_int_equal(text_error(&text), ERROR_LIMIT);
    text_clear(&text);
    text_append(&text, "0123456789");
    assert_int_equal(text_error(&text), 0);
    assert_string_equal(text.bytes, "0123456789");
    text_free(&text);
}

/* --- files ------------------------------------------------------------------------------------------------------- */

static const char *path_of(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_text(const char *name, const char *bytes)
{
    struct file_part part = {bytes, strlen(bytes)};
    assert_int_equal(file_write(path_of(name), &part, 1, 0644), 0);
}

static void files_are_replaced_whole_or_not_at_all(void **state)
{
    (void)state;
    struct file_part parts[] = {
        {"ab", 2},
        {NULL, 0},
        {"c",  1}
    };
    char *bytes;
    size_t length;
    struct stat info;
    assert_int_equal(file_write(path_of("one"), parts, 3, 0640), 0);
    assert_int_equal(stat(path_of("one"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_int_equal(file_read(path_of("one"), 3, &bytes, &length), 0);
    assert_int_equal(length, 3);
    assert_string_equal(bytes, "abc"); /* one zero behind the end */
    free(bytes);
    assert_int_equal(file_read(path_of("one"), 2, &bytes, &length), ERROR_LIMIT);
    assert_int_equal(file_read(path_of("none"), 9, &bytes, &length), ERROR_NOT_FOUND);
    assert_int_equal(file_read(folder, 9, &bytes, &length), ERROR_INPUT); /* a folder is no file */
    assert_int_equal(file_write(path_of("no/such/folder"), parts, 3, 0644), ERROR_SYSTEM);
    assert_non_null(strstr(error_message(), "no/such/folder"));

    /* where the new file cannot be written whole, the old one stays and nothing else is left */
    struct rlimit before, small;
    static char large[8192];
    struct file_part part = {large, sizeof large};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){4096, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int result = file_write(path_of("one"), &part, 1, 0640);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(result, ERROR_SYSTEM);
    assert_non_null(strstr(error_message(), "one"));
    assert_int_equal(file_read(path_of("one"), 9, &bytes, &length), 0);
    assert_string_equal(bytes, "abc");
    free(bytes);
    int entries = 0;
    DIR *listing = opendir(folder);
    for (const struct dirent *entry; (entry = readdir(listing));)
        entries += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
    closedir(listing);
    assert_int_equal(entries, 1);
    assert_true(file_exists(path_of("one")) && !file_exists(path_of("none")));
}

/* In a folder of another user's, what lies where the new file is made may point anywhere, or be a pipe that nobody reads. */
static void what_was_planted_is_not_written_to(void **state)
{
    (void)state;
    char *bytes, target[160];
    size_t length;
    write_text("target", "kept");
    snprintf(target, sizeof target, "%s", path_of("target"));
    for (int i = 0; i < 3; i++) {
        const char *planted = path_of("planted.new");
        assert_int_equal(i == 0 ? symlink(target, planted) : i == 1 ? link(target, planted) : mkfifo(planted, 0666), 0);
        write_text("planted", "new");
        assert_int_equal(file_read(target, 9, &bytes, &length), 0);
        assert_string_equal(bytes, "kept");
        free(bytes);
        assert_int_equal(file_read(path_of("planted"), 9, &bytes, &length), 0);
        assert_string_equal(bytes, "new");
        free(bytes);
    }
}

static void folders_and_paths(void **state)
{
    (void)state;
    char path[12], deep[160];
    snprintf(deep, sizeof deep, "%s/a/b/c", folder);
    assert_int_equal(file_make_folder(deep, 0755), 0);
    assert_int_equal(file_make_folder(deep, 0755), 0);
    assert_true(file_exists(deep));
    write_text("plain", "x");
    snprintf(deep, sizeof deep, "%s/plain/b", folder);
    assert_true(file_make_folder(deep, 0755) < 0);
    assert_int_equal(file_path(path, sizeof path, "%s/%d", "/abcdef", 123), 0);
    assert_string_equal(path, "/abcdef/123");
    assert_int_equal(file_path(path, sizeof path, "%s/%d", "/abcdef", 1234), ERROR_LIMIT);
}

static void a_lock_is_one_process_s(void **state)
{
    (void)state;
    int mine = file_lock(path_of("lock")), status;
    assert_true(mine >= 0);
    pid_t child = fork();
    if (child == 0)
        _exit(file_lock(path_of("lock")) == ERROR_UNAVAILABLE ? 7 : 8);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 7);
    close(mine);
    child = fork();
    if (child == 0)
        _exit(file_lock(path_of("lock")) >= 0 ? 7 : 8);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 7);
    mine = file_lock(path_of("lock")); /* the child is gone, and its lock with it */
    assert_true(mine >= 0);
    close(mine);
    assert_int_equal(file_lock(path_of("no/such/folder")), ERROR_SYSTEM);
}

/* --- INI --------------------------------------------------------------------------------------------------------- */

static int collect(void *context, const char *section, const char *key, const char *value, int line)
{
    char *out = context;
    size_t at = strlen(out);
    snprintf(out + at, 1000 - at, "%d:%s|%s|%s\n", line, section, key ? key : "-", value ? value : "-");
    return key && strcmp(key, "bad") == 0 ? error_set(ERROR_STATE, "the handler says no") : 0;
}

static int read_ini(const char *text, char *out)
{
    out[0] = 0;
    write_text("x.ini", text);
    return ini_read(path_of("x.ini"), collect, out);
}

static void ini_files_are_read_line_by_line(void **state)
{
    (void)state;
    char out[1000];
    assert_int_equal(
        read_ini("# comment\n; another\n[a b]\nkey = value with spaces  \nempty =\n\n[c]\r\nk=v # tail\r\nlast = 1",
                 out),
        0);
    assert_string_equal(out, "3:a b|-|-\n4:a b|key|value with spaces\n5:a b|empty|\n7:c|-|-\n8:c|k|v\n9:c|last|1\n");
    assert_int_equal(read_ini("early = 1\n[a]\n", out), 0);
    assert_string_equal(out, "1:|early|1\n2:a|-|-\n");
    assert_int_equal(read_ini("", out), 0);
    assert_string_equal(out, "");
}

static void bad_ini_lines_are_named(void **state)
{
    (void)state;
    char out[1000], wanted[300], large[1200];
    static const struct {
        const char *text;
        int line, code;
    } bad[] = {
        {"[a]\nno equals sign\n", 2, ERROR_INPUT},
        {"[a\nk = v\n",           1, ERROR_INPUT},
        {"[a]\n= v\n",            2, ERROR_INPUT},
        {"[a]\nx = 1\nbad = 2\n", 3, ERROR_STATE},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(read_ini(bad[i].text, out), bad[i].code);
        snprintf(wanted, sizeof wanted, "%s:%d: ", path_of("x.ini"), bad[i].line);
        if (strncmp(error_message(), wanted, strlen(wanted)) != 0)
            fail_msg("%s", error_message());
    }
    assert_non_null(strstr(error_message(), "the handler says no"));
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    memcpy(large, "[a]\nk = ", 8);
    assert_true(read_ini(large, out) < 0);
    assert_non_null(strstr(error_message(), ":2: "));
    assert_int_equal(ini_read(path_of("none.ini"), collect, out), ERROR_NOT_FOUND);
}

static void the_clock_does_not_go_back(void **state)
{
    (void)state;
    int64_t last_ms = clock_ms();
    double last_s = clock_s();
    for (int i = 0; i < 1000; i++) {
        assert_true(clock_ms() >= last_ms && clock_s() >= last_s);
        last_ms = clock_ms();
        last_s = clock_s();
    }
    assert_true(llabs(clock_unix_ms() / 1000 - (long long)time(NULL)) <= 1);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_numbers),
        cmocka_unit_test(uniform_and_normal_numbers_have_their_ranges_and_moments),
        cmocka_unit_test(hashes_are_xxh3),
        cmocka_unit_test(errors_keep_code_and_message),
        cmocka_unit_test(arenas_have_their_limit),
        cmocka_unit_test(text_grows_to_its_limit),
        cmocka_unit_test(files_are_replaced_whole_or_not_at_all),
        cmocka_unit_test(what_was_planted_is_not_written_to),
        cmocka_unit_test(folders_and_paths),
        cmocka_unit_test(a_lock_is_one_process_s),
        cmocka_unit_test(ini_files_are_read_line_by_line),
        cmocka_unit_test(bad_ini_lines_are_named),
        cmocka_unit_test(the_clock_does_not_go_back),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
