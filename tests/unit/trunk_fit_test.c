/*
 * Training runs: that they learn, stop and restore the best, resume bit for bit, freeze what is frozen, and refuse what teaches
 * nothing. A small network on drawn images, so that a run takes moments.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/philox.h"
#include "tests/support/backend_under_test.h"
#include "model/trunk_fit.h"
#include "tests/support/small_nets.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef TEST_BACKEND_CUDA
#define MEANS "cuda, 1 device"
#else
#define MEANS "cpu, 2 threads"
#endif
#define ROWS       96
#define VALIDATION 24
#define SIDE       32
#define STORED     40
#define CLASSES    2

static struct net net;
static uint8_t pixels[ROWS][STORED * STORED];
static float labels[ROWS * 5];
static uint64_t keys[ROWS], rows[ROWS];
static struct backend_context *context;
static char folder[] = "/tmp/trunk-fit-XXXXXX";

/* Blobs (class 0) and rings (class 1), of random size and brightness, with noise: the same turned and mirrored. */
static void draw_galaxies(void)
{
    for (uint32_t n = 0; n < ROWS; n++) {
        int ring = (int)(n % 2);
        float size = 5 + 5 * uniform(500, n), bright = 60 + 120 * uniform(501, n);
        for (int y = 0; y < STORED; y++)
            for (int x = 0; x < STORED; x++) {
                float r = hypotf((float)x - 19.5f, (float)y - 19.5f) / size,
                      noise = 40 * uniform(600 + n, (size_t)(y * STORED + x));
                float value = ring ? expf(-8 * (r - 1) * (r - 1)) : expf(-r * r);
                pixels[n][y * STORED + x] = (uint8_t)(bright * value + noise);
            }
        labels[n * CLASSES] = (float)!ring;
        labels[n * CLASSES + 1] = (float)ring;
        keys[n] = 77 + n;
        rows[n] = n;
    }
}

static int set_up(void **state)
{
    (void)state;
    small_net(&net, 1, SIDE, PADDING_SYMMETRIC);
    draw_galaxies();
    return !mkdtemp(folder) || BACKEND_UNDER_TEST->open(2, 1, &context);
}

static int tear_down(void **state)
{
    (void)state;
    BACKEND_UNDER_TEST->close(context);
    return rmdir(folder);
}

static struct target classes(void)
{
    return (struct target){
        .kind = TARGET_CLASSES, .outputs = CLASSES, .class_weight = {1, 1}
    };
}

static struct trunk_recipe recipe(void)
{
    return (struct trunk_recipe){.learning_rate = 3e-3,
                                 .weight_decay = 0.01,
                                 .block_decay = 1,
                                 .clip_norm = 5,
                                 .dropout = 0.1,
                                 .stochastic_depth = 0.1,
                                 .schedule = SCHEDULE_COSINE,
                                 .augmentation = AUGMENT_W21,
                                 .blocks = TRUNK_FIT_BLOCKS_MAX,
                                 .live_norm = 1,
                                 .batch = 16,
                                 .epochs_max = 12,
                                 .patience = 0,
                                 .seed = 3};
}

static struct trunk_data data(void)
{
    return (struct trunk_data){.pixels = pixels[0],
                               .pixels_stride_bytes = sizeof pixels[0],
                               .pixel_side = STORED,
                               .labels = labels,
                               .key = keys,
                               .train_row = rows,
                               .validation_row = rows + ROWS - VALIDATION,
                               .train_count = ROWS - VALIDATION,
                               .validation_count = VALIDATION};
}

static float *start(const struct target *target, const struct trunk_data *galaxies)
{
    float *values = malloc(trunk_fit_values(&net, target) * sizeof *values);
    assert_int_equal(trunk_fit_random(&net, target, galaxies, 3, values), 0);
    return values;
}

static struct trunk_fit *open_fit(const struct target *target, const struct trunk_recipe *how)
{
    struct trunk_data galaxies = data();
    struct trunk_fit *fit;
    float *values = start(target, &galaxies);
    int result = trunk_fit_open(BACKEND_UNDER_TEST, context, &net, target, how, &galaxies, values, &fit);
    if (result)
        fail_msg("%s", error_message());
    free(values);
    return fit;
}

