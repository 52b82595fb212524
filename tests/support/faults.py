"""Injects what goes wrong around a service and compares all totals after each: its database restarted, read-only, cut off
without a word; the clock set; file descriptors exhausted; rows of the pool and models damaged. Recovery times are printed.

usage: faults.py BUILD FOLDER [NAME ...]    FOLDER holds a.conf (whose daemon keeps the server) and b.conf (under test)"""
import os
import pathlib
import re
import resource
import selectors
import signal
import socket
import sys
import threading
import time

import psycopg2

from service import HEADER_BYTES, Failure, Service, wait_until

PIXEL_BYTES = 32 * 32  # of a galaxy of these tests


class Proxy:
    """Between a daemon and its server on Unix sockets. Cut, it reads nothing and says nothing: both sides see an open
    connection. deaf: the same for connections made from now on."""

    def __init__(self, folder, target):
        self.target, self.cut, self.deaf, self.running = target, False, False, True
        self.pairs = []  # (near, far, cut)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(pathlib.Path(folder, ".s.PGSQL.5432")))
        self.listener.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while self.running:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.forward, args=(near,), daemon=True).start()

    def forward(self, near):
        far, pair = socket.socket(socket.AF_UNIX), {"cut": False}
        self.pairs.append(pair)
        while self.deaf:
            time.sleep(0.01)
        try:
            far.connect(str(self.target))
            watched = selectors.DefaultSelector()
            watched.register(near, selectors.EVENT_READ, far)
            watched.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in watched.select(0.05):
                    while pair["cut"] or self.deaf:
                        time.sleep(0.01)
                        if pair["cut"] and not self.running:
                            return
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    key.data.sendall(data)
        except OSError:
            pass
        finally:
            near.close()
            far.close()

    def cut_all(self):
        for pair in self.pairs:
            pair["cut"] = True


