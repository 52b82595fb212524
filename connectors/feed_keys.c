/* See feed_keys.h. */
#include "connectors/feed_keys.h"
#include "base/error.h"
#include "base/file.h"
#include "base/ini.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LIST_BYTES_MAX ((size_t)64 << 10)
#define FILE_BYTES_MAX 1024
#define FOLDER_MODE    0700
#define NAME_LETTERS   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"

static const char *const role_names[] = {
    [FEED_SUBSCRIBER] = "subscriber", [FEED_CONNECTOR] = "connector", [FEED_ADMIN] = "admin"};

const char *feed_role_name(enum feed_role role)
{
    return role_names[role];
}

int feed_role_of(const char *name, enum feed_role *ret_role)
{
    for (int i = FEED_SUBSCRIBER; i <= FEED_ADMIN; i++)
        if (strcmp(role_names[i], name) == 0) {
            *ret_role = (enum feed_role)i;
            return 0;
        }
    return error_set(ERROR_INPUT, "there is no role '%.40s': use subscriber, connector or admin", name);
}

/* --- pairs --- */

/* A file with a secret belongs to its owner alone. */
static int check_private(const char *path)
{
    struct stat info;
    if (stat(path, &info) < 0)
        return errno == ENOENT ? error_set(ERROR_NOT_FOUND, "there is no key file %s", path)
                               : error_set_errno("cannot look at %s", path);
    if (info.st_mode & 077)
        return error_set(ERROR_INPUT,
                         "%s holds a secret and others can read it: chmod 0600, and make a new key if "
                         "somebody may have done so",
                         path);
    return 0;
}

static int copy_key(const char *value, char key[SOCKET_KEY_BYTES])
{
    int result = socket_curve_check(value);
    if (!result)
        memcpy(key, value, SOCKET_KEY_BYTES);
    return result;
}

static int on_pair(void *context, const char *section, const char *name, const char *value, int line)
{
    struct socket_curve *key = context;
    (void)section, (void)line;
    if (!name)
        return error_set(ERROR_INPUT, "a key file has no sections");
    if (strcmp(name, "public") == 0)
        return copy_key(value, key->public_key);
    if (strcmp(name, "secret") == 0)
        return copy_key(value, key->secret_key);
    if (strcmp(name, "server") == 0)
        return copy_key(value, key->server_key);
    return 0; /* name and role are for people */
}

static int read_pair(const char *path, struct socket_curve *key)
{
    char public_key[SOCKET_KEY_BYTES];
    *key = (struct socket_curve){0};
    int result = check_private(path);
    if (!result && (result = ini_read(path, on_pair, key))) /* without the reader's message: it may quote the secret */
        result = error_set(
            result, "%s is not a key file: a line is not name=value, or a key is not 40 characters of Z85", path);
    if (!result && (!key->public_key[0] || !key->secret_key[0]))
        result = error_set(ERROR_INPUT, "%s lacks its public or secret key: make a new one", path);
    if (!result)
        result = socket_curve_public(key->secret_key, public_key);
    if (!result && strcmp(public_key, key->public_key) != 0)
        result =
            error_set(ERROR_INPUT, "the public key in %s does not belong to its secret one: make a new pair", path);
    if (result)
        explicit_bzero(key, sizeof *key);
    return result;
}

int feed_keys_read_client(const char *path, struct socket_curve *ret_key)
{
    int result = read_pair(path, ret_key);
    if (!result && !ret_key->server_key[0])
        result = error_set(ERROR_INPUT, "%s lacks the daemon's key (server=...): is it a file of `triagectl keys new`?",
                           path);
    if (result)
        explicit_bzero(ret_key, sizeof *ret_key);
    return result;
}

/* A new file. */
static int write_secret(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), result = 0;
    if (file < 0)
        return errno == EEXIST
                   ? error_set(ERROR_STATE, "%s is there already and is left alone: choose another file", path)
                   : error_set_errno("cannot make %s", path);
    if (write(file, text, strlen(text)) != (ssize_t)strlen(text) || fsync(file) < 0) {
        result = error_set_errno("cannot write %s", path);
        unlink(path);
    }
    close(file);
    return result;
}

