"""A table that is watched later than its database joined, unwatched and watched again,
or passed over by marmot_skip, joins alone: by the log where that does, else with the
newest snapshot and the log, by the rules of `join`. What is pending stays on top,
other tables are left alone.
marmot-test: parallel limit=180
"""
import contextlib
import glob
import os
import sqlite3
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402

TABLES = ("t", "late", "bag", "differs", "aside")
SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v);
CREATE TABLE late(k TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, v, u UNIQUE) WITHOUT ROWID;
CREATE TABLE bag(x, y);
CREATE TABLE differs(id INTEGER PRIMARY KEY, v);
CREATE TABLE aside(id INTEGER PRIMARY KEY, v);
"""
MOST = 200
LATER = b"\x08\x02 whatever version 2 will be"


def node(ws, nats, name, schema=SCHEMA, **more):
    config = {"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}, "replication_log": {"max_entries": MOST},
              "snapshot": {"store": "file", "file": {"path": os.path.join(ws.dir, "snapshots")}}}
    return Node(ws, name, config=dict(config, **more), schema=schema, watch=False)


def watch(n, *tables):
    for table in tables:
        n.sql("SELECT marmot_watch(?)", table)


def table(n, name):
    return n.sql("SELECT state, why FROM marmot_tables WHERE name = ?", name)[0]


def wait_table(n, name, state="watched", seconds=25):
    wait_until(lambda: table(n, name)[0] == state, seconds, "%s is %s at %s: %s" % (name, state, n.name, table(n, name)))


def equal_tables(a, b, *names):
    last = [""]

    def equal():
        left, right = a.dump(), b.dump()
        last[0] = difference({t: left[t] for t in names}, {t: right[t] for t in names})
        return last[0] == ""
    try:
        wait_until(equal, 20, "equal tables")
    except Timeout:
        pass
    return last[0]


def fill(a, base):
    """More than the log holds, one transaction each."""
    for k in range(base, base + 330):
        a.sql("INSERT INTO t VALUES (?, 'row')", k)
        a.sql("INSERT OR REPLACE INTO late VALUES (?, ?, ?)", "Key%d" % (k % 50), k, k % 7 if k % 50 < 7 else None)
        if k % 3 == 0:
            a.sql("INSERT INTO bag VALUES (?, ?)", k % 5, None)
            a.sql("UPDATE differs SET v = ? WHERE id = 1", k)


def first_left(a, nats):
    with RawNats(nats.port) as raw:
        wait_until(lambda: raw.stream("marmot-changes-c-1")[1]["first_seq"] > 100, 20, "the log has lost its beginning")


def empty_ones(a, b):
    """From the snapshot, while the others write and with own changes at once."""
    stop = threading.Event()

    def write():
        k = 0
        while not stop.is_set():
            a.sql("UPDATE late SET v = ? WHERE k = ?", -k, "KEY%d" % (k % 50))
            a.sql("INSERT INTO bag VALUES ('meanwhile', ?)", k)
            k += 1
    writer = threading.Thread(target=write)
    writer.start()
    try:
        b.txn([("SELECT marmot_watch('late')", []), ("SELECT marmot_watch('bag')", []),
               ("INSERT INTO late VALUES ('at once', 'own', NULL)", []), ("INSERT INTO bag VALUES ('own', 1)", [])])
        wait_table(b, "late")
        wait_table(b, "bag")
    finally:
        stop.set()
        writer.join()
    check("both sync", b.sync(20000) == 1 and a.sync(20000) == 1, b.status())
    said = equal_tables(a, b, "t", "late", "bag")
    check("empty tables watched later take the cluster's rows, own changes on top", said == "" and
          a.one("SELECT v FROM late WHERE k = 'AT ONCE'") == "own" and b.one("SELECT count(*) FROM late") == 51, said)


def other_rows(a, b, c):
    b.sql("INSERT INTO differs VALUES (1, 'mine'), (77, 'only here')")
    b.txn([("SELECT marmot_watch('differs')", []), ("UPDATE differs SET v = 'pending' WHERE id = 77", [])])
    wait_table(b, "differs", "stale", 60)
    wait_until(lambda: "only here" in table(b, "differs")[1], 60, "it is compared when what was pending is out of the way")
    why = table(b, "differs")[1]
    check("other rows: it stays out and says what differs", "rows differ" in why and "1 only here" in why, why)
    check("strict touches nothing", b.sql("SELECT * FROM differs ORDER BY id") == [(1, "mine"), (77, "pending")],
          b.sql("SELECT * FROM differs"))
    b.sql("UPDATE differs SET v = 'mine still' WHERE id = 1")
    check("the others go on", b.sync(20000) == 1, b.status())
    check("what is written there stays there", a.one("SELECT v FROM differs WHERE id = 1") != "mine still", "it does not")
    b.txn([("SELECT marmot_watch('differs')", []), ("DELETE FROM differs", [])])
    wait_table(b, "differs")
    check("emptied while it is watched again it joins", equal_tables(a, b, "differs") == "", equal_tables(a, b, "differs"))
    c.sql("INSERT INTO differs VALUES (77, 'only at c')")
    watch(c, "differs")
    wait_table(c, "differs")
    said = equal_tables(a, c, "differs")
    kept = glob.glob(c.db + "-before-join-*")
    check("with join adopt it takes the cluster's rows and keeps a copy of the file", said == "" and len(kept) == 1
          and ((1, 77), (3, "only at c")) in dump(kept[0])["differs"][1], "%s %s" % (said, kept))
    b.sql("UPDATE differs SET v = 'by b' WHERE id = 1")
    b.sync()
    c.sync()
    check("it replicates", c.one("SELECT v FROM differs WHERE id = 1") == "by b", c.sql("SELECT * FROM differs"))


def another(a, c):
    """Compared with a copy, and dropped and made anew in the very transaction that the taking waits for."""
    a.sql("CREATE TABLE another(id INTEGER PRIMARY KEY, v)")
    a.sql("INSERT INTO another VALUES (1, 1), (2, 2)")
    watch(a, "another")
    a.sync(20000)
    a.one("SELECT marmot_snapshot()")
    with contextlib.closing(sqlite3.connect(c.db, timeout=20, isolation_level=None)) as plain:
        plain.execute("CREATE TABLE another(id INTEGER PRIMARY KEY, v)")
        plain.execute("INSERT INTO another VALUES (1, 1)")
        watch(c, "another")
        seq = "SELECT joined_seq FROM __marmot__table WHERE name = 'another'"
        wait_until(lambda: plain.execute(seq).fetchone()[0] != 0, 20, "it waits for a copy")
        plain.execute("BEGIN IMMEDIATE")
        wait_until(lambda: "waiting for a writer" in str(c.status().get("progress")), 20, "it is compared, and to be taken")
        plain.execute("DROP TABLE another")
        plain.execute("CREATE TABLE another(id INTEGER PRIMARY KEY, v)")
        plain.execute("COMMIT")
    wait_table(c, "another")
    rows = c.sql("SELECT * FROM another ORDER BY id")
    check("a table that is another one than was compared is compared anew, and joins", rows == [(1, 1), (2, 2)], rows)


def merged(ws, nats, a, b):
    """Two that come when the log has lost its beginning: with empty tables, which any `join` takes; and with join merge,
    a table of rows of its own."""
    d, e = node(ws, nats, "d", join="merge"), node(ws, nats, "e")
    d.sql("INSERT INTO differs VALUES (88, 'only at d'), (1, 'lost at d')")
    for n in (d, e):
        watch(n, "t")
        n.wait_state("live")
        check("%s, whose table was empty, syncs" % n.name, n.sync(20000) == 1, n.status())
    watch(d, "differs")
    wait_table(d, "differs")
    check("with join merge: d and a sync", d.sync(20000) == 1 and a.sync(20000) == 1, d.status())
    check("with join merge the rows that were only there are the cluster's", a.one("SELECT v FROM differs WHERE id = 88") ==
          "only at d" and equal_tables(a, d, "t", "differs") == "", equal_tables(a, d, "t", "differs"))
    b.sync(20000)
    for n in (d, e):
        n.quit()


def unfit(a, c):
    """The cluster's rows do not fit a table that is stricter here: it says so, and does not hold up the others."""
    a.sql("CREATE TABLE unfit(id INTEGER PRIMARY KEY, v)")
    c.sql("CREATE TABLE unfit(id INTEGER PRIMARY KEY, v NOT NULL)")
    a.sql("INSERT INTO unfit VALUES (1, NULL)")
    for n in (a, c):
        watch(n, "unfit")
        a.sync(20000)  # the cluster's is that of a
    c.sql("INSERT INTO unfit VALUES (2, 'of c')")
    c.sql("INSERT INTO t VALUES (-5, 'behind it')")
    wait_until(lambda: "NOT NULL constraint failed" in str(table(c, "unfit")[1]), 20, "it says why: %s" % (table(c, "unfit"),))
    check("rows that do not fit: it waits", table(c, "unfit")[0] == "joining", table(c, "unfit"))


