/*
 * Device and pinned memory. Device memory is a part of the address space that is PROT_NONE but for the time a kernel, copy or
 * library call executes; addresses are never used twice, so a pointer to freed memory stays invalid. Each allocation starts exactly 256
 * bytes aligned (what the documents promise, no more), is filled with 0xff (NaN), and is followed by a poisoned tail and a guard page.
 * Pinned memory that a pending copy uses is taken from the host page by page.
 */
#include "tests/gpu/standin/engine.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(start, bytes)   __asan_poison_memory_region(start, bytes)
#define UNPOISON(start, bytes) __asan_unpoison_memory_region(start, bytes)
#else
#define POISON(start, bytes)   ((void)(start), (void)(bytes))
#define UNPOISON(start, bytes) ((void)(start), (void)(bytes))
#endif

#define PAGE        4096ul
#define SPACE_BYTES (256ul << 30) /* of addresses, not of memory */
#define NAN_BYTES   (2ul << 20)   /* of the file of 0xff that fresh device memory shows until it is written */
#define HOLDS_LIMIT 256

static char *space, *space_end, *space_free;
static struct allocation *list;
static int nan_file, reach;
static const char *reaching = "";
static size_t peak;
static struct {
    char *start;
    size_t bytes;
    int readable;
} hold[HOLDS_LIMIT];
static int holds;
static struct sigaction before;

static char *page_down(const void *address)
{
    return (char *)((uintptr_t)address & ~(PAGE - 1));
}

static char *page_up(const void *address)
{
    return page_down((const char *)address + PAGE - 1);
}

/* --- faults ------------------------------------------------------------------------------------------------ */

static void fault(int number, siginfo_t *info, void *context)
{
    const char *address = info->si_addr;
    if (address >= space && address < space_end) {
        if (reach)
            found(RULE_KERNEL_BOUNDS, "%s touches %p, which is in no allocation", reaching, (const void *)address);
        else
            found(RULE_HOST_ACCESS, "host code touches device memory at %p", (const void *)address);
        _exit(86);
    }
    for (int i = 0; i < holds; i++)
        if (address >= hold[i].start && address < hold[i].start + hold[i].bytes) {
            found(hold[i].readable ? RULE_PINNED_WRITTEN : RULE_PINNED_READ, "host code touches pinned memory at %p",
                  (const void *)address);
            _exit(86);
        }
    if (before.sa_flags & SA_SIGINFO && before.sa_sigaction)
        before.sa_sigaction(number, info, context);
    else
        abort();
}

static void set_up(void)
{
    struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (space)
        return;
    space = mmap(NULL, SPACE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) {
        perror("stand-in: no address space for device memory");
        abort();
    }
    char *nan;
    nan_file = memfd_create("stand-in device memory", MFD_CLOEXEC);
    if (nan_file < 0 || ftruncate(nan_file, (off_t)NAN_BYTES) ||
        (nan = mmap(NULL, NAN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, nan_file, 0)) == MAP_FAILED) {
        perror("stand-in: no memory");
        abort();
    }
    memset(nan, 0xff, NAN_BYTES);
    munmap(nan, NAN_BYTES);
    space_end = space + SPACE_BYTES;
    space_free = space + PAGE;
    sigaction(SIGSEGV, &action, &before);
}

/* Whole pages of 0xff, which cost no memory until they are written. */
static void show_nan(char *start, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += NAN_BYTES)
        if (mmap(start + at, bytes - at < NAN_BYTES ? bytes - at : NAN_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, nan_file, 0) == MAP_FAILED) {
            perror("stand-in: mmap");
            abort();
        }
}

static void protect(const struct allocation *allocation, int protection)
{
    char *start = page_down(allocation->start), *end = page_up(allocation->start + allocation->bytes);
    if (mprotect(start, (size_t)(end - start), protection)) {
        perror("stand-in: mprotect");
        abort();
    }
}

void device_reach(const char *who)
{
    reaching = who;
    if (reach++ == 0)
        for (struct allocation *a = list; a; a = a->next)
            if (a->kind == MEMORY_DEVICE)
                protect(a, PROT_READ | PROT_WRITE);
}

void device_out_of_reach(void)
{
    if (--reach == 0)
        for (struct allocation *a = list; a; a = a->next)
            if (a->kind == MEMORY_DEVICE)
                protect(a, PROT_NONE);
}

