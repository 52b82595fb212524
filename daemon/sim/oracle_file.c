/* See oracle_file.h. */
#include "daemon/sim/oracle_file.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES_MAX 65536
#define COLUMNS_MAX    1024

enum column_role { ROLE_NONE = -1, ROLE_ID = -2 };

struct reader {
    FILE *file;
    const struct schema *schema;
    char line[LINE_BYTES_MAX];
    char *field[COLUMNS_MAX];
    int fields, role[COLUMNS_MAX], columns; /* a role is a column_role or the index of an answer */
    long number;
};

/* Cuts the line at its commas, in place; a field may be in double quotes (RFC 4180, within one line). */
static int split(struct reader *reader)
{
    char *from = reader->line, *to;
    reader->fields = 0;
    for (;;) {
        if (reader->fields == COLUMNS_MAX)
            return error_set(ERROR_LIMIT, "more than %d columns", COLUMNS_MAX);
        reader->field[reader->fields++] = to = from;
        int quoted = *from == '"';
        from += quoted;
        while (*from && (quoted || *from != ',')) {
            if (quoted && *from == '"' && from[1] != '"') {
                quoted = 0;
                from++;
                continue;
            }
            from += quoted && *from == '"';
            *to++ = *from++;
        }
        if (quoted)
            return error_set(ERROR_INPUT, "a quoted field is not closed on its line");
        int last = *from != ',';
        *to = 0;
        if (last)
            return 0;
        from++;
    }
}

/* 1 with a line cut into fields, 0 at the end. */
static int next_line(struct reader *reader)
{
    do {
        if (!fgets(reader->line, sizeof reader->line, reader->file))
            return ferror(reader->file) ? error_set_errno("cannot read on") : 0;
        reader->number++;
        size_t length = strcspn(reader->line, "\r\n");
        if (length == sizeof reader->line - 1)
            return error_set(ERROR_LIMIT, "line longer than %zu bytes", sizeof reader->line - 2);
        reader->line[length] = 0;
    } while (reader->line[0] == '#' || reader->line[0] == 0);
    int result = split(reader);
    return result ? result : 1;
}

/* Gives each column its role and finds out what the numbers are. */
static int read_header(struct reader *reader, enum oracle_source *ret_source)
{
    int result = next_line(reader), ids = 0, found = 0, seen[SCHEMA_ANSWERS_MAX] = {0};
    if (result <= 0)
        return result ? result : error_set(ERROR_INPUT, "empty: a header with id_str and answer columns is needed");
    *ret_source = ORACLE_COUNTS;
    reader->columns = reader->fields;
    for (int i = 0; i < reader->columns; i++) {
        int answer = schema_find_column(reader->schema, reader->field[i]);
        reader->role[i] = answer >= 0 ? answer : ROLE_NONE;
        if (answer >= 0 && seen[answer]++)
            return error_set(ERROR_INPUT, "column %s is there twice", reader->field[i]);
        found += answer >= 0;
        if (strcmp(reader->field[i], "id_str") == 0) {
            reader->role[i] = ROLE_ID;
            ids++;
        }
        if (strcmp(reader->field[i], "simulated_kind") == 0)
            *ret_source = ORACLE_PROBABILITIES;
    }
    if (ids != 1)
        return error_set(ERROR_INPUT, "%s column id_str", ids ? "more than one" : "no");
    if (found != reader->schema->answers)
        return error_set(ERROR_INPUT, "%d of the %d answer columns of decision tree %s: is it the right tree?", found,
                         reader->schema->answers, reader->schema->name);
    return 0;
}

static int take_line(const struct reader *reader, struct oracle *oracle)
{
    double value[SCHEMA_ANSWERS_MAX] = {0};
    const char *id = "";
    if (reader->fields != reader->columns)
        return error_set(ERROR_INPUT, "%d fields where the header has %d", reader->fields, reader->columns);
    for (int i = 0; i < reader->columns; i++) {
        const char *text = reader->field[i];
        char *end;
        if (reader->role[i] == ROLE_ID)
            id = text;
        if (reader->role[i] < 0 || !*text) /* an empty cell is a question nobody voted on */
            continue;
        value[reader->role[i]] = strtod(text, &end);
        if (*end)
            return error_set(ERROR_INPUT, "'%.40s' is no number", text);
    }
    return oracle_add(oracle, id, value);
}

int oracle_read(const char *path, const struct schema *schema, struct oracle *ret_oracle)
{
    struct reader *reader = calloc(1, sizeof *reader);
    enum oracle_source source = ORACLE_COUNTS;
    if (!reader)
        return error_set(ERROR_SYSTEM, "out of memory for reading %s", path);
    reader->schema = schema;
    reader->file = fopen(path, "r");
    if (!reader->file) {
        free(reader);
        return error_set(ERROR_NOT_FOUND, "cannot open %s: give a CSV of known answers or votes", path);
    }
    int result = read_header(reader, &source);
    oracle_new(schema, source, ret_oracle);
    while (result == 0) {
        int line = next_line(reader);
        if (line <= 0) {
            result = line;
            break;
        }
        result = take_line(reader, ret_oracle);
    }
    if (result) {
        error_prefix(result, "%s:%ld: ", path, reader->number);
        oracle_free(ret_oracle);
    }
    fclose(reader->file);
    free(reader);
    return result;
}
