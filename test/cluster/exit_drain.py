"""What is pending when a process ends: sent within its last second when there is
a server, kept in the file when there is none, and sent after the next start.
marmot-test: parallel
"""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
ENDS = 20
SCRIPT = """
import os, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
db.enable_load_extension(True)
db.load_extension(sys.argv[2])
db.execute("SELECT marmot_init()").fetchone()
if sys.argv[4] != "none":
    db.execute("SELECT marmot_sync(10000)").fetchone()
db.execute("BEGIN IMMEDIATE")
for k in range(50):
    db.execute("INSERT INTO t VALUES (?, 'x')", (int(sys.argv[3]) + k,))
db.execute("COMMIT")
db.execute("INSERT INTO t VALUES (?, 'y')", (int(sys.argv[3]) + 50,))
if sys.argv[4] == "close":
    db.close()
elif sys.argv[4] == "_exit":
    os._exit(0)
"""


def write_and_end(ws, node, first, how):
    """A process that writes as its last act; seconds that its end took."""
    start = time.monotonic()
    done = subprocess.run([PYTHON, "-c", SCRIPT, node.db, EXTENSION, str(first), how], env=node.env, timeout=60 * SLOW,
                          capture_output=True, text=True, check=False)
    check("a host ending by %s ends well" % how, done.returncode == 0, done.stderr[-300:])
    return time.monotonic() - start


def arrived(node, first):
    return peek(node.db, "SELECT count(*) FROM t WHERE id BETWEEN ? AND ?", first, first + 50)[0][0]


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a = Node(ws, "a", urls=nats.url, schema=SCHEMA)
        b = Node(ws, "b", urls=nats.url, schema=SCHEMA)
        a.sync()
        b.sync()
        a.quit()
        for k, how in enumerate(["close", "falling off the end"]):
            write_and_end(ws, a, 1000 * (k + 1), how)
            # The process has ended: what b lacks now can only be on its way from the server.
            wait_until(lambda: arrived(b, 1000 * (k + 1)) == 51, 5, "the last writes arrive after " + how)
            ok("what was written last is sent before the end (%s)" % how)
        # A commit right before the end meets the node's thread at every point of its turn.
        for k in range(ENDS):
            write_and_end(ws, a, 10000 + 100 * k, "close")
        wait_until(lambda: all(arrived(b, 10000 + 100 * k) == 51 for k in range(ENDS)), 5, "the last writes of all ends")
        ok("nor is it forgotten in one of %d ends" % ENDS)
        shell = subprocess.run(
            ["sqlite3", "-batch", a.db, "-cmd", ".timeout 5000", "SELECT load_extension('%s');" % EXTENSION,
             "SELECT marmot_init();", "SELECT marmot_sync();", "INSERT INTO t VALUES (1, 'from a shell');"],
            env=a.env, capture_output=True, text=True, timeout=60 * SLOW, check=False)
        check("a shell ends well", shell.returncode == 0, shell.stderr)
        wait_until(lambda: peek(b.db, "SELECT count(*) FROM t WHERE id = 1")[0][0] == 1, 5, "the shell's row")
        ok("what a shell wrote last is sent before its end")

        # _exit runs no handler at all: nothing may be lost, only late.
        write_and_end(ws, a, 4000, "_exit")
        nats.stop()
        seconds = write_and_end(ws, a, 5000, "none")
        bar("without a server the end does not wait long", seconds < 5, "%.1f s" % seconds)
        rows = len(outbox(a.db))
        check("what could not be sent is kept", rows >= 2, rows)
        check("and has not arrived", arrived(b, 5000) == 0, arrived(b, 5000))
        nats.start()
        a.start()
        check("it is sent after the next start", a.sync(20000) == 1, a.status())
        everywhere([a, b])
        check("all of it is there", arrived(b, 4000) == 51 and arrived(b, 5000) == 51,
              "%d %d" % (arrived(b, 4000), arrived(b, 5000)))
        a.quit()
        b.quit()
    finish()


main()
