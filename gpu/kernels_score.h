/*
 * Entropies and mutual information of a block of galaxies: information_question() of model/information.h with a thread per lane.
 * INFORMATION_LANES threads work on one question of one galaxy at a time, all blocks walk over all questions together.
 */
#ifndef TRIAGE_GPU_KERNELS_SCORE_H
#define TRIAGE_GPU_KERNELS_SCORE_H

#include "gpu/kernels_heads.h"

#define INFORM_GROUPS (THREADS / INFORMATION_LANES) /* questions a block works on side by side */

/* Doubles of one group's work: two arrays of outcomes and lanes, two of passes, two of lanes, the categorical's sums, choices. */
HD size_t inform_doubles(int votes, int stride)
{
    return (size_t)((2 * (votes + 1) + 2 + SCHEMA_PER_QUESTION) * INFORMATION_LANES + 2 * stride + votes + 1);
}

/* The question a group works on, and its part of the work. */
struct inform_item {
    int there, votes, answers, first_answer, question, lane;
    size_t row;
    const float *alpha;
    struct information_work work;
    double *sum, *first, *mean, *choose;
};

struct inform {
    enum { threads = THREADS };
    struct arguments {
        const struct tree *tree;
        const float *alpha;        /* [rows][answers][stride] */
        const uint16_t *votes_due; /* [rows] */
        double *work;              /* [blocks * INFORM_GROUPS][inform_doubles()] */
        float *output;             /* [rows][row_floats], as information.h says */
        size_t rows;
        int kind, passes, stride, votes_max, questions, answers_max, row_floats, rounds;
    };
    typedef nothing shared;
    struct registers {
        struct information best;
    };
    enum { begin, add, mix, finish };
    /* Of a round: begin; add, mix and finish of each answer; the next round's begin ends it. */
    HD int phases(const arguments &a)
    {
        return a.rounds * (1 + 3 * a.answers_max);
    }
    HD void phase(int phase, const arguments &a, shared &, registers &r, const place &at)
    {
        int per_round = 1 + 3 * a.answers_max, round = phase / per_round, step = phase % per_round;
        struct inform_item item = item_of(a, round, at);
        if (!item.there)
            return;
        if (step == 0)
            begin_item(a, item);
        else
            answer_phase(a, item, r, (step - 1) / 3, add + (step - 1) % 3);
    }

    HD struct inform_item item_of(const arguments &a, int round, const place &at)
    {
        struct inform_item item;
        size_t groups = (size_t)at.blocks * INFORM_GROUPS,
               group = (size_t)at.block * INFORM_GROUPS + at.thread / INFORMATION_LANES;
        size_t index = (size_t)round * groups + group, cells = (size_t)(a.votes_max + 1) * INFORMATION_LANES;
        double *work = a.work + group * inform_doubles(a.votes_max, a.stride);
        item.there = index < a.rows * (size_t)a.questions;
        if (!item.there)
            return item;
        item.row = index / (size_t)a.questions;
        item.question = (int)(index % (size_t)a.questions);
        item.lane = (int)(at.thread % INFORMATION_LANES);
        item.first_answer = a.tree->first[item.question];
        item.answers = a.tree->count[item.question];
        item.votes = a.kind == INFORMATION_ONE_VOTE ? 1 : information_votes(a.votes_due[item.row]);
        item.alpha = a.alpha + (item.row * (size_t)a.tree->answers + (size_t)item.first_answer) * (size_t)a.stride;
        item.work.mixture = work;
        item.work.below = work + cells;
        item.work.above = work + 2 * cells;
        item.work.plogp = item.work.above + INFORMATION_LANES;
        item.mean = item.work.plogp + INFORMATION_LANES;
        item.sum = item.mean + SCHEMA_PER_QUESTION * INFORMATION_LANES;
        item.first = item.sum + a.stride;
        item.choose = item.first + a.stride;
        return item;
    }

    /* Each lane its passes: concentrations of the question, norms; and its share of the choices. */
    HD void begin_item(const arguments &a, const struct inform_item &item)
    {
        int lane = item.lane;
        information_norms_lanes(item.alpha, item.answers, a.passes, a.stride, item.votes, item.sum, item.first, lane,
                                lane + 1);
        if (a.kind == INFORMATION_BINOMIAL)
            for (int t = lane; t < a.passes; t += INFORMATION_LANES)
                item.sum[t] = (double)item.alpha[t] / item.sum[t];
        else if (item.votes == 1)
            information_categorical_lanes(item.alpha, item.answers, a.passes, a.stride, item.sum, item.mean,
                                          item.work.plogp, lane, lane + 1);
        for (int i = lane; i <= item.votes; i += INFORMATION_LANES)
            item.choose[i] = information_choice(item.votes, i);
    }

