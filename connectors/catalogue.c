/* See catalogue.h. */
#include "connectors/catalogue.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/text.h"
#include "connectors/csv.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum column_role { ROLE_IGNORED = -1, ROLE_ID = -2, ROLE_FILE = -3, ROLE_RA = -4, ROLE_DEC = -5 };

struct catalogue {
    const struct schema *schema;
    struct csv csv;
    int role[CSV_COLUMNS_MAX];   /* enum column_role, or the index of an answer */
    char *name[CSV_COLUMNS_MAX]; /* into header_text */
    char header_text[CATALOGUE_LINE_BYTES_MAX];
    int columns, vote_columns, ignored_columns;
    char ignored[CATALOGUE_IGNORED_BYTES];
    uint32_t votes[SCHEMA_ANSWERS_MAX];
};

static int role_of(const struct catalogue *catalogue, const char *name)
{
    static const struct {
        const char *name;
        int role;
    } known[] = {
        {"id_str",   ROLE_ID  },
        {"file_loc", ROLE_FILE},
        {"ra",       ROLE_RA  },
        {"dec",      ROLE_DEC }
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].role;
    int answer = schema_find_column(catalogue->schema, name);
    return answer >= 0 ? answer : ROLE_IGNORED;
}

static void note_ignored(struct catalogue *catalogue, const char *name)
{
    size_t used = strlen(catalogue->ignored);
    catalogue->ignored_columns++;
    snprintf(catalogue->ignored + used, sizeof catalogue->ignored - used, "%s%s", used ? ", " : "", name);
}

/* Gives each column its role; one role is given once. */
static int take_header(struct catalogue *catalogue)
{
    int have[4] = {0}; /* by -2 - role */
    catalogue->columns = catalogue->csv.fields;
    memcpy(catalogue->header_text, catalogue->csv.text, sizeof catalogue->header_text);
    for (int i = 0; i < catalogue->columns; i++)
        catalogue->name[i] = catalogue->header_text + (catalogue->csv.field[i] - catalogue->csv.text);
    for (int i = 0; i < catalogue->columns; i++) {
        int role = catalogue->role[i] = role_of(catalogue, catalogue->csv.field[i]);
        for (int j = 0; j < i && role != ROLE_IGNORED; j++)
            if (catalogue->role[j] == role)
                return error_set(ERROR_INPUT, "column '%s' appears twice", catalogue->csv.field[i]);
        if (role == ROLE_IGNORED)
            note_ignored(catalogue, catalogue->csv.field[i]);
        else if (role >= 0)
            catalogue->vote_columns++;
        else
            have[ROLE_ID - role] = 1;
    }
    if (!have[ROLE_ID - ROLE_ID] || !have[ROLE_ID - ROLE_FILE])
        return error_set(ERROR_INPUT, "column '%s' is missing: a catalogue needs id_str and file_loc",
                         have[ROLE_ID - ROLE_ID] ? "file_loc" : "id_str");
    if (have[ROLE_ID - ROLE_RA] != have[ROLE_ID - ROLE_DEC])
        return error_set(ERROR_INPUT, "columns 'ra' and 'dec' come together, or neither");
    return 0;
}

static int read_header(struct catalogue *catalogue)
{
    int got = csv_next(&catalogue->csv);
    if (!got)
        return error_set(ERROR_INPUT, "%s is empty: a catalogue starts with a line of column names",
                         catalogue->csv.path);
    if (got < 0)
        return got;
    int result = take_header(catalogue);
    return result ? csv_complain(&catalogue->csv, result) : 0;
}

int catalogue_open(const char *path, const struct schema *schema, struct catalogue **ret_catalogue)
{
    struct catalogue *catalogue = calloc(1, sizeof *catalogue);
    if (!catalogue)
        return error_set(ERROR_SYSTEM, "out of memory for a catalogue");
    catalogue->schema = schema;
    int result = csv_open(path, "catalogue", CATALOGUE_LINE_BYTES_MAX, &catalogue->csv);
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
    if (catalogue)
        csv_close(&catalogue->csv);
    free(catalogue);
}

