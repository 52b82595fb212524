/* `triagectl diff`: what moved between two models, and why, as the worker computes it on demand. */
#include "base/error.h"
#include "base/file.h"
#include "daemon/models.h"
#include "daemon/proto.h"
#include "daemon/verbs.h"

#include <math.h>
#include <stdlib.h>

#define MOVED_SHOWN 20

/* The larger cause of a change in asked * information: is the question asked more, or do the passes disagree more? */
static json_t *cause_in_words(const json_t *moved)
{
    const json_t *asked = json_object_get(moved, "asked"), *information = json_object_get(moved, "information");
    double asked0 = json_number_value(json_array_get(asked, 0)), asked1 = json_number_value(json_array_get(asked, 1));
    double own0 = json_number_value(json_array_get(information, 0)),
           own1 = json_number_value(json_array_get(information, 1));
    const char *name = json_string_value(json_object_get(moved, "question"));
    double by_asking = (asked1 - asked0) * (own0 + own1) / 2, by_passes = (own1 - own0) * (asked0 + asked1) / 2;
    if (fabs(by_asking) > fabs(by_passes))
        return json_sprintf("'%s' is asked with probability %.2f instead of %.2f", name, asked1, asked0);
    return json_sprintf("passes disagree on '%s' by %.4f nat instead of %.4f", name, own1, own0);
}

static void name_moved(const struct daemon *daemon, json_t *answer)
{
    json_t *moved;
    size_t index;
    json_array_foreach(json_object_get(answer, "moved"), index, moved)
    {
        uint64_t key = (uint64_t)json_integer_value(json_object_get(moved, "key"));
        if (key >= 1 && key <= daemon->galaxies)
            json_object_set_new(moved, "id", json_string(pool_identity(&daemon->pool, key - 1)->id_str));
        json_object_set_new(moved, "because", cause_in_words(moved));
        json_object_del(moved, "key");
    }
}

struct diff {
    struct daemon *daemon;
    control_client client;
    uint32_t models[2];
};

static void on_compared(void *context, int code, const json_t *answer)
{
    struct diff *diff = context;
    struct daemon *daemon = diff->daemon;
    json_t *reply = code ? NULL : json_deep_copy(answer);
    if (!reply)
        verbs_refuse(daemon, diff->client);
    else {
        json_object_del(reply, "job");
        json_object_set_new(reply, "ok", json_true());
        json_object_set_new(reply, "models",
                            json_pack("[I,I]", (json_int_t)diff->models[0], (json_int_t)diff->models[1]));
        name_moved(daemon, reply);
        control_answer(daemon->control, diff->client, reply);
    }
    free(diff);
}

static int is_stored(const struct daemon *daemon, uint32_t number)
{
    char path[FILE_PATH_BYTES];
    return number && !models_path(&daemon->config, number, path, sizeof path) && file_exists(path);
}

void verb_diff(struct daemon *daemon, control_client client, const json_t *request)
{
    const json_t *models = json_object_get(request, "models"), *top = json_object_get(request, "top");
    struct diff *diff = calloc(1, sizeof *diff);
    if (!diff) {
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "out of memory");
        return;
    }
    diff->daemon = daemon;
    diff->client = client;
    for (size_t i = 0; i < 2; i++) {
        json_int_t number = json_integer_value(json_array_get(models, i));
        diff->models[i] = number > 0 && number < UINT32_MAX ? (uint32_t)number : 0;
        if (!is_stored(daemon, diff->models[i])) {
            control_refuse(daemon->control, client, PROTO_EXIT_NOT_FOUND,
                           "no stored model %lld: see 'triagectl models'; only the last %lld are kept",
                           (long long)number, (long long)daemon->config.models_keep);
            free(diff);
            return;
        }
    }
    if (daemon->worker.state != WORKER_IDLE) {
        control_refuse(daemon->control, client, PROTO_EXIT_REFUSED, "the worker is %s with %s: try again in a moment",
                       worker_state_name(daemon->worker.state), daemon->worker.kind);
        free(diff);
        return;
    }
    json_t *job = json_pack("{s:[I,I],s:I}", "models", (json_int_t)diff->models[0], (json_int_t)diff->models[1], "top",
                            top ? json_integer_value(top) : (json_int_t)MOVED_SHOWN);
    if (worker_link_send(&daemon->worker, "compare", job, on_compared, diff)) {
        verbs_refuse(daemon, client);
        free(diff);
    }
}
