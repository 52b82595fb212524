/*
 * Catalogue files in Zoobot's contract: CSV with `id_str` and `file_loc`, optionally `ra` and `dec` (degrees,
 * ICRS) and vote counts in columns named question_answer (whole numbers, "38.0" too; an empty field is 0).
 * Other columns are passed over, and named in the summary. RFC 4180 quoting, LF or CRLF, UTF-8 with or
 * without a byte order mark. It is read as a stream: memory does not grow with the file, except for 16 bytes
 * per galaxy in catalogue_check(). Not for storing galaxies or finding their images.
 */
#ifndef TRIAGE_CONNECTORS_CATALOGUE_H
#define TRIAGE_CONNECTORS_CATALOGUE_H

#include "model/schema.h"

#include <stdint.h>

#define CATALOGUE_LINE_BYTES_MAX 65536 /* of one record */
#define CATALOGUE_VOTES_MAX      65535 /* on one question of one galaxy */
#define CATALOGUE_ROWS_MAX       50000000
#define CATALOGUE_IGNORED_BYTES  512
#define CATALOGUE_ID_BYTES_MAX   63
#define CATALOGUE_FILE_BYTES_MAX 1023

struct catalogue;

struct catalogue_row {
    const char *id_str;    /* 1 .. 63 bytes; this and the pointers below are valid until the next row */
    const char *file_loc;  /* 1 .. 1,023 bytes, as written in the file: image_resolve() makes a path of it */
    double ra, dec;        /* degrees; both NaN where absent */
    const uint32_t *votes; /* [answers], 0 where the file has no such column */
    long line;
};

struct catalogue_summary {
    long rows;
    int vote_columns;                      /* columns of the schema found */
    int ignored_columns;                   /* columns of no meaning here */
    int has_positions;                     /* some row has ra and dec */
    char ignored[CATALOGUE_IGNORED_BYTES]; /* names of the ignored ones, "a, b", cut off where it is full */
};

/*
 * Opens the file and reads the header; `schema` must outlive the catalogue. ERROR_NOT_FOUND without a file,
 * ERROR_INPUT naming the missing or repeated column, ERROR_LIMIT above 1,024 columns.
 */
int catalogue_open(const char *path, const struct schema *schema, struct catalogue **ret_catalogue);
void catalogue_close(struct catalogue *catalogue); /* NULL is fine */

/* 1 and a row, 0 at the end, or a negative code with "file:line: what is wrong". */
int catalogue_next(struct catalogue *catalogue, struct catalogue_row *row);

/*
 * Text of any column in the row catalogue_next() gave last, NULL when there is no such column; valid until the next row.
 * For labels of the user's own ("consensus_class").
 */
const char *catalogue_text(const struct catalogue *catalogue, const char *column);

/* Columns of the schema that the file has; without any, nothing is known of its votes. */
int catalogue_vote_columns(const struct catalogue *catalogue);

/*
 * Reads the whole file and refuses it for the first bad row or repeated id (naming both lines), or without
 * any row, so that nothing is imported by halves.
 */
int catalogue_check(const char *path, const struct schema *schema, struct catalogue_summary *ret_summary);

#endif
