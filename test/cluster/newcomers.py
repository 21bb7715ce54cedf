"""Who joins a cluster that lives already: an equal copy reads the log from its
first message, anything else stays out, untouched; a table watched later joins or
is stale; databases of another cluster and streams of Marmot v0.8 are left alone.
marmot-test: parallel
"""
import json
import os
import shutil
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from cluster_nats import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v);
CREATE TABLE late(k TEXT NOT NULL PRIMARY KEY, v);
CREATE TABLE aside(id INTEGER PRIMARY KEY, v);
INSERT INTO t VALUES (1, 'one'), (2, 'two');
INSERT INTO late VALUES ('k', 'start');
"""


def equal_copy(ws, nats):
    a = Node(ws, "a", urls=nats.url, schema=SCHEMA, watch=False)
    a.sql("SELECT marmot_watch('t')")
    a.wait_state("live")
    for k in range(300):
        a.sql("INSERT INTO t VALUES (?, ?)", 100 + k, "row %d" % k)
        if k % 3 == 0:
            a.sql("DELETE FROM t WHERE id = ?", 100 + k - 1)
    a.sync()
    b = Node(ws, "b", urls=nats.url, schema=SCHEMA, watch=False)
    b.sql("INSERT INTO t VALUES (50, 'before it was watched')")
    b.sql("DELETE FROM t WHERE id = 50")
    b.sql("SELECT marmot_watch('t')")
    check("a newcomer with an equal copy joins", b.sync() == 1, b.status())
    common = everywhere([a, b])
    check("and reads the whole log", len(common["t"][1]) == 203, len(common["t"][1]))
    b.sql("UPDATE t SET v = 'by the newcomer' WHERE id = 1")
    b.sync()
    a.sync()
    everywhere([a, b])
    return a, b


def different_content(ws, nats):
    c = Node(ws, "c", urls=nats.url, schema=SCHEMA.replace("'two'", "'zwei'"), watch=False)
    before = c.dump()
    c.sql("SELECT marmot_watch('t')")
    c.wait_state("join_conflict")
    status = c.status()
    check("other rows: join_conflict names the table and a remedy", "t " in status["why"] and "rows" in status["why"],
          status)
    check("its database is untouched", not difference(before, c.dump()), difference(before, c.dump()))
    c.quit()


def other_settings(ws, nats):
    """What must be one value for the whole cluster, set otherwise here."""
    config = {"nats": {"urls": [nats.url]}, "replication_log": {"part_size": 4321}}
    n = Node(ws, "settings", config=config, schema=SCHEMA)
    n.wait_state("join_conflict")
    why = n.status()["why"]
    check("another setting: join_conflict names both values", "4321" in why and "524288" in why, why)
    n.quit()


def watched_later(ws, nats, a, b):
    a.sql("SELECT marmot_watch('late')")
    for k in range(50):
        a.sql("INSERT OR REPLACE INTO late VALUES (?, ?)", "k%d" % (k % 7), k)
    a.sync()
    b.sync()
    check("a table that is not watched here stays as it is", b.one("SELECT count(*) FROM late") == 1, "it changed")
    b.sql("SELECT marmot_watch('late')")
    b.sync()
    state = lambda n: {t["name"]: t for t in n.status()["tables"]}.get("late", {"state": ""})  # noqa: E731
    wait_until(lambda: state(b)["state"] == "watched", 20, "late is watched at b")
    everywhere([a, b])
    ok("a table watched later joins from the log")
    b.sql("UPDATE late SET v = 'from b' WHERE k = 'k'")
    b.sync()
    a.sync()
    everywhere([a, b])
    ok("and replicates in both directions")

    d = Node(ws, "d", urls=nats.url, schema=SCHEMA, watch=False)
    d.sql("SELECT marmot_watch('t')")
    d.sync()
    d.sql("UPDATE late SET v = 'differs' WHERE k = 'k'")
    d.sql("SELECT marmot_watch('late')")
    wait_until(lambda: state(d)["state"] == "stale", 20, "late is stale at d")
    check("one that differs is stale and says what to do", "copy" in state(d)["why"] or "rows" in state(d)["why"],
          state(d))
    check("its rows are untouched", d.sql("SELECT * FROM late") == [("k", "differs")], d.sql("SELECT * FROM late"))
    a.sql("INSERT INTO t VALUES (9000, 'to all')")
    a.sync()
    wait_until(lambda: d.one("SELECT count(*) FROM t WHERE id = 9000") == 1, 10, "the other table goes on")
    ok("the other table of that node goes on")
    d.quit()


def another_cluster(ws, a):
    """A member goes to a server with another cluster of the same name."""
    elsewhere = NatsServer(ws).start()
    stranger = Node(ws, "stranger", urls=elsewhere.url, schema=SCHEMA, watch=False)
    stranger.sql("SELECT marmot_watch('t')")
    stranger.wait_state("live")
    stranger.sql("INSERT INTO t VALUES (5, 'of the stranger')")
    stranger.sync()
    moved = os.path.join(ws.dir, "moved.db")
    a.quit()
    shutil.copy(a.db, moved)
    m = Node(ws, "moved", db=moved, urls=elsewhere.url, watch=False)
    wait_until(lambda: m.status()["state"] in ("diverged", "join_conflict"), 20, "refused")
    status = m.status()
    check("a database of another cluster is refused with a remedy", status["why"] != "" and status["remedy"] != "",
          status)
    m.sql("INSERT INTO t VALUES (6, 'of the moved')")
    stranger.sql("INSERT INTO t VALUES (7, 'again of the stranger')")
    check("the cluster there goes on", stranger.sync() == 1, stranger.status())
    check("nothing went either way", m.one("SELECT count(*) FROM t WHERE id IN (5, 7)") == 0
          and stranger.one("SELECT count(*) FROM t WHERE id = 6") == 0, "it did")
    m.quit()
    stranger.quit()
    elsewhere.kill()
    a.start()


def foreign_stream(ws, name, case):
    """A stream that has our default names or subjects and not our description."""
    old = NatsServer(ws).start()
    with RawNats(old.port) as raw:
        made = raw.api("STREAM.CREATE." + name, {"name": name, "subjects": ["marmot-change-log-1"],
                                                 "description": "Marmot change log", "storage": "file"})
        assert "error" not in made, made
        for k in range(5):
            raw.stored(name, b"\xa3\x01v0.8 %d" % k, "marmot-change-log-1")
        before = raw.stream(name)
        n = Node(ws, "beside_" + name, urls=old.url, schema=SCHEMA)
        n.wait_state("join_conflict")
        check("%s is named with the remedy" % case,
              "marmot-change" in n.status()["why"] and "set cluster" in n.status()["why"], n.status())
        n.sql("INSERT INTO t VALUES (3, 'waits')")
        n.sql("SELECT marmot_stop()")
        n.one("SELECT marmot_init(?)", json.dumps({"cluster": "new", "nats": {"urls": [old.url]}}))
        check("%s: with a cluster of its own it works beside it" % case, n.sync() == 1, n.status())
        check("%s is not touched" % case, raw.stream(name) == before, "%s, not %s" % (raw.stream(name), before))
    n.quit()
    old.kill()


def watched_under_load(a, b):
    """Tables are watched while the thread folds without pause: it may learn of them anywhere in its turn."""
    tables = ["load%d" % k for k in range(25)]
    for name in tables:
        a.sql("CREATE TABLE %s(id INTEGER PRIMARY KEY, v)" % name)
        a.sql("SELECT marmot_watch('%s')" % name)
        a.sql("INSERT INTO %s VALUES (1, 'before')" % name)
    check("more tables are watched at a", a.sync() == 1 and b.sync() == 1, a.status())
    done = threading.Event()

    def write():
        k = 1000000
        while not done.is_set():
            k += 1
            a.sql("INSERT INTO t VALUES (?, 'load')", k)
    writing = threading.Thread(target=write)
    writing.start()
    for name in tables:
        b.sql("CREATE TABLE %s(id INTEGER PRIMARY KEY, v)" % name)
        b.sql("SELECT marmot_watch('%s')" % name)
    done.set()
    writing.join()

    def joined():
        states = dict(b.sql("SELECT name, state FROM marmot_tables"))
        return all(states[name] == "watched" for name in tables)
    wait_until(joined, 20, "all of them have joined at b")
    check("all join", b.sync() == 1 and a.sync() == 1, b.status())
    everywhere([a, b])


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        a, b = equal_copy(ws, nats)
        different_content(ws, nats)
        other_settings(ws, nats)
        watched_later(ws, nats, a, b)
        watched_under_load(a, b)
        another_cluster(ws, a)
        foreign_stream(ws, "marmot-changes-c-1", "a stream of Marmot v0.8")
        foreign_stream(ws, "marmot-changes-1", "one of Marmot v0.8 without compression")
        check("the first cluster still lives", a.sync() == 1 and b.sync() == 1, a.status())
        a.quit()
        b.quit()
        everywhere([a, b])
    finish()


main()
