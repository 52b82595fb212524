/* The table of configuration keys and what is done with it; see config.h. */
#include "daemon/config.h"
#include "acquisition/clusters.h"
#include "acquisition/savings.h"
#include "acquisition/select.h"
#include "base/error.h"
#include "base/file.h"
#include "base/ini.h"
#include "connectors/database.h"
#include "connectors/votes.h"
#include "model/head.h"
#include "model/information.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum key_type { KEY_TEXT, KEY_INTEGER, KEY_REAL, KEY_CHOICE };

struct config_key {
    const char *section, *name;
    enum key_type type;
    int reloadable;
    size_t offset;
    const char *value; /* default */
    double minimum, maximum;
    const char *help; /* for KEY_CHOICE the help starts with the choices, divided by '|' */
};

#define FIELD(field) offsetof(struct config, field)

/* clang-format off */
static const struct config_key keys[] = {
    {"instance", "name", KEY_TEXT, 0, FIELD(name), "default", 0, 0, "name of this instance, shown in status"},
    {"instance", "schema", KEY_TEXT, 0, FIELD(schema), "gz2", 0, 0, "decision tree: a name of etc/schemas, or the path of an .ini file"},
    {"instance", "state", KEY_TEXT, 0, FIELD(state), "/var/lib/triaged", 0, 0, "folder of pool, models and the private database; absolute"},
    {"instance", "run", KEY_TEXT, 0, FIELD(run), "", 0, 0, "folder of the sockets; empty = STATE/run"},
    {"instance", "seed", KEY_INTEGER, 0, FIELD(seed), "1", 0, 9e15, "seed of every random choice; same seed, same ranking"},
    {"database", "url", KEY_TEXT, 0, FIELD(database_url), "", 0, 0, "libpq connection string; empty = a private PostgreSQL cluster under STATE, which only the daemon's user can reach (docs/database.md); systemd's unit reaches other hosts only with IPAddressAllow="},
    {"database", "wait_s", KEY_INTEGER, 0, FIELD(database_wait_s), "60", 0, 3600, "at the start, seconds to wait for a database that is away"},
    {"images", "side", KEY_INTEGER, 0, FIELD(image_side), "300", 32, 2048, "pixels per side of the stored image; fixed when the pool is made"},
    {"images", "channels", KEY_INTEGER, 0, FIELD(image_channels), "1", 1, 3, "1 = grey (mean of the channels), 3 = colour; fixed when the pool is made"},
    {"images", "folders", KEY_TEXT, 1, FIELD(image_folders), "", 0, 0, "folders that absolute file locations of a catalogue may lie in, beside the catalogue's own; absolute, separated by commas; / = any"},
    {"trunk", "network", KEY_CHOICE, 0, FIELD(trunk_network), "efficientnet_b0", 0, 0, "efficientnet_b0|tf_efficientnet_b0|efficientnet_lite0|tf_efficientnet_lite0|walmsley2020: fixed when the pool is made"},
    {"trunk", "weights", KEY_TEXT, 0, FIELD(trunk_weights), "", 0, 0, "weights to start from (.safetensors, timm's or Zoobot's names); those of others need their config.json beside them, which says for which network they are; the service reads them once, when the first galaxies are embedded: other weights later have no effect, and whether there are any is fixed when the pool is made; empty = seeded random"},
    {"trunk", "precision", KEY_CHOICE, 0, FIELD(trunk_precision), "fp32", 0, 0, "fp32|bf16|tf32: what embeddings are computed in; bf16 is faster on a GPU and where the processor has AVX-512 bf16, and refused by one without AVX-512; tf32 is fp32 in which a GPU may round the factors of products; fixed when the pool is made"},
    {"trunk", "side", KEY_INTEGER, 0, FIELD(trunk_side), "224", 32, 1024, "pixels per side the network sees, of the part of the stored image that training.augmentation shows; fixed when the pool is made"},
    {"trunk", "views", KEY_INTEGER, 0, FIELD(trunk_views), "1", 1, 8, "mirrored and turned views whose embeddings are averaged; 8 suits a random trunk; fixed when the pool is made"},
    {"trunk", "mc_views", KEY_INTEGER, 0, FIELD(mc_views), "1", 1, TRUNK_MC_VIEWS_MAX, "random views of each galaxy that MC-dropout passes take turns at (training.augmentation says which); 1 = all see the plain one; fixed when the pool is made"},
    {"trunk", "mc_stochastic_depth", KEY_REAL, 0, FIELD(mc_stochastic_depth), "0", 0, 0.9, "probability to skip the last residual block in each of these views, less for those before (Walmsley et al. 2021: 0.2); needs mc_views; fixed when the pool is made"},
    {"trunk", "calibration_images", KEY_INTEGER, 0, FIELD(calibration_images), "64", 8, 256, "images whose statistics scale a random trunk"},
    {"worker", "backend", KEY_CHOICE, 0, FIELD(backend), "cpu", 0, 0, "cpu|cuda: what the worker and finetune compute on; cuda needs an NVIDIA device and its libraries, see triaged gpu; replay and evaluate compute on the processor in any case"},
    {"worker", "fallback", KEY_CHOICE, 0, FIELD(fallback), "none", 0, 0, "none|cpu: with cpu, a worker that finds no usable GPU computes on the processor, many times slower, and status says so; with none it is started again until there is one"},
    {"worker", "devices", KEY_INTEGER, 0, FIELD(devices), "1", 1, 8, "cuda: GPUs that embed and train together, each with its share of every batch; training learns the same within rounding for any number"},
    {"worker", "threads", KEY_INTEGER, 0, FIELD(threads), "0", 0, 512, "compute threads; 0 = one per core"},
    {"worker", "embed_chunk", KEY_INTEGER, 1, FIELD(embed_chunk), "256", 8, 4096, "galaxies per embedding job; a cycle waits for at most one"},
    {"worker", "job_timeout_s", KEY_INTEGER, 1, FIELD(job_timeout_s), "600", 5, 86400, "a job without progress for so long is ended and tried again"},
    {"heads", "count", KEY_INTEGER, 0, FIELD(heads), "5", 1, 16, "heads of the ensemble; fixed for the first model"},
    {"heads", "dropout", KEY_REAL, 0, FIELD(dropout), "0.2", 0, 0.9, "share of the embedding dropped in each pass; fixed for the first model"},
    {"heads", "unit_length", KEY_CHOICE, 0, FIELD(unit_length), "on", 0, 0, "on|off: every galaxy's embedding is scaled to the same length, so that outliers neither rule a fit nor look uncertain for ever; fixed for the first model"},
    {"heads", "passes", KEY_INTEGER, 1, FIELD(passes), "30", 1, INFORMATION_PASSES_MAX, "MC-dropout passes over all heads together; a multiple of heads.count and of trunk.mc_views"},
    {"heads", "learning_rate", KEY_REAL, 1, FIELD(learning_rate), "0.0003", 1e-7, 1, "AdamW step of the weights"},
    {"heads", "bias_rate", KEY_REAL, 1, FIELD(bias_rate), "0.03", 1e-7, 1, "AdamW step of the biases: each alone moves what the weights, a thousand, move together"},
    {"heads", "weight_decay", KEY_REAL, 1, FIELD(weight_decay), "0.1", 0, 100, "AdamW decay of the weights"},
    {"heads", "warm_start", KEY_REAL, 1, FIELD(warm_start), "0.5", 0, 1, "share of the champion's weights a fit starts from; 0 = afresh, 1 = as they are"},
    {"heads", "bagging", KEY_CHOICE, 1, FIELD(bagging), "on", 0, 0, "on|off: each head weighs the labelled galaxies in its own random way, so that heads disagree where labels are few"},
    {"heads", "scaling", KEY_CHOICE, 1, FIELD(scaling), "on", 0, 0, "on|off: concentrations of each question are multiplied with one factor that suits the votes on validation galaxies, where it makes the heads less certain"},
    {"heads", "batch", KEY_INTEGER, 1, FIELD(batch), "64", 1, HEAD_BATCH_MAX, "galaxies per step"},
    {"heads", "epochs_max", KEY_INTEGER, 1, FIELD(epochs_max), "200", 1, 10000, "passes over the labelled galaxies at most, per fit"},
    {"heads", "patience", KEY_INTEGER, 1, FIELD(patience), "10", 1, 10000, "epochs without a better validation loss before a fit stops"},
    {"heads", "labels_max", KEY_INTEGER, 1, FIELD(labels_limit), "200000", 8, 200000, "labelled galaxies of each split that a fit uses at most; of more it takes half, or a quarter, ..., always the same ones"},
    {"training", "trunk", KEY_CHOICE, 1, FIELD(trunk_training), "auto", 0, 0, "auto|off: whether the service trains its trunk by itself, when labels have doubled or its heads stop improving"},
    {"training", "labels_min", KEY_INTEGER, 1, FIELD(labels_min), "1000", 2, 1e9, "labelled galaxies before the trunk is trained for the first time"},
    {"training", "stalled_fits", KEY_INTEGER, 1, FIELD(stalled_fits), "10", 1, 100000, "models in a row that were not promoted, after which the trunk is trained though labels have not doubled"},
    {"training", "slice_s", KEY_INTEGER, 1, FIELD(slice_s), "20", 1, 3600, "the trunk is trained so long at a time, between cycles"},
    {"training", "learning_rate", KEY_REAL, 1, FIELD(training_rate), "0.001", 1e-8, 1, "AdamW step of the head and the topmost block"},
    {"training", "schedule", KEY_CHOICE, 1, FIELD(schedule), "cosine", 0, 0, "cosine|constant|plateau: how the step shrinks over the epochs"},
    {"training", "warmup_epochs", KEY_INTEGER, 1, FIELD(warmup_epochs), "1", 0, 1000, "epochs over which the step grows to its size"},
    {"training", "weight_decay", KEY_REAL, 1, FIELD(training_decay), "0.05", 0, 100, "AdamW decay of everything that learns"},
    {"training", "clip_norm", KEY_REAL, 1, FIELD(clip_norm), "0", 0, 1e6, "largest norm of the gradient; 0 = any"},
    {"training", "blocks", KEY_INTEGER, 1, FIELD(blocks), "64", 0, TRUNK_FIT_BLOCKS_MAX, "blocks of the trunk that learn, from the top; 0 = only the head, 64 = all of any network"},
    {"training", "block_decay", KEY_REAL, 1, FIELD(block_decay), "1", 0.01, 1, "each further block from the top learns at this share of the one above"},
    {"training", "norm", KEY_CHOICE, 1, FIELD(norm), "live", 0, 0, "live|frozen: batch norm by each batch, its running statistics following, or by the statistics it came with"},
    {"training", "dropout", KEY_REAL, 1, FIELD(training_dropout), "0.2", 0, 0.9, "share of the embedding dropped in training"},
    {"training", "stochastic_depth", KEY_REAL, 1, FIELD(stochastic_depth), "0.1", 0, 0.9, "probability to skip the last residual block in training, less for those before"},
    {"training", "augmentation", KEY_CHOICE, 0, FIELD(augmentation), "w21", 0, 0, "w21|w20|none: how images are turned, mirrored and cropped in training, as Walmsley et al. 2021 or 2020; elsewhere the network sees the mean crop of it, centred: 0.75 of images.side (trunk.side itself where within 10 pixels), 0.835 of it, or the central trunk.side pixels; fixed when the pool is made"},
    {"training", "class_weights", KEY_CHOICE, 1, FIELD(class_weights), "none", 0, 0, "none|balanced: for labels that are classes, rare ones count more"},
    {"training", "warm_start", KEY_REAL, 1, FIELD(training_start), "1", 0, 1, "share of given weights a run starts from, the rest drawn afresh; below 1 it needs norm = live"},
    {"training", "batch", KEY_INTEGER, 1, FIELD(training_batch), "32", 1, TRUNK_FIT_BATCH_MAX, "galaxies per step; at 224 pixels each takes about 65 MB of memory"},
    {"training", "epochs_max", KEY_INTEGER, 1, FIELD(training_epochs_max), "60", 1, TRUNK_FIT_EPOCHS_MAX, "passes over the labelled galaxies at most"},
    {"training", "patience", KEY_INTEGER, 1, FIELD(training_patience), "10", 0, TRUNK_FIT_EPOCHS_MAX, "epochs without a better validation loss before a run stops; 0 = never"},
    {"training", "validation_share", KEY_REAL, 1, FIELD(validation_share), "0.1", 0, 0.5, "share of the labelled galaxies that only judge, in `triaged finetune`"},
    {"score", "kind", KEY_CHOICE, 1, FIELD(score_kind), "bald", 0, 0, SCORE_NAMES ": what a galaxy is ranked by; docs/science/active-learning.md has the formulas"},
    {"score", "questions", KEY_TEXT, 1, FIELD(score_questions), "all", 0, 0, "questions that count for the score, separated by commas, or all"},
    {"score", "power", KEY_REAL, 1, FIELD(score_power), "1", 0, SELECT_POWER_MAX, "0 = take the highest scores; more = draw in proportion to score^power, with known probabilities"},
    {"queue", "size", KEY_INTEGER, 1, FIELD(queue_size), "100", 1, 100000, "galaxies offered to volunteers at a time"},
    {"queue", "holdout_share", KEY_REAL, 1, FIELD(holdout_share), "0.1", 0, 1, "share for the validation and gate galaxies (random draws)"},
    {"queue", "random_share", KEY_REAL, 1, FIELD(random_share), "0.1", 0, 1, "share of the rest drawn at random, as a control; 1 = no active choice"},
    {"queue", "retire_votes", KEY_INTEGER, 1, FIELD(retire_votes), "40", 1, 65535, "classifications after which a galaxy is done"},
    {"queue", "lease_s", KEY_INTEGER, 1, FIELD(lease_s), "86400", 1, 31536000, "seconds a galaxy may stay in the queue before its place is given away"},
    {"queue", "shortlist", KEY_INTEGER, 1, FIELD(shortlist), "4", 1, SELECT_SHORTLIST_MAX, "candidates per active place whose information is computed exactly and which are compared with each other"},
    {"queue", "clusters", KEY_INTEGER, 1, FIELD(clusters), "64", 1, CLUSTERS_MAX, "kinds of galaxies that a batch is spread over: k-means of the embeddings"},
    {"queue", "cluster_share", KEY_REAL, 1, FIELD(cluster_share), "0.1", 0, 1, "share of the active places that one kind may take, at least one; 0 = any share"},
    {"queue", "duplicate_arcsec", KEY_REAL, 1, FIELD(duplicate_arcsec), "2", 0, 3600, "galaxies closer on the sky than this are never on offer together; 0 = they may be"},
    {"queue", "duplicate_distance", KEY_REAL, 1, FIELD(duplicate_distance), "0.3", 0, 100, "galaxies whose embeddings are closer than this are never on offer together; 1 = median distance from the centre of a kind; 0 = they may be"},
    {"queue", "artifact_max", KEY_REAL, 1, FIELD(artifact_max), "0.5", 0, 1, "galaxies of which more volunteers than this share are expected to call it an artifact or a problem are held back for review; 1 = none"},
    {"queue", "outlier_distance", KEY_REAL, 1, FIELD(outlier_distance), "5", 0, 1e6, "candidates farther than this from every kind are held back for review; 1 = median distance from the centre of a kind; 0 = none"},
    {"queue", "review_size", KEY_INTEGER, 1, FIELD(review_size), "50", 0, 10000, "galaxies held back that triagectl review lists, the most informative ones"},
    {"queue", "cold_start", KEY_CHOICE, 1, FIELD(cold_start), "typical", 0, 0, "typical|random: what is asked about first, until a model beats the constant prediction: typical galaxies of every kind, or random ones"},
    {"queue", "retire_information", KEY_REAL, 1, FIELD(retire_information), "0", 0, 1000, "a galaxy is done when the votes still due would teach less than this, in nats; 0 = only by retire_votes"},
    {"queue", "retire_votes_min", KEY_INTEGER, 1, FIELD(retire_votes_min), "10", 1, 65535, "classifications a galaxy needs before retire_information may end it"},
    {"cycle", "votes_min", KEY_INTEGER, 1, FIELD(votes_min), "200", 1, 1e9, "new votes that start a cycle at once"},
    {"cycle", "wait_ms", KEY_INTEGER, 1, FIELD(wait_ms), "60000", 100, 86400000, "with fewer new votes a cycle starts after so long"},
    {"cycle", "late_s", KEY_INTEGER, 1, FIELD(late_s), "1800", 1, 1e9, "when votes have been waiting for a new ranking for longer, the service is not ready"},
    {"votes", "batch", KEY_INTEGER, 1, FIELD(vote_batch), "5000", 1, 100000, "votes applied per transaction"},
    {"votes", "poll_ms", KEY_INTEGER, 1, FIELD(poll_ms), "1000", 50, 60000, "look for votes at least this often, notified or not"},
    {"votes", "voter", KEY_CHOICE, 0, FIELD(vote_voter), "first", 0, 0, "first|last|all: which of a person's votes on a question of a galaxy count, by number of classification; changing it counts every vote again"},
    {"votes", "count_also", KEY_TEXT, 0, FIELD(vote_count_also), "", 0, 0, "votes that count although they are marked, separated by commas, of " VOTES_MARKS "; changing it counts every vote again"},
    {"votes", "weighting", KEY_CHOICE, 0, FIELD(vote_weighting), "off", 0, 0, "off|agreement: tallies are sums of the weights that `triaged votes weigh` gave each person; votes stay as they are"},
    {"models", "keep", KEY_INTEGER, 1, FIELD(models_keep), "100", 2, 10000, "model files kept; older ones are deleted, never the champion"},
    {"feed", "security", KEY_CHOICE, 0, FIELD(feed_security), "curve", 0, 0, "curve|plaintext: encrypted, and only for holders of a key of `triagectl keys new`; or for everybody on this machine, at loopback and ipc endpoints only"},
    {"feed", "keys", KEY_TEXT, 0, FIELD(feed_keys), "", 0, 0, "folder of the feed's keys; empty = STATE/keys"},
    {"feed", "publish", KEY_TEXT, 0, FIELD(feed_publish), "tcp://127.0.0.1:5571", 0, 0, "endpoint of the feed"},
    {"feed", "snapshot", KEY_TEXT, 0, FIELD(feed_snapshot), "tcp://127.0.0.1:5572", 0, 0, "endpoint for snapshots and replays"},
    {"feed", "record", KEY_TEXT, 0, FIELD(feed_record), "", 0, 0, "file that receives every feed message instead of the sockets; empty = publish"},
    {"log", "format", KEY_CHOICE, 0, FIELD(log_format), "text", 0, 0, "text|json: lines on standard error"},
    {"metrics", "port", KEY_INTEGER, 0, FIELD(metrics_port), "0", 0, 65535, "port on 127.0.0.1 for GET /metrics (OpenMetrics), /livez and /readyz; 0 = none"},
    {"replay", "track", KEY_CHOICE, 0, FIELD(replay_track), "frozen", 0, 0, "frozen|scratch: only heads learn on a given trunk, or the whole network afresh at every step"},
    {"replay", "arms", KEY_TEXT, 0, FIELD(replay_arms), "random, bald, bald@1, entropy", 0, 0, "scores to compare, the first one the reference; bald@4 draws by score^4, bald+0.2 takes a fifth at random, bald@1:batch obeys the rules of queue.* like the service"},
    {"replay", "seeds", KEY_INTEGER, 0, FIELD(replay_seeds), "10", 1, SAVINGS_SEEDS_MAX, "repeats of every arm, paired"},
    {"replay", "initial", KEY_INTEGER, 0, FIELD(replay_initial), "64", 2, 1e6, "galaxies that every arm of a seed starts from"},
    {"replay", "step", KEY_INTEGER, 0, FIELD(replay_step), "64", 1, SELECT_SLOTS_MAX, "galaxies asked about at a time"},
    {"replay", "steps", KEY_INTEGER, 0, FIELD(replay_steps), "12", 1, SAVINGS_STEPS_MAX - 1, "how often"},
    {"replay", "test_share", KEY_REAL, 0, FIELD(replay_test_share), "0.25", 0.01, 0.9, "share of the catalogue nobody may ask about; it judges"},
};
/* clang-format on */
#define KEY_COUNT (sizeof keys / sizeof *keys)

