/* See reference_heads.h. */
#include "tests/support/reference_heads.h"
#include "base/half.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double concentration(double x)
{
    return 1 + 100 / (1 + exp(-x));
}

/* d ln Gamma(x) / dx as the sum of 1/(x+i) up to large arguments, where ln x - 1/2x - 1/12x^2 is exact. */
static double slope_of_log_gamma(double x)
{
    double sum = 0;
    for (; x < 1000; x++)
        sum += 1 / x;
    return log(x) - 1 / (2 * x) - 1 / (12 * x * x) - sum;
}

static double uniform(uint64_t seed, int element, uint32_t c1, uint32_t c2, uint32_t c3)
{
    return (double)philox_uniform(philox(seed, (uint32_t)element / 4, c1, c2, c3).word[element % 4]);
}

/* Standardised inputs of a row as the backends see them, without dropout. */
static void inputs_of(const struct head_set *heads, const uint16_t *embedding, size_t stride_bytes, uint64_t row,
                      uint64_t view, double *z)
{
    const uint16_t *values =
        (const uint16_t *)((const char *)embedding + row * stride_bytes) + view * (uint64_t)heads->inputs;
    for (int i = 0; i < heads->inputs; i++)
        z[i] = ((double)half_to_float(values[i]) - (double)heads->shift[i]) * (double)heads->scale[i];
    double squares = 0;
    for (int i = 0; i < heads->inputs; i++)
        squares += z[i] * z[i];
    for (int i = 0; i < heads->inputs && heads->unit_length; i++)
        z[i] *= sqrt(heads->inputs / squares);
}

static void adam(double *weight, double *first, double *second, double gradient, double rate, double decay, double t)
{
    *first = 0.9 * *first + 0.1 * gradient;
    *second = 0.999 * *second + 0.001 * gradient * gradient;
    double mean = *first / (1 - pow(0.9, t)), square = *second / (1 - pow(0.999, t));
    *weight = *weight - rate * decay * *weight - rate * mean / (sqrt(square) + 1e-8);
}

/* dNLL / dalpha of all questions, from the digamma form of the gradient. */
static void likelihood_slopes(const struct schema *schema, const double *alpha, const uint16_t *votes, double *slope)
{
    for (int q = 0; q < schema->questions; q++) {
        int first = schema->question[q].first, last = first + schema->question[q].count;
        double total = 0, count = 0;
        for (int a = first; a < last; a++) {
            total += alpha[a];
            count += votes[a];
        }
        for (int a = first; a < last; a++)
            slope[a] = -(slope_of_log_gamma(total) - slope_of_log_gamma(count + total) +
                         slope_of_log_gamma(votes[a] + alpha[a]) - slope_of_log_gamma(alpha[a]));
    }
}

/* One head as doubles: [answers][inputs + 1], bias last. */
struct plain {
    double *weight, *first, *second, *gradient;
};

static void fit_step(const struct fit_request *request, struct head_set *heads, struct plain *plain, int head,
                     const uint64_t *row, size_t rows, uint64_t step)
{
    int inputs = heads->inputs, answers = heads->answers, width = inputs + 1;
    double z[HEAD_INPUTS_MAX + 1], alpha[SCHEMA_ANSWERS_MAX], slope[SCHEMA_ANSWERS_MAX];
    memset(plain->gradient, 0, (size_t)(answers * width) * sizeof(double));
    for (size_t r = 0; r < rows; r++) {
        inputs_of(heads, request->embedding, request->embedding_stride_bytes, row[r],
                  request->views ? (row[r] + step) % (uint64_t)request->views : 0, z);
        for (int i = 0; i < inputs; i++) {
            double u =
                uniform(request->seed, i, (uint32_t)row[r] + 1, (uint32_t)step, (uint32_t)head << 8 | PHILOX_TRAIN);
            z[i] *= u < (double)heads->dropout ? 0 : 1 / (1 - (double)heads->dropout);
        }
        z[inputs] = 1;
        for (int a = 0; a < answers; a++) {
            double x = 0;
            for (int i = 0; i < width; i++)
                x += plain->weight[a * width + i] * z[i];
            alpha[a] = concentration(x);
        }
        const char *votes = (const char *)request->votes + row[r] * request->votes_stride_bytes;
        likelihood_slopes(request->schema, alpha, (const uint16_t *)votes, slope);
        for (int a = 0; a < answers; a++) {
            double sigmoid = (alpha[a] - 1) / 100, part = 100 * sigmoid * (1 - sigmoid) / (double)rows;
            if (request->bagging) { /* Exp(1) by inversion, from the middle of each of 2^32 steps */
                uint32_t word =
                    philox(request->seed, (uint32_t)row[r], (uint32_t)(row[r] >> 32), (uint32_t)head, PHILOX_BAG)
                        .word[0];
                part *= -log((word + 0.5) / 4294967296.0);
            }
            for (int i = 0; i < width; i++)
                plain->gradient[a * width + i] += slope[a] * part * z[i];
        }
    }
    for (int j = 0; j < answers * width; j++)
        adam(plain->weight + j, plain->first + j, plain->second + j, plain->gradient[j],
             (double)(j % width == inputs ? request->bias_rate : request->learning_rate),
             j % width == inputs ? 0 : (double)request->weight_decay, (double)step + 1);
}

