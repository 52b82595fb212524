/*
 * The control process: what it owns, shared by the files of this folder. It never computes and never blocks after
 * start; everything happens in the poll loop of run.c, one bounded step at a time.
 *
 *   sync.c    galaxies and tallies from the database into the pool, at start and after a lost connection
 *   embed.c   galaxies without an embedding -> worker
 *   ingest.c  votes -> tallies (exactly once), retirement
 *   train.c   the trunk: taught in slices between cycles, then every galaxy embedded again, then a model of it judged
 *   choice.c  what the worker's ranking says: new entries, review, retirement, expected gain
 *   cycle.c   fit -> rank -> record -> publish, a table of steps
 *   watch.c   what goes wrong around all this, kept as incidents
 *   feed.c    who follows the feed, and with which keys
 *   verbs.c   what triagectl can ask
 */
#ifndef TRIAGE_DAEMON_DAEMON_H
#define TRIAGE_DAEMON_DAEMON_H

#include "acquisition/stopping.h"
#include "base/arena.h"
#include "connectors/choices.h"
#include "connectors/cycles.h"
#include "connectors/database.h"
#include "connectors/private_postgres.h"
#include "connectors/publisher.h"
#include "daemon/config.h"
#include "daemon/control.h"
#include "daemon/http.h"
#include "daemon/incidents.h"
#include "daemon/openmetrics.h"
#include "daemon/queue.h"
#include "daemon/worker_link.h"
#include "model/schema.h"
#include "pool/pool.h"

#include <stdbool.h>

#define REVIEW_MAX         10000
#define CYCLE_MEMORY_BYTES ((size_t)256 << 20)
#define SYNC_PAGE          4096

struct sync {
    enum {
        SYNC_NEEDED,
        SYNC_PREPARE,
        SYNC_RETIREMENT,
        SYNC_BEGIN,
        SYNC_GALAXIES,
        SYNC_TALLIES,
        SYNC_CURSOR,
        SYNC_DONE
    } step;
    bool in_flight;
    int64_t sent_ms;
    uint64_t after_key; /* pages go by key */
    uint64_t
        version; /* of the cursor before the first page; with another one behind the last, pages do not fit together */
    bool again;  /* asked for while a page was under way */
};

struct embed {
    bool in_flight;     /* a page, a job or a note of bad images is out */
    char *unnoted;      /* bad images the database has not confirmed: [[key, "reason"], ...], or NULL */
    bool unfinished;    /* some were found without an embedding since all had one */
    long restarts_seen; /* of the worker: one that died may have left rows without saying so */
    uint64_t after_key; /* galaxies up to here are embedded or bad */
    uint64_t embedded, bad;
    double images, seconds; /* of all embedding jobs since the start: the rate in status */
    int64_t retry_at_ms;    /* after a failure */
};

struct ingest {
    bool in_flight;
    int64_t sent_ms;
    int64_t next_ms;                              /* next poll */
    bool more;                                    /* the last batch was full */
    uint64_t horizon;                             /* xid up to which votes are in the tallies */
    int64_t rebuilds;                             /* of the tallies in the pool */
    long applied, quarantined, repeated, ignored; /* in all */
    long waiting;                                 /* applied since the last cycle started */
    int64_t waiting_since_ms;
    double lag_s;      /* age of the oldest vote that is not applied */
    char held_by[256]; /* whose transaction it waits for, "" if nobody's */
    bool asking_lag;
    bool partitioning; /* a look at the partitions is under way */
    int64_t partitions_ms;
};

enum cycle_step { CYCLE_IDLE, CYCLE_FIT, CYCLE_PROMOTE, CYCLE_RANK, CYCLE_RECORD, CYCLE_PUBLISH, CYCLE_MARK };

struct cycle {
    enum cycle_step step;
    bool in_flight;
    uint64_t number;       /* of the cycle running, or of the last one */
    uint64_t horizon;      /* votes the ranking rests on */
    uint32_t model_number; /* highest model number ever given */
    uint32_t champion;
    long labels;       /* labelled galaxies at the last fit */
    bool rank_only;    /* skip training once: after a rollback */
    long unfitted;     /* votes that no fit has used yet; they stay until one succeeds */
    int fit_failures;  /* in a row */
    int64_t fit_at_ms; /* no fit before this, after failed ones */
    int failures;      /* steps failed in a row, for the delay */
    bool wanted;       /* asked for by the operator, a rollback or new galaxies */
    bool exhausted;    /* the last ranking found fewer galaxies than places */
    int64_t started_ms, retry_at_ms, ended_ms;
    double last_s;
    double scored_per_s; /* galaxies, in the last ranking; 0 = none yet */
    char reason[256];    /* of the last promotion decision */
    struct select_request request;
    struct review_row review[REVIEW_MAX]; /* of the last ranking, to be recorded */
    size_t review_count;
    char choice[256]; /* how the last one was made, in words */
};

#define MEASURED_MAX 16

/* Whether asking on is worth it: what batches were expected to bring, and what promoted models were measured at. */
struct progress {
    struct stopping stopping;
    struct gain gain;                           /* of the queue as it was last ranked */
    struct measured_row measured[MEASURED_MAX]; /* oldest first */
    size_t measured_count;
};

enum train_step { TRAIN_OFF, TRAIN_RUNNING, TRAIN_EMBEDDING, TRAIN_READY };

