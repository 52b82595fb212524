/* See render.h. One small function per shape of answer; a verb without one just gets its message. */
#include "daemon/ctl/render.h"

#include <string.h>

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static long long integer(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void render_status(const json_t *answer, FILE *out)
{
    const json_t *galaxies = json_object_get(answer, "galaxies"), *votes = json_object_get(answer, "votes");
    const json_t *cycle = json_object_get(answer, "cycle"), *feed = json_object_get(answer, "feed");
    const json_t *worker = json_object_get(answer, "worker"), *memory = json_object_get(answer, "memory");
    fprintf(out, "%s · %s%s · up %llds\n", text(answer, "name"), text(answer, "state"),
            json_is_true(json_object_get(answer, "paused")) ? " · paused" : "", integer(answer, "uptime_s"));
    fprintf(out, "  galaxies  %lld, embedded %lld, bad %lld, retired %lld, labelled %lld\n", integer(galaxies, "total"),
            integer(galaxies, "embedded"), integer(galaxies, "bad"), integer(galaxies, "retired"),
            integer(galaxies, "labelled"));
    fprintf(out, "  votes     %lld applied, %lld repeated, %lld quarantined, %lld waiting for a cycle\n",
            integer(votes, "applied"), integer(votes, "repeated"), integer(votes, "quarantined"),
            integer(votes, "waiting"));
    fprintf(out, "  model     %lld is champion\n", integer(answer, "champion"));
    fprintf(out, "  cycle     %lld, %s, last took %.1f s\n", integer(cycle, "number"), text(cycle, "step"),
            number(cycle, "last_s"));
    const json_t *training = json_object_get(answer, "training");
    fprintf(out, "  trunk     %lld in use; training: %s", integer(answer, "trunk"), text(training, "step"));
    if (strcmp(text(training, "step"), "off") != 0)
        fprintf(out, " number %lld, %.0f %%", integer(training, "trunk"), 100 * number(training, "share"));
    fputc('\n', out);
    fprintf(out, "  queue     %lld of %lld\n", integer(answer, "queue_length"), integer(answer, "queue_size"));
    fprintf(out, "  feed      epoch %.8s seq %lld\n", text(feed, "epoch"), integer(feed, "seq"));
    fprintf(out, "  database  %s\n  worker    %s\n", text(answer, "database"), text(worker, "state"));
    fprintf(out, "  memory    cycle %.1f of %.0f MiB\n", number(memory, "cycle_peak_bytes") / 1048576,
            number(memory, "cycle_limit_bytes") / 1048576);
    const json_t *problem;
    size_t index;
    json_array_foreach(json_object_get(answer, "problems"), index, problem)
        fprintf(out, "  PROBLEM   %s\n", json_string_value(problem));
}

static void render_train(const json_t *answer, FILE *out)
{
    const json_t *training = json_object_get(answer, "training");
    if (!training) {
        fprintf(out, "%s\n", text(answer, "message"));
        return;
    }
    fprintf(out, "trunk %lld is in use, trained with %lld labelled galaxies\n", integer(answer, "trunk"),
            integer(training, "labels"));
    if (strcmp(text(training, "step"), "off") == 0)
        fprintf(out, "no training; %lld models in a row were not promoted\n", integer(training, "stalled"));
    else
        fprintf(out, "trunk %lld: %s, %.0f %%, epoch %lld, loss %.4f, validation %.4f\n", integer(training, "trunk"),
                text(training, "step"), 100 * number(training, "share"), integer(training, "epoch"),
                number(training, "train_loss"), number(training, "validation_loss"));
}

static void render_queue(const json_t *answer, FILE *out)
{
    const json_t *entry;
    size_t index;
    fprintf(out, "epoch %.8s seq %lld, %lld galaxies, model %lld\n", text(answer, "epoch"), integer(answer, "seq"),
            integer(answer, "length"), integer(answer, "model"));
    fprintf(out, "%5s  %-24s %-8s %9s %9s %9s %12s\n", "rank", "galaxy", "stream", "score", "total", "expected",
            "probability");
    json_array_foreach(json_object_get(answer, "entries"), index, entry)
        fprintf(out, "%5lld  %-24s %-8s %9.4f %9.4f %9.4f %12.6f\n", integer(entry, "rank"), text(entry, "id"),
                text(entry, "stream"), number(entry, "score"), number(entry, "total"), number(entry, "expected"),
                number(entry, "probability"));
}

static void render_why(const json_t *answer, FILE *out)
{
    const json_t *question, *value;
    const char *name;
    size_t index;
    fprintf(out, "%s: %s\n", text(answer, "id"), text(answer, "words"));
    fprintf(out, "score %.4f nat = total %.4f - expected %.4f, model %lld, %lld votes\n", number(answer, "score"),
            number(answer, "total"), number(answer, "expected"), integer(answer, "model"),
            integer(answer, "root_votes"));
    json_array_foreach(json_object_get(answer, "questions"), index, question)
    {
        fprintf(out, "  %-22s asked %.2f  information %.4f ", text(question, "name"), number(question, "asked"),
                number(question, "information"));
        json_t *answers = json_object_get(question, "answers");
        json_object_foreach(answers, name, value) fprintf(out, " %s %.2f", name, json_number_value(value));
        fputc('\n', out);
    }
}

static void render_galaxies(const json_t *answer, FILE *out)
{
    const json_t *galaxy;
    size_t index;
    json_array_foreach(json_object_get(answer, "galaxies"), index, galaxy)
        fprintf(out, "%-24s %s\n", text(galaxy, "id"), text(galaxy, "reason"));
    fprintf(out, "%lld bad galaxies%s%s\n", integer(answer, "total"), *text(answer, "message") ? "; " : "",
            text(answer, "message"));
}

static void render_votes(const json_t *answer, FILE *out)
{
    const json_t *reason;
    size_t index;
    fprintf(out, "applied %lld, repeated %lld, quarantined %lld\n", integer(answer, "applied"),
            integer(answer, "repeated"), integer(answer, "quarantined"));
    json_array_foreach(json_object_get(answer, "quarantine"), index, reason)
        fprintf(out, "  %lld x %s\n", integer(reason, "count"), text(reason, "reason"));
}

static void render_models(const json_t *answer, FILE *out)
{
    const json_t *model;
    size_t index;
    fprintf(out, "%6s %7s %7s %12s %12s %12s  %s\n", "model", "parent", "labels", "hold-out NLL", "champion",
            "constant", "");
    json_array_foreach(json_object_get(answer, "models"), index, model)
        fprintf(out, "%6lld %7lld %7lld %12.4f %12.4f %12.4f  %s%s\n", integer(model, "number"),
                integer(model, "parent"), integer(model, "labels"), number(model, "holdout_nll"),
                number(model, "champion_nll"), number(model, "constant_nll"),
                json_is_true(json_object_get(model, "champion")) ? "* champion: " : "", text(model, "reason"));
}

static const struct {
    const char *verb;
    void (*render)(const json_t *answer, FILE *out);
} renderers[] = {
    {"status",   render_status  },
    {"train",    render_train   },
    {"queue",    render_queue   },
    {"why",      render_why     },
    {"galaxies", render_galaxies},
    {"votes",    render_votes   },
    {"models",   render_models  },
};

void render(const char *verb, const json_t *answer, FILE *out)
{
    if (!json_is_true(json_object_get(answer, "ok"))) {
        fprintf(stderr, "triagectl: %s\n", text(answer, "message"));
        return;
    }
    for (size_t i = 0; i < sizeof renderers / sizeof *renderers; i++)
        if (strcmp(renderers[i].verb, verb) == 0) {
            renderers[i].render(answer, out);
            return;
        }
    fprintf(out, "%s\n", text(answer, "message"));
}
