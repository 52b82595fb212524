/* See look.h. */
#include "gpu/look.h"
#include "gpu/kernels_look.h"

static size_t view_values(const struct net *net)
{
    return (size_t)net->side * (size_t)net->side * (size_t)net->channels;
}

static size_t image_bytes(const struct net *net, const struct stored_views *views)
{
    return (size_t)views->pixel_side * (size_t)views->pixel_side * (size_t)net->channels;
}

static int on_device(const struct net *net, const struct stored_views *views)
{
    return image_bytes(net, views) <= view_values(net) * sizeof(float);
}

void look_take(struct look_memory *memory, const struct net *net, size_t images, struct arena *arena)
{
    memory->bytes = (uint8_t *)arena_take(arena, images * view_values(net) * sizeof(float));
    memory->look = (struct augment_look *)arena_take(arena, images * sizeof *memory->look);
}

int look_open(struct look_memory *memory, size_t images)
{
    CHECK_CUDA(cudaMallocHost((void **)&memory->staged, images * sizeof *memory->staged));
    return 0;
}

void look_close(struct look_memory *memory)
{
    cudaFreeHost(memory->staged);
    memory->staged = NULL;
}

struct host_look {
    const struct stored_views *views;
    const struct net *net;
    size_t first;
    float *staged;
};

static void look_on_host(void *context, long item, int)
{
    const struct host_look *job = (const struct host_look *)context;
    stored_view(job->views, job->first + (size_t)item, job->net->side, job->net->channels,
                job->staged + (size_t)item * view_values(job->net));
}

int look_copy(struct backend_context *context, const struct look_memory *memory, const struct net *net,
              const struct stored_views *views, size_t first, size_t count, void *staged, float *target,
              cudaStream_t copy)
{
    size_t bytes = image_bytes(net, views);
    if (!on_device(net, views)) {
        struct host_look job = {views, net, first, (float *)staged};
        workers_run(context->workers, look_on_host, &job, (long)count);
        CHECK_CUDA(
            cudaMemcpyAsync(target, staged, count * view_values(net) * sizeof(float), cudaMemcpyHostToDevice, copy));
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy((uint8_t *)staged + i * bytes, views->pixels + views->row[first + i] * views->stride_bytes, bytes);
        stored_view_look(views, first + i, net->side, memory->staged + i);
    }
    CHECK_CUDA(cudaMemcpyAsync(memory->bytes, staged, count * bytes, cudaMemcpyHostToDevice, copy));
    CHECK_CUDA(
        cudaMemcpyAsync(memory->look, memory->staged, count * sizeof *memory->look, cudaMemcpyHostToDevice, copy));
    return 0;
}

int look_compute(const struct look_memory *memory, const struct net *net, const struct stored_views *views,
                 size_t count, float *target, cudaStream_t compute)
{
    size_t values = view_values(net);
    if (!on_device(net, views))
        return 0;
    struct look_views::arguments arguments = {memory->bytes,     memory->look, target,       count,
                                              views->pixel_side, net->side,    net->channels};
    size_t channels = (size_t)net->channels;
    struct look_contrast::arguments contrast = {target, memory->look, values / channels, channels};
    RETURN_IF(launch<look_views>(compute, blocks_of(count * values), arguments));
    if (views->augmentation != AUGMENT_W20)
        return 0;
    return launch<look_contrast>(compute, count * channels, contrast);
}
