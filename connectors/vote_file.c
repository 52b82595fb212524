/* See vote_file.h. */
#include "connectors/vote_file.h"
#include "base/error.h"
#include "base/text.h"
#include "connectors/csv.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum column {
    CLASSIFICATION,
    QUESTION,
    ANSWER,
    ID_STR,
    VOTER,
    MARKS,
    CLASSIFIED_AT,
    PLAIN_COLUMNS,
    EXPORT_ID = PLAIN_COLUMNS,
    USER_ID,
    WORKFLOW_ID,
    CREATED_AT,
    GOLD_STANDARD,
    METADATA,
    ANNOTATIONS,
    SUBJECT_DATA,
    SUBJECT_IDS,
    COLUMNS
};

static const struct {
    const char *name;
    int needed;
} columns[COLUMNS] = {
    [CLASSIFICATION] = {"classification",    1},
    [QUESTION] = {"question",          1},
    [ANSWER] = {"answer",            1},
    [ID_STR] = {"id_str",            1},
    [VOTER] = {"voter",             0},
    [MARKS] = {"marks",             0},
    [CLASSIFIED_AT] = {"classified_at",     0},
    [EXPORT_ID] = {"classification_id", 1},
    [USER_ID] = {"user_id",           0},
    [WORKFLOW_ID] = {"workflow_id",       0},
    [CREATED_AT] = {"created_at",        0},
    [GOLD_STANDARD] = {"gold_standard",     0},
    [METADATA] = {"metadata",          1},
    [ANNOTATIONS] = {"annotations",       1},
    [SUBJECT_DATA] = {"subject_data",      0},
    [SUBJECT_IDS] = {"subject_ids",       1},
};

struct vote_file {
    struct csv csv;
    const struct workflow *workflow;
    const struct voter_key *key;
    int place[COLUMNS]; /* of each column in a record; -1 = not there */
    int columns;
    bool is_export, broken;
};

/* --- header ------------------------------------------------------------------------------------------------------- */

static int find_columns(struct vote_file *file)
{
    char missing[256] = "";
    for (int c = 0; c < COLUMNS; c++) {
        file->place[c] = -1;
        for (int i = 0; i < file->csv.fields; i++)
            if (strcmp(file->csv.field[i], columns[c].name) == 0) {
                if (file->place[c] >= 0)
                    return error_set(ERROR_INPUT, "column '%s' appears twice", columns[c].name);
                file->place[c] = i;
            }
    }
    file->is_export = file->place[EXPORT_ID] >= 0;
    for (int c = file->is_export ? PLAIN_COLUMNS : 0; c < (file->is_export ? COLUMNS : PLAIN_COLUMNS); c++)
        if (columns[c].needed && file->place[c] < 0)
            snprintf(missing + strlen(missing), sizeof missing - strlen(missing), "%s%s", *missing ? ", " : "",
                     columns[c].name);
    if (*missing)
        return error_set(
            ERROR_INPUT,
            "columns missing: %s; expected is a Zooniverse classification export (classification_id, ...) or "
            "one vote per row (classification, question, answer, id_str)",
            missing);
    if (file->is_export && (!file->workflow || !file->key))
        return error_set(ERROR_INPUT,
                         "this is a classification export: say with --workflow how its tasks are called here");
    file->columns = file->csv.fields;
    return 0;
}

int vote_file_open(const char *path, const struct workflow *workflow, const struct voter_key *key,
                   struct vote_file **ret_file)
{
    struct vote_file *file = calloc(1, sizeof *file);
    if (!file)
        return error_set(ERROR_SYSTEM, "out of memory for a file of votes");
    file->workflow = workflow;
    file->key = key;
    int result = csv_open(path, "file of votes", VOTE_FILE_RECORD_BYTES_MAX, &file->csv);
    int got = result ? result : csv_next(&file->csv);
    if (!got)
        result = error_set(ERROR_INPUT, "%s is empty: a file of votes starts with a line of column names", path);
    else if (got < 0)
        result = got;
    else if ((result = find_columns(file)))
        result = csv_complain(&file->csv, result);
    if (result) {
        vote_file_close(file);
        return result;
    }
    *ret_file = file;
    return 0;
}

void vote_file_close(struct vote_file *file)
{
    if (file)
        csv_close(&file->csv);
    free(file);
}

void vote_file_position(const struct vote_file *file, int64_t *ret_offset, long *ret_line, int64_t *ret_bytes)
{
    *ret_offset = file->csv.offset;
    *ret_line = file->csv.next_line;
    *ret_bytes = file->csv.bytes;
}

int vote_file_seek(struct vote_file *file, int64_t offset, long line)
{
    return csv_seek(&file->csv, offset, line);
}

