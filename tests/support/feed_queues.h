/* Random queues for tests of the feed, and their comparison; draws are counted, so that a seed tells all. */
#ifndef TRIAGE_TESTS_SUPPORT_FEED_QUEUES_H
#define TRIAGE_TESTS_SUPPORT_FEED_QUEUES_H

#include "clients/c/triage_feed.h"
#include "connectors/publisher.h"

#define QUEUE_ENTRIES 1600
#define SCHEMA        "0123456789abcdef0123456789abcdef"

struct draws {
    uint64_t seed;
    uint32_t count;
};

struct test_queue {
    struct queue_entry entries[QUEUE_ENTRIES];
    size_t count;
};

uint32_t draw(struct draws *draws, uint32_t below);
void name_galaxy(char id_str[QUEUE_ID_BYTES], uint32_t galaxy);

/* A new ranking of 1 to `size` galaxies, often those of an earlier one at the same ranks. */
void draw_queue(struct draws *draws, uint32_t size, struct test_queue *queue);

/* Such a ranking published by publisher_zmq, as that of a cycle. */
void publish_drawn(struct publisher_state *feed, uint64_t cycle, struct draws *draws, uint32_t size,
                   struct test_queue *queue);

void remove_from_queue(struct test_queue *queue, const char *id_str);

/* What a client follows, in the publisher's form; how many, at most `limit`. */
size_t followed_queue(struct triage_feed *feed, struct queue_entry *entries, size_t limit);

/* Entry by entry, in rank order; asserts. */
void assert_same_queue(const struct queue_entry *got, size_t count, const struct test_queue *expected);
void assert_follows(struct triage_feed *feed, const struct test_queue *expected);

#endif
