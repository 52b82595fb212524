/* Pairs by sorting and sweeping; see duplicates.h. */
#include "acquisition/duplicates.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ARCSEC 4.84813681109536e-6 /* in radians */
#define LANES  16                  /* points that are compared at a time */
#define GLANCE 8                   /* numbers of theirs between two looks whether any can still be near */

void place_on_sky(double ra_degrees, double dec_degrees, float position[3])
{
    double ra = ra_degrees * 3600 * ARCSEC, dec = dec_degrees * 3600 * ARCSEC;
    int known = isfinite(ra) && isfinite(dec);
    position[0] = known ? (float)(cos(dec) * cos(ra)) : 0;
    position[1] = known ? (float)(cos(dec) * sin(ra)) : 0;
    position[2] = known ? (float)sin(dec) : 0;
}

struct mark {
    float along; /* the direction of the sweep */
    uint32_t index;
};

static int compare_marks(const void *left, const void *right)
{
    const struct mark *a = left, *b = right;
    if (a->along != b->along)
        return a->along < b->along ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Points of `length` numbers; nothing farther apart than `reach` along a unit vector can be nearer than that. */
struct sweep {
    const float *const *point; /* [count], NULL = left out */
    int length;
    float reach;
    size_t first; /* only pairs with one of so many first points */
    struct mark *mark;
    float *block; /* the marked points in the order of the sweep, LANES side by side: [point / LANES][length][LANES] */
    duplicates_found *found;
    void *context;
};

/* Which of LANES points are near, a bit each. Most blocks are ruled out by their first numbers. */
static unsigned near_lanes(const struct sweep *sweep, const float *block, const float *point)
{
    float sum[LANES] = {0}, limit = sweep->reach * sweep->reach;
    unsigned near = 0;
    for (int i = 0; i < sweep->length; i++) {
        for (int lane = 0; lane < LANES; lane++)
            sum[lane] += (block[i * LANES + lane] - point[i]) * (block[i * LANES + lane] - point[i]);
        if (i % GLANCE != GLANCE - 1)
            continue;
        float least = sum[0];
        for (int lane = 1; lane < LANES; lane++)
            least = sum[lane] < least ? sum[lane] : least;
        if (least > limit)
            return 0;
    }
    for (int lane = 0; lane < LANES; lane++)
        near |= (unsigned)(sum[lane] <= limit) << lane;
    return near;
}

/* The point farthest from `from`, or `from`. */
static uint32_t farthest(const struct sweep *sweep, size_t count, uint32_t from)
{
    float most = 0;
    uint32_t best = from;
    for (uint32_t n = 0; n < count; n++) {
        float sum = 0;
        for (int i = 0; i < sweep->length && sweep->point[n]; i++)
            sum += (sweep->point[n][i] - sweep->point[from][i]) * (sweep->point[n][i] - sweep->point[from][i]);
        if (sum > most) {
            most = sum;
            best = n;
        }
    }
    return best;
}

/* Along the line between two points that are far apart, where the others spread too. */
static size_t mark_points(const struct sweep *sweep, size_t count)
{
    float direction[SKETCH_LENGTH] = {0}, norm = 0;
    uint32_t first = 0;
    size_t marked = 0;
    while (first < count && !sweep->point[first])
        first++;
    if (first == count)
        return 0;
    uint32_t a = farthest(sweep, count, first), b = farthest(sweep, count, a);
    for (int i = 0; i < sweep->length; i++) {
        direction[i] = sweep->point[a][i] - sweep->point[b][i];
        norm += direction[i] * direction[i];
    }
    for (int i = 0; i < sweep->length; i++)
        direction[i] = norm > 0 ? direction[i] / sqrtf(norm) : 0;
    for (uint32_t n = 0; n < count; n++) {
        if (!sweep->point[n])
            continue;
        float along = 0;
        for (int i = 0; i < sweep->length; i++)
            along += direction[i] * sweep->point[n][i];
        sweep->mark[marked++] = (struct mark){along, n};
    }
    return marked;
}

static void fill_blocks(const struct sweep *sweep, size_t marked)
{
    for (size_t n = 0; n < marked; n++) {
        float *lane = sweep->block + n / LANES * LANES * (size_t)sweep->length + n % LANES;
        for (int i = 0; i < sweep->length; i++)
            lane[i * LANES] = sweep->point[sweep->mark[n].index][i];
    }
}

/* Both ways from each of the first points, unless all points are: then a pair is met from its earlier one. */
static void run_sweep(const struct sweep *sweep, size_t count)
{
    size_t marked = mark_points(sweep, count), from = 0;
    qsort(sweep->mark, marked, sizeof *sweep->mark, compare_marks);
    fill_blocks(sweep, marked);
    float reach = sweep->reach * 1.001f + 1e-6f; /* `along` is rounded */
    for (size_t i = 0; i < marked; i++) {
        struct mark own = sweep->mark[i];
        if (own.index >= sweep->first)
            continue;
        while (own.along - sweep->mark[from].along > reach)
            from++;
        for (size_t at = (sweep->first < count ? from : i) / LANES * LANES;
             at < marked && sweep->mark[at].along - own.along <= reach; at += LANES) {
            unsigned near = near_lanes(sweep, sweep->block + at * (size_t)sweep->length, sweep->point[own.index]);
            for (size_t k = at; near; k++, near >>= 1) {
                uint32_t other = k < marked ? sweep->mark[k].index : own.index;
                if ((near & 1) && other != own.index && (k > i || other >= sweep->first))
                    sweep->found(sweep->context, own.index < other ? own.index : other,
                                 own.index < other ? other : own.index);
            }
        }
    }
}

int duplicates_find(const struct place *places, size_t count, size_t first, const struct duplicate_rule *rule,
                    duplicates_found *found, void *context)
{
    const float **point = calloc(count + 1, sizeof *point);
    struct mark *mark = calloc(count + 1, sizeof *mark);
    float *block = calloc((count + LANES) * SKETCH_LENGTH, sizeof *block);
    int result =
        point && mark && block ? 0 : error_set(ERROR_SYSTEM, "out of memory for comparing %zu galaxies", count);
    if (!result && rule->radius_arcsec > 0) {
        for (size_t n = 0; n < count; n++) {
            const float *at = places[n].position;
            point[n] = at[0] != 0 || at[1] != 0 || at[2] != 0 ? at : NULL;
        }
        struct sweep sweep = {point, 3,      (float)(2 * sin(rule->radius_arcsec * ARCSEC / 2)), first, mark, block,
                              found, context};
        run_sweep(&sweep, count);
    }
    if (!result && rule->distance > 0) {
        for (size_t n = 0; n < count; n++)
            point[n] = places[n].sketch;
        struct sweep sweep = {point, SKETCH_LENGTH, (float)rule->distance, first, mark, block, found, context};
        run_sweep(&sweep, count);
    }
    free(point);
    free(mark);
    free(block);
    return result;
}
