"""The log stays small: with 200 messages at most, nodes take snapshots by
themselves and the log before the older of the last two goes; an application
that holds a write transaction for two seconds loses nothing, and a node that
was away longer than the log reaches comes back with what it had pending.
marmot-test: limit=180
"""
import json
import os
import sqlite3
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)"
MOST = 200
STREAM = "marmot-changes-c-1"


def node(ws, nats, name, schema=SCHEMA, watch=True):
    snapshot = {"store": "file", "file": {"path": os.path.join(ws.dir, "snapshots")}}
    config = {"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}, "snapshot": snapshot,
              "replication_log": {"max_entries": MOST}}
    n = Node(ws, name, config=config, schema=schema, watch=False)
    if watch:
        n.sql("SELECT marmot_watch('t')")
    return n


def stream(nats):
    with RawNats(nats.port) as raw:
        return raw.api("STREAM.INFO." + STREAM, {})


def write(n, base, count):
    for k in range(count):
        n.sql("INSERT INTO t VALUES (?, ?)", base + k, "%s %d" % (n.name, k))


def together(nodes, count, base):
    threads = [threading.Thread(target=write, args=(n, base + 100000 * i, count)) for i, n in enumerate(nodes)]
    for t in threads:
        t.start()
    return threads


def samples(nats, place, stop, bad):
    """What is removed from the log lies before the older of the two snapshots, at any time."""
    seen = 0
    while not stop.is_set():
        first = stream(nats)["state"]["first_seq"]  # before the look at the snapshots, which only go forward
        try:
            names = [n for n in os.listdir(place) if n.endswith(".json")]
            manifests = [json.load(open(os.path.join(place, n))) for n in names]
        except (OSError, ValueError):
            continue  # one was being replaced
        at = sorted(m["shards"][0]["position"] for m in manifests)
        if first > 1 and (len(at) < 2 or first > at[-2]):
            bad.append((first, at))
        seen += first > 1
        time.sleep(0.01)
    check("the log never lost what the older snapshot does not hold (%d looks)" % seen, not bad and seen > 10, bad[:3])


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a = node(ws, nats, "a")
        b = node(ws, nats, "b")
        c = node(ws, nats, "c")
        write(a, 0, 20)
        for n in (a, b, c):
            n.sync()
        nats.pause()
        c.sql("INSERT INTO t VALUES (999999, 'pending at c')")
        c.sql("UPDATE t SET v = 'changed at c' WHERE id = 5")
        c.kill()
        nats.resume()
        config = stream(nats)["config"]
        check("the stream is bounded and refuses what does not fit", config["max_msgs"] == MOST
              and config["discard"] == "new", config)

        stop, bad = threading.Event(), []
        watcher = threading.Thread(target=samples, args=(nats, os.path.join(ws.dir, "snapshots"), stop, bad))
        watcher.start()
        writers = together([a, b], 700, 1000)
        # An application's long write transaction beside it: nothing can be folded at b meanwhile.
        held = sqlite3.connect(b.db, timeout=30, isolation_level=None)
        for _ in range(2):
            held.execute("BEGIN IMMEDIATE")
            time.sleep(2)
            held.execute("ROLLBACK")
        held.close()
        for t in writers:
            t.join()
        stop.set()
        watcher.join()
        check("both get through", a.sync(30000) == 1 and b.sync(30000) == 1, "%s %s" % (a.status(), b.status()))
        rows = wait_equal([a, b])
        written = [r for r in rows["t"][1] if r[0][1] < 900000]
        check("nothing is lost", len(written) == 1420, len(written))
        state = stream(nats)["state"]
        check("the log has %d messages at most" % MOST, state["messages"] <= MOST and state["first_seq"] > 1000, state)
        names = os.listdir(os.path.join(ws.dir, "snapshots"))
        check("two snapshots are kept", len([n for n in names if n.endswith(".json")]) == 2, names)

        c.start()
        c.sql("SELECT marmot_watch('t')")
        c.wait_state("live", 30)
        for n in (c, a, b, c):
            n.sync(30000)
        rows = wait_equal([a, b, c])
        texts = [r[1][1] for r in rows["t"][1]]
        check("a node beyond the log's reach comes back with what it had pending",
              "pending at c" in texts and "changed at c" in texts and len(texts) == 1421, len(texts))
    finish()


main()
