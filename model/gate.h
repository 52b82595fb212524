/*
 * May the challenger replace the champion? A paired bootstrap (Efron 1979) on the gate galaxies, which
 * neither model was trained or stopped on. Not for measuring: per-galaxy NLLs come from metrics.h.
 *
 *   change   (mean NLL of the challenger - mean NLL of the champion) / mean NLL of the champion
 *   bound    the 95th percentile of `change` over GATE_RESAMPLES resamples of the galaxies, both models on
 *            the same galaxies (a one-sided 95 % upper bound)
 *
 * The challenger is promoted when bound < GATE_TOLERANCE: retraining on more votes should hardly ever be
 * refused, a broken fit always. With fewer than GATE_GALAXIES_MIN galaxies the bound means little and only
 * change < 0 promotes. Without galaxies nothing is promoted, unless there is no champion: any model is better
 * than none.
 */
#ifndef TRIAGE_MODEL_GATE_H
#define TRIAGE_MODEL_GATE_H

#include <stddef.h>
#include <stdint.h>

#define GATE_RESAMPLES    2000
#define GATE_TOLERANCE    0.005
#define GATE_GALAXIES_MIN 50

struct gate_report {
    size_t galaxies;
    double champion_nll, challenger_nll; /* means; NaN where unknown */
    double change, bound;                /* relative; NaN where unknown (bound: below GATE_GALAXIES_MIN) */
    int promoted;
    char reason[200]; /* one sentence for the log and `status` */
};

/*
 * champion, challenger  [count] NLL per galaxy, same galaxies in the same order; `champion` NULL when there
 * is none. The challenger is refused if any of its NLLs is not finite. Same inputs and seed, same report.
 */
void gate_decide(const double *champion, const double *challenger, size_t count, uint64_t seed,
                 struct gate_report *ret_report);

#endif
