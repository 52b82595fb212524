/* The pictures of `triaged evaluate --out`: calibration and confusion. See evaluation.h. */
#include "base/text.h"
#include "daemon/evaluation.h"

#include <math.h>

#define SIDE          260 /* of a panel */
#define GAP           80
#define TOP           100
#define CELL          34 /* of a confusion matrix */
#define NAME          170
#define MATRICES_DOWN 70

static const char *const colours[] = {"#1d4ed8", "#c2410c", "#6b7280", "#15803d"};

/* A square of 0..1 (or 0..right) against 0..1. */
struct panel {
    int left, top;
    double right;
};

static double x_of(const struct panel *panel, double value)
{
    return panel->left + SIDE * value / panel->right;
}

static double y_of(const struct panel *panel, double share)
{
    return panel->top + SIDE * (1 - share);
}

static void draw_frame(struct text *svg, const struct panel *panel, const char *title, const char *across,
                       const char *up)
{
    text_append(svg,
                "<text x='%d' y='%d' font-weight='bold'>%s</text><rect x='%d' y='%d' width='%d' height='%d' "
                "fill='none' stroke='#999'/><text x='%d' y='%d' fill='#555' font-size='11' text-anchor='middle'>%s"
                "</text><text transform='translate(%d,%d) rotate(-90)' fill='#555' font-size='11' "
                "text-anchor='middle'>%s</text>",
                panel->left, panel->top - 10, title, panel->left, panel->top, SIDE, SIDE, panel->left + SIDE / 2,
                panel->top + SIDE + 30, across, panel->left - 36, panel->top + SIDE / 2, up);
    for (int i = 0; i <= 4; i++) {
        text_append(svg, "<text x='%d' y='%.1f' text-anchor='end' fill='#555' font-size='10'>%.2g</text>",
                    panel->left - 4, y_of(panel, i / 4.0) + 3, i / 4.0);
        text_append(svg, "<text x='%.1f' y='%d' text-anchor='middle' fill='#555' font-size='10'>%.2g</text>",
                    x_of(panel, panel->right * i / 4), panel->top + SIDE + 13, panel->right * i / 4);
    }
}

static void draw_diagonal(struct text *svg, const struct panel *panel)
{
    text_append(svg, "<line x1='%d' y1='%d' x2='%d' y2='%d' stroke='#bbb' stroke-dasharray='4 3'/>", panel->left,
                panel->top + SIDE, panel->left + SIDE, panel->top);
}

static void draw_key(struct text *svg, const struct panel *panel, int line, int colour, const char *words)
{
    text_append(svg, "<text x='%d' y='%d' fill='%s' font-size='11'>&#9632; %s</text>", panel->left + 8,
                panel->top + 16 + 15 * line, colours[colour], words);
}

/* Points in order of x; those without a value are left out. */
static void draw_line(struct text *svg, const struct panel *panel, const double *x, const double *y, int count,
                      int colour, int dashed)
{
    text_append(svg, "<polyline fill='none' stroke-width='2' stroke='%s'%s points='", colours[colour],
                dashed ? " stroke-dasharray='5 3'" : "");
    for (int i = 0; i < count; i++)
        if (isfinite(x[i]) && isfinite(y[i]))
            text_append(svg, "%.1f,%.1f ", x_of(panel, x[i]), y_of(panel, y[i]));
    text_append(svg, "'/>");
}

static struct coverage all_questions(const struct evaluation *evaluation, const struct judged *judged)
{
    struct coverage all = {0};
    for (int q = 0; q < evaluation->schema.questions; q++)
        coverage_merge(&all, &judged->coverage[q]);
    return all;
}

