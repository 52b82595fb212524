/* See file.h. */
#include "base/file.h"
#include "base/error.h"
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int file_read(const char *path, size_t limit_bytes, char **ret_bytes, size_t *ret_length)
{
    int result = 0;
    char *bytes = NULL;
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe must not block */
    if (descriptor < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return error_set(ERROR_NOT_FOUND, "%s: no such file", path);
        return error_set_errno("cannot open %s", path);
    }
    struct stat info;
    if (fstat(descriptor, &info) < 0) {
        result = error_set_errno("cannot look at %s", path);
        goto out;
    }
    if (!S_ISREG(info.st_mode)) {
        result = error_set(ERROR_INPUT, "%s is not a regular file", path);
        goto out;
    }
    if ((size_t)info.st_size > limit_bytes) {
        result = error_set(ERROR_LIMIT, "%s has %lld bytes, more than the limit of %zu", path, (long long)info.st_size,
                           limit_bytes);
        goto out;
    }
    size_t wanted = (size_t)info.st_size, have = 0;
    bytes = malloc(wanted + 1);
    if (!bytes) {
        result = error_set(ERROR_SYSTEM, "out of memory reading %s", path);
        goto out;
    }
    while (have < wanted) {
        ssize_t count = read(descriptor, bytes + have, wanted - have);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            result = error_set_errno("cannot read %s", path);
            goto out;
        }
        if (count == 0)
            break;
        have += (size_t)count;
    }
    bytes[have] = 0;
    *ret_bytes = bytes;
    *ret_length = have;
    bytes = NULL;
out:
    free(bytes);
    close(descriptor);
    return result;
}

static int write_all(int descriptor, const char *bytes, size_t length)
{
    while (length) {
        ssize_t count = write(descriptor, bytes, length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -1;
        bytes += count;
        length -= (size_t)count;
    }
    return 0;
}

static int sync_folder_of(const char *path)
{
    char folder[FILE_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    int result = slash ? file_path(folder, sizeof folder, "%.*s", (int)(slash - path) + 1, path)
                       : file_path(folder, sizeof folder, ".");
    if (result)
        return result;
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return error_set_errno("cannot open folder %s", folder);
    if (fsync(descriptor) < 0)
        result = error_set_errno("cannot sync folder %s", folder);
    close(descriptor);
    return result;
}

int file_write(const char *path, const struct file_part *parts, int part_count, mode_t mode)
{
    char temporary[FILE_PATH_BYTES];
    int result = file_path(temporary, sizeof temporary, "%s.new", path);
    if (result)
        return result;
    /* What an earlier try left goes first; in a folder of another user's a link or a pipe may have been planted there. */
    unlink(temporary);
    int descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (descriptor < 0)
        return error_set_errno("cannot create %s", temporary);
    FAULT(FILE_CREATED);
    for (int i = 0; i < part_count && !result; i++)
        if (write_all(descriptor, parts[i].bytes, parts[i].length) < 0)
            result = error_set_errno("cannot write %s; the previous file is untouched", path);
    FAULT(FILE_WRITTEN);
    if (!result && fsync(descriptor) < 0)
        result = error_set_errno("cannot sync %s; the previous file is untouched", path);
    if (close(descriptor) < 0 && !result)
        result = error_set_errno("cannot close %s; the previous file is untouched", path);
    FAULT(FILE_SYNCED);
    if (!result && rename(temporary, path) < 0)
        result = error_set_errno("cannot put %s in place; the previous file is untouched", path);
    if (result) {
        unlink(temporary);
        return result;
    }
    FAULT(FILE_RENAMED);
    return sync_folder_of(path);
}

int file_make_folder(const char *path, mode_t mode)
{
    char partial[FILE_PATH_BYTES];
    int result = file_path(partial, sizeof partial, "%s", path);
    if (result)
        return result;
    for (char *slash = partial + 1;; slash++) {
        if (*slash != '/' && *slash != 0)
            continue;
        char kept = *slash;
        *slash = 0;
        if (mkdir(partial, mode) < 0 && errno != EEXIST)
            return error_set_errno("cannot make folder %s", partial);
        if (!kept)
            return 0;
        *slash = kept;
    }
}

int file_lock(const char *path)
{
    int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0)
        return error_set_errno("cannot open %s", path);
    if (flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        return descriptor;
    int result = errno == EWOULDBLOCK ? error_set(ERROR_UNAVAILABLE, "another process holds %s", path)
                                      : error_set_errno("cannot lock %s", path);
    close(descriptor);
    return result;
}

int file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

int file_path(char *path, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(path, size, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= size)
        return error_set(ERROR_LIMIT, "path longer than %zu bytes: %.80s...", size - 1, path);
    return 0;
}
