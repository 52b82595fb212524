/* See feed_queues.h. */
#include "tests/support/feed_queues.h"
#include "base/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define GALAXIES 2000

uint32_t draw(struct draws *draws, uint32_t below)
{
    return philox(draws->seed, draws->count++, 0, 0, 0).word[0] % below;
}

void name_galaxy(char id_str[QUEUE_ID_BYTES], uint32_t galaxy)
{
    snprintf(id_str, QUEUE_ID_BYTES, "J%u", galaxy * 7919);
}

/* Mostly 0, so that an entry often differs from its last state in one number or in none. */
static uint32_t draw_rarely(struct draws *draws)
{
    return draw(draws, 10) == 0;
}

/* A new ranking of about `size` galaxies, often those of an earlier one at the same ranks. */
void draw_queue(struct draws *draws, uint32_t size, struct test_queue *queue)
{
    uint32_t first = draw(draws, 3) * 20;
    queue->count = size ? draw(draws, size) + 1 : 0;
    for (uint32_t i = 0; i < queue->count; i++) {
        struct queue_entry *entry = &queue->entries[i];
        *entry = (struct queue_entry){.key = i + 1,
                                      .rank = i + 1,
                                      .stream = (uint8_t)(i % 3 + draw_rarely(draws)) % 3,
                                      .probability = 0.5 + draw_rarely(draws) * 1e-9,
                                      .score = 0.25f + (float)draw_rarely(draws) * 0x1p-20f,
                                      .total = 0.5f + (float)draw_rarely(draws),
                                      .expected = 0.25f + (float)draw_rarely(draws),
                                      .model = 1 + draw_rarely(draws),
                                      .leased_until_ms = 1 + draw_rarely(draws)};
        name_galaxy(entry->id_str, (first + i) % GALAXIES);
    }
}

void publish_drawn(struct publisher_state *feed, uint64_t cycle, struct draws *draws, uint32_t size,
                   struct test_queue *queue)
{
    draw_queue(draws, size, queue);
    assert_int_equal(publisher_zmq.publish(feed, cycle, 1, queue->entries, queue->count), 0);
}

void remove_from_queue(struct test_queue *queue, const char *id_str)
{
    for (size_t i = 0; i < queue->count; i++)
        if (strcmp(queue->entries[i].id_str, id_str) == 0) {
            memmove(&queue->entries[i], &queue->entries[i + 1], (queue->count - i - 1) * sizeof *queue->entries);
            queue->count--;
            return;
        }
}

/* Entry by entry, in rank order; the key is the daemon's own. */
void assert_same_queue(const struct queue_entry *got, size_t count, const struct test_queue *expected)
{
    assert_int_equal(count, expected->count);
    for (size_t i = 0; i < count; i++) {
        const struct queue_entry *a = &got[i], *b = &expected->entries[i];
        assert_string_equal(a->id_str, b->id_str);
        assert_int_equal(a->rank, b->rank);
        assert_int_equal(a->stream, b->stream);
        assert_true(a->probability == b->probability && a->score == b->score && a->total == b->total &&
                    a->expected == b->expected);
        assert_int_equal(a->model, b->model);
        assert_true(a->leased_until_ms == b->leased_until_ms);
    }
}

size_t followed_queue(struct triage_feed *feed, struct queue_entry *entries, size_t limit)
{
    size_t count;
    const struct triage_feed_entry *got = triage_feed_entries(feed, &count);
    assert_true(count <= limit);
    for (size_t i = 0; i < count; i++) {
        entries[i] = (struct queue_entry){.rank = got[i].rank,
                                          .stream = got[i].stream,
                                          .probability = got[i].probability,
                                          .score = got[i].score,
                                          .total = got[i].total,
                                          .expected = got[i].expected,
                                          .model = got[i].model,
                                          .leased_until_ms = got[i].leased_until_ms};
        memcpy(entries[i].id_str, got[i].id, sizeof got[i].id);
    }
    return count;
}

void assert_follows(struct triage_feed *feed, const struct test_queue *expected)
{
    static struct queue_entry entries[QUEUE_ENTRIES];
    struct triage_feed_status status;
    triage_feed_status(feed, &status);
    assert_true(status.is_live);
    size_t count = followed_queue(feed, entries, QUEUE_ENTRIES);
    assert_same_queue(entries, count, expected);
}
