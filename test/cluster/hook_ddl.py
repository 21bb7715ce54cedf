"""In mode `hook`, where each change of the schema counts as not captured, tables
that every node alters in any way are compared with a snapshot from before all the
same: marmot_reconcile() sends what a plain shell wrote, and of nothing else a row
twice; then snapshots are taken again, and a newcomer joins.
marmot-test: limit=60
"""
import json
import os
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

BEFORE = """
CREATE TABLE fewer(id INTEGER PRIMARY KEY, v, w TEXT NOT NULL);
CREATE TABLE other(k TEXT PRIMARY KEY, w TEXT NOT NULL UNIQUE, v);
CREATE TABLE becomes(id INTEGER PRIMARY KEY, v);
CREATE TABLE no_more(id INTEGER PRIMARY KEY, v); CREATE UNIQUE INDEX no_more_v ON no_more(v);
CREATE TABLE bag(x, y, z);
CREATE TABLE both(id INTEGER PRIMARY KEY, w, x TEXT NOT NULL, v);
CREATE TABLE refers(id INTEGER PRIMARY KEY, f INTEGER REFERENCES fewer(id));
CREATE TABLE "odd ""t"(k TEXT NOT NULL COLLATE NOCASE, "a ""b" ANY, t TEXT, n REAL NOT NULL,
    d BLOB NOT NULL DEFAULT x'00', gone INT, g TEXT AS (upper(t)) STORED UNIQUE,
    PRIMARY KEY (k, "a ""b")) STRICT, WITHOUT ROWID;
CREATE TABLE same(id INTEGER PRIMARY KEY, v);
"""
ALTER = """
ALTER TABLE fewer DROP COLUMN w;
ALTER TABLE other RENAME COLUMN w TO called;
CREATE UNIQUE INDEX becomes_v ON becomes(v);
DROP INDEX no_more_v;
ALTER TABLE bag DROP COLUMN z;
ALTER TABLE "odd ""t" DROP COLUMN gone; ALTER TABLE "odd ""t" RENAME COLUMN n TO "n ""n";
ALTER TABLE "odd ""t" RENAME COLUMN t TO "a text"; ALTER TABLE "odd ""t" ADD COLUMN late TEXT NOT NULL DEFAULT 'x';
ALTER TABLE both DROP COLUMN w; ALTER TABLE both RENAME COLUMN x TO called; ALTER TABLE both ADD COLUMN more DEFAULT 7;
"""
FIRST = """
INSERT INTO fewer VALUES (1, 'a', 'x'), (2, 'b', 'x'), (3, 'c', 'x');
INSERT INTO other VALUES ('a', 'x', 1), ('b', 'y', 2), ('c', 'z', 3);
INSERT INTO becomes VALUES (1, 'a'), (2, 'a'), (3, 'c');
INSERT INTO no_more VALUES (1, 'a'), (2, 'b');
INSERT INTO bag VALUES (1, 1, 'p'), (1, 1, 'q'), (2, 2, NULL);
INSERT INTO both VALUES (1, 1, 'a', 1), (2, 2, 'b', 2);
INSERT INTO refers VALUES (1, 1);
INSERT INTO "odd ""t" VALUES ('a', 1, 'one', 1.0, x'', 1), ('B', x'00', 'two', -0.0, x'01', NULL), ('c', 2.5, NULL, 3, x'02', 7);
INSERT INTO same VALUES (1, 1);
"""
# Between the snapshot and the change: messages with the columns of before.
BETWEEN = """
UPDATE fewer SET w = 'y' WHERE id = 1; INSERT INTO fewer VALUES (4, 'd', 'y'); DELETE FROM fewer WHERE id = 3;
UPDATE other SET w = 'w' WHERE k = 'a'; INSERT INTO other VALUES ('d', 'x', 4); DELETE FROM other WHERE k = 'c';
UPDATE becomes SET v = 'b' WHERE id = 2;
DELETE FROM bag WHERE z = 'p'; UPDATE bag SET z = 'r' WHERE x = 2; INSERT INTO bag VALUES (3, 3, 's'), (3, 3, 't');
INSERT INTO both VALUES (3, 3, 'c', 3);
UPDATE "odd ""t" SET n = 2.25, gone = 5, d = x'ff' WHERE k = 'A'; INSERT INTO "odd ""t" VALUES ('d', 'd', 'four', 4, x'04', 4);
DELETE FROM "odd ""t" WHERE k = 'b';
"""
AFTER = """
INSERT INTO fewer VALUES (10, 'e'); UPDATE fewer SET v = 'f' WHERE id = 2;
INSERT INTO other VALUES ('e', 'called', 5); UPDATE other SET called = 'v' WHERE k = 'b';
INSERT INTO becomes VALUES (10, 'e');
INSERT INTO no_more VALUES (10, 'a');
INSERT INTO bag VALUES (4, 4); DELETE FROM bag WHERE x = 2;
INSERT INTO both(id, called, v) VALUES (4, 'd', 4);
INSERT INTO "odd ""t"(k, "a ""b", "a text", "n ""n") VALUES ('e', 5, 'two', 5);
"""
PLAIN = """
INSERT INTO fewer VALUES (20, 'plain'); DELETE FROM fewer WHERE id = 1;
UPDATE other SET called = 'plain' WHERE k = 'a';
INSERT INTO becomes VALUES (20, 'plain');
INSERT INTO no_more VALUES (20, 'a');
INSERT INTO bag VALUES (3, 3), (5, 5);
UPDATE same SET v = 2;
UPDATE "odd ""t" SET "a text" = 'plain' WHERE k = 'c';
"""
# The snapshot holds two rows of one value in `becomes`: one of them alone is in a copy where it is UNIQUE.
NONE = {"fewer": 0, "other": 0, "becomes": 1, "no_more": 0, "bag": 0, "both": 0, "refers": 0, "same": 0,
        'odd "t': 0}
