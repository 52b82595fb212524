/* Thresholds and probabilities of the active draw; see draw.h. */
#include "acquisition/draw.h"
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NO_INDEX UINT32_MAX

/* One candidate at its place by falling v. */
struct turn {
    double v;
    uint32_t index;     /* among the candidates */
    uint32_t highest;   /* turn of the first near-duplicate above it, or NO_INDEX */
    int several;        /* 1 = there are more of them */
    uint32_t lower;     /* turn of the highest near-duplicate below it, or NO_INDEX */
    uint32_t next;      /* list of those that are out only because of the same one */
    uint32_t first;     /* head of the list of those that are out only because of this one */
    int cluster, place; /* place 1 = the best of its cluster */
};

struct draw {
    const struct draw_rule *rule;
    struct turn *turn;
    size_t count;
    int clusters;     /* highest cluster number */
    int *room;        /* [clusters + 1] candidates that may go on */
    uint32_t *excess; /* [clusters + 1] turn of the first one that may not, or NO_INDEX */
    uint32_t *taken;  /* [places] turns */
    size_t taken_count;
    uint32_t left;   /* turn of the best one that was only not needed, or NO_INDEX */
    double *revived; /* [count] scratch */
};

double draw_value(double power, float score, double gumbel)
{
    return power > 0 ? log(score > 0 ? (double)score : 0x1p-100) + gumbel / power : (double)score;
}

struct order {
    double v;
    uint64_t key;
    uint32_t index;
};

static int compare_order(const void *left, const void *right)
{
    const struct order *a = left, *b = right;
    if (a->v != b->v)
        return a->v > b->v ? -1 : 1;
    return a->key < b->key ? -1 : a->key > b->key;
}

static int sort_turns(struct draw *draw, const struct candidate *candidates)
{
    struct order *order = calloc(draw->count + 1, sizeof *order);
    if (!order)
        return error_set(ERROR_SYSTEM, "out of memory for a draw from %zu", draw->count);
    for (uint32_t i = 0; i < draw->count; i++)
        order[i] = (struct order){draw_value(draw->rule->power, candidates[i].score, candidates[i].gumbel),
                                  candidates[i].key, i};
    qsort(order, draw->count, sizeof *order, compare_order);
    for (size_t i = 0; i < draw->count; i++)
        draw->turn[i] = (struct turn){.v = order[i].v,
                                      .index = order[i].index,
                                      .highest = NO_INDEX,
                                      .lower = NO_INDEX,
                                      .next = NO_INDEX,
                                      .first = NO_INDEX,
                                      .cluster = candidates[order[i].index].cluster};
    free(order);
    return 0;
}

/* Indices are turns: a is above b. */
static void note_duplicate(void *context, uint32_t a, uint32_t b)
{
    struct draw *draw = context;
    struct turn *above = &draw->turn[a], *below = &draw->turn[b];
    above->lower = above->lower == NO_INDEX || b < above->lower ? b : above->lower;
    if (below->highest != NO_INDEX && below->highest != a)
        below->several = 1;
    below->highest = below->highest == NO_INDEX || a < below->highest ? a : below->highest;
}

static int find_duplicates(struct draw *draw, const struct candidate *candidates)
{
    struct place *places = calloc(draw->count + 1, sizeof *places);
    if (!places)
        return error_set(ERROR_SYSTEM, "out of memory for a draw from %zu", draw->count);
    for (size_t i = 0; i < draw->count; i++)
        places[i] = candidates[draw->turn[i].index].place;
    int result = duplicates_find(places, draw->count, draw->count, &draw->rule->duplicates, note_duplicate, draw);
    free(places);
    for (uint32_t i = 0; i < draw->count; i++) {
        struct turn *turn = &draw->turn[i];
        if (turn->highest == NO_INDEX || turn->several)
            continue;
        turn->next = draw->turn[turn->highest].first;
        draw->turn[turn->highest].first = i;
    }
    return result;
}

static void count_clusters(struct draw *draw)
{
    const struct draw_rule *rule = draw->rule;
    for (int c = 0; c <= draw->clusters; c++) {
        draw->room[c] = rule->cap && c ? rule->cap : INT32_MAX / 2;
        draw->excess[c] = NO_INDEX;
    }
    for (size_t i = 0; i < rule->kept_count; i++) {
        int c = rule->kept[i].cluster;
        if (rule->cap && c > 0 && c <= draw->clusters && draw->room[c] > 0 && rule->kept[i].stream == STREAM_ACTIVE)
            draw->room[c]--;
    }
    int *seen = (int *)draw->revived; /* scratch until thresholds are looked for */
    memset(seen, 0, ((size_t)draw->clusters + 1) * sizeof *seen);
    for (uint32_t i = 0; i < draw->count; i++) {
        struct turn *turn = &draw->turn[i];
        turn->place = ++seen[turn->cluster];
        if (turn->place == draw->room[turn->cluster] + 1)
            draw->excess[turn->cluster] = i;
    }
}

static int goes_on(const struct draw *draw, const struct turn *turn)
{
    return turn->highest == NO_INDEX && turn->place <= draw->room[turn->cluster];
}

