/* triagectl: sends one verb to the running daemon and shows the answer. Holds no model, reads no pool. */
#include "daemon/ctl/keys.h"
#include "daemon/ctl/render.h"
#include "daemon/proto.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define REPLY_TIMEOUT_S 60

struct invocation {
    char folder[96];
    const char *socket;
    int json;
    const struct proto_verb *verb;
    json_t *request;
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: triagectl [--state FOLDER | -s SOCKET] [--json] VERB [ARGUMENT]\n\n");
    for (size_t i = 0; i < PROTO_VERB_COUNT; i++) {
        char call[48];
        snprintf(call, sizeof call, "%s %s", proto_verbs[i].name, proto_verbs[i].arguments);
        fprintf(out, "  %-26s %s\n", call, proto_verbs[i].help);
    }
    fprintf(out, "\nVerbs may be shortened as long as they stay unambiguous. Exit codes: 0 done, 1 refused, "
                 "2 doctor or ready:\nsomething is wrong now, 64 usage, 66 no such galaxy, model or key, 69 no daemon, "
                 "or none that may be asked.\nManual: triagectl(8).\n");
}

static int usage(const char *what, const char *detail)
{
    fprintf(stderr, "triagectl: %s%s%s; see triagectl --help\n", what, detail ? ": " : "", detail ? detail : "");
    return PROTO_EXIT_USAGE;
}

/* The verb with this name or unambiguous prefix, else NULL. */
static const struct proto_verb *find_verb(const char *word)
{
    const struct proto_verb *found = NULL;
    for (size_t i = 0; i < PROTO_VERB_COUNT; i++) {
        if (strcmp(proto_verbs[i].name, word) == 0)
            return &proto_verbs[i];
        if (strncmp(proto_verbs[i].name, word, strlen(word)) == 0) {
            if (found)
                return NULL;
            found = &proto_verbs[i];
        }
    }
    return found;
}

static int is_train_word(const char *word)
{
    static const char *const known[] = {"now", "trunk", "status", "stop", "discard"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], word) == 0)
            return 1;
    return 0;
}

static int is_votes_word(const char *word)
{
    return strcmp(word, "stats") == 0 || strcmp(word, "quarantine") == 0;
}

/* The arguments behind the verb, by the words of its row in the table. */
static int parse_arguments(struct invocation *call, int count, char **words)
{
    const char *wanted = call->verb->arguments;
    if (strcmp(call->verb->name, "keys") == 0)
        return keys_parse(call->request, &call->json, count, words);
    for (int i = 0; i < count; i++) {
        char *end = NULL;
        if (strcmp(words[i], "--json") == 0)
            call->json = 1;
        else if (strcmp(words[i], "--top") == 0 && strstr(wanted, "--top") && i + 1 < count) {
            long top = strtol(words[++i], &end, 10);
            if (*end || top < 1)
                return usage("--top takes a number above 0", words[i]);
            json_object_set_new(call->request, "top", json_integer(top));
        } else if (strncmp(words[i], "--", 2) == 0 && strstr(wanted, words[i]))
            json_object_set_new(call->request, words[i] + 2, json_true());
        else if (strcmp(wanted, "ID") == 0 && !json_object_get(call->request, "id"))
            json_object_set_new(call->request, "id", json_string(words[i]));
        else if (strcmp(wanted, "[MODEL]") == 0 && !json_object_get(call->request, "model")) {
            long model = strtol(words[i], &end, 10);
            if (*end || model < 1)
                return usage("a model is a number", words[i]);
            json_object_set_new(call->request, "model", json_integer(model));
        } else if (strncmp(wanted, "MODEL1", 6) == 0 && json_array_size(json_object_get(call->request, "models")) < 2) {
            long model = strtol(words[i], &end, 10);
            if (*end || model < 1)
                return usage("a model is a number", words[i]);
            if (!json_object_get(call->request, "models"))
                json_object_set_new(call->request, "models", json_array());
            json_array_append_new(json_object_get(call->request, "models"), json_integer(model));
        } else if (strcmp(wanted, "WHAT") == 0 && is_train_word(words[i]) && !json_object_get(call->request, "what"))
            json_object_set_new(call->request, "what", json_string(words[i]));
        else if (strncmp(wanted, "[stats", 6) == 0 && is_votes_word(words[i]) &&
                 !json_object_get(call->request, "what"))
            json_object_set_new(call->request, "what", json_string(words[i]));
        else
            return usage("unexpected argument", words[i]);
    }
    if (strcmp(wanted, "ID") == 0 && !json_object_get(call->request, "id"))
        return usage("missing the id of a galaxy", call->verb->name);
    if (strncmp(wanted, "MODEL1", 6) == 0 && json_array_size(json_object_get(call->request, "models")) != 2)
        return usage("usage: triagectl diff MODEL1 MODEL2 [--top N]", NULL);
    if (strncmp(wanted, "--bad", 5) == 0 && !json_object_get(call->request, "bad"))
        return usage("usage: triagectl galaxies --bad [--retry]", NULL);
    if (strcmp(wanted, "WHAT") == 0 && !json_object_get(call->request, "what"))
        return usage("usage: triagectl train now | trunk | status | stop | discard", NULL);
    return 0;
}

