"""Founding: whoever comes first founds, and a newcomer with an empty file gets
tables and rows by itself, whatever the order and whoever dies meanwhile: with no
configuration at all, started together, with the founder killed between record and
founding or before its first snapshot, and with a store that cannot be reached.
marmot-test: parallel
"""
import base64
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v);
CREATE INDEX t_v ON t(v);
CREATE TRIGGER t_keep BEFORE DELETE ON t WHEN old.id = 1 BEGIN SELECT raise(ABORT, 'kept'); END;
CREATE TABLE word(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 500) INSERT INTO t SELECT x, 'row ' || x FROM c;
INSERT INTO word VALUES ('one', 1), ('two', 2);
"""


def no_configuration(order):
    with Workspace() as ws:
        began = time.monotonic()
        nodes = [Node(ws, name, schema=SCHEMA if name == "founder" else None) for name in order]
        wait_equal(nodes, 15)  # about a second on a machine that has nothing else to do
        ok("%s first, no configuration: tables and rows after %.1f s" % (order[0], time.monotonic() - began))
        for n in nodes:
            n.wait_state("live")
        names = [n.sql("SELECT type, name FROM sqlite_schema WHERE name LIKE 't\\_%' ESCAPE '\\' ORDER BY 2") for n in nodes]
        check("with index and trigger", names[0] == names[1] and len(names[0]) == 2, names)
        nodes[1].sql("UPDATE t SET v = 'changed' WHERE id = 7")
        nodes[0].sql("DELETE FROM word WHERE k = 'one'")
        for n in nodes + nodes:
            n.sync()
        wait_equal(nodes)


def together():
    """They wait for a server that is not there yet; one of five has rows."""
    with Workspace() as ws:
        nats = NatsServer(ws)
        config = {"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}}
        nodes = [Node(ws, name, config=config, schema=SCHEMA if name == "c" else None) for name in "abcde"]
        nats.start()
        wait_equal(nodes, 20)
        for k, n in enumerate(nodes):
            n.wait_state("live")
            n.sql("INSERT INTO t VALUES (?, ?)", 1000 + k, n.name)
        for n in nodes + nodes:
            n.sync()
        check("five start together, one has rows", len(wait_equal(nodes)["t"][1]) == 505, "rows are missing")


def dead_before_founding():
    """The record is there, its maker died before the founding."""
    with Workspace() as ws:
        first, second = NatsServer(ws).start(), NatsServer(ws).start()
        Node(ws, "maker", urls=first.url, schema=SCHEMA).wait_state("live")
        with RawNats(first.port) as there, RawNats(second.port) as here:
            config = there.stream("KV_marmot-meta")[0]
            record = there.api("STREAM.MSG.GET.KV_marmot-meta", {"last_by_subj": "$KV.marmot-meta.cluster"})
            made = here.api("STREAM.CREATE.KV_marmot-meta", config)
            assert "error" not in made, made
            record = base64.b64decode(record["message"]["data"])
            here.stored("KV_marmot-meta", record, "$KV.marmot-meta.cluster")
        empty = Node(ws, "empty", urls=second.url)
        founder = Node(ws, "founder", urls=second.url, schema=SCHEMA)
        wait_equal([empty, founder])
        with RawNats(second.port) as here:
            about = here.stream("marmot-changes-c-1")[0]["description"]
        check("another founds under a dead node's record", about.endswith(record[:32].decode()), about)


def dead_before_the_snapshot():
    """No snapshot can be stored: the cluster lives on, newcomers wait; the founder is
    killed; whoever has the rows stores one once it can be stored."""
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        place = os.path.join(ws.dir, "snapshots")
        with open(place, "w"):
            pass  # a file where the directory should be
        config = {"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1},
                  "snapshot": {"store": "file", "file": {"path": place}}}
        founder = Node(ws, "founder", config=config, schema=SCHEMA)
        equal = Node(ws, "equal", config=config, schema=SCHEMA)
        founder.sql("INSERT INTO t VALUES (9000, 'of the founder')")
        check("without a store the cluster replicates", founder.sync() == 1 and equal.sync() == 1, equal.status())
        wait_equal([founder, equal])
        empty = Node(ws, "empty", config=config)
        made = Node(ws, "made", config=config, schema="CREATE TABLE t(id INTEGER PRIMARY KEY, v);")
        for n in (empty, made):
            wait_until(lambda: "no snapshot" in n.status()["why"], 10, "%s waits for a snapshot" % n.name)
            status = n.status()
            check("newcomer %s waits and says why" % n.name, status["state"] == "joining" and "snapshots" in status["why"],
                  status)
        founder.kill()
        equal.kill()
        check("a newcomer that waits is no member", empty.sync(300) == 0 and made.sync(300) == 0, empty.status())
        os.unlink(place)
        founder.start()
        nodes = [founder, empty]
        wait_equal(nodes, 15)
        empty.wait_state("live")
        made.wait_state("live")
        check("tables that nobody made at a newcomer come with the others, too",
              made.one("SELECT count(*) FROM word") == 2, made.status())
        equal.start()
        made.sql("INSERT INTO t VALUES (9001, 'of a newcomer')")
        for n in [made, founder, equal, empty]:
            check("%s syncs" % n.name, n.sync() == 1, n.status())
        wait_equal([founder, equal, empty, made])


def main():
    no_configuration(["founder", "newcomer"])
    no_configuration(["newcomer", "founder"])
    together()
    dead_before_founding()
    dead_before_the_snapshot()
    finish()


main()
