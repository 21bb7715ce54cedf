"""autoincrement = "partition": ids that SQLite makes for AUTOINCREMENT tables never
meet. Three nodes insert without a server, then all at once with one, by plain
statements, RETURNING, last_insert_rowid() for child rows, INSERT .. SELECT of
thousands, plain shells, in modes 'auto' and 'trigger', over kill -9 and a newcomer
with a copy of a file; every row arrives under the id that its writer was told, and no
conflict is recorded; so it stays when the log is gone and a new epoch begins. A table
without AUTOINCREMENT is named by a warning; a node of the cluster with another setting
stays out.
marmot-test: parallel limit=180
"""
import os
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from rejoining import named, rejoin  # noqa: E402

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, who, n);
CREATE TABLE "odd name"("the id" INTEGER PRIMARY KEY AUTOINCREMENT, t_id REFERENCES t(id), who);
CREATE TABLE other(k TEXT PRIMARY KEY, v);
INSERT INTO t(who, n) VALUES ('start', 1), ('start', 2);
"""
BLOCK = 1 << 13


def settle(nodes):
    for n in nodes + nodes:
        if n.sync(30000) != 1:
            raise Timeout("%s does not come to an end: %s" % (n.name, n.status()))
    return everywhere(nodes)


def shell(path, text):
    done = subprocess.run(["sqlite3", "-batch", path], input=".timeout 10000\n" + text, capture_output=True, text=True,
                          env=plain_env())
    check("the shell meets no error", done.stderr == "" and done.returncode == 0, done.stderr)
    return done.stdout.strip()


def place(node):
    """Slot of the last id, and its number in the block."""
    seq = node.one("SELECT seq FROM sqlite_sequence WHERE name = 't'")
    return seq // BLOCK % 256, seq % BLOCK


class Told:
    """Ids as their writers were told them."""

    def __init__(self):
        self.lock, self.rows = threading.Lock(), {}

    def insert(self, node, n):
        told = node.one("INSERT INTO t(who, n) VALUES (?, ?) RETURNING id", node.name, n)
        self.add(told, node.name, n)
        return told

    def add(self, told, who, n):
        with self.lock:
            if told in self.rows:
                check("an id is given once", False, (told, who, n, self.rows[told]))
            self.rows[told] = (who, n)

    def compare(self, what, nodes):
        settle(nodes)
        for n in nodes:
            there = {r[0]: (r[1], r[2]) for r in n.sql("SELECT id, who, n FROM t WHERE who <> 'start' AND who <> 'bulk'")}
            check("%s: %s has each row under its id" % (what, n.name), there == self.rows,
                  "%d and %d rows" % (len(there), len(self.rows)))
            check("%s: no conflict on %s" % (what, n.name), n.one("SELECT count(*) FROM marmot_conflicts") == 0,
                  n.sql("SELECT * FROM marmot_conflicts LIMIT 3"))


def apart(nats, nodes, told):
    nats.stop()
    for k in range(20):
        for n in nodes:
            told.insert(n, k)
    for n in nodes:
        n.sql("BEGIN")
        n.sql("INSERT INTO t(who, n) VALUES (?, 100)", n.name)
        last = n.one("SELECT last_insert_rowid()")
        n.sql("INSERT INTO \"odd name\"(t_id, who) VALUES (last_insert_rowid(), ?)", n.name)
        n.sql("COMMIT")
        told.add(last, n.name, 100)
        told.add(int(shell(n.db, "INSERT INTO t(who, n) VALUES ('%s', 101); SELECT last_insert_rowid();" % n.name)),
                 n.name, 101)
    nats.start()
    told.compare("apart", nodes)
    rows = nodes[0].sql('SELECT t.who, o.who FROM "odd name" o JOIN t ON t.id = o.t_id')
    check("child rows belong to their parents", len(rows) == len(nodes) and all(x == y for x, y in rows), rows)


def at_once(nodes, told, count):
    """All insert at the same time, with what the others write coming in between."""
    def writer(n):
        for k in range(count):
            told.insert(n, 1000 + k)
    threads = [threading.Thread(target=writer, args=(n,)) for n in nodes]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    told.compare("at once", nodes)


def bulk(nats, nodes, told):
    """Less than a block at once, without a server; and block after block."""
    nats.stop()
    for n in nodes:
        n.sql("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < ?) INSERT INTO t(who, n)"
              " SELECT 'bulk', i FROM c", BLOCK // 2 - 200)
    for n in nodes:
        slot = place(n)[0]
        for _ in range(2):
            n.sql("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < ?) INSERT INTO t(who, n)"
                  " SELECT 'bulk', i FROM c", BLOCK // 2 - 200)
            wait_until(lambda: place(n)[1] < BLOCK // 2 and place(n)[0] == slot, 10 * SLOW,
                       "%s takes another block of its own" % n.name)
        told.insert(n, 5000)
    nats.start()
    told.compare("bulk", nodes)
    rows = nodes[0].one("SELECT count(*) FROM t WHERE who = 'bulk'")
    check("bulk: all rows are there", rows == len(nodes) * 3 * (BLOCK // 2 - 200), rows)


def copied(ws, nats, config, nodes, told):
    """A copy of a file is another node's: another slot."""
    a = nodes[0]
    a.quit()
    path = os.path.join(ws.dir, "copy.db")
    shutil.copy(a.db, path)
    shell(path, "DELETE FROM __marmot__meta WHERE key = 'node_id'")
    a.start()
    d = Node(ws, "d", config=config, db=path)
    for n in (a, d):
        n.wait_state("live")
    nats.stop()
    for k in range(5):
        told.insert(a, 6000 + k)
        told.insert(d, 6000 + k)
    nodes.append(d)
    nats.start()
    told.compare("a copy of a file", nodes)


