/*
 * Streams, events and the order of work. An operation carries the clocks of what must be done before it (one counter per stream, as of
 * Lamport 1978 and Mattern 1989); an event is a copy of the clocks at its record. Nothing runs until somebody has to know, and
 * then in a seeded order among those the clocks allow. Operations that touched the same memory and are not ordered by their clocks are
 * a race, in whatever order they ran.
 */
#include "tests/gpu/standin/engine.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAITING_LIMIT  4096 /* operations that wait before some run unasked */
#define RECORDS_LIMIT  16384
#define LEGACY_STREAMS DEVICES_LIMIT

struct settings settings;
unsigned live_handles;
static struct CUstream_st *stream_list, legacy[DEVICES_LIMIT];
static struct CUevent_st *event_list;
static uint32_t slot_issued[STREAMS_LIMIT], slot_done[STREAMS_LIMIT];
static struct clocks known; /* to the host */
static uint64_t executed, draws;
static unsigned waiting, opened;
static _Thread_local int device_now;
static _Thread_local cudaError_t last_error;

static struct record {
    const char *start, *end;
    enum touch touch;
    int slot;
    uint32_t number;
    const char *name;
} record[RECORDS_LIMIT];
static unsigned records;

/* --- settings --------------------------------------------------------------------------------------------------- */

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* Whether this process may fail: with STANDIN_FAIL_ONCE only the one that makes the file of that name. */
static int is_first(void)
{
    const char *path = getenv("STANDIN_FAIL_ONCE");
    int file = path ? open(path, O_CREAT | O_EXCL | O_WRONLY, 0600) : 0;
    if (path && file >= 0)
        close(file);
    return file >= 0;
}

__attribute__((constructor)) static void begin(void)
{
    settings.devices = (int)from_environment("STANDIN_DEVICES", 1);
    if (settings.devices > DEVICES_LIMIT)
        settings.devices = DEVICES_LIMIT;
    settings.capability = (int)from_environment("STANDIN_CAPABILITY", 80);
    settings.barred = (int)from_environment("STANDIN_BARRED", UINT64_MAX);
    settings.bar = cudaErrorDevicesUnavailable;
    settings.memory_bytes = from_environment("STANDIN_MEMORY_MB", 4096) << 20;
    settings.seed = from_environment("STANDIN_SEED", 1);
    settings.patience_s = 60;
    settings.status = cudaErrorIllegalAddress;
    settings.fail_device = settings.connect_device = settings.only_device = -1;
    settings.fail_after = is_first() ? from_environment("STANDIN_FAIL_AFTER", 0) : 0;
    settings.lost_hangs = (int)from_environment("STANDIN_LOST_HANGS", 0);
    for (int i = 0; i < DEVICES_LIMIT; i++) {
        legacy[i].device = legacy[i].slot = i;
        legacy[i].blocking = 1;
        legacy[i].next = i + 1 < DEVICES_LIMIT ? &legacy[i + 1] : NULL;
    }
    stream_list = legacy;
}

void standin_set_devices(int devices)
{
    settings.devices = devices;
}

void standin_set_capability(int times_ten)
{
    settings.capability = times_ten;
}

void standin_bar_device(int device, int status)
{
    settings.barred = device;
    settings.bar = (cudaError_t)status;
}

void standin_hold(int device, size_t bytes)
{
    settings.held[device] = bytes;
}

void standin_refuse_connection(int status)
{
    settings.connect_status = status;
}

unsigned standin_opened(void)
{
    unsigned devices = opened;
    opened = 0;
    return devices;
}

void standin_set_memory(size_t bytes)
{
    settings.memory_bytes = bytes;
}

void standin_set_seed(uint64_t seed)
{
    settings.seed = seed;
    draws = 0;
}

void standin_set_patience(int seconds)
{
    settings.patience_s = seconds;
}

void standin_close_allocation(int closed)
{
    settings.closed = closed;
}

void standin_lose_one_device_after(int device, uint64_t operations)
{
    settings.fail_device = device;
    settings.fail_after = operations;
    if (operations == 0)
        settings.lost[device < 0 ? device_now : device] = settings.status;
}

