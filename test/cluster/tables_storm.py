"""Tables that each node makes, watches and writes at its own time, while links break, nodes
are killed and the server restarts: all of them join, by the log or with a copy, and end equal
everywhere; what was committed on an empty table is lost nowhere.

    tables_storm.py [--seconds N] [--seed S]

marmot-test: parallel limit=180
"""
import argparse
import os
import random
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from storm_proxy import Proxy  # noqa: E402
from storm_trouble import LINKS, trouble  # noqa: E402

SECONDS = 8
SHAPES = ["(k INTEGER PRIMARY KEY, v, u UNIQUE)", "(k TEXT PRIMARY KEY COLLATE NOCASE, v, u) WITHOUT ROWID",
          "(k TEXT NOT NULL, v, u UNIQUE, PRIMARY KEY(v, k))", "(k, v, u)"]
STATEMENTS = ["INSERT OR REPLACE INTO {t} VALUES ({k}, {v}, {u})", "INSERT INTO {t} VALUES ({k}{v}, {v}, NULL)",
              "UPDATE OR REPLACE {t} SET v = {v} WHERE k >= {k}", "DELETE FROM {t} WHERE k = {k}"]

FILL = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT OR REPLACE INTO t SELECT i, i FROM n"
NODES = "abc"


def own_key(name):
    return 1000 + NODES.index(name)


class One:
    """A node with a link of its own and a thread that makes, watches and writes tables."""

    def __init__(self, ws, server, name, seed, most, tables):
        self.rng = random.Random(seed)
        self.tables = tables
        self.proxy = Proxy(server.port)
        config = {"nats": {"urls": ["nats://127.0.0.1:%d" % self.proxy.port], "reconnect_wait_seconds": 1},
                  "replication_log": {"shards": 3, "max_entries": most}, "logging": {"verbose": True}}
        self.node = Node(ws, name, config=config, schema="CREATE TABLE t(id INTEGER PRIMARY KEY, v);")
        self.done = threading.Event()
        self.leave = threading.Event()  # a process that was started by a thread ends with it
        self.thread = threading.Thread(target=self.live)
        self.failed = None

    def make(self, name, shape):
        self.node.sql("CREATE TABLE IF NOT EXISTS %s%s" % (name, shape))
        self.node.sql("SELECT marmot_watch(?)", name)
        # A row of its own, whose key nobody else has: it must be there at the end.
        self.node.sql("INSERT INTO %s VALUES (?, ?, NULL)" % name, own_key(self.node.name), "own of " + self.node.name)

    def live(self):
        self.write()
        self.done.set()
        self.leave.wait()

    def write(self):
        rng = self.rng
        made = []
        todo = list(self.tables)
        try:
            while todo:
                if rng.random() < 0.01:
                    self.node.kill()
                    self.node.start()
                if rng.random() < 0.02:
                    made.append(todo.pop(0))
                    self.make(*made[-1])
                if made:
                    sql = rng.choice(STATEMENTS).format(t=rng.choice(made[-3:])[0], k=rng.randrange(1, 9),
                                                        v=rng.randrange(4), u=rng.randrange(5))
                    try:
                        self.node.sql(sql)
                        if rng.random() < 0.3:
                            self.node.sql(FILL)
                        if rng.random() < 0.02:
                            self.node.sql("SELECT marmot_watch(?)", rng.choice(made)[0])
                    except SqlError as e:
                        if "constraint" not in str(e):
                            raise
                time.sleep(rng.random() * 0.006)
        except Exception as e:  # noqa: BLE001
            self.failed = "%s: %s" % (self.node.name, e)


def states(ones):
    return {"%s.%s" % (o.node.name, t): "%s (%s)" % (s, w) for o in ones
            for t, s, w in o.node.sql("SELECT name, state, why FROM marmot_tables") if s != "watched"}


def one(ws, seed, count):
    rng = random.Random(seed)
    tables = [("late%d_%d" % (seed % 1000, k), rng.choice(SHAPES)) for k in range(count)]
    server = NatsServer(ws).start()
    most = rng.choice([100, 150, 200])
    ones = [One(ws, server, name, rng.randrange(1 << 30), most, tables) for name in NODES]
    for o in ones:
        o.thread.start()
    trouble(rng, server, ones, LINKS, 60, lambda: all(o.done.is_set() for o in ones))
    for o in ones:
        o.done.wait()
    check("seed %d: every node has written" % seed, not any(o.failed for o in ones), [o.failed for o in ones])
    nodes = [o.node for o in ones]
    said = ""
    try:
        wait_until(lambda: not states(ones), 30, "all tables have joined")
        for _ in range(2):
            wait_until(lambda: all(n.sync(5000) == 1 for n in nodes), 60, "all are in sync")
        said = difference(nodes[0].dump(), nodes[1].dump()) or difference(nodes[0].dump(), nodes[2].dump())
        for name, _ in tables:
            own = nodes[0].one("SELECT count(DISTINCT k) FROM %s WHERE CAST(k AS INTEGER) BETWEEN ? AND ?" % name,
                               own_key(NODES[0]), own_key(NODES[-1]))
            if own != len(NODES) and not said:
                said = "%s has %d of %d rows" % (name, own, len(NODES))
    except Timeout as e:
        said = "%s: %s" % (e, states(ones))
    for o in ones:
        o.leave.set()
    return check("seed %d: %d tables join and end equal on all nodes, with all their rows" % (seed, count), said == "",
                 said)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=os.environ.get("MARMOT_TEST_SEED"))
    o = parser.parse_args()
    end = time.monotonic() + o.seconds
    while True:
        with Workspace() as ws:
            one(ws, int(o.seed) if o.seed is not None else random.SystemRandom().randrange(1 << 31), 6)
        if o.seed is not None or time.monotonic() > end:
            break
    finish()


main()