WROTE = {"fewer": 2, "other": 1, "becomes": 1, "no_more": 1, "bag": 2, "both": 0, "refers": 0, "same": 1,
         'odd "t': 1}


def reconcile(node):
    return {t["table"]: t["rows"] for t in json.loads(node.one("SELECT marmot_reconcile()"))["tables"]}


def run(node, text):
    for statement in text.split(";"):
        if statement.strip():
            node.sql(statement)


with Workspace() as ws:
    nats = NatsServer(ws).start()
    config = {"capture": "hook", "nats": {"urls": [nats.url]},
              "snapshot": {"store": "file", "file": {"path": os.path.join(ws.dir, "store")}}}
    a, b = [Node(ws, name, config=config, schema=BEFORE) for name in "ab"]
    for n in (a, b):
        n.wait_state("live")
    run(a, FIRST)
    a.sync()
    b.sync()
    a.one("SELECT marmot_snapshot()")
    run(b, BETWEEN)
    b.sync()
    a.sync()
    for n in (a, b):
        run(n, ALTER)
    run(a, AFTER)
    a.sync()
    b.sync()
    wait_equal([a, b])
    check("altered tables go on", a.status()["state"] == b.status()["state"] == "live", (a.status(), b.status()))

    found = reconcile(a)
    check("nothing but changes of the schema", found == NONE, found)
    db = sqlite3.connect(b.db, isolation_level=None, timeout=10)
    db.executescript("BEGIN IMMEDIATE;" + PLAIN + ";COMMIT;")
    db.close()
    a.sync()
    b.sync()
    found = reconcile(b)
    check("what a plain shell wrote, and no more", found == WROTE, found)
    b.sync()
    a.sync()
    wait_equal([a, b])
    check("its rows are everywhere", a.sql("SELECT count(*), sum(x = 5), sum(x = 3) FROM bag") == [(6, 1, 3)] and
          a.sql("SELECT v FROM fewer ORDER BY id") == [("f",), ("d",), ("e",), ("plain",)] and
          a.sql("SELECT called FROM other ORDER BY k") == [("plain",), ("v",), ("x",), ("called",)],
          [a.sql("SELECT * FROM " + t) for t in ("bag", "fewer", "other")])
    check("nothing is left to reconcile", not a.status()["warnings"] and not b.status()["warnings"],
          (a.status()["warnings"], b.status()["warnings"]))

    a.one("SELECT marmot_snapshot()")
    schema = ";".join(x[0] for x in a.sql("SELECT sql FROM sqlite_schema WHERE sql NOT NULL AND name NOT LIKE '%marmot%'"))
    c = Node(ws, "c", config=config, schema=schema)
    c.wait_state("live")
    c.sync()
    wait_equal([a, b, c])
    check("a newcomer joins", c.sql("SELECT count(*) FROM bag") == [(6,)], c.sql("SELECT * FROM bag"))
finish()
