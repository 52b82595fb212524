/* See training_report.h. */
#include "daemon/training_report.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

#include <math.h>
#include <string.h>

#define TEXT_BYTES_MAX ((size_t)32 << 20)
#define PANEL_WIDTH    220
#define PANEL_HEIGHT   130
#define PANELS_ACROSS  4
#define MARGIN         60
#define HEAD_HEIGHT    360
#define TRAIN_COLOUR   "#1d4ed8"
#define JUDGED_COLOUR  "#c2410c"

void training_report_interval(double share, size_t count, double ret_interval[2])
{
    double z = 1.959963984540054, n = (double)count;
    double centre = share + z * z / (2 * n), half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n));
    ret_interval[0] = (centre - half) / (1 + z * z / n);
    ret_interval[1] = (centre + half) / (1 + z * z / n);
}

static int write_text(struct text *text, const char *folder, const char *name)
{
    char path[FILE_PATH_BYTES];
    int result = text_error(text);
    if (!result)
        result = file_path(path, sizeof path, "%s/%s", folder, name);
    struct file_part part = {text->bytes, text->length};
    if (!result)
        result = file_write(path, &part, 1, 0644);
    text_free(text);
    return result;
}

static int questions_of(const struct target *target)
{
    return target->kind == TARGET_VOTES ? target->schema->questions : 0;
}

static int write_csv(const struct trunk_fit *fit, const struct target *target, const char *folder)
{
    struct text text = text_new(TEXT_BYTES_MAX);
    text_append(&text, "epoch,learning_rate,train_loss,validation_loss,quality");
    for (int q = 0; q < questions_of(target); q++)
        text_append(&text, ",%s", target->schema->question[q].name);
    for (int e = 0; e <= trunk_fit_epochs(fit); e++) {
        const struct trunk_epoch *epoch = trunk_fit_epoch(fit, e);
        text_append(&text, "\n%d,", e);
        if (e)
            text_append(&text, "%.8g,%.8g", epoch->learning_rate, epoch->train_loss);
        else
            text_append(&text, ","); /* before the first step */
        text_append(&text, ",%.8g,%.8g", epoch->validation_loss, epoch->quality);
        for (int q = 0; q < questions_of(target); q++)
            text_append(&text, ",%.8g", (double)epoch->question_loss[q]);
    }
    text_append(&text, "\n");
    return write_text(&text, folder, "curve.csv");
}

/* --- the picture -------------------------------------------------------------------------------------------------- */

enum series { SERIES_TRAIN, SERIES_VALIDATION, SERIES_QUALITY, SERIES_QUESTION };

struct panel {
    const struct trunk_fit *fit;
    int left, top, width, height;
    double low, high;
};

static double value_of(const struct trunk_epoch *epoch, enum series series, int question)
{
    switch (series) {
    case SERIES_TRAIN:
        return epoch->train_loss;
    case SERIES_VALIDATION:
        return epoch->validation_loss;
    case SERIES_QUALITY:
        return epoch->quality;
    case SERIES_QUESTION:
        return (double)epoch->question_loss[question];
    }
    return NAN;
}

static void widen(struct panel *panel, enum series series, int question)
{
    for (int e = series == SERIES_TRAIN; e <= trunk_fit_epochs(panel->fit); e++) {
        double value = value_of(trunk_fit_epoch(panel->fit, e), series, question);
        if (!isfinite(value))
            continue;
        panel->low = fmin(panel->low, value);
        panel->high = fmax(panel->high, value);
    }
}

static void draw_frame(struct text *svg, const struct panel *panel, const char *title)
{
    text_append(svg,
                "<text x='%d' y='%d'>%s</text><rect x='%d' y='%d' width='%d' height='%d' fill='none' stroke='#999'/>",
                panel->left, panel->top - 8, title, panel->left, panel->top, panel->width, panel->height);
    for (int i = 0; i <= 2; i++) {
        double y = panel->top + panel->height * (1 - i / 2.0);
        text_append(svg, "<text x='%d' y='%.1f' text-anchor='end' fill='#555' font-size='11'>%.3g</text>",
                    panel->left - 5, y + 4, panel->low + (panel->high - panel->low) * i / 2.0);
    }
    text_append(svg, "<text x='%d' y='%d' fill='#555' font-size='11' text-anchor='end'>epoch %d</text>",
                panel->left + panel->width, panel->top + panel->height + 14, trunk_fit_epochs(panel->fit));
}

