/* See keys.h. */
#include "daemon/ctl/keys.h"
#include "base/error.h"
#include "base/file.h"
#include "connectors/feed_keys.h"
#include "daemon/proto.h"

#include <stdio.h>
#include <string.h>

static struct {
    struct socket_curve key;
    char path[FILE_PATH_BYTES], name[FEED_NAME_BYTES];
    enum feed_role role;
} made; /* by `keys new`; "" when it is something else */

static int usage(void)
{
    fprintf(stderr,
            "triagectl: usage: triagectl keys new NAME [--role subscriber|connector|admin] [--out FILE] | list | "
            "revoke NAME\n");
    return PROTO_EXIT_USAGE;
}

static int refuse(int exit_code)
{
    fprintf(stderr, "triagectl: %s\n", error_message());
    explicit_bzero(&made.key, sizeof made.key);
    return exit_code;
}

static int make(json_t *request, const char *name, const char *role, const char *out)
{
    int result = feed_role_of(role, &made.role);
    if (!result)
        result = out ? file_path(made.path, sizeof made.path, "%s", out)
                     : file_path(made.path, sizeof made.path, "%s.key", name);
    if (!result && file_exists(made.path))
        result =
            error_set(ERROR_STATE, "%s is there already and is left alone: choose another file with --out", made.path);
    if (!result)
        result = socket_curve_make(made.key.public_key, made.key.secret_key);
    if (result)
        return refuse(PROTO_EXIT_USAGE);
    snprintf(made.name, sizeof made.name, "%s", name);
    json_object_set_new(request, "role", json_string(role));
    json_object_set_new(request, "public", json_string(made.key.public_key));
    return 0;
}

int keys_parse(json_t *request, int *json, int count, char **words)
{
    const char *what = NULL, *name = NULL, *role = NULL, *out = NULL;
    for (int i = 0; i < count; i++)
        if (strcmp(words[i], "--json") == 0)
            *json = 1;
        else if (strcmp(words[i], "--role") == 0 && i + 1 < count && !role)
            role = words[++i];
        else if (strcmp(words[i], "--out") == 0 && i + 1 < count && !out)
            out = words[++i];
        else if (words[i][0] == '-' || name)
            return usage();
        else if (!what)
            what = words[i];
        else
            name = words[i];
    int is_new = what && strcmp(what, "new") == 0, is_list = what && strcmp(what, "list") == 0;
    if (!what || (!is_new && !is_list && strcmp(what, "revoke") != 0) || is_list == (name != NULL) ||
        (!is_new && (role || out)))
        return usage();
    json_object_set_new(request, "what", json_string(what));
    if (name)
        json_object_set_new(request, "name", json_string(name));
    return is_new ? make(request, name, role ? role : "subscriber", out) : 0;
}

int keys_finish(const json_t *answer)
{
    const char *server = json_string_value(json_object_get(answer, "server"));
    if (!made.name[0] || !json_is_true(json_object_get(answer, "ok")))
        return 0;
    snprintf(made.key.server_key, sizeof made.key.server_key, "%s", server ? server : "");
    int result = feed_keys_write_client(made.path, made.name, made.role, &made.key);
    if (result) {
        fprintf(stderr, "triagectl: the key is in the daemon's list but its file could not be written; revoke it\n");
        return refuse(PROTO_EXIT_REFUSED);
    }
    explicit_bzero(&made.key, sizeof made.key);
    fprintf(stderr, "the key is in %s; whoever has that file can follow the feed\n", made.path);
    return 0;
}
