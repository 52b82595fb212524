/* Reading decision trees; see schema.h. */
#include "model/schema.h"
#include "base/error.h"
#include "base/ini.h"
#include "base/text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Relations name answers that may come later in the file, so they are kept as text until the end. */
struct relation {
    char depends_on[2 * SCHEMA_NAME_BYTES];
    char asked_after[512];
    int line, has_asked_after;
};

struct loading {
    struct schema *schema;
    struct relation relation[SCHEMA_QUESTIONS_MAX];
};

static int check_name(const char *name, const char *what)
{
    if (!*name)
        return error_set(ERROR_INPUT, "%s has no name", what);
    if (strlen(name) >= SCHEMA_NAME_BYTES)
        return error_set(ERROR_LIMIT, "name of %s longer than %d characters", what, SCHEMA_NAME_BYTES - 1);
    for (const char *at = name; *at; at++)
        if (!isalnum((unsigned char)*at) && !strchr(".-_", *at))
            return error_set(ERROR_INPUT, "'%s': names consist of letters, digits, '.', '-' and '_'", name);
    return 0;
}

static int begin_question(struct loading *loading, const char *name, int line)
{
    struct schema *schema = loading->schema;
    int result = check_name(name, "a question");
    if (result)
        return result;
    if (schema->questions == SCHEMA_QUESTIONS_MAX)
        return error_set(ERROR_LIMIT, "more than %d questions", SCHEMA_QUESTIONS_MAX);
    for (int i = 0; i < schema->questions; i++)
        if (strcmp(schema->question[i].name, name) == 0)
            return error_set(ERROR_INPUT, "question '%s' appears twice", name);
    struct question *question = &schema->question[schema->questions];
    loading->relation[schema->questions++].line = line;
    *question = (struct question){.first = schema->answers, .parent = -1};
    snprintf(question->name, sizeof question->name, "%s", name);
    return 0;
}

static int add_answer(struct schema *schema, struct question *question, const char *name)
{
    int result = check_name(name, "an answer");
    if (result)
        return result;
    if (schema->answers == SCHEMA_ANSWERS_MAX || question->count == SCHEMA_PER_QUESTION)
        return error_set(ERROR_LIMIT, "more than %d answers in all, or %d to one question", SCHEMA_ANSWERS_MAX,
                         SCHEMA_PER_QUESTION);
    struct answer *answer = &schema->answer[schema->answers];
    memcpy(answer->name, name, strlen(name) + 1); /* check_name() has looked at the length */
    char column[sizeof answer->column];
    snprintf(column, sizeof column, "%s_%s", question->name, name);
    memcpy(answer->column, column, sizeof column);
    answer->question = schema->questions - 1;
    if (schema_find_column(schema, answer->column) >= 0)
        return error_set(ERROR_INPUT, "answer '%s' appears twice", answer->column);
    schema->answers++;
    question->count++;
    return 0;
}

/* Calls `take` for each item of "a, b, c". */
static int for_each_item(const char *list, int (*take)(void *context, const char *item), void *context)
{
    char item[2 * SCHEMA_NAME_BYTES];
    while (*list) {
        size_t length = strcspn(list, ","), from = strspn(list, " \t");
        size_t to = length;
        while (to > from && isspace((unsigned char)list[to - 1]))
            to--;
        if (from >= to || to - from >= sizeof item)
            return error_set(ERROR_INPUT, "an empty or too long item in '%.60s'", list);
        memcpy(item, list + from, to - from);
        item[to - from] = 0;
        int result = take(context, item);
        if (result)
            return result;
        if (list[length] == ',' && !list[length + 1])
            return error_set(ERROR_INPUT, "an empty or too long item after the last ',' of '%.60s'", list);
        list += length + (list[length] == ',');
    }
    return 0;
}

static int take_answer(void *context, const char *item)
{
    struct schema *schema = context;
    return add_answer(schema, &schema->question[schema->questions - 1], item);
}

