"""A daemon under test, its private database and its volunteers, as the fault tests see them: started, killed, waited for,
and compared in all its totals. Needs python3-psycopg2 and, for the pool's columns, nothing but their layout (pool/column.h)."""
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import time

import psycopg2

POLL_S, PATIENCE_S = 0.02, 60  # conditions are waited for; nothing here judges a time shorter than PATIENCE_S
HEADER_BYTES = 4096            # of a column of the pool
FIRST_NUMBER = 10**12         # of classifications of ours, not among the few of triage-sim


class Failure(Exception):
    """Totals differ, or something did not happen in PATIENCE_S."""


def wait_until(what, condition, patience_s=PATIENCE_S):
    """Polls until the condition is true; returns its value."""
    limit = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise Failure(f"did not happen in {patience_s} s: {what}")
        time.sleep(POLL_S)


class Service:
    def __init__(self, build, folder, name, seed):
        self.build, self.folder, self.name = pathlib.Path(build), pathlib.Path(folder), name
        self.state = self.folder / name
        self.faults = self.folder / f"{name}.faults"
        self.faults.mkdir(exist_ok=True)
        self.environment = dict(os.environ, TRIAGE_FAULTS=str(self.faults))
        self.url = f"host={self.state}/postgres/socket user=triage dbname=triage"
        self.log = open(self.folder / f"{name}.log", "ab")
        self.process = None
        self.random = random.Random(seed)
        self.number = FIRST_NUMBER  # of our classifications
        self.cast = set()      # (classification, question) that were committed by us

    # --- processes ---

    def run(self, *arguments):
        return subprocess.Popen([str(self.build / arguments[0]), *map(str, arguments[1:])], stdout=self.log, stderr=self.log,
                                env=self.environment)

    def tool(self, *arguments):
        """Runs it to its end; with what it said."""
        return subprocess.run([str(self.build / arguments[0]), *map(str, arguments[1:])], stdout=subprocess.PIPE, stderr=self.log,
                              env=self.environment, timeout=PATIENCE_S, text=True)

    def start(self):
        self.process = self.run("triaged", "run", "--config", self.folder / f"{self.name}.conf")

    def died(self):
        return self.process is None or self.process.poll() is not None

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(PATIENCE_S) != 0:
            raise Failure(f"the daemon ended with {self.process.returncode}")
        self.process = None

    def ask(self, verb, **request):
        """The daemon's answer, or None while there is none."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            try:
                connection.connect(str(self.state / "run" / "admin.sock"))
                connection.sendall(json.dumps(dict(request, verb=verb)).encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    part = connection.recv(1 << 20)
                    if not part:
                        return None
                    answer += part
            except OSError:
                return None
        return json.loads(answer)

    def status(self):
        return self.ask("status") or {}

    def is_settled(self):
        """Nothing is under way: every vote applied, no cycle, every galaxy embedded."""
        now = self.status()
        return (now.get("ready") and now["database"] == "ok" and now["worker"]["state"] == "idle" and not now["problems"]
                and now["cycle"]["step"] == "idle" and not now["votes"]["waiting"] and now["queue_length"] > 0
                and now["galaxies"]["embedded"] + now["galaxies"]["bad"] == now["galaxies"]["total"]
                and self.query("SELECT count(*) FROM triage.galaxy")[0][0] == now["galaxies"]["total"]
                and self.votes_left() == 0 and now)

    def is_serving(self, restarts=0):
        """Recovered: the queue is on offer, the database answers, a worker is there (after so many ends), every vote is applied."""
        now = self.status()
        return (now.get("ready") and now["database"] == "ok" and now["worker"]["state"] in ("idle", "busy")
                and now["worker"]["restarts"] >= restarts and self.votes_left() == 0)

    def incident(self, kind):
        """What the doctor says about it, {} if nothing."""
        answer = self.ask("doctor") or {"incidents": []}
        return next((incident for incident in answer["incidents"] if incident["kind"] == kind), {})

    # --- the database ---

    def query(self, sql, *values, then=()):
        """Rows, on a connection of its own: the server may have been killed since the last one. `then`: more statements."""
        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, values)
                for statement in then:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def votes_left(self):
        """Votes behind the cursor, or -1 while the database is away."""
        try:
            return self.query("SELECT count(*) FROM triage.vote v, triage.cursor c WHERE (v.xid, v.classification, "
                              "v.question) > (c.xid, c.classification, c.question)")[0][0]
        except psycopg2.Error:
            return -1

    def vote(self, rows):
        """Brings (classification, question, answer, id_str, voter) in as a platform does: again until it is committed."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                connection = psycopg2.connect(self.url)
                try:
                    connection.set_session(readonly=False)
                    with connection, connection.cursor() as cursor:
                        cursor.executemany("INSERT INTO triage.vote (classification, question, answer, id_str, voter) "
                                           "VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", rows)
                finally:
                    connection.close()
                break
            except psycopg2.Error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)
        self.cast |= {row[:2] for row in rows}

    # --- volunteers ---

    def learn(self):
        """The decision tree, as the database knows it."""
        self.answers = {}
        self.index = {}
        for index, question, answer, is_root in self.query("SELECT answer_index, question, answer, is_root FROM triage.answer "
                                                           "ORDER BY answer_index"):
            self.answers.setdefault(question, []).append(answer)
            self.index[question, answer] = index
            if is_root:
                self.root = question

    def walk(self, id_str, voter=None):
        """One classification: the first question and one other."""
        self.number += 1
        other = self.random.choice([question for question in self.answers if question != self.root])
        return [(self.number, question, self.random.choice(self.answers[question]), id_str, voter or f"ours-{self.number}")
                for question in (self.root, other)]

    def batch(self, count=8):
        """New votes on galaxies that are not retired, some delivered twice, one by a voter who was here before, one on a
        galaxy nobody knows."""
        ids = [row[0] for row in self.query("SELECT id_str FROM triage.galaxy WHERE retired_at IS NULL AND bad_reason IS NULL "
                                            "ORDER BY key")]
        rows = [vote for _ in range(count) for vote in self.walk(self.random.choice(ids))]
        again = [(self.number + 1, *vote[1:]) for vote in rows[:2]]
        self.number += 1
        return rows + again + rows[2:4] + self.walk(f"nobody-{self.number}")

    def retiring_batch(self, votes):
        """As many votes as the first galaxy of the queue needs to be done."""
        entry = self.ask("queue", top=1)["entries"][0]
        return [vote for _ in range(votes) for vote in self.walk(entry["id"])]

    def add_galaxy(self, image):
        key = self.query("INSERT INTO triage.galaxy (key, id_str, file_loc, split) SELECT max(key) + 1, 'added-' || max(key) + 1, "
                         "%s, 0 FROM triage.galaxy RETURNING key", str(image))
        return key[0][0]

    # --- totals ---

    def column(self, name, row_bytes):
        """Rows of a column of the pool, read from the file behind the daemon's back."""
        data = (self.state / "pool" / f"{name}.column").read_bytes()[HEADER_BYTES:]
        return [data[at:at + row_bytes] for at in range(0, len(data), row_bytes)]

    def counted(self):
        """What the raw votes say, by an algorithm that shares nothing with the SQL under test: the first vote of a voter on a
        question of a galaxy counts, by number of classification; and how many were repeats and how many made no sense."""
        keys = dict(self.query("SELECT id_str, key FROM triage.galaxy"))
        tally, seen, repeated, senseless = {}, set(), 0, 0
        for id_str, question, answer, voter in self.query(
                "SELECT id_str, question, answer, voter FROM triage.vote ORDER BY classification, question"):
            if id_str not in keys or (question, answer) not in self.index:
                senseless += 1
            elif voter is not None and (id_str, question, voter) in seen:
                repeated += 1
            else:
                seen.add((id_str, question, voter))
                place = keys[id_str], self.index[question, answer]
                tally[place] = tally.get(place, 0) + 1
        return tally, repeated, senseless

    def expect(self, what, got, wanted):
        if got != wanted:
            raise Failure(f"{what}: {got} instead of {wanted}")

    def pool_tallies(self):
        """{(galaxy, answer): votes}, without zeros."""
        answers = len(self.index)
        return {(row + 1, index): votes for row, data in enumerate(self.column("tally", 2 * answers))
                for index, votes in enumerate(struct.unpack(f"<{answers}H", data)) if votes}

    def database_tallies(self):
        return {(galaxy, index): votes for galaxy, index, votes in self.query(
            "SELECT galaxy, answer_index, votes FROM triage.tally WHERE votes > 0")}

    def compare_votes(self):
        rows = {tuple(row) for row in self.query("SELECT classification, question FROM triage.vote WHERE voter LIKE %s", "ours-%")}
        self.expect("votes delivered and in the table", (len(self.cast - rows), len(rows - self.cast)), (0, 0))
        tally, repeated, senseless = self.counted()
        self.expect("tallies of the database", self.database_tallies(), tally)
        self.expect("tallies of the pool", self.pool_tallies(), tally)
        cursor = self.query("SELECT applied, repeated, quarantined FROM triage.cursor")[0]
        self.expect("cursor (applied, repeated, quarantined)", cursor, (sum(tally.values()), repeated, senseless))
        self.expect("quarantine", self.query("SELECT count(*) FROM triage.quarantine")[0][0], senseless)
        roots = {}
        for (key, index), votes in tally.items():
            roots[key] = roots.get(key, 0) + (votes if index < len(self.answers[self.root]) else 0)
        self.expect("classifications of each galaxy", dict(self.query(
            "SELECT key, root_votes FROM triage.galaxy WHERE root_votes > 0")), {k: v for k, v in roots.items() if v})
        return sum(tally.values())

    def compare_queue(self):
        """The daemon's queue is the database's and any subscriber's, in ranks 1, 2, 3, ... of galaxies that may be offered."""
        def same():
            queue = self.ask("queue")
            feed = json.loads(subprocess.run(
                [str(self.build / "triage-sim"), "queue", "--publish", f"ipc://{self.folder}/{self.name}.publish", "--snapshot",
                 f"ipc://{self.folder}/{self.name}.snapshot", "--json"], stdout=subprocess.PIPE, stderr=self.log, check=True).stdout)
            return queue and queue["seq"] == feed["seq"] and (queue, feed)
        queue, feed = wait_until("feed and queue at the same place", same)
        entries = [(entry["id"], entry["rank"]) for entry in queue["entries"]]
        self.expect("the feed's queue", [(entry["id"], entry["rank"]) for entry in feed["entries"]], entries)
        self.expect("the database's queue", self.query("SELECT g.id_str, q.rank FROM triage.queue q JOIN triage.galaxy g ON "
                                                       "g.key = q.galaxy ORDER BY q.rank"), entries)
        self.expect("ranks", [rank for _, rank in entries], list(range(1, len(entries) + 1)))
        self.expect("offered though retired, bad or excluded", self.query(
            "SELECT count(*) FROM triage.queue q JOIN triage.galaxy g ON g.key = q.galaxy WHERE g.retired_at IS NOT NULL OR "
            "g.bad_reason IS NOT NULL OR g.excluded")[0][0], 0)

    def compare_models(self):
        status = self.status()
        champion = int((self.state / "models" / "champion").read_text()) if status["champion"] else 0
        self.expect("champion", champion, status["champion"])
        if champion and not (self.state / "models" / f"{champion:06}.model").stat().st_size:
            raise Failure(f"the champion {champion} has an empty file")
        versions = [struct.unpack("<I", data[:4])[0] for data in self.column("version" if status["trunk"] % 2 else "version-even", 16)]
        bad = {key for key, in self.query("SELECT key FROM triage.galaxy WHERE bad_reason IS NOT NULL")}
        self.expect("galaxies without an embedding", [key for key in range(1, status["galaxies"]["total"] + 1)
                                                      if key not in bad and versions[key - 1] != status["trunk"]], [])

    def compare(self):
        wait_until("everything has settled", self.is_settled)
        votes = self.compare_votes()
        self.compare_queue()
        self.compare_models()
        return votes
