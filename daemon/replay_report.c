/* See replay_report.h. */
#include "daemon/replay_report.h"
#include "acquisition/savings.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CSV_BYTES_MAX ((size_t)64 << 20)
#define PANEL_WIDTH   420
#define PANEL_HEIGHT  260
#define PANELS_ACROSS 2
#define MARGIN        70
#define HEAD_HEIGHT   90
#define LINE_HEIGHT   18

static const double budget_shares[] = {0.25, 0.5, 1};
static const char *const colours[] = {"#6b7280", "#1d4ed8", "#c2410c", "#15803d", "#7e22ce", "#be123c",
                                      "#0e7490", "#a16207", "#4d7c0f", "#334155", "#db2777", "#0369a1"};
#define COLOURS ((int)(sizeof colours / sizeof *colours))

/* Everything measured: panel 0 is all questions together, panel 1 + q is question q. */
struct results {
    const struct replay *replay;
    const struct replay_arm *arms;
    int arm_count, seeds, steps;
    double *galaxies, *votes;              /* [arm][seed][step] */
    double *nll[SCHEMA_QUESTIONS_MAX + 1]; /* [arm][seed][step], NULL where a question does not count */
    double *rmse[SCHEMA_QUESTIONS_MAX + 1];
    struct text csv;
};

static size_t cell(const struct results *results, int arm, int seed, int step)
{
    return ((size_t)arm * (size_t)results->seeds + (size_t)seed) * (size_t)results->steps + (size_t)step;
}

static struct arm_curves curves(const struct results *results, int arm, int panel, const double *cost)
{
    size_t first = cell(results, arm, 0, 0);
    return (struct arm_curves){results->seeds, results->steps, cost + first, results->nll[panel] + first};
}

