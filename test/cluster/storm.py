"""The storm: nodes write everything at random while nodes, server and network fail at
random; when all is healed every promise of convergence must hold.
marmot-test: limit=400

    storm.py [--seconds N] [--seed S] [--nodes K] [--keep]

Without a seed: three storms of 13 s with new seeds, with N as many as fit in N seconds;
with one: that storm once, for N seconds (default 13). Checked at the end of
each: equal databases, equal conflict logs, accepted origins, positions; every
transaction that a host noted as committed is there; integrity; all live; a reader
that looked all the time saw no half transaction. After a failure the folder stays.
"""
import argparse
import json
import os
import random
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

LIB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib")
sys.path.insert(0, LIB)
from marmot_test import *  # noqa: E402,F403
from storm_check import compare  # noqa: E402
from storm_load import FOUNDING, SCHEMA, TOTAL  # noqa: E402
from storm_proxy import Proxy  # noqa: E402

STORM_SECONDS = 13
STORMS = 3
SYNC_SECONDS = 60 * SLOW
totals = {}


def count(name, n=1):
    totals[name] = totals.get(name, 0) + n


class Folder:
    """What a Workspace is to other tests; it stays when something failed."""

    def __init__(self, seed):
        self.dir = tempfile.mkdtemp(prefix="marmot-storm-%d-" % seed)
        self.state_home = os.path.join(self.dir, "state")
        self.servers = []
        self.nodes = []

    def end(self, keep):
        for node in self.nodes:
            node.kill()
        for server in self.servers:
            server.kill()
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)


