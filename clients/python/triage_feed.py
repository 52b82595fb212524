#!/usr/bin/python3
"""Follows the Galaxy Triage feed (docs/feed.md) and ends with exactly the daemon's queue.

As a program:
    triage_feed.py [--publish ENDPOINT] [--snapshot ENDPOINT] [--json] [--until-seq N] [--lose N]
prints the queue after every ranking; with --until-seq once, when everything up to N is applied.

As a module:
    feed = Feed("tcp://127.0.0.1:5571", "tcp://127.0.0.1:5572")
    while True:
        if feed.step(timeout_ms=1000) and feed.follower.is_live:
            for entry in feed.follower.ranked(): ...
Needs python3-zmq and python3-msgpack.
"""
import argparse
import contextlib
import json
import math
import re
import sys
import time

import msgpack
import zmq

VERSION, TOPIC = 1, b"queue"
BODY_BYTES_MAX, MESSAGES_PER_STEP = 2 << 20, 256
REPLY_TIMEOUT_S, SILENCE_S = 1.0, 5.0
LOCAL_ENDPOINT = r"ipc://.+|tcp://(127\.\d+\.\d+\.\d+|\[::1\]):\d+"
ENTRY_KEYS = {"id": str, "rank": int, "stream": str, "probability": float, "score": float, "total": float,
              "expected": float, "model": int, "leased_until_ms": int}


class FeedError(Exception):
    """A body that does not follow docs/feed.md."""


def check(condition, text):
    if not condition:
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
                                  max_array_len=32768, max_map_len=32768, max_ext_len=0)
    except Exception as problem:  # msgpack raises many kinds; all mean the same here
        raise FeedError(f"not MessagePack: {problem}") from None
    check(get(message, "v", int) == VERSION, "another version of the feed")
    kind = get(message, "kind", str)
    if kind != "error":
        get(message, "epoch", str)
        message["seq"] = get(message, "last_seq" if kind == "heartbeat" else "seq", int)
    return message


def entries_of(message):
    """The entries of an upsert or a snapshot as (id, entry), checked, known keys only."""
    return [(get(entry, "id", str), {key: get(entry, key, kind) for key, kind in ENTRY_KEYS.items()})
            for entry in get(message, "entries", list)]


class Follower:
    """Takes bodies in whatever order and number they arrive and says what to ask for. No sockets, no clock."""

    def __init__(self):
        self.state = "snapshot"  # what is wanted: "snapshot", "replay", or nothing: "live"
        self.queue = {}          # id -> entry, at position (epoch, seq)
        self.epoch, self.seq, self.former_epoch = "", 0, None
        self.cycle = self.model = self.rankings = 0
        self.incoming, self.incoming_at = {}, None
        self.counters = dict.fromkeys(("messages", "gaps", "replays", "snapshots", "malformed"), 0)

    @property
    def is_live(self):
        return self.state == "live"

    def ranked(self):
        return sorted(self.queue.values(), key=lambda one: (one["rank"], one["id"].encode(errors="surrogateescape")))

    def request(self):
        """The request to send now, or None."""
        if self.state == "snapshot":
            return {"v": VERSION, "kind": "snapshot", "from": len(self.incoming)}
        replay = {"v": VERSION, "kind": "replay", "epoch": self.epoch, "from_seq": self.seq + 1}
        return replay if self.state == "replay" else None

    def doubt(self):
        """Nothing was heard for long: ask whether something was missed."""
        if self.is_live:
            self.state = "replay"

    def take(self, body, is_reply):
        """A body of the topic, or a reply (late or repeated too); True if the queue or the position changed."""
        try:
            return (self._on_reply if is_reply else self._on_message)(decode(body))
        except FeedError:
            self.counters["malformed"] += 1
            return False

    def _want_snapshot(self):
        self.state = "snapshot"
        self.incoming, self.incoming_at = {}, None
        return False

    def _apply(self, message):
        kind = message["kind"]
        if kind == "upsert":
            self.queue.update(entries_of(message))  # all are checked before any is applied
        elif kind == "retract":
            for name in [get(entry, "id", str) for entry in get(message, "entries", list)]:
                self.queue.pop(name, None)
        elif kind == "rerank":
            self.cycle, self.model = get(message, "cycle", int), get(message, "model", int)
            self.rankings += 1
        self.seq = message["seq"]
        self.counters["messages"] += 1
        return True

    def _on_message(self, message):
        if not self.is_live or message["kind"] == "error":
            return False
        if message["epoch"] != self.epoch:
            return False if message["epoch"] == self.former_epoch else self._want_snapshot()
        if message["kind"] == "heartbeat" and message["seq"] == self.seq:
            return False if get(message, "length", int) == len(self.queue) else self._want_snapshot()
        if message["seq"] <= self.seq:
            return False
        if message["kind"] != "heartbeat" and message["seq"] == self.seq + 1:
            return self._apply(message)
        self.counters["gaps"] += 1
        self.state = "replay"
        return False

    def _on_reply(self, message):
        if self.state == "snapshot" and message["kind"] == "snapshot":
            return self._on_snapshot(message)
        if self.state == "replay" and message["kind"] in ("too_old", "replay"):
            if message["kind"] == "too_old" or message["epoch"] != self.epoch:
                return self._want_snapshot()
            return self._on_replay(message)
        return False

    def _on_snapshot(self, message):
        at, start, entries = (message["epoch"], message["seq"]), get(message, "from", int), entries_of(message)
        if start and self.incoming_at and self.incoming_at != at:
            return self._want_snapshot()  # the queue changed between two chunks
        if start != len(self.incoming):
            return False  # the answer to an earlier request
        length, cycle, model = (get(message, key, int) for key in ("length", "cycle", "model"))
        self.incoming_at = at
        self.incoming.update(entries)
        if len(self.incoming) < length:
            if not entries or len(self.incoming) != start + len(entries):
                self._want_snapshot()
            return False
        self.former_epoch = self.epoch if self.epoch != at[0] else self.former_epoch
        self.queue, (self.epoch, self.seq), self.cycle, self.model = self.incoming, at, cycle, model
        self.incoming, self.incoming_at, self.state = {}, None, "live"
        self.rankings += 1
        self.counters["snapshots"] += 1
        return True

    def _on_replay(self, message):
        bodies = get(message, "messages", list)
        if get(message, "from_seq", int) != self.seq + 1:
            return False  # the answer to an earlier request
        for body in bodies:
            try:
                check(type(body) is bytes, "a replayed message is binary")
                missed = decode(body)
                check(missed["kind"] not in ("error", "heartbeat"), "not a message of the topic")
                check((missed["epoch"], missed["seq"]) == (self.epoch, self.seq + 1), "not the next message")
                self._apply(missed)
            except FeedError:
                self.counters["malformed"] += 1
                return self._want_snapshot()
        self.counters["replays"] += 1
        if self.seq >= message["seq"]:
            self.state = "live"
        elif not bodies:
            self._want_snapshot()
        return bool(bodies)


