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

int text_character_bytes(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    static const struct {
        unsigned char low, high, second_low, second_high;
        int bytes;
    } forms[] = {
        {0x20, 0x7e, 0,    0xff, 1},
        {0xc2, 0xdf, 0x80, 0xbf, 2},
        {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3},
        {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4},
        {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    if (*at < 0x20 || *at == 0x7f || (*at == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0))
        return -1;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (*at < forms[i].low || *at > forms[i].high || at[1] < forms[i].second_low || at[1] > forms[i].second_high)
            continue;
        for (int j = 2; j < forms[i].bytes; j++)
            if ((at[j] & 0xc0) != 0x80)
                return 0;
        return forms[i].bytes;
    }
    return 0;
}

void text_make_printable(char *text)
{
    for (int bytes; *text; text += bytes) {
        bytes = text_character_bytes(text);
        if (bytes <= 0) {
            *text = '?';
            bytes = 1;
        }
    }
}
