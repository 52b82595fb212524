/* See write_log.h. */
#include "tests/support/write_log.h"
#include "base/philox.h"

#include <assert.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR     512
#define INODES_MAX 256
#define MAPS_MAX   64
#define NAMES_MAX  64

enum kind { WRITE, SIZE, SYNC, PUT, REMOVE, FOLDER };

struct op {
    enum kind kind;
    int event, inode;
    long first, last; /* sectors: of SYNC all that are covered, of WRITE the one; of SIZE the bytes */
    char name[64];
    unsigned char bytes[SECTOR];
};

static struct {
    bool on;
    char folder[128];
    int event, ops, room;
    struct op *op;
    int inodes;
    struct {
        ino_t number;
        unsigned char *shadow;
        long size;
        char name[64]; /* now */
    } inode[INODES_MAX];
    struct {
        const char *address;
        size_t length;
        int inode;
    } map[MAPS_MAX];
} record;

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int descriptor, const void *bytes, size_t count);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_posix_fallocate(int descriptor, off_t offset, off_t length);
void *__real_mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset);
void *__real_mremap(void *address, size_t old, size_t next, int flags, ...);
int __real_munmap(void *address, size_t length);

/* --- recording --------------------------------------------------------------------------------------------------- */

static struct op *add(enum kind kind, int inode)
{
    if (record.ops == record.room) {
        record.room = record.room ? 2 * record.room : 1024;
        record.op = realloc(record.op, (size_t)record.room * sizeof *record.op);
        assert(record.op);
    }
    struct op *op = &record.op[record.ops++];
    *op = (struct op){.kind = kind, .event = record.event, .inode = inode};
    return op;
}

/* Name within the folder, or NULL. */
static const char *inside(const char *path)
{
    size_t length = strlen(record.folder);
    return record.on && strncmp(path, record.folder, length) == 0 && path[length] == '/' ? path + length + 1 : NULL;
}

static int inode_of(int descriptor)
{
    struct stat info = {0};
    if (!record.on || fstat(descriptor, &info) < 0)
        return -1;
    for (int i = record.inodes - 1; i >= 0; i--)
        if (record.inode[i].number == info.st_ino && record.inode[i].name[0])
            return i;
    return -1;
}

static int inode_named(const char *name)
{
    for (int i = 0; i < record.inodes; i++)
        if (strcmp(record.inode[i].name, name) == 0)
            return i;
    return -1;
}

static void note_file(int inode)
{
    char path[256];
    struct stat info = {0};
    snprintf(path, sizeof path, "%s/%s", record.folder, record.inode[inode].name);
    int descriptor = __real_open(path, O_RDONLY);
    assert(descriptor >= 0 && fstat(descriptor, &info) == 0);
    long old = record.inode[inode].size, padded = (info.st_size + SECTOR - 1) / SECTOR * SECTOR;
    unsigned char *now = calloc(1, (size_t)padded + 1);
    assert(now && pread(descriptor, now, (size_t)info.st_size, 0) == info.st_size);
    close(descriptor);
    if (info.st_size != old)
        add(SIZE, inode)->first = info.st_size;
    static const unsigned char zero[SECTOR];
    for (long at = 0; at < padded; at += SECTOR) {
        const unsigned char *before = at < old ? record.inode[inode].shadow + at : zero;
        if (memcmp(now + at, before, SECTOR) == 0)
            continue;
        struct op *op = add(WRITE, inode);
        op->first = op->last = at / SECTOR;
        memcpy(op->bytes, now + at, SECTOR);
    }
    free(record.inode[inode].shadow);
    record.inode[inode].shadow = now;
    record.inode[inode].size = info.st_size;
}

int write_log_note(void)
{
    record.event++;
    for (int i = 0; i < record.inodes; i++)
        if (record.inode[i].name[0])
            note_file(i);
    return record.event;
}

void write_log_start(const char *folder)
{
    snprintf(record.folder, sizeof record.folder, "%s", folder);
    record.on = true;
}

