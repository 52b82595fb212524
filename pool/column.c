/* See column.h. */
#include "pool/column.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES   4096
#define COLUMN_VERSION 3

#define REMAKE                                                                                                         \
    "stop the service and move pool and models of the state folder away, both are made again from the images and "     \
    "the votes (leave postgres, voter.key and keys where they are)"

static const char column_magic[8] = "TRIAGEC";

/* First the part that never changes, with its checksum; then what does. */
struct header {
    char magic[8];
    uint64_t version;
    struct column_layout layout;
    uint64_t checksum; /* of everything above */
    uint64_t stamp[2];
};
_Static_assert(sizeof(struct header) <= HEADER_BYTES, "the header is one page");

static uint64_t header_checksum(const struct header *header)
{
    return hash_64(header, offsetof(struct header, checksum));
}

static size_t bytes_for(const struct column *column, uint64_t rows)
{
    return HEADER_BYTES + (size_t)(rows * column->layout.row_bytes);
}

static struct header *header_of(const struct column *column)
{
    return (struct header *)(void *)column->map;
}

static int map_rows(struct column *column, uint64_t rows)
{
    int protection = PROT_READ | (column->access == COLUMN_READ ? 0 : PROT_WRITE);
    char *map = column->map
                    ? mremap(column->map, bytes_for(column, column->rows), bytes_for(column, rows), MREMAP_MAYMOVE)
                    : mmap(NULL, bytes_for(column, rows), protection, MAP_SHARED, column->descriptor, 0);
    if (map == MAP_FAILED)
        return error_set_errno("cannot map %s", column->path);
    column->map = map;
    column->rows = rows;
    return 0;
}

/* Rows the file holds; ERROR_INPUT if it is shorter than its header. */
static int rows_in_file(const struct column *column, uint64_t *ret_rows)
{
    struct stat info;
    if (fstat(column->descriptor, &info) < 0)
        return error_set_errno("cannot look at %s", column->path);
    if (info.st_size < HEADER_BYTES)
        return error_set(ERROR_INPUT,
                         "%s is damaged (%lld bytes, no whole header): delete the pool folder, it is made "
                         "again from the images and the database",
                         column->path, (long long)info.st_size);
    *ret_rows = ((uint64_t)info.st_size - HEADER_BYTES) / column->layout.row_bytes;
    return 0;
}

/* A file of a header alone, whole from the moment it is there. */
static int make_file(const struct column *column)
{
    char page[HEADER_BYTES] = {0};
    struct header header = {.version = COLUMN_VERSION, .layout = column->layout};
    memcpy(header.magic, column_magic, sizeof header.magic);
    header.checksum = header_checksum(&header);
    memcpy(page, &header, sizeof header);
    return file_write(column->path, &(struct file_part){page, sizeof page}, 1, 0644);
}

/* Names the first value that differs. */
static int check_layout(const struct column *column, const struct column_layout *have)
{
    const struct column_layout *want = &column->layout;
    if (strncmp(have->schema_hash, want->schema_hash, sizeof have->schema_hash) != 0)
        return error_set(ERROR_STATE,
                         "%s was made with schema %.40s, the configuration names schema %.40s: use a new "
                         "state folder for another schema",
                         column->path, have->schema_hash, want->schema_hash);
    for (int i = 0; i < COLUMN_PARAMETERS; i++)
        if (have->parameter[i] != want->parameter[i])
            return error_set(ERROR_STATE,
                             "%s was made with %s %llu, the configuration says %llu: set it as it was, or " REMAKE,
                             column->path, want->parameter_name[i], (unsigned long long)have->parameter[i],
                             (unsigned long long)want->parameter[i]);
    if (have->row_bytes != want->row_bytes)
        return error_set(ERROR_STATE, "%s was made with %llu bytes a row, this program expects %llu: " REMAKE,
                         column->path, (unsigned long long)have->row_bytes, (unsigned long long)want->row_bytes);
    return 0;
}

