/*
 * How large the cuda backend makes its plans and blocks, on the stand-in: by the memory of the card; where that is not free, smaller, and
 * said so; on all ranks alike; and with the same results. Sizes of EfficientNet-B0 are held to numbers worked out by hand, and to what
 * docs/gpu.md says of them.
 */
#include "base/error.h"
#include "base/half.h"
#include "gpu/measure.h"
#include "tests/gpu/standin/standin.h"
#include "tests/support/backend_under_test.h"
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

#include <cmocka.h>

#define IMAGES   7
#define SIDE     128
#define CHANNELS 3
#define LARGEST  4 /* TRIAGE_GPU_BATCH of the emulation */
#define ROWS     40
#define INPUTS   256
#define ANSWERS  5
#define PASSES   6
#define SEED     20250131u
#define GB       1e9
#define MIB      1048576.0
#define GIB      1073741824.0

static const struct backend *const cuda = BACKEND_UNDER_TEST;
static struct net net;
static float *parameters, *images;
static size_t outputs;
static char told[8][512];
static int lines;

static void hear(const char *text)
{
    if (lines < 8)
        snprintf(told[lines++], sizeof told[0], "%s", text);
}

static void assert_told(int line, const char *wanted)
{
    assert_in_range(line, 0, lines - 1);
    if (!strstr(told[line], wanted))
        fail_msg("'%s' does not say '%s'", told[line], wanted);
}

static void assert_not_told(int line, const char *unwanted)
{
    assert_in_range(line, 0, lines - 1);
    if (strstr(told[line], unwanted))
        fail_msg("'%s' says '%s'", told[line], unwanted);
}

static int set_up(void **state)
{
    (void)state;
    small_net(&net, CHANNELS, SIDE, PADDING_SAME);
    parameters = random_parameters(&net);
    images = random_images(&net, IMAGES, 1);
    outputs = output_floats(&net);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(parameters);
    free(images);
    return 0;
}

static int clean(void **state)
{
    (void)state;
    standin_set_devices(1);
    standin_set_memory((size_t)4 << 30);
    for (int i = 0; i < 2; i++)
        standin_hold(i, 0);
    lines = 0;
    assert_int_equal(standin_findings(), 0);
    assert_int_equal(standin_device_bytes(), 0);
    assert_int_equal(standin_pinned_bytes(), 0);
    assert_int_equal(standin_handles(), 0);
    return 0;
}

/* Of a plan for exactly so many images (a power of two). */
static size_t plan_bytes(size_t wanted)
{
    struct device_memory plenty = {(size_t)1 << 40, (size_t)1 << 40};
    size_t chosen, bytes;
    assert_int_equal(gpu_measure(&net, PRECISION_FP32, &plenty, wanted, &chosen, &bytes), 0);
    assert_int_equal(chosen, wanted);
    return bytes;
}

/* Embeds all images; the caller frees the outputs. What was pinned in *ret_pinned. */
static float *embed(int devices, size_t *ret_pinned)
{
    struct backend_context *context;
    struct plan *plan;
    float *embedding = calloc(IMAGES * outputs, sizeof(float));
    lines = 0;
    assert_int_equal(cuda->open(1, devices, &context), 0);
    cuda->tell(context, hear);
    size_t before = standin_pinned_bytes();
    assert_int_equal(cuda->compile(context, &net, parameters, PRECISION_FP32, &plan), 0);
    *ret_pinned = standin_pinned_bytes() - before;
    assert_int_equal(cuda->forward(plan, images, IMAGES, embedding), 0);
    cuda->free_plan(plan);
    cuda->close(context);
    return embedding;
}

/* --- batches ------------------------------------------------------------------------------------------------------ */

/* A card of which `images` take just the part that a plan may take: a quarter of nine tenths. */
static size_t card_for(size_t wanted)
{
    return plan_bytes(wanted) * 40 / 9 + 65536;
}

static void a_smaller_card_takes_smaller_batches_and_finds_the_same(void **state)
{
    size_t pinned;
    float *want = embed(1, &pinned);
    (void)state;
    assert_told(0, "for 4 images at a time takes ");
    for (size_t batch = 4; batch >= 1; batch /= 2) {
        char line[64];
        standin_set_memory(card_for(batch));
        float *have = embed(1, &pinned);
        snprintf(line, sizeof line, "for %zu images at a time takes ", batch);
        assert_told(0, line);
        assert_not_told(0, "last bits may differ");
        assert_memory_equal(have, want, IMAGES * outputs * sizeof(float));
        size_t staged = 2 * batch * ((size_t)SIDE * SIDE * CHANNELS + outputs) * sizeof(float);
        assert_in_range(pinned, staged, staged + 2 * batch * 256); /* and how views are looked up */
        snprintf(line, sizeof line, ", and %zu MiB of the host's, pinned", (pinned + 1048575) >> 20);
        assert_told(0, line);
        free(have);
    }
    free(want);
}