/* A value given once, kept as text. */
static int keep_text(char *kept, size_t size, const char *key, const char *value)
{
    if (*kept)
        return error_set(ERROR_INPUT, "'%s' given twice", key);
    if (strlen(value) >= size)
        return error_set(ERROR_LIMIT, "'%s' longer than %zu characters", key, size - 1);
    memcpy(kept, value, strlen(value) + 1);
    return 0;
}

static int on_schema_key(struct schema *schema, const char *key, const char *value)
{
    if (strcmp(key, "description") == 0)
        return keep_text(schema->description, sizeof schema->description, key, value);
    if (strcmp(key, "name") != 0)
        return error_set(ERROR_INPUT, "unknown key '%s' in [schema]: name or description", key);
    int result = check_name(value, "the schema");
    return result ? result : keep_text(schema->name, sizeof schema->name, key, value);
}

static int on_question_key(struct loading *loading, const char *key, const char *value)
{
    struct schema *schema = loading->schema;
    struct relation *relation = &loading->relation[schema->questions - 1];
    if (strcmp(key, "answers") == 0)
        return schema->question[schema->questions - 1].count ? error_set(ERROR_INPUT, "'answers' given twice")
                                                             : for_each_item(value, take_answer, schema);
    if (strcmp(key, "depends_on") == 0)
        return keep_text(relation->depends_on, sizeof relation->depends_on, key, value);
    if (strcmp(key, "asked_after") == 0) {
        if (relation->has_asked_after)
            return error_set(ERROR_INPUT, "'asked_after' given twice");
        relation->has_asked_after = 1; /* even when empty: asked at the start */
        return keep_text(relation->asked_after, sizeof relation->asked_after, key, value);
    }
    return error_set(ERROR_INPUT, "unknown key '%s': answers, depends_on or asked_after", key);
}

static int on_entry(void *context, const char *section, const char *key, const char *value, int line)
{
    struct loading *loading = context;
    if (strcmp(section, "schema") == 0)
        return key ? on_schema_key(loading->schema, key, value) : 0;
    if (strncmp(section, "question ", 9) != 0)
        return error_set(ERROR_INPUT, "unknown section [%s]: [schema] or [question NAME]", section);
    return key ? on_question_key(loading, key, value) : begin_question(loading, section + 9, line);
}

struct asked_after {
    const struct schema *schema;
    struct question *question;
};

static int take_asked_after(void *context, const char *item)
{
    struct asked_after *asked = context;
    int answer = schema_find_column(asked->schema, item);
    if (answer < 0)
        return error_set(ERROR_INPUT, "asked_after names '%s', which is no answer of this schema", item);
    if (asked->schema->answer[answer].question == (int)(asked->question - asked->schema->question))
        return error_set(ERROR_INPUT, "question '%s' is asked after its own answer '%s'", asked->question->name, item);
    for (int i = 0; i < asked->question->asked_after_count; i++)
        if (asked->question->asked_after[i] == answer)
            return error_set(ERROR_INPUT, "asked_after names '%s' twice", item);
    if (asked->question->asked_after_count == SCHEMA_ASKED_AFTER_MAX)
        return error_set(ERROR_LIMIT, "asked_after holds at most %d answers", SCHEMA_ASKED_AFTER_MAX);
    asked->question->asked_after[asked->question->asked_after_count++] = answer;
    return 0;
}

static int resolve_question(struct schema *schema, int index, const struct relation *relation)
{
    struct question *question = &schema->question[index];
    if (question->count < 2)
        return error_set(ERROR_INPUT, "question '%s' has fewer than two answers", question->name);
    if (relation->depends_on[0]) {
        question->parent = schema_find_column(schema, relation->depends_on);
        if (question->parent < 0 || question->parent >= question->first)
            return error_set(ERROR_INPUT, "question '%s' depends on '%s', which is no answer of an earlier question",
                             question->name, relation->depends_on);
    }
    struct asked_after asked = {schema, question};
    return for_each_item(relation->has_asked_after ? relation->asked_after : relation->depends_on, take_asked_after,
                         &asked);
}

