"""Epochs on a server that stays: the streams are deleted under live nodes; an
epoch that was begun and never finished, and one whose snapshot cannot be stored;
messages of an epoch that is over, still in flight; the beginning of an epoch met in
the log; a node that the log has left behind among others that go on.
marmot-test: parallel
"""
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from rejoining import refused, rejoin, settle  # noqa: E402
from cluster_nats import *  # noqa: E402,F403
from cluster_wire import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);"
SEEDED = 23


def node(ws, nats, name, case, schema=SCHEMA, **more):
    snapshot = {"store": "file", "file": {"path": os.path.join(ws.dir, "snapshots-" + case)}}
    snapshot = {} if case == "deleted" else snapshot  # the server's own
    config = dict({"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}, "snapshot": snapshot}, **more)
    return Node(ws, "%s_%s" % (name, case), config=config, schema=schema)


def ids(n):
    return [r[0] for r in n.sql("SELECT id FROM t ORDER BY id")]


def stream_of(raw):
    return [s for s in raw.api("STREAM.NAMES")["streams"] if s.startswith("marmot-changes")][0]


def seeded_message(raw, nats, epoch, like):
    """A `seeded` message of the cluster that node `like` belongs to."""
    with sqlite3.connect(like.db) as db:
        cluster = db.execute("SELECT value FROM __marmot__meta WHERE key = 'cluster_id'").fetchone()[0]
    db.close()
    body = field(1, cluster) + field(2, "{}") + field(3, 1) + field(4, field(1, 1) + field(2, b"d" * 16))
    return field(1, 1) + field(2, epoch) + fixed(3, 999) + field(6, bytes(16)) + field(SEEDED, body)


def takes_objects(raw, size):
    """The bucket of snapshots takes messages of so many bytes, -1 = any."""
    stream = [s for s in raw.api("STREAM.NAMES")["streams"] if s.startswith("OBJ_")][0]
    config = dict(raw.api("STREAM.INFO." + stream)["config"], max_msg_size=size)
    said = raw.api("STREAM.UPDATE." + stream, config)
    check("the bucket takes messages of %d bytes" % size, "config" in said, said)


def streams_deleted(ws, nats):
    nodes = [node(ws, nats, n, "deleted") for n in "abc"]
    a, b, c = nodes
    a.many("INSERT INTO t VALUES (?, 'before')", [[k] for k in range(30)])
    settle(nodes)
    a.one("SELECT marmot_snapshot()")
    with RawNats(nats.port) as raw:
        gone = raw.api("STREAM.DELETE." + stream_of(raw))
        check("the stream is deleted under the nodes", gone.get("success"), gone)
        for k, n in enumerate(nodes):
            n.sql("INSERT INTO t VALUES (?, ?)", 1000 + k, n.name)
        for n in nodes:
            n.wait_state("diverged", 40)
        early = node(ws, nats, "early", "deleted", schema=SCHEMA + "INSERT INTO t VALUES (1, 'of a newcomer');")
        early.wait_state("join_conflict", 20)
        check("a newcomer does not found the cluster again", "is gone" in early.status()["why"], early.status())
        check("nor seed it", "never part" in refused(early, "seed"), refused(early, "seed"))
        early.quit()
        # Node 999 has begun an epoch and is at work on it; then its lease is over.
        raw.request("$KV.marmot-meta.epoch.2", b"999 00000000deadbeef")
        raw.request("$KV.marmot-leases.seed.2", b"999")
        text = refused(c, "seed")
        check("whose lease holds is not overtaken", "node 999" in text and "epoch 2" in text, text)
        raw.api("STREAM.PURGE.KV_marmot-leases", {"filter": "$KV.marmot-leases.seed.2"})
        takes_objects(raw, 10)
        text = refused(a, "seed")
        check("an epoch whose snapshot cannot be stored does not begin", "snapshot store" in text, text)
        takes_objects(raw, -1)
        answer = rejoin(c, "seed")
        check("then another node begins the next one, at once", answer["epoch"] == 4, answer)
        settle(nodes)
        check("all rows of all nodes are there", ids(a) == list(range(30)) + [1000, 1001, 1002], ids(a))
        check("all in that epoch", [n.status()["epoch"] for n in nodes] == [4, 4, 4], a.status())

        before = [n.status()["shards"][0]["ignored"] for n in nodes]
        subject = a.sql("SELECT subject FROM marmot_streams")[0][0]
        stream = stream_of(raw)
        for epoch in (1, 2, 5):  # of each the first change of a stranger: it would count in its epoch
            raw.stored(stream, message(77, 7, 1, bytes(15) + bytes([epoch]), b"", insert("t", ["id", "v"], [0], [
                5000 + epoch, "of another epoch"]), epoch=epoch), subject)
        raw.stored(stream, seeded_message(raw, nats, 2, a), subject)
        b.sql("INSERT INTO t VALUES (2000, 'goes on')")
        settle(nodes)
        after = [n.status()["shards"][0]["ignored"] for n in nodes]
        check("messages of another epoch are ignored by all", [y - x for x, y in zip(before, after)] == [4, 4, 4] and
              ids(c)[-1] == 2000, (before, after, ids(c)[-1]))
    for n in nodes:
        check("%s is sound" % n.name, integrity(n.db) == "ok", integrity(n.db))
        n.quit()


def left_behind(ws):
    """The log has lost what only one node has folded, and its outbox does not hold it any more."""
    nats = NatsServer(ws).start()
    a, b = node(ws, nats, "a", "behind", outbox_keep=0, cleanup_interval=0), node(ws, nats, "b", "behind")
    a.sql("INSERT INTO t VALUES (1, 'kept')")
    settle([a, b])
    b.quit()
    a.one("SELECT marmot_snapshot()")
    nats.stop()
    store = os.path.join(nats.dir, "js")
    shutil.copytree(store, store + ".old")
    nats.start()
    a.wait_state("live")
    a.sql("INSERT INTO t VALUES (2, 'lost by the server')")
    a.sync()
    wait_until(lambda: a.one("SELECT count(*) FROM __marmot__outbox") == 0 and
               a.status()["outbox"]["rows"] == 0, 20, "the outbox is empty")
    a.quit()
    nats.kill()
    shutil.rmtree(store)
    os.rename(store + ".old", store)
    nats.start()
    b.start()
    b.sql("INSERT INTO t VALUES (3, 'while a was away')")
    settle([b])
    a.start()
    a.wait_state("diverged", 30)
    wait_until(lambda: "'adopt'" in a.status()["remedy"], 20, "a is told that b goes on")
    text = refused(a, "seed")
    check("nobody seeds beside a node that is live", "node %d is live" % b.status()["node_id"] in text, text)
    answer = rejoin(a, "merge")
    settle([a, b])
    check("merge brings in what only it has", ids(b) == [1, 2, 3] and answer["epoch"] == 1, (ids(b), answer))

    # The beginning of an epoch that nobody finishes: whoever meets it stops there.
    with RawNats(nats.port) as raw:
        raw.stored(stream_of(raw), seeded_message(raw, nats, 2, a), a.sql("SELECT subject FROM marmot_streams")[0][0])
    for n in (a, b):
        n.wait_state("diverged", 20)
        check("%s waits for that epoch" % n.name, "node 999 has begun epoch 2" in n.status()["why"], n.status()["why"])
        n.sql("INSERT INTO t VALUES (?, 'pending')", 10 + (n is b))
    wait_until(lambda: "'seed'" in b.status()["remedy"], 20, "the remedy is to seed")
    answer = rejoin(b, "seed")
    settle([a, b])
    check("a seed in the streams that are there", answer["epoch"] == 2 and ids(a) == [1, 2, 3, 10, 11] and
          a.status()["epoch"] == 2, (answer, ids(a)))
    late = node(ws, nats, "late", "behind", schema=None)
    settle([a, b, late])
    check("a newcomer passes over what was before", late.status()["epoch"] == 2, late.status())
    for n in (a, b, late):
        check("%s is sound" % n.name, integrity(n.db) == "ok", integrity(n.db))
        n.quit()
    nats.kill()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        streams_deleted(ws, nats)
        nats.kill()
        left_behind(ws)
    finish()


main()