static void run_to_the_end(struct trunk_fit *fit)
{
    int over = 0;
    while (!over) {
        over = trunk_fit_step(fit);
        if (over < 0)
            fail_msg("%s", error_message());
    }
}

/* --- learning ----------------------------------------------------------------------------------------------------- */

static void learns_and_restores_the_best(void **state)
{
    struct target target = classes();
    struct trunk_recipe how = recipe();
    struct trunk_epoch judged;
    struct trunk_data galaxies = data();
    (void)state;
    how.epochs_max = 40;
    struct trunk_fit *fit = open_fit(&target, &how);
    run_to_the_end(fit);
    int best = trunk_fit_best_epoch(fit);
    assert_int_equal(trunk_fit_epochs(fit), 40);
    for (int e = 0; e <= 40; e++)
        assert_true(trunk_fit_epoch(fit, best)->validation_loss <= trunk_fit_epoch(fit, e)->validation_loss);
    assert_true(trunk_fit_epoch(fit, best)->quality >= 0.95);
    assert_true(trunk_fit_epoch(fit, 40)->train_loss < 0.5 * trunk_fit_epoch(fit, 1)->train_loss);
    /* the best values are those of that epoch, to the bit */
    assert_int_equal(trunk_fit_judge(fit, trunk_fit_best(fit), galaxies.validation_row, VALIDATION, &judged), 0);
    assert_true(judged.validation_loss == trunk_fit_epoch(fit, best)->validation_loss);
    float predictions[VALIDATION * CLASSES];
    for (int views = 1; views <= 8; views += 7) {
        int right = 0;
        assert_int_equal(
            trunk_fit_predict(fit, trunk_fit_best(fit), galaxies.validation_row, VALIDATION, views, predictions), 0);
        for (int i = 0; i < VALIDATION; i++) {
            assert_float_equal(predictions[2 * i] + predictions[2 * i + 1], 1, 1e-5f);
            right += (predictions[2 * i] > 0.5f) == (labels[galaxies.validation_row[i] * 2] > 0);
        }
        assert_true(right >= 0.95 * VALIDATION);
    }
    trunk_fit_close(fit);
}

/* Blobs for rings and rings for blobs among the validation galaxies: the more is learnt, the worse they are predicted. */
static void mislabel_validation(void)
{
    for (int n = (ROWS - VALIDATION) * CLASSES; n < ROWS * CLASSES; n++)
        labels[n] = 1 - labels[n];
}

static void patience_ends_a_run(void **state)
{
    struct target target = classes();
    struct trunk_recipe how = recipe();
    (void)state;
    how.epochs_max = 60;
    how.patience = 3;
    mislabel_validation();
    struct trunk_fit *fit = open_fit(&target, &how);
    run_to_the_end(fit);
    assert_int_equal(trunk_fit_epochs(fit) - trunk_fit_best_epoch(fit), 3);
    assert_true(trunk_fit_epochs(fit) < 60);
    assert_true(trunk_fit_step(fit) == 1); /* and it stays over */
    trunk_fit_close(fit);
    mislabel_validation(); /* as they were */
}

/* A batch, or as many validation galaxies, per step: 24 of them take two, and 72 galaxies to train on four. */
static void every_step_is_bounded(void **state)
{
    struct target target = classes();
    struct trunk_recipe how = recipe();
    (void)state;
    how.epochs_max = 3;
    struct trunk_fit *fit = open_fit(&target, &how);
    for (int step = 1; step <= 2 + 3 * 6; step++) {
        int batches = (step - 2) / 6 * 4 + ((step - 2) % 6 < 4 ? (step - 2) % 6 : 4);
        assert_int_equal(trunk_fit_step(fit), step == 20);
        assert_int_equal(trunk_fit_epochs(fit), step < 2 ? 0 : (step - 2) / 6);
        assert_float_equal(trunk_fit_progress(fit), step < 2 ? 0 : batches / 12.0, 1e-6);
    }
    trunk_fit_close(fit);
}

