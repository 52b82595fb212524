/* See log.h. */
#include "daemon/log.h"
#include "base/text.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char *const event_names[] = {
#define X(name, text, meaning) [EVENT_##name] = text,
    LOG_EVENTS(X)
#undef X
};

static const char *log_who = "triaged";
static int under_systemd, as_json;

void log_open(const char *who, int json)
{
    log_who = who;
    as_json = json;
    under_systemd = getenv("JOURNAL_STREAM") != NULL;
}

static void stamp_now(char *stamp, size_t size)
{
    struct timespec now;
    struct tm parts;
    char seconds[24];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(stamp, size, "%s.%03ldZ", seconds, now.tv_nsec / 1000000);
}

static const char *level_name(enum log_level level)
{
    return level == LOG_LEVEL_ERROR ? "error" : level == LOG_LEVEL_WARNING ? "warning" : "info";
}

/* 0 without memory: the line is then written as text. */
static int write_json(enum log_level level, enum log_event event, const char *stamp, const char *words)
{
    json_t *line = json_pack("{s:s,s:s,s:s,s:i,s:s,s:s}", "time", stamp, "level", level_name(level), "who", log_who,
                             "pid", (int)getpid(), "event", event_names[event], "message", words);
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    char priority[8] = "";
    if (under_systemd)
        snprintf(priority, sizeof priority, "<%d>", (int)level);
    if (text)
        fprintf(stderr, "%s%s\n", priority, text);
    free(text);
    return text != NULL;
}

void log_line(enum log_level level, enum log_event event, const char *format, ...)
{
    char words[1200], stamp[40];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    text_make_printable(words); /* a name from outside begins no line of its own */
    stamp_now(stamp, sizeof stamp);
    if (as_json && write_json(level, event, stamp, words))
        return;
    if (under_systemd)
        fprintf(stderr, "<%d>%s: %s [%s]\n", (int)level, log_who, words, event_names[event]);
    else
        fprintf(stderr, "%s %s[%d] %s%s%s [%s]\n", stamp, log_who, (int)getpid(),
                level == LOG_LEVEL_INFO ? "" : level_name(level), level == LOG_LEVEL_INFO ? "" : ": ", words,
                event_names[event]);
}