static void draw_line(struct text *svg, const struct panel *panel, enum series series, int question, const char *colour)
{
    int epochs = trunk_fit_epochs(panel->fit);
    text_append(svg, "<polyline fill='none' stroke-width='2' stroke='%s' points='", colour);
    for (int e = series == SERIES_TRAIN; e <= epochs; e++) {
        double value = value_of(trunk_fit_epoch(panel->fit, e), series, question);
        if (isfinite(value))
            text_append(svg, "%.1f,%.1f ", panel->left + (double)panel->width * e / (epochs ? epochs : 1),
                        panel->top + panel->height * (panel->high - value) / (panel->high - panel->low));
    }
    text_append(svg, "'/>");
}

/* One panel with one or two lines. */
static void draw_panel(struct text *svg, struct panel panel, const char *title, const enum series *series, int lines,
                       int question)
{
    static const char *const colours[] = {TRAIN_COLOUR, JUDGED_COLOUR};
    panel.low = INFINITY;
    panel.high = -INFINITY;
    for (int i = 0; i < lines; i++)
        widen(&panel, series[i], question);
    if (!(panel.high > panel.low)) {
        panel.low = isfinite(panel.low) ? panel.low - 0.5 : 0;
        panel.high = panel.low + 1;
    }
    draw_frame(svg, &panel, title);
    for (int i = 0; i < lines; i++)
        draw_line(svg, &panel, series[i], question, colours[lines == 1 ? 1 : i]);
}

static int write_svg(const struct trunk_fit *fit, const struct target *target, const char *folder)
{
    static const enum series losses[] = {SERIES_TRAIN, SERIES_VALIDATION}, quality[] = {SERIES_QUALITY},
                             question[] = {SERIES_QUESTION};
    int questions = questions_of(target), rows = (questions + PANELS_ACROSS - 1) / PANELS_ACROSS;
    int step_x = PANEL_WIDTH + MARGIN, step_y = PANEL_HEIGHT + MARGIN, width = PANELS_ACROSS * step_x + MARGIN;
    struct text svg = text_new(TEXT_BYTES_MAX);
    text_append(
        &svg,
        "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='13'>"
        "<rect width='100%%' height='100%%' fill='white'/><text x='%d' y='30' font-size='19'>Training</text>"
        "<text x='%d' y='30'>best epoch %d of %d; <tspan fill='" TRAIN_COLOUR "'>training, as trained</tspan>, "
        "<tspan fill='" JUDGED_COLOUR "'>validation</tspan></text>",
        width, HEAD_HEIGHT + rows * step_y, MARGIN, MARGIN + 100, trunk_fit_best_epoch(fit), trunk_fit_epochs(fit));
    struct panel panel = {.fit = fit, .left = MARGIN, .top = 80, .width = 480, .height = 220};
    draw_panel(&svg, panel, "loss per galaxy", losses, 2, 0);
    panel.left += 480 + MARGIN + 20;
    draw_panel(&svg, panel, target->kind == TARGET_CLASSES ? "validation accuracy" : "validation RMSE", quality, 1, 0);
    for (int q = 0; q < questions; q++) {
        struct panel small = {.fit = fit,
                              .left = MARGIN + q % PANELS_ACROSS * step_x,
                              .top = HEAD_HEIGHT + q / PANELS_ACROSS * step_y,
                              .width = PANEL_WIDTH,
                              .height = PANEL_HEIGHT};
        draw_panel(&svg, small, target->schema->question[q].name, question, 1, q);
    }
    text_append(&svg, "</svg>\n");
    return write_text(&svg, folder, "curve.svg");
}

int training_report_write(const struct trunk_fit *fit, const struct target *target, const char *folder)
{
    int result = write_csv(fit, target, folder);
    return result ? result : write_svg(fit, target, folder);
}