/* --- look-up ------------------------------------------------------------------------------------------------ */

static struct allocation *find(const void *start, size_t bytes, enum memory_kind kind)
{
    const char *at = start;
    for (struct allocation *a = list; a; a = a->next)
        if (a->kind == kind && at >= a->start && at <= a->start + a->bytes &&
            bytes <= (size_t)(a->start + a->bytes - at) && (bytes > 0 || at < a->start + a->bytes))
            return a;
    return NULL;
}

struct allocation *allocation_of(const void *start, size_t bytes)
{
    return find(start, bytes, MEMORY_DEVICE);
}

int inside_buffer(const struct allocation *allocation, const void *start, size_t bytes)
{
    const char *at = start;
    for (unsigned i = 0; i < allocation->buffers; i++)
        if (at >= allocation->buffer[i].start && at <= allocation->buffer[i].start + allocation->buffer[i].bytes &&
            bytes <= (size_t)(allocation->buffer[i].start + allocation->buffer[i].bytes - at))
            return 1;
    return allocation->buffers == 0;
}

int is_device(const void *start, size_t bytes)
{
    struct allocation *a = allocation_of(start, bytes);
    return a && inside_buffer(a, start, bytes);
}

int is_device_address(const void *address)
{
    return (const char *)address >= space && (const char *)address < space_end;
}

struct allocation *pinned_of(const void *start, size_t bytes)
{
    return find(start, bytes, MEMORY_PINNED);
}

void mark_written(const void *start, size_t bytes)
{
    if (!traced) /* nobody asks */
        return;
    struct allocation *a = allocation_of(start, bytes);
    if (!a || bytes == 0)
        return;
    size_t first = (size_t)((const char *)start - a->start), last = (first + bytes - 1) / 4;
    for (size_t i = first / 4; i <= last; i++)
        a->written[i / 8] |= (uint8_t)(1u << i % 8);
}

int was_written(const void *start, size_t bytes)
{
    struct allocation *a = allocation_of(start, bytes);
    if (!a || bytes == 0)
        return 1;
    size_t first = (size_t)((const char *)start - a->start), last = (first + bytes - 1) / 4;
    for (size_t i = first / 4; i <= last; i++)
        if (!(a->written[i / 8] >> i % 8 & 1))
            return 0;
    return 1;
}

/* --- allocation ----------------------------------------------------------------------------------------------- */

static size_t bytes_of(enum memory_kind kind, int device)
{
    size_t sum = 0;
    for (struct allocation *a = list; a; a = a->next)
        if (a->kind == kind && (device < 0 || a->device == device))
            sum += a->bytes;
    return sum;
}

static struct allocation *remember(enum memory_kind kind, char *start, size_t bytes)
{
    struct allocation *a = calloc(1, sizeof *a);
    a->kind = kind;
    a->device = current_device();
    a->start = start;
    a->bytes = bytes;
    a->next = list;
    list = a;
    return a;
}

static void forget(struct allocation *allocation)
{
    for (struct allocation **at = &list; *at; at = &(*at)->next)
        if (*at == allocation) {
            *at = allocation->next;
            break;
        }
    if (allocation->places)
        munmap(allocation->places, allocation->places_bytes);
    free(allocation->written);
    free(allocation->buffer);
    free(allocation);
}

static cudaError_t may_allocate(const char *call)
{
    cudaError_t error = usable();
    if (!error)
        error = no_capture(NULL, RULE_CAPTURE_ALLOCATION, call);
    if (!error && settings.closed)
        error = BROKEN(cudaErrorMemoryAllocation, ALLOCATION_CLOSED, "%s() after everything was planned", call);
    return error;
}

