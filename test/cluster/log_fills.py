"""A log that nobody makes room in: from 80 % on each node warns and says why no
node may take a snapshot; at 100 % the outbox keeps everything; once a snapshot can
be stored the log shrinks and all of it arrives. One that is bounded by bytes makes room
by itself, also for a transaction that is larger than all of it.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"
MOST = 200


def warned(node, *parts):
    return wait_until(lambda: next((w for w in node.status()["warnings"] if all(p in w for p in parts)), None), 15,
                      "%s warns of %s" % (node.name, ", ".join(parts)))


def bytes_alone(ws):
    nats = NatsServer(ws).start()
    log = {"max_bytes": 400000, "part_size": 65536}
    config = {"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}, "replication_log": log}
    a, b = [Node(ws, n, config=config, schema=SCHEMA) for n in ("small", "bytes")]
    a.sync()
    for k in range(3000):
        a.sql("INSERT INTO t VALUES (?, ?)", k, "a row %d" % k)
    check("small messages beyond max_bytes get through", a.sync(40000) == 1, a.status())
    a.many("INSERT INTO t VALUES (?, ?)", [[10000 + k, os.urandom(10000)] for k in range(60)])
    check("a transaction larger than max_bytes does", a.sync(40000) == 1, a.status())
    check("they arrive", b.sync(40000) == 1 and len(wait_equal([a, b])["t"][1]) == 3060, b.status())
    with RawNats(nats.port) as raw:
        check("the log was never larger", raw.stream("marmot-changes-c-1")[1]["bytes"] <= log["max_bytes"], "it is")
    for n in (a, b):
        n.quit()
    nats.kill()


def main():
    with Workspace() as ws:
        bytes_alone(ws)
        nats = NatsServer(ws).start()
        place = os.path.join(ws.dir, "snapshots")
        with open(place, "w"):
            pass  # a file where the directory should be
        config = {"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}, "replication_log": {"max_entries": MOST},
                  "snapshot": {"store": "file", "file": {"path": place}}}
        a = Node(ws, "a", config=config, schema=SCHEMA)
        b = Node(ws, "b", config=dict(config, publish=False), schema=SCHEMA)
        a.sync()
        warned(a, "no snapshot is taken", "not a directory".capitalize())
        ok("a store that cannot be used is told before the log fills")
        for k in range(100):
            a.sql("INSERT INTO t VALUES (?, 'early')", k)
        a.sync()
        check("half full is no matter", not any("stream" in w for w in a.status()["warnings"]), a.status()["warnings"])
        for k in range(70):
            a.sql("INSERT INTO t VALUES (?, 'later')", 1000 + k)
        a.sync()
        for n in (a, b):
            text = warned(n, "at most %d messages" % MOST, "Not a directory", "publish")
            check("%s says why no node may: both reasons" % n.name, "no node may take a snapshot" in text
                  and ("b.db" if n is a else "a.db") in text, text)
        rows = dict(b.sql("SELECT name, no_snapshot FROM marmot_nodes"))
        check("marmot_nodes has them, too", "Not a directory" in rows["a.db"] and "publish" in rows["b.db"], rows)
        for n in (a, b):
            with open(n.errors) as log:
                lines = [line for line in log if "no node may take a snapshot" in line]
            check("%s logs it once" % n.name, len(lines) == 1, lines)
        for k in range(100):
            a.sql("INSERT INTO t VALUES (?, 'last')", 2000 + k)
        a.wait_state("log_full")
        wait_until(lambda: a.status()["outbox"]["rows"] > 50, 10, "the rest waits in the outbox")
        ok("the rest waits in the outbox")
        with RawNats(nats.port) as raw:
            check("and holds what it may", raw.stream("marmot-changes-c-1")[1]["messages"] == MOST, "another number")
        os.unlink(place)
        wait_until(lambda: a.status()["state"] == "live" and a.status()["outbox"]["rows"] == 0, 30, "room is made")
        wait_equal([a, b])
        check("all has arrived", b.one("SELECT count(*) FROM t") == 270, b.one("SELECT count(*) FROM t"))
        wait_until(lambda: a.status()["warnings"] == [], 15, "the warning ends")
        ok("the warning ends")
    finish()


main()
