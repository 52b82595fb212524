/*
 * See evaluate.h. The test galaxies are those no training, stopping or promotion ever looks at; the votes are the
 * catalogue's, not those the service happened to collect.
 */
#include "daemon/evaluate.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/catalogue.h"
#include "cpu/backend_cpu.h"
#include "daemon/exits.h"
#include "daemon/models.h"
#include "daemon/setup.h"
#include "model/likelihood.h"
#include "model/metrics.h"
#include "model/model_file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK      256
#define MODELS_MAX 20000

struct evaluation {
    const struct config *config;
    struct schema schema;
    struct pool pool;
    struct backend_context *context;
    uint64_t *row;   /* [count] test galaxies that the oracle knows */
    uint16_t *votes; /* [count][answers] the oracle's */
    size_t count;
    double constant_nll, constant_nll_unbounded;
};

/* Row of the test galaxy with this id, or -1. The test split is small; a linear look is enough for a report. */
static int64_t find_test_galaxy(const struct evaluation *evaluation, const uint64_t *rows, size_t count,
                                const char *id_str)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(pool_identity(&evaluation->pool, rows[i])->id_str, id_str) == 0)
            return (int64_t)rows[i];
    return -1;
}

static size_t list_test_galaxies(const struct evaluation *evaluation, uint64_t *rows)
{
    size_t count = 0;
    for (uint64_t row = 0; row < pool_rows(&evaluation->pool); row++)
        if (pool_identity(&evaluation->pool, row)->id_str[0] && *pool_embedding_version(&evaluation->pool, row) &&
            pool_state(&evaluation->pool, row)->split == SPLIT_TEST)
            rows[count++] = row;
    return count;
}

static int read_oracle(struct evaluation *evaluation, const char *path)
{
    struct catalogue *catalogue;
    struct catalogue_row read;
    size_t answers = (size_t)evaluation->schema.answers, rows = pool_rows(&evaluation->pool);
    uint64_t *tests = malloc((rows + 1) * sizeof *tests);
    evaluation->row = malloc((rows + 1) * sizeof *evaluation->row);
    if (!tests || !evaluation->row) {
        free(tests);
        return error_set(ERROR_SYSTEM, "out of memory for the test galaxies");
    }
    size_t test_count = list_test_galaxies(evaluation, tests);
    evaluation->votes = calloc((test_count + 1) * answers, sizeof *evaluation->votes);
    int result = catalogue_open(path, &evaluation->schema, &catalogue), got = 0;
    while (!result && evaluation->votes && (got = catalogue_next(catalogue, &read)) > 0) {
        int64_t row = find_test_galaxy(evaluation, tests, test_count, read.id_str);
        if (row < 0 || evaluation->count == test_count)
            continue;
        for (size_t a = 0; a < answers; a++)
            evaluation->votes[evaluation->count * answers + a] = (uint16_t)read.votes[a];
        evaluation->row[evaluation->count++] = (uint64_t)row;
    }
    if (!result) {
        result = got < 0 ? got
                 : catalogue_vote_columns(catalogue)
                     ? 0
                     : error_set(ERROR_INPUT, "%s has no vote columns of schema %s", path, evaluation->schema.name);
        catalogue_close(catalogue);
    }
    free(tests);
    return result || evaluation->count
               ? result
               : error_set(ERROR_STATE, "no embedded test galaxy is in %s (the pool has %zu)", path, test_count);
}

static int evaluate_model(struct evaluation *evaluation, const struct model *model, struct metrics *metrics)
{
    size_t answers = (size_t)evaluation->schema.answers;
    int passes = (int)(evaluation->config->passes - evaluation->config->passes % model->heads.count), result = 0;
    float *dump = malloc(BLOCK * (size_t)passes * answers * sizeof *dump);
    if (!dump)
        return error_set(ERROR_SYSTEM, "out of memory for predictions");
    for (size_t first = 0; first < evaluation->count && !result; first += BLOCK) {
        size_t left = evaluation->count - first, count = left < BLOCK ? left : BLOCK;
        struct score_request request = {.heads = &model->heads,
                                        .schema = &evaluation->schema,
                                        .embedding = pool_embedding(&evaluation->pool, 0),
                                        .embedding_stride_bytes = pool_embedding_stride_bytes(&evaluation->pool),
                                        .row = evaluation->row + first,
                                        .count = count,
                                        .passes = passes,
                                        .seed = model->seed,
                                        .reducer = REDUCE_DUMP,
                                        .output = dump};
        result = backend_cpu.head_score(evaluation->context, &request, NULL, NULL);
        for (size_t i = 0; i < count && !result; i++)
            metrics_add(metrics, &evaluation->schema, dump + i * (size_t)passes * answers, passes,
                        evaluation->votes + (first + i) * answers);
    }
    free(dump);
    return result;
}

/* NLL of the best constant with concentrations in [lower, upper], fitted on these very votes. */
static int evaluate_constant(struct evaluation *evaluation, double lower, double upper, double *nll)
{
    float constant[SCHEMA_ANSWERS_MAX];
    size_t answers = (size_t)evaluation->schema.answers;
    struct vote_rows rows = {evaluation->votes, answers * sizeof(uint16_t), NULL, evaluation->count};
    int result = likelihood_constant_fit(&evaluation->schema, &rows, lower, upper, constant);
    for (size_t i = 0; i < evaluation->count && !result; i++)
        *nll += likelihood_galaxy(&evaluation->schema, constant, evaluation->votes + i * answers) /
                (double)evaluation->count;
    return result;
}

