/* triaged: finds the verb and its options, reads the configuration, hands over. Everything else is elsewhere. */
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "daemon/backend.h"
#include "daemon/config.h"
#include "daemon/evaluate.h"
#include "daemon/exits.h"
#include "daemon/finetune.h"
#include "daemon/import.h"
#include "daemon/replay.h"
#include "daemon/run.h"
#include "daemon/setup.h"
#include "daemon/votes.h"
#include "daemon/worker.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#define DEFAULT_CONFIG "/etc/triaged/triaged.conf"

#define SETTINGS_MAX 64

struct options {
    const char *config, *oracle, *endpoint, *argument, *file, *workflow, *labels, *task, *test, *weights, *head, *out;
    const char *set[SETTINGS_MAX];
    int check_only, json, without_votes, settings;
};

static int do_run(const struct config *config, const struct options *options)
{
    static struct schema schema;
    struct score_rule rule;
    if (!options->check_only)
        return run_daemon(config);
    int result = setup_schema(config, &schema);
    if (!result)
        result = config_score_rule(config, &schema, &rule);
    if (result)
        fprintf(stderr, "triaged: %s\n", error_message());
    else
        config_print(config, stdout);
    return exit_code(result);
}

static int do_import(const struct config *config, const struct options *options)
{
    return run_import(config, options->argument, options->without_votes, options->json);
}

static int do_evaluate(const struct config *config, const struct options *options)
{
    return run_evaluate(config, options->oracle, options->out, options->json);
}

static int do_model(const struct config *config, const struct options *options)
{
    if (strcmp(options->argument, "summary") == 0)
        return run_model_summary(config, options->json);
    fprintf(stderr, "triaged: the only thing to ask of a model is 'triaged model summary'\n");
    return EXIT_USAGE;
}

static int do_finetune(const struct config *config, const struct options *options)
{
    struct finetune_options finetune = {.catalogue = options->argument,
                                        .test_catalogue = options->test,
                                        .labels = options->labels ? options->labels : "votes",
                                        .task = options->task     ? options->task
                                                : options->labels ? "classes"
                                                                  : "votes",
                                        .weights = options->weights,
                                        .head = options->head,
                                        .out = options->out,
                                        .json = options->json};
    return run_finetune(config, &finetune);
}

static int do_replay(const struct config *config, const struct options *options)
{
    struct replay_options replay = {options->argument, options->test, options->weights, options->out, options->json};
    return run_replay(config, &replay);
}

static int do_votes(const struct config *config, const struct options *options)
{
    return run_votes(config, options->argument, options->file, options->workflow, options->json);
}

static int do_gpu(const struct config *config, const struct options *options)
{
    return run_gpu(config, options->json);
}

static int do_worker(const struct config *config, const struct options *options)
{
    return run_worker(config, options->endpoint);
}

#define FINETUNE_OPTIONS "--out --labels --task --test --weights --head --set --config --json"
#define REPLAY_OPTIONS   "--out --test --weights --set --config --json"

static const struct verb {
    const char *name, *arguments; /* the options it takes, as in the manual */
    int needs_argument;
    int (*run)(const struct config *config, const struct options *options);
    const char *help;
} verbs[] = {
    {"run",      "[-n] [--config FILE]",                                       0, do_run,      "serve; -n checks the configuration and prints it"},
    {"import",   "[--config FILE] CATALOGUE [--without-votes] [--json]",       1, do_import,
     "take galaxies from a CSV catalogue"                                                                                                        },
    {"evaluate", "[--config FILE] --oracle CATALOGUE [--out FOLDER] [--json]", 0, do_evaluate,
     "every stored model on the test galaxies"                                                                                                   },
    {"finetune", "CATALOGUE --out FOLDER [OPTION ...]",                        1, do_finetune,
     "teach the network on a labelled catalogue; triaged(8) has the options"                                                                     },
    {"replay",   "CATALOGUE --out FOLDER [OPTION ...]",                        1, do_replay,
     "what asking by score saves, simulated on a labelled catalogue; triaged(8) has the options"                                                 },
    {"votes",    "WHAT [FILE] [--workflow NAME] [--config FILE] [--json]",     1, do_votes,
     "WHAT: import votes of a FILE, rebuild tallies, weigh voters, retry the quarantine"                                                         },
    {"model",    "summary [--config FILE] [--json]",                           1, do_model,    "the network, layer by layer"                     },
    {"gpu",      "[--config FILE] [--json]",                                   0, do_gpu,
     "GPUs, their memory and what the network takes of it, versions of driver and libraries"                                                     },
    {"worker",   "--endpoint ENDPOINT [--config FILE]",                        0, do_worker,
     "internal: the process that computes, started by run"                                                                                       },
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: triaged VERB [OPTION ...]\n\n");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        fprintf(out, "  %-9s %-55s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].help);
    fprintf(out, "\nVersion %s. Manual: triaged(8), triaged.conf(5), triagectl(8).\n", TRIAGE_VERSION);
}

