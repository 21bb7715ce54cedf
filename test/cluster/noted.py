"""What triggers have noted, and nobody could move into the outbox yet, is not taken
for the cluster's: not by a snapshot, not by marmot_reconcile(), not where a copy
of the cluster's content is compared with what is here. Rows without a key and sums
tell: whoever takes it for the base has it twice when its message comes.
marmot-test: parallel
"""
import json
import os
import sqlite3
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE bag(x, y); CREATE TABLE score(id INTEGER PRIMARY KEY, n INT);"
HOLD = 1.0  # seconds: that long a writer keeps the lock


def config(nats, **more):
    return dict({"nats": {"urls": [nats.url]}}, **more)


class Writer:
    """A connection without the extension: commits, and has the write lock again at once,
    so that what triggers noted stays where it is."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None, timeout=10)

    def hold(self, text):
        def noted():
            self.db.executescript("BEGIN IMMEDIATE;" + text + ";COMMIT; BEGIN IMMEDIATE;")
            if self.db.execute("SELECT count(*) FROM __marmot__log").fetchone()[0] > 0:
                return True
            self.db.execute("ROLLBACK")  # the node was faster
            return False
        wait_until(noted, what="noted, and the lock is held")

    def end(self):
        self.db.execute("COMMIT")
        self.db.close()


def under_lock(node, text, call):
    w = Writer(node.db)
    w.hold(text)
    node.send_sql(call)
    time.sleep(HOLD)  # the fault on purpose: a writer that holds the lock
    w.end()
    return node.receive()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a = Node(ws, "a", config=config(nats), schema=SCHEMA)
        a.wait_state("live")
        a.sql("SELECT marmot_policy('score', 'n', 'delta')")
        a.sql("INSERT INTO score VALUES (1, 100)")
        a.sync()

        under_lock(a, "INSERT INTO bag VALUES (1, 'noted'), (1, 'noted'); UPDATE score SET n = n + 10",
                   "SELECT marmot_snapshot()")
        a.sync()
        late = Node(ws, "late", config=config(nats), schema="")
        late.wait_state("live")
        late.sync()
        rows = wait_equal([a, late])
        many = len(rows["bag"][1])
        check("a snapshot: a newcomer has each row once, and the sum", many == a.one("SELECT count(*) FROM bag") and
              late.one("SELECT n FROM score") == a.one("SELECT n FROM score"), rows)

        before = a.one("SELECT count(*) FROM bag")
        answer = under_lock(a, "INSERT INTO bag VALUES (2, 'noted'), (2, 'noted')", "SELECT marmot_reconcile()")
        found = json.loads(answer[0][0])
        a.sync()
        late.sync()
        rows = wait_equal([a, late])
        check("marmot_reconcile: there is nothing to find", found["rows"] == 0, found)
        check("marmot_reconcile: nothing twice", (len(rows["bag"][1]) - before) % 2 == 0 and
              len(rows["bag"][1]) == a.one("SELECT count(*) FROM bag"), rows["bag"])

        w = Writer(a.db)
        w.hold("INSERT INTO bag VALUES (4, 'noted')")
        try:
            said = a.one("SELECT marmot_snapshot()")
        except SqlError as e:
            said = str(e)
        finally:
            w.end()
        check("a lock that is not let go: no snapshot, and why", "what triggers have noted" in said and "locked" in said, said)
        check("then there is one again", '"id"' in a.one("SELECT marmot_snapshot()"), "no id")

        a.sql("PRAGMA busy_timeout = 0")
        w = Writer(a.db)
        w.hold("INSERT INTO bag VALUES (5, 'noted')")
        try:
            start = time.monotonic()
            said = a.one("SELECT marmot_sync(300)")
            took = time.monotonic() - start
        except SqlError as e:
            said, took = str(e), 0
        finally:
            w.end()
        check("marmot_sync: a lock that is not let go is a time-out", said == 0, said)
        bar("after the time that it was given", took < 3, "%.1f s" % took)
        check("and then it syncs", a.sync() == 1, a.status())
        a.sql("PRAGMA busy_timeout = %d" % (5000 * SLOW))

        under_lock(a, "INSERT INTO bag VALUES (3, 'noted'); UPDATE score SET n = n + 1", "SELECT marmot_restore()")
        a.sync()
        late.sync()
        wait_equal([a, late])
        ok("marmot_restore: what was noted stays pending")
    finish()


main()