def log_is_gone(ws, nats, config, nodes, told):
    """The blocks are told apart by what the server knows: a new server is told again who has which, one more
    node takes none of these."""
    nats.wipe()
    nats.start()
    for n in nodes:
        n.wait_state("diverged", 40)
    rejoin(named(nodes[0], nodes)[0], "seed")
    for n in nodes:
        n.wait_state("live", 40)
    more = [Node(ws, name, config=config) for name in ("e", "f")]
    for n in more:
        wait_until(lambda: n.sql("SELECT 1 FROM marmot_tables WHERE name = 't' AND state = 'watched'"), 40,
                   "%s has joined" % n.name)
        n.wait_state("live", 40)
    nodes += more
    settle(nodes)
    check("the log is gone: all have blocks of their own", len({place(n)[0] for n in nodes}) == len(nodes),
          [place(n) for n in nodes])
    nats.stop()
    for n in nodes:
        told.insert(n, 8000)
    nats.start()
    told.compare("the log is gone", nodes)


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url]}, "autoincrement": "partition"}
        nodes = [Node(ws, name, config=dict(config, capture="trigger" if name == "c" else "auto"), schema=SCHEMA)
                 for name in "abc"]
        for n in nodes:
            n.wait_state("live")
            check("%s: no warning" % n.name, n.status()["warnings"] == [], n.status()["warnings"])
        wait_until(lambda: len({place(n)[0] for n in nodes}) == 3,
                   10 * SLOW, "each has a block of its own")
        told = Told()
        apart(nats, nodes, told)
        at_once(nodes, told, 150)
        nodes[1].kill()
        told.insert(nodes[0], 2000)
        nodes[1].start()
        at_once(nodes, Told_again(told), 30)
        bulk(nats, nodes, told)
        copied(ws, nats, config, nodes, told)
        log_is_gone(ws, nats, config, nodes, told)
        top = nodes[0].one("SELECT max(id) FROM t")
        check("ids are exact in JavaScript", top < 2 ** 53, top)
        nodes[0].sql("CREATE TABLE plain(id INTEGER PRIMARY KEY, v)")
        wait_until(lambda: any("table plain" in w for w in nodes[0].status()["warnings"]), 10 * SLOW,
                   "a table without AUTOINCREMENT is named")
        nodes[0].sql("UPDATE sqlite_sequence SET seq = ? WHERE name = 't'", 2 ** 53 - 5000)
        wait_until(lambda: any("2^53" in w for w in nodes[0].status()["warnings"]), 10 * SLOW, "the end of the blocks is said")
        check("and inserts go on there", told.insert(nodes[0], 7000) == 2 ** 53 - 4999, nodes[0].sql("SELECT max(id) FROM t"))
        shared = Node(ws, "shared", config={"nats": {"urls": [nats.url]}}, schema=SCHEMA)
        shared.wait_state("join_conflict")
        check("another setting stays out", "autoincrement" in shared.status()["why"], shared.status()["why"])
        for n in nodes + [shared]:
            n.quit()
        nats.stop()
    finish()


class Told_again:
    """The same, with numbers of another round."""

    def __init__(self, told):
        self.told = told

    def insert(self, node, n):
        return self.told.insert(node, 3000 + n)

    def compare(self, what, nodes):
        self.told.compare(what + ", after a kill", nodes)


main()
