"""Every shape of table and value between three nodes, one of them a UTF-16
database: keys of all types and collations, values at their edges, odd names, wide
and large rows, foreign keys in circles, CHECK, keys that change. And a single
writer against a plain SQLite twin: random SQL, equal row for row.
marmot-test: parallel limit=180
"""
import os
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

KEYS = {  # table: (definition, keys of three nodes each)
    "k_int": "k INTEGER PRIMARY KEY, v", "k_desc": "k INTEGER PRIMARY KEY DESC, v",
    "k_text": "k TEXT PRIMARY KEY NOT NULL, v", "k_nocase": "k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v",
    "k_rtrim": "k TEXT COLLATE RTRIM PRIMARY KEY NOT NULL, v", "k_real": "k REAL PRIMARY KEY NOT NULL, v",
    "k_blob": "k BLOB PRIMARY KEY NOT NULL, v", "k_any": "k PRIMARY KEY NOT NULL, v", "k_null": "k PRIMARY KEY, v",
    "k_index": "k TEXT NOT NULL, v, PRIMARY KEY (k COLLATE NOCASE)",
    "k_column": "k TEXT NOT NULL COLLATE NOCASE, v, PRIMARY KEY (k COLLATE BINARY)",
    "k_numeric": "k NUMERIC PRIMARY KEY NOT NULL, v"}
WIDE = 500
ODD = ['a b', 'select', '"', "it's", "[x]", "Größe", "\U0001F9AB", "`", "%w", "a.b", "1", "rowid", "new", "--", "/*"]
Q = ['"%s"' % n.replace('"', '""') for n in ODD]
SCHEMA = "".join("CREATE TABLE %s(%s);\n" % (n, d) for n, d in KEYS.items()) + """
CREATE TABLE k_many(c REAL, a, b COLLATE NOCASE, v, PRIMARY KEY (c, a, b)) WITHOUT ROWID;
CREATE TABLE vals(id INTEGER PRIMARY KEY, n, i INTEGER, r REAL, t TEXT, b BLOB, m NUMERIC);
CREATE TABLE strict_ones(id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;
CREATE TABLE made(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT DEFAULT 'd', s TEXT AS (a || '!') STORED, v AS (length(a)));
CREATE TABLE bag(n, t TEXT COLLATE NOCASE);
CREATE TABLE tree(id INTEGER PRIMARY KEY, up REFERENCES tree(id) ON DELETE CASCADE ON UPDATE CASCADE, v);
CREATE TABLE hen(id INTEGER PRIMARY KEY, egg REFERENCES egg(id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE egg(id INTEGER PRIMARY KEY, hen REFERENCES hen(id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE range(id INTEGER PRIMARY KEY, low, high, CHECK (low <= high));
CREATE TABLE wide(id INTEGER PRIMARY KEY, %s);
CREATE TABLE %s(id INTEGER PRIMARY KEY, %s);
CREATE TABLE uniq(id INTEGER PRIMARY KEY, u UNIQUE, v);
CREATE TABLE partly(id INTEGER PRIMARY KEY, u, alive);
CREATE UNIQUE INDEX partly_u ON partly(u) WHERE alive = 1;
CREATE TABLE folded(id INTEGER PRIMARY KEY, name TEXT);
CREATE UNIQUE INDEX folded_name ON folded(lower(name), id > 100);
CREATE TABLE ubag(x, u UNIQUE);
CREATE TABLE uloose(k TEXT PRIMARY KEY, u UNIQUE);
CREATE TABLE audit(what, who);
CREATE TRIGGER uniq_insert AFTER INSERT ON uniq BEGIN INSERT INTO audit VALUES ('insert', new.id); END;
CREATE TRIGGER uniq_delete AFTER DELETE ON uniq BEGIN DELETE FROM audit WHERE rowid = (SELECT min(rowid) FROM audit); END;
""" % (", ".join("c%d" % k for k in range(WIDE)), Q[0], ", ".join(Q))
BIG = 1 << 20
VALUES = [None, 0, 1, -1, 2**63 - 1, -2**63, 2**53 + 1, 0.0, -0.0, 1.0, 1e300, 5e-324, -1.5, 1e15, 9007199254740993.0,
          9.223372036854775807e18, float("inf"), float("-inf"), float("nan"), "", "x", "a\0b", "\0", "1", "1.0", " 1 ",
          "1e3", "\U0001F9AB\u0301", "\ufeff", "line\nend\r\t", b"", b"\0", b"\xff\xfe\x00", "x" * 5000, b"\1" * 5000]