static const char *panel_name(const struct results *results, int panel)
{
    return panel ? results->replay->schema.question[panel - 1].name : "all";
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static int find_panel(const struct results *results, const char *name)
{
    for (int panel = 0; panel <= results->replay->schema.questions; panel++)
        if (results->nll[panel] && strcmp(panel_name(results, panel), name) == 0)
            return panel;
    return -1;
}

/* The next number of a line and the comma or end behind it. */
static int take_number(const char **at, double *ret_number)
{
    char *end;
    *ret_number = strtod(*at, &end);
    int good = end != *at && (*end == ',' || !*end);
    *at = *end ? end + 1 : end;
    return good ? 0 : -1;
}

/* step,galaxies,votes,question,nll,rmse */
static int take_line(struct results *results, int arm, int seed, const char *line, int *steps)
{
    char question[SCHEMA_NAME_BYTES];
    double step, galaxies, votes, nll, rmse;
    const char *at = line;
    if (take_number(&at, &step) || take_number(&at, &galaxies) || take_number(&at, &votes))
        return -1;
    size_t length = strcspn(at, ",");
    if (length >= sizeof question || at[length] != ',')
        return -1;
    memcpy(question, at, length);
    question[length] = 0;
    at += length + 1;
    int panel = find_panel(results, question);
    if (take_number(&at, &nll) || take_number(&at, &rmse) || panel < 0 || !(step >= 0 && step < results->steps))
        return -1;
    size_t cell_at = cell(results, arm, seed, (int)step);
    results->galaxies[cell_at] = galaxies;
    results->votes[cell_at] = votes;
    results->nll[panel][cell_at] = nll;
    results->rmse[panel][cell_at] = rmse;
    *steps += panel == 0;
    text_append(&results->csv, "%s,%d,%s\n", results->arms[arm].name, seed + 1, line);
    return 0;
}

static int read_run(struct results *results, int arm, int seed)
{
    char path[FILE_PATH_BYTES], *csv = NULL;
    size_t length;
    int steps = 0;
    int result = replay_path(results->replay, &results->arms[arm], seed + 1, "csv", path, sizeof path);
    if (!result)
        result = file_read(path, CSV_BYTES_MAX, &csv, &length);
    char *line = result ? NULL : strchr(csv, '\n'); /* after the names of the columns */
    while (line && line[1] && !result) {
        char *end = strchr(++line, '\n');
        if (end)
            *end = 0;
        if (!end || take_line(results, arm, seed, line, &steps))
            result =
                error_set(ERROR_INPUT, "%s: '%.60s' is no line of a run: delete the file to do it again", path, line);
        line = end;
    }
    free(csv);
    return result || steps == results->steps
               ? result
               : error_set(ERROR_INPUT, "%s has %d of %d steps: repeat the command to finish it", path, steps,
                           results->steps);
}

static int read_runs(struct results *results)
{
    size_t cells = cell(results, results->arm_count, 0, 0);
    results->galaxies = calloc(cells, sizeof(double));
    results->votes = calloc(cells, sizeof(double));
    int result = results->galaxies && results->votes ? 0 : -1;
    for (int panel = 0; panel <= results->replay->schema.questions && !result; panel++)
        if (!panel || results->replay->questions.counts[panel - 1]) {
            results->nll[panel] = calloc(cells, sizeof(double));
            results->rmse[panel] = calloc(cells, sizeof(double));
            result = results->nll[panel] && results->rmse[panel] ? 0 : -1;
        }
    if (result)
        return error_set(ERROR_SYSTEM, "out of memory for the curves");
    text_append(&results->csv, "arm,seed,step,galaxies,votes,question,nll,rmse\n");
    for (int arm = 0; arm < results->arm_count && !result; arm++)
        for (int seed = 0; seed < results->seeds && !result; seed++)
            result = read_run(results, arm, seed);
    return result;
}

static void free_results(struct results *results)
{
    free(results->galaxies);
    free(results->votes);
    for (int panel = 0; panel <= SCHEMA_QUESTIONS_MAX; panel++) {
        free(results->nll[panel]);
        free(results->rmse[panel]);
    }
    text_free(&results->csv);
}

/* --- the summary -------------------------------------------------------------------------------------------------- */

static json_t *interval_json(struct interval interval)
{
    return json_pack("{s:f,s:f,s:f}", "value", interval.value, "low", interval.low, "high", interval.high);
}

static json_t *savings_json(const struct results *results, int arm, const double *cost)
{
    struct arm_curves mine = curves(results, arm, 0, cost), reference = curves(results, 0, 0, cost);
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof budget_shares / sizeof *budget_shares; i++) {
        int reached;
        json_t *one = interval_json(savings_at(&mine, &reference, budget_shares[i], 1, &reached));
        json_object_set_new(one, "budget_share", json_real(budget_shares[i]));
        json_object_set_new(one, "reached", json_boolean(reached));
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *questions_json(const struct results *results, int arm)
{
    json_t *questions = json_object();
    for (int panel = 0; panel <= results->replay->schema.questions; panel++) {
        if (!results->nll[panel])
            continue;
        struct arm_curves mine = curves(results, arm, panel, results->galaxies),
                          reference = curves(results, 0, panel, results->galaxies);
        struct interval difference = savings_last_difference(&mine, &reference, 1);
        double rmse = 0;
        for (int seed = 0; seed < results->seeds; seed++)
            rmse += results->rmse[panel][cell(results, arm, seed, results->steps - 1)] / results->seeds;
        json_object_set_new(questions, panel_name(results, panel),
                            json_pack("{s:o,s:o,s:f,s:b}", "last_nll",
                                      interval_json(savings_mean(&mine, results->steps - 1, 1)),
                                      "nll_against_reference", interval_json(difference), "last_rmse", rmse,
                                      "worse_than_reference", difference.low > 0));
    }
    return questions;
}

static json_t *arm_json(const struct results *results, int arm)
{
    struct arm_curves mine = curves(results, arm, 0, results->galaxies);
    double area = 0;
    for (int seed = 0; seed < results->seeds; seed++)
        area += savings_area(&mine, seed) / results->seeds;
    json_t *wins = json_object();
    for (int other = 0; other < results->arm_count; other++) {
        struct arm_curves theirs = curves(results, other, 0, results->galaxies);
        json_object_set_new(wins, results->arms[other].name, json_real(savings_wins(&mine, &theirs)));
    }
    return json_pack("{s:s,s:f,s:o,s:o,s:o,s:o}", "arm", results->arms[arm].name, "area", area, "saving_galaxies",
                     savings_json(results, arm, results->galaxies), "saving_votes",
                     savings_json(results, arm, results->votes), "wins", wins, "questions",
                     questions_json(results, arm));
}

static json_t *summarise(const struct results *results)
{
    const struct config *config = results->replay->config;
    json_t *arms = json_array();
    for (int arm = 0; arm < results->arm_count; arm++)
        json_array_append_new(arms, arm_json(results, arm));
    return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:o}", "track", config->replay_track, "reference",
                     results->arms[0].name, "seeds", (json_int_t)results->seeds, "pool",
                     (json_int_t)results->replay->pool_count, "test", (json_int_t)results->replay->test_count,
                     "initial", (json_int_t)config->replay_initial, "step", (json_int_t)config->replay_step, "steps",
                     (json_int_t)config->replay_steps, "questions", config->score_questions, "arms", arms);
}

