/*
 * A file of votes into the database, a part at a time: each part's votes, the rows that made no sense, and the position
 * behind them are one transaction, so an import that was stopped or killed goes on where it was, and doing it again
 * changes nothing. The daemon may run beside it.
 */
#ifndef TRIAGE_CONNECTORS_VOTE_IMPORT_H
#define TRIAGE_CONNECTORS_VOTE_IMPORT_H

#include "connectors/database.h"
#include "connectors/vote_file.h"

#define VOTE_IMPORT_REJECTED_MAX 1000 /* rows without sense, if they are one in twenty: it is the wrong file */

struct vote_import_progress {
    int64_t offset, bytes; /* of the file */
    int64_t rows, votes;   /* read so far, by earlier runs too */
    int64_t added;         /* votes that were not known */
    int64_t rejected;      /* rows that made no sense; triage.rejected_row has them */
    int64_t passed_over;   /* rows of other workflows, by this run */
    bool resumed, finished_before;
};

/* Called after every part; a negative code stops the import there. */
typedef int vote_import_told(void *context, const struct vote_import_progress *progress);

/*
 * Imports up to the end of the file, `part_rows` rows per transaction (1 .. 100,000). A file is known by its name, size and
 * first 64 KiB. ERROR_INPUT for a file that cannot be read on or has too many senseless rows; what came before stays.
 */
int vote_import(struct database *database, const char *path, const struct workflow *workflow,
                const struct voter_key *key, int part_rows, vote_import_told *told, void *context,
                struct vote_import_progress *ret_progress);

#endif
