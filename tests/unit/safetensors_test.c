/*
 * Weights in .safetensors: what is written is read back, by us and by the letter of the format; everything that is not
 * exactly the net's weights is refused by name and changes nothing. And the layer table that names them.
 */
#include "model/safetensors.h"
#include "base/error.h"
#include "base/file.h"
#include "tests/support/test_seed.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

static char folder[] = "/tmp/triage-test.XXXXXX";
static char path[64], config[64]; /* config.json beside it */

/* A small net with every kind of tensor: 3 -> 8 channels with a squeeze of 2. */
static void small_net(struct net *net)
{
    *net = (struct net){.name = "small", .channels = 3};
    net->layer[0] = (struct layer){.kind = LAYER_CONV, .in = 3, .out = 8, .kernel = 3, .stride = 2, .groups = 1};
    net->layer[1] = (struct layer){.kind = LAYER_BATCH_NORM, .in = 8, .out = 8};
    net->layer[2] = (struct layer){.kind = LAYER_SWISH, .in = 8, .out = 8};
    net->layer[3] = (struct layer){.kind = LAYER_CONV, .in = 8, .out = 8, .kernel = 5, .stride = 1, .groups = 8};
    net->layer[4] = (struct layer){.kind = LAYER_SE, .in = 8, .out = 8, .reduced = 2};
    const char *names[] = {"conv_stem", "bn1", "act", "blocks.0.0.conv_dw", "blocks.0.0.se"};
    net->layers = 5;
    for (int i = 0; i < net->layers; i++)
        snprintf(net->layer[i].name, sizeof net->layer[i].name, "%s", names[i]);
}
#define SMALL_COUNT (3 * 8 * 9 + 4 * 8 + 8 * 25 + 2 * 8 * 2 + 2 + 8)

static float *numbers(void)
{
    static float values[SMALL_COUNT];
    for (int i = 0; i < SMALL_COUNT; i++)
        values[i] = (float)i * 0.25f - 17;
    return values;
}

/* --- files by hand ------------------------------------------------------------------------------------------------- */

struct contents {
    json_t *header;
    float data[SMALL_COUNT + 64];
    size_t data_bytes;
};

/* The file as the format says, from the net's own tensors. */
static struct contents contents_of(const struct net *net)
{
    struct contents contents = {.header = json_pack("{s:{s:s}}", "__metadata__", "architecture", net->name)};
    struct net_tensor tensor[32];
    int count = net_tensors(net, tensor, 32);
    for (int i = 0; i < count; i++) {
        json_t *shape = json_array();
        for (int k = 0; k < tensor[i].rank; k++)
            json_array_append_new(shape, json_integer(tensor[i].shape[k]));
        json_object_set_new(contents.header, tensor[i].name,
                            json_pack("{s:s,s:o,s:[I,I]}", "dtype", "F32", "shape", shape, "data_offsets",
                                      (json_int_t)(4 * tensor[i].offset),
                                      (json_int_t)(4 * (tensor[i].offset + tensor[i].count))));
    }
    memcpy(contents.data, numbers(), SMALL_COUNT * sizeof(float));
    contents.data_bytes = SMALL_COUNT * sizeof(float);
    return contents;
}

static void write_raw(const void *head, size_t head_bytes, uint64_t said, const void *data, size_t data_bytes)
{
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(said >> (8 * i));
    struct file_part parts[] = {
        {length, 8         },
        {head,   head_bytes},
        {data,   data_bytes}
    };
    assert_int_equal(file_write(path, parts, 3, 0644), 0);
}

static void write_contents(struct contents *contents)
{
    char *text = json_dumps(contents->header, JSON_COMPACT);
    write_raw(text, strlen(text), strlen(text), contents->data, contents->data_bytes);
    free(text);
    json_decref(contents->header);
}

static json_t *entry(struct contents *contents, const char *name)
{
    json_t *found = json_object_get(contents->header, name);
    assert_non_null(found);
    return found;
}

/* The file that was written last is refused, names `words`, and no parameter has changed. */
static void refused(const struct net *net, const char *words)
{
    float parameters[SMALL_COUNT];
    for (int i = 0; i < SMALL_COUNT; i++)
        parameters[i] = -1;
    int result = safetensors_load(path, net, parameters);
    if (result >= 0 || !strstr(error_message(), words))
        fail_msg("%d, not refused with '%s' but: %s", result, words, error_message());
    for (int i = 0; i < SMALL_COUNT; i++)
        assert_true(parameters[i] == -1);
}

