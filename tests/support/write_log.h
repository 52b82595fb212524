/*
 * Power cuts: records everything a program does to the files of one folder (writes, syncs, renames, stores into mapped files),
 * and makes from the record what the disk may hold after a cut at any moment. Linked with --wrap (tests/CMakeLists.txt).
 *
 * The disk that is simulated promises as little as POSIX does. A sector (512 bytes) written since the last sync of its file may
 * hold any of its versions since, whatever its neighbours hold: writes are torn and reordered. So may the file's length. Names made,
 * changed or removed since the last sync of the folder may be there or not, each by itself.
 */
#ifndef TRIAGE_TESTS_WRITE_LOG_H
#define TRIAGE_TESTS_WRITE_LOG_H

#include <stdint.h>

enum write_log_luck {
    WRITE_LOG_ALL,     /* everything reached the disk */
    WRITE_LOG_NOTHING, /* only what was synced */
    WRITE_LOG_CHANCE,  /* any part of it, drawn by seed */
};

void write_log_start(const char *folder);
void write_log_stop(void);

/* Looks for stores into mapped files; returns the number of the last event. */
int write_log_note(void);

/* Fills the empty `folder` with what is there after a cut behind this event; the recording is over. */
void write_log_cut(int event, enum write_log_luck luck, uint64_t seed, const char *folder);

#endif