/* Two baselines: the constant a head could predict (its bias starts there), and one free of the heads' range. */
static int evaluate_constants(struct evaluation *evaluation)
{
    int result = evaluate_constant(evaluation, LIKELIHOOD_HEAD_LOWER, LIKELIHOOD_HEAD_UPPER, &evaluation->constant_nll);
    return result ? result
                  : evaluate_constant(evaluation, LIKELIHOOD_FREE_LOWER, LIKELIHOOD_FREE_UPPER,
                                      &evaluation->constant_nll_unbounded);
}

/* Embeddings of trunks long replaced are gone, and with them what their heads would say. */
static int has_embeddings(struct evaluation *evaluation, uint32_t trunk)
{
    pool_use_trunk(&evaluation->pool, trunk);
    for (size_t i = 0; i < evaluation->count; i++)
        if (*pool_embedding_version(&evaluation->pool, evaluation->row[i]) != trunk)
            return 0;
    return 1;
}

static int evaluate_all(struct evaluation *evaluation, json_t *list)
{
    static uint32_t numbers[MODELS_MAX];
    int count = models_list(evaluation->config, numbers, MODELS_MAX), result = count < 0 ? count : 0;
    for (int i = 0; i < count && !result; i++) {
        struct model model = {0};
        struct metrics metrics = {0};
        char path[FILE_PATH_BYTES];
        result = models_path(evaluation->config, numbers[i], path, sizeof path);
        if (!result)
            result = model_load(path, &evaluation->schema, &model);
        int judged = !result && has_embeddings(evaluation, model.trunk_version);
        if (judged)
            result = evaluate_model(evaluation, &model, &metrics);
        if (judged && !result)
            json_array_append_new(
                list, json_pack("{s:I,s:I,s:I,s:f,s:f}", "number", (json_int_t)numbers[i], "parent",
                                (json_int_t)model.parent, "labels",
                                (json_int_t)(model.train_galaxies + model.validation_galaxies + model.gate_galaxies),
                                "nll", metrics_nll(&metrics), "rmse", metrics_rmse(&metrics)));
        model_free(&model);
    }
    return result;
}

static void print_evaluation(const struct evaluation *evaluation, json_t *list, int json)
{
    json_t *model;
    size_t index;
    if (json) {
        json_t *answer = json_pack("{s:I,s:f,s:f,s:O}", "galaxies", (json_int_t)evaluation->count, "constant_nll",
                                   evaluation->constant_nll, "constant_nll_unbounded",
                                   evaluation->constant_nll_unbounded, "models", list);
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(answer);
        return;
    }
    printf("%zu test galaxies; the best constant a head can predict has an NLL of %.4f, the best of all %.4f\n"
           "%6s %8s %10s %10s\n",
           evaluation->count, evaluation->constant_nll, evaluation->constant_nll_unbounded, "model", "labels", "NLL",
           "RMSE");
    json_array_foreach(list, index, model)
        printf("%6lld %8lld %10.4f %10.4f\n", (long long)json_integer_value(json_object_get(model, "number")),
               (long long)json_integer_value(json_object_get(model, "labels")),
               json_real_value(json_object_get(model, "nll")), json_real_value(json_object_get(model, "rmse")));
}

int run_evaluate(const struct config *config, const char *oracle, int json)
{
    static struct evaluation evaluation;
    json_t *list = json_array();
    evaluation = (struct evaluation){.config = config};
    int result = setup_schema(config, &evaluation.schema);
    if (!result)
        result = setup_pool(config, &evaluation.schema, POOL_READ, &evaluation.pool);
    if (!result)
        result = backend_cpu.open((int)config->threads, &evaluation.context);
    if (!result)
        result = read_oracle(&evaluation, oracle);
    if (!result)
        result = evaluate_constants(&evaluation);
    if (!result)
        result = evaluate_all(&evaluation, list);
    if (result)
        fprintf(stderr, "triaged: %s\n", error_message());
    else
        print_evaluation(&evaluation, list, json);
    json_decref(list);
    free(evaluation.row);
    free(evaluation.votes);
    backend_cpu.close(evaluation.context);
    pool_close(&evaluation.pool);
    return exit_code(result);
}

int run_model_summary(const struct config *config, int json)
{
    static const char *const kinds[] = {"convolution", "batch norm", "swish", "squeeze-excite", "add",
                                        "pool",        "bias",       "relu",  "max pool"};
    static struct net net;
    static struct schema schema;
    if (setup_schema(config, &schema) || setup_net(config, &net)) {
        fprintf(stderr, "triaged: %s\n", error_message());
        return EXIT_CONFIG;
    }
    size_t trunk = net_parameter_count(&net), head = (size_t)(net.outputs + 1) * (size_t)schema.answers;
    int side = net.side, before;
    for (int i = 0; i < net.layers && !json; i++) {
        const struct layer *layer = &net.layer[i];
        side = layer_output_side(&net, layer, side, &before);
        printf("%-28s %-15s %4d x %-4d x %-5d %9zu\n", layer->name, kinds[layer->kind], side, side, layer->out,
               layer_parameter_count(layer));
    }
    printf(json ? "{\"network\":\"%s\",\"trunk_parameters\":%zu,\"head_parameters\":%zu,\"heads\":%lld}\n"
                : "%s: trunk %zu parameters, each head %zu, %lld heads\n",
           net.name, trunk, head, (long long)config->heads);
    return EXIT_DONE;
}
