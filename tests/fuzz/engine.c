/*
 * One target under libFuzzer. Usage: fuzz_engine TARGET [OPTIONS AND FOLDERS OF libFuzzer]. With SEEDS=FOLDER in the environment
 * the target's own valid inputs are written there first.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct fuzz_target *target;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void write_seeds(const char *folder)
{
    char path[512];
    for (int number = 0; target->seed && number < FUZZ_SEEDS_MAX; number++) {
        struct text text = text_new(FUZZ_BYTES_MAX);
        int more = target->seed(number, &text);
        snprintf(path, sizeof path, "%s/seed-%d", folder, number);
        FILE *file = more ? fopen(path, "wb") : NULL;
        if (file) {
            fwrite(text.bytes, 1, text.length, file);
            fclose(file);
        }
        text_free(&text);
        if (!more)
            return;
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = *argc > 1 ? (*argv)[1] : "", *folder = getenv("SEEDS");
    target = fuzz_find(name);
    if (!target) {
        fprintf(stderr, "no target '%s'\n", name);
        exit(64);
    }
    memmove(*argv + 1, *argv + 2, (size_t)(*argc - 1) * sizeof **argv);
    (*argc)--;
    if (target->open)
        target->open();
    if (folder)
        write_seeds(folder);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    target->run(bytes, length);
    return 0;
}
