/* triage-sim queue: follows the feed as any subscriber would and prints the queue it ends with, from frames
 * alone. */
#include "base/clock.h"
#include "base/error.h"
#include "clients/c/triage_feed.h"
#include "daemon/sim/gap.h"
#include "daemon/sim/sim.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define STEP_MS 100

struct request {
    struct triage_feed_options feed;
    int force_gap, json;
    int64_t timeout_s;
};

/* Follows until the queue is complete and, if wanted, a lost message was noticed and repaired. 1, or 0 at the
 * deadline. */
static int follow(struct triage_feed *feed, const struct request *request)
{
    int64_t deadline_ms = clock_ms() + request->timeout_s * 1000;
    struct gap gap = {0};
    while (clock_ms() < deadline_ms) {
        struct triage_feed_status status;
        int result = triage_feed_step(feed, STEP_MS);
        if (result < 0)
            return result;
        triage_feed_status(feed, &status);
        if (status.is_live && (!request->force_gap || gap_force(&gap, feed)))
            return 1;
    }
    return 0;
}

static json_t *entries_json(struct triage_feed *feed)
{
    static const char *const streams[] = {"active", "random", "pinned"};
    json_t *list = json_array();
    size_t count;
    const struct triage_feed_entry *entry = triage_feed_entries(feed, &count);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("{s:s,s:i,s:s}", "id", entry[i].id, "rank", (int)entry[i].rank, "stream",
                                              streams[entry[i].stream < 3 ? entry[i].stream : 0]));
    return list;
}

static int print(struct triage_feed *feed, int as_json)
{
    struct triage_feed_status status;
    size_t count;
    triage_feed_status(feed, &status);
    if (as_json) {
        json_t *answer = json_pack(
            "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "epoch", status.epoch, "seq", (json_int_t)status.seq, "cycle",
            (json_int_t)status.cycle, "model", (json_int_t)status.model, "gaps", (json_int_t)status.gaps, "replays",
            (json_int_t)status.replays, "snapshots", (json_int_t)status.snapshots, "entries", entries_json(feed));
        if (!answer)
            return error_set(ERROR_INPUT, "the queue cannot be written as JSON");
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(answer);
        return 0;
    }
    const struct triage_feed_entry *entry = triage_feed_entries(feed, &count);
    printf("# epoch %s seq %llu gaps %llu\n", status.epoch, (unsigned long long)status.seq,
           (unsigned long long)status.gaps);
    for (size_t i = 0; i < count; i++)
        printf("%u %s\n", entry[i].rank, entry[i].id);
    return 0;
}

int verb_queue(int argc, char **argv)
{
    static struct request request = {.timeout_s = 30, .feed.name = "triage-sim queue"};
    const struct option options[] = {
        {"--publish",   OPTION_TEXT,    &request.feed.publish,  0, 0,     1, "endpoint of the feed"                        },
        {"--snapshot",  OPTION_TEXT,    &request.feed.snapshot, 0, 0,     1, "endpoint for snapshots and replays"          },
        {"--key",       OPTION_TEXT,    &request.feed.key_file, 0, 0,     0, "key file, for a feed that is encrypted"      },
        {"--force-gap", OPTION_FLAG,    &request.force_gap,     0, 0,     0, "lose a message and end after it was repaired"},
        {"--timeout",   OPTION_INTEGER, &request.timeout_s,     1, 86400, 0, "seconds to wait"                             },
        {"--json",      OPTION_FLAG,    &request.json,          0, 0,     0, "print JSON"                                  },
    };
    int code = options_parse("queue", "Follows the feed until the queue is complete, and prints it.", options,
                             sizeof options / sizeof *options, argc, argv);
    if (code != OPTIONS_GO_ON)
        return code;
    struct triage_feed *feed = NULL;
    int result = triage_feed_open(&request.feed, &feed);
    int complete = result ? result : follow(feed, &request);
    if (complete > 0)
        result = print(feed, request.json);
    triage_feed_close(feed);
    if (complete == 0) {
        fprintf(stderr, "triage-sim queue: no complete queue within %lld s%s\n", (long long)request.timeout_s,
                request.force_gap ? " after a lost message" : no_queue_hint(request.feed.key_file));
        return EXIT_LATER;
    }
    return report(complete < 0 ? complete : result);
}
