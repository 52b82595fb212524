/*
 * Which galaxies to ask about next: the active stream by score, the random stream with its inclusion probability,
 * pins. Pure: no clock, no I/O, no globals; memory is bounded by the number of slots, not by the pool.
 *
 * Galaxies are offered one by one in any order; the outcome does not depend on that order, nor on threads or batches:
 * scores are compared after rounding to 2^-20 nat, ties go to the lower galaxy key, and the random stream takes the
 * galaxies with the smallest hash Philox(seed, key, cycle), which is a uniform draw without replacement.
 *
 * The active stream takes the highest scores (power 0), or draws without replacement in proportion to score^power
 * (Kirsch et al. 2021, arXiv 2106.12059): the highest log(score) + Gumbel / power, by the same hash. A draw is less
 * redundant than the top, where galaxies alike score alike, and has inclusion probabilities (draw.h).
 *
 * It is chosen in two steps. The scan's scores make a shortlist of `shortlist` candidates per place; for these the caller may
 * put in better scores, and where the galaxies lie: on the sky, in their sketches (sketch.h), in a cluster (clusters.h). Then,
 * by those scores,
 *   near-duplicates   of candidates closer than `duplicates` says only the best goes on; none that is so close to a galaxy
 *                     on offer, pinned or drawn at random
 *   clusters          of each cluster only the best cluster_share of the places go on, those on offer counted. Should that
 *                     leave places free, as in pools that are nearly used up, the number is doubled until it does not (the
 *                     probabilities are then those of the last number, which is not quite right)
 *   guards            a candidate that the caller holds back is not taken
 * and of what is left the best fill the places.
 *
 * The validation and gate splits are asked about only through their own random draws, never for their score, so
 * that measurements on them stay unbiased. The test split is part of the random stream, never of the active one.
 * Of two galaxies drawn at random that are near-duplicates the second one is left out (its place stays free), so a galaxy
 * with d duplicates in the pool comes a share of at most d times its probability less often than `probability` says.
 */
#ifndef TRIAGE_ACQUISITION_SELECT_H
#define TRIAGE_ACQUISITION_SELECT_H

#include "acquisition/duplicates.h"
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

#define SELECT_SLOTS_MAX     100000
#define SELECT_POWER_MAX     100
#define SELECT_SHORTLIST_MAX 16

struct select_request {
    uint64_t seed;
    uint64_t cycle;
    int queue_size;      /* entries a full queue holds, at most SELECT_SLOTS_MAX */
    float holdout_share; /* 0..1 of the queue: validation and gate galaxies, half each */
    float random_share;  /* 0..1 of what remains; the rest is active */
    double power;        /* 0 = the highest scores; else the draw's exponent */
    int cold;            /* nothing is known yet: at least half of the queue is drawn from the hold-out */
    int kept_holdout, kept_random, kept_active; /* entries still leased from earlier cycles; pins count as active */
    int shortlist;                              /* candidates per active place, at most SELECT_SHORTLIST_MAX; 0 = 1 */
    struct duplicate_rule duplicates;
    double cluster_share; /* 0..1 of the active places that one cluster may take, at least one; 0 = any */
    int held;             /* galaxies held back that are told of, the highest scores first */
};

enum outcome { OUTCOME_LEFT, OUTCOME_TAKEN, OUTCOME_HELD, OUTCOME_DUPLICATE, OUTCOME_CLUSTER };

struct candidate {
    uint64_t key;
    enum stream stream;
    int kept;             /* 1 = on offer already: keeps others like it away, is not chosen again */
    float score;          /* as offered; the caller may improve it */
    struct place place;   /* filled in by the caller; zeroed = unknown. The sketch stays the caller's */
    int cluster;          /* filled in by the caller: 1 .. ; 0 = unknown, never too many */
    float distance;       /* the caller's: from its cluster */
    int held;             /* filled in by the caller: its reason to hold the galaxy back; 0 = none */
    enum outcome outcome; /* OUTPUT of selector_finish(), with the two below */
    uint64_t like;        /* OUTCOME_DUPLICATE: the galaxy it is like; OUTCOME_CLUSTER: its cluster */
    double probability;
    double gumbel; /* the selector's own, with the scan's score */
    float scanned;
};

struct selected {
    uint64_t key; /* galaxy key */
    enum stream stream;
    double probability; /* inclusion probability of a draw (draw.h); 1 for pins and the highest scores */
    float score;        /* rounded to 2^-20 nat */
};

struct selector;

/* Allocates about 120 bytes per slot and per candidate of the shortlist. ERROR_INPUT for shares or sizes out of range. */
int selector_new(const struct select_request *request, struct selector **ret_selector);
void selector_free(struct selector *selector);

/*
 * Offers one eligible galaxy: not retired, excluded, bad, queued or in flight. One with a score of NaN is drawn at random only.
 */
void selector_offer(struct selector *selector, uint64_t key, enum split split, int pinned, float score);

/* Tells of a galaxy that is on offer already. At most queue_size of them are looked at. */
void selector_keep(struct selector *selector, uint64_t key, enum stream stream, float score);

/* Tells of one that may not be offered, for `held`, a reason of the caller's above 0; it comes back as a candidate. */
void selector_hold(struct selector *selector, uint64_t key, int held, float score);

/*
 * After every galaxy was offered: those on offer, the pins, the random draws, the active shortlist (best first, without the
 * random draws) and those held back. The array is the selector's. ERROR_SYSTEM without memory.
 */
int selector_candidates(struct selector *selector, struct candidate **ret_candidates, size_t *ret_count);

/*
 * Writes at most queue_size - kept entries: pins first (all of them, up to the free slots), then the draws; and each
 * candidate's outcome. Without selector_candidates() nothing is known but scores.
 *   selected  [queue_size] OUTPUT
 * ERROR_SYSTEM without memory.
 */
int selector_finish(struct selector *selector, struct selected *selected, size_t *ret_count);

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
