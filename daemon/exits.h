/* Exit codes of the programs (sysexits.h numbers) and how a result becomes one. Documented in triaged(8). */
#ifndef TRIAGE_DAEMON_EXITS_H
#define TRIAGE_DAEMON_EXITS_H

#include "base/error.h"

enum exit_number {
    EXIT_DONE = 0,
    EXIT_USAGE = 64,
    EXIT_INPUT = 65,       /* bad input data: a catalogue, an image, a weights file */
    EXIT_UNAVAILABLE = 69, /* database away, port in use */
    EXIT_INTERNAL = 70,
    EXIT_IO = 74,
    EXIT_STOPPED = 75, /* by a signal: the same command goes on, or begins again */
    EXIT_CONFIG = 78,  /* configuration or schema: starting again will not help */
};

static inline int exit_code(int result)
{
    switch (result) {
    case 0:
        return EXIT_DONE;
    case ERROR_INPUT:
    case ERROR_LIMIT:
    case ERROR_NOT_FOUND:
        return EXIT_INPUT;
    case ERROR_UNAVAILABLE:
        return EXIT_UNAVAILABLE;
    case ERROR_SYSTEM:
        return EXIT_IO;
    case ERROR_STATE:
        return EXIT_CONFIG;
    case ERROR_CANCELLED:
        return EXIT_STOPPED;
    default:
        return EXIT_INTERNAL;
    }
}

#endif
