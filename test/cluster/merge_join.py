"""A database whose rows differ joins with `join` merge: it takes the cluster's
rows, sends those that exist only here, and the conflict log has what differed;
rows without keys by how many there are; a UNIQUE value that a row of the cluster
holds stays there. What was pending stays. With two shards.
marmot-test: parallel
"""
import glob
import json
import os
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, r REAL, b BLOB);
CREATE TABLE word(k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE uniq(id INTEGER PRIMARY KEY, u TEXT UNIQUE, w INT);
CREATE TABLE bag(x, y);
CREATE TABLE hole(k TEXT PRIMARY KEY, v);
CREATE TABLE same(id INTEGER PRIMARY KEY, v);
CREATE INDEX t_v ON t(v);
"""
CLUSTER = SCHEMA + """
INSERT INTO t VALUES (1, 'both', 1.5, x'00ff'), (2, 'of the cluster', 2, NULL), (3, 'there alone', -0.0, x'');
INSERT INTO word VALUES ('bob', 'cluster'), ('eve', 1), ('There', 2);
INSERT INTO uniq VALUES (1, 'a', 1), (2, 'b', 2), (3, 'taken', 3);
INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (1.0, 'x'), (NULL, x'00'), ('there', 'alone');
INSERT INTO hole VALUES (NULL, 1), (NULL, 1), ('k', 'cluster');
INSERT INTO same VALUES (1, 'equal');
"""
MINE = SCHEMA + """
INSERT INTO t VALUES (1, 'both', 1.5, x'00ff'), (2, 'mine', 2, NULL), (4, 'with' || char(0) || 'NUL', 1e300, x'00'),
    (5, NULL, 3, x'0000ff');
INSERT INTO word VALUES ('BOB', 'mine'), ('eve', 1), ('only', x'61');
INSERT INTO uniq VALUES (1, 'a', 1), (20, 'b', 20), (21, 'free', 21);
INSERT INTO bag VALUES (1, 'x'), (1.0, 'x'), (1.0, 'x'), (NULL, x'00'), ('mine', 'alone'), ('mine', 'alone');
INSERT INTO hole VALUES (NULL, 1), (NULL, 2), ('k', 'mine'), ('l', 'mine alone');
INSERT INTO same VALUES (1, 'equal');
"""
MANY = 25000 if SLOW == 1 else 11000


def config(nats, **more):
    return dict({"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}, "replication_log": {"shards": 2}}, **more)


def row(dumped, table, key):
    return [r for r in dumped[table][1] if r[0] == key]


def rows_of(common):
    check("t: the cluster's where both have the key, those of one side alone",
          [r[1][1] for r in common["t"][1] if r[0][1] < 10] ==
          ["both", "of the cluster", "there alone", "with\0NUL", ""], common["t"][1][:6])
    check("word: one row for both cases", sorted(r[0][1] for r in common["word"][1]) == ["There", "bob", "eve", "only"],
          common["word"])
    check("uniq: the cluster's row keeps its value", sorted(r[0][1] for r in common["uniq"][1]) == [1, 2, 3, 21],
          common["uniq"])
    bag = common["bag"][1]
    count = lambda r: sum(1 for x in bag if x == r)  # noqa: E731
    check("bag: of each row as many as the side with more has",
          [count(r) for r in (((1, 1), (3, "x")), ((2, (1.0).hex()), (3, "x")), ((0, ""), (4, "00")),
                              ((3, "mine"), (3, "alone")), ((3, "there"), (3, "alone")))] == [2, 2, 1, 2, 1]
          and len(bag) == 8, bag)
    check("hole: keys of NULL by how many there are",
          [r[1] for r in common["hole"][1]] == [(1, 1), (1, 1), (1, 2), (3, "cluster"), (3, "mine alone")],
          common["hole"])


def conflicts(node):
    found = {}
    for table, kind, lost, won in node.sql("SELECT \"table\", kind, lost, won FROM marmot_conflicts"):
        found.setdefault((table, kind), []).append((json.loads(lost), json.loads(won)))
    check("conflicts: what differed, with both values",
          [(x["v"], y["v"]) for x, y in found.get(("t", "insert"), [])] == [("mine", "of the cluster")] and
          [(x["k"], y["k"]) for x, y in found.get(("word", "insert"), [])] == [("BOB", "bob")] and
          [(x["v"], y["v"]) for x, y in found.get(("hole", "insert"), [])] == [("mine", "cluster")], found)
    check("conflicts: the UNIQUE value that is taken",
          [(x["id"], y["id"]) for x, y in found.get(("uniq", "unique"), [])] == [(20, 2)], found)
    check("conflicts: a pending UPDATE of a row that the cluster did not have yet",
          [x["v"] for x, _ in found.get(("t", "update_missing"), [])] == ["pending, too"], found)
    check("conflicts: nothing else", sum(len(v) for v in found.values()) == 5, found)


def stays_out(ws, nats):
    """Each attempt to join makes a copy of the file: of those that came to nothing none stays."""
    n = Node(ws, "out", config=config(nats, join="adopt"), schema=None, watch=False)
    n.sql("CREATE TABLE same(id INTEGER PRIMARY KEY, other)")
    n.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, r REAL, b BLOB)")
    n.sql("INSERT INTO t(id, v) VALUES (1, 'of its own')")
    os.chmod(n.db, 0o600)
    copies = lambda: glob.glob(n.db + "-before-join-*")  # noqa: E731
    n.watch_all()
    n.wait_state("join_conflict", 40)
    wait_until(lambda: copies() == [], 10, "no copy is there")
    ok("a file with a table of another shape stays out, and is not copied again and again")
    check("for the shape of that", "table same" in n.status()["why"], n.status())
    n.sql("DROP TABLE same")
    n.sql("CREATE TABLE same(id INTEGER PRIMARY KEY, v)")
    n.wait_state("live", 60)
    check("once it has come in the file as it was is kept", len(copies()) == 1, copies())
    check("which nobody else may read", os.stat(copies()[0]).st_mode & 0o777 == 0o600, oct(os.stat(copies()[0]).st_mode))
    n.quit()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a = Node(ws, "a", config=config(nats), schema=CLUSTER)
        a.wait_state("live")
        a.one("SELECT marmot_snapshot()")
        a.sql("INSERT INTO same VALUES (2, 'after the snapshot')")
        a.sync()

        m = Node(ws, "m", config=False, schema=MINE)
        m.many("INSERT INTO t(id, v) VALUES (?, 'mine alone')", [[k] for k in range(100, 100 + MANY)])
        m.config = config(nats, join="merge")
        nats.pause()
        m.init()
        m.watch_all()
        m.sql("INSERT INTO t(id, v) VALUES (50, 'pending')")
        m.sql("UPDATE t SET v = 'pending, too' WHERE id = 101")
        m.sql("DELETE FROM t WHERE id = 102")
        nats.resume()
        m.wait_state("live", 40)
        check("it joins", m.sync(40000) == 1, m.status())
        a.sync()
        common = wait_equal([a, m], 30)
        rows_of(common)
        check("all rows that exist only here are sent", len(common["t"][1]) == 5 + 1 + MANY - 1, len(common["t"][1]))
        check("what was pending stays on top",
              row(common, "t", (1, 101))[0][1] == (3, "pending, too") and row(common, "t", (1, 50)) and
              not row(common, "t", (1, 102)), row(common, "t", (1, 101)))
        conflicts(m)
        check("a copy of the file is kept", len(glob.glob(m.db + "-before-join-*")) == 1, os.listdir(ws.dir))
        check("both databases are sound", integrity(a.db) == "ok" and integrity(m.db) == "ok", integrity(m.db))

        with sqlite3.connect(os.path.join(ws.dir, "again.db")) as wide:
            wide.execute("PRAGMA encoding = 'UTF-16le'")
            wide.execute("CREATE TABLE aside(x)")
            wide.execute("DROP TABLE aside")
        wide.close()
        again = Node(ws, "again", config=config(nats, join="merge"), schema=MINE)
        again.wait_state("live", 40)
        check("the same rows once more, in a UTF-16 file, join", again.sync(20000) == 1, again.status())
        a.sync()
        m.sync()
        after = wait_equal([a, m, again], 30)
        check("and nothing of them is new", after == common, difference(after, common))
        found = json.loads(again.one("SELECT marmot_reconcile()"))
        check("nor was anything left uncaptured", found["rows"] == 0, found)
        m.sql("DELETE FROM t WHERE id >= 100")
        again.sql("UPDATE uniq SET w = 7 WHERE id = 20")
        m.sync()
        again.sync()
        a.sync()
        wait_equal([a, m, again], 30)
        ok("and all go on")
        stays_out(ws, nats)
    finish()


main()
