/* Where a training run starts: random values, the head's constant, and values shrunk towards fresh ones; see trunk_fit.h. */
#include "base/error.h"
#include "base/hash.h"
#include "base/philox.h"
#include "model/likelihood.h"
#include "model/trunk_fit.h"

#include <math.h>
#include <stdlib.h>

#define HEAD_TENSOR 0x10000u /* far behind the tensors of any net */

/* Biases at which the head predicts the best constant: logit((alpha - 1) / 100). */
static int start_at_constant(const struct target *target, const struct trunk_data *data, float *bias)
{
    size_t answers = (size_t)target->outputs;
    float alpha[TARGET_OUTPUTS_MAX];
    uint16_t *votes = malloc((data->train_count + 1) * answers * sizeof *votes);
    if (!votes)
        return error_set(ERROR_SYSTEM, "out of memory for the votes of %zu galaxies", data->train_count);
    for (size_t i = 0; i < data->train_count; i++)
        for (size_t k = 0; k < answers; k++)
            votes[i * answers + k] = (uint16_t)data->labels[data->train_row[i] * answers + k];
    struct vote_rows rows = {votes, answers * sizeof *votes, NULL, data->train_count};
    int result = likelihood_constant_fit(target->schema, &rows, LIKELIHOOD_START_LOWER, LIKELIHOOD_START_UPPER, alpha);
    for (size_t k = 0; k < answers && !result; k++) {
        double share = ((double)alpha[k] - 1) / 100;
        bias[k] = (float)log(share / (1 - share));
    }
    free(votes);
    return result;
}

int trunk_fit_random_head(const struct net *net, const struct target *target, const struct trunk_data *data,
                          uint64_t seed, float *values)
{
    size_t inputs = (size_t)net->outputs, answers = (size_t)target->outputs, count = inputs * answers;
    float *weight = values + net_parameter_count(net), *bias = weight + count;
    float range = 1 / sqrtf((float)inputs);
    for (size_t i = 0; i < count; i++) {
        struct philox random = philox(seed, (uint32_t)(i / 4), HEAD_TENSOR, 0, PHILOX_WEIGHTS);
        weight[i] = range * (2 * philox_uniform(random.word[i % 4]) - 1);
    }
    for (size_t k = 0; k < answers; k++)
        bias[k] = 0;
    return target->kind == TARGET_VOTES ? start_at_constant(target, data, bias) : 0;
}

int trunk_fit_random(const struct net *net, const struct target *target, const struct trunk_data *data, uint64_t seed,
                     float *values)
{
    net_random_parameters(net, seed, values);
    return trunk_fit_random_head(net, target, data, seed, values);
}

uint64_t trunk_fit_fresh_seed(uint64_t seed)
{
    return hash_64(&seed, sizeof seed);
}

static void mix(double share, const float *fresh, size_t count, float *values)
{
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(share * (double)values[i] + (1 - share) * (double)fresh[i]);
}

int trunk_fit_shrink(const struct net *net, const struct target *target, const struct trunk_data *data, uint64_t seed,
                     double share, float *values)
{
    size_t count = trunk_fit_values(net, target), at = 0;
    float *fresh = malloc(count * sizeof *fresh);
    if (!fresh)
        return error_set(ERROR_SYSTEM, "out of memory for the weights of %s", net->name);
    int result = trunk_fit_random(net, target, data, trunk_fit_fresh_seed(seed), fresh);
    for (int i = 0; i < net->layers && !result; i++) {
        const struct layer *layer = &net->layer[i];
        size_t own = layer_parameter_count(layer), statistics = layer->kind == LAYER_BATCH_NORM ? own / 2 : 0;
        mix(share, fresh + at, own - statistics, values + at);
        at += own;
    }
    if (!result)
        mix(share, fresh + at, count - at, values + at); /* the head */
    free(fresh);
    return result;
}
