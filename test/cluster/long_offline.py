"""Two nodes write the same rows for a long time without a server: thousands of
pending transactions on each. When it is back they end equal, what each wrote
stands on top meanwhile, and nobody else waits long for the lock.
marmot-test: limit=180
"""
import os
import sqlite3
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE acc(id INTEGER PRIMARY KEY, v, who, n INTEGER NOT NULL DEFAULT 0);
CREATE TABLE uniq(id INTEGER PRIMARY KEY, u UNIQUE, v);
CREATE TABLE bag(x, y);
CREATE TABLE wide(id INTEGER PRIMARY KEY, v);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 6000) INSERT INTO wide SELECT i, 'old' FROM c;
"""
PENDING = int(os.environ.get("PENDING", 5000))
ROWS = 400  # that both write
# With windows of 256 messages each node undid and redid everything 20 times.
LONGEST = 4


def write(node, who, rng):
    """PENDING transactions in one process of its own speed; the sum of n stays 0."""
    batch = [[("UPDATE wide SET v = ? WHERE id = 5", ["one of %d" % who])],
             [("UPDATE wide SET v = ? WHERE id <> 7", ["all of %d" % who])],  # too many rows to remember each
             [("UPDATE wide SET v = ? WHERE id = 6", ["one of %d" % who])]]
    for k in range(PENDING):
        one, two = rng.randrange(ROWS), rng.randrange(ROWS)
        dice = rng.random()
        if dice < 0.45:
            steps = [("UPDATE acc SET v = ?, who = ? WHERE id = ?", [k, who, one])]
        elif dice < 0.7:
            steps = [("UPDATE acc SET n = n - ? WHERE id = ?", [k % 7, one]),
                     ("UPDATE acc SET n = n + ? WHERE id = ?", [k % 7, two])]
        elif dice < 0.8:
            steps = [("INSERT INTO acc(id, v, who) VALUES (?, ?, ?)", [10000 * (1 + who) + k, k, who])]
        elif dice < 0.9:
            steps = [("INSERT OR REPLACE INTO uniq VALUES (?, ?, ?)", [rng.randrange(ROWS), rng.randrange(ROWS), k])]
        else:
            steps = [("INSERT INTO bag VALUES (?, ?)", [who, k])]
        batch.append(steps)
    for steps in batch:
        node.send_txn(steps)
        node.receive()


class Other:
    """Another application of the same file: how long it waits for the write lock."""

    def __init__(self, path):
        self.path, self.waits, self.done = path, [0], threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        db = sqlite3.connect(self.path, timeout=120, isolation_level=None)
        while not self.done.is_set():
            start = time.monotonic()
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
            self.waits.append(time.monotonic() - start)
            time.sleep(0.01)
        db.close()

    def end(self):
        self.done.set()
        self.thread.join()
        return max(self.waits)


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        nodes = [Node(ws, name, urls=nats.url, schema=SCHEMA) for name in "ab"]
        for n in nodes:
            n.wait_state("live")
            n.sql("SELECT marmot_policy('acc', 'n', 'delta')")
        nodes[0].many("INSERT INTO acc(id) VALUES (?)", [[k] for k in range(ROWS)])
        for n in nodes:
            check("%s is there" % n.name, n.sync(20000) == 1, n.status())
        nats.stop()
        start = time.monotonic()
        threads = [threading.Thread(target=write, args=(n, k, random.Random(rng.random()))) for k, n in enumerate(nodes)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        note("%d transactions on each node in %.1f s" % (PENDING, time.monotonic() - start))
        others = [Other(n.db) for n in nodes]
        try:
            nats.start()
            start = time.monotonic()
            wait_until(lambda: all(n.status()["outbox"]["rows"] == 0 for n in nodes), 120, "the outboxes are sent", 0.05)
            everything = wait_equal(nodes, 60)
        finally:
            waits = [o.end() for o in others]
        note("equal %.2f s after the server; others waited %s s at most" % (
            time.monotonic() - start, " and ".join("%.2f" % w for w in waits)))
        ok("equal after a long time offline")
        bar("nobody waits long for the lock", max(waits) < LONGEST, waits)
        rows = everything["acc"][1]
        check("transfers of both nodes add up", sum(r[3][1] for r in rows) == 0, [r for r in rows if r[3][1]][:3])
        check("every new row is there", len(everything["bag"][1]) > PENDING // 10, len(everything["bag"][1]))
        for n in nodes:
            n.quit()
    finish()


main()
