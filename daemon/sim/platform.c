/*
 * triage-sim platform: plays a volunteer platform. Follows the feed, lets simulated volunteers classify what
 * is queued (casting.h), brings their votes into the database (delivery.h), and says what it did in a status
 * file.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "clients/c/triage_feed.h"
#include "connectors/database.h"
#include "daemon/sim/casting.h"
#include "daemon/sim/gap.h"
#include "daemon/sim/oracle_file.h"
#include "daemon/sim/sim.h"

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_EVERY_MS 1000
#define TICK_MS         10
#define CONNECTIONS     4
#define DATABASE_WAIT_S 60    /* for the database at the start */
#define PATIENCE_MS     30000 /* without a single commit at the end, before giving up */
#define BURST_S         .25   /* at most this much of the rate at a time after a pause */

static volatile sig_atomic_t asked_to_stop;

struct platform {
    const char *database, *schema_path, *oracle_path, *status_path;
    double rate, duplicates, late, repeats;
    int64_t volunteers, seed, limit, parallel, idle_s, gap_after;
    struct schema schema;
    struct oracle oracle;
    struct triage_feed_options options;
    struct triage_feed *feed;
    struct delivery *delivery;
    struct casting *casting;
    int64_t cast;    /* classifications given by volunteers so far */
    double due;      /* classifications the rate allows now */
    int64_t busy_ms; /* when something was last cast */
    struct gap gap;
    int seen_queue, gap_made, idle;
};

