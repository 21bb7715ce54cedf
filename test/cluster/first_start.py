"""Nodes that start all at once on a server that knows no cluster yet: whoever is
first founds, the others join, and the server, asked about streams while it is
creating them, lives on. Debian's nats-server 2.9 dies of a message that is asked
for in that moment.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

NODES = 5
ROUNDS = 4
SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"


def start_together(ws, k):
    """They know their configuration and wait for a server that is not there yet."""
    nats = NatsServer(ws)
    nodes = [Node(ws, "%s%d" % (name, k), schema=SCHEMA, config={
        "nats": {"urls": [nats.url], "reconnect_wait_seconds": 1},
        "replication_log": {"shards": 4}}) for name in "abcde"[:NODES]]
    nats.start()
    for n in nodes:
        n.send_sql("SELECT marmot_sync(20000)")
    synced = [n.receive()[0][0] for n in nodes]
    alive = nats.process.poll() is None
    check("round %d: %d nodes start together, the server lives" % (k, NODES), alive and synced == [1] * NODES,
          "server %s, marmot_sync %s" % ("lives" if alive else "ended with %s" % nats.process.poll(), synced))
    for j, n in enumerate(nodes):
        n.sql("INSERT INTO t VALUES (?, ?)", j, n.name)
    wait_equal(nodes)
    for n in nodes:
        n.quit()
    nats.stop()


def main():
    with Workspace() as ws:
        for k in range(ROUNDS):
            start_together(ws, k)
    finish()


main()
