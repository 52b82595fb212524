/*
 * The configuration: one table of keys (config.c) drives parsing, defaults, ranges, `triaged run -n`, the commented
 * example and reload. An unknown key, section or value out of range is an error with file:line.
 */
#ifndef TRIAGE_DAEMON_CONFIG_H
#define TRIAGE_DAEMON_CONFIG_H

#include "model/trunk_fit.h"

#include <stdint.h>
#include <stdio.h>

#define CONFIG_TEXT_BYTES 512

struct config {
    char file[CONFIG_TEXT_BYTES]; /* where it was read from, "" for defaults only */
    /* [instance] */
    char name[CONFIG_TEXT_BYTES], schema[CONFIG_TEXT_BYTES], state[CONFIG_TEXT_BYTES], run[CONFIG_TEXT_BYTES];
    int64_t seed;
    /* [database] */
    char database_url[CONFIG_TEXT_BYTES];
    int64_t database_wait_s;
    /* [images] */
    int64_t image_side, image_channels;
    /* [trunk] */
    char trunk_network[CONFIG_TEXT_BYTES], trunk_precision[CONFIG_TEXT_BYTES], trunk_weights[CONFIG_TEXT_BYTES];
    int64_t trunk_side, trunk_views, calibration_images;
    /* [worker] */
    int64_t threads, embed_chunk, job_timeout_s;
    /* [heads] */
    int64_t heads, passes, epochs_max, patience, batch;
    double dropout, learning_rate, weight_decay, warm_start;
    /* [training] */
    char schedule[CONFIG_TEXT_BYTES], augmentation[CONFIG_TEXT_BYTES], norm[CONFIG_TEXT_BYTES],
        class_weights[CONFIG_TEXT_BYTES];
    double training_rate, training_decay, block_decay, clip_norm, training_dropout, stochastic_depth, training_start,
        validation_share;
    char trunk_training[CONFIG_TEXT_BYTES];
    int64_t labels_min, stalled_fits, slice_s, blocks, training_batch, training_epochs_max, training_patience,
        warmup_epochs;
    /* [score] */
    char score_kind[CONFIG_TEXT_BYTES];
    /* [queue] */
    int64_t queue_size, retire_votes, lease_s;
    double holdout_share, random_share;
    /* [cycle] */
    int64_t votes_min, wait_ms;
    /* [votes] */
    int64_t vote_batch, poll_ms;
    /* [models] */
    int64_t models_keep;
    /* [feed] */
    char feed_publish[CONFIG_TEXT_BYTES], feed_snapshot[CONFIG_TEXT_BYTES], feed_record[CONFIG_TEXT_BYTES];
};

/* Fills in the defaults. */
void config_defaults(struct config *config);

/* Defaults, then the file (NULL = defaults only), then checks that belong to several keys. Messages name file:line. */
int config_read(const char *path, struct config *ret_config);

/* Sets one key from "section.key=value", as --set has it. ERROR_INPUT for what the file would not accept either. */
int config_set(struct config *config, const char *assignment);

/* Checks that belong to several keys; config_read() has done them. */
int config_check(const struct config *config);

/* Prints every key with its value and help, in the file's own syntax: the output reads back as the same configuration. */
void config_print(const struct config *config, FILE *out);

/*
 * Takes the reloadable keys of `next` into `config`. Keys that differ but need a restart are listed in `ret_restart`
 * ("images.side, trunk.side"), which may be empty.
 */
void config_reload(struct config *config, const struct config *next, char *ret_restart, int size);

/* Path of the decision tree: `schema` itself if it is a path, else NAME.ini in the installed or source schemas folder. */
int config_schema_path(const struct config *config, char *path, int size);

/* The score.kind as a number of model/information.h; the table already checked it. */
int config_score_kind(const struct config *config);

/* The trunk.precision as what a backend takes. */
enum precision config_precision(const struct config *config);

/* The recipe of [training]. */
void config_recipe(const struct config *config, struct trunk_recipe *ret_recipe);

#endif
