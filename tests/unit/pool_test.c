/* The pool's columns, modes and stamps; the split by id; the network's view of a stored image. */
#include "base/error.h"
#include "base/file.h"
#include "model/input.h"
#include "model/split.h"
#include "pool/pool.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/pool_test.XXXXXX";

static const struct pool_layout layout = {.answers = 5,
                                          .questions = 2,
                                          .embedding_inputs = 8,
                                          .pixel_side = 6,
                                          .pixel_channels = 3,
                                          .trunk_side = 4,
                                          .trunk_views = 1,
                                          .mc_views = 1,
                                          .schema_hash = "00112233445566778899aabbccddeeff"};

static const char *const files[POOL_COLUMNS] = {"identity", "state",          "tally",        "pixels", "embedding",
                                                "version",  "embedding-even", "version-even", "detail", "score"};

static int empty_folder(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    for (int i = 0; i < POOL_COLUMNS; i++) {
        file_path(path, sizeof path, "%s/%s.column", folder, files[i]);
        unlink(path);
    }
    return 0;
}

static void open_pool(enum pool_mode mode, struct pool *pool)
{
    assert_int_equal(pool_open(folder, &layout, mode, pool), 0);
}

/* Fills every byte of a row with values of that row alone, so that rows or columns which overlap are found.
 */
static void fill_row(struct pool *pool, uint64_t row)
{
    int mark = (int)(row * 7 % 250) + 1;
    snprintf(pool_identity(pool, row)->id_str, 64, "galaxy-%llu", (unsigned long long)row);
    *pool_state(pool, row) = (struct pool_state){(uint8_t)mark, (uint8_t)(row % 4), (uint16_t)(row + 1)};
    memset(pool_tally(pool, row), mark, 5 * 2);
    memset(pool_pixels(pool, row), mark + 1, 6 * 6 * 3);
    memset(pool_embedding(pool, row), mark + 2, 8 * 2);
    memset(pool_detail(pool, row), mark + 3, (2 + 5 + 2 * 2) * 4);
    *pool_score(pool, row) = (struct pool_score){(float)row, 2, 3, (uint32_t)row + 9};
    pool_set_embedding_version(pool, row, (uint32_t)row + 5);
}

static void assert_all(const void *bytes, int value, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(((const unsigned char *)bytes)[i], value & 255);
}

static void assert_row(const struct pool *pool, uint64_t row)
{
    int mark = (int)(row * 7 % 250) + 1;
    char id_str[64];
    snprintf(id_str, sizeof id_str, "galaxy-%llu", (unsigned long long)row);
    assert_string_equal(pool_identity(pool, row)->id_str, id_str);
    assert_int_equal(pool_state(pool, row)->flags, mark);
    assert_int_equal(pool_state(pool, row)->split, row % 4);
    assert_int_equal(pool_state(pool, row)->root_votes, row + 1);
    assert_all(pool_tally(pool, row), mark, 5 * 2);
    assert_all(pool_pixels(pool, row), mark + 1, 6 * 6 * 3);
    assert_all(pool_embedding(pool, row), mark + 2, 8 * 2);
    assert_all(pool_detail(pool, row), mark + 3, (2 + 5 + 2 * 2) * 4);
    assert_float_equal(pool_score(pool, row)->score, (float)row, 0);
    assert_int_equal(pool_score(pool, row)->model, row + 9);
    assert_int_equal(pool_finished_embedding(pool, row), row + 5);
}