KEY_VALUES = [0, 1, -2**63, 2**63 - 1, 0.5, 1.5e300, -0.25, "a", "A", "b ", "b", "Z\0z", "", b"a", b"", b"\xff", "10", 10]


def fresh(ws, name, url, encoding):
    path = os.path.join(ws.dir, name + ".db")
    db = sqlite3.connect(path)
    db.execute("PRAGMA encoding = '%s'" % encoding)
    db.execute("PRAGMA journal_mode = wal")
    db.executescript(SCHEMA)
    db.close()
    node = Node(ws, name, urls=url, db=path)
    node.sql("PRAGMA foreign_keys = on")
    return node


def settle(nodes, what):
    for n in nodes:
        check("%s: %s syncs" % (what, n.name), n.sync(30000) == 1, n.status())
    return everywhere(nodes)


def attempt(node, text, *args):
    """A value may be refused by the column, on every node alike."""
    try:
        node.sql(text, *args)
        return True
    except SqlError as e:
        if "constraint" not in str(e) and "mismatch" not in str(e) and "cannot store" not in str(e):
            raise
        return False


def values(nodes):
    """What one node wrote is the same bits at the others, whoever wrote it."""
    plain = sqlite3.connect(":memory:", isolation_level=None)
    plain.executescript(SCHEMA)
    row = 0
    for k, value in enumerate(VALUES):
        row += 1
        node = nodes[k % 3]
        for text, args in (("INSERT INTO vals VALUES (?, ?, ?, ?, ?, ?, ?)", [row] + [value] * 6),
                           ("INSERT INTO vals VALUES (?, 'old', 'old', 'old', 'old', 'old', 'old')", [1000 + row]),
                           ("UPDATE vals SET n = ?, i = ?, r = ?, t = ?, b = ?, m = ? WHERE id = ?", [value] * 6 + [1000 + row]),
                           ("INSERT INTO bag VALUES (?, ?)", [value, value])):
            node.sql(text, *args)
            plain.execute(text, args)
        for column in "irtba":
            text = "INSERT INTO strict_ones(id, %s) VALUES (?, ?)" % column
            key = row * 10 + "irtba".index(column)
            if attempt(node, text, key, value):
                plain.execute(text, [key, value])
    tables = settle(nodes, "values")
    for name in ("vals", "bag", "strict_ones"):
        want = sorted(tuple(typed(v) for v in r) for r in plain.execute("SELECT * FROM " + name))
        odd = [pair for pair in zip(want, tables[name][1]) if pair[0] != pair[1]]
        check("%s holds what plain SQLite holds" % name, len(want) == len(tables[name][1]) and not odd, odd[:2])
    got = {v for r in tables["vals"][1] for v in r[1:2]}
    check("edges are among them", {(2, (-0.0).hex()), (1, -2**63), (2, "inf"), (3, "a\0b"), (0, "")} <= got, got)
    nodes[1].sql("UPDATE bag SET n = 'taken' WHERE typeof(n) = 'real' AND n = 0")
    nodes[2].sql("DELETE FROM bag WHERE typeof(n) = 'text' AND n <> 'taken'")
    settle(nodes, "values without a key changed elsewhere")


