/* See text.h. */
#include "base/text.h"
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct text text_new(size_t limit)
{
    return (struct text){.limit = limit};
}

static int make_room(struct text *text, size_t more)
{
    if (text->error)
        return text->error;
    if (more > text->limit - text->length)
        return text->error = ERROR_LIMIT;
    size_t wanted = text->length + more + 1;
    if (wanted <= text->capacity)
        return 0;
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity < wanted)
        capacity *= 2;
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes)
        return text->error = ERROR_SYSTEM;
    text->bytes = bytes;
    text->capacity = capacity;
    return 0;
}

void text_append_bytes(struct text *text, const void *bytes, size_t count)
{
    if (make_room(text, count))
        return;
    memcpy(text->bytes + text->length, bytes, count);
    text->length += count;
    text->bytes[text->length] = 0;
}

void text_append(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (count < 0 || make_room(text, (size_t)count))
        return;
    va_start(arguments, format);
    vsnprintf(text->bytes + text->length, (size_t)count + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)count;
}

int text_error(const struct text *text)
{
    if (text->error == ERROR_LIMIT)
        return error_set(ERROR_LIMIT, "text longer than its limit of %zu bytes", text->limit);
    if (text->error)
        return error_set(text->error, "out of memory while building a text of %zu bytes", text->length);
    return 0;
}

void text_clear(struct text *text)
{
    text->length = 0;
    text->error = 0;
    if (text->bytes)
        text->bytes[0] = 0;
}

void text_free(struct text *text)
{
    free(text->bytes);
    *text = (struct text){0};
}
