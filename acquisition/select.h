/*
 * Which galaxies to ask about next: the active stream by score, the random stream with its inclusion probability,
 * pins. Pure: no clock, no I/O, no globals; memory is bounded by the number of slots, not by the pool.
 *
 * Galaxies are offered one by one in any order; the outcome does not depend on that order, nor on threads or batches:
 * scores are compared after rounding to 2^-20 nat, ties go to the lower galaxy key, and the random stream takes the
 * galaxies with the smallest hash Philox(seed, key, cycle), which is a uniform draw without replacement.
 *
 * The validation and gate splits are asked about only through their own random draws, never for their score, so
 * that measurements on them stay unbiased. The test split is part of the random stream, never of the active one.
 */
#ifndef TRIAGE_ACQUISITION_SELECT_H
#define TRIAGE_ACQUISITION_SELECT_H

#include "model/split.h"

#include <stddef.h>
#include <stdint.h>

enum stream {
    STREAM_ACTIVE,
    STREAM_RANDOM,
    STREAM_PINNED,
};

/* "active", "random", "pinned". */
const char *stream_name(enum stream stream);
int stream_from_name(const char *name, enum stream *ret_stream);

#define SELECT_SLOTS_MAX 100000

struct select_request {
    uint64_t seed;
    uint64_t cycle;
    int queue_size;      /* entries a full queue holds, at most SELECT_SLOTS_MAX */
    float holdout_share; /* 0..1 of the queue: validation and gate galaxies, half each */
    float random_share;  /* 0..1 of what remains; the rest is active */
    int cold;            /* no scores yet: everything is drawn at random, half of it from the hold-out */
    int kept_holdout, kept_random, kept_active; /* entries still leased from earlier cycles; pins count as active */
};

struct selected {
    uint64_t key; /* galaxy key */
    enum stream stream;
    double probability; /* inclusion probability of a random draw; 1 for active and pinned */
    float score;        /* rounded to 2^-20 nat */
};

struct selector;

/* Allocates about 64 bytes per slot. ERROR_INPUT for shares or sizes out of range. */
int selector_new(const struct select_request *request, struct selector **ret_selector);
void selector_free(struct selector *selector);

/* Offers one eligible galaxy: not retired, excluded, bad, queued or in flight. `score` is ignored when cold. */
void selector_offer(struct selector *selector, uint64_t key, enum split split, int pinned, float score);

/*
 * Writes at most queue_size - kept entries: pins first (all of them, up to the free slots), then the draws.
 *   selected  [queue_size] OUTPUT
 * Returns their number.
 */
size_t selector_finish(struct selector *selector, struct selected *selected);

/* The score as it is compared and published: rounded to a multiple of 2^-20; NaN and negatives become 0. */
float score_round(float score);

/* One entry of a queue to be ranked. */
struct ranked {
    uint64_t key;
    enum stream stream;
    float score;
    uint32_t rank; /* OUTPUT, 1 = next */
};

/*
 * Sorts the entries and numbers them: pins first; then active ones by score with the random ones spread evenly among
 * them (a random galaxy must wait its turn like any other, or the control stream would be starved or favoured).
 */
void queue_rank(struct ranked *entries, size_t count);

#endif