def keys(nodes):
    tables = sorted(KEYS)
    for k, key in enumerate(KEY_VALUES):
        for name in tables:
            attempt(nodes[k % 3], "INSERT OR IGNORE INTO %s VALUES (?, ?)" % name, key, k)
        for b in ("x", "X", None):
            attempt(nodes[k % 3], "INSERT OR IGNORE INTO k_many VALUES (?, ?, ?, ?)", k % 3, key, b or "y", k)
    settle(nodes, "keys")
    for k, key in enumerate(KEY_VALUES):
        node = nodes[(k + 1) % 3]
        for name in tables:
            node.sql("UPDATE %s SET v = ? WHERE k = ?" % name, 100 + k, key)
    common = settle(nodes, "rows of others are changed by their key")
    check("all key tables hold rows", all(len(common[n][1]) >= 2 for n in tables), {n: len(common[n][1]) for n in tables})
    nodes[0].txn([("UPDATE OR REPLACE k_int SET k = k / 2 + 1000 WHERE k > 5", []), ("UPDATE OR REPLACE k_nocase SET k = upper(k) WHERE typeof(k) = 'text'", []),
                  ("UPDATE OR REPLACE k_index SET k = lower(k) WHERE typeof(k) = 'text'", []), ("UPDATE OR REPLACE k_real SET k = k + 0.5 WHERE k BETWEEN -99 AND 99", []),
                  ("UPDATE OR REPLACE k_null SET k = NULL WHERE typeof(k) = 'text'", [])])
    nodes[1].txn([("UPDATE OR REPLACE k_text SET k = k || '.' WHERE typeof(k) = 'text'", []), ("UPDATE OR REPLACE k_blob SET k = CAST(k || x'00' AS BLOB)", []),
                  ("UPDATE OR REPLACE k_many SET a = quote(a), c = c + 1 WHERE c > 0", [])])
    nodes[2].txn([("UPDATE OR REPLACE k_desc SET k = -k WHERE typeof(k) = 'integer' AND k BETWEEN -99 AND 99", []),
                  ("UPDATE OR REPLACE k_rtrim SET k = k || '   ' WHERE typeof(k) = 'text'", []), ("DELETE FROM k_any WHERE typeof(k) = 'blob'", [])])
    settle(nodes, "keys changed")
    nodes[0].many("INSERT OR REPLACE INTO k_int VALUES (?, 'shift')", [[k] for k in range(50)])
    settle(nodes, "many keys")
    nodes[1].txn([("UPDATE k_int SET k = -1 - k WHERE v = 'shift'", []), ("UPDATE k_int SET k = -k WHERE v = 'shift'", [])])
    common = settle(nodes, "keys shifted in one transaction")
    check("shifted by one", sorted(r[0][1] for r in common["k_int"][1] if r[1][1] == "shift") == list(range(1, 51)),
          common["k_int"][1][:5])


def names_and_sizes(nodes):
    a, b, c = nodes
    marks = ", ".join("?" * len(ODD))
    a.sql("INSERT INTO %s VALUES (1, %s)" % (Q[0], marks), *ODD)
    b.sql("INSERT INTO %s VALUES (2, %s)" % (Q[0], marks), *range(len(ODD)))
    a.sql("INSERT INTO wide VALUES (1, %s)" % ", ".join("?" * WIDE), *range(WIDE))
    c.sql("INSERT INTO vals(id, t, b) VALUES (5000, ?, ?)", "é" * BIG, b"\xfe" * BIG)
    settle(nodes, "odd names, 500 columns, 1 MB")
    for k, q in enumerate(Q):
        nodes[k % 3].sql("UPDATE %s SET %s = ? WHERE id = 1" % (Q[0], q), "new %d" % k)
    b.sql("UPDATE wide SET c499 = 'last', c0 = 'first' WHERE id = 1")
    a.sql("UPDATE vals SET t = t || 'end', b = substr(b, 2) WHERE id = 5000")
    common = settle(nodes, "each odd column by itself")
    check("columns of three nodes met in one row", [v[1] for v in common["a b"][1][0][1:]] == [
        "new %d" % k for k in range(len(ODD))], common["a b"][1][0])


