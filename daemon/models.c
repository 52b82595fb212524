/* See models.h. */
#include "daemon/models.h"
#include "base/error.h"
#include "base/file.h"
#include "model/model_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODELS_MAX      20000
#define TRUNK_FILES_MAX 1000

int models_path(const struct config *config, uint32_t number, char *path, size_t size)
{
    return file_path(path, size, "%s/models/%06u.model", config->state, number);
}

int models_trunk_path(const struct config *config, uint32_t trunk, char *path, size_t size)
{
    return file_path(path, size, "%s/models/trunk-%06u.safetensors", config->state, trunk);
}

int models_checkpoint_path(const struct config *config, uint32_t trunk, char *path, size_t size)
{
    return file_path(path, size, "%s/models/trunk-%06u.checkpoint", config->state, trunk);
}

int models_labels_path(const struct config *config, uint32_t trunk, char *path, size_t size)
{
    return file_path(path, size, "%s/models/trunk-%06u.labels", config->state, trunk);
}

int models_stopped_path(const struct config *config, uint32_t trunk, char *path, size_t size)
{
    return file_path(path, size, "%s/models/trunk-%06u.stopped", config->state, trunk);
}

int models_trunk_of(const struct config *config, const struct schema *schema, uint32_t number, uint32_t *ret_trunk)
{
    struct model model = {0};
    char path[FILE_PATH_BYTES];
    int result = models_path(config, number, path, sizeof path);
    if (!result)
        result = model_load(path, schema, &model);
    if (!result && strcmp(model.architecture, config->trunk_network) != 0)
        result =
            error_set(ERROR_STATE,
                      "%s was fitted to embeddings of the network %s, trunk.network is %s: set it back, or stop the "
                      "service and move pool and models of the state folder away, both are made again",
                      path, model.architecture, config->trunk_network);
    if (!result)
        *ret_trunk = model.trunk_version;
    model_free(&model);
    return result;
}

/* Numbers of the files of trunks, one for each file, at most `limit`. Returns how many, or a negative code. */
static int list_trunks(const struct config *config, uint32_t *numbers, int limit)
{
    char path[FILE_PATH_BYTES];
    int result = file_path(path, sizeof path, "%s/models", config->state), count = 0;
    DIR *folder = result ? NULL : opendir(path);
    if (!folder)
        return result ? result : error_set_errno("cannot read %s", path);
    for (const struct dirent *entry; (entry = readdir(folder)) && count < limit;) {
        unsigned long number = strncmp(entry->d_name, "trunk-", 6) == 0 ? strtoul(entry->d_name + 6, NULL, 10) : 0;
        if (number > 0 && number < UINT32_MAX)
            numbers[count++] = (uint32_t)number;
    }
    closedir(folder);
    return count;
}

int models_highest_trunk(const struct config *config, uint32_t *ret_trunk)
{
    uint32_t numbers[TRUNK_FILES_MAX];
    int count = list_trunks(config, numbers, TRUNK_FILES_MAX);
    *ret_trunk = 0;
    for (int i = 0; i < count; i++)
        if (numbers[i] > *ret_trunk)
            *ret_trunk = numbers[i];
    return count < 0 ? count : 0;
}

void models_delete_run(const struct config *config, uint32_t trunk)
{
    char path[FILE_PATH_BYTES];
    if (!models_checkpoint_path(config, trunk, path, sizeof path))
        unlink(path);
    if (!models_labels_path(config, trunk, path, sizeof path))
        unlink(path);
    if (!models_stopped_path(config, trunk, path, sizeof path))
        unlink(path);
}

void models_delete_trunk(const struct config *config, uint32_t trunk)
{
    char path[FILE_PATH_BYTES];
    models_delete_run(config, trunk);
    if (!models_trunk_path(config, trunk, path, sizeof path))
        unlink(path);
}

