/* See volunteers.h. */
#include "connectors/volunteers.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/philox.h"

#include <stdlib.h>
#include <string.h>

void oracle_new(const struct schema *schema, enum oracle_source source, struct oracle *ret_oracle)
{
    memset(ret_oracle, 0, sizeof *ret_oracle);
    ret_oracle->schema = schema;
    ret_oracle->source = source;
}

void oracle_free(struct oracle *oracle)
{
    free(oracle->id);
    free(oracle->key);
    free(oracle->probability);
    free(oracle->remaining);
    free(oracle->slot);
    memset(oracle, 0, sizeof *oracle);
}

/* The slot of this id, or the free one where it would go. */
static size_t find_slot(const struct oracle *oracle, const char *id)
{
    size_t mask = oracle->slots - 1, at = hash_64(id, strlen(id)) & mask;
    while (oracle->slot[at] && strcmp(oracle->id[oracle->slot[at] - 1], id) != 0)
        at = (at + 1) & mask;
    return at;
}

int64_t oracle_find(const struct oracle *oracle, const char *id)
{
    if (!oracle->slots)
        return -1;
    return (int64_t)oracle->slot[find_slot(oracle, id)] - 1;
}

/* Keeps the table at most half full, so that a free slot is always near. */
static int grow_slots(struct oracle *oracle, size_t galaxies)
{
    size_t slots = 64;
    while (slots < 2 * galaxies)
        slots *= 2;
    uint32_t *slot = calloc(slots, sizeof *slot);
    if (!slot)
        return error_set(ERROR_SYSTEM, "out of memory for %zu galaxies", galaxies);
    free(oracle->slot);
    oracle->slot = slot;
    oracle->slots = slots;
    for (size_t i = 0; i < oracle->galaxies; i++)
        slot[find_slot(oracle, oracle->id[i])] = (uint32_t)i + 1;
    return 0;
}

static int grow_array(void **array, size_t count, size_t size)
{
    void *larger = realloc(*array, count * size);
    if (!larger)
        return error_set(ERROR_SYSTEM, "out of memory for %zu galaxies", count);
    *array = larger;
    return 0;
}

static int make_room(struct oracle *oracle)
{
    if (oracle->galaxies < oracle->capacity)
        return 0;
    if (oracle->galaxies >= ORACLE_GALAXIES_MAX)
        return error_set(ERROR_LIMIT, "more than %d galaxies", ORACLE_GALAXIES_MAX);
    size_t capacity = oracle->capacity ? 2 * oracle->capacity : 64, answers = (size_t)oracle->schema->answers;
    int result = grow_array((void **)&oracle->id, capacity, ORACLE_ID_BYTES);
    if (!result)
        result = grow_array((void **)&oracle->key, capacity, sizeof *oracle->key);
    if (!result && oracle->source == ORACLE_PROBABILITIES)
        result = grow_array((void **)&oracle->probability, capacity, answers * sizeof(float));
    if (!result && oracle->source == ORACLE_COUNTS)
        result = grow_array((void **)&oracle->remaining, capacity, answers * sizeof(uint16_t));
    if (!result)
        result = grow_slots(oracle, capacity);
    if (!result)
        oracle->capacity = capacity;
    return result;
}

static int check_values(const struct oracle *oracle, const char *id, const double *value)
{
    for (int i = 0; i < oracle->schema->answers; i++) {
        const char *column = oracle->schema->answer[i].column;
        if (!isfinite(value[i]) || value[i] < 0)
            return error_set(ERROR_INPUT, "galaxy %s: %s = %g, where zero or more is meant", id, column, value[i]);
        if (oracle->source == ORACLE_PROBABILITIES)
            continue;
        if (value[i] > ORACLE_COUNT_MAX)
            return error_set(ERROR_LIMIT, "galaxy %s: %s = %g is more than %d votes", id, column, value[i],
                             ORACLE_COUNT_MAX);
        if (value[i] != floor(value[i]))
            return error_set(ERROR_INPUT, "galaxy %s: %s = %g is no count: give whole votes or probabilities", id,
                             column, value[i]);
    }
    return 0;
}

static void store_probabilities(const struct schema *schema, const double *value, float *probability)
{
    for (int q = 0; q < schema->questions; q++) {
        int first = schema->question[q].first, end = first + schema->question[q].count;
        double sum = 0;
        for (int i = first; i < end; i++)
            sum += value[i];
        for (int i = first; i < end; i++)
            probability[i] = sum > 0 ? (float)(value[i] / sum) : 0;
    }
}