static void *field(const struct config *config, const struct config_key *key)
{
    return (char *)(uintptr_t)config + key->offset;
}

static int set_number(struct config *config, const struct config_key *key, const char *value)
{
    char *end;
    errno = 0;
    double number = strtod(value, &end);
    if (end == value || *end || errno || !isfinite(number))
        return error_set(ERROR_INPUT, "%s.%s = %s is not a number", key->section, key->name, value);
    if (key->type == KEY_INTEGER && number != floor(number))
        return error_set(ERROR_INPUT, "%s.%s = %s must be a whole number", key->section, key->name, value);
    if (number < key->minimum || number > key->maximum)
        return error_set(ERROR_INPUT, "%s.%s = %s is out of range: %g to %g", key->section, key->name, value,
                         key->minimum, key->maximum);
    if (key->type == KEY_INTEGER)
        *(int64_t *)field(config, key) = (int64_t)number;
    else
        *(double *)field(config, key) = number;
    return 0;
}

/* 1 if `value` is one of "a|b|c" before the colon in the help. */
static int is_choice(const char *help, const char *value)
{
    size_t length = strlen(value), end = strcspn(help, ":");
    for (size_t at = 0; at < end; at += strcspn(help + at, "|:") + 1)
        if (strcspn(help + at, "|:") == length && strncmp(help + at, value, length) == 0)
            return 1;
    return 0;
}

