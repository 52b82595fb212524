/*
 * The two Unix sockets triagectl talks to: accepts clients, reads one-line requests, writes one-line answers, all
 * without blocking. What the verbs do is in verbs.c.
 */
#ifndef TRIAGE_DAEMON_CONTROL_H
#define TRIAGE_DAEMON_CONTROL_H

#include <jansson.h>
#include <poll.h>
#include <stdint.h>

#define CONTROL_CLIENTS_MAX 32
#define CONTROL_POLL_MAX    (CONTROL_CLIENTS_MAX + 2)

struct control;

/* Names a client while its answer is being prepared; a client that has gone away simply never gets it. */
typedef uint64_t control_client;

/* Called for each request, with the verb already checked against the table and the socket's rights. */
typedef void control_request(void *context, control_client client, const char *verb, const json_t *request);

/* Binds both sockets in `folder`. ERROR_UNAVAILABLE when another daemon answers there. */
int control_open(const char *folder, control_request *handler, void *context, struct control **ret_control);
void control_close(struct control *control); /* removes the sockets; NULL is fine */

/* Adds its descriptors to a poll set of room for CONTROL_POLL_MAX; returns how many. */
int control_poll(const struct control *control, struct pollfd *set);

/* Does whatever those descriptors are ready for. */
void control_step(struct control *control, const struct pollfd *set, int count);

/* Sends the answer; takes over the reference. */
void control_answer(struct control *control, control_client client, json_t *answer);

/* Shorthands: {"ok": true, "message": ...} and {"ok": false, "exit": ..., "message": ...}. */
void control_done(struct control *control, control_client client, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void control_refuse(struct control *control, control_client client, int exit_code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
