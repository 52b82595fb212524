/* What the files of verbs share: verbs.c (the table, status, steering, lists), verbs_ranking.c, verbs_diff.c. */
#ifndef TRIAGE_DAEMON_VERBS_H
#define TRIAGE_DAEMON_VERBS_H

#include "daemon/daemon.h"

#include <jansson.h>

#define VERBS_LIST_MAX 1000

/* The answer to a client, made of the database's rows. */
typedef json_t *verb_answer(struct daemon *daemon, const struct database_result *result);

/* A request that the database is asked for: what verbs_rows() takes as its context. NULL when the client was refused for want of memory. */
struct waiting *verbs_wait(struct daemon *daemon, control_client client, verb_answer *answer);

/* The database's reply: answers and frees `context`. */
void verbs_rows(void *context, int code, const struct database_result *result);

/* After the question went out, or (`code`) did not. */
void verbs_sent(struct waiting *waiting, int code);

/* Refuses with error_message(). */
void verbs_refuse(struct daemon *daemon, control_client client);

/* Key of the galaxy that `request` names, or 0 after refusing. */
uint64_t verbs_galaxy(struct daemon *daemon, control_client client, const json_t *request);

void verb_queue(struct daemon *daemon, control_client client, const json_t *request);
void verb_why(struct daemon *daemon, control_client client, const json_t *request);
void verb_review(struct daemon *daemon, control_client client, const json_t *request);
void verb_diff(struct daemon *daemon, control_client client, const json_t *request);

/* Whether asking on is worth it, for status. */
json_t *verbs_progress(const struct daemon *daemon);

#endif
