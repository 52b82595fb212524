#!/usr/bin/python3
"""Follows the Galaxy Triage feed (docs/feed.md) and ends with exactly the daemon's queue.

As a program:
    triage_feed.py [--publish ENDPOINT] [--snapshot ENDPOINT] [--key FILE] [--name NAME] [--until-seq N] [--lose N]
prints the queue after every ranking as one line of JSON; with --until-seq once, when everything up to N is applied.

As a module: feed = Feed("tcp://127.0.0.1:5571", "tcp://127.0.0.1:5572", "platform.key", "platform"), and again and again
    if feed.step(timeout_ms=1000) and feed.follower.is_live: use(feed.follower.ranked())
The key file is made by `triagectl keys new`; without one the daemon must publish unencrypted, on this machine.
"""
import argparse
import contextlib
import json
import math
import os
import re
import struct
import time
import zlib

import msgpack  # python3-msgpack
import zmq  # python3-zmq

VERSION, TOPIC, STREAMS = 1, b"queue", ("active", "random", "pinned")
BODY_BYTES_MAX, MESSAGES_PER_STEP = 2 << 20, 256
REPLY_TIMEOUT_S, SILENCE_S, ACK_S = 1.0, 5.0, 2.0
LOCAL_ENDPOINT = r"ipc://.+|tcp://(127\.\d+\.\d+\.\d+|\[::1\]):\d+"
ENTRY_KEYS = {"id": str, "rank": int, "stream": str, "probability": float, "score": float, "total": float,
              "expected": float, "model": int, "leased_until_ms": int}


class FeedError(Exception):
    """A body that does not follow docs/feed.md."""


def check(holds, text):
    if not holds:
        raise FeedError(text)


def get(body, key, kind):
    """The value of a key, of this type."""
    check(isinstance(body, dict) and key in body, f"key '{key}' is missing")
    value = body[key]
    if kind is float and type(value) is int:
        value = float(value)
    check(type(value) is kind, f"key '{key}' must be of type {kind.__name__}")
    check(kind is not float or math.isfinite(value), f"key '{key}' is not finite")
    return value


def decode(body):
    """Bytes to a dict with v, kind and, but for errors, epoch and seq (of a heartbeat: its last_seq)."""
    check(len(body) <= BODY_BYTES_MAX, "body is too long")
    try:
        message = msgpack.unpackb(body, raw=False, unicode_errors="surrogateescape", strict_map_key=True,
                                  max_array_len=65536, max_map_len=65536, max_ext_len=0)
    except Exception as problem:  # msgpack raises many kinds; all mean the same here
        raise FeedError(f"not MessagePack: {problem}") from None
    check(get(message, "v", int) == VERSION, "another version of the feed")
    kind = get(message, "kind", str)
    if kind != "error":
        get(message, "epoch", str)
        message["seq"] = get(message, "last_seq" if kind == "heartbeat" else "seq", int)
    return message


def entries_of(message):
    """The entries of an upsert or a snapshot, checked, known keys only, with what each adds to the checksum."""
    entries = [{key: get(entry, key, kind) for key, kind in ENTRY_KEYS.items()} for entry in get(message, "entries", list)]
    for entry in entries:
        name, rank, stream, *numbers = entry.values()
        check(stream in STREAMS and name, "an entry has no id or an unknown stream")
        try:
            packed = struct.pack("<IBdfffIq", rank, STREAMS.index(stream), *numbers)
        except (struct.error, OverflowError) as problem:
            raise FeedError(f"a number of {name} is too large: {problem}") from None
        entry["sum"] = zlib.crc32(packed + name.encode(errors="surrogateescape")) ** 2
    return entries


