/*
 * One line per event on standard error: level, kind of event, words. As text with a time stamp, or with the syslog priority in
 * front that systemd understands when it reads our output; or as JSON, one object per line (log.format):
 *   {"time": "2026-01-31T12:00:00.000Z", "level": "info", "who": "triaged", "pid": 1, "event": "cycle-done", "message": "..."}
 * Kinds are stable, words are not. Only daemon/ logs.
 */
#ifndef TRIAGE_DAEMON_LOG_H
#define TRIAGE_DAEMON_LOG_H

/* Every kind of event, its name and what it means; triaged(8) lists them. */
#define LOG_EVENTS(X)                                                                                                  \
    X(ANSWER_LOST, "answer-lost", "a worker's answer did not reach the daemon")                                        \
    X(CHAMPION_DAMAGED, "champion-damaged", "the champion's file could not be used")                                   \
    X(CHOICE_REFUSED, "choice-refused", "the worker chose what cannot be offered")                                     \
    X(CLOCK_SET, "clock-set", "the wall clock was set")                                                                \
    X(CYCLE_DONE, "cycle-done", "a ranking is on the feed")                                                            \
    X(DATABASE_AWAY, "database-away", "no database yet, at the start")                                                 \
    X(DATABASE_NOT_STOPPED, "database-not-stopped", "the private database did not stop")                               \
    X(DATABASE_RESTARTED, "database-restarted", "the private database had ended")                                      \
    X(DATABASE_WRITES, "database-writes", "the database stopped or began to take writes")                              \
    X(DEVICE, "device", "the GPU, and the memory that jobs take of it")                                                \
    X(DEVICE_LOST, "device-lost", "the GPU cannot be used any more; the worker ends")                                  \
    X(EMBEDDED, "embedded", "every galaxy has an embedding")                                                           \
    X(EMBEDDING_FAILED, "embedding-failed", "embedding is tried again")                                                \
    X(FALLBACK, "fallback", "the CPU computes although a GPU is configured")                                           \
    X(FEED_FAILED, "feed-failed", "the feed does not reach its subscribers")                                           \
    X(FEED_RESTORED, "feed-restored", "the feed reaches its subscribers again")                                        \
    X(FIT_FAILED, "fit-failed", "a fit ended in an error")                                                             \
    X(FIT_IMPOSSIBLE, "fit-impossible", "nothing to fit on yet")                                                       \
    X(FIT_SAMPLED, "fit-sampled", "more labels than a fit takes")                                                      \
    X(HANDSHAKE_REFUSED, "handshake-refused", "a stranger was refused at the feed")                                    \
    X(KEY_ADDED, "key-added", "a key of the feed was made")                                                            \
    X(KEY_REVOKED, "key-revoked", "a key of the feed was revoked")                                                     \
    X(MODEL_JUDGED, "model-judged", "a fit's model, and whether it was promoted")                                      \
    X(MODEL_NOT_RECORDED, "model-not-recorded", "a model is missing in the database")                                  \
    X(MODELS_NOT_DELETED, "models-not-deleted", "old models stay on the disk")                                         \
    X(PARTITIONS_FAILED, "partitions-failed", "partitions for votes were not made")                                    \
    X(PARTITIONS_MADE, "partitions-made", "partitions for votes were made ahead")                                      \
    X(POLL_FAILED, "poll-failed", "waiting for what happens next failed")                                              \
    X(QUEUE_CHOSEN, "queue-chosen", "how the queue was chosen")                                                        \
    X(QUEUE_NOT_RECORDED, "queue-not-recorded", "how the queue was chosen is missing in the database")                 \
    X(READY, "ready", "the daemon answers subscribers; the queue may be empty yet")                                    \
    X(RELOAD_FAILED, "reload-failed", "the configuration could not be read again: the one in force stays")             \
    X(RELOADED, "reloaded", "the configuration was read again")                                                        \
    X(RETIREMENT, "retirement", "galaxies need no more votes, or more again")                                          \
    X(RETIREMENT_FAILED, "retirement-failed",                                                                          \
      "galaxies that need no more votes were not marked so; the next ranking tries again")                             \
    X(ROW_DAMAGED, "row-damaged", "rows of the pool had wrong checksums")                                              \
    X(RUN_KILLED, "run-killed", "the run before did not end by itself")                                                \
    X(START_CANCELLED, "start-cancelled", "stopped while starting")                                                    \
    X(START_FAILED, "start-failed", "cannot start")                                                                    \
    X(STEP_FAILED, "step-failed", "a step of the cycle is tried again")                                                \
    X(STOPPING, "stopping", "asked to stop")                                                                           \
    X(SYNC_FAILED, "sync-failed", "reading the database is tried again")                                               \
    X(SYNCED, "synced", "the pool agrees with the database")                                                           \
    X(TALLIES_REBUILT, "tallies-rebuilt", "tallies were made again from every vote")                                   \
    X(TRUNK_FAILED, "trunk-failed", "teaching the trunk ended in an error")                                            \
    X(TRUNK_FILE_DAMAGED, "trunk-file-damaged", "a file of the trunk's run was set aside")                             \
    X(TRUNK_GIVEN_UP, "trunk-given-up", "teaching the trunk ended without a new one")                                  \
    X(TRUNK_IN_USE, "trunk-in-use", "a new trunk serves")                                                              \
    X(TRUNK_MEANS, "trunk-means", "teaching the trunk goes on with another backend, or other threads or devices")      \
    X(TRUNK_NOT_NOTED, "trunk-not-noted",                                                                              \
      "that the trunk was taught is not on the disk: a restart may teach it too soon")                                 \
    X(TRUNK_RESUMED, "trunk-resumed", "teaching the trunk goes on after a restart")                                    \
    X(TRUNK_STARTED, "trunk-started", "teaching a new trunk begins")                                                   \
    X(TRUNK_STEP_FAILED, "trunk-step-failed", "a step of teaching the trunk is tried again")                           \
    X(TRUNK_TRAINED, "trunk-trained", "a new trunk is taught; every galaxy is embedded again")                         \
    X(VOTES_FAILED, "votes-failed", "votes were not applied; they wait")                                               \
    X(VOTES_QUARANTINED, "votes-quarantined", "votes name something unknown")                                          \
    X(WORKER_ENDED, "worker-ended", "the worker ended and is started again")                                           \
    X(WORKER_MESSAGE, "worker-message", "a message between daemon and worker cannot be read")                          \
    X(WORKER_NOT_STARTED, "worker-not-started", "the worker could not be started")                                     \
    X(WORKER_READY, "worker-ready", "the worker waits for jobs")                                                       \
    X(WORKER_SILENT, "worker-silent", "the worker said nothing and is killed")

enum log_event {
#define X(name, text, meaning) EVENT_##name,
    LOG_EVENTS(X)
#undef X
};

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6 };

/* `who` is put in front of every line: "triaged", "worker". */
void log_open(const char *who, int json);

void log_line(enum log_level level, enum log_event event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)

#endif
