/*
 * The fixed split of a pool, by hash of id, decided once: 5 % each for validation (stopping, calibration),
 * the gate and the test (read by `triaged evaluate` only); none of them is ever trained on. Small pools take
 * larger shares, so that each part aims at 50 galaxies.
 */
#ifndef TRIAGE_MODEL_SPLIT_H
#define TRIAGE_MODEL_SPLIT_H

#include <stdint.h>

enum split { SPLIT_TRAIN, SPLIT_VALIDATION, SPLIT_GATE, SPLIT_TEST };

/* Share of each part for a pool of this many galaxies when it is first filled: max(0.05, 60 / galaxies), at
 * most 0.2. */
double split_fraction(uint64_t galaxies);

/* The part this id belongs to. */
enum split split_of(const char *id_str, double fraction);

#endif
