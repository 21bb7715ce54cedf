"""Snapshots in a directory: taken while others write, with changes pending and
between the parts of a large transaction; restored by an empty newcomer, by the
node itself, and by one that was away; damaged ones are refused.
marmot-test: limit=180
"""
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n REAL);
CREATE TABLE word(k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE uniq(id INTEGER PRIMARY KEY, u TEXT UNIQUE, w TEXT);
CREATE UNIQUE INDEX uniq_w ON uniq(w);
CREATE INDEX t_v ON t(v);
CREATE TABLE bag(x, y);
"""


def config(ws, nats, **more):
    snapshot = {"store": "file", "file": {"path": os.path.join(ws.dir, "snapshots")}}
    return dict({"nats": {"urls": [nats.url]}, "snapshot": snapshot}, **more)


def snapshot(node):
    return json.loads(node.one("SELECT marmot_snapshot()"))


def restore(node):
    return json.loads(node.one("SELECT marmot_restore()"))


def fill(a):
    a.many("INSERT INTO t VALUES (?, ?, ?)", [[k, "row %d" % k, k / 7] for k in range(500)])
    a.many("INSERT INTO word VALUES (?, ?)", [["Key%d" % k, k] for k in range(100)])
    a.many("INSERT INTO uniq VALUES (?, ?, ?)", [[k, "u%d" % k, "w%d" % k] for k in range(50)])
    a.many("INSERT INTO bag VALUES (?, ?)", [[k % 5, None] for k in range(40)])
    a.sync()


def taken(ws, nats):
    a = Node(ws, "a", config=config(ws, nats), schema=SCHEMA)
    place = os.path.join(ws.dir, "snapshots")
    wait_until(lambda: os.path.isdir(place) and len(os.listdir(place)) == 2, 10, "the founder's first snapshot")
    fill(a)
    answer = snapshot(a)
    files = sorted(f for f in os.listdir(place) if f.startswith(answer["id"]))
    check("a snapshot is two objects, its answer says where it stands",
          len(files) == 2 and answer["shards"][0]["position"] > 0 and answer["bytes"] > 0, "%s %s" % (answer, files))
    check("nothing else is left beside the database",
          not [f for f in os.listdir(ws.dir) if "marmot-copy" in f], os.listdir(ws.dir))
    return a


def newcomer(ws, nats, a):
    """An empty file without any table gets tables, rows, indexes."""
    b = Node(ws, "b", config=config(ws, nats))
    b.wait_state("live")
    wait_equal([a, b])
    ok("an empty database gets the cluster's tables and rows")
    names = [r[0] for r in b.sql("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1")]
    check("and its indexes", names == ["t_v", "uniq_w"], names)
    b.sql("UPDATE t SET v = 'by b' WHERE id = 3")
    b.sync()
    a.sql("DELETE FROM word WHERE k = 'KEY7'")
    a.sync()
    b.sync()
    wait_equal([a, b])
    ok("it replicates in both directions")
    return b


def pending(ws, nats, a, b):
    """What the log does not have yet is no part of a snapshot, and stays on top of a restore."""
    nats.pause()
    a.sql("INSERT OR REPLACE INTO uniq VALUES (1000, 'u3', 'w4')")  # evicts two rows of the base
    a.sql("UPDATE t SET v = 'pending' WHERE id = 5")
    a.sql("DELETE FROM bag WHERE rowid = (SELECT min(rowid) FROM bag WHERE x = 2)")
    a.sql("INSERT INTO word VALUES ('pending', 1)")
    snapshot(a)
    newest = max(f for f in os.listdir(os.path.join(ws.dir, "snapshots")) if f.endswith(".json"))
    with open(os.path.join(ws.dir, "snapshots", newest)) as f:
        manifest = json.load(f)
    raw = os.path.join(ws.dir, "looked_at.db")
    unpack(os.path.join(ws.dir, "snapshots", newest.replace(".json", ".db.zst")), raw)
    check("a snapshot taken with changes pending holds the base alone", not difference(b.dump(), user_tables(raw)),
          difference(b.dump(), user_tables(raw)))
    check("its manifest says how long it is", manifest["raw"] == os.path.getsize(raw), manifest)
    nats.resume()
    a.sync()
    b.sync()
    wait_equal([a, b])


def unpack(path, to):
    subprocess.run(["zstd", "-q", "-d", "-f", path, "-o", to], check=True)


def user_tables(path):
    return {k: v for k, v in dump(path).items() if not k.startswith("__")}


def restored(ws, nats, a, b):
    b.txn([("CREATE TABLE mine(x)", []), ("SELECT marmot_unwatch('mine')", [])])
    b.sql("INSERT INTO mine VALUES ('stays')")
    a.sql("UPDATE t SET n = -1 WHERE id < 100")
    a.sync()
    # Damage behind the extension's back: rows that differ, are missing, are too many.
    plain = sqlite3.connect(b.db, timeout=10)
    plain.execute("UPDATE t SET v = 'damaged' WHERE id BETWEEN 10 AND 30")
    plain.execute("DELETE FROM word WHERE k LIKE 'key1%'")
    plain.execute("INSERT INTO t VALUES (77777, 'nobody else has it', 0)")
    plain.execute("INSERT INTO bag VALUES ('x', 'y')")
    plain.commit()
    b.open(1)
    b.sql("BEGIN", conn=1)
    before = b.sql("SELECT count(*), min(v) FROM t", conn=1)
    nats.pause()
    b.sql("INSERT INTO t VALUES (4000, 'pending while it restores', 4)")
    b.sql("UPDATE t SET v = 'pending' WHERE id = 12")
    nats.resume()
    answer = restore(b)
    check("marmot_restore says what it took", answer["id"] != "" and answer["shards"][0]["position"] > 0, answer)
    check("a reader keeps what it sees", b.sql("SELECT count(*), min(v) FROM t", conn=1) == before, "it changed")
    b.sql("COMMIT", conn=1)
    check("the pending rows are on top", b.sql("SELECT v FROM t WHERE id IN (12, 4000) ORDER BY id") ==
          [("pending",), ("pending while it restores",)], b.sql("SELECT v FROM t WHERE id IN (12, 4000)"))
    check("a table that is not watched is left alone", b.sql("SELECT x FROM mine") == [("stays",)], "changed")
    b.sync()
    a.sync()
    b.sql("DROP TABLE mine")
    wait_equal([a, b])
    ok("damage done behind the extension's back is gone")
    check("the file is sound", integrity(b.db) == "ok", integrity(b.db))


def refused(ws, nats, a, b):
    """Nothing is touched by a snapshot that is not whole, foreign, or too new."""
    place = os.path.join(ws.dir, "snapshots")
    kept = os.path.join(ws.dir, "kept")
    snapshot(a)
    a.sql("UPDATE t SET v = 'since' WHERE id = 1")
    a.sync()
    b.sync()
    shutil.copytree(place, kept)
    names = sorted(os.listdir(place))
    metas = [n for n in names if n.endswith(".json")]
    datas = [n for n in names if n.endswith(".zst")]
    check("two snapshots are kept", len(metas) == 2 and len(datas) == 2, names)

    def rewrite(name, change):
        path = os.path.join(place, name)
        with open(path, "rb") as f:
            data = f.read()
        with open(path, "wb") as f:
            f.write(change(data))

    def edit(key, value):
        def change(data):
            m = json.loads(data)
            m[key] = value
            return json.dumps(m).encode()
        return lambda: [rewrite(m, change) for m in metas]

    def inside(*statements):
        """Data that says something else, with a manifest that fits."""
        def damage():
            for meta, data in zip(metas, datas):
                raw, packed = os.path.join(ws.dir, "inside.db"), os.path.join(place, data)
                unpack(packed, raw)
                db = sqlite3.connect(raw, isolation_level=None)
                for text in statements:
                    db.execute(text)
                db.close()
                subprocess.run(["zstd", "-q", "-f", raw, "-o", packed], check=True)
                with open(packed, "rb") as f:
                    sha = hashlib.sha256(f.read()).hexdigest()
                fit = {"size": os.path.getsize(packed), "raw": os.path.getsize(raw), "sha256": sha}
                rewrite(meta, lambda m: json.dumps(dict(json.loads(m), **fit)).encode())
        return damage

    flip = lambda d: d[:len(d) // 2] + bytes([d[len(d) // 2] ^ 1]) + d[len(d) // 2 + 1:]  # noqa: E731
    stranger = sorted(n for n in os.listdir(place))
    cases = {
        "truncated data": lambda: [rewrite(d, lambda x: x[:-7]) for d in datas],
        "a flipped bit": lambda: [rewrite(d, flip) for d in datas],
        "no data": lambda: [os.unlink(os.path.join(place, d)) for d in datas],
        "longer data": lambda: [rewrite(d, lambda x: x + b"more") for d in datas],
        "a torn manifest": lambda: [rewrite(m, lambda x: x[:len(x) // 2]) for m in metas],
        "a manifest of another cluster": edit("cluster", "f" * 32),
        "a format that is too new": edit("format", 99),
        "a position that the data does not have": edit("shards", [{"n": 1, "position": 3, "digest": "0" * 32,
                                                                   "created": "2020-01-01T00:00:00Z"}]),
        "another epoch": edit("epoch", 7),
        "a wrong length": edit("raw", 4096),
        "data of another cluster": inside("UPDATE __marmot__meta SET value = '%s' WHERE key = 'cluster_id'" % ("f" * 32)),
        "bookkeeping that is too new": inside("UPDATE __marmot__meta SET value = 999 WHERE key = 'schema_version'"),
        "a damaged database": inside("PRAGMA writable_schema = 1",
                                     "UPDATE sqlite_schema SET rootpage = 2 WHERE type = 'table' AND name = 't'"),
    }
    b.sql("UPDATE t SET v = 'mine' WHERE id = 2")
    b.sync()
    before = b.dump()
    for case, damage in cases.items():
        damage()
        try:
            said = "it was taken: %s" % restore(b)
        except SqlError as e:
            said = str(e)
        check("%s: refused with the cause" % case, "marmot_restore" in said and "it was taken" not in said, said)
        check("%s: nothing is touched" % case, not difference(before, b.dump()), difference(before, b.dump()))
        shutil.rmtree(place)
        shutil.copytree(kept, place)
    check("the names are those of before", sorted(os.listdir(place)) == stranger, os.listdir(place))
    rewrite(datas[-1], flip)
    restore(b)
    wait_equal([a, b])
    ok("with the newest damaged the older one does")
    b.sql("INSERT INTO t VALUES (5000, 'goes on', 1)")
    b.sync()
    a.sync()
    wait_equal([a, b])


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a = taken(ws, nats)
        b = newcomer(ws, nats, a)
        pending(ws, nats, a, b)
        restored(ws, nats, a, b)
        refused(ws, nats, a, b)
    finish()


main()
