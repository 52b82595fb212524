/* The folder of `triaged evaluate --out`: figures as JSON and CSV; the pictures are evaluation_picture.c. See evaluation.h. */
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "daemon/evaluation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)64 << 20)

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* --- the summary -------------------------------------------------------------------------------------------------- */

static json_t *scores_json(const struct confusion *confusion, int answers)
{
    struct agreement_scores scores = agreement_scores(confusion, answers);
    return json_pack("{s:I,s:o,s:o,s:o,s:o}", "galaxies", (json_int_t)scores.galaxies, "accuracy",
                     number_or_null(scores.accuracy), "precision", number_or_null(scores.precision), "recall",
                     number_or_null(scores.recall), "f1", number_or_null(scores.f1));
}

static double question_nll(const struct judged *judged, int q)
{
    return judged->asked[q] ? judged->nll[q] / (double)judged->asked[q] : NAN;
}

/* Relative errors of coverage at the distances whose figures W+20 print. */
static json_t *coverage_json(const struct coverage *coverage)
{
    static const int votes[] = {0, 1, 3, 5, 10, 20}, hundredths[] = {2, 5, 10, 20};
    static const char *const kinds[COVERAGE_KINDS] = {[COVERAGE_OURS] = "dirichlet", [COVERAGE_BINOMIAL] = "binomial"};
    json_t *json = json_object();
    for (int kind = 0; kind < COVERAGE_KINDS; kind++) {
        json_t *by_votes = json_object(), *by_fraction = json_object();
        char name[16];
        for (size_t i = 0; i < sizeof votes / sizeof *votes; i++) {
            snprintf(name, sizeof name, "%d", votes[i]);
            json_object_set_new(by_votes, name, number_or_null(coverage_error(&coverage->votes[kind][votes[i]])));
        }
        for (size_t i = 0; i < sizeof hundredths / sizeof *hundredths; i++) {
            snprintf(name, sizeof name, "0.%02d", hundredths[i]);
            json_object_set_new(by_fraction, name,
                                number_or_null(coverage_error(&coverage->fraction[kind][hundredths[i]])));
        }
        json_object_set_new(json, kinds[kind], json_pack("{s:o,s:o}", "votes", by_votes, "fraction", by_fraction));
    }
    return json;
}

static json_t *question_json(const struct evaluation *evaluation, const struct model *model, int q,
                             const struct judged *judged, const struct judged *unscaled)
{
    int answers = evaluation->schema.question[q].count;
    return json_pack("{s:s,s:I,s:o,s:o,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "question",
                     evaluation->schema.question[q].name, "galaxies", (json_int_t)judged->asked[q], "nll",
                     number_or_null(question_nll(judged, q)), "nll_unscaled", number_or_null(question_nll(unscaled, q)),
                     "factor", (double)model->heads.factor[q], "all", scores_json(&judged->agreement.all[q], answers),
                     "confident", scores_json(&judged->agreement.confident[q], answers), "rmse",
                     number_or_null(metrics_question_rmse(&judged->metrics, q)), "calibration_error",
                     number_or_null(coverage_calibration_error(&judged->coverage[q])), "volunteers",
                     number_or_null(equivalent_volunteers(&judged->equivalent[q])), "volunteers_galaxies",
                     json_integer((json_int_t)judged->equivalent[q].compared / answers), "coverage_error",
                     coverage_json(&judged->coverage[q]), "coverage_error_unscaled",
                     coverage_json(&unscaled->coverage[q]));
}

static json_t *summarise(const struct evaluation *evaluation, const struct model *model, const struct judged *judged,
                         const struct judged *unscaled)
{
    json_t *questions = json_array();
    for (int q = 0; q < evaluation->schema.questions; q++)
        json_array_append_new(questions, question_json(evaluation, model, q, judged, unscaled));
    return json_pack("{s:I,s:s,s:I,s:f,s:f,s:f,s:f,s:f,s:o}", "model", (json_int_t)model->number, "schema",
                     evaluation->schema.name, "galaxies", (json_int_t)evaluation->count, "nll",
                     metrics_nll(&judged->metrics), "nll_unscaled", metrics_nll(&unscaled->metrics), "rmse",
                     metrics_rmse(&judged->metrics), "constant_nll", evaluation->constant_nll, "constant_nll_unbounded",
                     evaluation->constant_nll_unbounded, "questions", questions);
}