/* --- tests ----------------------------------------------------------------------------------------------------------- */

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct net net;
    float parameters[SMALL_COUNT];
    small_net(&net);
    assert_int_equal(net_parameter_count(&net), SMALL_COUNT);
    assert_int_equal(safetensors_save(path, &net, numbers()), 0);
    assert_int_equal(safetensors_load(path, &net, parameters), 0);
    assert_memory_equal(parameters, numbers(), sizeof parameters);

    /* by the letter of the format */
    char *bytes;
    size_t length;
    uint64_t head = 0;
    json_error_t problem;
    assert_int_equal(file_read(path, 1 << 20, &bytes, &length), 0);
    for (int i = 0; i < 8; i++)
        head |= (uint64_t)(unsigned char)bytes[i] << (8 * i);
    json_t *header = json_loadb(bytes + 8, head, 0, &problem);
    assert_non_null(header);
    assert_string_equal(json_string_value(json_object_get(json_object_get(header, "__metadata__"), "architecture")),
                        net.name);
    const json_t *weight = json_object_get(header, "blocks.0.0.se.conv_expand.weight");
    json_int_t shape[4], from, to;
    const char *kind;
    assert_int_equal(json_unpack((json_t *)(uintptr_t)weight, "{s:s,s:[I,I,I,I],s:[I,I]}", "dtype", &kind, "shape",
                                 &shape[0], &shape[1], &shape[2], &shape[3], "data_offsets", &from, &to),
                     0);
    assert_string_equal(kind, "F32");
    assert_true(shape[0] == 8 && shape[1] == 2 && shape[2] == 1 && shape[3] == 1 && to - from == 4 * 16);
    float first;
    memcpy(&first, bytes + 8 + head + from, 4);
    assert_true(first == numbers()[SMALL_COUNT - 8 - 16]);
    assert_int_equal(length, 8 + head + 4 * SMALL_COUNT);
    json_decref(header);
    free(bytes);
}

/* The file as timm would have written it: "architecture" under another name of the same length. */
static void forget_architecture(void)
{
    char *bytes;
    size_t length;
    assert_int_equal(file_read(path, 1 << 26, &bytes, &length), 0);
    char *said = memmem(bytes, 200, "architecture", 12);
    assert_non_null(said);
    memcpy(said, "unrelated_to", 12);
    struct file_part part = {bytes, length};
    assert_int_equal(file_write(path, &part, 1, 0600), 0);
    free(bytes);
}

static void write_config(const char *text)
{
    struct file_part part = {text, strlen(text)};
    assert_int_equal(file_write(config, &part, 1, 0600), 0);
}

static const struct network {
    const char *name, *first, *last;
    int tensors, like; /* like: another one that has the same tensors but other conventions, or itself */
} networks[] = {
    {"efficientnet_b0",       "conv_stem.weight", "bn2.running_var", 5 * 49 + 4 * 16, 4},
    {"efficientnet_lite0",    "conv_stem.weight", "bn2.running_var", 5 * 49,          2},
    {"tf_efficientnet_lite0", "conv_stem.weight", "bn2.running_var", 5 * 49,          1},
    {"walmsley2020",          "conv1.weight",     "dense1.bias",     2 * 7,           3},
    {"tf_efficientnet_b0",    "conv_stem.weight", "bn2.running_var", 5 * 49 + 4 * 16, 0},
};
#define NETWORKS ((int)(sizeof networks / sizeof *networks))

/* Its tensors are named once each and lie behind one another. */
static void check_tensors(const struct network *network, const struct net *net)
{
    struct net_tensor tensor[400];
    int tensors = net_tensors(net, tensor, 400);
    assert_int_equal(tensors, network->tensors);
    assert_string_equal(tensor[0].name, network->first);
    assert_string_equal(tensor[tensors - 1].name, network->last);
    for (int t = 0; t < tensors; t++) {
        assert_int_equal(tensor[t].offset + tensor[t].count,
                         t + 1 < tensors ? tensor[t + 1].offset : net_parameter_count(net));
        for (int u = 0; u < t; u++)
            assert_string_not_equal(tensor[t].name, tensor[u].name);
    }
}

/* The file's parameters as those of another network. */
static int load_as(const struct network *network)
{
    static struct net net;
    assert_int_equal(net_by_name(network->name, 1, 32, &net), 0);
    float *taken = malloc(net_parameter_count(&net) * sizeof *taken);
    int result = safetensors_load(path, &net, taken);
    free(taken);
    return result;
}