    /* How many answers have a distribution of their own. */
    HD int marginals(const arguments &a, const struct inform_item &item)
    {
        return a.kind == INFORMATION_BINOMIAL || item.votes == 1 || item.answers == 2 ? 1 : item.answers;
    }

    HD void answer_phase(const arguments &a, const struct inform_item &item, registers &r, int answer, int what)
    {
        int binomial = a.kind == INFORMATION_BINOMIAL, categorical = !binomial && item.votes == 1;
        double floor = binomial ? INFORMATION_BINOMIAL_FLOOR : 0;
        if (answer >= marginals(a, item) || (categorical && what != finish))
            return;
        if (what == add && binomial)
            information_binomial_lanes(&item.work, item.sum, item.choose, a.passes, item.votes, item.lane,
                                       item.lane + 1);
        else if (what == add)
            information_marginal_lanes(&item.work, item.alpha + (size_t)answer * (size_t)a.stride, item.sum, item.first,
                                       item.choose, a.passes, item.votes, item.lane, item.lane + 1);
        else if (what == mix)
            information_mix(&item.work, item.votes, a.passes, floor, item.lane, INFORMATION_LANES);
        else if (item.lane == 0)
            finish_answer(a, item, r, answer, categorical);
        else if (answer == 0)
            fractions(a, item);
    }

    HD void finish_answer(const arguments &a, const struct inform_item &item, registers &r, int answer, int categorical)
    {
        struct information one =
            categorical ? information_categorical_finish(item.mean, item.work.plogp, item.answers, a.passes)
                        : information_finish(&item.work, item.votes, a.passes);
        if (answer == 0 || one.total - one.expected > r.best.total - r.best.expected)
            r.best = one;
        if (answer + 1 < marginals(a, item))
            return;
        float *output = a.output + item.row * (size_t)a.row_floats + 2 + a.tree->answers;
        output[item.question] = (float)r.best.total;
        output[a.questions + item.question] = (float)r.best.expected;
    }

    /* Expected fraction of each answer, by the lanes after the first. */
    HD void fractions(const arguments &a, const struct inform_item &item)
    {
        float *fraction = a.output + item.row * (size_t)a.row_floats + 2 + item.first_answer;
        for (int answer = item.lane - 1; answer < item.answers; answer += INFORMATION_LANES - 1) {
            double mean = 0;
            for (int t = 0; t < a.passes; t++) {
                double sum = 0;
                for (int other = 0; other < item.answers; other++)
                    sum += (double)item.alpha[(size_t)other * (size_t)a.stride + (size_t)t];
                mean += (double)item.alpha[(size_t)answer * (size_t)a.stride + (size_t)t] * (1 / sum);
            }
            fraction[answer] = (float)(mean / a.passes);
        }
    }
};

/* A galaxy's totals, each question weighted by the probability that it is reached (schema_reached()). A thread per galaxy. */
struct inform_totals : plain_kernel {
    struct arguments {
        const struct tree *tree;
        float *output, *reached; /* reached [rows][questions] */
        size_t rows;
        int row_floats;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        for (size_t row = (size_t)at.block * THREADS + at.thread; row < a.rows; row += (size_t)at.blocks * THREADS) {
            float *output = a.output + row * (size_t)a.row_floats,
                  *reached = a.reached + row * (size_t)a.tree->questions;
            const float *fraction = output + 2, *total = fraction + a.tree->answers,
                        *expected = total + a.tree->questions;
            double totals = 0, expecteds = 0;
            for (int q = 0; q < a.tree->questions; q++) {
                int parent = a.tree->parent[q];
                reached[q] = parent < 0 ? 1.0f : fraction[parent] * reached[a.tree->question[parent]];
                totals += (double)reached[q] * (double)total[q];
                expecteds += (double)reached[q] * (double)expected[q];
            }
            output[0] = (float)totals;
            output[1] = (float)expecteds;
        }
    }
};

#endif
