/*
 * Records of a CSV file (RFC 4180): quoted fields with doubled quotes and newlines, CRLF, a UTF-8 byte order mark. One
 * record at a time, so a file may be larger than memory; and fields of records that are written. Not for what the columns mean.
 */
#ifndef TRIAGE_CONNECTORS_CSV_H
#define TRIAGE_CONNECTORS_CSV_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CSV_COLUMNS_MAX 1024

struct csv {
    FILE *file;
    char path[512];
    char *text; /* of the record at hand, cut into fields in place */
    size_t limit;
    char *field[CSV_COLUMNS_MAX];
    int fields;
    long line, next_line; /* where the record at hand starts, and the next one */
    int64_t offset;       /* bytes of the file up to the end of the record at hand */
    int64_t bytes;        /* of the file */
};

/*
 * Opens a regular file; records may hold `record_bytes_max` bytes. ERROR_NOT_FOUND, ERROR_INPUT (a folder or pipe: a check
 * reads files again) or ERROR_SYSTEM. `what` names it in messages ("catalogue"). Close also after an error.
 */
int csv_open(const char *path, const char *what, size_t record_bytes_max, struct csv *ret_csv);
void csv_close(struct csv *csv);

/* 1 with the next record in `field`, 0 at the end, or a negative code with file:line in the message. */
int csv_next(struct csv *csv);

/* Goes on behind `offset`, which was the end of a record, on line `line`. */
int csv_seek(struct csv *csv, int64_t offset, long line);

/* Appends a field to a record that is being written, in quotes where it needs them. */
struct text;
void csv_append_field(struct text *record, const char *field);

/* Puts "file:line: " of the record at hand in front of the message. */
int csv_complain(const struct csv *csv, int code);

#endif
