/* triage-sim queue: follows the feed as any subscriber would and prints the queue it ends with, from frames
 * alone. */
#include "base/clock.h"
#include "base/error.h"
#include "connectors/feed_client.h"
#include "daemon/sim/gap.h"
#include "daemon/sim/sim.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define STEP_MS 100

struct request {
    const char *publish, *snapshot;
    int force_gap, json;
    int64_t timeout_s;
};

/* Follows until the queue is complete and, if wanted, a lost message was noticed and repaired. 1, or 0 at the
 * deadline. */
static int follow(struct feed_client *feed, const struct request *request)
{
    int64_t deadline_ms = clock_ms() + request->timeout_s * 1000;
    struct gap gap = {0};
    while (clock_ms() < deadline_ms) {
        int result = feed_client_step(feed, STEP_MS);
        if (result < 0)
            return result;
        if (feed_client_is_live(feed) && (!request->force_gap || gap_force(&gap, feed)))
            return 1;
    }
    return 0;
}

static json_t *entries_json(struct feed_client *feed)
{
    static const char *const streams[] = {"active", "random", "pinned"};
    json_t *list = json_array();
    size_t count;
    const struct queue_entry *entry = feed_client_entries(feed, &count);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("{s:s,s:i,s:s}", "id", entry[i].id_str, "rank", (int)entry[i].rank,
                                              "stream", streams[entry[i].stream < 3 ? entry[i].stream : 0]));
    return list;
}

static int print(struct feed_client *feed, int as_json)
{
    struct feed_follower_counters counters;
    const char *epoch;
    uint64_t seq, cycle;
    uint32_t model;
    size_t count;
    feed_client_counters(feed, &counters);
    feed_client_position(feed, &epoch, &seq);
    feed_client_ranking(feed, &cycle, &model);
    if (as_json) {
        json_t *answer = json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "epoch", epoch, "seq", (json_int_t)seq, "cycle",
                                   (json_int_t)cycle, "model", (json_int_t)model, "gaps", (json_int_t)counters.gaps,
                                   "replays", (json_int_t)counters.replays, "snapshots", (json_int_t)counters.snapshots,
                                   "entries", entries_json(feed));
        if (!answer)
            return error_set(ERROR_INPUT, "the queue cannot be written as JSON");
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(answer);
        return 0;
    }
    const struct queue_entry *entry = feed_client_entries(feed, &count);
    printf("# epoch %s seq %llu gaps %llu\n", epoch, (unsigned long long)seq, (unsigned long long)counters.gaps);
    for (size_t i = 0; i < count; i++)
        printf("%u %s\n", entry[i].rank, entry[i].id_str);
    return 0;
}

int verb_queue(int argc, char **argv)
{
    static struct request request = {.timeout_s = 30};
    const struct option options[] = {
        {"--publish",   OPTION_TEXT,    &request.publish,   0, 0,     1, "endpoint of the feed"                        },
        {"--snapshot",  OPTION_TEXT,    &request.snapshot,  0, 0,     1, "endpoint for snapshots and replays"          },
        {"--force-gap", OPTION_FLAG,    &request.force_gap, 0, 0,     0, "lose a message and end after it was repaired"},
        {"--timeout",   OPTION_INTEGER, &request.timeout_s, 1, 86400, 0, "seconds to wait"                             },
        {"--json",      OPTION_FLAG,    &request.json,      0, 0,     0, "print JSON"                                  },
    };
    int code = options_parse("queue", "Follows the feed until the queue is complete, and prints it.", options,
                             sizeof options / sizeof *options, argc, argv);
    if (code != OPTIONS_GO_ON)
        return code;
    struct feed_client *feed = NULL;
    int result = feed_client_open(request.publish, request.snapshot, &feed);
    int complete = result ? result : follow(feed, &request);
    if (complete > 0)
        result = print(feed, request.json);
    feed_client_close(feed);
    if (complete == 0) {
        fprintf(stderr, "triage-sim queue: no complete queue within %lld s%s\n", (long long)request.timeout_s,
                request.force_gap ? " after a lost message" : ": does triaged publish at these endpoints?");
        return EXIT_LATER;
    }
    return report(complete < 0 ? complete : result);
}