void standin_lose_device_after(uint64_t operations)
{
    standin_lose_one_device_after(-1, operations);
}

void standin_lose_at_connection(int device, enum standin_moment moment)
{
    settings.connect_device = device;
    settings.connect_moment = moment;
}

void standin_hold_others(int device)
{
    settings.only_device = device;
}

void standin_refuse_after(int device, uint64_t operations)
{
    settings.refuse_device = device;
    settings.refuse_after = operations;
}

void standin_refuse_handle_after(uint64_t handles)
{
    settings.refuse_handle_after = handles;
}

void standin_lose_with(int status)
{
    settings.status = (cudaError_t)status;
}

void standin_restore_device(void)
{
    settings.fail_after = 0;
    settings.connect_device = -1;
    settings.status = cudaErrorIllegalAddress;
    memset(settings.lost, 0, sizeof settings.lost);
    last_error = cudaSuccess;
}

unsigned standin_handles(void)
{
    return live_handles;
}

uint64_t standin_operations(void)
{
    return executed;
}

/* splitmix64 (Steele et al. 2014) of a counter: cheap, and repeatable from the seed. */
unsigned choose(unsigned limit)
{
    if (settings.seed == 0 || limit < 2)
        return 0;
    uint64_t z = settings.seed * 0x9e3779b97f4a7c15u + ++draws * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (unsigned)((z ^ z >> 31) % limit);
}

cudaError_t usable(void)
{
    if (settings.devices == 0)
        return cudaErrorInsufficientDriver;
    return settings.lost[device_now];
}

cudaError_t leave(cudaError_t error)
{
    if (error)
        last_error = error;
    unlock();
    return error;
}

/* The error of the last call of this thread that failed, also of one that came before calls that succeeded; a lost device's stays. As of a
 * runtime that is linked into each library by itself: what cuBLASLt and cuDNN were told is not seen here. */