static const char *options_of(const struct verb *verb)
{
    return verb->run == do_finetune ? FINETUNE_OPTIONS : verb->run == do_replay ? REPLAY_OPTIONS : verb->arguments;
}

/* --help and --version, wherever they stand, are answered before anything else is looked at. */
static int answers_help(const struct verb *verb, int count, char **words)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], "--version") == 0)
            printf("triaged %s\n", TRIAGE_VERSION);
        else if (strcmp(words[i], "--help") != 0 && strcmp(words[i], "-h") != 0)
            continue;
        else if (verb)
            printf("usage: triaged %s %s\n\n%s\noptions: %s; triaged(8) has them all\n", verb->name, verb->arguments,
                   verb->help, options_of(verb));
        else
            print_help(stdout);
        return 1;
    }
    return 0;
}

static int usage(const char *what, const char *detail)
{
    fprintf(stderr, "triaged: %s: %s; see triaged help\n", what, detail);
    return EXIT_USAGE;
}

static int takes(const struct verb *verb, const char *option)
{
    return strstr(options_of(verb), option) != NULL;
}

static int parse(struct options *options, const struct verb *verb, int count, char **words)
{
    const struct {
        const char *name;
        const char **text;
        int *flag;
    } known[] = {
        {"--config",        &options->config,   NULL                   },
        {"--oracle",        &options->oracle,   NULL                   },
        {"--endpoint",      &options->endpoint, NULL                   },
        {"--labels",        &options->labels,   NULL                   },
        {"--task",          &options->task,     NULL                   },
        {"--test",          &options->test,     NULL                   },
        {"--workflow",      &options->workflow, NULL                   },
        {"--weights",       &options->weights,  NULL                   },
        {"--head",          &options->head,     NULL                   },
        {"--out",           &options->out,      NULL                   },
        {"--set",           options->set,       NULL                   },
        {"--json",          NULL,               &options->json         },
        {"-n",              NULL,               &options->check_only   },
        {"--without-votes", NULL,               &options->without_votes}
    };
    for (int i = 0; i < count; i++) {
        size_t k = 0;
        while (k < sizeof known / sizeof *known && strcmp(known[k].name, words[i]) != 0)
            k++;
        if (k < sizeof known / sizeof *known && takes(verb, words[i])) {
            if (known[k].text && i + 1 == count)
                return usage("missing value", words[i]);
            if (known[k].text == options->set && options->settings == SETTINGS_MAX)
                return usage("too many", words[i]);
            if (known[k].text == options->set)
                options->set[options->settings++] = words[++i];
            else if (known[k].text)
                *known[k].text = words[++i];
            else
                *known[k].flag = 1;
        } else if (words[i][0] != '-' && verb->needs_argument && !options->argument)
            options->argument = words[i];
        else if (words[i][0] != '-' && verb->run == do_votes && !options->file)
            options->file = words[i];
        else
            return usage("unexpected", words[i]);
    }
    if (verb->needs_argument && !options->argument)
        return usage("missing argument", verb->arguments);
    if (verb->run == do_evaluate && !options->oracle)
        return usage("missing", "--oracle CATALOGUE");
    if ((verb->run == do_finetune || verb->run == do_replay) && !options->out)
        return usage("missing", "--out FOLDER");
    return verb->run == do_worker && !options->endpoint ? usage("missing", "--endpoint") : 0;
}

int main(int argc, char **argv)
{
    struct options options = {0};
    struct config config;
    const struct verb *verb = NULL;
    prctl(PR_SET_DUMPABLE, 0); /* no core file, nor anybody of this user, shall hold a key or the database's password */
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, argv[1]) == 0)
            verb = &verbs[i];
    if (answers_help(verb, argc - 1, argv + 1))
        return EXIT_DONE;
    if (!verb) {
        int asked = argc > 1 && strcmp(argv[1], "help") == 0;
        print_help(asked ? stdout : stderr);
        return asked ? EXIT_DONE : EXIT_USAGE;
    }
    FAULT_ROLE(verb->name);
    int code = parse(&options, verb, argc - 2, argv + 2);
    if (code)
        return code;
    if (!options.config && file_exists(DEFAULT_CONFIG))
        options.config = DEFAULT_CONFIG;
    int result = config_read(options.config, &config);
    for (int i = 0; i < options.settings && !result; i++)
        result = config_set(&config, options.set[i]);
    if (!result)
        result = config_check(&config);
    if (result) {
        fprintf(stderr, "triaged: %s\n", error_message());
        return error_memory_failures() ? EXIT_IO : EXIT_CONFIG; /* without memory, starting again does help */
    }
    return verb->run(&config, &options);
}
