"""20,000 transactions of one row in a row: the outbox forgets what is echoed after
outbox_keep, empties in the end, and the process stays small.
marmot-test: limit=180
"""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

TRANSACTIONS = 20000
KEEP = 2
SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
RSS_GROWTH = 24 << 20  # bytes; sanitizers multiply it
PACE = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
db.enable_load_extension(True)
db.load_extension(sys.argv[2])
print(db.execute("SELECT marmot_init()").fetchone(), flush=True)
for first in range(0, int(sys.argv[3]), 500):
    for k in range(first, first + 500):
        db.execute("INSERT INTO t VALUES (?, 'a row of some length, as rows are')", (k,))
    print(time.time(), flush=True)
print("written", flush=True)
sys.stdin.readline()
db.close()
"""


def rss(pid):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url]}, "outbox_keep": KEEP}
        a = Node(ws, "a", config=config, schema=SCHEMA)
        b = Node(ws, "b", config=config, schema=SCHEMA)
        a.sync()
        b.sync()
        a.quit()
        a.process = subprocess.Popen([PYTHON, "-c", PACE, a.db, EXTENSION, str(TRANSACTIONS)], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True, env=a.env, preexec_fn=die_with_parent)
        a.process.stdout.readline()
        start = time.monotonic()
        stamps = []
        sizes = [(rss(a.process.pid), rss(b.process.pid))]
        for line in a.process.stdout:
            if line == "written\n":
                break
            stamps.append(float(line))
            sizes.append((rss(a.process.pid), rss(b.process.pid)))
        written = time.monotonic() - start
        wait_until(lambda: peek(b.db, "SELECT count(*) FROM t")[0][0] == TRANSACTIONS, 60, "all rows at b")
        arrived = time.monotonic() - start
        note("%d transactions written in %.1f s (%.0f a second), all at b after %.1f s" % (
            TRANSACTIONS, written, TRANSACTIONS / written, arrived))

        def young():
            since = time.time() - KEEP - 1
            return not any(at < since * 1000 for _, _, at in outbox(a.db))
        # Echo, then the keeping, counted in whole rounds of the clean-up.
        wait_until(young, arrived - written + 2, "only rows of the last %d s in the outbox" % (KEEP + 1))
        ok("only rows of the last %d seconds stay in the outbox (%d now)" % (KEEP + 1, len(outbox(a.db))))
        wait_until(lambda: outbox(a.db) == [], KEEP + 3, "the outbox is empty")
        ok("the outbox empties")
        for k, name in enumerate("ab"):
            early = sizes[len(sizes) // 4][k]
            late = rss((a if k == 0 else b).process.pid)
            note("memory of %s: %d MB after a quarter, at most %d MB, %d MB at the end" % (
                name, early >> 20, max(s[k] for s in sizes) >> 20, late >> 20))
            if "MARMOT_PRELOAD" not in os.environ:
                check("the memory of %s stays bounded" % name, late - sizes[0][k] < RSS_GROWTH,
                      "%d MB more" % ((late - sizes[0][k]) >> 20))
        a.process.stdin.write("end\n")
        a.process.stdin.close()
        check("the writer ends well", a.process.wait(30) == 0, a.process.returncode)
        a.process.stdout.close()
        a.process = None
        b.quit()
        everywhere([a, b])
        ok("both are equal")
    finish()


main()
