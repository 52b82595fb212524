/*
 * One column of the pool: a file of fixed-size rows behind a header page, mapped into memory and shared by
 * the processes that open it. Not for meaning: what a row holds is pool.h's business.
 */
#ifndef TRIAGE_POOL_COLUMN_H
#define TRIAGE_POOL_COLUMN_H

#include <stddef.h>
#include <stdint.h>

#define COLUMN_STEP_ROWS  1024 /* files grow by so many rows at a time: 88 MiB of grey pixels at 300 x 300 */
#define COLUMN_ROWS_MAX   (UINT64_C(1) << 31)
#define COLUMN_PARAMETERS 8

enum column_access {
    COLUMN_READ,
    COLUMN_WRITE,
    COLUMN_CREATE, /* writes, makes the file, and alone may grow it */
};

/* What must be the same for the rows to mean the same; a mismatch is refused with both values. */
struct column_layout {
    char kind[32];
    char schema_hash[40];
    uint64_t row_bytes;
    char parameter_name[COLUMN_PARAMETERS][24]; /* "side"; not compared, for messages */
    uint64_t parameter[COLUMN_PARAMETERS];
};

struct column {
    char path[512];
    struct column_layout layout;
    enum column_access access;
    int descriptor;
    char *map; /* the header page, then the rows */
    uint64_t rows;
};

/*
 * Opens the file, making it first for COLUMN_CREATE. ERROR_STATE naming both values on another layout,
 * ERROR_INPUT on a damaged header or another kind of column, ERROR_NOT_FOUND when there is no file,
 * ERROR_SYSTEM otherwise.
 */
int column_open(const char *path, const struct column_layout *layout, enum column_access access,
                struct column *ret_column);
void column_close(struct column *column);

/*
 * Makes room for `rows`; new rows are zero, and the map may move: no pointer into the column survives. The
 * space is taken from the disk now, so a full disk is an error here and not a crash (SIGBUS) at some later
 * store; the column then stays as it was. ERROR_LIMIT above COLUMN_ROWS_MAX.
 */
int column_grow(struct column *column, uint64_t rows);

/* Maps what another process has added; the map may move. */
int column_refresh(struct column *column);

/* Row `row`; asking for a row that does not exist is a bug. */
void *column_row(const struct column *column, uint64_t row);

/* Waits until these rows are on the disk, for what must be there before something that depends on it. */
int column_flush(const struct column *column, uint64_t first, uint64_t count);

/* Two numbers of the user's in the header, e.g. the vote cursor the rows were made at. */
void column_set_stamp(struct column *column, uint64_t first, uint64_t second);
void column_stamp(const struct column *column, uint64_t *first, uint64_t *second);

#endif