int feed_keys_write_client(const char *path, const char *name, enum feed_role role, const struct socket_curve *key)
{
    char text[FILE_BYTES_MAX];
    snprintf(text, sizeof text,
             "# Key for the feed of Galaxy Triage. Whoever has this file can follow the feed: keep it secret.\n"
             "name=%s\nrole=%s\npublic=%s\nsecret=%s\nserver=%s\n",
             name, feed_role_name(role), key->public_key, key->secret_key, key->server_key);
    int result = write_secret(path, text);
    explicit_bzero(text, sizeof text);
    return result;
}

/* --- the daemon's side --- */

static int paths_of(const char *folder, char *pair, char *list)
{
    int result = file_path(pair, FILE_PATH_BYTES, "%s/server.key", folder);
    return result ? result : file_path(list, FILE_PATH_BYTES, "%s/clients", folder);
}

/* The list comes first, so that a start that ends in between leaves an empty list, which is as good as none. */
static int make_server(const char *folder, const char *path)
{
    char text[FILE_BYTES_MAX];
    struct socket_curve key = {0};
    static const struct feed_keys nobody;
    int result = file_make_folder(folder, FOLDER_MODE);
    if (!result)
        result = feed_keys_write(folder, &nobody);
    if (!result)
        result = socket_curve_make(key.public_key, key.secret_key);
    snprintf(text, sizeof text,
             "# The daemon's own key. Every subscriber's key file holds its public part.\npublic=%s\nsecret=%s\n",
             key.public_key, key.secret_key);
    if (!result)
        result = file_write(path, &(struct file_part){text, strlen(text)}, 1, 0600);
    explicit_bzero(&key, sizeof key);
    explicit_bzero(text, sizeof text);
    return result;
}

/* 1 if no key was given out: there is no list, or an empty one. */
static int is_unused(const char *folder, const char *list)
{
    static struct feed_keys keys;
    int result = file_exists(list) ? feed_keys_read(folder, &keys) : 0;
    return result ? result : !file_exists(list) || keys.count == 0;
}

int feed_keys_server(const char *folder, struct socket_curve *ret_server)
{
    char pair[FILE_PATH_BYTES], list[FILE_PATH_BYTES];
    int result = paths_of(folder, pair, list);
    if (!result && !file_exists(pair)) {
        result = is_unused(folder, list);
        result = result == 1 ? make_server(folder, pair) : result;
    }
    if (!result && !file_exists(pair))
        result = error_set(ERROR_INPUT,
                           "%s is missing, but keys were given out (%s): bring it back from a backup, or remove "
                           "the list too and give out new keys",
                           pair, list);
    if (!result && !file_exists(list))
        result = error_set(
            ERROR_INPUT, "%s, the list of keys, is missing: bring it back from a backup, or make an empty file", list);
    return result ? result : read_pair(pair, ret_server);
}

static int check_name(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length >= FEED_NAME_BYTES || strspn(name, NAME_LETTERS) != length)
        return error_set(ERROR_INPUT, "the name of a key has 1 to %d letters, digits, '.', '-' or '_': '%.40s'",
                         FEED_NAME_BYTES - 1, name);
    return 0;
}

static struct feed_key *find_name(struct feed_keys *keys, const char *name)
{
    for (size_t i = 0; i < keys->count; i++)
        if (strcmp(keys->key[i].name, name) == 0)
            return &keys->key[i];
    return NULL;
}

const struct feed_key *feed_keys_find(const struct feed_keys *keys, const char *public_key)
{
    for (size_t i = 0; i < keys->count; i++)
        if (strcmp(keys->key[i].public_key, public_key) == 0)
            return &keys->key[i];
    return NULL;
}

