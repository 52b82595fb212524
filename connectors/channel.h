/*
 * Messages between the daemon and its worker: whole bodies in both directions over a local socket, at most 8
 * MiB each. Not for the feed. What a body means is the caller's business.
 *
 * The daemon binds, the worker connects; a worker may die at any time and another one take its place. The
 * binding side talks to one peer: the one that connected last. A peer is known by the first message it sends,
 * so the worker speaks first. From then on nothing a former peer left behind is received, and nothing sent to
 * a former peer reaches the new one.
 *
 *   frames, worker -> daemon: [time of channel_connect, CLOCK_MONOTONIC ns, 8 bytes big-endian][body]
 *   frames, daemon -> worker: [body]
 */
#ifndef TRIAGE_CONNECTORS_CHANNEL_H
#define TRIAGE_CONNECTORS_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

#define CHANNEL_BYTES_MAX ((size_t)8 << 20)

struct channel;

/* ERROR_INPUT for an endpoint that is not local, ERROR_SYSTEM when it cannot be bound. */
int channel_bind(const char *endpoint, struct channel **ret_channel);
int channel_connect(const char *endpoint, struct channel **ret_channel);

/* Waits at most 500 ms for messages on their way; NULL is fine. */
void channel_close(struct channel *channel);

/*
 * Hands one body over, at once. ERROR_UNAVAILABLE when no peer has spoken yet or it is gone; ERROR_LIMIT when
 * 64 messages wait for it, or for more than CHANNEL_BYTES_MAX.
 */
int channel_send(struct channel *channel, const void *body, size_t length);

/*
 * Takes one body: 1 with *ret_length bytes in `buffer`; 0 when none came within `timeout_ms` (0 = only look)
 * or a signal arrived; ERROR_LIMIT when it does not fit into `size` bytes (it is lost); ERROR_INPUT when a
 * message is not one of ours (it is dropped, the channel goes on); ERROR_SYSTEM otherwise.
 */
int channel_receive(struct channel *channel, int timeout_ms, void *buffer, size_t size, size_t *ret_length);

/* For poll(): POLLIN while something may be waiting. */
int channel_descriptor(const struct channel *channel);

/* How many peers the binding side has known; 0 = none has spoken yet. Always 0 on the connecting side. */
uint64_t channel_generation(const struct channel *channel);

#endif