def fits_again(a, c):
    wait_table(c, "unfit", "stale", 40)
    check("rows that do not fit: the others go on", c.sync(20000) == 1 and a.sync(20000) == 1 and
          a.one("SELECT v FROM t WHERE id = -5") == "behind it", (c.status(), a.status()))
    c.sql("DROP TABLE unfit")
    c.sql("CREATE TABLE unfit(id INTEGER PRIMARY KEY, v)")
    wait_table(c, "unfit", "watched", 40)
    said = equal_tables(a, c, "unfit")
    check("made as the cluster's it joins", said == "" and c.one("SELECT count(*) FROM unfit WHERE id = 1") == 1, said)


def unwatched(a, b):
    b.sql("INSERT INTO aside VALUES (1, 'of b alone')")
    watch(a, "aside")
    b.sql("SELECT marmot_unwatch('late')")
    a.sql("INSERT INTO aside VALUES (2, 'of a')")
    a.sql("UPDATE late SET v = 'changed' WHERE k = 'key3'")
    b.sql("DELETE FROM late WHERE k = 'key9'")
    fill(a, 10000)
    a.sync(20000)
    check("both sync", b.sync(20000) == 1, b.status())
    before = b.dump()
    json.loads(b.one("SELECT marmot_restore()"))
    after = b.dump()
    check("a restore leaves unwatched tables alone", before["late"] == after["late"] and before["aside"] == after["aside"],
          difference(before, after))
    b.sql("DELETE FROM late")
    watch(b, "late")
    wait_table(b, "late")
    check("unwatched, emptied and watched again it joins", equal_tables(a, b, "t", "late", "bag") == "",
          equal_tables(a, b, "t", "late", "bag"))
    b.sql("SELECT marmot_unwatch('bag')")
    watch(b, "bag")
    wait_table(b, "bag")
    ok("unwatched and watched again, equal as it is, it joins")


