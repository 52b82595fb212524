/*
 * Kernels on embeddings and heads: standardised inputs, dropout masks, concentrations, and what the votes would teach
 * (model/information.h, a lane of it per thread). The formulas are those of model/head.h and the same source where they are long.
 */
#ifndef TRIAGE_GPU_KERNELS_HEADS_H
#define TRIAGE_GPU_KERNELS_HEADS_H

#include "gpu/values.h"

/* A schema as kernels need it; on the device. */
struct tree {
    int questions, answers;
    short first[SCHEMA_QUESTIONS_MAX], count[SCHEMA_QUESTIONS_MAX], parent[SCHEMA_QUESTIONS_MAX];
    short question[SCHEMA_ANSWERS_MAX]; /* of each answer */
};

HD float uniform(uint64_t seed, uint32_t element, uint32_t c1, uint32_t c2, uint32_t c3)
{
    struct philox drawn = philox(seed, element / 4, c1, c2, c3);
    uint32_t low = element & 1 ? drawn.word[1] : drawn.word[0], high = element & 1 ? drawn.word[3] : drawn.word[2];
    return philox_uniform(element & 2 ? high : low);
}

#define UNIT_LANES 16 /* of head_unit_length() */

/* z = (embedding - shift) * scale, to unit length if asked for: one row per block, all its views one after the other. */
struct standardise {
    enum { threads = THREADS };
    struct arguments {
        const uint16_t *embedding; /* [rows][inputs] */
        const float *shift, *scale;
        float *z; /* [rows][z_stride] */
        int inputs, unit_length;
        size_t z_stride;
    };
    struct shared {
        float lane[UNIT_LANES], factor;
    };
    typedef nothing registers;
    HD int phases(const arguments &a)
    {
        return a.unit_length ? 4 : 1;
    }
    HD void phase(int phase, const arguments &a, shared &s, registers &, const place &at)
    {
        const uint16_t *embedding = a.embedding + (size_t)at.block * (size_t)a.inputs;
        float *z = a.z + (size_t)at.block * a.z_stride;
        if (phase == 0)
            for (int i = (int)at.thread; i < a.inputs; i += THREADS) {
                float value = half_to_float(embedding[i]);
                float nothing = value - value; /* infinity becomes NaN */
                z[i] = (value - a.shift[i]) * a.scale[i] + nothing;
            }
        else if (phase == 1 && at.thread < UNIT_LANES) {
            float sum = 0;
            for (int i = (int)at.thread; i < a.inputs; i += UNIT_LANES)
                sum += z[i] * z[i];
            s.lane[at.thread] = sum;
        } else if (phase == 2 && at.thread == 0) {
            for (int half = UNIT_LANES / 2; half; half /= 2)
                for (int i = 0; i < half; i++)
                    s.lane[i] += s.lane[i + half];
            s.factor = s.lane[0] == 0 ? 1 : sqrtf((float)a.inputs / s.lane[0]);
        } else if (phase == 3)
            for (int i = (int)at.thread; i < a.inputs; i += THREADS)
                z[i] *= s.factor;
    }
};

/* How the columns of the one matrix product of all passes are ordered: views one after the other, in each the answers. */
struct pass_columns {
    int answers, passes, views, passes_per_view, per_view;
};

HD int column_of(const struct pass_columns &columns, int answer, int pass)
{
    return pass % columns.views * columns.per_view + answer * columns.passes_per_view + pass / columns.views;
}

/* The weights of every pass, masked: masked[column][inputs]; columns that only fill up are 0. */
struct mask_weights : plain_kernel {
    struct arguments {
        const float *weight, *bias;  /* [heads][answers][inputs], [heads][answers] */
        float *masked, *masked_bias; /* [views * per_view][inputs], [views * per_view] */
        struct pass_columns columns;
        int heads, inputs;
        uint32_t model;
        float dropout;
        uint64_t seed;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        size_t columns = (size_t)(a.columns.views * a.columns.per_view);
        for (struct walk w = walk_from(at, columns * (size_t)a.inputs, (unsigned)a.inputs); inside(w); walk_on(&w)) {
            int view = (int)w.row / a.columns.per_view, rest = (int)w.row % a.columns.per_view;
            int answer = rest / a.columns.passes_per_view, turn = rest % a.columns.passes_per_view;
            int pass = turn * a.columns.views + view, per_head = a.columns.passes / a.heads, head = pass / per_head;
            int there = answer < a.columns.answers;
            size_t output = (size_t)head * (size_t)a.columns.answers + (size_t)answer;
            float u =
                uniform(a.seed, w.channel, (uint32_t)(pass % per_head), (uint32_t)head, a.model << 4 | PHILOX_SCORE);
            float mask = u < a.dropout ? 0.0f : 1.0f / (1.0f - a.dropout);
            a.masked[w.index] = there ? a.weight[output * (size_t)a.inputs + w.channel] * mask : 0;
            if (w.channel == 0)
                a.masked_bias[w.row] = there ? a.bias[output] : 0;
        }
    }
};

/* Logits -> concentrations: [rows][answers][stride], passes of a view together and 1 in the padding; or, for a dump,
 * [rows][passes][answers]. */
struct concentrate : plain_kernel {
    struct arguments {
        const float *x;      /* [rows][views * per_view] */
        const float *factor; /* [answers] of the answer's question, see head.h */
        float *alpha;
        struct pass_columns columns;
        size_t rows;
        int stride, dump;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        const struct pass_columns &columns = a.columns;
        size_t x_stride = (size_t)(columns.views * columns.per_view);
        unsigned inner = (unsigned)(a.dump ? columns.answers : a.stride),
                 outer = (unsigned)(a.dump ? columns.passes : columns.answers);
        for (struct walk w = walk_from(at, a.rows * inner * outer, inner); inside(w); walk_on(&w)) {
            int answer = (int)(a.dump ? w.channel : w.row % outer), t = (int)(a.dump ? w.row % outer : w.channel);
            const float *x = a.x + w.row / outer * x_stride;
            int pass = a.dump ? t : t % columns.passes_per_view * columns.views + t / columns.passes_per_view;
            a.alpha[w.index] =
                t < columns.passes ? head_alpha(x[column_of(columns, answer, pass)]) * a.factor[answer] : 1;
        }
    }
};

#endif
