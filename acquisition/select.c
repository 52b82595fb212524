/* Bounded selection; see select.h. */
#include "acquisition/select.h"
#include "acquisition/draw.h"
#include "base/error.h"
#include "base/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The galaxies of a stratum that a random draw may take; TEST shares REST with TRAIN. */
enum stratum { STRATUM_VALIDATION, STRATUM_GATE, STRATUM_REST, STRATA };

struct pick {
    uint64_t order; /* smaller is better */
    uint64_t key;
    float score;
    int held;      /* the caller's reason; 0 = none */
    double gumbel; /* of the active draw */
};

/* The `limit` best picks seen so far; the worst is at the top. */
struct heap {
    struct pick *pick;
    size_t count, limit;
    uint64_t offered;
};

/* How many galaxies each source gives; see the shares in select.h. What a stratum cannot fill goes to the others. */
struct allotment {
    int pinned, random[STRATA], active;
};

struct selector {
    struct select_request request;
    int slots;
    struct heap active, pinned, random[STRATA], held;
    struct candidate *kept; /* [kept_count] */
    size_t kept_count, kept_limit;
    struct allotment allotment;
    struct candidate *candidate;                     /* kept, pinned, random, active, held; NULL until asked for */
    size_t kept_pinned, guards, active_count, count; /* where each part ends, and how many are active */
    double left_out;                                 /* v of the best galaxy that is not on the shortlist */
};

static const char *const stream_names[] = {"active", "random", "pinned"};

const char *stream_name(enum stream stream)
{
    return stream_names[stream];
}

int stream_from_name(const char *name, enum stream *ret_stream)
{
    for (int i = 0; i < 3; i++)
        if (strcmp(name, stream_names[i]) == 0) {
            *ret_stream = (enum stream)i;
            return 0;
        }
    return error_set(ERROR_INPUT, "unknown stream '%s': active, random or pinned", name);
}

float score_round(float score)
{
    if (!(score > 0))
        return 0;
    return (float)(rint((double)score * 0x1p20) * 0x1p-20);
}

static int better(const struct pick *a, const struct pick *b)
{
    return a->order != b->order ? a->order < b->order : a->key < b->key;
}

static void sift_down(struct heap *heap, size_t at)
{
    for (;;) {
        size_t worst = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < heap->count; child++)
            if (better(&heap->pick[worst], &heap->pick[child]))
                worst = child;
        if (worst == at)
            return;
        struct pick swapped = heap->pick[at];
        heap->pick[at] = heap->pick[worst];
        heap->pick[worst] = swapped;
        at = worst;
    }
}

