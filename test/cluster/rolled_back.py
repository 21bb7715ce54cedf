"""The replicating process can write nothing to its disk any more: what it folds is
rolled back at COMMIT. It tells of its file alone meanwhile (positions, what waits in
the outbox, no sync that succeeds), and goes on from there once it can write. And where
it cannot write down what it compares with a copy, whoever waits for that is told.
marmot-test: parallel
"""
import os
import resource
import select
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import everywhere, peek  # noqa: E402
from outbox_file import transactions  # noqa: E402

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER);"
LOOK_S = 1.5
MESSAGES, MOST = 6, 15  # that wait to be folded; attempts in this time
ERROR = "disk I/O error"


def writes(node, may):
    size = resource.RLIM_INFINITY if may else 0
    hard = resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def waiting_echo(nats, a, b):
    """A transaction of b is in the log, behind one of a, and b has folded neither."""
    nats.stop()
    b.sql("UPDATE t SET n = 20 WHERE id = 1")  # its echo writes: the column has a policy
    b.sql("BEGIN IMMEDIATE", conn=1)
    nats.start()
    wait_until(lambda: peek(a.db, "SELECT n FROM t WHERE id = 1")[0][0] == 20, 20, "a has what b wrote")
    for k in range(5):
        a.sql("INSERT INTO t VALUES (?, 0)", 100 + k)
    check("a syncs", a.sync(20000) == 1, a.status())


def looks(b, position):
    """What b says while nothing that it folds is stored."""
    said = []
    wait_until(lambda: ERROR in (b.status()["last_error"] or ""), 20, "a batch fails")
    began = b.status()["shards"][0]["folded"]
    until = time.monotonic() + LOOK_S
    while time.monotonic() < until:
        s = b.status()
        said.append((s["shards"][0]["position"], s["outbox"]["rows"], s["tables"][0]["state"]))
    check("no place beyond that of its file is told", {p for p, _, _ in said} == {position}, sorted(set(said)))
    check("what waits in the outbox is told", {rows for _, rows, _ in said} == {1}, sorted(set(said)))
    check("and its table is watched", {state for _, _, state in said} == {"watched"}, sorted(set(said)))
    again = (b.status()["shards"][0]["folded"] - began) / MESSAGES
    note("%d attempts in %g s" % (again, LOOK_S))
    check("an attempt is made now and then", 1 <= again < MOST, again)
    try:
        synced = b.sync(500)
    except SqlError as e:
        synced = str(e)
    check("no sync succeeds", synced != 1, synced)


def apart(a, b):
    """A table of b that stays out: a copy that is brought is compared with it, too."""
    for n in (a, b):
        n.sql("CREATE TABLE apart(id INTEGER PRIMARY KEY, v)")
        n.sql("INSERT INTO apart VALUES (1, ?)", "of " + n.name)
    for n in (a, b):
        n.sql("SELECT marmot_watch('apart')")
        check("%s syncs once it watches" % n.name, n.sync(20000) == 1, n.status())
    wait_until(lambda: b.sql("SELECT state FROM marmot_tables WHERE name = 'apart'") == [("stale",)], 20, "it stays out")
    b.sql("INSERT INTO t VALUES (500, 0)")
    check("and syncs behind it", b.sync(20000) == 1 and a.sync(20000) == 1, b.status())
    end = b.status()["shards"][0]["end"]
    wait_until(lambda: b.status()["outbox"]["rows"] == 0 and peek(b.db, "SELECT seq FROM __marmot__position") == [(end,)] and
               seen(a, b) == ("live", "[%d]" % end), 20, "nothing waits to be stored")


def seen(a, b):
    return a.sql("SELECT state, positions FROM marmot_nodes WHERE name = ?", os.path.basename(b.db))[0]


def not_compared(a, b):
    """What is compared is written down first, here under a lock that ends when nothing can be written."""
    lock = sqlite3.connect(b.db, isolation_level=None, timeout=10)
    lock.execute("BEGIN IMMEDIATE")
    b.send_sql("SELECT marmot_restore()")
    wait_until(lambda: seen(a, b)[0] == "joining", 20, "b stands still")
    writes(b, False)
    lock.execute("ROLLBACK")
    lock.close()
    answered = select.select([b.process.stdout], [], [], 20 * SLOW)[0] != []
    writes(b, True)
    try:
        said = b.receive()
    except SqlError as e:
        said = str(e)
    check("a call that cannot be written down is answered at once, with the cause", answered and ERROR in said, (answered, said))
    b.wait_state("live")
    check("and works when there is a disk again", "id" in json.loads(b.one("SELECT marmot_restore()")), b.status())


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}}
        a, b = (Node(ws, name, config=config, schema=SCHEMA, watch=False) for name in "ab")
        for n in (a, b):
            n.sql("SELECT marmot_watch('t')")
        a.sql("INSERT INTO t VALUES (1, 10)")
        a.one("SELECT marmot_policy('t', 'n', 'max')")
        for n in (a, b, a):
            check("%s syncs" % n.name, n.sync(20000) == 1, n.status())
        b.open(1)
        waiting_echo(nats, a, b)
        stored = peek(b.db, "SELECT seq FROM __marmot__position")[0][0]
        waits = transactions(b.db)
        writes(b, False)
        b.sql("ROLLBACK", conn=1)
        looks(b, stored)
        check("its file holds what it held", peek(b.db, "SELECT seq FROM __marmot__position")[0][0] == stored
              and transactions(b.db) == waits, (stored, waits))
        writes(b, True)
        b.wait_state("live")
        for n in (a, b):
            check("%s syncs when there is a disk again" % n.name, n.sync(20000) == 1, n.status())
        common = everywhere([a, b])
        check("nothing is lost", len(common["t"][1]) == 6, common)
        apart(a, b)
        not_compared(a, b)
        for n in (a, b):
            n.quit()
    finish()


main()
