/* Files of votes and workflows; see fuzz.h. */
#include "base/error.h"
#include "base/text.h"
#include "connectors/vote_file.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <string.h>

static struct schema schema;
static struct workflow decals;
static const struct voter_key key = {{1}};

/* --- a workflow: what is accepted points into its tree ------------------------------------------------------------------- */

void fuzz_votes_open(void)
{
    fuzz_require(schema_load(TRIAGE_SOURCE_FOLDER "/etc/schemas/decals.ini", &schema) == 0, "the schema");
    fuzz_require(workflow_load(TRIAGE_SOURCE_FOLDER "/etc/workflows/decals.ini", &schema, &decals) == 0,
                 "the workflow");
}

void fuzz_workflow(const uint8_t *bytes, size_t length)
{
    static struct workflow workflow;
    if (workflow_load(fuzz_file(bytes, length), &schema, &workflow)) {
        fuzz_require(error_message()[0] != 0, "a refused workflow without a reason");
        return;
    }
    for (int t = 0; t < workflow.tasks; t++) {
        const struct workflow_task *task = &workflow.task[t];
        fuzz_require(task->answers >= 1 && workflow_task(&workflow, task->key) == task, "a task nobody finds");
        for (int a = 0; a < task->answers; a++)
            fuzz_require(schema.answer[task->answer[a]].question == task->question, "an answer of another question");
        workflow_answer_for(&workflow, task, task->label[0]);
    }
}

int fuzz_workflow_seed(int number, struct text *out)
{
    if (number == 0)
        fuzz_read(out, TRIAGE_SOURCE_FOLDER "/etc/workflows/decals.ini");
    if (number == 1)
        text_append(out, "[workflow]\ngalaxy = a, !b\n[T0]\nquestion = bar\nno = ![x](y) No | **none**\n");
    return number < 2;
}

/* --- a file of votes: texts within their limits, printable, and a way on behind every senseless record ------------------- */

static void check_text(const char *text)
{
    int bytes;
    fuzz_require(strlen(text) < VOTE_FILE_TEXT_BYTES, "a text beyond its limit");
    for (; *text; text += bytes) {
        bytes = text_character_bytes(text);
        fuzz_require(bytes > 0, "a text that is not printable");
    }
}

void fuzz_votes(const uint8_t *bytes, size_t length)
{
    static struct file_record record;
    struct vote_file *file;
    if (vote_file_open(fuzz_file(bytes, length), &decals, &key, &file))
        return;
    int64_t before = 0, offset = 0, size;
    long line;
    for (int got; (got = vote_file_next(file, &record)) != 0 && !vote_file_broken(file); before = offset) {
        vote_file_position(file, &offset, &line, &size);
        fuzz_require(offset > before && offset <= size, "no way on");
        fuzz_require(got > 0 || error_message()[0], "a senseless record without a reason");
        if (got < 0)
            continue;
        check_text(record.id_str);
        check_text(record.voter);
        check_text(record.marks);
        check_text(record.classified_at);
        for (int v = 0; v < record.votes; v++) {
            check_text(record.vote[v].question);
            check_text(record.vote[v].answer);
            fuzz_require(record.vote[v].question[0] && record.vote[v].answer[0], "a vote without a name");
        }
    }
    vote_file_close(file);
}

int fuzz_votes_seed(int number, struct text *out)
{
    static const char *const files[] = {
        "classification,question,answer,id_str,voter,marks,classified_at\n"
        "1,bar,no,g1,ada,\"seen_before,retired\",2026-01-02 03:04:05 UTC\n2,bar,weak,g2,,,\n",
        "\357\273\277classification_id,user_id,workflow_id,created_at,gold_standard,metadata,annotations,subject_data,"
        "subject_ids\n"
        "91,8,6122,2018-02-20 10:44:42 UTC,,\"{\"\"session\"\":\"\"s\"\",\"\"seen_before\"\":true,"
        "\"\"subject_selection_state\"\":{\"\"retired\"\":true},\"\"live_project\"\":false}\","
        "\"[{\"\"task\"\":\"\"T0\"\",\"\"value\"\":\"\"![a](b) Smooth\"\"},{\"\"task\"\":\"\"T4\"\",\"\"value\"\":2},"
        "{\"\"task\"\":\"\"T11\"\",\"\"value\"\":[\"\"Neither\"\"]},{\"\"task\"\":\"\"T99\"\",\"\"value\"\":null}]\","
        "\"{\"\"15\"\":{\"\"!name\"\":\"\"g1\"\"}}\",15\n"
        "92,,6122,2018-02-20T10:44:42.5Z,true,{},[],{},16\n"};
    if (number >= 2)
        return 0;
    text_append(out, "%s", files[number]);
    return 1;
}