static int set_value(struct config *config, const struct config_key *key, const char *value)
{
    if (key->type == KEY_INTEGER || key->type == KEY_REAL)
        return set_number(config, key, value);
    if (key->type == KEY_CHOICE && !is_choice(key->help, value))
        return error_set(ERROR_INPUT, "%s.%s = %s: expected %.*s", key->section, key->name, value,
                         (int)strcspn(key->help, ":"), key->help);
    if (strlen(value) >= CONFIG_TEXT_BYTES)
        return error_set(ERROR_LIMIT, "%s.%s is longer than %d characters", key->section, key->name,
                         CONFIG_TEXT_BYTES - 1);
    memcpy(field(config, key), value, strlen(value) + 1);
    return 0;
}

void config_defaults(struct config *config)
{
    *config = (struct config){0};
    for (size_t i = 0; i < KEY_COUNT; i++)
        set_value(config, &keys[i], keys[i].value);
}

static int on_entry(void *context, const char *section, const char *name, const char *value, int line)
{
    (void)line;
    int section_known = 0;
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (strcmp(keys[i].section, section) != 0)
            continue;
        section_known = 1;
        if (name && strcmp(keys[i].name, name) == 0)
            return set_value(context, &keys[i], value);
    }
    if (!section_known)
        return error_set(ERROR_INPUT, "unknown section [%s]", section);
    return name ? error_set(ERROR_INPUT, "unknown key %s.%s (see triaged.conf(5))", section, name) : 0;
}

