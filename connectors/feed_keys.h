/*
 * The keys of the feed: the daemon's own pair, the list of those who may connect and what each may do, and the key file
 * that a subscriber is given. Files are text, `name=value`; keys are 40 characters of Z85 (CURVE, ZeroMQ RFC 26, 32).
 *
 *   FOLDER/server.key   the daemon's pair, mode 0600: public=..., secret=...
 *   FOLDER/clients      one [NAME] each with role=..., public=... and made=DATE; no secrets
 *
 * Not for deciding about handshakes (zmq_gate.h) or requests (feed_log.h).
 */
#ifndef TRIAGE_CONNECTORS_FEED_KEYS_H
#define TRIAGE_CONNECTORS_FEED_KEYS_H

#include "connectors/publisher.h"
#include "connectors/zmq_socket.h"

#define FEED_KEYS_MAX       256
#define FEED_KEY_DATE_BYTES 16

struct feed_key {
    char name[FEED_NAME_BYTES]; /* letters, digits, '.', '-', '_' */
    char public_key[SOCKET_KEY_BYTES], made[FEED_KEY_DATE_BYTES];
    enum feed_role role;
};

struct feed_keys {
    size_t count;
    struct feed_key key[FEED_KEYS_MAX];
};

const char *feed_role_name(enum feed_role role);

/* ERROR_INPUT unless it is subscriber, connector or admin. */
int feed_role_of(const char *name, enum feed_role *ret_role);

/*
 * The daemon's pair into ret_server (its server_key is empty). Where there is no pair and no key was given out (no list, or an
 * empty one), both are made, so that a first start cut short at any moment is made good by the next.
 * Refused: a pair without its list or keys in the list without the pair, a secret that others can read, a public key that does not
 * belong to the secret one.
 */
int feed_keys_server(const char *folder, struct socket_curve *ret_server);

/* The list. Messages name file and line. */
int feed_keys_read(const char *folder, struct feed_keys *ret_keys);

/* Replaces the list, atomically. */
int feed_keys_write(const char *folder, const struct feed_keys *keys);

/* Adds a key made today. ERROR_INPUT for a bad name or key, ERROR_STATE for one that is there, ERROR_LIMIT when full. */
int feed_keys_add(struct feed_keys *keys, const char *name, enum feed_role role, const char *public_key);

/* ERROR_NOT_FOUND if there is none of this name. */
int feed_keys_remove(struct feed_keys *keys, const char *name);

/* By public key, or NULL. */
const struct feed_key *feed_keys_find(const struct feed_keys *keys, const char *public_key);

/* --- the subscriber's file, mode 0600: name, role, public, secret, server --- */

/* Never overwrites: ERROR_STATE if something is there. */
int feed_keys_write_client(const char *path, const char *name, enum feed_role role, const struct socket_curve *key);

/* Refused: a file that others can read, a missing or malformed key. */
int feed_keys_read_client(const char *path, struct socket_curve *ret_key);

#endif