static void copy_head(struct head_set *heads, struct plain *plain, int head, int out)
{
    int width = heads->inputs + 1;
    for (int a = 0; a < heads->answers; a++)
        for (int i = 0; i < width; i++) {
            int output = head * heads->answers + a, j = a * width + i, moment = output * width + i;
            float *weight = i < heads->inputs ? heads->weight + output * heads->inputs + i : heads->bias + output;
            if (out) {
                *weight = (float)plain->weight[j];
                heads->moment1[moment] = (float)plain->first[j];
                heads->moment2[moment] = (float)plain->second[j];
            } else {
                plain->weight[j] = (double)*weight;
                plain->first[j] = (double)heads->moment1[moment];
                plain->second[j] = (double)heads->moment2[moment];
            }
        }
}

void reference_head_fit(const struct fit_request *request, int epochs, struct head_set *heads)
{
    size_t size = (size_t)heads->answers * ((size_t)heads->inputs + 1), batch = (size_t)request->batch;
    struct plain plain = {calloc(size, 8), calloc(size, 8), calloc(size, 8), calloc(size, 8)};
    uint64_t *order = calloc(request->train_count, sizeof *order), step = heads->step;
    for (int head = 0; head < heads->count; head++) {
        step = heads->step;
        copy_head(heads, &plain, head, 0);
        for (int epoch = 0; epoch < epochs; epoch++) {
            memcpy(order, request->train_row, request->train_count * sizeof *order);
            uint32_t epoch_step = (uint32_t)step;
            for (size_t i = request->train_count - 1; i > 0; i--) {
                uint64_t word = philox(request->seed, (uint32_t)i, (uint32_t)head, epoch_step, PHILOX_SHUFFLE).word[0];
                size_t j = (size_t)(word * (i + 1) >> 32);
                uint64_t kept = order[i];
                order[i] = order[j];
                order[j] = kept;
            }
            for (size_t at = 0; at < request->train_count; at += batch, step++) {
                size_t left = request->train_count - at;
                fit_step(request, heads, &plain, head, order + at, left < batch ? left : batch, step);
            }
        }
        copy_head(heads, &plain, head, 1);
    }
    heads->step = step;
    free(order);
    free(plain.weight);
    free(plain.first);
    free(plain.second);
    free(plain.gradient);
}

struct information reference_beta_binomial(const double *a, const double *b, int passes, int votes)
{
    struct information information = {0, 0};
    for (int k = 0; k <= votes; k++) {
        double mean = 0;
        for (int t = 0; t < passes; t++) {
            double log_p = lgamma(votes + 1) - lgamma(k + 1) - lgamma(votes - k + 1) + lgamma(k + a[t]) +
                           lgamma(votes - k + b[t]) - lgamma(votes + a[t] + b[t]) + lgamma(a[t] + b[t]) - lgamma(a[t]) -
                           lgamma(b[t]);
            mean += exp(log_p) / passes;
            information.expected -= exp(log_p) * log_p / passes;
        }
        information.total -= mean > 0 ? mean * log(mean) : 0;
    }
    return information;
}

static double plogp(double p)
{
    return p > 0 ? p * log(p) : 0;
}

/* alpha [passes][answers of the galaxy], `answers` of them from `first` on. */
static struct information one_vote(const double *alpha, int stride, int first, int answers, int passes)
{
    struct information information = {0, 0};
    for (int a = 0; a < answers; a++) {
        double mean = 0;
        for (int t = 0; t < passes; t++) {
            double sum = 0;
            for (int other = 0; other < answers; other++)
                sum += alpha[t * stride + first + other];
            double p = alpha[t * stride + first + a] / sum;
            mean += p / passes;
            information.expected -= plogp(p) / passes;
        }
        information.total -= plogp(mean);
    }
    return information;
}

static struct information binomial(const double *rho, int passes, int votes)
{
    struct information information = {0, 0};
    for (int k = 0; k <= votes; k++) {
        double mean = 0;
        for (int t = 0; t < passes; t++) {
            double p = exp(lgamma(votes + 1) - lgamma(k + 1) - lgamma(votes - k + 1) + k * log(rho[t]) +
                           (votes - k) * log(1 - rho[t]));
            mean += p / passes;
            information.expected -= p * log(p + 1e-12) / passes;
        }
        information.total -= mean * log(mean + 1e-12);
    }
    return information;
}

