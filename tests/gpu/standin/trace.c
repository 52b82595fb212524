/*
 * What kernels read and write, where they were compiled with -fsanitize=thread: the compiler then calls a function at each access, and
 * these are ours instead of ThreadSanitizer's. Finds what compute-sanitizer finds on a device:
 *   - an access outside of the buffers, even into a neighbour (memcheck);
 *   - threads of a block that touch the same place between two barriers, and blocks that touch the same place at all, one of them
 *     writing (racecheck, and what it does not look at: global memory);
 *   - memory that is read and was never written (initcheck);
 * and it tells engine.c exactly which buffers a kernel reads and writes. Places are two bytes (bfloat16); single bytes are not looked at.
 */
#include "tests/gpu/standin/engine.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HULLS_LIMIT 64
#define PLACE_BYTES 2

int traced; /* whether any code of this program is compiled so */

/* Who touched a place last in the kernel number `kernel`. A toucher is block * threads + thread + 1; 0 = nobody. */
struct place {
    uint32_t kernel, writer, reader[2];
    uint16_t writer_phase, reader_phase[2];
};

struct hull {
    const char *buffer_start, *buffer_end;
    const char *first[2], *last[2]; /* of reads, of writes */
};

static struct {
    struct operation *operation;
    const char *shared;
    size_t shared_bytes;
    unsigned threads, block, thread;
    uint16_t phase;
    uint32_t number; /* of the kernel */
    int reported;    /* one finding of each kernel is enough */
    struct place *shared_place;
    uint32_t shared_round; /* kernel number of shared places: a block each */
    struct hull hull[HULLS_LIMIT];
    unsigned hulls;
    struct allocation *allocation; /* of the last access */
} now;
static uint32_t kernels, rounds;

void trace_begin(struct operation *operation, const void *shared, size_t shared_bytes, unsigned threads)
{
    memset(&now, 0, sizeof now);
    now.operation = operation;
    now.shared = shared;
    now.shared_bytes = shared_bytes;
    now.threads = threads;
    now.number = ++kernels;
    if (traced)
        now.shared_place = calloc(shared_bytes / PLACE_BYTES + 1, sizeof *now.shared_place);
}

void trace_block(unsigned block)
{
    now.block = block;
    now.shared_round = ++rounds;
}

void trace_thread(int phase, unsigned thread)
{
    now.phase = (uint16_t)phase;
    now.thread = thread;
}

void trace_end(void)
{
    for (unsigned i = 0; i < now.hulls; i++)
        for (int w = 0; w < 2; w++)
            if (now.hull[i].first[w])
                touched(now.operation, now.hull[i].first[w], (size_t)(now.hull[i].last[w] - now.hull[i].first[w]),
                        w ? TOUCH_WRITE : TOUCH_READ);
    free(now.shared_place);
    memset(&now, 0, sizeof now);
}

static void report(enum standin_rule rule, const char *what, const void *address)
{
    if (!now.reported++)
        found(rule, "%s: %s at %p, block %u, thread %u, phase %u", now.operation->name, what, address, now.block,
              now.thread, now.phase);
}

/* Whether the place was touched by another thread between the same barriers, or (`any_phase_of_blocks`) by another block. */
static void look_at_place(struct place *place, uint32_t kernel, int write, const void *address, enum standin_rule rule)
{
    uint32_t me = now.block * now.threads + now.thread + 1;
    if (place->kernel != kernel)
        *place = (struct place){.kernel = kernel};
#define APART(who, when) ((who) && (who) != me && (((who)-1) / now.threads != now.block || (when) == now.phase))
    if (APART(place->writer, place->writer_phase) ||
        (write && (APART(place->reader[0], place->reader_phase[0]) || APART(place->reader[1], place->reader_phase[1]))))
        report(rule, "two threads touch the same place without a barrier between them", address);
#undef APART
    if (write) {
        place->writer = me;
        place->writer_phase = now.phase;
    } else if (place->reader[0] != me || place->reader_phase[0] != now.phase) {
        place->reader[1] = place->reader[0];
        place->reader_phase[1] = place->reader_phase[0];
        place->reader[0] = me;
        place->reader_phase[0] = now.phase;
    }
}

static struct hull *hull_of(const struct allocation *a, const char *address, size_t bytes)
{
    for (unsigned i = 0; i < now.hulls; i++)
        if (address >= now.hull[i].buffer_start && address + bytes <= now.hull[i].buffer_end)
            return &now.hull[i];
    struct buffer whole = {a->start, a->bytes}, *buffer = a->buffers ? NULL : &whole;
    for (unsigned i = 0; i < a->buffers && !buffer; i++)
        if (address >= a->buffer[i].start && address + bytes <= a->buffer[i].start + a->buffer[i].bytes)
            buffer = &a->buffer[i];
    if (!buffer)
        return NULL;
    if (now.hulls == HULLS_LIMIT)
        too_many("buffers that one kernel touches", HULLS_LIMIT, "HULLS_LIMIT in trace.c");
    now.hull[now.hulls] = (struct hull){
        buffer->start, buffer->start + buffer->bytes, {NULL, NULL},
            {NULL, NULL}
    };
    return &now.hull[now.hulls++];
}

