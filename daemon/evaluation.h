/*
 * What `triaged evaluate` knows of a model in detail, and the folder it writes about it. Not for choosing galaxies or judging
 * challengers: acquisition/ and model/gate.h.
 */
#ifndef TRIAGE_DAEMON_EVALUATION_H
#define TRIAGE_DAEMON_EVALUATION_H

#include "daemon/config.h"
#include "model/agreement.h"
#include "model/coverage.h"
#include "model/metrics.h"
#include "model/model_file.h"
#include "pool/pool.h"

#include <jansson.h>

struct evaluation {
    const struct config *config;
    struct schema schema;
    struct pool pool;
    struct backend_context *context;
    uint64_t *row;   /* [count] test galaxies that the oracle knows */
    uint16_t *votes; /* [count][answers] the oracle's */
    size_t count;
    double constant_nll, constant_nll_unbounded;
};

/* One model on all test galaxies. */
struct judged {
    struct metrics metrics;
    double nll[SCHEMA_QUESTIONS_MAX];   /* sum over `asked` galaxies */
    size_t asked[SCHEMA_QUESTIONS_MAX]; /* galaxies with a vote on the question */
    struct agreement agreement;
    struct coverage coverage[SCHEMA_QUESTIONS_MAX]; /* every answer's counts; of two answers the first one's */
    struct equivalent equivalent[SCHEMA_QUESTIONS_MAX];
};

/* By the passes of a ranking. Errors as head_score. */
int evaluation_judge(const struct evaluation *evaluation, const struct head_set *heads, uint64_t seed,
                     struct judged *ret_judged);

/*
 * Writes FOLDER/summary.json, questions.csv, answers.csv, confusion.csv, coverage.csv, credible.csv, calibration.svg and
 * confusion.svg: `judged` with the concentrations as the model scales them, `unscaled` as its heads say them.
 * Returns the summary too, the caller's.
 */
int evaluation_write(const struct evaluation *evaluation, const struct model *model, const struct judged *judged,
                     const struct judged *unscaled, const char *folder, json_t **ret_summary);

/* The two pictures, as text for a file; errors are sticky in the text. */
struct text;
void evaluation_draw_calibration(const struct evaluation *evaluation, const struct judged *judged,
                                 const struct judged *unscaled, struct text *svg);
void evaluation_draw_confusion(const struct evaluation *evaluation, const struct judged *judged, struct text *svg);

#endif
