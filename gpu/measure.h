/*
 * How large a job is made where its size may be chosen. Libraries choose their algorithms, and with them last bits, by shape: so the size
 * follows from the memory of the card, and from what happens to be free only where that does not allow it. Readable as C.
 */
#ifndef TRIAGE_GPU_MEASURE_H
#define TRIAGE_GPU_MEASURE_H

#include "model/backend.h"

#ifndef TRIAGE_GPU_BATCH
#define TRIAGE_GPU_BATCH 256 /* images at a time, at most; a power of two */
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct device_memory { /* bytes of a device */
    size_t total, free;
};

struct job_size {
    size_t wanted; /* by the card's memory */
    size_t chosen; /* the same, or what fits where that is not free; 0 = the least does not fit */
};

/* Bytes that `job` takes at this size. */
typedef size_t job_bytes(void *job, size_t size);

/*
 * Of largest, largest / 2, ... `least` the first that takes at most one part in `part` of the memory (or the least), and the first from
 * there that takes at most twice that part of what is free; a tenth of both is left alone.
 */
struct job_size measure_size(const struct device_memory *memory, size_t part, size_t largest, size_t least,
                             job_bytes *bytes, void *job);

/* Images at a time, `largest` at most (a power of two), that a plan of the net would take on such a device, and its memory; images 0 = not
 * even one, and the bytes are those of one. */
int gpu_measure(const struct net *net, enum precision precision, const struct device_memory *memory, size_t largest,
                size_t *ret_images, size_t *ret_bytes);

#ifdef __cplusplus
}
#endif

#endif
