/* The numbered SQL files of connectors/sql, embedded at build time, in order. */
#ifndef TRIAGE_CONNECTORS_MIGRATIONS_H
#define TRIAGE_CONNECTORS_MIGRATIONS_H

#include <stddef.h>

struct migration {
    int number; /* 1, 2, 3, ... without a gap */
    const char *name;
    const char *text; /* UTF-8 SQL, terminated */
    size_t length;
};

extern const struct migration migrations[];
extern const int migration_count;

#endif
