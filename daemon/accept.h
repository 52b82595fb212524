/*
 * Accepting clients when no descriptor is left. The kernel goes on saying that somebody is at the door, so a loop that
 * cannot accept turns for nothing, and libzmq 4.3.4 ends the process on an ipc endpoint (ipc_listener.cpp asserts on EMFILE).
 *
 * accept.c therefore defines accept4() for the whole process, libzmq's threads included: it holds one spare descriptor back,
 * and when there is no other it gives that up for a moment, takes the client and closes it at once. The caller is told
 * ECONNABORTED, which all of them take as a client that has gone away; the client sees its connection end and comes back later.
 */
#ifndef TRIAGE_DAEMON_ACCEPT_H
#define TRIAGE_DAEMON_ACCEPT_H

/* Sets the spare descriptor aside; without it accept4() is the system's. ERROR_SYSTEM when there is none. */
int accept_keep_spare(void);

/* Clients that were turned away since the start. */
long accept_turned_away(void);

#endif
