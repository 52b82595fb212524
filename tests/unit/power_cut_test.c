/*
 * The machine loses power at every moment of what is done to models, pool and the feed's first keys, on a disk that tears and reorders what was not synced
 * (write_log.h); then the real code opens what is left. Files that are replaced as a whole are the old or the new ones, always.
 * Rows of the pool are what was stored, or their checksum says that they are not.
 */
#include "base/error.h"
#include "base/file.h"
#include "connectors/feed_keys.h"
#include "daemon/models.h"
#include "model/model_file.h"
#include "pool/pool.h"
#include "tests/support/small_schema.h"
#include "tests/support/write_log.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define CHANCES 6 /* draws at each moment, besides the best and the worst luck */
#define SEED    20261127

static char base[64] = "/dev/shm/power_cut_test.XXXXXX", live[64],
            after[64]; /* in memory: thousands of disks are made */

static void empty(const char *folder)
{
    DIR *listing = opendir(folder);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (listing)
        closedir(listing);
}

/* Calls `check` with the number of the last event before the cut, for every moment and many fates. */
static void cut_everywhere(int events, const char *folder, void (*check)(int event))
{
    for (int event = 0; event <= events; event++)
        for (int fate = 0; fate < CHANCES + 2; fate++) {
            empty(folder);
            write_log_cut(event, fate < 2 ? (enum write_log_luck)fate : WRITE_LOG_CHANCE,
                          SEED + (uint64_t)(event * 100 + fate), folder);
            check(event);
        }
}

/* --- models ---------------------------------------------------------------------------------------------------------- */

#define STEPS 6

static struct config config;
static struct schema schema;
static struct {
    int begun, done; /* events */
    uint32_t champion, saved;
} step[STEPS]; /* what holds from `done` on */
static int cuts, steps;

static void make_model(uint32_t number, struct model *model)
{
    *model = (struct model){.number = number,
                            .trunk_version = 1,
                            .schema_name = "small",
                            .architecture = "efficientnet_b0",
                            .trunk_name = "y"};
    memcpy(model->schema_hash, schema.hash, HASH_TEXT_BYTES);
    assert_int_equal(head_set_new(1, 40, 5, &model->heads), 0);
    model->heads.model = number;
    for (size_t i = 0; i < head_set_floats(&model->heads); i++)
        model->heads.shift[i] = (float)(number * 1000 + i);
}

static void save(uint32_t number)
{
    struct model model;
    char path[FILE_PATH_BYTES];
    make_model(number, &model);
    step[steps] = step[steps ? steps - 1 : 0];
    step[steps].begun = write_log_note();
    assert_int_equal(models_path(&config, number, path, sizeof path), 0);
    assert_int_equal(model_save(path, &model), 0);
    step[steps].saved = number;
    step[steps++].done = write_log_note();
    model_free(&model);
}

static void promote(uint32_t number)
{
    step[steps] = step[steps - 1];
    step[steps].begun = write_log_note();
    assert_int_equal(models_promote(&config, number), 0);
    step[steps].champion = number;
    step[steps++].done = write_log_note();
}

static void check_models(int event)
{
    struct config other = config;
    uint32_t champion, certain = 0, saved = 0, possible = 0;
    char words[256], path[FILE_PATH_BYTES];
    snprintf(other.state, sizeof other.state, "%s", after);
    for (int i = 0; i < steps && step[i].begun <= event; i++) {
        possible = step[i].champion;
        if (step[i].done <= event) {
            certain = step[i].champion;
            saved = step[i].saved;
        }
    }
    assert_int_equal(models_sound_champion(&other, &schema, &champion, words, sizeof words), 0);
    assert_string_equal(words, ""); /* nothing was damaged */
    if (champion != certain && champion != possible)
        fail_msg("after a cut behind event %d the champion is %u, not %u or %u", event, champion, certain, possible);
    for (uint32_t number = 1; number <= saved; number++) {
        struct model model, wanted;
        make_model(number, &wanted);
        assert_int_equal(models_path(&other, number, path, sizeof path), 0);
        assert_int_equal(model_load(path, &schema, &model), 0);
        assert_memory_equal(model.heads.shift, wanted.heads.shift, head_set_floats(&wanted.heads) * sizeof(float));
        model_free(&model);
        model_free(&wanted);
    }
    cuts++;
}