/* A free row with this name. */
static int add_row(struct feed_keys *keys, const char *name)
{
    int result = check_name(name);
    if (result)
        return result;
    if (find_name(keys, name))
        return error_set(ERROR_STATE, "there is a key named %s already: revoke it first, or choose another name", name);
    if (keys->count == FEED_KEYS_MAX)
        return error_set(ERROR_LIMIT, "there are %d keys already: revoke one first", FEED_KEYS_MAX);
    struct feed_key *key = &keys->key[keys->count++];
    *key = (struct feed_key){0};
    snprintf(key->name, sizeof key->name, "%s", name);
    return 0;
}

int feed_keys_add(struct feed_keys *keys, const char *name, enum feed_role role, const char *public_key)
{
    time_t now = time(NULL);
    struct tm day;
    int result = socket_curve_check(public_key);
    if (!result && feed_keys_find(keys, public_key))
        result = error_set(ERROR_STATE, "this key is in the list already");
    if (!result)
        result = add_row(keys, name);
    if (result)
        return result;
    struct feed_key *key = &keys->key[keys->count - 1];
    key->role = role;
    memcpy(key->public_key, public_key, SOCKET_KEY_BYTES);
    strftime(key->made, sizeof key->made, "%Y-%m-%d", gmtime_r(&now, &day));
    return 0;
}

int feed_keys_remove(struct feed_keys *keys, const char *name)
{
    struct feed_key *key = find_name(keys, name);
    if (!key)
        return error_set(ERROR_NOT_FOUND, "there is no key named '%.40s': see triagectl keys list", name);
    memmove(key, key + 1, (size_t)(&keys->key[--keys->count] - key) * sizeof *key);
    return 0;
}

static int on_client(void *context, const char *section, const char *name, const char *value, int line)
{
    struct feed_keys *keys = context;
    (void)line;
    if (!name)
        return add_row(keys, section);
    if (!section[0])
        return error_set(ERROR_INPUT, "'%.40s' comes before the first [name]", name);
    struct feed_key *key = &keys->key[keys->count - 1];
    if (strcmp(name, "role") == 0)
        return feed_role_of(value, &key->role);
    if (strcmp(name, "public") == 0)
        return feed_keys_find(keys, value) ? error_set(ERROR_INPUT, "this key is in the list already")
                                           : copy_key(value, key->public_key);
    if (strcmp(name, "made") == 0) {
        snprintf(key->made, sizeof key->made, "%s", value);
        return 0;
    }
    return error_set(ERROR_INPUT, "unknown key '%.40s'", name);
}

int feed_keys_read(const char *folder, struct feed_keys *ret_keys)
{
    char pair[FILE_PATH_BYTES], list[FILE_PATH_BYTES];
    *ret_keys = (struct feed_keys){0};
    int result = paths_of(folder, pair, list);
    if (!result)
        result = ini_read(list, on_client, ret_keys);
    for (size_t i = 0; i < ret_keys->count && !result; i++)
        if (!ret_keys->key[i].public_key[0])
            result = error_set(ERROR_INPUT, "%s: [%s] has no public key", list, ret_keys->key[i].name);
    return result;
}

int feed_keys_write(const char *folder, const struct feed_keys *keys)
{
    char pair[FILE_PATH_BYTES], list[FILE_PATH_BYTES];
    struct text text = text_new(LIST_BYTES_MAX);
    int result = paths_of(folder, pair, list);
    text_append(&text,
                "# Who may follow the feed; `triagectl keys` changes it. After changes by hand: triagectl reload.\n");
    for (const struct feed_key *key = keys->key; key < keys->key + keys->count; key++)
        text_append(&text, "[%s]\nrole=%s\npublic=%s\nmade=%s\n", key->name, feed_role_name(key->role), key->public_key,
                    key->made);
    if (!result)
        result = text_error(&text);
    if (!result)
        result = file_write(list, &(struct file_part){text.bytes, text.length}, 1, 0640);
    text_free(&text);
    return result;
}