int config_set(struct config *config, const char *assignment)
{
    char section[CONFIG_TEXT_BYTES], name[CONFIG_TEXT_BYTES];
    size_t dot = strcspn(assignment, ".="), equals = strcspn(assignment, "=");
    if (assignment[dot] != '.' || !assignment[equals] || equals >= sizeof section)
        return error_set(ERROR_INPUT, "'%.80s' is not of the form section.key=value", assignment);
    snprintf(section, sizeof section, "%.*s", (int)dot, assignment);
    snprintf(name, sizeof name, "%.*s", (int)(equals - dot - 1), assignment + dot + 1);
    return on_entry(config, section, name, assignment + equals + 1, 0);
}

static int check_paths(const struct config *config)
{
    if (config->state[0] != '/')
        return error_set(ERROR_INPUT, "instance.state = %s must be an absolute path", config->state);
    if (config->run[0] != '/')
        return error_set(ERROR_INPUT, "instance.run = %s must be an absolute path", config->run);
    for (const char *at = config->image_folders; *(at += strspn(at, ", ")); at += strcspn(at, ","))
        if (*at != '/')
            return error_set(ERROR_INPUT, "images.folders: %.*s must be an absolute path", (int)strcspn(at, ","), at);
    return 0;
}

int config_check(const struct config *config)
{
    int result = check_paths(config);
    if (result)
        return result;
    if (config->trunk_side > config->image_side)
        return error_set(ERROR_INPUT, "trunk.side = %lld is larger than images.side = %lld",
                         (long long)config->trunk_side, (long long)config->image_side);
    if (config->image_channels == 2)
        return error_set(ERROR_INPUT, "images.channels = 2: 1 (grey) or 3 (colour)");
    if (config->passes % config->heads)
        return error_set(ERROR_INPUT, "heads.passes = %lld is not a multiple of heads.count = %lld",
                         (long long)config->passes, (long long)config->heads);
    if (config->passes % config->mc_views)
        return error_set(ERROR_INPUT, "heads.passes = %lld is not a multiple of trunk.mc_views = %lld",
                         (long long)config->passes, (long long)config->mc_views);
    if (config->mc_stochastic_depth > 0 && config->mc_views == 1)
        return error_set(ERROR_INPUT, "trunk.mc_stochastic_depth = %g needs several views: set trunk.mc_views",
                         config->mc_stochastic_depth);
    if (config->mc_views > 1 && config->trunk_views > 1)
        return error_set(ERROR_INPUT,
                         "trunk.views = %lld averages what trunk.mc_views = %lld keeps apart: use one of them",
                         (long long)config->trunk_views, (long long)config->mc_views);
    if (config->training_start < 1 && strcmp(config->norm, "frozen") == 0)
        return error_set(
            ERROR_INPUT,
            "training.warm_start = %g perturbs weights, whose running statistics training.norm = frozen would "
            "never follow: use live, or warm_start = 1",
            config->training_start);
    result = votes_check_marks(config->vote_count_also);
    return result ? error_prefix(result, "votes.count_also: ") : 0;
}

