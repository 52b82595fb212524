/* Bounded selection; see select.h. */
#include "acquisition/select.h"
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
};

/* The `limit` best picks seen so far; the worst is at the top. */
struct heap {
    struct pick *pick;
    size_t count, limit;
    uint64_t offered;
};

struct selector {
    struct select_request request;
    int slots;
    struct heap active, pinned, random[STRATA];
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

static int share_is_valid(float share)
{
    return share >= 0 && share <= 1;
}

int selector_new(const struct select_request *request, struct selector **ret_selector)
{
    if (request->queue_size < 1 || request->queue_size > SELECT_SLOTS_MAX)
        return error_set(ERROR_INPUT, "a queue holds 1 to %d galaxies, not %d", SELECT_SLOTS_MAX, request->queue_size);
    if (!share_is_valid(request->holdout_share) || !share_is_valid(request->random_share))
        return error_set(ERROR_INPUT, "shares of the queue lie between 0 and 1");
    struct selector *selector = calloc(1, sizeof *selector);
    if (!selector)
        return error_set(ERROR_SYSTEM, "out of memory for a selection");
    selector->request = *request;
    int kept = request->kept_holdout + request->kept_random + request->kept_active;
    selector->slots = kept < request->queue_size ? request->queue_size - kept : 0;
    struct heap *heaps[] = {&selector->active, &selector->pinned, &selector->random[0], &selector->random[1],
                            &selector->random[2]};
    for (size_t i = 0; i < sizeof heaps / sizeof *heaps; i++) {
        /* Active and random draws may overlap, so active keeps twice the slots. */
        heaps[i]->limit = (size_t)selector->slots * (i == 0 ? 2 : 1);
        heaps[i]->pick = calloc(heaps[i]->limit + 1, sizeof(struct pick));
        if (!heaps[i]->pick) {
            selector_free(selector);
            return error_set(ERROR_SYSTEM, "out of memory for a selection of %d", request->queue_size);
        }
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
    for (int i = 0; i < STRATA; i++)
        free(selector->random[i].pick);
    free(selector);
}

static enum stratum stratum_of(enum split split)
{
    return split == SPLIT_VALIDATION ? STRATUM_VALIDATION : split == SPLIT_GATE ? STRATUM_GATE : STRATUM_REST;
}

void selector_offer(struct selector *selector, uint64_t key, enum split split, int pinned, float score)
{
    const struct select_request *request = &selector->request;
    float rounded = request->cold ? 0 : score_round(score);
    if (pinned) {
        heap_offer(&selector->pinned, (struct pick){key, key, rounded});
        return;
    }
    struct philox random =
        philox(request->seed, (uint32_t)key, (uint32_t)(key >> 32), (uint32_t)request->cycle, PHILOX_SELECT);
    uint64_t draw = (uint64_t)random.word[0] << 32 | random.word[1];
    heap_offer(&selector->random[stratum_of(split)], (struct pick){draw, key, rounded});
    if (split == SPLIT_TRAIN && !request->cold) /* scores are multiples of 2^-20, so this order is exact */
        heap_offer(&selector->active, (struct pick){UINT64_MAX - (uint64_t)((double)rounded * 0x1p20), key, rounded});
}

static int minimum(int a, int b)
{
    return a < b ? a : b;
}

/* How many galaxies each source gives; see the shares in select.h. What a stratum cannot fill goes to the others. */
struct allotment {
    int pinned, random[STRATA], active;
};

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
    float random_share = request->cold ? 1 : request->random_share;
    int random_goal =
        (int)lrintf((float)(slots + request->kept_random + request->kept_active) * random_share) - request->kept_random;
    int random = minimum(minimum(slots, random_goal > 0 ? random_goal : 0), rest_count);
    int active = minimum(slots - random, (int)selector->active.count);
    allotment.random[STRATUM_REST] = minimum(slots - active, request->cold || active == 0 ? rest_count : random);
    allotment.active = active;
    return allotment;
}

static size_t take_random(const struct heap *heap, int count, struct selected *selected)
{
    for (int i = 0; i < count; i++)
        selected[i] = (struct selected){.key = heap->pick[i].key,
                                        .stream = STREAM_RANDOM,
                                        .probability = (double)count / (double)heap->offered,
                                        .score = heap->pick[i].score};
    return (size_t)count;
}

static int compare_keys(const void *left, const void *right)
{
    const struct pick *a = left, *b = right;
    return a->key < b->key ? -1 : a->key > b->key;
}

size_t selector_finish(struct selector *selector, struct selected *selected)
{
    struct heap *heaps[] = {&selector->active, &selector->pinned, &selector->random[0], &selector->random[1],
                            &selector->random[2]};
    for (size_t i = 0; i < sizeof heaps / sizeof *heaps; i++)
        heap_sort(heaps[i]);
    struct allotment allotment = allot(selector);
    size_t count = 0;
    for (int i = 0; i < allotment.pinned; i++)
        selected[count++] =
            (struct selected){selector->pinned.pick[i].key, STREAM_PINNED, 1.0, selector->pinned.pick[i].score};
    for (int i = 0; i < STRATA; i++)
        count += take_random(&selector->random[i], allotment.random[i], selected + count);
    size_t drawn = count, rest = (size_t)allotment.random[STRATUM_REST];
    struct pick *drawn_rest = selector->random[STRATUM_REST].pick; /* the only stratum active picks can be in */
    qsort(drawn_rest, rest, sizeof *drawn_rest, compare_keys);
    for (size_t i = 0; i < selector->active.count && count - drawn < (size_t)allotment.active; i++) {
        const struct pick *pick = &selector->active.pick[i];
        if (!bsearch(pick, drawn_rest, rest, sizeof *pick, compare_keys))
            selected[count++] = (struct selected){pick->key, STREAM_ACTIVE, 1.0, pick->score};
    }
    return count;
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
