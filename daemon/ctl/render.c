/* See render.h. One small function per shape of answer; a verb without one just gets its message. */
#include "daemon/ctl/render.h"

#include <string.h>
#include <time.h>

#define SUBSCRIBERS_SHOWN 8 /* those furthest behind */

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

static void render_feed(const json_t *feed, FILE *out)
{
    const json_t *list = json_object_get(feed, "subscribers"), *one;
    size_t index;
    fprintf(out, "  feed      epoch %.8s seq %lld, %s; %zu subscribers, %lld gaps of theirs repaired\n",
            text(feed, "epoch"), integer(feed, "seq"),
            strcmp(text(feed, "security"), "curve") ? "NOT encrypted" : "encrypted", json_array_size(list),
            integer(feed, "gaps"));
    if (integer(feed, "rejected"))
        fprintf(out, "            %lld handshakes refused, the last one from %s\n", integer(feed, "rejected"),
                text(feed, "rejection"));
    json_array_foreach(list, index, one)
    {
        if (index == SUBSCRIBERS_SHOWN) {
            fprintf(out, "            and %zu more (--json lists them)\n", json_array_size(list) - index);
            break;
        }
        fprintf(out, "            %s%s%s: %lld behind, heard %.1f s ago, %lld gaps, %lld snapshots\n",
                text(one, "name"), *text(one, "key") ? ", key " : "", text(one, "key"), integer(one, "lag"),
                number(one, "heard_ms") / 1000, integer(one, "gaps"), integer(one, "snapshots"));
    }
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
    fprintf(out, "  votes     %lld applied, %lld repeated, %lld ignored, %lld quarantined, %lld waiting for a cycle\n",
            integer(votes, "applied"), integer(votes, "repeated"), integer(votes, "ignored"),
            integer(votes, "quarantined"), integer(votes, "waiting"));
    fprintf(out, "  model     %lld is champion\n", integer(answer, "champion"));
    fprintf(out, "  cycle     %lld, %s, last took %.1f s\n", integer(cycle, "number"), text(cycle, "step"),
            number(cycle, "last_s"));
    const json_t *training = json_object_get(answer, "training");
    fprintf(out, "  trunk     %lld in use; training: %s", integer(answer, "trunk"), text(training, "step"));
    if (strcmp(text(training, "step"), "off") != 0)
        fprintf(out, " number %lld, %.0f %%", integer(training, "trunk"), 100 * number(training, "share"));
    fputc('\n', out);
    fprintf(out, "  queue     %lld of %lld\n", integer(answer, "queue_length"), integer(answer, "queue_size"));
    const json_t *progress = json_object_get(answer, "progress");
    fprintf(out, "  chosen    %s\n  progress  %s\n",
            *text(progress, "choice") ? text(progress, "choice") : "nothing yet", text(progress, "words"));
    if (json_is_real(json_object_get(progress, "nll_per_1000_labels")))
        fprintf(out, "  measured  hold-out NLL %+.4f per 1,000 labels over the last %lld promoted models\n",
                number(progress, "nll_per_1000_labels"), integer(progress, "models"));
    render_feed(feed, out);
    fprintf(out, "  database  %s\n  worker    %s", text(answer, "database"), text(worker, "state"));
    if (*text(worker, "backend")) /* none has been ready yet */
        fprintf(out, ", computing on %s%s, trunk in %s", text(worker, "backend"),
                *text(worker, "fallback") ? " INSTEAD OF CUDA" : "", text(worker, "precision"));
    fputc('\n', out);
    fprintf(out, "  memory    cycle %.1f of %.0f MiB\n", number(memory, "cycle_peak_bytes") / 1048576,
            number(memory, "cycle_limit_bytes") / 1048576);
    const json_t *problem;
    size_t index;
    json_array_foreach(json_object_get(answer, "problems"), index, problem)
        fprintf(out, "  PROBLEM   %s\n", json_string_value(problem));
}

