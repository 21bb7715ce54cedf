"""publish = false: the node takes what others write; its own writes are not captured,
marmot_sync and marmot_verify say so, and capture goes on when the key is gone.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"


def fails(name, node, call, words):
    try:
        message = "no error but %r" % (node.one("SELECT " + call),)
    except SqlError as e:
        message = str(e)
    check(name, call.split("(")[0] + ": " in message and words in message, message)


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        plain = {"nats": {"urls": [nats.url]}}
        b = Node(ws, "b", config=plain, schema=SCHEMA)
        b.sync()
        a = Node(ws, "a", config=dict(plain, publish=False), schema=SCHEMA)
        b.sql("INSERT INTO t VALUES (1, 'of b')")
        wait_until(lambda: a.one("SELECT count(*) FROM t") == 1, 20, "what others write arrives")
        ok("what others write arrives")
        wait_until(lambda: a.status()["outbox"]["rows"] == 0, 20, "that it watches t is in the log")
        a.sql("INSERT INTO t VALUES (2, 'of a')")
        check("what is written here waits for nothing", a.status()["outbox"]["rows"] == 0, a.status()["outbox"])
        fails("marmot_sync is an error", a, "marmot_sync(1000)", "publish is false")
        fails("so is marmot_verify", a, "marmot_verify(1000)", "publish is false")
        b.sql("INSERT INTO t VALUES (3, 'later')")
        wait_until(lambda: a.one("SELECT count(*) FROM t") == 3, 20, "a later row of b")
        check("nothing of it reaches the other node", b.one("SELECT count(*) FROM t") == 2, b.sql("SELECT * FROM t"))
        a.one("SELECT marmot_stop()")
        a.config = plain
        a.init()
        a.sql("UPDATE t SET v = 'captured again' WHERE id = 1")
        check("without the key marmot_sync works", a.sync(20000) == 1, a.status())
        wait_until(lambda: b.one("SELECT v FROM t WHERE id = 1") == "captured again", 20, "the change arrives")
        ok("and what is written is captured again")
        a.quit()
        b.quit()
    finish()


main()