class Follower:
    """Takes bodies in whatever order and number they arrive and says what to ask for. No sockets."""
    def __init__(self):
        self.queue, self.checksum = {}, 0  # id -> entry, at position (epoch, seq) while live
        self.epoch, self.seq, self.former_epoch, self.floor_seq = "", 0, None, 0  # a replay must follow up to the floor
        self.cycle = self.model = self.rankings = self.number = 0  # number: of the request to make
        self.counters = dict.fromkeys(("messages", "gaps", "replays", "snapshots", "malformed"), 0)
        self.wants("snapshot")  # or "replay", or nothing: "live"

    @property
    def is_live(self):
        return self.want == "live"

    def ranked(self):
        return [{key: one[key] for key in ENTRY_KEYS} for one in sorted(
            self.queue.values(), key=lambda one: (one["rank"], one["id"].encode(errors="surrogateescape")))]

    def request(self):
        """The request to send now, or None."""
        what = {"from": self.cursor} if self.want == "snapshot" else {"epoch": self.epoch, "from_seq": self.seq + 1}
        return None if self.is_live else {"v": VERSION, "kind": self.want, "request": self.number, **what}

    def take(self, body, is_reply):
        """A body of the topic, or a reply (late or repeated too); True if the queue or the position changed."""
        try:
            message = decode(body)
            on_kind = self._on_reply if is_reply else self._on_message
            return message["kind"] != "error" and on_kind(message)
        except FeedError:
            self.counters["malformed"] += 1
            return False

    def wants(self, what, cursor=0):
        self.want, self.cursor = what, cursor  # the next chunk of a snapshot
        self.number += 1  # a new one for all that is new
        self.heard_at = time.monotonic()
        return False

    def _change(self, remove, put):
        for name in remove + [entry["id"] for entry in put]:
            self.checksum -= self.queue.pop(name, {"sum": 0})["sum"]
        self.queue.update((entry["id"], entry) for entry in put)
        self.checksum = (self.checksum + sum(entry["sum"] for entry in put)) % (1 << 64)

    def _is_whole(self, message):
        """Whether our queue is what the daemon says its own is at the same position, where that can be compared."""
        is_same = (get(message, "length", int), get(message, "checksum", int)) == (len(self.queue), self.checksum)
        return is_same or message["seq"] < self.floor_seq  # until there chunks of the snapshot are newer

    def _apply(self, message):
        if message["kind"] == "upsert":
            self._change([], entries_of(message))  # all are checked before any is applied
        elif message["kind"] == "retract":
            self._change([get(entry, "id", str) for entry in get(message, "entries", list)], [])
        elif message["kind"] == "rerank":
            self.cycle, self.model = get(message, "cycle", int), get(message, "model", int)
            self.rankings += 1
            self.wants("live" if self._is_whole(message) else "snapshot")
        self.seq = message["seq"]
        self.counters["messages"] += 1
        self.heard_at = time.monotonic()  # what is ignored does not count: it may be left from another epoch
        return True

    def _on_message(self, message):
        is_heartbeat = message["kind"] == "heartbeat"
        if not self.is_live or message["kind"] in ("snapshot", "replay", "too_old", "subscribers"):
            return False
        if message["epoch"] != self.epoch:  # the daemon was restarted, or this is from before that
            return False if message["epoch"] == self.former_epoch else self.wants("snapshot")
        if is_heartbeat and message["seq"] == self.seq:
            return self.wants("live" if self._is_whole(message) else "snapshot")
        if message["seq"] <= self.seq or (not is_heartbeat and message["seq"] == self.seq + 1):
            return message["seq"] > self.seq and self._apply(message)
        self.counters["gaps"] += 1  # if the last messages were lost, only the heartbeat tells
        return self.wants("replay")

    def _on_reply(self, message):
        if message.get("request") != self.number:
            return False  # the answer to an earlier request, perhaps from before a restart
        if self.want == "snapshot":
            return message["kind"] == "snapshot" and self._on_snapshot(message)
        is_ours = message["kind"] == "replay" and message["epoch"] == self.epoch
        return self._on_replay(message) if is_ours else self.wants("snapshot")

    def _on_snapshot(self, message):
        start, following, entries = get(message, "from", int), get(message, "next", int), entries_of(message)
        cycle, model = get(message, "cycle", int), get(message, "model", int)
        if start != self.cursor:
            return False  # not what was asked for: a faulty daemon, asked again after the timeout
        if start and message["epoch"] != self.epoch:
            return self.wants("snapshot")
        if not start:
            self.former_epoch = self.epoch if self.epoch != message["epoch"] else self.former_epoch
            self.epoch, self.seq, self.floor_seq = message["epoch"], message["seq"], message["seq"]
            self.queue, self.checksum = {}, 0
        self._change([], entries)
        self.floor_seq = max(self.floor_seq, message["seq"])
        self.cycle, self.model = cycle, model
        self.counters["snapshots"] += following == 0
        return self.wants("snapshot" if following else "replay", following)

    def _on_replay(self, message):
        bodies, start = get(message, "messages", list), get(message, "from_seq", int)
        if start != self.seq + 1:
            return False  # a faulty daemon
        for seq, body in enumerate(bodies, start):  # as if they came on the topic
            self.wants("live")
            if type(body) is bytes:
                self.take(body, is_reply=False)
            if not self.is_live or self.seq != seq:
                return self.wants("snapshot")
        self.counters["replays"] += bool(bodies)
        is_enough = self.seq >= message["seq"] and self.seq >= self.floor_seq
        is_wrong = not self._is_whole(message) if self.seq == message["seq"] else self.seq < message["seq"] and not bodies
        self.wants("snapshot" if is_wrong else "live" if is_enough else "replay")
        self.rankings += is_enough
        return is_enough


