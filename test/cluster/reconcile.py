"""marmot_reconcile() finds what nobody captured and sends it: written by plain
shells beside a node in mode 'hook', or while nothing ran; of tables of all
shapes, beside captured changes of the same rows, with writers on both nodes,
and again after a kill -9 in its middle. What is visible here stays as it is;
a second call finds nothing.
marmot-test: limit=180
"""
import json
import os
import select
import sqlite3
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v, r REAL, b BLOB);
CREATE TABLE word(k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE uniq(id INTEGER PRIMARY KEY, u TEXT UNIQUE, w INT, x);
CREATE UNIQUE INDEX uniq_w ON uniq(w) WHERE w > 5;
CREATE TABLE bag(x, y);
CREATE TABLE hole(k TEXT PRIMARY KEY, v);
CREATE TABLE pair(p INT, q TEXT, n INT, PRIMARY KEY(p, q)) WITHOUT ROWID;
CREATE TABLE calm(id INTEGER PRIMARY KEY, v);
"""
START = """
INSERT INTO t VALUES (1, 'one', 1.0, x'01'), (2, 'two', 2.5, NULL), (3, 3, 3, x''), (4, 'four', 4, x'04');
INSERT INTO word VALUES ('bob', 1), ('eve', 2), ('gone', 3);
INSERT INTO uniq VALUES (1, 'a', 10, 'x'), (2, 'b', 20, 'y'), (3, 'c', 30, 'z'), (4, 'd', 1, NULL);
INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (1.0, 'x'), (NULL, NULL), ('a', x'00');
INSERT INTO hole VALUES (NULL, 1), (NULL, 1), ('k', 1), ('l', 2);
INSERT INTO pair VALUES (1, 'x', 0), (1, 'y', 0), (2, 'x', 0);
"""
FOREIGN = """
UPDATE t SET v = 'edited' WHERE id = 1;
UPDATE t SET r = -0.0, b = x'00ff00' WHERE id = 2;
UPDATE t SET v = 3.0 WHERE id = 3;
DELETE FROM t WHERE id = 4;
INSERT INTO t VALUES (5, 'with' || char(0) || 'NUL', 9e999, x'00'), (6, NULL, 7, NULL);
UPDATE word SET k = 'BOB' WHERE k = 'bob';
DELETE FROM word WHERE k = 'gone';
INSERT INTO word VALUES ('new', x'6e');
UPDATE uniq SET u = 'tmp' WHERE id = 1; UPDATE uniq SET u = 'a' WHERE id = 2; UPDATE uniq SET u = 'b' WHERE id = 1;
DELETE FROM uniq WHERE id = 3; INSERT INTO uniq VALUES (30, 'c', 30, 'again');
DELETE FROM bag WHERE rowid = 1; INSERT INTO bag VALUES (2, 'new'), (2, 'new'), (-0.0, 'x');
UPDATE bag SET y = 'was a' WHERE x = 'a';
INSERT INTO hole VALUES (NULL, 9); DELETE FROM hole WHERE rowid = 1; UPDATE hole SET v = 5 WHERE k = 'k';
UPDATE pair SET n = 7 WHERE p = 1; DELETE FROM pair WHERE p = 2;
"""
ROWS = {"t": 6, "word": 3, "uniq": 4, "bag": 6, "hole": 3, "pair": 3, "calm": 0}
MANY = 60000 if SLOW == 1 else 15000


def reconcile(node):
    return json.loads(node.one("SELECT marmot_reconcile()"))


def foreign(path, text):
    """A writer without the extension: the node's own Python never sees it."""
    db = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        db.executescript("BEGIN IMMEDIATE;" + text + ";COMMIT;")
    finally:
        db.close()


def found(answer):
    return {t["table"]: t["rows"] for t in answer["tables"]}


def pair_of(ws, nats, name, **more):
    config = dict({"capture": "hook", "nats": {"urls": [nats.url]}, "replication_log": {"shards": 2}}, **more)
    nodes = [Node(ws, "%s%d" % (name, k), config=config, schema=SCHEMA) for k in (1, 2)]
    for n in nodes:
        n.wait_state("live")
    return nodes


def both_synced(*nodes):
    for _ in range(2):
        for n in nodes:
            check_sync = n.sync(30000)
            if check_sync != 1:
                raise Timeout("%s does not come to an end: %s" % (n.name, n.status()))
    return wait_equal(nodes, 30)


def quiet(ws, nats):
    a, b = pair_of(ws, nats, "quiet")
    for line in START.strip().split("\n"):
        a.sql(line)
    both_synced(a, b)
    check("nothing to find", reconcile(a) == {"tables": [{"table": t, "rows": 0} for t in sorted(ROWS)], "rows": 0},
          reconcile(a))
    foreign(a.db, FOREIGN)
    before = a.dump()
    answer = reconcile(a)
    check("each table's rows are counted", found(answer) == ROWS and answer["rows"] == sum(ROWS.values()), answer)
    check("what is visible stays as it is", not difference(before, a.dump()), difference(before, a.dump()))
    common = both_synced(a, b)
    check("the other node has all of it", common == before, difference(common, before))
    check("a second call finds nothing", reconcile(a)["rows"] == 0 and reconcile(b)["rows"] == 0, reconcile(a))
    check("the fold met no conflict", a.sql("SELECT * FROM marmot_conflicts") == [], a.sql("SELECT * FROM marmot_conflicts"))

    a.quit()
    foreign(a.db, "UPDATE t SET v = 'while nothing ran' WHERE id < 4; DELETE FROM bag; INSERT INTO calm VALUES (1, 'x')")
    b.sql("UPDATE t SET b = x'bb' WHERE id = 1")
    a.start()
    a.wait_state("live")
    a.sync()
    answer = reconcile(a)
    check("edited while nothing ran", found(answer)["t"] == 3 and found(answer)["bag"] == 7 and found(answer)["calm"] == 1,
          answer)
    common = both_synced(a, b)
    row = [r for r in common["t"][1] if r[0] == (1, 1)][0]
    check("beside another node's change of the same row", row[1] == (3, "while nothing ran") and row[3] == (4, "bb"), row)
    check("and nothing is left", reconcile(a)["rows"] == 0 and len(common["bag"][1]) == 0, common["bag"])
    return a, b


def pending(ws, nats, a, b):
    """Captured while offline, the same rows edited before and after; on the other node, too."""
    b.one("SELECT marmot_snapshot()")  # from here on the comparison begins with it
    nats.pause()
    foreign(a.db, "UPDATE t SET v = 'under it', r = 50 WHERE id = 1; INSERT INTO t VALUES (50, 'never seen', 1, x'50');"
                  "INSERT INTO uniq VALUES (50, 'fifty', 50, 'under'); DELETE FROM word WHERE k = 'eve'")
    a.sql("UPDATE t SET v = 'captured' WHERE id = 2")  # the oldest: no message of the other node makes it be done again
    a.sql("UPDATE t SET v = 'captured' WHERE id IN (1, 50)")
    a.sql("UPDATE uniq SET x = 'captured' WHERE id = 50")
    a.sql("INSERT INTO word VALUES ('eve', 2)")
    a.sql("INSERT INTO bag VALUES ('p', 1), ('p', 1)")
    foreign(a.db, "UPDATE t SET v = 'over it' WHERE id = 2; INSERT INTO bag VALUES ('p', 1); DELETE FROM uniq WHERE id = 1")
    b.sql("UPDATE t SET b = x'b0' WHERE id = 1")
    b.sql("INSERT INTO uniq VALUES (51, 'fifty', 51, 'of the other')")
    before = a.dump()
    a.send_sql("SELECT marmot_reconcile()")
    nats.resume()
    a.receive()
    a.wait_state("live")
    reconcile(a)
    common = both_synced(a, b)
    rows = {r[0][1]: r for r in common["t"][1]}
    check("pending: under it and over it", [rows[k][1] for k in (1, 2, 50)] ==
          [(3, "captured"), (3, "over it"), (3, "captured")] and rows[1][2] == (2, (50.0).hex()) and
          rows[1][3] == (4, "b0"), [rows.get(k) for k in (1, 2, 50)])
    check("pending: a row that the cluster had never seen", rows[50][3] == (4, "50"), rows[50])
    check("pending: each row without a key once", common["bag"] == before["bag"], common["bag"])
    check("pending: nothing is left", reconcile(a)["rows"] == 0 and reconcile(b)["rows"] == 0, reconcile(a))


def beside_triggers(ws, nats):
    """In mode 'auto' triggers have noted what a plain shell did, but for a table in mode 'hook'."""
    a, b = pair_of(ws, nats, "auto", cluster="auto", capture="auto")
    a.sql("SELECT marmot_watch('bag', 'hook')")
    foreign(a.db, "INSERT INTO t VALUES (1, 'noted', 1, NULL); INSERT INTO hole VALUES (NULL, 'noted'), (NULL, 'noted');"
                  "INSERT INTO bag VALUES (1, 'not noted'), (1, 'not noted')")
    answer = reconcile(a)
    check("beside triggers: only what they do not note", found(answer)["bag"] == 2 and answer["rows"] == 2, answer)
    common = both_synced(a, b)
    check("beside triggers: nothing twice", [len(common[t][1]) for t in ("t", "hole", "bag")] == [1, 2, 2], common["bag"])


def captured(node, rng, stop, base):
    k = base
    while not stop.is_set():
        k += 1
        node.sql("INSERT INTO calm VALUES (?, 'captured')", k)
        node.sql("UPDATE t SET v = ? WHERE id = ?", k, rng.randint(100, 140))
        node.sql("INSERT INTO bag VALUES (?, 'captured')", k % 5)
        if k % 3 == 0:
            node.sql("DELETE FROM t WHERE id = ?", rng.randint(100, 140))
            node.sql("INSERT OR REPLACE INTO uniq VALUES (?, ?, ?, 'captured')", rng.randint(100, 110),
                     "u%d" % rng.randint(0, 12), rng.randint(0, 12))
        if k % 4 == 0:
            node.sql("DELETE FROM bag WHERE rowid = (SELECT min(rowid) FROM bag WHERE y = 'captured')")


def uncaptured(path, rng, stop, count):
    k = 0
    while not stop.is_set():
        k += 1
        foreign(path, "INSERT INTO calm VALUES (%d, 'foreign'); INSERT OR REPLACE INTO t(id, v, r) VALUES (%d, 'f%d', 1.5);"
                      "DELETE FROM t WHERE id = %d; INSERT OR REPLACE INTO uniq VALUES (%d, 'u%d', %d, 'foreign');"
                      "INSERT INTO bag VALUES (%d, 'foreign'); DELETE FROM bag WHERE rowid IN (SELECT rowid FROM bag LIMIT %d)"
                % (1000000 + k, rng.randint(100, 140), k, rng.randint(100, 140), rng.randint(100, 110), rng.randint(0, 12),
                   rng.randint(0, 12), k % 5, k % 3))
        count[0] = k
        stop.wait(0.01)


def beside_writers(ws, nats, a, b, rng):
    stop, count, errors = threading.Event(), [0], []

    def guarded(f, *args):
        try:
            f(*args)
        except Exception as e:  # noqa: BLE001
            errors.append(repr(e))
    seeds = [rng.getrandbits(32) for _ in range(3)]
    threads = [threading.Thread(target=guarded, args=(captured, b, random.Random(seeds[0]), stop, 1000)),
               threading.Thread(target=guarded, args=(uncaptured, a.db, random.Random(seeds[1]), stop, count))]
    a.open(1)
    for t in threads:
        t.start()
    rounds = 0
    try:
        local = random.Random(seeds[2])
        while rounds < 6:
            for k in range(8):
                a.sql("INSERT INTO calm VALUES (?, 'captured here')", 2000000 + rounds * 100 + k)
                a.sql("UPDATE t SET r = ? WHERE id = ?", k, local.randint(100, 140))
                a.sql("INSERT OR REPLACE INTO uniq VALUES (?, ?, ?, 'here')", local.randint(100, 110),
                      "u%d" % local.randint(0, 12), local.randint(0, 12))
            reconcile(a)
            rounds += 1
    finally:
        stop.set()
        for t in threads:
            t.join()
    check("beside writers: they all went on", not errors, errors)
    both = lambda: (a.sync(30000), b.sync(30000))  # noqa: E731
    both()
    reconcile(a)
    both()
    last = reconcile(a)
    common = both_synced(a, b)
    check("beside writers: in the end nothing is left", last["rows"] == 0 and reconcile(b)["rows"] == 0, last)
    ids = {r[0][1] for r in common["calm"][1]}
    check("beside writers: every row of the foreign writer is there", {1000000 + k for k in range(1, count[0] + 1)} <= ids,
          count[0])
    check("beside writers: and all that was captured", {2000000 + r * 100 + k for r in range(rounds) for k in range(8)} <= ids,
          len(ids))
    note("%d transactions of the foreign writer" % count[0])


def killed(ws, nats):
    a, b = pair_of(ws, nats, "killed", cluster="killed")
    foreign(a.db, "WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < %d)"
                  " INSERT INTO t SELECT n, 'many', n, NULL FROM k; INSERT INTO bag SELECT id %% 100, v FROM t WHERE id < 3000"
            % MANY)
    look = sqlite3.connect(a.db, timeout=10)
    first = look.execute("SELECT max(id) FROM __marmot__outbox").fetchone()[0] or 0
    a.send_sql("SELECT marmot_reconcile()")

    def some_are_out():
        """One that a busy server did not answer in time says so, and is called again."""
        if (look.execute("SELECT max(id) FROM __marmot__outbox").fetchone()[0] or 0) > first:
            return True
        if select.select([a.process.stdout], [], [], 0)[0]:
            try:
                raise Timeout("marmot_reconcile has ended: %s" % a.receive())
            except SqlError as e:
                if nats.url not in str(e):
                    raise
                a.send_sql("SELECT marmot_reconcile()")
        return False
    wait_until(some_are_out, 60, "a part of the rows is in the outbox", 0.001)
    a.kill()
    look.close()
    before = a.dump()
    a.start()
    a.wait_state("live")
    a.sync(30000)
    check("killed in the middle: it is still due", any("marmot_reconcile" in w for w in a.status()["warnings"]), a.status())
    part = MANY + 2999 - reconcile(a)["rows"]
    note("%d of %d rows were out when it was killed" % (part, MANY + 2999))
    common = both_synced(a, b)
    check("killed in the middle: the second call finds the rest", common == before and 0 < part,
          difference(common, before) or part)
    check("killed in the middle: then nothing is left", reconcile(a)["rows"] == 0, reconcile(a))
    check("the databases are sound", integrity(a.db) == "ok" and integrity(b.db) == "ok", integrity(b.db))

    a.open(1)
    foreign(a.db, "UPDATE t SET v = 'all of them'")
    slowest, done = [0.0], threading.Event()

    def write():
        db = sqlite3.connect(a.db, isolation_level=None, timeout=30)
        k = 0
        while not done.is_set():
            k += 1
            began = time.monotonic()
            db.execute("INSERT INTO calm VALUES (?, 'beside')", [k])
            slowest[0] = max(slowest[0], time.monotonic() - began)
            done.wait(0.002)
        db.close()
    writer = threading.Thread(target=write)
    writer.start()
    answer = reconcile(a)
    done.set()
    writer.join()
    check("all rows of a large table", found(answer)["t"] == MANY, answer)
    check("a writer beside it never waits long", slowest[0] < 2 * SLOW, slowest[0])
    note("the longest wait of a writer beside it: %.0f ms" % (slowest[0] * 1000))
    reconcile(a)
    both_synced(a, b)


def added_columns(ws, nats):
    """The newest snapshot is older than columns that rows were written to since."""
    nodes = a, b = [Node(ws, "added-" + name, schema="CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
                         config={"capture": "hook", "cluster": "added", "nats": {"urls": [nats.url]}}) for name in "ab"]
    a.sync()
    a.sql("INSERT INTO t VALUES (1, 'old'), (2, 'old'), (3, 'old')")
    both_synced(a, b)
    a.one("SELECT marmot_snapshot()")
    for n in nodes:
        n.sql("ALTER TABLE t ADD COLUMN c TEXT COLLATE NOCASE NOT NULL DEFAULT 'it''s'")
        n.sql("ALTER TABLE t ADD COLUMN d REAL DEFAULT 5")
    a.sql("UPDATE t SET c = 'new', d = 6 WHERE id = 1")
    b.sql("INSERT INTO t(id, d) VALUES (4, 7)")
    both_synced(a, b)
    foreign(a.db, "UPDATE t SET d = 8 WHERE id = 2; UPDATE t SET c = 'IT''S' WHERE id = 3")
    check("added columns: what was written to them is found", found(reconcile(a)) == {"t": 2}, "not 2 rows")
    both_synced(a, b)
    check("added columns: then nothing is left", reconcile(a)["rows"] == reconcile(b)["rows"] == 0, "something")
    check("added columns: the older snapshot can be restored", "id" in json.loads(b.one("SELECT marmot_restore()")), "no")
    both_synced(a, b)
    check("added columns: and a new one be taken", "id" in json.loads(a.one("SELECT marmot_snapshot()")), "no")


def refused(ws, nats):
    n = Node(ws, "alone", config={"nats": {"urls": ["nats://127.0.0.1:%d" % free_port()]}}, schema=SCHEMA)
    try:
        reconcile(n)
        check("without a server it is an error", False, "it was none")
    except SqlError as e:
        check("a node that has not joined: an error", "marmot_status" in str(e), e)


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a, b = quiet(ws, nats)
        pending(ws, nats, a, b)
        beside_writers(ws, nats, a, b, rng)
        beside_triggers(ws, nats)
        killed(ws, nats)
        added_columns(ws, nats)
        refused(ws, nats)
    finish()


main()
