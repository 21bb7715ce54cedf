"""A table that cannot take a message for a cause in its schema is stale, alone; when
the cause is gone it reads the log from there on by itself and is watched again. Where
the log does not tell, after own changes of it or when it was made anew, it takes
the content of a snapshot that was taken since.
marmot-test: parallel
"""
import os
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

TABLES = ["t", "own", "gone", "bag"]
SCHEMA = "".join("CREATE TABLE %s(id INTEGER PRIMARY KEY, v, n);" % t for t in TABLES[:3]) + \
    "CREATE TABLE bag(id, v, n); CREATE TABLE other(id INTEGER PRIMARY KEY, v);"


def states(node):
    return {name: (state, why) for name, state, why in node.sql("SELECT name, state, why FROM marmot_tables")}


def write(node, rng, rounds):
    """All kinds of changes, one transaction each; sums by a rule, too."""
    for _ in range(rounds):
        table, key = rng.choice(TABLES), rng.randrange(12)
        node.sql(rng.choice(["INSERT OR REPLACE INTO %s(id, v, n) VALUES (%d, 'new', 1)", "UPDATE %s SET v = v || '.' WHERE id = %d",
                             "DELETE FROM %s WHERE id = %d", "UPDATE %s SET n = n + 5 WHERE id = %d",
                             "UPDATE %s SET c = coalesce(c, 0) + 1 WHERE id = %d"]) % (table, key))


def only_in_the_application(ws, nats):
    """What our connection lacks makes a table unsupported by name, not the node."""
    path = os.path.join(ws.dir, "host.db")
    db = sqlite3.connect(path, isolation_level=None)
    db.create_function("twice", 1, lambda x: 2 * (x or 0), deterministic=True)
    db.executescript("CREATE TABLE good(id INTEGER PRIMARY KEY, v); CREATE TABLE bad(id INTEGER PRIMARY KEY, v);"
                     "CREATE INDEX bad_twice ON bad(twice(v)); CREATE TABLE made(id INTEGER PRIMARY KEY, v, w AS (twice(v)) STORED);"
                     "CREATE TABLE checked(id INTEGER PRIMARY KEY, v CHECK (twice(v) > 2));")
    db.enable_load_extension(True)
    db.load_extension(EXTENSION)
    db.execute("SELECT marmot_init(?)", ['{"cluster":"host","nats":{"urls":["%s"]}}' % nats.url])
    db.execute("SELECT marmot_watch_all()")
    table = lambda: {n: (s, w) for n, s, w in db.execute("SELECT name, state, why FROM marmot_tables")}  # noqa: E731
    wait_until(lambda: table()["bad"][0] == table()["made"][0] == "unsupported", 20, "tables with twice() are unsupported")
    for name in ("bad", "made"):
        check("%s is unsupported, the function is named" % name, "twice" in table()[name][1], table()[name])
    for name in ("good", "bad", "checked"):
        db.execute("INSERT INTO %s VALUES (1, 5)" % name)
    check("the node goes on", db.execute("SELECT marmot_sync(20000)").fetchone()[0] == 1, table())
    check("and watches the others", table()["good"][0] == table()["checked"][0] == "watched", table())
    db.execute("SELECT marmot_stop()")
    db.close()


def made_anew(a, b):
    """Nothing is written to the table meanwhile that would tell the node."""
    b.sql("DROP TABLE other")
    b.sync(20000)
    check("a watched table that was dropped is stale", states(b)["other"][0] == "stale", states(b)["other"])
    b.sql("CREATE TABLE other(id INTEGER PRIMARY KEY, v)")
    b.sql("INSERT INTO other VALUES (2, 'at once')")
    wait_until(lambda: states(b)["other"][0] == "watched", 20, "the table that was made anew joins")
    for n in (a, b, a):
        n.sync(20000)
    check("made anew it has all rows, and what was written to it at once",
          b.sql("SELECT * FROM other ORDER BY id") == [(1, "goes on"), (2, "at once")], b.sql("SELECT * FROM other"))


def made_behind_a_copy(a, b):
    """It came behind the newest snapshot, and that is brought in before it is made here, too."""
    a.one("SELECT marmot_snapshot()")
    table = "CREATE TABLE IF NOT EXISTS newest(id INTEGER PRIMARY KEY, v)"
    a.sql(table)
    a.sql("INSERT INTO newest VALUES (1, 'of a')")
    a.sync(20000)
    b.one("SELECT marmot_restore()")
    b.sql(table)
    b.sql("INSERT INTO newest VALUES (2, 'of b')")
    for n in (b, a, b):
        n.sync(20000)
    rows = [n.sql("SELECT * FROM newest ORDER BY id") for n in (a, b)]
    check("a table that is made behind a copy without it has all rows", rows == [[(1, "of a"), (2, "of b")]] * 2, rows)


