/*
 * The control process: what it owns, shared by the files of this folder. It never computes and never blocks after
 * start; everything happens in the poll loop of run.c, one bounded step at a time.
 *
 *   sync.c    galaxies and tallies from the database into the pool, at start and after a lost connection
 *   embed.c   galaxies without an embedding -> worker
 *   ingest.c  votes -> tallies (exactly once), retirement
 *   train.c   the trunk: taught in slices between cycles, then every galaxy embedded again, then a model of it judged
 *   cycle.c   fit -> rank -> record -> publish, a table of steps
 *   verbs.c   what triagectl can ask
 */
#ifndef TRIAGE_DAEMON_DAEMON_H
#define TRIAGE_DAEMON_DAEMON_H

#include "base/arena.h"
#include "connectors/database.h"
#include "connectors/private_postgres.h"
#include "connectors/publisher.h"
#include "daemon/config.h"
#include "daemon/control.h"
#include "daemon/queue.h"
#include "daemon/worker_link.h"
#include "model/schema.h"
#include "pool/pool.h"

#include <stdbool.h>

#define CYCLE_MEMORY_BYTES ((size_t)256 << 20)
#define SYNC_PAGE          4096

struct sync {
    enum { SYNC_NEEDED, SYNC_GALAXIES, SYNC_TALLIES, SYNC_CURSOR, SYNC_DONE } step;
    bool in_flight;
    uint64_t after_key; /* pages go by key */
    bool whole;         /* everything again, not only new galaxies */
};

struct embed {
    bool in_flight;     /* a page or a job is out */
    uint64_t after_key; /* galaxies up to here are embedded or bad */
    uint64_t embedded, bad;
    double images, seconds; /* of all embedding jobs since the start: the rate in status */
    int64_t retry_at_ms;    /* after a failure */
};

struct ingest {
    bool in_flight;
    int64_t next_ms;                     /* next poll */
    bool more;                           /* the last batch was full */
    uint64_t horizon;                    /* xid up to which votes are in the tallies */
    long applied, quarantined, repeated; /* in all */
    long waiting;                        /* applied since the last cycle started */
    int64_t waiting_since_ms;
};

enum cycle_step { CYCLE_IDLE, CYCLE_FIT, CYCLE_PROMOTE, CYCLE_RANK, CYCLE_RECORD, CYCLE_PUBLISH, CYCLE_MARK };

struct cycle {
    enum cycle_step step;
    bool in_flight;
    uint64_t number;       /* of the cycle running, or of the last one */
    uint64_t horizon;      /* votes the ranking rests on */
    uint32_t model_number; /* highest model number ever given */
    uint32_t champion;
    long labels;     /* labelled galaxies at the last fit */
    bool rank_only;  /* skip training once: after a rollback */
    bool fit_failed; /* in this cycle */
    int failures;    /* steps failed in a row, for the delay */
    bool wanted;     /* asked for by the operator, a rollback or new galaxies */
    bool exhausted;  /* the last ranking found fewer galaxies than places */
    int64_t started_ms, retry_at_ms, ended_ms;
    double last_s;
    double scored_per_s; /* galaxies, in the last ranking; 0 = none yet */
    char reason[256];    /* of the last promotion decision */
    struct select_request request;
};

enum train_step { TRAIN_OFF, TRAIN_RUNNING, TRAIN_EMBEDDING, TRAIN_READY };

struct train {
    enum train_step step;
    bool in_flight, wanted; /* wanted: by the operator */
    uint32_t trunk;         /* the one being made; never the one in use */
    uint64_t after_key;     /* TRAIN_EMBEDDING: galaxies up to here have an embedding of it */
    long labels;            /* labelled galaxies when the trunk was last trained, or tried to be */
    int stalled;            /* models in a row that were not promoted */
    int64_t retry_at_ms;
    double share; /* of the run at hand */
    int epoch;
    double train_loss, validation_loss; /* NaN where unknown */
};

struct daemon {
    struct config config;
    struct schema schema;
    struct pool pool;
    struct arena memory; /* the cycle's */
    bool owns_postgres;
    struct private_postgres postgres;
    char database_url[1024];
    struct database *database;
    struct worker_link worker;
    const struct publisher *publisher;
    struct publisher_state *feed;
    struct control *control;
    struct queue queue;
    struct sync sync;
    struct embed embed;
    struct ingest ingest;
    struct cycle cycle;
    struct train train;
    uint64_t galaxies; /* rows of the pool that are galaxies */
    uint64_t retired, labelled;
    bool paused, ready, stopping;
    int64_t started_ms, heartbeat_ms, galaxies_poll_ms, postgres_checked_ms;
    char problem[256]; /* last thing that went wrong and has not been mended, "" if none */
};

/* Each *_step does at most one bounded thing and returns at once. */
void sync_step(struct daemon *daemon);
void sync_restart(struct daemon *daemon, bool whole);

void embed_step(struct daemon *daemon);
bool embed_finished(const struct daemon *daemon);

void ingest_step(struct daemon *daemon);

void cycle_step(struct daemon *daemon);
bool cycle_is_due(const struct daemon *daemon);

/* Which trunk the champion has, and what a run before left; at the start. */
int train_restore(struct daemon *daemon);
void train_step(struct daemon *daemon);
const char *train_step_name(enum train_step step);

/* After a fit: whether its model was promoted. One of a new trunk decides whether that trunk is used. */
void train_judged(struct daemon *daemon, bool promoted);

/* Gives up the run at hand; what it has learnt is deleted. */
void train_stop(struct daemon *daemon);
const char *cycle_step_name(enum cycle_step step);

/* Takes a galaxy off the queue at once, on the feed and in the database; nothing happens if it is not queued. */
void daemon_retract(struct daemon *daemon, uint64_t key, const char *reason);

/* Changes a flag of one galaxy in the pool. */
void daemon_set_flag(struct daemon *daemon, uint64_t key, int flag, bool on);

/* Key of the galaxy with this id, or 0. Reads the identity column; for single questions of an operator. */
uint64_t daemon_find_galaxy(const struct daemon *daemon, const char *id_str);

/* Handles one request of triagectl. */
void verbs_handle(void *context, control_client client, const char *verb, const json_t *request);

/* Reads the configuration again and applies what can be. Returns 0 with a text for the asker, or a negative code. */
int daemon_reload(struct daemon *daemon, char *text, int size);

/* A statement whose outcome nobody waits for: logged if it fails. */
void daemon_send_and_forget(struct daemon *daemon, const char *sql, int count, const char *const *values);

#endif
