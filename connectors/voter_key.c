/* See voter_key.h. The one file that knows libsodium. */
#include "connectors/voter_key.h"
#include "base/error.h"
#include "base/file.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HASH_BYTES 16
#define TEXT_BYTES (2 * VOTER_KEY_BYTES + 1)

static int make_key(const char *path, struct voter_key *key)
{
    char text[TEXT_BYTES];
    randombytes_buf(key->bytes, sizeof key->bytes);
    sodium_bin2hex(text, sizeof text, key->bytes, sizeof key->bytes);
    text[TEXT_BYTES - 1] = '\n';
    const struct file_part part = {text, sizeof text};
    int result = file_write(path, &part, 1, 0600);
    sodium_memzero(text, sizeof text);
    return result;
}

int voter_key_open(const char *path, struct voter_key *ret_key)
{
    char *text = NULL;
    size_t length = 0, used = 0;
    if (sodium_init() < 0)
        return error_set(ERROR_SYSTEM, "libsodium cannot start: is there a source of random numbers?");
    struct stat info;
    if (stat(path, &info) == 0 && info.st_mode & 0077)
        return error_set(ERROR_STATE, "others than its owner may read %s: it names volunteers; chmod 600 it", path);
    int result = file_read(path, 4096, &text, &length);
    if (result == ERROR_NOT_FOUND)
        return make_key(path, ret_key);
    if (result)
        return result;
    if (sodium_hex2bin(ret_key->bytes, sizeof ret_key->bytes, text, length, "\n\r ", &used, NULL) ||
        used != sizeof ret_key->bytes)
        result = error_set(ERROR_INPUT, "%s is no key: it holds %d hexadecimal characters; restore it from a backup",
                           path, 2 * VOTER_KEY_BYTES);
    sodium_memzero(text, length);
    free(text);
    return result;
}

/* Of the key, which nobody can find from it: it is random and long. */
static void fingerprint_of(const struct voter_key *key, char text[2 * HASH_BYTES + 1])
{
    unsigned char hash[HASH_BYTES];
    crypto_generichash(hash, sizeof hash, key->bytes, sizeof key->bytes, NULL, 0);
    sodium_bin2hex(text, 2 * HASH_BYTES + 1, hash, sizeof hash);
}

/* `known` is "" where no key was used yet. */
static int open_known(struct database *database, const char *path, const char *known, struct voter_key *ret_key)
{
    char text[2 * HASH_BYTES + 1];
    const char *values[] = {text};
    if (*known && !file_exists(path))
        return error_set(ERROR_STATE,
                         "%s is gone, and the anonymous volunteers in this database were named with it: copy it from "
                         "where votes were imported before, or from a backup; docs/database.md",
                         path);
    int result = voter_key_open(path, ret_key);
    if (result)
        return result;
    fingerprint_of(ret_key, text);
    if (*known && strcmp(known, text) != 0)
        return error_set(ERROR_STATE,
                         "%s is another key (%.8s) than the one this database's anonymous volunteers were named with "
                         "(%.8s): copy that from where votes were imported before; docs/database.md",
                         path, text, known);
    return *known ? 0
                  : database_run(database, "INSERT INTO triage.voter_key (fingerprint) VALUES ($1)", 1, values, NULL);
}

int voter_key_of_database(struct database *database, const char *path, struct voter_key *ret_key)
{
    struct database_result *rows = NULL;
    int result = database_script(database, "BEGIN; LOCK TABLE triage.voter_key"); /* two first imports: one makes it */
    if (!result)
        result = database_run(database, "SELECT max(fingerprint) FROM triage.voter_key", 0, NULL, &rows);
    if (!result)
        result = open_known(database, path, database_text(rows, 0, 0), ret_key);
    database_result_free(rows);
    if (!result)
        result = database_script(database, "COMMIT");
    if (!result)
        return 0;
    char message[ERROR_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", error_message());
    database_script(database, "ROLLBACK");
    voter_key_forget(ret_key);
    return error_set(result, "%s", message);
}

void voter_name(const struct voter_key *key, const char *session, char name[VOTER_NAME_BYTES])
{
    unsigned char hash[HASH_BYTES];
    crypto_generichash(hash, sizeof hash, (const unsigned char *)session, strlen(session), key->bytes,
                       sizeof key->bytes);
    memcpy(name, "s:", 2);
    sodium_bin2hex(name + 2, VOTER_NAME_BYTES - 2, hash, sizeof hash);
}

void voter_key_forget(struct voter_key *key)
{
    sodium_memzero(key, sizeof *key);
}
