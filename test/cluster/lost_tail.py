"""The server loses the end of its log (an older store is put under it) while
another node goes on: who had folded more finds out, takes the snapshot that the
log confirms, and sends again what the outbox kept. Without a snapshot, where
the tables were empty at the founding, the log alone does.
marmot-test: parallel
"""
import json
import os
import re
import shutil
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from cluster_nats import RawNats  # noqa: E402
from marmot_test import *  # noqa: E402,F403
from rejoining import named, rejoin  # noqa: E402

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE u(k TEXT PRIMARY KEY NOT NULL, v UNIQUE);"


def node(ws, nats, name, case, schema=SCHEMA, **more):
    snapshot = {"store": "file", "file": {"path": os.path.join(ws.dir, "snapshots-" + case)}}
    config = dict({"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}, "snapshot": snapshot}, **more)
    return Node(ws, "%s_%s" % (name, case), config=config, schema=schema)


def settle(nodes, seconds=30):
    for n in nodes:
        n.wait_state("live", seconds)
    for n in nodes:
        n.sync()
    for n in nodes:
        n.sync()
    return wait_equal(nodes, seconds)


def lose(nats, keep, forget):
    """Runs `keep`, remembers the store, runs `forget`, puts the store back. All else on the port is as it was."""
    keep()
    nats.stop()
    store = os.path.join(nats.dir, "js")
    shutil.copytree(store, store + ".old")
    nats.start()
    forget()
    nats.kill()
    shutil.rmtree(store)
    os.rename(store + ".old", store)


def heals(ws, case, with_snapshot):
    nats = NatsServer(ws).start()
    a = node(ws, nats, "a", case)
    b = node(ws, nats, "b", case)

    def keep():
        for k in range(20):
            a.sql("INSERT INTO t VALUES (?, 'kept')", k)
            b.sql("INSERT INTO u VALUES (?, ?)", "b%d" % k, k)
        settle([a, b])
        if with_snapshot:
            json.loads(a.one("SELECT marmot_snapshot()"))

    def forget():
        settle([a, b])
        for k in range(10):
            a.sql("UPDATE t SET v = 'lost and found %d' WHERE id = ?" % k, k)
            b.sql("INSERT INTO t VALUES (?, 'b lost it')", 100 + k)
            a.sql("UPDATE u SET v = 'x' || v WHERE k = ?", "b%d" % k)
        settle([a, b])
    lose(nats, keep, forget)
    c = node(ws, nats, "c", case)
    # The new server's next messages take the numbers of those that it lost.
    a.sql("INSERT INTO t VALUES (1000, 'a while it was away')")
    nats.start()
    b.sql("DELETE FROM t WHERE id = 15")
    rows = settle([a, b, c], 40)
    mine = [r for r in rows["t"][1] if str(r[1][1]).startswith(("lost and found", "b lost", "a while"))]
    check("%s: what the server lost came back, once" % case, len(mine) == 21, len(mine))
    check("%s: so did the other table" % case, len([r for r in rows["u"][1] if str(r[1][1]).startswith("x")]) == 10,
          rows["u"][1])
    for n in (a, b, c):
        check("%s: %s is sound" % (case, n.name), integrity(n.db) == "ok", integrity(n.db))
        n.quit()
    nats.kill()


def outbox_is_gone(ws, case):
    """What the outbox no longer holds cannot be sent again: then nobody goes back to a log without it."""
    nats = NatsServer(ws).start()
    a = node(ws, nats, "a", case, outbox_keep=0, cleanup_interval=0)

    def keep():
        a.sql("INSERT INTO t VALUES (1, 'kept')")
        a.sync()
        a.one("SELECT marmot_snapshot()")

    def forget():
        a.wait_state("live", 20)
        a.sql("INSERT INTO t VALUES (2, 'lost')")
        a.sync()
        wait_until(lambda: outbox(a.db) == [], 20, "the outbox is empty")
    lose(nats, keep, forget)
    nats.start()
    a.wait_state("diverged", 30)
    check("%s: it says why, and what to do" % case, "no longer holds" in a.status()["why"] and
          "bring back" in a.status()["why"], a.status())
    a.sql("INSERT INTO t VALUES (3, 'afterwards')")
    rows = [r[0] for r in a.sql("SELECT id FROM t ORDER BY id")]
    check("%s: its own rows stay, and can be written" % case, rows == [1, 2, 3], rows)
    a.quit()
    nats.kill()


def snapshots_are_lost(ws, case):
    """Both snapshots are of messages that the server lost: nobody could join by them."""
    nats = NatsServer(ws).start()
    a = node(ws, nats, "a", case)
    b = node(ws, nats, "b", case)

    def keep():
        b.sql("INSERT INTO t VALUES (1, 'kept')")
        settle([a, b])

    def forget():
        settle([a, b])
        for k in (2, 3):
            a.sql("INSERT INTO t VALUES (?, 'lost and found')", k)
            settle([a, b])
            a.one("SELECT marmot_snapshot()")
    lose(nats, keep, forget)
    b.sql("INSERT INTO t VALUES (4, 'b is before a')")
    a.pause()
    nats.start()
    b.sync(20000)
    a.resume()
    b.sql("INSERT INTO t VALUES (5, 'more')")
    settle([a, b], 40)
    late = node(ws, nats, "late", case, schema=None)
    rows = settle([a, b, late], 40)
    check("%s: a new one is taken, and a newcomer joins by it" % case, [r[0][1] for r in rows["t"][1]] == [1, 2, 3, 4, 5],
          rows["t"][1])
    for n in (a, b, late):
        n.quit()
    nats.kill()


def takes(nats, all_of_it):
    """Whether the server's stream takes messages of any size, or none."""
    with RawNats(nats.port) as raw:
        config, _ = raw.stream("marmot-changes-c-1")
        config["max_msg_size"] = -1 if all_of_it else 1
        raw.api("STREAM.UPDATE.marmot-changes-c-1", config)


def table_is_lost(ws, case):
    """The watch messages of a table are in the lost end, and one node had folded more of it than another. The
    newest snapshot is of that end, and the log ends where it was taken."""
    nats = NatsServer(ws).start()
    a, b, d = [node(ws, nats, x, case) for x in "abd"]

    def keep():
        a.sql("INSERT INTO t VALUES (1, 'kept')")
        settle([a, b, d])
        a.one("SELECT marmot_snapshot()")

    def forget():
        settle([a, b, d])
        for n in (a, b, d):
            n.sql("CREATE TABLE late(id INTEGER PRIMARY KEY, v)")
            n.sync()
        settle([a, b, d])
        b.quit()
        d.sql("INSERT INTO late VALUES (7, 'b has not got it')")
        d.sync()
        a.sql("INSERT INTO late VALUES (8, 'of a')")
        settle([a, d])
        d.quit()
        snapshots.append(json.loads(a.one("SELECT marmot_snapshot()")))
    snapshots = []
    lose(nats, keep, forget)
    a.pause()
    nats.start()
    takes(nats, False)
    a.resume()
    b.start()
    for n in (a, b):
        wait_until(lambda n=n: "has lost changes of this node" in open(n.errors, encoding="utf-8").read(), 30,
                   "both are back where the log ends")
    takes(nats, True)
    for n in (a, b):
        n.wait_state("live", 40)
        n.sync(20000)
    for k in range(2, snapshots[0]["shards"][0]["position"]):
        if a.status()["shards"][0]["position"] < snapshots[0]["shards"][0]["position"]:
            a.sql("INSERT INTO t VALUES (?, 'more')", k)
            a.sync()
    rows = settle([a, b], 40)
    check("%s: what one node alone had of it is on both, or on none" % case,
          [r[0][1] for r in rows["late"][1]] in ([8], [7, 8]), rows["late"])
    d.start()
    rows = settle([a, b, d], 40)
    check("%s: and once, when its writer is back" % case, [r[0][1] for r in rows["late"][1]] == [7, 8], rows["late"])
    for n in (a, b, d):
        n.quit()
    nats.kill()


def whoever_is_whole_seeds(ws, case):
    """A table came behind the newest snapshot, and nobody is left to take another: an epoch begins. The node of the
    lowest id has folded as much as the others, but lacks a column of theirs: it is not named, it could not seed."""
    nats = NatsServer(ws).start()
    schema = SCHEMA + "INSERT INTO u VALUES ('of the founding', 1);"
    ones = [node(ws, nats, name, case, schema, node_id=k, snapshot={"store": "nats"})  # a later one is lost with the log
            for name, k in (("a", 3), ("b", 2), ("c", 1))]
    a, b, c = ones
    settle(ones)
    a.one("SELECT marmot_snapshot()")

    def keep():
        for n in ones:
            with sqlite3.connect(n.db, timeout=20) as shell:  # one of ours watches it before it has a row
                shell.executescript("BEGIN; CREATE TABLE later(id INTEGER PRIMARY KEY, v);"
                                    "INSERT INTO later VALUES (1, 'in no message of the log'); COMMIT")
            shell.close()
            n.sql("SELECT marmot_watch('later')")
        settle(ones)

    def forget():
        settle(ones)
        for n in (a, b):
            n.sql("ALTER TABLE t ADD COLUMN more")
        a.sql("INSERT INTO later VALUES (2, 'forgotten by the server')")
        a.sql("INSERT INTO t VALUES (1, 'this', 'too')")
        for n in ones * 2:
            n.sync()
        wait_until(lambda: c.one("SELECT state FROM marmot_tables WHERE name = 't'") == "stale", 20, "t is stale at c")
    lose(nats, keep, forget)
    nats.start()
    for n in ones:
        n.wait_state("diverged", 40)
    wait_until(lambda: a.sql("SELECT no_snapshot FROM marmot_nodes WHERE id = 1") == [("table t is stale there",)] and
               len(re.findall("holds up to %d" % a.status()["shards"][0]["position"], a.status()["remedy"])) == 3,
               20, "a has heard where all are, and what c lacks")
    seed, text = named(a, ones)
    check("%s: the remedy names one that holds every table" % case, seed is b, text)
    check("%s: and says what c lacks" % case, "table t is stale there" in text, text)
    rejoin(b, "seed")
    a.wait_state("live", 40)
    c.sql("ALTER TABLE t ADD COLUMN more")
    rows = settle(ones, 40)
    check("%s: nothing is lost" % case, [[r[0][1] for r in rows[t][1]] for t in ("later", "t")] == [[1, 2], [1]], rows)
    for n in ones:
        n.quit()
    nats.kill()


def main():
    with Workspace() as ws:
        heals(ws, "with_snapshot", True)
        heals(ws, "log_alone", False)
        snapshots_are_lost(ws, "snapshots_gone")
        outbox_is_gone(ws, "outbox_gone")
        table_is_lost(ws, "table_lost")
        whoever_is_whole_seeds(ws, "seed")
    finish()


main()