/* --- tables ------------------------------------------------------------------------------------------------------- */

static void append_scores(struct text *csv, const struct confusion *confusion, int answers)
{
    struct agreement_scores scores = agreement_scores(confusion, answers);
    text_append(csv, ",%llu,%.6f,%.6f,%.6f,%.6f", (unsigned long long)scores.galaxies, scores.accuracy,
                scores.precision, scores.recall, scores.f1);
}

static void write_questions(const struct evaluation *evaluation, const struct judged *judged,
                            const struct judged *unscaled, struct text *csv)
{
    text_append(csv, "question,galaxies,nll,nll_unscaled,calibration_error,volunteers,all_galaxies,all_accuracy,"
                     "all_precision,all_recall,all_f1,confident_galaxies,confident_accuracy,confident_precision,"
                     "confident_recall,confident_f1\n");
    for (int q = 0; q < evaluation->schema.questions; q++) {
        const struct question *question = &evaluation->schema.question[q];
        text_append(csv, "%s,%zu,%.6f,%.6f,%.6f,%.2f", question->name, judged->asked[q], question_nll(judged, q),
                    question_nll(unscaled, q), coverage_calibration_error(&judged->coverage[q]),
                    equivalent_volunteers(&judged->equivalent[q]));
        append_scores(csv, &judged->agreement.all[q], question->count);
        append_scores(csv, &judged->agreement.confident[q], question->count);
        text_append(csv, "\n");
    }
}

static void write_answers(const struct evaluation *evaluation, const struct judged *judged, struct text *csv)
{
    text_append(csv, "question,answer,galaxies,mae,rmse\n");
    for (int a = 0; a < evaluation->schema.answers; a++) {
        int q = evaluation->schema.answer[a].question;
        text_append(csv, "%s,%s,%llu,%.6f,%.6f\n", evaluation->schema.question[q].name,
                    evaluation->schema.answer[a].name, (unsigned long long)judged->agreement.compared[q],
                    agreement_mae(&judged->agreement, &evaluation->schema, a),
                    agreement_rmse(&judged->agreement, &evaluation->schema, a));
    }
}

static void append_confusion(const struct schema *schema, int q, const char *galaxies,
                             const struct confusion *confusion, struct text *csv)
{
    const struct question *question = &schema->question[q];
    for (int label = 0; label < question->count; label++) {
        uint64_t row = 0;
        for (int prediction = 0; prediction < question->count; prediction++)
            row += confusion->galaxies[label][prediction];
        for (int prediction = 0; prediction < question->count; prediction++)
            text_append(csv, "%s,%s,%s,%s,%llu,%.6f\n", question->name, galaxies,
                        schema->answer[question->first + label].name, schema->answer[question->first + prediction].name,
                        (unsigned long long)confusion->galaxies[label][prediction],
                        row ? (double)confusion->galaxies[label][prediction] / (double)row : 0.0);
    }
}

static void write_confusion(const struct evaluation *evaluation, const struct judged *judged, struct text *csv)
{
    text_append(csv, "question,galaxies,volunteers,model,count,share_of_row\n");
    for (int q = 0; q < evaluation->schema.questions; q++) {
        append_confusion(&evaluation->schema, q, "all", &judged->agreement.all[q], csv);
        append_confusion(&evaluation->schema, q, "confident", &judged->agreement.confident[q], csv);
    }
}

static void append_sums(struct text *csv, const char *question, const char *kind, const char *within, double distance,
                        const struct coverage_sums *sums, double count)
{
    text_append(csv, "%s,%s,%s,%g,%.6f,%.6f,%.6f\n", question, kind, within, distance, sums->predicted / count,
                sums->observed / count, coverage_error(sums));
}

