/* See setup.h. */
#include "daemon/setup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/signals.h"
#include "daemon/log.h"

#include <math.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int setup_schema(const struct config *config, struct schema *ret_schema)
{
    char path[FILE_PATH_BYTES];
    int result = config_schema_path(config, path, sizeof path);
    if (!result)
        result = schema_load(path, ret_schema);
    return result == ERROR_INPUT || result == ERROR_NOT_FOUND ? ERROR_STATE : result; /* of the configuration */
}

/* What root makes in a service's folder the service's user could not use, and its private database would change hands. */
static int check_owner(const char *state)
{
    struct stat info;
    if (geteuid() != 0 || stat(state, &info) < 0 || info.st_uid == 0)
        return 0;
    const struct passwd *owner = getpwuid(info.st_uid);
    if (!owner)
        return error_set(ERROR_STATE,
                         "%s belongs to user number %u, who has no name: give it to a user of this machine", state,
                         (unsigned)info.st_uid);
    return error_set(ERROR_STATE,
                     "%s belongs to the user %s: do this as that user, not as root (runuser -u %s -- triaged ...)",
                     state, owner->pw_name, owner->pw_name);
}

int setup_folders(const struct config *config)
{
    static const char *const folders[] = {"", "/models", "/pool"};
    char path[FILE_PATH_BYTES];
    int result = check_owner(config->state);
    if (result)
        return result;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        result = file_path(path, sizeof path, "%s%s", config->state, folders[i]);
        if (!result)
            result = file_make_folder(path, 0755);
        if (result)
            return result;
    }
    return file_make_folder(config->run, 0755);
}

int setup_lock(const struct config *config)
{
    char path[FILE_PATH_BYTES];
    int result = file_path(path, sizeof path, "%s/lock", config->state);
    int descriptor = result ? result : file_lock(path);
    if (descriptor == ERROR_UNAVAILABLE)
        return error_set(ERROR_UNAVAILABLE,
                         "another triaged works in %s: stop it, or set instance.state to another folder",
                         config->state);
    return descriptor < 0 ? descriptor : 0; /* it stays open as long as the process lives */
}

int setup_net(const struct config *config, struct net *ret_net)
{
    return net_by_name(config->trunk_network, (int)config->image_channels, (int)config->trunk_side, ret_net);
}

int setup_pool(const struct config *config, const struct schema *schema, enum pool_mode mode, struct pool *ret_pool)
{
    static struct net net;
    char path[FILE_PATH_BYTES];
    int result = setup_net(config, &net);
    if (result)
        return result;
    struct pool_layout layout = {.answers = schema->answers,
                                 .questions = schema->questions,
                                 .embedding_inputs = net.outputs * (int)config->mc_views,
                                 .pixel_side = (int)config->image_side,
                                 .pixel_channels = (int)config->image_channels,
                                 .trunk_weights = config->trunk_weights[0] != 0,
                                 .trunk_side = (int)config->trunk_side,
                                 .trunk_views = (int)config->trunk_views,
                                 .trunk_bf16 = config_precision(config) == PRECISION_BF16,
                                 .augmentation = (int)config_augmentation(config),
                                 .mc_views = (int)config->mc_views,
                                 .mc_depth_per_mille = (int)lround(1000 * config->mc_stochastic_depth)};
    memcpy(layout.schema_hash, schema->hash, sizeof layout.schema_hash);
    result = file_path(path, sizeof path, "%s/pool", config->state);
    return result ? result : pool_open(path, &layout, mode, ret_pool);
}

int setup_database(const struct config *config, bool *ret_owned, struct private_postgres *ret_postgres, char *url,
                   size_t url_size)
{
    char folder[FILE_PATH_BYTES];
    *ret_owned = false;
    if (config->database_url[0])
        return file_path(url, url_size, "%s", config->database_url);
    int result = file_path(folder, sizeof folder, "%s/postgres", config->state);
    if (!result)
        result = private_postgres_start(folder, ret_postgres);
    if (result)
        return result;
    *ret_owned = true;
    return file_path(url, url_size, "%s", ret_postgres->url);
}

int setup_connect(const char *url, int patience_s, struct database **ret_database)
{
    int64_t deadline_ms = clock_patience_ms() + (int64_t)patience_s * 1000;
    int result, told = 0;
    while ((result = database_open(url, ret_database)) == ERROR_UNAVAILABLE && clock_patience_ms() < deadline_ms) {
        if (!told++)
            log_warning(EVENT_DATABASE_AWAY, "the database is away: %s; trying for %d s", error_message(), patience_s);
        if (signals_end_pending())
            return error_set(ERROR_CANCELLED, "asked to stop while waiting for the database");
        poll(NULL, 0, 500);
    }
    return result;
}
