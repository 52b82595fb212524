/*
 * triage-sim: a simulated survey and a simulated volunteer platform, to try triaged where the truth is known.
 * This file reads the command line; the verbs are survey.c, platform.c and queue.c.
 */
#include "daemon/sim/sim.h"
#include "base/fault.h"
#include "daemon/exits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} verbs[] = {
    {"survey",   verb_survey,   "make a simulated survey: pictures, catalogue, simulated votes and the known truth"},
    {"platform", verb_platform, "play a volunteer platform: follow the queue and cast simulated votes"             },
    {"queue",    verb_queue,    "follow the feed until the queue is complete, and print it"                        },
};
#define VERBS (sizeof verbs / sizeof *verbs)

static void print_help(FILE *out)
{
    fprintf(out, "usage: triage-sim VERB [OPTIONS]\n\nEverything triage-sim makes is simulated.\n\n");
    for (size_t i = 0; i < VERBS; i++)
        fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].help);
    fprintf(out, "\n`triage-sim VERB --help` lists the options. Exit codes: 0 done, 64 usage, 65 bad input,\n"
                 "69 peer unavailable, 70 internal error, 74 system refused, 75 not in time: try later,\n"
                 "78 database refused.\n"
                 "Manual: triage-sim(1).\n");
}

static void print_options(const char *verb, const char *summary, const struct option *options, int count)
{
    static const char *const words[] = {"TEXT", "N", "X", ""};
    printf("usage: triage-sim %s [OPTIONS]\n\n%s\n\n", verb, summary);
    for (int i = 0; i < count; i++) {
        const struct option *option = &options[i];
        char call[48], standard[64] = "";
        snprintf(call, sizeof call, "%s %s", option->name, words[option->kind]);
        if (option->kind == OPTION_INTEGER && !option->required)
            snprintf(standard, sizeof standard, " [%lld]", (long long)*(int64_t *)option->value);
        if (option->kind == OPTION_REAL)
            snprintf(standard, sizeof standard, " [%g]", *(double *)option->value);
        printf("  %-22s %s%s%s\n", call, option->help, standard, option->required ? " (required)" : "");
    }
}

static int usage(const char *verb, const char *what, const char *detail)
{
    fprintf(stderr, "triage-sim %s: %s: %s; see triage-sim %s --help\n", verb, what, detail, verb);
    return EXIT_USAGE;
}

static int set_option(const char *verb, const struct option *option, const char *word)
{
    char *end, range[128];
    errno = 0;
    if (option->kind == OPTION_TEXT) {
        *(const char **)option->value = word;
        return OPTIONS_GO_ON;
    }
    double number = option->kind == OPTION_REAL ? strtod(word, &end) : (double)strtoll(word, &end, 10);
    snprintf(range, sizeof range, "%s takes a%s number from %.15g to %.15g, not", option->name,
             option->kind == OPTION_REAL ? "" : " whole", option->low, option->high);
    if (errno || end == word || *end || !(number >= option->low && number <= option->high))
        return usage(verb, range, word);
    if (option->kind == OPTION_REAL)
        *(double *)option->value = number;
    else
        *(int64_t *)option->value = strtoll(word, NULL, 10);
    return OPTIONS_GO_ON;
}

static int find_option(const struct option *options, int count, const char *word)
{
    for (int i = 0; i < count; i++)
        if (strcmp(options[i].name, word) == 0)
            return i;
    return -1;
}

int options_parse(const char *verb, const char *summary, const struct option *options, int count, int argc, char **argv)
{
    uint64_t given = 0;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_options(verb, summary, options, count);
            return EXIT_DONE;
        }
        int which = find_option(options, count, argv[i]);
        if (which < 0)
            return usage(verb, "unknown option", argv[i]);
        given |= (uint64_t)1 << which;
        if (options[which].kind == OPTION_FLAG) {
            *(int *)options[which].value = 1;
            continue;
        }
        if (i + 1 == argc)
            return usage(verb, "missing the value of", argv[i]);
        int result = set_option(verb, &options[which], argv[++i]);
        if (result != OPTIONS_GO_ON)
            return result;
    }
    for (int i = 0; i < count; i++)
        if (options[i].required && !(given >> i & 1))
            return usage(verb, "missing option", options[i].name);
    return OPTIONS_GO_ON;
}

int report(int result)
{
    if (result)
        fprintf(stderr, "triage-sim: %s\n", error_message());
    return exit_code(result);
}

const char *no_queue_hint(const char *key_file)
{
    return key_file ? ": does triaged publish at these endpoints, and does triagectl keys list name this key?"
                    : ": does triaged publish at these endpoints, and does this feed need --key FILE (triagectl keys "
                      "new)?";
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("triage-sim %s\n", TRIAGE_VERSION);
        return EXIT_DONE;
    }
    for (size_t i = 0; i < VERBS; i++)
        if (strcmp(verbs[i].name, argv[1]) == 0) {
            FAULT_ROLE(verbs[i].name);
            return verbs[i].run(argc - 2, argv + 2);
        }
    fprintf(stderr, "triage-sim: unknown verb: %s; see triage-sim --help\n", argv[1]);
    return EXIT_USAGE;
}