int oracle_add(struct oracle *oracle, const char *id, const double *value)
{
    if (!*id)
        return error_set(ERROR_INPUT, "a galaxy without id_str");
    if (strlen(id) >= ORACLE_ID_BYTES)
        return error_set(ERROR_LIMIT, "id_str '%.80s' is longer than %d characters", id, ORACLE_ID_BYTES - 1);
    if (oracle_find(oracle, id) >= 0)
        return error_set(ERROR_INPUT, "galaxy %s is there twice", id);
    int result = check_values(oracle, id, value);
    if (!result)
        result = make_room(oracle);
    if (result)
        return result;
    size_t galaxy = oracle->galaxies, answers = (size_t)oracle->schema->answers;
    oracle->slot[find_slot(oracle, id)] = (uint32_t)galaxy + 1;
    memcpy(oracle->id[galaxy], id, strlen(id) + 1);
    oracle->key[galaxy] = (uint32_t)hash_64(id, strlen(id));
    if (oracle->source == ORACLE_PROBABILITIES)
        store_probabilities(oracle->schema, value, oracle->probability + galaxy * answers);
    for (size_t i = 0; oracle->source == ORACLE_COUNTS && i < answers; i++)
        oracle->remaining[galaxy * answers + i] = (uint16_t)value[i];
    oracle->galaxies++;
    return 0;
}

/* Is this question asked, after the answers given so far? */
static int is_asked(const struct schema *schema, const struct question *question, const int *answer)
{
    if (question->asked_after_count == 0)
        return 1;
    for (int i = 0; i < question->asked_after_count; i++) {
        int before = question->asked_after[i];
        if (answer[schema->answer[before].question] == before)
            return 1;
    }
    return 0;
}

/* An answer by probability, or -1 where all are zero. */
static int draw_probability(const struct question *question, const float *probability, uint32_t word)
{
    float at = philox_uniform(word), sum = 0;
    int last = -1;
    for (int i = question->first; i < question->first + question->count; i++) {
        if (probability[i] <= 0)
            continue;
        sum += probability[i];
        last = i; /* rounding may leave the sum just below the number drawn */
        if (at < sum)
            return i;
    }
    return last;
}

static uint32_t votes_left(const struct question *question, const uint16_t *remaining)
{
    uint32_t total = 0;
    for (int i = question->first; i < question->first + question->count; i++)
        total += remaining[i];
    return total;
}

/* An answer in proportion to the votes left, which is consumed; -1 where none is left. */
static int draw_count(const struct question *question, uint16_t *remaining, uint32_t word)
{
    uint32_t at = (uint32_t)((uint64_t)word * votes_left(question, remaining) >> 32);
    for (int i = question->first; i < question->first + question->count; i++) {
        if (at < remaining[i]) {
            remaining[i]--;
            return i;
        }
        at -= remaining[i];
    }
    return -1;
}

static int walk(const struct schema *schema, const float *probability, uint16_t *remaining, uint64_t seed, uint32_t key,
                uint32_t classification, int *answer)
{
    int votes = 0;
    for (int q = 0; q < schema->questions; q++)
        answer[q] = -1;
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        if (!is_asked(schema, question, answer))
            continue;
        uint32_t word = philox(seed, (uint32_t)q, key, classification, PHILOX_VOTES).word[0];
        answer[q] = remaining ? draw_count(question, remaining, word) : draw_probability(question, probability, word);
        votes += answer[q] >= 0;
    }
    return votes;
}

int volunteers_walk_probabilities(const struct schema *schema, const float *probability, uint64_t seed, uint32_t key,
                                  uint32_t classification, int *answer)
{
    return walk(schema, probability, NULL, seed, key, classification, answer);
}

int volunteers_walk(struct oracle *oracle, size_t galaxy, uint64_t seed, uint32_t classification, int *answer)
{
    size_t answers = (size_t)oracle->schema->answers;
    const float *probability = oracle->probability ? oracle->probability + galaxy * answers : NULL;
    uint16_t *remaining = oracle->remaining ? oracle->remaining + galaxy * answers : NULL;
    return walk(oracle->schema, probability, remaining, seed, oracle->key[galaxy], classification, answer);
}

int oracle_exhausted(const struct oracle *oracle, size_t galaxy)
{
    const struct schema *schema = oracle->schema;
    size_t answers = (size_t)schema->answers;
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        if (question->asked_after_count > 0)
            continue;
        if (oracle->remaining && votes_left(question, oracle->remaining + galaxy * answers) > 0)
            return 0;
        for (int i = question->first; oracle->probability && i < question->first + question->count; i++)
            if (oracle->probability[galaxy * answers + (size_t)i] > 0)
                return 0;
    }
    return 1;
}