static void draw_credible(struct text *svg, struct panel panel, const struct coverage *coverage)
{
    static const char *const words[] = {"fewer than 20 votes", "20 votes and more"};
    draw_frame(svg, &panel, "Credible intervals of vote counts", "mass of the interval", "galaxies inside");
    draw_diagonal(svg, &panel);
    for (int many = 0; many < 2; many++) {
        double x[COVERAGE_BINS], y[COVERAGE_BINS];
        for (int bin = 0; bin < COVERAGE_BINS; bin++) {
            double count = (double)coverage->intervals[many][bin];
            int enough = count >= COVERAGE_GALAXIES_MIN;
            x[bin] = enough ? coverage->credible[many][bin].predicted / count : NAN;
            y[bin] = enough ? coverage->credible[many][bin].observed / count : NAN;
        }
        draw_line(svg, &panel, x, y, COVERAGE_BINS, many, 0);
        draw_key(svg, &panel, many, many, words[many]);
    }
}

static void draw_votes(struct text *svg, struct panel panel, const struct coverage *coverage, const char *title)
{
    double x[COVERAGE_BINS], y[COVERAGE_BINS];
    for (int bin = 0; bin < COVERAGE_BINS; bin++) {
        x[bin] = coverage->weight[bin] > 0 ? coverage->expected[bin].predicted / coverage->weight[bin] : NAN;
        y[bin] = coverage->weight[bin] > 0 ? coverage->expected[bin].observed / coverage->weight[bin] : NAN;
    }
    char words[64];
    draw_frame(svg, &panel, title, "expected vote fraction", "share of votes");
    draw_diagonal(svg, &panel);
    draw_line(svg, &panel, x, y, COVERAGE_BINS, 0, 0);
    snprintf(words, sizeof words, "calibration error %.3f", coverage_calibration_error(coverage));
    draw_key(svg, &panel, 0, 0, words);
}

/* W+20's figure: how many galaxies lie within e votes of what is expected, said and seen. */
static void draw_coverage(struct text *svg, struct panel panel, const struct coverage *scaled,
                          const struct coverage *unscaled)
{
    const struct {
        const struct coverage *coverage;
        enum coverage_kind kind;
        const char *words;
    } kinds[] = {
        {scaled,   COVERAGE_OURS,     "as scaled"        },
        {unscaled, COVERAGE_OURS,     "as the heads say" },
        {scaled,   COVERAGE_BINOMIAL, "binomial, as W+20"}
    };
    panel.right = 20;
    draw_frame(svg, &panel, "Within e votes of the expected count", "e (lines: seen, dashed: said)", "galaxies");
    for (int i = 0; i < 3; i++) {
        double x[21], said[21], seen[21];
        for (int e = 0; e <= 20; e++) {
            const struct coverage_sums *sums = &kinds[i].coverage->votes[kinds[i].kind][e];
            x[e] = e;
            said[e] = sums->predicted / (double)kinds[i].coverage->galaxies;
            seen[e] = sums->observed / (double)kinds[i].coverage->galaxies;
        }
        draw_line(svg, &panel, x, said, 21, i, 1);
        draw_line(svg, &panel, x, seen, 21, i, 0);
        text_append(svg, "<text x='%d' y='%d' fill='%s' font-size='11' text-anchor='end'>&#9632; %s</text>",
                    panel.left + SIDE - 8, panel.top + SIDE - 42 + 15 * i, colours[i], kinds[i].words);
    }
}

void evaluation_draw_calibration(const struct evaluation *evaluation, const struct judged *judged,
                                 const struct judged *unscaled, struct text *svg)
{
    static struct coverage scaled, plain;
    scaled = all_questions(evaluation, judged);
    plain = all_questions(evaluation, unscaled);
    int questions = evaluation->schema.questions, step = SIDE + GAP, rows = 1 + (questions + 2) / 3;
    text_append(svg,
                "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' "
                "font-size='13'><rect width='100%%' height='100%%' fill='white'/><text x='%d' y='32' font-size='19'>"
                "How far predictions can be trusted</text><text x='%d' y='54' fill='#555'>%zu test galaxies, all "
                "questions together, then each alone; on the dashed diagonal what is said is what is seen</text>",
                GAP + 3 * step, TOP + rows * step, GAP, GAP, evaluation->count);
    draw_credible(svg, (struct panel){GAP, TOP, 1}, &scaled);
    draw_votes(svg, (struct panel){GAP + step, TOP, 1}, &scaled, "Vote fractions");
    draw_coverage(svg, (struct panel){GAP + 2 * step, TOP, 1}, &scaled, &plain);
    for (int q = 0; q < questions; q++)
        draw_votes(svg, (struct panel){GAP + q % 3 * step, TOP + (1 + q / 3) * step, 1}, &judged->coverage[q],
                   evaluation->schema.question[q].name);
    text_append(svg, "</svg>\n");
}

