/* Answers of the daemon as text for people; --json prints them unchanged instead. */
#ifndef TRIAGE_DAEMON_CTL_RENDER_H
#define TRIAGE_DAEMON_CTL_RENDER_H

#include <jansson.h>
#include <stdio.h>

/* Prints the answer to this verb; a refusal goes to standard error. */
void render(const char *verb, const json_t *answer, FILE *out);

#endif