class Host:
    """A storm_host process, its database, its proxy."""

    def __init__(self, ws, name, server, config, rng, pause, kind):
        self.name = name
        self.db = os.path.join(ws.dir, name + ".db")
        self.errors = os.path.join(ws.dir, name + ".log")
        self.counter = os.path.join(ws.dir, name + ".counter")
        self.proxy = Proxy(server.port)
        self.config = dict(config, nats={"urls": ["nats://127.0.0.1:%d" % self.proxy.port],
                                         "reconnect_wait_seconds": 1},
                           logging={"verbose": True})
        self.env = dict(os.environ, XDG_STATE_HOME=ws.state_home)
        self.rng = rng
        self.args = [str(pause), str(config["replication_log"]["shards"])]
        self.transfers = False
        self.kind = kind
        self.process = None
        self.commits = 0
        self.input = b""
        ws.nodes.append(self)
        with sqlite3.connect(self.db) as db:
            db.execute("PRAGMA journal_mode=wal")
            db.executescript("BEGIN;" + SCHEMA + FOUNDING + "COMMIT;")
        db.close()

    def start(self):
        self.input = b""
        with open(self.errors, "ab") as log:
            self.process = subprocess.Popen(
                [PYTHON, os.path.join(LIB, "storm_host.py"), self.db, EXTENSION, json.dumps(self.config), self.name,
                 self.counter, str(self.rng.randrange(1 << 30))] + self.args + [str(int(self.transfers)), self.kind],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self.env, preexec_fn=die_with_parent)

    def died(self):
        with open(self.errors, errors="replace") as log:
            return Died("%s ended by itself (%s): %s" % (self.name, self.process.wait(30 * SLOW), log.read()[-1500:]))

    def line(self, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self.input:
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                raise Timeout("%s answers within %d s" % (self.name, seconds))
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise self.died()
            self.input += data
        text, self.input = self.input.split(b"\n", 1)
        return json.loads(text)

    def tell(self, words):
        try:
            self.process.stdin.write(words.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.died() from None

    def answer(self, seconds=60 * SLOW):
        while True:
            said = self.line(seconds)
            if not {"ready", "late", "transfer"} & set(said):
                return said

    def ask(self, words, seconds=60 * SLOW):
        self.tell(words)
        return self.answer(seconds)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.reap()

    def reap(self):
        code = self.process.wait(30 * SLOW)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        self.process = None
        return code

    def quit(self):
        self.tell("quit")
        process = self.process
        try:
            code = process.wait(30 * SLOW)
        except subprocess.TimeoutExpired:
            raise Timeout("%s ends within %g s of being told to" % (self.name, 30 * SLOW)) from None
        if code != 0:
            raise self.died()
        self.reap()

    def noted(self):
        try:
            with open(self.counter) as f:
                return int(f.read() or 0)
        except FileNotFoundError:
            return 0


class Storm:
    def __init__(self, ws, seed, nodes):
        self.rng = rng = random.Random(seed)
        self.ws = ws
        self.server = NatsServer(ws).start()
        k = nodes or rng.choice([2, 3, 3, 4, 5])
        self.config = {"replication_log": {"shards": rng.choice([1, 1, 3]), "compress": rng.random() < 0.5,
                                           "part_size": rng.choice([65536, 524288])}}
        note("seed %d: %d nodes, %s" % (seed, k, json.dumps(self.config["replication_log"])))
        self.hosts = []
        for n in range(k):
            config = dict(self.config, conflict=rng.choice(["column", "column", "row"]))
            kind = "shell" if n == 2 and rng.random() < 0.5 else "python"
            self.hosts.append(Host(ws, chr(ord("a") + n), self.server, config, rng, 6 * k, kind))
        self.delta = rng.random() < 0.5
        self.later = []    # (when, what): what was broken and is mended then
        self.reader = None

    def run(self, seconds):
        for h in self.hosts:
            h.start()
        self.begin_transfers()
        watched = self.rng.choice(self.hosts)
        self.reader = subprocess.Popen([PYTHON, os.path.join(LIB, "storm_reader.py"), watched.db, str(TOTAL)],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        start = time.monotonic()
        late = start + seconds * self.rng.uniform(0.2, 0.7)
        told = False
        while time.monotonic() < start + seconds:
            time.sleep(self.rng.uniform(0.02, 0.6))
            self.mend(time.monotonic())
            for h in self.hosts:
                if h.process is not None and h.process.poll() is not None:
                    raise h.died()
            if self.reader.poll() is not None:
                break
            if not told and time.monotonic() > late:
                told = True
                for h in self.hosts:
                    if h.process is not None:
                        h.tell("late")
                        count("late tables")
            self.harm(time.monotonic())

    def begin_transfers(self):
        """By one node; or by all, once they all know that balances add up."""
        if self.delta:
            count("storms with transfers by all nodes")
            self.hosts[0].ask("delta")
            self.sync()
        for h in self.hosts if self.delta else self.hosts[:1]:
            h.transfers = True
            h.tell("transfer")

    def mend(self, now):
        due = [x for x in self.later if x[0] <= now]
        self.later = [x for x in self.later if x[0] > now]
        for _, what in due:
            what()

    def after(self, least, most, what):
        self.later.append((time.monotonic() + self.rng.uniform(least, most), what))

    def harm(self, now):
        rng = self.rng
        h = rng.choice(self.hosts)
        what = rng.choice(["kill"] * 3 + ["quit"] + ["server"] + ["pause"] + ["cut"] * 3 + ["hold"] * 4 + ["delay"] * 2
                          + ["half"] * 2 + ["refuse"])
        if what == "kill" and h.process is not None:
            count("kills of nodes")
            h.kill()
            self.after(0, 1.5, h.start)
        elif what == "quit" and h.process is not None:
            count("clean restarts")
            h.quit()
            self.after(0, 1, h.start)
        elif what == "server" and self.server.process is not None:
            count("kills of the server")
            self.server.end(signal.SIGKILL if rng.random() < 0.7 else signal.SIGTERM)
            self.after(0, 2, self.server.start)
        elif what == "pause" and self.server.process is not None:
            count("pauses of the server")
            server = self.server.process
            server.send_signal(signal.SIGSTOP)
            self.after(0.2, 3, lambda: server.send_signal(signal.SIGCONT))
        elif what == "cut":
            count("cuts")
            h.proxy.cut()
        elif what == "hold":
            count("partitions")
            h.proxy.hold(rng.choice(["up", "down", "both"]))
            cut = rng.random() < 0.5
            self.after(0.1, 5, lambda: h.proxy.heal(cut))
        elif what == "delay":
            count("delays")
            h.proxy.delay(rng.choice([0.002, 0.02, 0.1]))
            self.after(0.2, 3, lambda: h.proxy.delay(0.0))
        elif what == "half":
            count("half closes")
            h.proxy.half_close(rng.choice(["up", "down"]))
        elif what == "refuse":
            count("refusals")
            h.proxy.refuse(True)
            h.proxy.cut()
            self.after(0.2, 2, lambda: h.proxy.refuse(False))

    def heal(self):
        """All runs, nothing is in the way, nobody writes, the late table is everywhere."""
        self.mend(float("inf"))
        for h in self.hosts:
            h.proxy.heal(self.rng.random() < 0.3)
        if self.server.process is None:
            self.server.start()
        for h in self.hosts:
            if h.process is None:
                h.start()
            h.tell("late")
            h.tell("stop")
        for h in self.hosts:
            said = h.answer()
            for text, n in said["errors"].items():
                count("statements refused", n)
        count("transactions", sum(h.noted() for h in self.hosts))

    def sync(self):
        """Until marmot_sync returns 1 on all twice: the first round sends everything, the second has read it."""
        end = time.monotonic() + SYNC_SECONDS
        rounds = 0
        while rounds < 2:
            for h in self.hosts:
                h.tell("sync 5000")
            said = [h.answer() for h in self.hosts]
            rounds = rounds + 1 if all(s["sync"] == 1 for s in said) else 0
            if time.monotonic() > end:
                raise Timeout("marmot_sync on all nodes within %d s: %s" % (
                    SYNC_SECONDS, json.dumps(dict(zip([h.name for h in self.hosts], said)))))

    def judge_reader(self):
        self.reader.stdin.close()
        said = json.loads(self.reader.stdout.read() or b"{}")
        code = self.reader.wait(30 * SLOW)
        if code != 0 or not said.get("changes"):
            raise Timeout("the reader ended with %d: %s" % (code, said))
        count("looks of readers", said["looks"])
        count("commits that readers saw", said["changes"])


def tell_statuses(storm):
    for h in storm.hosts:
        try:
            said = "not running"
            if h.process is not None:
                said = h.ask("status", 10)
                said["tables"] = [t for t in said["tables"] if t["state"] != "watched"]
                said = json.dumps(said)
        except (Died, Timeout, ValueError) as e:
            said = str(e)
        note("%s: %s" % (h.name, said[:3000]))


def one(seed, seconds, nodes, keep):
    """One storm; true when every promise held."""
    ws = Folder(seed)
    storm = Storm(ws, seed, nodes)
    try:
        storm.run(seconds)
        storm.heal()
        healed = time.monotonic()
        storm.sync()
        took = time.monotonic() - healed
        storm.judge_reader()
        problems = compare(storm.hosts)
        if not problems:
            for h in storm.hosts:
                h.quit()
    except (Died, Timeout) as e:
        problems = [str(e)]
    if problems:
        for p in problems:
            note(p)
        tell_statuses(storm)
    if storm.reader is not None:
        storm.reader.kill()
        storm.reader.wait()
    ws.end(keep or problems)
    return check("seed %d: %s" % (seed, "equal %.1f s after healing" % took if not problems else "converges"),
                 not problems, "%s (folder %s)" % (problems[:1], ws.dir))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=os.environ.get("MARMOT_TEST_SEED"))
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    start = time.monotonic()
    if options.seed is not None:
        one(int(options.seed), options.seconds or STORM_SECONDS, options.nodes, options.keep)
        count("storms")
    else:
        while True:
            one(random.SystemRandom().randrange(1, 1 << 32), STORM_SECONDS, options.nodes, options.keep)
            count("storms")
            if totals["storms"] >= STORMS if options.seconds is None else time.monotonic() - start > options.seconds:
                break
    note(", ".join("%s %d" % x for x in sorted(totals.items())))
    finish()


main()
