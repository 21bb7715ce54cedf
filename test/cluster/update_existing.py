"""Limits of a stream that exists: told when they differ, changed when wanted; a
full log goes on. And the two clocks of the outbox and of failed attempts.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
STREAM = "marmot-changes-c-1"


def limit(nats):
    with RawNats(nats.port) as raw:
        return raw.stream(STREAM)[0]["max_bytes"]


def log_of(node):
    with open(node.errors) as f:
        return f.read()


def again(node, **parts):
    node.quit()
    node.config = {"nats": node.config["nats"], "replication_log": parts}
    node.start()
    node.one("SELECT marmot_watch_all()")


def full_log(ws, nats):
    config = {"nats": {"urls": [nats.url]}, "replication_log": {"max_bytes": 100000}}
    a = Node(ws, "a", config=config, schema=SCHEMA)
    b = Node(ws, "b", config=config, schema=SCHEMA)
    a.sync(20000)
    rows = [[os.urandom(3000)] for _ in range(60)]
    for row in rows:
        a.sql("INSERT INTO t(v) VALUES (?)", row[0])
    remedy = "raise replication_log.max_bytes with replication_log.update_existing"
    wait_until(lambda: a.status()["state"] == "log_full" and remedy in a.status()["remedy"], 20, "the log is full")
    ok("the log is full, and the status says what helps")
    again(a, max_bytes=10000000)
    wait_until(lambda: "set replication_log.update_existing" in log_of(a), 10, "the difference is told")
    check("and nothing changed", limit(nats) == 100000, limit(nats))
    again(a, max_bytes=10000000, update_existing=True)
    check("with update_existing the log goes on", a.sync(20000) == 1, a.status())
    check("with the new limit", limit(nats) == 10000000, limit(nats))
    b.sync(20000)
    wait_equal([a, b])
    check("nothing is lost", b.one("SELECT count(*) FROM t") == 60, b.one("SELECT count(*) FROM t"))
    again(a, max_bytes=10**13, update_existing=True)
    wait_until(lambda: "stay as they are" in log_of(a), 10, "what the server refuses is told")
    check("and stops nothing", a.sync(20000) == 1, a.status())
    return a, b


def clean_up(ws, nats):
    """Rows beyond outbox_keep go at cleanup_interval, not earlier."""
    config = {"nats": {"urls": [nats.url]}, "outbox_keep": 0, "cleanup_interval": 0}
    quick = Node(ws, "quick", config=config, schema=SCHEMA, watch=False)
    quick.watch_all()
    late = Node(ws, "late", config=dict(config, cleanup_interval=3600000), schema=SCHEMA)

    def rows(node):
        return dict(node.sql("SELECT name, value FROM marmot_metrics WHERE name = 'outbox_rows'"))["outbox_rows"]

    def stored(node):
        """Waits for the node's own transaction, which is when it cleans up."""
        node.sync(20000)
        end = node.one("SELECT position FROM marmot_streams")
        wait_until(lambda: node.one("SELECT max(seq) FROM __marmot__position") >= end, 10, "the position is stored")
    for node in (quick, late):
        node.sql("INSERT INTO t(v) VALUES (0)")
        stored(node)
        node.many("INSERT INTO t(v) VALUES (?)", [[1]])
        for k in range(4):
            node.sql("INSERT INTO t(v) VALUES (1)")
        stored(node)
    wait_until(lambda: rows(quick) == 0, 10, "echoed rows go at once with an interval of 0")
    ok("echoed rows go at once with an interval of 0")
    check("and stay until then with one of an hour", rows(late) >= 5, rows(late))


def attempts(ws):
    config = {"nats": {"urls": ["nats://127.0.0.1:1"], "connect_retries": 3, "reconnect_wait_seconds": 0}}
    node = Node(ws, "lonely", config=config, schema=SCHEMA)
    wait_until(lambda: "3 attempts" in log_of(node), 10, "failed attempts are told")
    check("once an outage", log_of(node).count("3 attempts") == 1, log_of(node))


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        attempts(ws)
        full_log(ws, nats)
    with Workspace() as ws:
        clean_up(ws, NatsServer(ws).start())
    finish()


main()
