/*
 * Is it still worth asking? Advice from what each batch was expected to teach. Pure.
 *
 *   gain g_c      mean over the active galaxies of the queue after ranking c of the information their votes are expected to
 *                 bring, in nats; its error is the standard error over those galaxies
 *   best          the highest mean of STOPPING_WINDOW gains in a row so far
 *   ratio         latest gain / best; ratio_high = (gain + 1.645 error) / best, the upper end of a 90 % interval
 *   advice        stop, once ratio_high was below STOPPING_RATIO in each of the last STOPPING_WINDOW rankings
 *
 * What its error covers: that other galaxies of the same kind might have been on offer. What it does not: the gain is the
 * model's own expectation, too low where the model is surer than it should be, so a look at the measured gain (hold-out NLL per
 * label) belongs beside it; and the rule cannot see that another trunk would learn what these heads cannot. `best` comes from
 * early models, whose expectations are the least reliable.
 * (Rules of this kind: Ishibashi & Hino 2020, arXiv 2003.12967.)
 */
#ifndef TRIAGE_ACQUISITION_STOPPING_H
#define TRIAGE_ACQUISITION_STOPPING_H

#include <stddef.h>

#define STOPPING_WINDOW 5
#define STOPPING_RATIO  0.1

struct gain {
    int galaxies; /* active ones on offer; 0 = no information, e.g. in a cold start */
    double mean, error;
};

/* Gain of these galaxies: information [count] in nats. */
struct gain gain_of(const double *information, size_t count);

struct stopping {
    int rankings; /* with a gain, so far */
    double last[STOPPING_WINDOW], high[STOPPING_WINDOW];
    double best; /* 0 = too few rankings yet */
};

/* Takes in the next ranking. Gains without galaxies are passed over. Begin with a zeroed struct. */
void stopping_add(struct stopping *stopping, struct gain gain);

struct stopping_advice {
    int known; /* 0 = too few rankings to say: everything else is 0 */
    int stop;
    double ratio, ratio_high;
};
struct stopping_advice stopping_advise(const struct stopping *stopping);

#endif
