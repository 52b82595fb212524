/* See csv.h. */
#include "connectors/csv.h"
#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int csv_complain(const struct csv *csv, int code)
{
    return error_prefix(code, "%s:%ld: ", csv->path, csv->line);
}

/* Where the reader is within a field. */
enum place { FIELD_START, PLAIN, QUOTED, QUOTE_CLOSED };

/* One record being cut into fields. */
struct cutting {
    enum place place;
    size_t used; /* bytes of the text */
};

/* Closes the field that ends at `used` and starts the next one behind it, if one follows. */
static int end_field(struct csv *csv, struct cutting *cutting, int more)
{
    csv->text[cutting->used++] = 0;
    cutting->place = FIELD_START;
    if (more && csv->fields == CSV_COLUMNS_MAX)
        return error_set(ERROR_LIMIT, "more than %d columns", CSV_COLUMNS_MAX);
    if (more)
        csv->field[csv->fields++] = csv->text + cutting->used;
    return 0;
}

static void end_record(struct csv *csv, struct cutting *cutting)
{
    if (cutting->place == PLAIN && csv->text[cutting->used - 1] == '\r')
        cutting->used--; /* a line of a DOS file */
    end_field(csv, cutting, 0);
}

static int take_character(struct csv *csv, struct cutting *cutting, int character)
{
    if (!character)
        return error_set(ERROR_INPUT, "holds a zero byte, so it is not a text file");
    if (cutting->used + 2 > csv->limit)
        return error_set(ERROR_LIMIT, "line longer than %zu bytes; is a quote not closed?", csv->limit);
    if (cutting->place != QUOTED && character == ',')
        return end_field(csv, cutting, 1);
    if (character == '"' && (cutting->place == FIELD_START || cutting->place == QUOTED)) {
        cutting->place = cutting->place == QUOTED ? QUOTE_CLOSED : QUOTED;
        return 0;
    }
    if (cutting->place == QUOTE_CLOSED && character == '\r')
        return 0; /* of a DOS file; the newline follows */
    if (cutting->place == QUOTE_CLOSED && character != '"')
        return error_set(ERROR_INPUT, "text behind a closing quote");
    if (cutting->place == QUOTE_CLOSED)
        cutting->place = QUOTED; /* a doubled quote stands for one */
    else if (cutting->place == FIELD_START)
        cutting->place = PLAIN;
    csv->text[cutting->used++] = (char)character;
    return 0;
}

int csv_next(struct csv *csv)
{
    struct cutting cutting = {.place = FIELD_START};
    int character, any = 0, result = 0;
    csv->line = csv->next_line;
    csv->field[0] = csv->text;
    csv->fields = 1;
    while ((character = getc_unlocked(csv->file)) != EOF) {
        any = 1;
        csv->offset++;
        csv->next_line += character == '\n';
        if (character == '\n' && cutting.place != QUOTED)
            break;
        result = take_character(csv, &cutting, character);
        if (result)
            return csv_complain(csv, result);
    }
    if (character == EOF && ferror(csv->file))
        return error_set_errno("cannot read %s", csv->path);
    if (cutting.place == QUOTED)
        return csv_complain(csv, error_set(ERROR_INPUT, "a quote is not closed before the end of the file"));
    end_record(csv, &cutting);
    return any;
}

int csv_seek(struct csv *csv, int64_t offset, long line)
{
    if (fseeko(csv->file, (off_t)offset, SEEK_SET))
        return error_set_errno("cannot go on in %s", csv->path);
    csv->offset = offset;
    csv->next_line = line;
    return 0;
}

static int skip_mark(struct csv *csv)
{
    static const char mark[] = "\xef\xbb\xbf"; /* UTF-8 byte order mark */
    for (int i = 0; mark[i]; i++) {
        int character = getc_unlocked(csv->file);
        if (character != (unsigned char)mark[i]) {
            if (character != EOF && i == 0)
                ungetc(character, csv->file);
            else if (character != EOF)
                return error_set(ERROR_INPUT, "%s:1: is not UTF-8 text", csv->path);
            break;
        }
        csv->offset++;
    }
    return 0;
}

/* A pipe would block here. */
static int open_file(struct csv *csv, const char *path, const char *what)
{
    struct stat info;
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0)
        return errno == ENOENT || errno == ENOTDIR ? error_set(ERROR_NOT_FOUND, "%s: no such %s", path, what)
                                                   : error_set_errno("cannot open %s", path);
    if (fstat(descriptor, &info) == 0 && !S_ISREG(info.st_mode)) {
        close(descriptor);
        return error_set(ERROR_INPUT, "%s is not a regular file", path);
    }
    csv->bytes = (int64_t)info.st_size;
    csv->file = fdopen(descriptor, "r");
    if (csv->file)
        return 0;
    close(descriptor);
    return error_set(ERROR_SYSTEM, "out of memory for a %s", what);
}

int csv_open(const char *path, const char *what, size_t record_bytes_max, struct csv *ret_csv)
{
    *ret_csv = (struct csv){.next_line = 1, .limit = record_bytes_max, .text = malloc(record_bytes_max)};
    snprintf(ret_csv->path, sizeof ret_csv->path, "%s", path);
    if (!ret_csv->text)
        return error_set(ERROR_SYSTEM, "out of memory for a %s", what);
    int result = open_file(ret_csv, path, what);
    return result ? result : skip_mark(ret_csv);
}

void csv_close(struct csv *csv)
{
    if (csv->file)
        fclose(csv->file);
    free(csv->text);
    *csv = (struct csv){0};
}

void csv_append_field(struct text *record, const char *field)
{
    if (!strpbrk(field, ",\"\r\n")) {
        text_append(record, "%s", field);
        return;
    }
    text_append(record, "\"");
    for (; *field; field++)
        text_append(record, "%s%c", *field == '"' ? "\"" : "", *field);
    text_append(record, "\"");
}
