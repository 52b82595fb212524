/* See openmetrics.h. One table of series; those with labels of their own have a function. */
#include "daemon/openmetrics.h"
#include "base/clock.h"
#include "daemon/daemon.h"

#include <math.h>
#include <string.h>

#define SUBSCRIBERS_SHOWN 32

const double meter_bounds_s[METER_BOUNDS] = {0.1, 0.5, 1, 5, 10, 30, 60, 300};

void meter_observe(struct meter_histogram *histogram, double seconds)
{
    if (!(seconds >= 0))
        return;
    for (int i = 0; i < METER_BOUNDS; i++)
        histogram->at_most[i] += seconds <= meter_bounds_s[i];
    histogram->count++;
    histogram->sum_s += seconds;
}

void meter_bad_image(struct meters *meters, const char *reason)
{
    static const struct {
        const char *words;
        enum meter_bad bad;
    } known[] = {
        {"no such file", METER_BAD_ABSENT},
        {"damaged",      METER_BAD_FORMAT},
        {"neither",      METER_BAD_FORMAT},
        {"empty",        METER_BAD_FORMAT},
        {"too small",    METER_BAD_SIZE  },
        {"too large",    METER_BAD_SIZE  },
    };
    for (size_t i = 0; reason && i < sizeof known / sizeof *known; i++)
        if (strstr(reason, known[i].words)) {
            meters->bad[known[i].bad]++;
            return;
        }
    meters->bad[METER_BAD_OTHER]++;
}

