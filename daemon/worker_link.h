/*
 * The daemon's end of the worker: starts `triaged worker`, hands it one job at a time, notices when it dies or makes
 * no progress, and starts it again with a growing delay. A job lost with its worker is answered with
 * ERROR_UNAVAILABLE, so whoever asked decides whether to ask again.
 */
#ifndef TRIAGE_DAEMON_WORKER_LINK_H
#define TRIAGE_DAEMON_WORKER_LINK_H

#include "daemon/config.h"

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Called once per job: code 0 with the worker's answer, or a negative code with error_message() set and NULL. */
typedef void worker_done(void *context, int code, const json_t *answer);

/* Ending: asked to, and gets no more jobs; it may still answer the one in hand. */
enum worker_state { WORKER_DOWN, WORKER_STARTING, WORKER_IDLE, WORKER_BUSY, WORKER_ENDING };

struct worker_link {
    const struct config *config;
    struct channel *channel;
    char endpoint[CONFIG_TEXT_BYTES];
    char *buffer;
    enum worker_state state;
    pid_t pid;
    uint64_t job; /* number of the job in hand or last given */
    char kind[16];
    worker_done *done;
    void *context;
    double progress;
    int64_t heard_ms;                      /* when the worker last said anything */
    bool killed;                           /* for having said nothing */
    int64_t start_at_ms;                   /* earliest next start while down */
    int failures;                          /* deaths in a row that nobody asked for */
    long restarts;                         /* deaths in all */
    char backend[32], precision[8];        /* of the last worker that was ready */
    char fallback[512];                    /* why not the one that is configured, "" = it is */
    uint64_t gpu_bytes, gpu_network_bytes; /* memory of the device and the network's part of it; 0 without one */
    char problem[512];                     /* why the last one could not start, "" = it could */
    char ended[64];                        /* how the last one came: "signal 9 during fit" */
};

/* Binds the channel; the worker itself is started by worker_link_step(). */
int worker_link_open(const struct config *config, struct worker_link *link);

/* Asks the worker to end, waits up to `limit_ms`, then kills it. */
void worker_link_close(struct worker_link *link, int limit_ms);

/* Has the worker end and start again with the configuration as it is now; a job in hand is lost and asked for again. */
void worker_link_restart(struct worker_link *link);

/* Gives a job: takes over `message`, fills in its number. ERROR_UNAVAILABLE unless the state is WORKER_IDLE. */
int worker_link_send(struct worker_link *link, const char *kind, json_t *message, worker_done *done, void *context);

int worker_link_descriptor(const struct worker_link *link);

/* Reads answers, reaps, restarts, enforces the job timeout. Call on every turn of the loop. */
void worker_link_step(struct worker_link *link);

const char *worker_state_name(enum worker_state state);

#endif
