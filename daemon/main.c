/* triaged: finds the verb and its options, reads the configuration, hands over. Everything else is elsewhere. */
#include "base/error.h"
#include "base/file.h"
#include "daemon/config.h"
#include "daemon/evaluate.h"
#include "daemon/exits.h"
#include "daemon/finetune.h"
#include "daemon/import.h"
#include "daemon/run.h"
#include "daemon/worker.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_CONFIG "/etc/triaged/triaged.conf"

#define SETTINGS_MAX 64

struct options {
    const char *config, *oracle, *endpoint, *argument, *labels, *task, *test, *weights, *out;
    const char *set[SETTINGS_MAX];
    int check_only, json, without_votes, settings;
};

static int do_run(const struct config *config, const struct options *options)
{
    if (!options->check_only)
        return run_daemon(config);
    config_print(config, stdout);
    return EXIT_DONE;
}

static int do_import(const struct config *config, const struct options *options)
{
    return run_import(config, options->argument, options->without_votes, options->json);
}

static int do_evaluate(const struct config *config, const struct options *options)
{
    return run_evaluate(config, options->oracle, options->json);
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
                                        .out = options->out,
                                        .json = options->json};
    return run_finetune(config, &finetune);
}

static int do_worker(const struct config *config, const struct options *options)
{
    return run_worker(config, options->endpoint);
}

#define FINETUNE_OPTIONS "--out --labels --task --test --weights --set --config --json"

static const struct verb {
    const char *name, *arguments; /* the options it takes, as in the manual */
    int needs_argument;
    int (*run)(const struct config *config, const struct options *options);
    const char *help;
} verbs[] = {
    {"run",      "[-n] [--config FILE]",                                 0, do_run,      "serve; -n checks the configuration and prints it"},
    {"import",   "[--config FILE] CATALOGUE [--without-votes] [--json]", 1, do_import,
     "take galaxies from a CSV catalogue"                                                                                                  },
    {"evaluate", "[--config FILE] --oracle CATALOGUE [--json]",          0, do_evaluate,
     "every stored model on the test galaxies"                                                                                             },
    {"finetune", "CATALOGUE --out FOLDER [OPTION ...]",                  1, do_finetune,
     "teach the network on a labelled catalogue; triaged(8) has the options"                                                               },
    {"model",    "summary [--config FILE] [--json]",                     1, do_model,    "the network, layer by layer"                     },
    {"worker",   "--endpoint ENDPOINT [--config FILE]",                  0, do_worker,
     "internal: the process that computes, started by run"                                                                                 },
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: triaged VERB [OPTION ...]\n\n");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        fprintf(out, "  %-9s %-55s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].help);
    fprintf(out, "\nVersion %s. Manual: triaged(8), triaged.conf(5), triagectl(8).\n", TRIAGE_VERSION);
}

static int usage(const char *what, const char *detail)
{
    fprintf(stderr, "triaged: %s: %s; see triaged help\n", what, detail);
    return EXIT_USAGE;
}

static int takes(const struct verb *verb, const char *option)
{
    return strstr(verb->run == do_finetune ? FINETUNE_OPTIONS : verb->arguments, option) != NULL;
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
        {"--weights",       &options->weights,  NULL                   },
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
        else
            return usage("unexpected", words[i]);
    }
    if (verb->needs_argument && !options->argument)
        return usage("missing argument", verb->arguments);
    if (verb->run == do_evaluate && !options->oracle)
        return usage("missing", "--oracle CATALOGUE");
    if (verb->run == do_finetune && !options->out)
        return usage("missing", "--out FOLDER");
    return verb->run == do_worker && !options->endpoint ? usage("missing", "--endpoint") : 0;
}

int main(int argc, char **argv)
{
    struct options options = {0};
    struct config config;
    const struct verb *verb = NULL;
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, argv[1]) == 0)
            verb = &verbs[i];
    if (!verb) {
        int asked = argc > 1 && (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0);
        print_help(asked ? stdout : stderr);
        return asked ? EXIT_DONE : EXIT_USAGE;
    }
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
        return EXIT_CONFIG;
    }
    return verb->run(&config, &options);
}
