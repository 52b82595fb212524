/* See log.h. */
#include "daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char *log_who = "triaged";
static int under_systemd;

void log_open(const char *who)
{
    log_who = who;
    under_systemd = getenv("JOURNAL_STREAM") != NULL;
}

void log_line(enum log_level level, const char *format, ...)
{
    char text[1200], stamp[32] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (under_systemd) {
        fprintf(stderr, "<%d>%s: %s\n", (int)level, log_who, text);
        return;
    }
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
    fprintf(stderr, "%s.%03ldZ %s[%d] %s%s\n", stamp, now.tv_nsec / 1000000, log_who, (int)getpid(),
            level == LOG_LEVEL_ERROR     ? "error: "
            : level == LOG_LEVEL_WARNING ? "warning: "
                                         : "",
            text);
}
