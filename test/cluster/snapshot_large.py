"""A snapshot of a database that is not small: a writer at full speed beside it is
never kept waiting; an empty file that joins from it says before how long the write
lock will be held; how far both are is in marmot_status(), and told by marmot_run
on a terminal.
marmot-test: parallel
"""
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

MIB = 150  # a lock of more than 2 s is expected for this
SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, data BLOB); CREATE INDEX tv ON t(v);"
# A host that calls a function on one connection and looks at the status on another.
HOST = """
import json, sqlite3, sys, threading, time
path, extension, config, call = sys.argv[1:5]
def connect():
    db = sqlite3.connect(path, isolation_level=None, timeout=20, check_same_thread=False)
    db.enable_load_extension(True)
    db.load_extension(extension)
    return db
db, other, seen, answer, metrics = connect(), connect(), [], [], []
db.execute("SELECT marmot_init(?)", (config,)).fetchone()
db.execute("SELECT marmot_watch_all()").fetchone()
def look():
    s = json.loads(other.execute("SELECT marmot_status()").fetchone()[0])
    if "progress" in s and s["progress"] not in seen[-1:]:
        seen.append(s["progress"])
    if "progress" in s and not metrics:
        metrics.extend(r[0] for r in other.execute("SELECT name FROM marmot_metrics WHERE name LIKE 'work%' ORDER BY 1"))
    time.sleep(0.002)
    return s["state"]
if call == "marmot_run()":
    t = threading.Thread(target=lambda: answer.append(db.execute("SELECT marmot_run()").fetchone()[0]))
    t.start()
    while look() != "live":
        pass
    other.execute("SELECT marmot_stop()").fetchone()
    t.join()
else:
    while look() != "live":
        pass
    print("live", flush=True)
    sys.stdin.readline()
    seen.clear()
    began = time.monotonic()
    t = threading.Thread(target=lambda: answer.append(db.execute("SELECT " + call).fetchone()[0]))
    t.start()
    while t.is_alive():
        look()
    answer.append(time.monotonic() - began)
print(json.dumps([answer, seen, metrics]), flush=True)
sys.stdin.readline()
if call != "marmot_run()":
    print(db.execute("SELECT marmot_sync(30000)").fetchone()[0], flush=True)
    sys.stdin.readline()
"""


def host(ws, path, config, call, terminal=None):
    env = dict(plain_env(os.environ.get("MARMOT_PRELOAD")), XDG_STATE_HOME=ws.state_home)
    return subprocess.Popen(WRAP + [PYTHON, "-c", HOST, path, EXTENSION, json.dumps(config), call], env=env, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=terminal)


class Writer(threading.Thread):
    """One commit after the other, by a program that has not loaded the library."""

    def __init__(self, path):
        super().__init__()
        self.path, self.commits, self.longest, self.over = path, 0, 0.0, threading.Event()

    def run(self):
        db = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        while not self.over.is_set():
            began = time.monotonic()
            db.execute("INSERT INTO t(v) VALUES ('meanwhile')")
            self.longest = max(self.longest, time.monotonic() - began)
            self.commits += 1
        db.close()


def steps(seen):
    """The steps in their order, each with the progress that was seen of it."""
    out = []
    for p in seen:
        if not out or out[-1][0] != p["what"]:
            out.append((p["what"], []))
        out[-1][1].append((p["done"], p["total"]))
    return out


def snapshot(ws, path, config):
    a = host(ws, path, config, "marmot_snapshot()")
    first = a.stdout.readline().strip()
    if first != "live":
        raise Died("the first node said '%s'" % first)
    writer = Writer(path)
    writer.start()
    a.stdin.write("go\n")
    a.stdin.flush()
    (_, took), seen, metrics = json.loads(a.stdout.readline())
    writer.over.set()
    writer.join()
    # Whoever held the lock while it copies would be seen: that is a fifth of the time at least.
    most = max(0.4, took * 0.15)
    bar("the longest of %d commits beside a snapshot of %d MiB that took %.1f s: %.0f ms" % (
        writer.commits, MIB, took, writer.longest * 1e3), writer.longest < most, "more than %.0f ms" % (most * 1e3))
    check("writers go on beside it", writer.commits > 20, writer.commits)
    check("metrics: the same", metrics == ["work_done", "work_total"], metrics)
    by = dict(steps(seen))
    packing = by.get("packing the snapshot", [])
    check("status: how far the packing is, in bytes", len(packing) > 1 and packing[-1][1] > MIB << 20 and
          all(0 <= d <= t for d, t in packing) and packing == sorted(packing), (packing[:5], list(by)))
    copying = by.get("copying tables", [])
    check("status: how far the copying is", len(copying) > 1 and copying[-1][1] > MIB << 20 and
          copying[-1][0] > 0 and copying == sorted(copying), (copying[:5], list(by)))
    return a


def join(ws, config):
    ours, theirs = pty.openpty()
    b = host(ws, os.path.join(ws.dir, "b.db"), config, "marmot_run()", theirs)
    os.close(theirs)
    heard = []

    def listen():
        try:
            while True:
                heard.append(os.read(ours, 4096).decode(errors="replace"))
        except OSError:
            pass
    thread = threading.Thread(target=listen)
    thread.start()
    answer, seen, _ = json.loads(b.stdout.readline())
    b.communicate("\n")
    thread.join(5)
    os.close(ours)
    text = "".join(heard)
    whats = [what for what, _ in steps(seen)]
    lock = "about to hold the write lock for more than 2 s: writers will wait"
    check("status: the steps of a join, the long lock told before it is taken",
          lock in whats and "writing the cluster's content" in whats and "unpacking the snapshot" in whats and
          whats.index(lock) < whats.index("writing the cluster's content"), whats)
    check("log: the same with seconds", re.search(r"will hold the database's write lock for some [3-9] s", text), text[-800:])
    told = [t for t in re.findall(r"\rmarmot: ([^\r\033]*)", text)]
    check("terminal: the steps, in place", told and all(any(t.startswith(w) for w in whats + ["reading the log"])
                                                        for t in told), (told, whats))
    check("terminal: the line is cleared at the end", text.rstrip().endswith("\r\x1b[K") or
          text.rfind("\r\x1b[K") > text.rfind("\rmarmot: "), text[-200:])
    check("marmot_run ends with marmot_stop", answer == [1], answer)


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1},
                  "snapshot": {"store": "file", "file": {"path": os.path.join(ws.dir, "store")}}}
        path = os.path.join(ws.dir, "a.db")
        with sqlite3.connect(path) as db:
            db.executescript("PRAGMA journal_mode = wal; PRAGMA synchronous = off;" + SCHEMA)
            db.execute("WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < ?) "
                       "INSERT INTO t SELECT k, 'row ' || k, randomblob(102400) FROM n", (MIB * 10 + 100,))
        db.close()
        a = snapshot(ws, path, config)
        a.stdin.write("go\n")
        a.stdin.flush()
        synced = a.stdout.readline().strip()
        check("what was written meanwhile is in the log", synced == "1", synced)
        join(ws, config)
        a.communicate("\n")
        db = sqlite3.connect(path)
        db.execute("ATTACH ? AS b", (os.path.join(ws.dir, "b.db"),))
        differ = db.execute("SELECT (SELECT count(*) FROM main.t) - (SELECT count(*) FROM b.t), count(*) FROM main.t x "
                            "LEFT JOIN b.t y USING (id) WHERE x.v IS NOT y.v OR x.data IS NOT y.data").fetchone()
        db.close()
        check("the joined database is equal", differ == (0, 0), differ)
    finish()


main()
