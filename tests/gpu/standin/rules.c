/* Findings: which rules were broken, how often; the lock; and the end of a process that has some. */
#include "tests/gpu/standin/engine.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PRINT_LIMIT 40 /* findings printed in full */

static const struct {
    const char *name, *text, *document;
} rules[] = {
#define STANDIN_RULE_ROW(name, text, document) {#name, text, document},
    STANDIN_RULES(STANDIN_RULE_ROW)
#undef STANDIN_RULE_ROW
};

static unsigned count[STANDIN_RULE_COUNT], total;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t something_happened = PTHREAD_COND_INITIALIZER;

void lock(void)
{
    pthread_mutex_lock(&mutex);
}

void unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

void tell_others(void)
{
    pthread_cond_broadcast(&something_happened);
}

int wait_for_others(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += settings.patience_s;
    return pthread_cond_timedwait(&something_happened, &mutex, &until);
}

void found(enum standin_rule rule, const char *format, ...)
{
    va_list arguments;
    count[rule]++;
    if (total++ < PRINT_LIMIT) {
        fprintf(stderr, "stand-in: %s: ", rules[rule].name);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fprintf(stderr, "\n    rule: %s\n    from: %s\n", rules[rule].text, rules[rule].document);
    }
}

void too_many(const char *what, unsigned limit, const char *where)
{
    fprintf(stderr, "stand-in: more than %u %s: the rest would not be watched; raise %s\n", limit, what, where);
    _exit(86);
}

unsigned standin_findings(void)
{
    return total;
}

unsigned standin_found(enum standin_rule rule)
{
    return count[rule];
}

void standin_forgive(void)
{
    for (int i = 0; i < STANDIN_RULE_COUNT; i++)
        count[i] = 0;
    total = 0;
}

const char *standin_rule_name(enum standin_rule rule)
{
    return rules[rule].name;
}

const char *standin_rule_text(enum standin_rule rule)
{
    return rules[rule].text;
}

const char *standin_rule_document(enum standin_rule rule)
{
    return rules[rule].document;
}

__attribute__((destructor)) static void end(void)
{
    if (total > 0) {
        fprintf(stderr, "stand-in: %u findings that nobody forgave\n", total);
        _exit(86);
    }
}