/* Votes: the loss per question adds up, and starts at the best constant. */
static void votes_start_at_the_constant(void **state)
{
    static struct schema schema;
    static const int answers[] = {3, 2}, parent[] = {-1, 0};
    static float votes[ROWS * 5], saved[ROWS * 5];
    struct trunk_recipe how = recipe();
    (void)state;
    small_schema(&schema, 2, answers, parent);
    struct target target = {.kind = TARGET_VOTES, .outputs = 5, .schema = &schema};
    for (int n = 0; n < ROWS; n++) {
        float ring = (float)(n % 2), more = (float)(int)(6 * uniform(700, (size_t)n));
        const float galaxy[5] = {20 - 14 * ring + more, 4 + 14 * ring, more, 6 * (1 - ring), 3};
        memcpy(votes + 5 * n, galaxy, sizeof galaxy);
    }
    memcpy(saved, labels, sizeof saved);
    memcpy(labels, votes, sizeof votes);
    how.epochs_max = 40;
    struct trunk_fit *fit = open_fit(&target, &how);
    run_to_the_end(fit);
    const struct trunk_epoch *first = trunk_fit_epoch(fit, 0), *best = trunk_fit_epoch(fit, trunk_fit_best_epoch(fit));
    assert_true(fabs((double)(first->question_loss[0] + first->question_loss[1]) - first->validation_loss) < 1e-4);
    assert_true(best->validation_loss < 0.9 * first->validation_loss);
    assert_true(best->quality < 0.6 * first->quality);
    trunk_fit_close(fit);
    memcpy(labels, saved, sizeof saved);
}

/* --- resuming ----------------------------------------------------------------------------------------------------- */

static void resumes_bit_for_bit(void **state)
{
    struct target target = classes();
    struct trunk_recipe how = recipe();
    char path[256];
    (void)state;
    snprintf(path, sizeof path, "%s/checkpoint", folder);
    how.epochs_max = 10;
    how.schedule = SCHEDULE_PLATEAU; /* whose rate falls after six epochs without a better one */
    mislabel_validation();
    struct trunk_fit *whole = open_fit(&target, &how);
    run_to_the_end(whole);
    assert_true(trunk_fit_epoch(whole, 10)->learning_rate < 0.2 * trunk_fit_epoch(whole, 1)->learning_rate);
    size_t bytes = trunk_fit_values(&net, &target) * sizeof(float);
    /* before and within the first judging; in the middle of an epoch, at the end of its batches, within its judging and after
     * it (an epoch is 4 and 2 steps); about where the rate falls; near the end */
    static const int stops[] = {1, 4, 6, 7, 33, 44, 60};
    for (size_t s = 0; s < sizeof stops / sizeof *stops; s++) {
        struct trunk_fit *fit = open_fit(&target, &how);
        for (int i = 0; i < stops[s]; i++)
            assert_int_equal(trunk_fit_step(fit), 0);
        double progress = trunk_fit_progress(fit);
        assert_int_equal(trunk_fit_save(fit, path), 0);
        assert_int_equal(trunk_fit_step(fit), 0); /* lost by the kill */
        trunk_fit_close(fit);
        fit = open_fit(&target, &how);
        char means[TRUNK_MEANS_BYTES];
        assert_int_equal(trunk_fit_load(fit, path, means), 0);
        assert_string_equal(means, MEANS);
        assert_true(trunk_fit_progress(fit) == progress);
        run_to_the_end(fit);
        assert_memory_equal(trunk_fit_best(fit), trunk_fit_best(whole), bytes);
        for (int e = 0; e <= 10; e++)
            assert_memory_equal(trunk_fit_epoch(fit, e), trunk_fit_epoch(whole, e), sizeof(struct trunk_epoch));
        trunk_fit_close(fit);
    }
    trunk_fit_close(whole);
    mislabel_validation();
    unlink(path);
}

