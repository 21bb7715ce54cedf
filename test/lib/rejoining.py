"""What tests of nodes that leave `diverged` and `join_conflict` share."""
import json

from marmot_test import SqlError, wait_equal, wait_until


def settle(nodes, seconds=40):
    for n in nodes:
        n.wait_state("live", seconds)
    for _ in range(2):
        for n in nodes:
            n.sync()
    return wait_equal(nodes, seconds)


def rejoin(n, how):
    return json.loads(n.one("SELECT marmot_rejoin(?)", how))


def refused(n, how):
    try:
        return "no error: %s" % n.one("SELECT marmot_rejoin(?)", how)
    except SqlError as e:
        return str(e)


def named(n, nodes):
    """The node that the remedy names, once every one of them has been heard."""
    def heard():
        text = n.status()["remedy"]
        ids = [str(x.status()["node_id"]) for x in nodes]
        return text if "'seed') on node" in text and all("node " + i in text for i in ids) else None
    text = wait_until(heard, 20, "the remedy tells of all nodes")
    return next(x for x in nodes if "on node %d" % x.status()["node_id"] in text), text