def on_all_behind_a_copy(a, b):
    """It came behind the newest snapshot, and all have it: the log behind that brings it into a copy."""
    a.one("SELECT marmot_snapshot()")
    for n in (a, b):
        n.sql("CREATE TABLE latest(id INTEGER PRIMARY KEY, v)")
    a.sql("INSERT INTO latest VALUES (1, 'of a')")
    for n in (a, b):
        n.sync(20000)
    try:
        b.one("SELECT marmot_restore()")
        why = ""
    except SqlError as e:
        why = str(e)
    check("a table that all have made behind the newest snapshot is in a copy of that and the log", why == "", why)
    check("with its rows", b.sql("SELECT * FROM latest") == [(1, "of a")] and states(b)["latest"][0] == "watched",
          (b.sql("SELECT * FROM latest"), states(b)["latest"]))


def restored_in_vain(b):
    """The content does not fit one of its tables: the call fails, and the node is as it was."""
    said = "{"
    for k in range(10): # a snapshot of the new shape, which b stores by itself, may be faster
        b.sql("ALTER TABLE newest RENAME COLUMN %s TO v%d" % ("v" if k == 0 else "v%d" % (k - 1), k))
        try:
            said = b.one("SELECT marmot_restore()")
        except SqlError as e:
            said = str(e)
            break
    check("a restore that cannot be says why", "marmot_restore: table newest cannot" in said, said)
    check("and the node goes on at once", b.status()["state"] != "diverged" and b.sync(20000) == 1, b.status())
    with open(b.errors, encoding="utf-8") as log:
        check("it never was diverged", "diverged" not in log.read(), b.errors)


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a, b = nodes = [Node(ws, name, urls=nats.url, schema=SCHEMA) for name in "ab"]
        for n in nodes:
            check("%s joins" % n.name, n.sync(20000) == 1, n.status())
        a.one("SELECT marmot_policy('t', 'n', 'delta')")
        for t in TABLES:
            a.many("INSERT INTO %s VALUES (?, 'old', 10)" % t, [[k] for k in range(10)])
        for n in nodes:
            n.sync()
        everywhere(nodes)
        for t in TABLES:
            a.sql("ALTER TABLE %s ADD COLUMN c DEFAULT 7" % t)
        for t in TABLES:
            a.sql("UPDATE %s SET c = 8 WHERE id = 3" % t)
        write(a, rng, 60)
        a.sql("INSERT INTO other VALUES (1, 'goes on')")
        for n in nodes:
            check("%s syncs" % n.name, n.sync(20000) == 1, n.status())
        now = states(b)
        check("tables without the column are stale and say why", all(now[t][0] == "stale" and "column" in now[t][1] for t in TABLES),
              now)
        told = {t["name"]: (t["state"], t["why"]) for t in b.status()["tables"]}
        check("so does the status", all(told[t] == now[t] for t in TABLES), told)
        check("the others go on", now["other"][0] == "watched" and b.one("SELECT count(*) FROM other") == 1, now)
        b.sql("INSERT INTO own(id, v) VALUES (100, 'own')")
        b.sync()
        b.restart()
        b.sync(20000)
        wait_until(lambda: all(states(b)[t][0] == "stale" for t in TABLES), 20, "a restart alone mends nothing")
        ok("a restart alone mends nothing")
        write(a, rng, 40)
        b.sql("DROP TABLE gone")
        b.sync(20000)
        b.sql("CREATE TABLE gone(id INTEGER PRIMARY KEY, v, n, c DEFAULT 7)")
        for t in TABLES:
            if t != "gone":
                b.sql("ALTER TABLE %s ADD COLUMN c DEFAULT 7" % t)
        wait_until(lambda: states(b)["t"][0] == "watched" and states(b)["bag"][0] == "watched", 20, "b reads the log again")
        write(a, rng, 40)
        b.sql("UPDATE t SET n = n + 100 WHERE id = 1")
        for n in nodes + nodes:
            check("%s syncs afterwards" % n.name, n.sync(20000) == 1, n.status())
        left, right = a.dump(), b.dump()
        for t in ("t", "bag", "other"):
            check("%s is equal again" % t, left[t] == right[t], difference({t: left[t]}, {t: right[t]}))
        wait_until(lambda: states(b)["own"][0] == states(b)["gone"][0] == "watched", 20, "the others join with a snapshot")
        ok("one with own changes meanwhile joins with a snapshot of the new columns, so does one that was made anew")
        write(b, rng, 20)
        for n in nodes + nodes:
            n.sync(20000)
        everywhere(nodes)
        check("and keeps what was its own", a.one("SELECT v FROM own WHERE id = 100") == "own", a.sql("SELECT * FROM own"))
        made_anew(a, b)
        everywhere(nodes)
        made_behind_a_copy(a, b)
        on_all_behind_a_copy(a, b)
        restored_in_vain(b)
        for n in nodes:
            n.quit()
        only_in_the_application(ws, nats)
    finish()


main()
