/* See feed_subscribers.h. */
#include "connectors/feed_subscribers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether another row of the same key was heard as late: the connector goes on under that name. */
static bool is_succeeded(const struct feed_subscribers *subscribers, size_t row)
{
    for (size_t i = 0; i < subscribers->count; i++)
        if (i != row && strcmp(subscribers->row[i].who.key, subscribers->row[row].who.key) == 0 &&
            subscribers->row[i].heard_at_ms >= subscribers->row[row].heard_at_ms)
            return true;
    return false;
}

static void forget_the_silent(struct feed_subscribers *subscribers, int64_t now_ms)
{
    for (size_t i = 0; i < subscribers->count;)
        if (now_ms - subscribers->row[i].heard_at_ms > FEED_SUBSCRIBER_SILENCE_MS &&
            (subscribers->row[i].who.role != FEED_CONNECTOR || is_succeeded(subscribers, i)))
            subscribers->row[i] = subscribers->row[--subscribers->count];
        else
            i++;
}

void feed_subscribers_forget(struct feed_subscribers *subscribers, const char *key)
{
    for (size_t i = 0; i < subscribers->count;)
        if (strcmp(subscribers->row[i].who.key, key) == 0)
            subscribers->row[i] = subscribers->row[--subscribers->count];
        else
            i++;
}

uint64_t feed_subscribers_ack(struct feed_subscribers *subscribers, const struct feed_request *ack, const char *key,
                              enum feed_role role, int64_t now_ms)
{
    size_t i = 0;
    while (i < subscribers->count &&
           (strcmp(subscribers->row[i].who.name, ack->ack.name) != 0 || strcmp(subscribers->row[i].who.key, key) != 0))
        i++;
    if (i == subscribers->count) {
        forget_the_silent(subscribers, now_ms);
        if (subscribers->count == FEED_SUBSCRIBERS_MAX) {
            subscribers->unlisted++;
            return 0;
        }
        i = subscribers->count++;
        memset(&subscribers->row[i], 0, sizeof subscribers->row[i]);
        snprintf(subscribers->row[i].who.name, FEED_NAME_BYTES, "%s", ack->ack.name);
        snprintf(subscribers->row[i].who.key, FEED_NAME_BYTES, "%s", key);
    }
    uint64_t before = subscribers->row[i].who.counters.gaps, now = ack->ack.counters.gaps;
    subscribers->row[i].who.role = role;
    subscribers->row[i].who.counters = ack->ack.counters;
    memcpy(subscribers->row[i].epoch, ack->epoch, sizeof ack->epoch);
    subscribers->row[i].seq = ack->from;
    subscribers->row[i].heard_at_ms = now_ms;
    return now > before ? now - before : 0;
}

static int compare_lags(const void *left, const void *right)
{
    const struct feed_subscriber *a = left, *b = right;
    if (a->lag != b->lag)
        return a->lag > b->lag ? -1 : 1;
    return strcmp(a->name, b->name);
}

size_t feed_subscribers_list(struct feed_subscribers *subscribers, const char *epoch, uint64_t seq, int64_t now_ms,
                             struct feed_subscriber *list, size_t limit)
{
    static _Thread_local struct feed_subscriber all[FEED_SUBSCRIBERS_MAX];
    forget_the_silent(subscribers, now_ms);
    for (size_t i = 0; i < subscribers->count; i++) {
        all[i] = subscribers->row[i].who;
        bool is_ours = strcmp(subscribers->row[i].epoch, epoch) == 0 && subscribers->row[i].seq <= seq;
        all[i].lag = is_ours ? seq - subscribers->row[i].seq : seq;
        all[i].heard_ms = now_ms - subscribers->row[i].heard_at_ms;
    }
    qsort(all, subscribers->count, sizeof *all, compare_lags);
    size_t count = subscribers->count < limit ? subscribers->count : limit;
    memcpy(list, all, count * sizeof *all);
    return count;
}
