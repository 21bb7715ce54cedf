"""Disks that fill up under a live cluster: a node's own, and the server's. Commits
fail as plain SQLite's do, the status says why nothing is applied, and once there is
room all goes on from the same place: what was reported as committed is everywhere,
what failed is nowhere.
marmot-test: limit=180
"""
import os
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from small_disk import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); CREATE TABLE pair(id INTEGER PRIMARY KEY, t)"
FULL = "database or disk is full"
ROUNDS = 5


def plain_error(disk):
    """What SQLite alone says on such a disk."""
    db = sqlite3.connect(os.path.join(disk.path, "plain.db"), isolation_level=None)
    db.execute("PRAGMA journal_mode=wal")
    db.executescript(SCHEMA)
    disk.fill()
    try:
        for k in range(200):
            db.execute("INSERT INTO t VALUES (?, randomblob(3000))", (k,))
        said = "no error"
    except sqlite3.Error as e:
        said = "%s: %s" % (type(e).__name__, e)
    db.close()
    disk.empty()
    return said


class Writing:
    """Transactions of one node: a row, and as many as it needs to be large, in two tables."""

    def __init__(self, node, first, rng):
        self.node, self.next, self.rng = node, first, rng
        self.done, self.failed, self.errors = [], [], set()

    def once(self):
        k = self.next
        self.next += 20
        size = self.rng.choice((10, 3000, 3000, 40000))
        steps = [("INSERT INTO t VALUES (?, randomblob(?))", [k + j, size]) for j in range(self.rng.choice((1, 1, 4)))]
        steps.append(("INSERT INTO pair VALUES (?, ?)", [k, len(steps)]))
        try:
            self.node.txn(steps)
            self.done.append(k)
            return True
        except SqlError as e:
            self.failed.append(k)
            self.errors.add(str(e))
            return False

    def until_full(self):
        """Every size has failed a few times."""
        for _ in range(3000):
            if not self.once() and len(self.failed) % 5 == 0:
                return


def blocked(node):
    def told():
        s = node.status()
        return s if s["state"] == "blocked" else None
    s = wait_until(told, 20, "%s says that it cannot store" % node.name)
    check("the status of %s names disk and remedy" % node.name, FULL in s["why"] and "make room" in s["why"] and
          node.db in s["why"], s)
    position = s["shards"][0]["position"]
    stored = peek(node.db, "SELECT seq FROM __marmot__position")[0][0]
    check("what it tells is what its file holds", stored <= position <= s["shards"][0]["end"], (stored, s))
    try:
        why = "no error, but %d" % node.sync(5000)
    except SqlError as e:
        why = str(e)
    check("and marmot_sync is an error that says the same", FULL in why and "make room" in why, why)


def start_full(node, disk):
    """Not a byte is left: it starts, or says why not."""
    disk.fill()
    try:
        node.start()
        blocked(node)
    except SqlError as e:
        node.kill()
        named = any(f + ": " in str(e) for f in ("marmot_init", "marmot_watch_all"))
        check("a start on a full disk names function and cause", named and FULL in str(e), e)


def one_round(k, a, b, disk, rng):
    writing = [Writing(a, 1000000 * (k + 1), rng), Writing(b, 1000000 * (k + 1) + 500000, rng)]
    disk.fill(rng.choice((0, 0, 16384, 32768, 65536)))
    writing[1].until_full()
    for _ in range(60):
        writing[0].once()
    a.sql("INSERT INTO t SELECT value, randomblob(5000) FROM json_each('[%s]')" %
          ",".join(str(-1000 * k - j) for j in range(1, 200)))
    check("%d: commits fail as plain SQLite's do" % k, all(FULL in e for e in writing[1].errors), writing[1].errors)
    blocked(b)
    died = k % 2 == 1
    if died:
        b.kill()
        start_full(b, disk)
    disk.empty()
    if died and b.process is None:
        b.start()
    b.wait_state("live", 20)
    check("%d: all goes on when there is room" % k, b.sync(20000) == 1 and a.sync(20000) == 1, b.status())
    common = everywhere([a, b])
    ids = {row[0][1] for row in common["pair"][1]}
    check("%d: what was committed is there, what failed is not" % k, not set(sum((w.done for w in writing), [])) - ids and
          not ids & set(sum((w.failed for w in writing), [])), "ids differ")
    rows = [0] * (max(ids) + 20)
    for t in common["t"][1]:
        rows[max(0, t[0][1])] += 1
    torn = [row for row in common["pair"][1] if row[1][1] != sum(rows[row[0][1]:row[0][1] + 20])]
    check("%d: whole transactions" % k, not torn, torn[:3])