int config_read(const char *path, struct config *ret_config)
{
    struct config config;
    config_defaults(&config);
    int result = 0;
    if (path) {
        result = ini_read(path, on_entry, &config);
        if (result)
            return result;
        snprintf(config.file, sizeof config.file, "%s", path);
    }
    if (!config.run[0] && (result = file_path(config.run, sizeof config.run, "%s/run", config.state)))
        return result;
    result = config_check(&config);
    if (result)
        return path ? error_prefix(result, "%s: ", path) : result;
    *ret_config = config;
    return 0;
}

/* What is printed may be kept in a bug report: a password stays out, and the file with it stays the one to read. */
static void print_url(const char *url, FILE *out)
{
    char words[CONFIG_TEXT_BYTES];
    bool is_secret = database_has_password(url);
    if (is_secret)
        database_describe(url, words, sizeof words);
    fprintf(out, "%s", is_secret ? words : url);
}

static void print_value(const struct config *config, const struct config_key *key, FILE *out)
{
    if (key->type == KEY_INTEGER)
        fprintf(out, "%lld", (long long)*(int64_t *)field(config, key));
    else if (key->type == KEY_REAL)
        fprintf(out, "%.10g", *(double *)field(config, key));
    else if (key->offset == FIELD(database_url))
        print_url(config->database_url, out);
    else
        fprintf(out, "%s", (char *)field(config, key));
}

