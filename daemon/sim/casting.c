/* See casting.h. */
#include "daemon/sim/casting.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/philox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARALLEL_MAX    4096
#define HELD_MAX        8192 /* classifications held back at a time; more are delivered at once */
#define RECENT_MAX      512  /* classifications remembered for being delivered twice */
#define LATE_MIN_MS     2000
#define LATE_MAX_MS     10000
#define CHOICES         (1u << 16) /* element of PHILOX_VOTES, apart from the questions' */
#define VOTER_NAME      "simulated-%06u"
#define VOTER_NAME_SQL  "'simulated-%'"
#define VOTER_NAME_SKIP 10

struct held {
    int64_t due_ms;
    struct ballot ballot;
};

struct casting {
    struct casting_options options;
    struct oracle *oracle;
    struct delivery *delivery;
    uint32_t *cast;    /* [galaxies] volunteers that each galaxy has had */
    uint8_t *finished; /* [galaxies] */
    size_t open[PARALLEL_MAX];
    int opened, turn, stale;
    int64_t next_classification;
    uint64_t choices; /* drawn so far */
    struct held held[HELD_MAX];
    int held_count;
    struct ballot recent[RECENT_MAX];
    int64_t remembered;
    struct casting_counts counts;
};

int casting_new(const struct casting_options *options, struct oracle *oracle, struct delivery *delivery,
                struct casting **ret_casting)
{
    struct casting *casting = calloc(1, sizeof *casting);
    if (casting) {
        casting->cast = calloc(oracle->galaxies + 1, sizeof *casting->cast);
        casting->finished = calloc(oracle->galaxies + 1, sizeof *casting->finished);
    }
    if (!casting || !casting->cast || !casting->finished) {
        casting_free(casting);
        return error_set(ERROR_SYSTEM, "out of memory for %zu galaxies", oracle->galaxies);
    }
    casting->options = *options;
    if (casting->options.parallel > PARALLEL_MAX)
        casting->options.parallel = PARALLEL_MAX;
    casting->oracle = oracle;
    casting->delivery = delivery;
    /* A million per millisecond of the wall clock: a later run begins above every number of an earlier one.
     */
    casting->next_classification = clock_unix_ms() << 20;
    *ret_casting = casting;
    return 0;
}

void casting_free(struct casting *casting)
{
    if (!casting)
        return;
    free(casting->cast);
    free(casting->finished);
    free(casting);
}

/*
 * The n-th volunteer of a galaxy: people come in a circle that starts at a different one for each galaxy, so
 * nobody comes twice before everybody came once.
 */
static uint32_t volunteer(const struct casting *casting, size_t galaxy, uint32_t n)
{
    return (uint32_t)(((uint64_t)casting->oracle->key[galaxy] + n) % casting->options.volunteers);
}

/* Takes note of a voter of an earlier run: the next one of this galaxy comes behind all of them. */
static void resume_voter(struct casting *casting, const char *id, const char *voter)
{
    int64_t galaxy = oracle_find(casting->oracle, id);
    if (galaxy < 0)
        return;
    uint64_t people = casting->options.volunteers, number = strtoull(voter + VOTER_NAME_SKIP, NULL, 10) % people;
    uint32_t n = (uint32_t)((number + people - volunteer(casting, (size_t)galaxy, 0)) % people);
    if (n >= casting->cast[galaxy])
        casting->cast[galaxy] = n + 1;
}

static void resume_votes(struct casting *casting, const char *id, const char *question, const char *answer,
                         int64_t votes)
{
    const struct oracle *oracle = casting->oracle;
    int64_t galaxy = oracle_find(oracle, id), index = schema_find_answer(oracle->schema, question, answer);
    if (galaxy < 0 || index < 0)
        return;
    uint16_t *remaining = &oracle->remaining[galaxy * oracle->schema->answers + index];
    *remaining = votes > *remaining ? 0 : (uint16_t)(*remaining - votes);
}

int casting_resume(struct casting *casting, struct database *database)
{
    struct database_result *result;
    int code = database_run(database,
                            "SELECT id_str, voter FROM triage.vote WHERE voter LIKE " VOTER_NAME_SQL " GROUP BY 1, 2",
                            0, NULL, &result);
    if (code)
        return code;
    for (int row = 0; row < database_rows(result); row++)
        resume_voter(casting, database_value(result, row, 0), database_value(result, row, 1));
    database_result_free(result);
    if (casting->oracle->source != ORACLE_COUNTS)
        return 0;
    code = database_run(database,
                        "SELECT id_str, question, answer, count(DISTINCT voter) FROM triage.vote "
                        "WHERE voter LIKE " VOTER_NAME_SQL " GROUP BY 1, 2, 3",
                        0, NULL, &result);
    if (code)
        return code;
    for (int row = 0; row < database_rows(result); row++)
        resume_votes(casting, database_value(result, row, 0), database_value(result, row, 1),
                     database_value(result, row, 2), database_integer(result, row, 3));
    database_result_free(result);
    return 0;
}

