/* systemd's notification protocol (sd_notify(3)), without libsystemd: one datagram per message. */
#ifndef TRIAGE_DAEMON_NOTIFY_H
#define TRIAGE_DAEMON_NOTIFY_H

#include <stdint.h>

/* Sends the text ("READY=1\nSTATUS=...") to $NOTIFY_SOCKET; nothing happens where there is none. */
void notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* RELOADING=1 with MONOTONIC_USEC in the same datagram, as newer systemd versions demand. */
void notify_reloading(void);

/* Half of the watchdog interval systemd asked for, in milliseconds; 0 = no watchdog. */
int64_t notify_watchdog_ms(void);

#endif
