/*
 * Plays the random schedules of tests/support/feed_schedules.h against a subscriber at the other end of two pipes:
 * descriptor 3 to it, descriptor 4 from it (tests/e2e/feed_schedules.py).
 *
 *   feed_schedules SEED COUNT
 *
 * To the subscriber: one letter, the length of what follows (4 bytes, little-endian), and that. N: a new one; T: a body
 * of the topic; R: a reply; Q: what does it ask; V: what does it see. Q and V are answered by a length and bytes: the
 * request; or is_live (1), epoch (32), seq, gaps, replays, snapshots, malformed (8 each), and while live for each entry
 * by rank one byte of length and the bytes that its checksum is of.
 */
#include "tests/support/feed_schedules.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES   (1 + 32 + 5 * 8)
#define ANSWER_BYTES 65536
#define PACKED_HEAD  37

static FILE *to, *from;

static void must(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "feed_schedules: %s\n", what);
    exit(1);
}

static void say(char letter, const void *bytes, size_t length)
{
    uint32_t size = (uint32_t)length;
    must(putc(letter, to) == letter && fwrite(&size, 4, 1, to) == 1 && fwrite(bytes, 1, length, to) == length,
         "the subscriber has gone");
}

static size_t ask(char letter, void *answer, size_t room)
{
    uint32_t size;
    say(letter, "", 0);
    must(fflush(to) == 0 && fread(&size, 4, 1, from) == 1 && size <= room && fread(answer, 1, size, from) == size,
         "the subscriber gives no answer");
    return size;
}

static void begin(void *context)
{
    (void)context;
    say('N', "", 0);
}

static void take(void *context, const void *body, size_t length, bool is_reply)
{
    (void)context;
    say(is_reply ? 'R' : 'T', body, length);
}

static size_t request(void *context, void *body)
{
    (void)context;
    return ask('Q', body, SCHEDULE_REQUEST_BYTES);
}

static void unpack(const unsigned char *at, size_t length, struct queue_entry *entry)
{
    memcpy(&entry->rank, at, 4);
    entry->stream = at[4];
    memcpy(&entry->probability, at + 5, 8);
    memcpy(&entry->score, at + 13, 4);
    memcpy(&entry->total, at + 17, 4);
    memcpy(&entry->expected, at + 21, 4);
    memcpy(&entry->model, at + 25, 4);
    memcpy(&entry->leased_until_ms, at + 29, 8);
    memcpy(entry->id_str, at + PACKED_HEAD, length - PACKED_HEAD);
}

static void view(void *context, struct schedule_view *view)
{
    static unsigned char answer[ANSWER_BYTES];
    (void)context;
    size_t length = ask('V', answer, sizeof answer), at = HEAD_BYTES;
    must(length >= HEAD_BYTES, "the subscriber's view is too short");
    memset(view, 0, sizeof *view);
    view->is_live = answer[0];
    memcpy(view->epoch, answer + 1, 32);
    uint64_t *const numbers[] = {&view->seq, &view->gaps, &view->replays, &view->snapshots, &view->malformed};
    for (int i = 0; i < 5; i++)
        memcpy(numbers[i], answer + 33 + 8 * i, 8);
    while (at < length) {
        size_t size = answer[at++];
        must(size > PACKED_HEAD && size < PACKED_HEAD + QUEUE_ID_BYTES && at + size <= length &&
                 view->count < SCHEDULE_ENTRIES_MAX,
             "the subscriber's view is malformed");
        unpack(answer + at, size, &view->entries[view->count++]);
        at += size;
    }
}

int main(int argc, char **argv)
{
    const struct schedule_subscriber subscriber = {.begin = begin, .take = take, .request = request, .view = view};
    struct schedule_counts counts;
    must(argc == 3, "usage: feed_schedules SEED COUNT, with pipes at descriptors 3 and 4");
    uint64_t seed = strtoull(argv[1], NULL, 10), count = strtoull(argv[2], NULL, 10);
    to = fdopen(3, "wb");
    from = fdopen(4, "rb");
    must(to && from, "there are no pipes at descriptors 3 and 4");
    feed_schedules(&subscriber, seed, count, &counts);
    printf(
        "%llu schedules, seeds %llu on: dropped %llu, repeated %llu, reordered %llu, cuts %llu, restarts %llu; gaps "
        "%llu, replays %llu, snapshots %llu; late replies %llu, replies across a restart %llu, too old %llu, in chunks "
        "%llu; compared while live %llu\n",
        (unsigned long long)counts.schedules, (unsigned long long)seed, (unsigned long long)counts.dropped,
        (unsigned long long)counts.repeated, (unsigned long long)counts.reordered, (unsigned long long)counts.cuts,
        (unsigned long long)counts.restarts, (unsigned long long)counts.gaps, (unsigned long long)counts.replays,
        (unsigned long long)counts.snapshots, (unsigned long long)counts.late, (unsigned long long)counts.crossed,
        (unsigned long long)counts.too_old, (unsigned long long)counts.chunked, (unsigned long long)counts.views);
    must(counts.malformed == 0, "the subscriber called a body malformed");
    must(counts.late > count / 2 && counts.crossed > count / 10 && counts.too_old > count / 10 &&
             counts.chunked > count / 20,
         "hardly any reply came late, from before a restart, too old or in chunks");
    must(counts.gaps > count / 10 && counts.replays > count / 2 && counts.snapshots > count && counts.views > 2 * count,
         "hardly anything happened");
    return 0;
}
