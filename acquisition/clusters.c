/* k-means on sketches; see clusters.h. */
#include "acquisition/clusters.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int nearest(const struct clusters *clusters, const float *sketch, float *ret_distance2)
{
    int best = 0;
    float least = INFINITY;
    for (int c = 0; c < clusters->count; c++) {
        float distance2 = sketch_distance2(sketch, clusters->centre + (size_t)c * SKETCH_LENGTH);
        if (distance2 < least) {
            least = distance2;
            best = c;
        }
    }
    *ret_distance2 = least;
    return best;
}

/* Each further centre is a galaxy drawn in proportion to its squared distance from the centres so far. */
static void seed_centres(const float *sketch, size_t count, int wanted, uint64_t seed, float *distance2,
                         struct clusters *clusters)
{
    for (size_t n = 0; n < count; n++)
        distance2[n] = 1;
    for (clusters->count = 0; clusters->count < wanted;) {
        double sum = 0, passed = 0;
        for (size_t n = 0; n < count; n++)
            sum += (double)distance2[n];
        if (!(sum > 0))
            return; /* every galaxy is a centre already */
        struct philox random = philox(seed, (uint32_t)clusters->count, 1, 0, PHILOX_SKETCH);
        double goal = sum * ((double)random.word[0] + 0.5) * 0x1p-32;
        size_t chosen = 0;
        for (size_t n = 0; n < count && passed <= goal; n++)
            if (distance2[n] > 0) {
                passed += (double)distance2[n];
                chosen = n;
            }
        float *centre = clusters->centre + (size_t)clusters->count++ * SKETCH_LENGTH;
        memcpy(centre, sketch + chosen * SKETCH_LENGTH, SKETCH_LENGTH * sizeof *centre);
        for (size_t n = 0; n < count; n++) {
            float own = sketch_distance2(sketch + n * SKETCH_LENGTH, centre);
            distance2[n] = clusters->count == 1 || own < distance2[n] ? own : distance2[n];
        }
    }
}

/* A centre that lost its last galaxy stays where it was. */
static void move_centres(const float *sketch, size_t count, const int *own, double *sums, struct clusters *clusters)
{
    memset(sums, 0, (size_t)clusters->count * (SKETCH_LENGTH + 1) * sizeof *sums);
    for (size_t n = 0; n < count; n++) {
        double *sum = sums + (size_t)own[n] * (SKETCH_LENGTH + 1);
        for (int i = 0; i < SKETCH_LENGTH; i++)
            sum[i] += (double)sketch[n * SKETCH_LENGTH + (size_t)i];
        sum[SKETCH_LENGTH]++;
    }
    for (int c = 0; c < clusters->count; c++) {
        const double *sum = sums + (size_t)c * (SKETCH_LENGTH + 1);
        for (int i = 0; i < SKETCH_LENGTH && sum[SKETCH_LENGTH] > 0; i++)
            clusters->centre[(size_t)c * SKETCH_LENGTH + (size_t)i] = (float)(sum[i] / sum[SKETCH_LENGTH]);
    }
}

static int assign(const float *sketch, size_t count, const struct clusters *clusters, int *own, float *distance2)
{
    int changed = 0;
    for (size_t n = 0; n < count; n++) {
        int before = own[n];
        own[n] = nearest(clusters, sketch + n * SKETCH_LENGTH, &distance2[n]);
        changed |= own[n] != before;
    }
    return changed;
}

/* Centres of fewer galaxies than that are given up, unless all are. Returns 1 if any was. */
static int drop_small(const int *own, size_t count, size_t members_min, struct clusters *clusters)
{
    size_t members[CLUSTERS_MAX] = {0};
    int kept = 0;
    for (size_t n = 0; n < count; n++)
        members[own[n]]++;
    for (int c = 0; c < clusters->count; c++)
        if (members[c] >= members_min)
            memmove(clusters->centre + (size_t)kept++ * SKETCH_LENGTH, clusters->centre + (size_t)c * SKETCH_LENGTH,
                    SKETCH_LENGTH * sizeof *clusters->centre);
    int dropped = kept && kept < clusters->count;
    clusters->count = dropped ? kept : clusters->count;
    return dropped;
}