static cudaError_t allocate_device(void **pointer, size_t bytes)
{
    cudaError_t error = may_allocate("cudaMalloc");
    if (error)
        return error;
    if (!pointer)
        return cudaErrorInvalidValue;
    if (bytes == 0) {
        *pointer = NULL;
        return cudaSuccess;
    }
    if (bytes_of(MEMORY_DEVICE, current_device()) + bytes > settings.memory_bytes - settings.held[current_device()])
        return BROKEN(cudaErrorMemoryAllocation, OUT_OF_MEMORY, "cudaMalloc() of %zu bytes", bytes);
    set_up();
    char *start = space_free + 256;
    size_t mapped = (size_t)(page_up(start + bytes) - space_free);
    struct allocation *a = remember(MEMORY_DEVICE, start, bytes);
    a->mapped = space_free;
    a->mapped_bytes = mapped;
    a->written = calloc(bytes / 32 + 1, 1);
    space_free += mapped + PAGE;
    show_nan(a->mapped, mapped);
    POISON(a->mapped, 256);
    POISON(start + bytes, (size_t)(a->mapped + mapped - (start + bytes)));
    if (!reach)
        protect(a, PROT_NONE);
    if (bytes_of(MEMORY_DEVICE, -1) > peak)
        peak = bytes_of(MEMORY_DEVICE, -1);
    *pointer = start;
    return cudaSuccess;
}

static void complete_to_free(const struct allocation *a)
{
    if (a->device == settings.only_device) /* standin_hold_others() */
        settings.only_device = -1;
    complete_everything();
}

