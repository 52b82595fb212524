/* What several verbs need before they can work: the schema, the folders, the pool, the database. */
#ifndef TRIAGE_DAEMON_SETUP_H
#define TRIAGE_DAEMON_SETUP_H

#include "connectors/database.h"
#include "connectors/private_postgres.h"
#include "daemon/config.h"
#include "model/net.h"
#include "model/schema.h"
#include "pool/pool.h"

#include <stdbool.h>
#include <stddef.h>

/* ERROR_STATE when the tree is missing or makes no sense: a mistake of the configuration. */
int setup_schema(const struct config *config, struct schema *ret_schema);

/* Makes the state, models, pool and run folders. ERROR_STATE for root, when the state folder belongs to another user. */
int setup_folders(const struct config *config);

/* One daemon per state folder: holds STATE/lock until this process ends. ERROR_UNAVAILABLE when another one does. */
int setup_lock(const struct config *config);

/* The network of trunk.network, for images.channels and trunk.side. */
int setup_net(const struct config *config, struct net *ret_net);

int setup_pool(const struct config *config, const struct schema *schema, enum pool_mode mode, struct pool *ret_pool);

/* The configured database, or the private cluster, started (or adopted) if need be. */
int setup_database(const struct config *config, bool *ret_owned, struct private_postgres *ret_postgres, char *url,
                   size_t url_size);

/* Connects, trying again for up to `patience_s` seconds while the server is away. */
int setup_connect(const char *url, int patience_s, struct database **ret_database);

#endif