void write_log_stop(void)
{
    for (int i = 0; i < record.inodes; i++)
        free(record.inode[i].shadow);
    free(record.op);
    memset(&record, 0, sizeof record);
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    const char *name = inside(path);
    bool made = name && flags & O_CREAT && inode_named(name) < 0;
    int descriptor = __real_open(path, flags, mode);
    struct stat info = {0};
    if (made && descriptor >= 0 && fstat(descriptor, &info) == 0) {
        assert(record.inodes < INODES_MAX);
        int inode = record.inodes++;
        record.event++;
        record.inode[inode].number = info.st_ino;
        snprintf(record.inode[inode].name, sizeof record.inode[inode].name, "%s", name);
        snprintf(add(PUT, inode)->name, 64, "%s", name);
    }
    if (name)
        write_log_note();
    return descriptor;
}

ssize_t __wrap_write(int descriptor, const void *bytes, size_t count)
{
    ssize_t written = __real_write(descriptor, bytes, count);
    if (inode_of(descriptor) >= 0)
        write_log_note();
    return written;
}

int __wrap_fsync(int descriptor)
{
    struct stat info = {0};
    int inode = inode_of(descriptor);
    if (!record.on)
        return 0; /* nobody pulls the plug of this machine */
    write_log_note();
    record.event++;
    if (inode >= 0)
        add(SYNC, inode)->last = INT32_MAX;
    else if (fstat(descriptor, &info) == 0 && S_ISDIR(info.st_mode))
        add(FOLDER, -1);
    return 0;
}

int __wrap_rename(const char *from, const char *to)
{
    const char *old = inside(from), *next = inside(to);
    int inode = old ? inode_named(old) : -1, gone = next ? inode_named(next) : -1;
    int result = __real_rename(from, to);
    if (inode < 0 || result < 0)
        return result;
    record.event++;
    if (gone >= 0)
        record.inode[gone].name[0] = 0;
    struct op *op = add(PUT, inode); /* with its old name gone in the same step */
    snprintf(op->name, sizeof op->name, "%s", next);
    memcpy(op->bytes, old, strlen(old) + 1);
    snprintf(record.inode[inode].name, sizeof record.inode[inode].name, "%s", next);
    return result;
}

int __wrap_unlink(const char *path)
{
    const char *name = inside(path);
    int inode = name ? inode_named(name) : -1, result = __real_unlink(path);
    if (inode < 0 || result < 0)
        return result;
    record.event++;
    snprintf(add(REMOVE, inode)->name, 64, "%s", name);
    record.inode[inode].name[0] = 0;
    return result;
}

static void remember_map(const void *address, size_t length, int inode)
{
    for (int i = 0; i < MAPS_MAX && inode >= 0; i++)
        if (!record.map[i].address) {
            record.map[i].address = address;
            record.map[i].length = length;
            record.map[i].inode = inode;
            return;
        }
}

static int forget_map(const void *address)
{
    for (int i = 0; i < MAPS_MAX; i++)
        if (record.map[i].address && record.map[i].address == address) {
            record.map[i].address = NULL;
            return record.map[i].inode;
        }
    return -1;
}

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset)
{
    void *map = __real_mmap(address, length, protection, flags, descriptor, offset);
    if (descriptor >= 0 && map != MAP_FAILED)
        remember_map(map, length, inode_of(descriptor));
    return map;
}

void *__wrap_mremap(void *address, size_t old, size_t next, int flags, ...)
{
    int inode = record.on ? forget_map(address) : -1;
    void *map = __real_mremap(address, old, next, flags);
    if (map != MAP_FAILED)
        remember_map(map, next, inode);
    return map;
}

int __wrap_munmap(void *address, size_t length)
{
    if (record.on) {
        write_log_note();
        forget_map(address);
    }
    return __real_munmap(address, length);
}

int __wrap_msync(void *address, size_t length, int flags)
{
    for (int i = 0; record.on && i < MAPS_MAX; i++) {
        long offset = (const char *)address - record.map[i].address;
        if (!record.map[i].address || offset < 0 || (size_t)offset >= record.map[i].length)
            continue;
        write_log_note();
        record.event++;
        struct op *op = add(SYNC, record.map[i].inode);
        op->first = offset / SECTOR;
        op->last = (offset + (long)length + SECTOR - 1) / SECTOR - 1;
    }
    (void)flags;
    return 0;
}

