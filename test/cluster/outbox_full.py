"""outbox_max_bytes: beyond it the status and the log warn; with outbox_full 'slow'
COMMITs take longer, by a bounded time, with 'refuse' they fail with SQLITE_FULL
and a text that says why and what to do. Once the server has taken what waits all
is as before, and nothing is lost.
marmot-test: parallel
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
MOST = 100000


def warned(node):
    return any("outbox_max_bytes" in w for w in node.status()["warnings"])


def took_ms(node, n):
    began = time.monotonic()
    for _ in range(n):
        node.sql("INSERT INTO t(v) VALUES (1)")
    return (time.monotonic() - began) * 1000 / n


def fill(node, how):
    for _ in range(15):
        node.sql("INSERT INTO t(v) VALUES (hex(randomblob(4000)))")
    wait_until(lambda: warned(node), 10 * SLOW, "the status of %s warns" % node.name)
    effect = {"warn": 0, "slow": 1, "refuse": 2}[how]
    wait_until(lambda: node.one("SELECT brake FROM __marmot__head") == effect, 10 * SLOW, "COMMIT's effect is set")


def one_way(ws, nats, how):
    config = {"outbox_full": how, "outbox_max_bytes": MOST, "cluster": how, "nats": {"urls": [nats.url]}}
    a, b = [Node(ws, how + name, config=config, schema=SCHEMA) for name in "ab"]
    for n in (a, b):
        n.wait_state("live")
    check("%s: no warning of the key itself" % how, a.status()["warnings"] == [], a.status()["warnings"])
    before = took_ms(a, 5)
    nats.pause()
    try:
        fill(a, how)
        ok("%s: the status warns" % how)
        if how == "refuse":
            try:
                said = str(a.sql("INSERT INTO t(v) VALUES ('refused')"))
            except SqlError as e:
                said = str(e)
            check("refuse: a COMMIT fails, and says why", "outbox_max_bytes" in said and "outbox_full" in said, said)
            check("refuse: nothing of it stays", a.one("SELECT count(*) FROM t WHERE v = 'refused'") == 0, "it does")
            a.sql("CREATE TABLE other(x)")
            a.sql("SELECT marmot_unwatch('other')")
            a.sql("INSERT INTO other VALUES (1)")
            ok("refuse: tables that are not watched go on")
        else:
            after = took_ms(a, 10)
            note("%s: %.1f ms a COMMIT before, %.1f ms after" % (how, before, after))
            check("%s: a COMMIT takes %s" % (how, "longer" if how == "slow" else "as long as before"),
                  after >= 10 if how == "slow" else after < 10 * SLOW, after)
    finally:
        nats.resume()
    wait_until(lambda: not warned(a), 30 * SLOW, "the warning of %s goes" % how)
    a.sync()

    def writes():
        try:
            a.sql("INSERT INTO t(v) VALUES ('again')")
        except SqlError:
            return False
        return True

    wait_until(writes, 5 * SLOW, "writes of %s go on" % how)
    check("%s: all of it arrives" % how, a.sync() == 1 and b.sync() == 1 and
          a.sql("SELECT * FROM t ORDER BY id") == b.sql("SELECT * FROM t ORDER BY id"), "it does not")
    with open(a.errors, encoding="utf-8") as log:
        check("%s: the log tells it" % how, "more than outbox_max_bytes" in log.read(), "it does not")
    for n in (a, b):
        n.quit()


def main():
    with Workspace() as ws:
        for how in ("warn", "slow", "refuse"):
            nats = NatsServer(ws).start()
            one_way(ws, nats, how)
            nats.stop()
    finish()


main()
