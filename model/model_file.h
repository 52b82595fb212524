/*
 * A numbered model as one immutable file (models/000012.model): everything needed to predict and to go on
 * training. Not for which model is champion: that pointer belongs to the daemon.
 *
 * Layout, little-endian, no padding:
 *   "GZMODEL\n"  uint32 format version  uint32 0  uint64 bytes of the whole file
 *   the fields of struct model in the order of the table in model_file.c
 *   the block of head_set_floats() floats
 *   uint64 XXH3 of every byte before it
 */
#ifndef TRIAGE_MODEL_MODEL_FILE_H
#define TRIAGE_MODEL_MODEL_FILE_H

#include "model/head.h"
#include "model/schema.h"

#include <stdint.h>

#define MODEL_FORMAT_VERSION 3

struct model {
    uint32_t number, parent; /* parent 0: none */
    int64_t created_unix_ms;
    char schema_name[SCHEMA_NAME_BYTES];
    char schema_hash[HASH_TEXT_BYTES];
    char architecture[48]; /* of the trunk: "efficientnet_b0" */
    char trunk_name[48];   /* which weights */
    uint32_t trunk_version;
    uint64_t seed;
    uint64_t vote_cursor; /* xid up to which votes were used */
    uint64_t train_galaxies, validation_galaxies, gate_galaxies;
    double train_loss, validation_loss;                /* nats per galaxy and head; NaN where unknown */
    double champion_nll, challenger_nll, constant_nll; /* on the gate galaxies; NaN where unknown */
    struct head_set heads;                             /* owned; heads.model == number */
};

/* Writes it durably (file.h): either the whole file is there or nothing changed. */
int model_save(const char *path, const struct model *model);

/*
 * Reads and verifies; free with model_free(). ERROR_NOT_FOUND; ERROR_INPUT for a file that is not a model,
 * truncated or damaged; ERROR_STATE for one written by a newer version or for another schema (`expected`
 * NULL: any).
 */
int model_load(const char *path, const struct schema *expected, struct model *ret_model);

/* Only which trunk it is for, from the head of the file: quick, and no word on the rest. Errors as model_load(). */
int model_trunk(const char *path, uint32_t *ret_trunk);

void model_free(struct model *model); /* zeroed is fine */

#endif
