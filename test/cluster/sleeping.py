"""sleep_timeout: a node without activity disconnects and stops its child server;
the next commit of any process wakes it; marmot_run returns instead. What is new
is in a snapshot before it sleeps.
marmot-test: parallel
"""
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
TIMEOUT = 700  # ms


def newest(folder):
    """The furthest position that a stored snapshot has; a manifest's name carries it."""
    sums = [re.match(r"[0-9a-f]+-\d+-(\d+)-", name) for name in (os.listdir(folder) if os.path.isdir(folder) else [])]
    return max([int(m.group(1)) for m in sums if m], default=0)


def missed_snapshot(a, b, store):
    """The one before a sleep fails, and the node is kept awake: none is due, and so none is wanting."""
    os.rename(store, store + "-away")
    with open(store, "w"):
        pass  # a file where the directory should be
    a.sql("INSERT INTO t VALUES (1000, 'before a sleep without a snapshot')")
    wait_until(lambda: any("no snapshot" in w for w in a.status()["warnings"]), 20, "a warns of it")
    os.remove(store)
    os.rename(store + "-away", store)
    rows = iter(range(1001, 2000))

    def awake():
        b.sql("INSERT INTO t VALUES (?, 'keeps it awake')", next(rows))
        return not a.status()["warnings"] and a.status()["state"] == "live"
    wait_until(awake, 10, "the warning goes with what it was about", every=0.2)
    ok("a snapshot that failed before a sleep is no warning when none is due")
    a.wait_state("sleeping")


def looks_for_snapshots(ws, nats):
    """A log with a bound of bytes is looked at every second once a hundred messages have come."""
    n = Node(ws, "bounded", schema=SCHEMA, config={"cluster": "bounded", "nats": {"urls": [nats.url]}, "sleep_timeout": 1500,
                                                   "replication_log": {"max_bytes": 1 << 26},
                                                   "snapshot": {"store": "file", "file": {"path": os.path.join(ws.dir, "bounded")}}})
    n.sync()
    for k in range(150):
        n.sql("INSERT INTO t VALUES (?, 'of its own')", k)
    n.sync()
    n.wait_state("sleeping")
    ok("a look at the snapshots every second keeps nobody awake")
    check("and what is new is in one", newest(os.path.join(ws.dir, "bounded")) >= 150, newest(os.path.join(ws.dir, "bounded")))
    n.quit()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        store = os.path.join(ws.dir, "snapshots")
        config = {"nats": {"urls": [nats.url]}, "snapshot": {"store": "file", "file": {"path": store}}}
        b = Node(ws, "b", config=config, schema=SCHEMA)
        b.sync()
        a = Node(ws, "a", config=dict(config, sleep_timeout=TIMEOUT), schema=SCHEMA)
        check("the key has its effect", not any("sleep_timeout" in w for w in a.status()["warnings"]), a.status())
        a.sync()
        start = time.monotonic()
        a.wait_state("sleeping")
        check("it sleeps after the time-out, not before", time.monotonic() - start > TIMEOUT / 2000, time.monotonic() - start)
        b.sql("INSERT INTO t VALUES (1, 'while a sleeps')")
        b.sync()
        check("what others write does not wake it", a.status()["state"] == "sleeping" and a.one("SELECT count(*) FROM t") == 0,
              a.status())
        a.sql("INSERT INTO t VALUES (2, 'wakes it')")
        wait_until(lambda: b.one("SELECT count(*) FROM t") == 2, 20, "the commit that wakes it arrives")
        wait_until(lambda: a.one("SELECT count(*) FROM t") == 2, 20, "what it missed arrives")
        ok("the next local commit wakes it")
        a.wait_state("sleeping")
        position = a.status()["shards"][0]["position"]
        check("a snapshot holds what came before the sleep", newest(store) >= position > 2, (newest(store), position))
        check("marmot_sync wakes it, too", a.sync() == 1, a.status())
        a.wait_state("sleeping")
        other = Node(ws, "other", config=False, db=a.db)
        other.sql("INSERT INTO t VALUES (3, 'of another process')")
        wait_until(lambda: b.one("SELECT count(*) FROM t") == 3, 20, "the commit of another process arrives")
        ok("so does a commit of another process")
        other.quit()
        end = time.monotonic() + 3 * TIMEOUT / 1000
        states = set()
        k = 10
        while time.monotonic() < end:
            k += 1
            b.sql("INSERT INTO t VALUES (?, 'keeps it awake')", k)
            wait_until(lambda: a.one("SELECT count(*) FROM t WHERE id = ?", k) == 1, 20, "a row of b")
            states.add(a.status()["state"])
        check("messages keep it awake", states == {"live"}, states)
        a.wait_state("sleeping")
        missed_snapshot(a, b, store)
        a.quit()
        everywhere([a, b])

        looks_for_snapshots(ws, nats)

        # The embedded server ends with the sleep, and is started again.
        c = Node(ws, "c", config={"nats": {"bind_address": ws.bind_address}, "sleep_timeout": TIMEOUT}, schema=SCHEMA)
        c.sync(20000)
        check("it has a child server", answers(int(ws.bind_address.split(":")[1])), c.status())
        c.wait_state("sleeping")
        check("which is stopped while it sleeps", not answers(int(ws.bind_address.split(":")[1])), c.status())
        c.sql("INSERT INTO t VALUES (1, 'x')")
        check("and started again", c.sync(20000) == 1, c.status())
        c.quit()
        done = subprocess.run(
            ["sqlite3", "-batch", c.db, "-cmd", ".timeout 5000", ".load " + EXTENSION, "SELECT marmot_init()",
             "SELECT marmot_run()"], env=c.env, capture_output=True, text=True, timeout=60, check=False)
        check("marmot_run returns when the node sleeps", done.returncode == 0 and done.stdout.endswith("\n1\n"), done)
        b.quit()
    finish()


main()
