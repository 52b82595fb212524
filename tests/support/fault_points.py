"""Visits every fault point of base/fault_points.h in every role with SIGKILL and compares all totals after each.

usage: fault_points.py HEADER BUILD FOLDER [NAME ...]    FOLDER holds a.conf, survey/; only points NAME if given"""
import contextlib
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import os

import psycopg2

from service import PATIENCE_S, Failure, Service, wait_until

RETIRE_VOTES, ADVISORY = 30, 7700
# Where the pool is being brought in step with the database: the worker may read the tallies meanwhile, so they are never away.
WHILE_READING = ("POOL_GROWN", "GALAXIES_TAKEN", "TALLIES_READ")


def read_points(header):
    """[(name, role, words)] in the order of the table, one per role."""
    rows = re.findall(r'POINT\((\w+), +"([^"]+)", +"([^"]+)"\)', pathlib.Path(header).read_text())
    return [(name, role, words) for name, roles, words in rows for role in roles.split()]


class Visits:
    def __init__(self, service, points):
        self.service, self.points, self.recovery_s, self.visited = service, points, {}, []

    # --- one visit ---

    def arm(self, name, role):
        (self.service.faults / f"{role}.{name}.armed").touch()

    def hit(self, name, role):
        return (self.service.faults / f"{role}.{name}.hit").exists()

    def recover(self, name, role, killed_at, restarts=0):
        """Starts again what does not start itself, and waits until everything serves."""
        if self.service.process.poll() is not None or role == "run":
            self.service.process.wait()
            self.service.start()
        wait_until(f"serving again after {role} {name}", lambda: self.service.is_serving(restarts))
        self.recovery_s[name, role] = time.monotonic() - killed_at
        kind = {"run": "killed"}.get(role, role)
        if kind in ("killed", "worker", "database"):
            wait_until(f"the doctor names the end of {role} at {name}", lambda: self.service.incident(kind).get("over"))

    def check(self, name, role):
        try:
            votes = self.service.compare()
        except (Failure, psycopg2.Error, OSError) as problem:
            raise Failure(f"after SIGKILL of {role} at {name}: {problem}") from problem
        self.visited.append((name, role))
        print(f"{role:9} {name:20} serving after {self.recovery_s[name, role]:5.2f} s, {votes} votes", flush=True)

    def visit(self, name, role, stimulate, again_s=3):
        """Arms the point, gives the service a reason to pass it (again now and then: not every cycle promotes a model)."""
        restarts = self.service.status()["worker"]["restarts"]
        self.arm(name, role)
        stimulate()
        given = time.monotonic()

        def reached():
            nonlocal given
            if self.hit(name, role):
                return True
            if time.monotonic() - given > again_s and self.service.is_settled():
                given = time.monotonic()
                stimulate()
            return False
        wait_until(f"{role} passes {name}", reached)
        if name in WHILE_READING:
            self.service.process.wait()
            self.service.expect(f"tallies of the pool at {name}", self.service.pool_tallies(), self.service.database_tallies())
        self.recover(name, role, time.monotonic(), restarts + 1 if role == "worker" else 0)
        self.check(name, role)

    # --- reasons to pass a point ---

    def votes(self):
        self.service.vote(self.service.batch())

    def retire(self):
        self.service.vote(self.service.retiring_batch(RETIRE_VOTES))

    def galaxy(self):
        self.service.add_galaxy(self.image)

    def bad_galaxy(self):
        self.service.add_galaxy(self.image.with_name("absent.png"))

    def restart(self):
        self.service.kill()
        self.service.start()

    def worse_champion(self):
        """The gate promotes a model that learns from everything over the first one there was."""
        first = min((int(path.stem) for path in (self.service.state / "models").glob("*.model")), default=0)
        if first and self.service.status()["champion"] != first:
            self.service.ask("rollback", model=first)
        self.votes()

    def import_galaxies(self):
        self.catalogue += 1
        path = self.service.folder / f"more{self.catalogue}.csv"
        path.write_text("id_str,file_loc\n" + "".join(f"more-{self.catalogue}-{i},{self.image}\n" for i in (1, 2)))
        arguments = ("triaged", "import", "--config", self.service.folder / f"{self.service.name}.conf", path)
        if self.service.run(*arguments).wait(PATIENCE_S) == 0:
            raise Failure("the import was not killed")
        have = self.service.query("SELECT count(*) FROM triage.galaxy WHERE id_str LIKE %s", f"more-{self.catalogue}-%")[0][0]
        if have not in (0, 2):
            raise Failure(f"{have} of 2 galaxies were imported")
        if self.service.run(*arguments).wait(PATIENCE_S) != 0:
            raise Failure("the import cannot be repeated")

    def known_galaxy(self):
        return self.service.random.choice(self.service.query("SELECT id_str FROM triage.galaxy WHERE retired_at IS NULL AND "
                                                             "bad_reason IS NULL ORDER BY key"))[0]

    def import_votes(self):
        """A file of votes beside the running daemon; the place in the file is committed with them, so again means once."""
        self.catalogue += 1
        path = self.service.folder / f"votes{self.catalogue}.csv"
        rows = [vote for _ in range(8) for vote in self.service.walk(self.known_galaxy())]
        path.write_text("classification,question,answer,id_str,voter\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
        arguments = ("triaged", "votes", "import", path, "--json", "--config", self.service.folder / f"{self.service.name}.conf")
        if self.service.run(*arguments).wait(PATIENCE_S) != -signal.SIGKILL:
            raise Failure("the import of votes was not killed")
        have = self.service.query("SELECT count(*) FROM triage.vote WHERE classification BETWEEN %s AND %s",
                                  rows[0][0], rows[-1][0])[0][0]
        place = self.service.query("SELECT votes FROM triage.vote_import WHERE source LIKE %s AND finished_at IS NOT NULL",
                                   f"{path.name}, %")
        if (have, [count for count, in place]) not in ((0, []), (len(rows), [len(rows)])):
            raise Failure(f"{have} of {len(rows)} votes were imported, and noted {place}")
        again = self.service.tool(*arguments)
        said = json.loads(again.stdout) if again.returncode == 0 else {}
        if (said.get("votes"), said.get("added"), said.get("finished_before")) != (len(rows), len(rows), have > 0):
            raise Failure(f"the import of votes cannot be repeated: {again.returncode}, {again.stdout}")
        self.service.cast |= {row[:2] for row in rows}

    def play_platform(self):
        """A platform that is killed, and one that takes its place. What it cast is in the table of votes."""
        arguments = ["triage-sim", "platform", "--database", self.service.url, "--publish",
                     f"ipc://{self.service.folder}/{self.service.name}.publish", "--snapshot",
                     f"ipc://{self.service.folder}/{self.service.name}.snapshot", "--schema", self.schema, "--oracle",
                     self.service.folder / "survey" / "truth.csv", "--rate", "60", "--seed", "3", "--limit", "10", "--until-idle-s", "3"]
        if self.service.run(*arguments).wait(PATIENCE_S) != -signal.SIGKILL:
            raise Failure("the platform was not killed")
        if self.service.run(*arguments).wait(PATIENCE_S) != 0:
            raise Failure("the platform cannot go on")

    # --- the database ---

    def install_triggers(self):
        """Statements of the table wait for an advisory lock, which only this test ever holds."""
        self.locks = {}
        sql = "CREATE SCHEMA IF NOT EXISTS fault;"
        for name, role, words in self.points:
            if role != "database":
                continue
            event, table = words.split(" ON ")
            self.locks[name] = ADVISORY + len(self.locks)
            sql += (f"CREATE OR REPLACE FUNCTION fault.{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                    f"PERFORM pg_advisory_xact_lock_shared({self.locks[name]}); RETURN NULL; END $$;"
                    f"CREATE OR REPLACE TRIGGER zz_fault_{name} AFTER {event} ON {table} FOR EACH STATEMENT "
                    f"EXECUTE FUNCTION fault.{name}();")
        self.service.query(sql)

    def kill_database(self, name, whole):
        """The server process in the midst of the transaction; or the whole server with all its processes."""
        backend = wait_until(f"a transaction reaches {name}", lambda: self.waiting_backend(name))
        if not whole:
            os.kill(backend, signal.SIGKILL)
            return
        postmaster = int((self.service.state / "postgres/data/postmaster.pid").read_text().split()[0])
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(postmaster)], stdout=subprocess.PIPE, check=True).stdout
        os.kill(postmaster, signal.SIGKILL)
        for child in children.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)

    def waiting_backend(self, name):
        rows = self.service.query("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted",
                                  self.locks[name])
        return rows and rows[0][0]

    def visit_database(self, name, whole):
        holder = psycopg2.connect(self.service.url)
        holder.autocommit = True
        holder.cursor().execute("SELECT pg_advisory_lock(%s)", (self.locks[name],))
        stimulate = {"CHAMPION_INSERT": self.worse_champion, "MODEL_INSERT": self.worse_champion}.get(name, self.votes)
        volunteers = threading.Thread(target=stimulate)
        volunteers.start()
        self.kill_database(name, whole)
        killed_at = time.monotonic()
        holder.close()
        volunteers.join()
        self.recover(name, "database", killed_at)
        self.check(name, "database")

    # --- everything ---

    def visit_one(self, name, role, nth):
        reasons = {"import": self.import_galaxies, "votes": self.import_votes, "platform": self.play_platform}
        by_name = {name: reason for reason, names in {
            self.restart: "LOCK_TAKEN POOL_OPENED DATABASE_REACHED MIGRATED STATE_RESTORED SOCKETS_BOUND POOL_GROWN GALAXIES_TAKEN "
                          "TALLIES_READ CURSOR_READ QUEUE_OFFERED WORKER_OPENED",
            self.retire: "GALAXY_RETIRED GALAXY_RETRACTED",
            self.galaxy: "EMBED_SENT EMBED_ANSWERED IMAGES_DECODED EMBEDDINGS_STORED EMBEDDINGS_ON_DISK VERSIONS_SET",
            self.bad_galaxy: "BAD_FLAGGED",
            self.worse_champion: "CHAMPION_WRITTEN CHAMPION_ANNOUNCED MODELS_PRUNED FILE_CREATED FILE_WRITTEN FILE_SYNCED "
                                 "FILE_RENAMED"}.items() for name in names.split()}
        if role == "database":
            self.visit_database(name, nth % 2 == 0)
        else:
            self.visit(name, role, reasons.get(role) or by_name.get(name, self.votes))

    def visit_training(self, points):
        """One run of training, killed wherever it can be. What an operator asked for is asked for again after a kill."""
        for name, role, _ in points:
            self.visit(name, role, lambda: self.service.ask("train", what="trunk"))


