"""Nodes that write before there is any server, the same rows too; the server
comes later, and all converge.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
INSERT INTO t VALUES (1, 'start', 'start'), (2, 'start', 'start'), (3, 'start', 'start');
"""


def write_offline(node, k):
    run = node.sql if type(node) is Node else node.ask
    run("UPDATE t SET a = 'a of %s' WHERE id = 1;" % node.name)
    run("UPDATE t SET %s = 'only %s' WHERE id = 2;" % ("ab"[k % 2], node.name))
    run("INSERT INTO t VALUES (%d, '%s', NULL);" % (100 + k, node.name))
    run("INSERT OR REPLACE INTO t VALUES (50, 'same key', '%s');" % node.name)
    if k == 0:
        run("DELETE FROM t WHERE id = 3;")
    for n in range(200):
        run("INSERT INTO t VALUES (%d, %d, '%s');" % (1000 * (k + 1) + n, n, node.name))


def check_content(common, names, case):
    rows = {row[0][1]: (row[1][1], row[2][1]) for row in common["t"][1]}
    last = rows[1][0].replace("a of ", "")
    check(case + ": the same column: one of the writers wins", last in names, rows[1])
    check(case + ": different columns: both survive", rows[2] == ("only " + names[0], "only " + names[1]), rows[2])
    check(case + ": the deleted row is gone, the inserted are there",
          3 not in rows and rows[50][1] in names and all(rows.get(100 + k, "")[:1] == (n,) for k, n in enumerate(names))
          and len(rows) == 3 + len(names) * 201, len(rows))


def first_start(ws):
    """The server has never been there."""
    nats = NatsServer(ws)
    nodes = [Node(ws, "a", urls=nats.url, schema=SCHEMA), Shell(ws, "b", urls=nats.url, schema=SCHEMA)]
    for node in nodes:
        wait_until(lambda n=node: n.status()["state"] == "offline", 20, "offline")
    status = nodes[0].status()
    check("offline says why and what to do", status["why"] and "server" in status["remedy"], status)
    for k, node in enumerate(nodes):
        write_offline(node, k)
    check("sync says 0 in time when there is no server", nodes[0].sync(300) == 0, "not 0")
    check("the outbox counts what waits", nodes[0].status()["outbox"]["rows"] >= 205, nodes[0].status()["outbox"])
    nats.start()
    for node in nodes:
        check("%s syncs when the server has come" % node.name, node.sync(20000) == 1, node.status())
    check_content(everywhere(nodes), ["a", "b"], "first start")
    return nats, nodes


def counted(node, waits, begin):
    """What the outbox is said to hold from before `begin` until all is sent, but for repetitions."""
    said = [node.status()["outbox"]["rows"]]

    def look():
        until = time.monotonic() + 20
        while said[-1] > 0 and time.monotonic() < until:
            rows = node.status()["outbox"]["rows"]
            said.extend([rows] if said[-1] != rows else [])
    looks = threading.Thread(target=look)
    looks.start()
    begin()
    looks.join()
    check("what waits is counted once while it is sent", said[0] == waits and said[-1] == 0 and max(said) == waits, said)


def away(nats, nodes):
    """Members that write while the server is away, and are restarted meanwhile."""
    nats.stop()
    for node in nodes:
        node.sql("DELETE FROM t; ") if type(node) is Node else node.ask("DELETE FROM t;")
        wait_until(lambda n=node: n.status()["state"] == "offline", 20, "offline")
    a, b = nodes
    a.sql("INSERT INTO t VALUES (7, 'before the kill', NULL)")
    a.kill()
    a.start()
    a.sql("INSERT INTO t VALUES (8, 'after it', NULL)")
    b.ask("INSERT INTO t VALUES (9, 'of b', NULL);")
    b.quit()
    b.start()
    wait_until(lambda: a.status()["outbox"]["rows"] == 3, 20, "all that waits is counted")
    counted(a, 3, nats.start)
    for node in nodes:
        check("%s syncs after the outage" % node.name, node.sync(20000) == 1, node.status())
    common = everywhere(nodes)
    check("writes of before and after a restart without server are all there",
          sorted(row[0][1] for row in common["t"][1]) == [7, 8, 9], common)


def without_jetstream(ws):
    """A server that has none: to join, and later, when it came back so."""
    nats = NatsServer(ws, jetstream=False).start()
    conf = os.path.join(nats.dir, "nats.conf")
    with open(conf) as f:
        bare = f.read()

    def told(state):
        wait_until(lambda: a.status()["state"] == state, 20, state)
        return wait_until(lambda: "jetstream" in a.status()["remedy"] and a.status(), 5, "the remedy names it")
    a = Node(ws, "a", urls=nats.url, schema=SCHEMA)
    status = told("joining")
    check("joining without JetStream says why and what to do", "JetStream" in status["why"], status)
    nats.stop()
    with open(conf, "w") as f:
        f.write(bare + 'jetstream { store_dir: "%s/js" }\n' % nats.dir)
    wait_until(lambda: a.status()["state"] == "offline", 20, "offline")
    check("no server at all is said otherwise", "start or reach" in a.status()["remedy"], a.status())
    nats.start()
    check("the remedy helps", a.sync(20000) == 1 and a.status()["remedy"] == "", a.status())
    nats.stop()
    with open(conf, "w") as f:
        f.write(bare)
    nats.start()
    status = told("offline")
    check("a server that lost its JetStream is no server that is away", "does not work" in status["why"], status)
    a.quit()


def main():
    with Workspace() as ws:
        without_jetstream(ws)
    with Workspace() as ws:
        nats, nodes = first_start(ws)
        away(nats, nodes)
        for node in nodes:
            node.quit()
    finish()


main()
