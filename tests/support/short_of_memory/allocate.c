/*
 * Linked into a second build of triaged (tests/CMakeLists.txt): the n-th allocation of the control process fails. Counted are
 * calls from our own code, jansson and libpq; what libzmq and the C++ library ask for is not failed, since libzmq ends the process
 * by design. The test steers through a shared page, the file that TRIAGE_SHORT_OF_MEMORY names.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
__attribute__((weak)) void *__interceptor_malloc(size_t bytes);
__attribute__((weak)) void *__interceptor_calloc(size_t count, size_t bytes);
__attribute__((weak)) void *__interceptor_realloc(void *memory, size_t bytes);
__attribute__((weak)) char *__interceptor_strdup(const char *text);

struct steering {
    atomic_long countdown; /* 1 = the next one fails; 0 = none */
    atomic_long calls;     /* counted so far */
    atomic_long failed;
};

static struct steering *steering;
static struct {
    const char *first, *behind;
} ours[8];
static int ranges;

static int keep_ours(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    (void)context;
    if (info->dlpi_name[0] && !strstr(info->dlpi_name, "libpq.so") && !strstr(info->dlpi_name, "libjansson.so"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum && ranges < 8; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        const char *first = (const char *)(info->dlpi_addr + part->p_vaddr); /* NOLINT */
        if (part->p_type == PT_LOAD && part->p_flags & PF_X) {
            ours[ranges].first = first;
            ours[ranges++].behind = first + part->p_memsz;
        }
    }
    return 0;
}

/* Only the control process: the worker has the same program. */
__attribute__((constructor)) static void begin(int argc, char **argv)
{
    const char *path = getenv("TRIAGE_SHORT_OF_MEMORY");
    int descriptor = path && argc > 1 && strcmp(argv[1], "run") == 0 ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (descriptor < 0)
        return;
    dl_iterate_phdr(keep_ours, NULL);
    void *page = mmap(NULL, sizeof(struct steering), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    steering = page == MAP_FAILED ? NULL : page;
    close(descriptor);
}

static int fails(const void *caller)
{
    const char *at = caller;
    int mine = 0;
    for (int i = 0; steering && i < ranges && !mine; i++)
        mine = at >= ours[i].first && at < ours[i].behind;
    if (!mine)
        return 0;
    steering->calls++;
    long left = steering->countdown;
    if (left <= 0 || !atomic_compare_exchange_strong(&steering->countdown, &left, left - 1) || left != 1)
        return 0;
    steering->failed++;
    return 1;
}

void *malloc(size_t bytes)
{
    if (fails(__builtin_return_address(0)))
        return NULL;
    return __interceptor_malloc ? __interceptor_malloc(bytes) : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    if (fails(__builtin_return_address(0)))
        return NULL;
    return __interceptor_calloc ? __interceptor_calloc(count, bytes) : __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    if (fails(__builtin_return_address(0)))
        return NULL;
    return __interceptor_realloc ? __interceptor_realloc(memory, bytes) : __libc_realloc(memory, bytes);
}

char *strdup(const char *text)
{
    if (fails(__builtin_return_address(0)))
        return NULL;
    size_t bytes = strlen(text) + 1;
    char *copy = __interceptor_malloc ? __interceptor_malloc(bytes) : __libc_malloc(bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}
