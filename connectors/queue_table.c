/*
 * See queue_table.h. Linear probing at no more than half load; removal closes the gap, so there are no
 * tombstones, and an entry always lies in the run of used slots that begins at or before its home.
 */
#include "connectors/queue_table.h"
#include "base/error.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

int queue_table_new(size_t limit, struct queue_table *ret_table)
{
    if (limit == 0 || limit > PUBLISHER_QUEUE_LIMIT)
        return error_set(ERROR_LIMIT, "a queue holds 1 to %d entries, not %zu", PUBLISHER_QUEUE_LIMIT, limit);
    struct queue_table table = {.limit = limit, .slot_count = 16, .is_ranked = true};
    while (table.slot_count < 2 * limit)
        table.slot_count *= 2;
    table.entries = calloc(limit, sizeof *table.entries);
    table.slots = calloc(table.slot_count, sizeof *table.slots);
    if (!table.entries || !table.slots) {
        queue_table_free(&table);
        return error_set(ERROR_SYSTEM, "out of memory for a queue of %zu entries", limit);
    }
    *ret_table = table;
    return 0;
}

int queue_table_grow(struct queue_table *table)
{
    struct queue_table larger;
    int result =
        queue_table_new(table->limit < PUBLISHER_QUEUE_LIMIT / 2 ? 2 * table->limit : PUBLISHER_QUEUE_LIMIT, &larger);
    for (size_t i = 0; i < table->count && !result; i++)
        result = queue_table_put(&larger, &table->entries[i]);
    if (result)
        return result;
    queue_table_free(table);
    *table = larger;
    return 0;
}

void queue_table_free(struct queue_table *table)
{
    free(table->entries);
    free(table->slots);
    *table = (struct queue_table){0};
}

void queue_table_clear(struct queue_table *table)
{
    memset(table->slots, 0, table->slot_count * sizeof *table->slots);
    table->count = 0;
    table->checksum = 0;
    table->is_ranked = true;
}

static unsigned char *pack(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        *at++ = (unsigned char)(value >> (8 * i));
    return at;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

size_t queue_entry_pack(const struct queue_entry *entry, unsigned char bytes[QUEUE_PACKED_BYTES])
{
    unsigned char *at = bytes;
    uint64_t probability;
    size_t length = strlen(entry->id_str);
    memcpy(&probability, &entry->probability, sizeof probability);
    at = pack(at, entry->rank, 4);
    at = pack(at, entry->stream, 1);
    at = pack(at, probability, 8);
    at = pack(at, bits_of(entry->score), 4);
    at = pack(at, bits_of(entry->total), 4);
    at = pack(at, bits_of(entry->expected), 4);
    at = pack(at, entry->model, 4);
    at = pack(at, (uint64_t)entry->leased_until_ms, 8);
    memcpy(at, entry->id_str, length);
    return (size_t)(at - bytes) + length;
}

static uint64_t checksum_of(const struct queue_entry *entry)
{
    unsigned char bytes[QUEUE_PACKED_BYTES];
    uint64_t crc = hash_crc32(bytes, queue_entry_pack(entry, bytes));
    return crc * crc;
}

static size_t home_of(const struct queue_table *table, const char *id_str)
{
    return hash_64(id_str, strlen(id_str)) & (table->slot_count - 1);
}

static size_t slot_after(const struct queue_table *table, size_t slot)
{
    return (slot + 1) & (table->slot_count - 1);
}

/* The slot that holds this id, or the free one where it belongs. */
static size_t slot_of(const struct queue_table *table, const char *id_str)
{
    size_t slot = home_of(table, id_str);
    while (table->slots[slot] && strcmp(table->entries[table->slots[slot] - 1].id_str, id_str) != 0)
        slot = slot_after(table, slot);
    return slot;
}

const struct queue_entry *queue_table_find(const struct queue_table *table, const char *id_str)
{
    uint32_t held = table->slots[slot_of(table, id_str)];
    return held ? &table->entries[held - 1] : NULL;
}

int queue_table_put(struct queue_table *table, const struct queue_entry *entry)
{
    size_t slot = slot_of(table, entry->id_str);
    if (!table->slots[slot]) {
        if (table->count == table->limit)
            return error_set(ERROR_LIMIT, "the queue is full with %zu entries", table->limit);
        table->slots[slot] = (uint32_t)++table->count;
    } else
        table->checksum -= checksum_of(&table->entries[table->slots[slot] - 1]);
    table->checksum += checksum_of(entry);
    table->entries[table->slots[slot] - 1] = *entry;
    table->is_ranked = false;
    return 0;
}

/* Moves later entries of the same run back, so that every id is still reachable from its home. */
static void close_gap(struct queue_table *table, size_t gap)
{
    for (size_t slot = slot_after(table, gap); table->slots[slot]; slot = slot_after(table, slot)) {
        size_t home = home_of(table, table->entries[table->slots[slot] - 1].id_str);
        size_t mask = table->slot_count - 1;
        if (((slot - home) & mask) < ((slot - gap) & mask))
            continue; /* its home lies behind the gap */
        table->slots[gap] = table->slots[slot];
        gap = slot;
    }
    table->slots[gap] = 0;
}

bool queue_table_remove(struct queue_table *table, const char *id_str)
{
    size_t slot = slot_of(table, id_str);
    uint32_t held = table->slots[slot];
    if (!held)
        return false;
    table->checksum -= checksum_of(&table->entries[held - 1]);
    close_gap(table, slot);
    struct queue_entry *last = &table->entries[--table->count];
    if (held - 1 != table->count) {
        table->slots[slot_of(table, last->id_str)] = held;
        table->entries[held - 1] = *last;
        table->is_ranked = false;
    }
    return true;
}

static int compare_ranks(const void *left, const void *right)
{
    const struct queue_entry *a = left, *b = right;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return strcmp(a->id_str, b->id_str);
}

const struct queue_entry *queue_table_ranked(struct queue_table *table)
{
    if (table->is_ranked)
        return table->entries;
    qsort(table->entries, table->count, sizeof *table->entries, compare_ranks);
    memset(table->slots, 0, table->slot_count * sizeof *table->slots);
    for (size_t i = 0; i < table->count; i++)
        table->slots[slot_of(table, table->entries[i].id_str)] = (uint32_t)i + 1;
    table->is_ranked = true;
    return table->entries;
}

/* Entries whose home is `home`; they lie in the run of used slots from there on. */
static size_t take_bucket(const struct queue_table *table, size_t home, const struct queue_entry **entries,
                          size_t limit)
{
    size_t count = 0;
    for (size_t slot = home; table->slots[slot] && count <= limit; slot = slot_after(table, slot)) {
        const struct queue_entry *entry = &table->entries[table->slots[slot] - 1];
        if (home_of(table, entry->id_str) != home)
            continue;
        if (count < limit)
            entries[count] = entry;
        count++;
    }
    return count;
}

size_t queue_table_walk(const struct queue_table *table, uint64_t *cursor, const struct queue_entry **entries,
                        size_t limit)
{
    size_t count = 0, home = *cursor < table->slot_count ? (size_t)*cursor : table->slot_count;
    while (home < table->slot_count) {
        size_t more = take_bucket(table, home, entries + count, limit - count);
        if (count + more > limit)
            break;
        count += more;
        home++;
    }
    *cursor = home < table->slot_count ? home : 0;
    return count;
}
