/*
 * A growing string with a maximum. The error is sticky: go on appending, check once at the end (text_error()).
 * Not for binary data.
 */
#ifndef TRIAGE_BASE_TEXT_H
#define TRIAGE_BASE_TEXT_H

#include <stddef.h>

struct text {
    char *bytes; /* always terminated once something was appended; NULL before */
    size_t length, capacity, limit;
    int error; /* 0, ERROR_LIMIT or ERROR_SYSTEM */
};

/* An empty text that may grow to `limit` bytes, the terminator not counted. */
struct text text_new(size_t limit);

void text_append(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_append_bytes(struct text *text, const void *bytes, size_t count);

/* 0, or the sticky error with its message set. */
int text_error(const struct text *text);

/* Empties the text and keeps its memory. */
void text_clear(struct text *text);
void text_free(struct text *text);

/* Length of the UTF-8 character (RFC 3629) at `text` in bytes: 0 if there is none, -1 if it is a control character. */
int text_character_bytes(const char *text);

/* Puts '?' for every byte that is not of a whole printable character: messages may hold names from outside, and be cut. */
void text_make_printable(char *text);

#endif
