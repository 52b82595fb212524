"""Refuses the control process its n-th allocation for n = FIRST, FIRST + STRIDE, ...: while it answers a question, while it takes
votes and goes through a cycle, or while it starts. A start either fails in words or serves; what runs goes on, and all totals agree.

usage: short_of_memory.py BUILD FOLDER NAME answers|cycle|start FIRST STRIDE    FOLDER holds NAME.conf"""
import mmap
import pathlib
import struct
import sys

from service import Failure, Service, wait_until


class Short(Service):
    def __init__(self, build, folder, name, seed):
        super().__init__(build, folder, name, seed)
        path = self.folder / f"{name}.steering"
        path.write_bytes(bytes(4096))
        self.file = open(path, "r+b")
        self.page = mmap.mmap(self.file.fileno(), 4096)
        self.environment |= {"TRIAGE_SHORT_OF_MEMORY": str(path), "TRIAGE_CLOCK_SPEED": "20"}  # what is tried again is soon

    def start(self):
        self.process = self.run("tests/triaged_short_of_memory", "run", "--config", self.folder / f"{self.name}.conf")

    def fail(self, n):
        self.page[0:24] = struct.pack("<3q", n, 0, 0)

    def calls(self):
        return struct.unpack("<q", self.page[8:16])[0]

    def failed(self):
        return struct.unpack("<q", self.page[16:24])[0]


EXITS = {65, 69, 70, 74}  # of triaged(8); with 78 systemd would not start it again; 1 is a sanitizer's


def starts(service, first, stride):
    """Every start ends in words or serves."""
    n, refused, served = first, 0, 0
    while True:
        at = service.log.tell()
        service.fail(n)
        service.start()
        wait_until("ready or ended", lambda: service.died() or service.status().get("ready"))
        reached = service.failed()
        if service.died():
            code = service.process.returncode
            service.process = None
            said = pathlib.Path(service.log.name).read_bytes()[at:].decode(errors="replace")
            if code not in EXITS or not ("error: " in said or said.startswith("triaged: ")):
                raise Failure(f"refused allocation {n}, a start ended with {code} and said: {said[-2000:]}")
            refused += 1
        else:
            service.fail(0)
            service.stop()
            served += 1
        if not reached:
            return refused, served - 1
        n += stride


def answers(service, verb):
    """Every question is answered, refused, or its connection ended; and the next one is answered."""
    n = 1
    while True:
        service.fail(n)
        service.ask(verb)
        reached = service.failed()
        service.fail(0)
        if service.died() or not (service.ask(verb) or {}).get("ok"):
            raise Failure(f"refused allocation {n} of {verb}, the daemon ended or is silent")
        if not reached:
            return n - 1
        n += 1


def cycles(service, first, stride):
    """Votes are applied and lead to a cycle that ends, whatever was refused on the way; how often something was."""
    n = first
    while True:
        votes = service.batch(2)
        before = wait_until("settled", service.is_settled)["cycle"]["number"]
        service.fail(n)
        service.vote(votes)
        wait_until("an allocation is refused, or the end of it", lambda: service.died() or service.failed() or service.is_settled())
        reached = service.failed()
        service.fail(0)
        wait_until(f"refused allocation {n} of a cycle, the votes led to one that ends",
                   lambda: service.died() or (service.is_settled() or {"cycle": {"number": 0}})["cycle"]["number"] > before)
        if service.died():
            raise Failure(f"refused allocation {n} of a cycle, the daemon ended with {service.process.returncode}")
        if not reached:
            return (n - first) // stride
        n += stride


def main():
    build, folder, name, task = sys.argv[1:5]
    first, stride = map(int, sys.argv[5:7])
    service = Short(build, folder, name, seed=20261127)
    try:
        service.start()
        wait_until("a first queue", lambda: service.status().get("queue_length"))
        service.learn()
        service.vote(service.batch(40))
        wait_until("settled", service.is_settled)
        if task == "answers":
            for verb in ("status", "doctor", "queue", "votes", "models"):
                print(f"{verb}: each of {answers(service, verb)} allocations was refused once", flush=True)
            wait_until("the doctor says memory", lambda: service.incident("memory").get("over"))
        elif task == "cycle":
            print(f"a cycle: {cycles(service, first, stride)} allocations, every {stride}. from {first}, were refused once", flush=True)
        else:
            service.stop()
            refused, served = starts(service, first, stride)
            print(f"a start: {refused + served} allocations, every {stride}. from {first}, were refused once: {refused} starts ended in "
                  f"words, {served} served", flush=True)
            service.fail(0)
            service.start()
        print(f"afterwards: {service.compare()} votes")
        service.stop()
    finally:
        service.kill()


try:
    main()
except Failure as failure:
    print(f"FAILED: {failure}", file=sys.stderr)
    sys.exit(1)
