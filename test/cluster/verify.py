"""marmot_verify: what every node holds at one place of each shard, summed there;
a row that was changed behind the library's back is found, a dead node is named,
writes and conflicts meanwhile disturb nothing.
marmot-test: parallel limit=180
"""
import os
import sqlite3
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE one(id INTEGER PRIMARY KEY, v, w);
CREATE TABLE two(k TEXT NOT NULL, n INTEGER NOT NULL, v, PRIMARY KEY(k, n)) WITHOUT ROWID;
CREATE TABLE three(id INTEGER PRIMARY KEY, v UNIQUE);
"""
TABLES = {"one", "two", "three"}
SHARDS = 3


def verify(node, ms=20000):
    return json.loads(node.one("SELECT marmot_verify(?)", ms))


def fill(node, first, n):
    node.many("INSERT INTO one VALUES (?, ?, ?)", [(k, k * 1.5, "text %d" % k) for k in range(first, first + n)])
    node.many("INSERT INTO two VALUES (?, ?, ?)", [("k", k, None) for k in range(first, first + n)])
    node.many("INSERT INTO three VALUES (?, ?)", [(k, "unique %d" % k) for k in range(first, first + n)])


def settle(nodes):
    for node in nodes + nodes:
        if node.sync(30000) != 1:
            raise Timeout("%s did not sync: %s" % (node.name, node.status()))
    wait_equal(nodes)


def rows_of(answer, ids):
    """{(node name, table): row} of what was answered, names of the silent ones."""
    spoken = {(ids[r["node"]], r["table"]): r for r in answer if "table" in r}
    return spoken, {(ids[r["node"]], r["shard"]) for r in answer if r.get("silent")}


def equal_everywhere(nodes, ids):
    for node in nodes:
        answer = verify(node)
        spoken, silent = rows_of(answer, ids)
        check("asked by %s: every node answers for every table, all equal" % node.name,
              set(spoken) == {(n.name, t) for n in nodes for t in TABLES} and not silent
              and all(r["equal"] is True for r in answer), answer)
        for table in TABLES:
            rows = [spoken[n.name, table] for n in nodes]
            count = node.one("SELECT count(*) FROM " + table)
            check("asked by %s: one place, one sum, %d rows of %s" % (node.name, count, table),
                  len({(r["shard"], r["position"], r["checksum"]) for r in rows}) == 1
                  and {r["rows"] for r in rows} == {count} and rows[0]["position"] > 0
                  and len(rows[0]["checksum"]) == 32, rows)
    places = {r["table"]: r["shard"] for r in answer}
    check("the tables lie in more than one shard", len(set(places.values())) > 1, places)


def while_writing(nodes, ids, rng):
    """Pending rows are no part of what is summed: the place in the log decides."""
    other = [nodes[1], nodes[2]]
    for k in range(10):
        for node in other:
            node.send_many("INSERT OR REPLACE INTO one VALUES (?, ?, ?)",
                           [(rng.randrange(50), rng.randrange(1000), node.name) for _ in range(20)])
        nodes[0].send_sql("SELECT marmot_verify(20000)")
        for node in other:
            node.receive()
            node.send_sql("UPDATE three SET v = v || 'x' WHERE id = ?", rng.randrange(40))
        for node in other:
            node.receive()
        answer = json.loads(nodes[0].receive()[0][0])
        spoken, silent = rows_of(answer, ids)
        if silent or not all(r["equal"] for r in answer) or len(spoken) != 9:
            check("equal while everybody writes", False, answer)
            return
    ok("equal while everybody writes")
    settle(nodes)


def behind_the_back(nodes, ids):
    """A connection that does not load the library writes to b."""
    db = sqlite3.connect(nodes[1].db, timeout=5)
    with db:
        db.execute("UPDATE two SET v = 'stray' WHERE k = 'k' AND n = 3")
    db.close()
    for asker, odd in ((nodes[0], {("b", "two")}), (nodes[1], {("a", "two"), ("c", "two")})):
        answer = verify(asker)
        spoken, silent = rows_of(answer, ids)
        unequal = {key for key, r in spoken.items() if r["equal"] is not True}
        check("asked by %s: %s differ from it" % (asker.name, sorted(odd)), unequal == odd and not silent, answer)
    for node in nodes:
        node.sql("UPDATE two SET v = 'mended' WHERE k = 'k' AND n = 3")
    settle(nodes)
    check("a write that is captured mends the row", all(r["equal"] for r in verify(nodes[2])), verify(nodes[2]))


def silence(nats, nodes, ids):
    nodes[2].kill()
    began = time.monotonic()
    answer = verify(nodes[0], 60000)
    spent = time.monotonic() - began
    spoken, silent = rows_of(answer, ids)
    check("a killed node is silent in every shard", silent == {("c", k + 1) for k in range(SHARDS)}, answer)
    check("the others are not", set(spoken) == {(n, t) for n in "ab" for t in TABLES}, answer)
    bar("it was not waited for to the end, since nothing is heard of it", spent < 20, spent)
    began = time.monotonic()
    verify(nodes[0], 60000)
    bar("nor later, for longer than a second or so", time.monotonic() - began < 5, time.monotonic() - began)
    nodes[2].restart()
    settle(nodes)
    spoken, silent = rows_of(verify(nodes[0]), ids)
    check("after its restart it answers again", not silent and len(spoken) == 9, spoken)
    nats.stop()
    answer = verify(nodes[1], 300)
    check("without a server nobody answers", answer and all(r.get("silent") for r in answer), answer)
    nats.start()
    settle(nodes)
    check("and later they do", all(r["equal"] for r in verify(nodes[1])), "unequal")


def unwatched(nodes, ids):
    nodes[2].one("SELECT marmot_unwatch('one')")
    spoken, silent = rows_of(verify(nodes[0]), ids)
    check("a node answers for what it watches", set(spoken) == {(n.name, t) for n in nodes for t in TABLES} - {("c", "one")}
          and not silent and all(r["equal"] for r in spoken.values()), spoken)


def other_process(ws, nodes, ids):
    """A second process of the same file, which stands by, may ask as well."""
    second = Node(ws, "second", config=nodes[0].config, db=nodes[0].db, watch=False)
    second.wait_state("standby")
    spoken, silent = rows_of(verify(second), ids)
    check("a process that stands by asks through the other", not silent and len(spoken) == 9
          and all(r["equal"] for r in spoken.values()), spoken)
    second.quit()


def writers_go_on(ws, nats):
    """A million rows are summed from a read snapshot: nobody who writes waits for that."""
    rows = ("CREATE TABLE big(id INTEGER PRIMARY KEY, v);WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            " WHERE i < 1000000) INSERT INTO big SELECT i, 'row ' || i FROM n;")
    node = Node(ws, "large", config={"nats": {"urls": [nats.url]}, "cluster": "large"}, schema=rows)
    node.wait_state("live")
    node.sync()
    over, commits = threading.Event(), []

    def write():
        db = sqlite3.connect(node.db, isolation_level=None, timeout=60)
        while not over.is_set():
            began = time.monotonic()
            db.execute("UPDATE big SET v = v || '.' WHERE id = ?", (len(commits) + 1,))
            commits.append(time.monotonic() - began)
        db.close()

    writer = threading.Thread(target=write)
    writer.start()
    began = time.monotonic()
    try:
        answer = verify(node, 60000)
        took = time.monotonic() - began
    finally:
        over.set()
        writer.join()
    check("a million rows are verified beside a writer", [r["rows"] for r in answer] == [1000000], answer)
    check("which goes on", len(commits) > 10, len(commits))
    bar("the slowest of %d commits beside it (%.2f s) took %.0f ms" % (len(commits), took, max(commits) * 1e3),
        max(commits) < 0.25, max(commits))
    node.quit()


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        # What a stranger writes is not to be captured: that is how a node comes to differ.
        config = {"nats": {"urls": [nats.url]}, "replication_log": {"shards": SHARDS}, "capture": "hook"}
        nodes = [Node(ws, name, config=config, schema=SCHEMA) for name in "abc"]
        ids = {n.status()["node_id"]: n.name for n in nodes}
        fill(nodes[0], 0, 40)
        fill(nodes[1], 100, 10)
        settle(nodes)
        equal_everywhere(nodes, ids)
        while_writing(nodes, ids, rng)
        behind_the_back(nodes, ids)
        other_process(ws, nodes, ids)
        silence(nats, nodes, ids)
        unwatched(nodes, ids)
        writers_go_on(ws, nats)
    finish()


main()
