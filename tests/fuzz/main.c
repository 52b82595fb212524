/*
 * Without a fuzzing engine: every target on its seeds, on corpus/NAME and on seeded mutations of both. Deterministic: the
 * same build does the same each time. Usage: fuzz_test [TARGET [MUTATIONS [SEED]]]
 */
#include "base/philox.h"
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS_MAX        512
#define MUTATIONS_DEFAULT 1500
#define SEED_DEFAULT      20261127

struct inputs {
    struct text text[INPUTS_MAX];
    int count;
};

static void collect_seeds(const struct fuzz_target *target, struct inputs *inputs)
{
    for (int number = 0; target->seed && number < FUZZ_SEEDS_MAX; number++) {
        struct text text = text_new(FUZZ_BYTES_MAX);
        if (!target->seed(number, &text)) {
            text_free(&text);
            return;
        }
        fuzz_require(text_error(&text) == 0, "a seed beyond the limit");
        inputs->text[inputs->count++] = text;
    }
}

static void collect_corpus(const struct fuzz_target *target, struct inputs *inputs)
{
    char folder[256], path[512];
    struct dirent **names;
    snprintf(folder, sizeof folder, TRIAGE_SOURCE_FOLDER "/tests/fuzz/corpus/%s", target->name);
    int count = scandir(folder, &names, NULL, alphasort); /* in the same order everywhere */
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.' && inputs->count < INPUTS_MAX) {
            snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
            inputs->text[inputs->count] = text_new(FUZZ_BYTES_MAX);
            fuzz_read(&inputs->text[inputs->count++], path);
        }
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}

/* One of: a byte changed, a bit flipped, a piece cut out, doubled or overwritten by a piece of another input, cut short. */
static size_t mutate(const struct inputs *inputs, uint64_t seed, uint32_t number, uint8_t *bytes)
{
    const struct text *from = &inputs->text[number % (uint32_t)inputs->count];
    size_t length = from->length;
    memcpy(bytes, from->bytes, length);
    uint32_t changes = 1 + philox(seed, number, 0, 0, 0).word[0] % 4;
    for (uint32_t change = 1; change <= changes && length > 1; change++) {
        struct philox drawn = philox(seed, number, change, 0, 0);
        size_t at = drawn.word[0] % length, span = 1 + drawn.word[1] % (length - at > 64 ? 64 : length - at);
        const struct text *other = &inputs->text[drawn.word[2] % (uint32_t)inputs->count];
        switch (drawn.word[3] % 6) {
        case 0:
            bytes[at] = (uint8_t)drawn.word[1];
            break;
        case 1:
            bytes[at] ^= (uint8_t)(1u << drawn.word[1] % 8);
            break;
        case 2:
            memmove(bytes + at, bytes + at + span, length - at - span);
            length -= span;
            break;
        case 3:
            if (length + span <= FUZZ_BYTES_MAX) {
                memmove(bytes + at + span, bytes + at, length - at);
                length += span;
            }
            break;
        case 4:
            if (other->length >= span)
                memcpy(bytes + at, other->bytes + drawn.word[1] % (other->length - span + 1), span);
            break;
        default:
            length = at;
        }
    }
    return length;
}

/* A copy that ends where the input ends, so that a read beyond it is seen. */
static void run_exactly(const struct fuzz_target *target, const void *bytes, size_t length)
{
    uint8_t *copy = malloc(length + !length);
    fuzz_require(copy != NULL, "memory for an input");
    memcpy(copy, bytes, length);
    target->run(copy, length);
    free(copy);
}

static void run_target(const struct fuzz_target *target, uint32_t mutations, uint64_t seed)
{
    static struct inputs inputs;
    static uint8_t bytes[FUZZ_BYTES_MAX];
    inputs.count = 0;
    if (target->open)
        target->open();
    collect_seeds(target, &inputs);
    collect_corpus(target, &inputs);
    fuzz_require(inputs.count > 0, "a target without inputs");
    run_exactly(target, "", 0);
    for (int i = 0; i < inputs.count; i++)
        run_exactly(target, inputs.text[i].bytes ? inputs.text[i].bytes : "", inputs.text[i].length);
    for (uint32_t number = 0; number < mutations; number++)
        run_exactly(target, bytes, mutate(&inputs, seed, number, bytes));
    printf("%-10s %-40s %4d inputs, %u mutations, seed %llu\n", target->name, target->what, inputs.count, mutations,
           (unsigned long long)seed);
    for (int i = 0; i < inputs.count; i++)
        text_free(&inputs.text[i]);
}

int main(int argc, char **argv)
{
    uint32_t mutations = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : MUTATIONS_DEFAULT;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : SEED_DEFAULT;
    if (argc > 1 && !fuzz_find(argv[1])) {
        fprintf(stderr, "no target '%s'\n", argv[1]);
        return 64;
    }
    for (size_t i = 0; i < fuzz_target_count; i++)
        if (argc < 2 || &fuzz_targets[i] == fuzz_find(argv[1]))
            run_target(&fuzz_targets[i], mutations, seed);
    return 0;
}