def references(nodes):
    a, b, c = nodes
    a.txn([("INSERT INTO tree VALUES (1, NULL, 'root'), (2, 1, ''), (3, 2, ''), (4, 3, ''), (5, 5, 'self')", []),
           ("INSERT INTO hen VALUES (1, 1)", []), ("INSERT INTO egg VALUES (1, 1)", []),
           ("INSERT INTO range VALUES (1, 0, 9), (2, 0, 9)", [])])
    settle(nodes, "references")
    b.sql("UPDATE tree SET id = 20 WHERE id = 2")
    settle(nodes, "a key that others refer to changes")
    a.sql("UPDATE range SET low = 7 WHERE id = 1")
    b.sql("UPDATE range SET high = 5 WHERE id = 2")
    c.txn([("UPDATE hen SET egg = 2", []), ("INSERT INTO egg VALUES (2, 1)", []), ("DELETE FROM egg WHERE id = 1", [])])
    b.sql("DELETE FROM tree WHERE id = 20")
    common = settle(nodes, "cascades and circles")
    check("the cascade arrives as rows", [r[0][1] for r in common["tree"][1]] == [1, 5], common["tree"])
    for n in nodes:
        check("%s: no reference dangles" % n.name, not n.sql("PRAGMA foreign_key_check"), n.sql("PRAGMA foreign_key_check"))


def check_meets(nats, nodes):
    """Two changes, each good for CHECK, that meet in a row that is not: it stays, everywhere."""
    nats.stop()
    nodes[0].sql("UPDATE range SET low = 8 WHERE id = 1")
    nodes[1].sql("UPDATE range SET high = 7 WHERE id = 1")
    nats.start()
    for n in nodes:
        n.sync(20000)
    common = wait_equal(nodes)  # integrity_check speaks of such a row, too
    check("both columns are merged", [v[1] for v in common["range"][1][0]] == [1, 8, 7], common["range"])
    nodes[2].sql("UPDATE range SET low = 1 WHERE id = 1")
    settle(nodes, "and such a row can be mended")


def invalid_text(nodes):
    """Bytes that are no UTF-8 are kept by UTF-8 databases; a UTF-16 one cannot hold them."""
    a, _, c = nodes
    for k, literal in enumerate(("x'ff80'", "x'61c3'", "x'edbfbf'", "x'00ff00'")):
        a.sql("INSERT INTO folded VALUES (%d, CAST(%s AS TEXT))" % (500 + k, literal))
    c.sync(20000)
    text = "SELECT id, typeof(name), hex(CAST(name AS BLOB)) FROM folded ORDER BY id"
    wait_until(lambda: a.sql(text) == c.sql(text), 20, "invalid text is the same bytes")
    check("texts that are no UTF-8 keep their bytes", [r[2] for r in c.sql(text)] == ["FF80", "61C3", "EDBFBF", "00FF00"],
          c.sql(text))
    a.sql("DELETE FROM folded")
    settle(nodes, "they go everywhere")


def random_sql(rng, k):
    i, j, u = rng.randrange(12), rng.randrange(12), rng.choice([None, 1, 1.0, "a", "A", "b", 2])
    return rng.choice([
        ("INSERT OR REPLACE INTO uniq VALUES (?, ?, ?)", [i, u, k]), ("INSERT OR IGNORE INTO uniq VALUES (?, ?, ?)", [i, u, k]),
        ("INSERT INTO uniq VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET v = excluded.v, u = NULL", [i, u, k]),
        ("UPDATE OR REPLACE uniq SET u = ? WHERE id >= ?", [u, i]), ("UPDATE OR REPLACE uniq SET id = ? WHERE id = ?", [i, j]),
        ("DELETE FROM uniq WHERE id BETWEEN ? AND ?", [min(i, j), min(i, j) + 2]), ("UPDATE uniq SET id = id + 1 WHERE id > 100", []),
        ("INSERT OR REPLACE INTO partly VALUES (?, ?, ?)", [i, u, rng.randrange(2)]),
        ("UPDATE OR REPLACE partly SET alive = 1 WHERE id = ?", [i]), ("UPDATE partly SET alive = 1 - alive", []),
        ("INSERT OR REPLACE INTO folded VALUES (?, ?)", [rng.choice([i, 100 + j]), rng.choice(["Bob", "bob", "BOB", "eve", None])]),
        ("UPDATE OR REPLACE folded SET name = upper(name) WHERE id = ?", [i]), ("UPDATE OR REPLACE folded SET id = id + 95", []),
        ("INSERT OR REPLACE INTO ubag VALUES (?, ?)", [i, u]), ("UPDATE OR REPLACE ubag SET u = ? WHERE x = ?", [u, i]),
        ("DELETE FROM ubag WHERE u IS ?", [u]), ("UPDATE ubag SET x = x + 1", []),
        ("INSERT OR REPLACE INTO uloose VALUES (?, ?)", [rng.choice([None, "x", "y"]), u]),
        ("UPDATE OR REPLACE uloose SET k = ? WHERE u IS ?", [rng.choice([None, "x", "z"]), u]),
        ("INSERT INTO bag VALUES (?, ?)", [u, u]), ("DELETE FROM bag WHERE rowid = (SELECT max(rowid) FROM bag)", []),
        ("UPDATE bag SET n = t, t = n WHERE n IS ?", [u]),
        ("INSERT OR REPLACE INTO tree VALUES (?, (SELECT max(id) FROM tree), ?)", [i, k]), ("DELETE FROM tree WHERE id = ?", [i]),
        ("UPDATE OR IGNORE tree SET id = ? WHERE id = ?", [j, i]),
        ("INSERT INTO made(a) VALUES (?)", [u]), ("UPDATE made SET a = a || ? WHERE id % 5 = ?", [k, i % 5]),
        ("DELETE FROM made WHERE id < (SELECT max(id) FROM made) - 20", []),
        ("UPDATE OR REPLACE k_nocase SET k = ? WHERE v = ?", [rng.choice(["q", "Q", "r"]), i]),
        ("INSERT OR REPLACE INTO k_nocase VALUES (?, ?)", [rng.choice(["q", "Q", "s"]), i]),
        ("INSERT OR REPLACE INTO k_many VALUES (?, ?, ?, ?)", [i % 3, u or 0, rng.choice(["x", "X"]), k])])