/* --- confusion ---------------------------------------------------------------------------------------------------- */

static void draw_cell(struct text *svg, int left, int top, uint64_t count, uint64_t row)
{
    double share = row ? (double)count / (double)row : 0;
    text_append(svg,
                "<rect x='%d' y='%d' width='%d' height='%d' fill='#1d4ed8' fill-opacity='%.2f' stroke='#ddd'/><text "
                "x='%d' y='%d' font-size='10' text-anchor='middle' fill='%s'>%llu</text><text x='%d' y='%d' "
                "font-size='8' text-anchor='middle' fill='%s'>%.0f %%</text>",
                left, top, CELL, CELL, share, left + CELL / 2, top + 15, share > 0.5 ? "white" : "black",
                (unsigned long long)count, left + CELL / 2, top + 27, share > 0.5 ? "white" : "#555", 100 * share);
}

static int draw_matrix(struct text *svg, const struct evaluation *evaluation, int q, const struct confusion *confusion,
                       int left, int top, const char *title)
{
    const struct schema *schema = &evaluation->schema;
    const struct question *question = &schema->question[q];
    struct agreement_scores scores = agreement_scores(confusion, question->count);
    text_append(svg, "<text x='%d' y='%d' font-weight='bold'>%s</text><text x='%d' y='%d' fill='#555' font-size='11'>",
                left, top, title, left, top + 16);
    if (scores.galaxies)
        text_append(svg, "%llu galaxies, accuracy %.3f</text>", (unsigned long long)scores.galaxies, scores.accuracy);
    else
        text_append(svg, "no galaxies</text>");
    for (int label = 0; label < question->count; label++) {
        uint64_t row = 0;
        for (int prediction = 0; prediction < question->count; prediction++)
            row += confusion->galaxies[label][prediction];
        text_append(svg, "<text x='%d' y='%d' font-size='11' text-anchor='end'>%s</text>", left + NAME - 8,
                    top + 28 + label * CELL + CELL / 2 + 4, schema->answer[question->first + label].name);
        for (int prediction = 0; prediction < question->count; prediction++)
            draw_cell(svg, left + NAME + prediction * CELL, top + 28 + label * CELL,
                      confusion->galaxies[label][prediction], row);
    }
    return 28 + question->count * CELL;
}

void evaluation_draw_confusion(const struct evaluation *evaluation, const struct judged *judged, struct text *svg)
{
    int height = TOP, across = 0, widest = 0;
    for (int q = 0; q < evaluation->schema.questions; q++) {
        const struct question *question = &evaluation->schema.question[q];
        height += 28 + question->count * CELL + MATRICES_DOWN;
        widest = question->count > widest ? question->count : widest;
    }
    across = NAME + widest * CELL + GAP;
    text_append(svg,
                "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' "
                "font-size='13'><rect width='100%%' height='100%%' fill='white'/><text x='20' y='32' font-size='19'>"
                "What volunteers said and what the model says</text><text x='20' y='54' fill='#555'>Rows: the "
                "volunteers' most frequent answer; columns in the same order: the model's. Galaxies for which the "
                "question was reached</text>",
                20 + 2 * across, height);
    for (int q = 0, top = TOP; q < evaluation->schema.questions; q++) {
        const char *name = evaluation->schema.question[q].name;
        draw_matrix(svg, evaluation, q, &judged->agreement.confident[q], 20 + across, top, "where volunteers agree");
        top += draw_matrix(svg, evaluation, q, &judged->agreement.all[q], 20, top, name) + MATRICES_DOWN;
    }
    text_append(svg, "</svg>\n");
}
