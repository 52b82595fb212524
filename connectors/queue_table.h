/*
 * A queue as both ends of the feed hold it: entries found by id, listed by rank. Memory is taken once, for
 * the largest queue. Not for choosing or ranking galaxies.
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
    bool is_ranked;
};

/* ERROR_LIMIT for a limit of 0 or above PUBLISHER_QUEUE_LIMIT, ERROR_SYSTEM without memory. */
int queue_table_new(size_t limit, struct queue_table *ret_table);
void queue_table_free(struct queue_table *table);
void queue_table_clear(struct queue_table *table);

/* NULL if there is none. Valid until the table changes. */
const struct queue_entry *queue_table_find(const struct queue_table *table, const char *id_str);

/* Adds a copy, or replaces the entry with this id. ERROR_LIMIT when full. */
int queue_table_put(struct queue_table *table, const struct queue_entry *entry);

/* True if it was there. */
bool queue_table_remove(struct queue_table *table, const char *id_str);

/* All entries by rank, those of one rank by id. Valid until the table changes. */
const struct queue_entry *queue_table_ranked(struct queue_table *table);

#endif
