"""What tests of nodes that leave `diverged` and `join_conflict` share."""
import json

from marmot_test import SqlError, wait_equal


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