def main():
    header, build, folder = sys.argv[1:4]
    points = [point for point in read_points(header) if len(sys.argv) == 4 or point[0] in sys.argv[4:]]
    service = Service(build, folder, "a", seed=20261126)
    visits = Visits(service, points)
    visits.image = sorted(pathlib.Path(folder, "survey").rglob("*.png"))[0]
    visits.schema = pathlib.Path(header).parent.parent / "etc/schemas/gz2_no_suffix.ini"
    visits.catalogue = 0
    try:
        service.start()
        wait_until("a first queue", lambda: service.status().get("queue_length"))
        service.learn()
        visits.install_triggers()
        service.vote(service.batch(40))
        wait_until("a first champion", lambda: service.status().get("champion"))
        training = [point for point in points if point[2].count("trunk") or point[0].startswith(("SLICE", "LABELS_KEPT"))]
        others = [point for point in points if point not in training]
        others.sort(key=lambda point: point[1] != "platform")  # its volunteers know the galaxies of the survey only
        for nth, (name, role, _) in enumerate(others):
            visits.visit_one(name, role, nth)
        visits.visit_training(training)
        service.stop()
    finally:
        service.kill()
    missing = [point[:2] for point in points if point[:2] not in visits.visited]
    if missing:
        raise Failure(f"not visited: {missing}")
    times = sorted(visits.recovery_s.values())
    print(f"{len(times)} points visited with SIGKILL, no vote lost or doubled, {len(service.cast)} votes of ours; serving again after "
          f"{statistics.median(times):.2f} s (median), {times[-1]:.2f} s (longest)")


try:
    main()
except Failure as failure:
    print(f"FAILED: {failure}", file=sys.stderr)
    sys.exit(1)
