"""Writers that never load us: plain shells and other connections write the
file of a node, beside the node's own connections, also by an attached alias
and with REPLACE, ALTER TABLE, texts with NUL, and key changes. The replica
ends equal, in mode 'auto' and in mode 'trigger'.
marmot-test: parallel
"""
import os
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from random_statements import SCHEMA, transaction  # noqa: E402

ROUNDS = 90


def plain(path, text, before="", shell="sqlite3"):
    out = subprocess.run([shell, "-batch", path], input="PRAGMA trusted_schema=0;\n.timeout 5000\n" + before + text + ";\n",
                         capture_output=True, text=True, check=False)
    return out.stdout, out.stderr


def mixture(ws, rng, mode):
    nats = NatsServer(ws).start()
    a, b = [Node(ws, "%s-%d" % (mode, k), urls=nats.url, schema=SCHEMA,
                 config={"capture": mode, "nats": {"urls": [nats.url]}}) for k in (1, 2)]
    a.sync()
    b.sync()
    how = dict(sqlite3.connect(a.db).execute("SELECT tbl_name, count(*) FROM sqlite_schema WHERE type = 'trigger'"
                                             " AND name GLOB '__marmot__[0-9]*' GROUP BY 1"))
    check(mode + ": each table has its triggers", how == dict(
        dict.fromkeys(("t", "u", "w", "wide", "many", "ruled"), 5), **dict.fromkeys(("bag", "ubag", "wbag", "named", "pair", "rbag"), 7)), how)
    other = sqlite3.connect(a.db, isolation_level=None, timeout=5)
    alias = sqlite3.connect(os.path.join(ws.dir, mode + "-other.db"), isolation_level=None, timeout=5)
    alias.execute("ATTACH ? AS app", [a.db])
    errors = 0
    for k in range(ROUNDS):
        text = transaction(rng)
        dice = rng.random()
        if dice < 0.25:
            for step in text.split("; "):
                try:
                    a.sql(step)
                except SqlError:
                    errors += 1
        elif dice < 0.35:
            try:
                a.sql("ATTACH '%s' AS again" % a.db)
                a.sql("UPDATE again.t SET a = %d WHERE id = %d" % (k, rng.randint(1, 8)))
                a.sql("UPDATE main.t SET b = %d WHERE id = %d" % (k, rng.randint(1, 8)))
            finally:
                a.sql("DETACH again")
        elif dice < 0.5:
            plain(a.db, text)
        else:
            connection = other if dice < 0.8 else alias
            for step in text.split("; "):
                try:
                    connection.execute(step)
                except sqlite3.IntegrityError:
                    errors += 1
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if k % 30 == 29:
            a.sync()
            wait_equal([a, b])
            ok("%s: the replica is equal after %d transactions" % (mode, k + 1))
    left = sqlite3.connect(a.db).execute("SELECT count(*) FROM __marmot__log").fetchone()
    check(mode + ": nothing stays in the log", left == (0,), left)
    kinds = peek(b.db, "SELECT kind, count(*) FROM __marmot__conflict GROUP BY 1")
    check(mode + ": one origin makes no conflict", kinds == [], kinds)
    return a, b


def shell_sees(a):
    out, err = plain(a.db, "DELETE FROM t; INSERT INTO t(id, a) VALUES (7, 'seven'); SELECT last_insert_rowid(), changes();"
                           "INSERT INTO t(id) VALUES (8), (9); SELECT changes();"
                           "UPDATE t SET b = 'q' RETURNING id; SELECT total_changes() > 0")
    check("a plain shell sees what it always saw", out.split() == ["7|1", "2", "7", "8", "9", "1"], out + err)


