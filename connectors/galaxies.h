/* The galaxies in the database: import of a catalogue, pages for the pool, marks by operators, bad images. */
#ifndef TRIAGE_CONNECTORS_GALAXIES_H
#define TRIAGE_CONNECTORS_GALAXIES_H

#include "base/arena.h"
#include "connectors/database.h"
#include "model/schema.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Ties the database to the schema at the first call, and compares at every later one.
 * ERROR_STATE with both hashes when the database serves another decision tree.
 */
int galaxies_register(struct database *database, const struct schema *schema);

/* One galaxy to import. Pointers are valid until the next one is asked for. */
struct galaxy_row {
    const char *id_str, *file_loc; /* an absolute path */
    double ra, dec;                /* NaN where unknown */
    const uint32_t *votes;         /* [answers] counts of the catalogue, or NULL */
};

/* 1 and a row, 0 at the end, or a negative code that undoes the import. */
typedef int galaxies_next(void *context, struct galaxy_row *row);

struct import_report {
    int64_t rows, added, known; /* known: had the same id and file already */
    double split_fraction;
};

/*
 * All or nothing, in one transaction: COPY into a staging table, then new ids get the next keys in the order given. An id
 * that is known with another file is refused by name. Votes that came before their galaxy arrive again. `expected_rows` decides the split at the first import.
 */
int galaxies_import(struct database *database, const struct schema *schema, int64_t expected_rows, galaxies_next *next,
                    void *context, struct import_report *ret_report);

/* Columns key, id_str, file_loc, split, excluded, pinned, bad, retired, root_votes, ra, dec; keys above `after_key`, in order. */
int galaxies_send_page(struct database *database, uint64_t after_key, int limit, database_done *done, void *context);

/* Columns galaxy, answer_index, votes for keys in (after_key, last_key]. */
int galaxies_send_tallies(struct database *database, uint64_t after_key, uint64_t last_key, database_done *done,
                          void *context);

/* Retires galaxies with so many classifications, and brings back those that were retired by a lower limit. One value: how many. */
int galaxies_send_settle_retirement(struct database *database, int retire_votes, database_done *done, void *context);

/* One value: the highest key, 0 when empty. */
int galaxies_send_highest_key(struct database *database, database_done *done, void *context);

/* Notes images that cannot be read: JSON [[key, "reason"], ...], as many as one embedding job has. */
int galaxies_send_bad(struct database *database, const char *json, database_done *done, void *context);

/* Columns id_str, file_loc, bad_reason. */
int galaxies_send_bad_list(struct database *database, int limit, database_done *done, void *context);

/* Clears every bad mark, so that the images are tried again. */
int galaxies_send_retry_bad(struct database *database, database_done *done, void *context);

/* These galaxies are done before they have all their votes: those would teach too little. */
int galaxies_send_retired(struct database *database, const uint64_t *keys, size_t count, struct arena *memory);

/* Sets one flag; `column` is "pinned" or "excluded". */
int galaxies_send_mark(struct database *database, uint64_t key, const char *column, bool on, database_done *done,
                       void *context);

#endif