bool vote_file_broken(const struct vote_file *file)
{
    return file->broken;
}

/* --- fields -------------------------------------------------------------------------------------------------------- */

/* The field, "" where the column is not there. */
static const char *field(const struct vote_file *file, enum column column)
{
    return file->place[column] < 0 ? "" : file->csv.field[file->place[column]];
}

/* Names go to the database and into JSON: printable UTF-8 of at most 255 bytes. */
static int take_text(char text[VOTE_FILE_TEXT_BYTES], const char *value, const char *what, bool needed)
{
    if (needed && !*value)
        return error_set(ERROR_INPUT, "%s is empty", what);
    if (strlen(value) >= VOTE_FILE_TEXT_BYTES)
        return error_set(ERROR_INPUT, "%s is longer than %d bytes", what, VOTE_FILE_TEXT_BYTES - 1);
    int bytes;
    for (const char *at = value; *at; at += bytes) {
        bytes = text_character_bytes(at);
        if (bytes <= 0)
            return error_set(ERROR_INPUT, bytes ? "%s holds a control character" : "%s is not UTF-8 text", what);
    }
    memcpy(text, value, strlen(value) + 1);
    return 0;
}

/* The same for what a volunteer's record holds: cut and made printable, since the quarantine only has to show it. */
static void show_text(char text[VOTE_FILE_TEXT_BYTES], const char *value)
{
    size_t length = strlen(value) < VOTE_FILE_TEXT_BYTES ? strlen(value) : VOTE_FILE_TEXT_BYTES - 1;
    memcpy(text, value, length);
    text[length] = 0;
    text_make_printable(text);
}

static int take_classification(const char *value, int64_t *ret_classification)
{
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (end == value || *end || errno || value[strspn(value, "-0123456789")])
        return error_set(ERROR_INPUT, "classification '%.40s' is not a whole number", value);
    *ret_classification = number;
    return 0;
}

static int digits(const char **at, int count, int low, int high, int *ret_number)
{
    int number = 0;
    for (int i = 0; i < count; i++, (*at)++) {
        if (**at < '0' || **at > '9')
            return -1;
        number = 10 * number + (**at - '0');
    }
    *ret_number = number;
    return number < low || number > high ? -1 : 0;
}

/* "2018-02-20 10:44:42 UTC", "2018-02-20T10:44:42.123Z"; always UTC. */
static int take_time(char text[VOTE_FILE_TEXT_BYTES], const char *value)
{
    static const char separators[] = "-- ::";
    static const int widths[] = {4, 2, 2, 2, 2, 2}, lows[] = {1970, 1, 1, 0, 0, 0},
                     highs[] = {9999, 12, 31, 23, 59, 59};
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int part[6];
    const char *at = value;
    text[0] = 0;
    if (!*value)
        return 0;
    for (int i = 0; i < 6; i++) {
        if (i && *at != separators[i - 1] && !(i == 3 && *at == 'T'))
            return error_set(ERROR_INPUT, "time '%.40s' is not like 2018-02-20 10:44:42 UTC", value);
        at += i > 0;
        if (digits(&at, widths[i], lows[i], highs[i], &part[i]))
            return error_set(ERROR_INPUT, "time '%.40s' is not like 2018-02-20 10:44:42 UTC", value);
    }
    if (*at == '.')
        at += 1 + strspn(at + 1, "0123456789");
    bool leap = part[0] % 4 == 0 && (part[0] % 100 != 0 || part[0] % 400 == 0);
    if ((*at && strcmp(at, "Z") != 0 && strcmp(at, " UTC") != 0) ||
        part[2] > days[part[1] - 1] + (part[1] == 2 && leap))
        return error_set(ERROR_INPUT, "time '%.40s' is not a moment of UTC", value);
    snprintf(text, VOTE_FILE_TEXT_BYTES, "%04d-%02d-%02d %02d:%02d:%02d+00", part[0], part[1], part[2], part[3],
             part[4], part[5]);
    return 0;
}

/* --- one vote per row ------------------------------------------------------------------------------------------------ */

/* "" or words divided by one comma each, with spaces or not. */
static int check_marks(const char *marks)
{
    int words = 0;
    if (strlen(marks) > VOTE_FILE_TEXT_BYTES - 3) /* as an array it has two braces more */
        return error_set(ERROR_INPUT, "marks '%.40s...' are longer than %d bytes", marks, VOTE_FILE_TEXT_BYTES - 3);
    for (const char *at = marks; *marks && at; words++) {
        at += strspn(at, " ");
        size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
        at += length;
        at += strspn(at, " ");
        if (!length || (*at && *at != ',') || words == VOTE_FILE_MARKS_MAX)
            return error_set(ERROR_INPUT, "marks '%.40s' are not %d words at most, divided by commas", marks,
                             VOTE_FILE_MARKS_MAX);
        at = *at ? at + 1 : NULL;
    }
    return 0;
}

