"""A database whose rows differ joins with `join` adopt: it takes the cluster's
rows, a copy of its file is kept, what was pending stays; with strict it stays
out. Five empty files join at once while others write, from the server's own
store. An empty file waits for a snapshot with the tables as they are now.
marmot-test: parallel
"""
import glob
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);"
OTHER = SCHEMA + "INSERT INTO t VALUES (1, 'mine alone'), (2, 'differs');"


def config(nats, **more):
    return dict({"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}}, **more)


def altered_since(ws, nats):
    """Columns came while no node ran, and rows with them, before there is a snapshot that has the table so."""
    store = os.path.join(ws.dir, "altered")
    more = config(nats, cluster="altered", capture="hook", snapshot={"store": "file", "file": {"path": store}})
    a = Node(ws, "altered-a", config=more, schema=SCHEMA + "INSERT INTO t VALUES (1, 'before');")
    wait_until(lambda: glob.glob(os.path.join(store, "*.json")), 20, "the first snapshot is stored")
    a.wait_state("live")
    a.sync()
    a.kill()
    db = sqlite3.connect(a.db)
    db.execute("ALTER TABLE t ADD COLUMN x")
    db.close()
    a.start()
    a.wait_state("live")
    a.sql("INSERT INTO t VALUES (2, 'since', 'x')")
    a.sync()
    # README, mode 'hook': until then it takes no snapshot.
    e = Node(ws, "altered-e", config=more)
    wait_until(lambda: e.status()["state"] == "live" or "altered" in e.status()["why"], 20, "the newcomer has looked")
    said = e.status()
    check("a snapshot of before is not enough, and why says so", said["state"] == "joining" and "table t" in said["why"],
          (said["state"], said["why"]))
    a.one("SELECT marmot_reconcile()")
    e.wait_state("live", 40)
    e.sync()
    rows = wait_equal([a, e])["t"]
    check("the next one by itself is", rows[0] == ["id", "v", "x"] and len(rows[1]) == 2, rows)
    for n in (a, e):
        n.quit()


def altered_at_once(ws, nats):
    """In the first seconds of a node's life, before it has looked for a snapshot. README: who dropped a column first and
    was then sent one has marmot_restore()."""
    store = os.path.join(ws.dir, "once")
    more = config(nats, cluster="once", snapshot={"store": "file", "file": {"path": store}})
    schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, gone);"
    a, b = (Node(ws, "once-" + name, config=more, schema=schema) for name in "ab")
    a.sql("INSERT INTO t VALUES (1, 'before', 1)")
    for n in (a, b):
        n.sync()
    a.sql("ALTER TABLE t DROP COLUMN gone")
    b.sql("INSERT INTO t VALUES (2, 'v', 'of a column that a has no more')")
    b.sql("ALTER TABLE t DROP COLUMN gone")
    b.sync()
    b.sql("INSERT INTO t VALUES (3, 'since')")
    b.sync()
    wait_until(lambda: len(glob.glob(os.path.join(store, "*.json"))) > 1, 20, "the second snapshot is stored")
    ok("a node that was altered at once stores the next snapshot by itself")
    a.one("SELECT marmot_restore()")
    check("the column's table goes on from there", len(wait_equal([a, b])["t"][1]) == 3, a.sql("SELECT * FROM t"))
    for n in (a, b):
        n.quit()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a = Node(ws, "a", config=config(nats), schema=SCHEMA + "INSERT INTO t VALUES (2, 'of the founder');")
        a.many("INSERT INTO t VALUES (?, 'founded')", [[k] for k in range(10, 300)])
        a.sync()
        a.one("SELECT marmot_snapshot()")

        strict = Node(ws, "strict", config=config(nats), schema=OTHER)
        strict.wait_state("join_conflict")
        why = strict.status()["why"]
        check("strict: stays out and says what differs", "rows" in why and "table t" in why, why)
        check("strict: nothing is touched", strict.one("SELECT count(*) FROM t") == 2, strict.sql("SELECT * FROM t"))
        strict.quit()

        adopt = Node(ws, "adopt", config=config(nats, join="adopt"), schema=OTHER)
        adopt.sql("INSERT INTO t VALUES (9000, 'pending')")
        adopt.wait_state("live")
        adopt.sync()
        a.sync()
        rows = wait_equal([a, adopt])
        texts = {r[0][1]: r[1][1] for r in rows["t"][1]}
        check("adopt: the cluster's rows, and what was pending", texts.get(2) == "of the founder" and 1 not in texts
              and texts.get(9000) == "pending", sorted(texts.items())[:3])
        kept = glob.glob(adopt.db + "-before-join-*")
        check("adopt: a copy of the file is kept", len(kept) == 1 and ((1, 1), (3, "mine alone")) in dump(kept[0])["t"][1],
              kept)

        stop = threading.Event()

        def write():
            k = 100000
            while not stop.is_set():
                a.sql("INSERT INTO t VALUES (?, 'meanwhile')", k)
                k += 1
        writer = threading.Thread(target=write)
        writer.start()
        five = [Node(ws, "n%d" % k, config=config(nats)) for k in range(5)]
        try:
            for n in five:
                n.wait_state("live", 40)
        finally:
            stop.set()
            writer.join()
        a.sync()
        for n in five:
            n.sync(20000)
        wait_equal([a, adopt] + five, 30)
        ok("five empty files join at once while another writes")
        altered_since(ws, nats)
        altered_at_once(ws, nats)
    finish()


main()