def skipped(a, b, nats):
    """A message of a later version: a plays the node that could read it."""
    subject = a.one("SELECT subject FROM marmot_streams")
    with RawNats(nats.port) as raw:
        def stored():
            try:
                return raw.stored("marmot-changes-c-1", LATER, subject)
            except ValueError:
                return None  # the log is full: a snapshot makes room
        seq = wait_until(stored, 20, "a message of a later version is stored")
    for n in (a, b):
        wait_until(lambda: n.status()["state"] == "blocked", 20, "%s is blocked" % n.name)
        n.sql("SELECT marmot_skip(?)", "1:%d" % seq)
    for n in (a, b):  # a as well: what is to be skipped is asked for again by a node that ends before it has passed it
        wait_table(n, "t", "stale")
    check("marmot_skip makes tables stale, which says how they come back", "snapshot" in table(b, "t")[1], table(b, "t"))
    a.quit()
    plain = sqlite3.connect(a.db, timeout=10)
    plain.execute("UPDATE __marmot__table SET state = 'watched', why = NULL, joined_seq = 1 WHERE state = 'stale'")
    plain.commit()
    plain.close()
    a.start()
    b.sql("INSERT INTO t VALUES (90001, 'by b while stale')")
    a.sql("INSERT INTO t VALUES (90000, 'missed by b')")
    check("replication goes on", a.sync(20000) == 1 and b.sync(20000) == 1, b.status())
    check("stale is left out", b.one("SELECT count(*) FROM t WHERE id = 90000") == 0, "it is there")
    a.one("SELECT marmot_snapshot()")
    for name in ("t", "late", "bag", "differs"):
        wait_table(b, name)
    check("with a snapshot from behind it they join again", equal_tables(a, b, "t", "late", "bag", "differs") == "",
          equal_tables(a, b, "t", "late", "bag", "differs"))
    check("own changes meanwhile are kept", a.one("SELECT count(*) FROM t WHERE id = 90001") == 1, "they are not")


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a, b, c = node(ws, nats, "a"), node(ws, nats, "b"), node(ws, nats, "c", join="adopt")
        a.sql("INSERT INTO differs VALUES (1, 'first')")
        watch(a, "t", "late", "bag", "differs")
        for n in (b, c):
            watch(n, "t")
        for n in (a, b, c):
            check("%s joins" % n.name, n.sync(20000) == 1, n.status())
        fill(a, 100)
        first_left(a, nats)
        empty_ones(a, b)
        other_rows(a, b, c)
        another(a, c)
        unfit(a, c)
        merged(ws, nats, a, b)
        unwatched(a, b)
        fits_again(a, c)
        c.quit()
        skipped(a, b, nats)
        check("the files are sound", [integrity(n.db) for n in (a, b)] == ["ok", "ok"], "they are not")
    finish()


main()
