/*
 * The hot loops of head_fit and head_score, one set per instruction set, the best one chosen at run time.
 * Every set is the same source (head_kernels_body.h) with the same order of additions and no fused
 * multiply-add: all give the same bits.
 */
#ifndef TRIAGE_CPU_HEAD_KERNELS_H
#define TRIAGE_CPU_HEAD_KERNELS_H

#include "model/information.h"

#include <stddef.h>
#include <stdint.h>

#define TILE_ROWS    4
#define TILE_COLUMNS 16
#define DOT_ROWS     4
#define DOT_LANES    16 /* depth of a dot product is a multiple of this */

#define SCORE_ROWS    64 /* galaxies scored side by side */
#define GROUP_PASSES  6  /* more share fewer products: their masks have too little in common */
#define GROUP_ANSWERS 4  /* at once */

/* Inputs up to `end`, from where the run before ends, and the passes that keep them. */
struct mask_run {
    int end;
    uint32_t kept; /* bits */
};

struct adam_step {
    float learning_rate, decay;
    float correction1, correction2; /* 1 / (1 - beta^step) and its square root for the second moment */
};

struct head_kernels {
    const char *name;

    /*
     * out[r][c] += sum over k < depth of a[r][k] b[k][c] for rows x TILE_COLUMNS outputs, k in order; `rows` is a multiple of
     * TILE_ROWS. Strides in floats: a[r * a_row + k * a_depth], b[k * b_depth + c], out[r * out_row + c].
     */
    void (*tile)(size_t rows, const float *a, size_t a_row, size_t a_depth, const float *b, size_t b_depth, int depth,
                 float *out, size_t out_row);

    /*
     * Products of a group of passes (pass_groups.h) for GROUP_ANSWERS answers: adds to out[pass][answer][SCORE_ROWS], for every run
     * in turn, the sum over its inputs k of weight[k][answer] z[input[k]][SCORE_ROWS], to each pass that keeps it.
     */
    void (*passes)(const struct mask_run *run, int runs, const int *input, const float *weight, const float *z,
                   float *const *out);

    /* out[r][s] = dot product of row r of a and row s of b, DOT_ROWS of each. */
    void (*dot)(const float *a, size_t a_row, const float *b, size_t b_row, int depth, float *out, size_t out_row);

    /* z = (embedding - shift) * scale; NaN for infinity */
    void (*standardise)(const uint16_t *embedding, const float *shift, const float *scale, int inputs, float *z);

    void (*unit_length)(float *z, int inputs); /* head_unit_length() */

    /*
     * mask[i] = 0 where uniform(i) < rate, else 1 / (1 - rate); uniform i is word i % 4 of philox(key, {i /
     * 4, counter...}). mask has room for inputs rounded up to a multiple of 32.
     */
    void (*dropout)(uint64_t key, const uint32_t counter[3], float rate, int inputs, float *mask);

    void (*multiply)(float *z, const float *mask, int inputs);

    /* x becomes head_alpha(x) factor. */
    void (*concentrations)(float *x, size_t count, float factor);

    /* One AdamW step on `count` weights; the gradient is cleared. */
    void (*adam)(const struct adam_step *step, float *weight, float *gradient, float *moment1, float *moment2,
                 size_t count);

    /* information_question() */
    struct information (*question)(enum information_kind kind, const float *alpha, int answers, int passes, int stride,
                                   int votes);

    /* information_fractions() */
    void (*fractions)(const float *alpha, int answers, int passes, int stride, float *fraction);
};

/* The best set this processor can run, or the one chosen by head_kernels_choose(). */
const struct head_kernels *head_kernels(void);

/* For tests: "portable", "avx2", "avx512", or NULL for the best. 0, or ERROR_NOT_FOUND when this processor
 * has no such set. */
int head_kernels_choose(const char *name);

#endif
