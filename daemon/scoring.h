/*
 * Scores of galaxies by the configured rule: information row and acquisition score from embeddings, block by block. Shared
 * by the worker's ranking and by `triaged replay`. Not for choosing among them: that is acquisition/select.h.
 */
#ifndef TRIAGE_DAEMON_SCORING_H
#define TRIAGE_DAEMON_SCORING_H

#include "acquisition/score.h"
#include "model/backend.h"

#define SCORING_TARGETS 64 /* galaxies that epig asks about */

struct scoring {
    const struct backend *backend;
    struct backend_context *context;
    const struct schema *schema;
    const struct head_set *heads;
    const uint16_t *embedding; /* of row 0 */
    size_t embedding_stride_bytes;
    int views, passes;
    uint64_t seed;
    struct score_rule rule;
    float *dump; /* [SCORING_BLOCK][passes][answers], where the rule needs passes or can be refined */
};

/*
 * Allocates what the rule needs; fill the fields above `dump` first. Free with scoring_close(). ERROR_SYSTEM without
 * memory.
 */
int scoring_open(struct scoring *scoring);
void scoring_close(struct scoring *scoring); /* zeroed is fine */

/* Only for epig: the galaxies it asks about, at most SCORING_TARGETS of these rows. Errors as head_score. */
int scoring_set_targets(struct scoring *scoring, const uint64_t *rows, size_t count);

/*
 * Scores a block of any size. Errors as head_score of model/backend.h.
 *   rows    [count] in the embedding column
 *   due     [count] votes still expected
 *   detail  [count][information_row_floats()] OUTPUT
 *   score   [count] OUTPUT, see acquisition/score.h
 */
int scoring_run(struct scoring *scoring, const uint64_t *rows, const uint16_t *due, size_t count, float *detail,
                float *score, backend_stop *stop, void *stop_context);

/*
 * Better scores for a shortlist, where the rule has any (score_refine of acquisition/score.h); else does nothing. Errors as
 * head_score.
 *   detail  [count][information_row_floats()] INOUT
 *   score   [count] INOUT
 */
int scoring_refine(struct scoring *scoring, const uint64_t *rows, const uint16_t *due, size_t count, long outcomes_max,
                   float *detail, float *score, backend_stop *stop, void *stop_context);

#endif