static void render_ready(const json_t *answer, FILE *out)
{
    size_t index;
    const json_t *reason;
    if (json_is_true(json_object_get(answer, "ready")))
        fputs("ready\n", out);
    json_array_foreach(json_object_get(answer, "reasons"), index, reason)
        fprintf(out, "%s\n", json_string_value(reason));
}

static void render_metrics(const json_t *answer, FILE *out)
{
    fputs(json_string_value(json_object_get(answer, "text")), out);
}

static void render_doctor(const json_t *answer, FILE *out)
{
    const json_t *problem, *incident;
    size_t index;
    fprintf(out, "%s · up %llds\n", json_is_true(json_object_get(answer, "well")) ? "well" : "UNWELL",
            integer(answer, "uptime_s"));
    json_array_foreach(json_object_get(answer, "now"), index, problem)
        fprintf(out, "  PROBLEM  %s\n", json_string_value(problem));
    if (integer(answer, "quarantined"))
        fprintf(out, "  %-12s %lld votes mean nothing here: triagectl votes says why\n", "quarantine",
                integer(answer, "quarantined"));
    json_array_foreach(json_object_get(answer, "incidents"), index, incident)
    {
        char stamp[32] = "";
        time_t at = (time_t)(json_integer_value(json_object_get(incident, "last_unix_ms")) / 1000);
        struct tm parts;
        strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%SZ", gmtime_r(&at, &parts));
        fprintf(out, "  %-12s %s: %s\n", text(incident, "kind"), text(incident, "what"), text(incident, "words"));
        fprintf(out, "  %-12s %lld x, last %s, %s %.1f s; %s\n", "", integer(incident, "times"), stamp,
                json_is_true(json_object_get(incident, "over")) ? "over after" : "STILL GOING ON since",
                number(incident, "lasted_s"), text(incident, "advice"));
    }
    if (!json_array_size(json_object_get(answer, "incidents")) && !json_array_size(json_object_get(answer, "now")))
        fprintf(out, "  nothing has happened since the start\n");
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
        fprintf(out, "trunk %lld: %s%s, %.0f %%, epoch %lld, loss %.4f, validation %.4f\n", integer(training, "trunk"),
                text(training, "step"), json_is_true(json_object_get(training, "stopped")) ? ", stopped" : "",
                100 * number(training, "share"), integer(training, "epoch"), number(training, "train_loss"),
                number(training, "validation_loss"));
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
    const json_t *question, *value, *reason;
    const char *name;
    size_t index;
    fprintf(out, "%s: %s\n", text(answer, "id"), text(answer, "words"));
    if (!json_object_get(answer, "questions")) {
        fprintf(out, "not scored yet, %lld classifications\n", integer(answer, "root_votes"));
        return;
    }
    fprintf(out, "%s %.4f; total %.4f - expected %.4f nat by model %lld, %lld s ago; %lld classifications so far\n",
            text(answer, "kind"), number(answer, "score"), number(answer, "total"), number(answer, "expected"),
            integer(answer, "model"), integer(answer, "age_s"), integer(answer, "root_votes"));
    json_array_foreach(json_object_get(answer, "because"), index, reason)
        fprintf(out, "- %s\n", json_string_value(reason));
    json_array_foreach(json_object_get(answer, "questions"), index, question)
    {
        fprintf(out, "  %-22s asked %.2f  information %s%.4f = %.4f - %.4f ", text(question, "name"),
                number(question, "asked"),
                json_is_true(json_object_get(question, "exact")) ? "" : ">= ", number(question, "information"),
                number(question, "total"), number(question, "expected"));
        json_t *answers = json_object_get(question, "answers");
        json_object_foreach(answers, name, value) fprintf(out, " %s %.2f", name, json_number_value(value));
        fputc('\n', out);
    }
}

