/*
 * A decision tree as data: questions, answers, and which answer leads to a question.
 *
 * Answers are numbered 0..answers-1 in file order; those of one question are contiguous. Outside the model an
 * answer is always known by name: its column is "<question>_<answer>", as in Zoobot's catalogues.
 *
 * A question has two relations to answers of other questions:
 *   parent       Zoobot's depends_on: the one answer, of an earlier question, whose probability gates the
 *                question in the model's arithmetic (-1 for a root). Zoobot's quirks are kept, so that
 *                numbers compare.
 *   asked_after  the answers after any of which volunteers really saw the question (empty = asked at the
 *                start), of any other question, without cycles. Used by the simulator and for walking valid
 *                trees.
 *
 * File format (etc/schemas/NAME.ini):
 *   [schema]
 *   name = gz2
 *   description = Galaxy Zoo 2
 *   [question smooth-or-featured]
 *   answers = smooth, featured-or-disk, artifact
 *   [question disk-edge-on]
 *   answers = yes, no
 *   depends_on = smooth-or-featured_featured-or-disk
 *   asked_after = smooth-or-featured_featured-or-disk      (optional list; defaults to depends_on)
 * Names consist of letters, digits, '.', '-' and '_'. An empty asked_after means asked at the start.
 */
#ifndef TRIAGE_MODEL_SCHEMA_H
#define TRIAGE_MODEL_SCHEMA_H

#include "base/hash.h"

#include <stdint.h>

#define SCHEMA_QUESTIONS_MAX   128
#define SCHEMA_ANSWERS_MAX     512
#define SCHEMA_PER_QUESTION    16 /* answers of one question at most */
#define SCHEMA_ASKED_AFTER_MAX 8
#define SCHEMA_NAME_BYTES      64

struct question {
    char name[SCHEMA_NAME_BYTES];
    int first, count; /* its answers are first .. first + count - 1 */
    int parent;       /* answer index, or -1 */
    int asked_after[SCHEMA_ASKED_AFTER_MAX];
    int asked_after_count;
};

struct answer {
    char name[SCHEMA_NAME_BYTES];
    char column[2 * SCHEMA_NAME_BYTES]; /* question_answer */
    int question;
};

struct schema {
    char name[SCHEMA_NAME_BYTES];
    char description[256];
    int questions, answers;
    struct question question[SCHEMA_QUESTIONS_MAX];
    struct answer answer[SCHEMA_ANSWERS_MAX];
    char hash[HASH_TEXT_BYTES]; /* of names, order and relations; goes into models, pool and feed */
};

/*
 * Loads and validates: ERROR_INPUT or ERROR_LIMIT with file and line, ERROR_NOT_FOUND without a file; on any
 * error `ret_schema` is untouched.
 */
int schema_load(const char *path, struct schema *ret_schema);

/* Index of the answer, or -1 if the question or the answer is unknown. */
int schema_find_answer(const struct schema *schema, const char *question, const char *answer);

/* Index of the answer with this column name, or -1. */
int schema_find_column(const struct schema *schema, const char *column);

/*
 * Probability that each question is asked: the product of the parent answers' probabilities up to the root.
 *   fraction  [answers] expected vote fraction of each answer, given that its question is asked
 *   reached   [questions] OUTPUT, 1 for roots
 */
void schema_reached(const struct schema *schema, const float *fraction, float *reached);

#endif
