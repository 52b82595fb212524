/*
 * triagectl keys: makes a subscriber's key pair here, so that its secret never leaves this process but for the file, and
 * has the daemon take the public part into its list.
 */
#ifndef TRIAGE_DAEMON_CTL_KEYS_H
#define TRIAGE_DAEMON_CTL_KEYS_H

#include <jansson.h>

/* The arguments behind `keys` into the request; for `new` the pair is made. 0 or an exit code, with the reason printed. */
int keys_parse(json_t *request, int *json, int count, char **words);

/* With the daemon's answer to `new`: writes the key file. 0 or an exit code, with the reason printed. */
int keys_finish(const json_t *answer);

#endif
