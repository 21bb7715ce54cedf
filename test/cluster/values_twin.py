"""Random tables, values of every type and random SQL (test/lib/twin_tables.py) on three nodes, UTF-8 and UTF-16:
they take turns as the only writer, through the extension or by a plain connection, and each turn leaves them row for
row as plain SQLite leaves a twin that was given the same statements; errors are the same, too, and nothing of it is
a conflict. Then all write at once, and end equal.
marmot-test: parallel limit=120

    values_twin.py [--seconds N] [--seed S] [--capture auto|trigger|hook] [--shards N]

Without a seed: one run with a new seed; with N as many as fit in N seconds.
"""
import argparse
import json
import os
import random
import re
import shutil
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from twin_tables import Tables  # noqa: E402

TURNS = 3
TRANSACTIONS = 30 if PLAIN else 15
AT_ONCE = 20
OURS = "name LIKE '\\_\\_marmot%' ESCAPE '\\'"
EVENT = re.compile(r'CREATE TRIGGER "__marmot__\d+_\w+" (\w+ \w+) ON ')


class Twin:
    """A copy of a node's file without anything of ours: where triggers stood there are some that do nothing, since
    SQLite takes another way through a table that has any: the rows of an UPDATE in another order, and, where one
    might fail, back to the beginning of a statement that a type of a STRICT table stops in its midst."""

    def __init__(self, path, source):
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None)
        origin = sqlite3.connect(source, timeout=20 * SLOW)
        origin.backup(self.db)
        origin.close()
        self.db.execute("PRAGMA journal_mode = delete")
        triggers = self.db.execute("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'trigger' AND " + OURS).fetchall()
        for kind, name in self.db.execute("SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view', 'table') AND "
                                          + OURS + " ORDER BY type = 'table', type = 'view'").fetchall():
            self.db.execute('DROP %s "%s"' % (kind, name))
        for k, (_, table, sql) in enumerate(triggers):
            event = EVENT.match(sql)
            if event:
                self.db.execute('CREATE TRIGGER idle_%d %s ON "%s" BEGIN SELECT RAISE(ABORT, \'\') WHERE 0; END' % (
                    k, event[1], table.replace('"', '""')))

    def rows(self):
        self.db.close()
        return dump(self.path)


def said(call):
    """The errors of a call, or None."""
    try:
        return call() or None
    except SqlError as e:
        return str(e)


