"""Conflicts of every kind by name, with the values that lost; all but foreign_key
are the same on every node. The log is bounded, and a counter says what it dropped.
marmot-test: parallel
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v, w);
CREATE TABLE uniq(id INTEGER PRIMARY KEY, u UNIQUE, v);
CREATE TABLE live(id INTEGER PRIMARY KEY, u, alive);
CREATE UNIQUE INDEX one_alive ON live(u) WHERE alive;
CREATE TABLE bag(x, y UNIQUE);
CREATE TABLE parent(id INTEGER PRIMARY KEY, name);
CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent ON DELETE CASCADE, v);
CREATE INDEX child_p ON child(p);
CREATE TABLE many(id INTEGER PRIMARY KEY, v);
"""
KEPT, MORE = 10000, 150


def at_once(nats, a, b, of_a, of_b):
    """Both write without a server; what b wrote comes first in the log."""
    nats.stop()
    for text in of_a:
        a.sql(text)
    for text in of_b:
        b.sql(text)
    a.pause()
    nats.start()
    try:
        b.sync(20000)
    finally:
        a.resume()
    a.sync(20000)
    b.sync(20000)
    return everywhere([a, b])


def log(node):
    return [(kind, table, json.loads(key), json.loads(lost), json.loads(won)) for kind, table, key, lost, won in
            peek(node.db, "SELECT kind, name, key, lost, won FROM __marmot__conflict ORDER BY kind, name, key")]


def every_kind(nats, a, b):
    a.txn([("INSERT INTO t VALUES (1, 'v', 'w'), (2, 'v', 'w'), (3, 'v', 'w')", []),
           ("INSERT INTO parent VALUES (1, 'one'), (2, 'two')", [])])
    a.sync()
    everywhere([a, b])
    rows = at_once(nats, a, b, [
        "INSERT INTO t VALUES (10, 'of a', NULL)", "UPDATE t SET v = 'of a' WHERE id = 1",
        "UPDATE t SET v = 'of a' WHERE id = 2", "DELETE FROM t WHERE id = 3",
        "INSERT INTO uniq VALUES (1, 'same', 'of a')", "INSERT INTO live VALUES (1, 'same', 1)",
        "INSERT INTO bag VALUES ('of a', 'same')",
        "INSERT INTO child VALUES (1, 1, 'of a')", "DELETE FROM parent WHERE id = 2"], [
        "INSERT INTO t VALUES (10, 'of b', NULL)", "UPDATE t SET v = 'of b', w = 'of b' WHERE id = 1",
        "DELETE FROM t WHERE id = 2", "UPDATE t SET w = 'of b' WHERE id = 3",
        "INSERT INTO uniq VALUES (2, 'same', 'of b')", "INSERT INTO live VALUES (2, 'same', 1)",
        "INSERT INTO bag VALUES ('of b', 'same')",
        "DELETE FROM parent WHERE id = 1", "INSERT INTO child VALUES (2, 2, 'of b')"])
    want = [("delete", "t", {"id": 3}, {"id": 3, "v": "v", "w": "of b"}, None),
            ("insert", "t", {"id": 10}, {"id": 10, "v": "of b", "w": None}, {"id": 10, "v": "of a", "w": None}),
            ("unique", "bag", {"x": "of b", "y": "same"}, {"x": "of b", "y": "same"}, {"x": "of a", "y": "same"}),
            ("unique", "live", {"id": 2}, {"id": 2, "u": "same", "alive": 1}, {"id": 1, "u": "same", "alive": 1}),
            ("unique", "uniq", {"id": 2}, {"id": 2, "u": "same", "v": "of b"}, {"id": 1, "u": "same", "v": "of a"}),
            ("update", "t", {"id": 1}, {"id": 1, "v": "of b", "w": "of b"}, {"id": 1, "v": "of a"}),
            ("update_missing", "t", {"id": 2}, {"id": 2, "v": "of a"}, None)]
    logs = [log(n) for n in (a, b)]
    for n, entries in zip((a, b), logs):
        got = [e for e in entries if e[0] != "foreign_key"]
        for kind in want:
            check("%s: conflict %s of %s says what lost" % (n.name, kind[0], kind[1]), kind in got, got)
        check("%s: nothing else is a conflict" % n.name, len(got) == len(want), [e for e in got if e not in want])
    dangling = [e for e in logs[0] if e[0] == "foreign_key"]
    check("a child whose parent is gone, a parent that is gone from its child: foreign_key",
          sorted(e[1:4] for e in dangling) == [("child", {"id": 1}, {"id": 1, "p": 1, "v": "of a"}),
                                               ("parent", {"id": 2}, {"id": 2, "name": "two"})], dangling)
    check("both rows stay as they are", len(rows["child"][1]) == 2 and not rows["parent"][1], rows["child"])
    kinds = dict(a.sql("SELECT labels, value FROM marmot_metrics WHERE name = 'conflicts'"))
    check("the metrics count each kind", kinds.get('kind="unique"') == 3 and kinds.get('kind="foreign_key"') == 2, kinds)
    check("marmot_conflicts shows them", {r[0] for r in a.sql("SELECT kind FROM marmot_conflicts")} == {
        "delete", "insert", "unique", "update", "update_missing", "foreign_key"},
        a.sql("SELECT DISTINCT kind FROM marmot_conflicts"))


def bounded(nats, a, b):
    a.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
          "INSERT INTO many SELECT i, 0 FROM n", KEPT + MORE)
    a.sync()
    everywhere([a, b])
    before = len(log(a))
    at_once(nats, a, b, ["UPDATE many SET v = 'of a'"], ["UPDATE many SET v = 'of b'"])
    for n in (a, b):
        metrics = dict(n.sql("SELECT name, value FROM marmot_metrics WHERE labels = ''"))
        total = before + KEPT + MORE
        rows = len(log(n))
        check("%s: the log is bounded, what it dropped is counted" % n.name,
              rows == KEPT and metrics["conflicts_total"] == total and
              metrics["conflicts_dropped_total"] == total - KEPT, "%d rows, %s" % (rows, metrics))


def by_row(nats, ws):
    """conflict = "row": who comes later in the log has the whole row, not the columns that it changed alone."""
    nodes = [Node(ws, "row" + name, schema=SCHEMA, config={"nats": {"urls": [nats.url]}, "cluster": "by-row", "conflict": "row"})
             for name in "ab"]
    a, b = nodes
    for n in nodes:
        check("%s joins" % n.name, n.sync(20000) == 1, n.status())
    a.sql("INSERT INTO t VALUES (1, 'old', 'old')")
    check("both have it", a.sync(20000) == 1 and b.sync(20000) == 1, b.status())
    at_once(nats, a, b, ["UPDATE t SET v = 'of a' WHERE id = 1"], ["UPDATE t SET w = 'of b' WHERE id = 1"])
    b.sync(20000)
    rows = [n.sql("SELECT * FROM t") for n in nodes]
    check("by row: the later one has the row", rows == [[(1, "of a", "old")]] * 2, rows)
    for n in nodes:
        n.quit()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a, b = [Node(ws, name, urls=nats.url, schema=SCHEMA) for name in "ab"]
        for n in (a, b):
            check("%s joins" % n.name, n.sync(20000) == 1, n.status())
        every_kind(nats, a, b)
        bounded(nats, a, b)
        for n in (a, b):
            n.quit()
        by_row(nats, ws)
    finish()


main()