static int compare_floats(const void *left, const void *right)
{
    float a = *(const float *)left, b = *(const float *)right;
    return a < b ? -1 : a > b;
}

int clusters_new(const float *sketch, size_t count, const struct clusters_request *request,
                 struct clusters *ret_clusters)
{
    struct clusters clusters = {.scale = 1};
    int wanted = request->wanted;
    wanted = wanted < 1 ? 1 : wanted > CLUSTERS_MAX ? CLUSTERS_MAX : wanted;
    clusters.centre = calloc((size_t)wanted * SKETCH_LENGTH, sizeof *clusters.centre);
    float *distance2 = calloc(count + 1, sizeof *distance2);
    int *own = calloc(count + 1, sizeof *own);
    double *sums = calloc((size_t)wanted * (SKETCH_LENGTH + 1), sizeof *sums);
    int result = clusters.centre && distance2 && own && sums
                     ? 0
                     : error_set(ERROR_SYSTEM, "out of memory for %d clusters", wanted);
    if (!result && count) {
        seed_centres(sketch, count, wanted, request->seed, distance2, &clusters);
        assign(sketch, count, &clusters, own, distance2);
        for (int i = 0; i < CLUSTERS_ITERATIONS; i++) {
            move_centres(sketch, count, own, sums, &clusters);
            if (!assign(sketch, count, &clusters, own, distance2))
                break;
        }
        if (drop_small(own, count, request->members_min, &clusters))
            assign(sketch, count, &clusters, own, distance2);
        qsort(distance2, count, sizeof *distance2, compare_floats);
        float median = sqrtf(distance2[count / 2]);
        clusters.scale = median > 0 ? median : 1;
    }
    free(distance2);
    free(own);
    free(sums);
    if (result)
        clusters_free(&clusters);
    else
        *ret_clusters = clusters;
    return result;
}

void clusters_free(struct clusters *clusters)
{
    free(clusters->centre);
    *clusters = (struct clusters){0};
}

int clusters_place(const struct clusters *clusters, const float *sketch, float *ret_distance)
{
    float distance2 = 0;
    int place = clusters->count ? nearest(clusters, sketch, &distance2) : 0;
    *ret_distance = sqrtf(distance2) / clusters->scale;
    return place;
}

/* --- typical ones first ------------------------------------------------------------------------------------------- */

struct member {
    uint32_t index;
    int cluster, size; /* of its cluster */
    uint32_t place;    /* 0 = nearest to the centre */
    float distance;
};

static int by_distance(const void *left, const void *right)
{
    const struct member *a = left, *b = right;
    if (a->cluster != b->cluster)
        return a->cluster - b->cluster;
    if (a->distance != b->distance)
        return a->distance < b->distance ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static int by_round(const void *left, const void *right)
{
    const struct member *a = left, *b = right;
    if (a->place != b->place)
        return a->place < b->place ? -1 : 1;
    return a->size != b->size ? b->size - a->size : a->cluster - b->cluster;
}

int clusters_typical(const struct clusters *clusters, const float *sketch, size_t count, uint32_t *order)
{
    struct member *members = calloc(count + 1, sizeof *members);
    int *sizes = calloc((size_t)clusters->count + 1, sizeof *sizes);
    int result = members && sizes ? 0 : error_set(ERROR_SYSTEM, "out of memory for %zu galaxies", count);
    for (size_t n = 0; n < count && !result; n++) {
        members[n].index = (uint32_t)n;
        members[n].cluster = clusters_place(clusters, sketch + n * SKETCH_LENGTH, &members[n].distance);
        sizes[members[n].cluster]++;
    }
    if (!result) {
        qsort(members, count, sizeof *members, by_distance);
        for (size_t n = 0; n < count; n++) {
            members[n].size = sizes[members[n].cluster];
            members[n].place = n && members[n].cluster == members[n - 1].cluster ? members[n - 1].place + 1 : 0;
        }
        qsort(members, count, sizeof *members, by_round);
        for (size_t n = 0; n < count; n++)
            order[n] = members[n].index;
    }
    free(members);
    free(sizes);
    return result;
}
