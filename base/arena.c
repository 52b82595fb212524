/* Arenas over one anonymous mapping; see arena.h. */
#include "base/arena.h"
#include "base/error.h"

#include <sys/mman.h>

int arena_init(struct arena *arena, size_t limit_bytes)
{
    void *memory = mmap(NULL, limit_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return error_set_errno("cannot reserve %zu bytes of memory", limit_bytes);
    *arena = (struct arena){.memory = memory, .limit_bytes = limit_bytes};
    return 0;
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    size_t rounded = (bytes + 63) & ~(size_t)63;
    if (rounded < bytes || rounded > arena->limit_bytes - arena->used_bytes) {
        error_set(ERROR_LIMIT, "memory limit of %zu bytes reached (asked for %zu with %zu in use)", arena->limit_bytes,
                  bytes, arena->used_bytes);
        return NULL;
    }
    void *memory = arena->memory + arena->used_bytes;
    arena->used_bytes += rounded;
    if (arena->used_bytes > arena->peak_bytes)
        arena->peak_bytes = arena->used_bytes;
    return memory;
}

void arena_reset(struct arena *arena)
{
    if (arena->used_bytes)
        madvise(arena->memory, arena->used_bytes, MADV_DONTNEED);
    arena->used_bytes = 0;
}

void arena_free(struct arena *arena)
{
    if (arena && arena->memory)
        munmap(arena->memory, arena->limit_bytes);
    if (arena)
        *arena = (struct arena){0};
}