class Feed:
    """Sockets and a clock around a Follower."""
    def __init__(self, publish, snapshot, key_file=None, name="Python"):
        self.follower, self.name, self.key = Follower(), name, None
        if key_file:
            if os.stat(key_file).st_mode & 0o077:
                raise ValueError(f"{key_file} holds a secret and others can read it: chmod 0600")
            with open(key_file, encoding="ascii") as file:
                self.key = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line and line[0] != "#")
            if any(len(self.key.get(part, "")) != 40 for part in ("public", "secret", "server")):
                raise ValueError(f"{key_file} is not a key file of `triagectl keys new`")
        for endpoint in (publish, snapshot):
            if not self.key and not re.fullmatch(LOCAL_ENDPOINT, endpoint):
                raise ValueError(f"{endpoint} is not on this machine, and without a key the traffic is not encrypted")
        self.to_lose = 0  # pretend that so many messages of the topic never arrive
        self._asked, self._asked_at, self._acked_at = None, 0.0, 0.0
        self._context = zmq.Context()
        self._topic = self._socket(zmq.SUB, publish)  # first: what happens during the snapshot waits here
        self._topic.subscribe(TOPIC)
        self._requests = self._socket(zmq.DEALER, snapshot)

    def _socket(self, kind, endpoint):
        socket = self._context.socket(kind)
        socket.linger, socket.maxmsgsize, socket.rcvhwm, socket.sndhwm = 0, BODY_BYTES_MAX, 1000, 4
        socket.reconnect_ivl, socket.reconnect_ivl_max, socket.ipv6 = 50, 2000, "[" in endpoint
        if self.key:
            socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = (
                self.key[part].encode() for part in ("public", "secret", "server"))
        socket.connect(endpoint)
        return socket

    def close(self):
        self._context.destroy(linger=0)

    def _speak(self):
        """Asks for what is missing: at once if that is new, again after the timeout. Tells how far we are."""
        now, follower = time.monotonic(), self.follower
        if follower.is_live and now - follower.heard_at > SILENCE_S:
            follower.wants("replay")  # was something missed?
        wanted, bodies = follower.request(), []
        if wanted and (wanted != self._asked or now - self._asked_at >= REPLY_TIMEOUT_S):
            self._asked_at = now
            bodies.append(wanted)
        self._asked = wanted
        if follower.is_live and now - self._acked_at >= ACK_S:
            self._acked_at = now
            bodies.append({"v": VERSION, "kind": "ack", "name": self.name, "epoch": follower.epoch, "seq": follower.seq,
                           **follower.counters})
        with contextlib.suppress(zmq.Again):  # the daemon is away, and requests to it wait already
            for body in bodies:
                self._requests.send(msgpack.packb(body), zmq.NOBLOCK)

    def _take(self, socket):
        with contextlib.suppress(zmq.Again):
            return socket.recv_multipart(zmq.NOBLOCK)

    def step(self, timeout_ms):
        """Waits for something to arrive and handles it; True if the queue or the position changed."""
        self._speak()
        zmq.select([self._requests] + ([self._topic] if self.follower.is_live else []), [], [], timeout_ms / 1000)
        changed = False
        for _ in range(MESSAGES_PER_STEP):
            if (frames := self._take(self._requests)) is not None:
                changed |= len(frames) == 1 and self.follower.take(frames[0], is_reply=True)
            elif not self.follower.is_live or (frames := self._take(self._topic)) is None:
                break  # while something is missing, the topic waits
            elif self.to_lose:
                self.to_lose -= 1
            elif frames[0] == TOPIC:
                changed |= self.follower.take(frames[1] if len(frames) == 2 else b"", is_reply=False)
            self._speak()
        return changed


def main():
    parser = argparse.ArgumentParser(description="Follow the Galaxy Triage feed and print the queue, one line of JSON each.")
    parser.add_argument("--publish", default="tcp://127.0.0.1:5571", metavar="ENDPOINT")
    parser.add_argument("--snapshot", default="tcp://127.0.0.1:5572", metavar="ENDPOINT")
    parser.add_argument("--key", metavar="FILE", help="key file, for a feed that is encrypted")
    parser.add_argument("--name", default="Python", help="how the daemon calls this subscriber")
    parser.add_argument("--until-seq", type=int, metavar="N", help="print once, when message N is applied, and end")
    parser.add_argument("--lose", type=int, default=0, metavar="N", help="pretend the next N messages never arrive")
    options = parser.parse_args()
    try:
        feed = Feed(options.publish, options.snapshot, options.key, options.name)
    except (ValueError, OSError) as problem:
        parser.error(str(problem))
    feed.to_lose, follower, shown = options.lose, feed.follower, 0
    while not shown or options.until_seq is None:
        feed.step(timeout_ms=200)
        is_new = follower.rankings > shown if options.until_seq is None else follower.seq >= options.until_seq
        if follower.is_live and is_new:
            shown = follower.rankings
            head = {key: getattr(follower, key) for key in ("epoch", "seq", "cycle", "model", "counters")}
            print(json.dumps({**head, "entries": follower.ranked()}), flush=True)


if __name__ == "__main__":
    main()
