"""outbox_max_bytes while nothing of ours runs: a plain shell that writes beyond it
goes on undisturbed, the triggers stop noting, so that the log stays below it, and
leave a mark; connections of ours, and a shell beside a node that runs, are noted
whatever waits. The next node says that reconcile is due, takes no snapshot until
then, and marmot_reconcile() mends all of it. Modes 'auto' and 'trigger', after a
clean exit with a server that cannot be reached and after kill -9.
marmot-test: parallel
"""
import json
import os
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v, r REAL, b BLOB);
CREATE TABLE wide(k TEXT NOT NULL PRIMARY KEY, %s);
CREATE TABLE uniq(id INTEGER PRIMARY KEY, u TEXT UNIQUE);
""" % ", ".join("c%d" % k for k in range(40))
MOST = 100000
# What the last of it does is noted by nobody; no statement may fail or change for it.
FOREIGN = """
PRAGMA trusted_schema=off;
.dbconfig defensive on
INSERT INTO t VALUES (1001, 'noted', 1.0, x'01');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
  INSERT INTO wide(k, c0, c39) SELECT 'key' || i, i, hex(zeroblob(20)) FROM n;
UPDATE wide SET c1 = c0 || 'x', c38 = 1.5;
INSERT OR REPLACE INTO t SELECT 1001, 'replaced', 2.0, zeroblob(300000);
BEGIN;
INSERT OR ABORT INTO uniq VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT OR FAIL INTO uniq VALUES (4, 'd');
INSERT OR ROLLBACK INTO uniq VALUES (5, 'e');
INSERT INTO uniq VALUES (6, 'f') ON CONFLICT(u) DO UPDATE SET u = 'g';
REPLACE INTO uniq VALUES (7, 'a');
UPDATE OR REPLACE uniq SET u = 'b' WHERE id = 3;
UPDATE OR IGNORE uniq SET id = id + 10 WHERE id > 4;
COMMIT;
DELETE FROM wide WHERE c0 < 100;
INSERT INTO t VALUES (1002, 'last', NULL, NULL) RETURNING id, v;
SELECT changes(), last_insert_rowid();
"""


def shell(path, text):
    done = subprocess.run(["sqlite3", "-batch", path], input=".timeout 10000\n" + text, capture_output=True, text=True, env=plain_env())
    check("the shell meets no error", done.stderr == "" and done.returncode == 0, done.stderr)
    return done.stdout.strip().split("\n")


def log_size(path):
    """Rows, and bytes of what they hold; without the extension."""
    values = "+".join("ifnull(length(v%d),0)" % k for k in range(16))
    db = sqlite3.connect(path, timeout=5)
    try:
        return db.execute("SELECT count(*), ifnull(sum(%s),0) + 32 * count(*), max(id) >= 1 << 62 FROM __marmot__log" %
                          values).fetchone()
    finally:
        db.close()


def due(node):
    return [w for w in node.status()["warnings"] if "reconcile is due" in w]


def equal(a, b):
    check("%s and %s come to an end" % (a.name, b.name), a.sync(30000) == 1 and b.sync(30000) == 1, a.status())
    return wait_equal([a, b], 30)


def mended(a, b, mode):
    wait_until(lambda: due(a), 10 * SLOW, "%s: the next node says that reconcile is due" % mode)
    a.wait_state("live")
    try:
        said = str(a.one("SELECT marmot_snapshot()"))
    except SqlError as e:
        said = str(e)
    check("%s: it takes no snapshot meanwhile" % mode, "reconcile is due" in said, said)
    before = a.dump()
    answer = json.loads(a.one("SELECT marmot_reconcile()"))
    check("%s: what was left out is found" % mode, answer["rows"] > 0, answer)
    check("%s: what is visible stays" % mode, not difference(before, a.dump()), "it does not")
    common = equal(a, b)
    check("%s: the replica has all of it" % mode, not difference(common, before), difference(common, before))
    wait_until(lambda: not due(a), 10 * SLOW, "%s: nothing is due any more" % mode)
    check("%s: a second call finds nothing" % mode, json.loads(a.one("SELECT marmot_reconcile()"))["rows"] == 0, "rows")
    check("%s: and a snapshot is taken again" % mode, "id" in json.loads(a.one("SELECT marmot_snapshot()")), "none")


def beyond(a, b, mode, nats):
    """Nothing runs: the log keeps within what is left of outbox_max_bytes."""
    nats.pause()
    for _ in range(3):
        a.sql("INSERT INTO t(v) VALUES (hex(zeroblob(10000)))")
    a.quit()
    room = MOST - 3 * 20000
    last = shell(a.db, FOREIGN)[-2:]
    check("%s: RETURNING, changes() and last_insert_rowid() are right" % mode, last == ["1002|last", "1|1002"], last)
    rows, size, marked = log_size(a.db)
    note("%s: %d rows, %d bytes in the log, room for about %d" % (mode, rows, size, room))
    check("%s: the log has a mark" % mode, marked, "none")
    check("%s: and stays within what outbox_max_bytes leaves" % mode, room / 4 < size <= room + 1000, size)
    again = shell(a.db, "INSERT INTO t(v) VALUES ('more'); SELECT count(*) FROM t WHERE v = 'more';")
    check("%s: the shell goes on" % mode, again == ["1"] and log_size(a.db)[0] == rows, again)
    nats.resume()
    a.start()
    check("%s: marmot_init says it" % mode, "reconcile is due" in a.one("SELECT marmot_init()"), a.status())
    mended(a, b, mode)


def noted(a, b, mode, nats):
    """A node runs: what its own connections write is noted beyond all bounds, and what
    a plain shell writes has all of outbox_max_bytes, whatever waits."""
    nats.pause()
    a.sql("BEGIN")
    for k in range(4):
        a.sql("INSERT INTO wide(k, c0) VALUES ('own%d', hex(zeroblob(20000)))" % k)
    a.sql("UPDATE wide SET c2 = 5 WHERE k GLOB 'own*'")
    a.sql("COMMIT")
    wait_until(lambda: log_size(a.db)[0] == 0, 10 * SLOW, "what was noted is moved")
    shell(a.db, "UPDATE wide SET c3 = 6 WHERE k GLOB 'own0'; INSERT INTO t(v) VALUES ('beside');")
    nats.resume()
    equal(a, b)
    check("%s: nothing was left out while a node ran" % mode, not due(a), due(a))


def killed(a, b, mode):
    a.kill()
    shell(a.db, "DELETE FROM t WHERE id = 1001; UPDATE wide SET c5 = hex(zeroblob(50)); UPDATE wide SET c6 = c5; DELETE FROM uniq;")
    check("%s: the log has a mark after kill -9, too" % mode, log_size(a.db)[2], log_size(a.db))
    a.start()
    mended(a, b, mode)


def one_mode(ws, mode):
    nats = NatsServer(ws).start()
    config = {"capture": mode, "outbox_max_bytes": MOST, "cluster": mode, "nats": {"urls": [nats.url]}}
    a, b = [Node(ws, mode + name, config=config, schema=SCHEMA) for name in "ab"]
    for n in (a, b):
        n.wait_state("live")
    noted(a, b, mode, nats)
    beyond(a, b, mode, nats)
    killed(a, b, mode)
    for n in (a, b):
        n.quit()
    nats.stop()


def main():
    with Workspace() as ws:
        for mode in ("auto", "trigger"):
            one_mode(ws, mode)
    finish()


main()