static void render_review(const json_t *answer, FILE *out)
{
    const json_t *galaxy;
    size_t index;
    fprintf(out, "%-24s %-9s %9s %9s %6s\n", "galaxy", "reason", "value", "score", "model");
    json_array_foreach(json_object_get(answer, "galaxies"), index, galaxy)
        fprintf(out, "%-24s %-9s %9.3f %9.4f %6lld\n", text(galaxy, "id"), text(galaxy, "reason"),
                number(galaxy, "value"), number(galaxy, "score"), integer(galaxy, "model"));
    fprintf(out, "%zu galaxies held back; triagectl pin ID offers one all the same, exclude ID never asks again\n",
            json_array_size(json_object_get(answer, "galaxies")));
}

static double pair(const json_t *object, const char *key, size_t index)
{
    return json_number_value(json_array_get(json_object_get(object, key), index));
}

static void render_diff(const json_t *answer, FILE *out)
{
    const json_t *question, *galaxy;
    size_t index;
    fprintf(
        out,
        "models %.0f and %.0f on %lld galaxies: mean score %.4f and %.4f, rank correlation %.3f, %.0f %% of the top "
        "tenth in common\n",
        pair(answer, "models", 0), pair(answer, "models", 1), integer(answer, "compared"),
        pair(answer, "mean_score", 0), pair(answer, "mean_score", 1), number(answer, "rank_correlation"),
        100 * number(answer, "top_tenth_shared"));
    json_array_foreach(json_object_get(answer, "questions"), index, question)
        fprintf(out, "  %-22s asked %.2f -> %.2f  information, times asked %.4f -> %.4f\n", text(question, "name"),
                pair(question, "asked", 0), pair(question, "asked", 1), pair(question, "information", 0),
                pair(question, "information", 1));
    fprintf(out, "moved most:\n");
    json_array_foreach(json_object_get(answer, "moved"), index, galaxy) fprintf(
        out, "  %-24s rank %5.0f -> %5.0f  score %.4f -> %.4f  %s\n", text(galaxy, "id"), pair(galaxy, "rank", 0),
        pair(galaxy, "rank", 1), pair(galaxy, "score", 0), pair(galaxy, "score", 1), text(galaxy, "because"));
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
    fprintf(out, "applied %lld, repeated %lld, ignored %lld, quarantined %lld; the oldest waits for %.1f s%s%s\n",
            integer(answer, "applied"), integer(answer, "repeated"), integer(answer, "ignored"),
            integer(answer, "quarantined"), number(answer, "lag_s"), *text(answer, "held_by") ? " for " : "",
            text(answer, "held_by"));
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

static void render_keys(const json_t *answer, FILE *out)
{
    const json_t *key;
    size_t index;
    if (*text(answer, "server")) {
        fprintf(out, "%s, %s: follow %s and %s\n", text(answer, "name"), text(answer, "role"), text(answer, "publish"),
                text(answer, "snapshot"));
        return;
    }
    if (*text(answer, "message"))
        fprintf(out, "%s\n", text(answer, "message"));
    else
        fprintf(out, "%zu keys\n", json_array_size(json_object_get(answer, "keys")));
    json_array_foreach(json_object_get(answer, "keys"), index, key) fprintf(
        out, "  %-31s %-10s %s  %s\n", text(key, "name"), text(key, "role"), text(key, "made"), text(key, "public"));
}

static const struct {
    const char *verb;
    void (*render)(const json_t *answer, FILE *out);
} renderers[] = {
    {"status",   render_status  },
    {"doctor",   render_doctor  },
    {"ready",    render_ready   },
    {"metrics",  render_metrics },
    {"train",    render_train   },
    {"queue",    render_queue   },
    {"why",      render_why     },
    {"review",   render_review  },
    {"diff",     render_diff    },
    {"galaxies", render_galaxies},
    {"votes",    render_votes   },
    {"models",   render_models  },
    {"keys",     render_keys    },
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