/* At most one of each is kept, for whoever wants to know what happened. */
static void set_aside_run(const struct config *config, uint32_t trunk,
                          int (*path_of)(const struct config *, uint32_t, char *, size_t), const char *name)
{
    char from[FILE_PATH_BYTES], to[FILE_PATH_BYTES];
    if (!path_of(config, trunk, from, sizeof from) &&
        !file_path(to, sizeof to, "%s/models/set-aside.%s", config->state, name) && rename(from, to) < 0)
        unlink(from);
}

void models_set_aside_checkpoint(const struct config *config, uint32_t trunk)
{
    set_aside_run(config, trunk, models_checkpoint_path, "checkpoint");
}

void models_set_aside_trunk(const struct config *config, uint32_t trunk)
{
    set_aside_run(config, trunk, models_labels_path, "labels");
    set_aside_run(config, trunk, models_checkpoint_path, "checkpoint");
}

static int champion_path(const struct config *config, char *path, size_t size)
{
    return file_path(path, size, "%s/models/champion", config->state);
}

/* The champion that the one in use replaced. */
static int previous_path(const struct config *config, char *path, size_t size)
{
    return file_path(path, size, "%s/models/previous", config->state);
}

/* 0 where there is no file. */
static int read_number(const char *path, uint32_t *ret_number)
{
    char *text, *end;
    size_t length;
    *ret_number = 0;
    int result = file_read(path, 64, &text, &length);
    if (result)
        return result == ERROR_NOT_FOUND ? 0 : result;
    unsigned long number = strtoul(text, &end, 10);
    if (end == text || *end != '\n' || number == 0 || number > UINT32_MAX)
        result = error_set(ERROR_INPUT, "%s does not hold a model number", path);
    else
        *ret_number = (uint32_t)number;
    free(text);
    return result;
}

int models_champion(const struct config *config, uint32_t *ret_number)
{
    char path[FILE_PATH_BYTES];
    int result = champion_path(config, path, sizeof path);
    return result ? result : read_number(path, ret_number);
}

static int write_number(const char *path, uint32_t number)
{
    char text[16];
    int length = snprintf(text, sizeof text, "%u\n", number);
    return file_write(path, &(struct file_part){text, (size_t)length}, 1, 0644);
}

int models_promote(const struct config *config, uint32_t number)
{
    char path[FILE_PATH_BYTES];
    uint32_t champion = 0;
    int result = previous_path(config, path, sizeof path);
    if (!result && !models_champion(config, &champion) && champion && champion != number)
        result = write_number(path, champion);
    if (!result)
        result = champion_path(config, path, sizeof path);
    return result ? result : write_number(path, number);
}

/* --- when the champion is damaged ---------------------------------------------------------------------------------- */

static bool loads(const struct config *config, const struct schema *schema, uint32_t number)
{
    uint32_t trunk;
    return number && models_trunk_of(config, schema, number, &trunk) == 0;
}

/* The champion before, else the newest one below that can be read; 0 if there is none. */
static uint32_t successor(const struct config *config, const struct schema *schema, uint32_t damaged)
{
    char path[FILE_PATH_BYTES];
    uint32_t previous = 0, found = 0, *numbers = malloc(MODELS_MAX * sizeof *numbers);
    if (!previous_path(config, path, sizeof path) && !read_number(path, &previous) && previous != damaged &&
        loads(config, schema, previous))
        found = previous;
    int count = numbers ? models_list(config, numbers, MODELS_MAX) : 0;
    for (int i = count - 1; i >= 0 && !found; i--)
        if (numbers[i] != damaged && (!damaged || numbers[i] < damaged) && loads(config, schema, numbers[i]))
            found = numbers[i];
    free(numbers);
    return found;
}

static void set_aside(const char *path)
{
    char aside[FILE_PATH_BYTES];
    if (!file_path(aside, sizeof aside, "%s.damaged", path))
        rename(path, aside);
}