def altered(a, b):
    """ALTER TABLE by a plain shell works as without triggers, and so do the writes after it."""
    for legacy in (0, 1):
        a.sql("CREATE TABLE z%d(id INTEGER PRIMARY KEY, a, b, c)" % legacy)
        b.sql("CREATE TABLE z%d(id INTEGER PRIMARY KEY, a, b, c)" % legacy)
        for n in (a, b):
            n.watch_all()
            n.sync()
        text = ("PRAGMA legacy_alter_table=%d; INSERT INTO z%d VALUES (1, 'a', 'b', 'c'), (2, 'a', 'b', 'c');"
                "ALTER TABLE z%d DROP COLUMN b; ALTER TABLE z%d RENAME COLUMN c TO e; ALTER TABLE z%d ADD COLUMN f;"
                "UPDATE z%d SET e = 'new', f = 'f' WHERE id = 1; DELETE FROM z%d WHERE id = 2;"
                "INSERT INTO z%d VALUES (3, 'x', 'y', 'z')") % ((legacy,) * 8)
        out, err = plain(a.db, text)
        check("ALTER TABLE by a shell, legacy %d" % legacy, err == "", err)
        rows = sqlite3.connect(a.db).execute("SELECT * FROM z%d" % legacy).fetchall()
        check("and its writes are right, legacy %d" % legacy,
              rows == [(1, "a", "new", "f"), (3, "x", "y", "z")], rows)

    def rebuilt():
        names = sqlite3.connect(a.db).execute("SELECT sql FROM sqlite_schema WHERE name LIKE '\\_\\_marmot\\_\\_%bd'"
                                              " ESCAPE '\\' AND tbl_name = 'z1'").fetchall()
        return len(names) == 1 and '"e"' in names[0][0] and '"f"' in names[0][0]

    wait_until(rebuilt, 10, "triggers of the new columns")
    ok("the triggers follow the schema")


ALTERED = """
PRAGMA legacy_alter_table=%d;
INSERT INTO loose%d VALUES (1, 'b', 'c', 2), (1, 'b', 'c', 2), (2, 'b', NULL, 2.5);
INSERT INTO keyed%d VALUES ('k', 'b', 1), (NULL, 'b', 2), (NULL, 'b', 3);
ALTER TABLE loose%d DROP COLUMN b;
ALTER TABLE loose%d RENAME COLUMN c TO e;
ALTER TABLE loose%d ADD COLUMN f REAL DEFAULT 7;
UPDATE loose%d SET f = a, e = 'new' WHERE rowid = 2;
DELETE FROM loose%d WHERE a = 2;
INSERT INTO loose%d VALUES (3, 'x', 'y', 'z'), (9, 'x', 'y', 'z');
ALTER TABLE keyed%d ADD COLUMN f DEFAULT 'it''s';
DELETE FROM keyed%d WHERE u = 2;
REPLACE INTO keyed%d VALUES ('j', 'r', 1, 'f');
UPDATE keyed%d SET f = x'00' WHERE u = 3;
DELETE FROM loose%d WHERE a = 9;
ALTER TABLE keyed%d DROP COLUMN b"""
VACUUMED = """
INSERT INTO loose%d VALUES (7, 1, NULL, NULL), (8, 2, 2, 2), (7, 1, NULL, NULL), (10, 1, 1, 1);
DELETE FROM loose%d WHERE rowid IN (SELECT rowid FROM loose%d WHERE a IN (5, 7) LIMIT 2);
UPDATE OR IGNORE loose%d SET e = 'vacuum' WHERE a = 8;
VACUUM;
DELETE FROM loose%d WHERE a = 3;
UPDATE loose%d SET d = a WHERE a >= 7;
INSERT INTO loose%d VALUES (4, 'after', NULL, NULL)"""


