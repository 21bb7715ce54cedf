"""replicate = false: what other nodes write is not applied, what this one writes is
sent, positions follow; its tables are stale, it takes no snapshot, answers no
marmot_verify, begins no cluster and never takes content. Through kill -9, a server
that is away, a log that has dropped what was not read; for a member, and for a file
that joins so. Set to true again its tables come back with the cluster's content,
what is pending on top, nothing lost and nothing resurrected.
marmot-test: parallel limit=180
"""
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from rejoining import rejoin  # noqa: E402

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v, w);
CREATE TABLE bag(x, y);
CREATE TABLE uniq(id INTEGER PRIMARY KEY, u TEXT UNIQUE);
CREATE TABLE account(id INTEGER PRIMARY KEY, n);
"""
TABLES = ["account", "bag", "t", "uniq"]
START = ["INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2), (3, 'three', 3), (4, 'four', 4)",
         "INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (2, 'y')",
         "INSERT INTO uniq VALUES (1, 'a'), (2, 'b')",
         "INSERT INTO account VALUES (1, 100)"]


def fails(name, node, call, words):
    try:
        message = "no error but %r" % (node.one("SELECT " + call),)
    except SqlError as e:
        message = str(e)
    check(name, words in message, message)


def switch(node, on, **more):
    node.one("SELECT marmot_stop()")
    node.config = dict(node.config, replicate=on, **more)
    said = node.init()
    check("%s: marmot_init %s" % (node.name, "has no warning" if on else "warns"),
          any("replicate is false" in w for w in said["warnings"]) is not on, said)


def states(node):
    return {t["name"]: t["state"] for t in node.status()["tables"]}


def all_are(node, state, tables=None):
    wait_until(lambda: set(states(node).get(t) for t in tables or TABLES) == {state}, 30 * SLOW,
               "the tables of %s are %s" % (node.name, state))


def ends(node):
    return [(s["n"], s["position"]) for s in node.status()["shards"]]


def at_end(node, other):
    check("%s and %s come to an end" % (other.name, node.name), all(n.sync(30000) == 1 for n in (node, other, node)),
          node.status())
    wait_until(lambda: ends(node) == ends(other), 10 * SLOW, "%s is where %s is" % (node.name, other.name))


def settle(*nodes):
    for n in nodes + nodes:
        if n.sync(30000) != 1:
            raise Timeout("%s does not come to an end: %s" % (n.name, n.status()))
    return everywhere(nodes)


def member(ws, nats, a, b, c):
    for line in START:
        a.sql(line)
    a.one("SELECT marmot_policy('account', 'n', 'delta')")
    settle(a, b, c)
    switch(c, False)
    c.wait_state("live")
    all_are(c, "stale")
    before = c.dump()
    a.sql("UPDATE t SET v = 'of a' WHERE id IN (1, 2)")
    b.sql("DELETE FROM t WHERE id = 3")
    b.sql("INSERT INTO t VALUES (5, 'of b', 5)")
    a.sql("DELETE FROM bag WHERE x = 1")
    b.sql("UPDATE uniq SET u = 'c' WHERE id = 1")
    a.sql("UPDATE account SET n = n + 10")
    at_end(c, b)
    check("nothing of it is applied", not difference(before, c.dump()), difference(before, c.dump()))
    c.sql("UPDATE t SET w = 'of c' WHERE id IN (1, 3)")
    c.sql("INSERT INTO t VALUES (6, 'of c', hex(zeroblob(700000)))")
    c.sql("INSERT INTO bag VALUES (9, 'of c')")
    c.sql("DELETE FROM bag WHERE x = 2")
    c.sql("INSERT INTO uniq VALUES (3, 'c')")
    c.sql("UPDATE account SET n = n + 1")
    mine = c.dump()
    at_end(c, a)
    b.sync(30000)
    wait_equal([a, b], 30)
    check("what is written there is sent", a.sql("SELECT id, v, w FROM t WHERE id < 6 ORDER BY id") == [
        (1, "of a", "of c"), (2, "of a", 2), (4, "four", 4), (5, "of b", 5)] and a.one("SELECT count(*) FROM t") == 5 and
        a.sql("SELECT * FROM bag") == [(9, "of c")] and a.sql("SELECT n FROM account") == [(111,)],
        a.sql("SELECT id, v FROM t"))
    check("and stands as it is", not difference(mine, c.dump()), difference(mine, c.dump()))
    check("the outbox is empty", c.status()["outbox"]["rows"] == 0, c.status()["outbox"])
    told = json.loads(a.one("SELECT marmot_verify(20000)"))
    check("marmot_verify: the others are equal, it has no part",
          {r["node"] for r in told if "table" in r} == {a.one("SELECT marmot_node_id()"), b.one("SELECT marmot_node_id()")} and
          all(r["equal"] for r in told if "table" in r), told)
    fails("it may not call it", c, "marmot_verify(1000)", "replicate is false")
    fails("nor take a snapshot", c, "marmot_snapshot()", "replicate false")
    fails("nor restore", c, "marmot_restore()", "replicate is false")
    fails("nor reconcile", c, "marmot_reconcile()", "replicate false")
    why = a.sql("SELECT no_snapshot FROM marmot_nodes WHERE id = ?", c.one("SELECT marmot_node_id()"))
    check("the others know", "replicate is false" in str(why), why)


def back(nats, a, b, c):
    """Killed while some of its changes wait for a server that is away; then switched on."""
    nats.pause()
    c.sql("UPDATE t SET v = 'pending' WHERE id = 4")
    c.sql("INSERT INTO t VALUES (7, 'pending', NULL)")
    c.sql("DELETE FROM t WHERE id = 2")
    c.kill()
    a.sql("UPDATE t SET w = 'meanwhile' WHERE id = 4")
    c.start()
    switch(c, True)
    check("what waits is visible", c.one("SELECT v FROM t WHERE id = 4") == "pending", c.sql("SELECT id, v FROM t"))
    c.sql("UPDATE t SET w = 'after' WHERE id = 7")
    nats.resume()
    all_are(c, "watched")
    common = settle(a, b, c)
    rows = a.sql("SELECT id, v, w FROM t WHERE id <> 6 ORDER BY id")
    check("what was pending is there, too, and nothing came back", rows == [
        (1, "of a", "of c"), (4, "pending", "meanwhile"), (5, "of b", 5), (7, "pending", "after")], rows)
    check("with the rows of all tables", len(common["t"][1]) == 5 and c.sql("SELECT * FROM bag") == [(9, "of c")] and
          c.sql("SELECT n FROM account") == [(111,)], c.sql("SELECT * FROM bag"))
    c.sql("INSERT INTO uniq VALUES (20, 'on again')")
    a.sql("INSERT INTO uniq VALUES (21, 'on again, of a')")
    settle(a, b, c)
    check("a snapshot is taken there again", "id" in json.loads(c.one("SELECT marmot_snapshot()")), "none")


def left_behind(a, b, c):
    """The log has dropped what it did not read, while it was off and away."""
    switch(c, False)
    all_are(c, "stale")
    c.sql("INSERT INTO t VALUES (100, 'before', NULL)")
    c.sync(30000)
    c.quit()
    for k in range(80):
        a.sql("INSERT INTO t VALUES (?, 'filling', ?)", 200 + k, k)
    a.sql("DELETE FROM t WHERE id = 100")
    a.sync(30000)
    for _ in range(2):
        a.one("SELECT marmot_snapshot()")
        a.sql("UPDATE account SET n = n + 1")
        a.sync(30000)
    wait_until(lambda: a.one("SELECT min(seq) FROM marmot_changes(1, 1)") > 100, 20 * SLOW, "the log is cut")
    c.start()
    c.wait_state("live", 30)
    c.sql("INSERT INTO t VALUES (101, 'after', NULL)")
    at_end(c, a)
    check("its rows stay as they are", c.one("SELECT count(*) FROM t WHERE id >= 100") == 2, c.sql("SELECT id FROM t"))
    all_are(c, "stale")
    switch(c, True)
    all_are(c, "watched")
    settle(a, b, c)
    check("and are the cluster's again", a.one("SELECT count(*) FROM t WHERE id >= 100") == 81 and
          a.one("SELECT v FROM t WHERE id = 101") == "after", a.sql("SELECT id FROM t WHERE id >= 100"))


def log_lost(nats, a, b, c):
    """The server lost its store: others seed, and it follows the new epoch, still without its content."""
    switch(c, False)
    all_are(c, "stale")
    c.sql("INSERT INTO t VALUES (900, 'first', NULL)")
    at_end(c, a)
    nats.stop()
    nats.wipe()
    nats.start()
    for n in (a, b, c):
        n.wait_state("diverged", 30)
    ids = {n.one("SELECT marmot_node_id()"): n for n in (a, b, c)}
    named = r"seed'\) on node (\d+)"
    for n in (a, b, c):
        def another():
            it = re.search(named, n.status()["remedy"])
            return it and ids[int(it.group(1))] is not c
        wait_until(another, 20 * SLOW, "the remedy of %s names another one" % n.name)
    for how in ("seed", "adopt", "merge"):
        fails("it may not do it: %s" % how, c, "marmot_rejoin('%s')" % how, "replicate")
    rejoin(ids[int(re.search(named, a.status()["remedy"]).group(1))], "seed")
    for n in (a, b, c):
        n.wait_state("live", 40)
    a.sql("UPDATE t SET v = 'next' WHERE id = 900")
    b.sql("INSERT INTO t VALUES (901, 'next', NULL)")
    c.sql("INSERT INTO t VALUES (902, 'next of c', NULL)")
    at_end(c, b)
    at_end(c, a)
    check("it follows the new epoch", c.status()["epoch"] == 2 and
          c.sql("SELECT id, v FROM t WHERE id >= 900 ORDER BY id") == [(900, "first"), (902, "next of c")],
          c.sql("SELECT id, v FROM t WHERE id >= 900"))
    switch(c, True)
    all_are(c, "watched")
    settle(a, b, c)
    check("and has its content when it may", c.sql("SELECT id, v FROM t WHERE id >= 900 ORDER BY id") == [
        (900, "next"), (901, "next"), (902, "next of c")], c.sql("SELECT id, v FROM t WHERE id >= 900"))


def newcomer(ws, config, a, b):
    """An empty file joins with replicate = false: it sends. One with rows of its own stays out."""
    own = Node(ws, "own", config=dict(config, replicate=False, join="adopt"),
               schema=SCHEMA + "INSERT INTO t VALUES (1000, 'only here', 1);")
    own.wait_state("join_conflict", 30)
    check("rows of its own keep a file out", "set replicate to true" in own.status()["why"], own.status()["why"])
    own.quit()
    d = Node(ws, "d", config=dict(config, replicate=False), schema=SCHEMA)
    d.wait_state("live", 30)
    d.sql("INSERT INTO t VALUES (1001, 'of d', 1)")
    at_end(d, a)
    a.sync(30000)
    check("a newcomer sends, and takes nothing", a.sql("SELECT v FROM t WHERE id = 1001") == [("of d",)] and
          d.sql("SELECT id FROM t") == [(1001,)], "%r %r" % (a.sql("SELECT max(id) FROM t"), d.sql("SELECT id FROM t")))
    for n in (a, b):
        n.sql("CREATE TABLE later(id INTEGER PRIMARY KEY, v)")
    a.sql("INSERT INTO later VALUES (1, 'of a')")
    wait_until(lambda: b.sql("SELECT * FROM later") == [(1, "of a")], 20 * SLOW, "a table that is made later")
    d.sql("CREATE TABLE later(id INTEGER PRIMARY KEY, v)")
    d.sql("INSERT INTO later VALUES (2, 'of d')")
    wait_until(lambda: b.sql("SELECT * FROM later") == [(1, "of a"), (2, "of d")], 20 * SLOW, "what is written to it there")
    check("takes nothing either", d.sql("SELECT * FROM later") == [(2, "of d")], d.sql("SELECT * FROM later"))
    all_are(d, "stale", TABLES + ["later"])
    switch(d, True)
    all_are(d, "watched", TABLES + ["later"])
    settle(a, b, d)
    return d


def founder(ws, config):
    e = Node(ws, "e", config=dict(config, replicate=False, cluster="other"), schema=SCHEMA)
    wait_until(lambda: "begins none" in str(e.status()["why"]), 20 * SLOW, "it says that it begins no cluster")
    e.sql("INSERT INTO t VALUES (1, 'waits', 1)")
    f = Node(ws, "f", config=dict(config, cluster="other"), schema=SCHEMA)
    f.wait_state("live")
    e.wait_state("live", 30)
    at_end(e, f)
    check("once there is one its changes arrive", f.sql("SELECT v FROM t") == [("waits",)], f.sql("SELECT v FROM t"))
    e.quit()
    f.quit()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url]}, "replication_log": {"max_entries": 40}}
        a, b, c = [Node(ws, name, config=config, schema=SCHEMA) for name in "abc"]
        for n in (a, b, c):
            n.wait_state("live")
        member(ws, nats, a, b, c)
        back(nats, a, b, c)
        left_behind(a, b, c)
        log_lost(nats, a, b, c)
        d = newcomer(ws, config, a, b)
        for n in (a, b, c, d):
            n.quit()
        founder(ws, {"nats": {"urls": [nats.url]}})
        nats.stop()
    finish()


main()
