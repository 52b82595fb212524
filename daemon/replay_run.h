/* One arm of a pool simulation with one seed, step by step; see replay.h. */
#ifndef TRIAGE_DAEMON_REPLAY_RUN_H
#define TRIAGE_DAEMON_REPLAY_RUN_H

#include "daemon/scoring.h"
#include "daemon/training_set.h"

#include <stdatomic.h>
#include <stdio.h>

#define REPLAY_ARMS_MAX 32

/* "bald", "bald@4" (drawn by score^4), "featured+0.2" (a fifth at random), "epig@2+0.1:batch" (with the rules of the batch). */
struct replay_arm {
    char name[64];
    enum score_kind kind;
    double power, random_share;
    int batch; /* 1 = shortlist, kinds, near-duplicates and guards as queue.* says; else by score alone */
};

/* ERROR_INPUT naming the arm that makes no sense. */
int replay_parse_arms(const char *text, struct replay_arm *ret_arms, int *ret_count);

/* What all runs share: galaxies, votes, and with a frozen trunk their embeddings. */
struct replay {
    const struct config *config;
    struct schema schema;
    struct training_set set;
    struct score_rule questions; /* which count */
    uint16_t *votes;             /* [rows][answers] */
    uint16_t *embedding;         /* [rows][inputs]; with replay.track = scratch each run makes its own */
    int inputs;
    uint64_t *pool_row, *test_row;
    size_t pool_count, test_count;
    const char *out;
};

/* Steps of a run: the first galaxies and each batch of further ones. */
int replay_steps(const struct config *config);

/*
 * Does what is left of runs/ARM-SEED.csv, a step at a time; each step adds one line per question that counts and one for all
 * of them together. *steps_done grows by one for each step. Bit-equal wherever it is interrupted.
 */
int replay_run(const struct replay *replay, const struct replay_arm *arm, int seed, atomic_long *steps_done);

/* Of that run, by its file. */
int replay_steps_done(const struct replay *replay, const struct replay_arm *arm, int seed);

/* "OUT/runs/ARM-SEED.SUFFIX". */
int replay_path(const struct replay *replay, const struct replay_arm *arm, int seed, const char *suffix, char *path,
                int size);

/* Images through a trunk into half-precision rows, [set rows][net outputs]; rows that no list names stay 0. */
int replay_embed(const struct replay *replay, struct backend_context *context, const struct net *net,
                 const float *parameters, uint16_t *embedding);

#endif