static double number(const json_t *answer, const char *key)
{
    const json_t *value = json_object_get(answer, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

void meter_fit(struct meters *meters, const json_t *answer)
{
    meters->trained_unix_ms = clock_unix_ms();
    meters->train_loss = number(answer, "train_loss");
    meters->calibration_error = number(answer, "calibration_error");
    meters->coverage_80 = number(answer, "coverage_80");
    meters->brier = number(answer, "brier");
}

/* --- series of one value -------------------------------------------------------------------------------------------- */

static double votes_applied(const struct daemon *daemon)
{
    return (double)daemon->ingest.applied;
}

static double votes_repeated(const struct daemon *daemon)
{
    return (double)daemon->ingest.repeated;
}

static double votes_ignored(const struct daemon *daemon)
{
    return (double)daemon->ingest.ignored;
}

static double votes_quarantined(const struct daemon *daemon)
{
    return (double)daemon->ingest.quarantined;
}

static double lag_s(const struct daemon *daemon)
{
    return daemon->ingest.lag_s;
}

static double cursor_xid(const struct daemon *daemon)
{
    return (double)daemon->ingest.horizon;
}

static double scored(const struct daemon *daemon)
{
    return (double)daemon->meters.scored;
}

static double queue_oldest_s(const struct daemon *daemon)
{
    int64_t oldest_ms = 0, now_ms = clock_unix_ms();
    for (size_t i = 0; i < daemon->queue.count; i++) {
        int64_t age_ms = now_ms - (daemon->queue.entries[i].leased_until_ms - daemon->config.lease_s * 1000);
        oldest_ms = age_ms > oldest_ms ? age_ms : oldest_ms;
    }
    return (double)oldest_ms / 1000;
}

static double score_age_s(const struct daemon *daemon)
{
    return daemon->cycle.ended_ms ? (double)(clock_ms() - daemon->cycle.ended_ms) / 1000 : NAN;
}

static double cycles(const struct daemon *daemon)
{
    return (double)daemon->cycle.number;
}

static double cycle_s(const struct daemon *daemon)
{
    return daemon->cycle.last_s;
}

static double champion(const struct daemon *daemon)
{
    return (double)daemon->cycle.champion;
}

static double labelled(const struct daemon *daemon)
{
    return (double)daemon->labelled;
}

static struct publisher_counters counters_of(const struct daemon *daemon)
{
    struct publisher_counters counters = {0};
    daemon->publisher->counters(daemon->feed, &counters);
    return counters;
}

static double publish_seq(const struct daemon *daemon)
{
    const char *epoch;
    uint64_t seq;
    daemon->publisher->position(daemon->feed, &epoch, &seq);
    return (double)seq;
}

static double publish_dropped(const struct daemon *daemon)
{
    struct publisher_counters counters = counters_of(daemon);
    return (double)(counters.unsent + counters.gaps);
}

static double snapshot_requests(const struct daemon *daemon)
{
    return (double)counters_of(daemon).snapshots;
}

static double trained_s(const struct daemon *daemon)
{
    return daemon->meters.trained_unix_ms ? (double)daemon->meters.trained_unix_ms / 1000 : NAN;
}

static double train_loss(const struct daemon *daemon)
{
    return daemon->meters.trained_unix_ms ? daemon->meters.train_loss : NAN;
}

static double calibration_error(const struct daemon *daemon)
{
    return daemon->meters.trained_unix_ms ? daemon->meters.calibration_error : NAN;
}

static double coverage_80(const struct daemon *daemon)
{
    return daemon->meters.trained_unix_ms ? daemon->meters.coverage_80 : NAN;
}

static double database_up(const struct daemon *daemon)
{
    return database_state(daemon->database) == DATABASE_READY;
}

static double worker_up(const struct daemon *daemon)
{
    return daemon->worker.state >= WORKER_IDLE;
}

static double worker_restarts(const struct daemon *daemon)
{
    return (double)daemon->worker.restarts;
}

static double ready(const struct daemon *daemon)
{
    return daemon->ready;
}

static double started_s(const struct daemon *daemon)
{
    return (double)(clock_unix_ms() - (clock_ms() - daemon->started_ms)) / 1000;
}

/* "counter" ends in _total on its value's line, and there alone. */
static const struct series {
    const char *name, *kind, *unit, *help;
    double (*value)(const struct daemon *daemon);
} series[] = {
    {"triage_votes_repeated",                       "counter", "",        "votes of a person of whom another vote counts",                   votes_repeated   },
    {"triage_votes_ignored",                        "counter", "",        "votes that do not count by the rules",                            votes_ignored    },
    {"triage_votes_quarantined",                    "counter", "",        "votes that name something unknown",                               votes_quarantined},
    {"triage_vote_ingest_lag_seconds",              "gauge",   "seconds", "age of the oldest vote that is not applied",                      lag_s            },
    {"triage_vote_cursor_xid",                      "gauge",   "",        "transaction below which every vote is in the tallies",            cursor_xid       },
    {"triage_predictions",                          "counter", "",        "galaxies scored, since the start",                                scored           },
    {"triage_queue_oldest_seconds",                 "gauge",   "seconds", "how long the oldest entry has been on offer",                     queue_oldest_s   },
    {"triage_score_age_seconds",                    "gauge",   "seconds", "since the last cycle ended",                                      score_age_s      },
    {"triage_cycles",                               "counter", "",        "cycles, over all runs",                                           cycles           },
    {"triage_cycle_seconds",                        "gauge",   "seconds", "the last cycle took",                                             cycle_s          },
    {"triage_champion",                             "gauge",   "",        "number of the model in force, 0 = none",                          champion         },
    {"triage_labelled",                             "gauge",   "",        "galaxies with votes",                                             labelled         },
    {"triage_publish_seq",                          "gauge",   "",        "sequence number of the last message of the feed",                 publish_seq      },
    {"triage_publish_dropped",                      "counter", "",        "gaps subscribers told of by acks, and messages no socket took",
     publish_dropped                                                                                                                                          },
    {"triage_snapshot_requests",                    "counter", "",        "snapshots of the queue that were begun",                          snapshot_requests},
    {"triage_train_last_success_timestamp_seconds", "gauge",   "seconds", "Unix time of the last fit that ended well",
     trained_s                                                                                                                                                },
    {"triage_train_loss",                           "gauge",   "",        "nats per galaxy and head, of the last fit",                       train_loss       },
    {"triage_calibration_ece",                      "gauge",   "",
     "expected calibration error of vote fractions, gate galaxies (random draws)",                                                           calibration_error},
    {"triage_coverage_80",                          "gauge",   "",        "share of vote counts inside their 80 % intervals, gate galaxies", coverage_80      },
    {"triage_db_up",                                "gauge",   "",        "1 while the database answers",                                    database_up      },
    {"triage_worker_up",                            "gauge",   "",        "1 while the worker answers",                                      worker_up        },
    {"triage_worker_restarts",                      "counter", "",        "workers started in place of one that ended",                      worker_restarts  },
    {"triage_ready",                                "gauge",   "",        "1 once subscribers are answered; the queue may be empty",         ready            },
    {"triage_start_timestamp_seconds",              "gauge",   "seconds", "Unix time of the start",                                          started_s        },
};

/* --- series with labels ------------------------------------------------------------------------------------------------ */

static void write_head(struct text *out, const char *name, const char *kind, const char *unit, const char *help)
{
    text_append(out, "# TYPE %s %s\n", name, kind);
    if (*unit)
        text_append(out, "# UNIT %s %s\n", name, unit);
    text_append(out, "# HELP %s %s\n", name, help);
}

static void write_label(struct text *out, const char *value)
{
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            text_append_bytes(out, "\\", 1);
        text_append_bytes(out, *value == '\n' ? " " : value, 1);
    }
}

static void write_number(struct text *out, double value)
{
    if (isnan(value))
        text_append(out, "NaN\n");
    else
        text_append(out, "%.17g\n", value);
}

static void write_histogram(struct text *out, const char *name, const char *help,
                            const struct meter_histogram *histogram)
{
    write_head(out, name, "histogram", "seconds", help);
    for (int i = 0; i < METER_BOUNDS; i++)
        text_append(out, "%s_bucket{le=\"%g\"} %llu\n", name, meter_bounds_s[i],
                    (unsigned long long)histogram->at_most[i]);
    text_append(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_count %llu\n%s_sum %.17g\n", name,
                (unsigned long long)histogram->count, name, (unsigned long long)histogram->count, name,
                histogram->sum_s);
}

static void write_pool(const struct daemon *daemon, struct text *out)
{
    const struct {
        const char *state;
        uint64_t galaxies;
    } states[] = {
        {"all",      daemon->galaxies      },
        {"embedded", daemon->embed.embedded},
        {"bad",      daemon->embed.bad     },
        {"retired",  daemon->retired       },
    };
    write_head(out, "triage_pool_size", "gauge", "", "galaxies of the pool in this state; states overlap");
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        text_append(out, "triage_pool_size{state=\"%s\"} %llu\n", states[i].state,
                    (unsigned long long)states[i].galaxies);
}

static void write_queue(const struct daemon *daemon, struct text *out)
{
    static const char *const names[] = {"active", "random", "pinned"};
    unsigned long entries[3] = {0};
    for (size_t i = 0; i < daemon->queue.count; i++)
        entries[daemon->queue.entries[i].stream % 3]++;
    write_head(out, "triage_queue_depth", "gauge", "", "galaxies on offer");
    for (int i = 0; i < 3; i++)
        text_append(out, "triage_queue_depth{stream=\"%s\"} %lu\n", names[i], entries[i]);
}

static void write_bad(const struct daemon *daemon, struct text *out)
{
    static const char *const names[METER_BAD_KINDS] = {[METER_BAD_ABSENT] = "absent",
                                                       [METER_BAD_FORMAT] = "format",
                                                       [METER_BAD_SIZE] = "size",
                                                       [METER_BAD_OTHER] = "other"};
    write_head(out, "triage_bad_images", "counter", "", "images that could not be read, since the start");
    for (int i = 0; i < METER_BAD_KINDS; i++)
        text_append(out, "triage_bad_images_total{reason=\"%s\"} %llu\n", names[i],
                    (unsigned long long)daemon->meters.bad[i]);
}

/* The name is what a subscriber calls itself, printable letters only; those furthest behind. */
static void write_subscribers(const struct daemon *daemon, struct text *out)
{
    static struct feed_subscriber list[SUBSCRIBERS_SHOWN];
    size_t count = daemon->publisher->subscribers(daemon->feed, list, SUBSCRIBERS_SHOWN);
    write_head(out, "triage_subscriber_lag", "gauge", "", "messages a subscriber has not yet applied, by its last ack");
    for (size_t i = 0; i < count; i++) {
        text_append(out, "triage_subscriber_lag{key=\"");
        write_label(out, list[i].key);
        text_append(out, "\",subscriber=\"");
        write_label(out, list[i].name);
        text_append(out, "\"} %llu\n", (unsigned long long)list[i].lag);
    }
}

static void write_gpu(const struct daemon *daemon, struct text *out)
{
    if (!daemon->worker.gpu_bytes)
        return;
    write_head(out, "triage_gpu_memory_bytes", "gauge", "bytes", "of the device, and what the network takes of it");
    text_append(out, "triage_gpu_memory_bytes{of=\"device\"} %llu\ntriage_gpu_memory_bytes{of=\"network\"} %llu\n",
                (unsigned long long)daemon->worker.gpu_bytes, (unsigned long long)daemon->worker.gpu_network_bytes);
}

static void write_labelled(const struct daemon *daemon, struct text *out)
{
    write_head(out, "triage_build", "info", "", "what is running");
    text_append(out, "triage_build_info{version=\"%s\",schema=\"%s\",backend=\"%s\"} 1\n", TRIAGE_VERSION,
                daemon->schema.name, daemon->worker.backend);
    write_head(out, "triage_worker_fallback", "gauge", "", "1 while the CPU computes although a GPU is configured");
    text_append(out, "triage_worker_fallback %d\n", daemon->worker.fallback[0] != 0);
    write_head(out, "triage_votes_ingested", "counter", "", "votes in the tallies");
    text_append(out, "triage_votes_ingested_total{source=\"postgres\"} ");
    write_number(out, votes_applied(daemon));
    write_head(out, "triage_holdout_brier", "gauge", "", "Brier score of a single vote, gate galaxies");
    text_append(out, "triage_holdout_brier{stream=\"random\"} ");
    write_number(out, daemon->meters.trained_unix_ms ? daemon->meters.brier : NAN);
    write_pool(daemon, out);
    write_queue(daemon, out);
    write_bad(daemon, out);
    write_subscribers(daemon, out);
    write_gpu(daemon, out);
    write_histogram(out, "triage_prediction_seconds", "rankings of the pool", &daemon->meters.ranking);
    write_histogram(out, "triage_decode_seconds", "jobs of decoding images", &daemon->meters.decoding);
}

void openmetrics_write(const struct daemon *daemon, struct text *out)
{
    for (size_t i = 0; i < sizeof series / sizeof *series; i++) {
        write_head(out, series[i].name, series[i].kind, series[i].unit, series[i].help);
        text_append(out, "%s%s ", series[i].name, series[i].kind[0] == 'c' ? "_total" : "");
        write_number(out, series[i].value(daemon));
    }
    write_labelled(daemon, out);
    text_append(out, "# EOF\n");
}