class Feed:
    """Sockets and a clock around a Follower."""
    def __init__(self, publish, snapshot):
        for endpoint in (publish, snapshot):
            if not re.fullmatch(LOCAL_ENDPOINT, endpoint):
                raise ValueError(f"{endpoint} is not on this machine, and the traffic is not encrypted")
        self.follower = Follower()
        self.to_lose = 0  # pretend that so many messages of the topic never arrive
        self._asked, self._asked_at = None, 0.0
        self._heard_at = time.monotonic()
        self._context = zmq.Context()
        self._topic = self._socket(zmq.SUB, publish)  # first: what happens during the snapshot waits here
        self._topic.subscribe(TOPIC)
        self._requests = self._socket(zmq.DEALER, snapshot)

    def _socket(self, kind, endpoint):
        socket = self._context.socket(kind)
        socket.linger, socket.maxmsgsize = 0, BODY_BYTES_MAX
        socket.rcvhwm, socket.sndhwm = 2000, 4
        socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 2000
        socket.ipv6 = "[" in endpoint
        socket.connect(endpoint)
        return socket

    def close(self):
        self._context.destroy(linger=0)

    def _ask(self):
        now, wanted = time.monotonic(), self.follower.request()
        if wanted is None and now - self._heard_at > SILENCE_S:
            self._heard_at = now
            self.follower.doubt()  # asked at the next step
        if wanted and (wanted != self._asked or now - self._asked_at >= REPLY_TIMEOUT_S):
            self._asked_at = now
            with contextlib.suppress(zmq.Again):  # the publisher is away, and requests to it wait already
                self._requests.send(msgpack.packb(wanted), zmq.NOBLOCK)
        self._asked = wanted

    def _take(self, socket):
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        self._heard_at = time.monotonic()
        return frames

    def step(self, timeout_ms):
        """Waits for something to arrive and handles it; True if the queue or the position changed."""
        self._ask()
        sockets = [self._requests] + ([self._topic] if self.follower.is_live else [])
        zmq.select(sockets, [], [], timeout_ms / 1000)
        changed = False
        while (frames := self._take(self._requests)) is not None:
            changed |= len(frames) == 1 and self.follower.take(frames[0], is_reply=True)
            self._ask()
        for _ in range(MESSAGES_PER_STEP):
            if not self.follower.is_live or (frames := self._take(self._topic)) is None:
                break  # while something is missing, the topic waits
            if self.to_lose:
                self.to_lose -= 1
            elif len(frames) == 2 and frames[0] == TOPIC:
                changed |= self.follower.take(frames[1], is_reply=False)
        self._ask()
        return changed


def show(follower, as_json):
    head = {key: getattr(follower, key) for key in ("epoch", "seq", "cycle", "model", "counters")}
    if as_json:
        print(json.dumps({**head, "entries": follower.ranked()}), flush=True)
        return
    print("# epoch {epoch} seq {seq} cycle {cycle} model {model}".format(**head))
    for entry in follower.ranked():
        print("{rank:6d} {stream:7s} {score:.6f} {id}".format(**entry), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Follow the Galaxy Triage feed and print the queue.")
    parser.add_argument("--publish", default="tcp://127.0.0.1:5571", metavar="ENDPOINT")
    parser.add_argument("--snapshot", default="tcp://127.0.0.1:5572", metavar="ENDPOINT")
    parser.add_argument("--json", action="store_true", help="one JSON object per queue")
    parser.add_argument("--until-seq", type=int, metavar="N", help="print once, when message N is applied, and end")
    parser.add_argument("--lose", type=int, default=0, metavar="N", help="pretend the next N messages never arrive")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="surrogateescape")
    try:
        feed = Feed(options.publish, options.snapshot)
    except ValueError as problem:
        parser.error(str(problem))
    feed.to_lose, follower, shown = options.lose, feed.follower, 0
    while not (options.until_seq is not None and follower.is_live and follower.seq >= options.until_seq):
        feed.step(timeout_ms=200)
        if options.until_seq is None and follower.is_live and follower.rankings > shown:
            shown = follower.rankings
            show(follower, options.json)
    show(follower, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