/* What others hold of a card changes nothing until too little is left; then that is said. */
static void free_memory_decides_only_where_it_must(void **state)
{
    static const struct {
        double
            left; /* of the card, in parts of what 4 images at a time take at least: two of their plans, and a tenth */
        size_t batch;
    } cases[] = {
        {1.9,  4},
        {1.1,  4},
        {0.95, 2},
        {0.5,  1},
    };
    size_t card = 8 * card_for(4), pinned;
    float *want = embed(1, &pinned);
    (void)state;
    standin_set_memory(card);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[128];
        size_t opened = (size_t)1 << 20; /* GEMM_WORKSPACE_BYTES of the emulation, taken before */
        standin_hold(0, card - opened - (size_t)(cases[i].left * 20 / 9 * (double)plan_bytes(4)));
        float *have = embed(1, &pinned);
        int smaller = cases[i].batch < LARGEST;
        snprintf(line, sizeof line, "for %zu images at a time%s", cases[i].batch,
                 smaller ? " (4 where more memory is free: last bits may differ from those of other batches) takes "
                         : " takes ");
        assert_told(0, line);
        assert_memory_equal(have, want, IMAGES * outputs * sizeof(float));
        free(have);
    }
    free(want);
}

static void all_ranks_take_what_the_least_can(void **state)
{
    size_t card = card_for(4), pinned;
    float *want = embed(1, &pinned);
    (void)state;
    standin_set_devices(2);
    standin_set_memory(card);
    for (int short_of = 0; short_of < 2; short_of++) {
        standin_hold(short_of, card - ((size_t)1 << 20) - plan_bytes(2) * 20 / 9 - 65536);
        float *have = embed(2, &pinned);
        assert_int_equal(lines, 2);
        for (int rank = 0; rank < 2; rank++)
            assert_told(rank, "for 2 images at a time (4 where more memory is free");
        assert_memory_equal(have, want, IMAGES * outputs * sizeof(float));
        standin_hold(short_of, 0);
        free(have);
    }
    free(want);
}

/* --- scoring ------------------------------------------------------------------------------------------------------ */

static size_t pinned_meanwhile;

static int look_at_pinned(void *unused)
{
    (void)unused;
    pinned_meanwhile = standin_pinned_bytes();
    return 0;
}

static void score_on(struct backend_context *context, enum reducer reducer, int votes_due, float *output)
{
    static uint16_t embedding[ROWS * INPUTS], due[ROWS];
    struct schema schema;
    struct head_set heads;
    small_schema(&schema, 2, (int[]){3, 2}, (int[]){-1, 1});
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        embedding[i] = half_from_float(uniform(5, i) - 0.5f);
    for (int i = 0; i < ROWS; i++)
        due[i] = (uint16_t)(1 + i % votes_due);
    assert_int_equal(head_set_new(2, INPUTS, ANSWERS, &heads), 0);
    heads.dropout = 0.2f;
    heads.model = 3;
    head_set_standardise(&heads, embedding, INPUTS * sizeof *embedding, NULL, ROWS);
    head_set_reset(&heads, (float[]){2, 3, 2, 4, 4});
    for (size_t i = 0; i < (size_t)2 * ANSWERS * INPUTS; i++)
        heads.weight[i] = 0.2f * (uniform(6, i) - 0.5f);
    struct score_request request = {.heads = &heads,
                                    .schema = &schema,
                                    .embedding = embedding,
                                    .embedding_stride_bytes = INPUTS * sizeof *embedding,
                                    .count = ROWS,
                                    .passes = PASSES,
                                    .seed = SEED,
                                    .kind = INFORMATION_VOTES,
                                    .votes_due = due,
                                    .reducer = reducer,
                                    .output = output};
    assert_int_equal(cuda->head_score(context, &request, look_at_pinned, NULL), 0);
    head_set_free(&heads);
}

