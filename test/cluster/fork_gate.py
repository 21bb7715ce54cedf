"""No thread of ours is inside SQLite without the fork gate, whatever the node does: a
child of a fork would find a mutex of SQLite held for ever.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE bag(v);"


def together(nodes):
    for n in nodes + nodes:
        if n.sync(20000) != 1:
            raise Timeout("%s syncs: %s" % (n.name, n.status()))


def work(ws):
    """All that a node's threads do."""
    nats = NatsServer(ws).start()
    config = {"nats": {"urls": [nats.url]}, "snapshot": {"store": "file", "file": {"path": os.path.join(ws.dir, "kept")}}}
    a, b = (Node(ws, name, config=config, schema=SCHEMA) for name in "ab")
    for k, n in enumerate((a, b)):
        n.many("INSERT INTO t(v) VALUES (?)", [[j] for j in range(100)])
        n.sql("INSERT INTO bag VALUES (?)", k)
    together([a, b])
    a.sql("SELECT marmot_snapshot()")
    b.sql("SELECT marmot_restore()")
    late = Node(ws, "late", config=config)
    together([a, b, late])
    for n in (a, b):
        n.sql("CREATE TABLE later(id INTEGER PRIMARY KEY, v)")
        n.sql("INSERT INTO later(v) VALUES (?)", n.name)
    together([a, b])
    b.sql("SELECT marmot_reconcile()")
    a.sql("SELECT marmot_verify(5000)")
    nats.restart()
    second = Node(ws, "second", config=config, db=a.db)
    second.sql("INSERT INTO t(v) VALUES ('of another process')")
    together([second, a, b])
    nats.wipe()
    nats.start()
    a.wait_state("diverged")
    a.sql("SELECT marmot_rejoin('seed')")
    b.wait_state("live")
    together([a, b])
    for n in (second, late, b, a):
        n.quit()


def main():
    with Workspace() as ws:
        told, library = os.path.join(ws.dir, "told"), os.path.join(ws.dir, "gate_check.so")
        subprocess.run(["gcc", "-std=c11", "-shared", "-fPIC", "-O1", "-o", library,
                        os.path.join(TOP, "test", "cluster", "gate_check.c"), "-lsqlite3", "-ldl"], check=True, env=plain_env())
        os.environ.update(MARMOT_PRELOAD=library, GATE_CHECK=told)
        work(ws)
        with open(told) as f:
            lines = f.read().splitlines()
        inside = sum(int(line.split()[1]) for line in lines if line.startswith("inside"))
        outside = sorted({line for line in lines if line.startswith("outside")})
        check("calls into SQLite are seen", inside > 1000, lines[-3:])
        check("each by a thread that holds the gate", not outside, outside[:10])
    finish()


if PLAIN:
    main()
ok("judged in a plain build")  # a sanitizer's runtime has locks of its own
finish()