static void models_are_the_old_or_the_new_ones(void **state)
{
    (void)state;
    char models[128], models_after[128];
    small_schema(&schema, 2, (int[]){3, 2}, (int[]){-1, 0});
    snprintf(config.state, sizeof config.state, "%s", live);
    config.models_keep = 100;
    snprintf(config.trunk_network, sizeof config.trunk_network, "efficientnet_b0");
    snprintf(models, sizeof models, "%s/models", live);
    snprintf(models_after, sizeof models_after, "%s/models", after);
    assert_int_equal(file_make_folder(models, 0755) | file_make_folder(models_after, 0755), 0);
    write_log_start(models);
    save(1);
    promote(1);
    save(2);
    promote(2);
    save(3);
    promote(1); /* a rollback */
    int events = write_log_note();
    assert_true(events > 40);
    cut_everywhere(events, models_after, check_models);
    print_message("%d cuts: models and champion are the old or the new ones\n", cuts);
    empty(models);
    empty(models_after);
    write_log_stop();
}

/* --- the feed's keys ------------------------------------------------------------------------------------------------- */

static struct socket_curve made;
static int made_event;

/* The next start has a whole pair and its list, and the same pair if the first start had come to have one. */
static void check_keys(int event)
{
    static struct feed_keys keys;
    static const char *const private[] = {"server.key", "server.key.new"};
    char folder[128], path[160];
    struct socket_curve key;
    snprintf(folder, sizeof folder, "%s/keys", after);
    for (int i = 0; i < 2; i++) { /* as they were created: the record knows of no modes */
        snprintf(path, sizeof path, "%s/%s", folder, private[i]);
        chmod(path, 0600);
    }
    if (feed_keys_server(folder, &key))
        fail_msg("after a cut behind event %d: %s", event, error_message());
    assert_int_equal(feed_keys_read(folder, &keys), 0);
    assert_int_equal(keys.count, 0);
    if (event >= made_event)
        assert_string_equal(key.secret_key, made.secret_key);
    cuts++;
}

static void a_first_start_with_keys_is_made_good(void **state)
{
    (void)state;
    char folder[128], folder_after[128];
    snprintf(folder, sizeof folder, "%s/keys", live);
    snprintf(folder_after, sizeof folder_after, "%s/keys", after);
    assert_int_equal(file_make_folder(folder, 0700) | file_make_folder(folder_after, 0700), 0);
    cuts = 0;
    write_log_start(folder);
    assert_int_equal(feed_keys_server(folder, &made), 0);
    made_event = write_log_note();
    assert_true(made_event > 8);
    cut_everywhere(made_event, folder_after, check_keys);
    print_message("%d cuts: the next start has the daemon's keys\n", cuts);
    empty(folder);
    empty(folder_after);
    write_log_stop();
}

/* --- the pool -------------------------------------------------------------------------------------------------------- */

#define GALAXIES 4

static const struct pool_layout layout = {.answers = 3,
                                          .questions = 1,
                                          .embedding_inputs = 300, /* two sectors */
                                          .pixel_side = 8,
                                          .pixel_channels = 3,
                                          .trunk_side = 4,
                                          .trunk_views = 1,
                                          .mc_views = 1,
                                          .schema_hash = "00112233445566778899aabbccddeeff"};
static long sound, torn_embeddings, torn_pixels;
static int flushed; /* whether the run flushes embeddings before their versions, as the worker does */
static int reembedding_event;

static void pixels_of(uint64_t row, uint8_t *pixels)
{
    for (int i = 0; i < 8 * 8 * 3; i++)
        pixels[i] = (uint8_t)(row * 31 + (uint64_t)i * 7 + 1);
}

static void embedding_of(uint64_t row, uint32_t trunk, uint16_t *values)
{
    for (int i = 0; i < 300; i++)
        values[i] = (uint16_t)(row * 1000 + trunk * 77 + (uint64_t)i + 1);
}

