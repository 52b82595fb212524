/* Images, weights, models, checkpoints; see fuzz.h. */
#include "base/error.h"
#include "base/hash.h"
#include "connectors/image.h"
#include "connectors/png_write.h"
#include "cpu/backend_cpu.h"
#include "model/model_file.h"
#include "model/safetensors.h"
#include "model/trunk_fit.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/small_nets.h"
#include "tests/support/small_schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch_path[] = "/tmp/triage-fuzz-seed-XXXXXX";

/* A file of our own making, as a seed. */
static const char *scratch(void)
{
    if (scratch_path[sizeof scratch_path - 2] == 'X') {
        int descriptor = mkstemp(scratch_path);
        fuzz_require(descriptor >= 0, "a temporary file");
        close(descriptor);
    }
    return scratch_path;
}

static void take_scratch(struct text *out)
{
    fuzz_read(out, scratch());
    unlink(scratch());
}

/* --- images ----------------------------------------------------------------------------------------------------------- */

void fuzz_image(const uint8_t *bytes, size_t length)
{
    static uint8_t pixels[32 * 32 * 3];
    const char *path = fuzz_file(bytes, length);
    for (int channels = 1; channels <= 3; channels += 2)
        if (image_load(path, 32, channels, pixels))
            fuzz_require(error_message()[0] != 0, "a refused image without a reason");
}

int fuzz_png_seed(int number, struct text *out)
{
    uint8_t pixels[40 * 40 * 3];
    if (number >= 2)
        return 0;
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 37 + i / 40);
    uint8_t *bytes;
    size_t length;
    fuzz_require(png_write(40, 40, number ? 3 : 1, pixels, &bytes, &length) == 0, "a PNG");
    text_append_bytes(out, bytes, length);
    free(bytes);
    return 1;
}

/* --- weights: accepted ones are finite or at least all there ------------------------------------------------------------ */

static struct net net;
static float *parameters;

void fuzz_weights_open(void)
{
    begin_net(&net, "tiny", 1, 8, PADDING_SYMMETRIC);
    add_conv(&net, 1, 2, 3, 2, 1);
    add_layer(&net, LAYER_BATCH_NORM, 2, 2);
    parameters = random_parameters(&net);
}

void fuzz_weights(const uint8_t *bytes, size_t length)
{
    static float *read;
    if (!read)
        read = malloc(net_parameter_count(&net) * sizeof *read);
    safetensors_load(fuzz_file(bytes, length), &net, read);
}

int fuzz_weights_seed(int number, struct text *out)
{
    if (number >= 1)
        return 0;
    fuzz_require(safetensors_save(scratch(), &net, parameters) == 0, "weights");
    take_scratch(out);
    return 1;
}

/* --- models and checkpoints: their checksum is made right, so that mutations get behind it ---------------------------------- */

static struct schema schema;
static uint8_t sealed[FUZZ_BYTES_MAX];

/* Both formats say their length at byte 16 and end with the checksum of all before. */
static const char *seal(const uint8_t *bytes, size_t length)
{
    length = length > sizeof sealed ? sizeof sealed : length;
    memcpy(sealed, bytes, length);
    if (length >= 32) {
        uint64_t stated = length;
        memcpy(sealed + 16, &stated, 8);
        uint64_t checksum = hash_64(sealed, length - 8);
        memcpy(sealed + length - 8, &checksum, 8);
    }
    return fuzz_file(sealed, length);
}

void fuzz_model_open(void)
{
    small_schema(&schema, 2, (int[]){3, 2}, (int[]){-1, 1});
}

void fuzz_model(const uint8_t *bytes, size_t length)
{
    struct model model;
    for (int right = 0; right < 2; right++)
        if (model_load(right ? seal(bytes, length) : fuzz_file(bytes, length), &schema, &model) == 0) {
            fuzz_require(model.heads.answers == schema.answers && strlen(model.schema_name) < SCHEMA_NAME_BYTES,
                         "a model that does not fit its schema");
            model_free(&model);
        }
}

int fuzz_model_seed(int number, struct text *out)
{
    struct model model = {.number = 3, .parent = 2, .trunk_version = 1};
    if (number >= 1)
        return 0;
    snprintf(model.schema_name, sizeof model.schema_name, "%s", schema.name);
    snprintf(model.schema_hash, sizeof model.schema_hash, "%s", schema.hash);
    fuzz_require(head_set_new(2, 3, schema.answers, &model.heads) == 0 && model_save(scratch(), &model) == 0,
                 "a model");
    model_free(&model);
    take_scratch(out);
    return 1;
}

static struct trunk_fit *fit;

static void close_fit(void)
{
    trunk_fit_close(fit);
}

void fuzz_checkpoint_open(void)
{
    static struct backend_context *context;
    static struct net tiny;
    static uint8_t pixels[4][8 * 8];
    static float labels[4][2] = {
        {1, 0},
        {0, 1},
        {1, 0},
        {0, 1}
    };
    static uint64_t key[4] = {1, 2, 3, 4}, row[4] = {0, 1, 2, 3};
    begin_net(&tiny, "tiny", 1, 8, PADDING_SYMMETRIC);
    add_conv(&tiny, 1, 2, 3, 2, 1);
    add_layer(&tiny, LAYER_POOL, 2, 2);
    tiny.outputs = 2;
    const struct target target = {
        .kind = TARGET_CLASSES, .outputs = 2, .class_weight = {1, 1}
    };
    const struct trunk_data data = {.pixels = pixels[0],
                                    .pixels_stride_bytes = sizeof pixels[0],
                                    .pixel_side = 8,
                                    .labels = labels[0],
                                    .key = key,
                                    .train_row = row,
                                    .train_count = 4};
    const struct trunk_recipe recipe = {.learning_rate = 0.001,
                                        .block_decay = 1,
                                        .blocks = 64,
                                        .live_norm = 1,
                                        .batch = 2,
                                        .epochs_max = 3,
                                        .augmentation = AUGMENT_NONE};
    float values[256];
    fuzz_require(trunk_fit_values(&tiny, &target) <= 256, "room for the tiny net");
    fuzz_require(backend_cpu.open(1, 1, &context) == 0 && trunk_fit_random(&tiny, &target, &data, 1, values) == 0 &&
                     trunk_fit_open(&backend_cpu, context, &tiny, &target, &recipe, &data, values, &fit) == 0,
                 error_message());
    atexit(close_fit);
}

void fuzz_checkpoint(const uint8_t *bytes, size_t length)
{
    char means[TRUNK_MEANS_BYTES];
    for (int right = 0; right < 2; right++)
        trunk_fit_load(fit, right ? seal(bytes, length) : fuzz_file(bytes, length), means);
}

int fuzz_checkpoint_seed(int number, struct text *out)
{
    if (number >= 1)
        return 0;
    fuzz_require(trunk_fit_save(fit, scratch()) == 0, "a checkpoint");
    take_scratch(out);
    return 1;
}
