"""Files that were copied while something was pending, and files set back by a
backup: nothing counts twice, nothing is lost, later writes reach everybody.
marmot-test: parallel
"""
import json
import os
import shutil
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"


def fresh(ws, names, nats):
    nodes = [Node(ws, name, urls=nats.url, schema=SCHEMA) for name in names]
    for n in nodes:
        n.sync(20000)
    return nodes


def settled(case, nodes):
    for n in nodes:
        if not check("%s: %s syncs" % (case, n.name), n.sync(20000) == 1, n.status()):
            note(json.dumps(n.status()))
    for n in nodes:
        n.sync()
    return {row[0][1]: row[1][1] for row in everywhere(nodes)["t"][1]}


def put(node, first, count, text):
    for k in range(first, first + count):
        node.sql("INSERT INTO t VALUES (?, ?)", k, text)


def pending_copy(ws, nats, a):
    """Ends a with 40 pending rows and copies its file."""
    nats.stop()
    wait_until(lambda: a.status()["state"] == "offline", 20, "offline")
    put(a, 1, 20, "pending")
    a.many("INSERT INTO t VALUES (?, ?)", [[k, "pending in one"] for k in range(21, 41)])
    a.quit()
    copy = os.path.join(ws.dir, "copy.db")
    shutil.copy(a.db, copy)
    return copy


def one_after_the_other(ws):
    nats = NatsServer(ws).start()
    a, b = fresh(ws, "ab", nats)
    copy = pending_copy(ws, nats, a)
    nats.start()
    a.start()
    rows = settled("first copy", [a, b])
    check("the pending rows are there", len(rows) == 40, len(rows))
    b.sql("DELETE FROM t WHERE id <= 30")
    b.sql("UPDATE t SET v = 'changed since' WHERE id > 30")
    settled("changed since", [a, b])
    c = Node(ws, "copy", db=copy, urls=nats.url)
    put(c, 100, 5, "of the copy")
    put(a, 200, 5, "of the first")
    rows = settled("second copy", [a, b, c])
    check("what was pending in both copies counted once",
          set(rows) == set(range(31, 41)) | set(range(100, 105)) | set(range(200, 205)) and
          all(rows[k] == "changed since" for k in range(31, 41)), rows)
    check("the copies have an incarnation each", a.status()["incarnation"] != c.status()["incarnation"], a.status())
    for n in (a, b, c):
        n.quit()
    everywhere([a, b, c])
    nats.kill()


def both_at_once(ws, rng):
    nats = NatsServer(ws).start()
    a, b = fresh(ws, "de", nats)
    copy = pending_copy(ws, nats, a)
    if rng.random() < 0.5:
        nats.start()
    a.start()
    c = Node(ws, "copy2", db=copy, urls=nats.url)
    for k in range(30):
        put(a, 100 + k, 1, "of the first")
        put(c, 200 + k, 1, "of the copy")
    if nats.process is None:
        nats.start()
    rows = settled("both at once", [a, b, c])
    check("both at once: nothing is lost", sorted(rows) == sorted(
        [*range(1, 41), *range(100, 130), *range(200, 230)]), sorted(rows))
    for n in (a, b, c):
        n.quit()
    everywhere([a, b, c])
    nats.kill()


def noted(ws, rng):
    """A plain shell writes while no node runs: what its triggers noted is the same in the copy."""
    nats = NatsServer(ws).start()
    schema = SCHEMA + "CREATE TABLE bag(x, y); CREATE TABLE sum(k INTEGER PRIMARY KEY, n INTEGER);"
    a, b = [Node(ws, "noted-" + name, urls=nats.url, schema=schema) for name in "ab"]
    a.sql("SELECT marmot_policy('sum', 'n', 'delta')")
    a.sql("INSERT INTO sum VALUES (1, 0)")
    settled("before they are noted", [a, b])
    a.quit()
    shell = sqlite3.connect(a.db, isolation_level=None)
    for k in range(5):
        shell.executescript("BEGIN; INSERT INTO t VALUES (%d, 'noted'); INSERT INTO bag VALUES ('noted', 1);"
                            "UPDATE sum SET n = n + 1; COMMIT" % k)
    shell.close()
    path = os.path.join(ws.dir, "noted-copy.db")
    shutil.copy(a.db, path)
    nodes = [a, Node(ws, "noted-copy", urls=nats.url, db=path)]
    a.start()
    rng.shuffle(nodes)
    for n in nodes:
        n.txn([("INSERT INTO bag VALUES ('later', 1)", []), ("UPDATE sum SET n = n + 10", [])])
    settled("noted", nodes + [b])
    rows = everywhere(nodes + [b])
    check("what was noted counts once, what each wrote later too", (len(rows["bag"][1]), rows["sum"][1][0][1][1]) == (7, 25),
          (rows["bag"], rows["sum"]))


def set_back(ws, case, live, away):
    """A backup over the file, with pending in it that were sent since."""
    nats = NatsServer(ws).start()
    names = ["%s%d" % (case.split()[0], k) for k in range(2)]
    a, b = fresh(ws, names, nats)
    put(a, 1, 10, "before")
    settled(case, [a, b])
    nats.stop()
    wait_until(lambda: a.status()["state"] == "offline", 20, "offline")
    put(a, 11, 10, "pending in the backup")
    backup = os.path.join(ws.dir, "backup.db")
    if live:
        source, target = sqlite3.connect(a.db), sqlite3.connect(backup)
        source.backup(target)
        source.close()
        target.close()
    else:
        a.quit()
        shutil.copy(a.db, backup)
        a.start()
    nats.start()
    settled(case, [a, b])
    put(a, 21, 10, "after the backup")
    b.sql("DELETE FROM t WHERE id BETWEEN 11 AND 15")
    settled(case, [a, b])
    a.quit()
    for end in ("-wal", "-shm"):
        if os.path.exists(a.db + end):
            os.unlink(a.db + end)
    with open(backup, "rb") as source, open(a.db, "r+b") as target:  # in place: the same inode
        target.truncate()
        shutil.copyfileobj(source, target)
    os.unlink(backup)
    if away:
        nats.stop()
    a.start()
    put(a, 31, 10, "after the set-back")
    if away:
        a.kill()
        nats.start()
        a.start()
    rows = settled(case, [a, b])
    check("%s: what was sent comes back, later writes reach everybody, nothing counts twice" % case,
          sorted(rows) == sorted([*range(1, 11), *range(16, 41)]), rows)
    b.sql("INSERT INTO t VALUES (99, 'of the other')")
    put(a, 50, 5, "and goes on")
    rows = settled(case, [a, b])
    check("%s: and goes on in both directions" % case, len(rows) == 41 and 99 in rows, sorted(rows))
    a.quit()
    a.start()
    put(a, 60, 5, "after another start")
    settled(case, [a, b])
    for n in (a, b):
        n.quit()
    everywhere([a, b])
    nats.kill()


def main():
    rng = seeded()
    with Workspace() as ws:
        one_after_the_other(ws)
        both_at_once(ws, rng)
        noted(ws, rng)
        set_back(ws, "stopped backup", False, False)
        set_back(ws, "live backup", True, False)
        set_back(ws, "offline after it", False, True)
    finish()


main()