const char *catalogue_text(const struct catalogue *catalogue, const char *column)
{
    for (int i = 0; i < catalogue->columns && i < catalogue->csv.fields; i++)
        if (strcmp(catalogue->name[i], column) == 0)
            return catalogue->csv.field[i];
    return NULL;
}

int catalogue_vote_columns(const struct catalogue *catalogue)
{
    return catalogue->vote_columns;
}

static int read_number(const char *text, const char *what, double low, double high, double *ret_number)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || (isfinite(number) && text[strspn(text, "0123456789+-.eE")]))
        return error_set(ERROR_INPUT, "%s '%.40s' is not a number", what, text);
    if (!isfinite(number))
        return error_set(ERROR_INPUT, "%s '%.40s' is not finite", what, text);
    if (number < low || number > high)
        return error_set(ERROR_INPUT, "%s %g is out of range: %g to %g", what, number, low, high);
    *ret_number = number;
    return 0;
}

/* Ids and locations go to the database and into JSON: printable UTF-8 only. */
static int check_text(const char *text, const char *what, size_t limit)
{
    if (!*text)
        return error_set(ERROR_INPUT, "%s is empty", what);
    if (strlen(text) > limit)
        return error_set(ERROR_LIMIT, "%s is longer than %zu bytes", what, limit);
    int bytes;
    for (const char *at = text; *at; at += bytes) {
        bytes = text_character_bytes(at);
        if (bytes < 0)
            return error_set(ERROR_INPUT, "%s holds a control character", what);
        if (!bytes)
            return error_set(ERROR_INPUT, "%s is not UTF-8 text", what);
    }
    return 0;
}

static int take_votes(struct catalogue *catalogue, int answer, const char *text)
{
    const char *column = catalogue->schema->answer[answer].column;
    double number = 0;
    int result = read_number(text, column, 0, CATALOGUE_VOTES_MAX, &number);
    if (!result && number != floor(number))
        result = error_set(ERROR_INPUT, "%s '%.40s' is not a whole number of votes", column, text);
    if (!result)
        catalogue->votes[answer] = (uint32_t)number;
    return result;
}

static int take_field(struct catalogue *catalogue, int column, struct catalogue_row *row)
{
    const char *text = catalogue->csv.field[column];
    int role = catalogue->role[column];
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
    return take_votes(catalogue, role, text);
}

static int check_row(const struct catalogue *catalogue, const struct catalogue_row *row)
{
    const struct schema *schema = catalogue->schema;
    if (isnan(row->ra) != isnan(row->dec))
        return error_set(ERROR_INPUT, "ra and dec come together, or neither");
    for (int q = 0; q < schema->questions; q++) {
        uint64_t sum = 0;
        for (int i = 0; i < schema->question[q].count; i++)
            sum += row->votes[schema->question[q].first + i];
        if (sum > CATALOGUE_VOTES_MAX)
            return error_set(ERROR_INPUT, "%llu votes on question %s, at most %d are taken", (unsigned long long)sum,
                             schema->question[q].name, CATALOGUE_VOTES_MAX);
    }
    return 0;
}

int catalogue_next(struct catalogue *catalogue, struct catalogue_row *row)
{
    int got, result = 0;
    do
        got = csv_next(&catalogue->csv);
    while (got > 0 && catalogue->csv.fields == 1 && !catalogue->csv.field[0][0]); /* empty lines */
    if (got <= 0)
        return got;
    *row = (struct catalogue_row){.ra = NAN, .dec = NAN, .votes = catalogue->votes, .line = catalogue->csv.line};
    memset(catalogue->votes, 0, sizeof catalogue->votes);
    if (catalogue->csv.fields != catalogue->columns)
        result = error_set(ERROR_INPUT, "%d fields, the header has %d", catalogue->csv.fields, catalogue->columns);
    for (int i = 0; i < catalogue->columns && !result; i++)
        result = take_field(catalogue, i, row);
    if (!result)
        result = check_row(catalogue, row);
    return result ? csv_complain(&catalogue->csv, result) : 1;
}

/* --- the checking pass --------------------------------------------------------------------------- */

struct seen {
    uint64_t hash;
    long line;
};