void config_print(const struct config *config, FILE *out)
{
    const char *section = "";
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (strcmp(section, keys[i].section) != 0) {
            section = keys[i].section;
            fprintf(out, "%s[%s]\n", i ? "\n" : "", section);
        }
        fprintf(out, "# %s (%s)\n%s = ", keys[i].help, keys[i].reloadable ? "reloadable" : "needs a restart",
                keys[i].name);
        print_value(config, &keys[i], out);
        fputc('\n', out);
    }
}

static size_t value_size(const struct config_key *key)
{
    return key->type == KEY_INTEGER ? sizeof(int64_t) : key->type == KEY_REAL ? sizeof(double) : CONFIG_TEXT_BYTES;
}

void config_reload(struct config *config, const struct config *next, char *ret_restart, int size)
{
    int used = 0;
    ret_restart[0] = 0;
    for (size_t i = 0; i < KEY_COUNT; i++) {
        size_t bytes = value_size(&keys[i]);
        int text = keys[i].type == KEY_TEXT || keys[i].type == KEY_CHOICE;
        int same = text ? strcmp(field(config, &keys[i]), field(next, &keys[i])) == 0
                        : memcmp(field(config, &keys[i]), field(next, &keys[i]), bytes) == 0;
        if (same)
            continue;
        if (keys[i].reloadable)
            memcpy(field(config, &keys[i]), field(next, &keys[i]), bytes);
        else if (used < size)
            used += snprintf(ret_restart + used, (size_t)(size - used), "%s%s.%s", used ? ", " : "", keys[i].section,
                             keys[i].name);
    }
}

