/* What a run sees and how it is judged, some galaxies at a time; see trunk_fit.h. Not for learning (trunk_fit.c). */
#include "base/error.h"
#include "model/trunk_fit_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VIEW_PREDICT 0x40000000 /* views of predictions are not those of training */

/* --- images and head ---------------------------------------------------------------------------------------------- */

size_t trunk_fit_image_floats(const struct trunk_fit *fit)
{
    return (size_t)fit->net.side * (size_t)fit->net.side * (size_t)fit->net.channels;
}

struct stored_views trunk_fit_views(const struct trunk_fit *fit, const uint64_t *row, size_t count, int view)
{
    for (size_t n = 0; n < count; n++)
        fit->batch_key[n] = fit->data.key[row[n]];
    return (struct stored_views){.pixels = fit->data.pixels,
                                 .stride_bytes = fit->data.pixels_stride_bytes,
                                 .pixel_side = fit->data.pixel_side,
                                 .row = row,
                                 .key = fit->batch_key,
                                 .augmentation = fit->recipe.augmentation,
                                 .seed = fit->recipe.seed,
                                 .view = view};
}

/* outputs = weight * inputs + bias, galaxy by galaxy. */
void trunk_fit_head(const struct trunk_fit *fit, const float *values, const float *inputs, size_t count, float *outputs)
{
    size_t width = (size_t)fit->net.outputs, answers = (size_t)fit->target.outputs;
    const float *weight = values + fit->trunk_count, *bias = weight + answers * width;
    for (size_t n = 0; n < count; n++)
        for (size_t k = 0; k < answers; k++) {
            double sum = (double)bias[k];
            for (size_t i = 0; i < width; i++)
                sum += (double)(weight[k * width + i] * inputs[n * width + i]);
            outputs[n * answers + k] = (float)sum;
        }
}

/* --- predicting and judging --------------------------------------------------------------------------------------- */

/* Outputs of rows under `values`, in the network's own terms. */
static int run_rows(const struct trunk_fit *fit, struct plan *plan, const float *values, const uint64_t *row,
                    size_t count, int view)
{
    struct stored_views views = trunk_fit_views(fit, row, count, view);
    int result =
        stored_views_forward(fit->backend, fit->context, &fit->net, plan, &views, count, fit->images, fit->embeddings);
    if (!result)
        trunk_fit_head(fit, values, fit->embeddings, count, fit->outputs);
    return result;
}

int trunk_fit_predict(const struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count, int views,
                      float *predictions)
{
    size_t answers = (size_t)fit->target.outputs, block = (size_t)fit->batch;
    float one[TARGET_OUTPUTS_MAX];
    struct plan *plan;
    int result = fit->backend->compile(fit->context, &fit->net, values, PRECISION_FP32, &plan),
        rounds = views > 1 ? views : 1;
    if (result)
        return result;
    memset(predictions, 0, count * answers * sizeof *predictions);
    for (size_t first = 0; first < count && !result; first += block)
        for (int view = 0; view < rounds && !result; view++) {
            size_t here = count - first < block ? count - first : block;
            result = run_rows(fit, plan, values, row + first, here, views > 1 ? VIEW_PREDICT | view : VIEW_PLAIN);
            for (size_t n = 0; n < here && !result; n++) {
                target_predict(&fit->target, fit->outputs + n * answers, one);
                for (size_t k = 0; k < answers; k++)
                    predictions[(first + n) * answers + k] += one[k] / (float)rounds;
            }
        }
    fit->backend->free_plan(plan);
    return result;
}

static int largest(const float *values, int count)
{
    int best = 0;
    for (int i = 1; i < count; i++)
        best = values[i] > values[best] ? i : best;
    return best;
}

/* Squared errors of fractions where there were votes. */
static void judge_fractions(struct judgement *judgement, const float *fraction, const float *label, int count)
{
    double total = 0;
    for (int i = 0; i < count; i++)
        total += (double)label[i];
    for (int i = 0; i < count && total > 0; i++) {
        double distance = (double)label[i] / total - (double)fraction[i];
        judgement->squares += distance * distance;
        judgement->compared++;
    }
}