/* Some heads in large batches, so that a slot has some MiB. */
static void fit_on(struct backend_context *context)
{
    static uint16_t embedding[ROWS * INPUTS], votes[ROWS * ANSWERS];
    static uint64_t row[ROWS];
    struct schema schema;
    struct head_set heads;
    struct fit_report report;
    small_schema(&schema, 2, (int[]){3, 2}, (int[]){-1, 1});
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        embedding[i] = half_from_float(uniform(5, i) - 0.5f);
    for (size_t i = 0; i < ROWS * ANSWERS; i++)
        votes[i] = (uint16_t)(40 * uniform(7, i));
    for (uint64_t i = 0; i < ROWS; i++)
        row[i] = i;
    assert_int_equal(head_set_new(2, INPUTS, ANSWERS, &heads), 0);
    head_set_standardise(&heads, embedding, INPUTS * sizeof *embedding, NULL, ROWS);
    head_set_reset(&heads, (float[]){2, 3, 2, 4, 4});
    struct fit_request request = {.schema = &schema,
                                  .embedding = embedding,
                                  .embedding_stride_bytes = INPUTS * sizeof *embedding,
                                  .votes = votes,
                                  .votes_stride_bytes = ANSWERS * sizeof *votes,
                                  .train_row = row,
                                  .train_count = ROWS,
                                  .seed = SEED,
                                  .learning_rate = 0.003f,
                                  .bias_rate = 0.03f,
                                  .batch = 1024,
                                  .epochs_max = 4,
                                  .patience = 4,
                                  .stop = look_at_pinned};
    assert_int_equal(cuda->head_fit(context, &request, &heads, &report), 0);
    head_set_free(&heads);
}

static void score(int devices, float *information)
{
    struct backend_context *context;
    lines = 0;
    assert_int_equal(cuda->open(1, devices, &context), 0);
    cuda->tell(context, hear);
    score_on(context, REDUCE_INFORMATION, 40, information);
    cuda->close(context);
}

/* Blocks of 32 rows, or of 16 where one card of two has no room for 32; the bits are the same. */
static void blocks_of_scoring_follow_the_card_too(void **state)
{
    static float want[ROWS * 64], have[ROWS * 64];
    (void)state;
    score(1, want);
    assert_told(0, "scoring 32 galaxies at a time with 6 passes takes ");
    standin_set_devices(2);
    standin_set_memory((size_t)1 << 30);
    standin_hold(0, (size_t)1 << 29); /* half a card is left: still 32 */
    score(2, have);
    assert_told(0, "scoring 32 galaxies at a time with");
    assert_told(1, "scoring 32 galaxies at a time with");
    assert_memory_equal(have, want, sizeof want);
    int smaller = 0;
    for (size_t left = 3 << 20; !smaller && left > (size_t)1 << 20; left -= 16384) {
        standin_hold(1, ((size_t)1 << 30) - left);
        score(2, have);
        smaller = strstr(told[1], "scoring 16 galaxies at a time") != NULL;
        if (smaller) {
            assert_told(0, "scoring 16 galaxies at a time (32 where more memory is free: last bits may differ");
            assert_told(1, "scoring 16 galaxies at a time (32 where more memory is free: last bits may differ");
        }
        assert_memory_equal(have, want, sizeof want);
    }
    assert_true(smaller);
}

/* --- what is told -------------------------------------------------------------------------------------------------- */

/* Of a service that ranks again and again, in two ways each time. */
static void what_was_told_is_told_again_only_when_it_grows(void **state)
{
    static float output[ROWS * 64];
    struct backend_context *context;
    (void)state;
    assert_int_equal(cuda->open(1, 1, &context), 0);
    cuda->tell(context, hear);
    for (int ranking = 0; ranking < 3; ranking++) {
        score_on(context, REDUCE_INFORMATION, ranking == 1 ? 2 : 20, output);
        score_on(context, REDUCE_DUMP, 20, output);
    }
    assert_int_equal(lines, 2);
    assert_told(0, "with 6 passes takes ");
    assert_told(1, "with 6 passes, each of them kept, takes ");
    score_on(context, REDUCE_INFORMATION, 40, output);
    assert_int_equal(lines, 3);
    cuda->close(context);
}

static void assert_told_pinned(int line, size_t bytes)
{
    char text[64];
    assert_true(bytes > 0);
    snprintf(text, sizeof text, ", and %zu MiB of the host's, pinned", (bytes + 1048575) >> 20);
    assert_told(line, text);
}

