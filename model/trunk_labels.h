/*
 * What the service begins to teach a trunk with, as one file (models/trunk-N.labels): recipe, galaxies and their votes, so that
 * neither votes nor settings that come later change a run. Not for where the run is: that is its checkpoint (trunk_fit.h).
 *
 * Layout, little-endian:
 *   "GZLABEL\n"  uint32 format version  uint32 bytes of struct trunk_recipe
 *   uint64 galaxies to train on, uint64 galaxies to validate on, uint64 answers
 *   struct trunk_recipe
 *   uint64 row [galaxies], those to train on first
 *   uint16 votes [galaxies][answers]
 *   uint64 XXH3 of every byte before it
 */
#ifndef TRIAGE_MODEL_TRUNK_LABELS_H
#define TRIAGE_MODEL_TRUNK_LABELS_H

#include "model/trunk_fit.h"

struct trunk_labels {
    struct trunk_recipe recipe;
    uint64_t train_count, validation_count, answers;
    uint64_t *row;   /* [train_count + validation_count] of the pool */
    uint16_t *votes; /* [train_count + validation_count][answers] */
};

/* Room for so many galaxies, zeroed; free with trunk_labels_free(). */
int trunk_labels_new(uint64_t galaxies, uint64_t answers, struct trunk_labels *ret_labels);
void trunk_labels_free(struct trunk_labels *labels); /* zeroed is fine */

/* Written durably: either the whole file is there or nothing changed. */
int trunk_labels_save(const char *path, const struct trunk_labels *labels);

/*
 * Reads and verifies. ERROR_NOT_FOUND; ERROR_INPUT for a file that is none, cut short or damaged, of another number of answers,
 * or that names a row the pool (of `rows` galaxies) does not have; ERROR_STATE for another version.
 */
int trunk_labels_load(const char *path, uint64_t answers, uint64_t rows, struct trunk_labels *ret_labels);

#endif