def single_writer(ws, nodes, rng, rounds=400):
    """No foreign change: the nodes are what SQLite alone makes of the same statements."""
    writer = nodes[0]
    path = os.path.join(ws.dir, "twin.db")
    writer.sql("VACUUM INTO ?", path)
    twin = sqlite3.connect(path, isolation_level=None)
    twin.execute("PRAGMA foreign_keys = on")
    for kind, name in twin.execute("SELECT type, name FROM sqlite_schema WHERE name LIKE '\\_\\_marmot%' ESCAPE '\\'"
                                   " AND type IN ('table', 'trigger') ORDER BY type DESC").fetchall():
        twin.execute('DROP %s "%s"' % (kind, name))
    refused = 0
    for k in range(rounds):
        steps = [random_sql(rng, k) for _ in range(rng.randint(1, 5))]
        said = []
        try:
            writer.txn(steps)
        except SqlError as e:
            said.append(str(e))
        try:
            twin.execute("BEGIN")
            for text, args in steps:
                twin.execute(text, args)
            twin.execute("COMMIT")
        except sqlite3.Error as e:
            twin.execute("ROLLBACK") if twin.in_transaction else None
            said.append("%s: %s" % (type(e).__name__, e))
        refused += bool(said)
        if len(said) == 1 or (said and said[0] != said[1]):
            check("node and twin agree", False, "%s: %s" % (steps, said))
            return
    twin.close()
    note("%d transactions, %d refused by a constraint" % (rounds, refused))
    common = settle(nodes, "single writer")
    check("equal to plain SQLite, row for row", not difference(common, dump(path)), difference(common, dump(path)))
    check("and that was something", len(common["audit"][1]) + len(common["bag"][1]) > 10, common["audit"])


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        nodes = [fresh(ws, name, nats.url, encoding) for name, encoding in
                 (("a", "UTF-8"), ("b", "UTF-16le"), ("c", "UTF-8"))]
        settle(nodes, "start")
        bad = [t for t in nodes[0].status()["tables"] if t["state"] != "watched"]
        check("every table is watched", not bad, bad)
        values(nodes)
        keys(nodes)
        names_and_sizes(nodes)
        references(nodes)
        check_meets(nats, nodes)
        invalid_text(nodes)
        single_writer(ws, nodes, rng)
        for n in nodes:
            bad = [t for t in n.status()["tables"] if t["state"] != "watched"]
            check("%s: every table is still watched" % n.name, not bad, bad)
            n.quit()
    finish()


main()
