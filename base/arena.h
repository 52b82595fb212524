/*
 * Memory by lifetime: one arena each for boot, cycle and batch. Allocation is a pointer bump, release is one
 * reset, and the limit is stated when the arena is made. Not a general allocator: nothing is freed singly.
 */
#ifndef TRIAGE_BASE_ARENA_H
#define TRIAGE_BASE_ARENA_H

#include <stddef.h>

struct arena {
    char *memory;
    size_t limit_bytes; /* address space reserved; pages are taken from the system as they are touched */
    size_t used_bytes;
    size_t peak_bytes; /* highest used_bytes since arena_init, shown in status */
};

/* Reserves the address space. Returns 0 or ERROR_SYSTEM. */
int arena_init(struct arena *arena, size_t limit_bytes);

/* 64-byte aligned, zeroed memory, or NULL with an ERROR_LIMIT message when the limit would be passed. */
void *arena_alloc(struct arena *arena, size_t bytes);

/* Gives every page back to the system and starts again from empty. */
void arena_reset(struct arena *arena);

/* Releases the reservation; NULL and a zeroed arena are fine. */
void arena_free(struct arena *arena);

#endif