/* No slice of work is too short: with a process for each step a run needs no more steps than in one go, judging included. */
static void a_process_for_each_step(void **state)
{
    struct target target = classes();
    struct trunk_recipe how = recipe();
    char path[256];
    char means[TRUNK_MEANS_BYTES];
    int over = 0, steps = 0;
    (void)state;
    snprintf(path, sizeof path, "%s/checkpoint", folder);
    how.epochs_max = 2;
    struct trunk_fit *whole = open_fit(&target, &how), *fit = open_fit(&target, &how);
    run_to_the_end(whole);
    for (; !over && steps < 2 + 2 * 6; steps++) {
        over = trunk_fit_step(fit);
        assert_int_equal(trunk_fit_save(fit, path), 0);
        trunk_fit_close(fit);
        fit = open_fit(&target, &how);
        assert_int_equal(trunk_fit_load(fit, path, means), 0);
    }
    assert_int_equal(over, 1);
    assert_int_equal(steps, 2 + 2 * 6);
    assert_memory_equal(trunk_fit_best(fit), trunk_fit_best(whole), trunk_fit_values(&net, &target) * sizeof(float));
    for (int e = 0; e <= 2; e++)
        assert_memory_equal(trunk_fit_epoch(fit, e), trunk_fit_epoch(whole, e), sizeof(struct trunk_epoch));
    trunk_fit_close(fit);
    trunk_fit_close(whole);
    unlink(path);
}

static void refuse(struct trunk_fit *fit, const char *path, const char *bytes, size_t length, int code,
                   const char *words)
{
    struct file_part part = {bytes, length};
    assert_int_equal(file_write(path, &part, 1, 0600), 0);
    char means[TRUNK_MEANS_BYTES];
    int result = trunk_fit_load(fit, path, means);
    if (result != code || !strstr(error_message(), words))
        fail_msg("%d '%s', wanted %d '%s'", result, error_message(), code, words);
}

static void refuses_other_checkpoints(void **state)
{
    struct target target = classes(), binomial = {.kind = TARGET_BINOMIAL, .outputs = 2};
    struct trunk_recipe how = recipe(), other = recipe();
    char path[256], *bytes;
    size_t length;
    (void)state;
    snprintf(path, sizeof path, "%s/checkpoint", folder);
    struct trunk_fit *fit = open_fit(&target, &how);
    assert_int_equal(trunk_fit_step(fit), 0);
    assert_int_equal(trunk_fit_save(fit, path), 0);
    assert_int_equal(file_read(path, 1 << 30, &bytes, &length), 0);
    for (size_t cut = 0; cut < length; cut += length / 7 + 1)
        refuse(fit, path, bytes, cut, ERROR_INPUT, cut < 100 ? "is no checkpoint" : "is cut short");
    for (size_t at = 300; at < length; at += length / 11) {
        bytes[at] ^= 4;
        refuse(fit, path, bytes, length, ERROR_INPUT, "is damaged");
        bytes[at] ^= 4;
    }
    bytes[8] = 9;
    refuse(fit, path, bytes, length, ERROR_STATE, "newer version");
    bytes[8] = 1;
    refuse(fit, path, bytes, length, ERROR_STATE, "older version");
    bytes[8] = 4;
    trunk_fit_close(fit);
    target.class_weight[1] = 3;
    fit = open_fit(&target, &how);
    refuse(fit, path, bytes, length, ERROR_STATE, "another kind of label or weight of classes");
    trunk_fit_close(fit);
    target = classes();
    other.weight_decay = 0.02;
    fit = open_fit(&target, &other);
    refuse(fit, path, bytes, length, ERROR_STATE, "another training recipe");
    trunk_fit_close(fit);
    fit = open_fit(&binomial, &how);
    refuse(fit, path, bytes, length, ERROR_STATE, "another kind of label");
    trunk_fit_close(fit);
    labels[0] = 0;
    labels[1] = 1;
    fit = open_fit(&target, &how);
    refuse(fit, path, bytes, length, ERROR_STATE, "another galaxies or labels");
    trunk_fit_close(fit);
    labels[0] = 1;
    labels[1] = 0;
    net.padding = PADDING_SAME;
    fit = open_fit(&target, &how);
    refuse(fit, path, bytes, length, ERROR_STATE, "another network");
    run_to_the_end(fit); /* a refused file has changed nothing */
    trunk_fit_close(fit);
    net.padding = PADDING_SYMMETRIC;
    free(bytes);
    unlink(path);
}