static int take_row(struct vote_file *file, struct file_record *record)
{
    int result = take_classification(field(file, CLASSIFICATION), &record->classification);
    if (!result)
        result = take_text(record->id_str, field(file, ID_STR), "id_str", true);
    if (!result)
        result = take_text(record->vote[0].question, field(file, QUESTION), "question", true);
    if (!result)
        result = take_text(record->vote[0].answer, field(file, ANSWER), "answer", true);
    if (!result)
        result = take_text(record->voter, field(file, VOTER), "voter", false);
    if (!result)
        result = take_text(record->marks, field(file, MARKS), "marks", false);
    if (!result)
        result = check_marks(record->marks);
    if (!result)
        result = take_time(record->classified_at, field(file, CLASSIFIED_AT));
    record->votes = 1;
    return result;
}

/* --- a classification export ------------------------------------------------------------------------------------------ */

/* A JSON object or array of bounded depth. The caller frees it. */
static int take_json(const char *text, const char *what, bool array, json_t **ret_json)
{
    json_error_t problem;
    *ret_json = json_loads(text, 0, &problem);
    if (!*ret_json)
        return error_set(ERROR_INPUT, "%s is no JSON: %.80s", what, problem.text);
    if (array ? !json_is_array(*ret_json) : !json_is_object(*ret_json)) {
        json_decref(*ret_json);
        *ret_json = NULL;
        return error_set(ERROR_INPUT, "%s is no JSON %s", what, array ? "array" : "object");
    }
    return 0;
}

static void add_mark(struct file_record *record, const char *mark)
{
    size_t used = strlen(record->marks);
    snprintf(record->marks + used, sizeof record->marks - used, "%s%s", used ? "," : "", mark);
}

static int take_metadata(struct vote_file *file, struct file_record *record)
{
    json_t *metadata;
    int result = take_json(field(file, METADATA), "metadata", false, &metadata);
    if (result)
        return result;
    const char *user = field(file, USER_ID), *gold = field(file, GOLD_STANDARD);
    const char *session = json_string_value(json_object_get(metadata, "session"));
    if (json_is_true(json_object_get(metadata, "seen_before")))
        add_mark(record, "seen_before");
    if (strcmp(gold, "true") == 0 || strcmp(gold, "t") == 0)
        add_mark(record, "gold_standard");
    if (json_is_true(json_object_get(json_object_get(metadata, "subject_selection_state"), "retired")))
        add_mark(record, "retired");
    if (json_is_false(json_object_get(metadata, "live_project")))
        add_mark(record, "not_live");
    if (*user && (strlen(user) > 20 || user[strspn(user, "0123456789")]))
        result = error_set(ERROR_INPUT, "user_id '%.40s' is not a number", user);
    else if (*user)
        snprintf(record->voter, sizeof record->voter, "u:%s", user);
    else if (session && *session)
        voter_name(file->key, session, record->voter);
    json_decref(metadata);
    return result;
}

/* The first of the workflow's keys that the subject's metadata have, else the subject's number. */
static int take_galaxy(struct vote_file *file, struct file_record *record)
{
    const char *subject = field(file, SUBJECT_IDS), *data = field(file, SUBJECT_DATA);
    if (!*subject || subject[strspn(subject, "0123456789")] || strlen(subject) > 20)
        return error_set(ERROR_INPUT, "subject_ids '%.40s' is not the number of one subject", subject);
    snprintf(record->id_str, sizeof record->id_str, "%s", subject);
    if (!file->workflow->galaxy[0] || !*data)
        return 0;
    json_t *subjects;
    int result = take_json(data, "subject_data", false, &subjects);
    if (result)
        return result;
    const json_t *metadata = json_object_get(subjects, subject), *value = NULL;
    for (const char *at = file->workflow->galaxy; *at && !value; at += strcspn(at, ","), at += *at == ',') {
        char key[128];
        at += strspn(at, " ");
        size_t length = strcspn(at, ",");
        while (length && at[length - 1] == ' ')
            length--;
        snprintf(key, sizeof key, "%.*s", (int)length, at);
        value = json_object_get(metadata, key);
        if (value && !(json_is_string(value) && *json_string_value(value)) && !json_is_integer(value))
            value = NULL;
    }
    if (json_is_string(value))
        result = take_text(record->id_str, json_string_value(value), "the galaxy's id in subject_data", true);
    else if (value)
        snprintf(record->id_str, sizeof record->id_str, "%lld", (long long)json_integer_value(value));
    json_decref(subjects);
    return result;
}

