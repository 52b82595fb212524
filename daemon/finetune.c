/* See finetune.h. The run is model/trunk_fit.h, the galaxies are training_set.h; here they meet, with progress and files. */
#include "daemon/finetune.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "daemon/backend.h"
#include "daemon/exits.h"
#include "daemon/predictions.h"
#include "daemon/setup.h"
#include "daemon/training_report.h"
#include "daemon/training_set.h"
#include "model/likelihood.h"
#include "model/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECKPOINT_S 60 /* at most so much work is done again after a kill */

struct finetune {
    const struct config *config;
    const struct finetune_options *options;
    struct schema schema;
    struct net net;
    struct training_set set;
    struct trunk_recipe recipe;
    struct chosen_backend compute;
    struct trunk_fit *fit;
    char checkpoint[FILE_PATH_BYTES], trunk[FILE_PATH_BYTES], head[FILE_PATH_BYTES];
    double started_s, told_s, saved_s, progress_at_start;
};

static volatile sig_atomic_t stop_wanted;

static void on_signal(int number)
{
    (void)number;
    stop_wanted = 1;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static struct trunk_data data_of(const struct finetune *finetune)
{
    const struct training_set *set = &finetune->set;
    return (struct trunk_data){.pixels = column_row(&set->pixels, 0),
                               .pixels_stride_bytes = set->pixels.layout.row_bytes,
                               .pixel_side = (int)finetune->config->image_side,
                               .labels = set->labels,
                               .key = set->key,
                               .train_row = set->train_row,
                               .validation_row = set->validation_row,
                               .train_count = set->train_count,
                               .validation_count = set->validation_count};
}

static int start_values(struct finetune *finetune, const struct trunk_data *data, float *values)
{
    const char *weights = finetune->options->weights ? finetune->options->weights : finetune->config->trunk_weights,
               *head = finetune->options->head;
    const struct target *target = &finetune->set.target;
    uint64_t seed = finetune->recipe.seed;
    if (!weights[0] && head)
        return error_set(ERROR_INPUT, "--head %s was made for a trunk: give that too, by --weights FILE", head);
    if (!weights[0])
        return trunk_fit_random(&finetune->net, target, data, seed, values);
    int result = safetensors_load(weights, &finetune->net, values);
    if (!result && head)
        result = safetensors_load_head(head, &finetune->net, &finetune->set.head,
                                       values + net_parameter_count(&finetune->net));
    else if (!result)
        result = trunk_fit_random_head(&finetune->net, target, data, seed, values);
    if (!result && finetune->config->training_start < 1)
        result = trunk_fit_shrink(&finetune->net, target, data, seed, finetune->config->training_start, values);
    return result;
}

static int open_fit(struct finetune *finetune)
{
    struct trunk_data data = data_of(finetune);
    float *values = malloc(trunk_fit_values(&finetune->net, &finetune->set.target) * sizeof *values);
    int result = values ? start_values(finetune, &data, values) : error_set(ERROR_SYSTEM, "out of memory for weights");
    if (!result)
        result = trunk_fit_open(finetune->compute.backend, finetune->compute.context, &finetune->net,
                                &finetune->set.target, &finetune->recipe, &data, values, &finetune->fit);
    free(values);
    if (result || !file_exists(finetune->checkpoint))
        return result;
    char before[TRUNK_MEANS_BYTES], now[TRUNK_MEANS_BYTES];
    result = trunk_fit_load(finetune->fit, finetune->checkpoint, before);
    if (result)
        return result;
    trunk_fit_means(finetune->fit, now);
    fprintf(stderr, "going on from %s, epoch %d\n", finetune->checkpoint, trunk_fit_epochs(finetune->fit));
    if (strcmp(before, now) != 0)
        fprintf(
            stderr,
            "triaged: the run so far had %s, now it has %s: it ends within rounding of what it would have been; for "
            "the same bytes stop it now and set worker.backend, worker.threads and worker.devices back\n",
            before, now);
    return 0;
}

static void tell_need(const char *text)
{
    fprintf(stderr, "%s\n", text);
}

static int open_finetune(struct finetune *finetune)
{
    const struct finetune_options *options = finetune->options;
    struct training_source source = {options->catalogue, options->test_catalogue,
                                     options->labels,    options->task,
                                     options->out,       (uint64_t)finetune->config->seed};
    config_recipe(finetune->config, &finetune->recipe);
    int result = setup_net(finetune->config, &finetune->net);
    if (!result)
        result = setup_schema(finetune->config, &finetune->schema);
    if (!result)
        result = file_make_folder(options->out, 0755);
    if (!result)
        result = file_path(finetune->checkpoint, sizeof finetune->checkpoint, "%s/checkpoint", options->out);
    if (!result)
        result = file_path(finetune->trunk, sizeof finetune->trunk, "%s/trunk.safetensors", options->out);
    if (!result)
        result = file_path(finetune->head, sizeof finetune->head, "%s/head.safetensors", options->out);
    if (!result)
        result = training_set_open(finetune->config, &finetune->schema, &source, &finetune->set);
    if (!result)
        result = backend_choose(finetune->config, &finetune->compute);
    if (!result && finetune->compute.backend->tell)
        finetune->compute.backend->tell(finetune->compute.context, tell_need);
    return result ? result : open_fit(finetune);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

static double images_in_all(const struct finetune *finetune)
{
    return (double)trunk_fit_steps_per_epoch(finetune->fit) * finetune->recipe.batch * finetune->recipe.epochs_max;
}

static void show_progress(struct finetune *finetune)
{
    double now_s = clock_s(), elapsed_s = now_s - finetune->started_s, progress = trunk_fit_progress(finetune->fit);
    double made = progress - finetune->progress_at_start;
    if (!isatty(2) || now_s - finetune->told_s < 0.5 || elapsed_s < 2 || made <= 0)
        return;
    finetune->told_s = now_s;
    fprintf(stderr, "\repoch %d of %d, %.0f images/s, %.0f s left if all epochs are needed   ",
            trunk_fit_epochs(finetune->fit) + 1, finetune->recipe.epochs_max,
            made * images_in_all(finetune) / elapsed_s, elapsed_s * (1 - progress) / made);
}

static void show_epoch(const struct finetune *finetune)
{
    int number = trunk_fit_epochs(finetune->fit);
    const struct trunk_epoch *epoch = trunk_fit_epoch(finetune->fit, number);
    fprintf(stderr, "%sepoch %3d: loss %.4f, validation %.4f, %s %.4f%s, %.0f s\n", isatty(2) ? "\r" : "", number,
            epoch->train_loss, epoch->validation_loss,
            finetune->set.target.kind == TARGET_CLASSES ? "accuracy" : "RMSE", epoch->quality,
            trunk_fit_best_epoch(finetune->fit) == number ? " (best)" : "", clock_s() - finetune->started_s);
}

/* Checkpoint, curve and the best trunk and head so far, so that a killed run has lost nothing that was done. */
static int save_epoch(struct finetune *finetune)
{
    const float *best = trunk_fit_best(finetune->fit);
    int result = training_report_write(finetune->fit, &finetune->set.target, finetune->options->out);
    if (!result)
        result = safetensors_save(finetune->trunk, &finetune->net, best);
    if (!result)
        result = safetensors_save_head(finetune->head, &finetune->net, &finetune->set.head,
                                       best + net_parameter_count(&finetune->net));
    if (!result)
        result = trunk_fit_save(finetune->fit, finetune->checkpoint);
    finetune->saved_s = clock_s();
    return result;
}

/* The message of a loss that is not finite, with the galaxy's name. */
static int name_galaxy(const struct finetune *finetune, int result)
{
    return result == ERROR_INPUT
               ? error_prefix(result, "galaxy %s: ", finetune->set.id_str[trunk_fit_bad_row(finetune->fit)])
               : result;
}

static int train(struct finetune *finetune)
{
    int over = 0, result = 0;
    finetune->started_s = finetune->saved_s = clock_s();
    finetune->progress_at_start = trunk_fit_progress(finetune->fit);
    while (!over && !result) {
        int epoch = trunk_fit_epochs(finetune->fit);
        over = trunk_fit_step(finetune->fit);
        if (over < 0)
            return name_galaxy(finetune, over);
        show_progress(finetune);
        if (trunk_fit_epochs(finetune->fit) != epoch) {
            show_epoch(finetune);
            result = save_epoch(finetune);
        } else if (stop_wanted || clock_s() - finetune->saved_s > CHECKPOINT_S) {
            result = trunk_fit_save(finetune->fit, finetune->checkpoint);
            finetune->saved_s = clock_s();
        }
        if (!result && stop_wanted && !over)
            result = error_set(ERROR_CANCELLED, "stopped; the same command goes on from %s", finetune->checkpoint);
    }
    return result;
}

/* --- the result --------------------------------------------------------------------------------------------------- */

/* Loss of each question on rows under the best constant of these very rows with concentrations in a range: no constant fitted
 * elsewhere is better. */
static int judge_constant(const struct finetune *finetune, const uint64_t *row, size_t count, double lower,
                          double upper, double *losses)
{
    const struct training_set *set = &finetune->set;
    size_t answers = (size_t)set->target.outputs, asked[SCHEMA_QUESTIONS_MAX] = {0};
    float alpha[TARGET_OUTPUTS_MAX];
    uint16_t *votes = malloc((set->rows + 1) * answers * sizeof *votes);
    if (!votes)
        return error_set(ERROR_SYSTEM, "out of memory for votes");
    for (size_t i = 0; i < set->rows * answers; i++)
        votes[i] = (uint16_t)set->labels[i];
    struct vote_rows rows = {votes, answers * sizeof *votes, row, count};
    int result = likelihood_constant_fit(&finetune->schema, &rows, lower, upper, alpha);
    for (int q = 0; q < finetune->schema.questions && !result; q++) {
        const struct question *question = &finetune->schema.question[q];
        losses[q] = 0;
        for (size_t i = 0; i < count; i++) {
            const uint16_t *own = votes + row[i] * answers + question->first;
            double loss = likelihood_question(alpha + question->first, own, question->count);
            losses[q] += loss;
            asked[q] += loss != 0;
        }
        losses[q] /= (double)asked[q];
    }
    free(votes);
    return result;
}

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static int judge_questions(const struct finetune *finetune, const struct trunk_epoch *judged, const uint64_t *row,
                           size_t count, json_t *part)
{
    double constant[SCHEMA_QUESTIONS_MAX], unbounded[SCHEMA_QUESTIONS_MAX];
    int result = judge_constant(finetune, row, count, LIKELIHOOD_HEAD_LOWER, LIKELIHOOD_HEAD_UPPER, constant);
    if (!result)
        result = judge_constant(finetune, row, count, LIKELIHOOD_FREE_LOWER, LIKELIHOOD_FREE_UPPER, unbounded);
    json_t *questions = json_object();
    for (int q = 0; q < finetune->schema.questions && !result; q++)
        json_object_set_new(questions, finetune->schema.question[q].name,
                            json_pack("{s:o,s:o,s:o,s:o}", "nll", number_or_null((double)judged->question_loss[q]),
                                      "rmse", number_or_null((double)judged->question_rmse[q]), "constant_nll",
                                      number_or_null(constant[q]), "constant_nll_unbounded",
                                      number_or_null(unbounded[q])));
    json_object_set_new(part, "questions", questions);
    return result;
}

/* How good the best weights are on some rows. */
static int judge(struct finetune *finetune, const uint64_t *row, size_t count, json_t *report, const char *name)
{
    struct trunk_epoch judged = {0};
    if (!count)
        return 0;
    int result = trunk_fit_judge(finetune->fit, trunk_fit_best(finetune->fit), row, count, &judged);
    if (result)
        return name_galaxy(finetune, result);
    json_t *part =
        json_pack("{s:I,s:o}", "galaxies", (json_int_t)count, "loss", number_or_null(judged.validation_loss));
    if (finetune->set.target.kind == TARGET_CLASSES) {
        double interval[2];
        training_report_interval(judged.quality, count, interval);
        json_object_set_new(part, "accuracy", json_real(judged.quality));
        json_object_set_new(part, "interval", json_pack("[f,f]", interval[0], interval[1]));
    } else
        json_object_set_new(part, "rmse", number_or_null(judged.quality));
    if (finetune->set.target.kind == TARGET_VOTES)
        result = judge_questions(finetune, &judged, row, count, part);
    json_object_set_new(report, name, part);
    return result;
}

static int make_report(struct finetune *finetune, json_t *report)
{
    const struct training_set *set = &finetune->set;
    json_object_set_new(report, "network", json_string(finetune->net.name));
    json_object_set_new(report, "side", json_integer(finetune->net.side));
    json_object_set_new(report, "blocks", json_integer(finetune->config->blocks));
    json_object_set_new(report, "norm", json_string(finetune->config->norm));
    json_object_set_new(report, "warm_start", json_real(finetune->config->training_start));
    json_object_set_new(report, "trained_on", json_integer((json_int_t)set->train_count));
    json_object_set_new(report, "unlabelled", json_integer((json_int_t)set->unlabelled));
    json_object_set_new(report, "bad_images", json_integer((json_int_t)set->bad));
    json_object_set_new(report, "epochs", json_integer(trunk_fit_epochs(finetune->fit)));
    json_object_set_new(report, "best_epoch", json_integer(trunk_fit_best_epoch(finetune->fit)));
    json_object_set_new(report, "seconds", json_real(clock_s() - finetune->started_s));
    json_object_set_new(report, "weights", json_string(finetune->trunk));
    json_object_set_new(report, "head", json_string(finetune->head));
    int result = judge(finetune, set->validation_row, set->validation_count, report, "validation");
    return result ? result : judge(finetune, set->test_row, set->test_count, report, "test");
}

static void print_part(const json_t *report, const char *name)
{
    const json_t *part = json_object_get(report, name), *interval = json_object_get(part, "interval"), *question;
    const char *key;
    if (!part)
        return;
    printf("%-10s %6lld galaxies, loss %.4f, ", name, (long long)json_integer_value(json_object_get(part, "galaxies")),
           json_number_value(json_object_get(part, "loss")));
    if (interval)
        printf("accuracy %.3f (95 %% interval %.3f to %.3f)\n", json_number_value(json_object_get(part, "accuracy")),
               json_number_value(json_array_get(interval, 0)), json_number_value(json_array_get(interval, 1)));
    else
        printf("RMSE %.4f\n", json_number_value(json_object_get(part, "rmse")));
    json_object_foreach(json_object_get((json_t *)(uintptr_t)part, "questions"), key, question)
    {
        printf("           %-24s NLL %7.4f (best constant %7.4f, unbounded %7.4f), RMSE %.4f\n", key,
               json_number_value(json_object_get(question, "nll")),
               json_number_value(json_object_get(question, "constant_nll")),
               json_number_value(json_object_get(question, "constant_nll_unbounded")),
               json_number_value(json_object_get(question, "rmse")));
    }
}

static void print_report(const json_t *report, int json)
{
    if (json) {
        json_dumpf(report, stdout, JSON_COMPACT);
        putchar('\n');
        return;
    }
    printf("%s at %lld px: %lld epochs, the best is %lld; weights in %s\n",
           json_string_value(json_object_get(report, "network")),
           (long long)json_integer_value(json_object_get(report, "side")),
           (long long)json_integer_value(json_object_get(report, "epochs")),
           (long long)json_integer_value(json_object_get(report, "best_epoch")),
           json_string_value(json_object_get(report, "weights")));
    printf("trained:   %lld blocks and the head, batch norm %s, %g of the given weights\n",
           (long long)json_integer_value(json_object_get(report, "blocks")),
           json_string_value(json_object_get(report, "norm")),
           json_number_value(json_object_get(report, "warm_start")));
    print_part(report, "validation");
    print_part(report, "test");
}

int run_finetune(const struct config *config, const struct finetune_options *options)
{
    static struct finetune finetune;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    finetune = (struct finetune){.config = config, .options = options};
    json_t *report = json_object();
    int result = open_finetune(&finetune);
    if (!result)
        result = train(&finetune);
    if (!result)
        result = save_epoch(&finetune);
    if (!result)
        result = make_report(&finetune, report);
    if (!result)
        result = predictions_write(finetune.fit, &finetune.set, (int)config->mc_views, options->out);
    if (result)
        fprintf(stderr, "triaged: %s\n", error_message());
    else
        print_report(report, options->json);
    json_decref(report);
    if (result == ERROR_UNAVAILABLE) { /* as in worker.c: closing may wait for a lost device for ever */
        fflush(NULL);
        _exit(exit_code(result));
    }
    trunk_fit_close(finetune.fit);
    if (finetune.compute.backend)
        finetune.compute.backend->close(finetune.compute.context);
    training_set_close(&finetune.set);
    return exit_code(result);
}
