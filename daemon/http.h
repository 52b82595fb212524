/*
 * An optional HTTP port on 127.0.0.1 for monitoring (metrics.port): GET /metrics (openmetrics.h), /livez (the loop turns) and
 * /readyz (200, or 503 with the reasons as JSON). Nothing can be changed through it. One bounded step at a time, never
 * blocking: at most HTTP_CLIENTS_MAX clients, HTTP_REQUEST_BYTES each, ten seconds each. Not for pages or for other hosts.
 */
#ifndef TRIAGE_DAEMON_HTTP_H
#define TRIAGE_DAEMON_HTTP_H

#include <poll.h>
#include <stddef.h>

#define HTTP_CLIENTS_MAX   8
#define HTTP_REQUEST_BYTES 4096
#define HTTP_POLL_MAX      (HTTP_CLIENTS_MAX + 1)

struct http;
struct text;

/* Writes the body of `path` and returns the status, 404 for an unknown path; *ret_type is the body's type. */
typedef int http_handler(void *context, const char *path, struct text *body, const char **ret_type);

/* Listens on 127.0.0.1:port. ERROR_UNAVAILABLE when the port is taken. */
int http_open(int port, http_handler *handler, void *context, struct http **ret_http);
void http_close(struct http *http); /* NULL is fine */

/* Adds its descriptors to a poll set of room for HTTP_POLL_MAX; returns how many. NULL is fine. */
int http_poll(const struct http *http, struct pollfd *set);

/* The path a request's head asks for, cut out of it in place: 200, or the status that refuses it (400, 405). */
int http_request_path(char *head, const char **ret_path);

/* Does whatever those descriptors are ready for. */
void http_step(struct http *http, const struct pollfd *set, int count);

#endif
