/* Looks after the parts of the control process on every turn of the loop and keeps the incidents (incidents.h). */
#ifndef TRIAGE_DAEMON_WATCH_H
#define TRIAGE_DAEMON_WATCH_H

struct daemon;

/*
 * At the start, with the state folder locked: notes in STATE/running that a run is on, and whether the one before ended by
 * itself. 0 or a code of file_write().
 */
int watch_start(struct daemon *daemon);
void watch_step(struct daemon *daemon);

/* The run ends by itself. */
void watch_stop(const struct daemon *daemon);

/* The champion's file may be damaged: then an earlier model takes its place. 0, or a code when none of them can. */
int watch_champion(struct daemon *daemon);

#endif