static void on_signal(int number)
{
    (void)number;
    asked_to_stop = 1;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

/* Connects and learns what earlier runs cast. The database may come a little later than the platform. */
static int resume(struct platform *platform)
{
    int64_t deadline_ms = clock_ms() + DATABASE_WAIT_S * 1000;
    struct database *database = NULL;
    int result;
    while ((result = database_open(platform->database, &database)) == ERROR_UNAVAILABLE && clock_ms() < deadline_ms &&
           !asked_to_stop)
        poll(NULL, 0, 500);
    if (!result)
        result = casting_resume(platform->casting, database);
    database_close(database);
    return result;
}

static int open_platform(struct platform *platform)
{
    struct casting_options options = {.seed = (uint64_t)platform->seed,
                                      .volunteers = (uint32_t)platform->volunteers,
                                      .duplicates = platform->duplicates,
                                      .late = platform->late,
                                      .repeats = platform->repeats,
                                      .parallel = (int)platform->parallel};
    int result = schema_load(platform->schema_path, &platform->schema);
    if (!result)
        result = oracle_read(platform->oracle_path, &platform->schema, &platform->oracle);
    if (!result)
        result = delivery_start(platform->database, &platform->schema, CONNECTIONS, &platform->delivery);
    if (!result)
        result = casting_new(&options, &platform->oracle, platform->delivery, &platform->casting);
    if (!result)
        result = resume(platform);
    if (!result)
        result = triage_feed_open(&platform->options, &platform->feed);
    return result;
}

static void close_platform(struct platform *platform)
{
    triage_feed_close(platform->feed);
    delivery_finish(platform->delivery, 0, NULL);
    casting_free(platform->casting);
    oracle_free(&platform->oracle);
}

static json_t *feed_json(struct platform *platform)
{
    struct triage_feed_status status;
    triage_feed_status(platform->feed, &status);
    return json_pack("{s:s,s:I,s:b,s:I,s:I,s:I,s:I}", "epoch", status.epoch, "seq", (json_int_t)status.seq, "live",
                     status.is_live, "gaps", (json_int_t)status.gaps, "replays", (json_int_t)status.replays,
                     "snapshots", (json_int_t)status.snapshots, "malformed", (json_int_t)status.malformed);
}

static json_t *queue_json(struct platform *platform)
{
    json_t *queue = json_array();
    size_t count;
    const struct triage_feed_entry *entry = triage_feed_entries(platform->feed, &count);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(queue, json_string(entry[i].id));
    return queue;
}

/* Replaces the status file; there is none without --status. */
static int write_status(struct platform *platform, const struct delivery_counts *delivered, int done)
{
    struct casting_counts casting;
    if (!platform->status_path)
        return 0;
    casting_count(platform->casting, &casting);
    json_t *status = json_pack(
        "{s:b,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:b,s:o,s:o}", "simulated", 1, "done", done,
        "classifications", (json_int_t)delivered->classifications, "votes_cast", (json_int_t)delivered->votes_cast,
        "votes_distinct_valid", (json_int_t)delivered->votes_distinct_valid, "duplicates",
        (json_int_t)delivered->duplicates, "repeats", (json_int_t)delivered->repeats, "late", (json_int_t)casting.late,
        "held", (json_int_t)casting.held, "waiting", (json_int_t)delivered->waiting, "retries",
        (json_int_t)delivered->retries, "exhausted", (json_int_t)casting.exhausted, "unknown",
        (json_int_t)casting.unknown, "problem", delivered->problem, "idle", platform->idle, "feed", feed_json(platform),
        "queue", queue_json(platform));
    char *text = status ? json_dumps(status, JSON_INDENT(1)) : NULL;
    json_decref(status);
    if (!text)
        return error_set(ERROR_INPUT, "the status cannot be written as JSON: is an id of the queue not UTF-8?");
    struct file_part part = {text, strlen(text)};
    int result = file_write(platform->status_path, &part, 1, 0644);
    free(text);
    return result;
}

/* Shows the casting what the feed says now. */
static void offer(struct platform *platform)
{
    size_t count;
    const struct triage_feed_entry *entry = triage_feed_entries(platform->feed, &count);
    casting_begin_offer(platform->casting);
    for (size_t i = 0; i < count; i++)
        casting_offer(platform->casting, entry[i].id);
}

static int follow(struct platform *platform)
{
    struct triage_feed_status status;
    int changed = triage_feed_step(platform->feed, TICK_MS);
    if (changed > 0)
        FAULT(FEED_FOLLOWED);
    if (changed < 0)
        return changed;
    triage_feed_status(platform->feed, &status);
    platform->seen_queue |= status.is_live;
    if (platform->gap_after > 0 && !platform->gap_made && platform->cast >= platform->gap_after)
        platform->gap_made = gap_force(&platform->gap, platform->feed);
    if (changed || casting_is_stale(platform->casting))
        offer(platform);
    return 0;
}

static int limit_reached(const struct platform *platform)
{
    return platform->limit > 0 && platform->cast >= platform->limit;
}

/* Casts what the rate allows. A full line (the database is away) or an empty queue uses the time up. */
static void cast(struct platform *platform, double elapsed_s)
{
    platform->due += platform->rate * elapsed_s;
    double most = platform->rate * BURST_S > 1 ? platform->rate * BURST_S : 1;
    if (platform->due > most)
        platform->due = most;
    while (platform->due >= 1 && !limit_reached(platform)) {
        int result = casting_cast(platform->casting);
        if (result == 0 && casting_is_stale(platform->casting)) {
            offer(platform); /* what was open is finished; there may be more behind it */
            result = casting_cast(platform->casting);
        }
        if (result < 0)
            platform->busy_ms = clock_ms(); /* waiting for the database is not idling */
        if (result <= 0)
            return;
        platform->due -= 1;
        platform->cast++;
        platform->busy_ms = clock_ms();
    }
}

/* Casts until a signal, the limit or idleness ends it. */
static int play(struct platform *platform)
{
    int64_t status_ms = 0;
    double before_s = clock_s();
    int result = 0;
    platform->busy_ms = clock_ms();
    while (!result && !asked_to_stop && !limit_reached(platform)) {
        result = follow(platform);
        double now_s = clock_s();
        cast(platform, now_s - before_s);
        before_s = now_s;
        casting_release(platform->casting, 0);
        int64_t now_ms = clock_ms();
        platform->idle = now_ms - platform->busy_ms > STATUS_EVERY_MS;
        if (platform->idle_s > 0 && now_ms - platform->busy_ms > platform->idle_s * 1000)
            break;
        if (result || now_ms - status_ms < STATUS_EVERY_MS)
            continue;
        struct delivery_counts delivered;
        delivery_count(platform->delivery, &delivered);
        result = write_status(platform, &delivered, 0);
        status_ms = now_ms;
    }
    return result;
}

/* Delivers what is still held or in line, for as long as the database takes anything. */
static int end(struct platform *platform, int result)
{
    struct delivery_counts delivered;
    struct casting_counts casting;
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    while (casting_release(platform->casting, 1) > 0 && clock_ms() < deadline_ms)
        poll(NULL, 0, TICK_MS);
    delivery_finish(platform->delivery, PATIENCE_MS, &delivered);
    platform->delivery = NULL;
    casting_count(platform->casting, &casting);
    int written = write_status(platform, &delivered, 1);
    if (result || written)
        return result ? result : written;
    if (delivered.waiting + casting.held > 0)
        return error_set(ERROR_UNAVAILABLE, "%lld classifications could not be delivered: %s",
                         (long long)(delivered.waiting + casting.held), delivered.problem);
    return 0;
}

static int run_platform(struct platform *platform)
{
    int result = open_platform(platform);
    if (!result)
        result = end(platform, play(platform));
    int empty = !result && !platform->seen_queue && !asked_to_stop;
    close_platform(platform);
    if (!empty)
        return report(result);
    fprintf(stderr, "triage-sim platform: no complete queue was seen%s\n", no_queue_hint(platform->options.key_file));
    return EXIT_LATER;
}

/* clang-format off */
int verb_platform(int argc, char **argv)
{
    static struct platform p = {.rate = 200, .duplicates = .02, .late = .02, .volunteers = 5000, .seed = 1, .parallel = 32,
                                .options.name = "triage-sim platform"};
    const struct option options[] = {
        {"--database",        OPTION_TEXT,    &p.database,    0, 0,        1, "libpq connection string"},
        {"--publish",         OPTION_TEXT,    &p.options.publish,  0, 0,   1, "endpoint of the feed"},
        {"--snapshot",        OPTION_TEXT,    &p.options.snapshot, 0, 0,   1, "endpoint for snapshots and replays"},
        {"--key",             OPTION_TEXT,    &p.options.key_file, 0, 0,   0, "key file, for a feed that is encrypted"},
        {"--schema",          OPTION_TEXT,    &p.schema_path, 0, 0,        1, "decision tree, etc/schemas/NAME.ini"},
        {"--oracle",          OPTION_TEXT,    &p.oracle_path, 0, 0,        1, "CSV of vote counts, or known.csv of a simulated survey"},
        {"--status",          OPTION_TEXT,    &p.status_path, 0, 0,        0, "JSON file, replaced every second and at the end"},
        {"--rate",            OPTION_REAL,    &p.rate,        .01, 1e5,    0, "classifications per second"},
        {"--volunteers",      OPTION_INTEGER, &p.volunteers,  1, 1e9,      0, "how many simulated people there are"},
        {"--duplicates",      OPTION_REAL,    &p.duplicates,  0, 1,        0, "share of classifications delivered again, unchanged"},
        {"--late",            OPTION_REAL,    &p.late,        0, 1,        0, "share held back for 2 to 10 seconds"},
        {"--repeat-voters",   OPTION_REAL,    &p.repeats,     0, 1,        0, "share given again by the same voter as a new classification"},
        {"--parallel",        OPTION_INTEGER, &p.parallel,    1, 4096,     0, "galaxies open at a time, best rank first"},
        {"--seed",            OPTION_INTEGER, &p.seed,        0, 4e18,     0, "of the random numbers"},
        {"--limit",           OPTION_INTEGER, &p.limit,       0, 1e15,     0, "stop after so many classifications; 0 = never"},
        {"--until-idle-s",    OPTION_INTEGER, &p.idle_s,      0, 1e6,      0, "stop when nothing could be cast for so long; 0 = never"},
        {"--force-gap-after", OPTION_INTEGER, &p.gap_after,   0, 1e15,     0, "lose one feed message after so many classifications; 0 = never"},
    };
    int code = options_parse("platform", "Plays a volunteer platform: every vote it casts is simulated.", options,
                             sizeof options / sizeof *options, argc, argv);
    if (code != OPTIONS_GO_ON)
        return code;
    catch_signals();
    return run_platform(&p);
}
/* clang-format on */