/* The names under which a value goes on: those of the schema, or its own where it is not known. */
static void name_answer(const struct workflow *workflow, const struct workflow_task *task, const json_t *value,
                        struct file_vote *vote)
{
    int answer = -1;
    char *own = NULL;
    if (json_is_array(value) && json_array_size(value) == 1)
        value = json_array_get(value, 0);
    if (json_is_integer(value))
        answer = workflow_answer_at(task, (long)json_integer_value(value));
    else if (json_is_string(value))
        answer = workflow_answer_for(workflow, task, json_string_value(value));
    snprintf(vote->question, sizeof vote->question, "%s", workflow->schema->question[task->question].name);
    if (answer >= 0) {
        snprintf(vote->answer, sizeof vote->answer, "%s", workflow->schema->answer[answer].name);
        return;
    }
    if (json_is_string(value)) {
        char plain[WORKFLOW_LABEL_BYTES];
        workflow_plain_label(json_string_value(value), plain, sizeof plain);
        show_text(vote->answer, *plain ? plain : "(empty label)");
        return;
    }
    own = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    show_text(vote->answer, own ? own : "(unreadable)");
    free(own);
}

/* The place of the question among the votes, a new one if need be; NULL when there are too many. */
static struct file_vote *place_of(struct file_record *record, const char *question)
{
    for (int i = 0; i < record->votes; i++)
        if (strcmp(record->vote[i].question, question) == 0)
            return &record->vote[i];
    return record->votes == VOTE_FILE_VOTES_MAX ? NULL : &record->vote[record->votes++];
}

static int take_annotation(const struct workflow *workflow, const json_t *annotation, struct file_record *record)
{
    struct file_vote vote = {0};
    const char *key = json_string_value(json_object_get(annotation, "task"));
    const json_t *value = json_object_get(annotation, "value");
    if (!key || !*key)
        return error_set(ERROR_INPUT, "an annotation names no task");
    if (workflow_lists(workflow->ignored, key))
        return 0;
    const struct workflow_task *task = workflow_task(workflow, key);
    bool skipped = !value || json_is_null(value) || (json_is_array(value) && !json_array_size(value));
    if (task)
        name_answer(workflow, task, value ? value : json_null(), &vote);
    else {
        show_text(vote.question, key);
        snprintf(vote.answer, sizeof vote.answer, "(unknown task)");
    }
    struct file_vote *place = place_of(record, vote.question);
    if (!place)
        return error_set(ERROR_INPUT, "more than %d tasks in one classification", VOTE_FILE_VOTES_MAX);
    *place = vote; /* a volunteer who went back answers again: the last one counts */
    if (skipped)
        *place = record->vote[--record->votes];
    return 0;
}

static int take_annotations(struct vote_file *file, struct file_record *record)
{
    json_t *annotations;
    int result = take_json(field(file, ANNOTATIONS), "annotations", true, &annotations);
    if (result)
        return result;
    size_t i;
    const json_t *annotation;
    json_array_foreach(annotations, i, annotation)
    {
        result = take_annotation(file->workflow, annotation, record);
        if (result)
            break;
    }
    json_decref(annotations);
    return result;
}

static int take_classified(struct vote_file *file, struct file_record *record)
{
    int result = take_classification(field(file, EXPORT_ID), &record->classification);
    if (result)
        return result;
    if (file->workflow->ids[0] && file->place[WORKFLOW_ID] >= 0 &&
        !workflow_lists(file->workflow->ids, field(file, WORKFLOW_ID))) {
        record->passed_over = true;
        return 0;
    }
    result = take_time(record->classified_at, field(file, CREATED_AT));
    if (!result)
        result = take_metadata(file, record);
    if (!result)
        result = take_galaxy(file, record);
    return result ? result : take_annotations(file, record);
}

/* --- records ------------------------------------------------------------------------------------------------------------ */

int vote_file_next(struct vote_file *file, struct file_record *record)
{
    int got;
    do
        got = csv_next(&file->csv);
    while (got > 0 && file->csv.fields == 1 && !file->csv.field[0][0]); /* empty lines */
    record->classification = 0;
    record->id_str[0] = record->voter[0] = record->marks[0] = record->classified_at[0] = 0;
    record->votes = 0;
    record->passed_over = false;
    record->line = file->csv.line;
    if (got <= 0) {
        file->broken = got < 0;
        return got;
    }
    int result;
    if (file->csv.fields != file->columns)
        result = error_set(ERROR_INPUT, "%d fields, the header has %d", file->csv.fields, file->columns);
    else
        result = file->is_export ? take_classified(file, record) : take_row(file, record);
    return result ? result : 1;
}
