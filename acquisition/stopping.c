/* See stopping.h. */
#include "acquisition/stopping.h"

#include <math.h>

struct gain gain_of(const double *information, size_t count)
{
    double sum = 0, squares = 0, n = (double)count;
    for (size_t i = 0; i < count; i++)
        sum += information[i];
    for (size_t i = 0; i < count; i++)
        squares += (information[i] - sum / n) * (information[i] - sum / n);
    return (struct gain){(int)count, count ? sum / n : 0, count > 1 ? sqrt(squares / (n - 1) / n) : 0};
}

void stopping_add(struct stopping *stopping, struct gain gain)
{
    if (!gain.galaxies || !isfinite(gain.mean) || !isfinite(gain.error))
        return;
    int place = stopping->rankings++ % STOPPING_WINDOW;
    stopping->last[place] = gain.mean;
    stopping->high[place] = gain.mean + 1.645 * gain.error;
    if (stopping->rankings < STOPPING_WINDOW)
        return;
    double mean = 0;
    for (int i = 0; i < STOPPING_WINDOW; i++)
        mean += stopping->last[i] / STOPPING_WINDOW;
    stopping->best = mean > stopping->best ? mean : stopping->best;
}

struct stopping_advice stopping_advise(const struct stopping *stopping)
{
    struct stopping_advice advice = {0};
    if (!(stopping->best > 0))
        return advice;
    int latest = (stopping->rankings - 1) % STOPPING_WINDOW;
    advice = (struct stopping_advice){1, 1, stopping->last[latest] / stopping->best,
                                      stopping->high[latest] / stopping->best};
    for (int i = 0; i < STOPPING_WINDOW; i++)
        advice.stop &= stopping->high[i] < STOPPING_RATIO * stopping->best;
    return advice;
}
