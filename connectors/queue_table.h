/*
 * The queue as the feed has published it: entries found by id, listed by rank or in an order that changes do not
 * disturb, and the checksum by which subscribers know that theirs is the same. Memory is taken for the
 * limit; it is touched as the table fills. Not for choosing or ranking galaxies.
 */
#ifndef TRIAGE_CONNECTORS_QUEUE_TABLE_H
#define TRIAGE_CONNECTORS_QUEUE_TABLE_H

#include "connectors/publisher.h"

#include <stdbool.h>

struct queue_table {
    struct queue_entry *entries; /* in no order; queue_table_ranked() sorts them */
    size_t count, limit;
    uint32_t *slots; /* open addressing by hash of id: index + 1 of the entry, 0 = free */
    size_t slot_count;
    uint64_t checksum; /* of all entries, whatever their order: docs/feed.md */
    bool is_ranked;
};

#define QUEUE_PACKED_BYTES (37 + QUEUE_ID_BYTES)

/* What the checksum is of: every published number of the entry in little-endian bytes, then the id. Returns its length. */
size_t queue_entry_pack(const struct queue_entry *entry, unsigned char bytes[QUEUE_PACKED_BYTES]);

/* ERROR_LIMIT for a limit of 0 or above PUBLISHER_QUEUE_LIMIT, ERROR_SYSTEM without memory. */
int queue_table_new(size_t limit, struct queue_table *ret_table);
void queue_table_free(struct queue_table *table);

/* Makes room for twice as many entries, at most PUBLISHER_QUEUE_LIMIT; cursors of queue_table_walk() end. */
int queue_table_grow(struct queue_table *table);
void queue_table_clear(struct queue_table *table);

/* NULL if there is none. Valid until the table changes. */
const struct queue_entry *queue_table_find(const struct queue_table *table, const char *id_str);

/* Adds a copy, or replaces the entry with this id. ERROR_LIMIT when full. */
int queue_table_put(struct queue_table *table, const struct queue_entry *entry);

/* True if it was there. */
bool queue_table_remove(struct queue_table *table, const char *id_str);

/* All entries by rank, those of one rank by id. Valid until the table changes. */
const struct queue_entry *queue_table_ranked(struct queue_table *table);

/*
 * Entries piece by piece, for a snapshot during which the table changes. Start with *cursor = 0; each call lists
 * at most `limit` (64 or more) and moves the cursor on, to 0 at the end. An entry that is there all the time is
 * listed exactly once, in the state it has when its turn comes; one that comes, goes or is put anew meanwhile,
 * once or not at all. A cursor also fits another table of the same limit.
 */
size_t queue_table_walk(const struct queue_table *table, uint64_t *cursor, const struct queue_entry **entries,
                        size_t limit);

#endif
