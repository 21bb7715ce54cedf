"""The log is gone: an empty server stands where it was. All nodes are diverged,
keep their outboxes, and say which of them is to call marmot_rejoin('seed'): the
others follow by themselves, and no commit of any of them is lost or applied
twice. Who holds more than the seed stays out until 'adopt' or 'merge'.
marmot-test: parallel
"""
import glob
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402
from rejoining import named, refused, rejoin, settle  # noqa: E402

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE u(k TEXT PRIMARY KEY NOT NULL, n UNIQUE);"


KILLS = (5, 30, 60, 85, 105, 125)  # ms after the call, which takes about 120


def node(ws, nats, name, case, schema=SCHEMA, **more):
    snapshot = {"store": "file", "file": {"path": os.path.join(ws.dir, "snapshots-" + case)}}
    snapshot = {} if case == "gone" else snapshot  # then the server's own, which is as empty as its streams
    config = dict({"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}, "snapshot": snapshot,
                   "replication_log": {"shards": 2}}, **more)
    return Node(ws, "%s_%s" % (name, case), config=config, schema=schema)


def log_is_gone(ws):
    nats = NatsServer(ws).start()
    nodes = [node(ws, nats, n, "gone") for n in "abc"]
    a, b, c = nodes
    a.many("INSERT INTO t VALUES (?, 'before')", [[k] for k in range(50)])
    settle(nodes)
    check("a live node is in no state for it", "live" in refused(a, "adopt"), refused(a, "adopt"))
    check("another word is refused with the three", "'seed', 'adopt' or 'merge'" in refused(a, "start"),
          refused(a, "start"))
    before = {n.name: n.status()["incarnation"] for n in nodes}
    nats.wipe()
    for k, n in enumerate(nodes):
        n.sql("INSERT INTO t VALUES (?, 'pending of ' || ?)", 1000 + k, n.name)
        n.sql("UPDATE t SET v = v || ', ' || ? WHERE id = ?", n.name, 10 + k)
        n.txn([("INSERT INTO u VALUES (?, ?)", (n.name, k)), ("DELETE FROM t WHERE id = ?", (40 + k,))])
    nats.start()
    for n in nodes:
        n.wait_state("diverged")
    wait_until(lambda: [n.status()["outbox"]["rows"] for n in nodes] == [3, 3, 3], 10, "the outboxes are kept")
    seed, text = named(b, nodes)
    check("the remedy tells what each node holds of each shard", "shard 2: node" in text and text.count("up to") == 6,
          text)
    answer = rejoin(seed, "seed")
    check("the answer tells the epoch", answer["epoch"] == 2 and answer["how"] == "seed", answer)
    rows = settle(nodes)
    ids = {r[0][1]: r[1][1] for r in rows["t"][1]}
    check("every commit of every node is there", all(ids.get(1000 + k) == "pending of " + n.name and
          ids.get(10 + k) == "before, " + n.name and 40 + k not in ids for k, n in enumerate(nodes)) and
          len(rows["u"][1]) == 3 and len(ids) == 50, ids)
    for n in nodes:
        s = n.status()
        check("%s is in epoch 2 under a new incarnation, nothing pending" % n.name,
              s["epoch"] == 2 and s["incarnation"] != before[n.name] and s["outbox"]["rows"] == 0, s)
    late = node(ws, nats, "late", "gone", schema=None)
    settle(nodes + [late])
    check("a newcomer joins in the epoch", late.status()["epoch"] == 2, late.status())
    return nats, nodes + [late]


def two_seeds(ws, nats, nodes):
    nats.wipe()
    nodes[0].sql("INSERT INTO t VALUES (2000, 'pending again')")
    nats.start()
    for n in nodes:
        n.wait_state("diverged")
    answers = {}

    def call(n):
        try:
            answers[n.name] = rejoin(n, "seed")
        except SqlError as e:
            answers[n.name] = str(e)
    threads = [threading.Thread(target=call, args=(n,)) for n in nodes[:2]]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    won = [n for n in nodes[:2] if isinstance(answers[n.name], dict)]
    check("two seeds at once: one wins", len(won) == 1 and answers[won[0].name]["epoch"] == 3, answers)
    lost = [n for n in nodes[:2] if n not in won]
    check("the other one's error names it", len(lost) == 1 and "node %d" % won[0].status()["node_id"] in
          answers[lost[0].name], answers)
    rows = settle(nodes)
    check("they are equal in the third epoch", 2000 in [r[0][1] for r in rows["t"][1]] and
          all(n.status()["epoch"] == 3 for n in nodes), [n.status()["epoch"] for n in nodes])


