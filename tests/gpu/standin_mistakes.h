/* One planted mistake per rule of the stand-in (standin/rules.h), each to be made in a process of its own. */
#ifndef TRIAGE_TESTS_STANDIN_MISTAKES_H
#define TRIAGE_TESTS_STANDIN_MISTAKES_H

#include "tests/gpu/standin/rules.h"

struct mistake {
    enum standin_rule rule;
    const char *what;
    void (*make)(void);
    int fault; /* ends the process at the spot */
};

extern const struct mistake mistakes[];
extern const unsigned mistakes_count;

#endif
