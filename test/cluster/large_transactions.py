"""Transactions far above the message size travel in parts: they arrive whole or
not at all, whatever a reader sees meanwhile and whenever the writer is killed.
marmot-test: limit=300
"""
import os
import sqlite3
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB);
CREATE TABLE many(id INTEGER PRIMARY KEY, batch INTEGER, v TEXT);
CREATE TABLE small(id INTEGER PRIMARY KEY, v);
"""
SMALLER = 10 if "tsan" in os.environ.get("MARMOT_PRELOAD", "") else 1  # the thread sanitizer looks at each byte
BLOB = (20 << 20) // SMALLER
ROWS = 100000 // SMALLER
KILLS = 8
BATCH = 4000  # rows of a killed transaction, about 2 MB of text that no compression shrinks
FILL = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) " \
       "INSERT INTO many SELECT %d + i, %d, %s FROM n"


class Watching:
    """A reader that counts, without pause, how many rows of each batch are there."""

    def __init__(self, path, whole):
        self.path = path
        self.whole = whole
        self.halves = []
        self.reads = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        db = sqlite3.connect(self.path, isolation_level=None, timeout=5)
        while not self.done.is_set():
            self.reads += 1
            for batch, rows in db.execute("SELECT batch, count(*) FROM many GROUP BY batch"):
                if rows != self.whole(batch):
                    self.halves.append("%d rows of batch %d" % (rows, batch))
        db.close()

    def end(self):
        self.done.set()
        self.thread.join()


def blobs(a, b):
    a.txn([("INSERT INTO big VALUES (?, randomblob(?))", [1, BLOB]),
           ("INSERT INTO big VALUES (?, zeroblob(?))", [2, BLOB]), ("INSERT INTO small VALUES (1, 'beside')", [])])
    start = time.monotonic()
    check("rows of %d MB sync" % (BLOB >> 20), a.sync(60000) == 1 and b.sync(60000) == 1, a.status())
    note("two of them took %.1f s" % (time.monotonic() - start))
    everywhere([a, b])
    b.sql("UPDATE big SET v = substr(v, 1, ?) || x'00ff' WHERE id = 1", BLOB // 21 * 20)
    check("a changed one syncs", b.sync(60000) == 1 and a.sync(60000) == 1, b.status())
    everywhere([a, b])
    ok("they arrive")


def many_rows(a, b):
    watching = Watching(b.db, lambda batch: ROWS)
    try:
        a.sql(FILL % (ROWS, 0, 1, "'row ' || i"))
        a.sql("INSERT INTO small VALUES (2, 'behind')")
        start = time.monotonic()
        check("%d rows in one transaction sync" % ROWS, a.sync(60000) == 1 and b.sync(60000) == 1, a.status())
        note("%d rows took %.1f s, %d looks meanwhile" % (ROWS, time.monotonic() - start, watching.reads))
        everywhere([a, b])
        b.sql("UPDATE many SET v = v || '!'")
        check("an update of all of them syncs", b.sync(60000) == 1 and a.sync(60000) == 1, b.status())
        everywhere([a, b])
    finally:
        watching.end()
    check("no reader of the replica saw a part of it", not watching.halves and watching.reads > 0, watching.halves[:3])
    a.sql("DELETE FROM many")
    check("their deletion syncs", a.sync(60000) == 1 and b.sync(60000) == 1, a.status())
    everywhere([a, b])


def killed(a, b, rng):
    """The writer dies somewhere between the first part and the last."""
    watching = Watching(b.db, lambda batch: BATCH)
    torn = 0
    try:
        for k in range(KILLS):
            a.sql(FILL % (BATCH, 10000 * (k + 1), k + 1, "hex(randomblob(300))"))
            a.sql("INSERT INTO small VALUES (?, 'behind')", 100 + k)
            # Every other kill waits for the first part at b, the others come at a drawn moment.
            if k % 2 == 0:
                wait_until(lambda: parts(b), 10, "a part has arrived", 0.001)
            else:
                time.sleep(rng.random() * 0.05)
            a.kill()
            b.sql("INSERT INTO small VALUES (?, 'of b')", 200 + k)
            check("b goes on beside the torn transaction %d" % k, b.sync(20000) == 1, b.status())
            torn += parts(b) > 0
            a.start()
            check("it is sent again (%d)" % k, a.sync(30000) == 1 and b.sync(30000) == 1, a.status())
            check("and is whole (%d)" % k, peek(b.db, "SELECT count(*) FROM many WHERE batch = ?", k + 1)[0][0] == BATCH
                  and peek(b.db, "SELECT count(*) FROM small WHERE id IN (?, ?)", 100 + k, 200 + k)[0][0] == 2, "it is not")
    finally:
        watching.end()
    note("%d of %d kills tore a transaction" % (torn, KILLS))
    check("some kills tore a transaction between its parts", torn > 0, "none did")
    check("no reader saw a part of a torn one", not watching.halves and watching.reads > 0, watching.halves[:3])
    everywhere([a, b])


def interleaved(a, b):
    """Both send a large one at the same time; b, which is in the middle of both, dies."""
    for k, n in enumerate((a, b)):
        n.send_sql(FILL % (4 * BATCH, 1000000 * (k + 1), 100 + k, "hex(randomblob(300))"))
    for n in (a, b):
        n.receive()
    both = "SELECT count(DISTINCT node) FROM __marmot__part"
    wait_until(lambda: peek(b.db, both)[0][0] == 2, 20, "parts of both nodes wait at b", 0.001)
    b.kill()
    b.start()
    for n in (a, b):
        check("%s syncs after both were sent" % n.name, n.sync(60000) == 1, n.status())
    everywhere([a, b])
    for k in range(2):
        check("the one of %s is whole" % "ab"[k],
              peek(a.db, "SELECT count(*) FROM many WHERE batch = ?", 100 + k)[0][0] == 4 * BATCH, "it is not")


def peak(node):
    with open("/proc/%d/status" % node.process.pid) as f:
        return next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmHWM"))


def memory(a, b):
    """60 MB in one transaction, whole processes with their Python: printed, less than 200 MB each."""
    a.sql(FILL % (60000 // SMALLER, 0, 1, "hex(randomblob(500))"))
    check("%d MB sync" % (60 // SMALLER), a.sync(60000) == 1 and b.sync(60000) == 1, a.status())
    everywhere([a, b])
    used = [peak(n) for n in (a, b)]
    note("resident at most: writer %d MB, replica %d MB" % tuple(used))
    bar("60 MB in one transaction take less than 200 MB", max(used) < 200, used)


def parts(node):
    return peek(node.db, "SELECT count(*) FROM __marmot__part")[0][0]


def pair(ws, config):
    nodes = [Node(ws, name, config=config, schema=SCHEMA) for name in "ab"]
    for n in nodes:
        check("%s joins" % n.name, n.sync(20000) == 1, n.status())
    return nodes


def end(nodes):
    for n in nodes:
        n.quit()
    everywhere(nodes)
    check("no part is left behind", [parts(n) for n in nodes] == [0, 0], [parts(n) for n in nodes])


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        nodes = pair(ws, {"nats": {"urls": [nats.url]}})
        blobs(*nodes)
        many_rows(*nodes)
        end(nodes)
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        nodes = pair(ws, {"nats": {"urls": [nats.url]}, "replication_log": {"part_size": 4096}})
        killed(*nodes, rng)
        interleaved(*nodes)
        end(nodes)
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        nodes = pair(ws, {"nats": {"urls": [nats.url]}})
        memory(*nodes)
        end(nodes)
    finish()


main()