class Faults:
    def __init__(self, server, service, proxy):
        self.server, self.service, self.proxy = server, service, proxy

    # --- what every fault does ---

    def vote(self):
        self.service.vote(wait_until("the database answers volunteers", self.batch))

    def batch(self):
        try:
            return self.service.batch()
        except psycopg2.Error:
            return None

    def serving_after(self, what, since):
        wait_until(f"serving again after {what}", self.service.is_serving)
        print(f"{what:42} serving after {time.monotonic() - since:5.2f} s, {self.service.compare()} votes", flush=True)

    def doctor_says(self, kind, over, words=""):
        """The doctor names it; while it goes on, triagectl's exit code is 2."""
        incident = wait_until(f"the doctor says {kind}, {'over' if over else 'going on'}", lambda: self.matching(kind, over))
        if not re.search(words, incident["words"]):
            raise Failure(f"the doctor says of {kind}: {incident['words']}")
        for json_flag in ([], ["--json"]):
            said = self.service.tool("triagectl", "--state", self.service.state, *json_flag, "doctor")
            if kind in said.stdout and not over and said.returncode != 2 and not self.matching(kind, over):
                return  # it was over before it could be said
            if kind not in said.stdout or (not over and said.returncode != 2):
                raise Failure(f"triagectl doctor ended with {said.returncode}: {said.stdout}")

    def matching(self, kind, over):
        incident = self.service.incident(kind)
        return incident if incident.get("over") is over else None

    # --- the database ---

    def database_restarted(self):
        since = time.monotonic()
        os.kill(int((self.server.state / "postgres/data/postmaster.pid").read_text().split()[0]), signal.SIGINT)
        self.doctor_says("database", False)
        self.vote()
        self.serving_after("database restarted", since)
        self.doctor_says("database", True)

    def database_read_only(self):
        def switch(state):
            self.service.query("SET default_transaction_read_only = off", then=[
                f"ALTER SYSTEM SET default_transaction_read_only = {state}", "SELECT pg_reload_conf()"])
        switch("on")
        self.doctor_says("read-only", False)
        self.vote()
        if self.service.votes_left() <= 0:
            raise Failure("votes were applied to a database that takes no writes")
        since = time.monotonic()
        switch("off")
        self.serving_after("database read-only, then not", since)
        self.doctor_says("read-only", True)

    def connection_cut(self):
        since = time.monotonic()
        self.proxy.cut_all()
        self.vote()
        self.serving_after("connection cut without a word", since)
        self.doctor_says("database", True, "cut without a word|no answer")

    def network_gone(self):
        self.proxy.deaf = True
        self.vote()
        self.doctor_says("database", False)
        since = time.monotonic()
        self.proxy.deaf = False
        self.serving_after("network gone, then back", since)
        self.doctor_says("database", True)

    # --- the machine ---

    def leases_s(self):
        """{galaxy: seconds left}, by the clock the daemon sees."""
        clock = self.service.faults / "clock"
        now_ms = time.time() * 1000 + (int(clock.read_text()) if clock.exists() else 0)
        return {entry["id"]: (entry["leased_until_ms"] - now_ms) / 1000 for entry in self.service.ask("queue")["entries"]}

    def clock_set(self, seconds, words):
        before = self.leases_s()
        clock = self.service.faults / "clock"
        wrong_ms = (int(clock.read_text()) if clock.exists() else 0) + seconds * 1000
        since = time.monotonic()
        (self.service.faults / "clock.new").write_text(str(wrong_ms))
        (self.service.faults / "clock.new").rename(clock)
        self.doctor_says("clock", True, words)
        self.vote()
        self.serving_after(f"clock {words.replace('.*', ' ')} s", since)
        after = self.leases_s()
        if not set(before) & set(after):
            raise Failure("nothing that was on offer still is")
        for galaxy in set(before) & set(after):
            if not 0 <= before[galaxy] - after[galaxy] < 600:
                raise Failure(f"the lease of {galaxy} went from {before[galaxy]:.0f} to {after[galaxy]:.0f} s")

    def clock_forward(self):
        self.clock_set(7200, "forward.*7200")

    def clock_back(self):
        self.clock_set(-14400, "back.*14400")

    def descriptors_exhausted(self):
        pid = self.service.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        since = time.monotonic()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
        crowd = []
        while len(os.listdir(f"/proc/{pid}/fd")) < highest + 1 and len(crowd) < 64:
            crowd.append(socket.socket(socket.AF_UNIX))
            crowd[-1].connect(str(self.service.state / "run/admin.sock"))
            time.sleep(0.02)
        before, time_s = self.processor_s(pid), time.monotonic()
        self.vote()
        wait_until("votes are applied without a descriptor", lambda: self.service.votes_left() == 0)
        ends = [f"ipc://{self.service.folder}/{self.service.name}.{end}" for end in ("publish", "snapshot")]
        self.service.tool("triage-sim", "queue", "--publish", ends[0], "--snapshot", ends[1], "--timeout", "2")  # in vain
        if self.processor_s(pid) - before > 0.7 * (time.monotonic() - time_s):  # one of its threads would take all there is
            raise Failure("a thread spins while no descriptor is left")
        self.service.expect("the daemon died", self.service.died(), False)
        for connection in crowd:
            connection.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        self.serving_after("file descriptors exhausted", since)
        self.doctor_says("descriptors", True, "turned away")

    def processor_s(self, pid):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # --- damaged files ---

    def damage(self, path, offset):
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 0x40]))

    def row_damaged(self):
        """Three rows: found before they are used, made again from the image, bit for bit what they were."""
        odd = self.service.status()["trunk"] % 2
        name, bytes_of_row = "embedding" if odd else "embedding-even", 2 * 1280
        before, since = self.service.column(name, bytes_of_row), time.monotonic()
        for row in (2, 3, 17):
            self.damage(self.service.state / "pool" / f"{name}.column", HEADER_BYTES + row * bytes_of_row + 700 + row)
        if self.service.column(name, bytes_of_row) == before:
            raise Failure("this test damages nothing")
        self.vote()
        self.doctor_says("rows", True, "3 rows")
        self.serving_after("rows of the pool damaged", since)
        self.service.expect("rows that differ", [row for row, (old, new) in enumerate(zip(
            before, self.service.column(name, bytes_of_row))) if old != new], [])

    def pixels_damaged(self):
        """Of two labelled galaxies: found before a training uses them, decoded again, bit for bit what they were."""
        rows = [key - 1 for key, in self.service.query("SELECT key FROM triage.galaxy WHERE root_votes > 0 AND split = 0 "
                                                       "AND bad_reason IS NULL ORDER BY key LIMIT 2")]
        before, since = self.service.column("pixels", PIXEL_BYTES), time.monotonic()
        for row in rows:
            self.damage(self.service.state / "pool" / "pixels.column", HEADER_BYTES + row * PIXEL_BYTES + 500 + row)
        self.service.expect("rows damaged", [row for row, (old, new) in enumerate(zip(
            before, self.service.column("pixels", PIXEL_BYTES))) if old != new], rows)
        self.service.ask("train", what="trunk")
        wait_until("the doctor says of rows: 2 rows", lambda: "2 rows" in self.service.incident("rows").get("words", ""))
        self.serving_after("pixels of the pool damaged", since)
        wait_until("the pixels are what they were", lambda: self.service.column("pixels", PIXEL_BYTES) == before)

    def models(self):
        return self.service.state / "models"

    def until_replaced(self):
        """The champion, once it has replaced another one."""
        def replaced():
            if not self.service.is_settled():
                return None
            previous, champion = self.models() / "previous", self.service.status()["champion"]
            if previous.exists() and int(previous.read_text()) != champion:
                return champion
            self.vote()
            return None
        return wait_until("a champion that has replaced another one", replaced)

    def model_damaged(self):
        champion = self.until_replaced()
        previous, since = int((self.models() / "previous").read_text()), time.monotonic()
        self.damage(self.models() / f"{champion:06}.model", 300)
        self.service.ask("train", what="now")
        self.doctor_says("model", True, f"{champion:06}.model is damaged")
        events = [row[0] for row in self.service.query("SELECT model FROM triage.champion_event ORDER BY at")]
        self.service.expect("champions", events[events.index(champion):][:2], [champion, previous])
        self.serving_after("the champion's file damaged", since)
        if not (self.models() / f"{champion:06}.model.damaged").exists():
            raise Failure("the damaged model was not set aside")

    def model_damaged_at_start(self):
        champion = self.until_replaced()
        previous = int((self.models() / "previous").read_text())
        self.service.kill()
        self.damage(self.models() / f"{champion:06}.model", 300)
        since = time.monotonic()
        self.service.start()
        self.doctor_says("model", True, f"{champion:06}.model is damaged")
        self.serving_after("the champion's file damaged before a start", since)
        if (self.models() / f"{champion:06}.model").exists() or not (self.models() / f"{previous:06}.model").exists():
            raise Failure("the damaged model was not set aside, or the one before is gone")

    def champion_unreadable(self):
        wait_until("everything has settled", self.service.is_settled)
        self.service.kill()
        (self.models() / "champion").write_bytes(b"\0\0\0\0")
        since = time.monotonic()
        self.service.start()
        self.doctor_says("model", True, "does not hold a model number")
        self.serving_after("the champion's name unreadable", since)