static void write_coverage(const struct evaluation *evaluation, const struct judged *judged,
                           const struct judged *unscaled, struct text *csv)
{
    const struct {
        const char *name;
        const struct judged *judged;
        enum coverage_kind kind;
    } kinds[] = {
        {"dirichlet",          judged,   COVERAGE_OURS    },
        {"dirichlet-unscaled", unscaled, COVERAGE_OURS    },
        {"binomial",           judged,   COVERAGE_BINOMIAL}
    };
    text_append(csv, "question,distribution,within,distance,predicted,observed,error\n");
    for (int q = 0; q < evaluation->schema.questions; q++)
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            const struct coverage *coverage = &kinds[i].judged->coverage[q];
            const char *question = evaluation->schema.question[q].name;
            for (int e = 0; e <= COVERAGE_VOTES && coverage->galaxies; e++)
                append_sums(csv, question, kinds[i].name, "votes", e, &coverage->votes[kinds[i].kind][e],
                            (double)coverage->galaxies);
            for (int e = 0; e <= COVERAGE_FRACTIONS && coverage->galaxies; e++)
                append_sums(csv, question, kinds[i].name, "fraction", 0.01 * e, &coverage->fraction[kinds[i].kind][e],
                            (double)coverage->galaxies);
        }
}

static void write_credible(const struct evaluation *evaluation, const struct judged *judged, struct text *csv)
{
    text_append(csv, "question,galaxies,intervals,mass,observed\n");
    for (int q = 0; q < evaluation->schema.questions; q++)
        for (int many = 0; many < 2; many++)
            for (int bin = 0; bin < COVERAGE_BINS; bin++) {
                const struct coverage *coverage = &judged->coverage[q];
                double count = (double)coverage->intervals[many][bin];
                if (count >= COVERAGE_GALAXIES_MIN)
                    text_append(csv, "%s,%s,%.0f,%.6f,%.6f\n", evaluation->schema.question[q].name,
                                many ? "many votes" : "few votes", count,
                                coverage->credible[many][bin].predicted / count,
                                coverage->credible[many][bin].observed / count);
            }
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static int write_text(const char *folder, const char *name, struct text *text)
{
    char path[FILE_PATH_BYTES];
    struct file_part part = {text->bytes, text->length};
    int result = text_error(text);
    if (!result)
        result = file_path(path, sizeof path, "%s/%s", folder, name);
    if (!result)
        result = file_write(path, &part, 1, 0644);
    text_clear(text);
    return result;
}

static int write_summary(const char *folder, const json_t *summary, struct text *text)
{
    char *json = json_dumps(summary, JSON_INDENT(1));
    if (!json)
        return error_set(ERROR_SYSTEM, "out of memory for the summary");
    text_append(text, "%s\n", json);
    free(json);
    return write_text(folder, "summary.json", text);
}

int evaluation_write(const struct evaluation *evaluation, const struct model *model, const struct judged *judged,
                     const struct judged *unscaled, const char *folder, json_t **ret_summary)
{
    struct text text = text_new(FILE_BYTES_MAX);
    int result = file_make_folder(folder, 0755);
    *ret_summary = summarise(evaluation, model, judged, unscaled);
    if (!result)
        result = write_summary(folder, *ret_summary, &text);
    write_questions(evaluation, judged, unscaled, &text);
    result = result ? result : write_text(folder, "questions.csv", &text);
    write_answers(evaluation, judged, &text);
    result = result ? result : write_text(folder, "answers.csv", &text);
    write_confusion(evaluation, judged, &text);
    result = result ? result : write_text(folder, "confusion.csv", &text);
    write_coverage(evaluation, judged, unscaled, &text);
    result = result ? result : write_text(folder, "coverage.csv", &text);
    write_credible(evaluation, judged, &text);
    result = result ? result : write_text(folder, "credible.csv", &text);
    evaluation_draw_calibration(evaluation, judged, unscaled, &text);
    result = result ? result : write_text(folder, "calibration.svg", &text);
    evaluation_draw_confusion(evaluation, judged, &text);
    result = result ? result : write_text(folder, "confusion.svg", &text);
    text_free(&text);
    return result;
}
