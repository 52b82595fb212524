/* The verbs of triage-sim and how their options are read: one table per verb gives parsing, ranges and
 * --help. */
#ifndef TRIAGE_DAEMON_SIM_SIM_H
#define TRIAGE_DAEMON_SIM_SIM_H

#include <stdint.h>

#define EXIT_LATER 75 /* EX_TEMPFAIL: nothing is wrong, but it did not happen in the time allowed */

enum option_kind {
    OPTION_TEXT,    /* const char * */
    OPTION_INTEGER, /* int64_t */
    OPTION_REAL,    /* double */
    OPTION_FLAG,    /* int, set to 1 */
};

struct option {
    const char *name; /* with its dashes */
    enum option_kind kind;
    void *value; /* holds the default */
    double low, high;
    int required;
    const char *help;
};

/* Whatever options_parse() returns other than OPTIONS_GO_ON is the exit code. */
#define OPTIONS_GO_ON -1

/* Reads `--name value` pairs behind the verb. Prints the help (exit code 0) or what is wrong (64) itself. */
int options_parse(const char *verb, const char *summary, const struct option *options, int count, int argc,
                  char **argv);

/* Prints "triage-sim: " and the recorded message; returns the exit code of the result (daemon/exits.h). */
int report(int result);

/* The end of "no complete queue ...": what may be wrong, with this key file (NULL = none). */
const char *no_queue_hint(const char *key_file);

/* Each takes the arguments behind its name and returns the exit code. */
int verb_survey(int argc, char **argv);
int verb_platform(int argc, char **argv);
int verb_queue(int argc, char **argv);

#endif
