/* See catalogue.h. */
#include "connectors/catalogue.h"
#include "base/error.h"
#include "base/hash.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 1024

enum column_role { ROLE_IGNORED = -1, ROLE_ID = -2, ROLE_FILE = -3, ROLE_RA = -4, ROLE_DEC = -5 };

struct catalogue {
    const struct schema *schema;
    FILE *file;
    char path[512];
    char line_text[CATALOGUE_LINE_BYTES_MAX + 2];
    char *field[COLUMNS_MAX];
    int role[COLUMNS_MAX]; /* enum column_role, or the index of an answer */
    int columns, vote_columns;
    long line;
    uint32_t votes[SCHEMA_ANSWERS_MAX];
};

static int complain(const struct catalogue *catalogue, int code)
{
    return error_prefix(code, "%s:%ld: ", catalogue->path, catalogue->line);
}

/* 1 with a line, 0 at the end, negative for a line that is too long or holds a zero byte. */
static int read_line(struct catalogue *catalogue)
{
    char *text = catalogue->line_text;
    if (!fgets(text, sizeof catalogue->line_text, catalogue->file))
        return ferror(catalogue->file) ? error_set_errno("cannot read %s", catalogue->path) : 0;
    catalogue->line++;
    size_t length = strlen(text);
    if (length && text[length - 1] == '\n')
        text[--length] = 0;
    else if (!feof(catalogue->file))
        return complain(catalogue, error_set(ERROR_LIMIT, "line longer than %d bytes, or with a zero byte",
                                             CATALOGUE_LINE_BYTES_MAX));
    if (length && text[length - 1] == '\r')
        text[--length] = 0;
    return 1;
}

/* Cuts the line into fields in place. Returns their number or a negative code. */
static int split_fields(struct catalogue *catalogue)
{
    char *at = catalogue->line_text, *out;
    int count = 0;
    for (;;) {
        if (count == COLUMNS_MAX)
            return error_set(ERROR_LIMIT, "more than %d columns", COLUMNS_MAX);
        catalogue->field[count++] = out = at;
        if (*at == '"') {
            for (at++; *at && (*at != '"' || at[1] == '"'); *out++ = *at++)
                at += *at == '"';
            if (*at++ != '"')
                return error_set(ERROR_INPUT, "a quoted field is not closed on its line");
            if (*at && *at != ',')
                return error_set(ERROR_INPUT, "text behind a closing quote");
        } else {
            while (*at && *at != ',')
                at++;
            out = at;
        }
        int more = *at == ',';
        *out = 0;
        at++;
        if (!more)
            return count;
    }
}

static int role_of(const struct catalogue *catalogue, const char *name)
{
    static const struct {
        const char *name;
        int role;
    } known[] = {{"id_str", ROLE_ID}, {"file_loc", ROLE_FILE}, {"ra", ROLE_RA}, {"dec", ROLE_DEC}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].role;
    int answer = schema_find_column(catalogue->schema, name);
    return answer >= 0 ? answer : ROLE_IGNORED;
}

static int read_header(struct catalogue *catalogue)
{
    int have_id = 0, have_file = 0, got = read_line(catalogue);
    if (got <= 0)
        return got ? got : error_set(ERROR_INPUT, "%s is empty: a catalogue starts with a line of column names", catalogue->path);
    if (strncmp(catalogue->line_text, "\xef\xbb\xbf", 3) == 0)
        memmove(catalogue->line_text, catalogue->line_text + 3, strlen(catalogue->line_text + 3) + 1);
    catalogue->columns = split_fields(catalogue);
    if (catalogue->columns < 0)
        return complain(catalogue, catalogue->columns);
    for (int i = 0; i < catalogue->columns; i++) {
        int role = catalogue->role[i] = role_of(catalogue, catalogue->field[i]);
        for (int j = 0; j < i && role != ROLE_IGNORED; j++)
            if (catalogue->role[j] == role)
                return complain(catalogue, error_set(ERROR_INPUT, "column '%s' appears twice", catalogue->field[i]));
        have_id |= role == ROLE_ID;
        have_file |= role == ROLE_FILE;
        catalogue->vote_columns += role >= 0;
    }
    if (!have_id || !have_file)
        return complain(catalogue, error_set(ERROR_INPUT, "column '%s' is missing", have_id ? "file_loc" : "id_str"));
    return 0;
}

int catalogue_open(const char *path, const struct schema *schema, struct catalogue **ret_catalogue)
{
    struct catalogue *catalogue = calloc(1, sizeof *catalogue);
    if (!catalogue)
        return error_set(ERROR_SYSTEM, "out of memory for a catalogue");
    catalogue->schema = schema;
    snprintf(catalogue->path, sizeof catalogue->path, "%s", path);
    catalogue->file = fopen(path, "re");
    int result = 0;
    if (!catalogue->file)
        result = errno == ENOENT ? error_set(ERROR_NOT_FOUND, "%s: no such catalogue", path)
                                 : error_set_errno("cannot open %s", path);
    if (!result)
        result = read_header(catalogue);
    if (result) {
        catalogue_close(catalogue);
        return result;
    }
    *ret_catalogue = catalogue;
    return 0;
}

void catalogue_close(struct catalogue *catalogue)
{
    if (catalogue && catalogue->file)
        fclose(catalogue->file);
    free(catalogue);
}