static void widen(struct hull *hull, const char *address, size_t bytes, int write)
{
    if (!hull->first[write] || address < hull->first[write])
        hull->first[write] = address;
    if (address + bytes > hull->last[write])
        hull->last[write] = address + bytes;
}

static struct place *places_of(struct allocation *a)
{
    if (!a->places) {
        a->places_bytes = (a->bytes / PLACE_BYTES + 1) * sizeof(struct place);
        a->places =
            mmap(NULL, a->places_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    return a->places == MAP_FAILED ? NULL : a->places;
}

static void global(const char *address, size_t bytes, int write)
{
    struct allocation *a = now.allocation;
    if (!a || address < a->start || address + bytes > a->start + a->bytes)
        now.allocation = a = allocation_of(address, bytes);
    struct hull *hull = a ? hull_of(a, address, bytes) : NULL;
    if (!hull) {
        report(RULE_KERNEL_BOUNDS, write ? "writes outside of every buffer" : "reads outside of every buffer", address);
        return;
    }
    widen(hull, address, bytes, write);
    size_t offset = (size_t)(address - a->start);
    if (write)
        mark_written(address, bytes);
    else if (!was_written(address, bytes))
        report(RULE_UNINITIALISED, "reads what nothing wrote", address);
    struct place *place = bytes > 1 ? places_of(a) : NULL;
    for (size_t i = 0; place && i < bytes; i += PLACE_BYTES)
        look_at_place(&place[(offset + i) / PLACE_BYTES], now.number, write, address, RULE_PHASE_ORDER);
}

/* Called from phase functions only: no lock, it is held by whoever runs the kernel. Under ThreadSanitizer the calls are its own. */
__attribute__((unused)) static void access(const void *where, size_t bytes, int write)
{
    const char *address = where;
    if (!now.operation)
        return;
    if (is_device_address(address))
        global(address, bytes, write);
    else if (address >= now.shared && address < now.shared + now.shared_bytes && bytes > 1)
        for (size_t i = 0; i < bytes; i += PLACE_BYTES)
            look_at_place(&now.shared_place[((size_t)(address - now.shared) + i) / PLACE_BYTES], now.shared_round,
                          write, address, RULE_PHASE_ORDER);
}

/* --- what the compiler calls -------------------------------------------------------------------------------------------------- */

#if !defined(__SANITIZE_THREAD__)
#define ACCESS(size)                                                                                                   \
    void __tsan_read##size(void *address);                                                                             \
    void __tsan_write##size(void *address);                                                                            \
    void __tsan_unaligned_read##size(void *address);                                                                   \
    void __tsan_unaligned_write##size(void *address);                                                                  \
    void __tsan_read##size(void *address)                                                                              \
    {                                                                                                                  \
        access(address, size, 0);                                                                                      \
    }                                                                                                                  \
    void __tsan_write##size(void *address)                                                                             \
    {                                                                                                                  \
        access(address, size, 1);                                                                                      \
    }                                                                                                                  \
    void __tsan_unaligned_read##size(void *address)                                                                    \
    {                                                                                                                  \
        access(address, size, 0);                                                                                      \
    }                                                                                                                  \
    void __tsan_unaligned_write##size(void *address)                                                                   \
    {                                                                                                                  \
        access(address, size, 1);                                                                                      \
    }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

int __tsan_atomic32_load(const volatile int *address, int order);
void __tsan_atomic32_store(volatile int *address, int value, int order);
int __tsan_atomic32_fetch_add(volatile int *address, int value, int order);

int __tsan_atomic32_load(const volatile int *address, int order) /* of host code: kernels have no atomics */
{
    (void)order;
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);
}

void __tsan_atomic32_store(volatile int *address, int value, int order)
{
    (void)order;
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);
}

int __tsan_atomic32_fetch_add(volatile int *address, int value, int order)
{
    (void)order;
    return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}

void __tsan_init(void);
void __tsan_func_entry(void *caller);
void __tsan_func_exit(void);
void __tsan_vptr_update(void *address, void *value);
void __tsan_read_range(void *address, unsigned long bytes);
void __tsan_write_range(void *address, unsigned long bytes);

void __tsan_init(void)
{
    traced = 1;
}

void __tsan_func_entry(void *caller)
{
    (void)caller;
}

void __tsan_func_exit(void)
{
}

void __tsan_vptr_update(void *address, void *value)
{
    (void)address, (void)value;
}

void __tsan_read_range(void *address, unsigned long bytes)
{
    access(address, bytes, 0);
}

void __tsan_write_range(void *address, unsigned long bytes)
{
    access(address, bytes, 1);
}
#endif