static void rows_keep_their_values(void **state)
{
    (void)state;
    struct pool pool;
    open_pool(POOL_READ_WRITE, &pool);
    assert_int_equal(pool_rows(&pool), 0);
    assert_int_equal(pool_grow(&pool, 40), 0);
    assert_true(pool_rows(&pool) >= 40);
    assert_int_equal(*pool_embedding_version(&pool, 39), 0);
    assert_int_equal(pool_score(&pool, 39)->model, 0);
    for (uint64_t row = 0; row < 40; row++)
        fill_row(&pool, row);
    assert_int_equal(pool_flush_embeddings(&pool, 3, 17), 0);
    assert_int_equal(pool_grow(&pool, pool_rows(&pool) + 1), 0);
    pool_set_tally_stamp(&pool, 1234567890123, 0xfedcba9876543210);
    for (uint64_t row = 0; row < 40; row++)
        assert_row(&pool, row);
    assert_ptr_equal((char *)pool_embedding(&pool, 0) + 39 * pool_embedding_stride_bytes(&pool),
                     pool_embedding(&pool, 39));
    assert_ptr_equal((char *)pool_tally(&pool, 0) + 39 * pool_tally_stride_bytes(&pool), pool_tally(&pool, 39));
    pool_close(&pool);

    uint64_t horizon, system_identifier;
    open_pool(POOL_READ, &pool);
    for (uint64_t row = 0; row < 40; row++)
        assert_row(&pool, row);
    pool_tally_stamp(&pool, &horizon, &system_identifier);
    assert_true(horizon == 1234567890123 && system_identifier == 0xfedcba9876543210);
    pool_close(&pool);
}

/* Does a store to this address kill the process? Asked of the kernel: read() into read-only memory fails. */
static int is_writable(void *at)
{
    int ends[2];
    char byte = 1;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], &byte, 1), 1);
    int writable = read(ends[0], at, 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return writable;
}

static void each_mode_writes_its_own_columns_only(void **state)
{
    (void)state;
    static const int writable[][POOL_COLUMNS] = {
        [POOL_READ] = {0 },
        [POOL_WORKER] = { 0, 0, 0, 1, 1, 1, 1, 1},
        [POOL_READ_WRITE] = { 1, 1, 1, 1, 1, 1, 1, 1},
    };
    struct pool owner, pool;
    open_pool(POOL_READ_WRITE, &owner);
    assert_int_equal(pool_grow(&owner, 1), 0);
    for (int mode = POOL_READ; mode <= POOL_READ_WRITE; mode++) {
        open_pool((enum pool_mode)mode, &pool);
        void *rows[POOL_COLUMNS] = {pool_identity(&pool, 0),  pool_state(&pool, 0),
                                    pool_tally(&pool, 0),     pool_pixels(&pool, 0),
                                    pool_embedding(&pool, 0), (void *)(uintptr_t)pool_embedding_version(&pool, 0),
                                    pool_detail(&pool, 0),    pool_score(&pool, 0)};
        for (int i = 0; i < POOL_COLUMNS; i++)
            assert_int_equal(is_writable(rows[i]), writable[mode][i]);
        pool_close(&pool);
    }
    pool_close(&owner);
}

/* The worker maps, the daemon grows and names a galaxy, the worker embeds it, the daemon reads: in two
 * processes. */
static void daemon_and_worker_share_rows(void **state)
{
    (void)state;
    struct pool pool;
    int to_worker[2], from_worker[2], status;
    char byte = 0;
    open_pool(POOL_READ_WRITE, &pool);
    assert_int_equal(pool_grow(&pool, 1), 0);
    uint64_t last = pool_rows(&pool) * 3 - 1;
    assert_int_equal(pipe(to_worker) | pipe(from_worker), 0);
    pid_t worker = fork();
    assert_true(worker >= 0);
    if (worker == 0) {
        struct pool theirs;
        int wrong = pool_open(folder, &layout, POOL_WORKER, &theirs);
        wrong |= write(from_worker[1], &byte, 1) != 1 || read(to_worker[0], &byte, 1) != 1;
        wrong |= pool_rows(&theirs) > last || pool_refresh(&theirs) || pool_rows(&theirs) != last + 1;
        wrong |= strcmp(pool_identity(&theirs, last)->id_str, "new") != 0;
        for (int i = 0; i < layout.embedding_inputs; i++)
            pool_embedding(&theirs, last)[i] = (uint16_t)(1000 + i);
        pool_set_embedding_version(&theirs, last, 3);
        raise(wrong ? SIGTERM : SIGKILL); /* a crash right behind the version loses nothing */
    }
    assert_int_equal(read(from_worker[0], &byte, 1), 1);
    assert_int_equal(pool_grow(&pool, last + 1), 0);
    snprintf(pool_identity(&pool, last)->id_str, 64, "new");
    assert_int_equal(write(to_worker[1], &byte, 1), 1);
    assert_int_equal(waitpid(worker, &status, 0), worker);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_equal(pool_finished_embedding(&pool, last), 3);
    assert_int_equal(pool_embedding(&pool, last)[7], 1007);
    pool_close(&pool);
    for (int i = 0; i < 2; i++) {
        close(to_worker[i]);
        close(from_worker[i]);
    }
}

