"""How soon one process of a file learns of another: a commit of one that does not
replicate, the end of the one that does; and what a quiet node costs.
marmot-test: limit=150
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
COMMITS = 60
ENDS = 5
QUIET = 4.0  # seconds in which nothing happens


def median(values):
    return sorted(values)[len(values) // 2]


def seen_after(db, key):
    """Seconds until a reader of b's file sees the row."""
    start = time.monotonic()
    while not db.execute("SELECT count(*) FROM t WHERE id = ?", (key,)).fetchone()[0]:
        if time.monotonic() - start > 10 * SLOW:
            raise Timeout("row %d did not arrive" % key)
        time.sleep(0.0002)
    return time.monotonic() - start


def latency(writer, reader, first, what):
    """One commit after a quiet time, again and again."""
    spent = []
    for k in range(COMMITS):
        writer.sql("INSERT INTO t VALUES (?, 'x')", first + k)
        spent.append(seen_after(reader, first + k))
        time.sleep(0.02)
    note("%s: visible at the other node after %.2f ms (median), %.2f ms (slowest of %d)" % (
        what, median(spent) * 1000, max(spent) * 1000, COMMITS))
    bar("%s: visible at the other node, median below 10 ms" % what, median(spent) < 0.010, "%.1f ms" % (median(spent) * 1000))


def state_after(node, state):
    start = time.monotonic()
    wait_until(lambda: node.status()["state"] == state, 10, "%s is %s" % (node.name, state), 0.002)
    return time.monotonic() - start


def take_over(pair, how):
    """Seconds from the end of the replicating process to the other one being live."""
    spent = []
    for _ in range(ENDS):
        leader = next(n for n in pair if n.status()["state"] == "live")
        other = pair[1 - pair.index(leader)]
        leader.kill() if how == "kill -9" else leader.quit()
        spent.append(state_after(other, "live"))
        leader.start()
        leader.wait_state("standby")
    note("taken over after %s: %.1f ms (median), %.1f ms (slowest of %d)" % (
        how, median(spent) * 1000, max(spent) * 1000, ENDS))
    return median(spent)


def cpu(process):
    """Seconds that its threads have run, by the scheduler's own clock, which counts nanoseconds."""
    total = 0
    for task in os.listdir("/proc/%d/task" % process.pid):
        with open("/proc/%d/task/%s/schedstat" % (process.pid, task)) as f:
            total += int(f.read().split()[0])
    return total / 1e9


def idle(nodes):
    """Share of a core that each process uses while nothing happens."""
    wait_until(lambda: all(n.status()["outbox"]["rows"] == 0 for n in nodes), 20, "all is echoed")
    time.sleep(2)  # what the traffic before made due is over
    before = [cpu(n.process) for n in nodes]
    time.sleep(QUIET)
    used = [(cpu(n.process) - b) / QUIET * 100 for n, b in zip(nodes, before)]
    note("idle: " + ", ".join("%s %.3f %% of a core" % (n.name, u) for n, u in zip(nodes, used)))
    bar("a quiet node costs less than 0.5 % of a core in each process", max(used) < 0.5, used)


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url]}}
        first = Node(ws, "first", config=config, schema=SCHEMA)
        first.wait_state("live")
        second = Node(ws, "second", config=config, db=first.db)
        b = Node(ws, "b", config=config, schema=SCHEMA)
        loaded = Node(ws, "loaded", config=False, db=first.db)
        second.wait_state("standby")
        b.sync()
        first.sync()
        reader = sqlite3.connect(b.db, isolation_level=None, timeout=5)
        latency(first, reader, 1000, "the process that replicates")
        latency(second, reader, 2000, "one that stands by")
        latency(loaded, reader, 3000, "one without marmot_init")
        for level in ("FULL", "NORMAL"):
            loaded.sql("PRAGMA synchronous=" + level)
        start = time.monotonic()
        check("marmot_sync of one that stands by", second.sync() == 1, second.status())
        note("it took %.1f ms" % ((time.monotonic() - start) * 1000))
        idle([first, second, b])
        pair = [first, second]
        clean = take_over(pair, "a clean end")
        bar("taken over within 100 ms of a clean end", clean < 0.1, clean)
        killed = take_over(pair, "kill -9")
        bar("taken over within a second of kill -9", killed < 1, killed)

        # The clean-up of another process removes the lock file: the one that takes over locks the file of that name.
        leader = next(n for n in pair if n.status()["state"] == "live")
        other = pair[1 - pair.index(leader)]
        os.remove(first.db + "-marmot-lock")
        leader.pause()
        wait_until(lambda: other.status()["state"] == "live", 10, "the standby locks the new file")
        leader.resume()
        leader.kill()
        third = Node(ws, "third", config=config, db=first.db)
        third.wait_state("standby")
        ok("a lock file of the same name elects one")
        reader.close()
        third.quit()
        loaded.quit()
        other.quit()
        everywhere([first, b])
        b.quit()
    finish()


main()
