/* `triaged finetune`: teaches the network on a catalogue with labels, in a folder that a stopped run goes on from. */
#ifndef TRIAGE_DAEMON_FINETUNE_H
#define TRIAGE_DAEMON_FINETUNE_H

#include "daemon/config.h"

struct finetune_options {
    const char *catalogue, *test_catalogue, *labels, *task, *weights, *head, *out;
    int json;
};

/* Returns the exit code. */
int run_finetune(const struct config *config, const struct finetune_options *options);

#endif