static void heap_offer(struct heap *heap, struct pick pick)
{
    heap->offered++;
    if (heap->count == heap->limit) {
        if (heap->limit && better(&pick, &heap->pick[0])) {
            heap->pick[0] = pick;
            sift_down(heap, 0);
        }
        return;
    }
    size_t at = heap->count++;
    while (at && better(&heap->pick[(at - 1) / 2], &pick)) {
        heap->pick[at] = heap->pick[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->pick[at] = pick;
}

static int compare_picks(const void *a, const void *b)
{
    return better(a, b) ? -1 : better(b, a) ? 1 : 0;
}

static void heap_sort(struct heap *heap)
{
    qsort(heap->pick, heap->count, sizeof *heap->pick, compare_picks);
}

static int is_share(double share)
{
    return share >= 0 && share <= 1;
}

static int check(const struct select_request *request)
{
    if (request->queue_size < 1 || request->queue_size > SELECT_SLOTS_MAX)
        return error_set(ERROR_INPUT, "a queue holds 1 to %d galaxies, not %d", SELECT_SLOTS_MAX, request->queue_size);
    if (!(request->power >= 0 && request->power <= SELECT_POWER_MAX))
        return error_set(ERROR_INPUT, "the power of a draw lies between 0 and %d, not %g", SELECT_POWER_MAX,
                         request->power);
    if (!is_share((double)request->holdout_share) || !is_share((double)request->random_share) ||
        !is_share(request->cluster_share))
        return error_set(ERROR_INPUT, "shares of the queue lie between 0 and 1");
    if (request->shortlist < 0 || request->shortlist > SELECT_SHORTLIST_MAX)
        return error_set(ERROR_INPUT, "a shortlist has 1 to %d candidates per place, not %d", SELECT_SHORTLIST_MAX,
                         request->shortlist);
    return 0;
}

static int heap_new(struct heap *heap, size_t limit)
{
    heap->limit = limit;
    heap->pick = calloc(limit + 1, sizeof *heap->pick);
    return heap->pick ? 0 : -1;
}

int selector_new(const struct select_request *request, struct selector **ret_selector)
{
    int result = check(request);
    if (result)
        return result;
    struct selector *selector = calloc(1, sizeof *selector);
    if (!selector)
        return error_set(ERROR_SYSTEM, "out of memory for a selection");
    selector->request = *request;
    if (!request->shortlist)
        selector->request.shortlist = 1;
    int kept = request->kept_holdout + request->kept_random + request->kept_active;
    selector->slots = kept < request->queue_size ? request->queue_size - kept : 0;
    selector->kept_limit = (size_t)request->queue_size;
    selector->kept = calloc(selector->kept_limit, sizeof *selector->kept);
    size_t slots = (size_t)selector->slots, held = request->held > 0 ? (size_t)request->held : 0;
    /* Active and random draws may overlap: so many more candidates, and the best one that is not on the shortlist. */
    result = !selector->kept || heap_new(&selector->active, slots * (size_t)selector->request.shortlist + slots + 1) ||
             heap_new(&selector->pinned, slots) || heap_new(&selector->held, held);
    for (int i = 0; i < STRATA; i++)
        result |= heap_new(&selector->random[i], slots);
    if (result) {
        selector_free(selector);
        return error_set(ERROR_SYSTEM, "out of memory for a selection of %d", request->queue_size);
    }
    *ret_selector = selector;
    return 0;
}

void selector_free(struct selector *selector)
{
    if (!selector)
        return;
    free(selector->active.pick);
    free(selector->pinned.pick);
    free(selector->held.pick);
    for (int i = 0; i < STRATA; i++)
        free(selector->random[i].pick);
    free(selector->kept);
    free(selector->candidate);
    free(selector);
}

static enum stratum stratum_of(enum split split)
{
    return split == SPLIT_VALIDATION ? STRATUM_VALIDATION : split == SPLIT_GATE ? STRATUM_GATE : STRATUM_REST;
}

/* Larger floats get smaller numbers: for values of any sign. */
static uint64_t descending(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return UINT32_MAX - bits;
}

static uint64_t by_score(float rounded)
{
    return UINT64_MAX - (uint64_t)((double)rounded * 0x1p20);
}

/* Scores are multiples of 2^-20, so their order is exact. A score of 0 is drawn only when nothing else is left. */
static struct pick active_pick(const struct select_request *request, uint64_t key, float score, uint64_t draw)
{
    if (request->power <= 0)
        return (struct pick){by_score(score), key, score, 0, 0};
    double uniform = ((double)(draw >> 11) + 0.5) * 0x1p-53, gumbel = -log(-log(uniform));
    return (struct pick){descending((float)draw_value(request->power, score, gumbel)), key, score, 0, gumbel};
}

void selector_offer(struct selector *selector, uint64_t key, enum split split, int pinned, float score)
{
    const struct select_request *request = &selector->request;
    float rounded = score_round(score);
    if (pinned) {
        heap_offer(&selector->pinned, (struct pick){key, key, rounded, 0, 0});
        return;
    }
    struct philox random =
        philox(request->seed, (uint32_t)key, (uint32_t)(key >> 32), (uint32_t)request->cycle, PHILOX_SELECT);
    uint64_t draw = (uint64_t)random.word[0] << 32 | random.word[1];
    heap_offer(&selector->random[stratum_of(split)], (struct pick){draw, key, rounded, 0, 0});
    if (split == SPLIT_TRAIN && !isnan(score))
        heap_offer(&selector->active,
                   active_pick(request, key, rounded, (uint64_t)random.word[2] << 32 | random.word[3]));
}

void selector_keep(struct selector *selector, uint64_t key, enum stream stream, float score)
{
    if (selector->kept_count < selector->kept_limit)
        selector->kept[selector->kept_count++] =
            (struct candidate){.key = key, .stream = stream, .kept = 1, .score = score_round(score)};
}

void selector_hold(struct selector *selector, uint64_t key, int held, float score)
{
    float rounded = score_round(score);
    heap_offer(&selector->held, (struct pick){by_score(rounded), key, rounded, held, 0});
}

static int minimum(int a, int b)
{
    return a < b ? a : b;
}

static struct allotment allot(const struct selector *selector)
{
    const struct select_request *request = &selector->request;
    struct allotment allotment = {0};
    int slots = selector->slots;
    allotment.pinned = (int)selector->pinned.count;
    slots -= allotment.pinned;

    float holdout_share = request->cold && request->holdout_share < 0.5f ? 0.5f : request->holdout_share;
    int holdout_goal = (int)lrintf((float)request->queue_size * holdout_share) - request->kept_holdout;
    int holdout = minimum(slots, holdout_goal > 0 ? holdout_goal : 0);
    int validation_count = (int)selector->random[STRATUM_VALIDATION].count;
    int gate_count = (int)selector->random[STRATUM_GATE].count;
    allotment.random[STRATUM_GATE] = minimum(holdout / 2, gate_count);
    allotment.random[STRATUM_VALIDATION] = minimum(holdout - allotment.random[STRATUM_GATE], validation_count);
    allotment.random[STRATUM_GATE] = minimum(holdout - allotment.random[STRATUM_VALIDATION], gate_count);
    slots -= allotment.random[STRATUM_GATE] + allotment.random[STRATUM_VALIDATION];

    int rest_count = (int)selector->random[STRATUM_REST].count;
    float random_share = selector->active.count ? request->random_share : 1;
    int random_goal =
        (int)lrintf((float)(slots + request->kept_random + request->kept_active) * random_share) - request->kept_random;
    int random = minimum(minimum(slots, random_goal > 0 ? random_goal : 0), rest_count);
    int active = minimum(slots - random, (int)selector->active.count);
    allotment.random[STRATUM_REST] = minimum(slots - active, active == 0 ? rest_count : random);
    allotment.active = active;
    return allotment;
}

/* --- candidates ------------------------------------------------------------------------------------------------- */

static int compare_keys(const void *left, const void *right)
{
    const struct pick *a = left, *b = right;
    return a->key < b->key ? -1 : a->key > b->key;
}

static void add(struct selector *selector, const struct pick *pick, enum stream stream, double probability)
{
    selector->candidate[selector->count++] = (struct candidate){.key = pick->key,
                                                                .stream = stream,
                                                                .score = pick->score,
                                                                .held = pick->held,
                                                                .probability = probability,
                                                                .gumbel = pick->gumbel,
                                                                .scanned = pick->score};
}

/* The best active picks that were not drawn at random; the first one beyond them sets the threshold. */
static void add_active(struct selector *selector)
{
    struct heap *rest = &selector->random[STRATUM_REST]; /* the only stratum active picks can be in */
    size_t drawn = (size_t)selector->allotment.random[STRATUM_REST];
    size_t limit = (size_t)selector->allotment.active * (size_t)selector->request.shortlist;
    qsort(rest->pick, drawn, sizeof *rest->pick, compare_keys);
    selector->left_out = -INFINITY;
    for (size_t i = 0; i < selector->active.count; i++) {
        const struct pick *pick = &selector->active.pick[i];
        if (bsearch(pick, rest->pick, drawn, sizeof *pick, compare_keys))
            continue;
        if (selector->active_count == limit) {
            selector->left_out = draw_value(selector->request.power, pick->score, pick->gumbel);
            return;
        }
        add(selector, pick, STREAM_ACTIVE, 1);
        selector->active_count++;
    }
}

int selector_candidates(struct selector *selector, struct candidate **ret_candidates, size_t *ret_count)
{
    struct heap *heaps[] = {&selector->active,    &selector->pinned,    &selector->held,
                            &selector->random[0], &selector->random[1], &selector->random[2]};
    size_t limit = selector->kept_count + 1;
    for (size_t i = 0; i < sizeof heaps / sizeof *heaps; i++) {
        heap_sort(heaps[i]);
        limit += heaps[i]->count;
    }
    free(selector->candidate);
    selector->candidate = calloc(limit, sizeof *selector->candidate);
    if (!selector->candidate)
        return error_set(ERROR_SYSTEM, "out of memory for %zu candidates", limit);
    selector->allotment = allot(selector);
    memcpy(selector->candidate, selector->kept, selector->kept_count * sizeof *selector->kept);
    selector->count = selector->kept_count;
    for (int i = 0; i < selector->allotment.pinned; i++)
        add(selector, &selector->pinned.pick[i], STREAM_PINNED, 1);
    selector->kept_pinned = selector->count;
    for (int stratum = 0; stratum < STRATA; stratum++)
        for (int i = 0; i < selector->allotment.random[stratum]; i++)
            add(selector, &selector->random[stratum].pick[i], STREAM_RANDOM,
                (double)selector->allotment.random[stratum] / (double)selector->random[stratum].offered);
    selector->guards = selector->count;
    selector->active_count = 0;
    add_active(selector);
    for (size_t i = 0; i < selector->held.count; i++)
        add(selector, &selector->held.pick[i], STREAM_ACTIVE, 1);
    *ret_candidates = selector->candidate;
    *ret_count = selector->count;
    return 0;
}

/* --- the choice --------------------------------------------------------------------------------------------------- */

/* Galaxies from `first` on that are like an earlier one: random draws among guards, or active ones beside guards. */
struct likeness {
    struct candidate *candidate;
    size_t first, last_guard;
};

static void note_likeness(void *context, uint32_t a, uint32_t b)
{
    const struct likeness *likeness = context;
    struct candidate *above = &likeness->candidate[a], *below = &likeness->candidate[b];
    if (b < likeness->first || a >= likeness->last_guard || above->outcome == OUTCOME_DUPLICATE)
        return;
    below->outcome = OUTCOME_DUPLICATE;
    below->like = above->key;
}

static int compare_to_guards(struct selector *selector, size_t first, size_t count, size_t last_guard)
{
    struct likeness likeness = {selector->candidate, first, last_guard};
    struct place *places = calloc(count + 1, sizeof *places);
    if (!places)
        return error_set(ERROR_SYSTEM, "out of memory for comparing %zu galaxies", count);
    for (size_t i = 0; i < count; i++)
        places[i] = selector->candidate[i].place;
    int result = duplicates_find(places, count, last_guard, &selector->request.duplicates, note_likeness, &likeness);
    free(places);
    return result;
}

/* Those the draw is about come first. Returns their number. */
static size_t part_open(struct candidate *active, size_t count)
{
    size_t open = 0;
    for (size_t i = 0; i < count; i++) {
        if (active[i].held)
            active[i].outcome = OUTCOME_HELD;
        if (active[i].outcome != OUTCOME_LEFT)
            continue;
        struct candidate moved = active[i];
        active[i] = active[open];
        active[open++] = moved;
    }
    return open;
}

/* Caps that leave places free are doubled until they do not; see select.h. */
static long draw_active(struct selector *selector, size_t *taken)
{
    const struct select_request *request = &selector->request;
    struct candidate *active = selector->candidate + selector->guards;
    int places = selector->allotment.active, crowded = 1;
    struct draw_rule rule = {.power = request->power,
                             .places = (size_t)places,
                             .cap = (int)ceil(request->cluster_share * (double)(places + request->kept_active)),
                             .kept = selector->candidate,
                             .kept_count = selector->kept_count,
                             .duplicates = request->duplicates,
                             .left_out = selector->left_out};
    size_t open = part_open(active, selector->active_count);
    long count = 0;
    while (crowded) {
        for (size_t i = 0; i < open; i++)
            active[i].outcome = OUTCOME_LEFT;
        count = draw_candidates(&rule, active, open, taken);
        crowded = 0;
        for (size_t i = 0; i < open && count >= 0 && count < places; i++)
            crowded |= active[i].outcome == OUTCOME_CLUSTER;
        rule.cap *= 2;
    }
    return count;
}

static struct selected selected_of(const struct candidate *candidate)
{
    return (struct selected){candidate->key, candidate->stream, candidate->probability, candidate->score};
}

int selector_finish(struct selector *selector, struct selected *selected, size_t *ret_count)
{
    struct candidate *candidates;
    size_t count, chosen = 0, *taken = calloc((size_t)selector->slots + 1, sizeof *taken);
    int result = taken ? 0 : error_set(ERROR_SYSTEM, "out of memory for a choice of %d", selector->slots);
    if (!result && !selector->candidate)
        result = selector_candidates(selector, &candidates, &count);
    if (!result) /* of the random draws, then of the shortlist */
        result = compare_to_guards(selector, selector->kept_pinned, selector->guards, selector->guards);
    if (!result)
        result =
            compare_to_guards(selector, selector->guards, selector->guards + selector->active_count, selector->guards);
    for (size_t i = selector->guards + selector->active_count; i < selector->count; i++)
        selector->candidate[i].outcome = OUTCOME_HELD;
    for (size_t i = selector->kept_count; i < selector->guards && !result; i++) {
        struct candidate *candidate = &selector->candidate[i];
        if (candidate->outcome == OUTCOME_DUPLICATE)
            continue;
        candidate->outcome = OUTCOME_TAKEN;
        selected[chosen++] = selected_of(candidate);
    }
    long active = result ? 0 : draw_active(selector, taken);
    for (long i = 0; i < active; i++)
        selected[chosen++] = selected_of(&selector->candidate[selector->guards + taken[i]]);
    free(taken);
    *ret_count = chosen;
    return result ? result : active < 0 ? (int)active : 0;
}

/* --- ranking ---------------------------------------------------------------------------------------------- */

static int compare_streams(const void *left, const void *right)
{
    static const int place[] = {[STREAM_PINNED] = 0, [STREAM_ACTIVE] = 1, [STREAM_RANDOM] = 2};
    const struct ranked *a = left, *b = right;
    if (a->stream != b->stream)
        return place[a->stream] - place[b->stream];
    if (a->stream == STREAM_ACTIVE && a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->key < b->key ? -1 : a->key > b->key;
}

static int compare_ranks(const void *left, const void *right)
{
    const struct ranked *a = left, *b = right;
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

void queue_rank(struct ranked *entries, size_t count)
{
    if (!count)
        return;
    qsort(entries, count, sizeof *entries, compare_streams);
    size_t pins = 0, actives = 0;
    while (pins < count && entries[pins].stream == STREAM_PINNED)
        pins++;
    while (pins + actives < count && entries[pins + actives].stream == STREAM_ACTIVE)
        actives++;
    size_t randoms = count - pins - actives, rank = 0, a = 0, r = 0;
    while (rank < pins) {
        entries[rank].rank = (uint32_t)rank + 1;
        rank++;
    }
    while (rank < count) { /* the stream that is behind its even share goes next: (i + 1/2) / n against each other */
        int active_next = r == randoms || (a < actives && (2 * a + 1) * randoms <= (2 * r + 1) * actives);
        size_t index = active_next ? pins + a++ : pins + actives + r++;
        entries[index].rank = (uint32_t)++rank;
    }
    qsort(entries, count, sizeof *entries, compare_ranks);
}
