"""Mode 'hook': what a plain shell writes is not captured, and is noticed, whenever
it came: between captured commits, in a write-ahead log that begins anew, beside a
second process, while none of ours ran, after kill -9. Our own commits, of watched
and unwatched tables, never count. The same counter serves publish=false.
marmot-test: parallel
"""
import os
import sqlite3
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = ("CREATE TABLE t(id INTEGER PRIMARY KEY, v);CREATE TABLE own(id INTEGER PRIMARY KEY AUTOINCREMENT, v);"
          "CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;")


def plain(path, text):
    subprocess.run(["sqlite3", "-batch", "-cmd", ".timeout 8000", path, text], check=True, capture_output=True)


def counted(node):
    return node.one("SELECT value FROM marmot_metrics WHERE name = 'foreign_commits_total'")


def waiting(node):
    return node.one("SELECT value FROM marmot_metrics WHERE name = 'foreign_commits'")


def is_counted(name, node, n, seconds=5):
    try:
        wait_until(lambda: counted(node) >= n, seconds * SLOW, "the count is %d" % n)
    except Timeout:
        pass
    check(name, counted(node) == n, "%d are counted, not %d" % (counted(node), n))


def looked(node):
    """Whatever could be counted of what was done until now is."""
    node.sync()
    node.sql("INSERT INTO w VALUES (hex(randomblob(8)), 0)")
    node.sync()
    time.sleep(0.3)  # nothing to wait for: a count that must not come


def own_traffic(a, b, rng):
    """All kinds of commits of a captured connection, and of the thread."""
    a.open(1)
    for k in range(120):
        dice = rng.random()
        if dice < 0.3:
            a.sql("INSERT INTO t(v) VALUES (?)", "a" * rng.choice([1, 100, 3000, 40000]), conn=k % 2)
        elif dice < 0.5:
            a.sql("INSERT INTO own(v) VALUES (?)", k, conn=k % 2)
        elif dice < 0.6:
            a.txn([("INSERT INTO own(v) VALUES (1)", []), ("UPDATE t SET v = id WHERE id %% 5 = %d" % (k % 5), [])])
        elif dice < 0.7:
            for text in ("BEGIN", "INSERT INTO t(id, v) VALUES (-1, 0)", "SAVEPOINT s", "UPDATE own SET v = v",
                         "ROLLBACK TO s", "DELETE FROM t WHERE id = -1", rng.choice(["COMMIT", "ROLLBACK"])):
                a.sql(text)
        elif dice < 0.75:
            a.sql("PRAGMA wal_checkpoint(%s)" % rng.choice(["TRUNCATE", "RESTART", "PASSIVE"]))
        elif dice < 0.8:
            a.sync()
        else:
            b.sql("INSERT OR REPLACE INTO w VALUES (?, ?)", "k%d" % (k % 9), k)
    a.sql("SELECT marmot_policy('t', 'v', 'max')")
    a.sql("SELECT marmot_verify(5000)")
    a.sql("SELECT marmot_snapshot()")
    a.sql("SELECT marmot_unwatch('w')")
    a.sql("SELECT marmot_watch('w')")
    a.sql("SELECT marmot_restore()")
    a.sync()


def noticed(a):
    plain(a.db, "INSERT INTO t(v) VALUES ('foreign')")
    is_counted("a foreign commit is noticed", a, 1)
    status = a.status()
    check("the status warns", any("marmot_reconcile" in w for w in status["warnings"]), status["warnings"])
    try:
        said = a.one("SELECT marmot_snapshot()")
    except SqlError as e:
        said = str(e)
    check("this node takes no snapshot then", "not captured" in said, said)
    with open(a.errors, encoding="utf-8") as log:
        told = [line for line in log if "not captured" in line and "no snapshot is taken" not in line]
    check("it is logged once", len(told) == 1, told)


def between(a, rng):
    """Foreign commits among ours, the log restarting under both: not one is missed."""
    before = counted(a)
    stop = threading.Event()
    written = []

    def foreign():
        other = sqlite3.connect(a.db, isolation_level=None, timeout=10)
        while not stop.is_set():
            other.execute("INSERT INTO own(v) VALUES (0)")
            written.append(1)
            time.sleep(rng.random() / 50)
        other.close()

    thread = threading.Thread(target=foreign)
    thread.start()
    for k in range(400):
        a.sql("INSERT INTO %s(v) VALUES (?)" % rng.choice(["t", "own"]), k)
        if k % 50 == 0:
            a.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    stop.set()
    thread.join()
    is_counted("%d among 400 of ours are all counted" % len(written), a, before + len(written))