/* As many outputs, but of other questions. */
static void refuses_checkpoints_of_another_decision_tree(void **state)
{
    static struct schema schema[2];
    static const int answers[2][2] = {
        {3, 2},
        {2, 3}
    };
    static const int parent[] = {-1, 0};
    struct trunk_recipe how = recipe();
    char path[256], *bytes;
    size_t length;
    (void)state;
    snprintf(path, sizeof path, "%s/checkpoint", folder);
    for (int i = 0; i < 2; i++) {
        small_schema(&schema[i], 2, answers[i], parent);
        struct target target = {.kind = TARGET_VOTES, .outputs = 5, .schema = &schema[i]};
        struct trunk_fit *fit = open_fit(&target, &how);
        if (i == 0)
            assert_int_equal(trunk_fit_save(fit, path), 0);
        assert_int_equal(file_read(path, 1 << 30, &bytes, &length), 0);
        if (i == 1)
            refuse(fit, path, bytes, length, ERROR_STATE, "another decision tree");
        free(bytes);
        trunk_fit_close(fit);
    }
    unlink(path);
}

/* --- what learns -------------------------------------------------------------------------------------------------- */

/* Adam's first step is the rate itself wherever there is a gradient, so the steps of the blocks show their rates. */
static void blocks_learn_at_their_rates(void **state)
{
    struct target target = classes();
    struct trunk_recipe how = recipe();
    struct trunk_data galaxies = data();
    int block[NET_LAYERS_MAX];
    (void)state;
    struct net b0;
    net_efficientnet_b0(1, 64, &b0);
    assert_int_equal(net_blocks(&b0, block), 8);
    assert_int_equal(block[0], 7);
    assert_int_equal(block[b0.layers - 1], 0); /* conv_head and what follows go with blocks.6 */
    for (int i = 0; i < b0.layers; i++)
        if (strncmp(b0.layer[i].name, "blocks.", 7) == 0)
            assert_int_equal(block[i], 6 - (b0.layer[i].name[7] - '0'));
    int blocks = net_blocks(&net, block);
    assert_true(blocks > 3);
    how.blocks = 2;
    how.block_decay = 0.25;
    how.weight_decay = 0;
    how.clip_norm = 0;
    how.live_norm = 0;
    how.schedule = SCHEDULE_CONSTANT;
    how.epochs_max = 1;
    how.batch = ROWS - VALIDATION; /* one step, which also ends the epoch */
    float *before = start(&target, &galaxies);
    struct trunk_fit *fit = open_fit(&target, &how);
    galaxies.validation_count = 0; /* so that the last epoch is the best */
    trunk_fit_close(fit);
    assert_int_equal(trunk_fit_open(BACKEND_UNDER_TEST, context, &net, &target, &how, &galaxies, before, &fit), 0);
    run_to_the_end(fit);
    const float *after = trunk_fit_best(fit);
    size_t offset = 0;
    for (int i = 0; i < net.layers; i++) {
        size_t count = layer_parameter_count(&net.layer[i]);
        double largest = 0;
        for (size_t p = 0; p < count; p++)
            largest = fmax(largest, fabs((double)after[offset + p] - (double)before[offset + p]));
        double want = block[i] >= 2 || !count ? 0 : block[i] == 1 ? 3e-3 * 0.25 : 3e-3;
        if (!(fabs(largest - want) <= 0.01 * want))
            fail_msg("layer %d of block %d moved by %g, wanted %g", i, block[i], largest, want);
        offset += count;
    }
    trunk_fit_close(fit);
    free(before);
}

