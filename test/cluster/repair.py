"""A message of a later version blocks its shard, and nothing else: what the
status, marmot_streams and marmot_metrics say, which calls are refused, and what
marmot_retry and marmot_skip make of it.
marmot-test: parallel limit=180
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import *  # noqa: E402,F403

# By the hash of their names one table lies in shard 1, the other in shard 2.
SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v)"
LATER = b"\x08\x02 whatever version 2 will be"


def fails(name, node, call, *parts):
    try:
        message = "no error, but %r" % (node.one("SELECT " + call),)
    except SqlError as e:
        message = str(e)
    check(name, all(p in message for p in (call.split("(")[0] + ": ",) + parts), message)


def shard_of(table):
    """FNV-1a, as the contract places tables."""
    h = 14695981039346656037
    for byte in table.encode():
        h = (h ^ byte) * 1099511628211 % 2**64
    return h % 2 + 1


def is_blocked(node, shard, seq):
    def told():
        s = node.status()
        return s if s["state"] == "blocked" and any(x["blocked_id"] for x in s["shards"]) else None
    status = wait_until(told, 20, node.name + " is blocked")
    one = [s for s in status["shards"] if s["n"] == shard][0]
    check("%s: the message is named" % node.name, one["blocked_id"] == "%d:%d" % (shard, seq) and
          one["state"] == "blocked" and one["position"] == seq - 1 and "version 2" in status["why"]
          and "upgrade" in status["why"], status)
    streams = dict(node.sql("SELECT shard, state FROM marmot_streams"))
    check("%s: marmot_streams shows it" % node.name, streams[shard] == "blocked" and
          all(state != "blocked" for n, state in streams.items() if n != shard), streams)
    metrics = {(n, l): v for n, l, v in node.sql("SELECT name, labels, value FROM marmot_metrics")}
    check("%s: so do the metrics" % node.name, metrics["up", ""] == 0 and
          metrics["stream_blocked", 'shard="%d"' % shard] == 1 and
          metrics["stream_blocked", 'shard="%d"' % (3 - shard)] == 0, metrics)


def refusals(node, shard, seq):
    fails("marmot_sync is an error", node, "marmot_sync(5000)", "blocked", "upgrade")
    fails("marmot_verify is an error", node, "marmot_verify(5000)", "blocked", "upgrade")
    for call in ("marmot_retry", "marmot_skip"):
        for wrong in ("%d:%d" % (shard, seq + 1), "%d:%d" % (3 - shard, seq), "77:%d" % seq):
            fails("%s of %s, another message" % (call, wrong), node, "%s('%s')" % (call, wrong), wrong + " does not block",
                  "blocked_id")


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url]}, "replication_log": {"shards": 2}}
        nodes = [Node(ws, name, config=config, schema=SCHEMA) for name in "ab"]
        a, b = nodes
        shard = shard_of("t")
        check("the tables lie in two shards", shard_of("u") == 3 - shard, shard)
        for table in ("t", "u"):
            a.sql("INSERT INTO %s VALUES (1, 'first')" % table)
        for node in nodes:
            node.sync()
        wait_equal(nodes)
        stream, subject = a.sql("SELECT stream, subject FROM marmot_streams WHERE shard = ?", shard)[0]
        with RawNats(nats.port) as raw:
            seq = raw.stored(stream, LATER, subject)
        for node in nodes:
            is_blocked(node, shard, seq)
        refusals(a, shard, seq)
        a.sql("INSERT INTO u VALUES (2, 'goes on')")
        wait_until(lambda: b.one("SELECT count(*) FROM u") == 2, 20, "the other shard goes on")
        ok("the other shard goes on")
        a.sql("INSERT INTO t VALUES (2, 'waits')")
        check("local writes go on", a.one("SELECT count(*) FROM t") == 2, "they do not")
        ident = "%d:%d" % (shard, seq)
        check("marmot_retry runs it again", a.one("SELECT marmot_retry(?)", ident) == 1, "not 1")
        is_blocked(a, shard, seq)
        a.restart()
        is_blocked(a, shard, seq)
        check("marmot_skip goes past it", a.one("SELECT marmot_skip(?)", ident) == 1, "not 1")
        wait_until(lambda: a.status()["state"] == "live", 20, "a is live")
        states = {name: (state, why) for name, state, why in a.sql("SELECT name, state, why FROM marmot_tables")}
        check("what it may have named is stale, and says why", states["t"][0] == "stale" and
              "marmot_skip" in states["t"][1], states)
        check("nothing else is", states["u"][0] == "watched", states)
        check("the other node decides for itself", b.status()["state"] == "blocked", b.status()["state"])
        check("marmot_skip there", b.one("SELECT marmot_skip(?)", ident) == 1, "not 1")
        wait_until(lambda: b.status()["state"] == "live", 20, "b is live")
        fails("once is enough", b, "marmot_skip('%s')" % ident, "does not block")
        b.sql("INSERT INTO u VALUES (3, 'and on')")
        check("both go on", b.sync() == 1 and a.sync() == 1 and a.one("SELECT count(*) FROM u") == 3,
              a.sql("SELECT * FROM u"))
        for node in nodes:
            node.restart()
        check("both stay past it over restarts", a.sync(20000) == 1 and b.sync(20000) == 1 and
              a.one("SELECT state FROM marmot_tables WHERE name = 't'") == "stale", a.status())
        a.sql("INSERT INTO u VALUES (4, 'after all')")
        check("and go on", a.sync() == 1 and b.sync() == 1 and b.one("SELECT count(*) FROM u") == 4, b.sql("SELECT * FROM u"))
        check("it is recorded", a.one("SELECT value FROM marmot_metrics WHERE name = 'ignored_kept'") == 1,
              a.sql("SELECT * FROM marmot_metrics"))
    finish()


main()
