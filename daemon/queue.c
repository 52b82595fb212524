/* See queue.h. */
#include "daemon/queue.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

int queue_new(size_t capacity, struct queue *ret_queue)
{
    struct queue_entry *entries = calloc(capacity, sizeof *entries);
    if (!entries)
        return error_set(ERROR_SYSTEM, "out of memory for a queue of %zu", capacity);
    *ret_queue = (struct queue){.entries = entries, .capacity = capacity};
    return 0;
}

void queue_free(struct queue *queue)
{
    free(queue->entries);
    *queue = (struct queue){0};
}

struct queue_entry *queue_find(const struct queue *queue, uint64_t key)
{
    for (size_t i = 0; i < queue->count; i++)
        if (queue->entries[i].key == key)
            return &queue->entries[i];
    return NULL;
}

int queue_add(struct queue *queue, const struct queue_entry *entry)
{
    if (queue->count == queue->capacity)
        return error_set(ERROR_LIMIT, "the queue is full with %zu galaxies", queue->count);
    queue->entries[queue->count++] = *entry;
    return 0;
}

int queue_remove(struct queue *queue, struct pool *pool, uint64_t key)
{
    struct queue_entry *entry = queue_find(queue, key);
    if (!entry)
        return 0;
    size_t index = (size_t)(entry - queue->entries);
    memmove(entry, entry + 1, (queue->count - index - 1) * sizeof *entry);
    queue->count--;
    pool_state(pool, key - 1)->flags &= (uint8_t)~POOL_QUEUED;
    for (size_t i = index; i < queue->count; i++)
        queue->entries[i].rank = (uint32_t)i + 1;
    return 1;
}

size_t queue_take_expired(struct queue *queue, struct pool *pool, int64_t unix_ms, struct queue_entry *taken,
                          size_t limit)
{
    size_t kept = 0, count = 0;
    for (size_t i = 0; i < queue->count; i++) {
        struct queue_entry *entry = &queue->entries[i];
        if (entry->leased_until_ms <= unix_ms && count < limit) {
            pool_state(pool, entry->key - 1)->flags &= (uint8_t)~POOL_QUEUED;
            taken[count++] = *entry;
            continue;
        }
        queue->entries[kept] = *entry;
        queue->entries[kept].rank = (uint32_t)kept + 1;
        kept++;
    }
    queue->count = kept;
    return count;
}

static size_t pins_waiting(const struct pool *pool, uint64_t galaxies)
{
    const int out = POOL_QUEUED | POOL_RETIRED | POOL_EXCLUDED | POOL_BAD;
    size_t count = 0;
    for (uint64_t row = 0; row < galaxies; row++)
        count += (pool_state(pool, row)->flags & (POOL_PINNED | out)) == POOL_PINNED &&
                 *pool_embedding_version(pool, row) == pool->trunk;
    return count;
}

/* The lowest of this stream goes. False if there is none. */
static bool remove_lowest(struct queue *queue, struct pool *pool, enum stream stream)
{
    for (size_t i = queue->count; i-- > 0;)
        if (queue->entries[i].stream == stream)
            return queue_remove(queue, pool, queue->entries[i].key);
    return false;
}

void queue_follow_pins(struct queue *queue, struct pool *pool, uint64_t galaxies, size_t limit)
{
    for (size_t i = queue->count; i-- > 0;) {
        struct queue_entry *entry = &queue->entries[i];
        bool pinned = pool_state(pool, entry->key - 1)->flags & POOL_PINNED;
        if (pinned && entry->stream != STREAM_PINNED) {
            entry->stream = STREAM_PINNED;
            entry->probability = 1;
        } else if (!pinned && entry->stream == STREAM_PINNED)
            queue_remove(queue, pool, entry->key);
    }
    size_t waiting = pins_waiting(pool, galaxies);
    while (waiting && queue->count + waiting > limit)
        if (!remove_lowest(queue, pool, STREAM_ACTIVE) && !remove_lowest(queue, pool, STREAM_RANDOM))
            return;
}

bool queue_lease_is_over(const struct queue *queue, int64_t unix_ms)
{
    for (size_t i = 0; i < queue->count; i++)
        if (queue->entries[i].leased_until_ms <= unix_ms)
            return true;
    return false;
}

static int compare_ranks(const void *left, const void *right)
{
    const struct queue_entry *a = left, *b = right;
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

static int compare_keys(const void *left, const void *right)
{
    const struct ranked *a = left, *b = right;
    return a->key < b->key ? -1 : a->key > b->key;
}

void queue_renumber(struct queue *queue, const struct pool *pool)
{
    struct ranked *ranked = calloc(queue->count + 1, sizeof *ranked);
    if (!ranked)
        return; /* the old ranks stay; the next cycle tries again */
    for (size_t i = 0; i < queue->count; i++) {
        struct queue_entry *entry = &queue->entries[i];
        const struct pool_score *score = pool_score(pool, entry->key - 1);
        entry->score = score_round(score->score);
        entry->total = score->total;
        entry->expected = score->expected;
        entry->model = score->model;
        ranked[i] = (struct ranked){.key = entry->key, .stream = (enum stream)entry->stream, .score = entry->score};
    }
    queue_rank(ranked, queue->count);
    qsort(ranked, queue->count, sizeof *ranked, compare_keys);
    for (size_t i = 0; i < queue->count; i++) {
        struct ranked wanted = {.key = queue->entries[i].key};
        const struct ranked *found = bsearch(&wanted, ranked, queue->count, sizeof *ranked, compare_keys);
        queue->entries[i].rank = found->rank;
    }
    qsort(queue->entries, queue->count, sizeof *queue->entries, compare_ranks);
    free(ranked);
}

void queue_count(const struct queue *queue, const struct pool *pool, struct select_request *request)
{
    request->kept_holdout = request->kept_random = request->kept_active = 0;
    for (size_t i = 0; i < queue->count; i++) {
        int split = pool_state(pool, queue->entries[i].key - 1)->split;
        if (queue->entries[i].stream != STREAM_RANDOM)
            request->kept_active++;
        else if (split == SPLIT_VALIDATION || split == SPLIT_GATE)
            request->kept_holdout++;
        else
            request->kept_random++;
    }
}