/* Only the head: the trunk keeps every bit with frozen batch norm, and only its running statistics move with live. */
static void frozen_stays_frozen(void **state)
{
    struct target target = classes();
    struct trunk_recipe how = recipe();
    struct trunk_data galaxies = data();
    size_t count = net_parameter_count(&net);
    (void)state;
    galaxies.validation_count = 0;
    how.blocks = 0;
    how.epochs_max = 2;
    float *before = start(&target, &galaxies);
    for (int live = 0; live <= 1; live++) {
        struct trunk_fit *fit;
        struct net_tensor tensor[256];
        how.live_norm = live;
        assert_int_equal(trunk_fit_open(BACKEND_UNDER_TEST, context, &net, &target, &how, &galaxies, before, &fit), 0);
        run_to_the_end(fit);
        const float *after = trunk_fit_best(fit);
        int tensors = net_tensors(&net, tensor, 256);
        for (int t = 0; t < tensors; t++) {
            int statistics = strstr(tensor[t].name, "running_") != NULL;
            int same =
                memcmp(before + tensor[t].offset, after + tensor[t].offset, tensor[t].count * sizeof *after) == 0;
            assert_int_equal(same, !(statistics && live));
        }
        assert_memory_not_equal(before + count, after + count, CLASSES * sizeof *after);
        trunk_fit_close(fit);
    }
    free(before);
}

static void shrinks_towards_fresh_values(void **state)
{
    struct target target = classes();
    struct trunk_data galaxies = data();
    size_t count = trunk_fit_values(&net, &target);
    float *values = start(&target, &galaxies), *fresh = malloc(count * sizeof *fresh);
    (void)state;
    float *own = malloc(count * sizeof *own);
    struct net_tensor tensor[256];
    assert_int_equal(trunk_fit_random(&net, &target, &galaxies, trunk_fit_fresh_seed(8), fresh), 0);
    assert_int_equal(trunk_fit_random(&net, &target, &galaxies, 8, own), 0);
    assert_memory_not_equal(fresh, own, count * sizeof *own); /* or a run would be shrunk towards where it began */
    for (size_t i = 0; i < count; i++)
        values[i] = 2;
    assert_int_equal(trunk_fit_shrink(&net, &target, &galaxies, 8, 0.25, values), 0);
    int tensors = net_tensors(&net, tensor, 256), statistics = 0;
    for (int t = 0; t < tensors; t++) {
        int kept = strstr(tensor[t].name, ".running_") != NULL; /* they belong to the images, not to the weights */
        statistics += kept;
        for (size_t i = tensor[t].offset; i < tensor[t].offset + tensor[t].count; i++)
            assert_float_equal(values[i], kept ? 2 : 0.5f + 0.75f * fresh[i], 1e-6f);
    }
    assert_true(statistics > 0);
    for (size_t i = net_parameter_count(&net); i < count; i++)
        assert_float_equal(values[i], 0.5f + 0.75f * fresh[i], 1e-6f);
    free(values);
    free(fresh);
    free(own);
}

/* --- what teaches nothing ----------------------------------------------------------------------------------------- */

static void expect_refusal(const struct trunk_data *galaxies, const struct trunk_recipe *how, const char *words)
{
    struct target target = classes();
    struct trunk_fit *fit;
    float *values = calloc(trunk_fit_values(&net, &target), sizeof *values);
    int result = trunk_fit_open(BACKEND_UNDER_TEST, context, &net, &target, how, galaxies, values, &fit);
    if (result != ERROR_INPUT || !strstr(error_message(), words))
        fail_msg("%d '%s', wanted '%s'", result, error_message(), words);
    free(values);
}

static void refuses_what_teaches_nothing(void **state)
{
    struct trunk_data galaxies = data();
    struct trunk_recipe how = recipe();
    static const uint64_t same[] = {1, 3, 5, 7};
    static float none[ROWS * CLASSES];
    (void)state;
    galaxies.train_count = 0;
    expect_refusal(&galaxies, &how, "no galaxy to train on");
    galaxies.train_count = 1;
    expect_refusal(&galaxies, &how, "at least 2 galaxies per batch");
    galaxies = data();
    how.batch = 1;
    expect_refusal(&galaxies, &how, "at least 2 galaxies per batch");
    how = recipe();
    galaxies.train_row = same;
    galaxies.train_count = 4;
    expect_refusal(&galaxies, &how, "all 4 labelled galaxies are of one class");
    galaxies = data();
    galaxies.labels = none;
    expect_refusal(&galaxies, &how, "no galaxy to train on");
    galaxies = data();
    how.learning_rate = 0;
    expect_refusal(&galaxies, &how, "learning rate 0");
    how = recipe();
    how.batch = TRUNK_FIT_BATCH_MAX + 1;
    expect_refusal(&galaxies, &how, "a batch of 1025");
}

