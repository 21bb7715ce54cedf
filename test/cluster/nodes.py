"""marmot_nodes: who is there, how far each one is; who falls silent is told so;
what is not of this cluster, or no message at all, is passed over.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402
from cluster_wire import field, fixed  # noqa: E402
from storm_proxy import Proxy  # noqa: E402

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v);"
SHARDS = 3
SUBJECT = "_INBOX.marmot.marmot-change-log.nodes"


def nodes_of(node):
    names = ("name", "host", "state", "positions", "lag_messages", "lag_seconds", "last_seen", "self")
    rows = node.sql("SELECT id, %s FROM marmot_nodes" % ", ".join(names))
    return {r[0]: dict(zip(names, r[1:])) for r in rows}


def everybody(nodes, ids):
    def all_live():
        for n in nodes:
            seen = nodes_of(n)
            if set(seen) != set(ids) or any(r["state"] != "live" or r["lag_messages"] for r in seen.values()):
                return None
        return seen
    seen = wait_until(all_live, 15, "every node sees all three, live and without a lag")
    ok("every node sees all of them")
    positions = [s["position"] for s in nodes[0].status()["shards"]]
    check("with their positions", all(json.loads(r["positions"]) == positions for r in seen.values()), seen)
    check("and names", {r["name"] for r in seen.values()} == {n.name + ".db" for n in nodes}
          and {r["host"] for r in seen.values()} == {socket.gethostname()}, seen)
    check("one of them is itself", [r["name"] for r in seen.values() if r["self"]] == [nodes[-1].name + ".db"], seen)


def garbage(nats, node, ids):
    def hello(number, **parts):
        return (field(1, parts.get("cluster", "")) + fixed(2, number) + fixed(3, 1) + field(4, parts.get("name", "x")) +
                field(6, "live"))
    with RawNats(nats.port) as raw:
        for data in (b"", b"\xff" * 50, b"x" * 100000, hello(77, name="y" * 5000), hello(78, cluster="f" * 32)):
            raw.publish(SUBJECT, data)
        raw.publish(SUBJECT, hello(79, name="strange\x1b"))
        wait_until(lambda: 79 in nodes_of(node), 5, "a hello that is well-formed is shown")
        seen = nodes_of(node)
    check("others are passed over", set(seen) == set(ids) | {79}, seen)
    check("control characters are not shown", seen[79]["name"] == "strange?", seen[79])
    check("replication goes on", node.sync() == 1, node.status())


def silence(nats, nodes, ids):
    gone = nodes[2]
    number = next(k for k, v in ids.items() if v == gone.name)
    gone.pause()
    nodes[0].many("INSERT INTO t(v) VALUES (?)", [[k] for k in range(20)])
    row = wait_until(lambda: (lambda r: r if r["state"] == "silent" else None)(nodes_of(nodes[1])[number]), 15,
                     "a node that hangs is silent")
    check("it is known how far it was", row["lag_messages"] >= 1 and row["lag_seconds"] >= 3 and row["last_seen"], row)
    gone.resume()
    wait_until(lambda: nodes_of(nodes[1])[number]["state"] == "live", 15, "it is back")
    gone.quit()
    wait_until(lambda: nodes_of(nodes[1])[number]["state"] == "silent", 3, "one that ends says so itself")
    ok("one that ends says so itself")
    nodes[1].restart()
    seen = wait_until(lambda: nodes_of(nodes[1]) if len(nodes_of(nodes[1])) >= 3 else None, 10, "who wrote is known")
    check("who only the log knows is silent", seen[number]["state"] == "silent" and seen[number]["name"] is None, seen)
    gone.start()
    nats.kill()
    wait_until(lambda: all(r["state"] == "silent" for r in nodes_of(nodes[0]).values() if not r["self"]), 15,
               "without a server all others are silent")
    nats.start()
    wait_until(lambda: {r["state"] for k, r in nodes_of(nodes[0]).items() if k in ids} == {"live"}, 20,
               "with it they are not")
    ok("an outage passes")


def cut_off(ws, nats, nodes, config):
    """A connection that is lost and there again at once: it hears of who comes after that."""
    link = Proxy(nats.port)
    late = Node(ws, "late", config=dict(config, nats={"urls": ["nats://127.0.0.1:%d" % link.port]}), schema=SCHEMA)
    late.wait_state("live")
    link.cut()
    nodes[0].sql("INSERT INTO t(id, v) VALUES (3000, 'after the cut')")
    wait_until(lambda: late.one("SELECT count(*) FROM t WHERE id = 3000"), 20, "it is connected again")
    last = Node(ws, "last", config=config, schema=SCHEMA)
    wait_until(lambda: "last.db" in {r["name"] for r in nodes_of(late).values()}, 15,
               "after a lost connection others are heard again")
    ok("after a lost connection others are heard again")
    for n in (late, last):
        n.quit()


def standby(nodes, ids):
    second = Node(nodes[0].workspace, "second", config=nodes[0].config, db=nodes[0].db, watch=False)
    second.wait_state("standby")
    seen = nodes_of(second)
    check("a process that stands by asks around", {k for k, r in seen.items() if r["state"] == "live"} >= set(ids), seen)
    second.quit()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url]}, "replication_log": {"shards": SHARDS}}
        nodes = [Node(ws, name, config=config, schema=SCHEMA) for name in "abc"]
        other = Node(ws, "other", config=dict(config, cluster="other"), schema=SCHEMA)
        for n in nodes:
            n.workspace = ws
            n.sql("INSERT INTO t(id, v) VALUES (?, 1)", 1000 + nodes.index(n))
            n.sync(20000)
        ids = {n.status()["node_id"]: n.name for n in nodes}
        everybody(nodes, ids)
        check("clusters of one server do not meet", len(nodes_of(other)) == 1, nodes_of(other))
        standby(nodes, ids)
        silence(nats, nodes, ids)
        garbage(nats, nodes[0], ids)
        cut_off(ws, nats, nodes, config)
        wait_equal(nodes)
    finish()


main()