int config_schema_path(const struct config *config, char *path, int size)
{
    static const char *const folders[] = {TRIAGE_DATA_FOLDER "/schemas", TRIAGE_SOURCE_FOLDER "/etc/schemas"};
    if (strchr(config->schema, '/'))
        return file_path(path, (size_t)size, "%s", config->schema);
    for (int i = 0; i < 2; i++) {
        int result = file_path(path, (size_t)size, "%s/%s.ini", folders[i], config->schema);
        if (result || file_exists(path))
            return result;
    }
    return error_set(ERROR_NOT_FOUND, "no decision tree named '%s' in %s: give a name from there or a path",
                     config->schema, folders[0]);
}

int config_score_rule(const struct config *config, const struct schema *schema, struct score_rule *ret_rule)
{
    *ret_rule = (struct score_rule){0};
    int result = score_from_name(config->score_kind, &ret_rule->kind);
    if (!result)
        result = score_set_questions(schema, config->score_questions, ret_rule);
    return result ? error_prefix(ERROR_STATE, "score.questions: ") : 0;
}

int config_passes(const struct config *config, int heads)
{
    int64_t step = heads;
    while (step % config->mc_views)
        step += heads;
    return (int)(config->passes < step ? step : config->passes - config->passes % step);
}

/* Which of the choices "a|b|c" in the key's help this value is. */
static int choice_index(size_t offset, const char *value)
{
    int index = 0;
    for (size_t i = 0; i < KEY_COUNT; i++)
        for (const char *at = keys[i].help; keys[i].offset == offset; index++) {
            size_t length = strcspn(at, "|:");
            if (length == strlen(value) && strncmp(at, value, length) == 0)
                return index;
            at += length + 1;
        }
    return -1;
}

