/*
 * What triagectl and the daemon agree on: where the sockets are, how a request looks, and the verbs.
 *
 * A request is one line of JSON, {"verb": "...", ...}; the answer is one line, {"ok": true, ...} or
 * {"ok": false, "exit": N, "message": "..."}. Two stream sockets in the run folder: admin.sock (0600) takes every verb,
 * read.sock (0666) only those marked read-only.
 */
#ifndef TRIAGE_DAEMON_PROTO_H
#define TRIAGE_DAEMON_PROTO_H

#include <stddef.h>

#define PROTO_ADMIN_SOCKET      "admin.sock"
#define PROTO_READ_SOCKET       "read.sock"
#define PROTO_REQUEST_BYTES_MAX 65536
#define PROTO_REPLY_BYTES_MAX   (64 << 20)

/* Exit codes of triagectl. */
enum proto_exit {
    PROTO_EXIT_OK = 0,
    PROTO_EXIT_REFUSED = 1,      /* the daemon said no and why */
    PROTO_EXIT_UNWELL = 2,       /* doctor, ready: something is wrong now */
    PROTO_EXIT_USAGE = 64,       /* EX_USAGE */
    PROTO_EXIT_NOT_FOUND = 66,   /* no such galaxy, model or key */
    PROTO_EXIT_UNREACHABLE = 69, /* EX_UNAVAILABLE: no daemon on this socket, or one that may not be opened */
};

struct proto_verb {
    const char *name;
    const char *arguments; /* as in the manual; "" for none */
    int read_only;
    int asks_database; /* answered later: read.sock has one such question at a time */
    const char *help;
};

/* clang-format off */
static const struct proto_verb proto_verbs[] = {
    {"status",   "",                    1, 0, "what the service is doing, and whether anything is wrong"},
    {"doctor",   "",                    1, 0, "what has happened to the service, whether it is over, and what to do"},
    {"ready",    "",                    1, 0, "whether subscribers are answered and nothing is wrong, and if not, why"},
    {"metrics",  "",                    1, 0, "counters and measurements as OpenMetrics text"},
    {"queue",    "[--top N]",           1, 0, "the galaxies on offer, best first"},
    {"why",      "ID",                  1, 0, "why a galaxy stands where it stands"},
    {"review",   "[--top N]",           1, 1, "galaxies held back: they look like artifacts, or like nothing else"},
    {"diff",     "MODEL1 MODEL2 [--top N]", 0, 0, "what moved from one model's ranking to another's, and why"},
    {"pin",      "ID",                  0, 1, "put a galaxy at the head of the queue until it is done"},
    {"unpin",    "ID",                  0, 1, "take the pin away"},
    {"exclude",  "ID",                  0, 1, "never offer this galaxy"},
    {"include",  "ID",                  0, 1, "take the exclusion away"},
    {"galaxies", "--bad [--retry]",     0, 1, "galaxies whose image could not be read; --retry tries them again"},
    {"votes",    "[stats | quarantine]", 1, 1, "votes applied, repeated, ignored and quarantined, and how late they are"},
    {"models",   "",                    1, 1, "the line of models and which one is the champion"},
    {"rollback", "[MODEL]",             0, 0, "make an earlier model the champion again"},
    {"pause",    "",                    0, 0, "start no new cycle; votes are still taken"},
    {"resume",   "",                    0, 0, "start cycles again"},
    {"train",    "WHAT",                0, 0, "now: a cycle at once; trunk: teach the trunk; status, stop or discard: of that"},
    {"keys",     "WHAT [NAME]",         0, 0, "new NAME, list, or revoke NAME: who may follow the feed"},
    {"reload",   "",                    0, 0, "read the configuration again"},
};
/* clang-format on */
#define PROTO_VERB_COUNT (sizeof proto_verbs / sizeof *proto_verbs)

#endif