/* As timm and Zoobot publish it: the one that config.json names takes it, whatever has the same tensors does not. */
static void check_config(int i, const struct net *net, const float *written)
{
    size_t bytes = net_parameter_count(net) * sizeof(float);
    float *read = malloc(bytes);
    for (int k = 0; k < NETWORKS; k++) {
        char text[128];
        snprintf(text, sizeof text, "{\"architecture\": \"%s\", \"num_features\": 1280}", networks[k].name);
        write_config(text);
        memset(read, 0, bytes);
        assert_int_equal(safetensors_load(path, net, read), k == i ? 0 : ERROR_INPUT);
        assert_int_equal(memcmp(read, written, bytes) == 0, k == i);
        /* and without a right name the tensors would have been taken for those of `like` */
        assert_int_equal(load_as(&networks[k]), k == i || k == networks[i].like ? 0 : ERROR_INPUT);
    }
    write_config("{\"num_features\": 1280}");
    assert_int_equal(safetensors_load(path, net, read), ERROR_INPUT);
    write_config("{");
    assert_int_equal(safetensors_load(path, net, read), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "config.json is no JSON"));
    unlink(config);
    free(read);
}

/* Every network by name: its tensors come back from a file of its own only. */
static void every_network_is_written_and_read(void **state)
{
    static struct net net;
    (void)state;
    for (int i = 0; i < NETWORKS; i++) {
        assert_int_equal(net_by_name(networks[i].name, 1, 32, &net), 0);
        check_tensors(&networks[i], &net);
        size_t count = net_parameter_count(&net);
        float *written = malloc(count * sizeof *written), *read = calloc(count, sizeof *read);
        net_random_parameters(&net, 3, written);
        assert_int_equal(safetensors_save(path, &net, written), 0);
        assert_int_equal(safetensors_load(path, &net, read), 0);
        assert_memory_equal(read, written, count * sizeof *read);
        for (int k = 0; k < NETWORKS; k++) {
            char words[96];
            assert_int_equal(load_as(&networks[k]), k == i ? 0 : ERROR_INPUT);
            snprintf(words, sizeof words, "weights of %s, the network is %s", networks[i].name, networks[k].name);
            if (k != i && !strstr(error_message(), words))
                fail_msg("'%s', wanted '%s'", error_message(), words);
        }
        /* a file that does not say, nor does anything beside it: no network takes it */
        forget_architecture();
        assert_int_equal(safetensors_load(path, &net, read), ERROR_INPUT);
        assert_non_null(strstr(error_message(), "does not say of which network"));
        check_config(i, &net, written);
        free(written);
        free(read);
    }
}

static void zoobots_prefix_counters_and_classifier_are_taken(void **state)
{
    (void)state;
    struct net net;
    float parameters[SMALL_COUNT];
    small_net(&net);
    struct contents contents = contents_of(&net);
    json_t *prefixed = json_object(), *value;
    const char *name;
    char long_name[100];
    json_object_del(contents.header, "__metadata__");
    json_object_foreach(contents.header, name, value)
    {
        snprintf(long_name, sizeof long_name, "encoder.%s", name);
        json_object_set(prefixed, long_name, value);
    }
    json_decref(contents.header);
    contents.header = prefixed;
    json_object_set_new(contents.header, "encoder.bn1.num_batches_tracked",
                        json_pack("{s:s,s:[],s:[I,I]}", "dtype", "I64", "shape", "data_offsets",
                                  (json_int_t)(4 * SMALL_COUNT), (json_int_t)(4 * SMALL_COUNT + 8)));
    json_object_set_new(contents.header, "__metadata__", json_pack("{s:s}", "format", "pt"));
    contents.data_bytes += 8;
    write_contents(&contents);
    write_config("{\"architecture\": \"small\"}");
    if (safetensors_load(path, &net, parameters))
        fail_msg("%s", error_message());
    assert_memory_equal(parameters, numbers(), sizeof parameters);
    unlink(config);
}

/* A file of Python's safetensors (tests/golden/safetensors_file.py), whose tensors lie in another order. */
static void pythons_files_are_read(void **state)
{
    struct net net;
    float parameters[SMALL_COUNT];
    (void)state;
    small_net(&net);
    if (safetensors_load(TEST_FOLDER "/golden/small.safetensors", &net, parameters))
        fail_msg("%s", error_message());
    assert_memory_equal(parameters, numbers(), sizeof parameters);
}

