/* See training_set.h. */
#include "daemon/training_set.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/text.h"
#include "connectors/catalogue.h"
#include "connectors/csv.h"
#include "connectors/image.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DECODE_THREADS_MAX 64
#define CLASSES_MAX        64

struct reading {
    const struct config *config;
    const struct training_source *source;
    struct training_set *set;
    char (*path)[1200];                 /* [rows] */
    char (*label)[TRAINING_NAME_BYTES]; /* [rows] the label's text, for classes */
    uint8_t *is_test;                   /* [rows] */
    uint8_t *has_label;                 /* [rows] */
    uint8_t *is_bad;                    /* [rows] */
    char (*reason)[160];                /* [rows] */
    size_t capacity;
};

/* --- the catalogue ------------------------------------------------------------------------------------------------ */

static int grow(void *array, size_t capacity, size_t bytes)
{
    void **pointer = array, *larger = realloc(*pointer, capacity * bytes);
    if (!larger)
        return error_set(ERROR_SYSTEM, "out of memory for %zu galaxies", capacity);
    *pointer = larger;
    return 0;
}

static int make_room(struct reading *reading)
{
    struct training_set *set = reading->set;
    if (set->rows < reading->capacity)
        return 0;
    if (set->rows >= TRAINING_ROWS_MAX)
        return error_set(ERROR_LIMIT, "more than %d galaxies", TRAINING_ROWS_MAX);
    size_t capacity = reading->capacity ? 2 * reading->capacity : 1024;
    size_t outputs = (size_t)(set->target.outputs ? set->target.outputs : 1);
    const struct {
        void *array;
        size_t bytes;
    } arrays[] = {
        {&set->id_str,        sizeof *set->id_str          },
        {&set->key,           sizeof *set->key             },
        {&set->labels,        outputs * sizeof *set->labels},
        {&reading->path,      sizeof *reading->path        },
        {&reading->label,     sizeof *reading->label       },
        {&reading->is_test,   1                            },
        {&reading->has_label, 1                            },
        {&reading->is_bad,    1                            },
        {&reading->reason,    sizeof *reading->reason      },
    };
    int result = 0;
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays && !result; i++)
        result = grow(arrays[i].array, capacity, arrays[i].bytes);
    if (!result)
        reading->capacity = capacity;
    return result;
}

/* Votes of the schema; for a binomial those of the other answers of the question, and those of the answer. */
static void take_votes(struct reading *reading, const struct schema *schema, const struct catalogue_row *row)
{
    struct training_set *set = reading->set;
    float *label = set->labels + set->rows * (size_t)set->target.outputs;
    if (set->target.kind == TARGET_VOTES) {
        for (int a = 0; a < schema->answers; a++)
            label[a] = (float)row->votes[a];
    } else {
        int answer = schema_find_column(schema, reading->source->labels);
        const struct question *question = &schema->question[schema->answer[answer].question];
        label[0] = 0;
        for (int i = 0; i < question->count; i++)
            label[0] += (float)row->votes[question->first + i];
        label[1] = (float)row->votes[answer];
        label[0] -= label[1];
    }
    float total = 0;
    for (int i = 0; i < set->target.outputs; i++)
        total += label[i];
    reading->has_label[set->rows] = total > 0;
}

static int take_column(struct reading *reading, const struct catalogue *catalogue, const struct catalogue_row *row,
                       const char *path)
{
    struct training_set *set = reading->set;
    const char *text = catalogue_text(catalogue, reading->source->labels);
    if (!text)
        return error_set(ERROR_INPUT, "%s has no column '%s'", path, reading->source->labels);
    reading->has_label[set->rows] = *text != 0;
    if (set->target.kind == TARGET_CLASSES) {
        if (strlen(text) >= TRAINING_NAME_BYTES)
            return error_set(ERROR_LIMIT, "%s:%ld: class '%.40s...' is longer than %d bytes", path, row->line, text,
                             TRAINING_NAME_BYTES - 1);
        for (const char *at = text; *at; at += text_character_bytes(at))
            if (text_character_bytes(at) <= 0)
                return error_set(ERROR_INPUT, "%s:%ld: a class in column '%s' is not printable UTF-8 text", path,
                                 row->line, reading->source->labels);
        memcpy(reading->label[set->rows], text, strlen(text) + 1);
    } else if (*text) {
        char *end;
        double value = strtod(text, &end);
        if (*end || !isfinite(value))
            return error_set(ERROR_INPUT, "%s:%ld: %s '%.40s' is not a number", path, row->line,
                             reading->source->labels, text);
        set->labels[set->rows] = (float)value;
    }
    return 0;
}

