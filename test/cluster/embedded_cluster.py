"""Three embedded servers form a JetStream cluster that stands the end of any one
of them; a leaf joins it and stays through that; addresses come from DNS; wrong settings are told.
marmot-test: parallel limit=240
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_nats import RawNats  # noqa: E402

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"


class Place:
    """One machine: its three ports, its folder for servers."""
    def __init__(self, ws, name):
        self.name = name
        self.port = free_port()
        self.bind = "127.0.0.1:%d" % self.port
        self.cluster = "127.0.0.1:%d" % (self.port + 1)
        self.leaf = "127.0.0.1:%d" % (self.port + 2)


def config(place, **nats):
    return {"nats": dict({"bind_address": place.bind}, **nats), "replication_log": {"replicas": 3}}


def members(ws, nats):
    places = [Place(ws, name) for name in "abc"]
    peers = ["nats://%s/" % p.cluster for p in places]
    nodes = []
    for p in places:
        nodes.append(Node(ws, p.name, config=config(p, cluster_addr=p.cluster, cluster_peers=peers, **nats), schema=SCHEMA))
    return places, nodes


def together(nodes, seconds=90):
    for n in nodes + nodes:
        if n.sync(seconds * 1000) != 1:
            raise Timeout("%s did not sync: %s" % (n.name, n.status()))
    wait_equal(nodes)


def three(ws):
    places, nodes = members(ws, {})
    for k, n in enumerate(nodes):
        n.sql("INSERT INTO t VALUES (?, ?)", k, n.name)
    together(nodes)
    check("three embedded servers are one cluster", len({n.status()["server_pid"] for n in nodes} - {0}) == 3
          and len({n.status()["url"] for n in nodes}) == 3, [n.status()["server_pid"] for n in nodes])
    with RawNats(places[0].port) as raw:
        made, _ = raw.stream("marmot-changes-c-1")
    check("the stream has three copies", made["num_replicas"] == 3, made)
    return places, nodes


def one_ends(nodes, far, link):
    """The member that the leaf `far` is linked to, then another."""
    first = link()
    for k in (first, (first + 1) % 3):
        gone = nodes[k]
        rest = [n for n in nodes if n is not gone] + [far]
        gone.kill()
        began = time.monotonic()
        rest[0].sql("INSERT INTO t(v) VALUES ('without ' || ?)", gone.name)
        together(rest)
        note("%s killed: %.1f s until the others went on" % (gone.name, time.monotonic() - began))
        check("the leaf is linked to another than %s" % gone.name, link() != k, "still there")
        gone.start()
        gone.sql("INSERT INTO t(v) VALUES ('back ' || ?)", gone.name)
        far.sql("INSERT INTO t(v) VALUES ('leaf, back ' || ?)", gone.name)
        together(nodes + [far])
        ok("the cluster stands the end of %s, and takes it back" % gone.name)


def leaf(ws, places, nodes):
    place = Place(ws, "leaf")
    far = Node(ws, "leaf", config=config(place, leaf_servers=["nats://%s" % p.leaf for p in places]), schema=SCHEMA)
    far.sql("INSERT INTO t(v) VALUES ('from the leaf')")
    together(nodes + [far])
    check("a leaf replicates through its own server", far.status()["server_pid"] != 0
          and far.status()["url"].endswith(":%d" % place.port), far.status())
    nodes[1].sql("UPDATE t SET v = v || '!'")
    together(nodes + [far])
    rows = far.sql("SELECT count(*) FROM marmot_changes WHERE op = 'update'")
    check("and reads the log", rows[0][0] > 0, rows)
    log = os.path.join(ws.state_home, "marmot", "nats-%d-leaf" % place.port, "nats.log")

    def links():
        with open(log) as f:
            return re.findall(r"(\S+) - lid:\d+ - Leafnode connection (created|closed)", f.read())
    check("it is linked to one member", [what for _, what in links()] == ["created"], links())
    return far, lambda: [p.leaf for p in places].index(links()[-1][0])


def with_password(ws):
    """Members, and a leaf, say who they are; a stranger is no member. DNS names them."""
    secret = {"user_name": "m", "user_password": "p@ss:/\"w"}
    places = [Place(ws, "p" + name) for name in "abc"]
    peers = ["nats://%s/" % p.cluster for p in places[:2]] + [
        "dns://localhost:%d/?min=1&interval_ms=100" % (places[2].port + 1)]
    nodes = [Node(ws, p.name, config=config(p, cluster_addr=p.cluster, cluster_peers=peers, **secret), schema=SCHEMA)
             for p in places]
    for n in nodes:
        n.sql("INSERT INTO t(v) VALUES (?)", n.name)
    together(nodes)
    ok("a cluster with a password, one member of which is found by DNS")
    check("no status shows it", all("p@ss" not in json.dumps(n.status()) for n in nodes), "shown")
    place = Place(ws, "pleaf")
    far = Node(ws, "pleaf", config=config(place, leaf_servers="nats://" + places[0].leaf, **secret), schema=SCHEMA)
    far.sql("INSERT INTO t(v) VALUES ('leaf')")
    together(nodes + [far])
    ok("and a leaf with it")
    far.quit()
    wrong = dict(secret, user_password="wrong")
    place = Place(ws, "wleaf")
    stranger = Node(ws, "wleaf", config=config(place, leaf_servers="nats://" + places[0].leaf, **wrong), schema=SCHEMA)
    check("who has another is no leaf", stranger.sync(3000) == 0, stranger.status())
    stranger.kill()
    for n in nodes:
        n.quit()


def waits_for_dns(ws):
    place = Place(ws, "dns")
    n = Node(ws, "dns", config=config(place, cluster_addr=place.cluster,
                                      cluster_peers="dns://localhost:%d/?min=99&interval_ms=100" % (place.port + 1)),
             schema=SCHEMA)
    why = wait_until(lambda: (lambda s: s["why"] if "addresses" in s["why"] else None)(n.status()), 10, "the status says so")
    check("too few addresses are waited for", "localhost has" in why and "of 99 addresses" in why, why)
    began = time.monotonic()
    n.quit()
    bar("and hold no end up", time.monotonic() - began < 5, time.monotonic() - began)


def main():
    with Workspace() as ws:
        places, nodes = three(ws)
        far, link = leaf(ws, places, nodes)
        one_ends(nodes, far, link)
        for n in [far] + nodes:
            n.quit()
        ok("all end")
    with Workspace() as ws:
        with_password(ws)
        waits_for_dns(ws)
    finish()


main()