static void pinned_memory_is_told_of_every_job(void **state)
{
    static float output[ROWS * 64];
    struct backend_context *context;
    struct training *training;
    (void)state;
    assert_int_equal(cuda->open(1, 1, &context), 0);
    cuda->tell(context, hear);
    size_t before = standin_pinned_bytes();
    assert_int_equal(cuda->open_training(context, &net, 16, &training), 0);
    assert_told_pinned(0, standin_pinned_bytes() - before);
    assert_true(standin_pinned_bytes() - before > (size_t)3 << 20);
    cuda->close_training(training);
    score_on(context, REDUCE_INFORMATION, 40, output);
    assert_told_pinned(1, pinned_meanwhile - before);
    fit_on(context);
    assert_told_pinned(2, pinned_meanwhile - before);
    assert_true(pinned_meanwhile - before > (size_t)2 << 20);
    cuda->close(context);
}

/* Where one rank has no room nobody has taken any. */
static void ranks_ask_all_before_one_takes(void **state)
{
    struct backend_context *context;
    struct training *training;
    (void)state;
    standin_set_devices(2);
    assert_int_equal(cuda->open(1, 2, &context), 0);
    cuda->tell(context, hear);
    size_t before = standin_peak_bytes();
    standin_hold(1, ((size_t)4 << 30) - ((size_t)2 << 20));
    assert_int_equal(cuda->open_training(context, &net, 2 * LARGEST, &training), ERROR_LIMIT);
    assert_int_equal(lines, 0);
    assert_int_equal(standin_peak_bytes(), before);
    cuda->close(context);
}

/* --- what cuDNN takes ---------------------------------------------------------------------------------------------- */

/* Fewer than 2^31 values of a map: the stem makes 256 x 512 x 512 x 32 of 1,024 pixels, which are as many, however much memory there is. */
static void maps_are_no_larger_than_cudnn_takes(void **state)
{
    struct device_memory plenty = {(size_t)1 << 40, (size_t)1 << 40};
    struct backend_context *context;
    struct training *training;
    size_t chosen, bytes;
    struct net b0;
    (void)state;
    assert_int_equal(net_by_name("efficientnet_b0", 1, 1008, &b0), 0);
    assert_int_equal(gpu_measure(&b0, PRECISION_BF16, &plenty, 256, &chosen, &bytes), 0);
    assert_int_equal(chosen, 256);
    assert_int_equal(net_by_name("efficientnet_b0", 1, 1024, &b0), 0);
    assert_int_equal(gpu_measure(&b0, PRECISION_BF16, &plenty, 256, &chosen, &bytes), 0);
    assert_int_equal(chosen, 128);
    assert_int_equal(cuda->open(1, 1, &context), 0);
    assert_int_equal(cuda->open_training(context, &b0, 256, &training), ERROR_LIMIT);
    assert_non_null(strstr(error_message(), "cuDNN takes fewer than 2^31 values"));
    cuda->close(context);
}

/* --- EfficientNet-B0 at 224 pixels --------------------------------------------------------------------------------- */

/*
 * Per image: two slots with the image and its bytes (up to 4 per value); the largest maps that live together are the first expansion (112 x
 * 112 x 96) and what its depthwise convolution makes of it (56 x 56 x 96); in bfloat16 the stem's output (112 x 112 x 32) as floats
 * too; outputs, sums, means and gates of at most 1,280 channels. Beside them 4.0 million weights, and a workspace.
 */
static double image_bytes(int channels, enum precision precision)
{
    double slots = 4.0 * 224 * 224 * channels * 4, maps = (112.0 * 112 + 56 * 56) * 96,
           vectors = 1280 * (2 * 4 + 8 + 4 + 4) + 48 * 4;
    return slots + maps * (precision == PRECISION_BF16 ? 2 : 4) +
           (precision == PRECISION_BF16 ? 112.0 * 112 * 32 * 4 : 0) + vectors;
}

static double bytes_by_hand(int channels, enum precision precision, double batch)
{
    return batch * image_bytes(channels, precision) + 4.0e6 * 4 + MIB;
}

static void assert_near(double have, double want, double within)
{
    if (!(fabs(have - want) <= within))
        fail_msg("%g is not within %g of %g", have, within, want);
}

