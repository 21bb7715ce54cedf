"""A file that was set back to before what a snapshot holds of its own changes, and takes
that snapshot: the log no longer reaches it, or the cluster went on in a new epoch. Its
numbers are others' by then: what is written before the copy comes, and after it, is in
the cluster in the end, once, and what it had written before the set-back comes back.
marmot-test: parallel
"""
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402
from rejoining import rejoin, settle  # noqa: E402

SCHEMA = """CREATE TABLE bag(x, y); CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE sum(k INTEGER PRIMARY KEY, n INTEGER); INSERT INTO sum VALUES (1, 0);"""
STREAM = "marmot-changes-c-1"


class Cluster:
    def __init__(self, ws, case):
        self.case = case
        self.folder = os.path.join(ws.dir, case)
        os.makedirs(self.folder)
        self.nats = NatsServer(ws).start()
        snapshot = {"store": "file", "file": {"path": os.path.join(self.folder, "snapshots")}}
        config = {"nats": {"urls": [self.nats.url], "reconnect_wait_seconds": 1}, "snapshot": snapshot}
        self.nodes = [Node(ws, n, config=config, schema=SCHEMA, db=os.path.join(self.folder, n + ".db")) for n in "ab"]
        self.written = 0
        settle(self.nodes)
        self.nodes[0].one("SELECT marmot_policy('sum', 'n', 'delta')")
        settle(self.nodes)

    def write(self, node, count):
        for _ in range(count):
            self.written += 1
            node.txn([("UPDATE sum SET n = n + 1", ()), ("INSERT INTO bag VALUES (?, 'row')", (self.written,)),
                      ("INSERT INTO t VALUES (?, ?)", (self.written, "value %d" % self.written))])

    def set_back(self, node, keep):
        for end in ("-wal", "-shm"):
            if os.path.exists(node.db + end):
                os.unlink(node.db + end)
        with open(keep, "rb") as source, open(node.db, "r+b") as target:  # in place: the same inode
            target.truncate()
            shutil.copyfileobj(source, target)

    def judge(self):
        rows = settle(self.nodes)
        every = list(range(1, self.written + 1))
        found = sorted(r[0][1] for r in rows["bag"][1]), [r[0][1] for r in rows["t"][1]], rows["sum"][1][0][1][1]
        check("%s: every change of all %d counts once" % (self.case, self.written),
              found == (every, every, self.written), found)
        for n in self.nodes:
            check("%s: %s is sound" % (self.case, n.name), integrity(n.db) == "ok", integrity(n.db))


def far(ws, case, epoch, pending, after):
    """`pending` are written before the backup is taken, and sent after it; `after` while the server is away."""
    c = Cluster(ws, case)
    a, b = c.nodes
    c.write(b, 3)
    settle(c.nodes)
    if pending:
        c.nats.stop()
        c.write(b, 2)
    b.quit()
    keep = os.path.join(c.folder, "keep")
    shutil.copy(b.db, keep)
    c.nats.start() if pending else None
    b.start()
    c.write(b, 7)
    c.write(a, 2)
    settle(c.nodes)
    b.quit()
    if epoch:
        c.nats.wipe()
        c.nats.start()
        a.wait_state("diverged")
        rejoin(a, "seed")
    else:
        a.one("SELECT marmot_snapshot()")
        with RawNats(c.nats.port) as raw:
            raw.api("STREAM.PURGE." + STREAM, {"seq": raw.stream(STREAM)[1]["last_seq"]})
    c.set_back(b, keep)
    if after:
        c.nats.stop()
        b.start()
        c.write(b, 4)
        b.kill()
        c.nats.start()
    b.start()
    b.wait_state("live")
    wait_until(lambda: b.one("SELECT count(*) FROM bag") == c.written, 20, "the copy is in")
    c.write(b, 4)
    c.judge()
    b.restart()
    c.write(b, 2)
    c.write(a, 2)
    c.judge()
    for n in c.nodes:
        n.quit()
    c.nats.kill()


def main():
    with Workspace() as ws:
        far(ws, "log_pending", False, True, True)
        far(ws, "log_quiet", False, False, False)
        far(ws, "epoch_pending", True, True, True)
        far(ws, "epoch_quiet", True, False, False)
    finish()


main()