void casting_begin_offer(struct casting *casting)
{
    casting->opened = 0;
    casting->stale = 0;
    casting->counts.unknown = 0;
}

static void finish(struct casting *casting, size_t galaxy)
{
    casting->counts.exhausted += !casting->finished[galaxy];
    casting->finished[galaxy] = 1;
    casting->stale = 1;
}

void casting_offer(struct casting *casting, const char *id)
{
    int64_t galaxy = oracle_find(casting->oracle, id);
    if (galaxy < 0) {
        casting->counts.unknown++;
        return;
    }
    if (!casting->finished[galaxy] && casting->opened < casting->options.parallel)
        casting->open[casting->opened++] = (size_t)galaxy;
}

int casting_is_stale(const struct casting *casting)
{
    return casting->stale;
}

/* Four uniform numbers for the choices around one classification. */
static struct philox choose(struct casting *casting)
{
    uint64_t n = casting->choices++;
    return philox(casting->options.seed, CHOICES, (uint32_t)n, (uint32_t)(n >> 32), PHILOX_VOTES);
}

static int classify(struct casting *casting, size_t galaxy, struct ballot *ballot)
{
    int answer[SCHEMA_QUESTIONS_MAX];
    uint32_t n = casting->cast[galaxy];
    memset(ballot, 0, sizeof *ballot);
    if (n < casting->options.volunteers)
        ballot->votes = volunteers_walk(casting->oracle, galaxy, casting->options.seed, n, answer);
    if (!ballot->votes)
        return 0;
    casting->cast[galaxy]++;
    ballot->classification = casting->next_classification++;
    memcpy(ballot->id, casting->oracle->id[galaxy], sizeof ballot->id);
    snprintf(ballot->voter, sizeof ballot->voter, VOTER_NAME, volunteer(casting, galaxy, n));
    for (int q = 0; q < casting->oracle->schema->questions; q++)
        ballot->answer[q] = (short)answer[q];
    return 1;
}

/* An earlier classification is delivered again, unchanged or under a new number. */
static void again(struct casting *casting, enum ballot_kind kind, uint32_t word)
{
    int64_t known = casting->remembered < RECENT_MAX ? casting->remembered : RECENT_MAX;
    if (!known)
        return;
    struct ballot ballot = casting->recent[word % known];
    ballot.kind = kind;
    if (kind == BALLOT_REPEAT)
        ballot.classification = casting->next_classification++;
    delivery_put(casting->delivery, &ballot); /* with a full line there is one duplicate less */
}

static int hold(struct casting *casting, const struct ballot *ballot, uint32_t word)
{
    if (casting->held_count == HELD_MAX)
        return 0;
    int64_t wait_ms = LATE_MIN_MS + word % (LATE_MAX_MS - LATE_MIN_MS);
    casting->held[casting->held_count++] = (struct held){clock_ms() + wait_ms, *ballot};
    casting->counts.late++;
    return 1;
}

int casting_cast(struct casting *casting)
{
    struct delivery_counts line;
    struct ballot ballot;
    delivery_count(casting->delivery, &line);
    if (line.waiting >= DELIVERY_LINE_MAX / 2) /* the rest is for late ones and duplicates */
        return error_set(ERROR_LIMIT, "%lld classifications wait for the database", (long long)line.waiting);
    for (int tries = casting->opened; tries > 0; tries--) {
        size_t galaxy = casting->open[casting->turn++ % casting->opened];
        casting->turn %= casting->opened;
        if (casting->finished[galaxy])
            continue;
        if (!classify(casting, galaxy, &ballot)) {
            finish(casting, galaxy);
            continue;
        }
        struct philox chosen = choose(casting), moments = choose(casting);
        if (philox_uniform(chosen.word[0]) < casting->options.late && hold(casting, &ballot, moments.word[0]))
            return 1;
        int result = delivery_put(casting->delivery, &ballot);
        if (result)
            return result;
        casting->recent[casting->remembered++ % RECENT_MAX] = ballot;
        if (philox_uniform(chosen.word[1]) < casting->options.duplicates)
            again(casting, BALLOT_DUPLICATE, moments.word[1]);
        if (philox_uniform(chosen.word[2]) < casting->options.repeats)
            again(casting, BALLOT_REPEAT, moments.word[2]);
        return 1;
    }
    return 0;
}

int casting_release(struct casting *casting, int all)
{
    int64_t now_ms = clock_ms();
    for (int i = 0; i < casting->held_count;) {
        if ((all || casting->held[i].due_ms <= now_ms) &&
            delivery_put(casting->delivery, &casting->held[i].ballot) == 0)
            casting->held[i] = casting->held[--casting->held_count];
        else
            i++;
    }
    return casting->held_count;
}

void casting_count(const struct casting *casting, struct casting_counts *ret_counts)
{
    *ret_counts = casting->counts;
    ret_counts->held = casting->held_count;
}