def killed_on_the_way(ws, nats, nodes):
    """Killed at any step and called again, it comes to the same."""
    seed = nodes[2]
    epoch = seed.status()["epoch"]
    for k, ms in enumerate(KILLS):
        nats.wipe()
        nodes[0].sql("INSERT INTO t VALUES (?, 'written before the seed was killed')", 3000 + k)
        nats.start()
        for n in nodes:
            n.wait_state("diverged")
        seed.send_sql("SELECT marmot_rejoin('seed')")
        threading.Event().wait(ms / 1000)  # the moment of the kill, not a wait for something
        seed.kill()
        seed.start()
        wait_until(lambda: seed.status()["state"] in ("diverged", "live"), 20, "the seed is back")
        if seed.status()["state"] == "diverged":
            try:
                rejoin(seed, "seed")
            except SqlError as e:  # it followed its own epoch meanwhile
                check("killed after %d ms: called again" % ms, "live" in str(e), e)
        settle(nodes)
    check("killed each time: all commits are there", [r[0] for r in nodes[1].sql(
        "SELECT id FROM t WHERE id BETWEEN 3000 AND 3999 ORDER BY id")] == [3000 + k for k in range(len(KILLS))],
          nodes[1].sql("SELECT * FROM t WHERE id >= 3000"))
    epochs = [n.status()["epoch"] for n in nodes]
    check("each time one epoch", epochs == [epoch + len(KILLS)] * len(nodes), (epoch, epochs))


def writes_go_on(ws):
    """Everybody writes all along; what adds up shows what is applied twice or lost."""
    nats = NatsServer(ws).start()
    schema = SCHEMA + "CREATE TABLE sum(k INTEGER PRIMARY KEY, n INTEGER); INSERT INTO sum VALUES (1, 0), (2, 0);"
    nodes = [node(ws, nats, n, "writes", schema=schema) for n in "abc"]
    settle(nodes)
    nodes[0].one("SELECT marmot_policy('sum', 'n', 'delta')")
    settle(nodes)
    count = 0

    def write():
        nonlocal count
        for k, n in enumerate(nodes):
            if n.busy:
                continue
            n.txn([("UPDATE sum SET n = n + 1 WHERE k = 1", ()), ("UPDATE sum SET n = n + 10 WHERE k = 2", ()),
                   ("INSERT INTO t VALUES (?, ?)", (10000 * k + count, "x" * (3000000 if count == 7 else 30)))])
            count += 1
    for n in nodes:
        n.busy = False
    for _ in range(10):
        write()
    settle(nodes)  # any of them may be the seed then
    nats.wipe()
    write()
    nats.start()
    wait_until(lambda: write() or all(n.status()["state"] == "diverged" for n in nodes), 30, "all are diverged")
    nodes[1].send_sql("SELECT marmot_rejoin('seed')")
    nodes[1].busy = True
    for _ in range(20):
        write()
    nodes[1].receive()
    nodes[1].busy = False
    for _ in range(60):
        write()
    rows = settle(nodes)
    sums = {r[0][1]: r[1][1] for r in rows["sum"][1]}
    check("each change of all %d counts once" % count, sums == {1: count, 2: 10 * count} and
          len(rows["t"][1]) == count, (count, sums, len(rows["t"][1])))
    for n in nodes:
        n.quit()
    nats.kill()