int __wrap_posix_fallocate(int descriptor, off_t offset, off_t length)
{
    int result = __real_posix_fallocate(descriptor, offset, length);
    if (inode_of(descriptor) >= 0)
        write_log_note();
    return result;
}

/* --- a cut --------------------------------------------------------------------------------------------------------- */

/* Whether what op `i` did is on the disk for certain at the cut. */
static bool is_synced(int i, int end)
{
    const struct op *op = &record.op[i];
    for (int k = i + 1; k < end; k++) {
        const struct op *sync = &record.op[k];
        bool covers = op->kind == WRITE ? sync->first <= op->first && op->first <= sync->last : true;
        if (op->kind == PUT || op->kind == REMOVE ? sync->kind == FOLDER
                                                  : sync->kind == SYNC && sync->inode == op->inode && covers)
            return true;
    }
    return false;
}

static bool is_lucky(int i, enum write_log_luck luck, uint64_t seed)
{
    struct philox draw = philox(seed, (uint32_t)i, 0, 0, PHILOX_TARGETS);
    return luck == WRITE_LOG_ALL || (luck == WRITE_LOG_CHANCE && draw.word[0] & 1);
}

static void put_name(int names[], const char *name, int inode, char table[][64])
{
    for (int i = 0; i < NAMES_MAX; i++)
        if (strcmp(table[i], name) == 0 || !table[i][0]) {
            snprintf(table[i], 64, "%s", name);
            names[i] = inode;
            return;
        }
    assert(!"too many names");
}

static void write_out(const char *folder, const char *name, const unsigned char *bytes, long size)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int descriptor = __real_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert(descriptor >= 0 && ftruncate(descriptor, size) == 0);
    static const unsigned char zero[4096];
    for (long at = 0; at < size; at += 4096) {
        long count = size - at < 4096 ? size - at : 4096;
        if (memcmp(bytes + at, zero, (size_t)count) != 0)
            assert(pwrite(descriptor, bytes + at, (size_t)count, at) == count);
    }
    close(descriptor);
}

void write_log_cut(int event, enum write_log_luck luck, uint64_t seed, const char *folder)
{
    int end = 0, names[NAMES_MAX];
    record.on = false;
    char table[NAMES_MAX][64] = {{0}};
    unsigned char *content[INODES_MAX] = {0};
    long size[INODES_MAX] = {0}, room[INODES_MAX] = {0};
    while (end < record.ops && record.op[end].event <= event)
        end++;
    for (int i = 0; i < end; i++) /* room for the longest */
        if (record.op[i].kind == SIZE && record.op[i].first > room[record.op[i].inode])
            room[record.op[i].inode] = record.op[i].first;
    for (int i = 0; i < record.inodes; i++)
        content[i] = calloc(1, (size_t)room[i] + SECTOR);
    for (int i = 0; i < end; i++) {
        const struct op *op = &record.op[i];
        if (op->kind == SYNC || op->kind == FOLDER || (!is_synced(i, end) && !is_lucky(i, luck, seed)))
            continue;
        if (op->kind == WRITE && op->first * SECTOR < room[op->inode])
            memcpy(content[op->inode] + op->first * SECTOR, op->bytes, SECTOR);
        else if (op->kind == SIZE)
            size[op->inode] = op->first;
        else if (op->kind == PUT) {
            if (op->bytes[0])
                put_name(names, (const char *)op->bytes, -1, table);
            put_name(names, op->name, op->inode, table);
        } else if (op->kind == REMOVE)
            put_name(names, op->name, -1, table);
    }
    for (int i = 0; i < NAMES_MAX && table[i][0]; i++)
        if (names[i] >= 0)
            write_out(folder, table[i], content[names[i]], size[names[i]]);
    for (int i = 0; i < record.inodes; i++)
        free(content[i]);
}
