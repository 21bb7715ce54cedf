"""A snapshot carries the whole replicated state: taken between two parts of a large
transaction; restored by the very node whose echoes it has seen; of three shards, and
refused when it is behind in one; by databases of another text encoding; of all kinds
of tables, with what belongs to them.
marmot-test: parallel limit=180
"""
import os
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402

PARTS = "CREATE TABLE big(id INTEGER PRIMARY KEY, v); CREATE TABLE bag(x, y);"
SHAPES = """
CREATE TABLE plain(id INTEGER PRIMARY KEY AUTOINCREMENT, v, n REAL, t TEXT COLLATE NOCASE UNIQUE);
CREATE TABLE word(k TEXT COLLATE NOCASE NOT NULL, j INT NOT NULL, v, PRIMARY KEY (k, j)) WITHOUT ROWID;
CREATE TABLE bag(x, y);
CREATE TABLE made(id INTEGER PRIMARY KEY, a, b AS (a * 2) STORED, d DEFAULT 7, c AS (typeof(a) || id));
CREATE TABLE wide(id INTEGER PRIMARY KEY, %s);
CREATE VIRTUAL TABLE found USING fts5(body);
CREATE TABLE alone(x);
CREATE INDEX plain_v ON plain(v) WHERE v IS NOT NULL;
CREATE UNIQUE INDEX plain_n ON plain(n);
CREATE INDEX made_c ON made(c);
CREATE TRIGGER plain_seen AFTER INSERT ON plain BEGIN INSERT INTO bag VALUES ('seen', new.id); END;
""" % ", ".join("c%d" % k for k in range(499))
REPLICATED = ("plain", "word", "bag", "made", "wide")
ODD = ["zoë \U0001F600", "\x00", "", b"\x00\xff", None, 1, 1.0, -0.0, 2 ** 63 - 1, 5e-324, "a\x00b"]


def config(ws, nats, **more):
    return dict({"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1},
                 "snapshot": {"store": "file", "file": {"path": os.path.join(ws.dir, "snapshots")}}}, **more)


def snapshot(n):
    return json.loads(n.one("SELECT marmot_snapshot()"))


def between_parts():
    """The publisher is stopped in the middle of its parts."""
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        c = config(ws, nats, replication_log={"part_size": 4096})
        a, b = Node(ws, "a", config=c, schema=PARTS), Node(ws, "b", config=c, schema=PARTS)
        a.sql("INSERT INTO bag VALUES ('first', 1)")
        for n in (a, b):
            n.sync()
        with RawNats(nats.port) as raw:
            first = raw.stream("marmot-changes-c-1")[1]["last_seq"]
            a.send_sql("INSERT INTO big WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1500) "
                       "SELECT x, randomblob(6000) FROM c")
            wait_until(lambda: raw.stream("marmot-changes-c-1")[1]["last_seq"] > first + 40, 30, "some parts", every=0.001)
            a.pause()
            seq = wait_until(lambda: (lambda x: x if b.status()["shards"][0]["position"] == x else None)(
                raw.stream("marmot-changes-c-1")[1]["last_seq"]), 20, "b has all parts that are there")
            answer = snapshot(b)
            check("a snapshot is taken between two parts", answer["shards"][0]["position"] == seq and
                  b.one("SELECT count(*) FROM big") == 0, answer)
            late = Node(ws, "late", config=c)
            late.wait_state("live")
            check("a newcomer begins with it", late.status()["shards"][0]["position"] >= seq and
                  late.one("SELECT count(*) FROM big") == 0, late.status())
            a.resume()
            a.receive()
            for n in (a, b, late):
                check("%s syncs" % n.name, n.sync(60000) == 1, n.status())
            count = raw.stream("marmot-changes-c-1")[1]["last_seq"] - seq
            check("parts came after it", count > 100, count)
        rows = everywhere([a, b, late])
        check("the transaction has arrived whole", len(rows["big"][1]) == 1500, len(rows["big"][1]))


def own_echoes():
    """Its changes are in the log and in a snapshot; it died before it knew."""
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        c = config(ws, nats, replication_log={"max_entries": 200})
        a, b = Node(ws, "a", config=c, schema=PARTS), Node(ws, "b", config=c, schema=PARTS)
        a.sql("INSERT INTO big VALUES (1, 10)")
        for n in (a, b):
            n.sync()
        a.one("SELECT marmot_policy('big', 'v', 'delta')")
        a.sync()
        b.sync()
        nats.pause()
        for k in range(20):
            b.sql("INSERT INTO bag VALUES ('of b', 1)")
            b.sql("UPDATE big SET v = v + 1 WHERE id = 1")
        held = sqlite3.connect(b.db, timeout=20, isolation_level=None)
        held.execute("BEGIN IMMEDIATE")  # b cannot store what it hears
        nats.resume()
        wait_until(lambda: a.one("SELECT count(*) FROM bag") == 20, 20, "a has what b wrote")
        b.kill()
        held.execute("ROLLBACK")
        held.close()
        for k in range(400):
            a.sql("INSERT INTO big VALUES (?, 0)", 100 + k)
        a.sync(20000)
        snapshot(a)
        with RawNats(nats.port) as raw:
            wait_until(lambda: raw.stream("marmot-changes-c-1")[1]["first_seq"] > 150, 20, "the log has lost b's messages")
        b.start()
        b.sql("INSERT INTO bag VALUES ('of b, later', 1)")
        check("it comes back by a snapshot", b.sync(30000) == 1 and a.sync() == 1, b.status())
        rows = everywhere([a, b])
        check("nothing twice, nothing lost", len(rows["bag"][1]) == 21 and a.one("SELECT v FROM big WHERE id = 1") == 30,
              "%d rows, %s" % (len(rows["bag"][1]), a.one("SELECT v FROM big WHERE id = 1")))
        json.loads(b.one("SELECT marmot_restore()"))
        check("nor by one more restore", b.sync() == 1 and not difference(rows, b.dump()), difference(rows, b.dump()))


