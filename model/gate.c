/* See gate.h. */
#include "model/gate.h"
#include "base/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static double mean(const double *value, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += value[i];
    return count ? sum / (double)count : NAN;
}

/* Relative change on one resample: `count` galaxies drawn with replacement. */
static double resample(const double *champion, const double *challenger, size_t count, uint64_t seed, uint32_t number)
{
    double sum_champion = 0, sum_challenger = 0;
    struct philox drawn = {{0}};
    for (size_t i = 0; i < count; i++) {
        if (i % 4 == 0)
            drawn = philox(seed, (uint32_t)(i / 4), number, 0, PHILOX_GATE);
        size_t galaxy = (size_t)((uint64_t)drawn.word[i % 4] * count >> 32);
        sum_champion += champion[galaxy];
        sum_challenger += challenger[galaxy];
    }
    return sum_challenger / sum_champion - 1;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double upper_bound(const double *champion, const double *challenger, size_t count, uint64_t seed)
{
    double change[GATE_RESAMPLES];
    for (uint32_t i = 0; i < GATE_RESAMPLES; i++) {
        change[i] = resample(champion, challenger, count, seed, i);
        if (isnan(change[i])) /* 0 / 0: a resample without any vote says nothing */
            change[i] = 0;
    }
    qsort(change, GATE_RESAMPLES, sizeof *change, compare);
    return change[GATE_RESAMPLES * 95 / 100];
}

/* The cases without a comparison. Returns 1 when decided. */
static int decide_without(const double *champion, const double *challenger, size_t count, struct gate_report *report)
{
    char *reason = report->reason;
    size_t size = sizeof report->reason;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(challenger[i])) {
            snprintf(reason, size, "refused: its likelihood is not finite on gate galaxy %zu", i);
            return 1;
        }
    if (!champion) {
        report->promoted = 1;
        snprintf(reason, size, "promoted: there is no champion yet");
        return 1;
    }
    if (count == 0) {
        snprintf(reason, size, "refused: no gate galaxy has votes to compare with the champion");
        return 1;
    }
    if (!isfinite(report->champion_nll)) {
        report->promoted = 1;
        snprintf(reason, size, "promoted: the champion's likelihood is not finite");
        return 1;
    }
    if (report->champion_nll <= 0) {
        snprintf(reason, size, "refused: the gate galaxies have no votes");
        return 1;
    }
    return 0;
}

void gate_decide(const double *champion, const double *challenger, size_t count, uint64_t seed,
                 struct gate_report *ret_report)
{
    struct gate_report *report = ret_report;
    *report = (struct gate_report){.galaxies = count, .change = NAN, .bound = NAN};
    report->champion_nll = champion ? mean(champion, count) : NAN;
    report->challenger_nll = mean(challenger, count);
    if (decide_without(champion, challenger, count, report))
        return;
    report->change = report->challenger_nll / report->champion_nll - 1;
    if (count < GATE_GALAXIES_MIN) {
        report->promoted = report->change < 0;
        snprintf(report->reason, sizeof report->reason,
                 "%s: NLL %+.2f %% on %zu gate galaxies; below %d only an improvement is promoted",
                 report->promoted ? "promoted" : "refused", 100 * report->change, count, GATE_GALAXIES_MIN);
        return;
    }
    report->bound = upper_bound(champion, challenger, count, seed);
    report->promoted = report->bound < GATE_TOLERANCE;
    snprintf(report->reason, sizeof report->reason,
             "%s: NLL %+.2f %% on %zu gate galaxies, upper 95 %% bound %+.2f %% (limit %+.2f %%)",
             report->promoted ? "promoted" : "refused", 100 * report->change, count, 100 * report->bound,
             100 * GATE_TOLERANCE);
}