def holds_more(ws):
    nats = NatsServer(ws).start()
    a, b, c = nodes = [node(ws, nats, n, "more") for n in "abc"]
    a.sql("INSERT INTO t VALUES (1, 'all have it'), (2, 'all have it')")
    settle(nodes)
    c.quit()
    a.txn([("INSERT INTO t VALUES (3, 'a and b have it')", ()), ("UPDATE t SET v = 'a and b' WHERE id = 2", ())])
    settle([a, b])
    a.quit()
    b.sql("INSERT INTO t VALUES (4, 'of b')")
    b.sync()
    b.quit()
    nats.wipe()
    nats.start()
    c.start()
    c.sql("INSERT INTO t VALUES (5, 'of c')")
    c.wait_state("diverged")
    rejoin(c, "seed")
    b.start()
    b.wait_state("diverged")
    wait_until(lambda: "'adopt'" in b.status()["remedy"], 20, "b is told to adopt or to merge")
    s = b.status()
    check("who holds more stays out, and says what it is", "holds changes" in s["why"] and "'merge'" in s["remedy"], s)
    check("and is not touched", b.sql("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,), (4,)] and s["epoch"] == 1,
          b.sql("SELECT * FROM t"))
    check("it cannot seed either", "epoch 2" in refused(b, "seed"), refused(b, "seed"))
    c.quit()
    with RawNats(nats.port) as raw:
        raw.api("STREAM.PURGE.KV_marmot-leases", {"filter": "$KV.marmot-leases.seed.2"})
    text = wait_until(lambda: (lambda t: t if "is live" not in t else None)(refused(b, "seed")), 20, "b hears that c has gone")
    check("nor when nobody is there who followed it", "has begun epoch 2" in text, text)
    c.start()
    b.sql("INSERT INTO t VALUES (6, 'of b, out of the cluster')")
    answer = rejoin(b, "merge")
    rows = settle([b, c])
    ids = {r[0][1]: r[1][1] for r in rows["t"][1]}
    check("merge: the rows that were only there are everywhere", sorted(ids) == [1, 2, 3, 4, 5, 6] and
          ids[2] == "all have it", ids)
    kept = dump(answer["kept"])["t"][1]
    check("merge: the file as it was is kept", len(kept) == 5 and answer["epoch"] == 2, answer)
    a.start()  # a was away all the time: what the new log lacks of its own is still in its outbox
    rows = settle([a, b, c])
    check("its origin comes back by itself", a.status()["epoch"] == 2 and
          {r[0][1]: r[1][1] for r in rows["t"][1]}[2] == "a and b", rows["t"])
    for n in nodes:
        check("%s is sound" % n.name, integrity(n.db) == "ok", integrity(n.db))
        n.quit()
    nats.kill()


def adopt(ws):
    nats = NatsServer(ws).start()
    a, b = node(ws, nats, "a", "adopt"), node(ws, nats, "b", "adopt")
    a.sql("INSERT INTO t VALUES (1, 'both')")
    settle([a, b])
    other = node(ws, nats, "other", "adopt", schema=SCHEMA + "INSERT INTO t VALUES (1, 'else'), (70, 'else');")
    other.wait_state("join_conflict")
    check("join_conflict: the remedy", "marmot_rejoin('adopt')" in other.status()["remedy"], other.status())
    check("join_conflict: nobody may seed there", "never part" in refused(other, "seed"), refused(other, "seed"))
    answer = rejoin(other, "adopt")
    settle([a, b, other])
    check("join_conflict is left by adopt", other.sql("SELECT * FROM t") == [(1, "both")] and
          len(dump(answer["kept"])["t"][1]) == 2, answer)
    other.quit()
    nats.wipe()
    a.sql("INSERT INTO t VALUES (2, 'of a')")
    b.sql("INSERT INTO t VALUES (3, 'of b, given up')")
    b.sql("UPDATE t SET v = 'given up' WHERE id = 1")
    nats.start()
    a.wait_state("diverged")
    b.wait_state("diverged")
    b.one("SELECT marmot_stop()")
    rejoin(a, "seed")
    settle([a])
    with sqlite3.connect(b.db) as db:  # as if the outbox had been trimmed: b cannot follow by itself
        db.execute("UPDATE __marmot__origin SET seq = seq + 5, outbox = outbox + 5")
    db.close()
    b.init()
    b.wait_state("diverged")
    wait_until(lambda: "'adopt'" in b.status()["remedy"], 20, "b is told to adopt")
    answer = rejoin(b, "adopt")
    check("adopt counts what it gives up", answer["given_up"] >= 2 and answer["epoch"] == 2, answer)
    b.sql("INSERT INTO t VALUES (4, 'of b, afterwards')")
    rows = settle([a, b])
    check("adopt: the cluster's rows", {r[0][1]: r[1][1] for r in rows["t"][1]} ==
          {1: "both", 2: "of a", 4: "of b, afterwards"}, rows["t"])
    kept = {r[0][1]: r[1][1] for r in dump(answer["kept"])["t"][1]}
    check("adopt: what was given up is in the copy", kept == {1: "given up", 3: "of b, given up"}, kept)
    a.quit()
    b.quit()
    nats.kill()


def another_cluster(ws):
    """A cluster that was founded meanwhile under the same name is another one."""
    nats = NatsServer(ws).start()
    a = node(ws, nats, "a", "other")
    a.sql("INSERT INTO t VALUES (1, 'mine')")
    settle([a])
    a.quit()
    nats.wipe()
    nats.start()
    stranger = node(ws, nats, "stranger", "other")
    settle([stranger])
    a.start()
    a.wait_state("diverged")
    check("its cluster is another one", "belongs to cluster" in a.status()["why"], a.status())
    text = refused(a, "seed")
    check("seed is refused there", "belongs to another cluster" in text, text)
    check("and so is adopt", "belongs to cluster" in refused(a, "adopt"), refused(a, "adopt"))
    check("nothing is touched", a.sql("SELECT * FROM t") == [(1, "mine")], a.sql("SELECT * FROM t"))
    a.quit()
    stranger.quit()
    nats.kill()


def no_store(ws):
    nats = NatsServer(ws).start()
    a = node(ws, nats, "a", "none", snapshot={"enabled": False})
    a.sql("INSERT INTO t VALUES (1, 'mine')")
    settle([a])
    nats.wipe()
    nats.start()
    a.wait_state("diverged")
    check("without snapshots there is no seed", "snapshot.enabled" in refused(a, "seed"), refused(a, "seed"))
    a.quit()
    nats.kill()


def main():
    with Workspace() as ws:
        nats, nodes = log_is_gone(ws)
        two_seeds(ws, nats, nodes)
        killed_on_the_way(ws, nats, nodes)
        for n in nodes:
            check("%s is sound" % n.name, integrity(n.db) == "ok", integrity(n.db))
            n.quit()
        nats.kill()
        writes_go_on(ws)
        holds_more(ws)
        adopt(ws)
        another_cluster(ws)
        no_store(ws)
    finish()


main()