static int compare_seen(const void *left, const void *right)
{
    const struct seen *a = left, *b = right;
    return a->hash != b->hash ? (a->hash < b->hash ? -1 : 1) : (a->line > b->line) - (a->line < b->line);
}

/* Copies the id that starts on this line. */
static int id_on_line(const char *path, const struct schema *schema, long line, char id_str[CATALOGUE_ID_BYTES_MAX + 1])
{
    struct catalogue *catalogue;
    struct catalogue_row row;
    int result = catalogue_open(path, schema, &catalogue);
    if (result)
        return result;
    while ((result = catalogue_next(catalogue, &row)) > 0 && row.line < line)
        ;
    if (result > 0)
        snprintf(id_str, CATALOGUE_ID_BYTES_MAX + 1, "%s", row.id_str);
    catalogue_close(catalogue);
    return result < 0 ? result : result > 0 ? 0 : error_set(ERROR_INPUT, "%s changed while it was being checked", path);
}

/*
 * Equal hashes are looked up in the file, so two different ids are never taken for one. The first repeat in
 * the file is the one reported.
 */
static int find_repeat(const char *path, const struct schema *schema, struct seen *seen, long rows)
{
    qsort(seen, (size_t)rows, sizeof *seen, compare_seen);
    for (long after = 0;;) {
        long first = 0, second = LONG_MAX;
        for (long i = 1; i < rows; i++)
            if (seen[i].hash == seen[i - 1].hash && seen[i].line > after && seen[i].line < second) {
                first = seen[i - 1].line;
                second = seen[i].line;
            }
        if (!first)
            return 0;
        char one[CATALOGUE_ID_BYTES_MAX + 1], other[CATALOGUE_ID_BYTES_MAX + 1];
        int result = id_on_line(path, schema, first, one);
        if (!result)
            result = id_on_line(path, schema, second, other);
        if (result)
            return result;
        if (strcmp(one, other) == 0)
            return error_set(ERROR_INPUT, "%s:%ld: id_str '%s' is already on line %ld", path, second, one, first);
        after = second;
    }
}

/* Makes room for one more; the rows of a file are bounded by its size, and by CATALOGUE_ROWS_MAX. */
static int remember(struct seen **seen, long *capacity, long rows, const struct catalogue_row *row)
{
    if (rows == CATALOGUE_ROWS_MAX)
        return error_set(ERROR_LIMIT, "more than %d galaxies: split the catalogue", CATALOGUE_ROWS_MAX);
    if (rows == *capacity) {
        long larger_capacity = *capacity ? 2 * *capacity : 4096;
        struct seen *larger = realloc(*seen, (size_t)larger_capacity * sizeof *larger);
        if (!larger)
            return error_set(ERROR_SYSTEM, "out of memory for %ld galaxies", larger_capacity);
        *seen = larger;
        *capacity = larger_capacity;
    }
    (*seen)[rows] = (struct seen){hash_64(row->id_str, strlen(row->id_str)), row->line};
    return 0;
}

int catalogue_check(const char *path, const struct schema *schema, struct catalogue_summary *ret_summary)
{
    struct catalogue *catalogue;
    struct catalogue_row row;
    struct catalogue_summary summary = {0};
    struct seen *seen = NULL;
    long capacity = 0;
    int result = catalogue_open(path, schema, &catalogue);
    if (result)
        return result;
    while ((result = catalogue_next(catalogue, &row)) > 0) {
        result = remember(&seen, &capacity, summary.rows, &row);
        if (result) {
            csv_complain(&catalogue->csv, result);
            break;
        }
        summary.rows++;
        summary.has_positions |= !isnan(row.ra);
    }
    if (!result && !summary.rows)
        result = error_set(ERROR_INPUT, "%s holds no galaxies", path);
    if (!result)
        result = find_repeat(path, schema, seen, summary.rows);
    if (!result) {
        summary.vote_columns = catalogue->vote_columns;
        summary.ignored_columns = catalogue->ignored_columns;
        snprintf(summary.ignored, sizeof summary.ignored, "%s", catalogue->ignored);
        *ret_summary = summary;
    }
    free(seen);
    catalogue_close(catalogue);
    return result;
}
