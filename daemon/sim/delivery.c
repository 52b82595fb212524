/* See delivery.h. */
#include "daemon/sim/delivery.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/text.h"
#include "connectors/database.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CONNECTIONS_MAX 16
#define BACKOFF_MS      250 /* between tries while the database is away */
#define ARRAY_BYTES_MAX (SCHEMA_QUESTIONS_MAX * (2 * SCHEMA_NAME_BYTES + 3) + 3)

/* Delivering a row again changes nothing, so a commit whose answer was lost can simply be tried again. */
static const char insert[] = "INSERT INTO triage.vote (classification, question, answer, id_str, voter) "
                             "SELECT $1::bigint, given.question, given.answer, $4, $5 "
                             "FROM unnest($2::text[], $3::text[]) AS given (question, answer) ON CONFLICT DO NOTHING";

struct delivery {
    char url[1024];
    const struct schema *schema;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* the line, for idle threads */
    pthread_cond_t ending;  /* cuts the back-off short */
    struct ballot line[DELIVERY_LINE_MAX];
    int first, in_line, in_hand; /* the line is a ring; in hand = taken by a thread, not committed yet */
    int finishing, giving_up;
    struct delivery_counts counts;
    int threads;
    pthread_t thread[CONNECTIONS_MAX];
};

/* An SQL array literal of the question or answer names. */
static int name_array(const struct schema *schema, const struct ballot *ballot, int answers, struct text *text)
{
    const char *separator = "{";
    for (int q = 0; q < schema->questions; q++) {
        if (ballot->answer[q] < 0)
            continue;
        const char *name = answers ? schema->answer[ballot->answer[q]].name : schema->question[q].name;
        text_append(text, "%s\"", separator);
        for (; *name; name++)
            text_append(text, *name == '"' || *name == '\\' ? "\\%c" : "%c", *name);
        text_append(text, "\"");
        separator = ",";
    }
    text_append(text, "}");
    return text_error(text);
}

/* Sleeps for the back-off, or less when everything ends. Called with the lock held. */
static void wait_a_little(struct delivery *delivery)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += BACKOFF_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&delivery->ending, &delivery->lock, &until);
}

static void book(struct delivery_counts *counts, const struct ballot *ballot)
{
    counts->problem[0] = 0;
    counts->votes_cast += ballot->votes;
    counts->duplicates += ballot->kind == BALLOT_DUPLICATE;
    counts->repeats += ballot->kind == BALLOT_REPEAT;
    if (ballot->kind == BALLOT_FIRST) {
        counts->classifications++;
        counts->votes_distinct_valid += ballot->votes;
    }
}

/* One try. Any failure closes the connection, so that the next try begins afresh. */
static int try_once(const struct delivery *delivery, struct database **database, const char *const parameter[5])
{
    int result = *database ? 0 : database_open(delivery->url, database);
    if (!result)
        result = database_run(*database, insert, 5, parameter, NULL);
    if (result) {
        database_close(*database);
        *database = NULL;
    }
    return result;
}

/* Commits one ballot, however often that fails. Called without the lock; 0 if it was given up. */
static int deliver(struct delivery *delivery, struct database **database, const struct ballot *ballot)
{
    struct text questions = text_new(ARRAY_BYTES_MAX), answers = text_new(ARRAY_BYTES_MAX);
    char classification[32];
    int done = name_array(delivery->schema, ballot, 0, &questions) == 0 &&
               name_array(delivery->schema, ballot, 1, &answers) == 0;
    snprintf(classification, sizeof classification, "%lld", (long long)ballot->classification);
    const char *parameter[] = {classification, questions.bytes, answers.bytes, ballot->id, ballot->voter};
    int result = done ? try_once(delivery, database, parameter) : ERROR_SYSTEM;
    FAULT(BALLOT_DELIVERED);
    pthread_mutex_lock(&delivery->lock);
    while (result) {
        delivery->counts.retries++;
        snprintf(delivery->counts.problem, sizeof delivery->counts.problem, "%s", error_message());
        if (delivery->giving_up || !done)
            break;
        wait_a_little(delivery);
        pthread_mutex_unlock(&delivery->lock);
        result = try_once(delivery, database, parameter);
        pthread_mutex_lock(&delivery->lock);
    }
    if (!result)
        book(&delivery->counts, ballot);
    pthread_mutex_unlock(&delivery->lock);
    text_free(&questions);
    text_free(&answers);
    return result == 0;
}

