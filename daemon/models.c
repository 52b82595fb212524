/* See models.h. */
#include "daemon/models.h"
#include "base/error.h"
#include "base/file.h"
#include "model/model_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODELS_MAX 20000

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

int models_trunk_of(const struct config *config, uint32_t number, uint32_t *ret_trunk)
{
    struct model model = {0};
    char path[FILE_PATH_BYTES];
    int result = models_path(config, number, path, sizeof path);
    if (!result)
        result = model_load(path, NULL, &model);
    if (!result)
        *ret_trunk = model.trunk_version;
    model_free(&model);
    return result;
}

int models_highest_trunk(const struct config *config, uint32_t *ret_trunk)
{
    char path[FILE_PATH_BYTES];
    int result = file_path(path, sizeof path, "%s/models", config->state);
    DIR *folder = result ? NULL : opendir(path);
    if (!folder)
        return result ? result : error_set_errno("cannot read %s", path);
    *ret_trunk = 0;
    for (const struct dirent *entry; (entry = readdir(folder));) {
        unsigned long number = strncmp(entry->d_name, "trunk-", 6) == 0 ? strtoul(entry->d_name + 6, NULL, 10) : 0;
        if (number > *ret_trunk && number < UINT32_MAX)
            *ret_trunk = (uint32_t)number;
    }
    closedir(folder);
    return 0;
}

void models_delete_trunk(const struct config *config, uint32_t trunk)
{
    int (*const paths[])(const struct config *, uint32_t, char *, size_t) = {models_trunk_path, models_checkpoint_path,
                                                                             models_labels_path};
    char path[FILE_PATH_BYTES];
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (!paths[i](config, trunk, path, sizeof path))
            unlink(path);
}

static int champion_path(const struct config *config, char *path, size_t size)
{
    return file_path(path, size, "%s/models/champion", config->state);
}

int models_champion(const struct config *config, uint32_t *ret_number)
{
    char path[FILE_PATH_BYTES], *text, *end;
    size_t length;
    int result = champion_path(config, path, sizeof path);
    if (result)
        return result;
    result = file_read(path, 64, &text, &length);
    if (result == ERROR_NOT_FOUND) {
        *ret_number = 0;
        return 0;
    }
    if (result)
        return result;
    unsigned long number = strtoul(text, &end, 10);
    if (end == text || *end != '\n' || number == 0 || number > UINT32_MAX)
        result = error_set(ERROR_INPUT, "%s does not hold a model number: write one of 'ls %s/models' into it", path,
                           config->state);
    else
        *ret_number = (uint32_t)number;
    free(text);
    return result;
}

int models_promote(const struct config *config, uint32_t number)
{
    char path[FILE_PATH_BYTES], text[16];
    int result = champion_path(config, path, sizeof path);
    if (result)
        return result;
    int length = snprintf(text, sizeof text, "%u\n", number);
    return file_write(path, &(struct file_part){text, (size_t)length}, 1, 0644);
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

int models_prune(const struct config *config)
{
    uint32_t champion, *numbers = malloc(MODELS_MAX * sizeof *numbers);
    if (!numbers)
        return error_set(ERROR_SYSTEM, "out of memory while listing models");
    int count = models_list(config, numbers, MODELS_MAX), gone = 0;
    int result = count < 0 ? count : models_champion(config, &champion);
    for (int i = 0; !result && i < count - (int)config->models_keep; i++) {
        char path[FILE_PATH_BYTES];
        if (numbers[i] == champion)
            continue;
        result = models_path(config, numbers[i], path, sizeof path);
        if (!result && unlink(path) < 0)
            result = error_set_errno("cannot delete the old model %s", path);
        gone += !result;
    }
    free(numbers);
    return result ? result : gone;
}