/* "help" as a verb; --help and --version wherever they stand. */
static int answers_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0)
            printf("triagectl %s\n", TRIAGE_VERSION);
        else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0 || strcmp(argv[1], "help") == 0)
            print_help(stdout);
        else
            continue;
        return 1;
    }
    return 0;
}

static int parse(struct invocation *call, int argc, char **argv)
{
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--json") == 0)
            call->json = 1;
        else if (strcmp(argv[at], "-s") == 0 && at + 1 < argc)
            call->socket = argv[++at];
        else if (strcmp(argv[at], "--state") == 0 && at + 1 < argc) {
            if (snprintf(call->folder, sizeof call->folder, "%s/run", argv[++at]) >= (int)sizeof call->folder)
                return usage("the state folder's path is too long for a socket", argv[at]);
        } else
            return usage("unknown option", argv[at]);
    }
    if (at == argc) {
        print_help(stderr);
        return PROTO_EXIT_USAGE;
    }
    call->verb = find_verb(argv[at]);
    if (!call->verb)
        return usage("unknown or ambiguous verb", argv[at]);
    call->request = json_pack("{s:s}", "verb", call->verb->name);
    return parse_arguments(call, argc - at - 1, argv + at + 1);
}

/* A connected socket, or -1 with the reason on standard error. */
static int reach(const struct invocation *call)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = call->verb->read_only ? PROTO_READ_SOCKET : PROTO_ADMIN_SOCKET;
    int length = call->socket ? snprintf(address.sun_path, sizeof address.sun_path, "%s", call->socket)
                              : snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", call->folder, name);
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = REPLY_TIMEOUT_S};
    if (descriptor < 0 || length >= (int)sizeof address.sun_path ||
        connect(descriptor, (struct sockaddr *)&address, sizeof address) < 0) {
        fprintf(stderr, "triagectl: cannot reach the daemon at %s: %s%s\n", address.sun_path, strerror(errno),
                errno == EACCES ? " (this verb needs the daemon's user or root)"
                                : "; is triaged running, and is --state right?");
        if (descriptor >= 0)
            close(descriptor);
        return -1;
    }
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return descriptor;
}

/* Sends the request and reads the one-line answer. NULL with the reason on standard error. */
static json_t *ask(int descriptor, const json_t *request)
{
    char *line = json_dumps(request, JSON_COMPACT), *reply = NULL;
    size_t length = 0, capacity = 0;
    dprintf(descriptor, "%s\n", line);
    free(line);
    for (;;) {
        if (length + 65536 > capacity) {
            capacity = capacity ? capacity * 2 : 131072;
            char *larger = capacity <= PROTO_REPLY_BYTES_MAX ? realloc(reply, capacity) : NULL;
            if (!larger)
                break;
            reply = larger;
        }
        ssize_t count = read(descriptor, reply + length, 65536);
        if (count <= 0)
            break;
        length += (size_t)count;
        if (reply[length - 1] == '\n')
            break;
    }
    json_error_t problem;
    json_t *answer = reply ? json_loadb(reply, length, 0, &problem) : NULL;
    if (!answer)
        fprintf(stderr, "triagectl: the daemon gave no complete answer within %d s\n", REPLY_TIMEOUT_S);
    free(reply);
    return answer;
}

int main(int argc, char **argv)
{
    struct invocation call = {.folder = "/var/lib/triaged/run"};
    prctl(PR_SET_DUMPABLE, 0); /* no core file, nor anybody of this user, shall hold a new key */
    if (answers_help(argc, argv))
        return PROTO_EXIT_OK;
    int code = parse(&call, argc, argv);
    int descriptor = code ? -1 : reach(&call);
    if (!code && descriptor < 0)
        code = PROTO_EXIT_UNREACHABLE;
    json_t *answer = code ? NULL : ask(descriptor, call.request);
    if (!code && !answer)
        code = PROTO_EXIT_UNREACHABLE;
    if (answer) {
        if (call.json)
            json_dumpf(answer, stdout, JSON_COMPACT | JSON_ENSURE_ASCII), putchar('\n');
        else
            render(call.verb->name, answer, stdout);
        if (strcmp(call.verb->name, "keys") == 0)
            code = keys_finish(answer);
        if (json_object_get(answer, "exit"))
            code = (int)json_integer_value(json_object_get(answer, "exit"));
    }
    if (descriptor >= 0)
        close(descriptor);
    json_decref(answer);
    json_decref(call.request);
    return code;
}