static int take_row(struct reading *reading, const struct schema *schema, const struct catalogue *catalogue,
                    const struct catalogue_row *row, const char *path, const char *folder, int is_test)
{
    struct training_set *set = reading->set;
    int result = make_room(reading),
        from_votes = set->target.kind == TARGET_VOTES || set->target.kind == TARGET_BINOMIAL;
    if (result)
        return result;
    size_t at = set->rows;
    snprintf(set->id_str[at], sizeof set->id_str[at], "%s", row->id_str);
    set->key[at] = hash_64(row->id_str, strlen(row->id_str));
    reading->is_test[at] = (uint8_t)is_test;
    reading->is_bad[at] = 0;
    result = image_resolve(folder, reading->config->image_folders, row->file_loc, reading->path[at],
                           sizeof reading->path[at]);
    if (result)
        return error_prefix(result, "%s:%ld: ", path, row->line);
    if (from_votes)
        take_votes(reading, schema, row);
    else
        result = take_column(reading, catalogue, row, path);
    set->rows += result == 0;
    return result;
}

static int read_catalogue(struct reading *reading, const struct schema *schema, const char *path, int is_test)
{
    struct catalogue_summary summary;
    struct catalogue *catalogue;
    struct catalogue_row row;
    char *real = realpath(path, NULL);
    int got = 0, result = real ? catalogue_check(path, schema, &summary) : error_set_errno("cannot find %s", path);
    int from_votes = reading->set->target.kind == TARGET_VOTES || reading->set->target.kind == TARGET_BINOMIAL;
    if (!result && from_votes && !summary.vote_columns)
        result =
            error_set(ERROR_INPUT,
                      "%s has no vote columns of decision tree %s: name the tree its columns are of by instance.schema "
                      "(--set instance.schema=NAME)",
                      path, schema->name);
    if (!result)
        result = catalogue_open(path, schema, &catalogue);
    if (!result) {
        *strrchr(real, '/') = 0;
        while (!result && (got = catalogue_next(catalogue, &row)) > 0)
            result = take_row(reading, schema, catalogue, &row, path, real, is_test);
        catalogue_close(catalogue);
    }
    free(real);
    return result ? result : got;
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* A galaxy to train on and to test on would make the test worthless. */
static int check_distinct(const struct training_set *set)
{
    uint64_t *sorted = malloc((set->rows + 1) * sizeof *sorted), twice = 0;
    if (!sorted)
        return error_set(ERROR_SYSTEM, "out of memory for %zu galaxies", set->rows);
    memcpy(sorted, set->key, set->rows * sizeof *sorted);
    qsort(sorted, set->rows, sizeof *sorted, compare_keys);
    for (size_t i = 1; i < set->rows; i++)
        if (sorted[i] == sorted[i - 1])
            twice = sorted[i];
    free(sorted);
    for (size_t i = 0; i < set->rows && twice; i++)
        if (set->key[i] == twice)
            return error_set(ERROR_INPUT, "galaxy %s is in both catalogues: a test galaxy must not be trained on",
                             set->id_str[i]);
    return 0;
}

/* --- classes ------------------------------------------------------------------------------------------------------ */

static int class_of(const struct training_set *set, const char *name)
{
    for (int i = 0; i < set->target.outputs; i++)
        if (strcmp(set->class_name[i], name) == 0)
            return i;
    return -1;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Finds the distinct labels, in alphabetical order, and turns each into a row with a single 1. */
static int number_classes(struct reading *reading)
{
    struct training_set *set = reading->set;
    for (size_t i = 0; i < set->rows; i++) {
        if (!reading->has_label[i] || class_of(set, reading->label[i]) >= 0)
            continue;
        if (set->target.outputs == CLASSES_MAX)
            return error_set(ERROR_INPUT,
                             "column '%s' holds more than %d different values: for numbers give --task "
                             "value",
                             reading->source->labels, CLASSES_MAX);
        memcpy(set->class_name[set->target.outputs++], reading->label[i], TRAINING_NAME_BYTES);
    }
    if (set->target.outputs < 2)
        return error_set(ERROR_INPUT,
                         set->target.outputs ? "every label of column '%s' is the same: there is nothing "
                                               "to tell apart"
                                             : "column '%s' has no label at all",
                         reading->source->labels);
    size_t classes = (size_t)set->target.outputs;
    qsort(set->class_name, classes, TRAINING_NAME_BYTES, compare_names);
    int result = grow(&set->labels, set->rows, classes * sizeof *set->labels);
    if (result)
        return result;
    memset(set->labels, 0, set->rows * classes * sizeof *set->labels);
    for (size_t i = 0; i < set->rows; i++)
        if (reading->has_label[i])
            set->labels[i * classes + (size_t)class_of(set, reading->label[i])] = 1;
    return 0;
}

/* 1 each, or balanced: n / (classes * n of the class), over the training rows. */
static void weigh_classes(struct training_set *set, int balanced)
{
    size_t classes = (size_t)set->target.outputs, of_class[TARGET_OUTPUTS_MAX] = {0};
    for (size_t i = 0; i < set->train_count; i++)
        for (size_t k = 0; k < classes; k++)
            of_class[k] += set->labels[set->train_row[i] * classes + k] > 0;
    for (size_t k = 0; k < classes; k++)
        set->target.class_weight[k] =
            balanced && of_class[k] ? (float)set->train_count / (float)(classes * of_class[k]) : 1;
}

/* --- images ------------------------------------------------------------------------------------------------------- */

struct decoding {
    struct reading *reading;
    atomic_long next, done;
};

static void *decode_some(void *context)
{
    struct decoding *decoding = context;
    struct reading *reading = decoding->reading;
    const struct config *config = reading->config;
    for (long i; (i = atomic_fetch_add(&decoding->next, 1)) < (long)reading->set->rows;) {
        uint8_t *pixels = column_row(&reading->set->pixels, (uint64_t)i);
        if ((reading->has_label[i] || reading->is_test[i]) &&
            image_load(reading->path[i], (int)config->image_side, (int)config->image_channels, pixels)) {
            reading->is_bad[i] = 1;
            snprintf(reading->reason[i], sizeof reading->reason[i], "%s", error_message());
            text_make_printable(reading->reason[i]);
        }
        atomic_fetch_add(&decoding->done, 1);
    }
    return NULL;
}

static void show_decoding(const struct decoding *decoding, double started_s)
{
    double elapsed_s = clock_s() - started_s, done = (double)atomic_load(&decoding->done);
    double rows = (double)decoding->reading->set->rows;
    if (isatty(2) && elapsed_s > 2 && done > 0)
        fprintf(stderr, "\rreading images: %.0f of %.0f, %.0f/s, %.0f s left ", done, rows, done / elapsed_s,
                (rows - done) * elapsed_s / done);
}

static void decode(struct reading *reading)
{
    struct decoding decoding = {.reading = reading};
    pthread_t threads[DECODE_THREADS_MAX];
    double started_s = clock_s();
    int wanted = reading->config->threads ? (int)reading->config->threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int started = 0;
    for (; started < wanted && started < DECODE_THREADS_MAX; started++)
        if (pthread_create(&threads[started], NULL, decode_some, &decoding))
            break;
    if (!started)
        decode_some(&decoding);
    struct timespec pause = {.tv_nsec = 200000000};
    while ((size_t)atomic_load(&decoding.done) < reading->set->rows) {
        nanosleep(&pause, NULL);
        show_decoding(&decoding, started_s);
    }
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

static int open_pixels(struct reading *reading)
{
    const struct config *config = reading->config;
    uint64_t side = (uint64_t)config->image_side, channels = (uint64_t)config->image_channels;
    struct column_layout layout = {
        .kind = "training pixels",
        .row_bytes = side * side * channels,
        .parameter_name = {"side", "channels"},
        .parameter = {side,   channels  }
    };
    char path[FILE_PATH_BYTES];
    int result = file_path(path, sizeof path, "%s/pixels", reading->source->folder);
    if (!result)
        result = column_open(path, &layout, COLUMN_CREATE, &reading->set->pixels);
    return result ? result : column_grow(&reading->set->pixels, reading->set->rows);
}

/* bad.csv: id_str, reason. */
static int list_bad(struct reading *reading)
{
    struct text list = text_new((size_t)64 << 20);
    char path[FILE_PATH_BYTES];
    text_append(&list, "id_str,reason\n");
    for (size_t i = 0; i < reading->set->rows; i++)
        if (reading->is_bad[i]) {
            csv_append_field(&list, reading->set->id_str[i]);
            text_append(&list, ",");
            csv_append_field(&list, reading->reason[i]);
            text_append(&list, "\n");
            reading->set->bad++;
        }
    int result = text_error(&list);
    if (!result)
        result = file_path(path, sizeof path, "%s/bad.csv", reading->source->folder);
    struct file_part part = {list.bytes, list.length};
    if (!result)
        result = file_write(path, &part, 1, 0644);
    text_free(&list);
    return result;
}

/* --- splitting and the whole -------------------------------------------------------------------------------------- */

static int split(struct reading *reading)
{
    struct training_set *set = reading->set;
    uint64_t **const lists[] = {&set->train_row, &set->validation_row, &set->test_row, &set->open_row};
    for (int i = 0; i < 4; i++)
        if (!(*lists[i] = malloc((set->rows + 1) * sizeof **lists[i])))
            return error_set(ERROR_SYSTEM, "out of memory for %zu galaxies", set->rows);
    for (size_t i = 0; i < set->rows; i++) {
        double place = (double)(hash_64(&set->key[i], sizeof set->key[i]) >> 11) * 0x1p-53;
        set->unlabelled += !reading->has_label[i];
        if (reading->is_bad[i])
            continue;
        if (reading->is_test[i] && !reading->has_label[i])
            set->open_row[set->open_count++] = i;
        else if (reading->is_test[i])
            set->test_row[set->test_count++] = i;
        else if (!reading->has_label[i])
            continue;
        else if (place < reading->config->validation_share)
            set->validation_row[set->validation_count++] = i;
        else
            set->train_row[set->train_count++] = i;
    }
    if (!set->train_count)
        return error_set(ERROR_INPUT,
                         "no galaxy to train on: of %zu in the catalogues %zu have no label and %zu no "
                         "readable image (see bad.csv in the output folder)",
                         set->rows, set->unlabelled, set->bad);
    return 0;
}

static int choose_target(const struct schema *schema, const struct training_source *source, struct target *target)
{
    static const struct {
        const char *task;
        enum target_kind kind;
        int outputs; /* 0 = known later */
    } tasks[] = {
        {"votes",    TARGET_VOTES,    0},
        {"classes",  TARGET_CLASSES,  0},
        {"value",    TARGET_VALUES,   1},
        {"binomial", TARGET_BINOMIAL, 2}
    };
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        if (strcmp(tasks[i].task, source->task) == 0) {
            *target = (struct target){.kind = tasks[i].kind, .outputs = tasks[i].outputs};
            if (target->kind == TARGET_VOTES) {
                target->schema = schema;
                target->outputs = schema->answers;
            }
            if (target->kind == TARGET_BINOMIAL && schema_find_column(schema, source->labels) < 0)
                return error_set(ERROR_INPUT, "'%s' is no answer of schema %s: give --labels QUESTION_ANSWER",
                                 source->labels, schema->name);
            return 0;
        }
    return error_set(ERROR_INPUT, "--task %s: votes, classes, value or binomial", source->task);
}

static void name_outputs(struct training_set *set, const struct training_source *source)
{
    for (int i = 0; i < set->target.outputs; i++)
        set->output[i] = set->target.kind == TARGET_VOTES                ? set->target.schema->answer[i].column
                         : set->target.kind == TARGET_CLASSES            ? set->class_name[i]
                         : set->target.kind == TARGET_BINOMIAL && i == 0 ? "other"
                                                                         : source->labels;
    set->head = (struct safetensors_head){source->task, set->output, set->target.outputs};
}

static int read_all(struct reading *reading, const struct schema *schema)
{
    const struct training_source *source = reading->source;
    int result = read_catalogue(reading, schema, source->catalogue, 0);
    if (!result && source->test_catalogue)
        result = read_catalogue(reading, schema, source->test_catalogue, 1);
    if (!result)
        result = check_distinct(reading->set);
    if (!result && reading->set->target.kind == TARGET_CLASSES)
        result = number_classes(reading);
    if (!result)
        result = open_pixels(reading);
    if (result)
        return result;
    decode(reading);
    result = list_bad(reading);
    if (!result)
        result = split(reading);
    if (!result)
        weigh_classes(reading->set, strcmp(reading->config->class_weights, "balanced") == 0);
    name_outputs(reading->set, source);
    return result;
}

int training_set_open(const struct config *config, const struct schema *schema, const struct training_source *source,
                      struct training_set *ret_set)
{
    struct reading reading = {.config = config, .source = source, .set = ret_set};
    *ret_set = (struct training_set){0};
    int result = choose_target(schema, source, &ret_set->target);
    if (!result)
        result = read_all(&reading, schema);
    free(reading.path);
    free(reading.label);
    free(reading.is_test);
    free(reading.has_label);
    free(reading.is_bad);
    free(reading.reason);
    if (result)
        training_set_close(ret_set);
    return result;
}

void training_set_close(struct training_set *set)
{
    column_close(&set->pixels);
    free(set->id_str);
    free(set->key);
    free(set->labels);
    free(set->train_row);
    free(set->validation_row);
    free(set->test_row);
    free(set->open_row);
    *set = (struct training_set){0};
}
