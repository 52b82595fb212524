/*
 * Names for anonymous volunteers: a keyed hash of their session, so that a person counts once while nobody who reads the
 * database can tell who it was (addresses and sessions are few enough to be guessed without a key). Not for logged-in
 * users, whose number is a pseudonym already.
 */
#ifndef TRIAGE_CONNECTORS_VOTER_KEY_H
#define TRIAGE_CONNECTORS_VOTER_KEY_H

#include "connectors/database.h"

#define VOTER_KEY_BYTES  32
#define VOTER_NAME_BYTES 35 /* "s:", 32 hexadecimal characters, the end */

struct voter_key {
    unsigned char bytes[VOTER_KEY_BYTES];
};

/*
 * Reads the key of `path`, or makes it (mode 0600) where there is none. ERROR_INPUT when the file holds something else,
 * ERROR_STATE when others than its owner may read it.
 */
int voter_key_open(const char *path, struct voter_key *ret_key);

/*
 * As voter_key_open(), for naming voters in this database, which keeps the fingerprint of the first key used: with another one
 * the same person is another voter. ERROR_STATE when the file holds another key, or is gone. Anyone else who asks meanwhile
 * waits.
 */
int voter_key_of_database(struct database *database, const char *path, struct voter_key *ret_key);

/* "s:" and the keyed BLAKE2b hash (RFC 7693) of the session, 128 bits. */
void voter_name(const struct voter_key *key, const char *session, char name[VOTER_NAME_BYTES]);

void voter_key_forget(struct voter_key *key);

#endif
