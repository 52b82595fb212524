/* The seed of a test with random numbers: TEST_SEED of the environment, else a new one for each run; printed, so that a run can be repeated. */
#ifndef TRIAGE_TESTS_TEST_SEED_H
#define TRIAGE_TESTS_TEST_SEED_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline unsigned test_seed(void)
{
    const char *given = getenv("TEST_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)getpid() * 7919u;
    printf("TEST_SEED=%u\n", seed);
    return seed;
}

#endif