/* --- the picture -------------------------------------------------------------------------------------------------- */

struct panel {
    int left, top;
    double low, high, first, last; /* of losses, of galaxies */
};

static double x_of(const struct panel *panel, double galaxies)
{
    return panel->left + PANEL_WIDTH * (galaxies - panel->first) / (panel->last - panel->first);
}

static double y_of(const struct panel *panel, double loss)
{
    return panel->top + PANEL_HEIGHT * (panel->high - loss) / (panel->high - panel->low);
}

static void draw_arm(struct text *svg, const struct results *results, const struct panel *panel, int arm, int number)
{
    struct arm_curves mine = curves(results, arm, number, results->galaxies);
    const char *colour = colours[arm % COLOURS];
    struct interval mean[SAVINGS_STEPS_MAX];
    for (int step = 0; step < results->steps; step++)
        mean[step] = savings_mean(&mine, step, 1);
    text_append(svg, "<polygon fill='%s' fill-opacity='0.12' points='", colour);
    for (int step = 0; step < results->steps; step++)
        text_append(svg, "%.1f,%.1f ", x_of(panel, mine.cost[step]), y_of(panel, mean[step].low));
    for (int step = results->steps; step-- > 0;)
        text_append(svg, "%.1f,%.1f ", x_of(panel, mine.cost[step]), y_of(panel, mean[step].high));
    text_append(svg, "'/><polyline fill='none' stroke-width='2' stroke='%s' points='", colour);
    for (int step = 0; step < results->steps; step++)
        text_append(svg, "%.1f,%.1f ", x_of(panel, mine.cost[step]), y_of(panel, mean[step].value));
    text_append(svg, "'/>");
}

/* The range of all arms' means, a little wider. */
static void find_range(const struct results *results, struct panel *panel, int number)
{
    panel->low = INFINITY;
    panel->high = -INFINITY;
    for (int arm = 0; arm < results->arm_count; arm++) {
        struct arm_curves mine = curves(results, arm, number, results->galaxies);
        for (int step = 0; step < results->steps; step++) {
            struct interval mean = savings_mean(&mine, step, 1);
            panel->low = fmin(panel->low, mean.low);
            panel->high = fmax(panel->high, mean.high);
        }
    }
    if (!(panel->high > panel->low))
        panel->high = panel->low + 1;
    panel->first = results->galaxies[0];
    panel->last = results->galaxies[results->steps - 1];
}

static void draw_panel(struct text *svg, const struct results *results, struct panel panel, int number)
{
    find_range(results, &panel, number);
    text_append(svg,
                "<text x='%d' y='%d'>%s</text><rect x='%d' y='%d' width='%d' height='%d' fill='none' stroke='#999'/>",
                panel.left, panel.top - 8, number ? panel_name(results, number) : "all questions together", panel.left,
                panel.top, PANEL_WIDTH, PANEL_HEIGHT);
    for (int i = 0; i <= 4; i++) {
        double loss = panel.low + (panel.high - panel.low) * i / 4,
               galaxies = panel.first + (panel.last - panel.first) * i / 4;
        text_append(svg, "<text x='%d' y='%.1f' text-anchor='end' fill='#555' font-size='11'>%.4g</text>",
                    panel.left - 5, y_of(&panel, loss) + 4, loss);
        text_append(svg, "<text x='%.1f' y='%d' text-anchor='middle' fill='#555' font-size='11'>%.0f</text>",
                    x_of(&panel, galaxies), panel.top + PANEL_HEIGHT + 15, galaxies);
    }
    for (int arm = 0; arm < results->arm_count; arm++)
        draw_arm(svg, results, &panel, arm, number);
}

