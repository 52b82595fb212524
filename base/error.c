/* One message per thread; see error.h. Not for logging: only daemon/ speaks. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[ERROR_MESSAGE_BYTES];
static atomic_long memory_failures;

int error_set(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (strncmp(message, "out of memory", 13) == 0)
        memory_failures++;
    return code;
}

int error_set_errno(const char *format, ...)
{
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size_t used = strlen(message);
    snprintf(message + used, sizeof message - used, ": %s", strerror(saved));
    return ERROR_SYSTEM;
}

int error_prefix(int code, const char *format, ...)
{
    char context[ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);
    size_t used = strlen(context);
    snprintf(context + used, sizeof context - used, "%s", message);
    memcpy(message, context, sizeof message);
    return code;
}

long error_memory_failures(void)
{
    return memory_failures;
}

const char *error_message(void)
{
    return message;
}