static void embed(struct pool *pool, uint32_t trunk)
{
    pool_use_trunk(pool, trunk);
    for (uint64_t row = 0; row < GALAXIES; row++) {
        pixels_of(row, pool_pixels(pool, row));
        write_log_note();
        embedding_of(row, trunk, pool_embedding(pool, row));
        write_log_note();
    }
    if (flushed)
        assert_int_equal(pool_flush_embeddings(pool, 0, GALAXIES), 0);
    for (uint64_t row = 0; row < GALAXIES; row++) {
        pool_set_embedding_version(pool, row, trunk);
        write_log_note();
    }
}

static void check_pool(int event)
{
    struct pool pool;
    uint16_t wanted[300];
    uint8_t pixels[8 * 8 * 3];
    if (pool_open(after, &layout, POOL_READ_WRITE,
                  &pool)) /* the daemon's way in: makes what is missing, refuses nothing */
        fail_msg("after a cut behind event %d the pool cannot be opened: %s", event, error_message());
    assert_int_equal(pool_grow(&pool, GALAXIES), 0);
    for (uint32_t trunk = 1; trunk <= 2; trunk++)
        for (uint64_t row = 0; row < GALAXIES; row++) {
            pool_use_trunk(&pool, trunk);
            uint32_t version = *pool_embedding_version(&pool, row);
            if (!version)
                continue;
            if (!pool_embedding_is_sound(&pool, row)) {
                torn_embeddings++;
                if (flushed && event < reembedding_event)
                    fail_msg("after a cut behind event %d row %d was not flushed before its version", event, (int)row);
                continue;
            }
            embedding_of(row, version, wanted);
            assert_memory_equal(pool_embedding(&pool, row), wanted, sizeof wanted);
            sound++;
            pixels_of(row, pixels);
            if (!pool_pixels_are_sound(&pool, row))
                torn_pixels++;
            else
                assert_memory_equal(pool_pixels(&pool, row), pixels, sizeof pixels);
        }
    pool_close(&pool);
    cuts++;
}

static void run_pool(int with_flush)
{
    struct pool pool;
    cuts = 0;
    sound = torn_embeddings = torn_pixels = 0;
    flushed = with_flush;
    write_log_start(live);
    assert_int_equal(pool_open(live, &layout, POOL_READ_WRITE, &pool), 0);
    assert_int_equal(pool_grow(&pool, GALAXIES), 0);
    for (uint64_t row = 0; row < GALAXIES; row++)
        snprintf(pool_identity(&pool, row)->id_str, 64, "galaxy-%d", (int)row);
    embed(&pool, 1);
    embed(&pool, 2);
    reembedding_event = write_log_note();
    embed(&pool, 3); /* over those of trunk 1, whose versions stay until then */
    pool_close(&pool);
    int events = write_log_note();
    cut_everywhere(events, after, check_pool);
    write_log_stop();
    empty(live);
    empty(after);
    print_message("%d cuts%s: %ld sound rows, %ld torn embeddings and %ld torn rows of pixels, all found\n", cuts,
                  with_flush ? "" : " without a flush", sound, torn_embeddings, torn_pixels);
    assert_true(sound > 300);
    assert_true(torn_pixels > 0);     /* pixels are not flushed: the checksum is what finds them */
    assert_true(torn_embeddings > 0); /* at least while those of trunk 1 are overwritten */
}

static void rows_are_sound_or_known_not_to_be(void **state)
{
    (void)state;
    run_pool(1);
}

static void without_a_flush_the_checksum_finds_them(void **state)
{
    (void)state;
    run_pool(0);
}

int main(void)
{
    if (!mkdtemp(base)) {
        snprintf(base, sizeof base, "/tmp/power_cut_test.XXXXXX");
        if (!mkdtemp(base))
            return 1;
    }
    snprintf(live, sizeof live, "%.50s/live", base);
    snprintf(after, sizeof after, "%.50s/after", base);
    if (mkdir(live, 0755) || mkdir(after, 0755))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sound_or_known_not_to_be),
        cmocka_unit_test(without_a_flush_the_checksum_finds_them),
        cmocka_unit_test(models_are_the_old_or_the_new_ones),
        cmocka_unit_test(a_first_start_with_keys_is_made_good),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    char path[128];
    const char *const folders[] = {"live/models", "after/models", "live/keys", "after/keys", "live", "after", ""};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/%s", base, folders[i]);
        empty(path);
        rmdir(path);
    }
    return failures;
}
