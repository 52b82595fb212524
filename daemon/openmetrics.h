/*
 * What the service counts and measures about itself, as OpenMetrics text (https://openmetrics.io, version 1.0.0) for
 * Prometheus and its kin; `triagectl metrics` and http.c hand it out. No label holds a galaxy or a volunteer. Not for
 * operators' eyes: that is `triagectl status`.
 */
#ifndef TRIAGE_DAEMON_OPENMETRICS_H
#define TRIAGE_DAEMON_OPENMETRICS_H

#include "base/text.h"

#include <stdint.h>

#define OPENMETRICS_TYPE      "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define OPENMETRICS_BYTES_MAX ((size_t)256 << 10)

struct daemon;

/* Durations; how many took at most each of the bounds, and all. */
#define METER_BOUNDS 8
extern const double meter_bounds_s[METER_BOUNDS];
struct meter_histogram {
    uint64_t at_most[METER_BOUNDS], count;
    double sum_s;
};
void meter_observe(struct meter_histogram *histogram, double seconds);

enum meter_bad { METER_BAD_ABSENT, METER_BAD_FORMAT, METER_BAD_SIZE, METER_BAD_OTHER, METER_BAD_KINDS };

/* What only metrics need to remember, since the start. */
struct meters {
    uint64_t scored;                                          /* galaxies */
    struct meter_histogram ranking, decoding;                 /* of one job each */
    uint64_t bad[METER_BAD_KINDS];                            /* images that could not be read */
    int64_t trained_unix_ms;                                  /* the last fit that ended well, 0 = none */
    double train_loss, calibration_error, coverage_80, brier; /* of the last fit, on gate galaxies; NaN unknown */
};

/* An image's reason, by the words connectors/image.h uses. */
void meter_bad_image(struct meters *meters, const char *reason);

/* The answer of a fit. `answer` is what daemon/jobs.h says. */
#include <jansson.h>
void meter_fit(struct meters *meters, const json_t *answer);

/* Appends every series and the end mark. */
void openmetrics_write(const struct daemon *daemon, struct text *out);

#endif
