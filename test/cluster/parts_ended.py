"""A writer that dies for good between two parts of a transaction leaves nothing behind:
the others end it after a while (an hour, here seconds). Whoever comes back, or was only
slow, sends it again from its beginning, and it counts once.
marmot-test: limit=180
"""
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE bag(batch INTEGER, v TEXT); CREATE TABLE small(id INTEGER PRIMARY KEY, v);"
KEEP = 3.0
ROWS = 8000  # 10 MB of hex digits: 5 MB travel
FILL = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) " \
       "INSERT INTO bag SELECT %d, hex(randomblob(650)) FROM n"
WAITING = "SELECT count(*) FROM __marmot__part"


def parts(node):
    return peek(node.db, WAITING)[0][0]


def rows(node, batch):
    return peek(node.db, "SELECT count(*) FROM bag WHERE batch = ?", batch)[0][0]


def ends(node):
    return [json.loads(r[0])["node"] for r in node.sql("SELECT new FROM marmot_changes WHERE op = 'parts_ended'")]


def torn(writer, others, batch, stop):
    """The writer stops for good in the middle of a transaction; returns when."""
    writer.sql(FILL % (ROWS, batch))
    wait_until(lambda: parts(others[0]) > 20, 20, "parts have arrived", 0.001)
    stop()
    since = time.monotonic()
    for k, n in enumerate(others):
        n.sql("INSERT INTO small VALUES (?, 'meanwhile')", batch * 10 + k)
    for n in others:
        check("%s goes on beside it (%d)" % (n.name, batch), n.sync(20000) == 1, n.status())
    check("the parts wait everywhere (%d)" % batch, all(parts(n) > 0 and rows(n, batch) == 0 for n in others),
          [(parts(n), rows(n, batch)) for n in others])
    return since


def gone(others, batch, since):
    wait_until(lambda: all(parts(n) == 0 for n in others), 30, "the parts go")
    took = time.monotonic() - since
    note("they were gone %.1f s after the last part" % took)
    check("not before their time (%d)" % batch, took >= KEEP - 1, took)
    for n in others:
        check("%s has nothing of it (%d)" % (n.name, batch), rows(n, batch) == 0, rows(n, batch))
        n.sql("INSERT INTO small VALUES (?, 'behind')", batch * 1000 + ord(n.name))
        check("%s goes on behind it (%d)" % (n.name, batch), n.sync(20000) == 1, n.status())
    everywhere(others)


def once(nodes, batch):
    for n in nodes:
        check("%s syncs (%d)" % (n.name, batch), n.sync(60000) == 1, n.status())
    everywhere(nodes)
    for n in nodes:
        check("it counts once at %s (%d)" % (n.name, batch), rows(n, batch) == ROWS and parts(n) == 0,
              (rows(n, batch), parts(n)))


def main():
    os.environ["MARMOT_PARTS_KEEP_MS"] = str(int(KEEP * 1000))
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url]}, "replication_log": {"part_size": 4096}}
        a, b, c = nodes = [Node(ws, name, config=config, schema=SCHEMA) for name in "abc"]
        for n in nodes:
            check("%s joins" % n.name, n.sync(20000) == 1, n.status())
        c_id = c.status()["node_id"]

        gone([a, b], 1, torn(c, [a, b], 1, c.kill))
        told = ends(a)
        check("the log says who was ended", told and set(told) == {c_id}, told)
        d = Node(ws, "d", config=config, schema=SCHEMA)
        check("who reads the log later joins", d.sync(20000) == 1, d.status())
        everywhere([a, b, d])
        check("and holds no parts either", parts(d) == 0, parts(d))
        c.start()
        nodes.append(d)
        once(nodes, 1)

        others = [a, b, d]
        since = torn(c, others, 2, c.pause)
        gone(others, 2, since)
        c.resume()
        once(nodes, 2)
        check("it was ended once more", len(ends(a)) > len(told), ends(a))
        for n in nodes:
            n.quit()
        everywhere(nodes)
    finish()


main()
