"""One writer of a random mixture: a process that writes a file in one way.

    mixed_writer.py KIND DATABASE EXTENSION CONFIG SEED TRANSACTIONS

KIND: `plain` loads nothing, `alias` loads nothing and writes an attached name,
`captured` loads the extension, `denied` too and has an authorizer that denies
what we do, another one every few transactions or none, `interrupted` is
interrupted by a thread at random moments, `starved` has a hard heap limit that
lets an allocation fail. Whatever fails is rolled back unless SQLite did it.
The last line of the output is JSON: how many were committed, what failed how
often, how often the authorizer denied, and what `"__marmot__connection"()` answered.
"""
import collections
import ctypes
import json
import os
import random
import sqlite3
import sys
import threading
import time

from random_statements import transaction

WRITES = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE)
DENY, OK = sqlite3.SQLITE_DENY, sqlite3.SQLITE_OK
AUTHORIZERS = [
    None,
    lambda act, a, b, c, by: DENY if act == sqlite3.SQLITE_DELETE and a == "marmot_capture" else OK,
    lambda act, a, b, c, by: DENY if act in WRITES and a == "marmot_capture" and by is None else OK,
    lambda act, a, b, c, by: DENY if act in WRITES and a == "marmot_capture" else OK,
    lambda act, a, b, c, by: DENY if act in WRITES and str(a).startswith("__marmot__") and by is None else OK,
    lambda act, a, b, c, by: DENY if act in WRITES and (str(a).startswith("__marmot__") or a == "marmot_capture") and
    by is None else OK,
]
LONG = ("INSERT OR REPLACE INTO wide(id, c0, c39) WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n"
        " WHERE i < 600) SELECT i, %d, randomblob(20) FROM n")


class Writer:
    def __init__(self, kind, path, extension, config, rng):
        self.kind = kind
        self.rng = rng
        self.failed = collections.Counter()
        self.states = collections.Counter()
        self.committed = self.denied = 0
        slow = float(os.environ.get("MARMOT_TEST_SLOW") or 1)
        self.db = sqlite3.connect(":memory:" if kind == "alias" else path, isolation_level=None, timeout=20 * slow,
                                  check_same_thread=False)
        if kind == "alias":
            self.db.execute("ATTACH ? AS app", (path,))
        elif kind != "plain":
            self.db.enable_load_extension(True)
            self.db.load_extension(extension)
            self.db.execute("SELECT marmot_init(?)", (config,)).fetchall()
        self.sqlite = ctypes.CDLL("libsqlite3.so.0")
        self.sqlite.sqlite3_hard_heap_limit64.argtypes = [ctypes.c_int64]
        self.sqlite.sqlite3_memory_used.restype = ctypes.c_int64

    def step(self, sql):
        """One statement; a starved one has a random number of bytes more than are in use."""
        starve = self.kind == "starved" and self.rng.random() < 0.3
        if starve:
            room = int(10 ** self.rng.uniform(1, 5.3))
            self.sqlite.sqlite3_hard_heap_limit64(self.sqlite.sqlite3_memory_used() + room)
        try:
            self.db.execute(sql).fetchall()
            return True
        except (sqlite3.Error, MemoryError) as e:
            self.failed[("%s: %s" % (type(e).__name__, e)).split(" constraint")[0]] += 1
            return False
        finally:
            if starve:
                self.sqlite.sqlite3_hard_heap_limit64(0)

    def transaction(self):
        steps = transaction(self.rng).split("; ")
        if self.rng.random() < 0.2:
            steps.insert(len(steps) - 1, LONG % self.rng.randrange(1000))
        if self.kind not in ("plain", "alias") and self.rng.random() < 0.3:
            steps = [s for s in steps[1:-1] if "SAVEPOINT" not in s and not s.startswith(("ROLLBACK", "RELEASE"))]
        for sql in steps:
            done = self.step(sql)
            if sql == "COMMIT" and done:
                self.committed += 1
            elif sql == "BEGIN IMMEDIATE" and not done:
                break
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def authorize(self, allows):
        def counted(*asked):
            answer = allows(*asked)
            self.denied += answer == DENY
            return answer
        self.db.set_authorizer(counted if allows else None)

    def look(self):
        if self.kind not in ("plain", "alias"):
            self.states[self.db.execute('SELECT "__marmot__connection"()').fetchone()[0]] += 1

    def interrupt(self, end):
        rng = random.Random(self.rng.random())
        while not end.wait(rng.random() * 0.004):
            self.db.interrupt()

    def run(self, transactions):
        end = threading.Event()
        thread = threading.Thread(target=self.interrupt, args=(end,))
        for k in range(transactions):
            if self.kind == "denied" and k % 4 == 0:
                self.authorize(self.rng.choice(AUTHORIZERS))
            if self.kind == "interrupted" and k == 0:
                thread.start()
            try:
                self.transaction()
                self.look()
            except sqlite3.OperationalError as e:
                self.failed["%s" % e] += 1
            time.sleep(self.rng.random() * 0.01)
        end.set()
        if thread.ident is not None:
            thread.join()
        self.db.set_authorizer(None)
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self.db.close()


def main():
    kind, path, extension, config, seed, transactions = sys.argv[1:]
    w = Writer(kind, path, extension, config, random.Random(int(seed)))
    w.run(int(transactions))
    print(json.dumps({"committed": w.committed, "denied": w.denied, "failed": w.failed, "states": w.states}))


main()