def altered_without_key(a, b):
    """The same where rows are known by their rowid, which VACUUM changes, while no node runs."""
    for legacy in (0, 1):
        for n in (a, b):
            n.sql("CREATE TABLE loose%d(a, b, c, d)" % legacy)
            n.sql("CREATE TABLE keyed%d(k TEXT PRIMARY KEY, b, u UNIQUE)" % legacy)
            n.watch_all()
            n.sync()
        a.sql("INSERT INTO loose%d VALUES (0, 1, 2, 3), (0, 1, 2, 3), (5, 5, 5, 5)" % legacy)
        a.sql("DELETE FROM loose%d WHERE rowid = 1" % legacy)
        a.sync()
        b.sync()
        a.quit()
        for text in ("ALTER TABLE loose%d DROP COLUMN b", "ALTER TABLE loose%d RENAME COLUMN c TO e",
                     "ALTER TABLE loose%d ADD COLUMN f REAL DEFAULT 7", "ALTER TABLE keyed%d ADD COLUMN f DEFAULT 'it''s'",
                     "ALTER TABLE keyed%d DROP COLUMN b"):
            b.sql(text % legacy)
        for name, script in (("ALTER TABLE", ALTERED), ("VACUUM", VACUUMED)):
            out, err = plain(a.db, script.replace("%d", str(legacy)))
            check("no key: %s by a shell, legacy %d" % (name, legacy), err == "", err)
            a.start()
            a.sync()
            wait_equal([a, b])
            a.quit()
        a.start()
        rows = b.sql("SELECT * FROM loose%d ORDER BY a, d" % legacy)
        check("no key: the other node has it, legacy %d" % legacy, [0, "new", 3, 0.0] in [list(r) for r in rows] and
              len(rows) == 7, rows)


def null_for_a_key(mode, a, b):
    """SQLite looks at NOT NULL after the triggers: OR IGNORE leaves such rows as they are, OR REPLACE
    gives them the column's default, and the row that holds it goes: no conflict."""
    tables = {"nk": "k TEXT PRIMARY KEY NOT NULL, v", "nd": "k PRIMARY KEY NOT NULL DEFAULT 'as ever', v", "ni": "k INTEGER PRIMARY KEY, v",
              "nt": "k TEXT PRIMARY KEY NOT NULL DEFAULT 7, v", "nu": "id INTEGER PRIMARY KEY, k REAL NOT NULL DEFAULT 7 UNIQUE, v",
              "nb": "k NOT NULL DEFAULT 'it''s' UNIQUE, v",
              "nw": "k NOT NULL DEFAULT 7, j NOT NULL, v, PRIMARY KEY (j, k)) WITHOUT ROWID"}
    for name, columns in tables.items():
        for n in (a, b):
            n.sql("CREATE TABLE %s(%s%s" % (name, columns, "" if "WITHOUT" in columns else ")"))
    for n in (a, b):
        n.watch_all()
        n.sync()
    for name in tables:
        j = ", j" if name == "nw" else ""
        for k, text in enumerate(("INSERT INTO %s(k, v%s) VALUES (1, 0%s), (2, 5%s)" % (name, j, j and ", 1", j and ", 1"),
                                  "UPDATE OR IGNORE %s SET v = v + 1, k = NULL" % name, "UPDATE OR REPLACE %s SET k = NULL WHERE k = 2" % name,
                                  "INSERT OR IGNORE INTO %s(k, v%s) VALUES (NULL, 3%s)" % (name, j, j and ", 2"),
                                  "DELETE FROM %s WHERE v = 5; INSERT OR REPLACE INTO %s(k, v%s) VALUES (NULL, 4%s)" % (name, name, j, j and ", 3"),
                                  "INSERT OR REPLACE INTO %s(k, v%s) VALUES (NULL, 6%s)" % (name, j, j and ", 3"),
                                  "UPDATE OR REPLACE %s SET k = NULL WHERE k = 1" % name)):
            out, err = plain(a.db, text)
            check("%s: %s, step %d, says what SQLite says" % (mode, name, k),
                  err == "" or "NOT NULL" in err or "datatype" in err, out + err)
            check("%s: %s, step %d syncs" % (mode, name, k), a.sync() == 1 and b.sync() == 1, b.status())
    rows = wait_equal([a, b])
    held = {name: [[v[1] for v in r] for r in rows[name][1]] for name in tables}
    check(mode + ": defaults stand in for NULL", held["nd"] == [["as ever", 0]] and held["nt"] == [["7", 0]] and
          held["nw"] == [[7, 1, 0], [7, 3, 6]] and held["nu"] == [[1, (7.0).hex(), 0]] and held["nb"] == [["it's", 0]], held)
    kinds = peek(b.db, "SELECT kind, name FROM __marmot__conflict")
    check(mode + ": and one origin makes no conflict of it", kinds == [], kinds)
    for n in (a, b):
        bad = n.sql("SELECT name, why FROM marmot_tables WHERE state <> 'watched'")
        check("%s: every table of %s is still watched" % (mode, n.name), not bad, bad)