/* A batch of one works with frozen batch norm. */
static void a_batch_of_one(void **state)
{
    struct target target = classes();
    struct trunk_recipe how = recipe();
    (void)state;
    how.batch = 1;
    how.live_norm = 0;
    how.epochs_max = 1;
    struct trunk_fit *fit = open_fit(&target, &how);
    run_to_the_end(fit);
    assert_true(isfinite(trunk_fit_epoch(fit, 1)->train_loss));
    trunk_fit_close(fit);
}

static void names_the_galaxy_of_a_bad_loss(void **state)
{
    struct target target = {.kind = TARGET_VALUES, .outputs = 1};
    struct trunk_recipe how = recipe();
    static float values[ROWS];
    struct trunk_data galaxies = data();
    struct trunk_fit *fit;
    int over = 0;
    (void)state;
    for (int n = 0; n < ROWS; n++)
        values[n] = (float)(n % 2);
    galaxies.labels = values;
    float *before = start(&target, &galaxies);
    assert_int_equal(trunk_fit_open(BACKEND_UNDER_TEST, context, &net, &target, &how, &galaxies, before, &fit), 0);
    while (trunk_fit_epochs(fit) < 2)
        assert_int_equal(trunk_fit_step(fit), 0);
    size_t bytes = trunk_fit_values(&net, &target) * sizeof(float);
    float *best = malloc(bytes);
    memcpy(best, trunk_fit_best(fit), bytes);
    static const struct {
        uint64_t row;
        float value;
        const char *words;
    } cases[] = {
        {42,       NAN,   "the loss is not finite in epoch 3"    },
        {43,       3e38f, "gradient is not finite, in epoch 3"   },
        {ROWS - 1, NAN,   "its loss is not finite after 3 epochs"},
    };
    for (size_t i = 0; i < 3; i++) {
        float saved = values[cases[i].row];
        values[cases[i].row] = cases[i].value;
        for (over = 0; over == 0;)
            over = trunk_fit_step(fit);
        assert_int_equal(over, ERROR_INPUT);
        assert_int_equal(trunk_fit_bad_row(fit), cases[i].row);
        if (!strstr(error_message(), cases[i].words))
            fail_msg("'%s', wanted '%s'", error_message(), cases[i].words);
        assert_memory_equal(best, trunk_fit_best(fit), bytes);
        values[cases[i].row] = saved;
    }
    while (trunk_fit_epochs(fit) < 3) /* nothing was spoiled by what was refused */
        assert_int_equal(trunk_fit_step(fit), 0);
    assert_true(isfinite(trunk_fit_epoch(fit, 3)->validation_loss));
    trunk_fit_close(fit);
    free(best);
    free(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(learns_and_restores_the_best),
                                       cmocka_unit_test(patience_ends_a_run),
                                       cmocka_unit_test(every_step_is_bounded),
                                       cmocka_unit_test(votes_start_at_the_constant),
                                       cmocka_unit_test(resumes_bit_for_bit),
                                       cmocka_unit_test(a_process_for_each_step),
                                       cmocka_unit_test(refuses_other_checkpoints),
                                       cmocka_unit_test(refuses_checkpoints_of_another_decision_tree),
                                       cmocka_unit_test(blocks_learn_at_their_rates),
                                       cmocka_unit_test(frozen_stays_frozen),
                                       cmocka_unit_test(shrinks_towards_fresh_values),
                                       cmocka_unit_test(refuses_what_teaches_nothing),
                                       cmocka_unit_test(a_batch_of_one),
                                       cmocka_unit_test(names_the_galaxy_of_a_bad_loss)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