static int check_header(const struct column *column)
{
    const struct header *header = header_of(column);
    int ours = memcmp(header->magic, column_magic, sizeof header->magic) == 0;
    if (ours && header->version != COLUMN_VERSION)
        return error_set(ERROR_STATE, "%s has format %llu, this program knows %d: use the program that wrote it",
                         column->path, (unsigned long long)header->version, COLUMN_VERSION);
    if (!ours || header->checksum != header_checksum(header) ||
        strncmp(header->layout.kind, column->layout.kind, sizeof header->layout.kind) != 0)
        return error_set(ERROR_INPUT,
                         "%s has a damaged header: delete the pool folder, it is made again from the images "
                         "and the database",
                         column->path);
    return check_layout(column, &header->layout);
}

int column_open(const char *path, const struct column_layout *layout, enum column_access access,
                struct column *ret_column)
{
    struct column column = {.layout = *layout, .access = access};
    if (snprintf(column.path, sizeof column.path, "%s", path) >= (int)sizeof column.path)
        return error_set(ERROR_LIMIT, "the pool folder's path is too long: %.80s...", path);
    struct stat info;
    int result = 0;
    if (access == COLUMN_CREATE && (stat(path, &info) < 0 ? errno == ENOENT : info.st_size == 0))
        result = make_file(&column);
    if (result)
        return result;
    column.descriptor = open(path, (access == COLUMN_READ ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (column.descriptor < 0)
        return errno == ENOENT ? error_set(ERROR_NOT_FOUND, "%s: no such pool; start triaged run first", path)
                               : error_set_errno("cannot open %s", path);
    uint64_t rows = 0;
    result = rows_in_file(&column, &rows);
    if (!result)
        result = map_rows(&column, rows);
    if (!result)
        result = check_header(&column);
    if (result) {
        column_close(&column);
        return result;
    }
    *ret_column = column;
    return 0;
}

void column_close(struct column *column)
{
    if (column->map)
        munmap(column->map, bytes_for(column, column->rows));
    if (column->descriptor > 0)
        close(column->descriptor);
    *column = (struct column){0};
}

int column_grow(struct column *column, uint64_t rows)
{
    if (rows <= column->rows)
        return 0;
    assert(column->access == COLUMN_CREATE);
    if (rows > COLUMN_ROWS_MAX)
        return error_set(ERROR_LIMIT, "%llu galaxies, more than the limit of %llu: use a second instance",
                         (unsigned long long)rows, (unsigned long long)COLUMN_ROWS_MAX);
    uint64_t wanted = (rows + COLUMN_STEP_ROWS - 1) / COLUMN_STEP_ROWS * COLUMN_STEP_ROWS;
    off_t old_end = (off_t)bytes_for(column, column->rows), new_end = (off_t)bytes_for(column, wanted);
    int problem;
    do
        problem = posix_fallocate(column->descriptor, old_end, new_end - old_end);
    while (problem == EINTR);
    if (problem == EOPNOTSUPP || problem == EINVAL) /* a filesystem that cannot promise space: grow sparse */
        problem = ftruncate(column->descriptor, new_end) < 0 ? errno : 0;
    if (problem) {
        errno = problem;
        return error_set_errno("cannot grow %s to %llu galaxies (%lld MiB): free disk space", column->path,
                               (unsigned long long)wanted, (long long)(new_end >> 20));
    }
    return map_rows(column, wanted);
}

int column_refresh(struct column *column)
{
    uint64_t rows;
    int result = rows_in_file(column, &rows);
    return result || rows <= column->rows ? result : map_rows(column, rows);
}

void *column_row(const struct column *column, uint64_t row)
{
    assert(row < column->rows);
    return column->map + HEADER_BYTES + row * column->layout.row_bytes;
}

int column_flush(const struct column *column, uint64_t first, uint64_t count)
{
    assert(first + count <= column->rows);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), end = bytes_for(column, first + count);
    size_t start = bytes_for(column, first) / page * page;
    if (count && msync(column->map + start, end - start, MS_SYNC) < 0)
        return error_set_errno("cannot write %s to the disk", column->path);
    return 0;
}

void column_set_stamp(struct column *column, uint64_t first, uint64_t second)
{
    assert(column->access != COLUMN_READ);
    header_of(column)->stamp[0] = first;
    header_of(column)->stamp[1] = second;
}

void column_stamp(const struct column *column, uint64_t *first, uint64_t *second)
{
    *first = header_of(column)->stamp[0];
    *second = header_of(column)->stamp[1];
}