/* A head comes back only for the network, the target and the outputs it was made for. */
static void a_head_is_written_and_read(void **state)
{
    (void)state;
    static const char *const classes[] = {"ring, \"broken\"", "spiral"}, *const others[] = {"spiral", "ring"};
    const struct safetensors_head head = {"classes", classes, 2};
    const struct {
        struct safetensors_head head;
        const char *net, *words;
    } wrong[] = {
        {{"classes", others, 2},   "small", "wanted is [\"spiral\",\"ring\"]"        },
        {{"classes", classes, 1},  "small", "wanted is [\"ring, \\\"broken\\\"\"]"   },
        {{"binomial", classes, 2}, "small", "is a head for classes, not for binomial"},
        {head,                     "tall",  "weights of small, the network is tall"  },
    };
    struct net net;
    small_net(&net);
    net.outputs = 3;
    const float values[8] = {1, 2, 3, 4, 5, 6, -7, 8};
    float read[8] = {0};
    assert_int_equal(safetensors_save_head(path, &net, &head, values), 0);
    assert_int_equal(safetensors_load_head(path, &net, &head, read), 0);
    assert_memory_equal(read, values, sizeof read);
    memset(read, 0, sizeof read);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(net.name, sizeof net.name, "%s", wrong[i].net);
        assert_int_equal(safetensors_load_head(path, &net, &wrong[i].head, read), ERROR_INPUT);
        if (!strstr(error_message(), wrong[i].words))
            fail_msg("'%s', wanted '%s'", error_message(), wrong[i].words);
    }
    small_net(&net);
    refused(&net, "conv_stem.weight is missing"); /* a head is no trunk */
    net.outputs = 4;
    assert_int_equal(safetensors_load_head(path, &net, &head, read), ERROR_INPUT);
    assert_non_null(strstr(error_message(), "classifier.weight has shape [2, 3], this network needs [2, 4]"));
    assert_int_equal(safetensors_save(path, &net, numbers()), 0);
    assert_int_equal(safetensors_load_head(path, &net, &head, read), ERROR_INPUT); /* nor a trunk a head */
    assert_non_null(strstr(error_message(), "is no head"));
    for (int i = 0; i < 8; i++)
        assert_true(read[i] == 0);
}

static void wrong_tensors_are_named(void **state)
{
    (void)state;
    struct net net;
    small_net(&net);
    struct contents contents = contents_of(&net);
    json_object_del(contents.header, "bn1.running_var");
    write_contents(&contents);
    refused(&net, "bn1.running_var");

    contents = contents_of(&net);
    json_object_set(contents.header, "blocks.7.0.conv_pw.weight", entry(&contents, "bn1.bias"));
    write_contents(&contents);
    refused(&net, "blocks.7.0.conv_pw.weight");

    contents = contents_of(&net);
    json_object_set_new(entry(&contents, "conv_stem.weight"), "shape", json_pack("[i,i,i,i]", 8, 1, 9, 3));
    write_contents(&contents);
    refused(&net, "conv_stem.weight");
    assert_non_null(strstr(error_message(), "8, 1, 9, 3")); /* and both shapes */
    assert_non_null(strstr(error_message(), "8, 3, 3, 3"));

    contents = contents_of(&net);
    json_object_set_new(entry(&contents, "bn1.weight"), "dtype", json_string("F16"));
    write_contents(&contents);
    refused(&net, "bn1.weight");
    assert_non_null(strstr(error_message(), "F16"));

    contents = contents_of(&net);
    contents.data[40] = NAN;
    write_contents(&contents);
    refused(&net, "conv_stem.weight");

    contents = contents_of(&net);
    contents.data[3 * 8 * 9 + 2] = INFINITY;
    write_contents(&contents);
    refused(&net, "bn1.weight");

    contents = contents_of(&net);
    json_t *offsets = json_object_get(entry(&contents, "bn1.bias"), "data_offsets");
    json_array_set_new(offsets, 1, json_integer(json_integer_value(json_array_get(offsets, 1)) - 4));
    write_contents(&contents);
    refused(&net, "bn1.bias");

    contents = contents_of(&net);
    json_object_set_new(entry(&contents, "bn1.bias"), "data_offsets",
                        json_pack("[I,I]", (json_int_t)-32, (json_int_t)0));
    write_contents(&contents);
    refused(&net, "bn1.bias");

    contents = contents_of(&net);
    json_object_set_new(entry(&contents, "bn1.bias"), "data_offsets",
                        json_pack("[I,I]", (json_int_t)(4 * SMALL_COUNT), (json_int_t)(4 * SMALL_COUNT + 32)));
    write_contents(&contents);
    refused(&net, "bn1.bias"); /* behind the end of the file */
}

