"""A table that a node makes, watches and writes while it is cut off, and that the others
have begun to watch, with rows in it, behind the last snapshot: the log is out of reach when the link is
back, and no snapshot holds the table yet. What was written there waits for one, is not sent before
it is known whether the table joins, and is in the cluster at the end; and where no snapshot
comes for long, the other tables go on meanwhile and it is merged later.
marmot-test: parallel limit=120
"""
import contextlib
import os
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402
from storm_proxy import Proxy  # noqa: E402

LATE = "CREATE TABLE %s(k TEXT NOT NULL PRIMARY KEY, v, u UNIQUE)"
OWN = [("both", "of b", None), ("of b", "x", 1), ("of b, too", None, 2)]
THEIRS = [("both", "of a", None), ("of a", "y", 1)]
MOST = 200


def node(ws, name, port):
    config = {"nats": {"urls": ["nats://127.0.0.1:%d" % port], "reconnect_wait_seconds": 1},
              "replication_log": {"max_entries": MOST},
              "snapshot": {"store": "file", "file": {"path": os.path.join(ws.dir, "store")}}}
    return Node(ws, name, config=config, schema="CREATE TABLE t(id INTEGER PRIMARY KEY, v);")


def state(n, table):
    return n.sql("SELECT state, why FROM marmot_tables WHERE name = ?", table)[0]


def make(n, table, rows, first=()):
    """`first`: it has them when it is watched, so that no log says them."""
    if first:
        with contextlib.closing(sqlite3.connect(n.db, timeout=20)) as plain, plain:
            plain.execute("BEGIN IMMEDIATE")
            plain.execute(LATE % table)
            plain.executemany("INSERT INTO %s VALUES (?, ?, ?)" % table, first)
    else:
        n.sql(LATE % table)
    n.sql("SELECT marmot_watch(?)", table)
    for row in rows:
        n.sql("INSERT INTO %s VALUES (?, ?, ?)" % table, *row)


def fill(a, raw, upto, what):
    """Until the log has lost what it holds now."""
    for k in range(MOST + 50):
        a.sql("INSERT OR REPLACE INTO t VALUES (?, ?)", k, what)
        if k % 60 == 0:
            a.sync(20000)
            a.sql("SELECT marmot_snapshot()")
    a.sync(20000)
    wait_until(lambda: raw.stream("marmot-changes-c-1")[1]["first_seq"] > upto + 1, 20, "the log has lost its beginning")


def no_more_snapshots(a, raw):
    """None but those that are asked for: another node is said to be at work on the next. Of the
    two that are taken before the second shortens the log, so that none is due."""
    for _ in range(2):
        newest = json.loads(a.one("SELECT marmot_snapshot()"))["id"]
    raw.request("$KV.marmot-leases.after." + newest, b"999")


def beyond(a, b, link, raw, table):
    """b is cut off, makes and writes the table; a does behind its last snapshot, after which
    the log lost its beginning."""
    link.refuse(True)
    link.cut()
    b.wait_state("offline")
    make(b, table, OWN)
    fill(a, raw, raw.stream("marmot-changes-c-1")[1]["last_seq"], table)
    no_more_snapshots(a, raw)
    make(a, table, THEIRS[1:], THEIRS[:1])
    check("%s: a syncs" % table, a.sync(20000) == 1, a.status())
    link.refuse(False)


def judge(a, b, table):
    wait_until(lambda: state(b, table)[0] == "watched", 20, "%s has joined: %s" % (table, state(b, table)))
    check("%s: both sync" % table, all(n.sync(20000) == 1 for n in (b, a, b)), b.status())
    left, right = a.dump(), b.dump()
    check("%s: equal" % table, difference(left, right) == "", difference(left, right))
    return a.sql("SELECT k, v, u FROM %s ORDER BY k" % table)


def waits(a, b, link, raw):
    beyond(a, b, link, raw, "late")
    wait_until(lambda: "snapshot" in str(state(b, "late")[1]), 20, "the table waits for a snapshot: %s" % (state(b, "late"),))
    check("late: it is joining meanwhile", state(b, "late")[0] == "joining", state(b, "late"))
    a.one("SELECT marmot_snapshot()")
    rows = judge(a, b, "late")
    keys = [r[0] for r in rows]
    check("late: all that was written while cut off is in the cluster", keys == ["both", "of b", "of b, too"] or
          keys == ["both", "of a", "of b, too"], rows)


def goes_on_writing(n, table):
    """Without a rest until the table has joined: some of it is sent, and not back, when it does."""
    written, end = [], time.monotonic() + 20
    while state(n, table)[0] != "watched" and time.monotonic() < end:
        for _ in range(20):
            written.append("w%05d" % len(written))
            n.sql("INSERT INTO %s VALUES (?, 'meanwhile', NULL)" % table, written[-1])
    return written


def tired(a, b, raw, store):
    """The log has lost where the table began, and the snapshots cannot be read for long."""
    make(a, "later", THEIRS)
    begun = raw.stream("marmot-changes-c-1")[1]["last_seq"]
    fill(a, raw, begun, "later")
    check("later: b syncs", b.sync(20000) == 1, b.status())
    os.rename(store, store + ".away")
    with open(store, "w"):
        pass  # no folder: nobody makes a new one
    make(b, "later", OWN)
    wait_until(lambda: state(b, "later")[1] is not None, 20, "it waits for a copy")
    b.kill()
    b.start()
    began = time.monotonic()
    wait_until(lambda: state(b, "later")[0] == "stale", 30, "patience ends")
    check("later: a node that starts again has its whole patience", time.monotonic() - began > 9, time.monotonic() - began)
    b.sql("INSERT INTO t VALUES (-1, 'goes on')")
    b.sql("INSERT INTO later VALUES ('after', 'x', 9)")
    check("later: other tables go on", b.sync(20000) == 1 and a.sync(20000) == 1 and
          a.one("SELECT v FROM t WHERE id = -1") == "goes on", (a.status(), b.status()))
    check("later: its rows stay there until a copy comes", a.sql("SELECT k FROM later ORDER BY k") == [("both",), ("of a",)],
          a.sql("SELECT * FROM later"))
    b.kill()
    b.start()
    os.unlink(store)
    os.rename(store + ".away", store)
    written = goes_on_writing(b, "later")
    rows = judge(a, b, "later")
    check("later: what was written while it joined is in the cluster", [r[0] for r in rows if r[1] == "meanwhile"] == written,
          "%d of %d" % (sum(r[1] == "meanwhile" for r in rows), len(written)))
    rows = [r for r in rows if r[1] != "meanwhile"]
    check("later: then they are merged with the cluster's", rows == [("after", "x", 9), ("both", "of a", None), ("of a", "y", 1),
                                                                    ("of b, too", None, 2)], rows)
    losers = b.sql("SELECT kind, lost FROM marmot_conflicts WHERE \"table\" = 'later'")
    check("later: what could not stand beside them is in marmot_conflicts",
          sorted(kind for kind, _ in losers) == ["insert", "unique"] and "of b" in str(losers), losers)


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        link = Proxy(nats.port)
        a, b = node(ws, "a", nats.port), node(ws, "b", link.port)
        for n in (a, b):
            check("%s joins" % n.name, n.sync(20000) == 1, n.status())
        with RawNats(nats.port) as raw:
            waits(a, b, link, raw)
            tired(a, b, raw, os.path.join(ws.dir, "store"))
        check("the files are sound", [integrity(n.db) for n in (a, b)] == ["ok", "ok"], "they are not")
    finish()


main()
