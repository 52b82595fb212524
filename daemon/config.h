/*
 * The configuration: one table of keys (config.c) drives parsing, defaults, ranges, `triaged run -n`, the commented
 * example and reload. An unknown key, section or value out of range is an error with file:line.
 */
#ifndef TRIAGE_DAEMON_CONFIG_H
#define TRIAGE_DAEMON_CONFIG_H

#include "acquisition/score.h"
#include "model/trunk_fit.h"

#include <stdint.h>
#include <stdio.h>

#define CONFIG_TEXT_BYTES 512

#define TRUNK_MC_VIEWS_MAX 16

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
    char image_folders[CONFIG_TEXT_BYTES];
    /* [trunk] */
    char trunk_network[CONFIG_TEXT_BYTES], trunk_precision[CONFIG_TEXT_BYTES], trunk_weights[CONFIG_TEXT_BYTES];
    int64_t trunk_side, trunk_views, mc_views, calibration_images;
    double mc_stochastic_depth;
    /* [worker] */
    char backend[CONFIG_TEXT_BYTES], fallback[CONFIG_TEXT_BYTES];
    int64_t threads, devices, embed_chunk, job_timeout_s;
    /* [heads] */
    int64_t heads, passes, epochs_max, patience, batch, labels_limit;
    double dropout, learning_rate, bias_rate, weight_decay, warm_start;
    /* [training] */
    char schedule[CONFIG_TEXT_BYTES], augmentation[CONFIG_TEXT_BYTES], norm[CONFIG_TEXT_BYTES],
        class_weights[CONFIG_TEXT_BYTES];
    double training_rate, training_decay, block_decay, clip_norm, training_dropout, stochastic_depth, training_start,
        validation_share;
    char trunk_training[CONFIG_TEXT_BYTES];
    int64_t labels_min, stalled_fits, slice_s, blocks, training_batch, training_epochs_max, training_patience,
        warmup_epochs;
    /* [score] */
    char bagging[CONFIG_TEXT_BYTES], scaling[CONFIG_TEXT_BYTES], unit_length[CONFIG_TEXT_BYTES];
    char score_kind[CONFIG_TEXT_BYTES], score_questions[CONFIG_TEXT_BYTES];
    double score_power;
    char replay_track[CONFIG_TEXT_BYTES], replay_arms[CONFIG_TEXT_BYTES];
    int64_t replay_seeds, replay_initial, replay_step, replay_steps;
    double replay_test_share;
    /* [queue] */
    int64_t queue_size, retire_votes, lease_s;
    double holdout_share, random_share, cluster_share, duplicate_arcsec, duplicate_distance, artifact_max,
        outlier_distance, retire_information;
    char cold_start[CONFIG_TEXT_BYTES];
    int64_t shortlist, clusters, review_size, retire_votes_min;
    /* [cycle] */
    int64_t votes_min, wait_ms, late_s;
    /* [votes] */
    int64_t vote_batch, poll_ms;
    char vote_voter[CONFIG_TEXT_BYTES], vote_count_also[CONFIG_TEXT_BYTES], vote_weighting[CONFIG_TEXT_BYTES];
    /* [models] */
    int64_t models_keep;
    /* [feed] */
    char feed_security[CONFIG_TEXT_BYTES], feed_keys[CONFIG_TEXT_BYTES];
    char feed_publish[CONFIG_TEXT_BYTES], feed_snapshot[CONFIG_TEXT_BYTES], feed_record[CONFIG_TEXT_BYTES];
    int64_t metrics_port;
    char log_format[CONFIG_TEXT_BYTES];
};

/* Fills in the defaults. */
void config_defaults(struct config *config);

/* Defaults, then the file (NULL = defaults only), then checks that belong to several keys. Messages name file:line. */
int config_read(const char *path, struct config *ret_config);

/* Sets one key from "section.key=value", as --set has it. ERROR_INPUT for what the file would not accept either. */
int config_set(struct config *config, const char *assignment);

/* Checks that belong to several keys; config_read() has done them. */
int config_check(const struct config *config);

/* Prints every key with its value and help, in the file's own syntax: the output reads back as the same configuration, but for a
 * password in database.url, which is left out. */
void config_print(const struct config *config, FILE *out);

/*
 * Takes the reloadable keys of `next` into `config`. Keys that differ but need a restart are listed in `ret_restart`
 * ("images.side, trunk.side"), which may be empty.
 */
void config_reload(struct config *config, const struct config *next, char *ret_restart, int size);

/* Path of the decision tree: `schema` itself if it is a path, else NAME.ini in the installed or source schemas folder. */
int config_schema_path(const struct config *config, char *path, int size);

/* heads.passes, as a multiple of this many heads and of trunk.mc_views. */
int config_passes(const struct config *config, int heads);

/* log.format: 1 = JSON. */
int config_log_json(const struct config *config);

/* heads.bagging, heads.scaling and heads.unit_length, 0 or 1. */
int config_bagging(const struct config *config);
int config_scaling(const struct config *config);
int config_unit_length(const struct config *config);

/* queue.cold_start: 1 = typical galaxies first, 0 = only random draws. */
int config_typical_first(const struct config *config);

/* The [score] section for this schema. ERROR_INPUT for a question it does not have. */
int config_score_rule(const struct config *config, const struct schema *schema, struct score_rule *ret_rule);

/* The trunk.precision as what a backend takes. */
enum precision config_precision(const struct config *config);

/* training.augmentation: what galaxies are trained on, and by its plain view judged, predicted and embedded on. */
enum augmentation config_augmentation(const struct config *config);

/* The recipe of [training]. */
void config_recipe(const struct config *config, struct trunk_recipe *ret_recipe);

#endif