static void judge(const struct target *target, const float *output, const float *label, struct judgement *judgement)
{
    float prediction[TARGET_OUTPUTS_MAX];
    judgement->loss += target_loss(target, output, label, NULL);
    target_predict(target, output, prediction);
    if (target->kind == TARGET_CLASSES)
        judgement->right += largest(prediction, target->outputs) == largest(label, target->outputs);
    else if (target->kind == TARGET_BINOMIAL)
        judge_fractions(judgement, prediction, label, 2);
    for (int i = 0; i < target->outputs && target->kind == TARGET_VALUES; i++, judgement->compared++)
        judgement->squares += pow((double)prediction[i] - (double)label[i], 2);
    for (int q = 0; target->kind == TARGET_VOTES && q < target->schema->questions; q++) {
        const struct question *question = &target->schema->question[q];
        size_t compared = judgement->compared;
        double squares = judgement->squares;
        judge_fractions(judgement, prediction + question->first, label + question->first, question->count);
        judgement->question_rows[q] += judgement->compared > compared;
        judgement->question_compared[q] += judgement->compared - compared;
        judgement->question_squares[q] += judgement->squares - squares;
        judgement->question_loss[q] += target_question_loss(target, q, output, label);
    }
}

/* What all rows come to. */
static void sum_up(const struct trunk_fit *fit, size_t count, struct trunk_epoch *judged)
{
    const struct judgement *sum = &fit->at.judgement;
    judged->validation_loss = count ? sum->loss / (double)count : NAN;
    judged->quality = fit->target.kind == TARGET_CLASSES
                          ? (double)sum->right / (double)count
                          : sqrt(sum->squares / (double)sum->compared); /* NaN without rows */
    for (int q = 0; fit->target.kind == TARGET_VOTES && q < fit->target.schema->questions; q++) {
        judged->question_loss[q] = (float)(sum->question_loss[q] / (double)sum->question_rows[q]);
        judged->question_rmse[q] = (float)sqrt(sum->question_squares[q] / (double)sum->question_compared[q]);
    }
}

static int judge_block(struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count)
{
    size_t answers = (size_t)fit->target.outputs;
    int result = run_rows(fit, fit->judging, values, row, count, VIEW_PLAIN);
    for (size_t n = 0; n < count && !result; n++) {
        judge(&fit->target, fit->outputs + n * answers, fit->data.labels + row[n] * answers, &fit->at.judgement);
        if (!isfinite(fit->at.judgement.loss)) {
            fit->bad_row = row[n];
            result = error_set(ERROR_INPUT,
                               "its loss is not finite after %d epochs: lower the learning rate, or look at the "
                               "galaxy's image and labels",
                               fit->at.epoch + (fit->at.batch > 0));
        }
    }
    fit->at.judgement.rows += count;
    return result;
}

int trunk_judging_step(struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count,
                       struct trunk_epoch *judged)
{
    size_t left = count - fit->at.judgement.rows, block = left < (size_t)fit->batch ? left : (size_t)fit->batch;
    int result = 0;
    if (left && !fit->judging)
        result = fit->backend->compile(fit->context, &fit->net, values, PRECISION_FP32, &fit->judging);
    if (left && !result)
        result = judge_block(fit, values, row + fit->at.judgement.rows, block);
    if (!result && left > block)
        return 0;
    if (!result)
        sum_up(fit, count, judged);
    trunk_judging_end(fit);
    return result ? result : 1;
}

void trunk_judging_end(struct trunk_fit *fit)
{
    fit->backend->free_plan(fit->judging);
    fit->judging = NULL;
    fit->at.judgement = (struct judgement){0};
}

int trunk_fit_judge(struct trunk_fit *fit, const float *values, const uint64_t *row, size_t count,
                    struct trunk_epoch *ret_judged)
{
    int over = 0;
    trunk_judging_end(fit);
    while (!over)
        over = trunk_judging_step(fit, values, row, count, ret_judged);
    return over < 0 ? over : 0;
}
