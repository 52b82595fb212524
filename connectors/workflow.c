/* See workflow.h. */
#include "connectors/workflow.h"
#include "base/error.h"
#include "base/ini.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define OTHER_TREE                                                                                                     \
    "a workflow is for one tree, which the head of its file names: set instance.schema to that, or give another "      \
    "workflow"

bool workflow_lists(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list + strspn(list, ", "); *at; at += strspn(at, ", ")) {
        size_t found = strcspn(at, ", ");
        if (found == length && strncmp(at, word, length) == 0)
            return true;
        at += found;
    }
    return false;
}

/* Length of a Markdown image ![..](..) or the address of a link ](..) at `text`, else 0. */
static size_t markdown_bytes(const char *text)
{
    const char *at = text;
    if (*at == '!' && at[1] == '[') {
        at = strchr(at, ']');
        if (!at)
            return 0;
    }
    if (*at != ']' || at[1] != '(')
        return 0;
    at = strchr(at, ')');
    return at ? (size_t)(at + 1 - text) : 0;
}

void workflow_plain_label(const char *label, char *plain, size_t size)
{
    size_t used = 0;
    bool space = false;
    while (*label) {
        size_t skipped = markdown_bytes(label);
        if (skipped || *label == '[' || *label == '*') {
            label += skipped ? skipped : 1;
            continue;
        }
        if (isspace((unsigned char)*label))
            space = used > 0;
        else {
            if (used + 3 > size)
                break;
            if (space)
                plain[used++] = ' ';
            space = false;
            plain[used++] = (char)((unsigned char)*label < 128 ? tolower((unsigned char)*label) : *label);
        }
        label++;
    }
    plain[used] = 0;
}

const struct workflow_task *workflow_task(const struct workflow *workflow, const char *key)
{
    for (int t = 0; t < workflow->tasks; t++)
        if (strcmp(workflow->task[t].key, key) == 0)
            return &workflow->task[t];
    return NULL;
}

int workflow_answer_at(const struct workflow_task *task, long position)
{
    return position >= 0 && position < task->answers ? task->answer[position] : -1;
}

/* Whether the plain label is one of those divided by '|'. */
static bool is_label(const char *labels, const char *plain)
{
    size_t length = strlen(plain);
    for (const char *at = *plain ? labels : NULL; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (strcspn(at, "|") == length && strncmp(at, plain, length) == 0)
            return true;
    return false;
}

int workflow_answer_for(const struct workflow *workflow, const struct workflow_task *task, const char *label)
{
    char plain[WORKFLOW_LABEL_BYTES];
    workflow_plain_label(label, plain, sizeof plain);
    for (int i = 0; i < task->answers; i++)
        if (is_label(task->label[i], plain) || strcmp(workflow->schema->answer[task->answer[i]].name, plain) == 0)
            return task->answer[i];
    return -1;
}

/* --- reading ---------------------------------------------------------------------------------------------------- */

static int take_list(char *list, size_t size, const char *value)
{
    return snprintf(list, size, "%s", value) < (int)size ? 0
                                                         : error_set(ERROR_LIMIT, "longer than %zu bytes", size - 1);
}

static int take_setting(struct workflow *workflow, const char *key, const char *value)
{
    if (strcmp(key, "ids") == 0)
        return take_list(workflow->ids, sizeof workflow->ids, value);
    if (strcmp(key, "galaxy") == 0)
        return take_list(workflow->galaxy, sizeof workflow->galaxy, value);
    if (strcmp(key, "ignored") == 0)
        return take_list(workflow->ignored, sizeof workflow->ignored, value);
    return error_set(ERROR_INPUT, "unknown key %s: [workflow] has ids, galaxy and ignored", key);
}

static int take_task(struct workflow *workflow, const char *key)
{
    if (workflow_task(workflow, key))
        return error_set(ERROR_INPUT, "task %s appears twice", key);
    if (workflow->tasks == WORKFLOW_TASKS_MAX)
        return error_set(ERROR_LIMIT, "more than %d tasks", WORKFLOW_TASKS_MAX);
    struct workflow_task *task = &workflow->task[workflow->tasks++];
    *task = (struct workflow_task){.question = -1};
    return take_list(task->key, sizeof task->key, key);
}

static int take_question(struct workflow *workflow, struct workflow_task *task, const char *name)
{
    const struct schema *schema = workflow->schema;
    if (task->question >= 0)
        return error_set(ERROR_INPUT, "task %s has its question already", task->key);
    for (int q = 0; q < schema->questions; q++)
        if (strcmp(schema->question[q].name, name) == 0) {
            task->question = q;
            return 0;
        }
    return error_set(ERROR_INPUT, "decision tree %s has no question %s: " OTHER_TREE, schema->name, name);
}

/* Labels are kept plain, so that the ones of a classification can be compared. */
static int take_labels(struct workflow_task *task, const char *value)
{
    char *labels = task->label[task->answers];
    size_t used = 0;
    while (*value) {
        char one[WORKFLOW_LABEL_BYTES], plain[WORKFLOW_LABEL_BYTES];
        size_t length = strcspn(value, "|");
        snprintf(one, sizeof one, "%.*s", (int)length, value);
        workflow_plain_label(one, plain, sizeof plain);
        used += (size_t)snprintf(labels + used, WORKFLOW_LABEL_BYTES - used, "%s%s", used ? "|" : "", plain);
        if (used >= WORKFLOW_LABEL_BYTES)
            return error_set(ERROR_LIMIT, "labels longer than %d bytes", WORKFLOW_LABEL_BYTES - 1);
        value += length + (value[length] == '|');
    }
    return 0;
}

static int take_answer(struct workflow *workflow, struct workflow_task *task, const char *name, const char *labels)
{
    const struct schema *schema = workflow->schema;
    if (task->question < 0)
        return error_set(ERROR_INPUT, "the first key of a task is its question");
    if (task->answers == WORKFLOW_ANSWERS_MAX)
        return error_set(ERROR_LIMIT, "more than %d answers", WORKFLOW_ANSWERS_MAX);
    const struct question *question = &schema->question[task->question];
    for (int a = question->first; a < question->first + question->count; a++)
        if (strcmp(schema->answer[a].name, name) == 0) {
            task->answer[task->answers] = a;
            int result = take_labels(task, labels);
            task->answers += result == 0;
            return result;
        }
    return error_set(ERROR_INPUT, "question %s has no answer %s: " OTHER_TREE, question->name, name);
}

static int on_entry(void *context, const char *section, const char *key, const char *value, int line)
{
    struct workflow *workflow = context;
    (void)line;
    bool settings = strcmp(section, "workflow") == 0;
    if (!key)
        return settings ? 0 : take_task(workflow, section);
    if (settings)
        return take_setting(workflow, key, value);
    if (!*section)
        return error_set(ERROR_INPUT, "%s stands in front of the first [section]", key);
    struct workflow_task *task = &workflow->task[workflow->tasks - 1];
    return strcmp(key, "question") == 0 ? take_question(workflow, task, value)
                                        : take_answer(workflow, task, key, value);
}

int workflow_load(const char *path, const struct schema *schema, struct workflow *ret_workflow)
{
    *ret_workflow = (struct workflow){.schema = schema};
    int result = ini_read(path, on_entry, ret_workflow);
    if (!result && !ret_workflow->tasks)
        return error_set(ERROR_INPUT, "%s names no task", path);
    for (int t = 0; t < ret_workflow->tasks && !result; t++)
        if (!ret_workflow->task[t].answers)
            result = error_set(ERROR_INPUT, "%s: task %s has no answers", path, ret_workflow->task[t].key);
    return result;
}