FAULTS = ["database_restarted", "database_read_only", "connection_cut", "network_gone", "clock_forward", "clock_back",
          "descriptors_exhausted", "row_damaged", "pixels_damaged", "model_damaged", "model_damaged_at_start", "champion_unreadable"]


def main():
    build, folder = sys.argv[1:3]
    server, service = Service(build, folder, "a", seed=1), Service(build, folder, "b", seed=20261127)
    service.url = f"host={server.state}/postgres/socket user=triage dbname=b"
    try:
        server.start()
        wait_until("the server", lambda: server.status().get("ready"))
        server.query("CREATE DATABASE b")
        proxy = Proxy(pathlib.Path(folder, "proxy"), server.state / "postgres/socket/.s.PGSQL.5432")
        faults = Faults(server, service, proxy)
        if service.tool("triaged", "import", "--config", pathlib.Path(folder, "b.conf"), pathlib.Path(folder, "survey/catalog.csv")).returncode:
            raise Failure("the import failed")
        service.start()
        wait_until("a first queue", lambda: service.status().get("queue_length"))
        service.learn()
        service.vote(service.batch(40))
        wait_until("a first champion", lambda: service.status().get("champion"))
        for name in sys.argv[3:] or FAULTS:
            getattr(faults, name)()
        service.stop()
        server.stop()
    finally:
        service.kill()
        server.kill()


try:
    main()
except Failure as failure:
    print(f"FAILED: {failure}", file=sys.stderr)
    sys.exit(1)