static void headers_that_lie_are_refused(void **state)
{
    (void)state;
    struct net net;
    small_net(&net);
    const char *heads[] = {"", "[]", "3", "{\"bn1.weight\": 5}", "{\"a\": {\"dtype\": 1}}", "{", "{}garbage"};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        write_raw(heads[i], strlen(heads[i]), strlen(heads[i]), numbers(), 4 * SMALL_COUNT);
        refused(&net, path);
    }
    const uint64_t said[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 1ull << 40, 1000000, 3};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        write_raw("{}", 2, said[i], "", 0);
        refused(&net, path);
    }
    struct file_part part = {"{}{}", 4};
    assert_int_equal(file_write(path, &part, 1, 0644), 0);
    refused(&net, path);
    unlink(path);
    float parameters[SMALL_COUNT];
    assert_int_equal(safetensors_load(path, &net, parameters), ERROR_NOT_FOUND);
}

/* Every length the file could be cut to, and random damage: an error or, where only numbers changed, success. */
static void cut_and_damaged_files_never_do_harm(void **state)
{
    (void)state;
    struct net net;
    char *bytes;
    size_t length;
    unsigned random = test_seed();
    small_net(&net);
    assert_int_equal(safetensors_save(path, &net, numbers()), 0);
    assert_int_equal(file_read(path, 1 << 20, &bytes, &length), 0);
    for (size_t cut = 0; cut < length; cut += cut < 1200 ? 7 : 101) {
        FILE *file = fopen(path, "w");
        assert_int_equal(fwrite(bytes, 1, cut, file), cut);
        fclose(file);
        refused(&net, path);
    }
    for (int round = 0; round < 1500; round++) {
        float parameters[SMALL_COUNT];
        char *damaged = malloc(length);
        memcpy(damaged, bytes, length);
        for (int i = 0; i < 1 + round % 3; i++)
            damaged[(size_t)rand_r(&random) % (round % 2 ? 1100 : length)] = (char)rand_r(&random);
        FILE *file = fopen(path, "w");
        assert_int_equal(fwrite(damaged, 1, length, file), length);
        fclose(file);
        free(damaged);
        if (safetensors_load(path, &net, parameters) == 0)
            for (int i = 0; i < SMALL_COUNT; i++)
                assert_true(isfinite(parameters[i]));
    }
    free(bytes);
}

/* Counts by the table of the paper: every block's parameters from its widths alone. */
static void b0_has_the_published_number_of_parameters(void **state)
{
    (void)state;
    static const int stage[][5] = {
        {1, 3, 1, 32,  16 },
        {2, 3, 6, 16,  24 },
        {2, 5, 6, 24,  40 },
        {3, 3, 6, 40,  80 },
        {3, 5, 6, 80,  112},
        {4, 5, 6, 112, 192},
        {1, 3, 6, 192, 320}
    }; /* repeats, kernel, widening, in, out */
    long count = 9 * 32 + 4 * 32 + 320 * 1280 + 4 * 1280;
    for (int s = 0; s < 7; s++)
        for (int b = 0; b < stage[s][0]; b++) {
            long in = b ? stage[s][4] : stage[s][3], wide = in * stage[s][2], narrow = in / 4, out = stage[s][4];
            count += stage[s][2] > 1 ? in * wide + 4 * wide : 0;
            count += wide * stage[s][1] * stage[s][1] + 4 * wide;
            count += 2 * wide * narrow + narrow + wide;
            count += wide * out + 4 * out;
        }
    static struct net net;
    net_efficientnet_b0(1, 224, &net);
    assert_int_equal(net_parameter_count(&net), count);
    assert_int_equal(count, 4048988);
    long statistics = 0;
    for (int i = 0; i < net.layers; i++)
        statistics += net.layer[i].kind == LAYER_BATCH_NORM ? 2 * net.layer[i].out : 0;
    print_message("  %ld with running statistics, %ld trained\n", count, count - statistics);
    net_efficientnet_b0(3, 224, &net);
    assert_int_equal(net_parameter_count(&net), count + 2 * 9 * 32);
    struct net_tensor tensor[400];
    int tensors = net_tensors(&net, tensor, 400);
    assert_int_equal(net_tensors(&net, NULL, 0), tensors);
    for (int i = 1; i < tensors; i++)
        assert_int_equal(tensor[i].offset, tensor[i - 1].offset + tensor[i - 1].count);
    assert_string_equal(tensor[0].name, "conv_stem.weight");
    assert_string_equal(tensor[tensors - 1].name, "bn2.running_var");
}