static void plans_of_efficientnet_on_cards(void **state)
{
    static const double cards[] = {2, 4, 16, 80};
    static const enum precision precisions[] = {PRECISION_FP32, PRECISION_BF16};
    size_t smallest = 256, largest = 0;
    struct net b0;
    (void)state;
    for (int channels = 1; channels <= 3; channels += 2)
        for (int p = 0; p < 2; p++)
            for (int c = 0; c < 4; c++) {
                size_t bytes, chosen, card = (size_t)(cards[c] * GB), want = 256;
                struct device_memory memory = {card, card - (size_t)(0.6 * GB)}; /* the runtime has its share already */
                assert_int_equal(net_by_name("efficientnet_b0", channels, 224, &b0), 0);
                assert_int_equal(gpu_measure(&b0, precisions[p], &memory, 256, &chosen, &bytes), 0);
                while (bytes_by_hand(channels, precisions[p], (double)want) > 0.9 / 4 * (double)card)
                    want /= 2;
                if (chosen != want)
                    fail_msg("%g GB, %d channels: %zu images, by hand %zu", cards[c], channels, chosen, want);
                assert_near((double)bytes / bytes_by_hand(channels, precisions[p], (double)want), 1, 0.01);
                smallest = want < smallest ? want : smallest;
                largest = want > largest ? want : largest;
            }
    assert_int_equal(smallest, 32);
    assert_int_equal(largest, 256);
}

/* MiB that a training takes, from the error where it does not fit. */
static double training_mib(const struct net *of, size_t batch)
{
    struct backend_context *context;
    struct training *training;
    standin_set_memory((size_t)100 << 20);
    assert_int_equal(cuda->open(1, 1, &context), 0);
    assert_int_equal(cuda->open_training(context, of, batch, &training), ERROR_LIMIT);
    const char *needs = strstr(error_message(), "needs ");
    assert_non_null(needs);
    double mib = strtod(needs + strlen("needs "), NULL);
    cuda->close(context);
    return mib;
}

/* docs/gpu.md, "Memory is planned": grey images. On a device cuDNN may have a workspace of 256 MiB, here of one. */
static void what_the_documents_say_of_memory(void **state)
{
    const double workspace = 255, runtime = 500; /* MiB; what the runtime takes is a guess */
    struct device_memory plenty = {(size_t)1 << 40, (size_t)1 << 40}, small = {(size_t)(2 * GB), (size_t)(1.4 * GB)};
    size_t chosen, bytes;
    struct net b0;
    (void)state;
    assert_int_equal(net_by_name("efficientnet_b0", 1, 224, &b0), 0);
    assert_int_equal(gpu_measure(&b0, PRECISION_BF16, &plenty, 256, &chosen, &bytes), 0);
    assert_near(((double)bytes + workspace * MIB) / GIB, 1.6, 0.05);
    assert_int_equal(gpu_measure(&b0, PRECISION_FP32, &plenty, 256, &chosen, &bytes), 0);
    assert_near(((double)bytes + workspace * MIB) / GIB, 1.9, 0.05);
    double plan_256 = (double)bytes / MIB + workspace;
    assert_near((training_mib(&b0, 32) - training_mib(&b0, 16)) / 16, 62, 0.5);
    assert_near(training_mib(&b0, 32) / 1024, 2, 0.05);
    assert_int_equal(gpu_measure(&b0, PRECISION_FP32, &small, 256, &chosen, &bytes), 0);
    double plan_2 = (double)bytes / MIB + workspace;
    assert_true(training_mib(&b0, 8) + workspace <= 0.9 * (2 * GB / MIB - runtime - plan_2));
    assert_true(training_mib(&b0, 32) > 0.9 * (2 * GB / MIB - plan_2));
    assert_true(training_mib(&b0, 32) <= 0.9 * (4 * GB / MIB - runtime - plan_256 / 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_smaller_card_takes_smaller_batches_and_finds_the_same, clean),
        cmocka_unit_test_teardown(free_memory_decides_only_where_it_must, clean),
        cmocka_unit_test_teardown(all_ranks_take_what_the_least_can, clean),
        cmocka_unit_test_teardown(blocks_of_scoring_follow_the_card_too, clean),
        cmocka_unit_test_teardown(what_was_told_is_told_again_only_when_it_grows, clean),
        cmocka_unit_test_teardown(pinned_memory_is_told_of_every_job, clean),
        cmocka_unit_test_teardown(ranks_ask_all_before_one_takes, clean),
        cmocka_unit_test_teardown(maps_are_no_larger_than_cudnn_takes, clean),
        cmocka_unit_test_teardown(plans_of_efficientnet_on_cards, clean),
        cmocka_unit_test_teardown(what_the_documents_say_of_memory, clean),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
