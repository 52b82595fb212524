/*
 * See ini.h. Debian's inih is not used because it cuts lines at 200 characters without saying so and does not tell
 * its handler the line; both break the promise that every message names its line.
 */
#include "base/ini.h"
#include "base/error.h"
#include "base/file.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX (1 << 20)
#define LINE_BYTES_MAX 1000
#define SECTION_BYTES  128

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        *--end = 0;
    return text;
}

/* Comments start a line, or follow a space, so that a value may hold '#'. */
static void cut_comment(char *line)
{
    for (char *at = line; *at; at++)
        if ((*at == '#' || *at == ';') && (at == line || isspace((unsigned char)at[-1]))) {
            *at = 0;
            return;
        }
}

static int parse_section(char *line, char section[SECTION_BYTES])
{
    size_t length = strlen(line);
    if (line[length - 1] != ']')
        return error_set(ERROR_INPUT, "a section header reads [name], found '%.60s'", line);
    if (length - 2 >= SECTION_BYTES)
        return error_set(ERROR_LIMIT, "section name longer than %d characters", SECTION_BYTES - 1);
    memcpy(section, line + 1, length - 2);
    section[length - 2] = 0;
    return 0;
}

static int parse_line(char *line, char section[SECTION_BYTES], ini_handler *handler, void *context, int number)
{
    if (strlen(line) > LINE_BYTES_MAX)
        return error_set(ERROR_LIMIT, "line longer than %d characters", LINE_BYTES_MAX);
    cut_comment(line);
    line = trim(line);
    if (!*line)
        return 0;
    if (*line == '[') {
        int result = parse_section(line, section);
        return result ? result : handler(context, section, NULL, NULL, number);
    }
    char *equals = strchr(line, '=');
    if (!equals || equals == line)
        return error_set(ERROR_INPUT, "expected 'key = value', found '%.60s'", line);
    *equals = 0;
    return handler(context, section, trim(line), trim(equals + 1), number);
}

int ini_read(const char *path, ini_handler *handler, void *context)
{
    char *bytes, section[SECTION_BYTES] = "";
    size_t length;
    int result = file_read(path, FILE_BYTES_MAX, &bytes, &length);
    if (result)
        return result;
    if (strlen(bytes) != length)
        result = error_set(ERROR_INPUT, "%s: holds a zero byte, so it is not a text file", path);
    char *next = bytes;
    for (int number = 1; next && !result; number++) {
        char *line = next;
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        result = parse_line(line, section, handler, context, number);
        if (result)
            error_prefix(result, "%s:%d: ", path, number);
    }
    free(bytes);
    return result;
}
