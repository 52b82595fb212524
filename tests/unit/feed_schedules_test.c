/* libtriage-feed through 10,000 random schedules of loss, delay, repetition, reordering, cut connections and restarts. */
#include "clients/c/triage_feed.h"
#include "tests/support/feed_queues.h"
#include "tests/support/feed_schedules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define SEED      20261127
#define SCHEDULES 10000

static struct triage_feed *feed;

static void begin(void *context)
{
    (void)context;
    triage_feed_close(feed);
    assert_int_equal(triage_feed_open(&(struct triage_feed_options){0}, &feed), 0);
}

static void take(void *context, const void *body, size_t length, bool is_reply)
{
    (void)context;
    assert_true(triage_feed_take(feed, body, length, is_reply) >= 0);
}

static size_t request(void *context, void *body)
{
    (void)context;
    return triage_feed_request(feed, 0, body, SCHEDULE_REQUEST_BYTES);
}

static void view(void *context, struct schedule_view *view)
{
    struct triage_feed_status status;
    (void)context;
    triage_feed_status(feed, &status);
    *view = (struct schedule_view){.is_live = status.is_live,
                                   .seq = status.seq,
                                   .gaps = status.gaps,
                                   .replays = status.replays,
                                   .snapshots = status.snapshots,
                                   .malformed = status.malformed};
    memcpy(view->epoch, status.epoch, sizeof view->epoch);
    if (!status.is_live)
        return;
    view->count = followed_queue(feed, view->entries, SCHEDULE_ENTRIES_MAX);
}

static void test_schedules(void **state)
{
    (void)state;
    const struct schedule_subscriber subscriber = {.begin = begin, .take = take, .request = request, .view = view};
    struct schedule_counts counts;
    print_message("seeds %d .. %d\n", SEED, SEED + SCHEDULES - 1);
    feed_schedules(&subscriber, SEED, SCHEDULES, &counts);
    triage_feed_close(feed);
    print_message(
        "dropped %llu, repeated %llu, reordered %llu, cuts %llu, restarts %llu; gaps %llu, replays %llu, "
        "snapshots %llu; late replies %llu, replies across a restart %llu, too old %llu, in chunks %llu; "
        "compared while live %llu\n",
        (unsigned long long)counts.dropped, (unsigned long long)counts.repeated, (unsigned long long)counts.reordered,
        (unsigned long long)counts.cuts, (unsigned long long)counts.restarts, (unsigned long long)counts.gaps,
        (unsigned long long)counts.replays, (unsigned long long)counts.snapshots, (unsigned long long)counts.late,
        (unsigned long long)counts.crossed, (unsigned long long)counts.too_old, (unsigned long long)counts.chunked,
        (unsigned long long)counts.views);
    assert_int_equal(counts.schedules, SCHEDULES);
    assert_int_equal(counts.malformed, 0);
    /* all that can happen has happened, often */
    assert_true(counts.dropped > 10000 && counts.repeated > 5000 && counts.reordered > 5000 && counts.cuts > 5000);
    assert_true(counts.restarts > 2000 && counts.views > 20000);
    assert_true(counts.late > 5000 && counts.crossed > 1000 && counts.too_old > 1000 && counts.chunked > 500);
    assert_true(counts.gaps > 2000 && counts.replays > 2000 && counts.snapshots > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_schedules)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
