/*
 * The folder of immutable models: NNNNNN.model files, trunk-NNNNNN.safetensors, and `champion`, a one-line file with
 * the number of the model in force. Promotion and rollback are one atomic replacement of that file; `previous` holds the
 * number it had before.
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
int models_stopped_path(const struct config *config, uint32_t trunk, char *path, size_t size);

/* The trunk of a stored model. ERROR_STATE for one of another network than trunk.network. */
int models_trunk_of(const struct config *config, const struct schema *schema, uint32_t number, uint32_t *ret_trunk);

/* Highest number of a trunk that is there, or in training. */
int models_highest_trunk(const struct config *config, uint32_t *ret_trunk);

/* Deletes what a run needed to go on, checkpoint, labels and whether it was stopped; or all that belongs to a trunk, its weights too. */
void models_delete_run(const struct config *config, uint32_t trunk);
void models_delete_trunk(const struct config *config, uint32_t trunk);

/* Renames what a run of a trunk left that cannot be gone on from to set-aside.checkpoint and .labels, in place of what was set
 * aside before. */
void models_set_aside_checkpoint(const struct config *config, uint32_t trunk);
void models_set_aside_trunk(const struct config *config, uint32_t trunk);

/* Number of the champion; 0 when there is none yet. */
int models_champion(const struct config *config, uint32_t *ret_number);
int models_promote(const struct config *config, uint32_t number);

/*
 * The champion if its file is sound; `words` is then "". Where its file or the pointer to it is damaged or gone, the file is
 * set aside (ending .damaged), the champion before it (models/previous), else the newest readable model below it, is promoted,
 * and `words` tell what was wrong; 0 when none can be read. ERROR_STATE for a model of a newer program or another
 * network.
 */
int models_sound_champion(const struct config *config, const struct schema *schema, uint32_t *ret_number, char *words,
                          size_t size);

/* The numbers of all stored models in ascending order, at most `limit`. Returns how many, or a negative code. */
int models_list(const struct config *config, uint32_t *numbers, int limit);

/* Raises `*number` to the highest number a stored model has, so that no file is ever written twice. */
int models_highest(const struct config *config, uint32_t *number);

/* Deletes the oldest models beyond models.keep, sparing the champion and the one before it, and weights of trunks that no model
 * left is for. Returns how many models went, or a negative code. */
int models_prune(const struct config *config);

#endif
