/*
 * Views of stored images, made on the device: bytes go up, a kernel looks them up. Where an image has more bytes than its view has
 * bytes as floats, the host's threads look and floats go up.
 */
#ifndef TRIAGE_GPU_LOOK_H
#define TRIAGE_GPU_LOOK_H

#include "gpu/context.h"

extern "C" {
#include "model/stored_views.h"
}

/* Memory for one batch. */
struct look_memory {
    uint8_t *bytes;              /* [images][side][side][channels] floats' worth, on the device */
    struct augment_look *look;   /* [images], on the device */
    struct augment_look *staged; /* [images], pinned */
};

void look_take(struct look_memory *memory, const struct net *net, size_t images, struct arena *arena);
int look_open(struct look_memory *memory, size_t images); /* the pinned part */
void look_close(struct look_memory *memory);              /* zeroed is fine */

/*
 * Views `first` .. `first` + `count` - 1 into `target`, in two halves: what is copied, on stream `copy` by way of the pinned `staged`
 * (as many bytes as floats of the views), and what is computed, on stream `compute`, which must have waited for the copies.
 */
int look_copy(struct backend_context *context, const struct look_memory *memory, const struct net *net,
              const struct stored_views *views, size_t first, size_t count, void *staged, float *target,
              cudaStream_t copy);
int look_compute(const struct look_memory *memory, const struct net *net, const struct stored_views *views,
                 size_t count, float *target, cudaStream_t compute);

#endif
