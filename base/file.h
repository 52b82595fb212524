/*
 * Files that survive a crash: whole-file reads with a limit, and writes that either happened or did not
 * (temporary file in the same folder, fsync, rename, fsync of the folder).
 */
#ifndef TRIAGE_BASE_FILE_H
#define TRIAGE_BASE_FILE_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Reads the file whole. The result has one extra zero byte behind its `*ret_length` bytes; the caller frees it.
 * ERROR_NOT_FOUND when there is no such file, ERROR_INPUT when it is a folder or a
 * device, ERROR_LIMIT above `limit_bytes`, ERROR_SYSTEM otherwise.
 */
int file_read(const char *path, size_t limit_bytes, char **ret_bytes, size_t *ret_length);

/* One piece of a file to write. */
struct file_part {
    const void *bytes;
    size_t length;
};

/* Replaces `path` atomically and durably with the parts in order. On any error the old file is untouched. What lies at
 * PATH.new is removed first, never followed or written to. */
int file_write(const char *path, const struct file_part *parts, int part_count, mode_t mode);

/* Makes the folder and its missing parents. */
int file_make_folder(const char *path, mode_t mode);

/* 1 if something is there, else 0. */
int file_exists(const char *path);

/*
 * Takes the lock of `path` for this process, making the file where it is missing; it ends with the process, however that
 * ends. Returns its descriptor, or ERROR_UNAVAILABLE when another process has it.
 */
int file_lock(const char *path);

/* printf into a path buffer; ERROR_LIMIT when it does not fit. */
int file_path(char *path, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define FILE_PATH_BYTES 4096

#endif
