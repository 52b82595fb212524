/*
 * What the stand-in keeps books of, for suites that run on a device too (TEST_DEVICE): there nobody keeps them, and these do nothing.
 */
#ifndef TRIAGE_TESTS_BOOKS_H
#define TRIAGE_TESTS_BOOKS_H

#ifdef TEST_DEVICE
#define standin_close_allocation(closed) ((void)(closed))
#define standin_set_devices(devices)     ((void)(devices))
#define standin_set_seed(seed)           ((void)(seed))
#define assert_clean()                   ((void)0)
#else
#include "tests/gpu/standin/standin.h"

/* Nothing is left of a backend that was closed, and no rule was broken. */
#define assert_clean()                                                                                                 \
    do {                                                                                                               \
        assert_int_equal(standin_findings(), 0);                                                                       \
        assert_int_equal(standin_device_bytes(), 0);                                                                   \
        assert_int_equal(standin_pinned_bytes(), 0);                                                                   \
        assert_int_equal(standin_handles(), 0);                                                                        \
    } while (0)
#endif

#endif
