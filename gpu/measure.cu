/* See measure.h. */
#include "gpu/context.h"

static size_t first_that_fits(size_t largest, size_t least, double limit, job_bytes *bytes, void *job)
{
    for (size_t size = largest; size >= least; size /= 2)
        if ((double)bytes(job, size) <= limit)
            return size;
    return 0;
}

struct job_size measure_size(const struct device_memory *memory, size_t part, size_t largest, size_t least,
                             job_bytes *bytes, void *job)
{
    double share = MEMORY_SHARE / (double)part;
    size_t wanted = first_that_fits(largest, least, share * (double)memory->total, bytes, job);
    wanted = wanted ? wanted : least;
    return (struct job_size){wanted, first_that_fits(wanted, least, 2 * share * (double)memory->free, bytes, job)};
}