int catalogue_vote_columns(const struct catalogue *catalogue)
{
    return catalogue->vote_columns;
}

static int read_number(const char *text, const char *what, double low, double high, double *ret_number)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end)
        return error_set(ERROR_INPUT, "%s '%.40s' is not a number", what, text);
    if (!isfinite(number))
        return error_set(ERROR_INPUT, "%s '%.40s' is not finite", what, text);
    if (number < low || number > high)
        return error_set(ERROR_INPUT, "%s %g is out of range: %g to %g", what, number, low, high);
    *ret_number = number;
    return 0;
}

static int check_text(const char *text, const char *what, size_t limit)
{
    if (!*text)
        return error_set(ERROR_INPUT, "%s is empty", what);
    if (strlen(text) > limit)
        return error_set(ERROR_LIMIT, "%s is longer than %zu bytes", what, limit);
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at < 32 || *at == 127)
            return error_set(ERROR_INPUT, "%s holds a control character", what);
    return 0;
}

static int take_field(struct catalogue *catalogue, int column, struct catalogue_row *row)
{
    const char *text = catalogue->field[column];
    double number = NAN;
    int role = catalogue->role[column], result = 0;
    if (role == ROLE_ID) {
        row->id_str = text;
        return check_text(text, "id_str", CATALOGUE_ID_BYTES_MAX);
    }
    if (role == ROLE_FILE) {
        row->file_loc = text;
        return check_text(text, "file_loc", CATALOGUE_FILE_BYTES_MAX);
    }
    if (role == ROLE_IGNORED || !*text)
        return 0;
    if (role == ROLE_RA)
        return read_number(text, "ra", 0, 360, &row->ra);
    if (role == ROLE_DEC)
        return read_number(text, "dec", -90, 90, &row->dec);
    result = read_number(text, catalogue->schema->answer[role].column, 0, UINT16_MAX, &number);
    if (!result && number != floor(number))
        result = error_set(ERROR_INPUT, "%s '%.40s' is not a whole number of votes",
                           catalogue->schema->answer[role].column, text);
    if (!result)
        catalogue->votes[role] = (uint32_t)number;
    return result;
}

int catalogue_next(struct catalogue *catalogue, struct catalogue_row *row)
{
    int got;
    do
        got = read_line(catalogue);
    while (got > 0 && !catalogue->line_text[0]);
    if (got <= 0)
        return got;
    int fields = split_fields(catalogue);
    if (fields >= 0 && fields != catalogue->columns)
        fields = error_set(ERROR_INPUT, "%d fields, the header has %d", fields, catalogue->columns);
    if (fields < 0)
        return complain(catalogue, fields);
    *row = (struct catalogue_row){.ra = NAN, .dec = NAN, .votes = catalogue->votes, .line = catalogue->line};
    memset(catalogue->votes, 0, (size_t)catalogue->schema->answers * sizeof *catalogue->votes);
    for (int i = 0; i < catalogue->columns; i++) {
        int result = take_field(catalogue, i, row);
        if (result)
            return complain(catalogue, result);
    }
    return 1;
}

/* --- the checking pass -------------------------------------------------------------------------------------- */

struct seen {
    uint64_t hash;
    long line;
};

static int compare_seen(const void *left, const void *right)
{
    const struct seen *a = left, *b = right;
    return a->hash != b->hash ? (a->hash < b->hash ? -1 : 1) : (a->line > b->line) - (a->line < b->line);
}

/* Compares 64-bit hashes of the ids: below 10^8 galaxies two different ids never meet in practice. */
static int find_repeat(const struct catalogue *catalogue, struct seen *seen, long rows)
{
    qsort(seen, (size_t)rows, sizeof *seen, compare_seen);
    for (long i = 1; i < rows; i++)
        if (seen[i].hash == seen[i - 1].hash)
            return error_set(ERROR_INPUT, "%s:%ld: the id_str is the same as on line %ld", catalogue->path,
                             seen[i].line, seen[i - 1].line);
    return 0;
}

int catalogue_check(const char *path, const struct schema *schema, struct catalogue_summary *ret_summary)
{
    struct catalogue *catalogue;
    struct catalogue_row row;
    struct seen *seen = NULL;
    long capacity = 0, rows = 0;
    int result = catalogue_open(path, schema, &catalogue);
    if (result)
        return result;
    while ((result = catalogue_next(catalogue, &row)) > 0) {
        if (rows == capacity) {
            capacity = capacity ? 2 * capacity : 4096;
            struct seen *larger = realloc(seen, (size_t)capacity * sizeof *seen);
            if (!larger) {
                result = error_set(ERROR_SYSTEM, "out of memory while checking %s", path);
                break;
            }
            seen = larger;
        }
        seen[rows++] = (struct seen){hash_64(row.id_str, strlen(row.id_str)), row.line};
    }
    if (!result && !rows)
        result = error_set(ERROR_INPUT, "%s holds no galaxies", path);
    if (!result)
        result = find_repeat(catalogue, seen, rows);
    if (!result) {
        int known = 0;
        for (int i = 0; i < catalogue->columns; i++)
            known += catalogue->role[i] != ROLE_IGNORED;
        *ret_summary = (struct catalogue_summary){rows, catalogue->vote_columns, catalogue->columns - known};
    }
    free(seen);
    catalogue_close(catalogue);
    return result;
}
