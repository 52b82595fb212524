/*
 * How a platform's workflow names what a decision tree calls otherwise: task keys -> questions, positions and labels ->
 * answers. An INI file (etc/workflows):
 *
 *   [workflow]
 *   ids = 6122                      rows of other workflows are passed over; empty = any
 *   galaxy = iauname, !filename     keys of the subject's metadata that may hold id_str, the first one wins; else the
 *                                   subject's own number
 *   ignored = T10                   tasks that are no question of the tree
 *
 *   [T0]
 *   question = smooth-or-featured
 *   smooth = Smooth                 answer = its labels, divided by '|', in the order of their positions (0, 1, ...)
 *   artifact = Star or Artifact | Star or Artefact
 *
 * Labels are compared without case, images and links of Markdown, and repeated spaces. Not for reading classifications:
 * that is vote_file.h.
 */
#ifndef TRIAGE_CONNECTORS_WORKFLOW_H
#define TRIAGE_CONNECTORS_WORKFLOW_H

#include "model/schema.h"

#include <stdbool.h>
#include <stddef.h>

#define WORKFLOW_TASKS_MAX   64
#define WORKFLOW_ANSWERS_MAX 64 /* of one task */
#define WORKFLOW_LABEL_BYTES 512

struct workflow_task {
    char key[32];
    int question;                                           /* of the schema; -1 until its line was read */
    int answers;                                            /* positions known */
    int answer[WORKFLOW_ANSWERS_MAX];                       /* of the schema, by position */
    char label[WORKFLOW_ANSWERS_MAX][WORKFLOW_LABEL_BYTES]; /* plain, divided by '|' */
};

struct workflow {
    const struct schema *schema;
    char ids[256], galaxy[512], ignored[256]; /* lists divided by commas */
    int tasks;
    struct workflow_task task[WORKFLOW_TASKS_MAX];
};

/* Reads and checks the file against the schema; messages name file:line. The schema must outlive the workflow. */
int workflow_load(const char *path, const struct schema *schema, struct workflow *ret_workflow);

const struct workflow_task *workflow_task(const struct workflow *workflow, const char *key); /* NULL = unknown */

/* Whether `word` is in the list. */
bool workflow_lists(const char *list, const char *word);

/* The schema's answer for a position or a label, or -1. */
int workflow_answer_at(const struct workflow_task *task, long position);
int workflow_answer_for(const struct workflow *workflow, const struct workflow_task *task, const char *label);

/* The label without Markdown's images and links, case and repeated spaces; cut at `size`. */
void workflow_plain_label(const char *label, char *plain, size_t size);

#endif