static void *work(void *context)
{
    struct delivery *delivery = context;
    struct database *database = NULL;
    pthread_mutex_lock(&delivery->lock);
    while (!delivery->giving_up) {
        if (!delivery->in_line) {
            if (delivery->finishing)
                break;
            pthread_cond_wait(&delivery->changed, &delivery->lock);
            continue;
        }
        struct ballot ballot = delivery->line[delivery->first];
        delivery->first = (delivery->first + 1) % DELIVERY_LINE_MAX;
        delivery->in_line--;
        delivery->in_hand++;
        pthread_mutex_unlock(&delivery->lock);
        FAULT(BALLOT_TAKEN);
        int done = deliver(delivery, &database, &ballot);
        pthread_mutex_lock(&delivery->lock);
        if (done)
            delivery->in_hand--;
        if (delivery->finishing)
            pthread_cond_broadcast(&delivery->ending);
    }
    pthread_mutex_unlock(&delivery->lock);
    database_close(database);
    return NULL;
}

int delivery_start(const char *url, const struct schema *schema, int connections, struct delivery **ret_delivery)
{
    struct delivery *delivery = calloc(1, sizeof *delivery);
    if (!delivery)
        return error_set(ERROR_SYSTEM, "out of memory for the line of classifications");
    if (snprintf(delivery->url, sizeof delivery->url, "%s", url) >= (int)sizeof delivery->url) {
        free(delivery);
        return error_set(ERROR_LIMIT, "the database URL is longer than %zu bytes", sizeof delivery->url - 1);
    }
    delivery->schema = schema;
    pthread_mutex_init(&delivery->lock, NULL);
    pthread_cond_init(&delivery->changed, NULL);
    pthread_cond_init(&delivery->ending, NULL);
    connections = connections > CONNECTIONS_MAX ? CONNECTIONS_MAX : connections;
    for (int i = 0; i < connections; i++)
        if (pthread_create(&delivery->thread[i], NULL, work, delivery) == 0)
            delivery->threads++;
        else
            break;
    if (!delivery->threads) {
        delivery_finish(delivery, 0, NULL);
        return error_set(ERROR_SYSTEM, "no thread could be started");
    }
    *ret_delivery = delivery;
    return 0;
}

int delivery_put(struct delivery *delivery, const struct ballot *ballot)
{
    int result = 0;
    pthread_mutex_lock(&delivery->lock);
    if (delivery->in_line == DELIVERY_LINE_MAX)
        result = error_set(ERROR_LIMIT, "%d classifications wait for the database", DELIVERY_LINE_MAX);
    else {
        delivery->line[(delivery->first + delivery->in_line++) % DELIVERY_LINE_MAX] = *ballot;
        pthread_cond_signal(&delivery->changed);
    }
    pthread_mutex_unlock(&delivery->lock);
    return result;
}

void delivery_count(struct delivery *delivery, struct delivery_counts *ret_counts)
{
    pthread_mutex_lock(&delivery->lock);
    *ret_counts = delivery->counts;
    ret_counts->waiting = delivery->in_line + delivery->in_hand;
    pthread_mutex_unlock(&delivery->lock);
}

void delivery_finish(struct delivery *delivery, int64_t patience_ms, struct delivery_counts *ret_counts)
{
    if (!delivery)
        return;
    int64_t progress_ms = clock_ms();
    pthread_mutex_lock(&delivery->lock);
    delivery->finishing = 1;
    pthread_cond_broadcast(&delivery->changed);
    int left = delivery->in_line + delivery->in_hand;
    while (left > 0 && clock_ms() - progress_ms < patience_ms) {
        wait_a_little(delivery);
        if (delivery->in_line + delivery->in_hand < left) {
            left = delivery->in_line + delivery->in_hand;
            progress_ms = clock_ms();
        }
    }
    delivery->giving_up = 1;
    pthread_cond_broadcast(&delivery->changed);
    pthread_cond_broadcast(&delivery->ending);
    pthread_mutex_unlock(&delivery->lock);
    for (int i = 0; i < delivery->threads; i++)
        pthread_join(delivery->thread[i], NULL);
    if (ret_counts)
        delivery_count(delivery, ret_counts);
    pthread_mutex_destroy(&delivery->lock);
    pthread_cond_destroy(&delivery->changed);
    pthread_cond_destroy(&delivery->ending);
    free(delivery);
}