def three_shards():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        names = ["t%d" % k for k in range(9)]
        c = config(ws, nats, replication_log={"shards": 3})
        schema = "".join("CREATE TABLE %s(id INTEGER PRIMARY KEY, v);" % t for t in names)
        a, b = Node(ws, "a", config=c, schema=schema), Node(ws, "b", config=c, schema=schema)
        for n in (a, b):
            n.sync()

        def write(base):
            for t in names:
                a.sql("INSERT INTO %s VALUES (?, ?)" % t, base, t)
        write(1)
        a.txn([("INSERT INTO %s VALUES (2, 'together')" % t, []) for t in names])
        for n in (a, b):
            n.sync()
        held = sqlite3.connect(b.db, timeout=20, isolation_level=None)
        held.execute("BEGIN IMMEDIATE")
        write(3)
        a.sync()
        answer = snapshot(a)
        check("a snapshot has a place in each shard", [s["n"] for s in answer["shards"]] == [1, 2, 3] and
              all(s["position"] > 2 for s in answer["shards"]), answer)
        try:
            said = "it was taken: %s" % snapshot(b)
        except SqlError as e:
            said = str(e)
        check("one that is behind it is refused", "newer in some shard" in said, said)
        held.execute("ROLLBACK")
        held.close()
        b.sync()
        late = Node(ws, "late", config=c)
        late.wait_state("live")
        write(4)
        late.txn([("UPDATE %s SET v = 'late' WHERE id = 1" % t, []) for t in names])
        for n in (a, late, b, a):
            n.sync()
        everywhere([a, b, late])
        ok("a newcomer begins with it in three shards")
        with open(sorted(glob_json(ws))[-1]) as f:
            check("its manifest has all three", len(json.load(f)["shards"]) == 3, "other")


def glob_json(ws):
    place = os.path.join(ws.dir, "snapshots")
    return [os.path.join(place, n) for n in os.listdir(place) if n.endswith(".json")]


def shapes(encoding, other):
    """All kinds of tables; the newcomer's file has another encoding."""
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        c = config(ws, nats)
        a = Node(ws, "a", config=c, schema="PRAGMA encoding = '%s';" % encoding + SHAPES, watch=False)
        a.sql("INSERT INTO found VALUES ('not replicated')")
        for t in REPLICATED:
            a.sql("SELECT marmot_watch(?)", t)
        a.sql("INSERT INTO alone VALUES (1)")
        for k, v in enumerate(ODD):
            a.sql("INSERT INTO plain(v, n, t) VALUES (?, ?, ?)", v, k + 0.5, "T%d é" % k)
            a.sql("INSERT INTO word VALUES (?, ?, ?)", "Ключ %d" % k, k, v)
            a.sql("INSERT INTO bag VALUES (?, ?)", v, k % 2)
            a.sql("INSERT INTO made(a) VALUES (?)", v)
            a.sql("INSERT INTO wide(c0, c250, c498) VALUES (?, ?, ?)", v, k, v)
        a.sync()
        snapshot(a)
        b = Node(ws, "b", config=c, schema="PRAGMA encoding = '%s'; CREATE TABLE none(x); DROP TABLE none;" % other,
                 watch=False)
        b.watch_all()
        for t in ("mine", "alone"):
            b.txn([("CREATE TABLE %s(x)" % t, []), ("SELECT marmot_unwatch('%s')" % t, [])])
        b.sql("INSERT INTO mine VALUES ('stays')")
        b.wait_state("live")
        check("%s in %s: the encoding stays" % (encoding, other), b.one("PRAGMA encoding") == other, b.one("PRAGMA encoding"))

        def same():
            left, right = a.dump(), b.dump()
            return difference({t: left[t] for t in REPLICATED}, {t: right.get(t, ([], [])) for t in REPLICATED})
        check("all kinds of tables arrive", same() == "", same())
        belongs = "SELECT type, name, sql FROM sqlite_schema WHERE name LIKE 'plain\\_%' ESCAPE '\\' OR name = 'made_c' ORDER BY 2"
        check("indexes and triggers come with their tables", a.sql(belongs) == b.sql(belongs) and len(b.sql(belongs)) == 4,
              b.sql(belongs))
        check("what is not replicated does not", b.sql("SELECT x FROM mine") == [("stays",)] and
              b.one("SELECT count(*) FROM alone") == 0 and
              b.sql("SELECT name FROM sqlite_schema WHERE name LIKE 'found%'") == [], b.sql("SELECT name FROM sqlite_schema"))
        b.sql("INSERT INTO plain(v, n, t) VALUES ('by b', 99, 'Ñ')")
        a.sql("UPDATE word SET v = 'by a' WHERE j = 1")
        for n in (a, b, a):
            n.sync()
        wait_until(lambda: same() == "", 20, "equal tables: " + same())
        ok("and replicates in both directions")
        check("the files are sound", [integrity(n.db) for n in (a, b)] == ["ok", "ok"], integrity(b.db))
        json.loads(b.one("SELECT marmot_restore()"))
        check("a restore there changes nothing", same() == "" and b.sql("SELECT x FROM mine") == [("stays",)], same())


def main():
    between_parts()
    own_echoes()
    three_shards()
    shapes("UTF-8", "UTF-16le")
    shapes("UTF-16be", "UTF-8")
    finish()


main()