struct train {
    enum train_step step;
    bool in_flight, wanted; /* wanted: by the operator */
    bool stopped;           /* by the operator: the run stands still */
    uint32_t trunk;         /* the one being made; never the one in use */
    uint32_t last_trunk;    /* number of the last one made or tried: none is given twice */
    uint64_t after_key;     /* TRAIN_EMBEDDING: galaxies up to here have an embedding of it */
    long labels;            /* labelled galaxies when the trunk was last trained, or tried to be */
    int stalled;            /* models in a row that were not promoted */
    int64_t retry_at_ms;
    double share; /* of the run at hand */
    int epoch;
    double train_loss, validation_loss; /* NaN where unknown */
};

/* What watch.c saw the last time it looked. */
struct watch {
    long restarts, memory_failures, turned_away;
    bool database_seen; /* once */
    int64_t clock_ms;   /* wall clock less the clock that nobody sets */
    int64_t looked_ms;
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
    uint64_t feed_rejected; /* refused handshakes that were logged */
    bool feed_failed;       /* since the last tick */
    char feed_problem[256]; /* why the feed does not give what it should, "" if it does */
    struct control *control;
    struct queue queue;
    struct sync sync;
    struct embed embed;
    struct ingest ingest;
    struct cycle cycle;
    struct train train;
    struct progress progress;
    struct watch watch;
    struct incidents incidents;
    struct meters meters;
    struct http *http; /* NULL without metrics.port */
    uint64_t galaxies; /* rows of the pool that are galaxies */
    uint64_t retired, labelled;
    bool paused, ready, stopping;
    bool is_owner;  /* the state folder is locked for us */
    bool read_only; /* the database takes no writes: votes and cycles wait */
    int64_t started_ms, heartbeat_ms, feed_alive_ms, galaxies_poll_ms, postgres_checked_ms;
    char problem[256]; /* last thing that went wrong and has not been mended, "" if none */
};

/* Rows that a job found damaged are embedded again. */
void daemon_note_damage(struct daemon *daemon, const json_t *answer);

/* Each *_step does at most one bounded thing and returns at once. */
void sync_step(struct daemon *daemon);
void sync_restart(struct daemon *daemon);

void embed_step(struct daemon *daemon);
bool embed_finished(const struct daemon *daemon);

/* Looks at every galaxy again: some may have lost their embedding. */
void embed_again(struct daemon *daemon);

void ingest_step(struct daemon *daemon);

void cycle_step(struct daemon *daemon);
bool cycle_is_due(const struct daemon *daemon);

/* Which trunk the champion has, and what a run before left; at the start. */
int train_restore(struct daemon *daemon);
void train_step(struct daemon *daemon);
const char *train_step_name(enum train_step step);

/* After a fit: whether its model was promoted. One of a new trunk decides whether that trunk is used. */
void train_judged(struct daemon *daemon, bool promoted);

/*
 * What an operator asks for; ERROR_STATE where that makes no sense now, ERROR_SYSTEM if the disk refuses. Start: begins a run, or goes
 * on with one that was stopped. Stop: the run stands still, restarts included, and goes on from there. Discard: it is deleted.
 */
int train_start(struct daemon *daemon);
int train_stop(struct daemon *daemon);
int train_discard(struct daemon *daemon);
const char *cycle_step_name(enum cycle_step step);

/* Takes in the worker's answer to a ranking: fills the queue and ranks it. */
void choice_take(struct daemon *daemon, const json_t *answer);

/* Into the database, after the cycle was. */
void choice_record(struct daemon *daemon);

/* At start, from the database. */
int choice_restore(struct daemon *daemon, struct database *database);

/* A promoted model's measure. */
void choice_measured(struct daemon *daemon, const struct model_row *row);

/* Marks a galaxy that has all the votes it needs, and takes it off the queue. */
void daemon_retire(struct daemon *daemon, uint64_t key);

/* Takes a galaxy off the queue at once, on the feed and in the database; nothing happens if it is not queued. */
void daemon_retract(struct daemon *daemon, uint64_t key, const char *reason);

/* The same for every galaxy whose lease is over. */
void daemon_retract_expired(struct daemon *daemon);

/* Changes a flag of one galaxy in the pool. */
void daemon_set_flag(struct daemon *daemon, uint64_t key, int flag, bool on);

/* Key of the galaxy with this id, or 0. Reads the identity column; for single questions of an operator. */
uint64_t daemon_find_galaxy(const struct daemon *daemon, const char *id_str);

/* What is wrong now, one sentence each; [] when all is well. The caller's. */
json_t *daemon_problems(const struct daemon *daemon);

/* Pages of the monitoring port: an http_handler. */
int daemon_http(void *context, const char *path, struct text *body, const char **ret_type);

/* Opens the feed's publisher. Whatever is wrong with its keys or endpoints is a matter of configuration (ERROR_STATE). */
int feed_open(struct daemon *daemon);

/* Takes in what the publisher returned: a failure is logged once and is a problem until a heartbeat succeeds and nothing else failed
 * before it. */
void feed_note(struct daemon *daemon, int code);

/* Every second: heartbeat, and a line in the log if handshakes were refused. */
void feed_tick(struct daemon *daemon);

/* For `triagectl status`: position, counters and subscribers. */
json_t *feed_status(const struct daemon *daemon);

/* What is wrong with those who follow, appended one sentence each. */
void feed_problems(const struct daemon *daemon, json_t *problems);

/* The verb keys. */
void verb_keys(struct daemon *daemon, control_client client, const json_t *request);

/* Handles one request of triagectl. */
void verbs_handle(void *context, control_client client, const char *verb, const json_t *request);

/* Reads the configuration again and applies what can be. Returns 0 with a text for the asker, or a negative code. */
int daemon_reload(struct daemon *daemon, char *text, int size);

#endif
