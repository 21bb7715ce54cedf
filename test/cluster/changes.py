"""marmot_changes: the log read back. Who applies its rows one after the other
gets the tables; parts, control messages and garbage have rows of their own; any
process may read, within bounded memory.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
CREATE TABLE pair(x TEXT NOT NULL, y INTEGER NOT NULL, v, PRIMARY KEY(x, y)) WITHOUT ROWID;
CREATE TABLE bag(p, q);
"""
COLUMNS = ("seq", "node", "time", "table", "op", "key", "old", "new")
READER = """
import resource, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.enable_load_extension(True)
db.load_extension(sys.argv[2])
n = sum(1 for _ in db.execute("SELECT * FROM marmot_changes(1, 1)"))
print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
"""


def changes(node, shard=1, first=1):
    rows = node.sql("SELECT * FROM marmot_changes(?, ?)", shard, first)
    return [dict(zip(COLUMNS, r)) for r in rows]


def value(v):
    return bytes.fromhex(v["blob"]) if isinstance(v, dict) else v


def columns(text):
    return {k: value(v) for k, v in json.loads(text).items()} if text is not None else None


def replayed(rows):
    """What the log makes of empty tables: {table: {key: row}}, bags as lists. Of
    one message first all that stood is taken away, then what stands is written."""
    tables = {"t": {}, "pair": {}, "bag": []}
    by_message = {}
    for r in rows:
        if r["table"] in tables and r["op"] in ("insert", "update", "delete", "replace"):
            by_message.setdefault(r["seq"], []).append((r, columns(r["key"]), columns(r["old"]), columns(r["new"])))
    for changed in by_message.values():
        images = []
        for r, key, old, new in changed:
            table = tables[r["table"]]
            if key is None:
                if old is not None:  # a long value may have come as its hash alone
                    stood = next(row for row in table if all(row[c] == old[c] for c in old))
                    table.remove(stood)
                    new = dict(stood, **new) if new is not None else None
                images.append((table, None, new))
            elif r["op"] == "update":
                row = table.pop(tuple(key.values()))
                if any(row[c] != old[c] for c in old):
                    raise ValueError("old values of %r" % (r,))
                images.append((table, key, dict(row, **new)))
            else:
                table.pop(tuple(key.values()), None)
                images.append((table, key, new))
        for table, key, new in images:
            if new is not None and key is None:
                table.append(new)
            elif new is not None:
                table[tuple(key.values())] = new
    return tables


def held(node):
    found = {}
    for table, key in (("t", ("id",)), ("pair", ("x", "y"))):
        names = [r[1] for r in node.sql("PRAGMA table_info(%s)" % table)]
        rows = [dict(zip(names, r)) for r in node.sql("SELECT * FROM " + table)]
        found[table] = {tuple(r[k] for k in key): r for r in rows}
    found["bag"] = [dict(zip("pq", r)) for r in node.sql("SELECT * FROM bag")]
    return found


def same(got, want):
    def order(rows):
        return sorted(rows, key=repr)
    return got["t"] == want["t"] and got["pair"] == want["pair"] and order(got["bag"]) == order(want["bag"])


def write(nodes, rng):
    values = [None, 0, -1, 2**62, 1.5, "", "text", "Zoë \"q\"\\", b"", b"\x00\xff", "x" * 3000]
    for k in range(120):
        node = rng.choice(nodes)
        v, w, n = rng.choice(values), rng.choice(values), rng.randrange(12)
        text, args = rng.choice([
            ("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", (n, v, w)), ("UPDATE t SET a = ? WHERE id = ?", (v, n)),
            ("DELETE FROM t WHERE id = ?", (n,)), ("UPDATE OR REPLACE t SET id = id + 1000 WHERE id = ?", (n,)),
            ("INSERT OR REPLACE INTO pair VALUES ('k', ?, ?)", (n, v)), ("DELETE FROM pair WHERE y > ?", (n,)),
            ("INSERT INTO bag VALUES (?, ?)", (v, n)), ("DELETE FROM bag WHERE q = ?", (n,)),
            ("UPDATE bag SET p = ? WHERE q = ?", (w, n))])
        node.sql(text, *args)
        node.sync(20000)  # no two at once: the log then is what happened
        for other in nodes:
            other.sync(20000)
    for text in ("INSERT INTO t VALUES (500, 1, 'a')", "UPDATE t SET a = 2 WHERE id = 500",
                 "REPLACE INTO t VALUES (500, 3, 'b')", "DELETE FROM t WHERE id = 500"):  # whatever chance did
        nodes[0].sql(text)
        nodes[0].sync(20000)


