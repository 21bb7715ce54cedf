"""Rows without identity: tables without a key, and keys that hold NULL, are
multisets. Three nodes write them at the same time and end equal, in content,
types and conflict log.
marmot-test: parallel
"""
import os
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = ("CREATE TABLE bag(a, b TEXT COLLATE NOCASE); CREATE TABLE named(id TEXT PRIMARY KEY, v);"
          "CREATE TABLE points(x REAL, y REAL, v); CREATE TABLE pair(x, y, v, PRIMARY KEY (x, y)); CREATE TABLE plain(id INTEGER PRIMARY KEY, v);")
VALUES = [None, 1, 1.0, "a", "A", b"a", "", 2, "a\0b"]
ROUNDS = 120


def transaction(rng, number):
    steps = []
    for _ in range(rng.randint(1, 4)):
        a, b = rng.choice(VALUES), rng.choice(VALUES)
        table, dice = rng.choice(["bag", "bag", "named", "pair", "plain"]), rng.random()
        if table == "bag" and dice < 0.45:
            steps.append(("INSERT INTO bag VALUES (?, ?)", [a, b]))
        elif table == "bag" and dice < 0.75:
            steps.append(("UPDATE bag SET a = ? WHERE rowid = (SELECT rowid FROM bag LIMIT 1 OFFSET ?)",
                          [a, rng.randint(0, 9)]))
        elif table == "bag":
            steps.append(("DELETE FROM bag WHERE rowid IN (SELECT rowid FROM bag LIMIT 2 OFFSET ?)",
                          [rng.randint(0, 9)]))
        elif table == "named":
            key = rng.choice([None, "x", "y"])
            steps.append(("INSERT OR REPLACE INTO named VALUES (?, ?)", [key, number]) if dice < 0.5 else
                         ("UPDATE named SET v = ? WHERE id IS ?", [rng.randint(0, 3), key]) if dice < 0.8 else
                         ("DELETE FROM named WHERE id IS ?", [key]))
        elif table == "pair":
            x, y = rng.choice([None, 1]), rng.choice([None, "k"])
            steps.append(("INSERT OR REPLACE INTO pair VALUES (?, ?, ?)", [x, y, number]) if dice < 0.6 else
                         ("DELETE FROM pair WHERE x IS ? AND y IS ?", [x, y]))
        else:
            steps.append(("INSERT OR REPLACE INTO plain VALUES (?, ?)", [rng.randint(0, 5), number]))
    return steps


def conflicts(node):
    return peek(node.db, "SELECT seq, node, kind, name, key, lost, won FROM __marmot__conflict ORDER BY seq, id")


def opposite_signs(nodes):
    """Rows that differ in two signs alone, many of them in one transaction."""
    a, b, _ = nodes
    before = conflicts(a)
    a.many("INSERT INTO points VALUES (?, ?, 0)", [[s * (k + 0.5), t * (k + 0.25)] for k in range(10) for s in (1, -1) for t in (1, -1)])
    for node, text in ((a, "SELECT 1"), (b, "UPDATE points SET v = 1"), (a, "DELETE FROM points WHERE x > 0"), (b, "UPDATE points SET v = x + y")):
        node.sql(text)
        node.sync()
        for n in nodes:
            n.sync()
    rows = wait_equal(nodes)["points"][1]
    check("rows that differ in their signs are told apart", len(rows) == 20 and conflicts(a) == before, (rows[:3], conflicts(a)[:3]))


def blob_io(ws):
    """Incremental blob I/O shows only a key; without one the COMMIT says so."""
    node = Node(ws, "blob", schema=SCHEMA, config={"cluster": "blob", "nats": {"bind_address": ws.bind_address}})
    node.wait_state("live")
    node.sql("INSERT INTO bag VALUES (zeroblob(4), 'x')")
    db = sqlite3.connect(node.db, isolation_level=None)
    db.enable_load_extension(True)
    db.load_extension(EXTENSION)
    said = ""
    db.execute("BEGIN")
    with db.blobopen("bag", "a", 1) as blob:
        blob.write(b"1234")
    try:
        db.execute("COMMIT")
    except sqlite3.Error as e:
        said = str(e)
    db.close()
    check("blob I/O on a row without a key is refused with a remedy", "bag" in said and "UPDATE" in said, said)
    check("and changed nothing", node.one("SELECT hex(a) FROM bag") == "00000000", node.sql("SELECT hex(a) FROM bag"))
    node.quit()


def main():
    rng = seeded()
    with Workspace() as ws:
        nodes = [Node(ws, name, schema=SCHEMA) for name in ("one", "two", "three")]
        for n in nodes:
            n.wait_state("live")
        for k in range(ROUNDS):
            for n in nodes:
                n.send_txn(transaction(rng, k))
            for n in nodes:
                n.receive()
        for n in nodes + nodes:
            check("%s syncs" % n.name, n.sync(20000) == 1, n.status())
        tables = everywhere(nodes)
        check("there is something to compare", len(tables["bag"][1]) > 5, tables["bag"])
        logs = [conflicts(n) for n in nodes]
        check("the conflict logs are equal", logs[0] == logs[1] == logs[2],
              [[row for row in log if row not in logs[0]][:3] for log in logs])
        check("all tables are watched", all(t["state"] == "watched" for t in nodes[0].status()["tables"]),
              nodes[0].status()["tables"])
        opposite_signs(nodes)
        blob_io(ws)
        for n in nodes:
            n.quit()
        no_servers_left(ws)
    finish()


main()