static void other_layouts_are_refused(void **state)
{
    (void)state;
    struct pool pool;
    open_pool(POOL_READ_WRITE, &pool);
    pool_close(&pool);
    static const struct {
        size_t field;
        int value;
        const char *says;
    } cases[] = {
        {offsetof(struct pool_layout, answers),            6,   "answers 5, the configuration says 6"             },
        {offsetof(struct pool_layout, questions),          3,   "questions 2, the configuration says 3"           },
        {offsetof(struct pool_layout, embedding_inputs),   9,   "embedding inputs 8, the configuration says 9"    },
        {offsetof(struct pool_layout, pixel_side),         224, "image side 6, the configuration says 224"        },
        {offsetof(struct pool_layout, pixel_channels),     1,   "image channels 3, the configuration says 1"      },
        {offsetof(struct pool_layout, trunk_weights),      1,   "trunk weights 0, the configuration says 1"       },
        {offsetof(struct pool_layout, trunk_side),         64,  "trunk side 4, the configuration says 64"         },
        {offsetof(struct pool_layout, trunk_views),        8,   "trunk views 1, the configuration says 8"         },
        {offsetof(struct pool_layout, trunk_bf16),         1,   "bfloat16 0, the configuration says 1"            },
        {offsetof(struct pool_layout, augmentation),       1,   "augmentation 0, the configuration says 1"        },
        {offsetof(struct pool_layout, mc_views),           2,   "MC views 1, the configuration says 2"            },
        {offsetof(struct pool_layout, mc_depth_per_mille), 200, "MC depth per mille 0, the configuration says 200"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pool_layout other = layout;
        memcpy((char *)&other + cases[i].field, &cases[i].value, sizeof(int));
        assert_int_equal(pool_open(folder, &other, POOL_READ_WRITE, &pool), ERROR_STATE);
        assert_non_null(strstr(error_message(), cases[i].says));
        assert_non_null(strstr(error_message(), "leave postgres, voter.key and keys"));
    }
    struct pool_layout other = layout;
    other.schema_hash[31] = '0';
    assert_int_equal(pool_open(folder, &other, POOL_READ, &pool), ERROR_STATE);
    assert_non_null(strstr(error_message(), "new state folder"));
    other = layout;
    other.pixel_channels = 2;
    assert_int_equal(pool_open(folder, &other, POOL_READ, &pool), ERROR_INPUT);
    empty_folder(NULL);
    assert_int_equal(pool_open(folder, &layout, POOL_WORKER, &pool), ERROR_NOT_FOUND);
}

/* When some columns grew and one could not, the pool has as many rows as the shortest column, and growing
 * goes on later. */
static void growth_that_failed_half_way_is_made_good(void **state)
{
    (void)state;
    struct pool pool;
    struct rlimit before, limit;
    open_pool(POOL_READ_WRITE, &pool);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 4096 + 80 * COLUMN_STEP_ROWS; /* enough for 64 bytes of identity, too little for pixels */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int result = pool_grow(&pool, 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(result, ERROR_SYSTEM);
    assert_non_null(strstr(error_message(), "pixels.column"));
    assert_true(pool.column[POOL_COLUMN_IDENTITY].rows > 0);
    assert_int_equal(pool_rows(&pool), 0);
    pool_close(&pool);
    open_pool(POOL_READ_WRITE, &pool);
    assert_int_equal(pool_grow(&pool, 10), 0);
    for (uint64_t row = 0; row < 10; row++)
        fill_row(&pool, row);
    for (uint64_t row = 0; row < 10; row++)
        assert_row(&pool, row);
    pool_close(&pool);
}

/* --- split --------------------------------------------------------------------------------------- */

static void split_has_the_shares_asked_for(void **state)
{
    (void)state;
    assert_float_equal(split_fraction(1000000), 0.05, 1e-12);
    assert_float_equal(split_fraction(1200), 0.05, 1e-12);
    assert_float_equal(split_fraction(600), 0.1, 1e-12);
    assert_float_equal(split_fraction(300), 0.2, 1e-12);
    assert_float_equal(split_fraction(10), 0.2, 1e-12);
    assert_float_equal(split_fraction(0), 0.2, 1e-12);
    long count[4] = {0}, moved = 0, ids = 100000;
    for (long i = 0; i < ids; i++) {
        char id_str[64];
        snprintf(id_str, sizeof id_str, "J%06ld+00", i);
        enum split split = split_of(id_str, 0.05);
        count[split]++;
        moved += split == SPLIT_VALIDATION && split_of(id_str, 0.2) != SPLIT_VALIDATION;
        assert_int_equal(split_of(id_str, 0), SPLIT_TRAIN);
    }
    for (int split = SPLIT_VALIDATION; split <= SPLIT_TEST; split++)
        assert_in_range(count[split], 4650, 5350); /* 5,000 +- 5 standard deviations of 69 */
    assert_int_equal(count[0] + count[1] + count[2] + count[3], ids);
    assert_int_equal(moved, 0);
}

/* A galaxy must never move between the parts: XXH3 of these ids / 2^64, in this and every later version. */
static void split_never_changes(void **state)
{
    (void)state;
    static const struct {
        const char *id_str;
        double place;
    } ids[] = {
        {"0",                                                                0.099653462},
        {"587722981742084144",                                               0.596852414},
        {"J235601.89+073123.0",                                              0.097133957},
        {"a long identifier of some survey with more than forty characters", 0.326478474}
    };
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        assert_int_equal(split_of(ids[i].id_str, ids[i].place * 1.0001), SPLIT_VALIDATION);
        assert_int_equal(split_of(ids[i].id_str, ids[i].place * 0.9999), SPLIT_GATE);
        assert_int_equal(split_of(ids[i].id_str, ids[i].place * 0.4999), SPLIT_TEST);
        assert_int_equal(split_of(ids[i].id_str, ids[i].place * 0.3333), SPLIT_TRAIN);
    }
}

/* Each view worked out by hand on the picture 1 2 / 3 4. */
static void eight_views_of_a_picture(void **state)
{
    (void)state;
    static const float picture[] = {1, 2, 3, 4};
    static const float views[8][4] = {
        {1, 2, 3, 4},
        {3, 4, 1, 2},
        {2, 1, 4, 3},
        {4, 3, 2, 1},
        {1, 3, 2, 4},
        {2, 4, 1, 3},
        {3, 1, 4, 2},
        {4, 2, 3, 1}
    };
    for (int view = 0; view < 8; view++) {
        float output[4], coloured[12], colours[12];
        input_view(picture, 2, 1, view, output);
        for (int i = 0; i < 4; i++)
            assert_float_equal(output[i], views[view][i], 0);
        for (int i = 0; i < 12; i++)
            colours[i] = picture[i / 3] + 10 * (float)(i % 3);
        input_view(colours, 2, 3, view, coloured);
        for (int i = 0; i < 12; i++)
            assert_float_equal(coloured[i], views[view][i / 3] + 10 * (float)(i % 3), 0);
    }
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    empty_folder(state);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(rows_keep_their_values, empty_folder),
        cmocka_unit_test_setup(each_mode_writes_its_own_columns_only, empty_folder),
        cmocka_unit_test_setup(daemon_and_worker_share_rows, empty_folder),
        cmocka_unit_test_setup(other_layouts_are_refused, empty_folder),
        cmocka_unit_test_setup(growth_that_failed_half_way_is_made_good, empty_folder),
        cmocka_unit_test(split_has_the_shares_asked_for),
        cmocka_unit_test(split_never_changes),
        cmocka_unit_test(eight_views_of_a_picture),
    };
    return cmocka_run_group_tests_name("pool", tests, make_folder, remove_folder);
}