cudaError_t cudaGetLastError(void)
{
    lock();
    cudaError_t error = last_error;
    last_error = error && error == settings.lost[device_now] ? error : cudaSuccess;
    unlock();
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

int current_device(void)
{
    return device_now;
}

int set_current_device(int device)
{
    if (device < 0 || device >= settings.devices)
        return -1;
    device_now = device;
    opened |= 1u << device;
    return 0;
}

/* --- streams and events --------------------------------------------------------------------------------------------- */

struct CUstream_st *streams(void)
{
    return stream_list;
}

struct CUstream_st *stream_of(cudaStream_t stream)
{
    if (!stream)
        return &legacy[device_now];
    for (struct CUstream_st *s = stream_list; s; s = s->next)
        if (s == stream)
            return s;
    found(RULE_STREAM_HANDLE, "no stream %p", (void *)stream);
    return NULL;
}

/* NULL when STREAMS_LIMIT are alive. A slot's counters go on where its last stream left them. */
struct CUstream_st *stream_new(int device, int blocking)
{
    for (int slot = LEGACY_STREAMS; slot < STREAMS_LIMIT; slot++) {
        struct CUstream_st *s = stream_list;
        while (s && s->slot != slot)
            s = s->next;
        if (s)
            continue;
        s = calloc(1, sizeof *s);
        s->device = device;
        s->slot = slot;
        s->blocking = blocking;
        s->clocks.of[slot] = slot_issued[slot];
        s->next = stream_list;
        stream_list = s;
        live_handles++;
        return s;
    }
    return NULL;
}

void stream_forget(struct CUstream_st *stream)
{
    for (struct CUstream_st **at = &stream_list; *at; at = &(*at)->next)
        if (*at == stream) {
            *at = stream->next;
            free(stream);
            live_handles--;
            return;
        }
}

struct CUevent_st *event_of(cudaEvent_t event)
{
    for (struct CUevent_st *e = event_list; e; e = e->next)
        if (e == event)
            return e;
    found(RULE_EVENT_HANDLE, "no event %p", (void *)event);
    return NULL;
}

struct CUevent_st *event_new(unsigned flags)
{
    struct CUevent_st *e = calloc(1, sizeof *e);
    e->device = device_now;
    e->flags = flags;
    e->next = event_list;
    event_list = e;
    live_handles++;
    return e;
}

void event_forget(struct CUevent_st *event)
{
    for (struct CUevent_st **at = &event_list; *at; at = &(*at)->next)
        if (*at == event) {
            *at = event->next;
            free(event);
            live_handles--;
            return;
        }
}

/* --- clocks -------------------------------------------------------------------------------------------------------------- */

void join(struct clocks *into, const struct clocks *other)
{
    for (int i = 0; i < STREAMS_LIMIT; i++)
        if (other->of[i] > into->of[i])
            into->of[i] = other->of[i];
}

/* The legacy stream waits for every blocking stream of its device and they for it (RT 'Stream synchronization behavior'). */
struct clocks issued(const struct CUstream_st *stream)
{
    struct clocks clocks = stream->clocks;
    int is_legacy = stream == &legacy[stream->device];
    for (struct CUstream_st *s = stream_list; s; s = s->next)
        if (stream->blocking && s->device == stream->device && (is_legacy ? s->blocking : s == &legacy[stream->device]))
            join(&clocks, &s->clocks);
    return clocks;
}

int is_complete(const struct clocks *wanted)
{
    for (int i = 0; i < STREAMS_LIMIT; i++)
        if (slot_done[i] < wanted->of[i])
            return 0;
    return 1;
}

/* --- races ------------------------------------------------------------------------------------------------------------------ */

static int conflict(enum touch a, enum touch b)
{
    if (a == TOUCH_MAYBE)
        return b == TOUCH_WRITE;
    return b == TOUCH_MAYBE ? a == TOUCH_WRITE : a == TOUCH_WRITE || b == TOUCH_WRITE;
}

void touched(const struct operation *operation, const void *start, size_t bytes, enum touch touch)
{
    const char *first = start, *end = first + bytes;
    int slot = operation->stream->slot, known_already = 0;
    for (unsigned i = 0; i < records; i++) {
        struct record *r = &record[i];
        if (r->start >= end || r->end <= first)
            continue;
        if (r->slot == slot && r->number == operation->number) {
            known_already |= r->touch == touch && r->start <= first && r->end >= end;
            continue;
        }
        if (conflict(r->touch, touch) && operation->after.of[r->slot] < r->number) {
            found(RULE_RACE, "%s and %s at %p", r->name, operation->name,
                  (const void *)(first > r->start ? first : r->start));
            break;
        }
    }
    if (known_already)
        return;
    if (records == RECORDS_LIMIT)
        too_many("accesses of work that is not known to be done", RECORDS_LIMIT, "RECORDS_LIMIT in engine.c");
    record[records++] = (struct record){first, end, touch, slot, operation->number, operation->name};
}

/* Drops what every operation still to come is ordered after. */
static void forget_records(void)
{
    struct clocks everybody = known;
    unsigned kept = 0;
    for (struct CUstream_st *s = stream_list; s; s = s->next)
        for (struct operation *o = s->head; o; o = o->next)
            for (int i = 0; i < STREAMS_LIMIT; i++)
                if (o->after.of[i] < everybody.of[i])
                    everybody.of[i] = o->after.of[i];
    for (unsigned i = 0; i < records; i++)
        if (record[i].number > everybody.of[record[i].slot])
            record[kept++] = record[i];
    records = kept;
}

static int overlaps(const struct access *access, const void *start, size_t bytes)
{
    const char *a = access->start, *b = start;
    return a < b + bytes && b < a + access->bytes;
}

int in_use(const void *start, size_t bytes)
{
    for (unsigned i = 0; i < records; i++)
        if (record[i].start < (const char *)start + bytes && record[i].end > (const char *)start &&
            record[i].number > known.of[record[i].slot])
            return 1;
    for (struct CUstream_st *s = stream_list; s; s = s->next)
        for (struct operation *o = s->head; o; o = o->next)
            for (unsigned i = 0; i < o->accesses; i++)
                if (overlaps(&o->access[i], start, bytes))
                    return 1;
    return 0;
}

/* --- operations --------------------------------------------------------------------------------------------------------------- */

struct operation *operation_new(const char *name, void (*run)(struct operation *), void *payload)
{
    struct operation *operation = calloc(1, sizeof *operation);
    operation->name = name;
    operation->run = run;
    operation->payload = payload;
    return operation;
}

void operation_free(struct operation *operation)
{
    if (operation->free_payload)
        operation->free_payload(operation->payload);
    else
        free(operation->payload);
    free(operation);
}

void touches(struct operation *operation, const void *start, size_t bytes, enum touch touch)
{
    if (bytes == 0)
        return;
    if (operation->accesses == ACCESS_LIMIT)
        too_many("ranges that one operation touches", ACCESS_LIMIT, "ACCESS_LIMIT in engine.h");
    operation->access[operation->accesses++] = (struct access){start, bytes, touch, 1};
}

/* FNV-1a (Fowler, Noll, Vo). */
static uint64_t checksum(const void *start, size_t bytes)
{
    const unsigned char *at = start;
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        sum = (sum ^ at[i]) * 0x100000001b3u;
    return sum;
}

static uint64_t pinned_checksum(const struct operation *operation)
{
    for (unsigned i = 0; i < operation->accesses; i++)
        if (operation->access[i].touch == TOUCH_READ &&
            pinned_of(operation->access[i].start, operation->access[i].bytes))
            return checksum(operation->access[i].start, operation->access[i].bytes);
    return 0;
}

static void hold_pinned(const struct operation *operation)
{
    for (unsigned i = 0; i < operation->accesses; i++)
        pinned_hold(operation->access[i].start, operation->access[i].bytes, operation->access[i].touch == TOUCH_READ);
}

static void hold_all_pinned(void)
{
    for (struct CUstream_st *s = stream_list; s; s = s->next)
        for (struct operation *o = s->head; o; o = o->next)
            hold_pinned(o);
}

void execute(struct operation *operation, const struct operation *of)
{
    operation->stream = of->stream;
    operation->number = of->number;
    operation->after = of->after;
    for (unsigned i = 0; i < operation->accesses; i++) {
        const struct access *a = &operation->access[i];
        if (a->touch != TOUCH_MAYBE || !traced)
            touched(operation, a->start, a->bytes, a->touch);
        if (a->touch == TOUCH_READ && a->strict && traced && !was_written(a->start, a->bytes))
            found(RULE_UNINITIALISED, "%s reads what nothing wrote at %p", operation->name, a->start);
    }
    if (operation == of && pinned_checksum(operation) != operation->checksum)
        found(RULE_PINNED_WRITTEN, "source of %s changed before it was read", operation->name);
    device_reach(operation->name);
    operation->run(operation);
    device_out_of_reach();
    for (unsigned i = 0; i < operation->accesses; i++)
        if (operation->access[i].touch == TOUCH_WRITE)
            mark_written(operation->access[i].start, operation->access[i].bytes);
    executed++;
}

static void finish_head(struct CUstream_st *stream)
{
    struct operation *operation = stream->head;
    if (!settings.lost[stream->device])
        execute(operation, operation);
    slot_done[stream->slot] = operation->number;
    stream->head = operation->next;
    if (!stream->head)
        stream->tail = NULL;
    waiting--;
    operation_free(operation);
    tell_others();
}

/* 0, or 1 when nothing can run now. `wanted` NULL = anything. */
static int run_one(const struct clocks *wanted)
{
    struct CUstream_st *ready[STREAMS_LIMIT];
    unsigned candidates = 0, aside = settings.seed != 0 && choose(4) == 0;
    for (struct CUstream_st *s = stream_list; s; s = s->next) {
        struct operation *o = s->head;
        if (!o || (wanted && !aside && o->number > wanted->of[s->slot]) || !is_complete(&o->after))
            continue;
        if (!settings.lost[s->device] && o->ready && !o->ready(o))
            continue;
        if (settings.only_device >= 0 && s->device != settings.only_device)
            continue;
        ready[candidates++] = s;
    }
    if (candidates == 0)
        return 1;
    finish_head(ready[choose(candidates)]);
    return 0;
}

cudaError_t complete(const struct clocks *wanted)
{
    device_reach("work");
    while (!is_complete(wanted)) {
        pinned_release_all(); /* each time: while this thread waits, others hold what their new copies use */
        if (run_one(wanted) && run_one(NULL) && wait_for_others()) {
            found(RULE_NCCL_MISSING, "waited %d s for the other ranks", settings.patience_s);
            for (int i = 0; i < DEVICES_LIMIT; i++)
                settings.lost[i] = settings.status;
        }
    }
    device_out_of_reach();
    join(&known, wanted);
    hold_all_pinned();
    forget_records();
    return usable();
}

void run_something(void)
{
    pinned_release_all();
    run_one(NULL);
    hold_all_pinned();
}

cudaError_t complete_everything(void)
{
    struct clocks wanted = {{0}};
    for (struct CUstream_st *s = stream_list; s; s = s->next)
        join(&wanted, &s->clocks);
    return complete(&wanted);
}

/* Whether all device memory that an operation touches is of the stream's device. */
static cudaError_t check_devices(const struct operation *operation, const struct CUstream_st *stream)
{
    for (unsigned i = 0; i < operation->accesses; i++) {
        const void *start = operation->access[i].start;
        const struct allocation *a = is_device_address(start) ? allocation_of(start, 0) : NULL;
        if (a && a->device != stream->device)
            return BROKEN(cudaErrorIllegalAddress, OTHER_DEVICE, "%s in a stream of device %d: %p is of device %d",
                          operation->name, stream->device, start, a->device);
    }
    return cudaSuccess;
}

cudaError_t enqueue(struct operation *operation, struct CUstream_st *stream)
{
    cudaError_t error = usable() ? usable() : settings.lost[stream->device];
    if (!error && stream->posting)
        found(RULE_NCCL_PROGRESS, "%s in a stream that a sum is still to come to", operation->name);
    if (!error)
        error = check_devices(operation, stream);
    if (!error && stream->capture)
        return capture_add(stream, operation);
    for (struct CUstream_st *s = stream_list; !error && s && stream->slot < LEGACY_STREAMS; s = s->next)
        if (s->capture && s->blocking && s->device == stream->device) {
            capture_invalidate(s);
            error = BROKEN(cudaErrorStreamCaptureImplicit, CAPTURE_LEGACY, "%s in the legacy stream", operation->name);
        }
    if (!error && settings.fail_after && (settings.fail_device < 0 || settings.fail_device == stream->device) &&
        --settings.fail_after == 0)
        error = settings.lost[stream->device] = settings.status;
    if (!error && settings.refuse_after && settings.refuse_device == stream->device && --settings.refuse_after == 0)
        error = cudaErrorLaunchOutOfResources;
    if (error) {
        operation_free(operation);
        return error;
    }
    operation->stream = stream;
    operation->after = issued(stream);
    join(&operation->after, &known);
    operation->after.of[stream->slot] = slot_issued[stream->slot];
    operation->number = ++slot_issued[stream->slot];
    stream->clocks = operation->after;
    stream->clocks.of[stream->slot] = operation->number;
    operation->checksum = pinned_checksum(operation);
    if (stream->tail)
        stream->tail->next = operation;
    else
        stream->head = operation;
    stream->tail = operation;
    hold_pinned(operation);
    if (++waiting > WAITING_LIMIT || settings.seed == 0) {
        pinned_release_all();
        device_reach("work"); /* of which the host does not know */
        while (waiting > (settings.seed == 0 ? 0 : WAITING_LIMIT / 2) && !run_one(NULL))
            ;
        device_out_of_reach();
        hold_all_pinned();
    }
    tell_others();
    return cudaSuccess;
}