def transaction(db, steps):
    """As node_worker.py does it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for sql, args in steps:
            db.execute(sql, args)
        db.execute("COMMIT")
    except sqlite3.Error as e:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise SqlError("%s: %s" % (type(e).__name__, e)) from e


def each(db, steps):
    """As node_worker.py does it: past what fails."""
    failed = []
    db.execute("BEGIN IMMEDIATE")
    for sql, args in steps:
        try:
            db.execute(sql, args).fetchall()
        except sqlite3.Error as e:
            failed.append("%s: %s" % (type(e).__name__, e))
        if not db.in_transaction:
            return failed
    try:
        db.execute("COMMIT")
    except sqlite3.Error as e:
        db.execute("ROLLBACK")
        raise SqlError("%s: %s" % (type(e).__name__, e)) from e
    return failed


class Run:
    def __init__(self, ws, seed, options):
        self.ws, self.rng = ws, random.Random(seed)
        self.capture = options.capture or self.rng.choice(["auto", "trigger", "hook"])
        self.shards = options.shards or self.rng.choice([1, 1, 4])
        wide = self.rng.random() < 0.4
        encodings = ["UTF-8", "UTF-16le" if wide else "UTF-8", self.rng.choice(["UTF-16be", "UTF-8"]) if wide else "UTF-8"]
        note("seed %d: capture %s, %d shards, %s" % (seed, self.capture, self.shards, ", ".join(encodings)))
        self.tables = Tables(self.rng, not wide)
        self.committed = self.refused = 0
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url]}, "capture": self.capture, "replication_log": {"shards": self.shards}}
        self.nodes = [self.node(name, encoding, config) for name, encoding in zip("abc", encodings)]
        for n in self.nodes:
            wait_until(lambda: n.sync(10000) == 1, 30, "%s has joined" % n.name)
        self.unsupported = dict(self.nodes[0].sql("SELECT name, why FROM marmot_tables WHERE state <> 'watched'"))
        self.tables.leave(self.unsupported)

    def node(self, name, encoding, config):
        path = os.path.join(self.ws.dir, name + ".db")
        db = sqlite3.connect(path)
        db.execute("PRAGMA encoding = '%s'" % encoding)
        db.execute("PRAGMA journal_mode = wal")
        db.executescript(self.tables.schema)
        db.close()
        node = Node(self.ws, name, config=config, db=path)
        node.sql("PRAGMA foreign_keys = on")
        return node

    def turn(self, k):
        """The problems of one turn; none: equal."""
        if self.capture != "hook" and k > 0:  # where each counts as a commit that was not captured
            self.alter()
        writer = self.rng.choice(self.nodes)
        plain = self.capture != "hook" and self.rng.random() < 0.4
        twin = Twin(os.path.join(self.ws.dir, "twin%d.db" % k), writer.db)
        db = sqlite3.connect(writer.db, isolation_level=None, timeout=20 * SLOW)
        for pragma in ("PRAGMA foreign_keys = on", "PRAGMA recursive_triggers = %d" % (self.rng.random() < 0.3)):
            db.execute(pragma)
            twin.db.execute(pragma)
            writer.sql(pragma)
        for name in ("par", "bag"):
            writer.sql("DROP TABLE IF EXISTS temp." + name)
        for _ in range(TRANSACTIONS):
            steps = self.tables.transaction()
            if self.rng.random() < 0.4:
                here = said(lambda: each(db, steps) if plain else writer.each(steps))
                there = said(lambda: each(twin.db, steps))
            else:
                here = said(lambda: transaction(db, steps) if plain else writer.txn(steps))
                there = said(lambda: transaction(twin.db, steps))
            self.committed += there is None
            self.refused += there is not None
            if here != there:
                return ["turn %d, %s %s: it says %s, the twin %s: %.1500s" % (k, writer.name, "plain" * plain, here, there, steps)]
        db.close()
        problems = self.settle()
        if not problems:
            problem = difference(twin.rows(), writer.dump())
            problems = ["turn %d, %s %s and twin: %.1500s" % (k, writer.name, "plain" * plain, problem)] if problem else []
        return problems

    def alter(self):
        for _ in range(self.rng.randrange(3)):
            change = self.tables.alter()
            answers = []
            for n in self.nodes:
                if self.rng.random() < 0.5:
                    n.sql("SELECT count(*) FROM sqlite_schema")  # ALTER TABLE itself asks nobody for another one's columns
                    answers.append(said(lambda: n.sql(change) and None))
                    continue
                db = sqlite3.connect(n.db, isolation_level=None, timeout=20 * SLOW)
                try:
                    db.execute(change)
                    answers.append(None)
                except sqlite3.Error as e:
                    answers.append("%s: %s" % (type(e).__name__, e))
                db.close()
            if len(set(answers)) > 1:
                raise Timeout("%s: %s" % (change, answers))

    def settle(self):
        problems = ["%s does not sync: %s" % (n.name, n.status()) for n in self.nodes if n.sync(30000) != 1]
        try:
            wait_equal(self.nodes, 20)
        except Timeout as e:
            problems.append("%.1500s" % e)
        return problems + ["%s: %s" % (n.name, s) for n in self.nodes for s in [integrity(n.db)] if s != "ok"]

    def conflicts(self):
        """Of one writer at a time. A row may come before the one that it refers to, where these are of two shards."""
        expected = "foreign_key" if self.shards > 1 else ""
        return ["%s: a conflict: %s" % (n.name, c) for n in self.nodes
                for c in n.sql("SELECT * FROM marmot_conflicts WHERE kind <> ? LIMIT 3", expected)]

    def at_once(self):
        for _ in range(AT_ONCE):
            for n in self.nodes:
                n.send_txn(self.tables.transaction(3))
            for n in self.nodes:
                self.committed += said(n.receive) is None
        problems = self.settle()
        if not problems:
            unequal = [g for g in json.loads(self.nodes[0].one("SELECT marmot_verify(20000)")) if not g.get("equal")]
            problems = ["marmot_verify: %s" % g for g in unequal[:2]]
        for n in self.nodes:
            status = n.status()
            if status["state"] != "live" or status["warnings"]:
                problems.append("%s is %s: %s" % (n.name, status["state"], status["warnings"]))
            left = dict(n.sql("SELECT name, why FROM marmot_tables WHERE state <> 'watched'"))
            if left != self.unsupported:
                problems.append("%s: %s" % (n.name, left))
        return problems

    def judge(self):
        for k in range(TURNS):
            problems = self.turn(k)
            if problems:
                return problems
        return self.conflicts() or self.at_once()


def one(seed, options):
    with Workspace() as ws:
        run = None
        try:
            run = Run(ws, seed, options)
            problems = run.judge()
        except (Timeout, SqlError, Died) as e:
            problems = ["%s: %s" % (type(e).__name__, e)]
        if problems:
            for p in problems:
                note(p)
            folder = os.path.join(tempfile.gettempdir(), "marmot-twin-%d" % seed)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(ws.dir, folder, symlinks=True)
            if run is not None:
                with open(os.path.join(folder, "schema.sql"), "w") as f:
                    f.write(run.tables.schema)
            note("folder " + folder)
        elif run.committed < TURNS * TRANSACTIONS / 4:
            problems = ["only %d transactions came about" % run.committed]
        check("seed %d: as plain SQLite, row for row: %s" % (seed, run and "%d transactions, %d refused, %d tables unsupported" % (
            run.committed, run.refused, len(run.unsupported))), not problems, problems[:2])


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=os.environ.get("MARMOT_TEST_SEED"))
    parser.add_argument("--capture", choices=["auto", "trigger", "hook"])
    parser.add_argument("--shards", type=int)
    options = parser.parse_args()
    end = time.monotonic() + (options.seconds or 0)
    while True:
        one(int(options.seed) if options.seed is not None else random.SystemRandom().randrange(1, 1 << 31), options)
        if options.seed is not None or time.monotonic() > end:
            break
    finish()


main()
