/*
 * One line per event on standard error, with the syslog priority prefix systemd understands when it reads our
 * output, and a time stamp otherwise. Only daemon/ logs.
 */
#ifndef TRIAGE_DAEMON_LOG_H
#define TRIAGE_DAEMON_LOG_H

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6 };

/* `who` is put in front of every line: "triaged", "worker". */
void log_open(const char *who);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)

#endif
