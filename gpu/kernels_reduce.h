/*
 * Sums over the rows of [rows][channels]: means of maps, batch statistics, gradients per channel. A block takes 32 channels of one
 * segment of rows, eight rows side by side; partial sums are doubles, added up in a fixed order: the same bits every time.
 */
#ifndef TRIAGE_GPU_KERNELS_REDUCE_H
#define TRIAGE_GPU_KERNELS_REDUCE_H

#include "gpu/kernels_maps.h"

#define TILE_CHANNELS 32
#define TILE_ROWS     (THREADS / TILE_CHANNELS)
#define RUN_ROWS      16 /* added up as floats before they go into a double */
#define SEGMENTS_MAX  256

/*
 * A Term says what is summed:
 *   enum { sums = ...,         sums per channel
 *          at_once = ... };    rows a thread reads before it adds them up, of RUN_ROWS: reads that wait for one another are slow
 *   typedef ... number;        float, or double where sums of squares cancel
 *   struct arguments
 *   HD void value(const arguments &, size_t row, unsigned channel, number value[sums]);
 */
template <class Term> struct column_sums {
    enum { threads = THREADS, sums = Term::sums };
    struct arguments {
        typename Term::arguments term;
        size_t rows, rows_per_segment;
        unsigned channels;
        double *partial; /* [segments][sums][channels] OUTPUT */
    };
    struct shared {
        double part[THREADS];
    };
    struct registers {
        double sum[sums];
    };
    HD int phases(const arguments &)
    {
        return 1 + 2 * sums;
    }
    HD void phase(int phase, const arguments &a, shared &s, registers &r, const place &at)
    {
        unsigned tiles = (a.channels + TILE_CHANNELS - 1) / TILE_CHANNELS, segment = at.block / tiles;
        unsigned channel = at.block % tiles * TILE_CHANNELS + at.thread % TILE_CHANNELS;
        int which = (phase - 1) / 2;
        if (phase == 0) {
            accumulate(a, segment, channel, at.thread / TILE_CHANNELS, r);
        } else if (phase % 2) {
            double value = 0;
            UNROLL
            for (int i = 0; i < sums; i++)
                value = i == which ? r.sum[i] : value;
            s.part[at.thread] = value;
        } else if (at.thread < TILE_CHANNELS && channel < a.channels) {
            double total = 0;
            for (unsigned i = 0; i < TILE_ROWS; i++)
                total += s.part[i * TILE_CHANNELS + at.thread];
            a.partial[((size_t)segment * sums + (size_t)which) * a.channels + channel] = total;
        }
    }
    /* The next rows, in order; past the end the last one is read again and not added. Returns the row after them. */
    HD size_t add_some(const arguments &a, size_t row, size_t end, unsigned channel, typename Term::number *run)
    {
        typename Term::number value[Term::at_once][sums];
        UNROLL
        for (int j = 0; j < Term::at_once; j++) {
            size_t at = row + (size_t)j * TILE_ROWS;
            Term::value(a.term, at < end ? at : end - 1, channel, value[j]);
        }
        UNROLL
        for (int j = 0; j < Term::at_once; j++, row += TILE_ROWS)
            for (int i = 0; i < sums && row < end; i++)
                run[i] += value[j][i];
        return row;
    }
    HD void accumulate(const arguments &a, unsigned segment, unsigned channel, unsigned first, registers &r)
    {
        for (int i = 0; i < sums; i++)
            r.sum[i] = 0;
        if (channel >= a.channels)
            return;
        size_t row = segment * a.rows_per_segment, end = row + a.rows_per_segment;
        end = end < a.rows ? end : a.rows;
        for (row += first; row < end;) {
            typename Term::number run[sums] = {0};
            for (int i = 0; i < RUN_ROWS && row < end; i += Term::at_once)
                row = add_some(a, row, end, channel, run);
            for (int i = 0; i < sums; i++)
                r.sum[i] += (double)run[i];
        }
    }
};

/* How the rows of a whole batch are cut up. */
static inline size_t rows_per_segment(size_t rows)
{
    size_t wanted = 16 * TILE_ROWS, least = (rows + SEGMENTS_MAX - 1) / SEGMENTS_MAX;
    return least > wanted ? least : wanted;
}

static inline size_t segments_of(size_t rows, size_t per_segment)
{
    return (rows + per_segment - 1) / per_segment;
}

/* Doubles of `partial`. */
static inline size_t partial_doubles(size_t rows, size_t per_segment, size_t sums, size_t channels)
{
    return segments_of(rows, per_segment) * sums * channels;
}

template <class Term>
int sum_columns(cudaStream_t stream, const typename Term::arguments &term, size_t rows, size_t per_segment,
                int channels, double *partial, const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    size_t tiles = ((size_t)channels + TILE_CHANNELS - 1) / TILE_CHANNELS;
    typename column_sums<Term>::arguments arguments = {term, rows, per_segment, (unsigned)channels, partial};
    return launch<column_sums<Term>>(stream, tiles * segments_of(rows, per_segment), arguments, file, line);
}

#define SEGMENTS_AHEAD 16 /* read before they are added up, in order */

HD double total_of(const double *partial, size_t segments, size_t sums, size_t which, size_t channels, size_t channel)
{
    const double *at = partial + which * channels + channel;
    size_t stride = sums * channels, s = 0;
    double total = 0, ahead[SEGMENTS_AHEAD];
    for (; s + SEGMENTS_AHEAD <= segments; s += SEGMENTS_AHEAD) {
        UNROLL
        for (int i = 0; i < SEGMENTS_AHEAD; i++)
            ahead[i] = at[(s + (size_t)i) * stride];
        UNROLL
        for (int i = 0; i < SEGMENTS_AHEAD; i++)
            total += ahead[i];
    }
    for (; s < segments; s++)
        total += at[s * stride];
    return total;
}

/* Plain sums of a map: with one segment per image, what pooling and the squeeze need. */
template <class T> struct value_term {
    enum { sums = 1, at_once = 8 };
    typedef float number;
    struct arguments {
        const T *source;
        size_t channels;
    };
    HD void value(const arguments &a, size_t row, unsigned channel, float *value)
    {
        value[0] = load(a.source + row * a.channels + channel);
    }
};

/* target[i] = sum over segments, times factor. */
template <class To> struct finish_sums : plain_kernel {
    struct arguments {
        const double *partial;
        To *target; /* [outer][sums * channels] */
        size_t outer, segments, columns;
        double factor;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        for (struct walk w = walk_from(at, a.outer * a.columns, (unsigned)a.columns); inside(w); walk_on(&w)) {
            double total = total_of(a.partial + w.row * a.segments * a.columns, a.segments, 1, 0, a.columns, w.channel);
            store(a.target + w.index, (float)(total * a.factor));
        }
    }
};

/* All segments of each column as one, still in double: what ranks add to each other. */
struct join_segments : plain_kernel {
    struct arguments {
        const double *partial; /* [segments][columns] */
        double *target;        /* [columns] OUTPUT */
        size_t segments, columns;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        for (size_t i = (size_t)at.block * THREADS + at.thread; i < a.columns; i += (size_t)at.blocks * THREADS)
            a.target[i] = total_of(a.partial, a.segments, 1, 0, a.columns, i);
    }
};

#endif