def second_process(ws, a, config):
    before = counted(a)
    other = Node(ws, "beside", config=config, db=a.db, watch=False)
    other.wait_state("standby")
    for k in range(20):
        other.sql("INSERT INTO t(v) VALUES (?)", k)
        other.sql("INSERT INTO own(v) VALUES (?)", k)
        other.sql("DELETE FROM t WHERE v = ?", k - 1)
    other.sync()
    looked(a)
    check("a second process's commits are ours", counted(a) == before, counted(a) - before)
    a.kill()
    other.wait_state("live")
    looked(other)
    check("so they are after it has taken over", counted(other) == before, counted(other) - before)
    plain(a.db, "DELETE FROM own WHERE id = 1")
    is_counted("it notices a foreign one", other, before + 1)
    a.start()
    a.wait_state("standby")
    other.quit()
    a.wait_state("live")
    looked(a)
    check("and back", counted(a) == before + 1, counted(a) - before)


def nobody_ran(a):
    n = counted(a)

    def again(name, end, do, more):
        nonlocal n
        end()
        do()
        a.start()
        looked(a)
        n += more
        check("%s: %d more" % (name, more), counted(a) == n, counted(a) - n)

    def nothing():
        pass

    def lingering():
        """A foreign process that does not bring the log into the file when it ends."""
        subprocess.run([sys.executable, "-c",
                        "import sqlite3, os, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                        "for k in range(3): c.execute('INSERT INTO own(v) VALUES (9)')\nos._exit(0)", a.db], check=True)

    def restarted():
        """Ours was the first commit of a log that has begun anew."""
        a.sync()
        a.sql("PRAGMA wal_checkpoint(RESTART)")
        a.kill()

    again("a clean end", a.quit, nothing, 0)
    again("a clean end, foreign readers", a.quit, lambda: plain(a.db, "SELECT count(*) FROM t"), 0)
    again("kill -9", a.kill, nothing, 0)
    again("kill -9 of a log that begins anew", restarted, nothing, 0)
    again("a clean end, a foreign writer", a.quit, lambda: plain(a.db, "UPDATE own SET v = 'x' WHERE id = 2"), 1)
    again("kill -9, a foreign writer", a.kill, lambda: plain(a.db, "UPDATE own SET v = 'y' WHERE id = 2"), 1)
    again("kill -9, a foreign writer that is killed, too", a.kill, lingering, 3)
    again("a clean end after all that", a.quit, nothing, 0)


def mended(a, b):
    ever = counted(a)
    a.sql("SELECT marmot_reconcile()")
    check("marmot_reconcile mends them", waiting(a) == 0 and
          not any("not captured" in w for w in a.status()["warnings"]), a.status())
    check("and does not count itself", counted(a) == ever, counted(a))
    check("so that there are snapshots again", "shards" in a.one("SELECT marmot_snapshot()"), "")
    a.sync()
    b.sync()
    watched = ["SELECT %s FROM %s ORDER BY 1" % pair for pair in (("id, v", "t"), ("k, v", "w"))]
    check("and both are equal", all(a.sql(q) == b.sql(q) for q in watched), "they are not")


def not_all(a, b):
    """While a table cannot be compared nobody can say that nothing is missing."""
    b.sql("ALTER TABLE w ADD COLUMN x")
    b.sql("INSERT INTO w VALUES ('stale', 1, 2)")
    wait_until(lambda: a.sql("SELECT state FROM marmot_tables WHERE name = 'w'") == [("stale",)], 20, "w is stale at a")
    plain(a.db, "INSERT INTO t(id, v) VALUES (-7, 'past the hook')")
    wait_until(lambda: waiting(a) == 1, 5 * SLOW, "what came past the hook is counted beside a stale table")
    answer = json.loads(a.one("SELECT marmot_reconcile()"))
    check("it is found", answer["rows"] == 1 and "stale" in str(answer["tables"]), answer)
    a.sync()
    b.sync()
    check("and sent", b.one("SELECT v FROM t WHERE id = -7") == "past the hook", b.sql("SELECT * FROM t WHERE id < 0"))
    check("but reconcile stays due: not every table was compared", waiting(a) == 1 and
          any("marmot_reconcile" in w for w in a.status()["warnings"]), a.status())
    a.sql("ALTER TABLE w ADD COLUMN x")
    wait_until(lambda: a.sql("SELECT state FROM marmot_tables WHERE name = 'w'") == [("watched",)], 20, "w is back")
    a.one("SELECT marmot_reconcile()")
    check("it is not once all were", waiting(a) == 0, waiting(a))


def while_taken(nats, a, b):
    """A foreign commit behind the look and before the copy: in the snapshot's rows it would be the cluster's, and
    marmot_reconcile would find nothing to send."""
    a.sql("INSERT INTO t(id, v) VALUES (770077, 'captured')")
    a.sync()
    nats.pause()
    a.send_sql("SELECT marmot_snapshot()")
    names = "/proc/%d/task" % a.process.pid
    wait_until(lambda: any("marmot-snap" in open("%s/%s/comm" % (names, t), encoding="utf-8").read()
                           for t in os.listdir(names)), 10, "the snapshot is begun", every=0.005)
    plain(a.db, "UPDATE t SET v = 'past' WHERE id = 770077")
    nats.resume()
    try:
        said = a.receive()
    except SqlError as e:
        said = str(e)
    check("no snapshot holds what came while it was begun", "captured" in str(said), said)
    a.sql("SELECT marmot_reconcile()")
    a.sync()
    b.sync()
    check("it is found and sent", b.sql("SELECT v FROM t WHERE id = 770077") == [("past",)], b.sql("SELECT v FROM t WHERE id = 770077"))


def not_published(ws, config):
    node = Node(ws, "reader", schema=SCHEMA, watch=False, config=dict(config, publish=False, capture="auto"))
    node.sql("SELECT marmot_watch('t')")
    node.wait_state("live")
    before = counted(node)
    for k in range(5):
        node.sql("INSERT INTO own(v) VALUES (?)", k)
    is_counted("publish=false: local writes count as foreign", node, before + 5)
    check("its status says so", any("publish is false" in w for w in node.status()["warnings"]), node.status())
    node.quit()


def seeds(ws):
    """Whatever a node writes of its own to begin an epoch, and to follow one, is no foreign commit."""
    nats = NatsServer(ws).start()
    config = {"capture": "hook", "nats": {"urls": [nats.url], "reconnect_wait_seconds": 1},
              "snapshot": {"store": "file", "file": {"path": os.path.join(ws.dir, "epochs")}}}
    a, b = [Node(ws, "seed" + name, config=config, schema=SCHEMA) for name in "ab"]
    for n in (a, b):
        n.sql("INSERT INTO w VALUES (?, 1)", n.name)
        n.sync()
    nats.wipe()
    nats.start()
    a.wait_state("diverged", 30)
    plain(a.db, "INSERT INTO w VALUES ('past', 1)")
    is_counted("a commit past the hook while the log is gone", a, 1)
    check("a node in mode hook seeds, with that", '"epoch":2' in a.one("SELECT marmot_rejoin('seed')"), "")
    for n in (a, b):
        n.wait_state("live", 30)
        n.sync()
        looked(n)
        check("%s: the new epoch has it" % n.name, n.one("SELECT count(*) FROM w WHERE k = 'past'") == 1, n.sql("SELECT * FROM w"))
        check("%s: and nothing counts as foreign" % n.name, counted(n) == (n is a) and
              not any("not captured" in w for w in n.status()["warnings"]), (counted(n), n.status()["warnings"]))
        n.quit()


def guarded(ws, nats):
    node = Node(ws, "auto", schema=SCHEMA, config={"cluster": "auto", "nats": {"urls": [nats.url]}})
    node.wait_state("live")
    plain(node.db, "INSERT INTO t(v) VALUES (1)")
    node.sync()
    check("mode auto captures them instead", counted(node) == 0, counted(node))
    node.sql("SELECT marmot_stop()")
    node.config["capture"] = "hook"
    node.init()
    looked(node)
    check("changing to mode hook begins at nothing", counted(node) == 0, counted(node))
    plain(node.db, "INSERT INTO t(v) VALUES (1)")
    is_counted("and counts from there", node, 1)
    node.quit()


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"capture": "hook", "nats": {"urls": [nats.url]},
                  "snapshot": {"store": "file", "file": {"path": os.path.join(ws.dir, "snapshots")}}}
        a, b = [Node(ws, name, config=config, schema=SCHEMA, watch=False) for name in "ab"]
        for n in (a, b):
            n.sql("SELECT marmot_watch('t'), marmot_watch('w')")
            n.wait_state("live")
        own_traffic(a, b, rng)
        b.sync()
        for n in (a, b):
            looked(n)
            check("%s: nothing foreign so far" % n.name, counted(n) == 0, counted(n))
        noticed(a)
        between(a, rng)
        second_process(ws, a, config)
        nobody_ran(a)
        check("nothing of it reached the other node", b.one("SELECT count(*) FROM t WHERE v = 'foreign'") == 0, "")
        mended(a, b)
        not_all(a, b)
        while_taken(nats, a, b)
        not_published(ws, config)
        guarded(ws, nats)
        seeds(ws)
    finish()


main()