static int draw(const struct results *results, struct text *svg)
{
    int panels = 0, step_x = PANEL_WIDTH + MARGIN + 20, step_y = PANEL_HEIGHT + 70;
    for (int number = 0; number <= results->replay->schema.questions; number++)
        panels += results->nll[number] != NULL;
    int top = HEAD_HEIGHT + (results->arm_count + 3) / 4 * LINE_HEIGHT;
    text_append(
        svg,
        "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='13'>"
        "<rect width='100%%' height='100%%' fill='white'/><text x='%d' y='30' font-size='19'>What asking by score "
        "teaches</text><text x='%d' y='52' fill='#555'>NLL of %zu test galaxies against galaxies asked about; mean of "
        "%d seeds with its 95 %% interval; less is better</text>",
        MARGIN + PANELS_ACROSS * step_x, top + (panels + 1) / PANELS_ACROSS * step_y, MARGIN, MARGIN,
        results->replay->test_count, results->seeds);
    for (int arm = 0; arm < results->arm_count; arm++)
        text_append(svg, "<text x='%d' y='%d' fill='%s'>&#9632; %s</text>", MARGIN + arm % 4 * 230,
                    HEAD_HEIGHT - 14 + arm / 4 * LINE_HEIGHT, colours[arm % COLOURS], results->arms[arm].name);
    for (int number = 0, at = 0; number <= results->replay->schema.questions; number++)
        if (results->nll[number]) {
            struct panel panel = {.left = MARGIN + at % PANELS_ACROSS * step_x,
                                  .top = top + at / PANELS_ACROSS * step_y + 10};
            draw_panel(svg, results, panel, number);
            at++;
        }
    text_append(svg, "</svg>\n");
    return text_error(svg);
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static int write_part(const struct replay *replay, const char *name, const char *bytes, size_t length)
{
    char path[FILE_PATH_BYTES];
    struct file_part part = {bytes, length};
    int result = file_path(path, sizeof path, "%s/%s", replay->out, name);
    return result ? result : file_write(path, &part, 1, 0644);
}

static int write_files(const struct results *results, const json_t *summary)
{
    struct text svg = text_new(CSV_BYTES_MAX);
    char *json = json_dumps(summary, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
    int result = text_error(&results->csv);
    if (!result)
        result = json ? draw(results, &svg) : error_set(ERROR_SYSTEM, "out of memory for the summary");
    if (!result)
        result = write_part(results->replay, "curves.csv", results->csv.bytes, results->csv.length);
    if (!result)
        result = write_part(results->replay, "summary.json", json, strlen(json));
    if (!result)
        result = write_part(results->replay, "curves.svg", svg.bytes, svg.length);
    free(json);
    text_free(&svg);
    return result;
}

int replay_report(const struct replay *replay, const struct replay_arm *arms, int count, json_t **ret_summary)
{
    static struct results results;
    results = (struct results){.replay = replay,
                               .arms = arms,
                               .arm_count = count,
                               .seeds = (int)replay->config->replay_seeds,
                               .steps = replay_steps(replay->config),
                               .csv = text_new(CSV_BYTES_MAX)};
    int result = read_runs(&results);
    *ret_summary = result ? NULL : summarise(&results);
    if (!result)
        result = write_files(&results, *ret_summary);
    free_results(&results);
    return result;
}

static void print_saving(const json_t *saving, FILE *out)
{
    fprintf(out, "  %s%5.1f %% (%.0f to %.0f)", json_is_true(json_object_get(saving, "reached")) ? " " : "<",
            100 * json_number_value(json_object_get(saving, "value")),
            100 * json_number_value(json_object_get(saving, "low")),
            100 * json_number_value(json_object_get(saving, "high")));
}

void replay_report_print(const json_t *summary, FILE *out)
{
    size_t index, at;
    const json_t *arm, *saving, *question;
    const char *key;
    fprintf(
        out,
        "saving of galaxies at the quality that %s has after a quarter, half and all of its budget, 95 %% interval\n",
        json_string_value(json_object_get(summary, "reference")));
    json_array_foreach(json_object_get(summary, "arms"), index, arm)
    {
        fprintf(out, "%-22s area %.4f", json_string_value(json_object_get(arm, "arm")),
                json_number_value(json_object_get(arm, "area")));
        json_array_foreach(json_object_get(arm, "saving_galaxies"), at, saving) print_saving(saving, out);
        fputs("\n", out);
        json_object_foreach(json_object_get((json_t *)(uintptr_t)arm, "questions"), key, question)
        {
            if (json_is_true(json_object_get(question, "worse_than_reference")))
                fprintf(out, "%-22s worse on %s at the end\n", "", key);
        }
    }
}