static void take(struct draw *draw, struct candidate *candidates)
{
    for (uint32_t i = 0; i < draw->count; i++) {
        const struct turn *turn = &draw->turn[i];
        struct candidate *candidate = &candidates[turn->index];
        candidate->outcome = OUTCOME_LEFT;
        if (goes_on(draw, turn) && draw->taken_count < draw->rule->places) {
            draw->taken[draw->taken_count++] = i;
            candidate->outcome = OUTCOME_TAKEN;
        } else if (goes_on(draw, turn)) {
            draw->left = i;
            return;
        } else if (turn->highest != NO_INDEX) {
            candidate->outcome = OUTCOME_DUPLICATE;
            candidate->like = candidates[draw->turn[turn->highest].index].key;
        } else {
            candidate->outcome = OUTCOME_CLUSTER;
            candidate->like = (uint64_t)turn->cluster;
        }
    }
}

/* --- thresholds ------------------------------------------------------------------------------------------------- */

static int compare_values(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

/* The v of those that would go on without candidate `at` and do not with it. Returns their number. */
static size_t revive(const struct draw *draw, uint32_t at)
{
    const struct turn *turn = &draw->turn[at];
    uint32_t excess = draw->excess[turn->cluster];
    size_t count = 0;
    for (uint32_t i = turn->first; i != NO_INDEX; i = draw->turn[i].next)
        if (i != excess && draw->turn[i].place <= draw->room[draw->turn[i].cluster])
            draw->revived[count++] = draw->turn[i].v;
    if (excess != NO_INDEX &&
        (draw->turn[excess].highest == NO_INDEX || (draw->turn[excess].highest == at && !draw->turn[excess].several)))
        draw->revived[count++] = draw->turn[excess].v;
    return count;
}

/* The v of the places-th candidate of what would go on without candidate `at`; -INFINITY if there were fewer. */
static double last_without(const struct draw *draw, uint32_t at)
{
    size_t revived = revive(draw, at), low = 0, taken = draw->taken_count;
    int has_left = draw->left != NO_INDEX;
    qsort(draw->revived, revived, sizeof *draw->revived, compare_values);
    while (has_left && low < revived && draw->revived[low] <= draw->turn[draw->left].v)
        low++;
    size_t others = taken - 1 + (size_t)has_left + revived - low;
    if (others < draw->rule->places)
        return -INFINITY;
    for (size_t passed = 0;; passed++) { /* from the lowest on */
        while (!has_left && taken && draw->taken[taken - 1] == at)
            taken--;
        double v = has_left ? draw->turn[draw->left].v : taken ? draw->turn[draw->taken[taken - 1]].v : INFINITY;
        int from_revived = low < revived && draw->revived[low] < v;
        v = from_revived ? draw->revived[low] : v;
        if (passed == others - draw->rule->places)
            return v;
        if (from_revived)
            low++;
        else if (has_left)
            has_left = 0;
        else
            taken--;
    }
}

static double probability(const struct draw *draw, const struct candidate *candidate, uint32_t at)
{
    const struct draw_rule *rule = draw->rule;
    const struct turn *turn = &draw->turn[at];
    double tau = last_without(draw, at);
    if (turn->lower != NO_INDEX && draw->turn[turn->lower].v > tau)
        tau = draw->turn[turn->lower].v;
    if (draw->excess[turn->cluster] != NO_INDEX && draw->turn[draw->excess[turn->cluster]].v > tau)
        tau = draw->turn[draw->excess[turn->cluster]].v;
    double needed = rule->power * (tau - draw_value(rule->power, candidate->score, 0));
    double to_be_listed = rule->power * (rule->left_out - draw_value(rule->power, candidate->scanned, 0));
    needed = to_be_listed > needed ? to_be_listed : needed;
    return -expm1(-exp(-needed)); /* 1 for -INFINITY */
}

/* --- the draw ------------------------------------------------------------------------------------------------------ */

static int run(struct draw *draw, struct candidate *candidates)
{
    int result = sort_turns(draw, candidates);
    if (!result)
        result = find_duplicates(draw, candidates);
    if (result)
        return result;
    count_clusters(draw);
    take(draw, candidates);
    for (size_t i = 0; i < draw->taken_count; i++) {
        struct candidate *candidate = &candidates[draw->turn[draw->taken[i]].index];
        candidate->probability = draw->rule->power > 0 ? probability(draw, candidate, draw->taken[i]) : 1;
    }
    return 0;
}

long draw_candidates(const struct draw_rule *rule, struct candidate *candidates, size_t count, size_t *taken)
{
    struct draw draw = {.rule = rule, .count = count, .left = NO_INDEX};
    for (size_t i = 0; i < count; i++)
        draw.clusters = candidates[i].cluster > draw.clusters ? candidates[i].cluster : draw.clusters;
    draw.turn = calloc(count + 1, sizeof *draw.turn);
    draw.room = calloc((size_t)draw.clusters + 1, sizeof *draw.room);
    draw.excess = calloc((size_t)draw.clusters + 1, sizeof *draw.excess);
    draw.taken = calloc(rule->places + 1, sizeof *draw.taken);
    draw.revived = calloc(count + (size_t)draw.clusters + 2, sizeof *draw.revived);
    long result = draw.turn && draw.room && draw.excess && draw.taken && draw.revived
                      ? run(&draw, candidates)
                      : error_set(ERROR_SYSTEM, "out of memory for a draw from %zu", count);
    for (size_t i = 0; i < draw.taken_count && !result; i++)
        taken[i] = draw.turn[draw.taken[i]].index;
    free(draw.turn);
    free(draw.room);
    free(draw.excess);
    free(draw.taken);
    free(draw.revived);
    return result ? result : (long)draw.taken_count;
}
