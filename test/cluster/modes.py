"""Each table captured in a mode of its own: marmot_watch(table, mode) and
marmot_watch_all(mode) beside the database's. One transaction that writes tables
of all modes arrives as one; a plain shell's writes arrive from the tables that
triggers watch, and from no other; the modes stay over a restart.
marmot-test: parallel
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

NAMES = ["asis", "auto", "hook", "full"]
SCHEMA = "".join("CREATE TABLE %s(id INTEGER PRIMARY KEY, v);" % n for n in NAMES) + "CREATE TABLE bag(x);"


def plain(path, text):
    subprocess.run(["sqlite3", "-batch", "-cmd", ".timeout 8000", path, text], check=True, capture_output=True)


def how(node):
    return dict(node.sql("SELECT name, capture FROM marmot_tables WHERE state <> 'unwatched'"))


def watch(node):
    for name, mode in (("asis", None), ("auto", "auto"), ("hook", "hook"), ("full", "trigger"), ("bag", None)):
        node.sql("SELECT marmot_watch(?)" if mode is None else "SELECT marmot_watch(?, ?)",
                 *([name] if mode is None else [name, mode]))


def arrives(what, a, b, tables, others):
    a.sync()
    b.sync()
    for t in tables:
        wait_until(lambda t=t: a.sql("SELECT * FROM %s ORDER BY 1" % t) == b.sql("SELECT * FROM %s ORDER BY 1" % t), 10 * SLOW, what + ": " + t)
    ok("%s: %s arrive" % (what, ", ".join(tables)))
    for t in others:
        check("%s: %s does not" % (what, t), a.sql("SELECT * FROM %s" % t) != b.sql("SELECT * FROM %s" % t), "it does")


def database(ws, nats, capture):
    config = {"capture": capture, "cluster": capture, "nats": {"urls": [nats.url]}}
    a, b = [Node(ws, capture + name, config=config, schema=SCHEMA, watch=False) for name in "ab"]
    for n in (a, b):
        watch(n)
    for n in (a, b):
        n.wait_state("live")
    triggered = capture == "trigger"
    expected = {"asis": {"hook": "hook", "auto": "auto", "trigger": "trigger"}[capture], "auto": "auto", "hook": "hook",
                "full": "trigger"}
    expected["bag"] = expected["asis"]
    check("%s: marmot_tables tells each" % capture, how(a) == expected, how(a))
    check("%s: so does the status" % capture,
          {t["name"]: t["capture"] for t in a.status()["tables"]} == expected, a.status()["tables"])
    why = dict(a.sql("SELECT name, why FROM marmot_tables"))
    check("%s: and whom it misses" % capture, ("libmarmot" in (why["hook"] or "")) == (capture != "hook"), why["hook"])
    for k in range(5):
        a.txn([("INSERT INTO %s VALUES (%d, 'own')" % (t, k), []) for t in NAMES] + [("INSERT INTO bag VALUES (1)", [])])
    a.txn([("UPDATE full SET v = 'x' WHERE id = 1", []), ("DELETE FROM hook WHERE id = 1", []),
           ("UPDATE full SET v = 'y' WHERE id = 1", []), ("INSERT OR REPLACE INTO auto VALUES (1, 'z')", [])])
    arrives(capture + ", own", a, b, NAMES + ["bag"], [])
    for t in NAMES:
        plain(a.db, "INSERT INTO %s VALUES (77, 'foreign'); DELETE FROM %s WHERE id = 2" % (t, t))
    plain(a.db, "INSERT INTO bag VALUES (1), (2); DELETE FROM bag WHERE rowid = 1; UPDATE bag SET x = 3 WHERE rowid = 2")
    seen = ["auto", "full"] + (["asis", "bag"] if capture != "hook" else [])
    arrives(capture + ", foreign", a, b, seen, [t for t in NAMES + ["bag"] if t not in seen])
    a.quit()
    a.watch = False
    a.start()
    check("%s: the same after a restart" % capture, how(a) == expected, how(a))
    a.sql("SELECT marmot_watch('hook', 'auto')")
    plain(a.db, "UPDATE hook SET v = 'later' WHERE id = 3")
    a.sync()
    wait_until(lambda: b.one("SELECT v FROM hook WHERE id = 3") == "later", 10 * SLOW, "changed to auto")
    ok("%s: a mode is changed" % capture)
    for n in (a, b):
        n.quit()
    return triggered


def all_of_them(ws, nats):
    config = {"cluster": "all", "nats": {"urls": [nats.url]}}
    a = Node(ws, "all", config=config, schema=SCHEMA, watch=False)
    a.sql("SELECT marmot_watch_all('trigger')")
    check("watch_all gives all of them a mode", how(a) == {t: "trigger" for t in NAMES + ["bag"]}, how(a))
    a.sql("CREATE TABLE later(id INTEGER PRIMARY KEY)")
    wait_until(lambda: how(a).get("later") == "trigger", 10 * SLOW, "a later table has it, too")
    ok("also those that come later")
    a.quit()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        for capture in ("auto", "hook", "trigger"):
            database(ws, nats, capture)
        all_of_them(ws, nats)
    finish()


main()