int models_sound_champion(const struct config *config, const struct schema *schema, uint32_t *ret_number, char *words,
                          size_t size)
{
    char path[FILE_PATH_BYTES], pointer[FILE_PATH_BYTES];
    uint32_t trunk;
    words[0] = 0;
    *ret_number = 0;
    int result = models_champion(config, ret_number);
    if (!result && *ret_number)
        result = models_trunk_of(config, schema, *ret_number, &trunk);
    if (result != ERROR_INPUT && result != ERROR_NOT_FOUND)
        return result;
    snprintf(words, size, "%s", error_message());
    if (*ret_number && !models_path(config, *ret_number, path, sizeof path))
        set_aside(path);
    *ret_number = successor(config, schema, *ret_number);
    result = champion_path(config, pointer, sizeof pointer);
    if (!result && !*ret_number)
        set_aside(pointer);
    return result || !*ret_number ? result : write_number(pointer, *ret_number);
}

static int compare_numbers(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

int models_list(const struct config *config, uint32_t *numbers, int limit)
{
    char folder[FILE_PATH_BYTES];
    int result = file_path(folder, sizeof folder, "%s/models", config->state), count = 0;
    if (result)
        return result;
    DIR *listing = opendir(folder);
    if (!listing)
        return errno == ENOENT ? 0 : error_set_errno("cannot list %s", folder);
    for (struct dirent *entry; (entry = readdir(listing)) && count < limit;) {
        char *end;
        unsigned long number = strtoul(entry->d_name, &end, 10);
        if (end != entry->d_name && strcmp(end, ".model") == 0 && number > 0 && number <= UINT32_MAX)
            numbers[count++] = (uint32_t)number;
    }
    closedir(listing);
    qsort(numbers, (size_t)count, sizeof *numbers, compare_numbers);
    return count;
}

int models_highest(const struct config *config, uint32_t *number)
{
    uint32_t *numbers = malloc(MODELS_MAX * sizeof *numbers);
    if (!numbers)
        return error_set(ERROR_SYSTEM, "out of memory while listing models");
    int count = models_list(config, numbers, MODELS_MAX);
    if (count > 0 && numbers[count - 1] > *number)
        *number = numbers[count - 1];
    free(numbers);
    return count < 0 ? count : 0;
}

/* Weights are for the models that need them. A run under way has a higher number than any model's trunk. */
static void prune_trunks(const struct config *config, const uint32_t *models, int count)
{
    uint32_t trunks[TRUNK_FILES_MAX], *named = calloc((size_t)count + 1, sizeof *named), highest = 0;
    int files = named ? list_trunks(config, trunks, TRUNK_FILES_MAX) : 0;
    char path[FILE_PATH_BYTES];
    for (int i = 0; named && i < count; i++)
        if (!models_path(config, models[i], path, sizeof path) && !model_trunk(path, &named[i]) && named[i] > highest)
            highest = named[i];
    for (int f = 0; f < files; f++) {
        int wanted = trunks[f] > highest;
        for (int i = 0; i < count; i++)
            wanted |= named[i] == trunks[f];
        if (!wanted)
            models_delete_trunk(config, trunks[f]);
    }
    free(named);
}

int models_prune(const struct config *config)
{
    char before[FILE_PATH_BYTES];
    uint32_t champion, previous = 0, *numbers = malloc(MODELS_MAX * sizeof *numbers);
    if (!numbers)
        return error_set(ERROR_SYSTEM, "out of memory while listing models");
    int count = models_list(config, numbers, MODELS_MAX), gone = 0;
    int result = count < 0 ? count : models_champion(config, &champion);
    if (!result)
        result = previous_path(config, before, sizeof before);
    if (!result)
        read_number(before, &previous); /* unreadable: nothing to spare */
    for (int i = 0; !result && i < count - (int)config->models_keep; i++) {
        char path[FILE_PATH_BYTES];
        if (numbers[i] == champion || numbers[i] == previous)
            continue;
        result = models_path(config, numbers[i], path, sizeof path);
        if (!result && unlink(path) < 0)
            result = error_set_errno("cannot delete the old model %s", path);
        gone += !result;
    }
    if (!result) /* numbers of models that are gone name no trunk */
        prune_trunks(config, numbers, count);
    free(numbers);
    return result ? result : gone;
}
