/*
 * INI files with exact line numbers: used for the configuration and for decision trees.
 * Not for meaning: what a section or key is allowed to be is the handler's business.
 */
#ifndef TRIAGE_BASE_INI_H
#define TRIAGE_BASE_INI_H

/*
 * Called for each `key = value` in file order, and once per section header with key == NULL.
 * Keys in front of the first header have the section "".
 * Return 0 to go on, or a negative code after error_set(): the file and line are put in front of the message.
 */
typedef int ini_handler(void *context, const char *section, const char *key, const char *value, int line);

/*
 * Reads the file (at most 1 MiB, lines at most 1,000 characters) and calls the handler. '#' and ';' start a comment
 * at the start of a line or after a space. A line that is neither section, key nor comment is ERROR_INPUT.
 * Messages start with "file:line: ".
 */
int ini_read(const char *path, ini_handler *handler, void *context);

#endif
