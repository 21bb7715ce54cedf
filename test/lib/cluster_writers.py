"""Nodes that write without end, for fault tests, and what must hold afterwards.

    a = Writer(ws, "a", config, rng)   # own file with WRITERS_SCHEMA, already writing
    a.kill(); a.start()                # at any moment
    settle([a, b, c], 60)              # stops writing, waits for equality, checks all promises

Every transaction whose number the writer's counter file holds must be whole, and
once, in every database; databases must be equal and sound.
"""
import json
import os
import sqlite3
import subprocess
import time

from cluster_hosts import peek
from marmot_test import (EXTENSION, PYTHON, SLOW, WRAP, Died, check, die_with_parent, difference, dump, integrity,
                         note, ok, plain_env, wait_equal, wait_until)

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cluster_writer.py")
WRITERS_SCHEMA = """
CREATE TABLE one(node TEXT NOT NULL, n INTEGER NOT NULL, v, PRIMARY KEY(node, n));
CREATE TABLE two(node TEXT NOT NULL, n INTEGER NOT NULL, v, PRIMARY KEY(node, n)) WITHOUT ROWID;
CREATE TABLE bag(node, n);
CREATE TABLE shared(id INTEGER PRIMARY KEY, who TEXT, n INTEGER);
"""


class Writer:
    def __init__(self, ws, name, config, rng, pause_ms=4):
        self.name = name
        self.db = os.path.join(ws.dir, name + ".db")
        self.errors = os.path.join(ws.dir, name + ".log")
        self.counter = os.path.join(ws.dir, name + ".counter")
        self.env = dict(plain_env(os.environ.get("MARMOT_PRELOAD")), XDG_STATE_HOME=ws.state_home)
        self.config = config
        self.rng = rng
        self.pause_ms = pause_ms
        self.process = None
        ws.nodes.append(self)
        with sqlite3.connect(self.db) as plain:
            plain.execute("PRAGMA journal_mode=wal")
            plain.executescript(WRITERS_SCHEMA)
        plain.close()
        self.start()

    def start(self):
        with open(self.errors, "ab") as log:
            self.process = subprocess.Popen(
                WRAP + [PYTHON, PROGRAM, self.db, EXTENSION, json.dumps(self.config), self.name, self.counter,
                 str(self.rng.randrange(1 << 30)), str(self.pause_ms)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self.env, text=True,
                preexec_fn=die_with_parent)
        return self

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait(30 * SLOW)
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def committed(self):
        try:
            with open(self.counter) as f:
                return int(f.read() or 0)
        except FileNotFoundError:
            return 0

    def line(self):
        text = self.process.stdout.readline()
        if not text:
            with open(self.errors, errors="replace") as log:
                raise Died("writer %s ended (%s): %s" % (self.name, self.process.wait(), log.read()[-1500:]))
        return text

    def check_alive(self):
        """Raises Died with its last words when it has ended by itself."""
        if self.process.poll() is not None:
            while self.line():
                pass

    def wait_writing(self, more=1, seconds=20):
        goal = self.committed() + more
        wait_until(lambda: self.process.poll() is not None or self.committed() >= goal, seconds,
                   "%s commits %d more" % (self.name, more))
        self.check_alive()

    def tell(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()


def stop_writing(writers):
    """All stop, sync, and answer with their statuses; they stay alive as readers."""
    for w in writers:
        w.tell("stop")
    statuses = []
    for w in writers:
        line = w.line()
        statuses.append(json.loads(w.line() if line == "ready\n" else line))
    return statuses


def settle(writers, seconds=60):
    """Ends the writing and checks what was promised."""
    start = time.monotonic()
    statuses = stop_writing(writers)
    for w, s in zip(writers, statuses):
        if s["state"] != "live" or s["outbox"]["rows"]:
            note("%s: %s" % (w.name, json.dumps(s)))
    wait_equal([w.db for w in writers], seconds)
    note("%s committed; equal %.1f s after the last write" % (
        ", ".join("%s %d" % (w.name, w.committed()) for w in writers), time.monotonic() - start))
    ok("all databases are equal")
    for w in writers:
        w.tell("end")
        code = w.process.wait(30 * SLOW)
        check("%s ends well" % w.name, code == 0, code)
        w.kill()
    common = dump(writers[0].db)
    for w in writers:
        lost = missing(w, writers)
        check("every committed transaction of %s is whole, and once, in every database" % w.name, not lost, lost[:5])
        said = integrity(w.db)
        check("%s is sound and still equal" % w.name, said == "ok" and not difference(common, dump(w.db)), said)


def missing(w, writers):
    """Numbers up to the committed one that some database lacks, in either table, or
    has twice."""
    lost = []
    want = set(range(1, w.committed() + 1))
    for other in writers:
        for table in ("one", "two"):
            have = {r[0] for r in peek(other.db, "SELECT n FROM %s WHERE node = ?" % table, w.name)}
            lost += ["%d of %s in %s.%s" % (n, w.name, other.name, table) for n in sorted(want - have)]
        twice = peek(other.db, "SELECT n FROM bag WHERE node = ? GROUP BY n HAVING count(*) <> 1", w.name)
        lost += ["%d of %s is not once in %s" % (n, w.name, other.name) for n, in twice]
        if len(peek(other.db, "SELECT n FROM bag WHERE node = ?", w.name)) < len(want):
            lost.append("rows of %s are missing in bag of %s" % (w.name, other.name))
        halves = peek(other.db, "SELECT count(*) FROM one FULL JOIN two USING (node, n) "
                                "WHERE one.v IS NULL OR two.v IS NULL")[0][0]
        if halves:
            lost.append("%d half transactions in %s" % (halves, other.name))
    return lost