COLLATED = {
    "kb(k TEXT NOT NULL COLLATE NOCASE, v, PRIMARY KEY (k COLLATE BINARY))": (
        "INSERT INTO kb VALUES ('a', 1), ('A', 2), ('b', 3)", "UPDATE kb SET v = 9 WHERE v = 1", "UPDATE kb SET k = 'B' WHERE v = 3",
        "UPDATE OR REPLACE kb SET k = 'A' WHERE v = 9", "INSERT OR REPLACE INTO kb VALUES ('a', 5)", "UPDATE kb SET k = k || 'x'",
        "DELETE FROM kb WHERE v = 9"),
    "kn(k TEXT NOT NULL, v, PRIMARY KEY (k COLLATE NOCASE))": (
        "INSERT INTO kn VALUES ('a', 1), ('b', 2), ('c', 3)", "INSERT OR REPLACE INTO kn VALUES ('A', 4)",
        "UPDATE OR REPLACE kn SET k = 'B' WHERE v = 4", "UPDATE kn SET k = 'b' WHERE k = 'B'", "DELETE FROM kn WHERE k = 'c'"),
    "kw(k NOT NULL COLLATE NOCASE, j COLLATE RTRIM NOT NULL, v, PRIMARY KEY (k COLLATE BINARY, j COLLATE NOCASE)) WITHOUT ROWID": (
        "INSERT INTO kw VALUES ('a', 'x', 1), ('A', 'x', 2), ('a', 'x ', 3), ('A', 'y', 4)", "UPDATE OR REPLACE kw SET j = 'X' WHERE v = 3",
        "UPDATE OR REPLACE kw SET k = 'A' WHERE v = 3", "DELETE FROM kw WHERE v = 4", "UPDATE kw SET v = v + 10"),
    "un(id INTEGER PRIMARY KEY, u COLLATE NOCASE, v); CREATE UNIQUE INDEX un_u ON un(u COLLATE BINARY)": (
        "INSERT INTO un VALUES (1, 'a', 1), (2, 'A', 2)", "UPDATE OR REPLACE un SET u = 'A' WHERE id = 1",
        "INSERT OR REPLACE INTO un VALUES (5, 'A', 5), (6, 'a', 6)"),
    "ub(id INTEGER PRIMARY KEY, u, v); CREATE UNIQUE INDEX ub_u ON ub(u COLLATE NOCASE)": (
        "INSERT INTO ub VALUES (1, 'a', 1), (2, 'b', 2)", "INSERT OR REPLACE INTO ub VALUES (3, 'A', 3)",
        "UPDATE OR REPLACE ub SET u = 'B' WHERE id = 3")}


def other_collations(mode, a, b):
    """Keys and UNIQUE indexes that compare otherwise than their columns do by themselves."""
    for n in (a, b):
        for text in COLLATED:
            for step in ("CREATE TABLE " + text).split("; "):
                n.sql(step)
        n.watch_all()
        n.sync()
    shell = sqlite3.connect(a.db, isolation_level=None, timeout=5)
    twin = sqlite3.connect(":memory:", isolation_level=None)
    for text, steps in COLLATED.items():
        twin.executescript("CREATE TABLE " + text)
        for step in steps:
            shell.execute(step)
            twin.execute(step)
            a.sync()
        name = text[:2]
        b.sync()
        rows = [sorted(sqlite3.connect(n.db).execute("SELECT * FROM " + name).fetchall()) for n in (a, b)]
        want = sorted(twin.execute("SELECT * FROM " + name).fetchall())
        check("%s: %s holds what SQLite alone makes of it, here and there" % (mode, name), rows == [want, want], (rows, want))
    shell.close()
    kinds = peek(b.db, "SELECT kind, name FROM __marmot__conflict")
    check(mode + ": and none of it is a conflict", kinds == [], kinds)