def the_log_makes_the_tables(nodes, rng):
    write(nodes, rng)
    wait_equal(nodes)
    for node in nodes:
        rows = changes(node)
        check("read by %s, the log makes the tables" % node.name, same(replayed(rows), held(node)), rows[-3:])
    ids = {n.status()["node_id"] for n in nodes}
    check("each row has its node, time and place", {r["node"] for r in rows} == ids
          and all(r["time"].startswith("20") for r in rows) and [r["seq"] for r in rows] == sorted(r["seq"] for r in rows),
          rows[:3])
    check("every operation is there", {r["op"] for r in rows} >= {"insert", "update", "delete", "replace"},
          {r["op"] for r in rows})
    check("the founding and the watch list, too", rows[0]["op"] == "founded" and json.loads(rows[0]["new"])["fold"] == 1
          and {r["table"] for r in rows if r["op"] in ("founded", "watch")} >= {"t", "pair", "bag"}, rows[:5])
    middle = rows[len(rows) // 2]["seq"]
    check("from a place on", changes(nodes[0], 1, middle) == [r for r in rows if r["seq"] >= middle], middle)
    check("beyond the end there is nothing", changes(nodes[0], 1, rows[-1]["seq"] + 1) == [], "rows")
    check("without arguments it is the first shard from its beginning",
          [r[0] for r in nodes[0].sql("SELECT seq FROM marmot_changes")] == [r["seq"] for r in rows], "others")
    check("who wants no more gets no more", len(nodes[0].sql("SELECT * FROM marmot_changes(1, 1) LIMIT 3")) == 3, "more")
    joined = nodes[0].one("SELECT count(*) FROM marmot_streams AS s JOIN marmot_changes(s.shard, s.position) AS c")
    check("its arguments may come from another table", joined == len(changes(nodes[0], 1, rows[-1]["seq"])), joined)


def controls(nodes):
    last = changes(nodes[0])[-1]["seq"]
    nodes[0].one("SELECT marmot_policy('t', 'a', 'max')")
    nodes[0].one("SELECT marmot_verify(20000)")
    rows = changes(nodes[1], 1, last + 1)
    policy = [r for r in rows if r["op"] == "policy"]
    check("a policy", [(r["table"], json.loads(r["new"])) for r in policy] == [("t", {"column": "a", "rule": "max"})], rows)
    answers = [r for r in rows if r["op"] == "verified" and r["table"] == "t"]
    check("the answers to a verify", len(answers) == 2 and len({json.loads(r["new"])["checksum"] for r in answers}) == 1,
          rows)


def parts(nodes):
    last = changes(nodes[0])[-1]["seq"]
    big = [[2000 + k, os.urandom(1000), k] for k in range(300)]
    for n, node in enumerate(nodes):
        node.send_many("INSERT INTO t VALUES (?, ?, ?)", [[row[0] + n * 1000] + row[1:] for row in big])
    for node in nodes:
        node.receive()
    for node in nodes + nodes:
        node.sync(20000)
    rows = changes(nodes[0], 1, last + 1)
    check("large transactions are put together", len([r for r in rows if r["op"] == "insert"]) == 600
          and same(replayed(changes(nodes[0])), held(nodes[0])), len(rows))
    ends = sorted({r["seq"] for r in rows})
    check("each has one place, that of its last part", len(ends) == 2, ends)
    cut = changes(nodes[0], 1, ends[1])
    check("whose beginning is not read cannot be", [(r["seq"], r["op"]) for r in cut] == [(ends[1], "parts")]
          and "from_seq" in json.loads(cut[0]["new"])["why"], cut)


def garbage(nats, nodes, stream):
    with RawNats(nats.port) as raw:
        seq = raw.stored(stream, b"\xff\xfe garbage", "marmot-change-log-1")
    nodes[0].sync(20000)
    rows = changes(nodes[0], 1, seq)
    check("garbage has its place and reason", rows[0]["seq"] == seq and rows[0]["op"] == "malformed"
          and rows[0]["node"] is None and "malformed" in json.loads(rows[0]["new"])["why"], rows)


def other_processes(ws, nats, nodes):
    reader = Node(ws, "reader", db=nodes[0].db, config=False)
    check("a process without a node reads as well", changes(reader) == changes(nodes[0]), "others")
    empty = Node(ws, "empty", schema=SCHEMA, config=False)
    fails("no node", empty, "SELECT * FROM marmot_changes(1, 1)", "call marmot_init() first")
    copy = os.path.join(ws.dir, "copy.db")
    reader.sql("VACUUM INTO ?", copy)
    fails("a copy of a node", Node(ws, "copy", db=copy, config=False), "SELECT * FROM marmot_changes(1, 1)", "another file")
    for args, words in (("0, 1", "no shard 0"), ("2, 1", "no shard 2: give 1 to 1"), ("1, 0", "sequence 0"),
                        ("1, -5", "sequence -5"), ("'1', 1", "shard must be an integer"), ("1, NULL", "from_seq must be"),
                        ("1, 1.5", "from_seq must be")):
        fails("arguments " + args, reader, "SELECT * FROM marmot_changes(%s)" % args, words)
    nats.stop()
    began = time.monotonic()
    fails("no server", reader, "SELECT * FROM marmot_changes(1, 1)", nats.url)
    bar("which is told soon", time.monotonic() - began < 10, time.monotonic() - began)
    nats.start()
    reader.quit()


def fails(name, node, sql, *words):
    try:
        message = "no error, but %r" % node.sql(sql)[:1]
    except SqlError as e:
        message = str(e)
    check("error: " + name, all(w in message for w in ("marmot_changes: ",) + words), message)


def memory(nodes):
    for _ in range(60):
        nodes[0].many("INSERT INTO bag VALUES (?, ?)", [[os.urandom(250), 7] for _ in range(1000)])
    nodes[0].sync(60000)
    out = subprocess.run(WRAP + [PYTHON, "-c", READER, nodes[0].db, EXTENSION], env=nodes[0].env, capture_output=True,
                         text=True, check=True).stdout.split()
    note("%s rows with %s MB" % tuple(out))
    check("all rows are read", int(out[0]) > 60000, out)
    if not os.environ.get("MARMOT_PRELOAD") and not WRAP:
        check("within bounded memory", int(out[1]) < 120, out)


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url]}, "replication_log": {"part_size": 60000}}
        nodes = [Node(ws, name, config=config, schema=SCHEMA) for name in "ab"]
        the_log_makes_the_tables(nodes, rng)
        controls(nodes)
        parts(nodes)
        garbage(nats, nodes, "marmot-changes-c-1")
        other_processes(ws, nats, nodes)
        memory(nodes)
    finish()


main()