static struct information question(enum information_kind kind, const double *alpha, int stride,
                                   const struct question *asked, int passes, int votes)
{
    double a[INFORMATION_PASSES_MAX], b[INFORMATION_PASSES_MAX];
    struct information best = {0, -1};
    if (kind != INFORMATION_BINOMIAL && (kind == INFORMATION_ONE_VOTE || votes == 1))
        return one_vote(alpha, stride, asked->first, asked->count, passes);
    for (int answer = 0; answer < asked->count; answer++) {
        for (int t = 0; t < passes; t++) {
            double sum = 0;
            for (int other = 0; other < asked->count; other++)
                sum += alpha[t * stride + asked->first + other];
            a[t] = alpha[t * stride + asked->first + answer];
            b[t] = sum - a[t];
            if (kind == INFORMATION_BINOMIAL)
                a[t] /= sum;
        }
        if (kind == INFORMATION_BINOMIAL)
            return binomial(a, passes, votes);
        struct information one = reference_beta_binomial(a, b, passes, votes);
        if (best.expected < 0 || one.total - one.expected > best.total - best.expected)
            best = one;
    }
    return best;
}

static void inform(const struct score_request *request, const double *alpha, int votes, float *output)
{
    const struct schema *schema = request->schema;
    double fraction[SCHEMA_ANSWERS_MAX], total = 0, expected = 0;
    votes = votes < 1 ? 1 : votes > INFORMATION_VOTES_MAX ? INFORMATION_VOTES_MAX : votes;
    for (int q = 0; q < schema->questions; q++) {
        const struct question *asked = &schema->question[q];
        struct information information = question(request->kind, alpha, schema->answers, asked, request->passes, votes);
        double reached = 1;
        for (int a = asked->first; a < asked->first + asked->count; a++) {
            fraction[a] = 0;
            for (int t = 0; t < request->passes; t++) {
                double sum = 0;
                for (int other = asked->first; other < asked->first + asked->count; other++)
                    sum += alpha[t * schema->answers + other];
                fraction[a] += alpha[t * schema->answers + a] / sum / request->passes;
            }
            output[2 + a] = (float)fraction[a];
        }
        for (int parent = asked->parent; parent >= 0; parent = schema->question[schema->answer[parent].question].parent)
            reached *= fraction[parent];
        output[2 + schema->answers + q] = (float)information.total;
        output[2 + schema->answers + schema->questions + q] = (float)information.expected;
        total += reached * information.total;
        expected += reached * information.expected;
    }
    output[0] = (float)total;
    output[1] = (float)expected;
}

/* All passes of one galaxy -> concentrations [passes][answers]. */
static void passes_of(const struct score_request *request, uint64_t row, double *alpha)
{
    double z[HEAD_INPUTS_MAX];
    const struct head_set *heads = request->heads;
    int passes_per_head = request->passes / heads->count;
    for (int t = 0; t < request->passes; t++) {
        int head = t / passes_per_head, pass = t % passes_per_head;
        inputs_of(heads, request->embedding, request->embedding_stride_bytes, row,
                  request->views ? (uint64_t)(t % request->views) : 0, z);
        for (int a = 0; a < heads->answers; a++) {
            int output = head * heads->answers + a;
            double x = (double)heads->bias[output];
            for (int i = 0; i < heads->inputs; i++) {
                double u = uniform(request->seed, i, (uint32_t)pass, (uint32_t)head, heads->model << 4 | PHILOX_SCORE);
                if (u >= (double)heads->dropout)
                    x += (double)heads->weight[output * heads->inputs + i] * z[i] / (1 - (double)heads->dropout);
            }
            alpha[t * heads->answers + a] =
                concentration(x) * (double)heads->factor[request->schema->answer[a].question];
        }
    }
}

void reference_head_score(const struct score_request *request)
{
    const struct head_set *heads = request->heads;
    size_t dump = (size_t)request->passes * (size_t)heads->answers;
    size_t row_floats = (size_t)information_row_floats(request->schema);
    double *alpha = calloc(dump, sizeof *alpha);
    for (size_t g = 0; g < request->count; g++) {
        passes_of(request, request->row ? request->row[g] : g, alpha);
        if (request->reducer == REDUCE_INFORMATION)
            inform(request, alpha, request->votes_due[g], request->output + g * row_floats);
        for (size_t i = 0; request->reducer == REDUCE_DUMP && i < dump; i++)
            request->output[g * dump + i] = (float)alpha[i];
    }
    free(alpha);
}