static cudaError_t free_device(void *pointer)
{
    cudaError_t error = usable();
    if (!pointer)
        return error;
    if (!error)
        error = no_capture(NULL, RULE_CAPTURE_ALLOCATION, "cudaFree");
    if (error == cudaErrorStreamCaptureUnsupported)
        return error;
    struct allocation *a = allocation_of(pointer, 0);
    if (!a || a->start != pointer)
        return BROKEN(cudaErrorInvalidValue, FREE_UNKNOWN, "cudaFree(%p)", pointer);
    if (!settings.lost[a->device] && in_use(a->start, a->bytes))
        found(RULE_FREE_IN_USE, "cudaFree(%p) while work on it is not known to be done", pointer);
    complete_to_free(a);
    UNPOISON(a->mapped, a->mapped_bytes);
    mmap(a->mapped, a->mapped_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    forget(a);
    return error;
}

static cudaError_t allocate_pinned(void **pointer, size_t bytes)
{
    cudaError_t error = may_allocate("cudaMallocHost");
    if (error)
        return error;
    if (!pointer)
        return cudaErrorInvalidValue;
    set_up();
    size_t mapped = (bytes + PAGE - 1) / PAGE * PAGE + PAGE;
    char *start = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    memset(start, 0xff, mapped - PAGE);
    mprotect(start + mapped - PAGE, PAGE, PROT_NONE);
    POISON(start + bytes, mapped - PAGE - bytes);
    struct allocation *a = remember(MEMORY_PINNED, start, bytes);
    a->mapped = start;
    a->mapped_bytes = mapped;
    *pointer = start;
    return cudaSuccess;
}

static cudaError_t free_pinned(void *pointer, int registered)
{
    cudaError_t error = usable();
    if (!pointer)
        return error;
    struct allocation *a = pinned_of(pointer, 0);
    if (!a || a->start != pointer || a->registered != registered)
        return registered ? BROKEN(cudaErrorHostMemoryNotRegistered, FREE_UNKNOWN, "cudaHostUnregister(%p)", pointer)
                          : BROKEN(cudaErrorInvalidValue, FREE_UNKNOWN, "cudaFreeHost(%p)", pointer);
    if (!settings.lost[a->device] && in_use(a->start, a->bytes))
        found(RULE_FREE_IN_USE, "cudaFreeHost(%p) while a copy of it is not known to be done", pointer);
    complete_to_free(a);
    if (!registered) {
        UNPOISON(a->mapped, a->mapped_bytes - PAGE);
        munmap(a->mapped, a->mapped_bytes);
    }
    forget(a);
    return error;
}

/* --- pinned memory in use ------------------------------------------------------------------------------------- */

/* Whole pages only: what shares a page with other memory is guarded by a checksum (engine.c). */
void pinned_hold(const void *start, size_t bytes, int readable)
{
    char *first = page_up(start), *last = page_down((const char *)start + bytes);
    struct allocation *a = pinned_of(start, bytes);
    if (!a || a->registered)
        return;
    if (start == (const void *)a->start && bytes == a->bytes)
        last = page_up(a->start + a->bytes);
    if (first >= last)
        return;
    if (holds == HOLDS_LIMIT)
        too_many("ranges of pinned memory in use", HOLDS_LIMIT, "HOLDS_LIMIT in memory.c");
    for (int i = 0; i < holds; i++)
        if (hold[i].start < last && first < hold[i].start + hold[i].bytes)
            readable &= hold[i].readable;
    mprotect(first, (size_t)(last - first), readable ? PROT_READ : PROT_NONE);
    hold[holds].start = first;
    hold[holds].bytes = (size_t)(last - first);
    hold[holds++].readable = readable;
}

void pinned_release_all(void)
{
    while (holds > 0) {
        holds--;
        mprotect(hold[holds].start, hold[holds].bytes, PROT_READ | PROT_WRITE);
    }
}

/* --- entry points ---------------------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **devPtr, size_t size)
{
    lock();
    cudaError_t error = allocate_device(devPtr, size);
    return leave(error);
}

cudaError_t cudaFree(void *devPtr)
{
    lock();
    cudaError_t error = free_device(devPtr);
    return leave(error);
}

cudaError_t cudaMallocHost(void **ptr, size_t size)
{
    lock();
    cudaError_t error = allocate_pinned(ptr, size);
    return leave(error);
}

cudaError_t cudaHostAlloc(void **pHost, size_t size, unsigned int flags)
{
    lock();
    cudaError_t error = flags & ~7u ? BROKEN(cudaErrorInvalidValue, FLAGS, "cudaHostAlloc(flags %#x)", flags)
                                    : allocate_pinned(pHost, size);
    return leave(error);
}

cudaError_t cudaFreeHost(void *ptr)
{
    lock();
    cudaError_t error = free_pinned(ptr, 0);
    return leave(error);
}

cudaError_t cudaHostRegister(void *ptr, size_t size, unsigned int flags)
{
    lock();
    cudaError_t error = usable();
    if (!error && flags & ~15u)
        error = BROKEN(cudaErrorInvalidValue, FLAGS, "cudaHostRegister(flags %#x)", flags);
    else if (!error && (!ptr || size == 0))
        error = cudaErrorInvalidValue;
    else if (!error && pinned_of(ptr, 1))
        error = cudaErrorHostMemoryAlreadyRegistered;
    else if (!error) {
        set_up();
        remember(MEMORY_PINNED, ptr, size)->registered = 1;
    }
    return leave(error);
}

cudaError_t cudaHostUnregister(void *ptr)
{
    lock();
    cudaError_t error = free_pinned(ptr, 1);
    return leave(error);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *ptr)
{
    lock();
    cudaError_t error = usable();
    if (!error) {
        struct allocation *device = allocation_of(ptr, 0), *pinned = pinned_of(ptr, 0);
        struct allocation *a = device ? device : pinned;
        memset(attributes, 0, sizeof *attributes);
        attributes->type = device ? cudaMemoryTypeDevice : pinned ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
        attributes->device = a ? a->device : -2;
        attributes->devicePointer = a ? (void *)(uintptr_t)ptr : NULL;
        attributes->hostPointer = device ? NULL : (void *)(uintptr_t)ptr;
    }
    return leave(error);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    lock();
    cudaError_t error = usable();
    if (!error) {
        *total = settings.memory_bytes;
        *free_bytes =
            settings.memory_bytes - settings.held[current_device()] - bytes_of(MEMORY_DEVICE, current_device());
    }
    return leave(error);
}

void standin_buffer(const void *start, size_t bytes)
{
    lock();
    struct allocation *a = allocation_of(start, bytes);
    if (!a || bytes == 0)
        found(RULE_KERNEL_BOUNDS, "standin_buffer(%p, %zu) is not inside an allocation", start, bytes);
    else {
        if (a->buffers == 0)
            POISON(a->start, a->bytes);
        a->buffer = realloc(a->buffer, (a->buffers + 1) * sizeof *a->buffer);
        a->buffer[a->buffers++] = (struct buffer){(char *)(uintptr_t)start, bytes};
        UNPOISON(start, bytes);
    }
    unlock();
}

size_t standin_device_bytes(void)
{
    return bytes_of(MEMORY_DEVICE, -1);
}

size_t standin_pinned_bytes(void)
{
    return bytes_of(MEMORY_PINNED, -1);
}

size_t standin_peak_bytes(void)
{
    return peak;
}