def of_node(ws, rng):
    disk = SmallDisk(ws, "small", 48)
    plain = plain_error(disk)
    check("plain SQLite's error", FULL in plain, plain)
    nats = NatsServer(ws).start()
    config = {"nats": {"urls": [nats.url]}, "outbox_keep": 1}
    a = Node(ws, "a", config=config, schema=SCHEMA)
    b = Node(ws, "b", config=config, schema=SCHEMA, db=os.path.join(disk.path, "b.db"))
    for n in (a, b):
        check("%s joins" % n.name, n.sync(20000) == 1, n.status())
    for k in range(ROUNDS):
        one_round(k, a, b, disk, rng)
    for n in (a, b):
        n.quit()
    everywhere([a, b])


def keep_writing(a, b, rng, words):
    """Both write until the server takes no more; nothing that they wrote is lost meanwhile."""
    writing = [Writing(n, 1000000 * (k + 1), rng) for k, n in enumerate((a, b))]

    def told():
        for w in writing:
            w.once()
        s = a.status()
        return s if s["state"] in ("log_full", "offline") and any(x in s["why"] for x in words) else None
    s = wait_until(told, 30, "the status says that the server stores nothing")
    note("%s: %s" % (s["state"], s["why"]))
    for w in writing:
        for _ in range(10):
            w.once()
        check("the application of %s notices nothing" % w.node.name, not w.failed, w.errors)
    wait_until(lambda: a.status()["outbox"]["rows"] >= 10, 5, "what is not stored waits in the outbox")
    return writing


def all_there(a, b, writing):
    for n in (a, b):
        wait_until(lambda n=n: n.status()["state"] == "live", 30, "%s is live again" % n.name)
        check("%s has sent and seen everything" % n.name, n.sync(30000) == 1, n.status())
    ids = {row[0][1] for row in everywhere([a, b])["pair"][1]}
    check("nothing is lost", ids == set(writing[0].done + writing[1].done), "ids differ")


def of_server(ws, rng):
    """Debian's 2.9.10 stops answering when a write is cut off by the end of the disk."""
    nats = NatsServer(ws)
    disk = SmallDisk(ws, os.path.join(os.path.basename(nats.dir), "js"), 64)
    nats.start()
    a, b = (Node(ws, name, urls=nats.url, schema=SCHEMA) for name in "ab")
    for n in (a, b):
        check("%s joins" % n.name, n.sync(20000) == 1, n.status())
    disk.fill(200000)
    writing = keep_writing(a, b, rng, ("no space left", "does not work"))
    disk.empty()
    nats.restart()
    all_there(a, b, writing)


def of_account(ws, rng):
    """The limit of the server's own store."""
    def limited(size):
        return 'jetstream { store_dir: "%s/store", max_mem: 1MB, max_file: %s }' % (ws.dir, size)
    nats = NatsServer(ws, jetstream=False, config=limited("2MB")).start()
    a, b = (Node(ws, name, config={"nats": {"urls": [nats.url]}, "snapshot": {"enabled": False}}, schema=SCHEMA)
            for name in "ab")
    for n in (a, b):
        check("%s joins" % n.name, n.sync(20000) == 1, n.status())
    writing = keep_writing(a, b, rng, ("resource", "exceeded", "insufficient"))
    check("the state is log_full", a.status()["state"] == "log_full", a.status())
    with open(os.path.join(nats.dir, "nats.conf")) as f:
        text = f.read().replace("2MB", "1GB")
    with open(os.path.join(nats.dir, "nats.conf"), "w") as f:
        f.write(text)
    nats.restart(hard=False)
    all_there(a, b, writing)


def main():
    rng = seeded()
    mountable = private_mounts("disk_full")
    if mountable:
        with Workspace() as ws:
            of_node(ws, rng)
        with Workspace() as ws:
            of_server(ws, rng)
    with Workspace() as ws:
        of_account(ws, rng)
    finish()


main()
