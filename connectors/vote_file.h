/*
 * Files of votes, one classification at a time: the classification export of a Zooniverse project (columns
 * classification_id, metadata, annotations, subject_data, subject_ids, ...), and a plain CSV with one vote per row (columns
 * classification, question, answer, id_str; optional voter, marks, classified_at). Not for the database.
 *
 * From an export: the answer is a label or a position, mapped by a workflow; a task that appears twice counts with its last
 * answer, a skipped one is no vote; what is not known goes on under its own name, so that the quarantine shows it. Marks are
 * seen_before, gold_standard, retired (when it was selected) and not_live. The voter is u:NUMBER for a logged-in user, the
 * keyed hash of the session for others, NULL without either.
 */
#ifndef TRIAGE_CONNECTORS_VOTE_FILE_H
#define TRIAGE_CONNECTORS_VOTE_FILE_H

#include "connectors/voter_key.h"
#include "connectors/workflow.h"

#include <stdbool.h>
#include <stdint.h>

#define VOTE_FILE_RECORD_BYTES_MAX (1 << 20)
#define VOTE_FILE_TEXT_BYTES       256
#define VOTE_FILE_MARKS_MAX        8
#define VOTE_FILE_VOTES_MAX        128 /* of one record */

struct file_vote {
    char question[VOTE_FILE_TEXT_BYTES], answer[VOTE_FILE_TEXT_BYTES];
};

/* One record. Texts are valid until the next one. */
struct file_record {
    int64_t classification;
    char id_str[VOTE_FILE_TEXT_BYTES];
    char voter[VOTE_FILE_TEXT_BYTES];         /* "" = unknown */
    char marks[VOTE_FILE_TEXT_BYTES];         /* divided by commas, "" = none */
    char classified_at[VOTE_FILE_TEXT_BYTES]; /* ISO 8601 in UTC, "" = unknown */
    int votes;
    struct file_vote vote[VOTE_FILE_VOTES_MAX];
    bool passed_over; /* of another workflow */
    long line;
};

struct vote_file;

/*
 * Opens a file; which kind it is, its header tells. `workflow` and `key` are needed for an export, and outlive the file.
 * ERROR_INPUT names the columns that are missing.
 */
int vote_file_open(const char *path, const struct workflow *workflow, const struct voter_key *key,
                   struct vote_file **ret_file);
void vote_file_close(struct vote_file *file);

/*
 * 1 with a record, 0 at the end, or a negative code. With vote_file_broken() the file cannot be read on, and the message
 * names file:line; otherwise the record of this line makes no sense, the message says why, and the next call goes on behind it.
 */
int vote_file_next(struct vote_file *file, struct file_record *record);
bool vote_file_broken(const struct vote_file *file);

/* Position behind the last record, for vote_file_seek(), and how large the file is. */
void vote_file_position(const struct vote_file *file, int64_t *ret_offset, long *ret_line, int64_t *ret_bytes);
int vote_file_seek(struct vote_file *file, int64_t offset, long line);

#endif
