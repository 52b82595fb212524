/*
 * See evaluate.h. The test galaxies are those no training, stopping or promotion ever looks at; the votes are the
 * catalogue's, not those the service happened to collect.
 */
#include "daemon/evaluate.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/catalogue.h"
#include "cpu/backend_cpu.h"
#include "daemon/evaluation.h"
#include "daemon/exits.h"
#include "daemon/models.h"
#include "daemon/setup.h"
#include "model/likelihood.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODELS_MAX 20000

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
            pool_embedding_is_sound(&evaluation->pool, row) && pool_state(&evaluation->pool, row)->split == SPLIT_TEST)
            rows[count++] = row;
    return count;
}

/* Which test galaxies are embedded depends on the trunk; without a champion it is the first one. */
static int use_trunk_of_champion(struct evaluation *evaluation)
{
    uint32_t champion, trunk;
    int result = models_champion(evaluation->config, &champion);
    if (!result && champion) {
        result = models_trunk_of(evaluation->config, &evaluation->schema, champion, &trunk);
        if (!result)
            pool_use_trunk(&evaluation->pool, trunk);
    }
    return result;
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
                     : error_set(ERROR_INPUT,
                                 "%s has no vote columns of decision tree %s: an oracle needs those of instance.schema",
                                 path, evaluation->schema.name);
        catalogue_close(catalogue);
    }
    free(tests);
    return result || evaluation->count
               ? result
               : error_set(ERROR_STATE, "no embedded test galaxy is in %s (the pool has %zu)", path, test_count);
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

/* Two baselines: the best constant in the range of 1 + 100 sigmoid(x), and the best of all. */
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
    static struct judged judged_model;
    int count = models_list(evaluation->config, numbers, MODELS_MAX), result = count < 0 ? count : 0;
    for (int i = 0; i < count && !result; i++) {
        struct model model = {0};
        char path[FILE_PATH_BYTES];
        result = models_path(evaluation->config, numbers[i], path, sizeof path);
        if (!result)
            result = model_load(path, &evaluation->schema, &model);
        int there = !result && has_embeddings(evaluation, model.trunk_version);
        if (there)
            result = evaluation_judge(evaluation, &model.heads, model.seed, &judged_model);
        if (there && !result)
            json_array_append_new(
                list,
                json_pack("{s:I,s:I,s:I,s:f,s:f}", "number", (json_int_t)numbers[i], "parent", (json_int_t)model.parent,
                          "labels",
                          (json_int_t)(model.train_galaxies + model.validation_galaxies + model.gate_galaxies), "nll",
                          metrics_nll(&judged_model.metrics), "rmse", metrics_rmse(&judged_model.metrics)));
        model_free(&model);
    }
    return result;
}

/* NaN where the summary says null. */
static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* The champion in detail, with its concentrations as scaled and as its heads say them. */
static int evaluate_champion(struct evaluation *evaluation, const char *folder, json_t **ret_summary)
{
    static struct judged judged, unscaled;
    struct model model = {0};
    char path[FILE_PATH_BYTES];
    uint32_t number;
    int result = models_champion(evaluation->config, &number);
    if (!result && !number)
        result = error_set(ERROR_STATE, "there is no champion yet: nothing to judge in detail");
    if (!result)
        result = models_path(evaluation->config, number, path, sizeof path);
    if (!result)
        result = model_load(path, &evaluation->schema, &model);
    if (!result && !has_embeddings(evaluation, model.trunk_version))
        result = error_set(ERROR_STATE,
                           "the test galaxies have no embeddings of the champion's trunk %u yet: try again "
                           "when it is in use",
                           model.trunk_version);
    if (!result)
        result = evaluation_judge(evaluation, &model.heads, model.seed, &judged);
    struct head_set plain = model.heads; /* shares the arrays */
    for (int q = 0; q < evaluation->schema.questions; q++)
        plain.factor[q] = 1;
    if (!result)
        result = evaluation_judge(evaluation, &plain, model.seed, &unscaled);
    if (!result)
        result = evaluation_write(evaluation, &model, &judged, &unscaled, folder, ret_summary);
    model_free(&model);
    return result;
}

