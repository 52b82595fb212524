/*
 * Catalogue files in Zoobot's contract: CSV with `id_str` and `file_loc`, optionally `ra` and `dec` (degrees, ICRS) and
 * vote counts in columns named question_answer. Other columns are passed over. RFC 4180 quoting.
 */
#ifndef TRIAGE_CONNECTORS_CATALOGUE_H
#define TRIAGE_CONNECTORS_CATALOGUE_H

#include "model/schema.h"

#include <stdint.h>

#define CATALOGUE_LINE_BYTES_MAX 65536
#define CATALOGUE_ID_BYTES_MAX   63
#define CATALOGUE_FILE_BYTES_MAX 1023

struct catalogue;

struct catalogue_row {
    const char *id_str, *file_loc; /* valid until the next row */
    double ra, dec;                /* NaN where absent */
    const uint32_t *votes;         /* [answers], 0 where the file has no such column */
    long line;
};

struct catalogue_summary {
    long rows;
    int vote_columns;    /* columns of the schema found */
    int ignored_columns; /* columns of no meaning here */
};

/* Opens the file and reads the header. ERROR_INPUT naming the missing or repeated column. */
int catalogue_open(const char *path, const struct schema *schema, struct catalogue **ret_catalogue);
void catalogue_close(struct catalogue *catalogue); /* NULL is fine */

/* 1 and a row, 0 at the end, or a negative code with "file:line: what is wrong". */
int catalogue_next(struct catalogue *catalogue, struct catalogue_row *row);

int catalogue_vote_columns(const struct catalogue *catalogue);

/* Reads the whole file and refuses it for any bad row or repeated id, so that nothing is imported by halves. */
int catalogue_check(const char *path, const struct schema *schema, struct catalogue_summary *ret_summary);

#endif