static void random_weights_are_those_of_the_seed(void **state)
{
    (void)state;
    static struct net net;
    net_efficientnet_b0(1, 64, &net);
    size_t count = net_parameter_count(&net);
    float *one = malloc(count * sizeof *one), *two = malloc(count * sizeof *two);
    net_random_parameters(&net, 5, one);
    net_random_parameters(&net, 5, two);
    assert_memory_equal(one, two, count * sizeof *one);
    net_random_parameters(&net, 6, two);
    struct net_tensor tensor[400];
    int tensors = net_tensors(&net, tensor, 400), small = 0;
    for (int i = 0; i < tensors; i++) {
        const float *values = one + tensor[i].offset;
        double sum = 0, squares = 0, fan_out = 1;
        for (size_t k = 0; k < tensor[i].count; k++) {
            sum += (double)values[k];
            squares += (double)values[k] * (double)values[k];
        }
        if (tensor[i].rank == 1) { /* scales 1 or 0.2, variances 1, everything else 0 */
            assert_true(values[0] == 0 || values[0] == 1 || values[0] == 0.2f);
            small += values[0] == 0.2f;
            continue;
        }
        assert_true(memcmp(values, two + tensor[i].offset, tensor[i].count * sizeof(float)) != 0);
        int depthwise = strstr(tensor[i].name, "conv_dw") != NULL;
        fan_out = (double)tensor[i].shape[2] * tensor[i].shape[3] * (depthwise ? 1 : tensor[i].shape[0]);
        double variance = squares / (double)tensor[i].count, spread = 6 / sqrt((double)tensor[i].count);
        assert_true(fabs(variance * fan_out / 2 - 1) < spread * sqrt(2));
        assert_true(fabs(sum / (double)tensor[i].count) < spread * sqrt(2 / fan_out));
    }
    assert_int_equal(small, 9); /* blocks with a shortcut: all but the first of each stage */
    free(one);
    free(two);
}

/* Convolutions with a bias: Glorot's uniform values, and nothing in the biases. */
static void random_weights_beside_a_bias_are_uniform(void **state)
{
    static struct net net;
    struct net_tensor tensor[20];
    (void)state;
    assert_int_equal(net_by_name("walmsley2020", 1, 64, &net), 0);
    float *values = malloc(net_parameter_count(&net) * sizeof *values);
    net_random_parameters(&net, 5, values);
    int tensors = net_tensors(&net, tensor, 20);
    for (int t = 0; t < tensors; t++) {
        const float *value = values + tensor[t].offset;
        double range =
            sqrt(6.0 / ((tensor[t].shape[0] + tensor[t].shape[1]) * tensor[t].shape[2] * tensor[t].shape[3]));
        double sum = 0, squares = 0, largest = 0, count = (double)tensor[t].count;
        for (size_t k = 0; k < tensor[t].count; k++) {
            sum += (double)value[k];
            squares += (double)value[k] * (double)value[k];
            largest = fmax(largest, fabs((double)value[k]));
        }
        if (tensor[t].rank == 1) {
            assert_true(largest == 0);
            continue;
        }
        assert_true(largest <= range * 1.000001 && largest > 0.98 * range);
        assert_true(fabs(sum / count) < 6 * range / sqrt(3 * count));
        assert_true(fabs(squares / count * 3 / (range * range) - 1) < 6 / sqrt(count));
    }
    free(values);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/w.safetensors", folder);
    snprintf(config, sizeof config, "%s/config.json", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(every_network_is_written_and_read),
        cmocka_unit_test(zoobots_prefix_counters_and_classifier_are_taken),
        cmocka_unit_test(pythons_files_are_read),
        cmocka_unit_test(a_head_is_written_and_read),
        cmocka_unit_test(wrong_tensors_are_named),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(cut_and_damaged_files_never_do_harm),
        cmocka_unit_test(b0_has_the_published_number_of_parameters),
        cmocka_unit_test(random_weights_are_those_of_the_seed),
        cmocka_unit_test(random_weights_beside_a_bias_are_uniform),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
