/*
 * `triaged replay`: a pool simulation on a labelled catalogue. Each arm starts from the same random galaxies, learns, asks
 * about the next ones, gets their votes from the catalogue and learns again; what it then predicts of galaxies nobody may ask
 * about is its quality. Not for the running service.
 */
#ifndef TRIAGE_DAEMON_REPLAY_H
#define TRIAGE_DAEMON_REPLAY_H

#include "daemon/config.h"

struct replay_options {
    const char *catalogue, *test_catalogue, *weights, *out; /* test_catalogue and weights may be NULL */
    int json;
};

/* Goes on where an interrupted one with the same settings stopped. Returns the exit code. */
int run_replay(const struct config *config, const struct replay_options *options);

#endif