int config_unit_length(const struct config *config)
{
    return choice_index(FIELD(unit_length), config->unit_length) == 0;
}

int config_log_json(const struct config *config)
{
    return choice_index(FIELD(log_format), config->log_format) == 1;
}

int config_scaling(const struct config *config)
{
    return choice_index(FIELD(scaling), config->scaling) == 0;
}

int config_typical_first(const struct config *config)
{
    return choice_index(FIELD(cold_start), config->cold_start) == 0;
}

int config_bagging(const struct config *config)
{
    return choice_index(FIELD(bagging), config->bagging) == 0;
}

enum precision config_precision(const struct config *config)
{
    static const enum precision precisions[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_TF32};
    return precisions[choice_index(FIELD(trunk_precision), config->trunk_precision)];
}

enum augmentation config_augmentation(const struct config *config)
{
    static const enum augmentation augmentations[] = {AUGMENT_W21, AUGMENT_W20, AUGMENT_NONE};
    return augmentations[choice_index(FIELD(augmentation), config->augmentation)];
}

void config_recipe(const struct config *config, struct trunk_recipe *ret_recipe)
{
    static const enum schedule schedules[] = {SCHEDULE_COSINE, SCHEDULE_CONSTANT, SCHEDULE_PLATEAU};
    *ret_recipe = (struct trunk_recipe){
        .learning_rate = config->training_rate,
        .weight_decay = config->training_decay,
        .block_decay = config->block_decay,
        .clip_norm = config->clip_norm,
        .dropout = config->training_dropout,
        .stochastic_depth = config->stochastic_depth,
        .schedule = schedules[choice_index(FIELD(schedule), config->schedule)],
        .augmentation = config_augmentation(config),
        .blocks = (int)config->blocks,
        .live_norm = choice_index(FIELD(norm), config->norm) == 0,
        .batch = (int)config->training_batch,
        .epochs_max = (int)config->training_epochs_max,
        .patience = (int)config->training_patience,
        .warmup_epochs = (int)config->warmup_epochs,
        .seed = (uint64_t)config->seed,
    };
}
