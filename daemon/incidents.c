/* See incidents.h. */
#include "daemon/incidents.h"
#include "base/clock.h"
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

/* clang-format off */
static const struct {
    const char *name, *what, *advice;
} kinds[INCIDENT_KINDS] = {
    [INCIDENT_KILLED] = {"killed", "the run before did not end by itself",
        "nothing was lost; the kernel's log says whether memory ran out or power failed"},
    [INCIDENT_WORKER] = {"worker", "the worker ended and was started again",
        "its job was given again; if it happens often, the lines before its end in the log say why"},
    [INCIDENT_START] = {"worker-start", "the worker cannot start",
        "nothing is computed until it does; it is tried again every 10 s, and the log's line start-failed has all of it"},
    [INCIDENT_DATABASE] = {"database", "the database was away",
        "votes wait in the platform or the database and are applied when it is back; check the server and the network"},
    [INCIDENT_READ_ONLY] = {"read-only", "the database takes no writes",
        "votes wait; set default_transaction_read_only = off, or point database.url at the primary"},
    [INCIDENT_VOTES] = {"votes", "votes could not be applied",
        "they stay in triage.vote and are applied again; the words are the database's"},
    [INCIDENT_ROWS] = {"rows", "rows of the pool were damaged",
        "they were put aside and embedded again from the images; check the disk if it happens again"},
    [INCIDENT_MODEL] = {"model", "a model's file was damaged",
        "an earlier model serves; the damaged file has the ending .damaged; check the disk"},
    [INCIDENT_DISK] = {"disk", "hardly any disk space is left",
        "free space in the state folder: models and trunks cannot be written without it"},
    [INCIDENT_CLOCK] = {"clock", "the clock was set",
        "leases were moved with it; durations do not depend on it; check the time service if nobody did it"},
    [INCIDENT_DESCRIPTORS] = {"descriptors", "no file descriptor was left",
        "raise LimitNOFILE, or look for clients that do not close their connections"},
    [INCIDENT_MEMORY] = {"memory", "an allocation failed",
        "what was asked for was refused or is tried again; give the machine more memory"},
    [INCIDENT_PARTITIONS] = {"partitions", "no partitions are made for votes any more",
        "votes are taken all the same; move the rows of triage.vote_default in a quiet hour, as docs/database.md says"},
};
/* clang-format on */

static void begin(struct incident *incident, const char *format, va_list arguments)
{
    if (!incident->is_on) {
        incident->times++;
        incident->is_on = true;
        incident->began_ms = clock_boot_ms();
        incident->last_unix_ms = clock_unix_ms();
        if (incident->times == 1)
            incident->first_unix_ms = incident->last_unix_ms;
    }
    vsnprintf(incident->words, sizeof incident->words, format, arguments);
    text_make_printable(incident->words);
}

void incident_begin(struct incidents *incidents, enum incident_kind kind, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    begin(&incidents->kind[kind], format, arguments);
    va_end(arguments);
}

void incident_end(struct incidents *incidents, enum incident_kind kind)
{
    struct incident *incident = &incidents->kind[kind];
    if (!incident->is_on)
        return;
    incident->is_on = false;
    incident->lasted_ms = clock_boot_ms() - incident->began_ms;
    if (incident->lasted_ms > incident->longest_ms)
        incident->longest_ms = incident->lasted_ms;
}

void incident_note(struct incidents *incidents, enum incident_kind kind, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    begin(&incidents->kind[kind], format, arguments);
    va_end(arguments);
    incident_end(incidents, kind);
}

bool incidents_any(const struct incidents *incidents)
{
    for (int i = 0; i < INCIDENT_KINDS; i++)
        if (incidents->kind[i].is_on)
            return true;
    return false;
}

json_t *incidents_json(const struct incidents *incidents)
{
    json_t *list = json_array();
    for (int i = 0; i < INCIDENT_KINDS; i++) {
        const struct incident *incident = &incidents->kind[i];
        if (!incident->times)
            continue;
        int64_t lasted_ms = incident->is_on ? clock_boot_ms() - incident->began_ms : incident->lasted_ms;
        int64_t longest_ms = lasted_ms > incident->longest_ms ? lasted_ms : incident->longest_ms;
        json_array_append_new(list, json_pack("{s:s,s:s,s:I,s:b,s:I,s:I,s:f,s:f,s:s,s:s}", "kind", kinds[i].name,
                                              "what", kinds[i].what, "times", (json_int_t)incident->times, "over",
                                              !incident->is_on, "first_unix_ms", (json_int_t)incident->first_unix_ms,
                                              "last_unix_ms", (json_int_t)incident->last_unix_ms, "lasted_s",
                                              (double)lasted_ms / 1000, "longest_s", (double)longest_ms / 1000, "words",
                                              incident->words, "advice", kinds[i].advice));
    }
    return list;
}
