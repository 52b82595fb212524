/* The best constant concentrations for a set of votes; see likelihood.h. */
#include "base/error.h"
#include "model/likelihood.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 2000

/*
 * The NLL of all rows depends on the votes only through histograms: rows[i] = number of galaxies with more
 * than i votes, because ln (x)_k = sum over i < k of ln(x + i).
 */
struct histogram {
    uint32_t *rows;
    size_t length;
};

struct problem {
    int count; /* answers */
    struct histogram answer[SCHEMA_PER_QUESTION], all;
    double lower, upper;
};

static int histogram_new(struct histogram *histogram, size_t length)
{
    histogram->length = length;
    histogram->rows = calloc(length + 1, sizeof *histogram->rows);
    return histogram->rows ? 0 : error_set(ERROR_SYSTEM, "out of memory counting votes for the constant fit");
}

/* From "galaxies with exactly i votes" to "galaxies with more than i". */
static void histogram_accumulate(struct histogram *histogram)
{
    uint32_t above = 0;
    for (size_t i = histogram->length + 1; i-- > 0;) {
        uint32_t here = histogram->rows[i];
        histogram->rows[i] = above;
        above += here;
    }
}

static const uint16_t *votes_of(const struct vote_rows *rows, size_t i, int first)
{
    uint64_t row = rows->row ? rows->row[i] : i;
    return (const uint16_t *)((const char *)rows->votes + row * rows->stride_bytes) + first;
}

static void problem_free(struct problem *problem)
{
    for (int a = 0; a < problem->count; a++)
        free(problem->answer[a].rows);
    free(problem->all.rows);
}

static int problem_count(struct problem *problem, const struct vote_rows *rows, const struct question *question)
{
    size_t most[SCHEMA_PER_QUESTION] = {0}, most_all = 0;
    problem->count = question->count;
    for (size_t i = 0; i < rows->count; i++) {
        const uint16_t *votes = votes_of(rows, i, question->first);
        size_t total = 0;
        for (int a = 0; a < question->count; a++) {
            most[a] = votes[a] > most[a] ? votes[a] : most[a];
            total += votes[a];
        }
        most_all = total > most_all ? total : most_all;
    }
    int result = histogram_new(&problem->all, most_all);
    for (int a = 0; a < question->count && !result; a++)
        result = histogram_new(&problem->answer[a], most[a]);
    for (size_t i = 0; i < rows->count && !result; i++) {
        const uint16_t *votes = votes_of(rows, i, question->first);
        size_t total = 0;
        for (int a = 0; a < question->count; a++) {
            problem->answer[a].rows[votes[a]]++;
            total += votes[a];
        }
        problem->all.rows[total]++;
    }
    for (int a = 0; a < question->count && !result; a++)
        histogram_accumulate(&problem->answer[a]);
    if (!result)
        histogram_accumulate(&problem->all);
    return result;
}

/* sum_i rows[i] f(x + i) for f = ln, 1/x, 1/x^2. */
struct moments {
    double log, slope, curvature;
};

static struct moments histogram_at(const struct histogram *histogram, double x)
{
    struct moments sum = {0, 0, 0};
    for (size_t i = 0; i < histogram->length; i++) {
        double y = x + (double)i, weight = histogram->rows[i];
        sum.log += weight * log(y);
        sum.slope += weight / y;
        sum.curvature += weight / (y * y);
    }
    return sum;
}

struct point {
    double alpha[SCHEMA_PER_QUESTION];
    struct moments answer[SCHEMA_PER_QUESTION], all;
    double nll; /* without the constant coefficients */
};

static void evaluate(const struct problem *problem, struct point *point)
{
    double sum = 0;
    point->nll = 0;
    for (int a = 0; a < problem->count; a++) {
        sum += point->alpha[a];
        point->answer[a] = histogram_at(&problem->answer[a], point->alpha[a]);
        point->nll -= point->answer[a].log;
    }
    point->all = histogram_at(&problem->all, sum);
    point->nll += point->all.log;
}

static double clamp(const struct problem *problem, double alpha)
{
    return alpha < problem->lower ? problem->lower : alpha > problem->upper ? problem->upper : alpha;
}

/* A bound holds an answer when the gradient presses it there. */
static int is_held(const struct problem *problem, const struct point *point, int a)
{
    double gradient = point->all.slope - point->answer[a].slope;
    return (point->alpha[a] <= problem->lower && gradient >= 0) ||
           (point->alpha[a] >= problem->upper && gradient <= 0) || problem->answer[a].length == 0;
}

/* Minka's fixed point; without votes for an answer it goes to the lower bound. Never makes the NLL worse. */
static void fixed_point_step(const struct problem *problem, const struct point *from, struct point *to)
{
    for (int a = 0; a < problem->count; a++)
        to->alpha[a] = clamp(problem, from->alpha[a] * from->answer[a].slope / from->all.slope);
    evaluate(problem, to);
}

/* Newton on the answers no bound holds; the Hessian diag(d) - z 11' is inverted by Sherman and Morrison. 0 if
 * not definite. */
static int newton_step(const struct problem *problem, const struct point *from, struct point *to)
{
    double z = from->all.curvature, sum_g = 0, sum_1 = 0;
    for (int a = 0; a < problem->count; a++)
        if (!is_held(problem, from, a)) {
            sum_g += (from->all.slope - from->answer[a].slope) / from->answer[a].curvature;
            sum_1 += 1 / from->answer[a].curvature;
        }
    double definite = 1 - z * sum_1;
    if (!(definite > 1e-9))
        return 0;
    for (int a = 0; a < problem->count; a++) {
        double step = (from->all.slope - from->answer[a].slope + z * sum_g / definite) / from->answer[a].curvature;
        double moved = from->alpha[a] - step;
        if (moved < from->alpha[a] / 4) /* stay positive and keep the step sane */
            moved = from->alpha[a] / 4;
        to->alpha[a] = is_held(problem, from, a) ? clamp(problem, problem->answer[a].length ? from->alpha[a] : 0)
                                                 : clamp(problem, moved);
    }
    evaluate(problem, to);
    return to->nll < from->nll;
}

static void solve(const struct problem *problem, struct point *best)
{
    struct point next;
    for (int a = 0; a < problem->count; a++)
        best->alpha[a] =
            clamp(problem, 10.0 * (problem->answer[a].length ? problem->answer[a].rows[0] : 0) / problem->all.rows[0]);
    evaluate(problem, best);
    for (int step = 0; step < STEPS_MAX; step++) {
        if (!newton_step(problem, best, &next))
            fixed_point_step(problem, best, &next);
        double moved = 0;
        for (int a = 0; a < problem->count; a++)
            moved = fmax(moved, fabs(next.alpha[a] / best->alpha[a] - 1));
        if (next.nll <= best->nll)
            *best = next;
        if (moved < 1e-10 || next.nll > best->nll)
            return;
    }
}

int likelihood_constant_fit(const struct schema *schema, const struct vote_rows *rows, double lower, double upper,
                            float *alpha)
{
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        struct problem problem = {.lower = lower, .upper = upper};
        struct point best;
        int result = problem_count(&problem, rows, question);
        if (!result && problem.all.length)
            solve(&problem, &best);
        for (int a = 0; a < question->count && !result; a++)
            alpha[question->first + a] = (float)(problem.all.length ? best.alpha[a] : fmin(2, upper));
        problem_free(&problem);
        if (result)
            return result;
    }
    return 0;
}
