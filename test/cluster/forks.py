"""A host that forks beside a live node: the children neither hang nor disturb it;
one may open a connection of its own, to another file or to the same.
marmot-test: parallel
"""
import json
import multiprocessing
import os
import sqlite3
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
FORKS = 120
# 3 is a child with a node of its own. The thread sanitizer keeps the parent's threads in the child and ends
# it when one of its own gets the same id.
KINDS = [0, 1, 2, 4] if "tsan" in os.environ.get("MARMOT_PRELOAD", "") else [0, 1, 2, 3, 4]
# The address sanitizer's own allocator is no use in the child of a fork beside threads: it may find its locks held.
CHILDREN_HANG = "asan" in os.environ.get("MARMOT_PRELOAD", "")
LIMIT = 20 if CHILDREN_HANG else 20 * SLOW  # seconds for a child: it needs some milliseconds


def connect(path):
    db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    db.enable_load_extension(True)
    db.load_extension(EXTENSION)
    return db


def child(kind, folder, same, number, inherited):
    """What a child does; an exception makes its exit code 1."""
    if kind == 0:
        db = sqlite3.connect(os.path.join(folder, "child%d.db" % number))
        db.execute("CREATE TABLE c(x)")
        db.execute("INSERT INTO c VALUES (1)")
        db.commit()
        db.close()
    elif kind == 1:
        db = connect(os.path.join(folder, "child%d.db" % number))
        assert db.execute("SELECT marmot_version()").fetchone()[0]
        db.execute("CREATE TABLE c(x)")
        db.close()
    elif kind == 2:
        db = connect(same)
        db.execute("INSERT INTO t VALUES (?, 'of a child')", (100000 + number,))
        db.close()
    elif kind == 3:
        db = connect(same)
        db.execute("SELECT marmot_init()").fetchone()
        db.execute("INSERT INTO t VALUES (?, 'of a child')", (100000 + number,))
        assert db.execute("SELECT marmot_sync(15000)").fetchone()[0] == 1
        db.close()
    else:
        inherited.close()


def main():
    rng = seeded()
    context = multiprocessing.get_context("fork")
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        b = Node(ws, "b", urls=nats.url, schema=SCHEMA)
        path = os.path.join(ws.dir, "a.db")
        with sqlite3.connect(path) as plain:
            plain.executescript("PRAGMA journal_mode=wal;" + SCHEMA)
        plain.close()
        a = connect(path)
        a.execute("SELECT marmot_init(?)", (json.dumps({"nats": {"urls": [nats.url]}}),)).fetchone()
        a.execute("SELECT marmot_watch_all()").fetchone()
        assert a.execute("SELECT marmot_sync(20000)").fetchone()[0] == 1
        b.sync()
        idle = connect(path)  # for the children to inherit and to close
        done = threading.Event()

        def traffic():
            k = 0
            while not done.is_set():
                k += 1
                b.sql("INSERT OR REPLACE INTO t VALUES (?, ?)", k % 500, k)
        thread = threading.Thread(target=traffic)
        thread.start()
        failed, hung, wrote = [], 0, []
        try:
            for k in range(FORKS):
                kind = rng.choice(KINDS)
                p = context.Process(target=child, args=(kind, ws.dir, path, k, idle))
                p.start()
                a.execute("INSERT INTO t VALUES (?, 'of the parent')", (200000 + k,))
                p.join(LIMIT)
                if p.exitcode is None:
                    hung += 1
                    p.kill()
                    p.join()
                elif p.exitcode != 0:
                    failed.append((kind, p.exitcode))
                elif kind in (2, 3):
                    wrote.append(100000 + k)
        finally:
            done.set()
            thread.join()
        judge = bar if CHILDREN_HANG else check
        judge("no child of %d hangs" % FORKS, hung == 0, "%d did" % hung)
        judge("none fails", not failed, failed)
        check("the node of the parent lives", a.execute("SELECT marmot_sync(20000)").fetchone()[0] == 1,
              a.execute("SELECT marmot_status()").fetchone()[0])
        check("the other node lives", b.sync(20000) == 1, b.status())
        wait_equal([path, b.db], 20)
        have = {r[0] for r in peek(b.db, "SELECT id FROM t WHERE id >= 100000")}
        want = set(wrote) | set(range(200000, 200000 + FORKS))
        more = CHILDREN_HANG and have - want <= {100000 + k for k in range(FORKS)}  # of one that hung later
        check("what parent and children wrote is everywhere", want <= have and (have == want or more),
              sorted(have ^ want)[:10])
        idle.close()
        a.close()
        b.quit()
        everywhere([path, b.db])
    finish()


main()