/* A question that must come before this one and that `settled` does not hold yet, or -1. */
static int unsettled_before(const struct schema *schema, int question, const char *settled)
{
    for (int i = 0; i < schema->question[question].asked_after_count; i++) {
        int before = schema->answer[schema->question[question].asked_after[i]].question;
        if (!settled[before])
            return before;
    }
    return -1;
}

/* Returns a question that can only be asked after itself, through others, or -1. */
static int find_cycle(const struct schema *schema)
{
    char settled[SCHEMA_QUESTIONS_MAX] = {0};
    int changed = 1, at = -1;
    while (changed) {
        changed = 0;
        at = -1;
        for (int q = 0; q < schema->questions; q++) {
            if (settled[q])
                continue;
            if (unsettled_before(schema, q, settled) < 0)
                changed = settled[q] = 1;
            else
                at = q;
        }
    }
    for (int i = 0; i < schema->questions && at >= 0; i++) /* what only hangs on the cycle leads into it */
        at = unsettled_before(schema, at, settled);
    return at;
}

/* Of one unambiguous text: one line per question, names without spaces, relations as answer numbers. */
static int hash_schema(struct schema *schema)
{
    struct text text = text_new(1 << 20);
    for (int q = 0; q < schema->questions; q++) {
        const struct question *question = &schema->question[q];
        text_append(&text, "%s parent %d after", question->name, question->parent);
        for (int i = 0; i < question->asked_after_count; i++)
            text_append(&text, " %d", question->asked_after[i]);
        text_append(&text, " answers");
        for (int a = question->first; a < question->first + question->count; a++)
            text_append(&text, " %s", schema->answer[a].name);
        text_append(&text, "\n");
    }
    int result = text_error(&text);
    if (!result)
        hash_text(text.bytes, text.length, schema->hash);
    text_free(&text);
    return result;
}

int schema_load(const char *path, struct schema *ret_schema)
{
    static _Thread_local struct schema schema; /* too large for a small stack */
    static _Thread_local struct loading loading;
    memset(&schema, 0, sizeof schema);
    memset(&loading, 0, sizeof loading);
    loading.schema = &schema;
    int result = ini_read(path, on_entry, &loading);
    for (int q = 0; q < schema.questions && !result; q++) {
        result = resolve_question(&schema, q, &loading.relation[q]);
        if (result)
            return error_prefix(result, "%s:%d: ", path, loading.relation[q].line);
    }
    if (result)
        return result;
    if (!schema.questions || !schema.name[0])
        return error_set(ERROR_INPUT, "%s: a schema needs a name and at least one question", path);
    int cycle = find_cycle(&schema);
    if (cycle >= 0)
        return error_set(ERROR_INPUT, "%s:%d: question '%s' is asked only after itself: change asked_after", path,
                         loading.relation[cycle].line, schema.question[cycle].name);
    result = hash_schema(&schema);
    if (!result)
        *ret_schema = schema;
    return result;
}

int schema_find_answer(const struct schema *schema, const char *question, const char *answer)
{
    for (int a = 0; a < schema->answers; a++)
        if (strcmp(schema->answer[a].name, answer) == 0 &&
            strcmp(schema->question[schema->answer[a].question].name, question) == 0)
            return a;
    return -1;
}

int schema_find_column(const struct schema *schema, const char *column)
{
    for (int a = 0; a < schema->answers; a++)
        if (strcmp(schema->answer[a].column, column) == 0)
            return a;
    return -1;
}

void schema_reached(const struct schema *schema, const float *fraction, float *reached)
{
    for (int q = 0; q < schema->questions; q++) { /* parents are answers of earlier questions */
        int parent = schema->question[q].parent;
        reached[q] = parent < 0 ? 1.0f : fraction[parent] * reached[schema->answer[parent].question];
    }
}
