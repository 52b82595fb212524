/* See migrate.h. */
#include "connectors/migrate.h"
#include "base/error.h"
#include "base/hash.h"
#include "connectors/migrations.h"

#include <stdio.h>
#include <string.h>

#define LOCK   "SELECT pg_advisory_lock(7214300)"
#define UNLOCK "SELECT pg_advisory_unlock(7214300)"

static int run_one(struct database *database, const struct migration *migration, const char *checksum)
{
    char number[16];
    snprintf(number, sizeof number, "%d", migration->number);
    const char *values[] = {number, migration->name, checksum};
    int result = database_script(database, "BEGIN");
    if (!result)
        result = database_script(database, migration->text);
    if (!result)
        result = database_run(database, "INSERT INTO triage.migration (number, name, checksum) VALUES ($1, $2, $3)", 3,
                              values, NULL);
    if (!result)
        return database_script(database, "COMMIT");
    char message[ERROR_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", error_message());
    database_script(database, "ROLLBACK");
    return error_set(result, "migration %s: %s", migration->name, message);
}

static int run_missing(struct database *database)
{
    struct database_result *done;
    int result =
        database_run(database, "SELECT number, checksum FROM triage.migration ORDER BY number", 0, NULL, &done);
    if (result)
        return result;
    int have = database_rows(done);
    if (have > migration_count)
        result = error_set(ERROR_STATE, "the database is at version %d, this program knows %d: use the newer triaged",
                           have, migration_count);
    for (int i = 0; i < migration_count && !result; i++) {
        char checksum[HASH_TEXT_BYTES];
        hash_text(migrations[i].text, migrations[i].length, checksum);
        if (i >= have)
            result = run_one(database, &migrations[i], checksum);
        else if (strcmp(database_text(done, i, 1), checksum) != 0)
            result = error_set(ERROR_STATE,
                               "migration %s was run from another file (%s there, %s here): use the program "
                               "that made this database",
                               migrations[i].name, database_value(done, i, 1), checksum);
    }
    database_result_free(done);
    return result;
}

int migrate_run(struct database *database)
{
    int result = database_run(database, LOCK, 0, NULL, NULL);
    if (result)
        return result;
    result =
        database_script(database, "CREATE SCHEMA IF NOT EXISTS triage; CREATE TABLE IF NOT EXISTS triage.migration "
                                  "(number integer PRIMARY KEY, name text "
                                  "NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())");
    if (!result)
        result = run_missing(database);
    char message[ERROR_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", error_message());
    database_run(database, UNLOCK, 0, NULL, NULL);
    return result ? error_set(result, "%s", message) : 0;
}
