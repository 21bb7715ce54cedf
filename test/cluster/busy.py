"""The application writes while the node's thread applies at full speed: with a
busy_timeout, BEGIN IMMEDIATE never fails; without one, only for moments. One
process writes at a time: two that never rest starve each other in plain SQLite
too (whose waiting polls, at last every 100 ms; measured without libmarmot: of two
or three one was refused after 5 s in 3 of 6 runs), which would say nothing of the thread.
marmot-test: parallel
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, who, v); CREATE INDEX ti ON t(v);"
SECONDS = 12
# Writes as fast as it can and says how it went.
WRITER = """
import json, sqlite3, sys, time
path, extension, first, timeout, seconds, rows = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None, timeout=float(timeout))
db.enable_load_extension(True)
db.load_extension(extension)
db.execute("SELECT marmot_init()").fetchone()
db.execute("PRAGMA busy_timeout = %d" % (float(timeout) * 1000))
k = int(first)
busy = worst = 0
end = time.monotonic() + float(seconds)
while time.monotonic() < end:
    start = time.monotonic()
    try:
        db.execute("BEGIN IMMEDIATE")
        for _ in range(int(rows)):
            k += 1
            db.execute("INSERT INTO t VALUES (?, ?, ?)", (k, first, "x" * (k % 90)))
        db.execute("COMMIT")
    except sqlite3.OperationalError as e:
        if "locked" not in str(e):
            raise
        busy += 1
        if db.in_transaction:
            db.execute("ROLLBACK")
    worst = max(worst, time.monotonic() - start)
print(json.dumps({"written": k - int(first), "busy": busy, "worst": worst}), flush=True)
sys.stdin.readline()
db.execute("SELECT marmot_sync(30000)").fetchone()
db.close()
"""


def start(node, first, timeout, seconds, rows):
    return subprocess.Popen([PYTHON, "-c", WRITER, node.db, EXTENSION, str(first), str(timeout * SLOW), str(seconds), str(rows)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=node.env,
                            preexec_fn=die_with_parent)


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        nodes = [Node(ws, name, urls=nats.url, schema=SCHEMA) for name in "abc"]
        for n in nodes:
            n.sync()
            n.quit()
        a, b, c = nodes
        # Two flood, the third is the application; another process of it follows the first, which stays open.
        runs = [start(b, 10 ** 8, 5, SECONDS, 100), start(c, 2 * 10 ** 8, 5, SECONDS, 3),
                start(a, 3 * 10 ** 8, 5, SECONDS / 2, 1)]
        seen = [json.loads(runs[2].stdout.readline())]
        runs.append(start(a, 4 * 10 ** 8, 5, SECONDS / 2, 5))
        seen += [json.loads(r.stdout.readline()) for r in (runs[3], runs[0], runs[1])]
        for r in runs:
            r.stdin.write("end\n")
            r.stdin.close()
        codes = [r.wait(60 * SLOW) for r in runs]
        for r in runs:
            r.stdout.close()
        for s in seen:
            note("%d rows written, %d times busy, the slowest took %.2f s" % (s["written"], s["busy"], s["worst"]))
        check("all writers end well", codes == [0] * 4, codes)
        check("BEGIN IMMEDIATE with a busy_timeout never fails", sum(s["busy"] for s in seen) == 0, seen)
        check("no writer starves", min(s["written"] for s in seen) > 20, seen)
        for n in nodes:
            n.start()
        for n in nodes:
            check("%s is in step" % n.name, n.sync(60000) == 1, n.status())
        common = everywhere(nodes)
        check("all rows are everywhere", len(common["t"][1]) == sum(s["written"] for s in seen), len(common["t"][1]))

        # One without any timeout of its own: marmot_init's connection would have
        # one, so it is set to zero; it may fail, and never for long.
        for n in nodes:
            n.quit()
        runs = [start(b, 5 * 10 ** 8, 5, 4, 50), start(a, 6 * 10 ** 8, 0, 4, 1)]
        seen = [json.loads(r.stdout.readline()) for r in runs]
        for r in runs:
            r.stdin.close()
            r.wait(60 * SLOW)
            r.stdout.close()
        note("without a timeout: %d written, %d times busy" % (seen[1]["written"], seen[1]["busy"]))
        check("without a busy_timeout writes get in between", seen[1]["written"] > 100, seen)
        for n in nodes:
            n.start()
            n.sync(30000)
        everywhere(nodes)
        for n in nodes:
            n.quit()
    finish()


main()
