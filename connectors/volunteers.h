/*
 * Simulated volunteers: draws valid walks down a decision tree from what is known of each galaxy. Pure
 * drawing; where the votes go is the caller's business, and so is reading the catalogue they are drawn from.
 *
 * A walk visits the questions in schema order. A question is asked if it opens the tree (nothing in
 * asked_after) or if one of its asked_after answers was given in this walk; each asked question gets exactly
 * one answer.
 *
 * Two sources, one per oracle:
 *   probabilities  of each answer given that its question is asked; any number of walks per galaxy
 *   counts         the votes of a real (or simulated) catalogue, drawn without replacement in proportion to
 * what remains. A question whose counts ran out is skipped, and what hangs on it; when no opening question
 * has any left the galaxy is exhausted. Where the counts came from valid walks, all of them are used up
 * exactly.
 *
 * Random numbers: domain PHILOX_VOTES, counter {question, hash of id_str, classification}, so a walk is a
 * pure function of (seed, galaxy, classification) and of what remains.
 */
#ifndef TRIAGE_CONNECTORS_VOLUNTEERS_H
#define TRIAGE_CONNECTORS_VOLUNTEERS_H

#include "model/schema.h"

#include <stddef.h>
#include <stdint.h>

#define ORACLE_ID_BYTES     64       /* of an id_str with its terminator */
#define ORACLE_GALAXIES_MAX 20000000 /* of one oracle */
#define ORACLE_COUNT_MAX    65535    /* votes for one answer */

enum oracle_source { ORACLE_PROBABILITIES, ORACLE_COUNTS };

/* What is known of each galaxy. One thread at a time: walks from counts consume them. */
struct oracle {
    const struct schema *schema; /* the caller's, kept alive by it */
    enum oracle_source source;
    size_t galaxies, capacity;
    char (*id)[ORACLE_ID_BYTES];
    uint32_t *key;       /* [galaxies] low half of hash_64(id) */
    float *probability;  /* [galaxies][answers], ORACLE_PROBABILITIES */
    uint16_t *remaining; /* [galaxies][answers], ORACLE_COUNTS */
    uint32_t *slot;      /* hash table over id: galaxy + 1, 0 = free */
    size_t slots;        /* a power of two */
};

/* An empty oracle. Free with oracle_free(). */
void oracle_new(const struct schema *schema, enum oracle_source source, struct oracle *ret_oracle);
void oracle_free(struct oracle *oracle);

/*
 * Adds a galaxy. Probabilities are normalised within each question; a question with nothing but zeros is
 * never answered. ERROR_INPUT for an empty or repeated id, a negative or non-finite value, a count that is no
 * whole number; ERROR_LIMIT for an id or count that is too large; ERROR_SYSTEM without memory. On error
 * nothing was added. value  [schema->answers]
 */
int oracle_add(struct oracle *oracle, const char *id, const double *value);

/* Number of the galaxy, or -1. */
int64_t oracle_find(const struct oracle *oracle, const char *id);

/* 1 when no further walk can be drawn. */
int oracle_exhausted(const struct oracle *oracle, size_t galaxy);

/*
 * Draws one walk. Returns the number of votes in it; 0 when the galaxy is exhausted.
 *   classification  number of the walk within this galaxy
 *   answer          [schema->questions] OUTPUT: the answer's index, or -1 where the question was not asked
 */
int volunteers_walk(struct oracle *oracle, size_t galaxy, uint64_t seed, uint32_t classification, int *answer);

/*
 * The same from probabilities that are in no oracle.
 *   probability  [schema->answers], sums to 1 within each question
 *   key          stands for the galaxy in the counter
 */
int volunteers_walk_probabilities(const struct schema *schema, const float *probability, uint64_t seed, uint32_t key,
                                  uint32_t classification, int *answer);

#endif
