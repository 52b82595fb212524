/*
 * The folder of immutable models: NNNNNN.model files, trunk-NNNNNN.safetensors, and `champion`, a one-line file with
 * the number of the model in force. Promotion and rollback are one atomic replacement of that file.
 */
#ifndef TRIAGE_DAEMON_MODELS_H
#define TRIAGE_DAEMON_MODELS_H

#include "daemon/config.h"

#include <stddef.h>
#include <stdint.h>

int models_path(const struct config *config, uint32_t number, char *path, size_t size);
int models_trunk_path(const struct config *config, uint32_t trunk, char *path, size_t size);

int models_checkpoint_path(const struct config *config, uint32_t trunk, char *path, size_t size);
int models_labels_path(const struct config *config, uint32_t trunk, char *path, size_t size);

/* The trunk of a stored model. */
int models_trunk_of(const struct config *config, uint32_t number, uint32_t *ret_trunk);

/* Highest number of a trunk that is there, or in training. */
int models_highest_trunk(const struct config *config, uint32_t *ret_trunk);

/* Deletes what belongs to a trunk: weights, checkpoint, labels. */
void models_delete_trunk(const struct config *config, uint32_t trunk);

/* Number of the champion; 0 when there is none yet. */
int models_champion(const struct config *config, uint32_t *ret_number);
int models_promote(const struct config *config, uint32_t number);

/* The numbers of all stored models in ascending order, at most `limit`. Returns how many, or a negative code. */
int models_list(const struct config *config, uint32_t *numbers, int limit);

/* Raises `*number` to the highest number a stored model has, so that no file is ever written twice. */
int models_highest(const struct config *config, uint32_t *number);

/* Deletes the oldest models beyond models.keep, sparing the champion. Returns how many went, or a negative code. */
int models_prune(const struct config *config);

#endif
