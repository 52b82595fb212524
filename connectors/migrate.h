/* Brings the database's schema `triage` to the version this program knows; only ever forward. */
#ifndef TRIAGE_CONNECTORS_MIGRATE_H
#define TRIAGE_CONNECTORS_MIGRATE_H

#include "connectors/database.h"

/*
 * Runs the numbered files that are missing, each in its own transaction, under an advisory lock. ERROR_STATE when the
 * database is newer than the program, or when a file that was run is not the one this program carries.
 */
int migrate_run(struct database *database);

#endif