static void print_champion(const json_t *summary, const char *folder)
{
    const json_t *question;
    size_t index;
    printf("\nchampion, model %lld: NLL %.4f, without its factors %.4f\n%-24s %8s %9s %9s %9s %11s %11s\n",
           (long long)json_integer_value(json_object_get(summary, "model")),
           json_number_value(json_object_get(summary, "nll")),
           json_number_value(json_object_get(summary, "nll_unscaled")), "question", "galaxies", "accuracy", "F1",
           "confident", "calibration", "volunteers");
    json_array_foreach(json_object_get(summary, "questions"), index, question)
    {
        const json_t *all = json_object_get(question, "all");
        printf("%-24s %8lld %9.3f %9.3f %9.3f %11.3f %11.1f\n",
               json_string_value(json_object_get(question, "question")),
               (long long)json_integer_value(json_object_get(all, "galaxies")), number(all, "accuracy"),
               number(all, "f1"), number(json_object_get(question, "confident"), "accuracy"),
               number(question, "calibration_error"), number(question, "volunteers"));
    }
    printf("tables and pictures in %s\n", folder);
}

static void print_evaluation(const struct evaluation *evaluation, json_t *list, json_t *champion, int json)
{
    json_t *model;
    size_t index;
    if (json) {
        json_t *answer = json_pack("{s:I,s:f,s:f,s:O}", "galaxies", (json_int_t)evaluation->count, "constant_nll",
                                   evaluation->constant_nll, "constant_nll_unbounded",
                                   evaluation->constant_nll_unbounded, "models", list);
        if (champion)
            json_object_set(answer, "champion", champion);
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(answer);
        return;
    }
    printf("%zu test galaxies; the best constant with concentrations of 1 to 101 has an NLL of %.4f, the best of all "
           "%.4f\n"
           "%6s %8s %10s %10s\n",
           evaluation->count, evaluation->constant_nll, evaluation->constant_nll_unbounded, "model", "labels", "NLL",
           "RMSE");
    json_array_foreach(list, index, model)
        printf("%6lld %8lld %10.4f %10.4f\n", (long long)json_integer_value(json_object_get(model, "number")),
               (long long)json_integer_value(json_object_get(model, "labels")),
               json_real_value(json_object_get(model, "nll")), json_real_value(json_object_get(model, "rmse")));
}

int run_evaluate(const struct config *config, const char *oracle, const char *out, int json)
{
    static struct evaluation evaluation;
    json_t *list = json_array(), *champion = NULL;
    evaluation = (struct evaluation){.config = config};
    int result = setup_schema(config, &evaluation.schema);
    if (!result)
        result = setup_pool(config, &evaluation.schema, POOL_READ, &evaluation.pool);
    if (!result)
        result = backend_cpu.open((int)config->threads, 1, &evaluation.context);
    if (!result)
        result = use_trunk_of_champion(&evaluation);
    if (!result)
        result = read_oracle(&evaluation, oracle);
    if (!result)
        result = evaluate_constants(&evaluation);
    if (!result)
        result = evaluate_all(&evaluation, list);
    if (!result && out)
        result = evaluate_champion(&evaluation, out, &champion);
    if (result)
        fprintf(stderr, "triaged: %s\n", error_message());
    else
        print_evaluation(&evaluation, list, champion, json);
    if (!result && champion && !json)
        print_champion(champion, out);
    json_decref(champion);
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
    size_t binomial = trunk + 2 * (size_t)(net.outputs + 1); /* as Walmsley et al. 2020 count theirs */
    int side = net.side, before;
    for (int i = 0; i < net.layers && !json; i++) {
        const struct layer *layer = &net.layer[i];
        side = layer_output_side(&net, layer, side, &before);
        printf("%-28s %-15s %4d x %-4d x %-5d %9zu\n", layer->name, kinds[layer->kind], side, side, layer->out,
               layer_parameter_count(layer));
    }
    printf(
        json
            ? "{\"network\":\"%s\",\"trunk_parameters\":%zu,\"head_parameters\":%zu,\"heads\":%lld,"
              "\"with_binomial_head\":%zu}\n"
            : "%s: trunk %zu parameters, each head %zu, %lld heads; with the 2 outputs of a binomial task %zu in all\n",
        net.name, trunk, head, (long long)config->heads, binomial);
    return EXIT_DONE;
}
