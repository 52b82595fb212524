/*
 * Kernels of head_fit: masked inputs, likelihood and its gradient, sums of losses, AdamW. Rows are [heads][batch]. Where all heads look
 * at the same galaxies (evaluation), what belongs to galaxies is there once: `period` rows, used again for every head.
 */
#ifndef TRIAGE_GPU_KERNELS_FIT_H
#define TRIAGE_GPU_KERNELS_FIT_H

#include "gpu/kernels_heads.h"
#include "model/likelihood_terms.h"

#define NO_ROW UINT64_MAX

/* Dropout on standardised inputs, 1 for the bias, zeros up to the stride; rows that only fill up become 0. */
struct drop_inputs : plain_kernel {
    struct arguments {
        float *z;            /* [heads * batch][stride] */
        const uint64_t *row; /* [heads * batch] galaxies, NO_ROW = none */
        size_t rows, batch;
        int inputs, stride, train;
        float dropout;
        uint64_t seed;
        uint32_t step;
        int head; /* of the first row */
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        for (struct walk w = walk_from(at, a.rows * (size_t)a.stride, (unsigned)a.stride); inside(w); walk_on(&w)) {
            uint64_t row = a.row[w.row];
            int i = (int)w.channel;
            float z = i == a.inputs ? 1 : 0;
            if (i < a.inputs) {
                uint32_t head = (uint32_t)(a.head + (int)(w.row / a.batch));
                float u = a.train && a.dropout > 0
                              ? uniform(a.seed, (uint32_t)i, (uint32_t)row + 1, a.step, head << 8 | PHILOX_TRAIN)
                              : 1;
                z = u < a.dropout ? 0 : a.train ? a.z[w.index] * (1.0f / (1.0f - a.dropout)) : a.z[w.index];
            }
            a.z[w.index] = row == NO_ROW ? 0 : z;
        }
    }
};

/* Loss of every row and question, and d loss / d logit when `slope` is given. A thread per row and question. */
struct row_losses : plain_kernel {
    struct arguments {
        const struct tree *tree;
        const float *x;        /* [rows][answers_padded] logits */
        const uint16_t *votes; /* [period][answers] */
        const float *weight;   /* [period] share of the batch's gradient, 0 for rows that only fill up */
        float *slope;          /* [rows][answers_padded] or NULL; columns that fill up stay 0 */
        double *loss;          /* [rows][questions] OUTPUT */
        size_t rows, period;
        int answers_padded;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        size_t questions = (size_t)a.tree->questions, answers = (size_t)a.tree->answers;
        for (size_t i = (size_t)at.block * THREADS + at.thread; i < a.rows * questions;
             i += (size_t)at.blocks * THREADS) {
            size_t row = i / questions, first = (size_t)a.tree->first[i % questions];
            int count = a.tree->count[i % questions];
            float alpha[SCHEMA_PER_QUESTION];
            double gradient[SCHEMA_PER_QUESTION];
            for (int j = 0; j < count; j++)
                alpha[j] = head_alpha(a.x[row * (size_t)a.answers_padded + first + (size_t)j]);
            a.loss[i] = likelihood_terms(alpha, a.votes + row % a.period * answers + first, count, gradient);
            for (int j = 0; a.slope && j < count; j++)
                a.slope[row * (size_t)a.answers_padded + first + (size_t)j] =
                    (float)gradient[j] * head_alpha_slope(alpha[j]) * a.weight[row % a.period];
        }
    }
};

/* Adds the losses of a head's rows to its total, in a fixed order, and keeps its first galaxy whose loss is not finite. A block per
 * head. */
struct sum_losses {
    enum { threads = THREADS };
    struct arguments {
        const double *loss;  /* [heads * batch][questions] */
        const uint64_t *row; /* [period] */
        double *total;       /* [heads] */
        uint64_t *failed;    /* [heads], NO_ROW = none so far */
        size_t batch, period;
        int questions;
    };
    struct shared {
        double total[THREADS];
        uint64_t failed[THREADS]; /* position in the batch */
    };
    typedef nothing registers;
    HD int phases(const arguments &)
    {
        return 2;
    }
    HD void phase(int phase, const arguments &a, shared &s, registers &, const place &at)
    {
        size_t start = (size_t)at.block * a.batch;
        if (phase == 0) {
            s.total[at.thread] = 0;
            s.failed[at.thread] = NO_ROW;
            for (size_t i = at.thread; i < a.batch; i += THREADS) {
                double loss = 0;
                for (int q = 0; q < a.questions; q++)
                    loss += a.loss[(start + i) * (size_t)a.questions + (size_t)q];
                if (a.row[(start + i) % a.period] == NO_ROW)
                    continue;
                s.total[at.thread] += loss;
                if (!(loss - loss == 0) && s.failed[at.thread] == NO_ROW)
                    s.failed[at.thread] = i;
            }
        } else if (at.thread == 0) {
            uint64_t failed = NO_ROW;
            for (int i = 0; i < THREADS; i++) {
                a.total[at.block] += s.total[i];
                failed = s.failed[i] < failed ? s.failed[i] : failed;
            }
            if (failed != NO_ROW && a.failed[at.block] == NO_ROW)
                a.failed[at.block] = a.row[(start + failed) % a.period];
        }
    }
};

/* AdamW of all heads as head_fit.h says; biases are not decayed, and what fills up stays 0. */
struct adam_heads : plain_kernel {
    struct arguments {
        float *weight, *moment1, *moment2;
        const float *gradient;
        size_t count; /* [heads][answers_padded][stride] */
        int stride, inputs;
        float learning_rate, bias_rate, decay, correction1, correction2;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        for (struct walk w = walk_from(at, a.count, (unsigned)a.stride); inside(w); walk_on(&w)) {
            if ((int)w.channel > a.inputs)
                continue;
            int is_weight = (int)w.channel < a.inputs;
            float g = a.gradient[w.index], decay = is_weight ? a.decay : 0,
                  rate = is_weight ? a.learning_rate : a.bias_rate;
            float m = 0.9f * a.moment1[w.index] + 0.1f * g, v = 0.999f * a.moment2[w.index] + 0.001f * (g * g);
            a.moment1[w.index] = m;
            a.moment2[w.index] = v;
            a.weight[w.index] = a.weight[w.index] * (1.0f - rate * decay) -
                                rate * a.correction1 * m / (sqrtf(v) * a.correction2 + 1e-8f);
        }
    }
};

#endif
