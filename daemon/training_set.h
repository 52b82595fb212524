/*
 * Galaxies and labels for `triaged finetune`: a catalogue, its images decoded once into a mapped column, and labels of any
 * kind the network can learn. Not for the service's own votes (those are in the pool).
 */
#ifndef TRIAGE_DAEMON_TRAINING_SET_H
#define TRIAGE_DAEMON_TRAINING_SET_H

#include "daemon/config.h"
#include "model/safetensors.h"
#include "model/target.h"
#include "model/trunk_fit.h"
#include "pool/column.h"

#include <stddef.h>
#include <stdint.h>

#define TRAINING_ROWS_MAX   10000000
#define TRAINING_NAME_BYTES 64

struct training_set {
    struct target target;
    struct safetensors_head head; /* what its outputs mean */
    const char
        *output[TARGET_OUTPUTS_MAX]; /* their names: answers, classes, the column; binomial: "other", the answer */
    char class_name[TARGET_OUTPUTS_MAX][TRAINING_NAME_BYTES]; /* TARGET_CLASSES, in alphabetical order */
    struct column pixels;
    char (*id_str)[64];
    uint64_t *key; /* hash of id_str */
    float *labels; /* [rows][outputs] */
    uint64_t *train_row, *validation_row, *test_row;
    uint64_t *open_row; /* of the test catalogue, without label: there to be predicted only */
    size_t rows, train_count, validation_count, test_count, open_count, unlabelled, bad;
};

/* What to read. */
struct training_source {
    const char *catalogue, *test_catalogue; /* the latter may be NULL */
    const char *labels; /* "votes": the schema's columns; else the name of a column, or for "binomial" of an answer */
    const char *task;   /* "votes", "classes", "value" or "binomial" */
    const char *folder; /* where the decoded images go, and bad.csv, the list of images that cannot be read */
    uint64_t seed;
};

/*
 * Reads both catalogues, decodes the images on all cores with a progress line, and splits the first one by hash of id into
 * training and validation. Rows without readable image take no part, nor do those of the first without label. ERROR_INPUT naming file, line and value for
 * labels that do not fit the task, unknown columns, or a galaxy in both catalogues. Free with training_set_close().
 */
int training_set_open(const struct config *config, const struct schema *schema, const struct training_source *source,
                      struct training_set *ret_set);
void training_set_close(struct training_set *set); /* zeroed is fine */

#endif