def younger(a, b):
    """An UPDATE of nothing but a column that was added just before, with keys."""
    for n in (a, b):
        n.sql("CREATE TABLE young(id INTEGER PRIMARY KEY, a)")
        n.sql("CREATE TABLE younger(k TEXT, n, a, PRIMARY KEY(k, n)) WITHOUT ROWID")
        n.sql("CREATE TABLE youngest(k TEXT PRIMARY KEY, a)")
        n.watch_all()
        n.sync()
    a.sql("INSERT INTO young VALUES (1, 'a'), (2, 'a'), (3, 'a'), (4, 'a')")
    a.sql("INSERT INTO younger VALUES ('k', 1, 'a'), ('k', 2, 'a')")
    a.sql("INSERT INTO youngest VALUES ('k', 'a'), ('l', 'a')")
    a.sync()
    wait_equal([a, b])
    added = ["ALTER TABLE young ADD COLUMN c DEFAULT 5", "ALTER TABLE young ADD COLUMN d TEXT",
             "ALTER TABLE younger ADD COLUMN c TEXT NOT NULL DEFAULT 7", "ALTER TABLE younger ADD COLUMN d INT DEFAULT '7'",
             "ALTER TABLE younger ADD COLUMN e REAL DEFAULT '7'", "ALTER TABLE younger ADD COLUMN f NUMERIC DEFAULT 7.0",
             "ALTER TABLE youngest ADD COLUMN c DEFAULT 5"]
    written = ["UPDATE young SET c = 8 WHERE id = 1", "UPDATE young SET d = 9 WHERE id = 2",
               "UPDATE young SET c = 5, d = 'x' WHERE id = 3", "UPDATE young SET c = NULL WHERE id = 3",
               "DELETE FROM young WHERE id = 4", "UPDATE younger SET c = 'new' WHERE n = 1",
               "REPLACE INTO younger(k, n, a) VALUES ('k', 2, 'replaced')",
               "REPLACE INTO youngest VALUES ('k', 'b', 8)", "UPDATE youngest SET c = 9 WHERE k = 'l'",
               "INSERT OR IGNORE INTO youngest VALUES ('k', 'comes to nothing', 1), ('l', 'this too', 1)"]
    for text in added:
        b.sql(text)
    out, err = plain(a.db, ";".join(added + written))
    check("added columns are written by a shell", err == "", out + err)
    a.sync()
    wait_equal([a, b])
    ok("what is written to an added column alone arrives")
    check("and is no conflict", peek(b.db, "SELECT * FROM __marmot__conflict") == [], peek(b.db, "SELECT * FROM __marmot__conflict"))
    for n in (b, a):
        n.sql("ALTER TABLE young ADD COLUMN e DEFAULT 'e'")
    a.sql("UPDATE young SET e = 'application' WHERE id = 1")
    a.sync()
    wait_equal([a, b])
    ok("and from the application")


def main():
    rng = seeded()
    with Workspace() as ws:
        for mode in ("auto", "trigger"):
            a, b = mixture(ws, rng, mode)
            shell_sees(a)
            a.sync()
            wait_equal([a, b])
            ok(mode + ": and the other node, too")
            other_collations(mode, a, b)
            null_for_a_key(mode, a, b)
            younger(a, b)
            if mode == "auto":
                altered_without_key(a, b)
                altered(a, b)
            a.sql("SELECT marmot_cleanup('discard')")
            left = sqlite3.connect(a.db).execute("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%marmot%'").fetchone()
            check(mode + ": clean-up removes the triggers", left == (0,), left)
            a.quit()
            b.quit()
    finish()


main()
