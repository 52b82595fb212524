"""The Python client at the end of two pipes, for tests/e2e/feed_schedules.c: reads descriptor 3, writes descriptor 4."""
import struct
import sys

sys.path.insert(0, sys.argv[1])
import msgpack  # noqa: E402
import triage_feed  # noqa: E402

source, sink = open(3, "rb"), open(4, "wb")
follower = None


def view():
    counters = [follower.counters[key] for key in ("gaps", "replays", "snapshots", "malformed")]
    answer = struct.pack("<B32sQQQQQ", follower.is_live, follower.epoch.encode(), follower.seq, *counters)
    if follower.is_live:
        for name, rank, stream, *numbers in (entry.values() for entry in follower.ranked()):
            packed = struct.pack("<IBdfffIq", rank, triage_feed.STREAMS.index(stream), *numbers)
            packed += name.encode(errors="surrogateescape")
            answer += bytes([len(packed)]) + packed
    return answer


def answer(body):
    sink.write(struct.pack("<I", len(body)) + body)
    sink.flush()


while len(head := source.read(5)) == 5:
    letter, length = struct.unpack("<cI", head)
    body = source.read(length)
    if letter == b"N":
        follower = triage_feed.Follower()
    elif letter == b"T":
        follower.take(body, is_reply=False)
    elif letter == b"R":
        follower.take(body, is_reply=True)
    elif letter == b"Q":
        wanted = follower.request()
        answer(msgpack.packb(wanted) if wanted else b"")
    else:
        answer(view())
