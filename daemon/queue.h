/*
 * The published queue in memory: the entries on offer, their leases and ranks. The database holds the same list (so a
 * restart goes on where it stopped); the feed shows it to the world.
 */
#ifndef TRIAGE_DAEMON_QUEUE_H
#define TRIAGE_DAEMON_QUEUE_H

#include "acquisition/select.h"
#include "connectors/publisher.h"
#include "pool/pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue {
    struct queue_entry *entries; /* in rank order */
    size_t count, capacity;
};

int queue_new(size_t capacity, struct queue *ret_queue);
void queue_free(struct queue *queue);

/* The entry of this galaxy, or NULL. */
struct queue_entry *queue_find(const struct queue *queue, uint64_t key);

/* Appends a copy; ERROR_LIMIT when full. Ranks are set by queue_renumber(). */
int queue_add(struct queue *queue, const struct queue_entry *entry);

/* Takes the entry out and clears the pool's POOL_QUEUED flag. Returns 1 if it was there. */
int queue_remove(struct queue *queue, struct pool *pool, uint64_t key);

/* Takes out those whose lease has ended at this time, at most `limit` of them, copied to `taken`, in rank order. Returns how many. */
size_t queue_take_expired(struct queue *queue, struct pool *pool, int64_t unix_ms, struct queue_entry *taken,
                          size_t limit);

/*
 * Makes the queue follow the pins before free places are counted: an entry pinned meanwhile changes to that stream where it is,
 * one whose pin was taken away goes, and of the rest so many of the lowest go, active ones first, that every pinned galaxy that
 * waits finds a place among `limit`.
 */
void queue_follow_pins(struct queue *queue, struct pool *pool, uint64_t galaxies, size_t limit);

/* Whether some entry's lease has ended at this time. */
bool queue_lease_is_over(const struct queue *queue, int64_t unix_ms);

/* Fresh scores from the pool, then the ranking rule of acquisition/select.h. */
void queue_renumber(struct queue *queue, const struct pool *pool);

/* Counts by source for the next selection; hold-out galaxies are counted by split, pins as active. */
void queue_count(const struct queue *queue, const struct pool *pool, struct select_request *request);

#endif
